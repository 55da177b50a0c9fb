# # More attention
#
# The appendix of chapter 13: PyTorch's layer, with its name, its arguments and its habits.

from __future__ import annotations

import numpy as np

import tt_tensor as tt
from tt_nlp.attention import (
    MultiHeadAttention, attention_weights, causal_mask, merge_heads, scaled_dot_product_attention, self_attention,
    split_heads,
)
from tt_nlp.common import as_added, refuse_other_types, weighted
from tt_tensor import Linear, Module, Parameter, Tensor, from_numpy, linear

# ## Arguments
#
# PyTorch's `MultiheadAttention` has a small h, and more arguments than the layer of the chapter. It takes keys and
# values of other widths, and a text without a batch. It returns two things, what was found and the weights. The sizes
# are checked first.


def _refuse_sizes(embed_dim, num_heads, batch_first) -> None:
    for name, value in (("embed_dim", embed_dim), ("num_heads", num_heads)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} is an integer, not {value!r}")
    if batch_first is not True:
        raise ValueError(
            f"MultiheadAttention takes (batch, time, width), so batch_first is True, not {batch_first!r}; for inputs "
            "(time, batch, width), give x.transpose(0, 1)"
        )
    if num_heads < 1 or embed_dim < 1 or embed_dim % num_heads:
        raise ValueError(f"{num_heads} heads do not divide {embed_dim} numbers; embed_dim % num_heads must be 0")


# So are the shapes of a call. Queries have the width of the layer, keys and values their own.


def _refuse_misfits(layer, query, key, value) -> None:
    refuse_other_types(query, key, value)
    shapes, wide = [x.shape for x in (query, key, value)], (layer.embed_dim, layer.kdim, layer.vdim)
    if (
        any(len(shape) != 3 or shape[2] != width for shape, width in zip(shapes, wide))
        or len({shape[0] for shape in shapes}) > 1 or shapes[1][1] != shapes[2][1]
    ):  # fmt: skip
        wanted = f"(B, T, {wide[0]}), (B, S, {wide[1]}) and (B, S, {wide[2]})"
        raise ValueError(f"MultiheadAttention takes {wanted}, not {shapes[0]}, {shapes[1]} and {shapes[2]}")


# ## One mask
#
# The layer has up to three masks: of padding, for each text; of the caller, for all texts or for each head of each; and
# the causal one. In the first two we meet an old inconsistency: True means *must not look* here, and *may look* in
# `scaled_dot_product_attention`. Turned into numbers to add, the three can be added up.


def _one_mask(query, key, heads, padding, mask, is_causal) -> Tensor | None:
    """The numbers to add to the scores; None if there is nothing to add."""
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


def _to_add(mask, dtype):
    return as_added(~mask if mask.dtype == np.bool_ else mask, dtype)


def _refuse_shape(name, mask, *shapes):
    if mask.shape not in shapes or mask.dtype.kind not in "bf":
        wanted = " or ".join(map(str, shapes))
        raise ValueError(f"{name} must be bool or float of shape {wanted}, not {mask.shape} of {mask.dtype}")


# ## The layer
#
# If keys and values have the width of the queries, the three projections are one matrix, as in the chapter. Otherwise
# there are three.


class MultiheadAttention(Module):
    """num_heads attentions side by side, each on its share of embed_dim numbers, batch first. As
    torch.nn.MultiheadAttention(..., batch_first=True); kdim and vdim are the widths of keys and values."""

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, kdim: int | None = None,
        vdim: int | None = None, batch_first: bool = True,
    ):
        super().__init__()
        _refuse_sizes(embed_dim, num_heads, batch_first)
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, tt.Dropout(dropout).p
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        if self.kdim == self.vdim == embed_dim:
            self.in_proj_weight = Parameter(tt.zeros(3 * embed_dim, embed_dim))
        else:
            self.q_proj_weight = Parameter(tt.zeros(embed_dim, embed_dim))
            self.k_proj_weight = Parameter(tt.zeros(embed_dim, self.kdim))
            self.v_proj_weight = Parameter(tt.zeros(embed_dim, self.vdim))
        self.in_proj_bias = Parameter(tt.zeros(3 * embed_dim)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew, as PyTorch does, and set the biases to zero."""
        self.out_proj.reset_parameters()
        for name, parameter in self.named_parameters():
            if name.endswith("proj_weight"):
                tt.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                tt.zeros_(parameter)

    # In self-attention one product makes queries, keys and values, and they stay in one tensor, which is a view.

    def projected(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor | list[Tensor]:
        """Queries, keys and values in heads, three times (B, heads, T, D): stacked in one tensor if they are all made
        of one text, otherwise a list."""
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
    # third for one that asks another. If you ask for the weights, the layer has to build all $T \times S$ of them for
    # every head. If you do not need them, pass `need_weights=False`, and it can avoid that: the causal mask alone is
    # then never built.
    #
    # (For a query that may look at nothing, PyTorch's layer returns nan with the weights and zeros without. Ours always
    # returns zeros.)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Queries (B, T, C), keys and values (B, S, C), or all without B: what was found (B, T, C), and if need_weights
        the weights (B, T, S), the mean over heads, or (B, heads, T, S).

        key_padding_mask (B, S) and attn_mask (T, S) or (B * heads, T, S): True where a query must not look, or numbers
        to add. With is_causal no query looks ahead."""
        if query.ndim == 2:
            masks = {"key_padding_mask": key_padding_mask, "attn_mask": attn_mask, "is_causal": is_causal}
            return self._without_batch(query, key, value, need_weights, average_attn_weights, **masks)
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
        return self.out_proj(merge_heads(found)), weights

    # A single text is a batch of one.

    def _without_batch(self, query, key, value, need_weights, average, key_padding_mask, attn_mask, is_causal):
        alone, query = query is key is value, query.unsqueeze(0)
        key, value = (query, query) if alone else (key.unsqueeze(0), value.unsqueeze(0))
        padding = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        found, weights = self(query, key, value, padding, need_weights, attn_mask, average, is_causal)
        return found[0], None if weights is None else weights[0]

    def extra_repr(self):
        return f"{self.embed_dim} in {self.num_heads} heads"


# With equal weights it computes what the layer of the chapter computes. A small h makes no difference.


def check_the_same_layer():
    ours, theirs, x = MultiHeadAttention(8, 2), MultiheadAttention(8, 2), tt.randn(2, 5, 8)
    theirs.load_state_dict(ours.state_dict())
    found, weights = theirs(x, x, x, is_causal=True, average_attn_weights=False)
    assert np.allclose(ours(x, x, x, is_causal=True).detach().numpy(), found.detach().numpy(), atol=1e-6)
    assert np.allclose(ours.weights(x, x, causal_mask(5)).detach().numpy(), weights.detach().numpy(), atol=1e-6)


__all__ = ["MultiheadAttention"]
