# # Spatial
#
# At the end of this chapter we have networks that look at an image as an image: with small filters that go over all of
# it, the same ones everywhere. One of them reads digits that have been moved, with no more weights than the network
# that cannot.

# ## The hurt
#
# Chapter 08 ended with a network that reads 98 of 100 unseen digits, until we move the picture by a pixel or two. Our
# digits are 8 pixels wide. To give them room, we put each into the middle of a frame of 16 by 16 and move it about in
# there. So nothing is cut off, and a reader loses nothing that it needs. (`framed_digits` does that. It is in the
# module `pictures`, and the checks of arguments are in `common`.)

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import tt_tensor as tt
from tt_autograd import Batches, accuracy, check_gradients, evaluate, fit, grad, no_grad, rule
from tt_optim import Adam
from tt_spatial.common import (
    channel_sums, channels_first, channels_last, convolution_arguments, layer_options, layer_text, padded,
    pooling_arguments, refuse_groups, size_of, unpadded, wide,
)  # fmt: skip
from tt_spatial.padding import known_mode, padded_for
from tt_spatial.pictures import framed_digits, image_grid
from tt_tensor import Linear, Module, Parameter, Tensor, cross_entropy, generator, primitive, relu

# The network of chapter 08 gets 256 inputs instead of 64. We train it on digits in the middle.


def plain_reader() -> Module:
    """An MLP for images of 16 x 16."""
    return tt.Sequential(tt.Flatten(), Linear(256, 136), tt.ReLU(), Linear(136, 52), tt.ReLU(), Linear(52, 10))


def trained_reader(make: Callable[[], Module]) -> Module:
    """A model from `make`, trained on digits in the middle of their frame, with the same seed as all the others."""

    def trained():
        model, (data, _) = make(), framed_digits()
        batches = Batches(*data, batch_size=32, shuffle=True)
        fit(model, cross_entropy, Adam(model.parameters(), lr=2e-3), batches, epochs=15, progress=False)
        return model

    return tt.setup.seeded(0, trained)


# Then we ask it about unseen digits that are moved to the right.


def read_when_moved(name: str, model: Module) -> None:
    """Print the shares of held-out digits that a model reads when they are moved to the right by 0 to 4 pixels."""
    held_out = [framed_digits(right=right)[1] for right in range(5)]
    shares = [evaluate(model, cross_entropy, [batch], [accuracy])["accuracy"] for batch in held_out]
    weights = sum(parameter.numel() for parameter in model.parameters())
    print("moved by", "".join(f"{right:8d}" for right in range(5)))
    print(f"{name:8s}", "".join(f"{share:8.1%}" for share in shares), f"  {weights:,} weights")


def show_hurt():
    read_when_moved("MLP", trained_reader(plain_reader))


# Guessing would get one in ten right. To this network a pixel is an entry in a list of 256, and entry 136 has as much
# to do with entry 137 as with entry 5. If we mixed up all pixels, in the same way for every image, it would learn just
# as well. All that it knows about a stroke, it knows about a stroke *at this position*.
#
# You should know beforehand how much of this the chapter cures. A convolution does not make a network blind to the
# position: the features that it finds move along with the image, and the rest of the network decides what becomes of
# them. So we shall build two networks with about as many weights as this one. `Anywhere` asks only whether something
# was found, and reads 98 of 100 digits that are moved by two pixels. LeNet, the famous one, also asks where. It reads
# 21 of 100, hardly more than the MLP.

# ## The smallest thing that could work
#
# To detect a piece of a stroke we need to see only a small neighbourhood, three by three pixels, say. So we take nine
# weights, multiply them with nine pixels, and add up. The sum is large where the pixels look like the weights. Such a
# detector is called a *filter* or a *kernel*. To find the piece wherever it is, we put the same nine weights at every
# position of the image in turn. With a batch of images, several channels (red, green, blue; or the findings of other
# filters) and several filters, that makes seven loops.


def seven_loops(x: np.ndarray, weight: np.ndarray) -> np.ndarray:  # exercise
    """Images x (N, C, H, W), each position compared with each filter of `weight` (O, C, kh, kw): (N, O, H - kh + 1,
    W - kw + 1)."""
    images, channels, height, width = x.shape
    filters, _, kh, kw = weight.shape
    out = np.zeros((images, filters, height - kh + 1, width - kw + 1), x.dtype)
    for n in range(images):
        for o in range(filters):
            for row in range(out.shape[2]):
                for column in range(out.shape[3]):
                    for c in range(channels):
                        for i in range(kh):
                            for j in range(kw):
                                out[n, o, row, column] += x[n, c, row + i, column + j] * weight[o, c, i, j]
    return out


# Here are two filters made by hand: one for the upper edges of strokes, with paper above and ink below, and one for
# their left edges.


def edge_filters() -> np.ndarray:
    """Two filters (2, 1, 3, 3): for edges with ink below, and with ink on the right."""
    below = np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1]], np.float32)
    return np.stack([below, below.T])[:, None]


# What does the first filter see? At each position only the nine pixels under its window, and their sum of products
# becomes one pixel of the result.


def show_what_a_filter_sees():
    """A digit with the nine pixels that a filter sees at one position; the filter's weights; the feature map, in which
    their sum of products is one pixel."""
    import matplotlib.pyplot as plt

    (x, _), _ = framed_digits(12)
    image, weights = x.numpy()[0, 0], edge_filters()[0, 0]
    response = seven_loops(x.numpy()[:1], edge_filters())[0, 0]
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.7))
    row, column = np.unravel_index(response.argmax(), response.shape)
    pictures = (("image", image, 0, 1, 3), ("filter", weights, -2, 2, 0), ("feature map", response, -4, 4, 1))
    for axis, (title, picture, least, most, side) in zip(axes, pictures):
        axis.imshow(picture, cmap="RdBu_r" if least else "gray_r", vmin=least, vmax=most)
        axis.add_patch(plt.Rectangle((column - 0.5, row - 0.5), side, side, fill=False, color="tab:orange", lw=2))
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    for (row, column), weight in np.ndenumerate(weights):
        axes[1].text(column, row, f"{weight:g}", ha="center", va="center")
    return figure


# Red means that the filter agrees, blue that it sees the opposite. The result is an image again, a *feature map*. There
# is one for each filter, and each of its pixels says how much a neighbourhood looks like the weights. Here are the
# feature maps of both filters, for four digits.


def show_edges():
    """Four digits, and their feature maps under the two filters: red where ink begins, blue where it ends."""
    (x, _), _ = framed_digits(12)
    maps = seven_loops(x.numpy()[:4], edge_filters())
    return image_grid([x.numpy()[:4, 0], maps[:, 0], maps[:, 1]], ["digit", "ink below", "ink on the right"])


# The loops are right, but they take their time:


def show_loops():
    (x, _), _ = framed_digits()
    few = x.numpy()[:2]
    seconds = tt.measure(lambda: seven_loops(few, edge_filters())).seconds / 2
    print(f"{seconds * 1e3:.1f} ms an image; {seconds * len(x):.1f} s for {len(x):,} digits and two filters")


# ## The idea
#
# We have written a *convolution*, and here it is in one line. (Mathematicians would call it a cross-correlation; their
# convolution first rotates the weights by 180 degrees. A network that learns its weights does not care, so in deep
# learning we do not turn them.)
#
# $$ \mathrm{out}[n, o, r, s] = b[o] + \sum_{c, i, j} x[n, c, r + i, s + j] \; w[o, c, i, j] $$
#
# The formula contains two decisions. *Locality*: a result depends on a small neighbourhood. *Weight sharing*: the
# weights $w$ do not depend on the position $(r, s)$. Both are knowledge about images that we build in, instead of
# hoping that the network will learn it, and both save weights. A linear layer from 256 pixels to 256 has 65,536 of
# them, our filter nine.
#
# From weight sharing we can derive exactly one thing: *if we move the image, the feature map moves with it.* This is
# called *translation equivariance*. It is a theorem, so we can check it.


def check_moving():
    x = np.random.default_rng(0).normal(size=(1, 1, 8, 8))
    moved = np.roll(x, 2, axis=3)
    maps, maps_of_moved = (seven_loops(image, edge_filters()) for image in (x, moved))
    assert np.allclose(maps_of_moved[..., 2:], maps[..., :-2])


# ## Sizes
#
# A window of 3 pixels fits into 8 pixels at 6 positions, so images shrink. If they should not, we put zeros around them
# (*padding*). If we look at every second position only, that is a *stride* of 2; if we look at pixels that are not next
# to each other, that is a *dilation*. How many positions are there? The window reaches over $d(k - 1) + 1$ pixels, and
# there are $n + 2p$ in the padded image. The first position is 0, then comes every $s$-th, as long as the window fits:
#
# $$ \left\lfloor \frac{n + 2p - d(k - 1) - 1}{s} \right\rfloor + 1 $$


def conv_size(n: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:  # exercise
    """The number of positions of a window of `kernel` pixels along n pixels; 0 or less if it does not fit."""
    return (n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


# Off-by-one errors live in such formulas. So our witness does not calculate, it counts: we lay the window at 0, at $s$,
# at $2s$, until it sticks out.


def check_conv_size():
    for n in range(1, 12):
        for kernel, stride, padding, dilation in ((1, 1, 0, 1), (3, 1, 1, 1), (3, 2, 1, 1), (2, 2, 0, 1), (3, 3, 2, 2)):
            reach = dilation * (kernel - 1) + 1
            places = [start for start in range(0, n + 2 * padding, stride) if start + reach <= n + 2 * padding]
            assert max(conv_size(n, kernel, stride, padding, dilation), 0) == len(places)


# ## From seven loops to nine
#
# Now our convolution must become fast. The loops over images, rows and columns do the same at every position, and NumPy
# has loops for that. So we reverse the order: we take one weight position $(i, j)$, a *tap*, and multiply a whole image
# with it, moved by $i$ and $j$. Of the seven loops there remains a sum over the taps, nine for a kernel of 3 by 3, and
# each of them is a matrix product over the channels.


def by_taps(x: np.ndarray, weight: np.ndarray) -> np.ndarray:  # exercise
    """The same as `seven_loops`, as a sum of one matrix product for each tap."""
    kh, kw = weight.shape[2:]
    height, width = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    images = channels_last(x)  # (N, H, W, C)
    out: Any = 0
    for i in range(kh):
        for j in range(kw):
            out = out + images[:, i : i + height, j : j + width] @ weight[:, :, i, j].T
    return channels_first(out)


# The seven loops are our witness.


def check_by_taps():
    random = np.random.default_rng(0)
    x, weight = random.normal(size=(2, 3, 6, 5)), random.normal(size=(4, 3, 3, 2))
    assert np.allclose(by_taps(x, weight), seven_loops(x, weight))


# For the product the channels must come last, `(N, H, W, C)`, so that the elements of one pixel are side by side in
# memory. Callers still see PyTorch's order, `(N, C, H, W)`. But a shape and the order in memory are two things
# (chapter 02: strides). So from here on we compute with channels last and return the transposed view. Elementwise
# operations keep the order that they find, and the next convolution finds its pixels where it needs them.

# ## From nine products to one
#
# Nine products read the image nine times and add to the result nine times, and a product over three channels is too
# thin to be worth the call. Instead, we lay out for every position what its window sees, as one row of $kh \cdot kw
# \cdot C$ elements. Then the whole convolution is a single matrix product of these rows with the weights. The method is
# called *im2col*, from image to columns, and libraries call the rows *columns*, as we shall. It trades memory for
# speed: a kernel of 3 by 3 repeats every pixel nine times.
#
# `dense_windows` gives us this layout without moving a single element: a view with six dimensions, in which the same
# pixel appears in many windows. (`sliding_window_view` is NumPy's word for a game with strides.) Later we shall also
# add gradients *into* such a view, so we must be able to write to it.


def dense_windows(x: np.ndarray, size, stride) -> np.ndarray:  # exercise
    """The windows of `size` (kh, kw) of images x (N, H, W, C) that begin at every stride-th row and column, as a view
    (N, rows, columns, kh, kw, C), which may be written to if x may (`writeable=`)."""
    view = sliding_window_view(x, size, axis=(1, 2), writeable=x.flags.writeable)
    return view[:, :: stride[0], :: stride[1]].transpose(0, 1, 2, 4, 5, 3)


# With a dilation, a window is larger, and we leave out most of the pixels in it.


def windows(x: np.ndarray, size, stride, dilation) -> np.ndarray:
    """All windows of images x (N, H, W, C) whose taps are a dilation apart, as a view (N, rows, columns, kh, kw, C),
    which may be written to if x may."""
    reach = tuple(d * (k - 1) + 1 for k, d in zip(size, dilation))
    return dense_windows(x, reach, stride)[:, :, :, :: dilation[0], :: dilation[1]]


# In window (1, 2), with a stride of (1, 2) and a dilation of (3, 1), tap (1, 0) must see pixel (1 + 3, 4).


def check_windows():
    x = np.arange(2 * 5 * 6 * 3).reshape(2, 5, 6, 3)
    view = windows(x, (2, 2), (1, 2), (3, 1))
    assert view.shape == (2, 2, 3, 2, 2, 3) and np.shares_memory(view, x)
    assert np.array_equal(view[1, 1, 2, 1, 0], x[1, 1 + 3, 4])


# Copying the windows into one array is the price of a single product. For a batch of 128 images of 32 by 32 with 32
# channels, the columns of a 3 by 3 kernel are 38 million elements, 151 MB, for images of 17 MB. No cache holds that, so
# the copy would cost more than the product. The columns of one image, however, are 1.2 MB. So we take the images one by
# one.
#
# One more option belongs here, *groups*. With $g$ groups, we cut the channels into $g$ parts that have nothing to do
# with each other, each with filters of its own. That makes $g$ products of smaller matrices. NumPy's `matmul` computes
# a stack of products in one call, so for us groups are one more dimension in front.
#
# A sum of a thousand products in `float16`, rounded after each, would keep no digit: it stops at 2,048, where adding 1
# changes nothing. So we multiply and add half-precision elements in `float32` (`wide`), and round only the result.


def _im2col(x, size, stride, padding, dilation, groups) -> Iterator[np.ndarray]:
    """For each image the content of its windows: (groups, positions, kh * kw * C / groups)."""
    channels, view = x.shape[1] // groups, windows(padded(x, padding), size, stride, dilation)
    for seen in view.reshape(*view.shape[:-1], groups, channels).transpose(0, 5, 1, 2, 3, 4, 6):
        yield seen.astype(wide(x.dtype), "C").reshape(groups, -1, math.prod(size) * channels)


# We must lay out the weights in the same order, window first and channels last.


def _matrices(weight, groups):
    """Weights (O, C / groups, kh, kw) as matrices (groups, kh * kw * C / groups, O / groups)."""
    filters, channels, kh, kw = weight.shape
    by_group = weight.reshape(groups, filters // groups, channels, kh, kw).transpose(0, 3, 4, 2, 1)
    return by_group.astype(wide(weight.dtype), "C").reshape(groups, kh * kw * channels, filters // groups)


# The products of the groups come one after the other, but belong side by side.


def _side_by_side(products):
    """Matrices (groups, positions, O / groups) as one (positions, O)."""
    return products.swapaxes(0, 1).reshape(products.shape[1], -1)


# With these three helpers the convolution is short. It is a primitive like `affine`. Each element of the result costs
# as many multiply-adds as a filter has weights.


@primitive(cost=lambda out, x, weight, *bias, **where: out.size * weight[0].size)
def convolution(x, weight, /, *bias, stride, padding, dilation, groups):  # exercise
    """Images x (N, C, H, W) under filters `weight` (O, C / groups, kh, kw), and a bias (O,) if given: (N, O, rows,
    columns), in the dtype of x. stride, padding and dilation are pairs."""
    size, matrices = weight.shape[2:], _matrices(weight, groups)
    out = np.empty((len(x), *_output_size(x, size, stride, padding, dilation), len(weight)), matrices.dtype)
    for result, columns in zip(out, _im2col(x, size, stride, padding, dilation, groups)):
        result[...] = _side_by_side(columns @ matrices).reshape(result.shape)
    out = out + bias[0] if bias else out
    return channels_first(out).astype(x.dtype, copy=False)


def _output_size(x, size, stride, padding, dilation):
    return tuple(map(conv_size, x.shape[2:], size, stride, padding, dilation))


# We have three forms of the same sum. The slowest is the definition, and judges the other two. (With all options you
# find it in the appendix *Spatial loops*, a kernel set with which `use_kernels` runs any network of this chapter on
# plain loops.)

PLAIN: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


def check_convolution():
    random = np.random.default_rng(0)
    x, weight = random.normal(size=(2, 4, 7, 6)), random.normal(size=(6, 4, 3, 2))
    assert np.allclose(convolution.kernel(x, weight, **PLAIN), seven_loops(x, weight))
    halves = [seven_loops(x[:, 2 * g : 2 * g + 2], weight[3 * g : 3 * g + 3, :2]) for g in (0, 1)]
    assert np.allclose(convolution.kernel(x, weight[:, :2], **PLAIN | {"groups": 2}), np.concatenate(halves, 1))
    around = np.pad(x, ((0, 0), (0, 0), (1, 1), (2, 2)))
    strided = convolution.kernel(x, weight, **PLAIN | {"stride": (2, 3), "padding": (1, 2)})
    assert np.allclose(strided, seven_loops(around, weight)[:, :, ::2, ::3])


# How much faster are they? We take the first layer of LeNet, a network that we build below: 6 filters of 5 by 5, for 64
# images of 28 by 28. The loops get only one of these.


def show_three_forms():
    random = np.random.default_rng(0)
    x, weight = random.random((64, 1, 28, 28), np.float32), random.random((6, 1, 5, 5), np.float32)
    times = {
        "seven loops": tt.measure(lambda: seven_loops(x[:1], weight)).seconds,
        "25 taps": tt.measure(lambda: by_taps(x, weight)).seconds / len(x),
        "one product": tt.measure(lambda: convolution.kernel(x, weight, **PLAIN)).seconds / len(x),
    }
    for name, seconds in times.items():
        print(f"{name:12s} {seconds * 1e3:8.3f} ms an image, {times['seven loops'] / seconds:7,.0f} times as fast")


# These images have one channel, so each tap's product is as thin as a product can be, and im2col gains most. The more
# channels there are, the less taps and columns differ, and libraries choose between such forms by the shapes at hand.

# ## Gradients: two more convolutions
#
# A convolution is linear in the image and linear in the weights, so we can read its derivatives off the definition. Let
# $g$ be the gradient at the result. The weight at tap $(i, j)$ meets, at each position $(r, s)$, the pixel $(r + i, s +
# j)$, so its gradient is
#
# $$ \bar w[o, c, i, j] = \sum_{n, r, s} g[n, o, r, s] \; x[n, c, r + i, s + j] . $$
#
# That pixel, in turn, met the weight. So from each position $(r, s)$ it receives $g$ times the weight, for all the
# filters. It has been in many windows, once under each tap, and receives a gradient from each of them. These *add up*:
#
# $$ \bar x[n, c, r + i, s + j] \; \mathrel{+}= \; \sum_{o} g[n, o, r, s] \; w[o, c, i, j] $$
#
# In `by_taps`, the pixels that meet one tap were one slice of the images. Therefore one walk over the taps is enough
# for both gradients.


def gradients_by_taps(x: np.ndarray, weight: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # exercise
    """The gradients of the images x (N, C, H, W) and of the weight (O, C, kh, kw), each in the shape of its array, if
    g (N, O, rows, columns) has arrived at the result of `by_taps`: (of x, of the weight)."""
    of_x, of_weight = np.zeros_like(x), np.zeros_like(weight)
    rows, columns = g.shape[2:]
    for i, j in np.ndindex(weight.shape[2:]):
        met = np.s_[:, :, i : i + rows, j : j + columns]
        of_weight[:, :, i, j] = np.einsum("nors,ncrs->oc", g, x[met])
        of_x[met] += np.einsum("nors,oc->ncrs", g, weight[:, :, i, j])
    return of_x, of_weight


# Our witness is linearity. Whatever other image we put in, the sum of $g$ times its result is the sum of the gradient
# times that image; and the same holds for other weights.


def check_gradients_by_taps():
    random = np.random.default_rng(0)
    x, other = random.normal(size=(2, 2, 3, 6, 5))
    weight, other_weight = random.normal(size=(2, 4, 3, 3, 2))
    g = random.normal(size=(2, 4, 4, 4))
    of_x, of_weight = gradients_by_taps(x, weight, g)
    assert math.isclose((of_x * other).sum(), (g * by_taps(other, weight)).sum())
    assert math.isclose((of_weight * other_weight).sum(), (g * by_taps(x, other_weight)).sum())


# Both sums are convolutions themselves, so we can compute them as fast as the one that we have. In the first, $g$ takes
# the place of the filters: they are very large filters, which fit at only $kh \cdot kw$ positions. In terms of columns
# it is again one product for each image, columns transposed times $g$. We build the columns anew rather than keep them
# from the forward pass, because copying is cheap, and memory is what a training runs out of. We keep the sum in
# `float64`, because there may be many images. First we lay out $g$ to fit:


def _by_group(image, groups):
    """An image (rows, columns, C) as matrices (groups, positions, C / groups)."""
    return image.reshape(-1, groups, image.shape[-1] // groups).swapaxes(0, 1)


# With that, you know the loop over the images already. (You may leave out an exercise with a star; the course's own
# function then takes its place.)


@primitive(cost=lambda out, x, g, **where: g.size * out[0].size)
def weight_convolution(x, g, /, size, stride, padding, dilation, groups):  # exercise (starred)
    """The gradient of the weight, (O, C / groups, *size), in the dtype of x, from images x (N, C, H, W) and the
    gradient g (N, O, rows, columns)."""
    channels, filters = x.shape[1] // groups, g.shape[1] // groups
    total = np.zeros((groups, math.prod(size) * channels, filters))
    for columns, gradient in zip(_im2col(x, size, stride, padding, dilation, groups), channels_last(g)):
        total += columns.mT @ _by_group(gradient, groups)
    by_group = total.astype(x.dtype).reshape(groups, *size, channels, filters).transpose(0, 4, 3, 1, 2)
    return np.ascontiguousarray(by_group).reshape(g.shape[1], channels, *size)


# In the second sum, look from the pixel $(p, q)$ instead: under tap $(i, j)$ it was at the position $(p - i, q - j)$.
#
# $$ \bar x[n, c, p, q] = \sum_{o, i, j} g[n, o, p - i, q - j] \; w[o, c, i, j] . $$
#
# There are minus signs where the definition has plus signs. So this is a convolution of $g$ with the weights turned by
# half a circle and with the roles of $o$ and $c$ exchanged. And $g$ is padded by $k - 1$, because the windows at the
# border stick out.


def flip_kernels(weight: np.ndarray, groups: int) -> np.ndarray:  # exercise (starred)
    """Weights (O, C / groups, kh, kw) turned by half a circle, with inputs and outputs exchanged: (C, O / groups, kh,
    kw)."""
    filters, channels, kh, kw = weight.shape
    by_group = weight[:, :, ::-1, ::-1].reshape(groups, filters // groups, channels, kh, kw)
    return by_group.swapaxes(1, 2).reshape(groups * channels, filters // groups, kh, kw)


# That is the whole gradient if two conditions hold: the stride is 1, and the result has the size that a convolution
# gives it. Because it undoes the shapes of a convolution, it is known as a *transposed convolution*.


@primitive(cost=lambda out, g, weight, **where: g.size * weight[0].size)
def transposed_convolution(g, weight, /, size, stride, padding, dilation, groups):
    """The gradient of the images, (N, C, *size), from the gradient g (N, O, rows, columns) and the weight (O, C /
    groups, kh, kw)."""
    around = tuple(d * (k - 1) - p for k, p, d in zip(size_of(weight), padding, dilation))
    fits = stride == (1, 1) and min(around) >= 0 and _output_size(g, size_of(weight), stride, around, dilation) == size
    if fits and np.isfinite(weight).all():
        where = {"stride": stride, "padding": around, "dilation": dilation, "groups": groups}
        return convolution.kernel(g, flip_kernels(weight, groups), **where)
    return _col2im(g, weight, size, stride, padding, dilation, groups)


# With a stride there are gaps between the positions, and the turned convolution would mostly multiply zeros. Then we do
# literally what happens: each position hands its value times the filter out to the pixels of its window, and where
# windows overlap, these *add up*. (Libraries call this *col2im*.) We do that for infinite weights as well, because the
# zeros around $g$ would meet them, and $0 \cdot \infty$ is not a number. To add, we write into the view of the windows,
# tap by tap, because within one tap no pixel occurs twice.


def _col2im(g, weight, size, stride, padding, dilation, groups):
    matrices, kernel, channels = _matrices(weight, groups).mT, size_of(weight), weight.shape[1]
    out = padded(np.zeros((len(g), groups * channels, *size), matrices.dtype), padding)
    seen = windows(out, kernel, stride, dilation)[:, : g.shape[2], : g.shape[3]]
    for image, gradient in zip(seen, channels_last(g)):
        products = (_by_group(gradient, groups) @ matrices).reshape(groups, *image.shape[:-1], channels)
        products = np.moveaxis(products, 0, -2).reshape(image.shape)
        for i, j in np.ndindex(kernel):
            image[:, :, i, j] += products[:, :, i, j]
    return unpadded(out, padding).astype(g.dtype)


# The loop over the taps judges both.


def check_fast_gradients():
    random = np.random.default_rng(0)
    x, weight, g = (random.normal(size=shape) for shape in ((2, 3, 6, 5), (4, 3, 3, 2), (2, 4, 4, 4)))
    of_x, of_weight = gradients_by_taps(x, weight, g)
    assert np.allclose(weight_convolution.kernel(x, g, size=(3, 2), **PLAIN), of_weight)
    assert np.allclose(transposed_convolution.kernel(g, weight, size=(6, 5), **PLAIN), of_x)


# So the convolution gets its row in the table of chapter 07, with its vector-Jacobian products. The gradient of the
# bias is a sum, because we added the bias at every position.

rule(
    convolution,
    lambda g, out, x, weight, *bias, **where: transposed_convolution(g, weight, size=size_of(x), **where),
    lambda g, out, x, weight, *bias, **where: weight_convolution(x, g, size=size_of(weight), **where),
    lambda g, out, *inputs, **where: channel_sums(g),
)

# The three functions form a closed family: each is linear in both of its inputs, and the derivatives of each are the
# other two. The appendix *More spatial* adds their rows to the table as well, so derivatives of any order exist. We ask
# the referee about every option at once, to second order.


def check_gradients_of_convolution():
    random, shapes = np.random.default_rng(0), ((1, 2, 5, 4), (4, 1, 2, 2), (4,))
    inputs = [Tensor(random.normal(size=shape), requires_grad=True) for shape in shapes]
    for stride, padding in ((1, 0), ((2, 1), (1, 0))):
        check_gradients(lambda x, w, b: conv2d(x, w, b, stride, padding, (1, 2), groups=2) ** 2, *inputs)


# ## The layer
#
# The public function, `conv2d`, checks its arguments first. You may give each option as one number or as a pair (rows,
# columns), and `padding="same"` asks for as many zeros as keep the size.


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, dilation=1, groups: int = 1
) -> Tensor:
    """Images x (N, C, H, W), or one (C, H, W), under filters `weight` (O, C / groups, kh, kw), plus bias (O,): (N, O,
    rows, columns) with the sizes of `conv_size`. As torch.nn.functional.conv2d; padding may be "same" or "valid".

    An empty batch gives an empty result, operands of different dtypes the wider one (integers become floats). Raises
    ValueError for shapes that do not fit, and for a window larger than the padded image."""
    if x.ndim == 3:
        return conv2d(x.unsqueeze(0), weight, bias, stride, padding, dilation, groups).squeeze(0)
    tensors, where = convolution_arguments(x, weight, bias, stride, padding, dilation, groups)
    return convolution(*tensors, **where)


# A module holds weight and bias, as `Linear` does. The fan-in of a filter is the number of its weights, and we draw the
# new weights from $\pm 1 / \sqrt{\text{fan-in}}$, as in chapter 04 and in PyTorch. (The padding modes, which repeat
# pixels instead of adding zeros, are in the module `padding`.)


class Conv2d(Module):
    """conv2d with weight (out_channels, in_channels / groups, kh, kw) and bias (out_channels,); as torch.nn.Conv2d.
    padding_mode: "zeros", "reflect", "replicate" or "circular"."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0, dilation=1, groups: int = 1,
        bias: bool = True, padding_mode: str = "zeros", device=None, dtype=None,
    ):
        super().__init__()
        tt.refuse_other_device(device)
        refuse_groups(in_channels, out_channels, groups)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        options = layer_options(kernel_size, stride, padding, dilation)
        self.kernel_size, self.stride, self.padding, self.dilation = options
        self.padding_mode = known_mode(padding_mode)
        self.weight = Parameter(tt.zeros(out_channels, in_channels // groups, *self.kernel_size, dtype=dtype))
        self.bias = Parameter(tt.zeros(out_channels, dtype=dtype)) if bias else None
        self.reset_parameters()

    # Weight and bias are zero at first, and `reset_parameters` draws their initial values.

    def reset_parameters(self) -> None:  # exercise
        """Draw the weight, and the bias unless it is None, anew from `generator()`, uniformly from +-1 / sqrt(weights
        of a filter)."""
        bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
        for parameter in self.parameters():
            parameter.copy_(generator().uniform(-bound, bound, parameter.shape))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, rows, columns)."""
        x, padding = padded_for(self, x)
        return conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def extra_repr(self):
        return layer_text(self)


# ## Pooling
#
# A feature map says *where exactly* something was found. To read a digit, we need to know only *roughly where*. So we
# make the map smaller: of each square of 2 by 2 only the largest element survives. If a stroke moves by a pixel, the
# result often stays the same.
#
# Like a convolution, pooling has windows with taps.


def taps(x, size, stride, dilation) -> list[np.ndarray]:
    """The pixels of images x (N, H, W, C) under each tap of their windows, as views (N, rows, columns, C)."""
    seen = windows(x, size, stride, dilation)
    return [seen[:, :, :, i, j] for i, j in np.ndindex(*size)]


# Instead of a sum of products it takes the maximum. The pixels around the image must not win, even if all others are
# negative, so we pad with $-\infty$ here, and not with zero.


@primitive(cost=lambda out, x, size, **where: out.size * math.prod(size))
def max_pool(x, /, size, stride, padding, dilation):  # exercise
    """The largest number of each window of images x (N, C, H, W): (N, C, rows, columns)."""
    out, *others = taps(padded(x, padding, -np.inf), size, stride, dilation)
    for tap in others:
        out = np.maximum(out, tap)
    return channels_first(np.ascontiguousarray(out))


# The gradient goes to the pixel that won, and to no other. If several are equally large, it goes to the first of them.
# If windows overlap, a pixel that has won in several of them receives the sum of their gradients. The padding never
# wins, even if all pixels are $-\infty$. A nan wins against every number, and the last nan of a window against the
# others: that is PyTorch's convention.


def winner(x, largest, size, stride, padding, dilation) -> np.ndarray:
    """The number of the tap that won each window, (N, rows, columns, C); -1 where there is only padding."""
    images, inside = padded(x, padding, -np.inf), padded(np.ones((1, 1, *size_of(x)), bool), padding, False)
    best, where = channels_last(largest), (size, stride, dilation)
    won = np.full(best.shape, -1, np.int16)
    for number, (tap, there) in enumerate(zip(taps(images, *where), taps(inside, *where))):
        first = (tap == best) & (won < 0)
        won = np.where(there & (first | np.isnan(tap)), number, won)
    return won


# With the winners known, we choose with `where`. We could multiply $g$ by a mask of zeros and ones instead, but not if
# a gradient is infinite: $0 \cdot \infty$ is nan, and a single overflow would reach pixels that took no part.


@primitive
def max_unpool(g, x, largest, /, size, stride, padding, dilation):  # exercise (starred)
    """For each window, g is added at the first pixel of x that holds the window's largest number: (N, C, H, W). All
    other pixels get exactly 0, even if g is infinite."""
    won, to_give = winner(x, largest, size, stride, padding, dilation), channels_last(g)
    gradient = padded(np.zeros(x.shape, wide(g.dtype)), padding)
    for number, pixels in enumerate(taps(gradient, size, stride, dilation)):
        given = np.where(won == number, to_give, 0)
        pixels += given
    return unpadded(gradient, padding).astype(g.dtype)


rule(max_pool, lambda g, out, x, **where: max_unpool(g, x, out, **where))

# One large pixel in the middle of nine wins in all four windows that contain it, so it receives 4.


def check_overlapping_windows():
    x = Tensor([[[[0.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 0.0]]]], requires_grad=True)
    (gradient,) = grad(max_pool2d(x, 2, stride=1).sum(), x)
    assert gradient[0, 0].tolist() == [[0, 0, 0], [0, 4, 0], [0, 0, 0]]


# Here is the public form. (You find the module `MaxPool2d` in the appendix *Pooling*, with the other poolings.)


def max_pool2d(x: Tensor, kernel_size, stride=None, padding=0, dilation=1) -> Tensor:
    """The largest number of each window of images (N, C, H, W) or one (C, H, W), as torch.nn.functional.max_pool2d. The
    stride is the kernel's size unless given, the padding at most half of it."""
    if x.ndim == 3:
        return max_pool2d(x.unsqueeze(0), kernel_size, stride, padding, dilation).squeeze(0)
    where = pooling_arguments("max_pool2d", x, kernel_size, stride, padding, dilation)
    return max_pool(x.float() if x.dtype.kind == "b" else x, **where)


# ## Does it help?
#
# For an honest comparison we give the networks about the same number of weights, the same digits, and the same number
# of epochs. Our first network takes the theorem at its word: three convolutions, and then of each filter only its
# strongest response, *wherever* it was. This is called *global max pooling*.


class Anywhere(Module):
    """Three convolutions, then each filter's strongest answer in all of the image: (N, 1, H, W) -> (N, 10)."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = Conv2d(1, 20, 3, padding=1), Conv2d(20, 40, 3, padding=1)
        self.conv3, self.fc = Conv2d(40, 96, 3, padding=1), Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:  # exercise
        """The logits of the ten digits: three convolutions with ReLU, with a pooling of 2 by 2 behind the second; then
        the largest number of each map, wherever it is, (N, 96), through the linear layer."""
        x = max_pool2d(relu(self.conv2(relu(self.conv1(x)))), 2)
        return self.fc(tt.amax(relu(self.conv3(x)), dim=(2, 3)))


def show_anywhere():
    read_when_moved("Anywhere", trained_reader(Anywhere))


# The network does not care where the digit is. Moved by two or by four pixels, a digit is read as it is unmoved, except
# for one or two near the frame, where windows see the padding and the theorem ends. The reason is that two pixels
# before the pooling are one position behind it, and the maximum over all positions stays the same. Moved by one, the
# digit falls differently into the squares of the pooling, and we lose a little.

# ## LeNet
#
# Yann LeCun and his colleagues put these parts together in the 1990s, to read the amounts on cheques: convolution,
# pooling, convolution, pooling, and then three linear layers that see the whole. Theirs used average pooling and
# `tanh`; ours uses max pooling and ReLU, as LeNet is usually taught today. For the small pictures of this
# chapter we take kernels of 3 by 3 instead of 5 by 5.


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
        self.fc2, self.fc3 = Linear(120, 84), Linear(84, classes)

    def features(self, x: Tensor) -> Tensor:  # exercise
        """The 16 small feature maps after the second pooling. Twice: a convolution, ReLU, and the largest of each 2 by
        2 pixels."""
        x = max_pool2d(relu(self.conv1(x)), 2)
        return max_pool2d(relu(self.conv2(x)), 2)

    def forward(self, x: Tensor) -> Tensor:  # exercise
        """The logits of the classes: the features, flattened, through three linear layers with ReLU between them."""
        x = relu(self.fc1(self.features(x).flatten(1)))
        return self.fc3(relu(self.fc2(x)))


# Before you run it, predict what becomes of an image of 28 by 28: its shape behind each convolution and each pooling
# (`conv_size` has the formula, and the class has the numbers), and which layer holds and which layer computes most.
# These are two different layers, for a reason that you know: weight sharing.


def predict_lenet() -> dict[str, Any]:  # exercise
    """Your prediction for `LeNet()` and an image of 28 x 28, a dictionary with six keys. Shapes (C, H, W), as tuples:
    "conv1", "pool1", "conv2", "pool2", behind the two convolutions and the poolings that follow them. Names of layers
    ("conv1", "conv2", "fc1", "fc2" or "fc3"): "most weights" and "most multiply-adds"; biases do not count."""
    shapes = {"conv1": (6, 28, 28), "pool1": (6, 14, 14), "conv2": (16, 10, 10), "pool2": (16, 5, 5)}
    return {**shapes, "most weights": "fc1", "most multiply-adds": "conv2"}


# Is LeNet better than the MLP?


def show_lenet():
    read_when_moved("LeNet", trained_reader(lambda: LeNet(size=16)))


# Unmoved, all three can read. (The "85 percent for an MLP" that some courses report comes from an MLP that was hardly
# trained.) Moved, LeNet fares hardly better than the MLP. Its feature maps move with the digit, as the theorem says,
# but the linear layers behind them are tied to positions again.
#
# (A pixel is a large step for digits of 8 by 8. On those of MNIST, 28 by 28, LeNet forgives one or two pixels, and the
# MLP does not: the program `lenet_1998` among the examples moves 10,000 of them.)
#
# So we cannot say that convolutions "are invariant". They are equivariant: feature maps move along, and the rest of the
# network decides what that means. LeNet's way to know *where* in the picture a stroke is has its use as well, and the
# usual remedy is to show it digits in many positions: *data augmentation*, in the next chapter.
#
# How far does an element of the last feature maps see? After the first convolution it sees 3 pixels of the image.
# Pooling by 2 lets its neighbour, too, take part, and from there on, a step in the map is a step of 2 in the image. As
# we go through the layers, the *receptive field* grows by (kernel - 1) times the product of the strides so far.


def receptive_field(layers: list[tuple[int, int]]) -> int:  # exercise
    """The number of pixels, in one direction, that a result sees after layers with (kernel, stride); 1 without any."""
    sees, step = 1, 1
    for kernel, stride in layers:
        sees += (kernel - 1) * step
        step *= stride
    return sees


# We can ask the network itself. A result depends on the pixels at which its gradient is not zero. So we take one
# element in the middle of the last maps, and look at which pixels its gradient is not zero. (We make the weights
# positive, so that ReLU lets everything through.)


def show_receptive_field():
    model, x = LeNet(size=16), tt.rand(1, 1, 16, 16).requires_grad_()
    for layer in (model.conv1, model.conv2):
        layer.weight.copy_(np.abs(layer.weight.numpy()))
    (gradient,) = grad(model.features(x)[0, :, 2, 2].sum(), x)
    rows = np.flatnonzero(gradient.numpy()[0, 0].any(1))
    formula = receptive_field([(3, 1), (2, 2), (3, 1), (2, 2)])
    print(f"pixels with a gradient: {rows[-1] - rows[0] + 1} rows; formula: at most {formula}")
    return image_grid([[np.abs(gradient.numpy()[0, 0])]])


# (Pooling lets through only the winners, so the receptive field of a single image has holes.)
#
# What has LeNet learned? Here are the six filters of its first layer, and what they see in a digit:


def show_filters():
    model, (_, (x, _)) = trained_reader(lambda: LeNet(size=16)), framed_digits()
    with no_grad():
        maps = relu(model.conv1(x[:1])).numpy()[0]
    return image_grid([[None, *model.conv1.weight.numpy()[:, 0]], [x.numpy()[0, 0], *maps]])


# Red weights look for ink, blue ones for paper. We told the network nothing about edges; it found these filters useful.
#
# Deeper networks have a problem that you know from chapter 04: from layer to layer the activations grow or shrink.
# *Batch normalization* brings each channel to mean 0 and variance 1 in every batch, and rescues eight convolutions that
# learn nothing without it. We build it in the appendix *Norms*, before the layers that normalize single examples, of
# which chapter 14 needs one.

# ## The cost
#
# A convolution costs positions times filters times weights of a filter; and backward twice that, as every product does.
# The meter counts, our formula predicts. Backward we measure less than twice, because we do not ask for the gradient of
# the images. In LeNet at its proper size, 28 by 28, the convolutions need most of the multiply-adds, and the linear
# layers hold most of the weights.


def show_cost():
    model, x, labels = LeNet(), tt.rand(64, 1, 28, 28), tt.tensor([i % 10 for i in range(64)])
    with tt.meter() as forward:
        loss = cross_entropy(model(x), labels)
    with tt.meter() as back:
        loss.backward()
    formula = 64 * (28 * 28 * 6 * 25 + 10 * 10 * 16 * 6 * 25)
    of_back = sum(count for name, count in back.multiply_adds.items() if name.endswith("convolution"))
    print(f"convolutions forward: {forward.multiply_adds['convolution']:12,d} multiply-adds, formula {formula:,d}")
    print(f"convolutions back:    {of_back:12,d}")
    for name, call in (("forward", lambda: model(x)), ("and back", lambda: cross_entropy(model(x), labels).backward())):
        print(f"64 images {name}: {tt.measure(call).seconds * 1e3:.1f} ms")


# ## Errors you will meet


def show_errors():
    x = tt.zeros(2, 3, 8, 8)
    for attempt in (
        lambda: Conv2d(1, 4, 3)(x), lambda: Conv2d(3, 4, 9)(x), lambda: Conv2d(3, 4, 3)(x.flatten(1)),
        lambda: Conv2d(3, 4, 3, groups=2), lambda: max_pool2d(x, 2, padding=2), lambda: Conv2d(3, 4, 3)(x[:, :, :0]),
    ):
        try:
            attempt()
        except ValueError as error:
            print(f"ValueError: {error}")


# ## Exercises
#
# Besides the functions that are marked in the text:
#
# 1. Train the MLP and LeNet on digits that you move at random by up to two pixels (with a `Batches` of your own that
#    moves them). Which of the two profits more?
# 2. Let `Anywhere` take the mean over all positions instead of the maximum. What do you lose, and why?
# 3. Write `depthwise`: a convolution with as many groups as channels, followed by one of 1 by 1. How many weights and
#    multiply-adds does it need, compared with an ordinary one?
#
# For the third, here is a function that counts weights. The filters of a group see only the channels of that group.


def conv_weights(channels: int, filters: int, kernel: int, groups: int = 1) -> int:
    """The number of weights, without bias, of a convolution with square kernels."""
    return filters * (channels // groups) * kernel * kernel


def check_conv_weights():
    assert conv_weights(16, 32, 3) == Conv2d(16, 32, 3, bias=False).weight.numel()
    assert conv_weights(16, 16, 3, groups=16) + conv_weights(16, 32, 1) == 656


# ## A road not taken
#
# There are other ways to compute a convolution. PyTorch's libraries choose among several by the shapes at hand.
# Winograd's algorithm needs fewer multiplications for kernels of 3 by 3, and the Fourier transform for large ones. The
# most common way is ours with the columns never written down: the loop over the images continues into the registers of
# the processor. JAX has one primitive with a long list of dimension numbers, from which all of our three follow.
# tinygrad has none: it reshapes and multiplies, and leaves it to its compiler to recognize a convolution. For us the
# columns are worth their bytes, because they turn everything into the one operation that NumPy does as fast as any
# library.

# ## What hurts next
#
# The digits of this chapter fit into an array, and `Batches` hands them out. Real images do not come as an array. They
# are in files, by the ten thousand, and we must read, scale, move and flip them. The first idea is to do that for one
# image, train on it, and continue with the next.


def show_one_by_one():
    (x, y), _ = framed_digits()
    for size in (1, 64):
        model, data = LeNet(size=16), Batches(x[:64], y[:64], size)
        optimizer = Adam(model.parameters())
        seconds = tt.measure(lambda: fit(model, cross_entropy, optimizer, data, epochs=1, progress=False)).seconds / 64
        print(f"{size:2d} at a time: {seconds * 1e3:6.2f} ms an image, {seconds * 60_000:6.1f} s for 60,000 of them")


# With one sample at a time, an epoch takes many times as long for the same arithmetic. We need a loader that puts
# batches together and has the next one ready when the training asks for it: chapter 10, *Data loader*.

__all__ = [
    "Anywhere", "Conv2d", "LeNet", "by_taps", "conv2d", "conv_size", "conv_weights", "convolution",
    "flip_kernels", "max_pool", "max_pool2d", "max_unpool", "predict_lenet", "receptive_field", "seven_loops", "taps",
    "transposed_convolution", "weight_convolution", "windows", "winner",
]
