"""Plain data on its way from the child, which runs a learner's code, to the parent: JSON, never pickle."""

from __future__ import annotations

import base64
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["LARGEST", "NOTHING", "Thing", "decode", "encode"]

LARGEST = 1 << 20  # bytes of an array or a string, items of a list
DEEPEST = 20  # lists inside lists
BITS = 10_000  # of a whole number
KINDS = "biufcSU"  # of arrays
NOTHING = "None in a tensor"  # what a kernel without a `return` makes


@dataclass(frozen=True, eq=False)
class Thing:
    """A value that is not plain data, described by its type. It is equal only to itself."""

    what: str

    def __str__(self) -> str:
        return self.what


def encode(value: Any, deepest: int = DEEPEST) -> Any:
    """A value as plain data for JSON, with tensors as arrays. A value that is not plain data, or too large, becomes a
    description."""
    match value:
        case None | bool():
            return value
        case type():
            return {"class": [value.__module__, value.__qualname__]}
        case np.dtype():
            return {"dtype": value.str}
        case np.ndarray() | np.generic():
            return _array(value)
        case int():
            return int(value) if value.bit_length() <= BITS else {"thing": f"a whole number of more than {BITS} bits"}
        case float():
            return float(value)
        case str() | bytes() | tuple() | list() | dict() if len(value) > LARGEST:
            return {"thing": f"a {type(value).__name__} of length {len(value):,}"}
        case str():
            return str.__str__(value)
        case bytes():
            return {"bytes": base64.b64encode(value).decode()}
        case tuple() | list() | dict() if not deepest:
            return {"thing": f"something nested more than {DEEPEST} deep"}
        case tuple() | list():
            return {"tuple" if isinstance(value, tuple) else "list": [encode(item, deepest - 1) for item in value]}
        case dict():
            return {"dict": [[encode(key, deepest - 1), encode(item, deepest - 1)] for key, item in value.items()]}
    if hasattr(value, "__array__"):
        return _array(np.array(value.detach() if hasattr(value, "detach") else value))
    return {"thing": f"a {type(value).__qualname__} object"}


def decode(data: Any, deepest: int = 2 * DEEPEST) -> Any:
    """The value that `encode` wrote. ValueError for anything that it does not write."""
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if not isinstance(data, dict) or len(data) != 1 or not deepest:
        raise ValueError(f"no encoded value: {str(data)[:80]}")
    ((kind, content),) = data.items()
    try:
        return READERS[kind](content, deepest - 1)
    except Exception as error:
        raise ValueError(f"no encoded value: {error!r}"[:200]) from None


def _array(value: Any) -> dict[str, Any]:
    if value.dtype.kind == "O" and value.size == 1 and value.reshape(-1)[0] is None:
        return {"thing": NOTHING}
    if value.dtype.kind not in KINDS:
        return {"thing": f"an array of dtype {value.dtype}"}
    if value.nbytes > LARGEST:
        return {"thing": f"an array of shape {value.shape}"}
    return {"array": [value.dtype.str, list(value.shape), base64.b64encode(value.tobytes()).decode()]}


def _read_array(content: Any, deepest: int) -> np.ndarray:
    name, shape, data = content
    dtype = np.dtype(str(name))
    if dtype.kind not in KINDS or not dtype.itemsize:
        raise ValueError(f"no dtype of plain data: {dtype}")
    return np.frombuffer(base64.b64decode(data, validate=True), dtype).reshape(shape).copy()


def _read_class(content: Any, deepest: int) -> Any:
    """The class of that name which this process has loaded."""
    module, name = map(str, content)
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = vars(found).get(part) if found is not None else None
    return found if isinstance(found, type) else Thing(f"a class {name}")


def _read_raised(content: Any, deepest: int) -> Any:
    from tt_tensor.teaching import Raised

    kinds, message, place = content
    return Raised(tuple(map(str, kinds)), str(message), str(place))


READERS = {
    "array": _read_array,
    "bytes": lambda content, deepest: base64.b64decode(content, validate=True),
    "class": _read_class,
    "dict": lambda content, deepest: {decode(key, deepest): decode(item, deepest) for key, item in content},
    "dtype": lambda content, deepest: np.dtype(str(content)),
    "list": lambda content, deepest: [decode(item, deepest) for item in content],
    "raised": _read_raised,
    "thing": lambda content, deepest: Thing(str(content)),
    "tuple": lambda content, deepest: tuple(decode(item, deepest) for item in content),
}
