"""The verdict on a run: every recorded value must have come, in its place, and must be the expected one. Nothing that
the child says can improve the verdict; an exception, an event too many or too few, or an early end makes it worse."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tt_tito.judge.recording import Check, Recording
from tt_tito.judge.sandbox import Limits, Run
from tt_tito.judge.values import NOTHING, decode

__all__ = ["Verdict", "clean", "faults", "judge", "spoiled", "stuck_in"]

LONGEST = 1_000  # characters of a message


@dataclass(frozen=True)
class Verdict:
    """A status (passed, failed, error, timeout, memory or crashed), a message, and how many values were right until
    then."""

    status: str
    message: str
    right: int


@dataclass
class _Test:
    """The events of one test."""

    name: str
    checks: list[tuple[str, Any]] = field(default_factory=list)
    ended: bool = False
    error: Any = None


class _Wrong(Exception):
    """The first mistake: a status and a message."""


def judge(recording: Recording, run: Run, limits: Limits, file: Path) -> Verdict:
    """The verdict on a run of a recording's tests on a file."""
    right = 0
    try:
        for _ in _right_values(recording, run, limits, file):
            right += 1
    except _Wrong as wrong:
        status, message = wrong.args
        return Verdict(status, clean(message[: 4 * LONGEST])[:LONGEST], right)
    return Verdict("passed", "", right)


def spoiled(recording: Recording, run: Run, limits: Limits, timed: bool = True) -> bool:
    """Whether something is wrong in the last test of a run that continues: nothing after it can change the verdict.
    Without `timed`, times do not count."""
    start = max((i for i, event in enumerate(run.events) if event[0] == "test"), default=len(run.events))
    for test in _sent(Run(run.events[start:]))[0]:
        checks = recording.tests.get(test.name, [])
        right = _right(test, checks, run, limits) if test.name in recording.tests else None
        if right is not None and (timed or right >= len(checks) or not checks[right].is_timed):
            return True
    return False


def faults(recording: Recording, run: Run, limits: Limits) -> tuple[dict[str, int], list[str]]:
    """The tests in which something is wrong, with the number of checks that were right before, and those that the run
    has not come to. If something is wrong with the run itself, that is wrong in all of them."""
    tests, others = _sent(run)
    if "import" not in others or others["import"] is not None or others.keys() & {"collect", "changed"}:
        return dict.fromkeys(recording.tests, 0), []
    known = [test for test in tests if test.name in recording.tests]
    right = {test.name: _right(test, recording.tests[test.name], run, limits) for test in known}
    wrong = {name: count for name, count in right.items() if count is not None}
    unseen = [name for name in recording.tests if name not in right]
    if run.end == "done" or not wrong:  # no test ended it, or we cannot know which one did
        return wrong | dict.fromkeys(unseen, 0), []
    return wrong, unseen


def stuck_in(run: Run) -> str:
    """The function, by its qualified name, that was running when a run had been silent for long; nothing if none."""
    names = [event[1] for event in run.events if event[0] == "stuck" and len(event) > 1 and isinstance(event[1], str)]
    return names[-1] if names else ""


def _right(test: _Test, due: list[Check], run: Run, limits: Limits) -> int | None:
    """The number of checks of a test that are met before something is wrong; None if nothing is wrong."""
    right = 0
    try:
        for _ in _right_in(test, due, run, limits):
            right += 1
    except _Wrong:
        return right
    return None


def _right_values(recording: Recording, run: Run, limits: Limits, file: Path) -> Iterator[Check]:
    """The checks that are met, one after the other. _Wrong at the first one that is not."""
    tests, others = _sent(run)
    if "import" not in others:
        raise _ending(run, limits, f"Importing {file.name}")
    if others["import"] is not None:
        raise _Wrong(_status(others["import"], "error"), f"Importing {file.name} raised {others['import']}.")
    if "collect" in others:
        raise _Wrong(_status(others["collect"]), f"Preparing the tests raised {others['collect']}.")
    tests = [test for test in tests if test.name in recording.tests]
    for position, (name, due) in enumerate(recording.tests.items()):
        test = tests[position] if position < len(tests) else _Test(name)
        if test.name != name:
            raise _Wrong("failed", f"{test.name} ran where {name} was expected.")
        yield from _right_in(test, due, run, limits)
    if "changed" in others:
        raise _Wrong("failed", f"{others['changed']} was replaced by something else: leave it unchanged.")
    if run.end != "done":
        raise _ending(run, limits, file.name)


def _sent(run: Run) -> tuple[list[_Test], dict[str, Any]]:
    """The events that a child has sent for each test, and outside all tests."""
    tests: list[_Test] = []
    others: dict[str, Any] = {}
    try:
        for event in run.events:
            match event:
                case ["test", str(name)]:
                    tests.append(_Test(name))
                case ["check", str(call), value] if not tests[-1].ended:
                    tests[-1].checks.append((call, decode(value)))
                case ["end", error]:
                    tests[-1].ended, tests[-1].error = True, decode(error)
                case ["import" | "collect" | "changed" as kind, value]:
                    others.setdefault(kind, decode(value))
                case ["stuck", str(), int()]:
                    pass
                case _:
                    raise ValueError
    except (ValueError, IndexError):
        run.end = "flood" if run.end == "flood" else "forged"
    return tests, others


def _right_in(test: _Test, due: list[Check], run: Run, limits: Limits) -> Iterator[Check]:
    """The checks of one test that are met."""
    for index, check in enumerate(due):
        see = f'See "{check.see}".'
        if index < len(test.checks):
            call, outcome = test.checks[index]
            if call != check.call:
                raise _Wrong("failed", f"The test came to {call}, where {check.call} was expected.\n{see}")
            said = check.complaint(outcome)
            if said is not None:
                refused = isinstance(check.wanted, type) and issubclass(check.wanted, BaseException)
                raise _Wrong(_status(outcome), said if refused else _without_a_return(said, call, outcome))
            yield check
        elif test.error is not None:
            raise _Wrong(_status(test.error), f"On the way to {check.call}: {test.error}.\n{see}")
        elif test.ended:
            raise _Wrong("failed", f"The test ended before it came to {check.call}.\n{see}")
        else:
            raise _ending(run, limits, check.call, see)
    title = test.name.rpartition("::")[2].replace("_", " ")
    see = f'See "{due[-1].see}".' if due else ""
    if len(test.checks) > len(due):
        raise _Wrong("failed", f"The {title} continued where it should have ended.\n{see}")
    if test.error is not None:
        raise _Wrong(_status(test.error), f"The {title} raised {test.error}.\n{see}")
    if not test.ended:
        raise _ending(run, limits, f"The {title}", see)


def _without_a_return(said: str, call: str, outcome: Any) -> str:
    """A complaint that asks for a missing `return` if the result was None, instead of other likely causes."""
    if outcome is not None and str(outcome) != NOTHING:
        return said
    first, *rest = [line for line in said.splitlines() if not line.startswith("Likely: ")]
    return "\n".join([first, f"Likely: {_called(call)} returned None: is a `return` missing?", *rest])


def _called(call: str) -> str:
    """The function that the last expression of a call begins with; `it` for text that is not Python."""
    try:
        node: Any = ast.parse(call.rpartition(";")[2].strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "it"
    name = "it"
    while not isinstance(node, ast.Name):
        match node:
            case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
                node = node.func
            case ast.Attribute(value=node) | ast.Subscript(value=node):
                pass
            case _:
                return name
    return name


def _status(raised: Any, otherwise: str = "failed") -> str:
    return "memory" if "builtins.MemoryError" in getattr(raised, "kinds", ()) else otherwise


def _ending(run: Run, limits: Limits, what: str, see: str = "") -> _Wrong:
    """The mistake if a run ended during `what`."""
    end, _, detail = run.end.partition(" ")
    status, said = {
        "done": ("failed", "was left out"),
        "stopped": ("failed", "was not reached"),
        "timeout": ("timeout", f"did not end within {limits.seconds:g} seconds"),
        "memory": ("memory", f"took more than {limits.memory / (1 << 30):g} GB of memory"),
        "excess": ("crashed", f"made {detail}"),
        "forged": ("failed", "wrote into the channel on which the values are sent to be judged"),
        "flood": ("failed", "sent more than can be judged"),
        "closed": ("crashed", "closed the channel on which the values are sent to be judged"),
        "exit": ("crashed", f"ended Python with exit status {detail}"),
        "signal": ("timeout" if detail == "SIGXCPU" else "crashed", f"crashed Python ({detail})"),
    }[end]
    return _Wrong(status, f"{what} {said}.\n{see}")


def clean(text: str) -> str:
    """A text that can be printed, without parts that change from run to run: addresses, the scratch folder's name."""
    text = re.sub(r"0x[0-9a-fA-F]{4,}", "0x...", text)
    text = re.sub(r"[^\s'\"]*tito-\w{8}", "scratch", text)
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip()
