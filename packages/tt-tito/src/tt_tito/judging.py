"""The verdicts of the commands: on a learner's file of a chapter, or on the implementation in use.

The file is the learner's own, so it is read in this process, and results of earlier looks are used."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tt_tito import course, exercises, reading, swap
from tt_tito.curriculum import Chapter
from tt_tito.passed import Passed, note_reached, recall_reached
from tt_tito.workspace import Workspace

if TYPE_CHECKING:
    from tt_tito.judge.assessment import Assessment

__all__ = ["assess", "assess_in_use", "course_exercises", "exercise_of", "look", "prepare"]


def assess(
    space: Workspace, chapter: Chapter, groups: tuple[str, ...] = ("unit",),
    tell: Callable[[str], None] = lambda message: None,
) -> Assessment:
    """The judge's verdict on the learner's file of a chapter, on the earlier chapters that are in use. `tell` gets the
    first mistake as soon as it is known."""
    try:
        space.text(chapter)
    except reading.Unreadable as why:
        return _unreadable(chapter, str(why))
    recall_reached(space, chapter)
    try:
        found = _judged(chapter, space.source(chapter), groups, tell=_placing(space, chapter, tell))
        return _placed(space, chapter, found)
    finally:
        note_reached(space, chapter)


def look(
    space: Workspace, chapter: Chapter, names: Sequence[str] = (), tell: Callable[[str], None] = lambda message: None
) -> Assessment:
    """The verdict of the unit tests on some exercises, or on all that are written. An exercise that has passed and is
    unchanged counts as passed."""
    try:
        passed = Passed(space, chapter, _others(chapter))
    except reading.Unreadable as why:
        return _unreadable(chapter, str(why))
    recall_reached(space, chapter)
    asked = [exercise_of(chapter, name) for name in names]
    only = asked or passed.fresh
    before = set() if asked else set(passed.names)
    everything = len(only) == len(course_exercises(chapter))
    if only or not before:
        found = _judged(
            chapter, space.source(chapter), ("unit",), only=None if everything else only or None,
            tell=_placing(space, chapter, tell),
        )
        found = _placed(space, chapter, found)
    else:
        from tt_tito.judge.assessment import Assessment, Mark

        marks = tuple(Mark(e.name, "unwritten", starred=e.starred) for e in course_exercises(chapter))
        found = Assessment(chapter.slug, "passed", marks)
    passed.note({mark.name for mark in found.exercises if mark.status == "passed"})
    note_reached(space, chapter)
    marks = tuple(
        replace(mark, status="passed", points=int(not mark.starred)) if mark.name in before else mark
        for mark in found.exercises
        if not asked or mark.name in asked
    )
    return replace(found, exercises=marks)


def prepare(space: Workspace, chapter: Chapter) -> None:
    """Run a chapter's tests on the reference, as `look` has to before its first answers."""
    from tt_tito.judge.recording import reached, record

    recall_reached(space, chapter)
    reached(chapter, "unit")
    record(chapter, "unit")
    note_reached(space, chapter)


def _placing(space: Workspace, chapter: Chapter, tell: Callable[[str], None]) -> Callable[[str], None]:
    return lambda message: tell(space.placed(chapter, message))


def course_exercises(chapter: Chapter) -> list[exercises.Exercise]:
    """The exercises of a chapter."""
    return exercises.exercises(course.reference(chapter).read_text(encoding="utf-8"))


def exercise_of(chapter: Chapter, name: str) -> str:
    """The exercise of a name. Its class and capital letters may be left out. ValueError, with the nearest exercise, for
    an unknown name."""
    known = [exercise.name for exercise in course_exercises(chapter)]
    small = name.lower()
    matches = [k for k in known if k.lower() == small] or [k for k in known if k.lower().rpartition(".")[2] == small]
    if not matches:
        close = difflib.get_close_matches(small, [k.lower() for k in known], n=1)
        near = [k for k in known if k.lower() in close]
        advice = f"did you mean {near[0]}?" if near else f"its exercises are {', '.join(known)}"
        raise ValueError(f"{chapter} has no exercise {name!r}: {advice}")
    return matches[0]


def assess_in_use(
    space: Workspace, chapter: Chapter, groups: tuple[str, ...], tell: Callable[[str], None] = lambda message: None
) -> Assessment:
    """The judge's verdict on the implementation of a chapter in use (mine, reference, a path or a module)."""
    if space.implementation(chapter) == "mine":
        return assess(space, chapter, groups, tell)
    return _judged(chapter, _file_in_use(chapter), groups, tell=tell)


def _file_in_use(chapter: Chapter) -> Path:
    """The file that an import of the chapter runs."""
    targets = swap.in_use().targets
    folder = targets.get(chapter.module.partition(".")[0])
    beside = [folder / f"{chapter.slug}.py"] if folder else []
    found = [targets[chapter.module]] if chapter.module in targets else beside
    return next((file for file in found if file.is_file()), course.reference(chapter))


def _judged(chapter: Chapter, file: Path, groups: tuple[str, ...], **how: Any) -> Assessment:
    from tt_tito.judge.assessment import assess as judge

    return judge(chapter, file, groups=groups, swaps=_others(chapter), trusted=True, **how)


def _unreadable(chapter: Chapter, why: str) -> Assessment:
    from tt_tito.judge.assessment import Assessment, Mark

    marks = tuple(Mark(e.name, "failed", starred=e.starred) for e in course_exercises(chapter))
    return Assessment(chapter.slug, "error", marks, why)


def _placed(space: Workspace, chapter: Chapter, found: Assessment) -> Assessment:
    """A verdict whose messages name lines of the learner's file, or cells of a notebook."""
    marks = tuple(replace(mark, message=space.placed(chapter, mark.message)) for mark in found.exercises)
    return replace(found, message=space.placed(chapter, found.message), exercises=marks)


def _others(chapter: Chapter) -> dict[str, Path]:
    """The stand-ins for other modules than the chapter's."""
    return {module: path for module, path in swap.in_use().targets.items() if module != chapter.module}
