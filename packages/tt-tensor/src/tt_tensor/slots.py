"""Slots: named functions on arrays whose kernels can be exchanged, for a block or permanently.

A support module of chapter 02, which builds primitives on it. Chapters 06 and 09 have slots of their own."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SLOTS: dict[str, Slot] = {}
_sets: list[tuple[int, str, dict]] = []  # (thread, name, kernels) of each set in use
_exchanging = threading.Lock()
_name = ["default"]  # of the installed kernels


class Slot:
    """A function on arrays with a name, whose kernel can be exchanged."""

    def __init__(self, kernel: Callable):
        self.name, self.kernel, self.default = kernel.__name__, kernel, kernel
        self.signature = inspect.signature(kernel)
        self.__name__, self.__doc__, self.__module__ = kernel.__name__, kernel.__doc__, kernel.__module__
        SLOTS[self.name] = self

    def __call__(self, *args, **params) -> Any:
        return self.kernel(*args, **params)

    # Python's own `bind` matches arguments with a signature. It is called for its errors only: it reports too many
    # arguments, or a name that does not exist, in the words that Python's users know.

    def bind_params(self, args: tuple, params: dict) -> tuple[tuple, dict]:
        """The arguments before the `/` of the signature, and all others by name. TypeError if they do not fit."""
        try:
            self.signature.bind(*args, **params)
        except TypeError as error:
            raise TypeError(f"{self.name}{self.signature}: {error}") from None
        kinds = self.signature.parameters.items()
        if any(p.kind is p.VAR_POSITIONAL for _, p in kinds):
            return args, params
        names = [name for name, p in kinds if p.kind is not p.POSITIONAL_ONLY]
        count = len(kinds) - len(names)
        return args[:count], dict(zip(names, args[count:]), **params)

    def __repr__(self) -> str:
        return f"<slot {self.name}>"

    def __copy__(self, memo=None) -> Slot:  # tables, such as that of the derivatives, know this one object
        return self

    __deepcopy__ = __copy__


def slot(kernel: Callable) -> Any:
    """Turn a function on arrays into one whose kernel `use_kernels` can exchange."""
    return Slot(kernel)


@contextmanager
def use_kernels(module) -> Iterator[None]:
    """Within the block, primitives run the kernels of the same names in `module`, in every thread.

    Raises ValueError for a callable that does not fit: a function of the module that has no slot's name, or one with
    another signature than the slot's own kernel; RuntimeError if another thread uses kernels."""
    kernels = _kernels_of(module)
    with _exchanging:
        if _sets and _sets[-1][0] != threading.get_ident():
            raise RuntimeError(
                f"another thread already uses the kernels of {_sets[-1][1]}, and kernels are the same for all threads; "
                "wait until its block has ended"
            )
        used = (threading.get_ident(), module.__name__, kernels)
        _sets.append(used)
        _exchange(kernels)
    try:
        yield
    finally:
        with _exchanging:
            _sets.remove(used)
            _exchange(kernels)


def install_kernels(kernels: dict[str, Callable], name: str | None = None) -> dict[str, Callable]:
    """From now on, in every thread, run these kernels in the slots of these names wherever `use_kernels` has no say.

    Returns the kernels that were there before; a second call with them undoes the first. `kernels_in_use` returns
    `name`, if one is given. Raises ValueError, before anything is changed, for a name without a slot and for another
    signature."""
    for place, kernel in kernels.items():
        _check_fits(place, kernel, "install_kernels")
    with _exchanging:
        before = {place: SLOTS[place].default for place in kernels}
        for place, kernel in kernels.items():
            SLOTS[place].default = kernel
        _exchange(kernels)
        _name[:] = [name or _name[0]]
    return before


def kernels_in_use() -> str:
    """The name of the kernel set that computes: that of the module given to `use_kernels`, or the one that
    `install_kernels` was given."""
    return _sets[-1][1] if _sets else _name[0]


def _exchange(kernels):
    for name in kernels:
        place = SLOTS[name]
        place.kernel = next((used[name] for *_, used in reversed(_sets) if name in used), place.default)


def _kernels_of(module) -> dict[str, Callable]:
    kernels = {}
    for name, value in vars(module).items():
        own = inspect.isfunction(value) and value.__module__ == module.__name__
        if name[0] != "_" and callable(value) and not isinstance(value, Slot) and (name in SLOTS or own):
            _check_fits(name, value, module.__name__)
            kernels[name] = value
    if not kernels:
        raise ValueError(f"{module.__name__} has no kernels: no callable in it has the name of a slot")
    return kernels


def _check_fits(name, function, source):
    if name not in SLOTS:
        raise ValueError(
            f"{source}.{name} is not a kernel: there is no primitive of that name. Start helpers with an underscore"
        )
    ours = str(SLOTS[name].signature)
    try:
        theirs = str(inspect.signature(function))
    except ValueError:
        theirs = "(unknown)"
    if ours != theirs:
        raise ValueError(f"{source}.{name}{theirs} does not fit: the primitive's kernel is {name}{ours}")
