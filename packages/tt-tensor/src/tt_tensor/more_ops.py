# # More operations
#
# The first appendix of chapter 02. The chapter introduced the door, the kernels and the first dozen primitives. Here we
# add the others that you expect if you know PyTorch, in the same form and with few words. Each is a primitive, or it is
# made of primitives. Only the error function, at the end of the first section, brings a new idea.

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tt_tensor.arguments import (
    ADDED_IN, as_floats, convert, drawn_dtype, normalize_sizes, number_as, refuse_floats, refuse_truths,
    refuse_zeros, resolve_dim, resolve_dims, resolve_dtype, widest,
)
from tt_tensor.cody import ERF_SMALL, ERFC_FAR, ERFC_MIDDLE, quotient
from tt_tensor.methods import torch_names
from tt_tensor.setup import generator
from tt_tensor.tensor import (
    Elementwise, Primitive, Tensor, as_tensors, bool_, common_dtype, elementwise, exp, float16, float32, float64,
    from_numpy, full, int64, log, ones, place, primitive, quiet, randn, sum, tensor, var, zeros,
)

# ## One operand
#
# We begin with functions of each element. The first two are used by methods: `x.to(dtype)` casts, and `x.clone()`
# copies.


@primitive
def cast(x, /, dtype):
    """The numbers as another dtype; what is too large for it becomes inf."""
    with quiet():
        return x.astype(dtype)


@primitive
def copied(x, /):
    """A copy of the numbers, in reading order."""
    return np.array(x, order="C")


# The keys of a calculator come next. `as_floats` turns integers into floats where the result is not an integer.


@primitive
def sqrt(x, /):
    """The square root of each element; nan below zero."""
    with quiet():
        return np.sqrt(as_floats(x))


@primitive
def abs(x, /):
    """The absolute value of each element."""
    return np.abs(x)


@primitive
def sign(x, /):
    """-1, 0 or 1, the sign of each element."""
    return np.sign(x) if x.dtype.kind != "b" else x.copy()


@primitive
def sin(x, /):
    """The sine of each element, in radians."""
    with quiet():
        return np.sin(as_floats(x))


@primitive
def cos(x, /):
    """The cosine of each element, in radians."""
    with quiet():
        return np.cos(as_floats(x))


@primitive
def tanh(x, /):
    """The hyperbolic tangent of each element."""
    return np.tanh(as_floats(x))


# Rounding leaves integers as they are.


@primitive
def floor(x, /):
    """The largest integer not above each element, in the dtype of x."""
    return np.floor(x) if x.dtype.kind == "f" else x.copy()


@primitive
def ceil(x, /):
    """The smallest integer not below each element, in the dtype of x."""
    return np.ceil(x) if x.dtype.kind == "f" else x.copy()


@primitive
def round(x, /):
    """Each element rounded to the nearest integer, halves to the even one, in the dtype of x."""
    return np.round(x) if x.dtype.kind == "f" else x.copy()


# These functions answer with truth values, and `~` reverses truth values or the bits of integers.


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
def bitwise_not(x, /):
    """Each bit of integers reversed, `not` for truth values. Raises TypeError for floats."""
    return np.invert(refuse_floats(x))


# `clip` keeps the dtype of its operand, unless you give integers a bound that is a float.


@primitive
def clip(x, /, min=None, max=None):
    """Each element, or the bound if it is outside."""
    if min is None and max is None:
        raise ValueError("clip needs min, max or both")
    min, max = (bound.item() if isinstance(bound, np.generic) else bound for bound in (min, max))
    if isinstance(min, float) or isinstance(max, float):
        x = as_floats(x)
    elif x.dtype.kind == "b":
        x = x.astype(int64)
    low, high = (None if bound is None else number_as(bound, x.dtype) for bound in (min, max))
    return np.clip(x, low, high)


# The *error function* $\operatorname{erf}(x) = \frac{2}{\sqrt\pi}\int_0^x e^{-t^2}\,dt$ is not in NumPy, and chapter 03
# needs it in full precision. We use W. J. Cody's rational approximations (*Rational Chebyshev approximations for the
# error function*, Math. Comp. 23, 1969): one quotient of polynomials near zero, and two for $\operatorname{erfc} = 1 -
# \operatorname{erf}$ further out. The module `cody` has his coefficients.


@primitive
def erf(x, /):
    """The error function of each element, to the precision of the dtype."""
    x = as_floats(x)
    wide = x.astype(float64)
    size = np.minimum(np.abs(wide), 6.0)  # erf(6) is 1 in float64
    squared = size * size
    near = wide * quotient(ERF_SMALL, squared)
    middle = quotient(ERFC_MIDDLE, size)
    inverse = 1 / np.maximum(squared, 1e-2)
    far = (1 / math.sqrt(math.pi) - inverse * quotient(ERFC_FAR, inverse)) / np.maximum(size, 0.1)
    beyond = 1 - np.exp(-squared) * np.where(size <= 4, middle, far)
    return np.where(size <= 0.46875, near, np.copysign(beyond, wide)).astype(x.dtype)


def check_erf():
    x = np.linspace(-7, 7, 2001)
    assert np.abs(erf(x) - [math.erf(v) for v in x]).max() < 1e-15


# ## Two operands
#
# Powers come in two kinds. In $x^2$ the exponent is a part of the operation, in $x^y$ it is an operand. NumPy squares
# by one multiplication, where it would call the C library's `pow` for an array of twos, so we keep the kinds apart.


@primitive
def power(x, /, exponent):
    """x to the power of a number. Raises ValueError for integers and a negative exponent."""
    if isinstance(exponent, bool) and x.dtype.kind == "b":
        return x | (not exponent)
    if isinstance(exponent, float):
        x, exponent = as_floats(x), float(exponent)  # a number of NumPy's would widen x
    elif x.dtype.kind == "b":
        x = x.astype(int64)
    if x.dtype.kind != "f":
        exponent = number_as(exponent, x.dtype)
        if exponent < 0:
            raise ValueError(f"integers have no power of {exponent}; use .float() first")
    with quiet():
        return x**exponent


@elementwise
def power_of(x, y, /):
    """x to the power of y, element by element, with broadcasting."""
    with quiet():
        return np.power(*refuse_truths(x, y))


# The public `pow` looks at its exponent and chooses. Both kinds of power go through the door under names of their own,
# because their derivatives differ.


def pow(x, exponent) -> Any:
    """x to the power of a number or of a tensor."""
    exponent = exponent.item() if isinstance(exponent, np.number) else exponent
    return power(x, exponent=exponent) if isinstance(exponent, (int, float)) else power_of(x, exponent)


# Comparisons answer element by element, so `x == x` has as many answers as `x` has elements: a mask. Integers of two
# kinds are compared as they are. NumPy does that exactly, and 300 is then greater than every `uint8`.


class Comparison(Elementwise):
    """A primitive of two operands whose results are truth values."""

    def __call__(self, x, y) -> Any:
        whole = [from_numpy(np.asarray(v)) if isinstance(v, (int, np.integer)) else v for v in (x, y)]
        if builtins.all(isinstance(v, Tensor) and v.dtype.kind != "f" for v in whole):
            return Primitive.__call__(self, *whole)
        return super().__call__(x, y)


# All six comparisons differ only in the function of NumPy that they call, so a helper makes their kernels.


def comparison(name: str, ufunc: np.ufunc) -> Any:
    """The comparison that a function of NumPy's makes, as a primitive of this name."""

    def kernel(x, y, /):
        return ufunc(x, y)

    kernel.__name__, kernel.__doc__ = name, f"{ufunc.__name__.replace('_', ' ')}, element by element; a tensor of bool."
    return Comparison(kernel)


eq, ne = comparison("eq", np.equal), comparison("ne", np.not_equal)
lt, le = comparison("lt", np.less), comparison("le", np.less_equal)
gt, ge = comparison("gt", np.greater), comparison("ge", np.greater_equal)


# We also take the larger and the smaller of two elements, their quotient and their remainder. Integers cannot answer a
# division by zero, so there it is refused.


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
    """The quotient, rounded down. Raises ValueError where integers are divided by zero."""
    with quiet():
        return np.floor_divide(*refuse_truths(x, refuse_zeros(y)))


@elementwise
def remainder(x, y, /):
    """The remainder that `floor_divide` leaves; it has the sign of y. ValueError where integers are divided by zero."""
    with quiet():
        return np.remainder(*refuse_truths(x, refuse_zeros(y)))


# Truth values combine by *and* and *or*. Integers combine bit by bit.


@elementwise
def logical_and(x, y, /):
    """Where both are true."""
    return np.logical_and(x, y)


@elementwise
def logical_or(x, y, /):
    """Where either is true."""
    return np.logical_or(x, y)


@elementwise
def bitwise_and(x, y, /):
    """`and` of truth values, or of the bits of integers. Raises TypeError for floats."""
    return np.bitwise_and(refuse_floats(x), refuse_floats(y))


@elementwise
def bitwise_or(x, y, /):
    """`or` of truth values, or of the bits of integers. Raises TypeError for floats."""
    return np.bitwise_or(refuse_floats(x), refuse_floats(y))


@elementwise
def bitwise_xor(x, y, /):
    """`either or` of truth values, or of the bits of integers. Raises TypeError for floats."""
    return np.bitwise_xor(refuse_floats(x), refuse_floats(y))


# `where` chooses between two operands and brings them to one dtype, as `+` does. `masked_fill` is the common case in
# which one of them is a number; it keeps the dtype of the tensor.


@primitive
def choose(mask, x, y, /):
    """x where the mask is true, y elsewhere, with broadcasting."""
    return np.where(mask, x, y)


def where(mask, x=None, y=None) -> Any:
    """x where the mask is true, y elsewhere; the three broadcast. With a mask alone, the positions where it is true, an
    index for each dimension."""
    if x is None and y is None:
        return nonzero(mask, as_tuple=True)
    both = as_tensors((x, y)) if isinstance(x, Tensor) or isinstance(y, Tensor) else (tensor(x), tensor(y))
    common = common_dtype(*both)
    as_common = [
        from_numpy(number_as(value, common)) if isinstance(value, (int, float)) else operand.to(common)
        for value, operand in zip((x, y), both)
    ]
    return choose(as_mask(mask), *as_common)


def as_mask(mask) -> Tensor:
    """A mask as a tensor of bool. Raises TypeError for anything that does not hold truth values."""
    mask = mask if isinstance(mask, Tensor) else tensor(mask)
    if mask.dtype != bool_:
        raise TypeError(f"a mask holds truth values, not {mask.dtype}; compare, as in ids == 0, or use .bool()")
    return mask


# `nonzero` finds positions. The size of its result depends on the values, and it has no derivative, so we do not make
# it a primitive.


def nonzero(input: Tensor, as_tuple: bool = False) -> Any:
    """The positions of the elements that are not zero: a row for each, or (as_tuple) a vector for each dimension."""
    found = np.nonzero(input.numpy() if input.ndim else input.numpy().reshape(1))
    if as_tuple:
        return tuple(map(from_numpy, found))
    return from_numpy(np.stack(found, 1) if input.ndim else np.zeros((len(found[0]), 0), int64))


def masked_fill(x: Tensor, mask, value: float | Tensor) -> Tensor:
    """x, with `value`, as a number of x's dtype, where the mask is true."""
    return choose(as_mask(mask), value.to(x.dtype) if isinstance(value, Tensor) else full((), value, x.dtype), x)


# ## Reductions
#
# Several elements may share the largest value. `amax` treats them alike, while `max(x, dim)` names one of them, the
# first, by its index. So `max` goes through `argmax` and `gather`.


@primitive(cost=lambda out, x, **params: x.size)
def amax(x, /, dim=None, keepdim=False):
    """The largest element, over all or over `dim`."""
    return np.max(x, axis=resolve_dims(dim, x.ndim), keepdims=keepdim)


@primitive(cost=lambda out, x, **params: x.size)
def amin(x, /, dim=None, keepdim=False):
    """The smallest element, over all or over `dim`."""
    return np.min(x, axis=resolve_dims(dim, x.ndim), keepdims=keepdim)


# The positions of the extremes are integers and have no derivative.


@primitive(cost=lambda out, x, **params: x.size)
def argmax(x, /, dim=None, keepdim=False):
    """The index of the (first) largest element along `dim`, or in the flattened tensor."""
    return np.argmax(x, axis=resolve_dims(dim, x.ndim), keepdims=keepdim)


@primitive(cost=lambda out, x, **params: x.size)
def argmin(x, /, dim=None, keepdim=False):
    """The index of the (first) smallest element along `dim`, or in the flattened tensor."""
    return np.argmin(x, axis=resolve_dims(dim, x.ndim), keepdims=keepdim)


# `any` and `all` reduce truth values; every number except for 0 counts as true.


@primitive(cost=lambda out, x, **params: x.size)
def any(x, /, dim=None, keepdim=False):
    """Whether any element is true (not zero), over all or over `dim`."""
    return np.any(x, axis=resolve_dims(dim, x.ndim), keepdims=keepdim)


@primitive(cost=lambda out, x, **params: x.size)
def all(x, /, dim=None, keepdim=False):
    """Whether all elements are true (not zero), over all or over `dim`."""
    return np.all(x, axis=resolve_dims(dim, x.ndim), keepdims=keepdim)


# We compute products and running sums one width up, as `sum` does, and round once at the end.


@primitive(cost=lambda out, x, **params: x.size)
def prod(x, /, dim=None, keepdim=False):
    """The product of the elements, over all or over `dim`."""
    with quiet():
        axis = None if dim is None else resolve_dim(dim, x.ndim)
        product = np.multiply.reduce(x, axis=axis, keepdims=keepdim, dtype=ADDED_IN.get(x.dtype, int64))
        return product.astype(x.dtype, copy=False) if x.dtype.kind == "f" else product


@primitive
def cumsum(x, /, dim):
    """Running sums along `dim`."""
    with quiet():
        sums = np.cumsum(x, axis=resolve_dim(dim, x.ndim), dtype=ADDED_IN.get(x.dtype, int64)).reshape(x.shape)
        return sums.astype(x.dtype, copy=False) if x.dtype.kind == "f" else sums


@primitive
def flip(x, /, dim):
    """The elements along `dim`, a number or several, in reverse order."""
    dims = resolve_dims(dim, x.ndim)
    return np.flip(x, dims).copy() if x.ndim else x.copy()


# The standard deviation is a root, and a root is infinitely steep at zero. Where nothing varies, no element can make it
# vary less, so we set the slope there to 0: the root is taken of the other elements only.


@torch_names
def std(x, dim=None, correction: float = 1, keepdim=False):
    """The standard deviation, the square root of `var`; its slope is 0 where nothing varies."""
    if x.dtype == float16:
        return std(x.to(float32), dim, correction, keepdim).to(float16)
    variance = var(x, dim, correction, keepdim)
    constant = variance == 0
    root = power(where(constant, 1.0, variance), exponent=0.5)
    return where(constant, 0.0, root)


class Extreme(NamedTuple):
    """Values, and where they were found."""

    values: Tensor
    indices: Tensor


# With `dim`, an extreme comes as a pair: the values, and the positions where they were found.


@torch_names
def max(x, dim=None, keepdim=False) -> Any:
    """The largest element; with `dim` the pair (values, indices). `max(x, y)` is `maximum`."""
    return _extreme(x, dim, keepdim, amax, argmax, maximum)


@torch_names
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


# For large $x$, $\log \sum_i e^{x_i}$ overflows. So we subtract the largest element $m$ first and add it back at the
# end: $m + \log \sum_i e^{x_i - m}$.


@torch_names
def logsumexp(x, dim, keepdim=False):
    """log(sum(exp(x))) over `dim`, without overflow."""
    if x.dtype == float16:
        return logsumexp(x.to(float32), dim, keepdim).to(float16)
    if 0 in x.shape:
        return log(sum(exp(x), dim=dim, keepdim=keepdim))
    top = amax(x.detach(), dim=dim, keepdim=True)
    top = where(isfinite(top), top, 0.0)
    out = log(sum(exp(x - top), dim=dim, keepdim=keepdim))
    return out + top.reshape(out.shape)


# ## Joining and cutting


@primitive
def concat(*tensors, dim=0):
    """Tensors joined along an existing dimension."""
    dtype = widest([t.dtype for t in tensors])
    return np.concatenate([t.astype(dtype, copy=False) for t in tensors], axis=resolve_dim(dim, tensors[0].ndim))


@torch_names
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Any:
    """Tensors joined along an existing dimension; all their other sizes must be equal."""
    if len(tensors) == 0:
        raise ValueError("cat needs at least one tensor")
    return concat(*tensors, dim=dim)


@torch_names
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Any:
    """Tensors of one shape joined along a new dimension."""
    shapes = sorted({t.shape for t in tensors})
    if len(shapes) != 1:
        raise ValueError(f"stack needs tensors of one shape, at least one; these have shapes {shapes}")
    return cat([t.unsqueeze(dim) for t in tensors], dim)


# Cutting needs no primitive, because the pieces are slices: views of the tensor.


@torch_names
def split(x: Tensor, size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """x cut along `dim` into pieces of `size` (the last may be smaller), or into pieces of the given sizes."""
    dim, length = resolve_dim(dim, x.ndim), x.size(dim)
    if isinstance(size, int):
        if size <= 0:
            raise ValueError(f"split needs a positive size, not {size}")
        size = [size] * (length // size) + ([length % size] if length % size or not length else [])
    ends = np.cumsum(size)
    if len(ends) and ends[-1] != length:
        raise ValueError(f"the pieces {list(size)} add up to {ends[-1]}, but dimension {dim} has size {length}")
    before = (slice(None),) * dim
    return tuple(x[(*before, slice(int(end) - n, int(end)))] for end, n in zip(ends, size))


@torch_names
def chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """x cut along `dim` into `chunks` pieces of equal size, except perhaps the last."""
    if chunks <= 0:
        raise ValueError(f"chunk needs a positive number of chunks, not {chunks}")
    length = x.size(dim)
    return split(x, -(-length // chunks) if length else [0] * chunks, dim)


# ## Triangles, picking and counting
#
# `gather` takes one element from each row; in a loss, that is the logarithm of the probability of the correct class.
# `place_along` is its opposite: it adds values to zeros at the given positions.


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


# Two primitives pick and put along one dimension.


@primitive
def take_along(x, /, index, dim):
    """The elements of x at the positions `index` (an array of integers) along `dim`."""
    return np.take_along_axis(x, index, dim)


@primitive
def place_along(values, /, index, dim, shape):
    """Zeros of `shape` with `values` added at the positions `index` along `dim`."""
    places = [np.arange(n).reshape([-1 if i == d else 1 for i in range(index.ndim)]) for d, n in enumerate(index.shape)]
    places[dim] = index
    return place.kernel(values, tuple(places), shape)


# `gather` checks the index first, because NumPy would count negative positions from the end and broadcast the index.


def gather(x: Tensor, dim: int, index) -> Tensor:
    """`out[i][j] = x[index[i][j]][j]` for dim 0, `x[i][index[i][j]]` for dim 1, and so on; `index` holds integers."""
    where_ = np.array(index._array if isinstance(index, Tensor) else index)  # a copy, which no caller can change
    dim = resolve_dim(dim, x.ndim)
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


# `one_hot` turns the numbers of classes into vectors, by a comparison that broadcasts: each label against all classes.


def one_hot(index, num_classes: int = -1, dtype=int64) -> Tensor:
    """For each integer a row of zeros with a one in its place: (...) -> (..., num_classes)."""
    labels = index._array if isinstance(index, Tensor) else np.asarray(index)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"one_hot needs integers, not {labels.dtype}")
    if num_classes <= 0 and not labels.size:
        raise ValueError("one_hot: without labels, num_classes must say how many classes there are")
    classes = int(labels.max()) + 1 if num_classes == -1 else num_classes
    if labels.size and not (0 <= labels.min() and labels.max() < classes):
        raise ValueError(f"one_hot: labels run from {labels.min()} to {labels.max()}, but there are {classes} classes")
    return from_numpy((labels[..., None] == np.arange(classes)).astype(dtype))


# ## Order
#
# The order of the elements is a list of positions, which has no derivative. The sorted values are the elements that we
# pick at those positions, so their derivative is that of `gather`.


@primitive
def argsort_ascending(x, /, dim=-1):
    """The positions that sort x along `dim`; equal elements keep their order."""
    return np.argsort(x, axis=dim, kind="stable").reshape(x.shape)


@torch_names
def argsort(x: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """The positions that sort x along `dim`; equal elements keep their order, whatever `stable` says."""
    dim = resolve_dim(dim, x.ndim)
    if not descending or not x.shape:
        return argsort_ascending(x, dim=dim)
    return x.size(dim) - 1 - flip(argsort_ascending(flip(x, dim=dim), dim=dim), dim=dim)


@torch_names
def sort(x: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Extreme:
    """x sorted along `dim`, and the positions that the elements came from."""
    indices = argsort(x, dim, descending)
    return Extreme(gather(x, dim, indices), indices)


# `topk` needs only the first k elements of that order.


@torch_names
def topk(x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Extreme:
    """The k largest elements along `dim`, the largest first, and their positions; or the k smallest (largest=False).
    They are sorted, whatever `sorted` says."""
    dim = resolve_dim(dim, x.ndim)
    if not 0 <= k <= (x.shape[dim] if x.shape else 1):
        raise ValueError(f"topk: k = {k}, but dimension {dim} of a tensor of shape {x.shape} is not that long")
    if largest:
        positions = largest_first(x, k=k, dim=dim)
    else:
        positions = argsort_ascending(x, dim=dim)[(*[slice(None)] * dim, slice(k))] if x.ndim else x.long() * 0
    return Extreme(gather(x, dim, positions), positions)


# To find fifty logits out of fifty thousand, we need not sort them all. `partition` finds the k-th largest value in one
# pass. We choose every larger element and, of those that equal it, the first few; then we sort only the chosen ones. We
# first cut a long row into 4k blocks, because the k-th largest of their maxima is a bound that few more than k elements
# reach.


@primitive(cost=lambda out, x, **params: x.size)
def largest_first(x, /, k, dim):
    """The positions of the k largest elements along `dim`, the largest first; equal elements keep their order."""
    if not x.ndim:
        return np.zeros((), int64)
    rows = np.moveaxis(x, dim, -1)
    size = rows.shape[-1]
    if 0 < k < size:
        chosen = (np.flatnonzero(_k_largest(rows, k)) % size).reshape(*rows.shape[:-1], k)
    else:
        chosen = np.broadcast_to(np.arange(k), (*rows.shape[:-1], k))
    values = np.take_along_axis(rows, chosen, -1)
    order = k - 1 - np.argsort(values[..., ::-1], axis=-1, kind="stable")[..., ::-1]
    return np.moveaxis(np.take_along_axis(chosen, order, -1), -1, dim)


# `_kth_largest` finds the bound. `_k_largest` marks the chosen elements and drops the surplus where several are equal
# to the bound.


def _kth_largest(rows, k):
    width = rows.shape[-1] // (4 * k)
    tops = rows[..., : 4 * k * width].reshape(*rows.shape[:-1], -1, 4 * k).max(-2) if width > 15 else np.full(1, np.nan)
    if np.isnan(tops).any() or rows.size == 0:
        return np.partition(rows, -k, axis=-1)[..., -k]
    few = rows >= np.partition(tops, -k, axis=-1)[..., -k, None]
    counts = np.count_nonzero(few, axis=-1)
    if counts.sum() > 16 * k * counts.size:  # many equal elements
        return np.partition(rows, -k, axis=-1)[..., -k]
    places = np.flatnonzero(few)
    values = rows.reshape(-1)[places]
    order = np.lexsort((values, places // rows.shape[-1]))
    return values[order[np.cumsum(counts) - k]].reshape(counts.shape)


def _k_largest(rows, k):
    least = _kth_largest(rows, k)[..., None]  # nan counts as the largest of all
    chosen = ~(rows < least) if not np.isnan(least).any() else ~((rows < least) | ~np.isnan(rows) & np.isnan(least))
    if np.count_nonzero(chosen) == rows[..., 0].size * k:
        return chosen
    equal = chosen & ((rows == least) | np.isnan(least))
    surplus = chosen.sum(axis=-1, keepdims=True) - k
    return chosen & ~(equal & (np.cumsum(equal, axis=-1) > equal.sum(axis=-1, keepdims=True) - surplus))


# ## More ways to begin
#
# `arange` counts in `float64` and rounds at the end. Adding the step again and again in `float32` would drift, and it
# would stop altogether where the step is smaller than the distance between two floats.


def arange(start, end=None, step=1, dtype=None, requires_grad=False) -> Tensor:
    """start, start + step, ... with `end` excluded; int64 for integers, float32 otherwise.

    Raises ValueError for a step of 0 or one that leads away from `end`."""
    start, end = (0, start) if end is None else (start, end)
    start, end, step = (v.item() if isinstance(v, Tensor) else v for v in (start, end, step))
    if dtype is not None and resolve_dtype(dtype).kind in "iu":
        start, end, step = int(start), int(end), int(step)
    whole = builtins.all(isinstance(v, (int, np.integer)) for v in (start, end, step))
    if not step * (end - start) >= 0 or step == 0 or not math.isfinite(end - start):
        raise ValueError(f"no number of steps of {step} leads from {start} to {end}")
    count = -((start - end) // step) if whole else math.ceil((end - start) / step)
    values = start + np.arange(count) * step
    return from_numpy(convert(values, dtype or (int64 if whole else float32))).requires_grad_(requires_grad)


# The next three follow NumPy's functions of the same names.


def empty(*size, dtype=float32, requires_grad=False) -> Tensor:
    """A tensor of `size` whose elements are arbitrary, because its memory is not cleared; overwrite them."""
    return from_numpy(np.empty(normalize_sizes(size), resolve_dtype(dtype))).requires_grad_(requires_grad)


def linspace(start: float, end: float, steps: int, dtype=float32, requires_grad=False) -> Tensor:
    """`steps` numbers at equal distances from `start` to `end`, both included."""
    ends = [number_as(end, resolve_dtype(dtype)).item() for end in (start, end)]
    with quiet():
        return from_numpy(convert(np.linspace(*ends, *normalize_sizes((steps,))), dtype)).requires_grad_(requires_grad)


def logspace(
    start: float, end: float, steps: int, base: float = 10.0, dtype=float32, requires_grad=False
) -> Tensor:
    """`base` to the powers of `steps` numbers from `start` to `end`."""
    values = np.logspace(start, end, normalize_sizes((steps,))[0], base=base)
    return from_numpy(convert(values, dtype)).requires_grad_(requires_grad)


def eye(n: int, m: int | None = None, dtype=float32, requires_grad=False) -> Tensor:
    """The n x m matrix (n x n by default) with ones on its diagonal."""
    sizes = normalize_sizes((n, n if m is None else m))
    return from_numpy(np.eye(*sizes, dtype=resolve_dtype(dtype))).requires_grad_(requires_grad)


# NumPy draws `float32` and `float64`. For `float16` we draw one of the 2,048 numbers k / 2048, because rounding a
# longer fraction could give 1, which does not belong to the interval.


def rand(*size, dtype=float32, requires_grad=False) -> Tensor:
    """Uniform random numbers from [0, 1). Raises TypeError for a dtype of integers."""
    size, dtype = normalize_sizes(size), drawn_dtype("rand", dtype)
    if dtype == float16:
        values = (generator().integers(0, 2048, size) / 2048).astype(float16)
    else:
        values = generator().random(size, dtype=dtype)
    return from_numpy(np.asarray(values)).requires_grad_(requires_grad)


# `randint` takes one bound or two: `randint(10, (3,))` draws from 0 to 9, just as `randint(0, 10, (3,))` does.


def randint(low: Any = 0, high: Any = None, size: Sequence[int] | None = None, dtype=int64) -> Tensor:
    """Random integers from `low`, or from 0, with `high` excluded: randint(high, size) or randint(low, high, size)."""
    if isinstance(high, (tuple, list)):
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    if size is None:
        raise TypeError("randint needs a size, as in randint(0, 10, (3,))")
    if high - low < 1:
        raise ValueError(f"randint: there is no integer n with {low} <= n < {high}")
    values = generator().integers(low, high, normalize_sizes((tuple(size),)))
    return from_numpy(np.asarray(values).astype(resolve_dtype(dtype or int64)))


def randperm(n: int, dtype=int64) -> Tensor:
    """The integers 0 to n - 1 in random order."""
    return from_numpy(generator().permutation(*normalize_sizes((n,))).astype(resolve_dtype(dtype or int64)))


def randint_like(x: Tensor, low: int, high: int | None = None, dtype=None) -> Tensor:
    """Random integers from `low`, or from 0, with `high` excluded, in the shape and dtype of x."""
    return randint(low, high, x.shape, dtype or x.dtype)


# The `..._like` functions take their shape and dtype from another tensor.


def empty_like(x: Tensor, dtype=None) -> Tensor:
    """A tensor in the shape and dtype of x, whose elements are arbitrary."""
    return empty(x.shape, dtype=dtype or x.dtype)


def zeros_like(x: Tensor, dtype=None) -> Tensor:
    """Zeros in the shape and dtype of x."""
    return zeros(x.shape, dtype=dtype or x.dtype)


def ones_like(x: Tensor, dtype=None) -> Tensor:
    """Ones in the shape and dtype of x."""
    return ones(x.shape, dtype=dtype or x.dtype)


def full_like(x: Tensor, fill_value: float, dtype=None) -> Tensor:
    """One number in the shape and dtype of x."""
    return full(x.shape, fill_value, dtype=dtype or x.dtype)


def rand_like(x: Tensor, dtype=None) -> Tensor:
    """Uniform random numbers from [0, 1) in the shape and dtype of x."""
    return rand(x.shape, dtype=dtype or x.dtype)


def randn_like(x: Tensor, dtype=None) -> Tensor:
    """Normal random numbers in the shape and dtype of x."""
    return randn(x.shape, dtype=dtype or x.dtype)


# ## Words for the methods
#
# PyTorch offers most methods as functions, too.


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
    "Extreme", "abs", "all", "amax", "amin", "any", "arange", "argmax", "argmin", "argsort", "argsort_ascending",
    "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "cast", "cat", "ceil", "choose", "chunk", "clamp",
    "clip", "concat", "copied", "cos", "cumsum", "empty", "empty_like", "eq", "erf", "eye", "flatten", "flip", "floor",
    "floor_divide", "full_like", "gather", "ge", "gt", "isfinite", "isinf", "isnan", "largest_first", "le", "linspace",
    "logical_and", "logical_not", "logical_or", "logspace", "logsumexp", "lt", "masked_fill", "max", "maximum", "min",
    "minimum", "ne", "nonzero", "one_hot", "ones_like", "place_along", "pow", "power", "power_of", "prod", "rand",
    "rand_like", "randint", "randint_like", "randn_like", "randperm", "remainder", "round", "sign", "sin", "sort",
    "split", "sqrt", "squeeze", "stack", "std", "take_along", "tanh", "topk", "transpose", "tril", "triu", "unsqueeze",
    "where", "zeros_like",
]
