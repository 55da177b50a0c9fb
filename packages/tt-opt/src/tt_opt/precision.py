# # Precision
#
# At the end of this chapter your model takes a quarter of its memory, or a seventh, on disk and while it runs, and says
# nearly the same as before.

# ## The hurt
#
# Chapter 16 ended with a floor: a token takes at least the time in which all weights come from memory. So far we spend
# four bytes on each weight. Does a weight need them?

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

import tt_tensor as tt
from tt_autograd import Batches, accuracy, evaluate, fit, no_grad, rule
from tt_autograd.training import digits, digits_classifier
from tt_nlp import GPT, Embedding, refuse_ids, train_on_text
from tt_nlp.transformers import load_story, small_gpt, surprise_on
from tt_optim import Adam
from tt_spatial import Conv2d
from tt_tensor import Linear, Module, Tensor, from_numpy, interpreting, primitive


# We train a GPT on a part of *Moby-Dick* and look at the sizes of its weights and at their exponents.


@functools.cache
def reader() -> tuple[GPT, Any]:
    """Return a GPT trained on nine tenths of the first chapter of Moby-Dick, and the rest of the text, held out."""
    tokenizer, training, held_out = load_story()
    tt.manual_seed(0)
    model = small_gpt(tokenizer.vocab_size, 2, 128, 64)
    train_on_text(model, training, 150)
    return model, held_out


def show_hurt():
    """The weights of a layer: their values, and the powers of 2 that they need."""
    import matplotlib.pyplot as plt

    model, held_out = reader()
    size = sum(p.nbytes for p in model.parameters())
    print(f"{size / 1e6:.2f} MB of weights, {surprise_on(model, held_out):.3f} nats a character")
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.6))
    weight = model.transformer.h[0].mlp.c_fc.weight.numpy().ravel()
    axes[0].hist(weight, 100, histtype="stepfilled")
    axes[0].set(title="weights of a layer", xlabel="value")
    axes[1].hist(np.frexp(weight)[1], range(-20, 4), align="left", histtype="stepfilled")
    axes[1].set(title="their exponents", xlabel="power of 2")
    figure.tight_layout()
    return figure


# A `float32` has 24 bits for the number, its sign included, and 8 for its exponent, so it reaches from $10^{-38}$ to
# $10^{38}$. Our weights use only a few of these exponents. If you changed the last digits of a weight, you would not
# notice, because the noise of the training is larger.

# ## The smallest thing that could work
#
# NumPy has a type of two bytes, `float16`, with 11 bits for the number and 5 for the exponent. Its range is narrow: at
# full precision it reaches from $6 \cdot 10^{-5}$ to 65,504. The other type of two bytes, `bfloat16`, keeps the range
# of `float32` and has only 8 bits for the number. NumPy does not know it, but we can easily make it, because it is the
# upper half of a `float32`. We must round and not cut. So we add `0x7FFF`, just less than half of the last bit that
# stays, and one more if that bit is 1, so that ties go to the even neighbour.


def to_bfloat16(x: np.ndarray) -> np.ndarray:  # exercise
    """Return the upper 16 bits of each float32, as uint16, rounded to nearest (ties to even). nan stays nan."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), 0x7FC0, rounded).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:  # exercise
    """Return the float32 numbers whose upper halves are `bits`, uint16."""
    return (np.asarray(bits, np.uint32) << 16).view(np.float32)


# Two numbers that `bfloat16` can represent must survive, and two ties must go to their even neighbours.


def check_bfloat16():
    assert from_bfloat16(to_bfloat16(np.array([1.0, -2.5, 3.0e38, np.inf]))).tolist()[:2] == [1.0, -2.5]
    assert from_bfloat16(to_bfloat16(np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8]))).tolist() == [1.0, 1 + 2.0**-6]


# Each of the two types halves the bytes. Does the loss notice? To find out, we change all matrices of a model for the
# length of a block.


def show_halves():
    model, held_out = reader()
    forms: dict[str, Callable] = {
        "float16": lambda w: w.astype(np.float16).astype(np.float32),
        "bfloat16": lambda w: from_bfloat16(to_bfloat16(w)),
    }
    for name, form in forms.items():
        with changed(model, form):
            print(f"{name:9s} {surprise_on(model, held_out):.4f} nats a character")


@contextmanager
def changed(model: Module, form: Callable[[np.ndarray], np.ndarray]) -> Iterator[None]:
    """Replace each matrix of a model by form(matrix) within the block, and restore it afterwards."""
    before = {p: p.numpy().copy() for p in model.parameters() if p.ndim > 1}
    try:
        for p, array in before.items():
            p.copy_(form(array))
        yield
    finally:
        for p, array in before.items():
            p.copy_(array)


# The loss hardly moves. So why does this disappoint? It is only a factor of two, and most processors have no fast
# arithmetic for either type, so we must widen the numbers before each product. But if we convert anyway, we may as well
# choose a format that suits our numbers best.

# ## The idea
#
# The weights of one layer have similar sizes, so we do not need an exponent for each of them. Instead we put a grid of
# 255 equally spaced points over their range, and store for each weight the number of the nearest point, a single byte.
# Only the distance $s$ between the points, the *scale*, is a float:
#
# $$ w \approx s \, q, \qquad q = \operatorname{clip}\left(\operatorname{round}(w / s), -127, 127\right), \qquad
#    s = \max |w| / 127 . $$
#
# This is *quantization*, here to `int8`. It is *symmetric*, because 0 is a point and the grid reaches equally far on
# both sides. Three details matter, and you can get each of them wrong. We round, because cutting off would make all
# weights smaller. We take the maximum of the *absolute* values. We clip, because $-128$ has no partner, and $+128$ does
# not exist.


def symmetric_scale(x: np.ndarray, bits: int = 8, dim: int | None = None) -> np.ndarray:  # exercise
    """Return the distance of grid points such that the largest |x| is the last of 2**(bits - 1) - 1 points on its side,
    float32. With dim, there is a scale for each line along that dimension, which has size 1 in the result. The scale is
    1 where all numbers are 0."""
    largest = np.abs(x).max(axis=dim, keepdims=dim is not None)
    return np.where(largest == 0, 1, largest / (2 ** (bits - 1) - 1)).astype(np.float32)


def quantize(x: np.ndarray, scale, zero_point=0, low: int = -127, high: int = 127) -> np.ndarray:  # exercise
    """Return the number of the grid point nearest to each x, from low to high: int8, or uint8 if low is 0. The point
    numbered zero_point represents 0."""
    points = np.clip(np.rint(x / scale) + zero_point, low, high)
    return points.astype(np.uint8 if low == 0 else np.int8)


def dequantize(q: np.ndarray, scale, zero_point=0) -> np.ndarray:  # exercise
    """Return the float32 numbers that the grid points q represent."""
    return (q.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


# Five weights on paper: the largest is point 127, and no weight moves by more than half a step.


def check_quantize():
    x = np.array([-1.0, -0.3, 0.0, 0.004, 1.0])
    scale = symmetric_scale(x)
    assert quantize(x, scale).tolist() == [-127, -38, 0, 1, 127]
    assert np.abs(dequantize(quantize(x, scale), scale) - x).max() <= scale / 2


# No weight moves by more than half of a step, $s / 2$. What does that do to a product $y = \sum_k w_k x_k$? In the
# worst case all errors add up: $|\Delta y| \le \frac{s}{2} \sum_k |x_k|$. Usually they do not. If the errors $u$ are
# spread evenly over $\pm s / 2$, their variance is
#
# $$ \frac{1}{s} \int_{-s/2}^{s/2} u^2 \, du = \frac{s^2}{12} , $$
#
# and the variances of independent errors add up. So the typical error of a product is $\Delta y \approx
# \frac{s}{\sqrt{12}} \sqrt{\sum_k x_k^2}$.


def expected_error(x: np.ndarray, scale: float) -> tuple[float, float]:  # exercise
    """Return the largest and the typical error of a sum of products with x (K,), if the other factors were rounded to a
    grid with that scale."""
    return scale / 2 * np.abs(x).sum(), scale / math.sqrt(12) * math.sqrt((x * x).sum())


# We compare both formulas with two thousand products of 512 terms.


def show_errors_of_products():
    random = np.random.default_rng(0)
    x, weight = random.normal(size=512), random.normal(size=(2000, 512))
    scale = float(symmetric_scale(weight))
    errors = (dequantize(quantize(weight, scale), scale) - weight) @ x
    largest, typical = expected_error(x, scale)
    print(f"largest error: at most {largest:.2f}, measured {np.abs(errors).max():.3f}")
    print(f"typical error: expected {typical:.4f}, measured {errors.std():.4f}")


# ## A scale for each row
#
# The largest weight determines the grid of all others. If a single weight is twenty times as large as the rest, all
# rows pay for it. So we give each row, that is, each *output channel*, a scale of its own. This *per-channel
# quantization* costs four bytes more for hundreds of weights.


def show_rows():
    model, _ = reader()
    weight = model.transformer.h[0].mlp.c_fc.weight.numpy().copy()
    for what in ("as it is", "one weight times 20"):
        for name, dim in (("tensor", None), ("row", 1)):
            scale = symmetric_scale(weight, dim=dim)
            error = (dequantize(quantize(weight, scale), scale) - weight).std() / weight.std()
            print(f"{what:20s} a scale for the {name:6s}: error {error:.2%} of a typical weight")
        weight[0, 0] *= 20


# ## Four bits
#
# How far can we go? With 4 bits a grid has 16 points, which are too few for a row of hundreds of weights. So we cut the
# rows into *blocks* of 32 weights, and each block gets a scale. People exchange language models in files with such
# blocks (G. Gerganov's *ggml*, 2022). We use their layouts, so that you can read their files:
#
# | format | a block of 32 weights | bits a weight |
# | --- | --- | --: |
# | `q8_0` | scale $d$ as float16, 32 numbers `int8`: $w = d q$ | 8.5 |
# | `q4_0` | scale $d$, 32 numbers of 4 bits: $w = d (q - 8)$ | 4.5 |
# | `q4_1` | scale $d$, minimum $m$, 32 numbers of 4 bits: $w = d q + m$ | 5 |
#
# What does such a grid look like? The figure shows the weights of one block, and the points that each format offers
# them.



def show_grids():
    """The grid points of four formats around the weights of one block."""
    import matplotlib.pyplot as plt

    weight = reader()[0].transformer.h[0].mlp.c_fc.weight.numpy()
    block, largest = weight[0, :ROW], np.abs(weight).max()
    low, high, extreme = block.min(), block.max(), block[np.abs(block).argmax()]
    grids = {
        "int8, a scale for the matrix": np.arange(-127, 128) * largest / 127,
        "q8_0": np.arange(-127, 128) * np.abs(extreme) / 127,
        "q4_0": np.arange(-8, 8) * extreme / -8,
        "q4_1": low + np.arange(16) * (high - low) / 15,
    }
    figure, axis = plt.subplots(figsize=(8, 2.8))
    for row, points in enumerate(grids.values()):
        axis.vlines(points, row - 0.3, row + 0.3, lw=0.8, color="C0")
        axis.plot(block, np.full(ROW, row), "o", color="C1", ms=3)
    axis.set(yticks=range(len(grids)), yticklabels=grids, xlabel="value", xlim=(1.3 * low, 1.3 * high))
    axis.invert_yaxis()
    figure.tight_layout()
    return figure


# The largest weight of the matrix makes the first grid coarser than that of `q8_0`, which only needs to reach the
# largest weight of the block. With 16 points, you can see the rounding: many weights are far from the next point.
# `q4_1` ends exactly at the smallest and the largest of them, while `q4_0` reaches a little too far on one side.
#
# Now to the bytes. Two numbers of 4 bits share a byte: weight $j$ of the block is in the lower half of byte $j$, and
# weight $j + 16$ in the upper half. NumPy can describe such a block as a type.

ROW = 32
BLOCKS = {
    "q8_0": np.dtype([("d", "<f2"), ("q", "i1", ROW)]),
    "q4_0": np.dtype([("d", "<f2"), ("q", "u1", ROW // 2)]),
    "q4_1": np.dtype([("d", "<f2"), ("m", "<f2"), ("q", "u1", ROW // 2)]),
}


def two_in_a_byte(q: np.ndarray) -> np.ndarray:  # exercise
    """Return numbers (..., 32) from 0 to 15 as bytes (..., 16), with the first half of a block in the lower halves."""
    q = q.astype(np.uint8)
    return q[..., : ROW // 2] | q[..., ROW // 2 :] << 4


def one_by_one(packed: np.ndarray) -> np.ndarray:  # exercise
    """Undo `two_in_a_byte`: bytes (..., 16) as numbers (..., 32)."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


# Packed and unpacked, the numbers must be the same again.


def check_two_in_a_byte():
    q = np.arange(64).reshape(2, ROW) % 16
    assert (one_by_one(two_in_a_byte(q)) == q).all() and two_in_a_byte(q)[0, 1] == 1 + 16 * (17 % 16)


# Now the grids. `q4_1` puts its grid over the range from the minimum to the maximum; such a grid is called *affine*.
# `q4_0` stores only a scale and still uses all 16 points. Its scale has a sign, chosen so that the number of largest
# magnitude is point 0, which represents $-8 d$. We follow ggml to the last rounding, so that our bytes are those that
# its own programs write.


def _inverse(d):
    return np.divide(1, d, out=np.zeros_like(d), where=d != 0)


def blocks_of(x: np.ndarray, kind: str) -> np.ndarray:  # exercise
    """Return numbers (..., K) as blocks (..., K / 32) of the type BLOCKS[kind]. ValueError if 32 does not divide K."""
    if x.shape[-1] % ROW:
        raise ValueError(f"rows of {x.shape[-1]} numbers cannot be cut into the blocks of {ROW} that {kind} has")
    x = x.astype(np.float32).reshape(*x.shape[:-1], -1, ROW)
    out = np.empty(x.shape[:-1], BLOCKS[kind])
    if kind == "q8_0":
        d = np.abs(x).max(-1, keepdims=True) / np.float32(127)
        near = x * _inverse(d)
        out["q"] = np.trunc(near + np.copysign(np.float32(0.5), near))
    elif kind == "q4_0":
        d = np.take_along_axis(x, np.abs(x).argmax(-1)[..., None], -1) / np.float32(-8)
        out["q"] = two_in_a_byte(np.clip(np.trunc(x.astype(np.float64) * _inverse(d) + 8.5), 0, 15))
    else:
        low = x.min(-1, keepdims=True)
        d = (x.max(-1, keepdims=True) - low) / np.float32(15)
        out["q"] = two_in_a_byte(np.clip(np.trunc((x - low) * _inverse(d) + np.float32(0.5)), 0, 15))
        out["m"] = low[..., 0]
    out["d"] = d[..., 0]
    return out


# Unpacking is the table above, read from left to right.


def numbers_of(blocks: np.ndarray) -> np.ndarray:  # exercise
    """Return the float32 numbers (..., K) that blocks (..., K / 32) represent."""
    d = blocks["d"].astype(np.float32)[..., None]
    if blocks["q"].dtype == np.int8:
        x = d * blocks["q"]
    elif blocks.dtype == BLOCKS["q4_1"]:
        x = d * one_by_one(blocks["q"]) + blocks["m"].astype(np.float32)[..., None]
    else:
        x = d * (one_by_one(blocks["q"]).astype(np.float32) - 8)
    return x.astype(np.float32, copy=False).reshape(*blocks.shape[:-1], -1)


# The error of 192 normal weights shows how coarse each grid is, and a block of zeros must stay 0.


def check_blocks():
    x = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    for kind, least in (("q8_0", 0.005), ("q4_0", 0.12), ("q4_1", 0.1)):
        assert (numbers_of(blocks_of(x, kind)) - x).std() < least
    assert (numbers_of(blocks_of(np.zeros((1, 32)), "q4_0")) == 0).all()


# ## Layers that stay small
#
# We put all formats into one table, which says how rows of a matrix become bytes, and how bytes become rows. The bytes
# of a row are together, so that we can unpack a few rows at a time. `int8` has its scale in the first four bytes. We
# keep rows of blocks field by field, first the scales of all blocks and then all numbers without a gap, because a loop
# along such a row is several times as fast as a loop that jumps over a scale after every 16 bytes.


class Format(NamedTuple):
    """How rows become bytes: pack(rows (R, K) of float32) returns bytes (R, n), uint8, and unpack(bytes) the rows. K
    must be a multiple of `multiple`."""

    pack: Callable[[np.ndarray], np.ndarray]
    unpack: Callable[[np.ndarray], np.ndarray]
    multiple: int = 1


# A format must refuse numbers that it cannot hold, or you would find infinities in your model later.


def _holding(largest: float, pack: Callable, unpack: Callable, multiple: int = 1) -> Format:
    """Return a format that refuses nan and numbers whose magnitude is above `largest`."""

    def checked(rows):
        top = np.abs(rows).max(initial=0)
        if not top <= largest:
            raise ValueError(f"this format holds numbers up to {largest:.3g}, and the largest one here is {top:.3g}")
        return pack(rows)

    return Format(checked, unpack, multiple)


def _as_bytes(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).view(np.uint8).reshape(len(x), -1)


# `int8` puts the scale of a row before its numbers.


def _pack_int8(rows):
    scale = symmetric_scale(rows, dim=1)
    return np.concatenate([_as_bytes(scale), _as_bytes(quantize(rows, scale))], axis=1)


def _unpack_int8(data):
    return dequantize(data[:, 4:].view(np.int8), np.ascontiguousarray(data[:, :4]).view(np.float32))


# We rearrange rows of blocks field by field, and back.


def field_by_field(blocks: np.ndarray) -> np.ndarray:
    """Return blocks (R, B) as bytes (R, n), with each field of all blocks of a row in one piece."""
    return np.concatenate([_as_bytes(blocks[name]) for name in blocks.dtype.names], axis=1)


def block_by_block(data: np.ndarray, kind: str) -> np.ndarray:
    """Undo `field_by_field`: bytes (R, n) as blocks (R, B)."""
    blocks = np.empty((len(data), data.shape[1] // BLOCKS[kind].itemsize), BLOCKS[kind])
    start = 0
    for name in blocks.dtype.names:
        field = blocks[name]
        stop = start + field[:1].nbytes
        field[...] = np.ascontiguousarray(data[:, start:stop]).view(field.dtype).reshape(field.shape)
        start = stop
    return blocks


def _blocks(kind: str, largest: float) -> Format:
    def unpack(data):
        return numbers_of(block_by_block(data, kind))

    return _holding(largest, lambda rows: field_by_field(blocks_of(rows, kind)), unpack, ROW)


# With these pieces we can write the table. The scales of blocks are `float16`, which bounds the numbers of a block.

HALF, SINGLE = 65504.0, float(np.finfo(np.float32).max)  # the largest numbers of float16 and float32
FORMATS = {
    "float16": _holding(
        HALF, lambda rows: _as_bytes(rows.astype("<f2")), lambda data: data.view("<f2").astype(np.float32)
    ),
    "bfloat16": _holding(
        SINGLE, lambda rows: _as_bytes(to_bfloat16(rows)), lambda data: from_bfloat16(data.view("<u2"))
    ),
    "int8": _holding(SINGLE, _pack_int8, _unpack_int8),
    "q8_0": _blocks("q8_0", 127 * HALF), "q4_0": _blocks("q4_0", 8 * HALF), "q4_1": _blocks("q4_1", HALF),
}  # fmt: skip

# A layer must not widen its whole matrix, or it would need all the memory again while it computes. So our product
# unpacks only as many rows as fit into the cache of a core, multiplies them, forgets them, and takes the next ones.

PART = 1 << 16  # elements


@primitive(cost=lambda out, x, data, kind: out.size * x.shape[-1])
def packed_product(x, data, /, kind):  # exercise
    """Return x @ rows.T for x (..., K), where `data`, uint8 (R, n), holds rows (R, K) in the format `kind`. Unpacks
    only a part of the rows at a time."""
    out = np.empty((*x.shape[:-1], len(data)), x.dtype)
    step = max(1, PART // x.shape[-1])
    for start in range(0, len(data), step):
        out[..., start : start + step] = x @ FORMATS[kind].unpack(data[start : start + step]).T
    return out


# We never train packed rows, but a gradient may have to pass through the product to the layers before it, so we write
# the *vector-Jacobian product* with respect to $x$.


def packed_vjp(g, out, x, data, kind):
    """Return the gradient of x, given the gradient g of the result."""
    rows = FORMATS[kind].unpack(np.asarray(data)).astype(g.dtype)
    return g @ (rows if isinstance(g, np.ndarray) else from_numpy(rows))


rule(packed_product, packed_vjp, None)


# For each format, the product must equal that with the unpacked rows.


def check_packed_product():
    x, weight = tt.randn(3, 64), np.random.default_rng(0).normal(size=(5000, 64)).astype(np.float32)
    for kind, form in FORMATS.items():
        data = form.pack(weight)
        found = packed_product(x, from_numpy(data), kind=kind).numpy()
        assert np.allclose(found, x.numpy() @ form.unpack(data).T, atol=1e-4)


# Our quantized layers are those of earlier chapters with a matrix of bytes instead of the parameter. This matrix is a
# *buffer*: it is saved with the module, but no optimizer trains it. If you ask for `weight`, the layer unpacks it for
# you.


class Quantized(Module):
    """The base of quantized layers, which have `rows`, a buffer of bytes, and `kind`, its format."""

    @classmethod
    def of(cls, layer: Module, rows: Tensor, kind: str) -> Any:
        """Return a copy of a layer that has packed rows instead of its weight."""
        new: Any = cls.__new__(cls)
        Module.__init__(new)
        vars(new).update({name: value for name, value in vars(layer).items() if name[0] != "_"})
        new.bias, new.kind, new.shape = getattr(layer, "bias", None), kind, tuple(layer.weight.shape)
        new.register_buffer("rows", rows)
        return new

    @property
    def weight(self) -> Any:
        """The weight, unpacked: a tensor."""
        return from_numpy(FORMATS[self.kind].unpack(self.rows.numpy()).reshape(self.shape))

    def extra_repr(self):
        return f"{' x '.join(map(str, self.shape))}, {self.kind}"


# Three layers have matrices. An embedding unpacks only those rows of its table that it needs.


class QuantizedLinear(Quantized, Linear):  # type: ignore[override]
    """Linear with a packed weight."""

    def forward(self, x):
        y = packed_product(x, self.rows, kind=self.kind)
        return y if self.bias is None else y + self.bias


class QuantizedEmbedding(Quantized, Embedding):  # type: ignore[override]
    """Embedding with a packed table. A call unpacks only the rows that it needs."""

    def forward(self, ids):
        refuse_ids(ids.numpy(), self.num_embeddings)
        return self.vectors(ids)

    def vectors(self, ids):  # exercise
        """Return the unpacked vectors of ids (...): (..., C)."""
        rows = FORMATS[self.kind].unpack(self.rows.numpy()[ids.numpy().reshape(-1)])
        return from_numpy(rows.reshape(*ids.shape, -1))


class QuantizedConv2d(Quantized, Conv2d):  # type: ignore[override]
    """Conv2d with packed filters, which are unpacked for the length of a call."""


QUANTIZED: dict[type, Any] = {Linear: QuantizedLinear, Embedding: QuantizedEmbedding, Conv2d: QuantizedConv2d}

# To quantize a network we replace its layers. Rows that we cannot cut into blocks become `int8`. If two layers share a
# weight, as the embedding and the last layer of a GPT do, they must share the packed rows, too.


def quantize_(model: Module, kind: str = "int8") -> Module:  # exercise
    """Replace all Linear, Embedding and Conv2d layers of a model by quantized ones, in place; returns the model.

    kind: a name in FORMATS. Raises ValueError for another one, TypeError for a model that is a layer itself."""
    if kind not in FORMATS:
        raise ValueError(f"there is no format {kind!r}: choose one of {', '.join(FORMATS)}")
    if type(model) in QUANTIZED:
        raise TypeError(f"{type(model).__name__} is a layer: quantize_ replaces the layers of a network that has them")
    modules, packed = dict(model.named_modules(remove_duplicate=False)), {}
    for name, layer in modules.items():
        if type(layer) in QUANTIZED:
            weight = layer.weight
            if weight not in packed:
                matrix = weight.numpy().reshape(len(weight), -1)
                fits = kind if matrix.shape[1] % FORMATS[kind].multiple == 0 else "int8"
                packed[weight] = from_numpy(FORMATS[fits].pack(matrix)), fits
            parent, _, own = name.rpartition(".")
            setattr(modules[parent], own, QUANTIZED[type(layer)].of(layer, *packed[weight]))
    return model


def model_bytes(model: Module) -> int:
    """Return the memory of all parameters and buffers in bytes, each counted once."""
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers()))


# A quantized GPT must be small, share its table, and say nearly the same as before.


def check_quantize_a_model():
    from copy import deepcopy

    model, ids = small_gpt(50, 2, 64), tt.randint(0, 50, (2, 16))
    small = quantize_(deepcopy(model), "q4_1")
    assert model_bytes(small) < 0.2 * model_bytes(model)
    assert small.lm_head.rows is small.transformer.wte.rows
    assert np.abs(small(ids).numpy() - model(ids).detach().numpy()).max() < 0.5


# ## What it costs
#
# We measure the trained reader in all formats: the size of its file, the loss on held-out text, and the time of a token
# with the cache of chapter 16.


def show_formats():
    import os
    import tempfile
    from copy import deepcopy

    from tt_autograd import save_checkpoint
    from tt_opt.caching import KVCache, read

    def read_anew(cache, model):
        cache.keep(0)
        read(model, [(cache, [1])])

    model, held_out = reader()
    print("format      file, KB   nats    ms a token")
    for kind in ("float32", *FORMATS):
        small = model if kind == "float32" else quantize_(deepcopy(model), kind)
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(file := os.path.join(folder, "model.safetensors"), small.state_dict())
            size = os.path.getsize(file)
        cache = KVCache.of(small)
        seconds = tt.measure(read_anew, cache, small).seconds
        print(f"{kind:9s} {size / 1e3:9.0f}  {surprise_on(small, held_out):.4f}  {seconds * 1e3:8.2f}")


# The file shrinks as it should, and the loss hardly moves. The time, however, does not fall. NumPy must widen each
# number before it can multiply it, and that takes longer than fetching four bytes would have taken. The appendix
# *Compiled* of chapter 15 has products that read the small numbers themselves. If you use those, the time shrinks, too.

# ## Activations
#
# So far only the weights are small, and the inputs of each product, the *activations*, are `float32`. Processors can
# multiply four times as many numbers at once if *both* factors are small integers. For that, the inputs need a grid as
# well. Unlike weights, we do not know them in advance, so we must look at some data first. This is *calibration*.
#
# Once more we use the door of chapter 02, where an interpreter can look at the inputs of each product. The products of
# a network come in the same order in each pass, and by this order we tell them apart.

PRODUCTS = ("affine", "convolution")


def observed(model: Module, batches: Iterable[Tensor]) -> list[np.ndarray]:  # exercise
    """Return the inputs of each product of a network, in the order of a pass, one array each for all batches."""
    passes: list[list[np.ndarray]] = []

    def looking(then, primitive, tensors, params):
        if primitive.name in PRODUCTS:
            passes[-1].append(tensors[0].detach().numpy().ravel())
        return then(primitive, tensors, params)

    with interpreting(looking), no_grad():
        for batch in batches:
            passes.append([])
            model(batch)
    return [np.concatenate(inputs) for inputs in zip(*passes)]


# Inputs are often lopsided. After a ReLU no number is below 0, and we would waste half of a symmetric grid. So we use
# an *affine* grid, with 256 points from the lowest to the highest number. Zero must be a point itself, because padding
# and ReLU produce it all the time. Its number is called the *zero point*: if point 0 represents the lowest number, $l =
# s (0 - z)$, then $z = -l / s$, rounded.


def affine_scale(low: float, high: float) -> tuple[float, int]:  # exercise
    """Return the scale and the zero point of a grid of 256 points, 0 to 255, over the range from low to high, which is
    extended to hold 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0
    return scale, round(-low / scale)


# Which range should we choose? The extremes are the obvious choice, but a single *outlier* can make the grid coarse for
# all other numbers. A *percentile* gives up the largest thousandth. Or we let the data decide: we try several ranges
# and take the one with the *least error*.


def least_error(x: np.ndarray) -> tuple[float, float]:  # exercise
    """Return the range (low, high) with the smallest mean squared error of rounding x to the grid of `affine_scale`,
    out of the range of x shortened to 1.0, 0.95, ..., 0.05 of itself."""

    def error(share):
        scale, zero = affine_scale(share * x.min(), share * x.max())
        return float(np.mean((dequantize(quantize(x, scale, zero, 0, 255), scale, zero) - x) ** 2))

    share = min(np.arange(20, 0, -1) / 20, key=error)
    return float(share * x.min()), float(share * x.max())


# We check both on numbers that we can work out: a thousand points between 0 and 1, with an outlier at 3 and without.


def check_calibration():
    assert np.allclose(affine_scale(-1.0, 1.55), (0.01, 100)) and np.allclose(affine_scale(0.5, 2.55), (0.01, 0))
    x = np.append(np.tile(np.linspace(0, 1, 1001), 300), 3.0)
    assert 1.5 < least_error(x)[1] < 2.7 and least_error(np.linspace(0, 1, 10_001)) == (0.0, 1.0)


# ## Training through rounding
#
# A network can learn to live with rounding if it sees the rounded weights while it learns. This is *quantization-aware
# training*. There is an obstacle: the derivative of rounding is 0 almost everywhere, so the network would learn
# nothing. The way out is bold. In the forward pass we round, and in the backward pass we pretend that nothing happened
# (the *straight-through estimator*; Y. Bengio et al., 2013). Only numbers that were clipped get no gradient, because
# moving them a little changes nothing.


@primitive
def fake_quantize(x, /, scale, zero_point=0, low=-127, high=127):  # exercise
    """Return each x moved to the nearest point of a grid, as a float."""
    points = np.clip(np.rint(x / scale) + zero_point, low, high)
    return ((points - zero_point) * scale).astype(x.dtype)


def fake_vjp(g, out, x, scale, zero_point=0, low=-127, high=127):  # exercise
    """Return the gradient of x, given the gradient g of the result: g where x was inside the grid, 0 where it was
    clipped."""
    points = x / scale + zero_point
    return tt.choose((points > low - 0.5) & (points < high + 0.5), g, g * 0)


rule(fake_quantize, fake_vjp)


# Of four numbers, the first and the last are outside the grid: they are clipped and get no gradient.


def check_fake_quantize():
    x = tt.tensor([-3.0, -0.3, 0.1, 3.0], requires_grad=True)
    y = fake_quantize(x, scale=0.25, low=-7, high=7)
    y.sum().backward()
    assert y.tolist() == [-1.75, -0.25, 0.0, 1.75] and x.grad.tolist() == [0, 1, 1, 0]


# Where do we round? In the door again, in front of each product, so that neither the network nor `fit` needs to know.
# Weights get a symmetric grid for each row, which we compute anew from their current values. Inputs get the ranges that
# you found by calibration, if you give any.


@contextmanager
def rounding(bits: int = 8, ranges: Sequence[tuple[float, float]] = ()) -> Iterator[None]:  # exercise
    """Round within the block, on this thread: the weight of each product of a layer to so many bits, with a scale for
    each row, and the input of the i-th product of a pass to the grid over ranges[i]."""
    calls = itertools.count()

    def rounded(then, primitive, tensors, params):
        if primitive.name in PRODUCTS:
            x, weight, *bias = tensors
            if ranges:
                scale, zero_point = affine_scale(*ranges[next(calls) % len(ranges)])
                x = fake_quantize(x, scale=scale, zero_point=zero_point, low=0, high=255)
            flat = weight.detach().numpy().reshape(len(weight), -1)
            scales = symmetric_scale(flat, bits, dim=1).reshape(-1, *[1] * (weight.ndim - 1))
            limit = 2 ** (bits - 1) - 1
            tensors = (x, fake_quantize(weight, scale=scales, low=-limit, high=limit), *bias)
        return then(primitive, tensors, params)

    with interpreting(rounded):
        yield


# We try it with a small network on the digits of chapter 08. First we calibrate: how many answers are right with inputs
# and weights of 8 bits, for each way to choose a range?


def digits_data() -> tuple[Batches, Batches]:
    """Return the digits in mini-batches: for training, and held out."""
    training, held_out = digits()
    return Batches(*training, 32, shuffle=True), Batches(*held_out, 359)


def train_digits_for(model: Module, data: Batches, epochs: int, rate: float = 3e-3) -> Module:
    """Train a model on digits for some epochs; returns it."""
    fit(model, tt.cross_entropy, Adam(model.parameters(), lr=rate), data, epochs=epochs, progress=False)
    return model


def right(model: Module, data: Batches) -> float:
    """Return the share of right answers."""
    return evaluate(model, tt.cross_entropy, data, [accuracy])["accuracy"]


# The three ways, on the same trained network:


def show_calibration():
    tt.manual_seed(0)
    training, held_out = digits_data()
    model = train_digits_for(digits_classifier(), training, 10)
    seen = observed(model, (x for x, _ in training))
    ways: dict[str, Callable] = {
        "extremes": lambda x: (x.min(), x.max()),
        "99.9 %": lambda x: tuple(np.percentile(x, [0.1, 99.9])),
        "least error": least_error,
    }
    print(f"float32: {right(model, held_out):.1%}")
    for name, way in ways.items():
        with rounding(8, ranges := [way(x) for x in seen]):
            found = ", ".join(f"{high:.2f}" for _, high in ranges)
            print(f"{name:11s} {right(model, held_out):.1%}, upper ends of the ranges: {found}")


# Eight bits lose nothing here. Now we give the weights fewer bits, and measure before and after the network has learned
# for three more epochs with rounding in the door.


def show_training_through_rounding():
    training, held_out = digits_data()
    for bits in (4, 3, 2):
        tt.manual_seed(0)
        model = train_digits_for(digits_classifier(), training, 10)
        with rounding(bits):
            before = right(model, held_out)
            after = right(train_digits_for(model, training, 3), held_out)
        print(f"{bits} bits: {before:.1%} right after rounding, {after:.1%} after training through it")


# With two bits a weight is $-s$, 0 or $s$, and yet the network reads nearly all digits, because other weights make up
# for what each of them cannot express.

# ## Errors you will meet
#
# You may name a format that does not exist, pass a layer instead of a network, or pass rows that cannot be cut into
# blocks.


def show_errors():
    model = small_gpt(20, layers=1, length=8)
    attempts = [
        lambda: quantize_(model, "int3"),
        lambda: quantize_(Linear(4, 4)),
        lambda: blocks_of(np.ones((2, 40)), "q4_0"),
    ]
    for attempt in attempts:
        try:
            attempt()
        except (ValueError, TypeError) as error:
            print(f"{type(error).__name__}: {error}")


# ## Exercises
#
# Besides the exercises that are marked in the text:
#
# 1. Write `decibels`, the ratio of signal to rounding error, $10 \log_{10} (\sum w^2 / \sum \Delta w^2)$. Each bit more
#    should bring 6 of them. Why?
# 2. Quantize the embedding of the reader only, and then all but the embedding. Which of the two costs more nats? And
#    which saves more bytes?
# 3. Give `q4_0` the better of the two signs for its scale: try both and keep the one with the smaller error. How much
#    does that bring in nats?


def decibels(x: np.ndarray, rounded: np.ndarray) -> float:  # exercise
    """Return 10 times the decimal logarithm of the sum of squares of x over that of the error; inf if there is no
    error."""
    error = float(((x - rounded) ** 2).sum())
    return 10 * math.log10(float((x * x).sum()) / error) if error else math.inf


# For uniform numbers we should find the famous 6.02 decibels a bit.


def check_decibels():
    x = np.random.default_rng(0).uniform(-1, 1, 100_000)
    for bits in (6, 7, 8):
        scale = symmetric_scale(x, bits)
        points = 2 ** (bits - 1) - 1
        assert abs(decibels(x, dequantize(quantize(x, scale, 0, -points, points), scale)) - 6.02 * bits) < 0.5


# ## A road not taken
#
# We round each weight to its nearest point, and use calibration only to find ranges. *GPTQ* (E. Frantar et al., 2022)
# rounds one column after the other and lets the remaining columns make up for the error. *AWQ* (J. Lin et al., 2023)
# enlarges weights that meet large inputs before it rounds. Both need data, and at four bits and below both lose less
# than our way. PyTorch has dynamic quantization (weights in advance, inputs at each call), static quantization with
# observers that are inserted as modules, and a second implementation of both in `torchao`. Each of them rewrites your
# network. Thanks to the door we need not rewrite it, except to save memory.

# ## What hurts next
#
# We spend eight bits on each weight, or four. But do we need all of these weights? We look at their sizes again, and
# set the smallest ones to 0.


def show_small_weights():
    model, held_out = reader()
    matrices = [p.numpy() for p in model.parameters() if p.ndim > 1]
    largest = [np.abs(w) / np.abs(w).max() for w in matrices]
    near = sum((w < 0.2).sum() for w in largest) / sum(w.size for w in largest)
    print(f"{near:.0%} of the weights are below a fifth of the largest in their matrix")
    for share in (0.2, 0.4):
        with changed(model, lambda w: np.where(np.abs(w) < np.quantile(np.abs(w), share), 0, w)):
            print(f"without the smallest {share:.0%}: {surprise_on(model, held_out):.3f} nats a character")


# Most weights are small, and a good part of them could just as well be 0. We need not store a zero, nor multiply by it.
# Chapter 18, *Compression*.

__all__ = [
    "BLOCKS", "FORMATS", "QUANTIZED", "ROW", "Format", "Quantized", "QuantizedConv2d", "QuantizedEmbedding",
    "QuantizedLinear", "affine_scale", "block_by_block", "blocks_of", "changed", "decibels", "dequantize",
    "expected_error", "fake_quantize", "fake_vjp", "field_by_field", "from_bfloat16", "least_error", "model_bytes",
    "numbers_of", "observed", "one_by_one", "packed_product", "quantize", "quantize_", "rounding", "symmetric_scale",
    "to_bfloat16", "two_in_a_byte",
]
