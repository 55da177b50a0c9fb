# # More losses
#
# An appendix of chapter 05. Here we add the other distances, the surprise of a probability, and the divergence of two
# distributions, all with PyTorch's names and meaning.

from __future__ import annotations

import numpy as np

from tt_tensor.losses import Loss
from tt_tensor.more_ops import abs, clip, where
from tt_tensor.targets import as_float, reduced, refuse_other_shape
from tt_tensor.arguments import as_floats
from tt_tensor.tensor import Tensor, elementwise, log, quiet, sum

# ## Other distances
#
# Some targets are wildly off now and then, for example if a sensor drops out. The mean of absolute differences is then
# the more robust judge. Its best constant answer is the median of the targets, whereas that of the squared loss is
# their mean.


def l1_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Mean absolute error, or another `reduction`. Raises ValueError for different shapes."""
    refuse_other_shape("l1_loss", x, target)
    return reduced(abs(as_float(x, target) - target), reduction)


# The square punishes one wild example as much as a thousand good ones, and the absolute value has a corner at zero.
# With Huber's loss we get both: it is the square near zero and a straight line further out.


def huber_loss(x: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """Half the square of differences up to delta; beyond, delta * (difference - delta / 2). Raises ValueError for
    different shapes and unless delta is positive."""
    refuse_other_shape("huber_loss", x, target)
    if delta <= 0:
        raise ValueError(f"huber_loss: delta must be positive, not {delta}")
    size = abs(as_float(x, target) - target)
    near = clip(size, max=delta)
    return reduced(near * (size - 0.5 * near), reduction)


# Look at `near * (size - 0.5 * near)` once more. Where `size` is at most `delta`, `near` equals it, and the product is
# $\frac12 \text{size}^2$. Beyond that, `near` is `delta`, and we are on Huber's line. We need no branch.
#
# PyTorch has the same loss under a second name and in another unit.


def smooth_l1_loss(x: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """Huber's loss divided by beta, so that its slope far out is 1; l1_loss for beta = 0."""
    if beta < 0:
        raise ValueError(f"smooth_l1_loss: beta must be 0 or more, not {beta}")
    refuse_other_shape("smooth_l1_loss", x, target)
    return l1_loss(x, target, reduction) if beta == 0 else huber_loss(x, target, reduction, beta) / beta


def check_huber():
    x, target = Tensor([0.5, 3.0]), Tensor([0.0, 0.0])
    assert huber_loss(x, target, "none").tolist() == [0.125, 2.5]
    assert smooth_l1_loss(x, target, "none", beta=2.0).tolist() == [0.0625, 2.0]


# ## Probabilities
#
# For a network that ends in a probability $p$, the surprise is $-t \ln p - (1 - t) \ln(1 - p)$. If $p$ is exactly 0
# where the target is 1, that is infinite, and one infinite example makes the mean infinite. PyTorch cuts the logarithm
# off at $-100$, and so do we. The slope is $(p - t) / (p (1 - p))$, and we write a primitive so that chapter 07 can use
# this formula: the slope of a logarithm that has been cut off would be 0 just where the answer is wrong.


@elementwise
def binary_surprise(p, t, /):
    """-t log(p) - (1 - t) log(1 - p), element by element, with logarithms cut off at -100."""
    p, t = as_floats(p), as_floats(t)
    with quiet():
        return -(t * np.maximum(np.log(p), -100) + (1 - t) * np.maximum(np.log1p(-p), -100))


def binary_cross_entropy(p: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """The surprise of probabilities p at targets between 0 and 1, logarithms cut off at -100. Raises ValueError for p
    outside 0 to 1."""
    refuse_other_shape("binary_cross_entropy", p, target)
    if p.numel() and not (0 <= p.numpy().min() and p.numpy().max() <= 1):
        raise ValueError(
            f"binary_cross_entropy: probabilities must be between 0 and 1, but these range from "
            f"{p.numpy().min():.4g} to {p.numpy().max():.4g}; for logits use binary_cross_entropy_with_logits"
        )
    if target.numel() and not (0 <= target.numpy().min() and target.numpy().max() <= 1):
        raise ValueError("binary_cross_entropy: targets are probabilities, too, and must be between 0 and 1")
    losses = binary_surprise(p, target)
    return reduced(losses if weight is None else losses * weight, reduction)


# The *Kullback-Leibler divergence* is the surprise minus the target's own uncertainty. It compares two distributions,
# for example the answers of a small network with those of the large one that it learns from. As in PyTorch, you pass
# logarithms of probabilities as the input, and `batchmean` is the mean of the textbooks.


def kl_div(log_probabilities: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target * (log(target) - log_probabilities), which is 0 where the target is 0. reduction "batchmean" divides the
    sum by the first size."""
    refuse_other_shape("kl_div", log_probabilities, target)
    if log_target:
        losses = target.exp() * (target - log_probabilities)
    else:
        losses = target * log(where(target == 0, 1.0, target)) - target * log_probabilities
    return sum(losses) / log_probabilities.shape[0] if reduction == "batchmean" else reduced(losses, reduction)


# ## As modules


class L1Loss(Loss):
    """l1_loss as a module; takes its options."""

    function = staticmethod(l1_loss)


class HuberLoss(Loss):
    """huber_loss as a module; takes its options."""

    function = staticmethod(huber_loss)
    order = ("reduction", "delta")


class SmoothL1Loss(Loss):
    """smooth_l1_loss as a module; takes its options."""

    function = staticmethod(smooth_l1_loss)


class BCELoss(Loss):
    """binary_cross_entropy as a module; takes its options."""

    function = staticmethod(binary_cross_entropy)
    order = ("weight", "size_average", "reduce", "reduction")


class KLDivLoss(Loss):
    """kl_div as a module; takes its options."""

    function = staticmethod(kl_div)


__all__ = [
    "BCELoss", "HuberLoss", "KLDivLoss", "L1Loss", "SmoothL1Loss", "binary_cross_entropy", "binary_surprise",
    "huber_loss", "kl_div", "l1_loss", "smooth_l1_loss",
]
