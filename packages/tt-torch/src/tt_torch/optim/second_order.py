"""Second order on PyTorch: torch.optim.LBFGS."""

from torch import optim

from .optimizers import Ours


class LBFGS(Ours, optim.LBFGS):
    """torch.optim.LBFGS."""


__all__ = ["LBFGS"]
