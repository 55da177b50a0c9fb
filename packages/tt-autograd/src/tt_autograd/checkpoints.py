# # Checkpoints
#
# An appendix of chapter 08: how we write everything that a training depends on to one file, and read it back unharmed.

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tt_tensor import Tensor, from_numpy, kernels_in_use

# ## From a tree to a file
#
# A checkpoint is a nested dictionary of tensors and plain values. We chose the file format safetensors, because loading
# such a file runs no code (a pickle may do anything it likes) and because other programs can read it. The format stores
# named arrays, and a piece of text. So we store the arrays as they are, and everything else as JSON, in which
# `{"tensor": name}` says where an array belongs.

# The file has its own names for the types of numbers. These are the types that both NumPy and the format know.

_DTYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
_STORED = "BOOL I8 I16 I32 I64 U8 U16 U32 U64 F16 F32 F64".split()  # what safetensors calls them

# `_flattened` turns a value into that JSON, and collects the arrays on the way. Lists and tuples are different to us,
# but JSON has only one of the two, so we write down which it was. We refuse a value that the file cannot hold, and name
# its path, before we have written anything.


def _flattened(value, path: str, arrays: dict[str, np.ndarray]):
    if isinstance(value, (Tensor, np.ndarray)):
        return {"tensor": _entered(value, path, arrays)}
    if isinstance(value, dict):
        paths = {key: f"{path}.{key}" if path else str(key) for key in value}
        return {"dict": [[_key(key, path), _flattened(v, paths[key], arrays)] for key, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {
            "tuple" if isinstance(value, tuple) else "list": [
                _flattened(v, f"{path}.{i}", arrays) for i, v in enumerate(value)
            ]
        }
    plain = value.item() if isinstance(value, np.generic) else value
    if not (plain is None or isinstance(plain, (bool, int, float, str))):
        raise TypeError(
            f"a checkpoint holds tensors, numbers, text, lists, tuples and dictionaries; {path or 'the state'} is a "
            f"{type(value).__name__}"
        )
    return plain


# In JSON the keys of a dictionary are always text, whereas our keys may be numbers or tuples. So we write a key like a
# value.


def _key(key, path: str):
    arrays: dict[str, np.ndarray] = {}
    written = _flattened(key, f"the key {key!r} of {path or 'the state'}", arrays)
    if arrays:
        raise TypeError(f"a key of {path or 'the state'} holds a tensor; keys are numbers, text or tuples of them")
    return written


# The name of an array is its path with dots. If another array has that name already (`{"a.b": ...}` beside `{"a": {"b":
# ...}}`), we append an apostrophe until the name is free.


def _entered(value, path: str, arrays: dict[str, np.ndarray]) -> str:
    array = np.array(value, order="C")
    if array.dtype.name not in _DTYPES or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"a checkpoint cannot hold {path or 'the state'}: {type(value).__name__} of {array.dtype}")
    name = path.encode("utf-8", "backslashreplace").decode()
    while name in arrays or name == "__metadata__":  # the second is safetensors' own
        name += "'"
    arrays[name] = array.astype(np.dtype(array.dtype.type), copy=False)
    return name


# On the way back every dictionary of the JSON has a single entry, whose key names the kind.


def _restored(tree, arrays: dict[str, np.ndarray]):
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return from_numpy(arrays[content])
    if kind == "dict":
        return {_restored(key, arrays): _restored(v, arrays) for key, v in content}
    return (tuple if kind == "tuple" else list)(_restored(v, arrays) for v in content)


# ## Two kinds of damage
#
# First, a disk or a cable may flip a bit. So we store a SHA-256 checksum over every name, type, shape and number, and
# compare it when we read the file.


def _digest(arrays: dict[str, np.ndarray], info: str) -> str:
    digest = hashlib.sha256(info.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


# Second, the power may fail while we write. So we write under another name, force the file to the disk, and only then
# rename it, which the file system does in one piece. A reader finds the old checkpoint or the new one, but always a
# whole one.


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.unfinished")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _to_disk(path.absolute().parent)


# The new name is an entry in the folder, and the folder is on the disk, too. So we force the folder to the disk as
# well.


def _to_disk(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and need not be
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# ## Saving
#
# With these parts, saving is: flatten, add the checksum, write. If you exchange the two arguments, the error says so;
# otherwise we would create a file with a strange name.


def save_checkpoint(path: str | os.PathLike, state: dict[str, Any]) -> None:
    """Write a nested dictionary of tensors and plain values as a safetensors file, atomically: `path` holds the old
    file or the new one, never a part. Arrays come back as tensors. The file's metadata names the kernel set in use.

    Raises TypeError for a value that the file cannot hold."""
    from safetensors.numpy import save

    if not isinstance(path, (str, os.PathLike)) or isinstance(state, (str, os.PathLike)):
        given = f"{type(path).__name__} and {type(state).__name__}"
        raise TypeError(f"save_checkpoint(path, state) takes the path of a file first, then a state; it got {given}")
    arrays: dict[str, np.ndarray] = {}
    try:
        info = json.dumps(_flattened(state, "", arrays))
    except RecursionError:
        raise ValueError("the state is nested too deeply for a checkpoint, or contains itself") from None
    metadata = {"info": info, "kernels": kernels_in_use()}
    metadata["sha256"] = _digest(arrays, info + metadata["kernels"])
    _write_atomically(Path(path), save(arrays, metadata=metadata))


# ## Loading
#
# A file may be damaged in any way, and then the library raises an error of nearly any type. We turn all of them into
# one ValueError that names the file. A file of another program may contain types of numbers that NumPy does not have,
# which is not damage, and deserves a message of its own.


def _read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and the metadata of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}
            foreign = [f"{name} with {dtype}" for name, dtype in dtypes.items() if dtype not in _STORED]
            arrays = {} if foreign else {name: file.get_tensor(name) for name in dtypes}
    except (SafetensorError, ValueError, TypeError, KeyError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{path} is damaged or is not a safetensors file: {error}") from None
    if foreign:
        raise ValueError(
            f"{path} is a safetensors file of another program: {len(foreign)} of its tensors have types that NumPy "
            f"does not have (BF16 is bfloat16), such as {foreign[0]}; convert them to float32 first"
        )
    return arrays, metadata


# What is readable is not yet a checkpoint of ours. We look for our metadata and compare the checksum, and only then do
# we restore the tree.


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Return the nested dictionary that `save_checkpoint` wrote. Raises FileNotFoundError, or ValueError for a file
    that is damaged or not a checkpoint."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"load_checkpoint needs the path of a file, not {type(path).__name__}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}")
    arrays, metadata = _read(path)
    if not {"info", "sha256"} <= set(metadata):
        raise ValueError(
            f"{path} is a safetensors file, but not a checkpoint of ours, or damaged: its metadata lacks info or sha256"
        )
    if _digest(arrays, metadata["info"] + metadata.get("kernels", "")) != metadata["sha256"]:
        raise ValueError(
            f"{path} is damaged: its contents do not have the checksum {metadata['sha256'][:12]}... that was "
            "stored with them"
        )
    return _restored(json.loads(metadata["info"]), arrays)


# ## The witness
#
# We flip a bit in every seventh byte of a file, one after the other. Each of these files must be refused.


def check_a_flipped_bit_is_noticed():
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.safetensors"
        save_checkpoint(path, {"weights": Tensor([1.0, 2.0])})
        whole = path.read_bytes()
        for position in range(0, len(whole), 7):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            assert _is_refused(path), f"a flipped bit in byte {position} was not noticed"


# (The helper is true for a ValueError, and lets any other error out.)


def _is_refused(path: Path) -> bool:
    try:
        load_checkpoint(path)
    except ValueError:
        return True
    return False


# ## No broken numbers
#
# A model with broken weights must not replace a good one on the disk. So the training asks, before it saves and before
# it makes a step, whether all numbers are finite.


def require_finite(named: Iterable[tuple[str, Tensor | None]], advice: str) -> None:
    """Raise RuntimeError that names the first tensor that holds nan or inf, and gives the advice."""
    for name, tensor in named:
        if tensor is not None and not np.isfinite(tensor.detach().numpy()).all():
            raise RuntimeError(f"{name}, of shape {tensor.shape}, holds nan or inf; {advice}")


# ## All or nothing
#
# A saved state may not fit: the optimizer may have more parameters than it had then, or a callback may be missing. The
# error would come when half of the state is loaded, and the training would be a mixture of two. So we note the state
# that we are in before we load another, and put it back if anything fails.


class Resumable:
    """What is saved as a `state_dict`, and taken up again as a whole or not at all. `take_up` sets all of a state."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `take_up` needs."""
        raise NotImplementedError

    def take_up(self, state: dict[str, Any]) -> None:
        """Set everything from a state, without a thought for what happens if it does not fit."""
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken. All parts must be made as they were made then; if anything does not
        fit, nothing changes."""
        before = copy.deepcopy(self.state_dict())
        if missing := before.keys() - state.keys():
            raise ValueError(f"this is not a checkpoint of a training: it lacks {', '.join(sorted(missing))}")
        try:
            self.take_up(state)
        except Exception:
            self.take_up(before)
            raise


__all__ = ["Resumable", "load_checkpoint", "require_finite", "save_checkpoint"]
