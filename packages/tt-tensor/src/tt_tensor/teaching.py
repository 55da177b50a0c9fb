"""What a failing test says to whoever writes the chapter: call, outcome, expectation, likely cause, where to look."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


def expect(call: str, got: Any, wanted: Any, *causes: str | tuple[Any, str], see: str, tolerance: float = 1e-4) -> None:
    """Raise AssertionError unless `got` is `wanted`: numbers to a relative `tolerance`, everything else exactly.

    `got` is a value, or a function without arguments that is called to get it. `wanted` may be an exception class, for
    a call that must be refused. A cause is a pair (evidence, text): the text is given if what came out equals the
    evidence, satisfies it if that is a function, or was raised if it is an exception class. A text without evidence is
    given as likely when no evidence fits. `see` is the title of a section of the chapter."""
    __tracebackhide__ = True
    outcome = _outcome(got)
    if not _fits(wanted, outcome, tolerance):
        pairs = [cause for cause in causes if not isinstance(cause, str)]
        known = [text for evidence, text in pairs if _fits(evidence, outcome, max(tolerance, 1e-4))]
        likely = [f"Likely: {cause}" for cause in causes if isinstance(cause, str)]
        first = f"{call} {_told(outcome, wanted)}, expected {_shown(wanted, outcome)}."
        raise AssertionError("\n".join([first, *(known + likely)[:1], f'See "{see}".'])) from None


@dataclass(frozen=True)
class between:
    """A range as the wanted result: any number from `low` to `high`."""

    low: float
    high: float

    def __call__(self, value) -> bool:
        return bool(self.low <= float(value) <= self.high)

    def __str__(self) -> str:
        return f"between {self.low:.4g} and {self.high:.4g}"


def _outcome(got):
    if not callable(got):
        return _plain(got)
    try:
        with np.errstate(all="ignore"):
            return _plain(got())
    except Exception as error:
        return error


def _plain(value):
    return np.asarray(value) if hasattr(value, "__array__") else value


def _fits(evidence, outcome, tolerance) -> bool:
    if isinstance(evidence, type) and issubclass(evidence, Exception):
        return isinstance(outcome, evidence)
    if isinstance(outcome, Exception):
        return False
    if callable(evidence):
        return _holds(evidence, outcome)
    if not (_is_numeric(evidence) and _is_numeric(outcome)):
        return bool(np.all(outcome == evidence))
    a, b = np.asarray(outcome), np.asarray(evidence)
    return a.shape == b.shape and np.allclose(a, b, rtol=tolerance, atol=tolerance / 100, equal_nan=True)


def _holds(condition, outcome) -> bool:
    """Whether a condition is met: what it cannot be asked of, such as `None < 0`, does not meet it."""
    try:
        return bool(condition(outcome))
    except Exception:
        return False


def _is_numeric(value) -> bool:
    if isinstance(value, (tuple, str, type)):
        return False
    try:
        return np.asarray(value).dtype.kind in "fiub"
    except ValueError:  # a list with rows of unequal lengths
        return False


def _told(outcome, wanted) -> str:
    if not isinstance(outcome, Exception):
        return f"gave {_shown(outcome, wanted)}"
    *_, last = traceback.extract_tb(outcome.__traceback__)
    message = str(outcome).partition("\n")[0][:200]
    return f"raised {type(outcome).__name__}: {message} ({Path(last.filename).name}, line {last.lineno})"


def _shown(value, other) -> str:
    if isinstance(value, type):
        return f"a {value.__name__}"
    if not _is_numeric(value):
        return str(value)
    array = np.asarray(value)
    formats: Any = {"float_kind": "{:.4g}".format, "int_kind": str, "bool": str}
    text = np.array2string(array, separator=", ", threshold=12, edgeitems=2, formatter=formats)
    shape = f" of shape {array.shape}" if _is_numeric(other) and np.shape(other) != array.shape else ""
    return " ".join(text.split()) + shape


__all__ = ["between", "expect"]
