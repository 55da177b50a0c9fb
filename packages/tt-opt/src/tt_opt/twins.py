# # Twins
#
# An appendix of chapter 15. Here are the twins of all operations that our profile named, apart from GELU, which the
# chapter has. Each twin computes the same as the kernel of its chapter, and keeps intermediate values that the backward
# pass can use. For the work on a range of rows it calls the module `blocks`, which is `fast` or `compiled`.

from __future__ import annotations

import math
from functools import partial

import numpy as np

import tt_nlp as tn
import tt_optim as to
import tt_spatial as ts
import tt_tensor as tt
from tt_opt.acceleration import twin
from tt_opt.caching import look_back
from tt_opt.compression import sparse_product
from tt_opt.precision import packed_product
from tt_opt.threads import empty_like, in_memory_order, in_order_of, in_pieces, scratch, with_helpers
from tt_tensor import as_rows

F, D = np.dtype(np.float32), np.dtype(np.float64)
PRODUCTS = 8_000_000  # multiply-adds of a product from which a second thread pays
FEW = 16  # rows up to which a product waits for the bytes of its matrix
FEW_PRODUCTS = 1_500_000  # the same for a product of few rows


# Two questions come up in nearly every twin. First, is everything `float32`? If not, the twin declines. Second, are all
# numbers finite? Some twins cannot treat infinity and nan as their chapter does, so they decline, too. We find that out
# in a single pass, from the sum of the array.


def _narrow(*arrays) -> bool:
    """Return whether all arrays are float32, the only dtype of the twins."""
    return all(a.dtype == F for a in arrays)


def _finite(*arrays) -> bool:
    """Return whether all numbers are finite. It may say no to finite arrays whose sum overflows."""
    with tt.quiet():
        return all(math.isfinite(a.sum()) for a in arrays)


# ## Products
#
# We cut a product by the rows of its result. Each thread calls BLAS for its own rows and adds the bias while they are
# in its cache. The backward pass has two more products. The gradient of the weight sums over all rows of the batch, so
# there we cut the rows of the weight, and no two threads write to the same place.
#
# In chapter 16 we read one token of each of a few texts, so a product has few rows and a large matrix. Before BLAS
# multiplies, it copies the matrix into an order that suits it. That pays for many rows, but for a few rows the copy
# takes longer than the product. So `few_rows` goes through the matrix once and multiplies each part with all rows while
# the part is in the cache.


def _product(blocks, x, w, bias):
    """x @ w + bias for x (M, K), w (K, N)."""
    out = np.empty((len(x), w.shape[1]), F)
    if len(x) <= FEW and w.flags.f_contiguous and w.size:
        x, rows = np.ascontiguousarray(x), w.T
        in_pieces(lambda i, j: blocks.few_rows(x, rows, bias, i, j, out), len(rows), w.size * len(x), FEW_PRODUCTS)
        return out

    def work(start, stop):
        blocks.matmul(x[start:stop], w, out[start:stop])
        if bias is not None:
            np.add(out[start:stop], bias, out=out[start:stop])

    in_pieces(work, len(x), out.size * x.shape[1], PRODUCTS)
    return out


# The product for the gradient of a weight is cut by columns of x.


def _transposed_product(blocks, x, y):
    """x.T @ y for x (M, K), y (M, N)."""
    out = np.empty((x.shape[1], y.shape[1]), F)

    def work(start, stop):
        blocks.matmul(x[:, start:stop].T, y, out[start:stop])

    in_pieces(work, len(out), x.size * y.shape[1], PRODUCTS)
    return out


def _shaped(array, *shape):
    """Return the array in that shape; the array itself, and not a view, if it has the shape already."""
    return array if array.shape == shape else array.reshape(shape)


def _sum_of_rows(g):
    return np.ones(len(g), F) @ g


# With these helpers we can write the twin of a linear layer, and that of a plain product.


@twin(tt.affine)
def affine(blocks, keep, x, weight, bias):
    if not _narrow(x, weight, bias) or weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        return None
    rows = as_rows(x)

    def back(needed, g):
        g = as_rows(g)
        return (
            _shaped(_product(blocks, g, weight, None), *x.shape) if needed[0] else None,
            _transposed_product(blocks, g, rows) if needed[1] else None,
            _sum_of_rows(g) if needed[2] else None,
        )

    return _shaped(_product(blocks, rows, weight.T, bias), *x.shape[:-1], len(weight)), back


@twin(tt.matmul)
def matmul(blocks, keep, x, y):
    if y.ndim != 2 or x.ndim < 2 or not _narrow(x, y) or x.shape[-1] != len(y) or x.size * y.shape[1] < 400_000:
        return None
    rows = as_rows(x)

    def back(needed, g):
        g = as_rows(g)
        return (
            _shaped(_product(blocks, g, y.T, None), *x.shape) if needed[0] else None,
            _transposed_product(blocks, rows, g) if needed[1] else None,
        )

    return _shaped(_product(blocks, rows, y, None), *x.shape[:-1], y.shape[1]), back


# The compiled set multiplies packed matrices (chapter 17). If x has a few rows, we turn each packed row into numbers in
# registers and multiply it at once; all threads share the packed rows among themselves. If x has many rows, we unpack a
# part of the matrix at a time, and BLAS multiplies it.

UNPACKED = 1 << 18  # numbers that are unpacked at a time
PACKED_PRODUCTS = 100_000  # multiply-adds of a product of few rows with packed ones from which a second thread pays
AT_A_TIME = 100_000  # multiply-adds that a thread takes at a time


@twin(packed_product)
def packed_product_by_rows(blocks, keep, x, data, kind):
    if not _narrow(x) or kind not in getattr(blocks, "PACKED", ()) or not x.size or not data.flags.c_contiguous:
        return None
    rows, width = blocks.in_packed_order(as_rows(x), kind), x.shape[-1]
    if len(rows) <= FEW:
        out = np.empty((len(rows), len(data)), F)
        effort = len(data) * width * len(rows)
        alone = partial(blocks.packed_rows_alone, rows, data, kind, out)
        if effort < PACKED_PRODUCTS:
            alone()
        else:
            shared = partial(blocks.packed_rows, rows, data, kind, max(2, AT_A_TIME * len(data) // effort), out)
            with_helpers(shared, alone, blocks.help_with_rows, blocks.helpers)
        return _shaped(out, *x.shape[:-1], len(data)), None
    out, step = np.empty((len(rows), len(data)), F), max(1, UNPACKED // width)

    def work(start, stop):
        for i in range(start, stop, step):
            j = min(i + step, stop)
            part = scratch("unpacked", (j - i, width))
            blocks.unpack(data, kind, i, j, part)
            blocks.matmul(rows, part.T, out[:, i:j])

    in_pieces(work, len(data), out.size * width, PRODUCTS)
    return _shaped(out, *x.shape[:-1], len(data)), None


# The compiled set also multiplies sparse matrices (chapter 18).

FEW_GATHERED = 4  # inputs up to which each gathers its numbers by itself


@twin(sparse_product)
def sparse_product_by_rows(blocks, keep, x, values, col_indices, crow_indices):
    if not _narrow(x) or not hasattr(blocks, "sparse_rows") or not x.size or values.dtype not in (F, np.int8):
        return None
    if len(values) and col_indices.max() >= x.shape[-1]:  # the chapter's kernel refuses that
        return None
    rows, count = np.ascontiguousarray(as_rows(x)), len(crow_indices) - 1
    matrix, effort = (values, col_indices, crow_indices), len(values) * len(rows)
    if len(rows) <= FEW_GATHERED:
        out = np.empty((len(rows), count), F)
        in_pieces(lambda i, j: blocks.sparse_rows(rows, *matrix, i, j, out), count, effort, FEW_PRODUCTS)
    else:
        columns, turned = np.ascontiguousarray(rows.T), np.empty((count, len(rows)), F)
        in_pieces(lambda i, j: blocks.sparse_columns(columns, *matrix, i, j, turned), count, effort, FEW_PRODUCTS)
        out = np.ascontiguousarray(turned.T)
    return out.reshape(*x.shape[:-1], count), None


# ## Element by element
#
# An addition of two arrays is as fast as the memory, and two cores get more of its bandwidth than one. This helps the
# *residual connections* of a transformer. The gradient of a sum is the incoming gradient, so the usual rule will do.
# ReLU keeps nothing, because its result shows where it was positive.


@twin(tt.add)
def add(blocks, keep, x, y):
    if x.size < 200_000 or x.shape != y.shape or not _narrow(x, y) or x.strides != y.strides:
        return None
    (a, b), (out, o) = map(in_memory_order, (x, y)), empty_like(x)
    if a is None or b is None:
        return None
    in_pieces(lambda start, stop: np.add(a[start:stop], b[start:stop], out=o[start:stop]), a.size, a.size)
    return out, None


@twin(tt.relu)
def relu(blocks, keep, x):
    row = in_memory_order(x) if _narrow(x) and x.size > 2000 else None
    if row is None:
        return None
    out, o = empty_like(x)
    in_pieces(lambda start, stop: blocks.relu(row[start:stop], o[start:stop]), x.size, x.size)

    def back(needed, g):
        (dx, d), g = empty_like(x), in_order_of(g, x)
        in_pieces(lambda i, j: blocks.relu_back(g[i:j], o[i:j], d[i:j]), x.size, x.size)
        return (dx,)

    return out, back


# ## Rows
#
# Layer normalization keeps the normalized rows and the factor by which it scaled each of them, because the backward
# pass needs both. The sums for weight and bias come from the same trip. We add up the sums of the threads in `float64`.


@twin(ts.normalize_scaled)
def normalize_scaled(blocks, keep, x, weight, bias, eps):
    if not _narrow(x, weight, bias) or not x.size:
        return None
    rows = np.ascontiguousarray(as_rows(x))
    out, normal, slope = np.empty(rows.shape, F), np.empty(rows.shape, F), np.empty(len(rows), F)

    def work(start, stop):
        part = slice(start, stop)
        blocks.norm(rows[part], weight, bias, eps, normal[part], slope[part], out[part])

    in_pieces(work, len(rows), rows.size * 6)

    def back(needed, g):
        dx, g = np.empty(rows.shape, F), np.ascontiguousarray(as_rows(g))

        def work(start, stop):
            part = slice(start, stop)
            return blocks.norm_back(g[part], weight, normal[part], slope[part], dx[part])

        dw, db = (sum(parts).astype(F) for parts in zip(*in_pieces(work, len(rows), dx.size * 8)))
        return _shaped(dx, *x.shape), dw, db

    return _shaped(out, *x.shape), back


# Cross-entropy computes its gradient, softmax minus truth, right away, because everything for it is at hand. A row with
# weight 0 gets exactly 0, whatever it contains.


@twin(tt.surprise)
def surprise(blocks, keep, x, labels, importance=None):
    if importance is None or not _narrow(x, importance) or x.ndim != 2 or not x.size:
        return None
    total = importance.sum(dtype=np.float64)
    if not (math.isfinite(total) and total):
        return None
    gradient, weights, x = np.empty(x.shape, F), importance.astype(F) * F.type(1 / total), np.ascontiguousarray(x)
    labels = np.ascontiguousarray(labels, np.int64)

    def work(i, j):
        return blocks.surprise(x[i:j], labels[i:j], weights[i:j], gradient[i:j])

    loss = sum(in_pieces(work, len(x), x.size * 6))

    def back(needed, g):
        with tt.quiet():
            return (np.where(weights[:, None] == 0, F.type(0), gradient * g),)

    return np.asarray(loss, F), back


# The gradient of an embedding adds rows into a table. If a row is hit more than a thousand times, we sum in `float64`.


@twin(tn.add_rows)
def add_rows(blocks, keep, ids, g, rows):
    if not _narrow(g) or not g.size:
        return None
    ids, g = np.ascontiguousarray(ids, np.int64).reshape(-1), np.ascontiguousarray(as_rows(g))
    wide = np.bincount(ids).max() > 1024  # a sum of more numbers is made in float64
    return blocks.add_rows(ids, g, np.zeros((rows, g.shape[1]), D if wide else F)).astype(F, copy=False), None


# ## Attention
#
# In the backward pass the kernel of chapter 13 computes the weights of attention again, so that it never holds a
# square. For texts of a few hundred tokens the weights are small enough to keep, which saves a product and all
# exponentials. Above the limit `KEPT` the twin declines. In the array of scores the keys go down and the queries
# across, as in chapter 13. We never compute the hidden half of a causal mask, except in the blocks on the diagonal.

QUERIES = 64  # in a block
KEPT = 1 << 21  # weights of attention that are kept for the way back, in one call: 8 MB


# The blocks of queries, and how many keys each of them sees, are the same in both directions.


@twin(tn.attention_in_blocks)
def attention_in_blocks(blocks, keep, qkv, is_causal, scale):
    if qkv.ndim != 5 or not _narrow(qkv) or not qkv.size or not _finite(qkv):
        return None
    _, B, H, T, _ = qkv.shape
    ranges = [(start, min(start + QUERIES, T)) for start in range(0, T, QUERIES)]
    seen = [stop if is_causal else T for _, stop in ranges]
    if keep and sum(B * H * n * (stop - start) for (start, stop), n in zip(ranges, seen)) > KEPT:
        return None
    out, scaled, factor = np.empty_like(qkv[0]), np.empty_like(qkv[0]), F.type(scale)
    kept = [np.empty((B, H, n, stop - start), F) for (start, stop), n in zip(ranges, seen) if keep]

    def work(i, j):
        q, k, v = qkv[:, i:j]
        np.multiply(q, factor, out=scaled[i:j])
        for number, ((start, stop), n) in enumerate(zip(ranges, seen)):
            p = kept[number][i:j] if keep else scratch("weights", (j - i, H, n, stop - start))
            np.matmul(k[:, :, :n], scaled[i:j, :, start:stop].mT, out=p)
            blocks.softmax_down(p, start if is_causal else n)
            np.matmul(p.mT, v[:, :, :n], out=out[i:j, :, start:stop])

    in_pieces(work, B, out.size * T)

    def back(needed, g):
        if not _finite(g):
            return None
        dqkv = np.empty_like(qkv)

        def work(i, j):
            (_, k, v), q, (dq, dk, dv) = qkv[:, i:j], scaled[i:j], dqkv[:, i:j]
            for number in reversed(range(len(ranges))):
                (start, stop), n = ranges[number], seen[number]
                p, upper = kept[number][i:j], g[i:j, :, start:stop]
                dp = scratch("gradients", p.shape)
                np.matmul(v[:, :, :n], upper.mT, out=dp)
                _put(dv[:, :, :n], p, upper, number == len(ranges) - 1)
                blocks.softmax_down_back(p, dp)
                np.matmul(dp.mT, k[:, :, :n], out=dq[:, :, start:stop])
                _put(dk[:, :, :n], dp, q[:, :, start:stop], number == len(ranges) - 1)
            dq *= factor

        in_pieces(work, B, out.size * T)
        return (dqkv,)

    return out, back


# A product that the first block writes and every other block adds to:


def _put(total, left, right, first):
    """Put left @ right into total if it is the first, else add it."""
    if first:
        np.matmul(left, right, out=total)
    else:
        total += np.matmul(left, right, out=scratch("product", total.shape))


# A single new token that looks back at its cache (chapter 16) is a product of few rows as well. The compiled set does
# all of it in one loop over the keys; `fast` has nothing better than the chapter's kernel. A prompt has many queries,
# which we take in blocks, as above. The chapter, in contrast, computes the whole square of scores, half of which the
# mask hides.

LOOKING = 4  # queries of a text, up to which the loop is faster than products


@twin(look_back)
def look_back_at_once(blocks, keep, q, keys, values, window=None):
    if not q.size or not _narrow(q, keys, values):
        return None
    if len(q) > LOOKING:
        seen_whole = window is None or window >= len(keys)
        return (_looked_back(blocks, q, keys, values), None) if seen_whole and _finite(q, keys, values) else None
    if (loop := getattr(blocks, "look_back", None)) is None:
        return None
    out, q, window = np.empty(q.shape, F), np.ascontiguousarray(q), len(keys) if window is None else window
    effort = 2 * q.size * len(keys)
    in_pieces(lambda i, j: loop(q, keys, values, window, i, j, out), keys.shape[1], effort, PRODUCTS // 4)
    return out, None


def _looked_back(blocks, q, keys, values):
    (T, H, size), (n, G, _) = q.shape, keys.shape
    across = (q * F.type(size**-0.5)).transpose(1, 2, 0).reshape(G, H // G, size, T)
    k, v = keys.swapaxes(0, 1)[:, None], values.swapaxes(0, 1)[:, None]  # (G, 1, n, size)
    out = np.empty(q.shape, F)

    def work(i, j):
        for start in range(i * QUERIES, min(j * QUERIES, T), QUERIES):
            stop = min(start + QUERIES, T)
            seen = n - T + stop  # keys that the last query of the block sees
            p = scratch("weights", (G, H // G, seen, stop - start))
            np.matmul(k[:, :, :seen], across[..., start:stop], out=p)
            blocks.softmax_down(p, n - T + start)
            found = np.matmul(p.mT, v[:, :, :seen])  # (G, H / G, queries, size)
            out[start:stop] = found.reshape(H, stop - start, size).swapaxes(0, 1)

    in_pieces(work, -(-T // QUERIES), out.size * n, each=2)
    return out


# ## Images
#
# A convolution keeps its images with the channels last in memory. We deal the images out to threads, and each thread
# makes the columns (*im2col*) of its own images. The gradient of the images is a convolution of the incoming gradient
# with flipped filters, as in chapter 09.


def _last(x):
    """Return images (N, C, H, W) with their channels last in memory, (N, H, W, C)."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def _first(x):
    return x.transpose(0, 3, 1, 2)


@twin(ts.convolution)
def convolution(blocks, keep, x, weight, *bias, stride, padding, dilation, groups):
    O, C, kh, kw = weight.shape
    around = (kh - 1 - padding[0], kw - 1 - padding[1])
    if stride != (1, 1) or dilation != (1, 1) or groups != 1 or not _narrow(x, weight, *bias) or min(around) < 0:
        return None
    if not len(x):
        return None
    if blocks.DIRECT and C * kw < 32 and O <= 16 and kw in (3, 5):
        out, images_back, weight_back = _direct(blocks, x, weight, bias, padding, around)
    else:
        out, images_back, weight_back = _by_columns(blocks, x, weight, bias, padding, around)

    def back(needed, g):
        if not _finite(weight):
            return None
        dw, db = weight_back(g) if any(needed[1:]) else (None, None)
        return images_back(g) if needed[0] else None, dw, db

    return out, back


# There are two ways. Usually we make columns and call BLAS.


def _by_columns(blocks, x, weight, bias, padding, around):
    O, C, kh, kw = weight.shape
    images, size = _last(x), (kh, kw)
    n, H, W, _ = images.shape
    out = np.empty((n, H + 2 * padding[0] - kh + 1, W + 2 * padding[1] - kw + 1, O), F)
    matrix, b = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).reshape(-1, O), bias[0] if bias else None
    effort = out.size * len(matrix)
    in_pieces(lambda i, j: blocks.conv(images[i:j], matrix, b, padding, size, out[i:j]), n, effort)

    def images_back(g):
        g, dx = _last(g), np.empty(images.shape, F)
        flipped = np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)).reshape(-1, C)
        in_pieces(lambda i, j: blocks.conv(g[i:j], flipped, None, around, size, dx[i:j]), n, effort)
        return _first(dx)

    def weight_back(g):
        g = _last(g)
        parts = in_pieces(lambda i, j: blocks.conv_weight(images[i:j], g[i:j], padding, size), n, effort)
        dw, db = (sum(part) for part in zip(*parts))
        return np.ascontiguousarray(dw.reshape(kh, kw, C, O).transpose(3, 2, 0, 1), F), db.astype(F)

    return _first(out), images_back, weight_back


# With few channels the columns would be narrow, and the compiled set convolves directly.


def _direct(blocks, x, weight, bias, padding, around):
    """Convolve images of few channels as they are in memory, (N, C, H, W)."""
    O, C, kh, kw = weight.shape
    images, n, filters = np.ascontiguousarray(x), len(x), np.ascontiguousarray(weight)
    out = np.empty((n, O, x.shape[2] + 2 * padding[0] - kh + 1, x.shape[3] + 2 * padding[1] - kw + 1), F)
    b, effort = bias[0] if bias else np.zeros(O, F), out.size * weight[0].size
    in_pieces(lambda i, j: blocks.direct_conv(images[i:j], filters, b, padding, out[i:j]), n, effort)

    def images_back(g):
        g, dx = np.ascontiguousarray(g), np.empty(images.shape, F)
        flipped = np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))
        none = np.zeros(C, F)
        in_pieces(lambda i, j: blocks.direct_conv(g[i:j], flipped, none, around, dx[i:j]), n, effort)
        return dx

    def weight_back(g):
        g = np.ascontiguousarray(g)
        parts = in_pieces(lambda i, j: blocks.direct_weight(images[i:j], g[i:j], padding, (kh, kw)), n, effort)
        dw, db = (sum(part).astype(F) for part in zip(*parts))
        return dw, db

    return out, images_back, weight_back


# Pooling keeps the position of the largest number of each window. Only windows of 2 by 2 that do not overlap have a
# twin, because networks use hardly any others.


@twin(ts.max_pool)
def max_pool(blocks, keep, x, size, stride, padding, dilation):
    plain = size == stride == (2, 2) and padding == (0, 0) and dilation == (1, 1)
    if not plain or x.shape[2] % 2 or x.shape[3] % 2 or not _narrow(x) or not x.size:
        return None
    n, c, h, w = x.shape
    as_it_lies = blocks.DIRECT and x.flags.c_contiguous and c > 1
    images = x.reshape(n * c, h, w, 1) if as_it_lies else _last(x)
    out = np.empty((len(images), h // 2, w // 2, images.shape[3]), F)
    kept = blocks.pool_memory(out.shape, keep)

    def part(start, stop):
        return tuple(k[start:stop] for k in kept)

    in_pieces(lambda i, j: blocks.pool(images[i:j], out[i:j], part(i, j)), len(images), x.size)

    def back(needed, g):
        if not _finite(out):  # which of several infinite numbers, or nans, is the largest?
            return None
        g, dx = np.ascontiguousarray(g).reshape(out.shape) if as_it_lies else _last(g), np.empty(images.shape, F)
        in_pieces(lambda i, j: blocks.pool_back(g[i:j], part(i, j), dx[i:j]), len(images), x.size)
        return (dx.reshape(x.shape) if as_it_lies else _first(dx),)

    return out.reshape(n, c, h // 2, w // 2) if as_it_lies else _first(out), back


# ## Channels
#
# Batch normalization needs two sums over each channel in the forward pass and two in the backward pass. With channels
# last these are sums of columns. From the two sums follows the gradient of an image: a multiple of `g` plus a multiple
# of the centred image plus a constant, with three numbers for each channel.


def _channels(x):
    """Return x (N, C, ...) as rows (N * ..., C)."""
    return np.ascontiguousarray(x.transpose(0, *range(2, x.ndim), 1)).reshape(-1, x.shape[1])


@twin(ts.channel_moments)
def channel_moments(blocks, keep, x):
    if not _narrow(x) or not x.size:
        return None
    rows = _channels(x)
    mean = sum(in_pieces(lambda i, j: blocks.sums(rows[i:j]), len(rows), x.size)) / len(rows)
    return (mean, sum(in_pieces(lambda i, j: blocks.squares(rows[i:j], mean), len(rows), x.size)) / len(rows)), None


# The normalization itself:


@twin(ts.normalize_channels)
def normalize_channels(blocks, keep, x, weight, bias, mean, var, eps):
    if not _narrow(x, weight, bias) or not x.size:
        return None
    rows, slope = _channels(x), 1 / np.sqrt(var + eps)
    out, center, factor = np.empty(rows.shape, F), mean.astype(F), (weight * slope).astype(F)
    in_pieces(lambda i, j: blocks.shift_scale(rows[i:j], center, factor, bias, out[i:j]), len(rows), x.size)
    shape = (x.shape[0], *x.shape[2:], x.shape[1])

    def shaped(rows):
        return rows.reshape(shape).transpose(0, x.ndim - 1, *range(1, x.ndim - 1))

    def back(needed, g):
        g = _channels(g)
        parts = in_pieces(lambda i, j: blocks.two_sums(g[i:j], rows[i:j], mean), len(rows), x.size)
        of_g, of_product = (sum(part) for part in zip(*parts))
        a = weight * slope
        b, c = -a * slope * slope * of_product / len(rows), -a * of_g / len(rows)
        dx, (a, b, c) = np.empty(rows.shape, F), (v.astype(F) for v in (a, b, c))
        in_pieces(lambda i, j: blocks.mix(g[i:j], rows[i:j], center, a, b, c, dx[i:j]), len(rows), x.size)
        return shaped(dx), (of_product * slope).astype(F), of_g.astype(F)

    return shaped(out), back


# ## Optimizers
#
# We make the updates of chapter 06 in one trip: we read and write each number of a parameter, its gradient and its
# moments once. The updates return nothing, because the arrays change in place.


def _rows_of(*arrays):
    """Return arrays of float32 as rows that we can cut, or None if we cannot cut one of them."""
    if not _narrow(*arrays) or not all(a.flags.c_contiguous for a in arrays):
        return None
    return [a.reshape(-1) for a in arrays]


@twin(to.adam_update)
def adam_update(blocks, keep, p, g, m, v, *, t, lr, betas, eps, decay, decoupled):
    rows = _rows_of(p, g, m, v)
    if rows is None:
        return None
    corrections = 1 / (1 - betas[0] ** t), 1 / (1 - betas[1] ** t)
    shrink, added = (1 - lr * decay, 0.0) if decoupled else (1.0, decay)
    numbers = [F.type(n) for n in (*betas, 1 - betas[0], 1 - betas[1], lr, *corrections, eps, shrink, added)]
    in_pieces(lambda i, j: blocks.adam(*(a[i:j] for a in rows), *numbers), p.size, p.size * 3, 1_200_000)
    return None, None


@twin(to.sgd_update)
def sgd_update(blocks, keep, p, g, velocity, *, lr, momentum, kept, decay, nesterov):
    rows = _rows_of(p, g, velocity)
    if rows is None:
        return None
    numbers = [F.type(n) for n in (lr, momentum, kept, decay)]
    in_pieces(lambda i, j: blocks.sgd(*(a[i:j] for a in rows), *numbers, nesterov), p.size, p.size * 2, 1_200_000)
    return None, None
