# # Histories
#
# An appendix of chapter 08: what we measure in a training, and how it is shown, while it runs and afterwards.

from __future__ import annotations

from collections.abc import Iterable, Sized

import numpy as np

from tt_tensor import Tensor

# ## Accuracy
#
# The fraction of right answers is the metric of classification. There are two common cases: a row of logits for each
# example with a class index, and a single logit with a truth value, where the sign decides.


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Return the fraction of right answers: the largest of the logits (N, C) is that of the class index (N,); or, for
    one logit each, its sign agrees with a target of 0 or 1. Raises ValueError for other shapes."""
    logits, truth = outputs.detach().numpy(), targets.detach().numpy()
    if logits.shape == truth.shape:
        return float(np.mean((logits > 0) == (truth > 0.5)))
    if logits.ndim < 2 or logits.shape[1] < 2 or logits.shape[:1] + logits.shape[2:] != truth.shape:
        raise ValueError(
            "accuracy needs logits (N, C) of at least two classes with class numbers (N,), or logits and targets of "
            f"one shape; it got {logits.shape} and {truth.shape}. squeeze(1) removes a dimension of size 1"
        )
    return float(np.mean(logits.argmax(axis=1) == truth))


# ## The record
#
# A training leaves a record besides the network: for each measure a list with one number for each epoch.


class History(dict):
    """Lists of numbers by name, one number for each epoch: loss, val_loss, metrics, lr, seconds."""

    def add(self, values: dict[str, float]) -> None:
        """Append one number to each list."""
        for name, value in values.items():
            self.setdefault(name, []).append(value)

    # Printed, a history is a table with a row for each epoch.

    def __repr__(self) -> str:
        names = list(self)
        rows = ["epoch " + "".join(f"{name:>14s}" for name in names)]
        for i, row in enumerate(zip(*self.values())):
            rows.append(f"{i + 1:5d} " + "".join(f"{value:14.4f}" for value in row))
        return "\n".join(rows)

    # We draw each measure in a panel of its own, training and validation together, because their distance is what we
    # will want to see.

    def plot(self):
        """Return a matplotlib figure: each measure in a panel of its own, training and validation together."""
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


# ## The progress bar
#
# The progress bar is tqdm's. It draws itself in a terminal, and stays silent in a pipe, in a log file, or while this
# page is built.


def progress_bar(data: Iterable, done: int, title: str, progress: bool | None):
    """Return a tqdm bar for a pass through the data, of which `done` batches have been seen; None for `progress` means
    that it shows in a terminal only."""
    from tqdm import tqdm

    return tqdm(
        total=len(data) if isinstance(data, Sized) else None, initial=done, desc=title,
        disable=None if progress is None else not progress, unit="batch", leave=True,
    )


__all__ = ["History", "accuracy", "progress_bar"]
