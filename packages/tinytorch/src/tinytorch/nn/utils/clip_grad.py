"""torch.nn.utils.clip_grad: gradients clipped."""

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)
