"""The appendix of chapter 06 on PyTorch: torch.optim's optimizers, and other looks at gradients."""

from __future__ import annotations

import torch
from torch import optim
from torch.nn.utils import clip_grad_value_

from .optimizers import Ours


class Adagrad(Ours, optim.Adagrad):
    """torch.optim.Adagrad."""


class RMSprop(Ours, optim.RMSprop):
    """torch.optim.RMSprop."""


class Adadelta(Ours, optim.Adadelta):
    """torch.optim.Adadelta."""


class Adamax(Ours, optim.Adamax):
    """torch.optim.Adamax."""


class NAdam(Ours, optim.NAdam):
    """torch.optim.NAdam."""


class RAdam(Ours, optim.RAdam):
    """torch.optim.RAdam."""


class Rprop(Ours, optim.Rprop):
    """torch.optim.Rprop."""


def gradient_norm(parameters):
    """The Euclidean length of all gradients taken together."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]).item()


__all__ = [
    "Adadelta", "Adagrad", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "clip_grad_value_", "gradient_norm",
]
