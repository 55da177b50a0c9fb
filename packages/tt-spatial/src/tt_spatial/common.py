"""Shared by chapter 09 and its appendices: layouts, dtypes, and the checks of arguments, with their messages."""

from __future__ import annotations

import numpy as np

import tt_tensor as tt
from tt_tensor import Tensor


def channels_last(x):
    """Images (N, C, H, W) as (N, H, W, C); a view."""
    return x.transpose(0, 2, 3, 1)


def channels_first(x):
    """Images (N, H, W, C) as (N, C, H, W); a view."""
    return x.transpose(0, 3, 1, 2)


def padded(x, padding, fill: float = 0):
    """Images x (N, C, H, W) with their channels last and `fill` around them (in integers, the least number of their
    dtype, if that is larger): (N, H + 2 * top, W + 2 * left, C)."""
    (top, left), last = padding, channels_last(x)
    fill = max(fill, np.iinfo(x.dtype).min) if x.dtype.kind in "iu" else fill
    return np.pad(last, ((0, 0), (top, top), (left, left), (0, 0)), constant_values=fill)


def unpadded(x, padding):
    """Images x (N, H + 2 * top, W + 2 * left, C) without what is around them, channels first: (N, C, H, W); a view."""
    (top, left), (height, width) = padding, x.shape[1:3]
    return channels_first(x[:, top : height - top, left : width - left])


def by_channel(vector, x):
    """A vector (C,) in a shape that broadcasts along the channels of x (N, C, ...)."""
    return vector.reshape((1, -1) + (1,) * (x.ndim - 2))


def channel_sums(g):
    """The sums of g (N, C, ...) by channel, on arrays or on tensors."""
    return tt.sum(g, dim=(0, *range(2, g.ndim)))


def size_of(x) -> tuple[int, ...]:
    """Height and width of images (N, C, H, W), or of kernels (O, C, kh, kw)."""
    return tuple(x.shape[2:])


def wide(dtype):
    """The dtype in which numbers of this dtype are multiplied and added: float32 instead of float16."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def as_dtype(x, dtype):
    """An array or a tensor in this dtype; itself if it is."""
    return x.astype(dtype, copy=False) if isinstance(x, np.ndarray) else x.to(dtype)


def floating(x: Tensor) -> Tensor:
    """x, or x in float32 if it holds integers or truth values."""
    return x if x.dtype.kind == "f" else x.float()


def one_dtype(*tensors: Tensor) -> list[Tensor]:
    """The tensors in the widest of their floating dtypes (or of their dtypes, if none is floating). TypeError for truth
    values."""
    widest = np.result_type(*([t.dtype for t in tensors if t.dtype.kind == "f"] or [t.dtype for t in tensors]))
    if widest == np.bool_:
        raise TypeError("a convolution multiplies numbers, and these are truth values; convert them with x.float()")
    return [t if t.dtype == widest else t.to(widest) for t in tensors]


def pair(value, name: str, least: int = 1) -> tuple[int, int]:
    """A number or a pair as a pair (rows, columns). ValueError for anything else, and for less than `least`."""
    both = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    both = both * 2 if len(both) == 1 else both
    whole = all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in both)
    if not whole or len(both) != 2 or min(both) < least:
        raise ValueError(f"{name} is an integer of at least {least}, or a pair (rows, columns); it is {value!r}")
    return int(both[0]), int(both[1])


def single(value, name: str, least: int = 1) -> int:
    """A number, or a tuple with one, as a number. ValueError for anything else, and for less than `least`."""
    found = value[0] if isinstance(value, (tuple, list)) and len(value) == 1 else value
    if isinstance(found, bool) or not isinstance(found, (int, np.integer)) or found < least:
        raise ValueError(f"{name} is an integer of at least {least}; it is {value!r}")
    return int(found)


def sizes(value, name: str, sides: int, least: int = 1) -> tuple[int, ...]:
    """A number, or one for each of one or two sides, as a tuple. ValueError as `single` and `pair` raise it."""
    return pair(value, name, least) if sides == 2 else (single(value, name, least),)


def series(name: str, x: Tensor) -> Tensor:
    """Series (N, C, L), or one (C, L), as images with a single row. ValueError for other shapes."""
    if x.ndim not in (2, 3):
        raise ValueError(f"{name} takes series (N, C, L) or one (C, L); this has shape {x.shape}")
    return x.unsqueeze(-2)


def layer_options(kernel_size, stride, padding, dilation):
    """The options of a convolution layer as pairs; the padding may be "same" or "valid", too, which it stays."""
    kernel_size, stride, dilation = pair(kernel_size, "kernel_size"), pair(stride, "stride"), pair(dilation, "dilation")
    known = isinstance(padding, str) and padding in ("same", "valid")
    return kernel_size, stride, padding if known else pair(padding, "padding", least=0), dilation


def layer_text(layer) -> str:
    """A description of a convolution layer: its sizes, and the options that are not the usual ones."""
    options: dict = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "padding_mode": "zeros"}
    usual = {name: (value, (value,) * len(layer.kernel_size)) for name, value in options.items()}
    said = [f"{name}={getattr(layer, name)}" for name in options if getattr(layer, name) not in usual[name]]
    said += [] if layer.bias is not None else ["bias=False"]
    size = "x".join(map(str, layer.kernel_size))
    return ", ".join([f"{layer.in_channels} -> {layer.out_channels}, kernel {size}", *said])


def convolution_arguments(x: Tensor, weight: Tensor, bias, stride, padding, dilation, groups):
    """The arguments of the primitive `convolution`, from those of conv2d: the tensors in one dtype, and the options
    as pairs. With padding="same", the images may come back with a row or a column more.

    Raises ValueError for shapes and options that do not fit, TypeError for truth values."""
    images("conv2d", x)
    refuse_misfits("conv2d", x.shape, weight.shape, bias, x.shape[1], weight.shape[1] * groups, groups)
    stride, dilation, size = pair(stride, "stride"), pair(dilation, "dilation"), weight.shape[2:]
    if isinstance(padding, str) and padding == "same":
        x, padding = same_padding(x, size, stride, dilation)
    valid = isinstance(padding, str) and padding == "valid"
    padding = pair(0 if valid else padding, "padding", least=0)
    refuse_too_small("conv2d", x, size, padding, dilation)
    tensors = one_dtype(x, weight, *([] if bias is None else [bias]))
    return tensors, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def pooling_arguments(name: str, x: Tensor, kernel_size, stride, padding, dilation=1) -> dict[str, tuple[int, int]]:
    """The options of a pooling as pairs; the stride is the kernel's size unless given. Raises ValueError for other
    shapes than images, for windows that do not fit into them, and for a padding of more than half of the window."""
    size = pair(kernel_size, "kernel_size")
    stride, padding = size if stride is None else pair(stride, "stride"), pair(padding, "padding", least=0)
    if any(2 * p > k for p, k in zip(padding, size)):
        raise ValueError(f"{name}: padding {padding} is more than half of the window {size}")
    dilation = pair(dilation, "dilation")
    refuse_too_small(name, images(name, x), size, padding, dilation)
    return {"size": size, "stride": stride, "padding": padding, "dilation": dilation}


def images(name: str, x: Tensor) -> Tensor:
    """x, if it is non-empty images (N, C, H, W); only the batch may be empty. Raises ValueError otherwise."""
    if x.ndim != 4:
        raise ValueError(f"{name} takes images (N, C, H, W); this has shape {x.shape}. See reshape and unsqueeze")
    if 0 in x.shape[1:]:
        raise ValueError(f"{name}: there is nothing in images of shape {x.shape}; only the batch, N, may be empty")
    return x


def refuse_too_small(name: str, x: Tensor, size, padding, dilation) -> None:
    """Raise ValueError for padded images into which the window does not fit."""
    reach = [d * (k - 1) + 1 for k, d in zip(size, dilation)]
    padded = [n + 2 * p for n, p in zip(x.shape[2:], padding)]
    if any(r > n for r, n in zip(reach, padded)):
        raise ValueError(
            f"{name}: a window that reaches over {reach[0]} x {reach[1]} pixels does not fit into images of "
            f"{padded[0]} x {padded[1]} (padding included); take a smaller kernel or more padding"
        )


def same_padding(x: Tensor, size, stride, dilation) -> tuple[Tensor, tuple[int, int]]:
    """padding="same": x, and the padding that keeps its size. For an even kernel that is an odd number of zeros; the
    one that is left over goes to the right and below, as in PyTorch, so x comes back with it.

    Raises ValueError for a stride other than 1."""
    if stride != (1, 1):
        raise ValueError(f'padding="same" keeps the size only for a stride of 1; the stride is {stride}')
    height, width = (d * (k - 1) for k, d in zip(size, dilation))
    if height % 2 or width % 2:
        more = (*x.shape[:2], x.shape[2] + height % 2, x.shape[3] + width % 2)
        x = tt.place(x, index=tuple(slice(n) for n in x.shape), shape=more)
    return x, (height // 2, width // 2)


def refuse_misfits(name, x_shape, weight_shape, bias, channels, expected, groups) -> None:
    """Raise ValueError for weights, groups, channels and a bias of a convolution that do not fit together."""
    if len(weight_shape) != 4 or 0 in weight_shape:
        raise ValueError(f"{name}: a weight of shape {weight_shape} is not (O, C / groups, kh, kw) with sizes above 0")
    if not isinstance(groups, (int, np.integer)) or groups < 1 or weight_shape[0] % groups:
        raise ValueError(
            f"{name}: {groups} groups do not divide a weight of shape {weight_shape}, which must be (O, C / groups, "
            "kh, kw)"
        )
    if channels != expected:
        raise ValueError(
            f"{name}: an input of shape {x_shape} has {channels} channels, a weight of shape {weight_shape} with "
            f"{groups} groups expects {expected}"
        )
    if bias is not None and bias.shape != (weight_shape[0],):
        raise ValueError(f"{name}: a bias of shape {bias.shape} for {weight_shape[0]} filters; it must be (O,)")


def refuse_groups(in_channels, out_channels, groups) -> None:
    """Raise ValueError for numbers of channels that are not positive integers, or that the groups do not divide."""
    counts = (in_channels, out_channels, groups)
    if not all(isinstance(n, (int, np.integer)) and n > 0 for n in counts):
        raise ValueError(
            f"channels and groups are integers of at least 1, not {in_channels} input channels, {out_channels} output "
            f"channels and {groups} groups"
        )
    if in_channels % groups or out_channels % groups:
        raise ValueError(f"{groups} groups do not divide {in_channels} input and {out_channels} output channels")


def channels_of(x: Tensor, *vectors: Tensor | None) -> int:
    """The number of channels of x (N, C, ...), which the vectors of a batch normalization must have, too."""
    shapes = [tuple(vector.shape) for vector in vectors if vector is not None]
    if x.ndim < 2 or set(shapes) - {(x.shape[1],)}:
        raise ValueError(f"batch_norm takes (N, C, ...) and vectors (C,), not shapes {x.shape} and {shapes}")
    refuse_wider("batch_norm", x, *vectors)
    return x.shape[1]


def refuse_wider(name: str, x: Tensor, *vectors: Tensor | None) -> None:
    """Raise TypeError for vectors wider than x, which would widen the result; beside float16, float32 is allowed."""
    fitting = wide(x.dtype) if x.dtype.kind == "f" else np.dtype(np.float32)
    wider = {str(v.dtype) for v in vectors if v is not None and np.result_type(v.dtype, fitting) != fitting}
    if wider:
        raise TypeError(
            f"{name}: an input of {x.dtype} with weights or running moments of {', '.join(sorted(wider))}; convert one "
            "of them, for example with .float()"
        )
