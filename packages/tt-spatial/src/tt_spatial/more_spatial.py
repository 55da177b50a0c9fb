# # More spatial
#
# An appendix of chapter 09: what PyTorch's users expect besides the convolution and the pooling of the chapter. Nearly
# all of it is put together from what there is; where a primitive is new, it has its rule with it.

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import tt_tensor as tt
from tt_autograd import rule
from tt_spatial.common import (
    channels_first, channels_last, floating, images, one_dtype, padded, pair, pooling_arguments, refuse_groups,
    refuse_misfits, size_of, unpadded, wide,
)  # fmt: skip
from tt_spatial.padding import MODES, padded_for, repeated
from tt_spatial.spatial import (
    Conv2d, conv2d, convolution, max_pool2d, max_unpool, taps, transposed_convolution, weight_convolution, windows,
    winner,
)  # fmt: skip
from tt_tensor import Module, Parameter, Tensor, generator, primitive

# ## Derivatives of derivatives
#
# The three convolutions are linear in both of their inputs, and the derivatives of each are the other two.

rule(
    transposed_convolution,
    lambda h, out, g, weight, size, **where: convolution(h, weight, **where),
    lambda h, out, g, weight, size, **where: weight_convolution(h, g, size=size_of(weight), **where),
)
rule(
    weight_convolution,
    lambda h, out, x, g, size, **where: transposed_convolution(g, h, size=size_of(x), **where),
    lambda h, out, x, g, size, **where: convolution(x, h, **where),
)

# `max_unpool`, the gradient of a pooling, is linear in `g`. Its transpose picks up what it puts down; between the two,
# each is the other's rule.


@primitive
def max_pick(h, x, largest, /, size, stride, padding, dilation):
    """From each window of h the number at the first place where x holds the window's largest one."""
    won, out = winner(x, largest, size, stride, padding, dilation), np.zeros(channels_last(largest).shape, h.dtype)
    for number, value in enumerate(taps(padded(h, padding), size, stride, dilation)):
        out = np.where(won == number, value, out)
    return channels_first(out)


rule(max_unpool, lambda h, out, g, x, largest, **where: max_pick(h, x, largest, **where), None, None)
rule(max_pick, lambda g, out, h, x, largest, **where: max_unpool(g, x, largest, **where), None, None)

# ## Padding
#
# Zeros, or another constant, go around the numbers by placing them into a larger array. The other three modes repeat
# numbers that are there, so they are an index: which pixel is at which place. (Convolution layers have them as
# well, so they are in the module `padding`.)


def pad(x: Tensor, padding: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """x with `padding` numbers more on each side, given as (left, right) of the last dimension, then of the one before
    it, and so on; as torch.nn.functional.pad. mode: "constant" (value, 0 unless given; in the dtype of x), "reflect",
    "replicate" or "circular". Negative numbers cut off.

    Raises ValueError for an unknown mode, for more than there is to repeat, and for a value that x cannot hold."""
    whole = isinstance(padding, (tuple, list)) and all(isinstance(n, (int, np.integer)) for n in padding)
    if not whole or len(padding) % 2 or len(padding) > 2 * x.ndim:
        raise ValueError(f"pad needs a pair for each dimension, last one first; {padding} for shape {x.shape}")
    if mode not in ("constant", *MODES):
        raise ValueError(f"pad has the modes constant, {', '.join(MODES)}; not {mode!r}")
    pairs = [(0, 0)] * (x.ndim - len(padding) // 2) + list(zip(padding[::2], padding[1::2]))[::-1]
    if any(n + min(before, 0) + min(after, 0) < 0 for n, (before, after) in zip(x.shape, pairs)):
        raise ValueError(f"pad would cut more from shape {x.shape} than there is: {pairs}")
    if mode in ("constant", "circular"):  # the others look at what is cut off, too
        x = x[tuple(slice(max(-before, 0), n - max(-after, 0)) for n, (before, after) in zip(x.shape, pairs))]
        pairs = [(max(before, 0), max(after, 0)) for before, after in pairs]
    if mode == "constant" or not any(map(any, pairs)):
        return _constant(x, pairs, 0 if value is None else value)
    if value:
        raise ValueError(f'pad takes a value only with mode="constant"; {value} was given with mode={mode!r}')
    for dim, (before, after) in enumerate(pairs):
        if before or after:
            x = repeated(x, dim, before, after, mode)
    return x


# The constant is chosen where nothing was placed. Adding it, times a mask, would not do: $0 \cdot \infty$ is nan.


def _constant(x, pairs, value):
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, pairs))
    inside = tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, pairs))
    placed = tt.place(x, index=inside, shape=shape)
    around = np.full(shape, _held(value, x.dtype))
    if not around.any():
        return placed
    mask = np.zeros(shape, bool)
    mask[inside] = True
    return tt.where(tt.from_numpy(mask), placed, tt.from_numpy(around))


def _held(value, dtype):
    """The number in this dtype, as PyTorch converts it: cut to an integer, or whether it is not zero."""
    try:
        with np.errstate(over="ignore"):
            held = dtype.type(int(value) if dtype.kind in "iu" else value)
    except (OverflowError, ValueError, TypeError):
        held = None
    if held is None or (dtype.kind == "f" and np.isinf(held) and not math.isinf(value)):
        raise ValueError(f"pad cannot put the value {value!r} into a tensor of {dtype}")
    return held


class _Padding(Module):
    mode = "constant"

    def __init__(self, padding, value: float | None = None):
        super().__init__()
        sides = (padding,) * 4 if isinstance(padding, (int, np.integer)) else padding
        if not isinstance(sides, (tuple, list)) or len(sides) != 4:
            raise ValueError(f"padding is one number or (left, right, top, bottom); it is {padding!r}")
        self.padding, self.value = tuple(sides), value

    def forward(self, x):
        return pad(x, self.padding, self.mode, self.value)

    def extra_repr(self):
        return str(self.padding)


class ZeroPad2d(_Padding):
    """Zeros around images: one number, or (left, right, top, bottom)."""

    def __init__(self, padding):
        super().__init__(padding)


class ConstantPad2d(_Padding):
    """A constant around images."""


class ReflectionPad2d(ZeroPad2d):
    """The image reflected at its border pixels."""

    mode = "reflect"


class ReplicationPad2d(ZeroPad2d):
    """The border pixels repeated."""

    mode = "replicate"


# ## One dimension
#
# A series (N, C, L) is an image with a single row.


def _row(x: Tensor, name: str) -> Tensor:
    if x.ndim not in (2, 3):
        raise ValueError(f"{name} takes series (N, C, L) or one (C, L); this is of shape {x.shape}")
    return x.unsqueeze(-2)


def _one(value, name: str, least: int = 1) -> int:
    found = value[0] if isinstance(value, (tuple, list)) and len(value) == 1 else value
    if isinstance(found, bool) or not isinstance(found, (int, np.integer)) or found < least:
        raise ValueError(f"{name} is an integer of at least {least}; it is {value!r}")
    return int(found)


def conv1d(x: Tensor, weight: Tensor, bias=None, stride=1, padding=0, dilation=1, groups: int = 1) -> Tensor:
    """Series (N, C, L) under filters (O, C / groups, k): (N, O, places). As torch.nn.functional.conv1d."""
    if weight.ndim != 3:
        raise ValueError(f"conv1d: the weight is to be (O, C / groups, k); its shape is {weight.shape}")
    padding = padding if isinstance(padding, str) else (0, _one(padding, "padding", 0))
    where = ((1, _one(stride, "stride")), padding, (1, _one(dilation, "dilation")), groups)
    return conv2d(_row(x, "conv1d"), weight.unsqueeze(2), bias, *where).squeeze(-2)


class Conv1d(Conv2d):
    """conv1d with weight (out_channels, in_channels / groups, k); as torch.nn.Conv1d."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0, dilation=1, groups: int = 1,
        bias: bool = True, padding_mode: str = "zeros",
    ):
        along: Any = padding if isinstance(padding, str) else (0, _one(padding, "padding", 0))
        super().__init__(
            in_channels, out_channels, (1, _one(kernel_size, "kernel_size")), (1, _one(stride, "stride")), along,
            (1, _one(dilation, "dilation")), groups, bias, padding_mode,
        )
        self.weight = Parameter(self.weight.numpy()[:, :, 0])

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, L) -> (N, out_channels, places)."""
        x, padding = padded_for(self, _row(x, "Conv1d"))
        weight = self.weight.unsqueeze(2)
        return conv2d(x, weight, self.bias, self.stride, padding, self.dilation, self.groups).squeeze(-2)


def max_pool1d(x: Tensor, kernel_size, stride=None, padding=0, dilation=1) -> Tensor:
    """The largest number of each window of series (N, C, L). As torch.nn.functional.max_pool1d."""
    size = _one(kernel_size, "kernel_size")
    stride = size if stride is None else _one(stride, "stride")
    where = ((1, size), (1, stride), (0, _one(padding, "padding", 0)), (1, _one(dilation, "dilation")))
    return max_pool2d(_row(x, "max_pool1d"), *where).squeeze(-2)


# ## Backwards through a convolution
#
# What the chapter needed as a gradient is of use as a layer of its own, which makes images larger: a decoder's, or a
# generator's. Its stride is a step in the *result*, so several sizes are possible, and `output_padding` chooses.


def conv_transpose2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, output_padding=0, groups: int = 1,
    dilation=1,
) -> Tensor:
    """Each number of x (N, C, H, W) hands out its value times a kernel of `weight` (C, O / groups, kh, kw): (N, O, (H -
    1) stride - 2 padding + dilation (kh - 1) + output_padding + 1, ...). As torch.nn.functional.conv_transpose2d."""
    if x.ndim == 3:
        whole = conv_transpose2d(x.unsqueeze(0), weight, bias, stride, padding, output_padding, groups, dilation)
        return whole.squeeze(0)
    images("conv_transpose2d", x)
    if weight.ndim == 4 and bias is not None and bias.shape != (weight.shape[1] * groups,):
        raise ValueError(f"conv_transpose2d: a bias of shape {bias.shape} for {weight.shape[1] * groups} channels")
    refuse_misfits("conv_transpose2d", x.shape, weight.shape, None, x.shape[1], weight.shape[0], groups)
    stride, dilation = pair(stride, "stride"), pair(dilation, "dilation")
    padding, more = pair(padding, "padding", 0), pair(output_padding, "output_padding", 0)
    if any(m >= max(s, d) for m, s, d in zip(more, stride, dilation)):
        raise ValueError(f"output_padding {more} must be smaller than stride {stride} or dilation {dilation}")
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + m + 1
        for n, s, p, d, k, m in zip(x.shape[2:], stride, padding, dilation, weight.shape[2:], more)
    )
    if min(size) < 1:
        raise ValueError(f"conv_transpose2d: padding {padding} leaves nothing of an output of {size}")
    if any(m >= s for m, s in zip(more, stride)):  # then a convolution finds more places in the result than x has
        x = pad(x, (0, more[1] // stride[1], 0, more[0] // stride[0]))
    x, weight = one_dtype(x, weight)
    out = transposed_convolution(
        x, weight, size=size, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    return out if bias is None else out + bias.reshape(1, -1, 1, 1)


class ConvTranspose2d(Module):
    """conv_transpose2d with weight (in_channels, out_channels / groups, kh, kw); as torch.nn.ConvTranspose2d."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0, output_padding=0, groups: int = 1,
        bias: bool = True, dilation=1,
    ):
        super().__init__()
        refuse_groups(in_channels, out_channels, groups)
        self.options = (stride, padding, output_padding, groups, dilation)
        self.weight = Parameter(tt.zeros(in_channels, out_channels // groups, *pair(kernel_size, "kernel_size")))
        self.bias = Parameter(tt.zeros(out_channels)) if bias else None
        bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
        for parameter in self.parameters():
            parameter.copy_(generator().uniform(-bound, bound, parameter.shape))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, larger, larger)."""
        return conv_transpose2d(x, self.weight, self.bias, *self.options)


# ## Pooling
#
# A window's mean is a sum over taps, and its gradient hands the same share to every pixel. Each is the other's rule.
# Whether zeros around the image count as pixels is up to the caller.


@primitive(cost=lambda out, x, size, **where: out.size * math.prod(size))
def avg_pool(x, /, size, stride, padding, count_include_pad):
    """The mean of each window of images (N, C, H, W)."""
    totals = windows(padded(x, padding), size, stride, (1, 1)).sum((3, 4), dtype=np.float64)
    return channels_first((totals / _counted(x.shape[2:], size, stride, padding, count_include_pad)).astype(x.dtype))


@primitive
def avg_unpool(g, /, shape, size, stride, padding, count_include_pad):
    """What `avg_pool` hands back to images of `shape`: each window's share of g, added to all its pixels."""
    out = padded(np.zeros(shape), padding)
    shares = channels_last(g) / _counted(shape[2:], size, stride, padding, count_include_pad)
    for pixels in taps(out, size, stride, (1, 1)):
        pixels += shares
    return unpadded(out, padding).astype(g.dtype)


def _counted(image, size, stride, padding, count_include_pad):
    """By how much the sum of a window is divided: one number, or (rows, columns, 1), in float64."""
    if count_include_pad:
        return float(math.prod(size))
    counted = []
    for n, k, s, p in zip(image, size, stride, padding):
        starts = np.arange(0, n + 2 * p - k + 1, s) - p
        counted.append(np.minimum(starts + k, n) - np.maximum(starts, 0))
    return np.outer(*counted)[:, :, None].astype(np.float64)


rule(avg_pool, lambda g, out, x, **where: avg_unpool(g, shape=tuple(x.shape), **where))
rule(avg_unpool, lambda h, out, g, shape, **where: avg_pool(h, **where))


def avg_pool2d(x: Tensor, kernel_size, stride=None, padding=0, count_include_pad: bool = True) -> Tensor:
    """The mean of each window of images (N, C, H, W) or one (C, H, W). As torch.nn.functional.avg_pool2d."""
    if x.ndim == 3:
        return avg_pool2d(x.unsqueeze(0), kernel_size, stride, padding, count_include_pad).squeeze(0)
    where = pooling_arguments("avg_pool2d", x, kernel_size, stride, padding)
    del where["dilation"]
    return avg_pool(floating(x), count_include_pad=count_include_pad, **where)


def avg_pool1d(x: Tensor, kernel_size, stride=None, padding=0, count_include_pad: bool = True) -> Tensor:
    """The mean of each window of series (N, C, L). As torch.nn.functional.avg_pool1d."""
    size = _one(kernel_size, "kernel_size")
    stride = size if stride is None else _one(stride, "stride")
    where = ((1, size), (1, stride), (0, _one(padding, "padding", 0)), count_include_pad)
    return avg_pool2d(_row(x, "avg_pool1d"), *where).squeeze(-2)


# The poolings as modules. Each keeps its options as they were given.


class AvgPool2d(Module):
    """avg_pool2d as a module."""

    def __init__(self, kernel_size, stride=None, padding=0, count_include_pad: bool = True):
        super().__init__()
        self.options = (kernel_size, stride, padding, count_include_pad)

    def forward(self, x):
        return avg_pool2d(x, *self.options)

    def extra_repr(self):
        return str(self.options[0])


class MaxPool2d(Module):
    """max_pool2d as a module."""

    def __init__(self, kernel_size, stride=None, padding=0, dilation=1):
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation

    def forward(self, x):
        return max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation)

    def extra_repr(self):
        return f"{self.kernel_size}" + ("" if self.stride is None else f", stride={self.stride}")


class MaxPool1d(Module):
    """max_pool1d as a module."""

    def __init__(self, kernel_size, stride=None, padding=0, dilation=1):
        super().__init__()
        self.options = (kernel_size, stride, padding, dilation)

    def forward(self, x):
        return max_pool1d(x, *self.options)

    def extra_repr(self):
        return str(self.options[0])


# ## Adaptive pooling
#
# Here the size of the *result* is given, and the windows follow: result $i$ of $m$ sees the pixels from $\lfloor i n /
# m \rfloor$ up to $\lceil (i + 1) n / m \rceil$. A window is a band of rows crossed with a band of columns, so the mean
# of the rows' means is its mean. (A product with matrices $A x B^T$ would do the same in one line, until a pixel is
# infinite: then the zeros of the matrices spread nan over the whole row.)


def _spans(n: int, m: int) -> list[tuple[int, int]]:
    return [(i * n // m, -((-(i + 1) * n) // m)) for i in range(m)]


@primitive(cost=lambda out, x, size: x.size)
def spans_mean(x, /, size):
    """The means of as many windows as `size` says: (..., H, W) -> (..., *size)."""
    (height, width), (rows, columns) = x.shape[-2:], size
    out, bands = np.empty((*x.shape[:-2], *size), x.dtype), np.empty((*x.shape[:-2], rows, width))
    for i, (start, stop) in enumerate(_spans(height, rows)):
        x[..., start:stop, :].mean(-2, dtype=np.float64, out=bands[..., i, :])
    for j, (start, stop) in enumerate(_spans(width, columns)):
        out[..., j] = bands[..., start:stop].mean(-1)
    return out


@primitive
def spans_spread(g, /, shape):
    """What `spans_mean` hands back to images of `shape`: each window's share of g, added to all its pixels."""
    (height, width), (rows, columns) = shape[-2:], g.shape[-2:]
    bands, out = np.zeros((*shape[:-2], rows, width)), np.zeros(shape)
    for j, (start, stop) in enumerate(_spans(width, columns)):
        bands[..., start:stop] += g[..., j : j + 1] / float(stop - start)
    for i, (start, stop) in enumerate(_spans(height, rows)):
        out[..., start:stop, :] += bands[..., i : i + 1, :] / (stop - start)
    return out.astype(g.dtype)


rule(spans_mean, lambda g, out, x, size: spans_spread(g, shape=tuple(x.shape)))
rule(spans_spread, lambda h, out, g, shape: spans_mean(h, size=tuple(g.shape[-2:])))


def _output_size(x, output_size):
    if x.ndim < 2 or 0 in x.shape[-2:]:
        raise ValueError(f"adaptive pooling takes images (..., H, W) with H and W at least 1; this is {x.shape}")
    wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * 2
    wanted = tuple(x.shape[i - 2] if n is None else n for i, n in enumerate(wanted)) if len(wanted) == 2 else wanted
    return pair(wanted, "output_size")


def adaptive_avg_pool2d(x: Tensor, output_size) -> Tensor:
    """Means over as many windows as asked for: (..., H, W) -> (..., *output_size); None keeps a size. As
    torch.nn.functional.adaptive_avg_pool2d."""
    (rows, columns), x = _output_size(x, output_size), floating(x)
    if (rows, columns) == (1, 1) and x.dtype != np.float16:
        return x.mean((-2, -1), keepdim=True)
    return spans_mean(x, size=(rows, columns))


# For the maximum we lay the windows side by side. Then they are those of an ordinary pooling, with its rule for ties.
# Where windows are of unequal length, the shorter ones see their last pixel twice, which changes no maximum.


def _side_by_side(x, m, dim):
    n, before = x.shape[dim], (slice(None),) * dim
    if n % m == 0:
        return x, n // m
    spans, parts = _spans(n, m), []
    longest = max(stop - start for start, stop in spans)
    for start, stop in spans:
        parts += [x[(*before, slice(start, stop))], x[(*before, [stop - 1] * (longest - stop + start))]]
    return tt.cat([part for part in parts if part.shape[dim]], dim=dim), longest


def adaptive_max_pool2d(x: Tensor, output_size) -> Tensor:
    """The largest numbers of as many windows as asked for: (..., H, W) -> (..., *output_size). As
    torch.nn.functional.adaptive_max_pool2d."""
    rows, columns = _output_size(x, output_size)
    images = x if x.ndim == 4 else x.reshape(math.prod(x.shape[:-2]), 1, *x.shape[-2:])
    images, down = _side_by_side(images, rows, 2)
    images, across = _side_by_side(images, columns, 3)
    return max_pool2d(images, (down, across)).reshape(*x.shape[:-2], rows, columns)


class AdaptiveAvgPool2d(Module):
    """adaptive_avg_pool2d as a module."""

    def __init__(self, output_size):
        super().__init__()
        self.output_size = output_size

    def forward(self, x):
        return adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self):
        return str(self.output_size)


class AdaptiveMaxPool2d(AdaptiveAvgPool2d):
    """adaptive_max_pool2d as a module."""

    def forward(self, x):
        return adaptive_max_pool2d(x, self.output_size)


# ## Larger images
#
# For each row of the result, upsampling picks the nearest row or mixes the nearest two, and then does the same for
# columns. Either way it is an index. Row $i$ looks at place $i / f$ if a factor is given, and else at $i n / m$; the
# latter also, in images, for a side that keeps or doubles its size, whatever the factor.
# PyTorch computes that place in `float32`, and so do we: in `float64`, row 39 would come from row 29 if the factor is
# 1.3.


def interpolate(
    x: Tensor, size=None, scale_factor=None, mode: str = "nearest", align_corners: bool | None = None
) -> Tensor:
    """Images (N, C, H, W) at another size: "nearest" (also for series (N, C, L)), or "bilinear" (with align_corners
    the corner pixels stay the corners). As torch.nn.functional.interpolate, with either size or scale_factor."""
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate needs either size or scale_factor")
    if mode not in ("nearest", "bilinear"):
        raise ValueError(f'modes are "nearest" and "bilinear", not {mode!r}')
    if mode == "nearest" and align_corners:
        raise ValueError('align_corners is for mode="bilinear"; "nearest" mixes no pixels')
    if x.ndim not in ((3, 4) if mode == "nearest" else (4,)) or 0 in x.shape[1:]:
        series = " or series (N, C, L)" if mode == "nearest" else ""
        raise ValueError(f'interpolate, mode="{mode}", takes images (N, C, H, W){series}, not shape {x.shape}')
    sides = x.shape[2:]
    factors = _factors(scale_factor, x.shape)
    wanted = size if size is not None else tuple(int(n * f) for n, f in zip(sides, factors))
    wanted = _sides(wanted, len(sides))
    x = x if mode == "nearest" else floating(x)
    x = x.clone()
    for dim, (n, m, factor) in enumerate(zip(sides, wanted, factors), 2):
        if mode == "nearest":
            factor = None if x.ndim == 4 and m in (n, 2 * n) else factor
            x = mix(x, dim=dim, low=_nearest(n, m, factor), weight=np.zeros(m, np.float32))
        elif n != m:
            low, weight = _between(n, m, factor, align_corners, x.dtype)
            x = mix(x, dim=dim, low=low, weight=weight)
    return x


def _factors(scale_factor, shape):
    sides = len(shape) - 2
    factors = tuple(scale_factor) if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * sides
    numbers = [isinstance(f, (int, float, np.number)) and 0 < f < math.inf for f in factors]
    if scale_factor is not None and not (all(numbers) and len(factors) == sides):
        raise ValueError(
            f"scale_factor, for shape {shape}, is a positive number, or {sides} of them; it is {scale_factor!r}"
        )
    return factors


def _sides(size, count):
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size,) * count
    if len(sides) != count or not all(isinstance(m, (int, np.integer)) and m > 0 for m in sides):
        raise ValueError(f"the size is an integer of at least 1, or one for each of {count} sides; it is {size!r}")
    return sides


def _step(n, m, factor, dtype):
    return dtype(1 / factor) if factor else dtype(n) / dtype(m)


def _nearest(n, m, factor):
    """The index of the pixel for each of m results."""
    places = np.arange(m, dtype=np.float32) * _step(n, m, factor, np.float32)
    return np.minimum(places.astype(np.int64), n - 1)


def _between(n, m, factor, align_corners, dtype):
    """The index of the first of the two pixels that each of m results is between, and the weight of the second."""
    kind = wide(dtype).type
    if align_corners:
        places = np.arange(m, dtype=kind) * (kind(n - 1) / kind(m - 1) if m > 1 else kind(0))
    else:
        places = np.maximum((np.arange(m, dtype=kind) + kind(0.5)) * _step(n, m, factor, kind) - kind(0.5), 0)
    low = np.minimum(places.astype(np.int64), n - 1)
    return low, np.where(low < n - 1, np.clip(places - low, 0, 1), kind(0))


# One primitive mixes along one dimension, and its transpose hands the shares back. A pixel of weight 0 takes no part,
# even if it is infinite, and so receives a gradient of 0 even if that is infinite.


@primitive(cost=lambda out, x, **how: 2 * out.size)
def mix(x, /, dim, low, weight):
    """Along `dim`, (1 - weight) * x[low] + weight * x[low + 1]."""
    first = x[(slice(None),) * dim + (low,)]
    if not weight.any():
        return first
    second = x[(slice(None),) * dim + (np.minimum(low + 1, x.shape[dim] - 1),)]
    weight = weight.reshape(-1, *[1] * (x.ndim - 1 - dim))
    mixed = first * (1 - weight)
    mixed += np.multiply(second, weight, out=np.zeros_like(mixed), where=weight > 0)
    return mixed.astype(x.dtype, copy=False)


@primitive
def unmix(g, /, n, dim, low, weight):
    """What `mix` hands back to the n numbers that there were along `dim`."""
    shares = np.moveaxis(g, dim, 0)
    out = np.zeros((n, *shares.shape[1:]), wide(g.dtype))
    for place, part, share in zip(low, weight, shares):
        out[place] += share * (1 - part)
        if part > 0:
            out[place + 1] += share * part
    return np.moveaxis(out, 0, dim).astype(g.dtype)


rule(mix, lambda g, out, x, dim, **how: unmix(g, n=x.shape[dim], dim=dim, **how))
rule(unmix, lambda h, out, g, n, **how: mix(h, **how))


class Upsample(Module):
    """interpolate as a module."""

    def __init__(self, size=None, scale_factor=None, mode: str = "nearest", align_corners: bool | None = None):
        super().__init__()
        self.options = {"size": size, "scale_factor": scale_factor, "mode": mode, "align_corners": align_corners}

    def forward(self, x):
        return interpolate(x, **self.options)

    def extra_repr(self):
        return ", ".join(f"{name}={value}" for name, value in self.options.items() if value)


# ## Dropping channels
#
# Neighbouring pixels say nearly the same, so dropping single ones takes little away. This drops whole feature maps.


class Dropout2d(tt.Dropout):
    """Drops whole channels with probability p in training; as torch.nn.Dropout2d."""

    def forward(self, x):
        if not self.training or not self.p:
            return x
        kept = tt.dropout(tt.ones(*x.shape[:2], *[1] * (x.ndim - 2), dtype=x.dtype), self.p)
        return tt.where(kept > 0, x, 0.0) * (1 / max(1 - self.p, 1e-12))


__all__ = [
    "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AvgPool2d", "ConstantPad2d", "Conv1d", "ConvTranspose2d",
    "Dropout2d", "MaxPool1d", "MaxPool2d", "ReflectionPad2d", "ReplicationPad2d", "Upsample", "ZeroPad2d",
    "adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool", "avg_pool1d", "avg_pool2d", "avg_unpool", "conv1d",
    "conv_transpose2d", "interpolate", "max_pick", "max_pool1d", "mix", "pad", "spans_mean", "spans_spread", "unmix",
]
