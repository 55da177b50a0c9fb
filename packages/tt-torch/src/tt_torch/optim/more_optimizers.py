"""The appendix of chapter 06 on PyTorch: torch.optim's Adagrad and RMSprop, and other looks at gradients."""

from __future__ import annotations

import torch
from torch import optim
from torch.nn.utils import clip_grad_value_

from .optimizers import Ours


class Adagrad(Ours, optim.Adagrad):
    """torch.optim.Adagrad."""


class RMSprop(Ours, optim.RMSprop):
    """torch.optim.RMSprop."""


def gradient_norm(parameters):
    """The Euclidean length of all gradients taken together."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]).item()


__all__ = ["Adagrad", "RMSprop", "clip_grad_value_", "gradient_norm"]
