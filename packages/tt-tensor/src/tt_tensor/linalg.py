# # Linear algebra
#
# An appendix of chapter 02, and the counterpart of `torch.linalg`: lengths of vectors, equations, and decompositions of
# matrices. Lengths, `solve`, `det`, `slogdet`, `inv` and `cholesky` have derivatives. The decompositions do not, and
# they say so when you would need one.
#
# The names live in this module, as in PyTorch: `linalg.solve(a, b)`.

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import numpy as np

from tt_tensor.arguments import as_floats
from tt_tensor.methods import torch_names
from tt_tensor.more_ops import abs, amax, amin, eye, pow, sqrt, where
from tt_tensor.tensor import (
    Tensor, float16, float32, from_numpy, matmul, primitive, quiet, sum,
)

# ## Lengths
#
# The length (*norm*) of a vector is a square root, and a root is infinitely steep at 0. A vector of zeros can only
# grow, in any direction. We set the slope there to 0, as PyTorch does, so we take the root of the others only.


def _root_of(squares: Tensor) -> Tensor:
    nothing = squares == 0
    return where(nothing, 0.0, sqrt(where(nothing, 1.0, squares)))


@torch_names
def vector_norm(x: Tensor, ord: float = 2, dim=None, keepdim: bool = False, dtype=None) -> Tensor:
    """The p-norm over all elements or over `dim`: 2 for the length, 1 for the sum of sizes, inf for the largest.

    With ord 0 the elements that are not zero are counted."""
    x = x if dtype is None else x.to(dtype)
    if x.dtype.kind != "f":
        raise TypeError(f"a norm is taken of floats, not of {x.dtype}; use .float(), or give a dtype")
    if x.dtype == float16:
        return vector_norm(x.to(float32), ord, dim, keepdim).to(float16)
    if ord == 2:
        return _root_of(sum(x * x, dim=dim, keepdim=keepdim))
    if ord in (math.inf, -math.inf):
        return (amax if ord > 0 else amin)(abs(x), dim=dim, keepdim=keepdim)
    if ord == 0:
        return sum((x != 0).to(x.dtype), dim=dim, keepdim=keepdim)
    powers = sum(abs(x) if ord == 1 else pow(abs(x), float(ord)), dim=dim, keepdim=keepdim)
    return powers if ord == 1 else pow(powers, 1.0 / ord)


# A matrix has other norms besides the length of all its elements ("fro"). We offer its largest sum of a column or row,
# and the norms of its singular values, which have no derivative here.


@torch_names
def matrix_norm(A: Tensor, ord: Any = "fro", dim=(-2, -1), keepdim: bool = False, dtype=None) -> Tensor:
    """The norm of a matrix, or of a stack of them: "fro", "nuc", 2, -2 (by singular values), 1, -1 (of columns), inf,
    -inf (of rows). Raises ValueError for another ord."""
    rows, columns = (d % A.ndim for d in dim)
    if ord == "fro":
        return vector_norm(A, 2, (rows, columns), keepdim, dtype)
    if ord in (1, -1, math.inf, -math.inf):
        added, other = (rows, columns) if ord in (1, -1) else (columns, rows)
        sums = vector_norm(A, 1, added, True, dtype)
        result = (amax if ord > 0 else amin)(sums, dim=other, keepdim=True)
    elif ord in ("nuc", 2, -2):
        values = svdvals(A.permute(*(d for d in range(A.ndim) if d not in (rows, columns)), rows, columns))
        chosen = {"nuc": sum, 2: amax, -2: amin}[ord](values, dim=-1)
        result = chosen.reshape(tuple(1 if d in (rows, columns) else n for d, n in enumerate(A.shape)))
    else:
        raise ValueError(f'matrix_norm: ord is "fro", "nuc", 1, -1, 2, -2, inf or -inf, not {ord!r}')
    kept = tuple(n for d, n in enumerate(A.shape) if d not in (rows, columns))
    return result if keepdim else result.reshape(kept)


@torch_names
def norm(x: Tensor, ord: Any = None, dim=None, keepdim: bool = False, dtype=None) -> Tensor:
    """The length of all elements, the norm of vectors along one `dim`, or of matrices along two."""
    pair = isinstance(dim, (tuple, list)) and len(dim) == 2
    if ord is not None and (pair or (dim is None and (isinstance(ord, str) or x.ndim == 2))):
        return matrix_norm(x, ord, dim or (-2, -1), keepdim, dtype)
    return vector_norm(x, 2 if ord is None else ord, dim, keepdim, dtype)


# ## Equations
#
# Solving $A X = B$ is a primitive, and `inv` solves $A X = I$. The derivative needs only another equation (`more_rules`
# has it). NumPy must know whether $B$ is a vector; for us, it is one if it has one dimension less than $A$.


@primitive(cost=lambda out, a, b: a.shape[-1] * (a.size + out.size))
def solved(a, b, /):
    """The matrices X with a @ X = b, for square matrices a (..., n, n) and b (..., n, k)."""
    a, b = as_floats(_square(a)), as_floats(b)
    try:
        return np.linalg.solve(a.astype(_in(a)), b.astype(_in(b))).astype(b.dtype)
    except np.linalg.LinAlgError:
        raise ValueError("the matrix is singular, so the equations have no single solution") from None


def _square(x):
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ValueError("a square matrix, or a stack of them, is needed")
    return x


def _in(x):  # NumPy has no linear algebra for float16
    return np.promote_types(x.dtype, float32) if x.dtype.kind == "f" else float32


def solve(A: Tensor, B: Tensor) -> Tensor:
    """X with A @ X = B, for square matrices A. Raises ValueError for a singular A."""
    vector = B.ndim == 1 or (B.ndim == A.ndim - 1 and B.shape == A.shape[:-1])
    return solved(A, B.unsqueeze(-1)).squeeze(-1) if vector else solved(A, B)


def inv(A: Tensor) -> Tensor:
    """The inverse of square matrices. Raises ValueError for a singular one."""
    return solved(A, eye(A.shape[-1] if A.ndim else 0, dtype=A.dtype))


inverse = inv

# ## Determinants
#
# A determinant underflows or overflows soon, so we also offer the logarithm of its size, with the sign apart.


@primitive(cost=lambda out, x: x.size * x.shape[-1])
def det(x, /):
    """The determinant of square matrices."""
    x = as_floats(_square(x))
    with quiet():
        return np.asarray(np.linalg.det(x.astype(_in(x)))).astype(x.dtype)


@primitive(cost=lambda out, x: x.size * x.shape[-1])
def logabsdet(x, /):
    """The logarithm of the absolute value of the determinant; -inf for a singular matrix."""
    x = as_floats(_square(x))
    with quiet():
        return np.asarray(np.linalg.slogdet(x.astype(_in(x)))[1]).astype(x.dtype)


LogDeterminant = namedtuple("LogDeterminant", ["sign", "logabsdet"])


def slogdet(A: Tensor) -> LogDeterminant:
    """The sign of the determinant and the logarithm of its size."""
    sign = np.linalg.slogdet(A.numpy().astype(_in(A)))[0] if A.ndim > 1 else 0.0
    logarithm = logabsdet(A)
    return LogDeterminant(from_numpy(np.asarray(sign, logarithm.dtype)), logarithm)


# ## Decompositions
#
# Cholesky's decomposition writes a symmetric matrix without negative directions, such as a covariance, as $L L^T$ with
# a lower triangle $L$. It is a square root for matrices.


@primitive(cost=lambda out, x: x.size * x.shape[-1])
def cholesky(x, /):
    """The lower triangle L with L @ L.mT = x. Raises ValueError if x is not positive definite."""
    x = as_floats(_square(x))
    try:
        return np.linalg.cholesky(x.astype(_in(x))).astype(x.dtype)
    except np.linalg.LinAlgError:
        raise ValueError("the matrix is not positive definite") from None


# The others come from NumPy, which calls LAPACK. `_of` refuses where a derivative would be lost.


def _of(A: Tensor, function: Any, *options: Any) -> Any:
    """The result of a function of np.linalg for A: a tensor of A's dtype, or several."""
    if A[..., :0].requires_grad:
        name = function.__name__
        raise RuntimeError(f"linalg.{name} has no derivative here; call it under no_grad(), or on A.detach()")
    result = function(A.numpy().astype(_in(A)), *options)
    parts = [from_numpy(np.asarray(part, as_floats(A.numpy()[:0]).dtype)) for part in _listed(result)]
    return parts if isinstance(result, tuple) else parts[0]


def _listed(result: Any) -> list:
    return list(result) if isinstance(result, tuple) else [result]


Svd = namedtuple("Svd", ["U", "S", "Vh"])
Qr = namedtuple("Qr", ["Q", "R"])
Eigh = namedtuple("Eigh", ["eigenvalues", "eigenvectors"])
LeastSquares = namedtuple("LeastSquares", ["solution", "residuals", "rank", "singular_values"])


# The *singular value decomposition* writes any matrix as a rotation, a scaling and another rotation.


def svd(A: Tensor, full_matrices: bool = True) -> Svd:
    """U, S, Vh with A = U @ diag(S) @ Vh; S falls. Has no derivative."""
    return Svd(*_of(A, np.linalg.svd, full_matrices))


def svdvals(A: Tensor) -> Tensor:
    """The singular values of A, the largest first. Has no derivative."""
    return _of(A, np.linalg.svd, False, False)


def qr(A: Tensor, mode: str = "reduced") -> Qr:
    """Q with orthogonal columns and an upper triangle R with A = Q @ R; mode "reduced" or "complete". Has no
    derivative."""
    return Qr(*_of(A, np.linalg.qr, mode))


# A symmetric matrix has real *eigenvalues* and orthogonal eigenvectors.


def eigh(A: Tensor, UPLO: str = "L") -> Eigh:
    """Eigenvalues, the smallest first, and eigenvectors (columns) of symmetric matrices. Has no derivative."""
    return Eigh(*_of(A, np.linalg.eigh, UPLO))


def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of symmetric matrices, the smallest first. Has no derivative."""
    return _of(A, np.linalg.eigvalsh, UPLO)


# Where a system of equations has no solution, or many, these functions find the best one.


def pinv(A: Tensor, rcond: float = 1e-15) -> Tensor:
    """The pseudoinverse, with which pinv(A) @ b solves A x = b as well as possible. Has no derivative."""
    return _of(A, np.linalg.pinv, rcond)


def lstsq(A: Tensor, B: Tensor) -> LeastSquares:
    """The X for which A @ X is nearest to B; of matrices, not of stacks. Has no derivative."""
    solution, residuals, rank, values = _of(A, np.linalg.lstsq, B.numpy().astype(_in(B)), None)
    return LeastSquares(solution, residuals, rank.long(), values)


def matrix_rank(A: Tensor, tol: float | None = None) -> Tensor:
    """The number of singular values that are not zero, up to rounding or `tol`."""
    return from_numpy(np.asarray(np.linalg.matrix_rank(A.numpy().astype(_in(A)), tol)))


# ## Powers
#
# $A^{13}$ takes five products instead of twelve. We square again and again, and multiply the squares that belong to the
# binary digits of 13.


def matrix_power(A: Tensor, n: int) -> Tensor:
    """A @ A @ ... (n times) for square matrices; the identity for n = 0, powers of the inverse for n < 0."""
    if n < 0:
        return matrix_power(inv(A), -n)
    result, square = eye(A.shape[-1], dtype=A.dtype).expand(*A.shape), A
    while n:
        result = matmul(result, square) if n & 1 else result
        square, n = (matmul(square, square) if n > 1 else square), n >> 1
    return result


def multi_dot(tensors) -> Tensor:
    """The product of several matrices, from left to right."""
    first, *others = tensors
    for other in others:
        first = matmul(first, other)
    return first


__all__ = [
    "cholesky", "det", "eigh", "eigvalsh", "inv", "inverse", "logabsdet", "lstsq", "matrix_norm", "matrix_power",
    "matrix_rank", "multi_dot", "norm", "pinv", "qr", "slogdet", "solve", "solved", "svd", "svdvals", "vector_norm",
]
