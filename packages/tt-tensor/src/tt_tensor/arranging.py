# # Arranging
#
# An appendix of chapter 02: the same elements in other places. We repeat, roll, swap and stack; we pick rows and put
# rows. Nearly all of it is indexing, so we know each derivative from `getitem` and `place`.

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tt_tensor.arguments import normalize_sizes, number_as, resolve_dim
from tt_tensor.methods import torch_names
from tt_tensor.more_ops import as_mask, cat, choose, flip, nonzero, place_along, split, stack, where
from tt_tensor.tensor import (
    Tensor, add, broadcast_shape, from_numpy, int32, int64, mul, permute, place, sum, tensor,
)

# ## Other views
#
# PyTorch and NumPy have several names for moving a dimension; all of them are `permute`.


def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """The dimensions `source` moved to the places `destination`; the others keep their order."""
    pair = [[d] if isinstance(d, int) else list(d) for d in (source, destination)]
    froms, tos = ([resolve_dim(d, input.ndim) for d in dims] for dims in pair)
    if len(froms) != len(tos) or len(set(froms)) < len(froms) or len(set(tos)) < len(tos):
        raise ValueError(f"movedim: {source} and {destination} must name as many dimensions, each of them once")
    rest = iter(d for d in range(input.ndim) if d not in froms)
    return permute(input, dims=tuple(froms[tos.index(d)] if d in tos else next(rest) for d in range(input.ndim)))


moveaxis = movedim


def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """Two dimensions swapped."""
    return input.transpose(axis0, axis1)


def swapdims(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions swapped."""
    return input.transpose(dim0, dim1)


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; a vector as it is."""
    return input.T


def ravel(input: Tensor) -> Tensor:
    """All elements in one dimension."""
    return input.reshape(-1)


# We can split a single dimension, as in "12 channels are 3 heads of 4", and bring several shapes together.


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One dimension split into several of the given sizes, one of which may be -1."""
    dim = resolve_dim(dim, input.ndim)
    known = int(np.prod([n for n in sizes if n != -1], dtype=int))
    filled = tuple(input.shape[dim] // max(known, 1) if n == -1 else n for n in sizes)
    if int(np.prod(filled, dtype=int)) != input.shape[dim]:
        raise ValueError(f"unflatten: the sizes {tuple(sizes)} do not make up {input.shape[dim]}, dimension {dim}")
    return input.reshape((*input.shape[:dim], *filled, *input.shape[dim + 1 :]))


def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """A view in which dimensions of size 1 are repeated to `size`."""
    return input.expand(*size)


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors as views of the one shape that they broadcast to."""
    shape = broadcast_shape(*(x.shape for x in tensors))
    return tuple(x.expand(*shape) for x in tensors)


def atleast_1d(input: Tensor) -> Tensor:
    """A single number as a vector of one element; others as they are."""
    return input if input.ndim else input.reshape(1)


def atleast_2d(input: Tensor) -> Tensor:
    """With a dimension of size 1 in front of a vector; others as they are."""
    return input if input.ndim > 1 else input.reshape(1, -1)


# ## Stacks
#
# `hstack`, `vstack`, `dstack` and `column_stack` come from NumPy, and from a time when everything was a matrix. They
# differ in how they treat vectors.


# A vector counts as a row in `vstack`, and as a column in `column_stack`.


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors side by side: vectors one after the other, others along dimension 1."""
    tensors = [atleast_1d(x) for x in tensors]
    return cat(tensors, 0 if tensors and tensors[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors one below the other; a vector is a row."""
    return cat([atleast_2d(x) for x in tensors], 0)


row_stack = vstack


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors one behind the other, along dimension 2."""
    deep = [atleast_2d(x) for x in tensors]
    return cat([x if x.ndim > 2 else x.unsqueeze(2) for x in deep], 2)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Vectors as columns, matrices side by side."""
    return cat([x.reshape(-1, 1) if x.ndim < 2 else x for x in tensors], 1)


# We can also cut a tensor into its slices, or into pieces of nearly equal size.


@torch_names
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along `dim`, without that dimension."""
    return tuple(select(input, dim, i) for i in range(input.size(dim)))


@torch_names
def tensor_split(input: Tensor, indices_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """The tensor cut along `dim` into so many pieces of nearly equal size, or before the given positions."""
    length = input.size(dim)
    if isinstance(indices_or_sections, int):
        small, larger = divmod(length, indices_or_sections)
        return split(input, [small + (i < larger) for i in range(indices_or_sections)], dim)
    ends = [*(min(i, length) for i in indices_or_sections), length]
    return split(input, [end - start for start, end in zip([0, *ends], ends)], dim)


# ## Repeat and roll


def tile(input: Tensor, dims: Sequence[int]) -> Tensor:
    """The tensor repeated so many times along each dimension, counted from the last: (3,) by (2, 1) is (2, 3)."""
    dims = normalize_sizes((tuple(dims),))
    dims = (1,) * (input.ndim - len(dims)) + dims
    shape = (1,) * (len(dims) - input.ndim) + input.shape
    spread = input.reshape(tuple(n for size in shape for n in (1, size)))
    spread = spread.expand(*(n for times, size in zip(dims, shape) for n in (times, size)))
    return spread.clone().reshape(tuple(times * size for times, size in zip(dims, shape)))


def repeat_interleave(input: Tensor, repeats: int | Tensor, dim: int | None = None) -> Tensor:
    """Each element, or each slice along `dim`, repeated in place: [1, 2] by 2 is [1, 1, 2, 2]. `repeats` may hold a
    number for each."""
    x, dim = (input.reshape(-1), 0) if dim is None else (input, resolve_dim(dim, input.ndim))
    times = np.asarray(repeats.numpy() if isinstance(repeats, Tensor) else repeats)
    if times.ndim > 1 or (times.size not in (1, x.shape[dim])) or (times.size and times.min() < 0):
        raise ValueError(f"repeat_interleave: repeats {times.tolist()} must be one number >= 0, or one for each place")
    places = np.repeat(np.arange(x.shape[dim]), times if times.ndim and times.size > 1 else times.reshape(-1)[:1])
    return index_select(x, dim, places)


# To roll, we cut the tensor in two and join the pieces in the other order.


def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """The elements moved along `dims`; what leaves at the end comes in at the front. Without dims, in reading order."""
    if dims is None:
        if not isinstance(shifts, int):
            raise ValueError(f"roll: shifts {shifts} need as many dims")
        return roll(input.reshape(-1), shifts, 0).reshape(input.shape)
    shifts, dims = ([part] if isinstance(part, int) else list(part) for part in (shifts, dims))
    if len(shifts) != len(dims):
        raise ValueError(f"roll: {len(shifts)} shifts need as many dims, not {len(dims)}")
    moved = input
    for shift, dim in zip(shifts, dims):
        if not input.ndim:
            raise IndexError(f"roll: a single number has no dimension {dim}")
        size = input.size(dim)
        if size > 1 and shift % size:
            last = size - shift % size
            moved = cat([narrow(moved, dim, last, size - last), narrow(moved, dim, 0, last)], dim)
    return input.clone() if moved is input else moved


# A quarter turn is a flip and a transpose.


def fliplr(input: Tensor) -> Tensor:
    """The columns in reverse order."""
    return flip(input, dim=1)


def flipud(input: Tensor) -> Tensor:
    """The rows in reverse order."""
    return flip(input, dim=0)


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Turned by k quarters in the plane of two dimensions, from the first towards the second."""
    first, second = dims
    if k % 2:
        input = flip(input, dim=second if k % 4 == 1 else first).transpose(first, second)
    elif k % 4:
        input = flip(input, dim=(first, second))
    return input


# ## Diagonals
#
# We pick the diagonal by two lists of positions, and the derivative puts it back by the same lists.


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of two dimensions, as a new last dimension; offset > 0 for one above the main diagonal.

    PyTorch's is a view; this one is a copy."""
    dim1, dim2 = resolve_dim(dim1, input.ndim), resolve_dim(dim2, input.ndim)
    if dim1 == dim2 or input.ndim < 2:
        raise ValueError(f"diagonal needs two dimensions; these are {dim1} and {dim2} of a shape {input.shape}")
    x = movedim(input, (dim1, dim2), (-2, -1))
    rows, columns = _of_diagonal(x.shape[-2], x.shape[-1], offset)
    return x[..., rows, columns]


def _of_diagonal(rows: int, columns: int, offset: int) -> tuple[np.ndarray, np.ndarray]:
    steps = np.arange(max(min(rows + min(offset, 0), columns - max(offset, 0)), 0))
    return steps - min(offset, 0), steps + max(offset, 0)


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices of zeros with the last dimension of input on their diagonals."""
    size = input.shape[-1] + abs(offset)
    rows, columns = _of_diagonal(size, size, offset)
    out = place(input, index=(..., rows, columns), shape=(*input.shape[:-1], size, size))
    return movedim(out, (-2, -1), (dim1, dim2))


# `diag` does one or the other, depending on whether it gets a vector or a matrix.


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The matrix with a vector on its diagonal, or the diagonal of a matrix."""
    if input.ndim not in (1, 2):
        raise ValueError(f"diag takes a vector or a matrix, not a tensor of shape {input.shape}")
    return diag_embed(input, diagonal) if input.ndim == 1 else _diagonal_of(input, diagonal)


_diagonal_of = diagonal


def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""
    if input.ndim != 2:
        raise ValueError(f"trace takes a matrix, not a tensor of shape {input.shape}")
    return sum(diagonal(input))


def tril_indices(row: int, col: int, offset: int = 0, dtype=int64) -> Tensor:
    """The positions of the lower triangle, (2, n)."""
    return from_numpy(np.array(np.tril_indices(row, offset, col)).astype(dtype))


def triu_indices(row: int, col: int, offset: int = 0, dtype=int64) -> Tensor:
    """The positions of the upper triangle, (2, n)."""
    return from_numpy(np.array(np.triu_indices(row, offset, col)).astype(dtype))


# ## Picking
#
# `select` and `narrow` are slices; `index_select`, `take` and `masked_select` pick by positions or by a mask (*gather*
# operations).


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """The slice at one position along `dim`, without that dimension."""
    if not input.ndim:
        raise IndexError("select cannot be applied to a single number; use .item()")
    return input[(*[slice(None)] * resolve_dim(dim, input.ndim), int(index))]


def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`length` slices along `dim`, from `start` on. Raises ValueError where there are not so many."""
    size = input.size(dim)
    start = int(start) + size if start < 0 else int(start)
    if length < 0 or not 0 <= start <= size - length:
        raise ValueError(f"narrow: {length} from {start} on are not within dimension {dim} of size {size}")
    return input[(*[slice(None)] * resolve_dim(dim, input.ndim), slice(start, start + int(length)))]


def _positions(index: Any, name: str) -> np.ndarray:
    array = np.asarray(index.numpy() if isinstance(index, Tensor) else index)
    if array.dtype not in (int32, int64) and (array.size or isinstance(index, Tensor)):
        raise IndexError(f"{name} needs an index of int64 (or int32), not {array.dtype}")
    return array.astype(int64)


# Positions may come as a tensor, a list or an array, and are checked before they are used.


def index_select(input: Tensor, dim: int, index: Any) -> Tensor:
    """The slices along `dim` at the positions `index`, a vector of integers."""
    places = _positions(index, "index_select")
    if places.ndim > 1:
        raise IndexError(f"index_select takes a vector of positions, not a shape {places.shape}")
    if not input.ndim:
        resolve_dim(dim, 1)  # or an error
        return input.reshape(1)[places.reshape(-1)].reshape(())
    return input[(*[slice(None)] * resolve_dim(dim, input.ndim), places.reshape(-1))]


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the mask is true, in one dimension; the two broadcast."""
    x, chosen = broadcast_tensors(input, as_mask(mask))
    return x[chosen] if x.ndim else x.reshape(1)[chosen.reshape(1)]


def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements at positions in reading order, in the shape of index."""
    return input.reshape(-1)[_positions(index, "take")]


def argwhere(input: Tensor) -> Tensor:
    """The positions of the elements that are not zero, one in each row."""
    return nonzero(input)


# ## Putting
#
# Their opposites return a new tensor in which values were added or put (*scatter* operations). PyTorch's `scatter`
# takes an index of the shape of the values, `index_add` and its relatives a vector of positions along one dimension.


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """input, with `src[i, j]` added at `[index[i, j], j]` (for dim 0); positions that occur twice get both."""
    places, dim = _scattered(input, dim, index), resolve_dim(dim, input.ndim)
    if not input.ndim:
        return scatter_add(input.reshape(1), 0, index.reshape(-1), src.reshape(-1)).reshape(())
    if src.ndim != input.ndim or any(n > m for n, m in zip(places.shape, src.shape)):
        raise ValueError(f"scatter: an index of shape {places.shape} needs more values than src of {src.shape} has")
    values = src[tuple(slice(n) for n in places.shape)]
    return add(input, place_along(values, index=places, dim=dim, shape=input.shape))


def _scattered(input: Tensor, dim: int, index: Any) -> np.ndarray:
    places, axis = np.array(_positions(index, "scatter")), resolve_dim(dim, input.ndim)
    if places.ndim != input.ndim or any(
        n > m for d, (n, m) in enumerate(zip(places.shape, input.shape)) if d != axis
    ):
        raise ValueError(f"scatter: an index of shape {places.shape} does not fit a tensor of shape {input.shape}")
    size = input.shape[axis] if input.ndim else 1
    if places.size and not (0 <= places.min() and places.max() < size):
        raise IndexError(
            f"scatter: the index runs from {places.min()} to {places.max()}, but dimension {dim} has size {size}"
        )
    return places


# To *put* values, we choose for each place between the old element and the value that is written last. So we first
# write the positions of the values and then pick by them.


def scatter(input: Tensor, dim: int, index: Tensor, src: Any, reduce: str | None = None) -> Tensor:
    """input, with `src[i, j]`, or one number, put at `[index[i, j], j]` (dim 0). Of several values for one place, the
    last is put; reduce="add" adds them and "multiply" multiplies, the latter without a derivative.

    Raises ValueError for another reduce and for shapes that do not fit, IndexError for positions out of range."""
    places, axis = _scattered(input, dim, index), resolve_dim(dim, input.ndim)
    if not isinstance(src, Tensor):
        src = from_numpy(number_as(src, input.dtype)).expand(*places.shape)
    if reduce == "add":
        return scatter_add(input, dim, index, src)
    if reduce not in (None, "multiply"):
        raise ValueError(f'scatter: reduce is None, "add" or "multiply", not {reduce!r}')
    at: list[Any] = list(np.indices(places.shape)) if places.ndim else [np.zeros((), int64)]
    if src.ndim and any(n > m for n, m in zip(places.shape, src.shape)):
        raise ValueError(f"scatter: an index of shape {places.shape} needs more values than src of {src.shape} has")
    values = src[tuple(slice(n) for n in places.shape)] if src.ndim else src
    at[axis] = places
    if reduce == "multiply":
        return _multiplied(input, tuple(at), values)
    return _put(input, tuple(at) if places.ndim else (), values)


# `_multiplied` leaves the work to NumPy and has no derivative. `_put` has one, because it picks.


def _multiplied(input: Tensor, at: tuple, values: Tensor) -> Tensor:
    if mul(input, 1).requires_grad or mul(values, 1).requires_grad:
        raise RuntimeError('scatter with reduce="multiply" has no derivative; call it under no_grad()')
    out = input.numpy().copy()
    np.multiply.at(out, at, values.numpy())
    return from_numpy(out)


def _put(input: Tensor, at: tuple, values: Tensor) -> Tensor:
    """input with values at the NumPy index `at`, the last of several for one place."""
    written = np.full(input.shape, -1)
    written[at] = np.arange(values.numel()).reshape(values.shape)
    if not values.numel():
        return input.clone()
    picked = values.reshape(-1)[np.maximum(written, 0)]
    return choose(from_numpy(np.asarray(written >= 0)), picked.to(input.dtype), input)


# The three `index_` functions write whole slices and share the check of the positions.


def _rows(input: Tensor, dim: int, index: Any, name: str) -> tuple:
    places = _positions(index, name).reshape(-1)
    size = input.size(dim)
    if places.size and not (-size <= places.min() and places.max() < size):
        raise IndexError(f"{name}: the index {places.tolist()} is not within dimension {dim} of size {size}")
    return (*[slice(None)] * resolve_dim(dim, input.ndim), places)


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, alpha: float = 1) -> Tensor:
    """input, with the slices of source, times alpha, added along `dim` at the positions of index."""
    at = _rows(input, dim, index, "index_add")
    shape = input.numpy()[at].shape
    if source.shape != shape:
        raise ValueError(f"index_add: a source of shape {shape} is needed, not {source.shape}")
    return add(input, place(source if alpha == 1 else source * alpha, index=at, shape=input.shape))


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """input, with the slices of source put along `dim` at the positions of index."""
    at = _rows(input, dim, index, "index_copy")
    if source.shape != input.numpy()[at].shape:
        raise ValueError(f"index_copy: a source of shape {input.numpy()[at].shape} is needed, not {source.shape}")
    return _put(input, at, source)


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """input, with one number in the slices along `dim` at the positions of index."""
    mask = np.zeros(input.shape, bool)
    mask[_rows(input, dim, index, "index_fill")] = True
    return where(from_numpy(mask), tensor(value).to(input.dtype), input)


# With a mask, we use up the values in reading order: the first true place gets the first value.


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """input, with the elements of source, in order, where the mask is true."""
    x, chosen = broadcast_tensors(input, as_mask(mask))
    true = chosen.numpy()
    count = int(true.sum())
    if count > source.numel():
        raise ValueError(f"masked_scatter: the mask is true {count} times, but source has {source.numel()} elements")
    at: Any = np.nonzero(true) if true.ndim else true
    return _put(x, at, source.reshape(-1)[:count])


# ## Grids


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Vectors as tensors over all their combinations: "ij" for shape (n, m, ...), "xy" for (m, n, ...)."""
    vectors = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors
    if indexing not in ("ij", "xy"):
        raise ValueError(f'meshgrid: indexing is "ij" or "xy", not {indexing!r}')
    order = list(range(len(vectors)))
    if indexing == "xy" and len(order) > 1:
        order[:2] = 1, 0
    shape = [vectors[i].numel() for i in order]
    alone = lambda d: tuple(n if other == d else 1 for other, n in enumerate(shape))
    return tuple(x.reshape(alone(order.index(i))).expand(*shape) for i, x in enumerate(vectors))


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of the vectors' elements, one in each row."""
    if len(tensors) == 1:
        return tensors[0]
    return stack([x.reshape(-1) for x in meshgrid(*tensors)], -1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All choices of r elements of a vector, one in each row, in order."""
    choose_some = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    places = np.array(list(choose_some(range(input.numel()), r)), int64).reshape(-1, r)
    return input[places]


# Several matrices can also become the blocks of one large matrix.


def block_diag(*tensors: Tensor) -> Tensor:
    """Matrices along the diagonal of a large one, and zeros elsewhere."""
    blocks = [atleast_2d(x) for x in tensors]
    shape = tuple(int(n) for n in np.sum([x.shape for x in blocks], axis=0))
    corners = np.cumsum([(0, 0), *(x.shape for x in blocks)], axis=0)
    parts = [
        place(x, index=tuple(slice(int(i), int(i) + n) for i, n in zip(corner, x.shape)), shape=shape)
        for corner, x in zip(corners, blocks)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


__all__ = [
    "argwhere", "atleast_1d", "atleast_2d", "block_diag", "broadcast_tensors", "broadcast_to", "cartesian_prod",
    "column_stack", "combinations", "diag", "diag_embed", "diagonal", "dstack", "fliplr", "flipud", "hstack",
    "index_add", "index_copy", "index_fill", "index_select", "masked_scatter", "masked_select", "meshgrid", "moveaxis",
    "movedim", "narrow", "ravel", "repeat_interleave", "roll", "rot90", "row_stack", "scatter", "scatter_add", "select",
    "swapaxes", "swapdims", "t", "take", "tensor_split", "tile", "trace", "tril_indices", "triu_indices", "unbind",
    "unflatten", "vstack",
]
