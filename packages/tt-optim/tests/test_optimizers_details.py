"""Chapter 06 as it is here: the words of its errors, and what only our optimizers promise."""

import types

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
        (lambda p: to.optimizers.average_weights([{"w": tt.ones(1)}, {"v": tt.ones(1)}]), ValueError, "names"),
        (lambda p: to.optimizers.average_weights([]), ValueError, "none"),
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


# Half precision: memory is wide enough, and a step is computed in float32.

ALL = {
    "SGD": lambda p: to.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.01),
    "Adagrad": lambda p: to.Adagrad(p, lr=0.01),
    "RMSprop": lambda p: to.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "Adam": lambda p: to.Adam(p, lr=0.01),
    "AdamW": lambda p: to.AdamW(p, lr=0.01),
    "Lion": lambda p: to.Lion(p, lr=0.01),
}


@pytest.mark.parametrize("name", ALL)
def test_a_step_in_half_precision_is_that_of_float32_rounded(name):
    for slope in (300.0, 1e-4):
        half, single = (tt.Parameter(np.full(3, 1.0, dtype)) for dtype in (np.float16, np.float32))
        optimizers = [ALL[name]([p]) for p in (half, single)]
        for _ in range(5):
            for p, optimizer in zip((half, single), optimizers):
                p.grad = tt.full_like(p, slope)
                optimizer.step()
            single.data = half.float()  # what was rounded away
        np.testing.assert_allclose(half.numpy(), single.numpy(), rtol=2e-3)
        assert half.dtype == np.float16 and abs(half[0].item() - 1) > 1e-6 * slope
        saved = ALL[name]([half])
        saved.load_state_dict(optimizers[0].state_dict())
        assert repr(saved.state_dict()) == repr(optimizers[0].state_dict())


def test_clipping_in_half_precision():
    p = tt.Parameter(np.zeros(2, np.float16))
    p.grad = tt.from_numpy(np.array([300.0, 400.0], np.float16))
    assert to.gradient_norm([p]) == 500.0
    assert to.clip_grad_norm_(p, 1.0).item() == pytest.approx(500)
    np.testing.assert_allclose(p.grad.numpy(), [0.6, 0.8], rtol=1e-3)


@pytest.mark.parametrize("order, length", [(2, 5.0), (1, 7.0), (float("inf"), 4.0)])
def test_clipping_by_another_norm(order, length):
    a, b = tt.Parameter([0.0]), tt.Parameter([0.0])
    a.grad, b.grad = tt.Tensor([3.0]), tt.Tensor([-4.0])
    assert to.clip_grad_norm_([a, b], 1.0, order).item() == pytest.approx(length)
    assert a.grad.item() == pytest.approx(3 / length, rel=1e-5)


def test_zeros_in_place_of_none():
    p, q = tt.Parameter([1.0, 2.0]), tt.Parameter([1.0])
    module = tt.Module()
    module.p, module.q = p, q
    for forget in (to.SGD([p, q]).zero_grad, module.zero_grad):
        p.grad = gradient = tt.Tensor([5.0, float("nan")])
        forget(set_to_none=False)
        assert p.grad.tolist() == [0.0, 0.0] == gradient.tolist() and q.grad is None
        forget(set_to_none=True)
        assert p.grad is None


def stepped(make):
    p = tt.Parameter([1.0])
    p.grad, optimizer = tt.Tensor([1.0]), make([p])
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("theirs", ALL)
@pytest.mark.parametrize("ours", ALL)
def test_the_state_of_another_optimizer_is_refused(ours, theirs):
    saved = stepped(ALL[theirs]).state_dict()
    optimizer = stepped(ALL[ours])
    before = repr(optimizer.state_dict())
    if {ours, theirs} <= {"Adam", "AdamW"} or ours == theirs:
        return optimizer.load_state_dict(saved)
    for state in (saved, {**saved, "state": {}}):
        if ours in ("Lion",) and not state["state"]:
            continue  # all options of Lion are options of Adam
        with pytest.raises(ValueError, match="another optimizer"):
            optimizer.load_state_dict(state)
        assert repr(optimizer.state_dict()) == before


def test_the_memory_of_a_parameter_of_another_shape_is_refused():
    wide, narrow = tt.Parameter(np.ones((2, 3))), tt.Parameter(np.ones(3))
    wide.grad = tt.Tensor(np.ones((2, 3)))
    saved, optimizer = to.Adam([wide]), to.Adam([narrow], lr=0.5)
    saved.step()
    before = repr(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"exp_avg of parameter 0 has shape \(2, 3\), the parameter has \(3,\)"):
        optimizer.load_state_dict(saved.state_dict())
    assert repr(optimizer.state_dict()) == before


@pytest.mark.parametrize("state", [None, {}, {"state": {}}, {"param_groups": []}])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(ValueError, match='"state" and "param_groups"'):
        to.Adam([parameter()]).load_state_dict(state)


def test_a_step_that_is_refused_counts_nothing():
    p = parameter()
    optimizer = to.Adam([p])
    optimizer.step()
    p.grad, clock = tt.Tensor(np.ones(2)), tt.last_write(p)
    with pytest.raises(ValueError, match="must be equal"):
        optimizer.step()
    assert optimizer.state[p]["step"] == 1 and tt.last_write(p) == clock


W = tt.Parameter([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    "given, error, words",
    [
        (W, TypeError, "list"),
        ({"params": [W]}, TypeError, "one group"),
        ([], ValueError, "empty"),
        (iter(()), ValueError, "empty"),
        ("weight", TypeError, "str"),
        (3, TypeError, "int"),
        (None, TypeError, "NoneType"),
        ([[W]], TypeError, "list"),
        ([("name", W), W], ValueError, "names"),
        (tt.Linear(1, 1), TypeError, r"Linear.*model.parameters\(\)"),
        (tt.Sequential(tt.Linear(1, 1)), TypeError, r"Sequential.*model.parameters\(\)"),
        ([W, {"params": [W]}], ValueError, "mix"),
        ([{"params": [W]}, W], ValueError, "mix"),
        ([{"parameters": [W]}], ValueError, "params"),
        ([{"params": "weight"}], TypeError, "str"),
        ([{"params": [W], "lr": -1.0}], ValueError, "lr"),
        ([{"params": [W], "lr": float("nan")}], ValueError, "lr"),
    ],
)
def test_what_are_no_parameters(given, error, words):
    with pytest.raises(error, match=words):
        to.SGD(given, lr=0.1)


@pytest.mark.parametrize("limit", [-1.0, float("nan")])
def test_limits_below_zero_are_refused(limit):
    for clip in (to.clip_grad_norm_, to.clip_grad_value_):
        with pytest.raises(ValueError, match="0 or more"):
            clip([W], limit)


def test_updates_are_slots():
    def nothing(p, g, m, v, *, t, lr, betas, eps, decay, decoupled):
        p += 100

    p = parameter()
    with tt.use_kernels(types.SimpleNamespace(__name__="mine", adam_update=nothing)):
        to.Adam([p]).step()
        to.AdamW([p]).step()
    assert p.item() == 201


@pytest.mark.parametrize("make", [to.SGD, to.Adagrad, to.RMSprop, to.Adam, to.AdamW])
def test_an_infinite_weight_stays_infinite(make):
    """Without decay nothing multiplies it by 0."""
    p = parameter(np.inf)
    options = {"weight_decay": 0.0} if make is to.AdamW else {}
    for _ in range(2):
        make([p], lr=0.1, **options).step()
    assert p.item() == np.inf


@pytest.mark.parametrize("make", [to.Adagrad, to.RMSprop, to.Adam])
def test_a_gradient_whose_square_overflows_stops_the_weight_and_no_more(make):
    p = tt.Parameter(np.array([1.0], np.float32))
    optimizer = make([p], lr=0.1)
    for g in (1e30, 1.0, 1.0):
        p.grad = tt.tensor(np.array([g], np.float32))
        with np.errstate(over="ignore"):
            optimizer.step()
    assert np.isfinite(p.item())
