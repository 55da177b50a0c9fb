# # Embeddings
#
# At the end of this chapter a token is a vector that is learned.

from __future__ import annotations

import numpy as np

import tt_tensor as tt
from tt_autograd import rule
from tt_tensor import Module, Parameter, Tensor, primitive


@primitive(cost=lambda out, ids, weight, **params: 0)
def embedding(ids, weight, /, padding_idx=None):
    """Row ids[...] of weight (V, C) for each id: (..., C). No gradient goes to row padding_idx.

    Raises TypeError for ids that are not whole numbers and IndexError for an id that has no row."""
    if ids.dtype.kind not in "iu":
        raise TypeError(f"ids are whole numbers, and these are {ids.dtype}; cast them, as in ids.long()")
    wrong = ids[(ids < 0) | (ids >= len(weight))]
    if wrong.size:
        raise IndexError(f"there is no row for id {wrong[0]}: the table has {len(weight)}, from 0 to {len(weight) - 1}")
    return weight[ids]


@primitive(cost=lambda out, ids, g, **params: g.size)
def add_rows(ids, g, /, rows):
    """A table (rows, C) of zeros to whose row ids[...] each vector g[...] has been added."""
    ids, g = ids.reshape(-1), g.reshape(-1, g.shape[-1])
    order = np.argsort(ids, kind="stable")
    ids, ones = ids[order], np.ones(len(ids), g.dtype)
    starts = np.flatnonzero(np.diff(ids, prepend=-1))
    table = np.zeros((rows, g.shape[-1]), g.dtype)
    for row, start, stop in zip(ids[starts].tolist(), starts.tolist(), [*starts[1:].tolist(), len(ids)]):
        np.matmul(ones[start:stop], g[order[start:stop]], out=table[row])
    return table


def _table_share(g, out, ids, weight, padding_idx=None):
    if padding_idx is not None:
        g = g * (ids != padding_idx)[..., None]
    return add_rows(ids, g, rows=len(weight))


rule(embedding, None, _table_share)
rule(add_rows, None, lambda h, out, ids, g, rows: embedding(ids, h))


class Embedding(Module):
    """A table of num_embeddings learned vectors of embedding_dim numbers: ids (...) -> (..., embedding_dim)."""

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None):
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.weight = Parameter(tt.randn(num_embeddings, embedding_dim))

    def forward(self, ids: Tensor) -> Tensor:
        """The vector of each id."""
        return embedding(ids, self.weight, padding_idx=self.padding_idx)

    def extra_repr(self):
        return f"{self.num_embeddings}, {self.embedding_dim}"


__all__ = ["Embedding", "add_rows", "embedding"]
