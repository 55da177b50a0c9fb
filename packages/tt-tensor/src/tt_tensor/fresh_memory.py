# # Fresh memory
#
# An appendix of chapter 01: what it costs to write to memory that was never written before, and how a program keeps the
# memory that it has used.

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import numpy as np

from tt_tensor.setup import measure

# When our program asks for memory, it gets only a promise. At the first write, the operating system looks for a *page*
# of 4,096 bytes, clears it and hands it over, page by page.


def show_fresh_memory():
    used = np.zeros(20_000_000, np.float32)
    fresh, again = measure(lambda: np.empty_like(used).fill(1)).seconds, measure(used.fill, 1).seconds
    print(f"20 million ones into fresh memory: {fresh * 1e3:.1f} ms, into what was there: {again * 1e3:.1f} ms")


# A program that frees an array and allocates another should get the same pages back. Whether it does is up to the C
# library, which may return them to the operating system. The one of most Linux systems, glibc, has two thresholds for
# that. It returns an array above the *mmap threshold* as soon as it is freed. It returns the end of its heap as soon as
# more than the *trim threshold* is free there. By itself it sets them to a few megabytes. A training step allocates
# tens or hundreds of megabytes, frees them, and allocates them again a moment later.
#
# `tune_malloc` raises both thresholds, so that pages that were in use once stay with the program until it ends. The
# setting holds for the whole process, which may have other plans for its memory. So importing this file changes
# nothing. The examples and benchmarks of this course call `tune_malloc` when they start, and so may you.


def tune_malloc() -> str | None:
    """Let the malloc of glibc keep up to 2 GB of freed memory, in arrays of up to 32 MB each, for the next allocations
    of this process. None if that is so from now on; elsewhere nothing changes, and the reason is returned."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return f"the C library here is not glibc ({platform.system()}); it follows rules of its own"
    m_trim_threshold, m_mmap_threshold = -1, -3  # their numbers in malloc.h
    if not (mallopt(m_trim_threshold, 2**31 - 1) and mallopt(m_mmap_threshold, 2**25)):
        return "the C library here has refused the thresholds"
    return None


# How much do we save? We do not want to change this process, so we start two others. Both time a step that fills a
# hundred arrays of 1.6 MB and frees them again. Only the second one calls `tune_malloc` first.

STEPS = """
import sys, numpy as np, tt_tensor

def step():
    arrays = [np.ones(400_000, np.float32) for _ in range(100)]

malloc = tt_tensor.tune_malloc() or "tuned" if sys.argv[1] == "tune" else "as it is"
print(f"malloc {malloc}: {tt_tensor.median_time(step) * 1e3:.0f} ms a step")
"""


def show_freed_memory():
    for how in ("leave", "tune"):
        run = subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True)
        print(run.stdout, end="")


# This step does nothing but fill memory, and so gains the most. The more a step computes for each number that it
# writes, the smaller the share of its time that `tune_malloc` can save.

__all__ = ["tune_malloc"]
