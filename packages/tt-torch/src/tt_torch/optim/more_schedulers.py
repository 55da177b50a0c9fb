"""More schedulers on PyTorch: torch.optim.lr_scheduler."""

from torch.optim.lr_scheduler import (
    ChainedScheduler, ConstantLR, CosineAnnealingWarmRestarts, CyclicLR, MultiplicativeLR, PolynomialLR,
)

__all__ = [
    "ChainedScheduler", "ConstantLR", "CosineAnnealingWarmRestarts", "CyclicLR", "MultiplicativeLR", "PolynomialLR",
]
