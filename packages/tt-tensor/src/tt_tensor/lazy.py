# # Lazy modules
#
# An appendix of chapter 04. `Linear(64, 32)` names 64, the size of what comes in; after three convolutions that size
# takes a calculation. A lazy layer waits for its first input and reads the size there, as in PyTorch:
#
# ```python
# net = Sequential(LazyLinear(32), ReLU(), LazyLinear(10))
# net(x)  # now the layers have their weights, and are ordinary ones
# ```

from __future__ import annotations

from typing import Any

import numpy as np

from tt_tensor.devices import refuse_other_device
from tt_tensor.layers import Linear, Module, Parameter
from tt_tensor.tensor import Tensor, float32, ones, zeros

# ## A parameter without a shape
#
# You may create an optimizer before the first input arrives, and it holds the parameter objects. So a parameter must
# exist from the start and remain the same object when it gets its numbers. Until then we use an object of another
# class, whose shape you cannot ask for. `materialize` gives it numbers and turns it into an ordinary `Parameter`,
# because in Python we may assign an object's class.


class Uninitialized:
    """A tensor before it has a shape; the first base of the two classes below."""

    __slots__ = ()
    cls_to_become: type

    def materialize(self: Any, shape, device=None, dtype=None) -> None:
        """Give the tensor zeros of this shape and make it an ordinary one, the same object as before."""
        refuse_other_device(device)
        self._array = np.zeros(shape, self.dtype if dtype is None else dtype)
        self.__class__ = self.cls_to_become

    @property
    def shape(self) -> tuple[int, ...]:
        raise RuntimeError(
            "this tensor has no shape yet, because its lazy module has not seen an input: call the module once on a "
            "batch, and use its parameters after that"
        )

    def __repr__(self):
        return f"<{type(self).__name__}>"


# Parameters and buffers differ in the class that they become.


class UninitializedParameter(Uninitialized, Parameter):
    """A parameter that gets its shape later, by `materialize`."""

    __slots__ = ()
    cls_to_become = Parameter

    def __init__(self, requires_grad: bool = True, device=None, dtype=None):
        refuse_other_device(device)
        super().__init__(zeros(0, dtype=dtype or float32), requires_grad)


class UninitializedBuffer(Uninitialized, Tensor):
    """A buffer that gets its shape later, by `materialize`."""

    __slots__ = ()
    cls_to_become = Tensor

    def __init__(self, requires_grad: bool = False, device=None, dtype=None):
        refuse_other_device(device)
        super().__init__(zeros(0, dtype=dtype or float32), requires_grad=requires_grad)


# ## A module that waits
#
# We use the same trick for the module. A lazy layer is a subclass whose call looks at the input, creates the
# parameters, and then turns the object into its ordinary class. The second call is that of an ordinary layer and costs
# nothing extra. From then on `type(layer) is Linear` is true, too, which functions that initialize weights often ask.


class LazyModuleMixin:
    """The first base of a lazy module; the second is the class `cls_to_become`. A subclass defines
    `initialize_parameters(*inputs)`, which sets sizes and materializes what has no shape yet."""

    cls_to_become: type[Module] | None = None

    def has_uninitialized_params(self: Any) -> bool:
        """True while a parameter or buffer of this module has no shape."""
        return any(isinstance(t, Uninitialized) for t in (*self._parameters.values(), *self._buffers.values()))

    def initialize_parameters(self, *inputs, **options) -> None:
        """Read the sizes from the first input. Every lazy module defines its own."""
        raise NotImplementedError(f"{type(self).__name__} does not define initialize_parameters()")

    def __call__(self, *inputs, **options) -> Any:
        self.initialize_parameters(*inputs, **options)
        if self.cls_to_become is None:
            return super().__call__(*inputs, **options)  # type: ignore[misc]
        object.__setattr__(self, "__class__", self.cls_to_become)  # past the drawers
        return self(*inputs, **options)


# If you load a state before the first input, the parameters get their shapes from the state. So `initialize_parameters`
# must not assume that something is missing: it draws weights only if they are.


class LazyLinear(LazyModuleMixin, Linear):
    """A Linear whose in_features are the last size of its first input."""

    cls_to_become = Linear

    def __init__(self, out_features: int, bias: bool = True, device=None, dtype=None):
        Module.__init__(self)
        self.in_features, self.out_features = 0, out_features
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        self.bias = UninitializedParameter(device=device, dtype=dtype) if bias else None

    def initialize_parameters(self, x) -> None:
        """Make the weight (out_features, x.shape[-1]) and the bias, unless a state was loaded."""
        self.in_features = x.shape[-1]
        if self.has_uninitialized_params():
            weight, bias = (self.out_features, self.in_features), (self.out_features,)
            for parameter, shape in ((self.weight, weight), (self.bias, bias)):
                if isinstance(parameter, UninitializedParameter):
                    parameter.materialize(shape)
            self.reset_parameters()


# The parameters are there before the first call and stay the same objects.


def check_lazy_linear():
    layer = LazyLinear(3)
    weight = layer.weight
    assert isinstance(weight, UninitializedParameter) and [n for n, _ in layer.named_parameters()] == ["weight", "bias"]
    assert layer(ones(5, 2)).shape == (5, 3) and type(layer) is Linear and layer.in_features == 2
    assert layer.weight is weight and type(weight) is Parameter and weight.shape == (3, 2)


# ## Errors you will meet
#
# If you initialize a lazy layer's weights before the first call, there is nothing to fill yet.


def show_errors():
    from tt_tensor.init import xavier_uniform_

    try:
        xavier_uniform_(LazyLinear(3).weight)
    except (RuntimeError, ValueError) as error:
        print(f"{type(error).__name__}: {error}")


__all__ = [
    "LazyLinear", "LazyModuleMixin", "Uninitialized", "UninitializedBuffer", "UninitializedParameter",
]
