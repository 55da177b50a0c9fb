"""The appendix `products` on PyTorch: functions of torch under the same names."""

from __future__ import annotations

import torch

from .tensor import refusing

_NAMES = [
    "addmm", "addmv", "addr", "baddbmm", "bmm", "cdist", "cosine_similarity", "cross", "dot", "einsum", "ger", "inner",
    "kron", "mm", "mv", "norm", "normalize", "outer", "pairwise_distance", "spmm", "tensordot", "vdot",
]
globals().update({name: refusing(getattr(torch, name)) for name in _NAMES if hasattr(torch, name)})

normalize = refusing(torch.nn.functional.normalize)


@refusing
def sparse_coo_tensor(indices, values, size=None, *, dtype=None):
    return torch.sparse_coo_tensor(torch.as_tensor(indices), values, size, dtype=dtype).to_dense()


__all__ = [*_NAMES, "sparse_coo_tensor"]
