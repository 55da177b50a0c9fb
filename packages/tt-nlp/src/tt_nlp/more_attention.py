# # More attention
#
# The appendix of chapter 13: the gradient of attention in blocks, and what `MultiHeadAttention` has to do to masks and
# shapes in order to mean what PyTorch's means.

from __future__ import annotations

import numpy as np

from tt_nlp.attention import _blocks, _powers, as_added, causal_mask
from tt_tensor import Tensor, from_numpy, quiet

# ## The gradient in blocks
#
# The formula of the chapter, block by block, with the weights computed again. Two things make it cheaper than it looks.
# The sum over a row of $\bar P \circ P$ is that of $G \circ O$, which needs no weights. And what softmax divides by is
# applied to the rows of $G$, which are short, and not to the weights.
#
# A key that is hidden from a query has the power 0, and then nothing may come of it, even if what it would be
# multiplied with is infinite or nan. In the usual case all numbers are finite, and `product_for` gives the plain
# product.


def product_for(*arrays):
    """np.matmul, or, if one of the arrays has a number that is infinite or nan, `careful_product`."""
    return np.matmul if all(np.isfinite(array).all() for array in arrays) else careful_product


def careful_product(weights, values) -> np.ndarray:
    """weights (..., T, S) @ values (..., S, Dv), where a weight of 0 takes nothing, not even of infinity or nan."""
    finite = np.isfinite(values)
    with quiet():
        total = weights @ np.where(finite, values, 0)
        for s in np.flatnonzero(~finite.all(axis=(*range(values.ndim - 2), -1))):
            rest = np.where(finite[..., s : s + 1, :], 0, values[..., s : s + 1, :])
            weight = weights[..., s : s + 1]
            total = total + np.where((weight == 0) | (rest == 0), 0, weight * rest)
    return total


def check_a_weight_of_zero_takes_nothing():
    weights, values = np.array([[0.0, 1.0], [0.5, 0.5]]), np.array([[np.inf, 2.0], [3.0, np.nan]])
    found = careful_product(weights, values)
    assert found[0, 0] == 3 and found[1, 0] == np.inf and np.isnan(found[:, 1]).all()
    assert np.array_equal(careful_product(weights[:1], values[:, :1]), [[3.0]])


# The last queries come first. They see all keys, so their block sets the shares of keys and values, and the others add.


def share_in_blocks(g, out, qkv, is_causal, scale) -> np.ndarray:
    """The share of the stacked queries, keys and values, `attention_share` of the chapter, on arrays."""
    wide, product, length = np.result_type(qkv.dtype, np.float32), product_for(qkv, g, out), qkv.shape[-2]
    share, scale = np.empty_like(qkv, wide), wide.type(scale)
    with quiet():
        for part, rows, keys in _blocks(qkv, is_causal):
            (q, k, v), (dq, dk, dv) = (x[part].astype(wide, copy=False) for x in qkv), (x[part] for x in share)
            q, k, v = q[..., rows, :] * scale, k[..., keys, :], v[..., keys, :]
            g_rows, out_rows = (x[part][..., rows, :].astype(wide, copy=False) for x in (g, out))
            powers, inverse = _powers(q, k, rows.start, is_causal)
            totals = np.vecdot(g_rows, out_rows)[..., None]
            g_rows = g_rows * inverse
            scores = (v @ g_rows.mT).mT
            scores -= totals * inverse
            scores *= powers
            if product is careful_product:
                scores[powers == 0] = 0
            np.multiply(product(scores, k), scale, out=dq[..., rows, :])
            for total, left, right in ((dk, scores, q), (dv, powers, g_rows)):
                if rows.stop == length:
                    total[...] = product(left.mT, right)
                else:
                    total[..., keys, :] += product(left.mT, right)
    return share.astype(qkv.dtype, copy=False)


# ## One mask
#
# The layer has up to three masks, in each of which True means *must not look*: of padding, for each text; of the
# caller, for all texts or for each head of each; and the causal one. Made into numbers to add, they can be added up.
# The causal mask alone is not made at all, unless somebody wants to see weights.


def one_mask(layer, query, key, padding, mask, is_causal, need_weights) -> Tensor | None:
    """The numbers to add to the scores of a MultiHeadAttention; None if there is nothing to add."""
    padding, mask = (from_numpy(x) if isinstance(x, np.ndarray) else x for x in (padding, mask))
    B, T, S, heads, dtype = len(query), query.shape[1], key.shape[1], layer.num_heads, query.dtype
    added = []
    if padding is not None:
        _refuse_shape("key_padding_mask", padding, (B, S))
        added.append(_to_add(padding, dtype).reshape(B, 1, 1, S))
    if mask is not None:
        _refuse_shape("attn_mask", mask, (T, S), (B * heads, T, S))
        mask = _to_add(mask, dtype)
        added.append(mask.reshape(B, heads, T, S) if mask.ndim == 3 else mask)
    if is_causal and (added or need_weights):
        added.append(as_added(causal_mask(T, S), dtype))
    return sum(added[1:], added[0]) if added else None


def _to_add(mask, dtype):
    return as_added(~mask if mask.dtype == np.bool_ else mask, dtype)


def _refuse_shape(name, mask, *shapes):
    if mask.shape not in shapes or mask.dtype.kind not in "bf":
        wanted = " or ".join(map(str, shapes))
        raise ValueError(f"{name} is to be bool or float of shape {wanted}, not {mask.shape} of {mask.dtype}")


# ## Projections and shapes


def refuse_options(embed_dim, num_heads, batch_first) -> None:
    """TypeError for sizes that are no integers, ValueError for a layout that the layer does not have."""
    for name, value in (("embed_dim", embed_dim), ("num_heads", num_heads)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} is an integer, not {value!r}")
    if batch_first is not True:
        raise ValueError(
            f"MultiHeadAttention takes (batch, time, width), so batch_first is True, not {batch_first!r}; for inputs "
            "(time, batch, width), give x.transpose(0, 1)"
        )


def cut(layer) -> list[tuple[Tensor, Tensor | None]]:
    """Weight and bias of each of the three projections of a MultiHeadAttention."""
    C, bias = layer.embed_dim, layer.in_proj_bias
    parts = [slice(i * C, (i + 1) * C) for i in range(3)]
    if layer.kdim == layer.vdim == C:
        weights = [layer.in_proj_weight[part] for part in parts]
    else:
        weights = [layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight]
    return [(weight, None if bias is None else bias[part]) for weight, part in zip(weights, parts)]


def refuse_misfits(layer, query, key, value) -> None:
    """ValueError unless the three are (B, T, C), (B, S, kdim) and (B, S, vdim); TypeError for what is no tensor."""
    if wrong := [type(x).__name__ for x in (query, key, value) if not isinstance(x, Tensor)]:
        raise TypeError(f"attention takes tensors, not {', '.join(wrong)}: use from_numpy for an array")
    shapes, wide = [x.shape for x in (query, key, value)], (layer.embed_dim, layer.kdim, layer.vdim)
    if (
        any(len(shape) != 3 or shape[2] != width for shape, width in zip(shapes, wide))
        or len({shape[0] for shape in shapes}) > 1 or shapes[1][1] != shapes[2][1]
    ):  # fmt: skip
        B, T, S = "B", "T", "S"
        wanted = f"({B}, {T}, {wide[0]}), ({B}, {S}, {wide[1]}) and ({B}, {S}, {wide[2]})"
        raise ValueError(f"MultiHeadAttention takes {wanted}, not {shapes[0]}, {shapes[1]} and {shapes[2]}")


def without_batch(layer, query, key, value, need_weights, average, key_padding_mask, attn_mask, is_causal):
    """The layer on a single text (T, C): a batch of one, whose dimension is taken away again."""
    alone = query is key is value
    query = query.unsqueeze(0)
    key, value = (query, query) if alone else (key.unsqueeze(0), value.unsqueeze(0))
    padding = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    found, weights = layer(query, key, value, padding, need_weights, attn_mask, average, is_causal)
    return found[0], None if weights is None else weights[0]


__all__ = ["cut", "one_mask", "refuse_misfits", "share_in_blocks", "without_batch"]
