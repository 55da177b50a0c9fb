# # Layers
#
# At the end of this chapter a network is one object. It knows its weights by name, counts them, prints itself, saves
# them and takes them back; and one of the first machines that learned, Rosenblatt's perceptron of 1957, runs on it.

# ## The hurt
#
# Chapter 03 ended with a network of four layers as eight loose arrays. Here is what carrying them by hand looks like
# when the network has to be *improved* a little, which is what all the chapters from here on do:

from __future__ import annotations

import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tt_tensor import activations, more_activations, more_ops
from tt_tensor.activations import relu
from tt_tensor.devices import refuse_other_device
from tt_tensor.module_methods import ListMethods, ModuleMethods, NamedParts
from tt_tensor.options import keep_options, kept, told
from tt_tensor.arguments import same_dtype
from tt_tensor.more_ops import rand
from tt_tensor.setup import generator
from tt_tensor.tensor import Tensor, as_rows, from_numpy, ones, primitive, randn, zeros


def improve_by_hand(w1, b1, w2, b2, w3, b3, change):
    """Subtract from each of six arrays its change."""
    w1, b1 = w1 - change["w1"], b1 - change["b1"]
    w2, b2 = w2 - change["w2"], b2 - change["b1"]
    w3, b3 = w3 - change["w3"], b3 - change["b3"]
    return w1, b1, w2, b2, w3, b3


def show_hurt():
    arrays = {name: zeros(4, 4) if name[0] == "w" else zeros(4) for name in ("w1", "b1", "w2", "b2", "w3", "b3")}
    change = {name: randn(*array.shape) for name, array in arrays.items()}
    improved = improve_by_hand(**arrays, change=change)
    for name, array in zip(arrays, improved):
        print(f"{name}: off by at most {(array + change[name]).abs().max().item():.2f}")


# Did you see it in the code? The second line takes `change["b1"]` where `b2` was meant. Nothing failed, because the two
# have equal sizes. Without a table such as this one nobody would ever be told; the network just learns a little worse.
# Every further layer adds a line and two more names to each list of names: here to the arguments and to the results,
# elsewhere to what is saved and loaded.

# ## The smallest thing that could work
#
# A layer is a weight, a bias, and what it does with them. A thing that has a state and does something with it is what
# classes are for.


class SmallestLayer:
    def __init__(self, n_in, n_out):
        self.weight, self.bias = randn(n_out, n_in), zeros(n_out)

    def __call__(self, x):
        return x @ self.weight.T + self.bias


# One object to carry for each layer, where there were two arrays. But a network of such layers is again a bunch of
# loose objects: who lists all their weights? We would write a function that visits each layer by name, and forget one.

# ## The idea: assignment registers
#
# When we write `self.hidden = Linear(64, 32)`, we have already said everything: there is a part, and its name is
# `hidden`. Python lets an object watch its own assignments (`__setattr__`). So the object can note which of its
# attributes are parameters and which are parts, and the tree of names that results is all that listing, saving and
# loading need.
#
# ```mermaid
# flowchart TD
#     N["net"] --> H["hidden: Linear"] --> HW["hidden.weight (32, 64)"]
#     H --> HB["hidden.bias (32,)"]
#     N --> A["act: ReLU"]
#     N --> O["out: Linear"] --> OW["out.weight (10, 32)"]
#     O --> OB["out.bias (10,)"]
# ```

# ## Parameter
#
# First a word for "tensor that is meant to be learned". It differs from a tensor in what it is for, and in that it asks
# for gradients unless told otherwise.
#
# Why a class of its own, if it adds one default? Because the machinery below needs to *recognise* what is to be
# learned. A module has all sorts of tensors lying about: masks, tables, the result of the last call. What is a
# `Parameter` is listed, saved and improved; what is not, is not. That is the whole mechanism.


class Parameter(Tensor):
    """A tensor that a module learns: assigned to a module's attribute it is listed by `parameters()`. Requires a
    gradient by default. Of a tensor it shares the memory; other data are copied."""

    __slots__ = ()

    def __init__(self, data, requires_grad: bool = True):
        super().__init__(data, requires_grad=requires_grad)
        if isinstance(data, Tensor):
            self._array = data._array

    def __repr__(self):
        return f"Parameter containing:\n{super().__repr__()}"


# ## Module
#
# A module has three drawers: parameters, buffers (arrays that belong to it and are saved with it, but are not learned,
# such as running averages), and modules. `__setattr__` sorts what it is given. Like `Tensor`, the class is built up in
# layers, each a class that adds one thing to the one before.
#
# What if a name is assigned twice, first a number and then a parameter? The old entry must go, from whichever drawer it
# was in, or the module would have two things of the same name. (What is in no drawer is in the object's own dictionary,
# `self.__dict__`, as in any other Python object.) And what if you forget to call `super().__init__()`? Then there are
# no drawers. The error must ask for that call, by these words, instead of complaining about a missing attribute with an
# underscore.


class Registry:
    """Sorts attributes into parameters, buffers and parts as they are assigned."""

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Any]
    training: bool

    def __init__(self):
        for drawer in ("_parameters", "_buffers", "_modules"):
            object.__setattr__(self, drawer, {})
        object.__setattr__(self, "training", True)

    def __setattr__(self, name: str, value) -> None:  # exercise
        """Put the value under its name into the dictionary that `_drawer_for` gives, and take the name out of the
        others: the three drawers and `__dict__`. Raises AttributeError that asks for super().__init__() if there are
        no drawers yet, which a look into `self.__dict__` tells."""
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"call super().__init__() before assigning {type(self).__name__}.{name}")
        drawer = self._drawer_for(name, value)
        for other in (self._parameters, self._buffers, self._modules, self.__dict__):
            if other is not drawer:
                other.pop(name, None)
        drawer[name] = value

    def _drawer_for(self, name, value):
        if isinstance(value, Parameter) or (value is None and name in self._parameters):
            return self._parameters
        if isinstance(value, Registry) or (value is None and name in self._modules):
            return self._modules
        return self._buffers if name in self._buffers else self.__dict__


# What was put into a drawer must be found again as an attribute. Python calls `__getattr__` only for what ordinary
# lookup does not find, which is just right: what is in a drawer is not in the object's own dictionary. There is one
# trap. A module that has no drawers yet does not find `self._parameters` either, so Python calls `__getattr__` for
# that, which asks for `self._parameters`, and so on without end. Ask `self.__dict__` for the drawers; it is always
# there.
#
# One kind of assignment has to be refused. `layer.weight = layer.weight * 0.5` gives the name of a parameter to the
# result of an operation, which nothing lists, saves or improves; the layer would silently stop learning. So a name that
# holds a parameter, a module or a buffer accepts only its own kind, or None.


class Drawers(Registry):
    """Refuses, finds and removes what is in the drawers under its name."""

    def __setattr__(self, name: str, value) -> None:
        if value is not None and not isinstance(value, Parameter):
            for drawer, kind in (("_parameters", Parameter), ("_modules", Registry), ("_buffers", (Tensor, Registry))):
                if name in self.__dict__.get(drawer, ()) and not isinstance(value, kind):
                    raise TypeError(_other_kind(self, name, drawer, value))
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:  # exercise
        """What is in one of the three drawers under this name, be it None. Raises AttributeError that says the name if
        it is in none of them, and also if there are no drawers yet."""
        for drawer in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__.get(drawer, ()):
                return self.__dict__[drawer][name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for drawer in (self._parameters, self._buffers, self._modules, self.__dict__):
            if name in drawer:
                del drawer[name]
                return
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r} to delete")

    def register_buffer(self, name: str, tensor: Tensor | None) -> None:
        """Keep a tensor that is saved with the module, but not learned. Raises TypeError for anything else, ValueError
        for a name that is taken or has a dot."""
        if not (tensor is None or isinstance(tensor, Tensor)):
            raise TypeError(_other_kind(self, name, "_buffers", tensor))
        if "." in name or (hasattr(self, name) and name not in self._buffers):
            raise ValueError(
                f"{type(self).__name__}.{name} cannot be a buffer: the name must have no dot, and be no attribute yet"
            )
        self._buffers[name] = tensor


def _other_kind(module, name, drawer, value):
    wanted, advice = {
        "_parameters": ("a Parameter", "to change its numbers, assign to .data or use copy_() under no_grad(); to "
                        "replace it, wrap the new values in Parameter(...)"),
        "_modules": ("a Module", "del it first if the name is to hold something else"),
        "_buffers": ("a Tensor", "wrap the values in tensor(...)"),
    }[drawer]
    given = "Tensor" if isinstance(value, Tensor) else type(value).__name__
    return f"{type(module).__name__}.{name} holds {wanted} or None, not {given}; {advice}"


# The tree can be walked. One function yields all modules with their dotted names, and everything else is written with
# it. A module that appears at two places (two layers that share weights) is visited once, unless we ask for duplicates,
# as saving will.
#
# The walk is a generator that calls itself for each part. Two arguments travel along. `prefix` is the name of the
# module itself, so a part is named by it, a dot, and the part's own name (no dot at the top, where the prefix is
# empty). `memo` is the set of the `id` of every module that was visited: a part that occurs twice is noticed by
# identity, not by equality. All calls share one set; if the caller gives none, the first call makes it.
#
# Parameters and buffers are the same walk with a different drawer. A tensor that two modules share is listed once, by
# the same means.


class Tree(Drawers):
    """Walks through a module and its parts."""

    def named_modules(  # exercise
        self, memo: set | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """(dotted name, module) for this module (named `prefix`) and all below it, a module before its parts, and parts
        in the order of `_modules`, without those that are None. Each once if `remove_duplicate`, else under each of its
        names."""
        memo = set() if memo is None else memo
        if id(self) not in memo or not remove_duplicate:
            memo.add(id(self))
            yield prefix, self  # type: ignore[misc]
            for name, part in self._modules.items():
                if part is not None:
                    yield from part.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def _named(self, drawer: str) -> Iterator[tuple[str, Any]]:  # exercise
        """(dotted name, tensor) for what is in the drawer of that name, such as "_parameters", in this module and all
        below it: each tensor once, under its first name, and nothing for a None."""
        seen = set()
        for prefix, module in self.named_modules():
            for name, tensor in getattr(module, drawer).items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield f"{prefix}.{name}" if prefix else name, tensor

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter) for all parameters, each once."""
        yield from self._named("_parameters")

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, each once; what an optimizer wants to know."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """(dotted name, buffer) for all buffers."""
        yield from self._named("_buffers")

    def buffers(self) -> Iterator[Tensor]:
        """All buffers."""
        return (buffer for _, buffer in self.named_buffers())

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        return (module for _, module in self.named_modules())

    def children(self) -> Iterator[Module]:
        """The parts of this module, without their parts."""
        return (part for part in self._modules.values() if part is not None)


# (A walk that calls itself is harmless here: modules are nested a few levels deep, not twenty thousand.)
#
# A `Module` proper adds behaviour. Calling it runs `forward`. `train()` and `eval()` say in which mode it is, for
# layers such as dropout that behave differently when the network is used rather than trained. `apply` does something to
# every part.
#
# A remark on modes, because they cause grief. They are a property of the *module*, not of the call, so they are
# forgotten easily: a network that was switched to evaluation stays there until somebody switches it back. Chapter 08
# writes that switching once, and everybody else leaves it to chapter 08.


class Behaving(Tree):
    """Calling, modes, and doing something to every part."""

    def forward(self, *inputs, **options) -> Any:
        """What the module computes. Every module defines its own."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, *inputs, **options) -> Any:
        return self.forward(*inputs, **options)

    def train(self, mode: bool = True):
        """Switch this module and all parts to training (or, with False, to evaluation); returns the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self):
        """Switch to evaluation: dropout off, running averages in use. Returns the module."""
        return self.train(False)

    def apply(self, function: Callable[[Module], Any]):
        """Call `function` with every part, innermost first, then with this module, which is returned."""
        for module in reversed(list(self.modules())):
            function(module)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or (set_to_none=False) overwrite them with zeros."""
        for parameter in self.parameters():
            keep = parameter.grad is not None and not set_to_none
            parameter.grad = parameter.grad.detach().zero_() if keep else None

    def to(self, dtype):
        """Convert all floating-point parameters and buffers to another dtype, in place; returns the module."""
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.dtype.kind == "f":
                tensor._array, tensor.grad = tensor._array.astype(dtype), None
        return self

    def double(self):
        """`to(float64)`, which is what gradient checks need."""
        return self.to(np.float64)

    def requires_grad_(self, requires_grad: bool = True):
        """Ask for gradients of all parameters, or freeze them; returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self


# ## Saving and loading
#
# `state_dict` is the tree written as a flat dictionary. `load_state_dict` is where silent failure would be worst: a
# checkpoint with a renamed layer that loads "successfully" leaves random weights in place. So it compares names and
# shapes first, says everything that does not match, and changes nothing until all is well. Values are copied *into* the
# parameters; they stay the same objects, which optimizers hold. (`_mismatches(own, state)`, below, words the missing
# and unexpected names: a list of no, one or two sentences.)
#
# Two conventions of PyTorch's are kept to the letter, since files depend on them. The names are paths with dots,
# `hidden.weight`; and a tensor that two layers share appears under both of its names, so that each of them can be
# found.


class Saving(Behaving):
    """States, and a printed form."""

    def state_dict(self) -> OrderedDict[str, Tensor]:  # exercise
        """All parameters and buffers by their dotted names, detached (they ask for no gradient) and sharing memory with
        the module. A tensor that is shared appears under each of its names; a None does not appear."""
        state = OrderedDict()
        for prefix, module in self.named_modules(remove_duplicate=False):
            for name, tensor in (module._parameters | module._buffers).items():
                if tensor is not None:
                    state[f"{prefix}.{name}" if prefix else name] = tensor.detach()
        return state

    def load_state_dict(self, state, strict: bool = True) -> None:  # exercise
        """Copy the values of `state` into parameters and buffers of the same names.

        Raises RuntimeError that lists all missing and unexpected names and the name of every tensor of another shape;
        then nothing has been changed. If not strict, only another shape is an error: what is missing keeps its values,
        and what is unexpected is ignored."""
        own = self.state_dict()
        problems = _mismatches(own, state) if strict else []
        problems += [
            f"{n}: shape {np.shape(state[n])} in the state, {own[n].shape} in the module"
            for n in own
            if n in state and np.shape(state[n]) != own[n].shape
        ]
        if problems:
            raise RuntimeError(f"this state does not fit {type(self).__name__}:\n  " + "\n  ".join(problems))
        for name in own:
            if name in state:
                own[name].copy_(state[name])

    def extra_repr(self) -> str:
        """What stands between the parentheses when the module is printed."""
        return ""

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.parameters())
        lines = [f"  ({name}): " + repr(part).replace("\n", "\n  ") for name, part in self._modules.items()]
        inside = "\n" + "\n".join(lines) + "\n" if lines else self.extra_repr()
        return f"{type(self).__name__}({inside})" + (f"  # {count:,} parameters" if count else "")


# The class that you use is the sum of these layers. Options that PyTorch's users know, hooks among them, are in the
# appendix *Methods of modules*.


class Module(ModuleMethods, Saving):
    """The base class of layers and networks, as torch.nn.Module: assign parameters and modules as attributes, define
    forward()."""


# A message of Python's about a method should say `Module`, whichever layer of the class the method was written in.

for _layer in Module.__mro__[:-1]:
    for _method in filter(inspect.isfunction, vars(_layer).values()):
        _method.__qualname__ = f"Module.{_method.__name__}"


def _mismatches(own, state):
    missing, unexpected = [n for n in own if n not in state], [n for n in state if n not in own]
    return ([f"missing: {', '.join(missing)}"] if missing else []) + (
        [f"unexpected: {', '.join(unexpected)}"] if unexpected else []
    )


# ## Linear
#
# The layer itself, $y = x W^T + b$. The weight is stored as (out, in), as PyTorch stores it: a row holds the weights of
# one unit. It is one primitive, not a transpose, a product and an addition, because then its derivative can be written
# down directly in the layout in which the weight is stored; and the bias can be added in place, to the product, which
# is an array of its own. (`as_rows(x)` of chapter 02 gives x the shape (rows, in): one large product is faster than
# many small ones.)
#
# In chapter 07 that will pay: the derivative by the weight then comes out in exactly the weight's shape, where that of
# `x @ weight.T` comes out transposed.


@primitive(cost=lambda out, x, weight, *bias: out.size * x.shape[-1])
def affine(x, weight, bias, /):  # exercise
    """x @ weight.T + bias for arrays x (..., in), weight (out, in), bias (out,): an array (..., out), which may be
    empty. Changes none of the three. Raises TypeError for different dtypes; `same_dtype(x, weight, bias)` does that and
    returns the three."""
    x, weight, bias = same_dtype(x, weight, bias)
    out = as_rows(x) @ weight.T
    out += bias
    return out.reshape(*x.shape[:-1], len(weight))


# `affine` takes what it is given; `linear` asks first whether it fits. A mismatch here is the most frequent error of
# all when one writes networks, so its message names both shapes and the two sizes that should have been equal.


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: (..., in) -> (..., out). Raises ValueError when the sizes do not fit."""
    if x.shape[-1:] != weight.shape[-1:]:
        raise ValueError(
            f"linear: an input of shape {x.shape} does not fit a weight of shape {weight.shape}, which expects "
            f"{weight.shape[-1] if weight.ndim else 'some'} features in the last dimension"
        )
    return x @ weight.T if bias is None else affine(x, weight, bias)


# Which numbers does a new layer start with? Zeros will not do: all units of a layer would compute the same, receive the
# same corrections and remain the same for ever. Random numbers of size 1 will not do either. A sum of $n$ products of
# such numbers has a standard deviation of $\sqrt n$; after a few layers everything is enormous, or, behind a `tanh`,
# saturated. Look at ten layers of 256 units:


def show_initialisation():
    x = randn(1000, 256)
    print("standard deviation of the output of ten tanh layers of 256 units")
    for name, scale in (
        ("weights of size 1", 1.0), ("weights of size 1/sqrt(n)", 1 / 16), ("weights of size 0.01", 0.01),
    ):
        h, spread = x, []
        for _ in range(10):
            h = more_ops.tanh(h @ (randn(256, 256) * scale))
            spread.append(h.std().item())
        print(f"{name:26s}", " ".join(f"{s:.3f}" for s in spread))


# With weights of size 1 every unit sits at $\pm 1$, where the slope is zero; with tiny weights the signal dies out, by
# the same factor at each layer. Dividing by $\sqrt{n}$, with $n$ the number of inputs (*fan-in*), keeps it alive.
# PyTorch draws uniformly from $\pm 1/\sqrt{n}$, which is smaller by a factor of $\sqrt 3$ in standard deviation, and so
# do we. The appendix `init` has the other recipes of the field.
#
# In a layer the sizes are given once, in the order in which data flow through it: inputs, outputs. That the matrix is
# stored the other way round is nobody's business but the layer's.


def _refuse_sizes(in_features: int, out_features: int, device) -> None:
    refuse_other_device(device)
    if in_features < 1 or out_features < 1:
        raise ValueError(f"Linear needs at least one input and one output, not {in_features} and {out_features}")


# A layer of your own begins with `super().__init__()`, which makes the drawers; from then on, assignment registers. The
# parameters are made as zeros of the right shape and dtype. Then `reset_parameters` draws their numbers, and you can
# call it again whenever the layer is to begin anew.


class Linear(Module):
    """y = x @ weight.T + bias, for x of shape (..., in_features); weight is (out_features, in_features), bias
    (out_features,)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device=None, dtype=None):  # exercise
        """Keep the two sizes as attributes, make the parameters `weight` and `bias` (None for bias=False) in `dtype`,
        and draw their numbers. Raises ValueError for a size below 1 and RuntimeError for another device than the CPU,
        both by `_refuse_sizes`."""
        super().__init__()
        _refuse_sizes(in_features, out_features, device)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(zeros(out_features, in_features, dtype=dtype))
        self.bias = Parameter(zeros(out_features, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:  # exercise
        """Draw weight and bias (if there is one) anew, uniformly from +-1 / sqrt(in_features), by `generator()`, which
        a seed governs. Changes the parameters in place, by `copy_`."""
        bound = 1 / math.sqrt(self.in_features)
        for parameter in self.parameters():
            parameter.copy_(generator().uniform(-bound, bound, parameter.shape))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return linear(x, self.weight, self.bias)

    def extra_repr(self):
        return f"{self.in_features} -> {self.out_features}" + ("" if self.bias is not None else ", no bias")


# ## Layers in a row
#
# `Sequential` runs its parts in the order given. `ModuleList` only holds them, for those who want to write the loop. A
# slice of either is one of its own kind. Their parts are named by their positions, "0", "1", and so on, which is also
# how they appear in a saved state.
#
# Both refuse what is not a module. `Sequential(Linear(2, 2), relu)` looks right, but a function has no name, no state
# and no place in the tree; its module form, `ReLU()`, has.


class ModuleList(ListMethods, Module):
    """A list of modules whose parameters belong to the module that holds it."""

    def __init__(self, modules=()):
        super().__init__()
        self.extend(modules)

    def append(self, module: Module):
        """Add a module at the end; returns the list."""
        if not isinstance(module, Module):
            raise TypeError(
                f"{type(self).__name__} holds modules, not {type(module).__name__}; functions have module forms, "
                "such as ReLU() for relu"
            )
        self._modules[str(len(self._modules))] = module
        return self

    def extend(self, modules):
        """Add several modules at the end; returns the list."""
        for module in modules:
            self.append(module)
        return self

    def __getitem__(self, index):
        found = list(self._modules.values())[index]
        if not isinstance(index, slice):
            return found
        return type(self)(*found) if isinstance(self, Sequential) else ModuleList(found)

    def __len__(self):
        return len(self._modules)

    def __iter__(self):
        return iter(self._modules.values())


# Order is everything here. Two matrix products and a bend do not commute, and a network whose layers run in another
# order than they were given is another network, which often even has the right shapes.


class Sequential(NamedParts, ModuleList):
    """Modules applied one after the other, in the order given."""

    def __init__(self, *modules):
        super().__init__(modules)

    def forward(self, x):
        """The last module's output on the last but one's output, and so on."""
        for module in self:
            x = module(x)
        return x


# ## Layers without parameters
#
# Activations as modules are a name and a call each. One function makes them. The options are attributes of the module,
# so that you can look at them and change them. (PyTorch's option `inplace` saves memory there. Here it has no meaning,
# but programs give it.)
#
# Python's `type(name, bases, members)` is what a `class` statement calls when it is done. Ten classes that differ in
# two words each are better made by a function than by copying.


def _activation(name: str, function: Callable, defaults: dict, doc: str) -> Any:
    used = [option for option in defaults if option != "inplace"]

    def __init__(self, *args, **options):
        Module.__init__(self)
        keep_options(self, defaults, args, options)

    def forward(self, x):
        return function(x, **kept(self, used))

    def extra_repr(self):
        return told(self, used)

    return type(
        name, (Module,),
        {"__init__": __init__, "forward": forward, "extra_repr": extra_repr, "__doc__": doc, "__module__": __name__},
    )


ReLU = _activation("ReLU", relu, {"inplace": False}, "max(x, 0) as a module.")
LeakyReLU = _activation(
    "LeakyReLU", activations.leaky_relu, {"negative_slope": 0.01, "inplace": False}, "leaky_relu as a module."
)
ELU = _activation("ELU", activations.elu, {"alpha": 1.0, "inplace": False}, "elu as a module.")
Sigmoid = _activation("Sigmoid", activations.sigmoid, {}, "sigmoid as a module.")
Tanh = _activation("Tanh", more_ops.tanh, {}, "tanh as a module.")
Softplus = _activation("Softplus", more_activations.softplus, {"beta": 1.0, "threshold": 20.0}, "softplus as a module.")
GELU = _activation("GELU", activations.gelu, {"approximate": "none"}, "gelu as a module.")
SiLU = _activation("SiLU", activations.silu, {"inplace": False}, "silu as a module.")
Softmax = _activation("Softmax", more_activations.softmax, {"dim": None}, "softmax as a module.")
LogSoftmax = _activation("LogSoftmax", more_activations.log_softmax, {"dim": None}, "log_softmax as a module.")


# Two more that compute nothing worth mentioning, and are useful for that very reason. `Flatten` stands between images
# and the first `Linear`; `Identity` fills a place that another variant of the network uses.


class Identity(Module):
    """Its input, unchanged: for leaving a place in a network empty. Takes any arguments."""

    def __init__(self, *args, **options):
        super().__init__()

    def forward(self, x):
        return x


class Flatten(Module):
    """Joins the dimensions from start_dim on: (N, 8, 8) -> (N, 64)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x):
        return x.flatten(self.start_dim, self.end_dim)


# Dropout (Srivastava et al., 2014) strikes out each number with probability $p$ while the network is trained, so that
# no unit can rely on a particular other one. The survivors are scaled by $1/(1 - p)$; then the expected sum stays the
# same, and in evaluation there is nothing to do at all. The border deserves a thought: with $p = 1$ nothing survives,
# and there is nothing to scale.


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:  # exercise
    """x with each element set to 0 with probability p and the others divided by 1 - p, in the dtype of x: a new tensor,
    made of x by operations on tensors, so that gradients find their way. Returns x itself when not training. Draws by
    `generator()`. Raises ValueError for a p outside 0 to 1, training or not."""
    if not 0 <= p <= 1:
        raise ValueError(f"p is the probability to drop an element and lies between 0 and 1; it is {p}")
    if not training or p == 0 or not x.numel():
        return x
    dropped = from_numpy(np.asarray(generator().random(x.shape, dtype=np.float32) < p))
    return more_ops.masked_fill(x / (1 - p) if p < 1 else x, dropped, 0)


# Three mistakes are popular enough to be listed. Taking $p$ as the probability to *keep*: with 0.1, nine tenths would
# vanish. Forgetting the scale: the network is trained on half the signal and used on all of it. And leaving it on in
# evaluation: the same input gives a different answer every time. Each of the three would fail one line of this check.


def check_dropout():
    x = ones(20_000)
    dropped = dropout(x, 0.25)
    assert abs((dropped == 0).float().mean().item() - 0.25) < 0.02
    assert abs(dropped.mean().item() - 1) < 0.03
    assert dropout(x, 0.25, training=False) is x


class Dropout(Module):
    """Drops each element with probability p in training; does nothing in evaluation."""

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p is the probability to drop an element and lies between 0 and 1; it is {p}")
        self.p = p

    def forward(self, x):
        return dropout(x, self.p, self.training)

    def extra_repr(self):
        return f"p={self.p}"


# ## A network
#
# The eight loose arrays of chapter 03, once more; but now the pieces fit together, and there is one name to carry
# instead of eight.


def digits_network() -> Sequential:
    """64 pixels to 10 digits, with three hidden layers."""
    return Sequential(Linear(64, 128), ReLU(), Linear(128, 64), ReLU(), Linear(64, 32), ReLU(), Linear(32, 10))


def show_network():
    network = digits_network()
    print(network)
    print({name: tensor.shape for name, tensor in network.state_dict().items()})


# Is it the same computation as before? Layer by layer, by hand, on the same weights; and the number of parameters, by
# the formula.


def check_network():
    network, x = digits_network(), randn(5, 64)
    by_hand = x
    for layer in network:
        by_hand = by_hand @ layer.weight.T + layer.bias if isinstance(layer, Linear) else relu(by_hand)
    assert np.allclose(network(x).numpy(), by_hand.numpy(), atol=1e-5)
    assert sum(p.numel() for p in network.parameters()) == 64 * 128 + 128 + 128 * 64 + 64 + 64 * 32 + 32 + 32 * 10 + 10


# And what was saved goes back in. Two networks that were drawn at random give different answers, until one takes over
# the other's state.


def check_state_round_trip():
    first, second, x = digits_network(), digits_network(), randn(2, 64)
    second.load_state_dict(first.state_dict())
    assert (first(x) == second(x)).all()


# ## A module of your own
#
# What a user of all this writes is a class with two methods. Here is a network with a shortcut: the input goes through
# two layers, and also around them, by a single matrix. The names of the attributes become the names in the state, and
# `forward` is ordinary Python, in which anything may happen: loops, conditions, a call of the same layer twice.


class Shortcut(Module):
    """Two layers, and a straight way around them."""

    def __init__(self, features: int, hidden: int):
        super().__init__()
        self.inside = Sequential(Linear(features, hidden), ReLU(), Linear(hidden, features))
        self.around = Linear(features, features, bias=False)

    def forward(self, x):
        return self.inside(x) + self.around(x)


def show_shortcut():
    network = Shortcut(4, 16)
    print(network)
    for name, parameter in network.named_parameters():
        print(f"  {name:16s} {parameter.shape}")


# Nothing was registered by hand. But does the registry see everything? Here are four modules. Think of `__setattr__`
# and of the walk, and predict what each of them learns, before you run it.


class Listed(Module):
    """Two layers in a Python list."""

    def __init__(self):
        super().__init__()
        self.layers = [Linear(2, 3), Linear(3, 1)]


class Twice(Module):
    """One layer under two names."""

    def __init__(self):
        super().__init__()
        self.first = Linear(3, 3)
        self.second = self.first


class Scaled(Module):
    """A layer without bias, and a tensor."""

    def __init__(self):
        super().__init__()
        self.inner, self.scale = Linear(2, 2, bias=False), ones(2)


class Replaced(Module):
    """A layer, and another one under its name."""

    def __init__(self):
        super().__init__()
        self.layer = Linear(4, 4)
        self.layer = Linear(4, 1)


def predict_parameters() -> dict[str, int]:  # exercise
    """How many numbers each of the four modules above learns, the sum of `numel()` over `parameters()`, by the name of
    its class: {"Listed": ..., "Twice": ..., "Scaled": ..., "Replaced": ...}. The key "state" has the number of names in
    the `state_dict()` of Twice."""
    return {"Listed": 0, "Twice": 12, "Scaled": 4, "Replaced": 5, "state": 4}


# So one thing can still be forgotten: layers in a plain Python list are in no drawer, so no walk finds them, and that
# is what `ModuleList` is for. Two properties come for nothing. A part that is used twice is listed once, so that an
# optimizer changes it once; sharing weights is assignment. And a module can be changed while it lives: assign another
# `Linear` to `network.around`, and the parameters of the old one are gone from every list.


def check_sharing():
    network = Sequential(Linear(3, 3), ReLU(), Linear(3, 3))
    network._modules["2"] = network[0]
    assert [name for name, _ in network.named_parameters()] == ["0.weight", "0.bias"]
    assert list(network.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


# ## The perceptron
#
# One `Linear` with one output and a step: that is the machine that Frank Rosenblatt described in 1957, and it learned.
# His rule needs no slope. For an example with label $y = \pm 1$ that comes out on the wrong side, add $y\,x$ to the
# weights and $y$ to the bias; if it comes out right, do nothing. An output of exactly 0 is on neither side and counts
# as wrong, or a machine that starts at zero would never begin. If any plane separates the two classes, the rule finds
# one.


def train_perceptron(layer: Linear, x: Tensor, labels: Tensor, epochs: int = 20) -> list[int]:  # exercise
    """Rosenblatt's rule on examples x (N, in) with labels +1 or -1 (N,), one after the other, in each of `epochs`
    passes. An output of 0 counts as wrong. Changes weight and bias of the layer, which has one output, by their `data`;
    returns the number of corrections in each epoch."""
    history = []
    for _ in range(epochs):
        mistakes = 0
        for example, label in zip(x.numpy(), labels.tolist()):
            if label * layer(Tensor(example)).item() <= 0:
                layer.weight.data += Tensor(label * example[None])
                layer.bias.data += label
                mistakes += 1
        history.append(mistakes)
    return history


# Two hundred points in the plane, and a line that separates them, hidden from the machine. We watch the number of
# corrections in each pass over the data; when it reaches zero, the machine has found a line. That it must get there is
# a theorem (Novikoff, 1962): from a start at zero, the number of corrections is at most $(R / \gamma)^2$, where $R$ is
# the length of the longest example and $\gamma$ the margin by which the best line separates the classes. (The bias
# counts as one more weight, on an input that is always 1.)


def show_perceptron():
    x = randn(200, 2)
    labels = ((x @ Tensor([2.0, -1.0]) + 0.3) > 0).to(x.dtype) * 2 - 1
    layer = Linear(2, 1)
    print("corrections in each epoch:", train_perceptron(layer, x, labels, 15))
    print("right in the end:", int(((layer(x).squeeze(1) * labels) > 0).sum().item()), "of 200")


# The full program, with Rosenblatt's own kind of pictures, is `examples/perceptron_1957`.

# ## The cost
#
# Parameters of a `Linear`: in times out, plus out. Multiply-adds for each row: in times out. For 64 rows through our
# digits network the meter of chapter 02 agrees with the formula.


def show_cost():
    from tt_tensor.tensor import meter

    network, x = digits_network(), rand(64, 64)
    with meter() as counted:
        network(x)
    formula = 64 * sum(layer.in_features * layer.out_features for layer in network if isinstance(layer, Linear))
    print(counted)
    print(f"\nformula for the products: {formula:,}")


# ## Errors you will meet


def show_errors():
    network = digits_network()
    state = network.state_dict()
    state["7.weight"] = state.pop("6.weight")
    state["0.bias"] = ones(3)
    for attempt in (
        lambda: network(zeros(5, 63)), lambda: network.load_state_dict(state), lambda: Sequential(Linear(2, 2), relu),
        lambda: Dropout(1.5),
    ):
        try:
            attempt()
        except (ValueError, RuntimeError, TypeError) as error:
            print(f"{type(error).__name__}: {error}")


# ## Exercises
#
# First, another module of the kind that you will meet again in chapter 14: `Residual` adds its input to what another
# module makes of it, $x + f(x)$. Notice how little there is to say.


class Residual(Module):
    """x + inner(x)."""

    def __init__(self, inner: Module):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        """Input and output have the same shape."""
        return x + self.inner(x)


def check_residual():
    block = Residual(Linear(3, 3))
    block.inner.weight.zero_(), block.inner.bias.zero_()
    assert block(Tensor([1, 2, 3])).tolist() == [1, 2, 3] and [n for n, _ in block.named_parameters()] == [
        "inner.weight", "inner.bias",
    ]


# Two are left for you.
#
# 1. `count_parameters`: parameters by part, as a dictionary from the name of each direct part to a number. Remember
# that    a part may have parts of its own. 2. `freeze`, which may be left out: no gradients for the parameters whose
# names start with a prefix.


def count_parameters(module: Module) -> dict[str, int]:  # exercise
    """How many numbers each direct part of the module learns, its own parts included; 0 for a part that learns
    nothing."""
    return {name: sum(p.numel() for p in part.parameters()) for name, part in module._modules.items()}


def check_count_parameters():
    assert count_parameters(Sequential(Linear(2, 3), ReLU(), Linear(3, 1))) == {"0": 9, "1": 0, "2": 4}


def freeze(module: Module, prefix: str) -> int:  # exercise (starred)
    """Ask for no gradients of the parameters whose names start with `prefix`; returns their number."""
    frozen = [p.requires_grad_(False) for name, p in module.named_parameters() if name.startswith(prefix)]
    return len(frozen)


def check_freeze():
    network = digits_network()
    assert freeze(network, "0.") == 2 and [p.requires_grad for p in network.parameters()] == [False] * 2 + [True] * 6


# ## A road not taken
#
# In many of JAX's libraries a layer is a pair of pure functions, one that makes a tree of parameters and one that
# applies it, and the caller carries the tree. That makes it plain what a function depends on, and transformations such
# as "the gradient with respect to all parameters" become one line. The price is that the tree has to be threaded
# through everything. PyTorch's objects own their parameters; reading `net.hidden.weight` is worth a great deal while
# one learns, so we own ours too.

# ## What hurts next
#
# The perceptron knew when it was wrong, and could be corrected, because it had two answers. Our digits network gives
# ten probabilities. Here are two untrained networks and one picture of a 3, so to speak:


def show_no_number():
    x = rand(1, 64)
    for name in "AB":
        probabilities = activations.softmax(digits_network()(x), dim=1)
        print(f"network {name}:", " ".join(f"{p:.3f}" for p in probabilities.tolist()[0]), "  wanted: 3")


# Which one is less wrong, and by how much? No number says so, and what cannot be measured cannot be improved little by
# little. Chapter 05, *Losses*.

__all__ = [
    "ELU", "Dropout", "Flatten", "GELU", "Identity", "LeakyReLU", "Linear", "LogSoftmax", "Module", "ModuleList",
    "Parameter", "ReLU", "Residual", "Sequential", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh", "affine",
    "count_parameters", "digits_network", "dropout", "freeze", "linear", "train_perceptron",
]
