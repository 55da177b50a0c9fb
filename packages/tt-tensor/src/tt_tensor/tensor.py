# # Tensor
#
# At the end of this chapter there is a type, `Tensor`, that carries numbers together with their shape, computes with
# whole arrays at once, and sends every single operation through one small door where we can watch it.

# ## The hurt
#
# Chapter 01 left two numbers behind: how many billions of multiplications and additions a second this machine does in a
# product of arrays, and how few of them are left when the matrices are lists of lists. Here is the slow one again, as a
# function that we can ask more questions about.

from __future__ import annotations

import builtins
import inspect
import itertools
import math
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
from numpy import ndarray

from tt_tensor.methods import LongTail, Reducing
from tt_tensor.setup import generator, measure


def matmul_lists(a, b):
    """The product of two matrices given as lists of rows."""
    return [[builtins.sum(x * y for x, y in zip(row, column)) for column in zip(*b)] for row in a]


# Three nested loops in one line. It is correct, and slow, and it takes room:


def show_hurt():
    size = 96
    a = generator().standard_normal((size, size))
    rows = a.tolist()
    slow, fast = measure(matmul_lists, rows, rows).seconds, measure(np.matmul, a, a).seconds
    print(f"{size} x {size} product, lists of lists: {2 * size**3 / slow / 1e9:8.3f} GFLOP/s")
    print(
        f"{size} x {size} product, one array:      {2 * size**3 / fast / 1e9:8.3f} GFLOP/s   ({slow / fast:,.0f} "
        "times faster)"
    )
    print(f"bytes for one number in a list: {rows[0][0].__sizeof__()} and a pointer of 8; in an array: {a.itemsize}")


# Speed is half of it. The other half is that a list of lists does not know what it is: nothing stops a row from being
# one short, `rows + rows` means something else than it says, and there is no way to ask for a shape. We want arrays
# that carry shape and operations.
#
# We do not write the arithmetic ourselves. NumPy's `ndarray` is a well-made block of memory with compiled loops over
# it, and we build on that. What we write is what NumPy does not have: the things that a deep-learning framework needs
# *around* an array.

# ## The smallest thing that could work
#
# Put the array into an object and teach the object to add.


class SmallestTensor:
    def __init__(self, values):
        self.values = np.array(values, dtype=np.float32)

    def __add__(self, other):
        return SmallestTensor(self.values + other.values)


# That runs: `SmallestTensor([1, 2]) + SmallestTensor([3, 4])` holds `[4, 6]`. It disappoints as soon as we ask a
# question about the computation rather than about the numbers. How many multiplications did that model take? How many
# bytes did it move? Could this one operation run on faster code, for an afternoon? Later we shall ask the question that
# this book exists for: what is the derivative of all that? In `SmallestTensor` the answer to each of them is an edit to
# each of its methods. With two hundred methods nobody does that.

# ## The idea: one door
#
# Every operation goes through one function call, in which an *interpreter* decides what an operation means. The
# ordinary interpreter computes. Another one may count first and then let the ordinary one compute; one of chapter 07
# will write down what happened.
#
# ```mermaid
# flowchart LR
#     A["x * y"] --> P["Primitive mul"]
#     P --> I{"interpreter"}
#     I -->|always| E["evaluate: run the kernel"]
#     I -.->|chapter 02| M["meter: count, then evaluate"]
#     I -.->|chapter 07| R["record: evaluate, then remember"]
#     E --> K["kernel: np.multiply"]
# ```
#
# Three words, then. A **primitive** is an operation with a name. Its **kernel** is the function that does the
# arithmetic, on NumPy arrays, knowing nothing of tensors. An **interpreter** is what stands between the two. The design
# is that of JAX's tracers; *autodidax* tells it at length.

# ## Storage
#
# First the block of memory. `Storage` turns whatever the caller has into an array of numbers, and copies it: a tensor
# that shared memory with the list or array it was built from would change behind our back.
#
# Which type of number? Deep learning runs on 32-bit floats, so Python's numbers and lists become `float32`. A NumPy
# array already has a type that somebody chose, so it keeps it.

float16, float32, float64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
uint8, int32, int64, bool_ = np.dtype(np.uint8), np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.bool_)


# Three things can go wrong, and each gets a sentence that says so: rows of different lengths, data that are not
# numbers, and numbers of a kind that deep learning has no use for. NumPy would accept the second as an array of
# strings, or of Python objects, on which additions are many times slower and other operations fail later, far from the
# cause.


def as_array(data, dtype=None) -> np.ndarray:  # exercise
    """A fresh array with the values of `data`: numbers and (nested) lists become float32, arrays and tensors keep
    their dtype.

    Raises ValueError for rows of unequal length and TypeError for anything that is not a number.
    """
    if isinstance(data, Storage):
        data = data._array
    if dtype is None and not isinstance(data, (np.ndarray, np.generic)):
        dtype = _dtype_of_list(data)
    try:
        array = np.array(data)
    except (ValueError, TypeError) as error:
        raise type(error)(
            "cannot make a tensor of this data: rows must have equal lengths and hold numbers"
        ) from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"a tensor holds real numbers; this data has NumPy dtype {array.dtype}")
    return array if dtype is None else array.astype(dtype, copy=False)


# A list may hold tensors or arrays (`Tensor([x.mean(), y.mean()])`); then the wish of whoever made the first of them
# counts.


def _dtype_of_list(data):
    first = _first(data)
    return first.dtype if isinstance(first, (np.ndarray, np.generic, Storage)) else float32


def _first(data):
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return data


# The object itself has four fields, and names them in `__slots__`: without a dictionary per object it takes a third
# less memory, which is nothing for one tensor, and a good deal for a record of twenty thousand of them, such as chapter
# 07 will keep.
#
# Three of the four stay empty for a while. `requires_grad`, `grad` and `_hooks` belong to gradients, and nothing in
# this chapter knows what a gradient is. They are here because a tensor is where people look for them.


class Storage:
    """An array of numbers, and the room for what later chapters hang on it."""

    __slots__ = ("_array", "requires_grad", "grad", "_hooks", "__weakref__")
    _array: np.ndarray
    requires_grad: bool
    grad: Tensor | None

    shape = property(lambda self: self._array.shape, doc="The size of each dimension, a tuple of int.")
    ndim = property(lambda self: self._array.ndim, doc="The number of dimensions.")
    dtype = property(lambda self: self._array.dtype, doc="The type of the numbers, a NumPy dtype.")
    nbytes = property(lambda self: self._array.nbytes, doc="The bytes of memory that the numbers take.")

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor of shape () is a single number and has no len()")
        return self.shape[0]

    def numel(self) -> int:
        """How many numbers there are."""
        return self._array.size

    def dim(self) -> int:
        """The number of dimensions, `ndim` under PyTorch's other name."""
        return self._array.ndim

    def size(self, dim: int | None = None):
        """The shape, or the length of one dimension."""
        return self.shape if dim is None else self.shape[dim]

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array: a view that cannot be written to. Copy it, or use `writable`, to change
        numbers."""
        view = self._array.view()
        view.flags.writeable = False
        return view


# `numpy()` hands out a view that cannot be written to. A framework that promises right gradients has to know when
# numbers change, and it cannot know what happens to an array that it gave away. Whoever really wants to write asks for
# `writable()`, further down.

# ## Shape, strides and why a transpose is free
#
# Memory is one long row of bytes. An array adds two short lists of integers to it: the *shape*, and the *strides*,
# which say how many bytes to walk for a step along each dimension. The element at index $(i, j)$ sits at byte
#
# $$ \text{start} + i \cdot \text{stride}_0 + j \cdot \text{stride}_1 . $$
#
# Transposing swaps two strides and touches no number. Taking every second column doubles a stride. Repeating a row a
# thousand times sets a stride to zero. All of these are *views*: new shape and strides over old memory.
#
# The two lists explain what is cheap and what is not. Whatever can be said with another shape and other strides costs
# nothing, however large the tensor. Whatever needs the numbers in another order *in memory* costs a trip through all of
# them.


def show_strides():
    x = zeros(3, 4)
    views = {
        "x": x, "x.T": x.T, "x[:, ::2]": x[:, ::2], "x[0].expand(1000, 4)": x[0].expand(1000, 4),
        "x.reshape(2, 6)": x.reshape(2, 6), "x.T.reshape(2, 6)": x.T.reshape(2, 6),
    }
    print(f"{'':22s} {'shape':>12s} {'strides':>10s}  shares memory")
    for name, view in views.items():
        print(f"{name:22s} {view.shape!s:>12s} {view.stride()!s:>10s}  {np.shares_memory(x.numpy(), view.numpy())}")


# The last row is the exception: the transpose cannot be read in rows of six without collecting the numbers anew, so
# that is a copy. (PyTorch counts strides in elements, and so does our `stride()`; NumPy counts them in bytes.)

# ## Primitives and the door
#
# Here is the door. A primitive that is called looks up who interprets operations at the moment and hands over three
# things: itself, the tensors, and all other arguments by name.
#
# Which arguments are tensors and which are not? The kernel's signature says it. What stands before the `/` is a tensor;
# what comes after is a parameter: `def sum(x, /, dim=None, keepdim=False)`.

PRIMITIVES: dict[str, Primitive] = {}


# There is a second use for that little `/`. A call `sum(x, 1)` passes the number 1 as if it were a tensor; the
# signature says that it is not, and which parameter it must be. So both spellings work, PyTorch's `sum(x, 1)` and the
# plainer `sum(x, dim=1)`, and the kernels need not know.


class Primitive:
    """An operation on tensors: a name, a kernel on arrays that can be exchanged, and an estimate of its cost."""

    def __init__(self, kernel: Callable, cost: Callable | None = None):
        self.name, self.kernel, self.cost = kernel.__name__, kernel, cost
        self.signature = inspect.signature(kernel)
        self.__name__, self.__doc__, self.__module__ = kernel.__name__, kernel.__doc__, kernel.__module__
        PRIMITIVES[self.name] = self

    def __call__(self, *tensors, **params) -> Any:
        for tensor in tensors:
            if not isinstance(tensor, Storage):
                return _call_with_others(self, tensors, params)
        return (_here.top or _installed[-1])(self, tensors, params)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


# `_here.top` is the interpreter that the current thread has put in the way for a while, `_installed` what was put there
# for good. The list starts with the ordinary interpreter, which takes the arrays out, runs the kernel and wraps what
# comes back.
#
# So there is a part for each thread and a part that is shared. That looks like a detail. It is not: a data loader of
# chapter 10 may work in other threads, and it would be a surprise if a meter that was started in one thread counted
# what happens in another.


class _Here(threading.local):
    top: Callable | None = None


_here = _Here()


# One line of `evaluate` is the whole meaning of an operation: take the arrays, run the kernel, wrap the result. The
# rest is for failures. A kernel does not know that it is part of a tensor library, so its complaints are about arrays
# and axes; `_explained`, near the end of the chapter, turns them into something one can act on.


def evaluate(primitive: Primitive, tensors: tuple, params: dict) -> Tensor:  # exercise
    """The ordinary interpreter: the kernel's result on the tensors' arrays, as a new tensor."""
    try:
        return _wrap(primitive.kernel(*map(_array_of, tensors), **params))
    except (ValueError, TypeError, IndexError) as error:
        raise _explained(error, primitive, tensors, params) from None


_installed: list[Callable] = [evaluate]
_array_of = attrgetter("_array")
_new = object.__new__


# Wrapping may be done some hundred thousand times a second, so it is written plainly: make an empty object, fill the
# four fields. It does not go through `Tensor(...)`, which would look at the data, and copy them.


def _wrap(array) -> Tensor:
    out = _new(Tensor)
    out._array = array if type(array) is ndarray else np.asarray(array)
    out.requires_grad, out.grad, out._hooks = False, None, None
    return out


# Anybody can stand in the door. `interpreting(fn)` puts `fn` in front of the others on this thread, for the length of a
# `with` block; `install(fn)` does it for good and for all threads. Each `fn` receives the next interpreter and decides
# whether, and with what, to call it.


@contextmanager
def interpreting(fn: Callable) -> Iterator[None]:
    """Within the block, every primitive called on this thread goes to `fn(next, primitive, tensors, params) ->
    Tensor`."""
    before = _here.top
    _here.top = partial(fn, before or _whatever_is_installed)
    try:
        yield
    finally:
        _here.top = before


# Between the two there is one difference that matters. What is put there by `interpreting` is gone at the end of the
# block, also when the block ends in an error. What is installed stays until the process ends. In this book exactly one
# thing is ever installed.


def install(fn: Callable) -> None:
    """From now on, every primitive goes to `fn(next, primitive, tensors, params) -> Tensor`, on every thread."""
    _installed.append(partial(fn, _installed[-1]))


def listening() -> bool:
    """Is somebody `interpreting` on this thread at the moment?"""
    return _here.top is not None


def _whatever_is_installed(primitive, tensors, params):
    return _installed[-1](primitive, tensors, params)


# The decorator `primitive` makes all of this available to a kernel. The first ones are short.
#
# For most operations the number of multiply-adds is the number of results, and nothing needs to be said. For a few it
# is not, and those say it: `cost` is a function that sees the result and the arguments, and returns a count.


def primitive(kernel: Callable | None = None, *, cost: Callable | None = None) -> Any:
    """Turn a kernel on arrays into an operation on tensors. `cost(out, *arrays, **params)` counts its multiply-adds."""
    return partial(primitive, cost=cost) if kernel is None else Primitive(kernel, cost)


@primitive
def neg(x, /):
    """-x, element by element."""
    return np.negative(x)


@primitive
def exp(x, /):
    """e to the power of each element; inf where that is too large for the dtype."""
    with quiet():
        return np.exp(_floating(x))


@primitive
def log(x, /):
    """Natural logarithm of each element; nan below zero, -inf at zero."""
    with quiet():
        return np.log(_floating(x))


# NumPy would take `log` of integers in 64 bits; `_floating` keeps to one rule, that nothing becomes `float64` unless
# something was. And NumPy prints a warning where a result is infinite or undefined; as in PyTorch, `inf` and `nan` are
# answers here, and the functions that give them for ordinary numbers keep `quiet`. (Sums and products do not: asking
# NumPy to be quiet takes longer than adding four numbers, and that ordinary numbers overflow in a sum is worth a
# warning.)


def _floating(x):
    return x if x.dtype.kind == "f" else x.astype(float32)


def quiet():
    """A context in which NumPy does not warn of inf and nan."""
    return np.errstate(divide="ignore", invalid="ignore", over="ignore")


# So a new operation is a function on arrays with one line above it. Let us make sure that somebody who stands in the
# door sees each of them, in order.


def check_the_door():
    seen = []

    def spy(next, primitive, tensors, params):
        seen.append(primitive.name)
        return next(primitive, tensors, params)

    with interpreting(spy):
        exp(-Tensor([1.0]))
    assert seen == ["neg", "exp"]


# ## Two operands, one type
#
# Most operations take two operands, and people will write `2 * x`, `x + array` and `counts / weights`. Two rules
# suffice. A Python number takes the type of the tensor that it meets, so that `x * 0.5` stays `float32`. And integers
# that meet floats become those floats; NumPy would go to `float64` here, PyTorch does not, and we follow PyTorch.


_NO_PARAMS: dict = {}


class Elementwise(Primitive):
    """A primitive of two operands that broadcast against each other; they are brought to one dtype first."""

    def __call__(self, x, y) -> Any:
        try:
            same = x._array.dtype is y._array.dtype
        except AttributeError:
            if isinstance(x, (np.ndarray, np.generic)) and not isinstance(y, Storage):
                return self.kernel(x, y)
            return self(*_all_tensors((x, y)))
        if not same:
            x, y = _one_dtype(x, y)
        return (_here.top or _installed[-1])(self, (x, y), _NO_PARAMS)


# What about two kinds of floats? There NumPy's own rule, the wider one wins, is PyTorch's as well. And truth values may
# be multiplied with anything; that is what masks are for.


def _one_dtype(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.dtype.kind in "iu" and y.dtype.kind == "f":
        return x.to(y.dtype), y
    if y.dtype.kind in "iu" and x.dtype.kind == "f":
        return x, y.to(x.dtype)
    return x, y


# What is left for the slow path of the door: something is not a tensor. Extra positional arguments take the names that
# the kernel's signature gives them (`sum(x, 1)`), numbers become tensors, and a call with NumPy arrays alone goes
# straight to the kernel, arrays in and array out. Chapter 07 lives on that last clause.


def _call_with_others(primitive, args, params):
    if all(isinstance(a, (np.ndarray, np.generic)) for a in args):
        return primitive.kernel(*args, **params)
    tensors, params = _names_given(primitive, args, params)
    if not any(isinstance(t, Storage) for t in tensors) and isinstance(tensors[0], (np.ndarray, np.generic)):
        return primitive.kernel(*tensors, **params)
    return (_here.top or _installed[-1])(primitive, _all_tensors(tensors), params)


# `bind` is Python's own way to match arguments with a signature. We call it for its errors only: too many arguments, or
# a name that does not exist, are reported in the words that Python's users know.


def _names_given(primitive, args, params):
    primitive.signature.bind(*args, **params)  # a TypeError for too many arguments or unknown names
    kinds = primitive.signature.parameters.items()
    if any(p.kind is p.VAR_POSITIONAL for _, p in kinds):
        return args, params
    names = [name for name, p in kinds if p.kind is not p.POSITIONAL_ONLY]
    count = len(kinds) - len(names)
    return args[:count], dict(zip(names, args[count:]), **params)


def _all_tensors(values: tuple) -> tuple:
    like = next((v for v in values if isinstance(v, Storage)), None)
    return tuple(v if isinstance(v, Storage) else _as_tensor(v, like) for v in values)


# A Python `float` that meets an integer tensor is the one case that needs thought. `tensor([1, 2]) * 0.5` cannot stay
# an integer, or the answer would be `[0, 1]`. It becomes `float32`.


def _as_tensor(value, like=None) -> Tensor:
    if like is None or not isinstance(value, (bool, int, float)):
        return Tensor(value)
    dtype = like.dtype
    if isinstance(value, float) and dtype.kind != "f":
        dtype = float32
    elif dtype == bool_ and not isinstance(value, bool):
        dtype = int64
    return _wrap(np.array(value, dtype))



# ## Arithmetic
#
# Now the kernels can be one line each. Division of integers gives floats, as everywhere in Python.


def elementwise(kernel: Callable) -> Any:
    """Turn a kernel of two arrays that broadcast into an operation on tensors."""
    return Elementwise(kernel)


@elementwise
def add(x, y, /):
    """x + y, element by element, with broadcasting."""
    return x + y


@elementwise
def sub(x, y, /):
    """x - y, element by element, with broadcasting."""
    return x - y


# Addition, subtraction, multiplication: nothing to explain, and that is the point of having kernels. All that makes
# them *operations* is above: the types, the door, the errors.


@elementwise
def mul(x, y, /):  # exercise
    """x * y, element by element, with broadcasting."""
    return x * y


@elementwise
def div(x, y, /):  # exercise
    """x / y, element by element, with broadcasting. Integers become floats; division by zero gives inf or nan."""
    with quiet():
        return _floating(x) / _floating(y)


# Powers come in two kinds. In $x^2$ the exponent is part of the operation, in $x^y$ it is an operand. NumPy squares by
# one multiplication, where it would call the C library's `pow` for an array of twos, so we keep the kinds apart.


@primitive
def power(x, /, exponent):
    """x to the power of a number."""
    if exponent < 0 or isinstance(exponent, float):
        x = _floating(x)
    elif x.dtype.kind == "b":
        x = x.astype(int64)
    with quiet():
        return x**exponent


@elementwise
def power_of(x, y, /):
    """x to the power of y, element by element, with broadcasting."""
    with quiet():
        return np.power(x, y)


# The public `pow` looks at what it was given and chooses. Both kinds of power go through the door under their own
# names, which is how the chapter on gradients will tell them apart.


def pow(x, exponent) -> Any:
    """x to the power of a number or of a tensor."""
    return power(x, exponent=exponent) if isinstance(exponent, (int, float)) else power_of(x, exponent)


# Comparisons answer element by element as well. `t == t` has as many answers as `t` has elements; a single `True` would
# be of no use as a mask.


def _comparison(name: str, ufunc: np.ufunc) -> Any:
    def kernel(x, y, /):
        return ufunc(x, y)

    kernel.__name__, kernel.__doc__ = name, f"{ufunc.__name__.replace('_', ' ')}, element by element; a tensor of bool."
    return Elementwise(kernel)


eq, ne = _comparison("eq", np.equal), _comparison("ne", np.not_equal)
lt, le = _comparison("lt", np.less), _comparison("le", np.less_equal)
gt, ge = _comparison("gt", np.greater), _comparison("ge", np.greater_equal)

# With the functions there, the operators are a list. They live in a class of their own, a layer on top of `Storage`;
# the finished `Tensor` will be made of such layers. (`more_ops` is an appendix of this chapter, with the operations
# that we need less often.) Look at `__rsub__`: Python calls it for `1 - t`, with the tensor first, so the operands go
# in swapped.
#
# That goes for all names with an `r`: `__radd__` and its kin are asked when the left operand is not ours. The names
# with an `i`, for `+=`, change numbers in place and are a story of their own, further down. The methods stand one to a
# line because there is nothing to say about each of them.


class Arithmetic(Storage):
    """The operators."""

    __slots__ = ()
    __array_ufunc__ = None  # so that `array * tensor` comes to us instead of to NumPy

    def __add__(self, other): return add(self, other)
    def __radd__(self, other): return add(other, self)
    def __sub__(self, other): return sub(self, other)
    def __rsub__(self, other): return sub(other, self)  # exercise
    def __mul__(self, other): return mul(self, other)
    def __rmul__(self, other): return mul(other, self)
    def __truediv__(self, other): return div(self, other)
    def __rtruediv__(self, other): return div(other, self)
    def __floordiv__(self, other): return more_ops.floor_divide(self, other)
    def __rfloordiv__(self, other): return more_ops.floor_divide(other, self)
    def __mod__(self, other): return more_ops.remainder(self, other)
    def __rmod__(self, other): return more_ops.remainder(other, self)
    def __pow__(self, exponent): return pow(self, exponent)
    def __rpow__(self, base): return power_of(base, self)
    def __matmul__(self, other): return matmul(self, other)
    def __rmatmul__(self, other): return matmul(other, self)
    def __neg__(self): return neg(self)
    def __abs__(self): return more_ops.abs(self)


# Comparisons, and the three signs that NumPy and PyTorch use for *not*, *and* and *or* of truth values. Python insists
# on one point: a class that says what equality means must say again how it is hashed. Tensors are hashed by who they
# are, not by what they hold, since what they hold may change.


class Comparing(Storage):
    """The operators that answer with truth values."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __invert__(self): return more_ops.logical_not(self)
    def __and__(self, other): return more_ops.logical_and(self, other)
    def __rand__(self, other): return more_ops.logical_and(other, self)
    def __or__(self, other): return more_ops.logical_or(self, other)
    def __ror__(self, other): return more_ops.logical_or(other, self)
    def __lt__(self, other): return lt(self, other)
    def __le__(self, other): return le(self, other)
    def __gt__(self, other): return gt(self, other)
    def __ge__(self, other): return ge(self, other)
    def __eq__(self, other): return eq(self, other) if _comparable(other) else NotImplemented  # exercise
    def __ne__(self, other): return ne(self, other) if _comparable(other) else NotImplemented


def _comparable(value):
    return isinstance(value, (bool, int, float, list, tuple, np.ndarray, np.generic, Storage))


# ## Broadcasting
#
# Operands need not have equal shapes. Line the shapes up at their right ends; where one of them has size 1, or nothing,
# it is repeated:
#
# $$ (3, 1, 4) \;\text{and}\; (2, 1) \;\longrightarrow\; (3, 2, 4). $$
#
# Nothing is copied for that: it is the stride of zero again. NumPy does it for us in the kernels; here is the rule in
# our own words, because it is the rule that learners get wrong most often.
#
# A row of column means can thus be subtracted from every row of a matrix, `x - x.mean(0)`, and a column of row means
# from every column if it is kept a column: shape (3, 1), not (3,). For a square matrix both are legal, and only one of
# them is what was meant. That is the most common silent mistake in array programming, and the reason why `keepdim`
# exists.


def broadcast_shape(*shapes: tuple[int, ...]) -> tuple[int, ...]:  # exercise
    """The shape to which all `shapes` broadcast. Raises ValueError when two sizes in one column differ and neither is
    1."""
    columns = itertools.zip_longest(*(reversed(s) for s in shapes), fillvalue=1)
    result = []
    for back, sizes in enumerate(columns, start=1):
        size = next((s for s in sizes if s != 1), 1)
        if any(s not in (1, size) for s in sizes):
            listed = " and ".join(map(str, shapes))
            raise ValueError(
                f"shapes {listed} do not broadcast: dimension -{back} has sizes {sizes}; they must be equal or 1"
            )
        result.append(size)
    return tuple(reversed(result))


# The witness is NumPy, on every pair of shapes of up to three dimensions of size 1, 2 and 3, where it must agree on the
# result and on the refusals.


def check_broadcast_shape():
    shapes = [s for n in range(4) for s in itertools.product((1, 2, 3), repeat=n)]
    for a, b in itertools.product(shapes, shapes):
        try:
            expected = np.broadcast_shapes(a, b)
        except ValueError:
            expected = None
        try:
            assert broadcast_shape(a, b) == expected
        except ValueError:
            assert expected is None


# ## Matrix products
#
# `matmul` does nearly all of the work in a network. An entry of the product is a row of $X$ times a column of $Y$, so
# for $(m, k)$ by $(k, n)$ it costs $m \cdot k \cdot n$ multiply-adds, and that is what its `cost` says. More than two
# dimensions are stacks of matrices, whose leading dimensions broadcast; a vector is a row on the left and a column on
# the right.
#
# The shapes must agree in the middle: `(2, 3) @ (3, 4)` gives `(2, 4)`, and what disappears is the size along which one
# sums. It is not the product element by element, which is `*`. For square matrices both are legal, again, and give
# quite different numbers.
#
# A stack of matrices times *one* matrix is a case of its own. NumPy makes a product for each matrix of the stack; but
# all their rows meet the same columns, so they may as well be the rows of one long matrix. One large product takes half
# the time of many small ones.


@primitive(cost=lambda out, x, y: out.size * x.shape[-1])
def matmul(x, y, /):  # exercise
    """The matrix product x @ y of vectors, matrices or stacks of them: (..., m, k) @ (..., k, n) -> (..., m, n)."""
    if x.dtype is not y.dtype:
        x, y = _alike(x, y)
    if x.ndim > 2 and y.ndim == 2:
        return (as_rows(x) @ y).reshape(*x.shape[:-1], y.shape[1])
    return x @ y


def as_rows(x):
    """x (..., n), an array or a tensor, as a matrix of all its rows, (rows, n)."""
    return x if x.ndim == 2 else x.reshape((math.prod(x.shape[:-1]), x.shape[-1]))


# NumPy would answer in 64 bits where integers meet 32-bit floats; here they become those floats first, as with `+`.


def _alike(*arrays):
    floats = [a.dtype for a in arrays if a.dtype.kind == "f"]
    return [a.astype(np.result_type(*floats)) if floats and a.dtype.kind != "f" else a for a in arrays]


# ## The same numbers in another shape
#
# Slices apart, three primitives give all the views: `reshape` reads the numbers in the same order (row by row, the last
# index running fastest), `permute` reorders the dimensions, `expand` repeats what has size 1. `view`, `flatten`,
# `squeeze`, `unsqueeze`, `transpose` and `.T` are short words for them.
#
# None of the three copies numbers if it can be avoided. `reshape` cannot always avoid it: the rows of a transposed
# matrix do not lie one behind the other in memory, so to read them as one long row they have to be collected first.
# `contiguous()` makes that copy explicitly.


@primitive
def reshape(x, /, shape):  # exercise
    """The same numbers, row-major, in another shape; one size may be -1. A view where the memory allows it."""
    return np.reshape(x, shape)


@primitive
def permute(x, /, dims):
    """A view with the dimensions in the order `dims`."""
    return np.transpose(x, dims)


@primitive
def expand(x, /, shape):
    """A view in which dimensions of size 1 are repeated to `shape`; -1 keeps a size."""
    sizes = (1,) * (len(shape) - x.ndim) + x.shape
    return np.broadcast_to(x, tuple(n if want == -1 else want for want, n in zip(shape, sizes)))


class Reshaping(Storage):
    """The same numbers in the same order, in another shape."""

    __slots__ = ()

    def reshape(self, *shape):
        """The same numbers in another shape; one size may be -1."""
        return reshape(self, shape=_unpacked(shape))

    def view(self, *shape):
        """`reshape` under another name. (PyTorch's refuses where it would have to copy; this one copies.)"""
        return reshape(self, shape=_unpacked(shape))

    def flatten(self, start_dim: int = 0, end_dim: int = -1):
        """The dimensions from `start_dim` to `end_dim` joined into one."""
        if not self.shape:
            return reshape(self, shape=(1,))
        start, end = _dim(start_dim, self.ndim), _dim(end_dim, self.ndim)
        return reshape(
            self, shape=(*self.shape[:start], math.prod(self.shape[start : end + 1]), *self.shape[end + 1 :])
        )

    def squeeze(self, dim: int | None = None):
        """Without the dimensions of size 1, or without `dim` if that has size 1."""
        drop = range(self.ndim) if dim is None else [_dim(dim, self.ndim)]
        return reshape(self, shape=tuple(n for i, n in enumerate(self.shape) if n != 1 or i not in drop))

    def unsqueeze(self, dim: int):
        """With a new dimension of size 1 at `dim`."""
        at = _dim(dim, self.ndim + 1)
        return reshape(self, shape=(*self.shape[:at], 1, *self.shape[at:]))


# Reordering is where learners go wrong. `reshape` to the shape of the transpose is not the transpose: it keeps the
# numbers in reading order and only breaks the lines elsewhere. And for a stack of matrices a transpose should swap the
# *last two* dimensions, and leave the stack alone; reversing all of them, as NumPy's `.T` does, mixes the matrices with
# the numbers in them. So ours swaps two, the last two unless told otherwise, and `.T` insists on a matrix.


class Reordering(Storage):
    """The same numbers, visited in another order."""

    __slots__ = ()

    def permute(self, *dims):
        """The dimensions in another order: x.permute(2, 0, 1)."""
        return permute(self, dims=tuple(_dim(d, self.ndim) for d in _unpacked(dims)))

    def transpose(self, dim0: int = -2, dim1: int = -1):  # exercise
        """Two dimensions swapped, the last two unless said otherwise."""
        order = list(range(self.ndim))
        dim0, dim1 = _dim(dim0, self.ndim), _dim(dim1, self.ndim)
        order[dim0], order[dim1] = dim1, dim0
        return permute(self, dims=tuple(order))

    def expand(self, *shape):
        """A view in which dimensions of size 1 are repeated; -1 keeps a size."""
        return expand(self, shape=_unpacked(shape))

    def stride(self) -> tuple[int, ...]:
        """How many elements to walk in memory for a step along each dimension."""
        return tuple(s // self._array.itemsize for s in self._array.strides)

    def is_contiguous(self) -> bool:
        """Do the numbers lie in memory in the order in which they are read?"""
        return self._array.flags.c_contiguous

    def contiguous(self):
        """The same numbers, copied into reading order if they are not in it."""
        return self if self.is_contiguous() else more_ops.copied(self)

    T = property(
        lambda self: self.transpose() if self.ndim == 2 else _matrix_only(self), doc="The transpose of a matrix."
    )
    mT = property(lambda self: self.transpose(-2, -1), doc="The last two dimensions swapped.")


def check_reshape_is_no_transpose():
    x = Tensor([[1, 2, 3], [4, 5, 6]])
    assert x.reshape(3, 2).tolist() == [[1, 2], [3, 4], [5, 6]]
    assert x.T.tolist() == [[1, 4], [2, 5], [3, 6]]


# Sizes come as `x.reshape(2, 3)` or `x.reshape((2, 3))`, and dimensions may count from the end. An error about a
# dimension should say which ones there are.


def _unpacked(sizes: tuple) -> tuple:
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes


def _dim(dim: int, ndim: int) -> int:
    count = max(ndim, 1)  # a single number is treated as if it had one dimension, as in PyTorch
    if not isinstance(dim, (int, np.integer)):
        raise TypeError(f"a dimension is an integer, not {dim!r}")
    if not -count <= dim < count:
        raise IndexError(
            f"dimension {dim} does not exist: the tensor has {ndim} dimensions, so {-count} to {count - 1} are possible"
        )
    return dim % count


def _matrix_only(x: Storage):
    if x.ndim < 2:
        return x
    raise ValueError(
        f".T is for matrices; this tensor has shape {x.shape}. Use .mT to swap the last two dimensions, or permute()."
    )


# ## Sums
#
# A reduction takes a dimension away, or keeps it with size 1 if told to, so that the result still broadcasts against
# what it came from: `x - x.mean(1, keepdim=True)` centres rows, and without `keepdim` it would centre something else or
# fail. `sum` is a primitive; mean, variance and standard deviation follow from it.
#
# What is summed, and in what type? Integers and truth values are added as 64-bit integers, so that counting the `True`s
# in a mask cannot overflow. Floats stay what they are. Where they lie side by side in memory, NumPy adds them pairwise,
# in a tree, rather than one after the other; the error then grows with the logarithm of their number instead of the
# number itself.


@primitive(cost=lambda out, x, **params: x.size)
def sum(x, /, dim=None, keepdim=False):  # exercise
    """The sum over all elements, or over one dimension or several (`dim`), which stay with size 1 if `keepdim`."""
    return np.add.reduce(x, axis=_axes(dim, x.ndim), keepdims=keepdim, dtype=int64 if x.dtype.kind in "iub" else None)


def _axes(dim, ndim):
    if dim is None:
        return None
    return _dim(dim, ndim) if isinstance(dim, int) else tuple(_dim(d, ndim) for d in dim)


def mean(x, dim=None, keepdim=False):
    """The mean over all elements or over `dim`. Integers are averaged as float32."""
    total = sum(x, dim=dim, keepdim=keepdim)
    return total / (_size_of(x) / max(_size_of(total), 1))


# The variance has two conventions. Divided by $n$, it describes the numbers that are there. Divided by $n - 1$, it
# estimates that of the population they were drawn from (Bessel's correction). PyTorch's default is the second, NumPy's
# the first, and more than one reimplementation of batch normalisation has failed on that difference.


def var(x, dim=None, correction: float = 1, keepdim=False):
    """The variance; as in PyTorch divided by n - 1 (`correction=0` for the variance of the data themselves)."""
    centred = x - mean(x, dim, keepdim=True)
    total = sum(centred * centred, dim=dim, keepdim=keepdim)
    return total / max(_size_of(x) / max(_size_of(total), 1) - correction, 0.0)


def std(x, dim=None, correction: float = 1, keepdim=False):
    """The standard deviation, the square root of `var`."""
    return power(var(x, dim, correction, keepdim), exponent=0.5)


def _size_of(x):
    return math.prod(x.shape)

# `mean`, `var` and `std` needed no kernel of their own. That is the rule of the house: an operation is a primitive, or
# it is made of primitives.

# ## Picking elements
#
# NumPy's indexing is the best there is, so we take all of it: numbers, slices, `...`, `None`, lists of positions,
# masks. `place` is its opposite: a tensor of zeros with the given numbers put where the index points, *added* where it
# points twice. Nobody needs it yet; the chapter on gradients will.


@primitive
def getitem(x, /, index):
    """The elements that `index` selects, as NumPy selects them; a view for slices."""
    return x[index]


# Adding is essential. If `x[[0, 0]]` has picked the first element twice, then whatever flows back to it flows back
# twice, and assigning would keep one of the two. `np.add.at` adds one after the other where plain `out[index] +=
# values` would not.


@primitive
def place(values, /, index, shape):
    """Zeros of `shape` with `values` added at `index`; positions that occur twice get both."""
    out = np.zeros(shape, values.dtype)
    if _is_basic(index):
        out[index] = values
    else:
        np.add.at(out, index, values)
    return out


# Slices and single numbers never point at an element twice. For them a plain assignment is right, and many times
# faster.


def _is_basic(index):
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        p is None or p is ... or (isinstance(p, (int, np.integer, slice)) and not isinstance(p, bool)) for p in parts
    )


# Tensors may be used as indices as well; here they become plain arrays. Floating-point numbers are refused. They are no
# positions, even if they happen to be whole.


def _plain_index(index):
    if isinstance(index, tuple):
        return tuple(_plain_index(i) for i in index)
    if isinstance(index, (Storage, list, np.ndarray)):
        index = np.array(index._array if isinstance(index, Storage) else index)  # a copy, which nobody else can change
        if index.dtype.kind == "f" and index.size:
            raise IndexError(
                f"a tensor of {index.dtype} cannot be an index: use integers (`.long()`) or a mask of bool"
            )
    return index.astype(np.intp) if isinstance(index, np.ndarray) and index.dtype.kind != "b" else index


# ## Writing, and the clock
#
# Reading is harmless. Writing is where frameworks go wrong: an optimizer changes a weight that somebody else still
# counts on, and nobody notices. We allow writing, and keep a record of it. There is one clock that ticks at every
# write; the memory block that was written to remembers the tick. Views share the memory, so they share the memory's
# tick: a write through `x[0]` is seen by `x.T` as well.

_clock = itertools.count(1)
_last_write: dict[int, tuple[weakref.ref, int]] = {}
_newest_write = [0]


# Why a clock, and not a counter in each tensor? Because of the views. A counter in `x` would not know that `x[0]` was
# written to, unless every view carried a pointer back to where it came from. NumPy has that pointer already (`.base`),
# and leads us from any view to the block of memory underneath; so that is where the tick is kept, and it is dropped
# when the block is freed.


def tick() -> int:
    """The next reading of the clock that all writes, and from chapter 07 all recorded operations, share."""
    return next(_clock)


def _memory_of(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def last_write(x: Storage | None = None) -> int:
    """When the memory of `x` (of any tensor, if None) was last written to, as a reading of the clock; 0 for never."""
    return _newest_write[0] if x is None else _last_write.get(id(_memory_of(x._array)), (None, 0))[1]


def _written(array: np.ndarray) -> None:
    memory = _memory_of(array)
    key, now = id(memory), tick()
    _last_write[key] = (weakref.ref(memory, lambda _: _last_write.pop(key, None)), now)
    _newest_write[0] = now


# The operators `x += 1`, `x -= 1` and so on change the memory of a tensor, as in PyTorch, and so does `x[i] = value`.
# The one restriction is written in terms of this chapter alone: if the result of `x + 1` came back as something that
# wants gradients, somebody is keeping a record of the computation, and then numbers must not change under it.
#
# What of a tensor that *is* the result of a recorded computation? `y += 1` then makes a new tensor and binds the name
# `y` to it, which is what `+=` means for Python's own numbers. The values come out as expected, nobody's record is
# damaged, and only somebody who holds the old `y` under another name sees a difference.


class Writing(Storage):
    """Changing numbers in place."""

    __slots__ = ()

    def writable(self) -> np.ndarray:
        """The array itself, to be changed in place. Calling this counts as a write."""
        _written(self._array)
        return self._array

    def copy_(self, source):
        """Overwrite the numbers with those of `source`, broadcast and converted."""
        values = source._array if isinstance(source, Storage) else as_array(source)
        if broadcast_shape(self.shape, values.shape) != self.shape:
            raise ValueError(f"values of shape {values.shape} do not fit into a tensor of shape {self.shape}")
        np.copyto(self.writable(), values, casting="unsafe")
        return self

    def fill_(self, value: float):
        """Overwrite every element with one number."""
        return self.copy_(np.asarray(value))

    def zero_(self):
        """Overwrite every element with 0."""
        return self.copy_(np.asarray(0))

    def __iadd__(self, other): return self._in_place(self + other)
    def __isub__(self, other): return self._in_place(self - other)
    def __imul__(self, other): return self._in_place(self * other)
    def __itruediv__(self, other): return self._in_place(self / other)

    def _in_place(self, result):
        if not result.requires_grad:
            return self.copy_(result)
        if self.is_leaf and self.requires_grad:
            raise RuntimeError(
                f"a tensor of shape {self.shape} that requires a gradient cannot be changed in place while "
                "operations are recorded; do it under no_grad()"
            )
        return result

    def __setitem__(self, index, value) -> None:
        if (self[index] + value).requires_grad:
            raise RuntimeError(
                "assigning into a tensor while operations are recorded would falsify gradients; use where(), or "
                "no_grad()"
            )
        try:
            self.writable()[_plain_index(index)] = value._array if isinstance(value, Storage) else value
        except ValueError as error:
            raise ValueError(f"cannot assign to a part of a tensor of shape {self.shape}: {error}") from None


# ## Out of the world of tensors
#
# One number, a list, or a truth value: each conversion makes sense for some shapes only, and says so for the others.
#
# `bool(x)` deserves the error most. `if x > 0:` on a tensor of three numbers is a question without an answer; NumPy
# refuses it, too.


class Converting(Storage):
    """To Python's numbers and lists, to NumPy, and to other dtypes."""

    __slots__ = ()

    def item(self):
        """The one number in here, as a Python number. Raises ValueError if there are more."""
        if self._array.size != 1:
            raise ValueError(
                f"item() needs a tensor of one element; this one has shape {self.shape}. Use tolist() or numpy()"
            )
        return self._array.item()

    def tolist(self):
        """The values as nested lists of Python numbers."""
        return self._array.tolist()

    def to(self, dtype):
        """The same numbers as another dtype; the tensor itself if it has that dtype already."""
        return self if self.dtype == np.dtype(dtype) else more_ops.cast(self, dtype=np.dtype(dtype))

    def __bool__(self):
        if self._array.size != 1:
            raise ValueError(f"is a tensor of shape {self.shape} true? Say which you mean: .any() or .all()")
        return self._array.item() != 0

    def __array__(self, dtype=None, copy=None):
        return np.array(self.numpy(), dtype=dtype) if copy or dtype else self.numpy()

    def __float__(self): return float(self.item())
    def __int__(self): return int(self.item())
    def __index__(self): return self._array.__index__()
    def float(self): return self.to(float32)
    def double(self): return self.to(float64)
    def half(self): return self.to(float16)
    def long(self): return self.to(int64)
    def int(self): return self.to(int32)
    def bool(self): return self.to(bool_)


# ## Room for gradients
#
# One layer is a promise. People who know PyTorch will type `x.backward()`, and they should find the method and be told
# what is missing. A tensor that was not recorded has no history, so all that these methods can do here is to say so, or
# to keep things for later.
#
# `data` is the one to remember from here. It is the same memory without any history, and what is done to it is done to
# the tensor: `weight.data -= 0.1 * step` changes a weight, and the clock ticks.


class Gradients(Storage):
    """What a tensor has to offer to the chapter on gradients."""

    __slots__ = ()
    is_leaf = True

    def requires_grad_(self, requires_grad: bool = True):
        """Ask for a gradient of this tensor. Raises RuntimeError for a dtype that has none."""
        if requires_grad and self._array.dtype.kind != "f":
            raise RuntimeError(f"only floating-point tensors can require gradients, not {self.dtype}; use .float()")
        self.requires_grad = requires_grad
        return self

    def backward(self, gradient=None, retain_graph=False, create_graph=False):
        """Needs a history, which this tensor does not have."""
        raise RuntimeError(
            "this tensor has no history to go back through: no input required a gradient, or it was computed "
            "under no_grad(), "
            "or operations are not being recorded (pip install tt-autograd, then import tt_autograd)"
        )

    def register_hook(self, hook: Callable) -> Callable:
        """Call `hook(gradient)` when the gradient for this tensor is known; what it returns, if not None, replaces
        the gradient.

        Returns a function that takes the hook off again."""
        self._hooks = [*(self._hooks or ()), hook]

        def remove():
            self._hooks = [h for h in self._hooks if h is not hook]

        return remove

    def retain_grad(self) -> None:
        """Keep `.grad` of this tensor even if it is the result of an operation. A tensor without history keeps it
        anyway."""

    def detach(self) -> Tensor:
        """The same memory without the history."""
        return _wrap(self._array)

    def clone(self) -> Tensor:
        """A copy, recorded like any operation."""
        return more_ops.copied(self)

    @property
    def data(self) -> Tensor:
        """The values without the history; assigning to it, or into it, changes them in place."""
        return self.detach()

    @data.setter
    def data(self, values) -> None:
        if (shape := np.shape(values)) != self.shape:
            raise ValueError(f"values of shape {shape} cannot replace those of a tensor of shape {self.shape}")
        Writing.copy_(self, values)


# ## The tensor
#
# What is missing is the long tail: some sixty more functions, from `abs` to `zeros_like`, most of a line or two; they
# live in the appendix `more_ops`, and their method forms, such as `x.abs()` and `x.sum(1)`, in the appendix `methods`,
# so that this chapter can be read in one sitting.
#
# The class that everybody uses is the sum of all layers, with a constructor and a way to print itself.


class Tensor(Arithmetic, Comparing, Reshaping, Reordering, Reducing, LongTail, Writing, Converting, Gradients):
    """An array of numbers with a shape and a dtype, and operations that anybody can watch.

    `data` is copied: Python numbers and lists become float32, NumPy arrays and tensors keep their dtype.
    Raises ValueError for ragged lists, TypeError for what is not a number.
    """

    __slots__ = ()

    def __init__(self, data, dtype=None, requires_grad=False):
        self._array = as_array(data, dtype)
        self.requires_grad, self.grad, self._hooks = False, None, None
        self.requires_grad_(requires_grad)

    def __getitem__(self, index):
        return getitem(self, index=_plain_index(index))

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        usual = self.dtype in (float32, int64, bool_)
        parts = [np.array2string(self._array, separator=", ", prefix="tensor(", precision=4)]
        parts += ([] if usual else [f"dtype={self.dtype}"]) + ([self._history()] if self.requires_grad else [])
        return f"tensor({', '.join(parts)})"

    def _history(self):
        return "requires_grad=True"


# `Tensor([1, 2])` is `float32`, as `torch.Tensor([1, 2])` is. For labels we want integers to stay integers; PyTorch's
# lower-case `tensor` looks at the data, and so does ours. `from_numpy` is the one that does not copy.


def tensor(data, dtype=None, requires_grad=False) -> Tensor:
    """A tensor whose dtype follows the data: float32 for floats, int64 for integers, bool for truth values."""
    if dtype is None and not isinstance(data, (np.ndarray, np.generic, Storage)):
        kind = np.asarray(data).dtype.kind if not isinstance(_first(data), Storage) else "f"
        dtype = {"f": float32, "i": int64, "b": bool_}.get(kind)
    return Tensor(data, dtype, requires_grad)


# Which of the three to use? `Tensor` for numbers in a program, `tensor` for labels and masks, `from_numpy` for large
# data that should not be there twice. The last one shares memory with the array, in both directions.


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor on the memory of `array`, which is not copied: later changes of one are seen by the other."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise TypeError(
            f"from_numpy needs a NumPy array of numbers, not {getattr(array, 'dtype', type(array).__name__)}"
        )
    return _wrap(array)


def check_copies():
    values = np.zeros(3)
    copied, shared = Tensor(values), from_numpy(values)
    values[0] = 7.0
    assert copied[0].item() == 0.0 and shared[0].item() == 7.0


# Tensors of one number, of a range, of chance. Chance comes from the one generator of chapter 01, so one seed fixes all
# of it.


def full(size, fill_value, dtype=float32, requires_grad=False) -> Tensor:
    """A tensor of shape `size` filled with one number."""
    return _wrap(np.full(size, fill_value, dtype)).requires_grad_(requires_grad)


def zeros(*size, dtype=float32, requires_grad=False) -> Tensor:
    """A tensor of zeros: zeros(2, 3)."""
    return full(_unpacked(size), 0, dtype, requires_grad)


def ones(*size, dtype=float32, requires_grad=False) -> Tensor:
    """A tensor of ones: ones(2, 3)."""
    return full(_unpacked(size), 1, dtype, requires_grad)


def arange(start, end=None, step=1, dtype=None) -> Tensor:
    """start, start + step, ... up to but without `end`; int64 for integers, float32 otherwise."""
    start, end = (0, start) if end is None else (start, end)
    whole = all(isinstance(v, (int, np.integer)) for v in (start, end, step))
    return _wrap(np.arange(start, end, step, dtype=dtype or (int64 if whole else float32)))


def rand(*size, dtype=float32, requires_grad=False) -> Tensor:
    """Uniform random numbers from [0, 1)."""
    return _wrap(generator().random(_unpacked(size), dtype=dtype)).requires_grad_(requires_grad)


def randn(*size, dtype=float32, requires_grad=False) -> Tensor:
    """Random numbers from the normal distribution with mean 0 and variance 1."""
    return _wrap(generator().standard_normal(_unpacked(size), dtype=dtype)).requires_grad_(requires_grad)


# ## A first client of the door: the meter
#
# Back to the questions that `SmallestTensor` could not answer. The meter stands in the door, lets the operation run,
# and counts what went through: the multiply-adds (for operations that do not declare a cost, one for each element of
# the result) and the bytes that were read and written. A view costs nothing, since it moves nothing.
#
# The rule for views is worth a look. How does one know, from outside, that an operation moved nothing? By asking
# whether the result lies in the same block of memory as one of the inputs, which is the question that the clock asks,
# too.


class Meter:
    """Multiply-adds, bytes and calls, in all and for each primitive."""

    def __init__(self):
        self.multiply_adds, self.bytes, self.calls = Counter(), Counter(), Counter()

    def __call__(self, next, primitive, tensors, params):  # exercise
        out = next(primitive, tensors, params)
        arrays = [t._array for t in tensors]
        self.calls[primitive.name] += 1
        if not any(_memory_of(out._array) is _memory_of(a) for a in arrays):
            cost = primitive.cost(out._array, *arrays, **params) if primitive.cost else out._array.size
            self.multiply_adds[primitive.name] += int(cost)
            self.bytes[primitive.name] += builtins.sum(a.nbytes for a in arrays) + out._array.nbytes
        return out

    def __repr__(self):
        rows = [f"{'primitive':14s} {'calls':>6s} {'multiply-adds':>15s} {'bytes':>13s}"]
        for name, calls in [*self.calls.most_common(), ("in all", self.calls.total())]:
            macs = self.multiply_adds[name] if name != "in all" else self.multiply_adds.total()
            moved = self.bytes[name] if name != "in all" else self.bytes.total()
            rows.append(f"{name:14s} {calls:6d} {macs:15,d} {moved:13,d}")
        return "\n".join(rows)


@contextmanager
def meter() -> Iterator[Meter]:
    """Count what the block computes: `with meter() as m: ...; print(m)`."""
    counts = Meter()
    with interpreting(counts):
        yield counts


# ## The cost: counted, and timed
#
# A layer of a network, $X W^T + b$, for 64 rows of 784 numbers and 256 outputs. The formula says $64 \cdot 784 \cdot
# 256 = 12{,}845{,}056$ multiply-adds for the product and $64 \cdot 256 = 16{,}384$ additions.


def show_meter():
    x, weight, bias = randn(64, 784), randn(256, 784), randn(256)
    with meter() as counted:
        x @ weight.T + bias
    print(counted)
    seconds = measure(lambda: x @ weight.T + bias).seconds
    print(
        f"\n{seconds * 1e6:.0f} us: {2 * counted.multiply_adds.total() / seconds / 1e9:.0f} GFLOP/s, "
        f"{counted.bytes.total() / seconds / 1e9:.1f} GB/s"
    )


# What does the door cost? For a large array nothing that can be measured. For a small one it is most of the time: a
# product of four numbers takes NumPy a quarter of a microsecond, and the way through `__mul__`, the primitive, the
# interpreter and a new tensor takes longer than that.
#
# That is the price of being able to look. Chapter 19 will ask where a training step spends its time, and the answer
# will come out of this door; by then the price will have been worth paying.


def show_door():
    print(f"{'elements':>10s} {'NumPy':>10s} {'Tensor':>10s}   us a product")
    for size in (4, 1_000, 100_000, 1_000_000):
        array = np.ones(size, np.float32)
        x = from_numpy(array)
        bare, ours = measure(lambda: array * array).seconds, measure(lambda: x * x).seconds
        print(f"{size:10,d} {bare * 1e6:10.2f} {ours * 1e6:10.2f}")


# ## Kernels can be exchanged
#
# A kernel is a slot. A *kernel set* is a plain module whose functions have the names and signatures of primitives, and
# `use_kernels` puts them into the slots for a while. The package brings a second set, `loops`: each operation as the
# loop over elements that defines it. It is of no use for work, and of much use as a witness: whatever the fast kernels
# do, they must agree with the definition.
#
# The signature has to be equal, down to the names. A kernel that takes `axis` where the primitive says `dim` would work
# for a while, and fail at the first call that passes the parameter by name.


@contextmanager
def use_kernels(module) -> Iterator[None]:
    """Within the block, primitives run the kernels of the same names in `module`.

    Raises ValueError for a function that names no primitive or has another signature than the primitive's own
    kernel."""
    functions = {
        n: f
        for n, f in vars(module).items()
        if inspect.isfunction(f) and f.__module__ == module.__name__ and n[0] != "_"
    }
    for name, function in functions.items():
        _check_fits(name, function, module.__name__)
    before = {name: PRIMITIVES[name].kernel for name in functions}
    try:
        for name, function in functions.items():
            PRIMITIVES[name].kernel = function
        yield
    finally:
        for name, kernel in before.items():
            PRIMITIVES[name].kernel = kernel


def _check_fits(name, function, source):
    if name not in PRIMITIVES:
        raise ValueError(
            f"{source}.{name} is no kernel: there is no primitive of that name. Start helpers with an underscore"
        )
    ours, theirs = str(PRIMITIVES[name].signature), str(inspect.signature(function))
    if ours != theirs:
        raise ValueError(f"{source}.{name}{theirs} does not fit: the primitive's kernel is {name}{ours}")


# What stands in `loops` for the product is what a textbook says: for each row, for each column, for each position in
# between, multiply and add. Each of those steps is work for Python's interpreter, and next to that the multiplication
# itself does not count.


def show_kernels():
    from tt_tensor import loops

    x = randn(48, 48)
    fast = measure(lambda: x @ x).seconds
    with use_kernels(loops):
        slow = measure(lambda: x @ x).seconds
    print(f"48 x 48 product: loops {slow * 1e3:.1f} ms, default {fast * 1e6:.1f} us, {slow / fast:,.0f} times faster")


def check_kernels_agree():
    from tt_tensor import loops

    x, y = randn(2, 3, 4), randn(4, 5)
    fast = (x @ y).sum(1)
    with use_kernels(loops):
        slow = (x @ y).sum(1)
    assert np.allclose(fast.numpy(), slow.numpy(), atol=1e-5)


# ## Errors you will meet
#
# A kernel that fails knows arrays and axes. What we want to read is the operation, the shapes that it was given, and
# what to do. There is only one door, so there is only one place where the translation has to be made.


def _explained(error, primitive, tensors, params):
    shapes = " and ".join(str(t.shape) for t in tensors)
    given = "".join(f", {k}={v!r}" for k, v in params.items())
    if isinstance(error, np.exceptions.AxisError):
        return IndexError(f"{primitive.name}: there is no dimension {error.axis} in a tensor of shape {shapes}")
    if isinstance(primitive, Elementwise):
        try:
            broadcast_shape(*(t.shape for t in tensors))
        except ValueError as reason:
            return ValueError(f"{primitive.name}: {reason}")
    if primitive.name == "matmul":
        return ValueError(
            f"matmul: shapes {shapes} do not fit: the last size of the first must equal the last but one of the second"
        )
    kind = next(k for k in (IndexError, ValueError, TypeError) if isinstance(error, k))
    return kind(f"{primitive.name} of shape {shapes}{given}: {error}")


def show_errors():
    x = zeros(3, 4)
    for attempt in (
        lambda: x + zeros(3), lambda: x @ x, lambda: x.sum(2), lambda: x.reshape(5, 2), lambda: x[7],
        lambda: Tensor([[1, 2], [3]]),
    ):
        try:
            attempt()
        except (ValueError, IndexError) as error:
            print(f"{type(error).__name__}: {error}")


# ## Exercises
#
# Every function marked as an exercise on this page can be written by you and put in place of ours. Three more, each
# with its check:
#
# 1. `outer`: the outer product of two vectors, by broadcasting alone.
# 2. `pairwise_distances`: the Euclidean distance of each row of `x` to each row of `y`, without a loop and without
#    subtracting every pair. Expand the square and you need one matrix product.
# 3. `operations_of`: the names of the primitives that a function calls, in order. Use the door.


def outer(x: Tensor, y: Tensor) -> Tensor:  # exercise
    """The outer product of vectors of n and m elements, of shape (n, m)."""
    return x.unsqueeze(1) * y.unsqueeze(0)


def check_outer():
    assert outer(Tensor([1, 2]), Tensor([3, 4, 5])).tolist() == [[3, 4, 5], [6, 8, 10]]


def pairwise_distances(x: Tensor, y: Tensor) -> Tensor:  # exercise
    """Distances between the rows of x (n, d) and of y (m, d), of shape (n, m)."""
    squares = (x * x).sum(1, keepdim=True) + (y * y).sum(1) - 2 * (x @ y.T)
    return squares.clip(min=0.0).sqrt()


def check_pairwise_distances():
    assert np.allclose(pairwise_distances(Tensor([[0, 0], [3, 4]]), Tensor([[0, 0], [0, 4]])).numpy(), [[0, 4], [5, 3]])


def operations_of(function: Callable, *args) -> list[str]:  # exercise
    """The names of the primitives that `function(*args)` calls, in the order of the calls."""
    names: list[str] = []

    def note(next, primitive, tensors, params):
        names.append(primitive.name)
        return next(primitive, tensors, params)

    with interpreting(note):
        function(*args)
    return names


def check_operations_of():
    assert operations_of(lambda x: (x * 2).sum(), ones(3)) == ["mul", "sum"]


# ## A road not taken
#
# PyTorch's own door is the dispatcher, in C++, with a table of kernels for each operation and each combination of
# device, layout and transformation; Python code can stand in it through `__torch_dispatch__`. tinygrad has no door at
# that place: an operation on its tensors computes nothing, but adds a node to a graph, which is compiled when somebody
# asks for numbers. That gives a compiler the whole program to look at, but nobody can set a breakpoint in the middle
# and see a value. We compute at once.

# ## What hurts next
#
# We can write down a linear map and apply it. A network is many layers, so let us stack two: $W_2 (W_1 x)$, with 64
# numbers in between.


def show_collapse():
    x, first, second = randn(1000, 8), randn(8, 64), randn(64, 3)
    two_layers = (x @ first) @ second
    one_layer = x @ (first @ second)
    difference = (two_layers - one_layer).abs().max().item() / two_layers.abs().max().item()
    print(f"two layers, {first.numel() + second.numel()} numbers; one layer, {(first @ second).numel()} numbers")
    print(f"largest difference between their answers: {difference:.1e} of the largest answer")


# It is rounding error: 704 numbers say no more than 24, and a thousand stacked linear maps would say no more either.
# Something has to stand between them that is not linear. That is chapter 03, *Activations*.

__all__ = [
    "Elementwise", "Meter", "PRIMITIVES", "Primitive", "Tensor", "add", "arange", "as_array", "as_rows", "bool_",
    "broadcast_shape", "div", "elementwise", "eq", "evaluate", "exp", "expand", "float16", "float32", "float64",
    "from_numpy", "full", "ge", "getitem", "gt", "install", "int32", "int64", "interpreting", "last_write", "le",
    "listening", "log", "lt", "matmul", "mean", "meter", "mul", "ne", "neg", "ones", "operations_of", "outer",
    "pairwise_distances", "permute", "place", "pow", "power", "power_of", "primitive", "quiet", "rand", "randn",
    "reshape", "std", "sub", "sum", "tensor", "tick", "uint8", "use_kernels", "var", "zeros",
]

from tt_tensor import more_ops  # noqa: E402  (the appendix is built on this chapter, and its words are methods here)
