"""Chapter 03 at work: bends and their slopes, together with the tensors before them.

Weights are set by hand, so that nothing depends on who draws which random number."""

import gc
import math
import time
import tracemalloc

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor.teaching import between, expect, measured_between

HURT, WITNESS, SOFTMAX, DEEP, COST = "The hurt", "The witness", "Softmax", "Ten layers deep", "The cost"
ELEMENTWISE = ["relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus", "gelu", "silu"]
LACKS = "A skeleton has all of them: a `def` or a name in `__all__` has been lost."
X = np.sin(np.arange(24.0)).reshape(2, 3, 4) * 3


# Imports and instantiation


def test_imports_find_what_the_chapter_promises():
    names = [*ELEMENTWISE, "softmax", "log_softmax", "step", "relu_slope", "elu_slope", "sigmoid_slope", "tanh_slope"]
    names += ["silu_slope", "gelu_slope", "softmax_backward", "numeric_slope", "xor_points", "hard_sigmoid"]
    names += ["log_sigmoid", "softmax_with_temperature"]
    expect(
        "the names that chapter 03 lacks",
        [name for name in names if not (hasattr(tt, name) or hasattr(tt.activations, name))],
        [],
        LACKS,
        see="Exercises",
    )


@pytest.mark.parametrize("name", ["relu", "sigmoid", "gelu", "softmax", "log_softmax"])
def test_imports_give_primitives_that_are_counted(name):
    options = {"dim": 1} if "softmax" in name else {}

    def seen():
        names = []

        def listen(next, primitive, tensors, params):
            names.append(primitive.name)
            return next(primitive, tensors, params)

        with tt.interpreting(listen):
            getattr(tt, name)(tt.zeros(2, 3), **options)
        return name in names

    expect(
        f"does whoever listens to operations hear of {name}?",
        seen,
        True,
        "It is a primitive, by the decorator above its `def`; leave that there.",
        see=WITNESS,
    )


# Compatibility: shapes, dtypes, and slopes that go through a chain


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_compatibility_with_every_shape_and_dtype(name):
    function = getattr(tt, name)
    for dtype in (tt.float32, tt.float64):
        for shape in ((), (0,), (2, 3, 4)):
            expect(
                f"shape and dtype of {name} of a {np.dtype(dtype)} tensor of shape {shape}",
                lambda x=tt.zeros(*shape).to(dtype): (function(x).shape, str(function(x).dtype)),
                (shape, str(np.dtype(dtype))),
                "A bend works element by element: shape and dtype stay.",
                see=WITNESS,
            )


def test_compatibility_of_softmax_with_every_axis():
    e = np.exp(X - X.max())
    for dim in (0, 1, 2, -1):
        expect(
            f"softmax of a (2, 3, 4) tensor along {dim}",
            lambda dim=dim: tt.softmax(tt.Tensor(X), dim=dim),
            e / e.sum(axis=dim, keepdims=True),
            (e / e.sum(), "The sum runs over everything; it runs along `dim` alone."),
            (e / e.sum(axis=-1, keepdims=True), "It went along the last dimension, whatever `dim` is."),
            "Maximum and sum run along `dim`, and keep it.",
            see=SOFTMAX,
        )
    expect(
        "what softmax([1, 2, 3]) gains by adding 100 to each",
        lambda: tt.softmax(tt.Tensor([101, 102, 103]), dim=0) - tt.softmax(tt.Tensor([1, 2, 3]), dim=0),
        [0, 0, 0],
        "Only differences count: it is a share of a sum.",
        see=SOFTMAX,
        tolerance=1e-3,
    )
    expect(
        "log_softmax(x).exp() is softmax(x)",
        lambda: tt.log_softmax(tt.Tensor(X), dim=1).exp(),
        e / e.sum(axis=1, keepdims=True),
        "log_softmax(x) is x less its maximum, less the logarithm of the sum of exponentials.",
        see=SOFTMAX,
    )


def test_compatibility_of_the_slopes_with_the_chain_rule():
    w1, w2 = np.cos(np.arange(12.0)).reshape(4, 3), np.cos(np.arange(6.0)).reshape(3, 2)
    x, shift = X[0], 1e-6

    def answer(inputs):
        return tt.softmax(tt.relu(tt.Tensor(inputs) @ tt.Tensor(w1)) @ tt.Tensor(w2), dim=1).numpy()

    def by_hand():
        hidden = x @ w1
        p = tt.softmax(tt.Tensor(np.maximum(hidden, 0) @ w2), dim=1).numpy()
        g = np.asarray(tt.activations.softmax_backward(p, np.array([[1.0, 0.0]] * 3)))
        return ((g @ w2.T) * np.asarray(tt.activations.relu_slope(hidden))) @ w1.T

    steps = shift * np.eye(12).reshape(12, 3, 4)
    numeric = [(_reference(x + s, w1, w2) - _reference(x - s, w1, w2)) / (2 * shift) for s in steps]
    expect(
        "the softmax of two layers with a relu between them",
        lambda: answer(x),
        _probabilities(x, w1, w2),
        "relu cuts off below 0; softmax makes each row sum to 1.",
        see=SOFTMAX,
    )
    expect(
        "the derivative of its first column, by relu_slope and softmax_backward",
        by_hand,
        np.reshape(numeric, (3, 4)),
        "Backwards through softmax_backward, the second weights, relu_slope, the first weights.",
        see=SOFTMAX,
        tolerance=1e-5,
    )


def _probabilities(x, w1, w2):
    e = np.exp(np.maximum(x @ w1, 0) @ w2)
    return e / e.sum(axis=1, keepdims=True)


def _reference(x, w1, w2):
    return _probabilities(x, w1, w2)[:, 0].sum()


# Integration: what bends are for


def test_integration_two_layers_with_a_bend_compute_xor():
    x, _ = tt.activations.xor_points()
    for name, bend in (("relu", tt.relu), ("sigmoid, of ten times the input", lambda h: tt.sigmoid(h * 10))):

        def answer(bend=bend, name=name):
            hidden = bend(x @ tt.Tensor([[1, 1], [1, 1]]) - tt.Tensor([0, 1] if name == "relu" else [0.5, 1.5]))
            return hidden @ tt.Tensor([[1], [-2 if name == "relu" else -1]])

        expect(
            f"two layers with {name}, of (0, 0), (0, 1), (1, 0) and (1, 1): above 0.4?",
            lambda: (answer() > 0.4).reshape(-1),
            [False, True, True, False],
            (lambda above: above[0], "Nothing bends: without a bend, two layers are one."),
            f"Look at what {name.partition(',')[0]} gives for the numbers -1, 0, 1 and 2.",
            see=HURT,
        )


def test_integration_without_a_bend_two_layers_are_one():
    w1, w2, x = np.cos(np.arange(12.0)).reshape(4, 3), np.sin(np.arange(6.0)).reshape(3, 2), tt.Tensor(X[0])
    expect(
        "(x @ a) @ b and x @ (a @ b), largest difference",
        lambda: ((x @ tt.Tensor(w1)) @ tt.Tensor(w2) - x @ (tt.Tensor(w1) @ tt.Tensor(w2))).abs().max().item(),
        between(0, 1e-10),
        "Products of matrices can be bracketed at will.",
        see=HURT,
    )


def test_integration_a_classifier_learns_by_the_slopes_of_the_chapter():
    """Three heaps of points, one layer, softmax; its gradient by softmax_backward, from the formula of the log."""
    corners, noise = np.array([[2.0, 0], [-1, 2], [-1, -2]]), np.sin(np.arange(60.0)).reshape(30, 2)
    labels = np.arange(30) % 3
    x, truth, weight = corners[labels] + 0.7 * noise, np.eye(3)[labels], np.zeros((2, 3))

    def accuracy():
        nonlocal weight
        for _ in range(40):
            p = tt.softmax(tt.Tensor(x @ weight), dim=1).numpy()
            weight = weight - 0.5 * x.T @ np.asarray(tt.activations.softmax_backward(p, -truth / p)) / len(x)
        return float((tt.softmax(tt.Tensor(x @ weight), dim=1).argmax(1).numpy() == labels).mean())

    expect(
        "the share of 30 points of three heaps that are told apart after 40 steps",
        accuracy,
        1.0,
        (between(0, 0.6), "Nothing is learned: see what softmax_backward gives, and its sign."),
        "softmax_backward points elsewhere than downhill.",
        see=SOFTMAX,
    )


def test_integration_a_signal_through_ten_layers():
    weight = np.cos(np.arange(64.0 * 64)).reshape(64, 64) * math.sqrt(2 / 64) * 1.4

    def spread(bend):
        h = tt.Tensor(np.sin(np.arange(64.0 * 8)).reshape(8, 64))
        for _ in range(10):
            h = bend(h @ tt.Tensor(weight))
        return h.std().item()

    expect(
        "does a signal survive ten layers with relu?",
        lambda: spread(tt.relu) > 1e-4,
        True,
        "On its right side relu hands on what it got, as it is.",
        see=DEEP,
    )
    expect(
        "spread after ten layers with sigmoid",
        lambda: spread(tt.sigmoid),
        between(0, 0.5),
        "Between 0 and 1 nothing spreads further.",
        see=DEEP,
    )


# Performance: what grows, grows as it should


def seconds(call):
    """The time of a call: the least of five."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_bytes(call):
    gc.collect()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["relu", "sigmoid", "gelu", "softmax", "log_softmax"])
def test_performance_grows_with_the_numbers(name):
    options = {"dim": 1} if "softmax" in name else {}
    arrays = 20 if name == "gelu" else 12  # the course's erf takes 10 of them by itself
    few, many = tt.Tensor(np.zeros((100, 100))), tt.Tensor(np.zeros((3200, 100)))

    def call(x):
        return lambda: getattr(tt, name)(x, **options)

    expect(
        f"memory of {name} of 320,000 numbers by their own size",
        lambda: peak_bytes(call(many)) / (320_000 * 8),
        measured_between(0, arrays),
        "A handful of arrays of the size of the input are enough.",
        see=COST,
    )
    expect(
        f"time of {name} of 320,000 numbers by that of 10,000",
        lambda: seconds(call(many)) / seconds(call(few)),
        measured_between(0, 600),  # pairs of numbers would be 1024; large arrays are slower by number, up to 8 times
        "32 times the numbers may take about 32 times as long: is there a loop over pairs?",
        see=COST,
    )


def test_performance_60_calls_leave_nothing_behind():
    x = tt.Tensor(np.sin(np.arange(50_000.0)).reshape(500, 100))

    def calls(count):
        for _ in range(count):
            tt.softmax(tt.gelu(tt.relu(x)), dim=1)
            tt.log_softmax(tt.sigmoid(x), dim=1)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    def left():
        tracemalloc.start()
        try:
            settled = calls(5)
            return (calls(60) - settled) / (50_000 * 8)
        finally:
            tracemalloc.stop()

    expect(
        "what 60 calls leave in memory, by the size of the input",
        left,
        measured_between(-5, 1),
        (lambda ratio: ratio > 1, "Something is kept of each call."),
        see=COST,
    )
