"""The appendix of chapter 05 on PyTorch: the other losses of torch.nn.functional."""

from __future__ import annotations

import warnings

from torch.nn import functional

from .layers import through_door
from .losses import Loss
from .tensor import native


@native
def l1_loss(x, target, /, reduction="mean"):
    return functional.l1_loss(x, target, reduction=reduction)


@native
def huber_loss(x, target, /, reduction="mean", delta=1.0):
    return functional.huber_loss(x, target, reduction=reduction, delta=delta)


@native
def smooth_l1_loss(x, target, /, reduction="mean", beta=1.0):
    return functional.smooth_l1_loss(x, target, reduction=reduction, beta=beta)


@native
def binary_surprise(p, t, /):
    return functional.binary_cross_entropy(p, t, reduction="none")


@native
def binary_cross_entropy(p, target, /, weight=None, reduction="mean"):
    return functional.binary_cross_entropy(p, target, weight, reduction=reduction)


@native
def kl_div(log_probabilities, target, /, reduction="mean", log_target=False):
    with warnings.catch_warnings():  # that its mean is not the one that mathematicians mean
        warnings.filterwarnings("ignore", "reduction: 'mean' divides")
        return functional.kl_div(log_probabilities, target, reduction=reduction, log_target=log_target)


L1Loss, HuberLoss = through_door("L1Loss", l1_loss, Loss), through_door("HuberLoss", huber_loss, Loss)
SmoothL1Loss, KLDivLoss = through_door("SmoothL1Loss", smooth_l1_loss, Loss), through_door("KLDivLoss", kl_div, Loss)
BCELoss = through_door("BCELoss", binary_cross_entropy, Loss)

__all__ = [
    "BCELoss", "HuberLoss", "KLDivLoss", "L1Loss", "SmoothL1Loss", "binary_cross_entropy", "binary_surprise",
    "huber_loss", "kl_div", "l1_loss", "smooth_l1_loss",
]
