"""Chapter 06: optimizers and learning-rate schedules."""

from tt_optim.more_optimizers import *
from tt_optim.more_optimizers import __all__ as _more_optimizers
from tt_optim.optimizers import *
from tt_optim.optimizers import __all__ as _optimizers
from tt_optim.schedulers import *
from tt_optim.schedulers import __all__ as _schedulers

# The contract: what other packages may use.
__all__ = [*_optimizers, *_more_optimizers, *_schedulers]
