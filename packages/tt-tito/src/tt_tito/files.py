"""Writing files as a whole or not at all, and changing a file from one process at a time."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["locked", "write"]

PATIENCE = 60  # seconds until a lock is given up: no command holds one for longer than it takes to write two files
PAUSE = 0.02


def write(file: Path, content: str | bytes) -> None:
    """Write a text or bytes under a temporary name beside the file, flush it to the disk, then move it into its
    place."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content.encode("utf-8") if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        if os.name == "posix":
            os.chmod(temporary, 0o644)
        _replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock on a file that has no other purpose. The operating system releases it when the process ends, however
    it ends. RuntimeError if another process holds it for a minute."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as stream:
        deadline = time.monotonic() + PATIENCE
        while not _take(stream.fileno()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"another tito has held {file} for {PATIENCE} seconds: end it, then try again")
            time.sleep(PAUSE)
        yield  # closing the file gives the lock back


if sys.platform == "win32":
    import msvcrt

    def _take(descriptor: int) -> bool:
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _replace(temporary: str, file: Path) -> None:
        """Windows refuses as long as another process has the file open to read it."""
        for _ in range(50):
            with contextlib.suppress(PermissionError):
                return os.replace(temporary, file)
            time.sleep(PAUSE)
        os.replace(temporary, file)

else:
    import fcntl

    def _take(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _replace(temporary: str, file: Path) -> None:
        os.replace(temporary, file)
