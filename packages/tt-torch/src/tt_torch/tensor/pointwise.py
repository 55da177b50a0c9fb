"""The appendix `pointwise` on PyTorch: functions of torch, most of them under the same names."""

from __future__ import annotations

import torch

from .tensor import add, binary, div, mul, native, neg, sub, unary

expm1, log1p, log2, log10, tan = map(unary, (torch.expm1, torch.log1p, torch.log2, torch.log10, torch.tan))
asin, acos, atan, sinh, cosh = map(unary, (torch.asin, torch.acos, torch.atan, torch.sinh, torch.cosh))
asinh, acosh, atanh, trunc = map(unary, (torch.asinh, torch.acosh, torch.atanh, torch.trunc))
erfc, erfinv, lgamma, digamma = map(unary, (torch.erfc, torch.erfinv, torch.lgamma, torch.digamma))
signbit = unary(torch.signbit)
atan2, hypot, logaddexp, fmod = map(binary, (torch.atan2, torch.hypot, torch.logaddexp, torch.fmod))
bitwise_left_shift, bitwise_right_shift = map(binary, (torch.bitwise_left_shift, torch.bitwise_right_shift))
arcsin, arccos, arctan, arcsinh, arccosh, arctanh, arctan2 = asin, acos, atan, asinh, acosh, atanh, atan2


@native
def zeta_sum(x, /, s):
    return torch.special.zeta(torch.full_like(x, s), x)


absolute, addcdiv, addcmul, allclose = torch.absolute, torch.addcdiv, torch.addcmul, torch.allclose
copysign, deg2rad, equal, exp2 = torch.copysign, torch.deg2rad, torch.equal, torch.exp2
fix, frac = torch.fix, torch.frac
heaviside, isclose, isneginf, isposinf = torch.heaviside, torch.isclose, torch.isneginf, torch.isposinf
lerp, logical_xor, logit, nan_to_num = torch.lerp, torch.logical_xor, torch.logit, torch.nan_to_num
polygamma, rad2deg, reciprocal, rsqrt, rsub = torch.polygamma, torch.rad2deg, torch.reciprocal, torch.rsqrt, torch.rsub
sinc, square, xlogy, multiply, true_divide, negative = torch.sinc, torch.square, torch.xlogy, mul, div, neg


def add_scaled(input, other, alpha=1):
    """input + alpha * other."""
    return add(input, other if alpha == 1 else mul(other, alpha))


def subtract(input, other, alpha=1):
    """input - alpha * other."""
    return sub(input, other if alpha == 1 else mul(other, alpha))


def divide(input, other, rounding_mode=None):
    """input / other, perhaps rounded."""
    return div(input, other) if rounding_mode is None else torch.div(input, other, rounding_mode=rounding_mode)


__all__ = [
    "absolute", "acos", "acosh", "add_scaled", "addcdiv", "addcmul", "allclose", "arccos", "arccosh", "arcsin",
    "arcsinh", "arctan", "arctan2", "arctanh", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_left_shift",
    "bitwise_right_shift", "copysign", "cosh", "deg2rad", "digamma", "divide", "equal", "erfc", "erfinv", "exp2",
    "expm1", "fix", "fmod", "frac", "heaviside", "hypot", "isclose", "isneginf", "isposinf", "lerp", "lgamma",
    "log10", "log1p", "log2", "logaddexp", "logical_xor", "logit", "multiply", "nan_to_num", "negative", "polygamma",
    "rad2deg", "reciprocal", "rsqrt", "rsub", "signbit", "sinc", "sinh", "square", "subtract", "tan", "true_divide",
    "trunc", "xlogy", "zeta_sum",
]
