"""Torch as the oracle: fifty steps of every optimizer, and the rates of every schedule."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

import tt_optim
import tt_tensor as tt

torch = pytest.importorskip("torch", reason="torch is the oracle here: hatch run parity:run")

pytestmark = [
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
    pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning"),
]
TOLERANCE = {np.float64: 1e-7, np.float32: 2e-4}
SHAPES = [(3, 4), (5,), (), (1, 1, 2)]
LIBRARIES = SimpleNamespace(
    ours=SimpleNamespace(optim=tt_optim, schedules=tt_optim),
    theirs=SimpleNamespace(optim=torch.optim, schedules=torch.optim.lr_scheduler),
)

OPTIMIZERS = {
    "SGD": ("SGD", {"lr": 0.05}),
    "SGD, weight decay": ("SGD", {"lr": 0.05, "weight_decay": 0.1}),
    "SGD, momentum": ("SGD", {"lr": 0.02, "momentum": 0.9}),
    "SGD, momentum, decay": ("SGD", {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.05}),
    "SGD, dampening": ("SGD", {"lr": 0.02, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.05}),
    "SGD, nesterov": ("SGD", {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
    "SGD, nesterov, decay": ("SGD", {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    "RMSprop": ("RMSprop", {"lr": 0.01}),
    "RMSprop, all options": (
        "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-6, "weight_decay": 0.05, "momentum": 0.7, "centered": True},
    ),
    "RMSprop, centered": ("RMSprop", {"lr": 0.01, "centered": True}),
    "Adagrad": ("Adagrad", {"lr": 0.1}),
    "Adagrad, all options": (
        "Adagrad",
        {"lr": 0.1, "lr_decay": 0.03, "weight_decay": 0.05, "initial_accumulator_value": 0.2, "eps": 1e-7},
    ),
    "Adam": ("Adam", {"lr": 0.01}),
    "Adam, decay": ("Adam", {"lr": 0.01, "weight_decay": 0.1}),
    "Adam, betas and eps": ("Adam", {"lr": 0.01, "betas": (0.7, 0.95), "eps": 1e-3}),
    "AdamW": ("AdamW", {"lr": 0.01}),
    "AdamW, decay": ("AdamW", {"lr": 0.01, "weight_decay": 0.3, "betas": (0.8, 0.99)}),
}


def start(shapes, dtype):
    random = np.random.default_rng(0)
    values = [np.asarray(random.standard_normal(s), dtype) for s in shapes]
    return [tt.Parameter(v.copy()) for v in values], [torch.nn.Parameter(torch.from_numpy(v.copy())) for v in values]


def slopes(value, step):
    """Gradients that depend on where we are, change their sign now and then, and differ in size by element."""
    scale = np.geomspace(0.01, 10, value.size).reshape(value.shape)
    return np.asarray(scale * (np.sin(3 * value) + 0.5 * value + 0.3 * np.cos(step)), value.dtype)


def walk(ours, theirs, make, steps, dtype, skip=None, schedule=None):
    """Both sides for so many steps from the same gradients' formula, compared after each."""
    one, other = make(LIBRARIES.ours.optim, ours), make(LIBRARIES.theirs.optim, theirs)
    schedules = (
        [schedule(s, o) for s, o in ((LIBRARIES.ours.schedules, one), (LIBRARIES.theirs.schedules, other))]
        if schedule
        else []
    )
    for step in range(steps):
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            p.grad = tt.from_numpy(slopes(p.numpy(), step))
            q.grad = torch.from_numpy(slopes(q.detach().numpy(), step))
            if skip and skip(i, step):
                p.grad = q.grad = None
        one.step()
        other.step()
        for s in schedules:
            s.step()
        for p, q in zip(ours, theirs, strict=True):
            assert p.dtype == dtype
            tolerance = TOLERANCE[dtype]
            np.testing.assert_allclose(
                p.numpy(), q.detach().numpy(), rtol=tolerance, atol=tolerance, err_msg=f"step {step}"
            )


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("name", "options"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_fifty_steps(name, options, dtype):
    walk(*start(SHAPES, dtype), lambda lib, params: getattr(lib, name)(params, **options), 50, dtype)


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adagrad", "Adam", "AdamW"])
def test_defaults(name):
    options = {"lr": 0.01} if name == "SGD" else {}
    walk(*start(SHAPES, np.float64), lambda lib, params: getattr(lib, name)(params, **options), 20, np.float64)
    (ours,), (theirs,) = start([(2,)], np.float64)
    one, other = getattr(tt_optim, name)([ours]).defaults, getattr(torch.optim, name)([theirs]).defaults
    assert {key: other[key] for key in one} == one


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_parameters_without_a_gradient_are_left_alone_and_count_their_own_steps(name, options):
    skip = lambda i, step: (i == 0 and step < 3) or (i == 1 and step % 4 == 1) or i == 2
    walk(*start(SHAPES, np.float64), lambda lib, params: getattr(lib, name)(params, **options), 30, np.float64, skip)


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_groups_with_options_of_their_own(name, options):
    def make(lib, params):
        groups = [
            {"params": params[:2], "lr": 0.003},
            {"params": params[2], "weight_decay": 0.2},
            {"params": params[3:]},
        ]
        return getattr(lib, name)(groups, **options)

    walk(*start(SHAPES, np.float64), make, 50, np.float64)


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adagrad", "Adam", "AdamW"])
@pytest.mark.parametrize("count", [131_071, 131_072, 131_073, 1_100_000], ids="{:,}".format)
def test_large_parameters_in_blocks_and_threads(name, count):
    options = {"momentum": 0.9, "nesterov": True} if name == "SGD" else {}
    walk(
        *start([(count,), (3, 5)], np.float32),
        lambda lib, params: getattr(lib, name)(params, lr=0.01, weight_decay=0.1, **options),
        3,
        np.float32,
    )


def test_parameters_that_are_not_contiguous():
    values = np.random.default_rng(0).standard_normal((5, 3))
    ours, theirs = [tt.Parameter(values.T)], [torch.nn.Parameter(torch.from_numpy(values.copy()).T)]
    assert not ours[0].is_contiguous()
    walk(ours, theirs, lambda lib, params: lib.Adam(params, lr=0.01), 10, np.float64)


# Clipping


@pytest.mark.parametrize("max_norm", [0.1, 1.0, 100.0])
def test_clipping(max_norm):
    for how in ("norm", "value"):
        ours, theirs = start([*SHAPES, (2,)], np.float64)
        for p, q in zip(ours[:-1], theirs[:-1]):
            p.grad, q.grad = tt.Tensor(slopes(p.numpy(), 1)), torch.from_numpy(slopes(q.detach().numpy(), 1))
        got = getattr(tt_optim, f"clip_grad_{how}_")(ours, max_norm)
        expected = getattr(torch.nn.utils, f"clip_grad_{how}_")(theirs, max_norm)
        assert how == "value" or got.item() == pytest.approx(expected.item(), rel=1e-6)
        for p, q in zip(ours[:-1], theirs[:-1]):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-6)
        assert ours[-1].grad is None


# Schedules


def _warm_up(lib, optimizer):
    parts = [lib.LinearLR(optimizer, 0.1, total_iters=4), lib.CosineAnnealingLR(optimizer, 10)]
    return lib.SequentialLR(optimizer, parts, [4])


def _three(lib, optimizer):
    parts = [
        lib.LinearLR(optimizer, 0.5, total_iters=3),
        lib.StepLR(optimizer, 2, gamma=0.5),
        lib.ExponentialLR(optimizer, 0.9),
    ]
    return lib.SequentialLR(optimizer, parts, [3, 9])


SCHEDULES = {
    "StepLR": lambda lib, o: lib.StepLR(o, 5, gamma=0.3),
    "StepLR defaults": lambda lib, o: lib.StepLR(o, 7),
    "MultiStepLR": lambda lib, o: lib.MultiStepLR(o, [3, 8, 8, 20], gamma=0.5),
    "ExponentialLR": lambda lib, o: lib.ExponentialLR(o, 0.93),
    "CosineAnnealingLR": lambda lib, o: lib.CosineAnnealingLR(o, 25),
    "CosineAnnealingLR past its end": lambda lib, o: lib.CosineAnnealingLR(o, 7, eta_min=0.01),
    "LambdaLR": lambda lib, o: lib.LambdaLR(o, lambda step: 1 / (1 + step)),
    "LambdaLR for each group": lambda lib, o: lib.LambdaLR(o, [lambda step: 0.9**step, lambda step: 1 + step]),
    "LinearLR": lambda lib, o: lib.LinearLR(o),
    "LinearLR down": lambda lib, o: lib.LinearLR(o, 1.0, 0.2, total_iters=9),
    "warm-up, then cosine": _warm_up,
    "three in a row": _three,
    "OneCycleLR": lambda lib, o: lib.OneCycleLR(o, max_lr=0.05, total_steps=25),
    "OneCycleLR linear": lambda lib, o: lib.OneCycleLR(
        o, 0.05, total_steps=25, pct_start=0.4, anneal_strategy="linear"
    ),
    "OneCycleLR without momentum": lambda lib, o: lib.OneCycleLR(o, 0.05, total_steps=30, cycle_momentum=False),
    "OneCycleLR other factors": lambda lib, o: lib.OneCycleLR(
        o, 0.05, total_steps=25, div_factor=10, final_div_factor=50, base_momentum=0.6, max_momentum=0.8
    ),
}
STEPS = 25


def pair_of_optimizers(name="SGD", **options):
    ours, theirs = start([(2,), (3,)], np.float64)
    options = {"momentum": 0.9} if name == "SGD" and not options else options
    groups = lambda params: [{"params": params[:1]}, {"params": params[1:], "lr": 0.02}]
    return getattr(tt_optim, name)(groups(ours), lr=0.1, **options), getattr(torch.optim, name)(
        groups(theirs), lr=0.1, **options
    )


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_rates(schedule):
    one, other = pair_of_optimizers()
    ours, theirs = schedule(tt_optim, one), schedule(torch.optim.lr_scheduler, other)
    for step in range(STEPS):
        got, expected = ([g["lr"] for g in o.param_groups] for o in (one, other))
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-15, err_msg=f"after {step} steps")
        assert ours.get_last_lr() == got
        for mine, his in zip(one.param_groups, other.param_groups, strict=True):
            assert mine["momentum"] == pytest.approx(his["momentum"], rel=1e-9), f"momentum after {step} steps"
        ours.step(), theirs.step()  # as often as there are batches, also after the last one


def test_one_cycle_is_over_when_it_is_over():
    one, other = pair_of_optimizers()
    for lib, optimizer in ((tt_optim, one), (torch.optim.lr_scheduler, other)):
        schedule = lib.OneCycleLR(optimizer, 0.5, total_steps=3)
        for _ in range(3):
            schedule.step()
        with pytest.raises(ValueError, match="3"):
            schedule.step()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"patience": 2, "factor": 0.5},
        {"mode": "max", "patience": 0, "factor": 0.5, "threshold": 0.1},
        {"patience": 1, "cooldown": 3, "factor": 0.3},
        {"patience": 0, "factor": 0.1, "min_lr": 1e-3},
        {"patience": 0, "factor": 0.1, "eps": 1e-2},
    ],
    ids=str,
)
def test_plateau(options):
    one, other = pair_of_optimizers()
    ours, theirs = (
        tt_optim.ReduceLROnPlateau(one, **options),
        torch.optim.lr_scheduler.ReduceLROnPlateau(other, **options),
    )
    random = np.random.default_rng(0)
    for step in range(60):
        metric = math.exp(-min(step, 20) / 10) + 0.02 * random.standard_normal()
        ours.step(metric), theirs.step(metric)
        got, expected = ([g["lr"] for g in o.param_groups] for o in (one, other))
        np.testing.assert_allclose(got, expected, rtol=1e-9, err_msg=f"after {step + 1} steps")


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if "each group" not in name])
def test_trajectories_under_a_schedule(name, schedule):
    options = {"momentum": 0.9} if name == "SGD" else {"weight_decay": 0.05}
    walk(
        *start(SHAPES, np.float64),
        lambda lib, params: getattr(lib, name)(params, lr=0.01, **options),
        STEPS,
        np.float64,
        schedule=SCHEDULES[schedule],
    )


def test_a_schedule_goes_on_from_a_saved_state():
    for schedule in SCHEDULES.values():
        (first, _), (second, _) = pair_of_optimizers(), pair_of_optimizers()
        before, after = schedule(tt_optim, first), schedule(tt_optim, second)
        for _ in range(11):
            before.step()
        after.load_state_dict(before.state_dict())
        for _ in range(10):
            before.step(), after.step()
            assert before.get_last_lr() == after.get_last_lr() == [g["lr"] for g in second.param_groups]


# Two schedulers on one optimizer, and a rate that is set by hand in between: torch multiplies what it finds.

PLATEAU = "ReduceLROnPlateau"


def _made(name, lib, optimizer):
    return lib.ReduceLROnPlateau(optimizer, patience=2) if name == PLATEAU else SCHEDULES[name](lib, optimizer)


def _stepped(name, schedule, step):
    schedule.step(1.0 / (1 + step % 5)) if name == PLATEAU else schedule.step()


def _compare_rates(names, by_hand=(), steps=STEPS - 1):
    one, other = pair_of_optimizers()
    both = [[_made(n, lib, o) for n in names] for lib, o in ((tt_optim, one), (torch.optim.lr_scheduler, other))]
    for step in range(steps):
        for optimizer, schedules in zip((one, other), both):
            if step in by_hand:
                optimizer.param_groups[0]["lr"] = 0.3
            for name, schedule in zip(names, schedules):
                _stepped(name, schedule, step)
        got, expected = ([g["lr"] for g in o.param_groups] for o in (one, other))
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-16, err_msg=f"{names} after {step + 1} steps")


@pytest.mark.parametrize("first", [*SCHEDULES, PLATEAU])
def test_two_schedules_on_one_optimizer(first):
    for second in [*SCHEDULES, PLATEAU]:
        _compare_rates([first, second])
        _compare_rates([first, second], by_hand=(1, 6))


@pytest.mark.parametrize("schedule", [*SCHEDULES, PLATEAU])
def test_a_rate_that_is_set_by_hand(schedule):
    _compare_rates([schedule])
    for step in range(12):
        _compare_rates([schedule], by_hand=(step,))


@pytest.mark.parametrize("first", [*SCHEDULES, PLATEAU])
def test_two_schedules_go_on_from_a_saved_state(first):
    for second in [*SCHEDULES, PLATEAU]:
        (one, _), (other, _) = pair_of_optimizers(), pair_of_optimizers()
        names = [first, second]
        before, after = ([_made(name, tt_optim, o) for name in names] for o in (one, other))
        for step in range(20):
            if step == 7:
                other.load_state_dict(one.state_dict())
                for a, b in zip(before, after):
                    b.load_state_dict(a.state_dict())
            for name, a, b in zip(names, before, after):
                _stepped(name, a, step)
                if step >= 7:
                    _stepped(name, b, step)
            assert step < 7 or [g["lr"] for g in one.param_groups] == [g["lr"] for g in other.param_groups], names
