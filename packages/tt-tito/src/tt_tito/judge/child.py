"""The process that runs a chapter's tests on a learner's file, and sends the values that come out. It judges nothing.

Events go to what was its standard output, one a line: the run's token, a space, and a list in JSON.

    ["ready"]                     what follows is the learner's doing
    ["import", null or raised]    the chapter has been imported, or has not
    ["test", name]                a test begins
    ["check", call, value]        a call of `expect` in it
    ["stuck", name, line]         a function of the chapter has been running for most of the time that a run has
    ["end", null or raised]       the test has ended
    ["collect", raised]           the tests could not be read
    ["changed", name]             something of NumPy or Python was replaced
    ["memory"]                    there is no memory left
    ["done"]                      all tests have run

What the learner's code prints goes to standard error, and there is nothing on its standard input."""

from __future__ import annotations

import base64
import builtins
import contextlib
import importlib
import importlib.util
import json
import marshal
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tt_tito import course, swap
from tt_tito.judge import guard
from tt_tito.judge.values import encode

__all__ = ["BOOT", "CLOSED", "OPTIONS", "main"]

BOOT = """
import json, sys
sys.path[:] = json.loads(sys.stdin.buffer.readline())
from tt_tito.judge.child import main
main(json.loads(sys.stdin.buffer.read()))
"""
OPTIONS = [  # of pytest: the tests of one file, and silence
    *("--noconftest", "--import-mode=importlib", "--assert=plain", "--capture=no"),
    *(f"-pno:{plugin}" for plugin in ("cacheprovider", "faulthandler", "junitxml", "terminal", "warnings")),
]
CLOSED = 74  # the exit status that says that nothing can be sent
Send = Callable[..., None]


def main(request: dict[str, Any]) -> None:
    """Do what a request says. The process ends here, whatever threads are left."""
    send, teaching = _channel(request["token"]), _teaching()
    reporter = Reporter(request, send, teaching.Raised.of)
    vars(teaching)["expect"] = reporter.expect
    try:
        _prepare(request)
        send("ready")
        reporter.watch()
        if reporter.importing():
            os.chdir(request["scratch"])
            arguments = ["-c", "pytest.ini", "--rootdir=.", "--basetemp=tmp", *OPTIONS, request["test"]]
            pytest.main(arguments, plugins=[reporter])
        send("done")
    except MemoryError:
        guard.more_memory()
        send("memory")
    os._exit(0)


def _channel(token: str) -> Send:
    """Keep standard output for the events; other code gets nothing to read, and only standard error to write to.

    The functions that it needs are taken now, before other code can replace them."""
    descriptor, write, leave, dumps = os.dup(1), os.write, os._exit, json.JSONEncoder(separators=(",", ":")).encode
    one_at_a_time = threading.Lock()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")

    def send(*event: Any) -> None:
        line = f"{token} {dumps(event)}\n".encode("ascii")
        try:
            with one_at_a_time:
                while line:
                    line = line[write(descriptor, line) :]
        except OSError:
            leave(CLOSED)

    return send


def _teaching() -> ModuleType:
    """The module of `expect`, without its package, because the package's chapters may be the learner's."""
    name = "tt_tensor.teaching"
    spec = importlib.util.spec_from_file_location(name, course.folder("tt_tensor") / "teaching.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _prepare(request: dict[str, Any]) -> None:
    """Put the learner's file and the other stand-ins into their places, then confine this process."""
    table = swap.Table({name: Path(path) for name, path in request["swaps"].items()})
    swap.install(table)
    for name in table.targets:  # this looks into the chapters that it replaces, which will soon be refused
        with contextlib.suppress(Exception):  # it will be raised again where the stand-in is imported
            swap.find(table, name).loader.get_code(name)
    code = marshal.loads(base64.b64decode(request["code"]))
    sys.meta_path.insert(0, Graded(request["module"], request["file"], code))
    scratch = Path(request["scratch"])
    os.chdir(scratch)
    Path(request["test"]).write_text(request.pop("text"), encoding="utf-8")
    Path("pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    guard.limit(request["memory"], request["seconds"])
    guard.confine(scratch, request["readable"], request["hidden"], boxed=request["boxed"])
    guard.watch(scratch, request["hidden"])


class Graded:
    """Finds and loads the learner's file, whose code has come with the request, under the chapter's name."""

    def __init__(self, module: str, file: str, code: Any):
        class Loader(SourceFileLoader):
            def get_code(self, fullname: str) -> Any:
                return code

        self.module, self.file, self.loader = module, file, Loader(module, file)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The spec of the learner's module."""
        if name != self.module:
            return None
        return importlib.util.spec_from_file_location(name, self.file, loader=self.loader)


class Reporter:
    """The `expect` of this process, and the events that pytest reports for each test."""

    def __init__(self, request: dict[str, Any], send: Send, of: Callable[..., Any]):
        self.send, self.of, self.module = send, of, request["module"]
        self.file, self.filled, self.test = request["file"], set(request["filled"]), request["test"]
        self.only, self.patience, self.events = request["only"], request["patience"], 0
        self.error: Any = None
        self.known = [(module, dict(vars(module))) for module in (builtins, np, np.linalg, np.random)]

    def raised(self, error: BaseException) -> Any:
        """An exception as data. Its place is in the learner's code, if the traceback has any of it."""
        if isinstance(error, MemoryError):
            guard.more_memory()  # which this takes, while the traceback still holds on to what has filled it
        raised = self.of(error, lambda file, line: file == self.file and line not in self.filled)
        place = "in the test" if raised.place.startswith(self.test) else raised.place
        return {"raised": [raised.kinds, raised.message[:2000], place]}

    def importing(self) -> bool:
        """Import the chapter, and return whether that succeeded."""
        try:
            importlib.import_module(self.module)
        except BaseException as error:
            self.send("import", self.raised(error))
            return False
        self.send("import", None)
        return True

    def expect(self, call: str, got: Any, *others: Any, **more: Any) -> None:
        """Send the value that came out."""
        try:
            with np.errstate(all="ignore"):
                data = encode(got() if callable(got) else got)
        except BaseException as error:
            data = self.raised(error)
        self.events += 1
        self.send("check", str(call), data)

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Run only the tests that were asked for."""
        if self.only is not None:
            items[:] = [item for item in items if item.nodeid in self.only]

    def watch(self) -> None:
        """Report, once, where the program is if nothing has happened for most of its time."""
        main, send, frames = threading.get_ident(), self.send, sys._current_frames
        sleep, clock = time.sleep, time.monotonic

        def look() -> None:
            seen, since = -1, clock()
            while clock() - since < self.patience:
                if seen != self.events:
                    seen, since = self.events, clock()
                sleep(self.patience / 20)
            frame = frames().get(main)
            while frame is not None and (frame.f_code.co_filename != self.file or frame.f_lineno in self.filled):
                frame = frame.f_back
            if frame is not None:
                send("stuck", frame.f_code.co_qualname, frame.f_lineno)

        threading.Thread(target=look, daemon=True).start()

    def pytest_exception_interact(self, node: Any, call: Any) -> None:
        """Report tests that could not be read."""
        if isinstance(node, pytest.Collector):
            self.send("collect", self.raised(call.excinfo.value))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Report that a test begins."""
        self.error = None
        self.events += 1
        self.send("test", nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: Any) -> Iterator[None]:
        """Keep an exception of a test: for some exceptions pytest would make a long report, for others it would end."""
        try:
            return (yield)
        except BaseException as error:
            self.error = self.raised(error)

    def pytest_runtest_makereport(self, item: Any, call: Any) -> None:
        """Keep an exception that is raised before or after a test."""
        if call.excinfo is not None and self.error is None:
            self.error = self.raised(call.excinfo.value)

    def pytest_internalerror(self, excinfo: Any) -> None:
        """Report that there is no memory left, without which not even pytest works."""
        if isinstance(excinfo.value, MemoryError):
            guard.more_memory()
            self.send("memory")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Report that a test has ended."""
        self.send("end", self.error)
        for module, names in self.known:
            for name, value in names.items():
                if vars(module).get(name) is not value:
                    self.send("changed", f"{module.__name__}.{name}")
