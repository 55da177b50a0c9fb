"""torch.autograd.functional: derivatives of functions."""

from tinytorch._names import offer as _offer
from tinytorch.autograd._derivatives import hessian, jacobian

__getattr__, __dir__ = _offer(__name__)
