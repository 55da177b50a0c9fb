"""torch.save and torch.load for states: nested dictionaries, lists and tuples of tensors, numbers, texts and modules.

`save` writes the checkpoints of chapter 08: safetensors with a checksum, atomically. `load` reads those, and torch's
own `.pt` files of plain tensors, without running code of theirs. `_whole_modules.py` describes a module in a file."""

import functools as _functools
import io as _io
import os as _os
from contextlib import contextmanager as _contextmanager
from pathlib import Path as _Path
from typing import Any as _Any

import numpy as _np

import tt_tensor as _tt

from tinytorch import _constants
from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)

_MARK = "tinytorch"  # {("tinytorch", kind): content} is something that a checkpoint cannot hold as it is


def save(
    obj: _Any, f: _Any, pickle_module: _Any = None, pickle_protocol: int = 2,
    _use_new_zipfile_serialization: bool = True, _disable_byteorder_record: bool = False,
) -> None:
    """Write a state to a path or to a binary file. A module may be in it if its attributes are modules, tensors and
    plain values.

    Raises RuntimeError for a module with others and for an optimizer, TypeError for what a state cannot hold."""
    from tempfile import TemporaryDirectory
    from tt_autograd import save_checkpoint
    from tinytorch._whole_modules import Writer

    writer = Writer(_MARK, _plain)
    state = _plain(obj, writer)
    if writer.modules or writer.tensors:
        state = {(_MARK, "modules"): {"modules": writer.modules, "tensors": writer.tensors, "state": state}}
    if not hasattr(f, "write"):
        return save_checkpoint(f, state)
    with TemporaryDirectory() as folder:
        path = _Path(folder) / "state"
        save_checkpoint(path, state)
        f.write(path.read_bytes())


def load(
    f: _Any, map_location: _Any = None, pickle_module: _Any = None, *, weights_only: bool | None = None,
    mmap: bool | None = None, **pickle_load_args: _Any,
) -> _Any:
    """Read what `save` wrote, or a `.pt` file of torch's that holds plain tensors; bfloat16 becomes float32. Pickled
    code is never run, whatever weights_only says. A module that `save` wrote becomes an object of its class.

    Raises FileNotFoundError, ValueError for a damaged file, RuntimeError for a pickled module, for one whose class has
    not been imported, and for a device that is not the CPU."""
    from tinytorch import _torch_files

    if isinstance(map_location, (str, _tt.device)):
        _tt.refuse_other_device(map_location)
    with _opened(f) as (file, name):
        start = file.read(9)
        file.seek(-len(start), _os.SEEK_CUR)
        ours = start[8:] == b"{"  # behind a length of eight bytes, which may be any
        if not ours and start[:4] == b"PK\x03\x04":
            return _torch_files.read(file, name)
        if not ours and start[:1] == b"\x80":
            raise RuntimeError(
                f"{name} is a pickle, as torch.save wrote before 1.6, or of another program; it could run any code, "
                "and is not read. Where torch is installed: torch.save(torch.load(path), path)"
            )
        return _understood(file, f, name)


def _understood(file, f, name) -> _Any:
    """The content of a checkpoint, which may be of any program."""
    from tinytorch._whole_modules import Reader

    wrong = (KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError)
    message = f"{name} is damaged, or is not a file that torch.save wrote"
    try:
        state = _checkpoint(file, f, name)
    except wrong as error:
        raise ValueError(f"{message}: {error!r}") from None
    try:
        if isinstance(state, dict) and [*state] == [(_MARK, "modules")]:
            content = state[_MARK, "modules"]
            return _special(content["state"], Reader(content, name, _special))
        return _special(state)
    except (*wrong, ValueError) as error:
        raise ValueError(f"{message}: {error!r}") from None


@_contextmanager
def _opened(f):
    if hasattr(f, "read"):
        data = f if hasattr(f, "seek") and f.seekable() else _io.BytesIO(f.read())
        yield data, getattr(f, "name", "the file")
        return
    with open(f, "rb") as file:
        yield file, _Path(f).name


def _checkpoint(file, f, name) -> _Any:
    from tempfile import TemporaryDirectory
    from tt_autograd import load_checkpoint

    if not hasattr(f, "read"):
        return load_checkpoint(f)
    with TemporaryDirectory() as folder:
        path = _Path(folder) / name.replace("/", "_")
        path.write_bytes(file.read())
        return load_checkpoint(path)


def _plain(value: _Any, writer: _Any = None) -> _Any:
    """A state as a checkpoint can hold it. The writer takes modules, and what is learned."""
    is_learned = isinstance(value, _tt.Parameter) or (isinstance(value, _tt.Tensor) and value.requires_grad)
    if writer is not None and (is_learned or isinstance(value, _tt.Module)):
        return writer.reference(value, type(value).__name__)
    if hasattr(value, "param_groups"):
        raise RuntimeError(
            f"a whole {type(value).__name__} cannot be saved: save its state_dict(), and load_state_dict() into a new "
            "one"
        )
    if isinstance(value, dict):
        return {key: _plain(v, writer) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return (tuple if isinstance(value, tuple) else list)(_plain(v, writer) for v in value)
    for kind, (taken_apart, _) in _kinds().items():
        if isinstance(value, kind):
            content = taken_apart(value)
            return {(_MARK, kind.__name__): _plain(content, writer) if isinstance(content, dict) else content}
    return value


def _special(value: _Any, reader: _Any = None) -> _Any:
    """A state as it was before `_plain`."""
    if isinstance(value, (list, tuple)):
        return type(value)(_special(v, reader) for v in value)
    if not isinstance(value, dict):
        return value
    mark = next(iter(value), None)
    if len(value) == 1 and isinstance(mark, tuple) and mark[:1] == (_MARK,):
        if reader is not None and mark[1] in ("Module", "Tensor", "function"):
            return reader.referred(mark[1], value[mark])
        made = {kind.__name__: put_together for kind, (_, put_together) in _kinds().items()}[mark[1]]
        return made(_special(value[mark], reader))
    return {key: _special(v, reader) for key, v in value.items()}


@_functools.cache
def _kinds() -> dict[type, tuple[_Any, _Any]]:
    """What a checkpoint cannot hold as it is: for each class, how it is taken apart and how it is put together."""
    from argparse import Namespace

    return {
        _np.dtype: (str, _np.dtype),
        _np.ndarray: (lambda array: array, lambda tensor: tensor.numpy().copy()),
        _constants.Absent: (lambda dtype: dtype.name, lambda name: getattr(_constants, name)),
        _tt.device: (str, _tt.device),
        set: (list, set),
        Namespace: (lambda names: dict(vars(names)), lambda names: Namespace(**names)),
    }


def add_safe_globals(safe_globals: list) -> None:
    """Accepted, and without effect: files hold tensors and no classes."""


class safe_globals:
    """Accepted, and without effect: files hold tensors and no classes."""

    def __init__(self, safe_globals: list):
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: _Any) -> None:
        pass


def get_safe_globals() -> list:
    """An empty list: files hold tensors and no classes."""
    return []


def clear_safe_globals() -> None:
    """Nothing: files hold tensors and no classes."""
