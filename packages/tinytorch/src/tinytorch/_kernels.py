"""The best kernel set that is installed, turned on when the first operation asks for it.

Chapter 15's sets take a second to load, so that importing tinytorch leaves a note instead: the kernels of the
operations that take the time turn the set on when one of them is called first, and then give the call to it.
TT_KERNELS=default leaves the chapters' kernels; another name is turned on at once."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable

import tt_tensor as tt

COSTLY = (
    "matmul", "affine", "relu", "gelu", "surprise", "normalize_scaled", "convolution", "max_pool", "channel_moments",
    "normalize_channels", "add_rows", "attention_in_blocks", "adam_update", "sgd_update",
)

_before: dict[str, Callable] = {}
_lock = threading.RLock()
_wanted = True


def use_best() -> None:
    """Turn the best kernel set on: at the first operation that takes its time, or now if TT_KERNELS names one."""
    if os.environ.get("TT_KERNELS"):
        leave()
        importlib.import_module("tt_opt")  # turns on what TT_KERNELS says
    else:
        watch()


def watch() -> None:
    """Leave a note at the kernels of the packages that have been imported by now."""
    with _lock:
        names = [name for name in COSTLY if name in tt.SLOTS and name not in _before] if _wanted else []
        if names:
            _before.update(tt.install_kernels({name: _noted(tt.SLOTS[name]) for name in names}))


def _noted(slot) -> Callable:
    def kernel(*arrays, **params):
        turn_on()
        return slot.kernel(*arrays, **params)

    kernel.__signature__ = slot.signature  # type: ignore[attr-defined]
    return kernel


def turn_on() -> None:
    """Turn the best kernel set on now."""
    with _lock:
        if _wanted:
            leave()
            importlib.import_module("tt_opt").accelerate()


def leave() -> None:
    """Take the notes away: the kernels stay as they are."""
    global _wanted
    _wanted = False
    if _before:
        tt.install_kernels(_before)
        _before.clear()
