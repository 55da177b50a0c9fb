# # Norms
#
# An appendix of chapter 09: batch normalization of vectors and series, and the layers that normalize single examples.

from __future__ import annotations

import math
from typing import Any

import numpy as np

import tt_tensor as tt
from tt_autograd import rule
from tt_spatial.common import as_dtype, floating, refuse_wider, wide
from tt_spatial.spatial import BatchNorm, normal_share, normalized
from tt_tensor import Module, Parameter, Tensor, as_rows, primitive


class BatchNorm1d(BatchNorm):
    """Batch normalization of vectors (N, num_features) or series (N, num_features, L), as torch.nn.BatchNorm1d."""

    dims = (2, 3)


# ## Normalizing one example
#
# Batch normalization ties the examples of a batch together. The others normalize each example for itself: over its last
# dimensions (layer), or over groups of its channels. They behave alike in training and evaluation. What they have in
# common is that rows are brought to mean 0 and variance 1.
#
# Mean, variance and the normalized numbers are computed in `float64`, whatever comes in. The square of 300 is not a
# number in `float16`, and neither is that of $10^{20}$ in `float32`; and a row of equal numbers must give exactly 0, so
# its mean must be exactly that number. What is normalized is small, and becomes as narrow as it was.


def _normal(x, eps) -> tuple[Any, Any]:
    with tt.quiet():  # the mean of an empty row is nan
        normal, slope = normalized(as_dtype(x, np.float64), -1, eps)
    return as_dtype(normal, wide(x.dtype)), as_dtype(slope, wide(x.dtype))


@primitive(cost=lambda out, x, eps: 4 * out.size)
def normalize_rows(x, /, eps):
    """(x - mean) / sqrt(variance + eps) along the last dimension."""
    return as_dtype(_normal(x, eps)[0], x.dtype)


def _rows_share(g, out, x, eps):
    normal, slope = _normal(x, eps)
    return as_dtype(normal_share(as_dtype(g, normal.dtype), normal, slope, -1), x.dtype)


rule(normalize_rows, _rows_share)

# A transformer normalizes twice in each block, and scales and shifts every time. As one operation that needs nothing
# for the way back but its input, which the stream keeps anyway; the normalized numbers are computed again.


@primitive(cost=lambda out, x, weight, bias, eps: 6 * out.size)
def normalize_scaled(x, weight, bias, /, eps):
    """normalize_rows(x) * weight + bias for x (..., n), weight and bias (n,)."""
    return as_dtype(_normal(x, eps)[0] * weight + bias, x.dtype)


def _scaled_shares(needed, g, out, x, weight, bias, eps):
    normal, slope = _normal(x, eps)
    g = as_dtype(g, normal.dtype)
    of_x = normal_share(g * weight, normal, slope, -1)
    of_weight, of_bias = tt.sum(as_rows(g * normal), dim=0), tt.sum(as_rows(g), dim=0)
    return as_dtype(of_x, x.dtype), as_dtype(of_weight, weight.dtype), as_dtype(of_bias, bias.dtype)


rule(normalize_scaled, together=_scaled_shares)


def _shape_of(normalized_shape) -> tuple[int, ...]:
    shape = tuple(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    if not shape or not all(isinstance(n, (int, np.integer)) and n >= 0 for n in shape):
        raise ValueError(f"normalized_shape is the sizes of the last dimensions, integers; it is {normalized_shape!r}")
    return tuple(map(int, shape))


def layer_norm(
    x: Tensor, normalized_shape, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """x normalized over its last dimensions, which are `normalized_shape`, then scaled and shifted. As
    torch.nn.functional.layer_norm."""
    shape = _shape_of(normalized_shape) if normalized_shape != () else ()
    if not shape or tuple(x.shape[-len(shape) :]) != shape:
        raise ValueError(f"layer_norm over {shape} does not fit an input of shape {x.shape}")
    if any(vector is not None and vector.shape != shape for vector in (weight, bias)):
        raise ValueError(f"layer_norm over {shape}: weight and bias must have that shape, too")
    x = floating(x)
    refuse_wider("layer_norm", x, weight, bias)
    if len(shape) > 1:
        rows, n = math.prod(x.shape[: -len(shape)]), math.prod(shape)
        flat = [None if vector is None else vector.reshape(n) for vector in (weight, bias)]
        return layer_norm(x.reshape(rows, n), n, flat[0], flat[1], eps).reshape(x.shape)
    if weight is not None and bias is not None:
        return normalize_scaled(x, weight, bias, eps=eps)
    normal = normalize_rows(x, eps=eps)
    normal = normal if weight is None else (normal * weight).to(x.dtype)
    return normal if bias is None else (normal + bias).to(x.dtype)


class LayerNorm(Module):
    """layer_norm with weight and bias of the normalized shape; as torch.nn.LayerNorm."""

    def __init__(self, normalized_shape, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True):
        super().__init__()
        self.normalized_shape = _shape_of(normalized_shape)
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
    if x.ndim < 2 or not _divides(num_groups, x.shape[1]):
        raise ValueError(f"group_norm: {num_groups} groups do not divide the channels of an input of shape {x.shape}")
    examples, channels = x.shape[:2]
    if any(vector is not None and vector.shape != (channels,) for vector in (weight, bias)):
        raise ValueError(f"group_norm: weight and bias must be ({channels},) for an input of shape {x.shape}")
    if x.numel() == num_groups:
        raise ValueError(f"group_norm: one value a group, in a batch of shape {x.shape}, has no variance")
    x = floating(x)
    refuse_wider("group_norm", x, weight, bias)
    rows = (examples * num_groups, math.prod(x.shape[1:]) // num_groups)
    normal = normalize_rows(x.reshape(rows), eps=eps).reshape(x.shape)
    by_channel = (1, channels) + (1,) * (x.ndim - 2)
    normal = normal if weight is None else (normal * weight.reshape(by_channel)).to(x.dtype)
    return normal if bias is None else (normal + bias.reshape(by_channel)).to(x.dtype)


def _divides(num_groups, channels):
    return isinstance(num_groups, (int, np.integer)) and num_groups > 0 and channels % num_groups == 0


class GroupNorm(Module):
    """group_norm with weight and bias (num_channels,); as torch.nn.GroupNorm."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True):
        super().__init__()
        if not isinstance(num_channels, (int, np.integer)) or not _divides(num_groups, num_channels):
            raise ValueError(f"{num_groups} groups do not divide {num_channels} channels")
        self.num_groups, self.eps = num_groups, eps
        self.weight = Parameter(tt.ones(num_channels)) if affine else None
        self.bias = Parameter(tt.zeros(num_channels)) if affine else None

    def forward(self, x):
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return f"{self.num_groups} groups"


__all__ = ["BatchNorm1d", "GroupNorm", "LayerNorm", "group_norm", "layer_norm", "normalize_rows", "normalize_scaled"]
