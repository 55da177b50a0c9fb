"""Chapters as Jupyter notebooks, and back without loss: jupytext's light form, in which prose is comments."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

from tt_tito import files, reading

__all__ = ["cells", "dumps", "made_of", "placed", "program", "read", "text", "write"]

LIGHT = "py:light"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
PLAIN = {"jupytext": {"notebook_metadata_filter": "-all"}}  # no header in the text
DISPLAY = "display = print"
TESTS = "from tt_tito.nbgrader import check"  # in a cell that `tito nbgrader export` has written to test an exercise
RUNS = re.compile(r"(?:\s*(?:show|check)_\w+\(\)\s*(?:\n|$))+")  # what a cell has that only runs experiments
GAP = "lines_to_next_cell"  # how many empty lines follow a cell, where that is not what jupytext expects


def write(text: str, path: Path) -> None:
    """Write the text of a chapter as a notebook. ModuleNotFoundError where jupytext is missing."""
    files.write(path, made_of(text))


def made_of(text: str) -> str:
    """The JSON of a chapter as a notebook, with a cell behind each experiment that runs it. ModuleNotFoundError where
    jupytext is missing."""
    return dumps([cell for each in cells(text) for cell in (each, *_running(each))])


def _running(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """A cell for each `show_*` and `check_*` that a cell defines, which runs it."""
    names = re.findall(r"^def ((?:show|check)_\w+)\(\)", cell["source"], re.MULTILINE) if _is_code(cell) else []
    return [_cell({"cell_type": "code", "metadata": {}, "source": f"{name}()"}) | {"id": name[:64]} for name in names]


def _is_code(cell: dict[str, Any]) -> bool:
    return bool(cell["cell_type"] == "code")


def _without_runs(cells: list[dict[str, Any]]) -> str:
    return text([cell for cell in cells if not _only_runs(cell)])


def _only_runs(cell: dict[str, Any]) -> bool:
    """Whether a cell does nothing except run experiments."""
    return _is_code(cell) and bool(RUNS.fullmatch(cell["source"]))


def read(path: Path) -> str:
    """The text of the chapter in a notebook, without its outputs and without cells that only run experiments.
    ValueError for a file that is not a notebook."""
    return _without_runs(_read(path))


def program(path: Path) -> str:
    """The text of the chapter in a notebook as a program that can run without Jupyter: where it uses `display`, which
    Jupyter defines, it prints; cells that run experiments are left out, and those in which nbgrader asks the judge are
    empty. Unreadable for what is not a notebook, or too long."""
    found = _without_runs(_runnable(_read(path)))
    if (size := len(found.encode())) > reading.LARGEST:
        most = reading.LARGEST
        raise reading.Unreadable(f"{path.name} has {size:,} bytes of text, and at most {most:,} are allowed.")
    return found


def placed(message: str, path: Path) -> str:
    """A message about a notebook's program, whose lines are named as those of the notebook's cells."""
    own = rf"(?:{re.escape(path.stem)}\.py|{re.escape(path.name)})"
    lines = _places(_runnable(_read(path)), path.name) if re.search(rf"{own}, line \d+", message) else []

    def place(found: re.Match[str]) -> str:
        number = int(found[1] or 0)
        return lines[number - 1] if 0 < number <= len(lines) else path.name

    return re.sub(rf"(?<![\w.]){own}(?:, line (\d+))?", place, message)


def _places(cells: list[dict[str, Any]], name: str) -> list[str]:
    """For each line of a notebook's program where it comes from: `x.ipynb, cell 3 ("import math"), line 1`."""
    lines = _without_runs(cells).splitlines()
    found, at = [name] * len(lines), 0
    for number, cell in enumerate(cells, start=1):
        source = cell["source"].splitlines()
        if not _is_code(cell) or not source or _only_runs(cell):
            continue
        fits = (start for start in range(at, len(lines)) if _same(lines[start : start + len(source)], source))
        start = next(fits, None)
        if start is None:
            continue
        title = next((line.strip() for line in source if line.strip() and line != DISPLAY), "")
        extra = source[0] == DISPLAY  # a line that is not in the notebook
        for index in range(len(source)):
            line = max(1, index + 1 - extra)
            found[start + index] = f'{name}, cell {number} ("{title[:40]}"), line {line}'
        at = start + len(source)
    return found


def _same(lines: list[str], source: list[str]) -> bool:
    """Whether these are the lines of a cell, apart from lines that jupytext turns into comments."""
    pairs = zip(lines, source)
    return len(lines) == len(source) and all(
        one.rstrip() in (line.rstrip(), f"# {line}".rstrip()) for one, line in pairs
    )


def _runnable(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells without what asks the judge, and with a definition of `display` in the first one that uses it, if none
    defines or imports it."""
    asking = [cell for cell in cells if _is_code(cell) and TESTS in cell["source"]]
    cells = [cell | {"source": ""} if cell in asking else cell for cell in cells]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    using = [cell for cell in code if re.search(r"\bdisplay\(", cell["source"])]
    defining = [cell for cell in code if re.search(r"def display\b|import .*\bdisplay\b|\bdisplay *=", cell["source"])]
    if not using or defining:
        return cells
    return [cell | {"source": f"{DISPLAY}\n{cell['source']}"} if cell is using[0] else cell for cell in cells]


def _read(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook. Unreadable for a file that is not a notebook."""
    data = reading.data(path, reading.HUGE)
    try:
        return [_cell(cell) for cell in json.loads(reading.decoded(data, "it"))["cells"]]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise reading.Unreadable(f"{path.name} is damaged, or not a notebook of Jupyter 4 or later: {why}") from None


def cells(text: str) -> list[dict[str, Any]]:
    """The cells of a chapter, as a notebook's JSON has them; the same text always gives the same."""
    notebook = _jupytext().reads(text, fmt=LIGHT)
    times: Counter[str] = Counter()
    found = []
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type} {cell.source}".encode()).hexdigest()[:12]
        times[digest] += 1
        identity = digest if times[digest] == 1 else f"{digest}-{times[digest]}"
        found.append(_cell(cell) | {"id": identity})
    return found


def text(cells: list[dict[str, Any]]) -> str:
    """The text of a chapter from its cells."""
    notebook = {"cells": cells, "metadata": PLAIN, "nbformat": 4, "nbformat_minor": 5}
    return _jupytext().writes(importlib.import_module("nbformat").from_dict(notebook), fmt=LIGHT)


def dumps(cells: list[dict[str, Any]]) -> str:
    """A notebook's JSON, in Jupyter's own spelling."""
    notebook = {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _cell(cell: dict[str, Any]) -> dict[str, Any]:
    """The parts of a cell that we keep. KeyError, TypeError or ValueError if it is not a cell."""
    kind, source = cell["cell_type"], cell["source"]
    if kind not in ("code", "markdown", "raw"):
        raise ValueError(f"{kind!r} is not a type of cell")
    kept = {
        "cell_type": kind,
        "metadata": {key: value for key, value in cell["metadata"].items() if key == GAP and isinstance(value, int)},
        "source": source if isinstance(source, str) else "".join(source),
    }
    kept["source"].encode()  # ValueError for half of a character, which no file can hold
    return kept | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def _jupytext() -> ModuleType:
    try:
        return importlib.import_module("jupytext")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'notebooks need {error.name}, which is not installed: pip install "tt-tito[notebook]"', name=error.name
        ) from None
