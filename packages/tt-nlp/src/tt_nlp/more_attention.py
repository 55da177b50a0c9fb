# # More attention
#
# The appendix of chapter 13: what `MultiHeadAttention` must do to masks and shapes, so that it means what PyTorch's
# layer means.

from __future__ import annotations

import numpy as np

from tt_nlp.attention import as_added, causal_mask
from tt_nlp.common import refuse_other_types
from tt_tensor import Tensor, from_numpy

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
    refuse_other_types(query, key, value)
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


__all__ = ["cut", "one_mask", "refuse_misfits", "without_batch"]
