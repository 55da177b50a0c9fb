"""Modules that are a function and its options. Options are passed by position or by name and kept as attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tt_tensor.tensor import Tensor


def keep_options(module: Any, defaults: Mapping[str, Any], args: tuple, options: Mapping[str, Any]) -> None:
    """Set an attribute of the module for each name in `defaults`, from `args` in their order or from `options` by name;
    a tensor becomes a buffer. Raises TypeError for an option that is not in `defaults` or that is passed twice."""
    given = {**dict(zip(defaults, args)), **options}
    if len(args) > len(defaults) or set(given) - set(defaults) or len(given) < len(args) + len(options):
        raise TypeError(
            f"{type(module).__name__} takes {', '.join(defaults) or 'no options'}, each once; it was called with "
            f"{[*args, *(f'{name}={value!r}' for name, value in options.items())]}"
        )
    for name, value in {**defaults, **given}.items():
        keep = module.register_buffer if isinstance(value, Tensor) else module.__setattr__
        keep(name, value)


def kept(module: Any, names: Iterable[str]) -> dict[str, Any]:
    """The current values of the options of these names."""
    return {name: getattr(module, name) for name in names}


def told(module: Any, names: Iterable[str]) -> str:
    """The options of these names as text, such as "alpha=1.0", for printing a module."""
    return ", ".join(f"{name}={getattr(module, name)!r}" for name in names)


class FunctionOptions:
    """The first base of a module that is a `function` of one tensor. The options and their default values are in the
    head of the class, as in `class ELU(FunctionOptions, Module, alpha=1.0)`. PyTorch's `inplace` comes last and has no
    effect."""

    function: Callable
    defaults: dict[str, Any]

    def __init_subclass__(cls, **defaults):
        super().__init_subclass__()
        if defaults or "function" in vars(cls):
            cls.defaults = defaults

    def __init__(self, *args, **options):
        super().__init__()
        keep_options(self, {**self.defaults, "inplace": False}, args, options)

    def forward(self, x: Tensor) -> Any:
        """The function of x, with the options as they are now."""
        return type(self).function(x, **kept(self, self.defaults))

    def extra_repr(self) -> str:
        """The options as text."""
        return told(self, self.defaults)


__all__ = ["FunctionOptions", "keep_options", "kept", "told"]
