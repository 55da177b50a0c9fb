"""Reads what a learner has handed in, in a process of its own whose time and memory are limited: a text of one megabyte
can keep Python's own parser busy, fill the memory, or crash it."""

from __future__ import annotations

import base64
import functools
import json
import os
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tt_tito import curriculum, notebooks, reading
from tt_tito.curriculum import Chapter
from tt_tito.judge.submission import Submission
from tt_tito.reading import Unreadable

__all__ = ["Reading"]

SECONDS = 30  # for reading, of which half may be computed
MEMORY = 1 << 30
BOOT = """
import json, sys
request = json.loads(sys.stdin.buffer.read())
sys.path[:] = request["path"]
from tt_tito.judge.reading import answer
answer(request)
"""


@dataclass(frozen=True)
class Reading:
    """A learner's file and its chapter, like a `Submission`, but read in another process."""

    chapter: Chapter
    file: Path

    @cached_property
    def data(self) -> bytes:
        """The bytes of the file. Unreadable if it is too large or not a file."""
        return reading.data(self.file, reading.HUGE if self.is_notebook else reading.LARGEST)

    @property
    def is_notebook(self) -> bool:
        """Whether the file is a notebook, by its name."""
        return self.file.suffix.lower() == ".ipynb"

    @cached_property
    def exercises(self) -> list[str]:
        """The names of the chapter's exercises, in the order of its text."""
        return _exercises(self.chapter)

    @property
    def starred(self) -> frozenset[str]:
        """The names of those that may be left out."""
        return _starred(self.chapter)

    @cached_property
    def written(self) -> list[str]:
        """The exercises that the learner has written."""
        found = self._ask("written")
        return [name for name in self.exercises if name in found]

    def code(self, kept: Collection[str]) -> tuple[bytes, list[int]]:
        """The marshalled code of the file with all exercises but the `kept` ones from the reference, and the line
        numbers that this code gets. Unreadable if the file lacks a name that others need."""
        code, filled = self._ask("code", list(kept))
        return base64.b64decode(code), [int(line) for line in filled]

    def placed(self, messages: list[str]) -> list[str]:
        """Messages about the file, in which lines of a notebook are named by their cells."""
        if self.is_notebook and any(f"{self.file.name}, line " in message for message in messages):
            with suppress(Unreadable):
                return list(map(str, self._ask("placed", messages)))
        return messages

    def reference_code(self) -> tuple[bytes, list[int]]:
        """The same of the reference."""
        return Submission(self.chapter, self.file).reference_code()

    def _ask(self, what: str, about: Collection[str] = ()) -> Any:
        """The answer of another process that reads the file. Unreadable if it could not."""
        name = self.file.name
        request = {
            "path": [path for path in sys.path if path and Path(path) != Path.cwd()],
            "what": what,
            "chapter": self.chapter.slug,
            "file": str(self.file),
            "about": list(about),
            "data": base64.b64encode(self.data).decode(),
        }
        try:
            with TemporaryDirectory(prefix="tito-") as folder:  # for a notebook
                ran = subprocess.run(
                    [sys.executable, "-s", "-S", "-B", "-P", "-c", BOOT],
                    input=json.dumps(request | {"folder": folder}).encode(),
                    capture_output=True,
                    timeout=SECONDS,
                    env={**os.environ, "TT_SWAP": "0", "PYTHONUTF8": "1", "PYTHONHASHSEED": "0"},
                )
            answer = json.loads(ran.stdout)
        except subprocess.TimeoutExpired:
            raise Unreadable(f"{name} was not read within {SECONDS} seconds.") from None
        except ValueError:
            last = ran.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            how = " ".join(last) or f"exit status {ran.returncode}"
            raise Unreadable(f"{name} cannot be read: Python ended on it ({how}).") from None
        if answer["missing"]:
            raise ModuleNotFoundError(answer["missing"])
        if answer["unreadable"]:
            raise Unreadable(answer["unreadable"])
        return answer["found"]


@functools.cache
def _exercises(chapter: Chapter) -> list[str]:
    return Submission(chapter, Path()).exercises


@functools.cache
def _starred(chapter: Chapter) -> frozenset[str]:
    return frozenset(Submission(chapter, Path()).starred)


def answer(request: dict[str, Any]) -> None:
    """In the other process: read, and print what was found."""
    found: Any = None
    unreadable = missing = ""
    try:
        file = _copy(request)
        found = _found(request, file)
    except Unreadable as error:
        unreadable = str(error)
    except ModuleNotFoundError as error:
        missing = str(error)
    print(json.dumps({"found": found, "unreadable": unreadable, "missing": missing}))


def _copy(request: dict[str, Any]) -> Path:
    """A copy of the file, from which it is read under the limits; what reads notebooks is imported under none."""
    file = Path(request["folder"], Path(request["file"]).name)
    file.write_bytes(base64.b64decode(request["data"]))
    if file.suffix.lower() == ".ipynb":
        notebooks.text([])
    _limit()
    return file


def _found(request: dict[str, Any], file: Path) -> Any:
    is_notebook = file.suffix.lower() == ".ipynb"
    if request["what"] == "placed":
        return [notebooks.placed(message, file) for message in request["about"]]
    try:
        text = notebooks.program(file) if is_notebook else reading.text(file)
        submission = Submission(curriculum.chapter(request["chapter"]), Path(request["file"]), text)
        if request["what"] == "written":
            return submission.written
        code, filled = submission.code(request["about"])
        return [base64.b64encode(code).decode(), filled]
    except Unreadable as error:
        raise Unreadable(notebooks.placed(str(error), file) if is_notebook else str(error)) from None


def _limit() -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS // 2, SECONDS // 2))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
