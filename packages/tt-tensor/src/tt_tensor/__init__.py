"""Chapters 01 to 05: setup, tensors, activations, layers and losses, in NumPy."""

from tt_tensor.activations import *
from tt_tensor.activations import __all__ as _activations
from tt_tensor.fresh_memory import *
from tt_tensor.fresh_memory import __all__ as _fresh_memory
from tt_tensor.init import *
from tt_tensor.init import __all__ as _init
from tt_tensor.layers import *
from tt_tensor.layers import __all__ as _layers
from tt_tensor.losses import *
from tt_tensor.losses import __all__ as _losses
from tt_tensor.more_losses import *
from tt_tensor.more_losses import __all__ as _more_losses
from tt_tensor.more_ops import *
from tt_tensor.more_ops import __all__ as _more_ops
from tt_tensor.setup import *
from tt_tensor.setup import __all__ as _setup
from tt_tensor.tensor import *
from tt_tensor.tensor import __all__ as _tensor

# The contract: what other packages may use.
__all__ = [
    *_setup, *_fresh_memory, *_tensor, *_more_ops, *_activations, *_layers, *_init, *_losses, *_more_losses,
]
