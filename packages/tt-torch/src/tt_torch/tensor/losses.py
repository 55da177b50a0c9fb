"""Chapter 05 on PyTorch: the losses of torch.nn.functional; gradients on paper are PyTorch's autograd."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from .activations import _over_rows, relu
from .layers import Linear, Module, Sequential, Tanh, through_door
from .tensor import Tensor, float32, gradient_of, native, tensor

# ## Losses


@native
def mse_loss(x, target, /, reduction="mean"):
    return functional.mse_loss(x, target, reduction=reduction)


@native
def nll_loss(x, target, /, weight=None, ignore_index=-100, reduction="mean"):
    return functional.nll_loss(x, target, _alike(weight, x), ignore_index=ignore_index, reduction=reduction)


@native(cost=_over_rows)
def cross_entropy(x, target, /, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    options = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing}
    return functional.cross_entropy(x, target, _alike(weight, x), **options)


def _alike(weight, x):
    return weight if weight is None else weight.to(x.dtype)


@native(cost=_over_rows)
def surprise(x, /, labels, importance=None):
    losses = functional.cross_entropy(x, torch.tensor(labels), reduction="none")
    if importance is None:
        return losses
    importance = torch.tensor(importance)
    return (losses * importance).sum() / importance.sum()


# The parts of which the chapter makes these two.


def nll_of_rows(log_probabilities, labels):
    """Minus the element of each row at its label."""
    return nll_loss(log_probabilities, tensor(labels), reduction="none")


def surprises(z, labels):
    """The cross-entropy of each row of an array at its label."""
    return functional.cross_entropy(torch.tensor(z).double(), torch.tensor(labels), reduction="none").numpy()


def weighted(losses, importance, reduction):
    """Losses times their importance, reduced."""
    importance = torch.tensor(importance)
    losses = losses.masked_fill(importance == 0, 0.0) * importance
    if reduction == "mean":
        return losses.sum() / importance.sum()
    return functional.l1_loss(losses, torch.zeros_like(losses), reduction=reduction)


def soft_surprises(log_p, wanted, label_smoothing):
    """The expected surprise of each row, if the smoothed probabilities are true."""
    return cross_entropy(log_p, wanted, reduction="none", label_smoothing=label_smoothing)


@native
def binary_cross_entropy_with_logits(x, target, /, weight=None, reduction="mean", pos_weight=None):
    options = {"reduction": reduction, "pos_weight": pos_weight}
    return functional.binary_cross_entropy_with_logits(x, target, weight, **options)


def mean_squared_distance(y, t):
    """The square of the difference, averaged over whatever shape it has."""
    return ((y - t) ** 2).mean()


class Loss(Module):
    """A loss function and its options; call it with input and target."""


MSELoss, NLLLoss = through_door("MSELoss", mse_loss, Loss), through_door("NLLLoss", nll_loss, Loss)
CrossEntropyLoss = through_door("CrossEntropyLoss", cross_entropy, Loss)
BCEWithLogitsLoss = through_door("BCEWithLogitsLoss", binary_cross_entropy_with_logits, Loss)

# ## Slopes


def slope(loss, x, eps=None):
    """The gradient of `loss()` with respect to x, by moving each element of x in place by +-eps."""
    if not x.is_contiguous():
        raise ValueError(f"slope needs a contiguous tensor: call .contiguous() on this one of shape {x.shape} first")
    eps = eps or (1e-6 if x.dtype == np.float64 else 1e-2)
    values = x.writable().reshape(-1)
    gradient = np.empty(values.shape)
    for i, value in enumerate(values.copy()):
        values[i] = value + eps
        above = loss().item()
        values[i] = value - eps
        gradient[i] = (above - loss().item()) / (2 * eps)
        values[i] = value
    return gradient.reshape(x.shape)


def _gradient(loss, x, target):
    x = x.detach().requires_grad_()
    return gradient_of(loss(x, target), x)


def cross_entropy_gradient(x, target):
    """The gradient of cross_entropy(x, target) with respect to the logits x, by autograd."""
    return _gradient(cross_entropy, x, target)


def mse_gradient(x, target):
    """The gradient of mse_loss(x, target) with respect to x, by autograd."""
    return _gradient(mse_loss, x, target)


def loss_case():
    """The saved numbers for comparing gradients of losses: logits, labels, targets."""
    numbers = np.arange(12.0).reshape(4, 3)
    return Tensor(2 * np.sin(numbers)), tensor([2, 0, 1, 1]), Tensor(np.cos(numbers))


def xor_network():
    """Two inputs, four hidden tanh units, one logit."""
    return Sequential(Linear(2, 4), Tanh(), Linear(4, 1))


def descend(network, loss, rate, steps):
    """Gradient descent; the loss before each step."""
    history = []
    for _ in range(steps):
        value = loss()
        history.append(value.item())
        network.zero_grad()
        value.backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= rate * parameter.grad
    return history


def sum_of_parameters(network):
    """How many numbers the network learns."""
    return sum(parameter.numel() for parameter in network.parameters())


def predict_losses():
    """Six predictions by name."""
    smudge = torch.distributions.Categorical(torch.tensor([0.6, 0.4], dtype=torch.float64)).entropy().item()
    sure = {"ignorance": math.log(1000), "sure and wrong": 1000.0, "twice": 1.0, "smudge": smudge}
    return {**sure, "pairs": 16.0, "passes": 2.0 * sum_of_parameters(xor_network())}


# ## Measures


def accuracy_of(logits, labels):
    """The share of rows whose largest element stands at the position given by the label."""
    return (logits.argmax(dim=1) == labels).to(float32).mean().item()


def perplexity(x, target):
    """exp of the cross-entropy of logits x (N, C) at class numbers."""
    return math.exp(cross_entropy(x, target).item())


def hinge_loss(x, target):
    """The mean of max(0, 1 - target * x)."""
    if x.shape != target.shape:
        raise ValueError(f"hinge_loss: the input has shape {x.shape} and the target {target.shape}")
    return relu(1 - target * x).mean()


def relative_error(a, b):
    """The largest difference, as a share of the largest number in either; 0 for two arrays of zeros."""
    a, b = Tensor(a), Tensor(b)
    largest = max((x.abs().max().item() for x in (a, b) if x.numel()), default=0)
    return (a - b).abs().max().item() / largest if largest else 0.0


__all__ = [
    "BCEWithLogitsLoss", "CrossEntropyLoss", "Loss", "MSELoss", "NLLLoss", "accuracy_of",
    "binary_cross_entropy_with_logits", "cross_entropy", "cross_entropy_gradient", "descend", "hinge_loss",
    "loss_case", "mean_squared_distance", "mse_gradient", "mse_loss", "nll_loss", "perplexity", "relative_error",
    "slope", "sum_of_parameters", "surprise", "xor_network",
]
