"""The folder in which a learner's code may write: how much it may hold, and how it is deleted.

Nothing here takes longer for a deeper folder, and nothing runs without end."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tt_tito.judge import box

__all__ = ["MOST_ENTRIES", "excess", "scratch"]

MOST_ENTRIES = 20_000  # files and folders
PATIENCE = 60.0  # seconds that cleaning up may take


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that exists for one run."""
    folder = Path(tempfile.mkdtemp(prefix="tito-")).resolve()
    try:
        if user := box.as_nobody().get("user"):
            os.chown(folder, user, -1)
        yield folder
    finally:
        _remove(folder)


def excess(folder: Path, process: int | None = None) -> str:
    """The resource of which a scratch folder and the open files of a process hold too much; empty if there is none."""
    size = sum(_open_files(process)) if process else 0
    entries, ahead = 0, [str(folder)]
    while ahead:
        try:
            with os.scandir(ahead.pop()) as inside:
                for entry in inside:
                    entries += 1
                    found = entry.stat(follow_symlinks=False)
                    size += getattr(found, "st_blocks", 0) * 512 or found.st_size
                    if size > box.SPACE:
                        return f"more than {box.SPACE >> 20} MB of files"
                    if entries > MOST_ENTRIES:
                        return f"more than {MOST_ENTRIES:,} files and folders"
                    if entry.is_dir(follow_symlinks=False):
                        ahead.append(entry.path)
        except FileNotFoundError:
            continue  # it has just been deleted
        except PermissionError:
            return "folders that cannot be looked into"
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return "folders in folders without an end"
    return ""


def _open_files(process: int) -> Iterator[int]:
    """The sizes of the deleted files that a process still has open."""
    place = f"/proc/{process}/fd"
    with suppress(OSError):
        for name in os.listdir(place):
            with suppress(OSError):
                found = os.stat(f"{place}/{name}")
                if not found.st_nlink:
                    yield found.st_blocks * 512


def _remove(folder: Path) -> None:
    """Delete a folder: all folders in it come up to its top, one after the other, so that no path is long."""
    end, top, mark, number = time.monotonic() + PATIENCE, str(folder), secrets.token_hex(8), 0
    with suppress(OSError):
        while time.monotonic() < end:
            with os.scandir(top) as entries:
                inside = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
            if not inside:
                os.rmdir(top)
                return
            for path, is_folder in inside:
                if not is_folder:
                    os.unlink(path)
                    continue
                os.chmod(path, 0o700)
                with os.scandir(path) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            number += 1
                            os.chmod(entry.path, 0o700)  # a folder that moves must be writable
                            os.rename(entry.path, os.path.join(top, f"{mark}-{number}"))
                        else:
                            os.unlink(entry.path)
                os.rmdir(path)
