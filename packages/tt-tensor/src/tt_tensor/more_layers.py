# # More layers
#
# An appendix of chapter 04. Here we turn the remaining activations into modules, add the layers that need nothing from
# later chapters, and write three helpers for the parameters of a whole network.

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Sequence

from tt_tensor import activations
from tt_tensor import more_activations as functions
from tt_tensor.devices import refuse_other_device
from tt_tensor.layers import Dropout, Module, Parameter
from tt_tensor.more_ops import cat
from tt_tensor.options import FunctionOptions
from tt_tensor.products import cosine_similarity, einsum, pairwise_distance
from tt_tensor.setup import generator
from tt_tensor.tensor import Tensor, full, ones, randn, zeros

# ## Functions as modules
#
# A function of one tensor becomes a module that keeps the function's options as attributes. For these we list the
# options with their defaults in the head of the class, as chapter 04 does for `Softmax`.


class LeakyReLU(FunctionOptions, Module, negative_slope=0.01):
    """leaky_relu as a module; takes the slope below zero."""

    function = staticmethod(activations.leaky_relu)


class ELU(FunctionOptions, Module, alpha=1.0):
    """elu as a module; takes alpha."""

    function = staticmethod(activations.elu)


class Softplus(FunctionOptions, Module, beta=1.0, threshold=20.0):
    """softplus as a module; takes beta and threshold."""

    function = staticmethod(functions.softplus)


class GELU(FunctionOptions, Module, approximate="none"):
    """gelu as a module; takes approximate, "none" or "tanh"."""

    function = staticmethod(activations.gelu)


class SiLU(FunctionOptions, Module):
    """silu as a module."""

    function = staticmethod(activations.silu)


class LogSoftmax(FunctionOptions, Module, dim=None):
    """log_softmax as a module; takes the dimension `dim`."""

    function = staticmethod(functions.log_softmax)


# The functions of the appendix *More activations* know their own options and defaults, so we read these from the
# signature. An option without a default must be given.


class _Function(FunctionOptions, Module):
    def __init_subclass__(cls):
        parameters = list(inspect.signature(cls.function).parameters.values())[1:]
        cls.defaults = {p.name: p.default for p in parameters if p.name != "training"}

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        missing = [name for name in self.defaults if getattr(self, name) is inspect.Parameter.empty]
        if missing:
            raise TypeError(f"{type(self).__name__} needs {', '.join(missing)}")


# Each of them then takes two lines. These are made of straight pieces.


class ReLU6(_Function):
    """relu6 as a module."""

    function = staticmethod(functions.relu6)


class Hardtanh(_Function):
    """hardtanh as a module."""

    function = staticmethod(functions.hardtanh)


class Hardsigmoid(_Function):
    """hardsigmoid as a module."""

    function = staticmethod(functions.hardsigmoid)


class Hardswish(_Function):
    """hardswish as a module."""

    function = staticmethod(functions.hardswish)


class Threshold(_Function):
    """threshold as a module."""

    function = staticmethod(functions.threshold)


class Hardshrink(_Function):
    """hardshrink as a module."""

    function = staticmethod(functions.hardshrink)


class Softshrink(_Function):
    """softshrink as a module."""

    function = staticmethod(functions.softshrink)


# The next ones are smooth.


class Tanhshrink(_Function):
    """tanhshrink as a module."""

    function = staticmethod(functions.tanhshrink)


class SELU(_Function):
    """selu as a module."""

    function = staticmethod(functions.selu)


class CELU(_Function):
    """celu as a module."""

    function = staticmethod(functions.celu)


class Mish(_Function):
    """mish as a module."""

    function = staticmethod(functions.mish)


class Softsign(_Function):
    """softsign as a module."""

    function = staticmethod(functions.softsign)


class LogSigmoid(_Function):
    """logsigmoid as a module."""

    function = staticmethod(functions.logsigmoid)


# The last ones work along a dimension, or behave differently in training and in evaluation.


class GLU(_Function):
    """glu as a module."""

    function = staticmethod(functions.glu)


class Softmin(_Function):
    """softmin as a module."""

    function = staticmethod(lambda x, dim=None: functions.softmin(x, dim))


class Softmax2d(_Function):
    """softmax over the channels of (N, C, H, W) or (C, H, W)."""

    function = staticmethod(lambda x: functions.softmax(x, -3))


class RReLU(_Function):
    """rrelu as a module: random slopes in training, their mean in evaluation."""

    function = staticmethod(functions.rrelu)

    def forward(self, x):
        return functions.rrelu(x, self.lower, self.upper, self.training)


class PReLU(Module):
    """prelu with a learned weight: one, or one for each channel (dimension 1)."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device=None, dtype=None):
        super().__init__()
        refuse_other_device(device)
        self.num_parameters = num_parameters
        self.weight = Parameter(full((num_parameters,), float(init), dtype=dtype))

    def forward(self, x):
        return functions.prelu(x, self.weight)

    def extra_repr(self):
        return f"num_parameters={self.num_parameters}"


def check_options():
    act = Hardtanh(-2.0, max_val=3.0)
    assert act(Tensor([-5.0, 0.5, 5.0])).tolist() == [-2, 0.5, 3] and repr(act) == "Hardtanh(min_val=-2.0, max_val=3.0)"
    act.max_val = 4.0
    assert act(Tensor([5.0])).item() == 4


# ## Dropout


class Dropout1d(Dropout):
    """Drops whole channels of (N, C, L) with probability p in training."""

    def forward(self, x):
        return functions.dropout1d(x, self.p, self.training)


class Dropout2d(Dropout):
    """Drops whole channels of (N, C, H, W) with probability p in training."""

    def forward(self, x):
        return functions.dropout2d(x, self.p, self.training)


class Dropout3d(Dropout):
    """Drops whole channels of (N, C, D, H, W) with probability p in training."""

    def forward(self, x):
        return functions.dropout3d(x, self.p, self.training)


class AlphaDropout(Dropout):
    """Dropout that keeps mean 0 and variance 1, for networks with SELU."""

    def forward(self, x):
        return functions.alpha_dropout(x, self.p, self.training)


# ## Two inputs
#
# A bilinear layer has a matrix for each output $k$. For two inputs it computes $x_1^T W_k\, x_2$.


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input1 (..., a) and input2 (..., b) through weight (out, a, b): (..., out), plus bias (out,). Raises ValueError
    if the sizes do not fit."""
    if weight.ndim != 3 or input1.shape[:-1] != input2.shape[:-1] or weight.shape[1:] != (
        *input1.shape[-1:], *input2.shape[-1:],
    ):
        raise ValueError(
            f"bilinear: inputs of shapes {input1.shape} and {input2.shape} do not fit a weight of shape {weight.shape}"
        )
    out = einsum("...a,oab,...b->...o", input1, weight, input2)
    return out if bias is None else out + bias


class Bilinear(Module):
    """bilinear with a learned weight (out_features, in1_features, in2_features) and bias (out_features,)."""

    def __init__(
        self, in1_features: int, in2_features: int, out_features: int, bias: bool = True, device=None, dtype=None
    ):
        super().__init__()
        refuse_other_device(device)
        if in1_features < 1:
            raise ValueError(f"Bilinear needs at least one feature in its first input, not {in1_features}")
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        self.weight = Parameter(zeros(out_features, in1_features, in2_features, dtype=dtype))
        self.bias = Parameter(zeros((out_features,), dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew, uniformly from +-1 / sqrt(in1_features)."""
        bound = 1 / math.sqrt(self.in1_features)
        for parameter in self.parameters():
            parameter.copy_(generator().uniform(-bound, bound, parameter.shape))

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """(..., in1_features) and (..., in2_features) -> (..., out_features)."""
        return bilinear(x1, x2, self.weight, self.bias)

    def extra_repr(self):
        return f"{self.in1_features}, {self.in2_features} -> {self.out_features}"


# Two more modules compare their inputs row by row.


class CosineSimilarity(Module):
    """The cosine of the angle between two tensors along dim."""

    def __init__(self, dim: int = 1, eps: float = 1e-8):
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """The p-norm of the difference of two tensors along the last dimension."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False):
        super().__init__()
        self.norm, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)


# ## One dimension to several


class Unflatten(Module):
    """Splits one dimension into several: Unflatten(1, (2, 3)) turns (N, 6) into (N, 2, 3)."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]):
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, x: Tensor) -> Tensor:
        dim = self.dim + x.ndim if self.dim < 0 else self.dim
        return x.reshape(*x.shape[:dim], *self.unflattened_size, *x.shape[dim + 1 :])

    def extra_repr(self):
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


def check_two_inputs():
    layer, x1, x2 = Bilinear(2, 3, 4), randn(5, 2), randn(5, 3)
    by_hand = (x1[0] @ layer.weight[1] @ x2[0] + layer.bias[1]).item()  # type: ignore[index]
    assert layer(x1, x2).shape == (5, 4) and math.isclose(layer(x1, x2)[0, 1].item(), by_hand, abs_tol=1e-5)
    assert Unflatten(1, (2, 3))(ones(5, 6)).shape == (5, 2, 3)


# ## All parameters as one vector
#
# Some algorithms treat the parameters of a network as one point in space. We convert in both directions.


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All elements of the parameters in one vector, in their order; recorded like any operation."""
    return cat([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Overwrite the parameters with the elements of a vector. Raises ValueError if it has too few or too many."""
    parameters, start = list(parameters), 0
    total = sum(parameter.numel() for parameter in parameters)
    if vec.shape != (total,):
        raise ValueError(f"the parameters have {total} elements, so a vector of shape {vec.shape} does not fit")
    for parameter in parameters:
        parameter.data = vec[start : start + parameter.numel()].reshape(*parameter.shape)
        start += parameter.numel()


def check_vector():
    layer = Bilinear(2, 3, 4)
    before = parameters_to_vector(layer.parameters())
    vector_to_parameters(before * 2, layer.parameters())
    assert before.shape == (28,) and (parameters_to_vector(layer.parameters()) == before * 2).all()


__all__ = [
    "AlphaDropout", "Bilinear", "CELU", "CosineSimilarity", "Dropout1d", "Dropout2d", "Dropout3d", "ELU", "GELU", "GLU",
    "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid", "LogSoftmax", "Mish", "PReLU",
    "PairwiseDistance", "RReLU", "ReLU6", "SELU", "SiLU", "Softmax2d", "Softmin", "Softplus", "Softshrink", "Softsign",
    "Tanhshrink", "Threshold", "Unflatten", "bilinear", "parameters_to_vector", "vector_to_parameters",
]
