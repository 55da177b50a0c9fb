"""The `check_*` of a chapter as tests of it: claims of the prose must hold for a learner's code, too.

They come after the unit tests, which name the cause of a mistake. They are the reference's, whatever a learner's file
has under their names."""

from __future__ import annotations

import ast
import functools

from tt_tito import course
from tt_tito.curriculum import Chapter
from tt_tito.exercises import parse, section

__all__ = ["checks", "tests_of_checks"]

HEAD = """

import importlib
from tt_tensor.teaching import expect

def holds(check):
    try:
        getattr(importlib.import_module({module!r}), check)()
    except AssertionError as error:
        return f"not: {{error}}"
    return "to hold"
"""
TEST = """

def test_{name}():
    expect("{name}()", lambda: holds({name!r}), "to hold", see={section!r})
"""


@functools.cache
def checks(chapter: Chapter) -> dict[str, ast.FunctionDef]:
    """The checks of a chapter, by name, whose assertions say what they assert."""
    tree = parse(course.reference(chapter).read_text(encoding="utf-8"))
    found = {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("check_") and not node.args.args
    }
    for node in (inner for check in found.values() for inner in ast.walk(check)):
        if isinstance(node, ast.Assert) and node.msg is None:
            node.msg = ast.copy_location(ast.Constant(ast.unparse(node.test)), node)
    return {name: node for name, node in found.items() if name not in _public(tree)}


def tests_of_checks(chapter: Chapter) -> str:
    """The text of a test for each check."""
    text = course.reference(chapter).read_text(encoding="utf-8")
    tests = [
        TEST.format(name=name, section=section(text, node.lineno))
        for name, node in checks(chapter).items()
    ]
    return HEAD.format(module=chapter.module) + "".join(tests) if tests else ""


def _public(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []
