"""The work of the commands besides looking and judging: choose, run, export, rebuild."""

from __future__ import annotations

import ast
import contextlib
import difflib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tt_tito import course, exercises, reading, swap
from tt_tito.curriculum import Chapter, chapters, package
from tt_tito.judging import assess, exercise_of
from tt_tito.progress import Milestone, Progress, implementations, milestones
from tt_tito.overview import Example, all_examples
from tt_tito.workspace import NoWorkspace, Workspace, available, fingerprint, known_name

__all__ = [
    "Outcome", "choose", "difference", "export", "hints", "rebuild", "run_capstone", "run_example",
]


# ## Progress, rebuilt


def rebuild(space: Workspace, tell: Callable[[str], Any]) -> Progress:
    """Progress from the learner's files alone: judge every chapter that is written again. A file that cannot be read is
    named and left out."""
    progress = Progress()
    for chapter in available():
        try:
            if not space.started(chapter) or space.left(chapter):
                continue
            digest = fingerprint(space.source(chapter))
            verdict = assess(space, chapter, ("unit", "integration"))
        except (ValueError, ImportError, OSError, RuntimeError) as error:
            tell(f"  {chapter}: left out, because {error}")
            continue
        tell(f"  {chapter}: {verdict.status}")
        if verdict.full:
            progress.complete(space, chapter, len(verdict.exercises), digest)
    for milestone in milestones():
        if progress.done(space, milestone.chapter):
            tell(f'  milestone {milestone.number}, "{milestone.says}": run its example again (tito milestones)')
    return progress


# ## Help on the way


def hints(space: Workspace, chapter: Chapter, name: str | None) -> tuple[str, list[str]]:
    """An exercise, by default the first one that is not written yet, and all its hints."""
    course.reference(chapter)  # raises if the chapter is not there
    hints = course.hints(chapter)
    if name is None:
        left = space.left(chapter) if space.started(chapter) else list(hints)
        if not left:
            raise ValueError(f"every exercise of {chapter} is written: name the one for which you want a hint")
        name = left[0]
    found = exercise_of(chapter, name)
    return found, hints[found]


def difference(space: Workspace, chapter: Chapter, other: bool = False) -> list[str]:
    """The differences between the exercises that a learner has written and the reference's, or those of another right
    answer, as lines of a unified diff."""
    text = space.text(chapter)
    reference = course.reference(chapter).read_text(encoding="utf-8")
    names = [e.name for e in exercises.exercises(reference)]
    answers, title = reference, "reference"
    if other:
        bodies = course.solution(chapter, "two").read_text(encoding="utf-8")
        answers, title = exercises.graft(reference, bodies, names), "another answer"
    left = exercises.unwritten(text, names)
    written = [name for name in names if name not in left]
    if not written:
        raise ValueError(f"no exercise of {chapter} is written yet, so there is nothing to compare")
    mine, theirs = exercises.functions(exercises.parse(text)), exercises.functions(exercises.parse(answers))
    lines: list[str] = []
    for name in written:
        pair = [
            ast.get_source_segment(source, nodes[name]) or "" for source, nodes in ((answers, theirs), (text, mine))
        ]
        lines += difflib.unified_diff(
            pair[0].splitlines(), pair[1].splitlines(), f"{title}: {name}", f"mine: {name}", lineterm="", n=99
        )
    return lines


# ## Choosing


def choose(space: Workspace, name: str, value: str) -> list[str]:
    """Write into tt.toml which implementation of a chapter or package is in use, and return lines to print. ValueError
    if it cannot be used."""
    found = known_name(name)
    if isinstance(found, str):
        return _choose_package(space, found, value)
    if found not in available():
        raise ValueError(f"{found} is not installed: pip install {found.package}")
    if value == "reference":
        space.use(found.slug, value)
        return [
            f"{found}: the reference is in use, and its capability is unlocked: {found.unlocks}.",
            f"Read it: {course.reference(found)}",
            *[f"{space.short(file)} was not changed." for file in space.files(found)],
        ]
    if value == "mine" or space.is_mine(found, value):  # however its path is written
        _demand_written(space.short(space.file(found)), space.left(found), found)
        value = space.mine(found)
    (file,) = _try(space, {found.slug: value})
    if not space.is_mine(found, value) and file.is_file():
        text = reading.python(file)
        known = exercises.exercises(course.reference(found).read_text(encoding="utf-8"))
        names = [exercise.name for exercise in known if not exercise.starred]
        there = exercises.functions(exercises.parse(text))  # another implementation need not have them
        _demand_written(file.name, [name for name in exercises.unwritten(text, names) if name in there], found)
    space.use(found.slug, value)
    return [f"{found}: {value} is in use."]


def _choose_package(space: Workspace, name: str, value: str) -> list[str]:
    if value == "mine" or os.path.realpath(space.root / value) == os.path.realpath(space.work):
        raise ValueError(f"{name} is a package, and `mine` is for a chapter: {', '.join(package(name).chapters)}")
    values: dict[str, str | None] = {name: None} if value == "reference" else {name: value, **swap.whole(value)}
    _try(space, {name: value for name, value in values.items() if value})
    before = swap.whole(space.uses().get(name, ""))  # what came together leaves together
    values = dict.fromkeys(before) | values
    space.use_all(values)
    return [f"{name}: {value or 'the reference'} is in use." for name, value in values.items()]


def _demand_written(name: str, left: list[str], chapter: Chapter) -> None:
    if left:
        raise ValueError(
            f"{name} still has exercises to write: {', '.join(left)}. Until then: tito module test {chapter.slug}"
        )


def _try(space: Workspace, values: dict[str, str]) -> list[Path]:
    """SwapError if something cannot stand in, before it is written into tt.toml; else the files and folders."""
    table = swap.table(values, space.root, "this command")
    for module in table.targets:
        spec = swap.find(table, module)
        if spec is not None and isinstance(spec.loader, swap.StandIn):
            spec.loader.get_code(module)
    return list(table.targets.values())


# ## Examples


@dataclass(frozen=True)
class Outcome:
    """The outcome of an example: its exit status, what it measured, on which implementations, and the milestone that it
    can earn."""

    example: Example
    status: int
    results: list[dict[str, Any]] = field(default_factory=list)
    milestone: Milestone | None = None
    implementations: dict[str, str] = field(default_factory=dict)

    @property
    def reached(self) -> bool:
        """Whether it measured something and reached every threshold."""
        return self.status == 0 and bool(self.results) and all(row.get("reached") is True for row in self.results)

    @property
    def lacking(self) -> str | None:
        """The data that the milestone needs, if it learned from others."""
        return next((str(row["lacking"]) for row in self.results if row.get("lacking")), None)


def run_example(space: Workspace, progress: Progress, name: str, arguments: tuple[str, ...]) -> Outcome:
    """Run an example on the implementations in use."""
    example, rest = _example(name, arguments)
    missing = [c for c in chapters() if c.number <= example.chapter.number and not progress.done(space, c)]
    if missing:
        raise ValueError(
            f"{example.name} needs {', '.join(map(str, missing))}: complete them, or take them from the course with "
            f"`tito use {missing[0].slug} reference`"
        )
    used = implementations(space, [c for c in chapters() if c in available()])  # notebooks become files again
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        script = course.examples() / example.script
        command = [sys.executable, str(script), *example.arguments, *rest, "--json", str(file)]
        status = subprocess.run(command, cwd=space.root).returncode
        results = _results(file)
    before = {c.slug for c in chapters() if c.number <= example.chapter.number}
    used = {slug: what for slug, what in used.items() if slug in before}
    return Outcome(example, status, results, _milestone(example), used)


def _example(name: str, arguments: tuple[str, ...]) -> tuple[Example, tuple[str, ...]]:
    """The example that a name and its arguments mean, and the arguments that are not its own."""
    known = all_examples()
    named = [e for e in known if name in (e.name, e.script, Path(e.script).stem)]
    if not named:
        names = list(dict.fromkeys(e.name for e in known))
        close = difflib.get_close_matches(name, names, n=1)
        advice = f"did you mean {close[0]}?" if close else f"the examples are {', '.join(names)}"
        raise ValueError(f"there is no example {name!r}: {advice}")
    for example in sorted(named, key=lambda e: -len(e.arguments)):
        if set(example.arguments) <= set(arguments):
            return example, tuple(a for a in arguments if a not in example.arguments)
    return named[0], tuple(a for a in arguments if a not in named[0].arguments)


def _results(file: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(file.read_text(encoding="utf-8"))["results"])
    except (OSError, ValueError, KeyError, TypeError):
        return []  # the example has not come to its end


def _milestone(example: Example) -> Milestone | None:
    """The one that its script earns, however it is called: XOR with autograd shows what XOR by hand shows."""
    return next((m for m in milestones() if example.script in (m.chapter.example or "").split()), None)


# ## The programs of chapter 20
#
# They run in a process of their own, like the examples, so that the implementations in use are there from its first
# import. The working directory does not change, because paths among the arguments are relative to it.


def run_capstone(command: str, arguments: tuple[str, ...]) -> int:
    """Run a command of tt-capstone on the implementations in use, and return its exit status. ModuleNotFoundError if
    tt-capstone is not installed."""
    course.folder("tt-capstone")
    with contextlib.suppress(NoWorkspace):
        space = Workspace.here()
        implementations(space, [c for c in chapters() if c in available()])  # notebooks become files again
    words = [sys.executable, "-m", "tt_capstone", command, *arguments]
    return _in_our_place(words) if os.name == "posix" else _waited_for(words)


# On most systems a process can become another program. So nothing is in between: Ctrl-C, a request to end, and the exit
# status pass directly between the program and the shell that started it. On Windows this is not possible. There, Ctrl-C
# is sent to both processes, and we leave it to the other one.


def _in_our_place(words: list[str]) -> int:
    sys.stdout.flush()
    os.execv(words[0], words)


def _waited_for(words: list[str]) -> int:
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return subprocess.run(words, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)


# ## Export


def export(space: Workspace, name: str, out: Path, force: bool) -> Path:
    """Write a chapter as a notebook, or a package as a wheel with the learner's chapters in it."""
    from tt_tito import export

    found = known_name(name)
    if isinstance(found, str):
        mine = [c for c in available() if c.package == found and space.started(c)]
        mine = [c for c in mine if force or space.implementation(c) == "mine"]
        for chapter in mine:
            space.text(chapter)  # raises what is wrong with it
        return export.wheel(found, {c.slug: space.source(c) for c in mine}, out, force=force)
    space.text(found)
    if os.path.realpath(out) == os.path.realpath(space.work):
        raise ValueError("in work/, a notebook would be a second file of your chapter: name another folder with --out")
    return export.notebook(found, space.source(found), out / f"{found.slug}.ipynb")
