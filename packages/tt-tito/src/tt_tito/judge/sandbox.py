"""Runs a child to its end, or to the end of what it may take, and leaves nothing of it behind."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil  # type: ignore[import-untyped]

from tt_tito.judge.child import BOOT, CLOSED

__all__ = ["CORES", "Job", "Limits", "Run", "import_path", "run", "workers"]

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
AT_ONCE = threading.BoundedSemaphore(CORES)
START = 60.0  # seconds until a child is ready, which is no doing of the learner's
MOST_SENT = 32 << 20  # bytes of events
TAIL = 4_000  # bytes of what was printed
INTERRUPTED = threading.Event()
MARK = "TT_JUDGE"  # the variable by which a process is known as one that a run has left behind
TESTS = 6  # how many times the seconds of one test all of them may take


@dataclass(frozen=True)
class Limits:
    """What a run may take: seconds until something is heard of it again, TESTS times as long in all, both from the
    import of the chapter on, and bytes of memory."""

    seconds: float = 10.0
    memory: int = 1 << 30


@dataclass(frozen=True)
class Job:
    """What a child is to do: a file's code under a module's name, and tests to run on it."""

    module: str
    file: Path
    code: bytes
    filled: list[int]
    test: str
    text: str
    path: list[str]
    swaps: dict[str, Path] = field(default_factory=dict)
    hidden: Collection[Path] = ()


def import_path() -> list[str]:
    """Where this process imports from, without the working directory, in which anything may lie."""
    return [str(Path(entry).absolute()) for entry in sys.path if entry and Path(entry) != Path.cwd()]


@dataclass
class Run:
    """What came from a child, how it ended, and the end of what it printed.

    The end is `done`, `timeout`, `memory`, `forged` for events that are not the child's, `flood` for too many of them,
    `closed` for a channel closed too early, `exit 3` or `signal SIGSEGV`."""

    events: list[list[Any]] = field(default_factory=list)
    end: str = ""
    printed: str = ""


@contextmanager
def workers(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for runs, which do not outlast a Ctrl-C."""
    try:
        with ThreadPoolExecutor(count) as pool:
            try:
                yield pool
            except KeyboardInterrupt:
                INTERRUPTED.set()
                raise
    finally:
        INTERRUPTED.clear()


def run(job: Job, limits: Limits) -> Run:
    """Run a job in a process of its own; no more of them at once than there are cores."""
    with AT_ONCE, _scratch() as scratch:
        (scratch / job.test).write_text(job.text, encoding="utf-8")
        (scratch / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        child = Child(job, limits, scratch)
        try:
            child.watch()
        finally:
            child.clean_up()
        return child.result()


class Child:
    """A process, the threads that read what it writes, and the clock."""

    def __init__(self, job: Job, limits: Limits, scratch: Path):
        self.limits, self.scratch, self.mark, self.token = limits, scratch, secrets.token_hex(16), secrets.token_hex(16)
        self.run, self.ready, self.over = Run(), threading.Event(), threading.Event()
        self.printed = b""
        self.start, self.heard = time.time(), time.monotonic()
        own_session: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            own_session = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        self.process = subprocess.Popen(
            [sys.executable, "-s", "-S", "-B", "-P", "-c", BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=scratch,
            env=_environment(scratch, self.mark),
            **own_session,
        )
        readers = {self._read_events: self.process.stdout, self._read_output: self.process.stderr}
        self.threads = [threading.Thread(target=read, args=[pipe], daemon=True) for read, pipe in readers.items()]
        for thread in self.threads:
            thread.start()
        with suppress(OSError), self.process.stdin:
            self.process.stdin.write(json.dumps(_request(job, limits, scratch, self.token)).encode())

    def watch(self) -> None:
        """Wait until there is nothing more to wait for."""
        if not self._wait(self.ready, START):
            return
        if not self._wait(self.over, self.limits.seconds):
            self.run.end = self.run.end or "timeout"

    def _wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for an event, or for the end of the run; False if the time or the memory was spent before."""
        start = self.heard = time.monotonic()
        while not event.wait(0.05) and not self.over.is_set():
            if time.monotonic() > min(self.heard + seconds, start + TESTS * seconds) or INTERRUPTED.is_set():
                return False
            if self._memory() > self.limits.memory:
                self.run.end = "memory"
                return False
        return True

    def _memory(self) -> int:
        """What the child occupies: of use where the platform has no limit for it."""
        try:
            return psutil.Process(self.process.pid).memory_info().rss
        except psutil.Error:
            return 0

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
                    self.heard = time.monotonic()
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
        if not self.run.end:
            self.run.end = "closed" if status in (None, CLOSED) else _exit(status)

    def result(self) -> Run:
        """What there is to judge. RuntimeError if the learner's code did not even get its turn."""
        printed = self.printed.decode("utf-8", "replace")
        if not self.ready.is_set():
            last = (printed.strip().splitlines() or [self.run.end])[-1]
            raise RuntimeError(f"the process that is to run the tests did not start: {last}")
        self.run.printed = printed
        return self.run


def end_marked(mark: str, since: float) -> None:
    """End every process that carries the mark of a run in its environment, until there is none."""
    for _ in range(100):
        found = False
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.create_time() >= since - 1 and process.environ().get(MARK) == mark:
                    found = True
                    process.kill()
        if not found:
            return


def _exit(status: int) -> str:
    if status >= 0:
        return f"exit {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def _request(job: Job, limits: Limits, scratch: Path, token: str) -> dict[str, Any]:
    prefixes = [sys.prefix, sys.base_prefix, sys.exec_prefix, *job.path]
    system = ["/usr", "/lib", "/lib64", "/bin", "/etc", "/opt", "/proc", "/sys", "/dev/urandom", "/nix/store"]
    return {
        "token": token,
        "path": job.path,
        "scratch": str(scratch),
        "module": job.module,
        "file": str(job.file),
        "code": base64.b64encode(job.code).decode(),
        "filled": job.filled,
        "test": job.test,
        "swaps": {name: str(target) for name, target in job.swaps.items()},
        "hidden": [str(hidden) for hidden in job.hidden],
        "readable": sorted({*prefixes, *system, str(job.file), *map(str, job.swaps.values())}),
        "memory": limits.memory,
        "seconds": int(limits.seconds) * 4 + 60,
    }


def _environment(scratch: Path, mark: str) -> dict[str, str]:
    """Nothing of this process's environment but what a process cannot start without."""
    kept = ("LD_LIBRARY_PATH", "PATH", "SYSTEMDRIVE", "SYSTEMROOT", "WINDIR")
    homes = ("APPDATA", "HOME", "LOCALAPPDATA", "TEMP", "TMP", "TMPDIR", "USERPROFILE", "XDG_CACHE_HOME")
    threads = ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        **dict.fromkeys(homes, str(scratch)),
        **dict.fromkeys(threads, "1"),
        "MALLOC_ARENA_MAX": "2",
        "MPLBACKEND": "Agg",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "TZ": "UTC",
        MARK: mark,
    }


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder that is there for one run."""
    folder = Path(tempfile.mkdtemp(prefix="tito-")).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for place, folders, _ in os.walk(folder):  # what is left, since the learner's code has locked it
            for name in folders:
                os.chmod(Path(place, name), 0o700)
        shutil.rmtree(folder, ignore_errors=True)
