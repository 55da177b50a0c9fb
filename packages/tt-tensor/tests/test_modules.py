"""Modules and their initialisations, beyond what the exercises of chapter 04 ask for."""

import math

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor.teaching import between, expect

LINEAR = "Linear"


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def test_parts_can_be_taken_away():
    class Net(tt.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.scale = tt.Linear(2, 3), tt.Parameter([1.0])

    net = Net()
    net.twin = net.hidden
    assert len(list(net.parameters())) == 3
    del net.hidden, net.twin
    assert [name for name, _ in net.named_parameters()] == ["scale"]
    assert all(p.requires_grad for p in tt.Linear(3, 2).parameters())
    assert tt.Linear(4, 2, bias=False).bias is None


def test_a_row_is_a_list():
    model = tt.Sequential(tt.Linear(1, 1), tt.ReLU())
    assert len(model) == 2 and isinstance(model[1], tt.ReLU)


@pytest.mark.parametrize(
    "wrong, error, words",
    [
        (lambda: tt.Linear(4, 2)(tt.zeros(5, 3)), ValueError, r"\(5, 3\).*\(2, 4\)"),
        (lambda: tt.Linear(0, 2), ValueError, "0"),
        (lambda: tt.Dropout(1.5), ValueError, "1.5"),
        (lambda: tt.dropout(tt.ones(2), p=-0.5), ValueError, "-0.5"),
        (lambda: tt.Sequential(tt.Linear(2, 2), tt.relu), TypeError, "ReLU"),
        (lambda: tt.ReLU(slope=True), TypeError, "slope"),
        (lambda: tt.ELU(1.0, alpha=2.0), TypeError, "alpha"),
        (lambda: tt.Softmax()(tt.ones(1, 2, 3)), ValueError, "dim"),
        (lambda: tt.Module()(1), NotImplementedError, "forward"),
        (lambda: tt.xavier_normal_(tt.zeros(3)), ValueError, r"\(3,\)"),
        (lambda: tt.kaiming_normal_(tt.zeros(3, 3), mode="fan"), ValueError, "fan_in"),
        (lambda: tt.calculate_gain("cubic"), ValueError, "cubic"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(wrong, error, words):
    with pytest.raises(error, match=words):
        wrong()


@pytest.mark.parametrize(
    "init, spread",
    [
        (tt.xavier_normal_, math.sqrt(2 / 500)),
        (tt.xavier_uniform_, math.sqrt(2 / 500)),
        (tt.kaiming_normal_, math.sqrt(2 / 200)),
        (tt.kaiming_uniform_, math.sqrt(2 / 200)),
    ],
)
def test_initialisations_have_their_spread(init, spread):
    weight = tt.zeros(300, 200)
    assert init(weight) is weight
    expect(
        f"standard deviation of {init.__name__}(zeros(300, 200))",
        weight.std().item(),
        between(0.97 * spread, 1.03 * spread),
        see=LINEAR,
    )


@pytest.mark.parametrize(
    "module, function",
    [
        ("ReLU", "relu"),
        ("LeakyReLU", "leaky_relu"),
        ("ELU", "elu"),
        ("Sigmoid", "sigmoid"),
        ("Tanh", "tanh"),
        ("Softplus", "softplus"),
        ("GELU", "gelu"),
        ("SiLU", "silu"),
    ],
)
def test_activations_come_as_modules(module, function):
    x = tt.randn(3, 4)
    assert (getattr(tt, module)()(x) == getattr(tt, function)(x)).all()


def test_options_of_modules():
    x = tt.Tensor([[-1, 1]])
    assert tt.LeakyReLU(0.5)(x).tolist() == [[-0.5, 1]] and np.allclose(tt.Softmax(dim=0)(x).numpy(), 1)
    assert tt.Flatten()(tt.zeros(5, 2, 3)).shape == (5, 6) and tt.Identity()(x) is x


class Net(tt.Module):
    """A module with one entry of each kind."""

    def __init__(self):
        super().__init__()
        self.part, self.weight = tt.Linear(1, 1), tt.Parameter([1.0])
        self.register_buffer("mean", tt.zeros(1))


@pytest.mark.parametrize("value", [1, 0.5, [1.0], np.ones(1), tt.ones(1), tt.Parameter([2.0]), tt.Linear(1, 1), None])
@pytest.mark.parametrize("name", ["part", "weight", "mean"])
def test_a_name_accepts_its_own_kind_only(name, value):
    net, parameter = Net(), isinstance(value, tt.Parameter)
    allowed = {"part": (tt.Module,), "weight": (), "mean": (tt.Tensor, tt.Module)}[name]
    if value is None or parameter or isinstance(value, allowed):  # as in PyTorch
        setattr(net, name, value)
        assert getattr(net, name) is value
        return
    before = {key: id(tensor) for key, tensor in net.named_parameters()}
    with pytest.raises(TypeError, match=rf"Net.{name} holds a (Module|Parameter|Tensor) or None, not"):
        setattr(net, name, value)
    assert {key: id(tensor) for key, tensor in net.named_parameters()} == before


@pytest.mark.parametrize(
    "name, value, error, words",
    [
        ("mask", 3, TypeError, "mask holds a Tensor or None, not int"),
        ("mask", np.ones(1), TypeError, "ndarray"),
        ("a.b", tt.ones(1), ValueError, "a.b"),
        ("weight", tt.ones(1), ValueError, "not be an attribute yet"),
        ("forward", tt.ones(1), ValueError, "not be an attribute yet"),
    ],
)
def test_what_cannot_be_a_buffer(name, value, error, words):
    with pytest.raises(error, match=words):
        Net().register_buffer(name, value)


def test_messages_speak_of_modules():
    net = tt.Linear(1, 1)
    for wrong in (lambda: net.zero_grad(1, 2), lambda: net.train(1, 2), lambda: net.register_buffer(), net.__delattr__):
        with pytest.raises(TypeError, match=r"^Module\."):
            wrong()


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_was_dropped_is_0(value):
    x = tt.full((1000,), value)
    dropped = tt.dropout(x, 0.5).numpy()
    assert 300 < (dropped == 0).sum() < 700 and not np.isfinite(dropped[dropped != 0]).any()
    assert (tt.dropout(x, 1.0) == 0).all()


def test_dropout2d_of_rows_warns_and_drops_single_elements():
    tt.manual_seed(0)
    with pytest.warns(UserWarning, match=r"\(40, 50\) drops single elements"):
        dropped = tt.dropout2d(tt.ones(40, 50), 0.25) == 0
    assert 0.2 < dropped.float().mean().item() < 0.3 and not dropped.all(1).any() and not dropped.all(0).any()
    with pytest.raises(ValueError, match="3 or 4 dimensions"):
        tt.dropout2d(tt.ones(4))
