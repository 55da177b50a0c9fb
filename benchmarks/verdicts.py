"""How often is a verdict of chapter 19 wrong? 400 comparisons of a function with itself, and 40 with 5 % more work.

    hatch run bench:verdicts            about five minutes

Half of the comparisons are made while a program on each core disturbs them. At most 5 % of the first kind may find a
difference, and at least 90 % of the second kind must; otherwise the exit status is 1. The work is 100 small products;
with 5 % more, it is 105.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from functools import partial

import numpy as np

from tt_opt import compare
from tt_opt.benchmarking import a_busy_machine

X = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)


def work(products: int) -> None:
    """So many small matrix products."""
    for _ in range(products):
        X @ X


def shares(same: int, more: int, span: float) -> tuple[float, float]:
    """The share of comparisons of equal programs, and of those with 5 % more work, that find a difference."""
    equal = partial(work, 100)
    false = [compare(equal, equal, span=span).differ for _ in range(same)]
    found = [compare(equal, partial(work, 105), span=span).low > 1 for _ in range(more)]
    return float(np.mean(false)), float(np.mean(found))


def main() -> int:
    """Count and report; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comparisons", type=int, default=400, metavar="N", help="of a function with itself")
    parser.add_argument("--span", type=float, default=0.5, help="seconds of a comparison")
    options = parser.parse_args()
    half, results = options.comparisons // 2, []
    for machine, around in (("quiet", nullcontext()), ("busy", a_busy_machine())):
        with around:
            false, found = shares(half, max(1, half // 10), options.span)
        results.append((false, found))
        print(f"{machine}: {false:.1%} of {half} verdicts are false, {found:.0%} of differences found", flush=True)
    false, found = np.mean(results, axis=0)
    print(f"in all: {false:.2%} false (at most 5 %), {found:.0%} found (at least 90 %)")
    return int(false > 0.05 or found < 0.9)


if __name__ == "__main__":
    sys.exit(main())
