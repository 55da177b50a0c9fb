# # Data loader
#
# At the end of this chapter a `DataLoader` stands between the data and `fit`: it shuffles, puts batches together, moves
# and mirrors images on the way, has the next batch ready when it is wanted, and does all that the same way twice.

# ## The hurt
#
# Chapter 09 ended with a network that takes many times as long if it sees its images one by one. So let us write the
# program that everybody writes first, on images of the size of the next data set: photographs of 32 by 32 pixels in
# three colours. Take an image, make numbers of its bytes, move it by a few pixels so that the network never sees quite
# the same one, and train on it. Then the next.

from __future__ import annotations

import math
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path
from queue import Empty, SimpleQueue
from types import GenericAlias
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tt_autograd import Callback, fit
from tt_data.workers import stop, worker_processes
from tt_optim import Adam
from tt_spatial import LeNet
from tt_tensor import (
    Dropout, Generator, Module, Sequential, Tensor, cross_entropy, drawing_from, from_numpy, generator, manual_seed,
    measure,
)


def one_by_one(images: np.ndarray, labels: np.ndarray) -> None:
    """Train a LeNet on images (N, 3, 32, 32) of bytes, one at a time, each moved at random."""
    model = LeNet(channels=3, size=32)
    optimizer = Adam(model.parameters())
    for image, label in zip(images, labels):
        padded = np.pad(image, ((0, 0), (4, 4), (4, 4)))
        top, left = generator().integers(9, size=2)
        moved = padded[:, top : top + 32, left : left + 32].astype(np.float32) / 255
        loss = cross_entropy(model(from_numpy(moved[None])), from_numpy(label[None]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


# The photographs themselves can wait; for a clock, noise is as good. CIFAR-10 has 50,000 of them to learn from, and a
# network wants to see each of them some thirty times.

TO_SEE = 30 * 50_000


def noise(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Bytes in the shape of `count` photographs of CIFAR-10, and labels."""
    return generator().integers(0, 256, (count, 3, 32, 32), np.uint8), generator().integers(0, 10, count)


def show_hurt():
    seconds = measure(one_by_one, *noise(64)).seconds / 64
    print(f"one image: {seconds * 1e3:.1f} ms; thirty times 50,000 of them: {seconds * TO_SEE / 60:.0f} minutes")


# That is for a network of five small layers; one that is any good on photographs takes many times as long. And the
# processor's arithmetic units are nearly idle, because the time goes into thousands of small calls for each image, in
# Python and NumPy, none of which has enough to do.

# ## The smallest thing that could work
#
# Stack some samples, train on the stack.


def stacked(samples: Sequence[tuple[np.ndarray, int]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of `size` samples, in the order in which they come."""
    for start in range(0, len(samples), size):
        inputs, labels = zip(*samples[start : start + size])
        yield from_numpy(np.stack(inputs)), from_numpy(np.array(labels))


# It runs, and it disappoints. Data often come sorted: first all images of class 0, then all of class 1. Here is the
# share of the commonest class in each batch of such a list.


def show_sorted():
    samples = [(np.zeros(1), label) for label in range(5) for _ in range(64)]
    shares = [np.bincount(labels.numpy()).max() / len(labels) for _, labels in stacked(samples, 32)]
    print("commonest class:", " ".join(f"{share:.0%}" for share in shares))


# A network that sees zeros only for ten steps learns to say zero. Next we would shuffle the list, then shuffle it anew
# for the next epoch, then find that the samples do not fit into memory as numbers of 32 bits, and load them as they are
# needed, and crop them differently each time: the forty lines of chapter 08 again.

# ## The idea
#
# There are three questions, and they have nothing to do with each other.
#
# - What is sample number $i$? That knows the *data set*, and nothing else: `dataset[i]`, `len(dataset)`.
# - In which order? That knows the *sampler*, which never sees a sample. It deals in numbers from 0 to $N - 1$.
# - How do several samples become one batch? By *collating* them.
#
# What travels between the three is only numbers:
#
# $$ \text{sampler} \xrightarrow{\;7,\,2,\,9,\,4,\,\dots\;} \text{groups} \xrightarrow{\;[7, 2],\,[9, 4],\,\dots\;}
# \text{data set} \xrightarrow{\;x_7, x_2\;} \text{batch} $$
#
# To shuffle a data set of a terabyte is then to shuffle its numbers. And once a batch is given by its numbers, anybody
# can prepare it: this thread, another one, another process. The result will be the same.

# ## A data set
#
# Two methods, as in PyTorch: one sample by its number, and how many there are. We add a third, which PyTorch has only
# lately: a whole batch at once. A data set that can do no better gets it from the other two. So does a data set that is
# derived from another and changes only its samples: the other's batches would not have the change.


class Dataset:
    """Samples by number: `dataset[i]` is one, and `len(dataset)` says how many there are. Derive from it, and write
    `__getitem__` and `__len__`."""

    __class_getitem__: Any = classmethod(GenericAlias)  # so that Dataset[int] can be written

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if "__getitem__" in vars(cls) and "batch" not in vars(cls):
            cls.batch = Dataset.batch  # type: ignore[method-assign]

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs a method __getitem__(self, index), for one sample")

    def batch(self, indices: Sequence[int]) -> Any:
        """The samples at `indices` as one batch."""
        return collate([sample_of(self, index) for index in indices])


# When sample 31,407 of 50,000 turns out to be broken, the error should tell its number. Python lets us add a note to an
# error without changing anything else about it.


def sample_of(dataset, index: int) -> Any:
    """dataset[index]; an error gets a note that says which sample it was."""
    try:
        return dataset[index]
    except Exception as error:
        error.add_note(f"This was sample {index} of {type(dataset).__name__}.")
        raise


# ## Collating
#
# A sample is a number, an array, a text; or, more often, a tuple or a dictionary of them, and these may hold tuples and
# dictionaries again. So collating goes down into them, and joins what it finds at the end of each branch. Samples of
# different forms cannot be joined.


def _refuse_other_forms(trees: Sequence) -> None:
    """ValueError unless all trees have the first one's keys, if that is a dictionary, or its length, if it is a
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


def _tuple_like(first: Any, parts: Iterable) -> tuple:
    """The parts as a tuple; as a named one, if `first` has names."""
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)


# Going down is a function of its own, because we shall need it again. What lies below a key, or at one place of the
# tuples, is again a sequence of trees, only smaller: so the function calls itself, and what is neither dictionary nor
# tuple is a leaf.


def at_leaves(join: Callable[[list], Any], trees: Sequence) -> Any:  # exercise
    """A tuple or dictionary like each of the trees, however deep, with `join` of the list of corresponding leaves in
    its places. Dictionaries have the keys of the first one, in its order, and named tuples keep their names
    (`_tuple_like`). Raises ValueError for trees of different forms (`_refuse_other_forms`)."""
    first = trees[0]
    _refuse_other_forms(trees)
    if isinstance(first, dict):
        return {key: at_leaves(join, [tree[key] for tree in trees]) for key in first}
    if isinstance(first, tuple):
        return _tuple_like(first, [at_leaves(join, branch) for branch in zip(*trees)])
    return join(list(trees))


def check_at_leaves():
    joined = at_leaves(max, [({"x": 1, "y": (2, 3)}, 4), ({"x": 5, "y": (0, 7)}, 1)])
    assert joined == ({"x": 5, "y": (2, 7)}, 4)


# Arrays and tensors of one shape get a new dimension in front. Of Python's numbers, integers become `int64`, which is
# what a class label has to be, and others `float32`. One float among integers makes the whole batch float, as it does
# everywhere in this course. Texts stay what they are, in a list.


def as_arrays(leaves: Sequence) -> list[np.ndarray]:
    """Arrays, tensors and numbers as arrays of one dtype: Python's floats are float32, and where one is a float, all
    are. Raises TypeError for what is none of these."""
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


def collate(samples: Sequence) -> Any:
    """Samples as one batch: arrays, tensors and numbers are stacked, texts are listed, tuples and dictionaries keep
    their form. Raises ValueError for shapes that differ, TypeError for what cannot be stacked."""
    if not len(samples):
        raise ValueError("there is nothing to collate: a batch has at least one sample")
    return at_leaves(_stacked, samples)


# That leaves the ends of the branches. (An exercise with a star may be left out: the course's own function then takes
# its place.)


def _stacked(leaves: list) -> Any:  # exercise (starred)
    """A tensor with one row for each leaf, of the dtype that `as_arrays` gives; texts as a list, if all are texts.
    Raises ValueError, with the shapes, if they differ, and TypeError for what cannot be stacked."""
    if all(isinstance(leaf, str | bytes) for leaf in leaves):
        return leaves
    arrays = as_arrays(leaves)
    if len(shapes := {array.shape for array in arrays}) > 1:
        raise ValueError(f"samples of different shapes do not stack: {sorted(shapes)}; pad them in a collate_fn")
    return from_numpy(np.stack(arrays))


def check_collate():
    images, labels, names = collate([(np.zeros((3, 8, 8)), 7, "a"), (np.ones((3, 8, 8)), 1, "b")])
    assert images.shape == (2, 3, 8, 8) and labels.tolist() == [7, 1] and names == ["a", "b"]
    assert collate([{"x": 0.5}, {"x": 1}])["x"].dtype == np.float32


# ## Data sets made of others
#
# If the data are tensors already, there is a better way to a batch than sample by sample: one index with many rows. For
# 32 rows that is one call instead of 32, and a copy of exactly what is wanted.


class TensorDataset(Dataset):
    """Tensors with the same number of rows; sample i is a tuple of their rows i."""

    def __init__(self, *tensors: Tensor):
        if wrong := [type(tensor).__name__ for tensor in tensors if not isinstance(tensor, Tensor)]:
            raise TypeError(f"TensorDataset takes tensors, not {', '.join(wrong)}: use from_numpy for an array")
        if len({len(tensor) for tensor in tensors}) != 1:
            raise ValueError(f"tensors need the same number of rows; there are {[len(t) for t in tensors]}")
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index):
        return tuple(tensor[index] for tensor in self.tensors)

    def batch(self, indices):  # exercise
        """The rows at `indices` of all tensors: a tuple of tensors, which are copies and have no gradient.
        `row_numbers` checks the indices."""
        rows = row_numbers(indices, len(self))
        return tuple(from_numpy(tensor.numpy()[rows]) for tensor in self.tensors)


def row_numbers(indices: Sequence[int], count: int) -> np.ndarray:
    """The indices of a batch as an array. Raises ValueError if there are none, TypeError for what is no integer, and
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


# The same rows for all tensors: that is what keeps an image and its label together. And the fast way has to agree with
# the slow one, which is what `Dataset` itself does.


def check_a_batch_is_its_samples():
    data = TensorDataset(Tensor(np.arange(10.0)), Tensor(np.arange(10.0) * 2))
    for fast, slow in zip(data.batch([7, 2, 7]), Dataset.batch(data, [7, 2, 7])):
        assert fast.tolist() == slow.tolist()


# A part of a data set is a list of numbers: number $i$ of the part is number `indices[i]` of the whole. Anything with
# `__getitem__` and `__len__` will do as the whole, a list for instance; `batch_of` knows both kinds.


def batch_of(dataset, indices: Sequence[int]) -> Any:
    """dataset.batch(indices); of a list, or of whatever else is no Dataset, the collated samples."""
    return dataset.batch(indices) if isinstance(dataset, Dataset) else Dataset.batch(dataset, indices)


class Subset(Dataset):
    """The samples of `dataset` at `indices`, in that order. A slice of it, or a list of indices, gives a batch."""

    def __init__(self, dataset, indices: Sequence[int]):
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index):
        if isinstance(index, slice | list):
            return self.batch(range(len(self))[index] if isinstance(index, slice) else index)
        return self.dataset[self.indices[index]]

    def batch(self, indices):
        return batch_of(self.dataset, [self.indices[index] for index in row_numbers(indices, len(self)).tolist()])


# Parts that do not overlap are what validation needs. The lengths may be counts, or shares that add up to 1.


def split_sizes(total: int, lengths: Sequence[float]) -> list[int]:  # exercise (starred)
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


# If each part drew its own samples, two parts could have one in common, and the network would be examined on what it
# has learned. Cutting *one* permutation into pieces puts each sample into exactly one of them.


def random_split(  # exercise
    dataset, lengths: Sequence[float], generator: Generator | np.random.Generator | None = None
) -> list[Subset]:
    """Subsets of the given lengths, or shares of the whole, at random (`chance(generator)`), that have no sample in
    common and together have all. Their indices are lists of integers. Raises ValueError for lengths that `split_sizes`
    refuses."""
    sizes = split_sizes(len(dataset), lengths)
    order = iter(chance(generator).permutation(len(dataset)).tolist())
    return [Subset(dataset, list(islice(order, size))) for size in sizes]


# Where chance comes in, you may give a generator of NumPy, or a `Generator` of `tt_tensor`, which holds one; otherwise
# it is the one generator of chapter 01, so that one seed fixes everything. While a batch is being prepared, that is the
# batch's own. Why, we shall see when several batches are prepared at the same time.


def chance(given: Generator | np.random.Generator | None = None) -> np.random.Generator:
    """The generator to draw from: `given`, or that of chapter 01. Raises TypeError for anything that is not a
    generator."""
    given = given.numpy if isinstance(given, Generator) else given
    if given is not None and not isinstance(given, np.random.Generator):
        raise TypeError(f"generator is a random generator, such as np.random.default_rng(0), not {given!r}")
    return given or generator()


def check_random_split():
    parts = random_split(range(10), [0.5, 0.25, 0.25])
    assert [len(part) for part in parts] == [6, 2, 2]
    assert sorted(part[i] for part in parts for i in range(len(part))) == list(range(10))


# The opposite, several data sets laid end to end, is `ConcatDataset`, in the appendix `more_data`.

# ## Orders
#
# A sampler is anything that can be iterated, again and again, and yields numbers of samples. The class `Sampler` is
# there to derive from, and adds nothing.


class Sampler:
    """An order: yields the numbers of samples, or lists of them. Derive from it, and write `__iter__`."""

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


# The one that is used for training draws a new permutation each time it is iterated. Drawn once, when the sampler is
# made, it would be the same in every epoch, and the same samples would meet in the same batches for ever. If more
# samples are asked for than there are, one permutation follows the other; if fewer, the last one is cut off.
#
# With `replacement` each draw is made from all samples. Then some come twice in an epoch and some, about $1/e$ of them,
# not at all. There may be any number of draws, 10,000,000,000 for a training that only a clock ends, so both are made
# in portions, when they are needed.

DRAWS = 1 << 12  # numbers in a portion


def one_by_one_from(order: np.ndarray) -> Iterator[int]:
    """The numbers of an array as Python's integers, a portion at a time."""
    for start in range(0, len(order), DRAWS):
        yield from order[start : start + DRAWS].tolist()


class RandomSampler(Sampler):
    """All samples in a new random order each time; or, with replacement, `num_samples` draws."""

    def __init__(
        self, data_source, replacement: bool = False, num_samples: int | None = None,
        generator: Generator | np.random.Generator | None = None,
    ):
        self.data_source, self.replacement = data_source, replacement
        self.num_samples = len(data_source) if num_samples is None else num_samples
        self.generator = generator
        chance(generator)
        if self.num_samples < 0 or (self.num_samples and not len(data_source)):
            raise ValueError(f"{self.num_samples} samples cannot be drawn from {len(data_source)}")

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self):
        return self.draws() if self.replacement else self.permutations()

    def permutations(self) -> Iterator[int]:  # exercise
        """`num_samples` numbers, as Python's integers: permutations of all samples, one after the other. Each is drawn
        from `chance(self.generator)` when its first number is needed."""
        left = self.num_samples
        while left:
            order = chance(self.generator).permutation(len(self.data_source))[:left]
            yield from one_by_one_from(order)
            left -= len(order)

    def draws(self) -> Iterator[int]:  # exercise (starred)
        """`num_samples` numbers, as Python's integers, each drawn from all samples; at most `DRAWS` of them at a time,
        from `chance(self.generator)`."""
        for start in range(0, self.num_samples, DRAWS):
            size = min(DRAWS, self.num_samples - start)
            yield from chance(self.generator).integers(len(self.data_source), size=size).tolist()


def check_each_pass_has_another_order():
    sampler = RandomSampler(range(100))
    first, second = list(sampler), list(sampler)
    assert first != second and sorted(first) == sorted(second) == list(range(100))


# Two more are wanted now and then: some samples only, in random order, and samples with weights, if one class is rare
# and one wants to see it more often. `SubsetRandomSampler` and `WeightedRandomSampler` are in the appendix.
#
# And numbers become groups. Ten samples in groups of four make 4, 4 and 2. The last one is short, and belongs to the
# epoch like the others; only who asks for it (`drop_last`) gets rid of it, because batch normalization does not like a
# batch of one.


class BatchSampler(Sampler):
    """The numbers of `sampler` in lists of `batch_size`. The last one may be shorter; with drop_last it is left out."""

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool = False):
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise ValueError(f"batch_size is a whole number of at least 1, not {batch_size!r}")
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __len__(self) -> int:
        full, left = divmod(len(self.sampler), self.batch_size)  # type: ignore[arg-type]
        return full + (left > 0 and not self.drop_last)

    def __iter__(self):  # exercise
        """Lists of the sampler's next numbers. The sampler is iterated anew, and need not have a length."""
        numbers = iter(self.sampler)
        while group := list(islice(numbers, self.batch_size)):
            if len(group) == self.batch_size or not self.drop_last:
                yield group


def check_the_last_batch():
    assert list(BatchSampler(range(10), 4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(BatchSampler(range(10), 4, drop_last=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


# ## The loader
#
# A batch is a *task*: its number, the numbers of its samples, and a seed. What comes of it depends on nothing else. In
# particular it stays away from the generator of chapter 01, from which, at the same time, the network's dropout may be
# drawing. The batch gets a generator of its own, `np.random.default_rng([seed, number])`, made of the seed of the epoch
# and the batch's number, and `with drawing_from(...)` puts it into the place of the common one until the batch is done.
# So it does not matter which thread prepares it, or when, and a data set may draw from `generator()` or call `tt.rand`.

Task = tuple[int, list[int], int]


def batch_of_task(dataset, collate_fn: Callable | None, task: Task) -> Any:  # exercise
    """The batch of a task (number, indices, seed): what `collate_fn` makes of the list of samples, which `sample_of`
    fetches; without a collate_fn, what `batch_of` gives. All of that draws from the batch's own generator."""
    number, indices, seed = task
    with drawing_from(np.random.default_rng([seed, number])):
        if collate_fn is None:
            return batch_of(dataset, indices)
        return collate_fn([sample_of(dataset, index) for index in indices])


def check_a_batch_has_chance_of_its_own():
    draw = lambda samples: generator().integers(1000, size=8).tolist()
    first, other = (batch_of_task(range(9), draw, (number, [4, 2], 7)) for number in (0, 1))
    generator().random(5)
    assert first == batch_of_task(range(9), draw, (0, [4, 2], 7)) != other


# `load` does the same, and tells which batch it was if something is wrong with it.


def load(dataset, collate_fn: Callable | None, task: Task) -> Any:
    """The batch of a task; an error gets a note with the number of the batch."""
    number, indices, _ = task
    try:
        return batch_of_task(dataset, collate_fn, task)
    except Exception as error:
        if isinstance(error, StopIteration):
            error = _not_the_end(error)
        error.add_note(f"This was batch {number} of the data loader, with the samples {indices[:8]}...")
        raise error


# One error needs care. To Python, `StopIteration` means that a loop is over. Let out of here, it would end the epoch
# after half of the samples, without a word.


def _not_the_end(error: StopIteration) -> RuntimeError:
    other = RuntimeError(
        "the data set or collate_fn raised StopIteration, which would end the epoch early: next() was called on an "
        "iterator that had nothing left"
    )
    other.__cause__, other.__notes__ = error, [*getattr(error, "__notes__", ())]
    return other


# `fit` of chapter 08 interrupts and resumes a training in the middle of an epoch by setting the generator of chapter 01
# back to where the epoch began. A loader that was given generators of its own has to help with that, and offers their
# states under the names that `fit` looks for. NumPy's generators hand out their state and take it back under the same
# name, `bit_generator.state`.


class Resumable:
    """What has generators, or samplers with generators, and can set them back."""

    def state_dict(self) -> dict[str, Any]:
        """Where the generators stand."""
        return {"generators": [own.bit_generator.state for own in self._generators()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # exercise
        """Put the generators where they stood when `state_dict` was called. Raises ValueError if there were not as
        many."""
        for own, saved in zip(self._generators(), state["generators"], strict=True):
            own.bit_generator.state = saved

    def _generators(self) -> list[np.random.Generator]:
        sampler, batch_sampler = (getattr(self, name, None) for name in ("sampler", "batch_sampler"))
        holders = (self, sampler, batch_sampler, getattr(batch_sampler, "sampler", None))
        found = [getattr(holder, "generator", None) for holder in holders]
        return list({id(own): chance(own) for own in found if own is not None}.values())


# Now the three answers are put together. The arguments are PyTorch's, and most of them only choose a sampler.
#
# All chance of an epoch is drawn in the moment in which the epoch begins, in the thread that asks for it: first the
# order, then the seed. From there on everything is determined. A sampler is not read to its end for that, because it
# may be as long as it likes; it is asked for the first group now, and for each of the others when it is needed. What it
# draws later follows from the seed.


def later(groups: Iterator, seed: int) -> Iterator:
    """The groups that are left, one by one; meanwhile their sampler draws from a generator of its own."""
    own = np.random.default_rng([seed])
    while True:
        with drawing_from(own):
            group = list(islice(groups, 1))
        if not group:
            return
        yield group[0]


class DataLoader(Resumable):
    """Batches of `dataset` (a Dataset, or anything with `__getitem__` and `__len__`), anew each time it is iterated.

    batch_size: samples in a batch; the last one may have fewer, or, with drop_last, is left out. shuffle: a new random
    order in each pass; sampler: an order of your own; batch_sampler: groups of your own. collate_fn: a function from a
    list of samples to a batch. generator: without one, everything follows from `manual_seed`.
    num_workers: how many threads prepare prefetch_factor batches each ahead of time; with multiprocessing_context
    ("spawn", "fork", "forkserver") they are processes. timeout: seconds to wait for a batch, 0 for ever. The batches
    are the same whatever the workers, if their chance comes from `generator()`, `chance()` or functions like `tt.rand`;
    NumPy's old generator and Python's `random` are the program's, except in processes, where each batch seeds them.
    Raises ValueError and TypeError for arguments that cannot be meant."""

    def __init__(
        self, dataset, batch_size: int = 1, shuffle: bool = False, sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[list[int]] | None = None, num_workers: int = 0, collate_fn: Callable | None = None,
        drop_last: bool = False, generator: Generator | np.random.Generator | None = None, prefetch_factor: int = 2,
        timeout: float = 0, multiprocessing_context=None,
    ):
        _refuse_contradictions(batch_size, shuffle, sampler, batch_sampler, drop_last)
        if sampler is None and batch_sampler is None and not hasattr(dataset, "__len__"):
            name = type(dataset).__name__
            raise TypeError(f"{name} has no __len__, which says what samples there are: define it, or give a sampler")
        _refuse_impossible_workers(num_workers, prefetch_factor, timeout, multiprocessing_context)
        chance(generator)
        if sampler is None:
            sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
        self.dataset, self.collate_fn, self.generator, self.sampler = dataset, collate_fn, generator, sampler
        self.batch_sampler = BatchSampler(sampler, batch_size, drop_last) if batch_sampler is None else batch_sampler
        self.batch_size, self.drop_last = batch_size, drop_last
        self.num_workers, self.prefetch_factor = num_workers, prefetch_factor
        self.timeout, self.multiprocessing_context = timeout, multiprocessing_context

    def __len__(self) -> int:
        return len(self.batch_sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator:  # exercise
        """One pass, for which the first group and a seed are drawn at once, from `chance(self.generator)`. Then `load`
        for each task, here or, with num_workers, by `prepared`; `later` has the other groups."""
        groups = iter(self.batch_sampler)
        first = list(islice(groups, 1))
        seed = int(chance(self.generator).integers(2**63))
        numbered = enumerate(chain(first, later(groups, seed)))
        tasks = ((number, list(group), seed) for number, group in numbered)
        work = partial(load, self.dataset, self.collate_fn)
        return prepared(self, work, tasks) if self.num_workers else map(work, tasks)


def _refuse_contradictions(batch_size, shuffle, sampler, batch_sampler, drop_last) -> None:
    if sampler is not None and shuffle:
        raise ValueError("a sampler says the order, and so does shuffle: give one of them")
    if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
        raise ValueError("batch_sampler makes the groups: leave out batch_size, shuffle, sampler and drop_last")


def _refuse_impossible_workers(num_workers, prefetch_factor, timeout, context) -> None:
    if any(isinstance(n, bool) or not isinstance(n, int | np.integer) for n in (num_workers, prefetch_factor)):
        raise TypeError(f"num_workers and prefetch_factor are integers, not {num_workers!r} and {prefetch_factor!r}")
    if num_workers < 0 or prefetch_factor < 1 or timeout < 0:
        raise ValueError(
            f"num_workers and timeout are 0 or more and prefetch_factor at least 1; they are {num_workers}, {timeout} "
            f"and {prefetch_factor}"
        )
    if context is not None and not num_workers:
        raise ValueError(f"multiprocessing_context={context!r} needs num_workers of at least 1")


# Each pass sees everything once, in another order, and keeps the pairs together.


def check_the_loader():
    x = Tensor(np.arange(10.0))
    data = DataLoader(TensorDataset(x, x * 2), batch_size=4, shuffle=True)
    first, second = ([(a.tolist(), b.tolist()) for a, b in data] for _ in range(2))
    assert first != second and [len(a) for a, _ in first] == [4, 4, 2] and len(data) == 3
    assert sorted(v for a, _ in first for v in a) == x.tolist() and all([2 * v for v in a] == b for a, b in first)


# ## Ahead of time
#
# While the network computes, other threads could prepare the next batches. Two queues are all they need. Whoever is
# free takes a task from the first, and puts what has come of it, a batch or an error, into the second. What comes out
# there is in the order in which it happened to be finished, so it still has to be brought into the order of the tasks:
# what comes too early is kept until it is its turn. And since batches take memory, only so many tasks are under way at
# any time.


def in_order(  # exercise
    submit: Callable[[Task], Any], arrived: Callable[[], tuple[int, Any]], tasks: Iterable[Task], ahead: int
) -> Iterator[Any]:
    """The results of tasks (number, ...), in the order of the tasks. `submit(task)` gives a task to the workers;
    `arrived()` waits for any result that is ready, and returns (number of the task, result). At most `ahead` tasks
    are under way, or waiting for their turn."""
    rest, early, due = iter(tasks), dict[int, Any](), deque[int]()
    for task in islice(rest, ahead):
        submit(task)
        due.append(task[0])
    while due:
        number = due.popleft()
        while number not in early:
            other, result = arrived()
            early[other] = result
        for task in islice(rest, 1):
            submit(task)
            due.append(task[0])
        yield early.pop(number)


# The last worker of three is done first: that must not matter.


def check_in_order():
    pending: list[Task] = []
    tasks: list[Task] = [(number, [], 0) for number in range(9)]
    results = in_order(pending.append, lambda: (pending[-1][0], pending.pop()), tasks, 3)
    assert list(results) == tasks


# This is what a worker does. An error is a result, too: it is kept, with its traceback and its notes, and raised where
# the batch is asked for. So an error of a worker looks like an error of one's own.


def serve(work: Callable[[Task], Any], tasks: SimpleQueue, results: SimpleQueue) -> None:
    """Carry out tasks until one of them is None; results are (number, (batch, None)) or (number, (None, error))."""
    for task in iter(tasks.get, None):
        try:
            results.put((task[0], (work(task), None)))
        except BaseException as error:
            results.put((task[0], (None, error)))


# The threads have to end with the pass, however it ends: after the last batch, with an error, or when the loop that
# consumes the batches is left, by `break` or by Ctrl-C. Then the tasks that nobody has begun are thrown away, and each
# worker finds a None. A worker that is late cannot be waited for. (`SimpleQueue` is the one queue of Python's that
# Ctrl-C cannot interrupt in the middle of its work. With the others, and with the futures of `concurrent.futures`, it
# leaves a lock locked now and then, and the threads wait for it for ever.)


@contextmanager
def working(works: Sequence[Callable[[Task], Any]], timeout: float | None) -> Iterator[tuple[Callable, Callable]]:
    """Functions `submit` and `arrived`, as `in_order` wants them, to threads of which each calls one of the `works`.
    `arrived` raises Late after `timeout` seconds."""
    tasks: SimpleQueue = SimpleQueue()
    results: SimpleQueue = SimpleQueue()
    threads = [
        threading.Thread(target=serve, args=(work, tasks, results), name="tt_data worker", daemon=True)
        for work in works
    ]
    try:
        for thread in threads:
            thread.start()
        yield tasks.put, lambda: _next(results, timeout)
    except BaseException as error:
        stop(works)
        _leave(tasks, threads, wait=not isinstance(error, Late))
        raise
    _leave(tasks, threads, wait=True)


def _leave(tasks: SimpleQueue, threads: list[threading.Thread], wait: bool) -> None:
    with suppress(Empty):
        while True:
            tasks.get_nowait()
    for _ in threads:
        tasks.put(None)
    for thread in threads:
        if wait and thread.ident and not sys.is_finalizing():
            thread.join()


class Late(RuntimeError):
    """A batch has not come in time."""


def _next(results: SimpleQueue, timeout: float | None) -> tuple[int, Any]:
    try:
        return results.get(timeout=timeout)
    except Empty:
        raise Late(f"no batch has come for {timeout} seconds; is the data set slow, or does it hang?") from None


# Threads are enough as long as the work is done by NumPy, which lets other threads run meanwhile, or by the disk or the
# network, which are waited for. A data set that works in Python itself is better off with processes. Then a thread does
# not work itself; it sends the task to a process of its own, and waits for the answer. How that is done, and what it
# takes to be rid of a process again, is told in the appendix `workers`.


def prepared(loader: DataLoader, work: Callable[[Task], Any], tasks: Iterable[Task]) -> Iterator[Any]:
    """The batches of the tasks, in their order, prepared by the workers of a loader."""
    count, context = loader.num_workers, loader.multiprocessing_context
    functions = nullcontext([work] * count) if context is None else worker_processes(count, work, context)
    with functions as works, working(works, loader.timeout or None) as (submit, arrived):
        for batch, error in in_order(submit, arrived, tasks, count * loader.prefetch_factor):
            if error is not None:
                raise error
            yield batch


# What is it good for? Let a batch be five milliseconds away, on a disk, say, and let a step of the training take ten.


class Distant(Dataset):
    """64 samples that are waited for, five milliseconds a batch."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index):
        return index

    def batch(self, indices):
        time.sleep(0.005)
        return super().batch(indices)


def show_prefetching():
    for workers in (0, 1, 2):
        began = time.perf_counter()
        for _ in DataLoader(Distant(), batch_size=4, num_workers=workers):
            time.sleep(0.010)
        print(f"{workers} workers: {(time.perf_counter() - began) / 16 * 1e3:4.1f} ms a step")


# One worker hides the waiting. A second one has nothing left to hide; it would, if a batch were farther away than a
# step is long. More workers than that only take the processor away from the training.
#
# Before you measure it, predict what a disk does that is farther away: a batch takes 25 milliseconds, a step ten as
# before. How long is it from one step to the next?


def predict_step_times() -> list[float]:  # exercise
    """The milliseconds from one step to the next, on average over many of them, if a batch takes a worker 25 ms and a
    step of the training takes 10 ms: a list of four numbers, for 0, 1, 2 and 3 workers."""
    return [max(10, 25 / workers) if workers else 25 + 10 for workers in range(4)]


# ## Images
#
# Numbers of 32 bits take four times the space of the bytes that a photograph is made of. CIFAR-10 as `float32` takes
# 614 MB, as bytes 154. So a data set of images holds bytes, and makes numbers of a batch when it is asked for one. That
# is also the moment to change them: a *transform* takes images and chance, and gives images.


class Images(Dataset):
    """Images of bytes (N, C, H, W) with class numbers (N,). A batch is what `transform(images, random)` makes of them,
    and int64 labels; without a transform, numbers from 0 to 1. `classes` names the classes."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, classes: Sequence[str] = (), transform: Callable | None = None
    ):
        images, labels = np.asarray(images), np.asarray(labels)
        if images.ndim != 4 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"images are bytes (N, C, H, W) with labels (N,), not {images.dtype} {images.shape} with {labels.shape}"
            )
        self.images, self.labels = images, class_numbers(labels)
        self.classes, self.transform = tuple(classes), transform or ToFloat()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index):
        images, labels = self.batch([index])
        return images[0], labels.item()

    def batch(self, indices, random: np.random.Generator | None = None):
        chosen = row_numbers(indices, len(self))
        images = self.transform(self.images[chosen], chance(random))
        return from_numpy(np.asarray(images)), from_numpy(self.labels[chosen])


def class_numbers(labels: np.ndarray) -> np.ndarray:
    """Labels as int64. ValueError for those that are no integers: 1.7 is no class."""
    if labels.dtype.kind in "biuf":
        with np.errstate(invalid="ignore"):
            numbers = labels.astype(np.int64)
        if (numbers == labels).all():
            return numbers
    raise ValueError(f"labels are the numbers of classes, integers, not {labels[:5].tolist()}... of {labels.dtype}")


# ## Transforms
#
# A transform sees a whole batch. That is unusual: PyTorch's work on one image, and are called once for each. In Python
# a call costs more than moving 3,000 bytes, so for us the batch is the unit. What must not get lost is that *each image
# has its own luck*; a batch in which all images are moved by the same two pixels teaches less.


class Transform:
    """A change of images (N, C, H, W): `transform(images, random)`. Derive from it, and write `apply`, for arrays.
    It draws from `random` only, and leaves the images that it was given as they are."""

    def __call__(self, images, random: np.random.Generator | None = None):
        """The changed images: a tensor of a tensor, an array of an array. Chance comes from `random`, or from the
        generator of chapter 01."""
        array = images.numpy() if isinstance(images, Tensor) else images
        if np.ndim(array) != 4:
            raise ValueError(f"a transform wants images of shape (N, C, H, W), not {np.shape(array)}")
        changed = self.apply(array, chance(random))
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


# A network learns best from numbers around 0 with a spread around 1 (chapter 04 said why). So from each channel its
# mean over all training images is subtracted, and the rest divided by the standard deviation. Mean and deviation are
# those of numbers from 0 to 1, as everybody quotes them. Put together with the division by 255, that is one factor and
# one summand for each channel:
#
# $$ \frac{x / 255 - \mu}{\sigma} = x \cdot \frac{1}{255\,\sigma} - \frac{\mu}{\sigma} . $$
#
# Computed like that, the bytes are read once and the numbers written once, and once more in place for the summand.


class Normalize(Transform):
    """(x - mean) / std for each channel, in float32. Bytes are taken as numbers from 0 to 1: 255 is 1."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean, self.std = (np.asarray(values, np.float64)[:, None, None] for values in (mean, std))
        if not (self.std > 0).all() or self.mean.shape != self.std.shape:
            raise ValueError(f"a mean and a std above 0 for each channel are wanted, not {mean} and {std}")

    def apply(self, images, random):  # exercise (starred)
        """The normalized images, float32, in a new array. Raises ValueError, with both numbers, if there is neither one
        mean for each channel nor one for all."""
        if len(self.mean) not in (1, images.shape[1]):
            raise ValueError(f"{len(self.mean)} means and stds do not fit {images.shape[1]} channels")
        unit = 255 if images.dtype == np.uint8 else 1
        numbers = np.multiply(images, (1 / (unit * self.std)).astype(np.float32), dtype=np.float32)
        numbers -= (self.mean / self.std).astype(np.float32)
        return numbers


class ToFloat(Normalize):
    """Bytes as numbers from 0 to 1, in float32."""

    def __init__(self):
        super().__init__([0.0], [1.0])


def check_normalize():
    images = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1)
    assert np.allclose(Normalize([0.5], [0.25])(images).ravel(), [-2, -1.2, 2])
    assert ToFloat()(images).dtype == np.float32


# Cropping is the interesting one. Each image is set into a frame of zeros, and from the frame a window is cut, at a
# place of its own. In a loop over the images that is easy. Without a loop it looks hard, until one remembers the
# `windows` of chapter 09: `sliding_window_view` shows all windows of all images at once, 81 of them if the frame is 4
# wide, without moving a byte. Of these we pick one for each image, by index arrays. Only what is picked is copied.


class RandomCrop(Transform):
    """A window of `size` (a number, or height and width) from each image, at random, after `padding` pixels of `fill`
    were added on each side."""

    def __init__(self, size: int | tuple[int, int], padding: int = 0, fill: float = 0):
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.padding, self.fill = padding, fill

    def apply(self, images, random):  # exercise
        """A window of each image in its frame (`padded`), of the dtype of the images. Its place is drawn for each image
        by itself; rows and columns are drawn independently, and all places are equally likely. Raises ValueError if the
        window does not fit (`refuse_too_small`)."""
        framed = padded(images, self.padding, self.fill)
        refuse_too_small(framed, self.size)
        free = np.subtract(framed.shape[2:], self.size)
        top, left = (random.integers(room + 1, size=len(images)) for room in free)
        windows = sliding_window_view(framed, self.size, axis=(2, 3))
        return windows[np.arange(len(images)), :, top, left]


def padded(images: np.ndarray, padding: int, fill: float = 0) -> np.ndarray:
    """Images with a frame of `padding` pixels around them. ValueError for a `fill` that the images cannot hold."""
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
    """ValueError if a window of `size` does not fit into the images."""
    if images.shape[2] < size[0] or images.shape[3] < size[1]:
        raise ValueError(f"a window of {size} does not fit into images of {images.shape[2:]}; add padding")


# A mirrored cat is a cat. (A mirrored 3 is not a 3: what may be done to images depends on what they show.)


class RandomHorizontalFlip(Transform):
    """Each image is mirrored with probability p: left becomes right."""

    def __init__(self, p: float = 0.5):
        if not 0 <= p <= 1:
            raise ValueError(f"p is a probability, from 0 to 1, not {p}")
        self.p = p

    def apply(self, images, random):  # exercise (starred)
        """A copy of the images, in which some are mirrored."""
        flipped, chosen = images.copy(), random.random(len(images)) < self.p
        flipped[chosen] = images[chosen, :, :, ::-1]
        return flipped


# Here are six photographs as they are, and below them what the network gets to see in three epochs. (If CIFAR-10 is not
# on this machine, it is six digits.) `grid`, from the appendix, lays images out side by side.


def photographs() -> Images:
    """CIFAR-10's test images, or, where they cannot be found, the digits that come with the course."""
    from tt_data.datasets import CIFAR10, Digits

    try:
        return CIFAR10(train=False)
    except FileNotFoundError:
        return Digits(train=False)


def show_transforms():
    import matplotlib.pyplot as plt

    from tt_data.more_data import grid

    images = photographs().images[:6]
    change = Compose([RandomCrop(images.shape[2:], padding=images.shape[2] // 8), RandomHorizontalFlip()])
    figure, axis = plt.subplots(figsize=(6, 4))
    axis.imshow(grid(np.concatenate([images, *(change(images) for _ in range(3))]), columns=6), cmap="gray_r")
    axis.axis("off")
    return figure


# ## The witness
#
# That a crop without a loop is right can be seen by comparing it with a loop: each image it returns must be one of the
# 81 windows of its own frame, cut out by hand.


def check_each_crop_is_a_window_of_its_image():
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 6, 6), np.uint8)
    framed = padded(images, 2)
    for crop, frame in zip(RandomCrop(6, padding=2)(images), framed):
        windows = [frame[:, top : top + 6, left : left + 6] for top in range(5) for left in range(5)]
        assert sum(np.array_equal(crop, window) for window in windows) == 1


# "The same batches whatever the workers" is a claim about bits, and is checked on bits.


def check_the_same_batches_whatever_the_workers():
    data, seen = Images(*noise(40), transform=RandomCrop(32, padding=4)), []
    for workers in (0, 1, 3):
        manual_seed(5)
        loader = DataLoader(data, batch_size=16, shuffle=True, num_workers=workers)
        seen.append(b"".join(images.numpy().tobytes() for _ in range(2) for images, _ in loader))
    assert seen[0] == seen[1] == seen[2]


# And the test of chapter 08: a training that is cut off in the middle of an epoch and resumed has to end with the same
# weights. Now with shuffling, with moved images, with dropout, and with two threads that were two batches ahead when
# the power went.


class _PowerCut(Callback):
    def on_step(self, run):
        if run.steps == 5:
            raise KeyboardInterrupt


def _short_training(path: Path, *callbacks: Callback) -> Module:
    manual_seed(5)
    model = Sequential(LeNet(channels=3, size=32), Dropout(0.2))
    data = DataLoader(Images(*noise(48), transform=RandomCrop(32, padding=4)), 16, shuffle=True, num_workers=2)
    fit(
        model, cross_entropy, Adam(model.parameters()), data, epochs=3, callbacks=callbacks, checkpoint=path,
        checkpoint_every=2, resume=True, progress=False,
    )
    return model


def check_a_training_is_resumed_bit_for_bit():
    with tempfile.TemporaryDirectory() as folder:
        whole = _short_training(Path(folder) / "whole", Callback())
        try:
            _short_training(Path(folder) / "cut", _PowerCut())
        except KeyboardInterrupt:
            resumed = _short_training(Path(folder) / "cut", Callback())
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(whole.parameters(), resumed.parameters()))


# ## The cost
#
# What must a batch of 128 photographs cost? Nothing is computed here to speak of; bytes are moved, so let us count
# them, each reading and each writing. A photograph has 3,072 bytes, in its frame 4,800.


def show_cost():
    images, _ = noise(50_000)
    rows, random = generator().permutation(50_000)[:128], generator()
    batch, bytes_, floats = images[rows], 128 * 3072, 128 * 3072 * 4
    steps = (
        ("rows", lambda: images[rows], 2 * bytes_),
        ("crop", lambda: RandomCrop(32, padding=4).apply(batch, random), 128 * 4800 + 3 * bytes_),
        ("flip", lambda: RandomHorizontalFlip().apply(batch, random), 4 * bytes_),
        ("normalize", lambda: Normalize([0.5], [0.25]).apply(batch, random), bytes_ + 3 * floats),
    )
    for name, step, moved in steps:
        seconds = measure(step, span=0.1).seconds
        print(f"{name:9s} {moved / 1e6:5.2f} MB   {seconds * 1e3:5.2f} ms   {moved / seconds / 1e9:5.1f} GB/s")


# Together that is a small part of a step of the network, on any machine. The bytes predict the order of magnitude, and
# not more. A batch of this size fits into the processor's caches, which are faster than the memory, some of them much;
# and the rows of a crop are 32 bytes long, which makes copying them a matter of many small steps. So the most bytes do
# not take the most time.
#
# It is another matter if the same is done image by image. Here is the whole way from the data set to a batch, for three
# kinds of data sets with the same images.


class Singly(Images):
    """Images that are changed one at a time, and collated."""

    def __getitem__(self, index):
        return self.transform(self.images[index : index + 1], chance())[0], int(self.labels[index])

    def batch(self, indices, random=None):
        return Dataset.batch(self, indices)


def show_batches_against_samples():
    images, labels = noise(2048)
    change = Compose([RandomCrop(32, padding=4), RandomHorizontalFlip(), Normalize([0.5], [0.25])])
    for name, kind in (("one by one", Singly), ("as a batch", Images)):
        loader = DataLoader(kind(images, labels, transform=change), batch_size=128, shuffle=True)
        seconds = measure(lambda: [None for _ in loader]).seconds
        print(f"{name}: {seconds / len(loader) * 1e3:5.2f} ms a batch of 128")


# And the hours? The network of the beginning, on images of the same size, moved in the same way, now in batches of 64.


def batch_by_batch(images: np.ndarray, labels: np.ndarray) -> None:
    """What `one_by_one` does, with a loader and `fit`."""
    model = LeNet(channels=3, size=32)
    data = DataLoader(Images(images, labels, transform=Compose([RandomCrop(32, padding=4), ToFloat()])), 64, True)
    fit(model, cross_entropy, Adam(model.parameters()), data, epochs=1, progress=False)


def show_hours():
    for name, program, count in (("one by one", one_by_one, 64), ("in batches", batch_by_batch, 640)):
        seconds = measure(program, *noise(count)).seconds / count
        print(f"{name}: {seconds * 1e3:5.2f} ms an image, thirty epochs in {seconds * TO_SEE / 60:5.1f} minutes")


# The network is the same, and so is the arithmetic. What is saved are calls. (It also makes fewer steps, and in an
# epoch of large batches less is learned than in one of small ones; chapter 08 had a table of that.)


# ## Errors you will meet
#
# An error inside of a data set is the hardest to find, because a loader, a thread and a sampler stand between it and
# the line that asked for a batch. So it is shown here with its notes.


def show_errors():
    data = TensorDataset(Tensor(np.zeros((10, 2))))
    broken = ["7", "12", "9,5", "3"]
    words = type("Words", (Dataset,), {"__len__": lambda self: 4, "__getitem__": lambda self, i: int(broken[i])})()
    attempts = (
        lambda: DataLoader(data, batch_size=0),
        lambda: DataLoader(data, shuffle=True, sampler=range(10)),
        lambda: collate([np.zeros(3), np.zeros(4)]),
        lambda: random_split(data, [6, 3]),
        lambda: RandomCrop(32)(np.zeros((1, 3, 28, 28))),
        lambda: list(DataLoader(words, batch_size=2, num_workers=2)),
    )
    for attempt in attempts:
        try:
            attempt()
        except (TypeError, ValueError) as error:
            print("\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]))


# ## Exercises
#
# Besides what is marked in the text:
#
# 1. `channel_statistics`: the mean and the standard deviation of each channel over a whole data set, batch by batch, so
#    that it may be larger than the memory. For CIFAR-10's training images they are 0.4914, 0.4822, 0.4465 and 0.2470,
#    0.2435, 0.2616.
# 2. `Cutout`: a square of zeros somewhere in each image, so that a network must not rely on any single detail (DeVries
#    and Taylor, 2017).
# 3. Train LeNet on the digits with and without `RandomCrop(8, padding=1)`, and look at the two losses again that
#    chapter 08 taught to read. What does moving the images do to each of them?
#
# For the first one, remember that the variance is the mean of the squares minus the square of the mean. If all pixels
# are nearly equal, these two are nearly equal as well, and their difference is rounding error, perhaps below zero. So
# count all pixels from the first one of their channel, which changes no variance.


def channel_statistics(loader: Iterable) -> tuple[np.ndarray, np.ndarray]:  # exercise
    """Mean (C,) and standard deviation (C,), in float64, over all pixels of the images (N, C, H, W) in batches of
    (images, labels), which stay as they are. Divided by the number of pixels. Raises ValueError if there is no
    batch."""
    count, total, squares, first = 0, np.zeros(1), np.zeros(1), None
    for images, _ in loader:
        pixels = images.numpy().astype(np.float64)
        first = pixels[:1, :, :1, :1].copy() if first is None else first
        pixels -= first
        count += pixels.size // pixels.shape[1]
        total = total + pixels.sum(axis=(0, 2, 3))
        squares = squares + (pixels**2).sum(axis=(0, 2, 3))
    if first is None:
        raise ValueError("the loader has no batch, and nothing has no mean")
    mean = total / count
    return mean + first.ravel(), np.sqrt(np.maximum(squares / count - mean**2, 0))


def check_channel_statistics():
    images, labels = noise(50)
    mean, std = channel_statistics(DataLoader(Images(images, labels), batch_size=16))
    assert np.allclose(mean, images.mean(axis=(0, 2, 3)) / 255) and np.allclose(std, images.std(axis=(0, 2, 3)) / 255)


# The second one needs no loop over the images either. A pixel belongs to the square if its row lies in the square's
# rows and its column in the square's columns; both are comparisons of a short list with one number for each image.


class Cutout(Transform):
    """A square of `size` by `size` zeros in each image, at random, always whole."""

    def __init__(self, size: int):
        self.size = size

    def apply(self, images, random):  # exercise (starred)
        """A copy of the images with the square, in all channels at the same place. Raises ValueError if the square
        does not fit (`refuse_too_small`)."""
        refuse_too_small(images, (self.size, self.size))
        count, _, height, width = images.shape
        inside = []
        for length in (height, width):
            first = random.integers(length - self.size + 1, size=(count, 1))
            inside.append((np.arange(length) >= first) & (np.arange(length) < first + self.size))
        square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return np.where(square, np.zeros((), images.dtype), images)


def check_cutout():
    cut = Cutout(3)(np.ones((50, 2, 8, 8), np.uint8))
    assert ((cut == 0).sum(axis=(2, 3)) == 9).all() and len(np.unique(cut, axis=0)) > 10


# ## A road not taken
#
# PyTorch's loader is older than the batch-wise way: transforms work on one image, and to make up for it there are
# worker processes, shared memory to bring their tensors back, a thread that pins them, and `persistent_workers` because
# starting processes takes seconds. TensorFlow's `tf.data` makes a graph of the whole pipeline and runs it without
# Python. JAX has no loader at all and leaves it to others; tinygrad's examples put all of CIFAR-10 on the device and
# crop there. Ours is for data that fit into memory as bytes, or are read quickly. A data set of a million large JPEG
# files needs decoders in many processes, and then PyTorch's way is the right one.

# ## What hurts next
#
# Images are numbers from the beginning. Here is something that is not.


def show_text():
    from tt_data.datasets import short_text

    text = short_text()
    print(collate([text[22:38], text[71:79]]))
    try:
        collate([np.frombuffer(part.encode(), np.uint8) for part in (text[22:38], text[71:79])])
    except ValueError as error:
        print(f"ValueError: {error}")
    words = text.split()
    print(f"{len(words):,} words, {len(set(words)):,} of them different, in {len(text.encode()):,} bytes")


# A loader hands texts through as they are, and a network cannot multiply them. As bytes they are numbers, but numbers
# that mean little one by one, and there are many of them; as words there are fewer, but nearly every second one is a
# new one, and the next text has others again. What the units of a text are has to be found out from texts: chapter 11,
# *Tokenization*.

__all__ = [
    "BatchSampler", "Compose", "Cutout", "DataLoader", "Dataset", "Images", "Late", "Normalize", "RandomCrop",
    "RandomHorizontalFlip", "RandomSampler", "Sampler", "SequentialSampler", "Subset", "TensorDataset", "ToFloat",
    "Transform", "as_arrays", "at_leaves", "batch_of", "chance", "channel_statistics", "collate", "in_order", "padded",
    "random_split", "row_numbers", "sample_of",
]
