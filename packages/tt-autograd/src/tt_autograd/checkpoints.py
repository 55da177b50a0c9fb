# # Checkpoints
#
# An appendix of chapter 08: how everything that a training depends on gets into one file, and out again unharmed.

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from tt_tensor import Tensor, from_numpy, kernels_in_use

# ## From a tree to a file
#
# A checkpoint is a nested dictionary of tensors and plain values. The file format is safetensors, because loading it
# runs no code (a pickle may do anything it likes) and other programs can read it. The arrays go into it as they are,
# the rest as JSON, in which `{"tensor": name}` says where an array belongs.
#
# What comes out must be what went in. So an array's name is its path with dots, unless another array has that name
# already (`{"a.b": ...}` beside `{"a": {"b": ...}}`); keys are written like values, because JSON knows no tuples; and
# what the file cannot hold is refused, with its path, before anything is written.

_DTYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
_STORED = "BOOL I8 I16 I32 I64 U8 U16 U32 U64 F16 F32 F64".split()  # what safetensors calls them


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


def _key(key, path: str):
    arrays: dict[str, np.ndarray] = {}
    written = _flattened(key, f"the key {key!r} of {path or 'the state'}", arrays)
    if arrays:
        raise TypeError(f"a key of {path or 'the state'} holds a tensor; keys are numbers, text or tuples of them")
    return written


def _entered(value, path: str, arrays: dict[str, np.ndarray]) -> str:
    array = np.array(value, order="C")
    if array.dtype.name not in _DTYPES or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"a checkpoint cannot hold {path or 'the state'}: {type(value).__name__} of {array.dtype}")
    name = path.encode("utf-8", "backslashreplace").decode()
    while name in arrays or name == "__metadata__":  # the second is safetensors' own
        name += "'"
    arrays[name] = array.astype(np.dtype(array.dtype.type), copy=False)
    return name


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
# A disk or a cable flips a bit: so a SHA-256 over every name, type, shape and number is stored along, and compared when
# the file is read. And the power goes while the file is being written: so it is written under another name, forced to
# the disk, and only then renamed, which the file system does in one piece. Whoever looks finds the old checkpoint or
# the new one, whole.


def _digest(arrays: dict[str, np.ndarray], info: str) -> str:
    digest = hashlib.sha256(info.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


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
    data = save(arrays, metadata=metadata)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.unfinished")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _to_disk(path.absolute().parent)


def _to_disk(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and need not be
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# The new name is an entry in the folder, and the folder is on the disk, too; so it is forced there like the file.


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote. Raises FileNotFoundError, or ValueError for a file that is damaged or not a
    checkpoint."""
    from safetensors import SafetensorError, safe_open

    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"load_checkpoint needs the path of a file, not {type(path).__name__}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}
            foreign = [f"{name} with {dtype}" for name, dtype in dtypes.items() if dtype not in _STORED]
            arrays = {} if foreign else {name: file.get_tensor(name) for name in dtypes}
    except (SafetensorError, ValueError, TypeError, KeyError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{path} is damaged or is no safetensors file: {error}") from None
    if foreign:
        raise ValueError(
            f"{path} is a safetensors file of another program: {len(foreign)} of its tensors have types that NumPy "
            f"does not have (BF16 is bfloat16), such as {foreign[0]}; convert them to float32 first"
        )
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


def check_a_flipped_bit_is_noticed():
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.safetensors"
        save_checkpoint(path, {"weights": Tensor([1.0, 2.0])})
        whole = path.read_bytes()
        for position in range(0, len(whole), 7):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            assert _is_refused(path), f"a flipped bit in byte {position} was not noticed"


def _is_refused(path: Path) -> bool:
    try:
        load_checkpoint(path)
    except ValueError:
        return True
    return False


__all__ = ["load_checkpoint", "save_checkpoint"]
