"""Intervals beside those of SciPy."""

import numpy as np
import pytest

import tt_opt

stats = pytest.importorskip("scipy.stats", reason="SciPy is the oracle here: hatch run parity:run")


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [8, 9, 50, 51, 333, 2000])
def test_the_interval_of_a_median_is_that_of_coins(n, level):
    low, high = tt_opt.median_interval(np.random.default_rng(n).permutation(n), level)
    k = int(low) + 1
    assert low + high == n - 1
    missed, more = (2 * stats.binom.cdf(k - 1, n, 0.5) for k in (k, k + 1))  # fewer than k heads, or k + 1
    assert missed <= 1 - level < more


@pytest.mark.parametrize("n", [20, 50])
def test_a_difference_is_what_a_sign_test_shows(n):
    """The interval of the ratios excludes 1 where the two-sided sign test has p <= 5 %."""
    for seed in range(200):
        times = np.exp(np.random.default_rng(seed).normal((0, 0.3), 1, (n, 2)))
        wins = int((times[:, 1] > times[:, 0]).sum())
        assert tt_opt.compared(times).differ == (stats.binomtest(wins, n, 0.5).pvalue <= 0.05)


@pytest.mark.parametrize("statistic", [np.mean, np.median, np.std], ids=lambda statistic: statistic.__name__)
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_a_bootstrap_interval_is_about_the_same(statistic, level):
    x = np.random.default_rng(1).gamma(2, size=80)
    wanted = stats.bootstrap(
        (x,), statistic, n_resamples=4000, confidence_level=level, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    found = tt_opt.bootstrap_interval(x, statistic, level, resamples=4000)
    np.testing.assert_allclose(found, wanted, atol=0.1 * (wanted.high - wanted.low))
