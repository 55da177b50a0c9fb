"""torch.nn.utils: gradients clipped, parameters in one vector."""

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)
