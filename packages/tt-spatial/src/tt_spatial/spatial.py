# # Spatial
#
# At the end of this chapter a network looks at an image as an image: with small filters that go over all of it, the
# same ones everywhere. It reads digits that have been moved, with no more weights than the network that cannot.

# ## The hurt
#
# Chapter 08 ended with a network that reads 98 of 100 unseen digits, and a picture that is moved by a pixel or two. The
# digits are 8 pixels wide. To give them room, we put them into the middle of a frame of 16 by 16 and move them about in
# there, so that nothing is cut off and nothing is lost that a reader needs. (`framed_digits` does that. It is in the
# module `pictures`, and what checks arguments is in `common`.)

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

# The network of chapter 08 gets 256 inputs instead of 64. It is trained on digits in the middle.


def plain_reader() -> Module:
    """An MLP for images of 16 x 16."""
    return tt.Sequential(tt.Flatten(), Linear(256, 136), tt.ReLU(), Linear(136, 52), tt.ReLU(), Linear(52, 10))


def trained_reader(make: Callable[[], Module]) -> Module:
    """A model, made and trained on the digits in the middle of their frame, with the same seed as all the others."""

    def trained():
        model, (data, _) = make(), framed_digits()
        batches = Batches(*data, batch_size=32, shuffle=True)
        fit(model, cross_entropy, Adam(model.parameters(), lr=2e-3), batches, epochs=15, progress=False)
        return model

    return tt.setup.seeded(0, trained)


# Then we ask it about unseen digits to the right of the middle.


def read_when_moved(name: str, model: Module) -> None:
    """Print the shares of held-out digits that a model reads when they are moved to the right by 0 to 4 pixels."""
    held_out = [framed_digits(right=right)[1] for right in range(5)]
    shares = [evaluate(model, cross_entropy, [batch], [accuracy])["accuracy"] for batch in held_out]
    weights = sum(parameter.numel() for parameter in model.parameters())
    print("moved by", "".join(f"{right:8d}" for right in range(5)))
    print(f"{name:8s}", "".join(f"{share:8.1%}" for share in shares), f"  {weights:,} weights")


def show_hurt():
    read_when_moved("MLP", trained_reader(plain_reader))


# Guessing would get one in ten right. For this network a pixel is an entry in a list of 256, and entry 136 has as much
# to do with entry 137 as with entry 5. Mix up all pixels, in the same way for every image, and it would learn just as
# well. All that it knows about a stroke it knows about a stroke *at this place*.
#
# You should know beforehand how much of this the chapter cures. A convolution does not make a network blind to the
# place: what it finds moves along with the image, and the rest of the network decides what becomes of that. So there
# will be two networks with as many weights as this one. `Anywhere` asks only whether something was found, and reads 98
# of 100 digits that are moved by two pixels. LeNet, the famous one, asks where, and reads 21.

# ## The smallest thing that could work
#
# A detector for a piece of a stroke needs to see only a small neighbourhood, three by three pixels, say. It is nine
# weights: multiply them with nine pixels, add up, and the sum is large where the pixels look like the weights. Such a
# detector is called a *filter* or a *kernel*. To find the piece wherever it is, put the same nine weights at every
# place of the image in turn. A batch of images, several channels (red, green, blue; or what other filters have found),
# several filters: that makes seven loops.


def seven_loops(x: np.ndarray, weight: np.ndarray) -> np.ndarray:  # exercise
    """Images x (N, C, H, W), each place compared with each filter of `weight` (O, C, kh, kw): (N, O, H - kh + 1, W
    - kw + 1)."""
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


# Two filters made by hand: one for upper edges (dark above, bright below), one for left edges.


def edge_filters() -> np.ndarray:
    """Two filters (2, 1, 3, 3): for edges that are bright below, and bright on the right."""
    below = np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1]], np.float32)
    return np.stack([below, below.T])[:, None]


def show_edges():
    (x, _), _ = framed_digits(12)
    maps = seven_loops(x.numpy()[:4], edge_filters())
    return image_grid([x.numpy()[:4, 0], maps[:, 0], maps[:, 1]], ["digit", "bright below", "bright on the right"])


# Red where the filter agrees, blue where it sees the opposite. The result is an image again, a *feature map*: one for
# each filter, and each pixel of it says how much its neighbourhood looks like the weights. And it takes its time:


def show_loops():
    (x, _), _ = framed_digits()
    few = x.numpy()[:2]
    seconds = tt.measure(lambda: seven_loops(few, edge_filters())).seconds / 2
    print(f"{seconds * 1e3:.1f} ms an image; {seconds * len(x):.1f} s for {len(x):,} digits and two filters")


# ## The idea
#
# What we have is called a *convolution*, and here it is in one line. (Mathematicians would call it a cross-correlation;
# their convolution turns the weights by half a circle first. A network that learns its weights does not care, so in
# deep learning they are not turned.)
#
# $$ \mathrm{out}[n, o, r, s] = b[o] + \sum_{c, i, j} x[n, c, r + i, s + j] \; w[o, c, i, j] $$
#
# The formula contains two decisions. *Locality*: a result depends on a small neighbourhood. *Sharing*: the weights $w$
# do not depend on the place $(r, s)$. Both are knowledge about images that we build in, instead of hoping that it will
# be learned; and both save weights. A linear layer from 256 pixels to 256 has 65,536 of them, the filter above nine.
#
# We can say exactly what follows from sharing: *move the image, and the feature map moves with it.* That is a theorem,
# so we can check it.


def check_moving():
    x = np.random.default_rng(0).normal(size=(1, 1, 8, 8))
    moved = np.roll(x, 2, axis=3)
    maps, maps_of_moved = (seven_loops(image, edge_filters()) for image in (x, moved))
    assert np.allclose(maps_of_moved[..., 2:], maps[..., :-2])


# ## Sizes
#
# A window of 3 pixels fits into 8 pixels at 6 places, so images shrink. If they should not, we put zeros around them
# (*padding*). To look at every second place only is a *stride* of 2; to look at pixels that are not next to each other
# a *dilation*. How many places are there? The window reaches over $d(k - 1) + 1$ pixels; there are $n + 2p$ in the
# padded image; the first place is 0, then every $s$-th, as long as the window fits:
#
# $$ \left\lfloor \frac{n + 2p - d(k - 1) - 1}{s} \right\rfloor + 1 $$


def conv_size(n: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:  # exercise
    """How many places a window of `kernel` pixels has along n pixels; 0 or less if it does not fit."""
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
# Now it must become fast. The loops over images, rows and columns do the same thing at every place, and NumPy has loops
# for that. Turn the order round: take one weight position $(i, j)$, a *tap*, and multiply a whole image with it, moved
# by $i$ and $j$. What remains of the seven loops is a sum over the taps, nine for a kernel of 3 by 3, and each of them
# is a matrix product over the channels.


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


# The loops are the witness.


def check_by_taps():
    random = np.random.default_rng(0)
    x, weight = random.normal(size=(2, 3, 6, 5)), random.normal(size=(4, 3, 3, 2))
    assert np.allclose(by_taps(x, weight), seven_loops(x, weight))


# For the product the channels must come last, `(N, H, W, C)`, so that the numbers which belong to one pixel are side by
# side in memory. PyTorch's order, `(N, C, H, W)`, is the one that we show to the outside. But a shape and the order in
# memory are two things (chapter 02: strides). So all that follows computes with channels last and hands out the
# transposed view; elementwise operations keep the order that they find, and the next convolution finds its pixels where
# it wants them.

# ## From nine products to one
#
# Nine products read the image nine times and add to the result nine times, and a product over three channels is too
# thin to be worth the call. The remedy is to lay out for every place what its window sees, as one row of $kh \cdot kw
# \cdot C$ numbers. Then the whole convolution is a single matrix product of these *columns* (that is their name, and
# *im2col* that of the method, although ours are rows) with the weights. It trades memory for speed: a kernel of 3 by 3
# repeats every pixel nine times.
#
# `dense_windows` makes the layout without moving a single number: a view with six dimensions, in which the same pixel
# appears in many windows. (`sliding_window_view` is NumPy's word for a game with strides.) We shall also add gradients
# *into* such a view, so it must be possible to write to it.


def dense_windows(x: np.ndarray, size, stride) -> np.ndarray:  # exercise
    """The windows of `size` (kh, kw) of images x (N, H, W, C) that begin at every stride-th row and column, as a view
    (N, rows, columns, kh, kw, C), which may be written to if x may (`writeable=`)."""
    view = sliding_window_view(x, size, axis=(1, 2), writeable=x.flags.writeable)
    return view[:, :: stride[0], :: stride[1]].transpose(0, 1, 2, 4, 5, 3)


# With a dilation, a window is larger, and most of the pixels in it are left out.


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
# channels, the columns of a 3 by 3 kernel are 38 million numbers, 151 MB, for images of 17 MB: more than any cache
# holds, so the copy would cost more than the product. The columns of one image are 1.2 MB. So we take the images one by
# one.
#
# One more option belongs here, *groups*. With $g$ groups, the channels are cut into $g$ parts that have nothing to do
# with each other, each with filters of its own: $g$ products of smaller matrices. NumPy's `matmul` computes a stack of
# products in one call, so groups are one more dimension in front.
#
# A sum of a thousand products in `float16`, rounded after each, would keep no digit: it stops at 2,048, where adding 1
# changes nothing. So we multiply and add half-precision numbers in `float32` (`wide`), and round only the result.


def _columns(x, size, stride, padding, dilation, groups) -> Iterator[np.ndarray]:
    """For each image what its windows see: (groups, places, kh * kw * C / groups)."""
    channels, view = x.shape[1] // groups, windows(padded(x, padding), size, stride, dilation)
    for seen in view.reshape(*view.shape[:-1], groups, channels).transpose(0, 5, 1, 2, 3, 4, 6):
        yield seen.astype(wide(x.dtype), "C").reshape(groups, -1, math.prod(size) * channels)


# The weights must be laid out in the same order, window first and channels last.


def _matrices(weight, groups):
    """Weights (O, C / groups, kh, kw) as matrices (groups, kh * kw * C / groups, O / groups)."""
    filters, channels, kh, kw = weight.shape
    by_group = weight.reshape(groups, filters // groups, channels, kh, kw).transpose(0, 3, 4, 2, 1)
    return by_group.astype(wide(weight.dtype), "C").reshape(groups, kh * kw * channels, filters // groups)


# The products of the groups come one after the other, and belong side by side.


def _side_by_side(products):
    """Matrices (groups, places, O / groups) as one (places, O)."""
    return products.swapaxes(0, 1).reshape(products.shape[1], -1)


# Now the convolution is short. It is a primitive like `affine`. A place costs as many multiply-adds as a filter has
# weights.


@primitive(cost=lambda out, x, weight, *bias, **where: out.size * weight[0].size)
def convolution(x, weight, /, *bias, stride, padding, dilation, groups):  # exercise
    """Images x (N, C, H, W) under filters `weight` (O, C / groups, kh, kw), and a bias (O,) if given: (N, O, rows,
    columns), in the dtype of x. stride, padding and dilation are pairs."""
    size, matrices = weight.shape[2:], _matrices(weight, groups)
    out = np.empty((len(x), *_places(x, size, stride, padding, dilation), len(weight)), matrices.dtype)
    for result, columns in zip(out, _columns(x, size, stride, padding, dilation, groups)):
        result[...] = _side_by_side(columns @ matrices).reshape(result.shape)
    out = out + bias[0] if bias else out
    return channels_first(out).astype(x.dtype, copy=False)


def _places(x, size, stride, padding, dilation):
    return tuple(map(conv_size, x.shape[2:], size, stride, padding, dilation))


# Three forms of the same sum. The slowest is the definition, and judges the other two. (With all options it is in the
# appendix *Spatial loops*, a kernel set with which `use_kernels` runs any network of this chapter on plain loops.)

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


# How much faster are they? We take the first layer of LeNet, a network that comes below: 6 filters of 5 by 5, for 64
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


# These images have one channel, so each tap's product is as thin as a product can be. The more channels there are, the
# less taps and columns differ, and libraries choose between such forms by the shapes at hand.

# ## Gradients: two more convolutions
#
# A convolution is linear in the image and linear in the weights. Its derivatives can be read off the definition. Let
# $g$ be the gradient at the result. The weight at tap $(i, j)$ meets, at each place $(r, s)$, the pixel $(r + i, s +
# j)$, so its gradient is
#
# $$ \bar w[o, c, i, j] = \sum_{n, r, s} g[n, o, r, s] \; x[n, c, r + i, s + j] . $$
#
# And that pixel, in turn, met the weight. So from each place $(r, s)$ it receives $g$ times the weight, for all the
# filters. It has been in many windows, once under each tap, and hears from all of them: what it receives *adds up*.
#
# $$ \bar x[n, c, r + i, s + j] \; \mathrel{+}= \; \sum_{o} g[n, o, r, s] \; w[o, c, i, j] $$
#
# In `by_taps`, the pixels that meet one tap were one slice of the images. One walk over the taps is therefore enough
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


# The witness is linearity. Whatever other image we put in, the sum of $g$ times its result is the sum of the gradient
# times that image; and the same with other weights.


def check_gradients_by_taps():
    random = np.random.default_rng(0)
    x, other = random.normal(size=(2, 2, 3, 6, 5))
    weight, other_weight = random.normal(size=(2, 4, 3, 3, 2))
    g = random.normal(size=(2, 4, 4, 4))
    of_x, of_weight = gradients_by_taps(x, weight, g)
    assert math.isclose((of_x * other).sum(), (g * by_taps(other, weight)).sum())
    assert math.isclose((of_weight * other_weight).sum(), (g * by_taps(x, other_weight)).sum())


# Both sums are convolutions themselves, so they can be as fast as the one that we have. In the first, $g$ is in the
# place of the filters: very large filters, which fit at only $kh \cdot kw$ places. In terms of columns it is one
# product for each image again, columns transposed times $g$. We build the columns anew rather than keep them from the
# forward pass: copying is cheap, and memory is what training runs out of. The sum is kept in `float64`, because there
# may be many images. First $g$ is laid out to fit:


def _by_group(image, groups):
    """An image (rows, columns, C) as matrices (groups, places, C / groups)."""
    return image.reshape(-1, groups, image.shape[-1] // groups).swapaxes(0, 1)


# With that, the loop over the images is the one that you know. (An exercise with a star may be left out: the course's
# own function then takes its place.)


@primitive(cost=lambda out, x, g, **where: g.size * out[0].size)
def weight_convolution(x, g, /, size, stride, padding, dilation, groups):  # exercise (starred)
    """The gradient of the weight, (O, C / groups, *size), in the dtype of x, from images x (N, C, H, W) and the
    gradient g (N, O, rows, columns)."""
    channels, filters = x.shape[1] // groups, g.shape[1] // groups
    total = np.zeros((groups, math.prod(size) * channels, filters))
    for columns, gradient in zip(_columns(x, size, stride, padding, dilation, groups), channels_last(g)):
        total += columns.mT @ _by_group(gradient, groups)
    by_group = total.astype(x.dtype).reshape(groups, *size, channels, filters).transpose(0, 4, 3, 1, 2)
    return np.ascontiguousarray(by_group).reshape(g.shape[1], channels, *size)


# In the second, look from the pixel $(p, q)$ instead: under tap $(i, j)$ it was at the place $(p - i, q - j)$.
#
# $$ \bar x[n, c, p, q] = \sum_{o, i, j} g[n, o, p - i, q - j] \; w[o, c, i, j] . $$
#
# There are minus signs where the definition has plus signs. So this is a convolution of $g$ with the weights turned by
# half a circle and with the roles of $o$ and $c$ exchanged, on a $g$ that is padded by $k - 1$, because the windows at
# the border stick out.


def turned(weight: np.ndarray, groups: int) -> np.ndarray:  # exercise (starred)
    """Weights (O, C / groups, kh, kw) turned by half a circle, with inputs and outputs exchanged: (C, O / groups, kh,
    kw)."""
    filters, channels, kh, kw = weight.shape
    by_group = weight[:, :, ::-1, ::-1].reshape(groups, filters // groups, channels, kh, kw)
    return by_group.swapaxes(1, 2).reshape(groups * channels, filters // groups, kh, kw)


# That is the whole gradient if two conditions hold: the stride is 1, and the result has the size that a convolution
# gives it.


@primitive(cost=lambda out, g, weight, **where: g.size * weight[0].size)
def transposed_convolution(g, weight, /, size, stride, padding, dilation, groups):
    """The gradient of the images, (N, C, *size), from the gradient g (N, O, rows, columns) and the weight (O, C /
    groups, kh, kw)."""
    around = tuple(d * (k - 1) - p for k, p, d in zip(size_of(weight), padding, dilation))
    fits = stride == (1, 1) and min(around) >= 0 and _places(g, size_of(weight), stride, around, dilation) == size
    if fits and np.isfinite(weight).all():
        where = {"stride": stride, "padding": around, "dilation": dilation, "groups": groups}
        return convolution.kernel(g, turned(weight, groups), **where)
    return _handed_out(g, weight, size, stride, padding, dilation, groups)


# With a stride there are gaps between the places, and the turned convolution would mostly multiply zeros. Then it is
# better to do literally what happens: each place hands its value times the filter out to the pixels of its window,
# and where windows overlap, the shares *add up*. We do that for infinite weights as well, because the zeros around $g$
# would meet them, and $0 \cdot \infty$ is not a number. To add, we write into the view of the windows, tap by tap:
# within one tap no pixel occurs twice.


def _handed_out(g, weight, size, stride, padding, dilation, groups):
    matrices, kernel, channels = _matrices(weight, groups).mT, size_of(weight), weight.shape[1]
    out = padded(np.zeros((len(g), groups * channels, *size), matrices.dtype), padding)
    seen = windows(out, kernel, stride, dilation)[:, : g.shape[2], : g.shape[3]]
    for image, gradient in zip(seen, channels_last(g)):
        shares = (_by_group(gradient, groups) @ matrices).reshape(groups, *image.shape[:-1], channels)
        shares = np.moveaxis(shares, 0, -2).reshape(image.shape)
        for i, j in np.ndindex(kernel):
            image[:, :, i, j] += shares[:, :, i, j]
    return unpadded(out, padding).astype(g.dtype)


# The loop over the taps judges both.


def check_fast_gradients():
    random = np.random.default_rng(0)
    x, weight, g = (random.normal(size=shape) for shape in ((2, 3, 6, 5), (4, 3, 3, 2), (2, 4, 4, 4)))
    of_x, of_weight = gradients_by_taps(x, weight, g)
    assert np.allclose(weight_convolution.kernel(x, g, size=(3, 2), **PLAIN), of_weight)
    assert np.allclose(transposed_convolution.kernel(g, weight, size=(6, 5), **PLAIN), of_x)


# So the convolution gets its row in the table of chapter 07. The gradient of the bias is a sum, because the bias is
# added at every place.

rule(
    convolution,
    lambda g, out, x, weight, *bias, **where: transposed_convolution(g, weight, size=size_of(x), **where),
    lambda g, out, x, weight, *bias, **where: weight_convolution(x, g, size=size_of(weight), **where),
    lambda g, out, *inputs, **where: channel_sums(g),
)

# Now the three form a closed family: each is linear in both of its inputs, and the derivatives of each are the other
# two. With their rows in the table as well, which the appendix *More spatial* adds, derivatives of any order exist. The
# referee is asked about every option at once, to second order.


def check_gradients_of_convolution():
    random, shapes = np.random.default_rng(0), ((1, 2, 5, 4), (4, 1, 2, 2), (4,))
    inputs = [Tensor(random.normal(size=shape), requires_grad=True) for shape in shapes]
    for stride, padding in ((1, 0), ((2, 1), (1, 0))):
        check_gradients(lambda x, w, b: conv2d(x, w, b, stride, padding, (1, 2), groups=2) ** 2, *inputs)


# ## The layer
#
# The function that you call checks its arguments first. Each option may be one number or a pair (rows, columns), and
# `padding="same"` asks for as many zeros as keep the size.


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


# A module holds weight and bias, as `Linear` does. The fan-in of a filter is the number of its weights, and the new
# weights are drawn from $\pm 1 / \sqrt{\text{fan-in}}$, as in chapter 04 and in PyTorch. (The padding modes, which
# repeat pixels instead of adding zeros, are in the module `padding`.)


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
# A feature map says *where exactly* something was found. For reading a digit, *roughly where* is enough, and better. So
# we make the map smaller: of each square of 2 by 2 only the largest number survives. If a stroke moves by a pixel, the
# result often stays the same.
#
# Pooling has windows as a convolution has, with taps.


def taps(x, size, stride, dilation) -> list[np.ndarray]:
    """The pixels of images x (N, H, W, C) under each tap of their windows, as views (N, rows, columns, C)."""
    seen = windows(x, size, stride, dilation)
    return [seen[:, :, :, i, j] for i, j in np.ndindex(*size)]


# Instead of a sum of products it takes the maximum. The pixels around the image must not win, even if all others are
# negative, so the padding is $-\infty$ here, and not zero.


@primitive(cost=lambda out, x, size, **where: out.size * math.prod(size))
def max_pool(x, /, size, stride, padding, dilation):  # exercise
    """The largest number of each window of images x (N, C, H, W): (N, C, rows, columns)."""
    out, *others = taps(padded(x, padding, -np.inf), size, stride, dilation)
    for tap in others:
        out = np.maximum(out, tap)
    return channels_first(np.ascontiguousarray(out))


# The gradient goes to the pixel that won, and to no other. If several are equally large, it goes to the first of them;
# and if windows overlap, a pixel that has won in several of them hears from all. The padding never wins, even if all
# pixels are $-\infty$. A nan wins against every number, and the last nan of a window against the others: that is
# PyTorch's convention.


def winner(x, largest, size, stride, padding, dilation) -> np.ndarray:
    """The number of the tap that won each window, (N, rows, columns, C); -1 where there is only padding."""
    images, inside = padded(x, padding, -np.inf), padded(np.ones((1, 1, *size_of(x)), bool), padding, False)
    best, where = channels_last(largest), (size, stride, dilation)
    won = np.full(best.shape, -1, np.int16)
    for number, (tap, there) in enumerate(zip(taps(images, *where), taps(inside, *where))):
        first = (tap == best) & (won < 0)
        won = np.where(there & (first | np.isnan(tap)), number, won)
    return won


# With the winners known, we choose with `where`. Multiplying $g$ by a mask of zeros and ones would do for numbers, but
# not for an infinite gradient: $0 \cdot \infty$ is nan, and a single overflow would reach pixels that took no part.


@primitive
def max_unpool(g, x, largest, /, size, stride, padding, dilation):  # exercise (starred)
    """For each window, g is added at the first place of x that holds the window's largest number: (N, C, H, W). All
    other places get exactly 0, even if g is infinite."""
    won, to_give = winner(x, largest, size, stride, padding, dilation), channels_last(g)
    shares = padded(np.zeros(x.shape, wide(g.dtype)), padding)
    for number, share in enumerate(taps(shares, size, stride, dilation)):
        given = np.where(won == number, to_give, 0)
        share += given
    return unpadded(shares, padding).astype(g.dtype)


rule(max_pool, lambda g, out, x, **where: max_unpool(g, x, out, **where))

# One large pixel in the middle of nine wins in all four windows that move over it, so it receives 4.


def check_overlapping_windows():
    x = Tensor([[[[0.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 0.0]]]], requires_grad=True)
    (share,) = grad(max_pool2d(x, 2, stride=1).sum(), x)
    assert share[0, 0].tolist() == [[0, 0, 0], [0, 4, 0], [0, 0, 0]]


# Here is the public form. (The module `MaxPool2d` is in the appendix *More spatial*, with the other poolings.)


def max_pool2d(x: Tensor, kernel_size, stride=None, padding=0, dilation=1) -> Tensor:
    """The largest number of each window of images (N, C, H, W) or one (C, H, W), as torch.nn.functional.max_pool2d. The
    stride is the kernel's size unless given, the padding at most half of it."""
    if x.ndim == 3:
        return max_pool2d(x.unsqueeze(0), kernel_size, stride, padding, dilation).squeeze(0)
    where = pooling_arguments("max_pool2d", x, kernel_size, stride, padding, dilation)
    return max_pool(x.float() if x.dtype.kind == "b" else x, **where)


# ## Does it help?
#
# An honest comparison gives the networks the same number of weights, the same digits, and the same number of passes.
# This one takes the theorem at its word: three convolutions, and then of each filter only its strongest answer,
# *wherever* it was.


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


# The network does not care where the digit is. Moved by two or by four pixels it reads as it does unmoved, except for a
# digit or two near the frame, where windows see the padding and the theorem ends: two pixels before the pooling are one
# place behind it, and the maximum over all places stays what it was. Moved by one, the digit falls differently into the
# squares of the pooling, and something is lost.

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
        self.fc2, self.fc3 = Linear(120, 84), Linear(84, classes)

    def features(self, x: Tensor) -> Tensor:  # exercise
        """What the second pooling leaves: 16 small feature maps. Twice: a convolution, ReLU, and the largest of each 2
        by 2 pixels."""
        x = max_pool2d(relu(self.conv1(x)), 2)
        return max_pool2d(relu(self.conv2(x)), 2)

    def forward(self, x: Tensor) -> Tensor:  # exercise
        """The logits of the classes: the features, flattened, through three linear layers with ReLU between them."""
        x = relu(self.fc1(self.features(x).flatten(1)))
        return self.fc3(relu(self.fc2(x)))


# Before you run it, predict what becomes of an image of 28 by 28: its shape behind each convolution and each pooling
# (`conv_size` has the formula, and the class has the numbers), and which layer holds and which layer computes most. The
# two answers are different layers, for a reason that you know: sharing.


def predict_lenet() -> dict[str, Any]:  # exercise
    """What you expect of `LeNet()` and an image of 28 x 28, as a dictionary with six keys. Shapes (C, H, W), as tuples:
    "conv1", "pool1", "conv2", "pool2", behind the two convolutions and the poolings that follow them. Names of layers
    ("conv1", "conv2", "fc1", "fc2" or "fc3"): "most weights" and "most multiply-adds"; biases do not count."""
    shapes = {"conv1": (6, 28, 28), "pool1": (6, 14, 14), "conv2": (16, 10, 10), "pool2": (16, 5, 5)}
    return {**shapes, "most weights": "fc1", "most multiply-adds": "conv2"}


# Is LeNet better than the MLP?


def show_lenet():
    read_when_moved("LeNet", trained_reader(lambda: LeNet(size=16)))


# Unmoved, all three can read. (The "85 percent for an MLP" that some courses report comes from an MLP that was hardly
# trained.) Moved, LeNet fares hardly better than the MLP: its feature maps move with the digit, as the theorem says,
# but the linear layers behind them are tied to places again.
#
# (A pixel is a large step for digits of 8 by 8. On those of MNIST, 28 by 28, LeNet forgives one or two pixels, and the
# MLP does not: the program `lenet_1998` among the examples moves 10,000 of them.)
#
# So it is not that convolutions "are invariant". They move along; what is done with the maps decides. LeNet's way to
# know *where* in the picture a stroke is has its use as well, and the usual remedy is to show it digits in many places:
# *augmentation*, in the next chapter.
#
# How far does a number in the last feature maps see? A pixel after the first convolution sees 3 pixels of the image.
# Pooling by 2 lets its neighbour, too, take part, and from there on, a step in the map is a step of 2 in the image.
# Going through the layers, the *receptive field* grows by (kernel - 1) times the product of the strides so far.


def receptive_field(layers: list[tuple[int, int]]) -> int:  # exercise
    """How many pixels a result sees after layers with (kernel, stride), along one direction: 1 if there are none."""
    sees, step = 1, 1
    for kernel, stride in layers:
        sees += (kernel - 1) * step
        step *= stride
    return sees


# We can ask the network itself. A result depends on what it has a gradient for: take one number in the middle of the
# last map, and look at which pixels its gradient is not zero. (The weights are made positive, so that ReLU lets them
# through.)


def show_receptive_field():
    model, x = LeNet(size=16), tt.rand(1, 1, 16, 16).requires_grad_()
    for layer in (model.conv1, model.conv2):
        layer.weight.copy_(np.abs(layer.weight.numpy()))
    (share,) = grad(model.features(x)[0, :, 2, 2].sum(), x)
    rows = np.flatnonzero(share.numpy()[0, 0].any(1))
    formula = receptive_field([(3, 1), (2, 2), (3, 1), (2, 2)])
    print(f"pixels with a gradient: {rows[-1] - rows[0] + 1} rows; formula: at most {formula}")
    return image_grid([[np.abs(share.numpy()[0, 0])]])


# (Pooling lets through only the winners, so the field of a single image has holes.)
#
# What has LeNet learned? Here are the six filters of its first layer, and what they see in a digit:


def show_filters():
    model, (_, (x, _)) = trained_reader(lambda: LeNet(size=16)), framed_digits()
    with no_grad():
        maps = relu(model.conv1(x[:1])).numpy()[0]
    return image_grid([[None, *model.conv1.weight.numpy()[:, 0]], [x.numpy()[0, 0], *maps]])


# Red weights want ink, blue ones want none. We told it nothing about edges; these are what was useful.
#
# Deeper networks have a trouble that you know from chapter 04: from layer to layer the numbers grow or shrink. *Batch
# normalization* brings each channel to mean 0 and variance 1 in every batch, and rescues eight convolutions that learn
# nothing without it. It is in the appendix *Norms*, before the layers that normalize single examples, of which chapter
# 14 needs one.

# ## The cost
#
# A convolution costs places times filters times weights of a filter; and backward twice that, as for every product. The
# meter counts, the formula predicts; backward comes to less than twice, because the gradient of the images is not asked
# for. For LeNet at its proper size, 28 by 28, most multiply-adds are in the convolutions and most weights in the linear
# layers.


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
# 1. train the MLP and LeNet on digits that are moved at random by up to two pixels (a `Batches` of your own that moves
#    them): which of the two profits more?
# 2. let `Anywhere` take the mean over all places instead of the maximum. What is lost, and why?
# 3. write `depthwise`: a convolution with as many groups as channels, followed by one of 1 by 1. How many weights and
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
# There are other ways to compute a convolution. PyTorch's libraries choose among several by the shapes at hand:
# Winograd's algorithm needs fewer multiplications for kernels of 3 by 3, the Fourier transform for large ones, and the
# most common way is ours with the columns never written down: the loop over the images continues into the registers of
# the processor. JAX has one primitive with a long list of dimension numbers, from which all of our three follow;
# tinygrad has none, it reshapes and multiplies and leaves it to its compiler to see a convolution. For us the columns
# are worth their bytes, because they turn everything into the one operation that NumPy does as fast as any library.

# ## What hurts next
#
# The digits of this chapter fit into an array, and `Batches` hands them out. Real images do not come as an array: they
# are in files, by the ten thousand, and must be read, scaled, moved and flipped. The first idea is to do that for one
# image, train on it, and continue with the next.


def show_one_by_one():
    (x, y), _ = framed_digits()
    for size in (1, 64):
        model, data = LeNet(size=16), Batches(x[:64], y[:64], size)
        optimizer = Adam(model.parameters())
        seconds = tt.measure(lambda: fit(model, cross_entropy, optimizer, data, epochs=1, progress=False)).seconds / 64
        print(f"{size:2d} at a time: {seconds * 1e3:6.2f} ms an image, {seconds * 60_000:6.1f} s for 60,000 of them")


# One sample at a time, an epoch takes many times as long, for the same arithmetic. We need a loader that puts batches
# together, and has the next one ready when the training asks for it: chapter 10, *Data loader*.

__all__ = [
    "Anywhere", "Conv2d", "LeNet", "by_taps", "conv2d", "conv_size", "conv_weights", "convolution", "max_pool",
    "max_pool2d", "max_unpool", "predict_lenet", "receptive_field", "seven_loops", "taps", "transposed_convolution",
    "turned", "weight_convolution", "windows", "winner",
]
