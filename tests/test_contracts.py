"""A chapter's contract is its `__all__`: what stands in for it needs nothing else, and modules stand in one order."""

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from tt_tito import course, curriculum, swap

ROOT = Path(__file__).parents[1]
CHAPTERS = course.written()
FOLDERS = sorted(path.parent for path in ROOT.glob("packages/*/src/*/__init__.py"))
MODULES = {
    ".".join(file.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for folder in FOLDERS
    for file in folder.rglob("*.py")
}
TOGETHER = [{"tt_tito.finder", "tt_tito.swap"}]  # the first runs at every start of Python, and may load the second


def parsed(file):
    return ast.parse(file.read_text(encoding="utf-8"))


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.slug)
def test_other_modules_take_from_a_chapter_what_it_exports(chapter):
    exported = set(swap.exported(course.reference(chapter)))
    taken = {name: user for name, user in swap.wanted(chapter.module).items() if name not in exported}
    assert not taken, f"{chapter.module} is asked for names that are not in its __all__: {taken}"


def test_no_module_takes_a_private_name_from_another():
    taken = [
        f"{module}: from {node.module} import {alias.name}"
        for module, file in MODULES.items()
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.ImportFrom) and node.module in MODULES
        for alias in node.names
        if alias.name.startswith("_") and f"{node.module}.{alias.name}" not in MODULES and alias.name[:2] != "__"
    ]
    assert not taken, "\n".join(taken)


def with_other_private_names(source):
    """A chapter in which each private name of the module is another."""
    mine = {name for name in swap.defined(ast.parse(source)) if name.startswith("_") and not name.startswith("__")}
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    lines = source.splitlines(keepends=True)
    for token in reversed(tokens):
        row, start, end = token.start[0] - 1, token.start[1], token.end[1]
        if token.type == tokenize.NAME and token.string in mine:
            lines[row] = lines[row][:start] + f"_my{token.string}" + lines[row][end:]
        elif token.type == tokenize.STRING and re.match("r?f", token.string, re.IGNORECASE) and token.end[0] == row + 1:
            text = re.sub(r"\b(_\w+)\b", lambda name: f"_my{name[1]}" if name[1] in mine else name[1], token.string)
            lines[row] = lines[row][:start] + text + lines[row][end:]
    return "".join(lines)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.slug)
def test_a_chapter_with_private_names_of_its_own_stands_in(chapter, tmp_path):
    mine = tmp_path / f"{chapter.slug}.py"
    mine.write_text(with_other_private_names(course.reference(chapter).read_text(encoding="utf-8")), encoding="utf-8")
    packages = ", ".join(package.module for package in curriculum.packages())
    program = f"import sys, {packages}; print(sys.modules['{chapter.module}'].__file__)"
    environment = {**os.environ, "TT_SWAP": f"{chapter.slug}={mine}"}
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, cwd=tmp_path)
    assert (process.stdout.strip(), process.returncode) == (str(mine), 0), process.stderr


def test_private_names_are_renamed_everywhere():
    source = "_a = 1\n\n\nclass B:\n    _c = _a\n\n    def f(self, _d):\n        return f(_a, self._a, '_a', f'{_a}')\n"
    assert with_other_private_names(source) == (
        "_my_a = 1\n\n\nclass B:\n    _c = _my_a\n\n    def f(self, _d):\n"
        "        return f(_my_a, self._my_a, '_a', f'{_my_a}')\n"
    )


# -- the order of modules ---------------------------------------------------------------------------------------------


def imported(module, file):
    """The modules that a module imports, anywhere but for types."""
    tree = parsed(file)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)


def circles(graph):
    """The sets of modules of which each can be reached from each other one."""
    reached = {}
    for start in graph:
        found, left = set(), [start]
        while left:
            left += [new for new in graph.get(left.pop(), ()) if new not in found and not found.add(new)]
        reached[start] = found
    return {frozenset(b for b in found if a in reached.get(b, ())) for a, found in reached.items() if a in found}


def test_no_modules_import_each_other():
    graph = {module: {m for m in imported(module, file) if m in MODULES} - {module} for module, file in MODULES.items()}
    found = [circle for circle in circles(graph) if circle not in TOGETHER]
    assert not found, "\n".join(" ".join(sorted(circle)) for circle in found)


def test_a_circle_is_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"f"}, "f": {"e", "a"}}
    assert circles(graph) == {frozenset("bc"), frozenset("ef")}
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == set()


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.slug)
def test_a_chapter_imports_its_support_modules_and_no_appendix_of_its_own(chapter):
    below = set(imported(chapter.module, course.reference(chapter)))
    for appendix in curriculum.appendices():
        if appendix.chapter == chapter.slug:
            assert (appendix.module in below) == bool(appendix.support), appendix.module
