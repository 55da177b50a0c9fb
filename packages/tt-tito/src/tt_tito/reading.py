"""The one way in which commands read a file that a learner may have changed: a chapter, a notebook, `tt.toml`, the
progress.

A file that cannot be read raises Unreadable. The message names the file, and says what is wrong with it and what to
do."""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path

from tt_tito.exercises import PARSING

__all__ = ["HUGE", "LARGEST", "Unreadable", "checked", "data", "decoded", "python", "text"]

LARGEST = 1 << 20  # bytes of a chapter
HUGE = 1 << 25  # bytes of a notebook with its pictures
WIDE = {b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class Unreadable(ValueError):
    """A file that cannot be read as what it should be."""


def data(file: Path, most: int = LARGEST) -> bytes:
    """The bytes of a file. Unreadable for a folder, a device, more than `most` bytes, or without permission."""
    name = file.name
    try:
        found = os.stat(file)
        if stat.S_ISDIR(found.st_mode):
            raise Unreadable(f"{name} is a folder, but a file is needed there: move it away.")
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable(f"{name} is a device or a pipe, but a file is needed there: move it away.")
        if found.st_size > most:
            raise Unreadable(f"{name} has {found.st_size:,} bytes, and at most {most:,} are allowed.")
        with file.open("rb") as stream:
            return stream.read(most)  # no more, even if the file has grown since
    except OSError as error:
        raise Unreadable(f"{name} cannot be read: {error.strerror}.") from None


def decoded(data: bytes, name: str) -> str:
    """The text in bytes of UTF-8, with or without a byte order mark. Unreadable, with a file's name, for others."""
    for mark, encoding in WIDE.items():
        if data.startswith(mark):
            raise Unreadable(f"{name} is encoded in {encoding}: save it as UTF-8.")
    if b"\0" in data:
        raise Unreadable(f"{name} is not text, because it has null bytes: save it as UTF-8, or restore a backup.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = data.count(b"\n", 0, error.start) + 1, data[error.start]
        raise Unreadable(f"{name}, line {line} is not UTF-8 (byte 0x{byte:02x}): save it as UTF-8.") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def text(file: Path, most: int = LARGEST) -> str:
    """The text of a file, with lines that end in a line feed."""
    return decoded(data(file, most), file.name)


def python(file: Path) -> str:
    """The text of a Python file. Unreadable, with the line, for text that is not Python. Nothing of it runs."""
    return checked(text(file), file.name)


def checked(text: str, name: str) -> str:
    """A text that is Python. Unreadable, with the file's name and the line, if it is not. Nothing of it runs."""
    with PARSING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a learner's "\d"; Python says it when the file runs
        try:
            compile(text, name, "exec", dont_inherit=True)
        except SyntaxError as error:
            line = f"\n    {error.text.strip()[:100]}" if error.text else ""
            raise Unreadable(f"{name}, line {error.lineno or 1} is not Python: {error.msg}.{line}") from None
        except (ValueError, RecursionError, MemoryError, SystemError) as error:
            raise Unreadable(f"{name} is not Python: {str(error) or type(error).__name__}.") from None
    return text
