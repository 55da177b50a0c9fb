"""Checks for chapter 06 and its appendices: parameters, groups, options and gradients of an optimizer."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tt_optim.states import wide
from tt_tensor import Module, Tensor


def refuse_negative(**options: float) -> None:
    """Raise ValueError unless every option is 0 or more (nan is not)."""
    for name, value in options.items():
        if not value >= 0:
            raise ValueError(f"{name} must be 0 or more, not {value}")


def refuse_outside_unit(**options) -> None:
    """Raise ValueError unless every option, or every number of an option, is at least 0 and below 1."""
    for name, value in options.items():
        if not all(0 <= number < 1 for number in np.ravel(value)):
            raise ValueError(f"{name} must be at least 0 and below 1, not {value}")


def refuse_nesterov(momentum: float, dampening: float) -> None:
    """Raise ValueError unless there is a momentum and no dampening, which Nesterov's variant needs."""
    if momentum <= 0 or dampening != 0:
        raise ValueError(f"nesterov needs a momentum and no dampening; momentum is {momentum}, dampening {dampening}")


def parameter_list(parameters) -> list:
    """Return one parameter or several (or groups of them) as a list. Raises TypeError for anything else."""
    listed = [parameters] if isinstance(parameters, Tensor) else parameters
    if not isinstance(listed, Iterable) or isinstance(listed, (str, Module)):
        raise TypeError(f"parameters are a list of tensors, not {type(parameters).__name__}; pass model.parameters()")
    listed = list(listed)
    for p in listed:
        if not isinstance(p, (Tensor, dict)):
            raise TypeError(f"parameters are tensors, not {type(p).__name__}; pass model.parameters()")
    return listed


def parameter_groups(parameters, defaults: dict) -> list[dict]:
    """Return a list of parameters, or of groups, as a list of groups with the defaults filled in.

    Raises TypeError for anything but a list of tensors, and ValueError for an empty list, for groups mixed with
    parameters, for the result of an operation, for a parameter that appears twice, and for a negative `lr` or
    `weight_decay`."""
    if isinstance(parameters, (Tensor, dict)):
        kind = "one parameter" if isinstance(parameters, Tensor) else "one group"
        raise TypeError(f"an optimizer takes a list of parameters or groups, not {kind}; put it into a list: [...]")
    names, given = _names_and_parameters(parameters)
    if not given:
        raise ValueError(
            "the optimizer got an empty list of parameters; was the iterator used up, or does the model have none?"
        )
    groups: list[dict] = []
    _check_options(defaults)
    given = list(zip(names, given)) if names else given
    for group in given if any(isinstance(g, dict) for g in given) else [{"params": given}]:
        groups.append(added_group(group, defaults, groups))
    return groups


def added_group(group: dict, defaults: dict, others: list[dict]) -> dict:
    """A group beside others, with the defaults filled in; the names of its parameters, if they have any, are in
    `param_names`. Raises as `parameter_groups` does."""
    if not isinstance(group, dict) or "params" not in group:
        raise ValueError('groups are dictionaries with the key "params"; do not mix them with parameters')
    names, parameters = _names_and_parameters(group["params"])
    result = {**defaults, **group, "params": parameters, **({"param_names": names} if names else {})}
    if any(("param_names" in other) != ("param_names" in result) for other in others):
        raise ValueError("either all groups of parameters have names, or none; pass model.named_parameters() in each")
    _check_parameters([p for other in others for p in other["params"]], parameters)
    _check_options(result)
    return result


def _names_and_parameters(parameters) -> tuple[list[str], list]:
    if isinstance(parameters, (set, frozenset)):
        raise TypeError("a set of parameters has another order in each run; pass a list")
    listed = list(parameters) if isinstance(parameters, Iterable) and not isinstance(parameters, Tensor) else parameters
    if not isinstance(listed, list) or isinstance(parameters, (str, Module)) or not any(_is_named(p) for p in listed):
        return [], parameter_list(parameters if isinstance(parameters, (str, Module)) else listed)
    if not all(_is_named(p) for p in listed):
        raise ValueError("either all parameters of a group have names, as (name, tensor), or none")
    return [name for name, _ in listed], parameter_list([p for _, p in listed])


def _is_named(pair) -> bool:
    return isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)


def _check_options(options: dict) -> None:
    if isinstance(options.get("lr"), Tensor):
        options["lr"] = options["lr"].item()
    refuse_negative(**{name: options[name] for name in ("lr", "weight_decay") if name in options})


def _check_parameters(others: list, parameters: list) -> None:
    for p in parameters:
        if not p.is_leaf:
            raise ValueError(
                f"a tensor of shape {p.shape} is the result of an operation; only parameters themselves can be updated"
            )
    if len({id(p) for p in (*others, *parameters)}) != len(others) + len(parameters):
        raise ValueError("a parameter appears twice in the optimizer; it would be updated twice in each step")


def add_options(optimizer, **options) -> None:
    """Give the defaults of an optimizer, and its groups where they lack them, further options."""
    optimizer.defaults.update(options)
    for group in optimizer.param_groups:
        group.update({name: value for name, value in options.items() if name not in group})


def downhill(p: np.ndarray, g: np.ndarray, group: dict) -> np.ndarray:
    """Return the gradient g of an array p, its sign flipped if the group says `maximize`, plus the weight decay."""
    g = -g if group["maximize"] else g
    return g + group["weight_decay"] * p if group["weight_decay"] else g


def without_effect(differentiable: bool = False, **options) -> dict:
    """Return PyTorch's options that choose a way of computing and not the result (`foreach`, `fused`, `capturable`), to
    be kept without effect. Raises ValueError for `differentiable`, which would record each step."""
    if differentiable:
        raise ValueError("steps of an optimizer are not recorded here: differentiable must be False")
    return {**options, "differentiable": False}


def gradient_of(parameter: Tensor) -> np.ndarray:
    """Return the gradient of a parameter as an array of at least 32 bits. Raises ValueError if it has another shape
    than the parameter."""
    if parameter.grad.shape != parameter.shape:
        raise ValueError(
            f"a parameter of shape {parameter.shape} has a gradient of shape {parameter.grad.shape}; they must be equal"
        )
    return np.asarray(parameter.grad.numpy(), wide(parameter.dtype))
