# # More functions of each element
#
# An appendix of chapter 02. A calculator has a row of keys that we have not needed so far: `log1p`, `atan2`, `sinh`.
# Here they are: first those that NumPy computes, then four that it does not have, and last those that we make of
# others.
#
# When does a function deserve a kernel of its own? When the composition would be wrong. For $x = 10^{-10}$, `float32`
# rounds $1 + x$ to 1, so `log(1 + x)` is 0, while $\log(1 + x)$ is nearly $x$.

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tt_tensor.arguments import as_floats, refuse_floats, refuse_truths, refuse_zeros
from tt_tensor.cody import ERF_SMALL, ERFC_FAR, ERFC_MIDDLE, quotient
from tt_tensor.more_ops import (
    abs, all, choose, erf, floor_divide, isinf, isnan, logical_not, pow, sqrt, where,
)
from tt_tensor.tensor import (
    Tensor, add, div, elementwise, float64, log, mul, neg, primitive, quiet, sub, tensor,
)

# ## What NumPy has
#
# These differ only in the function of NumPy that they call, so a helper makes their kernels. They return floats, and
# `nan` outside the domain of the function.


def _floats(name: str, ufunc: np.ufunc, says: str) -> Any:
    def kernel(x, /):
        with quiet():
            return ufunc(as_floats(x))

    kernel.__name__, kernel.__doc__ = name, says
    return primitive(kernel)


expm1 = _floats("expm1", np.expm1, "exp(x) - 1, exact for small x.")
log1p = _floats("log1p", np.log1p, "log(1 + x), exact for small x; nan below -1.")
log2 = _floats("log2", np.log2, "The logarithm with base 2.")
log10 = _floats("log10", np.log10, "The logarithm with base 10.")
tan = _floats("tan", np.tan, "The tangent of each element, in radians.")
asin = _floats("asin", np.arcsin, "The angle with that sine; nan outside [-1, 1].")
acos = _floats("acos", np.arccos, "The angle with that cosine; nan outside [-1, 1].")
atan = _floats("atan", np.arctan, "The angle with that tangent, between -pi/2 and pi/2.")
sinh = _floats("sinh", np.sinh, "The hyperbolic sine of each element.")
cosh = _floats("cosh", np.cosh, "The hyperbolic cosine of each element.")
asinh = _floats("asinh", np.arcsinh, "The inverse of sinh.")
acosh = _floats("acosh", np.arccosh, "The inverse of cosh; nan below 1.")
atanh = _floats("atanh", np.arctanh, "The inverse of tanh; nan outside [-1, 1].")

arcsin, arccos, arctan, arcsinh, arccosh, arctanh = asin, acos, atan, asinh, acosh, atanh


# Two functions of one operand keep the dtype, and some return truth values.


@primitive
def trunc(x, /):
    """Each element without its fraction, in the dtype of x."""
    return np.trunc(x) if x.dtype.kind == "f" else x.copy()


@primitive
def signbit(x, /):
    """Where the sign is negative, which it also is for -0.0."""
    return np.signbit(x) if x.dtype.kind == "f" else x < 0


fix = trunc

# ## Two operands


def _of_floats(name: str, ufunc: np.ufunc, says: str) -> Any:
    def kernel(x, y, /):
        with quiet():
            return ufunc(as_floats(x), as_floats(y))

    kernel.__name__, kernel.__doc__ = name, says
    return elementwise(kernel)


atan2 = _of_floats("atan2", np.arctan2, "The angle of the point (y, x), the first operand being y, from -pi to pi.")
hypot = _of_floats("hypot", np.hypot, "sqrt(x * x + y * y), without overflow in between.")
logaddexp = _of_floats("logaddexp", np.logaddexp, "log(exp(x) + exp(y)), without overflow.")
arctan2 = atan2


@elementwise
def fmod(x, y, /):
    """The remainder of a division that rounds towards zero; it has the sign of x. Raises ValueError where integers are
    divided by zero."""
    with quiet():
        return np.fmod(*refuse_truths(x, refuse_zeros(y)))


# We can also shift bits. Bits that are shifted out on one side are lost.


@elementwise
def bitwise_left_shift(x, y, /):
    """Integers with their bits moved y places to the left, x * 2**y. Raises TypeError for floats."""
    return np.left_shift(refuse_floats(x), refuse_floats(y))


@elementwise
def bitwise_right_shift(x, y, /):
    """Integers with their bits moved y places to the right, x // 2**y. Raises TypeError for floats."""
    return np.right_shift(refuse_floats(x), refuse_floats(y))


# ## What NumPy does not have
#
# `erfc(x)` is $1 - \operatorname{erf}(x)$. At $x = 10$ it is $2 \cdot 10^{-45}$, while 1 minus a number that rounds to
# 1 is 0. Cody's quotients compute it without that subtraction, for $x > 0$. In $e^{-x^2}$ the rounding error of $x^2$
# would be multiplied by $x^2$, so we take the square in two parts, of which the first is exact.


def _erfc_of_positive(x):
    head = np.trunc(x * 16) / 16
    decay = np.exp(-head * head) * np.exp(-(x - head) * (x + head))
    inverse = 1 / np.maximum(x * x, 1e-2)
    far = (1 / math.sqrt(math.pi) - inverse * quotient(ERFC_FAR, inverse)) / np.maximum(x, 0.1)
    return decay * np.where(x <= 4, quotient(ERFC_MIDDLE, np.minimum(x, 4.0)), far)


def _erfc(x):
    small = x * quotient(ERF_SMALL, np.minimum(x * x, 1.0))
    tail = _erfc_of_positive(np.minimum(np.abs(x), 28.0))  # erfc(28) is 0 in float64
    return np.where(np.abs(x) <= 0.46875, 1 - small, np.where(x < 0, 2 - tail, tail))


@primitive
def erfc(x, /):
    """1 - erf(x), to the precision of the dtype also where that is nearly 0."""
    x = as_floats(x)
    with quiet():
        return _erfc(np.clip(x.astype(float64), -30, 30)).astype(x.dtype)


# The inverse of `erf` turns uniform random numbers into normal ones. Winitzki's formula gives us two digits of it, and
# each of Newton's steps doubles their number. For $|x|$ near 1 the step must not subtract from 1, so it compares `erfc`
# with $1 - |x|$, which is exact there.


@primitive
def erfinv(x, /):
    """The number whose erf is x: -inf and inf for -1 and 1, nan outside."""
    x = as_floats(x)
    with quiet():
        size = np.abs(x.astype(float64))
        logs = np.log1p(-size * size)
        middle = 2 / (math.pi * 0.147) + logs / 2
        y = np.sqrt(np.sqrt(middle * middle - logs / 0.147) - middle)
        for _ in range(4):
            missing = np.where(size < 0.5, size - erf(y), _erfc(y) - (1 - size))
            step = missing * (math.sqrt(math.pi) / 2) * np.exp(y * y)
            y = y + step / (1 - y * step)
        y = np.where(size < 1, y, np.where(size == 1, np.inf, np.nan))
        return np.copysign(y, x).astype(x.dtype)


# (Divided by $1 - y \cdot \text{step}$, Newton's step becomes Halley's, which also uses the curvature.)
#
# The gamma function continues the factorial: $\Gamma(n) = (n - 1)!$. It overflows soon, so libraries offer its
# logarithm. For large $x$ we use Stirling's series. We move a small $x$ up by $\Gamma(x) = \Gamma(x + 8) / (x (x + 1)
# \cdots (x + 7))$, and we reflect a negative one: $\Gamma(x) \Gamma(1 - x) = \pi / \sin(\pi x)$.

_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)


def _log_gamma(x):
    """For positive x."""
    product = np.prod([np.where(x < 8, x + k, 1.0) for k in range(8)], axis=0)
    x = np.where(x < 8, x + 8, x)
    series = np.polyval(_STIRLING[::-1], 1 / (x * x)) / x
    return (x - 0.5) * np.log(x) - x + 0.5 * math.log(2 * math.pi) + series - np.log(product)


@primitive
def lgamma(x, /):
    """The logarithm of the absolute value of the gamma function; inf at 0, -1, -2, ..."""
    x = as_floats(x)
    with quiet():
        wide = x.astype(float64)
        reflected = np.where(wide < 0.5, 1 - wide, wide)
        result = np.where(np.isinf(reflected), np.inf, _log_gamma(np.minimum(reflected, 1e300)))
        sine = np.abs(np.sin(math.pi * (wide - np.round(wide))))
        result = np.where(wide < 0.5, math.log(math.pi) - np.log(sine) - result, result)
        return np.where(np.isinf(wide), np.inf, result).astype(x.dtype)


def check_lgamma():
    x = np.linspace(-5.3, 60, 500)
    assert np.abs(lgamma(x) - [math.lgamma(v) for v in x]).max() < 1e-12


# Its derivative is `digamma`, and the derivative of that is one of Hurwitz's zeta functions, $\zeta(s, x) = \sum_k (x +
# k)^{-s}$. The derivative of a zeta function is again one: $-s\,\zeta(s + 1, x)$. With these two, the table of
# derivatives is closed. We move both up as above and sum them by the series of Euler and Maclaurin.

_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)


@primitive
def digamma(x, /):
    """The derivative of lgamma: nan at -1, -2, ..., and minus infinity at 0."""
    x = as_floats(x)
    with quiet():
        wide = x.astype(float64)
        up = np.where(wide < 0.5, 1 - wide, wide)
        moved = np.sum([np.where(up < 8, 1 / (up + k), 0.0) for k in range(8)], axis=0)
        up = np.where(up < 8, up + 8, up)
        tail = np.polyval([b / (2 * k + 2) for k, b in enumerate(_BERNOULLI)][::-1], 1 / (up * up)) / (up * up)
        result = np.log(up) - 0.5 / up - tail - moved
        reflected = result - math.pi / np.tan(math.pi * (wide - np.round(wide)))
        pole = np.where(wide == 0, np.copysign(np.inf, -wide), np.nan)
        integer = (wide <= 0) & (wide == np.round(wide))
        return np.where(integer, pole, np.where(wide < 0.5, reflected, result)).astype(x.dtype)


# The zeta function adds its first terms one by one and the rest by the series.


@primitive
def zeta_sum(x, /, s):
    """The sum of (x + k) ** -s over k = 0, 1, 2, ..., for s > 1."""
    x = as_floats(x)
    with quiet():
        wide = x.astype(float64)
        terms = int(np.clip(np.ceil(10 - np.min(wide, initial=0, where=np.isfinite(wide))), 10, 1000))
        total = np.sum([(wide + k) ** -float(s) for k in range(terms)], axis=0)
        end = wide + terms
        total = total + end ** (1.0 - s) / (s - 1) + end ** -float(s) / 2
        factor = s / end ** (s + 1.0)
        for k, bernoulli in enumerate(_BERNOULLI):
            total = total + bernoulli / math.factorial(2 * k + 2) * factor
            factor = factor * (s + 2 * k + 1) * (s + 2 * k + 2) / (end * end)
        return total.astype(x.dtype)


def polygamma(n: int, input: Tensor) -> Tensor:
    """The n-th derivative of digamma. Raises ValueError for a negative n."""
    if n < 0:
        raise ValueError(f"polygamma: n = {n}, but digamma has only the derivatives 0, 1, 2, ...")
    return digamma(input) if n == 0 else zeta_sum(input, s=n + 1) * (-1.0) ** (n + 1) * math.factorial(n)


# ## Made of others
#
# The rest takes one line each. Their derivatives follow from those of their parts.


def square(input: Tensor) -> Tensor:
    """input * input."""
    return pow(input, 2)


def rsqrt(input: Tensor) -> Tensor:
    """1 / sqrt(input)."""
    return 1.0 / sqrt(input)


def reciprocal(input: Tensor) -> Tensor:
    """1 / input."""
    return 1.0 / input


def exp2(input: Tensor) -> Tensor:
    """2 to the power of each element."""
    return 2.0**input


def frac(input: Tensor) -> Tensor:
    """The part that `trunc` takes away; it has the sign of input."""
    return input - trunc(input)


def deg2rad(input: Tensor) -> Tensor:
    """Degrees as radians."""
    return input * (math.pi / 180)


def rad2deg(input: Tensor) -> Tensor:
    """Radians as degrees."""
    return input * (180 / math.pi)


# `copysign` and `xlogy` must look at special numbers: the sign of $-0.0$, and $0 \log 0$, which is 0 by convention.
# There we take the logarithm of 1 instead, because `choose` only picks values, and a `nan` would survive on the way
# back.


def copysign(input: Tensor, other) -> Tensor:
    """The size of input with the sign of other."""
    other = other if isinstance(other, Tensor) else tensor(other)
    whole = input.dtype.kind != "f"
    size = abs(input.float() if whole else input)
    return choose(signbit(other), -size, size)


def xlogy(input, other) -> Tensor:
    """input * log(other), and 0 where input is 0, unless other is nan."""
    input, other = (v if isinstance(v, Tensor) else tensor(v) for v in (input, other))
    nothing = (input == 0) & ((other <= 0) | (other == math.inf))
    return input * log(where(nothing, 1.0, other))


def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(p / (1 - p)), the inverse of the sigmoid; with eps, p is first kept between eps and 1 - eps."""
    p = input if eps is None else input.clip(min=float(eps), max=1 - eps)
    return log(p / (1 - p))


def sinc(input: Tensor) -> Tensor:
    """sin(pi x) / (pi x), which is 1 at 0."""
    angle = where(input == 0, 1.0, input) * math.pi
    return where(input == 0, 1.0, angle.sin() / angle)


def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 for negative elements, 1 for positive ones, `values` at zero."""
    return where(input == 0, values, (input > 0).to(values.dtype))


# ## Arithmetic with options
#
# `add` and its relatives are primitives and take two operands. In PyTorch you can also scale the second one, and round
# quotients.


def add_scaled(input: Tensor, other, alpha: float = 1) -> Tensor:
    """input + alpha * other; PyTorch's `add` with all its parameters."""
    return add(input, other if alpha == 1 else mul(other, alpha))


def subtract(input: Tensor, other, alpha: float = 1) -> Tensor:
    """input - alpha * other."""
    return sub(input, other if alpha == 1 else mul(other, alpha))


def rsub(input: Tensor, other, alpha: float = 1) -> Tensor:
    """other - alpha * input."""
    return sub(other, input if alpha == 1 else input * alpha)


def divide(input, other, rounding_mode: str | None = None) -> Tensor:
    """input / other; with rounding_mode "trunc" or "floor" rounded, in the dtype of the operands.

    Raises ValueError for another rounding_mode, and where integers are divided by zero."""
    if rounding_mode not in (None, "trunc", "floor"):
        raise ValueError(f'rounding_mode is None, "trunc" or "floor", not {rounding_mode!r}')
    if rounding_mode is None:
        return div(input, other)
    if rounding_mode == "floor":
        return floor_divide(input, other)
    divisible = sub(input, fmod(input, other))
    return trunc(div(input, other)) if divisible.dtype.kind == "f" else floor_divide(divisible, other)


true_divide, multiply, negative, absolute = div, mul, neg, abs

# `lerp` goes from one point towards another; moving averages of weights are kept in this form. The three `addc...` and
# `add...` functions are sums of products, as old BLAS interfaces have them.


def lerp(input: Tensor, end: Tensor, weight) -> Tensor:
    """input + weight * (end - input): input for weight 0, end for weight 1."""
    return input + (end - input) * weight


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, value: float = 1) -> Tensor:
    """input + value * tensor1 * tensor2."""
    return input + (tensor1 * tensor2 if value == 1 else tensor1 * tensor2 * value)


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, value: float = 1) -> Tensor:
    """input + value * tensor1 / tensor2."""
    return input + (tensor1 / tensor2 if value == 1 else tensor1 / tensor2 * value)


# ## Questions
#
# Are two tensors nearly equal, and is anything infinite? `isclose` measures the difference relative to the second
# operand. Infinities are close to themselves, and `nan` is close to nothing, unless you ask for that. `equal` and
# `allclose` return one of Python's truth values.


def logical_xor(input: Tensor, other: Tensor) -> Tensor:
    """Where exactly one of the two is true."""
    return logical_not(input) != logical_not(other)


def isposinf(input: Tensor) -> Tensor:
    """Where input is positive infinity."""
    return isinf(input) & (input > 0)


def isneginf(input: Tensor) -> Tensor:
    """Where input is negative infinity."""
    return isinf(input) & (input < 0)


# `isclose` compares element by element, `allclose` and `equal` compare two tensors as a whole.


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """Where |input - other| <= atol + rtol * |other|."""
    if input.dtype.kind != "f":
        input, other = input.long(), other.long()  # the difference of smaller integers could wrap
    same = input == other
    difference = abs(where(same, 0, input) - where(same, 0, other))  # without inf - inf
    close = same | ((difference <= atol + rtol * abs(other)) & logical_not(isinf(other)))
    return close | (isnan(input) & isnan(other)) if equal_nan else close


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements are close, in the sense of `isclose`."""
    return bool(all(isclose(input, other, rtol, atol, equal_nan)).item())


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether the two have one shape and the same elements."""
    return input.shape == other.shape and bool(all(input == other).item())


def nan_to_num(input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """nan as another number, and the infinities as the largest and smallest numbers of the dtype, or as those given."""
    if input.dtype.kind != "f":
        return input.clone()
    limits = np.finfo(input.dtype)
    posinf, neginf = (float(limits.max) if posinf is None else posinf), float(limits.min) if neginf is None else neginf
    finite = where(isposinf(input), posinf, where(isneginf(input), neginf, input))
    return where(isnan(input), nan, finite)


__all__ = [
    "absolute", "acos", "acosh", "add_scaled", "addcdiv", "addcmul", "allclose", "arccos", "arccosh", "arcsin",
    "arcsinh", "arctan", "arctan2", "arctanh", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_left_shift",
    "bitwise_right_shift", "copysign", "cosh", "deg2rad", "digamma", "divide", "equal", "erfc", "erfinv", "exp2",
    "expm1", "fix", "fmod", "frac", "heaviside", "hypot", "isclose", "isneginf", "isposinf", "lerp", "lgamma",
    "log10", "log1p", "log2", "logaddexp", "logical_xor", "logit", "multiply", "nan_to_num", "negative", "polygamma",
    "rad2deg", "reciprocal", "rsqrt", "rsub", "signbit", "sinc", "sinh", "square", "subtract", "tan", "true_divide",
    "trunc", "xlogy", "zeta_sum",
]
