# # Spatial
#
# At the end of this chapter a network looks at an image as an image: with small detectors that go over all of it, the
# same ones everywhere. It reads digits that have been moved, with no more weights than the network that cannot.

# ## The hurt
#
# Chapter 08 ended with a network that reads 98 of 100 unseen digits, and a picture that is moved by a pixel or two. The
# digits are 8 pixels wide; to give them room, let us put them into a frame of 16 by 16 from now on, in the middle, and
# move them about in there. Nothing is cut off, so nothing that a reader needs is lost.

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import tt_tensor as tt
from tt_autograd import Batches, accuracy, check_gradients, digits, evaluate, fit, grad, no_grad, rule
from tt_optim import Adam
from tt_spatial.common import (
    as_dtype,
    channels_first,
    channels_last,
    channels_of,
    floating,
    images,
    one_dtype,
    pair,
    refuse_groups,
    refuse_misfits,
    refuse_too_small,
    same_padding,
    wide,
)
from tt_tensor import Linear, Module, Parameter, Tensor, cross_entropy, generator, primitive, relu, slot


def framed_digits(side: int = 16, down: int = 0, right: int = 0) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The digits of chapter 08 as images (N, 1, side, side) with the digit in the middle, moved by `down` and `right`
    pixels: ((x, y) for training, (x, y) held out)."""
    top, left = (side - 8) // 2 + down, (side - 8) // 2 + right
    if min(top, left) < 0 or max(top, left) > side - 8:
        raise ValueError(f"a digit of 8 x 8 moved by {down} and {right} leaves a frame of {side} x {side}")

    def framed(x):
        images = np.zeros((len(x), 1, side, side), np.float32)
        images[:, 0, top : top + 8, left : left + 8] = x.numpy().reshape(-1, 8, 8)
        return tt.from_numpy(images)

    (x, y), (x_held_out, y_held_out) = digits()
    return (framed(x), y), (framed(x_held_out), y_held_out)


# The network of chapter 08 gets 256 inputs instead of 64 and is trained on digits in the middle. Then it is asked about
# digits to the right of the middle.


def train_reader(model: Module, epochs: int = 15) -> Module:
    """Train a model on the digits in the middle of their frame; returns it."""
    data, _ = framed_digits()
    fit(
        model, cross_entropy, Adam(model.parameters(), lr=2e-3), Batches(*data, batch_size=32, shuffle=True),
        epochs=epochs, progress=False,
    )
    return model


def right_when_moved(model: Module, right: int) -> float:
    """The share of held-out digits that a model reads when they are moved by `right` pixels."""
    _, held_out = framed_digits(right=right)
    return evaluate(model, cross_entropy, Batches(*held_out, batch_size=359), [accuracy])["accuracy"]


def show_hurt():
    model = train_reader(tt.Sequential(tt.Flatten(), Linear(256, 64), tt.ReLU(), Linear(64, 10)))
    for right in range(4):
        print(f"moved by {right} pixels: {right_when_moved(model, right):6.1%} of held-out digits right")


# A chance of one in ten is what guessing gives. For this network a pixel is an entry in a list of 256, and entry 136
# has as much to do with entry 137 as with entry 5. Mix up all pixels, in the same way for every image, and it would
# learn just as well. Whatever it knows about a stroke it knows about a stroke *at this place*.

# ## The smallest thing that could work
#
# A detector for a piece of a stroke needs to see only a small neighbourhood, three by three pixels, say. It is nine
# weights: multiply them with nine pixels, add up, and the sum is large where the pixels look like the weights. To find
# the piece wherever it is, put the same nine weights at every place of the image in turn. A batch of images, several
# channels (red, green, blue; or what other detectors have found), several detectors: that makes seven loops.


def seven_loops(x: np.ndarray, weight: np.ndarray) -> np.ndarray:  # exercise
    """Images x (N, C, H, W), each place compared with each detector of `weight` (O, C, kh, kw): (N, O, H - kh + 1, W
    - kw + 1)."""
    images, channels, height, width = x.shape
    detectors, _, kh, kw = weight.shape
    out = np.zeros((images, detectors, height - kh + 1, width - kw + 1), x.dtype)
    for n in range(images):
        for o in range(detectors):
            for row in range(out.shape[2]):
                for column in range(out.shape[3]):
                    for c in range(channels):
                        for i in range(kh):
                            for j in range(kw):
                                out[n, o, row, column] += x[n, c, row + i, column + j] * weight[o, c, i, j]
    return out


# Two detectors made by hand: one for upper edges (dark above, bright below), one for left edges.


def edge_detectors() -> np.ndarray:
    """Two detectors (2, 1, 3, 3): for edges that are bright below, and bright on the right."""
    below = np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1]], np.float32)
    return np.stack([below, below.T])[:, None]


def show_edges():
    import matplotlib.pyplot as plt

    (x, _), _ = framed_digits(12)
    maps = seven_loops(x.numpy()[:4], edge_detectors())
    figure, axes = plt.subplots(3, 4, figsize=(6, 4.6))
    rows = (("digit", x.numpy()[:4, 0], "gray_r"), ("bright below", maps[:, 0], "RdBu_r"),
            ("bright on the right", maps[:, 1], "RdBu_r"))  # fmt: skip
    for axes_of_row, (name, maps_of_row, colours) in zip(axes, rows):
        axes_of_row[0].set_title(name, fontsize=9, loc="left")
        lowest, highest = (0, 1) if name == "digit" else (-3, 3)
        for axis, image in zip(axes_of_row, maps_of_row):
            axis.imshow(image, cmap=colours, vmin=lowest, vmax=highest)
            axis.axis("off")
    figure.tight_layout()
    return figure


# Red where the detector agrees, blue where it sees the opposite. The result is an image again, a *feature map*: one for
# each detector, and each pixel of it says how much its neighbourhood looks like the weights. And it takes its time:


def show_loops():
    (x, _), _ = framed_digits()
    few = x.numpy()[:2]
    seconds = tt.measure(lambda: seven_loops(few, edge_detectors())).seconds / 2
    print(f"{seconds * 1e3:.1f} ms an image; {seconds * len(x):.1f} s for {len(x):,} digits and two detectors")


# ## The idea
#
# What we have is called a convolution, and here it is in one line. (Mathematicians would call it a cross-correlation;
# their convolution turns the weights by half a circle first. A network that learns its weights does not care, and
# nobody in the field turns them.)
#
# $$ \mathrm{out}[n, o, r, s] = b[o] + \sum_{c, i, j} x[n, c, r + i, s + j] \; w[o, c, i, j] $$
#
# Two decisions are in it. *Locality*: a result depends on a small neighbourhood. *Sharing*: the weights $w$ do not
# depend on the place $(r, s)$. Both are knowledge about images that we build in, instead of hoping that it will be
# learned; and both save weights. A linear layer from 256 pixels to 256 has 65,536 of them, the detector above nine.
#
# What follows from sharing can be said exactly: *move the image, and the feature map moves with it.* That is a theorem,
# so it can be checked.


def check_moving():
    x = np.random.default_rng(0).normal(size=(1, 1, 8, 8))
    moved = np.zeros_like(x)
    moved[:, :, :, 2:] = x[:, :, :, :-2]
    maps, maps_of_moved = (seven_loops(image, edge_detectors()) for image in (x, moved))
    assert np.allclose(maps_of_moved[..., 2:], maps[..., :-2])


# ## Sizes
#
# A window of 3 pixels fits into 8 pixels at 6 places, so images shrink. If they should not, zeros are put around them
# (`padding`). To look at every second place only is a *stride* of 2; to look at pixels that are not next to each other
# a *dilation*. How many places are there? The window reaches over $d(k - 1) + 1$ pixels; there are $n + 2p$ in the
# padded image; the first place is 0, then every $s$-th, as long as the window fits:
#
# $$ \left\lfloor \frac{n + 2p - d(k - 1) - 1}{s} \right\rfloor + 1 $$


def conv_size(n: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:  # exercise
    """How many places a window of `kernel` pixels has along n pixels; less than 1 if it does not fit."""
    return (n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


# The formula is where off-by-one errors live. So the witness does not calculate, it counts: lay the window at 0, at
# $s$, at $2s$, until it sticks out.


def check_conv_size():
    for n in range(1, 12):
        for kernel, stride, padding, dilation in ((1, 1, 0, 1), (3, 1, 1, 1), (3, 2, 1, 1), (2, 2, 0, 1), (3, 3, 2, 2)):
            reach = dilation * (kernel - 1) + 1
            places = [start for start in range(0, n + 2 * padding, stride) if start + reach <= n + 2 * padding]
            assert max(conv_size(n, kernel, stride, padding, dilation), 0) == len(places)


# ## From seven loops to nine
#
# Now it has to become fast. The loops over images, rows and columns do the same thing at every place, and NumPy has
# loops for that. Turn the order round: take one weight position $(i, j)$, a *tap*, and multiply a whole image with it,
# moved by $i$ and $j$. What remains of the seven loops is a sum over the taps, nine for a kernel of 3 by 3, and each of
# them is a matrix product over the channels.


def by_taps(x: np.ndarray, weight: np.ndarray) -> np.ndarray:  # exercise
    """The same as `seven_loops`, as a sum of one matrix product for each tap."""
    kh, kw = weight.shape[2:]
    height, width = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    images = x.transpose(0, 2, 3, 1)  # (N, H, W, C)
    out: Any = 0
    for i in range(kh):
        for j in range(kw):
            out = out + images[:, i : i + height, j : j + width] @ weight[:, :, i, j].T
    return out.transpose(0, 3, 1, 2)


def check_by_taps():
    random = np.random.default_rng(0)
    x, weight = random.normal(size=(2, 3, 6, 5)), random.normal(size=(4, 3, 3, 2))
    assert np.allclose(by_taps(x, weight), seven_loops(x, weight))


# For the product the channels must come last, `(N, H, W, C)`, so that the numbers which belong to one pixel lie side by
# side in memory. PyTorch's order, `(N, C, H, W)`, is the one that we show
# to the outside, because everybody writes it so. But a shape and the order in memory are two things (chapter 02:
# strides). So all that follows computes with channels last, and hands out the transposed view; elementwise operations
# keep the order that they find, and the next convolution finds its pixels where it wants them.


# ## From nine products to one
#
# Nine products read the image nine times and add to the result nine times, and a product over three channels is too
# thin to be worth the call. The remedy is to lay out for every place what its window sees, as one row of $kh \cdot kw
# \cdot C$ numbers. Then the whole convolution is a single matrix product of these *columns* (that is their name,
# although ours are rows) with the weights. It trades memory for speed: a kernel of 3 by 3 repeats every pixel nine
# times.
#
# `windows` makes the layout without moving a single number: a view with six dimensions, in which the same pixel appears
# in many windows. (`sliding_window_view` is NumPy's word for a game with strides.)


def windows(x: np.ndarray, size, stride, dilation) -> np.ndarray:  # exercise
    """All windows of images x (N, H, W, C), as a view (N, rows, columns, kh, kw, C), which may be written to if x may
    (`writeable=`)."""
    reach = tuple(d * (k - 1) + 1 for k, d in zip(size, dilation))
    view = sliding_window_view(x, reach, axis=(1, 2), writeable=x.flags.writeable)
    view = view[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]
    return view.transpose(0, 1, 2, 4, 5, 3)


def check_windows():
    x = np.arange(2 * 5 * 6 * 3).reshape(2, 5, 6, 3)
    view = windows(x, (2, 2), (1, 2), (3, 1))
    assert view.shape == (2, 2, 3, 2, 2, 3) and np.shares_memory(view, x)
    assert np.array_equal(view[1, 1, 2, 1, 0], x[1, 1 + 3, 2 * 2 + 0])


# Padding puts zeros around the images first. Pooling, below, needs another number there, so the number is an argument.


def padded(x: np.ndarray, padding, fill: float = 0) -> np.ndarray:
    """Images x (N, C, H, W) with their channels last and `fill` around them: (N, H + 2 * top, W + 2 * left, C)."""
    (top, left), images = padding, channels_last(x)
    return np.pad(images, ((0, 0), (top, top), (left, left), (0, 0)), constant_values=fill)


# Copying the windows into one array is the price of a single product. For a batch of 128 images of 32 by 32 with 32
# channels, the columns of a 3 by 3 kernel are 38 million numbers, 151 MB, for an image batch of 17: more than any cache
# holds, so the copy would cost more than the product. The columns of one image are 1.2 MB. So we take the images one by
# one.
#
# One more option belongs here, *groups*. With $g$ groups, the channels are cut into $g$ parts that have nothing to do
# with each other, each with detectors of its own: $g$ products of smaller matrices. NumPy's `matmul` computes a stack
# of products in one call, so groups are one more dimension in front.
#
# A sum of a thousand products in `float16`, rounded after each, would keep no digit: it stops at 2,048, where adding 1
# changes nothing. So we multiply and add half-precision numbers in `float32`, and round only the result.


def _columns(x, size, stride, padding, dilation, groups) -> Iterator[np.ndarray]:
    """For each image what its windows see: (groups, places, kh * kw * C / groups)."""
    channels, view = x.shape[1] // groups, windows(padded(x, padding), size, stride, dilation)
    for seen in view.reshape(*view.shape[:-1], groups, channels).transpose(0, 5, 1, 2, 3, 4, 6):
        yield seen.astype(wide(x.dtype), "C").reshape(groups, -1, math.prod(size) * channels)


# The weights must be laid out in the same order, window first and channels last.


def _matrices(weight, groups):
    """Weights (O, C / groups, kh, kw) as matrices (groups, kh * kw * C / groups, O / groups)."""
    detectors, channels, kh, kw = weight.shape
    by_group = weight.reshape(groups, detectors // groups, channels, kh, kw).transpose(0, 3, 4, 2, 1)
    return by_group.astype(wide(weight.dtype), "C").reshape(groups, kh * kw * channels, detectors // groups)


# Now the convolution is short. It is a primitive like `affine`. A place costs as many multiply-adds as a detector has
# weights.


@primitive(cost=lambda out, x, weight, *bias, **where: out.size * weight[0].size)
def convolution(x, weight, /, *bias, stride, padding, dilation, groups):  # exercise
    """Images x (N, C, H, W) under detectors `weight` (O, C / groups, kh, kw), and a bias (O,) if given: (N, O, rows,
    columns). stride, padding and dilation are pairs."""
    size, matrices = weight.shape[2:], _matrices(weight, groups)
    out = np.empty((len(x), *_places(x, size, stride, padding, dilation), len(weight)), matrices.dtype)
    for result, columns in zip(out, _columns(x, size, stride, padding, dilation, groups)):
        result[...] = (columns @ matrices).swapaxes(0, 1).reshape(result.shape)
    out = out + bias[0] if bias else out
    return channels_first(out).astype(x.dtype, copy=False)


def _places(x, size, stride, padding, dilation):
    return tuple(map(conv_size, x.shape[2:], size, stride, padding, dilation))


# Three forms of the same sum. The slowest is the definition, and judges the other two. (With all options it stands in
# the appendix `spatial_loops`, a kernel set with which `use_kernels` runs any network of this chapter on plain loops.)


def check_convolution():
    random = np.random.default_rng(0)
    x, weight = random.normal(size=(2, 4, 7, 6)), random.normal(size=(6, 4, 3, 2))
    plain = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    assert np.allclose(convolution.kernel(x, weight, **plain), seven_loops(x, weight))
    halves = [seven_loops(x[:, 2 * g : 2 * g + 2], weight[3 * g : 3 * g + 3, :2]) for g in (0, 1)]
    assert np.allclose(convolution.kernel(x, weight[:, :2], **plain | {"groups": 2}), np.concatenate(halves, 1))
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (2, 2)))
    strided = convolution.kernel(x, weight, **plain | {"stride": (2, 3), "padding": (1, 2)})
    assert np.allclose(strided, seven_loops(wide, weight)[:, :, ::2, ::3])


def show_three_forms():
    random = np.random.default_rng(0)
    x, weight = random.random((2, 3, 32, 32), np.float32), random.random((16, 3, 3, 3), np.float32)
    plain = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    forms: dict[str, Callable] = {
        "seven loops": lambda: seven_loops(x, weight), "nine taps": lambda: by_taps(x, weight),
        "one product": lambda: convolution.kernel(x, weight, **plain),
    }
    times = {name: tt.measure(form).seconds / len(x) for name, form in forms.items()}
    for name, seconds in times.items():
        print(f"{name:12s} {seconds * 1e3:10.3f} ms an image, {times['seven loops'] / seconds:8,.0f} times as fast")


# These images have three channels. With 32 channels, nine products are no slower than one: then each of them is thick
# enough, and the copy costs what they save. Libraries choose between such forms by the shapes at hand.

# ## Gradients: two more convolutions
#
# A convolution is linear in the image and linear in the weights. Its derivatives can be read off the definition. Let
# $g$ be the gradient at the result. The weight at tap $(i, j)$ meets, at each place $(r, s)$, the pixel $(r + i, s +
# j)$, so its share is
#
# $$ \bar w[o, c, i, j] = \sum_{n, r, s} g[n, o, r, s] \; x[n, c, r + i, s + j] , $$
#
# and that is a convolution of the images with $g$ in the place of the detectors: very large detectors, which fit at
# only $kh \cdot kw$ places. In terms of columns it is one product for each image again, columns transposed times
# $g$. We build the columns anew rather than keep them from the forward pass: copying is cheap, and memory is what
# training runs out of.


@primitive(cost=lambda out, x, g, **where: g.size * out[0].size)
def weight_convolution(x, g, /, size, stride, padding, dilation, groups):  # exercise
    """The share of the weight, (O, C / groups, *size), from images x and the gradient g (N, O, rows, columns)."""
    channels, detectors = x.shape[1] // groups, g.shape[1] // groups
    total = np.zeros((groups, math.prod(size) * channels, detectors))  # float64: the images may be many
    for columns, gradient in zip(_columns(x, size, stride, padding, dilation, groups), channels_last(g)):
        total += columns.mT @ _by_group(gradient, groups)
    by_group = total.astype(x.dtype).reshape(groups, *size, channels, detectors).transpose(0, 4, 3, 1, 2)
    return np.ascontiguousarray(by_group).reshape(g.shape[1], channels, *size)


def _by_group(image, groups):
    """An image (rows, columns, C) as matrices (groups, places, C / groups)."""
    return image.reshape(-1, groups, image.shape[-1] // groups).swapaxes(0, 1)


# A pixel, on the other side, has been in many windows, once under each tap, and hears from all of them:
#
# $$ \bar x[n, c, p, q] = \sum_{o, i, j} g[n, o, p - i, q - j] \; w[o, c, i, j] . $$
#
# There are minus signs where the definition has plus signs. So this is a convolution of $g$ with the weights turned by
# half a circle and with the roles of $o$ and $c$ exchanged, on a $g$ that is padded by $k - 1$, because the windows at
# the border stick out.


def turned(weight: np.ndarray, groups: int) -> np.ndarray:  # exercise
    """Weights (O, C / groups, kh, kw) turned by half a circle, with inputs and outputs exchanged: (C, O / groups, kh,
    kw)."""
    detectors, channels, kh, kw = weight.shape
    by_group = weight[:, :, ::-1, ::-1].reshape(groups, detectors // groups, channels, kh, kw)
    return by_group.swapaxes(1, 2).reshape(groups * channels, detectors // groups, kh, kw)


# With a stride there are gaps between the places, and the turned convolution would mostly multiply zeros. Then it is
# better to do literally what happens: each place hands its value times the detector out to the pixels of its window,
# and where windows overlap, the shares *add up*. We do that for infinite weights as well, because the zeros around $g$
# would meet them, and $0 \cdot \infty$ is not a number.


@primitive(cost=lambda out, g, weight, **where: g.size * weight[0].size)
def transposed_convolution(g, weight, /, size, stride, padding, dilation, groups):
    """The share of the images, (N, C, *size), from the gradient g (N, O, rows, columns) and the weight (O, C / groups,
    kh, kw)."""
    kernel = weight.shape[2:]
    around = tuple(d * (k - 1) - p for k, p, d in zip(kernel, padding, dilation))
    fits = stride == (1, 1) and min(around) >= 0 and _places(g, kernel, stride, around, dilation) == tuple(size)
    if fits and np.isfinite(weight).all():
        where = {"stride": stride, "padding": around, "dilation": dilation, "groups": groups}
        return convolution.kernel(g, turned(weight, groups), **where)
    return _handed_out(g, weight, size, stride, padding, dilation, groups)


def _handed_out(g, weight, size, stride, padding, dilation, groups):
    (top, left), (height, width), kernel, channels = padding, size, weight.shape[2:], weight.shape[1]
    matrices, (rows, columns) = _matrices(weight, groups).mT, g.shape[2:]
    out = np.zeros((len(g), height + 2 * top, width + 2 * left, groups * channels), matrices.dtype)
    seen = windows(out, kernel, stride, dilation)[:, :rows, :columns]
    seen = seen.reshape(*seen.shape[:-1], groups, channels)
    for image, gradient in zip(seen, channels_last(g)):
        shares = (_by_group(gradient, groups) @ matrices).reshape(groups, rows, columns, *kernel, channels)
        for i, j in np.ndindex(kernel):
            image[:, :, i, j] += shares[:, :, :, i, j].transpose(1, 2, 0, 3)
    return channels_first(out[:, top : top + height, left : left + width].astype(g.dtype))


# (The view of the windows is written to, tap by tap: within one tap no pixel occurs twice.)
#
# Now the three form a closed family. Each is linear in both of its inputs, and the derivatives of each are the other
# two. So the table of chapter 07 gets three rows, and derivatives of any order exist.


def _size(array):
    return tuple(array.shape[2:])


def _channel_sums(g):
    """The sums of g (N, C, ...) by channel, on arrays or on tensors."""
    return tt.sum(g, dim=(0, *range(2, g.ndim)))


rule(
    convolution,
    lambda g, out, x, weight, *bias, **where: transposed_convolution(g, weight, size=_size(x), **where),
    lambda g, out, x, weight, *bias, **where: weight_convolution(x, g, size=_size(weight), **where),
    lambda g, out, *inputs, **where: _channel_sums(g),
)
rule(
    transposed_convolution,
    lambda h, out, g, weight, size, **where: convolution(h, weight, **where),
    lambda h, out, g, weight, size, **where: weight_convolution(h, g, size=_size(weight), **where),
)
rule(
    weight_convolution,
    lambda h, out, x, g, size, **where: transposed_convolution(g, h, size=_size(x), **where),
    lambda h, out, x, g, size, **where: convolution(x, h, **where),
)

# The referee is asked about every option at once, to second order.


def check_gradients_of_convolution():
    random = np.random.default_rng(0)
    x, weight, bias = (
        Tensor(random.normal(size=shape), requires_grad=True) for shape in ((1, 2, 5, 4), (4, 1, 2, 2), (4,))
    )
    for stride, padding in ((1, 0), ((2, 1), (1, 0))):
        check_gradients(
            lambda x, weight, bias: conv2d(x, weight, bias, stride, padding, (1, 2), groups=2) ** 2, x, weight, bias
        )


# ## The layer
#
# The function that you call checks its arguments first. Each option may be one number or a pair (rows, columns), and
# `padding="same"` asks for as many zeros as keep the size. The checks are in the module `common`, where the
# appendices find them, too.


def conv2d(  # exercise
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, dilation=1, groups: int = 1
) -> Tensor:
    """Images x (N, C, H, W), or one (C, H, W), under detectors `weight` (O, C / groups, kh, kw), plus bias (O,): (N, O,
    rows, columns) with the sizes of `conv_size`. As torch.nn.functional.conv2d; padding may be "same" or "valid".

    An empty batch gives an empty result, operands of different dtypes the wider one (integers become floats). Raises
    ValueError for shapes that do not fit, and for a window larger than the padded image."""
    if x.ndim == 3:
        return conv2d(x.unsqueeze(0), weight, bias, stride, padding, dilation, groups).squeeze(0)
    images("conv2d", x)
    refuse_misfits("conv2d", x.shape, weight.shape, bias, x.shape[1], weight.shape[1] * groups, groups)
    stride, dilation, size = pair(stride, "stride"), pair(dilation, "dilation"), weight.shape[2:]
    if isinstance(padding, str) and padding == "same":
        x, padding = same_padding(x, size, stride, dilation)
    valid = isinstance(padding, str) and padding == "valid"
    padding = pair(0 if valid else padding, "padding", least=0)
    refuse_too_small("conv2d", x, size, padding, dilation)
    tensors = one_dtype(x, weight, *([] if bias is None else [bias]))
    return convolution(*tensors, stride=stride, padding=padding, dilation=dilation, groups=groups)


# A module holds weight and bias, as `Linear` does. The fan-in of a detector is the number of its weights, and the new
# weights are drawn from $\pm 1 / \sqrt{\text{fan-in}}$, as in chapter 04 and in PyTorch.


class Conv2d(Module):
    """conv2d with weight (out_channels, in_channels / groups, kh, kw) and bias (out_channels,); as torch.nn.Conv2d.
    padding_mode: "zeros", "reflect", "replicate" or "circular"."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0, dilation=1, groups: int = 1,
        bias: bool = True, padding_mode: str = "zeros",
    ):
        super().__init__()
        refuse_groups(in_channels, out_channels, groups)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.stride, self.dilation = pair(stride, "stride"), pair(dilation, "dilation")
        known = isinstance(padding, str) and padding in ("same", "valid")
        self.padding: Any = padding if known else pair(padding, "padding", least=0)
        self.padding_mode = more_spatial.known_mode(padding_mode)
        self.weight = Parameter(tt.zeros(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = Parameter(tt.zeros(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:  # exercise
        """Draw weight and bias anew, uniformly from +-1 / sqrt(weights of a detector)."""
        bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
        for parameter in self.parameters():
            parameter.copy_(generator().uniform(-bound, bound, parameter.shape))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, rows, columns)."""
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = more_spatial.padded_for(self, x), 0
        return conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def extra_repr(self):
        options = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, "padding_mode": "zeros"}
        said = [f"{name}={getattr(self, name)}" for name, usual in options.items() if getattr(self, name) != usual]
        said += [] if self.bias is not None else ["bias=False"]
        size = "x".join(map(str, self.kernel_size))
        return ", ".join([f"{self.in_channels} -> {self.out_channels}, kernel {size}", *said])


# ## Pooling
#
# A feature map says *where exactly* something was found. For reading a digit, *roughly where* is enough, and better. So
# the map is made smaller: of each square of 2 by 2 only the largest number survives. If a stroke moves by a pixel, the
# result often stays the same.
#
# Pooling has windows as a convolution has, with taps; instead of a sum of products it takes the maximum. What is around
# the image must not win, even if all pixels are negative, so the padding is $-\infty$ here, and not zero.


def _taps(x, size, stride, padding, dilation, fill):
    """A view (N, rows, columns, C) for each tap of the windows of x, padded with `fill` (or the least number of its
    dtype, if that is larger)."""
    fill = max(fill, np.iinfo(x.dtype).min) if x.dtype.kind in "iu" else fill
    return _taps_of(windows(padded(x, padding, fill), size, stride, dilation))


def _taps_of(seen):
    return [seen[:, :, :, i, j] for i, j in np.ndindex(seen.shape[3:5])]


@primitive(cost=lambda out, x, size, **where: out.size * math.prod(size))
def max_pool(x, /, size, stride, padding, dilation):  # exercise
    """The largest number of each window of images x (N, C, H, W): (N, C, rows, columns)."""
    out, *others = _taps(x, size, stride, padding, dilation, -np.inf)
    for tap in others:
        out = np.maximum(out, tap)
    return np.ascontiguousarray(out).transpose(0, 3, 1, 2)


# The gradient goes to the pixel that won, and to nobody else. If several are equally large, it goes to the first of
# them; and if windows overlap, a pixel that has won in several of them hears from all. The padding never wins, even if
# all pixels are $-\infty$. A nan wins against every number, and the last nan of a window against the others: that is
# PyTorch's convention.


def _winner(x, largest, size, stride, padding, dilation):
    """The number of the tap that won each window, (N, rows, columns, C); -1 where there is only padding."""
    best, where = channels_last(largest), (size, stride, padding, dilation)
    inside = _taps(np.ones((1, 1, *x.shape[2:]), bool), *where, False)
    winner = np.full(best.shape, -1, np.int16)
    for number, (tap, there) in enumerate(zip(_taps(x, *where, -np.inf), inside)):
        first = (tap == best) & (winner < 0)
        winner = np.where(there & (first | np.isnan(tap)), number, winner)
    return winner


# With the winners known, we choose with `where`. Multiplying $g$ by a mask of zeros and ones would do for numbers, but
# not for an infinite gradient: $0 \cdot \infty$ is nan, and a single overflow would reach pixels that took no part.


@primitive
def max_unpool(g, x, largest, /, size, stride, padding, dilation):  # exercise
    """For each window, g is added at the first place of x that holds the window's largest number: (N, C, H, W). All
    other places get exactly 0, even if g is infinite."""
    (top, left), (n, channels, height, width) = padding, x.shape
    winner, to_give = _winner(x, largest, size, stride, padding, dilation), channels_last(g)
    shares = np.zeros((n, height + 2 * top, width + 2 * left, channels), wide(g.dtype))
    for number, share in enumerate(_taps_of(windows(shares, size, stride, dilation))):
        given = np.where(winner == number, to_give, 0)
        share += given
    return channels_first(shares[:, top : top + height, left : left + width].astype(g.dtype))


# `max_unpool` is linear in `g`, so for second derivatives it needs a rule, too. Its transpose picks up what it puts
# down; between the two, each is the other's rule.


@primitive
def max_pick(h, x, largest, /, size, stride, padding, dilation):
    """From each window of h the number at the first place where x holds the window's largest one."""
    where = (size, stride, padding, dilation)
    winner, out = _winner(x, largest, *where), np.zeros(channels_last(largest).shape, h.dtype)
    for number, value in enumerate(_taps(h, *where, 0)):
        out = np.where(winner == number, value, out)
    return channels_first(out)


rule(max_pool, lambda g, out, x, **where: max_unpool(g, x, out, **where))
rule(max_unpool, lambda h, out, g, x, largest, **where: max_pick(h, x, largest, **where), None, None)
rule(max_pick, lambda g, out, h, x, largest, **where: max_unpool(g, x, largest, **where), None, None)


def check_overlapping_windows():
    x = Tensor([[[[0.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 0.0]]]], requires_grad=True)
    (share,) = grad(max_pool2d(x, 2, stride=1).sum(), x)
    assert share[0, 0].tolist() == [[0, 0, 0], [0, 4, 0], [0, 0, 0]]


# The public form. A window that saw nothing but padding would have no largest number, so the padding may be half of the
# window at most.


def max_pool2d(x: Tensor, kernel_size, stride=None, padding=0, dilation=1) -> Tensor:
    """The largest number of each window of images (N, C, H, W) or one (C, H, W), as torch.nn.functional.max_pool2d. The
    stride is the kernel's size unless given."""
    if x.ndim == 3:
        return max_pool2d(x.unsqueeze(0), kernel_size, stride, padding, dilation).squeeze(0)
    size = pair(kernel_size, "kernel_size")
    stride, padding = size if stride is None else pair(stride, "stride"), pair(padding, "padding", least=0)
    if any(2 * p > k for p, k in zip(padding, size)):
        raise ValueError(f"max_pool2d: padding {padding} is more than half of the window {size}")
    dilation = pair(dilation, "dilation")
    refuse_too_small("max_pool2d", images("max_pool2d", x), size, padding, dilation)
    x = x.float() if x.dtype.kind == "b" else x
    return max_pool(x, size=size, stride=stride, padding=padding, dilation=dilation)


class MaxPool2d(Module):
    """max_pool2d as a module."""

    def __init__(self, kernel_size, stride=None, padding=0, dilation=1):
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation

    def forward(self, x):
        return max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation)

    def extra_repr(self):
        return f"{self.kernel_size}" + ("" if self.stride is None else f", stride={self.stride}")


# ## LeNet
#
# Yann LeCun and his colleagues put these parts together in the 1990s, to read the amounts on cheques: convolution,
# pooling, convolution, pooling, and then three linear layers that see the whole. Theirs pooled by averages and bent by
# `tanh`; with the maximum and ReLU it is the form in which it is taught. For the small pictures of this chapter the
# kernels are 3 by 3 instead of 5 by 5.


class LeNet(Module):
    """Two convolutions with pooling, then three linear layers, after LeCun et al., 1998: (N, channels, size, size) ->
    (N, classes). Kernels are 5 x 5, for images of less than 20 pixels 3 x 3."""

    def __init__(self, channels: int = 1, classes: int = 10, size: int = 28):
        super().__init__()
        kernel, around = (5, 0) if size >= 20 else (3, 1)
        self.conv1 = Conv2d(channels, 6, kernel, padding=kernel // 2)
        self.conv2 = Conv2d(6, 16, kernel, padding=around)
        side = conv_size(size // 2, kernel, padding=around) // 2
        self.fc1 = Linear(16 * side * side, 120)
        self.fc2 = Linear(120, 84)
        self.fc3 = Linear(84, classes)

    def features(self, x: Tensor) -> Tensor:
        """What the second pooling leaves: 16 small feature maps."""
        x = max_pool2d(relu(self.conv1(x)), 2)
        return max_pool2d(relu(self.conv2(x)), 2)

    def forward(self, x: Tensor) -> Tensor:  # exercise
        """The logits of the classes."""
        x = relu(self.fc1(self.features(x).flatten(1)))
        return self.fc3(relu(self.fc2(x)))


# How far does a number in the last feature maps see? A pixel after the first convolution sees 3 pixels of the image.
# Pooling by 2 lets its neighbour, too, take part, and from there on, a step in the map is a step of 2 in the image.
# Going through the layers, the *receptive field* grows by (kernel - 1) times the product of the strides so far.


def receptive_field(layers: list[tuple[int, int]]) -> int:  # exercise
    """How many pixels a result sees after layers with (kernel, stride), along one direction."""
    sees, step = 1, 1
    for kernel, stride in layers:
        sees += (kernel - 1) * step
        step *= stride
    return sees


# It can be asked of the network itself. What a result depends on is what it has a gradient for: take one number in the
# middle of the last map, and look at which pixels its gradient is not zero.


def show_receptive_field():
    import matplotlib.pyplot as plt

    model, x = LeNet(size=16), tt.rand(1, 1, 16, 16)
    x.requires_grad_()
    with no_grad():
        for convolution_layer in (model.conv1, model.conv2):
            convolution_layer.weight.copy_(np.abs(convolution_layer.weight.numpy()))
    (share,) = grad(model.features(x)[0, :, 2, 2].sum(), x)
    seen = np.abs(share.numpy()[0, 0]) > 0
    rows = np.flatnonzero(seen.any(1))
    formula = receptive_field([(3, 1), (2, 2), (3, 1), (2, 2)])
    print(f"pixels with a gradient: {rows[-1] - rows[0] + 1} rows; formula: at most {formula}")
    figure, axis = plt.subplots(figsize=(2.6, 2.6))
    axis.imshow(np.abs(share.numpy()[0, 0]), cmap="Reds")
    axis.set_xticks([])
    axis.set_yticks([])
    return figure


# (Pooling lets through only the winners, so the field that one sees for a single image has holes.)

# ## Does it help?
#
# An honest comparison gives the networks the same number of weights, the same digits, and the same number of passes.
# LeNet for 16 by 16 pixels has 43,000 weights; so has a network of three linear layers with 256, 136 and 52 units. And
# so has a third one, which takes the theorem at its word: three convolutions, and then of each detector only its
# strongest answer, *wherever* it was.


def plain_reader() -> Module:
    """An MLP for images of 16 x 16 with about as many weights as LeNet."""
    return tt.Sequential(tt.Flatten(), Linear(256, 136), tt.ReLU(), Linear(136, 52), tt.ReLU(), Linear(52, 10))


class Anywhere(Module):
    """Three convolutions, then each detector's strongest answer in all of the image: (N, 1, H, W) -> (N, 10)."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = Conv2d(1, 20, 3, padding=1), Conv2d(20, 40, 3, padding=1)
        self.conv3, self.fc = Conv2d(40, 96, 3, padding=1), Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of the ten digits."""
        x = max_pool2d(relu(self.conv2(relu(self.conv1(x)))), 2)
        return self.fc(tt.amax(relu(self.conv3(x)), dim=(2, 3)))


def trained_reader(make: Callable[[], Module]) -> Module:
    """A model, made and trained with the same seed as all the others."""
    return tt.seeded(0, lambda: train_reader(make()))


def show_shifted():
    print("moved by" + "".join(f"{right:9d}" for right in range(5)))
    for name, make in (("MLP", plain_reader), ("LeNet", lambda: LeNet(size=16)), ("Anywhere", Anywhere)):
        model = trained_reader(make)
        weights = sum(p.numel() for p in model.parameters())
        shares = "".join(f"{right_when_moved(model, right):9.1%}" for right in range(5))
        print(f"{name:8s}{shares}   {weights:,} weights")


# Unmoved, all of them can read. (The "85 percent for an MLP" that one finds in places is an MLP that was not trained.)
# Moved, the MLP is soon down to guessing, and LeNet fares hardly better: its feature maps move with the digit, as the
# theorem says, but the linear layers behind them are tied to places again. The third network does not care where the
# digit is. Moved by two or by four pixels it reads as it does unmoved, but for a digit or two near the frame, where
# windows see the padding and the theorem ends: two pixels before the pooling are one place behind it, and the maximum
# over all places stays what it was. Moved by one, the digit falls differently into the squares of the pooling, and
# something is lost.
#
# (A pixel is a large step for digits of 8 by 8. On those of MNIST, 28 by 28, LeNet forgives one or two pixels, and the
# MLP does not: the program `lenet_1998` among the examples moves 10,000 of them.)
#
# So it is not that convolutions "are invariant". They move along; what is done with the maps decides. LeNet's way to
# know *where* in the picture a stroke is has its use as well, and the usual remedy is to show it digits in many places:
# *augmentation*, in the next chapter.
#
# What has it learned? The six detectors of the first layer, and what they see in a digit:


def show_filters():
    import matplotlib.pyplot as plt

    model = trained_reader(lambda: LeNet(size=16))
    _, (x, _) = framed_digits()
    with no_grad():
        maps = relu(model.conv1(x[:1])).numpy()[0]
    figure, axes = plt.subplots(2, 7, figsize=(8.5, 2.6))
    axes[0, 0].axis("off")
    axes[1, 0].imshow(x.numpy()[0, 0], cmap="gray_r")
    for column, (detector, found) in enumerate(zip(model.conv1.weight.numpy()[:, 0], maps), 1):
        limit = np.abs(detector).max()
        axes[0, column].imshow(detector, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes[1, column].imshow(found, cmap="gray_r")
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout()
    return figure


# Red weights want ink, blue ones want none. Nobody told it about edges; these are what was useful.

# ## Batch normalization
#
# Deeper networks have the trouble that we saw in chapter 04: from layer to layer the numbers grow or shrink, and while
# the network learns, every layer has to chase what the ones before it do. Batch normalization (Ioffe and Szegedy, 2015)
# brings each channel to mean 0 and variance 1, over all images of the batch and all places, and then gives it a scale
# $\gamma$ and a shift $\beta$ that are learned:
#
# $$ y = \gamma \, \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta $$
#
# In evaluation there may be only one image, and an answer must not depend on what else is in the batch. So while it is
# trained, the layer keeps running averages of mean and variance, as *buffers* (chapter 04), and uses these.
#
# First the two moments, in two passes over the numbers. (The mean of the squares minus the square of the mean needs one
# pass, and loses all digits when the mean is large.) We compute in `float64`, because a sum of ones in `float32` stops
# at $2^{24}$, because the square of $10^{20}$ is not a number there, and because the mean of equal numbers should be
# exactly that number. The moments are a *slot* of a kernel set and not a primitive: no gradient passes through them,
# since the rule below already contains their part.


def _dims(x):
    return (0, *range(2, x.ndim))


@slot
def channel_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # exercise
    """Mean and variance (divided by the number of values) of each channel of an array (N, C, ...), in float64, however
    narrow x is."""
    mean = x.mean(_dims(x), dtype=np.float64)
    centred = x - _by_channel(mean, x)
    centred *= centred
    return mean, centred.mean(_dims(x))


def _by_channel(vector, x):
    """A vector (C,) in a shape that meets the channels of x (N, C, ...)."""
    return vector.reshape((1, -1) + (1,) * (x.ndim - 2))


def check_channel_moments():
    x = np.random.default_rng(0).normal(3, 2, size=(4, 3, 5, 6))
    mean, var = channel_moments(x)
    assert np.allclose(mean, x.mean((0, 2, 3))) and np.allclose(var, x.var((0, 2, 3)))


# With the moments given, normalizing is a shift and a factor for each channel. The mean is subtracted first: the other
# way round, two large numbers would have to cancel.


@primitive(cost=lambda out, *inputs, **moments: 2 * out.size)
def normalize_channels(x, weight, bias, /, mean, var, eps):
    """weight * (x - mean) / sqrt(var + eps) + bias, for each channel of x (N, C, ...), whose own moments are `mean` and
    `var`."""
    vectors = (mean, weight / np.sqrt(var + eps), bias)
    mean, factor, bias = (_by_channel(vector, x).astype(wide(x.dtype)) for vector in vectors)
    return ((x - mean) * factor + bias).astype(x.dtype, copy=False)


# Its gradient is not just $\gamma / \sigma$, because the moments depend on `x` as well: if one number rises, the mean
# rises a little, and all the others are lowered. With $\hat x$ for the normalized numbers and $h = \gamma g$, what
# is left of $h$ after that is
#
# $$ \bar x = \frac{1}{\sigma} \left( h - \operatorname{mean}(h) - \hat x \operatorname{mean}(h \hat x) \right) . $$
#
# Read it as geometry: only that part of the gradient survives which neither shifts nor scales, because the layer undoes
# shifting and scaling. The formula is written with operators that work on arrays and on tensors, so it serves an
# ordinary backward pass and the derivative of a derivative alike.


def normal_share(h, normal, slope, dims):  # exercise
    """The gradient of x by the formula, where h arrived for the normalized numbers `normal` = slope * (x - mean) over
    the dimensions `dims`. On arrays or on tensors."""
    return slope * (h - tt.mean(h, dims, keepdim=True) - normal * tt.mean(h * normal, dims, keepdim=True))


def normalized(x, dims, eps):
    """x with mean 0 and variance 1 over the dimensions `dims`, and the factor that scaled it; on arrays or tensors."""
    centred = x - tt.mean(x, dims, keepdim=True)
    slope = (tt.mean(centred * centred, dims, keepdim=True) + eps) ** -0.5
    return centred * slope, slope


# The weight met the normalized numbers, so its gradient is the sum of `g` times these; the bias receives the sum of
# `g`. All three have the normalized numbers in common, so the table's row is one function for all inputs. An ordinary
# pass computes them from the moments that are there. Only for the derivative of a derivative must the moments depend on
# x, as tensors.


def _normalization_shares(needed, g, out, x, weight, bias, mean, var, eps):
    if isinstance(x, np.ndarray):
        mean, slope = (_by_channel(v, x) for v in (mean, 1 / np.sqrt(var + eps)))
        normal, slope, g = (v.astype(wide(x.dtype), copy=False) for v in ((x - mean) * slope, slope, g))
    else:
        (normal, slope), g = normalized(x.double(), _dims(x), eps), g.double()
    of_x = normal_share(g * _by_channel(weight, x), normal, slope, _dims(x))
    return as_dtype(of_x, x.dtype), as_dtype(_channel_sums(g * normal), weight.dtype), _channel_sums(g)


rule(normalize_channels, together=_normalization_shares)


def check_gradients_of_batch_norm():
    random = np.random.default_rng(0)
    x, weight, bias = (Tensor(random.normal(size=s), requires_grad=True) for s in ((3, 2, 2, 2), (2,), (2,)))
    check_gradients(lambda *t: batch_norm(t[0], None, None, t[1], t[2], training=True) ** 2, x, weight, bias)


# The function decides which moments count, and keeps the averages. PyTorch's running variance is the unbiased one,
# divided by $n - 1$, although the batch is normalized with the other; so ours is, too. In evaluation the moments are
# constants, which do not depend on `x`, so there the rule above would give a wrong gradient: we compute with ordinary
# operations instead.


def batch_norm(  # exercise
    x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:
    """Normalize each channel of x (N, C, ...): in training by the batch's own moments, which also move the running ones
    (new = (1 - momentum) * old + momentum * batch's), otherwise by the running ones, which must be given then.

    As torch.nn.functional.batch_norm: an empty batch moves nothing. Raises ValueError if the sizes do not fit, or if a
    training batch has only one value a channel."""
    channels, x = channels_of(x, running_mean, running_var, weight, bias), floating(x)
    weight = tt.ones(channels, dtype=x.dtype) if weight is None else weight
    bias = tt.zeros(channels, dtype=x.dtype) if bias is None else bias
    shape, count = (1, channels) + (1,) * (x.ndim - 2), x.numel() // max(channels, 1)
    moments = [running is not None for running in (running_mean, running_var)]
    if any(moments) != all(moments) or not (training or any(moments)):
        raise ValueError("batch_norm needs a running mean and a running variance; in training both may be absent")
    if running_mean is not None and running_var is not None and not training:
        centred, factor = x.to(wide(x.dtype)) - running_mean.reshape(shape), weight * (running_var + eps) ** -0.5
        return (centred * factor.reshape(shape) + bias.reshape(shape)).to(x.dtype)
    if not count:
        return (x * weight.reshape(shape) + bias.reshape(shape)).to(x.dtype)
    if count < 2:
        raise ValueError(f"batch_norm cannot learn from one value a channel: a batch of shape {x.shape}")
    mean, var = channel_moments(x.numpy())
    if running_mean is not None and running_var is not None:
        running_mean.copy_((1 - momentum) * running_mean.numpy() + momentum * mean)
        running_var.copy_((1 - momentum) * running_var.numpy() + momentum * var * (count / (count - 1)))
    return normalize_channels(x, weight, bias, mean=mean, var=var, eps=eps)


# The module is what remembers. Its state has PyTorch's names, the count of batches included.


class BatchNorm(Module):
    """Batch normalization of (N, num_features, ...), whatever comes after the channels."""

    dims: tuple[int, ...] = ()

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True,
    ):
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = Parameter(tt.ones(num_features)) if affine else None
        self.bias = Parameter(tt.zeros(num_features)) if affine else None
        self.register_buffer("running_mean", tt.zeros(num_features) if track_running_stats else None)
        self.register_buffer("running_var", tt.ones(num_features) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", Tensor(np.array(0)) if track_running_stats else None)

    def forward(self, x: Tensor) -> Tensor:
        """The input, normalized; in training the running averages move."""
        if x.ndim not in self.dims:
            raise ValueError(f"{type(self).__name__} takes tensors of {self.dims} dimensions; this has shape {x.shape}")
        momentum = self.momentum
        if self.training and self.running_mean is not None:
            self.num_batches_tracked.copy_(self.num_batches_tracked.numpy() + 1)
            momentum = 1 / self.num_batches_tracked.item() if momentum is None else momentum
        by_batch = self.training or self.running_mean is None
        return batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, by_batch, momentum or 0.0, self.eps
        )

    def extra_repr(self):
        return f"{self.num_features}, momentum={self.momentum}"


class BatchNorm2d(BatchNorm):
    """Batch normalization of images (N, num_features, H, W), as torch.nn.BatchNorm2d."""

    dims = (4,)


def check_batch_norm():
    layer, x = BatchNorm2d(3), tt.randn(8, 3, 5, 5) * 4 + 2
    normal = layer(x).numpy()
    assert np.allclose(normal.mean((0, 2, 3)), 0, atol=1e-5) and np.allclose(normal.std((0, 2, 3)), 1, atol=1e-3)
    assert np.allclose(layer.running_mean.numpy(), 0.1 * x.numpy().mean((0, 2, 3)), atol=1e-5)
    layer.eval()
    assert np.allclose(layer(x[:1]).numpy(), layer(x)[:1].numpy(), atol=1e-5)


# What is it good for? Here are eight layers of convolutions whose weights are half as large as they should be, so that
# the numbers fade from layer to layer, and a learning rate that suits small networks. Without normalization the network
# learns next to nothing.


def deep_reader(normalized: bool) -> Module:
    """Eight convolutions of 8 channels, badly initialized, with or without batch normalization."""
    layers: list[Module] = []
    for channels in (1, *[8] * 7):
        layers += [Conv2d(channels, 8, 3, padding=1), *([BatchNorm2d(8)] if normalized else []), tt.ReLU()]
    network = tt.Sequential(*layers, tt.Flatten(), Linear(8 * 100, 10))
    for layer in network.modules():
        if isinstance(layer, Conv2d):
            layer.weight.copy_(layer.weight.numpy() * 0.5)
    return network


def show_deep():
    data, held_out = framed_digits(10)
    for normalized in (False, True):
        tt.manual_seed(0)
        model = deep_reader(normalized)
        optimizer = Adam(model.parameters(), lr=2e-3)
        history = fit(
            model, cross_entropy, optimizer, Batches(*data, batch_size=64, shuffle=True), epochs=3,
            validation=Batches(*held_out, batch_size=359), metrics=[accuracy], progress=False,
        )
        shares = " ".join(f"{share:6.1%}" for share in history["val_accuracy"])
        print(f"{'with' if normalized else 'without':7s} batch normalization, after each of three epochs: {shares}")


# ## The cost
#
# A convolution costs places times detectors times weights of a detector; and backward twice that, as for every product.
# The meter counts, the formula predicts; backward comes to less than twice, because nobody asks for the gradient of the
# images. For LeNet at its proper size, 28 by 28, most multiply-adds are in the convolutions and most weights in the
# linear layers.


def show_cost():
    model, x, labels = LeNet(), tt.rand(64, 1, 28, 28), tt.tensor([i % 10 for i in range(64)])
    with tt.meter() as forward:
        loss = cross_entropy(model(x), labels)
    with tt.meter() as back:
        loss.backward()
    formula = 64 * (28 * 28 * 6 * 25 + 10 * 10 * 16 * 6 * 25)
    names = ("convolution", "transposed_convolution", "weight_convolution")
    print(f"convolutions forward: {forward.multiply_adds['convolution']:12,d} multiply-adds, formula {formula:,d}")
    print(f"convolutions back:    {sum(back.multiply_adds[name] for name in names):12,d}")
    seconds = {
        "forward": tt.measure(lambda: model(x)).seconds,
        "forward and backward": tt.measure(lambda: cross_entropy(model(x), labels).backward()).seconds,
    }
    for name, duration in seconds.items():
        print(f"{name:21s} {duration * 1e3:6.2f} ms for 64 images")


# ## Errors you will meet


def show_errors():
    x = tt.zeros(2, 3, 8, 8)
    for attempt in (
        lambda: Conv2d(1, 4, 3)(x), lambda: Conv2d(3, 4, 9)(x), lambda: Conv2d(3, 4, 3)(x.flatten(1)),
        lambda: Conv2d(3, 4, 3, groups=2), lambda: max_pool2d(x, 2, padding=2), lambda: Conv2d(3, 4, 3)(x[:, :, :0]),
        lambda: BatchNorm2d(3)(x[:1, :, :1, :1]),
    ):
        try:
            attempt()
        except ValueError as error:
            print(f"ValueError: {error}")


# ## Exercises
#
# Besides what is marked in the text: go back to `show_shifted` and
#
# 1. train the MLP and LeNet on digits that are moved at random by up to two pixels (a `Batches` of your own that moves
#    them): who profits more?
# 2. let `Anywhere` take the mean over all places instead of the maximum. What is lost, and why?
# 3. write `depthwise`: a convolution with as many groups as channels, followed by one of 1 by 1. How many weights and
#    multiply-adds does it need, compared with an ordinary one?
#
# The first line of an answer to the third is a function that counts.


def conv_weights(channels: int, detectors: int, kernel: int, groups: int = 1) -> int:  # exercise
    """The number of weights, without bias, of a convolution with square kernels."""
    return detectors * (channels // groups) * kernel * kernel


def check_conv_weights():
    assert conv_weights(16, 32, 3) == Conv2d(16, 32, 3, bias=False).weight.numel()
    assert conv_weights(16, 16, 3, groups=16) + conv_weights(16, 32, 1) == 656


# ## A road not taken
#
# There are other ways to compute a convolution. PyTorch's libraries choose among several by the shapes at hand:
# Winograd's algorithm needs fewer multiplications for kernels of 3 by 3, the Fourier transform for large ones, and the
# most common way is ours with the columns never written down: the loop over the images goes on into the registers of
# the processor. JAX has one primitive with a long list of dimension numbers, from which all of our three follow;
# tinygrad has none, it reshapes and multiplies and leaves it to its compiler to see a convolution. For us the columns
# are worth their bytes, since they turn everything into the one operation that NumPy does as fast as anybody.

# ## What hurts next
#
# The digits of this chapter fit into an array, and `Batches` hands them out. Real images do not come as an array: they
# lie in files, by the ten thousand, and have to be read, scaled, moved and flipped. The first idea is to do that for
# one image, train on it, and go on to the next.


def show_one_by_one():
    (x, y), _ = framed_digits()
    for size in (1, 64):
        model = LeNet(size=16)
        optimizer, data = Adam(model.parameters()), Batches(x[:64], y[:64], size)
        seconds = tt.measure(lambda: fit(model, cross_entropy, optimizer, data, epochs=1, progress=False)).seconds / 64
        print(f"{size:2d} at a time: {seconds * 1e3:6.2f} ms an image, {seconds * 60_000:6.1f} s for 60,000 of them")


# One sample at a time, an epoch takes many times as long, for the same arithmetic. Somebody has to put batches
# together, and to have the next one ready when it is wanted: chapter 10, *Data loader*.

__all__ = [
    "BatchNorm", "BatchNorm2d", "Conv2d", "LeNet", "MaxPool2d", "batch_norm", "by_taps", "channel_moments", "conv2d",
    "conv_size", "conv_weights", "convolution", "framed_digits", "max_pick", "max_pool", "max_pool2d", "max_unpool",
    "normal_share", "normalize_channels", "normalized", "padded", "receptive_field", "seven_loops",
    "transposed_convolution", "turned", "weight_convolution", "windows",
]

from tt_spatial import more_spatial  # noqa: E402  (an appendix, which is built on this chapter and pads for it)
