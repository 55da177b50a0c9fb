# # Changes of one image
#
# An appendix of chapter 10: torchvision's functions, which change one image at a time. The chapter's transforms see a
# batch of bytes; you need these for programs that were written for torchvision.

from __future__ import annotations

import enum
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from tt_tensor import Tensor, from_numpy

# ## What an image is
#
# torchvision has two forms of an image. A *picture* is the content of a file: bytes in rows, of grey (H, W) or of
# colours (H, W, C). A *tensor* has the channels in front, (C, H, W), and may have more dimensions before them.
#
# Pictures are objects of the library Pillow, if it is installed. If it is not, a small class of ours takes its place,
# which knows its size and gives its bytes. Every function here also takes the bytes themselves, as an array.


class Picture:
    """An image of bytes (H, W) or (H, W, C), where Pillow is not installed: `size` is (width, height), `mode` "L" or
    "RGB", and `np.asarray(picture)` gives the bytes."""

    def __init__(self, pixels: np.ndarray):
        self.pixels = pixels
        self.size = self.width, self.height = pixels.shape[1], pixels.shape[0]
        self.mode = {2: "L", 3: "RGB"}[pixels.ndim]

    def __array__(self, dtype=None, copy=None):
        return np.array(self.pixels, dtype) if copy else np.asarray(self.pixels, dtype)

    def __repr__(self):
        return f"<Picture mode={self.mode} size={self.width}x{self.height}>"


def picture_of(pixels: np.ndarray) -> Any:
    """Bytes (H, W) or (H, W, C) as a picture: Pillow's, or, where it is not installed, ours."""
    if find_spec("PIL") is None:
        return Picture(pixels)
    return import_module("PIL.Image").fromarray(np.ascontiguousarray(pixels))


def _is_pillows(image) -> bool:
    return type(image).__module__.partition(".")[0] == "PIL"


# Most changes are the same for both forms if the channels come first. So we take an image apart into its *planes*,
# change these, and put them together again in the original form.


def planes_of(image) -> np.ndarray:
    """An image as an array (..., H, W), with channels, if it has any, before height and width. TypeError for what is
    not an image, ValueError for an array of other dimensions."""
    if isinstance(image, Tensor):
        if image.ndim < 2:
            raise ValueError(f"a tensor image has the shape (..., H, W), not {tuple(image.shape)}")
        return image.detach().numpy()
    if not isinstance(image, np.ndarray | Picture) and not _is_pillows(image):
        raise TypeError(f"an image is a tensor, a picture or an array of bytes, not a {type(image).__name__}")
    pixels = np.asarray(image)
    if pixels.ndim not in (2, 3):
        raise ValueError(f"a picture has the shape (H, W) or (H, W, C), not {pixels.shape}")
    return pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def in_the_form_of(image, planes: np.ndarray) -> Any:
    """Planes (..., H, W) as an image of the same form as `image`."""
    if isinstance(image, Tensor):
        return from_numpy(np.ascontiguousarray(planes))
    pixels = np.ascontiguousarray(planes if planes.ndim == 2 else planes.transpose(1, 2, 0))
    if isinstance(image, np.ndarray):
        return pixels
    return Picture(pixels) if isinstance(image, Picture) else import_module("PIL.Image").fromarray(pixels)


# With the planes, the size of an image is easy to find.


def get_dimensions(img) -> list[int]:
    """[channels, height, width] of an image."""
    planes = planes_of(img)
    return [planes.shape[-3] if planes.ndim > 2 else 1, *planes.shape[-2:]]


def get_image_size(img) -> list[int]:
    """[width, height] of an image."""
    return get_dimensions(img)[:0:-1]


# ## From bytes to numbers
#
# Every program makes this change: channels to the front, and bytes to float32 from 0 to 1. We write it for many
# pictures of one size, since one picture is a batch of one.


def to_tensors(pixels: np.ndarray) -> Tensor:
    """Pictures (N, H, W) or (N, H, W, C) as a tensor (N, C, H, W): bytes become float32 from 0 to 1."""
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    planes = to_byte_tensors(pixels).numpy()
    if planes.dtype != np.uint8:
        return from_numpy(planes)
    numbers = planes.astype(np.float32)
    numbers /= 255
    return from_numpy(numbers)


def to_byte_tensors(pixels: np.ndarray) -> Tensor:
    """Pictures (N, H, W) or (N, H, W, C) as a tensor (N, C, H, W) of the same numbers, a copy."""
    moved = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    return from_numpy(np.array(moved, order="C"))


# For one image we make a batch of it, and take the batch's only element.


def to_tensor(pic) -> Tensor:
    """A picture, or an array (H, W) or (H, W, C), as a tensor (C, H, W): bytes become float32 from 0 to 1, and other
    numbers keep their values. TypeError for a tensor, ValueError for other dimensions."""
    return to_tensors(_pixels(pic)[None])[0]


def pil_to_tensor(pic) -> Tensor:
    """A picture as a tensor (C, H, W) of the same numbers."""
    return to_byte_tensors(_pixels(pic)[None])[0]


def _pixels(picture) -> np.ndarray:
    if isinstance(picture, Tensor):
        raise TypeError("this is a tensor already; give a picture or an array of bytes")
    planes_of(picture)
    return np.asarray(picture)


# A pixel of three colours, with 51 as a fifth of 255.


def check_bytes_become_numbers():
    pixels = np.array([[[0, 51, 255]]], np.uint8)
    assert to_tensor(pixels).shape == (3, 1, 1) and np.allclose(to_tensor(pixels).numpy().ravel(), [0, 0.2, 1])
    assert to_tensor(pixels[:, :, 0]).shape == (1, 1, 1) and pil_to_tensor(pixels).tolist() == [[[0]], [[51]], [[255]]]


# Between dtypes, the largest value of one becomes the largest value of the other, and 1 is the largest float.


def convert_image_dtype(image: Tensor, dtype=np.float32) -> Tensor:
    """A tensor image in another dtype, with its values scaled to the range of that. RuntimeError where a float cannot
    hold the integers of the result."""
    planes, dtype = planes_of(image), np.dtype(dtype)
    if planes.dtype == dtype:
        return image
    if planes.dtype.kind == "f":
        return from_numpy(_scaled_floats(planes, dtype))
    largest = np.iinfo(planes.dtype).max
    if dtype.kind == "f":
        return from_numpy(planes.astype(dtype) / dtype.type(largest))
    if largest > np.iinfo(dtype).max:
        return from_numpy((planes // ((largest + 1) // (np.iinfo(dtype).max + 1))).astype(dtype))
    return from_numpy(planes.astype(dtype) * dtype.type((np.iinfo(dtype).max + 1) // (largest + 1)))


def _scaled_floats(planes: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return planes.astype(dtype)
    if dtype.itemsize > planes.itemsize // 2:
        raise RuntimeError(f"{planes.dtype} cannot hold the values of {dtype}: take one of at most half its bits")
    return (planes * (np.iinfo(dtype).max + 1 - 1e-3)).astype(dtype)


# ## Mean and deviation
#
# We compute this one with operators of tensors, so a gradient flows through it to the image. PyTorch's programs
# normalize images after `ToTensor`, so you give the means for numbers from 0 to 1.


def normalize(tensor: Tensor, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> Tensor:
    """(tensor - mean) / std for each channel of an image (..., C, H, W) of floats. Raises TypeError for other numbers,
    ValueError for fewer dimensions or a std of 0."""
    if not isinstance(tensor, Tensor) or tensor.dtype.kind != "f":
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"normalize needs a tensor of floats, not {kind}: put ToTensor() before it")
    if tensor.ndim < 3:
        raise ValueError(f"normalize needs an image (..., C, H, W), not {tuple(tensor.shape)}")
    means, stds = (np.asarray(values, tensor.dtype) for values in (mean, std))
    if not stds.all():
        raise ValueError(f"a std of 0 cannot be divided by: {std}")
    low, wide = (from_numpy(v[:, None, None] if v.ndim == 1 else v) for v in (means, stds))
    return tensor.sub_(low).div_(wide) if inplace else (tensor - low) / wide


# ## Windows, frames, mirrors
#
# A window that reaches beyond the image shows zeros there.


def crop(img, top: int, left: int, height: int, width: int) -> Any:
    """The window of `height` rows from `top` and `width` columns from `left`."""
    planes = planes_of(img)
    rows, columns = planes.shape[-2:]
    beyond = [max(-left, 0), max(-top, 0), max(left + width - columns, 0), max(top + height - rows, 0)]
    if any(beyond):
        planes, top, left = _framed(planes, beyond, 0, "constant"), max(top, 0), max(left, 0)
    return in_the_form_of(img, planes[..., top : top + height, left : left + width])


# In the middle, a smaller image is padded first.


def center_crop(img, output_size: int | Sequence[int]) -> Any:
    """The window of `output_size` (a number, or height and width) in the middle; zeros around a smaller image."""
    wanted, found = pair(output_size), get_dimensions(img)[1:]
    if any(w > f for w, f in zip(wanted, found)):
        short = [max(w - f, 0) for w, f in zip(wanted, found)]
        img = pad(img, [short[1] // 2, short[0] // 2, (short[1] + 1) // 2, (short[0] + 1) // 2])
        found = get_dimensions(img)[1:]
    top, left = (round((f - w) / 2) for w, f in zip(wanted, found))
    return crop(img, top, left, *wanted)


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of a size that is given as a number, or as one or two of them. ValueError for more."""
    sizes = [size] if isinstance(size, int | np.integer) else list(size)
    if len(sizes) not in (1, 2):
        raise ValueError(f"a size is a number, or height and width, not {size}")
    return int(sizes[0]), int(sizes[-1])


# You can give a frame as one number for all sides, as two for left and right and for top and bottom, or as four: left,
# top, right, bottom.


def pad(img, padding: int | Sequence[int], fill: float | Sequence[float] = 0, padding_mode: str = "constant") -> Any:
    """A frame of `padding` pixels around an image. padding_mode: "constant" (of `fill`, a number or one for each
    channel), "edge", "reflect" or "symmetric". ValueError for anything else."""
    sides = [padding] * 4 if isinstance(padding, int | np.integer) else list(padding)
    sides = {1: sides * 4, 2: sides * 2, 4: sides}.get(len(sides), [])
    if not sides or min(sides) < 0:
        raise ValueError(f"padding is one, two or four numbers of pixels, 0 or more, not {padding}")
    return in_the_form_of(img, _framed(planes_of(img), sides, fill, padding_mode))


# NumPy pads in most modes. A constant we write ourselves, because it can differ between channels.


def _framed(planes: np.ndarray, sides: Sequence[int], fill, mode: str) -> np.ndarray:
    left, top, right, bottom = sides
    if mode in ("edge", "reflect", "symmetric"):
        return np.pad(planes, [(0, 0)] * (planes.ndim - 2) + [(top, bottom), (left, right)], mode=mode)  # type: ignore
    if mode != "constant":
        raise ValueError(f'padding_mode is "constant", "edge", "reflect" or "symmetric", not {mode!r}')
    colour = np.asarray(fill, planes.dtype)
    height, width = planes.shape[-2:]
    shape = (*planes.shape[:-2], height + top + bottom, width + left + right)
    framed = np.full(shape, colour[:, None, None] if colour.ndim else colour, planes.dtype)
    framed[..., top : top + height, left : left + width] = planes
    return framed


def hflip(img) -> Any:
    """The image mirrored: left becomes right."""
    return in_the_form_of(img, planes_of(img)[..., ::-1])


def vflip(img) -> Any:
    """The image upside down."""
    return in_the_form_of(img, planes_of(img)[..., ::-1, :])


# On a small image of twelve pixels you can check each of these by hand.


def check_windows():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert crop(image, 1, 2, 2, 2).tolist() == [[6, 7], [10, 11]] and center_crop(image, 1).tolist() == [[6]]
    assert center_crop(pad(image, [1, 2]), (3, 4)).tolist() == image.tolist()
    assert hflip(image)[0].tolist() == [3, 2, 1, 0] and vflip(image)[0].tolist() == [8, 9, 10, 11]


# ## Grey
#
# The eye sees green best and blue least, so the grey of a colour is a weighted mean. Pillow computes it in integers and
# rounds, torchvision computes it in floats and truncates; we give each form of an image its own.


def rgb_to_grayscale(img, num_output_channels: int = 1) -> Any:
    """An image in grey, with 1 channel or 3 equal ones. ValueError for images that have not 1 or 3."""
    planes, is_tensor = planes_of(img), isinstance(img, Tensor)
    channels = get_dimensions(img)[0]
    if channels not in (1, 3) or num_output_channels not in (1, 3):
        raise ValueError(f"grey is made of 1 or 3 channels and has 1 or 3; they are {channels}, {num_output_channels}")
    if channels == 3:
        red, green, blue = (planes[..., i, :, :] for i in range(3))
        if is_tensor:
            planes = (0.2989 * red + 0.587 * green + 0.114 * blue).astype(planes.dtype)
        else:
            red, green, blue = (plane.astype(np.uint32) for plane in (red, green, blue))
            planes = ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(np.uint8)
        planes = planes[..., None, :, :]
    elif planes.ndim == 2:
        planes = planes[None]
    grey = np.repeat(planes, num_output_channels, axis=-3) if num_output_channels == 3 else planes
    return in_the_form_of(img, grey if is_tensor or num_output_channels == 3 else grey[0])


# ## Another size
#
# A new pixel is somewhere between old ones, so we compute it as a weighted mean of those around it. *Bilinear* weights
# fall off in a straight line, within one pixel. *Bicubic* ones follow a cubic curve within two, partly below zero, and
# give sharper images. If the image becomes smaller, one new pixel must represent several old ones, so we widen the
# curve by the ratio of the sizes. Without that (`antialias=False`), fine patterns turn into coarse ones that are not in
# the image. This is called *aliasing*.
#
# All weights for one direction form a matrix, so to resize is to multiply by one matrix from each side.


class InterpolationMode(enum.Enum):
    """How pixels between pixels are computed."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


# Here are the two curves, and how far each reaches.


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    x = np.abs(x)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


CURVES = {InterpolationMode.BILINEAR: (_triangle, 1), InterpolationMode.BICUBIC: (_cubic, 2)}


# A row of the matrix holds the weights of one new pixel. They must add up to 1, also at the border.


@lru_cache(64)
def weights(new: int, old: int, mode: InterpolationMode, antialias: bool = True) -> np.ndarray:
    """(new, old): how much each old pixel of a row gives to each new one, in float64."""
    curve, reach = CURVES[mode]
    width = max(old / new, 1.0) if antialias else 1.0
    centers = (np.arange(new)[:, None] + 0.5) * old / new
    pixels = np.arange(old)
    first, end = (np.floor(centers + side * reach * width + 0.5) for side in (-1, 1))
    inside = (pixels >= first) & (pixels < end)
    shares = np.where(inside, curve((pixels + 0.5 - centers) / width), 0)
    return shares / shares.sum(axis=1, keepdims=True)


# Pillow has all this for its own pictures, so we leave them to Pillow. For bytes, we round the weighted mean at the
# end. Pillow rounds after each of the two directions, so its bilinear bytes differ from ours by 1 here and there, and
# its bicubic ones by more beside sharp edges.


def resize(
    img, size: int | Sequence[int], interpolation: InterpolationMode = InterpolationMode.BILINEAR,
    max_size: int | None = None, antialias: bool | None = True,
) -> Any:
    """The image in another size: (height, width), or one number for its shorter side. `max_size` limits the longer one
    then. ValueError for sizes that cannot be meant."""
    planes, mode = planes_of(img), InterpolationMode(interpolation)
    found = planes.shape[-2:]
    wanted = _wanted(found, size, max_size)
    if wanted == found:
        return img
    if _is_pillows(img):
        return img.resize(wanted[::-1], import_module("PIL.Image").Resampling[mode.name.removesuffix("_EXACT")])
    if mode not in CURVES:
        from_corners = isinstance(img, Tensor) and mode is InterpolationMode.NEAREST
        rows, columns = (_nearest(new, old, from_corners) for new, old in zip(wanted, found))
        return in_the_form_of(img, planes[..., rows[:, None], columns])
    if mode is InterpolationMode.BICUBIC and antialias is False:
        raise ValueError("bicubic without antialias is not available: leave antialias at True")
    rows, columns = (weights(new, old, mode, antialias is not False) for new, old in zip(wanted, found))
    return in_the_form_of(img, rounded_as(planes.dtype, rows @ (planes.astype(np.float64) @ columns.T)))


# Bytes are rounded, and kept from 0 to 255; a picked pixel needs only its index.


def rounded_as(dtype: np.dtype, numbers: np.ndarray) -> np.ndarray:
    """Numbers in another dtype; if it has integers, rounded and kept in its range."""
    if dtype.kind not in "iu":
        return numbers.astype(dtype)
    return np.clip(np.rint(numbers), np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)


def _nearest(new: int, old: int, from_corners: bool) -> np.ndarray:
    return np.floor((np.arange(new) + (0 if from_corners else 0.5)) * (old / new)).astype(np.int64)


# If you give one number, it is the shorter side, and the longer one follows.


def _wanted(found: tuple[int, ...], size: int | Sequence[int], max_size: int | None) -> tuple[int, int]:
    sizes = [size] if isinstance(size, int | np.integer) else list(size)
    if len(sizes) not in (1, 2) or min(sizes) < 1 or (max_size is not None and len(sizes) == 2):
        raise ValueError(f"size is one number (with it may go max_size) or height and width, 1 or more, not {size}")
    if len(sizes) == 2:
        return sizes[0], sizes[1]
    short, long = sizes[0], int(sizes[0] * max(found) / min(found))
    if max_size is not None and max_size <= short:
        raise ValueError(f"max_size={max_size} must be larger than the size {short} of the shorter side")
    if max_size is not None and long > max_size:
        short, long = int(max_size * short / long), max_size
    return (short, long) if found[0] <= found[1] else (long, short)


# Four pixels become two. A new pixel sees three old ones, and those nearer to it count three times as much.


def check_weights_of_half_the_size():
    halves = weights(2, 4, InterpolationMode.BILINEAR)
    assert np.allclose(halves, [[3 / 7, 3 / 7, 1 / 7, 0], [0, 1 / 7, 3 / 7, 3 / 7]])
    assert resize(np.array([[0, 70, 70, 140]], np.uint8), (1, 2)).tolist() == [[40, 100]]


# Here is a digit in four times its size, in each of the modes.


def show_resized():
    """A digit of 8 by 8 pixels, enlarged to 32 by 32 in four modes."""
    import matplotlib.pyplot as plt

    from tt_data.datasets import Digits

    digit = Digits().images[12, 0]
    figure, axes = plt.subplots(1, 4, figsize=(7, 2))
    for axis, mode in zip(axes, InterpolationMode):
        axis.imshow(resize(digit, 32, mode), cmap="gray")
        axis.set_title(mode.value)
        axis.axis("off")
    return figure


__all__ = [
    "InterpolationMode", "Picture", "center_crop", "convert_image_dtype", "crop", "get_dimensions", "get_image_size",
    "hflip", "normalize", "pad", "picture_of", "pil_to_tensor", "resize", "rgb_to_grayscale", "to_byte_tensors",
    "to_tensor", "to_tensors", "vflip",
]
