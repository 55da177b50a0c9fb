"""Room for gradients: the methods that people who know PyTorch expect, for tensors without a history.

A support module of chapter 02. A tensor that was not recorded has no history, so its methods can only say so, or keep
things for later. Results that chapter 07 records have methods of their own in their place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import tt_tensor as tt
    from tt_tensor.tensor import Tensor
else:
    from tt_tensor.registry import tt


class History:
    """The methods around gradients, of a tensor that has none."""

    __slots__ = ()
    is_leaf: bool = True

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ask for a gradient of this tensor, or no longer. Raises RuntimeError for a dtype that cannot have one."""
        if requires_grad and self._array.dtype.kind != "f":
            raise RuntimeError(f"only floating-point tensors can require gradients, not {self.dtype}; use .float()")
        self._requires_grad = bool(requires_grad)
        return self

    def backward(self, gradient=None, retain_graph=False, create_graph=False) -> None:
        """Raise RuntimeError: this tensor has no history to go back through."""
        raise RuntimeError(
            "this tensor has no history to go back through: no input required a gradient, or it was computed "
            "under no_grad(), "
            "or operations are not being recorded (pip install tt-autograd, then import tt_autograd)"
        )

    def register_hook(self, hook: Callable) -> Callable:
        """Call `hook(gradient)` when the gradient for this tensor is known; a result other than None replaces it.

        Returns a function that removes the hook."""
        registered = partial(hook)  # an object of its own, because the same hook may be registered twice
        self._hooks = [*(self._hooks or ()), registered]

        def remove():
            self._hooks = [h for h in self._hooks if h is not registered]

        return remove

    def retain_grad(self) -> None:
        """Keep `.grad` of this tensor even if it is the result of an operation; without a history it is kept anyway."""

    @property
    def data(self) -> Tensor:
        """The values without the history; assigning to it, or into it, changes them in place."""
        return self.detach()

    @data.setter
    def data(self, values) -> None:
        values = values.detach() if isinstance(values, History) else tt.from_numpy(tt.as_array(values))
        if values.shape != self.shape:
            raise ValueError(f"values of shape {values.shape} cannot replace those of a tensor of shape {self.shape}")
        self.detach().copy_(values)


__all__ = ["History"]
