# # Threads
#
# The support of chapter 15: pieces of an array go to several threads, and memory is used again instead of being asked
# for each time. NumPy and Numba let other threads run while they compute, so plain Python threads are enough.

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
# A kernel that fills an array row by row can fill any range of rows. `in_pieces` cuts the rows into as many ranges as
# there are threads, works on one of them itself, and hands the others to threads that wait for work. Waking a thread
# takes 50 to 100 microseconds on a virtual machine, so a piece of work must be large enough to be worth it. The caller
# says how much there is to do, as a count of numbers that are touched (or of multiply-adds, with a `least` of its own).
#
# A caller with a short piece of work, such as the product of a matrix and a vector, asks for several ranges for each
# thread. It then goes on with the next range while the other thread is still waking up.
#
# The results must not depend on luck. How the rows are cut follows from their number and from the number of threads
# alone, and the results come back in the order of the pieces, whichever thread was first. So a sum of the results is
# the same each time, also when the threads are busy with another caller's work and all pieces are done by this one.

WORTH_IT = 480_000  # numbers touched, below which a second thread costs more than it brings


def in_pieces(
    work: Callable[[int, int], Any], rows: int, effort: float, least: float = WORTH_IT, each: int = 1
) -> list:
    """[work(start, stop), ...] for ranges that cover 0 to rows: `each` ranges for each thread if the effort is worth
    it, else one for all. An error in a piece is raised here, when all pieces are done."""
    if effort < least or _pool.threads < 2 or rows < 2:
        return [work(0, rows)]
    count = min(_pool.threads * each, rows)
    ends = [rows * i // count for i in range(count + 1)]
    return _pool.run([(work, start, stop) for start, stop in itertools.pairwise(ends)])


# Some kernels share their work without Python's help (the appendix *Compiled*). They only want the other threads to be
# there.


def with_helpers(own: Callable[[], Any], alone: Callable[[], Any], help_: Callable[[], Any], awake: Callable[[], int]):
    """own(), while all other threads are in help_(), which they leave by themselves; awake() of them are there already.
    If there are none, or if they are busy with another caller's work, alone()."""
    return alone() if _pool.threads < 2 else _pool.with_helpers(own, alone, help_, awake)


# The threads are made when they are first needed, and anew in a child process after a fork, where only the thread that
# forked lives on. Each waits at a bell of its own. The thread that is free first takes the next job, from a shared
# counter, because processors are not equally fast. The caller waits for jobs and not for threads: if it has done all
# jobs itself before another thread was awake, it goes on, and that thread finds nothing to do.


class Pool:
    """Threads that wait for pieces of work."""

    def __init__(self, threads: int):
        self.threads, self.process, self.busy = threads, 0, threading.Lock()
        self.bells: list[SimpleQueue] = []
        self.take: Callable[[], Any] = _nothing

    def run(self, jobs: list[tuple]) -> list:
        """The results of jobs (work, start, stop), in their order."""
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
        """own() with helpers, or alone()."""
        if not self.busy.acquire(blocking=False):
            return alone()
        try:
            if awake() < self.threads - 1:
                self._ring(help_, self.threads - 1)
            return own()
        finally:
            self.busy.release()

    # If the threads are busy with another caller's work, this one does all of its own.

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
    """What a thread finds that comes too late."""


# A lock that another thread held at the moment of a fork would stay locked in the child for ever.

def _cores() -> int:
    given = os.environ.get("TT_THREADS")
    if given is None:
        return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f"TT_THREADS={given!r}: the number of threads is an integer of at least 1")
    return int(given)


_pool = Pool(_cores())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: setattr(_pool, "busy", threading.Lock()))


def get_num_threads() -> int:
    """How many threads the kernels of `fast` and `compiled` use. As torch.get_num_threads."""
    return _pool.threads


def set_num_threads(threads: int) -> None:
    """Use that many threads from now on; results may differ by rounding. As torch.set_num_threads. The number to begin
    with is that of the processors, or the environment variable TT_THREADS."""
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ValueError(f"the number of threads is an integer of at least 1, not {threads!r}")
    _pool.threads = threads


# ## BLAS
#
# NumPy's matrix products bring threads of their own. Two kinds of threads on the same processors get in each other's
# way: idle threads of BLAS spin, they ask again and again whether there is work, and take the time of those that have
# some. So while a kernel set with threads of its own is in use, BLAS gets one.


def one_blas_thread() -> Any:
    """Give BLAS a single thread; what is returned has `restore_original_limits()`."""
    from threadpoolctl import ThreadpoolController  # not before: its import changes the environment

    return ThreadpoolController().limit(limits=1, user_api="blas")


# ## Scratch memory
#
# A kernel that needs 2 MB for intermediate values should not ask the system for them each time: fresh memory costs a
# page fault for every 4 KB. Each thread keeps what it asked for under a name, as large as the largest wish so far.

_own = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype=np.float32) -> np.ndarray:
    """An array of this thread's own, with whatever was in it; the same memory for each call with this name."""
    size, kept = math.prod(shape), _own.__dict__.get(name)
    if kept is None or kept.size < size or kept.dtype != dtype:
        kept = _own.__dict__[name] = np.empty(size, dtype)
    return kept[:size].reshape(shape)


__all__ = [
    "WORTH_IT", "get_num_threads", "in_pieces", "one_blas_thread", "scratch", "set_num_threads", "with_helpers",
]
