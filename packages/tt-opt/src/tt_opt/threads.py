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
# The results must not depend on luck. How the rows are cut follows from their number and from the number of threads
# alone, and the results come back in the order of the pieces, whichever thread was first. So a sum of the results is
# the same each time, also when the threads are busy with another caller's work and all pieces are done by this one.

WORTH_IT = 480_000  # numbers touched, below which a second thread costs more than it brings


def in_pieces(work: Callable[[int, int], Any], rows: int, effort: float, least: float = WORTH_IT) -> list:
    """[work(start, stop), ...] for ranges that cover 0 to rows: one range a thread if the effort is worth it, else one
    for all. An error in a piece is raised here, when all pieces are done."""
    count = min(_pool.threads, rows) if effort >= least else 1
    if count < 2:
        return [work(0, rows)]
    ends = [rows * i // count for i in range(count + 1)]
    return _pool.run([(work, start, stop) for start, stop in itertools.pairwise(ends)])


# The threads are made when they are first needed, and anew in a child process after a fork, where only the thread that
# forked lives on. Each waits at a queue of its own. The thread that is free first takes the next job, from a shared
# counter, because processors are not equally fast.


class Pool:
    """Threads that wait for pieces of work."""

    def __init__(self, threads: int):
        self.threads, self.process, self.busy = threads, 0, threading.Lock()
        self.queues: list[SimpleQueue] = []
        self.done: SimpleQueue = SimpleQueue()

    def run(self, jobs: list[tuple]) -> list:
        """The results of jobs (work, start, stop), in their order."""
        results: list[Any] = [None] * len(jobs)
        numbers, errors, state = itertools.count(), [], np.geterr()

        def take():
            with np.errstate(**state):  # a thread has its own; it does not inherit the caller's
                while (number := next(numbers)) < len(jobs):
                    work, start, stop = jobs[number]
                    try:
                        results[number] = work(start, stop)
                    except BaseException as error:
                        errors.append(error)

        if self.busy.acquire(blocking=False):
            try:
                self._call(take, len(jobs) - 1)
            finally:
                self.busy.release()
        else:
            take()
        if errors:
            raise errors[0]
        return results

    def _call(self, take, helpers):
        if self.process != os.getpid():
            self.process, self.queues, self.done = os.getpid(), [], SimpleQueue()
        while len(self.queues) < helpers:
            self.queues.append(SimpleQueue())
            threading.Thread(target=_serve, args=(self.queues[-1], self.done), daemon=True).start()
        for queue in self.queues[:helpers]:
            queue.put(take)
        take()
        for _ in range(helpers):
            self.done.get()


def _serve(queue, done):
    while True:
        queue.get()()
        done.put(True)


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


__all__ = ["WORTH_IT", "get_num_threads", "in_pieces", "one_blas_thread", "scratch", "set_num_threads"]
