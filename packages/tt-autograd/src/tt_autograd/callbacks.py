# # Callbacks
#
# An appendix of chapter 08. Here are the three callbacks that nearly every training needs: one moves a learning-rate
# schedule, one stops in time, and one keeps the best weights in a file. A fourth averages the weights. At the end we
# look for a learning rate to begin with.

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable

import numpy as np

from tt_autograd.checkpoints import save_checkpoint
from tt_autograd.training import Callback, Run, fit
from tt_optim import Optimizer, ReduceLROnPlateau
from tt_tensor import Module, Tensor

# ## Schedules
#
# The schedulers of chapter 06 change the learning rate of an optimizer when we call their `step`. `Schedule` calls it
# for us, after each epoch or each step. One scheduler, `ReduceLROnPlateau`, needs to see a number of the history.


class Schedule(Callback):
    """Steps a learning-rate scheduler, after each "epoch" or each "step"; `monitor` names the number that a
    ReduceLROnPlateau watches."""

    def __init__(self, scheduler, each: str = "epoch", monitor: str | None = None):
        if each not in ("epoch", "step"):
            raise ValueError(f'each is "epoch" or "step", not {each!r}')
        watches = isinstance(scheduler, ReduceLROnPlateau)
        if watches != (monitor is not None) or (watches and each == "step"):
            raise ValueError(
                'a ReduceLROnPlateau needs monitor=, the name of a number of the history, and each="epoch"; other '
                f"schedulers take no monitor. This is a {type(scheduler).__name__}"
            )
        self.scheduler, self.each, self.monitor = scheduler, each, monitor

    # After the last step of the run there is nothing left to schedule.

    def on_step(self, run):
        if self.each == "step" and run.steps < run.total_steps:
            self.scheduler.step()

    def on_epoch(self, run):
        if self.each == "epoch":
            self.scheduler.step(*([_watched(run, self.monitor)] if self.monitor else []))

    # A checkpoint of the run must contain the position of the schedule.

    def state_dict(self):
        return self.scheduler.state_dict()

    def load_state_dict(self, state):
        self.scheduler.load_state_dict(state)


# If the number does not exist, the likely cause is a training without validation data, so the error says that.


def _watched(run: Run, monitor: str) -> float:
    if monitor not in run.history:
        raise ValueError(
            f"there is no {monitor!r} to watch; the history has {', '.join(run.history)}. Validation data give val_loss"
        )
    return run.history[monitor][-1]


# ## The best epoch
#
# `EarlyStopping` and `BestCheckpoint` both need to know whether this epoch was the best so far. Their base class
# remembers the best value, and how many epochs ago it was.


class Best(Callback):
    """Remembers the best value of a number of the history; the base of the two callbacks below."""

    def __init__(self, monitor: str = "val_loss", mode: str = "min", min_delta: float = 0.0):
        if mode not in ("min", "max"):
            raise ValueError(f'mode is "min" or "max", not {mode!r}')
        self.monitor, self.mode, self.min_delta = monitor, mode, min_delta
        self._forget()

    def _forget(self) -> None:
        self.best, self.waited = (math.inf if self.mode == "min" else -math.inf), 0

    def on_start(self, run):
        self._forget()

    # An improvement must be larger than `min_delta`, so that noise does not count as progress.

    def improved(self, run: Run) -> bool:
        """Note the latest value, and return whether it is better than the best by more than min_delta."""
        value = _watched(run, self.monitor)
        better = value < self.best - self.min_delta if self.mode == "min" else value > self.best + self.min_delta
        self.best, self.waited = (value, 0) if better else (self.best, self.waited + 1)
        return better

    # The memory is part of the checkpoint, because a resumed run must not start to wait anew.

    def state_dict(self):
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state):
        self.best, self.waited = state["best"], state["waited"]


# ## Early stopping
#
# When the network begins to overfit, the validation loss stops falling. We wait a few epochs longer (`patience`),
# because the loss is noisy, and then end the run. With `restore_best` we keep a copy of the best weights and put it
# back at the end.


class EarlyStopping(Best):
    """Ends the training when `monitor` has not improved for `patience` epochs; with restore_best the weights of the
    best epoch come back."""

    def __init__(
        self, monitor: str = "val_loss", patience: int = 5, mode: str = "min", min_delta: float = 0.0,
        restore_best: bool = False,
    ):
        super().__init__(monitor, mode, min_delta)
        self.patience, self.restore_best = patience, restore_best
        self.weights: dict[str, Tensor] | None = None

    # A second run with the same object must not restore the weights of the first.

    def on_start(self, run):
        super().on_start(run)
        self.weights = None

    def on_epoch(self, run):
        if self.improved(run):
            if self.restore_best:
                self.weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
        elif self.waited >= self.patience:
            run.stop = True

    def on_end(self, run):
        if self.weights is not None:
            run.model.load_state_dict(self.weights)

    # The copy of the weights is part of the checkpoint, too, so the file grows by the size of the model.

    def state_dict(self):
        return {**super().state_dict(), "weights": self.weights}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.weights = state["weights"]


# ## The best weights in a file
#
# `BestCheckpoint` writes the best weights to a file instead of holding them, so that they survive whatever happens
# next.


class BestCheckpoint(Best):
    """Saves the model's state_dict to `path`, as a safetensors file, whenever `monitor` is better than ever before."""

    def __init__(self, path: str | os.PathLike, monitor: str = "val_loss", mode: str = "min"):
        super().__init__(monitor, mode)
        self.path = path

    def on_epoch(self, run):
        if self.improved(run):
            save_checkpoint(self.path, {"model": run.model.state_dict(), self.monitor: self.best})


# ## An average of the weights
#
# The weights jump about from step to step, because each batch pulls them in its own direction. A running average of
# them (an *exponential moving average*) is often better than the weights themselves. `WeightAverage` keeps the average
# in its own state, so that a checkpoint contains it. It needs copies, because the optimizer changes the weights in
# place.


class WeightAverage(Callback):
    """After each step, average <- decay * average + (1 - decay) * weights; `average` is a state dictionary."""

    def __init__(self, decay: float = 0.99):
        self.decay = decay
        self.average: dict[str, Tensor] | None = None

    def on_start(self, run):
        self.average = None

    def on_step(self, run):
        """Take in the weights of run.model, as copies; the first time, they are the average."""
        weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
        if self.average is None:
            self.average = weights
        else:
            self.average = {
                name: self.decay * old + (1 - self.decay) * weights[name] for name, old in self.average.items()
            }

    def state_dict(self):
        return {"average": self.average}

    def load_state_dict(self, state):
        self.average = state["average"]


# ## A learning rate to begin with
#
# How do we find a learning rate for a new network? We train for some steps while the rate grows from tiny to huge, and
# note the losses. The best learning rate is a little smaller than the one at which the loss explodes (L. Smith, 2015).
# Each step is a training of one batch, so the loss that `fit` reports is the one before the step.


def find_rate(
    model: Module, loss_fn: Callable, optimizer: Optimizer, data: Iterable, lowest: float = 1e-6, highest: float = 1.0,
    steps: int = 50,
) -> tuple[list[float], list[float]]:
    """Return learning rates from `lowest` to `highest` in equal ratios, and the loss before the step that was made with
    each. Goes round the data as often as the steps need, one batch for each, and sets the rate of the first parameter
    group."""
    rates, losses = [float(rate) for rate in np.geomspace(lowest, highest, steps)], []
    batches = iter(data)
    for rate in rates:
        batch = next(batches, None)
        if batch is None:
            batches = iter(data)
            batch = next(batches)
        optimizer.param_groups[0]["lr"] = rate
        losses += fit(model, loss_fn, optimizer, [batch], epochs=1, progress=False)["loss"]
    return rates, losses


__all__ = ["Best", "BestCheckpoint", "EarlyStopping", "Schedule", "WeightAverage", "find_rate"]
