"""Padding that repeats pixels of the image, for convolution layers and for `pad`."""

from __future__ import annotations

import math

import numpy as np

from tt_tensor import Tensor

# For each position the index of the pixel that goes there.

MODES = {
    "reflect": lambda places, n: (n - 1) - np.abs((n - 1) - np.abs(places)),  # dcb|abcd|cba
    "replicate": lambda places, n: np.clip(places, 0, n - 1),  # aaa|abcd|ddd
    "circular": lambda places, n: places % n,  # bcd|abcd|abc
}


def known_mode(mode: str) -> str:
    """The mode, if there is such a padding mode of a convolution. ValueError otherwise."""
    if mode not in ("zeros", *MODES):
        raise ValueError(f"padding modes are zeros, {', '.join(MODES)}; not {mode!r}")
    return mode


def repeated(x: Tensor, dim: int, before: int, after: int, mode: str) -> Tensor:
    """x with so many numbers more along `dim`, by one of the MODES. ValueError for more than there is to repeat."""
    n = x.shape[dim]
    most = {"reflect": n - 1, "circular": n}.get(mode, math.inf)
    if max(before, after) > most or not n:
        raise ValueError(f"{mode} padding of {n} numbers can add up to {most}; {before} and {after} were asked for")
    index = MODES[mode](np.arange(-before, n + after), n)
    return x[(slice(None),) * dim + (index,)]


def padded_for(layer, x: Tensor) -> tuple[Tensor, tuple[int, ...] | str]:
    """x, padded by the padding mode of a convolution layer, and the padding that is left for the convolution."""
    if layer.padding_mode == "zeros":
        return x, layer.padding
    if layer.padding == "valid":
        return x, "valid"
    if layer.padding == "same":
        both = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size)]
        sides = [(n // 2, n - n // 2) for n in both]
    else:
        sides = [(n, n) for n in layer.padding]
    for dim, (before, after) in enumerate(sides, x.ndim - len(sides)):
        if before or after:
            x = repeated(x, dim, before, after, layer.padding_mode)
    return x, "valid"
