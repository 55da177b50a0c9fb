"""One contender on one workload, in a process of its own: `python benchmarks/worker.py CONTENDER WORKLOAD`.

A contender is a module in contenders/ with a function for each workload it can run, which builds everything and returns
a `step()`; a step returns its loss, or None where there is none. The process prints the first loss. From then on it
answers each line on its input, a number of seconds, with the median time of the steps that fit in.
"""

import importlib
import statistics
import sys
import time


def turn(step, seconds: float) -> float:
    times = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    contender, workload = sys.argv[1:]
    step = getattr(importlib.import_module(f"contenders.{contender}"), workload)()
    print(step(), flush=True)
    turn(step, 0.5)
    for line in sys.stdin:
        print(turn(step, float(line)), flush=True)
