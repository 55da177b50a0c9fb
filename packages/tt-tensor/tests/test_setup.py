"""Chapter 01, judged by its public names. Times are compared with times that were taken of the same calls."""

import itertools
import os
import platform
import statistics
import time
import tracemalloc

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor.teaching import between, expect, measured_between

MEASURE, MACHINE = "The idea: run for a while, not a number of times", "What machine is this?"
WRONG, CHANCE = "What is wrong with it?", "Chance that can be repeated"
SPEED, EXACT, EXERCISES = "How fast is it?", "How exact is it?", "Exercises"


def sleeper(*milliseconds):
    """A function whose calls take these times in turn, and the list of what they really took."""
    turns, took = itertools.cycle(milliseconds), []

    def work():
        start = time.perf_counter()
        time.sleep(next(turns) / 1e3)
        took.append(time.perf_counter() - start)

    return work, took


def spread_of(times):
    """The middle half of all times, relative to the median."""
    low, middle, high = np.percentile(times, [25, 50, 75])
    return float((high - low) / middle)


# peak_of


@pytest.mark.parametrize("work", [np.ones, lambda size: np.ones(size).sum()], ids=["kept", "let go"])
def test_the_peak_of_memory_is_that_of_one_call(work):
    expect(
        "peak_of(...)[0], where an array of 1,000,000 numbers of 8 bytes is made",
        lambda: tt.setup.peak_of(work, 1_000_000)[0],
        measured_between(8e6, 9e6),
        (lambda size: size < 1e6, "The array was there for a while: take the second number, the peak, after the call."),
        "Start tracemalloc, call the function once, then ask for the peak.",
        see=MEASURE,
    )
    expect(
        "peak_of(divmod, 7, 3)[1]",
        lambda: tt.setup.peak_of(divmod, 7, 3)[1],
        (2, 1),
        (TypeError, "Return a pair: the peak, and what the function returned."),
        see=MEASURE,
    )


def test_the_watch_on_memory_is_stopped_and_the_callers_goes_on():
    def after_an_error():
        try:
            tt.setup.peak_of(lambda: {}["missing"])
        except KeyError:
            return "raised", tracemalloc.is_tracing()
        finally:
            tracemalloc.stop()
        return "not raised", False

    expect(
        "tracemalloc.is_tracing() after peak_of(len, ())",
        lambda: (tt.setup.peak_of(len, ()), tracemalloc.is_tracing())[1],
        False,
        "Stop it after the call: while it watches, everything is slower.",
        see=MEASURE,
    )
    expect(
        "peak_of(a function that fails): the error, and whether tracemalloc is still watching",
        after_an_error,
        ("raised", False),
        (("raised", True), "The error came before tracemalloc was stopped: use try and finally."),
        (("not raised", False), "The error was swallowed; the caller has to see it."),
        see=MEASURE,
    )

    def while_the_caller_watches():
        tracemalloc.start()
        try:
            found = tt.setup.peak_of(divmod, 7, 3)
            return found, tracemalloc.is_tracing()
        finally:
            tracemalloc.stop()

    expect(
        "peak_of(divmod, 7, 3) while tracemalloc is running, and whether it runs afterwards",
        while_the_caller_watches,
        ((0, (2, 1)), True),
        (lambda found: not found[1], "The caller had started tracemalloc, and it was stopped: look at is_tracing()."),
        (lambda found: found[0][0] != 0, "The caller watches something larger, so the peak is not that of this call."),
        see=MEASURE,
    )


# time_in_bundles


def test_long_calls_are_timed_one_by_one():
    work, took = sleeper(2)
    times, bundle = tt.setup.time_in_bundles(work, span=0.03)
    expect(
        "the calls in a bundle of time_in_bundles(work, span=0.03), for a `work` of 2 ms",
        bundle,
        1,
        (0, "A bundle of no calls measures nothing: at least 1."),
        "Twenty microseconds, divided by the time of one call, and at least 1: a call that is longer needs no company.",
        see=MEASURE,
    )
    expect(
        "the median of its times, divided by the real one",
        statistics.median(times) / statistics.median(took),
        measured_between(0.6, 1.5),
        (lambda ratio: ratio > 1.5, "More than a call takes: each stretch has its own start, just before its calls."),
        "The time of one call, in seconds, by `time.perf_counter`.",
        see=MEASURE,
    )


def test_there_are_at_least_three_stretches_and_more_where_there_is_time():
    def stretches(span):
        return len(tt.setup.time_in_bundles(time.sleep, 0.001, span=span)[0])

    expect(
        "how many times time_in_bundles(work, span=0) has",
        lambda: stretches(0),
        measured_between(3, 20),
        (lambda count: count < 3, "A median of one is no median: time three stretches, however short the span."),
        "The span is over at once: three stretches, or a few more, are enough.",
        see=MEASURE,
    )
    expect(
        "how many times as long a list of times span=0.1 gives as span=0.01, for a `work` of 1 ms",
        lambda: stretches(0.1) / stretches(0.01),
        measured_between(2, 60),
        (lambda ratio: ratio < 2, "The number of stretches does not depend on `span`: go on until that time is over."),
        see=MEASURE,
    )


# measure


def test_a_measurement_sums_up_times_and_memory(monkeypatch):
    def times(function, *args, span):
        return [1 + (i * 37 % 101) / 50 for i in range(101)], 10  # from 1 to 3, in no order

    monkeypatch.setattr(tt.setup, "time_in_bundles", times)
    monkeypatch.setattr(tt.setup, "peak_of", lambda function, *args: (7, "result"))
    measured = tt.measure(len, ())
    what = "measure(len, ()), where time_in_bundles gives 101 times from 1 to 3 and bundles of 10"
    expect(
        f"the seconds of {what}",
        measured.seconds,
        2,
        (lambda seconds: seconds < 1e-3, "These are times of its own: take those of `time_in_bundles`."),
        "The median of the times.",
        see=MEASURE,
    )
    expect(
        f"the spread of {what}",
        measured.spread,
        between(0.47, 0.53),
        (lambda spread: 0.9 < spread < 1.1, "That is not divided by the median, or it is the distance of all times."),
        (lambda spread: spread > 1.9, "The distance of the quartiles is their difference."),
        "The third quartile minus the first, divided by the median.",
        see=MEASURE,
    )
    expect(
        f"the runs of {what}",
        measured.runs,
        1010,
        (101, "Each of the times is that of a bundle of 10 calls: `runs` counts calls."),
        see=MEASURE,
    )
    expect(
        "peak_bytes and result, where peak_of gives 7 and 'result'",
        (measured.peak_bytes, measured.result),
        (7, "result"),
        "Peak and result are what `peak_of` returns.",
        see=MEASURE,
    )


def test_measure_takes_the_median():
    work, took = sleeper(1, 4, 4, 4, 4, 4, 4, 30)
    measured = tt.measure(work, span=0.3)
    expect(
        "measure(work).seconds, for a `work` of 4 ms that sometimes takes 1 or 30, divided by its real median",
        measured.seconds / statistics.median(took),
        measured_between(0.6, 1.5),
        (lambda ratio: ratio < 0.6, "That is the time of the fastest runs, the lucky ones: take the median."),
        (lambda ratio: ratio < 5, "That is nearer to the mean, which a few wild runs can move: take the median."),
        "The time of one call, in seconds, by `time.perf_counter`.",
        see=MEASURE,
    )
    expect(
        "measure(work).spread divided by the real one (each plus 0.1)",
        (measured.spread + 0.1) / (spread_of(took) + 0.1),
        measured_between(0.2, 5),
        (lambda ratio: ratio > 5, "A few wild runs count too much: the spread is that of the middle half of all."),
        "The distance of the quartiles, divided by the median.",
        see=MEASURE,
    )


def test_the_spread_is_relative_to_the_median():
    work, took = sleeper(2, 6)
    measured = tt.measure(work, span=0.1)
    expect(
        "measure(work).spread, for a `work` of 2 and 6 ms in turn, divided by the real one (each plus 0.1)",
        (measured.spread + 0.1) / (spread_of(took) + 0.1),
        measured_between(0.25, 4),
        (lambda ratio: ratio < 0.25, "That may be seconds: divide the distance of the quartiles by the median."),
        "The distance of the quartiles, divided by the median.",
        see=MEASURE,
    )


def test_measure_calls_at_least_three_times_after_one_that_does_not_count():
    work, took = sleeper(1)
    measured = tt.measure(work, span=0)
    expect(
        "measure(work, span=0).runs",
        measured.runs,
        measured_between(3, 1000),
        "A median of one is no median: time at least three runs, however short the span.",
        see=MEASURE,
    )
    expect(
        "there are more calls of `work` than measure(work, span=0).runs",
        len(took) > measured.runs,
        True,
        "The first call does not count: what happens only once happens there.",
        see=MEASURE,
    )


def test_very_short_calls_are_timed_in_bundles(monkeypatch):
    def attempt():
        readings, calls = itertools.count(), itertools.count()
        clock = time.perf_counter
        with monkeypatch.context() as patch:
            patch.setattr(time, "perf_counter", lambda: (next(readings), clock())[1])
            measured = tt.measure(lambda: next(calls), span=0.02)
        return next(readings), next(calls), measured

    readings, calls, measured = min((attempt() for _ in range(2)), key=lambda tried: tried[0] / tried[1])
    expect(
        "readings of the clock for each call of something very short",
        readings / calls,
        measured_between(0, 0.5),
        "Most of what was measured is the clock: let it time a bundle of calls, and divide.",
        see=MEASURE,
    )
    expect(
        "measure(short).runs divided by the calls that were made",
        measured.runs / calls,
        measured_between(0.3, 1),
        (lambda share: share < 0.3, "`runs` is the number of timed calls: bundles, times the calls in each."),
        see=MEASURE,
    )


def test_the_time_of_a_bundle_is_divided_by_its_calls():
    start = time.perf_counter()
    measured = tt.measure(len, (), span=0.05)
    elapsed = time.perf_counter() - start
    expect(
        "measure(len, ()): seconds times runs, divided by the time that all of it took",
        measured.seconds * measured.runs / elapsed,
        measured_between(0.01, 2),
        (lambda share: share > 2, "More time than has passed: `seconds` is for one call, not for a bundle of them."),
        see=MEASURE,
    )


@pytest.mark.parametrize("work", [np.ones, lambda size: np.ones(size).sum()], ids=["kept", "let go"])
def test_measure_tells_the_peak_of_memory(work):
    expect(
        "measure(...).peak_bytes, where an array of 1,000,000 numbers of 8 bytes is made",
        lambda: tt.measure(work, 1_000_000, span=0.01).peak_bytes,
        measured_between(8e6, 9e6),
        (lambda size: size < 1e6, "The array was there for a while: ask tracemalloc for the peak, after the call."),
        "Ask tracemalloc for the peak, in a run of its own.",
        see=MEASURE,
    )


def test_tracemalloc_does_not_look_on_while_the_clock_runs():
    watched = []

    def work():
        watched.append(tracemalloc.is_tracing())
        time.sleep(0.001)

    tt.measure(work, span=0.02)
    expect(
        "the share of calls that run under tracemalloc",
        statistics.mean(watched),
        measured_between(0, 0.4),
        "It slows the program down: stop it before the clock starts.",
        see=MEASURE,
    )
    expect("tracemalloc.is_tracing() after a measurement", tracemalloc.is_tracing(), False, see=MEASURE)


def test_measure_hands_on_arguments_and_result():
    expect(
        "measure(divmod, 7, 3).result",
        lambda: tt.measure(divmod, 7, 3, span=0).result,
        (2, 1),
        (None, "The result of the call got lost: keep it when you call the function."),
        see=MEASURE,
    )


# system_info, check_environment


def test_system_info_names_what_a_time_depends_on():
    info = tt.system_info()
    names = ["python", "numpy", "system", "processor", "cores", "simd", "blas", "blas_kernel", "blas_threads"]
    expect("the names that system_info() lacks", [name for name in names if name not in info], [], see=MACHINE)
    expect("system_info()['python']", info["python"], platform.python_version(), see=MACHINE)
    expect("system_info()['numpy']", info["numpy"], np.__version__, see=MACHINE)
    expect("system_info()['cores']", info["cores"], between(1, os.cpu_count() or 1), see=MACHINE)


def test_system_info_says_it_in_words_and_numbers():
    info = tt.system_info()
    for name in ("system", "processor", "blas"):
        expect(
            f"system_info()['{name}'] is some text",
            isinstance(info[name], str) and info[name] != "",
            True,
            see=MACHINE,
        )
    expect(
        "system_info()['simd'] is a list of names",
        isinstance(info["simd"], list) and all(isinstance(name, str) for name in info["simd"]),
        True,
        "NumPy tells: np.show_config(mode='dicts')['SIMD Extensions'] has two lists, `baseline` and `found`.",
        see=MACHINE,
    )
    lacking = np.show_config(mode="dicts")["SIMD Extensions"].get("not found", [])
    expect(
        "the names in system_info()['simd'] of what NumPy does not find here",
        [name for name in info["simd"] if name in lacking],
        [],
        "`not found` lists what this processor lacks: take `baseline` and `found`.",
        see=MACHINE,
    )
    expect(
        "system_info()['blas_kernel'] is some text, or None",
        isinstance(info["blas_kernel"], (str, type(None))),
        True,
        "The library answers in bytes: decode them.",
        see=MACHINE,
    )
    expect(
        "system_info()['blas_threads'] is an integer, or None",
        isinstance(info["blas_threads"], (int, type(None))),
        True,
        see=MACHINE,
    )


HEALTHY = {
    "python": "3.12.1",
    "numpy": "2.1.0",
    "system": "Linux x86_64",
    "processor": "a processor",
    "cores": 8,
    "simd": ["SSE42", "AVX2"],
    "blas": "scipy-openblas 0.3.30",
    "blas_kernel": "Haswell",
    "blas_threads": 8,
}


def problems(**differences):
    return [f"{problem.what} -> {problem.fix}" for problem in tt.check_environment({**HEALTHY, **differences})]


@pytest.mark.parametrize(
    "fine, because",
    [
        ({}, "This machine lacks nothing. Its kernel is Haswell's because the processor has no AVX-512."),
        ({"python": "3.11.0", "numpy": "2.0.0"}, "3.11 and 2.0 are new enough."),
        ({"python": "3.14.0rc1", "numpy": "2.5.0.dev0"}, "Look at the first two numbers only; `0rc1` is none."),
        ({"blas_kernel": None, "blas_threads": None}, "None means unknown, and what is unknown is no problem."),
    ],
    ids=["healthy", "oldest", "prerelease", "unknown"],
)
def test_a_machine_that_lacks_nothing_has_no_problem(fine, because):
    expect(f"check_environment of a good machine with {fine}", lambda: problems(**fine), [], because, see=WRONG)


@pytest.mark.parametrize(
    "wrong, words, because",
    [
        ({"python": "3.10.2"}, ["3.10.2", "3.11"], "This course needs Python 3.11 or newer."),
        ({"python": "3.9.1"}, ["3.9.1", "3.11"], "As texts, '3.9' comes after '3.11': compare versions as numbers."),
        ({"numpy": "1.26.4"}, ["1.26.4", "install"], "This course needs NumPy 2.0 or newer."),
        ({"blas_threads": 1}, ["1", "8", "THREADS"], "One thread for eight cores: blas_threads is less than cores."),
        (
            {"simd": ["AVX2", "AVX512F"]},
            ["AVX", "OPENBLAS_CORETYPE"],
            "A processor with AVX512 (or X86_V4) whose BLAS uses its Haswell kernels.",
        ),
        (
            {"simd": ["X86_V3", "X86_V4"]},
            ["AVX", "OPENBLAS_CORETYPE"],
            "X86_V4 is NumPy's newer name for a processor with AVX-512.",
        ),
    ],
    ids=["python", "python as text", "numpy", "threads", "kernel", "kernel by its newer name"],
)
def test_a_problem_comes_with_its_remedy(wrong, words, because):
    expect(
        f"how many problems check_environment finds on a good machine but for {wrong}",
        lambda: len(problems(**wrong)),
        1,
        (0, because),
        "One problem, one entry.",
        see=WRONG,
    )
    expect(
        f"words that the problem with {wrong} lacks",
        lambda: [word for word in words if word not in problems(**wrong)[0]],
        [],
        "`what` says what was found, and `mend` is the command that mends it.",
        see=WRONG,
    )


def test_all_problems_are_told_and_by_default_those_of_this_machine():
    expect(
        "how many problems check_environment finds with Python 3.8.0, NumPy 1.20.0 and one thread of 8",
        lambda: len(problems(python="3.8.0", numpy="1.20.0", blas_threads=1)),
        3,
        (1, "It stopped at the first: collect them."),
        see=WRONG,
    )
    expect(
        "check_environment() finds what check_environment(system_info()) finds",
        lambda: tt.check_environment() == tt.check_environment(tt.system_info()),
        True,
        see=WRONG,
    )


def test_what_is_unknown_is_no_problem():
    expect(
        "check_environment of a good machine whose number of cores is None",
        lambda: problems(cores=None),
        [],
        "None means unknown, and what is unknown is no problem.",
        see=WRONG,
    )


# Chance


def draw(seed):
    tt.manual_seed(seed)
    return tt.generator().random(3).tolist()


def test_the_same_seed_gives_the_same_numbers():
    for seed in (7, 0):
        expect(
            f"manual_seed({seed}) and three random numbers give the same, twice",
            lambda seed=seed: draw(seed) == draw(seed),
            True,
            "The generator goes on from where it was: set its state from the seed.",
            see=CHANCE,
        )
    expect(
        "manual_seed(7) and manual_seed(8) are followed by the same numbers",
        lambda: draw(7) == draw(8),
        False,
        "The state does not depend on the seed.",
        see=CHANCE,
    )


def test_whoever_holds_the_generator_holds_the_right_one():
    held = tt.generator()

    def same():
        tt.manual_seed(7)
        return held.random(3).tolist() == draw(7)

    expect(
        "g = generator(); manual_seed(7): g gives the numbers of seed 7",
        same,
        True,
        "There is a new generator now, which those who took hold of it earlier do not have: change the state inside.",
        see=CHANCE,
    )


def test_all_of_the_state_is_set():
    def first_after(seed):
        tt.manual_seed(seed)
        return float(tt.generator().random(dtype=np.float32))  # 32 bits of 64: the generator keeps the other half

    expect(
        "manual_seed(7) and one float32, twice, give the same number",
        lambda: first_after(7) == first_after(7),
        True,
        "Half of an earlier number is still in the generator: replace the whole state, not a part of it.",
        see=CHANCE,
    )


def test_a_seed_below_zero_is_refused():
    expect("manual_seed(-1)", lambda: tt.manual_seed(-1), ValueError, see=CHANCE)


def test_a_saved_state_can_be_put_back():
    def again():
        state = tt.get_rng_state()
        first = tt.generator().random(3).tolist()
        tt.set_rng_state(state)
        return tt.generator().random(3).tolist() == first

    expect("set_rng_state(state) brings back the numbers that followed get_rng_state()", again, True, see=CHANCE)


def test_seeded_gives_what_the_function_gives():
    numbers = draw(3)
    expect(
        "seeded(3, function) gives the numbers of seed 3",
        lambda: tt.setup.seeded(3, lambda: tt.generator().random(3).tolist()) == numbers,
        True,
        "manual_seed(seed), then the function.",
        see=CHANCE,
    )


def test_seeded_leaves_the_generator_as_it_was():
    save = "Keep the state before the seed is set, and put it back when the function is done."

    def as_it_was():
        tt.manual_seed(4)
        before = tt.get_rng_state()
        tt.setup.seeded(3, lambda: tt.generator().random(3))
        return tt.get_rng_state() == before

    def as_it_was_after_an_error():
        tt.manual_seed(4)
        before = tt.get_rng_state()
        try:
            tt.setup.seeded(3, lambda: {}["missing"])
        except KeyError:
            return "raised", tt.get_rng_state() == before
        return "not raised", tt.get_rng_state() == before

    expect("the generator is as it was before seeded(3, function)", as_it_was, True, save, see=CHANCE)
    expect(
        "seeded(3, function) of a function that fails: the error, and whether the generator is as it was",
        as_it_was_after_an_error,
        ("raised", True),
        (("raised", False), "The error came before the state was put back: use try and finally."),
        (lambda outcome: outcome[0] == "not raised", "The error was swallowed; the caller has to see it."),
        see=CHANCE,
    )


# matmul_gflops


@pytest.fixture
def half_a_second(monkeypatch):
    """A stopwatch for the chapter that calls what it measures and says half a second; the results are kept."""
    results = []

    def stopwatch(function, *args, span=0.2):
        results.append(np.asarray(function(*args)))
        return tt.Measurement(0.5, 0.01, 9, 0, results[-1])

    monkeypatch.setattr(tt.setup, "measure", stopwatch)
    return results


def test_a_product_of_matrices_has_a_speed(half_a_second):
    expect(
        "matmul_gflops(20), where `measure` says that the product takes half a second",
        lambda: tt.setup.matmul_gflops(20),
        2 * 20**3 / 0.5 / 1e9,
        (20**3 / 0.5 / 1e9, "Multiplications and additions both count: 2 n^3."),
        (2 * 20**3 / 0.5, "These are FLOP/s: a GFLOP is 1e9 of them."),
        (2 * 20**3 * 0.5 / 1e9, "Operations by time: divide by the seconds."),
        (2 * 20**2 / 0.5 / 1e9, "There are n^2 results, and each takes n multiplications and n additions."),
        "2 n^3 operations, divided by `measure(...).seconds`, divided by 1e9.",
        see=SPEED,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_product_that_is_measured_is_that_of_random_matrices(half_a_second, dtype):
    state = tt.get_rng_state()
    tt.setup.matmul_gflops(20, np.dtype(dtype))
    product = half_a_second[-1] if half_a_second else np.zeros(0)
    expect(
        "the shape of what `measure` gets from matmul_gflops(20)",
        product.shape,
        (20, 20),
        ((0,), "Nothing was measured: hand np.matmul and the two matrices to `measure`."),
        see=SPEED,
    )
    expect(
        f"its dtype, in matmul_gflops(20, {dtype})",
        product.dtype,
        np.dtype(dtype),
        (np.dtype("float64"), "Random numbers are float64 unless told otherwise: convert them to `dtype`, before."),
        see=SPEED,
    )
    expect(
        "how many different numbers the product has",
        lambda: len(np.unique(product)),
        between(300, 400),
        (1, "Zeros or ones: some processors are quicker with them, so take random numbers."),
        see=SPEED,
    )
    expect(
        "matmul_gflops leaves the generator of the course as it was",
        lambda: tt.get_rng_state() == state,
        True,
        "The matrices need a generator of their own: `np.random.default_rng(0)`.",
        see=SPEED,
    )


# predict_float32


def test_what_float32_gives_was_predicted():
    f = np.float32
    with np.errstate(over="ignore"):
        truth = {
            "a": (f(2**24) + f(1)) + f(1),
            "b": f(2**24) + (f(1) + f(1)),
            "c": (f(1e8) + f(3)) - f(1e8),
            "d": f(2.0**127) * f(2) / f(2),
            "e": bool(f(0.5) + f(0.25) == f(0.75)),
        }
    causes = {
        "a": "From 2^24 on the gap is 2: adding 1 changes nothing, and neither does the next 1.",
        "b": "The two ones are added first, and 2 is as large as the gap. The order of additions matters.",
        "c": "Around 1e8 the gap is 8, and 3 is less than half of it: the sum is 1e8 again.",
        "d": "The product is above 3.4e38, so it is infinite, and half of infinity is infinite, too.",
        "e": "0.5, 0.25 and 0.75 are sums of powers of two, which `float32` holds exactly, unlike 0.1.",
    }
    found = tt.setup.predict_float32()
    for letter, cause in causes.items():
        expect(
            f"predict_float32()['{letter}']",
            lambda letter=letter: (bool if letter == "e" else float)(found[letter]),
            (bool if letter == "e" else float)(truth[letter]),
            (KeyError, "The docstring has the five letters: one entry for each."),
            cause,
            see=EXACT,
            tolerance=1e-9,
        )


# Exercises


def test_speedup_is_the_slow_time_by_the_fast():
    slow, took_slow = sleeper(10)
    fast, took_fast = sleeper(2)
    ratio = tt.setup.speedup(slow, fast)
    expect(
        "speedup(slow, fast) divided by the real ratio of their times",
        ratio / (statistics.median(took_slow) / statistics.median(took_fast)),
        measured_between(0.4, 2.5),
        (lambda ratio: 0 < ratio < 0.4, "Upside down: how many times faster is `fast`? slow divided by fast."),
        see=EXERCISES,
    )


def test_speedup_lets_both_take_turns():
    order = []
    tt.setup.speedup(lambda: order.append(1) or time.sleep(0.001), lambda: order.append(-1), rounds=9)
    expect(
        "how far one function is ahead of the other, in calls, while speedup(slow, fast, rounds=9) runs",
        max(map(abs, itertools.accumulate(order))),
        measured_between(0, 4),
        "First all of one, then all of the other: a slow moment of the machine then falls on one of them only.",
        see=EXERCISES,
    )
    expect(
        "calls of `slow` in speedup(slow, fast, rounds=9)",
        order.count(1),
        measured_between(9, 40),
        "A ratio for each round, and the median of the rounds.",
        see=EXERCISES,
    )


def test_bandwidth_counts_both_ways():
    source, target = np.ones(100_000, np.uint8), np.ones(100_000, np.uint8)

    def once():
        start = time.perf_counter()
        np.copyto(target, source)
        return time.perf_counter() - start

    found, real = [], []
    while len(real) < 3 or (len(real) < 8 and not 0.7 <= max(found) / max(real) <= 1.4):
        found.append(tt.setup.bandwidth(100_000))
        real.append(2 * 100_000 / statistics.median(once() for _ in range(200)) / 1e9)
    expect(
        "bandwidth(100_000) divided by GB/s as counted by the test",
        max(found) / max(real),
        measured_between(0.7, 1.4),
        (lambda ratio: 0.3 < ratio < 0.7, "Half of it: a copy reads each byte once and writes it once."),
        (lambda ratio: 1.4 < ratio < 4, "More than was moved: each byte counts twice, once read and once written."),
        "Bytes divided by seconds, divided by 1e9, for a copy that is measured alone.",
        see=EXERCISES,
    )
