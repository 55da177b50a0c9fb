"""Stand-ins: another implementation of a chapter, or of a whole package, for all code that imports it.

`tt.toml` in the working directory, or in a folder above it, says what stands in for what:

    [use]
    autograd = "work/autograd.py"       # a chapter or an appendix, by its name: a file, or a dotted module
    tt-optim = "work/optim"             # a whole package: a folder, or a dotted module

The environment variable TT_SWAP goes before any tt.toml: `autograd=work/autograd.py,05=reference`, the path
of another .toml file, or 0 for no stand-ins. Modules that a stand-in for a package lacks come from the reference."""

from __future__ import annotations

import ast
import functools
import importlib.util
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any

from tt_tito import course, curriculum
from tt_tito.exercises import fill_starred
from tt_tito.reading import Unreadable, decoded, text
from tt_tito.finder import Finder, search

__all__ = [
    "StandIn", "SwapError", "Table", "defined", "entries", "exported", "find", "in_use", "install", "read", "table",
    "wanted", "whole",
]  # fmt: skip


MOST = 8  # names in a message


class SwapError(ImportError):
    """Something that cannot stand in. The message names it, what it should replace, the setting, and what is wrong."""


@dataclass(frozen=True)
class Table:
    """The table of stand-ins: the file or folder for each module's name. `origin` is the name of the table in
    messages."""

    targets: dict[str, Path] = field(default_factory=dict)
    origin: str = "tt.toml"


# ## The table


def read(setting: str) -> Table:
    """The table that a setting describes: the path of a .toml file, or `NAME=PATH,...`. SwapError where it is wrong."""
    if "=" in setting and not os.path.lexists(setting):  # a folder's name may have a =, too
        pairs = [pair.partition("=")[::2] for pair in re.split(r",(?=\s*[\w-]+\s*=)", setting) if pair.strip()]
        return table({name.strip(): value.strip(" ,") for name, value in pairs}, Path.cwd(), "TT_SWAP")
    file = Path(setting)
    try:
        return table(entries(file), file.parent, file.name)
    except Unreadable as error:
        raise SwapError(str(error)) from None


def entries(file: Path) -> dict[str, str]:
    """The entries under [use] in a .toml file. Unreadable for a file that cannot be read."""
    try:
        use = tomllib.loads(text(file)).get("use", {})
    except Unreadable as error:
        raise Unreadable(f"{error} ({file.parent})") from None
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{file} cannot be read, and says what stands in for which chapter: {error}") from None
    if not isinstance(use, dict) or not all(isinstance(value, str) and "\0" not in value for value in use.values()):
        raise Unreadable(f'{file}: [use] is a table of names and paths, such as autograd = "work/autograd.py"')
    return use


def in_use() -> Table:
    """The table for a process that starts in this working directory and environment; empty where nothing is swapped."""
    setting = os.environ.get("TT_SWAP") or search(os.getcwd())
    return Table() if not setting or setting == "0" else read(setting)


def install(table: Table) -> None:
    """Make this process use a table instead of what tt.toml and TT_SWAP say; modules already imported stay."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Finder)]
    sys.meta_path.insert(0, Finder("", table))


def table(use: dict[str, str], base: Path, origin: str) -> Table:
    """The table of the entries under [use], with paths from a folder. SwapError if an entry is wrong."""
    modules = {_module(name, origin): value for name, value in use.items()}
    values = {module: value for module, value in modules.items() if value != "reference"}
    _demand_whole(values, origin)
    return Table({module: _target(module, value, base, origin) for module, value in values.items()}, origin)


def whole(value: str) -> dict[str, str]:
    """The packages that a dotted module and those beside it stand in for: tt_torch.tensor goes together with
    tt_torch.optim and tt_torch.autograd, since its tensors are not the course's. Empty for anything else."""
    family = value.rpartition(".")[0]
    beside = {p.name: f"{family}.{p.name.removeprefix('tt-')}" for p in curriculum.packages()}
    if not family.isidentifier() or value not in beside.values():
        return {}
    return {name: module for name, module in beside.items() if course.locate(module) is not None}


def _demand_whole(values: dict[str, str], origin: str) -> None:
    """SwapError if a package's stand-in is to be used without those that go together with it."""
    for module, value in values.items():
        together = whole(value) if "." not in module else {}
        missing = [name for name, other in together.items() if values.get(name.replace("-", "_")) != other]
        if missing:
            lines = ", ".join(f'{name} = "{together[name]}"' for name in missing)
            raise SwapError(
                f"{origin} says that {value} stands in for {module}. Its tensors are not the course's, so the packages "
                f"beside it must stand in, too: add {lines}"
            )


def _module(name: str, origin: str) -> str:
    """The module that a name in the table stands for: `autograd`, `07`, `more_rules` or `tt-autograd`."""
    if re.match("tt[-_]", name):
        kinds = [p.module for p in curriculum.packages() if p.name == name.replace("_", "-")]
    else:
        kinds = [a.module for a in curriculum.appendices() if a.slug == name]
    try:
        return kinds[0] if kinds else curriculum.chapter(name).module
    except ValueError as error:
        raise SwapError(f"{origin} names {name!r}: {error}") from None


def _target(module: str, value: str, base: Path, origin: str) -> Path:
    """The file or folder that a value in the table means: a path from the table's folder, or a dotted module."""
    path = base / os.path.expanduser(value)
    if (path.suffix == ".py" and path.is_file()) or path.is_dir():
        return path.resolve()
    spec = course.locate(value) if re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", value) else None
    if spec is None or not spec.origin:
        raise SwapError(f"{origin} says that {value} stands in for {module}, but there is no such file or module")
    return Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)


# ## Finding and loading


def find(table: Table, name: str) -> ModuleSpec | None:
    """The spec of a module's stand-in, or None where the reference is in use."""
    target = table.targets.get(name)
    if target is None:
        return None
    if "." in name:
        file, paths = target / "__init__.py" if target.is_dir() else target, None
    else:
        folder = course.folder(name)
        inits = [target / "__init__.py", folder / "__init__.py"] if target.is_dir() else [target]
        file = next(init for init in inits if init.exists())
        paths = [str(target), str(folder)] if target.is_dir() else [str(folder)]
    loader = StandIn(name, str(file), table.origin, paths)
    return importlib.util.spec_from_file_location(name, file, loader=loader, submodule_search_locations=paths)


class StandIn(SourceFileLoader):
    """Loads a stand-in from its source, after a look at whether it has the names that others will want of it."""

    def __init__(self, fullname: str, path: str, origin: str = "tt.toml", folders: list[str] | None = None):
        super().__init__(fullname, path)
        self.origin, self.folders = origin, folders

    def get_resource_reader(self, name: str | None = None) -> Any:
        """Where the data files of a package are: in its stand-in, else in the reference."""
        from importlib.resources.readers import MultiplexedPath  # takes longer than all the rest

        reader: Any = super().get_resource_reader(name)
        if self.folders:
            reader.files = functools.partial(MultiplexedPath, *map(Path, self.folders))
        return reader

    def parse(self) -> ast.Module:
        """The module as a tree, which is then compiled; SyntaxError with file and line, SwapError for no text."""
        try:
            source = decoded(self.get_data(self.path), Path(self.path).name)
        except Unreadable as error:
            raise SwapError(f"{error} It stands in for {self.name} (see {self.origin})", name=self.name) from None
        tree = ast.parse(source, self.path)
        if reference := _starred(self.name):
            fill_starred(tree, reference)
        return tree

    def get_code(self, fullname: str):
        tree = self.parse()
        names = defined(tree)
        if names is not None:
            self.demand(names)
        return compile(tree, self.path, "exec", dont_inherit=True)

    def exec_module(self, module) -> None:
        super().exec_module(module)
        self.demand(set(dir(module)))

    def demand(self, names: set[str]) -> None:
        """SwapError unless the names that the reference's users need are among these."""
        missing = {name: user for name, user in sorted(wanted(self.name).items()) if name not in names}
        if missing:
            more = f" and {len(missing) - MOST} more" if len(missing) > MOST else ""
            first, user = next(iter(missing.items()))
            raise SwapError(
                f"{_near(self.path)} stands in for {self.name} (see {self.origin}), but does not define: "
                f"{', '.join([*missing][:MOST])}{more}. {first} is needed by {user}.",
                name=self.name,
                path=self.path,
            )


def _near(path: str) -> str:
    """A path as short as it can be said from here."""
    try:
        return Path(path).relative_to(Path.cwd()).as_posix()
    except (ValueError, OSError):
        return path


@functools.cache
def _starred(module: str) -> str:
    """The reference's text of a chapter in which some exercises may be left out; nothing for any other module."""
    slug = module.partition(".")[2]
    if all(chapter.module != module for chapter in curriculum.chapters()):
        return ""
    text = _text(course.reference(curriculum.chapter(slug)))
    return text if "# exercise (starred)" in text else ""


# ## The names that others need


@functools.cache
def wanted(module: str) -> dict[str, str]:
    """The names that other code needs of a module, and which code: what it exports, and what its siblings import."""
    spec = course.locate(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module named {module!r}: its package is not installed", name=module)
    folder = Path(spec.origin).parent
    if spec.submodule_search_locations:
        starred = re.findall(rf"from {module}\.(\w+) import \*", _text(Path(spec.origin)))
        names = [name for part in starred for name in exported(folder / f"{part}.py")]
        return dict.fromkeys(names, f"code that imports {module}")
    wanted: dict[str, str] = {}
    for sibling in folder.glob("*.py"):
        for names in re.findall(rf"^from {re.escape(module)} import (\([^)]*\)|.*)", _text(sibling), re.MULTILINE):
            taken = re.findall(r"(\w+)(?:\s+as\s+\w+)?", re.sub("#.*", "", names))
            wanted |= {name: f"{folder.name}.{sibling.stem}" for name in taken if name != "__all__"}
    return wanted | dict.fromkeys(exported(Path(spec.origin)), f"code that imports {folder.name}")


def exported(file: Path) -> list[str]:
    for node in ast.parse(_text(file)).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def defined(tree: ast.Module) -> set[str] | None:
    """The names that a module's text defines, or None where only running it can tell."""
    names: set[str] = set()
    for node in _top_level(tree):
        match node:
            case ast.ImportFrom(names=[ast.alias(name="*")]):
                return None
            case ast.Import() | ast.ImportFrom():
                names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
            case ast.Call(func=ast.Name(id="globals" | "setattr" | "exec")):
                return None
    return names


def _top_level(node: ast.AST) -> Iterator[ast.AST]:
    """All parts of a module that are not inside a function or class."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _top_level(child)
