# # Drawing
#
# An appendix of chapter 02: random numbers from other distributions than those of `rand` and `randn`, all of them from
# the one generator of chapter 01. At the end we add a few questions about tensors and dtypes that PyTorch's users ask.

from __future__ import annotations

from typing import Any

import numpy as np

from tt_tensor.arguments import normalize_sizes, resolve_dtype
from tt_tensor.setup import generator
from tt_tensor.tensor import Tensor, common_dtype, from_numpy, int64, tensor

# ## Numbers
#
# `normal` takes the mean and the standard deviation as numbers, with a size, or as tensors with a value for each
# element. A draw has no derivative with respect to them; if you need one, write `mean + std * randn_like(mean)` (the
# *reparameterization trick*).


def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, dtype=None) -> Tensor:
    """Normal random numbers with this mean and standard deviation. Raises ValueError for a negative deviation."""
    tensors = [v for v in (mean, std) if isinstance(v, Tensor)]
    if (size is None) == (not tensors):
        raise TypeError("normal needs a size for numbers, as in normal(0.0, 1.0, (2, 3)), and none for tensors")
    mean, std = (v.numpy() if isinstance(v, Tensor) else np.asarray(v) for v in (mean, std))
    if (std < 0).any():
        raise ValueError(f"normal: a standard deviation is 0 or more, not {std.min()}")
    shape = np.broadcast_shapes(mean.shape, std.shape) if tensors else normalize_sizes((size,))
    kind = resolve_dtype(dtype) if dtype or not tensors else common_dtype(*tensors)
    return from_numpy(np.asarray(generator().standard_normal(shape) * std + mean).astype(kind))


def bernoulli(input: Tensor, p: float | None = None) -> Tensor:
    """1 with the probability that the element holds (or p), otherwise 0. Raises ValueError outside [0, 1]."""
    chances = input.numpy() if p is None else np.full(input.shape, p)
    if not ((chances >= 0) & (chances <= 1)).all():
        raise ValueError("bernoulli: probabilities are numbers from 0 to 1")
    return from_numpy(np.asarray(generator().random(input.shape) < chances).astype(input.dtype))


def poisson(input: Tensor) -> Tensor:
    """Random counts whose mean is the element. Raises ValueError for a negative one."""
    if input.numel() and not input.numpy().min() >= 0:
        raise ValueError("poisson: a rate is 0 or more")
    return from_numpy(np.asarray(generator().poisson(input.numpy())).astype(input.dtype))


# ## Choices
#
# With replacement, the running sum of the weights cuts an interval into pieces, and a uniform number falls into one of
# them. Without replacement, a neat trick draws all k at once. We give each category a waiting time, exponential with
# its weight as the rate, and take the categories that come first. The sample has the same distribution as k draws one
# after the other.


def multinomial(input: Tensor, num_samples: int, replacement: bool = False) -> Tensor:
    """Positions drawn with the probabilities that the rows hold, which need not add up to 1: (n,) -> (k,), (m, n) ->
    (m, k).

    Raises ValueError for negative weights, for rows without any, and if there are fewer categories than draws."""
    if input.ndim not in (1, 2) or input.dtype.kind != "f":
        raise ValueError(f"multinomial takes floats in one or two dimensions, not {input.dtype} of {input.shape}")
    weights = input.numpy().astype(np.float64).reshape(-1, input.shape[-1])
    if not (np.isfinite(weights) & (weights >= 0)).all() or not (weights.sum(1) > 0).all():
        raise ValueError("multinomial: weights are finite numbers of 0 or more, and not all 0 in a row")
    available = np.count_nonzero(weights, axis=1).min(initial=num_samples)
    if num_samples < 1 or (not replacement and available < num_samples):
        raise ValueError(f"multinomial: {num_samples} draws need as many categories; {available} have a weight")
    drawn = _with_replacement(weights, num_samples) if replacement else _first_to_come(weights, num_samples)
    return from_numpy(drawn.astype(int64).reshape(*input.shape[:-1], num_samples))


def _with_replacement(weights, count):
    ends = np.cumsum(weights, axis=1)
    falls = (1 - generator().random((len(weights), count))) * ends[:, -1:]  # never 0, so no weight of 0 is hit
    return np.array([np.searchsorted(row, fall) for row, fall in zip(ends, falls)]).reshape(len(weights), count)


def _first_to_come(weights, count):
    with np.errstate(divide="ignore"):
        times = generator().standard_exponential(weights.shape) / weights
    return np.argsort(times, axis=1)[:, :count]


# ## About tensors


def as_tensor(data: Any, dtype=None) -> Tensor:
    """A tensor of the data: a tensor of that dtype as it is, an array without copying, anything else by `tensor`."""
    if isinstance(data, Tensor):
        return data if dtype is None else data.to(dtype)
    if isinstance(data, np.ndarray) and data.dtype.kind in "fiub" and data.dtype.isnative:
        return from_numpy(data if dtype is None else data.astype(resolve_dtype(dtype), copy=False))
    return tensor(data, dtype)


asarray = as_tensor


def clone(input: Tensor) -> Tensor:
    """A copy, through which gradients flow."""
    return input.clone()


def numel(input: Tensor) -> int:
    """The number of elements."""
    return input.numel()


# PyTorch asks these questions by functions.


def is_tensor(obj: Any) -> bool:
    """Whether it is a Tensor."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> bool:
    """Whether it holds floats."""
    return input.dtype.kind == "f"


def is_nonzero(input: Tensor) -> bool:
    """Whether the one element of the tensor is not zero."""
    return bool(input.item() != 0)


def result_type(tensor1: Any, tensor2: Any) -> np.dtype:
    """The dtype of tensor1 + tensor2; numbers give way to tensors of their kind."""
    pair = (tensor1, tensor2)
    if not any(isinstance(v, Tensor) for v in pair):
        return common_dtype(*map(tensor, pair))
    like = next(v for v in pair if isinstance(v, Tensor))
    return common_dtype(*(v if isinstance(v, Tensor) else _beside(v, like) for v in pair))


def _beside(value: float, like: Tensor) -> Tensor:
    number = tensor(value)
    return number.to(like.dtype) if number.dtype.kind == "f" and like.dtype.kind == "f" else number


def promote_types(type1: Any, type2: Any) -> np.dtype:
    """The dtype in which tensors of two dtypes meet."""
    return common_dtype(*(from_numpy(np.zeros(1, resolve_dtype(kind))) for kind in (type1, type2)))


def can_cast(from_: Any, to: Any) -> bool:
    """May the first dtype become the second without changing its kind: floats no integers, integers no truth values?"""
    rank = {"b": 0, "u": 1, "i": 1, "f": 2}
    return rank[resolve_dtype(from_).kind] <= rank[resolve_dtype(to).kind]


finfo, iinfo = np.finfo, np.iinfo

__all__ = [
    "as_tensor", "asarray", "bernoulli", "can_cast", "clone", "finfo", "iinfo", "is_floating_point", "is_nonzero",
    "is_tensor", "multinomial", "normal", "numel", "poisson", "promote_types", "result_type",
]
