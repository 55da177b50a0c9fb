"""What PyTorch's programs ask of optimizers and schedulers besides steps: closures, hooks, groups, options, errors."""

import copy
import math

import numpy as np
import pytest

import tt_optim as to
import tt_tensor as tt

MAKERS = {
    name: getattr(to, name)
    for name in ("ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD")
}


def parameter(value=1.0, gradient=1.0):
    p = tt.Parameter(np.array([value], np.float64))
    p.grad = tt.Tensor(np.array([gradient]))
    return p


@pytest.mark.parametrize("name", MAKERS)
def test_options_without_effect_are_accepted_and_differentiable_is_refused(name):
    plain, other = parameter(), parameter()
    for p, options in ((plain, {}), (other, {"foreach": True})):
        MAKERS[name]([p], lr=0.1, **options).step()
    assert plain.item() == other.item() != 1
    with pytest.raises(ValueError, match="differentiable must be False"):
        MAKERS[name]([plain], differentiable=True)


@pytest.mark.parametrize("name", MAKERS)
def test_uphill_is_downhill_with_the_gradient_turned_round(name):
    up, down = parameter(), parameter()
    optimizers = MAKERS[name]([up], lr=0.1, maximize=True), MAKERS[name]([down], lr=0.1)
    for _ in range(3):
        up.grad, down.grad = tt.Tensor(np.array([2.0])), tt.Tensor(np.array([-2.0]))
        for optimizer in optimizers:
            optimizer.step()
    assert up.item() == down.item() and up.grad.item() == 2


@pytest.mark.parametrize("name", MAKERS)
def test_a_closure_is_called_first_and_its_loss_is_returned(name):
    p = parameter(gradient=0.0)
    optimizer = MAKERS[name]([p], lr=0.1)

    def closure():
        assert p.item() == 1.0
        p.grad = tt.Tensor(np.array([2.0]))
        return 7.0

    assert optimizer.step(closure) == 7.0 and p.item() < 1
    assert optimizer.step() is None


def test_hooks_are_called_around_a_step_until_they_are_removed():
    p, story = parameter(), []
    optimizer = to.SGD([p], lr=0.5)
    before = optimizer.register_step_pre_hook(lambda o, args, _: story.append(("before", o is optimizer, p.item())))
    after = optimizer.register_step_post_hook(lambda o, args, _: story.append(("after", len(args), p.item())))
    optimizer.step()
    before.remove()
    optimizer.step(lambda: 0.0)
    after.remove()
    optimizer.step()
    assert story == [("before", True, 1.0), ("after", 0, 0.5), ("after", 1, 0.0)]
    assert not to.SGD([p]).pre_hooks


def test_an_optimizer_written_for_pytorch():
    class Sign(to.Optimizer):
        def __init__(self, params, lr=0.1):
            super().__init__(params, {"lr": lr})

        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    state = self.state[p]
                    if len(state) == 0:
                        state["count"], state["last"] = 0, tt.zeros_like(p.data)
                    state["count"] += 1
                    state["last"] = p.grad.clone()
                    p.data = p.data - group["lr"] * p.grad.sign()

    p = parameter()
    optimizer = Sign([p])
    to.StepLR(optimizer, 1)
    optimizer.step()
    assert p.item() == pytest.approx(0.9)
    other = Sign([p])
    other.load_state_dict(optimizer.state_dict())
    assert other.state[p]["count"] == 1 and other.state[p]["last"].item() == 1.0


def test_groups_that_come_later_have_the_defaults_and_a_check():
    p, q = parameter(), parameter()
    optimizer = to.Adam([p], lr=0.5, amsgrad=True)
    optimizer.add_param_group({"params": q, "lr": 0.1})
    assert optimizer.param_groups[1]["amsgrad"] and optimizer.param_groups[1]["lr"] == 0.1
    optimizer.step()
    assert (p.item(), q.item()) == pytest.approx((0.5, 0.9))
    for group, words in (({"params": [q]}, "twice"), ({"params": [parameter()], "lr": -1}, "lr"), ({}, "params")):
        with pytest.raises(ValueError, match=words):
            optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 2


def test_parameters_with_names():
    model = tt.Linear(2, 3)
    optimizer = to.SGD(model.named_parameters(), lr=0.1)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    assert [p is q for p, q in zip(optimizer.param_groups[0]["params"], model.parameters())] == [True, True]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]
    with pytest.raises(TypeError, match="set"):
        to.SGD({"params"}, lr=0.1)


def test_a_rate_may_be_a_tensor():
    p = parameter()
    to.SGD([p], lr=tt.tensor(0.5)).step()
    assert p.item() == 0.5


def test_a_state_that_was_saved_before_there_were_options_still_fits():
    p = parameter()
    optimizer = to.Adam([p], lr=0.1)
    optimizer.step()
    saved = optimizer.state_dict()
    old = {k: saved["param_groups"][0][k] for k in ("lr", "betas", "eps", "weight_decay", "params")}
    other = to.Adam([p], amsgrad=True)
    other.load_state_dict({**saved, "param_groups": [old]})
    assert other.param_groups[0]["lr"] == 0.1 and other.state[p]["step"] == 1


def test_the_largest_average_is_saved():
    p = parameter(gradient=5.0)
    optimizer = to.AdamW([p], lr=0.1, amsgrad=True, betas=(0.0, 0.5))
    optimizer.step()
    copy_of = copy.deepcopy(p)
    other = to.AdamW([copy_of], amsgrad=True)
    other.load_state_dict(optimizer.state_dict())
    for q, o in ((p, optimizer), (copy_of, other)):
        q.grad = tt.Tensor(np.array([0.1]))
        o.step()
    assert p.item() == copy_of.item() != 1


# L-BFGS


def bowl(options, dtype=np.float64):
    """A parameter in a bowl, L-BFGS, and the closure that fills in the gradient."""
    p = tt.Parameter(np.array([3.0, -2.0], dtype))
    curvature = np.array([1.0, 50.0], dtype)

    def closure():
        p.grad = tt.from_numpy(curvature * p.numpy())
        return tt.Tensor(np.array(0.5 * (curvature * p.numpy() ** 2).sum()))

    return p, to.LBFGS([p], **options), closure


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_finds_the_lowest_point_of_a_bowl(search):
    p, optimizer, closure = bowl({"line_search_fn": search, "max_iter": 30})
    assert optimizer.step(closure).item() == 104.5
    assert np.abs(p.numpy()).max() < 1e-4


def test_lbfgs_goes_on_from_a_saved_state():
    p, optimizer, closure = bowl({"max_iter": 3, "lr": 0.5})
    optimizer.step(closure)
    q, other, closure_of_other = bowl({"max_iter": 3})
    q.data = p.data.clone()
    other.load_state_dict(optimizer.state_dict())
    optimizer.step(closure), other.step(closure_of_other)
    assert p.tolist() == q.tolist() and optimizer.state[p]["n_iter"] == other.state[q]["n_iter"] == 4


def test_lbfgs_updates_half_precision():
    p, optimizer, closure = bowl({"max_iter": 20}, np.float16)
    optimizer.step(closure)
    assert p.dtype == np.float16 and np.abs(p.numpy()).max() < 1e-2


def test_lbfgs_forgets_what_is_older_than_its_history():
    p, optimizer, closure = bowl({"history_size": 2, "max_iter": 6, "lr": 0.1})
    optimizer.step(closure)
    assert len(optimizer.state[p]["old_dirs"]) == len(optimizer.state[p]["ro"]) == 2


# What is refused


def scheduler(name, *args, **options):
    return lambda p: getattr(to, name)(to.SGD([p]), *args, **options)


@pytest.mark.parametrize(
    "wrong, error, words",
    [
        (lambda p: to.LBFGS([{"params": [p]}, {"params": [parameter()]}]), ValueError, "one group"),
        (lambda p: to.LBFGS([p], line_search_fn="armijo"), ValueError, "armijo"),
        (lambda p: to.LBFGS([p]).step(), TypeError, "closure"),
        (lambda p: to.Adadelta([p], rho=1.5), ValueError, "rho.*1.5"),
        (lambda p: to.Rprop([p], etas=(0.5, 0.9)), ValueError, "etas"),
        (lambda p: to.Adamax([p], betas=(0.9, 1.0)), ValueError, "betas"),
        (lambda p: to.NAdam([p], momentum_decay=-1), ValueError, "momentum_decay"),
        (lambda p: to.RAdam([p], eps=-1), ValueError, "eps"),
        (lambda p: to.get_total_norm([tt.tensor([math.inf])], error_if_nonfinite=True), RuntimeError, "inf"),
        (lambda p: to.clip_grad_norm_([p], -1.0), ValueError, "max_norm.*-1"),
        (lambda p: to.clip_grads_with_norm_([p], -1.0, tt.tensor(1.0)), ValueError, "max_norm"),
        (scheduler("ConstantLR", 1.5), ValueError, "1.5"),
        (scheduler("MultiplicativeLR", [lambda step: 1.0] * 2), ValueError, "2 values"),
        (scheduler("CosineAnnealingWarmRestarts", 0), ValueError, "T_0"),
        (lambda p: to.CosineAnnealingWarmRestarts(to.SGD([p]), 3).step(-1), ValueError, "-1"),
        (scheduler("CyclicLR", 0.1, 0.2, mode="square"), ValueError, "square"),
        (lambda p: to.CyclicLR(to.Rprop([p]), 0.1, 0.2), ValueError, "Rprop has no momentum"),
        (lambda p: to.OneCycleLR(to.Rprop([p]), 0.1, 5), ValueError, "Rprop has no momentum"),
        (scheduler("OneCycleLR", 0.1, epochs=3), ValueError, "steps_per_epoch"),
        (scheduler("SWALR", 0.1, anneal_strategy="sine"), ValueError, "sine"),
        (scheduler("ReduceLROnPlateau", threshold_mode="log"), ValueError, "log"),
        (lambda p: to.ChainedScheduler([]), ValueError, "at least one"),
        (lambda p: to.ChainedScheduler([to.StepLR(to.SGD([p]), 1), to.StepLR(to.SGD([p]), 1)]), ValueError, "same"),
        (lambda p: to.ChainedScheduler([to.ReduceLROnPlateau(to.SGD([p]))]), ValueError, "step it beside"),
        (lambda p: to.AveragedModel(tt.Linear(1, 1), device="cuda"), RuntimeError, "cuda|CPU"),
        (lambda p: to.get_ema_avg_fn(2.0), ValueError, "decay"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(wrong, error, words):
    with pytest.raises(error, match=words):
        wrong(parameter())


@pytest.mark.parametrize(
    "make",
    [
        lambda o: to.ConstantLR(o, 0.5, 3),
        lambda o: to.PolynomialLR(o, 12),
        lambda o: to.MultiplicativeLR(o, lambda step: 0.9),
        lambda o: to.CosineAnnealingWarmRestarts(o, 2, 2),
        lambda o: to.CyclicLR(o, 0.1, 1.0, 3),
        lambda o: to.ChainedScheduler([to.ConstantLR(o, 0.5, 4), to.ExponentialLR(o, 0.9)]),
        lambda o: to.SWALR(o, 0.05, anneal_epochs=7),
        lambda o: to.OneCycleLR(o, 1.0, epochs=4, steps_per_epoch=4, three_phase=True),
    ],
)
def test_a_restored_schedule_goes_on(make):
    one, other = (to.SGD([parameter()], lr=1.0, momentum=0.5) for _ in range(2))
    before, after = make(one), make(other)
    for step in range(12):
        if step == 5:
            after.load_state_dict(before.state_dict())
        before.step()
        if step >= 5:
            after.step()
            assert before.get_last_lr() == after.get_last_lr() == [other.param_groups[0]["lr"]]
            assert one.param_groups[0]["momentum"] == other.param_groups[0]["momentum"]


def test_the_last_rate_is_that_of_the_scheduler_that_is_asked():
    optimizer = to.SGD([parameter()], lr=1.0)
    first, second = to.ExponentialLR(optimizer, 0.5), to.ExponentialLR(optimizer, 0.1)
    first.step(), second.step()
    assert first.get_last_lr() == [0.5] and second.get_last_lr() == pytest.approx([0.05])
