"""Which kernel set is in use, and how to get from one to another.

A support module of chapter 15. A set is put in by a function that takes an ExitStack and notes in it how each of its
steps is undone."""

from __future__ import annotations

import importlib.util
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack

from tt_tensor import SLOTS, Slot, install_kernels, loops

__all__ = ["SETS", "Switch", "best_set", "known_set", "put_loops"]

SETS = {"fast": "tt_opt.fast", "compiled": "tt_opt.compiled"}  # the modules with their work on a range of rows


def best_set() -> str:
    """Return the name of the fastest kernel set of this installation: "compiled" where Numba is installed, else
    "fast"."""
    return "compiled" if importlib.util.find_spec("numba") else "fast"


def known_set(name: str) -> str:
    """Return the name of the set that this name stands for: where Numba is missing, "compiled" is "fast", and a
    warning says so. ValueError for an unknown name."""
    if name not in ("default", "loops", *SETS):
        raise ValueError(f'there is no kernel set {name!r}: choose "compiled", "fast", "default" or "loops"')
    if name == "compiled" and best_set() == "fast":
        advice = 'Numba is not installed, so the kernels are those of the set "fast": pip install tt-opt[compiled]'
        warnings.warn(advice, RuntimeWarning, stacklevel=4)
        return "fast"
    return name


class Switch:
    """The set in use, `name`, and the `blocks` in which others were chosen, by the thread that each belongs to."""

    def __init__(self):
        self.name, self.undo, self.lock = "default", ExitStack(), threading.RLock()
        self.blocks: list[int] = []

    def to(self, name: str, put: Callable[[ExitStack], None]) -> None:
        """Take out the set in use and put another one in. RuntimeError while another thread is inside a block."""
        with self.lock:
            if self.blocks and self.blocks[-1] != threading.get_ident():
                raise RuntimeError("another thread is inside a block of accelerate(); kernels are the same for all")
            if name != self.name:
                self.undo.close()
                put(self.undo)
                self.name = name


def put_loops(undo: ExitStack) -> None:
    """Put in the loops with which chapters 02, 09 and 13 define their operations."""
    from tt_nlp import nlp_loops
    from tt_spatial import spatial_loops

    sets = [vars(module).items() for module in (loops, spatial_loops, nlp_loops)]
    kernels = {name: f for items in sets for name, f in items if name in SLOTS and not isinstance(f, Slot)}
    undo.callback(install_kernels, install_kernels(kernels, "loops"), "default")
