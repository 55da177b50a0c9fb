"""Chapter 09, judged by its public names."""

import numpy as np
import pytest

import tt_autograd as ta
import tt_spatial as ts
import tt_tensor as tt
from tt_tensor.teaching import between, expect

LOOPS, SIZES = "The smallest thing that could work", "Sizes"
TAPS, COLUMNS = "From seven loops to nine", "From nine products to one"
GRADIENTS, LAYER, POOLING, LENET = "Gradients: two more convolutions", "The layer", "Pooling", "LeNet"
HELP, EXERCISES = "Does it help?", "Exercises"

PLAIN = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def numbers(*shape):
    """Numbers that follow no pattern, the same in every run."""
    return np.random.default_rng(9).normal(size=shape)


def by_definition(x, weight, bias=0, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    """The convolution of a batch, one window at a time."""
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    reach = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation)]
    rows, columns = (range(0, n - r + 1, s) for n, r, s in zip(x.shape[2:], reach, stride))
    channels, filters = x.shape[1] // groups, len(weight) // groups
    out = np.zeros((len(x), len(weight), len(rows), len(columns)))
    for g in range(groups):
        of_group = weight[g * filters : (g + 1) * filters]
        for i, top in enumerate(rows):
            for j, left in enumerate(columns):
                window = x[:, g * channels : (g + 1) * channels]
                window = window[:, :, top : top + reach[0] : dilation[0], left : left + reach[1] : dilation[1]]
                out[:, g * filters : (g + 1) * filters, i, j] = np.einsum("ncij,ocij->no", window, of_group)
    return out + np.reshape(bias, (-1, 1, 1))


FLIPPED = "The kernel is flipped: no flip in deep learning, weight (i, j) meets the pixel at (row + i, column + j)."


def test_the_seven_loops_and_the_taps():
    image, kernel = np.arange(9.0).reshape(1, 1, 3, 3), np.array([[1.0, 2.0], [0.0, 0.0]]).reshape(1, 1, 2, 2)
    wanted = by_definition(image, kernel)
    turned = by_definition(image, kernel[:, :, ::-1, ::-1])
    for name, see in (("seven_loops", LOOPS), ("by_taps", TAPS)):
        expect(
            f"{name}(3 x 3 image 0..8, kernel [[1, 2], [0, 0]])",
            lambda name=name: getattr(ts.spatial, name)(image, kernel),
            wanted,
            (turned, FLIPPED),
            see=see,
        )
        x, weight = numbers(2, 3, 5, 4), numbers(4, 3, 2, 3)
        expect(
            f"{name} of 2 images (3, 5, 4) with 4 kernels of 2 x 3",
            lambda name=name, x=x, weight=weight: getattr(ts.spatial, name)(x, weight),
            by_definition(x, weight),
            (lambda out: out.shape != (2, 4, 4, 2), "Of n pixels a window of k has n - k + 1 places."),
            "All channels take part in each result, and each kernel gives a map of its own.",
            see=see,
        )


def test_sizes():
    cases = [(7, 3, 2, 1, 1), (9, 3, 1, 0, 2), (5, 5, 1, 0, 1), (32, 3, 1, 1, 1), (8, 3, 2, 0, 1), (4, 5, 1, 0, 1)]

    def size(n, k, s, p, d):
        return (n + 2 * p - d * (k - 1) - 1) // s + 1

    def without_padding(out):
        return out == [size(n, k, s, 0, d) for n, k, s, p, d in cases]

    def with_half_padding(out):
        return out == [size(n, k, s, p / 2, d) for n, k, s, p, d in cases]

    expect(
        "conv_size for (n, kernel, stride, padding, dilation) = " + ", ".join(map(str, cases)),
        lambda: [ts.conv_size(*case) for case in cases],
        [size(*case) for case in cases],
        (without_padding, "The padding is missing: there are n + 2 p pixels."),
        (with_half_padding, "The padding is on both sides: there are n + 2 p pixels."),
        (
            lambda out: out[0] == 4 and out[4] != 3,
            "The size is rounded down: a window that sticks out does not count.",
        ),
        "The size is (n + 2p - d(k - 1) - 1) // s + 1: the first place counts, and dilation makes a kernel longer.",
        see=SIZES,
    )


def test_windows():
    x = np.arange(2 * 6 * 7 * 3).reshape(2, 6, 7, 3)

    def at(size, stride, dilation, place):
        n, row, column, i, j = place
        return x[n, row * stride[0] + i * dilation[0], column * stride[1] + j * dilation[1]]

    for size, stride, shape in (((2, 3), (1, 1), (2, 5, 5, 2, 3, 3)), ((3, 2), (2, 3), (2, 2, 2, 3, 2, 3))):
        expect(
            f"the shape of dense_windows of {size}, stride {stride}, of images (2, 6, 7, 3)",
            lambda size=size, stride=stride: ts.spatial.dense_windows(x, size, stride).shape,
            shape,
            (
                lambda out, shape=shape: np.array_equal(out, [*shape[:3], shape[5], *shape[3:5]]),
                "The channels come last: NumPy puts the window's dimensions behind them, a transpose before them.",
            ),
            "(N, rows, columns, kh, kw, C): how often the window fits, then the window, then the channels.",
            see=COLUMNS,
        )
        expect(
            f"the last window of {size}, stride {stride}, of the second image",
            lambda size=size, stride=stride: ts.spatial.dense_windows(x, size, stride)[1, -1, -1],
            x[1, (shape[1] - 1) * stride[0] :, (shape[2] - 1) * stride[1] :][: size[0], : size[1]],
            "Window (row, column) begins at (row * stride, column * stride).",
            see=COLUMNS,
        )
    for size, stride, dilation, shape in (
        ((2, 3), (1, 1), (1, 1), (2, 5, 5, 2, 3, 3)),
        ((3, 2), (2, 3), (1, 2), (2, 2, 2, 3, 2, 3)),
    ):
        expect(
            f"the shape of windows of {size}, stride {stride}, dilation {dilation}, of images (2, 6, 7, 3)",
            lambda size=size, stride=stride, dilation=dilation: ts.windows(x, size, stride, dilation).shape,
            shape,
            "(N, rows, columns, kh, kw, C): how often the window fits, then the window, then the channels.",
            see=COLUMNS,
        )
        places = [(0, 0, 0, 0, 0), (1, 1, 1, 1, 0), (1, shape[1] - 1, shape[2] - 1, size[0] - 1, size[1] - 1)]
        expect(
            f"pixels seen under windows of {size}, stride {stride}, dilation {dilation} at {places}",
            lambda where=(size, stride, dilation), places=places: [ts.windows(x, *where)[place] for place in places],
            [at(size, stride, dilation, place) for place in places],
            "Window (row, column) begins at (row * stride, column * stride), and its taps are a dilation apart.",
            see=COLUMNS,
        )
    expect(
        "do the windows share their memory with the images?",
        lambda: bool(np.shares_memory(ts.windows(x, (2, 2), (1, 1), (1, 1)), x)),
        True,
        "A view is enough: repeating every pixel in every window would take many times the memory.",
        see=COLUMNS,
    )

    def write():
        pixels = np.zeros((1, 3, 3, 1))
        ts.windows(pixels, (2, 2), (1, 1), (1, 1))[0, 1, 0, 1, 1] = 5
        return pixels[0, :, :, 0]

    expect(
        "an image of zeros, after 5 was written into the last pixel of window (1, 0)",
        write,
        [[0, 0, 0], [0, 0, 0], [0, 5, 0]],
        (ValueError, "The view can only be read: `sliding_window_view` takes `writeable=`."),
        see=COLUMNS,
    )


OPTIONS = [
    {},
    {"stride": (2, 1)},
    {"padding": (1, 2)},
    {"dilation": (1, 2)},
    {"groups": 2},
    {"stride": (2, 3), "padding": (2, 1), "dilation": (2, 1), "groups": 2},
]


def test_convolution():
    for options in OPTIONS:
        where = PLAIN | options
        x, weight, bias = numbers(3, 4, 7, 6), numbers(6, 4 // where["groups"], 3, 2), numbers(6)
        said = ", ".join(f"{name} {value}" for name, value in options.items()) or "no options"
        right = by_definition(x, weight, bias, **where)
        expect(
            f"convolution of 3 images (4, 7, 6) with a weight {weight.shape} and a bias: {said}",
            lambda x=x, weight=weight, bias=bias, where=where: ts.convolution(x, weight, bias, **where),
            right,
            (by_definition(x, weight[:, :, ::-1, ::-1], bias, **where), FLIPPED),
            (by_definition(x, weight, **where), "The bias is missing."),
            (lambda out, right=right: out.shape != right.shape, "The sizes of the result are those of `conv_size`."),
            (
                lambda out, right=right: np.allclose(out[0], right[0]) and not np.allclose(out, right),
                "The first image is right, others are not: each image's product has a place of its own in the result.",
            ),
            see=COLUMNS,
        )
    x, weight = numbers(3, 4, 7, 6), numbers(6, 4, 3, 2)
    expect(
        "convolution without a bias",
        lambda: ts.convolution(x, weight, **PLAIN),
        by_definition(x, weight),
        "The bias may be absent.",
        see=COLUMNS,
    )
    many = numbers(40, 3, 34, 34)
    many_weight = numbers(5, 3, 3, 3)
    expect(
        "one number of each result of a convolution of 40 images (3, 34, 34)",
        lambda: ts.convolution(many, many_weight, **PLAIN)[:, 1, 2, 3],
        by_definition(many, many_weight)[:, 1, 2, 3],
        "Each image's product has a place of its own in the result.",
        see=COLUMNS,
    )
    for dtype in ("float32", "float16"):
        expect(
            f"the dtype of a convolution of {dtype}",
            lambda dtype=dtype: str(ts.convolution(x.astype(dtype), weight.astype(dtype), **PLAIN).dtype),
            dtype,
            "Whatever it is computed in, the result has the dtype of x: `astype` at the end.",
            see=COLUMNS,
        )


def transposed_by_definition(g, weight, size, stride, padding, dilation, groups):
    """Each number of g hands its value times the kernel out to its window."""
    out = np.zeros((len(g), weight.shape[1] * groups, size[0] + 2 * padding[0], size[1] + 2 * padding[1]))
    filters, channels = len(weight) // groups, weight.shape[1]
    for o, row, column, i, j in np.ndindex(*g.shape[1:], *weight.shape[2:]):
        first = o // filters * channels
        place = (row * stride[0] + i * dilation[0], column * stride[1] + j * dilation[1])
        share = g[:, o, row, column, None] * weight[o, :, i, j]
        out[:, first : first + channels, place[0], place[1]] += share
    return out[:, :, padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]


def weight_by_definition(x, g, size, stride, padding, dilation, groups):
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    channels, filters = x.shape[1] // groups, g.shape[1] // groups
    out = np.zeros((g.shape[1], channels, *size))
    for o, c, i, j in np.ndindex(*out.shape):
        seen = x[:, o // filters * channels + c, i * dilation[0] :: stride[0], j * dilation[1] :: stride[1]]
        out[o, c, i, j] = (seen[:, : g.shape[2], : g.shape[3]] * g[:, o]).sum()
    return out


def test_gradients_of_convolution():
    for options in OPTIONS:
        where = PLAIN | options
        x, weight = numbers(3, 4, 7, 6), numbers(6, 4 // where["groups"], 3, 2)
        g = numbers(*by_definition(x, weight, **where).shape)
        said = ", ".join(f"{name} {value}" for name, value in options.items()) or "no options"
        wanted = weight_by_definition(x, g, (3, 2), **where)
        expect(
            f"weight_convolution of 3 images (4, 7, 6) and a gradient {g.shape}: {said}",
            lambda x=x, g=g, where=where: ts.weight_convolution(x, g, size=(3, 2), **where),
            wanted,
            (wanted / len(x), "A sum over the images, and not their mean."),
            (
                lambda out, wanted=wanted: out.shape != wanted.shape,
                "The result has the shape of the weight, (O, C / groups, kh, kw).",
            ),
            "At tap (i, j), g meets the pixels that were seen under that tap: columns transposed, times g.",
            see=GRADIENTS,
        )
        expect(
            f"transposed_convolution of a gradient {g.shape} to images of (7, 6): {said}",
            lambda g=g, weight=weight, where=where: ts.transposed_convolution(g, weight, size=(7, 6), **where),
            transposed_by_definition(g, weight, (7, 6), **where),
            (
                lambda out, x=x: out.shape == x.shape,
                "A pixel hears from all windows that it was in: turn the weights by half a circle, exchange inputs and "
                "outputs, and where windows overlap, add.",
            ),
            see=GRADIENTS,
        )


def test_gradients_by_taps():
    x, weight = numbers(3, 2, 6, 5), numbers(4, 2, 3, 2)
    g = numbers(3, 4, 4, 4)
    of_x, of_weight = transposed_by_definition(g, weight, (6, 5), **PLAIN), weight_by_definition(x, g, (3, 2), **PLAIN)
    once = np.zeros_like(of_x)
    once[:, :, 2:, 1:] = np.einsum("nors,oc->ncrs", g, weight[:, :, 2, 1])
    last = np.array(once)
    for i, j in np.ndindex(3, 2):
        last[:, :, i : i + 4, j : j + 4] = np.einsum("nors,oc->ncrs", g, weight[:, :, i, j])
    flipped = transposed_by_definition(g, weight[:, :, ::-1, ::-1], (6, 5), **PLAIN)
    call = "gradients_by_taps(x (3, 2, 6, 5), weight (4, 2, 3, 2), g (3, 4, 4, 4))"
    expect(
        f"shapes of {call}",
        lambda: [part.shape for part in ts.spatial.gradients_by_taps(x, weight, g)],
        [(3, 2, 6, 5), (4, 2, 3, 2)],
        ([(4, 2, 3, 2), (3, 2, 6, 5)], "First the gradient of the images, then that of the weight."),
        "Each gradient has the shape of what it is the gradient of.",
        see=GRADIENTS,
    )
    expect(
        f"{call}: the gradient of x",
        lambda: ts.spatial.gradients_by_taps(x, weight, g)[0],
        of_x,
        (last, "Windows overlap: what a pixel receives under several taps adds up."),
        (once, "Windows overlap: what a pixel receives under several taps adds up."),
        (flipped, "What met tap (i, j) lies i rows down and j columns to the right of the place."),
        "Under tap (i, j), a pixel receives g times the weights of the tap, summed over the filters.",
        see=GRADIENTS,
    )
    expect(
        f"{call}: the gradient of the weight",
        lambda: ts.spatial.gradients_by_taps(x, weight, g)[1],
        of_weight,
        (of_weight / len(x), "A sum over the images, and not their mean."),
        "Tap (i, j) met one slice of the images: sum g times that slice over images, rows and columns.",
        see=GRADIENTS,
    )


def test_turned():
    weight = np.arange(24.0).reshape(4, 1, 2, 3)
    wanted = np.stack([weight[:2, 0, ::-1, ::-1], weight[2:, 0, ::-1, ::-1]])
    expect(
        "flip_kernels(weight (4, 1, 2, 3) of 0..23, groups=2)",
        lambda: ts.spatial.flip_kernels(weight, 2),
        wanted,
        (wanted[:, :, ::-1, ::-1], "Turn the kernels by half a circle: both of their dimensions run backwards."),
        (
            lambda out: out.shape != wanted.shape,
            "Inputs and outputs are exchanged in each group: (C, O / groups, ...).",
        ),
        see=GRADIENTS,
    )
    weight = numbers(3, 2, 2, 2)
    expect(
        "flip_kernels(weight (3, 2, 2, 2), groups=1)",
        lambda: ts.spatial.flip_kernels(weight, 1),
        weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3),
        (weight.transpose(1, 0, 2, 3), "Turn the kernels by half a circle: both of their dimensions run backwards."),
        (weight[:, :, ::-1, ::-1], "Exchange inputs and outputs, too."),
        see=GRADIENTS,
    )


def test_conv2d():
    x, weight, bias = numbers(2, 4, 7, 6), numbers(6, 2, 3, 2), numbers(6)
    expect(
        "conv2d(x (2, 4, 7, 6), weight (6, 2, 3, 2), bias, stride=2, padding=(1, 0), dilation=(1, 2), groups=2)",
        lambda: ts.conv2d(tt.Tensor(x), tt.Tensor(weight), tt.Tensor(bias), 2, (1, 0), (1, 2), 2),
        by_definition(x, weight, bias, (2, 2), (1, 0), (1, 2), 2),
        "Numbers become pairs, and then `convolution` does the work.",
        see=LAYER,
    )
    x, weight = numbers(1, 2, 5, 6), numbers(3, 2, 3, 4)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 2)))
    expect(
        'conv2d(x (1, 2, 5, 6), weight (3, 2, 3, 4), padding="same")',
        lambda: ts.conv2d(tt.Tensor(x), tt.Tensor(weight), padding="same"),
        by_definition(padded, weight),
        "`convolution_arguments` gives the padding, and an image with what is left over.",
        see=LAYER,
    )
    expect(
        "the shape of conv2d of a single image (2, 5, 6) with a weight (3, 2, 3, 4)",
        lambda: ts.conv2d(tt.Tensor(x[0]), tt.Tensor(weight)).shape,
        (3, 3, 3),
        "A single image is a batch of one, whose dimension is taken away again.",
        see=LAYER,
    )
    images = tt.zeros(2, 3, 8, 8)
    for said, call in (
        ("an image of 2 channels for a weight of 3", lambda: ts.conv2d(images[:, :2], tt.zeros(4, 3, 3, 3))),
        ("2 groups and 3 filters", lambda: ts.conv2d(images, tt.zeros(3, 1, 3, 3), groups=2)),
        ("a bias of 3 for 4 filters", lambda: ts.conv2d(images, tt.zeros(4, 3, 3, 3), tt.zeros(3))),
        ("a kernel of 9 x 9 on images of 8 x 8", lambda: ts.conv2d(images, tt.zeros(4, 3, 9, 9))),
        ("images of two dimensions", lambda: ts.conv2d(images.flatten(1), tt.zeros(4, 3, 3, 3))),
        ("images without a row", lambda: ts.conv2d(images[:, :, :0], tt.zeros(4, 3, 3, 3))),
        ("a stride of 0", lambda: ts.conv2d(images, tt.zeros(4, 3, 3, 3), stride=0)),
    ):
        shape = lambda call=call: call().shape
        expect(f"conv2d with {said}", shape, ValueError, "Look at the arguments first.", see=LAYER)
    expect(
        "the shape of conv2d of an empty batch (0, 3, 8, 8) with a weight (4, 3, 3, 3)",
        lambda: ts.conv2d(images[:0], tt.zeros(4, 3, 3, 3)).shape,
        (0, 4, 6, 6),
        "A batch without images has a result without images.",
        see=LAYER,
    )
    expect(
        "conv2d of ones, integers (1, 1, 2, 2), with weights of 0.6 (1, 1, 2, 2)",
        lambda: ts.conv2d(tt.from_numpy(np.ones((1, 1, 2, 2), np.int64)), tt.full((1, 1, 2, 2), 0.6)),
        [[[[2.4]]]],
        ([[[[2]]]], "Half of the sum was cut off: `convolution_arguments` brings the tensors to one dtype."),
        see=LAYER,
    )


def test_gradients_flow():
    def shares(name):
        x, weight, bias = (tt.Tensor(numbers(*s), requires_grad=True) for s in ((2, 2, 5, 4), (3, 2, 2, 2), (3,)))
        out = ts.conv2d(x, weight, bias, stride=(1, 2), padding=1)
        (out * tt.Tensor(numbers(*out.shape))).sum().backward()
        return {"x": x, "weight": weight, "bias": bias}[name].grad

    where = PLAIN | {"stride": (1, 2), "padding": (1, 1)}
    x, weight = numbers(2, 2, 5, 4), numbers(3, 2, 2, 2)
    g = numbers(*by_definition(x, weight, **where).shape)
    for name, wanted in (
        ("x", transposed_by_definition(g, weight, (5, 4), **where)),
        ("weight", weight_by_definition(x, g, (2, 2), **where)),
        ("bias", g.sum((0, 2, 3))),
    ):
        expect(
            f"the gradient of sum(g * conv2d(x, weight, bias, stride=(1, 2), padding=1)) by {name}",
            lambda name=name: shares(name),
            wanted,
            (wanted * 0, "Windows overlap: their shares add up."),
            "It is one of the other two convolutions; for the bias, a sum over images and places.",
            see=GRADIENTS,
        )


def test_new_weights():
    def layer():
        return ts.Conv2d(8, 32, 5, groups=2)

    bound = 1 / np.sqrt(4 * 5 * 5)

    def far(out):
        """the largest weight and the largest bias by the bound"""
        return bool(np.max(out) <= 1.0001 and out[0] > 0.95 and out[1] > 0.5)

    expect(
        "the largest weight and bias of Conv2d(8, 32, 5, groups=2), by 1 / sqrt(100)",
        lambda: [float(np.abs(p.numpy()).max()) / bound for p in (layer().weight, layer().bias)],
        far,
        (lambda out: out[0] == 0, "All weights are zero: draw them."),
        (lambda out: out[0] > 1.2, "A filter has C / groups * kh * kw weights: its bound is 1 / sqrt of that."),
        (lambda out: out[0] < 0.9, "A filter has C / groups * kh * kw weights: its bound is 1 / sqrt of that."),
        see=LAYER,
    )
    expect(
        "the standard deviation of its weights, by 1 / sqrt(100)",
        lambda: float(layer().weight.numpy().std()) / bound,
        between(0.54, 0.615),
        "Draw uniformly between minus and plus the bound.",
        see=LAYER,
    )

    def twice():
        tt.manual_seed(3)
        first = layer().weight.numpy().copy()
        tt.manual_seed(3)
        return bool((layer().weight.numpy() == first).all())

    expect("are two layers after the same seed equal?", twice, True, "Draw from generator().", see=LAYER)
    expect(
        "the parameters of Conv2d(1, 2, 3, bias=False)",
        lambda: [name for name, _ in ts.Conv2d(1, 2, 3, bias=False).named_parameters()],
        ["weight"],
        (AttributeError, "Without a bias, `self.bias` is None: go through `self.parameters()`."),
        see=LAYER,
    )


def pooled(x, size, stride, padding, dilation=(1, 1), empty=-np.inf):
    """The largest number of each window."""
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2), constant_values=empty)
    reach = [d * (k - 1) + 1 for k, d in zip(size, dilation)]
    rows, columns = (range(0, n - r + 1, s) for n, r, s in zip(x.shape[2:], reach, stride))
    parts = [
        x[:, :, top : top + reach[0] : dilation[0], left : left + reach[1] : dilation[1]].max((2, 3))
        for top in rows
        for left in columns
    ]
    return np.stack(parts, -1).reshape(*x.shape[:2], len(rows), len(columns))


def test_max_pool():
    x = -np.abs(numbers(2, 3, 7, 6)) - 1
    for size, stride, padding, dilation in (
        ((2, 2), (2, 2), (0, 0), (1, 1)),
        ((3, 2), (2, 1), (1, 1), (1, 1)),
        ((2, 2), (1, 2), (1, 0), (2, 1)),
    ):
        wanted = pooled(x, size, stride, padding, dilation)
        expect(
            f"max_pool of negative images (2, 3, 7, 6): size {size}, stride {stride}, padding {padding}, dilation "
            f"{dilation}",
            lambda size=size, stride=stride, padding=padding, dilation=dilation: ts.max_pool(
                x, size=size, stride=stride, padding=padding, dilation=dilation
            ),
            wanted,
            (
                lambda out: out.max() >= 0,
                "The maximum 0 is not in the input: what stands around the image must not win, pad with -inf.",
            ),
            (
                lambda out, wanted=wanted: out.shape != wanted.shape,
                "The sizes are those of `conv_size`, with the stride.",
            ),
            see=POOLING,
        )
    expect(
        "max_pool2d(image 0..15 of 4 x 4, 2)",
        lambda: ts.max_pool2d(tt.arange(16.0).reshape(1, 1, 4, 4), 2),
        [[[[5, 7], [13, 15]]]],
        (lambda out: out.shape == (1, 1, 3, 3), "Unless it is given, the stride is the size of the window."),
        see=POOLING,
    )


def test_max_unpool():
    def share(x, size, stride, padding=(0, 0)):
        x = np.asarray(x, float).reshape(1, 1, *np.shape(x))
        largest = pooled(x, size, stride, padding)
        g = np.arange(1.0, largest.size + 1).reshape(largest.shape)
        where = {"size": size, "stride": stride, "padding": padding, "dilation": (1, 1)}
        return lambda: ts.max_unpool(g, x, largest, **where)[0, 0]

    expect(
        "max_unpool of g = [[1, 2], [3, 4]] for a 3 x 3 image with 9 in the middle, windows of 2 x 2, stride 1",
        share([[0, 0, 0], [0, 9, 0], [0, 0, 0]], (2, 2), (1, 1)),
        [[0, 0, 0], [0, 10, 0], [0, 0, 0]],
        (
            lambda out: out[1, 1] in (1, 2, 3, 4),
            "Windows overlap: the pixel in the middle won in four of them, add their shares.",
        ),
        see=POOLING,
    )
    expect(
        "max_unpool of g = [[1]] for the image [[5, 5], [5, 5]], one window of 2 x 2",
        share([[5, 5], [5, 5]], (2, 2), (2, 2)),
        [[1, 0], [0, 0]],
        (np.ones((2, 2)), "Four pixels are equally large: only the first of them receives g."),
        (np.full((2, 2), 0.25), "Four pixels are equally large: only the first of them receives g."),
        see=POOLING,
    )
    expect(
        "max_unpool for the negative image [[-1, -2], [-3, -4]], windows of 2 x 2, stride 2, padding 1",
        share([[-1, -2], [-3, -4]], (2, 2), (2, 2), (1, 1)),
        [[1, 2], [3, 4]],
        "What is handed to the padding is lost; take the inner part.",
        see=POOLING,
    )

    def gradient():
        x = tt.Tensor(numbers(2, 3, 6, 6), requires_grad=True)
        ts.max_pool2d(x, 2).sum().backward()
        return x.grad

    x = numbers(2, 3, 6, 6)
    blocks = x.reshape(2, 3, 3, 2, 3, 2)
    expect(
        "the gradient of max_pool2d(x, 2).sum()",
        gradient,
        (blocks == blocks.max((3, 5), keepdims=True)).reshape(x.shape) * 1.0,
        "One for each pixel that is the largest of its square, zero for the others.",
        see=POOLING,
    )


def test_anywhere():
    model = ts.spatial.Anywhere()

    def logits(down=0, right=0, height=24):
        image = np.zeros((2, 1, height, 24), np.float32)
        image[:, :, 8 + down : 12 + down, 8 + right : 12 + right] = np.abs(numbers(2, 1, 4, 4))
        return model(tt.from_numpy(image)).numpy()

    expect(
        "the shapes of Anywhere()(2 images of 24 x 24) and of 2 images of 32 x 24",
        lambda: (logits().shape, logits(height=32).shape),
        ((2, 10), (2, 10)),
        (ValueError, "Take the maximum over rows and columns: what is left is one number for each of the 96 maps."),
        "Whatever the size of the image, each of the 96 maps leaves one number.",
        see=HELP,
    )
    expect(
        "how far the logits of an image are from those of the same image, two rows and four columns away",
        lambda: float(np.abs(logits() - logits(2, 4)).max()),
        between(0, 1e-5),
        "Each map's largest number counts, wherever it is: then it does not matter where the image is.",
        see=HELP,
    )

    def by_hand():
        x = np.zeros((2, 1, 24, 24))
        x[:, :, 8:12, 8:12] = np.abs(numbers(2, 1, 4, 4))
        for name in ("conv1", "conv2", "conv3"):
            layer = getattr(model, name)
            x = by_definition(x, layer.weight.numpy(), layer.bias.numpy(), padding=(1, 1))
            x = np.maximum(x, 0)
            x = pooled(x, (2, 2), (2, 2), (0, 0)) if name == "conv2" else x
        return [found @ model.fc.weight.numpy().T + model.fc.bias.numpy() for found in (x.max((2, 3)), x.mean((2, 3)))]

    largest, mean = by_hand()
    expect(
        "the logits of 2 images",
        logits,
        largest,
        (mean, "This is the mean of each map: its largest number says whether something was found."),
        "conv1, conv2, pooling, conv3, ReLU behind each convolution, then the maximum over rows and columns, then fc.",
        see=HELP,
        tolerance=1e-4,
    )


def test_lenet():
    model = ts.LeNet()
    expect(
        "LeNet()(4 images of 1 x 28 x 28).shape, LeNet(3, 7, 32)(...).shape, LeNet(size=16)(...).shape",
        lambda: (
            model(tt.zeros(4, 1, 28, 28)).shape,
            ts.LeNet(3, 7, 32)(tt.zeros(2, 3, 32, 32)).shape,
            ts.LeNet(size=16)(tt.zeros(2, 1, 16, 16)).shape,
        ),
        ((4, 10), (2, 7), (2, 10)),
        (ValueError, "Each of the two convolutions is followed by ReLU and by a pooling that halves the maps."),
        "The feature maps are flattened from the first dimension on, for three linear layers.",
        see=LENET,
    )

    def outputs():
        x = tt.Tensor(numbers(3, 1, 28, 28).astype(np.float32))
        for number, parameter in enumerate(model.parameters()):
            start = np.sin(np.arange(parameter.numel()) + number) * 0.2
            parameter.copy_(start.reshape(parameter.shape))
        return model(x)

    def by_hand():
        x = numbers(3, 1, 28, 28)
        p = [
            (np.sin(np.arange(int(np.prod(s))) + n) * 0.2).reshape(s)
            for n, s in enumerate(
                [(6, 1, 5, 5), (6,), (16, 6, 5, 5), (16,), (120, 400), (120,), (84, 120), (84,), (10, 84), (10,)]
            )
        ]
        for weight, bias, padding in ((p[0], p[1], 2), (p[2], p[3], 0)):
            x = pooled(np.maximum(by_definition(x, weight, bias, padding=(padding,) * 2), 0), (2, 2), (2, 2), (0, 0))
        x = np.maximum(x.reshape(3, -1) @ p[4].T + p[5], 0)
        hidden = np.maximum(x @ p[6].T + p[7], 0)
        return hidden @ p[8].T + p[9], np.maximum(hidden @ p[8].T + p[9], 0)

    def features(*bends):
        x = numbers(3, 1, 28, 28)
        for n, (shape, padding) in enumerate((((6, 1, 5, 5), 2), ((16, 6, 5, 5), 0))):
            weight = (np.sin(np.arange(int(np.prod(shape))) + 2 * n) * 0.2).reshape(shape)
            bias = np.sin(np.arange(shape[0]) + 2 * n + 1) * 0.2
            x = by_definition(x, weight, bias, padding=(padding,) * 2)
            x = pooled(np.maximum(x, 0) if bends[n] else x, (2, 2), (2, 2), (0, 0))
        return x

    outputs()  # sets the weights
    right = features(True, True)
    expect(
        "the features of a LeNet with known weights, for 3 images of 28 x 28",
        lambda: model.features(tt.Tensor(numbers(3, 1, 28, 28).astype(np.float32))),
        right,
        (lambda out: np.shape(out) == (3, 400), "Features are maps, (N, 16, rows, columns): `forward` flattens them."),
        (lambda out: np.shape(out) != right.shape, "Each pooling takes squares of 2 by 2: 28, 14, then 10, 5 pixels."),
        (features(False, False), "Behind each of the two convolutions comes ReLU."),
        (features(False, True), "ReLU comes behind the first convolution, too."),
        (features(True, False), "ReLU comes behind the second convolution, too."),
        "A convolution, ReLU, the largest of each 2 by 2 pixels; and the same again.",
        see=LENET,
        tolerance=1e-3,
    )
    wanted, bent = by_hand()
    expect(
        "the logits of a LeNet with known weights",
        outputs,
        wanted,
        (bent, "The last layer gives logits: no ReLU behind it."),
        "features, flatten, and three linear layers with a ReLU between them.",
        see=LENET,
        tolerance=1e-3,
    )


def test_predictions_for_lenet():
    def measured():
        """The shapes that come out, and the layers with most weights and most multiply-adds."""
        x, shapes, work, weights = np.zeros((1, 1, 28, 28)), {}, {}, {}
        for number, weight, padding in ((1, np.zeros((6, 1, 5, 5)), 2), (2, np.zeros((16, 6, 5, 5)), 0)):
            x = by_definition(x, weight, padding=(padding,) * 2)
            shapes[f"conv{number}"], weights[f"conv{number}"] = x.shape[1:], weight.size
            work[f"conv{number}"] = x.size * weight[0].size
            x = pooled(x, (2, 2), (2, 2), (0, 0))
            shapes[f"pool{number}"] = x.shape[1:]
        linear = {"fc1": x.size * 120, "fc2": 120 * 84, "fc3": 84 * 10}
        weights, work = weights | linear, work | linear
        return shapes, {"most weights": max(weights, key=weights.get), "most multiply-adds": max(work, key=work.get)}

    shapes, largest = measured()
    expect(
        "the keys of predict_lenet()",
        lambda: sorted(ts.spatial.predict_lenet()),
        sorted(shapes | largest),
        "A dictionary with the six keys of the docstring.",
        see=LENET,
    )

    def predicted(name):
        return lambda: tuple(ts.spatial.predict_lenet()[name])

    for name, causes in (
        ("conv1", [((6, 24, 24), "conv1 has a padding of 2 around the image: 28 + 4 - 5 + 1.")]),
        ("pool1", [((6, 27, 27), "The stride of a pooling is the size of its window, 2.")]),
        ("conv2", [((16, 14, 14), "conv2 has no padding: of n pixels n - 5 + 1 are left.")]),
        ("pool2", [((16, 9, 9), "The stride of a pooling is the size of its window, 2.")]),
    ):
        expect(
            f"the shape (C, H, W) that you predict behind {name}",
            predicted(name),
            shapes[name],
            *causes,
            (lambda out: len(out) == 4, "The shape of one image: (C, H, W), without the batch."),
            (lambda out, c=shapes[name][0]: out[0] != c, "There is one map for each filter; pooling keeps them all."),
            "`conv_size` has the formula: (n + 2 padding - kernel) // stride + 1.",
            see=LENET,
        )
    expect(
        "the layer that holds most weights",
        lambda: ts.spatial.predict_lenet()["most weights"],
        largest["most weights"],
        (
            lambda out: str(out).startswith("conv"),
            "A convolution shares its few weights among all places; a linear layer has one for each pair.",
        ),
        "fc1 joins 400 numbers with 120: 48,000 weights.",
        see=LENET,
    )
    expect(
        "the layer with most multiply-adds",
        lambda: ts.spatial.predict_lenet()["most multiply-adds"],
        largest["most multiply-adds"],
        (
            lambda out: str(out).startswith("fc"),
            "A linear layer uses each weight once; a convolution uses each of its weights at every place.",
        ),
        ("conv1", "A filter of conv2 sees six maps: 10 * 10 * 16 results of 150 products, not 28 * 28 * 6 of 25."),
        see=LENET,
    )


def test_receptive_field():
    cases = [[(3, 1)], [(3, 1), (3, 1)], [(3, 1), (2, 2), (3, 1), (2, 2)], [(7, 2), (3, 2), (3, 1)], []]
    expect(
        "receptive_field of " + ", ".join(map(str, cases)),
        lambda: [ts.spatial.receptive_field(case) for case in cases],
        [3, 5, 10, 19, 1],
        ([3, 5, 7, 11, 1], "A step in a map behind a stride is as many pixels as the strides so far, multiplied."),
        "Each layer adds (kernel - 1) times the product of the strides before it, to the one pixel.",
        see=LENET,
    )


def test_conv_weights():
    expect(
        "conv_weights(16, 32, 3), conv_weights(16, 16, 3, groups=16), conv_weights(3, 6, 5)",
        lambda: [
            ts.spatial.conv_weights(16, 32, 3),
            ts.spatial.conv_weights(16, 16, 3, groups=16),
            ts.spatial.conv_weights(3, 6, 5),
        ],
        [4608, 144, 450],
        ([4608, 2304, 450], "With groups, a filter sees only channels / groups of the channels."),
        "Each filter has a kernel for each channel that it sees.",
        see=EXERCISES,
    )


def test_a_network_is_trained():
    def losses():
        model = tt.Sequential(ts.Conv2d(1, 4, 3), tt.ReLU(), ts.MaxPool2d(2), tt.Flatten(), tt.Linear(36, 2))
        x = tt.Tensor(np.random.default_rng(1).normal(size=(16, 1, 8, 8)).astype(np.float32))
        y = (x.numpy()[:, 0, :4].sum((1, 2)) > 0).astype(np.int64)
        for parameter in model.parameters():
            start = np.sin(np.arange(parameter.numel()) * 1.7 + 1).reshape(parameter.shape) * 0.3
            parameter.copy_(start)
        found = []
        for _ in range(60):
            loss = tt.cross_entropy(model(x), tt.from_numpy(y))
            model.zero_grad()
            loss.backward()
            with ta.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.3 * parameter.grad
            found.append(loss.item())
        return found[-1] / found[0]

    expect(
        "the loss of a small network after 60 steps, by the first",
        losses,
        between(0, 0.3),
        "Look at the gradients of convolution and pooling.",
        see=LENET,
    )
