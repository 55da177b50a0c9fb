# # Setup
#
# At the end of this chapter we know which machine we have, whether anything is wrong with it, how to repeat random
# experiments, and how fast the machine multiplies matrices. By that last number we shall measure everything later.

# ## The hurt
#
# This course makes claims about speed, accuracy and memory, and you should be able to check each of them on your own
# machine. So our first program is a measurement. How long does it take to add up a million numbers?

from __future__ import annotations

import ctypes
import os
import platform
import statistics
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


# `perf_counter` is the right clock for us. The other candidate, `time.time`, gives the time of day; when the system
# corrects that, a duration that we measure with it can come out negative.


def time_once(function: Callable, *args) -> float:
    """The seconds that one call of `function(*args)` takes, by the clock on the wall."""
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def show_hurt():
    numbers = list(range(1_000_000))
    print("sum of a million numbers, milliseconds:", " ".join(f"{time_once(sum, numbers) * 1e3:.2f}" for _ in range(8)))
    for _ in range(2):
        print("three random numbers:", " ".join(f"{x:.3f}" for x in np.random.default_rng().random(3)))


# Eight runs of the same program do not agree. Which of them is *the* time? The first is often the slowest, because
# nothing is in the caches yet. Others are slow because the machine did something else for a moment. So a claim such as
# "twice as fast" is worth nothing if it rests on one run each.
#
# The random numbers do not agree either, because each run starts from another place. Two things, then, make one run
# differ from the next: randomness and the machine. We begin with randomness, because a program can control it. We
# cannot control the machine, so for that we will need statistics.

# ## Chance that can be repeated
#
# Networks start with random weights and see their data in random order. To find a mistake, we must be able to run the
# same experiment twice. A *pseudorandom number generator*, or *generator* for short, is a machine with a state: from
# the same state we get the same numbers. We use one generator for the whole course, and `manual_seed` puts it into a
# state given by a number, the *seed*.

_generator = np.random.default_rng(0)
_lent = threading.local()


# Why do we use one generator for everything? Because then one number repeats everything. With a generator for the
# weights and another for the order of the data, you would need two seeds. Sooner or later you would set only one of the
# two.


def generator() -> np.random.Generator:
    """The random generator from which everything in this course draws."""
    return getattr(_lent, "generator", None) or _generator


# We make one exception. In chapter 10 several threads prepare data while the program trains, and each piece of their
# work needs random numbers of its own. For that time, and only in its own thread, another generator takes the place of
# the common one.


@contextmanager
def drawing_from(own: np.random.Generator) -> Iterator[None]:
    """Inside the block, and in this thread only, `generator()` is `own`."""
    before = getattr(_lent, "generator", None)
    _lent.generator = own
    try:
        yield
    finally:
        _lent.generator = before


# `manual_seed` changes the state *inside* the one generator and does not replace it, so other parts of the program that
# hold the generator keep the right one. NumPy stores the state in `.bit_generator.state`, which you can read and
# assign; `np.random.default_rng(seed)` is a new generator in the state that belongs to a seed. This is your first
# exercise.


def manual_seed(seed: int) -> None:  # exercise
    """Put the generator into the state given by an integer of 0 or more; what follows is the same each time.

    Raises ValueError for a seed below 0."""
    if seed < 0:
        raise ValueError(f"a seed must be an integer of 0 or more, not {seed}")
    generator().bit_generator.state = np.random.default_rng(seed).bit_generator.state


# We can also take the state out and put it back. This will let an interrupted training continue as if nothing had
# happened.


def get_rng_state() -> dict[str, Any]:
    """The state of the generator, as a dictionary of plain values."""
    return dict(generator().bit_generator.state)


def set_rng_state(state: dict[str, Any]) -> None:
    """Put the generator into a state that `get_rng_state` returned."""
    generator().bit_generator.state = state


# The same seed must give the same numbers. Our check leaves the generator as it found it, as every check should.


def check_same_seed_same_numbers():
    before = get_rng_state()
    manual_seed(7)
    first = generator().standard_normal(5)
    manual_seed(7)
    assert (generator().standard_normal(5) == first).all()
    set_rng_state(before)


# Sometimes we want the same random numbers in one place only, without a change for the rest of the program. `seeded`
# runs one function from a given seed and then puts the generator back to where it was. The function may fail. Even then
# the state must come back, and the error must still reach the caller.


def seeded(seed: int, function: Callable) -> Any:  # exercise
    """The result of `function()` when the generator starts from `seed`; afterwards the generator is as it was, also if
    `function` raises an error, which reaches the caller."""
    before = get_rng_state()
    try:
        manual_seed(seed)
        return function()
    finally:
        set_rng_state(before)


def check_seeded():
    before = get_rng_state()
    assert (
        seeded(3, lambda: generator().random()) == seeded(3, lambda: generator().random()) and get_rng_state() == before
    )

# ## The smallest thing that could work
#
# Should we run the program several times and take the fastest? That is popular, and for comparing two ways to add
# numbers it is not bad. However, the fastest run is the luckiest one, and a program that is slow on every second run is
# not as fast as its best one. We take the *median*: half of the runs were faster, half were slower, and a few wild ones
# do not matter.
#
# We do not count the call before the loop. Everything that happens only once (memory is reserved, code is loaded,
# caches are filled) happens there, and we want to know how long the *next* thousand calls will take. Such a call is a
# *warm-up*.


def median_time(function: Callable, *args, runs: int = 7) -> float:
    """The median of the seconds that several runs take, after one that does not count."""
    function(*args)
    return statistics.median(time_once(function, *args) for _ in range(runs))


# It fails for calls that finish in less than a microsecond. How long does `len(())` take?


def show_too_short():
    medians = (median_time(len, ()) * 1e9 for _ in range(8))
    print("one call at a time, nanoseconds:", " ".join(f"{t:.0f}" for t in medians))
    print(f"in bundles, as below:            {measure(len, ()).seconds * 1e9:.0f}")


# More than half of the time that we measured belongs to the clock and the call of `time_once`. Besides, seven such
# calls are over before the processor has woken up.

# ## The idea: run for a while, not a number of times
#
# So we give each measurement a span of time, a fifth of a second, and run the function as often as fits. If its calls
# are too short to time one by one, we time them in bundles. Memory is scarce as well, so we make one run under
# `tracemalloc`, which records what Python allocates, NumPy's arrays included. (It slows the program down, so it watches
# the warm-up, which we do not time.)
#
# A measurement without its *spread* is half a measurement. If the middle half of all runs falls within one percent, a
# difference of five percent means something. If it is spread over thirty percent, we cannot see anything that small.


@dataclass(frozen=True)
class Measurement:
    """One measured function: the median seconds of a call, the spread (the width of the middle half of all times,
    relative to the median), the number of timed calls, the peak of memory in bytes, and the result."""

    seconds: float
    spread: float
    runs: int
    peak_bytes: int
    result: Any

    def __str__(self) -> str:
        seconds = f"{self.seconds * 1e3:.3f} ms (spread {self.spread:.0%}, {self.runs} runs)"
        return f"{seconds}, peak {self.peak_bytes / 1e6:.1f} MB"


# We write this in three steps. The first is memory. `tracemalloc.start()` starts recording what is allocated.
# `get_traced_memory()` returns a pair: the memory that is allocated now and the *peak* since the start. `stop()` ends
# it. While it watches, everything is slower, so you must stop it in any case, even if the function fails, or a later
# measurement would suffer. If it is running already (`is_tracing()` tells you), your caller watches something larger,
# and you must not stop it.


def peak_of(function: Callable, *args) -> tuple[int, Any]:  # exercise
    """The peak of memory, in bytes, that one call of `function(*args)` allocates, and what the call returned.

    The peak is 0 if tracemalloc was running already; it then continues to run. Otherwise it is stopped, also if the
    function raises an error, which reaches the caller."""
    if tracemalloc.is_tracing():
        return 0, function(*args)
    tracemalloc.start()
    try:
        result = function(*args)
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


# The second step is time, and we make two decisions. We choose the bundle so that each timed stretch takes at least
# twenty microseconds, a hundred times what the clock itself takes, or more. And we time at least three stretches even
# if one call takes longer than the whole span, because one number has no median worth the name.
#
# One call, timed by `time_once`, shows how many calls fit into twenty microseconds. It is at least one, and beware of a
# first time of zero.


def time_in_bundles(function: Callable, *args, span: float) -> tuple[list[float], int]:  # exercise
    """Seconds of one call of `function(*args)`, as often as it was measured in about `span` seconds, but at least three
    times; and the number of calls in each bundle, 1 or more, whose time was divided by that number."""
    bundle = max(1, int(2e-5 / max(time_once(function, *args), 1e-9)))
    times: list[float] = []
    end = time.perf_counter() + span
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(bundle):
            function(*args)
        times.append((time.perf_counter() - start) / bundle)
    return times, bundle


# The third step is the summary. `statistics.quantiles(times, n=4)` returns the three *quartiles*. A quarter of all
# times is below the first, half is below the second, which is the median, and three quarters are below the third. The
# middle half is between the first and the third; its width is called the *interquartile range*.


def measure(function: Callable, *args, span: float = 0.2) -> Measurement:  # exercise
    """Call `function(*args)` for about `span` seconds; at least three times, after a first call that does not count:
    that of `peak_of`. The times are those of `time_in_bundles`.

    `seconds` is the median of one call, `spread` the distance of the first and third quartiles divided by the median,
    `runs` the number of timed calls (bundles times the calls in each), `peak_bytes` and `result` are those of the first
    call."""
    peak, result = peak_of(function, *args)
    times, bundle = time_in_bundles(function, *args, span=span)
    low, middle, high = statistics.quantiles(times, n=4)
    return Measurement(middle, (high - low) / middle, len(times) * bundle, peak, result)


# How can we test a stopwatch? With something that takes a known time. Sleeping for two milliseconds takes two
# milliseconds, plus the time that the operating system needs to notice. Likewise, an array of a million 64-bit zeros
# takes eight million bytes, whatever else happens.


def check_measure():
    measured = measure(lambda: time.sleep(0.002), span=0.05)
    assert 0.002 <= measured.seconds < 0.2 and measured.runs >= 3
    assert measure(np.zeros, 1_000_000, span=0.01).peak_bytes >= 8_000_000


# Why the median and the quartiles, and not the mean? We look at the times themselves. Here are two thousand runs of one
# small sum.


def show_times():
    """A histogram of 2,000 measured times of one sum, with their median, their quartiles and their mean."""
    import matplotlib.pyplot as plt

    numbers = list(range(10_000))
    times = np.array([time_once(sum, numbers) for _ in range(2_000)]) * 1e6
    low, middle, high = np.quantile(times, (0.25, 0.5, 0.75))
    figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
    ax.hist(np.minimum(times, 2 * middle), bins=80)
    ax.axvspan(low, high, alpha=0.3, color="tab:orange", label="the middle half")
    ax.axvline(middle, color="tab:orange", label=f"median {middle:.0f} us")
    ax.axvline(min(times.mean(), 2 * middle), color="tab:red", linestyle="--", label=f"mean {times.mean():.0f} us")
    ax.set(xlabel="microseconds (the last bar: all longer ones)", ylabel="runs", title="sum of 10,000 numbers")
    ax.legend()
    return figure


# The times have a floor, near which most of them are, and a long tail to the right, in which the machine did something
# else. A few runs of the tail are enough to move the mean, while the median stays where most runs are.
#
# Now we measure the million numbers again, as a list and as an array, and the creation of a new array. The spread shows
# how far you can trust each of the three.


def show_measure():
    numbers = list(range(1_000_000))
    array = np.arange(1_000_000)
    print("sum of a list:  ", measure(sum, numbers))
    print("sum of an array:", measure(array.sum))
    print("a new array:    ", measure(np.ones, 1_000_000))


# ## What machine is this?
#
# A time means something only if you know which machine it was measured on. A library for linear algebra, the *BLAS*,
# will do most of our arithmetic. NumPy brings one along, usually OpenBLAS. It contains several versions of every
# routine, one for each family of processors, and picks one when it is loaded. Its choice decides how wide the vector
# instructions behind our matrix products are. NumPy does not report it, so we ask the library itself, through `ctypes`.
#
# NumPy keeps the library in a folder beside its own code, under a name that differs from system to system. So we look
# in the three places where it may be, load it once more (which gives us the copy that is already loaded), and ask it
# two questions. If we find none, because this NumPy was built with Intel's, Apple's or the system's own library, the
# answers are `None`, and nothing else in the course depends on them.


def _openblas() -> ctypes.CDLL | None:
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs", package / ".libs"):
        for library in sorted(folder.glob("*openblas*")):
            try:
                return ctypes.CDLL(str(library))
            except OSError:
                continue
    return None


def _ask(library: ctypes.CDLL | None, question: str, answer_type) -> Any:
    for name in (f"scipy_openblas_{question}64_", f"openblas_{question}64_", f"openblas_{question}"):
        if library is not None and hasattr(library, name):
            function = getattr(library, name)
            function.restype = answer_type
            return function()
    return None


# The processor's vector instructions (*SIMD*, single instruction, multiple data) matter as much. A core with AVX2
# multiplies and adds eight 32-bit numbers in one instruction, and a core with AVX-512 sixteen.
#
# NumPy reports those itself, in `show_config`: which extensions it was built for, and which of those this processor
# has.


def system_info() -> dict[str, Any]:
    """The facts on which a time depends, by name: python, numpy, system, processor, cores, simd (a list of extensions),
    blas, and the blas_kernel and number of blas_threads that it uses (None where unknown)."""
    config: Any = np.show_config(mode="dicts")
    library = _openblas()
    kernel = _ask(library, "get_corename", ctypes.c_char_p)
    blas = config["Build Dependencies"]["blas"]
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "simd": [*config["SIMD Extensions"].get("baseline", []), *config["SIMD Extensions"].get("found", [])],
        "blas": f"{blas.get('name')} {blas.get('version')}",
        "blas_kernel": kernel.decode() if kernel else None,
        "blas_threads": _ask(library, "get_num_threads", ctypes.c_int),
    }


# On Linux, the name of the processor is in a file; elsewhere, Python may know it.


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        platform.processor() or "unknown",
    )


def show_system_info():
    for name, value in system_info().items():
        print(f"{name:13s} {' '.join(value) if isinstance(value, list) else value}")


# ## What is wrong with it?
#
# Now we know the machine. It is even better to know what to do. `check_environment` returns a list of problems, each
# with the command that fixes it; an empty list means that all is well.


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with this environment, and the command that fixes it."""

    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}\n  -> {self.fix}"


# We look for a Python older than 3.11, a NumPy older than 2.0, and a BLAS that uses fewer threads than there are cores.
# The fourth problem is a BLAS that uses its kernels for `Haswell`, which had AVX2, on a processor with AVX-512. (The
# name of such an extension starts with `AVX512`, or in newer versions of NumPy with `X86_V4`.) A table holds our
# message about each of them, and `{python}` in a text is replaced by the entry of that name in `system_info()`.

_PROBLEMS = {
    "python": Problem(
        "Python is {python}; this course needs 3.11 or newer",
        "install Python 3.11 or newer from python.org or your package manager",
    ),
    "numpy": Problem(
        "NumPy is {numpy}; this course needs 2.0 or newer", "python -m pip install --upgrade numpy"
    ),
    "threads": Problem(
        "the BLAS uses {blas_threads} of {cores} cores", "unset OPENBLAS_NUM_THREADS OMP_NUM_THREADS"
    ),
    "kernel": Problem(
        "the processor has AVX-512, but OpenBLAS did not recognise it and uses its AVX2 kernels",
        "export OPENBLAS_CORETYPE=SkylakeX",
    ),
}


def _problem(name: str, info: dict[str, Any]) -> Problem:
    return Problem(_PROBLEMS[name].what.format(**info), _PROBLEMS[name].fix)


# Each check is one condition, and each has cost a programmer an afternoon. Beware of two traps. Compared as strings,
# "3.9" comes after "3.11", so `_version` turns the first two parts of a version into integers. And `None` means
# unknown, which is not a problem. A function that can judge the data of another machine (`info`) can be tested without
# owning that machine.
#
# This exercise has a star: leave it out if you like, because nothing later depends on it.


def check_environment(info: dict[str, Any] | None = None) -> list[Problem]:  # exercise (starred)
    """The problems of this environment, each with its fix; an empty list if all is well. Give `info` to judge another
    machine's `system_info()`."""
    info = info or system_info()
    threads, cores = info["blas_threads"], info["cores"]
    wide = any(name.startswith(("X86_V4", "AVX512")) for name in info["simd"])
    wrong = {
        "python": _version(info["python"]) < (3, 11),
        "numpy": _version(info["numpy"]) < (2, 0),
        "threads": None not in (threads, cores) and threads < cores,
        "kernel": info["blas_kernel"] == "Haswell" and wide,
    }
    return [_problem(name, info) for name in wrong if wrong[name]]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


# So we show it the data of an old machine and check that it finds at least three faults, each with a fix.


def check_environment_names_fixes():
    old = {**system_info(), "python": "3.9.1", "numpy": "1.26.4", "blas_threads": 1, "cores": 8}
    found = check_environment(old)
    assert len(found) >= 3 and all(problem.fix for problem in found)


def show_environment():
    print("\n".join(map(str, check_environment())) or "nothing is wrong")


# The last of the four checks needs an explanation. A processor newer than the BLAS is not in its tables, and then
# OpenBLAS plays safe and takes the routines for an older one. If the processor has AVX-512, the variable in the fix
# makes it take the wider ones. We do not set it ourselves, because on a processor without these instructions the first
# product would end the program.

# ## How fast is it?
#
# Nearly all of the arithmetic in a neural network is one operation, the product of two matrices. For two matrices of $n
# \times n$ it takes $n^3$ multiplications and about as many additions: $2n^3$ floating-point operations, or *FLOP*.
# Divided by the time, that gives FLOP per second. Today's machines do billions of them, GFLOP/s.
#
# We measure the product of random matrices and not of zeros, because some processors are quicker with zeros. We create
# them beforehand, because we want to time the product alone. They come from a generator of their own, because a
# measurement must not change the numbers that the rest of the program draws.


def matmul_gflops(size: int, dtype=np.float32) -> float:  # exercise
    """GFLOP/s of the product `np.matmul` of two random matrices of size x size and of this dtype, by the median of
    `measure`; the generator of the course is not touched."""
    a, b = (np.random.default_rng(0).random((size, size)).astype(dtype) for _ in range(2))
    return 2 * size**3 / measure(np.matmul, a, b).seconds / 1e9


# How good is that? A processor has a *peak* that it cannot exceed: cores, times cycles per second, times operations in
# a cycle. With AVX-512 and two units that multiply and add, a core does 16 numbers, times 2 operations, times 2 units:
# 64 operations in a cycle. With AVX2 it is 32.
#
# Neither the cores nor the clock are as simple as they look. A core that the system reports may be half of a physical
# core, which two hardware threads share. The clock goes up when few cores work and down when wide instructions heat
# them. So take the formula as an order of magnitude: it can tell twenty percent from eighty, but not eighty from
# ninety.


def peak_gflops() -> float | None:
    """An estimate of the GFLOP/s that this machine cannot exceed in float32, from its cores, clock and SIMD width; None
    where the clock cannot be read."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    clock = [float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")]
    if not clock:
        return None
    wide = any(name.startswith(("X86_V4", "AVX512")) for name in system_info()["simd"])
    return len(clock) * max(clock) / 1e3 * (64 if wide else 32)


def show_gflops():
    peak = peak_gflops()
    print("peak by the formula:", f"{peak:.0f} GFLOP/s" if peak else "unknown here, the clock cannot be read")
    print(f"{'size':>6s} {'float32':>9s} {'float64':>9s}   GFLOP/s")
    for size in (16, 64, 256, 1024):
        print(f"{size:6d} {matmul_gflops(size):9.1f} {matmul_gflops(size, np.float64):9.1f}")


# You can read three things off this table. Small products are slow, because the call costs more than the work. In the
# large ones, `float64` runs at half the speed of `float32`, since half as many numbers fit into an instruction. And the
# largest `float32` number is *this machine's number*; write it down. If it stays far below the peak, look at what
# `check_environment` says about kernels. If it is *above* the peak, blame the clock. The formula takes it as the system
# reports it. That may be a nominal figure that the processor exceeds, and a virtual machine may report anything.

# ## How exact is it?
#
# We must know one more property of the machine before we build on it: its numbers are not the numbers of mathematics. A
# `float32` has 32 bits, one for the sign, eight for a power of two, and 23 for the digits. That gives about seven
# decimal digits, wherever the point is, and it leaves gaps. Between 1 and the next larger number there is nothing, and
# the gap grows with the number.


def show_floats():
    for dtype in (np.float16, np.float32, np.float64):
        facts = np.finfo(dtype)
        print(f"{dtype.__name__}: gap after 1: {facts.eps:.1e}, largest {facts.max:.1e}, least normal {facts.tiny:.1e}")
    print("16,777,216 + 1 =", f"{np.float32(16_777_216) + np.float32(1):,.0f}", "in float32")
    print("0.1 + 0.2 == 0.3:", 0.1 + 0.2 == 0.3)


# Three things follow, and we shall meet each of them again. First, adding a small number to a large one may change
# nothing: a sum of twenty million ones, added one after the other in `float32`, stops at 16,777,216. Second, numbers
# above $3.4 \cdot 10^{38}$ become infinite (*overflow*), which an exponential reaches at 89; chapter 03 spends half of
# its pages on avoiding that. Third, we must not compare results with `==`, unless, as below, every intermediate number
# is a small integer. We compare with a *tolerance* that fits the precision: a few units in the seventh digit for one
# operation in `float32`, more for a sum of thousands.
#
# Before you continue, predict. Here are five computations in `float32`, from left to right, each of which starts from
# numbers that `float32` can hold exactly. (From $2^{24}$ on, the gap is 2; around $10^8$ it is 8.)
#
# $$ a = (2^{24} + 1) + 1 \qquad b = 2^{24} + (1 + 1) \qquad c = (10^8 + 3) - 10^8 \qquad d = 2^{127} \cdot 2 / 2 $$
#
# And for $e$: is $0.5 + 0.25 = 0.75$, by `==`?


def predict_float32() -> dict[str, Any]:  # exercise
    """Your prediction for the five computations, by letter: a number for each of "a", "b", "c" and "d" (`np.inf` for
    infinity), and True or False for "e"."""
    return {"a": 2**24, "b": 2**24 + 2, "c": 0, "d": np.inf, "e": True}


# Why do we not take `float64` for everything and forget about it? It takes twice the memory, twice the trips, and as
# the table above shows, twice the time. Networks do not need the digits, because their inputs are noisy, and so is
# their training. Where we *do* need digits is in checking: when we compare a formula for a derivative with a difference
# of two nearly equal numbers, seven digits leave three. So throughout this course we compute in `float32` and check in
# `float64`.

# ## The witness
#
# Is the product correct? We can check a product of integer matrices without rounding, element by element, in plain
# Python.
#
# With integers up to nine and six products to a sum, no intermediate result exceeds a thousand, and `float32` holds
# integers up to sixteen million without rounding. So our comparison may be exact, `==`, without any tolerance. Remember
# that trick.


def check_matmul_is_exact_for_integers():
    a, b = np.random.default_rng(1).integers(-9, 10, (2, 6, 6)).astype(np.float32)
    for i in range(6):
        for j in range(6):
            assert (a @ b)[i, j] == sum(int(a[i, k]) * int(b[k, j]) for k in range(6))


# ## The cost
#
# Arithmetic is one limit, and moving numbers is the other. Adding two arrays does one operation for each twelve bytes
# that it moves, and no processor can keep its arithmetic units busy at that rate.


def show_memory():
    print(f"{'numbers':>12s} {'GB/s':>8s} {'GFLOP/s':>9s}   of x + y in place")
    for size in (10_000, 1_000_000, 20_000_000):
        x, y = np.ones(size, np.float32), np.ones(size, np.float32)
        seconds = measure(np.add, x, y, x).seconds
        print(f"{size:12,d} {12 * size / seconds / 1e9:8.1f} {size / seconds / 1e9:9.2f}")


# Ten thousand numbers fit into the cache next to the core. Twenty million must come from memory, and every trip takes
# many times as long as the addition. Most of the speed in this course comes from one fact, which this table shows: *a
# product of matrices is limited by arithmetic, nearly everything else by the number of trips through memory*. (A
# program's first write to new memory is more expensive still. How expensive, and what we can do about it, is the
# subject of the appendix *Fresh memory*.)
#
# A useful way to think about all this is the *roofline model* (Williams, Waterman and Patterson, 2009). For an
# operation, we count how many FLOP it does for each byte that it moves; this is its *arithmetic intensity* $I$. If the
# intensity is small, the memory sets the pace, because FLOP/s cannot exceed intensity times bandwidth. If it is large,
# the arithmetic does:
#
# $$ \text{FLOP/s} \le \min(\text{peak},\; I \cdot \text{bandwidth}), \qquad I = \frac{\text{FLOP}}{\text{bytes}}. $$
#
# An addition of arrays has an intensity of one twelfth. A product of two matrices of $n \times n$ does $2n^3$ FLOP on
# $12 n^2$ bytes, so its intensity is $n / 6$. That is less than 3 for $n = 16$, and 171 for $n = 1024$, where memory is
# not the limit. In the picture, we measure both limits of your machine and put an addition and four products under
# them.


def show_roofline():
    """The roofline of this machine: two measured limits, and where an addition and four matrix products end up."""
    import matplotlib.pyplot as plt

    x, y = np.ones(20_000_000, np.float32), np.ones(20_000_000, np.float32)
    added = x.size / measure(np.add, x, y, x, span=0.05).seconds / 1e9
    products = {n: matmul_gflops(n) for n in (16, 64, 256, 1024)}
    peak, gb_per_second = max(products.values()), 12 * added
    figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    intensity = np.geomspace(0.03, 400, 100)
    ax.loglog(intensity, np.minimum(peak, intensity * gb_per_second), label="min(peak, intensity x bandwidth)")
    ax.plot(1 / 12, added, "o", label="x + y, 20 million numbers")
    ax.plot([n / 6 for n in products], [*products.values()], "s", label="products of 16, 64, 256, 1024")
    ax.set(xlabel="arithmetic intensity (FLOP a byte)", ylabel="GFLOP/s", title="Roofline")
    ax.legend()
    return figure


# The addition and the fastest product touch the roof by construction, because we measured the roof with them. The
# smallest product also meets another limit, the cost of the call. A product may even be above the sloping part, because
# its matrices fit into the cache, and the cache is faster than memory. Most tricks that make a framework fast do one of
# two things. They raise the intensity, by doing more with each number while it is in the cache, or they keep the
# arithmetic units busy.

# ## Errors you will meet


def show_errors():
    try:
        manual_seed(-1)
    except ValueError as error:
        print("ValueError:", error)
    print("and what we would say about an old machine:")
    for problem in check_environment({**system_info(), "python": "3.9.1", "numpy": "1.26.4"})[:2]:
        print(problem)


# ## Exercises
#
# 1. `speedup`: how many times faster one function is than another. The two take turns, so that a slow moment of the
#    machine affects both.
# 2. `bandwidth`: GB/s of copying an array of a given number of bytes.
#
# Both have a star: they are worth your time, but nothing later depends on them. They have one thing in common:
# measuring fairly is mostly a matter of arrangement.


def speedup(slow: Callable, fast: Callable, rounds: int = 5) -> float:  # exercise (starred)
    """The median, over rounds in which both take turns, of the time of `slow` divided by the time of `fast`; both are
    called once before, which does not count."""
    slow(), fast()
    return statistics.median(time_once(slow) / time_once(fast) for _ in range(rounds))


def check_speedup():
    assert 1.5 < speedup(lambda: time.sleep(0.04), lambda: time.sleep(0.004)) < 20


def bandwidth(size: int) -> float:  # exercise (starred)
    """GB/s of copying `size` bytes; a copy reads each of them once and writes it once."""
    source, target = np.ones(size, np.uint8), np.ones(size, np.uint8)
    return 2 * size / measure(np.copyto, target, source, span=0.05).seconds / 1e9


def check_bandwidth():
    assert 0.1 < bandwidth(10_000_000) < 10_000


# ## A road not taken
#
# JAX has no generator with a state. A random number there is a function of a *key*, and programs split keys and pass
# them on. So the numbers do not depend on the order in which a program happens to ask for them. On a thousand machines,
# you want exactly that. On one machine, a single generator with a single seed is simpler, and users of NumPy and
# PyTorch expect it.

# ## What hurts next
#
# We have a number for this machine, which NumPy arrays reach. What does plain Python reach, with matrices as lists of
# lists?


def show_plain_python():
    rows = np.random.default_rng(0).random((64, 64)).tolist()
    seconds = measure(
        lambda: [[sum(x * y for x, y in zip(row, column)) for column in zip(*rows)] for row in rows]
    ).seconds
    print(
        f"lists of lists: {2 * 64**3 / seconds / 1e9:.3f} GFLOP/s; arrays: {matmul_gflops(1024):.0f}; this "
        f"Python: {sys.version.split()[0]}"
    )


# The factor is a thousand and more, and even that is not the worst: a list of lists does not know its own shape. We
# need arrays that carry shape and operations. We build them in chapter 02, *Tensor*.

__all__ = [
    "Measurement", "Problem", "bandwidth", "check_environment", "drawing_from", "generator", "get_rng_state",
    "manual_seed", "matmul_gflops", "measure", "median_time", "peak_gflops", "peak_of", "predict_float32", "seeded",
    "set_rng_state", "speedup", "system_info", "time_in_bundles", "time_once",
]
