# # Workers
#
# An appendix of chapter 10: batches that are prepared by other processes, and how none of these is ever left behind.

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

# ## In the worker
#
# The threads of the chapter share one memory, and one lock: of Python's own instructions, only one thread runs at a
# time. A data set that spends its time in Python (parsing, decoding, many small objects) needs processes. Each has a
# memory of its own, so the data set has to travel there. It does so once, when the process begins; after that a task is
# three numbers and a list.
#
# Two more things happen at the beginning. Ctrl-C in a terminal goes to all processes of the program, and a worker must
# not answer it with a traceback of its own: it is the program that decides, so the worker ignores it. And a program can
# be killed in a way that leaves it no time for anything. Then nobody tells the workers, and they would wait for work
# for ever. So each of them watches its parent, and goes with it.

_here: dict[str, Callable] = {}


def _begin(load: Callable) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=_go_with, args=(parent.sentinel,), daemon=True).start()
    _here["load"] = load


def _go_with(parent: int) -> None:
    wait([parent])
    os._exit(1)


# A task that fails sends its error back, with its notes, and with the worker's traceback as its cause. Not every error
# can travel: one whose constructor wants more than a message is taken apart well, and cannot be put together again. So
# the journey is tried here; what would not survive it is sent as a text.


def _work(task: tuple) -> Any:
    try:
        return _here["load"](task)
    except Exception as error:
        if (sent := portable(error)) is error:
            raise
        raise sent from None


def portable(error: Exception) -> Exception:
    """The error, or, if it cannot be pickled and unpickled, a RuntimeError with its traceback as text."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError("in a worker process:\n" + "".join(traceback.format_exception(error)))


# ## In the program
#
# Python's `ProcessPoolExecutor` has the same interface as the pool of threads, and notices when a process dies. It does
# not say which. It asks the context it is given for each process that it begins; so we give it one that keeps a list.


class _Counted:
    """A context of multiprocessing that remembers the processes it has made."""

    def __init__(self, context):
        self.context: Any = context
        self.processes: list[Any] = []

    def __getattr__(self, name):
        return getattr(self.context, name)

    def Process(self, *args, **kwargs):
        self.processes.append(self.context.Process(*args, **kwargs))
        return self.processes[-1]


# Leaving is the harder half. After the last batch the workers have nothing to do, and are asked to end. After a
# `break`, an error or Ctrl-C they are in the middle of batches that nobody wants: they are stopped. And if one of them
# has died, the others are stopped by the pool.


@contextmanager
def worker_processes(count: int, load: Callable, context) -> Iterator[Callable[[tuple], Future]]:
    """A function that has `load(task)` called in one of `count` processes and returns a Future. `context` is "spawn",
    "fork", "forkserver" or a context of multiprocessing. RuntimeError if a process dies."""
    made: Any = _Counted(multiprocessing.get_context(context) if isinstance(context, str) else context)
    pool = ProcessPoolExecutor(count, mp_context=made, initializer=_begin, initargs=(load,))
    try:
        yield lambda task: _submit(pool, task)
    except BrokenProcessPool:
        pool.shutdown()
        raise RuntimeError(_obituary(made.processes)) from None
    except BaseException:
        for process in made.processes:
            if process.pid is not None:  # it has begun
                process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, task: tuple) -> Future:
    try:
        with _deaf_to_ctrl_c():
            return pool.submit(_work, task)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"the data set and collate_fn have to travel to the worker processes, and cannot be pickled ({error}): "
            "define them at the top level of a module, or leave out multiprocessing_context to use threads"
        ) from error


# The pool begins its processes when tasks are submitted, and between the birth of a process and the line in which it
# ignores Ctrl-C lies a second of imports. So it is born deaf: a process inherits what its parent does not listen to.
# The parent hears of what has happened meanwhile when it listens again. (Windows has no such inheritance; there, a
# Ctrl-C in that second prints a traceback too many.)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# A worker that dies takes its batch along. What is left to do is to say who it was, and what usually kills workers.


def _obituary(processes: list) -> str:
    stopped = (None, 0, -signal.SIGTERM)  # by the pool, after one of them had died
    dead = [p for p in processes if p.exitcode not in stopped] or processes
    names = " or ".join(f"{p.name} (pid {p.pid}, exit code {p.exitcode})" for p in dead)
    return (
        f"a worker process died: {names}. Was it killed, or out of memory? A script that starts processes with "
        '"spawn" also needs `if __name__ == "__main__":` around what it does'
    )


__all__ = ["portable", "worker_processes"]
