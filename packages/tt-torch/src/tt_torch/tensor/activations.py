"""Chapter 03 on PyTorch: torch.nn.functional, and slopes by PyTorch's own autograd."""

from __future__ import annotations


import numpy as np
import torch
from torch.nn import functional

from tt_torch.as_written import as_written

from .more_ops import tanh
from .tensor import Tensor, gradient_of, native, unary

relu, sigmoid, silu = unary(functional.relu), unary(torch.sigmoid), unary(functional.silu)


@native
def leaky_relu(x, /, negative_slope=0.01):
    return functional.leaky_relu(x, negative_slope)


@native
def elu(x, /, alpha=1.0):
    return functional.elu(x, alpha)


@native
def softplus(x, /, beta=1.0):
    return functional.softplus(x, beta)


@native
def gelu(x, /, approximate="none"):
    return functional.gelu(x, approximate=approximate)


def _over_rows(out, x, *others, **params):
    return 3 * x.size


@native(cost=_over_rows)
def softmax(x, /, dim):
    return torch.softmax(x, dim)


@native(cost=_over_rows)
def log_softmax(x, /, dim):
    return torch.log_softmax(x, dim)


# ## Slopes


def slope_of(function, x, **options):
    """The derivative of an elementwise function of torch at x, by autograd."""
    with torch.enable_grad():
        at = x if x.requires_grad else x.detach().requires_grad_()
        return gradient_of(function(at, **options).sum(), at, create_graph=x.requires_grad)


def _slope(function):
    def slope(x, **options):
        found = slope_of(function, Tensor(x), **options)
        return found.numpy().copy() if isinstance(x, np.ndarray) else found

    return slope


relu_slope, elu_slope, sigmoid_slope = _slope(relu), _slope(elu), _slope(sigmoid)
tanh_slope, silu_slope = _slope(tanh), _slope(silu)


@native
def gelu_slope(x, /, approximate="none"):
    return slope_of(functional.gelu, x, approximate=approximate)


def numeric_slope(function, x, distance=1e-6):
    """The derivative of an elementwise function by central differences, in float64."""
    x = np.asarray(x, np.float64)
    return (function(x + distance) - function(x - distance)) / (2 * distance)


def softmax_backward(p, g):
    """The product of softmax's derivative at the probabilities p with the row vectors g."""
    p, g = torch.tensor(np.asarray(p)), torch.tensor(np.asarray(g))
    return torch._softmax_backward_data(g, p, 1, p.dtype).numpy()


# ## What the chapter tells


def sigmoid_naive(x):
    """e to the x in numerator and denominator."""
    return np.exp(x) / (1 + np.exp(x))


def step(x):
    """1 where x is positive, 0 elsewhere."""
    return torch.heaviside(x, x.new_zeros(()))


def xor_points():
    """The four inputs of XOR, shape (4, 2), and its answers, shape (4, 1)."""
    return Tensor([[0, 0], [0, 1], [1, 0], [1, 1]]), Tensor([[0], [1], [1], [0]])


def hard_sigmoid(x):
    """torch.nn.functional.hardsigmoid."""
    return functional.hardsigmoid(x)


def log_sigmoid(x):
    """torch.nn.functional.logsigmoid."""
    return functional.logsigmoid(x)


def softmax_with_temperature(x, temperature):
    """softmax of x / temperature along the last dimension."""
    if temperature <= 0:
        raise ValueError(f"the temperature must be positive, not {temperature}")
    return softmax(x / temperature, dim=-1)


(predict_far_out,) = as_written("tt_tensor.activations", globals(), "predict_far_out")

__all__ = [
    "elu", "elu_slope", "gelu", "gelu_slope", "hard_sigmoid", "leaky_relu", "log_sigmoid", "log_softmax",
    "numeric_slope", "predict_far_out", "relu", "relu_slope", "sigmoid", "sigmoid_naive", "sigmoid_slope", "silu",
    "silu_slope", "softmax", "softmax_backward", "softmax_with_temperature", "softplus", "step", "tanh_slope",
    "xor_points",
]
