"""MNIST: 70,000 handwritten digits of 28 by 28 pixels, read from the files in which they were published."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import numpy as np

from tt_tensor import Tensor, from_numpy

# Y. LeCun, C. Cortes and C. Burges published four files; 60,000 digits to learn from and 10,000 to be examined on, each
# as images and as labels. The format is called IDX: a magic number, whose last byte is the number of dimensions and
# whose last but one says "unsigned bytes" (8); then each dimension as four bytes, the most significant first; then the
# numbers themselves.

IMAGES, LABELS = 0x0803, 0x0801
FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", 60_000),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", 10_000),
}


def mnist_folder(data: Path | None = None) -> Path | None:
    """The folder with the four files: `data`/mnist, or `data` itself; None if they are in neither. Without `data` it is
    $TT_DATA that is looked into."""
    if data is None and not os.environ.get("TT_DATA"):
        return None
    data = data or Path(os.environ["TT_DATA"])
    names = [name for *pair, _ in FILES.values() for name in pair]
    return next((folder for folder in (data / "mnist", data) if all((folder / n).exists() for n in names)), None)


# A file that was cut off while it was downloaded, or an error page saved under the right name, must not become a
# picture. So everything that the format says is checked, and an error names the file, what it should hold, and what it
# does hold.


def read_idx(path: Path, magic: int, shape: tuple[int, ...]) -> np.ndarray:
    """The array of unsigned bytes in a gzipped IDX file. Raises ValueError if it has another magic number, other
    dimensions or another length, or is no whole gzip file."""
    content = _unpacked(path)
    header = np.frombuffer(content[: len(content) // 4 * 4], ">u4", count=min(1 + len(shape), len(content) // 4))
    _require(path, "magic number", f"0x{magic:08x}", f"0x{header[0]:08x}" if len(header) else "an empty file")
    _require(path, "dimensions", shape, tuple(header[1:].tolist()))
    start = 4 * (1 + len(shape))
    _require(path, "bytes after the header", int(np.prod(shape)), len(content) - start)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _unpacked(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (EOFError, OSError, zlib.error) as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise
        found = f"{path.stat().st_size:,} bytes that do not unpack ({error})"
        raise ValueError(f"{path}: expected a whole gzip file, found {found}; get the file again") from error


def _require(path: Path, what: str, expected, found) -> None:
    if found != expected:
        raise ValueError(f"{path}: expected {what} {expected}, found {found}; get the file again")


# Pixels become numbers from 0 to 1, an image a row of 784. Labels are class numbers, and there are ten classes.


def load(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images (N, 784) float32 from 0 to 1 and labels (N,) int64 of a part, "train" or "test"."""
    images, labels, count = FILES[part]
    pixels = read_idx(folder / images, IMAGES, (count, 28, 28))
    classes = read_idx(folder / labels, LABELS, (count,))
    if classes.max() > 9:
        raise ValueError(f"{folder / labels}: expected labels from 0 to 9, found {classes.max()}; get the file again")
    return from_numpy(pixels.reshape(count, -1).astype(np.float32) / 255), from_numpy(classes.astype(np.int64))
