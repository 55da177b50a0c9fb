"""torch.autograd.gradcheck: derivatives beside finite differences."""

from tinytorch._names import offer as _offer
from tinytorch.autograd._derivatives import gradcheck, gradgradcheck

__getattr__, __dir__ = _offer(__name__)
