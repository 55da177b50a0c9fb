"""The methods of a tensor, a line for each: `x.exp()` calls the function `exp`.

A support module of chapter 02. PyTorch's users write `x.exp()` and `x.sum(1)` as often as `exp(x)` and `sum(x, 1)`.
The functions themselves are in the chapter, in `more_ops` and in the other appendices. The classes below are bases of
`Tensor`; those of `in_place` and `conversions` complete it."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

import numpy as np

from tt_tensor.arguments import normalize_sizes, numpy_names, resolve_dim, unpack
from tt_tensor.generators import drawn_from

if TYPE_CHECKING:
    import tt_tensor as tt
    from tt_tensor.more_ops import Extreme
    from tt_tensor.tensor import Tensor
else:
    from tt_tensor.registry import tt

# Every line names the type of its result, so that an editor can complete `x.exp().su` and a type checker can follow it.
# The parameters have PyTorch's names, and a parameter without a type may be a tensor or a number.

# ## Element by element


class LongTail:
    """Functions of each element, comparisons and choices, as methods."""

    __slots__ = ()

    def exp(self) -> Tensor: return tt.exp(self)
    def exp2(self) -> Tensor: return tt.exp2(self)
    def expm1(self) -> Tensor: return tt.expm1(self)
    def log(self) -> Tensor: return tt.log(self)
    def log2(self) -> Tensor: return tt.log2(self)
    def log10(self) -> Tensor: return tt.log10(self)
    def log1p(self) -> Tensor: return tt.log1p(self)
    def sqrt(self) -> Tensor: return tt.sqrt(self)
    def rsqrt(self) -> Tensor: return tt.rsqrt(self)
    def square(self) -> Tensor: return tt.square(self)
    def reciprocal(self) -> Tensor: return tt.reciprocal(self)
    def abs(self) -> Tensor: return tt.abs(self)
    def neg(self) -> Tensor: return tt.neg(self)
    def sign(self) -> Tensor: return tt.sign(self)
    def erf(self) -> Tensor: return tt.erf(self)
    def erfc(self) -> Tensor: return tt.erfc(self)
    def erfinv(self) -> Tensor: return tt.erfinv(self)
    def lgamma(self) -> Tensor: return tt.lgamma(self)
    def digamma(self) -> Tensor: return tt.digamma(self)

    # Angles and their hyperbolic relatives.

    def sin(self) -> Tensor: return tt.sin(self)
    def cos(self) -> Tensor: return tt.cos(self)
    def tan(self) -> Tensor: return tt.tan(self)
    def asin(self) -> Tensor: return tt.asin(self)
    def acos(self) -> Tensor: return tt.acos(self)
    def atan(self) -> Tensor: return tt.atan(self)
    def sinh(self) -> Tensor: return tt.sinh(self)
    def cosh(self) -> Tensor: return tt.cosh(self)
    def tanh(self) -> Tensor: return tt.tanh(self)
    def asinh(self) -> Tensor: return tt.asinh(self)
    def acosh(self) -> Tensor: return tt.acosh(self)
    def atanh(self) -> Tensor: return tt.atanh(self)
    def atan2(self, other) -> Tensor: return tt.atan2(self, other)
    def hypot(self, other) -> Tensor: return tt.hypot(self, other)
    def sinc(self) -> Tensor: return tt.sinc(self)
    def deg2rad(self) -> Tensor: return tt.deg2rad(self)
    def rad2deg(self) -> Tensor: return tt.rad2deg(self)

    # The functions of chapter 03, rounding, and what is unusual about a number.

    def relu(self) -> Tensor: return tt.relu(self)
    def sigmoid(self) -> Tensor: return tt.sigmoid(self)
    def logit(self, eps: float | None = None) -> Tensor: return tt.logit(self, eps)
    def softmax(self, dim: int, dtype=None) -> Tensor: return tt.softmax(_as(self, dtype), dim)
    def log_softmax(self, dim: int, dtype=None) -> Tensor: return tt.log_softmax(_as(self, dtype), dim)
    def floor(self) -> Tensor: return tt.floor(self)
    def ceil(self) -> Tensor: return tt.ceil(self)
    def trunc(self) -> Tensor: return tt.trunc(self)
    def frac(self) -> Tensor: return tt.frac(self)
    def round(self, decimals: int = 0) -> Tensor: return tt.round(self) if not decimals else _rounded(self, decimals)
    def isnan(self) -> Tensor: return tt.isnan(self)
    def isinf(self) -> Tensor: return tt.isinf(self)
    def isfinite(self) -> Tensor: return tt.isfinite(self)
    def isposinf(self) -> Tensor: return tt.isposinf(self)
    def isneginf(self) -> Tensor: return tt.isneginf(self)
    def signbit(self) -> Tensor: return tt.signbit(self)
    def nan_to_num(self, nan=0.0, posinf=None, neginf=None) -> Tensor: return tt.nan_to_num(self, nan, posinf, neginf)

    # Two operands. The sums have a factor for the second one, as in `weight.add_(step, alpha=-lr)`.

    def add(self, other, *, alpha=1) -> Tensor: return tt.add(self, other if alpha == 1 else _times(alpha, other))
    def sub(self, other, *, alpha=1) -> Tensor: return tt.sub(self, other if alpha == 1 else _times(alpha, other))
    def mul(self, other) -> Tensor: return tt.mul(self, other)
    def div(self, other, *, rounding_mode=None) -> Tensor: return tt.divide(self, other, rounding_mode=rounding_mode)
    def floor_divide(self, other) -> Tensor: return tt.floor_divide(self, other)
    def remainder(self, other) -> Tensor: return tt.remainder(self, other)
    def fmod(self, other) -> Tensor: return tt.fmod(self, other)
    def pow(self, exponent) -> Tensor: return tt.pow(self, exponent)
    def maximum(self, other) -> Tensor: return tt.maximum(self, other)
    def minimum(self, other) -> Tensor: return tt.minimum(self, other)
    def copysign(self, other) -> Tensor: return tt.copysign(self, other)
    def xlogy(self, other) -> Tensor: return tt.xlogy(self, other)
    def logaddexp(self, other) -> Tensor: return tt.logaddexp(self, other)
    def heaviside(self, values) -> Tensor: return tt.heaviside(self, values)
    def lerp(self, end, weight) -> Tensor: return tt.lerp(self, end, weight)
    def addcmul(self, tensor1, tensor2, *, value=1) -> Tensor: return tt.addcmul(self, tensor1, tensor2, value=value)
    def addcdiv(self, tensor1, tensor2, *, value=1) -> Tensor: return tt.addcdiv(self, tensor1, tensor2, value=value)

    # Questions, and what is built from their answers.

    def eq(self, other) -> Tensor: return tt.eq(self, other)
    def ne(self, other) -> Tensor: return tt.ne(self, other)
    def lt(self, other) -> Tensor: return tt.lt(self, other)
    def le(self, other) -> Tensor: return tt.le(self, other)
    def gt(self, other) -> Tensor: return tt.gt(self, other)
    def ge(self, other) -> Tensor: return tt.ge(self, other)
    def logical_not(self) -> Tensor: return tt.logical_not(self)
    def logical_and(self, other) -> Tensor: return tt.logical_and(self, other)
    def logical_or(self, other) -> Tensor: return tt.logical_or(self, other)
    def logical_xor(self, other) -> Tensor: return tt.logical_xor(self, other)
    def bitwise_not(self) -> Tensor: return tt.bitwise_not(self)
    def bitwise_and(self, other) -> Tensor: return tt.bitwise_and(self, other)
    def bitwise_or(self, other) -> Tensor: return tt.bitwise_or(self, other)
    def bitwise_xor(self, other) -> Tensor: return tt.bitwise_xor(self, other)
    def bitwise_left_shift(self, other) -> Tensor: return tt.bitwise_left_shift(self, other)
    def bitwise_right_shift(self, other) -> Tensor: return tt.bitwise_right_shift(self, other)
    def where(self, condition, other) -> Tensor: return tt.where(condition, self, other)
    def masked_fill(self, mask, value) -> Tensor: return tt.masked_fill(self, mask, value)

    # Two tensors as a whole: are they equal, or nearly so?

    def equal(self, other) -> bool: return tt.equal(self, other)

    def isclose(self, other, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
        return tt.isclose(self, other, rtol, atol, equal_nan)

    def allclose(self, other, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
        return tt.allclose(self, other, rtol, atol, equal_nan)

    # The bounds of `clip` may be tensors; then it is a maximum and a minimum.

    def clip(self, min=None, max=None) -> Tensor:
        if isinstance(min, LongTail) or isinstance(max, LongTail):
            above = self if min is None else tt.maximum(self, min)
            return above if max is None else tt.minimum(above, max)
        return tt.clip(self, min=min, max=max)

    def clamp_min(self, min) -> Tensor: return self.clip(min)
    def clamp_max(self, max) -> Tensor: return self.clip(max=max)

    clamp = clip
    true_divide, divide, multiply, subtract = div, div, mul, sub
    negative, absolute, arctan2, fix = neg, abs, atan2, trunc
    arcsin, arccos, arctan, arcsinh, arccosh, arctanh = asin, acos, atan, asinh, acosh, atanh
    greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne


def _as(x, dtype):
    return x if dtype is None else x.to(dtype)


def _times(alpha, other):
    return alpha * other


def _rounded(x, decimals):
    return tt.round(x * 10.0**decimals) / 10.0**decimals


# ## Operators
#
# The chapter has the operators of arithmetic; these are the others. Integers are divided with a remainder by `//` and
# `%`. The signs `~`, `&`, `|` and `^` are *not*, *and*, *or* and *exclusive or* of truth values and of the bits of
# integers. Comparisons answer element by element. A class that defines equality must also define its hash: tensors are
# hashed by identity, because their elements may change.


class Operators:
    """The operators beyond arithmetic."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __abs__(self) -> Tensor: return tt.abs(self)
    def __pow__(self, exponent) -> Tensor: return tt.pow(self, exponent)
    def __rpow__(self, base) -> Tensor: return tt.power_of(base, self)
    def __floordiv__(self, other) -> Tensor: return tt.floor_divide(self, other)
    def __rfloordiv__(self, other) -> Tensor: return tt.floor_divide(other, self)
    def __mod__(self, other) -> Tensor: return tt.remainder(self, other)
    def __rmod__(self, other) -> Tensor: return tt.remainder(other, self)
    def __invert__(self) -> Tensor: return tt.bitwise_not(self)
    def __and__(self, other) -> Tensor: return tt.bitwise_and(self, other)
    def __rand__(self, other) -> Tensor: return tt.bitwise_and(other, self)
    def __or__(self, other) -> Tensor: return tt.bitwise_or(self, other)
    def __ror__(self, other) -> Tensor: return tt.bitwise_or(other, self)
    def __xor__(self, other) -> Tensor: return tt.bitwise_xor(self, other)
    def __rxor__(self, other) -> Tensor: return tt.bitwise_xor(other, self)
    def __lt__(self, other) -> Tensor: return tt.lt(self, other)
    def __le__(self, other) -> Tensor: return tt.le(self, other)
    def __gt__(self, other) -> Tensor: return tt.gt(self, other)
    def __ge__(self, other) -> Tensor: return tt.ge(self, other)
    def __eq__(self, other) -> Tensor: return tt.eq(self, other) if _comparable(other) else NotImplemented
    def __ne__(self, other) -> Tensor: return tt.ne(self, other) if _comparable(other) else NotImplemented


def _comparable(value):
    return isinstance(value, (bool, int, float, list, tuple, np.ndarray, np.generic, Operators))


# ## Other shapes


class Reshaping:
    """The same elements in the same order, in another shape."""

    __slots__ = ()

    def view(self, *shape) -> Tensor:
        """`reshape` that never loses a write: a result that had to be copied cannot be written to."""
        result = self.reshape(*shape)
        if self.numel() and not np.may_share_memory(result._array, self._array):
            result._array.flags.writeable = False
        return result

    def unsqueeze(self, dim: int) -> Tensor:
        """With a new dimension of size 1 at `dim`."""
        at = resolve_dim(dim, self.ndim + 1)
        return tt.reshape(self, shape=(*self.shape[:at], 1, *self.shape[at:]))

    def expand(self, *shape) -> Tensor:
        """A view in which dimensions of size 1 are repeated; -1 keeps a size."""
        return tt.expand(self, shape=normalize_sizes(shape, least=-1))

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """The dimensions from `start_dim` to `end_dim` joined into one. Raises ValueError if they are in the wrong
        order."""
        start, end = resolve_dim(start_dim, self.ndim), resolve_dim(end_dim, self.ndim)
        if start > end:
            raise ValueError(f"flatten joins dimensions from start_dim to end_dim; {start_dim} comes after {end_dim}")
        if start == end and self.ndim:
            return self
        joined = math.prod(self.shape[start : end + 1])
        return tt.reshape(self, shape=(*self.shape[:start], joined, *self.shape[end + 1 :]))

    def squeeze(self, dim: int | tuple[int, ...] | None = None) -> Tensor:
        """Without the dimensions of size 1, or without `dim` (one or several) if that has size 1."""
        drop = range(self.ndim) if dim is None else [resolve_dim(d, self.ndim) for d in unpack((dim,))]
        return tt.reshape(self, shape=tuple(n for i, n in enumerate(self.shape) if n != 1 or i not in drop))

    # Two properties are shorter to write: `x.T` for matrices, `x.mT` for stacks of them.

    T: Tensor = property(
        lambda self: self.permute(*reversed(_dims_of_a_matrix(self))), doc="The transpose of a matrix."
    )
    mT: Tensor = property(
        lambda self: self.transpose(-2, -1) if self.ndim else self, doc="The last two dimensions swapped."
    )


def _dims_of_a_matrix(x: Any) -> range:
    if x.ndim <= 2:
        return range(x.ndim)
    raise ValueError(
        f".T is for matrices; this tensor has shape {x.shape}. Use .mT to swap the last two dimensions, or permute()."
    )


# ## Many elements to few
#
# Reductions take `dim` and `keepdim`. If you come from NumPy, you write `axis` and `keepdims`; PyTorch takes both pairs
# of names, and so do these methods.
#
# For variance and deviation, PyTorch has two spellings of Bessel's correction. `unbiased=False` is the older one, and
# it may come first: in `x.var(False)`, `False` is not a dimension.

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def torch_names(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """A reduction that also answers to axis= and keepdims=, and to unbiased= if it has a correction."""
    corrected = "correction" in inspect.signature(function).parameters

    @functools.wraps(function)
    def reduction(x, *args, **options):
        if options:
            options = numpy_names(options)
        if corrected and args and isinstance(args[0], bool):
            options, args = {"unbiased": args[0], **options}, args[1:]
        if corrected and options.get("unbiased") is not None:
            if "correction" in options or len(args) > 1:
                raise TypeError("unbiased and correction say the same thing; give one of them")
            options["correction"] = int(options.pop("unbiased"))
        return function(x, *args, **options)

    return reduction


# You can give `sum`, `mean` and `prod` the dtype to compute in.


class Reducing:
    """Many numbers to few; `dim` and `keepdim` as in `sum`."""

    __slots__ = ()

    @torch_names
    def sum(self, dim=None, keepdim: bool = False, *, dtype=None) -> Tensor:
        return tt.sum(self if dtype is None else self.to(dtype), dim=dim, keepdim=keepdim)

    @torch_names
    def mean(self, dim=None, keepdim: bool = False, *, dtype=None) -> Tensor:
        return tt.mean(self if dtype is None else self.to(dtype), dim, keepdim)

    @torch_names
    def prod(self, dim=None, keepdim: bool = False, *, dtype=None) -> Tensor:
        return tt.prod(self if dtype is None else self.to(dtype), dim=dim, keepdim=keepdim)

    @torch_names
    def var(self, dim=None, correction: float = 1, keepdim: bool = False, *, unbiased: bool | None = None) -> Tensor:
        return tt.var(self, dim, correction, keepdim)

    @torch_names
    def std(self, dim=None, correction: float = 1, keepdim: bool = False, *, unbiased: bool | None = None) -> Tensor:
        return tt.std(self, dim, correction, keepdim)

    # `x.max()` is one number, `x.max(1)` a pair of values and indices, and `x.max(y)` is `maximum`.

    @overload
    def max(self) -> Tensor: ...
    @overload
    def max(self, dim: int, keepdim: bool = False) -> Extreme: ...
    @overload
    def max(self, dim: Tensor) -> Tensor: ...
    @torch_names
    def max(self, dim=None, keepdim: bool = False) -> Any: return tt.max(self, dim, keepdim)

    @overload
    def min(self) -> Tensor: ...
    @overload
    def min(self, dim: int, keepdim: bool = False) -> Extreme: ...
    @overload
    def min(self, dim: Tensor) -> Tensor: ...
    @torch_names
    def min(self, dim=None, keepdim: bool = False) -> Any: return tt.min(self, dim, keepdim)

    # The others come back as one tensor, or name where a value was found.

    @torch_names
    def amax(self, dim=None, keepdim: bool = False) -> Tensor: return tt.amax(self, dim=dim, keepdim=keepdim)
    @torch_names
    def amin(self, dim=None, keepdim: bool = False) -> Tensor: return tt.amin(self, dim=dim, keepdim=keepdim)
    @torch_names
    def argmax(self, dim=None, keepdim: bool = False) -> Tensor: return tt.argmax(self, dim=dim, keepdim=keepdim)
    @torch_names
    def argmin(self, dim=None, keepdim: bool = False) -> Tensor: return tt.argmin(self, dim=dim, keepdim=keepdim)
    @torch_names
    def any(self, dim=None, keepdim: bool = False) -> Tensor: return tt.any(self, dim=dim, keepdim=keepdim)
    @torch_names
    def all(self, dim=None, keepdim: bool = False) -> Tensor: return tt.all(self, dim=dim, keepdim=keepdim)
    @torch_names
    def logsumexp(self, dim, keepdim: bool = False) -> Tensor: return tt.logsumexp(self, dim, keepdim)
    @torch_names
    def nansum(self, dim=None, keepdim: bool = False) -> Tensor: return tt.nansum(self, dim, keepdim)
    @torch_names
    def nanmean(self, dim=None, keepdim: bool = False) -> Tensor: return tt.nanmean(self, dim, keepdim)
    def count_nonzero(self, dim=None) -> Tensor: return tt.count_nonzero(self, dim)
    def aminmax(self, *, dim=None, keepdim: bool = False) -> Any: return tt.aminmax(self, dim=dim, keepdim=keepdim)
    def dist(self, other, p: float = 2) -> Tensor: return tt.norm(self - other, p)

    @torch_names
    def norm(self, p="fro", dim=None, keepdim: bool = False, dtype=None) -> Tensor:
        return tt.norm(_as(self, dtype), p, dim, keepdim)

    # Values in order.

    @torch_names
    def median(self, dim=None, keepdim: bool = False) -> Any: return tt.median(self, dim, keepdim)
    @torch_names
    def nanmedian(self, dim=None, keepdim: bool = False) -> Any: return tt.nanmedian(self, dim, keepdim)
    @torch_names
    def mode(self, dim=-1, keepdim: bool = False) -> Any: return tt.mode(self, dim, keepdim)
    @torch_names
    def kthvalue(self, k: int, dim=-1, keepdim: bool = False) -> Any: return tt.kthvalue(self, k, dim, keepdim)

    @torch_names
    def quantile(self, q, dim=None, keepdim: bool = False, *, interpolation: str = "linear") -> Tensor:
        return tt.quantile(self, q, dim, keepdim, interpolation=interpolation)

    def sort(self, dim: int = -1, descending: bool = False, stable: bool = True) -> Extreme:
        return tt.sort(self, dim, descending)

    def argsort(self, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
        return tt.argsort(self, dim, descending)

    def topk(self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Extreme:
        return tt.topk(self, k, dim) if largest else tt.topk(self, k, dim, largest)

    def unique(self, sorted=True, return_inverse=False, return_counts=False, dim=None) -> Any:
        return tt.unique(self, sorted, return_inverse, return_counts, dim)

    def unique_consecutive(self, return_inverse=False, return_counts=False, dim=None) -> Any:
        return tt.unique_consecutive(self, return_inverse, return_counts, dim)

    # Running results.

    @torch_names
    def cumsum(self, dim: int, *, dtype=None) -> Tensor: return tt.cumsum(_as(self, dtype), dim=dim)
    @torch_names
    def cumprod(self, dim: int, *, dtype=None) -> Tensor: return tt.cumprod(_as(self, dtype), dim=dim)
    def cummax(self, dim: int) -> Any: return tt.cummax(self, dim)
    def cummin(self, dim: int) -> Any: return tt.cummin(self, dim)
    def logcumsumexp(self, dim: int) -> Tensor: return tt.logcumsumexp(self, dim)
    def diff(self, n: int = 1, dim: int = -1) -> Tensor: return tt.diff(self, n, dim)
    def bincount(self, weights=None, minlength: int = 0) -> Tensor: return tt.bincount(self, weights, minlength)
    def histc(self, bins: int = 100, min=0, max=0) -> Tensor: return tt.histc(self, bins, min, max)


# ## Picking, cutting and joining
#
# The other methods pick elements, cut a tensor, or multiply matrices. `scatter`, `index_add` and their relatives are
# the opposites of picking: they put values at positions.


class Picking:
    """Elements, pieces and products."""

    __slots__ = ()

    def gather(self, dim: int, index) -> Tensor: return tt.gather(self, dim, index)
    def take(self, index) -> Tensor: return tt.take(self, index)
    def select(self, dim: int, index: int) -> Tensor: return tt.select(self, dim, index)
    def narrow(self, dim: int, start, length: int) -> Tensor: return tt.narrow(self, dim, start, length)
    def index_select(self, dim: int, index) -> Tensor: return tt.index_select(self, dim, index)
    def masked_select(self, mask) -> Tensor: return tt.masked_select(self, mask)
    def nonzero(self, *, as_tuple: bool = False) -> Any: return tt.nonzero(self, as_tuple=as_tuple)
    def argwhere(self) -> Tensor: return tt.argwhere(self)
    def index_copy(self, dim: int, index, source) -> Tensor: return tt.index_copy(self, dim, index, source)
    def index_fill(self, dim: int, index, value) -> Tensor: return tt.index_fill(self, dim, index, value)
    def masked_scatter(self, mask, source) -> Tensor: return tt.masked_scatter(self, mask, source)
    def diag(self, diagonal: int = 0) -> Tensor: return tt.diag(self, diagonal)
    def diagonal(self, offset=0, dim1=0, dim2=1) -> Tensor: return tt.diagonal(self, offset, dim1, dim2)
    def tril(self, diagonal: int = 0) -> Tensor: return tt.tril(self, diagonal=diagonal)
    def triu(self, diagonal: int = 0) -> Tensor: return tt.triu(self, diagonal=diagonal)
    def diag_embed(self, offset=0, dim1=-2, dim2=-1) -> Tensor: return tt.diag_embed(self, offset, dim1, dim2)
    def trace(self) -> Tensor: return tt.trace(self)

    def index_add(self, dim: int, index, source, *, alpha=1) -> Tensor:
        return tt.index_add(self, dim, index, source, alpha=alpha)

    def scatter(self, dim: int, index, src=None, *, value=None, reduce=None) -> Tensor:
        """self with the numbers of `src`, or one number, at the positions `index` along `dim`."""
        src = value if src is None else src
        return tt.scatter(self, dim, index, src) if reduce is None else tt.scatter(self, dim, index, src, reduce=reduce)

    def scatter_add(self, dim: int, index, src) -> Tensor: return tt.scatter_add(self, dim, index, src)

    # Cut, repeated, reordered.

    def split(self, split_size, dim: int = 0) -> tuple[Tensor, ...]: return tt.split(self, split_size, dim)
    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]: return tt.chunk(self, chunks, dim)
    def tensor_split(self, n, dim: int = 0) -> tuple[Tensor, ...]: return tt.tensor_split(self, n, dim)
    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]: return tt.unbind(self, dim)
    def unflatten(self, dim: int, sizes: Sequence[int]) -> Tensor: return tt.unflatten(self, dim, sizes)
    def flip(self, dims, *more: int) -> Tensor: return tt.flip(self, dim=_listed(dims, more))
    def fliplr(self) -> Tensor: return tt.fliplr(self)
    def flipud(self) -> Tensor: return tt.flipud(self)
    def rot90(self, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor: return tt.rot90(self, k, dims)
    def roll(self, shifts, dims=None) -> Tensor: return tt.roll(self, shifts, dims)
    def tile(self, dims, *more: int) -> Tensor: return tt.tile(self, _listed(dims, more))
    def repeat_interleave(self, repeats, dim=None) -> Tensor: return tt.repeat_interleave(self, repeats, dim)
    def swapaxes(self, axis0: int, axis1: int) -> Tensor: return tt.swapaxes(self, axis0, axis1)
    def movedim(self, source, destination) -> Tensor: return tt.movedim(self, source, destination)
    def broadcast_to(self, size) -> Tensor: return tt.broadcast_to(self, size)
    def ravel(self) -> Tensor: return self.reshape(-1)
    swapdims, moveaxis = swapaxes, movedim

    # In the shape of another tensor, or longer.

    def view_as(self, other) -> Tensor: return self.view(other.shape)
    def reshape_as(self, other) -> Tensor: return self.reshape(other.shape)
    def expand_as(self, other) -> Tensor: return self.expand(other.shape)

    def repeat(self, repeats, *more: int) -> Tensor:
        """The tensor laid side by side with itself, as often along each dimension as `repeats` says."""
        repeats = _listed(repeats, more)
        if len(repeats) < self.ndim:
            raise ValueError(f"repeat needs a number for each dimension of shape {self.shape}, not just {repeats}")
        return tt.tile(self, repeats)

    def unfold(self, dimension: int, size: int, step: int) -> Tensor:
        """Windows of `size` along a dimension, `step` apart; the window is a new last dimension."""
        starts = tt.arange(0, self.size(dimension) - size + 1, step)
        windows = self.movedim(dimension, -1)[..., starts.unsqueeze(1) + tt.arange(size)]
        return windows.movedim(-2, dimension)

    # Products of vectors and matrices.

    def t(self) -> Tensor: return tt.t(self)
    def matmul(self, other) -> Tensor: return tt.matmul(self, other)
    def mm(self, mat2) -> Tensor: return tt.mm(self, mat2)
    def bmm(self, mat2) -> Tensor: return tt.bmm(self, mat2)
    def mv(self, vec) -> Tensor: return tt.mv(self, vec)
    def dot(self, other) -> Tensor: return tt.dot(self, other)
    def inner(self, other) -> Tensor: return tt.inner(self, other)
    def outer(self, vec2) -> Tensor: return tt.outer(self, vec2)
    def cross(self, other, dim=None) -> Tensor: return tt.cross(self, other, dim)
    def kron(self, other) -> Tensor: return tt.kron(self, other)

    def addmm(self, mat1, mat2, *, beta=1, alpha=1) -> Tensor:
        return tt.addmm(self, mat1, mat2, beta=beta, alpha=alpha)

    def baddbmm(self, batch1, batch2, *, beta=1, alpha=1) -> Tensor:
        return tt.baddbmm(self, batch1, batch2, beta=beta, alpha=alpha)

    def addmv(self, mat, vec, *, beta=1, alpha=1) -> Tensor: return tt.addmv(self, mat, vec, beta=beta, alpha=alpha)
    def addr(self, vec1, vec2, *, beta=1, alpha=1) -> Tensor: return tt.addr(self, vec1, vec2, beta=beta, alpha=alpha)

    # Random choices, from a generator of their own if one is given.

    def multinomial(self, num_samples: int, replacement: bool = False, *, generator=None) -> Tensor:
        with drawn_from(generator):
            return tt.multinomial(self, num_samples, replacement)

    def bernoulli(self, p=None, *, generator=None) -> Tensor:
        with drawn_from(generator):
            return tt.bernoulli(self, p)


def _listed(first, more):
    return tuple(first) if isinstance(first, (tuple, list)) else (first, *more)


__all__ = ["LongTail", "Operators", "Picking", "Reducing", "Reshaping", "torch_names"]
