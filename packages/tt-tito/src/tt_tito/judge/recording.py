"""What a chapter's tests ask and want, noted while they run on the reference in this process.

Where a test calls `expect`, everything but the value that came out is kept: functions that say what is wanted or what
the cause is, too, so that this cannot come from another process. It is from these notes that a verdict is made."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from tt_tito import course, swap
from tt_tito.curriculum import Chapter
from tt_tito.exercises import PARSING, parse
from tt_tito.judge.child import OPTIONS
from tt_tito.judge.values import decode, encode

__all__ = ["GROUPS", "Check", "Recording", "questions", "record"]

GROUPS = {"unit": course.unit_tests, "integration": course.integration_tests}


@dataclass(frozen=True)
class Check:
    """A call of `expect`, without what came out."""

    call: str
    wanted: Any
    causes: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def see(self) -> str:
        """The section to reread."""
        return self.options["see"]

    def complaint(self, outcome: Any) -> str | None:
        """What is wrong with an outcome; None if nothing is."""
        from tt_tensor.teaching import complaint

        return complaint(self.call, outcome, self.wanted, *self.causes, **self.options)


@dataclass(frozen=True)
class Recording:
    """The tests of a chapter, of one group, and the checks of each, in order."""

    tests: dict[str, list[Check]]

    @property
    def checks(self) -> int:
        """How many values are compared."""
        return sum(map(len, self.tests.values()))


@functools.cache
def questions(chapter: Chapter, group: str) -> tuple[str, str]:
    """The name and the text of a chapter's tests, whose calls of `expect` are left with the call and what came out.
    ValueError if there are none."""
    file = _file(chapter, group)
    tree = parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "expect":
            node.args, node.keywords = node.args[:2], []
    return file.name, ast.unparse(tree)


def record(chapter: Chapter, group: str) -> Recording:
    """The recording of a chapter's tests, made once in a process. ValueError if there are none, RuntimeError if the
    reference fails them."""
    with PARSING:  # pytest makes syntax trees of the tests, and of every traceback that it shows
        return _record(chapter, group)


@functools.cache
def _record(chapter: Chapter, group: str) -> Recording:
    file = _file(chapter, group)
    _on_the_reference()
    text = file.read_text(encoding="utf-8")
    for _ in range(3):  # the others for tests of speed, on a machine that has been busy
        recorder = _run(file.name, text)
        if not recorder.problems:
            break
    if recorder.problems or not any(recorder.tests.values()):
        problem = recorder.problems[0] if recorder.problems else "they check nothing"
        raise RuntimeError(
            f"nothing was judged, since the course's own {group} tests of {chapter} do not pass on its reference here: "
            f"{problem}. Look at the environment with `tito doctor`."
        )
    return Recording(recorder.tests)


def _file(chapter: Chapter, group: str) -> Path:
    file = GROUPS[group](chapter)
    if not file.is_file():
        raise ValueError(f"{chapter} has no {group} tests: there is no {file.name} in {file.parent}")
    return file


class _Recorder:
    """The `expect` of a recording, and what pytest tells of each test."""

    def __init__(self) -> None:
        self.tests: dict[str, list[Check]] = {}
        self.problems: list[str] = []
        self.checks: list[Check] = []
        self.interrupted = False

    def expect(self, call: str, got: Any, wanted: Any, *causes: Any, **options: Any) -> None:
        """Keep what is wanted; look whether the reference gives it, also when it comes as data from elsewhere."""
        from tt_tensor import teaching

        pairs = tuple(cause if isinstance(cause, str) else (teaching.plain(cause[0]), cause[1]) for cause in causes)
        check = Check(call, teaching.plain(wanted), pairs, options)
        self.checks.append(check)
        outcome = teaching.outcome(got)
        said = check.complaint(outcome if isinstance(outcome, teaching.Raised) else decode(encode(outcome)))
        if said is not None:
            self.problems.append(said)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        self.checks = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test has come through, or has not."""
        if report.failed:
            self.problems.append(f"{report.nodeid}: {report.longreprtext.splitlines()[-1]}")
        elif report.when == "call" and report.passed:
            self.tests[report.nodeid] = self.checks

    def pytest_keyboard_interrupt(self, excinfo: Any) -> None:
        """Somebody has pressed Ctrl-C, which pytest would keep for itself. (Its own interruptions are subclasses.)"""
        self.interrupted = excinfo.type is KeyboardInterrupt

    def pytest_collectreport(self, report: Any) -> None:
        """The tests could not be read."""
        if report.failed:
            self.problems.append(f"{report.nodeid}: {report.longreprtext.splitlines()[-1]}")


def _run(name: str, text: str) -> _Recorder:
    """Run tests in this process as the child will: from a copy, without any configuration, on one BLAS thread."""
    teaching = importlib.import_module("tt_tensor.teaching")
    recorder, expect = _Recorder(), teaching.expect
    with tempfile.TemporaryDirectory(prefix="tito-") as folder, _undisturbed(), threadpool_limits(1, "blas"):
        (Path(folder) / name).write_text(text, encoding="utf-8")
        (Path(folder) / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        os.chdir(folder)
        vars(teaching)["expect"] = recorder.expect
        try:
            pytest.main(["-c", "pytest.ini", "--rootdir=.", "--basetemp=tmp", *OPTIONS, name], plugins=[recorder])
        finally:
            vars(teaching)["expect"] = expect
    if recorder.interrupted:
        raise KeyboardInterrupt
    return recorder


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave working directory, environment, modules and output of this process as they are."""
    here, environment, modules = os.getcwd(), dict(os.environ), set(sys.modules)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(environment)
        for name in [name for name in sys.modules if name not in modules and name.startswith("test_")]:
            del sys.modules[name]


def _on_the_reference() -> None:
    """Make sure that this process runs on the course's own chapters, whatever tt.toml says."""
    for name, module in list(sys.modules.items()):
        loader = getattr(getattr(module, "__spec__", None), "loader", None)
        if name.startswith("tt_") and isinstance(loader, swap.StandIn):
            raise RuntimeError(f"{name} is a stand-in in this process ({loader.path}), which therefore cannot judge")
    swap.install(swap.Table())
