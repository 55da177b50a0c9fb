"""What chapter 06 and its appendices ask of what an optimizer is given: parameters, groups, options and gradients."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tt_optim.states import wide
from tt_tensor import Module, Tensor


def refuse_negative(**options: float) -> None:
    """ValueError unless every option is 0 or more (nan is not)."""
    for name, value in options.items():
        if not value >= 0:
            raise ValueError(f"{name} must be 0 or more, not {value}")


def refuse_outside_unit(**options) -> None:
    """ValueError unless every option, or every number of an option, is at least 0 and below 1."""
    for name, value in options.items():
        if not all(0 <= number < 1 for number in np.ravel(value)):
            raise ValueError(f"{name} must be at least 0 and below 1, not {value}")


def parameter_list(parameters) -> list:
    """One parameter or several (or groups of them) as a list. TypeError for anything else."""
    listed = [parameters] if isinstance(parameters, Tensor) else parameters
    if not isinstance(listed, Iterable) or isinstance(listed, (str, Module)):
        raise TypeError(f"parameters are a list of tensors, not {type(parameters).__name__}; pass model.parameters()")
    listed = list(listed)
    for p in listed:
        if not isinstance(p, (Tensor, dict)):
            raise TypeError(f"parameters are tensors, not {type(p).__name__}; pass model.parameters()")
    return listed


def parameter_groups(parameters, defaults: dict) -> list[dict]:
    """A list of parameters, or of groups, as a list of groups with the defaults filled in.

    Raises TypeError for what is not a list of tensors, and ValueError for an empty list, for groups that are mixed with
    parameters, for the result of an operation, for a parameter that is given twice, and for a negative `lr` or
    `weight_decay`."""
    if isinstance(parameters, (Tensor, dict)):
        kind = "one parameter" if isinstance(parameters, Tensor) else "one group"
        raise TypeError(f"an optimizer takes a list of parameters or groups, not {kind}; put it into a list: [...]")
    given = parameter_list(parameters)
    if not given:
        raise ValueError(
            "the optimizer got an empty list of parameters; was the iterator used up, or does the model have none?"
        )
    groups = given if any(isinstance(g, dict) for g in given) else [{"params": given}]
    if not all(isinstance(g, dict) and "params" in g for g in groups):
        raise ValueError('groups are dictionaries with the key "params"; do not mix them with parameters')
    groups = [{**defaults, **g, "params": parameter_list(g["params"])} for g in groups]
    _check_parameters([p for g in groups for p in g["params"]])
    for options in (defaults, *groups):
        refuse_negative(**{name: options[name] for name in ("lr", "weight_decay") if name in options})
    return groups


def _check_parameters(parameters: list) -> None:
    for p in parameters:
        if not p.is_leaf:
            raise ValueError(
                f"a tensor of shape {p.shape} is the result of an operation; only parameters themselves can be updated"
            )
    if len({id(p) for p in parameters}) != len(parameters):
        raise ValueError("a parameter appears twice in the optimizer; it would be updated twice in each step")


def gradient_of(parameter: Tensor) -> np.ndarray:
    """The gradient of a parameter as an array of at least 32 bits. ValueError if it has another shape than the
    parameter."""
    if parameter.grad.shape != parameter.shape:
        raise ValueError(
            f"a parameter of shape {parameter.shape} has a gradient of shape {parameter.grad.shape}; they must be equal"
        )
    return np.asarray(parameter.grad.numpy(), wide(parameter.dtype))
