# # NLP loops
#
# An appendix of chapters 12 and 13: we write their primitives once more, as the loops over numbers that define them. As
# with the loops of chapters 02 and 09, you can use all of them as a kernel set, `with use_kernels(nlp_loops): ...`, and
# as a witness.

from __future__ import annotations

import math

import numpy as np

from tt_nlp.common import refuse_ids

# ## Tables
#
# First we write looking up and its transpose. If an id comes twice, we look it up twice, and we add to its row twice.


def embedding(ids, weight, /, padding_idx=None):
    refuse_ids(ids, len(weight))
    out = np.zeros((*ids.shape, weight.shape[1]), weight.dtype)
    for place in np.ndindex(*ids.shape):
        for c in range(weight.shape[1]):
            out[(*place, c)] = weight[ids[place], c]
    return out


def add_rows(ids, g, /, rows):
    table = np.zeros((rows, g.shape[-1]), np.float64)  # a sum of many small numbers stops growing in a narrow one
    for place in np.ndindex(*ids.shape):
        for c in range(g.shape[-1]):
            table[ids[place], c] += g[(*place, c)]
    return table.astype(g.dtype)


# ## Turning
#
# We turn pair $i$ at a position by angle $i$ of that position. The two elements of a pair are neighbours or half a
# vector apart.


def rotate_pairs(x, /, angles, interleaved):
    out, half = np.zeros(x.shape, x.dtype), x.shape[-1] // 2
    angles = np.broadcast_to(angles, (*x.shape[:-1], half))
    for *place, i in np.ndindex(*angles.shape):
        first, second = (2 * i, 2 * i + 1) if interleaved else (i, i + half)
        a, b, angle = x[(*place, first)], x[(*place, second)], angles[(*place, i)]
        out[(*place, first)] = a * math.cos(angle) - b * math.sin(angle)
        out[(*place, second)] = a * math.sin(angle) + b * math.cos(angle)
    return out


# ## Attention
#
# For each query we compute the scores of the keys that it may see and subtract the largest. Then we weigh each value by
# its exponential, divided by the sum of all. A weight of 0 takes nothing, even of infinity.


def weighted(weights, values, /):
    batch = np.broadcast_shapes(weights.shape[:-2], values.shape[:-2])
    weights = np.broadcast_to(weights, (*batch, *weights.shape[-2:]))
    values = np.broadcast_to(values, (*batch, *values.shape[-2:]))
    out = np.zeros((*batch, weights.shape[-2], values.shape[-1]), np.result_type(weights, values))
    for *place, t, c in np.ndindex(*out.shape):
        row, column = weights[(*place, t)], values[(*place, slice(None), c)]
        out[(*place, t, c)] = sum(w.item() * v.item() for w, v in zip(row, column) if w)
    return out


def attention_in_blocks(qkv, /, is_causal, scale):
    (*batch, length, size), out = qkv.shape[1:], np.zeros(qkv.shape[1:], qkv.dtype)
    for *place, t in np.ndindex(*batch, length):
        (query, keys, values), at = (x[tuple(place)] for x in qkv), (*place, t)
        seen = range(t + 1 if is_causal else length)
        scores = [scale * sum(query[t, i].item() * keys[s, i].item() for i in range(size)) for s in seen]
        powers = [math.exp(score - max(scores)) for score in scores]
        for i in range(size):
            out[(*at, i)] = sum(power * values[s, i].item() for s, power in zip(seen, powers)) / sum(powers)
    return out
