"""What the optimizers of chapter 06 offer around an update, as in PyTorch: closures, hooks, groups added later."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tt_optim.groups import added_group

_around: list[Callable[[], AbstractContextManager]] = [nullcontext]


def run_closures_in(context: Callable[[], AbstractContextManager]) -> None:
    """Call each closure inside `with context():` from now on. Chapter 07 passes `enable_grad`, so that a closure
    records even where `step` is called without recording."""
    _around[0] = context


def evaluate(closure: Callable[[], Any]) -> Any:
    """Call a closure, which computes the loss and its gradients, and return the loss."""
    with _around[0]():
        return closure()


def with_closure(step: Callable[[Any], None]) -> Callable[..., Any]:
    """Return the method `step` in PyTorch's form: `step(closure)` calls the closure first and returns its loss; hooks
    are called before and after."""

    @functools.wraps(step)
    def stepping(self, closure: Callable[[], Any] | None = None) -> Any:
        given = () if closure is None else (closure,)
        for hook in self.pre_hooks:
            hook(self, given, {})
        loss = None if closure is None else evaluate(closure)
        step(self)
        for hook in self.post_hooks:
            hook(self, given, {})
        return loss

    return stepping


class Interface:
    """The base of the chapter's Optimizer."""

    param_groups: list[dict]
    defaults: dict
    pre_hooks: tuple[Callable, ...] = ()
    post_hooks: tuple[Callable, ...] = ()

    def add_param_group(self, param_group: dict) -> None:
        """Add a group of parameters, such as a layer that is trained from now on. Raises as the constructor does, and
        ValueError for a parameter that another group has."""
        self.param_groups.append(added_group(param_group, self.defaults, self.param_groups))

    def register_step_pre_hook(self, hook: Callable) -> Hook:
        """Call hook(optimizer, args, kwargs) before each step; its result is ignored."""
        self.pre_hooks = (*self.pre_hooks, hook)
        return Hook(self, "pre_hooks", hook)

    def register_step_post_hook(self, hook: Callable) -> Hook:
        """Call hook(optimizer, args, kwargs) after each step."""
        self.post_hooks = (*self.post_hooks, hook)
        return Hook(self, "post_hooks", hook)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for number, group in enumerate(self.param_groups):
            lines += [""] * (number > 0) + [f"Parameter Group {number}"]
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


class Hook:
    """A registered hook, whose `remove()` undoes the registration."""

    def __init__(self, optimizer: Interface, kind: str, hook: Callable):
        self.optimizer, self.kind, self.hook = optimizer, kind, hook

    def remove(self) -> None:
        """Stop calling the hook."""
        kept = tuple(hook for hook in getattr(self.optimizer, self.kind) if hook is not self.hook)
        setattr(self.optimizer, self.kind, kept)


__all__ = ["Hook", "Interface", "evaluate", "run_closures_in", "with_closure"]
