"""What chapters 11, 13 and 14 draw and print: tokens, tables of attention weights, what attention costs, losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import tt_tensor as tt
from tt_tensor import Tensor


def picture_of_weights(
    tables: Sequence[np.ndarray], titles: Sequence[str], rows: Sequence[str], columns: Sequence[str] = (),
    cells: Sequence[Sequence[str]] = (),
) -> Any:
    """A figure of tables of weights between 0 and 1 side by side, each under its title. `rows` and `columns` are the
    names beside and below; `cells` are words to write into the cells."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(tables), figsize=(max(6, 2.5 * len(tables)), 3), squeeze=False)
    for axis, weights, title in zip(axes[0], tables, titles):
        axis.imshow(weights, cmap="Blues", vmin=0, vmax=1)
        axis.set_title(title, fontsize=9)
        axis.set_yticks(range(len(rows)), rows, fontsize=6)
        axis.set_xticks(range(len(columns)), columns, fontsize=6)
        for (row, column), word in np.ndenumerate(np.array(cells)):
            axis.text(column, row, word, ha="center", va="center", color="C1", fontsize=7)
    figure.tight_layout()
    return figure


COLOURS = "#cfe8ff", "#ffe2c4", "#d7f2cf", "#f6d3e6", "#e4dcf7"


def picture_of_parts(rows: Mapping[str, Sequence[str]], width: int = 60) -> Any:
    """A figure of texts that were cut into parts: under each title its text, with a colour for each part."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(rows), 1, figsize=(8, 1.8 * len(rows)), layout="constrained")
    for axis, (title, parts) in zip(axes, rows.items()):
        axis.set_title(title, loc="left")
        colours = [COLOURS[number % len(COLOURS)] for number, part in enumerate(parts) for _ in part]
        for place, (character, colour) in enumerate(zip("".join(parts), colours)):
            column, row = place % width, -(place // width)
            axis.barh(row, 1, 0.8, column - 0.5, color=colour)
            axis.text(column, row, character, family="monospace", ha="center", va="center")
        axis.axis("off")
    return figure


def picture_of_losses(curves: Mapping[str, Sequence[float]], guessing: float, window: int = 25) -> Any:
    """A figure of the loss of each step, by name, averaged over `window` steps, beside the loss of a guess."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3))
    for name, losses in curves.items():
        axis.plot(np.convolve(losses, np.ones(window) / window, "valid"), label=name)
    axis.axhline(guessing, linestyle=":", color="gray", label="guessing")
    axis.set(xlabel="step", ylabel="nats a letter", ylim=(0, None))
    axis.legend()
    figure.tight_layout()
    return figure


def cost_table(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor], formula: Callable[[int, int, int, int], tuple[int, int]]
) -> None:
    """Print what `attend(q, k, v)` costs for 8 heads of 32 numbers and texts of several lengths: the multiply-adds of
    its products and its peak of memory, each beside what `formula(batch, heads, length, size)` says, and the time."""
    for length in (64, 128, 256, 512, 1024):
        q, k, v = tt.randn(3, 1, 8, length, 32)
        with tt.meter() as meter:
            attend(q, k, v)
        counted = meter.multiply_adds["matmul"] + meter.multiply_adds["attention_in_blocks"]
        measured, (products, weights) = tt.measure(attend, q, k, v), formula(1, 8, length, 32)
        print(
            f"T = {length:4d}: {counted / 1e6:6.1f} M multiply-adds, formula {products / 1e6:6.1f} M; weights "
            f"{weights / 1e6:5.1f} MB, peak {measured.peak_bytes / 1e6:5.1f} MB; {measured.seconds * 1e3:6.2f} ms"
        )


def step_cost(loss: Callable[[], Tensor], products: int, held: int) -> None:
    """Print what a forward pass, which returns a loss, and its backward pass cost: multiply-adds and bytes, beside the
    expected `products` (of the forward pass) and `held`, and the time."""
    with tt.meter() as there:
        value = loss()
    with tt.meter() as back:
        value.backward()
    taken = tt.measure(lambda: loss().backward())
    counts = (products, there.multiply_adds.total(), back.multiply_adds.total())
    formula, forward, backward = (f"{count / 1e6:.0f}" for count in counts)
    print(f"{formula} million multiply-adds by the formula, {forward} counted,")
    print(f"  {backward} on the way back; {taken.seconds * 1e3:.0f} ms;", end=" ")
    print(f"{held / 1e6:.0f} MB by the formula, {taken.peak_bytes / 1e6:.0f} measured")
