# # More products
#
# An appendix of chapter 02. PyTorch has a dozen names for products. All of them are `matmul` of some arrangement, and
# the longest part of this page is the function that makes the other names superfluous: `einsum`.

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tt_tensor.linalg import vector_norm
from tt_tensor.tensor import Tensor, add, broadcast_shape, matmul, place, sum, tensor

# ## Of vectors and matrices
#
# Why would you use `mm` where `matmul` works? Because it refuses everything else. A program that says `bmm` means
# stacks of matrices, and should get an error for a wrong shape instead of a broadcast.


def _demand(name: str, wanted: tuple[int, ...], *operands: Tensor) -> None:
    if tuple(x.ndim for x in operands) != wanted:
        shapes = " and ".join(str(x.shape) for x in operands)
        numbers = " and ".join(map(str, wanted))
        raise ValueError(f"{name} takes operands of {numbers} dimensions; these have the shapes {shapes}. See matmul")


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices, (n, m) and (m, p)."""
    _demand("mm", (2, 2), input, mat2)
    return matmul(input, mat2)


# PyTorch can store a matrix of mostly zeros as a list of positions and values (a *sparse* matrix) and multiply it by
# `spmm`. We store all elements, so the results are the same, but we save no memory.

spmm = mm


def sparse_coo_tensor(indices, values, size: Sequence[int] | None = None, *, dtype=None) -> Tensor:
    """A dense tensor of shape `size` with values (n) added at the positions in the columns of `indices` (d, n).

    Raises ValueError for indices, values and a size that do not fit."""
    at = np.asarray(indices.numpy() if isinstance(indices, Tensor) else indices)
    values = values if isinstance(values, Tensor) else tensor(values)
    shape = tuple(at.max(axis=1) + 1) if size is None else tuple(size)
    if at.ndim != 2 or values.shape != at.shape[1:] or len(shape) != len(at):
        raise ValueError(
            f"sparse_coo_tensor: indices of shape {at.shape} and values of {values.shape} do not fit into {shape}"
        )
    return place(values.to(dtype), index=tuple(at), shape=shape)


# The others check the number of dimensions and call `matmul`.


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of two stacks of matrices, (b, n, m) and (b, m, p). Raises ValueError if b differs."""
    _demand("bmm", (3, 3), input, mat2)
    if input.shape[0] != mat2.shape[0]:
        raise ValueError(f"bmm takes as many matrices on both sides, not {input.shape[0]} and {mat2.shape[0]}")
    return matmul(input, mat2)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix (n, m) and a vector (m)."""
    _demand("mv", (2, 1), input, vec)
    return matmul(input, vec)


def dot(input: Tensor, other: Tensor) -> Tensor:
    """The sum of the products of two vectors' elements."""
    _demand("dot", (1, 1), input, other)
    return matmul(input, other)


vdot = dot


# `outer` multiplies all pairs of elements. `inner` sums products along the last dimension of both.


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """Each element of one vector times each of another, (n) and (m) -> (n, m)."""
    _demand("outer", (1, 1), input, vec2)
    return input.unsqueeze(1) * vec2.unsqueeze(0)


ger = outer


def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sums of products along the last dimension of both."""
    return input * other if not (input.ndim and other.ndim) else tensordot(input, other, ([-1], [-1]))


# BLAS, the library of 1979 under NumPy and PyTorch, has the product and a sum in one call, and its signature survives.
# `addmm` is `beta * input + alpha * (mat1 @ mat2)`.


def _added(input: Tensor, product: Tensor, beta: float, alpha: float) -> Tensor:
    product = product if alpha == 1 else product * alpha
    if beta == 0:
        return product  # input is ignored, be it nan
    return add(input if beta == 1 else input * beta, product)


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (mat1 @ mat2), for matrices."""
    return _added(input, mm(mat1, mat2), beta, alpha)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (mat @ vec), for a matrix and a vector."""
    return _added(input, mv(mat, vec), beta, alpha)


def addr(input: Tensor, vec1: Tensor, vec2: Tensor, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * outer(vec1, vec2)."""
    return _added(input, outer(vec1, vec2), beta, alpha)


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (batch1 @ batch2), for stacks of matrices."""
    return _added(input, bmm(batch1, batch2), beta, alpha)


# ## Einsum
#
# `einsum("bij,bjk->bik", x, y)` gives every dimension a letter. We sum over a letter that both operands have and the
# result lacks. A letter that all three have is a batch dimension. The others are rows and columns. So a product of two
# operands is one matrix product, once we have brought their dimensions into this order:
#
# | | letters | shape |
# | --- | --- | --- |
# | left operand | both and kept, left only, both and summed | (batch..., rows, inner) |
# | right operand | both and kept, both and summed, right only | (batch..., inner, columns) |
#
# Because we build it from `permute`, `reshape` and `matmul`, the derivative comes for free. Beside each tensor we keep
# its letters, as a list of names.


def _product(x: Tensor, a: list, y: Tensor, b: list, kept: set) -> tuple[Tensor, list]:
    x, a = _summed(x, a, kept.union(b))
    y, b = _summed(y, b, kept.union(a))
    batch, inner = [n for n in a if n in b and n in kept], [n for n in a if n in b and n not in kept]
    rows, columns = [n for n in a if n not in b], [n for n in b if n not in a]
    sizes = {**dict(zip(a, x.shape)), **dict(zip(b, y.shape))}
    left = _laid(x, a, sizes, batch, rows, inner)
    right = _laid(y, b, sizes, batch, inner, columns)
    product = matmul(left, right) if inner else left * right
    names = batch + rows + columns
    return product.reshape(tuple(sizes[n] for n in names)), names


def _laid(x: Tensor, names: list, sizes: dict, batch: list, first: list, second: list) -> Tensor:
    """x with its dimensions in the order batch, first, second, and the last two groups joined to one dimension each."""
    ordered = x.permute(tuple(names.index(n) for n in batch + first + second))
    joined = (math.prod(sizes[n] for n in group) for group in (first, second))
    return ordered.reshape((*(sizes[n] for n in batch), *joined))


def _summed(x: Tensor, names: list, kept: set) -> tuple[Tensor, list]:
    gone = tuple(d for d, n in enumerate(names) if n not in kept)
    return (sum(x, dim=gone) if gone else x), [n for n in names if n in kept]


# We take in further operands from the left, one after the other. A letter that occurs twice in one operand, as in
# `"ii->"`, means the diagonal, which we pick first.


def einsum(equation: str, *operands: Any) -> Tensor:
    """Sums of products, by Einstein's convention: each operand's dimensions have letters, and letters that the result
    does not have are summed over. `...` stands for any dimensions; without `->` the result has the letters that occur
    once, in the order of the alphabet.

    Raises ValueError for letters that do not fit the operands."""
    operands = tuple(operands[0]) if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    terms, output = _names_of(equation, operands)
    sizes = _sizes_of(equation, operands, terms)
    pairs = [_spread(*_diagonal(x, names), sizes) for x, names in zip(operands, terms)]
    result, names = pairs[0]
    for i, (x, others) in enumerate(pairs[1:], start=2):
        result, names = _product(result, names, x, others, set(output).union(*(n for _, n in pairs[i:])))
    result, names = _summed(result, names, set(output))
    return result.permute(tuple(names.index(n) for n in output))


# The dimensions under `...` get negative numbers as names, counted from the right, so that they line up as in
# broadcasting.


def _names_of(equation: str, operands: Sequence[Tensor]) -> tuple[list[list], list]:
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise ValueError(f"einsum: {equation!r} names {len(terms)} operands, but {len(operands)} were given")
    hidden = [x.ndim - len(term.replace("...", "")) for term, x in zip(terms, operands)]
    for term, count, x in zip(terms, hidden, operands):
        if count < 0 or (count and "..." not in term):
            raise ValueError(f"einsum: {term!r} does not name the dimensions of a tensor of shape {x.shape}")
    names = [_split(term, count) for term, count in zip(terms, hidden)]
    every = [n for group in names for n in group]
    dots = sorted({n for n in every if isinstance(n, int)})
    once = sorted(n for n in set(every) - set(dots) if every.count(n) == 1)
    output = _split(right, len(dots)) if arrow else [*dots, *once]
    if not set(output) <= set(every) or len(set(output)) < len(output):
        raise ValueError(f"einsum: the result of {equation!r} must name letters of the operands, each once")
    return names, output


def _split(term: str, count: int) -> list:
    before, dots, after = term.partition("...")
    if not (before + after).replace("_", "a").isalpha() and before + after:
        raise ValueError(f"einsum: {term!r} must be made of letters and '...'")
    return [*before, *(range(-count, 0) if dots else ()), *after]


# The sizes under one letter must agree, except that a size of 1 is repeated.


def _sizes_of(equation: str, operands: Sequence[Tensor], terms: list[list]) -> dict:
    sizes: dict = {}
    for x, names in zip(operands, terms):
        for name, n in zip(names, x.shape):
            if sizes.setdefault(name, n) == 1:
                sizes[name] = n
            elif n not in (1, sizes[name]):
                raise ValueError(
                    f"einsum: in {equation!r}, {name!r} has the sizes {sizes[name]} and {n}; they must be equal or 1"
                )
    return sizes


def _diagonal(x: Tensor, names: list) -> tuple[Tensor, list]:
    for name in dict.fromkeys(n for n in names if names.count(n) > 1):
        places = [d for d, n in enumerate(names) if n == name]
        x = x.permute((*places, *(d for d in range(x.ndim) if d not in places)))
        steps = list(range(x.shape[0]))
        if any(x.shape[d] != len(steps) for d in range(len(places))):
            raise ValueError(f"einsum: the dimensions {name!r} of one operand have different sizes")
        x, names = x[(steps,) * len(places)], [name, *(n for n in names if n != name)]
    return x, names


def _spread(x: Tensor, names: list, sizes: dict) -> tuple[Tensor, list]:
    shape = tuple(sizes[n] for n in names)
    return (x if x.shape == shape else x.expand(shape)), names


# `tensordot` does the same with numbers instead of letters: it sums over pairs of dimensions.


def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Sums of products over the last `dims` dimensions of a and the first of b, or over two lists of dimensions."""
    if isinstance(dims, int):
        dims = list(range(a.ndim - dims, a.ndim)), list(range(dims))
    of_a, of_b = ([d % x.ndim for d in ([part] if isinstance(part, int) else part)] for part, x in zip(dims, (a, b)))
    if [a.shape[d] for d in of_a] != [b.shape[d] for d in of_b]:
        raise ValueError(f"tensordot: shapes {a.shape} and {b.shape} differ along the dimensions {of_a} and {of_b}")
    left, right = list(range(a.ndim)), [a.ndim + d for d in range(b.ndim)]
    for one, other in zip(of_a, of_b):
        right[other] = one
    product, _ = _product(a, left, b, right, set(left).symmetric_difference(right))
    return product


def kron(input: Tensor, other: Tensor) -> Tensor:
    """Each element of input times all of other, as blocks."""
    ndim = max(input.ndim, other.ndim)
    a, b = ((1,) * (ndim - x.ndim) + x.shape for x in (input, other))
    blocks = input.reshape([n for size in a for n in (size, 1)]) * other.reshape([n for size in b for n in (1, size)])
    return blocks.reshape([m * n for m, n in zip(a, b)])


# The cross product is made for three dimensions only.


def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The vector at right angles to two vectors of three elements, along `dim`, or the first dimension of size 3."""
    shape = broadcast_shape(input.shape, other.shape)
    if dim is None:
        dim = next((d for d, n in enumerate(shape) if n == 3), 0)
    dim = dim % len(shape) if shape else 0
    if not shape or shape[dim] != 3:
        raise ValueError(f"cross needs a dimension of size 3; the shapes are {input.shape} and {other.shape}")
    x, y = input.expand(shape), other.expand(shape)
    ahead, behind = ((*[slice(None)] * dim, order) for order in ([1, 2, 0], [2, 0, 1]))
    return x[ahead] * y[behind] - x[behind] * y[ahead]


# ## Distances and angles


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0) -> Tensor:
    """The p-norms of the differences of each row of x1 (..., n, d) and each of x2 (..., m, d): (..., n, m)."""
    if x1.ndim < 2 or x2.ndim < 2 or x1.shape[-1] != x2.shape[-1]:
        raise ValueError(f"cdist takes rows of one length, (..., n, d) and (..., m, d), not {x1.shape} and {x2.shape}")
    return vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of x1 - x2 + eps along the last dimension."""
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along `dim`; a length below eps counts as eps."""
    return sum(normalize(x1, dim=dim, eps=eps) * normalize(x2, dim=dim, eps=eps), dim=dim)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """input divided by its p-norm along `dim`, so that the norm is 1; a norm below eps counts as eps."""
    return input / vector_norm(input, p, dim, True).clip(min=eps)


def norm(input: Tensor, p: Any = "fro", dim=None, keepdim: bool = False, dtype=None) -> Tensor:
    """The p-norm over all elements or over `dim`; "fro" is the length, p = 2. Raises ValueError for another text."""
    if isinstance(p, str) and p != "fro":
        raise ValueError(f'norm: p is a number or "fro", not {p!r}; for "nuc" there is linalg.matrix_norm')
    return vector_norm(input, 2 if p in ("fro", None) else p, dim, keepdim, dtype)


__all__ = [
    "addmm", "addmv", "addr", "baddbmm", "bmm", "cdist", "cosine_similarity", "cross", "dot", "einsum", "ger", "inner",
    "kron", "mm", "mv", "norm", "normalize", "outer", "pairwise_distance", "sparse_coo_tensor", "spmm",
    "tensordot", "vdot",
]
