"""Chapters 07 and 08: automatic differentiation and training."""

from tt_autograd import more_rules as more_rules
from tt_autograd.autograd import *
from tt_autograd.callbacks import *
from tt_autograd.checkpoints import *
from tt_autograd.training import *
