"""Arguments, checked and brought into one form: dtypes, sizes, dimensions and numbers.

A support module of chapter 02. It knows NumPy's arrays but not tensors, so the chapter and its appendices can build on
it.
"""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np

float16, float32, float64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
uint8, int32, int64, bool_ = np.dtype(np.uint8), np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.bool_)

ADDED_IN: dict[Any, Any] = {float16: float32, float32: float64, float64: float64}  # the dtype of a running sum
RANK = {"b": 0, "u": 1, "i": 1, "f": 2}  # of the kinds of dtypes, when tensors of several kinds meet


# Numbers


def quiet():
    """A context in which NumPy does not warn of inf and nan."""
    return np.errstate(divide="ignore", invalid="ignore", over="ignore")


def as_floats(x: Any) -> Any:
    """The array x if it holds floats, otherwise a copy of it as float32."""
    return x if x.dtype.kind == "f" else x.astype(float32)


def number_as(value: Any, dtype: np.dtype) -> np.ndarray:
    """One number as an array without dimensions. Raises ValueError for a number that the dtype cannot hold."""
    try:
        with quiet():
            return np.array(int(value) if isinstance(value, float) and dtype.kind in "iu" else value, dtype)
    except (OverflowError, ValueError, TypeError):
        raise ValueError(f"{value!r} is not a number that {dtype} can hold") from None


def refuse_truths(*arrays: Any) -> tuple:
    """The arrays. Raises TypeError if all of them hold truth values."""
    if all(a.dtype.kind == "b" for a in arrays):
        raise TypeError("truth values have no powers, quotients or remainders; use .int() or .float() first")
    return arrays


def refuse_floats(x: Any) -> Any:
    """The array x. Raises TypeError if it holds floats, which have no bits to combine."""
    if x.dtype.kind == "f":
        raise TypeError(f"~, &, | and ^ are for truth values and integers, not for {x.dtype}; compare first")
    return x


def refuse_zeros(y: Any) -> Any:
    """The divisor y. Raises ValueError if it holds integers and one of them is zero."""
    if y.dtype.kind in "iu" and not np.all(y):
        raise ValueError("integers cannot be divided by zero; floats give inf or nan")
    return y


# Dtypes


def resolve_dtype(dtype: Any) -> np.dtype:
    """A dtype, a type or a name such as "int64" as the dtype; float32 for None.

    Raises TypeError for anything that is not a dtype of real numbers of at most 64 bits."""
    if dtype is None:
        return float32
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"{dtype!r} is not a dtype; choose one such as float32, float64, int64 or bool_") from None
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise TypeError(f"a tensor holds real numbers of at most 64 bits, not {dtype}")
    return np.dtype(dtype.type)  # NumPy's one object for it, in native byte order


def drawn_dtype(name: str, dtype: Any) -> np.dtype:
    """The dtype of random numbers, for the function of this name. Raises TypeError for a dtype of integers."""
    dtype = resolve_dtype(dtype)
    if dtype.kind != "f":
        raise TypeError(f"{name} draws floating-point numbers, not {dtype}; for integers there is randint")
    return dtype


def convert(array: np.ndarray, dtype: Any) -> np.ndarray:
    """The array in another dtype. Raises ValueError for a number that an integer dtype cannot hold."""
    dtype = resolve_dtype(dtype)
    if dtype.kind in "iu" and array.dtype.kind in "fiu" and array.size and array.dtype != dtype:
        low, high, limits = array.min(), array.max(), np.iinfo(dtype)
        if not (limits.min <= low and high <= limits.max):
            raise ValueError(f"numbers from {low} to {high} do not fit into {dtype} ({limits.min} to {limits.max})")
    return array.astype(dtype, copy=False)


def widest(dtypes: list) -> np.dtype:
    """The widest of the dtypes; floats, if there are any, before all others."""
    return np.result_type(*([d for d in dtypes if d.kind == "f"] or dtypes))


def same_dtype(*arrays: Any) -> tuple:
    """The arrays or tensors. Raises TypeError unless they have one dtype."""
    if len({a.dtype for a in arrays}) > 1:
        listed = " and ".join(str(a.dtype) for a in arrays)
        raise TypeError(f"the operands have dtypes {listed}; give them one, for example by x.float() or x.to(w.dtype)")
    return arrays


# Sizes and dimensions


def unpack(sizes: tuple) -> tuple:
    """(2, 3) for both f(2, 3) and f((2, 3)), given what `*sizes` has collected."""
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes


def normalize_sizes(sizes: tuple, least: int = 0) -> tuple[int, ...]:
    """Sizes, one by one or as one tuple, as a tuple of Python's integers.

    Raises TypeError for anything but integers, ValueError for a size below `least`."""
    sizes = unpack(sizes)
    for n in sizes:
        if isinstance(n, (bool, float)) or not hasattr(n, "__index__"):
            raise TypeError(f"sizes are integers; these are {sizes}")
        if n < least:
            raise ValueError(f"a size of {n} is not possible: the sizes are {sizes}")
    return tuple(map(index, sizes))


def resolve_dim(dim: int, ndim: int) -> int:
    """The dimension counted from the front; -1 is the last. A single number counts as having one, as in PyTorch.

    Raises TypeError for anything but an integer, IndexError for a dimension that does not exist."""
    count = max(ndim, 1)
    if not isinstance(dim, (int, np.integer)) or isinstance(dim, bool):
        raise TypeError(f"a dimension is an integer, not {dim!r}")
    if not -count <= dim < count:
        raise IndexError(
            f"dimension {dim} does not exist: the tensor has {ndim} dimensions, so {-count} to {count - 1} are possible"
        )
    return int(dim % count)


def resolve_dims(dim: Any, ndim: int) -> Any:
    """One dimension or several, counted from the front; None, for all of them, if `dim` is None or names none."""
    if isinstance(dim, (tuple, list)):
        return tuple(resolve_dim(d, ndim) for d in dim) or None
    return None if dim is None else resolve_dim(dim, ndim)


# NumPy's names of parameters


def numpy_names(options: dict) -> dict:
    """The options with NumPy's names axis and keepdims replaced by PyTorch's dim and keepdim.

    Raises TypeError if a parameter is given under both names."""
    for theirs, ours in (("axis", "dim"), ("keepdims", "keepdim")):
        if theirs in options:
            if ours in options:
                raise TypeError(f"{theirs} and {ours} are two names of one thing; give one of them")
            options = {ours if name == theirs else name: value for name, value in options.items()}
    return options
