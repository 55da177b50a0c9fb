"""The exercises of a chapter: functions whose `def` line ends in `# exercise`, found in its text.

An exercise is known by its qualified name, `softmax` or `Linear.forward`. The file of a learner is searched for the
names of the reference, so that a mark that was deleted by accident does not delete an exercise. An exercise that is
marked `# exercise (starred)` may be left out: a stand-in for the chapter then gets the reference's function."""

from __future__ import annotations

import ast
import io
import re
import textwrap
import threading
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = [
    "PARSING", "Exercise", "body_lines", "exercises", "fill_starred", "framed", "functions", "graft", "graft_tree",
    "parse", "section", "skeleton", "stand_on", "unwritten",
]  # fmt: skip

Function = ast.FunctionDef | ast.AsyncFunctionDef
MARK = re.compile(r"#\s*exercise(\s+\(starred\))?\s*$")
PARSING = threading.RLock()  # Python 3.11 can make syntax trees in one thread at a time


@dataclass(frozen=True)
class Exercise:
    """A function in a text: its qualified name, the line of its `def`, its first and last line, its docstring, and
    whether it has a star, which means that it may be left out."""

    name: str
    line: int
    first: int
    last: int
    doc: str
    starred: bool = False


def parse(text: str) -> ast.Module:
    """The syntax tree of a text, from any thread. SyntaxError for a text that is not Python."""
    with PARSING:
        return ast.parse(text)


def functions(tree: ast.Module) -> dict[str, Function]:
    """All functions of a module and methods of its classes, by qualified name; the last of a name counts."""
    return dict(_walk(tree, ""))


def exercises(text: str) -> list[Exercise]:
    """The exercises of a chapter, in the order of the text. SyntaxError for a text that is not Python."""
    lines = text.splitlines()
    marked = {name: (node, MARK.search(lines[node.lineno - 1])) for name, node in functions(parse(text)).items()}
    return [
        Exercise(name, node.lineno, _first(node), node.end_lineno or node.lineno, ast.get_docstring(node) or "",
                 starred=bool(mark[1]))
        for name, (node, mark) in sorted(marked.items(), key=lambda item: item[1][0].lineno)
        if mark
    ]  # fmt: skip


def skeleton(text: str, label: str) -> str:
    """The chapter with the body of every exercise replaced: signature, docstring, prose and all other code stay.

    `label` is the chapter as the error names it: `raise NotImplementedError("03 activations: softmax")`."""
    nodes = functions(parse(text))
    blank = {e.name: f'raise NotImplementedError("{label}: {e.name}")' for e in exercises(text)}
    return _edit(text, [_blank(text, nodes[name], body) for name, body in blank.items()])


def framed(text: str, begin: str, end: str) -> str:
    """The chapter with a comment before and one after what a skeleton replaces in each exercise."""
    names = [exercise.name for exercise in exercises(text)]
    text = graft(text, text, names)  # a body on the line of its `def` gets lines of its own
    nodes, lines = functions(parse(text)), text.splitlines()
    for node in sorted((nodes[name] for name in names), key=lambda node: -node.lineno):
        before, _, last, _, _ = _blank(text, node, "")
        indent = " " * node.body[0].col_offset
        lines[last:last] = [indent + end]
        lines[before:before] = [indent + begin]
    return "\n".join(lines) + "\n"


def unwritten(text: str, names: Iterable[str]) -> list[str]:
    """Those of the named exercises whose body is empty or only raises NotImplementedError, or that are not there."""
    found = functions(parse(text))
    return [name for name in names if name not in found or _is_blank(found[name])]


def fill_starred(tree: ast.Module, reference: str) -> None:
    """Fill the functions with a star that a tree leaves out with the reference's bodies, which get the line number of
    their `def`."""
    names = [exercise.name for exercise in exercises(reference) if exercise.starred]
    nodes = functions(tree)
    names = [name for name in names if name in nodes and _is_blank(nodes[name])]
    if names:
        graft_tree(tree, parse(reference), names)
        for name in names:
            stand_on(nodes[name].body, nodes[name].lineno)


def stand_on(body: Iterable[ast.stmt], line: int) -> None:
    """Give statements, and everything inside them, the same line number."""
    for node in (inner for statement in body for inner in ast.walk(statement)):
        if hasattr(node, "lineno"):
            vars(node).update(lineno=line, end_lineno=line, col_offset=0, end_col_offset=0)


def graft(text: str, donor: str, names: Iterable[str]) -> str:
    """The text with the bodies of the named functions taken from another text. ValueError for a name that one lacks."""
    nodes, donors = functions(parse(text)), functions(parse(donor))
    _demand(names := list(names), nodes, donors)
    return _edit(
        text, [_replace(text, nodes[name], _body(donor, donors[name], nodes[name].col_offset)) for name in names]
    )


def graft_tree(tree: ast.Module, donor: ast.Module, names: Iterable[str]) -> None:
    """Like `graft`, on trees and in place: what is not replaced keeps its line numbers."""
    nodes, donors = functions(tree), functions(donor)
    _demand(names := list(names), nodes, donors)
    for name in names:
        nodes[name].body = donors[name].body


# An edit is (first line, column in it, last line, column after it, text), with lines counted from 1.
Edit = tuple[int, int, int, int, str]


def _walk(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, Function]]:
    for child in node.body:
        if isinstance(child, Function):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _walk(child, f"{prefix}{child.name}.")


def _first(node: ast.AST) -> int:
    """The line where a statement begins, decorators included."""
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])  # type: ignore[attr-defined]


def _statements(node: Function) -> list[ast.stmt]:
    """The body without its docstring."""
    return node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body


def section(text: str, line: int) -> str:
    """The title of the section of a chapter that contains a line."""
    lines = [each.strip() for each in text.splitlines()[:line]]  # a heading may be inside a class
    return [each.removeprefix("# ## ") for each in lines if each.startswith("# ## ")][-1]


def body_lines(node: Function) -> set[int]:
    """The lines of a function's code, without its head and docstring."""
    inner = (inner for statement in _statements(node) for inner in ast.walk(statement))
    return {each.lineno for each in inner if hasattr(each, "lineno")}


def _is_blank(node: Function) -> bool:
    match _statements(node):
        case [] | [ast.Pass()] | [ast.Expr(ast.Constant())]:
            return True
        case [ast.Raise(exc=ast.Call(func=ast.Name(id="NotImplementedError")) | ast.Name(id="NotImplementedError"))]:
            return True
    return False


def _colon(text: str, node: Function) -> tuple[int, int]:
    """Line and column just after the colon that ends the signature."""
    lines = text.splitlines(keepends=True)[node.lineno - 1 : node.end_lineno]
    depth = 0
    for token in tokenize.generate_tokens(io.StringIO("".join(lines)).readline):
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
            if token.string == ":" and depth == 0:
                return node.lineno + token.end[0] - 1, token.end[1]
    raise ValueError(f"line {node.lineno}: a function without a colon")


def _on_one_line(text: str, node: Function) -> bool:
    return _colon(text, node)[0] == node.body[0].lineno


def _column(text: str, line: int, offset: int) -> int:
    """A column in characters from an offset in bytes, which is how syntax trees count."""
    return len(text.splitlines()[line - 1].encode()[:offset].decode())


def _blank(text: str, node: Function, body: str) -> Edit:
    last = node.body[-1]
    end_line, end_offset = last.end_lineno or last.lineno, last.end_col_offset or 0
    end = end_line, _column(text, end_line, end_offset)
    if _on_one_line(text, node):
        return node.body[0].lineno, _column(text, node.body[0].lineno, node.body[0].col_offset), *end, body
    statements = _statements(node)
    if len(statements) < len(node.body):
        doc = node.body[0]
        start = doc.end_lineno or doc.lineno, _column(text, doc.end_lineno or doc.lineno, doc.end_col_offset or 0)
    else:
        colon = _colon(text, node)[0]
        start = colon, len(text.splitlines()[colon - 1])
    return *start, *end, "\n" + " " * node.body[0].col_offset + body


def _body(text: str, node: Function, indent: int) -> str:
    """The whole block of a function, docstring and comments included, indented by more than `indent`."""
    if _on_one_line(text, node):
        return " " * (indent + 4) + "; ".join(ast.unparse(statement) for statement in node.body)
    block = "\n".join(text.splitlines()[_colon(text, node)[0] : node.end_lineno])
    if node.body[0].col_offset <= indent:
        return textwrap.indent(textwrap.dedent(block), " " * (indent + 4))
    return block


def _replace(text: str, node: Function, body: str) -> Edit:
    line, column = _colon(text, node)
    if not _on_one_line(text, node):
        column = len(text.splitlines()[line - 1])  # a comment after the colon stays
    last = node.end_lineno or node.lineno
    comment = "  # exercise" if _on_one_line(text, node) and MARK.search(text.splitlines()[last - 1]) else ""
    return line, column, last, len(text.splitlines()[last - 1]), f"{comment}\n{body}"


def _edit(text: str, edits: list[Edit]) -> str:
    lines = text.splitlines()
    for first, start, last, end, new in sorted(edits, reverse=True):
        block = lines[first - 1][:start] + new + lines[last - 1][end:]
        lines[first - 1 : last] = block.split("\n")
    return "\n".join(lines) + "\n"


def _demand(names: Iterable[str], nodes: dict, donors: dict) -> None:
    for name in names:
        if name not in nodes or name not in donors:
            where = "the text" if name not in nodes else "the donor"
            raise ValueError(f"{where} defines no {name}: it has {', '.join(nodes if name not in nodes else donors)}")
