# # Schedulers
#
# An appendix of chapter 06. A learning rate that is right at the beginning of a training is too large at its end. A
# *scheduler* changes `group["lr"]` of an optimizer while we train. We use PyTorch's names and numbers.

from __future__ import annotations

import bisect
import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from tt_optim.optimizers import SGD, Optimizer

# ## The idea
#
# Almost every schedule is a formula: a factor that depends on the number of steps taken, times the learning rate that
# the optimizer started with. So a scheduler is a count and a method `factor(step)`. It sets the first learning rate
# when you create it, and the next one whenever you call its `step()`, after the optimizer's.
#
# We must make a choice. If we set the learning rate to the value of the formula, we would undo whatever else has
# changed it: a second scheduler, or your own hand. Therefore, as in PyTorch, `step()` *multiplies* the learning rate
# that it finds by the quotient of two factors, this step's and the last one's. One scheduler alone gives its formula,
# and two give the product of theirs.
#
# The base class begins with the bookkeeping. A group remembers as `initial_lr` the learning rate that it started with.
# If you continue a training (`last_epoch` is not $-1$), the groups must have it already.


class LRScheduler:
    """The base class of all schedulers: in each step it multiplies the lr of each group by `ratio(last_epoch)`, so that
    the lr is the initial lr times `factor(last_epoch)` if nothing else changes it."""

    resumes = False  # whether it changes the lr when it is created to continue after `last_epoch`
    remembered: tuple[str, ...] = ()  # further attributes that are saved

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"a scheduler needs an optimizer, not {type(optimizer).__name__}")
        self.optimizer, self.last_epoch = optimizer, last_epoch
        if last_epoch == -1:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        elif any("initial_lr" not in group for group in optimizer.param_groups):
            raise KeyError("last_epoch continues a training: the groups need `initial_lr`; load the optimizer's state")
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch += 1
        self._set(self.get_lr() if self.last_epoch == 0 or self.resumes else self._present())

    # Most schedules define only the first of these two.

    def factor(self, step: int) -> float:
        """Return the factor of the initial lr after `step` steps."""
        raise NotImplementedError

    def ratio(self, step: int) -> float:
        """Return the factor by which the lr changes in step number `step`, from 1."""
        return self.factor(step) / self.factor(step - 1)

    # A step counts and sets. PyTorch once let you jump to any epoch, and old programs still do that.

    def step(self, epoch: int | None = None) -> None:
        """Count one step and set the lr that follows it. `epoch`, a number of steps to jump to, is deprecated."""
        if epoch is not None:
            warnings.warn("step(epoch) is deprecated; call step() without an argument", UserWarning, stacklevel=2)
        jumps = epoch is not None and type(self).get_lr is LRScheduler.get_lr
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._set(self.lrs_at(self.last_epoch) if jumps else self.get_lr())

    # Your own scheduler may define `get_lr` instead of `factor`, as in PyTorch. Ours consists of three parts, because
    # some schedules below replace only one of them.

    def get_lr(self) -> list[float]:
        """Return the lr of each group at `last_epoch`, given the present ones."""
        return self.next_lrs(self._present(), self.last_epoch) if self.last_epoch else self.first_lrs(self._present())

    def lrs_at(self, step: int) -> list[float]:
        """Return the lr of each group after `step` steps, if nothing but this scheduler changes it."""
        return [lr * self.factor(step) for lr in self.base_lrs]

    def first_lrs(self, lrs: list[float]) -> list[float]:
        """Return the lr of each group at step 0, given the present ones."""
        return [lr * self.factor(0) for lr in lrs]

    # After a factor of 0 no quotient exists, so we take the value of the formula.

    def next_lrs(self, lrs: list[float], step: int) -> list[float]:
        """Return the lr of each group after step number `step`, given those before it."""
        if self.factor(step - 1) == 0:
            return self.lrs_at(step)
        return [lr * self.ratio(step) for lr in lrs]

    # A schedule that is part of a longer one must be able to begin anew.

    def begin_again(self) -> None:
        """Count from 0 again, at the initial lr."""
        self.last_epoch = 0
        self._set(self.lrs_at(0))

    def _present(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def _set(self, lrs: list[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, lrs):
            group["lr"] = lr
        self._last_lr = self._present()

    def get_last_lr(self) -> list[float]:
        """Return the lr of each group after the last step of this scheduler."""
        return self._last_lr

    # A checkpoint contains the count and the learning rates. As with optimizers, we compare before we change anything.

    def state_dict(self) -> dict[str, Any]:
        """Return what must be saved to continue later: the count, and the initial and present learning rates."""
        more = {name: getattr(self, name) for name in self.remembered}
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs), "lrs": self._present(), **more}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken. Raises ValueError, before anything is changed, if it does not fit."""
        _require_keys(state, ["last_epoch", "base_lrs", *self.remembered])
        if len(state["base_lrs"]) != len(self.base_lrs):
            raise ValueError(f"the saved scheduler has {len(state['base_lrs'])} groups, this one {len(self.base_lrs)}")
        self.last_epoch, self.base_lrs = state["last_epoch"], list(state["base_lrs"])
        for name in self.remembered:
            setattr(self, name, state[name])
        self._set(state.get("lrs") or state.get("_last_lr") or self.lrs_at(self.last_epoch))


# Options such as a highest learning rate may differ from group to group.


def for_each_group(what: str, optimizer: Optimizer, value) -> list:
    """Return a value for each group of an optimizer: the list itself, or the same value for all. Raises ValueError for
    a list of another length."""
    count = len(optimizer.param_groups)
    values = list(value) if isinstance(value, (list, tuple)) else [value] * count
    if len(values) != count:
        raise ValueError(f"{len(values)} values of {what} were given for {count} groups")
    return values


def _require_keys(state, names):
    if not isinstance(state, dict) or not set(names) <= state.keys():
        raise ValueError(f"this is not the state of such a scheduler: it must have {', '.join(names)}")


# ## Staircases and slides
#
# The simplest schedules are staircases: we keep the learning rate for a while, and then multiply it by `gamma`.
# `StepLR` has stairs of equal length, and `MultiStepLR` has them where you say.


class StepLR(LRScheduler):
    """Multiplies the lr by gamma every step_size steps."""

    resumes = True

    def __init__(self, optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1):
        if step_size < 1:
            raise ValueError(f"step_size must be at least 1, not {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def factor(self, step):
        return self.gamma ** (step // self.step_size)


class MultiStepLR(LRScheduler):
    """Multiplies the lr by gamma at each of the milestones."""

    resumes = True

    def __init__(self, optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1):
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def factor(self, step):
        return self.gamma ** bisect.bisect_right(self.milestones, step)


# A slide is a staircase with stairs of length 1.


class ExponentialLR(LRScheduler):
    """Multiplies the lr by gamma in every step."""

    def __init__(self, optimizer, gamma: float, last_epoch: int = -1):
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def factor(self, step):
        return self.gamma**step


# A formula of your own need not be a product of ratios. So `LambdaLR`, like PyTorch's, sets the value of your formula,
# whatever the present learning rate is.


class LambdaLR(LRScheduler):
    """Sets the initial lr times lr_lambda(step): any formula of your own, or a list with one for each group. The
    formula itself is not saved."""

    resumes = True

    def __init__(
        self, optimizer, lr_lambda: Callable[[int], float] | list[Callable[[int], float]], last_epoch: int = -1
    ):
        self.lr_lambdas = for_each_group("formula", optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    # The three parts of the base class, for a formula for each group:

    def lrs_at(self, step):
        return [lr * formula(step) for lr, formula in zip(self.base_lrs, self.lr_lambdas)]

    def first_lrs(self, lrs):
        return self.lrs_at(0)

    def next_lrs(self, lrs, step):
        return self.lrs_at(step)


# The cosine (Loshchilov and Hutter, 2016) starts flat, falls, and ends flat, at `eta_min` after `T_max` steps:
#
# $$ \eta_t = \eta_{\min} + (\eta_0 - \eta_{\min})\, \frac{1 + \cos(\pi t / T_{\max})}{2} . $$
#
# So we must multiply not the learning rate itself but its height above `eta_min`. After the lowest point, where that
# height is 0, the first step up takes the value of the formula.


class CosineAnnealingLR(LRScheduler):
    """Moves the lr along half a cosine from its initial value to eta_min in T_max steps."""

    def __init__(self, optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1):
        if T_max < 1:
            raise ValueError(f"T_max must be at least 1, not {T_max}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def lrs_at(self, step):
        return [
            self.eta_min + (lr - self.eta_min) * (1 + math.cos(math.pi * step / self.T_max)) / 2 for lr in self.base_lrs
        ]

    def first_lrs(self, lrs):
        return lrs

    # If you continue beyond `T_max`, the cosine rises again, and every second half of it starts from a height of 0.

    def next_lrs(self, lrs, step):
        if (step - 1 - self.T_max) % (2 * self.T_max) == 0:
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [lr + (base - self.eta_min) * rise for lr, base in zip(lrs, self.base_lrs)]
        now, before = (1 + math.cos(math.pi * s / self.T_max) for s in (step, step - 1))
        return [self.eta_min + (lr - self.eta_min) * now / before for lr in lrs]


# ## Warm-up
#
# Adam's averages know little in the first steps, and large steps on little knowledge do damage. So we start with a
# small learning rate and raise it in a straight line. This is a *warm-up*. `SequentialLR` then continues with another
# schedule.


class LinearLR(LRScheduler):
    """Multiplies the initial lr by a factor on a straight line from start_factor to end_factor in total_iters steps."""

    def __init__(
        self, optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5,
        last_epoch: int = -1,
    ):
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(
                f"start_factor must be in (0, 1] and end_factor in [0, 1]; they are {start_factor} and {end_factor}"
            )
        if total_iters < 1:
            raise ValueError(f"total_iters must be at least 1, not {total_iters}")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def factor(self, step):
        return (
            self.start_factor + (self.end_factor - self.start_factor) * min(step, self.total_iters) / self.total_iters
        )


# Schedulers that contain others check them first. `ReduceLROnPlateau`, below, must see a number in each step, so it
# cannot be part of another.


def refuse_other_schedulers(where: str, schedulers, optimizer: Optimizer) -> None:
    """Raise TypeError for anything that is not a scheduler, and ValueError for an empty list, for a scheduler that must
    see a number, and for a scheduler of another optimizer."""
    if not schedulers:
        raise ValueError(f"{where} needs at least one scheduler")
    for scheduler in schedulers:
        if not isinstance(scheduler, LRScheduler):
            raise TypeError(f"{where} contains schedulers, not {type(scheduler).__name__}")
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError(
                f"{where} cannot contain ReduceLROnPlateau, whose rate is not a function of the step alone; step it "
                "beside the others"
            )
    if any(s.optimizer is not optimizer for s in schedulers):
        raise ValueError("all schedulers must belong to the same optimizer")


# Each schedule counts its own steps from 0, so we subtract the milestone at which it began.


class SequentialLR(LRScheduler):
    """Runs one schedule after the other: schedulers[i] from step milestones[i - 1] on, its own step 0."""

    def __init__(
        self, optimizer, schedulers: list[LRScheduler], milestones: list[int], last_epoch: int = -1
    ):
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"{len(schedulers)} schedulers need {len(schedulers) - 1} milestones between them, not "
                f"{len(milestones)}"
            )
        refuse_other_schedulers(type(self).__name__, schedulers, optimizer)
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        super().__init__(optimizer, last_epoch)

    def _which(self, step: int) -> tuple[LRScheduler, int]:
        which = bisect.bisect_right(self.milestones, step)
        return self.schedulers[which], step - (self.milestones[which - 1] if which else 0)

    def lrs_at(self, step):
        scheduler, step = self._which(step)
        return scheduler.lrs_at(step)

    # All of them have set a first learning rate when they were created. We take back all but that of the first.

    def first_lrs(self, lrs):
        self._set(self.base_lrs)
        self.schedulers[0].last_epoch = 0
        return self.schedulers[0].first_lrs(self.base_lrs)

    def begin_again(self):
        self.last_epoch = 0
        self.schedulers[0].begin_again()

    # At a milestone the next schedule begins, and from then on we step it alone.

    def step(self):  # type: ignore[override]
        scheduler, own_step = self._which(self.last_epoch + 1)
        scheduler.step() if own_step else scheduler.begin_again()
        self.last_epoch += 1
        self._last_lr = scheduler.get_last_lr()

    # The state contains the states of all parts. If one of them does not fit, we restore those that we have loaded.

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


# ## One cycle
#
# *One cycle* (Smith and Topin, 2017) is warm-up and decay in one: up to a large learning rate, and down to a tiny one.
# The momentum moves the other way round, low where the learning rate is high. In Adam's family, momentum is the first
# of the two betas.


def set_momentum(group: dict, momentum: float) -> None:
    """Set the momentum of a group: `momentum`, or the first of `betas`."""
    group.update({"betas": (momentum, *group["betas"][1:])} if "betas" in group else {"momentum": momentum})


def refuse_without_momentum(optimizer: Optimizer) -> None:
    """Raise ValueError unless an optimizer has a momentum that can be cycled."""
    if not {"momentum", "betas"} & optimizer.defaults.keys():
        raise ValueError(f"{type(optimizer).__name__} has no momentum to cycle; pass cycle_momentum=False")


# A cycle is made for a certain number of steps, so you must say how many there will be. The groups keep the corners of
# the cycle, as in PyTorch, so that a checkpoint of the optimizer contains them.


class OneCycleLR(LRScheduler):
    """Raises the lr from max_lr / div_factor to max_lr, then lowers it to the first divided by final_div_factor;
    momentum (or beta1) moves the other way round. With three_phase it first returns to where it began, as steeply as it
    rose. Step it after every batch; there are total_steps, or epochs times steps_per_epoch, of them."""

    resumes = True

    def __init__(
        self, optimizer, max_lr: float | list[float], total_steps: int | None = None, epochs: int | None = None,
        steps_per_epoch: int | None = None, pct_start: float = 0.3, anneal_strategy: str = "cos",
        cycle_momentum: bool = True, base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95, div_factor: float = 25.0, final_div_factor: float = 1e4,
        three_phase: bool = False, last_epoch: int = -1,
    ):
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f'anneal_strategy is "cos" or "linear", not {anneal_strategy!r}')
        if total_steps is None and (epochs is None or steps_per_epoch is None):
            raise ValueError("pass total_steps, or epochs and steps_per_epoch")
        self.total_steps = total_steps if total_steps is not None else epochs * steps_per_epoch  # type: ignore[operator]
        if self.total_steps < 1 or not 0 <= pct_start <= 1:
            raise ValueError(
                f"total_steps must be at least 1 and pct_start in [0, 1]; they are {self.total_steps} and "
                f"{pct_start}"
            )
        self.strategy, self.cycle_momentum, self.three_phase = anneal_strategy, cycle_momentum, three_phase
        top = pct_start * self.total_steps - 1
        self.ends = [0, top, *([2 * top] if three_phase else []), self.total_steps - 1]
        corners = {"max_lr": max_lr, "base_momentum": base_momentum, "max_momentum": max_momentum}
        values = {name: for_each_group(name, optimizer, value) for name, value in corners.items()}
        if cycle_momentum:
            refuse_without_momentum(optimizer)
        if last_epoch == -1:
            self._keep_corners(optimizer.param_groups, values, div_factor, final_div_factor)
        super().__init__(optimizer, last_epoch)

    # A training that we continue finds the corners in its groups.

    def _keep_corners(self, groups, values, div_factor, final_div_factor) -> None:
        for group, rate, low, high in zip(groups, *values.values()):
            first = rate / div_factor
            group.update({"initial_lr": first, "max_lr": rate, "min_lr": first / final_div_factor})
            group.update({"max_momentum": high, "base_momentum": low} if self.cycle_momentum else {})

    # Between two ends of a phase the value moves from one corner to the next, in a straight line or half a cosine.

    def _between(self, start: float, end: float, fraction: float) -> float:
        return (
            end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2
            if self.strategy == "cos"
            else start + (end - start) * fraction
        )

    # `_cycle` finds the phase of a step, and how much of the phase is over. It serves both the learning rate and the
    # momentum, which have other corners.

    def _cycle(self, step: int, low: float, high: float, final: float) -> float:
        if step > self.total_steps:
            raise ValueError(f"OneCycleLR was made for {self.total_steps} steps; this would be step {step}")
        corners = [low, high, *([low] if self.three_phase else []), final]
        phase = next((i for i, end in enumerate(self.ends[1:]) if step <= end), len(self.ends) - 2)
        start, end = self.ends[phase], self.ends[phase + 1]
        fraction = (step - start) / (end - start) if end != start else 1.0
        return self._between(corners[phase], corners[phase + 1], fraction)

    # Whenever we set the learning rate, we set the momentum as well.

    def lrs_at(self, step):
        return [self._cycle(step, g["initial_lr"], g["max_lr"], g["min_lr"]) for g in self.optimizer.param_groups]

    def _set(self, lrs):
        super()._set(lrs)
        for group in self.optimizer.param_groups if self.cycle_momentum else ():
            high, low = group["max_momentum"], group["base_momentum"]
            set_momentum(group, self._cycle(self.last_epoch, high, low, high))

    # A cycle is a formula of the step alone, whatever the present learning rate is.

    def first_lrs(self, lrs):
        return self.lrs_at(0)

    def next_lrs(self, lrs, step):
        return self.lrs_at(step)


# ## When nothing improves
#
# Our last scheduler is not a formula. It watches a number, usually the validation loss, and lowers the learning rate
# when the number has not improved for some time. Most of its code checks what you ask for.


class ReduceLROnPlateau(LRScheduler):
    """Multiplies the lr by factor when the number passed to step() has not improved for more than `patience` steps: not
    by a fraction of `threshold`, or with threshold_mode="abs" not by that much."""

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10, threshold: float = 1e-4,
        threshold_mode: str = "rel", cooldown: int = 0, min_lr: float | list[float] = 0, eps: float = 1e-8,
    ):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"a scheduler needs an optimizer, not {type(optimizer).__name__}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f'threshold_mode is "rel" or "abs", not {threshold_mode!r}')
        if mode not in ("min", "max"):
            raise ValueError(f'mode is "min" or "max", not {mode!r}')
        if not 0 < factor < 1:
            raise ValueError(f"factor must be between 0 and 1, not {factor}")
        self.optimizer, self.mode, self.patience, self.threshold = optimizer, mode, patience, threshold
        self.factor = factor  # type: ignore[method-assign, assignment]  # PyTorch's name, for a number
        self.cooldown, self.eps, self.threshold_mode = cooldown, eps, threshold_mode
        self.min_lrs = for_each_group("min_lr", optimizer, min_lr)
        self._last_lr = self._present()
        self.best, self.bad_steps, self.cooling, self.last_epoch = (math.inf if mode == "min" else -math.inf), 0, 0, 0

    # After we have lowered the learning rate, the number needs some time to react. During `cooldown` steps we do not
    # count.

    def step(self, metrics: float, epoch: int | None = None) -> None:  # type: ignore[override]
        """Note the number after an epoch, and lower the lr if it has not improved for too long."""
        metric, self.last_epoch = float(metrics), self.last_epoch + 1 if epoch is None else epoch
        if self._improved(metric):
            self.best, self.bad_steps = metric, 0
        else:
            self.bad_steps += 1
        if self.cooling:
            self.cooling, self.bad_steps = self.cooling - 1, 0
        if self.bad_steps > self.patience:
            self._lower()
            self.cooling, self.bad_steps = self.cooldown, 0
        self._last_lr = self._present()

    # An improvement by less than the threshold is noise. A change of the learning rate by less than `eps` is not worth
    # the trouble.

    def _improved(self, metric):
        sign = -1 if self.mode == "min" else 1
        if self.threshold_mode == "rel":
            return sign * metric > sign * self.best * (1 + sign * self.threshold)
        return sign * metric > sign * self.best + self.threshold

    def _lower(self):
        for group, lowest in zip(self.optimizer.param_groups, self.min_lrs):
            lower = max(group["lr"] * self.factor, lowest)
            if group["lr"] - lower > self.eps:
                group["lr"] = lower

    # The state contains how long we have been waiting, because a resumed training must not wait anew.

    def state_dict(self) -> dict[str, Any]:
        """Return what must be saved to continue later."""
        return {name: getattr(self, name) for name in ("best", "bad_steps", "cooling", "last_epoch")} | {
            "lrs": self._present()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken. Raises ValueError for the state of another kind of scheduler."""
        _require_keys(state, ["best", "bad_steps", "cooling", "last_epoch", "lrs"])
        if len(state["lrs"]) != len(self.optimizer.param_groups):
            raise ValueError(
                f"the saved scheduler has {len(state['lrs'])} groups, this one {len(self.optimizer.param_groups)}"
            )
        for name in ("best", "bad_steps", "cooling", "last_epoch"):
            setattr(self, name, state[name])
        self._set(state["lrs"])


# ## Six of them in one picture
#
# We draw a hundred steps of each. Here is the combination that most language models use, a warm-up and then a cosine:


def warm_up_then_cosine(optimizer: Optimizer) -> LRScheduler:
    """Return ten steps of warm-up, followed by ninety along a cosine."""
    warm_up = LinearLR(optimizer, 0.05, total_iters=10)
    return SequentialLR(optimizer, [warm_up, CosineAnnealingLR(optimizer, 90)], [10])


# The others are a single call each.


def show_schedules():
    """The learning rate over a hundred steps under six schedules."""
    import matplotlib.pyplot as plt

    from tt_tensor import Parameter

    makers: dict[str, Callable] = {
        "StepLR(25, 0.5)": lambda o: StepLR(o, 25, 0.5),
        "MultiStepLR([40, 80])": lambda o: MultiStepLR(o, [40, 80], 0.3),
        "ExponentialLR(0.96)": lambda o: ExponentialLR(o, 0.96),
        "CosineAnnealingLR(100)": lambda o: CosineAnnealingLR(o, 100),
        "warm-up, then cosine": warm_up_then_cosine,
        "OneCycleLR": lambda o: OneCycleLR(o, 1.0, 101, cycle_momentum=False),
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


# We check a warm-up and the cosine after it against numbers that you can work out in your head.


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
