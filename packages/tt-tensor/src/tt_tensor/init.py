# # Init
#
# An appendix of chapter 04: other ways to start. Our `Linear` draws its weights uniformly from $\pm 1/\sqrt{n}$.
# PyTorch's `nn.init` has a family of functions for other recipes, and here we write them with the same names. Each
# overwrites a tensor in place and returns it. All random numbers come from the one generator of chapter 01, unless you
# pass another.

from __future__ import annotations

import math

import numpy as np

from tt_tensor.generators import drawn_from
from tt_tensor.setup import generator as current
from tt_tensor.tensor import Tensor

# ## Plain fillings


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator=None) -> Tensor:
    """Fill with uniform random numbers from [a, b)."""
    with drawn_from(generator):
        return tensor.copy_(current().uniform(a, b, tensor.shape))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator=None) -> Tensor:
    """Fill with normal random numbers."""
    with drawn_from(generator):
        return tensor.copy_(current().normal(mean, std, tensor.shape))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one number."""
    return tensor.fill_(val)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with 0."""
    return tensor.fill_(0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with 1."""
    return tensor.fill_(1.0)


# A normal distribution now and then draws a number far out. Vision transformers, and many models since, start from a
# distribution that is cut off at `a` and `b`. We draw again every number that falls outside.


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator=None
) -> Tensor:
    """Fill with normal random numbers, drawn again until all are between a and b. Raises ValueError if fewer than one
    in a thousand would be."""
    inside = 0.5 * (math.erf((b - mean) / std / math.sqrt(2)) - math.erf((a - mean) / std / math.sqrt(2)))
    if inside < 1e-3:
        raise ValueError(
            f"trunc_normal_: numbers around {mean} with std {std} fall between {a} and {b} less than once in a "
            "thousand draws; choose wider limits"
        )
    with drawn_from(generator):
        values = current().normal(mean, std, tensor.shape)
        while (outside := (values < a) | (values > b)).any():
            values = np.where(outside, current().normal(mean, std, tensor.shape), values)
        return tensor.copy_(values)


# ## Scaled to the layer
#
# For the other recipes we need to know how many inputs and outputs a unit has. For a weight of shape (out, in) we read
# both from the shape. In a convolution's (out, in, height, width) every pixel of the kernel counts.


def _fans(tensor: Tensor) -> tuple[int, int]:
    if tensor.ndim < 2:
        raise ValueError(f"fan-in and fan-out need at least 2 dimensions; this tensor has shape {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


# *Xavier initialization* (Glorot and Bengio, 2010) would like a variance of $1/\text{fan-in}$ on the way forward and of
# $1/\text{fan-out}$ on the way back, and it takes $\frac{2}{\text{fan-in} + \text{fan-out}}$ as a compromise. *Kaiming
# initialization* (He et al., 2015) makes up for ReLU, which discards half of the signal, by a *gain* of $\sqrt 2$.


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights before a nonlinearity should be larger: PyTorch's table."""
    gains = {
        "linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4,
        "leaky_relu": math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2)),
    }
    if nonlinearity.startswith("conv"):
        nonlinearity = "linear"
    if nonlinearity not in gains:
        raise ValueError(f"no gain is known for {nonlinearity!r}; choose one of {', '.join(gains)}")
    return gains[nonlinearity]


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator=None) -> Tensor:
    """Normal with standard deviation gain * sqrt(2 / (fan_in + fan_out))."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans(tensor))), generator)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator=None) -> Tensor:
    """Uniform with the same standard deviation: bound gain * sqrt(6 / (fan_in + fan_out))."""
    bound = gain * math.sqrt(6 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator=None
) -> Tensor:
    """Normal with standard deviation gain / sqrt(fan)."""
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)), generator)


def kaiming_uniform_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator=None
) -> Tensor:
    """Uniform with standard deviation gain / sqrt(fan)."""
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3 / _fan(tensor, mode))
    return uniform_(tensor, -bound, bound, generator)


def _fan(tensor, mode):
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f'mode must be "fan_in" or "fan_out", not {mode!r}')
    return _fans(tensor)[mode == "fan_out"]


# We can measure whether a recipe does what its name says, on sixty thousand numbers. With 300 inputs and 200 outputs
# Xavier's variance is 2/500. Kaiming's depends on the inputs alone and is 2/300.


def check_spread():
    from tt_tensor.tensor import zeros

    for function, variance in (
        (xavier_normal_, 2 / 500), (xavier_uniform_, 2 / 500), (kaiming_normal_, 2 / 300), (kaiming_uniform_, 2 / 300),
    ):
        assert 0.95 < function(zeros(200, 300)).var().item() / variance < 1.05, function.__name__


# ## With a structure
#
# Three recipes look at the matrix as a whole. The identity passes a signal on unchanged, and `dirac_` does the same for
# a convolution. An orthogonal matrix rotates the signal without changing its length (Saxe et al., 2014), so a deep
# stack of them neither grows nor fades. We take `q` of a QR decomposition, which is orthogonal; the signs of `r` make
# all rotations equally likely.


def eye_(tensor: Tensor) -> Tensor:
    """Fill a matrix with ones on its diagonal and zeros elsewhere. Raises ValueError for another number of
    dimensions."""
    if tensor.ndim != 2:
        raise ValueError(f"eye_ fills a matrix; this tensor has shape {tensor.shape}")
    return tensor.copy_(np.eye(tensor.shape[0], tensor.shape[1]))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fill a convolution's weight (out, in, ...) so that, in each group, channel i passes to channel i. Raises
    ValueError unless it has 3 to 5 dimensions, of which the first can be divided by groups."""
    if tensor.ndim not in (3, 4, 5) or tensor.shape[0] % groups:
        raise ValueError(
            f"dirac_ needs 3 to 5 dimensions, the first divisible by groups={groups}; the shape is {tensor.shape}"
        )
    values, each = np.zeros(tensor.shape), tensor.shape[0] // groups
    middle = tuple(size // 2 for size in tensor.shape[2:])
    for channel in range(tensor.shape[0]):
        if channel % each < tensor.shape[1]:
            values[(channel, channel % each, *middle)] = 1
    return tensor.copy_(values)


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator=None) -> Tensor:
    """Fill (out, ...) with rows, or columns if these are fewer, that are orthogonal and of length `gain`. Raises
    ValueError for fewer than 2 dimensions."""
    if tensor.ndim < 2:
        raise ValueError(f"orthogonal_ needs at least 2 dimensions; this tensor has shape {tensor.shape}")
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    if rows * columns == 0:
        return tensor
    with drawn_from(generator):
        q, r = np.linalg.qr(current().standard_normal((max(rows, columns), min(rows, columns))))
    q = gain * q * np.sign(np.diagonal(r))
    return tensor.copy_((q if rows >= columns else q.T).reshape(tensor.shape))


# The last one leaves most of a matrix empty: each column gets the same fraction of zeros (Martens, 2010).


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator=None) -> Tensor:
    """Fill a matrix with normal random numbers, and the fraction `sparsity` of each column with zeros. Raises
    ValueError for another number of dimensions."""
    if tensor.ndim != 2:
        raise ValueError(f"sparse_ fills a matrix; this tensor has shape {tensor.shape}")
    with drawn_from(generator):
        values = current().normal(0, std, tensor.shape)
        ranks = current().random(tensor.shape).argsort(axis=0)
    return tensor.copy_(np.where(ranks < math.ceil(sparsity * tensor.shape[0]), 0, values))


def check_structure():
    from tt_tensor.tensor import zeros

    w = orthogonal_(zeros(3, 5), gain=2.0).numpy()
    assert np.allclose(w @ w.T, 4 * np.eye(3), atol=1e-5)
    assert ((sparse_(zeros(10, 4), 0.25) == 0).sum(0) == 3).all() and eye_(zeros(2, 3)).sum().item() == 2


__all__ = [
    "calculate_gain", "constant_", "dirac_", "eye_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_",
    "orthogonal_", "sparse_", "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_", "zeros_",
]
