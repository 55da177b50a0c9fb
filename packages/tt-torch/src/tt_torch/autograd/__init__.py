"""Chapters 07 and 08 on PyTorch: what stands in for tt_autograd. Training is the course's own, on tensors of torch."""

from .autograd import *
from .autograd import __all__ as _autograd
from .callbacks import *
from .callbacks import __all__ as _callbacks
from .checkpoints import *
from .checkpoints import __all__ as _checkpoints
from .histories import *
from .histories import __all__ as _histories
from .training import *
from .training import __all__ as _training

__all__ = [*_autograd, *_callbacks, *_checkpoints, *_histories, *_training]
