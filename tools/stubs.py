"""Writes the stub files of tinytorch, by which editors and type checkers know what its modules offer.

    hatch run python tools/stubs.py

Names of classes and values lead to the package that has them, so that an editor shows their own text; functions have
torch's parameters. Modules with functions of their own need no stub."""

from __future__ import annotations

import builtins
import importlib
import keyword
import types
from pathlib import Path

from tinytorch._calls import signature
from tinytorch._names import offered, source_of, torch_name, torch_names

FOLDER = Path(__file__).parents[1] / "packages" / "tinytorch" / "src" / "tinytorch"
OWN = "__getattr__, __dir__ = _offer(__name__)\n"
HEAD = '''# Written by tools/stubs.py.
# mypy: disable-error-code="overload-cannot-match, overload-overlap, misc"
import builtins
from typing import Any, overload

from tt_tensor import Tensor as Tensor
'''


def modules() -> list[str]:
    """The modules whose names all come from somewhere else."""
    found = []
    for file in sorted(FOLDER.rglob("*.py")):
        parts = file.relative_to(FOLDER.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = file.read_text(encoding="utf-8")
        if OWN in text and "\ndef " not in text and "\nclass " not in text:
            found.append(name)
    return found


def stub(module: str) -> str:
    """The text of a module's stub."""
    loaded = importlib.import_module(module)
    forms = torch_names(torch_name(module))
    names = [name for name in offered(module) if name != "Tensor"]
    lines = [line for name in names for line in _lines(module, name, getattr(loaded, name), forms)]
    own = [line for line in lines if not line.startswith("from ")]
    return "\n".join([HEAD, *_imports(lines), "", *own]) + "\n"


def _imports(lines: list[str]) -> list[str]:
    """The imports among the lines, those from the same package in one."""
    taken: dict[str, list[str]] = {}
    for line in sorted(line for line in lines if line.startswith("from ")):
        package, _, names = line.removeprefix("from ").partition(" import ")
        taken.setdefault(package, []).append(f"    {names},")
    return [line for package, names in taken.items() for line in (f"from {package} import (", *names, ")")]


def _lines(module: str, name: str, value: object, forms: dict[str, list[str]]) -> list[str]:
    if keyword.iskeyword(name):
        return []
    if isinstance(value, types.ModuleType):
        parent = value.__name__.rpartition(".")[0]
        return [f"from {parent} import {name} as {name}"] if parent == module else [f"{name}: Any"]
    source = source_of(module, name)
    if hasattr(value, "__wrapped__") and source:
        return _functions(name, forms[name])
    if source and source[1] != name:
        return [f"from {source[0]} import {source[1]} as _{name}", f"{name} = _{name}"]
    if source:
        return [f"from {source[0]} import {name} as {name}"]
    home = getattr(value, "__module__", "") or ""
    if home.startswith("tinytorch.") and home != module and hasattr(importlib.import_module(home), name):
        return [f"from {home} import {name} as {name}"]
    if isinstance(value, (builtins.float, str)):
        return [f"{name}: builtins.{type(value).__name__}"]
    return [f"{name}: Any"]


def _functions(name: str, forms: list[str]) -> list[str]:
    """A function's definition, or one for each of its forms."""
    lines = []
    for form in forms:
        if len(forms) > 1:
            lines.append("@overload")
        returned = "Tensor" if form.endswith("-> Tensor") else "Any"
        lines.append(f"def {name}({_parameters(form)}) -> {returned}: ...")
    return lines


def _parameters(form: str) -> str:
    parts: list[str] = []
    for parameter in signature(form).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not any(part.startswith("*") for part in parts):
            parts.append("*")
        stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
        kind = "Tensor" if parameter.name in ("input", "tensor") and parameter.default is parameter.empty else "Any"
        parts.append(f"{stars}{parameter.name}: {kind}{'' if parameter.default is parameter.empty else ' = ...'}")
    return ", ".join(parts)


def file_of(module: str) -> Path:
    """Where a module's stub is."""
    path = FOLDER.joinpath(*module.split(".")[1:])
    return path / "__init__.pyi" if path.is_dir() else path.with_suffix(".pyi")


def main() -> None:
    for module in modules():
        file_of(module).write_text(stub(module), encoding="utf-8")


if __name__ == "__main__":
    main()
