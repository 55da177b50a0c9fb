# # Norms
#
# An appendix of chapter 09: the gradient of batch normalization in blocks, and the layers that normalize
# vectors and single examples.

from __future__ import annotations

import math

import numpy as np

import tt_tensor as tt
from tt_autograd import rule
from tt_spatial.spatial import BatchNorm, _as_rows, _by_channel, _floating, _from_rows, _in_blocks
from tt_tensor import Module, Parameter, Tensor, as_rows, primitive

# ## Batch normalization, backward
#
# The formula of the chapter needs two sums for each channel. Once they are there, the share of `x` is $a g + b x + c$
# with three numbers a channel, and one pass over the numbers.


def two_sums(g: np.ndarray, x: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each channel of g and x (N, C, ...) the sum of g, and that of g * (x - mean)."""
    (g_rows, times), (x_rows, _) = _as_rows(g), _as_rows(x)
    ones, long_mean = np.ones(len(g_rows), g.dtype), np.tile(mean, times)
    of_g = of_product = np.zeros(g_rows.shape[1], g.dtype)
    for g_block, x_block in _in_blocks(g_rows, x_rows):
        product = x_block - long_mean
        product *= g_block
        of_g = of_g + ones[: len(g_block)] @ g_block
        of_product = of_product + ones[: len(g_block)] @ product
    return _by_channel(of_g, times), _by_channel(of_product, times)


def share_in_blocks(g, x, weight, mean, var, eps) -> np.ndarray:
    """The share of x in its normalization, `normal_share` of the chapter, on arrays whose moments are given."""
    (g_rows, times), (x_rows, _) = _as_rows(g), _as_rows(x)
    slope, count = 1 / np.sqrt(var + eps), x.size // x.shape[1]
    of_g, of_product = two_sums(g, x, mean)
    a = weight * slope
    b = -a * slope * slope * of_product / count
    c = -a * of_g / count - b * mean
    a, b, c = (np.tile(v, times) for v in (a, b, c))
    share = np.empty(g_rows.shape, g.dtype)
    for g_block, x_block, result in _in_blocks(g_rows, x_rows, share):
        np.multiply(x_block, b, out=result)
        result += c
        result += g_block * a
    return _from_rows(share, x.shape)


# The weight has met the normalized numbers, so its share is the sum of `g` times these.


def weight_share(g, x, mean, var, eps):
    """The share of the weight, (C,), on arrays or on tensors."""
    if isinstance(g, np.ndarray):
        return two_sums(g, x, mean)[1] / np.sqrt(var + eps)
    dims = (0, *range(2, x.ndim))
    centred = x - tt.mean(x, dims, keepdim=True)
    slope = (tt.mean(centred * centred, dims, keepdim=True) + eps) ** -0.5
    return tt.sum(g * centred * slope, dim=dims)


class BatchNorm1d(BatchNorm):
    """Batch normalization of vectors (N, num_features) or series (N, num_features, L), as torch.nn.BatchNorm1d."""

    dims = (2, 3)


# ## Normalizing one example
#
# Batch normalization ties the examples of a batch together. The others normalize each example for itself: over its last
# dimensions (layer), or over groups of its channels. They behave alike in training and evaluation. What they have in
# common is that rows are brought to mean 0 and variance 1. On arrays that is two products with a vector and two passes;
# on tensors, when somebody wants the derivative of a derivative, it is the formula.


def _normal(x, eps):
    """(x - mean) / sqrt(variance + eps) of the rows of x (..., n), and the factor, (..., 1)."""
    if not isinstance(x, np.ndarray):
        centred = x - tt.mean(x, -1, keepdim=True)
        slope = (tt.mean(centred * centred, -1, keepdim=True) + eps) ** -0.5
        return centred * slope, slope
    n = x.shape[-1]
    normal = x - (x @ np.full(n, 1 / n, x.dtype))[..., None]
    slope = (1 / np.sqrt(np.vecdot(normal, normal) / n + eps))[..., None].astype(x.dtype, copy=False)
    normal *= slope
    return normal, slope


# What arrives for the normal numbers can neither move the mean of a row nor change its variance. So both parts that
# would are taken out: the mean of `g`, and its projection on the row itself.


def _rows_share(g, normal, slope):
    if not isinstance(g, np.ndarray):
        return slope * (g - tt.mean(g, -1, keepdim=True) - normal * tt.mean(g * normal, -1, keepdim=True))
    n = g.shape[-1]
    share = normal * (np.vecdot(g, normal) / -n)[..., None]
    share += g
    share -= (g @ np.full(n, 1 / n, g.dtype))[..., None]
    share *= slope
    return share


# Many passes, so blocks: what is made of a few rows stays in the cache until it is done.


def _by_rows(work, *arrays):
    """work(*blocks) for blocks of rows of arrays that have one shape, put together in that shape. Tensors are worked on
    as a whole."""
    if not isinstance(arrays[0], np.ndarray):
        return work(*arrays)
    out = np.empty(arrays[0].shape, arrays[0].dtype)
    for *blocks, result in _in_blocks(*map(as_rows, arrays), as_rows(out)):
        result[...] = work(*blocks)
    return out


@primitive(cost=lambda out, x, eps: 4 * out.size)
def normalize_rows(x, /, eps):
    """(x - mean) / sqrt(variance + eps) along the last dimension."""
    return _by_rows(lambda x: _normal(x, eps)[0], x)


rule(normalize_rows, lambda g, out, x, eps: _by_rows(lambda g, x: _rows_share(g, *_normal(x, eps)), g, x))

# A transformer normalizes twice in each block, and scales and shifts every time. As one operation that needs nothing
# for the way back but its input, which the stream keeps anyway; the normal numbers are made again.


@primitive(cost=lambda out, x, weight, bias, eps: 6 * out.size)
def normalize_scaled(x, weight, bias, /, eps):
    """normalize_rows(x) * weight + bias for x (..., n), weight and bias (n,)."""

    def scaled(x):
        normal, _ = _normal(x, eps)
        normal *= weight
        normal += bias
        return normal

    return _by_rows(scaled, x.astype(np.result_type(x, weight, bias), copy=False))


def _weight_share(g, x, eps):
    if not isinstance(g, np.ndarray):
        return _sum_of_rows(g * _normal(x, eps)[0])
    return sum(_sum_of_rows(g * _normal(x, eps)[0]) for g, x in _in_blocks(as_rows(g), as_rows(x)))


def _sum_of_rows(g):
    rows = as_rows(g)
    return np.ones(len(rows), g.dtype) @ rows


rule(
    normalize_scaled,
    lambda g, out, x, weight, bias, eps: _by_rows(lambda g, x: _rows_share(g * weight, *_normal(x, eps)), g, x),
    lambda g, out, x, weight, bias, eps: _weight_share(g, x, eps),
    lambda g, out, x, weight, bias, eps: _sum_of_rows(g),
)


def layer_norm(
    x: Tensor, normalized_shape, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """x normalized over its last dimensions, which are `normalized_shape`, then scaled and shifted. As
    torch.nn.functional.layer_norm."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or tuple(x.shape[-len(shape) :]) != shape:
        raise ValueError(f"layer_norm over {shape} does not fit an input of shape {x.shape}")
    if any(vector is not None and vector.shape != shape for vector in (weight, bias)):
        raise ValueError(f"layer_norm over {shape}: weight and bias are to have that shape, too")
    if len(shape) > 1:
        n, flat = math.prod(shape), [None if vector is None else vector.reshape(-1) for vector in (weight, bias)]
        return layer_norm(x.reshape(-1, n), n, flat[0], flat[1], eps).reshape(x.shape)
    if weight is not None and bias is not None:
        return normalize_scaled(_floating(x), weight, bias, eps=eps)
    normal = normalize_rows(_floating(x), eps=eps)
    normal = normal if weight is None else normal * weight
    return normal if bias is None else normal + bias


class LayerNorm(Module):
    """layer_norm with weight and bias of the normalized shape; as torch.nn.LayerNorm."""

    def __init__(self, normalized_shape, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True):
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.weight = Parameter(tt.ones(*self.normalized_shape)) if elementwise_affine else None
        self.bias = Parameter(tt.zeros(*self.normalized_shape)) if elementwise_affine and bias else None

    def forward(self, x):
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return str(self.normalized_shape)


def group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """x (N, C, ...) normalized over each example's groups of C / num_groups channels, then scaled and shifted by
    channel. As torch.nn.functional.group_norm."""
    if x.ndim < 2 or num_groups < 1 or x.shape[1] % num_groups:
        raise ValueError(f"group_norm: {num_groups} groups do not divide the channels of an input of shape {x.shape}")
    if any(vector is not None and vector.shape != (x.shape[1],) for vector in (weight, bias)):
        raise ValueError(f"group_norm: weight and bias are to be ({x.shape[1]},) for an input of shape {x.shape}")
    normal = normalize_rows(_floating(x).reshape(x.shape[0] * num_groups, -1), eps=eps).reshape(x.shape)
    by_channel = (1, x.shape[1]) + (1,) * (x.ndim - 2)
    normal = normal if weight is None else normal * weight.reshape(by_channel)
    return normal if bias is None else normal + bias.reshape(by_channel)


class GroupNorm(Module):
    """group_norm with weight and bias (num_channels,); as torch.nn.GroupNorm."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True):
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"{num_groups} groups do not divide {num_channels} channels")
        self.num_groups, self.eps = num_groups, eps
        self.weight = Parameter(tt.ones(num_channels)) if affine else None
        self.bias = Parameter(tt.zeros(num_channels)) if affine else None

    def forward(self, x):
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return f"{self.num_groups} groups"


__all__ = ["BatchNorm1d", "GroupNorm", "LayerNorm", "group_norm", "layer_norm", "normalize_rows", "normalize_scaled"]
