"""The message of a failing test to the author of a chapter: call, outcome, expectation, likely cause, section."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np


def expect(call: str, got: Any, wanted: Any, *causes: str | tuple[Any, str], see: str, tolerance: float = 1e-4) -> None:
    """Raise AssertionError unless `got` is `wanted`: numbers to a relative `tolerance`, everything else exactly.

    `got` is a value, or a function without arguments that is called to get it; tensors are compared as arrays, also
    inside of tuples, lists and dicts. `wanted` may be an exception class, for a call that must be refused, or a
    function that says whether it is satisfied and whose docstring says with what. A cause is a pair (evidence, text):
    the text is given if what came out equals the evidence, satisfies it if that is a function, or was raised if it is
    an exception class. A text without evidence is given as likely when no evidence fits. `see` is the title of a
    section of the chapter."""
    __tracebackhide__ = True
    said = complaint(call, outcome(got), wanted, *causes, see=see, tolerance=tolerance)
    if said is not None:
        raise AssertionError(said)


@dataclass(frozen=True)
class between:
    """A range as the wanted result: any number from `low` to `high`."""

    low: float
    high: float

    def __call__(self, value) -> bool:
        return bool(self.low <= float(value) <= self.high)

    def __str__(self) -> str:
        return f"between {self.low:.4g} and {self.high:.4g}"


@dataclass(frozen=True)
class measured_between(between):
    """A range for a time or an amount of memory. It differs from run to run, so a message names only the side."""

    def side(self, value) -> str:
        return f"less than {self.low:.4g}" if value < self.low else f"more than {self.high:.4g}"


@dataclass(frozen=True)
class Raised:
    """An exception as data: the full names of its class and those above it, what it says, and where it was raised."""

    kinds: tuple[str, ...]
    message: str
    place: str

    @staticmethod
    def of(error: BaseException, is_near: Callable[[str, int], bool] = lambda file, line: False) -> Raised:
        """The place is the innermost one that is near, in what caused the error or in itself; else its innermost."""
        chain = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
            chain.append(cause)
        places = [_places(each) for each in chain]
        near = (place for inner in reversed(places) for place in inner if is_near(*place))
        file, line = next(near, places[0][0])
        try:
            message = str(error)
        except Exception:
            message = ""
        return Raised(tuple(map(full_name, type(error).__mro__)), message, f"{Path(file).name}, line {line}")

    def __str__(self) -> str:
        kind = self.kinds[0].rpartition(".")[2]
        return f"{kind}: {_line(self.message.partition(chr(10))[0])} ({self.place})"


def _places(error: BaseException) -> list[tuple[str, int]]:
    """Files and lines that an exception came through, the innermost first."""
    frames = traceback.extract_tb(error.__traceback__)
    return [(frame.filename, frame.lineno or 0) for frame in reversed(frames)] or [("nowhere", 0)]


def full_name(kind: type) -> str:
    """The name of a class with the module that defines it."""
    return f"{kind.__module__}.{kind.__qualname__}"


def outcome(got: Any) -> Any:
    """The outcome as plain data: `got`, or the result of calling it, or the exception that it raised."""
    if not callable(got):
        return plain(got)
    try:
        with np.errstate(all="ignore"):
            return plain(got())
    except Exception as error:
        return Raised.of(error)


def plain(value: Any) -> Any:
    """A copy of a value with every tensor in it as an array."""
    if isinstance(value, tuple | list):
        return (tuple if isinstance(value, tuple) else list)(map(plain, value))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if not hasattr(value, "__array__") or isinstance(value, type):
        return value
    return np.array(value.detach() if hasattr(value, "detach") else value)


def complaint(
    call: str, outcome: Any, wanted: Any, *causes: str | tuple[Any, str], see: str, tolerance: float = 1e-4
) -> str | None:
    """The message of `expect` about an outcome, which is plain data; None if the outcome is the wanted one."""
    if _fits(wanted, outcome, tolerance):
        return None
    pairs = [cause for cause in causes if not isinstance(cause, str)]
    known = [text for evidence, text in pairs if _fits(evidence, outcome, max(tolerance, 1e-4))]
    likely = [f"Likely: {cause}" for cause in causes if isinstance(cause, str)]
    came = f"raised {outcome}" if isinstance(outcome, Raised) else f"gave {_shown(outcome, wanted)}"
    aim = _shown(wanted, outcome)
    if isinstance(outcome, Raised) and len(aim) > LONG:  # it would hide what is said of the error
        aim = aim[:LONG] + "..."
    return "\n".join([f"{call} {came}, expected {aim}.", *(known + likely)[:1], f'See "{see}".'])


LONG = 40  # characters of what was expected where something was raised


def _fits(evidence: Any, outcome: Any, tolerance: float) -> bool:
    """True if the evidence describes the outcome; False also if the two cannot be compared."""
    try:
        if isinstance(evidence, type) and issubclass(evidence, BaseException):
            return isinstance(outcome, Raised) and full_name(evidence) in outcome.kinds
        if isinstance(outcome, Raised):
            return False
        if callable(evidence) and not isinstance(evidence, type):
            return bool(evidence(outcome))
        with np.errstate(all="ignore"):
            return _equal(outcome, plain(evidence), tolerance)
    except Exception:
        return False


def _equal(a: Any, b: Any, tolerance: float) -> bool:
    if _is_numeric(a) and _is_numeric(b):
        a, b = np.asarray(a), np.asarray(b)
        return a.shape == b.shape and np.allclose(a, b, rtol=tolerance, atol=tolerance / 100, equal_nan=True)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(_equal_inside, a, b, [tolerance] * len(a)))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_equal_inside(a[k], b[k], tolerance) for k in a)
    return bool(a == b)


def _equal_inside(a: Any, b: Any, tolerance: float) -> bool:
    """Inside a tuple, integers are sizes and counts and must be exact."""
    return a == b if isinstance(a, int) and isinstance(b, int) else _fits(b, a, tolerance)


def _is_numeric(value: Any) -> bool:
    try:
        return not isinstance(value, tuple | str | type) and np.asarray(value).dtype.kind in "fiub"
    except ValueError:  # a list of unequal rows
        return False


def _shown(value: Any, other: Any) -> str:
    if isinstance(other, measured_between) and np.size(value) == 1 and _is_numeric(value) and np.isfinite(value):
        return other.side(value)
    if isinstance(value, type):
        return f"a {value.__name__}"
    if isinstance(value, FunctionType):  # prints as its address
        return _line(value.__doc__ or "something else")
    if not _is_numeric(value):
        return _line(_inside(value))
    array = np.asarray(value)
    formats: Any = {"float_kind": "{:.4g}".format, "int_kind": str, "bool": str}
    text = np.array2string(array, separator=", ", threshold=12, edgeitems=2, formatter=formats)
    shape = f" of shape {array.shape}" if _is_numeric(other) and np.shape(other) != array.shape else ""
    return _line(text) + shape


def _inside(value: Any) -> str:
    """A value that is not a number or array as text, with the numbers and arrays in it shortened."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_part(item)}" for key, item in islice(value.items(), 50)) + "}"
    if isinstance(value, tuple | list):
        parts = [_part(item) for item in value[:50]]
        end = "," if isinstance(value, tuple) and len(parts) == 1 else ""
        return ("[{}]" if isinstance(value, list) else "({})").format(", ".join(parts) + end)
    return str(value)


def _part(value: Any) -> str:
    return repr(value) if isinstance(value, str | bytes) else _shown(value, value)


def _line(text: str) -> str:
    """A text as one line of printable characters, cut after 200."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text[:1000]).split())
    return text if len(text) <= 200 else text[:200] + "..."


__all__ = ["Raised", "between", "complaint", "expect", "full_name", "measured_between", "outcome", "plain"]
