"""The memory of the optimizers of chapter 06: arrays of at least 32 bits, and how we save and restore them."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

import numpy as np

from tt_tensor import Tensor, quiet

# Options that change nothing unless they are switched on. A state that was saved before they existed lacks them.
OFF = {"amsgrad", "capturable", "decoupled_weight_decay", "differentiable", "foreach", "fused", "maximize"}


def wide(dtype) -> np.dtype:
    """Return the dtype to compute with: float32 for float16, otherwise the dtype itself."""
    return np.promote_types(dtype, np.float32)


def write_back(parameter: Tensor, p: np.ndarray) -> None:
    """Copy p into a parameter of fewer bits. If p has the parameter's dtype, it is the parameter's own array, and there
    is nothing to do."""
    if p.dtype != parameter.dtype:
        with quiet():
            parameter.writable()[...] = p


def saved_state(groups: list[dict], state: dict[Tensor, dict]) -> dict[str, Any]:
    """Return copies: the memory of each parameter by its number, and the groups with numbers in place of parameters."""
    numbers = {p: i for i, p in enumerate(p for g in groups for p in g["params"])}
    memories = {
        numbers[p]: {k: _as_tensors(v) for k, v in memory.items()}
        for p, memory in state.items()
    }
    options = [{k: v for k, v in group.items() if k != "params"} for group in groups]
    numbered = [{**o, "params": [numbers[p] for p in g["params"]]} for o, g in zip(options, groups)]
    return {"state": memories, "param_groups": numbered}


def _as_tensors(value):
    if isinstance(value, list):
        return [_as_tensors(one) for one in value]
    return Tensor(value) if isinstance(value, np.ndarray) else value


def loaded_state(optimizer: Any, saved: dict[str, Any]) -> dict[Tensor, dict]:
    """Give the groups of an optimizer the saved options, and return the memory of each parameter, as copies.

    Raises ValueError, before anything is changed, unless `saved` is the state of an optimizer of the same kind, for
    groups and parameters of the same shapes."""
    groups, parameters = optimizer.param_groups, [p for g in optimizer.param_groups for p in g["params"]]
    _check_state(optimizer, parameters, saved)
    for group, options in zip(groups, saved["param_groups"]):
        restored = {**optimizer.defaults, **options, "params": group["params"]}
        group.clear()
        group.update(restored)
    state = nothing_remembered(optimizer)
    for number, memory in saved["state"].items():
        state[parameters[int(number)]] = _restored(optimizer, parameters[int(number)], memory)
    return state


def nothing_remembered(optimizer: Any) -> dict[Tensor, dict]:
    """Return the state of an optimizer before its first step: an empty dictionary. An optimizer without an `update`,
    which does everything in its `step` as PyTorch's do, gets an empty memory for each parameter that it asks for."""
    updates = [kind for kind in type(optimizer).__mro__ if "update" in vars(kind)]
    return {} if len(updates) > 1 else defaultdict(dict)


def _array_names(optimizer, fresh: dict) -> set[str]:
    """Return the names of the arrays that an optimizer keeps, or may keep (`optional`), for each parameter."""
    arrays = {name for name, value in fresh.items() if isinstance(value, np.ndarray)}
    return arrays | set(getattr(optimizer, "optional", ()))


def _restored(optimizer, parameter, memory: dict) -> dict:
    if not optimizer.memory:  # an optimizer with a bookkeeping of its own
        return copy.deepcopy(memory)
    fresh = optimizer.first_state(parameter)
    arrays = _array_names(optimizer, fresh)
    fresh["step"] = 1  # unless the state says more: PyTorch's SGD does not count
    for name, value in memory.items():
        if value is not None:
            fresh[name] = np.array(value, wide(parameter.dtype)) if name in arrays else type(fresh[name])(value)
    return fresh


def _check_state(optimizer, parameters, saved) -> None:
    if not isinstance(saved, dict) or not {"state", "param_groups"} <= saved.keys():
        raise ValueError('the state of an optimizer is a dictionary with "state" and "param_groups"')
    theirs, ours = ([len(g["params"]) for g in groups] for groups in (saved["param_groups"], optimizer.param_groups))
    if theirs != ours:
        raise ValueError(f"the saved optimizer has groups of {theirs} parameters, this one of {ours}")
    for group in saved["param_groups"]:
        _check_kind(optimizer, "options", optimizer.defaults.keys() - group.keys() - OFF)
    for number, memory in saved["state"].items() if optimizer.memory else ():
        parameter = parameters[int(number)]
        fresh = optimizer.first_state(parameter)
        arrays = _array_names(optimizer, fresh)
        _check_kind(optimizer, "memory", memory.keys() - fresh.keys() - arrays)
        _check_shapes(parameter, int(number), {k: v for k, v in memory.items() if k in arrays and v is not None})


def _check_kind(optimizer, what, differing) -> None:
    if differing:
        raise ValueError(
            f"this is the state of another optimizer: the {what} of {type(optimizer).__name__} differ in "
            f"{', '.join(sorted(map(str, differing)))}"
        )


def _check_shapes(parameter, number, memory) -> None:
    for name, value in memory.items():
        if np.shape(value) != parameter.shape:
            raise ValueError(
                f"{name} of parameter {number} has shape {np.shape(value)}, the parameter has {parameter.shape}"
            )
