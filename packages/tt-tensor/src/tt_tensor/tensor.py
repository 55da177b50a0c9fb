# # Tensor
#
# At the end of this chapter we have a type, `Tensor`, that carries elements together with their shape and computes with
# whole arrays at once. It sends every single operation through one small door where we can watch it.

# ## The hurt
#
# Chapter 01 left us two numbers. One says how many billions of multiplications and additions a second this machine does
# in a product of arrays. The other says how few of them are left when the matrices are lists of lists. Here is the slow
# product again, as a function that we can ask more questions about.

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
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
from numpy import ndarray

# From Python we take data structures and tools for functions, and from NumPy the arrays. The modules of our own package
# hold what the story does not need: checks of arguments, indices, the wording of errors, and the long tail of a
# tensor's methods. When you meet one of their names, a sentence will say what it does.

from tt_tensor.arguments import (
    ADDED_IN, RANK, as_floats, bool_, convert, drawn_dtype, float16, float32, float64, int32, int64,
    normalize_sizes, number_as, numpy_names, quiet, resolve_dim, resolve_dims, resolve_dtype, same_dtype, uint8,
    unpack, widest,
)
from tt_tensor.conversions import Casting, Conversions
from tt_tensor.history import History
from tt_tensor.in_place import InPlace
from tt_tensor.indexing import add_rows, is_basic, refuse_outside, split_index
from tt_tensor.methods import LongTail, Operators, Picking, Reducing, Reshaping, torch_names
from tt_tensor.setup import generator, measure
from tt_tensor.slots import SLOTS, Slot, install_kernels, kernels_in_use, slot, use_kernels
from tt_tensor.wording import as_written, in_our_words


def matmul_lists(a, b):
    """The product of two matrices given as lists of rows."""
    return [[builtins.sum(x * y for x, y in zip(row, column)) for column in zip(*b)] for row in a]


# That is three nested loops in one line. It is correct, it is slow, and it takes a lot of memory:


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


# Speed is only half of the problem. A list of lists does not know what it is. Nothing stops a row from being one
# element short, `rows + rows` does not add anything, and we cannot ask for a shape. We want arrays that carry their
# shape and their operations. Arrays of any number of dimensions are called *tensors*.
#
# We do not write the arithmetic ourselves. NumPy's `ndarray` is a well-made block of memory with compiled loops over
# it, so we build on that. We write the parts that NumPy does not have: everything that a deep-learning framework needs
# *around* an array.

# ## The smallest thing that could work
#
# We put the array into an object and teach the object to add.


class SmallestTensor:
    def __init__(self, values):
        self.values = np.array(values, dtype=np.float32)

    def __add__(self, other):
        return SmallestTensor(self.values + other.values)


def check_smallest_tensor():
    assert (SmallestTensor([1, 2]) + SmallestTensor([3, 4])).values.tolist() == [4, 6]


# It adds. It disappoints us as soon as we ask a question about the computation rather than about its result. How many
# multiplications did that model take? How many bytes did it move? Could this one operation run on faster code, for an
# afternoon? Later we shall ask the question that this book exists for: what is the derivative of all that? To answer
# any of them, we would have to edit each method of `SmallestTensor`. With two hundred methods we would never do it.

# ## The idea: one door
#
# Instead, we send every operation through one function call, in which an *interpreter* decides what an operation means.
# The ordinary interpreter computes. A second one may count first and then let the ordinary one compute; a third one, in
# chapter 07, will write down what happened.
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
# We need three words. A *primitive* is an operation with a name. Its *kernel* is the function that does the arithmetic
# on NumPy arrays and knows nothing of tensors. An *interpreter* sits between the two. The field calls this step
# *dispatch*; our design is that of JAX's tracers, which *autodidax* explains at length. In this book we call the place
# where dispatch happens *the door*.

# ## Storage
#
# We begin with the block of memory. `Storage` turns the caller's data into an array. It copies the data, because a
# tensor that shared memory with the caller's array would change behind our back.
#
# Which type should the elements have? NumPy calls this the *dtype*. Deep learning runs on 32-bit floats, so Python's
# numbers and lists become `float32`. A NumPy array already has a dtype that its owner chose, so it keeps it.
#
# We write `as_array` in terms of three helpers. `_dtype_of(data)` is the dtype that the values get if you give none,
# `_without_tensors` replaces the tensors in a list by their arrays, and `convert` gives an array another dtype. (A
# tensor keeps its array in `_array`.)
#
# Three things can go wrong, and each gets an error that names it. Rows may have different lengths, data may not be
# numbers, and numbers may be of a kind that deep learning does not use. NumPy would accept data that are not numbers as
# an array of strings or of Python objects. Additions would then be many times slower, and other operations would
# fail later, far from the cause.


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
    return convert(array, dtype)


# `convert` comes from the module `arguments`, which brings dtypes, sizes and dimensions into one form. We import such
# checks instead of printing them here. This one refuses a number that the dtype cannot hold, where NumPy would silently
# store another number.
#
# A list may also hold tensors or arrays, as in `Tensor([x.mean(), y.mean()])`. Then the result takes the widest of
# their dtypes, and Python's numbers among them fit in: a `2.5` beside integers turns all of them into floats.


def _dtype_of(data, plain=float32):
    if isinstance(data, (np.ndarray, np.generic)):
        return np.dtype(data.dtype.type)
    kinds = _kinds(data)
    if not any(isinstance(kind, np.dtype) for kind in kinds):
        return plain
    return widest([_OF_PYTHON.get(kind, kind) for kind in kinds if isinstance(kind, np.dtype) or kind in _OF_PYTHON])


_OF_PYTHON = {float: float32, int: int64, bool: bool_}


# `_kinds` collects the types and dtypes in nested lists. Most lists hold plain numbers only; for those, the set of
# their types settles the question without another look at the elements.


def _kinds(data):
    if isinstance(data, (list, tuple)):
        kinds = set(map(type, data))
        return kinds if kinds <= _OF_PYTHON.keys() else set().union(*map(_kinds, data))
    return {data.dtype if isinstance(data, (np.ndarray, np.generic, Storage)) else type(data)}


def _without_tensors(data):
    if isinstance(data, (list, tuple)) and not set(map(type, data)) <= _OF_PYTHON.keys():
        return [_without_tensors(d) for d in data]
    return data._array if isinstance(data, Storage) else data


# Now we can write the object. It has four fields of its own and names them in `__slots__`, because an object without a
# dictionary takes a third less memory. For one tensor we would not care, but chapter 07 will keep a record of twenty
# thousand of them.
#
# Three of the four fields stay empty for a while. `requires_grad`, `grad` and `_hooks` belong to gradients, and nothing
# in this chapter knows what a gradient is; they are here because you will look for them on a tensor. The second line of
# slots is room for the record that chapter 07 keeps of a result. A tensor needs this room from the start, because it
# may get a history later and must remain the same object.


class Storage:
    """An array of elements, and the room for what later chapters attach to it."""

    __slots__ = (
        "_array", "_requires_grad", "grad", "_hooks", "__weakref__",
        "_primitive", "_rules", "_inputs", "_params", "_made", "_watched",
    )
    _array: np.ndarray
    _requires_grad: bool
    grad: Tensor | None

    # Most questions about a tensor are questions about its array, so we pass them on. (PyTorch asks some of them by
    # methods, such as `numel()` and `size()`. Those are in the module `conversions`.)

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each dimension."""
        return self._array.shape

    ndim: int = property(lambda self: self._array.ndim, doc="The number of dimensions.")
    dtype: np.dtype = property(lambda self: self._array.dtype, doc="The type of the elements, a NumPy dtype.")
    nbytes: int = property(lambda self: self._array.nbytes, doc="The bytes of memory that the elements take.")
    requires_grad = property(
        attrgetter("_requires_grad"), lambda self, value: self.requires_grad_(value), doc="Is a gradient asked for?"
    )

    # NumPy gets a view that it cannot write to. A framework that promises correct gradients must know when elements
    # change, and it cannot know what happens to an array that it gave away. If you really want to write, call
    # `writable()`, further down.

    def numpy(self, *, force=False) -> np.ndarray:
        """The values as a NumPy array: a view that cannot be written to. Copy it, or use `writable`, to change it."""
        view = self._array.view()
        view.flags.writeable = False
        return view


# ## Shape, strides and why a transpose is free
#
# Memory is one long row of bytes. An array adds two short lists of integers to it: the *shape*, and the *strides*,
# which say how many bytes we walk for one step along each dimension. The element at index $(i, j)$ sits at byte
#
# $$ \text{start} + i \cdot \text{stride}_0 + j \cdot \text{stride}_1 . $$
#
# To transpose, we swap two strides and touch no element. To take every second column, we double a stride. To repeat a
# row a thousand times, we set a stride to zero. The results are *views*: a new shape and new strides over old memory.
# In the picture, each cell shows which of the twelve elements in memory it reads.


def show_views():
    """Five views of one block of twelve elements; each cell names the element in memory that it reads."""
    import matplotlib.pyplot as plt

    x = tensor(list(range(12))).reshape(3, 4)
    views = {
        "x": x, "x.T": x.T, "x[:, ::2]": x[:, ::2], "x[1].expand(3, 4)": x[1].expand(3, 4),
        "x.reshape(2, 6)": x.reshape(2, 6),
    }
    figure, axes = plt.subplots(1, len(views), figsize=(11, 2.6))
    for ax, (name, view) in zip(axes, views.items()):
        ax.imshow(view.numpy(), cmap="Blues", vmin=0, vmax=24)
        for row, column in np.ndindex(view.shape):
            ax.text(column, row, view[row, column].item(), ha="center", va="center", color="black")
        ax.set_title(f"{name}\nstrides {view.stride()}", fontsize=10)
        ax.set_axis_off()
    figure.tight_layout()
    return figure


# The two lists tell us what is cheap and what is not. A change that another shape and other strides can express costs
# nothing, however large the tensor is. A change that needs the elements in another order *in memory* costs a trip
# through all of them.


def show_strides():
    x = zeros(3, 4)
    views = {
        "x": x, "x.T": x.T, "x[:, ::2]": x[:, ::2], "x[0].expand(1000, 4)": x[0].expand(1000, 4),
        "x.reshape(2, 6)": x.reshape(2, 6), "x.T.reshape(2, 6)": x.T.reshape(2, 6),
    }
    print(f"{'':22s} {'shape':>12s} {'strides':>10s}  shares memory")
    for name, view in views.items():
        print(f"{name:22s} {view.shape!s:>12s} {view.stride()!s:>10s}  {np.shares_memory(x.numpy(), view.numpy())}")


# The last row is the exception. We cannot read the transpose in rows of six without collecting its elements anew, so
# NumPy makes a copy. (PyTorch counts strides in elements, and so does our `stride()`; NumPy counts them in bytes.)

# ## Primitives and the door
#
# Here is the door. A primitive that is called looks up the current interpreter and passes it three things: itself, the
# tensors, and all other arguments by name. This is how `exp(x)` runs while a meter counts:
#
# ```mermaid
# sequenceDiagram
#     participant Y as your program
#     participant P as primitive exp
#     participant M as meter
#     participant E as evaluate
#     participant K as kernel
#     Y->>P: exp(x)
#     P->>M: (exp, (x,), {})
#     M->>E: (exp, (x,), {})
#     E->>K: x._array
#     K-->>E: an array
#     E-->>M: a tensor
#     Note over M: counts
#     M-->>Y: the tensor
# ```
#
# Which arguments are tensors and which are not? The kernel's signature says it. The arguments before the `/` are
# tensors, and those after it are parameters: `def sum(x, /, dim=None, keepdim=False)`.
#
# We build primitives on *slots*, which the module `slots` holds. A slot is a named function on arrays whose kernel can
# be exchanged; near the end of the chapter we use that. A primitive is a slot with a door in front.
#
# Who interprets operations at the moment? `_thread.interpreter` is the interpreter that the current thread has put in
# place for the length of a `with` block, or None. `_installed` lists the permanent ones, which all threads share. Its
# last entry is the one in use, and its first is the ordinary interpreter, `evaluate`.
#
# That the first part belongs to a thread looks like a detail, but it matters. A data loader of chapter 10 may work in
# other threads, and we would be surprised if a meter that we started in one thread counted operations in another.


class _Thread(threading.local):
    interpreter: Callable | None = None
    listening = False


_thread = _Thread()
_installed: list[Callable] = []
PRIMITIVES: dict[str, Primitive] = {}


# The little `/` has a second use. A call `sum(x, 1)` passes the number 1 as if it were a tensor; the signature says
# that it is not one, and which parameter it must be. So both spellings work, PyTorch's `sum(x, 1)` and the plainer
# `sum(x, dim=1)`, and the kernels need not know.
#
# So `__call__` has three things to do, and you write it. First, if you come from NumPy, you say `axis` and `keepdims`;
# `numpy_names(params)` returns the parameters under our names. Second, any of the arguments in front may not be a
# `Storage`, the class below every tensor. Then `_call_with_non_tensors`, further down, gets the primitive, these
# arguments and the parameters, and you return its result. Third, the usual case: pass the same three to the
# interpreter. This is the most frequent call of the whole framework, so it does nothing else.


class Primitive(Slot):
    """An operation on tensors: a name, a kernel on arrays that can be exchanged, and an estimate of its cost."""

    def __init__(self, kernel: Callable, cost: Callable | None = None):
        super().__init__(kernel)
        self.cost = cost
        PRIMITIVES[self.name] = self

    # Here is the door itself.

    def __call__(self, *tensors, **params) -> Any:  # exercise
        """The current interpreter's result for `(self, tensors, params)`. The interpreter is that of this thread,
        `_thread.interpreter`, or if there is none, the last one installed. `tensors` is a tuple of tensors, and
        `params` a dict without NumPy's names. Arguments that are not tensors are left to `_call_with_non_tensors`."""
        if "axis" in params or "keepdims" in params:
            params = numpy_names(params)
        for tensor in tensors:
            if not isinstance(tensor, Storage):
                return _call_with_non_tensors(self, tensors, params)
        return (_thread.interpreter or _installed[-1])(self, tensors, params)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


# The ordinary interpreter is `evaluate`. One line of it is the whole meaning of an operation: take the arrays, run the
# kernel, wrap the result. `_array_of` takes the array out of a tensor, and `_wrap` turns an array into a tensor without
# a copy. The other lines are for failures. A kernel does not know that it is part of a tensor library, so its errors
# are about arrays and axes. `_translate_error`, near the end of the chapter, turns them into errors that you can act
# on.


def evaluate(primitive: Primitive, tensors: tuple, params: dict) -> Tensor:  # exercise
    """The ordinary interpreter: the kernel's result on the tensors' arrays, as a new tensor.

    A ValueError, TypeError or IndexError of the kernel is raised as what `_translate_error(error, primitive, tensors,
    params)` returns, any other (a KeyError, say) as it is."""
    try:
        return _wrap(primitive.kernel(*map(_array_of, tensors), **params))
    except (ValueError, TypeError, IndexError) as error:
        raise _translate_error(error, primitive, tensors, params) from None


_installed.append(evaluate)
_array_of = attrgetter("_array")
_new = object.__new__


# We may wrap some hundred thousand arrays a second, so we write it plainly: make an empty object, fill the four fields.
# We do not call `Tensor(...)`, which would inspect the data and copy them.


def _wrap(array) -> Tensor:
    out = _new(Tensor)
    out._array = array if type(array) is ndarray else _as_result(array)
    out._requires_grad, out.grad, out._hooks = False, None, None
    return out


# A sum over everything comes back as one of NumPy's numbers and becomes an array again. `None` does not: if you write a
# kernel and forget its `return`, you should hear of it at once.


def _as_result(value):
    array = np.asarray(value)
    if value is None:
        raise TypeError("it returned None: is a `return` missing?")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"it returned {array.dtype} instead of an array of numbers")
    return array


# Any function can become an interpreter. `interpreting(fn)` puts `fn` in front of the others on this thread, for the
# length of a `with` block; `install(fn)` does it permanently and for all threads. Each `fn` receives the next
# interpreter and decides whether, and with what, to call it.
#
# `_thread.interpreter` is called with a primitive, its tensors and its parameters, while `fn` also wants the next
# interpreter, as the first of four arguments. `partial(fn, next)` is `fn` with its first argument filled in. Which
# interpreter is the next one? The one that was in `_thread.interpreter` before. If there was none, it is
# `_whatever_is_installed`, which looks up the installed one at each call. At the end of the block, you restore
# everything.
#
# One more value belongs to a thread. `_thread.listening` says whether an interpreter wants to see everything, including
# the many operations of a backward pass (chapter 07). It becomes true in a block with `backward=True`; a block with
# `backward=False` leaves it as it is.


@contextmanager
def interpreting(fn: Callable, backward: bool = True) -> Iterator[None]:  # exercise
    """Within the block, every primitive called on this thread goes to `fn(next, primitive, tensors, params) ->
    Tensor`, where `next` is the interpreter that was there before. With backward=False, those of a backward pass
    (chapter 07) do not. Afterwards, also after an error, the door is as it was before the block."""
    before = _thread.interpreter, _thread.listening
    _thread.interpreter = partial(fn, before[0] or _whatever_is_installed)
    _thread.listening = backward or before[1]
    try:
        yield
    finally:
        _thread.interpreter, _thread.listening = before


# One difference between `interpreting` and `install` matters. An interpreter of the first kind is gone at the end of
# the block, even if the block ends in an error. An installed one stays until the process ends. In this book we install
# exactly one.


def install(fn: Callable) -> None:
    """From now on, send every primitive to `fn(next, primitive, tensors, params) -> Tensor`, on every thread."""
    _installed.append(partial(fn, _installed[-1]))


def listening() -> bool:
    """Whether an interpreter on this thread wants to see everything at the moment, including the backward pass."""
    return _thread.listening


def _whatever_is_installed(primitive, tensors, params):
    return _installed[-1](primitive, tensors, params)


# The decorator `primitive` gives all of this to a kernel. The first kernels are short.
#
# For most operations the number of multiply-adds equals the number of results, and we need not declare it. For a few it
# does not, so they declare it: `cost` is a function of the result and the arguments that returns a count. Like the
# kernel, it gets arrays, not tensors: `x.size` of an array is a number.


def primitive(kernel: Callable | None = None, *, cost: Callable | None = None) -> Any:
    """Turn a kernel on arrays into an operation on tensors. `cost(out, *arrays, **params)` counts its multiply-adds."""
    return partial(primitive, cost=cost) if kernel is None else Primitive(kernel, cost)


# Here are our first three operations.


@primitive
def neg(x, /):
    """-x, element by element."""
    return np.negative(x)


@primitive
def exp(x, /):
    """e to the power of each element; inf where that is too large for the dtype."""
    with quiet():
        return np.exp(as_floats(x))


@primitive
def log(x, /):
    """Natural logarithm of each element; nan below zero, -inf at zero."""
    with quiet():
        return np.log(as_floats(x))


# NumPy would compute the `log` of integers in 64 bits. We keep to one rule instead: nothing becomes `float64` unless
# something was. `as_floats` therefore turns integers into `float32` and leaves floats alone.
#
# NumPy also prints a warning where a result is infinite or undefined. Here, as in PyTorch, `inf` and `nan` are answers,
# so the functions that give them for ordinary numbers keep `quiet`. (Sums and products do not, because asking NumPy to
# be quiet takes longer than adding four numbers, and an overflow in a sum of ordinary numbers deserves a warning.)
#
# So a new operation is a function on arrays with one line above it. We make sure that an interpreter sees each
# operation, in order.


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
# Most operations take two operands, and you will write `2 * x`, `x + array` and `counts / weights`. We need rules for
# the dtype of the result; the field calls them *type promotion*. Two suffice. A Python number takes the dtype of the
# tensor that it meets, so `x * 0.5` stays `float32`. Integers that meet floats become those floats. NumPy would use
# `float64` here; PyTorch does not, and we follow PyTorch.


class Elementwise(Primitive):
    """A primitive of two operands that broadcast against each other; they are brought to one dtype first."""

    def __call__(self, x, y) -> Any:
        try:
            same = x._array.dtype is y._array.dtype
        except AttributeError:
            return self._with_non_tensors(x, y)
        if not same:
            if self.name in ("mul", "div") and _leaves_half(x, y):
                return self(x.to(float32), y.to(float32)).to(float16)
            whole = self.name == "div" and "f" not in (x.dtype.kind, y.dtype.kind)
            x, y = (x.float(), y.float()) if whole else _one_dtype(x, y)
        return (_thread.interpreter or _installed[-1])(self, (x, y), _NO_PARAMS)

    # If one of the operands is not a tensor, it becomes one. An integer that is divided, or that divides, becomes a
    # float first, because beside `uint8` the number -1 would turn into 255. Two arrays go straight to the kernel.

    def _with_non_tensors(self, x, y):
        if isinstance(x, (np.ndarray, np.generic)) and not isinstance(y, Storage):
            return self.kernel(x, y)
        if self.name == "div":
            x, y = (float(v) if isinstance(v, (int, np.integer)) else v for v in (x, y))
        if self.name in ("mul", "div"):
            x, y = _factor(x, y), _factor(y, x)
        return self(*as_tensors((x, y)))


_NO_PARAMS: dict = {}


# A factor may be too large for `float16`, which ends at 65,504, where the product is not. *Mixed-precision training*
# multiplies losses by 65,536 before a backward pass in `float16`, so that small gradients do not become 0. We compute
# such products and quotients in `float32`.


def _factor(value, other):
    large = isinstance(value, (int, float, np.number)) and 65504 < abs(float(value)) < np.inf
    return _wrap(np.array(value, float32)) if large and getattr(other, "dtype", None) == float16 else value


def _leaves_half(x: Tensor, y: Tensor) -> bool:
    large = [not t.ndim and 65504 < abs(t.item()) < np.inf for t in (x, y)]
    return any(large) and common_dtype(x, y) == float16


# What about two kinds of floats? There NumPy's own rule, the wider one wins, is PyTorch's as well, with one exception:
# a tensor without dimensions, such as a mean, gives way like a Python number. Otherwise one statistic in `float64`
# would turn a whole network into `float64`. We may multiply truth values with anything, because they serve as masks.


def _one_dtype(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    dtype = common_dtype(x, y)
    return x.to(dtype), y.to(dtype)


# `RANK` numbers the kinds of dtypes: 0 for truth values, 1 for integers, 2 for floats. You write the rule.


def common_dtype(*tensors) -> np.dtype:  # exercise
    """The dtype in which tensors meet: floats before integers before truth values (`RANK`); within a kind the widest
    (`np.result_type` of the dtypes) of the tensors that have dimensions, or of all if none has."""
    kind = max(RANK[t.dtype.kind] for t in tensors)
    alike = [t for t in tensors if RANK[t.dtype.kind] == kind]
    return np.result_type(*(t.dtype for t in [t for t in alike if t.ndim] or alike))


# We still owe the slow path of the door, where some argument is not a tensor. `bind_params`, which every slot has,
# gives extra positional arguments the names in the kernel's signature (`sum(x, 1)`). Numbers become tensors. A call
# with NumPy arrays alone goes straight to the kernel: arrays in, array out. Chapter 07 will depend on that last rule.


def _call_with_non_tensors(primitive, args, params):
    if args and all(isinstance(a, (np.ndarray, np.generic)) for a in args):
        return primitive.kernel(*args, **params)
    tensors, params = primitive.bind_params(args, params)
    if not any(isinstance(t, Storage) for t in tensors) and isinstance(tensors[0], (np.ndarray, np.generic)):
        return primitive.kernel(*tensors, **params)
    return (_thread.interpreter or _installed[-1])(primitive, as_tensors(tensors), params)


def as_tensors(values: tuple) -> tuple:
    """The values as tensors; a number takes the dtype of the first tensor among them, if that can hold it."""
    like = next((v for v in values if isinstance(v, Storage)), None)
    return tuple(v if isinstance(v, Storage) else _as_tensor(v, like) for v in values)


# A Python `float` that meets an integer tensor needs some thought. The result of `tensor([1, 2]) * 0.5` cannot stay an
# integer, or the answer would be `[0, 1]`. So it becomes `float32`.


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
# With the door and the types in place, each kernel takes one line.


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


# For addition, subtraction and multiplication we have nothing to explain, and that is the point of kernels. Everything
# that makes them *operations* is above: the types, the door, the errors.


@elementwise
def mul(x, y, /):
    """x * y, element by element, with broadcasting."""
    return x * y


# Division of integers gives floats, as everywhere in Python; `as_floats` takes care of that. A quotient by zero is
# `inf` or `nan`, so you keep NumPy `quiet`.


@elementwise
def div(x, y, /):  # exercise
    """x / y, element by element, with broadcasting. Integers become floats; division by zero gives inf or nan."""
    with quiet():
        return as_floats(x) / as_floats(y)


# The operators `+`, `-`, `*`, `/` and `@` of the class `Tensor`, at the end of this chapter's main part, call these
# functions. Powers, quotients rounded down, comparisons and the operators of masks are in the module `methods`, because
# we have nothing new to say about them. One of them can surprise you: `x == y` answers element by element, with a
# tensor of truth values. That is useful, because a single `True` could not serve as a mask.

# ## Broadcasting
#
# Operands need not have equal shapes. We line the shapes up at their right ends; where one of them has size 1, or
# nothing, it is repeated. This is *broadcasting*:
#
# $$ (3, 1, 4) \;\text{and}\; (2, 1) \;\longrightarrow\; (3, 2, 4). $$
#
# Nothing is copied for that, because it is the stride of zero again. In the picture we add a column of shape (3, 1) and
# a row of shape (4,). The pale cells do not exist in memory.


def show_broadcasting():
    """A column (3, 1) plus a row (4,) is a matrix (3, 4); pale cells are repeated, not stored."""
    import matplotlib.pyplot as plt

    column, row = Tensor([[0], [10], [20]]), Tensor([0, 1, 2, 3])
    stored = np.zeros((3, 3, 4), bool)
    stored[0, :, 0] = stored[1, 0] = stored[2] = True
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.7))
    for ax, x, own, name in zip(axes, (column, row, column + row), stored, ("column", "+   row", "=   column + row")):
        ax.imshow(np.where(own, 0.4, 0.1), cmap="Blues", vmin=0, vmax=1)
        for i, j in np.ndindex(3, 4):
            value = x.expand(3, 4)[i, j].item()
            ax.text(j, i, f"{value:.0f}", ha="center", va="center", color="black" if own[i, j] else "gray")
        ax.set_title(f"{name}   {x.shape}", fontsize=10)
        ax.set_axis_off()
    figure.tight_layout()
    return figure


# NumPy broadcasts for us in the kernels. You write the rule down once more, because no other rule in array programming
# is misunderstood so often.
#
# We can thus subtract a row of column means from every row of a matrix, `x - x.mean(0)`. We can also subtract a column
# of row means from every column, if we keep it a column: shape (3, 1), not (3,). For a square matrix both are legal,
# and only one of them is the one you meant. That is the most common silent mistake in array programming, and the reason
# why `keepdim` exists.


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


# Our witness is NumPy, on every pair of shapes of up to three dimensions of size 1, 2 and 3. It must agree with us on
# the result and on the refusals.


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
# `matmul` does nearly all of the work in a network. An element of the product is a row of $X$ times a column of $Y$,
#
# $$ (XY)_{ij} = \sum_{l=1}^{k} X_{il}\, Y_{lj}, \qquad X : (m, k), \quad Y : (k, n). $$
#
# Each of the $m \cdot n$ elements takes $k$ multiply-adds, so the whole costs $m \cdot k \cdot n$ of them, and that is
# what its `cost` says. More than two dimensions are stacks of matrices, whose leading dimensions broadcast. A vector is
# a row on the left and a column on the right.
#
# The shapes must agree in the middle: `(2, 3) @ (3, 4)` gives `(2, 4)`, and the size along which we sum disappears. The
# product element by element is another operation, `*`. Once again both are legal for square matrices, and they give
# quite different results.
#
# A stack of matrices times *one* matrix is a special case. NumPy computes a product for each matrix of the stack.
# However, all their rows meet the same columns, so they may as well be the rows of one long matrix. One large product
# takes half the time of many small ones. So for more than two dimensions on the left and two on the right, you build
# one matrix of all rows (`as_rows`, below). You take one product and give the result the shape of the stack again.


@primitive(cost=lambda out, x, y: out.size * x.shape[-1])
def matmul(x, y, /):  # exercise
    """The matrix product x @ y of vectors, matrices or stacks of them: (..., m, k) @ (..., k, n) -> (..., m, n).

    A stack times one matrix is one product of all its rows (`as_rows`). Raises TypeError for operands of different
    dtypes (`same_dtype`)."""
    x, y = same_dtype(x, y)
    if x.ndim > 2 and y.ndim == 2:
        return (as_rows(x) @ y).reshape(*x.shape[:-1], y.shape[1])
    return x @ y


def as_rows(x):
    """x (..., n), an array or a tensor, as a matrix of all its rows, (rows, n)."""
    return x if x.ndim == 2 else x.reshape((math.prod(x.shape[:-1]), x.shape[-1]))


# With `+`, operands of two dtypes meet in one of them. In a product that would be dangerous. NumPy's default is
# `float64`, and one batch in `float64` would silently double the work of a whole network. So `same_dtype` refuses, as
# PyTorch does, and names the remedy.

# ## The same numbers in another shape
#
# Apart from slices, three primitives give us all the views. `reshape` reads the elements in the same order, which is
# *row-major*: row by row, with the last index running fastest. `permute` reorders the dimensions, and `expand` repeats
# those of size 1. PyTorch's `view`, `flatten`, `squeeze`, `unsqueeze`, `transpose` and `.T` are shorthands for them.
#
# None of the three copies elements if it can avoid that. `reshape` cannot always avoid it: the rows of a transposed
# matrix are not *contiguous* in memory, so to read them as one long row we must collect them first. `contiguous()`
# makes that copy explicitly.


@primitive
def reshape(x, /, shape):
    """The same elements, row-major, in another shape; one size may be -1. A view where the memory allows it."""
    return np.reshape(x, shape)


@primitive
def permute(x, /, dims):
    """A view with the dimensions in the order `dims`."""
    return np.transpose(x, dims)


# The rule of `expand` has two parts: new dimensions appear on the left, and -1 means *as it is*.


@primitive
def expand(x, /, shape):
    """A view in which dimensions of size 1 are repeated to `shape`; -1 keeps a size."""
    new = len(shape) - x.ndim
    if -1 in shape[: max(new, 0)]:
        raise ValueError("a dimension that is new has no size that -1 could keep")
    sizes = tuple(n if want == -1 else want for want, n in zip(shape, (1,) * new + x.shape))
    out = np.broadcast_to(x, sizes)  # which cannot be written to
    return x.reshape(sizes) if out.size == x.size else out


# Reordering is where we go wrong most easily. `reshape` to the shape of the transpose is not the transpose: it keeps
# the elements in reading order and only breaks the lines elsewhere. A matrix of two rows shows the difference.


def check_a_reshape_is_not_a_transpose():
    x = Tensor([[1, 2, 3], [4, 5, 6]])
    assert x.reshape(3, 2).tolist() == [[1, 2], [3, 4], [5, 6]]
    assert x.T.tolist() == [[1, 4], [2, 5], [3, 6]]


# ## Sums
#
# A *reduction* takes a dimension away, or keeps it with size 1 if you ask for that, so that the result still broadcasts
# against the original. For example, `x - x.mean(1, keepdim=True)` centres rows, and without `keepdim` it would centre
# something else or fail. `sum` is a primitive; mean and variance follow from it.
#
# In which dtype do we add? A running sum needs more digits than its terms. In `float16`, which has eleven bits, 2048 +
# 1 is 2048 again, so the sum of ten thousand ones would stop there; `float32` stops at $2^{24}$. So we add one width
# up, `float16` in `float32` and `float32` in `float64`, and round once, at the end. (The table `ADDED_IN` holds that
# width for each dtype.) We add integers and truth values as 64-bit integers, so that counting the `True`s in a mask
# cannot overflow.


@primitive(cost=lambda out, x, **params: x.size)
def sum(x, /, dim=None, keepdim=False):  # exercise
    """The sum over all elements, or over one dimension or several (`dim`), which stay with size 1 if `keepdim`. Floats
    are added one width up (`ADDED_IN`) and come back in their own dtype, everything else as int64."""
    total = np.add.reduce(x, axis=resolve_dims(dim, x.ndim), keepdims=keepdim, dtype=ADDED_IN.get(x.dtype, int64))
    return total.astype(x.dtype, copy=False) if x.dtype.kind == "f" else total


# We compute a mean of `float16` in `float32` altogether, because the sum of 70,000 ones is more than `float16` can
# hold, while their mean is 1. (`torch_names` lets you spell `dim` and `keepdim` as NumPy does.)


@torch_names
def mean(x, dim=None, keepdim=False):
    """The mean over all elements or over `dim`. Integers are averaged as float32."""
    if x.dtype == float16:
        return mean(x.to(float32), dim, keepdim).to(float16)
    total = sum(x, dim=dim, keepdim=keepdim)
    return total / (_size_of(x) / max(_size_of(total), 1))


def _size_of(x):
    return math.prod(x.shape)


# The variance has two conventions. Divided by $n$, it describes the elements that we have. Divided by $n - 1$, it
# estimates the variance of the population they were drawn from (*Bessel's correction*). PyTorch's default is the
# second, NumPy's is the first, and more than one reimplementation of batch normalization has failed on that difference.
#
# We subtract the mean twice, and the second time is not idle. A mean has been rounded, and at 16 million, where
# `float32` can hold integers only, it may be off by a half. The mean of the differences is exactly what the rounding
# lost.


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


# `mean` and `var` needed no kernels of their own. That is the rule of the house: an operation is a primitive, or it is
# made of primitives.
#
# With broadcasting, products, views and sums together, you can predict shapes, and no other skill saves more time in
# this field. Here are eight expressions for $x$ of shape (4, 3). Write down what you expect before you run any of them.
# Some are refused.


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


# Your answer is a dictionary, and the tests compare it with what the expressions do.


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
# positions (*advanced indexing*), masks. The module `indexing` turns tensors in an index into arrays first.


@primitive
def getitem(x, /, index):
    """The elements that `index` selects, as NumPy selects them; a view for numbers and slices."""
    picked = x[index]
    if not picked.size:
        refuse_outside(index, x.shape)
    return picked if type(picked) is ndarray else x[(*index, ...) if isinstance(index, tuple) else (index, ...)]


# The opposite of picking is placing: `place` returns zeros with the given values at the positions of the index,
# *added* where it points twice. We do not need it yet, but the chapter on gradients will. If `x[[0, 0]]` has picked the
# first element twice, then two gradients flow back to it, and an assignment would keep only one of them. A plain
# `out[index] += values` would also keep only one. (PyTorch and the literature call this operation *scatter-add*.)
#
# Slices and single numbers never point at an element twice, so for them we assign. All other positions go to
# `add_rows`, which adds up the rows that have the same position.


@primitive
def place(values, /, index, shape):
    """Zeros of `shape` with `values` added at `index`; positions that occur twice get both."""
    out = np.zeros(shape, values.dtype)
    if is_basic(index):
        out[index] = values
        return out
    if isinstance(index, ndarray) and index.dtype.kind in "iu":  # whole rows
        return add_rows(out, index.reshape(-1), values.reshape(index.size, *out.shape[1:]))
    positions = np.arange(out.size).reshape(shape)[index]
    add_rows(out.reshape(-1), positions.reshape(-1), values.reshape(-1))
    return out


# ## Writing, and the clock
#
# Reading is harmless. Writing is where frameworks go wrong: an optimizer changes a weight that another computation
# still needs, and we do not notice. So we allow writing and keep a record of it. One clock ticks at every write, and we
# store its reading for the memory block that was written to. Views share the memory, so they share its reading: a write
# through `x[0]` is seen by `x.T` as well.
#
# Why do we use a clock instead of a counter in each tensor? Because of the views. A counter in `x` would not know that
# `x[0]` was written to, unless every view carried a pointer back to its origin. NumPy has that pointer already
# (`.base`). It leads us from any view to the block of memory underneath, so we keep the reading there and drop it when
# the block is freed.

_clock = itertools.count(1)
_last_write: dict[int, tuple[weakref.ref, int]] = {}
_newest_write = [0]


def tick() -> int:
    """The next reading of the clock that all writes, and from chapter 07 all recorded operations, share."""
    return next(_clock)


def _base_array(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


# `_base_array` follows the pointers down to the block. Its readings are in a dictionary under the block's identity, and
# the weak reference removes an entry when its block is freed.


def last_write(x: Storage | None = None) -> int:
    """When the memory of `x` (of any tensor, if None) was last written to, as a reading of the clock; 0 for never."""
    return _newest_write[0] if x is None else _last_write.get(id(_base_array(x._array)), (None, 0))[1]


def _written(array: np.ndarray) -> None:
    memory = _base_array(array)
    key, now = id(memory), tick()
    _last_write[key] = (weakref.ref(memory, lambda _: _last_write.pop(key, None)), now)
    _newest_write[0] = now


# All writing goes through the method `writable()`, which ticks. Beside it the class `Tensor` needs one more method,
# which overwrites the elements. `copy_`, and the operators `x += 1`, `x -= 1` and `x[i] = value`, all of them in the
# module `in_place`, end in it. (An underscore at the end of a name means *in place*, as in PyTorch.)
#
# One restriction remains. While operations are recorded, values that have a history must not be written into a tensor
# that has none, and a tensor on record must not change under the record. Chapter 07, which knows what the record looks
# like, can then let `y += 1` change a result and remember that it did.


def recording() -> bool:
    """Whether operations on tensors that require gradients are being recorded at the moment."""
    probe = _wrap(np.zeros(()))
    probe.requires_grad = True
    return _installed[-1](neg, (probe,), {}).requires_grad


# ## Out of the world of tensors
#
# We can turn a tensor into a Python number with `item()`, into nested lists with `tolist()`, into an array with
# `numpy()`, and into a tensor of another dtype with `to()`. Each conversion makes sense for some shapes only, and says
# so for the others.
#
# `bool(x)` deserves its error most. For a tensor of three elements, `if x > 0:` is a question without an answer, so it
# is refused, as in NumPy. You have to ask for `.any()` or `.all()`.

# ## Room for gradients
#
# If you know PyTorch, you will type `x.backward()`. You should find the method, and it should tell you what is missing.
# A tensor that was not recorded has no history, so the methods in the module `history` can only say so, or keep things
# for later.
#
# One attribute is worth remembering already: `data`. It is the same memory without any history, and a change of it
# changes the tensor: `weight.data -= 0.1 * step` changes a weight, and the clock ticks.

# ## The tensor
#
# Now we can write the class that you will use: a `Storage` with a constructor, operators, methods and a way to print
# itself. The classes that we imported add the long tail: the method forms of some two hundred functions, such as
# `x.abs()` and `x.sum(1)`, most of them one line long. Their functions are in the appendices of this chapter, and the
# first of those is *More operations*.


class Tensor(Conversions, Casting, InPlace, LongTail, Reducing, Picking, Operators, Reshaping, History, Storage):
    """An array of elements with a shape and a dtype, and operations that every interpreter can see.

    `data` is copied: Python numbers and lists become float32, NumPy arrays and tensors keep their dtype.
    Raises ValueError for ragged lists, TypeError for data that are not numbers.
    """

    __slots__ = ()

    def __init__(self, data=(), dtype=None, requires_grad=False, *more):
        if type(data) is int:
            data, dtype, requires_grad = self._unset(data, dtype, requires_grad, *more), None, False
        self._array = as_array(data, dtype)
        self._requires_grad, self.grad, self._hooks = False, None, None
        self.requires_grad_(requires_grad)

    # The operators are a plain list of one-line methods. Look at `__rsub__`: Python calls it for `1 - t`, with the
    # tensor first, so we swap the operands. The other names with an `r` work alike; Python asks them when the left
    # operand is not ours.

    __array_ufunc__ = None  # so that `array * tensor` comes to us instead of to NumPy

    def __add__(self, other) -> Tensor: return add(self, other)
    def __radd__(self, other) -> Tensor: return add(other, self)
    def __sub__(self, other) -> Tensor: return sub(self, other)
    def __rsub__(self, other) -> Tensor: return sub(other, self)
    def __mul__(self, other) -> Tensor: return mul(self, other)
    def __rmul__(self, other) -> Tensor: return mul(other, self)
    def __truediv__(self, other) -> Tensor: return div(self, other)
    def __rtruediv__(self, other) -> Tensor: return div(other, self)
    def __matmul__(self, other) -> Tensor: return matmul(self, other)
    def __rmatmul__(self, other) -> Tensor: return matmul(other, self)
    def __neg__(self) -> Tensor: return neg(self)

    # The methods for shapes take sizes as `x.reshape(2, 3)` or `x.reshape((2, 3))`, and dimensions may count from the
    # end. Two helpers from `arguments` bring them into one form. `normalize_sizes(sizes)` returns a tuple of integers.
    # `resolve_dim(dim, ndim)` counts a dimension from the front and raises an IndexError, which lists the dimensions
    # there are.

    def reshape(self, *shape) -> Tensor:
        """The same elements in another shape; one size may be -1."""
        return reshape(self, shape=normalize_sizes(shape, least=-1))

    # The transposes all end in `permute`. For a stack of matrices, a transpose should swap the *last two* dimensions
    # and leave the stack alone. NumPy's `.T` reverses all of them, which mixes the matrices with their elements. So
    # ours swaps two, the last two unless you name others, and `.T` insists on a matrix. You write the one that the
    # others use.

    def permute(self, *dims) -> Tensor:
        """The dimensions in another order: x.permute(2, 0, 1)."""
        return permute(self, dims=tuple(resolve_dim(d, self.ndim) for d in unpack(dims)))

    def transpose(self, dim0: int = -2, dim1: int = -1) -> Tensor:  # exercise
        """Two dimensions swapped, the last two unless said otherwise. IndexError for one that does not exist."""
        order = list(range(self.ndim)) or [0]
        dim0, dim1 = resolve_dim(dim0, self.ndim), resolve_dim(dim1, self.ndim)
        order[dim0], order[dim1] = dim1, dim0
        return permute(self, dims=tuple(order[: self.ndim]))

    # An index with both numbers and arrays is applied in two steps, as PyTorch does it. A loop over a tensor picks its
    # rows; where nothing is recorded or metered, we can take them without going through the door.

    def __getitem__(self, index) -> Tensor:
        first, then = split_index(index, self.ndim)
        picked = getitem(self, index=first)
        return picked if then is None else getitem(picked, index=then)

    def __iter__(self) -> Iterator[Tensor]:
        if self.requires_grad or listening():
            return (getitem(self, index=i) for i in range(len(self)))
        return map(_wrap, [self._array[i, ...] for i in range(len(self))])

    # These are the two methods that write.

    def writable(self) -> np.ndarray:
        """The array itself, to be changed in place. Calling this counts as a write."""
        if not self._array.flags.writeable:
            raise RuntimeError(
                f"the memory of this tensor of shape {self.shape} cannot be written to: its elements share memory, as "
                "after expand(), view() has had to copy it, or NumPy forbids it. Use a clone()"
            )
        _written(self._array)
        return self._array

    # The source broadcasts to this tensor, but never the other way round.

    def _overwrite(self, source) -> Self:
        """Overwrite the elements with those of `source`, broadcast and converted."""
        values = source if isinstance(source, Storage) else _wrap(as_array(source))
        if broadcast_shape(self.shape, values.shape) != self.shape:
            raise ValueError(f"values of shape {values.shape} do not fit into a tensor of shape {self.shape}")
        self._refuse_if_recorded(values)
        with quiet():
            np.copyto(self.writable(), values._array, casting="unsafe")
        return self

    # How does the code of this chapter find out whether operations are being recorded? It tries one. `recording`,
    # above, sends a number that requires a gradient through the installed interpreters and looks whether the result
    # requires one, too. We try only if one of the tensors at hand requires a gradient.

    def _refuse_if_recorded(self, *tensors):
        if any(getattr(t, "requires_grad", False) for t in tensors) and recording():
            raise RuntimeError(
                f"a tensor of shape {self.shape} cannot be changed in place while operations on it are recorded: the "
                "change would falsify gradients or be lost to them. Make a new tensor (x = x + y, where(), cat()), or "
                "change it under no_grad()"
            )

    # A tensor can leave its history behind and keep its memory.

    def detach(self) -> Tensor:
        """The same memory without the history."""
        return _wrap(self._array)

    # We print the dtype only if it is not one of the three usual ones.

    def __repr__(self) -> str:
        usual = self.dtype in (float32, int64, bool_)
        parts = [np.array2string(self._array, separator=", ", prefix="tensor(", precision=4)]
        parts += ([] if usual else [f"dtype={self.dtype}"]) + ([self._history()] if self.requires_grad else [])
        return f"tensor({', '.join(parts)})"

    def _history(self) -> str:
        return "requires_grad=True"


# Errors should name the class that you use, and not the base that a method comes from.

for layer in Tensor.__mro__[1:-1]:
    for name, method in vars(layer).items():
        if inspect.isfunction(method):
            method.__qualname__ = f"Tensor.{name}"


# `Tensor([1, 2])` is `float32`, as `torch.Tensor([1, 2])` is. For labels we want integers to stay integers. PyTorch's
# lower-case `tensor` looks at the data, and so does ours.


def tensor(data, dtype=None, requires_grad=False) -> Tensor:
    """A tensor whose dtype follows the data: float32 for floats, int64 for integers, bool for truth values."""
    if dtype is None and not isinstance(data, (np.ndarray, np.generic, Storage)):
        kinds = _kinds(data)
        plain = float32 if float in kinds else int64 if int in kinds else bool_ if bool in kinds else float32
        dtype = _dtype_of(data, plain)
    return _wrap(as_array(data, dtype)).requires_grad_(requires_grad)


# Both copy. `from_numpy` does not: it shares memory with the array, in both directions. Which of the three should you
# use? `Tensor` for numbers in a program, `tensor` for labels and masks, `from_numpy` for large data that should not be
# in memory twice.


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor on the memory of `array`, which is not copied: a change of one changes the other."""
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


# We also need tensors of one number and of random numbers. (The appendix has the other factories: `arange`, `linspace`,
# `eye`, `rand` and their relatives.) All random numbers come from the one generator of chapter 01, so one seed fixes
# all of them.


def full(size, fill_value, dtype=None, requires_grad=False) -> Tensor:
    """A tensor of shape `size` filled with one number, in the dtype that `tensor(fill_value)` has if none is given."""
    fill_value = fill_value.item() if isinstance(fill_value, np.generic) else fill_value
    value = as_array(tensor(fill_value)) if dtype is None else number_as(fill_value, resolve_dtype(dtype))
    shape = normalize_sizes(size if isinstance(size, (tuple, list)) else (size,))
    return _wrap(np.full(shape, value)).requires_grad_(requires_grad)


def zeros(*size, dtype=float32, requires_grad=False) -> Tensor:
    """A tensor of zeros: zeros(2, 3)."""
    return full(unpack(size), 0, dtype or float32, requires_grad)


def ones(*size, dtype=float32, requires_grad=False) -> Tensor:
    """A tensor of ones: ones(2, 3)."""
    return full(unpack(size), 1, dtype or float32, requires_grad)


# NumPy draws `float32` and `float64`; for `float16` we round.


def randn(*size, dtype=float32, requires_grad=False) -> Tensor:
    """Random numbers from the normal distribution with mean 0 and variance 1. Raises TypeError for a dtype of
    integers."""
    dtype = drawn_dtype("randn", dtype)
    values = generator().standard_normal(normalize_sizes(size), dtype=float32 if dtype == float16 else dtype)
    return _wrap(np.asarray(values, dtype)).requires_grad_(requires_grad)


# ## A first client of the door: the meter
#
# We return to the questions that `SmallestTensor` could not answer. The meter is an interpreter that lets the operation
# run and then counts the multiply-adds and the bytes that were read and written. An operation that does not declare a
# cost counts one multiply-add for each element of its result. A view costs nothing, because it moves nothing.
#
# How can we know, from outside, that an operation moved nothing? We ask whether the result is in the same block of
# memory as one of the inputs: `_base_array(array)` is that block, the same object for all its views. The clock asks the
# same question.
#
# Everything in the meter is about arrays, which a tensor keeps in `_array`. The `cost` of a primitive gets arrays as
# well: the array of the result, those of the inputs, and the parameters by name.


class Meter:
    """Multiply-adds, bytes and calls, in all and for each primitive."""

    def __init__(self):
        self.multiply_adds, self.bytes, self.calls = Counter(), Counter(), Counter()

    # A meter is called like any interpreter.

    def __call__(self, next, primitive, tensors, params):  # exercise
        """The interpreter: what `next(primitive, tensors, params)` returns, after it has been counted under the name of
        the primitive. Every call counts in `calls`. Unless the result shares the memory of an input, `multiply_adds`
        grows by the primitive's `cost(out, *arrays, **params)` of arrays, or if it is None by the number of elements of
        the result, and `bytes` by the `nbytes` of all inputs and of the result."""
        out = next(primitive, tensors, params)
        arrays = [t._array for t in tensors]
        self.calls[primitive.name] += 1
        if not any(_base_array(out._array) is _base_array(a) for a in arrays):
            cost = primitive.cost(out._array, *arrays, **params) if primitive.cost else out._array.size
            self.multiply_adds[primitive.name] += int(cost)
            self.bytes[primitive.name] += builtins.sum(a.nbytes for a in arrays) + out._array.nbytes
        return out

    # Printed, it is a table with a row for each primitive and one for all of them together.

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
# Let us meter a layer of a network, $X W^T + b$, for 64 rows of 784 numbers and 256 outputs. The formula predicts $64
# \cdot 784 \cdot 256 = 12{,}845{,}056$ multiply-adds for the product and $64 \cdot 256 = 16{,}384$ additions.


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


# What does the door cost? For a large array we cannot measure it. For a small one it is most of the time. NumPy needs a
# fraction of a microsecond to multiply four numbers, and the way through `__mul__`, the primitive, the interpreter and
# a new tensor takes longer than that.


def show_door():
    print(f"{'elements':>10s} {'NumPy':>10s} {'Tensor':>10s}   us a product")
    for size in (4, 1_000, 100_000, 1_000_000):
        array = np.ones(size, np.float32)
        x = from_numpy(array)
        bare, ours = measure(lambda: array * array).seconds, measure(lambda: x * x).seconds
        print(f"{size:10,d} {bare * 1e6:10.2f} {ours * 1e6:10.2f}")


# That is the price of being able to look. Chapter 19 will ask where a training step spends its time, and the answer
# will come out of this door; by then the price will have been worth paying.

# ## Kernels can be exchanged
#
# A *kernel set* is a plain module whose functions have the names and signatures of primitives. `use_kernels` puts them
# into the slots for the length of a block. Our set has one kernel, the product as a textbook defines it: for each row,
# for each column, for each position in between, multiply and add.


def matmul_in_loops(x, y, /):
    """The product of two matrices, element by element."""
    out = np.zeros((x.shape[0], y.shape[1]), x.dtype)
    for i, j, k in np.ndindex(*out.shape, x.shape[1]):
        out[i, j] += x[i, k] * y[k, j]
    return out


textbook = SimpleNamespace(__name__="textbook", matmul=matmul_in_loops)


# It is useless for work and very useful as a witness, because the fast kernel must agree with the definition. (The
# appendix *Loops* is a set of such definitions for nearly all primitives.)


def check_kernels_agree():
    x, y = randn(4, 5), randn(5, 3)
    fast = (x @ y).sum(1)
    with use_kernels(textbook):
        slow = (x @ y).sum(1)
    assert np.allclose(fast.numpy(), slow.numpy(), atol=1e-5)


# Each step of the loop is work for Python's interpreter, and beside that the multiplication itself does not count. How
# much do we gain from NumPy's compiled loops?


def show_kernels():
    x = randn(32, 32)
    fast = measure(lambda: x @ x).seconds
    with use_kernels(textbook):
        slow = measure(lambda: x @ x).seconds
    print(f"32 x 32 product: loops {slow * 1e3:.1f} ms, default {fast * 1e6:.1f} us, {slow / fast:,.0f} times faster")


# The signatures must be equal, down to the names. A kernel that takes `axis` where the primitive says `dim` would work
# for a while and fail at the first call that passes the parameter by name. The kind of callable does not matter: it may
# be a function, a `partial`, or compiled code. Slots belong to the whole process. Two threads that exchanged kernels at
# the same time would compute with each other's, so the second one is refused.
#
# As with interpreters, there is a second way: the kernels that `install_kernels` puts into the slots stay there.
# Chapter 15 installs faster kernels for a whole program with it.

# ## Errors you will meet
#
# A kernel that fails knows arrays and axes. You want to read the operation, the shapes that you gave it, and what to
# do. Because there is only one door, we need to translate in only one place.


def _translate_error(error, primitive, tensors, params):
    name, shapes = _CALLED.get(primitive.name, primitive.name), " and ".join(str(t.shape) for t in tensors)
    given = "".join(f", {k}={as_written(v)}" for k, v in params.items())
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
    return kind(f"{name} of shape {shapes}{given}: {in_our_words(error)}")


_CALLED = {"choose": "where", "concat": "cat", "take_along": "gather", "largest_first": "topk"}


# These are the errors that you will meet most often.


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
# You can write every function that is marked as an exercise on this page and put it in place of ours. Here are two
# more, each with its check:
#
# 1. `pairwise_distances`: the Euclidean distance of each row of `x` to each row of `y`, without a loop and without
#    subtracting every pair. Expand the square, $\lVert x - y \rVert^2 = \lVert x \rVert^2 + \lVert y \rVert^2 - 2\, x
#    \cdot y$, and you need one matrix product.
# 2. `operations_of`: the names of the primitives that a function calls, in order. Use the door.
#
# The first needs the pattern of all tables of pairs: a column and a row broadcast to a matrix. Here it is for products,
# the *outer product* of two vectors.


def outer(x: Tensor, y: Tensor) -> Tensor:
    """The outer product of vectors of n and m elements, of shape (n, m)."""
    return x.unsqueeze(1) * y.unsqueeze(0)


def check_outer():
    assert outer(Tensor([1, 2]), Tensor([3, 4, 5])).tolist() == [[3, 4, 5], [6, 8, 10]]


# Now it is your turn. The squares of the lengths are such a column and such a row.


def pairwise_distances(x: Tensor, y: Tensor) -> Tensor:  # exercise
    """Distances between the rows of x (n, d) and of y (m, d), of shape (n, m); never nan, although rounding may make a
    square a little less than 0."""
    squares = (x * x).sum(1, keepdim=True) + (y * y).sum(1) - 2 * (x @ y.T)
    return squares.clip(min=0.0).sqrt()


def check_pairwise_distances():
    assert np.allclose(pairwise_distances(Tensor([[0, 0], [3, 4]]), Tensor([[0, 0], [0, 4]])).numpy(), [[0, 4], [5, 3]])


# The second is an interpreter of your own.


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
# device, layout and transformation. Python code can enter it through `__torch_dispatch__`. tinygrad has no door at that
# place. It uses *lazy evaluation*: an operation on its tensors computes nothing, but adds a node to a *computational
# graph*, which is compiled when you ask for values. A compiler then sees the whole program, but you cannot set a
# breakpoint in the middle and see a value. We compute at once, which is called *eager execution*.

# ## What hurts next
#
# We can write down a linear map and apply it. A network has many layers, so let us stack two of them, with 64 numbers
# in between. Matrix multiplication is associative,
#
# $$ (X W_1)\, W_2 = X\, (W_1 W_2), $$
#
# and the right-hand side is a single layer. Does the machine agree?


def show_collapse():
    x, first, second = randn(1000, 8), randn(8, 64), randn(64, 3)
    two_layers = (x @ first) @ second
    one_layer = x @ (first @ second)
    difference = (two_layers - one_layer).abs().max().item() / two_layers.abs().max().item()
    print(f"two layers, {first.numel() + second.numel()} numbers; one layer, {(first @ second).numel()} numbers")
    print(f"largest difference between their answers: {difference:.1e} of the largest answer")


# The difference is rounding error. Our 704 numbers can say no more than 24, and a thousand stacked linear maps could
# say no more either. We need a function between the layers that is not linear. That is chapter 03, *Activations*.

__all__ = [
    "ADDED_IN", "Elementwise", "Meter", "PRIMITIVES", "Primitive", "SHAPES_TO_PREDICT", "SLOTS", "Slot", "Tensor",
    "add", "as_array", "as_rows", "as_tensors", "bool_", "broadcast_shape", "common_dtype", "div", "elementwise",
    "evaluate", "exp", "expand", "float16", "float32", "float64", "from_numpy", "full", "getitem", "install",
    "install_kernels", "int32", "int64", "interpreting", "kernels_in_use", "last_write", "listening", "log", "matmul",
    "mean", "meter", "mul", "neg", "ones", "operations_of", "outer", "pairwise_distances", "permute", "place",
    "predict_shapes", "primitive", "quiet", "randn", "recording", "reshape", "slot", "sub", "sum", "tensor",
    "tick", "uint8", "use_kernels", "var", "zeros",
]
