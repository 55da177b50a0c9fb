"""Sources of random numbers beside the common one of chapter 01, for PyTorch's parameter `generator`."""

from __future__ import annotations

import secrets
from contextlib import nullcontext
from typing import Any

import numpy as np

from tt_tensor.devices import CPU, refuse_other_device
from tt_tensor.setup import drawing_from


class Generator:
    """A random generator with a state of its own, as torch.Generator. The numbers are NumPy's, not torch's."""

    device = CPU

    def __init__(self, device=None):
        refuse_other_device(device)
        self.numpy = np.random.default_rng(0)
        self._seed = 0

    def manual_seed(self, seed: int) -> Generator:
        """Begin again from an integer of 0 or more; returns the generator."""
        if seed < 0:
            raise ValueError(f"a seed must be an integer of 0 or more, not {seed}")
        self.numpy.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        self._seed = seed
        return self

    def seed(self) -> int:
        """Begin again from a seed that the operating system draws; returns it."""
        self.manual_seed(secrets.randbits(63))
        return self._seed

    def initial_seed(self) -> int:
        """The seed that the generator began from."""
        return self._seed

    def get_state(self) -> dict[str, Any]:
        """The state, a dictionary of plain values."""
        return dict(self.numpy.bit_generator.state)

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state that `get_state` returned."""
        self.numpy.bit_generator.state = state


def drawn_from(generator: Generator | np.random.Generator | None):
    """A context in which `tt_tensor.generator()` is the given one; with None, it stays the common one."""
    if generator is None:
        return nullcontext()
    return drawing_from(generator.numpy if isinstance(generator, Generator) else generator)


__all__ = ["Generator", "drawn_from"]
