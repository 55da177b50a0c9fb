# # Spatial loops
#
# An appendix of chapter 09: every primitive of the chapter and of its appendices once more, as the loop over elements
# that defines it. Padding, stride, dilation and groups are one line each here, and we copy, pad or turn no array. So
# you can look up here what an option *means*. As with the loops of chapter 02, the whole is a kernel set, `with
# use_kernels(spatial_loops): ...`. It is thousands of times too slow to work with, and just right for a witness.

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tt_spatial.spatial import conv_size

# ## Who meets whom
#
# All sums of a convolution go over the same meetings: image $n$, filter $o$ and its position $(r, s)$, channel $c$ and
# tap $(i, j)$. The pixel that they meet has row $r \cdot \mathit{stride} + i \cdot \mathit{dilation} -
# \mathit{padding}$. If the image has no such row, there is padding, a zero. It adds nothing to a sum, unless the other
# factor is infinite, and it receives no gradient.
#
# We keep sums of half-precision elements in `float32` and all means in `float64`, and round at the end.


def _pixel(place, tap, stride, padding, dilation):
    return tuple(r * s + i * d - p for r, i, s, p, d in zip(place, tap, stride, padding, dilation))


def _inside(pixel, image):
    return all(0 <= v < n for v, n in zip(pixel, image))


# Filter $o$ belongs to group $o / (O / g)$, rounded down, and sees only the channels of this group. So its weight
# number $c$ is for channel number $c$ of the group.


def _meetings(images, places, weights, stride, padding, dilation, groups) -> Iterator[tuple]:
    """For so many images under weights (O, C / groups, kh, kw): the indices of a result, a pixel (which may be outside
    the image) and a weight."""
    filters, channels, *size = weights
    for n, o, *place, c, i, j in np.ndindex(images, filters, *places, channels, *size):
        pixel = _pixel(place, (i, j), stride, padding, dilation)
        first = o // (filters // groups) * channels
        yield (n, o, *place), (n, first + c, *pixel), (o, c, i, j)


def _value(x, pixel):
    return x[pixel] if _inside(pixel[2:], x.shape[2:]) else x.dtype.type(0)


def _zeros(shape, like):
    return np.zeros(shape, np.float32 if like.dtype == np.float16 else like.dtype)


# ## Convolution, and its two transposes
#
# We have three kinds of arrays: results, pixels and weights. A convolution gets two of them and adds up the third.
# Nothing else is needed for its gradients, and this is why the three functions are a family.


def convolution(x, weight, /, *bias, stride, padding, dilation, groups):
    places = tuple(map(conv_size, x.shape[2:], weight.shape[2:], stride, padding, dilation))
    out = _zeros((len(x), len(weight), *places), x)
    for result, pixel, tap in _meetings(len(x), places, weight.shape, stride, padding, dilation, groups):
        out[result] += out.dtype.type(_value(x, pixel)) * weight[tap]
    for n, o, row, column in np.ndindex(out.shape) if bias else ():
        out[n, o, row, column] += bias[0][o]
    return out.astype(x.dtype)


def transposed_convolution(g, weight, /, size, stride, padding, dilation, groups):
    out, places = _zeros((len(g), weight.shape[1] * groups, *size), g), g.shape[2:]
    for result, pixel, tap in _meetings(len(g), places, weight.shape, stride, padding, dilation, groups):
        if _inside(pixel[2:], size):
            out[pixel] += out.dtype.type(g[result]) * weight[tap]
    return out.astype(g.dtype)


def weight_convolution(x, g, /, size, stride, padding, dilation, groups):
    out, places = _zeros((g.shape[1], x.shape[1] // groups, *size), x), g.shape[2:]
    for result, pixel, tap in _meetings(len(x), places, out.shape, stride, padding, dilation, groups):
        out[tap] += out.dtype.type(_value(x, pixel)) * g[result]
    return out.astype(x.dtype)


# ## Pooling
#
# A window of one channel is the list of the pixels in it, in reading order. Pixels outside the image are not on the
# list, so they cannot be the largest, whatever the image contains.


def _windows(shape, places, size, stride, padding, dilation) -> Iterator[tuple]:
    """For images (N, C, H, W) of this shape: the index of a result, and the indices of the pixels that it sees."""
    for n, c, *place in np.ndindex(*shape[:2], *places):
        pixels = (_pixel(place, tap, stride, padding, dilation) for tap in np.ndindex(*size))
        yield (n, c, *place), [(n, c, *pixel) for pixel in pixels if _inside(pixel, shape[2:])]


def _largest_pixel(x, pixels):
    """The first of the pixels that no other exceeds. nan counts as larger than everything, and the last nan wins."""
    nans = [pixel for pixel in pixels if math.isnan(x[pixel])]
    return nans[-1] if nans else max(pixels, key=lambda pixel: x[pixel])


def max_pool(x, /, size, stride, padding, dilation):
    places = tuple(map(conv_size, x.shape[2:], size, stride, padding, dilation))
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    out = np.full((*x.shape[:2], *places), least, x.dtype)
    for result, pixels in _windows(x.shape, places, size, stride, padding, dilation):
        if pixels:
            out[result] = x[_largest_pixel(x, pixels)]
    return out


def max_unpool(g, x, largest, /, size, stride, padding, dilation):
    out = _zeros(x.shape, g)
    for result, pixels in _windows(x.shape, g.shape[2:], size, stride, padding, dilation):
        if pixels:
            out[_largest_pixel(x, pixels)] += g[result]
    return out.astype(g.dtype)


def max_pick(h, x, largest, /, size, stride, padding, dilation):
    out = np.zeros(largest.shape, h.dtype)
    for result, pixels in _windows(x.shape, largest.shape[2:], size, stride, padding, dilation):
        if pixels:
            out[result] = h[_largest_pixel(x, pixels)]
    return out


# For a mean we divide by the number of pixels in the window, or by the size of the window, which counts zeros around
# the image as well.


def _count(pixels, size, count_include_pad):
    return math.prod(size) if count_include_pad else len(pixels)


def avg_pool(x, /, size, stride, padding, count_include_pad):
    places = tuple(map(conv_size, x.shape[2:], size, stride, padding))
    out = np.zeros((*x.shape[:2], *places), x.dtype)
    for result, pixels in _windows(x.shape, places, size, stride, padding, (1, 1)):
        out[result] = sum(x[pixel].item() for pixel in pixels) / _count(pixels, size, count_include_pad)
    return out


def avg_unpool(g, /, shape, size, stride, padding, count_include_pad):
    out = np.zeros(shape, np.float64)
    for result, pixels in _windows(shape, g.shape[2:], size, stride, padding, (1, 1)):
        for pixel in pixels:
            out[pixel] += float(g[result]) / _count(pixels, size, count_include_pad)
    return out.astype(g.dtype)


# Adaptive windows have no size of their own: result $i$ of $m$ sees the pixels from $i n / m$, rounded down, up to $(i
# + 1) n / m$, rounded up.


def _adaptive_windows(shape, places) -> Iterator[tuple]:
    spans = [[(i * n // m, math.ceil((i + 1) * n / m)) for i in range(m)] for n, m in zip(shape[-2:], places)]
    for *image, i, j in np.ndindex(*shape[:-2], *places):
        rows, columns = range(*spans[0][i]), range(*spans[1][j])
        yield (*image, i, j), [(*image, row, column) for row in rows for column in columns]


def spans_mean(x, /, size):
    out = np.zeros((*x.shape[:-2], *size), x.dtype)
    for result, pixels in _adaptive_windows(x.shape, size):
        out[result] = sum(x[pixel].item() for pixel in pixels) / len(pixels)
    return out


def spans_spread(g, /, shape):
    out = np.zeros(shape, np.float64)
    for result, pixels in _adaptive_windows(shape, g.shape[-2:]):
        for pixel in pixels:
            out[pixel] += float(g[result]) / len(pixels)
    return out.astype(g.dtype)


# Between two pixels along one dimension, we take a part of each.


def _mixed(shape, dim, low, weight) -> Iterator[tuple]:
    """The indices of results of this shape, and of a pixel that each sees, with its part."""
    for result in np.ndindex(*shape):
        i = result[dim]
        for step, part in ((0, 1 - weight[i]), (1, weight[i])):
            if part:
                yield result, (*result[:dim], low[i] + step, *result[dim + 1 :]), part


def mix(x, /, dim, low, weight):
    out = _zeros((*x.shape[:dim], len(low), *x.shape[dim + 1 :]), x)
    for result, pixel, part in _mixed(out.shape, dim, low, weight):
        out[result] += x[pixel] * part
    return out.astype(x.dtype)


def unmix(g, /, n, dim, low, weight):
    out = _zeros((*g.shape[:dim], n, *g.shape[dim + 1 :]), g)
    for result, pixel, part in _mixed(g.shape, dim, low, weight):
        out[pixel] += g[result] * part
    return out.astype(g.dtype)


# ## Normalization
#
# The second dimension says which mean, variance, weight and bias we need. Rows bring their own.


def normalize_channels(x, weight, bias, /, mean, var, eps):
    out = np.empty(x.shape, x.dtype)
    for place in np.ndindex(x.shape):
        c = place[1]
        out[place] = weight[c] * (x[place] - mean[c]) / math.sqrt(var[c] + eps) + bias[c]
    return out


def normalize_rows(x, /, eps):
    out = np.empty(x.shape, x.dtype)
    for place in np.ndindex(x.shape[:-1]):
        row = x[place].tolist()
        mean = sum(row) / len(row)
        variance = sum((v - mean) ** 2 for v in row) / len(row)
        out[place] = [(v - mean) / math.sqrt(variance + eps) for v in row]
    return out


def normalize_scaled(x, weight, bias, /, eps):
    out = normalize_rows(x, eps=eps)
    for place in np.ndindex(x.shape):
        out[place] = out[place] * weight[place[-1]] + bias[place[-1]]
    return out
