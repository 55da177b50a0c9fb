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
from operator import attrgetter, index
from typing import Any, Self

import numpy as np
from numpy import ndarray

from tt_tensor.conversions import Conversions
from tt_tensor.in_place import InPlace
from tt_tensor.methods import LongTail, Picking, Reducing, numpy_names, torch_names
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


# We write `as_array` in terms of three functions below it: `_dtype_of(data)` says which dtype the values get if none is
# given, `_without_tensors` replaces tensors in a list by their arrays, and `_converted` gives an array another dtype. A
# tensor keeps its array in `_array`.
#
# Three things can go wrong, and each gets a sentence that says so: rows of different lengths, data that are not
# numbers, and numbers of a kind that deep learning has no use for. NumPy would accept the second as an array of
# strings, or of Python objects, on which additions are many times slower and other operations fail later, far from the
# cause.


def as_array(data, dtype=None) -> np.ndarray:  # exercise
    """A fresh array, which shares no memory with `data`, with the values of `data`: numbers and (nested) lists become
    float32, arrays and tensors keep their dtype, unless a `dtype` is given.

    Raises ValueError for rows of unequal length, and TypeError for anything that is not a real number.
    """
    if isinstance(data, Storage):
        data = data._array
    if dtype is None:
        dtype = _dtype_of(data)
    try:
        array = np.array(_without_tensors(data))
    except (ValueError, TypeError) as error:
        raise type(error)(
            "cannot make a tensor of this data: rows must have equal lengths and hold numbers"
        ) from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"a tensor holds real numbers; this data has NumPy dtype {array.dtype}")
    return _converted(array, dtype)


# A list may hold tensors or arrays (`Tensor([x.mean(), y.mean()])`). Then the result takes the widest of their dtypes,
# and Python's numbers among them fit in: a `2.5` beside integers makes all of them floats.


def _dtype_of(data, plain=float32):
    if isinstance(data, (np.ndarray, np.generic)):
        return np.dtype(data.dtype.type)
    kinds = _kinds(data)
    if not any(isinstance(kind, np.dtype) for kind in kinds):
        return plain
    dtypes = [_OF_PYTHON.get(kind, kind) for kind in kinds if isinstance(kind, np.dtype) or kind in _OF_PYTHON]
    return _widest(dtypes)


def _widest(dtypes):
    return np.result_type(*([d for d in dtypes if d.kind == "f"] or dtypes))


def _kinds(data):
    if isinstance(data, (list, tuple)):
        kinds = set(map(type, data))
        return kinds if kinds <= _OF_PYTHON.keys() else set().union(*map(_kinds, data))
    return {data.dtype if isinstance(data, (np.ndarray, np.generic, Storage)) else type(data)}


def _without_tensors(data):
    if isinstance(data, (list, tuple)) and not set(map(type, data)) <= _OF_PYTHON.keys():
        return [_without_tensors(d) for d in data]
    return data._array if isinstance(data, Storage) else data


_OF_PYTHON = {float: float32, int: int64, bool: bool_}


# A number that the dtype cannot hold is refused here, instead of becoming another number.


def _converted(array, dtype):
    dtype = _as_dtype(dtype)
    if dtype.kind in "iu" and array.dtype.kind in "fiu" and array.size and array.dtype != dtype:
        low, high, limits = array.min(), array.max(), np.iinfo(dtype)
        if not (limits.min <= low and high <= limits.max):
            raise ValueError(f"numbers from {low} to {high} do not fit into {dtype} ({limits.min} to {limits.max})")
    return array.astype(dtype, copy=False)


def _as_dtype(dtype):
    if dtype is None:
        return float32
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"{dtype!r} is not a dtype; choose one such as float32, float64, int64 or bool_") from None
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise TypeError(f"a tensor holds real numbers of at most 64 bits, not {dtype}")
    return np.dtype(dtype.type)  # the one object that stands for it, in native byte order


# The object itself has four fields, and names them in `__slots__`: without a dictionary per object it takes a third
# less memory, which is nothing for one tensor, and a good deal for a record of twenty thousand of them, such as chapter
# 07 will keep.
#
# Three of the four stay empty for a while. `requires_grad`, `grad` and `_hooks` belong to gradients, and nothing in
# this chapter knows what a gradient is. They are here because a tensor is where people look for them. The second line
# of slots is room for the record that chapter 07 keeps of a result. A tensor must have this room from the start,
# because it may get a history later and has to remain the same object.


class Storage:
    """An array of numbers, and the room for what later chapters hang on it."""

    __slots__ = (
        "_array", "_requires_grad", "grad", "_hooks", "__weakref__",
        "_primitive", "_rules", "_inputs", "_params", "_made", "_watched",
    )
    _array: np.ndarray
    _requires_grad: bool
    grad: Tensor | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each dimension."""
        return self._array.shape

    ndim: int = property(lambda self: self._array.ndim, doc="The number of dimensions.")
    dtype: np.dtype = property(lambda self: self._array.dtype, doc="The type of the numbers, a NumPy dtype.")
    nbytes: int = property(lambda self: self._array.nbytes, doc="The bytes of memory that the numbers take.")
    requires_grad = property(
        attrgetter("_requires_grad"), lambda self, value: self.requires_grad_(value), doc="Is a gradient asked for?"
    )

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

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the length of one dimension."""
        return self.shape if dim is None else self.shape[dim]

    def numpy(self, *, force=False) -> np.ndarray:
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

SLOTS: dict[str, Slot] = {}
PRIMITIVES: dict[str, Primitive] = {}


# A function whose kernel can be exchanged is a *slot*. A primitive is a slot with a door in front. (Chapters 06 and 09
# have slots without a door: functions on arrays that no tensor passes through.)


class Slot:
    """A function on arrays with a name, whose kernel can be exchanged."""

    def __init__(self, kernel: Callable):
        self.name, self.kernel, self.default = kernel.__name__, kernel, kernel
        self.signature = inspect.signature(kernel)
        self.__name__, self.__doc__, self.__module__ = kernel.__name__, kernel.__doc__, kernel.__module__
        SLOTS[self.name] = self

    def __call__(self, *args, **params) -> Any:
        return self.kernel(*args, **params)

    def __repr__(self) -> str:
        return f"<slot {self.name}>"

    def __copy__(self, memo=None) -> Slot:  # what is known about it, as its derivative, is known about this object
        return self

    __deepcopy__ = __copy__


def slot(kernel: Callable) -> Any:
    """Turn a function on arrays into one whose kernel `use_kernels` can exchange."""
    return Slot(kernel)


# Who interprets operations at the moment? There is a part for each thread and a part that is shared. `_here.top` is the
# interpreter that the current thread has put in the way for a while, or None. `_installed` is the list of what was put
# there permanently, for all threads; its last entry is the one to ask, and its first one is the ordinary interpreter,
# `evaluate`.
#
# That the first part belongs to a thread looks like a detail. It is not: a data loader of chapter 10 may work in other
# threads, and it would be a surprise if a meter that was started in one thread counted what happens in another.


class _Here(threading.local):
    top: Callable | None = None
    listening = False


_here = _Here()
_installed: list[Callable] = []


# There is a second use for that little `/`. A call `sum(x, 1)` passes the number 1 as if it were a tensor; the
# signature says that it is not, and which parameter it must be. So both spellings work, PyTorch's `sum(x, 1)` and the
# plainer `sum(x, dim=1)`, and the kernels need not know.
#
# So `__call__` has three things to do, and you write it. First, people who come from NumPy say `axis` and `keepdims`;
# `numpy_names(params)` returns the parameters under our names. Second, if any of the arguments in front is not a
# `Storage`, which is the class below every tensor, then `_call_with_others`, further down, gets the primitive, these
# arguments and the parameters, and its result is ours. Third, and that is the usual case: hand the same three to the
# interpreter. This is the most frequent call of the whole framework, so it does nothing else.


class Primitive(Slot):
    """An operation on tensors: a name, a kernel on arrays that can be exchanged, and an estimate of its cost."""

    def __init__(self, kernel: Callable, cost: Callable | None = None):
        super().__init__(kernel)
        self.cost = cost
        PRIMITIVES[self.name] = self

    def __call__(self, *tensors, **params) -> Any:  # exercise
        """What the interpreter of the moment makes of `(self, tensors, params)`: that of this thread, `_here.top`, or
        if there is none, the last one installed. `tensors` is a tuple of tensors, and `params` a dict without NumPy's
        names. Arguments that are not tensors are left to `_call_with_others`."""
        if "axis" in params or "keepdims" in params:
            params = numpy_names(params)
        for tensor in tensors:
            if not isinstance(tensor, Storage):
                return _call_with_others(self, tensors, params)
        return (_here.top or _installed[-1])(self, tensors, params)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


# The ordinary interpreter is `evaluate`. One line of it is the whole meaning of an operation: take the arrays, run the
# kernel, wrap the result. `_array_of` takes the array out of a tensor, and `_wrap` makes a tensor of an array without a
# copy. The rest is for failures. A kernel does not know that it is part of a tensor library, so its complaints are
# about arrays and axes; `_explained`, near the end of the chapter, turns them into something one can act on.


def evaluate(primitive: Primitive, tensors: tuple, params: dict) -> Tensor:  # exercise
    """The ordinary interpreter: the kernel's result on the tensors' arrays, as a new tensor.

    A ValueError, TypeError or IndexError of the kernel is raised as what `_explained(error, primitive, tensors,
    params)` returns, any other (a KeyError, say) as it is."""
    try:
        return _wrap(primitive.kernel(*map(_array_of, tensors), **params))
    except (ValueError, TypeError, IndexError) as error:
        raise _explained(error, primitive, tensors, params) from None


_installed.append(evaluate)
_array_of = attrgetter("_array")
_new = object.__new__


# Wrapping may be done some hundred thousand times a second, so it is written plainly: make an empty object, fill the
# four fields. It does not go through `Tensor(...)`, which would look at the data, and copy them.


def _wrap(array) -> Tensor:
    out = _new(Tensor)
    out._array = array if type(array) is ndarray else _as_result(array)
    out._requires_grad, out.grad, out._hooks = False, None, None
    return out


# A sum over everything comes back as one of NumPy's numbers, and becomes an array again. `None` does not: a kernel
# that forgot its `return` should hear of it at once.


def _as_result(value):
    array = np.asarray(value)
    if value is None:
        raise TypeError("it returned None: is a `return` missing?")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"it returned {array.dtype} instead of an array of numbers")
    return array


# Any function can stand in the door. `interpreting(fn)` puts `fn` in front of the others on this thread, for the length
# of a `with` block; `install(fn)` does it permanently and for all threads. Each `fn` receives the next interpreter and
# decides whether, and with what, to call it.
#
# What goes into `_here.top` is called with a primitive, its tensors and its parameters, while `fn` wants the next
# interpreter before these three. `partial(fn, next)` is `fn` with its first argument filled in. And what is the next
# one? The interpreter that was in `_here.top` before; if there was none, `_whatever_is_installed`, which looks up the
# installed one at each call. At the end of the block, all is as it was before.
#
# One more value belongs to a thread. `_here.listening` says whether an interpreter wants to see everything, also the
# operations of a backward pass, which will be many (chapter 07). It becomes true in a block with `backward=True`; a
# block with `backward=False` leaves it as it is.


@contextmanager
def interpreting(fn: Callable, backward: bool = True) -> Iterator[None]:  # exercise
    """Within the block, every primitive called on this thread goes to `fn(next, primitive, tensors, params) ->
    Tensor`, where `next` is the interpreter that was there before. With backward=False, those of a backward pass
    (chapter 07) do not. Afterwards, also after an error, the door is as it was before the block."""
    before = _here.top, _here.listening
    _here.top, _here.listening = partial(fn, before[0] or _whatever_is_installed), backward or before[1]
    try:
        yield
    finally:
        _here.top, _here.listening = before


# Between `interpreting` and `install` there is one difference that matters. What is put there by `interpreting` is gone
# at the end of the block, also when the block ends in an error. What is installed stays until the process ends. In this
# book exactly one thing is ever installed.


def install(fn: Callable) -> None:
    """From now on, every primitive goes to `fn(next, primitive, tensors, params) -> Tensor`, on every thread."""
    _installed.append(partial(fn, _installed[-1]))


def listening() -> bool:
    """Is an interpreter on this thread at the moment that wants to see everything, the backward pass included?"""
    return _here.listening


def _whatever_is_installed(primitive, tensors, params):
    return _installed[-1](primitive, tensors, params)


# The decorator `primitive` makes all of this available to a kernel. The first ones are short.
#
# For most operations the number of multiply-adds is the number of results, and nothing needs to be said. For a few it
# is not, and those say it: `cost` is a function that sees the result and the arguments, and returns a count. Like the
# kernel, it gets arrays, not tensors: `x.size` of an array is a number.


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


# So a new operation is a function on arrays with one line above it. Let us make sure that a function that stands in the
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
            x, y = (x, y) if self.name != "div" else (_real(x), _real(y))
            return self(*_all_tensors((_factor(x, y), _factor(y, x)) if self.name in ("mul", "div") else (x, y)))
        if not same:
            if self.name in ("mul", "div") and _leaves_half(x, y):
                return self(x.to(float32), y.to(float32)).to(float16)
            whole = self.name == "div" and "f" not in (x.dtype.kind, y.dtype.kind)
            x, y = (x.float(), y.float()) if whole else _one_dtype(x, y)
        return (_here.top or _installed[-1])(self, (x, y), _NO_PARAMS)


# (An integer that is divided, or divides, becomes a float first: beside `uint8`, -1 would be 255.)


def _real(value):
    return float(value) if isinstance(value, (int, np.integer)) else value


# (And a factor may be too large for `float16`, which ends at 65,504, where the product is not: losses are multiplied by
# 65,536 before a backward pass in `float16`, so that small gradients do not become 0. Such products and quotients are
# computed in `float32`.)


def _factor(value, other):
    large = isinstance(value, (int, float, np.number)) and 65504 < abs(float(value)) < np.inf
    return _wrap(np.array(value, float32)) if large and getattr(other, "dtype", None) == float16 else value


def _leaves_half(x: Tensor, y: Tensor) -> bool:
    large = [not t.ndim and 65504 < abs(t.item()) < np.inf for t in (x, y)]
    return any(large) and common_dtype(x, y) == float16


# What about two kinds of floats? There NumPy's own rule, the wider one wins, is PyTorch's as well, with one exception:
# a tensor without dimensions, such as a mean, gives way like a Python number. Otherwise one statistic in `float64`
# would turn a whole network into `float64`. And truth values may be multiplied with anything; that is what masks are
# for.


def _one_dtype(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    dtype = common_dtype(x, y)
    return x.to(dtype), y.to(dtype)


_RANK = {"b": 0, "u": 1, "i": 1, "f": 2}


def common_dtype(*tensors) -> np.dtype:  # exercise
    """The dtype in which tensors meet: floats before integers before truth values (`_RANK`); within a kind the widest
    (`np.result_type` of the dtypes) of the tensors that have dimensions, or of all if none has."""
    kind = max(_RANK[t.dtype.kind] for t in tensors)
    alike = [t for t in tensors if _RANK[t.dtype.kind] == kind]
    return np.result_type(*(t.dtype for t in [t for t in alike if t.ndim] or alike))


# What is left for the slow path of the door: something is not a tensor. Extra positional arguments take the names that
# the kernel's signature gives them (`sum(x, 1)`), numbers become tensors, and a call with NumPy arrays alone goes
# straight to the kernel, arrays in and array out. Chapter 07 lives on that last clause.


def _call_with_others(primitive, args, params):
    if args and all(isinstance(a, (np.ndarray, np.generic)) for a in args):
        return primitive.kernel(*args, **params)
    tensors, params = _names_given(primitive, args, params)
    if not any(isinstance(t, Storage) for t in tensors) and isinstance(tensors[0], (np.ndarray, np.generic)):
        return primitive.kernel(*tensors, **params)
    return (_here.top or _installed[-1])(primitive, _all_tensors(tensors), params)


# `bind` is Python's own way to match arguments with a signature. We call it for its errors only: too many arguments, or
# a name that does not exist, are reported in the words that Python's users know.


def _names_given(primitive, args, params):
    try:
        primitive.signature.bind(*args, **params)
    except TypeError as error:
        raise TypeError(f"{primitive.name}{primitive.signature}: {error}") from None
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
    value = value.item() if isinstance(value, np.generic) else value
    if like is None or not isinstance(value, (bool, int, float)):
        return _wrap(as_array(value))
    dtype = like.dtype
    if isinstance(value, float) and dtype.kind != "f":
        dtype = float32
    elif dtype == bool_ and not isinstance(value, bool):
        dtype = int64
    with quiet():
        return _wrap(np.array(value).astype(dtype))


# ## Arithmetic
#
# Now the kernels can be one line each. Division of integers gives floats, as everywhere in Python: `_floating` makes
# `float32` of integers. A quotient by zero is `inf` or `nan`, so division keeps `quiet`.


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
def mul(x, y, /):
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
    if isinstance(exponent, bool) and x.dtype.kind == "b":
        return x | (not exponent)
    if isinstance(exponent, float):
        x, exponent = _floating(x), float(exponent)  # a number of NumPy's would widen x
    elif x.dtype.kind == "b":
        x = x.astype(int64)
    if x.dtype.kind != "f":
        exponent = _number(exponent, x.dtype)._array
        if exponent < 0:
            raise ValueError(f"integers have no power of {exponent}; use .float() first")
    with quiet():
        return x**exponent


@elementwise
def power_of(x, y, /):
    """x to the power of y, element by element, with broadcasting."""
    with quiet():
        return np.power(*_no_truths(x, y))


def _no_truths(*arrays):
    if all(a.dtype.kind == "b" for a in arrays):
        raise TypeError("truth values have no powers, quotients or remainders; use .int() or .float() first")
    return arrays


# The public `pow` looks at what it was given and chooses. Both kinds of power go through the door under their own
# names, which is how the chapter on gradients will tell them apart.


def pow(x, exponent) -> Any:
    """x to the power of a number or of a tensor."""
    exponent = exponent.item() if isinstance(exponent, np.number) else exponent
    return power(x, exponent=exponent) if isinstance(exponent, (int, float)) else power_of(x, exponent)


# Comparisons answer element by element as well. `t == t` has as many answers as `t` has elements; a single `True` would
# be of no use as a mask.


# Integers of two kinds are compared as they are. NumPy does that exactly, and 300 is then greater than every `uint8`.


class Comparison(Elementwise):
    """A primitive of two operands whose results are truth values."""

    def __call__(self, x, y) -> Any:
        whole = [_wrap(np.asarray(v)) if isinstance(v, (int, np.integer)) else v for v in (x, y)]
        if all(isinstance(v, Storage) and v.dtype.kind != "f" for v in whole):
            return (_here.top or _installed[-1])(self, tuple(whole), _NO_PARAMS)
        return super().__call__(x, y)


def _comparison(name: str, ufunc: np.ufunc) -> Any:
    def kernel(x, y, /):
        return ufunc(x, y)

    kernel.__name__, kernel.__doc__ = name, f"{ufunc.__name__.replace('_', ' ')}, element by element; a tensor of bool."
    return Comparison(kernel)


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

    def __add__(self, other) -> Tensor: return add(self, other)
    def __radd__(self, other) -> Tensor: return add(other, self)
    def __sub__(self, other) -> Tensor: return sub(self, other)
    def __rsub__(self, other) -> Tensor: return sub(other, self)
    def __mul__(self, other) -> Tensor: return mul(self, other)
    def __rmul__(self, other) -> Tensor: return mul(other, self)
    def __truediv__(self, other) -> Tensor: return div(self, other)
    def __rtruediv__(self, other) -> Tensor: return div(other, self)
    def __floordiv__(self, other) -> Tensor: return more_ops.floor_divide(self, other)
    def __rfloordiv__(self, other) -> Tensor: return more_ops.floor_divide(other, self)
    def __mod__(self, other) -> Tensor: return more_ops.remainder(self, other)
    def __rmod__(self, other) -> Tensor: return more_ops.remainder(other, self)
    def __pow__(self, exponent) -> Tensor: return pow(self, exponent)
    def __rpow__(self, base) -> Tensor: return power_of(base, self)
    def __matmul__(self, other) -> Tensor: return matmul(self, other)
    def __rmatmul__(self, other) -> Tensor: return matmul(other, self)
    def __neg__(self) -> Tensor: return neg(self)
    def __abs__(self) -> Tensor: return more_ops.abs(self)


# Comparisons, and the signs that NumPy and PyTorch use for *not*, *and*, *or* and *exclusive or* of truth values and of
# the bits of integers. Python insists on one point: a class that defines equality must also define how it is hashed.
# Tensors are hashed by who they are, not by what they hold, since what they hold may change.


class Comparing(Storage):
    """The operators that answer with truth values."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __invert__(self) -> Tensor: return more_ops.bitwise_not(self)
    def __and__(self, other) -> Tensor: return more_ops.bitwise_and(self, other)
    def __rand__(self, other) -> Tensor: return more_ops.bitwise_and(other, self)
    def __or__(self, other) -> Tensor: return more_ops.bitwise_or(self, other)
    def __ror__(self, other) -> Tensor: return more_ops.bitwise_or(other, self)
    def __xor__(self, other) -> Tensor: return more_ops.bitwise_xor(self, other)
    def __rxor__(self, other) -> Tensor: return more_ops.bitwise_xor(other, self)
    def __lt__(self, other) -> Tensor: return lt(self, other)
    def __le__(self, other) -> Tensor: return le(self, other)
    def __gt__(self, other) -> Tensor: return gt(self, other)
    def __ge__(self, other) -> Tensor: return ge(self, other)
    def __eq__(self, other) -> Tensor: return eq(self, other) if _comparable(other) else NotImplemented
    def __ne__(self, other) -> Tensor: return ne(self, other) if _comparable(other) else NotImplemented


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
# the time of many small ones. So for more than two dimensions on the left and two on the right, we make one matrix of
# all rows (`as_rows`, below), take one product, and give the result the shape of the stack again.


@primitive(cost=lambda out, x, y: out.size * x.shape[-1])
def matmul(x, y, /):  # exercise
    """The matrix product x @ y of vectors, matrices or stacks of them: (..., m, k) @ (..., k, n) -> (..., m, n).

    A stack times one matrix is one product of all its rows (`as_rows`). Raises TypeError for operands of different
    dtypes (`_alike`)."""
    x, y = _alike(x, y)
    if x.ndim > 2 and y.ndim == 2:
        return (as_rows(x) @ y).reshape(*x.shape[:-1], y.shape[1])
    return x @ y


def as_rows(x):
    """x (..., n), an array or a tensor, as a matrix of all its rows, (rows, n)."""
    return x if x.ndim == 2 else x.reshape((math.prod(x.shape[:-1]), x.shape[-1]))


# With `+`, operands of two dtypes meet in one of them. In a product that would be dangerous: a batch in `float64`,
# which is what NumPy makes of nearly everything, would double the work of a whole network, and nothing would say so. So
# we refuse, as PyTorch does, and name the remedy.


def _alike(*arrays):
    if len({a.dtype for a in arrays}) > 1:
        listed = " and ".join(str(a.dtype) for a in arrays)
        raise TypeError(f"the operands have dtypes {listed}; give them one, for example by x.float() or x.to(w.dtype)")
    return arrays


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
def reshape(x, /, shape):
    """The same numbers, row-major, in another shape; one size may be -1. A view where the memory allows it."""
    return np.reshape(x, shape)


@primitive
def permute(x, /, dims):
    """A view with the dimensions in the order `dims`."""
    return np.transpose(x, dims)


@primitive
def expand(x, /, shape):
    """A view in which dimensions of size 1 are repeated to `shape`; -1 keeps a size."""
    new = len(shape) - x.ndim
    if -1 in shape[: max(new, 0)]:
        raise ValueError("a dimension that is new has no size that -1 could keep")
    sizes = tuple(n if want == -1 else want for want, n in zip(shape, (1,) * new + x.shape))
    out = np.broadcast_to(x, sizes)  # which cannot be written to
    return x.reshape(sizes) if out.size == x.size else out


class Reshaping(Storage):
    """The same numbers in the same order, in another shape."""

    __slots__ = ()

    def reshape(self, *shape) -> Tensor:
        """The same numbers in another shape; one size may be -1."""
        return reshape(self, shape=_sizes(shape, least=-1))

    def view(self, *shape) -> Tensor:
        """`reshape` that never loses a write: a result that had to be copied cannot be written to."""
        result = self.reshape(*shape)
        if self.numel() and not np.may_share_memory(result._array, self._array):
            result._array.flags.writeable = False
        return result

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """The dimensions from `start_dim` to `end_dim` joined into one."""
        start, end = _dim(start_dim, self.ndim), _dim(end_dim, self.ndim)
        if start > end:
            raise ValueError(f"flatten joins dimensions from start_dim to end_dim; {start_dim} comes after {end_dim}")
        if start == end and self.ndim:
            return self
        return reshape(
            self, shape=(*self.shape[:start], math.prod(self.shape[start : end + 1]), *self.shape[end + 1 :])
        )

    def squeeze(self, dim: int | tuple[int, ...] | None = None) -> Tensor:
        """Without the dimensions of size 1, or without `dim` (a number or several) if that has size 1."""
        drop = range(self.ndim) if dim is None else [_dim(d, self.ndim) for d in _unpacked((dim,))]
        return reshape(self, shape=tuple(n for i, n in enumerate(self.shape) if n != 1 or i not in drop))

    def unsqueeze(self, dim: int) -> Tensor:
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

    def permute(self, *dims) -> Tensor:
        """The dimensions in another order: x.permute(2, 0, 1)."""
        return permute(self, dims=tuple(_dim(d, self.ndim) for d in _unpacked(dims)))

    def transpose(self, dim0: int = -2, dim1: int = -1) -> Tensor:  # exercise
        """Two dimensions swapped, the last two unless said otherwise. IndexError for one that is not there."""
        order = list(range(self.ndim)) or [0]
        dim0, dim1 = _dim(dim0, self.ndim), _dim(dim1, self.ndim)
        order[dim0], order[dim1] = dim1, dim0
        return permute(self, dims=tuple(order[: self.ndim]))

    def expand(self, *shape) -> Tensor:
        """A view in which dimensions of size 1 are repeated; -1 keeps a size."""
        return expand(self, shape=_sizes(shape, least=-1))

    def stride(self) -> tuple[int, ...]:
        """How many elements to walk in memory for a step along each dimension."""
        return tuple(s // self._array.itemsize for s in self._array.strides)

    def is_contiguous(self) -> bool:
        """Do the numbers lie in memory in the order in which they are read?"""
        return self._array.flags.c_contiguous

    def contiguous(self) -> Tensor:
        """The same numbers, copied into reading order if they are not in it."""
        return self if self.is_contiguous() else more_ops.copied(self)

    T: Tensor = property(
        lambda self: self.permute(*reversed(_dims_of_a_matrix(self))), doc="The transpose of a matrix."
    )
    mT: Tensor = property(
        lambda self: self.transpose(-2, -1) if self.ndim else self, doc="The last two dimensions swapped."
    )


def check_reshape_is_no_transpose():
    x = Tensor([[1, 2, 3], [4, 5, 6]])
    assert x.reshape(3, 2).tolist() == [[1, 2], [3, 4], [5, 6]]
    assert x.T.tolist() == [[1, 4], [2, 5], [3, 6]]


# Sizes come as `x.reshape(2, 3)` or `x.reshape((2, 3))`, and dimensions may count from the end. An error about a
# dimension should say which ones there are.


def _unpacked(sizes: tuple) -> tuple:
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes


def _sizes(sizes: tuple, least: int = 0) -> tuple[int, ...]:
    sizes = _unpacked(sizes)
    for n in sizes:
        if isinstance(n, (bool, float)) or not hasattr(n, "__index__"):
            raise TypeError(f"sizes are integers; these are {sizes}")
        if n < least:
            raise ValueError(f"a size of {n} is not possible: the sizes are {sizes}")
    return tuple(map(index, sizes))


def _dim(dim: int, ndim: int) -> int:
    count = max(ndim, 1)  # a single number is treated as if it had one dimension, as in PyTorch
    if not isinstance(dim, (int, np.integer)) or isinstance(dim, bool):
        raise TypeError(f"a dimension is an integer, not {dim!r}")
    if not -count <= dim < count:
        raise IndexError(
            f"dimension {dim} does not exist: the tensor has {ndim} dimensions, so {-count} to {count - 1} are possible"
        )
    return int(dim % count)


def _dims_of_a_matrix(x: Storage) -> range:
    if x.ndim <= 2:
        return range(x.ndim)
    raise ValueError(
        f".T is for matrices; this tensor has shape {x.shape}. Use .mT to swap the last two dimensions, or permute()."
    )


# ## Sums
#
# A reduction takes a dimension away, or keeps it with size 1 if told to, so that the result still broadcasts against
# what it came from: `x - x.mean(1, keepdim=True)` centres rows, and without `keepdim` it would centre something else or
# fail. `sum` is a primitive; mean, variance and standard deviation follow from it.
#
# What is summed, and in what type? A running sum needs more digits than the numbers that go into it. In `float16`,
# which has eleven bits, 2048 + 1 is 2048 again, so that the sum of ten thousand ones would stop there; `float32` stops
# at $2^{24}$. So we add one width up, `float16` in `float32` and `float32` in `float64`, and round once, at the end.
# Integers and truth values are added as 64-bit integers, so that counting the `True`s in a mask cannot overflow.

ADDED_IN: dict[Any, Any] = {float16: float32, float32: float64, float64: float64}


@primitive(cost=lambda out, x, **params: x.size)
def sum(x, /, dim=None, keepdim=False):  # exercise
    """The sum over all elements, or over one dimension or several (`dim`), which stay with size 1 if `keepdim`. Floats
    are added one width up (`ADDED_IN`) and come back in their own dtype, everything else as int64."""
    total = np.add.reduce(x, axis=_axes(dim, x.ndim), keepdims=keepdim, dtype=ADDED_IN.get(x.dtype, int64))
    return total.astype(x.dtype, copy=False) if x.dtype.kind == "f" else total


def _axes(dim, ndim):
    if isinstance(dim, (tuple, list)):
        return tuple(_dim(d, ndim) for d in dim) or None  # no dimension stands for all of them, as in PyTorch
    return None if dim is None else _dim(dim, ndim)


# A mean of `float16` is computed in `float32` altogether: the sum of 70,000 ones is more than `float16` can hold, while
# their mean is 1.


@torch_names
def mean(x, dim=None, keepdim=False):
    """The mean over all elements or over `dim`. Integers are averaged as float32."""
    if x.dtype == float16:
        return mean(x.to(float32), dim, keepdim).to(float16)
    total = sum(x, dim=dim, keepdim=keepdim)
    return total / (_size_of(x) / max(_size_of(total), 1))


# The variance has two conventions. Divided by $n$, it describes the numbers that are there. Divided by $n - 1$, it
# estimates that of the population they were drawn from (Bessel's correction). PyTorch's default is the second, NumPy's
# the first, and more than one reimplementation of batch normalisation has failed on that difference.
#
# The mean is subtracted twice, and the second time is not idle. A mean has been rounded, and at 16 million, where
# `float32` has whole numbers only, it may be off by a half. What was rounded away is the mean of the differences.


@torch_names
def var(x, dim=None, correction: float = 1, keepdim=False):
    """The variance; as in PyTorch divided by n - 1 (`correction=0` for the variance of the data themselves)."""
    if x.dtype == float16:
        return var(x.to(float32), dim, correction, keepdim).to(float16)
    centred = _centred(x, dim)
    total = sum(centred * centred, dim=dim, keepdim=keepdim)
    return total / max(_size_of(x) / max(_size_of(total), 1) - correction, 0.0)


def _centred(x, dim):  # exercise
    """x minus its mean along `dim` (over everything for None), in the shape of x, and then minus what the mean of that
    still is, because the first mean was rounded."""
    centred = x - mean(x, dim, keepdim=True)
    return centred - mean(centred, dim, keepdim=True)


# The standard deviation is a root, and a root is infinitely steep at zero. Where nothing varies, no element can make it
# vary less, so we take the slope there to be 0: the root is taken of the others only.


@torch_names
def std(x, dim=None, correction: float = 1, keepdim=False):
    """The standard deviation, the square root of `var`; its slope is 0 where nothing varies."""
    if x.dtype == float16:
        return std(x.to(float32), dim, correction, keepdim).to(float16)
    variance = var(x, dim, correction, keepdim)
    constant = variance == 0
    root = power(more_ops.where(constant, 1.0, variance), exponent=0.5)
    return more_ops.where(constant, 0.0, root)


def _size_of(x):
    return math.prod(x.shape)

# `mean`, `var` and `std` needed no kernel of their own. That is the rule of the house: an operation is a primitive, or
# it is made of primitives.
#
# With broadcasting, products, views and sums together, you can predict shapes, which is the skill that saves the most
# time in this field. Here are eight expressions for $x$ of shape (4, 3). Write down what you expect before you run any
# of them. Some are refused.


SHAPES_TO_PREDICT: dict[str, Callable[[Tensor], Tensor]] = {
    "a": lambda x: x + ones(4, 1),
    "b": lambda x: x + ones(4),
    "c": lambda x: x.unsqueeze(1) - x,
    "d": lambda x: x.sum(0),
    "e": lambda x: x - x.mean(1),
    "f": lambda x: x - x.mean(1, keepdim=True),
    "g": lambda x: ones(5, 2, 4) @ x,
    "h": lambda x: ones(2, 4, 3).transpose() @ x,
}


def predict_shapes() -> dict[str, tuple[int, ...] | None]:  # exercise
    """Your prediction for each expression in `SHAPES_TO_PREDICT`, by its letter: the shape of the result, a tuple, or
    None where the shapes do not fit and a ValueError is raised."""
    return {
        "a": (4, 3), "b": None, "c": (4, 4, 3), "d": (3,),
        "e": None, "f": (4, 3), "g": (5, 2, 3), "h": (2, 3, 3),
    }

# ## Picking elements
#
# NumPy's indexing is the best there is, so we take nearly all of it: numbers, slices, `...`, `None`, lists of
# positions, masks. `place` is its opposite: a tensor of zeros with the given numbers put where the index points,
# *added* where it points twice. We do not need it yet; the chapter on gradients will.


@primitive
def getitem(x, /, index):
    """The elements that `index` selects, as NumPy selects them; a view for numbers and slices."""
    picked = x[index]
    if not picked.size:
        more_ops.refuse_outside(index, x.shape)
    return picked if type(picked) is ndarray else x[(*index, ...) if isinstance(index, tuple) else (index, ...)]


# Adding is essential. If `x[[0, 0]]` has picked the first element twice, then whatever flows back to it flows back
# twice, and assigning would keep one of the two. So would plain `out[index] += values`.


@primitive
def place(values, /, index, shape):
    """Zeros of `shape` with `values` added at `index`; positions that occur twice get both."""
    out = np.zeros(shape, values.dtype)
    if _is_basic(index):
        out[index] = values
        return out
    if isinstance(index, ndarray) and index.dtype.kind in "iu":  # whole rows
        return _add_rows(out, index.reshape(-1), values.reshape(index.size, *out.shape[1:]))
    positions = np.arange(out.size).reshape(shape)[index]
    _add_rows(out.reshape(-1), positions.reshape(-1), values.reshape(-1))
    return out


# Slices and single numbers never point at an element twice. For them a plain assignment is right, and fastest.
# Otherwise we sort: rows for the same position then follow one another, and `reduceat` adds up each such run at once.
# (`np.add.at` does it one by one, which takes several times as long.)


def _add_rows(out, positions, rows):
    if positions.size == 0:
        return out
    positions = positions % len(out)  # -1 is the last
    order = np.argsort(positions, kind="stable")
    positions = positions[order]
    starts = np.flatnonzero(np.diff(positions, prepend=-1))
    wide = ADDED_IN.get(rows.dtype, rows.dtype)
    out[positions[starts]] = np.add.reduceat(rows[order], starts, axis=0, dtype=wide)
    return out


def _is_basic(index):
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        p is None or p is ... or (isinstance(p, (int, np.integer, slice)) and not isinstance(p, bool)) for p in parts
    )


# Tensors may be used as indices as well; here they become plain arrays, and a tensor without dimensions a plain number.
# Floating-point numbers are refused. They are no positions, even if they happen to be whole. And `uint8`, in which
# older programs keep their masks, is a mask, as in PyTorch.


def _plain_part(part):
    if isinstance(part, np.integer):
        return int(part)
    if not isinstance(part, (Storage, list, ndarray)):
        return part
    array = np.array(part._array if isinstance(part, Storage) else part)  # a copy, which no caller can change
    if array.dtype.kind == "f" and (array.size or not isinstance(part, list)):
        raise IndexError(
            f"a tensor of {array.dtype} cannot be an index: use integers (`.long()`) or a mask of bool"
        )
    if array.dtype in (bool_, uint8):
        return array.astype(bool_)
    return array.astype(np.intp) if array.ndim else int(array)


# In one point we leave NumPy. What is `h[0, :, ids]`? For NumPy, the 0 is a list of positions like `ids`, and since a
# slice stands between the two, the picked dimension moves to the front: the result is transposed, and if the sizes are
# equal, nothing will tell. PyTorch takes `h[0]` first and then `[:, ids]`, which is what you meant. So we take an
# index with both numbers and arrays in two steps: numbers and slices, then arrays.


def _plain_index(index, ndim):
    """The index as one for NumPy, and what is left to be picked from that (None where it is all)."""
    if type(index) in (int, slice):
        return index, None
    parts = [_plain_part(part) for part in (index if isinstance(index, tuple) else (index,))]
    arrays = [isinstance(part, (ndarray, bool)) for part in parts]
    dots = [i for i, part in enumerate(parts) if part is ...]
    if any(arrays) and len(dots) == 1 and builtins.sum(map(more_ops.dims_used, parts)) == ndim:
        del parts[dots[0]], arrays[dots[0]]  # they stand for nothing, and NumPy would see them between two arrays
    if not any(arrays) or not any(type(part) is int for part in parts):
        return (tuple(parts) if isinstance(index, tuple) else parts[0]), None
    first: list[Any] = []
    then: list[Any] = []
    for part, is_array in zip(parts, arrays):
        if is_array:
            first += [slice(None)] * (np.ndim(part) if np.asarray(part).dtype == bool_ else 1)
            then += [part]
        else:
            first += [part]
            then += [] if type(part) is int else [...] if part is ... else [slice(None)]
    return tuple(first), tuple(then)


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
# What of a tensor that *is* the result of a recorded computation? Chapter 07, which knows what the record looks like,
# can let `y += 1` change it, and remember that it did.


class Writing(Storage):
    """Changing numbers in place."""

    __slots__ = ()

    def writable(self) -> np.ndarray:
        """The array itself, to be changed in place. Calling this counts as a write."""
        if not self._array.flags.writeable:
            raise RuntimeError(
                f"the memory of this tensor of shape {self.shape} cannot be written to: its elements share memory, as "
                "after expand(), view() has had to copy it, or NumPy forbids it. Use a clone()"
            )
        _written(self._array)
        return self._array

    def copy_(self, source, non_blocking=False) -> Self:
        """Overwrite the numbers with those of `source`, broadcast and converted."""
        values = source if isinstance(source, Storage) else _wrap(as_array(source))
        if broadcast_shape(self.shape, values.shape) != self.shape:
            raise ValueError(f"values of shape {values.shape} do not fit into a tensor of shape {self.shape}")
        _refuse_if_recorded(self.shape, values)
        with quiet():
            np.copyto(self.writable(), values._array, casting="unsafe")
        return self

    def fill_(self, value: float | Storage) -> Self:
        """Overwrite every element with one number. Raises ValueError for a number that the dtype cannot hold."""
        return self.copy_(value if isinstance(value, Storage) else _number(value, self.dtype))

    def zero_(self) -> Self:
        """Overwrite every element with 0."""
        return self.fill_(0)

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

    def _in_place(self, result) -> Self:
        if _RANK[result.dtype.kind] > _RANK[self.dtype.kind]:
            raise TypeError(
                f"a tensor of {self.dtype} cannot hold the result, which is {result.dtype}: write x = x + y instead of "
                "x += y, or convert it first, by .float()"
            )
        _refuse_if_recorded(self.shape, result)
        return self.copy_(result)

    def __setitem__(self, index, value) -> None:
        if isinstance(value, (list, tuple)):
            value = _wrap(as_array(value))
        _refuse_if_recorded(self.shape, self, value)
        first, then = _plain_index(index, self.ndim)
        target, values = self.writable(), value._array if isinstance(value, Storage) else value
        try:
            if then is not None:
                target, first = target[first], then
            more_ops.refuse_outside(first, target.shape)
            if isinstance(values, ndarray) and values.dtype != target.dtype:
                values = _cast(values, target.dtype)
            if isinstance(values, ndarray) and _is_basic(first):
                target, first = getitem.default(target, first), ...  # so that (1,) fits into one element
            if isinstance(values, ndarray) and not values.size:  # where NumPy is not strict
                chosen = target[first].shape
                if broadcast_shape(chosen, values.shape) != chosen:
                    raise ValueError(f"values of shape {values.shape} do not fit into shape {chosen}")
            target[first] = values
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            kind = IndexError if isinstance(error, IndexError) else ValueError
            said = more_ops.in_our_words(error)
            raise kind(f"cannot assign to a part of a tensor of shape {self.shape}: {said}") from None


def _cast(array, dtype):
    with quiet():
        return array.astype(dtype)


def _number(value, dtype):
    try:
        with quiet():
            return _wrap(np.array(int(value) if isinstance(value, float) and dtype.kind in "iu" else value, dtype))
    except (OverflowError, ValueError, TypeError):
        raise ValueError(f"{value!r} is not a number that {dtype} can hold") from None


# How does this chapter know whether operations are recorded? It tries one. We send a number that requires a gradient
# through the interpreters that are installed in the door, and look whether the result requires one, too. We try only if
# one of the tensors at hand requires a gradient.


def _refuse_if_recorded(shape, *tensors):
    if any(getattr(t, "requires_grad", False) for t in tensors) and recording():
        raise RuntimeError(
            f"a tensor of shape {shape} cannot be changed in place while operations on it are recorded: the change "
            "would falsify gradients or be lost to them. Make a new tensor (x = x + y, where(), cat()), or change it "
            "under no_grad()"
        )


def recording() -> bool:
    """Is a record kept at the moment of operations on tensors that require gradients?"""
    probe = _wrap(np.zeros(()))
    probe.requires_grad = True
    return _installed[-1](neg, (probe,), {}).requires_grad


# ## Out of the world of tensors
#
# One number, a list, or a truth value: each conversion makes sense for some shapes only, and says so for the others.
#
# `bool(x)` deserves the error most. `if x > 0:` on a tensor of three numbers is a question without an answer; NumPy
# refuses it, too.


class Converting(Storage):
    """To Python's numbers and lists, to NumPy, and to other dtypes."""

    __slots__ = ()

    def item(self) -> Any:
        """The one number in here, as a Python number. Raises ValueError if there are more."""
        if self._array.size != 1:
            raise ValueError(
                f"item() needs a tensor of one element; this one has shape {self.shape}. Use tolist() or numpy()"
            )
        return self._array.item()

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return self._array.tolist()

    def to(self, dtype=None) -> Tensor:
        """The same numbers as another dtype; the tensor itself if it has that dtype already, or for None."""
        dtype = self.dtype if dtype is None else _as_dtype(dtype)
        return self if self._array.dtype == dtype else more_ops.cast(self, dtype=dtype)

    def __bool__(self):
        if self._array.size != 1:
            raise ValueError(f"is a tensor of shape {self.shape} true? Say which you mean: .any() or .all()")
        return self._array.item() != 0

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if self.requires_grad and recording():
            raise RuntimeError("NumPy would compute with this tensor unrecorded; use x.detach(), or tt's functions")
        return np.array(self.numpy(), dtype=dtype) if copy or dtype else self.numpy()

    def __format__(self, spec):
        if spec and self._array.size != 1:
            raise TypeError(f"{spec!r} formats one number, and this tensor has shape {self.shape}; format its elements")
        return format(self.item(), spec) if spec or not self.ndim else str(self)

    def __float__(self): return float(self.item())
    def __int__(self): return int(self.item())
    def __index__(self): return (self._array.reshape(()) if self._array.size == 1 else self._array).__index__()
    def float(self) -> Tensor: return self.to(float32)
    def double(self) -> Tensor: return self.to(float64)
    def half(self) -> Tensor: return self.to(float16)
    def long(self) -> Tensor: return self.to(int64)
    def int(self) -> Tensor: return self.to(int32)
    def bool(self) -> Tensor: return self.to(bool_)


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
    is_leaf: bool = True

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ask for a gradient of this tensor. Raises RuntimeError for a dtype that has none."""
        if requires_grad and self._array.dtype.kind != "f":
            raise RuntimeError(f"only floating-point tensors can require gradients, not {self.dtype}; use .float()")
        self._requires_grad = bool(requires_grad)
        return self

    def backward(self, gradient=None, retain_graph=False, create_graph=False) -> None:
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
        registered = partial(hook)  # an object of its own, because the same hook may be registered twice
        self._hooks = [*(self._hooks or ()), registered]

        def remove():
            self._hooks = [h for h in self._hooks if h is not registered]

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
        values = values.detach() if isinstance(values, Storage) else _wrap(as_array(values))
        if values.shape != self.shape:
            raise ValueError(f"values of shape {values.shape} cannot replace those of a tensor of shape {self.shape}")
        self.detach().copy_(values)


# ## The tensor
#
# What is missing is the long tail: some sixty more functions, from `abs` to `zeros_like`, most of a line or two; they
# live in the appendix `more_ops`, and their method forms, such as `x.abs()` and `x.sum(1)`, in the appendix `methods`.
#
# The class that we all use is the sum of all layers, with a constructor and a way to print itself.


class Tensor(
    Conversions, InPlace, LongTail, Reducing, Picking,
    Arithmetic, Comparing, Reshaping, Reordering, Writing, Converting, Gradients,
):
    """An array of numbers with a shape and a dtype, and operations that anybody can watch.

    `data` is copied: Python numbers and lists become float32, NumPy arrays and tensors keep their dtype.
    Raises ValueError for ragged lists, TypeError for what is not a number.
    """

    __slots__ = ()

    def __init__(self, data=(), dtype=None, requires_grad=False, *more):
        if type(data) is int:
            data, dtype, requires_grad = self._unset(data, dtype, requires_grad, *more), None, False
        self._array = as_array(data, dtype)
        self._requires_grad, self.grad, self._hooks = False, None, None
        self.requires_grad_(requires_grad)

    def __getitem__(self, index) -> Tensor:
        first, then = _plain_index(index, self.ndim)
        picked = getitem(self, index=first)
        return picked if then is None else getitem(picked, index=then)

    def __iter__(self) -> Iterator[Tensor]:
        if self.requires_grad or listening():
            return (getitem(self, index=i) for i in range(len(self)))
        return map(_wrap, [self._array[i, ...] for i in range(len(self))])  # the same: nothing is recorded or metered

    def __repr__(self) -> str:
        usual = self.dtype in (float32, int64, bool_)
        parts = [np.array2string(self._array, separator=", ", prefix="tensor(", precision=4)]
        parts += ([] if usual else [f"dtype={self.dtype}"]) + ([self._history()] if self.requires_grad else [])
        return f"tensor({', '.join(parts)})"

    def _history(self) -> str:
        return "requires_grad=True"


# Errors should speak of the class that people use, and not of the layer that a method comes from.

for layer in Tensor.__mro__[1:-1]:
    for name, method in vars(layer).items():
        if inspect.isfunction(method):
            method.__qualname__ = f"Tensor.{name}"


# `Tensor([1, 2])` is `float32`, as `torch.Tensor([1, 2])` is. For labels we want integers to stay integers; PyTorch's
# lower-case `tensor` looks at the data, and so does ours. `from_numpy` is the one that does not copy.


def tensor(data, dtype=None, requires_grad=False) -> Tensor:
    """A tensor whose dtype follows the data: float32 for floats, int64 for integers, bool for truth values."""
    if dtype is None and not isinstance(data, (np.ndarray, np.generic, Storage)):
        kinds = _kinds(data)
        plain = float32 if float in kinds else int64 if int in kinds else bool_ if bool in kinds else float32
        dtype = _dtype_of(data, plain)
    return _wrap(as_array(data, dtype)).requires_grad_(requires_grad)


# Which of the three to use? `Tensor` for numbers in a program, `tensor` for labels and masks, `from_numpy` for large
# data that should not be there twice. The last one shares memory with the array, in both directions.


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor on the memory of `array`, which is not copied: later changes of one are seen by the other."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub" or not array.dtype.isnative:
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


def full(size, fill_value, dtype=None, requires_grad=False) -> Tensor:
    """A tensor of shape `size` filled with one number, in the dtype that `tensor(fill_value)` has if none is given."""
    fill_value = fill_value.item() if isinstance(fill_value, np.generic) else fill_value
    value = tensor(fill_value) if dtype is None else _number(fill_value, _as_dtype(dtype))
    shape = _sizes(size if isinstance(size, (tuple, list)) else (size,))
    return _wrap(np.full(shape, value._array)).requires_grad_(requires_grad)


def zeros(*size, dtype=float32, requires_grad=False) -> Tensor:
    """A tensor of zeros: zeros(2, 3)."""
    return full(_unpacked(size), 0, dtype or float32, requires_grad)


def ones(*size, dtype=float32, requires_grad=False) -> Tensor:
    """A tensor of ones: ones(2, 3)."""
    return full(_unpacked(size), 1, dtype or float32, requires_grad)


# `arange` counts in `float64` and rounds at the end. Adding the step again and again in `float32` would drift, and stop
# altogether where a step is smaller than the distance between two numbers.


def arange(start, end=None, step=1, dtype=None, requires_grad=False) -> Tensor:
    """start, start + step, ... up to but without `end`; int64 for integers, float32 otherwise. Raises ValueError for a
    step of 0 or one that leads away from `end`."""
    start, end = (0, start) if end is None else (start, end)
    start, end, step = (v.item() if isinstance(v, Storage) else v for v in (start, end, step))
    if dtype is not None and _as_dtype(dtype).kind in "iu":
        start, end, step = int(start), int(end), int(step)
    whole = all(isinstance(v, (int, np.integer)) for v in (start, end, step))
    if not step * (end - start) >= 0 or step == 0 or not math.isfinite(end - start):
        raise ValueError(f"no number of steps of {step} leads from {start} to {end}")
    count = -((start - end) // step) if whole else math.ceil((end - start) / step)
    values = start + np.arange(count) * step
    return _wrap(_converted(values, dtype or (int64 if whole else float32))).requires_grad_(requires_grad)


# NumPy draws `float32` and `float64`. For `float16` we draw one of the 2,048 numbers k / 2048: rounding a longer
# fraction could give 1, which does not belong to the interval.


def rand(*size, dtype=float32, requires_grad=False) -> Tensor:
    """Uniform random numbers from [0, 1)."""
    size, dtype = _sizes(size), _drawn("rand", dtype)
    if dtype == float16:
        values = (generator().integers(0, 2048, size) / 2048).astype(float16)
    else:
        values = generator().random(size, dtype=dtype)
    return _wrap(np.asarray(values)).requires_grad_(requires_grad)


def randn(*size, dtype=float32, requires_grad=False) -> Tensor:
    """Random numbers from the normal distribution with mean 0 and variance 1."""
    dtype = _drawn("randn", dtype)
    values = generator().standard_normal(_sizes(size), dtype=float32 if dtype == float16 else dtype)
    return _wrap(np.asarray(values, dtype)).requires_grad_(requires_grad)


def _drawn(name, dtype):
    dtype = _as_dtype(dtype)
    if dtype.kind != "f":
        raise TypeError(f"{name} draws floating-point numbers, not {dtype}; for integers there is randint")
    return dtype


# ## A first client of the door: the meter
#
# Back to the questions that `SmallestTensor` could not answer. The meter stands in the door, lets the operation run,
# and counts what went through: the multiply-adds (for operations that do not declare a cost, one for each element of
# the result) and the bytes that were read and written. A view costs nothing, since it moves nothing.
#
# How can we know, from outside, that an operation moved nothing? We ask whether the result lies in the same block of
# memory as one of the inputs: `_memory_of(array)` is that block, the same object for all its views. It is the question
# that the clock asks, too.
#
# Everything in the meter is about arrays, which a tensor keeps in `_array`. The `cost` of a primitive gets arrays as
# well: the array of the result, those of the inputs, and the parameters by name.


class Meter:
    """Multiply-adds, bytes and calls, in all and for each primitive."""

    def __init__(self):
        self.multiply_adds, self.bytes, self.calls = Counter(), Counter(), Counter()

    def __call__(self, next, primitive, tensors, params):  # exercise
        """The interpreter: what `next(primitive, tensors, params)` returns, after it has been counted under the name of
        the primitive. Every call counts in `calls`. Unless the result shares the memory of an input, `multiply_adds`
        grows by the primitive's `cost(out, *arrays, **params)` of arrays, or if it is None by the number of elements of
        the result, and `bytes` by the `nbytes` of all inputs and of the result."""
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
# for a while, and fail at the first call that passes the parameter by name. What kind of callable it is does not
# matter: a function of this module or of another, a `partial`, a compiled one.
#
# Slots belong to the whole process. Two threads that exchanged kernels at the same time would compute with each
# other's, so the second one is refused.
#
# As with interpreters, there is a second way: what `use_kernels` puts into the slots is gone at the end of the block,
# what `install_kernels` puts there stays. Chapter 15 installs faster kernels for a whole program with it.


@contextmanager
def use_kernels(module) -> Iterator[None]:
    """Within the block, primitives run the kernels of the same names in `module`, in every thread.

    Raises ValueError for a callable that does not fit: a function of the module that has no slot's name, or one with
    another signature than the slot's own kernel; RuntimeError if another thread uses kernels."""
    kernels = _kernels_of(module)
    with _exchanging:
        if _sets and _sets[-1][0] != threading.get_ident():
            raise RuntimeError(f"another thread uses the kernels of {_sets[-1][1]}; they are the same for all threads")
        used = (threading.get_ident(), module.__name__, kernels)
        _sets.append(used)
        _exchange(kernels)
    try:
        yield
    finally:
        with _exchanging:
            _sets.remove(used)
            _exchange(kernels)


_sets: list[tuple[int, str, dict]] = []  # (thread, name, kernels) of each set in use
_exchanging = threading.Lock()


def _exchange(kernels):
    for name in kernels:
        place = SLOTS[name]
        place.kernel = next((used[name] for *_, used in reversed(_sets) if name in used), place.default)


def install_kernels(kernels: dict[str, Callable], name: str | None = None) -> dict[str, Callable]:
    """From now on, in every thread, the slots of these names run these kernels wherever `use_kernels` has no say.
    Returns the kernels that were there, with which a second call undoes the first. `kernels_in_use` answers `name`,
    if one is given.

    Raises ValueError, before anything is changed, for a name without a slot and for another signature."""
    for place, kernel in kernels.items():
        _check_fits(place, kernel, "install_kernels")
    with _exchanging:
        before = {place: SLOTS[place].default for place in kernels}
        for place, kernel in kernels.items():
            SLOTS[place].default = kernel
        _exchange(kernels)
        _name[:] = [name or _name[0]]
    return before


_name = ["default"]  # of the installed kernels


def kernels_in_use() -> str:
    """The name of the kernel set that computes: that of the module given to `use_kernels`, or what `install_kernels`
    was told."""
    return _sets[-1][1] if _sets else _name[0]


def _kernels_of(module) -> dict[str, Callable]:
    kernels = {}
    for name, value in vars(module).items():
        own = inspect.isfunction(value) and value.__module__ == module.__name__
        if name[0] != "_" and callable(value) and not isinstance(value, Slot) and (name in SLOTS or own):
            _check_fits(name, value, module.__name__)
            kernels[name] = value
    if not kernels:
        raise ValueError(f"{module.__name__} has no kernels: no callable in it has the name of a slot")
    return kernels


def _check_fits(name, function, source):
    if name not in SLOTS:
        raise ValueError(
            f"{source}.{name} is no kernel: there is no primitive of that name. Start helpers with an underscore"
        )
    ours = str(SLOTS[name].signature)
    try:
        theirs = str(inspect.signature(function))
    except ValueError:
        theirs = "(unknown)"
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
    name, shapes = _CALLED.get(primitive.name, primitive.name), " and ".join(str(t.shape) for t in tensors)
    given = "".join(f", {k}={more_ops.as_written(v)}" for k, v in params.items())
    if isinstance(error, np.exceptions.AxisError):
        return IndexError(f"{name}: there is no dimension {error.axis} in a tensor of shape {shapes}")
    if isinstance(primitive, Elementwise) or name == "where":
        try:
            broadcast_shape(*(t.shape for t in tensors))
        except ValueError as reason:
            return ValueError(f"{name}: {reason}")
    if primitive.name == "matmul" and isinstance(error, ValueError):
        return ValueError(
            f"matmul: shapes {shapes} do not fit: the last size of the first must equal the last but one of the second"
        )
    kind = next(k for k in (IndexError, ValueError, TypeError) if isinstance(error, k))
    return kind(f"{name} of shape {shapes}{given}: {more_ops.in_our_words(error)}")


_CALLED = {"choose": "where", "concat": "cat", "take_along": "gather", "largest_first": "topk"}


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
# Every function marked as an exercise on this page can be written by you and put in place of ours. Two more, each with
# its check:
#
# 1. `pairwise_distances`: the Euclidean distance of each row of `x` to each row of `y`, without a loop and without
#    subtracting every pair. Expand the square and you need one matrix product.
# 2. `operations_of`: the names of the primitives that a function calls, in order. Use the door.
#
# The first needs the pattern of all tables of pairs: a column and a row broadcast to a matrix. Here it is for products,
# the *outer product* of two vectors.


def outer(x: Tensor, y: Tensor) -> Tensor:
    """The outer product of vectors of n and m elements, of shape (n, m)."""
    return x.unsqueeze(1) * y.unsqueeze(0)


def check_outer():
    assert outer(Tensor([1, 2]), Tensor([3, 4, 5])).tolist() == [[3, 4, 5], [6, 8, 10]]


def pairwise_distances(x: Tensor, y: Tensor) -> Tensor:  # exercise
    """Distances between the rows of x (n, d) and of y (m, d), of shape (n, m); never nan, although rounding may make a
    square a little less than 0."""
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
    "Elementwise", "Meter", "PRIMITIVES", "Primitive", "SHAPES_TO_PREDICT", "SLOTS", "Slot", "Tensor", "add", "arange",
    "as_array", "as_rows", "bool_", "broadcast_shape", "common_dtype", "div", "elementwise", "eq", "evaluate", "exp",
    "expand", "float16", "float32", "float64", "from_numpy", "full", "ge", "getitem", "gt", "install",
    "install_kernels", "int32", "int64", "interpreting", "kernels_in_use", "last_write", "le", "listening", "log", "lt",
    "matmul", "mean", "meter", "mul", "ne", "neg", "ones", "operations_of", "outer", "pairwise_distances", "permute",
    "place", "pow", "power", "power_of", "predict_shapes", "primitive", "quiet", "rand", "randn", "reshape", "slot",
    "std", "sub", "sum", "tensor", "tick", "uint8", "use_kernels", "var", "zeros",
]

from tt_tensor import more_ops  # noqa: E402  (the appendix is built on this chapter, and its words are methods here)
