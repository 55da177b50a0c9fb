# # Containers
#
# An appendix of chapter 04. `ModuleList` and `Sequential` keep their parts in a row. Sometimes we want to name the
# parts ourselves, for example one layer for each language. And sometimes we want to keep parameters in a list without
# writing a module around each. As with lists of modules, Python's own `dict` and `list` would hide them from
# `parameters()`.

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from tt_tensor.layers import Linear, Module, Parameter, ReLU
from tt_tensor.tensor import Tensor, ones, zeros

# ## Modules by name
#
# The drawer `_modules` is already a dictionary, in the order of insertion. `ModuleDict` opens it to you.


class ModuleDict(Module):
    """A dictionary of modules whose parameters belong to the module that holds it."""

    def __init__(self, modules=None):
        super().__init__()
        self.update(modules or {})

    def __setitem__(self, key: str, module) -> None:
        if not isinstance(module, Module) or not isinstance(key, str):
            raise TypeError(
                f"ModuleDict holds modules under names, not {type(module).__name__} under {key!r}; functions have "
                "module forms, such as ReLU() for relu"
            )
        if hasattr(type(self), key) or "." in key or not key:
            raise KeyError(
                f"{key!r} cannot be a name here: a name must not be empty, have a dot, or be a method of ModuleDict"
            )
        self._modules[key] = module

    # We add modules in bulk by `update`, and the rest of a dictionary's methods pass through to the drawer.

    def update(self, modules) -> None:
        """Put in the modules of a dictionary, or of pairs of name and module."""
        for key, module in modules.items() if hasattr(modules, "items") else modules:
            self[key] = module

    def pop(self, key: str) -> Module:
        """Take a module out and return it. Raises KeyError if there is none of this name."""
        return self._modules.pop(key)

    def __getitem__(self, key: str) -> Any: return self._modules[key]
    def __delitem__(self, key: str) -> None: del self._modules[key]
    def __contains__(self, key: str) -> bool: return key in self._modules
    def __len__(self) -> int: return len(self._modules)
    def __iter__(self): return iter(self._modules)
    def clear(self) -> None: self._modules.clear()
    def keys(self): return self._modules.keys()
    def values(self): return self._modules.values()
    def items(self): return self._modules.items()


def check_module_dict():
    parts = ModuleDict({"act": ReLU(), "fc": Linear(2, 3)})
    assert list(parts) == ["act", "fc"] and "fc" in parts and parts["act"](-ones(1)).item() == 0
    assert [name for name, _ in parts.named_parameters()] == ["fc.weight", "fc.bias"]


# ## Parameters in a list
#
# If you put a plain tensor into a list of parameters, we turn it into a parameter, as PyTorch does. The names are
# positions.


def _as_parameter(value):
    return Parameter(value) if isinstance(value, Tensor) and not isinstance(value, Parameter) else value


class ParameterList(Module):
    """A list of parameters that belong to the module that holds it; tensors become parameters."""

    def __init__(self, values: Iterable = ()):
        super().__init__()
        self._size = 0
        self.extend(values)

    def append(self, value):
        """Add a parameter at the end; returns the list."""
        setattr(self, str(self._size), _as_parameter(value))
        self._size += 1
        return self

    def extend(self, values: Iterable):
        """Add several at the end; returns the list."""
        for value in [*values]:
            self.append(value)
        return self

    # You reach a parameter by its index, also from the end.

    def __getitem__(self, index):
        if isinstance(index, slice):
            return type(self)(self[i] for i in range(self._size)[index])
        return getattr(self, str(self._position(index)))

    def __setitem__(self, index: int, value) -> None:
        setattr(self, str(self._position(index)), _as_parameter(value))

    def _position(self, index):
        if not -self._size <= index < self._size:
            raise IndexError(f"index {index} is out of range: the list has {self._size} parameters")
        return index % self._size

    def __len__(self) -> int: return self._size
    def __iter__(self): return (self[i] for i in range(self._size))
    def __iadd__(self, values): return self.extend(values)

    def extra_repr(self):
        return ", ".join(f"({i}): {_told(value)}" for i, value in enumerate(self))


def _told(value):
    return f"Parameter of shape {value.shape}" if isinstance(value, Parameter) else repr(value)


# ## Parameters by name
#
# One of PyTorch's habits matters to the order in which an optimizer sees parameters. We take a plain dictionary in the
# order of its *sorted* names, an `OrderedDict` in its own.


class ParameterDict(Module):
    """A dictionary of parameters that belong to the module that holds it; tensors become parameters."""

    def __init__(self, parameters=None):
        super().__init__()
        self._names: dict[str, None] = {}
        self.update(parameters or {})

    def update(self, parameters) -> None:
        """Put in the parameters of a dictionary (a plain one in sorted order), or of pairs of name and parameter."""
        pairs = parameters.items() if hasattr(parameters, "items") else parameters
        if isinstance(parameters, Mapping) and not isinstance(parameters, OrderedDict):
            pairs = sorted(pairs)
        for key, value in pairs:
            self[key] = value

    # Assigning a parameter sets an attribute, and so the module registers it.

    def __setitem__(self, key: str, value) -> None:
        if hasattr(type(self), key) or "." in key:
            raise KeyError(f"{key!r} cannot be a name here: a name must not have a dot or be a method of ParameterDict")
        setattr(self, key, _as_parameter(value))
        self._names[key] = None

    def __getitem__(self, key: str) -> Any:
        if key not in self._names:
            raise KeyError(key)
        return getattr(self, key)

    def __delitem__(self, key: str) -> None:
        del self._names[key]
        delattr(self, key)

    # The remaining methods are those that you know from a dictionary.

    def pop(self, key: str) -> Any:
        """Take a parameter out and return it. Raises KeyError if there is none of this name."""
        value = self[key]
        del self[key]
        return value

    def get(self, key: str, default=None) -> Any:
        """The parameter of this name, or the default."""
        return self[key] if key in self._names else default

    def clear(self) -> None:
        """Remove all parameters."""
        for key in [*self._names]:
            del self[key]

    def __contains__(self, key: str) -> bool: return key in self._names
    def __len__(self) -> int: return len(self._names)
    def __iter__(self): return iter(self._names)
    def keys(self): return self._names.keys()
    def values(self): return [self[key] for key in self._names]
    def items(self): return [(key, self[key]) for key in self._names]

    def extra_repr(self):
        return ", ".join(f"({key}): {_told(value)}" for key, value in self.items())


def check_parameter_containers():
    rows, named = ParameterList([ones(2), zeros(3)]), ParameterDict({"b": ones(1), "a": zeros(1)})
    assert [name for name, _ in rows.named_parameters()] == ["0", "1"] and rows[-1].shape == (3,)
    assert [name for name, _ in named.named_parameters()] == ["a", "b"] and list(named) == ["a", "b"]


__all__ = ["ModuleDict", "ParameterDict", "ParameterList"]
