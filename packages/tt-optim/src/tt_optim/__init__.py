"""Chapter 06: optimizers and learning-rate schedules."""

from tt_optim.averaging import *
from tt_optim.averaging import __all__ as _averaging
from tt_optim.more_optimizers import *
from tt_optim.more_optimizers import __all__ as _more_optimizers
from tt_optim.more_schedulers import *
from tt_optim.more_schedulers import __all__ as _more_schedulers
from tt_optim.optimizers import Lion, Optimizer, adam_update, sgd_update
from tt_optim.schedulers import *
from tt_optim.schedulers import __all__ as _schedulers
from tt_optim.second_order import *
from tt_optim.second_order import __all__ as _second_order
from tt_optim.torch_options import *
from tt_optim.torch_options import __all__ as _torch_options

# The contract: what other packages may use.
__all__ = [
    "Lion", "Optimizer", "adam_update", "sgd_update", *_averaging, *_more_optimizers, *_more_schedulers, *_schedulers,
    *_second_order, *_torch_options,
]
