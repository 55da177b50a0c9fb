"""Chapter 15, judged by its public names."""

import math
import time

import numpy as np

import tt_autograd as ta
import tt_opt
import tt_tensor as tt
from tt_tensor.teaching import between, expect

PROFILE, BYTES, TRIPS, TWICE = "The smallest thing that could work", "The idea: bytes", "Fewer trips", "Nothing twice"
CORES, COMPILE, EXERCISES = "More than one core", "Compile the definition", "Exercises"


# The stopwatch


def test_the_stopwatch_sees_every_primitive():
    x = tt.ones(50, 50)
    expect(
        "the primitives in time_by_primitive(lambda: exp(x * 2) + x)",
        lambda: sorted(tt_opt.time_by_primitive(lambda: tt.exp(x * 2) + x)),
        ["add", "exp", "mul"],
        ([], "Nothing was seen: call function() inside `with interpreting(...)`."),
        see=PROFILE,
    )
    expect(
        "does time_by_primitive tell positive seconds for each of them?",
        lambda: all(s > 0 for s in tt_opt.time_by_primitive(lambda: tt.exp(x * 2) + x).values()),
        True,
        "Take the time before and after the next interpreter computes.",
        see=PROFILE,
    )


def test_the_stopwatch_adds_up_calls():
    def three():
        waits = [0.0, 0.0, 0.02]

        def slow(next, primitive, tensors, params):
            time.sleep(waits.pop())
            return next(primitive, tensors, params)

        with tt.interpreting(slow):
            return tt_opt.time_by_primitive(lambda: [tt.exp(tt.ones(2)) for _ in range(3)])

    expect(
        "seconds of three calls of exp, the first of which takes 20 ms in another interpreter",
        lambda: three()["exp"],
        between(0.02, 30),
        (0, "Nothing was added: `seconds[name] += ...`."),
        (lambda got: got < 0.01, "Only the last call counts, or your own part of it: add up what `next` takes."),
        "Add the seconds of all calls of a primitive, those of the interpreters behind yours included.",
        see=PROFILE,
    )


def test_the_stopwatch_changes_nothing():
    x = tt.tensor([3.0], requires_grad=True)
    results = []
    expect(
        "the gradient of x * x at 3, computed under the stopwatch",
        lambda: (tt_opt.time_by_primitive(lambda: results.append(ta.grad((x * x).sum(), x)[0].item())), results[0])[1],
        6.0,
        (IndexError, "function() was not called."),
        "Return what the next interpreter computed, unchanged.",
        see=PROFILE,
    )


# The roof


def test_roofline():
    expect(
        "roofline(intensity, peak=100, bandwidth=10) for 0.5, 10 and 1000 operations a byte",
        lambda: [float(tt_opt.roofline(i, 100.0, 10.0)) for i in (0.5, 10.0, 1000.0)],
        [5, 100, 100],
        ([100, 100, 10000], "The rate is the *smaller* of the two limits."),
        ([5, 100, 10000], "Nothing is faster than the peak."),
        ([100, 100, 100], "Below the ridge the bandwidth decides: operations a byte times bytes a second."),
        see=BYTES,
    )


def test_amdahl():
    expect(
        "amdahl(0.5, 2), amdahl(0.9, 10), amdahl(0, 7) and amdahl(1, 4)",
        lambda: [round(tt_opt.amdahl(*a), 6) for a in ((0.5, 2.0), (0.9, 10.0), (0.0, 7.0), (1.0, 4.0))],
        [round(4 / 3, 6), round(1 / 0.19, 6), 1, 4],
        ([0.75, 0.19, 1, 0.25], "That is the new time by the old one; how many times as fast is its inverse."),
        (ZeroDivisionError, "The rest of the time, 1 - share, stays as it is."),
        see=CORES,
    )


def test_utilization():
    expect(
        "utilization of a function that takes 10 ms for 1e6 operations, with a peak of 1e9",
        lambda: tt_opt.utilization(lambda: time.sleep(0.01), 1e6, 1e9),
        between(0.0005, 0.1),
        (lambda found: found > 1, "Operations by seconds is a rate; the utilization is this rate by the peak."),
        see=EXERCISES,
    )


# Blocks


def test_in_blocks():
    x, y = np.arange(10), np.arange(10) * 10

    def parts(size):
        seen = []
        tt_opt.acceleration.in_blocks(lambda *p: seen.append([q.tolist() for q in p]), x, y, size=size)
        return seen

    expect(
        "the parts of two arrays of 10 numbers, 4 at a time",
        lambda: parts(4),
        [
            [[0, 1, 2, 3], [0, 10, 20, 30]], [[4, 5, 6, 7], [40, 50, 60, 70]], [[8, 9], [80, 90]],
        ],
        (lambda found: len(found) == 2, "The rest at the end is a block, too."),
        ([], "work was not called."),
        "Each call gets the same range of every array.",
        see=TRIPS,
    )  # fmt: skip
    expect("the number of parts of 10 numbers, 100 at a time", lambda: len(parts(100)), 1, see=TRIPS)

    def doubled():
        out = np.zeros(10)
        tt_opt.acceleration.in_blocks(lambda a, b: np.multiply(a, 2, out=b), x, out, size=3)
        return out

    expect(
        "an array of zeros into which the work writes twice the numbers",
        doubled,
        np.arange(10) * 2.0,
        (np.zeros(10), "The parts are to be views of the arrays, not copies, or what is written into them is lost."),
        see=TRIPS,
    )


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


NEAR = np.linspace(-5, 5, 1001)


def test_gelu_block():
    def found(x):
        out = np.full_like(x, 7)
        tt_opt.acceleration.gelu_block(x, out)
        return out

    expect(
        "gelu_block at 1001 points from -5 to 5",
        lambda: found(NEAR),
        gelu(NEAR),
        (np.full_like(NEAR, 7), "Nothing was written into `out`."),
        (lambda y: np.allclose(y, gelu(NEAR), atol=3e-3), "That is near, but not the tanh form: 0.044715 x^3."),
        see=TRIPS,
    )
    expect(
        "gelu_block at -1e30, -100, 100 and 1e30",
        lambda: found(np.array([-1e30, -100, 100, 1e30])),
        [0, 0, 100, 1e30],
        (lambda y: not np.isfinite(y).all(), "The cube of a large number overflows: clip at +-40 before."),
        (lambda y: abs(y[2]) < 50, "Clip what goes into tanh, not the factor in front."),
        see=TRIPS,
    )

    def unchanged():
        x = NEAR.copy()
        found(x)
        return bool((x == NEAR).all())

    advice = "Write into `out` and scratch only."
    expect("is x what it was after gelu_block(x, out)?", unchanged, True, advice, see=TRIPS)


def test_gelu_and_slope_block():
    def found(x):
        out, slope = np.full_like(x, 7), np.full_like(x, 7)
        tt_opt.acceleration.gelu_and_slope_block(x, out, slope)
        return out, slope

    differences = (gelu(NEAR + 1e-6) - gelu(NEAR - 1e-6)) / 2e-6
    expect("the values of gelu_and_slope_block from -5 to 5", lambda: found(NEAR)[0], gelu(NEAR), see=TWICE)
    expect(
        "is its slope that of differences, to 7 digits?",
        lambda: bool(np.allclose(found(NEAR)[1], differences, atol=1e-7)),
        True,
        "The slope is h + x h (1 - h) (2 C0 + 6 C1 x^2), with h = (1 + tanh v) / 2.",
        see=TWICE,
    )
    expect(
        "its slope at -1e30, -100, 100 and 1e30",
        lambda: found(np.array([-1e30, -100, 100, 1e30]))[1],
        [0, 0, 1, 1],
        "Far away the slope is 0 or 1: clip at +-40 before the squares.",
        see=TWICE,
    )
    expect(
        "the values of gelu_and_slope_block in float32, by those of gelu_block",
        lambda: float(np.abs(found(NEAR.astype(np.float32))[0] - gelu(NEAR)).max()),
        between(0, 1e-5),
        see=TWICE,
    )


# The way back


def test_what_was_left_is_picked_up():
    ours, other = np.ones(2), np.ones(2)

    def said():
        tt_opt.acceleration.leave(ours, len)
        found = [
            tt_opt.acceleration.picked_up(other),
            tt_opt.acceleration.picked_up(ours),
            tt_opt.acceleration.picked_up(ours),
        ]
        return ["back" if f is len else f for f in found]

    expect(
        "after leave(a, back): picked_up of an equal array b, of a, and of a again",
        said,
        [None, "back", None],
        (["back", None, None], "What was left belongs to one result: compare by `is`, not by value or not at all."),
        ([None, "back", "back"], "It can be picked up once: forget it."),
        ([None, None, None], "`_left.out` is a weak reference: call it to get the array."),
        see=TWICE,
    )


def test_by_table():
    rules = (lambda g, out, x, y: g * y, None, lambda g, out, x, y: g + out)

    def asked(needed, rules=rules):
        return list(tt_opt.acceleration.by_table(rules, needed, 2.0, 5.0, 3.0, 4.0))

    expect(
        "by_table of a row with a function, None and a function, when all inputs are needed",
        lambda: asked([True, True, True]),
        [8.0, None, 7.0],
        (TypeError, "An input without a rule, None, has no gradient."),
        see=TWICE,
    )
    calls = []
    counted = (lambda g, out, *inputs: calls.append(0), lambda g, out, *inputs: calls.append(1) or 1.0)
    expect(
        "the rules that are called when only the second input is needed",
        lambda: (calls.clear(), asked([False, True], counted), list(calls))[2],
        [1],
        "A gradient that nobody needs is not computed.",
        see=TWICE,
    )
    expect(
        "by_table of a row that is one function for all inputs",
        lambda: asked([True, False], lambda needed, g, out, x, y: [g * y, needed[1]]),
        [8.0, False],
        "One function for all is called once, with what is needed in front.",
        see=TWICE,
    )

    def with_parameters():
        return list(tt_opt.acceleration.by_table((lambda g, out, x, k: g * k,), [True], 2.0, 5.0, 3.0, k=10))

    expect("by_table with a parameter k=10 of a rule g * k", with_parameters, [20.0], see=TWICE)


# The definition


def test_norm_by_definition():
    x = np.random.default_rng(0).normal(3, 2, size=(4, 6))
    weight, bias = np.arange(6.0), np.arange(6.0) - 2
    normal, narrow = (
        (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, ddof=less, keepdims=True) + 1e-5) for less in (0, 1)
    )

    def found():
        out = np.zeros_like(x)
        tt_opt.acceleration.norm_by_definition(x, weight, bias, out)
        return out

    expect(
        "norm_by_definition of 4 rows",
        found,
        normal * weight + bias,
        (np.zeros_like(x), "Nothing was written into `out`."),
        (normal, "Scale by the weight and shift by the bias."),
        (narrow * weight + bias, "The variance is divided by the number of values, not by one less."),
        see=COMPILE,
    )  # fmt: skip
    expect(
        "norm_by_definition of a row of equal numbers",
        lambda: (
            out := np.ones((1, 6)),
            tt_opt.acceleration.norm_by_definition(np.full((1, 6), 2.0), weight, bias, out),
            out,
        )[2],
        bias[None],
        "1e-5 is added to the variance, which is 0 here.",
        see=COMPILE,
    )
