"""torch's functions on derivatives, by those of chapter 07."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tt_autograd import check_gradients, grad
from tt_autograd import jacobian as matrix_of_derivatives
from tt_tensor import Tensor, from_numpy


def jacobian(
    func: Callable, inputs: Any, create_graph: bool = False, strict: bool = False, vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Tensor:
    """The derivatives of every element of func(inputs) with respect to every element of one tensor, in their shapes.

    Raises TypeError for several inputs, RuntimeError for create_graph."""
    if not isinstance(inputs, Tensor):
        raise TypeError("jacobian and hessian take one tensor; for several, call them once for each")
    if create_graph:
        raise RuntimeError("jacobian and hessian are numbers without a history; use autograd.grad(create_graph=True)")
    x, shape = inputs.detach().clone(), func(inputs).shape
    x.requires_grad = True
    return from_numpy(matrix_of_derivatives(lambda x: func(x).reshape(-1), x)).reshape(*shape, *x.shape)


def hessian(
    func: Callable, inputs: Any, create_graph: bool = False, strict: bool = False, vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Tensor:
    """The second derivatives of func(inputs), a single number, with respect to one tensor: twice its shape."""
    def gradient(x: Tensor) -> Tensor:
        x = x if x.requires_grad else x.detach().clone().requires_grad_()
        return grad(func(x), x, create_graph=True)[0]

    return jacobian(gradient, inputs, create_graph)


def gradcheck(
    func: Callable, inputs: Any, *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3,
    raise_exception: bool = True, **ignored: Any,
) -> bool:
    """True if the gradients of func agree with finite differences; else RuntimeError, or False. Use float64."""
    return _agree(func, inputs, 1, raise_exception, eps=eps, atol=atol, rtol=rtol)


def gradgradcheck(
    func: Callable, inputs: Any, grad_outputs: Any = None, *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3,
    raise_exception: bool = True, **ignored: Any,
) -> bool:
    """gradcheck for first and second derivatives."""
    return _agree(func, inputs, 2, raise_exception, eps=eps, atol=atol, rtol=rtol)


def _agree(func, inputs, order, raise_exception, **tolerances) -> bool:
    try:
        check_gradients(func, *((inputs,) if isinstance(inputs, Tensor) else inputs), order=order, **tolerances)
    except AssertionError as error:
        if raise_exception:
            raise RuntimeError(str(error)) from None
        return False
    return True
