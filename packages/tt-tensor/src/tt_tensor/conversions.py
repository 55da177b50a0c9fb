"""Conversions to other dtypes and types, and truthful answers about devices and memory.

A support module of chapter 02. Programs for PyTorch say where a tensor is, how its elements are laid out in memory and
of which type it is: `.to(device, non_blocking=True)`, `.contiguous(memory_format=...)`, `.type(torch.LongTensor)`.
Here a tensor is always on the CPU, NumPy decides its layout, and its type is its dtype. So most of this module answers
a question, or accepts an argument on which nothing depends. An argument that would change a result is refused."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

import numpy as np

from tt_tensor.arguments import bool_, float16, float32, float64, int32, int64, resolve_dtype
from tt_tensor.devices import CPU, device, refuse_other_device

if TYPE_CHECKING:
    import tt_tensor as tt
    from tt_tensor.tensor import Tensor
else:
    from tt_tensor.registry import tt

# ## Where to, and as what
#
# `to` takes a dtype, a device, both in either order, or another tensor for its dtype. PyTorch also has names of types
# that are older than its dtypes.

TYPES = {
    "Float": "float32", "Double": "float64", "Half": "float16", "Long": "int64", "Int": "int32", "Short": "int16",
    "Char": "int8", "Byte": "uint8", "Bool": "bool",
}


class Conversions:
    """Other dtypes and devices, and questions about the memory."""

    __slots__ = ()

    is_cuda = is_mps = is_xpu = is_meta = is_sparse = is_quantized = False
    is_cpu, retains_grad = True, False
    grad_fn: Any = None  # chapter 07 has results that were recorded
    device: device = property(lambda self: CPU, doc="Where the tensor is: always device(type='cpu').")
    itemsize: int = property(lambda self: self._array.itemsize, doc="The bytes that one number takes.")

    def to(
        self, *wanted, dtype=None, device=None, non_blocking=False, copy=False, memory_format=None, other=None
    ) -> Tensor:
        """The same numbers as another dtype; x.to(dtype), x.to(device), x.to(device, dtype) or x.to(other_tensor). The
        tensor itself if nothing changes, unless `copy`. Raises RuntimeError for a device that is not the CPU."""
        if len(wanted) == 1 and isinstance(wanted[0], np.dtype) and device is None and not copy:
            return self if wanted[0] is self._array.dtype else self._cast(wanted[0])
        dtype, copy = _wanted([*wanted, dtype, device, other], copy)
        result = self if dtype is None else self._cast(dtype)
        return result.clone() if copy and result is self else result

    def _cast(self, dtype):
        dtype = resolve_dtype(dtype)
        return self if self._array.dtype == dtype else tt.cast(self, dtype=dtype)

    def type(self, dtype=None, non_blocking=False) -> Any:
        """The name of the tensor's type, "torch.FloatTensor"; with a dtype or such a name, the tensor as that type."""
        if dtype is None:
            return f"torch.{next(name for name, kind in TYPES.items() if kind == self.dtype.name)}Tensor"
        name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", "")
        old = name.removeprefix("torch.").removesuffix("Tensor")
        return self.to(TYPES[old] if name.endswith("Tensor") and old in TYPES else dtype)

    def type_as(self, other) -> Tensor: return self.to(other.dtype)
    def short(self) -> Tensor: return self.to(np.int16)
    def char(self) -> Tensor: return self.to(np.int8)
    def byte(self) -> Tensor: return self.to(np.uint8)
    def is_floating_point(self) -> bool: return self._array.dtype.kind == "f"
    def is_complex(self) -> bool: return False
    def is_signed(self) -> bool: return self._array.dtype.kind in "if"

    def bfloat16(self) -> Tensor:
        raise TypeError("NumPy has no bfloat16, so a tensor cannot hold it; tt_opt rounds to it (chapter 17)")

    # ## On the CPU

    def cpu(self, memory_format=None) -> Tensor: return self
    def get_device(self) -> int: return -1
    def pin_memory(self, device=None) -> Tensor: return self
    def is_pinned(self, device=None) -> bool: return False
    def share_memory_(self) -> Tensor: return self
    def is_shared(self) -> bool: return False

    # There is one layout, the dense one: a matrix of mostly zeros takes its full memory and gives the same numbers.

    is_sparse = False
    def to_sparse(self) -> Tensor: return self
    def to_dense(self) -> Tensor: return self
    def coalesce(self) -> Tensor: return self

    def cuda(self, device=None, non_blocking=False, memory_format=None) -> Tensor:
        """Raise RuntimeError: this device does not exist here."""
        refuse_other_device("cuda" if device is None or isinstance(device, int) else device)
        return self

    # ## Memory
    #
    # PyTorch's `memory_format` names an order of the numbers in memory, which changes no result.

    def is_contiguous(self, memory_format=None) -> bool: return self._array.flags.c_contiguous
    def contiguous(self, memory_format=None) -> Tensor: return self if self.is_contiguous() else tt.copied(self)
    def clone(self, *, memory_format=None) -> Tensor: return tt.copied(self)
    def element_size(self) -> int: return self._array.itemsize
    def nelement(self) -> int: return self._array.size
    def ndimension(self) -> int: return self._array.ndim
    def data_ptr(self) -> int: return self._array.ctypes.data
    def is_same_size(self, other) -> bool: return self.shape == other.shape
    def is_nonzero(self) -> bool: return builtins.bool(self)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor of shape () is a single number and has no len()")
        return self.shape[0]

    def numel(self) -> int:
        """The number of elements."""
        return self._array.size

    def dim(self) -> int:
        """The number of dimensions, `ndim` under PyTorch's other name."""
        return self._array.ndim

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one dimension."""
        return self.shape if dim is None else self.shape[dim]

    def item(self) -> Any:
        """The one element, as a Python number. Raises ValueError if there are more."""
        if self._array.size != 1:
            raise ValueError(
                f"item() needs a tensor of one element; this one has shape {self.shape}. Use tolist() or numpy()"
            )
        return self._array.item()

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return self._array.tolist()

    def stride(self, dim: int | None = None) -> Any:
        """The number of elements to walk in memory for a step along each dimension, or along one."""
        strides = tuple(s // self._array.itemsize for s in self._array.strides)
        return strides if dim is None else strides[dim]

    # ## New tensors of the same dtype

    def new_tensor(self, data, *, dtype=None, device=None, requires_grad=False, **memory) -> Tensor:
        """A copy of data."""
        _refuse_unknown(memory, device)
        return tt.tensor(data, dtype or self.dtype, requires_grad)

    def new_full(self, size, fill_value, *, dtype=None, device=None, requires_grad=False, **memory) -> Tensor:
        """One number in the shape `size`."""
        _refuse_unknown(memory, device)
        return tt.full(size, fill_value, dtype or self.dtype, requires_grad)

    # `Tensor(16, 8)` is what older programs write for `empty(16, 8)`: a tensor of that shape, which the program then
    # fills. We put nan into it. If you meant the number in `Tensor(5)`, or if you forget to fill the tensor, you will
    # see.

    @staticmethod
    def _unset(*sizes):
        return np.full(_integers([n for n in sizes if n is not None and n is not False]), np.nan, np.float32)

    # The sizes of the others may come one by one, x.new_zeros(2, 3).

    def new_zeros(self, *size, **options) -> Tensor: return self.new_full(_sizes(size, options), 0, **options)
    def new_ones(self, *size, **options) -> Tensor: return self.new_full(_sizes(size, options), 1, **options)
    def new_empty(self, *size, **options) -> Tensor: return self.new_full(_sizes(size, options), 0, **options)

    # ## As a container
    #
    # `5 in x` asks whether any element equals 5.

    def __contains__(self, value) -> bool: return builtins.bool((self == value).any())
    def __reversed__(self) -> Tensor: return self.flip(0) if self.ndim else self


# ## To Python, to NumPy, to another dtype
#
# In this class `int`, `float` and `bool` are methods, so no annotation in it may mean the types.


class Casting:
    """The conversions that Python and NumPy ask for, and a method for each common dtype."""

    __slots__ = ()

    def __bool__(self):
        if self._array.size != 1:
            raise ValueError(f"is a tensor of shape {self.shape} true? Say which you mean: .any() or .all()")
        return self._array.item() != 0

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if self.requires_grad and tt.recording():
            raise RuntimeError("NumPy would compute with this tensor unrecorded; use x.detach(), or tt's functions")
        return np.array(self.numpy(), dtype=dtype) if copy or dtype else self.numpy()

    def __format__(self, spec):
        if spec and self._array.size != 1:
            raise TypeError(f"{spec!r} formats one number, and this tensor has shape {self.shape}; format its elements")
        return format(self.item(), spec) if spec or not self.ndim else str(self)

    def __float__(self): return builtins.float(self.item())
    def __int__(self): return builtins.int(self.item())
    def __index__(self): return (self._array.reshape(()) if self._array.size == 1 else self._array).__index__()

    # To other dtypes.

    def float(self) -> Tensor: return self.to(float32)
    def double(self) -> Tensor: return self.to(float64)
    def half(self) -> Tensor: return self.to(float16)
    def long(self) -> Tensor: return self.to(int64)
    def int(self) -> Tensor: return self.to(int32)
    def bool(self) -> Tensor: return self.to(bool_)


# The arguments of `to` are distinguished by their types. Two truth values are PyTorch's `non_blocking` and `copy`.


def _wanted(parts, copy):
    dtype = None
    for part in parts:
        if isinstance(part, device) or (isinstance(part, str) and not _is_dtype(part)):
            refuse_other_device(part)
        elif isinstance(part, int) and not isinstance(part, bool):
            refuse_other_device(f"cuda:{part}")
        elif part is not None and not isinstance(part, bool):
            dtype = part.dtype if isinstance(part, Conversions) else part
    flags = [part for part in parts if isinstance(part, bool)]
    return dtype, copy or (len(flags) == 2 and flags[1])


def _is_dtype(name):
    try:
        np.dtype(name)
    except TypeError:
        return False
    return True


def _sizes(size, options):
    size = (options.pop("size"),) if "size" in options else size
    return size[0] if len(size) == 1 and isinstance(size[0], (tuple, list)) else size


def _integers(sizes):
    if any(type(n) is not int or n < 0 for n in sizes):
        raise TypeError(f"Tensor(n, m) takes sizes, integers of 0 or more, not {sizes}; for numbers write tensor(...)")
    return sizes


def _refuse_unknown(memory, device):
    refuse_other_device(device)
    if wrong := memory.keys() - {"layout", "pin_memory"}:
        raise TypeError(f"{min(wrong)} is not a parameter; the parameters are dtype, device and requires_grad")


__all__ = ["Casting", "Conversions"]
