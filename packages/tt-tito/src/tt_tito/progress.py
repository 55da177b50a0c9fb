"""What a learner has reached: one versioned file, written as a whole and checked when it is read.

Nothing stands in it that can be seen elsewhere. Which chapters are started is seen in `work/`, what is in use in
`tt.toml`; this file says what has passed, when, and on which implementation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tt_tito import files
from tt_tito.curriculum import Chapter, chapters
from tt_tito.workspace import Workspace, fingerprint

__all__ = ["DamagedProgress", "Milestone", "Progress", "implementations", "milestones", "now"]

VERSION = 1


class DamagedProgress(ValueError):
    """The progress file is not what was written; `kept` is where it has been put aside."""

    def __init__(self, kept: Path, why: str):
        super().__init__(f"the progress file was damaged ({why}) and is kept as {kept.name}")
        self.kept = kept


@dataclass
class Progress:
    """What has passed: chapters by slug, milestones by number, and how many hints of an exercise were shown."""

    chapters: dict[str, dict[str, Any]] = field(default_factory=dict)
    milestones: dict[str, dict[str, Any]] = field(default_factory=dict)
    hints: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, space: Workspace) -> Progress:
        """The progress of a workspace. DamagedProgress, after putting the file aside, if it is not as written;
        ValueError if a newer version of tito wrote it."""
        file = _file(space)
        if not file.exists():
            return cls()
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            version, data = int(document["version"]), document["data"]
            if version <= VERSION and document["sha256"] != _digest(data):
                raise ValueError("its checksum does not fit")
            found = cls(**data) if version <= VERSION else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            kept = space.backup(file)
            file.unlink()
            raise DamagedProgress(kept, f"{type(error).__name__}: {error}") from None
        if found is None:
            raise ValueError(f"{space.short(file)} was written by a newer tito (format {version}): upgrade tt-tito")
        return found

    def write(self, space: Workspace) -> None:
        """Write the progress of a workspace."""
        data = asdict(self)
        document = {"version": VERSION, "sha256": _digest(data), "data": data}
        files.write(_file(space), json.dumps(document, indent=2) + "\n")

    # ## Chapters and capabilities

    def complete(self, space: Workspace, chapter: Chapter, exercises: int) -> None:
        """Note that a chapter's tests have passed on the learner's file as it is now."""
        digest = fingerprint(space.source(chapter))
        self.chapters[chapter.slug] = {"completed": now(), "exercises": exercises, "sha256": digest}

    def changed(self, space: Workspace, chapter: Chapter) -> bool:
        """Has the learner's file changed since its tests passed?"""
        noted = self.chapters.get(chapter.slug)
        return bool(noted and space.started(chapter) and noted["sha256"] != fingerprint(space.source(chapter)))

    def done(self, space: Workspace, chapter: Chapter) -> bool:
        """Is the chapter's capability there, by the learner's own code or taken from the course?"""
        return chapter.slug in self.chapters or space.taken(chapter)

    # ## Milestones

    def earn(self, milestone: Milestone, results: list[dict[str, Any]], used: dict[str, str]) -> None:
        """Note a milestone with what its example measured and the implementations that it ran on."""
        self.milestones[str(milestone.number)] = {"earned": now(), "results": results, "implementations": used}


@dataclass(frozen=True)
class Milestone:
    """What a learner can say after a chapter whose example passes its threshold."""

    number: int
    says: str
    chapter: Chapter


def milestones() -> tuple[Milestone, ...]:
    """The milestones of the course, numbered in its order."""
    proud = [c for c in chapters() if c.milestone]
    return tuple(Milestone(number, str(c.milestone), c) for number, c in enumerate(proud, start=1))


def implementations(space: Workspace, used: Iterable[Chapter]) -> dict[str, str]:
    """What is in use for each chapter, with the fingerprint of a learner's file: `mine 3f2a...`."""
    names = {c.slug: space.implementation(c) for c in used}
    return {
        c.slug: f"mine {fingerprint(space.source(c))[:12]}" if names[c.slug] == "mine" else names[c.slug] for c in used
    }


def now() -> str:
    """The time, as it is noted."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _file(space: Workspace) -> Path:
    return space.state / "progress.json"


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
