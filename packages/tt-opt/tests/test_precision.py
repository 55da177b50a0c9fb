"""Chapter 17, judged by its public names."""

import itertools
import math
from copy import deepcopy

import numpy as np
import pytest

import tt_autograd as ta
import tt_nlp as tn
import tt_opt
import tt_spatial as ts
import tt_tensor as tt
from tt_tensor.teaching import between, expect

HALF, IDEA, ROWS, FOUR = "The smallest thing that could work", "The idea", "A scale for each row", "Four bits"
LAYERS, ACTIVATIONS, THROUGH = "Layers that stay small", "Activations", "Training through rounding"
EXERCISES = "Exercises"


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def given(module):
    """The module with weights that depend on nothing but their names and places."""
    for number, (name, p) in enumerate(sorted(module.named_parameters())):
        values = np.sin(np.arange(p.numel()) * 1.3 + number).reshape(p.shape) * 0.4
        p.copy_((values + (p.ndim == 1 and name.endswith("weight"))).astype(np.float32))
    return module


# Two bytes


def test_to_bfloat16():
    x = np.array([1.0, -2.0, 0.0, 1 + 2**-7], np.float32)
    expect("to_bfloat16 of 1, -2, 0 and 1 + 2**-7, as uint16", lambda: tt_opt.to_bfloat16(x),
           np.array([0x3F80, 0xC000, 0, 0x3F81]), see=HALF, tolerance=0)  # fmt: skip
    near = np.array([1 + 0.75 * 2**-7, 1 + 0.5 * 2**-7, 1 + 1.5 * 2**-7, -1 - 0.75 * 2**-7], np.float32)
    expect(
        "to_bfloat16 of numbers between two neighbours: 0.75, 0.5 and 1.5 steps above 1, and 0.75 below -1",
        lambda: tt_opt.to_bfloat16(near),
        np.array([0x3F81, 0x3F80, 0x3F82, 0xBF81]),
        (np.array([0x3F80, 0x3F80, 0x3F81, 0xBF80]), "Cutting is not rounding: **round** to the nearest."),
        (np.array([0x3F81, 0x3F81, 0x3F82, 0xBF81]), "A tie goes to the even neighbour."),
        see=HALF,
        tolerance=0,
    )
    odd = np.array([np.inf, -np.inf, 3.4e38], np.float32)
    expect("to_bfloat16 of inf, -inf and 3.4e38", lambda: tt_opt.to_bfloat16(odd), np.array([0x7F80, 0xFF80, 0x7F80]),
           see=HALF, tolerance=0)  # fmt: skip
    nan = np.array([0x7F800001, 0x7FFFFFFF], np.uint32).view(np.float32)
    expect(
        "is to_bfloat16 of two kinds of nan still nan?",
        lambda: bool(np.isnan(tt_opt.from_bfloat16(tt_opt.to_bfloat16(nan))).all()),
        True,
        "Adding half of what is cut off makes inf, or even -0, of some nan: treat them apart.",
        see=HALF,
    )


def test_from_bfloat16():
    expect(
        "from_bfloat16 of 0x3F80, 0xC000, 0x7F80",
        lambda: tt_opt.from_bfloat16(np.array([0x3F80, 0xC000, 0x7F80], np.uint16)),
        np.array([1.0, -2.0, np.inf], np.float32),
        (lambda got: np.size(got) == 6, "Widen the numbers to 32 bits before you shift and view them."),
        see=HALF,
    )


# Grids


def test_symmetric_scale():
    x = np.array([[-2.54, 1.0, 0.1], [0.5, 0.635, 0.2]])
    expect(
        "symmetric_scale of numbers from -2.54 to 1",
        lambda: tt_opt.symmetric_scale(x),
        0.02,
        (1 / 127, "-2.54 is cut off: use the **absolute** maximum."),
        (2.54 / 128, "The last point on each side is 127."),
        (3.54 / 255, "The grid reaches equally far on both sides of 0."),
        see=IDEA,
    )
    expect("the same with dim=1: (2, 1)", lambda: tt_opt.symmetric_scale(x, dim=1), np.array([[0.02], [0.005]]),
           (lambda got: np.shape(got) == (2,), "The dimension stays, with size 1, so that it broadcasts."),
           see=ROWS)  # fmt: skip
    expect("symmetric_scale of 7 with bits=4", lambda: tt_opt.symmetric_scale(np.array([7.0]), 4), 1.0,
           (7 / 127, "With 4 bits there are 7 points on each side."), see=IDEA)  # fmt: skip
    expect(
        "symmetric_scale of rows, one of which is 0",
        lambda: tt_opt.symmetric_scale(np.array([[0.0, 0.0], [1.27, 0.0]]), dim=1),
        np.array([[1.0], [0.01]]),
        (lambda got: np.min(got) == 0, "A scale of 0 cannot divide: where all numbers are 0, take 1."),
        see=IDEA,
    )


def test_quantize():
    x = np.array([0.26, -0.26, 0.74, -0.74, 1.27, -1.27])
    expect(
        "quantize of +-0.26, +-0.74 and +-1.27 with scale 0.01",
        lambda: tt_opt.quantize(x * 0.99, 0.01),
        np.rint(x * 99),
        (np.trunc(x * 99), "The mean error is half a step towards zero: **round**."),
        (np.floor(x * 99), "floor makes everything smaller: **round**."),
        see=IDEA,
    )
    expect(
        "quantize of 1.28, -1.28 and 5 with scale 0.01",
        lambda: tt_opt.quantize(np.array([1.28, -1.28, 5.0]), 0.01),
        np.array([127, -127, 127]),
        (lambda got: np.array_equal(got[:2], [-128, -128]), "+1.28 came back as -1.28: **clip** to [-127, 127]."),
        (lambda got: got[1] == -128, "-128 has no partner: **clip** to [-127, 127]."),
        see=IDEA,
    )
    expect("its dtype", lambda: str(tt_opt.quantize(x, 0.01).dtype), "int8", see=IDEA)
    expect(
        "quantize of -1, 0 and 1.55 with scale 0.01, zero_point=100, low=0, high=255, and its dtype",
        lambda: (lambda q: (q, str(q.dtype)))(tt_opt.quantize(np.array([-1.0, 0.0, 1.55]), 0.01, 100, 0, 255)),
        (np.array([0, 100, 255]), "uint8"),
        (lambda got: got[1] == "int8", "From 0 on, the numbers are uint8."),
        see=ACTIVATIONS,
    )


def test_dequantize():
    q = np.array([-127, 0, 5], np.int8)
    expect("dequantize of -127, 0, 5 with scale 0.5", lambda: tt_opt.dequantize(q, 0.5), np.array([-63.5, 0, 2.5]),
           see=IDEA)  # fmt: skip
    expect(
        "dequantize of 0, 100, 255 with scale 0.01, zero_point=100",
        lambda: tt_opt.dequantize(np.array([0, 100, 255], np.uint8), 0.01, 100),
        np.array([-1.0, 0.0, 1.55]),
        (lambda got: np.asarray(got)[0] > 1, "uint8 has no negative numbers: make floats before you subtract."),
        see=ACTIVATIONS,
    )
    expect("its dtype", lambda: str(tt_opt.dequantize(q, np.float64(0.5)).dtype), "float32", see=IDEA)


def test_expected_error():
    expect(
        "expected_error of x = [3, -4] with scale 0.1",
        lambda: tt_opt.precision.expected_error(np.array([3.0, -4.0]), 0.1),
        (0.35, 0.1 / math.sqrt(12) * 5),
        (lambda got: got[0] < 0, "Errors have either sign: the largest is with |x|."),
        (lambda got: abs(got[0] - 0.7) < 1e-9, "A weight moves by half of a step at most."),
        (
            lambda got: abs(got[1] - 0.7 / math.sqrt(12)) < 1e-9,
            "Variances add up, and deviations do not: take the root of the sum of squares.",
        ),
        see=IDEA,
    )


def test_decibels():
    x = np.array([3.0, 4.0])
    expect(
        "decibels of [3, 4] that became [3, 4.05]",
        lambda: tt_opt.precision.decibels(x, np.array([3.0, 4.05])),
        40.0,
        (20.0, "Ten times the logarithm of a ratio of squares."),
        (80.0, "Ten times the logarithm: the squares have the factor 2 already."),
        see=EXERCISES,
    )
    expect("decibels without an error", lambda: tt_opt.precision.decibels(x, x), math.inf, see=EXERCISES)


# Blocks


def test_two_in_a_byte():
    q = np.arange(32)[None] % 16
    q[0, 20] = 9
    expect(
        "bytes 0, 1, 4 of 32 numbers of 4 bits, 0, 1, ..., 15, 0, 1, ..., number 20 being 9",
        lambda: tt_opt.precision.two_in_a_byte(q)[0, [0, 1, 4]],
        np.array([0, 17, 4 + 9 * 16]),
        (lambda got: got[1] == 2 + 3 * 16, "Number j goes with number j + 16, not with its neighbour."),
        (lambda got: got[2] == 9 + 4 * 16, "The first half of the block is in the lower halves of the bytes."),
        see=FOUR,
    )
    expect(
        "one_by_one of that",
        lambda: tt_opt.precision.one_by_one(tt_opt.precision.two_in_a_byte(q)),
        q,
        "The lower halves of all bytes come first, then the upper halves: the two of a byte are 16 numbers apart.",
        see=FOUR,
    )
    packed = np.array([[0x21] * 16], np.uint8)
    expect(
        "one_by_one of 16 bytes 0x21",
        lambda: tt_opt.precision.one_by_one(packed),
        np.array([[1] * 16 + [2] * 16]),
        see=FOUR,
    )


STEPS = {"q8_0": 1 / 127, "q4_0": 1 / 8, "q4_1": 2 / 15}


@pytest.mark.parametrize("kind", STEPS)
def test_blocks_there_and_back(kind):
    x = np.random.default_rng(0).uniform(-1, 1, (3, 96)).astype(np.float32)
    expect(
        f"the largest error of numbers from -1 to 1 as {kind}, in steps",
        lambda: float(np.abs(tt_opt.precision.numbers_of(tt_opt.precision.blocks_of(x, kind)) - x).max() / STEPS[kind]),
        between(0.3, 1.1 if kind == "q4_0" else 0.6),
        (lambda got: got > 1.5, "A number is half of a step from its point at most: the scale is that of its block."),
        see=FOUR,
    )
    expect(f"shape and bytes of (3, 96) as {kind}",
           lambda: (lambda b: (b.shape, b.nbytes))(tt_opt.precision.blocks_of(x, kind)),
           ((3, 3), 9 * tt_opt.BLOCKS[kind].itemsize), see=FOUR)  # fmt: skip


def test_blocks_by_their_fields():
    x = np.zeros((1, 32), np.float32)
    x[0, :4] = [-8, 7, 2, -1]
    expect(
        "q4_0 of -8, 7, 2, -1 and zeros: d, and the first four numbers",
        lambda: (lambda b: (float(b["d"][0, 0]), tt_opt.precision.one_by_one(b["q"])[0, 0, :4]))(
            tt_opt.precision.blocks_of(x, "q4_0")
        ),
        (1.0, np.array([0, 15, 10, 7])),
        (lambda got: got[0] == -1, "The number of largest size is point 0: d is that number by -8."),
        (lambda got: got[0] == 8 / 7, "The largest number is point 0, which stands for -8 d."),
        see=FOUR,
    )
    expect(
        "d of q4_0 where the largest number is +8",
        lambda: float(tt_opt.precision.blocks_of(-x, "q4_0")["d"][0, 0]),
        -1.0,
        (1.0, "d has a sign: the number of largest size, by -8."),
        see=FOUR,
    )
    y = np.linspace(1, 2.5, 32, dtype=np.float32)[None]
    expect(
        "q4_1 of numbers from 1 to 2.5: d, m, and the first and the last number",
        lambda: (
            lambda b: (float(b["d"][0, 0]), float(b["m"][0, 0]), tt_opt.precision.one_by_one(b["q"])[0, 0, [0, 31]])
        )(tt_opt.precision.blocks_of(y, "q4_1")),
        (float(np.float16(0.1)), 1.0, np.array([0, 15])),
        (lambda got: abs(got[0] - 2.5 / 15) < 1e-3, "The grid of q4_1 begins at the minimum, not at 0."),
        see=FOUR,
    )
    expect(
        "numbers of blocks of zeros",
        lambda: [
            float(np.abs(tt_opt.precision.numbers_of(tt_opt.precision.blocks_of(x * 0, kind))).max()) for kind in STEPS
        ],
        [0, 0, 0],
        see=FOUR,
    )
    expect("blocks of rows of 40", lambda: tt_opt.precision.blocks_of(np.ones((2, 40)), "q8_0"), ValueError, see=FOUR)


# Layers


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "int8", "q8_0", "q4_0", "q4_1"])
def test_packed_product(kind):
    x, weight = 1 + np.abs(normal(2, 3, 64)), 1 + np.abs(normal(3000, 64, seed=1))
    data = tt_opt.FORMATS[kind].pack(weight)
    expect(
        f"packed_product of x (2, 3, 64) with 3,000 rows in {kind}",
        lambda: tt_opt.packed_product(tt.from_numpy(x), tt.from_numpy(data), kind=kind),
        x @ tt_opt.FORMATS[kind].unpack(data).T,
        (lambda got: np.shape(got) != (2, 3, 3000), "One result for each row: (..., R)."),
        "Unpack a part of the rows, multiply x with it, and write the results into their columns.",
        see=LAYERS,
    )


def test_packed_product_unpacks_in_parts(monkeypatch):
    sizes = []
    form = tt_opt.FORMATS["int8"]

    def unpack(data):
        sizes.append(len(data))
        return form.unpack(data)

    def largest():
        sizes.clear()
        monkeypatch.setitem(tt_opt.FORMATS, "int8", form._replace(unpack=unpack))
        tt_opt.packed_product(tt.ones(1, 64), tt.from_numpy(form.pack(normal(20_000, 64))), kind="int8")
        return max(sizes) * 64

    expect(
        "the most numbers that packed_product unpacks at a time, of 1.28 million",
        largest,
        between(1, 2**16),
        (lambda got: got > 1_000_000, "The whole matrix is unpacked: then the memory is gone again."),
        see=LAYERS,
    )


def test_a_quantized_embedding():
    table = given(tn.Embedding(50, 64))
    data = tt_opt.FORMATS["q8_0"].pack(table.weight.numpy())
    layer = tt_opt.QuantizedEmbedding.of(table, tt.from_numpy(data), "q8_0")
    ids = tt.tensor([[3, 1, 3], [49, 0, 7]])
    expect(
        "a QuantizedEmbedding of ids (2, 3): (2, 3, 64)",
        lambda: layer(ids),
        tt_opt.FORMATS["q8_0"].unpack(data)[ids.numpy()],
        (lambda got: np.shape(got) == (6, 64), "The vectors take the place of the ids: (..., C)."),
        see=LAYERS,
    )
    large = tn.Embedding(4000, 64)
    packed = tt.from_numpy(tt_opt.FORMATS["q8_0"].pack(large.weight.numpy()))
    layer = tt_opt.QuantizedEmbedding.of(large, packed, "q8_0")
    expect(
        "bytes that looking up 6 of 4000 vectors of 64 numbers takes",
        lambda: tt.setup.peak_of(layer, ids)[0],
        between(0, 100_000),
        "Unpack the rows that are asked for, and not the whole table.",
        see=LAYERS,
    )


def network():
    layers = [ts.Conv2d(3, 8, 3, padding=1), tt.ReLU(), ts.MaxPool2d(2), tt.Flatten(), tt.Linear(8 * 16, 10)]
    return given(tt.Sequential(*layers)).eval()


def test_quantize_a_network():
    model, x = network(), tt.from_numpy(normal(4, 3, 8, 8))

    def kinds():
        small = tt_opt.quantize_(deepcopy(model))
        return [type(layer).__name__ for layer in small.children()]

    expect(
        "the layers of a convolutional network after quantize_",
        kinds,
        ["QuantizedConv2d", "ReLU", "MaxPool2d", "Flatten", "QuantizedLinear"],
        (lambda got: got[0] == "Conv2d", "Put each new layer into its parent: setattr(parent, name, layer)."),
        see=LAYERS,
    )

    def error():
        small = tt_opt.quantize_(deepcopy(model))
        return float(np.abs(small(x).detach().numpy() - model(x).detach().numpy()).max())

    expect("the largest change of its results", error, between(1e-7, 0.1), see=LAYERS)
    expect("what quantize_ returns: the model itself?", lambda: tt_opt.quantize_(m := network()) is m, True, see=LAYERS)
    expect("quantize_(model, 'int3')", lambda: tt_opt.quantize_(network(), "int3"), ValueError, see=LAYERS)
    expect("quantize_ of a layer", lambda: tt_opt.quantize_(tt.Linear(2, 2)), TypeError, see=LAYERS)


def test_quantize_a_gpt():
    model = given(tn.transformers.small_gpt(50, 2, 64))

    def shared():
        small = tt_opt.quantize_(deepcopy(model), "q4_1")
        return small.lm_head.rows is small.transformer.wte.rows

    expect(
        "do the embedding and the last layer of a GPT share their rows after quantize_?",
        shared,
        True,
        (False, "They shared a weight: pack each weight once."),
        see=LAYERS,
    )

    def blocks():
        small = tt_opt.quantize_(deepcopy(model), "q4_1")
        layers = [m for m in small.modules() if isinstance(m, tt_opt.Quantized)]
        return len(layers), sorted({m.kind for m in layers})

    expect("how many layers of a GPT of two blocks are quantized, and in which formats", blocks, (11, ["q4_1"]),
           see=LAYERS)  # fmt: skip
    uneven = tt.Sequential(tt.Linear(40, 64), tt.Linear(64, 2))
    expect("the formats of Linear(40, 64) and Linear(64, 2) after quantize_(model, 'q4_0')",
           lambda: [m.kind for m in tt_opt.quantize_(deepcopy(uneven), "q4_0").children()], ["int8", "q4_0"],
           (ValueError, "Rows that cannot be cut into blocks become int8."), see=LAYERS)  # fmt: skip


# Activations


class Dense(tt.Module):
    """A layer whose product is the primitive affine, whatever Linear is."""

    def __init__(self, into, out):
        super().__init__()
        self.weight, self.bias = tt.Parameter(tt.zeros(out, into)), tt.Parameter(tt.zeros(out))

    def forward(self, x):
        return tt.linear(x, self.weight, self.bias)


def test_observed():
    model = given(tt.Sequential(Dense(3, 4), tt.ReLU(), Dense(4, 2)))
    x, y = tt.from_numpy(normal(5, 3)), tt.from_numpy(normal(2, 3, seed=1))
    wanted = [np.concatenate([f(x).detach().numpy().ravel(), f(y).detach().numpy().ravel()])
              for f in (lambda t: t, lambda t: tt.relu(model[0](t)))]  # fmt: skip
    expect(
        "observed(model, [x, y]) for Linear, ReLU, Linear: the inputs of both products",
        lambda: tt_opt.observed(model, [x, y]),
        wanted,
        (lambda got: len(got) == 4, "The inputs of a product in all passes belong together."),
        (lambda got: len(got) == 2 and np.size(got[0]) == 15, "All batches count, not the first only."),
        see=ACTIVATIONS,
    )


def test_affine_scale():
    expect(
        "affine_scale of -1 to 1.55, of 0.5 to 2.55, of -2.55 to -1, of 0 to 0",
        lambda: [tt_opt.affine_scale(*r) for r in ((-1.0, 1.55), (0.5, 2.55), (-2.55, -1.0), (0.0, 0.0))],
        [(0.01, 100), (0.01, 0), (0.01, 255), (1.0, 0)],
        (ZeroDivisionError, "A range of one number has no width: take the scale 1."),
        (lambda got: abs(got[1][0] - 0.01) > 1e-4, "0 must be a point: extend the range to hold it."),
        (lambda got: got[0][1] == -100, "The zero point is how far 0 lies above the lowest point."),
        see=ACTIVATIONS,
    )


def test_least_error():
    x = np.append(np.tile(np.linspace(0, 1, 1001), 300), 3.0)
    expect(
        "the upper end of least_error for 300,000 numbers from 0 to 1 and one of 3",
        lambda: tt_opt.precision.least_error(x)[1],
        between(1.5, 2.7),
        (lambda got: got > 2.9, "A stray number is not worth a coarse grid for all others: compare the errors."),
        see=ACTIVATIONS,
    )
    even = np.linspace(0, 1, 10_001)
    expect("least_error of numbers spread evenly from 0 to 1", lambda: tt_opt.precision.least_error(even), (0.0, 1.0),
           see=ACTIVATIONS)  # fmt: skip


# Training


def test_fake_quantize():
    x = tt.tensor([-9.0, -0.3, 0.1, 0.4, 9.0])
    expect(
        "fake_quantize of -9, -0.3, 0.1, 0.4, 9 with scale 0.25, low=-7, high=7",
        lambda: tt_opt.fake_quantize(x, scale=0.25, low=-7, high=7),
        np.array([-1.75, -0.25, 0.0, 0.5, 1.75]),
        (np.array([-9.0, -0.25, 0.0, 0.5, 9.0]), "What is outside of the grid goes to its last point."),
        (np.array([-7.0, -1.0, 0.0, 2.0, 7.0]), "It stays a float: times the scale again."),
        see=THROUGH,
    )
    expect("fake_quantize of -9, ..., 9 with scale 0.1, zero_point=3, low=0, high=7",
           lambda: tt_opt.fake_quantize(x, scale=0.1, zero_point=3, low=0, high=7),
           np.array([-0.3, -0.3, 0.1, 0.4, 0.4]), see=THROUGH)  # fmt: skip


def test_the_gradient_goes_straight_through():
    def gradient():
        x = tt.tensor([-9.0, -1.76, -0.3, 0.1, 1.76, 9.0], requires_grad=True)
        y = tt_opt.fake_quantize(x, scale=0.25, low=-7, high=7)
        return ta.grad(y, x, tt.tensor([1.0, 2, 3, 4, 5, 6]))[0]

    expect(
        "the gradient of -9, -1.76, -0.3, 0.1, 1.76, 9 on the grid from -1.75 to 1.75, where 1, 2, ..., 6 arrived",
        gradient,
        np.array([0.0, 2, 3, 4, 5, 0]),
        (np.array([1.0, 2, 3, 4, 5, 6]), "What was clipped has no gradient."),
        (np.zeros(6), "The derivative of rounding teaches nothing: pretend that it is 1."),
        see=THROUGH,
    )


def test_rounding_in_the_door():
    model = given(tt.Sequential(Dense(3, 4), tt.ReLU(), Dense(4, 2)))
    x = tt.from_numpy(normal(5, 3))

    def by_hand(bits, ranges=()):
        def grid(a, r):
            scale, zero = tt_opt.affine_scale(*r)
            return tt_opt.dequantize(tt_opt.quantize(a, scale, zero, 0, 255), scale, zero)

        def weight(layer):
            w, limit = layer.weight.detach().numpy(), 2 ** (bits - 1) - 1
            scale = tt_opt.symmetric_scale(w, bits, dim=1)
            return tt_opt.dequantize(tt_opt.quantize(w, scale, 0, -limit, limit), scale)

        h = x.numpy() if not ranges else grid(x.numpy(), ranges[0])
        h = np.maximum(h @ weight(model[0]).T + model[0].bias.detach().numpy(), 0)
        h = h if not ranges else grid(h, ranges[1])
        return h @ weight(model[2]).T + model[2].bias.detach().numpy()

    def inside(bits, ranges=(), times=1):
        with tt_opt.rounding(bits, ranges):
            for _ in range(times):
                y = model(x)
        return y.detach()

    expect("a network within rounding(3)", lambda: inside(3), by_hand(3), see=THROUGH)
    ranges = [(-1.0, 1.0), (0.0, 0.5)]
    expect(
        "a network within rounding(8, ranges), second pass",
        lambda: inside(8, ranges, 2),
        by_hand(8, ranges),
        (IndexError, "With each pass the ranges begin again."),
        see=THROUGH,
    )
    expect("the same network afterwards", lambda: (inside(3), model(x).detach())[1], model(x).detach(), see=THROUGH)

    def trained():
        with tt_opt.rounding(3):
            before = model[0].weight.detach().numpy().copy()
            model(x).sum().backward()
        return bool((model[0].weight.grad.numpy() != 0).any()), bool(np.array_equal(before, model[0].weight.numpy()))

    expect("within rounding: does the weight get a gradient, and is it unchanged itself?", trained, (True, True),
           see=THROUGH)  # fmt: skip


def test_convolutions_are_rounded_too():
    layer, x = given(ts.Conv2d(2, 3, 3)), tt.from_numpy(normal(1, 2, 5, 5))
    w = layer.weight.detach().numpy()
    scale = tt_opt.symmetric_scale(w.reshape(3, -1), 2, dim=1).reshape(3, 1, 1, 1)
    wanted = ts.conv2d(x, tt.from_numpy(tt_opt.dequantize(tt_opt.quantize(w, scale, 0, -1, 1), scale)), layer.bias)

    def inside():
        with tt_opt.rounding(2):
            return layer(x).detach()

    expect("a convolution within rounding(2)", inside, wanted.detach(),
           "The filters of an output channel have one scale: flatten each before you look for its maximum.",
           see=THROUGH)  # fmt: skip


def test_every_pair_of_four_bits_survives():
    pairs = np.array(list(itertools.product(range(16), range(16))), np.uint8)
    q = np.concatenate([np.repeat(pairs[:, :1], 16, 1), np.repeat(pairs[:, 1:], 16, 1)], axis=1)
    expect(
        "one_by_one of two_in_a_byte for all pairs",
        lambda: tt_opt.precision.one_by_one(tt_opt.precision.two_in_a_byte(q)),
        q,
        see=FOUR,
    )
