"""Contexts that torch has beside no_grad and enable_grad, and classes of torch's that need a word of advice."""

from __future__ import annotations

from typing import Any

from tt_tensor import Tensor
from tt_autograd import detect_anomaly, enable_grad, no_grad


class set_grad_enabled:
    """Record operations, or not, from here on; as a context, until the end of its block."""

    def __init__(self, mode: bool):
        self.mode, self.inside = mode, enable_grad() if mode else no_grad()
        self.inside.__enter__()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: Any) -> None:
        self.inside.__exit__(*exception)

    def __call__(self, function):
        self.inside.__exit__()
        return (enable_grad if self.mode else no_grad)(function)


class inference_mode(no_grad):
    """A block, or a function, in which nothing is recorded: no_grad. With mode=False it records as before."""

    def __new__(cls, mode: Any = True):
        return super().__new__(cls) if isinstance(mode, bool) else no_grad(mode)

    def __init__(self, mode: Any = True):
        self.mode = mode

    def __enter__(self):
        if self.mode:
            super().__enter__()

    def __exit__(self, *exception):
        if self.mode:
            super().__exit__(*exception)


class set_detect_anomaly(set_grad_enabled):
    """Search for nan in gradients, or not, from here on; as a context, until the end of its block."""

    def __init__(self, mode: bool, check_nan: bool = True):
        self.mode = mode
        self.inside: Any = detect_anomaly() if mode else enable_grad()
        self.inside.__enter__()


def backward(
    tensors, grad_tensors=None, retain_graph=None, create_graph=False, grad_variables=None, inputs=None
) -> None:
    """The gradients of one tensor or several, added up in the leaves. Raises RuntimeError for `inputs`."""
    if inputs is not None:
        raise RuntimeError("backward fills the gradients of all leaves; for some: autograd.grad(outputs, inputs)")
    several = (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)
    given = (grad_tensors,) if grad_tensors is None or isinstance(grad_tensors, Tensor) else tuple(grad_tensors)
    for position, (tensor, gradient) in enumerate(zip(several, given * len(several) if given == (None,) else given)):
        is_last = position == len(several) - 1
        tensor.backward(gradient, retain_graph=retain_graph if is_last else True, create_graph=create_graph)


def Variable(data: Any, requires_grad: bool = False, volatile: bool = False) -> Any:
    """The tensor itself: since torch 0.4, tensors are variables."""
    if requires_grad:
        data.requires_grad = True
    return data


class Function:
    """torch's way to an operation with a gradient of its own. It can be written down, and is refused when applied."""

    @classmethod
    def apply(cls, *args: Any, **options: Any) -> Any:
        """Raises RuntimeError."""
        raise RuntimeError(
            f"{cls.__name__}.apply: autograd.Function is not available. Write the forward pass as a function on arrays "
            "with @tt_tensor.primitive, and its derivatives with tt_autograd.rule, one for each operand"
        )
