"""Chapter 06: optimizers and learning-rate schedules."""

from tt_optim.optimizers import *
from tt_optim.schedulers import *
