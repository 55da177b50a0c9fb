"""A learner's progress: one versioned file, written as a whole and checked when it is read.

It holds nothing that can be seen elsewhere. `work/` shows which chapters are started, and `tt.toml` shows what is in
use. This file records what has passed, when, and on which implementation.

Two commands may run at once, and a command may be killed at any time. So progress is changed in one way only: under a
lock that no command keeps while tests run, the file is read as it is now, changed and written. A copy of it is written
first, which takes its place if the file is damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tt_tito import files, reading
from tt_tito.curriculum import Chapter, chapters
from tt_tito.workspace import Workspace, fingerprint

__all__ = ["DamagedProgress", "Milestone", "Progress", "implementations", "milestones", "now"]

VERSION = 1
ENTRIES: dict[str, dict[str, type]] = {  # what an entry of each table must have, and of which type
    "chapters": {"completed": str, "exercises": int, "sha256": str},
    "milestones": {"earned": str, "results": list, "implementations": dict},
}


class DamagedProgress(ValueError):
    """The progress file is not as it was written. `copy` is the progress in its copy, or None if that is damaged,
    too."""

    def __init__(self, file: str, why: str, copy: Progress | None):
        super().__init__(f"the progress file {file} was damaged ({why.removesuffix('.')})")
        self.copy = copy


@dataclass
class Progress:
    """Everything that has passed: chapters by slug, milestones by number, and how many hints of an exercise were
    shown."""

    chapters: dict[str, dict[str, Any]] = field(default_factory=dict)
    milestones: dict[str, dict[str, Any]] = field(default_factory=dict)
    hints: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, space: Workspace) -> Progress:
        """The progress of a workspace. DamagedProgress if the file is not as written; ValueError if a newer version of
        tito wrote it. Nothing is changed."""
        file, copy = _file(space), _copy(space)
        if not file.exists() and not copy.exists():
            return cls()
        try:
            return _read(file, space)
        except reading.Unreadable as why:
            try:
                found = _read(copy, space)
            except reading.Unreadable:
                found = None
            raise DamagedProgress(space.short(file), str(why), found) from None

    @classmethod
    def update(cls, space: Workspace, change: Callable[[Progress], Any], instead: Progress | None = None) -> Progress:
        """Read the progress as it is now, change and write it, while no other command can; return it.

        `instead` takes the place of a damaged file, which goes to the backups; without it, DamagedProgress."""
        with space.locked():
            try:
                found = cls.read(space)
            except DamagedProgress:
                if instead is None:
                    raise
                found = instead
                space.put_aside(_file(space))
            change(found)
            found.write(space)
        return found

    def write(self, space: Workspace) -> None:
        """Write the progress of a workspace: a copy first, so that at any time one of the two files is whole."""
        data = asdict(self)
        text = json.dumps({"version": VERSION, "sha256": _digest(data), "data": data}, indent=2) + "\n"
        if _copy(space).is_dir():
            space.put_aside(_copy(space))
        files.write(_copy(space), text)
        files.write(_file(space), text)

    # ## Chapters and capabilities

    def complete(self, space: Workspace, chapter: Chapter, exercises: int, digest: str = "") -> None:
        """Note that a chapter's tests have passed on the file with a fingerprint, by default that of the file now."""
        digest = digest or fingerprint(space.source(chapter))
        self.chapters[chapter.slug] = {"completed": now(), "exercises": exercises, "sha256": digest}

    def changed(self, space: Workspace, chapter: Chapter) -> bool:
        """Whether the learner's file has changed since its tests passed."""
        noted = self.chapters.get(chapter.slug)
        return bool(noted and space.started(chapter) and noted["sha256"] != fingerprint(space.source(chapter)))

    def done(self, space: Workspace, chapter: Chapter) -> bool:
        """Whether the chapter's capability is unlocked, by the learner's own code or by the course's."""
        return chapter.slug in self.chapters or space.taken(chapter)

    # ## Hints and milestones

    def show_hint(self, exercise: str, last: int) -> None:
        """Note that the next hint of an exercise is shown, until the last."""
        self.hints[exercise] = min(self.hints.get(exercise, 0) + 1, last)

    def earn(self, milestone: Milestone, results: list[dict[str, Any]], used: dict[str, str]) -> None:
        """Note a milestone with what its example measured and the implementations that it ran on."""
        self.milestones[str(milestone.number)] = {"earned": now(), "results": results, "implementations": used}


@dataclass(frozen=True)
class Milestone:
    """A sentence that a learner can say after a chapter whose example passes its threshold."""

    number: int
    says: str
    chapter: Chapter


def milestones() -> tuple[Milestone, ...]:
    """The milestones of the course, numbered in its order."""
    proud = [c for c in chapters() if c.milestone]
    return tuple(Milestone(number, str(c.milestone), c) for number, c in enumerate(proud, start=1))


def implementations(space: Workspace, used: Iterable[Chapter]) -> dict[str, str]:
    """The implementation in use for each chapter, with the fingerprint of a learner's file: `mine 3f2a...`."""
    names = {c.slug: space.implementation(c) for c in used}
    return {
        c.slug: f"mine {fingerprint(space.source(c))[:12]}" if names[c.slug] == "mine" else names[c.slug] for c in used
    }


def now() -> str:
    """The time in the form in which it is noted."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _file(space: Workspace) -> Path:
    return space.state / "progress.json"


def _copy(space: Workspace) -> Path:
    return space.state / "progress.copy.json"


def _read(file: Path, space: Workspace) -> Progress:
    """The progress in a file. Unreadable if it is not as written; ValueError if a newer version of tito wrote it."""
    try:
        document = json.loads(reading.text(file))
        version, data = int(document["version"]), document["data"]
        if version > VERSION:
            newer = f"{space.short(file)} was written by a newer tito (format {version}): upgrade tt-tito"
        elif document["sha256"] != _digest(data):
            raise ValueError("its checksum does not match")
        elif not _is_progress(data):
            raise ValueError("an entry has the wrong type")
        else:
            return Progress(**data)
    except reading.Unreadable:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise reading.Unreadable(why) from None
    raise ValueError(newer)


def _is_progress(data: Any) -> bool:
    """Whether the data have the expected tables, with entries of the right types."""
    if not isinstance(data, dict) or data.keys() != {*ENTRIES, "hints"}:
        return False
    if not all(isinstance(table, dict) for table in data.values()):
        return False
    entries = [(entry, kinds) for name, kinds in ENTRIES.items() for entry in data[name].values()]
    return all(isinstance(count, int) for count in data["hints"].values()) and all(
        isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in kinds.items())
        for entry, kinds in entries
    )


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
