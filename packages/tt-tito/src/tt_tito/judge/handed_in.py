"""Finds what was handed in: chapters, under the names that learners and learning platforms give them, in whatever
folders they are. Every other file is left out with a reason. No symbolic link is followed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tt_tito import course
from tt_tito.curriculum import Chapter, chapters
from tt_tito.curriculum import chapter as chapter_called

__all__ = ["Entry", "Found", "Left", "find", "shown"]

DEEPEST = 8  # folders in a learner's folder
MOST = 2_000  # files and folders of a learner that are looked at
MOST_LEFT = 20  # files of a learner that are named
OF_NO_INTEREST = ("__pycache__", "__MACOSX")  # and what begins with a dot
OF_THE_COURSE = re.compile(r"packages|site-packages|dist-packages|node_modules|venv|tt[-_]\w+")
COPY = re.compile(r"(?:\s*\((?P<n>\d+)\)|[-_ ](?P<m>\d{1,2})|[-_ ]+(?:copy|kopie|copie|copia)(?:[-_ ]*\(?\d*\)?)?)$")


@dataclass(frozen=True)
class Entry:
    """A chapter that a learner has handed in, and other files of the same chapter, which are not graded. The names are
    safe to print."""

    learner: str
    name: str
    file: Path
    chapter: Chapter
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Left:
    """A file that is not graded, and why."""

    learner: str
    file: str
    reason: str


@dataclass
class Found:
    """What is at some paths: chapters, files that are not graded, and learners without a chapter."""

    entries: list[Entry] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    without_files: list[str] = field(default_factory=list)


def shown(name: str) -> str:
    """A name in which everything that cannot be printed, such as control characters of terminals, is written as an
    escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name)


def find(paths: list[Path]) -> Found:
    """What is at some paths: files, learners' folders, or folders with a folder or a file for each learner.
    ValueError if there is nothing to grade."""
    found = Found()
    for path in paths:
        _at(path, found, alone=len(paths) == 1)
    if not found.entries:
        reasons = [f"{left.file}: {left.reason}" for left in found.left[:3]]
        raise ValueError("there is nothing to grade: " + "; ".join(reasons or ["no file has the name of a chapter"]))
    return found


# ## Names


@dataclass(frozen=True)
class _Name:
    """The parts of a file's name: the chapter, the learner if the name has one, and the number of the copy."""

    chapter: Chapter
    learner: str = ""
    copy: int = 0


def _read(file: Path) -> _Name:
    """The parts of a file's name. ValueError, with the reason, if it is not the name of an installed chapter."""
    if file.suffix.lower() not in (".py", ".ipynb"):
        raise ValueError("is neither a Python file nor a notebook")
    found = _name(file.stem)
    if found is None:
        raise ValueError(f"is not named after a chapter, such as {', '.join(c.slug for c in chapters()[:3])}")
    if found.learner.lower().startswith("test"):
        raise ValueError("has the name of a file with tests")
    if found.chapter not in course.written():
        raise ValueError(f"is for {found.chapter}, which is not installed: pip install {found.chapter.package}")
    return found


def _name(stem: str) -> _Name | None:
    """The parts of a name that is exactly a chapter's name, a copy of it, or either with something in front."""
    text, copy = stem, 0
    while True:
        try:
            return _Name(chapter_called(text.lower()), "", copy)
        except ValueError:
            pass
        for chapter in chapters():
            own = rf"(?:0?{chapter.number}[-_\s])?{chapter.slug}"
            match = re.fullmatch(rf"(.*?[^-_\s.])[-_\s.]+{own}", text, re.IGNORECASE | re.DOTALL)
            if match:
                return _Name(chapter, match[1], copy)
        mark = COPY.search(text.lower())
        if mark is None:
            return None
        text, copy = text[: mark.start()], max(copy, int(mark["n"] or mark["m"] or 1))


# ## Places


def _at(path: Path, found: Found, alone: bool) -> None:
    """Find what is at one path; `alone` if there are no others."""
    if not path.is_dir():
        learner = shown(path.absolute().parent.name)
        chosen, left = _chosen(_looked_at([path], path.parent), learner, path.parent)
        if not path.exists() and not path.is_symlink():
            left = [Left(learner, shown(str(path)), "is neither a file nor a folder")]
        found.entries += chosen
        found.left += left
        return
    if path.is_symlink() and not alone:
        found.left.append(Left("", shown(path.name), "is a symbolic link, which is not followed"))
        return
    path = path.resolve()
    if (path / "submitted").is_dir() and ((path / "nbgrader_config.py").exists() or (path / "source").is_dir()):
        path = path / "submitted"  # a course of nbgrader, whose other folders hold the instructor's own files
    inside = sorted(entry for entry in path.iterdir() if not _is_hidden(entry))
    folders = [entry for entry in inside if _is_folder(entry)]
    files = [entry for entry in inside if entry not in folders]
    by_learner = {folder: _chosen(_walk(folder), shown(folder.name), folder) for folder in folders}
    learners = [folder for folder, (chosen, _) in by_learner.items() if chosen and folder.name != "work"]
    named = {file: name for file in files if (name := _name_of(file)) is not None}
    is_one = (path / "tt.toml").exists() or (not learners and (any(not n.learner for n in named.values())))
    is_one = is_one or (not learners and bool(by_learner.get(path / "work", ([], []))[0]))
    if is_one or (len(learners) == 1 and not alone):
        chosen, left = _chosen(_walk(path), shown(path.name), path)
        found.entries += chosen
        found.left += left
        return
    for learner in dict.fromkeys(name.learner for name in named.values() if name.learner):
        theirs = [file for file, name in named.items() if name.learner == learner]
        chosen, left = _chosen(_looked_at(theirs, path), shown(learner), path)
        found.entries += chosen
        found.left += left
    for folder, (chosen, left) in by_learner.items():
        found.entries += chosen
        found.left += left
        if not chosen:
            found.without_files.append(shown(folder.name))
    for file in files:
        if file in named and not named[file].learner:
            reason = "is beside the learners' folders: put it into the folder of the learner who wrote it"
            found.left.append(Left("", shown(file.name), reason))
        elif file not in named:
            found.left += _chosen(_looked_at([file], path), "", path)[1]


def _name_of(file: Path) -> _Name | None:
    try:
        return _read(file) if _is_file(file) else None
    except ValueError:
        return None


Look = tuple[Path, str]  # a file, and why it is left if it is


def _walk(folder: Path) -> Iterator[Look]:
    """The files in a learner's folder and the folders in it, the highest ones first."""
    ahead, seen = [(folder, 0)], 0
    while ahead:
        place, depth = ahead.pop(0)
        try:
            inside = sorted(place.iterdir())
        except OSError as error:
            yield place, f"cannot be read: {error.strerror}"
            continue
        for entry in inside:
            seen += 1
            if seen > MOST:
                yield entry, f"and all after it are not graded, because there are more than {MOST:,} files and folders"
                return
            if _is_hidden(entry):
                continue
            if not _is_folder(entry):
                yield from _looked_at([entry], folder)
            elif OF_THE_COURSE.fullmatch(entry.name):
                yield entry, "has the name of a folder that is not a learner's work"
            elif depth + 1 > DEEPEST:
                yield entry, f"is more than {DEEPEST} folders deep"
            else:
                ahead.append((entry, depth + 1))


def _looked_at(files: list[Path], folder: Path) -> Iterator[Look]:
    for file in files:
        if file.is_symlink():
            yield file, "is a symbolic link, which is not followed"
        elif not _is_file(file):
            yield file, "is not a file"
        else:
            yield file, ""


def _chosen(looks: Iterable[Look], learner: str, folder: Path) -> tuple[list[Entry], list[Left]]:
    """One file for each chapter, in the order of the course, and the files that are not graded. The highest file wins,
    then the last copy, then a Python file rather than a notebook."""
    known: dict[Chapter, list[tuple[tuple[float, int, bool], Path]]] = {}
    left: list[Left] = []

    def leave(file: Path, reason: str) -> None:
        left.append(Left(learner, _within(file, folder), reason))

    for file, reason in looks:
        try:
            if reason:
                raise ValueError(reason)
            name = _read(file)
        except ValueError as error:
            leave(file, str(error))
            continue
        parts = file.relative_to(folder).parts
        depth = 1.5 if parts[:-1] == ("work",) else len(parts)
        rank = (depth, -name.copy, file.suffix.lower() != ".py")
        known.setdefault(name.chapter, []).append((rank, file))
    entries = []
    for chapter in sorted(known, key=lambda chapter: chapter.number):
        (_, first), *others = sorted(known[chapter])
        names = tuple(_within(other, folder) for _, other in others[:MOST_LEFT])
        entries.append(Entry(learner, _within(first, folder), first, chapter, names))
        for _, other in others:
            leave(other, f"is {chapter} again: {_within(first, folder)} is graded")
    if len(left) > MOST_LEFT:
        left[MOST_LEFT:] = [Left(learner, "...", f"and {len(left) - MOST_LEFT} more files")]
    return entries, left


def _within(file: Path, folder: Path) -> str:
    """The name of a file in its learner's folder, without `work`."""
    parts = file.relative_to(folder).parts
    return shown("/".join(parts[1:] if parts[0] == "work" and len(parts) == 2 else parts))


def _is_hidden(entry: Path) -> bool:
    return entry.name.startswith(".") or entry.name in OF_NO_INTEREST


def _is_folder(entry: Path) -> bool:
    return _mode(entry, stat.S_ISDIR)


def _is_file(entry: Path) -> bool:
    return _mode(entry, stat.S_ISREG)


def _mode(entry: Path, kind) -> bool:
    """Whether it is of a kind; symbolic links are not followed."""
    try:
        return kind(os.lstat(entry).st_mode)
    except OSError:
        return False
