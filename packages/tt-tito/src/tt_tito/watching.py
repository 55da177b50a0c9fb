"""`tito watch`: judge a chapter whenever its file is saved, until it is complete.

The answer comes from a process that was started before the file was saved, and only those tests run that reach an
exercise which has changed."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tt_tito import commands, console, experiments, judging
from tt_tito.curriculum import Chapter
from tt_tito.judge.sandbox import SPARES
from tt_tito.progress import Progress
from tt_tito.reading import Unreadable
from tt_tito.workspace import Workspace

__all__ = ["watch"]

PAUSE = 0.05  # seconds between looks at the file
SETTLED = 0.1  # seconds that a file must stay the same: an editor may write it in parts
IDLE = 1.0  # seconds after an answer, when the learner is reading it
KEYS = {"h": "hint", "n": "next", "s": "show", "d": "diff", "q": "quit"}


def watch(space: Workspace, chapter: Chapter) -> None:
    """Judge a chapter whenever its file is saved, and obey keys, until `q` or Ctrl-C."""
    file = space.file(chapter)
    if not space.started(chapter):
        raise ValueError(f"{chapter} is not started: tito module start {chapter.number:02d}")
    console.watching(space, chapter)
    watched = Watched(space, chapter)
    with SPARES.kept(2), keys() as key, contextlib.suppress(KeyboardInterrupt):
        for what in changes(file, key):
            try:
                getattr(watched, what)()
            except (Unreadable, ValueError, ImportError, OSError, RuntimeError) as error:
                console.failure(str(error))


@dataclass
class Watched:
    """A chapter that is watched: what has passed, and the exercise at hand."""

    space: Workspace
    chapter: Chapter
    passed: set[str] = field(default_factory=set)
    now: str = ""  # the exercise that hints are for

    def saved(self) -> None:
        """Judge the file, and show what to do next."""
        start, told = time.perf_counter(), []

        def tell(message: str) -> None:
            told.append(message)
            console.watched_failure(message, time.perf_counter() - start)

        found = judging.look(self.space, self.chapter, tell=tell)
        failing = [mark.name for mark in found.exercises if mark.status == "failed"]
        passed = {mark.name for mark in found.exercises if mark.status == "passed"}
        left = [mark.name for mark in found.exercises if mark.status == "unwritten" and not mark.starred]
        self.now = next(iter([*failing, *left]), "")
        if found.message and not told:
            console.watched_failure(found.message, time.perf_counter() - start)
        console.watched(self.chapter, found, passed - self.passed, self.possible(passed), self.now)
        self.passed = passed

    def idle(self) -> None:
        """Get ready for the next answer."""
        judging.prepare(self.space, self.chapter)

    def possible(self, passed: set[str]) -> list[str]:
        """The experiments that run on the learner's code alone now, and did not before."""
        return [each.name for each in experiments.new_ones(self.chapter, self.passed, passed)]

    def hint(self) -> None:
        """Give the next hint for the exercise at hand."""
        name, hints = commands.hints(self.space, self.chapter, self.now or None)
        key = f"{self.chapter.slug}.{name}"
        progress = Progress.update(self.space, lambda progress: progress.show_hint(key, len(hints)))
        console.hint(self.chapter, name, progress.hints[key], hints)

    def next(self) -> None:
        """Move to the next exercise that is not written yet."""
        left = self.space.left(self.chapter)
        after = left[left.index(self.now) + 1 :] if self.now in left else left
        self.now = next(iter([*after, *left]), "")
        console.exercise(self.chapter, self.now)

    def show(self) -> None:
        """Run the last experiment that the learner's code makes possible; the first one if there is none."""
        known = experiments.experiments(self.chapter)
        ready = [each for each in known if each.needs and each.needs <= self.passed]
        for figure in experiments.run(self.space, self.chapter, [(ready[-1] if ready else known[0]).name]):
            console.say(f"Figure: {self.space.short(figure)}")

    def diff(self) -> None:
        """Print the differences from the reference's answers."""
        console.difference(commands.difference(self.space, self.chapter))


@dataclass
class Seen:
    """The state of a watched file at the last look."""

    file: Path
    mark: tuple[int, int] | None = field(default=None)

    def changed(self) -> bool:
        """Whether the file has changed since the last look. A file that has just been deleted or emptied has not
        changed yet, because an editor does that before it writes."""
        mark = self._mark()
        if mark is None or mark == self.mark:
            return False
        while mark != (later := self._after(SETTLED)):
            mark = later
        changed = mark is not None and mark != self.mark
        self.mark = mark or self.mark
        return changed

    def _after(self, seconds: float) -> tuple[int, int] | None:
        if time.time_ns() - (self._mark() or (0, 0))[0] < seconds * 1e9:
            time.sleep(seconds)
        return self._mark()

    def _mark(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            found = self.file.stat()
            return (found.st_mtime_ns, found.st_size) if found.st_size else None
        return None


def changes(file: Path, key: Callable[[], str]) -> Iterator[str]:
    """Wait, and yield `saved` for each change of the file, once at the beginning, or the meaning of a key; and once
    `idle`, when nothing has happened for a while."""
    seen, since, was_idle = Seen(file), time.monotonic(), False
    while True:
        if seen.changed():
            yield "saved"
            since = time.monotonic()
        pressed = KEYS.get(key().lower(), "")
        if pressed == "quit":
            return
        if pressed:
            yield pressed
            since = time.monotonic()
        if not was_idle and time.monotonic() - since > IDLE:
            yield "idle"
            was_idle = True
        time.sleep(PAUSE)


@contextlib.contextmanager
def keys() -> Iterator[Callable[[], str]]:
    """A function that returns the key that was pressed, or nothing. In a pipe, letters are keys, and its end is `q`."""
    if sys.platform == "win32":
        import msvcrt

        yield lambda: msvcrt.getwch() if msvcrt.kbhit() else ""
        return
    import select

    try:
        descriptor = sys.stdin.fileno()
        terminal = os.isatty(descriptor)
    except (AttributeError, OSError, ValueError):
        yield lambda: ""
        return

    def pressed() -> str:
        if not select.select([descriptor], [], [], 0)[0]:
            return ""
        return os.read(descriptor, 1).decode("ascii", "replace") or "q"

    if not terminal:
        yield pressed
        return
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
