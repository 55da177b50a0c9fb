"""Chapter 01, judged by its public names."""

import time

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor.teaching import between, expect

MEASURE, CHANCE = "The idea: run for a while, not a number of times", "Chance that can be repeated"


def test_measure_tells_time_memory_and_result():
    pause = tt.measure(lambda: time.sleep(0.002), span=0.02)
    expect("measure(time.sleep, 0.002).seconds", pause.seconds, between(0.002, 0.1), see=MEASURE)
    array = tt.measure(np.ones, 1_000_000, span=0.01)
    expect(
        "peak_bytes of measure(np.ones, 1_000_000)",
        array.peak_bytes,
        between(8e6, 9e6),
        "Ask tracemalloc for the peak, in a run of its own.",
        see=MEASURE,
    )
    assert array.result.shape == (1_000_000,) and array.runs >= 3 and "ms" in str(array)


def test_measure_calls_at_least_three_times_after_one_that_does_not_count():
    calls = []
    measured = tt.measure(lambda: calls.append(len(calls)) or time.sleep(0.001), span=0)
    assert measured.runs >= 3 and len(calls) > measured.runs


def test_very_short_calls_are_timed_in_bundles():
    assert tt.measure(int, span=0.02).runs > 1000 and tt.measure(int, span=0.02).seconds < 1e-5


def test_system_info_names_what_a_time_depends_on():
    info = tt.system_info()
    assert info["numpy"] == np.__version__ and info["cores"] >= 1 and info["python"].count(".") >= 1
    assert {"system", "processor", "simd", "blas", "blas_kernel", "blas_threads"} <= set(info)


@pytest.mark.parametrize(
    "wrong, what, mend",
    [
        ({"python": "3.10.2"}, "3.10.2", "3.11"),
        ({"numpy": "1.26.4"}, "1.26.4", "pip install"),
        ({"blas_threads": 1, "cores": 8}, "1 of 8 cores", "unset"),
        ({"blas_kernel": "Haswell", "simd": ["AVX512F"]}, "AVX-512", "OPENBLAS_CORETYPE"),
    ],
)
def test_a_problem_comes_with_its_remedy(wrong, what, mend):
    healthy = {
        **tt.system_info(),
        "python": "3.12.1",
        "numpy": "2.1.0",
        "blas_threads": 8,
        "cores": 8,
        "blas_kernel": "SkylakeX",
    }
    assert tt.check_environment(healthy) == []
    (problem,) = tt.check_environment({**healthy, **wrong})
    assert what in problem.what and mend in problem.mend and problem.mend in str(problem)


def test_the_same_seed_gives_the_same_numbers():
    def draw(seed):
        tt.manual_seed(seed)
        return tt.generator().random(3).tolist()

    expect("three numbers after manual_seed(7), twice", draw(7), draw(7), see=CHANCE, tolerance=0)
    assert draw(7) != draw(8)
    with pytest.raises(ValueError, match="-1"):
        tt.manual_seed(-1)


def test_a_saved_state_can_be_put_back():
    state = tt.get_rng_state()
    first = tt.generator().random(3)
    tt.set_rng_state(state)
    assert (tt.generator().random(3) == first).all()


def test_a_product_of_matrices_has_a_speed():
    assert tt.matmul_gflops(64) > 0


def test_exercises():
    ratio = tt.speedup(lambda: time.sleep(0.01), lambda: time.sleep(0.002))
    expect("speedup of sleeping 2 ms over sleeping 10 ms", ratio, between(2, 6), see="Exercises")
    assert tt.bandwidth(1_000_000) > 0
    before = tt.get_rng_state()
    first, second = (tt.seeded(3, lambda: tt.generator().random(2).tolist()) for _ in range(2))
    expect("two calls of seeded(3, function)", first, second, see="Exercises", tolerance=0)
    assert tt.get_rng_state() == before, "seeded leaves the generator as it was"
