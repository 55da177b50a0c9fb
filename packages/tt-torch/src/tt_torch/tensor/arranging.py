"""The appendix `arranging` on PyTorch: functions of torch under the same names."""

from __future__ import annotations

import torch

from .tensor import refusing

_NAMES = [
    "argwhere", "atleast_1d", "atleast_2d", "block_diag", "broadcast_tensors", "broadcast_to", "cartesian_prod",
    "column_stack", "combinations", "diag", "diag_embed", "diagonal", "dstack", "fliplr", "flipud", "hstack",
    "index_add", "index_copy", "index_fill", "index_select", "masked_scatter", "masked_select", "meshgrid", "moveaxis",
    "movedim", "narrow", "ravel", "repeat_interleave", "roll", "rot90", "row_stack", "scatter", "scatter_add", "select",
    "swapaxes", "swapdims", "t", "take", "tensor_split", "tile", "trace", "tril_indices", "triu_indices", "unbind",
    "unflatten", "vstack",
]
globals().update({name: refusing(getattr(torch, name)) for name in _NAMES if hasattr(torch, name)})

__all__ = [*_NAMES]
