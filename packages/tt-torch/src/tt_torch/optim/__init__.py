"""Chapter 06 on PyTorch: what stands in for tt_optim."""

from .more_optimizers import *
from .more_optimizers import __all__ as _more_optimizers
from .optimizers import *
from .optimizers import __all__ as _optimizers
from .schedulers import *
from .schedulers import __all__ as _schedulers

__all__ = [*_optimizers, *_more_optimizers, *_schedulers]
