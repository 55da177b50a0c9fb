"""Chapter 04 at work: modules, layers and their gradients by hand, together with tensors and activations.

Weights are set by hand, so that nothing depends on who draws which random number."""

import gc
import math
import time
import tracemalloc

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor.teaching import between, expect, measured_between

MODULE, STATE, LINEAR, ROW, NETWORK = "Module", "Saving and loading", "Linear", "Layers in a row", "A network"
PERCEPTRON, COST = "The perceptron", "The cost"


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def with_fixed_weights(network):
    """The network in float64, its parameters being values of a sine, in the order of their names."""
    network = network.double()
    for number, (_, parameter) in enumerate(sorted(network.named_parameters(), key=lambda pair: pair[0])):
        parameter.data = np.sin(np.arange(parameter.numel()) + 2.0 * number + 1).reshape(parameter.shape)
    return network


def weights_of(*shapes):
    """The same values as arrays."""
    return [np.sin(np.arange(math.prod(s)) + 2.0 * number + 1).reshape(s) for number, s in enumerate(shapes)]


# Imports and instantiation


def test_imports_find_what_the_chapter_promises():
    names = ["Parameter", "Module", "Linear", "Sequential", "ModuleList", "Flatten", "Dropout", "Identity", "ReLU"]
    names += ["LeakyReLU", "ELU", "Sigmoid", "Tanh", "Softplus", "GELU", "SiLU", "Softmax", "LogSoftmax", "affine"]
    names += ["linear", "dropout", "digits_network", "train_perceptron", "Residual", "count_parameters", "freeze"]
    expect(
        "the names that chapter 04 lacks",
        [name for name in names if not (hasattr(tt, name) or hasattr(tt.layers, name))],
        [],
        "A skeleton has all of them: a `def` or a name in `__all__` has been lost.",
        see="Exercises",
    )


def test_imports_give_modules_that_can_be_made_and_shown():
    made = {
        "Linear(3, 2)": lambda: tt.Linear(3, 2),
        "Sequential(Linear(3, 2), ReLU())": lambda: tt.Sequential(tt.Linear(3, 2), tt.ReLU()),
        "ModuleList([Linear(1, 1)])": lambda: tt.ModuleList([tt.Linear(1, 1)]),
        "Dropout(0.1)": lambda: tt.Dropout(0.1),
        "Residual(Linear(2, 2))": lambda: tt.layers.Residual(tt.Linear(2, 2)),
    }
    for name, make in made.items():
        expect(
            f"repr({name}) begins with",
            lambda make=make: repr(make()).partition("(")[0],
            name.partition("(")[0],
            "To be made, a module assigns its parts to itself; to be shown, it lists its parameters.",
            see=MODULE,
        )
    expect(
        "parameters of Linear(3, 2), as printed",
        lambda: "8 parameters" in repr(tt.Linear(3, 2)),
        True,
        "There are 6 weights and 2 biases for named_parameters to find.",
        see=LINEAR,
    )


# Compatibility: shapes, dtypes, and gradients by hand through a network


BENDS = ["ReLU", "LeakyReLU", "ELU", "Sigmoid", "Tanh", "Softplus", "GELU", "SiLU", "Softmax", "LogSoftmax"]


@pytest.mark.parametrize("bend", BENDS)
def test_compatibility_of_layers_with_every_bend(bend):
    for dtype in ("float32", "float64"):
        options = {"dim": -1} if "Softmax" in bend else {}
        network = with_fixed_weights(tt.Sequential(tt.Linear(3, 4), getattr(tt, bend)(**options), tt.Linear(4, 2)))
        x = tt.zeros(5, 2, 3).to(np.dtype(dtype))
        expect(
            f"shape and dtype of Linear, {bend}, Linear of a (5, 2, 3) tensor in {dtype}",
            lambda network=network, dtype=dtype, x=x: ((y := network.to(np.dtype(dtype))(x)).shape, str(y.dtype)),
            ((5, 2, 2), dtype),
            "Only the last dimension changes, and the dtype not at all.",
            see=LINEAR,
        )


def test_compatibility_with_whoever_follows_operations():
    def followed():
        network, derived = tt.Sequential(tt.Linear(3, 4), tt.Tanh(), tt.Dropout(0.5), tt.Linear(4, 2)), [tt.ones(2, 3)]

        def follow(next, primitive, tensors, params):
            result = next(primitive, tensors, params)
            if any(tensor is known for tensor in tensors for known in derived):
                derived.append(result)
            return result

        with tt.interpreting(follow):
            out = network(derived[0])
        return any(out is known for known in derived)

    expect(
        "does whoever listens to operations see how the output comes from the input?",
        followed,
        True,
        "Somewhere an array was taken out of its tensor: from there on, chapter 07 finds no gradient.",
        see=NETWORK,
    )


def test_compatibility_of_gradients_by_hand_with_two_layers():
    network = with_fixed_weights(tt.Sequential(tt.Linear(3, 4), tt.Sigmoid(), tt.Linear(4, 2)))
    b1, w1, b2, w2 = weights_of((4,), (4, 3), (2,), (2, 4))
    x = np.cos(np.arange(15.0)).reshape(5, 3)
    h = 1 / (1 + np.exp(-(x @ w1.T + b1)))
    expect(
        "Linear, Sigmoid, Linear of five rows",
        lambda: network(tt.Tensor(x)),
        h @ w2.T + b2,
        (h, "The second layer did not run."),
        "Each layer gives x W^T + b, and hands it on.",
        see=LINEAR,
    )

    def gradient():
        g = tt.ones(5, 2).double() @ network[2].weight * tt.activations.sigmoid_slope(network[0](tt.Tensor(x)))
        return g.T @ tt.Tensor(x)

    expect(
        "the gradient of the sum of all outputs with respect to the first weight, by sigmoid_slope",
        gradient,
        ((np.ones((5, 2)) @ w2) * h * (1 - h)).T @ x,
        "Backwards through the second weight, sigmoid_slope of what the first layer gave, and the input.",
        see=LINEAR,
    )


def test_compatibility_of_a_state_with_another_network():
    def moved():
        first = with_fixed_weights(tt.Sequential(tt.Linear(3, 4), tt.ReLU(), tt.Linear(4, 2)))
        second = tt.Sequential(tt.Linear(3, 4), tt.ReLU(), tt.Linear(4, 2)).double()
        second.load_state_dict(first.state_dict())
        x = tt.Tensor(np.cos(np.arange(6.0)).reshape(2, 3))
        return (first(x) - second(x)).abs().max().item()

    def nested():
        return tt.Sequential(tt.Sequential(tt.Linear(2, 3)), tt.Linear(3, 1))

    expect(
        "how far a network is from the one whose state it loaded",
        moved,
        0,
        "state_dict has all that a network computes with, and load_state_dict copies all of it.",
        see=STATE,
    )
    expect(
        "parameters of a network in a network, sorted, and how many numbers they hold",
        lambda: (sorted(name for name, _ in nested().named_parameters()), tt.layers.count_parameters(nested())),
        (["0.0.bias", "0.0.weight", "1.bias", "1.weight"], {"0": 9, "1": 4}),
        "Parts have parts: their names are joined by dots, and their parameters count, too.",
        see=MODULE,
    )


# Integration: layers that compute and learn


def heaps():
    """Points of two heaps that a line separates, and their labels +1 and -1."""
    noise = np.sin(np.arange(80.0)).reshape(40, 2)
    labels = np.where(np.arange(40) % 2, 1.0, -1.0)
    return tt.Tensor(noise + labels[:, None] * [1.5, 1.0]), tt.Tensor(labels)


def test_integration_a_perceptron_learns_two_heaps():
    x, labels = heaps()

    def learned():
        layer = tt.Linear(2, 1)
        layer.weight.data, layer.bias.data = tt.Tensor([[-1.0, 1.0]]), tt.Tensor([2.0])
        before = right(layer)
        history = tt.layers.train_perceptron(layer.double(), x, labels, epochs=50)
        return before < 30, history[0] > 0, history[-1], right(layer)

    def right(layer):
        return ((layer.double()(x).squeeze(1) * labels) > 0).sum().item()

    expect(
        "fewer than 30 of 40 right at first; corrections at first; in the last of 50 epochs; points right in the end",
        learned,
        (True, True, 0, 40),
        (lambda found: found[3] < 30, "Nothing is learned: the corrections do not reach the layer, or go astray."),
        "Correct after each example that comes out wrong, weights and bias.",
        see=PERCEPTRON,
    )


def test_integration_a_perceptron_fails_at_xor():
    x, labels = tt.Tensor([[0, 0], [0, 1], [1, 0], [1, 1]]), tt.Tensor([-1, 1, 1, -1])

    def last():
        layer = tt.Linear(2, 1)
        return tt.layers.train_perceptron(layer, x, labels, epochs=50)[-1]

    expect(
        "corrections in epoch 50 on XOR, which no line separates",
        last,
        between(1, 4),
        "Each epoch goes through all four points, and starts to count at 0.",
        see=PERCEPTRON,
    )


def test_integration_two_layers_learn_xor_by_hand():
    x, wanted = tt.activations.xor_points()
    x, wanted = x.double(), wanted.double()
    network = with_fixed_weights(tt.Sequential(tt.Linear(2, 4), tt.Tanh(), tt.Linear(4, 1)))

    def learned():
        w1, b1, w2, b2 = network[0].weight, network[0].bias, network[2].weight, network[2].bias
        for _ in range(400):
            h = tt.tanh(network[0](x))
            g = (tt.sigmoid(network[2](h)) - wanted) / 4
            back = (g @ w2) * (1 - h * h)
            for parameter, gradient in ((w2, g.T @ h), (b2, g.sum(0)), (w1, back.T @ x), (b1, back.sum(0))):
                parameter.data = parameter.data - 1.0 * gradient
        return tt.sigmoid(network(x)).round().reshape(-1)

    expect(
        "what two layers answer to the four points after 400 steps",
        learned,
        [0, 1, 1, 0],
        "What is assigned to a parameter's data is what its layer computes with.",
        see=NETWORK,
    )


def test_integration_dropout_only_while_training():
    network = tt.Sequential(tt.Linear(20, 50), tt.ReLU(), tt.Dropout(0.5), tt.Linear(50, 3))
    x = tt.ones(4, 20)
    expect(
        "do two calls agree: in training, in evaluation?",
        lambda: [bool((network.train(mode)(x) == network(x)).all().item()) for mode in (True, False)],
        [False, True],
        ([True, True], "Nothing is dropped in training."),
        ([False, False], "Something is dropped in eval mode."),
        see="Layers without parameters",
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


def test_performance_grows_with_the_batch():
    layer, few, many = tt.Linear(64, 64), tt.zeros(125, 64), tt.zeros(4000, 64)
    for name, call in (("Linear(64, 64)", layer), ("dropout", tt.dropout)):
        expect(
            f"memory of {name} of 4,000 rows by the size of its result",
            lambda call=call: peak_bytes(lambda: call(many)) / (4000 * 64 * 4),
            measured_between(0, 12),
            "A few arrays of the size of the result are enough.",
            see=COST,
        )
        expect(
            f"time of {name} of 4,000 rows by that of 125",
            lambda call=call: seconds(lambda: call(many)) / seconds(lambda: call(few)),
            measured_between(0, 250),  # pairs of rows would be 1024
            "32 times the rows may take about 32 times as long.",
            see=COST,
        )


def test_performance_listing_parameters_grows_with_their_number():
    def layers(count):
        return tt.Sequential(*(tt.Linear(1, 1) for _ in range(count)))

    few, many = layers(50), layers(1600)
    expect(
        "time to list 3,200 parameters by that of 100",
        lambda: seconds(lambda: list(many.parameters())) / seconds(lambda: list(few.parameters())),
        measured_between(0, 250),  # comparing each with each would be 1024
        "32 times the parameters may take about 32 times as long: remember their ids in a set.",
        see=COST,
    )


def test_performance_60_passes_leave_nothing_behind():
    network = tt.Sequential(tt.Linear(100, 100), tt.ReLU(), tt.Dropout(0.2), tt.Linear(100, 10))
    x = tt.zeros(500, 100)

    def passes(count):
        for _ in range(count):
            network(x)
            network.state_dict()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    def left():
        tracemalloc.start()
        try:
            settled = passes(5)
            return (passes(60) - settled) / (500 * 100 * 4)
        finally:
            tracemalloc.stop()

    expect(
        "what 60 passes leave in memory, by the size of the input",
        left,
        measured_between(-5, 1),
        (lambda ratio: ratio > 1, "Something is kept of each pass."),
        see=COST,
    )
