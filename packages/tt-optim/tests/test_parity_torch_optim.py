"""All of torch.optim and torch.optim.lr_scheduler: names, signatures, defaults, printed forms, steps and rates."""

import inspect
import math
import warnings

import numpy as np
import pytest

import tt_optim as to
import tt_tensor as tt

torch = pytest.importorskip("torch", reason="torch is the oracle here: hatch run parity:run")

pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
SHAPES = [(3, 4), (5,), (), (1, 1, 2)]

# Which names of torch are not here, and why.

MISSING = {
    "SparseAdam": "tensors are dense: there are no sparse gradients to treat",
    "Adafactor": "its point is the memory of models far larger than NumPy trains",
    "Muon": "PyTorch iterates in bfloat16, which NumPy does not have, so its numbers cannot be reproduced",
    "update_bn": "tt_optim comes before batch normalization",
    "swap_in_optimizer_params_and_state": "it serves tools that look into torch.compile",
}


@pytest.fixture(autouse=True)
def counts_in_float64():
    """PyTorch keeps the numbers of ASGD and NAdam in its default dtype; ours are Python's."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def public(module):
    return {name for name in module.__all__ if callable(getattr(module, name))}


@pytest.mark.parametrize("where", ["optim", "optim.lr_scheduler", "optim.swa_utils"])
def test_every_name_of_torch_is_here_with_its_parameters_or_is_missing_for_a_reason(where):
    module = torch.optim if where == "optim" else getattr(torch.optim, where.split(".")[1])
    for name in public(module):
        assert hasattr(to, name) != (name in MISSING), name
        if name not in MISSING:
            ours, theirs = (inspect.signature(getattr(lib, name)).parameters for lib in (to, module))
            assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()], name
            assert [p.default for p in ours.values()] == [p.default for p in theirs.values()], name


def test_clipping_has_the_parameters_of_torch():
    for name in ("clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm"):
        ours, theirs = (inspect.signature(f).parameters for f in (getattr(to, name), getattr(torch.nn.utils, name)))
        assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()], name


OPTIONS = {
    "Adadelta": [{}, {"lr": 0.5, "rho": 0.7, "eps": 1e-4, "weight_decay": 0.1}, {"maximize": True}],
    "Adagrad": [{}, {"lr_decay": 0.1, "maximize": True, "weight_decay": 0.1, "initial_accumulator_value": 0.2}],
    "Adam": [
        {}, {"amsgrad": True}, {"maximize": True, "weight_decay": 0.1},
        {"amsgrad": True, "maximize": True, "weight_decay": 0.1, "betas": (0.5, 0.6)},
        {"decoupled_weight_decay": True, "weight_decay": 0.1, "amsgrad": True},
        {"decoupled_weight_decay": True, "weight_decay": 0.1},
    ],
    "AdamW": [{}, {"amsgrad": True, "betas": (0.5, 0.6)}, {"maximize": True, "weight_decay": 0.3}],
    "Adamax": [{}, {"betas": (0.5, 0.7), "eps": 1e-3, "weight_decay": 0.1}, {"maximize": True}],
    "ASGD": [{}, {"lambd": 0.1, "alpha": 0.5, "t0": 5, "weight_decay": 0.1}, {"maximize": True, "t0": 0}],
    "NAdam": [{}, {"betas": (0.5, 0.7), "momentum_decay": 0.1, "weight_decay": 0.1},
              {"maximize": True, "weight_decay": 0.2, "decoupled_weight_decay": True}],
    "RAdam": [{}, {"betas": (0.5, 0.9), "weight_decay": 0.1}, {"betas": (0.9, 0.6), "eps": 1e-2},
              {"maximize": True, "weight_decay": 0.2, "decoupled_weight_decay": True}],
    "RMSprop": [{}, {"maximize": True, "momentum": 0.5, "centered": True, "weight_decay": 0.1}],
    "Rprop": [{}, {"lr": 0.1, "etas": (0.3, 1.5), "step_sizes": (0.01, 0.2)}, {"maximize": True}],
    "SGD": [{}, {"maximize": True, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
            {"momentum": 0.9, "nesterov": True, "maximize": True}],
}
CASES = [(name, options) for name, several in OPTIONS.items() for options in several]


def start():
    random = np.random.default_rng(0)
    values = [np.asarray(random.standard_normal(s)) for s in SHAPES]
    return [tt.Parameter(v.copy()) for v in values], [torch.nn.Parameter(torch.from_numpy(v.copy())) for v in values]


def slopes(value, step):
    scale = np.geomspace(0.01, 10, value.size).reshape(value.shape)
    return np.asarray(scale * (np.sin(3 * value) + 0.5 * value + 0.3 * np.cos(step)))


def walk(ours, theirs, one, other, steps, first=0):
    for step in range(first, first + steps):
        for p, q in zip(ours, theirs):
            value = np.array(p.numpy())
            p.grad, q.grad = tt.from_numpy(slopes(value, step)), torch.from_numpy(slopes(value, step))
        one.step(), other.step()
        for p, q in zip(ours, theirs):
            np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-12, atol=1e-13, err_msg=f"step {step}")


def pair(name, options=None):
    (ours, theirs), options = start(), options or {}
    return ours, theirs, getattr(to, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_twenty_steps(name, options):
    walk(*pair(name, options), 20)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_each_library_goes_on_where_the_other_was_saved(name, options):
    ours, theirs, one, other = pair(name, options)
    walk(ours, theirs, one, other, 7)
    as_torch = lambda v: torch.from_numpy(np.array(v)) if isinstance(v, tt.Tensor) else v
    saved, theirs_saved = one.state_dict(), other.state_dict()
    state = {i: {k: as_torch(v) for k, v in memory.items()} for i, memory in saved["state"].items()}
    for memory in state.values():
        memory["step"] = torch.tensor(float(memory["step"]))
        memory.update({k: torch.tensor(v) for k, v in memory.items() if k in ("eta", "mu", "mu_product")})
    one, other = getattr(to, name)(ours), getattr(torch.optim, name)(theirs)
    as_ours = lambda v: tt.from_numpy(v.numpy()) if isinstance(v, torch.Tensor) else v
    theirs_state = {i: {k: as_ours(v) for k, v in memory.items()} for i, memory in theirs_saved["state"].items()}
    one.load_state_dict({"state": theirs_state, "param_groups": theirs_saved["param_groups"]})
    other.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
    walk(ours, theirs, one, other, 7, first=7)


@pytest.mark.parametrize("name", [*OPTIONS, "LBFGS"])
def test_defaults_groups_and_printed_form(name):
    _, _, one, other = pair(name)
    assert one.defaults == other.defaults and repr(one) == repr(other)
    assert one.state_dict() == other.state_dict() or name == "Adagrad"  # whose sums torch makes at once


@pytest.mark.parametrize("name", sorted(set(OPTIONS) - {"SGD"}))
def test_the_memory_has_the_names_of_torch(name):
    ours, theirs, one, other = pair(name)
    walk(ours, theirs, one, other, 1)
    extra = {"RMSprop": {"momentum_buffer", "grad_avg"}}.get(name, set())
    assert one.state[ours[0]].keys() - extra == other.state[theirs[0]].keys()


@pytest.mark.parametrize("named", [False, True])
def test_groups_that_come_later(named):
    ours, theirs = start()
    both = []
    for lib, ps in ((to, ours), (torch.optim, theirs)):
        first, second = [(f"p{i}", p) for i, p in enumerate(ps)][:2], [("late", ps[2])]
        if not named:
            first, second = ([p for _, p in part] for part in (first, second))
        optimizer = lib.SGD(first, lr=0.1, momentum=0.5)
        optimizer.add_param_group({"params": second if named else second[0], "lr": 0.01})
        with pytest.raises(ValueError):
            optimizer.add_param_group({"params": second})
        with pytest.raises(ValueError, match="names"):
            optimizer.add_param_group({"params": [ps[3]] if named else [("name", ps[3])]})
        both.append(optimizer)
    walk(ours[:3], theirs[:3], *both, 5)
    assert [{k: v for k, v in g.items() if k != "params"} for g in both[0].param_groups] == [
        {k: v for k, v in g.items() if k != "params"} for g in both[1].param_groups
    ]
    assert repr(both[0]) == repr(both[1])


# LBFGS and closures


def lbfgs(optim, parameter, as_tensor, options, steps, seed):
    """Losses, weights and the number of evaluations, by gradients that are derived by hand."""
    random = np.random.default_rng(seed)
    a, b, first, second = (random.standard_normal(s) for s in ((6, 5), (6,), (5,), (2, 2)))
    p, q = parameter(as_tensor(first)), parameter(as_tensor(second))
    optimizer, losses, calls = optim.LBFGS([p, q], **options), [], []

    def closure():
        w, v = p.detach().numpy(), q.detach().numpy()
        r, calls[:] = a @ w, [*calls, 1]
        p.grad = as_tensor(a.T @ (2 * (r - b) + np.sin(2 * r)))
        q.grad = as_tensor(4 * (v - 1) ** 3 + 2 * v)
        return float(((r - b) ** 2).sum() + (np.sin(r) ** 2).sum() + ((v - 1) ** 4).sum() + (v**2).sum())

    for _ in range(steps):
        losses.append(optimizer.step(closure))
    return losses, p.detach().numpy(), len(calls), optimizer.state[p]["func_evals"], optimizer.state[p]["n_iter"]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("options", [
    {"max_iter": 6}, {"line_search_fn": "strong_wolfe", "max_iter": 6}, {"lr": 0.1, "history_size": 2, "max_iter": 9},
    {"history_size": 2, "line_search_fn": "strong_wolfe", "max_eval": 7},
    {"lr": 3.0, "line_search_fn": "strong_wolfe", "max_eval": 3}, {"line_search_fn": "strong_wolfe", "max_eval": 1},
    {"lr": 1e-3, "line_search_fn": "strong_wolfe", "max_iter": 3}, {"tolerance_change": 1e-2}, {"tolerance_grad": 5.0},
    {"lr": 200.0, "max_iter": 1, "line_search_fn": "strong_wolfe"},
], ids=str)
def test_lbfgs(options, seed):
    ours = lbfgs(to, tt.Parameter, tt.from_numpy, options, 2, seed)
    theirs = lbfgs(torch.optim, torch.nn.Parameter, torch.from_numpy, options, 2, seed)
    assert ours[2:] == theirs[2:]
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-11)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-9)


def test_line_searches_on_waves():
    """Along a wavy line a search goes out, narrows, is near an end twice, and takes the lower of two points."""
    for seed in range(60):
        ends = []
        for optim, parameter, as_tensor in (
            (to, tt.Parameter, tt.from_numpy), (torch.optim, torch.nn.Parameter, torch.from_numpy)
        ):
            random = np.random.default_rng(seed)
            waves, heights = random.uniform(0.5, 9, (4, 2)), random.uniform(0.1, 2, 4)
            p = parameter(as_tensor(random.standard_normal(2)))
            rate = 10 ** random.uniform(-2, 1.5)
            optimizer = optim.LBFGS([p], lr=rate, max_iter=3, max_eval=40, line_search_fn="strong_wolfe")

            def closure(p=p, as_tensor=as_tensor, waves=waves, heights=heights):
                w = p.detach().numpy()
                p.grad = as_tensor(waves.T @ (heights * np.cos(waves @ w)) + 0.2 * w)
                return float(heights @ np.sin(waves @ w) + 0.1 * (w**2).sum())

            optimizer.step(closure)
            ends.append((p.detach().numpy(), optimizer.state[p]["func_evals"]))
        assert ends[0][1] == ends[1][1], seed
        np.testing.assert_allclose(ends[0][0], ends[1][0], rtol=1e-7, err_msg=str(seed))


# Schedulers


def pair_of_optimizers(kind="SGD"):
    groups = lambda ps: [{"params": ps[:1]}, {"params": ps[1:], "lr": 0.02}]
    options = {"momentum": 0.9} if kind == "SGD" else {}
    ours, theirs = start()
    return getattr(to, kind)(groups(ours), lr=0.1, **options), getattr(torch.optim, kind)(
        groups(theirs), lr=0.1, **options
    )


def _sequence(lib, o):
    parts = [lib.ConstantLR(o, 0.2, 3), lib.CosineAnnealingWarmRestarts(o, 3), lib.PolynomialLR(o, 5)]
    return lib.SequentialLR(o, parts, [3, 8])


SCHEDULES = {
    "ConstantLR": lambda lib, o: lib.ConstantLR(o),
    "ConstantLR options": lambda lib, o: lib.ConstantLR(o, factor=0.7, total_iters=9),
    "MultiplicativeLR": lambda lib, o: lib.MultiplicativeLR(o, lambda step: 1 - 0.5 / (1 + step)),
    "MultiplicativeLR list": lambda lib, o: lib.MultiplicativeLR(o, [lambda step: 0.9, lambda step: 1 / step]),
    "PolynomialLR": lambda lib, o: lib.PolynomialLR(o),
    "PolynomialLR power": lambda lib, o: lib.PolynomialLR(o, 18, power=0.9),
    "restarts": lambda lib, o: lib.CosineAnnealingWarmRestarts(o, 4),
    "restarts doubled": lambda lib, o: lib.CosineAnnealingWarmRestarts(o, 2, T_mult=2, eta_min=0.001),
    "CyclicLR": lambda lib, o: lib.CyclicLR(o, 0.01, 0.1, step_size_up=4),
    "CyclicLR lists": lambda lib, o: lib.CyclicLR(
        o, [0.01, 0.02], [0.1, 0.3], step_size_up=2, step_size_down=5, base_momentum=0.5, max_momentum=0.99
    ),
    "CyclicLR triangular2": lambda lib, o: lib.CyclicLR(o, 0.01, 0.1, 3, mode="triangular2", cycle_momentum=False),
    "CyclicLR exp_range": lambda lib, o: lib.CyclicLR(o, 0.01, 0.1, 3, mode="exp_range", gamma=0.9),
    "CyclicLR own scale": lambda lib, o: lib.CyclicLR(o, 0.01, 0.1, 3, scale_fn=lambda n: 1 / n, scale_mode="cycle"),
    "OneCycleLR epochs": lambda lib, o: lib.OneCycleLR(o, [0.3, 0.1], epochs=5, steps_per_epoch=5, three_phase=True),
    "OneCycleLR momenta": lambda lib, o: lib.OneCycleLR(
        o, 0.3, 25, base_momentum=[0.7, 0.8], max_momentum=[0.9, 0.95], three_phase=True, anneal_strategy="linear"
    ),
    "SequentialLR": _sequence,
    "ChainedScheduler": lambda lib, o: lib.ChainedScheduler([lib.ConstantLR(o, 0.1, 4), lib.ExponentialLR(o, 0.9)]),
    "SWALR": lambda lib, o: _swa(lib)(o, 0.05, anneal_epochs=6),
    "SWALR linear": lambda lib, o: _swa(lib)(o, swa_lr=0.3, anneal_epochs=5, anneal_strategy="linear"),
    "SWALR at once": lambda lib, o: _swa(lib)(o, [0.05, 0.1], anneal_epochs=0),
    "StepLR": lambda lib, o: lib.StepLR(o, 5, gamma=0.3),
    "LinearLR": lambda lib, o: lib.LinearLR(o),
    "CosineAnnealingLR": lambda lib, o: lib.CosineAnnealingLR(o, 7),
    "LambdaLR": lambda lib, o: lib.LambdaLR(o, lambda step: 1 / (1 + step)),
}


def _swa(lib):
    return to.SWALR if lib is to else torch.optim.swa_utils.SWALR


def compare(one, other, ours, theirs, message):
    for group, reference in zip(one.param_groups, other.param_groups):
        for name in ("lr", "momentum", "betas"):
            if name in reference:
                np.testing.assert_allclose(
                    group[name], reference[name], rtol=1e-12, atol=1e-16, err_msg=f"{name} {message}"
                )
    np.testing.assert_allclose(ours.get_last_lr(), theirs.get_last_lr(), rtol=1e-12, atol=1e-16, err_msg=message)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rates(schedule, kind):
    one, other = pair_of_optimizers(kind)
    ours, theirs = SCHEDULES[schedule](to, one), SCHEDULES[schedule](torch.optim.lr_scheduler, other)
    for step in range(25):
        compare(one, other, ours, theirs, f"after {step} steps")
        ours.step(), theirs.step()


SECOND = {"StepLR": lambda lib, o: lib.StepLR(o, 2), "ExponentialLR": lambda lib, o: lib.ExponentialLR(o, 0.9)}


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_beside_another_scheduler_and_a_hand(schedule, second):
    one, other = pair_of_optimizers()
    ours, theirs = SCHEDULES[schedule](to, one), SCHEDULES[schedule](torch.optim.lr_scheduler, other)
    beside = SECOND[second](to, one), SECOND[second](torch.optim.lr_scheduler, other)
    for step in range(20):
        if step == 6:
            one.param_groups[0]["lr"] = other.param_groups[0]["lr"] = 0.3
        ours.step(), theirs.step()
        compare(one, other, ours, theirs, f"after {step + 1} steps")
        beside[0].step(), beside[1].step()
        compare(one, other, *beside, f"of the other after {step + 1} steps")


RESUMED = sorted(set(SCHEDULES) - {"SequentialLR", "ChainedScheduler", "restarts doubled"} - {
    name for name in SCHEDULES if name.startswith("SWALR")
})


@pytest.mark.parametrize("schedule", RESUMED)
def test_going_on_after_last_epoch(schedule, monkeypatch):
    one, other = pair_of_optimizers()
    both = []
    for lib, optimizer in ((to, one), (torch.optim.lr_scheduler, other)):
        first = SCHEDULES[schedule](lib, optimizer)
        for _ in range(5):
            first.step()

        class Resuming:
            def __getattr__(self, name, lib=lib):
                return lambda *args, **options: getattr(lib, name)(*args, **options, last_epoch=4)

        both.append(SCHEDULES[schedule](Resuming(), optimizer))
    for step in range(15):
        compare(one, other, *both, f"after {step} further steps")
        both[0].step(), both[1].step()


def test_going_on_needs_initial_rates():
    one, other = pair_of_optimizers()
    for lib, optimizer in ((to, one), (torch.optim.lr_scheduler, other)):
        with pytest.raises(KeyError, match="initial_lr"):
            lib.StepLR(optimizer, 2, last_epoch=3)


@pytest.mark.parametrize("schedule", ["StepLR", "ConstantLR", "PolynomialLR power", "CosineAnnealingLR", "LambdaLR"])
def test_a_step_to_an_epoch(schedule):
    one, other = pair_of_optimizers()
    ours, theirs = SCHEDULES[schedule](to, one), SCHEDULES[schedule](torch.optim.lr_scheduler, other)
    for epoch in (3, 1, None, 6, None):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            ours.step(epoch)
            assert bool(seen) == (epoch is not None)
            theirs.step(epoch)
        compare(one, other, ours, theirs, f"step({epoch})")


@pytest.mark.parametrize("multiplier", [1, 2])
def test_restarts_within_epochs(multiplier):
    one, other = pair_of_optimizers()
    ours, theirs = (lib.CosineAnnealingWarmRestarts(o, 3, multiplier) for lib, o in (
        (to, one), (torch.optim.lr_scheduler, other)
    ))
    for epoch in (0.5, 1.25, 2.75, 3.0, None, 7.5, None, 10, 0.25, None):
        ours.step(epoch), theirs.step(epoch)
        compare(one, other, ours, theirs, f"step({epoch})")


def test_plateau_in_absolute_terms_with_a_floor_for_each_group():
    for mode in ("min", "max"):
        options = {"mode": mode, "threshold_mode": "abs", "threshold": 0.05, "patience": 1, "factor": 0.5}
        one, other = pair_of_optimizers()
        ours, theirs = (
            lib.ReduceLROnPlateau(o, min_lr=[0.03, 0.001], **options)
            for lib, o in ((to, one), (torch.optim.lr_scheduler, other))
        )
        for step in range(20):
            metric = math.exp(-step / 5) * (1 if mode == "min" else -1)
            ours.step(metrics=metric), theirs.step(metrics=metric)
            compare(one, other, ours, theirs, f"after {step + 1} steps")


def test_a_scheduler_of_ones_own():
    def make(lib):
        class Halving(lib.LRScheduler):
            def __init__(self, optimizer, last_epoch=-1):
                super().__init__(optimizer, last_epoch)

            def get_lr(self):
                return [base * 0.5**self.last_epoch for base in self.base_lrs]

        return Halving

    one, other = pair_of_optimizers()
    ours, theirs = make(to)(one), make(torch.optim.lr_scheduler)(other)
    for epoch in (None, None, 5, None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours.step(epoch), theirs.step(epoch)
        compare(one, other, ours, theirs, f"step({epoch})")


# Norms and averages


@pytest.mark.parametrize("norm_type", [2.0, 1, math.inf, 3.0])
def test_norms(norm_type):
    ours, theirs = start()
    for p, q in zip(ours, theirs):
        p.grad, q.grad = tt.from_numpy(slopes(p.numpy(), 1)), torch.from_numpy(slopes(p.numpy(), 1))
    total = to.get_total_norm([p.grad for p in ours], norm_type)
    expected = torch.nn.utils.get_total_norm([q.grad for q in theirs], norm_type)
    assert total.item() == pytest.approx(expected.item(), rel=1e-12) and total.dtype == np.float64
    to.clip_grads_with_norm_(ours, 0.5, total)
    torch.nn.utils.clip_grads_with_norm_(theirs, 0.5, expected)
    for p, q in zip(ours, theirs):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-12)
    assert to.get_total_norm([]).item() == torch.nn.utils.get_total_norm([]).item() == 0


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("how", ["default", "ema", "multi ema", "multi swa"])
def test_averaged_models(how, use_buffers):
    def run(lib, utils, as_tensor, numbers):
        options = {
            "default": {}, "ema": {"avg_fn": utils.get_ema_avg_fn(0.9)},
            "multi ema": {"multi_avg_fn": utils.get_ema_multi_avg_fn(0.9)},
            "multi swa": {"multi_avg_fn": utils.get_swa_multi_avg_fn()},
        }[how]
        model = lib.Linear(2, 3).double()
        model.register_buffer("mean", as_tensor(np.zeros(2)))
        averaged = utils.AveragedModel(model, use_buffers=use_buffers, **options)
        for values in numbers:
            for tensor, value in zip([*model.parameters(), model.mean], values):
                tensor.data = as_tensor(value)
            averaged.update_parameters(model)
        x = as_tensor(np.ones((1, 2)))
        return {k: v.numpy() for k, v in averaged.state_dict().items()}, averaged(x).detach().numpy()

    random = np.random.default_rng(0)
    numbers = [[random.standard_normal(s) for s in ((3, 2), (3,), (2,))] for _ in range(4)]
    ours, out = run(tt, to, tt.from_numpy, numbers)
    theirs, expected = run(torch.nn, torch.optim.swa_utils, torch.from_numpy, numbers)
    assert list(ours) == list(theirs)
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(out, expected, rtol=1e-12)
