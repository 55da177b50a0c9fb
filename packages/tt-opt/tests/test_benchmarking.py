"""Chapter 19, judged by its public names. No test here depends on how fast the machine is."""

import math
import sys
import time

import numpy as np
import pytest

import tt_autograd as ta
import tt_opt
import tt_tensor as tt
from tt_tensor.teaching import expect

FIRST, IDEA, WHERE = "The smallest thing that could work", "The idea", "Where does the time go?"
ROOF, EXERCISES = "The roof of a whole model", "Exercises"


class Clock:
    """A clock of which we know what it shows: work takes seconds, and asking for the time takes none."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "time", lambda: 5e9 - self.now)  # a clock that is set back all the time
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "process_time", lambda: 0.0)

    def works(self, *seconds):
        """A function whose calls take so many seconds, the last for ever; and the list of its calls."""
        calls = []

        def function():
            calls.append(None)
            self.now += seconds[min(len(calls), len(seconds)) - 1]

        return function, calls


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


# Turns


def test_time_calls(clock):
    function, calls = clock.works(2.0)
    expect(
        "time_calls of a function of 2 seconds, 3 calls, and how often it was called",
        lambda: (tt_opt.benchmarking.time_calls(function, 3), len(calls)),
        (2.0, 3),
        (lambda got: got[0] < 0, "A negative duration: the clock on the wall was set back. Use **perf_counter**."),
        (lambda got: got[0] == 0, "Time spent sleeping or waiting counts, too: use **perf_counter**."),
        (lambda got: got[0] == 6, "Divide by the number of calls."),
        (lambda got: got[1] != 3, "Call it exactly `calls` times."),
        see=FIRST,
    )


@pytest.mark.parametrize("seconds, wanted, called", [(1.0, 1, 2), (2.5, 4, 8), (4.0, 4, 8), (5.0, 8, 16)])
def test_calls_for(clock, seconds, wanted, called):
    function, calls = clock.works(50.0, 1.0)
    expect(
        f"calls_for a turn of {seconds} seconds, of a function of 1 second whose first call takes 50, and its calls",
        lambda: (tt_opt.benchmarking.calls_for(function, seconds), len(calls)),
        (wanted, called),
        (lambda got: got[0] == 1, "The slow first call was timed: **warm up** with a call that does not count."),
        (lambda got: got[0] == wanted * 2 and wanted > 1, "A turn of exactly the wanted length is long enough."),
        (lambda got: got[1] != called, "Try 1, 2, 4, ... calls, and stop as soon as a turn is long enough."),
        see=FIRST,
    )


def test_bootstrap_interval():
    x = np.random.default_rng(3).exponential(size=40)
    samples = np.random.default_rng(0).choice(x, (2000, 40))
    for name, statistic in (("median", np.median), ("mean", np.mean)):
        values = np.array([statistic(sample) for sample in samples])
        expect(
            f"bootstrap_interval of the {name} of 40 values",
            lambda statistic=statistic: tt_opt.bootstrap_interval(x, statistic),
            (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))),
            (tuple(np.quantile(x, [0.025, 0.975]).tolist()),
             "This is where single values lie. The question is where their median lies: resample."),
            (lambda got: got[0] == got[1], "Draw with repetition, or every sample is the same."),
            (tuple(np.quantile(values, [0.05, 0.95]).tolist()), "Half of what is missing to 1 lies on each side."),
            see=FIRST,
        )  # fmt: skip
    values = np.array([np.median(sample) for sample in np.random.default_rng(5).choice(x, (300, 40))])
    expect("the same with level 0.8, 300 resamples and seed 5",
           lambda: tt_opt.bootstrap_interval(x, level=0.8, resamples=300, seed=5),
           tuple(np.quantile(values, [0.1, 0.9]).tolist()), see=FIRST)  # fmt: skip


# Comparing


def test_take_turns():
    order = []

    def contender(number):
        return lambda: (order.append(number), 10.0 * number + len(order))[1]

    def found():
        order.clear()
        times = tt_opt.benchmarking.take_turns([contender(0), contender(1), contender(2)], 4, np.random.default_rng(1))
        return np.asarray(times), list(order)

    rng, wanted = np.random.default_rng(1), []
    for _ in range(4):
        wanted += rng.permutation(3).tolist()
    times = np.zeros((4, 3))
    for place, number in enumerate(wanted):
        times[place // 3, number] = 10 * number + place + 1
    expect(
        "the times of three contenders in four rounds, and the order of their turns",
        found,
        (times, wanted),
        (lambda got: got[1] == [0, 1, 2] * 4, "The first one has an advantage in every round: draw the **order**."),
        (lambda got: got[1] == [0] * 4 + [1] * 4 + [2] * 4, "One after the other is no comparison: take **turns**."),
        (lambda got: got[1][:3] * 4 == got[1], "Draw a new order in each round."),
        (lambda got: got[1] == wanted, "A time belongs to its contender, in whichever turn it was taken."),
        see=IDEA,
    )  # fmt: skip


@pytest.mark.parametrize("n, k", [(6, 1), (8, 1), (9, 2), (20, 6), (50, 18), (51, 19), (200, 86)])
def test_median_interval(n, k):
    x = np.random.default_rng(n).permutation(n).astype(float)
    expect(
        f"median_interval of 0 to {n - 1} in any order",
        lambda: tt_opt.median_interval(x),
        (float(k - 1), float(n - k)),
        ((float(k), float(n - k - 1)), "Fewer than k coins: the sum goes up to **k - 1**. This misses more often."),
        ((float(k - 2), float(n - k + 1)), "This interval is safe, but not the narrowest: take the **largest** k."),
        (lambda got: got[0] < 0 or got[1] > n - 1, "The k-th smallest is x[k - 1] if x is sorted."),
        (lambda got: got[0] > got[1] or float(got[0]) in (x[k - 1], x[k]), "Sort x first."),
        see=IDEA,
    )  # fmt: skip


def test_median_interval_levels():
    x = np.arange(30.0)
    for level, wanted in ((0.5, (12.0, 17.0)), (0.999, (5.0, 24.0))):
        expect(f"median_interval of 0 to 29 with level {level}", lambda at=level: tt_opt.median_interval(x, at), wanted,
               see=IDEA)  # fmt: skip
    expect("median_interval of five values", lambda: tt_opt.median_interval(np.ones(5)), ValueError,
           "Five coins are all equal in one of 16 cases: there is no interval of 95 %.", see=IDEA)  # fmt: skip


def test_compared():
    a = np.array([1.0, 2, 4, 1, 2, 4, 1, 2, 4, 1])
    times = np.stack([a, a * np.array([1.5, 1.4, 1.6, 1.5, 1.3, 1.7, 1.5, 1.5, 1.45, 1.55])], 1)
    expect(
        "ratio and interval of two contenders, of which b takes 1.5 times as long in a pair, and the pairs differ",
        lambda: (lambda c: (c.ratio, c.low, c.high, c.differ))(tt_opt.compared(times)),
        (1.5, 1.4, 1.6, True),
        (lambda got: math.isclose(got[0], 1 / 1.5, rel_tol=1e-3), "a is faster if **b** takes longer: divide by a's."),
        (lambda got: got[0] != 1.5, "Take the ratio in each **pair** first: its turns had the same trouble."),
        see=IDEA,
    )  # fmt: skip


@pytest.mark.parametrize(
    "numbers, said",
    [
        ((1.31, 1.27, 1.35), "new is 1.31 times as fast as old, 95 % between 1.27 and 1.35"),
        ((0.5, 0.4, 0.8), "old is 2.00 times as fast as new, 95 % between 1.25 and 2.50"),
        ((1.01, 0.98, 1.03), "no difference can be shown: new is between 0.98 and 1.03 times as fast as old"),
    ],
)
def test_the_verdict(numbers, said):
    expect(
        f"str(Comparison({', '.join(map(str, numbers))}, ('new', 'old')))",
        lambda: str(tt_opt.Comparison(*numbers, ("new", "old"))),
        said,
        (lambda got: "between 2.50 and 1.25" in got, "Inverted, the ends of an interval change places."),
        (lambda got: "new is 0.50" in got, "Say it of the faster one: b first, and all numbers inverted."),
        (lambda got: "0.98 and 1.03" in got and got[:2] != "no", "The interval holds 1: nothing was **shown**."),
        see=IDEA,
    )


# The profiler


class Inner(tt.Module):
    def forward(self, x):
        return self.watch(x)


class Outer(tt.Module):
    def __init__(self, watch):
        super().__init__()
        self.a, self.b = Inner(), Inner()
        self.a.watch = self.b.watch = watch

    def forward(self, x):
        return self.a(x) + helper(self.b, x)


def helper(module, x):
    return module(x)


def test_whereabouts():
    seen = []

    def watch(x):
        seen.append(tt_opt.benchmarking.whereabouts(sys._getframe(), names))
        return x

    model = Outer(watch)
    names = {id(m): name for name, m in model.named_modules()}

    def found():
        seen.clear()
        model(1)
        places = [(stack, *line.split(":")) for stack, line in seen]
        return [(stack, file, int(line) - Outer.forward.__code__.co_firstlineno) for stack, file, line in places]

    expect(
        "the modules, the file, and the line within Outer.forward, in the forward passes of its parts a and b",
        found,
        [(("Outer", "a"), "test_benchmarking.py", 1), (("Outer", "b"), "test_benchmarking.py", 1)],
        (lambda got: got[0][0] == ("a", "Outer"), "The outermost module comes first."),
        (lambda got: got[0][0] == ("", "a"), "The model itself has an empty name: take that of its class."),
        (lambda got: got[0][1] != "test_benchmarking.py", "Leave the folders out: os.path.basename."),
        (lambda got: got[0][0] == ("Outer", "a") and got[0][2] != 1,
         "The line is that of the innermost module that **has parts**: there it says which part is called."),
        see=WHERE,
    )  # fmt: skip
    expect(
        "whereabouts outside of a module",
        lambda: tt_opt.benchmarking.whereabouts(sys._getframe(), {}),
        ((), ""),
        see=WHERE,
    )


def test_work_of():
    x, y = np.zeros((4, 5), np.float32), np.zeros((5, 6), np.float32)
    expect(
        "work_of matmul of (4, 5) and (5, 6) in float32",
        lambda: tt_opt.benchmarking.work_of(tt.matmul, x @ y, [x, y], {}),
        (120, 4 * (24 + 20 + 30)),
        (lambda got: got[0] == 24, "Ask `cost`, if there is one: it takes the result, the inputs and the parameters."),
        (lambda got: got[1] == 200, "It reads its inputs **and** writes its result."),
        see=WHERE,
    )
    expect(
        "work_of exp of (4, 5), which has no cost",
        lambda: tt_opt.benchmarking.work_of(tt.PRIMITIVES["exp"], np.exp(x), [x], {}),
        (20, 160),
        (lambda got: got[0] == 0, "Without a cost it makes one multiply-add for each element of the result."),
        see=WHERE,
    )
    expect(
        "work_of reshape to (20,), a view",
        lambda: tt_opt.benchmarking.work_of(tt.PRIMITIVES["reshape"], x.reshape(20), [x], {"shape": (20,)}),
        (0, 0),
        (lambda got: got[0] or got[1], "A view moves nothing: np.may_share_memory tells."),
        see=WHERE,
    )


def test_timed(clock):
    profile = tt_opt.Profile()
    profile.last = clock.now
    clock.now += 3

    def call():
        clock.now += 2
        return 7

    def found():
        profile.events.clear()
        result = profile.timed(call, "exp", "forward", ("m",), "f.py:1", lambda out: (out, 2 * out))
        return result, [(e.name, e.phase, e.stack, e.seconds, e.multiply_adds, e.bytes) for e in profile.events]

    expect(
        "what timed() returns and notes, 3 seconds after the last event, of a call of 2 seconds",
        found,
        (7, [("Python", "outside", ("m",), 3.0, 0, 0), ("exp", "forward", ("m",), 2.0, 7, 14)]),
        (lambda got: len(got[1]) == 1, "The time since the last event is an event, too, or the sum is not the whole."),
        (lambda got: got[1][0][3] == 5.0, "The stretch outside ends where the call **starts**."),
        see=WHERE,
    )


def test_an_event_inside_an_event(clock):
    profile = tt_opt.Profile()

    def inside():
        clock.now += 2

    def call():
        clock.now += 1
        profile.timed(inside, "exp", "forward", (), "", lambda out: (0, 0))
        profile.last = clock.now
        clock.now += 4

    def found():
        profile.events.clear()
        profile.last = clock.now
        profile.timed(call, "power", "backward", (), "", lambda out: (0, 0))
        return [(e.name, e.seconds) for e in profile.events], profile.events[-1].start - profile.events[-2].start

    expect(
        "events of a call of 7 seconds that has an event of 2 seconds inside, 4 before its end, and when they start",
        found,
        ([("Python", 0.0), ("Python", 1.0), ("exp", 2.0), ("power", 4.0)], 2.0),
        (lambda got: min(e[1] for e in got[0]) < 0, "The stretch outside ends before the call: append it **first**."),
        (lambda got: got[0][-1] == ("power", 7.0), "The seconds inside count **twice**: begin at what is then `last`."),
        see=WHERE,
    )


def events():
    def event(name, phase, stack, line, seconds, multiply_adds=0, bytes=0, peak=0):
        return tt_opt.Event(name, phase, stack, line, 0.0, seconds, multiply_adds, bytes, peak)

    return [
        event("matmul", "forward", ("m", "m.a"), "f.py:1", 2.0, 100, 40, 8), event("Python", "outside", (), "", 1.0),
        event("matmul", "backward", ("m", "m.a"), "f.py:1", 5.0, 200, 80, 4),
        event("exp", "forward", ("m", "m.b"), "f.py:1", 0.5, 10, 16, 2),
        event("view", "forward", ("m",), "f.py:2", 0.25),
    ]  # fmt: skip


def test_rows():
    expect(
        "rows by primitive of five events",
        lambda: {name: tuple(row) for name, row in tt_opt.benchmarking.rows(events(), "primitive").items()},
        {"matmul": (2, 7.0, 2.0, 5.0, 300, 120, 8), "Python": (0, 1.0, 0.0, 0.0, 0, 0, 0),
         "exp": (1, 0.5, 0.5, 0.0, 10, 16, 2), "view": (1, 0.25, 0.25, 0.0, 0, 0, 0)},
        (lambda got: got["matmul"][6] == 12, "Peaks do not add up: take the largest."),
        (lambda got: got["Python"][0] == 1, "What happened outside of all primitives is no call."),
        see=WHERE,
    )  # fmt: skip
    expect(
        "their order",
        lambda: list(tt_opt.benchmarking.rows(events(), "primitive")),
        ["matmul", "Python", "exp", "view"],
        "The row with the most seconds comes first.",
        see=WHERE,
    )
    expect("seconds by module", lambda: {n: r.seconds for n, r in tt_opt.benchmarking.rows(events(), "module").items()},
           {"m.a": 7.0, "(no module)": 1.0, "m.b": 0.5, "m": 0.25}, see=WHERE)  # fmt: skip
    expect("seconds by line", lambda: {n: r.seconds for n, r in tt_opt.benchmarking.rows(events(), "line").items()},
           {"f.py:1": 7.5, "(no module)": 1.0, "f.py:2": 0.25}, see=WHERE)  # fmt: skip
    expect("rows by 'layer'", lambda: tt_opt.benchmarking.rows(events(), "layer"), ValueError, see=WHERE)


def test_roof_points():
    expect(
        "roof_points of the same events",
        lambda: tt_opt.roof_points(events()),
        [("matmul", 5.0, 100.0, 2 / 8.75), ("exp", 1.25, 40.0, 0.5 / 8.75)],
        (lambda got: got[0][1:3] == (2.5, 50.0), "A multiply-add is **two** operations."),
        (lambda got: len(got) == 3, "What moves no bytes has no place in the picture."),
        (lambda got: got[0][2] == 600 / 7, "The forward pass only."),
        (lambda got: np.isclose(got[0][3], 2 / 2.5), "The share is one of **all** events."),
        see=ROOF,
    )


def test_pairs_needed():
    def found(difference, spread, seed=0):
        pairs = 10
        while True:
            z = np.random.default_rng(seed).normal(size=(100, pairs))
            lows = [np.sort(row)[K[pairs] - 1] for row in (1 + difference) * np.exp(spread * z)]
            if sum(low > 1 for low in lows) >= 90:
                return pairs
            pairs *= 2

    K = {10: 2, 20: 6, 40: 14, 80: 31, 160: 67}
    for difference, spread in ((0.5, 0.1), (0.05, 0.05), (0.05, 0.1)):
        expect(
            f"pairs_needed({difference}, {spread})",
            lambda d=difference, s=spread: tt_opt.benchmarking.pairs_needed(d, s),
            found(difference, spread),
            (lambda got, right=found(difference, spread): got < right, "Nine of ten must see it: 90 of the 100."),
            see=EXERCISES,
        )


def test_a_profile_sees_forward_and_backward():
    model, x = tt.Sequential(tt.Linear(3, 4), tt.ReLU(), tt.Linear(4, 1)), tt.ones(2, 3)

    def found():
        with tt_opt.profile(model) as profile:
            model(x).sum().backward()
        by_module = tt_opt.benchmarking.rows(profile.events, "module")
        return all(by_module[name].forward > 0 and by_module[name].backward > 0 for name in ("0", "2"))

    expect("do both layers of a network have time in the forward and in the backward pass?", found, True, see=WHERE)
    expect(
        "the gradient of a profiled pass, less that of an unprofiled one",
        lambda: profiled_gradient(model, x) - plain_gradient(model, x),
        np.zeros((4, 3)),
        see=WHERE,
    )


def plain_gradient(model, x):
    model.zero_grad()
    model(x).sum().backward()
    return model[0].weight.grad.numpy().copy()


def profiled_gradient(model, x):
    with tt_opt.profile(model):
        return plain_gradient(model, x)


def test_the_sum_of_a_profile_is_the_whole(clock):
    x = tt.ones(5, 5, requires_grad=True)

    def slow(next, primitive, tensors, params):
        clock.now += 2
        return next(primitive, tensors, params)

    def found():
        start = clock.now
        with tt.interpreting(slow, backward=False), tt_opt.profile() as profile:
            (x @ x).exp().sum().backward()
            clock.now += 3
            with profile.span("a pause"):
                clock.now += 5
        return sum(e.seconds for e in profile.events), clock.now - start

    expect("the seconds of all events, and of the block: three primitives of 2 seconds, then 3 and 5 others", found,
           (14.0, 14.0), "What happens between events counts, too.", see=WHERE)  # fmt: skip
    assert ta.is_grad_enabled()
