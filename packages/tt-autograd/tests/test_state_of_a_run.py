"""What must not outlive its use: modes, callbacks, broken weights, and a resume that failed."""

import functools

import numpy as np
import pytest

import tt_autograd as ta
import tt_optim as to
import tt_tensor as tt

fit = functools.partial(ta.fit, progress=False)


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def mean(outputs, targets):
    return outputs.mean()


def network():
    return tt.Sequential(tt.Linear(3, 4), tt.Dropout(0.5), tt.Linear(4, 2))


DATA = [(tt.ones(2, 3), tt.tensor([0, 1]))] * 3


def modes(model):
    return [part.training for part in model.modules()]


@pytest.mark.parametrize("use", ["evaluate", "confusion", "fit", "evaluate with an error"])
def test_every_part_keeps_its_mode(use):
    model = network()
    model[1].eval()
    before = modes(model)
    if use == "evaluate":
        ta.evaluate(model, tt.cross_entropy, DATA)
    elif use == "confusion":
        ta.confusion(model, *DATA[0], 2)
    elif use == "fit":
        optimizer = to.SGD(model.parameters(), lr=0.1)
        fit(model, tt.cross_entropy, optimizer, DATA, epochs=2, validation=DATA)
    else:
        with pytest.raises(ZeroDivisionError):
            ta.evaluate(model, lambda outputs, targets: 1 / 0, DATA)
    assert modes(model) == before


def test_a_model_that_was_evaluated_is_trained_in_training_mode():
    model = network().eval()
    fit(model, tt.cross_entropy, to.SGD(model.parameters(), lr=0.1), DATA, epochs=1)
    assert all(modes(model))


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: ta.EarlyStopping("loss", patience=2, restore_best=True),
        lambda folder: ta.BestCheckpoint(folder / "best", "loss"),
        lambda folder: ta.WeightAverage(0.5),
    ],
)
def test_a_callback_that_is_used_again_starts_anew(make, tmp_path):
    def trained(callback, factor):
        tt.manual_seed(1)
        model = tt.Linear(1, 1)
        data = [(tt.ones(4, 1), tt.full((4, 1), factor))]
        history = fit(
            model, tt.mse_loss, to.SGD(model.parameters(), lr=0.1), data, epochs=5, callbacks=[callback],
        )
        return repr(history["loss"]), repr(model.state_dict()), repr(callback.state_dict())

    used = make(tmp_path)
    trained(used, 1.0)
    assert trained(used, 50.0) == trained(make(tmp_path), 50.0)


class Sudden(tt.Module):
    """Its third loss is finite and has a gradient that is not."""

    def __init__(self):
        super().__init__()
        self.w, self.calls = tt.Parameter([1.0]), 0

    def forward(self, x):
        self.calls += 1
        loss = (self.w * x).sum()
        return loss if self.calls != 3 else loss + (self.w - self.w).sqrt().sum()


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"accumulate": 3}])
def test_a_broken_gradient_reaches_neither_weights_nor_checkpoint(options, tmp_path):
    model = Sudden()
    optimizer = to.Adam(model.parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match=r"gradient of w, of shape \(1,\).*detect_anomaly"):
        fit(
            model, lambda a, b: a, optimizer, [(tt.ones(1), tt.tensor([0]))] * 6, epochs=1, checkpoint=tmp_path / "c",
            checkpoint_every=1, **options,
        )
    assert np.isfinite(model.w.numpy()).all()
    if "accumulate" not in options:
        assert np.isfinite(ta.load_checkpoint(tmp_path / "c")["model"]["w"].numpy()).all()


def test_weights_that_overflow_do_not_replace_a_good_checkpoint(tmp_path):
    model = tt.Linear(1, 1)
    optimizer, data = to.SGD(model.parameters(), lr=0.1), [(tt.ones(1, 1), tt.zeros(1, 1))]
    fit(model, tt.mse_loss, optimizer, data, epochs=1, checkpoint=tmp_path / "c")
    good = (tmp_path / "c").read_bytes()
    optimizer.param_groups[0]["lr"] = 1e39
    with pytest.raises(RuntimeError, match="weight.*was not changed"), np.errstate(all="ignore"):
        fit(model, tt.mse_loss, optimizer, data, epochs=1, checkpoint=tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == good


class Counts(ta.Callback):
    """A callback with a state of its own."""

    def __init__(self):
        self.steps = 0

    def on_step(self, run):
        self.steps += 1

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


def parts(model, optimizer, *callbacks):
    return repr([model.state_dict(), optimizer.state_dict(), [c.state_dict() for c in callbacks], tt.get_rng_state()])


@pytest.mark.parametrize(
    "change",
    ["groups", "optimizer", "callbacks", "more callbacks", "model", "no training"],
)
def test_a_resume_that_fails_changes_nothing(change, tmp_path):
    path, model = tmp_path / "c", network()
    schedule = lambda o: ta.Schedule(to.StepLR(o, 1))
    first = to.Adam(model.parameters())
    fit(model, tt.cross_entropy, first, DATA, epochs=1, callbacks=[Counts(), schedule(first)], checkpoint=path)
    if change == "no training":
        ta.save_checkpoint(path, {"model": model.state_dict()})
    other = tt.Sequential(tt.Linear(3, 5), tt.Linear(5, 2)) if change == "model" else network()
    optimizer = to.Adam(other.parameters())
    if change == "groups":
        optimizer = to.Adam([{"params": other[0].parameters()}, {"params": other[2].parameters()}])
    if change == "optimizer":
        optimizer = to.SGD(other.parameters(), lr=0.1)
    callbacks = [Counts(), schedule(optimizer)]
    if change == "callbacks":
        callbacks = [Counts(), ta.EarlyStopping("loss")]
    if change == "more callbacks":
        callbacks.append(Counts())
    before = parts(other, optimizer, *callbacks)
    with pytest.raises((ValueError, RuntimeError)):
        fit(other, tt.cross_entropy, optimizer, DATA, epochs=2, callbacks=callbacks, checkpoint=path, resume=True)
    assert parts(other, optimizer, *callbacks) == before


@pytest.mark.parametrize(
    "outputs, targets",
    [((3, 1), (3,)), ((3, 2), (3, 1)), ((3,), (3, 1)), ((3, 2), (2,)), ((3, 2, 4), (3, 2)), ((), (3,))],
)
def test_accuracy_refuses_shapes_that_do_not_fit(outputs, targets):
    with pytest.raises(ValueError, match="accuracy needs logits.*squeeze"):
        ta.accuracy(tt.zeros(*outputs), tt.zeros(*targets, dtype=tt.int64))


def test_accuracy_counts_exactly():
    right = tt.zeros(2**24 + 2)
    assert ta.accuracy(right - 1, right) == 1.0
    pixels = tt.tensor([[[0.0, 1.0], [1.0, 0.0]]]).transpose(1, 2)
    assert ta.accuracy(pixels, tt.tensor([[1, 1]])) == 0.5


def test_metrics_of_one_name_are_refused():
    model = network()
    for metrics in ([lambda a, b: 1.0] * 2, [mean, functools.partial(mean), mean]):
        with pytest.raises(ValueError, match="the name is taken"):
            ta.evaluate(model, tt.cross_entropy, DATA, metrics)
    for name in ("loss", "lr", "seconds", "val_loss"):
        metric = lambda a, b: 1.0
        metric.__name__ = name
        with pytest.raises(ValueError, match=name):
            fit(model, tt.cross_entropy, to.SGD(model.parameters()), DATA, epochs=1, metrics=[metric])
    assert ta.evaluate(model, tt.cross_entropy, DATA, [functools.partial(mean)])["partial"] is not None


def test_a_schedule_and_what_it_watches_belong_together():
    optimizer = to.SGD([tt.Parameter([1.0])], lr=0.1)
    plateau, step = to.ReduceLROnPlateau(optimizer), to.StepLR(optimizer, 1)
    ta.Schedule(plateau, monitor="loss"), ta.Schedule(step, each="step")
    for wrong in (
        lambda: ta.Schedule(plateau), lambda: ta.Schedule(step, monitor="loss"),
        lambda: ta.Schedule(plateau, each="step", monitor="loss"),
    ):
        with pytest.raises(ValueError, match="ReduceLROnPlateau needs monitor"):
            wrong()
