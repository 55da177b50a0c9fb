"""torch.nn.init: first weights."""

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)
