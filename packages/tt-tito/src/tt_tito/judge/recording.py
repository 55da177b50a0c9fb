"""The recording of a chapter's tests: what they ask and expect, noted while they run on the reference in this process.

When a test calls `expect`, everything except the value that came out is kept, including functions that return the
expected value or the cause, so that these cannot come from another process. Verdicts are made from these notes."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import io
import os
import re
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from tt_tito import course, swap
from tt_tito.curriculum import Chapter
from tt_tito.exercises import PARSING, exercises, parse
from tt_tito.judge.child import OPTIONS
from tt_tito.judge.values import decode, encode
from tt_tito.judge.visible import tests_of_checks

__all__ = ["GROUPS", "Check", "Recording", "questions", "reached", "record"]

GROUPS = {"unit": course.unit_tests, "integration": course.integration_tests}


@dataclass(frozen=True)
class Check:
    """A call of `expect`, without the value that came out."""

    call: str
    wanted: Any
    causes: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def is_timed(self) -> bool:
        """Whether the check compares times, or amounts of memory."""
        from tt_tensor.teaching import measured_between

        return isinstance(self.wanted, measured_between)

    @property
    def see(self) -> str:
        """The section to read again."""
        return self.options["see"]

    def complaint(self, outcome: Any) -> str | None:
        """The message about a wrong value; None if the value is right."""
        from tt_tensor.teaching import complaint

        return complaint(self.call, outcome, self.wanted, *self.causes, **self.options)


@dataclass(frozen=True)
class Recording:
    """The tests of a chapter, of one group, and the checks of each, in order."""

    tests: dict[str, list[Check]]

    def only(self, names: Collection[str]) -> Recording:
        """The tests of these names."""
        return Recording({name: checks for name, checks in self.tests.items() if name in names})

    @property
    def checks(self) -> int:
        """The number of values that are compared."""
        return sum(map(len, self.tests.values()))


def questions(chapter: Chapter, group: str) -> tuple[str, str]:
    """The name and text of a chapter's tests, without the parts that only state what is expected. ValueError if there
    are none."""
    return _file(chapter, group).name, _texts(chapter, group)[1]


@functools.cache
def _texts(chapter: Chapter, group: str) -> tuple[str, str]:
    """The tests as they are recorded, and as they are sent to a child: there, calls of `expect` have only the call and
    the value that comes out. The tests have the same names in both."""
    text = _file(chapter, group).read_text(encoding="utf-8")
    if group == "unit":
        text += tests_of_checks(chapter)
    recorded, tree = parse(text), parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "expect":
            node.args, node.keywords = node.args[:2], []
    while _drop_unused(tree):
        pass
    _hide_values(tree)
    hiding = {tests.place: tests for tests in _parametrized(tree) if tests.unused}
    for tests in hiding.values():
        tests.hide_the_unused()
    for tests in [*hiding.values(), *(tests for tests in _parametrized(recorded) if tests.place in hiding)]:
        tests.number()
    return ast.unparse(recorded) if hiding else text, ast.unparse(tree)


DRAWS = re.compile(r"rng|rand|seed|generator|shuffle|choice|next|pop|time|open|write", re.IGNORECASE)


def _drop_unused(tree: ast.Module) -> bool:
    """Remove the parts that only served to state what is expected, so that no frame of a test holds them: uncalled
    helpers, and assignments to names that are not used any more, unless they draw random numbers or have another
    effect. Return whether there were any."""
    dropped = False
    for block in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))]:
        used = {name for node in ast.walk(block) for name in _uses(node)}
        for node in ast.walk(block):
            if isinstance(node, ast.ClassDef):
                continue  # where an assignment makes an attribute
            for body in (getattr(node, field, None) for field in ("body", "orelse", "finalbody")):
                unused = [
                    statement
                    for statement in (body if isinstance(body, list) else ())
                    if _only_defines_others_than(used, statement, at_the_top=node is tree)
                ]
                for statement in unused:
                    body.remove(statement)
                    dropped = True
                if unused and not body and node is not tree:
                    body.append(ast.Pass())
    return dropped


def _uses(node: ast.AST) -> list[str]:
    """The names that a part of a program needs to have been assigned."""
    match node:
        case ast.Name(ctx=ast.Load() | ast.Del(), id=name) | ast.AugAssign(target=ast.Name(id=name)):
            return [name]
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            return names
    return []


def _only_defines_others_than(used: Set[str], statement: ast.stmt, at_the_top: bool) -> bool:
    match statement:
        case ast.Assign(targets=targets):
            names = [inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)]
            plain = all(isinstance(inner, ast.Name | ast.Tuple | ast.Store) for t in targets for inner in ast.walk(t))
            return plain and used.isdisjoint(names) and not any(map(DRAWS.search, _words(statement.value)))
        case ast.FunctionDef(name=name, decorator_list=[]):
            return at_the_top and not name.startswith("test") and name not in used
    return False


def _words(expression: ast.expr) -> Iterator[str]:
    """The names in an expression, but not its texts."""
    for node in ast.walk(expression):
        if isinstance(node, ast.Name | ast.Attribute):
            yield node.id if isinstance(node, ast.Name) else node.attr


def _hide_values(tree: ast.Module) -> None:
    """Remove the values from tables, of formulas for example, of which the tests use only the keys."""
    by_key: list[ast.expr] = []
    for node in ast.walk(tree):
        match node:
            case ast.For(iter=table) | ast.comprehension(iter=table):
                by_key.append(table)
            case ast.Call(func=ast.Attribute(attr="parametrize"), args=[_, table]):
                by_key.append(table)
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict(keys=keys) as table) if None not in keys:
                uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
                if all(node in by_key for node in uses if isinstance(node.ctx, ast.Load)):
                    table.values = [ast.Constant(None) for _ in keys]


@dataclass(frozen=True)
class _Parametrized:
    """Tests whose arguments are written out in rows, with an argument for each name."""

    test: ast.FunctionDef
    call: ast.Call
    names: list[str]
    rows: list[list[ast.expr]]

    @property
    def place(self) -> tuple[int, int]:
        """Their place in the text."""
        return self.call.lineno, self.call.col_offset

    @property
    def unused(self) -> list[int]:
        """The arguments that the test does not use."""
        used = {name for statement in self.test.body for node in ast.walk(statement) for name in _uses(node)}
        return [index for index, name in enumerate(self.names) if name not in used]

    def hide_the_unused(self) -> None:
        """Remove from the rows the arguments that the test does not use any more: they were expected values, or
        causes."""
        for index in self.unused:
            for row in self.rows:
                row[index] = ast.Constant(None)

    def number(self) -> None:
        """Name the rows by their numbers, unless they have names that do not depend on their contents."""
        given = [keyword.value for keyword in self.call.keywords if keyword.arg == "ids"]
        if not given or isinstance(given[0], ast.Name | ast.Lambda):
            kept = [keyword for keyword in self.call.keywords if keyword.arg != "ids"]
            ids = ast.List([ast.Constant(str(number)) for number in range(len(self.rows))], ast.Load())
            self.call.keywords = [*kept, ast.keyword("ids", ids)]


def _parametrized(tree: ast.Module) -> Iterator[_Parametrized]:
    for test in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for call in test.decorator_list:
            match call:
                case ast.Call(func=ast.Attribute(attr="parametrize"), args=[names, ast.List(elts=given)]):
                    rows = [row.args if isinstance(row, ast.Call) else getattr(row, "elts", []) for row in given]
                    found = ast.literal_eval(names)
                    known = [name.strip() for name in (found.split(",") if isinstance(found, str) else found)]
                    if len(known) > 1 and all(len(row) == len(known) for row in rows):
                        yield _Parametrized(test, call, known, rows)


RECORDINGS: dict[tuple[Chapter, str, frozenset[str] | None], Recording] = {}


def record(chapter: Chapter, group: str, only: Collection[str] | None = None) -> Recording:
    """The recording of a chapter's tests, of all or of `only` some, made once in a process. ValueError if there are
    none, RuntimeError if the reference fails them."""
    if (whole := RECORDINGS.get((chapter, group, None))) is not None:
        return whole if only is None else whole.only(only)
    key = chapter, group, None if only is None else frozenset(only)
    if key not in RECORDINGS:
        with PARSING:  # pytest makes syntax trees of the tests, and of every traceback that it shows
            RECORDINGS[key] = _record(chapter, group, only)
    return RECORDINGS[key]


def _record(chapter: Chapter, group: str, only: Collection[str] | None) -> Recording:
    file = _file(chapter, group)
    _on_the_reference()
    text, _asked = _texts(chapter, group)
    recorder = _run(file.name, text, _Recorder(only))
    if recorder.problems or not any(recorder.tests.values()):
        problem = recorder.problems[0] if recorder.problems else "they check nothing"
        raise RuntimeError(
            f"nothing was judged, since the course's own {group} tests of {chapter} do not pass on its reference here: "
            f"{problem.rstrip('.')}. Look at the environment with `tito doctor`."
        )
    return Recording(recorder.tests)


Reached = dict[str, list[set[str]]]
REACHED: dict[tuple[Chapter, str], Reached] = {}


def reached(chapter: Chapter, group: str) -> Reached:
    """The exercises that run in each test, before each of its checks and after the last, observed once in a process
    while the tests run on the reference. Code that runs in the preparation of one test may serve others, so it counts
    for all."""
    if (chapter, group) not in REACHED:
        with PARSING:
            _on_the_reference()
            probe = _Probe(chapter)
            _run(_file(chapter, group).name, _texts(chapter, group)[0], probe)
        REACHED[chapter, group] = {
            name: [found[0] | probe.before, *found[1:]] for name, found in probe.found.items()
        }  # fmt: skip
    return REACHED[chapter, group]


def _file(chapter: Chapter, group: str) -> Path:
    file = GROUPS[group](chapter)
    if not file.is_file():
        raise ValueError(f"{chapter} has no {group} tests: there is no {file.name} in {file.parent}")
    return file


class _Listener:
    """The events that pytest reports; of all tests, only those named in `only` run."""

    def __init__(self, only: Collection[str] | None):
        self.only, self.interrupted = only, False

    def expect(self, call: str, got: Any, wanted: Any, *causes: Any, **options: Any) -> None:
        """The `expect` that the tests call."""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Run only the tests that were asked for."""
        if self.only is not None:
            items[:] = [item for item in items if item.nodeid in self.only]

    def pytest_keyboard_interrupt(self, excinfo: Any) -> None:
        """Pass Ctrl-C on, which pytest would keep for itself. (Its own interruptions are subclasses.)"""
        self.interrupted = excinfo.type is KeyboardInterrupt


class _Recorder(_Listener):
    """The `expect` of a recording, and the events that pytest reports for each test."""

    def __init__(self, only: Collection[str] | None) -> None:
        super().__init__(only)
        self.tests: dict[str, list[Check]] = {}
        self.problems: list[str] = []
        self.checks: list[Check] = []

    def expect(self, call: str, got: Any, wanted: Any, *causes: Any, **options: Any) -> None:
        """Keep the expected value, and check that the reference gives it, also if it comes as data from elsewhere. If
        it is late, the machine is busy; the judge will find that out again if it matters."""
        from tt_tensor import teaching

        pairs = tuple(cause if isinstance(cause, str) else (teaching.plain(cause[0]), cause[1]) for cause in causes)
        check = Check(call, teaching.plain(wanted), pairs, options)
        self.checks.append(check)
        outcome = teaching.outcome(got)
        said = check.complaint(outcome if isinstance(outcome, teaching.Raised) else decode(encode(outcome)))
        if said is not None and not check.is_timed:
            self.problems.append(said)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note that a test begins."""
        self.checks = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note whether a test has passed."""
        if report.failed:
            self.problems.append(f"{report.nodeid}: {report.longreprtext.splitlines()[-1]}")
        elif report.when == "call" and report.passed:
            self.tests[report.nodeid] = self.checks

    def pytest_collectreport(self, report: Any) -> None:
        """Note that the tests could not be read."""
        if report.failed:
            self.problems.append(f"{report.nodeid}: {report.longreprtext.splitlines()[-1]}")


class _Probe(_Listener):
    """Notes which exercises of a chapter run in each test, by the lines of their code."""

    def __init__(self, chapter: Chapter):
        super().__init__(None)
        self.file = importlib.import_module(chapter.module).__file__
        known = exercises(course.reference(chapter).read_text(encoding="utf-8"))
        self.lines = {line: each.name for each in known for line in range(each.first, each.last + 1)}
        self.names: dict[int, tuple[str | None, Any]] = {}
        self.before: set[str] = set()
        self.found: Reached = {}
        self.test = [self.before]

    def expect(self, call: str, got: Any, *others: Any, **options: Any) -> None:
        """Run the code whose result is compared; everything that runs later belongs to the next check."""
        with contextlib.suppress(Exception):
            _ = got() if callable(got) else got
        self.test.append(set())

    def __call__(self, frame: Any, event: str, arg: Any) -> None:
        """Note that a function is called. (Its code is kept, so that no other code gets its place in memory.)"""
        code = frame.f_code
        if id(code) not in self.names:
            name = self.lines.get(code.co_firstlineno) if code.co_filename == self.file else None
            self.names[id(code)] = name, code
        name, _ = self.names[id(code)]
        if name is not None:
            self.test[-1].add(name)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: Any) -> Iterator[None]:
        """From now on, calls belong to this test."""
        self.test = self.found[item.nodeid] = [set()]
        try:
            return (yield)
        finally:
            self.test = [self.before]

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Observe every call, in all threads."""
        before = sys.gettrace(), threading.gettrace()
        sys.settrace(self)
        threading.settrace(self)
        try:
            yield
        finally:
            sys.settrace(before[0])
            threading.settrace(before[1])


def _run(name: str, text: str, recorder: Any) -> Any:
    """Run tests in this process as the child will: from a copy, without any configuration, on one BLAS thread."""
    teaching = importlib.import_module("tt_tensor.teaching")
    expect = teaching.expect
    with tempfile.TemporaryDirectory(prefix="tito-") as folder, _undisturbed(), threadpool_limits(1, "blas"):
        (Path(folder) / name).write_text(text, encoding="utf-8")
        (Path(folder) / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        os.chdir(folder)
        vars(teaching)["expect"] = recorder.expect
        try:
            with recorder.looking() if isinstance(recorder, _Probe) else contextlib.nullcontext():
                pytest.main(["-c", "pytest.ini", "--rootdir=.", "--basetemp=tmp", *OPTIONS, name], plugins=[recorder])
        finally:
            vars(teaching)["expect"] = expect
    if recorder.interrupted:
        raise KeyboardInterrupt
    return recorder


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Restore working directory, environment, modules and output of this process afterwards."""
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
