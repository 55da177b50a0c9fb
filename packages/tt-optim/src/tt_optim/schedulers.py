# # Schedulers
#
# The appendix of chapter 06. A step length that is right at the beginning is too long at the end. A scheduler changes
# `group["lr"]` of an optimizer as training goes on; PyTorch's names and numbers.

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable
from typing import Any

from tt_optim.optimizers import SGD, Optimizer

# ## The idea
#
# Almost every schedule is a formula: a factor that depends on the number of steps taken, times the rate that the
# optimizer started with. So a scheduler is a count and a method `factor(step)`. It sets the first rate when it is made,
# and the next one whenever its `step()` is called, after the optimizer's.
#
# There is a choice to make. Set to the formula's value, the rate would forget whatever else has changed it: a second
# scheduler, or your own hand. As in PyTorch, `step()` therefore *multiplies* the rate that it finds by the quotient of
# two factors, this step's and the last one's. One scheduler alone gives its formula, two give the product of theirs.


class LRScheduler:
    """The base class: in each step the lr of each group is multiplied by `ratio(last_epoch)`, which makes it the
    initial lr times `factor(last_epoch)` if nothing else changes it."""

    def __init__(self, optimizer: Optimizer):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"a scheduler needs an optimizer, not {type(optimizer).__name__}")
        self.optimizer, self.last_epoch = optimizer, 0
        self.base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self._set(self.first_lrs(self.get_last_lr()))

    def factor(self, step: int) -> float:
        """What the initial lr is multiplied by after `step` steps."""
        raise NotImplementedError

    def ratio(self, step: int) -> float:
        """What the lr is multiplied by in step number `step`, from 1."""
        return self.factor(step) / self.factor(step - 1)

    def step(self) -> None:
        """Count one step and set the lr that follows it."""
        lrs = self.next_lrs(self.get_last_lr(), self.last_epoch + 1)
        self.last_epoch += 1
        self._set(lrs)

    def lrs_at(self, step: int) -> list[float]:
        """The lr of each group after `step` steps, if nothing but this scheduler changes it."""
        return [lr * self.factor(step) for lr in self.base_lrs]

    def first_lrs(self, lrs: list[float]) -> list[float]:
        """The lr of each group at step 0, from that which it has."""
        return [lr * self.factor(0) for lr in lrs]

    def next_lrs(self, lrs: list[float], step: int) -> list[float]:
        """The lr of each group after step number `step`, from that before it."""
        if self.factor(step - 1) == 0:
            return self.lrs_at(step)
        return [lr * self.ratio(step) for lr in lrs]

    def begin_again(self) -> None:
        """Count from 0, at the initial lr."""
        self.last_epoch = 0
        self._set(self.lrs_at(0))

    def _set(self, lrs: list[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, lrs):
            group["lr"] = lr

    def get_last_lr(self) -> list[float]:
        """The lr that each group has now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What has to be saved to go on later: the count, and the initial and present rates."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs), "lrs": self.get_last_lr()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken. Raises ValueError, before anything is changed, if it does not fit."""
        _require_keys(state, ["last_epoch", "base_lrs"])
        if len(state["base_lrs"]) != len(self.base_lrs):
            raise ValueError(f"the saved scheduler has {len(state['base_lrs'])} groups, this one {len(self.base_lrs)}")
        self.last_epoch, self.base_lrs = state["last_epoch"], list(state["base_lrs"])
        self._set(state.get("lrs") or self.lrs_at(self.last_epoch))


def _require_keys(state, names):
    if not isinstance(state, dict) or not set(names) <= state.keys():
        raise ValueError(f"this is not the state of such a scheduler: it must have {', '.join(names)}")


# ## Staircases and slides


class StepLR(LRScheduler):
    """lr times gamma every step_size steps."""

    def __init__(self, optimizer, step_size: int, gamma: float = 0.1):
        if step_size < 1:
            raise ValueError(f"step_size must be at least 1, not {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def factor(self, step):
        return self.gamma ** (step // self.step_size)


class MultiStepLR(LRScheduler):
    """lr times gamma at each of the milestones."""

    def __init__(self, optimizer, milestones: Iterable[int], gamma: float = 0.1):
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def factor(self, step):
        return self.gamma ** bisect.bisect_right(self.milestones, step)


class ExponentialLR(LRScheduler):
    """lr times gamma in every step."""

    def __init__(self, optimizer, gamma: float):
        self.gamma = gamma
        super().__init__(optimizer)

    def factor(self, step):
        return self.gamma**step


# A formula of your own need not be a product of ratios, so `LambdaLR` sets what it says, whatever the rate is, like
# PyTorch's.


class LambdaLR(LRScheduler):
    """lr times lr_lambda(step): any formula of your own, or a list with one for each group. The formula itself is not
    saved."""

    def __init__(self, optimizer, lr_lambda: Callable[[int], float] | list[Callable[[int], float]]):
        self.lambdas = lr_lambda if isinstance(lr_lambda, list) else [lr_lambda] * len(optimizer.param_groups)
        if len(self.lambdas) != len(optimizer.param_groups):
            raise ValueError(f"{len(self.lambdas)} formulas for {len(optimizer.param_groups)} groups")
        super().__init__(optimizer)

    def lrs_at(self, step):
        return [lr * formula(step) for lr, formula in zip(self.base_lrs, self.lambdas)]

    def first_lrs(self, lrs):
        return self.lrs_at(0)

    def next_lrs(self, lrs, step):
        return self.lrs_at(step)


# The cosine (Loshchilov and Hutter, 2016) starts flat, falls, and ends flat, at `eta_min` after `T_max` steps. What is
# multiplied is the height above `eta_min`. After the lowest point, where that height is 0, the first step up starts
# from the formula.


class CosineAnnealingLR(LRScheduler):
    """lr along half a cosine from its initial value to eta_min in T_max steps."""

    def __init__(self, optimizer, T_max: int, eta_min: float = 0.0):
        if T_max < 1:
            raise ValueError(f"T_max must be at least 1, not {T_max}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def lrs_at(self, step):
        return [
            self.eta_min + (lr - self.eta_min) * (1 + math.cos(math.pi * step / self.T_max)) / 2 for lr in self.base_lrs
        ]

    def first_lrs(self, lrs):
        return lrs

    def next_lrs(self, lrs, step):
        if (step - 1 - self.T_max) % (2 * self.T_max) == 0:
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [lr + (base - self.eta_min) * rise for lr, base in zip(lrs, self.base_lrs)]
        now, before = (1 + math.cos(math.pi * s / self.T_max) for s in (step, step - 1))
        return [self.eta_min + (lr - self.eta_min) * now / before for lr in lrs]


# ## Warm-up
#
# Adam's averages know little in the first steps, and large steps on little knowledge do damage. A warm-up starts low
# and rises in a straight line; `SequentialLR` goes on from there with another schedule.


class LinearLR(LRScheduler):
    """lr times a factor that goes in a straight line from start_factor to end_factor in total_iters steps."""

    def __init__(self, optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5):
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(
                f"start_factor must lie in (0, 1] and end_factor in [0, 1]; they are {start_factor} and {end_factor}"
            )
        if total_iters < 1:
            raise ValueError(f"total_iters must be at least 1, not {total_iters}")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def factor(self, step):
        return (
            self.start_factor + (self.end_factor - self.start_factor) * min(step, self.total_iters) / self.total_iters
        )


class SequentialLR(LRScheduler):
    """One schedule after the other: schedulers[i] from step milestones[i - 1] on, which it counts as its own step 0."""

    def __init__(self, optimizer, schedulers: list[LRScheduler], milestones: list[int]):
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"{len(schedulers)} schedulers need {len(schedulers) - 1} milestones between them, not "
                f"{len(milestones)}"
            )
        for scheduler in schedulers:
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(
                    f"SequentialLR cannot contain {type(scheduler).__name__}, whose rate is not a function of the "
                    "step alone; step it beside the others"
                )
        if any(s.optimizer is not optimizer for s in schedulers):
            raise ValueError("all schedulers must belong to the same optimizer")
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        super().__init__(optimizer)

    def _which(self, step: int) -> tuple[LRScheduler, int]:
        which = bisect.bisect_right(self.milestones, step)
        return self.schedulers[which], step - (self.milestones[which - 1] if which else 0)

    def lrs_at(self, step):
        scheduler, step = self._which(step)
        return scheduler.lrs_at(step)

    def first_lrs(self, lrs):
        self._set(self.base_lrs)
        self.schedulers[0].last_epoch = 0
        return self.schedulers[0].first_lrs(self.base_lrs)

    def begin_again(self):
        self.last_epoch = 0
        self.schedulers[0].begin_again()

    def step(self):
        scheduler, own_step = self._which(self.last_epoch + 1)
        scheduler.step() if own_step else scheduler.begin_again()
        self.last_epoch += 1

    def state_dict(self):
        return {**super().state_dict(), "schedulers": [s.state_dict() for s in self.schedulers]}

    def load_state_dict(self, state):
        saved = state.get("schedulers", []) if isinstance(state, dict) else []
        before = [s.state_dict() for s in self.schedulers]
        if saved and len(saved) != len(before):
            raise ValueError(f"the saved SequentialLR has {len(saved)} schedulers, this one {len(before)}")
        try:
            for scheduler, its_state in zip(self.schedulers, saved):
                scheduler.load_state_dict(its_state)
            super().load_state_dict(state)
        except ValueError:
            for scheduler, its_state in zip(self.schedulers, before):
                scheduler.load_state_dict(its_state)
            raise
        if not saved:  # a file of an earlier version, in which the count of the whole said everything
            scheduler, scheduler.last_epoch = self._which(self.last_epoch)


# One cycle (Smith and Topin, 2017) is both in one: up to a large rate, down to a tiny one, and momentum the other way
# round, low where the rate is high.


class OneCycleLR(LRScheduler):
    """lr up from max_lr / div_factor to max_lr, then down to that divided by final_div_factor; momentum (or beta1)
    the other way round. Step it after every batch."""

    def __init__(
        self, optimizer, max_lr: float, total_steps: int, pct_start: float = 0.3, anneal_strategy: str = "cos",
        cycle_momentum: bool = True, base_momentum: float = 0.85, max_momentum: float = 0.95, div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ):
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f'anneal_strategy is "cos" or "linear", not {anneal_strategy!r}')
        if total_steps < 1 or not 0 <= pct_start <= 1:
            raise ValueError(
                f"total_steps must be at least 1 and pct_start lie in [0, 1]; they are {total_steps} and {pct_start}"
            )
        self.max_lr, self.total_steps, self.strategy = max_lr, total_steps, anneal_strategy
        self.top, self.last = pct_start * total_steps - 1, total_steps - 1
        self.lowest, self.final = max_lr / div_factor, max_lr / div_factor / final_div_factor
        self.momenta = (max_momentum, base_momentum) if cycle_momentum else None
        super().__init__(optimizer)
        for group in optimizer.param_groups:
            group["initial_lr"] = self.lowest

    def _between(self, start: float, end: float, share: float) -> float:
        return (
            end + (start - end) * (1 + math.cos(math.pi * share)) / 2
            if self.strategy == "cos"
            else start + (end - start) * share
        )

    def _cycle(self, step: int, low: float, high: float, final: float) -> float:
        if step > self.total_steps:
            raise ValueError(f"OneCycleLR was made for {self.total_steps} steps; this would be step {step}")
        if step <= self.top:
            return self._between(low, high, step / self.top if self.top else 1.0)
        return self._between(high, final, (step - self.top) / (self.last - self.top))

    def lrs_at(self, step):
        return [self._cycle(step, self.lowest, self.max_lr, self.final)] * len(self.base_lrs)

    def _set(self, lrs):
        super()._set(lrs)
        if self.momenta:
            high, low = self.momenta
            momentum = self._cycle(self.last_epoch, high, low, high)
            for group in self.optimizer.param_groups:
                group.update({"betas": (momentum, group["betas"][1])} if "betas" in group else {"momentum": momentum})

    def first_lrs(self, lrs):
        return self.lrs_at(0)

    def next_lrs(self, lrs, step):
        return self.lrs_at(step)


# ## When nothing improves
#
# The last one is not a formula. It watches a number, a validation loss, and lowers the rate when that has not improved
# for some time.


class ReduceLROnPlateau:
    """lr times factor when the number given to step() has not improved for more than `patience` steps."""

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10, threshold: float = 1e-4,
        cooldown: int = 0, min_lr: float = 0.0, eps: float = 1e-8,
    ):
        if mode not in ("min", "max"):
            raise ValueError(f'mode is "min" or "max", not {mode!r}')
        if not 0 < factor < 1:
            raise ValueError(f"factor must lie between 0 and 1, it is {factor}")
        self.optimizer, self.mode, self.factor, self.patience, self.threshold = (
            optimizer, mode, factor, patience, threshold,
        )
        self.cooldown, self.min_lr, self.eps = cooldown, min_lr, eps
        self.best, self.bad_steps, self.cooling, self.last_epoch = (math.inf if mode == "min" else -math.inf), 0, 0, 0

    def step(self, metric: float) -> None:
        """Take note of the number after an epoch; perhaps lower the lr."""
        metric, self.last_epoch = float(metric), self.last_epoch + 1
        if self._improved(metric):
            self.best, self.bad_steps = metric, 0
        else:
            self.bad_steps += 1
        if self.cooling:
            self.cooling, self.bad_steps = self.cooling - 1, 0
        if self.bad_steps > self.patience:
            self._lower()
            self.cooling, self.bad_steps = self.cooldown, 0

    def _improved(self, metric):
        if self.mode == "min":
            return metric < self.best * (1 - self.threshold)
        return metric > self.best * (1 + self.threshold)

    def _lower(self):
        for group in self.optimizer.param_groups:
            lower = max(group["lr"] * self.factor, self.min_lr)
            if group["lr"] - lower > self.eps:
                group["lr"] = lower

    def get_last_lr(self) -> list[float]:
        """The lr that each group has now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What has to be saved to go on later."""
        return {name: getattr(self, name) for name in ("best", "bad_steps", "cooling", "last_epoch")} | {
            "lrs": self.get_last_lr()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken. Raises ValueError for the state of another kind of scheduler."""
        _require_keys(state, ["best", "bad_steps", "cooling", "last_epoch", "lrs"])
        if len(state["lrs"]) != len(self.optimizer.param_groups):
            raise ValueError(
                f"the saved scheduler has {len(state['lrs'])} groups, this one {len(self.optimizer.param_groups)}"
            )
        for name in ("best", "bad_steps", "cooling", "last_epoch"):
            setattr(self, name, state[name])
        for group, lr in zip(self.optimizer.param_groups, state["lrs"]):
            group["lr"] = lr


# ## Six of them in one picture


def show_schedules():
    import matplotlib.pyplot as plt

    from tt_tensor import Parameter

    def optimizer():
        return SGD([Parameter([0.0])], lr=1.0)

    def warm_cosine(o):
        return SequentialLR(o, [LinearLR(o, 0.05, total_iters=10), CosineAnnealingLR(o, 90)], [10])

    makers: dict[str, Callable] = {
        "StepLR(25, 0.5)": lambda o: StepLR(o, 25, 0.5),
        "MultiStepLR([40, 80])": lambda o: MultiStepLR(o, [40, 80], 0.3),
        "ExponentialLR(0.96)": lambda o: ExponentialLR(o, 0.96),
        "CosineAnnealingLR(100)": lambda o: CosineAnnealingLR(o, 100),
        "warm-up, then cosine": warm_cosine,
        "OneCycleLR": lambda o: OneCycleLR(o, 1.0, 101, cycle_momentum=False),
    }
    figure, axes = plt.subplots(2, 3, figsize=(9, 4), sharex=True, sharey=True)
    for axis, (name, make) in zip(axes.flat, makers.items()):
        scheduler, rates = make(optimizer()), []
        for _ in range(100):
            rates.append(scheduler.get_last_lr()[0])
            scheduler.step()
        axis.plot(rates)
        axis.set_title(name, fontsize=9)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    return figure


# The warm-up and the cosine after it, checked against numbers that one can work out in the head.


def check_warm_up_then_cosine():
    from tt_tensor import Parameter

    optimizer = SGD([Parameter([0.0])], lr=2.0)
    schedule = SequentialLR(optimizer, [LinearLR(optimizer, 0.5, total_iters=2), CosineAnnealingLR(optimizer, 4)], [2])
    rates = []
    for _ in range(7):
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    wanted = [1.0, 1.5, 2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5), 0.0]
    assert all(math.isclose(a, b, abs_tol=1e-12) for a, b in zip(rates, wanted))


__all__ = [
    "CosineAnnealingLR", "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "OneCycleLR",
    "ReduceLROnPlateau", "SequentialLR", "StepLR",
]
