"""torch's settings of a process: seeds, threads, the default dtype, how tensors are printed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import tt_tensor as tt

default_generator = tt.Generator()
default_generator.numpy = tt.generator()


def manual_seed(seed: int) -> tt.Generator:
    """Begin the common random numbers from a seed, which may be negative as in torch. Returns their generator."""
    tt.manual_seed(0)  # sees to it that the common generator is in use
    return default_generator.manual_seed(int(seed) % 2**64)


def seed() -> int:
    """Begin the common random numbers from a seed that the operating system draws; returns it."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed that the common random numbers began from."""
    return default_generator.initial_seed()


@contextmanager
def fork_rng(
    devices=None, enabled=True, _caller="fork_rng", _devices_kw="devices", device_type="cuda"
) -> Iterator[None]:
    """A block after which the random numbers continue as if it had not been there."""
    before = tt.get_rng_state()
    try:
        yield
    finally:
        if enabled:
            tt.set_rng_state(before)


def get_default_dtype() -> Any:
    """float32: the dtype of tensors that are made of Python's floats."""
    return tt.float32


def set_default_dtype(d: Any, /) -> None:
    """Accepts float32. Raises RuntimeError for another dtype."""
    if d != tt.float32:
        raise RuntimeError(
            f"the default dtype is float32 and cannot become {d}: give dtype= where a tensor is made, or use "
            "module.to(dtype)"
        )


def set_default_tensor_type(t: Any, /) -> None:
    """Accepts torch.FloatTensor. Raises RuntimeError for another type."""
    if getattr(t, "__name__", str(t)).rpartition(".")[2] != "FloatTensor":
        raise RuntimeError(f"the default is FloatTensor and cannot become {t}: give dtype= where a tensor is made")


def set_default_device(device: Any) -> None:
    """Accepts the CPU. Raises RuntimeError for another device."""
    tt.refuse_other_device(device)


def get_default_device() -> tt.device:
    """device("cpu")."""
    return tt.CPU


def set_float32_matmul_precision(precision: str) -> None:
    """Accepted, and without effect: products are as exact as float32 is."""


def get_float32_matmul_precision() -> str:
    """"highest"."""
    return "highest"


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accepted, and without effect: the same seed gives the same numbers always."""


def are_deterministic_algorithms_enabled() -> bool:
    """True."""
    return True


def set_num_interop_threads(num: int) -> None:
    """Accepted, and without effect: operations run one after the other."""


def get_num_interop_threads() -> int:
    """1."""
    return 1


def set_printoptions(
    precision=None, threshold=None, edgeitems=None, linewidth=None, profile=None, sci_mode=None
) -> None:
    """How tensors are printed, by NumPy's options."""
    if profile:
        precision, threshold, edgeitems, linewidth = {"short": (2, 1000, 2, 80), "full": (4, 10**9, 3, 80)}.get(
            profile, (4, 1000, 3, 80)
        )
    options = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    np.set_printoptions(**{name: value for name, value in options.items() if value is not None})
    if sci_mode is not None:
        np.set_printoptions(suppress=not sci_mode)


def is_anomaly_enabled() -> bool:
    """False outside a block of autograd.detect_anomaly, of which this does not know."""
    return False


class _Kind(type):
    """The type of torch.Tensor and its kin: they make float32 (or another dtype), and every tensor of it is theirs."""

    _kind: Any

    def __call__(cls, *args: Any, **options: Any) -> Any:
        if "_kind" not in vars(cls):
            return super().__call__(*args, **options)
        sizes = all(isinstance(arg, int) for arg in args)
        if not sizes or not args:
            return tt.tensor(*args or ([],), **{"dtype": cls._kind or tt.float32, **options})
        return tt.zeros(*args, dtype=cls._kind) if cls._kind else tt.Tensor(*args, **options)

    def __instancecheck__(cls, instance: Any) -> bool:
        if "_kind" not in vars(cls):
            return super().__instancecheck__(instance)
        return isinstance(instance, tt.Tensor) and cls._kind in (None, instance.dtype)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, tt.Tensor) if "_kind" in vars(cls) else super().__subclasscheck__(subclass)


class Tensor(tt.Tensor, metaclass=_Kind):
    """torch.Tensor(data) is float32 whatever the data are, torch.Tensor(*sizes) is not filled; see tensor()."""

    __slots__ = ()
    _kind: Any = None


def legacy(dtype: Any, name: str) -> Any:
    """A constructor such as torch.LongTensor: of sizes (zeros), or of data."""
    doc = f"torch.{name}(*sizes) or torch.{name}(data): a tensor of {dtype}."
    return _Kind(name, (tt.Tensor,), {"__slots__": (), "__doc__": doc, "_kind": np.dtype(dtype)})
