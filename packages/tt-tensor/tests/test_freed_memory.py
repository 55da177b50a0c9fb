"""After `tune_malloc` a step gets the memory that the last one freed; tried in processes of their own."""

import importlib
import platform
import subprocess
import sys

import pytest

import tt_tensor as tt

fresh_memory = importlib.import_module("tt_tensor.fresh_memory")

STEPS = """
import resource
import numpy as np

def step():
    arrays = [np.ones(400_000, np.float32) for _ in range(100)]

def new_pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

step()
before = new_pages()
for _ in range(3):
    step()
print(new_pages() - before)
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have rules of their own")


def pages_after(lines):
    """New pages that three steps with a hundred arrays of 1.6 MB need, in a process that begins with these lines."""
    run = subprocess.run([sys.executable, "-c", lines + STEPS], capture_output=True, text=True, check=True)
    return int(run.stdout)


@glibc
def test_memory_that_was_freed_is_not_fetched_again():
    assert pages_after("import tt_tensor; assert tt_tensor.tune_malloc() is None") < 6_000, "of 117,000 pages of 4 KB"


@glibc
def test_an_import_leaves_malloc_as_it_is():
    alone = pages_after("")
    assert abs(pages_after("import tt_tensor") - alone) < 0.05 * alone, "only `tune_malloc` may change it"


class Library:
    """A C library with a `mallopt` that refuses everything, or without any."""

    def __init__(self, *names):
        self.__dict__ |= dict.fromkeys(names, lambda which, value: 0)


@pytest.mark.parametrize("names, reason", [((), "not glibc"), (("mallopt",), "refused")])
def test_without_a_malloc_that_can_be_tuned_nothing_happens_and_the_reason_is_returned(monkeypatch, names, reason):
    monkeypatch.setattr(fresh_memory.ctypes, "CDLL", lambda name: Library(*names))
    assert reason in tt.tune_malloc()
