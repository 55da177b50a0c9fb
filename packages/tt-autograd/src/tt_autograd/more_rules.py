# # More rules
#
# An appendix of chapter 07. We add a row to the table for every other primitive of chapters 02 to 05, in the same form,
# and end with the list of those that have no gradient.

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np

import tt_tensor as tt
from tt_autograd.autograd import NO_GRADIENT, RULES, kept, rule, with_summed_dims
from tt_tensor import as_rows

# ## One operand
#
# We begin with functions of one element, whose Jacobian is diagonal. Where no slope exists, we follow PyTorch's
# convention: it is 0 at the corner of `abs` and `relu`, and an element that equals a bound of `clip` counts as inside.
# Where an element plays no part, we set its gradient to 0 by choice (`kept`, chapter 07) and not by multiplication.

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

# For the functions of the appendix `pointwise` we take the slopes from a table of derivatives.

rule(tt.expm1, lambda g, out, x: g * (out + 1))
rule(tt.log1p, lambda g, out, x: g / (x + 1))
rule(tt.log2, lambda g, out, x: g / (x * math.log(2)))
rule(tt.log10, lambda g, out, x: g / (x * math.log(10)))
rule(tt.tan, lambda g, out, x: g * (out * out + 1))
rule(tt.asin, lambda g, out, x: g / tt.sqrt(1 - x * x))
rule(tt.acos, lambda g, out, x: -g / tt.sqrt(1 - x * x))
rule(tt.atan, lambda g, out, x: g / (x * x + 1))
rule(tt.sinh, lambda g, out, x: g * tt.cosh(x))
rule(tt.cosh, lambda g, out, x: g * tt.sinh(x))
rule(tt.asinh, lambda g, out, x: g / tt.sqrt(x * x + 1))
rule(tt.acosh, lambda g, out, x: g / tt.sqrt(x * x - 1))
rule(tt.atanh, lambda g, out, x: g / (1 - x * x))
rule(tt.trunc, lambda g, out, x: kept(np.False_, g))

# The inverse of a function has the reciprocal slope, at the point that it returned. The functions `lgamma`, `digamma`
# and the sums after it form a chain: each is the derivative of the one before it.

rule(tt.erfc, lambda g, out, x: -g * (tt.exp(-x * x) * (2 / math.sqrt(math.pi))))
rule(tt.erfinv, lambda g, out, x: g * (tt.exp(out * out) * (math.sqrt(math.pi) / 2)))
rule(tt.lgamma, lambda g, out, x: g * tt.digamma(x))
rule(tt.digamma, lambda g, out, x: g * tt.zeta_sum(x, s=2))
rule(tt.zeta_sum, lambda g, out, x, s: g * (tt.zeta_sum(x, s=s + 1) * -s))

# ## Two operands
#
# Where the two operands of `maximum` are equal, we give each of them half of the gradient, so that the halves add up to
# `g`. A `nan` is neither smaller nor larger, so both operands receive it.


def _winner(g, x, lost, y):
    return kept(tt.logical_not(lost), tt.choose(x == y, g * 0.5, g))


rule(tt.maximum, lambda g, out, x, y: _winner(g, x, x < y, y), lambda g, out, x, y: _winner(g, x, y < x, y))
rule(tt.minimum, lambda g, out, x, y: _winner(g, x, x > y, y), lambda g, out, x, y: _winner(g, x, y > x, y))
rule(
    tt.choose, None, lambda g, out, mask, x, y: kept(mask, g), lambda g, out, mask, x, y: kept(tt.logical_not(mask), g)
)
rule(tt.floor_divide, *[lambda g, out, x, y: kept(np.False_, g)] * 2)
rule(tt.remainder, lambda g, out, x, y: g, lambda g, out, x, y: -g * tt.floor_divide(x, y))

rule(tt.fmod, lambda g, out, x, y: g, lambda g, out, x, y: -g * tt.trunc(x / y))

# If we move a point, its angle changes by the sideways part of the movement, divided by its distance. Its distance
# changes by the part that points outwards.

rule(
    tt.atan2,
    lambda g, out, x, y: g * (y / (x * x + y * y)),
    lambda g, out, x, y: g * (-x / (x * x + y * y)),
)
rule(tt.hypot, lambda g, out, x, y: g * (x / out), lambda g, out, x, y: g * (y / out))
rule(tt.logaddexp, lambda g, out, x, y: g * tt.sigmoid(x - y), lambda g, out, x, y: g * tt.sigmoid(y - x))

# ## Powers
#
# Powers need case distinctions. $x^0$ is 1 everywhere, so its derivative is 0 everywhere, but the formula gives $0
# \cdot 0^{-1}$ at zero.


def _power(g, out, x, exponent):
    return kept(np.True_ if exponent else np.False_, g * (exponent * x ** (exponent - 1)))


def _power_base(g, out, x, y):
    return kept(y != 0, g * (y * x ** tt.choose(y == 0, y, y - 1)))


# With respect to $y$, the derivative of $x^y$ is $x^y \ln x$. Where $x$ is 0 and $y$ is not negative, $x^y$ does not
# change with $y$.


def _power_exponent(g, out, x, y):
    flat = (x == 0) & (y >= 0)
    return kept(tt.logical_not(flat), g * (out * tt.log(tt.choose(flat, x * 0 + 1, x))))


rule(tt.power, _power)
rule(tt.power_of, _power_base, _power_exponent)

# ## Reductions
#
# If several elements are the maximum, they share its gradient in equal parts, because the gradient of a row must not
# grow when two of its elements happen to be equal. If one of them is `nan`, so is the maximum, and the `nan` receives
# the gradient.


def _extreme(g, out, x, dim=None, keepdim=False):
    hit = (x == with_summed_dims(out, x, dim, keepdim)) | (x != x)
    count = tt.cast(tt.sum(hit, dim=dim, keepdim=True), dtype=g.dtype)
    return kept(hit, with_summed_dims(g, x, dim, keepdim) / count)


rule(tt.amax, _extreme)
rule(tt.amin, _extreme)

# The derivative of a product with respect to one factor is the product of the others. We cannot divide the whole
# product by the factor, because that fails at zeros. Instead we multiply the others up from the left and from the
# right.


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

# The gradient of a running sum runs the other way, because an element takes part in its own sum and in all later ones.

rule(tt.flip, lambda g, out, x, dim: tt.flip(g, dim=dim))
rule(tt.cumsum, lambda g, out, x, dim: tt.flip(tt.cumsum(tt.flip(g, dim=dim), dim=dim), dim=dim))

# An element takes part in all later running products, too. The derivative of each of them with respect to $x_i$ is the
# product of the elements before $x_i$ and of those after it. So we walk from the end: $s_i = g_i + x_{i+1} s_{i+1}$. We
# never divide, so zeros do no harm. For the running logarithm of sums we need the same walk with another factor,
# $e^{out_i - out_{i+1}}$, which is at most 1.


def _from_the_end(g, factors, dim):
    sums, later = [], None
    for i in reversed(range(g.shape[dim])):
        here = tt.getitem(g, index=_along(g, dim, slice(i, i + 1)))
        later = here if later is None else here + tt.getitem(factors, index=_along(g, dim, slice(i, i + 1))) * later
        sums.append(later)
    return tt.concat(*sums[::-1], dim=dim) if sums else g


def _after(x, dim):
    """Return x moved one position to the front; the first element, which is not used, comes last."""
    head, tail = _along(x, dim, slice(0, 1)), _along(x, dim, slice(1, None))
    return tt.concat(tt.getitem(x, index=tail), tt.getitem(x, index=head), dim=dim)


def _cumprod(g, out, x, dim):
    if not x.ndim:
        return g
    return _product_before(x, dim) * _from_the_end(g, _after(x, dim), dim)


def _logcumsumexp(g, out, x, dim):
    if not x.ndim:
        return g
    return tt.exp(x - out) * _from_the_end(g, tt.exp(tt.minimum(out - _after(out, dim), 0.0)), dim)


rule(tt.cumprod, _cumprod)
rule(tt.logcumsumexp, _logcumsumexp)

# ## Linear algebra
#
# If we vary the equation $A X = B$, we find $A\,dX = dB - dA\,X$. So the gradient of $B$ is the solution of another
# equation, $A^T \bar B = \bar X$, and that of $A$ is $-\bar B X^T$. The determinant changes by
# $\det A \cdot \operatorname{tr}(A^{-1} dA)$.


def _swapped(x):
    return tt.permute(x, dims=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def _inverse(x):
    return tt.linalg.solved(x, np.broadcast_to(np.eye(x.shape[-1], dtype=x.dtype), x.shape))


def _of_matrices(numbers, x):
    return numbers.reshape((*x.shape[:-2], 1, 1)) * _swapped(_inverse(x))


rule(
    tt.linalg.solved,
    lambda g, out, a, b: -(tt.linalg.solved(_swapped(a), g) @ _swapped(out)),
    lambda g, out, a, b: tt.linalg.solved(_swapped(a), g),
)
rule(tt.linalg.det, lambda g, out, x: _of_matrices(g * out, x))
rule(tt.linalg.logabsdet, lambda g, out, x: _of_matrices(g, x))

# For $A = L L^T$, I. Murray (*Differentiation of the Cholesky decomposition*, 2016) derives $L^{-T} \Phi(L^T \bar L)
# L^{-1}$, where $\Phi$ takes the lower triangle and half of its diagonal. NumPy reads only the lower half of a
# symmetric matrix. Nevertheless we make the gradient symmetric, as PyTorch does.


def _cholesky(g, out, x):
    middle = tt.tril(_swapped(out) @ g)
    middle = middle * (1 - 0.5 * np.eye(x.shape[-1], dtype=x.dtype))
    left = tt.linalg.solved(_swapped(out), middle)
    share = _swapped(tt.linalg.solved(_swapped(out), _swapped(left)))
    return (share + _swapped(share)) * 0.5


rule(tt.linalg.cholesky, _cholesky)

# ## Joining, triangles, picking
#
# `concat` takes any number of tensors, so we write one function for all of them. It cuts the gradient into pieces
# again, each of which begins where the last one ended.


def _pieces(needed, g, out, *tensors, dim=0):
    ends = accumulate(t.shape[dim] for t in tensors)
    pieces = (slice(end - t.shape[dim], end) for end, t in zip(ends, tensors))
    return [tt.getitem(g, index=_along(out, dim, piece)) if n else None for n, piece in zip(needed, pieces)]


rule(tt.concat, together=_pieces)
rule(tt.tril, lambda g, out, x, diagonal=0: tt.tril(g, diagonal=diagonal))
rule(tt.triu, lambda g, out, x, diagonal=0: tt.triu(g, diagonal=diagonal))
rule(tt.take_along, lambda g, out, x, index, dim: tt.place_along(g, index=index, dim=dim, shape=x.shape))
rule(tt.place_along, lambda g, out, values, index, dim, shape: tt.take_along(g, index=index, dim=dim))

# ## Activations
#
# Here we need the slopes that we derived in chapter 03, except for those of `relu` and `log_softmax`, whose rows are in
# chapter 07. The slope of `gelu` is a primitive of its own.

rule(tt.leaky_relu, lambda g, out, x, negative_slope=0.01: tt.choose(x > 0, g, g * negative_slope))
rule(tt.elu, lambda g, out, x, alpha=1.0: tt.choose(x <= 0, g * (tt.exp(tt.minimum(x, 0.0)) * alpha), g))
rule(tt.sigmoid, lambda g, out, x: g * (out * (1 - out)))
rule(tt.softplus, lambda g, out, x, beta=1.0: g * tt.sigmoid(x * beta))
rule(tt.softmax, lambda g, out, x, dim: out * (g - tt.sum(g * out, dim=dim, keepdim=True)))
rule(tt.gelu, lambda g, out, x, approximate="none": g * tt.gelu_slope(x, approximate=approximate))

# For cross-entropy we use the gradient that we derived in chapter 05: the probability that the network assigns, minus
# the true one. (True counts as 1 when we subtract it. On arrays we need no table of truth that is nearly all zeros.) A
# row with an importance of 0 receives exactly 0.


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


# The slope of `gelu` has a slope, too, which we need for second derivatives.


def _gelu_slope(g, out, x, approximate="none"):
    if approximate == "none":
        return g * (tt.exp(x * x * -0.5) * (2 - x * x) * (1 / math.sqrt(2 * math.pi)))
    a, b = math.sqrt(2 / math.pi), 0.044715
    t, du, ddu = tt.tanh((x + x * x * x * b) * a), (1 + x * x * (3 * b)) * a, x * (6 * b * a)
    return g * ((1 - t * t) * (du - x * t * du * du + x * ddu * 0.5))


rule(tt.gelu_slope, _gelu_slope)

# ## The linear layer
#
# The rows of `x` may come in any number of dimensions. We treat them as one long list of rows. For the gradient of the
# weight, a single matrix product sums over all of them, straight into the layout in which the weight is stored. The
# bias was added to every row, so its gradient is the sum of the rows. A product with ones is NumPy's quickest way to
# that sum.

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
        tt.bitwise_xor, tt.bitwise_left_shift, tt.bitwise_right_shift, tt.signbit,
        tt.running_argmax,
    }
)


def check_table_is_complete():
    missing = [
        p.name
        for p in tt.PRIMITIVES.values()
        if p.__module__.startswith("tt_tensor") and p not in RULES and p not in NO_GRADIENT
    ]
    assert not missing, f"neither a rule nor in NO_GRADIENT: {missing}"
