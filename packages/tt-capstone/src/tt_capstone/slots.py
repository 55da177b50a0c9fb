"""Where a weight of a file goes in a model: into a layer, packed as it is, and into the last layer if that shares it.

A support module of chapter 20. It knows layers but not Llamas, so the chapter can build on it.
"""

from __future__ import annotations

import operator
from typing import Any

from tt_opt import QUANTIZED, PackedTensor, Quantized
from tt_tensor import Linear, Module, Parameter, from_numpy


def put(tensor: PackedTensor | None, place: Module, name: str, shape: tuple[int, ...], file: Any) -> None:
    """Make a tensor of a file the weight of the layer `name`, a path below `place`; a packed tensor stays packed.
    Raises ValueError, which names the file, if the tensor is missing or has another shape."""
    if tensor is None or tensor.shape != shape:
        found = "missing" if tensor is None else f"of shape {tensor.shape}"
        raise ValueError(f"{file}: the weight of {name} is {found}, but must have shape {shape}")
    path, _, last = name.rpartition(".")
    parent = operator.attrgetter(path)(place) if path else place
    layer = getattr(parent, last)
    if tensor.kind == "float32" or len(shape) == 1:
        layer.weight = Parameter(from_numpy(tensor.numbers()))
    else:
        layer = QUANTIZED[type(layer)].of(layer, from_numpy(tensor.rows()), tensor.kind)
        layer.shape = shape
        setattr(parent, last, layer)


def share_table(model: Any) -> None:
    """Give the last layer the weight of the table, packed or not."""
    table: Any = model.model.embed_tokens
    if isinstance(table, Quantized):
        model.lm_head = QUANTIZED[Linear].of(model.lm_head, table.rows, table.kind)
        model.lm_head.shape = table.shape
    else:
        model.lm_head.weight = table.weight


__all__ = ["put", "share_table"]
