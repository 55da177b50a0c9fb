"""Methods that change a tensor in place: `x.add(1)` is a new tensor, `x.add_(1)` changes `x`.

A support module of chapter 02. The underscore is the only difference, so most methods here have no code of their own:
each computes the plain operation and hands the result to `_in_place`, which decides (for results of recorded operations
together with chapter 07) whether a tensor may be changed. `x += 1` and `x[i] = 1` go there, too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, Self

import numpy as np

from tt_tensor.arguments import RANK, number_as, quiet
from tt_tensor.generators import drawn_from
from tt_tensor.indexing import is_basic, refuse_outside, split_index
from tt_tensor.methods import LongTail, Picking, Reducing
from tt_tensor.wording import in_our_words

if TYPE_CHECKING:
    import tt_tensor as tt
    from tt_tensor.tensor import Tensor
else:
    from tt_tensor.registry import tt

Parameters = ParamSpec("Parameters")


def in_place(method: Callable[Parameters, Tensor]) -> Callable[Parameters, Tensor]:
    """The method that changes a tensor to what `method` computes, and returns it."""

    @functools.wraps(method)
    def change(self, *arguments, **options):
        return self._in_place(method(self, *arguments, **options))

    change.__name__, change.__doc__ = f"{method.__name__}_", f"`{method.__name__}`, in place."
    return change


# The result needs an array of its own for a moment, which PyTorch saves. In exchange, an operation and its form in
# place cannot differ.


class InPlace:
    """Methods that change the tensor itself and return it."""

    __slots__ = ()

    add_, sub_, subtract_ = in_place(LongTail.add), in_place(LongTail.sub), in_place(LongTail.sub)
    mul_, multiply_ = in_place(LongTail.mul), in_place(LongTail.mul)
    div_, divide_, true_divide_ = in_place(LongTail.div), in_place(LongTail.div), in_place(LongTail.div)
    floor_divide_, remainder_ = in_place(LongTail.floor_divide), in_place(LongTail.remainder)
    fmod_, pow_, copysign_ = in_place(LongTail.fmod), in_place(LongTail.pow), in_place(LongTail.copysign)
    lerp_, addcmul_ = in_place(LongTail.lerp), in_place(LongTail.addcmul)
    addcdiv_, clamp_ = in_place(LongTail.addcdiv), in_place(LongTail.clip)
    clip_, clamp_min_ = in_place(LongTail.clip), in_place(LongTail.clamp_min)
    clamp_max_, masked_fill_ = in_place(LongTail.clamp_max), in_place(LongTail.masked_fill)
    exp_, exp2_, expm1_ = in_place(LongTail.exp), in_place(LongTail.exp2), in_place(LongTail.expm1)
    log_, log2_, log10_ = in_place(LongTail.log), in_place(LongTail.log2), in_place(LongTail.log10)
    log1p_, sqrt_, rsqrt_ = in_place(LongTail.log1p), in_place(LongTail.sqrt), in_place(LongTail.rsqrt)
    square_, reciprocal_ = in_place(LongTail.square), in_place(LongTail.reciprocal)
    abs_, neg_, sign_ = in_place(LongTail.abs), in_place(LongTail.neg), in_place(LongTail.sign)
    sin_, cos_ = in_place(LongTail.sin), in_place(LongTail.cos)
    tan_, tanh_ = in_place(LongTail.tan), in_place(LongTail.tanh)
    relu_, sigmoid_, erf_ = in_place(LongTail.relu), in_place(LongTail.sigmoid), in_place(LongTail.erf)
    floor_, ceil_, trunc_ = in_place(LongTail.floor), in_place(LongTail.ceil), in_place(LongTail.trunc)
    frac_, round_, nan_to_num_ = in_place(LongTail.frac), in_place(LongTail.round), in_place(LongTail.nan_to_num)

    # Angles and other functions with names of their own.

    asin_, acos_, atan_ = in_place(LongTail.asin), in_place(LongTail.acos), in_place(LongTail.atan)
    sinh_, cosh_, atan2_ = in_place(LongTail.sinh), in_place(LongTail.cosh), in_place(LongTail.atan2)
    asinh_, acosh_, atanh_ = in_place(LongTail.asinh), in_place(LongTail.acosh), in_place(LongTail.atanh)
    hypot_, sinc_, xlogy_ = in_place(LongTail.hypot), in_place(LongTail.sinc), in_place(LongTail.xlogy)
    deg2rad_, rad2deg_ = in_place(LongTail.deg2rad), in_place(LongTail.rad2deg)
    erfc_, erfinv_, logit_ = in_place(LongTail.erfc), in_place(LongTail.erfinv), in_place(LongTail.logit)
    lgamma_, digamma_ = in_place(LongTail.lgamma), in_place(LongTail.digamma)
    heaviside_, absolute_, negative_ = in_place(LongTail.heaviside), abs_, neg_
    arcsin_, arccos_, arctan_, arctan2_, fix_ = asin_, acos_, atan_, atan2_, trunc_
    arcsinh_, arccosh_, arctanh_ = asinh_, acosh_, atanh_

    # Comparisons, truth values and bits.

    eq_, ne_, lt_ = in_place(LongTail.eq), in_place(LongTail.ne), in_place(LongTail.lt)
    le_, gt_, ge_ = in_place(LongTail.le), in_place(LongTail.gt), in_place(LongTail.ge)
    greater_, greater_equal_, less_, less_equal_, not_equal_ = gt_, ge_, lt_, le_, ne_
    logical_not_, logical_and_ = in_place(LongTail.logical_not), in_place(LongTail.logical_and)
    logical_or_, logical_xor_ = in_place(LongTail.logical_or), in_place(LongTail.logical_xor)
    bitwise_not_, bitwise_and_ = in_place(LongTail.bitwise_not), in_place(LongTail.bitwise_and)
    bitwise_or_, bitwise_xor_ = in_place(LongTail.bitwise_or), in_place(LongTail.bitwise_xor)
    bitwise_left_shift_ = in_place(LongTail.bitwise_left_shift)
    bitwise_right_shift_ = in_place(LongTail.bitwise_right_shift)

    # Numbers put at positions, running results, products.

    scatter_, scatter_add_ = in_place(Picking.scatter), in_place(Picking.scatter_add)
    masked_scatter_ = in_place(Picking.masked_scatter)
    index_add_, index_copy_ = in_place(Picking.index_add), in_place(Picking.index_copy)
    index_fill_, tril_, triu_ = in_place(Picking.index_fill), in_place(Picking.tril), in_place(Picking.triu)
    cumsum_, cumprod_ = in_place(Reducing.cumsum), in_place(Reducing.cumprod)
    addmm_, baddbmm_ = in_place(Picking.addmm), in_place(Picking.baddbmm)
    addmv_, addr_ = in_place(Picking.addmv), in_place(Picking.addr)

    # The operators `x += 1` and so on change the memory of a tensor, as in PyTorch.

    def __iadd__(self, other) -> Self: return self._in_place(self + other)
    def __isub__(self, other) -> Self: return self._in_place(self - other)
    def __imul__(self, other) -> Self: return self._in_place(self * other)
    def __itruediv__(self, other) -> Self: return self._in_place(self / other)
    def __ifloordiv__(self, other) -> Self: return self._in_place(self // other)
    def __imod__(self, other) -> Self: return self._in_place(self % other)
    def __ipow__(self, other) -> Self: return self._in_place(self**other)
    def __iand__(self, other) -> Self: return self._in_place(self & other)
    def __ior__(self, other) -> Self: return self._in_place(self | other)
    def __ixor__(self, other) -> Self: return self._in_place(self ^ other)

    # The new values may have a history (chapter 07). Then the result itself knows whether this tensor can have it, too.
    # If not, chapter 02 explains why the values cannot be written here.

    def _in_place(self, result):
        if _given(result, "give_history_to", self):
            return self
        if RANK[result.dtype.kind] > RANK[self.dtype.kind]:
            raise TypeError(
                f"a tensor of {self.dtype} cannot hold the result, which is {result.dtype}: write x = x + y instead of "
                "x += y, or convert it first, by .float()"
            )
        self._refuse_if_recorded(result)
        return self.copy_(result)

    def copy_(self, source, non_blocking=False) -> Self:
        """Overwrite the numbers with those of `source`, broadcast and converted."""
        if getattr(source, "requires_grad", False) and not self.requires_grad:
            if _given(source.expand(self.shape).clone(), "give_history_to", self):
                return self
        return self._overwrite(source)

    def fill_(self, value) -> Self:
        """Overwrite every element with one number. Raises ValueError for a number that the dtype cannot hold."""
        return self.copy_(value if isinstance(value, InPlace) else tt.from_numpy(number_as(value, self.dtype)))

    def zero_(self) -> Self:
        """Overwrite every element with 0."""
        return self.fill_(0)

    def __setitem__(self, index, value) -> None:
        if getattr(value, "requires_grad", False) and not self.requires_grad:
            if _given(value.clone() if value.is_leaf else value, "assign_to", self, index):
                return
        value = tt.from_numpy(tt.as_array(value)) if isinstance(value, (list, tuple)) else value
        self._refuse_if_recorded(self, value)
        first, then = split_index(index, self.ndim)
        try:
            _assign(self.writable(), first, then, getattr(value, "_array", value))
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            kind = IndexError if isinstance(error, IndexError) else ValueError
            said = in_our_words(error)
            raise kind(f"cannot assign to a part of a tensor of shape {self.shape}: {said}") from None

    def fill_diagonal_(self, fill_value: float, wrap: bool = False) -> Tensor:
        """One number on the diagonal; with `wrap`, the diagonal of a tall matrix begins again at its end."""
        mask = np.zeros(self.shape, bool)
        np.fill_diagonal(mask, True, wrap)
        return self._in_place(self.masked_fill(tt.from_numpy(mask), fill_value))

    def index_put_(self, indices, values, accumulate: bool = False) -> Tensor:
        """self[indices] = values, or += with every position counted as often as it occurs."""
        if not accumulate:
            self[tuple(indices)] = values
            return self
        chosen = self[tuple(indices)]
        arrays = tuple(index.numpy() for index in indices)
        placed = tt.place((tt.zeros_like(chosen) + values).to(self.dtype), index=arrays, shape=self.shape)
        return self._in_place(self + placed)

    # ## Chance
    #
    # A tensor filled with random numbers, from a generator of its own if one is given. The numbers are NumPy's, not
    # PyTorch's.

    def normal_(self, mean: float = 0, std: float = 1, *, generator=None) -> Tensor:
        """Normal random numbers."""
        with drawn_from(generator):
            return self.copy_(mean + std * tt.randn(*self.shape, dtype=self.dtype))

    def log_normal_(self, mean: float = 1, std: float = 2, *, generator=None) -> Tensor:
        """Random numbers whose logarithms are normal with this mean and deviation."""
        return self.normal_(mean, std, generator=generator).copy_(tt.exp(self.detach()))

    def uniform_(self, low: float = 0, to: float = 1, *, generator=None) -> Tensor:
        """Random numbers from [low, to)."""
        with drawn_from(generator):
            return self.copy_(low + (to - low) * tt.rand(*self.shape, dtype=self.dtype))

    def exponential_(self, lambd: float = 1, *, generator=None) -> Tensor:
        """Waiting times for events that come `lambd` times a unit of time."""
        with drawn_from(generator):
            return self.copy_(tt.log(1 - tt.rand(*self.shape, dtype=self.dtype)) / -lambd)

    def bernoulli_(self, p=0.5, *, generator=None) -> Tensor:
        """1 with probability p, 0 otherwise; p is a number or a tensor."""
        with drawn_from(generator):
            return self.copy_(tt.rand(*self.shape) < p)

    # Without bounds, `random_` draws any integer that the dtype can hold exactly.

    def random_(self, low: int = 0, to: int | None = None, *, generator=None) -> Tensor:
        """Random integers from [low, to), from [0, low) if only one number is given."""
        if to is None:
            low, to = 0, low or _largest(self.dtype) + 1
        with drawn_from(generator):
            return self.copy_(tt.randint(low, to, self.shape))

    # ## Other shapes
    #
    # A tensor may also change its shape in place. Its numbers stay, but a derivative that was to be computed from the
    # old shape could not be: so the change counts as a write, and a recorded tensor refuses it.

    def t_(self) -> Tensor: return _reshaped(self, self.t())
    def transpose_(self, dim0: int, dim1: int) -> Tensor: return _reshaped(self, self.transpose(dim0, dim1))
    def squeeze_(self, dim=None) -> Tensor: return _reshaped(self, self.squeeze(dim))
    def unsqueeze_(self, dim: int) -> Tensor: return _reshaped(self, self.unsqueeze(dim))

    swapaxes_ = swapdims_ = transpose_

    def detach_(self) -> Tensor:
        """The tensor itself, without a history and without a wish for a gradient."""
        self.requires_grad_(False)
        return self


def _assign(target, first, then, values):
    if then is not None:
        target, first = target[first], then
    refuse_outside(first, target.shape)
    if not isinstance(values, np.ndarray):
        target[first] = values
        return
    if values.dtype != target.dtype:
        with quiet():
            values = values.astype(target.dtype)
    if is_basic(first):
        target, first = tt.getitem.default(target, first), ...  # so that (1,) fits into one element
    if not values.size:  # where NumPy is not strict
        chosen = target[first].shape
        if tt.broadcast_shape(chosen, values.shape) != chosen:
            raise ValueError(f"values of shape {values.shape} do not fit into shape {chosen}")
    target[first] = values


def _given(value, way: str, *arguments) -> bool:
    give = getattr(value, way, None)
    return give is not None and give(*arguments)


def _largest(dtype):
    if dtype.kind == "f":
        return 2 ** (np.finfo(dtype).nmant + 1)
    return 1 if dtype.kind == "b" else np.iinfo(dtype).max - 1


def _reshaped(x, view):
    if x.requires_grad:
        raise RuntimeError(
            f"a tensor of shape {x.shape} that requires a gradient keeps its shape; give the result a name, as in "
            "y = x.transpose(0, 1)"
        )
    x.writable()
    x._array = view._array
    return x


__all__ = ["InPlace", "in_place"]
