# # Fast
#
# An appendix of chapter 15. Here is the work of the twins on a range of rows, in NumPy. All functions go block by
# block, write into arrays of the caller, and use scratch memory for intermediate values. We sum in `float64`, as in the
# chapters.

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tt_opt.acceleration import gelu_and_slope_block, gelu_block, in_blocks
from tt_opt.threads import scratch

F, D = np.float32, np.float64
BLOCK = 1 << 15  # elements in a block, as in the chapter
DIRECT = False  # no convolution without columns


def _blocks(rows, width=1, numbers=BLOCK):
    step = max(1, numbers // max(width, 1))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


# ## Products
#
# For many rows we leave a product to BLAS. For a few rows we go through the matrix once, part by part.


def matmul(x, y, out):
    """Write x @ y into out."""
    np.matmul(x, y, out=out)


def few_rows(x, rows, bias, start, stop, out):
    """Write x @ rows[start:stop].T + bias[start:stop] into out[:, start:stop], for x of a few rows; bias may be
    None."""
    for part in _blocks(stop - start, rows.shape[1]) if len(x) > 1 else [slice(0, stop - start)]:
        part = slice(start + part.start, start + part.stop)
        for i in range(len(x)):
            np.dot(rows[part], x[i], out=out[i, part])
    if bias is not None:
        out[:, start:stop] += bias[start:stop]


# ## Element by element
#
# GELU is the chapter's. We only choose whether to compute its slope as well.


def gelu(x, out, slope):
    """Write gelu(x) in its tanh form into out and, unless slope is None, its derivative into slope."""
    if slope is None:
        in_blocks(gelu_block, x, out)
    else:
        in_blocks(gelu_and_slope_block, x, out, slope)


# NumPy compares with an array of zeros three times as fast as with the number 0.

_ZEROS = np.zeros(BLOCK, F)


def relu(x, out):
    """Write relu(x) into out."""
    for b in _blocks(x.size):
        np.maximum(x[b], _ZEROS[: x[b].size], out=out[b])


# In the backward pass the gradient must be 0 where ReLU was 0, even if an infinite gradient arrives there, and 0 times
# infinity would be nan. A float whose bits are all 0 is 0, so we multiply the bits by the mask.


def relu_back(g, out, dx):
    """Write g into dx where out is not 0, and 0 elsewhere."""
    for b in _blocks(g.size):
        _choose(np.not_equal(out[b], 0, out=scratch("mask", out[b].shape, bool)), g[b], dx[b])


def _choose(mask, g, out):
    np.multiply(g.view(np.int32), mask, out=out.view(np.int32))


# ## Rows
#
# We compute the mean and the squares of a row in `float64`, because the square of $10^{20}$ overflows `float32`, and
# because a row of equal numbers must give exactly 0.


def norm(x, w, b, eps, normal, slope, out):
    """Write, for each row, (x - mean) * slope into normal, and normal * w + b into out."""
    width = x.shape[1]
    for part in _blocks(len(x), width):
        wide = scratch("wide", x[part].shape, D)
        np.copyto(wide, x[part])
        wide -= wide.mean(1, keepdims=True)
        r = 1 / np.sqrt(np.vecdot(wide, wide) / width + eps)
        wide *= r[:, None]
        normal[part], slope[part] = wide, r
        np.multiply(normal[part], w, out=out[part])
        out[part] += b


# The backward pass subtracts from each row of gradients its mean, and its part along the normalized row.


def norm_back(g, w, normal, slope, dx):
    """Write the gradient into dx, and return the sums for weight and bias, in float64."""
    width, dw, db = g.shape[1], np.zeros(g.shape[1], D), np.zeros(g.shape[1], D)
    for part in _blocks(len(g), width):
        y, n, d, t = g[part], normal[part], dx[part], scratch("t", g[part].shape)
        ones = np.ones(len(y), F)
        db += ones @ y
        dw += ones @ np.multiply(y, n, out=t)
        np.multiply(y, w, out=d)
        along = np.vecdot(d, n)[:, None] / F(width)
        d -= d.mean(1, keepdims=True)
        d -= np.multiply(n, along, out=t)
        d *= slope[part, None]
    return dw, db


# Cross-entropy is a softmax, of which we keep the gradient.


def surprise(x, labels, weights, gradient):
    """Return the sum of weights * -log_softmax(x)[label] over rows, and write weights * (softmax - truth) into
    gradient."""
    rows = np.arange(len(labels))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        np.subtract(x, x.max(1, keepdims=True), out=gradient)
        picked = gradient[rows, labels].astype(D)
        np.exp(gradient, out=gradient)
        total = gradient.sum(1, dtype=D)
        losses = np.where(weights == 0, 0, (np.log(total) - picked) * weights)
        gradient *= (weights / total)[:, None].astype(F)
        gradient[rows, labels] -= weights
    return losses.sum()


# To add rows into a table, we sort them by their ids, so that equal ids are neighbours.


def add_rows(ids, g, table):
    """Add each row g[i] to row ids[i] of a table of zeros, in the dtype of the table, and return the table."""
    order = np.argsort(ids, kind="stable")
    ids, g = ids[order], g[order]
    first = np.flatnonzero(np.diff(ids, prepend=-1))
    table[ids[first]] = np.add.reduceat(g, first, axis=0, dtype=table.dtype)
    return table


# ## Attention
#
# With the keys down, the largest score of a query is the maximum of a column, which NumPy finds quickly by comparing
# whole rows. A sum over the keys is a product with ones.


def softmax_down(p, first):
    """Turn scores (..., keys, queries), in place, into weights that add up to 1 down the keys. Key first + i is hidden
    from query j < i."""
    queries = p.shape[-1]
    if first < p.shape[-2]:
        p[..., first:, :][..., np.tri(p.shape[-2] - first, queries, -1, dtype=bool)] = -np.inf
    p -= p.max(-2, keepdims=True)
    np.exp(p, out=p)
    p *= (1 / (np.ones(p.shape[-2], F) @ p))[..., None, :]


def softmax_down_back(p, dp):
    """Turn dp, in place, into the gradient of the scores, p * (dp - the sum of p * dp over the keys)."""
    t = scratch("t", p.shape)
    np.multiply(p, dp, out=t)
    dp -= (np.ones(p.shape[-2], F) @ t)[..., None, :]
    dp *= p


# ## Images
#
# We make the columns of chapter 09 (*im2col*) for a few images at a time, so that they fit into the cache, in memory
# that we use again.

COLUMNS = 1 << 18  # numbers in a block of columns: 1 MB


def _columns(x, size, padding, places):
    """Return the windows of images x (n, H, W, C) with zeros around them, as rows (n * places, kh * kw * C)."""
    (n, h, w, c), (kh, kw), (top, left), (rows, cols) = x.shape, size, padding, places
    if top or left:
        padded = scratch("padded", (n, h + 2 * top, w + 2 * left, c))
        padded[:, :top] = padded[:, top + h :] = 0
        padded[:, :, :left] = padded[:, :, left + w :] = 0
        padded[:, top : top + h, left : left + w] = x
        x = padded
    s = x.strides
    seen = as_strided(x, (n, rows, cols, kh, kw, c), (s[0], s[1], s[2], s[1], s[2], s[3]))
    if kw * c >= 16:
        out = scratch("columns", seen.shape)
    else:  # runs of a window would be too short to copy, so we write long runs of places
        out = scratch("columns", (kh, kw, c, n, rows, cols)).transpose(3, 4, 5, 0, 1, 2)
    np.copyto(out, seen)
    return out.reshape(n * rows * cols, -1)


def _image_blocks(images, places, width):
    return _blocks(images, math.prod(places) * width, COLUMNS)


# With columns, a convolution is a product, and so is the gradient of its filters.


def conv(x, w, bias, padding, size, out):
    """Convolve images x (n, H, W, C) with filters w (kh * kw * C, O) into out (n, rows, columns, O)."""
    places, filters = out.shape[1:3], out.shape[3]
    for part in _image_blocks(len(x), places, len(w)):
        o = out[part].reshape(-1, filters)
        np.matmul(_columns(x[part], size, padding, places), w, out=o)
        if bias is not None:
            line = o.reshape(-1, places[1] * filters)
            line += np.tile(bias, places[1])


def conv_weight(x, g, padding, size):
    """Return the gradients of the filters (kh * kw * C, O) and the bias, in float64."""
    places, filters, width = g.shape[1:3], g.shape[3], math.prod(size) * x.shape[3]
    dw, db = np.zeros((width, filters), D), np.zeros(filters, D)
    for part in _image_blocks(len(g), places, width):
        rows = g[part].reshape(-1, filters)
        dw += _columns(x[part], size, padding, places).T @ rows
        db += np.ones(len(rows), F) @ rows
    return dw, db


# Pooling takes the larger of two neighbours across, then the larger of two of these down, and remembers both choices.
# In the backward pass we distribute the gradient down and then across, again by bits.


def pool_memory(shape, keep):
    """Return memory for the choices of `pool`."""
    n, h, w, c = shape
    return (np.empty((n, 2 * h, w, c), F), np.empty((n, 2 * h, w, c), bool), np.empty((n, h, w, c), bool))


def pool(x, out, kept):
    """Write the largest numbers of windows of 2 by 2 of images x (n, H, W, C) into out, and the choices into kept."""
    across, left, upper = kept
    n, h, w, c = x.shape
    pairs = x.reshape(n, h, w // 2, 2, c)
    np.maximum(pairs[:, :, :, 0], pairs[:, :, :, 1], out=across)
    np.greater_equal(pairs[:, :, :, 0], pairs[:, :, :, 1], out=left)
    lines = across.reshape(n, h // 2, 2, w // 2, c)
    np.maximum(lines[:, :, 0], lines[:, :, 1], out=out)
    np.greater_equal(lines[:, :, 0], lines[:, :, 1], out=upper)


def pool_back(g, kept, dx):
    """Write the gradient of the images into dx, given that of the pooled images and the choices."""
    _, left, upper = kept
    n, h, w, c = g.shape
    for i in range(n):
        half, other = scratch("half", (h, 2, w, c)), scratch("other", (2 * h, w, c), bool)
        _choose(upper[i], g[i], half[:, 0])
        _choose(~upper[i], g[i], half[:, 1])
        lines, pairs = half.reshape(2 * h, w, c), dx[i].reshape(2 * h, w, 2, c)
        _choose(left[i], lines, pairs[:, :, 0])
        _choose(np.logical_not(left[i], out=other), lines, pairs[:, :, 1])


# ## Channels
#
# A row of 16 channels is short, and each row costs NumPy as much as many numbers. So we read several rows as one long
# row, which goes through all channels several times, and at the end we add these up.


def _long(c, *arrays):
    """Return how many times a long row goes through all c channels, and the arrays in such rows."""
    rows, times = len(arrays[0]), 1
    while rows % 2 == 0 and times * c * 2 <= 1024:
        rows, times = rows // 2, times * 2
    return times, [a.reshape(rows, times * c) for a in arrays]


def _by_channel(total, times):
    return total.reshape(times, -1).sum(0)


def sums(x):
    """Return the sum of each column, in float64."""
    times, (x,) = _long(x.shape[1], x)
    return _by_channel(sum(x[b].sum(0, dtype=D) for b in _blocks(len(x), x.shape[1])), times)


def squares(x, mean):
    """Return the sum of (x - mean) ** 2 of each column, in float64."""
    times, (x,) = _long(x.shape[1], x)
    mean, total = np.tile(mean, times), np.zeros(x.shape[1], D)
    for b in _blocks(len(x), x.shape[1]):
        t = np.subtract(x[b], mean, out=scratch("wide", x[b].shape, D))
        t *= t
        total += t.sum(0)
    return _by_channel(total, times)


# With the moments known, normalization is a shift and a scale. The backward pass needs two sums and mixes three terms.


def shift_scale(x, center, factor, bias, out):
    """Write (x - center) * factor + bias, by column, into out."""
    times, (x, out) = _long(x.shape[1], x, out)
    center, factor, bias = (np.tile(v, times) for v in (center, factor, bias))
    for b in _blocks(len(x), x.shape[1]):
        np.subtract(x[b], center, out=out[b])
        out[b] *= factor
        out[b] += bias


def two_sums(g, x, mean):
    """Return the sums of g and of g * (x - mean) of each column, in float64."""
    times, (g, x) = _long(x.shape[1], g, x)
    mean, of_g, of_product = np.tile(mean, times), np.zeros(x.shape[1], D), np.zeros(x.shape[1], D)
    for b in _blocks(len(x), x.shape[1]):
        t = np.subtract(x[b], mean, out=scratch("wide", x[b].shape, D))
        t *= g[b]
        of_g += g[b].sum(0, dtype=D)
        of_product += t.sum(0)
    return _by_channel(of_g, times), _by_channel(of_product, times)


def mix(g, x, center, a, b, c, dx):
    """Write a * g + b * (x - center) + c, by column, into dx."""
    times, (g, x, dx) = _long(x.shape[1], g, x, dx)
    center, a, b, c = (np.tile(v, times) for v in (center, a, b, c))
    for part in _blocks(len(x), x.shape[1]):
        d = dx[part]
        np.subtract(x[part], center, out=d)
        d *= b
        d += c
        d += np.multiply(g[part], a, out=scratch("t", d.shape))


# ## Optimizers
#
# We take the formulas of chapter 06 operation by operation, and each operation writes into existing memory. A block of
# 64 K numbers of all four arrays and the scratch memory fits into a cache of 2 MB.


def adam(p, g, m, v, beta1, beta2, new1, new2, lr, correction1, correction2, eps, shrink, added):
    """Make one update of Adam, block by block. shrink: a factor of p; added: the share of p that joins the gradient."""
    for b in _blocks(p.size, 1, 1 << 16):
        gradient, t = g[b], scratch("t", g[b].shape)
        if added:
            gradient = gradient + added * p[b]
        m[b] *= beta1
        m[b] += np.multiply(gradient, new1, out=t)
        v[b] *= beta2
        np.multiply(gradient, gradient, out=t)
        t *= new2
        v[b] += t
        np.multiply(v[b], correction2, out=t)
        np.sqrt(t, out=t)
        t += eps
        np.divide(m[b], t, out=t)
        t *= lr * correction1
        if shrink != 1:
            p[b] *= shrink
        p[b] -= t


# SGD with momentum, plain or Nesterov's:


def sgd(p, g, velocity, lr, momentum, kept, decay, nesterov):
    """Make one update of SGD, block by block."""
    for b in _blocks(p.size, 1, 1 << 16):
        gradient, t = g[b], scratch("t", g[b].shape)
        if decay:
            gradient = gradient + decay * p[b]
        if momentum:
            velocity[b] *= momentum
            velocity[b] += np.multiply(gradient, kept, out=t)
            gradient = gradient + momentum * velocity[b] if nesterov else velocity[b]
        p[b] -= np.multiply(gradient, lr, out=t)
