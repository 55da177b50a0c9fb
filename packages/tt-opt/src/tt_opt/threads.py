# # Threads
#
# The support of chapter 15. Here we hand pieces of an array to several threads, and keep memory so that we can use it
# again. NumPy and Numba let other threads run while they compute, so plain Python threads are enough.

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np

# ## Pieces
#
# If a kernel fills an array row by row, it can fill any range of rows. `in_pieces` cuts the rows into as many ranges as
# there are threads, works on one of them itself, and hands the others to threads that wait for work. It takes 50 to 100
# microseconds to wake a thread on a virtual machine, so a piece of work must be large enough to be worth it. The caller
# states its effort, as a count of numbers that it reads or writes (or of multiply-adds, with a `least` of its own).
#
# If the work is short, such as the product of a matrix and a vector, the caller asks for several ranges for each
# thread. Then it can continue with the next range while the other thread is still waking up.
#
# The results must not depend on luck. We cut the rows by their number and by the number of threads alone, and return
# the results in the order of the pieces, whichever thread was first. So a sum of the results is the same each time,
# even if the other threads are busy and the caller does all pieces itself.

WORTH_IT = 480_000  # numbers read or written, below which a second thread costs more than it brings


def in_pieces(
    work: Callable[[int, int], Any], rows: int, effort: float, least: float = WORTH_IT, each: int = 1
) -> list:
    """Return [work(start, stop), ...] for ranges that cover 0 to rows: `each` ranges for each thread if the effort is
    worth it, else one for all. An error in a piece is raised here, when all pieces are done."""
    if effort < least or _pool.threads < 2 or rows < 2:
        return [work(0, rows)]
    count = min(_pool.threads * each, rows)
    ends = [rows * i // count for i in range(count + 1)]
    return _pool.run([(work, start, stop) for start, stop in itertools.pairwise(ends)])


# Some kernels share their work without Python's help (the appendix *Compiled*). They only need the other threads to be
# awake.


def with_helpers(own: Callable[[], Any], alone: Callable[[], Any], help_: Callable[[], Any], awake: Callable[[], int]):
    """Call own() while all other threads are in help_(), which they leave by themselves; awake() of them are in it
    already. If there are no other threads, or if they are busy with another caller's work, call alone()."""
    return alone() if _pool.threads < 2 else _pool.with_helpers(own, alone, help_, awake)


# We start the threads when we first need them, and again in a child process after a fork, where only the thread that
# forked lives on. Each thread waits at a bell of its own. Because processors are not equally fast, the first free
# thread takes the next job, by a shared counter. The caller waits for jobs and not for threads: if it has done all jobs
# itself before another thread is awake, it returns, and that thread finds nothing to do.


class Pool:
    """Threads that wait for pieces of work."""

    def __init__(self, threads: int):
        self.threads, self.process, self.busy = threads, 0, threading.Lock()
        self.bells: list[SimpleQueue] = []
        self.take: Callable[[], Any] = _nothing

    def run(self, jobs: list[tuple]) -> list:
        """Return the results of jobs (work, start, stop), in their order."""
        results: list[Any] = [None] * len(jobs)
        done: SimpleQueue = SimpleQueue()
        numbers, errors, state = itertools.count(), [], np.geterr()

        def take():
            with np.errstate(**state):  # a thread has its own; it does not inherit the caller's
                while (number := next(numbers)) < len(jobs):
                    work, start, stop = jobs[number]
                    try:
                        results[number] = work(start, stop)
                    except BaseException as error:
                        errors.append(error)
                    done.put(number)

        self._call(take, take, min(self.threads, len(jobs)) - 1)
        for _ in jobs:
            done.get()
        if errors:
            raise errors[0]
        return results

    def with_helpers(self, own, alone, help_, awake):
        """Call own() with helpers, or alone() if they are busy."""
        if not self.busy.acquire(blocking=False):
            return alone()
        try:
            if awake() < self.threads - 1:
                self._ring(help_, self.threads - 1)
            return own()
        finally:
            self.busy.release()

    # If the threads are busy with another caller's work, this caller does all of its own.

    def _call(self, own, others, helpers):
        if not self.busy.acquire(blocking=False):
            return own()
        try:
            self._ring(others, helpers)
            own()
        finally:
            self.take = _nothing
            self.busy.release()

    def _ring(self, take, helpers):
        if self.process != os.getpid():
            self.process, self.bells = os.getpid(), []
        while len(self.bells) < helpers:
            self.bells.append(SimpleQueue())
            threading.Thread(target=self._serve, args=(self.bells[-1],), daemon=True).start()
        self.take = take
        for bell in self.bells[:helpers]:
            if bell.empty():  # otherwise it has not been heard yet
                bell.put(True)

    def _serve(self, bell):
        while True:
            bell.get()
            self.take()


def _nothing() -> None:
    """Do nothing: the job of a thread that comes too late."""


# A lock that another thread held at the moment of a fork would stay locked in the child forever, so the child gets a
# new one.

def _cores() -> int:
    given = os.environ.get("TT_THREADS")
    if given is None:
        return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f"TT_THREADS={given!r}: the number of threads must be an integer of at least 1")
    return int(given)


_pool = Pool(_cores())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: setattr(_pool, "busy", threading.Lock()))


def get_num_threads() -> int:
    """Return how many threads the kernels of `fast` and `compiled` use, as torch.get_num_threads does."""
    return _pool.threads


# You can change the number.


def set_num_threads(threads: int) -> None:
    """Use that many threads from now on, as torch.set_num_threads does; results may differ by rounding. The first
    number is that of the processors, or that of the environment variable TT_THREADS. Raises ValueError below 1."""
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ValueError(f"the number of threads must be an integer of at least 1, not {threads!r}")
    _pool.threads = threads


# ## BLAS
#
# NumPy's matrix products bring threads of their own. Two kinds of threads on the same processors get in each other's
# way, because idle threads of BLAS *spin*: they ask again and again whether there is work, and take time from threads
# that have some. So while we use a kernel set with threads of its own, BLAS gets a single thread.


def one_blas_thread() -> Any:
    """Give BLAS a single thread. Returns an object whose `restore_original_limits()` undoes that."""
    from threadpoolctl import ThreadpoolController  # not before: its import changes the environment

    return ThreadpoolController().limit(limits=1, user_api="blas")


# ## Scratch memory
#
# If a kernel needs 2 MB for intermediate values, it should not ask the system for new memory each time, because fresh
# memory costs a *page fault* for every 4 KB. So each thread keeps its memory under a name, as large as the largest
# request so far.

_own = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype=np.float32) -> np.ndarray:
    """Return an uninitialized array of this thread. Each call with the same name returns the same memory."""
    size, kept = math.prod(shape), _own.__dict__.get(name)
    if kept is None or kept.size < size or kept.dtype != dtype:
        kept = _own.__dict__[name] = np.empty(size, dtype)
    return kept[:size].reshape(shape)


# ## The order of memory
#
# Elementwise work does not depend on the order of the elements, so we treat a transposed array like any other as long
# as its memory has no gaps. The first helper gives us the elements in the order of memory.


def in_memory_order(x: np.ndarray) -> np.ndarray | None:
    """Return x as one row in the order of its memory, without a copy, or None if there are gaps in it."""
    if x.flags.c_contiguous:
        return x.reshape(-1)
    moved = x.transpose(sorted(range(x.ndim), key=lambda d: -x.strides[d]))
    return moved.reshape(-1) if moved.flags.c_contiguous else None


# The other two make room for a result in that order, and bring a gradient into it.


def empty_like(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Return new memory in the shape and order of x, and the same memory as one row."""
    out = np.empty_like(x)
    return out, in_memory_order(out)


def in_order_of(x: np.ndarray, like: np.ndarray) -> Any:
    """Return x as one row, in the order of the memory of `like`."""
    if x.strides != like.strides:
        moved = np.empty_like(like)
        np.copyto(moved, x)
        x = moved
    return in_memory_order(x)


__all__ = [
    "WORTH_IT", "empty_like", "get_num_threads", "in_memory_order", "in_order_of", "in_pieces", "one_blas_thread",
    "scratch", "set_num_threads", "with_helpers",
]
