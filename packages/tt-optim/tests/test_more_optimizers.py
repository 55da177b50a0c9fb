"""The appendix of chapter 06: Adagrad and RMSprop against their formulas, lengths of gradients, clipping by value."""

import math

import numpy as np
import pytest

import tt_optim as to
import tt_tensor as tt

START, GRADIENTS = [1.0, -2.0], [[2.0, -1.0], [0.5, -3.0], [-1.0, 0.25]]


def parameter(value, gradient=None):
    """A float64 parameter of one element, with a gradient if there is one."""
    p = tt.Parameter(np.array([value], np.float64))
    p.grad = None if gradient is None else tt.Tensor(np.array([gradient], np.float64))
    return p


def moved(optimizer, p):
    """How far one step of the optimizer moves a parameter."""
    before = p.item()
    optimizer.step()
    return p.item() - before


def three_steps(make):
    """Where two weights are after each of three steps."""
    p, path = tt.Parameter(np.array(START)), []
    optimizer = make([p])
    for gradient in GRADIENTS:
        p.grad = tt.Tensor(np.array(gradient))
        optimizer.step()
        path.append(p.tolist())
    return path


def rmsprop(alpha=0.75, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False, lr=0.1):
    """The same by the formula."""
    p, v, a, b, path = np.array(START), 0.0, 0.0, 0.0, []
    for g in np.array(GRADIENTS):
        g = g + weight_decay * p
        v = alpha * v + (1 - alpha) * g * g
        a = alpha * a + (1 - alpha) * g
        step = g / (np.sqrt(v - (a**2 if centered else 0)) + eps)
        b = momentum * b + step
        p = p - lr * (b if momentum else step)
        path.append(p)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"centered": True},
        {"momentum": 0.5},
        {"weight_decay": 0.5},
        {"eps": 0.1},
        {"centered": True, "momentum": 0.5, "weight_decay": 0.5},
    ],
)
def test_rmsprop(options):
    path = three_steps(lambda p: to.RMSprop(p, lr=0.1, alpha=0.75, **options))
    np.testing.assert_allclose(path, rmsprop(**options), rtol=1e-12)


def test_adagrad():
    p = parameter(1, 2)
    optimizer = to.Adagrad([p], lr=0.1)
    assert [moved(optimizer, p), moved(optimizer, p)] == pytest.approx([-0.1, -0.1 / math.sqrt(2)])


def test_the_sum_of_adagrad_starts_where_it_is_told_and_only_once():
    p = parameter(1, 2)
    optimizer = to.Adagrad([p], lr=0.1, initial_accumulator_value=12.0)
    assert moved(optimizer, p) == pytest.approx(-0.1 * 2 / 4)
    copy = to.Adagrad([p], lr=0.1, initial_accumulator_value=100.0)
    copy.load_state_dict(optimizer.state_dict())
    assert moved(copy, p) == pytest.approx(-0.1 * 2 / math.sqrt(20))


def test_eps_is_added_after_the_root():
    p = parameter(1, 1e-6)
    assert moved(to.RMSprop([p], lr=0.1), p) == pytest.approx(-0.1 / 0.11, rel=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: to.Adagrad(p, weight_decay=0.5),
        lambda p: to.RMSprop(p, 0.1, momentum=0.5, centered=True, weight_decay=0.5),
    ],
)
def test_gradients_stay_as_they_are(make):
    p = tt.Parameter(np.array(START))
    p.grad = tt.Tensor(np.array(GRADIENTS[0]))
    make([p]).step()
    assert p.grad.tolist() == [2, -1]


@pytest.mark.parametrize(
    "make, options, words",
    [
        (to.RMSprop, {"alpha": 1.0}, "alpha.*1.0"),
        (to.RMSprop, {"alpha": -0.1}, "alpha.*-0.1"),
        (to.RMSprop, {"eps": -1.0}, "eps.*-1.0"),
        (to.RMSprop, {"momentum": -0.5}, "momentum.*-0.5"),
        (to.RMSprop, {"lr": -0.5}, "lr.*-0.5"),
        (to.Adagrad, {"lr_decay": -0.5}, "lr_decay.*-0.5"),
        (to.Adagrad, {"eps": math.nan}, "eps.*nan"),
        (to.Adagrad, {"weight_decay": -0.5}, "weight_decay.*-0.5"),
    ],
)
def test_options_outside_their_ranges_are_refused(make, options, words):
    with pytest.raises(ValueError, match=words):
        make([parameter(1)], **options)


def test_gradient_norm():
    ps = [parameter(1, 3), parameter(1), tt.Parameter(np.zeros((2, 2)))]
    ps[2].grad = tt.Tensor(np.array([[0.0, -4.0], [12.0, 0.0]]))
    assert to.gradient_norm(ps) == 13
    assert to.gradient_norm(ps[1:2]) == 0
    assert [p.grad if p.grad is None else p.grad.tolist() for p in ps] == [[3], None, [[0, -4], [12, 0]]]


def test_clipping_by_value():
    ps = [parameter(0, 0.6), parameter(0, -0.8), parameter(0)]
    to.clip_grad_value_(ps, 0.7)
    assert [p.grad.item() for p in ps[:2]] == [0.6, -0.7] and ps[2].grad is None
    to.clip_grad_value_(ps[0], 0.5)
    assert ps[0].grad.item() == 0.5
