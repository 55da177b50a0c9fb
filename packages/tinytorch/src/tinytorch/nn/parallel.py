"""torch.nn.parallel: what it names, and where to go instead."""

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)
