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
from tt_tensor import Module, Parameter, Tensor, primitive

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
# dimensions (layer), or over groups of its channels. They behave alike in training and evaluation. One primitive brings
# the rows of a matrix to mean 0 and variance 1; its gradient needs no more than its result.


@primitive(cost=lambda out, x, eps: 4 * out.size)
def normalize_rows(x, /, eps):
    """(x - mean) / sqrt(variance + eps) along the last dimension."""
    n = x.shape[-1]
    out = x - (x @ np.full(n, 1 / n, x.dtype))[..., None]
    out *= (1 / np.sqrt(np.vecdot(out, out) / n + eps))[..., None].astype(x.dtype, copy=False)
    return out


def _rows_share(g, out, x, eps):
    centred = x - tt.mean(x, -1, keepdim=True)
    slope = (tt.mean(centred * centred, -1, keepdim=True) + eps) ** -0.5
    normal = centred * slope
    return slope * (g - tt.mean(g, -1, keepdim=True) - normal * tt.mean(g * normal, -1, keepdim=True))


def _rows_share_on_arrays(g, out, x, eps):
    n = x.shape[-1]
    weights, share = np.full(n, 1 / n, g.dtype), out * (np.vecdot(g, out) / -n)[..., None]
    share += g
    share -= (g @ weights)[..., None]
    centred = x - (x @ weights)[..., None]
    share *= (1 / np.sqrt(np.vecdot(centred, centred) / n + eps))[..., None].astype(g.dtype, copy=False)
    return share


rule(
    normalize_rows,
    lambda g, out, x, eps: (_rows_share_on_arrays if isinstance(g, np.ndarray) else _rows_share)(g, out, x, eps),
)


def layer_norm(
    x: Tensor, normalized_shape, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """x normalized over its last dimensions, which are `normalized_shape`, then scaled and shifted. As
    torch.nn.functional.layer_norm."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or tuple(x.shape[-len(shape) :]) != shape:
        raise ValueError(f"layer_norm over {shape} does not fit an input of shape {x.shape}")
    normal = normalize_rows(_floating(x).reshape(-1, math.prod(shape)), eps=eps).reshape(x.shape)
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


__all__ = ["BatchNorm1d", "GroupNorm", "LayerNorm", "group_norm", "layer_norm", "normalize_rows"]
