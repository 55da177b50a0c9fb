# # Workers
#
# An appendix of chapter 10: batches that are prepared by other processes, and how none of these is ever left behind.

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

# ## In the worker
#
# The threads of the chapter share one memory, and one lock: of Python's own instructions, only one thread runs at a
# time. A data set that spends its time in Python (parsing, decoding, many small objects) needs processes. Each has a
# memory of its own, so the data set has to travel there. It does so once, when the process begins; after that a task is
# two numbers and a list of numbers. Each worker also learns its own number, counted from 0.

here = threading.local()  # of a worker process: its number


def _live(connection: Connection, load: Callable, number: int) -> None:
    """The life of a worker: it answers tasks with (batch, None) or (None, error), until an empty letter comes."""
    _prepare_for_the_end()
    here.number = number
    while letter := connection.recv_bytes():
        try:
            task = pickle.loads(letter)
            _seed_the_rest(task)
            answer = pickle.dumps((load(task), None), pickle.HIGHEST_PROTOCOL)
        except BaseException as error:
            answer = pickle.dumps((None, portable(error)), pickle.HIGHEST_PROTOCOL)
        connection.send_bytes(answer)


# `load` gives each batch a generator of its own, but a data set may draw from NumPy's old generator or from Python's.
# Processes begin with equal ones, and all of them would draw the same. So these two are seeded for each task.


def _seed_the_rest(task: tuple) -> None:
    number, _, seed = task
    words = np.random.SeedSequence([seed, number]).generate_state(8)
    np.random.seed(words[:4])  # noqa: NPY002  (a data set may use it)
    random.seed(words[4:].tobytes())


# An error is sent back with a note that holds the worker's traceback. Not every error can travel: one whose constructor
# wants more than a message is taken apart well, and cannot be put together again. So the journey is tried here, and
# what would not survive it is sent as a text.


def portable(error: BaseException) -> BaseException:
    """The error with its traceback as a note; or, if it cannot be pickled and unpickled, a RuntimeError with it."""
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"in a worker process:\n{text}")
    error.add_note(f"In the worker process:\n{text}")
    return error


# Two more things happen at the beginning. Ctrl-C in a terminal goes to all processes of the program, and a worker must
# not answer it with a traceback of its own: it is the program that decides, so the worker ignores it. And a program can
# be killed in a way that leaves it no time for anything. Then nobody stops the workers, which may be in the middle of a
# batch. So each of them watches its parent, and goes with it.


def _prepare_for_the_end() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=_go_with, args=(parent.sentinel,), daemon=True).start()


def _go_with(parent: int) -> None:
    wait([parent])
    os._exit(1)


# ## In the program
#
# For the chapter's threads, a process is a function: called with a task, it sends the task away and returns the answer,
# or raises the error that is the answer. If the process dies there is an error as well, which says who it was, and what
# usually kills workers.


class Elsewhere:
    """Calls `load(task)` in a process of its own."""

    def __init__(self, load: Callable, context, number: int = 0):
        """Begins the process with this number. TypeError if `load`, with the data set in it, cannot be pickled."""
        self.connection, far_end = context.Pipe()
        self.process = context.Process(target=_live, args=(far_end, load, number), daemon=True)
        try:
            with _deaf_to_ctrl_c(), far_end:
                self.process.start()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"the data set and collate_fn have to travel to the worker processes, and cannot be pickled ({error}): "
                "define them at the top level of a module, or leave out multiprocessing_context to use threads"
            ) from error

    def __call__(self, task: tuple) -> Any:
        try:
            self.connection.send_bytes(pickle.dumps(task))
            if self.connection not in wait([self.connection, self.process.sentinel]):
                raise EOFError
            batch, error = pickle.loads(self.connection.recv_bytes())
        except (EOFError, ConnectionError):
            self.process.join(1)
            who = f"{self.process.name} (pid {self.process.pid}, exit code {self.process.exitcode})"
            raise RuntimeError(
                f"a worker process died: {who}. Was it killed, or out of memory? A script that starts processes with "
                '"spawn" also needs `if __name__ == "__main__":` around what it does'
            ) from None
        if error is not None:
            raise error
        return batch


# Between the birth of a process and the line in which it ignores Ctrl-C lies a second of imports. So it is born deaf: a
# process inherits what its parent does not listen to. The parent hears of what has happened meanwhile when it listens
# again. (Windows has no such inheritance; there, a Ctrl-C in that second prints a traceback too many.)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker  # not on Windows

    resource_tracker.ensure_running()  # where it begins, it makes the process listen again: so it begins before
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# Leaving is the harder half. After the last batch the workers get an empty letter, and end by themselves. After a
# `break`, an error or Ctrl-C they may be in the middle of batches that nobody wants: they are stopped. That happens
# before the threads are waited for, which are waiting for them.


@contextmanager
def worker_processes(count: int, load: Callable, context) -> Iterator[list[Elsewhere]]:
    """`count` functions that have `load(task)` called in processes. `context` is "spawn", "fork", "forkserver" or a
    context of multiprocessing."""
    context = multiprocessing.get_context(context) if isinstance(context, str) else context
    workers: list[Elsewhere] = []
    try:
        for number in range(count):
            workers.append(Elsewhere(load, context, number))
        yield workers
        for worker in workers:
            with suppress(ConnectionError):  # it has died with nothing to do
                worker.connection.send_bytes(b"")
    except BaseException:
        stop(workers)
        raise
    finally:
        for worker in workers:
            worker.process.join()
            worker.connection.close()


def stop(works: Iterable[Callable]) -> None:
    """End the processes among these functions, whatever they are doing."""
    for work in works:
        if isinstance(work, Elsewhere):
            work.process.terminate()


__all__ = ["Elsewhere", "here", "portable", "stop", "worker_processes"]
