"""The pictures of chapter 09: the digits of chapter 08 in a larger frame, and a figure of several images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

import tt_tensor as tt
from tt_autograd.training import digits
from tt_tensor import Tensor


def framed_digits(side: int = 16, down: int = 0, right: int = 0) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The digits of chapter 08 as images (N, 1, side, side) with the digit in the middle, moved by `down` and `right`
    pixels: ((x, y) for training, (x, y) held out). ValueError for a digit that would leave the frame."""
    top, left = (side - 8) // 2 + down, (side - 8) // 2 + right
    if min(top, left) < 0 or max(top, left) > side - 8:
        raise ValueError(f"a digit of 8 x 8 moved by {down} and {right} leaves a frame of {side} x {side}")

    def framed(x):
        images = np.zeros((len(x), 1, side, side), np.float32)
        images[:, 0, top : top + 8, left : left + 8] = x.numpy().reshape(-1, 8, 8)
        return tt.from_numpy(images)

    (x, y), (x_held_out, y_held_out) = digits()
    return (framed(x), y), (framed(x_held_out), y_held_out)


def image_grid(rows: Sequence[Iterable[np.ndarray | None]], titles: Sequence[str] = ()):
    """A figure with a row of images (H, W) for each of `rows`; None leaves a place empty, and titles name the rows.
    Images with negative numbers are red and blue, with white for 0; the others are gray, with white for 0."""
    import matplotlib.pyplot as plt

    images = [list(row) for row in rows]
    columns = max(map(len, images))
    figure, axes = plt.subplots(len(rows), columns, figsize=(1.4 * columns, 1.5 * len(rows)), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axes_of_row, title in zip(axes, titles):
        axes_of_row[0].set_title(title, fontsize=9, loc="left")
    for axes_of_row, row in zip(axes, images):
        for axis, image in zip(axes_of_row, row):
            if image is not None:
                most, signed = np.abs(image).max(), image.min() < 0
                axis.imshow(image, cmap="RdBu_r" if signed else "gray_r", vmin=-most if signed else 0, vmax=most)
    figure.tight_layout()
    return figure
