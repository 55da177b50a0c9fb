# # Attention
#
# At the end of this chapter every token looks at the others and takes what it needs.

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

import tt_tensor as tt
from tt_autograd import rule
from tt_tensor import Linear, Module, Parameter, Tensor, primitive

BLOCK, QUERIES = 1 << 17, 64


def _parts(batch: tuple[int, ...], each: int) -> Iterator[tuple]:
    """Indices that cut a batch of this shape into parts of about BLOCK numbers, `each` for an item."""
    if len(batch) > 1 and math.prod(batch[1:]) * each > BLOCK:
        for i in range(batch[0]):
            yield from ((i, *rest) for rest in _parts(batch[1:], each))
    elif batch:
        step = max(1, BLOCK // max(math.prod(batch[1:]) * each, 1))
        yield from ((slice(start, start + step),) for start in range(0, batch[0], step))
    else:
        yield ()


def _query_blocks(length: int, is_causal: bool) -> Iterator[tuple[slice, int]]:
    """Blocks of queries, the last first, and how many keys each of them sees."""
    for start in reversed(range(0, length, QUERIES)):
        stop = min(start + QUERIES, length)
        yield slice(start, stop), stop if is_causal else length


def _powers(q, k, start, is_causal):
    """e to the scores of scaled queries (..., n, D) that begin at `start`, without overflow, and one by their sums."""
    scores = k @ q.mT
    if is_causal:
        scores[..., start:, :] += np.tril(np.full((q.shape[-2],) * 2, -np.inf, q.dtype), -1)
    scores -= scores.max(axis=-2, keepdims=True)
    np.exp(scores, out=scores)
    return scores.mT, (1 / scores.sum(axis=-2))[..., None]


@primitive(cost=lambda out, qkv, **params: 2 * out.size * out.shape[-2])
def attention(qkv, /, is_causal, scale):
    """softmax(scale * q @ k.mT) @ v for queries, keys and values that are stacked as (3, ..., T, D)."""
    out, length = np.empty_like(qkv[0]), qkv.shape[-2]
    for part in _parts(qkv.shape[1:-2], min(QUERIES, length) * length):
        q, k, v = (x[part] for x in qkv)
        q = q * q.dtype.type(scale)
        for rows, keys in _query_blocks(length, is_causal):
            powers, slope = _powers(q[..., rows, :], k[..., :keys, :], rows.start, is_causal)
            result = out[part][..., rows, :]
            np.matmul(powers, v[..., :keys, :], out=result)
            result *= slope
    return out


def _share_in_blocks(g, out, qkv, is_causal, scale):
    share, length, scale = np.empty_like(qkv), qkv.shape[-2], qkv.dtype.type(scale)
    for part in _parts(qkv.shape[1:-2], min(QUERIES, length) * length):
        q, k, v = (x[part] for x in qkv)
        dq, dk, dv = (x[part] for x in share)
        q, totals = q * scale, np.vecdot(g[part], out[part])[..., None]
        for rows, keys in _query_blocks(length, is_causal):
            powers, slope = _powers(q[..., rows, :], k[..., :keys, :], rows.start, is_causal)
            g_rows = g[part][..., rows, :] * slope
            scores = (v[..., :keys, :] @ g_rows.mT).mT
            scores -= totals[..., rows, :] * slope
            scores *= powers
            np.matmul(scores, k[..., :keys, :], out=dq[..., rows, :])
            if rows.stop == length:
                np.matmul(scores.mT, q[..., rows, :], out=dk)
                np.matmul(powers.mT, g_rows, out=dv)
            else:
                dk[..., :keys, :] += scores.mT @ q[..., rows, :]
                dv[..., :keys, :] += powers.mT @ g_rows
        dq *= scale
    return share


def attention_share(g, out, qkv, is_causal, scale):
    """The share of the stacked queries, keys and values in `attention`, by the formula."""
    q, k, v = qkv[0], qkv[1], qkv[2]
    weights = attention_weights(q, k, causal_mask(q.shape[-2]) if is_causal else None, scale)
    of_weights = g @ v.mT
    of_scores = weights * (of_weights - tt.sum(of_weights * weights, dim=-1, keepdim=True)) * scale
    return tt.stack([of_scores @ k, of_scores.mT @ q, weights.mT @ g])


rule(
    attention,
    lambda g, out, qkv, **params: (_share_in_blocks if isinstance(g, np.ndarray) else attention_share)(
        g, out, qkv, **params
    ),
)


def causal_mask(queries: int, keys: int | None = None) -> Tensor:
    """Who may look at whom, (queries, keys): True where the key does not come after the query."""
    return tt.from_numpy(np.tri(queries, keys, dtype=bool))


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """How much each query takes of each key's value: softmax(scale * query @ key.mT), 0 where the mask forbids."""
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.mT
    if mask is None:
        return tt.softmax(scores, dim=-1)
    if mask.dtype == np.bool_:
        mask = tt.from_numpy(np.where(mask.numpy(), 0, -np.inf).astype(scores.dtype))
    hopeless = np.isneginf(mask.numpy()).all(-1, keepdims=True)
    if not hopeless.any():
        return tt.softmax(scores + mask, dim=-1)
    return tt.softmax(tt.where(tt.from_numpy(hopeless), scores * 0, scores + mask), dim=-1) * tt.from_numpy(~hopeless)


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None,
) -> Tensor:
    """For each query (..., T, D) the mean of the values (..., S, Dv), weighed by softmax(scale * query @ key.mT).

    As torch.nn.functional.scaled_dot_product_attention."""
    if attn_mask is None and not dropout_p and query.shape == key.shape == value.shape:
        return self_attention(tt.stack([query, key, value]), is_causal=is_causal, scale=scale)
    if is_causal:
        attn_mask = causal_mask(query.shape[-2], key.shape[-2])
    weights = attention_weights(query, key, attn_mask, scale)
    return tt.dropout(weights, dropout_p) @ value


def self_attention(
    qkv: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """scaled_dot_product_attention of queries, keys and values that are stacked in one tensor, (3, ..., T, D)."""
    if attn_mask is None and not dropout_p:
        return attention(qkv, is_causal=is_causal, scale=qkv.shape[-1] ** -0.5 if scale is None else scale)
    return scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask, dropout_p, is_causal, scale)


class MultiHeadAttention(Module):
    """num_heads attentions side by side, each on its share of the embed_dim numbers; batch first."""

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, kdim: int | None = None,
        vdim: int | None = None,
    ):
        super().__init__()
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.in_proj_weight = Parameter(tt.zeros(3 * embed_dim, embed_dim))
        self.in_proj_bias = Parameter(tt.zeros(3 * embed_dim)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias)
        tt.init.xavier_uniform_(self.in_proj_weight)

    def forward(
        self, query, key, value, key_padding_mask=None, need_weights=True, attn_mask=None, average_attn_weights=True,
        is_causal=False,
    ):
        """(attended (B, T, embed_dim), weights or None)."""
        B, T, C = query.shape
        qkv = tt.linear(query, self.in_proj_weight, self.in_proj_bias)
        stacked = qkv.reshape(B, T, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        found = self_attention(stacked, is_causal=is_causal, dropout_p=self.dropout if self.training else 0.0)
        return self.out_proj(found.transpose(1, 2).reshape(B, T, C)), None


__all__ = [
    "MultiHeadAttention", "attention", "attention_share", "attention_weights", "causal_mask",
    "scaled_dot_product_attention", "self_attention",
]
