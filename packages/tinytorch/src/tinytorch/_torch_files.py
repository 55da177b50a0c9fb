"""A restricted reader of torch's own `.pt` files: tensors in lists, tuples and dictionaries. No code of the file runs.

Such a file is a zip archive. `data.pkl` is a pickle, which may ask for any function of Python; here it gets those that
rebuild tensors, in a form of ours that checks what it is given, and everything else is refused. The numbers of each
storage are a file of the archive, `data/KEY`. Tensors that share a storage in the file share memory here."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from typing import Any, BinaryIO

import numpy as np

import tt_tensor as tt

from tinytorch import _constants

STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "UntypedStorage": "uint8",
}
DTYPES = "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 float32 float64".split()
DAMAGE = (
    zipfile.BadZipFile, pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError, IndexError, AttributeError,
    UnicodeDecodeError, OverflowError, MemoryError, RecursionError, NotImplementedError,
)


def read(file: BinaryIO, name: str) -> Any:
    """What a `.pt` file of torch's holds. Raises ValueError for a damaged file, RuntimeError for one that asks for more
    than plain tensors."""
    try:
        with zipfile.ZipFile(file) as archive:
            return Reader(archive, name).load()
    except DAMAGE as error:
        raise ValueError(f"{name} is damaged, or is not a file that torch.save wrote: {error}") from None


class Reader(pickle.Unpickler):
    """Reads the archive; what it returns for a name in the pickle is in `find_class`, and nowhere else."""

    def __init__(self, archive: zipfile.ZipFile, name: str):
        self.archive, self.name = archive, name
        names = archive.namelist()
        pickles = [entry for entry in names if entry.count("/") == 1 and entry.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("there is no data.pkl in it")
        self.folder = pickles[0].removesuffix("data.pkl")
        if f"{self.folder}constants.pkl" in names:
            raise RuntimeError(f"{name} is a program of TorchScript; save model.state_dict() where torch is installed")
        order = f"{self.folder}byteorder"
        self.is_big = order in names and archive.read(order) == b"big"
        self.storages: dict[tuple[str, str], np.ndarray] = {}
        super().__init__(archive.open(pickles[0]))

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name that the pickle asks for. Raises RuntimeError for all but a few."""
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and name in (*DTYPES, "bfloat16"):
            return np.dtype(name) if name in DTYPES else _constants.bfloat16
        found = {
            "torch._utils._rebuild_tensor_v2": rebuilt, "torch._utils._rebuild_tensor_v3": rebuilt_of_bytes,
            "torch._utils._rebuild_parameter": learned, "torch.Size": tuple, "torch.device": tt.device,
            "torch.storage.UntypedStorage": "uint8", "collections.OrderedDict": OrderedDict, "builtins.set": set,
            "__builtin__.set": set,
        }.get(f"{module}.{name}")
        if found is None:
            raise RuntimeError(
                f"{self.name} asks for {module}.{name}, and nothing of it was run: only tensors, numbers and texts in "
                "lists, tuples and dictionaries are read. If it is a whole module, save its state_dict() where it was "
                "made"
            )
        return found

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The numbers of a storage; bfloat16 is widened to float32."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or dtype not in (*DTYPES, "bfloat16"):
            raise ValueError(f"an unknown kind of storage, {kind!r} of {dtype!r}")
        if (key, dtype) not in self.storages:
            self.storages[key, dtype] = self._numbers(str(key), dtype, count)
        return self.storages[key, dtype]

    def _numbers(self, key: str, dtype: str, count: int) -> np.ndarray:
        entry = self.archive.getinfo(f"{self.folder}data/{key}")
        stored = np.dtype("uint16" if dtype == "bfloat16" else "uint8" if dtype == "bool" else dtype)
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != count * stored.itemsize:
            raise ValueError(f"storage {key} has {entry.file_size} bytes for {count} numbers of {dtype}")
        numbers = np.frombuffer(bytearray(self.archive.read(entry)), stored.newbyteorder(">" if self.is_big else "<"))
        numbers = numbers.astype(stored, copy=False)
        if dtype == "bfloat16":
            return (numbers.astype(np.uint32) << 16).view(np.float32)
        return numbers.astype(bool) if dtype == "bool" else numbers


def rebuilt(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None) -> tt.Tensor:
    """A tensor of a storage. Raises ValueError for one that reaches beyond it."""
    plain = all(type(n) is int and n >= 0 for n in (offset, *size, *stride))
    if not plain or not isinstance(storage, np.ndarray) or len(size) != len(stride):
        raise ValueError(f"a tensor of shape {size}, strides {stride}, from {offset} on")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    if 0 not in size and last >= storage.size:
        raise ValueError(f"a tensor of shape {size} needs number {last} of a storage of {storage.size}")
    if 0 in size:
        view = np.empty(size, storage.dtype)
    else:
        steps = tuple(step * storage.itemsize for step in stride)
        view = np.lib.stride_tricks.as_strided(storage[offset:], size, steps)
    tensor = tt.from_numpy(view)
    return learned(tensor, requires_grad) if requires_grad else tensor


def rebuilt_of_bytes(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None) -> tt.Tensor:
    """A tensor of a storage of bytes."""
    return rebuilt(storage.view(dtype), offset, size, stride, requires_grad)


def learned(data: tt.Tensor, requires_grad: bool, hooks: Any = None) -> tt.Tensor:
    """A parameter, as a tensor that requires a gradient."""
    data.requires_grad = bool(requires_grad)
    return data
