"""Chapters 01 to 05 on PyTorch: what stands in for tt_tensor. Modules that are not here are the course's own."""

from .activations import *
from .activations import __all__ as _activations
from .fresh_memory import *
from .fresh_memory import __all__ as _fresh_memory
from .init import *
from .init import __all__ as _init
from .layers import *
from .layers import __all__ as _layers
from .losses import *
from .losses import __all__ as _losses
from .more_losses import *
from .more_losses import __all__ as _more_losses
from .more_ops import *
from .more_ops import __all__ as _more_ops
from .setup import *
from .setup import __all__ as _setup
from .tensor import *
from .tensor import __all__ as _tensor

__all__ = [
    *_setup, *_fresh_memory, *_tensor, *_more_ops, *_activations, *_layers, *_init, *_losses, *_more_losses,
]
