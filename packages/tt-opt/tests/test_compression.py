"""Chapter 18, judged by its public names."""

import math
from copy import deepcopy
from types import SimpleNamespace

import numpy as np

import tt_nlp as tn
import tt_opt
import tt_spatial as ts
import tt_tensor as tt
from tt_tensor.teaching import expect

FIRST, IDEA, SPARSE = "The smallest thing that could work", "The idea", "Sparse storage"
CHANNELS, HEADS, RANK = "Channels that vanish", "Heads", "Low rank"
STUDENT, EXERCISES = "A student", "Exercises"


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def given(module):
    """The module with weights that depend on nothing but their names and places."""
    for number, (name, p) in enumerate(sorted(module.named_parameters())):
        values = np.sin(np.arange(p.numel()) * 1.3 + number).reshape(p.shape) * 0.4
        p.copy_((values + (p.ndim == 1 and name.endswith("weight"))).astype(np.float32))
    return module


def linear(weight, bias=None):
    layer = tt.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight.copy_(weight)
    if bias is not None:
        layer.bias.copy_(bias)
    return layer


def images_net():
    """Two convolutions with batch normalization between them, and a linear layer on 4 x 4 maps."""
    return given(
        tt.Sequential(
            ts.Conv2d(1, 4, 3, padding=1), ts.BatchNorm2d(4), tt.ReLU(), ts.MaxPool2d(2),
            ts.Conv2d(4, 6, 3, padding=1), tt.ReLU(), tt.Flatten(), tt.Linear(96, 5),
        )
    ).eval()


def images():
    return tt.from_numpy(normal(3, 1, 8, 8, seed=1))


# Pruning


def test_magnitude_mask():
    x = np.array([[-3.0, 0.5, 2.0], [1.0, -0.1, -0.6]])
    expect(
        "magnitude_mask of [[-3, 0.5, 2], [1, -0.1, -0.6]] with share 0.5",
        lambda: tt_opt.magnitude_mask(x, 0.5),
        np.array([[True, False, True], [True, False, False]]),
        (np.array([[False, True, True], [True, False, False]]),
         "Large negative weights are gone, as if they were small: compare **abs**olute values."),
        (np.array([[False, True, False], [False, True, True]]), "True stands for the weights that **stay**."),
        (lambda got: np.shape(got) == (6,), "Give the mask the shape of x."),
        see=FIRST,
    )  # fmt: skip
    expect("how many of 10 stay with share 0.25 (round, as Python does)",
           lambda: int(tt_opt.magnitude_mask(normal(10), 0.25).sum()), 8, see=FIRST)  # fmt: skip
    expect(
        "magnitude_mask of four equal weights with share 0.5",
        lambda: tt_opt.magnitude_mask(np.ones(4), 0.5),
        np.array([False, False, True, True]),
        (lambda got: np.all(got), "A threshold keeps all of several equal weights: prune by **rank**."),
        (lambda got: not np.any(got), "A threshold takes all of several equal weights: prune by **rank**."),
        "Of equal weights the first go first: sort with kind='stable'.",
        see=FIRST,
    )  # fmt: skip
    for share in (-0.1, 1.5, 90):
        expect(f"magnitude_mask with share {share}", lambda share=share: tt_opt.magnitude_mask(np.ones(4), share),
               ValueError, see=FIRST)  # fmt: skip
    expect("magnitude_mask with share 1", lambda: tt_opt.magnitude_mask(np.ones(2), 1), np.array([False, False]),
           see=FIRST)  # fmt: skip


def two_layers():
    return tt.Sequential(linear(np.array([[1.0, -2.0], [3.0, -4.0]]), np.ones(2)), linear(np.array([[0.1, -0.2]])))


def pruned(share, **options):
    model = two_layers()
    masks = tt_opt.prune_(model, share, **options)
    return [p.numpy().tolist() for p in model.parameters()], [m.tolist() for m in masks.values()]


def test_prune():
    none = [[False, False]]
    expect(
        "weights and masks of two layers with [[1, -2], [3, -4]] and [[0.1, -0.2]] after prune_(model, 0.5)",
        lambda: pruned(0.5),
        ([[[0, -2], [3, -4]], [1, 1], [[0, 0]]], [[[False, True], [True, True]], none]),
        (lambda got: 0 in got[0][1], "Biases are not pruned: look at prunable(model)."),
        (lambda got: got[0][0] == [[1, -2], [3, -4]], "The weights must change in place: copy_ the products."),
        (lambda got: any(got[0][2][0]),
         "With `together` there is one ranking for the weights of all layers."),
        see=FIRST,
    )  # fmt: skip
    expect(
        "the same with together=False",
        lambda: pruned(0.5, together=False),
        ([[[0, 0], [3, -4]], [1, 1], [[0, -0.2]]], [[[False, False], [True, True]], [[False, True]]]),
        (lambda got: got[0][2] == [[0, 0]], "Unless `together`, each matrix has a ranking of its own."),
        see=FIRST,
    )


def test_cubic_share():
    expect(
        "cubic_share(0.8, t) for t = -1, 0, 0.5, 1, 2",
        lambda: [tt_opt.compression.cubic_share(0.8, t) for t in (-1, 0, 0.5, 1, 2)],
        [0, 0, 0.7, 0.8, 0.8],
        (lambda got: got[0] != 0 or got[4] != 0.8, "Before the way begins the share is 0, and after its end it stays."),
        (lambda got: math.isclose(got[2], 0.4), "Not by equal steps: it grows fast first, 1 - (1 - t) ** 3."),
        (lambda got: math.isclose(got[2], 0.1), "It grows fast **first**: 1 - (1 - t) ** 3, not t ** 3."),
        see=IDEA,
    )


def steps_of(pruning, model, weights_after_each):
    """The share of zeros after each step, if an optimizer put the weights to those of the list before it."""
    shares = []
    run = SimpleNamespace(model=model, steps=0, total_steps=100)
    pruning.on_start(run)
    for weights in weights_after_each:
        run.steps += 1
        model.weight.copy_(weights)
        pruning.on_step(run)
        shares.append(int((model.weight.numpy() == 0).sum()))
    return shares


def test_on_step():
    def zeros(steps, every, count=7):
        return steps_of(tt_opt.Pruning(0.5, steps, every), tt.Linear(4, 4, bias=False), [normal(4, 4)] * count)

    expect(
        "zeros of 16 weights after each of 7 steps with Pruning(0.5, steps=4, every=2), if an optimizer changes all",
        lambda: zeros(4, 2),
        [0, 7, 7, 8, 8, 8, 8],
        (lambda got: 0 in (got[2], got[-1]), "Between prunings the **masks** must be applied again after each step."),
        (lambda got: got[0] > 0, "Prune where steps is a multiple of `every`, not in each step."),
        see=IDEA,
    )  # fmt: skip
    expect("the same with Pruning(0.5, steps=5, every=3)", lambda: zeros(5, 3), [0, 0, 7, 7, 8, 8, 8],
           "The last of `steps` prunes to the whole share, multiple of `every` or not.", see=IDEA)  # fmt: skip
    expect("the same with Pruning(0.5, steps=1, every=10)", lambda: zeros(1, 10), [8] * 7,
           "With steps=1 everything is pruned after the first step.", see=IDEA)  # fmt: skip
    changed = [normal(4, 4)] * 4 + [normal(4, 4, seed=1)]

    def same_places():
        model = tt.Linear(4, 4, bias=False)
        steps_of(tt_opt.Pruning(0.5, 2, 2), model, changed)
        return (model.weight.numpy() == 0).tolist()

    expect(
        "are the zeros of step 2 still those of step 5, with other weights?",
        same_places,
        (~tt_opt.magnitude_mask(normal(4, 4), 0.5)).tolist(),
        "After `steps` steps the masks stay what they are.",
        see=IDEA,
    )


# Sparse storage

MATRIX = np.array([[0, 2, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]], np.float32)


def packed():
    return tt_opt.CompressedRows(
        np.array([2, 3, 4], np.float32), np.array([1, 0, 3], np.uint16), np.array([0, 1, 1, 3], np.int32), (3, 4)
    )


def test_dense():
    expect(
        "the matrix of values [2, 3, 4], columns [1, 0, 3] and starts [0, 1, 1, 3]",
        lambda: packed().dense(),
        MATRIX,
        (lambda got: np.shape(got) == (3, 4) and got[1].any(), "Row 1 begins and ends at 1: it has no values."),
        (IndexError, "Each row number is repeated once for each of its values; the columns are in col_indices."),
        see=SPARSE,
        tolerance=0,
    )


def test_compressed_rows():
    expect(
        "values, columns and starts of [[0, 2, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]]",
        lambda: [a.tolist() for a in tt_opt.compressed_rows(MATRIX)[:3]],
        [[2, 3, 4], [1, 0, 3], [0, 1, 1, 3]],
        (lambda got: len(got[2]) == 3, "There is one start more than there are rows: the end of the last one."),
        (lambda got: got[2] == [0, 1, 3] or len(got[2]) < 4, "A row without values has a start as well."),
        see=SPARSE,
    )
    expect("the types of columns and starts", lambda: [str(a.dtype) for a in tt_opt.compressed_rows(MATRIX)[1:3]],
           ["uint16", "int32"], see=SPARSE)  # fmt: skip
    wide = np.zeros((1, 70_000), np.float32)
    wide[0, 69_999] = 1
    expect(
        "the column of the only value of a matrix (1, 70000)",
        lambda: int(tt_opt.compressed_rows(wide).col_indices[0]),
        69_999,
        (4463, "A column above 65,535 does not fit into uint16: take int32 for wide matrices."),
        see=SPARSE,
    )


def sparse_arguments(matrix):
    """Compressed rows, written here without the learner's function."""
    rows, columns = np.nonzero(matrix)
    starts = np.array([(rows < r).sum() for r in range(len(matrix) + 1)], np.int32)
    return [tt.from_numpy(a) for a in (matrix[rows, columns], columns.astype(np.uint16), starts)]


def test_sparse_product():
    x = tt.from_numpy(normal(2, 3, 4))
    expect(
        "sparse_product of x (2, 3, 4) with [[0, 2, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]]",
        lambda: tt_opt.sparse_product(x, *sparse_arguments(MATRIX)),
        x.numpy() @ MATRIX.T,
        (lambda got: np.shape(got) == (2, 3, 3) and np.asarray(got)[..., 1].any(),
         "A row without values gives 0: sums over empty stretches must not take the next number."),
        see=SPARSE,
    )  # fmt: skip
    matrix = normal(7, 9) * (np.random.default_rng(1).random((7, 9)) < 0.3)
    expect("sparse_product of x (9,) with a sparse matrix (7, 9)",
           lambda: tt_opt.sparse_product(tt.from_numpy(normal(9)), *sparse_arguments(matrix)), matrix @ normal(9),
           see=SPARSE)  # fmt: skip


def test_forward():
    weight, bias, x = normal(6, 8), normal(6, seed=2), tt.from_numpy(normal(5, 8, seed=3))
    weight[np.abs(weight) < 1] = 0
    layer = tt_opt.SparseLinear.of(linear(weight, bias))
    expect(
        "SparseLinear.of(layer)(x) with x (5, 8)",
        lambda: layer(x),
        x.numpy() @ weight.T + bias,
        (x.numpy() @ weight.T, "The bias is missing."),
        see=SPARSE,
    )
    small = tt_opt.SparseLinear.of(linear(weight, bias), "int8")
    scale = np.abs(weight).max(1, keepdims=True) / 127
    scale[scale == 0] = 1
    rounded = np.rint(weight / scale) * scale
    expect(
        "the same with int8 values",
        lambda: small(x),
        x.numpy() @ rounded.T + bias,
        (lambda got: np.abs(got).max() > 50, "The integers need their scale, a number for each row."),
        (lambda got: np.allclose(got, (x.numpy() @ (rounded / scale).T + bias) * scale[:, 0], rtol=1e-3),
         "Scale the product first, and add the bias afterwards: the bias was never divided."),
        see=SPARSE,
    )  # fmt: skip
    bare = tt_opt.SparseLinear.of(linear(weight))
    expect("the same without a bias", lambda: bare(x), x.numpy() @ weight.T, see=SPARSE)


# Channels


def test_smallest_outputs():
    layer = linear(np.array([[1.0, 1.0], [-5.0, 0.0], [0.5, -0.4], [2.0, 2.0]]))
    expect(
        "smallest_outputs, half, of rows [1, 1], [-5, 0], [0.5, -0.4], [2, 2]",
        lambda: [int(i) for i in tt_opt.compression.smallest_outputs(layer, 0.5)],
        [0, 2],
        ([0, 1], "A row of negative weights is not small: sum up **magnitudes**."),
        ([1, 2], "A row of negative weights is not small: sum up **magnitudes**."),
        ([2, 0], "Give the numbers in ascending order."),
        ([1, 3], "These are the largest."),
        see=CHANNELS,
    )
    expect("smallest_outputs, all of four", lambda: len(tt_opt.compression.smallest_outputs(layer, 1.0)), 3,
           (4, "A layer needs at least one output: leave the largest."), see=CHANNELS)  # fmt: skip
    conv = ts.Conv2d(2, 3, 1, bias=False)
    conv.weight.copy_(np.array([[3.0, 1], [1, 1], [0, -3]]).reshape(3, 2, 1, 1))
    expect("smallest_outputs, a third, of filters [3, 1], [1, 1], [0, -3]",
           lambda: [int(i) for i in tt_opt.compression.smallest_outputs(conv, 1 / 3)], [1], see=CHANNELS)  # fmt: skip


def test_watched_forward():
    layer = given(tt.Linear(3, 2))
    x = normal(4, 3)
    x[2, 1] = np.nan

    def seen(watched, x):
        y = watched(tt.from_numpy(x)).numpy()
        return np.asarray(watched.arrived).tolist(), np.isnan(y).tolist()

    clean = [[False, False]] * 4
    expect(
        "at which inputs of a watched Linear(3, 2) nan arrives, and where it leaves, if x[2, 1] is nan",
        lambda: seen(tt_opt.Watched(layer), x),
        ([False, True, False], clean),
        (lambda got: got[0] == [False, True, False], "The dye ends at a layer that mixes: give it 0 instead of nan."),
        see=CHANNELS,
    )
    expect(
        "the same with x without nan and dyed=[1]",
        lambda: seen(tt_opt.Watched(layer, [1]), normal(4, 3)),
        ([False, False, False], [[False, True]] * 4),
        (lambda got: got[1] == clean, "Put nan into the outputs `dyed`."),
        see=CHANNELS,
    )
    x[2, 1] = -np.inf
    expect(
        "at which inputs -inf arrives, and where inf leaves, with x[2, 1] = -inf, dyed=[0] and dye=inf",
        lambda: (lambda layer: (layer(tt.from_numpy(x)).numpy()[:, 0], np.asarray(layer.arrived).tolist()))(
            tt_opt.Watched(layer, [0], np.inf)
        ),
        (np.full(4, np.inf, np.float32), [False, True, False]),
        (lambda got: np.isnan(got[0]).all(), "Write `self.dye` into the outputs, whichever it is."),
        "Dye is whatever is not finite.",
        see=CHANNELS,
    )
    conv, maps = given(ts.Conv2d(2, 3, 1)), normal(1, 2, 2, 2)
    maps[0, 1, 0, 0] = np.nan
    expect(
        "where nan arrives at a watched Conv2d(2, 3, 1) if a pixel of channel 1 is nan, and leaves it with dyed=[2]",
        lambda: (lambda a, y: (a, np.any(y, (0, 2, 3)).tolist()))(*seen(tt_opt.Watched(conv, [2]), maps)),
        ([False, True], [False, False, True]),
        "The features of images are dimension 1: look through features_last.",
        see=CHANNELS,
    )  # fmt: skip
    norm, maps = ts.BatchNorm2d(2).eval(), maps
    expect(
        "the same for a watched BatchNorm2d(2), which mixes nothing",
        lambda: (lambda a, y: (a, np.any(y, (0, 2, 3)).tolist()))(*seen(tt_opt.Watched(norm), maps)),
        ([False, True], [False, True]),
        (([False, True], [False, False]), "What does not mix its inputs passes the dye on: only READERS are washed."),
        see=CHANNELS,
    )


def found(model, name, doomed, example):
    return {
        n: [int(i) for i in inputs] for n, inputs in tt_opt.compression.readers(model, name, doomed, example).items()
    }


def test_readers():
    model = images_net()
    expect("who reads channels 1 and 3 of the first convolution", lambda: found(model, "0", [1, 3], images()),
           {"1": [1, 3], "4": [1, 3]},
           (lambda got: "1.layer" in got, "Put the layers back before you ask for names."), see=CHANNELS)  # fmt: skip
    expect(
        "the types of the layers afterwards",
        lambda: [type(layer).__name__ for layer in model],
        ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "Flatten", "Linear"],
        (lambda got: "Watched" in got, "Put the layers back when the pass is over."),
        see=CHANNELS,
    )
    expect("who reads channel 2 of the second one, whose maps are 4 x 4", lambda: found(model, "4", [2], images()),
           {"7": list(range(32, 48))}, see=CHANNELS)  # fmt: skip
    expect(
        "readers of a layer 'conv' that is not there",
        lambda: tt_opt.compression.readers(model, "conv", [0], images()),
        ValueError,
        see=CHANNELS,
    )
    expect("readers of the last layer", lambda: tt_opt.compression.readers(model, "7", [0], images()), ValueError,
           ({}, "The dye reaches the output of the model: refuse that."), see=CHANNELS)  # fmt: skip
    mixed = given(tt.Sequential(tt.Linear(4, 4), ts.LayerNorm(4), tt.Linear(4, 2)))
    expect(
        "readers of Linear, LayerNorm, Linear",
        lambda: tt_opt.compression.readers(mixed, "0", [1], tt.from_numpy(normal(2, 4))),
        ValueError,
        (lambda got: isinstance(got, dict), "All inputs of the last layer have dye: LayerNorm mixed. Refuse that."),
        see=CHANNELS,
    )
    training = images_net().train()
    expect("is a network in training mode still so afterwards?",
           lambda: bool(tt_opt.compression.readers(training, "0", [1], images())) and training.training, True,
           see=CHANNELS)  # fmt: skip


def test_without():
    def left(layer, gone, dim):
        tt_opt.compression.without_(layer, gone, dim)
        return {name: tuple(t.shape) for name, t in (*layer.named_parameters(), *layer.named_buffers()) if t.ndim}

    expect(
        "shapes of Linear(3, 4) without outputs 0 and 2",
        lambda: left(given(tt.Linear(3, 4)), [0, 2], 0),
        {"weight": (2, 3), "bias": (2,)},
        (lambda got: got.get("bias") == (4,), "An output has a bias, too."),
        see=CHANNELS,
    )
    expect(
        "shapes of Linear(3, 4) without input 1",
        lambda: left(given(tt.Linear(3, 4)), [1], 1),
        {"weight": (4, 2), "bias": (4,)},
        (lambda got: got.get("bias") == (3,), "The bias belongs to outputs: without an input it stays."),
        see=CHANNELS,
    )
    expect("shapes of Conv2d(2, 3, 5) without input 0", lambda: left(given(ts.Conv2d(2, 3, 5)), [0], 1),
           {"weight": (3, 1, 5, 5), "bias": (3,)}, see=CHANNELS)  # fmt: skip
    expect(
        "shapes of BatchNorm2d(4) without channels 1 and 2",
        lambda: left(ts.BatchNorm2d(4), [1, 2], 0),
        {"weight": (2,), "bias": (2,), "running_mean": (2,), "running_var": (2,)},
        (lambda got: got.get("running_mean") == (4,), "The running averages have an entry for each channel, too."),
        see=CHANNELS,
    )

    def sizes():
        a, b, c = given(tt.Linear(3, 4)), given(ts.Conv2d(2, 3, 1)), ts.BatchNorm2d(4)
        tt_opt.compression.without_(a, [0], 1)
        tt_opt.compression.without_(b, [0], 0)
        tt_opt.compression.without_(c, [0], 0)
        return a.in_features, a.out_features, b.in_channels, b.out_channels, c.num_features

    expect("the sizes that layers give afterwards", sizes, (2, 4, 2, 2, 3), "Correct the sizes: SIZES has their names.",
           see=CHANNELS)  # fmt: skip

    def kept():
        layer = linear(np.arange(6.0).reshape(3, 2), np.arange(3.0))
        tt_opt.compression.without_(layer, [1], 0)
        return layer.weight.numpy().tolist(), layer.bias.numpy().tolist(), isinstance(layer.weight, tt.Parameter)

    expect("weight and bias of a layer without output 1, and whether weight is a Parameter", kept,
           ([[0, 1], [4, 5]], [0, 2], True), see=CHANNELS)  # fmt: skip


def silenced(model, doomed):
    """The model with those channels of its first convolution made 0 behind the batch normalization."""
    model = deepcopy(model)
    for name in ("weight", "bias"):
        array = getattr(model[1], name).numpy().copy()
        array[doomed] = 0
        getattr(model[1], name).copy_(array)
    return model


def test_remove_outputs():
    whole = images_net()
    narrow = tt_opt.remove_outputs_(deepcopy(whole), "0", [1, 2], images())
    expect(
        "does a network without channels 1 and 2 answer as one in which they are 0?",
        lambda: narrow(images()),
        silenced(whole, [1, 2])(images()).detach().numpy(),
        see=CHANNELS,
    )
    expect(
        "the shapes of its parameters",
        lambda: {n: tuple(p.shape) for n, p in narrow.named_parameters()},
        {"0.weight": (2, 1, 3, 3), "0.bias": (2,), "1.weight": (2,), "1.bias": (2,), "4.weight": (6, 2, 3, 3),
         "4.bias": (6,), "7.weight": (5, 96), "7.bias": (5,)},
        see=CHANNELS,
    )  # fmt: skip

    class Adds(tt.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (given(tt.Linear(4, 4)) for _ in range(3))

        def forward(self, x):
            return self.c(self.a(x) + self.b(x)).sum(1)

    model, x = Adds(), tt.from_numpy(normal(2, 4))
    expect(
        "is remove_outputs_ of a layer refused whose outputs are added to another's, and what shapes are there then",
        lambda: (refused(lambda: tt_opt.remove_outputs_(model, "a", [1], x)), shapes(model)),
        (True, shapes(Adds())),
        (lambda got: got[0] is True, "Try the surgery on a copy first, so that nothing is lost if it fails."),
        see=CHANNELS,
    )  # fmt: skip


def shapes(model):
    return [tuple(p.shape) for p in model.parameters() if p.ndim > 1]


def refused(attempt):
    try:
        attempt()
    except ValueError:
        return True
    return False


def test_slim():
    expect(
        "shapes of the weights of a network after slim_(model, 0.5)",
        lambda: shapes(tt_opt.slim_(images_net(), 0.5, images())),
        [(2, 1, 3, 3), (3, 2, 3, 3), (5, 48)],
        (lambda got: got[-1][0] < 5, "The last layer keeps its outputs: they are the answer."),
        (ValueError, "The last layer keeps its outputs: they are the answer, and `readers` refuses them."),
        see=CHANNELS,
    )
    expect("the same with names=['4']",
           lambda: shapes(tt_opt.slim_(images_net(), 0.5, images(), ["4"])),
           [(4, 1, 3, 3), (3, 4, 3, 3), (5, 48)], see=CHANNELS)  # fmt: skip
    expect("the same with share 0",
           lambda: shapes(tt_opt.slim_(images_net(), 0.0, images())),
           [(4, 1, 3, 3), (6, 4, 3, 3), (5, 96)], see=CHANNELS)  # fmt: skip


# Heads


def small_gpt(layers=2):
    return given(tn.transformers.small_gpt(11, layers, 32, 16)).eval()


def test_smallest_heads():
    attention = small_gpt(1).transformer.h[0].attn
    weight = np.ones((96, 32), np.float32)
    for head, size in enumerate((3, -4, 0.5, 2)):
        for part in range(3):
            weight[part * 32 + head * 8 : part * 32 + head * 8 + 8] = size
    attention.c_attn.weight.copy_(weight)
    expect(
        "the two smallest heads of four whose weights are 3, -4, 0.5 and 2",
        lambda: [int(h) for h in tt_opt.compression.smallest_heads(attention, 2)],
        [2, 3],
        (lambda got: 1 in got, "A head of negative weights is not small: sum up **magnitudes**."),
        ([3, 2], "Give the numbers in ascending order."),
        see=HEADS,
    )
    weight[:32] = 1
    attention.c_attn.weight.copy_(weight)
    expect(
        "the same if all queries have weights of 1",
        lambda: [int(h) for h in tt_opt.compression.smallest_heads(attention, 2)],
        [2, 3],
        "A head is its query, its key and its value: sum up all three.",
        see=HEADS,
    )


def without_head(model, doomed):
    """The logits of a GPT in which c_proj does not read those heads."""
    model = deepcopy(model)
    for block, heads in zip(model.transformer.h, doomed):
        weight = block.attn.c_proj.weight.numpy().copy()
        for head in heads:
            weight[:, head * 8 : head * 8 + 8] = 0
        block.attn.c_proj.weight.copy_(weight)
    return model


def test_remove_heads():
    ids = tt.from_numpy(np.arange(10).reshape(2, 5))
    doomed = [[1, 2], [0, 3]]
    expect(
        "logits of a GPT without heads 1, 2 of its first and 0, 3 of its second block (beside one that ignores them)",
        lambda: tt_opt.remove_heads_(small_gpt(), doomed)(ids),
        without_head(small_gpt(), doomed)(ids).detach().numpy(),
        "A head has rows among the queries, the keys **and** the values, and columns in c_proj.",
        see=HEADS,
    )

    def sizes():
        model = tt_opt.remove_heads_(small_gpt(), doomed)
        first, second = (block.attn for block in model.transformer.h)
        return tuple(first.c_attn.weight.shape), tuple(first.c_proj.weight.shape), second.n_head, model.kv_heads

    expect("shapes of c_attn and c_proj, the number of heads of a block, and that of the model", sizes,
           ((48, 32), (32, 16), 2, 2),
           "Set model.kv_heads, which a cache of keys and values asks for.", see=HEADS)  # fmt: skip
    for what, heads in (
        ("one block of two", [[1]]), ("unequal numbers", [[1], [1, 2]]), ("all heads", [[0, 1, 2, 3]] * 2),
    ):  # fmt: skip
        expect(f"remove_heads_ with {what}", lambda heads=heads: tt_opt.remove_heads_(small_gpt(), heads), ValueError,
               see=HEADS)  # fmt: skip


# Low rank


def test_low_rank():
    matrix = normal(6, 9)
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)

    def product():
        left, right = tt_opt.low_rank(matrix, 3)
        return np.shape(left), np.shape(right), np.asarray(left) @ np.asarray(right)

    expect("the shapes of the factors of a matrix (6, 9) at rank 3, and their product", product,
           ((6, 3), (3, 9), (u[:, :3] * s[:3]) @ vt[:3]),
           (((6, 3), (3, 9), u[:, :3] @ vt[:3]), "The singular values belong into one of the factors."),
           (((6, 3), (3, 9), (u[:, -3:] * s[-3:]) @ vt[-3:]), "These are the smallest singular values."),
           see=RANK)  # fmt: skip


def diagonal(*values, shape):
    matrix = np.zeros(shape, np.float32)
    matrix[np.arange(len(values)), np.arange(len(values))] = values
    return matrix


def test_ranks_for():
    a, b = diagonal(5, 4, 3, 1, shape=(4, 6)), diagonal(6, 2, 1, shape=(3, 7))
    for budget, wanted in ((20, [1, 1]), (30, [2, 1]), (49, [3, 1]), (50, [3, 2]), (1000, [4, 3])):
        expect(
            f"ranks for matrices (4, 6) with 5, 4, 3, 1 and (3, 7) with 6, 2, 1, and a budget of {budget}",
            lambda budget=budget: list(tt_opt.compression.ranks_for([a, b], budget)),
            wanted,
            (lambda got: 0 in got, "Each matrix has at least rank 1."),
            "Buy sigma ** 2 / (R + K), the largest first, and stop before the budget is exceeded.",
            see=RANK,
        )
    thin, square = diagonal(3, 2, shape=(2, 100)), diagonal(3, 1.9, shape=(5, 5))
    expect(
        "ranks for a matrix (2, 100) with 3, 2 and one (5, 5) with 3, 1.9, and a budget of 125",
        lambda: list(tt_opt.compression.ranks_for([thin, square], 125)),
        [1, 2],
        ([1, 1], "The singular value 2 of the thin matrix costs 102 numbers: divide by the **price**."),
        see=RANK,
    )


def test_factorize():
    layer = linear(normal(8, 2) @ normal(2, 10, seed=1), normal(8, seed=2))
    x, tied = tt.from_numpy(normal(3, 10, seed=3)), given(tn.transformers.small_gpt(11, 1, 32, 16))

    def model():
        return tt.Sequential(deepcopy(layer), tt.ReLU(), linear(normal(3, 8, seed=4)))

    expect("does a network whose first matrix has rank 2 answer the same after factorize_(model, 0.75)?",
           lambda: tt_opt.factorize_(model(), 0.75)(x), model()(x).detach().numpy(), see=RANK)  # fmt: skip
    expect(
        "shapes of its parameters",
        lambda: [tuple(p.shape) for p in tt_opt.factorize_(model(), 0.75).parameters()],
        [(2, 10), (8, 2), (8,), (3, 8)],
        (lambda got: len(got) == 3, "Replace the layers: each Linear becomes two."),
            "A layer that would not shrink stays as it is.",
        see=RANK,
    )
    expect(
        "is lm_head of a GPT still tied to the embedding after factorize_(model, 0.3)?",
        lambda: (lambda m: m.lm_head.weight is m.transformer.wte.weight)(tt_opt.factorize_(tied, 0.3)),
        True,
        "A layer that shares its weight with another module must stay.",
        see=RANK,
    )


# A student


def kl(student, teacher, T):
    t, s = (np.exp(z / T) / np.exp(z / T).sum(1, keepdims=True) for z in (teacher, student))
    return float((t * np.log(t / s)).sum(1).mean())


def test_distillation_loss():
    student, teacher, y = normal(4, 5) * 2, normal(4, 5, seed=1) * 2, np.array([0, 4, 2, 2])
    pair, targets = (tt.from_numpy(student), tt.from_numpy(teacher)), tt.from_numpy(y)
    hard = float(-(student - np.log(np.exp(student).sum(1, keepdims=True)))[np.arange(4), y].mean())
    T = 4.0
    expect(
        "distillation_loss of logits (4, 5) with T = 4, alpha = 1",
        lambda: tt_opt.distillation_loss(pair, targets, T=T, alpha=1.0).item(),
        T * T * kl(student, teacher, T),
        (kl(student, teacher, T), "The gradient is 16 times too small: multiply by **T²**."),
        (T * kl(student, teacher, T), "The gradient shrinks as 1 / T²: multiply by **T²**, not by T."),
        (T * T * kl(teacher, student, T), "The arguments are swapped: the **teacher** weighs the sum."),
        (T * T * kl(student, teacher, 1), "Divide the logits by T before the softmax."),
        (T * T * kl(student, teacher * T, T), "Divide the logits of **both** by T."),
        (T * T * kl(student, teacher, T) / 5, "The mean is over examples, not over classes: reduction='batchmean'."),
        (T * T * kl(student, teacher, T) * 4, "The mean is over examples: reduction='batchmean'."),
        see=STUDENT,
    )
    expect("the same with alpha = 0", lambda: tt_opt.distillation_loss(pair, targets, T=T, alpha=0.0).item(), hard,
           (hard * T * T, "T² belongs to the soft term alone."), see=STUDENT)  # fmt: skip
    expect("the same with alpha = 0.3 and T = 2",
           lambda: tt_opt.distillation_loss(pair, targets, T=2.0, alpha=0.3).item(),
           0.3 * 4 * kl(student, teacher, 2) + 0.7 * hard, see=STUDENT)  # fmt: skip
    text = tuple(z.reshape(2, 2, 5) for z in pair), targets.reshape(2, 2)
    expect("the same of logits (2, 2, 5)", lambda: tt_opt.distillation_loss(*text, T=2.0, alpha=0.3).item(),
           0.3 * 4 * kl(student, teacher, 2) + 0.7 * hard, see=STUDENT)  # fmt: skip

    def gradients():
        a, b = (tt.from_numpy(z.copy()).requires_grad_() for z in (student, teacher))
        tt_opt.distillation_loss((a, b), targets).backward()
        return a.grad is not None, b.grad is None

    expect("does the student get a gradient, and the teacher none?", gradients, (True, True),
           ((True, False), "The teacher does not learn: detach its logits."), see=STUDENT)  # fmt: skip
    expect("distillation_loss with T = 0", lambda: tt_opt.distillation_loss(pair, targets, T=0), ValueError,
           see=STUDENT)  # fmt: skip


def test_rewind():
    def back():
        model = two_layers()
        start = {name: tt.from_numpy(p.numpy().copy() * 10) for name, p in model.named_parameters()}
        masks = {model[0].weight: np.array([[True, False], [False, True]])}
        tt_opt.rewind_(model, start, masks)
        return [p.numpy().tolist() for p in model.parameters()]

    expect(
        "the parameters of two layers, put back to ten times their values with a mask for the first weight",
        back,
        [[[10, 0], [0, -40]], [10, 10], [[1, -2]]],
        (lambda got: got[0] == [[10, -20], [30, -40]], "What was pruned stays 0: multiply by the mask."),
        (lambda got: got[1] == [1, 1], "Parameters without a mask go back, too."),
        see=EXERCISES,
    )

