from tt_tensor.tensor import *
from tt_tensor.more_ops import *
