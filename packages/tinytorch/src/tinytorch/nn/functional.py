"""torch.nn.functional: the functions that layers and losses compute."""

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)
