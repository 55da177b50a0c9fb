"""Chapter 06 and its schedules, judged by their public names."""

import math

import numpy as np
import pytest

import tt_optim as to
import tt_tensor as tt
from tt_tensor.teaching import expect

STEP, DIVIDING, ADAM, CLIPPING = "The optimizer", "Dividing by the usual size", "Adam", "Clipping"


def parameter(value, gradient=None):
    """A float64 parameter of one element, with a gradient if there is one."""
    p = tt.Parameter(np.array([value], np.float64))
    p.grad = None if gradient is None else tt.Tensor(np.array([gradient], np.float64))
    return p


def moved(optimizer, *parameters):
    """How far one step of the optimizer moves the parameters."""
    before = [p.item() for p in parameters]
    optimizer.step()
    distances = [p.item() - b for p, b in zip(parameters, before)]
    return distances if len(distances) > 1 else distances[0]


def test_a_step_goes_against_the_gradient():
    p = parameter(1, 2)
    expect(
        "SGD(lr=0.1).step() on a weight of 1 with gradient 2: the change",
        lambda: moved(to.SGD([p], lr=0.1), p),
        -0.2,
        (0.2, "The loss rose: step against the gradient."),
        (0, "The weight did not change: you rebound a local name; write into what the parameter holds."),
        see=STEP,
    )


def test_a_step_changes_the_models_own_weight():
    layer = tt.Linear(1, 1, bias=False)
    held, before = layer.weight, layer.weight.item()
    layer.weight.grad = tt.ones(1, 1)
    to.SGD(layer.parameters(), lr=0.1).step()
    expect(
        "change of layer.weight in SGD(layer.parameters(), lr=0.1).step() with gradient 1",
        layer.weight.item() - before,
        -0.1,
        (0, "The model's weight did not change: you rebound a local name; write into what the parameter holds."),
        see=STEP,
    )
    assert layer.weight is held, "the weight stays the same object"


def test_every_parameter_has_its_own_momentum():
    moving, resting = parameter(1, 1), parameter(1, 0)
    optimizer = to.SGD([moving, resting], lr=0.1, momentum=0.9)
    expect(
        "SGD(momentum=0.9): the change of a parameter with gradient 0, beside one with gradient 1",
        lambda: moved(optimizer, moving, resting)[1],
        0,
        "It moved by the first one's buffer: keep one per parameter.",
        see="The idea: remember",
    )
    expect(
        "the second step of the parameter with gradient 1",
        lambda: moved(optimizer, moving, resting)[0],
        -0.19,
        (-0.1, "The velocity was forgotten."),
        (-0.109, "PyTorch's velocity is momentum * b + g, without a factor at g."),
        see="SGD",
    )


def test_adams_first_step_is_the_rate():
    p = parameter(1, 4)
    expect(
        "the first step of Adam(lr=0.1) with gradient 4",
        lambda: moved(to.Adam([p], lr=0.1), p),
        -0.1,
        (-0.316228, "3.16 times too long: the bias correction, m / (1 - beta1^t) and v / (1 - beta2^t), is missing."),
        (lambda step: not math.isfinite(step), "1 - beta^0 is 0: t counts steps, from 1."),
        (ZeroDivisionError, "1 - beta^0 is 0: t counts steps, from 1."),
        see=ADAM,
    )


def test_all_parameters_are_in_the_same_step():
    first, second = parameter(1, 4), parameter(1, 4)
    expect(
        "the first step of Adam(lr=0.1) for two parameters with gradient 4",
        lambda: moved(to.Adam([first, second], lr=0.1), first, second),
        [-0.1, -0.1],
        (
            lambda steps: math.isclose(steps[0], -0.1, rel_tol=1e-4),
            "The second parameter is one step ahead: t counts steps, from 1, not updates of parameters.",
        ),
        see=ADAM,
    )


@pytest.mark.parametrize("optimizer", [to.SGD, to.Adagrad, to.RMSprop, to.Adam, to.AdamW])
def test_parameters_without_gradient_are_left_alone(optimizer):
    used, unused = parameter(1, 1), parameter(1)
    expect(
        f"{optimizer.__name__}.step() with a parameter whose grad is None: its change",
        lambda: moved(optimizer([used, unused], lr=0.1), used, unused)[1],
        0,
        (Exception, "The grad of a parameter that played no part is None: skip parameters without gradient."),
        see=STEP,
    )
    assert used.item() < 1


def test_zero_grad_forgets_all_gradients():
    ps = [parameter(1, 1), parameter(2, 1), parameter(3, 1)]
    to.SGD(ps, lr=0.1).zero_grad()
    expect(
        "gradients after zero_grad() of three parameters",
        [p.grad is None for p in ps],
        [True] * 3,
        "Set the grad of every parameter of every group to None.",
        see=STEP,
    )


def test_eps_is_added_after_the_root():
    p = parameter(1, 1e-6)
    expect(
        "the first step of Adam(lr=0.1, eps=1e-8) with gradient 1e-6",
        lambda: moved(to.Adam([p], lr=0.1), p),
        -0.1 / 1.01,
        (
            -0.1 / math.sqrt(1 + 1e4),
            "100 times too small for a tiny gradient: eps is added after the root, not under it.",
        ),
        see=ADAM,
    )
    p = parameter(1, 1e-6)
    expect(
        "the first step of RMSprop(lr=0.1, eps=1e-8) with gradient 1e-6",
        lambda: moved(to.RMSprop([p], lr=0.1), p),
        -0.1 / 0.11,
        (
            -0.1 / math.sqrt(0.01 + 1e4),
            "100 times too small for a tiny gradient: eps is added after the root, not under it.",
        ),
        see=DIVIDING,
    )


def test_adamw_decays_the_weight_itself():
    p = parameter(1, 0)
    expect(
        "AdamW(lr=0.1, weight_decay=0.5) on a weight of 1 with gradient 0: the change",
        lambda: moved(to.AdamW([p], lr=0.1, weight_decay=0.5), p),
        -0.05,
        (-0.1, "The decay was added to the gradient and divided like it: decoupled decay acts on the weight itself."),
        (0, "The weight is unchanged though decay is 0.5: decoupled decay acts on the weight."),
        see=ADAM,
    )
    p = parameter(1, 0)
    expect(
        "Adam(lr=0.1, weight_decay=0.5), the same",
        lambda: moved(to.Adam([p], lr=0.1, weight_decay=0.5), p),
        -0.1,
        (-0.05, "Adam adds the decay to the gradient; AdamW is the decoupled one."),
        see=ADAM,
    )


@pytest.mark.parametrize(
    "make, changes",
    [
        (lambda p: to.SGD(p, lr=0.1), [-0.2, -0.2]),
        (lambda p: to.SGD(p, lr=0.1, momentum=0.5, nesterov=True), [-0.3, -0.35]),
        (lambda p: to.SGD(p, lr=0.1, momentum=0.5, dampening=0.5), [-0.2, -0.2]),
        (lambda p: to.Adagrad(p, lr=0.1), [-0.1, -0.1 / math.sqrt(2)]),
        (lambda p: to.RMSprop(p, lr=0.1, alpha=0.75), [-0.2, -0.1 / math.sqrt(0.4375)]),
        (lambda p: to.Adam(p, lr=0.1), [-0.1, -0.1]),
    ],
)
def test_two_steps_by_hand(make, changes):
    p = parameter(1, 2)
    optimizer = make([p])
    name = type(optimizer).__name__
    expect(
        f"two steps of {name} with gradient 2",
        lambda: [moved(optimizer, p), moved(optimizer, p)],
        changes,
        see="The idea: remember",
        tolerance=1e-6,
    )


def test_groups_have_options_of_their_own():
    slow, fast = parameter(1, 1), parameter(1, 1)
    optimizer = to.SGD([{"params": [slow], "lr": 0.01}, {"params": fast}], lr=0.1)
    assert np.allclose(moved(optimizer, slow, fast), [-0.01, -0.1])
    optimizer.param_groups[0]["lr"] = 0.5
    assert np.allclose(moved(optimizer, slow, fast), [-0.5, -0.1])


@pytest.mark.parametrize(
    "make",
    [
        lambda p: to.SGD(p, lr=0.1, momentum=0.9),
        to.Adagrad,
        lambda p: to.RMSprop(p, momentum=0.5, centered=True),
        to.Adam,
    ],
)
def test_a_restored_optimizer_goes_on_bit_for_bit(make):
    first, second = parameter(1, 3), parameter(1, 3)
    original = make([first])
    original.step()
    second.data = first.data
    copy = make([second])
    copy.load_state_dict(original.state_dict())
    for gradient in (1.0, -2.0):
        for optimizer, p in ((original, first), (copy, second)):
            p.grad = tt.Tensor(np.array([gradient]))
            optimizer.step()
        assert first.item() == second.item()


def test_large_parameters_are_updated_in_every_element():
    p = tt.Parameter(np.zeros(200_001, np.float32))
    p.grad = tt.ones(200_001)
    to.SGD([p], lr=1.0).step()
    assert (p == -1).all()


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
            lambda p: to.SGD([p], lr=0.1).load_state_dict(to.SGD([p, parameter(1)], lr=0.1).state_dict()),
            ValueError,
            "2.*1",
        ),
        (lambda p: to.StepLR(p, 2), TypeError, "optimizer"),
        (lambda p: to.StepLR(to.SGD([p]), 0), ValueError, "0"),
        (lambda p: to.ReduceLROnPlateau(to.SGD([p]), mode="low"), ValueError, "low"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(wrong, error, words):
    with pytest.raises(error, match=words):
        wrong(parameter(1, 1))


def test_a_gradient_of_another_shape_is_refused():
    p = tt.Parameter(np.zeros((2, 3)))
    p.grad = tt.Tensor(np.zeros(3))
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3,\)"):
        to.SGD([p], lr=0.1).step()


def test_clipping_keeps_the_direction():
    ps = [parameter(0, 3), parameter(0, 4)]
    length = to.clip_grad_norm_(ps, 1.0)
    expect(
        "gradients 3 and 4 after clip_grad_norm_(max_norm=1)",
        [p.grad.item() for p in ps],
        [0.6, 0.8],
        ([1, 1], "The direction has changed: clip by the global norm, with one factor for all."),
        see=CLIPPING,
    )
    assert length.item() == pytest.approx(5)
    to.clip_grad_norm_(ps, 10.0)
    assert [p.grad.item() for p in ps] == pytest.approx([0.6, 0.8], rel=1e-5), "short gradients stay as they are"
    to.clip_grad_value_(ps, 0.7)
    assert [p.grad.item() for p in ps] == pytest.approx([0.6, 0.7], rel=1e-5)


def test_a_gradient_that_overflowed_can_be_refused():
    with pytest.raises(RuntimeError, match=r"inf|nan"):
        to.clip_grad_norm_([parameter(0, math.inf)], 1.0, error_if_nonfinite=True)


def test_gradients_of_xor_by_hand_agree_with_the_referee():
    network, x, wanted = to.xor_case()
    to.xor_gradients_by_hand(network, x, wanted)
    for name, p in network.named_parameters():
        expect(
            f"gradient by hand of {name}",
            p.grad,
            tt.slope(lambda: tt.binary_cross_entropy_with_logits(network(x), wanted), p),
            "A term of the chain rule is missing, or has the wrong sign.",
            see="XOR, with gradients by hand",
            tolerance=1e-6,
        )


def test_xor_is_learned_by_hand():
    tt.manual_seed(0)
    losses = to.train_xor_by_hand(lambda p: to.Adam(p, lr=0.05), steps=300)[1]
    assert losses[-1] < 0.1 < losses[0]


def rates(schedule, steps):
    result = []
    for _ in range(steps):
        result.append(schedule.get_last_lr()[0])
        schedule.step()
    return result


@pytest.mark.parametrize(
    "make, wanted",
    [
        (lambda o: to.StepLR(o, 2, 0.5), [1, 1, 0.5, 0.5, 0.25]),
        (lambda o: to.MultiStepLR(o, [1, 3], 0.1), [1, 0.1, 0.1, 0.01, 0.01]),
        (lambda o: to.ExponentialLR(o, 0.5), [1, 0.5, 0.25, 0.125, 0.0625]),
        (lambda o: to.LambdaLR(o, lambda step: 1 / (1 + step)), [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]),
        (lambda o: to.LinearLR(o, 0.5, total_iters=2), [0.5, 0.75, 1, 1, 1]),
        (lambda o: to.CosineAnnealingLR(o, 4), [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]),
        (
            lambda o: to.SequentialLR(o, [to.LinearLR(o, 0.5, total_iters=2), to.StepLR(o, 1, 0.1)], [2]),
            [0.5, 0.75, 1, 0.1, 0.01],
        ),
    ],
)
def test_schedules(make, wanted):
    schedule = make(to.SGD([parameter(0)], lr=1.0))
    expect(f"five rates of {type(schedule).__name__}", lambda: rates(schedule, 5), wanted, see="Staircases and slides")


def test_a_plateau_lowers_the_rate():
    optimizer = to.SGD([parameter(0)], lr=1.0)
    schedule = to.ReduceLROnPlateau(optimizer, patience=1)
    for metric in (5, 4, 4, 4):
        schedule.step(metric)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_a_restored_schedule_goes_on():
    first, second = (to.OneCycleLR(to.SGD([parameter(0)], momentum=0.9), max_lr=1.0, total_steps=10) for _ in range(2))
    rates(first, 3)
    second.load_state_dict(first.state_dict())
    assert rates(first, 6) == rates(second, 6)


def test_exercises():
    first, second, unused = parameter(1, 3), parameter(1, -0.001), parameter(1)
    expect(
        "Lion(lr=0.25).step() with gradients 3 and -0.001: the changes",
        lambda: moved(to.Lion([first, second], lr=0.25), first, second),
        [-0.25, 0.25],
        see="Exercises",
    )
    expect(
        "gradient_norm of gradients 3, -0.001 and None",
        lambda: to.gradient_norm([first, second, unused]),
        3,
        see="Exercises",
    )
    states = [{"w": tt.Tensor([1, 2])}, {"w": tt.Tensor([3, 6])}]
    expect("average_weights of [1, 2] and [3, 6]", lambda: to.average_weights(states)["w"], [2, 4], see="Exercises")
    with pytest.raises(ValueError, match="names"):
        to.average_weights([{"w": tt.ones(1)}, {"v": tt.ones(1)}])
