"""The table of the operations of chapters 12 and 13, OPS, in the form of `tt_tensor.testing`: what each is called here
and in torch, and arguments to try."""

from __future__ import annotations

import numpy as np

import tt_nlp as tn
from tt_spatial.testing import SpatialOp
from tt_tensor.testing import Draw, Sample


def _normal(draw: Draw, *shape: int) -> np.ndarray:
    return np.asarray(draw.random.standard_normal(shape))


def _laid_out(draw: Draw, values: np.ndarray) -> np.ndarray:
    """The same numbers: in a row, with heads and tokens exchanged in memory, or every second of a longer row."""
    if values.ndim < 3:
        return values
    heads_inside = np.ascontiguousarray(values.swapaxes(-3, -2)).swapaxes(-3, -2)
    return draw.pick([values, heads_inside, np.repeat(values, 2, -1)[..., ::2]])


# Tables. Few rows and many ids, so that most of them are repeated.


def _looked_up(draw: Draw) -> Sample:
    rows, shape = draw.pick([4, 1, 9]), draw.pick([(5,), (), (2, 3), (0,), (3, 1, 4), (40,)])
    ids = draw.random.integers(0, rows, shape)
    weight = _normal(draw, rows, draw.pick([3, 1, 8]))
    return Sample((ids, draw.pick([weight, weight.T.copy().T])), {"padding_idx": draw.pick([None, 0, rows - 1])})


def _bag(draw: Draw) -> Sample:
    rows = draw.pick([4, 2])
    return Sample((draw.random.integers(0, rows, (3, draw.pick([4, 1]))), _normal(draw, rows, 3)), {"padding_idx": 1})


def _in_places(draw: Draw) -> Sample:
    shape = draw.pick([(2, 3, 5, 4), (5, 4), (3, 1, 2), (2, 4, 6)])
    places = draw.pick([None, np.arange(shape[-2]) + 7, np.arange(shape[-2])[::-1] * 3])
    options = {"positions": places, "base": draw.pick([10_000.0, 50.0]), "interleaved": draw.pick([True, False])}
    return Sample((_laid_out(draw, _normal(draw, *shape)),), options)


# Attention. The mask is one of every form that broadcasts: truth values or numbers, with rows that see nothing.


def _mask(draw: Draw, batch, queries, keys) -> list[np.ndarray]:
    shape = draw.pick([(queries, keys), (1, keys), (queries, 1), (keys,), (*batch, queries, keys), (*batch, 1, keys)])
    sees = draw.random.random(shape) < 0.7
    if draw.pick([False, True]):
        np.atleast_2d(sees)[..., :1, :] = False
    numbers = draw.random.standard_normal(shape)
    return [draw.pick([sees, numbers, np.where(sees, numbers, -np.inf), np.where(sees, 0.0, -np.inf)])]


def _attended(draw: Draw) -> Sample:
    batch, queries, keys = draw.pick([(), (2,), (2, 3)]), draw.pick([4, 1, 70]), draw.pick([4, 1, 5])
    size, of_values, causal = draw.pick([4, 1, 3]), draw.pick([4, 6]), draw.pick([False, True])
    if draw.pick([True, False]):
        keys, of_values = queries, size
    arrays = [_normal(draw, *batch, n, d) for n, d in ((queries, size), (keys, size), (keys, of_values))]
    if not causal:
        arrays += draw.pick([[], _mask(draw, batch, queries, keys)])
    options = {"is_causal": causal, "scale": draw.pick([None, 0.3])}
    return Sample(tuple(_laid_out(draw, a) if n < 3 else a for n, a in enumerate(arrays)), options)


def _shared(draw: Draw) -> Sample:
    """Heads that share keys and values, and batches that share queries."""
    arrays = [_normal(draw, 1, 3, 4, 2), _normal(draw, 2, 1, 5, 2), _normal(draw, 2, 1, 5, 2)]
    return Sample(tuple(arrays), {"is_causal": draw.pick([False, True]), "scale": None})


def _stacked(draw: Draw) -> Sample:
    shape = (3, *draw.pick([(), (2,), (3, 2)]), draw.pick([5, 1, 64, 65, 150]), draw.pick([4, 1]))
    return Sample((_laid_out(draw, _normal(draw, *shape)),), {"is_causal": draw.pick([False, True]), "scale": 0.7})


# How they are called, here and there.


def _attend(query, key, value, mask=None, **options):
    return tn.scaled_dot_product_attention(query, key, value, mask, **options)


def _attend_in(torch):
    def attend(query, key, value, mask=None, **options):
        if mask is not None and mask.ndim == 1:  # without a batch torch wants two dimensions
            mask = mask.reshape(1, -1)
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, **options)

    return attend


def _stacked_in(torch):
    return lambda qkv, **options: torch.nn.functional.scaled_dot_product_attention(*qkv.unbind(0), **options)


def _bag_in(torch):
    return lambda ids, weight, padding_idx: torch.nn.functional.embedding_bag(ids, weight, padding_idx=padding_idx,
                                                                              mode="mean")  # fmt: skip


def _rotary_in(torch):
    """With complex numbers, as Llama's authors wrote it."""

    def rotary(x, positions, base, interleaved):
        half = x.shape[-1] // 2
        places = torch.arange(x.shape[-2]) if positions is None else torch.from_numpy(positions.copy())
        angles = torch.outer(places.double(), base ** (-torch.arange(half).double() * 2 / x.shape[-1]))
        turns = torch.polar(torch.ones_like(angles), angles).to(torch.complex128 if x.dtype == torch.float64 else
                                                               torch.complex64)  # fmt: skip
        pairs = x.unflatten(-1, (half, 2)) if interleaved else x.unflatten(-1, (2, half)).transpose(-1, -2)
        turned = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * turns)
        return turned.flatten(-2) if interleaved else turned.transpose(-1, -2).flatten(-2)

    return rotary


OPS = [
    SpatialOp(
        "embedding", lambda ids, weight, **options: tn.embedding(ids, weight, **options), "nn.functional.embedding",
        _looked_up,
    ),
    SpatialOp("embedding_bag", tn.embeddings.embedding_bag, _bag_in, _bag),
    SpatialOp("rotary", tn.rotary, _rotary_in, _in_places),
    SpatialOp("scaled_dot_product_attention", _attend, _attend_in, _attended),
    SpatialOp("scaled_dot_product_attention of shared keys", _attend, _attend_in, _shared),
    SpatialOp("self_attention", tn.self_attention, _stacked_in, _stacked),
]  # fmt: skip


def closed(sample: Sample) -> bool:
    """Is there an infinite number among the arguments, about which no difference can be taken?"""
    return any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in sample.arrays)


__all__ = ["OPS", "closed"]
