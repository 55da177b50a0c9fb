# # More norms
#
# An appendix of chapter 09: we normalize volumes and single images, and build norms without a mean.

from __future__ import annotations

import math

import numpy as np

import tt_tensor as tt
from tt_spatial.common import floating, wide
from tt_spatial.more_spatial import pad
from tt_spatial.norms import BatchNorm, batch_norm
from tt_spatial.pooling import avg_pool2d
from tt_tensor import Module, Parameter, Tensor
from tt_tensor.options import told

# ## Volumes
#
# Batch normalization does not care what comes after the channels, so a volume needs only another number of dimensions.


class BatchNorm3d(BatchNorm):
    """Batch normalization of volumes (N, num_features, D, H, W), as torch.nn.BatchNorm3d."""

    dims = (5,)


# ## One image at a time
#
# *Instance normalization* (D. Ulyanov et al., 2016) brings each channel of each image to mean 0 and variance 1, which
# takes the contrast of the image away. You want that, for example, to give a picture the style of another. We need no
# new formula: we turn every channel of every image into a channel of its own, in a batch of one, and batch
# normalization does the rest. (With running moments, we then average what the images have moved.)


def instance_norm(
    x: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None,
    bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:
    """Normalize each channel of each example of x (N, C, ...) by its own moments, which also move the running ones, or
    by the running ones without use_input_stats. As torch.nn.functional.instance_norm.

    Raises ValueError for one value a channel, which has no variance."""
    if x.ndim < 3:
        raise ValueError(f"instance_norm takes (N, C, ...) with something after the channels, not shape {x.shape}")
    examples, channels, *sides = x.shape
    if use_input_stats and math.prod(sides) == 1:
        raise ValueError(f"instance_norm: one value a channel, in an input of shape {x.shape}, has no variance")
    vectors = (running_mean, running_var, weight, bias)
    mean, var, scale, shift = (None if v is None else tt.cat([v] * max(examples, 1)) for v in vectors)
    apart = x.reshape(1, max(examples, 1) * channels, *sides) if examples else x
    normal = batch_norm(apart, mean, var, scale, shift, use_input_stats, momentum, eps).reshape(x.shape)
    if use_input_stats and examples:
        for running, moved in ((running_mean, mean), (running_var, var)):
            if running is not None and moved is not None:
                running.copy_(moved.reshape(examples, channels).numpy().mean(0))
    return normal


# The layers have the state of a batch normalization, but without moments and weights unless you ask for them. They also
# take a single example.


class _InstanceNorm(BatchNorm):
    sides = 0

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = False,
        track_running_stats: bool = False, device=None, dtype=None, *, bias: bool = True,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """The input, normalized; in training the running averages move, if there are any."""
        if x.ndim == self.sides + 1:
            return self(x.unsqueeze(0)).squeeze(0)
        if x.ndim != self.sides + 2 or (self.affine and x.shape[1] != self.num_features):
            raise ValueError(
                f"{type(self).__name__} takes (N, {self.num_features}, ...) of {self.sides + 2} dimensions, or one of "
                f"them; this has shape {x.shape}"
            )
        moments = (self.running_mean, self.running_var)
        by_input = self.training or self.running_mean is None
        return instance_norm(x, *moments, self.weight, self.bias, by_input, self.momentum or 0.0, self.eps)


# Only the number of sides differs between series, images and volumes.


class InstanceNorm1d(_InstanceNorm):
    """instance_norm of series (N, num_features, L) or one of them, as torch.nn.InstanceNorm1d."""

    sides = 1


class InstanceNorm2d(_InstanceNorm):
    """instance_norm of images (N, num_features, H, W) or one of them, as torch.nn.InstanceNorm2d."""

    sides = 2


class InstanceNorm3d(_InstanceNorm):
    """instance_norm of volumes (N, num_features, D, H, W) or one of them, as torch.nn.InstanceNorm3d."""

    sides = 3


def check_instance_norm():
    x = tt.randn(3, 4, 6, 5) * 5 + 2
    normal = InstanceNorm2d(4)(x).numpy()
    assert np.allclose(normal.mean((2, 3)), 0, atol=1e-5) and np.allclose(normal.std((2, 3)), 1, atol=1e-3)
    assert np.allclose(InstanceNorm2d(4)(x[1]).numpy(), normal[1], atol=1e-5)


# ## Without a mean
#
# It turns out that subtracting the mean matters little; dividing by the size is what helps. *RMSNorm* (B. Zhang and R.
# Sennrich, 2019) divides by the root of the mean of the squares, over the last dimensions. We build it for one
# dimension in chapter 14; this is PyTorch's form for several.


def rms_norm(x: Tensor, normalized_shape, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """x divided by the root of (the mean of its squares over the last dimensions, which are `normalized_shape`, + eps),
    then times weight. Without eps it is the machine precision. As torch.nn.functional.rms_norm."""
    shape = _shape(normalized_shape)
    if tuple(x.shape[x.ndim - len(shape) :]) != shape or (weight is not None and weight.shape != shape):
        weights = "" if weight is None else f" with a weight of shape {weight.shape}"
        raise ValueError(f"rms_norm over {shape} does not fit an input of shape {x.shape}{weights}")
    x = floating(x)
    numbers = x.to(wide(x.dtype))
    mean_square = (numbers * numbers).mean(tuple(range(-len(shape), 0)), keepdim=True)
    normal = numbers * (mean_square + (np.finfo(numbers.dtype).eps if eps is None else eps)) ** -0.5
    normal = normal.to(x.dtype)
    return normal if weight is None else normal * weight


# You may give the last dimensions as one number or as several, as for layer normalization.


def _shape(normalized_shape) -> tuple[int, ...]:
    shape = tuple(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    if not shape or not all(isinstance(n, (int, np.integer)) and n > 0 for n in shape):
        raise ValueError(f"normalized_shape is the sizes of the last dimensions, integers; it is {normalized_shape!r}")
    return tuple(map(int, shape))


class RMSNorm(Module):
    """rms_norm with a weight of the normalized shape; as torch.nn.RMSNorm."""

    def __init__(
        self, normalized_shape, eps: float | None = None, elementwise_affine: bool = True, device=None, dtype=None
    ):
        super().__init__()
        tt.refuse_other_device(device)
        self.normalized_shape = _shape(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.weight = Parameter(tt.ones(*self.normalized_shape, dtype=dtype)) if elementwise_affine else None

    def reset_parameters(self) -> None:
        """Set the weight to 1."""
        if self.weight is not None:
            self.weight.fill_(1)

    def forward(self, x):
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self):
        return told(self, ("normalized_shape", "eps", "elementwise_affine"))


# ## Among neighbours
#
# AlexNet (A. Krizhevsky et al., 2012) came before all of these. It divides each element by a power of the mean square
# of the channels next to its own, so that a loud channel makes its neighbours quieter. We can compute a mean over
# neighbouring channels as an average pooling along the channels.


def local_response_norm(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x (N, C, ...) divided by (k + alpha * the mean of the squares of `size` channels around each) ** beta. As
    torch.nn.functional.local_response_norm."""
    if x.ndim < 3 or size < 1:
        raise ValueError(f"local_response_norm takes (N, C, ...) and a size of at least 1, not {x.shape} and {size}")
    if not x.numel():
        return x
    rows = (x * x).reshape(x.shape[0], 1, x.shape[1], math.prod(x.shape[2:]))
    rows = pad(rows, (0, 0, size // 2, (size - 1) // 2))
    means = avg_pool2d(rows, (size, 1), stride=1).reshape(x.shape)
    return x / (means * alpha + k) ** beta


class LocalResponseNorm(Module):
    """local_response_norm as a module."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x):
        return local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self):
        return told(self, ("size", "alpha", "beta", "k"))


__all__ = [
    "BatchNorm3d", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "LocalResponseNorm", "RMSNorm",
    "instance_norm", "local_response_norm", "rms_norm",
]
