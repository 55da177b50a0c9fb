"""NumPy's errors in the words of this course, and arguments as a program writes them.

A support module of chapter 02. The errors of indexing and of a few kernels are NumPy's, so they are about arrays and
axes."""

from __future__ import annotations

import re

import numpy as np

_SAID = {
    r"index (-?\d+) is out of bounds for axis (\d+) with size (\d+)":
        r"index \1 is out of range: dimension \2 has size \3",
    r"boolean index did not match.* along axis (\d+); size of axis is (\d+) but size of corresponding .* (\d+)":
        r"the mask does not fit: dimension \1 has size \2, and \3 in the mask",
    r"too many indices for array.*-dimensional, but (\d+) were indexed": r"\1 indices are more than it has dimensions",
    r"shape mismatch: indexing arrays could not be broadcast together with": "the index tensors do not broadcast:",
    r"(?:shape mismatch: value|could not broadcast input) array (?:of|from) shape (.*?) ?"
    r"(?:could not be broadcast to indexing result of|into) shape (.*)":
        r"values of shape \1 do not fit into the chosen part of shape \2",
    r"NumPy boolean array indexing assignment .*": "the values are not as many as the mask chooses",
    r"cannot reshape array of size (\d+) into shape .*": r"\1 numbers do not fill that shape",
    r"Python integer (\S+) out of bounds for (\w+)": r"\1 is not a number that \2 can hold",
    r"input operand has more dimensions than .*|.* together with remapped shapes .*":
        "only a dimension of size 1 can be repeated, and none can be left out",
    r"axes don't match array|repeated axis in transpose": "each dimension must be named once",
    r"zero-size array to reduction operation.*|attempt to get arg.* of an empty sequence":
        "an empty tensor has no largest or smallest element",
    r"all the input array.* must (?:have|match).*": "only the sizes along the dimension `dim` may differ",
}


def in_our_words(error: Exception) -> str:
    """The message of an error of NumPy's as a sentence about tensors."""
    said = str(error)
    for pattern, ours in _SAID.items():
        said = re.sub(pattern, ours, said)
    return said


def as_written(value) -> str:
    """An argument as a program writes it: arrays as lists, slices with a colon."""
    if isinstance(value, tuple):
        return f"({', '.join(map(as_written, value))}{',' * (len(value) == 1)})"
    if isinstance(value, slice):
        parts = ["" if part is None else str(part) for part in (value.start, value.stop, value.step)]
        return ":".join(parts[: 3 if parts[2] else 2])
    return "..." if value is ... else repr(value.tolist() if isinstance(value, np.ndarray) else value)
