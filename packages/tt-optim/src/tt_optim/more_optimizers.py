# # More optimizers
#
# An appendix of chapter 06. Here are the ancestors of Adam (Adagrad, RMSprop, Adadelta and Rprop) and its descendants
# (Adamax, RAdam and NAdam), all with PyTorch's options, and the other way of gradient clipping.

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from tt_optim.groups import downhill, parameter_list, refuse_negative, refuse_outside_unit, without_effect
from tt_optim.optimizers import Optimizer
from tt_tensor import Parameter, Tensor

# ## Adagrad
#
# Adagrad (Duchi et al., 2011) divides by the root of the *sum* of all squares so far. So its steps only ever become
# smaller. Its theory needs that, but long trainings suffer from it.
#
# The details differ from paper to paper: where we add $\varepsilon$, whether the first step counts as 0 or 1, which
# value the sums start with. We follow PyTorch to the digit.


class Adagrad(Optimizer):
    """Divides by the root of the sum of all squared gradients; as torch.optim.Adagrad."""

    memory = ("sum",)

    def __init__(
        self, params, lr: float = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
        initial_accumulator_value: float = 0, eps: float = 1e-10, foreach: bool | None = None, *,
        maximize: bool = False, differentiable: bool = False, fused: bool | None = None,
    ):
        refuse_negative(lr_decay=lr_decay, eps=eps, initial_accumulator_value=initial_accumulator_value)
        defaults = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "maximize": maximize, "eps": eps}
        defaults |= {"initial_accumulator_value": initial_accumulator_value}
        super().__init__(params, defaults | without_effect(differentiable, foreach=foreach, fused=fused))

    # Our base class counts steps from 1, whereas PyTorch's `lr_decay` counts them from 0.

    def first_state(self, parameter):
        state = super().first_state(parameter)
        state["sum"] += self.defaults["initial_accumulator_value"]
        return state

    def update(self, p, g, state, group):
        g = downhill(p, g, group)
        state["sum"] += g * g
        lr = group["lr"] / (1 + (state["step"] - 1) * group["lr_decay"])
        p -= lr * g / (np.sqrt(state["sum"]) + group["eps"])


# Under a constant gradient the sum grows with the number of steps. So we expect that step number $t$ has the length
# $\eta / \sqrt t$.


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
# RMSprop has a running average in place of the sum, as we saw in chapter 06. Here are its options. With `centered` we
# subtract the square of the mean gradient, and so divide by an estimate of the standard deviation. The first networks
# that played video games were trained in this way. With momentum, the quotient joins a velocity, and RMSprop is nearly
# Adam.


class RMSprop(Optimizer):
    """Divides by the root of a running average of squared gradients; as torch.optim.RMSprop."""

    memory = ("square_avg", "momentum_buffer", "grad_avg")

    def __init__(
        self, params, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0,
        momentum: float = 0, centered: bool = False, capturable: bool = False, foreach: bool | None = None,
        maximize: bool = False, differentiable: bool = False,
    ):
        refuse_outside_unit(alpha=alpha)
        refuse_negative(eps=eps, momentum=momentum)
        defaults = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        defaults |= {"momentum": momentum, "centered": centered}
        super().__init__(params, defaults | without_effect(differentiable, capturable=capturable, foreach=foreach))

    # The variance is the mean of the squares minus the square of the mean.

    def update(self, p, g, state, group):
        average, velocity, mean = (state[name] for name in self.memory)
        alpha, momentum, g = group["alpha"], group["momentum"], downhill(p, g, group)
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


# Under a constant gradient the average after $t$ steps is $(1 - \alpha^t)\, g^2$. RMSprop has no bias correction. So
# for $\alpha = 0.99$ its first step is ten times as long as the learning rate, whatever the gradient.


def check_first_step_of_rmsprop():
    for g in (4.0, -300.0):
        parameter = Parameter(np.array([1.0]))
        parameter.grad = Tensor(np.array([g]))
        RMSprop([parameter], lr=0.1).step()
        assert math.isclose(parameter.item(), 1.0 - math.copysign(0.1 / math.sqrt(1 - 0.99), g), abs_tol=1e-6)


# ## Adadelta
#
# Look at the units. A gradient is loss per weight, so a step of SGD has the wrong unit, and the learning rate must
# repair that. Adadelta (Zeiler, 2012) multiplies RMSprop's quotient, which has no unit, by the usual size of its own
# last steps, which has the unit of a weight. So its first form had no learning rate at all; `lr`, 1 by default, came
# later. The average of the steps starts at 0, and only $\varepsilon$ sets it in motion. Therefore the first steps are
# tiny.


class Adadelta(Optimizer):
    """Makes steps of the usual size of the last steps, divided by that of the gradients; as torch.optim.Adadelta."""

    memory = ("square_avg", "acc_delta")

    def __init__(
        self, params, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0,
        foreach: bool | None = None, *, capturable: bool = False, maximize: bool = False, differentiable: bool = False,
    ):
        if not 0 <= rho <= 1:
            raise ValueError(f"rho must be at least 0 and at most 1, not {rho}")
        refuse_negative(eps=eps)
        defaults = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults | without_effect(differentiable, capturable=capturable, foreach=foreach))

    # It keeps two averages, of the squares of the gradients and of the squares of the steps.

    def update(self, p, g, state, group):
        squares, steps, rho, eps = state["square_avg"], state["acc_delta"], group["rho"], group["eps"]
        g = downhill(p, g, group)
        squares *= rho
        squares += (1 - rho) * g * g
        step = np.sqrt(steps + eps) / np.sqrt(squares + eps) * g
        steps *= rho
        steps += (1 - rho) * step * step
        p -= group["lr"] * step


# If we measure the loss in other units, so that all gradients are a thousand times as large, the walk must not change.


def check_adadelta_needs_no_units():
    ends = []
    for scale in (1.0, 1000.0):
        parameter = Parameter(np.array([1.0]))
        optimizer = Adadelta([parameter], eps=1e-30)
        for _ in range(50):
            parameter.grad = Tensor(scale * parameter.numpy())
            optimizer.step()
        ends.append(parameter.item())
    assert math.isclose(*ends, rel_tol=1e-9)


# ## Rprop
#
# Rprop (Riedmiller and Braun, 1993) uses only the *sign* of the gradient. Each weight has a step length of its own.
# While the sign stays the same, we multiply the length by 1.2. When the sign flips, we halve the length, and the weight
# waits for one step. This works very well with the gradient of all the data, and badly with mini-batches, whose noise
# flips signs all the time. RMSprop was Hinton's repair: divide by a size that is averaged over mini-batches.


class Rprop(Optimizer):
    """Steps by the sign of the gradient, with a length for each weight; as torch.optim.Rprop."""

    memory = ("prev", "step_size")

    def __init__(
        self, params, lr: float = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50), *, capturable: bool = False, foreach: bool | None = None,
        maximize: bool = False, differentiable: bool = False,
    ):
        if not 0 < etas[0] < 1 < etas[1]:
            raise ValueError(f"etas are a factor between 0 and 1 and one above 1, not {etas}")
        defaults = {"lr": lr, "etas": etas, "step_sizes": step_sizes, "maximize": maximize}
        super().__init__(params, defaults | without_effect(differentiable, foreach=foreach, capturable=capturable))

    # The product of two successive gradients is positive if their signs agree. After a flip we remember a gradient of
    # 0, which agrees with nothing, so the next step keeps the shorter length.

    def update(self, p, g, state, group):
        (shrink, grow), (shortest, longest), length = group["etas"], group["step_sizes"], state["step_size"]
        if state["step"] == 1:
            length[...] = group["lr"]
        g = -g if group["maximize"] else g
        agreement = np.sign(g * state["prev"])
        length *= np.where(agreement > 0, grow, np.where(agreement < 0, shrink, 1))
        np.clip(length, shortest, longest, out=length)
        g = np.where(agreement < 0, 0, g)
        p -= np.sign(g) * length
        state["prev"][...] = g


# Down a slope of constant sign, our steps must form a geometric series, however flat the slope is.


def check_lengths_of_rprop():
    parameter = Parameter(np.array([0.0]))
    optimizer = Rprop([parameter], lr=1.0)
    for g in (-7.0, -1e-9, -3.0):
        parameter.grad = Tensor(np.array([g]))
        optimizer.step()
    assert math.isclose(parameter.item(), 1 + 1.2 + 1.44)


# ## Adamax
#
# Adam's paper also contains this variant. In place of the root of an average of squares, it takes the largest gradient
# so far, where older ones count less (the *infinity norm*). That size needs no bias correction, and after one huge
# gradient the steps are short until it has faded.


class Adamax(Optimizer):
    """Adam with the largest gradient, which fades, in place of the average of squares; as torch.optim.Adamax."""

    memory = ("exp_avg", "exp_inf")

    def __init__(
        self, params, lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, foreach: bool | None = None, *, maximize: bool = False, differentiable: bool = False,
        capturable: bool = False,
    ):
        refuse_outside_unit(betas=betas)
        refuse_negative(eps=eps)
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults | without_effect(differentiable, foreach=foreach, capturable=capturable))

    # The first average is Adam's.

    def update(self, p, g, state, group):
        mean, largest, (beta1, beta2) = state["exp_avg"], state["exp_inf"], group["betas"]
        g = downhill(p, g, group)
        mean += (1 - beta1) * (g - mean)
        largest *= beta2
        np.maximum(largest, np.abs(g) + group["eps"], out=largest)
        p -= group["lr"] / (1 - beta1 ** state["step"]) * mean / largest


# ## RAdam and NAdam
#
# Two repairs of Adam have the same form, so we give them a common base class, which keeps the two averages.


class _TwoAverages(Optimizer):
    memory = ("exp_avg", "exp_avg_sq")

    def averages(self, p, g, state, group):
        """Decay p, or add the decay to its gradient g, and add g to the two averages; return g and both averages."""
        mean, squares, (beta1, beta2) = state["exp_avg"], state["exp_avg_sq"], group["betas"]
        g, decay = -g if group["maximize"] else g, group["weight_decay"]
        if decay and group["decoupled_weight_decay"]:
            p *= 1 - group["lr"] * decay
        elif decay:
            g = g + decay * p
        mean += (1 - beta1) * (g - mean)
        squares *= beta2
        squares += (1 - beta2) * g * g
        return g, mean, squares


# In the first few steps the average of squares contains so few numbers that dividing by it is a gamble. Warm-up is the
# usual remedy. RAdam (Liu et al., 2019) computes how far we can trust such an average. Until we can, it steps by the
# plain average of gradients, and afterwards it shortens its steps according to the trust.


class RAdam(_TwoAverages):
    """Adam that divides by the average of squares as far as that can be trusted; as torch.optim.RAdam."""

    def __init__(
        self, params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
        maximize: bool = False, capturable: bool = False, differentiable: bool = False,
    ):
        refuse_outside_unit(betas=betas)
        refuse_negative(eps=eps)
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        defaults |= {"decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, defaults | without_effect(differentiable, foreach=foreach, capturable=capturable))

    # The trust follows from `length`, the number of squares that the average effectively contains. With 4 of them or
    # fewer, its variance is not even finite; like PyTorch, we ask for more than 5.

    def update(self, p, g, state, group):
        _, mean, squares = self.averages(p, g, state, group)
        (beta1, beta2), t = group["betas"], state["step"]
        step, correction = mean / (1 - beta1**t), 1 - beta2**t
        most = 2 / (1 - beta2) - 1
        length = most - 2 * t * beta2**t / correction  # of the average: how many squares it is made of
        if length > 5:
            trust = (length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)
            step = step * math.sqrt(trust * correction) / (np.sqrt(squares) + group["eps"])
        p -= group["lr"] * step


# NAdam (Dozat, 2016) is Adam with Nesterov's look ahead: the step mixes the new gradient with the average, which
# contains it already. Its momentum $\mu$ grows slowly over thousands of steps. So in the bias correction $\beta_1^t$
# becomes the product of all $\mu$ so far, and we must remember that product.


class NAdam(_TwoAverages):
    """Adam with Nesterov momentum; as torch.optim.NAdam."""

    def __init__(
        self, params, lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False, *,
        foreach: bool | None = None, maximize: bool = False, capturable: bool = False, differentiable: bool = False,
    ):
        refuse_outside_unit(betas=betas)
        refuse_negative(eps=eps, momentum_decay=momentum_decay)
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        defaults |= {"momentum_decay": momentum_decay, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, defaults | without_effect(differentiable, foreach=foreach, capturable=capturable))

    # We need this step's momentum and the next one's, because Nesterov looks one step ahead.

    def first_state(self, parameter):
        return {**super().first_state(parameter), "mu_product": 1.0}

    def update(self, p, g, state, group):
        g, mean, squares = self.averages(p, g, state, group)
        (beta1, beta2), t = group["betas"], state["step"]
        mu, next_mu = (beta1 * (1 - 0.5 * 0.96 ** (n * group["momentum_decay"])) for n in (t, t + 1))
        state["mu_product"] *= mu
        product = state["mu_product"]
        size = np.sqrt(squares / (1 - beta2**t)) + group["eps"]
        p -= group["lr"] * ((1 - mu) / (1 - product) * g + next_mu / (1 - product * next_mu) * mean) / size


# As long as we cannot trust its average, the first step of RAdam is the learning rate times the gradient, while Adam's
# is the learning rate.


def check_first_step_of_radam():
    parameter = Parameter(np.array([1.0]))
    parameter.grad = Tensor(np.array([4.0]))
    RAdam([parameter], lr=0.1).step()
    assert math.isclose(parameter.item(), 1 - 0.1 * 4)


# ## Gradients: their length, and another way of clipping
#
# While a network trains, you should watch the common length of all gradients. `clip_grad_norm_` returns it; here we
# compute it alone, in `float64`.


def gradient_norm(parameters: Iterable[Tensor]) -> float:
    """Return the Euclidean length of all gradients taken together; parameters without a gradient count as zero."""
    return math.sqrt(sum((p.grad.double() ** 2).sum().item() for p in parameters if p.grad is not None))


# The root of $2^2 + 3^2 + 6^2$ is 7.


def check_gradient_norm():
    a, b, c = Parameter([0.0]), Parameter([0.0, 0.0]), Parameter([1.0])
    a.grad, b.grad = Tensor([2.0]), Tensor([3.0, 6.0])
    assert gradient_norm([a, b, c]) == 7.0


# `clip_grad_norm_` shortens all gradients by one factor. The other way is to cut off each element. This changes the
# direction. We have it because PyTorch does, and because some old recipes use it.


def clip_grad_value_(parameters, clip_value: float, foreach: bool | None = None) -> None:
    """Cut every element of every gradient off at -clip_value and clip_value. Raises ValueError if that is negative.
    `foreach` has no effect."""
    refuse_negative(clip_value=clip_value)
    for parameter in parameter_list(parameters):
        if parameter.grad is not None:
            array = parameter.grad.writable()
            np.clip(array, -clip_value, clip_value, out=array)


__all__ = [
    "Adadelta", "Adagrad", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "clip_grad_value_", "gradient_norm",
]
