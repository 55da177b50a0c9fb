"""The reference: a page for each module with public names, in the order of the course, with an example that was run."""

from __future__ import annotations

import ast
import functools
import html
import re
from pathlib import Path

import reading
import weave
from experiments import read_curriculum
from program import printed_by

PROGRAMS = Path("site", "programs", "reference")


@functools.cache
def documented_modules(root: Path) -> list[tuple[str, Path]]:
    """(module, file) of every module with public names: package by package, chapters before their appendices."""
    course = read_curriculum(root)
    order = _order(root)
    found = []
    for name in (package.name for package in course.packages):
        folder = root / "packages" / name / "src" / name.replace("-", "_")
        modules = [(f"{folder.name}.{file.stem}", file) for file in folder.glob("[!_]*.py") if public_names(file)]
        found += sorted(modules, key=lambda entry: (order.get(entry[0], len(order)), entry[0]))
    return found


def in_navigation(root: Path) -> list[str]:
    """The modules that a reader of the course meets: chapters and appendices. Others are found by the overview."""
    order = _order(root)
    return [module for module, _ in documented_modules(root) if module in order]


def _order(root: Path) -> dict[str, int]:
    course = read_curriculum(root)
    entries = []
    for chapter in course.chapters:
        entries += [chapter, *(entry for entry in course.appendices if entry.chapter == chapter.slug)]
    return {entry.module: number for number, entry in enumerate(entries)}


@functools.cache
def public_names(file: Path) -> list[str]:
    """The names in a module's `__all__`, read without importing it."""
    return reading.public_names(ast.parse(file.read_text(encoding="utf-8")))


def reference_table(root: Path) -> str:
    """A row for each module of the reference."""
    rows = ["| module | names | explained in |", "| --- | --: | --- |"]
    entries = {entry.module: entry for entry in weave.written(root)}
    for module, file in documented_modules(root):
        entry = entries.get(module)
        told = ""
        if isinstance(entry, weave.Chapter):
            told = f"[{entry.number:02d} {entry.title}](../chapters/{entry.slug}.md)"
        if isinstance(entry, weave.Appendix):
            told = f"appendix [{entry.title}](../chapters/{entry.slug}.md)"
        rows.append(f"| [{module}]({module}.md) | {len(public_names(file))} | {told} |")
    return "\n".join(rows)


def reference(module: str, file: Path, root: Path) -> str:
    """The page of a module: where it is explained, an example, its names with what each is, and their entries."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    chapter = {entry.module: entry for entry in weave.written(root)}.get(module)
    told = ""
    if isinstance(chapter, weave.Chapter):
        name = f"{chapter.number:02d} {chapter.title}"
        told = f"Explained in chapter [{name}](../chapters/{chapter.slug}.md)."
    if isinstance(chapter, weave.Appendix):
        told = f"Explained in the appendix [{chapter.title}](../chapters/{chapter.slug}.md)."
    names = _by_place(tree)
    rows = "\n".join(f"| [`{name}`][{module}.{name}] | {_first_sentence(tree, name)} |" for name in names)
    table = f"| name | what it is |\n| --- | --- |\n{rows}"
    # A search finds the entries below the table.
    table = f'<div class="tt-names" markdown="1" data-search-exclude>\n\n{table}\n\n</div>'
    entries = "\n".join(
        f"::: {module}.{name}\n    options:\n      inherited_members: {_from_parts(name, root)}\n" for name in names
    )
    return f"---\ntitle: {module}\n---\n\n# {module}\n\n{told}\n\n{_example(module, root)}\n\n{table}\n\n{entries}"


def _by_place(tree: ast.Module) -> list[str]:
    """The public names in the order in which the module defines them; those that it defines indirectly come last."""
    public = reading.public_names(tree)
    places = {getattr(node, "name", ""): node.lineno for node in tree.body}
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for name in (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)):
            places.setdefault(name, node.lineno)
    return sorted(public, key=lambda name: places.get(name, 10**6))


def _first_sentence(tree: ast.Module, name: str) -> str:
    """What a name is, from its docstring."""
    node = next((node for node in tree.body if getattr(node, "name", "") == name), None)
    text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split()) if node else ""
    sentence = re.split(r"(?<=[.:;])\s(?=[A-Z`])", text)[0]
    return html.escape(sentence, quote=False).replace("|", "\\|").replace("[", "\\[").replace("*", "\\*")


def _example(module: str, root: Path) -> str:
    """A short program that uses the module, and what it printed when the site was built."""
    file = root / PROGRAMS / f"{module.split('.')[1]}.py"
    if not file.exists():
        return ""
    source, printed = file.read_text(encoding="utf-8").strip(), printed_by(root)[file.stem]
    shown = f"\n\n```{{ .text .tt-output .no-copy }}\n{printed}\n```" if printed else ""
    return f"```{{ .python .tt-code }}\n{source}\n```{shown}"


def _from_parts(name: str, root: Path) -> list[str]:
    """The public methods that a class has from parts without an entry of their own, so that its entry shows them."""
    found, todo, seen = [], [name], {name}
    while todo:
        for base in _bases(root).get(todo.pop(), {}):
            if base in _bases(root) and base not in _public(root) | seen:
                seen.add(base)
                todo.append(base)
                found += _methods(root)[base]
    return sorted(set(found))


@functools.cache
def _public(root: Path) -> set[str]:
    return {name for _, file in documented_modules(root) for name in public_names(file)}


@functools.cache
def _classes(root: Path) -> list[ast.ClassDef]:
    trees = (ast.parse(file.read_text(encoding="utf-8")) for file in (root / "packages").glob("tt-*/src/*/*.py"))
    return [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]


@functools.cache
def _bases(root: Path) -> dict[str, list[str]]:
    return {node.name: [ast.unparse(base).split(".")[-1] for base in node.bases] for node in _classes(root)}


@functools.cache
def _methods(root: Path) -> dict[str, list[str]]:
    return {
        node.name: [m.name for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]
        for node in _classes(root)
    }
