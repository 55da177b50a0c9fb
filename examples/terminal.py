"""What the examples share: pictures made of characters, and the table in which each of them ends."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    """A claim and what became of it."""

    what: str
    measured: str
    needed: str
    passed: bool
    seconds: float


def report(results: Sequence[Result]) -> int:
    """Print the table of results; the exit status, 0 if all have passed and 1 otherwise."""
    rows = [(result.what, result.measured, result.needed, f"{result.seconds:.2f} s") for result in results]
    title = ("what was learned", "measured", "needed", "time")
    widths = [max(map(len, column)) for column in zip(title, *rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in (title, *rows)]
    print(f"\n{paint(lines[0].rstrip(), '1')}\n" + "  ".join("-" * width for width in widths))
    for line, result in zip(lines[1:], results):
        print(line, "", paint("yes", "32") if result.passed else paint("NO", "1;31"))
    missed = sum(not result.passed for result in results)
    print(f"\n{missed} of {len(results)} missed." if missed else "\nAll reached.")
    return 1 if missed else 0
