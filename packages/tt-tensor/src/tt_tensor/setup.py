# # Setup
#
# At the end of this chapter we know what machine we are on, whether anything is wrong with it, how to repeat chance,
# and how fast it multiplies matrices: the number by which everything later is measured.

# ## The hurt
#
# This course makes claims about speed, accuracy and memory, and you should be able to check each of them on your own
# machine. So the first program of the course is a measurement. How long does it take to add up a million numbers?

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


# `perf_counter` is the right clock for this. The other candidate, `time.time`, tells the hour; when the system corrects
# it, a span of time measured with it can come out negative.


def time_once(function: Callable, *args) -> float:
    """Seconds that one call takes, by the clock on the wall."""
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def show_hurt():
    numbers = list(range(1_000_000))
    print("sum of a million numbers, milliseconds:", " ".join(f"{time_once(sum, numbers) * 1e3:.2f}" for _ in range(8)))
    for _ in range(2):
        print("three random numbers:", " ".join(f"{x:.3f}" for x in np.random.default_rng().random(3)))


# Eight runs of the same program, and they do not agree. Which of them is *the* time? The first is often the slowest,
# since nothing is in the caches yet. Others are slow because the machine was doing something else for a moment. A claim
# such as "twice as fast" that rests on one run each is worth nothing.
#
# The random numbers do not agree either, because each run starts from another place. So two things make one run differ
# from the next: chance and the machine. Chance is the easier one, because a program can control it, so we begin there.
# For the machine, which we cannot control, we will need statistics.

# ## Chance that can be repeated
#
# Networks start with random weights and see their data in random order. To find a mistake, we must be able to run the
# same thing twice. A *random generator* is a machine with a state; from the same state come the same numbers. There is
# one generator for the whole course, and `manual_seed` puts it into a state given by a number.

_generator = np.random.default_rng(0)
_lent = threading.local()


# Why one generator for everything? Because then one number repeats everything. A generator for the weights and another
# for the order of the data would need two seeds, and sooner or later you would set only one of the two.


def generator() -> np.random.Generator:
    """The random generator that everything in this course draws from."""
    return getattr(_lent, "generator", None) or _generator


# There is one exception. In chapter 10 several threads prepare data while the program trains, and each piece of their
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
# took hold of the generator earlier keep the right one. NumPy keeps the state in `.bit_generator.state`, which can be
# read and assigned; `np.random.default_rng(seed)` is a new generator in the state that belongs to a seed. This is your
# first exercise.


def manual_seed(seed: int) -> None:  # exercise
    """Put the generator into the state given by an integer of 0 or more; what follows is the same each time.

    Raises ValueError for a seed below 0."""
    if seed < 0:
        raise ValueError(f"a seed is an integer of 0 or more, not {seed}")
    generator().bit_generator.state = np.random.default_rng(seed).bit_generator.state


# The state itself can be taken out and put back, which will let an interrupted training go on as if nothing had
# happened.


def get_rng_state() -> dict[str, Any]:
    """The state of the generator, a dictionary of plain values."""
    return dict(generator().bit_generator.state)


def set_rng_state(state: dict[str, Any]) -> None:
    """Put the generator into a state that `get_rng_state` returned."""
    generator().bit_generator.state = state


# The same seed, the same numbers; and the test leaves chance as it found it, as a test should.


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
    """What `function()` returns when the generator starts from `seed`; afterwards the generator is as it was, also if
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
# Run it several times and take the fastest? That is popular, and for comparing two ways to add numbers it is not bad.
# But the fastest run is the luckiest one, and a program that is slow on every second run is not as fast as its best
# one. We take the *median*: half of the runs were faster, half slower, and a few wild ones do not matter.
#
# The call before the loop does not count. Whatever happens only once (memory is reserved, code is loaded, caches are
# filled) happens there, and what we want to know is how long the *next* thousand calls will take.


def median_time(function: Callable, *args, runs: int = 7) -> float:
    """The median of several runs, after one that does not count."""
    function(*args)
    return statistics.median(time_once(function, *args) for _ in range(runs))


# It disappoints with things that are over in less than a microsecond. How long does `len` take, for something that is
# empty?


def show_too_short():
    medians = (median_time(len, ()) * 1e9 for _ in range(8))
    print("one call at a time, nanoseconds:", " ".join(f"{t:.0f}" for t in medians))
    print(f"in bundles, as below:            {measure(len, ()).seconds * 1e9:.0f}")


# More than half of what we have measured is the clock and the call of `time_once`; and seven such calls are over before
# the processor has woken up.

# ## The idea: run for a while, not a number of times
#
# So we give each measurement a span of time, a fifth of a second, and run as often as fits. Calls that are too short to
# be timed one by one are timed in bundles. And since the other scarce thing is memory, one run is made under
# `tracemalloc`, which is told of what Python allocates, NumPy's arrays included. (It slows the program down, so it
# watches the first call, the one that does not count.)
#
# A measurement without its spread is half a measurement. If the middle half of all runs lies within one percent, a
# difference of five percent means something; if it is spread over thirty, nothing that small can be seen at all.


@dataclass(frozen=True)
class Measurement:
    """Median time of a call, the middle half of all times relative to it, peak memory beyond what was there before,
    and the result."""

    seconds: float
    spread: float
    runs: int
    peak_bytes: int
    result: Any

    def __str__(self) -> str:
        seconds = f"{self.seconds * 1e3:.3f} ms (spread {self.spread:.0%}, {self.runs} runs)"
        return f"{seconds}, peak {self.peak_bytes / 1e6:.1f} MB"


# We write this in three steps. The first is memory. `tracemalloc.start()` begins to watch, `get_traced_memory()`
# returns a pair, what is allocated now and the *peak* since the start, and `stop()` ends it. While it watches,
# everything is slower. So we must stop it in any case, also if the function fails, or a later measurement would suffer.
# If it is running already, the caller watches something larger, and we must not stop it (`is_tracing()` tells us).


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


# The second step is time. Two decisions are hidden in it. The bundle is chosen so that each timed stretch takes at
# least twenty microseconds, a hundred times what the clock itself takes, or more. And there are at least three
# stretches even if one call takes longer than the whole span, because a median of one is no median.
#
# One call, timed by `time_once`, tells how many calls fit into twenty microseconds: at least one, and beware of
# a first time of zero.


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


# The third step is the summary. `statistics.quantiles(times, n=4)` returns the three *quartiles*: a quarter of all
# times lies below the first, half below the second, which is the median, and a quarter above the third. The middle half
# lies between the first and the third.


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


# How can one test a stopwatch? With something that takes a known time. Sleeping for two milliseconds takes two
# milliseconds, plus what the operating system needs to notice; and an array of a million 64-bit zeros takes eight
# million bytes, whatever else happens.


def check_measure():
    measured = measure(lambda: time.sleep(0.002), span=0.05)
    assert 0.002 <= measured.seconds < 0.2 and measured.runs >= 3
    assert measure(np.zeros, 1_000_000, span=0.01).peak_bytes >= 8_000_000


# Now the million numbers again, as a list and as an array, and the making of a new array. The spread tells how far each
# of the three can be trusted.


def show_measure():
    numbers = list(range(1_000_000))
    array = np.arange(1_000_000)
    print("sum of a list:  ", measure(sum, numbers))
    print("sum of an array:", measure(array.sum))
    print("a new array:    ", measure(np.ones, 1_000_000))


# ## What machine is this?
#
# A time means something only together with the machine. Most of our arithmetic will be done by a library for linear
# algebra, the BLAS, that NumPy brings along: OpenBLAS, as a rule. It contains several versions of every routine, one
# for each family of processors, and picks one when it is loaded. Which one it picked decides how wide the instructions
# are that our products run on, and is not easy to find out; the library itself has to be asked, through `ctypes`.
#
# NumPy keeps the library in a folder beside its own code, under a name that differs from system to system. So we look
# in the three places where it may be, load it once more (which gives us the copy that is already there), and ask it two
# questions. If there is none, because this NumPy was built with Intel's, Apple's or the system's own library, the
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


# The processor's vector instructions (SIMD) matter as much: a core with AVX2 multiplies and adds 8 numbers of 32 bits
# in one instruction, one with AVX-512 does 16.
#
# NumPy tells us about those itself, in `show_config`: which extensions it was built for, and which of those this
# processor has.


def system_info() -> dict[str, Any]:
    """What a time depends on, by name: python, numpy, system, processor, cores, simd (a list of extensions), blas, and
    the blas_kernel and number of blas_threads that it uses (None where unknown)."""
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
# Knowing is good, being told what to do is better. `check_environment` returns a list of problems, each with the
# command that mends it; an empty list means that all is well.


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with this environment, and the command that mends it."""

    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.what}\n  -> {self.mend}"


# Four things are looked for: a Python older than 3.11; a NumPy older than 2.0; a BLAS that uses fewer threads than
# there are cores; and one that uses its kernels for `Haswell`, which had AVX2, on a processor with AVX-512 (an
# extension whose name starts with `AVX512`, or in newer versions of NumPy with `X86_V4`). What we say about each of
# them is a table, and `{python}` in a text is replaced by the entry of that name in `system_info()`.

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
    return Problem(_PROBLEMS[name].what.format(**info), _PROBLEMS[name].mend)


# Each check is one condition, and each has cost a programmer an afternoon. Two traps: as texts, "3.9" comes after
# "3.11", so `_version` makes numbers of the first two parts of a version; and `None` means unknown, which is not a
# problem. A judge that can be shown another machine's papers (`info`) can be tested without owning that machine.
#
# This exercise has a star: leave it out if you like, nothing later depends on it.


def check_environment(info: dict[str, Any] | None = None) -> list[Problem]:  # exercise (starred)
    """What is wrong here, each with its remedy; empty if all is well. Give `info` to judge another machine's
    `system_info()`."""
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


# So let us show it the papers of an old machine, and see that it finds at least three faults, each with a remedy.


def check_environment_names_remedies():
    old = {**system_info(), "python": "3.9.1", "numpy": "1.26.4", "blas_threads": 1, "cores": 8}
    found = check_environment(old)
    assert len(found) >= 3 and all(problem.mend for problem in found)


def show_environment():
    print("\n".join(map(str, check_environment())) or "nothing is wrong")


# The last of the four checks is worth a word. A processor newer than the BLAS is not in its tables, and then OpenBLAS
# plays safe and takes the routines for an older one. If the processor has AVX-512, the variable in the remedy makes it
# take the wider ones. We do not set it ourselves: on a processor without these instructions the first product would end
# the program.

# ## How fast is it?
#
# Nearly all of the arithmetic in a neural network is one operation, the product of two matrices. For two matrices of $n
# \times n$ it takes $n^3$ multiplications and about as many additions, $2n^3$ floating-point operations, or FLOP.
# Divided by the time that gives FLOP per second; today's machines do billions of them, GFLOP/s.
#
# The product is measured for random matrices and not for zeros, because some processors are quicker with zeros; and
# they are made beforehand, because we want to time the product alone. They come from a generator of their own: a
# measurement must not change the numbers that the rest of the program draws.


def matmul_gflops(size: int, dtype=np.float32) -> float:  # exercise
    """GFLOP/s of the product `np.matmul` of two random matrices of size x size and of this dtype, by the median of
    `measure`; the generator of the course is not touched."""
    a, b = (np.random.default_rng(0).random((size, size)).astype(dtype) for _ in range(2))
    return 2 * size**3 / measure(np.matmul, a, b).seconds / 1e9


# How good is that? A processor has a peak that it cannot exceed: cores, times cycles per second, times operations in a
# cycle. With AVX-512 and two units that multiply and add, a core does 16 numbers, times 2 operations, times 2 units: 64
# operations in a cycle; with AVX2 it is 32.
#
# Neither cores nor clock are as simple as they look. A core may be half of one, shared with a neighbour, and the clock
# goes up when few cores work and down when wide instructions heat them. So take the formula as an order of magnitude:
# it tells twenty percent from eighty, not eighty from ninety.


def peak_gflops() -> float | None:
    """An estimate of what this machine cannot exceed in float32, from cores, clock and SIMD width; None where the
    clock cannot be read."""
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


# Three things can be read off this table. Small products are slow: the call costs more than the work. In the large
# ones, `float64` runs at half the speed of `float32`, since half as many numbers fit into an instruction. And the
# largest `float32` number is *this machine's number*; write it down. Where it stays far below the peak, have a look at
# what `check_environment` says about kernels. Where it lies *above* the peak, the clock is to blame: the formula takes
# it as the system reports it, which may be a nominal figure that the processor exceeds, and a virtual machine may
# report anything.

# ## How exact is it?
#
# One more property of the machine has to be known before we build on it: its numbers are not the numbers of
# mathematics. A `float32` has 32 bits, one for the sign, eight for a power of two, and 23 for the digits. That makes
# about seven decimal digits, wherever the point stands, and it makes gaps: between 1 and the next larger number there
# is nothing, and the gap grows with the number.


def show_floats():
    for dtype in (np.float16, np.float32, np.float64):
        facts = np.finfo(dtype)
        print(f"{dtype.__name__}: gap after 1: {facts.eps:.1e}, largest {facts.max:.1e}, least normal {facts.tiny:.1e}")
    print("16,777,216 + 1 =", f"{np.float32(16_777_216) + np.float32(1):,.0f}", "in float32")
    print("0.1 + 0.2 == 0.3:", 0.1 + 0.2 == 0.3)


# Three things follow, and each comes back. Adding a small number to a large one may change nothing: a sum of twenty
# million ones, added one after the other in `float32`, stops at 16,777,216. Numbers above $3.4 \cdot 10^{38}$ become
# infinite, which an exponential reaches at 89; chapter 03 spends half of its pages on avoiding that. And results are
# not to be compared with `==`, unless, as below, every intermediate number is a whole one and small. We compare with a
# tolerance that fits the precision: a few units in the seventh digit for one operation in `float32`, more for a sum of
# thousands.
#
# Before you go on, predict. Here are five computations in `float32`, from left to right, each of which has only numbers
# that `float32` can hold exactly to start with. (From $2^{24}$ on, the gap is 2; around $10^8$ it is 8.)
#
# $$ a = (2^{24} + 1) + 1 \qquad b = 2^{24} + (1 + 1) \qquad c = (10^8 + 3) - 10^8 \qquad d = 2^{127} \cdot 2 / 2 $$
#
# And for $e$: is $0.5 + 0.25 = 0.75$, by `==`?


def predict_float32() -> dict[str, Any]:  # exercise
    """Your prediction for the five computations, by letter: a number for each of "a", "b", "c" and "d" (`np.inf` for
    infinity), and True or False for "e"."""
    return {"a": 2**24, "b": 2**24 + 2, "c": 0, "d": np.inf, "e": True}


# Why not take `float64` for everything and forget about it? It takes twice the memory, twice the trips, and as the
# table above shows, twice the time. Networks do not need the digits: their inputs are noisy, and so is their training.
# Where digits *are* needed is in checking. When a formula for a derivative is compared with a difference of two nearly
# equal numbers, seven digits leave three. So in this course one computes in `float32` and checks in `float64`.

# ## The witness
#
# Is the product right? A product of matrices of whole numbers can be checked without rounding, number by number, by
# plain Python.
#
# Whole numbers up to nine, six products to a sum: no intermediate result exceeds a thousand, and `float32` holds whole
# numbers up to sixteen million without rounding. So the comparison may be exact, `==`, without any tolerance. That is a
# trick worth remembering.


def check_matmul_is_exact_for_integers():
    a, b = np.random.default_rng(1).integers(-9, 10, (2, 6, 6)).astype(np.float32)
    for i in range(6):
        for j in range(6):
            assert (a @ b)[i, j] == sum(int(a[i, k]) * int(b[k, j]) for k in range(6))


# ## The cost
#
# Arithmetic is one limit, moving numbers is the other. Adding two arrays does one operation for each twelve bytes that
# it moves, and no processor can keep its units busy at that rate.


def show_memory():
    print(f"{'numbers':>12s} {'GB/s':>8s} {'GFLOP/s':>9s}   of x + y in place")
    for size in (10_000, 1_000_000, 20_000_000):
        x, y = np.ones(size, np.float32), np.ones(size, np.float32)
        seconds = measure(np.add, x, y, x).seconds
        print(f"{size:12,d} {12 * size / seconds / 1e9:8.1f} {size / seconds / 1e9:9.2f}")


# Ten thousand numbers live in the cache next to the core. Twenty million have to come from memory, and every trip takes
# many times as long as the addition. This is the table behind most of the speed in this course: *a product of matrices
# is limited by arithmetic, nearly everything else by the number of trips through memory*. (A program's first write
# to new memory is dearer still. How dear, and what can be done about it, is an appendix, *Fresh memory*.)
#
# There is a useful way to think about all this, the *roofline* (Williams, Waterman and Patterson, 2009). Count, for an
# operation, how many FLOP it does for each byte that it moves; call that its intensity. If the intensity is small, the
# memory sets the pace: FLOP/s cannot exceed intensity times GB/s. If it is large, the arithmetic does. An addition of
# arrays has an intensity of one twelfth. A product of two matrices of $n \times n$ does $2n^3$ FLOP on $12 n^2$ bytes,
# an intensity of $n / 6$: less than 3 for $n = 16$, and 171 for $n = 1024$, where memory is no longer the limit. (The
# small product in our table meets yet another one, the cost of the call.) Most of the tricks that make a framework fast
# are of one of two kinds: raise the intensity, by doing more with a number while it is there; or keep the units busy
# that do the arithmetic.

# ## Errors you will meet


def show_errors():
    try:
        manual_seed(-1)
    except ValueError as error:
        print("ValueError:", error)
    print("and what an old machine would be told:")
    for problem in check_environment({**system_info(), "python": "3.9.1", "numpy": "1.26.4"})[:2]:
        print(problem)


# ## Exercises
#
# 1. `speedup`: how many times faster one function is than another, with the two taking turns, so that a slow moment of
#    the machine falls on both.
# 2. `bandwidth`: GB/s of copying an array of a given number of bytes.
#
# Both have a star: they are worth your time, but nothing later depends on them. What they have in common: measuring
# fairly is mostly a matter of arrangement.


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
# JAX has no generator with a state. A random number there is a function of a *key*, and keys are split and handed
# around, so that the numbers do not depend on the order in which a program happens to ask for them. That is what one
# wants on a thousand machines. On one machine, a single generator with a single seed is simpler, and is what NumPy's
# and PyTorch's users expect.

# ## What hurts next
#
# We have a number for this machine, reached by NumPy arrays. What does plain Python reach, with matrices as lists of
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


# A factor of a thousand and more, and that is not even the worst of it: a list of lists does not know its own shape. We
# need arrays that carry shape and operations. Chapter 02, *Tensor*.

__all__ = [
    "Measurement", "Problem", "bandwidth", "check_environment", "drawing_from", "generator", "get_rng_state",
    "manual_seed", "matmul_gflops", "measure", "median_time", "peak_gflops", "peak_of", "predict_float32", "seeded",
    "set_rng_state", "speedup", "system_info", "time_in_bundles", "time_once",
]
