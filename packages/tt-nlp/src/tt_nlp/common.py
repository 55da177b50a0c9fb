"""What chapters 12 and 13 and their appendices share: checks of arguments, masks as numbers, and the product in which 0
takes nothing."""

from __future__ import annotations

import numpy as np

import tt_tensor as tt
from tt_autograd import rule
from tt_tensor import Tensor, from_numpy, primitive


def product(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """weights (..., T, S) @ values (..., S, Dv), where a weight of 0 takes nothing, not even of infinity or nan."""
    finite = np.isfinite(values)
    if finite.all():
        return weights @ values
    with tt.quiet():
        total = weights @ np.where(finite, values, 0)
        for s in np.flatnonzero(~finite.all(axis=(*range(values.ndim - 2), -1))):
            rest = np.where(finite[..., s : s + 1, :], 0, values[..., s : s + 1, :])
            weight = weights[..., s : s + 1]
            total = total + np.where((weight == 0) | (rest == 0), 0, weight * rest)
    return total


@primitive(cost=lambda out, weights, values: out.size * weights.shape[-1])
def weighted(weights, values, /):
    """weights (..., T, S) @ values (..., S, Dv), where a weight of 0 takes nothing even of infinity or nan; nor does it
    have a gradient."""
    return product(weights, values)


rule(
    weighted,
    lambda g, out, weights, values: tt.choose(weights == 0, weights * 0, g @ values.mT),
    lambda g, out, weights, values: weighted(weights.mT, g),
)


def as_added(mask: Tensor, dtype) -> Tensor:
    """A mask as numbers to add to scores: 0 for True and -inf for False; numbers as they are."""
    if mask.dtype == np.bool_:
        return from_numpy(np.where(mask.numpy(), 0, -np.inf).astype(dtype))
    return mask.to(dtype)


def checked_mask(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor | None:
    """The mask of an attention as a tensor. Raises TypeError for what is not a tensor, ValueError for shapes and dtypes
    that do not fit, and for two masks."""
    refuse_other_types(query, key, value)
    mask = from_numpy(mask) if isinstance(mask, np.ndarray) else mask
    shapes = f"query {query.shape}, key {key.shape} and value {value.shape}"
    if min(query.ndim, key.ndim, value.ndim) < 2 or any(x.dtype.kind != "f" for x in (query, key, value)):
        raise ValueError(f"attention takes floats of shape (..., T, D), not {shapes} of dtype {query.dtype}")
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ValueError(f"{shapes} do not fit: query and key need the same D, key and value the same length")
    if is_causal and mask is not None:
        raise ValueError("is_causal is a mask already; leave it out, and give attn_mask & causal_mask(T, S)")
    batch = tt.broadcast_shape(*(x.shape[:-2] for x in (query, key, value)))
    scores = (*batch, query.shape[-2], key.shape[-2])
    if mask is not None and (mask.dtype.kind not in "bf" or not _broadcasts(mask.shape, scores)):
        raise ValueError(f"a mask of shape {mask.shape}, {mask.dtype}, must be bool or float and broadcast to {scores}")
    return mask


def _broadcasts(shape, to) -> bool:
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape[::-1], to[::-1]))


def refuse_other_types(*values) -> None:
    """TypeError unless all of these are tensors."""
    if wrong := [type(x).__name__ for x in values if not isinstance(x, Tensor)]:
        raise TypeError(f"attention takes tensors, not {', '.join(wrong)}: use from_numpy for an array")


def refuse_unstacked(qkv: Tensor) -> None:
    """ValueError unless qkv is queries, keys and values stacked as (3, ..., T, D), floats."""
    if qkv.ndim < 3 or len(qkv) != 3 or qkv.dtype.kind != "f":
        raise ValueError(f"queries, keys and values must be floats (3, ..., T, D), not {qkv.shape} of {qkv.dtype}")


def refuse_ids(ids: np.ndarray, rows: int, padding_idx: int | None = None) -> None:
    """TypeError for ids that are not integers, IndexError for an id or a padding_idx without a row in the table."""
    if padding_idx is not None and not 0 <= padding_idx < rows:
        raise IndexError(f"there is no row for padding_idx {padding_idx}: the table has {rows} rows, 0 to {rows - 1}")
    if ids.dtype.kind not in "iu":
        raise TypeError(f"ids must be integers, not {ids.dtype}: use tensor([...]), or cast with .long()")
    if ids.size and (ids.min() < 0 or ids.max() >= rows):
        wrong = ids[(ids < 0) | (ids >= rows)][0]
        raise IndexError(f"there is no row for id {wrong}: the table has {rows} rows, 0 to {rows - 1}")
