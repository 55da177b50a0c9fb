# # More activations
#
# An appendix of chapter 03. PyTorch has some thirty activations. Here we add those that the chapter leaves out. We
# compose them of operations that we have, so chapter 07 differentiates them without rules of their own.

from __future__ import annotations

import math
import warnings

import numpy as np

from tt_tensor import activations
from tt_tensor.activations import elu, leaky_relu, sigmoid
from tt_tensor.more_ops import abs, chunk, masked_fill, sign, tanh, where
from tt_tensor.setup import generator
from tt_tensor.tensor import Tensor, from_numpy

# ## Straight pieces
#
# Functions made of straight lines cost nearly nothing, which is why networks for telephones use them. What slope should
# we give them at a corner? For all of these PyTorch takes the slope of the flat side. We get the same from `where`,
# because a constant that replaces an element has slope 0.


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """The element, cut off at min_val and max_val. Raises ValueError unless min_val < max_val."""
    if not min_val < max_val:
        raise ValueError(f"hardtanh: min_val must be less than max_val, but they are {min_val} and {max_val}")
    return where(input >= max_val, max_val, where(input <= min_val, min_val, input))


def relu6(input: Tensor) -> Tensor:
    """max(x, 0), cut off at 6."""
    return hardtanh(input, 0.0, 6.0)


def hardsigmoid(input: Tensor) -> Tensor:
    """x / 6 + 1/2, cut off at 0 and 1."""
    return hardtanh(input + 3, 0.0, 6.0) / 6


def hardswish(input: Tensor) -> Tensor:
    """x * hardsigmoid(x). Howard et al., 2019."""
    return where(input <= -3, 0.0, where(input >= 3, input, input * (input + 3) / 6))


# Of the next four, three cut a hole around zero. `threshold` cuts below a number of your choice.


def threshold(input: Tensor, threshold: float, value: float) -> Tensor:
    """The element where it is above the threshold, `value` elsewhere."""
    return where(input <= threshold, value, input)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """The element where its size is above lambd, 0 elsewhere."""
    return where(abs(input) <= lambd, 0.0, input)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """The element moved by lambd towards 0, and 0 where it would cross it. Raises ValueError for a negative lambd."""
    if lambd < 0:
        raise ValueError(f"softshrink: lambd must be 0 or more, not {lambd}")
    return where(abs(input) <= lambd, 0.0, input - sign(input) * lambd)


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    return input - tanh(input)


def check_straight_pieces():
    x = Tensor([-7.0, -0.5, 0.25, 0.75, 7.0])
    assert relu6(x).tolist() == [0, 0, 0.25, 0.75, 6] and hardtanh(x).tolist() == [-1, -0.5, 0.25, 0.75, 1]
    assert hardshrink(x).tolist() == [-7, 0, 0, 0.75, 7] and softshrink(x).tolist() == [-6.5, 0, 0, 0.25, 6.5]
    assert np.allclose(hardswish(x).numpy(), (x * hardsigmoid(x)).numpy())


# ## Smooth ones
#
# We did not tune the numbers in `selu`. They are the two for which a layer keeps mean 0 and variance 1 of its inputs
# (Klambauer et al., 2017).

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def selu(input: Tensor) -> Tensor:
    """elu with the slopes that keep mean 0 and variance 1. Klambauer et al., 2017."""
    return elu(input, alpha=_SELU_ALPHA) * _SELU_SCALE


def celu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """x where it is positive, alpha * (exp(x / alpha) - 1) elsewhere, so that the slope at 0 is 1. Raises ValueError
    unless alpha is positive. Barron, 2017."""
    if alpha <= 0:
        raise ValueError(f"celu: alpha must be positive, not {alpha}")
    return where(input > 0, input, elu(input / alpha) * alpha)


def mish(input: Tensor) -> Tensor:
    """x * tanh(softplus(x)). Misra, 2019."""
    return input * tanh(activations.softplus(input))


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return input / (1 + abs(input))


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), exact also where sigmoid(x) rounds to 0."""
    return -activations.softplus(-input)


# The chapter's `softplus` is right everywhere. PyTorch's parameter `threshold` says from where on it may return $x$
# itself. At its default, 20, the two differ by less than `float32` can represent.


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta; x itself where beta * x is above a threshold other than 20."""
    smooth = activations.softplus(input, beta=beta)
    return smooth if threshold == 20 else where(input * beta > threshold, input, smooth)


# ## Slopes that are learned or drawn
#
# `prelu` learns the slope below zero, one for all elements or one for each channel (dimension 1). `rrelu` draws it.


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where it is positive, weight * x elsewhere; weight of one number, or one for each size of dimension 1. Raises
    ValueError for another number of them. He et al., 2015."""
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.ndim > 1 or weight.numel() not in (1, channels):
        raise ValueError(
            f"prelu: weight has shape {weight.shape}; an input of shape {input.shape} needs 1 number or {channels}"
        )
    slope = weight.reshape(-1, *(1 for _ in input.shape[2:])) if input.ndim > 1 else weight.reshape(input.ndim * (1,))
    return where(input > 0, input, slope * input)


def rrelu(input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False) -> Tensor:
    """x where it is positive, elsewhere x times a slope: in training drawn uniformly for each element from lower to
    upper, else their mean. Raises ValueError unless lower <= upper. Xu et al., 2015."""
    if not lower <= upper:
        raise ValueError(f"rrelu: lower must not exceed upper, but they are {lower} and {upper}")
    if not training:
        return leaky_relu(input, negative_slope=(lower + upper) / 2)
    slopes = from_numpy(np.asarray(generator().uniform(lower, upper, input.shape), input.dtype))
    return where(input > 0, input, input * slopes)


# ## Gates and choices
#
# A gated unit (Dauphin et al., 2017) takes one half of its input as values and the other as gates between 0 and 1.


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half along `dim` times the sigmoid of the second. Raises ValueError for an odd size."""
    if input.ndim == 0 or input.shape[dim] % 2:
        raise ValueError(f"glu splits dimension {dim} into halves, so its size must be even, not as in {input.shape}")
    values, gates = chunk(input, 2, dim)
    return values * sigmoid(gates)


# Softmax needs a dimension. For a vector or a matrix we can safely assume rows, so you may leave it out. In three
# dimensions PyTorch guesses, too, and takes the first; we raise an error instead.


def _over(name, input, dim):
    if dim is None and input.ndim > 2:
        raise ValueError(f"{name} of a tensor of shape {input.shape} needs a dimension: pass dim, such as dim=-1")
    return -1 if dim is None else dim


def softmax(input: Tensor, dim: int | None = None, dtype=None) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`, without overflow, of `input` converted to dtype."""
    return activations.softmax(input.to(dtype), dim=_over("softmax", input, dim))


def log_softmax(input: Tensor, dim: int | None = None, dtype=None) -> Tensor:
    """The logarithm of softmax along `dim`, exact also where softmax itself would round to 0."""
    return activations.log_softmax(input.to(dtype), dim=_over("log_softmax", input, dim))


def softmin(input: Tensor, dim: int | None = None, dtype=None) -> Tensor:
    """softmax of -x along `dim`."""
    return softmax(-input, _over("softmin", input, dim), dtype)


# Sometimes we want to draw one of many and still have a gradient. We add Gumbel's noise, $-\ln(-\ln u)$, to the logits
# and take the softmax. The largest of the noisy logits is distributed exactly as a draw from the softmax of the logits.
# With `hard=True` the result is that draw, and the gradient is the softmax's (Jang et al., 2017).


def gumbel_softmax(
    logits: Tensor, tau: float = 1.0, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """Softmax of noisy logits at temperature tau, or (hard) one-hot draws with its gradient. eps is ignored."""
    noise = -np.log(generator().exponential(size=logits.shape))
    soft = activations.softmax((logits + from_numpy(np.asarray(noise, logits.dtype))) / tau, dim=dim)
    if not hard:
        return soft
    places = soft.detach().argmax(dim=dim, keepdim=True).numpy()
    drawn = np.zeros(soft.shape, soft.dtype)
    np.put_along_axis(drawn, places, 1, axis=dim)
    return from_numpy(drawn) - soft.detach() + soft


def check_gumbel_softmax():
    logits = Tensor([0.0, math.log(3.0)]).expand(4000, 2)
    drawn = gumbel_softmax(logits, hard=True)
    assert ((drawn == 0) | (drawn == 1)).all() and 0.71 < drawn[:, 1].mean().item() < 0.79


# ## Dropout, by channel and for selu
#
# Neighbouring pixels of a channel hold nearly the same information, so dropping single ones drops little. `dropout2d`
# therefore drops whole channels, which are dimension 1. Dimension 0 is the batch; `dropout1d` and `dropout3d` also
# accept an input without one. (PyTorch's `dropout2d` treats an input of three dimensions as a batch of rows, and so do
# we.)


def _by_channel(name, input, p, training, leading, allowed):
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p is a probability and must be between 0 and 1, not {p}")
    if input.ndim not in allowed:
        raise ValueError(f"{name} needs {allowed[-2]} or {allowed[-1]} dimensions; the shape is {input.shape}")
    if not training or p == 0:
        return input
    kept = generator().random((*input.shape[:leading], *(1 for _ in input.shape[leading:]))) >= p
    return where(from_numpy(np.asarray(kept)), input / (1 - p), 0.0) if p < 1 else input * 0


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Sets whole channels of (N, C, L) or (C, L) to 0 with probability p and divides the others by 1 - p."""
    return _by_channel("dropout1d", input, p, training, input.ndim - 1, (2, 3))


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Sets whole channels of (N, C, H, W) or (N, C, L) to 0 with probability p and divides the others by 1 - p. For
    (N, C), it warns, as PyTorch does: these are single elements, and `dropout` is meant."""
    if input.ndim == 2:
        warnings.warn(f"dropout2d of shape {input.shape} drops single elements: use dropout", stacklevel=2)
    return _by_channel("dropout2d", input, p, training, 2, (2, 3, 4))


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Sets whole channels of (N, C, D, H, W) or (C, D, H, W) to 0 with probability p; divides others by 1 - p."""
    return _by_channel("dropout3d", input, p, training, input.ndim - 3, (4, 5))


# After `selu`, zero is an unlikely value, because its minimum is $-\lambda\alpha = -1.758$. `alpha_dropout` sets
# elements to that minimum, and then we scale and shift so that mean 0 and variance 1 remain.


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False) -> Tensor:
    """Sets elements to selu's least value with probability p and keeps mean 0 and variance 1. Klambauer et al.,
    2017."""
    if not 0 <= p <= 1:
        raise ValueError(f"alpha_dropout: p is a probability and must be between 0 and 1, not {p}")
    if not training or p == 0:
        return input
    if p == 1:
        return input * 0
    least = -_SELU_ALPHA * _SELU_SCALE
    scale = 1 / math.sqrt((1 - p) * (1 + p * least**2))
    dropped = from_numpy(np.asarray(generator().random(input.shape) < p))
    return masked_fill(input, dropped, least) * scale - scale * p * least


def check_alpha_dropout():
    x = Tensor(np.random.default_rng(0).standard_normal(20_000))
    y = alpha_dropout(x, 0.3, training=True)
    assert abs(y.mean()).item() < 0.03 and 0.95 < y.std().item() < 1.05


__all__ = [
    "alpha_dropout", "celu", "dropout1d", "dropout2d", "dropout3d", "glu", "gumbel_softmax", "hardshrink",
    "hardsigmoid", "hardswish", "hardtanh", "logsigmoid", "mish", "prelu", "relu6", "rrelu", "selu", "softmin",
    "softshrink", "softsign", "tanhshrink", "threshold",
]
