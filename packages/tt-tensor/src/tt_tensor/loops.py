# # Loops
#
# An appendix of chapter 02: every primitive once more, as the loop over elements that defines it. Our usual kernels are
# fast because NumPy's compiled loops do the work. Here the loops are ours, and each says in a line or two what the
# operation *means*. They are a kernel set like any other, `with use_kernels(loops): ...`. They are a thousand times too
# slow to work with, but they are good witnesses: the tests run every operation of the course through both sets and
# compare.

from __future__ import annotations

import builtins
import itertools
import math
import statistics
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

# NumPy serves only as memory here: it has a shape, and we read and write single elements. All positions in a shape, in
# reading order, are `np.ndindex(shape)`.

# ## One number at a time
#
# Most kernels apply a function of one or two numbers at every position. `_each` is that loop. Operands broadcast, and
# we store the results in the first operand's dtype unless another is given. The function gets Python's numbers, which
# are 64 bits wide; we round to the tensor's dtype once, when we store the result.


def _each(function: Callable, *arrays: np.ndarray, dtype: Any = None) -> np.ndarray:
    spread = np.broadcast_arrays(*arrays)
    out = np.empty(spread[0].shape, dtype or _common(*arrays))
    with np.errstate(over="ignore", invalid="ignore"):
        for place in np.ndindex(out.shape):
            out[place] = function(*(array[place].item() for array in spread))
    return out


def _float(x: np.ndarray) -> np.dtype:
    return x.dtype if x.dtype.kind == "f" else np.dtype(np.float32)


def _common(*arrays: np.ndarray) -> np.dtype:
    return np.result_type(*([a for a in arrays if a.dtype.kind == "f"] or arrays))


# Python raises an error where floating-point arithmetic has an answer: `math.exp(1000)` is an OverflowError, not `inf`.
# These four give the answers of IEEE 754.


def _exp(x):
    return math.exp(x) if x < 709.78 or math.isnan(x) else math.inf


def _log(x):
    return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan


def _quotient(x, y):
    if y != 0:
        return x / y
    return math.nan if x == 0 or math.isnan(x) else math.copysign(math.inf, x) * math.copysign(1.0, y)


def _to_the(x, y):
    if x == 0 and y < 0:
        return math.copysign(math.inf, x) if y % 2 == 1 else math.inf
    if x < 0 and y != int(y):
        return math.nan
    try:
        return x**y
    except OverflowError:
        return -math.inf if x < 0 and y % 2 == 1 else math.inf


# With these, each kernel is the formula for one element.


def neg(x, /):
    return _each(lambda v: -v, x)


def exp(x, /):
    return _each(_exp, x, dtype=_float(x))


def log(x, /):
    return _each(_log, x, dtype=_float(x))


def sqrt(x, /):
    return _each(lambda v: math.nan if v < 0 else math.sqrt(v), x, dtype=_float(x))


def abs(x, /):
    return _each(builtins.abs, x)


def sign(x, /):
    return _each(lambda v: v if math.isnan(v) else (v > 0) - (v < 0), x)


def sin(x, /):
    return _each(lambda v: math.nan if math.isinf(v) else math.sin(v), x, dtype=_float(x))


def cos(x, /):
    return _each(lambda v: math.nan if math.isinf(v) else math.cos(v), x, dtype=_float(x))


def tanh(x, /):
    return _each(math.tanh, x, dtype=_float(x))


def erf(x, /):
    return _each(math.erf, x, dtype=_float(x))


# Rounding leaves infinities and `nan` alone.


def _if_finite(function):
    return lambda v: function(v) if math.isfinite(v) else v


def floor(x, /):
    return _each(_if_finite(math.floor), x)


def ceil(x, /):
    return _each(_if_finite(math.ceil), x)


def round(x, /):
    return _each(_if_finite(builtins.round), x)


# The following kernels answer with truth values, or work on bits.


def isnan(x, /):
    return _each(math.isnan, x, dtype=bool)


def isinf(x, /):
    return _each(math.isinf, x, dtype=bool)


def isfinite(x, /):
    return _each(math.isfinite, x, dtype=bool)


def logical_not(x, /):
    return _each(lambda v: not v, x, dtype=bool)


def bitwise_not(x, /):
    return _each(lambda v: not v if x.dtype.kind == "b" else ~v, *_bits(x))


def _bits(*arrays):
    floats = [a.dtype for a in arrays if a.dtype.kind == "f"]
    if floats:
        raise TypeError(f"~, &, | and ^ are for truth values and integers, not for {floats[0]}")
    return arrays


# The last three of one operand convert, copy and bound.


def cast(x, /, dtype):
    return _each(lambda v: v, x, dtype=dtype)


def copied(x, /):
    return _each(lambda v: v, x)


def clip(x, /, min=None, max=None):
    if min is None and max is None:
        raise ValueError("clip needs min, max or both")
    low, high = -math.inf if min is None else min, math.inf if max is None else max
    return _each(lambda v: low if v < low else high if v > high else v, x)


# ## Two numbers at a time


def add(x, y, /):
    return _each(lambda v, w: v + w, x, y)


def sub(x, y, /):
    return _each(lambda v, w: v - w, x, y)


def mul(x, y, /):
    return _each(lambda v, w: v * w, x, y)


def div(x, y, /):
    return _each(_quotient, x, y, dtype=np.result_type(_float(x), _float(y)))


# Powers keep the rules of the chapter: integers stay integers.


def power(x, /, exponent):
    stays = not isinstance(exponent, float)
    if stays and exponent < 0 and x.dtype.kind != "f":
        raise ValueError("integers have no negative powers")
    return _each(lambda v: _to_the(v, exponent), x, dtype=x.dtype if stays else _float(x))


def power_of(x, y, /):
    return _each(_to_the, x, y)


# A maximum and a minimum are `nan` if one of the two is.


def maximum(x, y, /):
    return _each(lambda v, w: v if v > w or math.isnan(v) else w, x, y)


def minimum(x, y, /):
    return _each(lambda v, w: v if v < w or math.isnan(v) else w, x, y)


def floor_divide(x, y, /):
    _refuse_zero(y)
    return _each(lambda v, w: v // w if w != 0 else _quotient(v, w), x, y)


def _refuse_zero(y):
    if y.dtype.kind in "iu" and 0 in y:
        raise ValueError("integers cannot be divided by zero")


def remainder(x, y, /):
    _refuse_zero(y)
    return _each(lambda v, w: v % w if w != 0 else math.nan, x, y)


# Comparisons give truth values.


def eq(x, y, /):
    return _each(lambda v, w: v == w, x, y, dtype=bool)


def ne(x, y, /):
    return _each(lambda v, w: v != w, x, y, dtype=bool)


def lt(x, y, /):
    return _each(lambda v, w: v < w, x, y, dtype=bool)


def le(x, y, /):
    return _each(lambda v, w: v <= w, x, y, dtype=bool)


def gt(x, y, /):
    return _each(lambda v, w: v > w, x, y, dtype=bool)


def ge(x, y, /):
    return _each(lambda v, w: v >= w, x, y, dtype=bool)


# Truth values and bits combine.


def logical_and(x, y, /):
    return _each(lambda v, w: bool(v) and bool(w), x, y, dtype=bool)


def logical_or(x, y, /):
    return _each(lambda v, w: bool(v) or bool(w), x, y, dtype=bool)


def bitwise_and(x, y, /):
    return _each(lambda v, w: v & w, *_bits(x, y))


def bitwise_or(x, y, /):
    return _each(lambda v, w: v | w, *_bits(x, y))


def bitwise_xor(x, y, /):
    return _each(lambda v, w: v ^ w, *_bits(x, y))


def choose(mask, x, y, /):
    return _each(lambda m, v, w: v if m else w, mask, x, y, dtype=_common(x, y))


# ## The long tail of one and two numbers
#
# These belong to the appendix `pointwise`. Python's `math` has nearly all of them; outside a function's domain it
# raises ValueError, where IEEE 754 says `nan`.


def _nan_outside(function):
    def careful(*values):
        try:
            return function(*values)
        except ValueError:
            return math.nan
        except OverflowError:
            return math.inf if values[0] > 0 else -math.inf

    return careful


def _floats(function):
    def kernel(x, /):
        return _each(_nan_outside(function), x, dtype=_float(x))

    return kernel


def _of_two_floats(function):
    def kernel(x, y, /):
        return _each(_nan_outside(function), x, y, dtype=np.result_type(_float(x), _float(y)))

    return kernel


expm1, tan, sinh, asinh = map(_floats, (math.expm1, math.tan, math.sinh, math.asinh))
asin, acos, atan, acosh = map(_floats, (math.asin, math.acos, math.atan, math.acosh))
erfc, cosh = _floats(math.erfc), _floats(lambda v: math.cosh(builtins.abs(v)))
log1p = _floats(lambda v: -math.inf if v == -1 else math.log1p(v))
log2 = _floats(lambda v: -math.inf if v == 0 else math.log2(v))
log10 = _floats(lambda v: -math.inf if v == 0 else math.log10(v))
atanh = _floats(lambda v: math.copysign(math.inf, v) if builtins.abs(v) == 1 else math.atanh(v))
lgamma = _floats(lambda v: math.inf if v <= 0 and v == builtins.round(v) else math.lgamma(v))
atan2, hypot = _of_two_floats(math.atan2), _of_two_floats(math.hypot)


def trunc(x, /):
    return _each(_if_finite(math.trunc), x)


def signbit(x, /):
    return _each(lambda v: math.copysign(1, v) < 0, x, dtype=bool)


# Two operands need the same care.


def logaddexp(x, y, /):
    log_of_sum = lambda v, w: builtins.max(v, w) + math.log1p(_exp(-builtins.abs(v - w))) if v != w else v + math.log(2)
    return _of_two_floats(log_of_sum)(x, y)


def fmod(x, y, /):
    _refuse_zero(y)
    return _each(_nan_outside(math.fmod) if "f" in (x.dtype.kind, y.dtype.kind) else _whole_fmod, x, y)


def _whole_fmod(v, w):
    return v - w * ((builtins.abs(v) // builtins.abs(w)) * (1 if (v < 0) == (w < 0) else -1))


def bitwise_left_shift(x, y, /):
    return _each(lambda v, w: v << w, *_bits(x, y))


def bitwise_right_shift(x, y, /):
    return _each(lambda v, w: v >> w, *_bits(x, y))


# The inverse of the error function is that of the normal distribution, in other units. `digamma` and its derivatives
# are infinite sums; after a thousand terms, the rest is nearly an integral.


def erfinv(x, /):
    normal = statistics.NormalDist(sigma=math.sqrt(0.5))
    ends = {-1.0: -math.inf, 1.0: math.inf}
    return _floats(lambda v: ends[v] if v in ends else normal.inv_cdf((1 + v) / 2))(x)


def digamma(x, /):
    return _floats(_digamma)(x)


def _digamma(v):
    if v <= 0 and v == builtins.round(v):
        return math.nan if v else -math.copysign(math.inf, v)
    total = math.fsum(1 / (v + k) for k in range(1_000))
    end = v + 1_000
    return math.log(end) - 1 / (2 * end) - 1 / (12 * end * end) - total


def zeta_sum(x, /, s):
    return _floats(lambda v: _zeta_sum(v, s))(x)


def _zeta_sum(v, s):
    total = math.fsum((v + k) ** -s for k in range(1_000))
    end = v + 1_000
    return total + end ** (1 - s) / (s - 1) + end**-s / 2 + s * end ** (-s - 1) / 12


# ## The matrix product
#
# We need three loops: over rows, over columns, and along both to multiply and add. A vector on the left is a row, one
# on the right is a column; leading dimensions of stacks broadcast.


def matmul(x, y, /):
    if not x.ndim or not y.ndim or x.shape[-1] != y.shape[-2 if y.ndim > 1 else 0]:
        raise ValueError("the sizes that are summed over differ")
    rows, columns = x[None] if x.ndim == 1 else x, y[:, None] if y.ndim == 1 else y
    stack = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    rows, columns = np.broadcast_to(rows, stack + rows.shape[-2:]), np.broadcast_to(columns, stack + columns.shape[-2:])
    out = np.empty((*stack, rows.shape[-2], columns.shape[-1]), _common(x, y))
    for place in np.ndindex(stack):
        _product(rows[place].tolist(), columns[place].tolist(), out[place])
    kept = ([-2] if x.ndim == 1 else []) + ([-1] if y.ndim == 1 else [])
    return out.squeeze(tuple(kept))


def _product(rows: list, columns: list, out: np.ndarray) -> None:
    for i, row in enumerate(rows):
        for j in range(out.shape[1]):
            total = 0
            for k, value in enumerate(row):
                total += value * columns[k][j]
            out[i, j] = total


def affine(x, weight, bias, /):
    return add(matmul(x, permute(weight, (1, 0))), bias)


# ## Equations
#
# We use *Gaussian elimination*: we subtract multiples of one row from those below it until a triangle is left, always
# choosing the row with the largest number in front. The product of the diagonal is then the determinant.


def _eliminated(rows: list, size: int) -> int:
    """The first `size` columns of the rows become an upper triangle; returns 1 or -1, for an even or odd exchange."""
    sign = 1
    for i in range(size):
        best = builtins.max(range(i, size), key=lambda r: builtins.abs(rows[r][i]))
        if best != i:
            rows[i], rows[best], sign = rows[best], rows[i], -sign
        for r in range(i + 1, size):
            factor = _quotient(rows[r][i], rows[i][i]) if rows[r][i] else 0.0
            rows[r] = [v - factor * w for v, w in zip(rows[r], rows[i])]
    return sign


def _matrix_by_matrix(function: Callable, x: np.ndarray, ends: tuple) -> np.ndarray:
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ValueError("a square matrix, or a stack of them, is needed")
    out = np.empty(x.shape[:-2] + ends, _float(x))
    for place in np.ndindex(x.shape[:-2]):
        out[place] = function([list(map(float, row)) for row in x[place].tolist()])
    return out


def _determinant(rows):
    sign = _eliminated(rows, len(rows))
    return sign * math.prod(row[i] for i, row in enumerate(rows))


# The determinant is the product of the diagonal of the triangle, with the sign of the row exchanges.


def det(x, /):
    return _matrix_by_matrix(_determinant, x, ())


def logabsdet(x, /):
    return _matrix_by_matrix(lambda rows: _log(builtins.abs(_determinant(rows))), x, ())


def solved(a, b, /):
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = np.broadcast_to(a, stack + a.shape[-2:])
    both = np.concatenate([a, np.broadcast_to(b, stack + b.shape[-2:])], axis=-1)
    out = np.empty((*stack, a.shape[-1], b.shape[-1]), _float(b))
    for place in np.ndindex(stack):
        out[place] = _solution([list(map(float, row)) for row in both[place].tolist()], a.shape[-1])
    return out


def _solution(rows, size):
    _eliminated(rows, size)
    found: list = [None] * size
    for i in reversed(range(size)):
        if rows[i][i] == 0:
            raise ValueError("the matrix is singular")
        rest = [v - builtins.sum(rows[i][j] * found[j][k] for j in range(i + 1, size))
                for k, v in enumerate(rows[i][size:])]
        found[i] = [v / rows[i][i] for v in rest]
    return found


# Cholesky's decomposition finds the triangle row by row.


def cholesky(x, /):
    return _matrix_by_matrix(_root, x, x.shape[-2:])


def _root(rows):
    lower = [[0.0] * len(rows) for _ in rows]
    for i, row in enumerate(rows):
        for j in range(i + 1):
            rest = row[j] - builtins.sum(lower[i][k] * lower[j][k] for k in range(j))
            if i == j and rest <= 0:
                raise ValueError("the matrix is not positive definite")
            lower[i][j] = math.sqrt(rest) if i == j else rest / lower[j][j]
    return lower


# ## The same numbers in another shape
#
# The default kernels return views. A loop moves elements, so these kernels return copies.


def _in_order(values: Iterable, shape: tuple, dtype: Any) -> np.ndarray:
    out = np.empty(shape, dtype)
    for place, value in zip(np.ndindex(*shape), values):
        out[place] = value
    return out


def reshape(x, /, shape):
    shape = tuple(shape) if not isinstance(shape, int) else (shape,)
    known = math.prod(n for n in shape if n != -1)
    if -1 in shape and known:
        shape = tuple(x.size // known if n == -1 else n for n in shape)
    if math.prod(shape) != x.size or builtins.min(shape, default=0) < 0:
        raise ValueError(f"cannot reshape array of size {x.size} into shape {shape}")
    return _in_order((x[place] for place in np.ndindex(x.shape)), shape, x.dtype)


def permute(x, /, dims):
    if sorted(dims) != list(range(x.ndim)):
        raise ValueError(f"{dims} does not name each of {x.ndim} dimensions once")
    out = np.empty([x.shape[d] for d in dims], x.dtype)
    for place in np.ndindex(x.shape):
        out[tuple(place[d] for d in dims)] = x[place]
    return out


def expand(x, /, shape):
    sizes = (1,) * (len(shape) - x.ndim) + x.shape
    wanted = tuple(n if want == -1 else want for want, n in zip(shape, sizes))
    if len(shape) < x.ndim or builtins.any(n not in (1, want) for n, want in zip(sizes, wanted)):
        raise ValueError(f"a tensor of shape {x.shape} does not expand to {shape}")
    source = x.reshape(sizes)
    return _in_order(
        (source[tuple(0 if n == 1 else i for i, n in zip(p, sizes))] for p in np.ndindex(wanted)), wanted, x.dtype
    )


def flip(x, /, dim):
    turned = {d % x.ndim for d in (dim if isinstance(dim, tuple) else (dim,))}
    return _in_order(
        (
            x[tuple(n - 1 - i if d in turned else i for d, (i, n) in enumerate(zip(p, x.shape)))]
            for p in np.ndindex(x.shape)
        ),
        x.shape,
        x.dtype,
    )


# ## Many numbers to one
#
# A reduction sorts the elements into groups, one for each position of the result, and turns each group into one number.


def _fold(function: Callable, x: np.ndarray, dim, keepdim: bool, dtype: Any) -> np.ndarray:
    for d in () if dim is None else dim if isinstance(dim, tuple) else (dim,):
        if not -builtins.max(x.ndim, 1) <= d < builtins.max(x.ndim, 1):
            raise IndexError(f"dimension {d} does not exist: the tensor has {x.ndim} dimensions")
    gone = (
        set(range(x.ndim))
        if dim is None
        else {d % builtins.max(x.ndim, 1) for d in (dim if isinstance(dim, tuple) else (dim,))}
    )
    shape = tuple(1 if d in gone else n for d, n in enumerate(x.shape))
    groups: dict[tuple, list] = {place: [] for place in np.ndindex(shape)}
    for place in np.ndindex(x.shape):
        groups[tuple(0 if d in gone else i for d, i in enumerate(place))].append(x[place].item())
    out = _in_order(map(function, groups.values()), shape, dtype)
    return out if keepdim else out.reshape([n for d, n in enumerate(x.shape) if d not in gone])


def _wide(x):
    return x.dtype if x.dtype.kind == "f" else np.dtype(np.int64)


def sum(x, /, dim=None, keepdim=False):
    return _fold(builtins.sum, x, dim, keepdim, _wide(x))


def prod(x, /, dim=None, keepdim=False):
    return _fold(math.prod, x, dim, keepdim, _wide(x))


def any(x, /, dim=None, keepdim=False):
    return _fold(builtins.any, x, dim, keepdim, bool)


def all(x, /, dim=None, keepdim=False):
    return _fold(builtins.all, x, dim, keepdim, bool)


# The largest element is the first that no other exceeds. We count `nan` as larger than everything, so that it is not
# overlooked.


def _first_largest(values: list) -> int:
    return builtins.max(range(len(values)), key=lambda i: (math.isnan(values[i]), values[i]))


def _first_smallest(values: list) -> int:
    return builtins.min(range(len(values)), key=lambda i: (not math.isnan(values[i]), values[i]))


def argmax(x, /, dim=None, keepdim=False):
    return _fold(_first_largest, x, dim, keepdim, np.int64)


def argmin(x, /, dim=None, keepdim=False):
    return _fold(_first_smallest, x, dim, keepdim, np.int64)


def amax(x, /, dim=None, keepdim=False):
    return _fold(lambda values: values[_first_largest(values)], x, dim, keepdim, x.dtype)


def amin(x, /, dim=None, keepdim=False):
    return _fold(lambda values: values[_first_smallest(values)], x, dim, keepdim, x.dtype)


# ## Line by line
#
# Other functions turn each line along a dimension into another line.


def _line_by_line(function: Callable[[list], list], x: np.ndarray, dim: int, dtype: Any) -> np.ndarray:
    if not -builtins.max(x.ndim, 1) <= dim < builtins.max(x.ndim, 1):
        raise IndexError(f"dimension {dim} does not exist: the tensor has {x.ndim} dimensions")
    lines, out = x.reshape(x.shape or (1,)), np.empty(x.shape or (1,), dtype)
    dim %= lines.ndim
    for place in np.ndindex(lines.shape[:dim] + lines.shape[dim + 1 :]):
        line = (*place[:dim], slice(None), *place[dim:])
        out[line] = function(lines[line].tolist())
    return out.reshape(x.shape)


def _running(values):
    totals, total = [], 0
    for value in values:
        total += value
        totals.append(total)
    return totals


def cumsum(x, /, dim):
    return _line_by_line(_running, x, dim, _wide(x))


def _running_product(values):
    products, product = [], 1
    for value in values:
        product *= value
        products.append(product)
    return products


def cumprod(x, /, dim):
    return _line_by_line(_running_product, x, dim, _wide(x))


def _running_logs(values):
    tops = itertools.accumulate(values, builtins.max)
    return [t + _log(builtins.sum(_exp(v - t) for v in values[: i + 1])) if math.isfinite(t) else t
            for i, t in enumerate(tops)]


def logcumsumexp(x, /, dim):
    return _line_by_line(_running_logs, x, dim, _float(x))


# The running maximum is found at the last of the largest elements so far.


def _running_largest(values):
    places, best = [], 0
    for i, value in enumerate(values):
        if math.isnan(value) or value >= values[best]:
            best = i
        places.append(best)
    return places


def running_argmax(x, /, dim):
    return _line_by_line(_running_largest, x, dim, np.int64)


# Python's `sorted` is *stable*: equal elements keep their order.


def argsort_ascending(x, /, dim=-1):
    return _line_by_line(
        lambda values: sorted(range(len(values)), key=lambda i: (math.isnan(values[i]), values[i])), x, dim, np.int64
    )


def largest_first(x, /, k, dim):
    order = _line_by_line(
        lambda values: sorted(range(len(values)), key=lambda i: (not math.isnan(values[i]), -values[i])),
        x, dim, np.int64
    )
    return order[(slice(None),) * (dim % builtins.max(x.ndim, 1)) + (slice(k),)] if x.ndim else order


def _log_softmax(values):
    top = builtins.max(values, default=0)
    total = _log(builtins.sum(_exp(v - top) for v in values))
    return [v - top - total for v in values]


# Softmax works on one line at a time, by way of its logarithm. The losses of chapter 05 follow.


def softmax(x, /, dim):
    return _line_by_line(lambda values: [_exp(v) for v in _log_softmax(values)], x, dim, _float(x))


def log_softmax(x, /, dim):
    return _line_by_line(_log_softmax, x, dim, _float(x))


def binary_surprise(p, t, /):
    return _each(lambda q, u: -(u * builtins.max(_log(q), -100.0) + (1 - u) * builtins.max(_log(1 - q), -100.0)), p, t)


def surprise(x, /, labels, importance=None):
    losses = -take_along(log_softmax(x, 1), labels.reshape(-1, 1), 1).reshape(-1)
    return losses if importance is None else div(sum(losses * importance), sum(importance))


# ## Picking and putting
#
# An index such as `(..., [0, 2], None)` is written in a language of its own. We let NumPy read it once, for the
# *positions* of the elements, and move the elements ourselves.


def _positions(shape, index) -> np.ndarray:
    return np.asarray(np.arange(math.prod(shape)).reshape(shape)[index])


def getitem(x, /, index):
    positions, values = _positions(x.shape, index), x.reshape(-1)
    return _in_order((values[p] for p in positions.flat), positions.shape, x.dtype)


def place(values, /, index, shape):
    positions = _positions(shape, index)
    out = np.zeros(math.prod(shape), values.dtype)
    for p, value in zip(positions.flat, np.broadcast_to(values, positions.shape).flat):
        out[p] += value
    return out.reshape(shape)


# Along one dimension, the index replaces one coordinate.


def take_along(x, /, index, dim):
    dim %= x.ndim
    return _in_order((x[(*p[:dim], index[p], *p[dim + 1 :])] for p in np.ndindex(index.shape)), index.shape, x.dtype)


def place_along(values, /, index, dim, shape):
    out = np.zeros(shape, values.dtype)
    dim %= len(shape)
    for p in np.ndindex(index.shape):
        out[(*p[:dim], index[p], *p[dim + 1 :])] += values[p]
    return out


def concat(*tensors, dim=0):
    first, sizes = tensors[0], [t.shape[dim] for t in tensors]
    dim %= first.ndim
    if builtins.any(t.shape[:dim] + t.shape[dim + 1 :] != first.shape[:dim] + first.shape[dim + 1 :] for t in tensors):
        raise ValueError("only the sizes along the joined dimension may differ")
    out = np.empty((*first.shape[:dim], builtins.sum(sizes), *first.shape[dim + 1 :]), _common(*tensors))
    for i, tensor in enumerate(tensors):
        for p in np.ndindex(tensor.shape):
            out[(*p[:dim], builtins.sum(sizes[:i]) + p[dim], *p[dim + 1 :])] = tensor[p]
    return out


def _triangle(x, keep):
    return _in_order((x[p] if keep(p[-1] - p[-2]) else 0 for p in np.ndindex(x.shape)), x.shape, x.dtype)


# A triangle keeps the elements on one side of a diagonal.


def tril(x, /, diagonal=0):
    return _triangle(x, lambda above: above <= diagonal)


def triu(x, /, diagonal=0):
    return _triangle(x, lambda above: above >= diagonal)


# ## Activations
#
# These belong to chapter 03. Python's floats reach further than `float32`, but not to the end: the sigmoid of $-1000$
# still needs care.


def relu(x, /):
    return _each(lambda v: v if v > 0 or math.isnan(v) else 0, x)


def leaky_relu(x, /, negative_slope=0.01):
    return _each(lambda v: v if v > 0 else negative_slope * v, x, dtype=_float(x))


def elu(x, /, alpha=1.0):
    return _each(lambda v: v if v > 0 else alpha * math.expm1(v), x, dtype=_float(x))


def sigmoid(x, /):
    return _each(lambda v: 1 / (1 + _exp(-v)), x, dtype=_float(x))


def softplus(x, /, beta=1.0):
    return _each(
        lambda v: (builtins.max(beta * v, 0) + math.log1p(math.exp(-builtins.abs(beta * v)))) / beta, x, dtype=_float(x)
    )


# `gelu` is $x\,\Phi(x)$, or GPT-2's approximation of it; `gelu_slope` is its derivative.


def gelu(x, /, approximate="none"):
    return _each(lambda v: v * _gate(v, approximate)[0], x, dtype=_float(x))


def gelu_slope(x, /, approximate="none"):
    return _each(lambda v: _gate(v, approximate)[0] + v * _gate(v, approximate)[1], x, dtype=_float(x))


def _gate(v, approximate):
    """The factor of v in gelu, and that factor's slope."""
    if approximate == "none":
        return 0.5 * (1 + math.erf(v / math.sqrt(2))), math.exp(-0.5 * v * v) / math.sqrt(2 * math.pi)
    if approximate == "tanh":
        t = math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))
        return 0.5 * (1 + t), 0.5 * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * v * v)
    raise ValueError(f'approximate must be "none" or "tanh", not {approximate!r}')
