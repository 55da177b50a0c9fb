"""The appendix of chapter 04 on PyTorch: torch.nn.init."""

from __future__ import annotations

import functools

from torch.nn import init
from torch.nn.init import calculate_gain, constant_, dirac_, eye_, ones_, zeros_

from .tensor import chance


def _drawn(function):
    """A function of torch.nn.init that draws its chance from the generator of chapter 01."""

    @functools.wraps(function)
    def filling(tensor, *args, **options):
        chance()
        return function(tensor, *args, **options)

    return filling


uniform_, normal_ = _drawn(init.uniform_), _drawn(init.normal_)
xavier_normal_, xavier_uniform_ = _drawn(init.xavier_normal_), _drawn(init.xavier_uniform_)
kaiming_normal_, kaiming_uniform_ = _drawn(init.kaiming_normal_), _drawn(init.kaiming_uniform_)
trunc_normal_, orthogonal_, sparse_ = _drawn(init.trunc_normal_), _drawn(init.orthogonal_), _drawn(init.sparse_)

__all__ = [
    "calculate_gain", "constant_", "dirac_", "eye_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_",
    "orthogonal_", "sparse_", "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_", "zeros_",
]
