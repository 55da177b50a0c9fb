# # More schedulers
#
# An appendix of chapter 06: the rest of PyTorch's schedules. They hold a learning rate back, bend it, restart it or let
# it swing, and one class runs several of them at once.

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tt_optim.optimizers import SGD, Optimizer
from tt_optim.schedulers import (
    LRScheduler, OneCycleLR, for_each_group, refuse_other_schedulers, refuse_without_momentum, set_momentum,
)
from tt_tensor import Parameter

# ## Held back, multiplied, bent
#
# We begin with the bluntest warm-up. `ConstantLR` uses a small learning rate for some steps, and then the full one.


class ConstantLR(LRScheduler):
    """Multiplies the lr by factor during the first total_iters steps."""

    resumes = True

    def __init__(self, optimizer, factor: float = 1 / 3, total_iters: int = 5, last_epoch: int = -1):
        if not 0 <= factor <= 1:
            raise ValueError(f"factor must be in [0, 1], not {factor}")
        self.held, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def factor(self, step):
        return self.held if step < self.total_iters else 1.0


# With `MultiplicativeLR` you supply the formula, as with `LambdaLR`. Here your formula is the ratio from one step to
# the next, so you can combine it with other schedules.


class MultiplicativeLR(LRScheduler):
    """Multiplies the lr by lr_lambda(step) in each step; pass one function, or a list with one for each group. The
    formula is not saved."""

    def __init__(
        self, optimizer, lr_lambda: Callable[[int], float] | list[Callable[[int], float]], last_epoch: int = -1
    ):
        self.lr_lambdas = for_each_group("lr_lambda", optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def lrs_at(self, step):
        return [lr * math.prod(f(i) for i in range(1, step + 1)) for lr, f in zip(self.base_lrs, self.lr_lambdas)]

    def first_lrs(self, lrs):
        return lrs

    def next_lrs(self, lrs, step):
        return [lr * f(step) for lr, f in zip(lrs, self.lr_lambdas)]


# With `PolynomialLR` the learning rate falls to zero in a straight line, or along a power of it. For image segmentation
# a power of 0.9 is usual.


class PolynomialLR(LRScheduler):
    """Multiplies the initial lr by (1 - step / total_iters) to a power, and by 0 from there on."""

    def __init__(self, optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1):
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def factor(self, step):
        return (1 - min(step, self.total_iters) / self.total_iters) ** self.power

    def next_lrs(self, lrs, step):
        return lrs if step > self.total_iters else super().next_lrs(lrs, step)


# ## Warm restarts
#
# The paper that introduced the cosine (Loshchilov and Hutter, 2016) restarts it again and again. After each descent the
# learning rate jumps up, and the network leaves the valley in which it has settled. You can make each period longer
# than the last by a factor. You may also pass a fraction of an epoch to `step`, if you want to change the learning rate
# within an epoch.


class CosineAnnealingWarmRestarts(LRScheduler):
    """Moves the lr along half a cosine to eta_min in T_0 steps, then from the start in T_0 * T_mult steps, and so
    on."""

    resumes = True
    remembered = ("T_cur", "T_i")

    def __init__(self, optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1):
        if T_0 < 1 or T_mult < 1 or not isinstance(T_0, int) or not isinstance(T_mult, int):
            raise ValueError(f"T_0 and T_mult are integers of at least 1, not {T_0} and {T_mult}")
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        self.T_cur: float = last_epoch
        self.T_i = T_0
        self._count()
        super().__init__(optimizer, last_epoch)

    # `T_cur` counts the steps since the last restart, and `T_i` is the length of the present period. So the learning
    # rate is a formula of these two.

    def get_lr(self):
        height = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (lr - self.eta_min) * height for lr in self.base_lrs]

    def lrs_at(self, step):
        self._jump(step)
        return self.get_lr()

    def begin_again(self):
        self.last_epoch = 0
        self._set(self.lrs_at(0))

    # The periods have the lengths $T_0$, $T_0 T_{mult}$, $T_0 T_{mult}^2$ and so on, so the first $n$ of them take
    # $T_0 (T_{mult}^n - 1) / (T_{mult} - 1)$ steps, a geometric sum. From it we compute in which period a step is.

    def _jump(self, epoch: float) -> None:
        if epoch < 0:
            raise ValueError(f"epoch must be 0 or more, not {epoch}")
        if self.T_mult == 1:
            self.T_cur = epoch % self.T_0
            return
        n = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
        self.T_cur = epoch - self.T_0 * (self.T_mult**n - 1) / (self.T_mult - 1)
        self.T_i = self.T_0 * self.T_mult**n

    # Without an argument, we only count.

    def step(self, epoch: float | None = None) -> None:
        """Count one step, or go to that number of epochs, which need not be an integer."""
        if epoch is not None:
            self._jump(epoch)
            self.last_epoch = math.floor(epoch)
        else:
            self.last_epoch += 1
            self._count()
        self._set(self.get_lr())

    def _count(self) -> None:
        self.T_cur += 1
        if self.T_cur >= self.T_i:
            self.T_cur, self.T_i = self.T_cur % self.T_i, self.T_i * self.T_mult


# With $T_0 = 2$ and a doubling, the restarts must be at 2, 6 and 14.


def check_restarts():
    optimizer = SGD([Parameter([0.0])], lr=1.0)
    schedule, restarts = CosineAnnealingWarmRestarts(optimizer, 2, T_mult=2), []
    for step in range(1, 20):
        schedule.step()
        restarts += [step] if schedule.get_last_lr() == [1.0] else []
    assert restarts == [2, 6, 14]


# ## Cycles
#
# How large a learning rate does a network tolerate? Smith (2015) let it swing between two bounds, and so needed no
# exact answer. The bounds are constant, or the swings become smaller: you can halve them each time ("triangular2"),
# multiply them by a factor in each step ("exp_range"), or pass a function of your own.


class CyclicLR(LRScheduler):
    """Raises the lr from base_lr to max_lr in step_size_up steps and lowers it in step_size_down, again and again;
    momentum (or beta1) moves the other way round. Step it after every batch."""

    resumes = True

    def __init__(
        self, optimizer, base_lr: float | list[float], max_lr: float | list[float], step_size_up: int = 2000,
        step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle", cycle_momentum: bool = True,
        base_momentum: float = 0.8, max_momentum: float = 0.9, last_epoch: int = -1,
    ):
        scales = {
            "triangular": lambda cycle: 1.0, "triangular2": lambda cycle: 0.5 ** (cycle - 1),
            "exp_range": lambda step: gamma**step,
        }
        if mode not in scales and scale_fn is None:
            raise ValueError(f"mode is one of {', '.join(scales)}, not {mode!r}; or pass scale_fn")
        self.scale_fn = scale_fn or scales[mode]
        self.counts_steps = scale_mode != "cycle" if scale_fn else mode == "exp_range"
        self.up, self.period = step_size_up, step_size_up + (step_size_up if step_size_down is None else step_size_down)
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            refuse_without_momentum(optimizer)
        lows = for_each_group("base_lr", optimizer, base_lr)
        self.max_lrs = for_each_group("max_lr", optimizer, max_lr)
        self.base_momentums = for_each_group("base_momentum", optimizer, base_momentum)
        self.max_momentums = for_each_group("max_momentum", optimizer, max_momentum)
        for group, low in zip(optimizer.param_groups, lows) if last_epoch == -1 else ():
            group["lr"] = low
            group.setdefault("initial_lr", low)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = lows

    # The height of the swing at a step is between 0 and 1: the fraction of the way up, or of the way down, times the
    # scale.

    def _height(self, step: int) -> float:
        cycle, within = divmod(step, self.period)
        fraction = within / self.up if within <= self.up else (self.period - within) / (self.period - self.up)
        return fraction * self.scale_fn(step if self.counts_steps else cycle + 1)

    def lrs_at(self, step):
        height = self._height(step)
        return [low + (high - low) * height for low, high in zip(self.base_lrs, self.max_lrs)]

    # A cycle is a formula of the step alone, and we set the momentum together with the learning rate.

    def first_lrs(self, lrs):
        return self.lrs_at(0)

    def next_lrs(self, lrs, step):
        return self.lrs_at(step)

    def _set(self, lrs):
        super()._set(lrs)
        height = self._height(self.last_epoch)
        groups = zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums)
        for group, low, high in groups if self.cycle_momentum else ():
            set_momentum(group, high - (high - low) * height)


# ## Several at once
#
# Each scheduler multiplies the learning rate that it finds, so you can step several of them one after the other.
# `ChainedScheduler` is that loop as one object, for programs that accept a single scheduler.


class ChainedScheduler(LRScheduler):
    """Steps all schedulers in each step, in their order."""

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None):
        self.optimizer = optimizer or (schedulers[0].optimizer if schedulers else None)  # type: ignore[assignment]
        refuse_other_schedulers(type(self).__name__, schedulers, self.optimizer)
        self.schedulers, self._last_lr = list(schedulers), self._present()

    def step(self) -> None:  # type: ignore[override]
        """Step all of them."""
        for scheduler in self.schedulers:
            scheduler.step()
        self._last_lr = self._present()

    # Its state is the list of their states.

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all of them."""
        return {"schedulers": [scheduler.state_dict() for scheduler in self.schedulers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken. Raises ValueError for another number of schedulers."""
        saved = state.get("schedulers", []) if isinstance(state, dict) else []
        if len(saved) != len(self.schedulers):
            raise ValueError(f"the saved ChainedScheduler has {len(saved)} schedulers, this one {len(self.schedulers)}")
        for scheduler, its_state in zip(self.schedulers, saved):
            scheduler.load_state_dict(its_state)
        self._last_lr = self._present()


# Two schedulers multiply: one halves the learning rate for two steps, the other divides it by ten in every step.


def check_chained_schedules_multiply():
    optimizer = SGD([Parameter([0.0])], lr=1.0)
    parts = [ConstantLR(optimizer, 0.5, total_iters=2), MultiplicativeLR(optimizer, lambda step: 0.1)]
    schedule, rates = ChainedScheduler(parts), []
    for _ in range(3):
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    assert all(math.isclose(a, b) for a, b in zip(rates, [0.5, 0.05, 0.01]))


# ## Six of them in one picture
#
# We draw a hundred steps of each, with a highest learning rate of 1.


def show_schedules():
    """The learning rate over a hundred steps under six more schedules."""
    import matplotlib.pyplot as plt

    makers: dict[str, Callable] = {
        "ConstantLR(0.3, 20)": lambda o: ConstantLR(o, 0.3, 20),
        "PolynomialLR(80, 0.9)": lambda o: PolynomialLR(o, 80, 0.9),
        "warm restarts (20), doubled": lambda o: CosineAnnealingWarmRestarts(o, 20, 2),
        "CyclicLR, triangular": lambda o: CyclicLR(o, 0.1, 1.0, 10, cycle_momentum=False),
        "CyclicLR, triangular2": lambda o: CyclicLR(o, 0.1, 1.0, 10, mode="triangular2", cycle_momentum=False),
        "OneCycleLR, three phases": lambda o: OneCycleLR(o, 1.0, 101, cycle_momentum=False, three_phase=True),
    }
    figure, axes = plt.subplots(2, 3, figsize=(9, 4), sharex=True, sharey=True)
    for axis, (name, make) in zip(axes.flat, makers.items()):
        scheduler, rates = make(SGD([Parameter([0.0])], lr=1.0)), []
        for _ in range(100):
            rates.append(scheduler.get_last_lr()[0])
            scheduler.step()
        axis.plot(rates)
        axis.set_title(name, fontsize=9)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    return figure


# The restarts and the cycles return to a large learning rate. Whether that helps depends on the valley in which the
# network has settled. With three phases, `OneCycleLR` returns to where it began before it falls to nearly zero.

__all__ = [
    "ChainedScheduler", "ConstantLR", "CosineAnnealingWarmRestarts", "CyclicLR", "MultiplicativeLR", "PolynomialLR",
]
