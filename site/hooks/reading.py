"""Take a chapter apart: a module whose column-0 comments are Markdown becomes prose and code, in the file's order."""

from __future__ import annotations

import ast
import io
import itertools
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass


class WeaveError(Exception):
    """A chapter that cannot become a page; the message names file and line."""


IMPORTS, CONTRACT = "Imports", "What this chapter exports"


@dataclass(frozen=True)
class Prose:
    line: int
    text: str


@dataclass(frozen=True)
class Code:
    line: int
    source: str
    show: str | None = None  # the experiment that this block ends with
    aside: str = ""  # what a block is that a reader of the story may skip: IMPORTS or CONTRACT

    @property
    def last_line(self) -> int:
        return self.line + self.source.count("\n")


@dataclass(frozen=True)
class Text:
    """A chapter taken apart: its title, and prose and code in the order of the file."""

    title: str
    blocks: tuple[Prose | Code, ...]
    tree: ast.Module

    @property
    def public(self) -> list[str]:
        return public_names(self.tree)

    def experiments(self, prefix: str) -> list[str]:
        """The functions called `check_...` or `show_...`; a public one, like `check_gradients`, is a tool instead."""
        functions = [node.name for node in self.tree.body if isinstance(node, ast.FunctionDef)]
        return [name for name in functions if name.startswith(prefix) and name not in self.public]


def read_chapter(source: str, name: str) -> Text:
    """Take the text of a chapter apart; WeaveError for what is neither prose nor code."""
    tree = ast.parse(source, name)
    lines = source.splitlines()
    statement_at = {}
    for node in tree.body:
        for number in range(first_line(node), node.end_lineno + 1):
            statement_at[number] = node
    _refuse_hidden_comments(source, name, statement_at)

    blocks: list[Prose | Code] = []
    number = 1
    while number <= len(lines):
        node = statement_at.get(number)
        if node is not None:
            if not _is_docstring(node, tree):
                blocks += _pieces(node, lines, tree)
            number = node.end_lineno + 1
        elif lines[number - 1].startswith("#"):
            start = number
            while number <= len(lines) and lines[number - 1].startswith("#") and number not in statement_at:
                number += 1
            blocks.append(_prose(lines, start, number - 1, name))
        else:
            number += 1
    blocks = _joined([_unfolded(block) for block in _joined(blocks)])
    if not blocks or not isinstance(blocks[0], Prose) or not (title := re.match(r"# (.+)", blocks[0].text)):
        raise WeaveError(f"{name}:1: a chapter begins with its title, in a comment: `# # Tensor`")
    blocks[0] = Prose(blocks[0].line, blocks[0].text[title.end() :].lstrip("\n"))
    return Text(title[1].strip(), tuple(blocks), tree)


def first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


def _is_docstring(node: ast.stmt, tree: ast.Module) -> bool:
    return node is tree.body[0] and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _refuse_hidden_comments(source: str, name: str, statement_at: dict[int, ast.stmt]) -> None:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line, column = token.start
        if token.type != tokenize.COMMENT or column:
            continue
        if line in statement_at:
            raise WeaveError(f"{name}:{line}: a comment at column 0 inside a statement is not prose; indent it")
        if re.match(r"# (%%|[+-]$)|#\s*(region|endregion)\b", token.string):
            raise WeaveError(f"{name}:{line}: {token.string!r} marks a cell; chapters carry no cell marks")


def _prose(lines: list[str], start: int, end: int, name: str) -> Prose:
    text = []
    for number in range(start, end + 1):
        line = lines[number - 1]
        if line != "#" and not line.startswith("# "):
            raise WeaveError(f"{name}:{number}: prose begins with '# ', a hash and a space: {line[:40]!r}")
        text.append(line[2:])
    return Prose(start, "\n".join(text))


def _pieces(node: ast.stmt, lines: list[str], tree: ast.Module) -> Iterator[Prose | Code]:
    """A statement as code. In a class, a comment that stands by itself between two members is prose."""
    start = first_line(node)
    for first, last in _comments_between_members(node, lines):
        yield Code(start, "\n".join(lines[start - 1 : first - 1]).rstrip())
        comment = (line.strip().removeprefix("#").removeprefix(" ") for line in lines[first - 1 : last])
        yield Prose(first, "\n".join(comment))
        start = last + 2  # after the blank line
    source = "\n".join(lines[start - 1 : node.end_lineno])
    show = node.name if isinstance(node, ast.FunctionDef) and node.name.startswith("show_") else None
    yield Code(start, source, show, _aside(node))


def _comments_between_members(node: ast.stmt, lines: list[str]) -> Iterator[tuple[int, int]]:
    """First and last line of each block of comments in a class that blank lines set off from both neighbours."""
    members = node.body if isinstance(node, ast.ClassDef) else []
    for before, after in itertools.pairwise(members):
        between = range((before.end_lineno or 0) + 1, first_line(after))
        comments = [number for number in between if lines[number - 1].strip()]
        if comments and between[0] < comments[0] and comments[-1] < between[-1]:
            yield comments[0], comments[-1]


def _aside(node: ast.stmt) -> str:
    return IMPORTS if isinstance(node, ast.Import | ast.ImportFrom) else CONTRACT if _is_contract(node) else ""


def _unfolded(block: Prose | Code) -> Prose | Code:
    """A few imports need not be folded away."""
    if isinstance(block, Code) and block.aside == IMPORTS and block.source.count("\n") < 4:
        return Code(block.line, block.source)
    return block


def public_names(tree: ast.Module) -> list[str]:
    """The names in a module's `__all__`."""
    values = [node.value for node in tree.body if _is_contract(node)]
    return [constant.value for value in values for constant in ast.walk(value) if isinstance(constant, ast.Constant)]


def _is_contract(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)


def _joined(blocks: list[Prose | Code]) -> list[Prose | Code]:
    """Neighbours of one kind become one block; an experiment ends a block, since its output stands under it."""
    out: list[Prose | Code] = []
    for block in blocks:
        last = out[-1] if out else None
        if isinstance(last, Prose) and isinstance(block, Prose):
            out[-1] = Prose(last.line, last.text + "\n\n" + block.text)
        elif isinstance(last, Code) and isinstance(block, Code) and not last.show and last.aside == block.aside:
            blank = "\n" * min(2, block.line - last.last_line)  # two blank lines of the file are one on the page
            out[-1] = Code(last.line, last.source + blank + block.source, block.show, block.aside)
        else:
            out.append(block)
    return out


def headings(markdown: str) -> Iterator[tuple[int, str]]:
    """(level, text) of the headings, leaving out what stands inside fences."""
    for line in outside_fences(markdown):
        if heading := re.match(r"(#+) (.+)", line):
            yield len(heading[1]), heading[2]


def outside_fences(markdown: str) -> Iterator[str]:
    fence = None
    for line in markdown.splitlines():
        mark = re.match(r"\s*(`{3,}|~{3,})", line)
        if fence is None and mark:
            fence = mark[1]
        elif fence is not None and mark and line.strip() == fence:
            fence = None
        elif fence is None:
            yield line
