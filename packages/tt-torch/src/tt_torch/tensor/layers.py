"""Chapter 04 on PyTorch: torch.nn, with parameters that are Tensors of the course."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tt_torch.as_written import as_written

from . import activations
from .more_ops import tanh
from .tensor import Tensor, chance, matmul, native, one_dtype, ones, torch_dtype


class Parameter(Tensor):
    """A tensor that a module learns; an nn.Parameter to everybody who asks."""

    _is_param = True  # what nn.Parameter's own isinstance looks for

    def __new__(cls, data, requires_grad=True):
        return super().__new__(cls, data, requires_grad=requires_grad)

    def __repr__(self):
        return f"Parameter containing:\n{super().__repr__()}"


class Module(nn.Module):
    """nn.Module; a parameter that a layer of PyTorch makes becomes one of ours."""

    def __setattr__(self, name, value):
        super().__setattr__(name, Parameter(value) if type(value) is nn.Parameter else value)

    def to(self, dtype):
        """All floating-point parameters and buffers as another dtype, in place."""
        return super().to(torch_dtype(dtype))

    def _apply(self, function, recurse=True):
        for tensor in (*self.parameters(), *self.buffers()):
            torch.Tensor.data.__set__(tensor, function(tensor.detach().as_subclass(torch.Tensor)))
            tensor.grad = None
        return self


# ## Linear


@native(cost=lambda out, x, weight, *bias: out.size * x.shape[-1])
def affine(x, weight, bias, /):
    return functional.linear(*one_dtype(x, weight, bias))


def linear(x, weight, bias=None):
    """torch.nn.functional.linear."""
    return matmul(x, weight.T) if bias is None else affine(x, weight, bias)


class Linear(Module, nn.Linear):
    """torch.nn.Linear."""

    def reset_parameters(self):
        chance()
        super().reset_parameters()

    def forward(self, x):
        return linear(x, self.weight, self.bias)


class ModuleList(Module, nn.ModuleList):
    """torch.nn.ModuleList."""


class Sequential(Module, nn.Sequential):
    """torch.nn.Sequential."""


# ## Layers without parameters


def through_door(name, function, base=Module):
    """The module of torch.nn of this name, but calling a primitive, with those of its attributes that are options."""

    def forward(self, *tensors):
        return function(*tensors, **{option: getattr(self, option) for option in options})

    options = [p.name for p in function.signature.parameters.values() if p.kind is not p.POSITIONAL_ONLY]
    return type(name, (base, getattr(nn, name)), {"forward": forward, "__module__": __name__})


ReLU = through_door("ReLU", activations.relu)
Sigmoid, Tanh = through_door("Sigmoid", activations.sigmoid), through_door("Tanh", tanh)


class Softmax(through_door("Softmax", activations.softmax)):
    """torch.nn.Softmax, by default over the last dimension."""

    def __init__(self, dim=-1):
        super().__init__(dim)


class Identity(Module, nn.Identity):
    """torch.nn.Identity."""


class Flatten(Module, nn.Flatten):
    """torch.nn.Flatten."""


def dropout(x, p=0.5, training=True):
    """torch.nn.functional.dropout; x itself when not training."""
    chance()
    kept = functional.dropout(torch.ones_like(x), p, training)
    return x * kept if training else x


class Dropout(Module, nn.Dropout):
    """torch.nn.Dropout."""

    def forward(self, x):
        return dropout(x, self.p, self.training)


# ## What the chapter tells


def digits_network():
    """64 pixels to 10 digits, with three hidden layers."""
    return Sequential(Linear(64, 128), ReLU(), Linear(128, 64), ReLU(), Linear(64, 32), ReLU(), Linear(32, 10))


@torch.no_grad()
def train_perceptron(layer, x, labels, epochs=20):
    """Rosenblatt's rule; the number of corrections in each epoch."""
    history = []
    for _ in range(epochs):
        mistakes = 0
        for example, label in zip(x, labels):
            if label * layer(example) <= 0:
                layer.weight.add_(label * example)
                layer.bias.add_(label)
                mistakes += 1
        history.append(mistakes)
    return history


class Residual(Module):
    """x + inner(x)."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


def count_parameters(module):
    """How many numbers each direct part of the module learns."""
    return {name: sum(p.numel() for p in part.parameters()) for name, part in module.named_children()}


def freeze(module, prefix):
    """Ask for no gradients of the parameters whose names start with `prefix`; returns their number."""
    return len([p.requires_grad_(False) for name, p in module.named_parameters() if name.startswith(prefix)])


Listed, Replaced, Scaled, Twice, predict_parameters = as_written(
    "tt_tensor.layers", {**globals(), "ones": ones}, "Listed", "Replaced", "Scaled", "Twice", "predict_parameters"
)

__all__ = [
    "Dropout", "Flatten", "Identity", "Linear", "Listed", "Module", "ModuleList", "Parameter", "ReLU", "Replaced",
    "Residual", "Scaled", "Sequential", "Sigmoid", "Softmax", "Tanh", "Twice", "affine", "count_parameters",
    "digits_network", "dropout", "freeze", "linear", "predict_parameters", "train_perceptron",
]
