# # More embeddings
#
# An appendix of chapter 12: PyTorch's options for tables, and bags of embeddings. The options change weights or
# gradients on the way, which is why we left them out of the chapter. The class `Embedding` of this module is the
# chapter's with these options as further arguments.

from __future__ import annotations

from typing import Any, Self

import numpy as np

import tt_tensor as tt
from tt_autograd import no_grad
from tt_nlp import embeddings
from tt_nlp.common import refuse_ids
from tt_nlp.embeddings import add_rows
from tt_tensor import Module, Parameter, Tensor, from_numpy
from tt_tensor.options import told

# ## Two options of a look-up
#
# With `max_norm`, we permanently shorten a row of the table that has become longer than that, before we look it up.
# Vectors then cannot differ only by their lengths. PyTorch does this in place, and so do we.


def _shorten(ids, weight, max_norm, norm_type):
    with no_grad():
        rows = np.unique(ids.numpy())
        lengths = np.linalg.norm(weight.numpy()[rows], norm_type, axis=1)
        long = lengths > max_norm
        if long.any():
            table = weight.numpy().copy()
            table[rows[long]] *= (max_norm / (lengths[long] + 1e-7))[:, None].astype(table.dtype)
            weight.copy_(table)


# A frequent token receives many contributions to its gradient in a batch, a rare one few. With `scale_grad_by_freq` we
# divide each contribution by the number of times its token occurs in the batch. The values must stay as they are. So we
# add to each vector its difference from itself, which is 0, times the factor: only its gradient counts.


def _by_frequency(ids, vectors):
    _, places, counts = np.unique(ids.numpy(), return_inverse=True, return_counts=True)
    factors = (1 / counts[places]).reshape(*ids.shape, 1).astype(vectors.dtype)
    constant = vectors.detach()
    return constant + (vectors - constant) * from_numpy(factors)


# The look-up applies both options around the primitive of the chapter.


def embedding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Tensor:
    """Row input[...] of weight (V, C) for each id: (..., C), as torch.nn.functional.embedding. Row padding_idx, which
    may be negative, gets no gradient. max_norm shortens rows of the weight in place.

    sparse is accepted: gradients are dense, with the same numbers. Raises TypeError for ids that are not integers,
    IndexError for an id or a padding_idx without a row."""
    if padding_idx is not None and -len(weight) <= padding_idx < 0:
        padding_idx += len(weight)
    if max_norm is not None:
        refuse_ids(input.numpy(), len(weight), padding_idx)
        _shorten(input, weight, max_norm, norm_type)
    vectors = embeddings.embedding(input, weight, padding_idx=padding_idx)
    return _by_frequency(input, vectors) if scale_grad_by_freq else vectors


# ## The layer
#
# A table may also come from elsewhere: `from_pretrained` returns a layer that uses it, frozen unless you say otherwise.
# The layer shares the table's memory.


class Embedding(embeddings.Embedding):
    """A table of num_embeddings learned vectors: ids (...) -> (..., embedding_dim), with the options of `embedding`. As
    torch.nn.Embedding; sparse gradients are dense here."""

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False, _weight: Tensor | None = None,
        _freeze: bool = False, device=None, dtype=None,
    ):
        super().__init__(num_embeddings, embedding_dim, padding_idx)
        self.max_norm, self.norm_type, self.scale_grad_by_freq = max_norm, norm_type, scale_grad_by_freq
        self.sparse = sparse
        _take_table(self, _weight, _freeze, device, dtype)

    def forward(self, ids: Tensor) -> Tensor:
        """The vector of each id."""
        options = (self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq)
        return embedding(ids, self.weight, *options)

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
    ) -> Self:
        """Return a layer whose table is `embeddings` (V, C), frozen unless freeze=False. ValueError if not 2-D."""
        rows, width = _table_shape(embeddings)
        options = (padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
        return cls(rows, width, *options, _weight=embeddings, _freeze=freeze)


# Both layers of this module accept a table, or a dtype for their own.


def _take_table(layer: Any, table, freeze, device, dtype) -> None:
    tt.refuse_other_device(device)
    if table is not None and table.shape != layer.weight.shape:
        raise ValueError(f"a table of shape {table.shape} does not fit {layer.weight.shape}")
    if table is not None:
        layer.weight = Parameter(table, requires_grad=not freeze)
    elif dtype is not None or freeze:
        layer.weight = Parameter(layer.weight.detach().to(dtype or layer.weight.dtype), requires_grad=not freeze)


def _table_shape(table):
    if table.ndim != 2:
        raise ValueError(f"a table must be (rows, numbers of each), not of shape {table.shape}")
    return table.shape


# We check that a long row is shortened in the very table that we passed.


def check_pretrained():
    table = tt.tensor([[0.0, 0.0], [3.0, 4.0], [0.6, 0.8]])
    layer = Embedding.from_pretrained(table, padding_idx=0, max_norm=1.0)
    assert not layer.weight.requires_grad and np.allclose(layer(tt.tensor([1, 2]))[0].numpy(), [0.6, 0.8])
    assert np.allclose(table[1].numpy(), [0.6, 0.8])  # in place


# ## Bags
#
# We can represent a text by the sum or the mean of its vectors, or by the largest number of each column. `EmbeddingBag`
# keeps texts of different lengths one after the other in a single row of ids, and a second row, `offsets`, says where
# each begins. So we need no padding. The sum over a bag is `add_rows` of the chapter, with the number of the bag in the
# place of the id: the gradient of a look-up has become the operation itself.


def embedding_bag(
    input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
    per_sample_weights: Tensor | None = None, include_last_offset: bool = False, padding_idx: int | None = None,
) -> Tensor:
    """The sum, mean or maximum of the vectors of each bag of ids: (bags, C). As torch.nn.functional.embedding_bag.
    input is (bags, n), or (n,) with the beginning of each bag in offsets; with include_last_offset, offsets also has
    the end of the last one. An empty bag gives 0, and ids equal to padding_idx do not count.

    per_sample_weights, of the shape of input, multiply the vectors in a sum. Raises ValueError for arguments that do
    not fit together, IndexError for an id without a row."""
    _refuse_combinations(input, mode, scale_grad_by_freq, per_sample_weights)
    bags, count = _bags(input, offsets, include_last_offset)
    ids, weights = input.reshape(-1), None if per_sample_weights is None else per_sample_weights.reshape(-1)
    vectors = embedding(ids, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq)
    if padding_idx is not None:
        kept = np.flatnonzero(ids.numpy() != padding_idx % len(weight))
        bags, vectors, weights = bags[kept], vectors[kept], None if weights is None else weights[kept]
    if mode == "max":
        return _largest(vectors, bags, count)
    totals = add_rows(from_numpy(bags), vectors if weights is None else vectors * weights.unsqueeze(1), rows=count)
    if mode == "sum":
        return totals
    return totals / from_numpy(np.maximum(np.bincount(bags, minlength=count), 1)[:, None].astype(totals.dtype))


# Not all options go together.


def _refuse_combinations(input, mode, scale_grad_by_freq, per_sample_weights) -> None:
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f'mode must be "sum", "mean" or "max", not {mode!r}')
    if per_sample_weights is not None and (mode != "sum" or per_sample_weights.shape != input.shape):
        raise ValueError(
            f'per_sample_weights are for mode="sum", and of the shape {input.shape} of the ids; here mode={mode!r} and '
            f"the weights are {per_sample_weights.shape}"
        )
    if scale_grad_by_freq and mode == "max":
        raise ValueError('scale_grad_by_freq is for the modes "sum" and "mean"')


# Which bag does an id belong to, and how many bags are there?


def _bags(input, offsets, include_last_offset):
    if input.ndim == 2 and offsets is None:
        return np.repeat(np.arange(len(input)), input.shape[1]), len(input)
    starts = None if offsets is None else offsets.numpy()
    if input.ndim != 1 or starts is None or starts.ndim != 1 or starts.dtype.kind not in "iu":
        shape = None if offsets is None else offsets.shape
        raise ValueError(f"ids must be (bags, n), or (n,) with integer offsets (bags,); not {input.shape} and {shape}")
    starts = starts[:-1] if include_last_offset else starts
    if len(starts) and (starts[0] != 0 or (np.diff(starts) < 0).any() or starts[-1] > len(input)):
        raise ValueError(f"offsets must begin with 0 and grow up to {len(input)}, the number of ids; they are {starts}")
    lengths = np.diff(np.append(starts, len(input)))
    return np.repeat(np.arange(len(starts)), lengths), len(starts)


# The maximum needs the rows of each bag by themselves.


def _largest(vectors, bags, count):
    empty = tt.zeros(vectors.shape[1], dtype=vectors.dtype)
    ends = np.searchsorted(bags, np.arange(count + 1))
    parts = [vectors[start:stop] for start, stop in zip(ends[:-1].tolist(), ends[1:].tolist())]
    rows = [part.max(0).values if len(part) else empty for part in parts]
    return tt.stack(rows) if rows else tt.zeros(0, vectors.shape[1], dtype=vectors.dtype)


def check_bags():
    table, ids = tt.tensor([[1.0, 2.0], [3.0, 0.0], [5.0, 5.0]]), tt.tensor([0, 1, 2])
    for mode, wanted in (("sum", [4, 2]), ("mean", [2, 1]), ("max", [3, 2])):
        assert embedding_bag(ids, table, tt.tensor([0, 2, 3]), mode=mode).tolist() == [wanted, [5, 5], [0, 0]]


# The layer owns a table and remembers the options.


class EmbeddingBag(Module):
    """embedding_bag with a learned table (num_embeddings, embedding_dim); as torch.nn.EmbeddingBag."""

    def __init__(
        self, num_embeddings: int, embedding_dim: int, max_norm: float | None = None, norm_type: float = 2.0,
        scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False, _weight: Tensor | None = None,
        include_last_offset: bool = False, padding_idx: int | None = None, device=None, dtype=None,
    ):
        super().__init__()
        table = embeddings.Embedding(num_embeddings, embedding_dim, padding_idx)
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, table.padding_idx
        self.max_norm, self.norm_type, self.scale_grad_by_freq = max_norm, norm_type, scale_grad_by_freq
        self.mode, self.sparse, self.include_last_offset = mode, sparse, include_last_offset
        self.weight = table.weight
        _take_table(self, _weight, False, device, dtype)

    def forward(
        self, ids: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """One vector for each bag of ids."""
        return embedding_bag(
            ids, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode, self.sparse,
            per_sample_weights, self.include_last_offset, self.padding_idx,
        )

    # Like `Embedding`, it can use a table that you have already.

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, max_norm: float | None = None, norm_type: float = 2.0,
        scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False, include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> Self:
        """Return a layer whose table is `embeddings` (V, C), frozen unless freeze=False. ValueError if not 2-D."""
        options = (max_norm, norm_type, scale_grad_by_freq, mode, sparse, embeddings, include_last_offset, padding_idx)
        rows, width = _table_shape(embeddings)
        layer = cls(rows, width, *options)
        layer.weight.requires_grad = not freeze
        return layer

    def extra_repr(self):
        return told(self, ("num_embeddings", "embedding_dim", "mode", "padding_idx"))


__all__ = ["Embedding", "EmbeddingBag", "embedding", "embedding_bag"]
