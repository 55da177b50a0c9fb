# # Benchmarking
#
# At the end of this chapter you can say that one program is 1.31 times as fast as another, with an interval that you
# would bet on, even on a busy machine. You will also know where the time of a training step goes, by operation, by
# module and by line.

# ## The hurt
#
# Chapter 18 ended with a doubt. We measured one network six times, and asked whether these times differ as much as the
# rows of a table. Let us put benchmarks to a hard test: we compare a function with itself, in the way in which many
# benchmarks compare two programs. We time one, time the other, and divide.

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import tt_tensor as tt
from tt_autograd import Traced
from tt_nlp import next_token_loss
from tt_nlp.transformers import small_gpt
from tt_opt.acceleration import roofline
from tt_opt.profiles import Row, printed
from tt_optim import Adam
from tt_tensor import Module, Primitive, Tensor, interpreting


# The function is a little arithmetic, and to be realistic we let other programs run beside it.


@functools.cache
def numbers() -> np.ndarray:
    """Return 20,000 random numbers to compute with."""
    return np.random.default_rng(0).normal(size=20_000).astype(np.float32)


def work() -> float:
    """Do a little arithmetic."""
    return float(np.tanh(numbers()).sum())


@contextmanager
def a_busy_machine() -> Iterator[None]:
    """Keep the machine busy within the block: on each core a program computes for a fraction of a second and sleeps."""
    busy = "from time import *\nwhile True:\n  end = monotonic() + 0.15\n  while monotonic() < end: pass\n  sleep(0.1)"
    processes = [subprocess.Popen([sys.executable, "-c", busy]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


# Thirty such comparisons:


def show_hurt():
    with a_busy_machine():
        ratios = [tt.measure(work, span=0.03).seconds / tt.measure(work, span=0.03).seconds for _ in range(30)]
    print(f"a function against itself, 30 times: from {min(ratios):.2f} to {max(ratios):.2f} times as fast")


# You might proudly report some of these ratios as a speedup in a pull request, and others would make you reject one.
# The median of `measure` protects us against a few *outliers*. It does not protect us against a second in which
# everything is slow, if that second falls on only one of the two.

# ## The smallest thing that could work
#
# We begin with the time of a single function. Before we count, we must *warm up*, because the first calls fill caches,
# allocate memory and compile kernels. We use them to find out how many calls we need so that a *turn* takes long enough
# for the clock. As the clock we take `perf_counter`, which never goes backwards.


def time_calls(function: Callable[[], Any], calls: int) -> float:  # exercise
    """Return the seconds that one call of function() takes, on average over so many calls."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def calls_for(function: Callable[[], Any], seconds: float) -> int:  # exercise
    """Return how many calls, 1, 2, 4, ..., make a turn of at least so many seconds. Trying this out warms up. The first
    call of all is not timed."""
    function()
    calls = 1
    while time_calls(function, calls) * calls < seconds:
        calls *= 2
    return calls


# A sleep of a millisecond is easy to predict.


def check_turns():
    assert calls_for(lambda: time.sleep(0.001), 0.003) in (1, 2, 4)  # a sleep may take longer
    assert time_calls(lambda: time.sleep(0.001), 3) >= 0.001


# From the times of many turns we report the median. But how sure are we of it? The *bootstrap* (B. Efron, 1979) answers
# that without any formula. If we could repeat the whole measurement, we would get a slightly different median each
# time. We cannot afford that, so we draw samples from the times that we have: as many times as there are, *with
# replacement*, again and again. The medians of these samples spread about as much as those of real repetitions would.


def bootstrap_interval(  # exercise
    x: np.ndarray, statistic: Callable = np.median, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the interval that holds the middle `level` of statistic(sample) over samples of x (n,), drawn with
    replacement by default_rng(seed)."""
    samples = np.random.default_rng(seed).choice(x, (resamples, len(x)))
    values = np.array([statistic(sample) for sample in samples])
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


# A `Timing` keeps all turns. Printed, it shows the median with its *confidence interval*, and the range of the middle
# half of the turns.


@dataclass(frozen=True)
class Timing:
    """Seconds of a call in each of several turns (n,), and the number of calls in a turn."""

    seconds: np.ndarray
    calls: int

    @property
    def median(self) -> float:
        """The median of the turns, in seconds."""
        return float(np.median(self.seconds))

    def __str__(self) -> str:
        low, high = bootstrap_interval(self.seconds)
        quartiles = np.quantile(self.seconds, [0.25, 0.75])
        middle, *ends = (f"{1e3 * value:#.3g}" for value in (self.median, low, high, *quartiles))
        text = "{} ms, 95 % {} to {}, middle half {} to {}, {} turns of {}"
        return text.format(middle, *ends, len(self.seconds), self.calls)


# A benchmark takes 50 turns by default, which together last half a second.


def benchmark(function: Callable[[], Any], turns: int = 50, span: float = 0.5) -> Timing:
    """Time function() in so many turns, which together take about `span` seconds, or longer for a slow function."""
    calls = calls_for(function, span / turns)
    return Timing(np.array([time_calls(function, calls) for _ in range(turns)]), calls)


# We time the same function on a quiet and on a busy machine, and there twice.


def show_benchmark():
    print("quiet:", benchmark(work))
    with a_busy_machine():
        print("busy: ", benchmark(work))
        print("again:", benchmark(work))


# The interval is honest only if the turns are independent of each other. On the busy machine they are not, because slow
# turns come in a row, and the interval cannot know that. So we can be sure of a number and still be wrong. Besides, we
# wanted a comparison in the first place.

# ## The idea
#
# We let both functions take turns: one turn of each, and then again one of each. A disturbance usually lasts longer
# than a turn, so it hits both turns of a pair, and their *ratio* hardly changes. There is one trap left. If the same
# function always went first, it could have an advantage in each pair. So we toss a coin for each pair.
#
# The coin does more than that. Suppose that both are the same program. Then their only difference is which of them went
# first, and the coin decided that. So in each pair heads or tails decide which of them was faster, whatever the machine
# did, and however much that depended on what it did before. We need not know anything about machines, because we know
# everything about coins.


def take_turns(contenders: Sequence[Callable[[], float]], rounds: int, rng: Any) -> np.ndarray:  # exercise
    """Return what each contender returns in each round, (rounds, contenders). In each round they take turns in an order
    drawn by rng.permutation."""
    found = np.empty((rounds, len(contenders)))
    for row in found:
        for number in rng.permutation(len(contenders)):
            row[number] = contenders[number]()
    return found


# If the true median of the ratios is $m$, each of $n$ ratios is below $m$ with probability one half. Call that heads.
# The smallest ratio is above $m$ only if none of $n$ coins shows heads, which has the probability $2^{-n}$. The $k$-th
# smallest is above $m$ if fewer than $k$ coins show heads, and the same holds for the other end. So the interval from
# the $k$-th smallest to the $k$-th largest ratio misses $m$ with probability
#
# $$ 2 \cdot 2^{-n} \sum_{i < k} \binom{n}{i} . $$
#
# We take the largest $k$ for which this is at most 5 %. We need no assumption about the distribution of times.


def median_interval(x: np.ndarray, level: float = 0.95) -> tuple[float, float]:  # exercise
    """Return the k-th smallest and the k-th largest of x (n,), with the largest k for which they hold the median with
    probability `level` or more. Raises ValueError if n is too small for any interval."""
    x, n = np.sort(x), len(x)
    k, missed = 0, 0.0
    while missed + 2 * math.comb(n, k) / 2**n <= 1 - level:
        missed += 2 * math.comb(n, k) / 2**n
        k += 1
    if not k:
        raise ValueError(f"{n} values are too few for an interval of {level:.0%}: take at least {least_values(level)}")
    return float(x[k - 1]), float(x[n - k])


# With too few values there is no interval at all. Even the smallest and the largest of $n$ miss the median with
# probability $2 \cdot 2^{-n}$.


def least_values(level: float) -> int:
    """Return the smallest number of values that have an interval of this level."""
    return math.ceil(1 - math.log2(1 - level))


# Does the interval keep its promise? We draw 2,000 samples from a lopsided distribution whose median, $\ln 2$, we know.


def check_median_interval():
    assert median_interval(np.arange(6.0)) == (0.0, 5.0) and median_interval(np.arange(50.0)) == (17.0, 32.0)
    medians = np.random.default_rng(0).exponential(size=(2000, 50))
    held = [low <= math.log(2) <= high for low, high in map(median_interval, medians)]
    assert 0.95 <= np.mean(held) < 0.98


# Our verdict is a sentence. If the interval of the ratio contains 1, we have shown nothing, and we say so.


@dataclass(frozen=True)
class Comparison:
    """How many times as fast a is as b: the median of b's time / a's time, and its 95 % interval."""

    ratio: float
    low: float
    high: float
    names: tuple[str, str] = ("a", "b")

    @property
    def differ(self) -> bool:
        """Whether the comparison has shown a difference."""
        return not self.low <= 1 <= self.high

    def __str__(self) -> str:  # exercise
        """One of: "a is 1.31 times as fast as b, 95 % between 1.27 and 1.35", the same with b first and all numbers
        inverted, or "no difference can be shown: a is between 0.98 and 1.03 times as fast as b"."""
        (a, b), numbers = self.names, (self.ratio, self.low, self.high)
        if not self.differ:
            return f"no difference can be shown: {a} is between {self.low:.2f} and {self.high:.2f} times as fast as {b}"
        if self.high < 1:
            (a, b), numbers = (b, a), (1 / self.ratio, 1 / self.high, 1 / self.low)
        return f"{a} is {numbers[0]:.2f} times as fast as {b}, 95 % between {numbers[1]:.2f} and {numbers[2]:.2f}"


# The verdict follows from the ratios of all pairs.


def compared(times: np.ndarray, names: tuple[str, str] = ("a", "b")) -> Comparison:  # exercise
    """Return the verdict on the times of two contenders in turns, (rounds, 2)."""
    ratios = times[:, 1] / times[:, 0]
    return Comparison(float(np.median(ratios)), *median_interval(ratios), names)


# One condition is easy to miss: all turns must have the same number of calls. Suppose that we tried out for each
# function how many calls fit into a turn. A disturbance at that moment could give one of two equal programs ten times
# as many calls as the other. Because longer turns are disturbed more often, the coin would no longer be fair. So we
# give both of them the smaller number.


def compare(
    a: Callable[[], Any], b: Callable[[], Any], pairs: int = 50, span: float = 0.5,
    names: tuple[str, str] = ("a", "b"), seed: int | None = None,
) -> Comparison:
    """Return the verdict on a() and b(), which take turns in pairs whose order is drawn. Together they take about
    `span` seconds, or longer for slow functions. Raises ValueError for fewer than 6 pairs."""
    if pairs < least_values(0.95):
        raise ValueError(f"{pairs} pairs are too few for a verdict: take at least {least_values(0.95)}")
    calls = min(calls_for(function, span / pairs / 2) for function in (a, b))
    turns = [functools.partial(time_calls, function, calls) for function in (a, b)]
    return compared(take_turns(turns, pairs, np.random.default_rng(seed)), names)


# We compare the function with itself once more, and then with one that does a tenth more work.


def show_comparisons():
    def more():
        return float(np.tanh(numbers()).sum() + np.tanh(numbers()[:2000]).sum())

    with a_busy_machine():
        print(compare(work, work))
        print(compare(work, more, names=("work", "work and a little more")))
        wrong = sum(compare(work, work, span=0.1).differ for _ in range(20))
        found = sum(compare(work, more, span=0.1).differ for _ in range(20))
    print(f"of 20 comparisons of a function with itself, {wrong} found a difference; with more work, {found} did")


# The other programs still interfere, but now you can trust the verdicts: at most one in twenty should be wrong. (For a
# count over 400 such comparisons, quiet and busy, run `verdicts.py` in the folder *benchmarks*.)
#
# You can still spoil a verdict: wait for the one that you want. Suppose that we look after every ten
# pairs and stop as soon as there is a difference. With each look we get a new chance to be fooled.


def show_peeking():
    rng = np.random.default_rng(0)
    ratios = np.exp(rng.normal(0, 0.1, (500, 200)))
    early = [any(_excludes_one(r[:n]) for n in range(10, 201, 10)) for r in ratios]
    once = [_excludes_one(r) for r in ratios]
    print(f"no difference, but one is found: {np.mean(once):.1%} looking once, {np.mean(early):.1%} looking 20 times")


def _excludes_one(ratios):
    low, high = median_interval(ratios)
    return not low <= 1 <= high


# So decide first how many pairs you take, and then take them all. This mistake is called *optional stopping*, or
# peeking.

# ## Where does the time go?
#
# It is not enough to know that something is slow. In chapter 15 we put a stopwatch into the door and got a time for
# each primitive. But a list of primitives does not show which layer of the network called them, or which line. Besides,
# with an interpreter in the door the backward pass went through the door as well, although it normally runs on bare
# arrays. So we measured something slower than what we wanted to know.
#
# A *profiler* should change as little as possible. For that, `interpreting` has an argument: with `backward=False` the
# backward pass ignores the door. To time it nevertheless, we wrap the rules of each node of the computational graph
# while it is recorded.
#
# Each call of a kernel or of a rule is an *event*. It knows in which modules it happened.


class Event(NamedTuple):
    """One call of a primitive or of one of its rules: when and where it happened, and how much work it was."""

    name: str
    phase: str  # "forward", "backward", or "outside" for what happened between two events
    stack: tuple[str, ...]  # the modules that it was called in, the outermost first
    line: str  # the line of the model
    start: float  # seconds
    seconds: float
    multiply_adds: int = 0
    bytes: int = 0  # read and written
    peak: int = 0  # bytes that were allocated during the call, at the peak


# How do we find out in which module an event happens? Python knows. Each running function has a *frame* on the *call
# stack*, with its local variables and a link to the frame that called it. If the function is a `forward`, its `self` is
# a module. So we follow the links outwards and collect the modules. We also want a line, and not the one inside
# `Linear`, but the one that called `Linear`: the current line of the innermost module that has parts of its own.


def whereabouts(frame: Any, names: dict[int, str]) -> tuple[tuple[str, ...], str]:  # exercise
    """Return the modules whose `forward` is running in a frame and those that called it, the outermost first, by
    names[id] or their class; and "file:line" of the innermost of them that has children, or "" if none has."""
    stack, line = [], ""
    while frame:
        if frame.f_code.co_name == "forward" and isinstance(module := frame.f_locals.get("self"), Module):
            stack.append(names.get(id(module)) or type(module).__name__)
            if not line and has_parts(module):
                line = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    return tuple(reversed(stack)), line


def has_parts(module: Module) -> bool:
    """Return whether a module has modules inside."""
    return next(iter(module.children()), None) is not None


# We count the work of a primitive as the meter of chapter 02 does. A rule computes a vector-Jacobian product for
# one input. For matrix products, which have nearly all of the multiply-adds, that takes as many of them as the product
# itself. A bias is the exception, because its gradient is only a sum.


def work_of(primitive: Primitive, out: Any, arrays: Sequence[Any], params: dict) -> tuple[int, int]:  # exercise
    """Return the multiply-adds of a call, and the bytes that it reads and writes; (0, 0) for a view, which moves
    nothing. A primitive without a `cost` counts one multiply-add for each element of its result."""
    if any(np.may_share_memory(out, a) for a in arrays):
        return 0, 0
    cost = primitive.cost(out, *arrays, **params) if primitive.cost else out.size
    return int(cost), out.nbytes + sum(a.nbytes for a in arrays)


# Now we can write the profiler. The time between two events counts, too: there Python walks from layer to layer, or an
# optimizer or a *data loader* works. We turn it into an event of its own, so that nothing is lost and the sum of all
# events is the whole time. Only the time that the profiler needs for its own notes is in none of them.


class Profile:
    """The events of a program, which this interpreter in the door collects. With memory=True it also measures what each
    call allocates, and everything takes longer."""

    def __init__(self, model: Module | None = None, memory: bool = False):
        self.names = {id(m): name for name, m in model.named_modules()} if model else {}
        self.memory, self.events = memory, list[Event]()
        self.thread: int | None = threading.get_ident()  # None when the block is over
        self.last = time.perf_counter()

    # Called by the door, it times the primitive and wraps the rules of the result.

    def __call__(self, next, primitive, tensors, params):
        asked = time.perf_counter()
        arrays = [t.detach().numpy() for t in tensors]
        stack, line = whereabouts(sys._getframe(1), self.names)
        self.last += time.perf_counter() - asked
        out = self.timed(lambda: next(primitive, tensors, params), primitive.name, "forward", stack, line,
                         lambda out: work_of(primitive, out.detach().numpy(), arrays, params))  # fmt: skip
        if isinstance(out, Traced):
            cost = self.events[-1].multiply_adds
            out.wrap_rules(functools.partial(self.watched, primitive.name, stack, line, cost))
        self.last = time.perf_counter()
        return out

    # We time a rule only within the block and on its own thread; elsewhere it runs as always.

    def watched(self, name, stack, line, multiply_adds, rule):
        """Return a rule that also leaves an event, if it is called in the block and on its thread."""

        def work(shares):
            shares = [s for s in (shares if isinstance(shares, (list, tuple)) else [shares]) if s is not None]
            if any(isinstance(s, Tensor) for s in shares):  # made by primitives, which have events of their own
                return 0, 0
            return sum(multiply_adds if s.ndim > 1 else s.size for s in shares), sum(s.nbytes for s in shares)

        def wrapped(*args, **params):
            if self.thread != threading.get_ident():
                return rule(*args, **params)
            shares = self.timed(lambda: rule(*args, **params), name, "backward", stack, line, work)
            self.last = time.perf_counter()
            return shares

        return wrapped

    # `timed` is the stopwatch. First it closes the stretch of time since the last event, and then it runs the call.
    # Other events may happen inside the call, because a rule of a second derivative runs on tensors and so calls
    # primitives. Each second must count once. So the stopwatch looks at `last` again at the end. If events inside have
    # moved it, only the time after them belongs to this event.

    def timed(self, call, name, phase, stack, line, work):  # exercise
        """Append an event "Python", of phase "outside", from `last` to now. Set `last` to now, run call(), and append
        its event, from what is then `last` to the end, with work(result) -> (multiply_adds, bytes). Returns the
        result."""
        self.events.append(Event("Python", "outside", stack, line, self.last, time.perf_counter() - self.last))
        if self.memory:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
        self.last = time.perf_counter()
        result = call()
        start, seconds = self.last, time.perf_counter() - self.last
        peak = tracemalloc.get_traced_memory()[1] - before if self.memory else 0
        multiply_adds, moved = work(result)
        self.events.append(Event(name, phase, stack, line, start, seconds, multiply_adds, moved, peak))
        return result

    # Work that passes no door, such as the step of an optimizer, can be named.

    def close(self, name: str) -> None:
        """End the stretch since the last event under a name."""
        now = time.perf_counter()
        self.events.append(Event(name, "outside", (), "", self.last, now - self.last))
        self.last = now

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Within the block, count work that passes no door as `name`, for example the step of an optimizer."""
        self.close("Python")
        try:
            yield
        finally:
            self.close(name)


# You use it as a `with` block:


@contextmanager
def profile(model: Module | None = None, memory: bool = False) -> Iterator[Profile]:
    """Collect the events of a block, on this thread: `with profile(model) as found: ...; print(table(found))`. Modules
    have their names in `model`. A backward pass is seen as far as its forward pass was in the block."""
    found, tracing = Profile(model, memory), tracemalloc.is_tracing()
    if memory and not tracing:
        tracemalloc.start()
    try:
        with interpreting(found, backward=False):
            found.last = time.perf_counter()
            yield found
    finally:
        found.close("Python")
        found.thread = None
        if memory and not tracing:
            tracemalloc.stop()


# A table adds up the events, by primitive, by module or by line, as you like. A `Row` has the sums over a group of
# them: the number of calls, the seconds in all and of each phase, the multiply-adds and the bytes, and the largest
# peak.

KEYS: dict[str, Callable[[Event], str]] = {
    "primitive": lambda event: event.name,
    "module": lambda event: event.stack[-1] if event.stack else "(no module)",
    "line": lambda event: event.line or "(no module)",
}


def rows(events: Sequence[Event], by: str) -> dict[str, Row]:  # exercise
    """Return a row for each value of KEYS[by], the one with the most seconds first. Events of phase "outside" do not
    count as calls. Raises ValueError for another `by`."""
    if by not in KEYS:
        raise ValueError(f"a table can be by {', '.join(KEYS)}, not by {by!r}")
    groups: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        groups[KEYS[by](event)].append(event)

    def row(group):
        forward, backward = (sum(e.seconds for e in group if e.phase == phase) for phase in ("forward", "backward"))
        return Row(
            sum(e.phase != "outside" for e in group), sum(e.seconds for e in group), forward, backward,
            sum(e.multiply_adds for e in group), sum(e.bytes for e in group), max(e.peak for e in group),
        )  # fmt: skip

    found = {name: row(group) for name, group in groups.items()}
    return dict(sorted(found.items(), key=lambda item: item[1].seconds, reverse=True))


# The support module `profiles` prints the rows, each with its share of the time and the rate at which it computes. (A
# file and a number say little about a line, so it adds the text of the line.)


def table(found: Profile, by: str = "primitive", most: int = 12) -> str:
    """Return the largest rows of a profile as text, the others in one line, and the sum."""
    return printed(rows(found.events, by), by, most, found.memory)


# We try it on a training step of a GPT, which we show in three tables.


def training_step(length: int = 64, batch_size: int = 8) -> tuple[Module, Callable[..., None]]:
    """Return a GPT of four blocks, and a function that takes one training step with it."""
    tt.manual_seed(0)
    model = small_gpt(65, layers=4, width=128, length=length)
    optimizer = Adam(model.parameters(), lr=1e-3)
    ids = tt.randint(0, 65, (batch_size, length + 1))

    def step(found=None):
        optimizer.zero_grad()
        next_token_loss(model(ids[:, :-1]), ids[:, 1:]).backward()
        with found.span("optimizer") if found else nullcontext():
            optimizer.step()

    return model, step


# The optimizer works on bare arrays and passes no door, so we give it a name with `span`.


def show_profile():
    model, step = training_step()
    step()
    with profile(model) as found:
        step(found)
    for by in KEYS:
        print(table(found, by, most=8), end="\n\n")


# Read the column GFLOP/s first. The products run at a good part of the machine's peak, and the rest is the same as in
# chapter 15, functions that move bytes. From the table by lines you learn what no list of primitives could show: how
# much of the step goes to attention, and how much to the MLP. The row without a module is the loss, the optimizer, and
# Python.
#
# Tables add up. To see the order of events, we draw a *flame graph* (B. Gregg, 2011): time goes to the right, each row
# is one level deeper in the stack of modules, and a wide bar took long.


def show_flame():
    """A training step as a flame graph: modules from the top, forward in blue, backward in orange, Python in grey."""
    import matplotlib.pyplot as plt

    model, step = training_step()
    step()
    with profile(model) as found:
        step(found)
    colors, began = {"forward": "C0", "backward": "C1", "outside": "0.75"}, found.events[0].start
    bars = defaultdict(list)
    for event in found.events:
        for depth in range(len(event.stack) + 1):
            bars[depth, event.phase].append((1e3 * (event.start - began), 1e3 * event.seconds))
    figure, axis = plt.subplots(figsize=(9, 3))
    for (depth, phase), spans in bars.items():
        axis.broken_barh(spans, (depth, 0.9), color=colors[phase])
    for block in range(4):
        for phase in ("forward", "backward"):
            middle = [e.start - began for e in found.events if f"transformer.h.{block}" in e.stack and e.phase == phase]
            axis.text(1e3 * float(np.mean(middle)), 2.45, f"block {block}", ha="center", va="center", fontsize=7)
    axis.set(xlabel="ms", ylabel="depth in the stack")
    axis.invert_yaxis()
    figure.tight_layout()
    return figure


# In the backward pass you see the blocks in the opposite order, and each takes longer than in the forward pass, because
# a product needs two gradients, one for each factor. The optimizer is the last bar.
#
# Does the profiler change what it measures? We compare.


def show_overhead():
    model, step = training_step()

    def profiled():
        with profile(model) as found:
            step(found)

    print(compare(step, profiled, pairs=30, names=("a step", "a step with a profiler")))


# ## The roof of a whole model
#
# In chapter 15 we drew a few functions under the *roofline* of the machine. With the profiler we can draw a whole
# model. Each circle is a primitive in the forward pass, and its area shows the time that it takes.


def show_roof():
    """The primitives of a training step under the roof of this machine; areas show their shares of the time."""
    import matplotlib.pyplot as plt

    model, step = training_step()
    step()
    with profile(model) as found:
        step(found)
    peak, bandwidth = tt.setup.matmul_gflops(1024) * 1e9, tt.setup.bandwidth(1 << 26) * 1e9
    figure, axis = plt.subplots(figsize=(7, 4))
    intensities = np.geomspace(0.03, 1000)
    axis.loglog(intensities, [roofline(i, peak, bandwidth) / 1e9 for i in intensities], color="C0")
    for name, intensity, rate, share in roof_points(found.events):
        axis.scatter(intensity, rate / 1e9, s=2000 * share, color="C1", alpha=0.6)
        if share > 0.03:
            axis.annotate(name, (intensity, rate / 1e9), fontsize=8)
    axis.set(xlabel="operations a byte", ylabel="GFLOP/s")
    figure.tight_layout()
    return figure


# The points come from the rows of the table above.


def roof_points(events: Sequence[Event]) -> list[tuple[str, float, float, float]]:  # exercise
    """Return, for each primitive of the forward pass that moves bytes, its name, operations a byte, operations a
    second, and its share of the time of all events. A multiply-add is two operations."""
    forward = rows([e for e in events if e.phase == "forward" and e.bytes], "primitive")
    whole = sum(e.seconds for e in events)
    return [
        (name, 2 * r.multiply_adds / r.bytes, 2 * r.multiply_adds / r.seconds, r.seconds / whole)
        for name, r in forward.items()
    ]  # fmt: skip


# The large circles at the upper right are the products. Those on the left wait for memory, so faster arithmetic would
# not help them. If you look for something to improve, look for a large circle far below the roof.

# ## Errors you will meet
#
# Most often you have too few values for an interval.


def show_errors():
    for attempt in (
        lambda: median_interval(np.ones(5)), lambda: compare(work, work, pairs=3), lambda: rows([], "layer"),
    ):  # fmt: skip
        try:
            attempt()
        except ValueError as error:
            print(f"ValueError: {error}")


# ## Exercises
#
# Besides the exercises that are marked in the text:
#
# 1. Write `pairs_needed`: how many pairs do you need to show a difference of 5 % if the ratios of single pairs spread
#    by 10 %? First guess, then simulate.
# 2. Compare `np.tanh(x)` with itself, but give each of the two its own array. Do you ever find a difference that is
#    real, although the programs are equal?
# 3. Profile one step of your LeNet on the kernel sets `default` and `fast`. Which rows shrink, and which grow?


def pairs_needed(difference: float, spread: float, seed: int = 0) -> int:  # exercise
    """Return the smallest of 10, 20, 40, 80, ... pairs with which at least 90 of 100 simulated comparisons find that b
    takes 1 + difference times as long as a. The ratios of a comparison are (1 + difference) * exp(spread * z), with z =
    default_rng(seed).normal(size=(100, pairs)), a row for each. Raises ValueError unless difference > 0."""
    if not difference > 0:
        raise ValueError(f"no number of pairs shows a difference of {difference}: it must be above 0")
    pairs = 10
    while True:
        ratios = (1 + difference) * np.exp(spread * np.random.default_rng(seed).normal(size=(100, pairs)))
        if sum(median_interval(row)[0] > 1 for row in ratios) >= 90:
            return pairs
        pairs *= 2


# A large difference shows quickly, and a small one needs more pairs.


def check_pairs_needed():
    assert pairs_needed(0.5, 0.1) == 10 and pairs_needed(0.05, 0.1) > 20


# ## A road not taken
#
# `pytest-benchmark`, with which we time our packages, reports the minimum, the median and more of one program at a
# time. It compares them with those of an earlier day and leaves the verdict to you. Other tools fit a distribution to
# the times, or use a *t* test on their means, which a single wild run can move. PyTorch has `torch.utils.benchmark`
# with a median and its quartiles, and `torch.profiler`, which hooks into the C++ dispatcher, a door of the same kind as
# ours, and writes traces in the format of our appendix *Reports*. On servers you can count instructions instead of
# seconds (`perf stat`, Cachegrind). They hardly vary, but they are not what we wait for.

# ## What hurts next
#
# Now we can test the claims of chapters 15 to 18, and we begin with two of them. We let a GPT write once with a cache
# and once with a cache and `int8` weights, and compare each with the plain loop of chapter 14.


def show_all_tricks():
    import tt_nlp
    from tt_opt import caching, precision

    model = small_gpt(65, layers=2, width=64, length=128)
    prompt = list(range(8))
    plain = functools.partial(tt_nlp.generate, model, prompt, 60, seed=0)
    small = precision.quantize_(deepcopy(model), "int8")
    tricks: dict[str, Callable[[], Any]] = {
        "a cache": functools.partial(caching.generate, model, prompt, 60, seed=0),
        "a cache and int8": functools.partial(caching.generate, small, prompt, 60, seed=0),
    }
    for name, trick in tricks.items():
        print(compare(trick, plain, pairs=8, names=(name, "the plain loop")))


# Everything works, but each piece alone, in a file of its own. Will our pieces work together, and will they be useful
# to people who have never read this course? Chapter 20, *Capstone*.

__all__ = [
    "KEYS", "Comparison", "Event", "Profile", "Timing", "benchmark", "bootstrap_interval", "calls_for",
    "compare", "compared", "least_values", "median_interval", "pairs_needed", "profile",
    "roof_points", "rows", "table", "take_turns", "time_calls", "whereabouts", "work_of",
]
