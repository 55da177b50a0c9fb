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
    turned = "The weight is (out, in): multiply by the transposed weight, x @ weight.T."
    x, layer = tt.Tensor([[1, 2], [3, 4], [5, 6]]), linear_with([[1, 2], [3, -1]], [10, 20])
    expect(
        "Linear(2, 2) with weight [[1, 2], [3, -1]] and bias [10, 20] of [[1, 2], [3, 4], [5, 6]]",
        lambda: layer(x),
        [[15, 21], [21, 25], [27, 29]],
        ([[17, 20], [25, 22], [33, 24]], turned),
        ([[7, 0], [15, 2], [23, 4]], turned),
        ([[55, 11], [61, 15], [67, 19]], "The bias was added to the input: add it after the product."),
        ([[5, 1], [11, 5], [17, 9]], "The bias is missing."),
        (ValueError, "The bias must broadcast over the batch: its shape is (out,), and it is added last."),
        see=LINEAR,
    )
    expect(
        "shape of Linear(4, 2) of a batch of 3",
        lambda: tt.Linear(4, 2)(tt.zeros(3, 4)).shape,
        (3, 2),
        (ValueError, turned),
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
    for shape in ((0, 4), (2, 0, 4), (4,)):
        expect(
            f"shape of Linear(4, 2) of a tensor of shape {shape}",
            lambda shape=shape: tt.Linear(4, 2)(tt.zeros(*shape)).shape,
            (*shape[:-1], 2),
            "Only the last dimension changes, also where the batch is empty, or a single row.",
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
            "A float64 batch would double the work of a whole network: let `same_dtype` refuse it.",
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


def test_a_new_linear_is_what_was_asked_for():
    def made(**options):
        layer = tt.Linear(3, 2, **options)
        return layer.in_features, layer.out_features, str(layer.weight.dtype), layer.bias is None

    expect(
        "in_features, out_features, dtype of the weight, and whether the bias is None, of Linear(3, 2)",
        made,
        (3, 2, "float32", False),
        ((2, 3, "float32", False), "The sizes are exchanged: inputs come first, then outputs."),
        "Keep both sizes as attributes; weight and bias are parameters of zeros, in the shapes of the docstring.",
        see=LINEAR,
    )
    expect(
        "the same of Linear(3, 2, bias=False, dtype=float64)",
        lambda: made(bias=False, dtype=tt.float64),
        (3, 2, "float64", True),
        (lambda found: found[2] != "float64", "Hand `dtype` to `zeros`."),
        (lambda found: not found[3], "Without a bias, `self.bias` is None."),
        see=LINEAR,
    )
    expect(
        "dtype of the bias of Linear(3, 2, dtype=float64)",
        lambda: str(tt.Linear(3, 2, dtype=tt.float64).bias.dtype),
        "float64",
        "Hand `dtype` to `zeros`, for the bias, too.",
        see=LINEAR,
    )
    for sizes in ((0, 2), (2, 0), (-1, 1)):
        expect(
            f"Linear{sizes}",
            lambda sizes=sizes: tt.Linear(*sizes),
            ValueError,
            "A layer without inputs or outputs is refused by `_refuse_sizes`: call it first.",
            see=LINEAR,
        )
    expect(
        'Linear(3, 2, device="gpu")',
        lambda: tt.Linear(3, 2, device="gpu"),
        RuntimeError,
        "Another device is refused by `_refuse_sizes`: hand it on.",
        see=LINEAR,
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
        "how many results on the way through dropout(ones(4), p=1) are infinite or nan",
        lambda: results_that_are_not_finite(lambda: tt.dropout(tt.ones(4), p=1.0)),
        0,
        "1 / (1 - p) is infinite, and infinity times 0 is nan, here or in a gradient: with p = 1 do not scale.",
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
    for p, training in ((1.5, True), (-0.5, True), (1.5, False), (-0.5, False)):
        expect(
            f"dropout(ones(2), p={p}, training={training})",
            lambda p=p, training=training: tt.dropout(tt.ones(2), p=p, training=training),
            ValueError,
            "A probability lies between 0 and 1: refuse any other, also when there is nothing to drop.",
            see=DROPOUT,
        )
    expect(
        "x = ones(3); dropout(x, training=False) is x",
        lambda: tt.dropout(x := tt.ones(3), training=False) is x,
        True,
        "In eval mode (training=False) x itself comes back: drop only while training.",
        see=DROPOUT,
    )
    expect(
        "shape of dropout(zeros(0, 3))",
        lambda: tt.dropout(tt.zeros(0, 3)).shape,
        (0, 3),
        "A tensor without elements comes out as it went in.",
        see=DROPOUT,
    )


def results_that_are_not_finite(call):
    """How many operations have a result that is infinite or nan."""
    found = []

    def look(next, primitive, tensors, params):
        result = next(primitive, tensors, params)
        found.append(not np.isfinite(np.asarray(result.numpy(), float)).all())
        return result

    with tt.interpreting(look):
        call()
    return sum(found)


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
        (lambda names: names[0].startswith("."), "At the top, where the prefix is empty, there is no dot."),
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
        (AttributeError, "Look in all three drawers: parameters, buffers and modules."),
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

    def said():
        try:
            Forgetful()
        except AttributeError as error:
            return str(error)
        return "nothing"

    def asks(text):
        """an AttributeError that asks for super().__init__()"""
        return "super().__init__()" in text

    expect(
        "what is said when a layer is assigned before super().__init__()",
        said,
        asks,
        ("nothing", "Without drawers the layer would be in no list: raise an AttributeError."),
        (
            lambda text: "_modules" in text or "_parameters" in text or "_buffers" in text,
            "This complains of an attribute that you never wrote: look first whether there are drawers.",
        ),
        (RecursionError, "`self._parameters` calls `__getattr__` while there are no drawers: ask `self.__dict__`."),
        'There are no drawers yet: say that "super().__init__()" has to be called before.',
        see=MODULE,
    )


def test_attributes_are_found_in_all_drawers():
    def found():
        net = Net()
        net.hidden.bias = None
        return type(net.hidden).__name__, net.scale.item(), net.seen.item(), net.hidden.bias, net.rate

    expect(
        "a part, a parameter, a buffer, a bias that is None, and a number, asked for by their names",
        found,
        ("Linear", 1.0, 0.0, None, 0.5),
        (AttributeError, "Look into all three drawers; a None that is in a drawer is found, too."),
        "Return what is in the drawer under that name.",
        see=MODULE,
    )

    def said(module):
        try:
            module.hiden
        except AttributeError as error:
            return "hiden" in str(error)
        return "nothing was raised"

    recursion = "`self._parameters` calls `__getattr__` as long as there are no drawers: ask `self.__dict__` for them."
    for kind, make in (("a module", Net), ("a module that has no drawers yet", lambda: Net.__new__(Net))):
        expect(
            f"{kind}.hiden: an AttributeError that says this name?",
            lambda make=make: said(make()),
            True,
            (RecursionError, recursion),
            ("nothing was raised", "A name that is in no drawer is refused, or a slip of the pen gives None."),
            (KeyError, "A drawer that is not there is an empty one: `self.__dict__.get(drawer, ())`."),
            "Python's own rule: AttributeError, with the name that was asked for.",
            see=MODULE,
        )


def nested():
    """A network with a part that has parts, and with a part that is there twice."""
    net = tt.Module()
    net.body = tt.Sequential(tt.Linear(2, 2), tt.ReLU())
    net.nothing = tt.ReLU()
    net.nothing = None
    net.again, net.act = net.body, tt.ReLU()
    return net


def test_the_walk_visits_every_module():
    once = ["", "body", "body.0", "body.1", "act"]
    twice = ["", "body", "body.0", "body.1", "again", "again.0", "again.1", "act"]
    expect(
        "names in a module with parts `body` (Linear, ReLU), `nothing` (None), `again` (the body) and `act`",
        lambda: [name for name, _ in nested().named_modules()],
        once,
        (twice, "A part that occurs twice is visited once: keep the ids of those that were there in `memo`."),
        (lambda names: ".body" in names, "At the top, where the prefix is empty, there is no dot."),
        (lambda names: "" not in names, "The module itself comes first, under its prefix."),
        (lambda names: sorted(names) == sorted(once), "A module comes before its parts, and parts in their order."),
        (lambda names: "0" in names, "The names of parts of parts begin with the path to them: hand the prefix on."),
        (["", "body", "act"], "Parts have parts: let each part walk through its own, with `yield from`."),
        (AttributeError, "A part that is None has no parts: leave it out."),
        see=MODULE,
    )
    expect(
        "the same with remove_duplicate=False",
        lambda: [name for name, _ in nested().named_modules(remove_duplicate=False)],
        twice,
        (once, "With remove_duplicate=False a part appears under each of its names."),
        (
            lambda names: len(names) < len(twice),
            "The parts of what occurs twice appear twice, too: hand remove_duplicate on.",
        ),
        see=MODULE,
    )
    expect(
        'the same with prefix="net"',
        lambda: [name for name, _ in nested().named_modules(prefix="net")],
        ["net", "net.body", "net.body.0", "net.body.1", "net.act"],
        (once, "`prefix` is the name of the module itself, and all other names begin with it."),
        see=MODULE,
    )

    def known():
        net, memo = nested(), set()
        list(net.body.named_modules(memo))
        return len(memo), [name for name, _ in net.named_modules(memo)]

    expect(
        "ids in a `memo` that was handed to the walk through `body`, and names of all after it with the same memo",
        known,
        (3, ["", "act"]),
        (lambda found: found[0] != 3, "Every module that is visited leaves its id in `memo`, the caller's own set."),
        "What is in `memo` was visited already.",
        see=MODULE,
    )
    expect(
        "are the modules themselves yielded, with their names?",
        lambda: [type(module).__name__ for _, module in nested().named_modules()],
        ["Module", "Sequential", "Linear", "ReLU", "ReLU"],
        "The pairs are (name, module).",
        see=MODULE,
    )
    expect(
        "do two walks through one module give the same?",
        lambda: [len(list(net.named_modules())) for net in [nested()] * 2],
        [5, 5],
        "Each walk begins with an empty set of its own: make it in the function, not as a default of its argument.",
        see=MODULE,
    )


def test_lists_of_tensors_are_walks_too():
    def tied():
        net = tt.Module()
        net.first, net.second = tt.Linear(2, 2, bias=False), tt.Linear(2, 2)
        net.second.weight = net.first.weight
        return net

    expect(
        "names of the parameters of two layers that share one weight, the first without a bias",
        lambda: [name for name, _ in tied().named_parameters()],
        ["first.weight", "second.bias"],
        (
            ["first.weight", "second.weight", "second.bias"],
            "A shared tensor is listed once, under its first name: keep the ids of those that were there.",
        ),
        (lambda names: "first.bias" in names, "The bias is None there: None is no parameter."),
        (lambda names: ".first.weight" in names, "At the top there is no dot."),
        see=MODULE,
    )
    expect(
        "names and values of the buffers of a module in a module",
        lambda: [(name, buffer.item()) for name, buffer in tt.Sequential(Net()).named_buffers()],
        [("0.seen", 0.0)],
        "Buffers are the walk with another drawer.",
        see=MODULE,
    )
    expect(
        "name of a parameter of the module itself",
        lambda: next(name for name, _ in Net().named_parameters()),
        "scale",
        (".scale", "At the top, where the path is empty, there is no dot."),
        "A module comes before its parts.",
        see=MODULE,
    )


def test_what_the_registry_sees():
    layers = tt.layers
    made = {name: getattr(layers, name) for name in ("Listed", "Twice", "Scaled", "Replaced")}
    truth = {name: sum(p.numel() for p in make().parameters()) for name, make in made.items()}
    truth["state"] = len(layers.Twice().state_dict())
    why = {
        "Listed": [(13, "So it should be; but a list is not a module, so it is in no drawer, and the walk misses it.")],
        "Twice": [(24, "The second name is the same layer, and each parameter is listed once.")],
        "Scaled": [
            (6, "`scale` is a plain tensor, not a Parameter: it is in no drawer."),
            (8, "`scale` is a plain tensor, and the layer has no bias."),
        ],
        "Replaced": [
            (25, "The second assignment took the name out of the drawer: the first layer is gone."),
            (20, "The first layer is gone: a name has one value."),
        ],
        "state": [(2, "A shared tensor is listed once, but in the state it appears under each of its names.")],
    }
    expect(
        "the keys of predict_parameters()",
        lambda: sorted(layers.predict_parameters()),
        sorted(truth),
        "A dictionary with one number for each of the four classes, and one for `state`.",
        see="A module of your own",
    )
    for key, number in truth.items():
        expect(
            f'predict_parameters()["{key}"]',
            lambda key=key: layers.predict_parameters()[key],
            number,
            *why[key],
            "A Linear has in times out weights and, unless told otherwise, out biases.",
            see="A module of your own",
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
        first, second, x = tt.layers.digits_network(), tt.layers.digits_network(), tt.randn(2, 64)
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
        ("another shape at its end", lambda state: state.update({"1.bias": tt.zeros(3)}), "1.bias"),
        (
            "two tensors of other shapes",
            lambda state: state.update({"0.weight": tt.zeros(3, 3), "1.bias": tt.zeros(3)}),
            "0.weight and 1.bias",
        ),
        ("a name too few and one too many", lambda state: state.update(more=state.pop("0.bias")), "0.bias and more"),
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
            return all(name in str(error) for name in word.split(" and "))
        return "nothing was raised"

    expect(
        f"load_state_dict of a state with {what}: a RuntimeError that names {word}?",
        said,
        True,
        ("nothing was raised", "A checkpoint that does not fit has to be refused, or random weights stay in place."),
        (KeyError, "A name that the state lacks cannot be looked up: collect the missing names first."),
        "The message lists everything that is missing, unexpected, or of another shape, not only the first.",
        see=STATE,
    )
    expect(
        "are the parameters as before, after a state that was refused?",
        lambda: [p.tolist() for p in model.parameters()] == before,
        True,
        "Something was copied before the fault was found: look at everything before anything is changed.",
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
        return layer, tt.layers.train_perceptron(layer, x, labels, epochs=epochs)

    def one():
        layer = linear_with([[0, 0]], [0])
        tt.layers.train_perceptron(layer, tt.Tensor([[3, 4]]), tt.Tensor([-1]), epochs=1)
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

    def history(weight, epochs):
        return tt.layers.train_perceptron(linear_with([weight], [0]), tt.Tensor([[3, 4]]), tt.Tensor([-1]), epochs)

    expect(
        "history of two epochs with the example (3, 4), label -1, from weights 0",
        lambda: history([0, 0], 2),
        [1, 0],
        ([0, 0], "An output of 0 counts as wrong."),
        ([1, 1], "What is right already is left alone: correct only where label times output is not above 0."),
        "One number for each epoch: how many examples were corrected in it.",
        see="The perceptron",
    )
    expect(
        "history of one epoch with the same example from weights (-0.1, -0.1), which give the output -0.7",
        lambda: history([-0.1, -0.1], 1),
        [0],
        "An example on its side is left alone, however near to the line it is.",
        see="The perceptron",
    )
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
        ((5, False), "No example was wrong at first, though all outputs were 0: an output of 0 counts as wrong."),
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


def test_exercises():
    block = tt.layers.Residual(linear_with([[2]], [1]))
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
        lambda: tt.layers.count_parameters(network),
        {"0": 9, "1": 0, "2": 4},
        ({"0": 9, "2": 4}, "A part that learns nothing is listed, too, with 0."),
        ({"0": 2, "1": 0, "2": 2}, "Count the numbers, not the tensors: numel()."),
        see="Exercises",
    )
    expect(
        'freeze(network, "0."), and who asks for gradients then',
        lambda: (tt.layers.freeze(network, "0."), {name: p.requires_grad for name, p in network.named_parameters()}),
        (2, {"0.weight": False, "0.bias": False, "2.weight": True, "2.bias": True}),
        (lambda found: not any(found[1].values()), "All are frozen; only names that start with the prefix are meant."),
        "Ask for no gradients of the parameters whose names start with the prefix, and return how many there are.",
        see="Exercises",
    )
