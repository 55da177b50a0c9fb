# # Layers
#
# At the end of this chapter a network is one object. It knows its weights by name, counts them, prints itself, saves
# them and loads them again. One of the first machines that learned, Rosenblatt's perceptron of 1957, runs on it.

# ## The hurt
#
# Chapter 03 ended with a network of four layers as eight loose arrays. From this chapter on we want to *improve*
# networks little by little. Here is what that looks like if we carry the arrays by hand:

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np

from tt_tensor.activations import relu, sigmoid
from tt_tensor.arguments import same_dtype
from tt_tensor.devices import refuse_other_device
from tt_tensor.module_methods import ListMethods, ModuleMethods, NamedParts, named_as_one
from tt_tensor.more_activations import softmax
from tt_tensor.more_ops import masked_fill, rand, tanh
from tt_tensor.options import FunctionOptions
from tt_tensor.setup import generator
from tt_tensor.tensor import Tensor, as_rows, from_numpy, ones, primitive, randn, zeros


def improve_by_hand(w1, b1, w2, b2, w3, b3, change):
    """The six arrays, each minus its change."""
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
# have equal sizes. Without a table such as this one you would never find out; the network would just learn a little
# worse. Every further layer adds a line and two more names to each list of names, first among the arguments and
# results, and later wherever we save and load.

# ## The smallest thing that could work
#
# A layer is a weight, a bias, and a computation with both. State, and something to do with it: that is what classes are
# for.


class SmallestLayer:
    def __init__(self, n_in, n_out):
        self.weight, self.bias = randn(n_out, n_in), zeros(n_out)

    def __call__(self, x):
        return x @ self.weight.T + self.bias


def check_smallest_layer():
    layer, x = SmallestLayer(3, 2), randn(4, 3)
    layer.bias += 1
    assert np.allclose(layer(x).numpy(), x.numpy() @ layer.weight.numpy().T + 1, atol=1e-6)


# We now carry one object for each layer instead of two arrays. However, a network of such layers is again a bunch of
# loose objects. Who lists all their weights? We would write a function that visits each layer by name, and forget one.

# ## The idea: assignment registers
#
# When we write `self.hidden = Linear(64, 32)`, we have already said everything: the network has a part, and its name is
# `hidden`. Python lets an object watch its own assignments (`__setattr__`), so the object can note which of its
# attributes are parameters and which are parts. The result is a tree of names, and we need nothing else for listing,
# saving and loading.
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
# First we need a word for a tensor that we want to learn: a *parameter*. It differs from a tensor in its purpose, and
# in that it asks for gradients by default.
#
# Why do we give it a class of its own, if it adds only one default? Because the machinery below must *recognize* what
# to learn. A module has all sorts of tensors: masks, tables, the result of the last call. A `Parameter` is listed,
# saved and updated; a plain tensor is not. That is the whole mechanism.


class Parameter(Tensor):
    """A tensor that a module learns: assigned to a module's attribute, it is listed by `parameters()`. Requires a
    gradient by default. Shares the memory of a tensor; copies any other data."""

    __slots__ = ()

    def __init__(self, data, requires_grad: bool = True):
        super().__init__(data, requires_grad=requires_grad)
        if isinstance(data, Tensor):
            self._array = data._array

    def __repr__(self):
        return f"Parameter containing:\n{super().__repr__()}"


# ## Module
#
# A module has three drawers: parameters, *buffers* and modules. Buffers are arrays that belong to the module and are
# saved with it but not learned, such as running averages. `__setattr__` sorts every value that we assign into its
# drawer. We build all of this as one class, `SimpleModule`, a few methods at a time.
#
# What should happen if we assign a name twice, first a number and then a parameter? The old entry must go, from
# whichever drawer it was in, or the module would have two things of the same name. (A value that belongs in no drawer
# goes into the object's own dictionary, `self.__dict__`, as in any other Python object.) And what if you forget to call
# `super().__init__()`? Then there are no drawers. The error must ask for that call in these very words, instead of
# complaining about a missing attribute with an underscore.


class SimpleModule:
    """A module without PyTorch's options: registers its parts, lists them, runs, saves and loads."""

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
        no drawers yet, which a look into `self.__dict__` shows."""
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"call super().__init__() before assigning {type(self).__name__}.{name}")
        drawer = self._drawer_for(name, value)
        for other in (self._parameters, self._buffers, self._modules, self.__dict__):
            if other is not drawer:
                other.pop(name, None)
        drawer[name] = value

    # The kind of the value decides which drawer it belongs in. A None stays in the drawer where its name already is, so
    # that `layer.bias = None` still describes a parameter, one that is absent.

    def _drawer_for(self, name, value):
        if isinstance(value, Parameter) or (value is None and name in self._parameters):
            return self._parameters
        if isinstance(value, SimpleModule) or (value is None and name in self._modules):
            return self._modules
        return self._buffers if name in self._buffers else self.__dict__

    # A buffer is an ordinary tensor, which no rule could recognize. So we register it by name, once; from then on we
    # can assign to that name.

    def register_buffer(self, name: str, tensor: Tensor | None) -> None:
        """Keep a tensor that is saved with the module, but not learned."""
        self._buffers[name] = tensor

    # An attribute in a drawer must be found again. Python calls `__getattr__` only if ordinary lookup fails, which is
    # just right, because the object's own dictionary does not contain the drawers' entries. There is one trap. A module
    # without drawers does not find `self._parameters` either, so Python calls `__getattr__` for that name, which asks
    # for `self._parameters`, and so on without end. Ask `self.__dict__` for the drawers, because it is always there.

    def __getattr__(self, name: str) -> Any:  # exercise
        """The value in one of the three drawers under this name, even if it is None. Raises AttributeError that says
        the name if it is in none of them, and also if there are no drawers yet."""
        for drawer in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__.get(drawer, ()):
                return self.__dict__[drawer][name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    # Now that the parts are registered, we can walk the tree. One generator yields all modules with their dotted names,
    # and we write everything else with it. It visits a module that appears in two places (two layers that share
    # weights) once, unless we ask for duplicates, as saving will.
    #
    # The generator calls itself for each part and passes its arguments along. Two of them need a word. `prefix` is the
    # name of the module itself, so the name of a part is this prefix, a dot, and the part's own name. At the top the
    # prefix is empty, and there is no dot. `memo` is the set of the `id` of every module that it has visited, so that
    # it notices a repeated part by identity, not by equality. All calls share one set; if the caller passes none, the
    # first call creates it. (Recursion is harmless here: modules are nested a few levels deep, not twenty thousand.)

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

    # For parameters and buffers we take the same walk and look into a different drawer. We list a tensor that two
    # modules share once, again by identity.

    def _named(self, drawer: str) -> Iterator[tuple[str, Any]]:  # exercise
        """(dotted name, tensor) for each tensor in the drawer of that name, such as "_parameters", in this module and
        all below it: each tensor once, under its first name, and nothing for a None."""
        seen = set()
        for prefix, module in self.named_modules():
            for name, tensor in getattr(module, drawer).items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield f"{prefix}.{name}" if prefix else name, tensor

    # With these two generators, the methods that you will call take one line each.

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter) for all parameters, each once."""
        yield from self._named("_parameters")

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, each once, as an optimizer needs them."""
        return (parameter for _, parameter in self.named_parameters())

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    # A module also does something. Calling it runs `forward`, which every module defines. `train()` and `eval()` set
    # its mode, because layers such as dropout behave differently in *inference*, when we use the network, than in
    # training.
    #
    # Modes cause grief, because they belong to the *module* and not to the call. You switch a network to evaluation,
    # forget it, and it stays there until you switch it back. Chapter 08 writes the switch once, and from then on we
    # need not think of it.

    def forward(self, *inputs, **options) -> Any:
        """The module's output for these inputs. Every module defines its own."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, *inputs, **options) -> Any:
        return self.forward(*inputs, **options)

    def train(self, mode: bool = True):
        """Switch this module and all its parts to training (or, with False, to evaluation); returns the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self):
        """Switch to evaluation: dropout off, running averages in use. Returns the module."""
        return self.train(False)

    # Finally, a module prints itself with its parts and counts its parameters. A layer overrides `extra_repr` to show
    # its sizes.

    def extra_repr(self) -> str:
        """The text between the parentheses when the module is printed."""
        return ""

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.parameters())
        lines = [f"  ({name}): " + repr(part).replace("\n", "\n  ") for name, part in self._modules.items()]
        inside = "\n" + "\n".join(lines) + "\n" if lines else self.extra_repr()
        return f"{type(self).__name__}({inside})" + (f"  # {count:,} parameters" if count else "")

    # ## Saving and loading
    #
    # `state_dict` is the tree written as a flat dictionary. We keep two of PyTorch's conventions to the letter, because
    # files depend on them. The names are paths with dots, `hidden.weight`. And a tensor that two layers share appears
    # under both of its names, so that each of them can be found.

    def state_dict(self) -> OrderedDict[str, Tensor]:  # exercise
        """All parameters and buffers by their dotted names, detached (they ask for no gradient) and sharing memory with
        the module. A tensor that is shared appears under each of its names; a None does not appear."""
        state = OrderedDict()
        for prefix, module in self.named_modules(remove_duplicate=False):
            for name, tensor in (module._parameters | module._buffers).items():
                if tensor is not None:
                    state[f"{prefix}.{name}" if prefix else name] = tensor.detach()
        return state

    # A silent failure would be worst in `load_state_dict`: a *checkpoint* with a renamed layer that loads
    # "successfully" leaves random weights in place. So we compare names and shapes first, report everything that does
    # not match, and change nothing until all is well. We copy values *into* the existing parameters, because optimizers
    # hold references to those objects. (`_mismatches(own, state)`, below, returns a list of at most two
    # sentences, one for the missing names and one for the unexpected ones.)

    def load_state_dict(self, state, strict: bool = True) -> None:  # exercise
        """Copy the values of `state` into parameters and buffers of the same names.

        Raises RuntimeError that lists all missing and unexpected names and the name of every tensor of another shape;
        then nothing has been changed. If not strict, only another shape is an error: a missing name keeps its values,
        and an unexpected one is ignored."""
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


def _mismatches(own, state):
    missing, unexpected = [n for n in own if n not in state], [n for n in state if n not in own]
    return ([f"missing: {', '.join(missing)}"] if missing else []) + (
        [f"unexpected: {', '.join(unexpected)}"] if unexpected else []
    )


# The class that you use adds PyTorch's options to these methods, which you find in the appendix *Methods of modules*:
# `apply`, `zero_grad`, `to` another dtype, hooks, and more. It also refuses one kind of assignment. `layer.weight =
# layer.weight * 0.5` would give the name of a parameter to the result of an operation. No walk would find that result,
# so nothing would save or update it, and the layer would silently stop learning. A name that holds a parameter, a
# module or a buffer therefore accepts only its own kind, or None. (The decorator lets Python's own messages about these
# methods say `Module`, whichever class a method comes from.)


@named_as_one
class Module(ModuleMethods, SimpleModule):
    """The base class of layers and networks, as torch.nn.Module: assign parameters and modules as attributes, define
    forward()."""


# ## Linear
#
# Now to the layer itself, the *fully connected* layer $y = x W^T + b$. We store the weight as (out, in), as PyTorch
# does, so that a row holds the weights of one unit. We write the layer as one primitive, not as a transpose, a product
# and an addition. The bias can then be added in place to the product, which is an array of its own. (`as_rows(x)` of
# chapter 02 gives x the shape (rows, in), because one large product is faster than many small ones.)
#
# This also pays off in chapter 07. The derivative with respect to the weight comes out in exactly the weight's shape,
# whereas that of `x @ weight.T` comes out transposed.


@primitive(cost=lambda out, x, weight, *bias: out.size * x.shape[-1])
def affine(x, weight, bias, /):  # exercise
    """x @ weight.T + bias for arrays x (..., in), weight (out, in), bias (out,): an array (..., out), which may be
    empty. Changes none of the three. Raises TypeError for different dtypes; `same_dtype(x, weight, bias)` does that and
    returns the three."""
    x, weight, bias = same_dtype(x, weight, bias)
    out = as_rows(x) @ weight.T
    out += bias
    return out.reshape(*x.shape[:-1], len(weight))


# `affine` trusts its arguments; `linear` first asks whether they fit. You will meet this mismatch more often than any
# other error when you write networks. The message therefore names both shapes and the two sizes that should have been
# equal.


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: (..., in) -> (..., out). Raises ValueError if the sizes do not fit."""
    if x.shape[-1:] != weight.shape[-1:]:
        raise ValueError(
            f"linear: an input of shape {x.shape} does not fit a weight of shape {weight.shape}, which expects "
            f"{weight.shape[-1] if weight.ndim else 'some'} features in the last dimension"
        )
    return x @ weight.T if bias is None else affine(x, weight, bias)


# Which numbers should a new layer start with? Zeros will not do: all units of a layer would compute the same, receive
# the same corrections and remain the same forever. Random numbers of size 1 will not do either. If the inputs and the
# weights are independent, with mean 0 and variance 1, a unit's sum of $n$ products has a variance of $n$:
#
# $$ \operatorname{Var}\Bigl(\sum_{i=1}^n w_i x_i\Bigr) = \sum_{i=1}^n \operatorname{Var}(w_i) \operatorname{Var}(x_i)
# = n $$
#
# Its standard deviation is $\sqrt n$. After a few layers everything is enormous or, behind a `tanh`, saturated. Look at
# ten layers of 256 units:


def show_initialisation():
    x = randn(1000, 256)
    print("standard deviation of the output of ten tanh layers of 256 units")
    for name, scale in (
        ("weights of size 1", 1.0), ("weights of size 1/sqrt(n)", 1 / 16), ("weights of size 0.01", 0.01),
    ):
        h, spread = x, []
        for _ in range(10):
            h = tanh(h @ (randn(256, 256) * scale))
            spread.append(h.std().item())
        print(f"{name:26s}", " ".join(f"{s:.3f}" for s in spread))


# With weights of size 1 every unit sits at $\pm 1$, where the slope is zero. With tiny weights the signal dies out, by
# the same factor at each layer. Dividing by $\sqrt{n}$, where $n$ is the number of inputs (*fan-in*), keeps it alive.
# PyTorch draws uniformly from $\pm 1/\sqrt{n}$, whose standard deviation is smaller by a factor of $\sqrt 3$, and so do
# we. You find the other recipes of the field in the appendix *Init*.
#
# We give a layer its sizes once, in the order in which data flow through it: inputs, then outputs. That it stores the
# matrix the other way round is the layer's own business.


def _refuse_sizes(in_features: int, out_features: int, device) -> None:
    refuse_other_device(device)
    if in_features < 1 or out_features < 1:
        raise ValueError(f"Linear needs at least one input and one output, not {in_features} and {out_features}")


# Every layer that you write begins with `super().__init__()`, which creates the drawers; from then on, assignment
# registers. We create the parameters as zeros of the right shape and dtype. Then `reset_parameters` draws their
# numbers, and you can call it again whenever the layer should start afresh.


class Linear(Module):
    """y = x @ weight.T + bias, for x of shape (..., in_features); weight is (out_features, in_features), bias
    (out_features,)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device=None, dtype=None):  # exercise
        """Keep the two sizes as attributes, create the parameters `weight` and `bias` (None for bias=False) in `dtype`,
        and draw their numbers. Raises ValueError for a size below 1 and RuntimeError for another device than the CPU,
        both by `_refuse_sizes`."""
        super().__init__()
        _refuse_sizes(in_features, out_features, device)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(zeros(out_features, in_features, dtype=dtype))
        self.bias = Parameter(zeros(out_features, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:  # exercise
        """Draw weight and bias (if there is one) anew, uniformly from +-1 / sqrt(in_features), with `generator()`,
        which a seed governs. Changes the parameters in place, by `copy_`."""
        bound = 1 / math.sqrt(self.in_features)
        for parameter in self.parameters():
            parameter.copy_(generator().uniform(-bound, bound, parameter.shape))

    # The rest is short, because `linear` does the work.

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return linear(x, self.weight, self.bias)

    def extra_repr(self):
        return f"{self.in_features} -> {self.out_features}" + ("" if self.bias is not None else ", no bias")


# ## Layers in a row
#
# `Sequential` runs its parts in the order given. `ModuleList` only holds them, for networks that write the loop
# themselves. Both name their parts by position, "0", "1" and so on, and these names also appear in a saved state. The
# support class `ListMethods` adds the rest of a list's behaviour, such as indexing and `insert`.
#
# Both reject anything that is not a module. `Sequential(Linear(2, 2), relu)` looks right, but a function has no name,
# no state and no place in the tree. Its module form, `ReLU()`, has all three.


class ModuleList(ListMethods, Module):
    """A list of modules whose parameters belong to the module that holds it."""

    def __init__(self, modules=()):
        super().__init__()
        self.extend(modules)

    def append(self, module: Module):
        """Add a module at the end; returns the list. Raises TypeError for anything but a module."""
        if not isinstance(module, Module):
            raise TypeError(
                f"{type(self).__name__} holds modules, not {type(module).__name__}; functions have module forms, "
                "such as ReLU() for relu"
            )
        self._modules[str(len(self._modules))] = module
        return self

    def __iter__(self):
        return iter(self._modules.values())


# Order matters here, because layers do not commute, with or without an activation between them. If a network runs its
# layers in another order than the one you gave, it is another network, which often even has the right shapes.


class Sequential(NamedParts, ModuleList):
    """Modules applied one after the other, in the order given."""

    def __init__(self, *modules):
        super().__init__(modules)

    def forward(self, x):
        """The output of the last module, each module applied to the output of the one before."""
        for module in self:
            x = module(x)
        return x


# ## Layers without parameters
#
# An activation as a module is a name and a call, so we write each in two lines. The support class `FunctionOptions`
# takes the options, by position or by name, and passes them to the `function`. (PyTorch's option `inplace` saves memory
# there. We accept it, because programs pass it, but it has no effect here.) You find the other activations in the
# appendix *More layers*.


class ReLU(FunctionOptions, Module):
    """max(x, 0) as a module."""

    function = staticmethod(relu)


# The next two have no options at all, whereas `Softmax` names the default of its option `dim` in the head of the class.


class Sigmoid(FunctionOptions, Module):
    """sigmoid as a module."""

    function = staticmethod(sigmoid)


class Tanh(FunctionOptions, Module):
    """tanh as a module."""

    function = staticmethod(tanh)


class Softmax(FunctionOptions, Module, dim=None):
    """softmax as a module; takes the dimension `dim`."""

    function = staticmethod(softmax)


# Two more modules compute next to nothing, which is exactly why they are useful. `Flatten` goes between images and the
# first `Linear`. `Identity` fills a place that another variant of the network uses.


class Identity(Module):
    """Returns its input unchanged; keeps a place in a network empty. Accepts any arguments."""

    def __init__(self, *args, **options):
        super().__init__()

    def forward(self, x):
        return x


class Flatten(Module):
    """Joins the dimensions from start_dim to end_dim: (N, 8, 8) -> (N, 64)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x):
        return x.flatten(self.start_dim, self.end_dim)


# *Dropout* (Srivastava et al., 2014) is a form of *regularization*: it makes it harder for a network to memorize its
# examples. In training it sets each element to zero with probability $p$, so that no unit can rely on a particular
# other one. We scale the survivors by $1/(1 - p)$. Since an element survives with probability $1 - p$, its expected
# value stays the same,
#
# $$ \mathbb{E}[\text{output}] = p \cdot 0 + (1 - p) \cdot \frac{x}{1 - p} = x, $$
#
# and in inference we have nothing to do at all. The limit deserves a thought: with $p = 1$ nothing survives, so there
# is nothing to scale.


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:  # exercise
    """x with each element set to 0 with probability p and the others divided by 1 - p, in the dtype of x: a new tensor,
    computed from x by operations on tensors, so that gradients find their way. Returns x itself when not training.
    Draws from `generator()`. Raises ValueError for a p outside 0 to 1, training or not."""
    if not 0 <= p <= 1:
        raise ValueError(f"p, the probability to drop an element, must be between 0 and 1, not {p}")
    if not training or p == 0 or not x.numel():
        return x
    dropped = from_numpy(np.asarray(generator().random(x.shape, dtype=np.float32) < p))
    return masked_fill(x / (1 - p) if p < 1 else x, dropped, 0)


# Three mistakes are so popular that we list them. You can take $p$ as the probability to *keep*: with 0.1, nine tenths
# would vanish. You can forget the scale: then the network is trained on half the signal and used on all of it. And you
# can leave dropout on in inference: the same input then gives a different answer every time. Each of the three would
# fail one line of this check.


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
            raise ValueError(f"p, the probability to drop an element, must be between 0 and 1, not {p}")
        self.p = p

    def forward(self, x):
        return dropout(x, self.p, self.training)

    def extra_repr(self):
        return f"p={self.p}"


# ## A network
#
# Here are the eight loose arrays of chapter 03 once more. Now the pieces fit together, and we carry one name instead of
# eight.


def digits_network() -> Sequential:
    """64 pixels to 10 digits, with three hidden layers."""
    return Sequential(Linear(64, 128), ReLU(), Linear(128, 64), ReLU(), Linear(64, 32), ReLU(), Linear(32, 10))


def show_network():
    network = digits_network()
    print(network)
    print({name: tensor.shape for name, tensor in network.state_dict().items()})


# Is it the same computation as before? We check it layer by layer, by hand, on the same weights, and we compare the
# number of parameters with the formula.


def check_network():
    network, x = digits_network(), randn(5, 64)
    by_hand = x
    for layer in network:
        by_hand = by_hand @ layer.weight.T + layer.bias if isinstance(layer, Linear) else relu(by_hand)
    assert np.allclose(network(x).numpy(), by_hand.numpy(), atol=1e-5)
    assert sum(p.numel() for p in network.parameters()) == 64 * 128 + 128 + 128 * 64 + 64 + 64 * 32 + 32 + 32 * 10 + 10


# Saved values must also go back in. Two networks with random weights give different answers, until one of them loads
# the state of the other.


def check_state_round_trip():
    first, second, x = digits_network(), digits_network(), randn(2, 64)
    second.load_state_dict(first.state_dict())
    assert (first(x) == second(x)).all()


# ## A module of your own
#
# As a user of all this, you write a class with two methods. Here is a network with a *skip connection*: the input goes
# through two layers, and also around them, through a single matrix. The names of the attributes become the names in the
# state. `forward` is ordinary Python, so you can write anything there: loops, conditions, two calls of the same layer.


class Shortcut(Module):
    """Two layers with a skip connection around them."""

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


# We registered nothing by hand. But does the registry see everything? Here are four modules. Think of `__setattr__` and
# of the walk, and predict how many numbers each of them learns before you run it.


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


# The third module holds a plain tensor, and the fourth assigns to one name twice.


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
    """The number of learned elements of each of the four modules above, the sum of `numel()` over `parameters()`, by
    the name of its class: {"Listed": ..., "Twice": ..., "Scaled": ..., "Replaced": ...}. The key "state" has the number
    of names in the `state_dict()` of Twice."""
    return {"Listed": 0, "Twice": 12, "Scaled": 4, "Replaced": 5, "state": 4}


# So you can still forget one thing. Layers in a plain Python list are in no drawer, and no walk finds them; that is why
# we have `ModuleList`. Two properties cost us nothing. A part that we use twice is listed once, so an optimizer changes
# it once, and sharing weights is just an assignment. And a module can change during its life: assign another `Linear`
# to `network.around`, and the parameters of the old one are gone from every list.


def check_sharing():
    network = Sequential(Linear(3, 3), ReLU(), Linear(3, 3))
    network._modules["2"] = network[0]
    assert [name for name, _ in network.named_parameters()] == ["0.weight", "0.bias"]
    assert list(network.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


# ## The perceptron
#
# One `Linear` with one output and a step: that is the machine that Frank Rosenblatt described in 1957, and it learned.
# His rule needs no slope. If an example with label $y = \pm 1$ comes out on the wrong side, we add $y\,x$ to the
# weights and $y$ to the bias; if it comes out right, we do nothing. An output of exactly 0 is on neither side and
# counts as wrong, because otherwise a machine that starts at zero would never begin. If any plane separates the two
# classes, the rule finds one.


def train_perceptron(layer: Linear, x: Tensor, labels: Tensor, epochs: int = 20) -> list[int]:  # exercise
    """Rosenblatt's rule on examples x (N, in) with labels +1 or -1 (N,), one after the other, in each of `epochs`
    passes. An output of 0 counts as wrong. Changes weight and bias of the layer, which has one output, through their
    `data`. Returns the number of corrections in each epoch."""
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


# We try it on two hundred points in the plane. A line separates them, but we hide it from the machine. We watch the
# number of corrections in each pass over the data, an *epoch*. When it reaches zero, the machine has found a line.


def two_classes() -> tuple[Tensor, Tensor]:
    """200 points in the plane (200, 2), and +1 or -1 for the side of a hidden line on which each is (200,)."""
    x = randn(200, 2)
    return x, ((x @ Tensor([2.0, -1.0]) + 0.3) > 0).to(x.dtype) * 2 - 1


def show_perceptron():
    x, labels = two_classes()
    layer = Linear(2, 1)
    print("corrections in each epoch:", train_perceptron(layer, x, labels, 15))
    print("right in the end:", int(((layer(x).squeeze(1) * labels) > 0).sum().item()), "of 200")


def show_moving_line():
    """Two classes of points, and the perceptron's line after its first epochs, from pale to dark."""
    import matplotlib.pyplot as plt

    x, labels = two_classes()
    layer, ends, epochs = Linear(2, 1), np.array([-3.0, 3.0]), 0
    figure, axis = plt.subplots(figsize=(5.5, 4))
    for side, marker in ((1, "+"), (-1, ".")):
        axis.plot(*x.numpy()[labels.numpy() == side].T, marker, label=f"label {side:+d}")
    for more, alpha in ((0, 0.15), (1, 0.3), (1, 0.5), (13, 1.0)):
        train_perceptron(layer, x, labels, more)
        epochs += more
        (w1, w2), b = layer.weight.tolist()[0], layer.bias.item()
        axis.plot(ends, -(w1 * ends + b) / w2, color="black", alpha=alpha, label=f"after {epochs} epochs")
    axis.set(xlim=(-3, 3), ylim=(-3, 3))
    axis.legend(fontsize=7, loc="upper left")
    figure.tight_layout()
    return figure


# Each correction turns and shifts the line a little towards the example that was wrong. That the machine must get there
# is a theorem (Novikoff, 1962), and we can prove it in three lines. We count the bias as one more weight, on an input
# that is always 1. Let $u$ be a unit vector that separates the classes by a margin $\gamma$, so that $y\, u \cdot x \ge
# \gamma$ for every example, and let $R$ be the length of the longest example. Start at $w_0 = 0$ and correct $w_k =
# w_{k-1} + y\,x$. Since we only correct when $y\, w_{k-1} \cdot x \le 0$,
#
# $$ u \cdot w_k = u \cdot w_{k-1} + y\, u \cdot x \ge u \cdot w_{k-1} + \gamma
# \quad\Rightarrow\quad u \cdot w_k \ge k \gamma $$
#
# $$ |w_k|^2 = |w_{k-1}|^2 + 2\, y\, w_{k-1} \cdot x + |x|^2 \le |w_{k-1}|^2 + R^2
# \quad\Rightarrow\quad |w_k|^2 \le k R^2 $$
#
# $$ k \gamma \le u \cdot w_k \le |w_k| \le \sqrt{k}\, R \quad\Rightarrow\quad k \le (R / \gamma)^2 $$
#
# So the number of corrections has a limit, which depends only on the data. You find the full program, with pictures in
# Rosenblatt's own manner, in `examples/perceptron_1957`.

# ## The cost
#
# A `Linear` has in times out parameters, plus out for the bias. Each row costs in times out multiply-adds. We send 64
# rows through our digits network and compare the formula with the meter of chapter 02.


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
# First, a module that you will meet again in chapter 14. A *residual connection* adds the input of a module to its
# output, $x + f(x)$. Notice how little code it needs.


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


# Two exercises are yours.
#
# 1. `count_parameters`: parameters by part, as a dictionary from the name of each direct part to a number. Remember
#    that a part may have parts of its own.
# 2. `freeze`, which you may leave out: no gradients for the parameters whose names start with a prefix.


def count_parameters(module: Module) -> dict[str, int]:  # exercise
    """The number of learned elements by direct part of the module, the part's own parts included; 0 for a part that
    learns nothing."""
    return {name: sum(p.numel() for p in part.parameters()) for name, part in module._modules.items()}


def check_count_parameters():
    assert count_parameters(Sequential(Linear(2, 3), ReLU(), Linear(3, 1))) == {"0": 9, "1": 0, "2": 4}


def freeze(module: Module, prefix: str) -> int:  # exercise (starred)
    """Stop asking for gradients of the parameters whose names start with `prefix`; returns their number."""
    frozen = [p.requires_grad_(False) for name, p in module.named_parameters() if name.startswith(prefix)]
    return len(frozen)


def check_freeze():
    network = digits_network()
    assert freeze(network, "0.") == 2 and [p.requires_grad for p in network.parameters()] == [False] * 2 + [True] * 6


# ## A road not taken
#
# In many of JAX's libraries a layer is a pair of pure functions: one creates a tree of parameters, the other applies
# it, and the caller carries the tree. You then see plainly what a function depends on, and transformations such as "the
# gradient with respect to all parameters" become one line. The price is that you must thread the tree through
# everything. PyTorch's objects own their parameters. We follow PyTorch, because reading `net.hidden.weight` is worth a
# great deal while you learn.

# ## What hurts next
#
# The perceptron knew when it was wrong and could be corrected, because it had only two answers. Our digits network
# gives ten probabilities. Imagine that we show one picture of a 3 to two untrained networks (random pixels will do):


def show_no_number():
    x = rand(1, 64)
    for name in "AB":
        probabilities = softmax(digits_network()(x), dim=1)
        print(f"network {name}:", " ".join(f"{p:.3f}" for p in probabilities.tolist()[0]), "  wanted: 3")


# Which one is less wrong, and by how much? We have no number for it, and without a number we cannot improve anything
# little by little. Chapter 05, *Losses*.

__all__ = [
    "Dropout", "Flatten", "Identity", "Linear", "Module", "ModuleList", "Parameter", "ReLU", "Residual", "Sequential",
    "Sigmoid", "Softmax", "Tanh", "affine", "count_parameters", "digits_network", "dropout", "freeze", "linear",
    "train_perceptron",
]
