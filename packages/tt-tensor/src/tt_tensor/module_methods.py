# # Methods of modules
#
# An appendix of chapter 04. The chapter's `SimpleModule` registers, lists, saves and loads. As a user of PyTorch you
# expect more: options of these methods, ways to reach a part by its path, hooks. We write them here in classes from
# which the chapter composes `Module`, as chapter 02 composes `Tensor` from the module `methods`. Where the chapter has
# a method already, we call it with `super()`.

from __future__ import annotations

import functools
import inspect
import itertools
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from tt_tensor.devices import refuse_other_device

if TYPE_CHECKING:
    import tt_tensor as tt
    from tt_tensor.layers import Module, Parameter
    from tt_tensor.tensor import Tensor
else:
    from tt_tensor.registry import tt  # functions are looked up when a method is called

T = TypeVar("T")

# ## Hooks
#
# A *hook* is a function that a module calls before or after its `forward`: to look at what comes in and goes out, or to
# replace it. If you register a hook, you receive a handle, with which you can take the hook off again.


class RemovableHandle:
    """Takes a hook off: by `remove()`, or at the end of a `with` block."""

    def __init__(self, hooks: dict):
        self.hooks = hooks

    def remove(self) -> None:
        """Take the hook off. Doing so twice is allowed."""
        self.hooks.pop(self, None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()


# There are three kinds of hooks, and we keep each in a dictionary from its handle to the function. A module without
# hooks has no dictionaries, only the `None` that the class gives it, so an ordinary call pays for one comparison.


class _Hooks:
    def __init__(self):
        self.before: dict[RemovableHandle, Callable] = {}
        self.after: dict[RemovableHandle, Callable] = {}
        self.backward: dict[RemovableHandle, Callable] = {}


# PyTorch calls a hook as `hook(module, inputs)` or `hook(module, inputs, output)`. If you register it with
# `with_kwargs=True`, the keyword arguments follow after `inputs`. A result other than None replaces the inputs or the
# output.


def _with_all(hook: Callable) -> Callable:
    return lambda module, inputs, options, *output: hook(module, inputs, *output)


def _replaced_inputs(hook: Callable) -> Callable:
    def all_inputs(module, inputs, options):
        answer = hook(module, inputs)
        return answer if answer is None else (answer if isinstance(answer, tuple) else (answer,), options)

    return all_inputs


def _call_with_hooks(module, inputs, options):
    hooks = module._hooks
    for hook in list(hooks.before.values()):
        answer = hook(module, inputs, options)
        if answer is not None:
            inputs, options = answer
    watch = _Watch(module, list(hooks.backward.values())) if hooks.backward else None
    output = module.forward(*(watch.inputs(inputs) if watch else inputs), **options)
    for hook in list(hooks.after.values()):
        answer = hook(module, inputs, options, output)
        output = output if answer is None else answer
    return watch.outputs(output) if watch else output


# The third kind is called on the way back, with the gradients of the module's inputs and outputs. We cannot use the
# gradient of an input tensor, because the tensor may be used elsewhere, too, and its gradient is a sum. So the module
# gets aliases from an operation that changes nothing, and those report. We call the hooks when the last input has
# reported, or, if no input requires a gradient, the last output.


class _Watch:
    def __init__(self, module, hooks):
        self.module, self.hooks = module, hooks
        self.arrived: dict[str, list] = {"inputs": [], "outputs": []}
        self.expected = {"inputs": 0, "outputs": 0}

    def inputs(self, tensors):
        """Aliases of the inputs that report their gradients."""
        return self._watched("inputs", tensors)

    def outputs(self, tensors):
        """Aliases of the outputs that report their gradients."""
        several = isinstance(tensors, (tuple, list))
        watched = self._watched("outputs", tensors if several else (tensors,))
        return type(tensors)(watched) if several else watched[0]

    def _watched(self, side, tensors):
        aliases = list(tensors)
        for i, tensor in enumerate(tensors):
            if isinstance(tensor, tt.Tensor) and tensor.requires_grad:
                aliases[i] = tt.expand(tensor, shape=tensor.shape)
                aliases[i].register_hook(functools.partial(self._report, side, i))
                self.expected[side] += 1
        self.arrived[side] = [None] * len(aliases)
        self.missing = dict(self.expected)
        return tuple(aliases)

    def _report(self, side, i, gradient):
        self.arrived[side][i] = gradient
        self.missing[side] -= 1
        if self.missing[side] or (side == "outputs" and self.expected["inputs"]):
            return None
        self.missing = dict(self.expected)  # for a second backward pass
        for hook in self.hooks:
            answer = hook(self.module, tuple(self.arrived["inputs"]), tuple(self.arrived["outputs"]))
            if answer is not None:
                self._replace(side, i, answer)
        return self.arrived[side][i] if side == "inputs" else None

    def _replace(self, side, i, answer):
        answer = answer if isinstance(answer, tuple) else (answer,)
        if side == "outputs" or [k for k, g in enumerate(self.arrived["inputs"]) if g is not None] != [i]:
            raise RuntimeError(
                "a backward hook can replace the gradient of a module's input only if exactly one input requires a "
                "gradient; return None, or register a hook on the tensors"
            )
        self.arrived["inputs"] = list(answer)


# ## What a module can do besides
#
# First we check what is assigned to a name, and we write the ways to register something under a computed name and to
# find it under a path with dots.


class Registering:
    """Registers and finds parts, parameters and buffers by name."""

    _non_persistent_buffers_set: frozenset[str] = frozenset()

    def __setattr__(self, name: str, value) -> None:
        if value is not None and not isinstance(value, tt.Parameter):
            kinds = (("_parameters", tt.Parameter), ("_modules", tt.Module), ("_buffers", (tt.Tensor, tt.Module)))
            for drawer, kind in kinds:
                if name in self.__dict__.get(drawer, ()) and not isinstance(value, kind):
                    raise TypeError(_other_kind(self, name, drawer, value))
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        for drawer in (self._parameters, self._buffers, self._modules, self.__dict__):
            if name in drawer:
                del drawer[name]
                return
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r} to delete")

    # A name that is computed, or that comes from a file, goes through a method of its own.

    def register_buffer(self, name: str, tensor, persistent: bool = True) -> None:
        """Keep a tensor that is saved with the module (unless not `persistent`), but not learned. Raises TypeError for
        anything but a tensor or None, ValueError for a name that is taken or has a dot."""
        if not (tensor is None or isinstance(tensor, tt.Tensor)):
            raise TypeError(_other_kind(self, name, "_buffers", tensor))
        if "." in name or (hasattr(self, name) and name not in self._buffers):
            raise ValueError(
                f"{type(self).__name__}.{name} cannot be a buffer: the name must have no dot and must not be an "
                "attribute yet"
            )
        super().register_buffer(name, tensor)
        left_out = self._non_persistent_buffers_set
        if persistent == (name in left_out):
            self._non_persistent_buffers_set = left_out - {name} if persistent else left_out | {name}

    # Parameters and modules have the same pair of checks: the name, then the kind of the value.

    def register_parameter(self, name: str, param) -> None:
        """Assign a Parameter or None to a name. Raises TypeError for anything else, ValueError for a name that is
        taken or has a dot."""
        _refuse_name(self, name, self._parameters)
        if param is not None and not isinstance(param, tt.Parameter):
            raise TypeError(f"{name} must be a Parameter or None, not {type(param).__name__}; use Parameter(...)")
        self.__dict__.pop(name, None)
        self._parameters[name] = param

    def add_module(self, name: str, module) -> None:
        """Assign a module or None to a name, which may be computed. Raises TypeError for anything else, ValueError for
        a name that is taken or has a dot."""
        _refuse_name(self, name, self._modules)
        if module is not None and not isinstance(module, tt.Module):
            raise TypeError(f"{name} must be a Module or None, not {type(module).__name__}")
        self._modules[name] = module

    register_module = add_module

    # A path with dots leads through the parts to a module, a parameter or a buffer.

    def get_submodule(self, target: str) -> Module:
        """The part at a dotted path; the module itself for "". Raises AttributeError if there is none."""
        found = functools.reduce(getattr, target.split("."), self) if target else self
        if not isinstance(found, tt.Module):
            raise AttributeError(f"{target!r} is not a module but a {type(found).__name__}")
        return found

    def set_submodule(self, target: str, module, strict: bool = False) -> None:
        """Put a module at a dotted path. Raises AttributeError if the path before the last dot leads nowhere, and with
        `strict` also if nothing is at the path yet."""
        path, _, name = target.rpartition(".")
        if strict:
            self.get_submodule(target)
        self.get_submodule(path)._modules[name] = module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path. Raises AttributeError if there is none."""
        return _found(self, target, "_parameters")

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a dotted path. Raises AttributeError if there is none."""
        return _found(self, target, "_buffers")

    def __dir__(self):
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})


# The checks are PyTorch's. Our messages say which kind of value a name holds, and how you can replace it.


def _other_kind(module, name, drawer, value):
    wanted, advice = {
        "_parameters": ("a Parameter", "to change its numbers, assign to .data or use copy_() under no_grad(); to "
                        "replace it, wrap the new values in Parameter(...)"),
        "_modules": ("a Module", "del it first if the name is to hold something else"),
        "_buffers": ("a Tensor", "wrap the values in tensor(...)"),
    }[drawer]
    given = "Tensor" if isinstance(value, tt.Tensor) else type(value).__name__
    return f"{type(module).__name__}.{name} holds {wanted} or None, not {given}; {advice}"


def _refuse_name(module, name, drawer):
    if not isinstance(name, str) or not name or "." in name or (hasattr(module, name) and name not in drawer):
        raise ValueError(
            f"{name!r} cannot name a part of {type(module).__name__}: a name must be a string without a dot and must "
            "not be an attribute yet"
        )


def _found(module, target, drawer):
    path, _, name = target.rpartition(".")
    found = getattr(module.get_submodule(path), drawer)
    if name not in found:
        raise AttributeError(f"{type(module).__name__} has no {drawer[1:-1]} {target!r}; it has {', '.join(found)}")
    return found[name]


# Then come the options of the walks. `recurse=False` stays with the module itself, `remove_duplicate=False` lists a
# tensor that two parts share under both of its names, and `prefix` goes in front of all names.


class Listing(Registering):
    """The chapter's walks, with PyTorch's options, and what is done to every part."""

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter) for all parameters, each once if `remove_duplicate`."""
        if recurse and remove_duplicate and not prefix:
            return super().named_parameters()
        return _listed(self, "_parameters", prefix, recurse, remove_duplicate)

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """(dotted name, buffer) for all buffers, each once if `remove_duplicate`."""
        return _listed(self, "_buffers", prefix, recurse, remove_duplicate)

    # The lists without names are built on those with names.

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once, as an optimizer needs them."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def children(self) -> Iterator[Module]:
        """The parts of this module, without their parts."""
        return (part for part in self._modules.values() if part is not None)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, part) for the parts of this module, without their parts, each once."""
        seen = set()
        for name, part in self._modules.items():
            if part is not None and id(part) not in seen:
                seen.add(id(part))
                yield name, part

    # With the walks, it takes a line or two to do something to every part.

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Call `function` with every part, innermost first, then with this module, which is returned."""
        for module in reversed(list(self.modules())):
            function(module)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or (set_to_none=False) overwrite them with zeros."""
        for parameter in self.parameters():
            keep = parameter.grad is not None and not set_to_none
            parameter.grad = parameter.grad.detach().zero_() if keep else None

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ask for gradients of all parameters, or freeze them; returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self


def _listed(module, drawer, prefix, recurse, remove_duplicate):
    modules = module.named_modules(remove_duplicate=remove_duplicate) if recurse else [("", module)]
    seen = set()
    for path, part in modules:
        for name, tensor in getattr(part, drawer).items():
            if tensor is not None and not (remove_duplicate and id(tensor) in seen):
                seen.add(id(tensor))
                yield ".".join(filter(None, (prefix, path, name))), tensor


# We leave a buffer that is not persistent out of the state. `load_state_dict` returns the names that did not match,
# which `strict=False` allows. Before it compares shapes, it gives a shape to every parameter that has none yet (see
# *Lazy modules*).


class IncompatibleKeys(NamedTuple):
    """The names that a module has and a state has not, and the reverse."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self):
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class Stating(Listing):
    """The state of a module, with PyTorch's options."""

    def state_dict(self, destination=None, prefix: str = "", keep_vars: bool = False) -> OrderedDict[str, Tensor]:
        """All parameters and persistent buffers by their dotted names behind `prefix`, put into `destination`. They
        share memory with the module; with `keep_vars` they are the parameters themselves."""
        state = super().state_dict()
        for path, module in self.named_modules(remove_duplicate=False):
            for name in module._non_persistent_buffers_set:
                state.pop(f"{path}.{name}" if path else name, None)
        if keep_vars:
            every = (walk(remove_duplicate=False) for walk in (self.named_parameters, self.named_buffers))
            own = dict(itertools.chain(*every))
            state = OrderedDict((name, own[name]) for name in state)
        if destination is None and not prefix:
            return state
        destination = OrderedDict() if destination is None else destination
        destination.update((prefix + name, tensor) for name, tensor in state.items())
        return destination

    # Loading does the chapter's work and returns a report.

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False) -> Any:
        """Copy the values of `state_dict` into parameters and buffers of the same names; with `assign`, put its
        tensors in their place, in their dtypes. Returns IncompatibleKeys, the names that are missing and unexpected.

        Raises RuntimeError that lists missing and unexpected names (unless not strict) and different shapes; then
        nothing has been changed."""
        tensors: Any = itertools.chain(self.named_parameters(), self.named_buffers())
        for name, tensor in tensors:
            if isinstance(tensor, tt.Uninitialized) and name in state_dict:
                tensor.materialize(state_dict[name].shape)
        own = self.state_dict()
        super().load_state_dict(state_dict, strict)
        if assign:
            _assign(self, {name: state_dict[name] for name in own if name in state_dict})
        return IncompatibleKeys([n for n in own if n not in state_dict], [n for n in state_dict if n not in own])


def _assign(module, state):
    for target, tensor in state.items():
        path, _, name = target.rpartition(".")
        part = module.get_submodule(path)
        if name in part._buffers:
            part._buffers[name] = tensor
        elif not isinstance(tensor, tt.Parameter):
            part._parameters[name] = tt.Parameter(tensor, part._parameters[name].requires_grad)
        else:
            part._parameters[name] = tensor


# ## Devices and dtypes
#
# `to` accepts a dtype, a device, both, or a tensor whose dtype and device to use; so does the method of a tensor. We
# let an empty tensor of truth values read the arguments. If it comes back unchanged, no dtype was among them.


class Moving(Stating):
    """Conversions in place, as PyTorch spells them."""

    def to(self, *args, **options) -> Self:
        """Convert all floating-point parameters and buffers to another dtype, in place: to(dtype), to(device),
        to(device, dtype) or to(other_tensor). Returns the module. Raises RuntimeError for a device that is not the
        CPU, TypeError for a dtype that is not floating-point."""
        return self._converted(tt.zeros(0, dtype=tt.bool_).to(*args, **options).dtype)

    def type(self, dst_type) -> Self:
        """to() for a dtype or a name such as "torch.DoubleTensor"."""
        return self._converted(tt.zeros(0, dtype=tt.bool_).type(dst_type).dtype)

    def _converted(self, dtype):
        if dtype == tt.bool_:
            return self
        if dtype.kind != "f":
            raise TypeError(f"the parameters of a module hold floating-point numbers; they cannot become {dtype}")
        for tensor in itertools.chain(self.parameters(), self.buffers()):
            if tensor.dtype.kind == "f" and tensor.dtype != dtype:
                tensor._array, tensor.grad = tensor._array.astype(dtype), None
        return self

    def cuda(self, device=None) -> Self:
        """Raises RuntimeError: tinytorch computes on the CPU."""
        refuse_other_device("cuda" if device is None or isinstance(device, int) else device)
        return self

    def double(self) -> Self:
        """`to(float64)`, which gradient checks need."""
        return self.to(tt.float64)

    def float(self) -> Self: return self.to(tt.float32)
    def half(self) -> Self: return self.to(tt.float16)
    def cpu(self) -> Self: return self
    def share_memory(self) -> Self: return self


# ## Calling


class ModuleMethods(Moving):
    """All that Module has beside the methods of chapter 04."""

    _hooks: _Hooks | None = None

    def __call__(self, *inputs, **options) -> Any:
        if self._hooks is None:
            return self.forward(*inputs, **options)
        return _call_with_hooks(self, inputs, options)

    def register_forward_pre_hook(self, hook: Callable, *, prepend=False, with_kwargs=False) -> RemovableHandle:
        """Call hook(module, inputs) before every forward; what it returns, if not None, replaces the inputs. With
        `with_kwargs`, hook(module, inputs, options), which returns both. Returns a handle."""
        return _registered(self, "before", hook if with_kwargs else _replaced_inputs(hook), prepend)

    def register_forward_hook(
        self, hook: Callable, *, prepend=False, with_kwargs=False, always_call=False
    ) -> RemovableHandle:
        """Call hook(module, inputs, output) after every forward; what it returns, if not None, replaces the output.
        With `with_kwargs`, hook(module, inputs, options, output). Returns a handle. Raises ValueError for
        `always_call`."""
        if always_call:
            raise ValueError("always_call, for a forward that fails, is not supported: catch the error around the call")
        return _registered(self, "after", hook if with_kwargs else _with_all(hook), prepend)

    # A hook of the third kind needs no options: it always gets the gradients of both sides.

    def register_full_backward_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Call hook(module, grad_inputs, grad_outputs) when backpropagation has passed the module; what it returns, if
        not None, replaces the gradient of the input. Returns a handle.

        Every input that requires a gradient must have been used."""
        return _registered(self, "backward", hook, prepend)


def named_as_one(cls: type[T]) -> type[T]:
    """Let Python's own messages about a method, such as one of a missing argument, say `Module`, whichever of the
    class's bases the method was written in."""
    for base in cls.__mro__[:-1]:
        for method in filter(inspect.isfunction, vars(base).values()):
            method.__qualname__ = f"{cls.__name__}.{method.__name__}"
    return cls


def _registered(module, kind, hook, prepend):
    if module._hooks is None:
        object.__setattr__(module, "_hooks", _Hooks())
    hooks = getattr(module._hooks, kind)
    handle = RemovableHandle(hooks)
    others = dict(hooks) if prepend else {}
    if prepend:
        hooks.clear()
    hooks[handle] = hook
    hooks.update(others)
    return handle


# ## Rows of modules
#
# A `ModuleList` is a list, so you can also change it in the middle. Its parts are named by their positions. After an
# insertion all later parts get new names, so we simply number all of them again.


class ListMethods:
    """What a list can do beside append and iteration."""

    def extend(self, modules) -> Self:
        """Add several modules at the end; returns the list."""
        for module in modules:
            self.append(module)
        return self

    def __getitem__(self, index) -> Any:
        found = list(self._modules.values())[index]
        return tt.ModuleList(found) if isinstance(index, slice) else found

    def __len__(self) -> int:
        return len(self._modules)

    def insert(self, index: int, module: Module) -> Self:
        """Put a module before the index `index`; returns the list. Raises IndexError for an index that is out of
        range."""
        parts = list(self._modules.values())
        if not -len(parts) <= index <= len(parts):
            raise IndexError(f"index {index} is out of range: the list has {len(parts)} modules")
        parts.insert(index, module)
        return self._numbered(parts)

    # Taking out and replacing work as in a list, too.

    def pop(self, key: int = -1) -> Module:
        """Take the module at a position out of the list and return it."""
        module = self[key]
        del self[key]
        return module

    def __setitem__(self, index: int, module) -> None:
        setattr(self, _name_at(self, index), module)

    def __delitem__(self, index) -> None:
        parts = list(self._modules.values())
        del parts[index]
        self._numbered(parts)

    def _numbered(self, parts):
        self._modules.clear()
        return self.extend(parts)

    def __iadd__(self, modules) -> Self:
        return self.extend(modules)

    def __add__(self, other) -> Any:
        return type(self)([*self, *other])


def _name_at(modules, index):
    names = list(modules._modules)
    if not -len(names) <= operator.index(index) < len(names):
        raise IndexError(f"index {index} is out of range: the list has {len(names)} modules")
    return names[index]


# The parts of a `Sequential` may have names of their own, from an `OrderedDict`. A slice keeps the names.


class NamedParts:
    """Names for the parts of a Sequential."""

    def extend(self, modules) -> Self:
        """Add several modules at the end; returns the Sequential. A single OrderedDict of modules gives their names."""
        if isinstance(modules, tuple) and len(modules) == 1 and isinstance(modules[0], OrderedDict):
            for name, module in modules[0].items():
                self.add_module(name, module)
            return self
        return super().extend(modules)

    def __getitem__(self, index) -> Any:
        if isinstance(index, slice):
            return type(self)(OrderedDict(list(self._modules.items())[index]))
        return self._modules[_name_at(self, index)]

    def __add__(self, other) -> Any:
        return tt.Sequential(*self, *other)

    def __mul__(self, times: int) -> Any:
        return tt.Sequential(*[*self] * times)


__all__ = ["IncompatibleKeys", "ListMethods", "ModuleMethods", "NamedParts", "RemovableHandle"]
