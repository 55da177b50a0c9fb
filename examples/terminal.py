"""What the examples share: pictures made of characters, and the table in which each of them ends."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Everything here is ASCII and fits into 80 columns, so that it reads the same in a terminal, in a pipe and in a log.
# Colours are an addition: only in a terminal, and not if somebody has set NO_COLOR (https://no-color.org).


@functools.cache
def colours() -> bool:
    """Does standard output want colours?"""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    if os.name == "nt":
        os.system("")  # an older Windows console interprets colour codes only after it has run a command
    return True


def paint(text: str, code: str) -> str:
    """The text in a colour or style, given by the numbers of its ANSI code; as it is where colours are not wanted."""
    return f"\x1b[{code}m{text}\x1b[0m" if colours() else text


def heading(text: str) -> None:
    """Print a title and a line under it."""
    print(f"\n{paint(text, '1')}\n{'-' * len(text)}", flush=True)


# ## Pictures
#
# A picture is an array of numbers from -1 to 1. Five characters stand for five ranges, the outer ones dense and the
# middle one light. With colours the negative ones become blue and the positive ones orange, which colour-blind people
# tell apart too.

SHADES = "=-.+#"
BACKGROUNDS = ("30;48;5;74", "30;48;5;153", "", "30;48;5;223", "30;48;5;215")


def picture(values: np.ndarray, marks: Mapping[tuple[int, int], str] | None = None) -> list[str]:
    """Lines of characters for numbers (rows, columns) from -1 to 1; `marks` puts other characters at some places."""
    levels = np.digitize(values, [-0.6, -0.2, 0.2, 0.6])
    shades = [_cell(" " if colours() and code else shade, code) for shade, code in zip(SHADES, BACKGROUNDS)]
    cells = [[shades[level] for level in row] for row in levels]
    for (row, column), mark in (marks or {}).items():
        cells[row][column] = _cell(mark, BACKGROUNDS[levels[row, column]])
    return ["".join(row) for row in cells]


def _cell(character: str, code: str) -> str:
    return paint(character, code) if code else character


# Two or three pictures stand beside one another. Their width is given, because colour codes count as characters but
# take no place.


def side_by_side(pictures: Mapping[str, list[str]], width: int) -> None:
    """Print pictures of equal size, each under its title."""
    print("\n  " + "   ".join(title.ljust(width) for title in pictures).rstrip())
    for lines in zip(*pictures.values()):
        print("  " + "   ".join(lines), flush=True)


# ## Results
#
# What was to be learned, what was measured, and what was asked for. An example that misses says so by its exit status
# too, since nobody reads the output of a program that a machine runs every night.


@dataclass(frozen=True)
class Result:
    """A claim and what became of it. `lacking` names the data that a milestone needs, if others were learned from."""

    what: str
    measured: str
    needed: str
    passed: bool
    seconds: float
    lacking: str | None = None


def report(results: Sequence[Result], script: str, file: Path | None = None, **more) -> int:
    """Print the table of results, and save it if there is a file for that, with what `more` holds; the exit status, 0
    if all have passed and 1 otherwise. `script` is the path of the example."""
    rows = [(result.what, result.measured, result.needed, f"{result.seconds:.2f} s") for result in results]
    title = ("what was learned", "measured", "needed", "time")
    widths = [max(map(len, column)) for column in zip(title, *rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in (title, *rows)]
    print(f"\n{paint(lines[0].rstrip(), '1')}\n" + "  ".join("-" * width for width in widths))
    for line, result in zip(lines[1:], results):
        print(line, "", paint("yes", "32") if result.passed else paint("NO", "1;31"))
    missed = sum(not result.passed for result in results)
    print(f"\n{missed} of {len(results)} missed." if missed else "\nAll reached.")
    for lacking in filter(None, (result.lacking for result in results)):
        print(f"This earns no milestone, which needs {lacking}.")
    if file:
        save(results, script, file, **more)
    return 1 if missed else 0


# An exit status of 0 has many causes, and only one of them is that something was learned. A program that wants to know,
# as `tito` does for its milestones, asks for the table itself: `--json FILE`. The file is there only when it is whole.


def save(results: Sequence[Result], script: str, file: Path, **more) -> None:
    """Write the table as JSON, and beside it what `more` holds."""
    rows = [
        {"claim": result.what, "measured": result.measured, "threshold": result.needed, "reached": bool(result.passed),
         "seconds": round(result.seconds, 3), "lacking": result.lacking} for result in results
    ]
    example = Path(script).resolve().relative_to(Path(__file__).resolve().parent).as_posix()
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    table = {"schema": 1, "example": example, "results": rows, **more}
    unfinished.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(file)


# Chapter 15 has faster kernels for everything. They are a package of their own, which need not be installed. Where one
# of your own chapters is swapped in, its kernels are what you want to see at work, and not those of chapter 15.


def best_kernels() -> str:
    """The fastest kernel set that is installed; the chapters' own if a chapter is swapped."""
    swapped = any(type(finder).__module__ == "tt_tito.finder" for finder in sys.meta_path)
    if swapped or importlib.util.find_spec("tt_opt") is None:
        return "default"
    return "compiled" if importlib.util.find_spec("numba") else "fast"


def kernel_set(name: str) -> str:
    """The name given to the option --kernels. A package that is missing is noticed before everything else."""
    if name != "default" and importlib.util.find_spec("tt_opt") is None:
        raise argparse.ArgumentTypeError(f"the kernels {name!r} are in tt-opt, which is missing: pip install tt-opt")
    if name not in ("default", "fast", "compiled"):
        raise argparse.ArgumentTypeError(f"there is no kernel set {name!r}: choose default, fast or compiled")
    return name


KERNELS = {
    "type": kernel_set, "default": best_kernels(), "metavar": "SET",
    "help": "the kernels that compute: default (those of the chapters), fast or compiled (those of chapter 15); unless "
    "given, the fastest that are installed, or those of the chapters if one of them is swapped",
}  # fmt: skip


def on_kernels(name: str) -> AbstractContextManager:
    """A context in which a kernel set computes."""
    return nullcontext() if name == "default" else importlib.import_module("tt_opt").accelerate(name)


def json_file(path: str) -> Path:
    """The file of the option --json. A folder that is not there is noticed before, not after everything has run."""
    if not (file := Path(path)).parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {file.parent} to write {file.name} into")
    return file
