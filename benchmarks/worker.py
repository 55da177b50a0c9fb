"""One contender on one workload, in a process of its own: `python benchmarks/worker.py CONTENDER WORKLOAD`.

A contender is a module in contenders/ with a function for each workload it can run, which builds everything and returns
a `step()`; a step returns its loss, or None where there is none. The process prints the first loss. From then on it
answers each line on its input: a number of seconds with the median time of the steps that fit in, and `peak` with the
megabytes that the steps have needed beyond what was there when everything was built (None where Linux cannot be asked).
"""

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


def memory_before_steps() -> float | None:
    """Forget the peak so far; the megabytes of now."""
    try:
        (PROCESS / "clear_refs").write_text("5")
        return memory("VmRSS")
    except OSError:
        return None


if __name__ == "__main__":
    contender, workload = sys.argv[1:]
    step = getattr(importlib.import_module(f"contenders.{contender}"), workload)()
    before = memory_before_steps()
    print(step(), flush=True)
    turn(step, 0.5)
    for line in map(str.strip, sys.stdin):
        if line == "peak":
            print(None if before is None else memory("VmHWM") - before, flush=True)
        else:
            print(turn(step, float(line)), flush=True)
