# # Data loader
#
# At the end of this chapter we have a `DataLoader` between the data and `fit`. It shuffles, puts batches together,
# moves and mirrors images on the way, has the next batch ready when the training asks for it, and does all that the
# same way twice.

# ## The hurt
#
# Chapter 09 ended with a network that takes many times as long if it sees its images one by one. Let us write that slow
# program out in full, because it is the first that comes to mind, and run it on images of the size of the next data
# set: photographs of 32 by 32 pixels in three colours. We take an image, turn its bytes into numbers, move it by a few
# pixels so that the network never sees quite the same one, and train on it. Then we take the next.

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from types import GenericAlias
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tt_autograd import fit
from tt_autograd.training import digits
from tt_data.common import (
    DRAWS, Compose, Sampler, SequentialSampler, Transform, as_arrays, grid, images_and_classes, later, not_the_end,
    one_by_one_from, padded, refuse_contradictions, refuse_other_forms, refuse_too_small, refuse_unequal_tensors,
    resolve_generator, row_numbers, short_text, split_sizes, tuple_like,
)  # fmt: skip
from tt_data.workers import worker_threads
from tt_optim import Adam
from tt_spatial import LeNet
from tt_tensor import Generator, Tensor, cross_entropy, drawing_from, from_numpy, generator, manual_seed, measure

# In each step we draw a position, cut the image out there, and train on a batch of one.


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


# The photographs themselves can wait; for a clock, noise serves as well. CIFAR-10 has 50,000 images to learn from, and
# a network needs to see each of them some thirty times.

TO_SEE = 30 * 50_000


def noise(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Bytes in the shape of `count` photographs of CIFAR-10, and labels."""
    return generator().integers(0, 256, (count, 3, 32, 32), np.uint8), generator().integers(0, 10, count)


# We time 32 steps and multiply.


def show_hurt():
    seconds = measure(one_by_one, *noise(32)).seconds / 32
    print(f"one image: {seconds * 1e3:.1f} ms; thirty times 50,000 of them: {seconds * TO_SEE / 60:.0f} minutes")


# That is the price for a network of five small layers, and a network that reads photographs well is many times as
# large. The processor is busy all the time, but its arithmetic units are nearly idle: the time goes into thousands of
# small calls for each image, in Python and NumPy, and none of them has enough to do.

# ## The smallest thing that could work
#
# We stack some samples into a *mini-batch*, and train on the stack. (From here on we say *batch* for short, as most
# people do.)


def stacked(samples: Sequence[tuple[np.ndarray, int]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of `size` samples, in the order in which they come."""
    for start in range(0, len(samples), size):
        inputs, labels = zip(*samples[start : start + size])
        yield from_numpy(np.stack(inputs)), from_numpy(np.array(labels))


# It runs, but it disappoints us, because data often come sorted: first all images of class 0, then all of class 1. Here
# is the share of the most common class in each batch of such a list.


def show_sorted():
    samples = [(np.zeros(1), label) for label in range(5) for _ in range(64)]
    shares = [np.bincount(labels.numpy()).max() / len(labels) for _, labels in stacked(samples, 32)]
    print("most common class:", " ".join(f"{share:.0%}" for share in shares))


# Each batch has a single class, and after a few batches of zeros a network learns to say zero. So next we would shuffle
# the list. Then we would shuffle it anew for the next epoch, find that the samples do not fit into memory as numbers of
# 32 bits, load them when they are needed, and crop them differently each time. These would be the forty lines of
# chapter 08 again.

# ## The idea
#
# We can avoid that by separating three questions that have nothing to do with each other.
#
# - What is sample number $i$? The *data set* knows that, and nothing else: `dataset[i]`, `len(dataset)`.
# - In which order do we see the samples? The *sampler* decides, and it never sees a sample. It deals in indices from 0
#   to $N - 1$.
# - How do several samples become one batch? We *collate* them.
#
# Only indices travel between the three:
#
# $$ \text{sampler} \xrightarrow{\;7,\,2,\,9,\,4,\,\dots\;} \text{groups} \xrightarrow{\;[7, 2],\,[9, 4],\,\dots\;}
# \text{data set} \xrightarrow{\;x_7, x_2\;} \text{batch} $$
#
# Here is the same for ten samples, one image of each digit, in groups of four.


def digit_images() -> np.ndarray:
    """One image of each digit, from 0 to 9, as bytes (10, 1, 8, 8)."""
    x, labels = (tensor.numpy() for tensor in digits()[1])
    firsts = [np.flatnonzero(labels == digit)[0] for digit in range(10)]
    return np.round(x[firsts] * 255).astype(np.uint8).reshape(10, 1, 8, 8)


def show_from_sampler_to_batches():
    """A random order of ten indices; the same indices in groups of four, four and two; the images of each group."""
    import matplotlib.pyplot as plt

    order, images = np.random.default_rng(2).permutation(10).tolist(), digit_images()
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 1.9), width_ratios=[4, 4, 2])
    figure.suptitle(f"sampler: {', '.join(map(str, order))}")
    for axis, group in zip(axes, BatchSampler(order, 4)):
        axis.set_title(str(group))
        axis.imshow(grid(images[group], columns=4), cmap="gray")
        axis.axis("off")
    return figure


# Two things follow from this. To shuffle a data set of a terabyte, we shuffle its indices. And because a batch is given
# by its indices, this thread can prepare it, or another thread, or another process. The result will be the same.

# ## A data set
#
# A data set has two methods, as in PyTorch: `__getitem__` returns one sample by its index, and `__len__` says how many
# there are. We add a third, which PyTorch gained only recently: `batch` returns a whole batch at once. A data set
# that has no faster way inherits it, and gets its batches from the other two. That includes a data set which is derived
# from another and changes only its samples, because the other's batches would miss the change; `__init_subclass__`
# takes care of that.


class Dataset:
    """Samples by index: `dataset[i]` is one, and `len(dataset)` says how many there are. Derive from it, and write
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


# If sample 31,407 of 50,000 turns out to be broken, the error should name its index. Python lets us add a note to an
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
# A sample can be a number, an array or a text. More often it is a tuple or a dictionary of them, and these may again
# contain tuples and dictionaries. So we descend into them, and join what we find at the end of each branch.
#
# The descent is a function of its own, because we shall need it again. Below a key, or at one position of the tuples,
# there is again a sequence of trees, only smaller. So the function calls itself, and treats everything that is neither
# a dictionary nor a tuple as a leaf. Samples of different forms cannot be joined; `refuse_other_forms` says so. (It is
# in the module `common`, with what else checks arguments.)


def at_leaves(join: Callable[[list], Any], trees: Sequence) -> Any:  # exercise
    """A tuple or dictionary like each of the trees, however deep, with `join` of the list of corresponding leaves in
    the leaves' places. Dictionaries have the keys of the first one, in its order, and named tuples keep their names
    (`tuple_like`). Raises ValueError for trees of different forms (`refuse_other_forms`)."""
    first = trees[0]
    refuse_other_forms(trees)
    if isinstance(first, dict):
        return {key: at_leaves(join, [tree[key] for tree in trees]) for key in first}
    if isinstance(first, tuple):
        return tuple_like(first, [at_leaves(join, branch) for branch in zip(*trees)])
    return join(list(trees))


# For example, `at_leaves(max, [{"x": 1, "y": (2, 3)}, {"x": 5, "y": (0, 7)}])` is `{"x": 5, "y": (2, 7)}`.
#
# With that, collating is one call. You need a `collate_fn` of your own only for samples that it cannot join, such as
# texts of different lengths as arrays.


def collate(samples: Sequence) -> Any:
    """Samples as one batch: arrays, tensors and numbers are stacked, texts are listed, tuples and dictionaries keep
    their form. Raises ValueError for shapes that differ, TypeError for samples that cannot be stacked."""
    if not len(samples):
        raise ValueError("there is nothing to collate: a batch has at least one sample")
    return at_leaves(_stacked, samples)


# What remains is to join the leaves. Arrays and tensors of one shape get a new dimension in front. Python's integers
# become `int64`, the type of class labels, and its floats become `float32`. One float among integers makes the whole
# batch float, as everywhere in this course; `as_arrays` takes care of the dtypes. Texts stay as they are, in a list.
# (You may leave out an exercise with a star; the course's own function then takes its place.)


def _stacked(leaves: list) -> Any:  # exercise (starred)
    """A tensor with one row for each leaf, of the dtype that `as_arrays` gives; texts as a list, if all are texts.
    Raises ValueError, with the shapes, if they differ, and TypeError for leaves that cannot be stacked."""
    if all(isinstance(leaf, str | bytes) for leaf in leaves):
        return leaves
    arrays = as_arrays(leaves)
    if len(shapes := {array.shape for array in arrays}) > 1:
        raise ValueError(f"samples of different shapes do not stack: {sorted(shapes)}; pad them in a collate_fn")
    return from_numpy(np.stack(arrays))


# A batch of images, labels and names keeps its three parts, and one float makes a column of numbers float.


def check_collate():
    images, labels, names = collate([(np.zeros((3, 8, 8)), 7, "a"), (np.ones((3, 8, 8)), 1, "b")])
    assert images.shape == (2, 3, 8, 8) and labels.tolist() == [7, 1] and names == ["a", "b"]
    assert collate([{"x": 0.5}, {"x": 1}])["x"].dtype == np.float32


# ## Data sets made of others
#
# If the data are tensors already, we need not collect a batch sample by sample: one index with many rows fetches it.
# For 32 rows that is one call instead of 32, and it copies exactly the rows that we want.


class TensorDataset(Dataset):
    """Tensors with the same number of rows; sample i is a tuple of their rows i."""

    def __init__(self, *tensors: Tensor):
        refuse_unequal_tensors(tensors)
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


# All tensors give the same rows; that keeps an image and its label together. And the fast way must agree with the slow
# one, which is that of `Dataset` itself.


def check_a_batch_is_its_samples():
    data = TensorDataset(Tensor(np.arange(10.0)), Tensor(np.arange(10.0) * 2))
    for fast, slow in zip(data.batch([7, 2, 7]), Dataset.batch(data, [7, 2, 7])):
        assert fast.tolist() == slow.tolist()


# A part of a data set is a list of indices: sample $i$ of the part is sample `indices[i]` of the whole. The whole can
# be anything with `__getitem__` and `__len__`, a list for instance. `batch_of` knows both kinds.


def batch_of(dataset, indices: Sequence[int]) -> Any:
    """dataset.batch(indices); for a list, or anything else that is not a Dataset, the collated samples."""
    return dataset.batch(indices) if isinstance(dataset, Dataset) else Dataset.batch(dataset, indices)


# With it, a part needs only the list.


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


# For validation we need parts that do not overlap. You may give their lengths as counts, or as shares that add up to 1.
# `split_sizes` turns both into counts. (It is in the module `common`.)
#
# If each part drew its own samples, two parts could have one in common, and we would examine the network on samples
# that it has learned. So we cut *one* permutation into pieces, which puts each sample into exactly one of them.
#
# Where a function draws at random, you may give it a generator: one of NumPy's, or a `Generator` of `tt_tensor`, which
# holds one. `resolve_generator` returns it; without one, it returns the generator of chapter 01, so that one seed fixes
# everything. While a batch is being prepared, that is the batch's own. We shall see why when several batches are
# prepared at the same time.


def random_split(  # exercise
    dataset, lengths: Sequence[float], generator: Generator | np.random.Generator | None = None
) -> list[Subset]:
    """Subsets of the given lengths, or shares of the whole, at random (`resolve_generator(generator)`), that have no
    sample in common and together have all. Their indices are lists of integers. Raises ValueError for lengths that
    `split_sizes` refuses."""
    sizes = split_sizes(len(dataset), lengths)
    order = iter(resolve_generator(generator).permutation(len(dataset)).tolist())
    return [Subset(dataset, list(islice(order, size))) for size in sizes]


# For example, `random_split(range(10), [0.5, 0.25, 0.25])` returns parts of 6, 2 and 2 samples: the shares are rounded
# down, and the one sample that is left over goes to the first part. Each sample is in exactly one part.
#
# The opposite, several data sets end to end, is `ConcatDataset`, in the appendix `more_data`.

# ## Orders
#
# Any object that we can iterate again and again, and that yields indices, is a sampler. The class `Sampler` is there to
# derive from, and adds nothing. The simplest order is that of the data set: 0, 1, 2, and so on. We call it
# `SequentialSampler`, and both are in the module `common`.
#
# For training we draw a new permutation each time the sampler is iterated. Drawn once, when the sampler is made, it
# would be the same in every epoch, and the same samples would always meet in the same batches. If you ask for more
# samples than there are, one permutation follows the other; if you ask for fewer, the last one is cut off.
#
# With `replacement`, each draw is made from all samples. Then some come twice in an epoch and some, about $1/e$ of
# them, not at all. There may be any number of draws, 10,000,000,000 for a training that only a clock ends. So we make
# both, the permutations and the draws, in portions, when they are needed. `one_by_one_from` hands out an array's
# elements as Python's integers, and `DRAWS` is the size of a portion.


class RandomSampler(Sampler):
    """All samples in a new random order each time; or, with replacement, `num_samples` draws."""

    def __init__(
        self, data_source, replacement: bool = False, num_samples: int | None = None,
        generator: Generator | np.random.Generator | None = None,
    ):
        self.data_source, self.replacement = data_source, replacement
        self.num_samples = len(data_source) if num_samples is None else num_samples
        self.generator = generator
        resolve_generator(generator)
        if self.num_samples < 0 or (self.num_samples and not len(data_source)):
            raise ValueError(f"{self.num_samples} samples cannot be drawn from {len(data_source)}")

    def __len__(self) -> int:
        return self.num_samples

    # Both kinds of drawing are generators in Python's sense, so nothing is drawn before the first index is asked for.

    def __iter__(self):
        return self.draws() if self.replacement else self.permutations()

    def permutations(self) -> Iterator[int]:  # exercise
        """`num_samples` indices, as Python's integers: permutations of all samples, one after the other. Each is drawn
        from `resolve_generator(self.generator)` when its first index is needed."""
        left = self.num_samples
        while left:
            order = resolve_generator(self.generator).permutation(len(self.data_source))[:left]
            yield from one_by_one_from(order)
            left -= len(order)

    def draws(self) -> Iterator[int]:  # exercise (starred)
        """`num_samples` indices, as Python's integers, each drawn from all samples; at most `DRAWS` of them at a time,
        from `resolve_generator(self.generator)`."""
        for start in range(0, self.num_samples, DRAWS):
            size = min(DRAWS, self.num_samples - start)
            yield from resolve_generator(self.generator).integers(len(self.data_source), size=size).tolist()


# Two passes must differ, and each must contain every sample once.


def check_each_pass_has_another_order():
    sampler = RandomSampler(range(100))
    first, second = list(sampler), list(sampler)
    assert first != second and sorted(first) == sorted(second) == list(range(100))


# Now and then you need two more samplers: one for some of the samples, in random order, and one for samples with
# weights, so that a rare class comes more often. `SubsetRandomSampler` and `WeightedRandomSampler` are in the appendix
# `more_data`.
#
# Finally, indices become groups. Ten samples in groups of four make 4, 4 and 2. The last group is short, but it belongs
# to the epoch like the others. Pass `drop_last` to leave it out, for instance because batch normalization cannot work
# on a batch of one.


class BatchSampler(Sampler):
    """The indices of `sampler` in lists of `batch_size`. The last one may be shorter; with drop_last it is left out."""

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool = False):
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise ValueError(f"batch_size is an integer of at least 1, not {batch_size!r}")
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __len__(self) -> int:
        full, left = divmod(len(self.sampler), self.batch_size)  # type: ignore[arg-type]
        return full + (left > 0 and not self.drop_last)

    def __iter__(self):  # exercise
        """Lists of the sampler's next indices. The sampler is iterated anew, and need not have a length."""
        numbers = iter(self.sampler)
        while group := list(islice(numbers, self.batch_size)):
            if len(group) == self.batch_size or not self.drop_last:
                yield group


# ## The loader
#
# A batch is a *task*: its number, the indices of its samples, and a seed. The batch depends on nothing else. In
# particular, a worker must not draw from the generator of chapter 01, because the network's dropout may be drawing from
# it at the same time. So the batch gets a generator of its own, `np.random.default_rng([seed, number])`, made from the
# seed of the epoch and the batch's number, and `with drawing_from(...)` puts it in place of the common one until the
# batch is done. Therefore it does not matter which thread prepares the batch, or when, and a data set may draw from
# `generator()` or call `tt.rand`.

Task = tuple[int, list[int], int]


def batch_of_task(dataset, collate_fn: Callable | None, task: Task) -> Any:  # exercise
    """The batch of a task (number, indices, seed): the result of `collate_fn` for the list of samples, which
    `sample_of` fetches; without a collate_fn, the result of `batch_of`. All of that draws from the batch's own
    generator."""
    number, indices, seed = task
    with drawing_from(np.random.default_rng([seed, number])):
        if collate_fn is None:
            return batch_of(dataset, indices)
        return collate_fn([sample_of(dataset, index) for index in indices])


# The same task must give the same random numbers, whatever the program draws in between. A task with another number
# must give others.


def check_a_batch_has_a_generator_of_its_own():
    draw = lambda samples: generator().integers(1000, size=8).tolist()
    first, other = (batch_of_task(range(9), draw, (number, [4, 2], 7)) for number in (0, 1))
    generator().random(5)
    assert first == batch_of_task(range(9), draw, (0, [4, 2], 7)) != other


# `load` does the same, and names the batch if something is wrong with it. One error needs care: `StopIteration` would
# end the loop over the loader and so, silently, the epoch. `not_the_end` turns it into another error.


def load(dataset, collate_fn: Callable | None, task: Task) -> Any:
    """The batch of a task; an error gets a note with the number of the batch."""
    number, indices, _ = task
    try:
        return batch_of_task(dataset, collate_fn, task)
    except Exception as error:
        error = not_the_end(error)
        error.add_note(f"This was batch {number} of the data loader, with the samples {indices[:8]}...")
        raise error


# We draw all random numbers of an epoch at the moment when the epoch begins, in the thread that asks for it: first the
# order, then the seed. After that everything is determined. We need not read the sampler to its end for this, because
# it may be as long as it likes. We ask it for the first group now, and for each of the others when we need it. For
# those, `later(groups, seed)` of the module `common` puts another generator in place of chapter 01's, made from the
# seed, while the sampler draws.
#
# One more duty comes from `fit` of chapter 08. It interrupts and resumes a training in the middle of an epoch by
# setting the generator of chapter 01 back to where the epoch began. A loader with generators of its own must help with
# that, so it offers their states under the names that `fit` looks for. NumPy's generators hand out their state and take
# it back under one name, `bit_generator.state`.


class Resumable:
    """Saves and restores the generators of an object and of its samplers."""

    def state_dict(self) -> dict[str, Any]:
        """The current states of the generators."""
        return {"generators": [own.bit_generator.state for own in self._generators()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # exercise
        """Set the generators back to the states that `state_dict` returned. Raises ValueError for another number of
        generators."""
        for own, saved in zip(self._generators(), state["generators"], strict=True):
            own.bit_generator.state = saved

    def _generators(self) -> list[np.random.Generator]:
        sampler, batch_sampler = (getattr(self, name, None) for name in ("sampler", "batch_sampler"))
        holders = (self, sampler, batch_sampler, getattr(batch_sampler, "sampler", None))
        found = [getattr(holder, "generator", None) for holder in holders]
        return list({id(own): resolve_generator(own) for own in found if own is not None}.values())


# Now we put the three answers together. The arguments are PyTorch's, and most of them only choose a sampler.


class DataLoader(Resumable):
    """Batches of `dataset` (a Dataset, or anything with `__getitem__` and `__len__`), anew each time it is iterated.

    The last batch may have fewer samples; drop_last leaves it out. collate_fn: from a list of samples to a batch.
    num_workers: how many threads prepare prefetch_factor batches each ahead of time. Without a generator, everything
    follows from `manual_seed`."""

    # A function of `common` refuses arguments that contradict each other.

    def __init__(
        self, dataset, batch_size: int = 1, shuffle: bool = False, sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[list[int]] | None = None, num_workers: int = 0, collate_fn: Callable | None = None,
        drop_last: bool = False, generator: Generator | np.random.Generator | None = None, prefetch_factor: int = 2,
    ):
        refuse_contradictions(dataset, batch_size, shuffle, sampler, batch_sampler, drop_last)
        resolve_generator(generator)
        if sampler is None:
            sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
        self.dataset, self.collate_fn, self.generator, self.sampler = dataset, collate_fn, generator, sampler
        self.batch_sampler = BatchSampler(sampler, batch_size, drop_last) if batch_sampler is None else batch_sampler
        self.batch_size, self.drop_last = batch_size, drop_last
        self.num_workers, self.prefetch_factor = num_workers, prefetch_factor

    def __len__(self) -> int:
        return len(self.batch_sampler)  # type: ignore[arg-type]

    # One pass: draw, number the tasks, and carry them out. `prefetch`, which comes below, does that ahead of time.

    def __iter__(self) -> Iterator:  # exercise
        """One pass, for which the first group and a seed are drawn at once, from `resolve_generator(self.generator)`.
        Then `load` for each task, here or, with num_workers, by `prefetch`; `later` has the other groups."""
        groups = iter(self.batch_sampler)
        first = list(islice(groups, 1))
        seed = int(resolve_generator(self.generator).integers(2**63))
        numbered = enumerate(chain(first, later(groups, seed)))
        tasks = ((number, list(group), seed) for number, group in numbered)
        work = partial(load, self.dataset, self.collate_fn)
        return prefetch(self, work, tasks) if self.num_workers else map(work, tasks)

    # The workers are threads, as "Ahead of time" describes. A subclass can override this method to use other workers,
    # such as processes.

    def workers(self, work: Callable[[Task], Any]):
        """A context manager with the functions `submit` and `arrived` of the workers, which call `work`."""
        return worker_threads([work] * self.num_workers, None)


# Each pass sees everything once, in another order, and keeps the pairs together.


def check_the_loader():
    x = Tensor(np.arange(10.0))
    data = DataLoader(TensorDataset(x, x * 2), batch_size=4, shuffle=True)
    first, second = ([(a.tolist(), b.tolist()) for a, b in data] for _ in range(2))
    assert first != second and [len(a) for a, _ in first] == [4, 4, 2] and len(data) == 3
    assert sorted(v for a, _ in first for v in a) == x.tolist() and all([2 * v for v in a] == b for a, b in first)


# ## Ahead of time
#
# While the network computes, other threads could prepare the next batches. This is called *prefetching*, and two queues
# are all it needs. Each free worker takes a task from the first queue and puts the result, a batch or an error, into
# the second. Here are the numbers of eight batches on their way:
#
# ```mermaid
# flowchart LR
#     T["tasks: 6, 7"] --> A["worker 0: batch 2"] --> R["results: 4"]
#     T --> B["worker 1: batch 5"] --> R
#     R --> O["waits for its turn: 3"] --> N["training: 1"]
# ```
#
# The results arrive in the order in which the workers finish, so we must bring them into the order of the tasks. Here
# batch 3 is ready, but worker 0 is still busy with batch 2. So we keep batch 3 until its turn has come. And because
# batches take memory, we limit how many tasks are under way at any time; here there are six, from 2 to 7.


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


# Here the last of three workers is always done first. That must not matter.


def check_in_order():
    pending: list[Task] = []
    tasks: list[Task] = [(number, [], 0) for number in range(9)]
    results = in_order(pending.append, lambda: (pending[-1][0], pending.pop()), tasks, 3)
    assert list(results) == tasks


# The rest is in the module `workers`: `worker_threads` starts the threads, connects them with two queues, and ends them
# with the pass, however that ends. An error is a result, too. A worker keeps it, with its traceback and its notes, and
# we raise it where the batch is asked for. So an error in a worker looks like an error in your own code.
#
# Threads are enough as long as NumPy does the work, because it lets other threads run meanwhile, or as long as we wait
# for a disk or a network. A data set that works in Python itself is better off with processes. The appendix
# *PyTorch's loader* has them, and the module `workers` describes how we start such a process and end it again.


def prefetch(loader: DataLoader, work: Callable[[Task], Any], tasks: Iterable[Task]) -> Iterator[Any]:
    """The batches of the tasks, in their order, prepared ahead of time by the workers of a loader."""
    ahead = loader.num_workers * loader.prefetch_factor
    with loader.workers(work) as (submit, arrived):
        for batch, error in in_order(submit, arrived, tasks, ahead):
            if error is not None:
                raise error
            yield batch


# What do we gain? Let a batch be five milliseconds away, on a disk, say, and let a step of the training take ten.


def distant(samples: list) -> list:
    """Samples as a batch that takes five milliseconds to arrive."""
    time.sleep(0.005)
    return samples


# We measure it with 0, 1 and 2 workers.


def show_prefetching():
    for workers in (0, 1, 2):
        began = time.perf_counter()
        for _ in DataLoader(range(64), batch_size=4, num_workers=workers, collate_fn=distant):
            time.sleep(0.010)
        print(f"{workers} workers: {(time.perf_counter() - began) / 16 * 1e3:4.1f} ms a step")


# One worker hides the waiting. A second one has nothing left to hide; it would, if a batch were farther away than a
# step is long. More workers than that only take the processor away from the training.
#
# Before you measure it, predict the effect of a slower disk: a batch takes 25 milliseconds, a step ten as before. How
# long is it from one step to the next?


def predict_step_times() -> list[float]:  # exercise
    """The milliseconds from one step to the next, on average over many of them, if a batch takes a worker 25 ms and a
    step of the training takes 10 ms: a list of four numbers, for 0, 1, 2 and 3 workers."""
    return [max(10, 25 / workers) if workers else 25 + 10 for workers in range(4)]


# ## Images
#
# Our next data are photographs. A photograph consists of bytes, and numbers of 32 bits take four times the space:
# CIFAR-10 takes 614 MB as `float32`, and 154 MB as bytes. So our data set of images holds bytes, and converts a batch
# when it is asked for one. That is also the moment to change the images: a *transform* takes images and a random
# generator, and returns images.


class Images(Dataset):
    """Images of bytes (N, C, H, W) with class numbers (N,). A batch is the result of `transform(images, random)` and
    int64 labels; without a transform, the images become numbers from 0 to 1. `classes` names the classes."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, classes: Sequence[str] = (), transform: Callable | None = None
    ):
        self.images, self.labels = images_and_classes(images, labels)
        self.classes, self.transform = tuple(classes), transform or ToFloat()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index):
        images, labels = self.batch([index])
        return images[0], labels.item()

    def batch(self, indices, random: np.random.Generator | None = None):
        chosen = row_numbers(indices, len(self))
        images = self.transform(self.images[chosen], resolve_generator(random))
        return from_numpy(np.asarray(images)), from_numpy(self.labels[chosen])


# ## Transforms
#
# To change the training images at random, so that the network sees more of them than there are, is called *data
# augmentation*. It is a form of *regularization*: a network that never sees the same image twice cannot memorize it.
#
# Our transforms see a whole batch. That is unusual: PyTorch's work on one image, and are called once for each. In
# Python a call costs more than moving 3,000 bytes, so for us the batch is the unit. However, *each image must draw
# random numbers of its own*; a batch in which all images are moved by the same two pixels teaches less.
#
# The class `Transform` turns this into `transform(images, random)`: it accepts tensors and arrays, finds the generator
# if you give none, and calls `apply`. So to write a transform, we derive from it and write `apply(self, images,
# random)` for arrays (N, C, H, W), which draws from `random` only and changes a copy. `Compose([...])` is several
# transforms in a row, which is a transform, too. (Both are in `common`.)
#
# A network learns best from numbers around 0 with a spread around 1 (chapter 04 said why). So from each channel we
# subtract its mean over all training images and divide the difference by the standard deviation. This is
# *normalization*. The mean and the deviation refer to numbers from 0 to 1, as papers quote them. Together with the
# division by 255, that is one factor and one summand for each channel:
#
# $$ \frac{x / 255 - \mu}{\sigma} = x \cdot \frac{1}{255\,\sigma} - \frac{\mu}{\sigma} . $$
#
# In this form we read the bytes once and write the numbers once, and once more in place for the summand.


class Normalize(Transform):
    """(x - mean) / std for each channel, in float32. Bytes are taken as numbers from 0 to 1: 255 is 1."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean, self.std = (np.asarray(values, np.float64)[:, None, None] for values in (mean, std))
        if not (self.std > 0).all() or self.mean.shape != self.std.shape:
            raise ValueError(f"Normalize needs a mean and a std above 0 for each channel, not {mean} and {std}")

    def apply(self, images, random):  # exercise (starred)
        """The normalized images, float32, in a new array. Raises ValueError, with both numbers, if there is neither one
        mean for each channel nor one for all."""
        if len(self.mean) not in (1, images.shape[1]):
            raise ValueError(f"{len(self.mean)} means and stds do not fit {images.shape[1]} channels")
        unit = 255 if images.dtype == np.uint8 else 1
        numbers = np.multiply(images, (1 / (unit * self.std)).astype(np.float32), dtype=np.float32)
        numbers -= (self.mean / self.std).astype(np.float32)
        return numbers


# Without a mean to subtract and a deviation to divide by, the same class only converts bytes.


class ToFloat(Normalize):
    """Bytes as numbers from 0 to 1, in float32."""

    def __init__(self):
        super().__init__([0.0], [1.0])


# By hand, with a mean of 0.5 and a deviation of 0.25: the byte 51 is a fifth of 255, so it becomes
# (0.2 - 0.5) / 0.25, which is -1.2.
#
# Cropping is the interesting one. We put each image into a frame of zeros, and cut a window from the frame, at a random
# position of its own. A loop over the images makes that easy. Without a loop it looks hard, until we remember the
# `windows` of chapter 09: `sliding_window_view` shows all windows of all images at once, 81 of them if the frame is 4
# wide, without moving a byte. From these we pick one for each image, with index arrays, and copy only that.


class RandomCrop(Transform):
    """A window of `size` (a number, or height and width) from each image, at random, after `padding` pixels of `fill`
    were added on each side."""

    def __init__(self, size: int | tuple[int, int], padding: int = 0, fill: float = 0):
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.padding, self.fill = padding, fill

    def apply(self, images, random):  # exercise
        """A window of each image in its frame (`padded`), of the dtype of the images. Its position is drawn for each
        image by itself; rows and columns are drawn independently, and all positions are equally likely. Raises
        ValueError if the window does not fit (`refuse_too_small`)."""
        framed = padded(images, self.padding, self.fill)
        refuse_too_small(framed, self.size)
        free = np.subtract(framed.shape[2:], self.size)
        top, left = (random.integers(room + 1, size=len(images)) for room in free)
        windows = sliding_window_view(framed, self.size, axis=(2, 3))
        return windows[np.arange(len(images)), :, top, left]


# A mirrored cat is a cat. (A mirrored 3 is not a 3, so you must choose transforms that suit your images.)


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


# Here are the ten digits as they are, and below them three epochs of them, moved by up to two pixels. The appendix
# *Data sets* shows photographs, which are mirrored as well.


def show_transforms():
    """Ten digits; the same digits in three epochs, each time moved by other random numbers of pixels."""
    import matplotlib.pyplot as plt

    images, change = digit_images(), RandomCrop(10, padding=3)
    epochs = [change(images, np.random.default_rng(epoch)) for epoch in range(3)]
    figure, axis = plt.subplots(figsize=(7, 2.9))
    axis.imshow(grid(np.concatenate([padded(images, 1), *epochs]), columns=10), cmap="gray")
    axis.axis("off")
    return figure


# ## The witness
#
# To see that the loop-free crop is right, we compare it with a loop. Each image that it returns must be one of the
# windows of its own frame, cut out by hand.


def check_each_crop_is_a_window_of_its_image():
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 6, 6), np.uint8)
    framed = padded(images, 2)
    for crop, frame in zip(RandomCrop(6, padding=2)(images), framed):
        windows = [frame[:, top : top + 6, left : left + 6] for top in range(5) for left in range(5)]
        assert sum(np.array_equal(crop, window) for window in windows) == 1


# "The same batches whatever the workers" is a claim about bits, so we check it on bits.


def check_the_same_batches_whatever_the_workers():
    data, seen = Images(*noise(40), transform=RandomCrop(32, padding=4)), []
    for workers in (0, 1, 3):
        manual_seed(5)
        loader = DataLoader(data, batch_size=16, shuffle=True, num_workers=workers)
        seen.append(b"".join(images.numpy().tobytes() for _ in range(2) for images, _ in loader))
    assert seen[0] == seen[1] == seen[2]


# A resumed training needs the same: with the state of the generators from the beginning of an epoch, the loader repeats
# that epoch bit for bit, although the threads are two batches ahead. `fit` saves this state with its checkpoints. (Our
# tests repeat the test of chapter 08 with it: a training with moved images and dropout is cut off in the middle of an
# epoch and resumed, and ends with the same weights.)


def check_an_epoch_is_repeated_bit_for_bit():
    own = np.random.default_rng(5)
    loader = DataLoader(range(40), 16, shuffle=True, num_workers=2, generator=own)
    state = loader.state_dict()
    first, second = ([batch.tolist() for batch in loader] for _ in range(2))
    loader.load_state_dict(state)
    assert [batch.tolist() for batch in loader] == first != second


# ## The cost
#
# What must a batch of 128 photographs cost? We compute hardly anything here; we move bytes. So let us count the bytes,
# each reading and each writing. A photograph has 3,072 bytes, and 4,800 in its frame.


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


# The bytes predict the order of magnitude, and not more. A batch of this size fits into the processor's caches, which
# are faster than the memory, some of them much faster. The rows of a crop, however, are only 32 bytes long, so copying
# them takes many small steps. Therefore the step with the most bytes does not take the most time.
#
# It is another matter if we do the same image by image. A loader with a `collate_fn` does: it fetches and changes one
# sample after the other, because the function needs a list of samples. Here is the whole way from the data set to a
# batch of 128, with `collate` as that function and without one.


def show_batches_against_samples():
    change = Compose([RandomCrop(32, padding=4), RandomHorizontalFlip(), Normalize([0.5], [0.25])])
    data = Images(*noise(512), transform=change)
    for name, function in (("one by one", collate), ("as a batch", None)):
        loader = DataLoader(data, batch_size=128, shuffle=True, collate_fn=function)
        seconds = measure(lambda: [None for _ in loader]).seconds
        print(f"{name}: {seconds / len(loader) * 1e3:5.2f} ms a batch of 128")


# What has become of the minutes? We take the network of the beginning, on images of the same size, moved in the same
# way, but in batches of 64.


def batch_by_batch(images: np.ndarray, labels: np.ndarray) -> None:
    """Train as `one_by_one` does, with a loader and `fit`."""
    model = LeNet(channels=3, size=32)
    data = DataLoader(Images(images, labels, transform=Compose([RandomCrop(32, padding=4), ToFloat()])), 64, True)
    fit(model, cross_entropy, Adam(model.parameters()), data, epochs=1, progress=False)


def show_hours():
    for name, program, count in (("one by one", one_by_one, 32), ("in batches", batch_by_batch, 320)):
        seconds = measure(program, *noise(count)).seconds / count
        print(f"{name}: {seconds * 1e3:5.2f} ms an image, thirty epochs in {seconds * TO_SEE / 60:5.1f} minutes")


# The network is the same, and so is the arithmetic; we save calls. (The training also makes fewer steps, and a network
# learns less in an epoch of large batches than in one of small ones; chapter 08 had a table of that.)


# ## Errors you will meet
#
# An error inside a data set is the hardest to find, because a loader, a thread and a sampler are between it and the
# line in which you asked for a batch. So we print it here with its notes. The last of these errors is of that kind: it
# tells you the sample and the batch.


def show_errors():
    data = TensorDataset(Tensor(np.zeros((10, 2))))
    broken = ["7", "12", "9,5", "3"]
    words = type("Words", (Dataset,), {"__len__": lambda self: 4, "__getitem__": lambda self, i: int(broken[i])})()
    attempts = (
        lambda: DataLoader(data, batch_size=0),
        lambda: DataLoader(data, shuffle=True, sampler=range(10)),
        lambda: collate([np.zeros(3), np.zeros(4)]),
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
# Besides the functions that are marked in the text:
#
# 1. `channel_statistics`: compute the mean and the standard deviation of each channel over a whole data set, batch by
#    batch, so that it may be larger than the memory. For CIFAR-10's training images they are 0.4914, 0.4822, 0.4465 and
#    0.2470, 0.2435, 0.2616.
# 2. Write a transform that puts a square of zeros somewhere into each image, so that a network must not rely on any
#    single detail (DeVries and Taylor, 2017). It needs no loop over the images. Ours is `Cutout`, in the appendix
#    *More data*.
# 3. Train LeNet on the digits with and without `RandomCrop(8, padding=1)`, and look again at the two losses that
#    chapter 08 taught you to read. How does moving the images change each of them?
#
# For the first one, remember that the variance is the mean of the squares minus the square of the mean. If all pixels
# are nearly equal, these two are nearly equal as well, and their difference is rounding error, perhaps below zero. So
# subtract from all pixels the first one of their channel, which changes no variance.


def channel_statistics(loader: Iterable) -> tuple[np.ndarray, np.ndarray]:  # exercise
    """Mean (C,) and standard deviation (C,), in float64, over all pixels of the images (N, C, H, W) in batches of
    (images, labels), which are not changed. Divided by the number of pixels. Raises ValueError if there is no batch."""
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


# ## A road not taken
#
# PyTorch's loader is older than the batch-wise way. Its transforms work on one image, and to make up for that it has
# worker processes, shared memory to bring their tensors back, a thread that pins them, and `persistent_workers`,
# because starting processes takes seconds. TensorFlow's `tf.data` turns the whole pipeline into a graph and runs it
# without Python. JAX has no loader at all and leaves it to other libraries; tinygrad's examples put all of CIFAR-10 on
# the device and crop there. We built ours for data that fit into memory as bytes, or that we can read quickly. A data
# set of a million large JPEG files needs decoders in many processes, and then PyTorch's way is the right one.

# ## What hurts next
#
# Images are numbers from the beginning. A text is not.


def show_text():
    text = short_text()
    words = text.split()
    print(collate([text[22:38], text[71:79]]))
    print(f"{len(words):,} words, {len(set(words)):,} of them different, in {len(text.encode()):,} bytes")


# Our loader hands out texts as they are, and a network cannot multiply them. As bytes they are numbers, but a byte
# means little by itself, and there are many of them. As words there are fewer, but nearly every second one is new, and
# the next text has others again. So we must find the units of a text in texts themselves: chapter 11, *Tokenization*.

__all__ = [
    "BatchSampler", "DataLoader", "Dataset", "Images", "Normalize", "RandomCrop", "RandomHorizontalFlip",
    "RandomSampler", "Subset", "TensorDataset", "ToFloat", "at_leaves", "batch_of", "channel_statistics",
    "collate", "in_order", "prefetch", "random_split", "sample_of",
]
