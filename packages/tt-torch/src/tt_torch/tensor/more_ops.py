"""The appendix of chapter 02 on PyTorch: functions of torch under the course's names."""

from __future__ import annotations

import torch

from .tensor import (
    Tensor, _as_tensor, _over_all, _positions, _reflected, _unpacked, binary, bool_, cast, chance, float32, full, int64,
    native, ones, ours, refusing, torch_dtype, unary, zeros,
)

# ## Element by element

sqrt, abs, sign, sin, cos = map(unary, (torch.sqrt, torch.abs, torch.sign, torch.sin, torch.cos))
tanh, erf, floor, ceil, round = map(unary, (torch.tanh, torch.erf, torch.floor, torch.ceil, torch.round))
isnan, isinf, isfinite, logical_not = map(unary, (torch.isnan, torch.isinf, torch.isfinite, torch.logical_not))
maximum, minimum, floor_divide = map(binary, (torch.maximum, torch.minimum, torch.floor_divide))
remainder, logical_and, logical_or = map(binary, (torch.remainder, torch.logical_and, torch.logical_or))
bitwise_not = unary(torch.bitwise_not)
bitwise_and, bitwise_or, bitwise_xor = map(binary, (torch.bitwise_and, torch.bitwise_or, torch.bitwise_xor))
copied = unary(lambda x: x.clone(memory_format=torch.contiguous_format), "copied")

for _sign, _operation in {
    "floordiv": floor_divide, "mod": remainder, "and": bitwise_and, "or": bitwise_or, "xor": bitwise_xor,
}.items():
    setattr(Tensor, f"__{_sign}__", _operation)
    setattr(Tensor, f"__r{_sign}__", _reflected(_operation))
Tensor.__abs__, Tensor.__invert__ = abs, bitwise_not


@native
def clip(x, /, min=None, max=None):
    return torch.clip(x, min, max)


clamp = Tensor.clamp = clip


@native
def choose(mask, x, y, /):
    return torch.where(mask, x, y)


def nonzero(input, as_tuple=False):
    """The positions of the elements that are not zero."""
    return ours(torch.nonzero(input, as_tuple=as_tuple))


def where(mask, x=None, y=None):
    """x where the mask is true, y elsewhere; the three broadcast. With a mask alone, where it is true."""
    if x is None and y is None:
        return nonzero(mask, as_tuple=True)
    like = next((v for v in (x, y) if isinstance(v, Tensor)), None)
    mask = mask if isinstance(mask, Tensor) else Tensor(mask, bool_)
    return choose(mask, _as_tensor(x, like), _as_tensor(y, like))


def masked_fill(x, mask, value):
    """x, with `value` where the mask is true."""
    return where(mask, value, x)


# ## Reductions
#
# PyTorch says dim=() where we say None.


def _dims(dim):
    return () if dim is None else dim


@native(cost=_over_all)
def amax(x, /, dim=None, keepdim=False):
    return torch.amax(x, _dims(dim), keepdim)


@native(cost=_over_all)
def amin(x, /, dim=None, keepdim=False):
    return torch.amin(x, _dims(dim), keepdim)


@native(cost=_over_all)
def argmax(x, /, dim=None, keepdim=False):
    return torch.argmax(x, dim, keepdim)


@native(cost=_over_all)
def argmin(x, /, dim=None, keepdim=False):
    return torch.argmin(x, dim, keepdim)


@native(cost=_over_all)
def any(x, /, dim=None, keepdim=False):
    return torch.any(x, dim=dim, keepdim=keepdim)


@native(cost=_over_all)
def all(x, /, dim=None, keepdim=False):
    return torch.all(x, dim=dim, keepdim=keepdim)


@native(cost=_over_all)
def prod(x, /, dim=None, keepdim=False):
    if dim is not None:
        return torch.prod(x, dim, keepdim)
    return torch.prod(x).reshape([1] * x.ndim if keepdim else [])


@native
def cumsum(x, /, dim):
    return torch.cumsum(x, dim)


@native
def flip(x, /, dim):
    return torch.flip(x, (dim,))


@refusing
def logsumexp(x, dim, keepdim=False):
    """log(sum(exp(x))) over `dim`."""
    return torch.logsumexp(x, dim, keepdim)


Extreme = torch.return_types.max


@refusing
def max(x, dim=None, keepdim=False):
    """The largest element; with `dim` the pair (values, indices). `max(x, y)` is `maximum`."""
    return _extreme(x, dim, keepdim, torch.max)


@refusing
def min(x, dim=None, keepdim=False):
    """The smallest element; with `dim` the pair (values, indices). `min(x, y)` is `minimum`."""
    return _extreme(x, dim, keepdim, torch.min)


def _extreme(x, dim, keepdim, function):
    if dim is None or isinstance(dim, Tensor):
        return function(x, *([] if dim is None else [dim]))
    return Extreme(map(ours, function(x, dim, keepdim)))


# ## Joining, picking, order


@native
def concat(*tensors, dim=0):
    return torch.cat(tensors, dim)


def cat(tensors, dim=0):
    """Tensors joined along an existing dimension."""
    if len(tensors) == 0:
        raise ValueError("cat needs at least one tensor")
    return concat(*tensors, dim=dim)


@refusing
def stack(tensors, dim=0):
    """Tensors of one shape joined along a new dimension."""
    return torch.stack(list(tensors), dim)


@refusing
def split(x, size, dim=0):
    """x cut along `dim` into pieces of `size`, or of the given sizes."""
    return torch.split(x, size, dim)


@refusing
def chunk(x, chunks, dim=0):
    """x cut along `dim` into `chunks` pieces."""
    return torch.chunk(x, chunks, dim)


@native
def tril(x, /, diagonal=0):
    return torch.tril(x, diagonal)


@native
def triu(x, /, diagonal=0):
    return torch.triu(x, diagonal)


@native
def take_along(x, /, index, dim):
    return torch.take_along_dim(x, _positions(index), dim)


@native
def place_along(values, /, index, dim, shape):
    return values.new_zeros(shape).scatter_add(dim, _positions(index), values)


@refusing
def gather(x, dim, index):
    """torch.gather."""
    return torch.gather(x, dim, _positions(index))


@refusing
def one_hot(index, num_classes=-1, dtype=int64):
    """For each integer a row of zeros with a one in its place."""
    index = ours(_positions(index))
    if index.dtype.kind not in "iu":
        raise TypeError(f"one_hot needs integers, not {index.dtype}")
    return cast(torch.nn.functional.one_hot(index.long(), num_classes), dtype=dtype)


@native
def argsort_ascending(x, /, dim=-1):
    return torch.argsort(x, dim=dim, stable=True)


def argsort(x, dim=-1, descending=False, stable=True):
    """The positions that sort x along `dim`; equal elements keep their order."""
    return torch.argsort(x, dim=dim, descending=descending, stable=True)


def sort(x, dim=-1, descending=False, stable=True):
    """x sorted along `dim`, and the positions that the elements came from."""
    return Extreme(map(ours, torch.sort(x, dim=dim, descending=descending, stable=True)))


@refusing
@native
def largest_first(x, /, k, dim):
    return torch.topk(x, k, dim)[1]


def topk(x, k, dim=-1, largest=True, sorted=True):
    """The k largest (or smallest) elements along `dim`, in order, and their positions."""
    return Extreme(map(ours, torch.topk(x, k, dim, largest)))


# ## More ways to begin, and words for methods


def empty(*size, dtype=float32, requires_grad=False):
    """A tensor whose numbers are whatever was in the memory."""
    return ours(torch.empty(_unpacked(size), dtype=torch_dtype(dtype))).requires_grad_(requires_grad)


def linspace(start, end, steps, dtype=float32, requires_grad=False):
    """`steps` numbers at equal distances from `start` to `end`."""
    return ours(torch.linspace(start, end, steps, dtype=torch_dtype(dtype))).requires_grad_(requires_grad)


def logspace(start, end, steps, base=10.0, dtype=float32, requires_grad=False):
    """`base` to the powers of `steps` numbers from `start` to `end`."""
    return ours(torch.logspace(start, end, steps, base, dtype=torch_dtype(dtype))).requires_grad_(requires_grad)


def eye(n, m=None, dtype=float32, requires_grad=False):
    """The n x m matrix with ones on its diagonal."""
    return ours(torch.eye(n, n if m is None else m, dtype=torch_dtype(dtype))).requires_grad_(requires_grad)


def randint(low=0, high=None, size=None, dtype=int64):
    """Random integers from `low`, or from 0, with `high` excluded."""
    if isinstance(high, (tuple, list)):
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    return ours(torch.randint(low, high, tuple(size), generator=chance(), dtype=torch_dtype(dtype)))


def randint_like(x, low, high=None, dtype=None):
    """Random integers in the shape and dtype of x."""
    return randint(low, high, tuple(x.shape), dtype or x.dtype)


def empty_like(x, dtype=None):
    """A tensor in the shape and dtype of x, whose numbers are whatever was in the memory."""
    return empty(tuple(x.shape), dtype=dtype or x.dtype)


def randperm(n, dtype=int64):
    """The integers 0 to n - 1 in random order."""
    return ours(torch.randperm(n, generator=chance(), dtype=torch_dtype(dtype)))


def zeros_like(x, dtype=None):
    """Zeros in the shape and dtype of x."""
    return zeros(x.shape, dtype=dtype or x.dtype)


def ones_like(x, dtype=None):
    """Ones in the shape and dtype of x."""
    return ones(x.shape, dtype=dtype or x.dtype)


def full_like(x, fill_value, dtype=None):
    """One number in the shape and dtype of x."""
    return full(x.shape, fill_value, dtype=dtype or x.dtype)


def rand_like(x):
    """Uniform random numbers in the shape and dtype of x."""
    chance()
    return torch.rand_like(x)


def randn_like(x):
    """Normal random numbers in the shape and dtype of x."""
    chance()
    return torch.randn_like(x)


def flatten(x, start_dim=0, end_dim=-1):
    """The dimensions from `start_dim` to `end_dim` joined into one."""
    return x.flatten(start_dim, end_dim)


def squeeze(x, dim=None):
    """Without the dimensions of size 1, or without `dim` if that has size 1."""
    return x.squeeze() if dim is None else x.squeeze(dim)


def unsqueeze(x, dim):
    """With a new dimension of size 1 at `dim`."""
    return x.unsqueeze(dim)


def transpose(x, dim0=-2, dim1=-1):
    """Two dimensions swapped."""
    return x.transpose(dim0, dim1)


__all__ = [
    "Extreme", "abs", "all", "amax", "amin", "any", "argmax", "argmin", "argsort", "argsort_ascending", "bitwise_and",
    "bitwise_not", "bitwise_or", "bitwise_xor", "cast", "cat", "ceil", "choose", "chunk", "clamp", "clip", "concat",
    "copied", "cos", "cumsum", "empty", "empty_like", "erf", "eye", "flatten", "flip", "floor", "floor_divide",
    "full_like", "gather", "isfinite", "isinf", "isnan", "largest_first", "linspace", "logical_and", "logical_not",
    "logical_or", "logspace", "logsumexp", "masked_fill", "max", "maximum", "min", "minimum", "nonzero", "one_hot",
    "ones_like", "place_along", "prod", "rand_like", "randint", "randint_like", "randn_like", "randperm", "remainder",
    "round", "sign", "sin", "sort", "split", "sqrt", "squeeze", "stack", "take_along", "tanh", "topk", "transpose",
    "tril", "triu", "unsqueeze", "where", "zeros_like",
]
