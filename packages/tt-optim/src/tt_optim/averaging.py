# # Averaging weights
#
# An appendix of chapter 06: near the end of a training the weights circle around a good place, and their average is
# nearer to it than any of them.

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tt_optim.groups import downhill, without_effect
from tt_optim.optimizers import SGD, Optimizer
from tt_optim.schedulers import LRScheduler, for_each_group
from tt_tensor import Module, Parameter, Tensor, manual_seed, randn
from tt_tensor.devices import refuse_other_device

# ## ASGD
#
# Averaged gradient descent (Polyak and Juditsky, 1992) walks as SGD does, with a learning rate that falls slowly, and
# keeps the average of its path beside the weights. For smooth, convex problems no method gets nearer in the long run.
# It averages from step `t0` on. Until then, by default for a million steps, the average is a copy of the weights. You
# find it as `state[parameter]["ax"]`.


class ASGD(Optimizer):
    """Stochastic gradient descent that also averages the weights; as torch.optim.ASGD."""

    memory = ("ax",)

    def __init__(
        self, params, lr: float = 1e-2, lambd: float = 1e-4, alpha: float = 0.75, t0: float = 1e6,
        weight_decay: float = 0, foreach: bool | None = None, maximize: bool = False, differentiable: bool = False,
        capturable: bool = False,
    ):
        defaults = {"lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay}
        kept = without_effect(differentiable, foreach=foreach, capturable=capturable)
        super().__init__(params, {**defaults, "maximize": maximize, **kept})

    # Two numbers change from step to step: the learning rate `eta`, and `mu`, the weight of the new value in the
    # average. With $\mu = 1/n$ for the $n$-th value, the average is the mean of all.

    def first_state(self, parameter):
        return {**super().first_state(parameter), "eta": 0.0, "mu": 1.0}

    def update(self, p, g, state, group):
        lr, lambd, t, average = group["lr"], group["lambd"], state["step"], state["ax"]
        eta = state["eta"] if t > 1 else lr
        g = downhill(p, g, group)
        p *= 1 - lambd * eta
        p -= eta * g
        average[...] = p if state["mu"] == 1 else average + (p - average) * state["mu"]
        state["eta"] = lr / (1 + lambd * lr * t) ** group["alpha"]
        state["mu"] = 1 / max(1, t - group["t0"])


# ## A model beside the model
#
# Today we usually average a copy of the whole model. *Stochastic weight averaging* (Izmailov et al., 2018) takes the
# mean of the weights after each epoch. An *exponential moving average* follows the weights at a distance, and most
# image generators finally use it. You choose between them by a function: `avg_fn` returns the new average of one
# tensor, and `multi_avg_fn` changes a list of tensors in place.


def get_swa_avg_fn() -> Callable:
    """Return the mean of all, as a function of the average, the new value, and how many values the average contains."""
    return lambda averaged, current, count: averaged + (current - averaged) / (count + 1)


def get_ema_avg_fn(decay: float = 0.999) -> Callable:
    """Return the exponential moving average, as such a function. Raises ValueError for a decay outside [0, 1]."""
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must be in [0, 1], not {decay}")
    return lambda averaged, current, count: decay * averaged + (1 - decay) * current


# For lists of tensors we apply the same functions, and write each result into its place.


def get_swa_multi_avg_fn() -> Callable:
    """Return the mean of all, as a function that changes a list of tensors in place."""
    return _for_lists(get_swa_avg_fn())


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable:
    """Return the exponential moving average, as a function that changes a list of tensors in place."""
    return _for_lists(get_ema_avg_fn(decay))


def _for_lists(average: Callable) -> Callable:
    def update(averaged: list[Tensor], current: list[Tensor], count) -> None:
        for a, c in zip(averaged, current):
            _put(a, average(a, c, count))

    return update


def _put(target: Tensor, source: Tensor) -> None:
    target.writable()[...] = source.numpy()


# The first update copies the weights. We do not average buffers, such as the running statistics of a batch
# normalization, unless you pass `use_buffers`; we copy them from the model.


class AveragedModel(Module):
    """A copy of a model whose weights are an average of the model's, as torch.optim.swa_utils.AveragedModel: call
    `update_parameters(model)` after each step or epoch."""

    def __init__(
        self, model: Module, device=None, avg_fn: Callable | None = None, multi_avg_fn: Callable | None = None,
        use_buffers: bool = False,
    ):
        super().__init__()
        refuse_other_device(device)
        if avg_fn is not None and multi_avg_fn is not None:
            raise ValueError("pass avg_fn or multi_avg_fn, not both")
        self.module = copy.deepcopy(model)
        self.register_buffer("n_averaged", Tensor(np.array(0)))
        self.average = multi_avg_fn or _for_lists(avg_fn or get_swa_avg_fn())
        self.use_buffers = use_buffers

    def forward(self, *inputs, **options) -> Any:
        """Return the output of the averaged model."""
        return self.module(*inputs, **options)

    # The count of updates is a buffer, so that it is saved with the model.

    def update_parameters(self, model: Module) -> None:
        """Add the present weights of a model to the average."""
        averaged, current = ([t.detach() for t in m.parameters()] for m in (self.module, model))
        buffers = list(zip(self.module.buffers(), model.buffers()))
        if self.use_buffers:
            averaged, current = averaged + [b for b, _ in buffers], current + [b for _, b in buffers]
        count = int(self.n_averaged)
        if count:
            self.average(averaged, current, count)
        for target, source in [*(() if count else zip(averaged, current)), *(() if self.use_buffers else buffers)]:
            _put(target, source)
        self.n_averaged.writable()[...] += 1


# In the simplest case a model is a single number, and we know the mean of three numbers.


def check_mean_of_three():
    model = Module()
    model.weight = Parameter([0.0])
    averaged = AveragedModel(model)
    for value in (1.0, 2.0, 6.0):
        model.weight.data = Tensor([value])
        averaged.update_parameters(model)
    assert averaged.module.weight.item() == 3.0 and int(averaged.n_averaged) == 3


# ## A rate that keeps moving
#
# If the weights hardly move, there is nothing to average. So we must not let the learning rate fall to zero at the end.
# `SWALR` leads each group from its present learning rate to `swa_lr` and keeps it there.


class SWALR(LRScheduler):
    """Moves the lr from its present value to swa_lr in anneal_epochs steps, along half a cosine or in a straight line,
    and keeps it constant from there on; as torch.optim.swa_utils.SWALR."""

    def __init__(
        self, optimizer, swa_lr: float, anneal_epochs: int = 10, anneal_strategy: str = "cos", last_epoch: int = -1
    ):
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f'anneal_strategy is "cos" or "linear", not {anneal_strategy!r}')
        if anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be 0 or more, not {anneal_epochs}")
        self.anneal_epochs, self.strategy = anneal_epochs, anneal_strategy
        for group, lr in zip(optimizer.param_groups, for_each_group("swa_lr", optimizer, swa_lr)):
            group["swa_lr"] = lr
        super().__init__(optimizer, last_epoch)

    # `_share` is the fraction $s$ of the way that is behind us. The learning rate is $(1 - s)\, \eta_0 + s\,
    # \eta_{swa}$. Since another scheduler may have changed it, we recover $\eta_0$ from the present value.

    def _share(self, step: int) -> float:
        t = min(1.0, max(0.0, step / max(1, self.anneal_epochs)))
        return (1 - math.cos(math.pi * t)) / 2 if self.strategy == "cos" else t

    def first_lrs(self, lrs):
        return lrs if self.anneal_epochs else [group["swa_lr"] for group in self.optimizer.param_groups]

    def next_lrs(self, lrs, step):
        ends, before, now = [g["swa_lr"] for g in self.optimizer.param_groups], self._share(step - 1), self._share(step)
        if before == 1:
            return ends
        return [end * now + (lr - before * end) / (1 - before) * (1 - now) for lr, end in zip(lrs, ends)]


# ## How much it helps
#
# We let SGD look for a best weight of 1, with a noisy gradient, as mini-batches would give us. How far from 1 is the
# weight after the last step, and how far is the average over the last hundred steps?


def distances(seed: int) -> tuple[float, float]:
    """Return how far SGD's last weight, and the average of its last 100 of 200, are from the best weight."""
    manual_seed(seed)
    weight = Parameter(np.zeros(1))
    optimizer, path = SGD([weight], lr=0.5), []
    for _ in range(200):
        weight.grad = (weight.detach() - 1.0) + randn(1).double()
        optimizer.step()
        path.append(weight.item())
    return abs(path[-1] - 1.0), abs(sum(path[100:]) / 100 - 1.0)


# A single run proves nothing here, so we take the mean over twenty seeds.


def show_averaging():
    last, average = zip(*(distances(seed) for seed in range(20)))
    print(f"from the best weight, mean of 20 seeds: the last {np.mean(last):.3f}, the average {np.mean(average):.3f}")


__all__ = [
    "ASGD", "AveragedModel", "SWALR", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
]
