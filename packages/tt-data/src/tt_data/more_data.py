# # More data
#
# An appendix of chapter 10: what PyTorch's users expect besides the data sets, samplers and transforms of the chapter.

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from tt_data.common import (
    DRAWS, Sampler, Transform, as_arrays, one_by_one_from, padded, refuse_too_small, resolve_generator, row_numbers,
)  # fmt: skip
from tt_data.dataloader import Dataset, at_leaves, batch_of
from tt_tensor import Generator, from_numpy

# ## Data sets end to end
#
# Sample $i$ belongs to the first data set that ends after $i$, and with `searchsorted` we find it for many $i$ at once.
# Each data set then makes a batch of its own samples. We join these batches and bring the samples into the order that
# you asked for.


class ConcatDataset(Dataset):
    """Several data sets, one after the other. A slice of it, or a list of indices, gives a batch."""

    def __init__(self, datasets: Iterable):
        self.datasets = list(datasets)
        self.ends = np.cumsum([len(dataset) for dataset in self.datasets], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, index):
        if isinstance(index, slice | list):
            return self.batch(range(len(self))[index] if isinstance(index, slice) else index)
        which, row = self._places([index])
        return self.datasets[which[0]][int(row[0])]

    @property
    def cumulative_sizes(self) -> list[int]:
        """Where each data set ends."""
        return self.ends.tolist()

    def _places(self, indices):
        found = row_numbers(indices, len(self))
        found = np.where(found < 0, found + len(self), found)
        which = np.searchsorted(self.ends, found, side="right")
        return which, found - np.append(0, self.ends)[which]

    # A batch takes one batch of each data set, and sorts what comes back.

    def batch(self, indices):
        which, rows = self._places(indices)
        used = np.unique(which)
        parts = [batch_of(self.datasets[k], rows[which == k].tolist()) for k in used]
        back = np.argsort(np.concatenate([np.flatnonzero(which == k) for k in used]))
        return at_leaves(partial(_joined, back), parts)


def _joined(order, leaves):
    if isinstance(leaves[0], list):
        together = [item for leaf in leaves for item in leaf]
        return [together[i] for i in order]
    return from_numpy(np.concatenate(as_arrays(leaves))[order])


# The indices go across both data sets.


def check_concat():
    whole = ConcatDataset(["abc", range(3, 5)])
    assert len(whole) == 5 and whole[1] == "b" and whole[-1] == 4
    assert ConcatDataset([range(2), range(2, 5)]).batch([4, 0, 2, 1]).tolist() == [4, 0, 2, 1]


# If we put data sets side by side instead, each of them contributes a part of every sample.


class StackDataset(Dataset):
    """Sample i is a tuple of the samples i of several data sets; by keywords, a dictionary of them."""

    def __init__(self, *args, **kwargs):
        if bool(args) == bool(kwargs):
            raise ValueError("StackDataset takes data sets by position or by keyword: one of the two, and at least one")
        self.datasets = args or kwargs
        lengths = [len(dataset) for dataset in args or kwargs.values()]
        if len(set(lengths)) > 1:
            raise ValueError(f"data sets side by side need one length; they have {lengths}")
        self.length = lengths[0]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index):
        if isinstance(self.datasets, dict):
            return {name: dataset[index] for name, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)


def check_stack():
    assert StackDataset(range(3), "abc")[1] == (1, "b")
    assert StackDataset(x=range(3), y="abc")[-1] == {"x": 2, "y": "c"}


# ## More orders
#
# Two more samplers: one for some of the samples, in random order; and one for samples with weights, so that you can see
# a rare class more often.


class SubsetRandomSampler(Sampler):
    """The given numbers, in a new random order each time."""

    def __init__(self, indices: Sequence[int], generator: Generator | np.random.Generator | None = None):
        self.indices, self.generator = indices, generator
        resolve_generator(generator)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self):
        order = resolve_generator(self.generator).permutation(len(self.indices))
        return (self.indices[i] for i in one_by_one_from(order))


# With replacement, we draw a number from 0 to 1 for each sample, and look up among the running sums of the weights
# where it falls.


class WeightedRandomSampler(Sampler):
    """`num_samples` draws, in which sample i comes with a probability proportional to weights[i]."""

    def __init__(
        self, weights: Sequence[float], num_samples: int, replacement: bool = True,
        generator: Generator | np.random.Generator | None = None,
    ):
        self.weights, self.num_samples = np.asarray(weights, np.float64), num_samples
        self.replacement, self.generator = replacement, generator
        resolve_generator(generator)
        if self.weights.ndim != 1 or not (self.weights >= 0).all() or not 0 < self.weights.sum() < math.inf:
            raise ValueError(f"weights are numbers of 0 or more, one for each sample and not all 0, not {weights}")
        possible = np.count_nonzero(self.weights)
        if num_samples < 0 or (not replacement and num_samples > possible):
            raise ValueError(f"{num_samples} samples cannot be drawn from {possible} that have a weight above 0")

    def __len__(self) -> int:
        return self.num_samples

    # As in the chapter, we draw at most `DRAWS` indices at a time.

    def __iter__(self):
        shares, count = self.weights / self.weights.sum(), len(self.weights)
        if not self.replacement:
            yield from one_by_one_from(resolve_generator(self.generator).choice(count, self.num_samples, False, shares))
            return
        ends = np.cumsum(shares)
        ends /= ends[-1]
        for start in range(0, self.num_samples, DRAWS):
            drawn = resolve_generator(self.generator).random(min(DRAWS, self.num_samples - start))
            yield from ends.searchsorted(drawn, side="right").tolist()


def check_weights():
    drawn = list(WeightedRandomSampler([0, 1, 3], 4000))
    assert 0 not in drawn and 2.5 < drawn.count(2) / drawn.count(1) < 3.6


# Where several processes train together, each takes every `num_replicas`-th index of one order. So that all get the
# same number of samples, we repeat the first indices at the end, or, with `drop_last`, leave out the last ones. All
# processes draw the order from the same seed and the number of the epoch. Therefore a program that forgets `set_epoch`
# gets the same order in every epoch. (`tt_opt` has another way, which splits each batch.)


class DistributedSampler(Sampler):
    """The numbers for process `rank` of `num_replicas`, as torch.utils.data.distributed.DistributedSampler.

    The two must be given, since a sampler does not know the other processes: tt_opt.world_size() is how many there
    are. Raises ValueError if they are not, or if the rank is out of range."""

    def __init__(
        self, dataset, num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True, seed: int = 0,
        drop_last: bool = False,
    ):
        if num_replicas is None or rank is None or not 0 <= rank < num_replicas:
            raise ValueError(f"give num_replicas and a rank from 0 up to it, not {num_replicas} and {rank}")
        self.dataset, self.num_replicas, self.rank = dataset, num_replicas, rank
        self.shuffle, self.seed, self.drop_last, self.epoch = shuffle, seed, drop_last, 0
        rounded = len(dataset) if drop_last else len(dataset) + num_replicas - 1
        self.num_samples = rounded // num_replicas
        self.total_size = self.num_samples * num_replicas

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self):
        count = len(self.dataset)
        order = np.random.default_rng([self.seed, self.epoch]).permutation(count) if self.shuffle else np.arange(count)
        return one_by_one_from(np.resize(order, self.total_size)[self.rank :: self.num_replicas])

    def set_epoch(self, epoch: int) -> None:
        """Another epoch has another order, on all processes the same."""
        self.epoch = epoch


def check_each_process_has_its_part():
    parts = [list(DistributedSampler(range(10), 4, rank)) for rank in range(4)]
    assert [len(part) for part in parts] == [3] * 4 and {i for part in parts for i in part} == set(range(10))


# ## More transforms
#
# These two leave nothing to chance.


class Pad(Transform):
    """A frame of `padding` pixels of `fill` around each image."""

    def __init__(self, padding: int, fill: float = 0):
        self.padding, self.fill = padding, fill

    def apply(self, images, random):
        return padded(images, self.padding, self.fill)


class CenterCrop(Transform):
    """The window of `size` (a number, or height and width) in the middle of each image."""

    def __init__(self, size: int | tuple[int, int]):
        self.size = (size, size) if isinstance(size, int) else tuple(size)

    def apply(self, images, random):
        refuse_too_small(images, self.size)
        top, left = ((whole - part) // 2 for whole, part in zip(images.shape[2:], self.size))
        return images[:, :, top : top + self.size[0], left : left + self.size[1]]


def check_the_middle_of_a_padded_image_is_the_image():
    images = np.arange(24).reshape(1, 2, 3, 4)
    assert np.array_equal(CenterCrop((3, 4))(Pad(2)(images)), images)


# `Cutout` puts a square of zeros somewhere into each image, so that a network must not rely on any single detail
# (DeVries and Taylor, 2017). It needs no loop over the images. A pixel belongs to the square if its row is one of the
# square's rows and its column one of the square's columns. For both, we compare a short list of numbers with one number
# for each image.


class Cutout(Transform):
    """A square of `size` by `size` zeros in each image, at random, always whole."""

    def __init__(self, size: int):
        self.size = size

    def apply(self, images, random):
        """A copy of the images with the square, in all channels at the same position. Raises ValueError if the square
        does not fit (`refuse_too_small`)."""
        refuse_too_small(images, (self.size, self.size))
        count, _, height, width = images.shape
        inside = []
        for length in (height, width):
            first = random.integers(length - self.size + 1, size=(count, 1))
            inside.append((np.arange(length) >= first) & (np.arange(length) < first + self.size))
        square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return np.where(square, np.zeros((), images.dtype), images)


# Each image has nine zeros in each channel, and not always at the same position.


def check_cutout():
    cut = Cutout(3)(np.ones((50, 2, 8, 8), np.uint8))
    assert ((cut == 0).sum(axis=(2, 3)) == 9).all() and len(np.unique(cut, axis=0)) > 10


__all__ = [
    "CenterCrop", "ConcatDataset", "Cutout", "DistributedSampler", "Pad", "StackDataset", "SubsetRandomSampler",
    "WeightedRandomSampler",
]
