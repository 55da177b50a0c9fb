# # Upsampling
#
# An appendix of chapter 09: images at another size.

from __future__ import annotations

import math

import numpy as np

from tt_autograd import rule
from tt_spatial.common import floating, series, wide
from tt_spatial.pooling import spans_mean
from tt_tensor import Module, Tensor, primitive

# ## Which pixel
#
# For each row of the result, *upsampling* picks the nearest row or mixes the nearest two, and then we do the same for
# columns. Either way it is an index. Row $i$ looks at position $i / f$ if you give a factor, and otherwise at $i n /
# m$. In images we also use the latter for a side that keeps or doubles its size, whatever the factor. PyTorch computes
# that position in `float32`, and so do we: in `float64`, row 39 would come from row 29 if the factor is 1.3. The pixel
# that is "nearest" by these formulas is not always the nearest one, because they forget that a pixel has a middle. The
# mode "nearest-exact" looks at position $(i + 1/2) n / m$ instead.

_MIXED = {"linear": 3, "bilinear": 4, "trilinear": 5}  # the mode and its number of dimensions
_PICKED = ("nearest", "nearest-exact")


def interpolate(
    x: Tensor, size=None, scale_factor=None, mode: str = "nearest", align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Tensor:
    """Series (N, C, L), images (N, C, H, W) or volumes at another size, from either size or scale_factor: "nearest",
    "nearest-exact", "area" (means), or "linear", "bilinear", "trilinear" (with align_corners the corner pixels stay the
    corners). With recompute_scale_factor the factor is the quotient of the sizes. As torch.nn.functional.interpolate,
    without antialias. Raises ValueError for other modes and shapes."""
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate needs either size or scale_factor")
    _refuse_mode(x, mode, align_corners, antialias)
    sides, factors = x.shape[2:], _factors(scale_factor, x.shape)
    wanted = _sides(size if size is not None else tuple(int(n * f) for n, f in zip(sides, factors)), len(sides))
    if mode == "area":
        return _means(x, wanted)
    x = (x if mode in _PICKED else floating(x)).clone()
    for dim, (n, m, factor) in enumerate(zip(sides, wanted, factors), 2):
        factor = None if recompute_scale_factor else factor
        if mode in _PICKED:
            factor = None if mode == "nearest" and x.ndim == 4 and m in (n, 2 * n) else factor
            x = mix(x, dim=dim, low=_nearest(n, m, factor, mode), weight=np.zeros(m, np.float32))
        elif n != m:
            low, weight = _between(n, m, factor, align_corners, x.dtype)
            x = mix(x, dim=dim, low=low, weight=weight)
    return x


# Each mode takes series, images or volumes, and we refuse the rest.


def _refuse_mode(x, mode, align_corners, antialias):
    known = (*_PICKED, "area", *_MIXED)
    if mode not in known or antialias:
        raise ValueError(f"modes are {', '.join(known)}, without antialias; not {mode!r}, antialias={antialias}")
    if mode not in _MIXED and align_corners:
        raise ValueError(f'align_corners is for "linear", "bilinear" and "trilinear"; "{mode}" mixes no pixels')
    dimensions = (_MIXED[mode],) if mode in _MIXED else (3, 4) if mode == "area" else (3, 4, 5)
    if x.ndim not in dimensions or 0 in x.shape[1:]:
        takes = ", ".join({3: "(N, C, L)", 4: "(N, C, H, W)", 5: "(N, C, D, H, W)"}[n] for n in dimensions)
        raise ValueError(f'interpolate, mode="{mode}", takes {takes}, not shape {x.shape}')


def _means(x, wanted):
    if x.ndim == 3:
        return spans_mean(series("interpolate", floating(x)), size=(1, *wanted)).squeeze(-2)
    return spans_mean(floating(x), size=wanted)


# You may give the size, or the factor, as one number or as one for each side.


def _factors(scale_factor, shape):
    sides = len(shape) - 2
    factors = tuple(scale_factor) if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * sides
    numbers = [isinstance(f, (int, float, np.number)) and 0 < f < math.inf for f in factors]
    if scale_factor is not None and not (all(numbers) and len(factors) == sides):
        raise ValueError(
            f"scale_factor, for shape {shape}, is a positive number, or {sides} of them; it is {scale_factor!r}"
        )
    return factors


def _sides(size, count):
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size,) * count
    if len(sides) != count or not all(isinstance(m, (int, np.integer)) and m > 0 for m in sides):
        raise ValueError(f"the size is an integer of at least 1, or one for each of {count} sides; it is {size!r}")
    return sides


# Here are the formulas of the first paragraph: the step from one position to the next, the nearest pixel, and the two
# pixels to mix, with the weight of the second.


def _step(n, m, factor, dtype):
    return dtype(1 / factor) if factor else dtype(n) / dtype(m)


def _nearest(n, m, factor, mode):
    """The index of the pixel for each of m results."""
    middle = np.float32(0.5 if mode == "nearest-exact" else 0)
    places = (np.arange(m, dtype=np.float32) + middle) * _step(n, m, factor, np.float32)
    return np.minimum(places.astype(np.int64), n - 1)


def _between(n, m, factor, align_corners, dtype):
    """The index of the first of the two pixels that each of m results is between, and the weight of the second."""
    kind = wide(dtype).type
    if align_corners:
        places = np.arange(m, dtype=kind) * (kind(n - 1) / kind(m - 1) if m > 1 else kind(0))
    else:
        places = np.maximum((np.arange(m, dtype=kind) + kind(0.5)) * _step(n, m, factor, kind) - kind(0.5), 0)
    low = np.minimum(places.astype(np.int64), n - 1)
    return low, np.where(low < n - 1, np.clip(places - low, 0, 1), kind(0))


# One primitive mixes along one dimension, and its transpose hands the gradient back. A pixel of weight 0 takes no part,
# even if it is infinite, and so receives a gradient of 0 even if the gradient is infinite.


@primitive(cost=lambda out, x, **how: 2 * out.size)
def mix(x, /, dim, low, weight):
    """Along `dim`, (1 - weight) * x[low] + weight * x[low + 1]."""
    first = x[(slice(None),) * dim + (low,)]
    if not weight.any():
        return first
    second = x[(slice(None),) * dim + (np.minimum(low + 1, x.shape[dim] - 1),)]
    weight = weight.reshape(-1, *[1] * (x.ndim - 1 - dim))
    mixed = first * (1 - weight)
    mixed += np.multiply(second, weight, out=np.zeros_like(mixed), where=weight > 0)
    return mixed.astype(x.dtype, copy=False)


@primitive
def unmix(g, /, n, dim, low, weight):
    """The gradient of `mix` at its input, which had n elements along `dim`."""
    gradients = np.moveaxis(g, dim, 0)
    out = np.zeros((n, *gradients.shape[1:]), wide(g.dtype))
    for place, part, gradient in zip(low, weight, gradients):
        out[place] += gradient * (1 - part)
        if part > 0:
            out[place + 1] += gradient * part
    return np.moveaxis(out, 0, dim).astype(g.dtype)


rule(mix, lambda g, out, x, dim, **how: unmix(g, n=x.shape[dim], dim=dim, **how))
rule(unmix, lambda h, out, g, n, **how: mix(h, **how))


# As modules, with PyTorch's options.

_UPSAMPLING = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")


class Upsample(Module):
    """interpolate as a module."""

    def __init__(
        self, size=None, scale_factor=None, mode: str = "nearest", align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ):
        super().__init__()
        self.size, self.scale_factor, self.mode, self.align_corners = size, scale_factor, mode, align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, x):
        return interpolate(
            x, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self):
        return ", ".join(f"{name}={value!r}" for name in _UPSAMPLING if (value := getattr(self, name)))


# Two older names choose a mode.


class UpsamplingNearest2d(Upsample):
    """Upsample of images, mode "nearest"."""

    def __init__(self, size=None, scale_factor=None):
        super().__init__(size, scale_factor)


class UpsamplingBilinear2d(Upsample):
    """Upsample of images, mode "bilinear", with align_corners."""

    def __init__(self, size=None, scale_factor=None):
        super().__init__(size, scale_factor, "bilinear", True)


# An image of two by two pixels shows three of the modes: each pixel twice, a mean between two, and the mean of all.


def check_sizes():
    x = Tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert interpolate(x, size=4)[0, 0, 0].tolist() == [1, 1, 2, 2]
    assert interpolate(x, size=3, mode="bilinear", align_corners=True)[0, 0, 1].tolist() == [2, 2.5, 3]
    assert interpolate(x, size=1, mode="area").item() == 2.5


__all__ = ["Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d", "interpolate", "mix", "unmix"]
