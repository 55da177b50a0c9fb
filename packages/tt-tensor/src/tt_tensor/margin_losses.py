# # Losses with a margin, and of counts
#
# An appendix of chapter 05. A *margin* loss charges nothing for an answer that is right by more than a margin. Most of
# these compare: two scores, two vectors, or the score of the right class with those of the others. At the end we add
# two losses for networks that predict a distribution of numbers. All have PyTorch's names and meaning.

from __future__ import annotations

import math

import numpy as np

from tt_tensor.activations import softplus
from tt_tensor.layers import Module
from tt_tensor.more_ops import clip, gather, minimum, one_hot, sqrt, where
from tt_tensor.products import pairwise_distance
from tt_tensor.targets import LossOptions, class_ids, class_weights, reduced, refuse_other_shape
from tt_tensor.tensor import Tensor, from_numpy, log, mean, sum, tensor

# ## Which of two?
#
# With `margin_ranking_loss` we learn an order: for target 1 the first score should be larger, for $-1$ the second.


def _above_zero(x: Tensor) -> Tensor:
    return clip(x, min=0.0)


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """max(0, margin - target * (input1 - input2)), for targets 1 and -1. Raises ValueError for different shapes."""
    refuse_other_shape("margin_ranking_loss", input1, input2)
    refuse_other_shape("margin_ranking_loss", input1, target)
    return reduced(_above_zero(margin - target * (input1 - input2)), reduction)


# If we put the label's sign in front, we can judge a single score: by a hinge, or by its smooth relative, which is the
# surprise of `binary_cross_entropy_with_logits` for labels 1 and $-1$.


def soft_margin_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """log(1 + exp(-target * input)), for targets 1 and -1. Raises ValueError for different shapes."""
    refuse_other_shape("soft_margin_loss", input, target)
    return reduced(softplus(-target * input), reduction)


# `hinge_embedding_loss` judges distances. Those of pairs that belong together (target 1) should be small; those of
# other pairs ($-1$) should be at least the margin.


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """input where the target is 1, max(0, margin - input) where it is -1. Raises ValueError for different shapes."""
    refuse_other_shape("hinge_embedding_loss", input, target)
    apart = where(target != 1, _above_zero(margin - input), 0.0)
    return reduced(apart + where(target != -1, input, 0.0), reduction)


# ## Vectors
#
# We do the same for vectors. `cosine_embedding_loss` uses the angle between two of them. `triplet_margin_loss` takes
# three: the anchor should be nearer to the positive than to the negative one, by the margin.


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """1 - cosine where the target is 1, max(0, cosine - margin) where it is -1: inputs (N, D) or (D,), target (N,) or
    (). Raises ValueError for other shapes."""
    if input1.shape != input2.shape or target.shape != input1.shape[:-1] or input1.ndim not in (1, 2):
        raise ValueError(
            f"cosine_embedding_loss needs two inputs (N, D) and a target (N,), not {input1.shape}, {input2.shape} and "
            f"{target.shape}"
        )
    tiny = 1e-12
    lengths = sqrt((sum(input1 * input1, dim=-1) + tiny) * (sum(input2 * input2, dim=-1) + tiny))
    cosine = sum(input1 * input2, dim=-1) / lengths
    losses = where(target == 1, 1 - cosine, 0.0) + where(target == -1, _above_zero(cosine - margin), 0.0)
    return reduced(losses, reduction)


def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2, eps: float = 1e-6,
    swap: bool = False, reduction: str = "mean",
) -> Tensor:
    """max(0, margin + distance(anchor, positive) - distance(anchor, negative)) for vectors (N, D) or (D,). With
    `swap`, the negative's distance is that to the nearer of the other two. Raises ValueError for a margin that is not
    positive."""
    if margin <= 0:
        raise ValueError(f"triplet_margin_loss: margin must be positive, not {margin}")
    near, far = pairwise_distance(anchor, positive, p, eps), pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = minimum(far, pairwise_distance(positive, negative, p, eps))
    return reduced(_above_zero(margin + near - far), reduction)


def check_vectors():
    a, b = Tensor([[1.0, 0.0]]), Tensor([[0.0, 2.0]])
    assert [cosine_embedding_loss(a, b, tensor([label])).item() for label in (1, -1)] == [1, 0]
    assert abs(triplet_margin_loss(a, a, b).item()) < 1e-5 and 2.2 < triplet_margin_loss(a, b, a).item() - 1 < 2.3


# ## One class and the others
#
# The score of the right class should exceed each other score by the margin. We sum the loss over the other classes and
# divide it by the number of all classes.


def multi_margin_loss(
    input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The sum over the wrong classes i of max(0, margin - x[target] + x[i])**p, divided by C: input (N, C) or (C,),
    class numbers (N,) or (). Raises ValueError unless p is 1 or 2, and what nll_loss raises for labels."""
    if p not in (1, 2):
        raise ValueError(f"multi_margin_loss: p must be 1 or 2, not {p}")
    labels, _ = class_ids(input, target, ignore_index=-100)
    classes = input.shape[-1]
    excess = _above_zero(margin - gather(input, -1, np.expand_dims(labels, -1)) + input)
    wrong = one_hot(from_numpy(labels), classes) == 0
    losses = sum(where(wrong, excess if p == 1 else excess * excess, 0.0), dim=-1) / classes
    if weight is not None:
        losses = losses * from_numpy(np.asarray(class_weights(weight, classes)[labels]))
    return reduced(losses, reduction)


# With several right classes, each of them should exceed each wrong one. You list the right classes in the target and
# fill it up with $-1$.


def multilabel_margin_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The sum over right classes j and wrong ones i of max(0, 1 - x[j] + x[i]), divided by C: input (N, C) or (C,); the
    target, of the same shape, lists the right classes up to the first -1. Raises ValueError for different shapes,
    IndexError for a class that does not exist."""
    refuse_other_shape("multilabel_margin_loss", input, target)
    listed, classes = np.atleast_2d(target.numpy()), input.shape[-1]
    counts = np.cumsum(listed == -1, axis=1) == 0
    if (counts & ((listed < 0) | (listed >= classes))).any():
        raise IndexError(f"multilabel_margin_loss: the target has a class out of range; classes are 0 to {classes - 1}")
    listed = np.where(counts, listed, classes)  # one class more, for entries that do not count
    right = np.zeros((len(listed), classes + 1), bool)
    np.put_along_axis(right, listed, True, axis=1)
    right = right[:, :classes].reshape(input.shape)
    pairs = from_numpy(right[..., :, None] & ~right[..., None, :])
    excess = _above_zero(1 - input.unsqueeze(-1) + input.unsqueeze(-2))
    return reduced(sum(where(pairs, excess, 0.0), dim=(-2, -1)) / classes, reduction)


# If each class is a yes-or-no question of its own, we average the surprises of the answers.


def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """The mean over the classes of binary_cross_entropy_with_logits: input and target (N, C), targets 0 and 1. Raises
    ValueError for different shapes."""
    refuse_other_shape("multilabel_soft_margin_loss", input, target)
    losses = target * softplus(-input) + (1 - target) * softplus(input)
    return reduced(mean(losses if weight is None else losses * weight, -1), reduction)


def check_classes():
    x = Tensor([[0.1, 0.2, 0.4, 0.8]])
    assert np.isclose(multi_margin_loss(x, tensor([3])).item(), (0.3 + 0.4 + 0.6) / 4)
    assert np.isclose(multilabel_margin_loss(x, tensor([[3, 0, -1, 1]])).item(), 0.85)


# ## Counts, and numbers with a spread
#
# If a network predicts the rate of events (or, by default, its logarithm), we judge it by Poisson's distribution. If it
# predicts a mean and a variance, we judge it by the normal distribution, and so it learns how sure it may be. `full`
# adds the terms without parameters; for Poisson we use Stirling's formula.


def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool = True, full: bool = False, eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:
    """Minus the logarithm of Poisson's probability of the counts in target, for log rates (or rates) of the same
    shape. Raises ValueError for different shapes."""
    refuse_other_shape("poisson_nll_loss", input, target)
    losses = input.exp() - target * input if log_input else input - target * log(input + eps)
    if full:
        counts = where(target > 1, target, 1.0)
        stirling = counts * log(counts) - counts + 0.5 * log(2 * math.pi * counts)
        losses = losses + where(target > 1, stirling, 0.0)
    return reduced(losses, reduction)


def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Tensor | float, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """Minus the logarithm of the normal density of target, for means `input` and variances `var`, of which there may
    be one for each row. Variances below eps count as eps. Raises ValueError for shapes that do not fit and for
    negative variances."""
    refuse_other_shape("gaussian_nll_loss", input, target)
    var = _variances(var, input)
    if (var.numpy() < 0).any():
        raise ValueError(f"gaussian_nll_loss: no variance may be negative, but one is {var.numpy().min():.4g}")
    var = var + (clip(var, min=eps) - var).detach()  # cut off, with the gradient of what was not
    difference = input - target
    losses = 0.5 * (log(var) + difference * difference / var)
    return reduced(losses + 0.5 * math.log(2 * math.pi) if full else losses, reduction)


def _variances(var, input):
    var = var if isinstance(var, Tensor) else (input * 0).detach() + var
    if var.shape == input.shape[:-1] and var.shape != input.shape:
        var = var.unsqueeze(-1)
    if var.shape not in (input.shape, (*input.shape[:-1], 1)):
        raise ValueError(f"gaussian_nll_loss: var of shape {var.shape} does not fit an input of shape {input.shape}")
    return var


def check_spread():
    x, t = Tensor([1.0]), Tensor([3.0])
    by_hand = 0.5 * math.log(2 * math.pi * 4) + 2**2 / (2 * 4)
    assert np.isclose(gaussian_nll_loss(x, t, Tensor([4.0]), full=True).item(), by_hand)
    assert np.isclose(poisson_nll_loss(x, t).item(), math.e - 3)


# ## As modules
#
# The options of each module come in PyTorch's order.


class MarginLoss(LossOptions, Module):
    """A loss function of this appendix and its options; call it with the function's tensors."""


class MarginRankingLoss(MarginLoss):
    """margin_ranking_loss as a module; takes its options."""

    function = staticmethod(margin_ranking_loss)
    order = ("margin", "size_average", "reduce", "reduction")


class SoftMarginLoss(MarginLoss):
    """soft_margin_loss as a module; takes its options."""

    function = staticmethod(soft_margin_loss)


class HingeEmbeddingLoss(MarginLoss):
    """hinge_embedding_loss as a module; takes its options."""

    function = staticmethod(hinge_embedding_loss)
    order = ("margin", "size_average", "reduce", "reduction")


class CosineEmbeddingLoss(MarginLoss):
    """cosine_embedding_loss as a module; takes its options."""

    function = staticmethod(cosine_embedding_loss)
    order = ("margin", "size_average", "reduce", "reduction")


class TripletMarginLoss(MarginLoss):
    """triplet_margin_loss as a module; takes its options."""

    function = staticmethod(triplet_margin_loss)
    order = ("margin", "p", "eps", "swap", "size_average", "reduce", "reduction")


# The next modules judge classes.


class MultiMarginLoss(MarginLoss):
    """multi_margin_loss as a module; takes its options."""

    function = staticmethod(multi_margin_loss)
    order = ("p", "margin", "weight", "size_average", "reduce", "reduction")


class MultiLabelMarginLoss(MarginLoss):
    """multilabel_margin_loss as a module; takes its options."""

    function = staticmethod(multilabel_margin_loss)


class MultiLabelSoftMarginLoss(MarginLoss):
    """multilabel_soft_margin_loss as a module; takes its options."""

    function = staticmethod(multilabel_soft_margin_loss)
    order = ("weight", "size_average", "reduce", "reduction")


class PoissonNLLLoss(MarginLoss):
    """poisson_nll_loss as a module; takes its options."""

    function = staticmethod(poisson_nll_loss)
    order = ("log_input", "full", "size_average", "eps", "reduce", "reduction")


class GaussianNLLLoss(MarginLoss):
    """gaussian_nll_loss as a module; takes its options, by name only as in PyTorch."""

    function = staticmethod(gaussian_nll_loss)

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean"):
        super().__init__(full=full, eps=eps, reduction=reduction)


__all__ = [
    "CosineEmbeddingLoss", "GaussianNLLLoss", "HingeEmbeddingLoss", "MarginRankingLoss", "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss", "MultiMarginLoss", "PoissonNLLLoss", "SoftMarginLoss", "TripletMarginLoss",
    "cosine_embedding_loss", "gaussian_nll_loss", "hinge_embedding_loss", "margin_ranking_loss", "multi_margin_loss",
    "multilabel_margin_loss", "multilabel_soft_margin_loss", "poisson_nll_loss", "soft_margin_loss",
    "triplet_margin_loss",
]
