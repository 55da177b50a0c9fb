"""One contender on one workload, in a process of its own: `python benchmarks/worker.py CONTENDER WORKLOAD`.

A contender is a module in contenders/ with a function for each workload it can run, which builds everything and returns
a `step()`; a step returns its loss, or None where there is none. The process prints the first loss. From then on it
answers each line on its input: a number of seconds with the median time of the steps that fit in, and `peak` with the
megabytes that a step has needed beyond what is there between two steps (None where neither Linux nor glibc is there).
"""

import ctypes
import gc
import importlib
import statistics
import sys
import time
from pathlib import Path

PROCESS = Path("/proc/self")


def turn(step, seconds: float) -> float:
    times = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def memory(name: str) -> float:
    """Megabytes of this process, `VmRSS` now or `VmHWM` at its peak."""
    lines = dict(line.split(":", 1) for line in (PROCESS / "status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1e3


def memory_between_steps() -> float | None:
    """Give back what is free, forget the peak so far; the megabytes of now."""
    try:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        (PROCESS / "clear_refs").write_text("5")
        return memory("VmRSS")
    except (AttributeError, OSError, TypeError):
        return None


if __name__ == "__main__":
    contender, workload = sys.argv[1:]
    step = getattr(importlib.import_module(f"contenders.{contender}"), workload)()
    first = step()
    turn(step, 0.5)
    between = memory_between_steps()
    print(first, flush=True)
    for line in map(str.strip, sys.stdin):
        if line == "peak":
            print(None if between is None else memory("VmHWM") - between, flush=True)
        else:
            print(turn(step, float(line)), flush=True)
