# # Fast
#
# An appendix of chapter 15: the work of the twins on a range of rows, in NumPy. Everything goes block by block, writes
# into arrays that are given, and uses scratch memory for what is in between. Sums are made in `float64`, as in the
# chapters.

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tt_opt.acceleration import BLOCK, gelu_and_slope_block, gelu_block, in_blocks
from tt_opt.threads import scratch

F, D = np.float32, np.float64
DIRECT = False  # no convolution without columns


def _blocks(rows, width=1, numbers=BLOCK):
    step = max(1, numbers // max(width, 1))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


# ## Products


def matmul(x, y, out):
    """out = x @ y."""
    np.matmul(x, y, out=out)


def few_rows(x, rows, bias, start, stop, out):
    """out[:, start:stop] = x @ rows[start:stop].T + bias[start:stop], for x of a few rows; bias may be None."""
    for part in _blocks(stop - start, rows.shape[1]) if len(x) > 1 else [slice(0, stop - start)]:
        part = slice(start + part.start, start + part.stop)
        for i in range(len(x)):
            np.dot(rows[part], x[i], out=out[i, part])
    if bias is not None:
        out[:, start:stop] += bias[start:stop]


# ## Element by element


def gelu(x, out, slope):
    """out = gelu(x) in its tanh form for rows of numbers; slope, if there is one, its derivative."""
    if slope is None:
        in_blocks(gelu_block, x, out)
    else:
        in_blocks(gelu_and_slope_block, x, out, slope)


# NumPy compares with an array of zeros three times as fast as with the number 0.

_ZEROS = np.zeros(BLOCK, F)


def relu(x, out):
    for b in _blocks(x.size):
        np.maximum(x[b], _ZEROS[: x[b].size], out=out[b])


# On the way back, a number where ReLU was 0 must be 0, even if what arrives is infinite. A float whose bits are all 0
# is 0, so we multiply the bits by the mask.


def relu_back(g, out, dx):
    """dx = g where out is not 0; chosen by bits, since 0 * inf is nan."""
    for b in _blocks(g.size):
        _choose(np.not_equal(out[b], 0, out=scratch("mask", out[b].shape, bool)), g[b], dx[b])


def _choose(mask, g, out):
    np.multiply(g.view(np.int32), mask, out=out.view(np.int32))


# ## Rows
#
# The mean and the squares of a row are computed in `float64`: the square of $10^{20}$ is no number in `float32`, and a
# row of equal numbers must give exactly 0.


def norm(x, w, b, eps, normal, slope, out):
    """Rows: normal = (x - mean) * slope, out = normal * w + b."""
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


def norm_back(g, w, normal, slope, dx):
    """dx, and the sums for weight and bias."""
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


def surprise(x, labels, weights, gradient):
    """The sum of weights * -log_softmax(x)[label] over rows; gradient becomes weights * (softmax - truth)."""
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


def add_rows(ids, g, table):
    """The table of zeros, to whose row ids[i] each row g[i] has been added, in the dtype of the table."""
    order = np.argsort(ids, kind="stable")
    ids, g = ids[order], g[order]
    first = np.flatnonzero(np.diff(ids, prepend=-1))
    table[ids[first]] = np.add.reduceat(g, first, axis=0, dtype=table.dtype)
    return table


# ## Attention
#
# With keys down, the largest score of a query is the maximum of a column, which NumPy finds by comparing whole rows;
# and a sum over the keys is a product with ones.


def softmax_down(p, first):
    """In place: scores (..., keys, queries) -> weights that add up to 1 down the keys. The keys from `first` on are
    hidden from the queries before them: key first + i from query j < i."""
    queries = p.shape[-1]
    if first < p.shape[-2]:
        p[..., first:, :][..., np.tri(p.shape[-2] - first, queries, -1, dtype=bool)] = -np.inf
    p -= p.max(-2, keepdims=True)
    np.exp(p, out=p)
    p *= (1 / (np.ones(p.shape[-2], F) @ p))[..., None, :]


def softmax_down_back(p, dp):
    """In place in dp: the gradient of the scores, p * (dp - the sum of p * dp over the keys)."""
    t = scratch("t", p.shape)
    np.multiply(p, dp, out=t)
    dp -= (np.ones(p.shape[-2], F) @ t)[..., None, :]
    dp *= p


# ## Images
#
# The columns of chapter 09 for a few images at a time, so that they fit into the cache, in memory that is used again.

COLUMNS = 1 << 18  # numbers in a block of columns: 1 MB


def _columns(x, size, padding, places):
    """What each window of images x (n, H, W, C) sees, (n * places, kh * kw * C), with zeros around."""
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
    else:  # runs of a window would be too short to copy: write tap by tap, in long runs of places
        out = scratch("columns", (kh, kw, c, n, rows, cols)).transpose(3, 4, 5, 0, 1, 2)
    np.copyto(out, seen)
    return out.reshape(n * rows * cols, -1)


def _image_blocks(images, places, width):
    return _blocks(images, math.prod(places) * width, COLUMNS)


def conv(x, w, bias, padding, size, out):
    """Images x (n, H, W, C) under filters w (kh * kw * C, O): out (n, rows, columns, O)."""
    places, filters = out.shape[1:3], out.shape[3]
    for part in _image_blocks(len(x), places, len(w)):
        o = out[part].reshape(-1, filters)
        np.matmul(_columns(x[part], size, padding, places), w, out=o)
        if bias is not None:
            line = o.reshape(-1, places[1] * filters)
            line += np.tile(bias, places[1])


def conv_weight(x, g, padding, size):
    """The gradients of weight (kh * kw * C, O) and bias, in float64."""
    places, filters, width = g.shape[1:3], g.shape[3], math.prod(size) * x.shape[3]
    dw, db = np.zeros((width, filters), D), np.zeros(filters, D)
    for part in _image_blocks(len(g), places, width):
        rows = g[part].reshape(-1, filters)
        dw += _columns(x[part], size, padding, places).T @ rows
        db += np.ones(len(rows), F) @ rows
    return dw, db


# Pooling takes the larger of two neighbours across, then the larger of two of these down, and remembers both choices.
# On the way back the gradient is handed down and then across, again by bits.


def pool_memory(shape, keep):
    """Room for which of the four numbers of each window was the largest."""
    n, h, w, c = shape
    return (np.empty((n, 2 * h, w, c), F), np.empty((n, 2 * h, w, c), bool), np.empty((n, h, w, c), bool))


def pool(x, out, kept):
    """The largest numbers of windows of 2 by 2 of images x (n, H, W, C); first across, then down."""
    across, left, upper = kept
    n, h, w, c = x.shape
    pairs = x.reshape(n, h, w // 2, 2, c)
    np.maximum(pairs[:, :, :, 0], pairs[:, :, :, 1], out=across)
    np.greater_equal(pairs[:, :, :, 0], pairs[:, :, :, 1], out=left)
    lines = across.reshape(n, h // 2, 2, w // 2, c)
    np.maximum(lines[:, :, 0], lines[:, :, 1], out=out)
    np.greater_equal(lines[:, :, 0], lines[:, :, 1], out=upper)


def pool_back(g, kept, dx):
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
# A row of 16 channels is short, and for NumPy each row costs as much as many numbers. So several rows are read as one
# that goes through all channels several times; at the end these are added up.


def _long(c, *arrays):
    """Rows that go through all c channels several times, since short rows are slow; and how many times."""
    rows, times = len(arrays[0]), 1
    while rows % 2 == 0 and times * c * 2 <= 1024:
        rows, times = rows // 2, times * 2
    return times, [a.reshape(rows, times * c) for a in arrays]


def _by_channel(total, times):
    return total.reshape(times, -1).sum(0)


def sums(x):
    """The sum of each column, in float64."""
    times, (x,) = _long(x.shape[1], x)
    return _by_channel(sum(x[b].sum(0, dtype=D) for b in _blocks(len(x), x.shape[1])), times)


def squares(x, mean):
    """The sum of (x - mean) ** 2 of each column, in float64."""
    times, (x,) = _long(x.shape[1], x)
    mean, total = np.tile(mean, times), np.zeros(x.shape[1], D)
    for b in _blocks(len(x), x.shape[1]):
        t = np.subtract(x[b], mean, out=scratch("wide", x[b].shape, D))
        t *= t
        total += t.sum(0)
    return _by_channel(total, times)


def shift_scale(x, center, factor, bias, out):
    """(x - center) * factor + bias, by column."""
    times, (x, out) = _long(x.shape[1], x, out)
    center, factor, bias = (np.tile(v, times) for v in (center, factor, bias))
    for b in _blocks(len(x), x.shape[1]):
        np.subtract(x[b], center, out=out[b])
        out[b] *= factor
        out[b] += bias


def two_sums(g, x, mean):
    """The sums of g and of g * (x - mean) of each column, in float64."""
    times, (g, x) = _long(x.shape[1], g, x)
    mean, of_g, of_product = np.tile(mean, times), np.zeros(x.shape[1], D), np.zeros(x.shape[1], D)
    for b in _blocks(len(x), x.shape[1]):
        t = np.subtract(x[b], mean, out=scratch("wide", x[b].shape, D))
        t *= g[b]
        of_g += g[b].sum(0, dtype=D)
        of_product += t.sum(0)
    return _by_channel(of_g, times), _by_channel(of_product, times)


def mix(g, x, center, a, b, c, dx):
    """a * g + b * (x - center) + c, by column."""
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
# The formulas of chapter 06, operation by operation, each into memory that is there. A block of 64 K numbers of all
# four arrays and the scratch memory fits into a cache of 2 MB.


def adam(p, g, m, v, beta1, beta2, new1, new2, lr, correction1, correction2, eps, shrink, added):
    """One update, block by block. shrink: a factor of p; added: the share of p that joins the gradient."""
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


def sgd(p, g, velocity, lr, momentum, kept, decay, nesterov):
    """One update, block by block."""
    for b in _blocks(p.size, 1, 1 << 16):
        gradient, t = g[b], scratch("t", g[b].shape)
        if decay:
            gradient = gradient + decay * p[b]
        if momentum:
            velocity[b] *= momentum
            velocity[b] += np.multiply(gradient, kept, out=t)
            gradient = gradient + momentum * velocity[b] if nesterov else velocity[b]
        p[b] -= np.multiply(gradient, lr, out=t)
