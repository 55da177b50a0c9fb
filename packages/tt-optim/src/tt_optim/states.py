"""What the optimizers of chapter 06 remember: arrays of at least 32 bits, and how they are saved and restored."""

from __future__ import annotations

from typing import Any

import numpy as np

from tt_tensor import Tensor, quiet


def wide(dtype) -> np.dtype:
    """The dtype to compute with: float32 for float16, otherwise the dtype itself."""
    return np.promote_types(dtype, np.float32)


def write_back(parameter: Tensor, p: np.ndarray) -> None:
    """Put p into a parameter of fewer bits. Where p has the parameter's dtype, it is the parameter's own array, and
    nothing is left to do."""
    if p.dtype != parameter.dtype:
        with quiet():
            parameter.writable()[...] = p


def saved_state(groups: list[dict], state: dict[Tensor, dict]) -> dict[str, Any]:
    """Copies: the memory of each parameter by its number, and the groups with numbers in place of parameters."""
    numbers = {p: i for i, p in enumerate(p for g in groups for p in g["params"])}
    memories = {
        numbers[p]: {k: Tensor(v) if isinstance(v, np.ndarray) else v for k, v in memory.items()}
        for p, memory in state.items()
    }
    return {"state": memories, "param_groups": [{**g, "params": [numbers[p] for p in g["params"]]} for g in groups]}


def loaded_state(optimizer: Any, saved: dict[str, Any]) -> dict[Tensor, dict]:
    """Give the groups of an optimizer the saved options, and return what is remembered about each parameter; copies.

    Raises ValueError, before anything is changed, unless `saved` is the state of an optimizer of the same kind, for
    groups and parameters of the same shapes."""
    groups, parameters = optimizer.param_groups, [p for g in optimizer.param_groups for p in g["params"]]
    _check_state(optimizer, parameters, saved)
    for group, options in zip(groups, saved["param_groups"]):
        restored = {**optimizer.defaults, **options, "params": group["params"]}
        group.clear()
        group.update(restored)
    return {
        (p := parameters[int(i)]): {k: v if k == "step" else np.array(v, wide(p.dtype)) for k, v in memory.items()}
        for i, memory in saved["state"].items()
    }


def _check_state(optimizer, parameters, saved) -> None:
    if not isinstance(saved, dict) or not {"state", "param_groups"} <= saved.keys():
        raise ValueError('the state of an optimizer is a dictionary with "state" and "param_groups"')
    theirs, ours = ([len(g["params"]) for g in groups] for groups in (saved["param_groups"], optimizer.param_groups))
    if theirs != ours:
        raise ValueError(f"the saved optimizer has groups of {theirs} parameters, this one of {ours}")
    for group in saved["param_groups"]:
        _check_kind(optimizer, "options", optimizer.defaults.keys() - group.keys())
    for number, memory in saved["state"].items():
        _check_kind(optimizer, "memory", {"step", *optimizer.memory} ^ memory.keys())
        _check_shapes(parameters[int(number)], int(number), memory)


def _check_kind(optimizer, what, differing) -> None:
    if differing:
        raise ValueError(
            f"this is the state of another optimizer: the {what} of {type(optimizer).__name__} differ in "
            f"{', '.join(sorted(map(str, differing)))}"
        )


def _check_shapes(parameter, number, memory) -> None:
    for name, value in memory.items():
        if name != "step" and np.shape(value) != parameter.shape:
            raise ValueError(
                f"{name} of parameter {number} has shape {np.shape(value)}, the parameter has {parameter.shape}"
            )
