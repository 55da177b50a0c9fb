"""Optimizers: a step on one large parameter, on many small ones, and clipping."""

import numpy as np
import pytest

import tt_tensor as tt
from tt_optim import SGD, Adam, AdamW, clip_grad_norm_

pytestmark = pytest.mark.benchmark(group="tt-optim")

RATE = 1e-3


def parameters(count, *shape):
    """Parameters of zeros, with gradients of ones."""
    found = [tt.Parameter(tt.zeros(*shape)) for _ in range(count)]
    for parameter in found:
        parameter.grad = tt.ones(*shape)
    return found


def step_of(optimizer, parameter):
    """How far one more step moves the numbers of a parameter."""
    before = parameter.numpy().copy()
    optimizer.step()
    return before - parameter.numpy()


def test_sgd_step_on_1_million_numbers(benchmark):
    (large,) = parameters(1, 1000, 1000)
    optimizer = SGD([large], lr=RATE)
    benchmark(optimizer.step)
    assert np.allclose(step_of(optimizer, large), RATE, rtol=1e-2)


def test_sgd_with_momentum_step_on_1_million_numbers(benchmark):
    (large,) = parameters(1, 1000, 1000)
    optimizer = SGD([large], lr=RATE, momentum=0.5)
    first = step_of(optimizer, large)
    benchmark(optimizer.step)
    assert np.allclose(first, RATE) and (step_of(optimizer, large) > 1.2 * first).all()


def test_adam_step_on_1_million_numbers(benchmark):
    (large,) = parameters(1, 1000, 1000)
    optimizer = Adam([large], lr=RATE)
    benchmark(optimizer.step)
    assert np.allclose(step_of(optimizer, large), RATE, rtol=1e-2)  # a constant gradient: the step is the rate


def test_adamw_step_on_1_million_numbers(benchmark):
    (large,) = parameters(1, 1000, 1000)
    optimizer = AdamW([large], lr=RATE, weight_decay=0.1)
    benchmark(optimizer.step)
    wanted = RATE * (1 + 0.1 * large.numpy())  # the decay pulls towards 0
    assert np.allclose(step_of(optimizer, large), wanted, rtol=1e-2)


def test_adam_step_on_100_parameters_of_100_numbers(benchmark):
    small = parameters(100, 100)
    optimizer = Adam(small, lr=RATE)
    benchmark(optimizer.step)
    assert np.allclose(step_of(optimizer, small[-1]), RATE, rtol=1e-2)


def test_clip_100_gradients_of_10000_numbers(benchmark):
    small = parameters(100, 10_000)
    assert clip_grad_norm_(small, 1e6).item() == pytest.approx(1000, rel=1e-5)
    benchmark(clip_grad_norm_, small, 1.0)
    assert clip_grad_norm_(small, 1.0).item() == pytest.approx(1, rel=1e-4)
