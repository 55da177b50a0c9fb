"""The adapter for functions: torch's parameter names turned into ours, and the keywords that our functions do not need.

Our functions take PyTorch's arguments in PyTorch's order, so a positional call goes straight through. A call with
keywords is looked at once for each set of keywords: which of them have another name here, and which mean the same for
all functions (`out`, `dtype`, `generator`, ...) or nothing on a CPU (`device`, `pin_memory`, ...)."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from tinytorch._constants import strided

NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim"}
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
ANYTHING = "(*args, **kwargs)"


def adapted(function: Callable, name: str, module: str, forms: list[str]) -> Callable:
    """A function of ours that is called as torch's, whose forms are given: `["(input, dim, keepdim=False)", ...]`."""
    if forms == [ANYTHING]:
        return function
    translation = Translation(function, name, forms)
    direct, plans = translation.direct, translation.plans

    def call(*args, **options):
        if options or len(args) > direct:
            plan = plans.get((len(args), *options)) or translation.plan(len(args), tuple(options))
            return plan(args, options)
        return function(*args)

    functools.update_wrapper(call, function, ("__doc__",))
    call.__name__ = call.__qualname__ = name
    call.__module__ = module
    call.__signature__ = max(translation.forms, key=lambda form: len(form.parameters))  # type: ignore[attr-defined]
    return call


@functools.cache
def signature(form: str) -> inspect.Signature:
    """A form as a signature."""
    names: dict[str, Any] = {"Tensor": "Tensor"}
    exec(f"def form{form}: ...", names)
    return inspect.signature(names["form"])


def own_signature(function: Callable) -> inspect.Signature:
    """The parameters of a function of ours; a primitive's are those of its kernel."""
    return getattr(function, "signature", None) or inspect.signature(function)


class Translation:
    """How calls of a function of torch's become calls of ours."""

    def __init__(self, function: Callable, name: str, forms: list[str]):
        self.function, self.name, self.forms = function, name, [signature(form) for form in forms]
        every = own_signature(function).parameters
        self.ours = {name: p for name, p in every.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        self.places = [p.name for p in self.ours.values() if p.kind in POSITIONAL]
        self.takes_more = any(p.kind is p.VAR_POSITIONAL for p in every.values())
        self.direct: float = max(map(self._direct, self.forms))
        self.plans: dict[tuple, Callable] = {}

    def _direct(self, form) -> float:
        """How many leading positions mean the same in a form of torch's and here."""
        theirs = _positional(form)
        if any(p.kind is p.VAR_POSITIONAL for p in form.parameters.values()):
            return float("inf")
        names = self._names(form)
        same = [names.get(name) == place for name, place in zip(theirs, self.places)]
        return [*same, False].index(False)

    def _is_operand(self, place: str) -> bool:
        """Whether it is given by position: without a default, or before a list of further ones."""
        parameter = self.ours[place]
        return parameter.default is parameter.empty or parameter.kind is parameter.POSITIONAL_ONLY or self.takes_more

    def _names(self, form) -> dict[str, str]:
        """Our name for each of torch's parameters that we have: the same, or that of the operand at its place."""
        theirs = form.parameters
        names = {name: name for name in theirs if name in self.ours}
        operands = [p.name for p in theirs.values() if p.default is p.empty and p.name not in names]
        free = [place for place in self.places if place not in names]
        return names | {name: place for name, place in zip(operands, free) if theirs[name].kind in POSITIONAL}

    def plan(self, count: int, options: tuple[str, ...]) -> Callable:
        """How a call with so many positional arguments and these keywords is done; kept for the next call like it."""
        renamed = {name: NUMPY_NAMES.get(name, name) for name in options}
        for form in self.forms:
            theirs = _positional(form)
            late = theirs[int(self.direct) : count] if count > self.direct else []
            fits = set(renamed.values()) <= set(form.parameters) and not set(theirs[:count]) & set(renamed.values())
            if fits and count <= max(len(theirs), self.direct):
                plan = self._plan(self._names(form), form, late, renamed)
                self.plans[(count, *options)] = plan
                return plan
        wrong = [name for name in options if not any(renamed[name] in form.parameters for form in self.forms)]
        raise TypeError(
            f"{self.name}() does not take {'the parameter ' + wrong[0] if wrong else 'these arguments together'}; "
            f"in torch it is {' or '.join(self.name + str(form) for form in self.forms)}"
        )

    def _plan(self, names: dict[str, str], form, late: list[str], renamed: dict[str, str]) -> Callable:
        own = {theirs: names[theirs] for theirs in (*late, *renamed.values()) if theirs in names}
        others = [name for name in (*late, *renamed.values()) if name not in own]
        common = [name for name in others if name in COMMON]
        more = [name for name in others if self.takes_more and name not in COMMON]
        unknown = [name for name in others if name not in (*common, *more)]
        operands = list(itertools.takewhile(self._is_operand, self.places))
        function, direct = self.function, self.direct
        if not late and all(own.get(name) == name and name not in operands for name in renamed):
            return lambda args, options: function(*args, **options)

        def call(args, options):
            given = {renamed[name]: value for name, value in options.items()}
            if late:
                given |= zip(late, args[direct:])
                args = args[:direct]
            for name in unknown:
                _refuse_unknown(self.name, name, form.parameters[name].default, given[name])
            inside = {ours: given[theirs] for theirs, ours in own.items()}
            missing = itertools.takewhile(inside.__contains__, operands[len(args) :])
            args = (*args, *[inside.pop(place) for place in missing], *(given[name] for name in more))
            if not common:
                return function(*args, **inside)
            return _with_common(function, args, inside, {name: given[name] for name in common})

        return call


def _positional(form) -> list[str]:
    return [p.name for p in form.parameters.values() if p.kind in POSITIONAL]


def _refuse_unknown(function, name, default, value) -> None:
    if value is not default and value is not None and value != default:
        raise TypeError(f"{function}() has no parameter {name} here; only torch's default, {default!r}, is possible")


# -- keywords that all functions understand ---------------------------------------------------------------------------

COMMON = {
    "out", "dtype", "device", "layout", "pin_memory", "memory_format", "non_blocking", "generator", "requires_grad",
    "inplace", "size_average", "reduce", "unbiased", "_stacklevel", "foreach", "sorted", "stable",
}


def _with_common(function, args, inside, common) -> Any:
    from tt_tensor import Tensor, drawn_from, refuse_other_device

    refuse_other_device(common.get("device"))
    if common.get("layout") not in (None, strided):
        raise RuntimeError(f"tensors are dense: layout must be torch.strided, not {common['layout']}")
    dtype = common.get("dtype")
    if dtype is not None and args and isinstance(args[0], Tensor):
        args = (args[0].to(dtype), *args[1:])
    if (reduction := _reduction(common.get("size_average"), common.get("reduce"))) is not None:
        inside["reduction"] = reduction
    if common.get("unbiased") is not None:
        inside["correction"] = int(common["unbiased"])
    generator = common.get("generator")
    with drawn_from(generator) if generator is not None else nullcontext():
        result = function(*args, **inside)
    if dtype is not None and isinstance(result, Tensor) and result.dtype != dtype:
        result = result.to(dtype)
    if common.get("requires_grad"):
        result.requires_grad = True
    return result if (out := common.get("out")) is None else _into(out, result)


def _reduction(size_average, reduce) -> str | None:
    """The reduction that the two parameters of old programs mean; None if neither is given."""
    if size_average is None and reduce is None:
        return None
    return "none" if reduce is False else "sum" if size_average is False else "mean"


def _into(out, result) -> Any:
    """The result written into the tensor, or the tensors, of `out`."""
    if isinstance(out, (tuple, list)):
        return type(result)(*map(_into, out, result)) if hasattr(result, "_fields") else tuple(map(_into, out, result))
    if out.shape != result.shape:
        raise ValueError(f"out has shape {out.shape}, and the result {result.shape}; give it that shape")
    out.copy_(result)
    return out
