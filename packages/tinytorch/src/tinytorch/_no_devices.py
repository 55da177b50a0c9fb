"""What every module of torch's that stands for a device answers here: there is none."""

from __future__ import annotations

from typing import Any

from tinytorch._settings import manual_seed as manual_seed


def is_available() -> bool:
    """False: tinytorch computes on the CPU only."""
    return False


def device_count() -> int:
    """0."""
    return 0


def synchronize(device: Any = None) -> None:
    """Nothing: operations are done when they return."""


def empty_cache() -> None:
    """Nothing: memory goes back when the last reference to it does."""


def manual_seed_all(seed: int) -> None:
    """Seeds the common random numbers."""
    manual_seed(seed)
