# # Pooling
#
# An appendix of chapter 09: means beside the maxima of the chapter, PyTorch's options for both, windows that follow
# from the size of the result, and unpooling.

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

import tt_tensor as tt
from tt_autograd import rule
from tt_spatial import spatial
from tt_spatial.common import (
    channels_first, channels_last, floating, images, padded, pair, pooling_arguments, series, single, unpadded,
)  # fmt: skip
from tt_spatial.more_spatial import pad
from tt_spatial.spatial import conv_size, max_pool, taps, windows, winner
from tt_tensor import Module, Tensor, primitive
from tt_tensor.options import told

# ## Means
#
# A window's mean is a sum over taps, and its gradient hands the same amount to every pixel. Each of the two is the
# other's rule. You decide whether zeros around the image count as pixels.


@primitive(cost=lambda out, x, size, **where: out.size * math.prod(size))
def avg_pool(x, /, size, stride, padding, count_include_pad):
    """The mean of each window of images (N, C, H, W)."""
    totals = windows(padded(x, padding), size, stride, (1, 1)).sum((3, 4), dtype=np.float64)
    return channels_first((totals / _counted(x.shape[2:], size, stride, padding, count_include_pad)).astype(x.dtype))


@primitive
def avg_unpool(g, /, shape, size, stride, padding, count_include_pad):
    """The gradient of `avg_pool` at images of `shape`: each window's part of g, added to all its pixels."""
    out = padded(np.zeros(shape), padding)
    parts = channels_last(g) / _counted(shape[2:], size, stride, padding, count_include_pad)
    for pixels in taps(out, size, stride, (1, 1)):
        pixels += parts
    return unpadded(out, padding).astype(g.dtype)


# The divisor is one number, or, where windows reach beyond the image, one for each window.


def _counted(image, size, stride, padding, count_include_pad):
    """By how much the sum of a window is divided: one number, or (rows, columns, 1), in float64."""
    if count_include_pad:
        return float(math.prod(size))
    places = map(conv_size, image, size, stride, padding)
    counted = [_pixels(n, m, k, s, p, False) for n, m, k, s, p in zip(image, places, size, stride, padding)]
    return np.outer(*counted)[:, :, None].astype(np.float64)


def _pixels(n, places, kernel, stride, padding, count_include_pad):
    """How many of n pixels are in each of so many windows; with count_include_pad also those of the padding."""
    starts, around = np.arange(places) * stride - padding, padding if count_include_pad else 0
    return np.minimum(starts + kernel, n + around) - np.maximum(starts, -around)


rule(avg_pool, lambda g, out, x, **where: avg_unpool(g, shape=tuple(x.shape), **where))
rule(avg_unpool, lambda h, out, g, shape, **where: avg_pool(h, **where))


# ## Windows that stick out
#
# If the stride does not divide what is left, the last pixels belong to no window. With `ceil_mode` we add one more
# window, which sticks out on the right or below. But it must begin on the image or in the padding before it, because a
# window that sees nothing has no maximum. We put as many pixels behind the image as the last window needs.


def _beyond(n, kernel, stride, padding, dilation):
    """How many pixels behind the image and its padding the last window reaches, with ceil_mode."""
    reach = dilation * (kernel - 1) + 1
    places = 1 - (reach - n - 2 * padding) // stride  # rounded up
    places -= (places - 1) * stride >= n + padding
    return max((places - 1) * stride + reach - n - 2 * padding, 0)


def _arguments(name, x, kernel_size, stride, padding, dilation, ceil_mode, fill):
    """x, larger if ceil_mode needs it, and the options as pairs."""
    images(name, x)
    if ceil_mode:
        size, around = pair(kernel_size, "kernel_size"), pair(padding, "padding", least=0)
        step, apart = size if stride is None else pair(stride, "stride"), pair(dilation, "dilation")
        down, right = map(_beyond, x.shape[2:], size, step, around, apart)
        x = pad(x, (0, right, 0, down), value=fill)
    return x, pooling_arguments(name, x, kernel_size, stride, padding, dilation)


# ## Means with options
#
# When we take a mean, the pixels that we added do not count, not even if the zeros of the padding do. So with
# `ceil_mode` we turn the mean over all of a window into a sum, and divide by the number of pixels that count. With
# `divisor_override` you choose the divisor yourself.


def avg_pool2d(
    x: Tensor, kernel_size, stride=None, padding=0, ceil_mode: bool = False, count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of images (N, C, H, W) or one (C, H, W). ceil_mode: also of a last window that sticks
    out. As torch.nn.functional.avg_pool2d."""
    if x.ndim == 3:
        options = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
        return avg_pool2d(x.unsqueeze(0), *options).squeeze(0)
    larger, where = _arguments("avg_pool2d", floating(x), kernel_size, stride, padding, 1, ceil_mode, 0.0)
    del where["dilation"]
    if not ceil_mode and divisor_override is None:
        return avg_pool(larger, count_include_pad=count_include_pad, **where)
    if divisor_override == 0:
        raise ValueError("avg_pool2d cannot divide by 0: divisor_override is another number, or None")
    means = avg_pool(larger, count_include_pad=True, **where)
    sides = zip(x.shape[2:], means.shape[2:], where["size"], where["stride"], where["padding"])
    counted = divisor_override or np.outer(*(_pixels(*side, count_include_pad) for side in sides))
    return means * tt.from_numpy(np.asarray(math.prod(where["size"]) / counted, means.dtype))


# A series (N, C, L) is an image with a single row.


def avg_pool1d(
    x: Tensor, kernel_size, stride=None, padding=0, ceil_mode: bool = False, count_include_pad: bool = True
) -> Tensor:
    """The mean of each window of series (N, C, L). As torch.nn.functional.avg_pool1d."""
    size, stride, padding, _ = _flat(kernel_size, stride, padding)
    return avg_pool2d(series("avg_pool1d", x), size, stride, padding, ceil_mode, count_include_pad).squeeze(-2)


def _flat(kernel_size, stride, padding, dilation=1):
    size = single(kernel_size, "kernel_size")
    stride = size if stride is None else single(stride, "stride")
    return (1, size), (1, stride), (0, single(padding, "padding", 0)), (1, single(dilation, "dilation"))


# ## Where the maximum was
#
# With `return_indices` you also get the position of each maximum: its number in the image, row by row. The chapter's
# `winner` knows which tap won.


def max_pool2d(
    x: Tensor, kernel_size, stride=None, padding=0, dilation=1, ceil_mode: bool = False, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest number of each window of images (N, C, H, W) or one (C, H, W); with return_indices also its place
    row * W + column. ceil_mode: also of a last window that sticks out. As torch.nn.functional.max_pool2d."""
    if x.ndim == 3:
        found = max_pool2d(x.unsqueeze(0), kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        return _squeezed(found, 0)
    if not ceil_mode and not return_indices:
        return spatial.max_pool2d(x, kernel_size, stride, padding, dilation)
    x = x.float() if x.dtype.kind == "b" else x
    least = -math.inf if x.dtype.kind == "f" else int(np.iinfo(x.dtype).min)
    larger, where = _arguments("max_pool2d", x, kernel_size, stride, padding, dilation, ceil_mode, least)
    out = max_pool(larger, **where)
    return (out, _places(larger, out, x.shape[3], **where)) if return_indices else out


def _places(x, out, width, size, stride, padding, dilation):
    won = winner(x.detach().numpy(), out.detach().numpy(), size, stride, padding, dilation).astype(np.int64)
    down, right = np.divmod(won, size[1])
    rows = np.arange(won.shape[1])[:, None, None] * stride[0] + down * dilation[0] - padding[0]
    columns = np.arange(won.shape[2])[:, None] * stride[1] + right * dilation[1] - padding[1]
    return tt.from_numpy(np.ascontiguousarray(channels_first(rows * width + columns)))


def _squeezed(found, dim):
    return tuple(each.squeeze(dim) for each in found) if isinstance(found, tuple) else found.squeeze(dim)


# In one dimension, we treat a series as an image with one row again.


def max_pool1d(
    x: Tensor, kernel_size, stride=None, padding=0, dilation=1, ceil_mode: bool = False, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest number of each window of series (N, C, L); with return_indices also its place. As
    torch.nn.functional.max_pool1d."""
    size, step, around, apart = _flat(kernel_size, stride, padding, dilation)
    return _squeezed(max_pool2d(series("max_pool1d", x), size, step, around, apart, ceil_mode, return_indices), -2)


def check_places():
    x = Tensor([[[[1.0, 5.0, 2.0], [4.0, 3.0, 6.0]]]])
    largest, places = max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    assert largest.tolist() == [[[[5, 6]]]] and places.tolist() == [[[[1, 5]]]]
    assert avg_pool2d(x, 2, ceil_mode=True).tolist() == [[[[3.25, 4]]]]


# ## And back
#
# With these positions, a decoder can put numbers back where the maxima came from. All other pixels become 0.


def max_unpool2d(
    input: Tensor, indices: Tensor, kernel_size, stride=None, padding=0, output_size=None
) -> Tensor:
    """Images in which each number of input (N, C, h, w), or (C, h, w), is at its place, from max_pool2d; the others are
    0. output_size chooses among the possible sizes. As torch.nn.functional.max_unpool2d.

    Raises ValueError for shapes that differ and for another size, IndexError for a place that is not in the image."""
    size = pair(kernel_size, "kernel_size")
    step, around = size if stride is None else pair(stride, "stride"), pair(padding, "padding", least=0)
    if input.shape != indices.shape or input.ndim not in (3, 4):
        raise ValueError(f"max_unpool2d takes numbers and places of one shape, not {input.shape} and {indices.shape}")
    usual = [(n - 1) * s - 2 * p + k for n, s, p, k in zip(input.shape[-2:], step, around, size)]
    sides = usual if output_size is None else list(output_size)[-2:]
    if not all(n - s < m < n + s for m, n, s in zip(sides, usual, step)):
        raise ValueError(f"max_unpool2d: an output_size near {usual} is possible, not {sides}")
    empty = tt.zeros(*input.shape[:-2], math.prod(sides), dtype=input.dtype)
    places, numbers = (each.reshape(*each.shape[:-2], -1) for each in (indices, input))
    return tt.scatter(empty, -1, places, numbers).reshape(*input.shape[:-2], *sides)


# The same in one dimension.


def max_unpool1d(
    input: Tensor, indices: Tensor, kernel_size, stride=None, padding=0, output_size=None
) -> Tensor:
    """max_unpool2d for series (N, C, l) or (C, l). As torch.nn.functional.max_unpool1d."""
    size, stride, padding, _ = _flat(kernel_size, stride, padding)
    wanted = None if output_size is None else (1, list(output_size)[-1])
    rows = series("max_unpool1d", input), series("max_unpool1d", indices)
    return max_unpool2d(*rows, size, stride, padding, wanted).squeeze(-2)


# ## Modules
#
# Each module keeps its options under PyTorch's names.


class _MaxPool(Module):
    function = staticmethod(max_pool2d)

    def __init__(
        self, kernel_size, stride=None, padding=0, dilation=1, return_indices: bool = False, ceil_mode: bool = False
    ):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.return_indices, self.ceil_mode = padding, dilation, return_indices, ceil_mode

    def forward(self, x):
        where = (self.kernel_size, self.stride, self.padding, self.dilation)
        return self.function(x, *where, self.ceil_mode, self.return_indices)

    def extra_repr(self):
        return told(self, ("kernel_size", "stride", "padding", "dilation", "ceil_mode"))


# The dimension chooses the function.


class MaxPool1d(_MaxPool):
    """max_pool1d as a module."""

    function = staticmethod(max_pool1d)


class MaxPool2d(_MaxPool):
    """max_pool2d as a module."""


# Average pooling has other options.


class AvgPool1d(Module):
    """avg_pool1d as a module."""

    def __init__(
        self, kernel_size, stride=None, padding=0, ceil_mode: bool = False, count_include_pad: bool = True
    ):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode, self.count_include_pad = padding, ceil_mode, count_include_pad

    def forward(self, x):
        return avg_pool1d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self):
        return told(self, ("kernel_size", "stride", "padding"))


# In two dimensions there is a divisor besides.


class AvgPool2d(AvgPool1d):
    """avg_pool2d as a module."""

    def __init__(
        self, kernel_size, stride=None, padding=0, ceil_mode: bool = False, count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.divisor_override = divisor_override

    def forward(self, x):
        where = (self.kernel_size, self.stride, self.padding, self.ceil_mode)
        return avg_pool2d(x, *where, self.count_include_pad, self.divisor_override)


# Unpooling has three.


class _MaxUnpool(Module):
    function = staticmethod(max_unpool2d)

    def __init__(self, kernel_size, stride=None, padding=0):
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x, indices, output_size=None):
        return self.function(x, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self):
        return told(self, ("kernel_size", "stride", "padding"))


# Again the dimension chooses the function.


class MaxUnpool1d(_MaxUnpool):
    """max_unpool1d as a module."""

    function = staticmethod(max_unpool1d)


class MaxUnpool2d(_MaxUnpool):
    """max_unpool2d as a module."""


# ## Adaptive pooling
#
# In adaptive pooling you give the size of the *result*, and the windows follow. Result $i$ of $m$ sees the pixels from
# $\lfloor i n / m \rfloor$ up to $\lceil (i + 1) n / m \rceil$. A window is a band of rows crossed with a band of
# columns, so its mean is the mean of the rows' means. (A product with matrices $A x B^T$ would do the same in one line,
# until a pixel is infinite. Then the zeros of the matrices spread nan over the whole row.)


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
    """The gradient of `spans_mean` at images of `shape`: each window's part of g, added to all its pixels."""
    (height, width), (rows, columns) = shape[-2:], g.shape[-2:]
    bands, out = np.zeros((*shape[:-2], rows, width)), np.zeros(shape)
    for j, (start, stop) in enumerate(_spans(width, columns)):
        bands[..., start:stop] += g[..., j : j + 1] / float(stop - start)
    for i, (start, stop) in enumerate(_spans(height, rows)):
        out[..., start:stop, :] += bands[..., i : i + 1, :] / (stop - start)
    return out.astype(g.dtype)


rule(spans_mean, lambda g, out, x, size: spans_spread(g, shape=tuple(x.shape)))
rule(spans_spread, lambda h, out, g, shape: spans_mean(h, size=tuple(g.shape[-2:])))


# `None` keeps a side as it is.


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
# Where windows have unequal lengths, the shorter ones see their last pixel twice, which changes no maximum.


def _side_by_side(x, m, dim):
    n, before = x.shape[dim], (slice(None),) * dim
    if n % m == 0:
        return x, n // m
    spans, parts = _spans(n, m), []
    longest = max(stop - start for start, stop in spans)
    for start, stop in spans:
        parts += [x[(*before, slice(start, stop))], x[(*before, [stop - 1] * (longest - stop + start))]]
    return tt.cat([part for part in parts if part.shape[dim]], dim=dim), longest


# We pool the windows. For the positions we arrange the numbers of the pixels in the same way, and pick the winners'.


def adaptive_max_pool2d(
    x: Tensor, output_size, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest numbers of as many windows as asked for: (..., H, W) -> (..., *output_size); with return_indices also
    their places. As torch.nn.functional.adaptive_max_pool2d."""
    rows, columns = _output_size(x, output_size)
    batch = x if x.ndim == 4 else x.reshape(math.prod(x.shape[:-2]), 1, *x.shape[-2:])
    batch, window = _all_side_by_side(batch, rows, columns)
    if not return_indices:
        return spatial.max_pool2d(batch, window).reshape(*x.shape[:-2], rows, columns)
    numbers = tt.arange(math.prod(x.shape[-2:])).reshape(1, 1, *x.shape[-2:])
    numbers, _ = _all_side_by_side(numbers, rows, columns)
    found, chosen = max_pool2d(batch, window, return_indices=True)
    places = numbers.reshape(-1)[chosen]
    shape = (*x.shape[:-2], rows, columns)
    return found.reshape(shape), places.reshape(shape)


def _all_side_by_side(x, rows, columns):
    x, down = _side_by_side(x, rows, 2)
    x, across = _side_by_side(x, columns, 3)
    return x, (down, across)


# And in one dimension.


def adaptive_avg_pool1d(x: Tensor, output_size) -> Tensor:
    """Means over as many windows as asked for: (N, C, L) -> (N, C, output_size). As
    torch.nn.functional.adaptive_avg_pool1d."""
    return adaptive_avg_pool2d(series("adaptive_avg_pool1d", x), _in_a_row(output_size)).squeeze(-2)


def adaptive_max_pool1d(
    x: Tensor, output_size, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest numbers of as many windows as asked for: (N, C, L) -> (N, C, output_size). As
    torch.nn.functional.adaptive_max_pool1d."""
    row = series("adaptive_max_pool1d", x)
    return _squeezed(adaptive_max_pool2d(row, _in_a_row(output_size), return_indices), -2)


def _in_a_row(output_size):
    return (1, *output_size) if isinstance(output_size, (tuple, list)) else (1, output_size)


# As modules.


class _AdaptiveAvgPool(Module):
    function: Callable = staticmethod(adaptive_avg_pool2d)

    def __init__(self, output_size):
        super().__init__()
        self.output_size = output_size

    def forward(self, x):
        return self.function(x, self.output_size)

    def extra_repr(self):
        return told(self, ("output_size",))


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """adaptive_avg_pool1d as a module."""

    function = staticmethod(adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """adaptive_avg_pool2d as a module."""


class _AdaptiveMaxPool(_AdaptiveAvgPool):
    function = staticmethod(adaptive_max_pool2d)

    def __init__(self, output_size, return_indices: bool = False):
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, x):
        return self.function(x, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """adaptive_max_pool1d as a module."""

    function = staticmethod(adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """adaptive_max_pool2d as a module."""


__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AvgPool1d", "AvgPool2d",
    "MaxPool1d", "MaxPool2d", "MaxUnpool1d", "MaxUnpool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "avg_pool", "avg_pool1d", "avg_pool2d", "avg_unpool", "max_pool1d",
    "max_unpool1d", "max_unpool2d", "spans_mean", "spans_spread",
]
