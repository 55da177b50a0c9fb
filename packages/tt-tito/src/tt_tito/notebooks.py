"""Chapters as Jupyter notebooks, and back without loss: jupytext's light form, in which prose is comments."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

from tt_tito import files

__all__ = ["cells", "dumps", "read", "text", "write"]

LIGHT = "py:light"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
PLAIN = {"jupytext": {"notebook_metadata_filter": "-all"}}  # no header in the text
GAP = "lines_to_next_cell"  # how many empty lines follow a cell, where that is not what jupytext expects


def write(text: str, path: Path) -> None:
    """Write the text of a chapter as a notebook. ModuleNotFoundError where jupytext is missing."""
    files.write(path, dumps(cells(text)))


def read(path: Path) -> str:
    """The text of the chapter in a notebook, without what it has put out. ValueError for what is no notebook."""
    try:
        found = [_cell(cell) for cell in json.loads(path.read_text(encoding="utf-8-sig"))["cells"]]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path.name} is damaged, or no notebook of Jupyter 4 or later: {why}") from None
    return text(found)


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
    """What matters of a cell. KeyError, TypeError or ValueError if it is none."""
    kind, source = cell["cell_type"], cell["source"]
    if kind not in ("code", "markdown", "raw"):
        raise ValueError(f"there are no cells of type {kind!r}")
    kept = {
        "cell_type": kind,
        "metadata": {key: value for key, value in cell["metadata"].items() if key == GAP and isinstance(value, int)},
        "source": source if isinstance(source, str) else "".join(source),
    }
    return kept | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def _jupytext() -> ModuleType:
    try:
        return importlib.import_module("jupytext")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'notebooks need {error.name}, which is not installed: pip install "tt-tito[notebook]"', name=error.name
        ) from None
