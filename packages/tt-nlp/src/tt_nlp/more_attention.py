# # More attention
#
# The appendix of chapter 13: PyTorch's layer, with its name, its arguments and its habits. You need it to run code that
# was written for PyTorch.

from __future__ import annotations

import numpy as np

import tt_tensor as tt
from tt_nlp import attention
from tt_nlp.attention import (
    MultiHeadAttention, attention_weights, causal_mask, merge_heads, self_attention, split_heads,
)  # fmt: skip
from tt_nlp.common import as_added, refuse_other_types, weighted
from tt_tensor import Linear, Module, Parameter, Tensor, from_numpy, linear

# ## Arguments
#
# PyTorch's `MultiheadAttention` has a small h and more arguments than our layer in the chapter. It takes keys and
# values of other widths, and a text without a batch. It returns two things, the result and the weights. And it takes
# time first, $(T, B, C)$, unless you pass `batch_first=True`: a recurrent network wants all texts' first tokens side by
# side, and PyTorch had recurrent networks first. We begin by checking the sizes.


def _refuse_sizes(embed_dim, num_heads, add_bias_kv, add_zero_attn) -> None:
    for name, value in (("embed_dim", embed_dim), ("num_heads", num_heads)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} must be an integer, not {value!r}")
    if add_bias_kv or add_zero_attn:
        raise ValueError(
            "MultiheadAttention adds no keys of its own: add_bias_kv and add_zero_attn must be False; append a row to "
            "keys and values instead"
        )
    if num_heads < 1 or embed_dim < 1 or embed_dim % num_heads:
        raise ValueError(f"{num_heads} heads do not divide {embed_dim} numbers; embed_dim % num_heads must be 0")


# We also check the shapes of a call. Queries must have the width of the layer, keys and values their own. (Here we have
# already moved the batch to the front.)


def _refuse_misfits(layer, query, key, value) -> None:
    refuse_other_types(query, key, value)
    found, wide = (query, key, value), (layer.embed_dim, layer.kdim, layer.vdim)
    shapes = [x.shape for x in found]
    if (
        any(len(shape) != 3 or shape[2] != width for shape, width in zip(shapes, wide))
        or len({shape[0] for shape in shapes}) > 1 or shapes[1][1] != shapes[2][1]
    ):  # fmt: skip
        wanted = f"(B, T, {wide[0]}), (B, S, {wide[1]}) and (B, S, {wide[2]})"
        wanted = wanted if layer.batch_first else wanted.replace("B, T", "T, B").replace("B, S", "S, B")
        shapes = shapes if layer.batch_first else [x.transpose(0, 1).shape if x.ndim > 1 else x.shape for x in found]
        raise ValueError(f"MultiheadAttention takes {wanted}, not {shapes[0]}, {shapes[1]} and {shapes[2]}")


# ## One mask
#
# The layer has up to three masks: one for the padding of each text; one from the caller, for all texts or for each head
# of each; and the causal one. In the first two we meet an old inconsistency of PyTorch: here True means *must not
# look*, while it means *may look* in `scaled_dot_product_attention`. We turn all three into numbers to add, and then
# add them up.


def _one_mask(query, key, heads, padding, mask, is_causal) -> Tensor | None:
    """Return the numbers to add to the scores; None if there is nothing to add."""
    padding, mask = (from_numpy(x) if isinstance(x, np.ndarray) else x for x in (padding, mask))
    B, T, S, added = len(query), query.shape[1], key.shape[1], []
    if padding is not None:
        _refuse_shape("key_padding_mask", padding, (B, S))
        added.append(_to_add(padding, query.dtype).reshape(B, 1, 1, S))
    if mask is not None:
        _refuse_shape("attn_mask", mask, (T, S), (B * heads, T, S))
        mask = _to_add(mask, query.dtype)
        added.append(mask.reshape(B, heads, T, S) if mask.ndim == 3 else mask)
    if is_causal:
        added.append(as_added(causal_mask(T, S), query.dtype))
    return sum(added[1:], added[0]) if added else None


# Two helpers turn PyTorch's True into ours, and check the shape of a mask.


def _to_add(mask, dtype):
    return as_added(~mask if mask.dtype == np.bool_ else mask, dtype)


def _refuse_shape(name, mask, *shapes):
    if mask.shape not in shapes or mask.dtype.kind not in "bf":
        wanted = " or ".join(map(str, shapes))
        raise ValueError(f"{name} must be bool or float of shape {wanted}, not {mask.shape} of {mask.dtype}")


# ## The layer
#
# If keys and values have the width of the queries, we keep the three projections in one matrix, as in the chapter.
# Otherwise we need three.


class MultiheadAttention(Module):
    """num_heads attentions side by side, each on its part of embed_dim numbers, as torch.nn.MultiheadAttention: time
    first, (T, B, C), unless batch_first. kdim and vdim are the widths of keys and values.

    Raises ValueError for heads that do not divide the width, and for add_bias_kv and add_zero_attn."""

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, add_bias_kv: bool = False,
        add_zero_attn: bool = False, kdim: int | None = None, vdim: int | None = None, batch_first: bool = False,
        device=None, dtype=None,
    ):
        super().__init__()
        tt.refuse_other_device(device)
        _refuse_sizes(embed_dim, num_heads, add_bias_kv, add_zero_attn)
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, tt.Dropout(dropout).p
        self.kdim, self.vdim, self.batch_first = kdim or embed_dim, vdim or embed_dim, batch_first
        self.head_dim = embed_dim // num_heads
        if self.kdim == self.vdim == embed_dim:
            self.in_proj_weight = Parameter(tt.zeros(3 * embed_dim, embed_dim, dtype=dtype))
        else:
            self.q_proj_weight = Parameter(tt.zeros(embed_dim, embed_dim, dtype=dtype))
            self.k_proj_weight = Parameter(tt.zeros(embed_dim, self.kdim, dtype=dtype))
            self.v_proj_weight = Parameter(tt.zeros(embed_dim, self.vdim, dtype=dtype))
        self.in_proj_bias = Parameter(tt.zeros(3 * embed_dim, dtype=dtype)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias, dtype=dtype)
        self.reset_parameters()

    # We draw the initial weights as PyTorch does.

    def reset_parameters(self) -> None:
        """Draw all weights anew, as PyTorch does, and set the biases to zero."""
        self.out_proj.reset_parameters()
        for name, parameter in self.named_parameters():
            if name.endswith("proj_weight"):
                tt.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                tt.zeros_(parameter)

    # In self-attention we compute queries, keys and values in one product and keep them in one tensor, which is a view.

    def projected(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor | list[Tensor]:
        """Queries, keys and values in heads, three times (B, heads, T, D): stacked in one tensor if all three come from
        one text, otherwise a list."""
        one_matrix = self.kdim == self.vdim == self.embed_dim
        if query is key is value and one_matrix:
            qkv = split_heads(linear(query, self.in_proj_weight, self.in_proj_bias), 3 * self.num_heads)
            return qkv.reshape(len(query), 3, self.num_heads, *qkv.shape[2:]).transpose(0, 1)
        if one_matrix:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        parts = map(linear, (query, key, value), weights, biases)
        return [split_heads(part, self.num_heads) for part in parts]

    # There are three ways to attend. The first also returns the weights, the second is for a text that asks itself, the
    # third for one that asks another. If you ask for the weights, the layer must build all $T \times S$ of them for
    # every head. If you do not need them, pass `need_weights=False`, and it can avoid that: we then never build the
    # causal mask, if it is the only one.
    #
    # (For a query that may look at nothing, PyTorch's layer returns nan with the weights and zeros without. Ours always
    # returns zeros.)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Queries (T, B, C), keys and values (S, B, C), or all without B: what was found (T, B, C), and if need_weights
        the weights (B, T, S), the mean over heads, or (B, heads, T, S). With batch_first, B comes first in all of them.

        key_padding_mask (B, S) and attn_mask (T, S) or (B * heads, T, S): True where a query must not look, or numbers
        to add. With is_causal no query looks ahead."""
        if query.ndim == 2:
            masks = {"key_padding_mask": key_padding_mask, "attn_mask": attn_mask, "is_causal": is_causal}
            return self._without_batch(query, key, value, need_weights, average_attn_weights, **masks)
        if not self.batch_first:
            query, key, value = _exchanged(query, key, value)
        _refuse_misfits(self, query, key, value)
        causal_alone = is_causal and key_padding_mask is None and attn_mask is None and not need_weights
        mask = _one_mask(query, key, self.num_heads, key_padding_mask, attn_mask, is_causal and not causal_alone)
        p, qkv, weights = self.dropout if self.training else 0.0, self.projected(query, key, value), None
        if need_weights:
            weights = tt.dropout(attention_weights(qkv[0], qkv[1], mask), p)
            found = weighted(weights, qkv[2])
            weights = weights.mean(1) if average_attn_weights else weights
        elif isinstance(qkv, Tensor):
            found = self_attention(qkv, mask, p, causal_alone)
        else:
            q, k, v = qkv
            found = scaled_dot_product_attention(q, k, v, mask, p, causal_alone)
        out = self.out_proj(merge_heads(found))
        return out if self.batch_first else out.transpose(0, 1), weights

    # A single text is a batch of one.

    def _without_batch(self, query, key, value, need_weights, average, key_padding_mask, attn_mask, is_causal):
        alone, dim = query is key is value, 0 if self.batch_first else 1
        query = query.unsqueeze(dim)
        key, value = (query, query) if alone else (key.unsqueeze(dim), value.unsqueeze(dim))
        padding = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        found, weights = self(query, key, value, padding, need_weights, attn_mask, average, is_causal)
        return found.squeeze(dim), None if weights is None else weights[0]

    def extra_repr(self):
        return f"{self.embed_dim} in {self.num_heads} heads"


# Here time and batch change places. If the three arguments are one tensor, we return one tensor three times, so that
# the layer recognizes self-attention.


def _exchanged(query, key, value):
    refuse_other_types(query, key, value)
    turned = query.transpose(0, 1)
    if query is key is value:
        return turned, turned, turned
    keys = key.transpose(0, 1) if key.ndim > 1 else key
    values = keys if key is value else value.transpose(0, 1) if value.ndim > 1 else value
    return turned, keys, values


# With equal weights it must compute what our layer in the chapter computes. A small h makes no difference.


def check_the_same_layer():
    ours, theirs, x = MultiHeadAttention(8, 2), MultiheadAttention(8, 2, batch_first=True), tt.randn(2, 5, 8)
    theirs.load_state_dict(ours.state_dict())
    found, weights = theirs(x, x, x, is_causal=True, average_attn_weights=False)
    assert np.allclose(ours(x, x, x, is_causal=True).detach().numpy(), found.detach().numpy(), atol=1e-6)
    assert np.allclose(ours.weights(x, x, causal_mask(5)).detach().numpy(), weights.detach().numpy(), atol=1e-6)


# ## Fewer keys than queries
#
# PyTorch's function has one more option. In *grouped-query attention* several heads of queries share one head of keys
# and values, which makes the cache of chapter 16 smaller. We repeat each head of keys for the heads that share it.


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:
    """The attention of chapter 13, in which with enable_gqa the heads of queries (..., heads, T, D) may be a multiple
    of those of keys and values. As torch.nn.functional.scaled_dot_product_attention.

    Raises ValueError for heads that do not divide, and for shapes that do not fit."""
    if enable_gqa:
        heads = [x.shape[-3] if x.ndim > 2 else 0 for x in (query, key, value)]
        if 0 in heads or heads[0] % heads[1] or heads[0] % heads[2]:
            raise ValueError(f"enable_gqa: {heads[1]} heads of keys and {heads[2]} of values do not divide {heads[0]}")
        key, value = (x.repeat_interleave(heads[0] // n, -3) for x, n in zip((key, value), heads[1:]))
    return attention.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale)


__all__ = ["MultiheadAttention"]
