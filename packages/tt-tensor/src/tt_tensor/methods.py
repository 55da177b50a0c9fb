# # Methods
#
# An appendix of chapter 02, and the shortest. PyTorch's users write `x.exp()` and `x.sum(1)` as often as `exp(x)` and
# `sum(x, 1)`. Here are the methods, a line for each; what they do is written in the chapter and in `more_ops`. They
# come in two layers, of which the class `Tensor` is made.

from __future__ import annotations

import functools
import inspect

import tt_tensor as tt  # looked up when a method is called, by which time the package is complete

# ## Element by element


class LongTail:
    """Methods whose operations are written in the appendix `more_ops`."""

    __slots__ = ()

    def exp(self): return tt.exp(self)
    def log(self): return tt.log(self)
    def sqrt(self): return tt.sqrt(self)
    def abs(self): return tt.abs(self)
    def sign(self): return tt.sign(self)
    def sin(self): return tt.sin(self)
    def cos(self): return tt.cos(self)
    def tanh(self): return tt.tanh(self)
    def erf(self): return tt.erf(self)
    def floor(self): return tt.floor(self)
    def ceil(self): return tt.ceil(self)
    def round(self): return tt.round(self)
    def isnan(self): return tt.isnan(self)
    def isinf(self): return tt.isinf(self)
    def isfinite(self): return tt.isfinite(self)
    def pow(self, exponent): return tt.pow(self, exponent)
    def matmul(self, other): return tt.matmul(self, other)
    def clip(self, min=None, max=None): return tt.clip(self, min=min, max=max)
    def clamp(self, min=None, max=None): return tt.clip(self, min=min, max=max)
    def masked_fill(self, mask, value): return tt.masked_fill(self, mask, value)
    def maximum(self, other): return tt.maximum(self, other)
    def minimum(self, other): return tt.minimum(self, other)


# ## Many numbers to few
#
# Reductions take `dim` and `keepdim`; the others in this layer pick, cut or sort along a dimension. Whoever comes from
# NumPy says `axis` and `keepdims`. PyTorch takes both pairs of names, and so do these methods.


def numpy_names(options):
    """Options with NumPy's names axis and keepdims turned into PyTorch's dim and keepdim."""
    for theirs, ours in (("axis", "dim"), ("keepdims", "keepdim")):
        if theirs in options:
            if ours in options:
                raise TypeError(f"{theirs} and {ours} are two names of one thing; give one of them")
            options = {ours if name == theirs else name: value for name, value in options.items()}
    return options


# For variance and deviation, PyTorch has two spellings of Bessel's correction. `unbiased=False` is the older one, and
# it may come first: in `x.var(False)`, `False` is not a dimension.


def torch_names(function):
    """A reduction that also answers to axis= and keepdims=, and to unbiased= if it has a correction."""
    corrected = "correction" in inspect.signature(function).parameters

    @functools.wraps(function)
    def reduction(x, *args, **options):
        options = numpy_names(options)
        if corrected and args and isinstance(args[0], bool):
            options, args = {"unbiased": args[0], **options}, args[1:]
        if corrected and "unbiased" in options:
            if "correction" in options or len(args) > 1:
                raise TypeError("unbiased and correction say the same thing; give one of them")
            options["correction"] = int(options.pop("unbiased"))
        return function(x, *args, **options)

    return reduction


class Reducing:
    """Many numbers to few; `dim` and `keepdim` as in `sum`."""

    __slots__ = ()

    @torch_names
    def sum(self, dim=None, keepdim=False): return tt.sum(self, dim=dim, keepdim=keepdim)
    @torch_names
    def mean(self, dim=None, keepdim=False): return tt.mean(self, dim, keepdim)
    @torch_names
    def var(self, dim=None, correction=1, keepdim=False): return tt.var(self, dim, correction, keepdim)
    @torch_names
    def std(self, dim=None, correction=1, keepdim=False): return tt.std(self, dim, correction, keepdim)
    @torch_names
    def prod(self, dim=None, keepdim=False): return tt.prod(self, dim=dim, keepdim=keepdim)
    @torch_names
    def max(self, dim=None, keepdim=False): return tt.max(self, dim, keepdim)
    @torch_names
    def min(self, dim=None, keepdim=False): return tt.min(self, dim, keepdim)
    @torch_names
    def amax(self, dim=None, keepdim=False): return tt.amax(self, dim=dim, keepdim=keepdim)
    @torch_names
    def amin(self, dim=None, keepdim=False): return tt.amin(self, dim=dim, keepdim=keepdim)
    @torch_names
    def argmax(self, dim=None, keepdim=False): return tt.argmax(self, dim=dim, keepdim=keepdim)
    @torch_names
    def argmin(self, dim=None, keepdim=False): return tt.argmin(self, dim=dim, keepdim=keepdim)
    @torch_names
    def any(self, dim=None, keepdim=False): return tt.any(self, dim=dim, keepdim=keepdim)
    @torch_names
    def all(self, dim=None, keepdim=False): return tt.all(self, dim=dim, keepdim=keepdim)
    @torch_names
    def cumsum(self, dim): return tt.cumsum(self, dim=dim)
    @torch_names
    def logsumexp(self, dim, keepdim=False): return tt.logsumexp(self, dim, keepdim)
    def gather(self, dim, index): return tt.gather(self, dim, index)
    def split(self, size, dim=0): return tt.split(self, size, dim)
    def chunk(self, chunks, dim=0): return tt.chunk(self, chunks, dim)
    def tril(self, diagonal=0): return tt.tril(self, diagonal=diagonal)
    def triu(self, diagonal=0): return tt.triu(self, diagonal=diagonal)
    def sort(self, dim=-1, descending=False): return tt.sort(self, dim, descending)
    def argsort(self, dim=-1, descending=False): return tt.argsort(self, dim, descending)
    def topk(self, k, dim=-1): return tt.topk(self, k, dim)


__all__ = ["LongTail", "Reducing"]
