# # Workers
#
# This module is below chapter 10: threads and processes that prepare batches ahead of time, and how we make sure that
# none of them is ever left behind.

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

# ## Threads
#
# A worker thread carries out tasks from one queue and puts the results into another. An error is a result, too: the
# worker keeps it, with its traceback and its notes, and the loader raises it where the batch is asked for.


def serve(work: Callable[[tuple], Any], tasks: SimpleQueue, results: SimpleQueue) -> None:
    """Carry out tasks until one of them is None; results are (number, (batch, None)) or (number, (None, error))."""
    for task in iter(tasks.get, None):
        try:
            results.put((task[0], (work(task), None)))
        except BaseException as error:
            results.put((task[0], (None, error)))


# The threads must end with the pass, however it ends: after the last batch, with an error, or when the loop that
# consumes the batches is left, by `break` or by Ctrl-C. Then we throw away the tasks that no thread has begun, and give
# each worker a None. We cannot wait for a worker that is late, so after a timeout we leave it alone.
#
# (Of Python's queues, only `SimpleQueue` cannot be interrupted by Ctrl-C in the middle of its work. The others, and the
# futures of `concurrent.futures`, now and then leave a lock locked, and then the threads wait for it for ever.)


@contextmanager
def worker_threads(
    works: Sequence[Callable[[tuple], Any]], timeout: float | None
) -> Iterator[tuple[Callable[[tuple], None], Callable[[], tuple[int, Any]]]]:
    """The functions `submit` and `arrived` of chapter 10's `in_order`, for threads of which each calls one of the
    `works`. `arrived` raises BatchTimeout after `timeout` seconds; None waits for ever."""
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
        _shut_down(tasks, threads, wait=not isinstance(error, BatchTimeout))
        raise
    _shut_down(tasks, threads, wait=True)


# At the end of the program Python stops threads by itself, and joining one would wait for ever.


def _shut_down(tasks: SimpleQueue, threads: list[threading.Thread], wait: bool) -> None:
    with suppress(Empty):
        while True:
            tasks.get_nowait()
    for _ in threads:
        tasks.put(None)
    for thread in threads:
        if wait and thread.ident and not sys.is_finalizing():
            thread.join()


class BatchTimeout(RuntimeError):
    """No batch has arrived within the loader's timeout."""


def _next(results: SimpleQueue, timeout: float | None) -> tuple[int, Any]:
    try:
        return results.get(timeout=timeout)
    except Empty:
        raise BatchTimeout(f"no batch has come for {timeout} seconds; is the data set slow, or does it hang?") from None


# ## In a worker process
#
# Threads share one memory, and one lock: only one thread at a time executes Python's own instructions. A data set that
# spends its time in Python (parsing, decoding, many small objects) needs processes. Each of them has a memory of its
# own, so the data set must travel there. It does so once, when the process begins; after that a task is two numbers and
# a list of indices. Each worker also learns its own number, counted from 0.

here = threading.local()  # of a worker process: its number


def _live(connection: Connection, load: Callable, number: int) -> None:
    """Answer tasks with (batch, None) or (None, error), until an empty message comes."""
    _prepare_for_the_end()
    here.number = number
    while message := connection.recv_bytes():
        try:
            task = pickle.loads(message)
            _seed_the_rest(task)
            answer = pickle.dumps((load(task), None), pickle.HIGHEST_PROTOCOL)
        except BaseException as error:
            answer = pickle.dumps((None, portable(error)), pickle.HIGHEST_PROTOCOL)
        connection.send_bytes(answer)


# The chapter's `load` gives each batch a generator of its own, but a data set may draw from NumPy's old generator or
# from Python's. Worker processes begin with equal ones, so all of them would draw the same numbers. Therefore we seed
# these two for each task.


def _seed_the_rest(task: tuple) -> None:
    number, _, seed = task
    words = np.random.SeedSequence([seed, number]).generate_state(8)
    np.random.seed(words[:4])  # noqa: NPY002  (a data set may use it)
    random.seed(words[4:].tobytes())


# A worker sends an error back with a note that holds the worker's traceback. Not every error can travel: if its
# constructor needs more than a message, pickle can take it apart but cannot put it together again. So we try the
# journey here first, and send as text an error that would not survive it.


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
# not answer it with a traceback of its own. The program decides, so the worker ignores it. Also, a program can be
# killed in a way that leaves it no time to stop its workers, which may be in the middle of a batch. So each worker
# watches its parent, and ends when it ends.


def _prepare_for_the_end() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=_go_with, args=(parent.sentinel,), daemon=True).start()


def _go_with(parent: int) -> None:
    wait([parent])
    os._exit(1)


# ## In the program
#
# To our threads, a process is a function: called with a task, it sends the task away and returns the answer, or raises
# the error that is the answer. If the process dies, it raises an error as well, which says which process it was, and
# what usually kills workers.


class ProcessWorker:
    """A process that calls `load(task)`; to the program, a function of the task."""

    def __init__(self, load: Callable, context, number: int = 0):
        """Start process `number`. Raises TypeError if `load`, with the data set in it, cannot be pickled."""
        self.connection, far_end = context.Pipe()
        self.process = context.Process(target=_live, args=(far_end, load, number), daemon=True)
        try:
            with _sigint_blocked(), far_end:
                self.process.start()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"the data set and collate_fn must travel to the worker processes, and cannot be pickled ({error}): "
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


# Between the start of a process and the line in which it ignores Ctrl-C there is a second of imports. So we block the
# signal while we start it: a process inherits the signals that its parent blocks. The parent receives a Ctrl-C from
# this time when it unblocks the signal again. (Windows has no such inheritance; there, a Ctrl-C in that second prints a
# traceback too many.)


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker  # not on Windows

    resource_tracker.ensure_running()  # it unblocks the signal when it starts, so it must start before
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# Leaving is the harder half. After the last batch the workers get an empty message, and end by themselves. After a
# `break`, an error or Ctrl-C they may be in the middle of batches that are no longer needed, so we stop them. We do
# that before we wait for the threads, because the threads wait for the processes.


@contextmanager
def worker_processes(count: int, load: Callable, context) -> Iterator[list[ProcessWorker]]:
    """`count` functions that call `load(task)` in processes of their own. `context` is "spawn", "fork", "forkserver" or
    a context of multiprocessing."""
    context = multiprocessing.get_context(context) if isinstance(context, str) else context
    workers: list[ProcessWorker] = []
    try:
        for number in range(count):
            workers.append(ProcessWorker(load, context, number))
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
    """Terminate the processes among these functions, whatever they are doing."""
    for work in works:
        if isinstance(work, ProcessWorker):
            work.process.terminate()


__all__ = [
    "BatchTimeout", "ProcessWorker", "here", "portable", "serve", "stop", "worker_processes", "worker_threads",
]
