"""A whole module in a file: names of classes, and the tree of parts with plain attributes. No code of the file runs.

`torch.save(net, path)` writes for the module and each of its parts the name of the class, the parameters, buffers and
parts, and the other attributes, which must be plain data. `torch.load(path)` makes objects of classes that this process
has imported already. It calls nothing of theirs, not even `__init__`, and fills the objects. What two places share in
the module, such as tied weights, they share again."""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

import tt_tensor as tt
from tt_tensor.lazy import Uninitialized

from tinytorch._names import torch_names
from tinytorch._sources import SOURCES

DRAWERS = {"_parameters": tt.Parameter, "_buffers": tt.Tensor, "_modules": tt.Module}
_OURS = {source for sources in SOURCES.values() for source in sources}


class Writer:
    """Collects the modules of one file and their tensors, each once. A reference to one of them is `{(mark, kind): n}`;
    `plain` turns any other value into one that a checkpoint can hold."""

    def __init__(self, mark: str, plain: Callable[[Any], Any]):
        self.mark, self.plain = mark, plain
        self.modules: list[Any] = []
        self.tensors: list[Any] = []
        self._places: dict[int, int] = {}

    def reference(self, value: Any, path: str) -> Any:
        """How the file refers to a module, a tensor or a function, or a plain value itself.

        Raises RuntimeError that names the path of what a file cannot hold."""
        if isinstance(value, tt.Module):
            return {(self.mark, "Module"): self._place(value, path)}
        if isinstance(value, tt.Tensor):
            return {(self.mark, "Tensor"): self._place(value, path)}
        if isinstance(value, dict):
            return {key: self.reference(v, f"{path}[{key!r}]") for key, v in value.items()}
        if isinstance(value, (list, tuple)):
            parts = (self.reference(v, f"{path}[{i}]") for i, v in enumerate(value))
            return tuple(parts) if isinstance(value, tuple) else list(parts)
        if _is_ours(value):
            return {(self.mark, "function"): value.__name__}
        plain = self.plain(value)
        if plain is value and not (value is None or isinstance(value, (bool, int, float, str, np.generic))):
            raise RuntimeError(
                f"a whole module in a file holds modules, tensors and plain values, and {path} is a "
                f"{type(value).__name__}: save its state_dict(), and load_state_dict() into a new module"
            )
        return plain

    def _place(self, value: Any, path: str) -> int:
        """The number of a module or a tensor in the file, which is added when it is met for the first time."""
        is_module = isinstance(value, tt.Module)
        table = self.modules if is_module else self.tensors
        if id(value) not in self._places:
            self._places[id(value)] = place = len(table)
            table.append(None)  # first, because a module may hold itself
            table[place] = self._module(value, path) if is_module else self._tensor(value, path)
        return self._places[id(value)]

    def _tensor(self, tensor: Any, path: str) -> dict[str, Any]:
        if isinstance(tensor, Uninitialized):
            raise RuntimeError(f"{path} has no shape yet: call the module once on a batch before it is saved")
        learned = isinstance(tensor, tt.Parameter)
        return {"data": tensor.detach(), "parameter": learned, "requires_grad": tensor.requires_grad}

    def _module(self, module: Any, path: str) -> dict[str, Any]:
        kind, attributes = type(module), dict(vars(module))
        name = f"{kind.__module__}:{kind.__qualname__}"
        if _class(name) is not kind:
            raise RuntimeError(f"{path} is of {name}, which cannot be found by that name: save its state_dict()")
        hooks = attributes.pop("_hooks", None)
        code = ["hooks"] * (hooks is not None and any(vars(hooks).values()))
        if code := code + [k for k in attributes if not _is_data(kind, k)]:
            raise RuntimeError(f"{path} has {code[0]} of its own, which is code: remove it, or save its state_dict()")
        return {"class": name, "attributes": {k: self.reference(v, f"{path}.{k}") for k, v in attributes.items()}}


class Reader:
    """The modules and tensors of one file. Raises RuntimeError for a class that this process does not know, before
    anything is made; ValueError for a file that says what `Writer` does not."""

    def __init__(self, content: dict[str, Any], name: str, special: Callable[[Any, Reader], Any]):
        self.tensors = [self._tensor(**entry) for entry in content["tensors"]]
        classes = [_class(entry["class"]) for entry in content["modules"]]
        for found, entry in zip(classes, content["modules"]):
            if found is None:
                raise RuntimeError(
                    f"{name} holds a module of class {entry['class']}, and this program has imported no such class: "
                    "import or define it before torch.load, or save a state_dict()"
                )
        self.modules: list[Any] = [object.__new__(found) for found in classes if found]
        for module, entry in zip(self.modules, content["modules"]):
            self._fill(module, special(entry["attributes"], self))

    def _tensor(self, data: Any, parameter: bool, requires_grad: bool) -> tt.Tensor:
        if not isinstance(data, tt.Tensor) or (requires_grad and data.dtype.kind != "f"):
            raise ValueError(f"a tensor is a {type(data).__name__} that cannot have a gradient")
        return tt.Parameter(data, bool(requires_grad)) if parameter else data.requires_grad_(bool(requires_grad))

    def _fill(self, module: Any, attributes: dict[str, Any]) -> None:
        for drawer, kind in DRAWERS.items():
            if not all(type(k) is str and (v is None or isinstance(v, kind)) for k, v in attributes[drawer].items()):
                raise ValueError(f"{drawer} of a {type(module).__name__} holds something else")
        for name in attributes:
            if not _is_data(type(module), name):
                raise ValueError(f"{name!r} cannot be an attribute of a {type(module).__name__}")
        vars(module).update(attributes)

    def referred(self, kind: str, place: Any) -> Any:
        """What a reference means."""
        return _function(place) if kind == "function" else {"Module": self.modules, "Tensor": self.tensors}[kind][place]


def _class(name: str) -> type | None:
    """The module class of a name such as "package.file:Net", if it has been imported. Our own are imported."""
    module, _, path = name.partition(":")
    for source in (module.partition(".")[0], module):
        if source in _OURS:
            importlib.import_module(source)
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = vars(found).get(part) if isinstance(found, (type, types.ModuleType)) else None
    return found if isinstance(found, type) and issubclass(found, tt.Module) else None


def _is_data(kind: type, name: str) -> bool:
    """Whether a file may give a value to an attribute: it must not hide a method."""
    is_method = callable(inspect.getattr_static(kind, name, None))
    return name.isidentifier() and name[:2] != "__" and name != "_hooks" and not is_method


def _is_ours(value: Any) -> bool:
    """Whether a value is a function that torch.nn.functional has, from there or from one of our packages."""
    package = str(getattr(value, "__module__", "")).partition(".")[0]
    known = package in {"tinytorch", *_OURS} and getattr(value, "__name__", None) in torch_names("torch.nn.functional")
    return known and callable(value) and not isinstance(value, type)


def _function(name: str) -> Any:
    """The function of torch.nn.functional of that name. Raises ValueError if there is none."""
    functional = importlib.import_module("tinytorch.nn.functional")
    function = getattr(functional, name, None) if name in torch_names("torch.nn.functional") else None
    if not callable(function):
        raise ValueError(f"torch.nn.functional has no {name}")
    return function
