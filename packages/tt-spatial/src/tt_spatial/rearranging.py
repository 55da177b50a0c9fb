# # Rearranging images
#
# An appendix of chapter 09: operations that compute nothing. We move channels to pixels and back, and windows to
# columns and back.

from __future__ import annotations

import math

import numpy as np

import tt_tensor as tt
from tt_spatial.common import images, pair, refuse_too_small
from tt_spatial.more_spatial import pad
from tt_spatial.spatial import conv_size
from tt_tensor import Module, Tensor
from tt_tensor.options import told

# ## Channels to pixels
#
# A network that makes images larger can compute $r^2$ channels in the small image, where it is cheap, and lay them out
# as squares of $r \times r$ pixels at the end (W. Shi et al., 2016). For us that is a reshape, a permutation and a
# reshape.


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C * r * r, H, W) -> (..., C, H * r, W * r), r being upscale_factor. As torch.nn.functional.pixel_shuffle.
    ValueError if r * r does not divide the channels."""
    r = _factor("upscale_factor", upscale_factor)
    *batch, channels, height, width = _at_least_three("pixel_shuffle", input)
    if channels % (r * r):
        raise ValueError(f"pixel_shuffle: {r} * {r} does not divide the {channels} channels of shape {input.shape}")
    parts = input.reshape(*batch, channels // (r * r), r, r, height, width)
    return _swapped(parts, (0, 3, 1, 4, 2)).reshape(*batch, channels // (r * r), height * r, width * r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., C, H * r, W * r) -> (..., C * r * r, H, W): what pixel_shuffle did, backwards. As
    torch.nn.functional.pixel_unshuffle. ValueError if r does not divide height and width."""
    r = _factor("downscale_factor", downscale_factor)
    *batch, channels, height, width = _at_least_three("pixel_unshuffle", input)
    if height % r or width % r:
        raise ValueError(f"pixel_unshuffle: {r} does not divide height and width of shape {input.shape}")
    parts = input.reshape(*batch, channels, height // r, r, width // r, r)
    return _swapped(parts, (0, 2, 4, 1, 3)).reshape(*batch, channels * r * r, height // r, width // r)


# Both copy, so that the result never shares the input's memory, and both check their arguments first.


def _swapped(x, order):
    before = x.ndim - len(order)
    return x.permute(*range(before), *(before + dim for dim in order)).clone()


def _factor(name, value):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} is an integer of at least 1, not {value!r}")
    return int(value)


def _at_least_three(name, x):
    if x.ndim < 3:
        raise ValueError(f"{name} takes images (..., C, H, W), not shape {x.shape}")
    return x.shape


# Convolutions in groups never mix their groups. Between two of them, ShuffleNet (X. Zhang et al., 2018) deals the
# channels out again, as cards: one of each group in turn.


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """(N, C, ...) with the channels of each group dealt out to all of them. As torch.nn.functional.channel_shuffle.
    ValueError if the groups do not divide the channels."""
    if input.ndim < 3 or input.shape[1] % _factor("groups", groups):
        raise ValueError(f"channel_shuffle: {groups} groups do not divide the channels of shape {input.shape}")
    n, channels, *sides = input.shape
    dealt = input.reshape(n, groups, channels // groups, *sides).transpose(1, 2).reshape(input.shape)
    return dealt.clone() if 1 in (groups, channels // groups) else dealt  # never the memory of the input


def check_shuffles():
    x = tt.arange(16.0).reshape(1, 4, 2, 2)
    assert pixel_shuffle(x, 2)[0, 0, 0].tolist() == [0, 4, 1, 5]
    assert (pixel_unshuffle(pixel_shuffle(x, 2), 2) == x).all()
    assert channel_shuffle(x, 2)[0, :, 0, 0].tolist() == [0, 8, 4, 12]


# You can use all three as modules.


class PixelShuffle(Module):
    """pixel_shuffle as a module."""

    def __init__(self, upscale_factor: int):
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, x):
        return pixel_shuffle(x, self.upscale_factor)

    def extra_repr(self):
        return told(self, ("upscale_factor",))


class PixelUnshuffle(Module):
    """pixel_unshuffle as a module."""

    def __init__(self, downscale_factor: int):
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, x):
        return pixel_unshuffle(x, self.downscale_factor)

    def extra_repr(self):
        return told(self, ("downscale_factor",))


class ChannelShuffle(Module):
    """channel_shuffle as a module."""

    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, x):
        return channel_shuffle(x, self.groups)

    def extra_repr(self):
        return told(self, ("groups",))


# ## Windows to columns
#
# `unfold` is the *im2col* of the chapter as an operation of its own: a column for each window. With it you can write a
# convolution as a matrix product, or give every position weights of its own. `fold` adds the columns up again where
# windows overlap, and each of the two is the other's transpose. We write both tap by tap, because one tap is a slice.


def unfold(input: Tensor, kernel_size, dilation=1, padding=0, stride=1) -> Tensor:
    """The windows of images (N, C, H, W) as columns (N, C * kh * kw, places); one image (C, H, W) gives
    (C * kh * kw, places). As torch.nn.functional.unfold."""
    if input.ndim == 3:
        return unfold(input.unsqueeze(0), kernel_size, dilation, padding, stride).squeeze(0)
    size, apart, around, step = _windows(kernel_size, dilation, padding, stride)
    refuse_too_small("unfold", images("unfold", input), size, around, apart)
    places = tuple(map(conv_size, input.shape[2:], size, step, around, apart))
    x = pad(input, (around[1], around[1], around[0], around[0])) if any(around) else input
    seen = tt.stack([x[tap] for tap in _taps(size, apart, step, places)], 2)  # (N, C, kh * kw, rows, columns)
    return seen.reshape(len(x), x.shape[1] * math.prod(size), math.prod(places))


# For the way back we place each tap's part into an empty image, and add.


def fold(input: Tensor, output_size, kernel_size, dilation=1, padding=0, stride=1) -> Tensor:
    """Images (N, C, *output_size) to whose windows the columns of input (N, C * kh * kw, places) have been added;
    without N for one image. As torch.nn.functional.fold. ValueError for columns that do not fit the windows."""
    if input.ndim == 2:
        return fold(input.unsqueeze(0), output_size, kernel_size, dilation, padding, stride).squeeze(0)
    size, apart, around, step = _windows(kernel_size, dilation, padding, stride)
    sides = pair(output_size, "output_size")
    places = tuple(map(conv_size, sides, size, step, around, apart))
    if input.ndim != 3 or input.shape[1] % math.prod(size) or input.shape[2:] != (math.prod(places),):
        raise ValueError(
            f"fold: columns of shape {input.shape} do not fit the {places[0]} x {places[1]} windows of {size} in "
            f"images of {sides}; they must be (N, C * {math.prod(size)}, {math.prod(places)})"
        )
    channels = input.shape[1] // math.prod(size)
    parts = input.reshape(len(input), channels, math.prod(size), *places)
    shape = (len(input), channels, *(n + 2 * p for n, p in zip(sides, around)))
    taps = enumerate(_taps(size, apart, step, places))
    out = sum((tt.place(parts[:, :, number], index=tap, shape=shape) for number, tap in taps), tt.zeros(1))
    return out[:, :, around[0] : around[0] + sides[0], around[1] : around[1] + sides[1]].to(input.dtype)


# A tap sees every stride-th pixel from its own offset on.


def _windows(kernel_size, dilation, padding, stride):
    size, apart = pair(kernel_size, "kernel_size"), pair(dilation, "dilation")
    return size, apart, pair(padding, "padding", least=0), pair(stride, "stride")


def _taps(size, apart, step, places):
    """For each tap the index of the pixels that it sees."""
    for tap in np.ndindex(*size):
        starts = [int(i) * d for i, d in zip(tap, apart)]
        stops = [start + (m - 1) * s + 1 for start, m, s in zip(starts, places, step)]
        yield (slice(None), slice(None), *map(slice, starts, stops, step))


# If windows do not overlap, `fold` undoes `unfold`. If they do, each pixel comes back as often as a window saw it.


def check_fold():
    x = tt.randn(2, 3, 4, 6)
    columns = unfold(x, 2, stride=2)
    assert columns.shape == (2, 12, 6) and (fold(columns, (4, 6), 2, stride=2) == x).all()
    assert fold(unfold(tt.ones(1, 1, 3, 3), 2), 3, 2)[0, 0].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


# Both as modules.


class Unfold(Module):
    """unfold as a module."""

    def __init__(self, kernel_size, dilation=1, padding=0, stride=1):
        super().__init__()
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, x):
        return unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self):
        return told(self, ("kernel_size", "dilation", "padding", "stride"))


class Fold(Module):
    """fold as a module."""

    def __init__(self, output_size, kernel_size, dilation=1, padding=0, stride=1):
        super().__init__()
        self.output_size, self.kernel_size = output_size, kernel_size
        self.dilation, self.padding, self.stride = dilation, padding, stride

    def forward(self, x):
        return fold(x, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self):
        return told(self, ("output_size", "kernel_size", "dilation", "padding", "stride"))


__all__ = [
    "ChannelShuffle", "Fold", "PixelShuffle", "PixelUnshuffle", "Unfold", "channel_shuffle", "fold", "pixel_shuffle",
    "pixel_unshuffle", "unfold",
]
