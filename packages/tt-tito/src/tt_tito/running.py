"""What the commands do beyond looking: judge, choose, run, export, rebuild."""

from __future__ import annotations

import ast
import difflib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tt_tito import course, exercises, swap
from tt_tito.curriculum import Chapter, chapters, package
from tt_tito.progress import Milestone, Progress, implementations, milestones
from tt_tito.standing import Example, all_examples
from tt_tito.workspace import Workspace, available, known_name

if TYPE_CHECKING:
    from tt_tito.judge.assessment import Assessment

__all__ = ["Outcome", "assess", "choose", "difference", "export", "hint", "rebuild", "run_example"]


# ## Judging


def assess(space: Workspace, chapter: Chapter, groups: tuple[str, ...] = ("unit",)) -> Assessment:
    """The judge's verdict on the learner's file of a chapter, on the earlier chapters that are in use."""
    from tt_tito.judge.assessment import assess as judge

    return judge(chapter, space.source(chapter), groups=groups, swaps=_others(chapter))


def rebuild(space: Workspace, tell: Callable[[str], Any]) -> Progress:
    """Progress from nothing but the learner's files: every chapter that is written is judged again."""
    progress = Progress()
    for chapter in available():
        if not space.started(chapter) or space.left(chapter):
            continue
        verdict = assess(space, chapter, ("unit", "integration"))
        tell(f"  {chapter}: {verdict.status}")
        if verdict.full:
            progress.complete(space, chapter, len(verdict.exercises))
    for milestone in milestones():
        if progress.done(space, milestone.chapter):
            tell(f'  milestone {milestone.number}, "{milestone.says}": run its example again (tito milestones)')
    return progress


def _others(chapter: Chapter) -> dict[str, Path]:
    """What stands in for other modules than the chapter's."""
    return {module: path for module, path in swap.in_use().targets.items() if module != chapter.module}


# ## Help on the way


def hint(space: Workspace, progress: Progress, chapter: Chapter, name: str | None) -> tuple[str, int, list[str]]:
    """The exercise, the number of the hint that is due, and all its hints; the next call is due the next one."""
    hints = course.hints(chapter)
    if name is None:
        left = space.left(chapter) if space.started(chapter) else list(hints)
        if not left:
            raise ValueError(f"every exercise of {chapter} is written; name the one that the hint is to be for")
        name = left[0]
    matches = [known for known in hints if known == name or known.rpartition(".")[2] == name]
    if not matches:
        close = difflib.get_close_matches(name, hints, n=1)
        advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(hints)}"
        raise ValueError(f"{chapter} has no exercise {name!r}: {advice}")
    name = matches[0]
    key = f"{chapter.slug}.{name}"
    number = min(progress.hints.get(key, 0) + 1, len(hints[name]))
    progress.hints[key] = number
    return name, number, hints[name]


def difference(space: Workspace, chapter: Chapter) -> list[str]:
    """How the exercises that a learner has written differ from the reference's, as lines of a unified diff."""
    text = space.source(chapter).read_text(encoding="utf-8")
    reference = course.reference(chapter).read_text(encoding="utf-8")
    names = [e.name for e in exercises.exercises(reference)]
    left = exercises.unwritten(text, names)
    written = [name for name in names if name not in left]
    if not written:
        raise ValueError(f"no exercise of {chapter} is written yet; there is nothing to compare")
    mine, theirs = exercises.functions(exercises.parse(text)), exercises.functions(exercises.parse(reference))
    lines: list[str] = []
    for name in written:
        pair = [
            ast.get_source_segment(source, nodes[name]) or "" for source, nodes in ((reference, theirs), (text, mine))
        ]
        lines += difflib.unified_diff(
            pair[0].splitlines(), pair[1].splitlines(), f"reference: {name}", f"mine: {name}", lineterm="", n=99
        )
    return lines


# ## Choosing


def choose(space: Workspace, name: str, value: str) -> list[str]:
    """Write into tt.toml what is in use for a chapter or package, and say what that means. ValueError if it cannot."""
    found = known_name(name)
    if isinstance(found, str):
        if value == "mine":
            raise ValueError(f"{found} is a package; say `mine` of a chapter: {', '.join(package(found).chapters)}")
        _try(space, found, value)
        space.use(found, None if value == "reference" else value)
        return [f"{found}: {value} is in use."]
    if found not in available():
        raise ValueError(f"{found} is not installed: pip install {found.package}")
    if value == "mine":
        left = space.left(found)
        if left:
            raise ValueError(
                f"{space.short(space.file(found))} still has exercises to write: {', '.join(left)}. "
                f"Until then: tito module test {found.slug}"
            )
        value = space.mine(found)
    if value != "reference":
        _try(space, found.slug, value)
    space.use(found.slug, value)
    if value == "reference":
        return [
            f"{found}: the reference is in use, and its capability is unlocked: {found.unlocks}.",
            *([f"{space.short(space.file(found))} stays as it is."] if space.started(found) else []),
        ]
    return [f"{found}: {value} is in use."]


def _try(space: Workspace, name: str, value: str) -> None:
    """SwapError if something cannot stand in, before it is written into tt.toml."""
    table = swap.table({name: value}, space.root, "this command")
    for module in table.targets:
        spec = swap.find(table, module)
        if spec is not None and isinstance(spec.loader, swap.StandIn):
            spec.loader.get_code(module)


# ## Examples


@dataclass(frozen=True)
class Outcome:
    """What became of an example: the milestone if it was earned, what was measured, and how it ended."""

    example: Example
    status: int
    results: list[dict[str, Any]] = field(default_factory=list)
    milestone: Milestone | None = None

    @property
    def reached(self) -> bool:
        """Did it measure something, and reach every threshold?"""
        return self.status == 0 and bool(self.results) and all(row.get("reached") is True for row in self.results)


def run_example(space: Workspace, progress: Progress, name: str, arguments: tuple[str, ...]) -> Outcome:
    """Run an example on what is in use, and note its milestone if what it measured reaches the thresholds."""
    example, rest = _example(name, arguments)
    missing = [c for c in chapters() if c.number <= example.chapter.number and not progress.done(space, c)]
    if missing:
        raise ValueError(
            f"{example.name} needs {', '.join(map(str, missing))}: complete them, or take them from the course with "
            f"`tito use {missing[0].slug} reference`"
        )
    for chapter in available():  # notebooks become files again
        if space.implementation(chapter) == "mine":
            space.source(chapter)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        script = course.examples() / example.script
        command = [sys.executable, str(script), *example.arguments, *rest, "--json", str(file)]
        status = subprocess.run(command, cwd=space.root).returncode
        results = _results(file)
    outcome = Outcome(example, status, results, _milestone(example))
    if outcome.reached and outcome.milestone:
        used = [c for c in chapters() if c.number <= example.chapter.number]
        progress.earn(outcome.milestone, results, implementations(space, used))
    return outcome


def _example(name: str, arguments: tuple[str, ...]) -> tuple[Example, tuple[str, ...]]:
    """The example that a name and its arguments mean, and the arguments that are not its own."""
    known = all_examples()
    named = [e for e in known if name in (e.name, e.script, Path(e.script).stem)]
    if not named:
        names = list(dict.fromkeys(e.name for e in known))
        close = difflib.get_close_matches(name, names, n=1)
        advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
        raise ValueError(f"no example {name!r}: {advice}")
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
    return next((m for m in milestones() if m.chapter == example.chapter), None)


# ## Export


def export(space: Workspace, name: str, out: Path, force: bool) -> Path:
    """Write a chapter as a notebook, or a package as a wheel with the learner's chapters in it."""
    from tt_tito import export

    found = known_name(name)
    if isinstance(found, str):
        mine = [c for c in available() if c.package == found and space.started(c)]
        mine = [c for c in mine if force or space.implementation(c) == "mine"]
        return export.wheel(found, {c.slug: space.source(c) for c in mine}, out, force=force)
    return export.notebook(found, space.source(found), out / f"{found.slug}.ipynb")
