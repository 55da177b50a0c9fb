"""Chapters 01 to 05 on PyTorch: what stands in for tt_tensor. Modules that are not here are the course's own."""

from . import linalg as linalg
from .activations import *
from .activations import __all__ as _activations
from .containers import *
from .containers import __all__ as _containers
from .arranging import *
from .arranging import __all__ as _arranging
from .counting import *
from .counting import __all__ as _counting
from .devices import *
from .devices import __all__ as _devices
from .drawing import *
from .drawing import __all__ as _drawing
from .fresh_memory import *
from .fresh_memory import __all__ as _fresh_memory
from .generators import *
from .generators import __all__ as _generators
from .init import *
from .init import __all__ as _init
from .layers import *
from .layers import __all__ as _layers
from .lazy import *
from .lazy import __all__ as _lazy
from .losses import *
from .losses import __all__ as _losses
from .margin_losses import *
from .margin_losses import __all__ as _margin_losses
from .module_methods import *
from .module_methods import __all__ as _module_methods
from .more_activations import *
from .more_activations import __all__ as _more_activations
from .more_layers import *
from .more_layers import __all__ as _more_layers
from .more_losses import *
from .more_losses import __all__ as _more_losses
from .more_ops import *
from .more_ops import __all__ as _more_ops
from .pointwise import *
from .pointwise import __all__ as _pointwise
from .products import *
from .products import __all__ as _products
from .setup import *
from .setup import __all__ as _setup
from .tensor import *
from .tensor import __all__ as _tensor

__all__ = [
    *_setup, *_fresh_memory, *_devices, *_generators, *_tensor, *_more_ops, *_pointwise, *_arranging,
    *_counting, *_drawing, *_products, "linalg", *_activations, *_layers,
    *_more_activations, *_module_methods, *_containers, *_lazy, *_more_layers, *_init, *_losses, *_more_losses,
    *_margin_losses,
]
