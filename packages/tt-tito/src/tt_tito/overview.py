"""An overview of a workspace: one look at its files, for every command that shows a part of it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from tt_tito import course, swap
from tt_tito.curriculum import Chapter, chapters
from tt_tito.progress import Milestone, Progress, milestones
from tt_tito.workspace import Workspace

__all__ = ["Example", "Overview", "Reached", "Row", "all_examples", "as_data", "overview"]


@dataclass(frozen=True)
class Row:
    """A chapter: how far the learner is, and which implementation is in use."""

    chapter: Chapter
    available: bool
    state: str
    exercises: int
    left: int
    implementation: str
    done: bool
    problem: str = ""


@dataclass(frozen=True)
class Example:
    """An example program, the arguments it takes here, and the chapter after which it can be run."""

    chapter: Chapter
    name: str
    script: str
    arguments: tuple[str, ...]
    can_run: bool = False

    @property
    def command(self) -> str:
        """The command line: `tito examples run xor_1969 --train`."""
        return " ".join(["tito examples run", self.name, *self.arguments])


@dataclass(frozen=True)
class Reached:
    """A milestone, and its entry in the progress if it is earned."""

    milestone: Milestone
    earned: dict[str, Any] | None
    example: Example | None


@dataclass(frozen=True)
class Overview:
    """The overview: chapters, examples, milestones, and what is wrong with the files."""

    rows: tuple[Row, ...]
    examples: tuple[Example, ...]
    milestones: tuple[Reached, ...]
    problem: str = ""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with files of the workspace; each message names its file."""
        return tuple(dict.fromkeys(text for text in (self.problem, *(row.problem for row in self.rows)) if text))

    @property
    def kernels(self) -> str:
        """The kernel set on which programs run here, which the environment names."""
        return os.environ.get("TT_KERNELS") or "default"

    @property
    def capabilities(self) -> tuple[Chapter, ...]:
        """The chapters whose capability is unlocked."""
        return tuple(row.chapter for row in self.rows if row.done)

    @property
    def next(self) -> tuple[str, str]:
        """The next command, and why."""
        for row in self.rows:
            if row.available and not row.done:
                return _step(row)
        for reached in self.milestones:
            if not reached.earned and reached.example and reached.example.can_run:
                return reached.example.command, f'milestone {reached.milestone.number}: "{reached.milestone.says}"'
        return "tito milestones", "every chapter that is installed here is done"


def overview(space: Workspace, progress: Progress) -> Overview:
    """Look at the workspace."""
    rows = tuple(_row(space, progress, c) for c in chapters())
    done = {row.chapter for row in rows if row.done}
    examples = tuple(
        Example(e.chapter, e.name, e.script, e.arguments, _all_before(e.chapter, done)) for e in all_examples()
    )
    by_chapter = {e.chapter: e for e in examples}
    reached = (Reached(m, progress.milestones.get(str(m.number)), by_chapter.get(m.chapter)) for m in milestones())
    return Overview(rows, examples, tuple(reached), _stand_ins())


def all_examples() -> list[Example]:
    """The examples of the course that are here, by the chapter that unlocks them."""
    found = []
    for chapter in chapters():
        if chapter.example:
            script, *arguments = chapter.example.split()
            found.append(Example(chapter, script.partition("/")[0], script, tuple(arguments)))
    return [e for e in found if (course.examples() / e.script).is_file()]


def as_data(found: Overview) -> dict[str, Any]:
    """The overview as data, for a program to read."""
    command, why = found.next
    return {
        "chapters": [
            {
                "number": row.chapter.number,
                "name": row.chapter.slug,
                "state": row.state,
                "exercises": row.exercises,
                "left": row.left,
                "in_use": row.implementation,
                "done": row.done,
                "problem": row.problem,
            }
            for row in found.rows
        ],
        "kernels": found.kernels,
        "capabilities": [c.capability for c in found.capabilities],
        "milestones": [
            {
                "number": r.milestone.number,
                "says": r.milestone.says,
                "after": r.milestone.chapter.slug,
                **(r.earned or {}),
            }
            for r in found.milestones
        ],
        "examples": [
            {"name": e.name, "command": e.command, "after": e.chapter.slug, "can_run": e.can_run}
            for e in found.examples
        ],
        "problems": list(found.problems),
        "next": {"command": command, "why": why},
    }


def _row(space: Workspace, progress: Progress, chapter: Chapter) -> Row:
    if chapter not in course.written():
        return Row(chapter, False, "not installed", 0, 0, "-", False)
    text = course.reference(chapter).read_text(encoding="utf-8")
    total = len(re.findall(r"^ *def .*# exercise$", text, re.MULTILINE))
    problem = ""
    try:
        state, left = _state(space, progress, chapter, total)
    except (ValueError, ImportError, OSError) as error:
        state, left, problem = "does not parse", total, str(error)
    in_use, done = space.implementation(chapter), progress.done(space, chapter)
    return Row(chapter, True, state, total, left, in_use, done, problem)


def _stand_ins() -> str:
    """What is wrong with the table of stand-ins; empty if nothing is."""
    try:
        swap.in_use()
    except swap.SwapError as error:
        return str(error)
    return ""


def _state(space: Workspace, progress: Progress, chapter: Chapter, total: int) -> tuple[str, int]:
    """The state of a chapter, and how many of its exercises are not written yet."""
    if not space.started(chapter):
        return ("from the reference" if space.taken(chapter) else "not started"), total
    left = len(space.left(chapter))
    if chapter.slug in progress.chapters:
        return ("changed since it passed" if progress.changed(space, chapter) else "complete"), left
    return f"{total - left} of {total} written", left


def _all_before(chapter: Chapter, done: set[Chapter]) -> bool:
    return all(c in done for c in chapters() if c.number <= chapter.number)


def _step(row: Row) -> tuple[str, str]:
    chapter = row.chapter
    name = f"{chapter.number:02d}"
    if row.state == "not started":
        return f"tito module start {name}", f'{chapter.title}: "{chapter.says}"'
    if row.left == 0:
        return f"tito module complete {name}", f"{chapter.title}: all {row.exercises} exercises are written"
    return f"tito module test {name}", f"{chapter.title}: {row.state}"
