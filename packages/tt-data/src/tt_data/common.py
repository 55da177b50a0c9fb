"""Shared by chapter 10 and its appendices: random generators, what samplers and transforms derive from, checks of
arguments, and a few helpers for arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources
from itertools import islice
from types import GenericAlias
from typing import Any

import numpy as np

from tt_tensor import Generator, Tensor, drawing_from, from_numpy, generator

DRAWS = 1 << 12  # numbers that a sampler draws at once


def resolve_generator(given: Generator | np.random.Generator | None = None) -> np.random.Generator:
    """The generator to draw from: `given`, or that of chapter 01. Raises TypeError for anything that is not a
    generator."""
    given = given.numpy if isinstance(given, Generator) else given
    if given is not None and not isinstance(given, np.random.Generator):
        raise TypeError(f"generator is a random generator, such as np.random.default_rng(0), not {given!r}")
    return given or generator()


class Sampler:
    """An order: yields indices of samples, or lists of them. Derive from it, and write `__iter__`."""

    __class_getitem__: Any = classmethod(GenericAlias)

    def __iter__(self) -> Iterator:
        raise NotImplementedError(f"{type(self).__name__} needs a method __iter__(self) that yields numbers of samples")


class SequentialSampler(Sampler):
    """0, 1, 2, ..."""

    def __init__(self, data_source):
        self.data_source = data_source

    def __len__(self) -> int:
        return len(self.data_source)

    def __iter__(self):
        return iter(range(len(self.data_source)))


def split_sizes(total: int, lengths: Sequence[float]) -> list[int]:
    """The sizes of the parts of `total` samples. If all lengths are from 0 to 1 and add up to 1, they are shares: each
    size is rounded down, and what is left over is dealt out one by one, from the first part on. Otherwise they are the
    sizes. Raises ValueError if these are not integers of 0 or more that add up to `total`."""
    sizes = list(lengths)
    if all(0 <= share <= 1 for share in sizes) and math.isclose(sum(sizes), 1):
        sizes = [math.floor(total * share) for share in sizes]
        for part in range(total - int(sum(sizes))):
            sizes[part % len(sizes)] += 1
    if sum(sizes) != total or any(not size >= 0 or size % 1 for size in sizes):
        raise ValueError(
            f"lengths {list(lengths)} add up to {sum(lengths)}; they must be integers of 0 or more that add up to the "
            f"{total} samples, or shares that add up to 1"
        )
    return [int(size) for size in sizes]


def later(groups: Iterator, seed: int) -> Iterator:
    """The remaining groups, one by one; meanwhile their sampler draws from a generator of its own."""
    own = np.random.default_rng([seed])
    while True:
        with drawing_from(own):
            group = list(islice(groups, 1))
        if not group:
            return
        yield group[0]


class Transform:
    """A change of images (N, C, H, W): `transform(images, random)`. Derive from it, and write `apply`, for arrays.
    It draws from `random` only, and does not change the images that it gets."""

    def __call__(self, images, random: np.random.Generator | None = None):
        """The changed images: a tensor for a tensor, an array for an array. Random numbers come from `random`, or from
        the generator of chapter 01."""
        array = images.numpy() if isinstance(images, Tensor) else images
        if np.ndim(array) != 4:
            raise ValueError(f"a transform needs images of shape (N, C, H, W), not {np.shape(array)}")
        changed = self.apply(array, resolve_generator(random))
        return from_numpy(changed) if isinstance(images, Tensor) else changed

    def apply(self, images: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """The changed images."""
        raise NotImplementedError(f"{type(self).__name__} needs a method apply(self, images, random)")


class Compose(Transform):
    """Several transforms, one after the other."""

    def __init__(self, transforms: Iterable[Callable]):
        self.transforms = list(transforms)

    def apply(self, images, random):
        for transform in self.transforms:
            images = transform(images, random)
        return images


def one_by_one_from(order: np.ndarray) -> Iterator[int]:
    """The elements of an array as Python's integers, converted `DRAWS` at a time."""
    for start in range(0, len(order), DRAWS):
        yield from order[start : start + DRAWS].tolist()


def row_numbers(indices: Sequence[int], count: int) -> np.ndarray:
    """The indices of a batch as an array. Raises ValueError if there are none, TypeError for anything but integers, and
    IndexError for an index that none of `count` samples has."""
    rows = np.asarray(indices)
    if not rows.size:
        raise ValueError("there is nothing to collate: a batch has at least one sample")
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise TypeError(f"the indices of a batch are a list of integers, not {indices!r:.80}")
    if rows.min() < -count or rows.max() >= count:
        wrong = rows[(rows < -count) | (rows >= count)][0]
        raise IndexError(f"index {wrong} is out of range: there are {count} samples")
    return rows


def refuse_other_forms(trees: Sequence) -> None:
    """Raise ValueError unless all trees have the first one's keys, if that is a dictionary, or its length, if it is a
    tuple."""
    first, form = trees[0], ""
    if isinstance(first, dict):
        form = f"dict with the keys {list(first)}"
        fits = [isinstance(tree, dict) and first.keys() <= tree.keys() for tree in trees]
    elif isinstance(first, tuple):
        form = f"tuple with {len(first)} parts"
        fits = [isinstance(tree, tuple) and len(tree) == len(first) for tree in trees]
    if form and not all(fits):
        number = fits.index(False)
        raise ValueError(
            f"the samples of a batch must have one form: the first is a {form}, number {number} is "
            f"{trees[number]!r:.80}"
        )


def tuple_like(first: Any, parts: Iterable) -> tuple:
    """The parts as a tuple; as a named tuple of the same type, if `first` is one."""
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)


def as_arrays(leaves: Sequence) -> list[np.ndarray]:
    """Arrays, tensors and numbers as arrays of one dtype: Python's floats are float32, and if one leaf is a float, all
    become floats. Raises TypeError for leaves of any other type."""
    arrays = [_as_array(leaf) for leaf in leaves]
    dtypes = {array.dtype for array in arrays}
    wide = np.result_type(*({dtype for dtype in dtypes if dtype.kind == "f"} or dtypes))
    return [array.astype(wide, copy=False) for array in arrays]


def _as_array(leaf) -> np.ndarray:
    if isinstance(leaf, Tensor | np.ndarray | np.generic | int | float):
        array = np.asarray(leaf, np.float32 if type(leaf) is float else None)
        if array.dtype.kind in "biuf":
            return array
    raise TypeError(
        f"collate stacks tensors, arrays and numbers of at most 64 bits, and cannot stack a {type(leaf).__name__} such "
        f"as {leaf!r:.60}; give the loader a collate_fn that can"
    )


def refuse_unequal_tensors(tensors: Sequence) -> None:
    """Raise TypeError for anything but tensors, ValueError if they differ in the number of rows."""
    if wrong := [type(tensor).__name__ for tensor in tensors if not isinstance(tensor, Tensor)]:
        raise TypeError(f"TensorDataset takes tensors, not {', '.join(wrong)}: use from_numpy for an array")
    if len({len(tensor) for tensor in tensors}) != 1:
        raise ValueError(f"tensors need the same number of rows; there are {[len(t) for t in tensors]}")


def images_and_classes(images, labels) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels as arrays, the labels as int64. Raises ValueError for anything but bytes (N, C, H, W) with the
    numbers of N classes."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"images are bytes (N, C, H, W) with labels (N,), not {images.dtype} {images.shape} with {labels.shape}"
        )
    return images, class_numbers(labels)


def class_numbers(labels: np.ndarray) -> np.ndarray:
    """Labels as int64. Raises ValueError for labels that are not integers: there is no class 1.7."""
    if labels.dtype.kind in "biuf":
        with np.errstate(invalid="ignore"):
            numbers = labels.astype(np.int64)
        if (numbers == labels).all():
            return numbers
    raise ValueError(f"labels are the numbers of classes, integers, not {labels[:5].tolist()}... of {labels.dtype}")


def padded(images: np.ndarray, padding: int, fill: float = 0) -> np.ndarray:
    """Images (N, C, H, W) with a frame of `padding` pixels around them. Raises ValueError for a `fill` that their dtype
    cannot hold."""
    if images.dtype.kind in "iu" and not (fill % 1 == 0 and fill in _range_of(images.dtype)):
        raise ValueError(f"a pixel of {images.dtype} cannot be {fill}; give an integer it holds, or ToFloat() before")
    if padding < 0:
        raise ValueError(f"padding is a number of pixels, 0 or more, not {padding}")
    if not padding:
        return images
    count, channels, height, width = images.shape
    framed = np.full((count, channels, height + 2 * padding, width + 2 * padding), fill, images.dtype)
    framed[:, :, padding:-padding, padding:-padding] = images
    return framed


def _range_of(dtype) -> range:
    return range(np.iinfo(dtype).min, int(np.iinfo(dtype).max) + 1)


def refuse_too_small(images: np.ndarray, size: tuple[int, ...]) -> None:
    """Raise ValueError if a window of `size` does not fit into the images."""
    if images.shape[2] < size[0] or images.shape[3] < size[1]:
        raise ValueError(f"a window of {size} does not fit into images of {images.shape[2:]}; add padding")


def refuse_contradictions(dataset, batch_size, shuffle, sampler, batch_sampler, drop_last) -> None:
    """Raise ValueError for arguments of a loader that contradict each other, TypeError for a data set without a length
    that needs one."""
    if sampler is not None and shuffle:
        raise ValueError("a sampler says the order, and so does shuffle: give one of them")
    if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
        raise ValueError("batch_sampler makes the groups: leave out batch_size, shuffle, sampler and drop_last")
    if sampler is None and batch_sampler is None and not hasattr(dataset, "__len__"):
        name = type(dataset).__name__
        raise TypeError(f"{name} has no __len__, which says what samples there are: define it, or give a sampler")


def refuse_impossible_workers(num_workers, prefetch_factor, timeout, context) -> None:
    """Raise ValueError or TypeError for options of a loader's workers that cannot be meant."""
    if any(isinstance(n, bool) or not isinstance(n, int | np.integer) for n in (num_workers, prefetch_factor)):
        raise TypeError(f"num_workers and prefetch_factor are integers, not {num_workers!r} and {prefetch_factor!r}")
    if num_workers < 0 or prefetch_factor < 1 or timeout < 0:
        raise ValueError(
            f"num_workers and timeout are 0 or more and prefetch_factor at least 1; they are {num_workers}, {timeout} "
            f"and {prefetch_factor}"
        )
    if context is not None and not num_workers:
        raise ValueError(f"multiprocessing_context={context!r} needs num_workers of at least 1")


def not_the_end(error: Exception) -> Exception:
    """The error, or, for StopIteration, a RuntimeError with it as its cause. To Python, StopIteration means that a loop
    is over: let out of a data set, it would silently end the epoch after some of the samples."""
    if not isinstance(error, StopIteration):
        return error
    other = RuntimeError(
        "the data set or collate_fn raised StopIteration, which would end the epoch early: next() was called on an "
        "iterator that had nothing left"
    )
    other.__cause__, other.__notes__ = error, [*getattr(error, "__notes__", ())]
    return other


def short_text() -> str:
    """The first chapter of Moby-Dick (H. Melville, 1851), which comes with the package."""
    return resources.files("tt_data").joinpath("loomings.txt").read_text(encoding="utf-8")


def grid(images, columns: int = 8, gap: int = 1) -> np.ndarray:
    """Images (N, C, H, W), bytes or numbers from 0 to 1, side by side as one image for matplotlib: (height, width, C),
    or (height, width) for one channel, with white between them."""
    array = np.asarray(images)
    if array.ndim != 4 or not len(array):
        raise ValueError(f"grid needs images of shape (N, C, H, W), at least one, not {array.shape}")
    count, channels, height, width = array.shape
    columns = min(columns, count)
    rows, white = -(-count // columns), 255 if array.dtype == np.uint8 else 1
    # Each image gets a gap on its right and below; then a row of images is brought together line by line.
    sheet = np.full((rows * columns, channels, height + gap, width + gap), white, array.dtype)
    sheet[:count, :, :height, :width] = array
    sheet = sheet.reshape(rows, columns, channels, height + gap, width + gap).transpose(0, 3, 1, 4, 2)
    whole = sheet.reshape(rows * (height + gap), columns * (width + gap), channels)
    whole = whole[: len(whole) - gap, : whole.shape[1] - gap]
    return whole[:, :, 0] if channels == 1 else whole
