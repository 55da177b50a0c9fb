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
from tt_spatial.spatial import (
    Conv2d,
    _channels_first,
    _channels_last,
    _floating,
    _images,
    _one_dtype,
    _pair,
    _places,
    _refuse_if_too_small,
    _refuse_misfits,
    _taps,
    _tapped,
    conv2d,
    max_pool2d,
    transposed_convolution,
    windows,
)
from tt_tensor import Module, Parameter, Tensor, generator, primitive

# ## Padding
#
# Zeros, or another constant, go around the numbers by placing them into a larger array. The other three modes repeat
# numbers that are there, so they are an index: which pixel stands at which place.

MODES = {
    "reflect": lambda places, n: (n - 1) - np.abs((n - 1) - np.abs(places)),  # dcb|abcd|cba
    "replicate": lambda places, n: np.clip(places, 0, n - 1),  # aaa|abcd|ddd
    "circular": lambda places, n: places % n,  # bcd|abcd|abc
}


def pad(x: Tensor, padding: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """x with `padding` numbers more on each side, given as (left, right) of the last dimension, then of the one before
    it, and so on; as torch.nn.functional.pad. mode: "constant" (value), "reflect", "replicate" or "circular".

    Negative numbers cut off (constant mode only). Raises ValueError for more than there is to repeat."""
    whole = isinstance(padding, (tuple, list)) and all(isinstance(n, (int, np.integer)) for n in padding)
    if not whole or len(padding) % 2 or len(padding) > 2 * x.ndim:
        raise ValueError(f"pad needs a pair for each dimension, last one first; {padding} for shape {x.shape}")
    pairs = [(0, 0)] * (x.ndim - len(padding) // 2) + list(zip(padding[::2], padding[1::2]))[::-1]
    if mode == "constant":
        return _constant(x, pairs, value)
    for dim, (before, after) in enumerate(pairs):
        if before or after:
            x = _repeated(x, dim, before, after, known_mode(mode))
    return x


def known_mode(mode: str) -> str:
    """The mode, if there is such a padding mode. ValueError otherwise."""
    if mode not in ("zeros", *MODES):
        raise ValueError(f"padding modes are zeros, {', '.join(MODES)}; not {mode!r}")
    return mode


def _constant(x, pairs, value):
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, pairs))
    if min(shape, default=0) < 0:
        raise ValueError(f"pad would cut more from shape {x.shape} than there is: {pairs}")
    kept = x[tuple(slice(max(-before, 0), n - max(-after, 0)) for n, (before, after) in zip(x.shape, pairs))]
    inside = tuple(slice(max(b, 0), max(b, 0) + n) for n, (b, _) in zip(kept.shape, pairs))
    padded = tt.place(kept, index=inside, shape=shape)
    if not value:
        return padded
    around = np.ones(shape, padded.dtype)
    around[inside] = 0
    return padded + tt.from_numpy(around) * value


def _repeated(x, dim, before, after, mode):
    n = x.shape[dim]
    most = {"reflect": n - 1, "circular": n}.get(mode, math.inf)
    if min(before, after) < 0 or max(before, after) > most or not n:
        raise ValueError(f"{mode} padding of {n} numbers can add 0 to {most}; {before} and {after} were asked for")
    index = MODES[mode](np.arange(-before, n + after), n)
    return x[(slice(None),) * dim + (index,)]


def padded_for(layer: Conv2d, x: Tensor) -> Tensor:
    """x padded as a convolution layer with a padding mode wants it."""
    if layer.padding == "valid":
        return x
    if layer.padding == "same":
        both = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size)]
        (top, left), (bottom, right) = zip(*((n // 2, n - n // 2) for n in both))
    else:
        top, left = bottom, right = layer.padding
    return pad(x, (left, right, top, bottom), layer.padding_mode)


class _Padding(Module):
    mode = "constant"

    def __init__(self, padding, value: float = 0.0):
        super().__init__()
        self.padding, self.value = (padding,) * 4 if isinstance(padding, int) else tuple(padding), value

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
    return _pair(found if isinstance(found, (int, np.integer)) else (found,), name, least)[0]


def conv1d(x: Tensor, weight: Tensor, bias=None, stride=1, padding=0, dilation=1, groups: int = 1) -> Tensor:
    """Series (N, C, L) under detectors (O, C / groups, k): (N, O, places). As torch.nn.functional.conv1d."""
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
        x, padding = _row(x, "Conv1d"), self.padding
        if self.padding_mode != "zeros":
            x, padding = padded_for(self, x), 0
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
    _images("conv_transpose2d", x)
    if weight.ndim == 4 and bias is not None and bias.shape != (weight.shape[1] * groups,):
        raise ValueError(f"conv_transpose2d: a bias of shape {bias.shape} for {weight.shape[1] * groups} channels")
    _refuse_misfits("conv_transpose2d", x.shape, weight.shape, None, x.shape[1], weight.shape[0], groups)
    stride, dilation = _pair(stride, "stride"), _pair(dilation, "dilation")
    padding, more = _pair(padding, "padding", 0), _pair(output_padding, "output_padding", 0)
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
    x, weight = _one_dtype(x, weight)
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
        if min(in_channels, out_channels, groups) < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"{groups} groups do not divide {in_channels} input and {out_channels} output channels")
        self.options = (stride, padding, output_padding, groups, dilation)
        self.weight = Parameter(tt.zeros(in_channels, out_channels // groups, *_pair(kernel_size, "kernel_size")))
        self.bias = Parameter(tt.zeros(out_channels)) if bias else None
        bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
        for parameter in self.parameters():
            parameter.copy_(generator().uniform(-bound, bound, parameter.shape))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, larger, larger)."""
        return conv_transpose2d(x, self.weight, self.bias, *self.options)


# ## Average pooling
#
# A window's mean is a sum over taps, and its gradient hands the same share to every pixel. Each is the other's rule.
# Whether zeros around the image count as pixels is up to the caller.


@primitive(cost=lambda out, x, size, **where: out.size * math.prod(size))
def avg_pool(x, /, size, stride, padding, count_include_pad):
    """The mean of each window of images (N, C, H, W)."""
    out = np.empty((len(x), *_places(x, size, stride, padding, (1, 1)), x.shape[1]), x.dtype)
    share = _share_of_one(_channels_last(x).shape[1:3], size, stride, padding, count_include_pad, x.dtype)
    for part, (first, *others) in _tapped(x, size, stride, padding, (1, 1), 0):
        np.copyto(out[part], first)
        for tap in others:
            out[part] += tap
        out[part] *= share
    return _channels_first(out)


@primitive
def avg_unpool(g, /, shape, size, stride, padding, count_include_pad):
    """What `avg_pool` hands back to images of `shape`: each window's share of g, added to all its pixels."""
    (top, left), (n, channels, height, width) = padding, shape
    padded = np.zeros((n, height + 2 * top, width + 2 * left, channels), g.dtype)
    shares = _channels_last(g) * _share_of_one((height, width), size, stride, padding, count_include_pad, g.dtype)
    for tap in _taps(windows(padded, size, stride, (1, 1))):
        tap += shares
    return _channels_first(padded[:, top : top + height, left : left + width])


def _share_of_one(image, size, stride, padding, count_include_pad, dtype):
    if count_include_pad:
        return dtype.type(1 / math.prod(size))
    counted = []
    for n, k, s, p in zip(image, size, stride, padding):
        starts = np.arange(0, n + 2 * p - k + 1, s) - p
        counted.append(np.minimum(starts + k, n) - np.maximum(starts, 0))
    return (1 / np.outer(*counted)[:, :, None]).astype(dtype)


rule(avg_pool, lambda g, out, x, **where: avg_unpool(g, shape=tuple(x.shape), **where))
rule(avg_unpool, lambda h, out, g, shape, **where: avg_pool(h, **where))


def avg_pool2d(x: Tensor, kernel_size, stride=None, padding=0, count_include_pad: bool = True) -> Tensor:
    """The mean of each window of images (N, C, H, W) or one (C, H, W). As torch.nn.functional.avg_pool2d."""
    if x.ndim == 3:
        return avg_pool2d(x.unsqueeze(0), kernel_size, stride, padding, count_include_pad).squeeze(0)
    size = _pair(kernel_size, "kernel_size")
    stride, padding = size if stride is None else _pair(stride, "stride"), _pair(padding, "padding", 0)
    if any(2 * p > k for p, k in zip(padding, size)):
        raise ValueError(f"avg_pool2d: padding {padding} is more than half of the window {size}")
    _refuse_if_too_small("avg_pool2d", _images("avg_pool2d", x), size, stride, padding, (1, 1))
    return avg_pool(_floating(x), size=size, stride=stride, padding=padding, count_include_pad=count_include_pad)


def avg_pool1d(x: Tensor, kernel_size, stride=None, padding=0, count_include_pad: bool = True) -> Tensor:
    """The mean of each window of series (N, C, L). As torch.nn.functional.avg_pool1d."""
    size = _one(kernel_size, "kernel_size")
    stride = size if stride is None else _one(stride, "stride")
    where = ((1, size), (1, stride), (0, _one(padding, "padding", 0)), count_include_pad)
    return avg_pool2d(_row(x, "avg_pool1d"), *where).squeeze(-2)


class AvgPool2d(Module):
    """avg_pool2d as a module."""

    def __init__(self, kernel_size, stride=None, padding=0, count_include_pad: bool = True):
        super().__init__()
        self.options = (kernel_size, stride, padding, count_include_pad)

    def forward(self, x):
        return avg_pool2d(x, *self.options)

    def extra_repr(self):
        return str(self.options[0])


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
# m \rfloor$ up to $\lceil (i + 1) n / m \rceil$. Along one direction, taking these means is a matrix, and an image has
# two directions: $A x B^T$. So the gradient is the product's.


def _spans(n: int, m: int) -> list[tuple[int, int]]:
    return [(i * n // m, -((-(i + 1) * n) // m)) for i in range(m)]


def _averaging(n: int, m: int, dtype) -> Tensor:
    matrix = np.zeros((m, n), dtype)
    for i, (start, stop) in enumerate(_spans(n, m)):
        matrix[i, start:stop] = 1 / (stop - start)
    return tt.from_numpy(matrix)


def _output_size(x, output_size):
    if x.ndim < 2 or not x.numel():
        raise ValueError(f"adaptive pooling takes images (..., H, W); this is of shape {x.shape}")
    wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * 2
    return _pair(tuple(x.shape[i - 2] if n is None else n for i, n in enumerate(wanted)), "output_size")


def adaptive_avg_pool2d(x: Tensor, output_size) -> Tensor:
    """Means over as many windows as asked for: (..., H, W) -> (..., *output_size); None keeps a size. As
    torch.nn.functional.adaptive_avg_pool2d."""
    (rows, columns), x = _output_size(x, output_size), _floating(x)
    if (rows, columns) == (1, 1):
        return x.mean((-2, -1), keepdim=True)
    return _averaging(x.shape[-2], rows, x.dtype) @ x @ _averaging(x.shape[-1], columns, x.dtype).T


def adaptive_max_pool2d(x: Tensor, output_size) -> Tensor:
    """The largest numbers of as many windows as asked for: (..., H, W) -> (..., *output_size). As
    torch.nn.functional.adaptive_max_pool2d."""
    rows, columns = _output_size(x, output_size)
    bands = [tt.amax(x[..., a:b, :], dim=-2, keepdim=True) for a, b in _spans(x.shape[-2], rows)]
    x = tt.cat(bands, dim=-2)
    return tt.cat([tt.amax(x[..., a:b], dim=-1, keepdim=True) for a, b in _spans(x.shape[-1], columns)], dim=-1)


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
# Upsampling is the same kind of thing with other matrices: a row of ones and zeros that picks the nearest pixel, or two
# weights that mix the nearest two. Nearest needs no matrix, an index will do.


def interpolate(
    x: Tensor, size=None, scale_factor=None, mode: str = "nearest", align_corners: bool = False
) -> Tensor:
    """Images (..., H, W) at another size: "nearest", or "bilinear" (with align_corners the corner pixels stay the
    corners). As torch.nn.functional.interpolate, of which size and scale_factor are given one."""
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate needs either size or scale_factor")
    if mode not in ("nearest", "bilinear"):
        raise ValueError(f'modes are "nearest" and "bilinear", not {mode!r}')
    if mode == "nearest" and align_corners:
        raise ValueError('align_corners is for mode="bilinear"; "nearest" mixes no pixels')
    factors = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * 2
    if x.ndim < 2 or not x.numel() or len(factors) != 2:
        raise ValueError(f"interpolate takes images (..., H, W) and a factor or two, not {x.shape} and {scale_factor}")
    wanted = size if size is not None else tuple(int(n * f) for n, f in zip(x.shape[-2:], factors))
    wanted = _pair(wanted, "size")
    steps = [1 / f if f else n / m for n, m, f in zip(x.shape[-2:], wanted, factors)]
    if mode == "nearest":
        rows, columns = (
            np.minimum((np.arange(m) * step).astype(int), n - 1) for n, m, step in zip(x.shape[-2:], wanted, steps)
        )
        return x[..., rows, :][..., columns]
    x = _floating(x)
    down, across = (
        _mixing(n, m, step, align_corners, x.dtype) for n, m, step in zip(x.shape[-2:], wanted, steps)
    )
    return down @ x @ across.T


def _mixing(n, m, step, align_corners, dtype) -> Tensor:
    if align_corners:
        places = np.arange(m) * ((n - 1) / (m - 1) if m > 1 else 0)
    else:
        places = np.maximum((np.arange(m) + 0.5) * step - 0.5, 0)
    low = np.minimum(places.astype(int), n - 1)
    matrix, high, part = np.zeros((m, n)), np.minimum(low + 1, n - 1), places - low
    np.add.at(matrix, (np.arange(m), low), 1 - part)
    np.add.at(matrix, (np.arange(m), high), part)
    return tt.from_numpy(matrix.astype(dtype))


class Upsample(Module):
    """interpolate as a module."""

    def __init__(self, size=None, scale_factor=None, mode: str = "nearest", align_corners: bool = False):
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
        kept = tt.dropout(tt.ones(*x.shape[:2], *[1] * (x.ndim - 2), dtype=x.dtype), self.p, self.training)
        return x * kept if self.training and self.p else x


__all__ = [
    "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AvgPool2d", "ConstantPad2d", "Conv1d", "ConvTranspose2d",
    "Dropout2d", "MaxPool1d", "ReflectionPad2d", "ReplicationPad2d", "Upsample", "ZeroPad2d",
    "adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool", "avg_pool1d", "avg_pool2d", "avg_unpool", "conv1d",
    "conv_transpose2d", "interpolate", "max_pool1d", "pad",
]
