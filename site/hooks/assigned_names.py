"""A Griffe extension: names that a module binds by unpacking, and the docstrings of objects that carry their own."""

import ast
import importlib

import griffe


class AssignedNames(griffe.Extension):
    """`eq, ne = f("eq"), f("ne")` defines two public names, which Griffe alone does not see."""

    def on_module_members(self, *, node: ast.AST, mod: griffe.Module, agent: object, **_: object) -> None:
        if not isinstance(node, ast.Module):
            return
        for statement in node.body:
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            for target in targets:
                if isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
                    for name, value in zip(target.elts, statement.value.elts, strict=True):
                        self._add(mod, name, value)
        for name, member in mod.members.items():
            if isinstance(member, griffe.Attribute) and not member.docstring and not name.startswith("_"):
                member.docstring = _own_docstring(mod, name)

    def _add(self, mod: griffe.Module, name: ast.expr, value: ast.expr) -> None:
        if isinstance(name, ast.Name):
            lines = {"lineno": name.lineno, "endlineno": value.end_lineno}
            mod.set_member(name.id, griffe.Attribute(name.id, value=ast.unparse(value), **lines))


def _own_docstring(mod: griffe.Module, name: str) -> griffe.Docstring | None:
    """The docstring that the object brings along, as primitives do; that of its type would say nothing."""
    value = getattr(importlib.import_module(mod.path), name, None)
    text = getattr(value, "__doc__", None)
    if not isinstance(text, str) or text == type(value).__doc__:
        return None
    return griffe.Docstring(text, parent=mod.members[name])
