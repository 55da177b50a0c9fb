"""Averaging weights on PyTorch: torch.optim.ASGD and torch.optim.swa_utils."""

from torch import optim
from torch.optim.swa_utils import (
    SWALR, AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn, get_swa_avg_fn, get_swa_multi_avg_fn,
)

from .optimizers import Ours


class ASGD(Ours, optim.ASGD):
    """torch.optim.ASGD."""


__all__ = [
    "ASGD", "AveragedModel", "SWALR", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
]
