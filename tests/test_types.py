"""What an editor makes of our code: it must not believe that a program ends where a base class only raises."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for path in ROOT.glob("packages/*/src/*/*.py") if path.parent.name not in ("tt_tito", "tt_torch"))


def never_returns(function: ast.FunctionDef) -> bool:
    """Would a type checker infer NoReturn? It does where nothing is annotated and the last statement raises."""
    inside = [node for statement in function.body for node in ast.walk(statement)]
    returns = any(isinstance(node, (ast.Return, ast.Yield, ast.YieldFrom)) for node in inside)
    return function.returns is None and isinstance(function.body[-1], ast.Raise) and not returns


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_a_public_method_that_only_raises_says_what_it_returns(path):
    classes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ClassDef)]
    methods = [node for each in classes for node in each.body if isinstance(node, ast.FunctionDef)]
    assert [f"line {m.lineno}: {m.name}" for m in methods if m.name[0] != "_" and never_returns(m)] == []
