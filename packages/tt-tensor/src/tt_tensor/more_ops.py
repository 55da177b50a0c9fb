# # More operations
#
# The appendix of chapter 02. The chapter introduced the door, the kernels and the first dozen primitives; here are the
# others that a user of PyTorch expects, in the same form and without much ado. Each is a primitive, or it is made of
# primitives. Nothing in here brings a new idea, apart from the error function at the end of the first section.

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import numpy as np

from tt_tensor.setup import generator
from tt_tensor.tensor import (
    Tensor,
    _alike,
    _all_tensors,
    _axes,
    _dim,
    _floating,
    _unpacked,
    bool_,
    elementwise,
    exp,
    float32,
    float64,
    from_numpy,
    full,
    int64,
    log,
    ones,
    primitive,
    quiet,
    sum,
    zeros,
)

# ## One operand
#
# Functions of each element.


@primitive
def cast(x, /, dtype):
    """The numbers as another dtype; what is too large for it becomes inf."""
    with quiet():
        return x.astype(dtype)


@primitive
def copied(x, /):
    """A copy of the numbers, in reading order."""
    return np.array(x, order="C")


@primitive
def sqrt(x, /):
    """The square root of each element; nan below zero."""
    with quiet():
        return np.sqrt(_floating(x))


@primitive
def abs(x, /):
    """The absolute value of each element."""
    return np.abs(x)


@primitive
def sign(x, /):
    """-1, 0 or 1, the sign of each element."""
    return np.sign(x)


@primitive
def sin(x, /):
    """The sine of each element, in radians."""
    with quiet():
        return np.sin(_floating(x))


@primitive
def cos(x, /):
    """The cosine of each element, in radians."""
    with quiet():
        return np.cos(_floating(x))


@primitive
def tanh(x, /):
    """The hyperbolic tangent of each element."""
    return np.tanh(_floating(x))


@primitive
def floor(x, /):
    """The largest integer not above each element, in the dtype of x."""
    return np.floor(x) if x.dtype.kind == "f" else x


@primitive
def ceil(x, /):
    """The smallest integer not below each element, in the dtype of x."""
    return np.ceil(x) if x.dtype.kind == "f" else x


@primitive
def round(x, /):
    """Each element rounded to the nearest integer, halves to the even one, in the dtype of x."""
    return np.round(x)


@primitive
def isnan(x, /):
    """Where x is not a number."""
    return np.isnan(x)


@primitive
def isinf(x, /):
    """Where x is infinite."""
    return np.isinf(x)


@primitive
def isfinite(x, /):
    """Where x is neither infinite nor nan."""
    return np.isfinite(x)


@primitive
def logical_not(x, /):
    """Where x is zero or False."""
    return np.logical_not(x)


@primitive
def clip(x, /, min=None, max=None):
    """Each element, or the bound if it lies outside."""
    if min is None and max is None:
        raise ValueError("clip needs min, max or both")
    if isinstance(min, float) or isinstance(max, float):
        x = _floating(x)
    return np.clip(x, min, max)


# The error function $\operatorname{erf}(x) = \frac{2}{\sqrt\pi}\int_0^x e^{-t^2}\,dt$ is not in NumPy, and chapter 03
# needs it in full precision. W. J. Cody's rational approximations (*Rational Chebyshev approximations for the error
# function*, Math. Comp. 23, 1969) use one quotient of polynomials near zero and two for $\operatorname{erfc} = 1 -
# \operatorname{erf}$ further out; the numbers below are his.

_ERF_SMALL = (
    (
        1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2, 3.77485237685302021e2,
        3.20937758913846947e3,
    ),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
_ERFC_MIDDLE = (
    (
        2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1,
        2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
        1.23033935479799725e3,
    ),
    (
        1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
        3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3,
    ),
)
_ERFC_FAR = (
    (
        1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
        1.60837851487422766e-2, 6.58749161529837803e-4,
    ),
    (
        1.0, 2.56852019228982242e0, 1.87295284992346725e0, 5.27905102951428412e-1, 6.05183413124413191e-2,
        2.33520497626869185e-3,
    ),
)


def _quotient(coefficients, x):
    above, below = coefficients
    return np.polyval(above, x) / np.polyval(below, x)


@primitive
def erf(x, /):
    """The error function of each element, to the precision of the dtype."""
    x = _floating(x)
    wide = x.astype(float64)
    size = np.minimum(np.abs(wide), 6.0)  # erf(6) is 1 in float64
    squared = size * size
    near = wide * _quotient(_ERF_SMALL, squared)
    middle = _quotient(_ERFC_MIDDLE, size)
    inverse = 1 / np.maximum(squared, 1e-2)
    far = (1 / math.sqrt(math.pi) - inverse * _quotient(_ERFC_FAR, inverse)) / np.maximum(size, 0.1)
    beyond = 1 - np.exp(-squared) * np.where(size <= 4, middle, far)
    return np.where(size <= 0.46875, near, np.copysign(beyond, wide)).astype(x.dtype)


def check_erf():
    x = np.linspace(-7, 7, 2001)
    assert np.abs(erf(x) - [math.erf(v) for v in x]).max() < 1e-15


# ## Two operands


@elementwise
def maximum(x, y, /):
    """The larger of two elements; nan if either is."""
    return np.maximum(x, y)


@elementwise
def minimum(x, y, /):
    """The smaller of two elements; nan if either is."""
    return np.minimum(x, y)


@elementwise
def floor_divide(x, y, /):
    """The quotient, rounded down."""
    with quiet():
        return np.floor_divide(x, y)


@elementwise
def remainder(x, y, /):
    """What `floor_divide` leaves over; it has the sign of y."""
    with quiet():
        return np.remainder(x, y)


@elementwise
def logical_and(x, y, /):
    """Where both are true."""
    return np.logical_and(x, y)


@elementwise
def logical_or(x, y, /):
    """Where either is true."""
    return np.logical_or(x, y)


# `where` chooses between two operands, which must have one dtype; `masked_fill` is the common case in which one of them
# is a number.


@primitive
def choose(mask, x, y, /):
    """x where the mask is true, y elsewhere, with broadcasting."""
    return np.where(mask, x, y)


def where(mask, x, y) -> Any:
    """x where the mask is true, y elsewhere; the three broadcast."""
    x, y = _all_tensors((x, y)) if isinstance(x, Tensor) or isinstance(y, Tensor) else (Tensor(x), Tensor(y))
    common = (
        np.result_type(x.dtype, y.dtype) if x.dtype.kind == y.dtype.kind else (x if x.dtype.kind == "f" else y).dtype
    )
    return choose(mask if isinstance(mask, Tensor) else Tensor(mask, bool_), x.to(common), y.to(common))


def masked_fill(x: Tensor, mask, value: float) -> Tensor:
    """x, with `value` where the mask is true."""
    return where(mask, value, x)


# ## Reductions
#
# Several elements may share the largest value. `amax` treats them alike; `max(x, dim)` names one of them, the first, by
# its index, and so it goes through `argmax` and `gather`.


@primitive(cost=lambda out, x, **params: x.size)
def amax(x, /, dim=None, keepdim=False):
    """The largest element, over all or over `dim`."""
    return np.max(x, axis=_axes(dim, x.ndim), keepdims=keepdim)


@primitive(cost=lambda out, x, **params: x.size)
def amin(x, /, dim=None, keepdim=False):
    """The smallest element, over all or over `dim`."""
    return np.min(x, axis=_axes(dim, x.ndim), keepdims=keepdim)


@primitive(cost=lambda out, x, **params: x.size)
def argmax(x, /, dim=None, keepdim=False):
    """The index of the (first) largest element along `dim`, or in the flattened tensor."""
    return np.argmax(x, axis=_axes(dim, x.ndim), keepdims=keepdim)


@primitive(cost=lambda out, x, **params: x.size)
def argmin(x, /, dim=None, keepdim=False):
    """The index of the (first) smallest element along `dim`, or in the flattened tensor."""
    return np.argmin(x, axis=_axes(dim, x.ndim), keepdims=keepdim)


@primitive(cost=lambda out, x, **params: x.size)
def any(x, /, dim=None, keepdim=False):
    """Is any element true (not zero)?"""
    return np.any(x, axis=_axes(dim, x.ndim), keepdims=keepdim)


@primitive(cost=lambda out, x, **params: x.size)
def all(x, /, dim=None, keepdim=False):
    """Are all elements true (not zero)?"""
    return np.all(x, axis=_axes(dim, x.ndim), keepdims=keepdim)


@primitive(cost=lambda out, x, **params: x.size)
def prod(x, /, dim=None, keepdim=False):
    """The product of the elements, over all or over `dim`."""
    return np.multiply.reduce(
        x, axis=None if dim is None else _dim(dim, x.ndim), keepdims=keepdim,
        dtype=int64 if x.dtype.kind in "iub" else None,
    )


@primitive
def cumsum(x, /, dim):
    """Running sums along `dim`."""
    return np.cumsum(x, axis=_dim(dim, x.ndim), dtype=int64 if x.dtype.kind in "iub" else None).reshape(x.shape)


@primitive
def flip(x, /, dim):
    """The elements along `dim` in reverse order; a view."""
    return np.flip(x, dim) if x.ndim else x


Extreme = namedtuple("Extreme", ["values", "indices"])


def max(x, dim=None, keepdim=False) -> Any:
    """The largest element; with `dim` the pair (values, indices). `max(x, y)` is `maximum`."""
    return _extreme(x, dim, keepdim, amax, argmax, maximum)


def min(x, dim=None, keepdim=False) -> Any:
    """The smallest element; with `dim` the pair (values, indices). `min(x, y)` is `minimum`."""
    return _extreme(x, dim, keepdim, amin, argmin, minimum)


def _extreme(x, dim, keepdim, value, position, of_two):
    if isinstance(dim, Tensor):
        return of_two(x, dim)
    if x.numel() == 0 and (dim is None or x.size(dim) == 0):
        raise ValueError(f"a tensor of shape {x.shape} has no largest or smallest element")
    if dim is None:
        return value(x)
    indices = position(x, dim=dim, keepdim=True)
    values = gather(x, dim, indices)
    return Extreme(values, indices) if keepdim else Extreme(values.squeeze(dim), indices.squeeze(dim))


def logsumexp(x, dim, keepdim=False):
    """log(sum(exp(x))) over `dim`, without overflow."""
    top = amax(x.detach(), dim=dim, keepdim=True)
    top = where(isfinite(top), top, 0.0)
    out = log(sum(exp(x - top), dim=dim, keepdim=keepdim))
    return out + top.reshape(out.shape)


# ## Joining and cutting


@primitive
def concat(*tensors, dim=0):
    """Tensors joined along an existing dimension."""
    return np.concatenate(_alike(*tensors), axis=dim)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Any:
    """Tensors joined along an existing dimension; all their other sizes must be equal."""
    if len(tensors) == 0:
        raise ValueError("cat needs at least one tensor")
    return concat(*tensors, dim=dim)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Any:
    """Tensors of one shape joined along a new dimension."""
    shapes = sorted({t.shape for t in tensors})
    if len(shapes) != 1:
        raise ValueError(f"stack needs tensors of one shape, at least one; these have shapes {shapes}")
    return cat([t.unsqueeze(dim) for t in tensors], dim)


def split(x: Tensor, size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """x cut along `dim` into pieces of `size` (the last may be smaller), or into pieces of the given sizes."""
    dim, length = _dim(dim, x.ndim), x.size(dim)
    if isinstance(size, int):
        if size <= 0:
            raise ValueError(f"split needs a positive size, not {size}")
        size = [size] * (length // size) + ([length % size] if length % size or not length else [])
    ends = np.cumsum(size)
    if len(ends) and ends[-1] != length:
        raise ValueError(f"the pieces {list(size)} add up to {ends[-1]}, but dimension {dim} has size {length}")
    before = (slice(None),) * dim
    return tuple(x[(*before, slice(int(end) - n, int(end)))] for end, n in zip(ends, size))


def chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """x cut along `dim` into `chunks` pieces of equal size, except perhaps the last."""
    if chunks <= 0:
        raise ValueError(f"chunk needs a positive number of chunks, not {chunks}")
    return split(x, -(-x.size(dim) // chunks) or 1, dim)


# ## Triangles, picking and counting
#
# `gather` takes one element per row (for a loss: the logarithm of the probability of the right class), and
# `scatter_add` is its opposite: it adds values to zeros at the given places.


@primitive
def tril(x, /, diagonal=0):
    """The lower triangle of the last two dimensions; zeros above `diagonal`."""
    return np.tril(_matrices(x), diagonal)


@primitive
def triu(x, /, diagonal=0):
    """The upper triangle of the last two dimensions; zeros below `diagonal`."""
    return np.triu(_matrices(x), diagonal)


def _matrices(x):
    if x.ndim < 2:
        raise ValueError("a triangle needs at least two dimensions")
    return x


@primitive
def take_along(x, /, index, dim):
    """The elements of x at the positions `index` (an array of integers) along `dim`."""
    return np.take_along_axis(x, index, dim)


@primitive
def scatter_add(values, /, index, dim, shape):
    """Zeros of `shape` with `values` added at the positions `index` along `dim`."""
    out = np.zeros(shape, values.dtype)
    places = [np.arange(n).reshape([-1 if i == d else 1 for i in range(index.ndim)]) for d, n in enumerate(index.shape)]
    places[dim] = index
    np.add.at(out, tuple(places), values)
    return out


def gather(x: Tensor, dim: int, index) -> Tensor:
    """`out[i][j] = x[index[i][j]][j]` for dim 0, `x[i][index[i][j]]` for dim 1, and so on; `index` holds integers."""
    where_ = np.array(index._array if isinstance(index, Tensor) else index)  # a copy, which nobody else can change
    dim = _dim(dim, x.ndim)
    if where_.dtype.kind not in "iu":
        raise IndexError(f"gather needs an index of integers, not {where_.dtype}")
    if where_.ndim != x.ndim:
        raise IndexError(
            f"gather needs an index with as many dimensions as the tensor: {where_.shape} against {x.shape}"
        )
    if not x.shape:
        return gather(x.reshape(1), 0, where_.reshape(1)).reshape(())
    if where_.size and not (0 <= where_.min() and where_.max() < x.shape[dim]):
        raise IndexError(
            f"gather: the index runs from {where_.min()} to {where_.max()}, but dimension {dim} has size {x.shape[dim]}"
        )
    rest = x[tuple(slice(n) if d != dim else slice(None) for d, n in enumerate(where_.shape))]
    if rest.shape[:dim] + rest.shape[dim + 1 :] != where_.shape[:dim] + where_.shape[dim + 1 :]:
        raise IndexError(f"gather: an index of shape {where_.shape} reaches beyond a tensor of shape {x.shape}")
    return take_along(rest, index=where_, dim=dim)


def one_hot(index, num_classes: int = -1, dtype=int64) -> Tensor:
    """For each integer a row of zeros with a one in its place: (...) -> (..., num_classes)."""
    labels = index._array if isinstance(index, Tensor) else np.asarray(index)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"one_hot needs integers, not {labels.dtype}")
    classes = int(labels.max(initial=-1)) + 1 if num_classes == -1 else num_classes
    if labels.size and not (0 <= labels.min() and labels.max() < classes):
        raise ValueError(f"one_hot: labels run from {labels.min()} to {labels.max()}, but there are {classes} classes")
    return from_numpy((labels[..., None] == np.arange(classes)).astype(dtype))


# ## Order
#
# The order is a list of positions that has no derivative; the sorted values are elements picked at those positions.


@primitive
def argsort_ascending(x, /, dim=-1):
    """The positions that sort x along `dim`; equal elements keep their order."""
    return np.argsort(x, axis=dim, kind="stable").reshape(x.shape)


def argsort(x: Tensor, dim: int = -1, descending: bool = False) -> Any:
    """The positions that sort x along `dim`; equal elements keep their order."""
    dim = _dim(dim, x.ndim)
    if not descending or not x.shape:
        return argsort_ascending(x, dim=dim)
    return x.size(dim) - 1 - flip(argsort_ascending(flip(x, dim=dim), dim=dim), dim=dim)


def sort(x: Tensor, dim: int = -1, descending: bool = False) -> Extreme:
    """x sorted along `dim`, and the positions that the elements came from."""
    indices = argsort(x, dim, descending)
    return Extreme(gather(x, dim, indices), indices)


def topk(x: Tensor, k: int, dim: int = -1) -> Extreme:
    """The k largest elements along `dim`, in descending order, and their positions."""
    if not 0 <= k <= x.size(dim):
        raise ValueError(f"topk: k = {k}, but dimension {dim} has size {x.size(dim)}")
    indices = argsort(x, dim, descending=True)
    first = indices[(slice(None),) * _dim(dim, x.ndim) + (slice(k),)]
    return Extreme(gather(x, dim, first), first)


# ## More ways to begin


def empty(*size, dtype=float32, requires_grad=False) -> Tensor:
    """A tensor of `size` whose numbers are whatever was in the memory; to be overwritten."""
    return from_numpy(np.empty(_unpacked(size), dtype)).requires_grad_(requires_grad)


def linspace(start: float, end: float, steps: int, dtype=float32) -> Tensor:
    """`steps` numbers at equal distances from `start` to `end`, both included."""
    return from_numpy(np.linspace(start, end, steps, dtype=dtype))


def eye(n: int, m: int | None = None, dtype=float32) -> Tensor:
    """The n x m matrix (n x n by default) with ones on its diagonal."""
    return from_numpy(np.eye(n, m, dtype=dtype))


def randint(low: int, high: int, size: Sequence[int], dtype=int64) -> Tensor:
    """Random integers from `low` up to but without `high`."""
    return from_numpy(generator().integers(low, high, tuple(size), dtype=dtype))


def randperm(n: int) -> Tensor:
    """The integers 0 to n - 1 in random order."""
    return from_numpy(generator().permutation(n).astype(int64))


def zeros_like(x: Tensor, dtype=None) -> Tensor:
    """Zeros in the shape and dtype of x."""
    return zeros(x.shape, dtype=dtype or x.dtype)


def ones_like(x: Tensor, dtype=None) -> Tensor:
    """Ones in the shape and dtype of x."""
    return ones(x.shape, dtype=dtype or x.dtype)


def full_like(x: Tensor, fill_value: float, dtype=None) -> Tensor:
    """One number in the shape and dtype of x."""
    return full(x.shape, fill_value, dtype=dtype or x.dtype)


def rand_like(x: Tensor) -> Tensor:
    """Uniform random numbers in the shape and dtype of x."""
    return Tensor(np.asarray(generator().random(x.shape)), x.dtype)


def randn_like(x: Tensor) -> Tensor:
    """Normal random numbers in the shape and dtype of x."""
    return Tensor(np.asarray(generator().standard_normal(x.shape)), x.dtype)


# ## Words for the methods
#
# PyTorch has most methods as functions as well.


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions from `start_dim` to `end_dim` joined into one."""
    return x.flatten(start_dim, end_dim)


def squeeze(x: Tensor, dim: int | None = None) -> Tensor:
    """Without the dimensions of size 1, or without `dim` if that has size 1."""
    return x.squeeze(dim)


def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """With a new dimension of size 1 at `dim`."""
    return x.unsqueeze(dim)


def transpose(x: Tensor, dim0: int = -2, dim1: int = -1) -> Tensor:
    """Two dimensions swapped."""
    return x.transpose(dim0, dim1)


clamp = clip

__all__ = [
    "Extreme", "abs", "all", "amax", "amin", "any", "argmax", "argmin", "argsort", "argsort_ascending", "cast", "cat",
    "ceil", "choose", "chunk", "clamp", "clip", "concat", "copied", "cos", "cumsum", "empty", "erf", "eye", "flatten",
    "flip", "floor", "floor_divide", "full_like", "gather", "isfinite", "isinf", "isnan", "linspace", "logical_and",
    "logical_not", "logical_or", "logsumexp", "masked_fill", "max", "maximum", "min", "minimum", "one_hot",
    "ones_like", "prod", "rand_like", "randint", "randn_like", "randperm", "remainder", "round", "scatter_add",
    "sign", "sin", "sort", "split", "sqrt", "squeeze", "stack", "take_along", "tanh", "topk", "transpose", "tril",
    "triu", "unsqueeze", "where", "zeros_like",
]
