# # More spatial
#
# An appendix of chapter 09: what PyTorch's users expect besides the convolution of the chapter. We put together nearly
# all of it from parts that we have; a new primitive comes with its rule. (Pooling is in the appendix *Pooling*, and
# enlarging images in *Upsampling*.)

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

import tt_tensor as tt
from tt_autograd import rule
from tt_spatial.common import (
    channels_first, channels_last, images, layer_text, one_dtype, padded, pair, refuse_groups, refuse_misfits,
    series, single, size_of, sizes,
)  # fmt: skip
from tt_spatial.padding import MODES, known_mode, padded_for, repeated
from tt_spatial.spatial import (
    conv2d, convolution, max_unpool, taps, transposed_convolution, weight_convolution, winner,
)  # fmt: skip
from tt_tensor import Module, Parameter, Tensor, generator, primitive

# ## Derivatives of derivatives
#
# The three convolutions are linear in both of their inputs, and the derivatives of each are the other two. So we add
# two rows to the table, and derivatives of any order exist.

rule(
    transposed_convolution,
    lambda h, out, g, weight, size, **where: convolution(h, weight, **where),
    lambda h, out, g, weight, size, **where: weight_convolution(h, g, size=size_of(weight), **where),
)
rule(
    weight_convolution,
    lambda h, out, x, g, size, **where: transposed_convolution(g, h, size=size_of(x), **where),
    lambda h, out, x, g, size, **where: convolution(x, h, **where),
)

# `max_unpool`, the gradient of a pooling, is linear in `g`. Its transpose picks up what it puts down, so each of the
# two is the other's rule.


@primitive
def max_pick(h, x, largest, /, size, stride, padding, dilation):
    """From each window of h the number at the first place where x holds the window's largest one."""
    won, out = winner(x, largest, size, stride, padding, dilation), np.zeros(channels_last(largest).shape, h.dtype)
    for number, value in enumerate(taps(padded(h, padding), size, stride, dilation)):
        out = np.where(won == number, value, out)
    return channels_first(out)


rule(max_unpool, lambda h, out, g, x, largest, **where: max_pick(h, x, largest, **where), None, None)
rule(max_pick, lambda g, out, h, x, largest, **where: max_unpool(g, x, largest, **where), None, None)

# ## Padding
#
# To put zeros or another constant around an array, we place it into a larger one. The other three modes repeat elements
# that are there, so they are an index: which pixel goes to which position. (Convolution layers need these modes as
# well, so they are in the module `padding`.)


def pad(x: Tensor, padding: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """x with `padding` numbers more on each side, given as (left, right) of the last dimension, then of the one before
    it, and so on; as torch.nn.functional.pad. mode: "constant" (value, 0 unless given; in the dtype of x), "reflect",
    "replicate" or "circular". Negative numbers cut off.

    Raises ValueError for an unknown mode, for more than there is to repeat, and for a value that x cannot hold."""
    whole = isinstance(padding, (tuple, list)) and all(isinstance(n, (int, np.integer)) for n in padding)
    if not whole or len(padding) % 2 or len(padding) > 2 * x.ndim:
        raise ValueError(f"pad needs a pair for each dimension, last one first; {padding} for shape {x.shape}")
    if mode not in ("constant", *MODES):
        raise ValueError(f"pad has the modes constant, {', '.join(MODES)}; not {mode!r}")
    pairs = [(0, 0)] * (x.ndim - len(padding) // 2) + list(zip(padding[::2], padding[1::2]))[::-1]
    if any(n + min(before, 0) + min(after, 0) < 0 for n, (before, after) in zip(x.shape, pairs)):
        raise ValueError(f"pad would cut more from shape {x.shape} than there is: {pairs}")
    if mode in ("constant", "circular"):  # the others look at what is cut off, too
        x = x[tuple(slice(max(-before, 0), n - max(-after, 0)) for n, (before, after) in zip(x.shape, pairs))]
        pairs = [(max(before, 0), max(after, 0)) for before, after in pairs]
    if mode == "constant" or not any(map(any, pairs)):
        return _constant(x, pairs, 0 if value is None else value)
    if value:
        raise ValueError(f'pad takes a value only with mode="constant"; {value} was given with mode={mode!r}')
    for dim, (before, after) in enumerate(pairs):
        if before or after:
            x = repeated(x, dim, before, after, mode)
    return x


# We choose the constant with `where` at positions where nothing was placed. If we added it, times a mask, an infinite
# constant would spoil the rest: $0 \cdot \infty$ is nan.


def _constant(x, pairs, value):
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, pairs))
    inside = tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, pairs))
    placed = tt.place(x, index=inside, shape=shape)
    around = np.full(shape, _held(value, x.dtype))
    if not around.any():
        return placed
    mask = np.zeros(shape, bool)
    mask[inside] = True
    return tt.where(tt.from_numpy(mask), placed, tt.from_numpy(around))


def _held(value, dtype):
    """The number in this dtype, as PyTorch converts it: cut to an integer, or whether it is not zero."""
    try:
        with np.errstate(over="ignore"):
            held = dtype.type(int(value) if dtype.kind in "iu" else value)
    except (OverflowError, ValueError, TypeError):
        held = None
    if held is None or (dtype.kind == "f" and np.isinf(held) and not math.isinf(value)):
        raise ValueError(f"pad cannot put the value {value!r} into a tensor of {dtype}")
    return held


# Modules do the same for one, two and three dimensions. If you give one number, it means both sides of each.


class _Padding(Module):
    mode, sides = "constant", 0

    def __init__(self, padding):
        super().__init__()
        given = (padding,) * 2 * self.sides if isinstance(padding, (int, np.integer)) else padding
        if not isinstance(given, (tuple, list)) or len(given) != 2 * self.sides:
            raise ValueError(
                f"{type(self).__name__}: padding is one number or {2 * self.sides} of them, (left, right, top, ...); "
                f"it is {padding!r}"
            )
        self.padding = tuple(given)

    def forward(self, x):
        return pad(x, self.padding, self.mode, getattr(self, "value", None))

    def extra_repr(self):
        return str(self.padding)


# For zeros the base class is enough; a constant has a value besides.


class ZeroPad1d(_Padding):
    """Zeros around series: one number, or (left, right)."""

    sides = 1


class ZeroPad2d(_Padding):
    """Zeros around images: one number, or (left, right, top, bottom)."""

    sides = 2


class ZeroPad3d(_Padding):
    """Zeros around volumes: one number, or (left, right, top, bottom, front, back)."""

    sides = 3


class _Constant(_Padding):
    def __init__(self, padding, value: float):
        super().__init__(padding)
        self.value = value

    def extra_repr(self):
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_Constant):
    """A constant around series."""

    sides = 1


class ConstantPad2d(_Constant):
    """A constant around images."""

    sides = 2


class ConstantPad3d(_Constant):
    """A constant around volumes."""

    sides = 3


# The other three modes repeat elements that are there.


class _Reflection(_Padding):
    mode = "reflect"


class ReflectionPad1d(_Reflection):
    """The series reflected at its ends."""

    sides = 1


class ReflectionPad2d(_Reflection):
    """The image reflected at its border pixels."""

    sides = 2


class ReflectionPad3d(_Reflection):
    """The volume reflected at its border."""

    sides = 3


class _Replication(_Padding):
    mode = "replicate"


class ReplicationPad1d(_Replication):
    """The numbers at the ends repeated."""

    sides = 1


class ReplicationPad2d(_Replication):
    """The border pixels repeated."""

    sides = 2


class ReplicationPad3d(_Replication):
    """The numbers at the border of a volume repeated."""

    sides = 3


# "Circular" continues on the other side.


class _Circular(_Padding):
    mode = "circular"


class CircularPad1d(_Circular):
    """The series continued by itself."""

    sides = 1


class CircularPad2d(_Circular):
    """The image continued by itself on all sides."""

    sides = 2


class CircularPad3d(_Circular):
    """The volume continued by itself on all sides."""

    sides = 3


# ## One dimension
#
# A series (N, C, L) is an image with a single row.


def conv1d(x: Tensor, weight: Tensor, bias=None, stride=1, padding=0, dilation=1, groups: int = 1) -> Tensor:
    """Series (N, C, L) under filters (O, C / groups, k): (N, O, places). As torch.nn.functional.conv1d."""
    if weight.ndim != 3:
        raise ValueError(f"conv1d: the weight must be (O, C / groups, k); its shape is {weight.shape}")
    padding = padding if isinstance(padding, str) else (0, single(padding, "padding", 0))
    where = ((1, single(stride, "stride")), padding, (1, single(dilation, "dilation")), groups)
    return conv2d(series("conv1d", x), weight.unsqueeze(2), bias, *where).squeeze(-2)


# The layer is the chapter's, with one number instead of each pair. It shares a base class with the layers below: the
# sizes, the options, and the first weights.


class _Convolution(Module):
    sides = 1

    def _equip(self, channels: tuple[int, int], kernel_size, groups, bias, device, dtype, transposed=False, **options):
        tt.refuse_other_device(device)
        self.in_channels, self.out_channels = channels
        refuse_groups(self.in_channels, self.out_channels, groups)
        self.kernel_size, self.groups = sizes(kernel_size, "kernel_size", self.sides), groups
        for name, value in options.items():
            least = int(name not in ("padding", "output_padding"))
            text = value if name == "padding_mode" or value in ("same", "valid") else None
            setattr(self, name, text or sizes(value, name, self.sides, least))
        outer, inner = channels if transposed else channels[::-1]
        self.weight = Parameter(tt.zeros(outer, inner // groups, *self.kernel_size, dtype=dtype))
        self.bias = Parameter(tt.zeros(self.out_channels, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew, uniformly from +-1 / sqrt(weights of a filter)."""
        bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
        for parameter in self.parameters():
            parameter.copy_(generator().uniform(-bound, bound, parameter.shape))

    def extra_repr(self):
        return layer_text(self)


# With that, a layer names its options and calls its function.


class Conv1d(_Convolution):
    """conv1d with weight (out_channels, in_channels / groups, k); as torch.nn.Conv1d."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0, dilation=1, groups: int = 1,
        bias: bool = True, padding_mode: str = "zeros", device=None, dtype=None,
    ):
        super().__init__()
        self._equip(
            (in_channels, out_channels), kernel_size, groups, bias, device, dtype, stride=stride, padding=padding,
            dilation=dilation, padding_mode=known_mode(padding_mode),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, L) -> (N, out_channels, places)."""
        x, padding = padded_for(self, x)
        return conv1d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


# ## Backwards through a convolution
#
# The chapter needed the *transposed convolution* as a gradient. It is of use as a layer of its own, which makes images
# larger: in a decoder, or in a generator of images. Its stride is a step in the *result*, so several sizes are
# possible, and you choose among them with `output_padding`.


def conv_transpose2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, output_padding=0, groups: int = 1,
    dilation=1,
) -> Tensor:
    """Each number of x (N, C, H, W) hands out its value times a kernel of `weight` (C, O / groups, kh, kw): (N, O, (H -
    1) stride - 2 padding + dilation (kh - 1) + output_padding + 1, ...). As torch.nn.functional.conv_transpose2d."""
    if x.ndim == 3:
        whole = conv_transpose2d(x.unsqueeze(0), weight, bias, stride, padding, output_padding, groups, dilation)
        return whole.squeeze(0)
    images("conv_transpose2d", x)
    if weight.ndim == 4 and bias is not None and bias.shape != (weight.shape[1] * groups,):
        raise ValueError(f"conv_transpose2d: a bias of shape {bias.shape} for {weight.shape[1] * groups} channels")
    refuse_misfits("conv_transpose2d", x.shape, weight.shape, None, x.shape[1], weight.shape[0], groups)
    stride, dilation = pair(stride, "stride"), pair(dilation, "dilation")
    padding, more = pair(padding, "padding", 0), pair(output_padding, "output_padding", 0)
    if any(m >= max(s, d) for m, s, d in zip(more, stride, dilation)):
        raise ValueError(f"output_padding {more} must be smaller than stride {stride} or dilation {dilation}")
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + m + 1
        for n, s, p, d, k, m in zip(x.shape[2:], stride, padding, dilation, weight.shape[2:], more)
    )
    if min(size) < 1:
        raise ValueError(f"conv_transpose2d: padding {padding} leaves nothing of an output of {size}")
    if any(m >= s for m, s in zip(more, stride)):  # then a convolution finds more places in the result than x has
        x = pad(x, (0, more[1] // stride[1], 0, more[0] // stride[0]))
    x, weight = one_dtype(x, weight)
    out = transposed_convolution(
        x, weight, size=size, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    return out if bias is None else out + bias.reshape(1, -1, 1, 1)


# For series, one row again.


def conv_transpose1d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, output_padding=0, groups: int = 1,
    dilation=1,
) -> Tensor:
    """conv_transpose2d for series (N, C, L) and a weight (C, O / groups, k): (N, O, places). As
    torch.nn.functional.conv_transpose1d."""
    if weight.ndim != 3:
        raise ValueError(f"conv_transpose1d: the weight must be (C, O / groups, k); its shape is {weight.shape}")
    stride, padding = (1, single(stride, "stride")), (0, single(padding, "padding", 0))
    more, dilation = (0, single(output_padding, "output_padding", 0)), (1, single(dilation, "dilation"))
    row = series("conv_transpose1d", x)
    return conv_transpose2d(row, weight.unsqueeze(2), bias, stride, padding, more, groups, dilation).squeeze(-2)


# You may also give a layer the size of its result with each call: `output_size`.


class _ConvTranspose(_Convolution):
    function = staticmethod(conv_transpose2d)

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0, output_padding=0, groups: int = 1,
        bias: bool = True, dilation=1, padding_mode: str = "zeros", device=None, dtype=None,
    ):
        super().__init__()
        if padding_mode != "zeros":
            raise ValueError(f'a transposed convolution has the padding mode "zeros" only, not {padding_mode!r}')
        self._equip(
            (in_channels, out_channels), kernel_size, groups, bias, device, dtype, transposed=True, stride=stride,
            padding=padding, output_padding=output_padding, dilation=dilation, padding_mode=padding_mode,
        )

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N, in_channels, ...) -> (N, out_channels, ...), larger; output_size chooses one of the possible sizes."""
        more = self.output_padding if output_size is None else self._more(x, output_size)
        where = (self.stride, self.padding, more, self.groups, self.dilation)
        return self.function(x, self.weight, self.bias, *where)

    # The size that you ask for must be one of those that the stride leaves open.

    def _more(self, x, output_size):
        wanted, sides = tuple(output_size)[-self.sides :], x.shape[-self.sides :]
        options = zip(sides, self.stride, self.padding, self.dilation, self.kernel_size)
        least = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in options]
        more = tuple(m - n for m, n in zip(wanted, least))
        if len(wanted) != self.sides or not all(0 <= m < s for m, s in zip(more, self.stride)):
            most = [n + s - 1 for n, s in zip(least, self.stride)]
            raise ValueError(
                f"an input of shape {x.shape} can become {least} to {most} large; output_size is {tuple(output_size)}"
            )
        return more


class ConvTranspose1d(_ConvTranspose):
    """conv_transpose1d with weight (in_channels, out_channels / groups, k); as torch.nn.ConvTranspose1d."""

    function = staticmethod(conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """conv_transpose2d with weight (in_channels, out_channels / groups, kh, kw); as torch.nn.ConvTranspose2d."""

    sides = 2


__all__ = [
    "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d", "ConstantPad2d", "ConstantPad3d", "Conv1d",
    "ConvTranspose1d", "ConvTranspose2d", "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d",
    "ReplicationPad2d", "ReplicationPad3d", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d", "conv1d", "conv_transpose1d",
    "conv_transpose2d", "max_pick", "pad",
]
