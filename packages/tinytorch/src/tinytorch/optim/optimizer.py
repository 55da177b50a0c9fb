"""torch.optim.optimizer: the class that optimizers have in common."""

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)
