# # Data parallel
#
# An appendix of chapter 15. At the end of it you train with four processes by `mpiexec -n 4 python train.py`, on one
# machine or on several, and get the result that one process would have computed.

# ## The hurt
#
# With kernels, blocks and threads we have made the step of one process as fast as we can. The next step is to use more
# processes. They share no memory, so if one process needs a number of another, we must send it. On this page we ask
# which numbers these are, and when sending them costs more than it saves.

from __future__ import annotations

import copy
import functools
import math
import os
import sys
import time
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

import tt_tensor as tt
from tt_autograd import Batches, Best, BestCheckpoint, Callback, accuracy, fit, is_grad_enabled, load_checkpoint
from tt_autograd.training import digits, digits_classifier
from tt_data import DataLoader, Dataset, default_collate, fetched
from tt_data.dataloader import batch_of
from tt_optim import Adam
from tt_opt.threads import get_num_threads, set_num_threads
from tt_tensor import (
    Module, Parameter, Tensor, drawing_from, from_numpy, generator, get_rng_state, interpreting, set_rng_state,
)


# ## The idea
#
# The loss of a *mini-batch* is a mean over its examples, and so is the gradient. We cut the batch into shares, one for
# each process (a *rank* in the language of MPI). Each rank computes the mean over its own share, and the mean over the
# batch is the weighted mean of these:
#
# $$ \bar g = \sum_{r=0}^{n-1} \frac{B_r}{B}\, \bar g_r, \qquad B = \sum_r B_r . $$
#
# All ranks begin with the same weights and the same state of the optimizer. If all of them make their step with $\bar
# g$, they have the same weights afterwards, so we never send anything except gradients. This is *data parallelism*.
#
# MPI, the *message passing interface*, has been the standard for this since 1994. Its operation `Allreduce` adds up the
# arrays of all ranks and gives each rank the sum. We call it through mpi4py and write everything above it ourselves.
#
# ```mermaid
# flowchart LR
#     B["batch of 32"] --> S0["rank 0: rows 0-15"] --> G0["gradient"] --> A["Allreduce"]
#     B --> S1["rank 1: rows 16-31"] --> G1["gradient"] --> A
#     A --> W0["rank 0: step"]
#     A --> W1["rank 1: step"]
# ```

# ## Ranks
#
# The package mpi4py is an extra, so we import it when we first need it. If you run a program without `mpiexec`, it is
# one rank of one, and everything below works for it, too.


@functools.cache
def _world():
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ModuleNotFoundError(
            f"data-parallel training needs MPI, which is not installed here ({error}): pip install 'tt-opt[mpi]'"
        ) from error
    comm = MPI.COMM_WORLD
    started = max(int(os.environ.get(name, 1)) for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE"))
    if comm.Get_size() == 1 < started:
        raise RuntimeError(
            f"mpiexec started {started} processes, but mpi4py belongs to another MPI and sees only itself. Use the "
            "mpiexec that was installed with mpi4py's MPI: pip install mpich puts it beside python"
        )
    if comm.Get_size() > 1:
        sys.excepthook = _end_all
    return comm


# A rank asks for its number, for the number of all ranks, and sometimes it waits for the others.


def rank() -> int:
    """Return the number of this process, 0 to world_size() - 1. Raises ModuleNotFoundError without mpi4py."""
    return _world().Get_rank()


def world_size() -> int:
    """Return how many processes `mpiexec -n` has started; 1 without it. Raises ModuleNotFoundError without mpi4py."""
    return _world().Get_size()


def barrier() -> None:
    """Wait until every rank has come to this line."""
    _world().Barrier()


# What if a rank fails? The others wait for its gradients, and would wait forever. So an uncaught error ends all ranks:
# we show the traceback and then one line that names the rank. Often all ranks make the same mistake, and four
# tracebacks are not clearer than one. Therefore the higher ranks hesitate, and usually they have ended before they can
# repeat the message of rank 0. The second pause lets `mpiexec` forward the message before it ends everything.


def _end_all(kind, error, trace) -> None:
    me, count = rank(), world_size()
    time.sleep(0.5 + 0.5 * min(me, 5) if me else 0)
    text = "".join(traceback.format_exception(kind, error, trace))
    line = f"rank {me} of {count} failed, and the other ranks end with it: {kind.__name__}: {error}"
    sys.stdout.flush()
    sys.stderr.write(f"{text}{line}\n")
    sys.stderr.flush()
    time.sleep(0.2)
    _world().Abort(1)
    os._exit(1)  # Abort may return before mpiexec has ended this process


# If a rank is killed from outside, it cannot print anything. `mpiexec` notices that, ends the others, and reports the
# signal.
#
# Ranks on one machine share its cores. Without a limit, each of them would start as many threads as there are cores, so
# we divide.


@functools.cache
def _share_cores() -> None:
    from mpi4py import MPI

    neighbours = _world().Split_type(MPI.COMM_TYPE_SHARED).Get_size()
    if neighbours > 1:
        threads = max(1, get_num_threads() // neighbours)
        set_num_threads(threads)
        for library in ThreadpoolController().select(user_api="blas").lib_controllers:
            library.set_num_threads(min(library.num_threads, threads))


# ## Shares of a batch
#
# The examples of a step must not depend on the number of ranks. PyTorch's `DistributedSampler` deals out the *data
# set*, so with 4 ranks a step sees 4 batches. We deal out each *batch* instead. So `batch_size=32` means 32, whatever
# the number of ranks, and you get the same curve from 1, 2 and 4 ranks.
#
# If a batch has fewer rows than there are ranks, some ranks get no row. We cannot call a model without a row, but the
# other ranks wait for a gradient. So such a rank *borrows* row 0 and counts it with weight 0.


@dataclass(frozen=True)
class Place:
    """One rank's share of a batch of `total` rows: those from start to stop. A borrowed row counts for nothing."""

    start: int
    stop: int
    total: int
    borrowed: bool = False

    @property
    def count(self) -> int:
        """The number of rows that count."""
        return 0 if self.borrowed else self.stop - self.start


def share_of(total: int, rank: int, world_size: int) -> Place:
    """Return the rows of a batch of `total` that belong to a rank. The shares cover the batch, and their sizes differ
    by at most 1. Raises ValueError for a batch without rows or an impossible rank."""
    if total < 1 or not 0 <= rank < world_size:
        raise ValueError(
            f"a share needs a batch of at least 1 row and 0 <= rank < world_size; there are {total} rows, rank {rank} "
            f"and world_size {world_size}"
        )
    start, stop = total * rank // world_size, total * (rank + 1) // world_size
    return Place(start, stop, total) if start < stop else Place(0, 1, total, borrowed=True)


def check_shares():
    shares = [share_of(10, rank, 4) for rank in range(4)]
    assert [row for s in shares for row in range(s.start, s.stop)] == list(range(10))
    assert [share_of(2, rank, 4).count for rank in range(4)] == [0, 1, 0, 1]


# A data loader works with indices of samples. So for a loop of your own it is enough to cut the groups of indices.


class DistributedSampler:
    """A batch_sampler for a DataLoader that yields this rank's part of each group of indices in `batch_sampler`.

    All ranks must draw the same groups (the same seed). Each group gives every rank at least one index; if a group has
    fewer indices than there are ranks, some ranks get its first index, too."""

    def __init__(self, batch_sampler: Iterable[list[int]], num_replicas: int | None = None, rank: int | None = None):
        self.batch_sampler = batch_sampler
        self.num_replicas = world_size() if num_replicas is None else num_replicas
        self.rank = _world().Get_rank() if rank is None else rank
        share_of(1, self.rank, self.num_replicas)

    def __len__(self) -> int:
        return len(self.batch_sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        for group in self.batch_sampler:
            place = share_of(len(group), self.rank, self.num_replicas)
            yield list(group)[place.start : place.stop]


# ## The same random numbers
#
# *Dropout* draws a mask in the shape of its input. If each rank draws one for its share, two things go wrong. With the
# same state of the generator, all ranks drop the same units. Moreover, shares of 3 and 2 rows draw different amounts,
# so the generators get out of step, and in the next epoch the ranks silently cut their shares from different batches.
#
# So during a step we lend the model a generator that draws for the *whole* batch and returns the rows of this rank.
# Then four ranks together use the mask that one rank would have used.


class RowsOfBatch(np.random.Generator):
    """Draws for a whole batch and returns the rows of a Place. Arrays with another number of rows are drawn as
    usual."""

    def __init__(self, bits, place: Place):
        super().__init__(bits)
        self.place = place


# We replace each method that draws an array. It draws for the whole batch and keeps its own rows.


def _draws_rows(name: str, position: int) -> None:
    usual = getattr(np.random.Generator, name)

    def draw(self, *args, **options):
        size = args[position] if len(args) > position else options.get("size")
        shape, own = () if size is None else tuple(np.atleast_1d(size).tolist()), self.place.stop - self.place.start
        if not shape or shape[0] % own:
            return usual(self, *args, **options)
        each = shape[0] // own  # rows of an array for one row of the batch: of a text, one for each token
        whole = (each * self.place.total, *shape[1:])
        options |= {"size": whole, **dict(zip(("dtype",), args[position + 1 :]))}
        drawn = usual(self, *args[:position], **options)
        return drawn[each * self.place.start : each * self.place.stop]

    setattr(RowsOfBatch, name, draw)


for _name, _position in (("random", 0), ("standard_normal", 0), ("integers", 2), ("uniform", 2), ("normal", 2)):
    _draws_rows(_name, _position)


def check_two_ranks_draw_one_mask():
    whole = np.random.default_rng(0).random((5, 3))
    parts = [RowsOfBatch(np.random.PCG64(0), share_of(5, rank, 2)).random((n, 3)) for rank, n in ((0, 2), (1, 3))]
    assert np.array_equal(np.concatenate(parts), whole)


# (If an array happens to have as many rows as the share without belonging to its rows, we draw more numbers than we
# need. They are as random as any others. The generator of chapter 01 is not affected by all this, because the forward
# pass draws from a generator of its own, seeded by the common one.)

# ## Shares of data
#
# We put a `Share` between any data and `fit`. From `Batches` or a list it takes the batches and cuts out rows. A
# `DataLoader` would then load and augment images that we throw away. So for a loader we cut before the loading: a data
# set in between takes the indices of the whole batch and loads only its own.


class _Part(Dataset):
    def __init__(self, dataset, collate_fn, rank: int, world_size: int):
        self.dataset, self.collate_fn, self.rank, self.world_size = dataset, collate_fn, rank, world_size

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices):
        place = share_of(len(indices), self.rank, self.world_size)
        own = indices[place.start : place.stop]
        with drawing_from(RowsOfBatch(generator().bit_generator, place)):
            if self.collate_fn is None:
                return batch_of(self.dataset, own), place
            return fetched(self.dataset, own, self.collate_fn), place


# A batch of any other data may be a tuple, a list or a dictionary of tensors.


def _rows(tree, place: Place):
    """Return the rows of a place from each tensor in a tuple, list or dictionary."""
    if isinstance(tree, Tensor):
        return from_numpy(tree.numpy()[place.start : place.stop])
    if isinstance(tree, dict):
        return {key: _rows(part, place) for key, part in tree.items()}
    if isinstance(tree, tuple) or (isinstance(tree, list) and any(isinstance(part, Tensor) for part in tree)):
        return type(tree)(_rows(part, place) for part in tree)
    return tree[place.start : place.stop]


# Later, the step must know which share its batch was. We find the share again by the tensors themselves, because `fit`
# passes to the model and to the loss exactly the objects that the data yielded. Batches that make one step
# (`accumulate`) form a *group*, because their weights depend on each other.

_shares: weakref.WeakSet[Share] = weakref.WeakSet()  # those that are used for training


class Share:
    """This rank's share of `data`, an iterable of (inputs, targets) that yields the same batches on all ranks:
    `Batches`, a `DataLoader`, a list.

    accumulate: how many batches make a step. With training=False a rank skips a batch of which it has no row. Raises
    TypeError for data without a length."""

    def __init__(
        self, data: Iterable, accumulate: int = 1, training: bool = True, rank: int | None = None,
        world_size: int | None = None,
    ):
        if not isinstance(data, Sized) or not isinstance(data, Iterable):
            raise TypeError(f"Share needs data with a length that all ranks share; {type(data).__name__} has none")
        self.world_size = _world().Get_size() if world_size is None else world_size
        self.rank = _world().Get_rank() if rank is None else rank
        self.accumulate, self.training = accumulate, training
        self.data: Any = data
        self.group: list[tuple[Any, Place]] = []
        self.places: list[Place] = []
        self.seen = 0
        if training:
            _shares.add(self)
        if isinstance(data, DataLoader):
            self.data = copy.copy(data)
            self.data.dataset = _Part(data.dataset, data.collate_fn, self.rank, self.world_size)
            self.data.collate_fn = data.collate_fn and default_collate

    # Otherwise a share behaves like its data: it has their length and their attributes.

    def __len__(self) -> int:
        return len(self.data)

    def __getattr__(self, name: str):
        if name == "data":
            raise AttributeError(name)
        return getattr(self.data, name)

    # It yields batches, and remembers those of the current group.

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._shares(iter(self.data))

    def _shares(self, batches: Iterator) -> Iterator[tuple[Any, Any]]:
        self.seen = 0
        for number, batch in enumerate(batches):
            if not isinstance(self.data, DataLoader):
                place = share_of(len(batch[1]), self.rank, self.world_size)
                batch = _rows(tuple(batch), place)
            else:
                batch, place = batch
            self.seen += place.count
            if self.training:
                self._remember(batch, place, first=number % self.accumulate == 0)
            elif place.borrowed:
                continue
            yield batch
        if not self.seen and not self.training:
            raise ValueError(
                f"rank {self.rank} of {self.world_size} has no example to evaluate: each batch needs at least as many "
                "examples as there are ranks. Use a larger batch_size, or fewer ranks"
            )

    def _remember(self, batch, place: Place, first: bool) -> None:
        if first:
            self.forget()
        self.group += [(part, place) for part in batch[:2]]
        self.places.append(place)

    def forget(self) -> None:
        """Forget the batches of the last step."""
        self.group, self.places = [], []


def _found(part) -> tuple[Place | None, Any]:
    for share in _shares:
        for kept, place in share.group:
            if kept is part:
                return place, share
    return None, None


# ## The weight of a share
#
# If all shares are equally large, we get the mean over the batch by averaging the gradients of the ranks. If they are
# not, the gradient of a rank must count $n B_r / B$ times. We do not change the *value* of the loss, which this rank
# has measured, but only its derivative: $f L + (1 - f) L$ is $L$, and if the second part is detached from the
# computational graph, its derivative is $f$ times that of $L$.
#
# If several batches make a step, `fit` has already multiplied each loss by its part of the rows that this rank has
# loaded. So we take the rows of the whole group for $B_r$ and $B$, including borrowed ones, because `fit` has counted
# them, too.


def weighted(loss: Tensor, targets) -> Tensor:
    """Return `loss`, the mean over a share, with a gradient that counts as much as the share does in its step.
    `targets` are those that a Share yielded; for any others, return `loss` itself."""
    place, share = _found(targets)
    if place is None:
        return loss
    if place.borrowed:
        return loss * 0
    factor = share.world_size * sum(p.stop - p.start for p in share.places) / sum(p.total for p in share.places)
    return loss if factor == 1 else loss * factor + loss.detach() * (1 - factor)


# ## Buckets
#
# Each message has a fixed cost, the *latency*. For a model with a hundred small parameters we would pay it a hundred
# times in every step. So we send gradients in *buckets*: arrays of about a megabyte, each with the gradients of several
# parameters. *Backpropagation* reaches the last layer first, so the first bucket holds the last parameters.
#
# A bucket has one more number for each parameter: 1 if the parameter got a gradient on this rank. From the sum we know
# whether any rank has used the parameter. If none has, its gradient remains None, as it would with one process, and the
# optimizer does not change it.


class Bucket:
    """Gradients of several parameters in one array, and behind them a flag for each parameter."""

    def __init__(self, dtype):
        self.dtype, self.starts, self.size = dtype, [0], 0
        self.parameters: list[Parameter] = []
        self.request: Any = None

    def add(self, parameter: Parameter) -> int:
        """Make room for a parameter; returns its position."""
        self.parameters.append(parameter)
        self.size += parameter.numel()
        self.starts.append(self.size)
        return len(self.parameters) - 1

    def finish(self) -> None:
        """Make the arrays: `sent` for the gradients of this rank, `summed` for the sums over all ranks."""
        self.sent = np.zeros(self.size + len(self.parameters), self.dtype)
        self.summed = np.zeros_like(self.sent)
        self.clear()

    def clear(self) -> None:
        """Forget the gradients of the last step."""
        self.sent[self.size :], self.request, self.waiting = 0, None, 0
        self.due: set[int] = set()  # positions whose leaves will ask for their mean

    def view(self, array: np.ndarray, position: int) -> np.ndarray:
        """Return the part of `sent` or `summed` that belongs to a parameter, in its shape."""
        part = array[self.starts[position] : self.starts[position + 1]]
        return part.reshape(self.parameters[position].shape)

    # Gradients are added in, and when the bucket is full it goes on its way.

    def put(self, position: int, g: np.ndarray) -> None:
        """Add to the gradient of a parameter."""
        part = self.view(self.sent, position)
        if self.filled(position):
            part += g
        else:
            part[...], self.sent[self.size + position] = g, 1

    def filled(self, position: int) -> bool:
        """Return whether the parameter got a gradient on this rank."""
        return bool(self.sent[self.size + position])

    def send(self, comm) -> None:
        """Start the sum over all ranks, which continues while this rank computes."""
        for position in range(len(self.parameters)):
            if not self.filled(position):
                self.view(self.sent, position)[...] = 0
        self.request = comm.Iallreduce(self.sent, self.summed)


# ## During the backward pass
#
# When may we send a bucket? As soon as the gradients of all its parameters are complete. The walk of chapter 07 gives a
# *leaf*, such as a parameter, its gradient at the very end, because only then it is sure that nothing more will arrive.
# That is too late for us.
#
# A result that is not a leaf, however, gets its gradient as soon as the walk reaches it. So whenever a primitive is
# about to use a parameter, we replace the parameter by a view of it. Everything goes through the one door of chapter
# 02, so an interpreter there sees every use and can count them. In the backward pass each view reports
# (`register_hook`) the gradient that has arrived for it. When as many views have reported as the forward pass made, the
# parameter's gradient is complete. A weight that two layers share has two views, and is complete after the second. A
# parameter that this rank has not used has no view, and no bucket waits for it.
#
# All ranks send their buckets in the same order, because MPI matches the first message with the first. At the first
# leaf, the walk is over. We send the remaining buckets and wait for all of them. Then each leaf gets the mean instead
# of its own gradient.


class DistributedDataParallel(Module):
    """`module` with gradients that are averaged over all ranks during backward(), as with
    torch.nn.parallel.DistributedDataParallel.

    Copies the parameters and buffers of rank 0. All ranks must take part in every backward pass. `state_dict` is that
    of `module`, without a prefix. bucket_cap_mb: the size of a bucket in megabytes. Raises ValueError on all ranks if
    their modules differ."""

    def __init__(self, module: Module, bucket_cap_mb: float = 1.0):
        super().__init__()
        if not isinstance(module, Module):
            raise TypeError(f"DistributedDataParallel wraps a Module, not a {type(module).__name__}")
        if not bucket_cap_mb > 0:
            raise ValueError(f"bucket_cap_mb must be a size above 0, in megabytes, not {bucket_cap_mb}")
        self.module, self.bucket_cap_mb, self.comm = module, bucket_cap_mb, _world().Dup()
        self._synchronizing, self._stale_buffers, self._unsent = True, False, False
        self._active: list[Parameter] = []
        self._removers: list[Callable] = []
        self._uses: dict[int, int] = {}
        self._forwards = self._pass = self._next = self._to_come = 0
        self.sent_early = 0.0
        _share_cores()
        if self.comm.Get_size() > 1:
            _refuse_different(self.comm, module)
            for tensor in (*module.parameters(), *module.buffers()):
                _from_rank_0(self.comm, tensor)

    # Saved, it is the module without the wrapper.

    def state_dict(self, *args, **options):
        return self.module.state_dict(*args, **options)

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        return self.module.load_state_dict(state_dict, strict, assign)

    # A forward pass watches the uses of parameters, unless gradients are off.

    def forward(self, *inputs, **options):
        self._take_buffers()
        if not is_grad_enabled():
            return self.module(*inputs, **options)
        self._stale_buffers = self.module.training
        with self._lent_chance(inputs), self._watched():
            return self.module(*inputs, **options)

    def _take_buffers(self) -> None:
        if self._stale_buffers and self.comm.Get_size() > 1:  # they moved in a step
            for buffer in self.module.buffers():
                _from_rank_0(self.comm, buffer)
        self._stale_buffers = False

    # The forward pass gets a generator of its own. The common one moves on only if the model has drawn something, and
    # by the same amount on all ranks.

    @contextmanager
    def _lent_chance(self, inputs) -> Iterator[None]:
        seed = int(copy.deepcopy(generator()).integers(2**63))
        place, _ = _found(inputs[0]) if inputs else (None, None)
        bits = np.random.PCG64(seed if place else [seed, self.comm.Get_rank()])
        before = bits.state
        with drawing_from(RowsOfBatch(bits, place) if place else np.random.Generator(bits)):
            yield
        if bits.state != before:
            generator().integers(2**63)

    # Next come the views. If you have frozen or unfrozen parameters, we make new buckets.

    def _watched(self):
        if self.comm.Get_size() == 1:
            return nullcontext()
        active = [p for p in self.module.parameters() if p.requires_grad]
        if list(map(id, active)) != list(map(id, self._active)):
            self._make_buckets(active)
        if not self._synchronizing:
            return nullcontext()
        if not self._forwards:
            self._uses = dict.fromkeys(self._uses, 0)
        self._forwards += 1
        self._pass += 1
        self._begun = False  # also if the last backward pass ended in an error
        return interpreting(self._with_views)

    def _with_views(self, next, primitive, tensors, params):
        if is_grad_enabled() and any(id(tensor) in self._uses for tensor in tensors):
            tensors = tuple(self._view(next, t) if id(t) in self._uses else t for t in tensors)
        return next(primitive, tensors, params)

    def _view(self, next, parameter):
        view = next(tt.reshape, (parameter,), {"shape": parameter.shape})
        view.register_hook(functools.partial(self._arrived, parameter, self._pass))
        self._uses[id(parameter)] += 1
        return view

    # We fill the buckets from the last parameter to the first, with one open bucket for each dtype.

    def _make_buckets(self, active: list[Parameter]) -> None:
        self.close()
        self._active, self.buckets, self._homes = active, [], {}
        open_: dict[np.dtype, Bucket] = {}
        for parameter in reversed(active):
            dtype = np.dtype(np.float64 if parameter.dtype == np.float64 else np.float32)
            bucket = open_.get(dtype)
            if bucket is None or (bucket.size + parameter.numel()) * dtype.itemsize > self.bucket_cap_mb * 1e6:
                bucket = open_[dtype] = Bucket(dtype)
                self.buckets.append(bucket)
            self._homes[id(parameter)] = bucket, bucket.add(parameter)
            self._removers.append(parameter.register_hook(functools.partial(self._mean, parameter)))
        for bucket in self.buckets:
            bucket.finish()
        self._uses, self._pass = dict.fromkeys(self._homes, 0), 0
        self._forwards = self._next = self._to_come = 0
        self._begun = False

    def close(self) -> None:
        """Stop averaging: take all hooks off the parameters."""
        for remove in self._removers:
            remove()
        self._removers, self._active = [], []

    # A gradient has arrived for one use. We may send it early only if we know all uses, that is, if there was only one
    # forward pass since the last step. After several forward passes we send everything at the end.

    def _arrived(self, parameter, number: int, g: Tensor) -> None:
        if g.requires_grad:
            raise RuntimeError("DistributedDataParallel cannot average with create_graph=True; use .module for that")
        if not self._begun:
            self._begin()
        bucket, position = self._homes[id(parameter)]
        if bucket.request is not None:
            raise RuntimeError(
                f"the gradient of a parameter of shape {parameter.shape} went on growing after it was sent: this "
                "backward pass goes through results of an earlier step. Call all forward passes after the last backward"
            )
        self._to_come += position not in bucket.due
        bucket.due.add(position)
        bucket.put(position, g.numpy())
        self._uses[id(parameter)] -= 1
        if self._forwards == 1 and number == self._pass and self._uses[id(parameter)] == 0:
            bucket.waiting -= 1
            self._send(lambda bucket: bucket.waiting == 0)

    def _begin(self) -> None:
        self._begun, self._next, self._to_come, self._averaged = True, 0, 0, False
        for bucket in self.buckets:
            bucket.clear()
            bucket.waiting = sum(self._uses[id(parameter)] > 0 for parameter in bucket.parameters)

    # MPI moves data only while the program is inside a call of MPI, so now and then we test the messages that are on
    # their way.

    def _send(self, may_go: Callable[[Bucket], bool]) -> None:
        for bucket in self.buckets[: self._next]:
            bucket.request.Test()
        while self._next < len(self.buckets) and may_go(self.buckets[self._next]):
            bucket = self.buckets[self._next]
            if self._unsent:
                self._add_unsent(bucket)
            bucket.send(self.comm)
            self._next += 1

    # At the first leaf the walk is over. `_to_come` leaves will ask for their mean.

    def _mean(self, parameter, g: Tensor) -> Tensor | None:
        if not self._begun:
            self._unsent = True  # a backward pass under no_sync()
            return None
        bucket, position = self._homes[id(parameter)]
        if not self._averaged:
            self._average()
        sent = bucket.view(bucket.sent, position)
        if not self._unsent_before and not _equal(g.numpy(), sent.astype(g.dtype, copy=False)):
            raise RuntimeError(
                f"a parameter of shape {parameter.shape} was used outside the model's forward pass, where its "
                "gradient cannot be averaged. Use it (in a penalty, for example) inside forward()"
            )
        self._to_come -= 1
        self._begun = self._to_come > 0
        return from_numpy(bucket.view(bucket.summed, position).astype(parameter.dtype))

    def _average(self) -> None:
        early = sum(bucket.request.Test() * bucket.sent.nbytes for bucket in self.buckets[: self._next])
        self.sent_early = early / sum(bucket.sent.nbytes for bucket in self.buckets)
        self._send(lambda bucket: True)
        for bucket in self.buckets:
            bucket.request.Wait()
            bucket.summed[: bucket.size] /= self.comm.Get_size()
            for position, parameter in enumerate(bucket.parameters):
                if bucket.summed[bucket.size + position] and position not in bucket.due:
                    _add_gradient(parameter, bucket.view(bucket.summed, position))
        self._averaged, self._unsent_before, self._unsent, self._forwards = True, self._unsent, False, 0

    # Gradients of earlier passes under no_sync() wait in `.grad`, and travel with the next ones.

    def _add_unsent(self, bucket: Bucket) -> None:
        for position, parameter in enumerate(bucket.parameters):
            if parameter.grad is not None:
                bucket.put(position, parameter.grad.numpy())
                parameter.grad = None

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within the block, gradients stay on their rank and add up. The next backward pass after it averages the sum.
        The forward passes must be inside the block, too."""
        before, self._synchronizing = self._synchronizing, False
        try:
            yield
        finally:
            self._synchronizing = before


# A new wrapper must also compare and copy. If one rank had a layer more, the ranks would wait for each other's buckets
# forever, so we compare names, shapes and dtypes before the first step.


def _refuse_different(comm, module: Module) -> None:
    mine = [(name, p.shape, str(p.dtype), p.requires_grad) for name, p in module.named_parameters()]
    mine += [(name, b.shape, str(b.dtype), False) for name, b in module.named_buffers()]
    everyone = comm.allgather(mine)
    for other, theirs in enumerate(everyone):
        if theirs != everyone[0]:
            first, second = next((a, b) for a, b in zip([*everyone[0], None], [*theirs, None]) if a != b)
            raise ValueError(
                f"rank 0 and rank {other} have different models: (name, shape, dtype, requires_grad) is {first} on "
                f"rank 0 and {second} on rank {other}. Build the same model on every rank"
            )


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b) or np.array_equal(a, b, equal_nan=True)  # the first is much quicker


def _from_rank_0(comm, tensor: Tensor) -> None:
    array = np.array(tensor.detach().numpy(), order="C")
    comm.Bcast(array.reshape(-1).view(np.uint8))
    tensor.detach().copy_(array)


def _add_gradient(parameter: Parameter, g: np.ndarray) -> None:
    gradient = from_numpy(g.astype(parameter.dtype))
    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


# ## fit, with one wrapper
#
# Now we can use `fit` as it is. Besides the model and the data it only needs a callback that joins the measurements of
# the ranks. After each step the callback adds up the losses and metrics of all shares, so that the averages, the
# history and every decision of another callback are the same on all ranks, and are those of the whole batches. After
# each epoch it does so for the validation, in which each rank evaluates its share.
#
# The order matters, because we must join numbers before other callbacks look at them. So this callback holds all the
# others.


class Together(Callback):
    """Joins the measurements of all ranks, and then calls `callbacks`. `state`, if given, is a checkpoint to resume."""

    def __init__(self, comm, callbacks: Sequence[Callback], data: Share, validation: Share | None, state=None):
        self.comm, self.callbacks, self.data, self.validation, self.state = comm, callbacks, data, validation, state

    def on_start(self, run):
        for callback in self.callbacks:
            callback.on_start(run)
        if self.state is not None:
            run.load_state_dict(self.state)
        self._joined(run)

    def _joined(self, run) -> None:
        self.totals, self.count = dict(run.averages.totals), run.averages.count

    def on_step(self, run):
        if run.batch <= self.data.accumulate:
            self.totals, self.count = {}, 0
        totals = run.averages.totals
        news = self._sum([totals[name] - self.totals.get(name, 0.0) for name in totals])
        for name, new in zip(totals, news):
            totals[name] = self.totals.get(name, 0.0) + new
        run.averages.count = self.count + sum(place.total for place in self.data.places)
        self._joined(run)
        for callback in self.callbacks:
            callback.on_step(run)

    # Each rank adds up the same numbers in the same order, so all have the same bits.

    def _sum(self, numbers: Sequence[float]) -> list[float]:
        everyone = np.empty((self.comm.Get_size(), len(numbers)))
        self.comm.Allgather(np.array(numbers, np.float64), everyone)
        return everyone.sum(axis=0).tolist()

    # After an epoch, validation is joined by the number of examples that each rank has seen.

    def on_epoch(self, run):
        if self.validation is not None:
            names = [name for name in run.history if name.startswith("val_")]
            seen = self.validation.seen
            *sums, total = self._sum([*(run.history[name][-1] * seen for name in names), seen])
            for name, value in zip(names, sums):
                run.history[name][-1] = value / total
        for callback in self.callbacks:
            callback.on_epoch(run)
        run.stop = bool(self._sum([run.stop])[0])  # if one rank stops (a clock, perhaps), all do

    def on_end(self, run):
        for callback in self.callbacks:
            callback.on_end(run)

    def state_dict(self):
        return {"callbacks": [callback.state_dict() for callback in self.callbacks]}

    def load_state_dict(self, state):
        if len(state["callbacks"]) != len(self.callbacks):
            raise ValueError(
                f"the checkpoint was made with {len(state['callbacks'])} callbacks, now there are {len(self.callbacks)}"
            )
        for callback, saved in zip(self.callbacks, state["callbacks"]):
            callback.load_state_dict(saved)


# A rank without a row has borrowed one, and its measurement on it must count for nothing.


def _measuring_shares(metric: Callable) -> Callable:
    def measured(outputs, targets):
        place, _ = _found(targets)
        return 0.0 if place is not None and place.borrowed else metric(outputs, targets)

    measured.__name__ = getattr(metric, "__name__", type(metric).__name__)
    return measured


# We leave all files to rank 0. It writes the *checkpoints*, atomically, as in chapter 08. It also reads the one to
# resume and sends it to the others, which may run on machines that do not have it. Nothing in a checkpoint depends on
# the number of ranks: the weights, the optimizer and the generator are the same on all of them, and the position is a
# number of whole batches. So 4 ranks may continue where 2 have stopped. (If rank 0 is killed while it writes, the old
# checkpoint is still there, and perhaps beside it a file `.name.unfinished`, which the next checkpoint replaces.)


def _to_resume_from(comm, checkpoint, resume: bool) -> Any:
    if resume and checkpoint is None:
        raise ValueError("resume=True needs checkpoint=, the file to resume from")
    state = None
    if comm.Get_rank() == 0 and checkpoint is not None:
        state = load_checkpoint(checkpoint) if resume and Path(checkpoint).exists() else None
    if state and not any(callback.keys() == {"callbacks"} for callback in state["callbacks"]):
        state["callbacks"] = [{"callbacks": state["callbacks"]}]  # a checkpoint of fit without the wrapper
    return comm.bcast(state)


def _same_chance(comm, data) -> None:
    if len(set(lengths := comm.allgather(len(data)))) > 1:
        raise ValueError(f"the ranks have {lengths} batches: give each the same data, of which it takes its share")
    set_rng_state(comm.bcast(get_rng_state()))
    if hasattr(data, "state_dict"):
        data.load_state_dict(comm.bcast(data.state_dict()))


def _on_this_rank(callback: Callback) -> Callback:
    if rank() and isinstance(callback, BestCheckpoint):  # which would write
        return Best(callback.monitor, callback.mode)
    return callback


def data_parallel(fit: Callable) -> Callable:
    """Return `fit` of chapter 08 for all ranks: `data_parallel(fit)(model, loss_fn, optimizer, data, ...)` takes the
    arguments of fit and returns the same history on every rank.

    Each rank trains on its share of every batch and evaluates its share of the validation data. Rank 0 shows the bar
    and writes the checkpoint; any number of ranks can resume it, or one of plain fit. Callbacks run on every rank, so a
    callback that writes files must check rank() first (BestCheckpoint does that). An error on one rank ends all
    ranks."""

    @functools.wraps(fit)
    def together(model, loss_fn, optimizer, data, **options):
        try:
            return _fit_together(fit, model, loss_fn, optimizer, data, **options)
        except BaseException:
            if world_size() > 1:
                _end_all(*sys.exc_info())
            raise

    return together


# Together, the wrapper, the shares and the callback are all that `fit` needs.


def _fit_together(
    fit, model, loss_fn, optimizer, data, *, validation=None, metrics=(), callbacks=(), accumulate=1, checkpoint=None,
    resume=False, progress=None, **options,
):
    wrapped = model if isinstance(model, DistributedDataParallel) else DistributedDataParallel(model)
    comm, share = wrapped.comm, Share(data, accumulate)
    _same_chance(comm, share)
    held_out = None if validation is None else Share(validation, training=False)
    others = [_on_this_rank(callback) for callback in callbacks]
    together = Together(comm, others, share, held_out, _to_resume_from(comm, checkpoint, resume))

    def loss_of_share(outputs, targets):
        return weighted(loss_fn(outputs, targets), targets)

    history = fit(
        wrapped, loss_of_share, optimizer, share, validation=held_out,
        metrics=[_measuring_shares(metric) for metric in metrics], callbacks=[together], accumulate=accumulate,
        checkpoint=None if rank() else checkpoint, progress=False if rank() else progress, **options,
    )
    comm.Barrier()
    if wrapped is not model:
        wrapped.close()
        comm.Free()
    return history


# The barrier at the end matters: after it, the checkpoint is on the disk, and every rank may read it.
#
# Here is the training of chapter 08 once more. It differs from that one in a single word, and you get the same numbers
# whether you start it with `python` or with `mpiexec -n 4 python`.


def show_training():
    tt.manual_seed(0)
    training, held_out = digits()
    model = digits_classifier()
    history = data_parallel(fit)(
        model, tt.cross_entropy, Adam(model.parameters(), lr=3e-3), Batches(*training, batch_size=32, shuffle=True),
        epochs=3, validation=Batches(*held_out, batch_size=359), metrics=[accuracy],
    )
    if rank() == 0:
        for loss, right in zip(history["val_loss"], history["val_accuracy"]):
            print(f"held-out loss {loss:.4f}, {right:.1%} right")


# ## The witness
#
# We claim "the same curve", so our tests measure it. In float64, with dropout, uneven batches, accumulated steps and
# augmented data, the losses and weights of 1, 2 and 4 ranks differ by less than 1e-9 over fifty steps. They do not
# agree to the last bit, because a sum of four parts is rounded differently from a sum of one.

# ## When does communication win?
#
# If $S$ is large, `Allreduce` of $S$ bytes in $n$ ranks works in a ring: each rank sends and receives about
# $2 S (n - 1) / n$ bytes, which hardly depends on $n$. If $S$ is small, the number of messages that must follow each
# other counts instead, about $2 \log_2 n$. With latency $\alpha$ and bandwidth $\beta$, a step that computes for $t_1$
# seconds on one rank takes
#
# $$ t(n) = \frac{t_1}{n} + 2 \alpha \log_2 n + 2\, \frac{n - 1}{n}\, \frac{S}{\beta} $$
#
# on $n$ ranks, if nothing overlaps. The first term falls with $n$ and the others do not. More ranks stop helping when
# $t_1 / n$ comes near the time of the sum. A larger batch moves that point, because $t_1$ grows with the batch and $S$
# does not.


def predicted_seconds(compute: float, ranks: int, size: float, latency: float, bandwidth: float) -> float:
    """Return the seconds of a step on `ranks` ranks that takes `compute` seconds on one: size in bytes of all
    gradients, latency in seconds, bandwidth in bytes a second. Raises ValueError for ranks < 1 or a bandwidth of 0 or
    less."""
    if ranks < 1 or not bandwidth > 0:
        raise ValueError(f"ranks must be at least 1 and bandwidth positive; they are {ranks} and {bandwidth}")
    return compute / ranks + 2 * latency * math.log2(ranks) + 2 * (ranks - 1) / ranks * size / bandwidth


def check_the_model():
    assert predicted_seconds(1.0, 1, 1e6, 1.0, 1.0) == 1.0
    assert math.isclose(predicted_seconds(1.0, 4, 1e6, 1e-3, 1e9), 0.25 + 4e-3 + 1.5e-3)


# We measure both constants instead of looking them up. The slowest rank counts, and of several tries we take the
# quickest.


def allreduce_seconds(size: int, repeat: int = 20) -> float:
    """Return the seconds of an Allreduce of `size` bytes of float32, the same number on all ranks."""
    comm, sent = _world(), np.ones(max(1, size // 4), np.float32)
    summed, best = np.empty_like(sent), math.inf
    for _ in range(repeat):
        comm.Barrier()
        began = time.perf_counter()
        comm.Allreduce(sent, summed)
        best = min(best, max(comm.allgather(time.perf_counter() - began)))
    return best


def latency_and_bandwidth(large: int = 8_000_000) -> tuple[float, float]:
    """Return the two constants of the model: seconds a message, and bytes a second. (0, inf) for one rank."""
    count = world_size()
    if count == 1:
        return 0.0, math.inf
    small, whole = allreduce_seconds(4), allreduce_seconds(large)
    return small / (2 * math.log2(count)), 2 * (count - 1) / count * large / max(whole - small, 1e-9)


# How good is the model? Start this with `mpiexec -n 2`:


def show_allreduce():
    latency, bandwidth = latency_and_bandwidth()
    if world_size() == 1:
        print("one rank sends nothing; start this with mpiexec -n 2")
        return
    rows = [(size, allreduce_seconds(size)) for size in (4, 4_000, 40_000, 400_000, 4_000_000, 16_000_000)]
    if rank() == 0:
        print(f"{world_size()} ranks: latency {latency * 1e6:.1f} us, bandwidth {bandwidth / 1e9:.2f} GB/s")
        print(f"{'bytes':>10s} {'measured us':>12s} {'model us':>10s}")
        for size, seconds in rows:
            model = predicted_seconds(0, world_size(), size, latency, bandwidth)
            print(f"{size:10,d} {seconds * 1e6:12.1f} {model * 1e6:10.1f}")


# Now we predict and measure a whole step, of a network of three wide layers on batches of three sizes. We measure the
# step of one rank while the others wait.


def step_seconds(model: Module, loss_fn: Callable, x: Tensor, y: Tensor, repeat: int = 5) -> float:
    """Return the seconds of a forward and a backward pass of a model on a batch, the quickest of several tries."""
    best = math.inf
    for _ in range(repeat):
        model.zero_grad()
        began = time.perf_counter()
        loss_fn(model(x), y).backward()
        best = min(best, time.perf_counter() - began)
    return best


def show_scaling(width: int = 512):
    latency, bandwidth = latency_and_bandwidth()
    count, me, comm = world_size(), rank(), _world()
    model = tt.Sequential(tt.Linear(width, width), tt.ReLU(), tt.Linear(width, width), tt.ReLU(), tt.Linear(width, 10))
    size = 4 * sum(p.numel() for p in model.parameters())
    if me == 0:
        print(f"{count} ranks, {size:,} bytes of gradients")
        print(f"{'batch':>6s} {'1 rank ms':>10s} {'ranks ms':>10s} {'predicted':>10s} {'times':>6s} {'early':>6s}")
    for batch in (64, 512, 4096):
        x = from_numpy(np.random.default_rng(0).normal(size=(batch, width)).astype(np.float32))
        y = from_numpy(np.arange(batch) % 10)
        _share_cores()
        alone = comm.bcast(step_seconds(model, tt.cross_entropy, x, y) if me == 0 else None)
        wrapped, place = DistributedDataParallel(model), share_of(batch, me, count)
        mine = step_seconds(wrapped, tt.cross_entropy, _rows(x, place), _rows(y, place))
        shared, early = max(comm.allgather(mine)), wrapped.sent_early
        wrapped.close()
        if me == 0:
            predicted = predicted_seconds(alone, count, size, latency, bandwidth)
            print(f"{batch:6d} {alone * 1e3:10.1f} {shared * 1e3:10.1f} {predicted * 1e3:10.1f} "
                  f"{alone / shared:6.2f} {early:6.0%}")


# The last column is the fraction of all bytes that had arrived before the backward pass was over. On one machine that
# saves little, because the cores of the ranks must do the sending themselves. Between machines the network cards do it,
# and early bytes cost no time.

# ## Errors you will meet
#
# - *ModuleNotFoundError: data-parallel training needs MPI*: install the extra `mpi`.
# - *mpiexec started 4 processes, but mpi4py belongs to another MPI*: you have installed two MPIs, and `mpiexec` belongs
#   to the other one.
# - *rank 0 and rank 2 have different models*: a size depends on something that differs between the ranks, such as a
#   vocabulary built from a share of the text.
# - Nothing happens at all: the ranks do not make the same calls. A line `if rank() == 0:` around a training, an
#   evaluation of the wrapped model, or a `barrier()` makes rank 0 wait for the others forever.
#
# Batch normalization sees only a rank's own rows, so with it the curves of 1 and 4 ranks are similar but not equal. Its
# running averages are those of rank 0, as in PyTorch.

# ## A road not taken
#
# PyTorch's backend is NCCL or Gloo, with a launcher of its own (`torchrun`) that restarts a training when a rank dies.
# Ours ends, and you start it again with `resume=True`. ZeRO and FSDP cut the optimizer's state and the weights as well,
# so that a model need not fit into one process; here each rank holds all of it.

__all__ = [
    "DistributedDataParallel", "DistributedSampler", "Place", "RowsOfBatch", "Share", "Together", "allreduce_seconds",
    "barrier", "data_parallel", "latency_and_bandwidth", "predicted_seconds", "rank", "share_of", "step_seconds",
    "weighted", "world_size",
]
