"""Sums over the events of a profile, and how they are printed. A support module of chapter 19."""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Row", "printed"]


class Row(NamedTuple):
    """Sums over events: calls, seconds in all and of each phase, multiply-adds and bytes, and the largest peak."""

    calls: int
    seconds: float
    forward: float
    backward: float
    multiply_adds: int
    bytes: int
    peak: int


def printed(every: dict[str, Row], by: str, most: int, memory: bool) -> str:
    """Return the first rows as text, the others in one line, and the sum; with the peaks if memory was measured."""
    whole = sum(row.seconds for row in every.values()) or 1.0
    shown = list(every.items())[:most]
    rest = list(every.values())[most:]
    shown += [(f"{len(rest)} others", _sum(rest))] * bool(rest) + [("in all", _sum(list(every.values())))]
    width = 52 if by == "line" else 28
    head = f"{by:{width}s} calls     ms  share  forward  backward  GFLOP/s      MB" + "   peak MB" * memory
    lines = [head]
    for name, row in shown:
        rate = 2 * row.multiply_adds / row.seconds / 1e9 if row.seconds else 0.0
        all_, forward, backward = (1e3 * seconds for seconds in row[1:4])
        times = f"{all_:6.2f} {row.seconds / whole:6.1%} {forward:8.2f} {backward:9.2f}"
        peak = f"{row.peak / 1e6:10.2f}" * memory
        label = f"{name} {source_of(name)}"[:width] if by == "line" else name[-width:]
        lines.append(f"{label:{width}s} {row.calls:5d} {times} {rate:8.1f} {row.bytes / 1e6:7.1f}{peak}")
    return "\n".join(lines)


def source_of(line: str) -> str:
    """Return the text of a "file:line" of one of the modules that are loaded, or "" if there is none."""
    file, _, number = line.rpartition(":")
    paths = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    path = next((path for path in paths if file and os.path.basename(path) == file), "")
    return linecache.getline(path, int(number)).strip() if path else ""


def _sum(group: Sequence[Row]) -> Row:
    *sums, _ = (sum(row[place] for row in group) for place in range(len(Row._fields)))
    return Row._make([*sums, max((row.peak for row in group), default=0)])
