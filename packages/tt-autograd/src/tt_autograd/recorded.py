# # Recorded
#
# An appendix of chapter 07: the second base class of `Traced`, beside `Tensor`. It answers PyTorch's questions about
# the record (`loss.grad_fn.next_functions`). It also lets you change a result in place, by `y += x`, `y.mul_(2)` or
# `y[~mask] = 0`, and ensures that no gradient is wrong afterwards.

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import numpy as np

import tt_tensor as tt

if TYPE_CHECKING:
    from tt_tensor import Tensor

# ## Asking for the record
#
# PyTorch's computational graph consists of nodes beside the tensors, and `grad_fn` is the node of a tensor. In our
# graph the tensors *are* the nodes. So we create a node when you ask for it: a view of a tensor that knows its
# primitive and its inputs. Where a leaf collects its gradient, PyTorch has a node `AccumulateGrad`, and so have we.


class Node:
    """An operation of the record, as `tensor.grad_fn` shows it."""

    __slots__ = ("_of",)

    def __init__(self, of: Tensor):
        self._of = of

    def name(self) -> str:
        """Return the name of the operation, such as "MulBackward0"."""
        return type(self).__name__

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """For each input, a pair of the node that its gradient goes to, or None, and 0."""
        return tuple((node_of(tensor), 0) for tensor in getattr(self._of, "_inputs", ()))

    def __eq__(self, other): return isinstance(other, Node) and self._of is other._of
    def __hash__(self): return hash(id(self._of))
    def __repr__(self): return f"<{self.name()} object at {id(self._of):#x}>"


class AccumulateGrad(Node):
    """The end of a way back: `variable` is the leaf whose `.grad` the gradient is added to."""

    __slots__ = ()
    variable = property(lambda self: self._of)


# We give the class of a node the name that PyTorch's C++ gives it, since programs that draw graphs print it. Most of
# our primitives have the names of PyTorch's operations.

_CALLED = {
    "power": "Pow", "power_of": "Pow", "matmul": "Mm", "affine": "Addmm", "getitem": "Index", "choose": "Where",
    "concat": "Cat", "copied": "Clone", "cast": "ToCopy", "take_along": "Gather", "clip": "Clamp", "reshape": "View",
}


@functools.cache
def _kind(primitive: str) -> type[Node]:
    name = _CALLED.get(primitive) or "".join(word.capitalize() for word in primitive.split("_"))
    return type(f"{name}Backward0", (Node,), {"__slots__": ()})


def node_of(tensor: Any) -> Node | None:
    """Return the node of a result, AccumulateGrad for a leaf that requires a gradient, None for any other tensor."""
    if not tensor.requires_grad:
        return None
    return _kind(tensor._primitive.name)(tensor) if isinstance(tensor, Recorded) else AccumulateGrad(tensor)


# ## Changing a result
#
# `y += x` changes `y` under all of its names, and the record must follow. So we move the old node into a *twin*, which
# keeps a copy of the old values, and `y` becomes the sum of the twin and `x`. Results that were computed from `y`
# before have read the old values. If a rule would read `y` again, the clock shows that those values are gone, and the
# walk of chapter 07 refuses to pass through it.
#
# Views need more. If `row = y[0]` and `row += 1`, `y` has changed as well. The row gets a new record as above. We move
# the old `y` into a twin, too, and `y` becomes this twin with the new row in its place. We do not know of a third
# tensor that shares the same memory, but the clock refuses it.


class Recorded:
    """A result of a recorded operation: its questions about the record, and its changes in place."""

    __slots__ = ()
    _rules: Any

    @property
    def grad_fn(self) -> Node | None:
        """The operation that this tensor comes from."""
        return node_of(self)

    def _history(self):
        return f"grad_fn=<{self.grad_fn.name()}>"

    def retain_grad(self):
        """Keep `.grad` of this result, too, in the next backward pass."""
        self._watched = True

    @property
    def retains_grad(self) -> bool:
        """Whether `retain_grad` has been called."""
        return self._watched

    # A result requires a gradient because its inputs do, so you cannot switch that off. It cannot be copied or pickled
    # either, because its record would have to come along.

    def requires_grad_(self, requires_grad=True):
        """Return this result, which requires a gradient as its inputs do. Raises RuntimeError when asked to stop."""
        if requires_grad != self._requires_grad:
            raise RuntimeError(f"the result of {self._primitive.name} cannot forget its history; use .detach()")
        return self

    def __reduce_ex__(self, protocol):
        name = self._primitive.name
        raise RuntimeError(f"a result with a history ({name}) cannot be copied or pickled; use .detach() or .clone()")

    # A profiler (chapter 19) wants to know how long the rules of a node take.

    def wrap_rules(self, wrap: Callable[[Callable], Callable]) -> None:
        """Replace each rule of this node by wrap(rule), which must take and return the same."""
        rules = self._rules
        self._rules = tuple(one and wrap(one) for one in rules) if type(rules) is tuple else wrap(rules)

    # A change in place first looks for all views, and raises an error before it changes anything. Then it creates the
    # twins, from the owner of the memory downwards, and writes the new values.

    def _in_place(self, result):
        views = _views(self)
        if result is self:
            return self
        if not isinstance(result, Recorded) or result.shape != self.shape or not isinstance(views[-1], Recorded):
            return super()._in_place(result)
        for view in views:
            _refuse_if_overwritten(view)
        self.writable()  # or an error, before anything is changed
        result, since = result.to(self.dtype), views[-1]._made
        twins: dict[int, Tensor] = {}
        for view in reversed(views):
            twins[id(view)] = _twin(view, twins)
        _redirect(result, twins, views[-1]._array, since)
        np.copyto(self.writable(), result._array)
        _become(self, result)
        for count, base in enumerate(views[1:], 1):
            _become(base, _with_part(views[: count + 1], twins))
        return self

    # We treat an assignment as a choice: the value at the index, and the old element everywhere else.

    def __setitem__(self, index, value):
        result = _assigned(self, index, value)
        if isinstance(result, Recorded):
            self._in_place(result)
        else:
            super().__setitem__(index, value)

    # The new elements may have a history although the tensor that you write them to has none: `scores[i] = f(h)`, where
    # `scores` was created by `zeros`. From then on, that tensor has the history of its elements, and is a result
    # itself.

    def give_history_to(self, target) -> bool:
        """Turn a tensor without history into this result, values and record. Return False if that is impossible."""
        refuses = target.requires_grad or type(target) is not tt.Tensor or target.dtype.kind != "f"
        if refuses or self.shape != target.shape or not _is_recording() or not _is_alone(target):
            return False
        target.writable()  # or an error, before anything is changed
        result, twins = self.to(target.dtype), {id(target): _twin(target, {})}
        _redirect(result, twins, target._array, 0)
        np.copyto(target.writable(), result._array)
        target.__class__, target._requires_grad, target._watched = type(self), True, False
        _become(target, result)
        return True

    def assign_to(self, target, index) -> bool:
        """`give_history_to` for target[index] = self."""
        result = _assigned(target, index, self)
        return isinstance(result, Recorded) and result.give_history_to(target)

    # A result can forget its history. Other results may still need that history. So we count the change as a write, and
    # the clock refuses to walk back through it.

    def detach_(self) -> Self:
        """Return this tensor, as a constant from here on."""
        self.writable()
        _forget(self)
        return self


# We find the views by their memory: a result that shares memory with its input is a view of this input.


def _views(node):
    """Return the node, the tensor that it is a view of, and so on to the owner of the memory."""
    views = [node]
    while isinstance(views[-1], Recorded):
        shared = [t for t in views[-1]._inputs if np.may_share_memory(t._array, views[-1]._array)]
        if not shared:
            break
        views += shared[:1]
    return views


# We link the twins of views as the views are linked. The nodes behind the result have read old values, too, so we turn
# them into functions of the twins. Any other tensor that they read from this memory gets a twin as well.


def _twin(tensor, twins):
    """Return a tensor with a copy of the values. The record and the hooks, if there are any, move to it."""
    if not isinstance(tensor, Recorded):
        return tt.from_numpy(tensor._array.copy())
    twin = type(tensor).__new__(type(tensor))
    for slot in ("_requires_grad", "grad", "_hooks", "_primitive", "_rules", "_inputs", "_params", "_made", "_watched"):
        setattr(twin, slot, getattr(tensor, slot))
    twin._array, twin._watched, tensor._hooks, tensor._made = tensor._array.copy(), False, None, tt.tick()
    twin._inputs = tuple(twins.get(id(t), t) for t in tensor._inputs)
    return twin


# `_redirect` walks back from the result, as far as nodes are newer than the memory's owner.


def _redirect(result, twins, memory, since: int) -> None:
    seen, stack = set(), [result]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        for tensor in node._inputs:
            if id(tensor) not in twins and np.may_share_memory(tensor._array, memory):
                twins[id(tensor)] = _twin(tensor, twins)
        node._inputs = tuple(twins.get(id(t), t) for t in node._inputs)
        stack += [t for t in node._inputs if isinstance(t, Recorded) and t._made > since]


def _forget(node) -> None:
    node._requires_grad, node._inputs, node._rules, node._hooks = False, (), None, None


def _become(node, result) -> None:
    node._primitive, node._rules, node._params = result._primitive, result._rules, result._params
    node._inputs, node._made = result._inputs, tt.tick()


def _refuse_if_overwritten(node) -> None:
    if node._rules is not None and tt.last_write(node) > node._made:
        raise RuntimeError(
            f"the result of {node._primitive.name} of shape {node.shape} was changed in place after it was recorded, "
            "so its record is of other numbers. Change a clone() instead"
        )


# A plain tensor knows nothing about its views. If a second tensor or an array of yours shares the memory, its elements
# would change without a history, and we would silently lose a gradient. So only a tensor that is alone with its memory
# can become a result. Python counts the references to each array, and we compare with those of a new tensor.


def _references(tensor) -> list[int]:
    counts, array = [], tensor._array
    while isinstance(array, np.ndarray):
        counts.append(sys.getrefcount(array))
        array = array.base
    return counts if array is None else []


def _is_alone(tensor) -> bool:
    counts = _references(tensor)
    return counts in (_references(tt.zeros(2)), _references(tt.zeros(2).unsqueeze(0)))


def _is_recording() -> bool:
    return tt.neg(tt.zeros((), requires_grad=True)).requires_grad


# ## Where a part is
#
# The two remaining functions must find out where something is in a tensor. Both apply the same operations to the
# numbers 0, 1, 2 and so on, and look where the numbers end up.
#
# For an assignment, we give each chosen element of `x` the position of its value. An element that you choose twice
# keeps the later position, and the gradient goes to that value alone.


def _assigned(x, index, value) -> Any:
    """x with x[index] replaced by a number or a tensor, as an operation."""
    if index is False:  # as in PyTorch, the only index with which the value plays no part
        return x
    which = tt.full(x.shape, -1, dtype=tt.int64)
    chosen = which[index]
    which[index] = tt.arange(chosen.numel()).reshape(chosen.shape)
    value = tt.tensor(value) if isinstance(value, (list, tuple, np.ndarray)) else value
    if isinstance(value, (bool, int, float, np.generic)):
        return tt.masked_fill(x, which >= 0, value)
    value = value.reshape(value.shape[max(value.ndim - chosen.ndim, 0) :]) if value.numel() == 1 else value
    return _put(x, which, value.to(x.dtype).expand(chosen.shape))


def _put(x, which, values):
    picked = values.reshape(-1)[tt.clip(which, min=0)] if values.numel() else values.sum()  # nothing is picked
    return tt.where(which >= 0, picked, x)


# For a view, we send the numbers through the view's own operations. Each element then shows where it is in the base.


def _with_part(views, twins):
    """Return the old values of the last of the views, with the new values of the first in their places."""
    part, base = _twin(views[0], {}), twins[id(views[-1])]
    places = np.arange(base._array.size).reshape(base.shape)
    for view in reversed(views[:-1]):
        old = twins[id(view)]
        places = old._primitive.kernel(places, **old._params)
    which = np.full(base._array.size, -1)
    which[places.reshape(-1)] = np.arange(places.size)
    return _put(base, tt.from_numpy(which.reshape(base.shape)), part)


__all__ = ["AccumulateGrad", "Node", "Recorded", "node_of"]
