# # Callbacks
#
# An appendix of chapter 08: the history that a training leaves behind, and three callbacks that nearly every training
# wants.

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from tt_autograd.checkpoints import save_checkpoint
from tt_optim import ReduceLROnPlateau
from tt_tensor import Tensor

if TYPE_CHECKING:
    from tt_autograd.training import Run

# ## History
#
# What a training leaves behind, apart from the network: a list of numbers for each name, one for each epoch.


class History(dict):
    """Lists of numbers by name, one number for each epoch: loss, val_loss, metrics, lr, seconds."""

    def add(self, values: dict[str, float]) -> None:
        """Append one number to each list."""
        for name, value in values.items():
            self.setdefault(name, []).append(value)

    def __repr__(self) -> str:
        names = list(self)
        rows = ["epoch " + "".join(f"{name:>14s}" for name in names)]
        for i, row in enumerate(zip(*self.values())):
            rows.append(f"{i + 1:5d} " + "".join(f"{value:14.4f}" for value in row))
        return "\n".join(rows)

    def plot(self):
        """A matplotlib figure: each measure in a panel of its own, training and validation together."""
        import matplotlib.pyplot as plt

        names = [n for n in self if not n.startswith("val_") and n not in ("lr", "seconds")]
        figure, axes = plt.subplots(1, len(names), figsize=(4.5 * len(names), 3), squeeze=False)
        for axis, name in zip(axes[0], names):
            for key, style in ((name, "-"), (f"val_{name}", "--")):
                if key in self:
                    axis.plot(range(1, len(self[key]) + 1), self[key], style, label=key)
            axis.set_xlabel("epoch")
            axis.legend()
            axis.grid(alpha=0.3)
        figure.tight_layout()
        return figure


# ## What a callback is
#
# An object that is told when something has happened. It may look at the run, change it, or end it.


class Callback:
    """Told of what happens in a run; override what you need."""

    def on_start(self, run: Run) -> None:
        """Before the first epoch. Forget what an earlier run left; if this run resumes, `load_state_dict` follows."""

    def on_step(self, run: Run) -> None:
        """After each change of the weights."""

    def on_epoch(self, run: Run) -> None:
        """After each epoch, when run.history has its numbers. Set run.stop to end the training."""

    def on_end(self, run: Run) -> None:
        """After the last epoch."""

    def state_dict(self) -> dict[str, Any]:
        """What has to be saved to go on later."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""


# ## Schedules
#
# `Schedule` moves a scheduler of chapter 06 after each epoch or each step.


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

    def on_step(self, run):
        if self.each == "step" and run.steps < run.total_steps:
            self.scheduler.step()

    def on_epoch(self, run):
        if self.each == "epoch":
            self.scheduler.step(*([_watched(run, self.monitor)] if self.monitor else []))

    def state_dict(self):
        return self.scheduler.state_dict()

    def load_state_dict(self, state):
        self.scheduler.load_state_dict(state)


def _watched(run: Run, monitor: str) -> float:
    if monitor not in run.history:
        raise ValueError(
            f"there is no {monitor!r} to watch; the history has {', '.join(run.history)}. Validation data give val_loss"
        )
    return run.history[monitor][-1]


# `EarlyStopping` and `BestCheckpoint` both want to know whether this epoch was the best so far.


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

    def improved(self, run: Run) -> bool:
        """Note the latest value; is it better than the best by more than min_delta?"""
        value = _watched(run, self.monitor)
        better = value < self.best - self.min_delta if self.mode == "min" else value > self.best + self.min_delta
        self.best, self.waited = (value, 0) if better else (self.best, self.waited + 1)
        return better

    def state_dict(self):
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state):
        self.best, self.waited = state["best"], state["waited"]


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

    def state_dict(self):
        return {**super().state_dict(), "weights": self.weights}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.weights = state["weights"]


# The other one writes the best weights to a file instead of holding them, so that they survive whatever happens next.


class BestCheckpoint(Best):
    """Saves the model's state_dict to `path`, as a safetensors file, whenever `monitor` is better than ever before."""

    def __init__(self, path: str | os.PathLike, monitor: str = "val_loss", mode: str = "min"):
        super().__init__(monitor, mode)
        self.path = path

    def on_epoch(self, run):
        if self.improved(run):
            save_checkpoint(self.path, {"model": run.model.state_dict(), self.monitor: self.best})


__all__ = ["Best", "BestCheckpoint", "Callback", "EarlyStopping", "History", "Schedule"]
