"""The experiments of a chapter, `show_*`, on a learner's code: the output that the prose discusses, visible while you
write.

They run in a process of their own, on the implementations in use there. Functions that are not written yet come from
the reference."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import marshal
import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tt_tito import course, exercises
from tt_tito.curriculum import Chapter
from tt_tito.workspace import Workspace

__all__ = ["Experiment", "experiments", "find", "new_ones", "run"]

PREFIX = "show_"
MAIN = "import sys; from tt_tito.experiments import main; main(*sys.argv[1:])"


@dataclass(frozen=True)
class Experiment:
    """A `show_*` of a chapter: its name without the prefix, its section, and the exercises that it runs on."""

    name: str
    section: str
    needs: frozenset[str]


@functools.cache
def experiments(chapter: Chapter) -> tuple[Experiment, ...]:
    """The experiments of a chapter, in its order."""
    text = course.reference(chapter).read_text(encoding="utf-8")
    tree, known = exercises.parse(text), {exercise.name for exercise in exercises.exercises(text)}
    calls = {name: _names(node) for name, node in exercises.functions(tree).items()}
    by_last: dict[str, set[str]] = {}
    for name in calls:
        by_last.setdefault(name.rpartition(".")[2], set()).add(name)
        by_last.setdefault(name.partition(".")[0], set()).add(name)
    return tuple(
        Experiment(
            node.name.removeprefix(PREFIX),
            exercises.section(text, node.lineno),
            frozenset(_reaches(node.name, calls, by_last) & known),
        )
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith(PREFIX) and not node.args.args
    )


def _names(node: ast.AST) -> set[str]:
    """The names and attributes in a function."""
    inner = list(ast.walk(node))
    return {n.id for n in inner if isinstance(n, ast.Name)} | {n.attr for n in inner if isinstance(n, ast.Attribute)}


def _reaches(name: str, calls: dict[str, set[str]], by_last: dict[str, set[str]]) -> set[str]:
    """The functions of a chapter that one may run: those whose names it has, and so on."""
    found, ahead = set[str](), [name]
    while ahead:
        for used in calls[ahead.pop()]:
            new = by_last.get(used, set()) - found
            found |= new
            ahead += new
    return found


def find(chapter: Chapter, name: str) -> Experiment:
    """The experiment of a name, with or without `show_`. ValueError with the nearest if there is none."""
    known = {experiment.name: experiment for experiment in experiments(chapter)}
    found = known.get(name.lower().removeprefix(PREFIX))
    if found is None:
        close = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {close[0]}?" if close else f"its experiments are {', '.join(known)}"
        raise ValueError(f"{chapter} has no experiment {name!r}: {advice}")
    return found


def new_ones(chapter: Chapter, before: Collection[str], now: Collection[str]) -> list[Experiment]:
    """The experiments that run on a learner's code alone now, and did not before."""
    return [e for e in experiments(chapter) if e.needs and e.needs <= set(now) and not e.needs <= set(before)]


def run(space: Workspace, chapter: Chapter, names: Sequence[str]) -> list[Path]:
    """Run experiments of a chapter on a learner's file, whose output goes where ours goes; the figures that they drew.
    RuntimeError if one fails."""
    source, folder = space.source(chapter), space.state / "figures"
    space.text(chapter)  # raises what is wrong with it
    before = _times(folder)
    words = [sys.executable, "-c", MAIN, chapter.slug, str(source), str(folder), *names]
    sys.stdout.flush()
    status = subprocess.run(words, env={**os.environ, "MPLBACKEND": "Agg", "PYTHONUTF8": "1"}, check=False).returncode
    if status:
        raise RuntimeError(f"{', '.join(names)} failed before the end (exit status {status})")
    return [file for file, time in _times(folder).items() if before.get(file) != time]


def _times(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in sorted(folder.glob("*.png"))}


# ## In the other process


def main(slug: str, source: str, folder: str, *names: str) -> None:
    """Import a chapter from a learner's file, and run experiments of it."""
    from tt_tito.curriculum import chapter as chapter_of
    from tt_tito.judge.child import Graded
    from tt_tito.judge.submission import Submission

    chapter = chapter_of(slug)
    submission = Submission.of(chapter, Path(source))
    code, _ = submission.code(submission.written)
    sys.meta_path.insert(0, Graded(chapter.module, source, marshal.loads(code)))
    module = importlib.import_module(chapter.module)
    for name in names:
        print(f"{chapter}: {PREFIX}{name}()")
        getattr(module, PREFIX + name)()
        _keep_figures(Path(folder), f"{chapter.number:02d}-{name}")
        print()


def _keep_figures(folder: Path, name: str) -> None:
    """Write the figures that are open into a folder, and close them."""
    plt = sys.modules.get("matplotlib.pyplot")  # if an experiment has drawn something
    if plt is None:
        return
    for number in plt.get_fignums():
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / (f"{name}.png" if number == 1 else f"{name}-{number}.png")
        plt.figure(number).savefig(file, dpi=150, bbox_inches="tight")
    plt.close("all")
