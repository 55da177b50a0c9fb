"""Chapter 02 on PyTorch: a Tensor is a torch.Tensor, and the kernel of a primitive is a function of torch."""

from __future__ import annotations

import builtins
import inspect
import itertools
import math
import re
import threading
from collections import Counter
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

from tt_torch.as_written import as_written

from .setup import generator

float16, float32, float64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
uint8, int32, int64, bool_ = np.dtype(np.uint8), np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.bool_)

# ## What is said differently
#
# A dtype is NumPy's here, chance comes from the generator of chapter 01, and a wrong shape is a ValueError.


def torch_dtype(dtype):
    """PyTorch's dtype for one of NumPy's, or for None."""
    return dtype if dtype is None or isinstance(dtype, torch.dtype) else getattr(torch, np.dtype(dtype).name)


_NUMPY_DTYPES = {torch_dtype(d): d for d in (float16, float32, float64, uint8, int32, int64, bool_)}


def numpy_dtype(dtype):
    """NumPy's dtype for one of PyTorch's. Raises TypeError for one that a tensor of the course cannot have."""
    if dtype not in _NUMPY_DTYPES:
        raise TypeError(f"a tensor holds real numbers of {', '.join(map(str, _NUMPY_DTYPES.values()))}, not {dtype}")
    return _NUMPY_DTYPES[dtype]


def chance() -> torch.Generator:
    """PyTorch's generator, after a seed that is drawn from ours, so that one seed fixes both."""
    return torch.manual_seed(int(generator().integers(2**62)))


def explained(error, call):
    """What the course raises where PyTorch raises a RuntimeError; gradients aside, that is about what was passed in."""
    text = str(error).partition("\n")[0]
    if "grad" in text:
        return error
    kind = IndexError if isinstance(error, IndexError) or re.search("out of bounds|out of range", text) else ValueError
    return (TypeError if re.search("scalar type|dtype", text) else kind)(f"{call}: {text}")


def refusing(function):
    """A function whose errors are explained."""

    def call(*args, **params):
        try:
            return function(*args, **params)
        except (RuntimeError, IndexError) as error:
            raise explained(error, function.__name__) from None

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    return call


# ## Tensor


def ours(result):
    """The tensors in what torch returned, as ours."""
    if isinstance(result, torch.Tensor):
        return result if isinstance(result, Tensor) else result.as_subclass(Tensor)
    return type(result)(map(ours, result)) if type(result) in (tuple, list) else result


def as_array(data, dtype=None) -> np.ndarray:
    """A fresh array with the values of `data`: numbers and (nested) lists become float32, others keep their dtype."""
    if isinstance(data, torch.Tensor):
        data = torch.Tensor.numpy(data.detach())
    if dtype is None and not hasattr(data, "dtype"):
        first = data
        while isinstance(first, (list, tuple)) and first:
            first = first[0]
        dtype = getattr(first, "dtype", float32)
    try:
        array = np.array(data)
    except (ValueError, TypeError) as error:
        raise type(error)("rows of a tensor have equal lengths and hold numbers") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"a tensor holds real numbers; this data has NumPy dtype {array.dtype}")
    return array if dtype is None else array.astype(dtype, copy=False)


class Tensor(torch.Tensor):
    """A torch.Tensor that is built, converted and printed as chapter 02 says; most of its methods are PyTorch's."""

    __array_ufunc__ = None

    def __new__(cls, data, dtype=None, requires_grad=False):
        return torch.from_numpy(as_array(data, dtype)).as_subclass(cls).requires_grad_(requires_grad)

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*args, **(kwargs or {}))
        return ours(result)

    def __repr__(self):
        theirs = (self.detach() if self.is_leaf else self).as_subclass(torch.Tensor)
        return repr(theirs.requires_grad_(self.requires_grad) if self.is_leaf else theirs)

    dtype = property(lambda self: numpy_dtype(torch.Tensor.dtype.__get__(self)))

    def wrap_rules(self, wrap):
        """Nothing: PyTorch's rules are written in C++, where a function of Python cannot be put around them."""

    # shapes

    def reshape(self, *shape):
        return reshape(self, shape=_unpacked(shape))

    def permute(self, *dims):
        return permute(self, dims=_unpacked(dims))

    def expand(self, *shape):
        return expand(self, shape=_unpacked(shape))

    def transpose(self, dim0=-2, dim1=-1):
        order = list(range(self.ndim))
        order[dim0], order[dim1] = order[dim1], order[dim0]
        return permute(self, dims=tuple(order))

    @property
    def T(self):
        if self.ndim > 2:
            raise ValueError(f".T is for matrices, not for shape {tuple(self.shape)}; use .mT or permute()")
        return permute(self, dims=tuple(reversed(range(self.ndim))))

    def __getitem__(self, index):
        return getitem(self, index=index)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    # writing: as in the course, into the memory and past the record

    def writable(self):
        """The memory as an array that can be written to."""
        return torch.Tensor.numpy(self.detach())

    @refusing
    def copy_(self, source):
        with torch.no_grad():
            return torch.Tensor.copy_(self, _as_tensor(source))

    def fill_(self, value):
        return self.copy_(value)

    def zero_(self):
        return self.copy_(0)

    @refusing
    def __setitem__(self, index, value):
        torch.Tensor.__setitem__(self, _positions(index), _as_tensor(value, self))

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, values):
        if np.shape(values) != tuple(self.shape):
            raise ValueError(f"values of shape {np.shape(values)} cannot replace those of shape {tuple(self.shape)}")
        self.copy_(values)

    # out of the world of tensors

    def numpy(self):
        array = self.writable()
        array.flags.writeable = False
        return array

    def __array__(self, dtype=None, copy=None):
        return np.array(self.numpy(), dtype=dtype) if copy or dtype else self.numpy()

    def __deepcopy__(self, memo):
        if isinstance(self, torch.nn.Parameter):
            return torch.nn.Parameter.__deepcopy__(self, memo)
        return memo.setdefault(id(self), ours(self.detach().clone()))

    item, __bool__ = refusing(torch.Tensor.item), refusing(torch.Tensor.__bool__)

    def __float__(self):
        return float(self.item())

    def to(self, dtype=None, device=None):
        if dtype is None or isinstance(dtype, torch.device) or self.dtype == dtype:
            return self
        return cast(self, dtype=np.dtype(dtype))

    # gradients

    @property
    def grad(self):
        if not (self.is_leaf or self.retains_grad):  # PyTorch warns of asking
            return None
        gradient = torch.Tensor.grad.__get__(self)
        if gradient is None or isinstance(gradient, Tensor):
            return gradient
        self.grad = ours(gradient)
        return torch.Tensor.grad.__get__(self)

    @grad.setter
    def grad(self, gradient):
        torch.Tensor.grad.__set__(self, gradient)

    def backward(self, gradient=None, retain_graph=None, create_graph=False):
        gradient = None if gradient is None else _as_tensor(gradient).as_subclass(torch.Tensor)
        torch.autograd.backward(self.as_subclass(torch.Tensor), gradient, retain_graph, create_graph)

    def register_hook(self, hook):
        return torch.Tensor.register_hook(self, lambda gradient: hook(ours(gradient))).remove


def _unpacked(sizes):
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes


def _as_tensor(value, like=None) -> Tensor:
    if isinstance(value, torch.Tensor):
        return ours(value)
    if like is None or not isinstance(value, (bool, int, float)):
        return Tensor(value)
    dtype = like.dtype
    if isinstance(value, float) and dtype.kind != "f":
        dtype = float32
    elif dtype == bool_ and not isinstance(value, bool):
        dtype = int64
    return Tensor(value, dtype)


# ## The door
#
# The course's, word for word, but that a kernel of PyTorch gets tensors, and keeps the record by itself. A kernel from
# elsewhere gets arrays, as chapter 02 promises.

SLOTS: dict[str, Slot] = {}
PRIMITIVES: dict[str, Primitive] = {}


class Slot:
    """A function on arrays with a name, whose kernel can be exchanged."""

    def __init__(self, kernel):
        self.name, self.kernel = kernel.__name__, kernel
        self.signature = inspect.signature(kernel)
        self.__name__, self.__doc__, self.__module__ = kernel.__name__, kernel.__doc__, kernel.__module__
        SLOTS[self.name] = self

    def __call__(self, *args, **params):
        return self.kernel(*args, **params)

    def __repr__(self):
        return f"<slot {self.name}>"

    def __copy__(self, memo=None):
        return self

    __deepcopy__ = __copy__


def slot(kernel):
    """Turn a function on arrays into one whose kernel `use_kernels` can exchange."""
    return Slot(kernel)


class Primitive(Slot):
    """An operation on tensors: a name, a kernel that can be exchanged, and an estimate of its cost."""

    native = None  # the kernel of PyTorch, if it has one

    def __init__(self, kernel, cost=None):
        super().__init__(kernel)
        self.cost = cost
        PRIMITIVES[self.name] = self

    def __get__(self, tensor, cls=None):
        return self if tensor is None else partial(self, tensor)  # so that it can be a method

    def __call__(self, *args, **params):
        tensors, params = self._sorted(args, params)
        like = next((t for t in tensors if isinstance(t, torch.Tensor)), None)
        if like is None and any(isinstance(t, (np.ndarray, np.generic)) for t in tensors):
            return _on_arrays(self, tensors, params)
        return (_here.top or _installed[-1])(self, tuple(_as_tensor(t, like) for t in tensors), params)

    def _sorted(self, args, params):
        params = {{"axis": "dim", "keepdims": "keepdim"}.get(name, name): value for name, value in params.items()}
        self.signature.bind(*args, **params)
        kinds = self.signature.parameters.items()
        if any(p.kind is p.VAR_POSITIONAL for _, p in kinds):
            return args, params
        names = [name for name, p in kinds if p.kind is not p.POSITIONAL_ONLY]
        count = len(kinds) - len(names)
        return args[:count], dict(zip(names, args[count:]), **params)

    def __repr__(self):
        return f"<primitive {self.name}>"


def _on_arrays(primitive, arrays, params):
    if primitive.kernel is not primitive.native:
        return primitive.kernel(*arrays, **params)
    return evaluate(primitive, tuple(map(Tensor, arrays)), params).numpy().copy()


class _Here(threading.local):
    top = None


_here = _Here()


def evaluate(primitive, tensors, params) -> Tensor:
    """The ordinary interpreter: the kernel's result, as a new tensor."""
    if primitive.kernel is not primitive.native:
        return Tensor(np.asarray(primitive.kernel(*(t.numpy() for t in tensors), **params)))
    try:
        with torch._C.DisableTorchFunctionSubclass():
            return ours(primitive.kernel(*tensors, **params))
    except (RuntimeError, IndexError) as error:
        shapes = " and ".join(str(tuple(t.shape)) for t in tensors)
        raise explained(error, f"{primitive.name} of shape {shapes}, {params}") from None


_installed = [evaluate]


@contextmanager
def interpreting(fn, backward=True):
    """Within the block, every primitive called on this thread goes to `fn(next, primitive, tensors, params)`. PyTorch's
    backward pass never does."""
    before = _here.top
    _here.top = partial(fn, before or (lambda *call: _installed[-1](*call)))
    try:
        yield
    finally:
        _here.top = before


def install(fn):
    """From now on, every primitive goes to `fn(next, primitive, tensors, params)`, on every thread."""
    _installed.append(partial(fn, _installed[-1]))


def listening():
    """Is somebody `interpreting` on this thread at the moment?"""
    return _here.top is not None


def primitive(kernel=None, *, cost=None):
    """Turn a kernel on arrays into an operation on tensors. `cost(out, *arrays, **params)` counts its multiply-adds."""
    return partial(primitive, cost=cost) if kernel is None else Primitive(kernel, cost)


class Elementwise(Primitive):
    """A primitive of two operands that broadcast against each other."""


def elementwise(kernel):
    """Turn a kernel of two arrays that broadcast into an operation on tensors."""
    return Elementwise(kernel)


def native(kernel=None, *, cost=None, kind=Primitive):
    """Turn a kernel of PyTorch into an operation on tensors, which is a method of Tensor, too, if it is one in PyTorch.

    Not if it is elementwise: PyTorch's optimizers call such methods with options that the course does not know."""
    if kernel is None:
        return partial(native, cost=cost, kind=kind)
    made = kind(kernel, cost)
    made.native = kernel
    if kind is Primitive and hasattr(torch.Tensor, made.name) and made.name not in vars(Tensor):
        setattr(Tensor, made.name, made)
    return made


def unary(function, name=None):
    """A function of torch with one operand as a primitive."""

    def kernel(x, /):
        return function(x)

    kernel.__name__, kernel.__doc__ = name or function.__name__, function.__doc__
    return native(kernel)


def binary(function, name=None):
    """A function of torch with two operands that broadcast as a primitive."""

    def kernel(x, y, /):
        return function(x, y)

    kernel.__name__, kernel.__doc__ = name or function.__name__, function.__doc__
    return native(kernel, kind=Elementwise)


def quiet():
    """A context in which NumPy does not warn of inf and nan; PyTorch never does."""
    return np.errstate(divide="ignore", invalid="ignore", over="ignore")


def gradient_of(output, x, create_graph=False):
    """d(output)/dx by autograd, which wants outputs with a dtype of PyTorch."""
    return torch.autograd.grad(output.as_subclass(torch.Tensor), x, create_graph=create_graph)[0]


# ## Primitives

neg, exp, log = unary(torch.neg), unary(torch.exp), unary(torch.log)
add, sub, mul, div = binary(torch.add), binary(torch.sub), binary(torch.mul), binary(torch.div)
eq, ne, lt, le, gt, ge = map(binary, (torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge))
power_of = binary(torch.pow, "power_of")


@native
def power(x, /, exponent):
    return torch.pow(x if exponent >= 0 else x.float() if not x.is_floating_point() else x, exponent)


def pow(x, exponent):
    """x to the power of a number or of a tensor."""
    number = isinstance(exponent, (int, float))
    return power(x, exponent=exponent) if number else power_of(x, exponent)


@native(cost=lambda out, x, y: out.size * x.shape[-1])
def matmul(x, y, /):
    return torch.matmul(*one_dtype(x, y))


def one_dtype(*operands):
    """The operands. Raises TypeError for different dtypes, as the course does."""
    dtypes = [torch.Tensor.dtype.__get__(operand) for operand in operands]
    if len(set(dtypes)) > 1:
        listed = " and ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"matmul: the operands have dtypes {listed}; give them one, for example by x.float()")
    return operands


@native
def reshape(x, /, shape):
    return torch.reshape(x, shape)


@native
def permute(x, /, dims):
    return torch.permute(x, dims)


@native
def expand(x, /, shape):
    return torch.Tensor.expand(x, shape)


def _over_all(out, x, **params):
    return x.size


@native(cost=_over_all)
def sum(x, /, dim=None, keepdim=False):
    return torch.sum(x, dim=dim, keepdim=keepdim)


@native(cost=_over_all)
def mean(x, /, dim=None, keepdim=False):
    return torch.mean(x if x.is_floating_point() else torch.Tensor.float(x), dim=dim, keepdim=keepdim)


@native(cost=_over_all)
def var(x, /, dim=None, correction=1, keepdim=False):
    return torch.var(x, dim=dim, correction=correction, keepdim=keepdim)


@native(cost=_over_all)
def std(x, /, dim=None, correction=1, keepdim=False):
    return torch.std(x, dim=dim, correction=correction, keepdim=keepdim)


@native
def getitem(x, /, index):
    return torch.Tensor.__getitem__(x, _positions(index))


@native
def place(values, /, index, shape):
    count = int(np.prod(shape))
    positions = torch.arange(count).reshape(shape)[_positions(index)].reshape(-1)
    return values.new_zeros(count).index_add(0, positions, values.reshape(-1)).reshape(shape)


def _positions(index):
    if isinstance(index, tuple):
        return tuple(map(_positions, index))
    if isinstance(index, (list, np.ndarray)):
        index = np.asarray(index)
        return torch.tensor(index.astype(np.int64) if index.dtype.kind in "iu" or not index.size else index)
    return index


@native
def cast(x, /, dtype):
    return torch.Tensor.to(x, torch_dtype(dtype))


def _reflected(operation):
    return lambda self, other: operation(other, self)


for _sign, _operation in {
    "add": add, "sub": sub, "mul": mul, "truediv": div, "matmul": matmul, "pow": pow,
}.items():
    setattr(Tensor, f"__{_sign}__", _operation)
    setattr(Tensor, f"__r{_sign}__", _reflected(_operation))
for _operation in (neg, lt, le, gt, ge):
    setattr(Tensor, f"__{_operation.name}__", _operation)


def _comparing(operation):
    kinds = (bool, int, float, list, tuple, np.ndarray, np.generic, torch.Tensor)
    return lambda self, other: operation(self, other) if isinstance(other, kinds) else NotImplemented


Tensor.__eq__, Tensor.__ne__ = _comparing(eq), _comparing(ne)


def as_rows(x):
    """x (..., n), an array or a tensor, as a matrix of all its rows, (rows, n)."""
    return x.reshape((math.prod(x.shape[:-1]), x.shape[-1]))


def broadcast_shape(*shapes):
    """The shape to which all `shapes` broadcast. Raises ValueError when they do not."""
    try:
        return tuple(torch.broadcast_shapes(*shapes))
    except RuntimeError as error:
        raise ValueError(f"shapes {' and '.join(map(str, shapes))} do not broadcast: {error}") from None


# ## To begin with


def tensor(data, dtype=None, requires_grad=False):
    """torch.tensor: the dtype follows the data."""
    if dtype is None and not hasattr(data, "dtype"):
        dtype = numpy_dtype(torch.tensor(data).dtype)
    return Tensor(data, dtype, requires_grad)


def from_numpy(array):
    """A tensor on the memory of `array`, which is not copied."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise TypeError(f"from_numpy needs an array of numbers, not {getattr(array, 'dtype', type(array).__name__)}")
    return ours(torch.from_numpy(array))


def full(size, fill_value, dtype=float32, requires_grad=False):
    """A tensor of shape `size` filled with one number."""
    return ours(torch.full(size, fill_value, dtype=torch_dtype(dtype))).requires_grad_(requires_grad)


def zeros(*size, dtype=float32, requires_grad=False):
    """A tensor of zeros."""
    return ours(torch.zeros(_unpacked(size), dtype=torch_dtype(dtype))).requires_grad_(requires_grad)


def ones(*size, dtype=float32, requires_grad=False):
    """A tensor of ones."""
    return ours(torch.ones(_unpacked(size), dtype=torch_dtype(dtype))).requires_grad_(requires_grad)


def arange(start, end=None, step=1, dtype=None):
    """start, start + step, ... up to but without `end`."""
    start, end = (0, start) if end is None else (start, end)
    return ours(torch.arange(start, end, step, dtype=torch_dtype(dtype)))


def rand(*size, dtype=float32, requires_grad=False):
    """Uniform random numbers from [0, 1)."""
    chance()
    return ours(torch.rand(_unpacked(size), dtype=torch_dtype(dtype))).requires_grad_(requires_grad)


def randn(*size, dtype=float32, requires_grad=False):
    """Random numbers from the normal distribution with mean 0 and variance 1."""
    chance()
    return ours(torch.randn(_unpacked(size), dtype=torch_dtype(dtype))).requires_grad_(requires_grad)


# ## Who looks on

_clock = itertools.count(1)


def tick():
    """The next reading of a clock, of which PyTorch knows nothing: see `last_write`."""
    return next(_clock)


def last_write(x=None):
    """How often the memory of `x` was written to: PyTorch counts for each memory, and has no clock for all of them."""
    return 0 if x is None else x._version


class Meter:
    """Multiply-adds, bytes and calls, in all and for each primitive."""

    def __init__(self):
        self.multiply_adds, self.bytes, self.calls = Counter(), Counter(), Counter()

    def __call__(self, next, primitive, tensors, params):
        out = next(primitive, tensors, params)
        self.calls[primitive.name] += 1
        memory = out.untyped_storage().data_ptr()
        if not any(t.untyped_storage().data_ptr() == memory for t in tensors):
            arrays = [t.numpy() for t in (out, *tensors)]
            cost = primitive.cost(*arrays, **params) if primitive.cost else out.numel()
            self.multiply_adds[primitive.name] += int(cost)
            self.bytes[primitive.name] += builtins.sum(array.nbytes for array in arrays)
        return out


@contextmanager
def meter():
    """Count what the block computes: `with meter() as m: ...; print(m)`."""
    counts = Meter()
    with interpreting(counts):
        yield counts


@contextmanager
def use_kernels(module):
    """Within the block, primitives run the kernels of the same names in `module`, on arrays."""
    kernels = {
        name: f
        for name, f in vars(module).items()
        if inspect.isfunction(f) and f.__module__ == module.__name__ and name[0] != "_"
    }
    before = install_kernels(kernels)
    try:
        yield
    finally:
        for name, kernel in before.items():
            SLOTS[name].kernel = kernel


def install_kernels(kernels, name=None):
    """From now on, the slots of these names run these kernels. Returns the kernels that were there."""
    _name[:] = [name or _name[0]]
    for name, kernel in kernels.items():
        if name not in SLOTS or str(SLOTS[name].signature) != str(inspect.signature(kernel)):
            raise ValueError(f"{name}{inspect.signature(kernel)} fits no primitive")
    before = {name: SLOTS[name].kernel for name in kernels}
    for name, kernel in kernels.items():
        SLOTS[name].kernel = kernel
    return before


_name = ["default"]  # of the installed kernels


def kernels_in_use():
    """The name that `install_kernels` was told last."""
    return _name[0]


# ## Exercises


def outer(x, y):
    """torch.outer."""
    return torch.outer(x, y)


def pairwise_distances(x, y):
    """torch.cdist."""
    return torch.cdist(x, y)


def operations_of(function, *args):
    """The names of the primitives that `function(*args)` calls, in the order of the calls."""
    names = []
    with interpreting(lambda next, primitive, *call: (names.append(primitive.name), next(primitive, *call))[1]):
        function(*args)
    return names


def common_dtype(*tensors):
    """The dtype in which tensors meet."""
    met = tensors[0]
    for tensor in tensors[1:]:
        met = torch.zeros([1] * builtins.max(met.ndim, tensor.ndim), dtype=torch.result_type(met, tensor))
    return numpy_dtype(torch_dtype(met.dtype))


SHAPES_TO_PREDICT, predict_shapes = as_written("tt_tensor.tensor", globals(), "SHAPES_TO_PREDICT", "predict_shapes")

__all__ = [
    "Elementwise", "Meter", "PRIMITIVES", "Primitive", "SHAPES_TO_PREDICT", "SLOTS", "Slot", "Tensor", "add", "arange",
    "as_array", "as_rows", "bool_", "broadcast_shape", "common_dtype", "div", "elementwise", "eq", "evaluate", "exp",
    "expand", "float16", "float32", "float64", "from_numpy", "full", "ge", "getitem", "gt", "install",
    "install_kernels", "int32", "int64", "interpreting", "kernels_in_use", "last_write", "le", "listening", "log", "lt",
    "matmul", "mean", "meter", "mul", "ne", "neg", "ones", "operations_of", "outer", "pairwise_distances", "permute",
    "place", "pow", "power", "power_of", "predict_shapes", "primitive", "quiet", "rand", "randn", "reshape", "slot",
    "std", "sub", "sum", "tensor", "tick", "uint8", "use_kernels", "var", "zeros",
]
