"""The boundary around the process that runs a learner's code, and the part of the machine that this process sees.

The best boundary is bubblewrap, a small program that gives a process namespaces of its own: a root folder with Python
and the packages and nothing else, read-only, without network and other processes. If it is not installed, or not
allowed, the process is started as it is, if possible as an ordinary user if the judge is root, and confines itself by
Landlock and seccomp (`guard`)."""

from __future__ import annotations

import functools
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import tt_tito
from tt_tito.curriculum import Chapter, chapters
from tt_tito.judge import guard

__all__ = ["SCRATCH", "as_nobody", "boundary", "hidden_from", "import_path", "readable", "wrapped"]

SCRATCH = Path("/tmp/tito-00000000")  # as a boxed process sees it
SPACE = 128 << 20  # bytes in it
NOBODY = 65534
SYSTEM = [
    *("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/nix/store", "/gnu/store"),
    *("/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo"),
    "/sys/devices/system/cpu",
]
PROC = ["/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat"]  # which a box has of its own
DEVICES = ["/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"]
NEEDED = ["numpy", "pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "safetensors", "matplotlib"]


def boundary() -> str:
    """The name of the boundary around a learner's code here: `bubblewrap`, `Landlock and seccomp`, one of these, or
    `nothing`."""
    if _bubblewrap():
        return "bubblewrap"
    parts = [*(["Landlock"] if guard.landlock_version() > 0 else []), *(["seccomp"] if guard.has_filter() else [])]
    return " and ".join(parts) or "nothing"


# ## What can be seen


@functools.cache
def import_path() -> list[str]:
    """The folders from which a learner's code imports: Python's own, and those with the course and what it needs."""
    own = [os.path.realpath(folder) for folder in _libraries()]
    names = [*NEEDED, *(chapter.package.replace("-", "_") for chapter in chapters()), "tt_tito"]

    def is_needed(entry: str) -> bool:
        return any(_is_below(entry, folder) for folder in own) or any(Path(entry, name).is_dir() for name in names)

    entries = dict.fromkeys(os.path.realpath(entry) for entry in sys.path if entry and Path(entry) != Path.cwd())
    return [entry for entry in entries if is_needed(entry)]


def readable() -> list[str]:
    """The parts of the machine that a learner's code may read: Python, the packages, the system's libraries."""
    python = os.path.realpath(sys.executable)
    found = [*SYSTEM, python, *map(os.path.realpath, _libraries()), *import_path()]
    return [path for path in dict.fromkeys(found) if os.path.exists(path)]


def hidden_from(chapter: Chapter, used: Iterable[Path] = ()) -> list[str]:
    """The folders and files that are hidden from a file of a chapter: the chapter as the course has it, all tests, and
    later packages, some of which contain the same functions again, in every installed copy. Files that are `used` in
    place of other modules are not hidden."""
    packages = list(dict.fromkeys(c.package for c in chapters()))
    later = [*packages[packages.index(chapter.package) + 1 :], "tt-torch"]
    found = [path for name in later for path in _copies(name)]
    for folder in _copies(chapter.package):
        found += [folder / f"{chapter.slug}.py", *folder.glob(f"__pycache__/{chapter.slug}.*")]
    for folder in (folder for name in packages for folder in _copies(name)):
        found += [folder / "tests", folder.parents[1] / "tests"]  # in a wheel, and in a clone
    shown = [os.path.realpath(path) for path in used]
    real = sorted({os.path.realpath(path) for path in found if path.exists()})
    hidden = [path for path in real if not any(_is_below(one, path) for one in shown)]
    return [path for path in hidden if not any(_is_below(path, other) for other in hidden if other != path)]


def _copies(package: str) -> list[Path]:
    """The folders of a package: of the one that is imported, and of others that it hides."""
    folders = [Path(entry, package.replace("-", "_")) for entry in import_path()]
    return [folder for folder in folders if folder.is_dir()]


def _is_below(path: str, folder: str) -> bool:
    return (path + os.sep).startswith(folder + os.sep)


def _libraries() -> Iterator[str]:
    """The folders of Python's own library, and of the packages that are installed in it."""
    home = os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))
    prefixes = dict.fromkeys([sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix, home])
    for prefix in prefixes:
        yield from (os.path.join(prefix, name) for name in ("lib", "lib64", "Lib", "DLLs"))
    yield from (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


# ## The box


def wrapped(command: list[str], seen: Iterable[str], hidden: Collection[str]) -> list[str] | None:
    """A command in a box, in an empty folder of limited size; None if there is no working bubblewrap."""
    bubblewrap = _bubblewrap()
    return bubblewrap and [*bubblewrap, *_view(seen, hidden), "--", os.path.realpath(command[0]), *command[1:]]


@functools.cache
def _bubblewrap() -> list[str] | None:
    """The beginning of a command in a box, if that command would run here."""
    program = shutil.which("bwrap") if sys.platform == "linux" else None
    if program is None:
        return None
    begin = [program, "--unshare-all", "--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    begin += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", "judge"]
    test = [*begin, *_view(readable(), []), "--", os.path.realpath(sys.executable), "-I", "-S", "-c", "print(7 * 6)"]
    try:
        ran = subprocess.run(test, capture_output=True, stdin=subprocess.DEVNULL, timeout=20, env={})
    except (OSError, subprocess.SubprocessError):
        return None
    return begin if ran.stdout.strip() == b"42" else None


def _view(seen: Iterable[str], hidden: Collection[str]) -> list[str]:
    """The options for a root folder that holds what may be seen, and a scratch folder, the only one that can be
    written."""
    options: list[str] = []
    for path in sorted(seen):  # so that a folder comes before its contents
        options += ["--ro-bind-try", path, path]
    options += ["--proc", "/proc"]
    for path in DEVICES:
        options += ["--dev-bind", path, path]
    for path in hidden:
        if os.path.isdir(path):
            options += ["--size", "4096", "--tmpfs", path, "--remount-ro", path]
        else:
            options += ["--ro-bind", os.path.realpath(tt_tito.__file__), path]  # a file that says nothing
    options += ["--size", str(SPACE), "--tmpfs", str(SCRATCH), "--remount-ro", "/", "--chdir", str(SCRATCH)]
    return options


# ## Without a box


def as_nobody() -> dict[str, Any]:
    """Arguments with which root starts a process as an ordinary user, if that user can read Python and reach the folder
    for temporary files."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return {}
    paths = [sys.executable, os.path.realpath(sys.executable), os.__file__, tempfile.gettempdir(), *import_path()]
    if not all(_open_to_all(path) for path in paths if os.path.exists(path)):
        return {}
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def _open_to_all(path: str) -> bool:
    """Whether every user can read this file and reach its folder."""
    mode = os.stat(path).st_mode
    wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
    folders = Path(os.path.realpath(path)).parents
    return mode & wanted == wanted and all(folder.stat().st_mode & stat.S_IXOTH for folder in folders)
