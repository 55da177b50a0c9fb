# # Downloads
#
# An appendix of chapter 10: where data are looked for, and how they get there.

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
# A folder that is given is looked into, and nowhere else. Without one it is the folder that the environment variable
# `TT_DATA` names, and then the cache, which every system wants in another place. In each of them the files may lie
# directly, or in a folder named after the data set.


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


# A data set can have several forms, an archive or its folder, and each form consists of one or more files. The first
# place that has all of a form is the one.


def find(name: str, forms: Sequence[Sequence[str]], root: str | os.PathLike | None = None) -> list[Path] | None:
    """The paths of the first form of a data set of which everything is there; None if there is no such place."""
    for folder in places(name, root):
        for form in forms:
            if all((folder / file).exists() for file in form):
                return [folder / file for file in form]
    return None


# ## What to fetch
#
# A file that can be downloaded has a name, a checksum, and several addresses, since no server stays for ever.


@dataclass(frozen=True)
class Remote:
    """A file on the web: its name, its SHA-256, and folders on servers that have it."""

    name: str
    sha256: str
    mirrors: tuple[str, ...]


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
# A download of 170 MB will be interrupted now and then. What has arrived is kept in a file whose name ends in `.part`,
# and the next attempt asks the server for the rest only (a *range*). Not every server knows how; one that sends the
# whole again answers 200 instead of 206, and then we begin again as well.
#
# Whatever comes, from wherever, has to have the right checksum. Only then does it get its name, in one step, so that
# there is never half a file under a whole name. Each address is tried twice, since the second attempt goes on where the
# first one broke off; and if what was kept was no good, the second one begins anew.


def fetch(file: Remote, folder: Path) -> Path:
    """Download a file into a folder, unless it is there and whole; goes on with an interrupted download, and tries one
    mirror after the other. Raises OSError with what went wrong at each of them."""
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
    kept = f" {part.stat().st_size:,} bytes are kept; the next attempt goes on from there." if part.exists() else ""
    raise OSError(f"{file.name} could not be downloaded.{kept} " + "; ".join(dict.fromkeys(failures)))


DISK = {getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO")} - {None}


def _raise_if_disk_is_at_fault(error: Exception, part: Path) -> None:
    """No mirror can help if nothing can be written here."""
    if isinstance(error, OSError) and error.errno in DISK:
        size = part.stat().st_size if part.exists() else 0
        raise OSError(error.errno, f"{error.strerror}, after {size:,} bytes of the download; they are kept in", part)


def _continue(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "tinytorch"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
            _write(response, part, have if response.status == 206 else 0)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416:  # "range not satisfiable": there is no more, so the checksum has to decide
            raise


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
