"""Runs a child until it ends or exceeds a limit, and leaves nothing of it behind."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil  # type: ignore[import-untyped]

from tt_tito.judge import box
from tt_tito.judge.child import BOOT, CLOSED
from tt_tito.judge.scratch import MOST_ENTRIES, excess, scratch

__all__ = ["CORES", "SPARES", "Job", "Limits", "Run", "run", "workers"]

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
AT_ONCE = threading.BoundedSemaphore(CORES)
START = 60.0  # seconds until a child is ready, which do not count against the learner
MOST_SENT = 16 << 20  # bytes of events
MOST_THREADS = 500
TAIL = 4_000  # bytes of what was printed
INTERRUPTED = threading.Event()
MARK = "TT_JUDGE"  # the variable by which a process is known as one that a run has left behind
TESTS = 4  # how many times the seconds of one test all of them may take
LOOK = 0.25  # seconds between looks into the scratch folder


@dataclass(frozen=True)
class Limits:
    """The limits of a run: seconds without an event, TESTS times as long in all, both counted from the import of the
    chapter, and bytes of memory. All runs together that find out which exercises are at fault may take as many seconds
    as the budget has, each counted from its import."""

    seconds: float = 10.0
    memory: int = 1 << 30
    budget: float = 60.0


@dataclass(frozen=True)
class Job:
    """The task of a child: a file's code under a module's name, and tests to run on it, all or some."""

    module: str
    file: Path
    code: bytes
    filled: list[int]
    test: str
    text: str
    only: list[str] | None = None
    swaps: dict[str, Path] = field(default_factory=dict)
    readable: list[str] = field(default_factory=box.readable)
    hidden: list[str] = field(default_factory=list)


@dataclass
class Run:
    """The events of a child, how it ended, the end of its printed output, and the seconds that the learner's code took.

    The end is `done`, `stopped` because the rest need not run, `timeout`, `memory`, `excess` and of what, `forged` for
    events that are not the child's, `flood` for too many of them, `closed` for a channel closed too early, `exit 3` or
    `signal SIGSEGV`."""

    events: list[list[Any]] = field(default_factory=list)
    end: str = ""
    printed: str = ""
    seconds: float = 0.0


@contextmanager
def workers(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for runs, which end with Ctrl-C."""
    try:
        with ThreadPoolExecutor(count) as pool:
            try:
                yield pool
            except KeyboardInterrupt:
                INTERRUPTED.set()
                raise
    finally:
        INTERRUPTED.clear()


def run(job: Job, limits: Limits, enough: Callable[[Run], bool] = lambda run: False) -> Run:
    """Run a job in a process of its own; no more of them at once than there are cores. After each test, `enough` says
    whether the rest need not run."""
    with AT_ONCE:
        child = SPARES.take(Place.of(job))
        try:
            child.begin(job, limits, enough)
            child.watch()
        finally:
            child.clean_up()
    SPARES.prepare(job)
    return child.result()


@dataclass(frozen=True)
class Place:
    """The place of a child: its command, the part of the machine that it sees, and whether that is a box."""

    command: tuple[str, ...]
    seen: tuple[str, ...]
    boxed: bool

    @classmethod
    def of(cls, job: Job) -> Place:
        """The place for a job."""
        command = [sys.executable, "-s", "-S", "-B", "-P", "-c", BOOT]
        seen = [*job.readable, *(os.path.realpath(path) for path in (job.file, *job.swaps.values()))]
        boxed = box.wrapped(command, seen, job.hidden)
        return cls(tuple(boxed or command), tuple(seen), boxed is not None)


class Spares:
    """Children that have started and wait for a job, if some are kept: this saves half a second for each run."""

    def __init__(self) -> None:
        self.count, self.lock = 0, threading.Lock()
        self.waiting: list[Child] = []

    def take(self, place: Place) -> Child:
        """A child in a place, which is a new one if none waits there."""
        with self.lock:
            found = next((child for child in self.waiting if child.place == place), None)
            if found is not None:
                self.waiting.remove(found)
        return found or Child(place)

    def prepare(self, job: Job) -> None:
        """Start as many as are kept, for jobs like this one."""
        place = Place.of(job)
        while len(self.waiting) < self.count:
            child = Child(place)
            with self.lock:
                self.waiting.append(child)

    @contextmanager
    def kept(self, count: int) -> Iterator[None]:
        """Keep some from now on, until the end of the block."""
        self.count = count
        try:
            yield
        finally:
            self.count = 0
            self.dismiss()

    def dismiss(self) -> None:
        """End the children that wait in another place."""
        while self.waiting:
            self.waiting.pop().clean_up()


SPARES = Spares()


class Child:
    """A process, the threads that read what it writes, and the clock."""

    def __init__(self, place: Place):
        self.place, self.boxed, self.limits = place, place.boxed, Limits()
        self.enough: Callable[[Run], bool] = lambda run: False
        self.mark, self.token = secrets.token_hex(16), secrets.token_hex(16)
        self.run, self.ready, self.over = Run(), threading.Event(), threading.Event()
        self.printed = b""
        self.start, self.heard, self.looked = time.time(), time.monotonic(), 0.0
        self.open = ExitStack()
        self.folder = box.SCRATCH if place.boxed else self.open.enter_context(scratch())
        options: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        if not place.boxed:
            options |= {"cwd": self.folder, **box.as_nobody()}
        try:
            self.process = subprocess.Popen(
                place.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(self.folder, self.mark),
                **options,
            )
        except BaseException:
            self.open.close()
            raise
        readers = {self._read_events: self.process.stdout, self._read_output: self.process.stderr}
        self.threads = [threading.Thread(target=read, args=[pipe], daemon=True) for read, pipe in readers.items()]
        for thread in self.threads:
            thread.start()
        with suppress(OSError):
            self.process.stdin.write(json.dumps(box.import_path()).encode() + b"\n")  # so that it can begin to import
            self.process.stdin.flush()

    def begin(self, job: Job, limits: Limits, enough: Callable[[Run], bool]) -> None:
        """Give it a job."""
        self.limits, self.enough = limits, enough
        readable = [*self.place.seen, *box.PROC]
        request = _request(job, limits, self.folder, self.token) | {"readable": readable, "boxed": self.boxed}
        with suppress(OSError), self.process.stdin:
            self.process.stdin.write(json.dumps(request).encode())

    def watch(self) -> None:
        """Wait until there is nothing more to wait for."""
        if not self._wait(self.ready, START):
            return
        start = time.monotonic()
        if not self._wait(self.over, self.limits.seconds):
            self.run.end = self.run.end or "timeout"
        self.run.seconds = time.monotonic() - start

    def _wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for an event, or for the end of the run; False if time or something else was used up before."""
        start = self.heard = time.monotonic()
        most = min(TESTS * seconds, self.limits.budget) if event is self.over else seconds
        while not event.wait(0.05) and not self.over.is_set():
            if time.monotonic() > min(self.heard + seconds, start + most) or INTERRUPTED.is_set():
                return False
            if self._memory() > self.limits.memory:
                self.run.end = "memory"
                return False
            if self.ready.is_set() and time.monotonic() > self.looked + LOOK:
                self.looked = time.monotonic()
                if found := self._excess():
                    self.run.end = f"excess {found}"
                    return False
        return True

    def _memory(self) -> int:
        """The memory of the child, for platforms that have no limit for it."""
        try:
            return psutil.Process(self.process.pid).memory_info().rss
        except psutil.Error:
            return 0

    def _excess(self) -> str:
        """The resource of which the child takes too much; empty if there is none."""
        with suppress(psutil.Error, OSError, IndexError):
            process = psutil.Process(self.process.pid)
            if self.boxed:
                process = process.children(recursive=True)[-1]
                inside = os.statvfs(f"/proc/{process.pid}/root{box.SCRATCH}")
                if inside.f_files - inside.f_ffree > MOST_ENTRIES:
                    return f"more than {MOST_ENTRIES:,} files and folders"
            if process.num_threads() > MOST_THREADS:
                return f"more than {MOST_THREADS} threads"
        return "" if self.boxed else excess(self.folder, self.process.pid if sys.platform == "linux" else None)

    def _read_events(self, pipe: IO[bytes]) -> None:
        read = 0
        with suppress(OSError), pipe:
            while line := pipe.readline(MOST_SENT):
                read += len(line)
                event = self._event(line) if read <= MOST_SENT else ["flood"]
                if event[0] in ("done", "memory", "flood", "forged"):
                    self.run.end = event[0]
                    break
                if event == ["ready"]:
                    self.ready.set()
                else:
                    self.run.events.append(event)
                    if event[0] != "stuck":
                        self.heard = time.monotonic()
                    if event[0] == "end" and self.enough(self.run):
                        self.run.end = "stopped"
                        break
        self.over.set()

    def _event(self, line: bytes) -> list[Any]:
        token, _, rest = line.partition(b" ")
        try:
            event = json.loads(rest)
        except (ValueError, RecursionError):
            event = None
        return event if token == self.token.encode() and isinstance(event, list) and event else ["forged"]

    def _read_output(self, pipe: IO[bytes]) -> None:
        with suppress(OSError), pipe:
            while data := pipe.read1(1 << 16):  # type: ignore[attr-defined]
                self.printed = (self.printed + data)[-TAIL:]

    def clean_up(self) -> None:
        """End the process and whatever it has started, and close the pipes."""
        with suppress(OSError):
            self.process.stdin.close()
        if not self.run.end:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
        status = self.process.poll()
        if sys.platform != "win32":
            with suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        end_marked(self.mark, self.start)
        for thread in self.threads:
            thread.join(2)
        self.open.close()
        if not self.run.end:
            self.run.end = "closed" if status in (None, CLOSED) else _exit(status, self.boxed)

    def result(self) -> Run:
        """The run, to be judged. RuntimeError if the learner's code did not even begin."""
        printed = self.printed.decode("utf-8", "replace")
        if not self.ready.is_set():
            last = (printed.strip().splitlines() or [self.run.end])[-1]
            raise RuntimeError(f"the process that is to run the tests did not start: {last}")
        self.run.printed = printed
        return self.run


def end_marked(mark: str, since: float) -> None:
    """End every process that carries the mark of a run in its environment, until none is left."""
    for _ in range(100):
        found = False
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.create_time() >= since - 1 and process.environ().get(MARK) == mark:
                    found = True
                    process.kill()
        if not found:
            return


def _exit(status: int, boxed: bool = False) -> str:
    if boxed and status > 128:  # how bubblewrap reports a signal
        status = 128 - status
    if status >= 0:
        return f"exit {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def _request(job: Job, limits: Limits, folder: Path, token: str) -> dict[str, Any]:
    return {
        "token": token,
        "scratch": str(folder),
        "module": job.module,
        "file": str(job.file),
        "code": base64.b64encode(job.code).decode(),
        "filled": job.filled,
        "test": job.test,
        "text": job.text,
        "only": job.only,
        "patience": 0.8 * limits.seconds,
        "swaps": {name: os.path.realpath(target) for name, target in job.swaps.items()},
        "hidden": job.hidden,
        "memory": limits.memory,
        "seconds": int(limits.seconds) * TESTS + 60,
    }


def _environment(folder: Path, mark: str) -> dict[str, str]:
    """The variables of this process's environment without which a process cannot start."""
    kept = ("LD_LIBRARY_PATH", "PATH", "SYSTEMDRIVE", "SYSTEMROOT", "WINDIR")
    homes = ("APPDATA", "HOME", "LOCALAPPDATA", "TEMP", "TMP", "TMPDIR", "USERPROFILE", "XDG_CACHE_HOME")
    threads = ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        **dict.fromkeys(homes, str(folder)),
        **dict.fromkeys(threads, "1"),
        "MALLOC_ARENA_MAX": "2",
        "MPLBACKEND": "Agg",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "TZ": "UTC",
        MARK: mark,
    }
