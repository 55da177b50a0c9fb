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
# Averaged gradient descent (Polyak and Juditsky, 1992) walks as SGD does, with a rate that falls slowly, and keeps the
# average of its path beside the weights. For smooth, convex problems no method gets nearer in the long run.
# From step `t0` on it averages; until then, by default for a million steps, the average is a copy. You find it as
# `state[parameter]["ax"]`.


class ASGD(Optimizer):
    """Gradient descent that also averages the weights; as torch.optim.ASGD."""

    memory = ("ax",)

    def __init__(
        self, params, lr: float = 1e-2, lambd: float = 1e-4, alpha: float = 0.75, t0: float = 1e6,
        weight_decay: float = 0, foreach: bool | None = None, maximize: bool = False, differentiable: bool = False,
        capturable: bool = False,
    ):
        defaults = {"lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay}
        kept = without_effect(differentiable, foreach=foreach, capturable=capturable)
        super().__init__(params, {**defaults, "maximize": maximize, **kept})

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
# The modern form is a copy of the whole model. *Stochastic weight averaging* (Izmailov et al., 2018) averages what the
# weights are after each epoch; an *exponential moving average* follows them at a distance, and is what most image
# generators finally use. The functions say how an average is moved: `avg_fn` gives one tensor's new average,
# `multi_avg_fn` changes a list of them in place.


def get_swa_avg_fn() -> Callable:
    """The mean of all: a function of the average, the new value, and how many the average is made of."""
    return lambda averaged, current, count: averaged + (current - averaged) / (count + 1)


def get_ema_avg_fn(decay: float = 0.999) -> Callable:
    """The exponential moving average. Raises ValueError for a decay outside [0, 1]."""
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must lie in [0, 1], not {decay}")
    return lambda averaged, current, count: decay * averaged + (1 - decay) * current


def get_swa_multi_avg_fn() -> Callable:
    """The mean of all, for lists of tensors, in place."""
    return _for_lists(get_swa_avg_fn())


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable:
    """The exponential moving average, for lists of tensors, in place."""
    return _for_lists(get_ema_avg_fn(decay))


def _for_lists(average: Callable) -> Callable:
    def update(averaged: list[Tensor], current: list[Tensor], count) -> None:
        for a, c in zip(averaged, current):
            _put(a, average(a, c, count))

    return update


def _put(target: Tensor, source: Tensor) -> None:
    target.writable()[...] = source.numpy()


# The first update copies. Buffers, such as the running statistics of a batch normalization, are not averaged unless
# `use_buffers` says so; they follow the model.


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
        """What the averaged model answers."""
        return self.module(*inputs, **options)

    def update_parameters(self, model: Module) -> None:
        """Let a model's present weights join the average."""
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


# The mean of three models is the mean of three numbers.


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
# An average needs something to average, so at the end the rate must not fall to nothing. `SWALR` leads each group from
# the rate that it has to `swa_lr` and stays there.


class SWALR(LRScheduler):
    """lr from what it is to swa_lr in anneal_epochs steps, along half a cosine or in a straight line, and constant from
    there on; as torch.optim.swa_utils.SWALR."""

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
# We look for the mean of numbers of which each step sees a few, so the gradient is noisy. How far from the mean are the
# weights of the last step, and how far is their average over the last hundred steps?


def distances(seed: int) -> tuple[float, float]:
    """How far SGD's last weight, and the average of its last 100 of 200, are from the best one."""
    manual_seed(seed)
    weight = Parameter(np.zeros(1))
    optimizer, path = SGD([weight], lr=0.5), []
    for _ in range(200):
        weight.grad = (weight.detach() - 1.0) + randn(1).double()
        optimizer.step()
        path.append(weight.item())
    return abs(path[-1] - 1.0), abs(sum(path[100:]) / 100 - 1.0)


def show_averaging():
    last, average = zip(*(distances(seed) for seed in range(20)))
    print(f"from the best weight, mean of 20 seeds: the last {np.mean(last):.3f}, the average {np.mean(average):.3f}")


__all__ = [
    "ASGD", "AveragedModel", "SWALR", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
]
