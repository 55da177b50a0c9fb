# # More autograd
#
# An appendix of chapter 07: a guard that finds the operation that made a `nan`, and a picture of the computational
# graph.

from __future__ import annotations

import threading
from typing import Any

import numpy as np

import tt_tensor as tt
from tt_autograd.autograd import Traced
from tt_autograd.decorators import Decorator
from tt_tensor import Tensor, interpreting

# ## When a nan appears
#
# One `nan` turns everything that it touches into `nan`, and by the time we see it in the loss, the culprit is long
# gone. So we put a guard into the door that looks at every result. If a primitive makes a nan out of inputs without
# one, we report it on the spot.
#
# While a guard is there, a backward pass goes through the door as well. So we also find the nan that appears only
# there, such as $0 \cdot \infty$ in the slope of a square root at zero. The walk then adds a note that names the rule.


class Anomaly(RuntimeError):
    """An operation made a nan out of inputs without one; raised under `detect_anomaly`."""


def _guard(next, primitive, tensors, params):
    out = next(primitive, tensors, params)
    if np.isnan(out._array).any() and not any(np.isnan(t._array).any() for t in tensors):
        shapes = " and ".join(str(t.shape) for t in tensors)
        raise Anomaly(
            f"{primitive.name} of shape {shapes} made a nan out of inputs without one; largest inputs: "
            f"{[float(np.abs(t._array).max(initial=0)) for t in tensors]}"
        )
    return out


# As with `no_grad`, we may enter one object several times before we leave it, on several threads. So each thread keeps
# a stack of its guards.


class _Guards(threading.local):
    def __init__(self):
        self.active: list[Any] = []


_guards = _Guards()


class detect_anomaly(Decorator):
    """A block, or a function of any kind, in which the first operation that makes a nan out of inputs without nan
    raises Anomaly, a RuntimeError, in a forward or backward pass."""

    def __enter__(self):
        _guards.active.append(interpreting(_guard))
        _guards.active[-1].__enter__()

    def __exit__(self, *exception):
        _guards.active.pop().__exit__(*exception)


# Here is a nan in a forward pass, and one that only the backward pass makes: the slope of the square root at 0 is
# infinite, and we multiply it by 0.


def show_anomalies():
    for value in (-4.0, 0.0):
        x = Tensor([1.0, value], requires_grad=True)
        try:
            with detect_anomaly():
                (tt.sqrt(x) * Tensor([1.0, 0.0])).sum().backward()
        except Anomaly as error:
            print(*[str(error), *getattr(error, "__notes__", ())], sep="\n    ")


# ## A look at the graph
#
# We can draw the record. `graph` writes the computational graph that leads to a tensor in the language of *mermaid*,
# which GitHub and many editors turn into a picture. Primitives are boxes, and leaves are rounded. It walks back like a
# backward pass, but needs no heap, since the order does not matter for drawing.


def graph(output: Tensor) -> str:
    """Return the computational graph behind a tensor as mermaid text: a flowchart from the leaves to the output."""
    lines, names, stack = ["flowchart LR"], {id(output): "n0"}, [output]
    lines.append(_drawn(output, "n0"))
    while stack:
        node = stack.pop()
        for tensor in node._inputs if type(node) is Traced else ():
            if id(tensor) not in names:
                names[id(tensor)] = f"n{len(names)}"
                lines.append(_drawn(tensor, names[id(tensor)]))
                stack.append(tensor)
            lines.append(f"    {names[id(tensor)]} --> {names[id(node)]}")
    return "\n".join(lines)


def _drawn(tensor, name):
    shape = "x".join(map(str, tensor.shape)) or "number"
    if type(tensor) is Traced:
        return f'    {name}["{tensor._primitive.name} ({shape})"]'
    return f'    {name}(["{"leaf" if tensor.requires_grad else "constant"} ({shape})"])'


# A layer with its activation and a sum makes six nodes.


def show_graph():
    weight, bias, x = tt.randn(4, 3, requires_grad=True), tt.zeros(4, requires_grad=True), tt.randn(2, 3)
    print(graph(tt.relu(tt.linear(x, weight, bias)).sum()))


__all__ = ["Anomaly", "detect_anomaly", "graph"]
