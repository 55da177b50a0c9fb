"""Chapters 01 to 05: setup, tensors, activations, layers and losses, in NumPy."""

from tt_tensor.activations import *
from tt_tensor.init import *
from tt_tensor.layers import *
from tt_tensor.losses import *
from tt_tensor.more_ops import *
from tt_tensor.setup import *
from tt_tensor.tensor import *
