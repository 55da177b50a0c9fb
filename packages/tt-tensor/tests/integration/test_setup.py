"""Chapter 01 at work: measuring and seeding, together and on problems of their own."""

import json
import statistics
import time
import tracemalloc
import weakref

import numpy as np

import tt_tensor as tt
from tt_tensor.teaching import between, expect, measured_between

MEASURE, MACHINE = "The idea: run for a while, not a number of times", "What machine is this?"
WRONG, CHANCE = "What is wrong with it?", "Chance that can be repeated"
SPEED, EXERCISES = "How fast is it?", "Exercises"
REPETITIONS = 60


# Imports and instantiation


def test_imports_find_what_the_chapter_promises():
    names = ["Measurement", "Problem", "bandwidth", "check_environment", "generator", "get_rng_state", "manual_seed"]
    names += ["matmul_gflops", "measure", "seeded", "set_rng_state", "speedup", "system_info"]
    expect(
        "the names that chapter 01 lacks",
        [name for name in names if not (hasattr(tt, name) or hasattr(tt.setup, name))],
        [],
        see=MEASURE,
    )


def test_imports_give_types_that_can_be_made_and_shown():
    expect(
        "str(Measurement(0.0015, 0.02, 130, 8_000_000, None))",
        lambda: str(tt.Measurement(0.0015, 0.02, 130, 8_000_000, None)),
        "1.500 ms (spread 2%, 130 runs), peak 8.0 MB",
        see=MEASURE,
    )
    expect(
        "the command in str(Problem('no NumPy', 'python -m pip install numpy'))",
        lambda: "python -m pip install numpy" in str(tt.Problem("no NumPy", "python -m pip install numpy")),
        True,
        see=WRONG,
    )
    expect("type of measure(len, ())", lambda: type(tt.measure(len, (), span=0)).__name__, "Measurement", see=MEASURE)


# Compatibility: the parts of the chapter fit each other, and what is handed to them


def test_compatibility_of_a_measurement_with_any_call():
    a, b = np.ones((2, 3)), np.ones((3, 4))
    expect(
        "the shape of measure(np.matmul, a, b).result, for a of (2, 3) and b of (3, 4)",
        lambda: np.shape(tt.measure(np.matmul, a, b, span=0).result),
        (2, 4),
        see=MEASURE,
    )
    expect(
        "measure(measure, len, ()).result is a measurement",
        lambda: type(tt.measure(lambda: tt.measure(len, (), span=0), span=0).result).__name__,
        "Measurement",
        see=MEASURE,
    )


def test_compatibility_of_a_measurement_with_chance():
    def after_a_measurement():
        tt.measure(lambda: None, span=0)
        return tt.generator().random(3).tolist()

    expect(
        "the random numbers of seed 5 are the same whether something is measured before or not",
        lambda: (
            tt.setup.seeded(5, after_a_measurement) == tt.setup.seeded(5, lambda: tt.generator().random(3).tolist())
        ),
        True,
        "Measuring must not draw from the generator, nor seed it.",
        see=CHANCE,
    )


def test_compatibility_of_an_error_with_the_next_measurement():
    def fails_and_succeeds():
        try:
            tt.measure(lambda: {}["missing"], span=0)
        except KeyError:
            tracing = tracemalloc.is_tracing()
            return tracing, tt.measure(divmod, 7, 3, span=0).result
        return "no error"

    expect(
        "measure(a function that fails) raises; then is_tracing(), and the result of measure(divmod, 7, 3)",
        fails_and_succeeds,
        (False, (2, 1)),
        ((True, (2, 1)), "tracemalloc was left running, and slows down everything from there on: stop it in finally."),
        see=MEASURE,
    )


def test_compatibility_of_the_state_with_a_file():
    def through_json():
        tt.manual_seed(11)
        saved = json.dumps(tt.get_rng_state())
        first = tt.generator().standard_normal(4).tolist()
        tt.set_rng_state(json.loads(saved))
        return tt.generator().standard_normal(4).tolist() == first

    expect("the state, written as JSON and read again, gives the same numbers", through_json, True, see=CHANCE)


def test_compatibility_of_shapes_and_dtypes_of_chance():
    def drawn(seed):
        tt.manual_seed(seed)
        chance = tt.generator()
        return [
            chance.standard_normal((2, 3)).tolist(),
            chance.random(3, dtype=np.float32).tolist(),
            chance.permutation(5).tolist(),
            chance.integers(0, 10, (2, 2)).tolist(),
        ]

    expect(
        "normal numbers, uniform float32, a permutation and integers are the same after the same seed",
        lambda: drawn(13) == drawn(13),
        True,
        see=CHANCE,
    )


def test_compatibility_of_what_the_machine_is_with_what_is_wrong_with_it():
    expect(
        "check_environment(system_info()): each problem has a text and a remedy",
        lambda: all(problem.what and problem.fix for problem in tt.check_environment(tt.system_info())),
        True,
        see=WRONG,
    )
    expect(
        "system_info() twice says the same",
        lambda: tt.system_info() == tt.system_info(),
        True,
        "What the machine is does not change from call to call.",
        see=MACHINE,
    )


# Integration: small real problems


def throws(count=20_000):
    """An estimate of pi: the share of random points of the unit square that lie in the circle, times four."""
    points = tt.generator().random((count, 2))
    return 4 * float(((points**2).sum(axis=1) < 1).mean())


def test_integration_an_experiment_with_chance_is_repeated_to_the_bit():
    expect("pi from 20,000 throws", lambda: tt.setup.seeded(1, throws), between(3.05, 3.23), see=CHANCE)
    expect(
        "the same seed gives the same pi",
        lambda: tt.setup.seeded(1, throws) == tt.setup.seeded(1, throws),
        True,
        see=CHANCE,
    )
    expect(
        "how many different estimates 10 seeds give",
        lambda: len({tt.setup.seeded(seed, throws) for seed in range(10)}),
        between(5, 10),
        (1, "All seeds give the same numbers."),
        see=CHANCE,
    )


def search(steps, start, score):
    """Random search for the minimum of (x - 1)^2 + (y + 2)^2: try a step, keep it if it helps."""
    for _ in range(steps):
        tried = start + 0.3 * tt.generator().standard_normal(2)
        new = float(((tried - [1, -2]) ** 2).sum())
        start, score = (tried, new) if new < score else (start, score)
    return start, score


def test_integration_a_search_that_was_interrupted_goes_on_as_if_it_had_not_been():
    def at_once():
        tt.manual_seed(3)
        return search(200, np.zeros(2), 5.0)[1]

    def interrupted():
        tt.manual_seed(3)
        where, score = search(80, np.zeros(2), 5.0)
        state = tt.get_rng_state()
        tt.setup.seeded(99, throws)
        tt.manual_seed(4)
        tt.set_rng_state(state)
        return search(120, where, score)[1]

    expect("what a random search of 200 steps has reached, from 5", at_once, between(0, 0.2), see=CHANCE)
    expect("80 steps, a break and 120 steps end where 200 do", lambda: interrupted() == at_once(), True, see=CHANCE)


def in_list(numbers, wanted):
    return sum(number in numbers for number in wanted)


def test_integration_measuring_tells_the_better_algorithm():
    numbers, wanted = list(range(2000)), list(range(1900, 2000))
    quick = frozenset(numbers)
    expect(
        "time of 100 searches in a list of 2,000 by that in a set, both by measure()",
        lambda: tt.measure(in_list, numbers, wanted, span=0.05).seconds
        / tt.measure(in_list, quick, wanted, span=0.05).seconds,
        measured_between(10, 100_000),
        (lambda ratio: ratio < 10, "A list is read from its start for each; the set should win a hundred times over."),
        see=MEASURE,
    )
    expect(
        "the same by speedup()",
        lambda: tt.setup.speedup(lambda: in_list(numbers, wanted), lambda: in_list(quick, wanted)),
        measured_between(10, 100_000),
        (lambda ratio: ratio < 1, "Upside down: how many times faster is the second?"),
        see=EXERCISES,
    )


# Performance: what grows, grows as it should


def test_performance_runs_grow_with_the_span():
    calls = {}
    for span in (0.02, 0.2):
        calls[span] = tt.measure(lambda: time.sleep(0.001), span=span).runs
    expect(
        "runs in a span of 0.2 s by runs in a span of 0.02 s",
        calls[0.2] / calls[0.02],
        measured_between(3, 40),
        (lambda ratio: ratio < 3, "The number of runs does not depend on `span`: go on until that time is over."),
        see=MEASURE,
    )


def test_performance_measured_time_grows_with_the_work():
    def measured_and_real(milliseconds):
        took = []

        def work():
            start = time.perf_counter()
            time.sleep(milliseconds / 1e3)
            took.append(time.perf_counter() - start)

        return tt.measure(work, span=0.1).seconds, statistics.median(took)

    (long, really_long), (short, really_short) = measured_and_real(20), measured_and_real(4)
    expect(
        "time of sleeping 20 ms by that of 4 ms, as measured, divided by the real ratio",
        (long / short) / (really_long / really_short),
        measured_between(0.5, 2),
        see=MEASURE,
    )
    expect(
        "peak memory of making 1,000,000 numbers by that of making 100,000",
        lambda: tt.measure(np.ones, 1_000_000, span=0).peak_bytes / tt.measure(np.ones, 100_000, span=0).peak_bytes,
        measured_between(9, 11),
        see=MEASURE,
    )


def test_performance_bandwidth_does_not_grow_with_the_array():
    expect(
        "GB/s of copying 200 kB by GB/s of copying 100 kB",
        lambda: max(tt.setup.bandwidth(200_000) for _ in range(2)) / max(tt.setup.bandwidth(100_000) for _ in range(2)),
        measured_between(0.25, 4),
        "Bytes by seconds: twice the bytes take about twice the time.",
        see=EXERCISES,
    )


class Result:
    """What a measured function returns, counted while it is alive."""

    def __init__(self, alive):
        alive.add(self)


def test_performance_results_are_not_collected():
    alive, most = weakref.WeakSet(), []

    def work():
        most.append(len(alive))
        return Result(alive)

    for _ in range(REPETITIONS):
        tt.measure(work, span=0)
    expect(
        "how many results were alive at a time while 60 measurements ran",
        max(most),
        measured_between(0, 8),
        "Only one result is asked for: do not keep those of all runs.",
        see=MEASURE,
    )


def test_performance_seeding_leaves_nothing_behind():
    def held(repetitions):
        for seed in range(repetitions):
            tt.setup.seeded(seed, lambda: tt.generator().random(100))
        return tracemalloc.get_traced_memory()[0]

    def grown():
        tracemalloc.start()
        try:
            settled = held(REPETITIONS)
            return held(REPETITIONS) - settled
        finally:
            tracemalloc.stop()

    expect("bytes that 60 calls of seeded() leave behind", grown, measured_between(-1e9, 10_000), see=CHANCE)
