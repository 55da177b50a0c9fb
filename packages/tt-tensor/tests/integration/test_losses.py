"""Chapter 05 at work: losses, the referee and descent, together with the tensors, activations and layers before them.

Weights are set by hand, so that what comes out does not depend on who draws which random number."""

import gc
import math
import time
import tracemalloc

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor.teaching import between, expect, measured_between

CROSS_ENTROPY, MODULES = "Cross-entropy", "As modules"
REFEREE, LEARNING, COST = "The referee: slopes without thinking", "Learning, at last", "The cost"
X = np.cos(np.arange(12.0)).reshape(4, 3)
LABELS, TARGET = [2, 0, 1, 1], np.sin(np.arange(12.0) + 0.5).reshape(4, 3)


def with_fixed_weights(network):
    """The network in float64, its parameters being values of a sine."""
    network = network.double()
    for number, parameter in enumerate(network.parameters()):
        parameter.data = np.sin(np.arange(parameter.numel()) + 2.0 * number + 1).reshape(parameter.shape)
    return network


def weights_of(*shapes):
    """The same values as arrays."""
    return [np.sin(np.arange(math.prod(s)) + 2.0 * number + 1).reshape(s) for number, s in enumerate(shapes)]


def softmax(z):
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


# Imports and instantiation


def test_imports_find_what_the_chapter_promises():
    names = ["mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "nll_loss", "cross_entropy", "binary_cross_entropy"]
    names += ["binary_cross_entropy_with_logits", "kl_div", "slope", "cross_entropy_gradient", "mse_gradient"]
    names += ["descend", "xor_network", "loss_case", "perplexity", "hinge_loss", "relative_error", "nll_of_rows"]
    expect(
        "the names that chapter 05 lacks",
        [name for name in names if not (hasattr(tt, name) or hasattr(tt.losses, name))],
        [],
        see="Exercises",
    )


def test_imports_give_modules_that_can_be_made():
    names = ["MSELoss", "L1Loss", "HuberLoss", "SmoothL1Loss", "NLLLoss", "KLDivLoss", "CrossEntropyLoss", "BCELoss"]
    expect(
        'the names of the classes of MSELoss(reduction="sum") and its like, which are modules',
        lambda: [
            type(loss).__name__ for name in names if isinstance(loss := getattr(tt, name)(reduction="sum"), tt.Module)
        ],
        names,
        see=MODULES,
    )
    expect(
        "how many numbers xor_network() learns",
        lambda: tt.losses.sum_of_parameters(tt.losses.xor_network()),
        17,
        see=LEARNING,
    )


# Compatibility: shapes, dtypes and slopes, through layers and activations


LOSSES = {
    "mse_loss": lambda z, target, labels: tt.mse_loss(z, target),
    "nll_loss of log_softmax": lambda z, target, labels: tt.nll_loss(tt.log_softmax(z, dim=1), labels),
    "cross_entropy": lambda z, target, labels: tt.cross_entropy(z, labels),
    "binary_cross_entropy_with_logits": lambda z, target, labels: tt.binary_cross_entropy_with_logits(z, target.abs()),
    "hinge_loss": lambda z, target, labels: tt.losses.hinge_loss(z, target.sign()),
}


@pytest.mark.parametrize("name", LOSSES)
def test_compatibility_of_every_loss_with_a_network(name):
    for dtype in ("float32", "float64"):
        network = with_fixed_weights(tt.Sequential(tt.Linear(3, 4), tt.Tanh(), tt.Linear(4, 3))).to(np.dtype(dtype))
        x, target = tt.Tensor(X).to(np.dtype(dtype)), tt.Tensor(TARGET).to(np.dtype(dtype))

        def shape_and_dtype(network=network, x=x, target=target):
            loss = LOSSES[name](network(x), target, tt.tensor(LABELS))
            return loss.shape, str(loss.dtype)

        expect(
            f"shape and dtype of {name} of a network in {dtype}",
            shape_and_dtype,
            ((), dtype),
            (((), "float64"), "Something in between is an array or a tensor in float64, though the answers are not."),
            "A loss is a tensor without dimensions, in the dtype of the answers.",
            see="Distances",
        )


@pytest.mark.parametrize("name", LOSSES)
def test_compatibility_of_every_loss_with_what_follows_operations(name):
    def followed():
        derived = [z := tt.Tensor(X)]

        def follow(next, primitive, tensors, params):
            result = next(primitive, tensors, params)
            if any(tensor is known for tensor in tensors for known in derived):
                derived.append(result)
            return result

        with tt.interpreting(follow):
            loss = LOSSES[name](z, tt.Tensor(TARGET), tt.tensor(LABELS))
        return any(loss is known for known in derived)

    expect(
        f"does whoever listens to operations see how {name} comes from the answers?",
        followed,
        True,
        "The answers were taken out of their tensor as an array: from there on, chapter 07 finds no gradient.",
        see=CROSS_ENTROPY,
    )


def test_compatibility_of_losses_with_one_another():
    z = tt.Tensor(X)
    p = softmax(X)
    surprises = -np.log(p[np.arange(4), LABELS])
    expect(
        "cross_entropy of logits, nll_loss of their log_softmax, and log of their perplexity",
        lambda: [
            tt.cross_entropy(z, tt.tensor(LABELS)).item(),
            tt.nll_loss(tt.log_softmax(z, dim=1), tt.tensor(LABELS)).item(),
            math.log(tt.perplexity(z, tt.tensor(LABELS))),
        ],
        [surprises.mean()] * 3,
        see=CROSS_ENTROPY,
    )
    expect(
        "cross_entropy at labels, and at their one-hot probabilities",
        lambda: [
            tt.cross_entropy(z, tt.tensor(LABELS)).item(),
            tt.cross_entropy(z, tt.one_hot(tt.tensor(LABELS), 3).double()).item(),
        ],
        [surprises.mean()] * 2,
        see=CROSS_ENTROPY,
    )
    expect(
        "binary_cross_entropy_with_logits(x, t) and cross_entropy of the logits (0, x) at t, for x = 0.7 and t = 1",
        lambda: [
            tt.binary_cross_entropy_with_logits(tt.Tensor([0.7]), tt.Tensor([1])).item(),
            tt.cross_entropy(tt.Tensor([[0, 0.7]]), tt.tensor([1])).item(),
        ],
        [math.log(1 + math.exp(-0.7))] * 2,
        see="Yes or no",
    )


def test_compatibility_of_a_gradient_by_hand_with_a_layer():
    layer, x = with_fixed_weights(tt.Linear(3, 3)), tt.Tensor(X)
    weight, bias = weights_of((3, 3), (3,))
    believed = softmax(X @ weight.T + bias)
    for name, of_output, by_hand, loss in (
        (
            "cross_entropy",
            (believed - np.eye(3)[LABELS]) / 4,
            lambda: tt.losses.cross_entropy_gradient(layer(x), tt.tensor(LABELS)),
            lambda: tt.cross_entropy(layer(x), tt.tensor(LABELS)),
        ),
        (
            "mse_loss",
            2 * (X @ weight.T + bias - TARGET) / 12,
            lambda: tt.losses.mse_gradient(layer(x), tt.Tensor(TARGET)),
            lambda: tt.mse_loss(layer(x), tt.Tensor(TARGET)),
        ),
    ):
        expect(
            f"g.T @ x, for the gradient g of {name} by hand: the gradient of the layer's weight",
            lambda by_hand=by_hand: by_hand().T @ x,
            of_output.T @ X,
            see="What hurts next",
        )
        expect(
            f"slope of {name} with respect to the layer's weight",
            lambda loss=loss: tt.losses.slope(loss, layer.weight),
            of_output.T @ X,
            see=REFEREE,
        )
        expect(
            f"do slope and gradient by hand of {name} agree, by relative_error?",
            lambda loss=loss, by_hand=by_hand: tt.losses.relative_error(
                tt.losses.slope(loss, layer.bias), by_hand().sum(0).numpy()
            ),
            between(0, 1e-6),
            see=REFEREE,
        )


def test_compatibility_of_the_referee_with_two_layers():
    network = with_fixed_weights(tt.Sequential(tt.Linear(3, 4), tt.Tanh(), tt.Linear(4, 3)))
    w1, b1, w2, b2 = weights_of((4, 3), (4,), (3, 4), (3,))
    h = np.tanh(X @ w1.T + b1)
    g_z = (softmax(h @ w2.T + b2) - np.eye(3)[LABELS]) / 4
    g_a = (g_z @ w2) * (1 - h * h)
    wanted = {"0.weight": g_a.T @ X, "0.bias": g_a.sum(0), "2.weight": g_z.T @ h, "2.bias": g_z.sum(0)}
    parameters = dict(network.named_parameters())
    for name, gradient in wanted.items():
        expect(
            f"slope of the cross-entropy of Linear, Tanh, Linear with respect to {name}",
            lambda p=parameters[name]: tt.losses.slope(
                lambda: tt.cross_entropy(network(tt.Tensor(X)), tt.tensor(LABELS)), p
            ),
            gradient,
            see=REFEREE,
        )


# Integration: descent with the referee learns


def test_integration_descend_fits_a_line():
    x = np.linspace(-1, 1, 9)[:, None]
    layer = with_fixed_weights(tt.Linear(1, 1))

    def learned():
        tt.losses.descend(layer, lambda: tt.mse_loss(layer(tt.Tensor(x)), tt.Tensor(2 * x - 1)), rate=0.4, steps=60)
        return [layer.weight.item(), layer.bias.item()]

    expect("weight and bias after 60 steps, for points on y = 2 x - 1", learned, [2, -1], see=LEARNING, tolerance=1e-3)


def test_integration_descend_sorts_three_heaps():
    corners, noise = np.array([[2.0, 0], [-1, 2], [-1, -2]]), np.sin(np.arange(60.0)).reshape(30, 2)
    labels = np.arange(30) % 3
    x, layer = tt.Tensor(corners[labels] + 0.7 * noise), tt.Linear(2, 3).double()
    layer.weight.zero_()
    layer.bias.zero_()
    history = []

    def learned():
        history.extend(
            tt.losses.descend(layer, lambda: tt.cross_entropy(layer(x), tt.tensor(labels)), rate=1.0, steps=60)
        )
        return tt.losses.accuracy_of(layer(x), tt.tensor(labels))

    expect("the share of 30 points of three heaps that one layer gets right after 60 steps", learned, 1, see=LEARNING)
    expect(
        "the loss before the first step, of a layer whose weights are zero",
        lambda: history[0],
        math.log(3),
        "Ignorance among three classes costs ln 3.",
        see="Reading a loss",
    )
    expect("the loss before the last step", lambda: history[-1], between(0, 0.1), see=LEARNING)


def test_integration_descend_learns_xor():
    x, wanted = tt.activations.xor_points()
    x, wanted = x.double(), wanted.double()
    network = with_fixed_weights(tt.losses.xor_network())

    def learned():
        tt.losses.descend(network, lambda: tt.binary_cross_entropy_with_logits(network(x), wanted), rate=1.0, steps=150)
        return tt.sigmoid(network(x)).round().reshape(-1)

    expect(
        "what two layers answer to (0, 0), (0, 1), (1, 0) and (1, 1) after 150 steps",
        learned,
        [0, 1, 1, 0],
        "Are all parameters changed, those of the first layer, too?",
        see=LEARNING,
    )


# Performance: what grows, grows as it should


def batch(rows):
    z = np.sin(np.arange(rows * 10.0)).reshape(rows, 10)
    return tt.Tensor(z), tt.tensor(np.arange(rows) % 10)


def peak_bytes(call):
    """How many bytes a call holds at most, beyond what was there before."""
    gc.collect()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def time_ratio(call, by):
    """The time of a call by that of another: the least of 20 each, taken in turns, so that both meet the same load."""
    least = [math.inf, math.inf]
    for _ in range(20):
        for which, job in enumerate((call, by)):
            start = time.perf_counter()
            job()
            least[which] = min(least[which], time.perf_counter() - start)
    return least[0] / least[1]


def test_performance_cross_entropy_grows_with_the_rows_and_not_with_their_square():
    few, many = batch(400), batch(3200)
    pairs = "It grows with the square of the rows: is a table of (N, N) made? Pick one number in each row."
    for name in ("cross_entropy", "nll_loss"):
        loss = getattr(tt, name)
        expect(
            f"memory of {name} of 3,200 rows by that of 400 rows",
            lambda loss=loss: peak_bytes(lambda: loss(*many)) / peak_bytes(lambda: loss(*few)),
            measured_between(0, 16),
            (lambda ratio: ratio > 16, pairs),
            see=CROSS_ENTROPY,
        )
        expect(
            f"time of {name} of 3,200 rows by that of 400 rows",
            lambda loss=loss: time_ratio(lambda: loss(*many), by=lambda: loss(*few)),
            measured_between(0, 30),
            (lambda ratio: ratio > 30, pairs),
            see=CROSS_ENTROPY,
        )


def test_performance_the_referee_asks_in_proportion():
    def calls(size):
        x, count = tt.Tensor(np.ones(size)), [0]

        def loss():
            count[0] += 1
            return (x * x).sum()

        tt.losses.slope(loss, x)
        return count[0]

    expect(
        "how often slope asks for the loss of 40 numbers, by how often it asks for that of 20",
        lambda: calls(40) / calls(20),
        between(1.8, 2.2),
        "The price of each number is two passes, whatever the size of the rest.",
        see=COST,
    )


def test_performance_60_steps_of_descent_leave_nothing_behind():
    x, layer = tt.Tensor(np.sin(np.arange(80_000.0)).reshape(20_000, 4)), with_fixed_weights(tt.Linear(4, 1))

    def held(steps):
        tt.losses.descend(layer, lambda: tt.mse_loss(layer(x), tt.zeros(20_000, 1).double()), rate=0.01, steps=steps)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    def left():
        tracemalloc.start()
        try:
            settled = held(10)
            return (held(60) - settled) / (20_000 * 8)
        finally:
            tracemalloc.stop()

    expect(
        "what 60 steps of descent on 20,000 points leave in memory, by the size of the answers of one pass",
        left,
        measured_between(-10, 2),
        (lambda ratio: ratio > 2, "Something is kept for each pass: only the losses, as numbers, go into the history."),
        see=LEARNING,
    )
