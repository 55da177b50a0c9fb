"""The appendix `linalg` on PyTorch: functions of torch.linalg under the same names."""

from __future__ import annotations

import torch

from .tensor import native, refusing

_NAMES = [
    "cholesky", "det", "eigh", "eigvalsh", "inv", "inverse", "logabsdet", "lstsq", "matrix_norm", "matrix_power",
    "matrix_rank", "multi_dot", "norm", "pinv", "qr", "slogdet", "solve", "solved", "svd", "svdvals", "vector_norm",
]
globals().update({name: refusing(getattr(torch.linalg, name)) for name in _NAMES if hasattr(torch.linalg, name)})
inverse = refusing(torch.linalg.inv)


@native
def solved(a, b, /):
    return torch.linalg.solve(a, b)


@native
def det(x, /):
    return torch.linalg.det(x)


@native
def logabsdet(x, /):
    return torch.linalg.slogdet(x)[1]


@native
def cholesky(x, /):
    return torch.linalg.cholesky(x)

__all__ = [*_NAMES]
