"""Chapter 06 as it is here: the words of its errors, and what only our optimizers promise."""

import numpy as np
import pytest

import tt_optim as to
import tt_tensor as tt


def parameter(value=1.0):
    p = tt.Parameter(np.array([value], np.float64))
    p.grad = tt.Tensor(np.ones(1))
    return p


@pytest.mark.parametrize(
    "wrong, error, words",
    [
        (lambda p: to.SGD([p], lr=-0.1), ValueError, "lr.*-0.1"),
        (lambda p: to.Adam([p], weight_decay=-1), ValueError, "weight_decay.*-1"),
        (lambda p: to.Adam([p], betas=(0.9, 1.0)), ValueError, "betas.*1.0"),
        (lambda p: to.SGD([p], lr=0.1, nesterov=True), ValueError, "momentum"),
        (lambda p: to.SGD([], lr=0.1), ValueError, "empty"),
        (lambda p: to.SGD(tt.ReLU().parameters(), lr=0.1), ValueError, "empty"),
        (lambda p: to.SGD([p, p], lr=0.1), ValueError, "twice"),
        (lambda p: to.SGD(["weight"], lr=0.1), TypeError, "str"),
        (
            lambda p: to.SGD([p], lr=0.1).load_state_dict(to.SGD([p, parameter()], lr=0.1).state_dict()),
            ValueError,
            "2.*1",
        ),
        (lambda p: to.average_weights([{"w": tt.ones(1)}, {"v": tt.ones(1)}]), ValueError, "names"),
        (lambda p: to.average_weights([]), ValueError, "none"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(wrong, error, words):
    with pytest.raises(error, match=words):
        wrong(parameter())


def test_a_gradient_of_another_shape_is_named():
    p = tt.Parameter(np.zeros((2, 3)))
    p.grad = tt.Tensor(np.zeros(3))
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3,\)"):
        to.SGD([p], lr=0.1).step()


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_an_overflow_is_named(value):
    p = parameter()
    p.grad = tt.Tensor(np.array([value]))
    with pytest.raises(RuntimeError, match=str(value)):
        to.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)


def test_averages_survive_a_change_of_betas():
    def step_after_change(first, second):
        p = parameter()
        optimizer = to.Adam([p], lr=0.1, betas=first)
        for gradient in (4.0, -1.0):
            p.grad = tt.Tensor(np.array([gradient]))
            optimizer.step()
        optimizer.param_groups[0]["betas"] = second
        before = p.item()
        optimizer.step()
        return p.item() - before

    m, v = 0.9 * 0.1 * 4 + 0.1 * -1, 0.99 * 0.01 * 16 + 0.01 * 1
    m, v = 0.5 * m + 0.5 * -1, 0.75 * v + 0.25 * 1
    wanted = -0.1 * m / (1 - 0.5**3) / (np.sqrt(v / (1 - 0.75**3)) + 1e-8)
    assert step_after_change((0.9, 0.99), (0.5, 0.75)) == pytest.approx(wanted, rel=1e-9)
