# # PyTorch's loader
#
# An appendix of chapter 10: the `DataLoader` with all the arguments that it has in PyTorch, batches from streams, and
# what a data set can ask about its worker. The order, the tasks and the workers are the chapter's.

from __future__ import annotations

import copy
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count, islice, repeat
from typing import Any

import numpy as np

from tt_data import dataloader
from tt_data.common import Sampler, refuse_impossible_workers, resolve_generator
from tt_data.dataloader import BatchSampler, Dataset, collate, prefetch, sample_of
from tt_data.workers import here, worker_processes, worker_threads
from tt_tensor import Tensor, drawing_from, from_numpy

# ## Collating
#
# PyTorch's function descends into mappings and sequences of every kind, and turns tuples into *lists*. At the ends of
# the branches we stack as in the chapter. The numbers differ in one respect: Python's floats become float32, as
# everywhere in this course, where PyTorch's loader turns them into float64.


def default_collate(batch: Sequence) -> Any:
    """The samples of a list as one batch, as torch.utils.data.default_collate: mappings and named tuples keep their
    form, tuples and lists become lists, tensors, arrays and numbers are stacked, texts are listed. Raises RuntimeError
    for sequences of different lengths, ValueError for different shapes, TypeError for what cannot be stacked."""
    first = batch[0] if len(batch) else None
    if isinstance(first, Mapping):
        return _like(first, {key: default_collate([sample[key] for sample in batch]) for key in first})
    if isinstance(first, Sequence) and not isinstance(first, str | bytes):
        if len({len(sample) for sample in batch}) > 1:
            raise RuntimeError(f"the samples of a batch need one length; they have {[len(s) for s in batch][:8]}")
        parts = [default_collate(part) for part in zip(*batch)]
        return type(first)(*parts) if hasattr(first, "_fields") else parts
    return collate(batch)


def _like(mapping: Mapping, parts: dict) -> Any:
    if type(mapping) is dict:
        return parts
    same = copy.copy(mapping)
    try:
        same.update(parts)  # type: ignore[attr-defined]
    except AttributeError:
        return parts
    return same


# A loader without batches still turns arrays into tensors.


def default_convert(data: Any) -> Any:
    """Arrays inside mappings and sequences as tensors; everything else as it is."""
    if isinstance(data, np.ndarray | np.generic):
        array = np.asarray(data)
        return from_numpy(array) if array.dtype.kind in "biuf" else data
    if isinstance(data, Mapping):
        return _like(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        parts = [default_convert(part) for part in data]
        return type(data)(*parts) if hasattr(data, "_fields") else parts
    return data


# Unlike the chapter's `collate`, this one descends into lists.


def check_default_collate():
    images, labels = default_collate([(np.zeros((3, 8, 8)), 7), (np.ones((3, 8, 8)), 1)])
    assert images.shape == (2, 3, 8, 8) and labels.tolist() == [7, 1]
    assert default_collate([[1, 2], [3, 4]])[1].tolist() == [2, 4]
    assert isinstance(default_convert({"x": [np.zeros(2)]})["x"][0], Tensor)


# ## Which way to a batch
#
# A data set of ours may have a method `batch`, which makes a batch at once. PyTorch's protocol for the same is
# `__getitems__`, which returns a list of samples for a list of indices. We take the fastest way that the data set
# offers and that the `collate_fn` allows, because a function of your own expects samples.


def fetched(dataset, indices: list, collate_fn: Callable) -> Any:
    """The samples of `dataset` at `indices` as one batch."""
    own = getattr(type(dataset), "batch", Dataset.batch)
    if collate_fn is default_collate and isinstance(dataset, Dataset) and own is not Dataset.batch:
        batch = dataset.batch(indices)
        return list(batch) if type(batch) is tuple else batch
    if callable(at_once := getattr(dataset, "__getitems__", None)):
        return collate_fn(at_once(indices))
    return collate_fn([sample_of(dataset, index) for index in indices])


# ## Which worker am I?
#
# A data set can ask which worker it runs in. The answer holds the worker's number, how many workers there are, and a
# seed. Outside a worker it is None.


@dataclass
class WorkerInfo:
    """A worker: `id` from 0, one of `num_workers`, with a `seed` of its own and the `dataset` that it reads."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


_ours = threading.local()


# Each thread, and each process, keeps its own answer.


def get_worker_info() -> WorkerInfo | None:
    """The worker in which this is called, or None in the program itself."""
    return getattr(_ours, "info", None)


@contextmanager
def working_as(info: WorkerInfo | None) -> Iterator[None]:
    """A context in which `get_worker_info()` answers `info`."""
    before, _ours.info = get_worker_info(), info
    try:
        yield
    finally:
        _ours.info = before


# PyTorch calls a `worker_init_fn` once in each worker process before its first batch, mostly to seed NumPy's old
# generator and Python's `random`. We do the same in worker processes. Our threads, however, share these two generators
# with the program, which would then get the same numbers in each epoch. So for threads we call the function at the
# beginning of the pass, and then put both generators back.


@contextmanager
def the_old_generators_kept() -> Iterator[None]:
    """NumPy's old generator and Python's `random` continue afterwards as if nothing had happened."""
    states = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(states[0])  # noqa: NPY002
        random.setstate(states[1])


# We show the data set to the chapter's loader through an object in front of it. This object knows the `collate_fn`, and
# makes sure that the data set finds its worker's number. A process has its own number already; threads get theirs in
# the order in which they come.

_TURN = threading.Lock()


class Shown(Dataset):
    """The data set of a loader, as the chapter's loader sees it."""

    # Before the first batch, `worker_init_fn` runs once for each thread.

    def __init__(self, loader: DataLoader):
        self.dataset, self.collate_fn, self.init = loader.dataset, loader.collate_fn, loader.worker_init_fn
        self.single = loader.batch_size is None and loader.batch_sampler is None
        self.count, self.seed = loader.num_workers, loader.workers_seed()
        self.numbers: dict[int, int] = {}
        if self.init and loader.multiprocessing_context is None:
            with the_old_generators_kept():
                for number in range(self.count):
                    self._begin(number)
            self.init = None

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices):
        with working_as(self._info(self._number()) if self.count else None):
            if self.single:
                return self.collate_fn(sample_of(self.dataset, indices[0]))
            return fetched(self.dataset, indices, self.collate_fn)

    # The first call in a worker gives it its number; in a process, it also runs `worker_init_fn`.

    def _number(self) -> int:
        with _TURN:
            if (mine := threading.get_ident()) not in self.numbers:
                self.numbers[mine] = getattr(here, "number", len(self.numbers))
                if self.init:
                    self._begin(self.numbers[mine])
            return self.numbers[mine]

    def _info(self, number: int) -> WorkerInfo:
        return WorkerInfo(number, self.count, self.seed + number, self.dataset)

    def _begin(self, number: int) -> None:
        with working_as(self._info(number)):
            self.init(number)


# ## Streams
#
# Some data have no indices: lines that arrive over a network, or a file that is too large to count. An
# `IterableDataset` has only `__iter__`. The loader cuts the stream into groups, so there is nothing to shuffle, and you
# cannot give a sampler.


class IterableDataset(Dataset):
    """Samples that come one after the other: derive from it, and write `__iter__`."""

    def __iter__(self) -> Iterator:
        raise NotImplementedError(f"{type(self).__name__} needs a method __iter__(self) that yields samples")


# Several streams can form one.


class ChainDataset(IterableDataset):
    """Several streams, one after the other."""

    def __init__(self, datasets: Iterable):
        self.datasets = datasets

    def __iter__(self) -> Iterator:
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise TypeError(f"a chain has IterableDatasets, not {type(dataset).__name__}: use ConcatDataset")
            yield from dataset

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self.datasets)


# In PyTorch each worker reads a copy of the stream from its beginning, and batches come from the workers in turn.
# Therefore a stream that does not ask for its worker's number is read as many times as there are workers. We do the
# same, and our batches come in PyTorch's order. But one thread, or process, reads all copies ahead of time: enough to
# hide the waiting for a disk, but not enough to share out work in Python.

END = type("END", (), {"__doc__": "What a stream's reader answers after the last batch."})


class Reader:
    """Reads the stream of a loader: a function that returns a batch for each task, and END when there is none."""

    def __init__(self, loader: DataLoader):
        self.dataset, self.collate_fn, self.init = loader.dataset, loader.collate_fn, loader.worker_init_fn
        self.size, self.drop_last = loader.batch_size, loader.drop_last
        self.count, self.seed = loader.num_workers, loader.workers_seed()
        self.batches: Iterator | None = None

    def __call__(self, task: tuple) -> Any:
        number, _, seed = task
        if self.batches is None:
            self.batches = self._in_turn()
        with drawing_from(np.random.default_rng([seed, number])):
            return next(self.batches, END)

    # One part of the stream for each worker; the parts take turns until all have ended.

    def _in_turn(self) -> Iterator:
        parts = deque(self._part(number) for number in range(self.count or 1))
        while parts:
            part = parts.popleft()
            for batch in islice(part, 1):
                yield batch
                parts.append(part)

    def _part(self, number: int) -> Iterator:
        info = WorkerInfo(number, self.count, self.seed + number, copy.copy(self.dataset)) if self.count else None
        with working_as(info):
            if info and self.init:
                with the_old_generators_kept():
                    self.init(number)
            samples = iter(info.dataset if info else self.dataset)
        while True:
            with working_as(info):
                group = list(islice(samples, self.size or 1))
                if not group or (self.drop_last and len(group) < (self.size or 1)):
                    return
                batch = self.collate_fn(group if self.size else group[0])
            yield batch


# ## The loader
#
# The chapter's loader lacks some of PyTorch's arguments. `pin_memory`, `pin_memory_device` and `persistent_workers`
# choose where memory is and how long processes live. They change no batch, and have no effect here. `in_order=False`
# allows batches to come as soon as they are ready; ours come in order all the same.
#
# With `batch_size=None` you turn batches off: each sample comes by itself. If the sampler yields lists, we pass them to
# the data set as they are, so a data set can read its own batches.


class DataLoader(dataloader.DataLoader):
    """Batches of `dataset`, anew each time it is iterated, with the arguments of torch.utils.data.DataLoader.

    Workers are threads; with multiprocessing_context ("spawn", "fork", "forkserver") they are processes. timeout:
    seconds to wait for a batch, 0 for ever. The batches are the same whatever the workers, if they draw from
    `generator()`, or with functions like `tt.rand`; NumPy's old generator and Python's `random` are the program's,
    except in processes, where each batch seeds them. generator: a tt_tensor.Generator or NumPy's; without one,
    everything follows from `manual_seed`. Raises ValueError and TypeError for arguments that cannot be meant."""

    batch_size: Any
    batch_sampler: Any
    collate_fn: Any

    # The chapter's loader does not know a loader without batches, so it gets 1, and we correct that afterwards.

    def __init__(
        self, dataset, batch_size: int | None = 1, shuffle: bool | None = None,
        sampler: Sampler | Iterable | None = None, batch_sampler: Sampler | Iterable | None = None,
        num_workers: int = 0, collate_fn: Callable | None = None, pin_memory: bool = False, drop_last: bool = False,
        timeout: float = 0, worker_init_fn: Any = None, multiprocessing_context=None,
        generator=None, *, prefetch_factor: int | None = None, persistent_workers: bool = False,
        pin_memory_device: str = "", in_order: bool = True,
    ):
        _refuse_what_a_stream_has_not(dataset, shuffle, sampler, batch_sampler)
        _refuse_what_needs_workers(num_workers, prefetch_factor, persistent_workers)
        if batch_size is None and drop_last:
            raise ValueError("batch_size=None makes no batches, so drop_last has nothing to leave out")
        if self._is_stream(dataset):
            sampler = repeat(None)
        prefetch_factor = 2 if prefetch_factor is None else prefetch_factor
        refuse_impossible_workers(num_workers, prefetch_factor, timeout, multiprocessing_context)
        super().__init__(
            dataset, 1 if batch_size is None else batch_size, bool(shuffle), sampler, batch_sampler, num_workers, None,
            drop_last, generator, prefetch_factor,
        )
        self.timeout, self.multiprocessing_context = timeout, multiprocessing_context
        if batch_size is None and batch_sampler is None:
            self.batch_sampler = None
        self.batch_size = None if batch_size is None or batch_sampler is not None else batch_size
        makes_batches = self.batch_sampler is not None
        self.collate_fn = collate_fn or (default_collate if makes_batches else default_convert)
        self.worker_init_fn, self.pin_memory, self.pin_memory_device = worker_init_fn, pin_memory, pin_memory_device
        self.persistent_workers, self.in_order = persistent_workers, in_order

    # A stream has another length than a data set with indices, and another way to its batches.

    @staticmethod
    def _is_stream(dataset) -> bool:
        return isinstance(dataset, IterableDataset)

    def __len__(self) -> int:
        if not self._is_stream(self.dataset):
            return len(self.sampler if self.batch_sampler is None else self.batch_sampler)  # type: ignore[arg-type]
        full, left = divmod(len(self.dataset), self.batch_size or 1)
        return full + (left > 0 and not self.drop_last)

    def __iter__(self) -> Iterator:
        """One pass."""
        if self._is_stream(self.dataset):
            return self._streamed(Reader(self), int(resolve_generator(self.generator).integers(2**63)))
        chapters = copy.copy(self)
        chapters.dataset, chapters.collate_fn = Shown(self), None
        if self.batch_sampler is None:
            chapters.batch_sampler = BatchSampler(self.sampler, 1)
        return super(DataLoader, chapters).__iter__()

    # The chapter's workers are threads. With a `multiprocessing_context`, a thread does not work itself: it sends the
    # task to a process of its own, and waits for the answer.

    @contextmanager
    def workers(self, work: Callable) -> Iterator:
        """The functions `submit` and `arrived` of the workers, threads or processes, which call `work`."""
        count, context = self.num_workers, self.multiprocessing_context
        functions = nullcontext([work] * count) if context is None else worker_processes(count, work, context)
        with functions as works, worker_threads(works, self.timeout or None) as submit_and_arrived:
            yield submit_and_arrived

    # Two methods help with workers: the seed that a data set can ask for, and the loop over a stream.

    def workers_seed(self) -> int:
        """The seed of worker 0 in a pass that begins now. It is drawn from a copy of the generator, since a pass with
        workers must not draw more than one without."""
        return int(copy.deepcopy(resolve_generator(self.generator)).integers(2**62))

    def _streamed(self, read: Reader, seed: int) -> Iterator:
        one = copy.copy(self)
        tasks: Iterator[tuple[int, list[int], int]] = ((number, [], seed) for number in count())
        one.num_workers, one.prefetch_factor = 1, max(1, self.num_workers * self.prefetch_factor)
        for batch in prefetch(one, read, tasks) if self.num_workers else map(read, tasks):
            if batch is END:
                return
            yield batch


# We refuse arguments that cannot be meant before we look at anything else.


def _refuse_what_a_stream_has_not(dataset, shuffle, sampler, batch_sampler) -> None:
    given = {"shuffle": shuffle or None, "sampler": sampler, "batch_sampler": batch_sampler}
    if isinstance(dataset, IterableDataset) and (names := [name for name in given if given[name] is not None]):
        raise ValueError(f"an IterableDataset decides its order itself: leave out {' and '.join(names)}")


def _refuse_what_needs_workers(num_workers, prefetch_factor, persistent_workers) -> None:
    if num_workers == 0 and (prefetch_factor is not None or persistent_workers):
        name = "persistent_workers" if persistent_workers else "prefetch_factor"
        raise ValueError(f"{name} needs num_workers of at least 1")


# A countdown as a stream, read by the program and by two workers. Each of these yields every second number.


def check_a_stream():
    class Countdown(IterableDataset):
        def __iter__(self):
            info = get_worker_info()
            return iter(range(5, 0, -1) if info is None else range(info.id, 5, info.num_workers))

    assert [batch.tolist() for batch in DataLoader(Countdown(), 2)] == [[5, 4], [3, 2], [1]]
    assert [batch.tolist() for batch in DataLoader(Countdown(), 2, num_workers=2)] == [[0, 2], [1, 3], [4]]


__all__ = [
    "ChainDataset", "DataLoader", "IterableDataset", "WorkerInfo", "default_collate", "default_convert",
    "fetched", "get_worker_info",
]
