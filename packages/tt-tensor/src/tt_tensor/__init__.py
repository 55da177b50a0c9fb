"""Chapters 01 to 05: setup, tensors, activations, layers and losses, in NumPy."""

from tt_tensor import linalg as linalg
from tt_tensor.activations import (
    elu, gelu, gelu_slope, leaky_relu, log_softmax, relu, sigmoid, silu, softmax, softplus,
)
from tt_tensor.containers import *
from tt_tensor.containers import __all__ as _containers
from tt_tensor.arranging import *
from tt_tensor.arranging import __all__ as _arranging
from tt_tensor.counting import *
from tt_tensor.counting import __all__ as _counting
from tt_tensor.devices import *
from tt_tensor.devices import __all__ as _devices
from tt_tensor.drawing import *
from tt_tensor.drawing import __all__ as _drawing
from tt_tensor.fresh_memory import *
from tt_tensor.fresh_memory import __all__ as _fresh_memory
from tt_tensor.generators import *
from tt_tensor.generators import __all__ as _generators
from tt_tensor.init import *
from tt_tensor.init import __all__ as _init
from tt_tensor.layers import (
    Dropout, Flatten, Identity, Linear, Module, ModuleList, Parameter, ReLU, Sequential, Sigmoid, Softmax, Tanh,
    affine, dropout, linear,
)
from tt_tensor.lazy import *
from tt_tensor.lazy import __all__ as _lazy
from tt_tensor.losses import (
    BCEWithLogitsLoss, CrossEntropyLoss, Loss, MSELoss, NLLLoss, binary_cross_entropy_with_logits, cross_entropy,
    mse_loss, nll_loss, perplexity, surprise,
)
from tt_tensor.margin_losses import *
from tt_tensor.margin_losses import __all__ as _margin_losses
from tt_tensor.module_methods import *
from tt_tensor.module_methods import __all__ as _module_methods
from tt_tensor.more_activations import *
from tt_tensor.more_activations import __all__ as _more_activations
from tt_tensor.more_layers import *
from tt_tensor.more_layers import __all__ as _more_layers
from tt_tensor.more_losses import *
from tt_tensor.more_losses import __all__ as _more_losses
from tt_tensor.more_ops import *
from tt_tensor.more_ops import __all__ as _more_ops
from tt_tensor.pointwise import *
from tt_tensor.pointwise import __all__ as _pointwise
from tt_tensor.products import *
from tt_tensor.products import __all__ as _products
from tt_tensor.setup import (
    Measurement, Problem, check_environment, drawing_from, generator, get_rng_state, manual_seed, measure,
    median_time, set_rng_state, system_info, time_once,
)
from tt_tensor.registry import fill
from tt_tensor.tensor import (
    Elementwise, Meter, PRIMITIVES, Primitive, SLOTS, Slot, Tensor, add, as_array, as_rows, bool_, broadcast_shape,
    div, elementwise, evaluate, exp, expand, float16, float32, float64, from_numpy, full, getitem, install,
    install_kernels, int32, int64, interpreting, kernels_in_use, last_write, listening, log, matmul, mean, meter, mul,
    neg, ones, permute, place, primitive, quiet, randn, recording, reshape, slot, sub, sum, tensor, tick, uint8,
    use_kernels, var, zeros,
)

# The contract: what other packages may use.
__all__ = [
    "Measurement", "Problem", "check_environment", "drawing_from", "generator", "get_rng_state", "manual_seed",
    "measure", "median_time", "set_rng_state", "system_info", "time_once", *_fresh_memory, *_devices, *_generators,
    "Elementwise", "Meter", "PRIMITIVES", "Primitive", "SLOTS", "Slot", "Tensor", "add", "as_array", "as_rows", "bool_",
    "broadcast_shape", "div", "elementwise", "evaluate", "exp", "expand", "float16", "float32", "float64",
    "from_numpy", "full", "getitem", "install", "install_kernels", "int32", "int64", "interpreting", "kernels_in_use",
    "last_write", "listening", "log", "matmul", "mean", "meter", "mul", "neg", "ones", "permute", "place", "primitive",
    "quiet", "randn", "reshape", "slot", "sub", "sum", "tensor", "tick", "uint8", "use_kernels", "var", "zeros",
    *_more_ops,
    *_pointwise, *_arranging, *_counting, *_drawing, *_products, "linalg", "elu", "gelu", "gelu_slope", "leaky_relu",
    "log_softmax", "relu", "sigmoid", "silu", "softmax", "softplus", "Dropout", "Flatten", "Identity",
    "Linear", "Module", "ModuleList", "Parameter", "ReLU", "Sequential", "Sigmoid",
    "Softmax", "Tanh", "affine", "dropout", "linear", *_more_activations, *_module_methods, *_containers,
    *_lazy, *_more_layers, *_init, "BCEWithLogitsLoss", "CrossEntropyLoss", "Loss", "MSELoss", "NLLLoss",
    "binary_cross_entropy_with_logits", "cross_entropy", "mse_loss", "nll_loss", "perplexity", "surprise",
    *_more_losses, *_margin_losses,
]

# The methods of a tensor find the functions here.
fill({name: globals()[name] for name in [*__all__, "recording"]})
