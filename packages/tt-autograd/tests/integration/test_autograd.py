"""Chapter 07 at work: gradients through everything that came before, training with them, and what it costs.

Weights are set by hand, so that nothing depends on who draws which random number."""

import gc
import math
import time
import tracemalloc

import numpy as np
import pytest

import tt_autograd as ta
import tt_optim as to
import tt_tensor as tt
from tt_tensor.teaching import between, expect, measured_between

TABLE, RECORD, WALK, USER, WITNESS = "The table", "The record", "Walking back", "What the user sees", "The witness"
COST = "The cost"
X = np.cos(np.arange(12.0)).reshape(4, 3)
LABELS = [2, 0, 1, 1]


def with_fixed_weights(network):
    """The network in float64, its parameters being values of a sine."""
    network = network.double()
    for number, parameter in enumerate(network.parameters()):
        parameter.data = np.sin(np.arange(parameter.numel()) + 2.0 * number + 1).reshape(parameter.shape)
    return network


# Imports and instantiation


def test_imports_find_what_the_chapter_promises():
    names = ["RULES", "NO_GRADIENT", "rule", "record", "Traced", "no_grad", "enable_grad", "is_grad_enabled", "grad"]
    names += [
        "backward",
        "check_gradients",
        "detect_anomaly",
        "graph",
        "jacobian",
        "hessian_vector_product",
        "softsign",
    ]
    expect(
        "the names that chapter 07 lacks",
        [name for name in names if not (hasattr(ta, name) or hasattr(ta.autograd, name))],
        [],
        see="Exercises",
    )


def test_imports_make_every_result_remember():
    expect(
        "does Tensor([1.0], requires_grad=True) * 2 require a gradient?",
        lambda: (tt.Tensor([1.0], requires_grad=True) * 2).requires_grad,
        True,
        "`install(record)` stands in the chapter: leave it there.",
        see=RECORD,
    )
    expect("is recording on?", ta.is_grad_enabled, True, see="Switching it off")


# Compatibility: gradients flow through every chapter so far


BENDS = ["relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus", "gelu", "silu"]


@pytest.mark.parametrize("bend", BENDS)
def test_compatibility_with_every_bend(bend):
    points = np.array([-2.0, -0.5, 0.3, 4.0])
    step = 1e-6

    def gradient():
        x = tt.Tensor(points, requires_grad=True)
        getattr(tt, bend)(x).sum().backward()
        return x.grad

    reference = {
        "relu": lambda x: np.maximum(x, 0),
        "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
        "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "tanh": np.tanh,
        "softplus": lambda x: np.log(1 + np.exp(x)),
        "gelu": lambda x: x * np.array([1 + math.erf(v / math.sqrt(2)) for v in x]) / 2,
        "silu": lambda x: x / (1 + np.exp(-x)),
    }[bend]
    expect(
        f"gradient of the sum of {bend} of {points.tolist()}",
        gradient,
        (reference(points + step) - reference(points - step)) / (2 * step),
        see=TABLE,
        tolerance=1e-5,
    )


LOSSES = {
    "cross_entropy": lambda z: tt.cross_entropy(z, tt.tensor(LABELS)),
    "mse_loss": lambda z: tt.mse_loss(z, tt.Tensor(np.sin(np.arange(12.0)).reshape(4, 3))),
    "binary_cross_entropy_with_logits": lambda z: tt.binary_cross_entropy_with_logits(z, tt.Tensor(np.ones((4, 3)))),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_compatibility_with_layers_and_losses(loss):
    network = with_fixed_weights(tt.Sequential(tt.Linear(3, 4), tt.Tanh(), tt.Linear(4, 3)))

    def agreement():
        network.zero_grad()
        LOSSES[loss](network(tt.Tensor(X))).backward()
        with ta.no_grad():
            return max(
                tt.losses.relative_error(
                    p.grad.numpy(), tt.losses.slope(lambda: LOSSES[loss](network(tt.Tensor(X))), p)
                )
                for p in network.parameters()
            )

    expect(
        f"largest error of the gradients of {loss} of Linear, Tanh, Linear, against finite differences",
        agreement,
        between(0, 1e-6),
        (AttributeError, "A parameter has no gradient: its share did not arrive."),
        "The rules of some operation on the way are wrong.",
        see=WITNESS,
    )


def test_compatibility_with_views_and_indices():
    x = np.arange(24.0).reshape(2, 3, 4)

    def gradient():
        leaf = tt.Tensor(x, requires_grad=True)
        y = leaf.permute(2, 0, 1).reshape(4, 6)[1:3, ::2]
        (y * y).sum().backward()
        return leaf.grad

    mask = np.zeros((4, 6))
    mask[1:3, ::2] = 1
    expect(
        "gradient through permute, reshape and a slice, of the sum of squares",
        gradient,
        2 * x * mask.reshape(4, 2, 3).transpose(1, 2, 0),
        "Views pass numbers on, so their rules undo them.",
        see=TABLE,
    )


def test_compatibility_with_optimizers():
    def parameters(make):
        network = with_fixed_weights(tt.Sequential(tt.Linear(3, 4), tt.Tanh(), tt.Linear(4, 3)))
        optimizer, losses = make(network.parameters()), []
        for _ in range(5):
            optimizer.zero_grad()
            loss = tt.cross_entropy(network(tt.Tensor(X)), tt.tensor(LABELS))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses[-1] < losses[0]

    for name, make in (("SGD", lambda p: to.SGD(p, lr=0.1)), ("Adam", lambda p: to.Adam(p, lr=0.01))):
        expect(f"does the loss fall in 5 steps of {name}?", lambda make=make: parameters(make), True, see=USER)


# Integration: it trains


def test_integration_xor_by_autograd():
    x, wanted = tt.activations.xor_points()
    x, wanted = x.double(), wanted.double()
    network = with_fixed_weights(tt.losses.xor_network())

    def learned():
        optimizer = to.SGD(network.parameters(), lr=1.0, momentum=0.9)
        for _ in range(150):
            optimizer.zero_grad()
            tt.binary_cross_entropy_with_logits(network(x), wanted).backward()
            optimizer.step()
        return tt.sigmoid(network(x).detach()).round().reshape(-1)

    expect("what two layers answer to the four points after 150 steps", learned, [0, 1, 1, 0], see="What hurts next")


def test_integration_newton_by_second_derivatives():
    def minimum():
        x = tt.Tensor(np.array(3.0), requires_grad=True)
        for _ in range(8):
            (first,) = ta.grad(x**4 - 8 * x**2, x, create_graph=True)
            (second,) = ta.grad(first, x)
            x = (x - first / second).detach().requires_grad_()
        return x.item()

    expect("the minimum of x^4 - 8 x^2 that Newton's method finds from 3", minimum, 2, see=USER)


def test_integration_a_network_learns_a_curve():
    x = np.linspace(-1, 1, 32)[:, None]
    network = with_fixed_weights(tt.Sequential(tt.Linear(1, 8), tt.Tanh(), tt.Linear(8, 1)))

    def error():
        optimizer = to.Adam(network.parameters(), lr=0.1)
        for _ in range(300):
            optimizer.zero_grad()
            loss = tt.mse_loss(network(tt.Tensor(x)), tt.Tensor(np.sin(2 * x)))
            loss.backward()
            optimizer.step()
        return loss.item()

    expect("mean squared error after 300 steps on sin(2 x)", error, between(0, 0.01), see=USER)


# Performance: what grows, grows as it should


def chain(length):
    x = tt.Tensor(np.ones(10), requires_grad=True)
    y = x
    for _ in range(length):
        y = y * 1.0001
    y.sum().backward()


def seconds(call, times=1):
    """The time of so many calls: the least of three. What is compared is to take equally long, or a busy machine
    interrupts one more often than the other."""
    measured = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(times):
            call()
        measured.append(time.perf_counter() - start)
    return min(measured)


def test_performance_the_walk_grows_with_the_operations():
    expect(
        "time of a chain of 4,000 operations by that of 16 chains of 250",
        lambda: seconds(lambda: chain(4000)) / seconds(lambda: chain(250), 16),
        measured_between(0, 4),
        "As many operations may take about as long in one chain as in many: is a list searched at each?",
        see=COST,
    )


def test_performance_diamonds_are_walked_once():
    def diamonds(count):
        y = tt.Tensor(np.ones(10), requires_grad=True)
        for _ in range(count):
            y = y * 0.5 + y * 0.5
        y.sum().backward()

    expect(
        "time of 12 diamonds by that of two times 6",
        lambda: seconds(lambda: diamonds(12), 10) / seconds(lambda: diamonds(6), 20),
        measured_between(0, 8),
        "There are 2^12 paths through 12 diamonds: pass each node once.",
        see=WALK,
    )


def test_performance_60_steps_leave_nothing_behind():
    network = with_fixed_weights(tt.Sequential(tt.Linear(50, 50), tt.Tanh(), tt.Linear(50, 10)))
    x, target = tt.Tensor(np.zeros((400, 50))), tt.Tensor(np.zeros((400, 10)))

    def held(steps):
        for _ in range(steps):
            network.zero_grad()
            tt.mse_loss(network(x), target).backward()
        return tracemalloc.get_traced_memory()[0]

    def left():
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            settled = held(5)
            return (held(60) - settled) / (400 * 50 * 8)
        finally:
            tracemalloc.stop()
            gc.enable()

    expect(
        "what 60 steps leave in memory, with the garbage collector off, by the size of one activation",
        left,
        measured_between(-20, 5),
        (lambda ratio: ratio > 5, "Each step leaves its record behind: is there a list or a cycle that holds nodes?"),
        see=COST,
    )
