"""Chapter 06 at work: optimizers with gradients by hand, together with tensors, layers, losses and the referee.

Weights are set by hand, so that what comes out does not depend on who draws which random number."""

import gc
import math
import time
import tracemalloc
from functools import partial

import numpy as np
import pytest

import tt_optim as to
import tt_tensor as tt
from tt_tensor.teaching import between, expect, measured_between

REMEMBER, STEP, ADAM, PATHS = "The idea: remember", "The optimizer", "Adam", "Paths"
CLIPPING, XOR, COST, EXERCISES = "Clipping", "XOR, with gradients by hand", "The cost", "Exercises"

OPTIMIZERS = {
    "SGD": lambda p: to.SGD(p, lr=0.5),
    "SGD with momentum": lambda p: to.SGD(p, lr=0.3, momentum=0.9),
    "RMSprop": lambda p: to.RMSprop(p, lr=0.02),
    "Adam": lambda p: to.Adam(p, lr=0.05),
    "AdamW": lambda p: to.AdamW(p, lr=0.05),
    "Lion": lambda p: to.Lion(p, lr=0.02),
}


def with_fixed_weights(network):
    """The network in float64, its parameters being values of a sine."""
    network = network.double()
    for number, parameter in enumerate(network.parameters()):
        parameter.data = np.sin(np.arange(parameter.numel()) + 2.0 * number + 1).reshape(parameter.shape)
    return network


def weights_of(*shapes):
    """The same values as arrays."""
    return [np.sin(np.arange(math.prod(s)) + 2.0 * number + 1).reshape(s) for number, s in enumerate(shapes)]


# Imports and instantiation


def test_imports_find_what_the_chapter_promises():
    names = ["Optimizer", "SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "Lion", "adam_update", "clip_grad_norm_"]
    names += ["clip_grad_value_", "gradient_norm", "average_weights", "xor_case", "xor_gradients_by_hand"]
    names += ["train_xor_by_hand", "rosenbrock", "walk", "StepLR", "CosineAnnealingLR", "OneCycleLR"]
    expect(
        "the names that chapter 06 lacks",
        [name for name in names if not (hasattr(to, name) or hasattr(to.optimizers, name))],
        [],
        see=STEP,
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_imports_give_optimizers_that_can_be_made_and_shown(name):
    network = tt.Sequential(tt.Linear(3, 4), tt.Tanh(), tt.Linear(4, 2))

    def shown():
        optimizer = OPTIMIZERS[name](network.parameters())
        return isinstance(optimizer, to.Optimizer), len(optimizer.param_groups[0]["params"]), "lr: " in repr(optimizer)

    expect(
        f"{name}(network.parameters()): is it an Optimizer, of how many parameters, and does its repr tell the rate?",
        shown,
        (True, 4, True),
        see=STEP,
    )


# Compatibility: gradients by hand flow into steps


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_compatibility_of_a_step_with_shapes_and_dtypes(name):
    for dtype in ("float32", "float64"):
        network = tt.Sequential(tt.Linear(3, 4), tt.Tanh(), tt.Linear(4, 2)).to(np.dtype(dtype))

        def after_two_steps(network=network, dtype=dtype):
            optimizer, before = OPTIMIZERS[name](network.parameters()), [p.numpy().copy() for p in network.parameters()]
            for _ in range(2):
                for p in network.parameters():
                    p.grad = tt.ones(*p.shape, dtype=np.dtype(dtype))
                optimizer.step()
            parameters = list(network.parameters())
            return (
                [(p.shape, str(p.dtype)) for p in parameters],
                all(bool((p.numpy() < old).all()) for p, old in zip(parameters, before)),
            )

        expect(
            f"two steps of {name} with gradients of 1 in {dtype}: shapes and dtypes of the weights; are all smaller?",
            after_two_steps,
            ([(shape, dtype) for shape in ((4, 3), (4,), (2, 4), (2,))], True),
            "A step changes numbers, and neither shapes nor dtypes.",
            see=STEP,
        )


def test_compatibility_of_a_step_with_a_gradient_by_hand():
    layer, x = with_fixed_weights(tt.Linear(3, 2)), np.cos(np.arange(12.0)).reshape(4, 3)
    labels = [0, 1, 1, 0]
    weight, bias = weights_of((2, 3), (2,))
    z = x @ weight.T + bias
    g = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) - np.eye(2)[labels]) / 4

    def stepped():
        of_logits = tt.losses.cross_entropy_gradient(layer(tt.Tensor(x)), tt.tensor(labels))
        layer.weight.grad, layer.bias.grad = of_logits.T @ tt.Tensor(x), of_logits.sum(0)
        to.SGD(layer.parameters(), lr=0.5).step()
        return layer.weight, layer.bias

    expect(
        "weight and bias of a Linear after SGD(lr=0.5).step(), gradients by cross_entropy_gradient",
        stepped,
        (weight - 0.5 * g.T @ x, bias - 0.5 * g.sum(0)),
        see=STEP,
    )


def test_compatibility_of_a_step_with_who_remembers_old_weights():
    p = tt.Parameter([1.0, 2.0])

    def noticed():
        p.grad = tt.ones(2)
        before = tt.last_write(p)
        to.SGD([p], lr=0.1).step()
        return bool(tt.last_write(p) > before)

    expect(
        "does the clock of chapter 02 tick when a step writes into a parameter?",
        noticed,
        True,
        "Ask for the array that is to be changed with `writable()`; chapter 07 has to notice.",
        see=STEP,
    )


def test_compatibility_of_zero_grad_with_a_network():
    network = tt.Sequential(tt.Linear(3, 4), tt.Tanh(), tt.Linear(4, 2))

    def forgotten():
        for p in network.parameters():
            p.grad = tt.ones(*p.shape)
        to.Adam(network.parameters()).zero_grad()
        return [p.grad is None for p in network.parameters()]

    expect("zero_grad(): are the gradients of the network's parameters None?", forgotten, [True] * 4, see=STEP)


def test_compatibility_of_clipping_with_measuring():
    network, x, wanted = to.optimizers.xor_case()

    def lengths():
        to.optimizers.xor_gradients_by_hand(network, x, wanted)
        measured = to.gradient_norm(network.parameters())
        before = float(to.clip_grad_norm_(network.parameters(), 0.01))
        return [bool(abs(before - measured) < 1e-6), to.gradient_norm(network.parameters())]

    expect(
        "are gradient_norm and what clip_grad_norm_(0.01) returns the same, and what is gradient_norm then?",
        lengths,
        [True, 0.01],
        "Both are the common length of all gradients.",
        see=CLIPPING,
        tolerance=1e-3,
    )


def test_compatibility_of_averages_with_networks():
    first, second = with_fixed_weights(tt.Linear(3, 2)), tt.Linear(3, 2).double()

    def averaged():
        second.load_state_dict(first.state_dict())
        second.weight.data = 3 * first.weight.numpy()
        second.load_state_dict(to.optimizers.average_weights([first.state_dict(), second.state_dict()]))
        return second.weight, second.bias

    weight, bias = weights_of((2, 3), (2,))
    expect("the average of a Linear and one with three times its weight", averaged, (2 * weight, bias), see=EXERCISES)


def test_compatibility_of_gradients_by_hand_with_the_referee():
    network, x, wanted = to.optimizers.xor_case()

    def apart():
        to.optimizers.xor_gradients_by_hand(network, x, wanted)
        slopes = [
            tt.losses.slope(lambda: tt.binary_cross_entropy_with_logits(network(x), wanted), p)
            for p in network.parameters()
        ]
        return max(tt.losses.relative_error(p.grad.numpy(), slope) for p, slope in zip(network.parameters(), slopes))

    expect(
        "the largest relative error of xor_gradients_by_hand, judged by slope",
        apart,
        between(0, 1e-6),
        "A term of the chain rule is missing, or has the wrong sign.",
        see=XOR,
    )


def test_compatibility_of_schedules_with_steps():
    p = tt.Parameter(np.array([0.0]))

    def path():
        optimizer = to.SGD([p], lr=1.0)
        schedule, result = to.StepLR(optimizer, 2, gamma=0.1), []
        for _ in range(4):
            p.grad = tt.Tensor(np.array([1.0]))
            optimizer.step()
            schedule.step()
            result.append(p.item())
        return result

    expect(
        "a weight after each of four steps with gradient 1, the rate being 1, 1, 0.1, 0.1",
        path,
        [-1, -2, -2.1, -2.2],
        ([-1, -2, -3, -4], "The schedule has no effect: ask the group for its rate in each step."),
        see=STEP,
    )


# Integration: networks learn


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_integration_xor_is_learned_with_gradients_by_hand(name):
    network, x, wanted = to.optimizers.xor_case()
    losses = []

    def learned():
        optimizer = OPTIMIZERS[name](network.parameters())
        for _ in range(300):
            losses.append(to.optimizers.xor_gradients_by_hand(network, x, wanted))
            optimizer.step()
            optimizer.zero_grad()
        return tt.sigmoid(network(x)).round().reshape(-1)

    expect(
        f"what a network answers to (0, 0), (0, 1), (1, 0) and (1, 1) after 300 steps of {name}",
        learned,
        [0, 1, 1, 0],
        "Gradients by hand, a step, zero_grad: one of the three does not do its part.",
        see=XOR,
    )
    expect("its loss before the last step", lambda: losses[-1], between(0, 0.1), see=XOR)


def test_integration_xor_is_learned_from_chance():
    def best():
        last = []
        for seed in range(3):
            tt.manual_seed(seed)
            last.append(to.optimizers.train_xor_by_hand(lambda p: to.Adam(p, lr=0.05), steps=300)[1][-1])
        return min(last)

    expect("the best of three losses of train_xor_by_hand with Adam, 300 steps", best, between(0, 0.05), see=XOR)


def test_integration_three_heaps_are_sorted_batch_by_batch():
    corners, noise = np.array([[2.0, 0], [-1, 2], [-1, -2]]), np.sin(np.arange(120.0)).reshape(60, 2)
    labels = np.arange(60) % 3
    points, layer = corners[labels] + 0.7 * noise, with_fixed_weights(tt.Linear(2, 3))
    states = []

    def learned():
        optimizer = to.Adam(layer.parameters(), lr=0.1)
        for step in range(60):
            batch = np.arange(12) + 12 * (step % 5)
            x, target = tt.Tensor(points[batch]), tt.tensor(labels[batch])
            g = tt.losses.cross_entropy_gradient(layer(x), target)
            layer.weight.grad, layer.bias.grad = g.T @ x, g.sum(0)
            to.clip_grad_norm_(layer.parameters(), 1.0)
            optimizer.step()
            states.append({name: value.clone() for name, value in layer.state_dict().items()})
        return tt.losses.accuracy_of(layer(tt.Tensor(points)), tt.tensor(labels))

    def average():
        layer.load_state_dict(to.optimizers.average_weights(states[-10:]))
        return tt.losses.accuracy_of(layer(tt.Tensor(points)), tt.tensor(labels))

    expect("the share of 60 points in three heaps that Adam gets right after 60 steps", learned, 1, see=ADAM)
    expect("the same with the average weights of the last ten steps", average, 1, see=EXERCISES)


def walked(momentum):
    """How high descent with momentum stands on Rosenbrock's function after 200 steps, computed with plain numbers."""
    x, y, vx, vy = -1.2, 1.0, 0.0, 0.0
    for _ in range(200):
        vx = momentum * vx - 2 * (1 - x) - 400 * x * (y - x * x)
        vy = momentum * vy + 200 * (y - x * x)
        x, y = x - 1e-3 * vx, y - 1e-3 * vy
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


def test_integration_momentum_walks_further_in_a_curved_valley():
    for momentum in (0.0, 0.9):
        expect(
            f"how high SGD(lr=1e-3, momentum={momentum}) stands in Rosenbrock's valley after 200 steps, from 24.2",
            lambda make=partial(to.SGD, lr=1e-3, momentum=momentum): float(
                to.optimizers.rosenbrock(*to.optimizers.walk(make)[-1])
            ),
            walked(momentum),
            (walked(0.0), "The momentum has no effect."),
            see=PATHS,
        )


# Performance: what grows, grows as it should


def ready(name, *sizes):
    """An optimizer that has made its first step, for parameters of these sizes."""
    parameters = [tt.Parameter(np.ones(size)) for size in sizes]
    for p in parameters:
        p.grad = tt.Tensor(np.full(p.shape, 0.5))
    optimizer = OPTIMIZERS[name](parameters)
    optimizer.step()
    return optimizer


def time_ratio(call, by):
    """The time of a call by that of another: the least of 20 each, taken in turns, so that both meet the same load."""
    least = [math.inf, math.inf]
    for _ in range(20):
        for which, job in enumerate((call, by)):
            start = time.perf_counter()
            job()
            least[which] = min(least[which], time.perf_counter() - start)
    return least[0] / least[1]


def traced(call):
    """The bytes that a call leaves behind, and those that it holds at most."""
    gc.collect()
    tracemalloc.start()
    try:
        call()
        gc.collect()
        return tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_performance_a_step_grows_with_what_it_changes(name):
    expect(
        f"time of a step of {name} for 8,000 numbers by that for 1,000",
        lambda: time_ratio(ready(name, 8_000).step, by=ready(name, 1_000).step),
        measured_between(0, 30),
        "Each number is changed once.",
        see=COST,
    )
    expect(
        f"time of a step of {name} for 240 parameters by that for 30",
        lambda: time_ratio(ready(name, *[10] * 240).step, by=ready(name, *[10] * 30).step),
        measured_between(0, 30),
        "Each parameter is changed once: is there a loop over all of them within a loop over all of them?",
        see=COST,
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_performance_60_steps_leave_nothing_behind(name):
    optimizer = ready(name, 50_000)
    size = 50_000 * 8

    def steps():
        for _ in range(60):
            optimizer.step()

    expect(
        f"what 60 steps of {name} leave in memory, by the size of the parameter",
        lambda: traced(steps)[0] / size,
        measured_between(-10, 4),
        (lambda ratio: ratio > 4, "Something is kept for each step: the memories are changed, not added to."),
        see=REMEMBER,
    )
    expect(
        f"what a step of {name} holds in passing, by the size of the parameter",
        lambda: traced(optimizer.step)[1] / size,
        measured_between(0, 20),
        see=COST,
    )
