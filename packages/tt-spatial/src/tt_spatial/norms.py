# # Norms
#
# An appendix of chapter 09: the gradient of batch normalization in blocks, and the layers that normalize
# vectors and single examples.

from __future__ import annotations

import math

import numpy as np

import tt_tensor as tt
from tt_autograd import rule
from tt_spatial.spatial import BatchNorm, _as_rows, _by_channel, _floating, _from_rows, _in_blocks, _wide
from tt_tensor import Module, Parameter, Tensor, as_rows, primitive

# ## Batch normalization, backward
#
# The formula of the chapter needs two sums for each channel. Once they are there, the share of `x` is $a g + b (x -
# \mu) + c$ with three numbers a channel, and one pass over the numbers.


def two_sums(g: np.ndarray, x: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each channel of g and x (N, C, ...) the sum of g, and that of g * (x - mean), in float64."""
    (g_rows, times), (x_rows, _) = _as_rows(g), _as_rows(x)
    mean, of_g, of_product = np.tile(mean, times), np.zeros(g_rows.shape[1]), np.zeros(g_rows.shape[1])
    for g_block, x_block in _in_blocks(g_rows, x_rows):
        long, product = g_block.astype(np.float64), x_block - mean
        product *= long
        of_g += long.sum(0)
        of_product += product.sum(0)
    return _by_channel(of_g, times), _by_channel(of_product, times)


def share_in_blocks(g, x, weight, mean, var, eps) -> np.ndarray:
    """The share of x in its normalization, `normal_share` of the chapter, on arrays whose moments are given."""
    (g_rows, times), (x_rows, _) = _as_rows(g), _as_rows(x)
    slope, count, wide = 1 / np.sqrt(var + eps), x.size // x.shape[1], _wide(x.dtype)
    of_g, of_product = two_sums(g, x, mean)
    a = weight * slope
    b = -a * slope * slope * of_product / count
    c = -a * of_g / count
    a, b, c, mean = (np.tile(v, times).astype(wide) for v in (a, b, c, mean))
    share = np.empty(g_rows.shape, wide)
    for g_block, x_block, result in _in_blocks(g_rows, x_rows, share):
        np.subtract(x_block, mean, out=result)
        result *= b
        result += c
        result += g_block * a
    return _from_rows(share.astype(g.dtype, copy=False), x.shape)


# The weight has met the normalized numbers, so its share is the sum of `g` times these.


def weight_share(g, x, mean, var, eps):
    """The share of the weight, (C,), on arrays or on tensors."""
    if isinstance(g, np.ndarray):
        return (two_sums(g, x, mean)[1] / np.sqrt(var + eps)).astype(g.dtype)
    dims, dtype, g, x = (0, *range(2, x.ndim)), x.dtype, g.double(), x.double()
    centred = x - tt.mean(x, dims, keepdim=True)
    slope = (tt.mean(centred * centred, dims, keepdim=True) + eps) ** -0.5
    return tt.sum(g * centred * slope, dim=dims).to(dtype)


class BatchNorm1d(BatchNorm):
    """Batch normalization of vectors (N, num_features) or series (N, num_features, L), as torch.nn.BatchNorm1d."""

    dims = (2, 3)


# ## Normalizing one example
#
# Batch normalization ties the examples of a batch together. The others normalize each example for itself: over its last
# dimensions (layer), or over groups of its channels. They behave alike in training and evaluation. What they have in
# common is that rows are brought to mean 0 and variance 1.
#
# The moments are computed in `float64`, whatever comes in. The square of 300 is no longer a number in `float16`, and
# neither is that of $10^{20}$ in `float32`; and a row of equal numbers must give exactly 0, so its mean must be exactly
# that number. On arrays we work in place; on tensors, for the derivative of a derivative, it is the formula.


def _float64(x):
    return x.astype(np.float64) if isinstance(x, np.ndarray) else x.double()


def _normal(x, eps):
    """(x - mean) / sqrt(variance + eps) of the rows of x (..., n), and the factor, (..., 1), in float64."""
    x = _float64(x)
    if not isinstance(x, np.ndarray):
        centred = x - tt.mean(x, -1, keepdim=True)
        slope = (tt.mean(centred * centred, -1, keepdim=True) + eps) ** -0.5
        return centred * slope, slope
    x -= x.mean(-1, keepdims=True)
    slope = 1 / np.sqrt(np.vecdot(x, x) / x.shape[-1] + eps)[..., None]
    x *= slope
    return x, slope


# What arrives for the normal numbers can neither move the mean of a row nor change its variance. So both parts that
# would are taken out: the mean of `g`, and its projection on the row itself.


def _rows_share(g, normal, slope):
    g = _float64(g)
    if not isinstance(g, np.ndarray):
        return slope * (g - tt.mean(g, -1, keepdim=True) - normal * tt.mean(g * normal, -1, keepdim=True))
    normal *= (np.vecdot(g, normal) / -g.shape[-1])[..., None]
    normal += g
    normal -= g.mean(-1, keepdims=True)
    normal *= slope
    return normal


# Many passes, so blocks: what is made of a few rows stays in the cache until it is done, and then becomes as narrow as
# it was.


def _by_rows(work, *arrays):
    """work(*blocks) for blocks of rows of arrays that have one shape, put together in the shape and dtype of the last.
    Tensors are worked on as a whole."""
    last = arrays[-1]
    if not isinstance(last, np.ndarray):
        return work(*arrays).to(last.dtype)
    out = np.empty(last.shape, last.dtype)
    for *blocks, result in _in_blocks(*map(as_rows, arrays), as_rows(out)) if last.size else ():
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

    return _by_rows(scaled, x)


def _sum_of_rows(g):
    return tt.sum(as_rows(g), dim=0)


def _weight_share(g, x, eps):
    if not isinstance(g, np.ndarray):
        return _sum_of_rows(g.double() * _normal(x, eps)[0])
    total = np.zeros(x.shape[-1])
    for g_block, x_block in _in_blocks(as_rows(g), as_rows(x)) if x.size else ():
        normal, _ = _normal(x_block, eps)
        normal *= g_block
        total += normal.sum(0)
    return total


rule(
    normalize_scaled,
    lambda g, out, x, weight, bias, eps: _by_rows(lambda g, x: _rows_share(g * weight, *_normal(x, eps)), g, x),
    lambda g, out, x, weight, bias, eps: _weight_share(g, x, eps),
    lambda g, out, x, weight, bias, eps: _sum_of_rows(g),
)


def refuse_wider(name: str, x: Tensor, *vectors: Tensor | None) -> None:
    """TypeError for vectors that are wider than x, which would widen or be cut; beside float16 they may be float32."""
    fitting = _wide(x.dtype) if x.dtype.kind == "f" else np.dtype(np.float32)
    wider = {str(v.dtype) for v in vectors if v is not None and np.result_type(v.dtype, fitting) != fitting}
    if wider:
        raise TypeError(
            f"{name}: an input of {x.dtype} with weights or running moments of {', '.join(sorted(wider))}; convert one "
            "of them, for example with .float()"
        )


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
    x = _floating(x)
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
    x = _floating(x)
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
