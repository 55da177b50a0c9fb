"""Results of earlier looks at a chapter in progress: verdicts that still hold, and which exercises run in which tests.

A verdict on an exercise holds as long as these are the same: its own text, the rest of the file except for other
exercises, the reference, the tests, and what is in use for other chapters. It serves quick answers while a chapter is
written, and does not complete a chapter. A damaged note counts as none."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tt_tito import course, exercises, files
from tt_tito.curriculum import Chapter
from tt_tito.workspace import Workspace

__all__ = ["Passed", "note_reached", "recall_reached"]


class Passed:
    """The exercises of a chapter that have passed as they are now."""

    def __init__(self, space: Workspace, chapter: Chapter, others: Mapping[str, Path]):
        text = space.text(chapter)
        tree, reference = exercises.parse(text), _text(course.reference(chapter))
        names = [exercise.name for exercise in exercises.exercises(reference)]
        left, nodes = exercises.unwritten(text, names), exercises.functions(tree)
        self.written = [name for name in names if name not in left]
        self.digests = {name: _digest(ast.dump(nodes[name])) for name in self.written}
        for name in names:
            if name in nodes:
                nodes[name].body = []
        around = [ast.dump(tree), _of_tests(chapter)]
        around += [module + _text(path) for module, path in sorted(others.items()) if path.is_file()]
        self.context, self.file = _digest(*around), space.state / "passed" / f"{chapter.slug}.json"
        known = _read(self.file)
        found = known.get("passed") if known.get("context") == self.context else None
        passed = found if isinstance(found, dict) else {}
        self.names = {name for name in self.written if passed.get(name) == self.digests[name]}

    @property
    def fresh(self) -> list[str]:
        """The written exercises that have not passed as they are now, in the order of the chapter."""
        return [name for name in self.written if name not in self.names]

    def note(self, names: set[str]) -> None:
        """Note that these have passed, too."""
        self.names |= names & self.digests.keys()
        passed = {name: self.digests[name] for name in self.written if name in self.names}
        files.write(self.file, json.dumps({"context": self.context, "passed": passed}))


def recall_reached(space: Workspace, chapter: Chapter) -> None:
    """Take from the notes which tests reach which exercises, if it was observed before."""
    from tt_tito.judge import recording

    known = _read(space.state / "reached" / f"{chapter.slug}.json")
    if known.get("of") == _of_tests(chapter) and (chapter, "unit") not in recording.REACHED:
        with suppress(AttributeError, TypeError):
            found = {test: [set(part) for part in parts] for test, parts in known["reached"].items()}
            recording.REACHED[chapter, "unit"] = found


def note_reached(space: Workspace, chapter: Chapter) -> None:
    """Keep which tests reach which exercises."""
    from tt_tito.judge import recording

    file, found = space.state / "reached" / f"{chapter.slug}.json", recording.REACHED.get((chapter, "unit"))
    if found is not None and _read(file).get("of") != _of_tests(chapter):
        plain = {test: [sorted(part) for part in parts] for test, parts in found.items()}
        files.write(file, json.dumps({"of": _of_tests(chapter), "reached": plain}))


def _of_tests(chapter: Chapter) -> str:
    return _digest(sys.version, _text(course.reference(chapter)), _text(course.unit_tests(chapter)))


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
