# # More rules
#
# The appendix of chapter 07: a row of the table for every primitive of chapters 02 to 04 that the chapter itself did
# not need, in the same form, and the list of those that have none.

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np

import tt_tensor as tt
from tt_autograd.autograd import NO_GRADIENT, RULES, kept, rule, with_summed_dims
from tt_tensor import as_rows

# ## One operand
#
# Functions of one element. Where a slope does not exist at a point, PyTorch's convention is ours: 0 at the corner of
# `abs` and `relu`, and a bound of `clip` that is met exactly still counts as inside. Where an element takes no part,
# its gradient is 0 by choice (`kept`, chapter 07) and not by multiplication.

rule(tt.cast, lambda g, out, x, dtype: tt.cast(g, dtype=x.dtype))
rule(tt.copied, lambda g, out, x: g)
rule(tt.sqrt, lambda g, out, x: g * (0.5 / out))
rule(tt.abs, lambda g, out, x: kept(x != 0, g * tt.sign(x)))
rule(tt.sin, lambda g, out, x: g * tt.cos(x))
rule(tt.cos, lambda g, out, x: -g * tt.sin(x))
rule(tt.tanh, lambda g, out, x: g * (1 - out * out))
rule(tt.erf, lambda g, out, x: g * (tt.exp(-x * x) * (2 / math.sqrt(math.pi))))

for flat in (tt.sign, tt.floor, tt.ceil, tt.round):
    rule(flat, lambda g, out, x: kept(np.False_, g))


def _clip(g, out, x, min=None, max=None):
    if min is not None:
        g = kept(x >= min, g)
    return g if max is None else kept(x <= max, g)


rule(tt.clip, _clip)

# ## Two operands
#
# Where the two operands of `maximum` are equal, each takes half of the gradient: the halves add up to what came in. A
# `nan` is neither smaller nor larger, so both operands answer for it.


def _winner(g, x, lost, y):
    return kept(tt.logical_not(lost), tt.choose(x == y, g * 0.5, g))


rule(tt.maximum, lambda g, out, x, y: _winner(g, x, x < y, y), lambda g, out, x, y: _winner(g, x, y < x, y))
rule(tt.minimum, lambda g, out, x, y: _winner(g, x, x > y, y), lambda g, out, x, y: _winner(g, x, y > x, y))
rule(
    tt.choose, None, lambda g, out, mask, x, y: kept(mask, g), lambda g, out, mask, x, y: kept(tt.logical_not(mask), g)
)
rule(tt.floor_divide, *[lambda g, out, x, y: kept(np.False_, g)] * 2)
rule(tt.remainder, lambda g, out, x, y: g, lambda g, out, x, y: -g * tt.floor_divide(x, y))

# ## Reductions
#
# If several elements share the maximum, they share its gradient, in equal parts; a row's gradient must not grow because
# two of its elements happen to be equal. If one of them is `nan`, so is the maximum, and the `nan` gets the gradient.


def _extreme(g, out, x, dim=None, keepdim=False):
    hit = (x == with_summed_dims(out, x, dim, keepdim)) | (x != x)
    count = tt.cast(tt.sum(hit, dim=dim, keepdim=True), dtype=g.dtype)
    return kept(hit, with_summed_dims(g, x, dim, keepdim) / count)


rule(tt.amax, _extreme)
rule(tt.amin, _extreme)

# The product's derivative with respect to one factor is the product of the others. Dividing the whole product by the
# factor fails at zeros, so the others are multiplied up from the left and from the right.


def _prod(g, out, x, dim=None, keepdim=False):
    flat = x.reshape((math.prod(x.shape),)) if dim is None or not x.ndim else x
    axis = 0 if dim is None else dim
    others = _product_before(flat, axis) * tt.flip(_product_before(tt.flip(flat, dim=axis), axis), dim=axis)
    return with_summed_dims(g, x, dim, keepdim) * others.reshape(x.shape)


def _product_before(x, dim):
    n = x.shape[dim]
    pieces = [tt.getitem(x, index=_along(x, dim, slice(i, i + 1))) for i in range(n)]
    products, running = [], None
    for piece in pieces:
        products.append(np.ones(piece.shape, x.dtype) if running is None else running)
        running = piece if running is None else running * piece
    return tt.concat(*products, dim=dim) if products else x


def _along(x, dim, part):
    return tuple(part if d == dim % x.ndim else slice(None) for d in range(x.ndim))


rule(tt.prod, _prod)

# The running sum's gradient runs the other way: an element takes part in its own sum and in all later ones.

rule(tt.flip, lambda g, out, x, dim: tt.flip(g, dim=dim))
rule(tt.cumsum, lambda g, out, x, dim: tt.flip(tt.cumsum(tt.flip(g, dim=dim), dim=dim), dim=dim))

# ## Joining, triangles, picking
#
# `concat` takes any number of tensors, so its row is one function for all of them: the gradient is cut into pieces
# again. Each piece begins where the last one ended.


def _pieces(needed, g, out, *tensors, dim=0):
    ends = accumulate(t.shape[dim] for t in tensors)
    pieces = (slice(end - t.shape[dim], end) for end, t in zip(ends, tensors))
    return [tt.getitem(g, index=_along(out, dim, piece)) if n else None for n, piece in zip(needed, pieces)]


rule(tt.concat, together=_pieces)
rule(tt.tril, lambda g, out, x, diagonal=0: tt.tril(g, diagonal=diagonal))
rule(tt.triu, lambda g, out, x, diagonal=0: tt.triu(g, diagonal=diagonal))
rule(tt.take_along, lambda g, out, x, index, dim: tt.scatter_add(g, index=index, dim=dim, shape=x.shape))
rule(tt.scatter_add, lambda g, out, values, index, dim, shape: tt.take_along(g, index=index, dim=dim))

# ## Activations
#
# The slopes of chapter 03. That of `gelu` is a primitive of its own.

rule(tt.relu, lambda g, out, x: kept(out != 0, g))
rule(tt.leaky_relu, lambda g, out, x, negative_slope=0.01: tt.choose(x > 0, g, g * negative_slope))
rule(tt.elu, lambda g, out, x, alpha=1.0: tt.choose(x <= 0, g * (tt.exp(tt.minimum(x, 0.0)) * alpha), g))
rule(tt.sigmoid, lambda g, out, x: g * (out * (1 - out)))
rule(tt.softplus, lambda g, out, x, beta=1.0: g * tt.sigmoid(x * beta))
rule(tt.softmax, lambda g, out, x, dim: out * (g - tt.sum(g * out, dim=dim, keepdim=True)))
rule(tt.log_softmax, lambda g, out, x, dim: g - tt.exp(out) * tt.sum(g, dim=dim, keepdim=True))
rule(tt.gelu, lambda g, out, x, approximate="none": g * tt.gelu_slope(x, approximate=approximate))

# And the gradient that chapter 05 found on paper, what the network believes minus what is true. (A truth value counts
# as 1 when it is subtracted. On arrays there is no need for a table of truth that is nearly all zeros.) A row of no
# importance gets exactly 0.


def _surprise(g, out, x, labels, importance=None):
    g = (g if importance is None else g * (importance / importance.sum())).reshape((-1, 1))
    believed = tt.softmax(x, dim=1)
    if isinstance(believed, np.ndarray):
        believed[np.arange(len(labels)), labels] -= 1
        share = np.multiply(believed, g, out=believed)
    else:
        share = g * (believed - (labels.reshape(-1, 1) == np.arange(x.shape[1])))
    return share if importance is None else kept(importance.reshape((-1, 1)) != 0, share)


rule(tt.surprise, _surprise)


def _binary_surprise(g, out, p, t):
    return g * (p - t) / tt.clip(p * (1 - p), min=1e-12)


rule(tt.binary_surprise, _binary_surprise, lambda g, out, p, t: g * (tt.log(1 - p) - tt.log(p)))


def _gelu_slope(g, out, x, approximate="none"):
    if approximate == "none":
        return g * (tt.exp(x * x * -0.5) * (2 - x * x) * (1 / math.sqrt(2 * math.pi)))
    a, b = math.sqrt(2 / math.pi), 0.044715
    t, du, ddu = tt.tanh((x + x * x * x * b) * a), (1 + x * x * (3 * b)) * a, x * (6 * b * a)
    return g * ((1 - t * t) * (du - x * t * du * du + x * ddu * 0.5))


rule(tt.gelu_slope, _gelu_slope)

# ## The linear layer
#
# Rows of `x` may come in any number of dimensions; they are one long list of rows, and for the weight's gradient a
# single matrix product sums over all of them, straight into the layout in which the weight is stored. The bias was
# added to every row, so its gradient is the sum of the rows; a product with ones is NumPy's quickest way to that sum.

rule(
    tt.affine,
    lambda g, out, x, weight, bias: (as_rows(g) @ weight).reshape(x.shape),
    lambda g, out, x, weight, bias: as_rows(g).T @ as_rows(x),
    lambda g, out, x, weight, bias: np.ones(len(as_rows(g)), g.dtype) @ as_rows(g),
)

# ## Without a gradient
#
# Truth values and positions do not move by a little, so they have no slope.

NO_GRADIENT.update(
    {
        tt.isnan, tt.isinf, tt.isfinite, tt.logical_not, tt.logical_and, tt.logical_or, tt.any, tt.all, tt.argmax,
        tt.argmin, tt.argsort_ascending, tt.largest_first, tt.bitwise_not, tt.bitwise_and, tt.bitwise_or,
        tt.bitwise_xor,
    }
)


def check_table_is_complete():
    missing = [
        p.name
        for p in tt.PRIMITIVES.values()
        if p.__module__.startswith("tt_tensor") and p not in RULES and p not in NO_GRADIENT
    ]
    assert not missing, f"neither a rule nor in NO_GRADIENT: {missing}"
