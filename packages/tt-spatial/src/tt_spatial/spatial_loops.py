# # Spatial loops
#
# The third appendix of chapter 09: every primitive of the chapter and of its appendices once more, as the loop over
# numbers that defines it. Padding, stride, dilation and groups are one line each here, and no array is copied, padded
# or turned; so this is the place to look up what an option *means*. As with the loops of chapter 02, the whole is a
# kernel set, `with use_kernels(spatial_loops): ...`, thousands of times too slow to work with and just right for a
# witness.

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tt_spatial.spatial import conv_size

# ## Who meets whom
#
# All sums of a convolution go over the same meetings: image $n$, detector $o$ and its place $(r, s)$, channel $c$ and
# tap $(i, j)$. The pixel that is met has row $r \cdot \mathit{stride} + i \cdot \mathit{dilation} -
# \mathit{padding}$. Where that is no row of the image there is padding, a zero, which adds nothing; so there is no
# meeting.


def _pixel(place, tap, stride, padding, dilation):
    return tuple(r * s + i * d - p for r, i, s, p, d in zip(place, tap, stride, padding, dilation))


def _inside(pixel, image):
    return all(0 <= v < n for v, n in zip(pixel, image))


# Detector $o$ belongs to group $o / (O / g)$, rounded down, and sees only the channels of this group: its weight number
# $c$ is for channel number $c$ of the group.


def _meetings(images, image, places, weights, stride, padding, dilation, groups) -> Iterator[tuple]:
    """For images of this size under weights (O, C / groups, kh, kw): the indices of a result, a pixel and a weight."""
    detectors, channels, *size = weights
    for n, o, *place, c, i, j in np.ndindex(images, detectors, *places, channels, *size):
        row, column = _pixel(place, (i, j), stride, padding, dilation)
        if _inside((row, column), image):
            first = o // (detectors // groups) * channels
            yield (n, o, *place), (n, first + c, row, column), (o, c, i, j)


# ## Convolution, and its two transposes
#
# Result, pixel and weight: of the three, a convolution is given two and adds up the third. That is all there is to its
# gradients, and why they are a family.


def convolution(x, weight, /, *bias, stride, padding, dilation, groups):
    places = tuple(map(conv_size, x.shape[2:], weight.shape[2:], stride, padding, dilation))
    out = np.zeros((len(x), len(weight), *places), x.dtype)
    for result, pixel, tap in _meetings(len(x), x.shape[2:], places, weight.shape, stride, padding, dilation, groups):
        out[result] += x[pixel] * weight[tap]
    for n, o, row, column in np.ndindex(out.shape) if bias else ():
        out[n, o, row, column] += bias[0][o]
    return out


def transposed_convolution(g, weight, /, size, stride, padding, dilation, groups):
    out, places = np.zeros((len(g), weight.shape[1] * groups, *size), g.dtype), g.shape[2:]
    for result, pixel, tap in _meetings(len(g), size, places, weight.shape, stride, padding, dilation, groups):
        out[pixel] += g[result] * weight[tap]
    return out


def weight_convolution(x, g, /, size, stride, padding, dilation, groups):
    out, places = np.zeros((g.shape[1], x.shape[1] // groups, *size), x.dtype), g.shape[2:]
    for result, pixel, tap in _meetings(len(x), x.shape[2:], places, out.shape, stride, padding, dilation, groups):
        out[tap] += x[pixel] * g[result]
    return out


# ## Pooling
#
# A window of one channel is the list of the pixels in it, in reading order. What is outside of the image is not on the
# list, so it cannot be the largest, whatever the numbers.


def _windows(shape, places, size, stride, padding, dilation) -> Iterator[tuple]:
    """For images (N, C, H, W) of this shape: the index of a result, and the indices of the pixels that it sees."""
    for n, c, *place in np.ndindex(*shape[:2], *places):
        pixels = (_pixel(place, tap, stride, padding, dilation) for tap in np.ndindex(*size))
        yield (n, c, *place), [(n, c, *pixel) for pixel in pixels if _inside(pixel, shape[2:])]


def _largest_pixel(x, pixels):
    """The first of the pixels that no other exceeds. nan counts as larger than everything."""
    return max(pixels, key=lambda pixel: (math.isnan(x[pixel]), x[pixel]))


def max_pool(x, /, size, stride, padding, dilation):
    places = tuple(map(conv_size, x.shape[2:], size, stride, padding, dilation))
    out = np.full((*x.shape[:2], *places), -np.inf, x.dtype)
    for result, pixels in _windows(x.shape, places, size, stride, padding, dilation):
        if pixels:
            out[result] = x[_largest_pixel(x, pixels)]
    return out


def max_unpool(g, x, largest, /, size, stride, padding, dilation):
    out = np.zeros(x.shape, g.dtype)
    for result, pixels in _windows(x.shape, g.shape[2:], size, stride, padding, dilation):
        if pixels:
            out[_largest_pixel(x, pixels)] += g[result]
    return out


def max_pick(h, x, largest, /, size, stride, padding, dilation):
    out = np.zeros(largest.shape, h.dtype)
    for result, pixels in _windows(x.shape, largest.shape[2:], size, stride, padding, dilation):
        if pixels:
            out[result] = h[_largest_pixel(x, pixels)]
    return out


# A mean divides by the number of pixels in the window, or by the size of the window, which counts zeros around the
# image as well.


def _count(pixels, size, count_include_pad):
    return math.prod(size) if count_include_pad else len(pixels)


def avg_pool(x, /, size, stride, padding, count_include_pad):
    places = tuple(map(conv_size, x.shape[2:], size, stride, padding))
    out = np.zeros((*x.shape[:2], *places), x.dtype)
    for result, pixels in _windows(x.shape, places, size, stride, padding, (1, 1)):
        out[result] = sum(x[pixel].item() for pixel in pixels) / _count(pixels, size, count_include_pad)
    return out


def avg_unpool(g, /, shape, size, stride, padding, count_include_pad):
    out = np.zeros(shape, g.dtype)
    for result, pixels in _windows(shape, g.shape[2:], size, stride, padding, (1, 1)):
        for pixel in pixels:
            out[pixel] += g[result] / _count(pixels, size, count_include_pad)
    return out


# ## Normalization
#
# The second dimension says which mean, variance, weight and bias are meant. Rows bring their own.


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
