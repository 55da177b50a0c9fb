"""Chapters 07 and 08: automatic differentiation and training."""

from tt_autograd import more_rules as more_rules
from tt_autograd.autograd import *
from tt_autograd.autograd import __all__ as _autograd
from tt_autograd.callbacks import *
from tt_autograd.callbacks import __all__ as _callbacks
from tt_autograd.checkpoints import *
from tt_autograd.checkpoints import __all__ as _checkpoints
from tt_autograd.training import *
from tt_autograd.training import __all__ as _training

# The contract: what other packages may use.
__all__ = [*_autograd, *_callbacks, *_checkpoints, *_training]
