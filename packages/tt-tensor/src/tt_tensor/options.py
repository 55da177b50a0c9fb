"""Options of modules that are a function and its options: given by position or by name, kept as attributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tt_tensor.tensor import Tensor


def keep_options(module: Any, defaults: Mapping[str, Any], args: tuple, options: Mapping[str, Any]) -> None:
    """Set an attribute of the module for each name in `defaults`, from `args` in their order or from `options` by name;
    a tensor becomes a buffer. TypeError for an option that is not in `defaults`, or given twice."""
    given = {**dict(zip(defaults, args)), **options}
    if len(args) > len(defaults) or set(given) - set(defaults) or len(given) < len(args) + len(options):
        raise TypeError(
            f"{type(module).__name__} takes {', '.join(defaults) or 'no options'}; given were "
            f"{[*args, *(f'{name}={value!r}' for name, value in options.items())]}"
        )
    for name, value in {**defaults, **given}.items():
        keep = module.register_buffer if isinstance(value, Tensor) else module.__setattr__
        keep(name, value)


def kept(module: Any, names: Iterable[str]) -> dict[str, Any]:
    """The options of these names, which may have been changed since."""
    return {name: getattr(module, name) for name in names}


def told(module: Any, names: Iterable[str]) -> str:
    """The options of these names, as they are printed."""
    return ", ".join(f"{name}={getattr(module, name)!r}" for name in names)


__all__ = ["keep_options", "kept", "told"]
