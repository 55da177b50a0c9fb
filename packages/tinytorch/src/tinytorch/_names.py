"""What torch's modules contain, and how a module of tinytorch offers what we have of it.

`names/*.txt` lists every public name of torch 2.13, with the parameters of functions (tools/torch_names.py writes it).
A module of tinytorch takes a name when it is first asked for: `_sources.py` says which of our packages may have it, and
`_calls.py` gives functions torch's parameter names. What we lack is refused with the nearest that we have."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinytorch import _kernels, _sources
from tinytorch._calls import adapted


def torch_name(module: str) -> str:
    """The module of torch whose place a module of tinytorch has."""
    return "torch" + module.removeprefix("tinytorch")


@functools.cache
def torch_names(module: str) -> dict[str, list[str]]:
    """Every public name of a module of torch, with the parameters of each form of a function, as text."""
    file = Path(__file__).parent / "names" / f"{module}.txt"
    forms: dict[str, list[str]] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        name, parenthesis, rest = line.partition("(")
        forms.setdefault(name, []).extend([parenthesis + rest] if parenthesis else [])
    return forms


def offer(module: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for a module of tinytorch (PEP 562)."""
    return functools.partial(_attribute, module), functools.partial(_listing, module)


def _attribute(module: str, name: str) -> Any:
    if name == "__all__":
        return offered(module)
    if name[:2] == "__":
        raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name)
    found = find(module, name)
    if found is None:
        raise AttributeError(_missing(module, name), name=name)
    setattr(sys.modules[module], name, found)
    return found


def find(module: str, name: str) -> Any:
    """What tinytorch offers under a name: a module of its own, something of a package, a refusal, or None."""
    theirs, place = torch_names(torch_name(module)), torch_name(module)
    submodule = f"{module}.{name}"
    if "__path__" in vars(sys.modules[module]) and name[0] != "_" and importlib.util.find_spec(submodule):
        return importlib.import_module(submodule)
    if name in theirs and (source := source_of(module, name)):
        value = getattr(_package(source[0]), source[1])
        is_function = callable(value) and not isinstance(value, type)
        return adapted(value, name, module, theirs[name]) if is_function and theirs[name] else value
    advice = _sources.REFUSED.get(f"{place}.{name}") or (name in theirs and _sources.REFUSED.get(place))
    return refused(f"{place}.{name}", advice) if advice else None


def source_of(module: str, name: str) -> tuple[str, str] | None:
    """The package that has what torch calls so, and its name there; None if there is none."""
    if name in _sources.OTHERS.get(module, ()):
        return None
    ours = _sources.OTHER_NAMES.get(module, {}).get(name, name)
    for source in _sources.SOURCES.get(module, ()):
        package = _package(source)
        if package and ours in package.__all__:
            return source, ours
    return None


@functools.cache
def _package(name: str) -> types.ModuleType | None:
    if importlib.util.find_spec(name) is None:
        return None
    package = importlib.import_module(name)
    _kernels.watch()
    return package


def offered(module: str) -> list[str]:
    """The public names of a module of tinytorch."""
    own = vars(importlib.import_module(module))
    theirs = torch_names(torch_name(module))
    return [name for name in theirs if name in own or find(module, name) is not None]


def _listing(module: str) -> list[str]:
    return sorted({*offered(module), *(name for name in vars(sys.modules[module]) if name[:2] == "__")})


# -- what we lack -----------------------------------------------------------------------------------------------------


def _missing(module: str, name: str) -> str:
    theirs, ours = torch_names(torch_name(module)), torch_name(module)
    near = difflib.get_close_matches(name, offered(module), 3, 0.7)
    hint = f"; the nearest here: {', '.join(near)}" if near else ""
    if name not in theirs:
        return f"module {module!r} has no attribute {name!r}, and {ours} has none either{hint}"
    advice = _sources.ADVICE.get(f"{ours}.{name}") or _sources.ADVICE.get(ours)
    return f"{ours} has `{name}`; {module} does not{': ' + advice if advice else hint}"


def refused(name: str, advice: str) -> type:
    """A class in the place of something of torch's that we do not have: it can be imported, and says so when called."""

    def refuse(cls, *args, **options):
        raise RuntimeError(f"{name} is not available: {advice}")

    short = name.rpartition(".")[2]
    return type(short, (), {"__new__": refuse, "__doc__": f"Not available: {advice}"})
