"""The intervals of a model card beside scipy's."""

import pytest

from tt_capstone.cards import accuracy_interval, at_least

stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle here: hatch run parity:run")


@pytest.mark.parametrize("count", [1, 2, 10, 359, 10_000])
def test_intervals_are_those_of_scipy(count):
    for right in sorted({0, 1, count // 3, count // 2, count - 1, count}):
        for level in (0.5, 0.95, 0.99):
            theirs = stats.binomtest(right, count).proportion_ci(level, method="exact")
            assert accuracy_interval(right, count, level) == pytest.approx((theirs.low, theirs.high), abs=1e-8)


@pytest.mark.parametrize("p", [1e-6, 0.3, 0.999])
def test_tails_are_those_of_scipy(p):
    for right in (0, 1, 50, 99, 100):
        assert at_least(right, 100, p) == pytest.approx(stats.binom.sf(right - 1, 100, p), rel=1e-9, abs=1e-300)
