"""Reductions, checks of targets and the base of modules, for the losses of chapter 05 and its appendices."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from tt_tensor.options import keep_options, kept, told
from tt_tensor.tensor import Tensor, float32, mean, sum


def reduced(values: Tensor, reduction: str) -> Tensor:
    """The mean or the sum of all values, or the values unchanged, by `reduction`. Raises ValueError otherwise."""
    if reduction == "mean":
        return mean(values)
    if reduction == "sum":
        return sum(values)
    if reduction == "none":
        return values
    raise ValueError(f'reduction must be "mean", "sum" or "none", not {reduction!r}')


def refuse_other_shape(name: str, x: Tensor, target: Tensor) -> None:
    """Raise ValueError, in the name of the loss `name`, unless input and target have the same shape."""
    if x.shape != target.shape:
        raise ValueError(
            f"{name}: the input has shape {x.shape} and the target {target.shape}; they must be equal, or the loss "
            "would compare pairs that you did not mean. Use reshape or squeeze"
        )


def as_float(x: Tensor, target: Tensor) -> Tensor:
    """x, converted to float32 if neither x nor target holds floats."""
    return x if x.dtype.kind == "f" or target.dtype.kind == "f" else x.to(float32)


def class_ids(x: Tensor, target: Tensor, ignore_index: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels for logits x (N, C, ...) or (C,), with 0 where a label is ignore_index, and which labels count.

    Raises TypeError for labels that are not integers, ValueError for another shape than (N, ...) or (), and IndexError
    for a label without a class."""
    labels = target.numpy()
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"labels are class numbers and must be integers, but these have dtype {labels.dtype}. Use "
            "tensor([...]) or .long()"
        )
    if x.ndim < 1 or labels.shape != x.shape[:1] * (x.ndim > 1) + x.shape[2:]:
        raise ValueError(
            f"an input of shape {x.shape} needs labels of shape {x.shape[:1] * (x.ndim > 1) + x.shape[2:]}, "
            f"not {labels.shape}"
        )
    counted, classes = labels != ignore_index, x.shape[min(1, x.ndim - 1)]
    bad = labels[counted & ((labels < 0) | (labels >= classes))]
    if bad.size:
        raise IndexError(f"label {bad[0]} is out of range: there are {classes} classes, 0 to {classes - 1}")
    return np.where(counted, labels, 0), counted


def class_weights(weight: Tensor, classes: int) -> np.ndarray:
    """The class weights as an array of floats (classes,). Raises ValueError for another shape."""
    if weight.shape != (classes,):
        raise ValueError(
            f"weight needs one number for each of the {classes} classes, but its shape is {weight.shape}"
        )
    return weight.numpy() if weight.dtype.kind == "f" else weight.numpy().astype(float32)


class LossOptions:
    """The first base of a module that is a loss `function` and its options, by position in PyTorch's `order` or by
    name. Also accepts `size_average` and `reduce`, PyTorch's older words for a reduction."""

    function: Callable
    reduction: str
    order: tuple[str, ...] = ("size_average", "reduce", "reduction")

    def __init__(self, *args, **options):
        super().__init__()
        parameters = inspect.signature(type(self).function).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        keep_options(self, {name: defaults.get(name) for name in (*self.order, *defaults)}, args, options)
        self.defaults = defaults
        self.reduction = reduction_of(self.__dict__.pop("size_average", None), self.__dict__.pop("reduce", None)) or (
            self.reduction
        )

    def forward(self, *tensors, **named) -> Any:
        first = [named.pop(name) for name in ("input", "log_input") if name in named]  # PyTorch's names of it
        return type(self).function(*first, *tensors, **named, **kept(self, self.defaults))

    def extra_repr(self) -> str:
        return told(self, [name for name, default in self.defaults.items() if getattr(self, name) is not default])


def reduction_of(size_average: bool | None, reduce: bool | None) -> str | None:
    """The reduction that PyTorch's two older words mean; None if neither is given."""
    if size_average is None and reduce is None:
        return None
    return "none" if reduce is False else "sum" if size_average is False else "mean"
