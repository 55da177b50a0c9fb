# # Pictures into files
#
# An appendix of chapter 10: we put many images into one, and one image into a file, as torchvision does.

from __future__ import annotations

import os
import struct
import zlib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tt_tensor import Tensor, from_numpy

# ## A grid
#
# Our `grid`, in the module `common`, makes images for matplotlib. This function makes torchvision's: a tensor (C, H, W)
# with a frame all around, grey images in three equal channels, and, with `normalize`, values moved into the range from
# 0 to 1.


def make_grid(
    tensor: Tensor | list[Tensor], nrow: int = 8, padding: int = 2, normalize: bool = False,
    value_range: tuple[float, float] | None = None, scale_each: bool = False, pad_value: float = 0.0,
) -> Tensor:
    """Images (N, C, H, W), or a list of (C, H, W), as one image (C, height, width), `nrow` of them in a row. normalize:
    move `value_range`, or the lowest and the highest value, to 0 and 1; scale_each: for each image by itself. TypeError
    for what are not tensors."""
    images = _in_colour(_stacked(tensor))
    if normalize:
        images = _normalized(images, value_range, scale_each)
    count, channels, height, width = images.shape
    if count == 1:
        return from_numpy(images[0])
    columns = min(nrow, count)
    rows, high, wide = -(-count // columns), height + padding, width + padding
    grid = np.full((channels, rows * high + padding, columns * wide + padding), pad_value, images.dtype)
    for k, image in enumerate(images):
        top, left = k // columns * high + padding, k % columns * wide + padding
        grid[:, top : top + height, left : left + width] = image
    return from_numpy(grid)


# You may pass a tensor or a list of tensors, of two to four dimensions.


def _stacked(tensor) -> np.ndarray:
    parts = tensor if isinstance(tensor, list | tuple) else [tensor]
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        raise TypeError(f"a grid is made of a tensor or a list of tensors, not of {type(tensor).__name__}")
    if parts is tensor:
        return np.stack([part.detach().numpy() for part in parts])
    return tensor.detach().numpy()


def _in_colour(images: np.ndarray) -> np.ndarray:
    if not 2 <= images.ndim <= 4:
        raise ValueError(f"a grid is made of images (N, C, H, W), not of {images.shape}")
    images = images.reshape((1,) * (4 - images.ndim) + images.shape)
    return np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images


def _normalized(images: np.ndarray, value_range, each: bool) -> np.ndarray:
    axes = (1, 2, 3) if each else None
    low, high = value_range or (images.min(axes, keepdims=True), images.max(axes, keepdims=True))
    return ((np.clip(images, low, high) - low) / np.maximum(np.subtract(high, low), 1e-5)).astype(images.dtype)


# Three images of one pixel make two rows, and a pair of values is moved to 0 and 1.


def check_grid():
    grid = make_grid(from_numpy(np.arange(3.0).reshape(3, 1, 1, 1)), nrow=2, padding=1, pad_value=9)
    assert grid.shape == (3, 5, 5) and grid[0, 1].tolist() == [9, 0, 9, 1, 9] and grid[2, 3].tolist() == [9, 2, 9, 9, 9]
    pair = make_grid(from_numpy(np.array([-1.0, 3.0]).reshape(2, 1, 1, 1)), padding=0, normalize=True)
    assert pair[1].tolist() == [[0, 1]]


# ## A file
#
# A PNG file is a signature and a few *chunks*: length, name, content, checksum. The first chunk has the size. The
# second has the rows of bytes, compressed by zlib, each after a byte that says how it was filtered (0: not at all). So
# we need no library to write one. For other formats you need Pillow.

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels: grey, with alpha, colour, with alpha


def png(pixels: np.ndarray) -> bytes:
    """Bytes (H, W, C) of 1 to 4 channels as the content of a PNG file."""
    height, width, channels = pixels.shape
    header = struct.pack(">2I5B", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def save_image(
    tensor: Tensor | list[Tensor], fp: str | os.PathLike | BinaryIO, format: str | None = None, **kwargs
) -> None:
    """Write images of numbers from 0 to 1 into a file, as one; keywords are those of `make_grid`. The format is that of
    the file's name, or PNG for an open file. Raises RuntimeError for other formats where Pillow is not installed."""
    grid = make_grid(tensor, **kwargs).numpy().astype(np.float64)
    pixels = np.clip(grid * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    is_path = isinstance(fp, str | os.PathLike)
    suffix = (format or (os.path.splitext(fp)[1].lstrip(".") if is_path else "png")).lower()  # type: ignore
    if suffix != "png":
        if find_spec("PIL") is None:
            raise RuntimeError(f"{suffix} files are written by Pillow, which is not installed: save a .png file")
        import_module("PIL.Image").fromarray(pixels).save(fp, format=format)
    elif is_path:
        Path(fp).write_bytes(png(pixels))  # type: ignore[arg-type]
    else:
        fp.write(png(pixels))


def show_png():
    print(png(np.full((2, 3, 1), 255, np.uint8)))


__all__ = ["make_grid", "png", "save_image"]
