"""torch.autograd: gradients, and where they are recorded."""

import tinytorch.autograd.gradcheck as _  # a module, whose name then becomes the function's, as in torch
from tinytorch._names import offer as _offer
from tinytorch.autograd._derivatives import gradcheck, gradgradcheck
from tinytorch.autograd._modes import Function, Variable, backward, inference_mode, set_detect_anomaly, set_grad_enabled

__getattr__, __dir__ = _offer(__name__)
