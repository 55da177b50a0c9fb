"""torch.optim.lr_scheduler: learning rates that change."""

from tt_optim import LRScheduler as _LRScheduler  # as older programs call it

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)
