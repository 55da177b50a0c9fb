# # Order and counts
#
# An appendix of chapter 02: what we can say about many elements besides their sum. We compute running products and
# maxima, medians and quantiles, and how often each value occurs.

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import numpy as np

from tt_tensor.arguments import ADDED_IN, as_floats, resolve_dim
from tt_tensor.methods import torch_names
from tt_tensor.more_ops import (
    Extreme, amax, amin, any, argsort, cat, gather, isnan, logical_not, sort, std, where,
)
from tt_tensor.tensor import (
    Tensor, as_array, bool_, from_numpy, int32, int64, mean, primitive, quiet, sub, sum, tensor, var,
)

# ## Running
#
# `cumsum` has three relatives. The running product and the running logarithm of a sum of exponentials are primitives.
# For the running maximum, the primitive finds the *positions* and `gather` picks the values, so that a gradient flows
# to the elements that were the largest.


@primitive
def cumprod(x, /, dim):
    """Running products along `dim`."""
    with quiet():
        products = np.cumprod(x, axis=resolve_dim(dim, x.ndim), dtype=ADDED_IN.get(x.dtype, int64)).reshape(x.shape)
        return products.astype(x.dtype, copy=False) if x.dtype.kind == "f" else products


@primitive
def logcumsumexp(x, /, dim):
    """log(cumsum(exp(x))) along `dim`, without overflow."""
    x = as_floats(x)
    with quiet():
        return np.logaddexp.accumulate(x, axis=resolve_dim(dim, x.ndim)) if x.ndim else x.copy()


# For the running maximum, a position counts if its element equals the largest so far. `cummax` picks the values at
# these positions.


@primitive
def running_argmax(x, /, dim):
    """The position of the largest element so far along `dim`, the last of several; nan counts as the largest."""
    if not x.ndim:
        return np.zeros((), int64)
    dim = resolve_dim(dim, x.ndim)
    steps = np.arange(x.shape[dim]).reshape([-1 if d == dim else 1 for d in range(x.ndim)])
    record = (x == np.maximum.accumulate(x, axis=dim)) | (x != x)
    return np.maximum.accumulate(np.where(record, steps, 0), axis=dim)


@torch_names
def cummax(x: Tensor, dim: int) -> Extreme:
    """The largest elements so far along `dim`, and their positions."""
    positions = running_argmax(x, dim=dim)
    return Extreme(gather(x, dim, positions), positions)


@torch_names
def cummin(x: Tensor, dim: int) -> Extreme:
    """The smallest elements so far along `dim`, and their positions."""
    turned = logical_not(x) if x.dtype == bool_ else ~x if x.dtype.kind in "iu" else -x
    positions = running_argmax(turned, dim=dim)
    return Extreme(gather(x, dim, positions), positions)


# (For integers, `~x` is $-1 - x$, which reverses the order and, unlike $-x$, cannot overflow.)


@torch_names
def diff(x: Tensor, n: int = 1, dim: int = -1) -> Tensor:
    """The differences of neighbours along `dim`, n times."""
    if not x.ndim:
        raise ValueError("diff needs at least one dimension")
    before = (slice(None),) * resolve_dim(dim, x.ndim)
    for _ in range(n):
        after, first = x[(*before, slice(1, None))], x[(*before, slice(0, -1))]
        x = after ^ first if x.dtype == bool_ else sub(after, first)
    return x


# ## The middle
#
# `kthvalue` sorts and picks. The median of an even number of elements is the lower of the two in the middle, as in
# PyTorch; NumPy takes their mean. A `nan` makes the median `nan`, while `nanmedian` and its relatives leave `nan` out.


@torch_names
def kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Extreme:
    """The k-th smallest element along `dim`, counted from 1, and its position."""
    size = x.shape[resolve_dim(dim, x.ndim)] if x.ndim else 1
    if not 1 <= k <= size:
        raise ValueError(f"kthvalue: k = {k}, but dimension {dim} of a tensor of shape {x.shape} has {size} elements")
    return _picked(x, dim, keepdim, _part(argsort(x, dim), dim, k - 1))


def _part(x: Tensor, dim: int, at: int) -> Tensor:
    return x[(*[slice(None)] * resolve_dim(dim, x.ndim), slice(at, at + 1))] if x.ndim else x


def _picked(x: Tensor, dim: int, keepdim: bool, indices: Tensor) -> Extreme:
    values = gather(x, dim, indices)
    return Extreme(values, indices) if keepdim or not x.ndim else Extreme(values.squeeze(dim), indices.squeeze(dim))


# The public medians decide whether they return one element or a pair, and what to do about `nan`.


@torch_names
def median(x: Tensor, dim=None, keepdim: bool = False) -> Any:
    """The middle element, the lower of two; with `dim` the pair (values, indices). nan if any element is."""
    return _median(x, dim, keepdim, False)


@torch_names
def nanmedian(x: Tensor, dim=None, keepdim: bool = False) -> Any:
    """The median of the elements that are not nan."""
    return _median(x, dim, keepdim, True)


def _of_nothing(x):
    if x.dtype.kind == "f":
        return x.sum() * math.nan
    return tensor(x.dtype == bool_ or np.iinfo(x.dtype).min).to(x.dtype)  # PyTorch's answers, without a meaning


def _median(x, dim, keepdim, without_nan):
    if dim is None:
        if not x.numel():
            return _of_nothing(x)
        middle = _median(x.reshape(-1), 0, False, without_nan).values
        if x.dtype.kind != "f" or isnan(middle).item():
            return middle
        return amax(where(x <= middle.detach(), x, -math.inf))  # which shares its gradient among equal elements
    if x.ndim and not x.shape[resolve_dim(dim, x.ndim)]:
        raise IndexError(f"median: dimension {dim} of a tensor of shape {x.shape} is empty")
    order, missing = argsort(x, dim), isnan(x)
    size, nans = (x.shape[resolve_dim(dim, x.ndim)] if x.ndim else 1), sum(missing, dim=dim, keepdim=True)
    middle = (size - nans - 1).clip(min=0) // 2
    if not without_nan:
        middle = where(nans > 0, size - nans, middle)  # the first nan, which sorting puts behind the numbers
    return _picked(x, dim, keepdim, gather(order, dim, middle))


@torch_names
def msort(x: Tensor) -> Tensor:
    """x sorted along its first dimension."""
    return sort(x, 0).values


# A quantile falls between two of the sorted elements, at a distance that `interpolation` may round.


@torch_names
def quantile(x: Tensor, q: Any, dim=None, keepdim: bool = False, interpolation: str = "linear") -> Tensor:
    """The element below which the fraction q of all elements falls; for several q, a dimension in front.

    `interpolation` is "linear", "lower", "higher", "midpoint" or "nearest". Raises ValueError for q outside [0, 1]."""
    fractions = np.asarray(q.tolist() if isinstance(q, Tensor) else q, np.float64)
    if fractions.ndim > 1 or not ((fractions >= 0) & (fractions <= 1)).all():
        raise ValueError(f"quantile: q is a number from 0 to 1, or several in one dimension, not {q}")
    if x.numel() == 0:
        raise ValueError(f"a tensor of shape {x.shape} has no quantiles")
    rows, axis = (x.reshape(-1), 0) if dim is None else (x, resolve_dim(dim, x.ndim))
    ordered = sort(rows, axis).values
    found = [_quantile(ordered, axis, float(f), interpolation) for f in fractions.reshape(-1)]
    found = [where(any(isnan(rows), dim=axis, keepdim=True), math.nan, f) for f in found]
    kept = tuple(1 if dim is None or d == axis else n for d, n in enumerate(x.shape))
    shape = kept if keepdim else () if dim is None else x.shape[:axis] + x.shape[axis + 1 :]
    return cat([f.reshape((1, *shape)) for f in found]) if fractions.ndim else found[0].reshape(shape)


def _quantile(ordered, axis, fraction, interpolation):
    last = (ordered.shape[axis] if ordered.ndim else 1) - 1
    at = fraction * last
    low, high = _part(ordered, axis, math.floor(at)), _part(ordered, axis, min(math.ceil(at), last))
    weights = {"linear": at - math.floor(at), "lower": 0, "higher": 1, "midpoint": 0.5, "nearest": round(at) - int(at)}
    if interpolation not in weights:
        raise ValueError(f"interpolation is one of {', '.join(weights)}, not {interpolation!r}")
    weight = float(weights[interpolation])
    return (low, high)[int(weight)] if weight in (0, 1) else low + (high - low) * weight


# For the mode, we compare every element with every other in its row.


@torch_names
def mode(x: Tensor, dim: int = -1, keepdim: bool = False) -> Extreme:
    """The most frequent element along `dim`, the smallest of several, and the last of its positions."""
    rows = np.moveaxis(x.numpy(), dim, -1) if x.ndim else x.numpy().reshape(1)
    counts = (rows[..., None, :] == rows[..., :, None]).sum(-1)
    candidates = np.where(counts == counts.max(-1, keepdims=True), rows, rows.max(-1, keepdims=True))
    hit = rows == candidates.min(-1, keepdims=True)
    positions = rows.shape[-1] - 1 - np.argmax(hit[..., ::-1], axis=-1, keepdims=True)
    indices = from_numpy(np.ascontiguousarray(np.moveaxis(positions, -1, dim)) if x.ndim else positions.reshape(()))
    return _picked(x, dim, keepdim, indices)


# ## Two answers, or fewer elements

Spread = namedtuple("Spread", ["min", "max"])


@torch_names
def aminmax(x: Tensor, dim=None, keepdim: bool = False) -> Spread:
    """The smallest and the largest element, over all or over `dim`."""
    return Spread(amin(x, dim=dim, keepdim=keepdim), amax(x, dim=dim, keepdim=keepdim))


@torch_names
def var_mean(x: Tensor, dim=None, correction: float = 1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The variance and the mean."""
    return var(x, dim, correction, keepdim), mean(x, dim, keepdim)


@torch_names
def std_mean(x: Tensor, dim=None, correction: float = 1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The standard deviation and the mean."""
    return std(x, dim, correction, keepdim), mean(x, dim, keepdim)


@torch_names
def nansum(x: Tensor, dim=None, keepdim: bool = False, dtype=None) -> Tensor:
    """The sum of the elements that are not nan."""
    x = x if dtype is None else x.to(dtype)
    return sum(where(isnan(x), 0, x) if x.dtype.kind == "f" else x, dim=dim, keepdim=keepdim)


@torch_names
def nanmean(x: Tensor, dim=None, keepdim: bool = False, dtype=None) -> Tensor:
    """The mean of the elements that are not nan."""
    x = x if dtype is None else x.to(dtype)
    return nansum(x, dim, keepdim) / sum(logical_not(isnan(x)), dim=dim, keepdim=keepdim)


@torch_names
def count_nonzero(x: Tensor, dim=None) -> Tensor:
    """The number of elements that are not zero, in all or along `dim`."""
    return sum(x != 0, dim=dim)


# ## How often?
#
# The results that follow are positions and counts, which have no derivative, and their sizes depend on the values. So
# we compute them on the arrays, without a primitive.


def _back(values: Any) -> Tensor:
    return from_numpy(np.ascontiguousarray(values).reshape(np.shape(values)))


def unique(
    input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The different elements, sorted; or the different slices along `dim`. On request, also for each element its place
    among them, and how often each occurs."""
    values, inverse, counts = np.unique(
        input.numpy(),
        return_inverse=True,
        return_counts=True,
        axis=None if dim is None else resolve_dim(dim, input.ndim),
    )
    inverse = inverse.reshape(input.shape if dim is None else -1)
    return _found(values, inverse, counts, return_inverse, return_counts)


# Without sorting, an element is new if it differs from the one before it.


def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The elements, or the slices along `dim`, without those that equal the one before."""
    rows = input.numpy().reshape(-1) if dim is None else np.moveaxis(input.numpy(), dim, 0)
    new = np.ones(len(rows), bool)
    new[1:] = (rows[1:] != rows[:-1]).any(axis=tuple(range(1, rows.ndim)))
    inverse, starts = np.cumsum(new) - 1, np.flatnonzero(new)
    values, counts = rows[starts], np.diff(starts, append=len(rows))
    values = values if dim is None else np.moveaxis(values, 0, dim)
    return _found(
        values, inverse.reshape(input.shape if dim is None else -1), counts, return_inverse, return_counts
    )


def _found(values, inverse, counts, return_inverse, return_counts):
    wanted = [values] + [inverse] * return_inverse + [counts] * return_counts
    found = tuple(map(_back, wanted))
    return found if len(found) > 1 else found[0]


# `bincount` counts small integers; `histc` counts how many elements fall into each of several intervals.


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each of 0, 1, 2, ... occurs in a vector of integers, or the sums of their weights."""
    if input.ndim != 1 or input.dtype.kind not in "iub" or (input.numel() and input.numpy().min() < 0):
        raise ValueError(f"bincount takes a vector of integers of 0 or more, not {input.dtype} of shape {input.shape}")
    counts = np.bincount(input.numpy(), None if weights is None else weights.numpy(), minlength)
    return _back(counts if weights is None else counts.astype(as_floats(weights.numpy()[:0]).dtype))


def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements fall into each of `bins` intervals of equal width from min to max; of all if both are 0."""
    values = input.numpy().reshape(-1)
    if min == max == 0 and values.size:
        min, max = values.min(), values.max()
    if not max >= min:
        raise ValueError(f"histc: max = {max} is smaller than min = {min}")
    if min == max:
        min, max = min - 1, max + 1
    return _back(np.histogram(values, bins, (float(min), float(max)))[0].astype(input.dtype))


# To find a place in a sorted list, NumPy halves it again and again (*binary search*).


def searchsorted(
    sorted_sequence: Tensor, values: Any, out_int32: bool = False, right: bool = False, side: str | None = None
) -> Tensor:
    """Where to insert each value into the sorted last dimension: before equal elements, or after them
    (`right`)."""
    asked = values if isinstance(values, Tensor) else tensor(values)
    at: Any = side or ("right" if right else "left")
    rows, sought = sorted_sequence.numpy(), asked.numpy()
    if rows.ndim == 1:
        found = np.searchsorted(rows, sought, at)
    else:
        if rows.shape[:-1] != sought.shape[:-1]:
            raise ValueError(f"searchsorted: shapes {rows.shape} and {sought.shape} differ before the last dimension")
        pairs = zip(rows.reshape(-1, rows.shape[-1]), sought.reshape(-1, sought.shape[-1]))
        found = np.array([np.searchsorted(row, value, at) for row, value in pairs]).reshape(sought.shape)
    return _back(np.asarray(found, int32 if out_int32 else int64))


def bucketize(input: Any, boundaries: Tensor, out_int32: bool = False, right: bool = False) -> Tensor:
    """The number of the interval between sorted boundaries that holds each element."""
    return searchsorted(boundaries, input, out_int32, right)


def isin(elements: Any, test_elements: Any, invert: bool = False) -> Tensor:
    """Where an element is one of the test elements, or (`invert`) is none of them."""
    asked, among = (v.numpy() if isinstance(v, Tensor) else as_array(v) for v in (elements, test_elements))
    return _back(np.isin(asked, among, invert=invert))


__all__ = [
    "aminmax", "bincount", "bucketize", "count_nonzero", "cummax", "cummin", "cumprod", "diff", "histc", "isin",
    "kthvalue", "logcumsumexp", "median", "mode", "msort", "nanmean", "nanmedian", "nansum", "quantile",
    "running_argmax", "searchsorted", "std_mean", "unique", "unique_consecutive", "var_mean",
]
