# # More optimizers
#
# An appendix of chapter 06: the ancestors of Adam, Adagrad and RMSprop, with all of PyTorch's options, and the other
# way of clipping.

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from tt_optim.groups import parameter_list, refuse_negative, refuse_outside_unit
from tt_optim.optimizers import Optimizer
from tt_tensor import Parameter, Tensor

# ## Adagrad
#
# Adagrad (Duchi et al., 2011) divides by the root of the *sum* of all squares so far. Its steps only ever get smaller,
# which is what its theory wants and long trainings do not.
#
# The bookkeeping differs from paper to paper, so we follow PyTorch to the digit: where $\varepsilon$ stands, whether
# the first step counts as 0 or 1, what the sums start with.


class Adagrad(Optimizer):
    """Divide by the root of the sum of all squared gradients; as torch.optim.Adagrad."""

    memory = ("sum",)

    def __init__(
        self, params, lr: float = 1e-2, lr_decay: float = 0.0, weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0, eps: float = 1e-10,
    ):
        refuse_negative(lr_decay=lr_decay, eps=eps)
        defaults = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "initial_accumulator_value": initial_accumulator_value, "eps": eps})

    def first_state(self, parameter):
        state = super().first_state(parameter)
        state["sum"] += self.defaults["initial_accumulator_value"]
        return state

    def update(self, p, g, state, group):
        if group["weight_decay"]:
            g = g + group["weight_decay"] * p
        state["sum"] += g * g
        lr = group["lr"] / (1 + (state["step"] - 1) * group["lr_decay"])
        p -= lr * g / (np.sqrt(state["sum"]) + group["eps"])


# Under a constant gradient the sum grows with the number of steps, so step number $t$ has the length $\eta / \sqrt t$.


def check_steps_of_adagrad():
    parameter = Parameter(np.array([0.0]))
    optimizer, before = Adagrad([parameter], lr=1.0), 0.0
    for t in range(1, 5):
        parameter.grad = Tensor(np.array([-7.0]))
        optimizer.step()
        assert math.isclose(parameter.item() - before, 1 / math.sqrt(t))
        before = parameter.item()


# ## RMSprop
#
# RMSprop has a running average in place of the sum, as chapter 06 tells. Here are its options. `centered` subtracts the
# square of the mean gradient and so divides by an estimate of the standard deviation; it was used to train the first
# networks that played video games. With momentum, the quotient joins a velocity, and RMSprop is nearly Adam.


class RMSprop(Optimizer):
    """Divide by the root of a running average of squared gradients; as torch.optim.RMSprop."""

    memory = ("square_avg", "momentum_buffer", "grad_avg")

    def __init__(
        self, params, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0,
        momentum: float = 0.0, centered: bool = False,
    ):
        refuse_outside_unit(alpha=alpha)
        refuse_negative(eps=eps, momentum=momentum)
        defaults = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "momentum": momentum, "centered": centered})

    def update(self, p, g, state, group):
        average, velocity, mean = (state[name] for name in self.memory)
        alpha, momentum = group["alpha"], group["momentum"]
        if group["weight_decay"]:
            g = g + group["weight_decay"] * p
        average *= alpha
        average += (1 - alpha) * g * g
        spread = average
        if group["centered"]:
            mean += (1 - alpha) * (g - mean)
            spread = average - mean * mean
        step = g / (np.sqrt(spread) + group["eps"])
        if momentum:
            velocity *= momentum
            velocity += step
            step = velocity
        p -= group["lr"] * step


# Under a constant gradient the average after $t$ steps is $(1 - \alpha^t)\, g^2$. There is no correction, so the first
# step is ten times as long as the rate for $\alpha = 0.99$, whatever the gradient.


def check_first_step_of_rmsprop():
    for g in (4.0, -300.0):
        parameter = Parameter(np.array([1.0]))
        parameter.grad = Tensor(np.array([g]))
        RMSprop([parameter], lr=0.1).step()
        assert math.isclose(parameter.item(), 1.0 - math.copysign(0.1 / math.sqrt(1 - 0.99), g), abs_tol=1e-6)


# ## Gradients: their length, and another way of clipping
#
# The common length of all gradients is worth watching while a network trains. `clip_grad_norm_` returns it, and here it
# is by itself, computed in `float64`.


def gradient_norm(parameters: Iterable[Tensor]) -> float:
    """The Euclidean length of all gradients taken together; parameters without a gradient count as zero."""
    return math.sqrt(sum((p.grad.double() ** 2).sum().item() for p in parameters if p.grad is not None))


def check_gradient_norm():
    a, b, c = Parameter([0.0]), Parameter([0.0, 0.0]), Parameter([1.0])
    a.grad, b.grad = Tensor([2.0]), Tensor([3.0, 6.0])
    assert gradient_norm([a, b, c]) == 7.0


# `clip_grad_norm_` shortens all gradients by one factor. The other way cuts each element off. It changes the direction,
# and it is here because PyTorch has it and some old recipes want it.


def clip_grad_value_(parameters, clip_value: float) -> None:
    """Cut every element of every gradient off at -clip_value and clip_value. Raises ValueError if that is negative."""
    refuse_negative(clip_value=clip_value)
    for parameter in parameter_list(parameters):
        if parameter.grad is not None:
            array = parameter.grad.writable()
            np.clip(array, -clip_value, clip_value, out=array)


__all__ = ["Adagrad", "RMSprop", "clip_grad_value_", "gradient_norm"]
