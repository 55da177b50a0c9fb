"""A function, method or class on a hand-written page, as it stands in the code or as a learner finds it."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

from reading import WeaveError

from tt_tito import course, curriculum, exercises


def woven_source(where: str, root: Path) -> str:
    """A fence with the text of `packages/tt-x/src/tt_x/file.py:Name`, or of `skeleton:chapter:exercise`."""
    file, _, name = where.rpartition(":")
    if file.startswith("skeleton:"):
        chapter = curriculum.chapter(file.removeprefix("skeleton:"))
        text = exercises.skeleton(course.reference(chapter).read_text(encoding="utf-8"), str(chapter))
    else:
        text = (root / file).read_text(encoding="utf-8")
    found = [node for node in ast.walk(ast.parse(text)) if getattr(node, "name", None) == name]
    if not found:
        raise WeaveError(f"{file} defines no {name}, which a page wants to show")
    lines = text.splitlines()[found[0].lineno - 1 : found[0].end_lineno]
    return "```{ .python .tt-code }\n" + textwrap.dedent("\n".join(lines)) + "\n```"
