# # Norms
#
# An appendix of chapter 09, and nearly a chapter: layers that bring the activations of a network to mean 0 and variance
# 1. Batch normalization does so for each channel over a batch, layer and group normalization for each example by
# itself.

# ## The hurt
#
# Deeper networks have the problem that we saw in chapter 04: from layer to layer the activations grow or shrink. And
# while the network learns, every layer must follow the changes of the ones before it. We build eight layers of
# convolutions whose weights are half as large as they should be, so that the activations fade from layer to layer.

from __future__ import annotations

import math
from typing import Any

import numpy as np

import tt_tensor as tt
from tt_autograd import Batches, accuracy, check_gradients, fit, rule
from tt_optim import Adam
from tt_spatial.common import as_dtype, by_channel, channel_sums, channels_of, floating, refuse_wider, wide
from tt_spatial.pictures import framed_digits
from tt_spatial.spatial import Conv2d
from tt_tensor import Linear, Module, Parameter, Tensor, as_rows, cross_entropy, primitive, slot


def deep_reader(norm: bool) -> Module:
    """Eight convolutions of 8 channels, badly initialized, with or without batch normalization."""
    layers: list[Module] = []
    for channels in (1, *[8] * 7):
        layers += [Conv2d(channels, 8, 3, padding=1), *([BatchNorm2d(8)] if norm else []), tt.ReLU()]
    network = tt.Sequential(*layers, tt.Flatten(), Linear(8 * 100, 10))
    for layer in network.modules():
        if isinstance(layer, Conv2d):
            layer.weight.copy_(layer.weight.numpy() * 0.5)
    return network


# We give it three epochs on the digits of the chapter, with a learning rate that suits small networks.


def learn(norm: bool) -> None:
    """Train a deep reader and print which share of held-out digits it reads after each epoch."""
    data, held_out = framed_digits(10)
    tt.manual_seed(0)
    model = deep_reader(norm)
    history = fit(
        model, cross_entropy, Adam(model.parameters(), lr=2e-3), Batches(*data, batch_size=64, shuffle=True), epochs=3,
        validation=Batches(*held_out, batch_size=359), metrics=[accuracy], progress=False,
    )
    print("digits read after each of three epochs:", *(f"{share:6.1%}" for share in history["val_accuracy"]))


def show_without():
    learn(norm=False)


# The network is guessing, and three epochs have changed nothing.

# ## The idea
#
# *Batch normalization* (Ioffe and Szegedy, 2015) brings each channel to mean 0 and variance 1, over all images of the
# batch and all positions. Then it gives the channel a scale $\gamma$ and a shift $\beta$, which we learn:
#
# $$ y = \gamma \, \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta $$
#
# In evaluation there may be only one image, and an answer must not depend on what else is in the batch. So during
# training the layer keeps running averages of mean and variance, as *buffers* (chapter 04), and in evaluation it uses
# these.

# ## Batch normalization
#
# First we compute the two moments, in two passes over the elements. (The mean of the squares minus the square of the
# mean needs one pass, and loses all digits when the mean is large.) We compute in `float64` for three reasons: a sum of
# ones in `float32` stops at $2^{24}$, the square of $10^{20}$ overflows there, and the mean of equal elements should be
# exactly that element. The moments are a *slot* of a kernel set and not a primitive, because no gradient passes through
# them: the rule below already contains their part.


def _dims(x):
    return (0, *range(2, x.ndim))


@slot
def channel_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (divided by the number of values) of each channel of an array (N, C, ...), in float64, however
    narrow x is."""
    mean = x.mean(_dims(x), dtype=np.float64)
    centred = x - by_channel(mean, x)
    centred *= centred
    return mean, centred.mean(_dims(x))


def check_channel_moments():
    x = np.random.default_rng(0).normal(3, 2, size=(4, 3, 5, 6))
    mean, var = channel_moments(x)
    assert np.allclose(mean, x.mean((0, 2, 3))) and np.allclose(var, x.var((0, 2, 3)))


# With the moments given, normalizing is a shift and a factor for each channel. We subtract the mean first, because
# otherwise two large numbers would have to cancel.


@primitive(cost=lambda out, *inputs, **moments: 2 * out.size)
def normalize_channels(x, weight, bias, /, mean, var, eps):
    """weight * (x - mean) / sqrt(var + eps) + bias, for each channel of x (N, C, ...), whose own moments are `mean` and
    `var`."""
    vectors = (mean, weight / np.sqrt(var + eps), bias)
    mean, factor, bias = (by_channel(vector, x).astype(wide(x.dtype)) for vector in vectors)
    return ((x - mean) * factor + bias).astype(x.dtype, copy=False)


# The gradient is not just $\gamma / \sigma$, because the moments depend on $x$ as well: if one element rises, the mean
# rises a little, and all the others are lowered. Let us derive it for one channel, with its $n$ elements $x_1, \dots,
# x_n$. We write $s = \sqrt{\sigma^2 + \epsilon}$, and $\hat x_i = (x_i - \mu) / s$ for the normalized elements. First
# we need the derivatives of the moments. The mean is simple, and for $s$ we use that the deviations $x_i - \mu$ add up
# to 0:
#
# $$ \frac{\partial \mu}{\partial x_k} = \frac{1}{n}, \qquad
# \frac{\partial s}{\partial x_k} = \frac{1}{2 s} \frac{\partial \sigma^2}{\partial x_k}
# = \frac{1}{2 s} \cdot \frac{2}{n} (x_k - \mu) = \frac{\hat x_k}{n} . $$
#
# Now the quotient rule gives the derivative of each normalized element with respect to each input, where $\delta_{ik}$
# is 1 if $i = k$, and 0 otherwise:
#
# $$ \frac{\partial \hat x_i}{\partial x_k}
# = \frac{1}{s} \left( \delta_{ik} - \frac{\partial \mu}{\partial x_k} \right)
# - \frac{x_i - \mu}{s^2} \, \frac{\partial s}{\partial x_k}
# = \frac{1}{s} \left( \delta_{ik} - \frac{1}{n} - \frac{\hat x_i \hat x_k}{n} \right) . $$
#
# Let $h = \gamma g$ be the gradient at the normalized elements. The gradient at the inputs is a vector-Jacobian
# product, the sum over $i$, in which two sums become means:
#
# $$ \bar x_k = \sum_i h_i \, \frac{\partial \hat x_i}{\partial x_k}
# = \frac{1}{s} \bigl( h_k - \operatorname{mean}(h) - \hat x_k \operatorname{mean}(h \hat x) \bigr) . $$
#
# You can read the result as geometry. Only that part of the gradient survives which neither shifts nor scales the
# elements, because the layer undoes shifting and scaling. We write the formula with operators that work on arrays and
# on tensors, so it serves an ordinary backward pass and the derivative of a derivative alike.


def normal_gradient(h, normal, slope, dims):
    """The gradient of x by the formula, if h is the gradient of the normalized elements `normal` = slope * (x - mean)
    over the dimensions `dims`. On arrays or on tensors."""
    return slope * (h - tt.mean(h, dims, keepdim=True) - normal * tt.mean(h * normal, dims, keepdim=True))


def normalized(x, dims, eps):
    """x with mean 0 and variance 1 over the dimensions `dims`, and the factor that scaled it; on arrays or tensors."""
    centred = x - tt.mean(x, dims, keepdim=True)
    slope = (tt.mean(centred * centred, dims, keepdim=True) + eps) ** -0.5
    return centred * slope, slope


# The formula must agree with the whole matrix of derivatives that we derived, and that matrix with a finite difference.


def check_the_derivation():
    x, h = np.random.default_rng(0).normal(size=(2, 5))
    normal, slope = normalized(x, 0, 1e-5)
    jacobian = slope * (np.eye(5) - 1 / 5 - np.outer(normal, normal) / 5)
    steps = [(normalized(x + d, 0, 1e-5)[0] - normalized(x - d, 0, 1e-5)[0]) / 2e-6 for d in np.eye(5) * 1e-6]
    assert np.allclose(jacobian, np.transpose(steps), atol=1e-8)
    assert np.allclose(normal_gradient(h, normal, slope, 0), h @ jacobian)


# The weight met the normalized elements, so its gradient is the sum of `g` times these; the bias receives the sum of
# `g`. All three gradients use the normalized elements, so the table's row is one function for all inputs. An ordinary
# backward pass computes them from the moments that are there. Only for the derivative of a derivative must the moments
# depend on x, as tensors.


def _normalization_gradients(needed, g, out, x, weight, bias, mean, var, eps):
    if isinstance(x, np.ndarray):
        mean, slope = (by_channel(v, x) for v in (mean, 1 / np.sqrt(var + eps)))
        normal, slope, g = (v.astype(wide(x.dtype), copy=False) for v in ((x - mean) * slope, slope, g))
    else:
        (normal, slope), g = normalized(x.double(), _dims(x), eps), g.double()
    of_x = normal_gradient(g * by_channel(weight, x), normal, slope, _dims(x))
    return as_dtype(of_x, x.dtype), as_dtype(channel_sums(g * normal), weight.dtype), channel_sums(g)


rule(normalize_channels, together=_normalization_gradients)


def check_gradients_of_batch_norm():
    random = np.random.default_rng(0)
    x, weight, bias = (Tensor(random.normal(size=s), requires_grad=True) for s in ((3, 2, 2, 2), (2,), (2,)))
    check_gradients(lambda *t: batch_norm(t[0], None, None, t[1], t[2], training=True) ** 2, x, weight, bias)


# The function decides which moments count. In evaluation they are constants, which do not depend on `x`, so the rule
# above would give a wrong gradient there: we compute with ordinary operations instead.


def _by_constants(x: Tensor, mean, var, weight, bias, eps) -> Tensor:
    centred, factor = x.to(wide(x.dtype)) - by_channel(mean, x), weight * (var + eps) ** -0.5
    return (centred * by_channel(factor, x) + by_channel(bias, x)).to(x.dtype)


# In training the batch's own moments count, and the running averages move towards them. PyTorch's running variance is
# the unbiased one, divided by $n - 1$, although it normalizes the batch with the other; so ours is, too.


def _move(running: Tensor, moment: np.ndarray, momentum: float) -> None:
    running.copy_((1 - momentum) * running.numpy() + momentum * moment)


def batch_norm(
    x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:
    """Normalize each channel of x (N, C, ...): in training by the batch's own moments, which also move the running ones
    (new = (1 - momentum) * old + momentum * batch's), otherwise by the running ones, which must be given then.

    As torch.nn.functional.batch_norm: an empty batch moves nothing. Raises ValueError if the sizes do not fit, or if a
    training batch has only one value a channel."""
    channels, x = channels_of(x, running_mean, running_var, weight, bias), floating(x)
    weight = tt.ones(channels, dtype=x.dtype) if weight is None else weight
    bias = tt.zeros(channels, dtype=x.dtype) if bias is None else bias
    count = x.numel() // max(channels, 1)
    moments = [running is not None for running in (running_mean, running_var)]
    if any(moments) != all(moments) or not (training or any(moments)):
        raise ValueError("batch_norm needs a running mean and a running variance; in training both may be absent")
    if running_mean is not None and running_var is not None and not training:
        return _by_constants(x, running_mean, running_var, weight, bias, eps)
    if not count:
        return (x * by_channel(weight, x) + by_channel(bias, x)).to(x.dtype)
    if count < 2:
        raise ValueError(f"batch_norm cannot learn from one value a channel: a batch of shape {x.shape}")
    mean, var = channel_moments(x.numpy())
    if running_mean is not None and running_var is not None:
        _move(running_mean, mean, momentum)
        _move(running_var, var * (count / (count - 1)), momentum)
    return normalize_channels(x, weight, bias, mean=mean, var=var, eps=eps)


# The module remembers the running averages. Its state has PyTorch's names, including the count of batches.


class BatchNorm(Module):
    """Batch normalization of (N, num_features, ...), whatever comes after the channels."""

    dims: tuple[int, ...] = ()

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device=None, dtype=None, *, bias: bool = True,
    ):
        super().__init__()
        tt.refuse_other_device(device)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(tt.ones(num_features, dtype=dtype)) if affine else None
        self.bias = Parameter(tt.zeros(num_features, dtype=dtype)) if affine and bias else None
        tracked = track_running_stats
        self.register_buffer("running_mean", tt.zeros(num_features, dtype=dtype) if tracked else None)
        self.register_buffer("running_var", tt.ones(num_features, dtype=dtype) if tracked else None)
        self.register_buffer("num_batches_tracked", Tensor(np.array(0)) if tracked else None)

    # As in PyTorch, a layer can be reset; the lazy layers need that, too.

    def reset_running_stats(self) -> None:
        """Set the running mean to 0, the running variance to 1, and the count of batches to 0."""
        for buffer, value in zip(self.buffers(), (0, 1, 0)):
            buffer.fill_(value)

    def reset_parameters(self) -> None:
        """Set the running moments, the weight and the bias to what they were at first."""
        self.reset_running_stats()
        for name, parameter in self.named_parameters():
            parameter.fill_(1 if name == "weight" else 0)

    # In training we count the batch first. Without a momentum, the running averages are the means over all batches.

    def forward(self, x: Tensor) -> Tensor:
        """The input, normalized; in training the running averages move."""
        if x.ndim not in self.dims:
            raise ValueError(f"{type(self).__name__} takes tensors of {self.dims} dimensions; this has shape {x.shape}")
        momentum = self.momentum
        if self.training and self.running_mean is not None:
            self.num_batches_tracked.copy_(self.num_batches_tracked.numpy() + 1)
            momentum = 1 / self.num_batches_tracked.item() if momentum is None else momentum
        by_batch = self.training or self.running_mean is None
        return batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, by_batch, momentum or 0.0, self.eps
        )

    def extra_repr(self):
        return f"{self.num_features}, momentum={self.momentum}"


# Its subclasses say how many dimensions they accept. For images it is four.


class BatchNorm2d(BatchNorm):
    """Batch normalization of images (N, num_features, H, W), as torch.nn.BatchNorm2d."""

    dims = (4,)


def check_batch_norm():
    layer, x = BatchNorm2d(3), tt.randn(8, 3, 5, 5) * 4 + 2
    normal = layer(x).numpy()
    assert np.allclose(normal.mean((0, 2, 3)), 0, atol=1e-5) and np.allclose(normal.std((0, 2, 3)), 1, atol=1e-3)
    assert np.allclose(layer.running_mean.numpy(), 0.1 * x.numpy().mean((0, 2, 3)), atol=1e-5)
    layer.eval()
    assert np.allclose(layer(x[:1]).numpy(), layer(x)[:1].numpy(), atol=1e-5)


# What do we gain? We train the same eight layers, from the same weights, for the same three epochs:


def show_with():
    learn(norm=True)


# After the first epoch the network is still guessing; after the third it reads nearly everything. The only difference
# is that the activations of each layer now have the size that the next one expects.

# ## Errors you will meet
#
# A variance needs two values. A batch of one vector, or of one image of one pixel, has one value for each channel, so
# we refuse it.


def show_errors():
    try:
        BatchNorm2d(3)(tt.zeros(1, 3, 1, 1))
    except ValueError as error:
        print(f"ValueError: {error}")


# ## Vectors and series
#
# The same formula serves vectors and series. Only the number of dimensions that the layer accepts differs.


class BatchNorm1d(BatchNorm):
    """Batch normalization of vectors (N, num_features) or series (N, num_features, L), as torch.nn.BatchNorm1d."""

    dims = (2, 3)


# ## Normalizing one example
#
# Batch normalization ties the examples of a batch together. The other norms treat each example by itself: *layer
# normalization* over its last dimensions, *group normalization* over groups of its channels. They behave alike in
# training and in evaluation. In all of them we bring rows to mean 0 and variance 1.
#
# We compute the mean, the variance and the normalized elements in `float64`, whatever the input's dtype. The square of
# 300 overflows in `float16`, and that of $10^{20}$ in `float32`; and a row of equal elements must give exactly 0, so
# its mean must be exactly that element. The normalized elements are small, so we can safely convert them back.


def _normal(x, eps) -> tuple[Any, Any]:
    with tt.quiet():  # the mean of an empty row is nan
        normal, slope = normalized(as_dtype(x, np.float64), -1, eps)
    return as_dtype(normal, wide(x.dtype)), as_dtype(slope, wide(x.dtype))


@primitive(cost=lambda out, x, eps: 4 * out.size)
def normalize_rows(x, /, eps):
    """Rows (..., n) as (x - mean) / sqrt(variance + eps), along the last dimension."""
    return as_dtype(_normal(x, eps)[0], x.dtype)


def _rows_gradient(g, out, x, eps):
    normal, slope = _normal(x, eps)
    return as_dtype(normal_gradient(as_dtype(g, normal.dtype), normal, slope, -1), x.dtype)


rule(normalize_rows, _rows_gradient)

# A transformer normalizes twice in each block, and scales and shifts every time. So we add a primitive that does both
# at once. For the backward pass it needs only its input, which is kept anyway; it computes the normalized elements
# again.


@primitive(cost=lambda out, x, weight, bias, eps: 6 * out.size)
def normalize_scaled(x, weight, bias, /, eps):
    """normalize_rows(x) * weight + bias for x (..., n), weight and bias (n,)."""
    return as_dtype(_normal(x, eps)[0] * weight + bias, x.dtype)


def _scaled_gradients(needed, g, out, x, weight, bias, eps):
    normal, slope = _normal(x, eps)
    g = as_dtype(g, normal.dtype)
    of_x = normal_gradient(g * weight, normal, slope, -1)
    of_weight, of_bias = tt.sum(as_rows(g * normal), dim=0), tt.sum(as_rows(g), dim=0)
    return as_dtype(of_x, x.dtype), as_dtype(of_weight, weight.dtype), as_dtype(of_bias, bias.dtype)


rule(normalize_scaled, together=_scaled_gradients)

# The public function checks its arguments first. It turns several normalized dimensions into one, because a row is a
# row.


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


# Chapter 14 puts this layer in front of each half of a block.


class LayerNorm(Module):
    """layer_norm with weight and bias of the normalized shape; as torch.nn.LayerNorm."""

    def __init__(
        self, normalized_shape, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True, device=None,
        dtype=None,
    ):
        super().__init__()
        tt.refuse_other_device(device)
        self.normalized_shape = _shape_of(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        shape = self.normalized_shape
        self.weight = Parameter(tt.ones(*shape, dtype=dtype)) if elementwise_affine else None
        self.bias = Parameter(tt.zeros(*shape, dtype=dtype)) if elementwise_affine and bias else None

    def forward(self, x):
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return str(self.normalized_shape)


# ## Groups of channels
#
# Group normalization cuts the channels of each example into groups, and each group is a row.


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
    normal = normal if weight is None else (normal * by_channel(weight, x)).to(x.dtype)
    return normal if bias is None else (normal + by_channel(bias, x)).to(x.dtype)


def _divides(num_groups, channels):
    return isinstance(num_groups, (int, np.integer)) and num_groups > 0 and channels % num_groups == 0

# As a module it has a weight and a bias for each channel.


class GroupNorm(Module):
    """group_norm with weight and bias (num_channels,); as torch.nn.GroupNorm."""

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device=None, dtype=None, *,
        bias: bool = True,
    ):
        super().__init__()
        tt.refuse_other_device(device)
        if not isinstance(num_channels, (int, np.integer)) or not _divides(num_groups, num_channels):
            raise ValueError(f"{num_groups} groups do not divide {num_channels} channels")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self.weight = Parameter(tt.ones(num_channels, dtype=dtype)) if affine else None
        self.bias = Parameter(tt.zeros(num_channels, dtype=dtype)) if affine and bias else None

    def forward(self, x):
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return f"{self.num_groups} groups"


__all__ = [
    "BatchNorm", "BatchNorm1d", "BatchNorm2d", "GroupNorm", "LayerNorm", "batch_norm", "channel_moments", "group_norm",
    "layer_norm", "normal_gradient", "normalize_channels", "normalize_rows", "normalize_scaled", "normalized",
]
