"""The appendix `drawing` on PyTorch: draws whose seed comes from our generator, and words about tensors."""

from __future__ import annotations

import numpy as np
import torch

from .tensor import Tensor, chance, numpy_dtype, ours, refusing, torch_dtype

__all__ = [
    "as_tensor", "asarray", "bernoulli", "can_cast", "clone", "finfo", "iinfo", "is_floating_point", "is_nonzero",
    "is_tensor", "multinomial", "normal", "numel", "poisson", "promote_types", "result_type",
]


def _drawing(function):
    def draw(*args, **options):
        chance()
        return ours(refusing(function)(*args, **options))

    return draw


bernoulli, multinomial, poisson = map(_drawing, (torch.bernoulli, torch.multinomial, torch.poisson))
_normal = _drawing(torch.normal)


def normal(mean=0.0, std=1.0, size=None, dtype=None):
    """Normal random numbers with this mean and standard deviation."""
    return _normal(mean, std) if size is None else _normal(mean, std, size, dtype=torch_dtype(dtype))


def as_tensor(data, dtype=None):
    """A tensor of the data."""
    return ours(torch.as_tensor(data, dtype=torch_dtype(dtype)))


asarray = as_tensor
clone, numel, is_floating_point, is_nonzero = torch.clone, torch.numel, torch.is_floating_point, torch.is_nonzero
finfo, iinfo = np.finfo, np.iinfo


def is_tensor(obj):
    """Is it a Tensor?"""
    return isinstance(obj, Tensor)


def result_type(tensor1, tensor2):
    """The dtype of tensor1 + tensor2."""
    return numpy_dtype(torch.result_type(tensor1, tensor2))


def promote_types(type1, type2):
    """The dtype in which tensors of two dtypes meet."""
    return numpy_dtype(torch.promote_types(torch_dtype(type1), torch_dtype(type2)))


def can_cast(from_, to):
    """May the first dtype become the second without changing its kind?"""
    return torch.can_cast(torch_dtype(from_), torch_dtype(to))
