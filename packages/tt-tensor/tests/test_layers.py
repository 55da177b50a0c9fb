"""Chapter 04, judged by its public names."""

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor.teaching import between, expect

LINEAR, ROW, DROPOUT = "Linear", "Layers in a row", "Layers without parameters"
REGISTERS, MODULE, STATE = "The idea: assignment registers", "Module", "Saving and loading"


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
    expect(
        "shape of Linear(4, 2) of a tensor of shape (5, 3, 4)",
        lambda: tt.Linear(4, 2)(tt.zeros(5, 3, 4)).shape,
        (5, 3, 2),
        "Only the last dimension changes; those before it are the batch.",
        see=LINEAR,
    )
    expect(
        "Linear(2, 1, bias=False) with weight [[1, 2]] of [[3, 4]]",
        lambda: without_bias()(tt.Tensor([[3, 4]])),
        [[11]],
        "A layer may have no bias: then it is a product alone.",
        see=LINEAR,
    )
    expect(
        "Linear(4, 2) of a tensor of shape (5, 3)",
        lambda: tt.Linear(4, 2)(tt.zeros(5, 3)),
        ValueError,
        "Leave the work to `linear`, which refuses sizes that do not fit.",
        see=LINEAR,
    )


def without_bias():
    layer = tt.Linear(2, 1, bias=False)
    layer.weight.data = tt.Tensor([[1, 2]])
    return layer


def test_affine_refuses_two_dtypes():
    x, weight, bias = np.ones((1, 2)), np.ones((3, 2), np.float32), np.ones(3, np.float32)
    for name, arrays in (("input", (x, weight, bias)), ("bias", (weight, weight, bias.astype(float)))):
        expect(
            f"affine of a float64 {name} and a float32 weight",
            lambda arrays=arrays: tt.affine(*map(tt.Tensor, arrays)),
            TypeError,
            "A float64 batch would double the work of a whole network: let `_alike` refuse it.",
            see=LINEAR,
        )
    expect(
        "what affine leaves in the bias [1, 1, 1]",
        lambda: (tt.affine(tt.Tensor(weight), tt.Tensor(weight), kept := tt.Tensor(bias)), kept)[1],
        [1, 1, 1],
        "The sum was written into the bias: write it into the product, which nobody else has seen.",
        see=LINEAR,
    )


def test_linear_lists_weight_and_bias():
    expect(
        "len(list(Linear(3, 2).parameters()))",
        lambda: len(list(tt.Linear(3, 2).parameters())),
        2,
        (1, "The bias is no parameter, so it is never trained: make it a Parameter and assign it to the module."),
        see="Parameter",
    )
    expect(
        "names and shapes of the parameters of Linear(3, 2)",
        lambda: {name: p.shape for name, p in tt.Linear(3, 2).named_parameters()},
        {"weight": (2, 3), "bias": (2,)},
        "A pair (dotted name, parameter) for each.",
        see=MODULE,
    )


def test_units_start_out_different():
    def two_units():
        layer = tt.Linear(4, 2)
        return [*layer(tt.ones(1, 4)).tolist()[0], layer.weight.abs().sum().item()]

    def different(found):
        """two numbers that differ, and a third"""
        return found[0] != found[1]

    expect(
        "Linear(4, 2)(ones(1, 4)), and the sum of the sizes of its weights",
        two_units,
        different,
        (
            lambda found: found[2] == 0,
            "Both units are identical: zero weights keep the symmetry, through all of training. Draw them at random.",
        ),
        "Both units are identical.",
        see=LINEAR,
    )


def test_weights_are_drawn_anew():
    def twice():
        layer = tt.Linear(30, 20)
        first = layer.weight.tolist()
        layer.reset_parameters()
        return first != layer.weight.tolist()

    expect(
        "does Linear(30, 20).reset_parameters() change the weight?",
        twice,
        True,
        "It draws new numbers each time, and copies them into the weight.",
        see=LINEAR,
    )

    def drawn():
        tt.manual_seed(3)
        return tt.Linear(3, 2).weight.tolist()

    expect(
        "does the same seed give the same layer?",
        lambda: drawn() == drawn(),
        True,
        "Draw from generator(), the one that manual_seed seeds.",
        see=LINEAR,
    )

    def kept():
        layer = tt.Linear(3, 2)
        weight = layer.weight
        layer.reset_parameters()
        return layer.weight is weight

    expect(
        "do the parameters of a layer stay the same objects?",
        kept,
        True,
        "Write new values into the parameters that are there: an optimizer may hold them.",
        see=LINEAR,
    )


def test_a_signal_survives_ten_layers():
    def spread():
        h = tt.randn(200, 256)
        for _ in range(10):
            h = tt.tanh(tt.Linear(256, 256)(h))
        return h.std().item()

    expect(
        "standard deviation after ten times Linear(256, 256) and tanh",
        spread,
        between(0.01, 0.7),
        (between(0.7, 1), "The activations saturate, where tanh has no slope: scale the weights by 1/sqrt(fan_in)."),
        (between(0, 0.01), "The signal has died out: the weights are too small, scale them by 1/sqrt(fan_in)."),
        see=LINEAR,
    )
    for name in ("weight", "bias"):
        expect(
            f"largest size in Linear(256, 64).{name}, times 16",
            lambda name=name: 16 * getattr(tt.Linear(256, 64), name).abs().max().item(),
            between(0.8, 1.0001),
            "Weights and bias are uniform between -1/sqrt(fan_in) and 1/sqrt(fan_in), as PyTorch's are.",
            see=LINEAR,
        )


def test_sequential_runs_its_layers_in_order():
    names = ["c", "a", "f", "b", "e", "d"]

    def calls():
        notes = []
        made = {name: Note(name, notes) for name in sorted(names)}
        tt.Sequential(*(made[name] for name in names))(tt.zeros(1))
        return notes

    expect(
        "Sequential(c, a, f, b, e, d) calls",
        calls,
        names,
        (names * 2, "Every layer ran twice; each layer runs once, in the order given."),
        (["d"], "Only the last layer ran; all layers run, in the order given."),
        (lambda calls: sorted(calls) == sorted(names), "The layers run in the order given; a set has no order."),
        see=ROW,
    )
    expect(
        "Sequential(2 x + 1, ReLU(), 3 x) of [[1], [-1]]",
        lambda: tt.Sequential(linear_with([[2]], [1]), tt.ReLU(), linear_with([[3]], [0]))(tt.Tensor([[1], [-1]])),
        [[9], [0]],
        ([[7], [0]], "The layers run from the first to the last."),
        ([[1], [-1]], "Hand the output of each layer to the next."),
        see=ROW,
    )
    expect(
        "Sequential()(x) for x = [1, 2]",
        lambda: tt.Sequential()(tt.Tensor([1, 2])),
        [1, 2],
        "Without a layer, what comes in goes out.",
        see=ROW,
    )


def test_dropout_drops_the_share_p():
    expect(
        "share of zeros in dropout(ones(10000), p=0.1)",
        lambda: (tt.dropout(tt.ones(10_000), p=0.1) == 0).to(tt.float32).mean().item(),
        between(0.08, 0.12),
        (between(0.88, 0.92), "p is the probability to drop an element, not to keep it: p=0.1 should drop 10 %."),
        see=DROPOUT,
    )


def test_dropout_keeps_the_mean():
    expect(
        "mean of dropout(ones(10000), p=0.5)",
        lambda: tt.dropout(tt.ones(10_000), p=0.5).mean().item(),
        between(0.95, 1.05),
        (between(0.45, 0.55), "Half of the sum is gone: scale the survivors by 1/(1-p)."),
        see=DROPOUT,
    )
    expect(
        "dropout(ones(4), p=1)",
        lambda: tt.dropout(tt.ones(4), p=1.0),
        [0, 0, 0, 0],
        (lambda y: np.isnan(y).any(), "0 / 0 is nan: with p = 1 nothing survives, and nothing is to be scaled."),
        see=DROPOUT,
    )
    expect(
        "dropout(ones(4), p=0)",
        lambda: tt.dropout(tt.ones(4), p=0.0),
        [1, 1, 1, 1],
        "With p = 0 nothing is dropped.",
        see=DROPOUT,
    )
    for dtype in ("float32", "float64"):
        expect(
            f"dtype of dropout of a {dtype} tensor",
            lambda dtype=dtype: str(tt.dropout(tt.ones(4).to(np.dtype(dtype))).dtype),
            dtype,
            "Make the mask an array of x's dtype.",
            see=DROPOUT,
        )
    for p in (1.5, -0.5):
        expect(
            f"dropout(ones(2), p={p})",
            lambda p=p: tt.dropout(tt.ones(2), p=p),
            ValueError,
            "A probability lies between 0 and 1: refuse any other.",
            see=DROPOUT,
        )


def test_dropout_draws_for_each_element():
    def lines():
        kept = tt.dropout(tt.ones(100, 100), p=0.5).numpy()
        return int((kept == 0).all(axis=0).sum()), int((kept == 0).all(axis=1).sum())

    expect(
        "columns and rows of dropout(ones(100, 100), p=0.5) that are all 0",
        lines,
        (0, 0),
        "Draw a number for each element: the mask has the shape of x.",
        see=DROPOUT,
    )

    def dropped():
        tt.manual_seed(3)
        return tt.dropout(tt.ones(50), p=0.5).tolist()

    expect(
        "does the same seed drop the same elements?",
        lambda: dropped() == dropped(),
        True,
        "Draw from generator(), the one that manual_seed seeds.",
        see=DROPOUT,
    )
    expect(
        "x = ones(20); dropout(x, p=0.5); x",
        lambda: (tt.dropout(x := tt.ones(20), p=0.5), x)[1],
        np.ones(20),
        "dropout has written into its input: make a new tensor.",
        see=DROPOUT,
    )


def test_dropout_does_nothing_in_evaluation():
    layer, x = tt.Dropout(0.5).eval(), tt.ones(1000)
    expect(
        "Dropout(0.5).eval(): do two calls agree?",
        lambda: (layer(x) == layer(x)).all().item(),
        True,
        "Two calls differ in eval mode: drop only while `training`.",
        see=DROPOUT,
    )
    expect(
        "Dropout(0.5).eval()(ones(1000)).mean()",
        lambda: layer(x).mean().item(),
        1,
        "In eval mode the input comes back unchanged.",
        see=DROPOUT,
    )
    expect(
        "Dropout(0.5).train(): do two calls differ?",
        lambda: not (layer.train()(x) == layer(x)).all().item(),
        True,
        "In training each call draws anew.",
        see=DROPOUT,
    )


def test_modes_reach_every_part():
    model = tt.Sequential(tt.Linear(2, 2), tt.Sequential(tt.Dropout(0.5)))
    for mode in (True, False):
        expect(
            f"the modes of a network and its three parts after train({mode})",
            lambda mode=mode: [m.training for m in model.train(mode).modules()],
            [mode] * 4,
            "A module that is assigned to another one goes into its drawer `_modules`, where train() finds it.",
            see=MODULE,
        )


class Net(tt.Module):
    """A layer, a parameter, a buffer, a number."""

    def __init__(self):
        super().__init__()
        self.hidden, self.scale = tt.Linear(2, 3), tt.Parameter([1.0])
        self.register_buffer("seen", tt.zeros(1))
        self.rate = 0.5


def names_of(module):
    return sorted(name for name, _ in module.named_parameters())


def test_assignment_registers_parts_by_name():
    names = ["hidden.bias", "hidden.weight", "scale"]
    also = "A parameter goes into the drawer for parameters, a module into that for modules."
    expect(
        "names of the parameters of a module of one parameter and a layer, sorted",
        lambda: names_of(Net()),
        names,
        also,
        see=REGISTERS,
    )
    expect(
        "the attribute rate = 0.5 of a module, and whether it stands among the parameters",
        lambda: (Net().rate, "rate" in Net()._parameters),
        (0.5, False),
        "What is no parameter, buffer or module is an attribute like any other.",
        see=MODULE,
    )

    def shared():
        net = Net()
        net.twin = net.hidden
        return names_of(net)

    expect(
        "the same, if a second name is given to the layer",
        shared,
        names,
        "A shared parameter is listed once.",
        see=MODULE,
    )


def test_assigning_a_name_again_replaces():
    def again(*values, name="hidden"):
        net = Net()
        for value in values:
            setattr(net, name, value)
        return names_of(net), type(getattr(net, name)).__name__

    expect(
        "parameters, sorted, after net.hidden = Parameter([1])",
        lambda: again(tt.Parameter([1.0]))[0],
        ["hidden", "scale"],
        "The old entry of a name has to go, from whichever drawer it was in.",
        see=MODULE,
    )
    expect(
        "number of parameters and class of net.extra after net.extra = 5, then = Linear(1, 1)",
        lambda: (lambda names, kind: (len(names), kind))(*again(5, tt.Linear(1, 1), name="extra")),
        (5, "Linear"),
        "The old entry of a name has to go, from whichever drawer it was in.",
        see=MODULE,
    )
    expect(
        "parameters after net.hidden = None",
        lambda: again(None)[0],
        ["scale"],
        "The old entry of a name has to go, from whichever drawer it was in.",
        see=MODULE,
    )


def test_a_module_that_forgot_its_super_init():
    class Forgetful(tt.Module):
        def __init__(self):
            self.layer = tt.Linear(1, 1)

    expect(
        "assigning a layer before super().__init__()",
        Forgetful,
        AttributeError,
        "There are no drawers yet: say so with an AttributeError.",
        see=MODULE,
    )


def test_the_state_is_the_tree_as_a_dictionary():
    expect(
        "sorted(state_dict()) of a module of a parameter, a buffer and a layer",
        lambda: sorted(Net().state_dict()),
        ["hidden.bias", "hidden.weight", "scale", "seen"],
        (["hidden.bias", "hidden.weight", "scale"], "The buffer is missing."),
        (["scale", "seen"], "The parts are missing: walk through all modules."),
        "Parameters and buffers of the module and of all its parts, each by its dotted name.",
        see=STATE,
    )

    def shared():
        net = Net()
        net.twin = net.hidden
        return sorted(net.state_dict())

    both = ["hidden.bias", "hidden.weight", "scale", "seen", "twin.bias", "twin.weight"]
    expect(
        "names in the state if a layer has two names", shared, both, "A shared tensor appears under each.", see=STATE
    )

    def written():
        net = Net()
        net.state_dict()["scale"].fill_(7)
        return net.scale.item(), net.state_dict()["scale"].requires_grad

    expect(
        "scale after state_dict()['scale'].fill_(7), and whether the state asks for gradients",
        written,
        (7, False),
        (lambda found: found[0] == 1, "The state holds copies; it shares memory with the module."),
        (lambda found: found[1], "The state holds the parameters themselves: detach them."),
        see=STATE,
    )
    expect(
        "names in the state of Linear(2, 1, bias=False)",
        lambda: list(tt.Linear(2, 1, bias=False).state_dict()),
        ["weight"],
        "The bias is None there; None is not saved.",
        see=STATE,
    )


def test_state_makes_a_round_trip():
    def copied():
        first, second, x = tt.digits_network(), tt.digits_network(), tt.randn(2, 64)
        kept, before = list(second.parameters()), (first(x) == second(x)).all().item()
        second.load_state_dict(first.state_dict())
        same = all(a is b for a, b in zip(kept, second.parameters()))
        return before, (first(x) == second(x)).all().item(), same

    expect(
        "do two networks agree before and after one loads the other's state, and are its parameters the same objects?",
        copied,
        (False, True, True),
        ((False, False, True), "The values are not copied."),
        ((False, True, False), "Copy the values into the parameters that are there: an optimizer may hold them."),
        see=STATE,
    )


@pytest.mark.parametrize(
    "what, change, word",
    [
        ("an extra tensor", lambda state: state.update(extra=tt.zeros(1)), "extra"),
        ("one tensor less", lambda state: state.pop("1.bias"), "1.bias"),
        ("a tensor of another shape", lambda state: state.update({"0.weight": tt.zeros(3, 3)}), "0.weight"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(what, change, word):
    model = tt.Sequential(tt.Linear(2, 3), tt.Linear(3, 1))
    state = {name: tt.ones(*tensor.shape) for name, tensor in model.state_dict().items()}
    before = [p.tolist() for p in model.parameters()]
    change(state)

    def said():
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            return word in str(error)
        return "nothing was raised"

    expect(
        f"load_state_dict of a state with {what}: a RuntimeError that names {word}?",
        said,
        True,
        ("nothing was raised", "A checkpoint that does not fit has to be refused, or random weights stay in place."),
        "The message lists what is missing, unexpected, or of another shape.",
        see=STATE,
    )
    expect(
        "are the parameters as before, after a state that was refused?",
        lambda: [p.tolist() for p in model.parameters()] == before,
        True,
        "Look at everything before anything is changed.",
        see=STATE,
    )


def test_a_partial_state_can_be_asked_for():
    def loaded():
        model = tt.Sequential(tt.Linear(2, 1))
        model.load_state_dict({"0.bias": tt.ones(1), "9.bias": tt.ones(1)}, strict=False)
        return model[0].bias

    expect(
        "the bias after a state of a bias and a stranger, strict=False",
        loaded,
        [1],
        "If not strict, what both have is copied, and what only one has is left alone.",
        see=STATE,
    )
    expect(
        "a tensor of another shape with strict=False",
        lambda: tt.Sequential(tt.Linear(2, 1)).load_state_dict({"0.bias": tt.ones(4)}, strict=False),
        RuntimeError,
        "Another shape never fits, strict or not.",
        see=STATE,
    )


def test_the_perceptron_learns_what_a_line_can_separate():
    x = tt.Tensor((np.sin(np.arange(200.0) * 3).reshape(100, 2) * 2).astype(np.float32))
    margin = x @ tt.Tensor([2, -1]) + 0.3
    apart = margin.abs() > 0.2
    x, labels = x[apart], margin[apart].sign()

    def learn(epochs):
        layer = linear_with([[0, 0]], [0])
        return layer, tt.train_perceptron(layer, x, labels, epochs=epochs)

    expect(
        "corrections in the last of 100 epochs of the perceptron, on points that a line separates",
        lambda: learn(100)[1][-1],
        0,
        "Add label * x to the weights and the label to the bias, for examples on the wrong side only.",
        see="The perceptron",
    )
    expect(
        "number of epochs in the history, and whether the first had corrections",
        lambda: (len(learn(5)[1]), learn(5)[1][0] > 0),
        (5, True),
        "The history has one number of corrections for each epoch.",
        see="The perceptron",
    )
    expect(
        "how many of the points end on the right side",
        lambda: ((learn(100)[0](x).squeeze(1) * labels) > 0).sum().item() / len(labels),
        1,
        "The corrections are to be made in the layer's own weight and bias.",
        see="The perceptron",
    )

    def one():
        layer = linear_with([[0, 0]], [0])
        tt.train_perceptron(layer, tt.Tensor([[3, 4]]), tt.Tensor([-1]), epochs=1)
        return [*layer.weight.tolist()[0], layer.bias.item()]

    expect(
        "weights and bias after one correction, for the example (3, 4) with label -1",
        one,
        [-3, -4, -1],
        ([3, 4, 1], "The label's sign is missing: add label * x."),
        ([0, 0, 0], "An example that comes out at 0 is not on its side yet: correct it."),
        ([-3, -4, 0], "The label is to be added to the bias, too."),
        see="The perceptron",
    )


def test_exercises():
    block = tt.Residual(linear_with([[2]], [1]))
    expect(
        "Residual(2 x + 1)(3)",
        lambda: block(tt.Tensor([[3]])),
        [[10]],
        ([[7]], "This is what the inner module gives: add its input."),
        see="Exercises",
    )
    network = tt.Sequential(tt.Linear(2, 3), tt.ReLU(), tt.Linear(3, 1))
    expect(
        "count_parameters(Sequential(Linear(2, 3), ReLU(), Linear(3, 1)))",
        lambda: tt.count_parameters(network),
        {"0": 9, "1": 0, "2": 4},
        ({"0": 9, "2": 4}, "A part that learns nothing is listed, too, with 0."),
        ({"0": 2, "1": 0, "2": 2}, "Count the numbers, not the tensors: numel()."),
        see="Exercises",
    )
    expect(
        'freeze(network, "0."), and who asks for gradients then',
        lambda: (tt.freeze(network, "0."), {name: p.requires_grad for name, p in network.named_parameters()}),
        (2, {"0.weight": False, "0.bias": False, "2.weight": True, "2.bias": True}),
        (lambda found: not any(found[1].values()), "All are frozen; only names that start with the prefix are meant."),
        "Ask for no gradients of the parameters whose names start with the prefix, and return how many there are.",
        see="Exercises",
    )
