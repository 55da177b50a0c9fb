"""Chapter 04, judged by its public names."""

import math

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor.teaching import between, expect

LINEAR, ROW, DROPOUT = "Linear", "Layers in a row", "Layers without parameters"


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def linear_with(weight, bias):
    layer = tt.Linear(len(weight[0]), len(weight))
    layer.weight.data, layer.bias.data = tt.Tensor(weight), tt.Tensor(bias)
    return layer


class Note(tt.Module):
    """Writes its name down when it is called."""

    def __init__(self, name, notes):
        super().__init__()
        self.name, self.notes = name, notes

    def forward(self, x):
        self.notes.append(self.name)
        return x


def test_linear_is_a_product_and_a_bias():
    expect(
        "shape of Linear(4, 2).bias",
        lambda: tt.Linear(4, 2).bias.shape,
        (2,),
        "The bias holds one number for each output: of shape (out,) it can broadcast over the batch.",
        see=LINEAR,
    )
    x, layer = tt.Tensor([[1, 2], [3, 4], [5, 6]]), linear_with([[1, 1], [1, -1]], [10, 20])
    expect(
        "Linear(2, 2) with weight [[1, 1], [1, -1]] and bias [10, 20] of [[1, 2], [3, 4], [5, 6]]",
        lambda: layer(x),
        [[13, 19], [17, 19], [21, 19]],
        ([[33, -11], [37, -11], [41, -11]], "The bias was added to the input: add it after the product."),
        ([[3, -1], [7, -1], [11, -1]], "The bias is missing."),
        (ValueError, "The bias must broadcast over the batch: its shape is (out,), and it is added last."),
        see=LINEAR,
    )
    expect(
        "shape of Linear(4, 2) of a batch of 3",
        lambda: tt.Linear(4, 2)(tt.zeros(3, 4)).shape,
        (3, 2),
        "The bias must broadcast over the batch: its shape is (out,), and it is added last.",
        see=LINEAR,
    )
    assert tt.Linear(4, 2)(tt.zeros(5, 3, 4)).shape == (5, 3, 2) and tt.Linear(4, 2, bias=False).bias is None


def test_linear_lists_weight_and_bias():
    expect(
        "len(list(Linear(3, 2).parameters()))",
        lambda: len(list(tt.Linear(3, 2).parameters())),
        2,
        (1, "The bias is no parameter, so it is never trained: make it a Parameter and assign it to the module."),
        see="Parameter",
    )
    assert [name for name, _ in tt.Linear(3, 2).named_parameters()] == ["weight", "bias"]
    assert tt.Linear(3, 2).weight.shape == (2, 3) and all(p.requires_grad for p in tt.Linear(3, 2).parameters())


def test_units_start_out_different():
    layer = tt.Linear(4, 2)
    first, second = layer(tt.ones(1, 4)).tolist()[0]
    expect(
        "Linear(4, 2)(ones(1, 4)): the two units differ",
        first != second,
        True,
        (
            lambda _: not layer.weight.numpy().any(),
            "Both units are identical: zero weights keep the symmetry, through all of training. Draw them at random.",
        ),
        "Both units are identical.",
        see=LINEAR,
    )


def test_a_signal_survives_ten_layers():
    h = tt.randn(200, 256)
    for _ in range(10):
        h = tt.tanh(tt.Linear(256, 256)(h))
    expect(
        "standard deviation after ten times Linear(256, 256) and tanh",
        h.std().item(),
        between(0.01, 0.7),
        (between(0.7, 1), "The activations saturate, where tanh has no slope: scale the weights by 1/sqrt(fan_in)."),
        (between(0, 0.01), "The signal has died out: the weights are too small, scale them by 1/sqrt(fan_in)."),
        see=LINEAR,
    )
    bound = tt.Linear(256, 64).weight.abs().max().item()
    assert 0.9 / 16 < bound <= 1 / 16, "weights are uniform between +-1/sqrt(fan_in), as PyTorch's"


def test_sequential_runs_its_layers_in_order():
    notes, names = [], ["a", "b", "c", "d", "e", "f"]
    tt.Sequential(*(Note(name, notes) for name in names))(tt.zeros(1))
    expect(
        "Sequential(a, b, c, d, e, f) calls",
        notes,
        names,
        (names * 2, "Every layer ran twice; each layer runs once, in the order given."),
        (["f"], "Only the last layer ran; all layers run, in the order given."),
        (lambda calls: sorted(calls) == names, "The layers run in the order given; a set has no order."),
        see=ROW,
    )
    model = tt.Sequential(linear_with([[2]], [1]), tt.ReLU(), linear_with([[3]], [0]))
    assert model(tt.Tensor([[1], [-1]])).tolist() == [[9], [0]] and len(model) == 3 and isinstance(model[1], tt.ReLU)


def test_dropout_drops_the_share_p():
    kept = (tt.dropout(tt.ones(10_000), p=0.1) != 0).to(tt.float32).mean().item()
    expect(
        "share of zeros in dropout(ones(10000), p=0.1)",
        1 - kept,
        between(0.08, 0.12),
        (between(0.88, 0.92), "p is the probability to drop an element, not to keep it: p=0.1 should drop 10 %."),
        see=DROPOUT,
    )


def test_dropout_keeps_the_mean():
    expect(
        "mean of dropout(ones(10000), p=0.5)",
        tt.dropout(tt.ones(10_000), p=0.5).mean().item(),
        between(0.95, 1.05),
        (between(0.45, 0.55), "Half of the sum is gone: scale the survivors by 1/(1-p)."),
        see=DROPOUT,
    )
    assert tt.dropout(tt.ones(8), p=1.0).tolist() == [0] * 8, "with p = 1 nothing survives, and nothing is nan"


def test_dropout_does_nothing_in_evaluation():
    layer, x = tt.Dropout(0.5).eval(), tt.ones(1000)
    expect(
        "Dropout(0.5).eval(): do two calls agree?",
        (layer(x) == layer(x)).all().item(),
        True,
        "Two calls differ in eval mode: drop only while `training`.",
        see=DROPOUT,
    )
    expect(
        "Dropout(0.5).eval()(ones(1000)).mean()",
        layer(x).mean().item(),
        1,
        "In eval mode the input comes back unchanged.",
        see=DROPOUT,
    )
    assert not (layer.train()(x) == layer(x)).all(), "in training two calls differ"


def test_modes_reach_every_part():
    model = tt.Sequential(tt.Linear(2, 2), tt.Sequential(tt.Dropout(0.5)))
    assert [m.training for m in model.modules()] == [True] * 4
    assert [m.training for m in model.eval().modules()] == [False] * 4 and model.train()[1][0].training


def test_assignment_registers_parts_by_name():
    class Net(tt.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.scale = tt.Linear(2, 3), tt.Parameter([1.0])
            self.register_buffer("seen", tt.zeros(1))

    net = Net()
    assert [name for name, _ in net.named_parameters()] == ["scale", "hidden.weight", "hidden.bias"]
    assert list(net.state_dict()) == ["scale", "seen", "hidden.weight", "hidden.bias"]
    net.twin = net.hidden
    assert len(list(net.parameters())) == 3, "a shared parameter is listed once"
    del net.hidden, net.twin
    assert [name for name, _ in net.named_parameters()] == ["scale"]


def test_state_makes_a_round_trip():
    first, second, x = tt.digits_network(), tt.digits_network(), tt.randn(2, 64)
    kept = list(second.parameters())
    assert not (first(x) == second(x)).all()
    second.load_state_dict(first.state_dict())
    assert (first(x) == second(x)).all() and all(a is b for a, b in zip(kept, second.parameters())), (
        "values are copied into the same parameters"
    )


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda state: state.update(extra=tt.zeros(1)), "unexpected.*extra"),
        (lambda state: state.pop("1.bias"), r"missing.*1\.bias"),
        (lambda state: state.update({"0.weight": tt.zeros(3, 3)}), r"0\.weight.*\(3, 3\).*\(3, 2\)"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change, words):
    model = tt.Sequential(tt.Linear(2, 3), tt.Linear(3, 1))
    state = {name: tt.ones(*tensor.shape) for name, tensor in model.state_dict().items()}
    before = model[1].weight.tolist()
    change(state)
    with pytest.raises(RuntimeError, match=f"(?s){words}"):
        model.load_state_dict(state)
    assert model[1].weight.tolist() == before


def test_a_partial_state_can_be_asked_for():
    model = tt.Sequential(tt.Linear(2, 1))
    model.load_state_dict({"0.bias": tt.ones(1), "9.bias": tt.ones(1)}, strict=False)
    assert model[0].bias.tolist() == [1]


@pytest.mark.parametrize(
    "wrong, error, words",
    [
        (lambda: tt.Linear(4, 2)(tt.zeros(5, 3)), ValueError, r"\(5, 3\).*\(2, 4\)"),
        (lambda: tt.Linear(0, 2), ValueError, "0"),
        (lambda: tt.Dropout(1.5), ValueError, "1.5"),
        (lambda: tt.dropout(tt.ones(2), p=-0.5), ValueError, "-0.5"),
        (lambda: tt.Sequential(tt.Linear(2, 2), tt.relu), TypeError, "ReLU"),
        (lambda: tt.ReLU(inplace=True), TypeError, "inplace"),
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


def test_the_perceptron_learns_what_a_line_can_separate():
    x = tt.randn(100, 2)
    labels = ((x @ tt.Tensor([2, -1]) + 0.3) > 0).to(tt.float32) * 2 - 1
    apart = (x @ tt.Tensor([2, -1]) + 0.3).abs() > 0.2
    layer = tt.Linear(2, 1)
    corrections = tt.train_perceptron(layer, x[apart], labels[apart], epochs=100)
    expect(
        "corrections in the last epoch of the perceptron, on points that a line separates",
        corrections[-1],
        0,
        "Add label * x to the weights and the label to the bias, for examples on the wrong side only.",
        see="The perceptron",
    )
    assert corrections[0] > 0 and ((layer(x[apart]).squeeze(1) * labels[apart]) > 0).all()


def test_exercises():
    block = tt.Residual(linear_with([[2]], [1]))
    expect("Residual(2 x + 1)(3)", lambda: block(tt.Tensor([[3]])), [[10]], see="Exercises")
    network = tt.Sequential(tt.Linear(2, 3), tt.ReLU(), tt.Linear(3, 1))
    expect("count_parameters(network)", lambda: tt.count_parameters(network), {"0": 9, "1": 0, "2": 4}, see="Exercises")
    expect('freeze(network, "0.")', lambda: tt.freeze(network, "0."), 2, see="Exercises")
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True]
