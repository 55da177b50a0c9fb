"""How long does `tito watch` take from the save to the answer? One wrong answer and its mending, for each exercise.

    hatch run bench:watch                    all chapters, about a quarter of an hour on a quiet machine
    hatch run bench:watch tensor spatial     two of them

A chapter is written whole. Then each exercise that tests/mistakes/answers.toml has a wrong answer for is answered
wrongly, and then rightly again. Shown are the seconds from the save to the first words about the failure, and to the
words that the exercise has passed: both are read from the terminal that a learner would see.
"""

from __future__ import annotations

import ast
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tt_tito import course, exercises
from tt_tito.curriculum import Chapter
from tt_tito.workspace import Workspace

ROOT = Path(__file__).parents[1]
ANSWERS = tomllib.loads((ROOT / "tests" / "mistakes" / "answers.toml").read_text(encoding="utf-8"))


def wrong(text: str, answer: dict) -> str:
    """The reference with one exercise answered wrongly."""
    node = exercises.functions(ast.parse(text))[answer["exercise"]]
    lines = text.splitlines(keepends=True)
    own = "".join(lines[node.lineno - 1 : node.end_lineno])
    return "".join([*lines[: node.lineno - 1], own.replace(*answer["change"], 1), *lines[node.end_lineno :]])


class Terminal:
    """`tito watch` at work on one chapter in a folder of its own."""

    def __init__(self, process: subprocess.Popen, file: Path):
        self.process, self.file = process, file

    def save(self, text: str, words: str) -> float:
        """Save the chapter, and wait for words: the seconds that it took."""
        kept = self.file.with_suffix(".new")
        kept.write_text(text, encoding="utf-8")
        start = time.perf_counter()
        kept.replace(self.file)
        self.wait(words)
        return time.perf_counter() - start

    def wait(self, words: str) -> None:
        """Read on until words are said."""
        for line in iter(self.process.stdout.readline, ""):
            if words in line:
                return
        raise RuntimeError(f"tito watch ended before it said {words!r}")


@contextmanager
def watching(chapter: Chapter) -> Iterator[Terminal]:
    """A folder with the chapter written whole, and `tito watch` in it, which has judged it once."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TT_")}
    with tempfile.TemporaryDirectory() as folder:
        space, _ = Workspace.create(Path(folder))
        space.start(chapter)
        file = space.file(chapter)
        file.write_text(course.reference(chapter).read_text(encoding="utf-8"), encoding="utf-8")
        words = [sys.executable, "-u", "-m", "tt_tito", "watch", chapter.slug]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(words, cwd=folder, env=environment, encoding="utf-8", **pipes) as process:
            terminal = Terminal(process, file)
            terminal.wait("tito module complete")
            time.sleep(10)  # a learner reads, and writes the first exercise
            yield terminal
            process.stdin.write("q")
            process.stdin.close()


def measured(chapter: Chapter) -> Iterator[tuple[str, float, float]]:
    """For each exercise, the seconds to the words that it fails and to the words that it passes."""
    text = course.reference(chapter).read_text(encoding="utf-8")
    with watching(chapter) as terminal:
        for answer in ANSWERS.get(chapter.slug, []):
            name = answer["exercise"]
            failed = terminal.save(wrong(text, answer), "See ")
            terminal.wait("To fix")
            time.sleep(1.5)  # a learner thinks; the next process starts meanwhile
            passed = terminal.save(text, f"{name} passed.")
            time.sleep(1.5)
            yield name, failed, passed


def main() -> int:
    """Measure, and print a line for each chapter, and one for all."""
    everything = []
    for chapter in course.written():
        if chapter.slug not in (sys.argv[1:] or ANSWERS):
            continue
        found = list(measured(chapter))
        everything += found
        slowest = max(found, key=lambda each: max(each[1:]))
        print(f"{chapter.number:02d} {chapter.slug:14} {row(found)}   slowest: {slowest[0]}", flush=True)
    print(f"{'all':17} {row(everything)}")
    return 0


def row(found: list[tuple[str, float, float]]) -> str:
    """Medians and maxima of both times."""
    wrong, right = [each[1] for each in found], [each[2] for each in found]
    return f"{len(found):3} exercises   wrong: {numbers(wrong)}   mended: {numbers(right)}"


def numbers(seconds: list[float]) -> str:
    """Median and maximum."""
    return f"median {statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s"


if __name__ == "__main__":
    sys.exit(main())
