"""Chapter 06 on PyTorch: what stands in for tt_optim."""

from .averaging import *
from .averaging import __all__ as _averaging
from .more_optimizers import *
from .more_optimizers import __all__ as _more_optimizers
from .more_schedulers import *
from .more_schedulers import __all__ as _more_schedulers
from .optimizers import *
from .optimizers import __all__ as _optimizers
from .schedulers import *
from .schedulers import __all__ as _schedulers
from .second_order import *
from .second_order import __all__ as _second_order
from .torch_options import *
from .torch_options import __all__ as _torch_options

__all__ = [
    *dict.fromkeys([
        *_optimizers, *_averaging, *_more_optimizers, *_more_schedulers, *_schedulers, *_second_order, *_torch_options,
    ])
]
