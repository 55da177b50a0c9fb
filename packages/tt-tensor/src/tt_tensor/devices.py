"""The device of a tensor, which is always the CPU. Programs written for PyTorch ask for it and get a true answer.

`device` may name any device, so that a program can ask for one and compare. Every function with a parameter `device`
calls `refuse_other_device`, which accepts the CPU only."""

from __future__ import annotations

import re

_KINDS = ("cpu", "cuda", "mps", "xpu", "hip", "xla", "meta")


class device:
    """The name of a device as torch.device: device("cpu"), device("cuda", 1), device("cuda:1").

    Raises RuntimeError for a kind of device that does not exist, TypeError for anything but a name."""

    __slots__ = ("index", "type")
    type: str
    index: int | None

    def __init__(self, type: str | device, index: int | None = None):
        if isinstance(type, device):
            index = type.index if index is None else index
            type = type.type
        if not isinstance(type, str):
            raise TypeError(f'a device must be a string such as "cpu", not {type!r}')
        name = re.fullmatch(r"([a-z]+)(?::(\d+))?", type)
        if name is None or name[1] not in _KINDS or (name[2] and index is not None):
            raise RuntimeError(f"there is no device {type!r}; use one of {', '.join(_KINDS)}, as in 'cuda:0'")
        self.type, self.index = name[1], int(name[2]) if name[2] else index

    def __str__(self):
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self):
        return f"device(type={self.type!r}" + ("" if self.index is None else f", index={self.index}") + ")"

    def __eq__(self, other):
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self):
        return hash((self.type, self.index))


CPU = device("cpu")


def refuse_other_device(where) -> None:
    """Accept None and the CPU. Raises RuntimeError for every other device, because we compute on the CPU only."""
    if where is None or where is CPU:
        return
    if device(where).type != "cpu":
        raise RuntimeError(
            f"{device(where)} is not available: tinytorch computes on the CPU only. Guard the line with "
            "`if torch.cuda.is_available():`, or use device('cpu')"
        )


__all__ = ["CPU", "device", "refuse_other_device"]
