"""The appendix `counting` on PyTorch: functions of torch under the same names."""

from __future__ import annotations

import torch

from .tensor import native, refusing

_NAMES = [
    "aminmax", "bincount", "bucketize", "count_nonzero", "cummax", "cummin", "cumprod", "diff", "histc", "isin",
    "kthvalue", "logcumsumexp", "median", "mode", "msort", "nanmean", "nanmedian", "nansum", "quantile",
    "running_argmax", "searchsorted", "std_mean", "unique", "unique_consecutive", "var_mean",
]
globals().update({name: refusing(getattr(torch, name)) for name in _NAMES if hasattr(torch, name)})


@native
def cumprod(x, /, dim):
    return torch.cumprod(x, dim)


@native
def logcumsumexp(x, /, dim):
    return torch.logcumsumexp(x, dim)


@native
def running_argmax(x, /, dim):
    return torch.cummax(x, dim)[1]

__all__ = [*_NAMES]
