"""Indices of every kind, brought into a form in which NumPy picks what PyTorch would pick.

A support module of chapter 02. An index in here may hold numbers, slices, `...`, None, lists, arrays and tensors."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
from numpy import ndarray

from tt_tensor.arguments import ADDED_IN, bool_, uint8

# A tensor in an index becomes an array, and a tensor without dimensions a plain number. Floating-point numbers are
# refused, because they are not positions even if they have no fractional part. An array of uint8, in which older
# programs keep their masks, is a mask, as in PyTorch.


def plain_part(part: Any) -> Any:
    """One part of an index without tensors. Raises IndexError for floats."""
    if isinstance(part, np.integer):
        return int(part)
    part = getattr(part, "_array", part)
    if not isinstance(part, (list, ndarray)):
        return part
    array = np.array(part)  # a copy, which no caller can change
    if array.dtype.kind == "f" and (array.size or not isinstance(part, list)):
        raise IndexError(
            f"a tensor of {array.dtype} cannot be an index: use integers (`.long()`) or a mask of bool"
        )
    if array.dtype in (bool_, uint8):
        return array.astype(bool_)
    return array.astype(np.intp) if array.ndim else int(array)


# In one point PyTorch leaves NumPy. What is `h[0, :, ids]`? For NumPy, the 0 is a list of positions like `ids`. Because
# a slice separates the two, NumPy moves the picked dimension to the front, so the result is transposed, and if the
# sizes are equal, nothing shows it. PyTorch takes `h[0]` first and then `[:, ids]`, which is what the program means. So
# an index with both numbers and arrays is applied in two steps: numbers and slices, then arrays.


def split_index(index: Any, ndim: int) -> tuple[Any, Any]:
    """The index for NumPy, and a second one for the result of the first (None where one step is enough)."""
    if type(index) in (int, slice):
        return index, None
    parts = [plain_part(part) for part in (index if isinstance(index, tuple) else (index,))]
    arrays = [isinstance(part, (ndarray, bool)) for part in parts]
    dots = [i for i, part in enumerate(parts) if part is ...]
    if any(arrays) and len(dots) == 1 and builtins.sum(map(dims_used, parts)) == ndim:
        del parts[dots[0]], arrays[dots[0]]  # they are empty, and NumPy would see them between two arrays
    if not any(arrays) or not any(type(part) is int for part in parts):
        return (tuple(parts) if isinstance(index, tuple) else parts[0]), None
    first: list[Any] = []
    then: list[Any] = []
    for part, is_array in zip(parts, arrays):
        if is_array:
            first += [slice(None)] * (np.ndim(part) if np.asarray(part).dtype == bool_ else 1)
            then += [part]
        else:
            first += [part]
            then += [] if type(part) is int else [...] if part is ... else [slice(None)]
    return tuple(first), tuple(then)


def is_basic(index: Any) -> bool:
    """Whether an index consists of numbers and slices only, which never point at an element twice."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        p is None or p is ... or (isinstance(p, (int, np.integer, slice)) and not isinstance(p, bool)) for p in parts
    )


def dims_used(part: Any) -> int:
    """How many dimensions a part of an index takes: a mask all of its own, a number, a slice or positions one."""
    if isinstance(part, bool) or (isinstance(part, np.ndarray) and part.dtype == bool_):
        return np.ndim(part)
    return int(part is not None and part is not ...)


def refuse_outside(index: Any, shape: tuple[int, ...]) -> None:
    """Raise IndexError for an array with a position out of range, which NumPy 2.0 overlooks where nothing is picked."""
    parts = index if isinstance(index, tuple) else (index,)
    if not any(isinstance(part, np.ndarray) for part in parts):
        return
    dim = 0
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype != bool_ and part.size:
            wrong = part[(part < -shape[dim]) | (part >= shape[dim])]
            if wrong.size:
                raise IndexError(f"index {wrong[0]} is out of range: dimension {dim} has size {shape[dim]}")
        dim += len(shape) - builtins.sum(map(dims_used, parts)) if part is ... else dims_used(part)


# Rows for the same position follow one another once they are sorted, and `reduceat` adds up each such run at once.
# (`np.add.at` does it one by one, which takes several times as long.)


def add_rows(out: ndarray, positions: ndarray, rows: ndarray) -> ndarray:
    """`out`, zeros, with each of the rows added at its position; rows for the same position are added up."""
    if positions.size == 0:
        return out
    positions = positions % len(out)  # -1 is the last
    order = np.argsort(positions, kind="stable")
    positions = positions[order]
    starts = np.flatnonzero(np.diff(positions, prepend=-1))
    wide = ADDED_IN.get(rows.dtype, rows.dtype)
    out[positions[starts]] = np.add.reduceat(rows[order], starts, axis=0, dtype=wide)
    return out
