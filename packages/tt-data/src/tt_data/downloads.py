# # Downloads
#
# An appendix of chapter 10: where we look for data, and how we fetch them.

from __future__ import annotations

import errno
import hashlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

# ## Where to look
#
# If you give a folder, we look into it, and nowhere else. Otherwise we look into the folder that the environment
# variable `TT_DATA` names, and then into the cache, which every system has in another place. In each of them the files
# may be directly in the folder, or in one named after the data set.


def cache_folder() -> Path:
    """The user's folder for what can be downloaded again."""
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "tinytorch"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinytorch"


def places(name: str, root: str | os.PathLike | None = None) -> list[Path]:
    """The folders in which a data set is looked for, in this order."""
    given = root or os.environ.get("TT_DATA")
    near = [Path(given).expanduser() / name, Path(given).expanduser()] if given else []
    return near if root else [*near, cache_folder() / name]


# A data set can have several forms, an archive or its folder, and each form consists of one or more files. We take the
# first place that has all files of a form.


def find(name: str, forms: Sequence[Sequence[str]], root: str | os.PathLike | None = None) -> list[Path] | None:
    """The paths of a data set's first form whose files are all there; None if no form is complete."""
    for folder in places(name, root):
        for form in forms:
            if all((folder / file).exists() for file in form):
                return [folder / file for file in form]
    return None


# ## What to fetch
#
# A file that we can download has a name, a checksum, and several addresses, since no server lasts for ever.


@dataclass(frozen=True)
class Remote:
    """A file on the web: its name, its SHA-256, and folders on servers that have it."""

    name: str
    sha256: str
    mirrors: tuple[str, ...]


# With these, we can look for a data set and, if you allow it, download it.


def obtain(
    name: str, forms: Sequence[Sequence[str]], files: Sequence[Remote], root: str | os.PathLike | None, download: bool
) -> list[Path]:
    """The paths of a form of a data set; if there is none and it may be downloaded, `files` are, into the cache, and a
    file there that is damaged is fetched again. A folder that was given is never written to. Raises FileNotFoundError
    that says what to do."""
    in_cache = [cache_folder() / name / file.name for file in files]
    if (found := find(name, forms, root)) and not (download and found == in_cache):
        return found
    if root or not download:
        looked = ", ".join(map(str, places(name, root)))
        wanted = " or ".join(" and ".join(form) for form in forms)
        remedy = "leave root out and give download=True" if root else "give download=True, or its folder as root"
        raise FileNotFoundError(f"no {wanted} in {looked}; {remedy}")
    return [fetch(file, cache_folder() / name) for file in files]


# ## How to fetch
#
# A download of 170 MB will be interrupted now and then. So we keep the bytes that have arrived in a file whose name
# ends in `.part`, and the next attempt asks the server for the rest only (a *range*). Not every server can do that; one
# that sends the whole file again answers 200 instead of 206, and then we begin again as well.
#
# A download must have the right checksum, whichever server it came from. Only then do we give it its name, in one step,
# so that there is never half a file under a whole name. We try each address twice. The second attempt continues where
# the first one broke off, or begins again, if the kept bytes were damaged.


def fetch(file: Remote, folder: Path) -> Path:
    """Download a file into a folder, unless it is there and whole: continue an interrupted download, and try one mirror
    after the other. Raises OSError with the failure of each of them."""
    target, part = folder / file.name, folder / f"{file.name}.part"
    if target.exists() and sha256_of(target) == file.sha256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in [f"{mirror}/{file.name}" for mirror in file.mirrors for _ in range(2)]:
        try:
            _continue(url, part)
            _require_checksum(part, file.sha256)
        except (HTTPException, OSError) as error:
            _raise_if_disk_is_at_fault(error, part)
            failures.append(f"{url}: {error}")
        else:
            os.replace(part, target)
            return target
    kept = f" {part.stat().st_size:,} bytes are kept; the next attempt continues there." if part.exists() else ""
    raise OSError(f"{file.name} could not be downloaded.{kept} " + "; ".join(dict.fromkeys(failures)))


# If the disk is full or write-protected, another mirror cannot help, so we stop at once.

DISK = {getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO")} - {None}


def _raise_if_disk_is_at_fault(error: Exception, part: Path) -> None:
    """No mirror can help if nothing can be written here."""
    if isinstance(error, OSError) and error.errno in DISK:
        size = part.stat().st_size if part.exists() else 0
        raise OSError(error.errno, f"{error.strerror}, after {size:,} bytes of the download; they are kept in", part)


# Here we ask for the rest of a file. The answer 416 means that there is none; then the checksum decides.


def _continue(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "tinytorch"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
            _write(response, part, have if response.status == 206 else 0)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416:  # range not satisfiable
            raise


# We write block by block, with a progress bar, and make sure that the bytes are on the disk before the file is renamed.

BLOCK = 1 << 18


def _write(response, part: Path, have: int) -> None:
    from tqdm import tqdm

    length = response.headers.get("Content-Length")
    total = have + int(length) if length else None
    with (
        open(part, "ab" if have else "wb") as out,
        tqdm(total=total, initial=have, desc=part.stem, unit="B", unit_scale=True, disable=None) as bar,
    ):
        while block := response.read(BLOCK):
            out.write(block)
            bar.update(len(block))
        out.flush()
        os.fsync(out.fileno())
    if total is not None and (size := part.stat().st_size) < total:
        raise OSError(f"the connection ended after {size:,} of {total:,} bytes")


# A file with a wrong checksum is of no use, so we delete it.


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_checksum(part: Path, sha256: str) -> None:
    found = sha256_of(part)
    if found != sha256:
        size = part.stat().st_size
        part.unlink()
        raise OSError(f"expected a file with SHA-256 {sha256[:16]}..., found {found[:16]}... ({size:,} bytes)")


__all__ = ["Remote", "cache_folder", "fetch", "find", "obtain", "places", "sha256_of"]
