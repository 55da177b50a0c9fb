"""torch.amp: mixed precision. tinytorch computes in the dtype of the tensors, so it must be off."""

import warnings as _warnings
from contextlib import ContextDecorator as _ContextDecorator

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)

_ADVICE = "the CPU computes in the dtype of the tensors. Pass enabled=False, or convert with .to(torch.float16)"


class autocast(_ContextDecorator):
    """A block without mixed precision. As in torch on a machine without CUDA, autocast("cuda") warns and is off; on the
    CPU, enabled=True raises RuntimeError unless dtype is float32."""

    def __init__(self, device_type="cuda", dtype=None, enabled=True, cache_enabled=None):
        if enabled and device_type != "cuda" and str(dtype) != "float32":
            raise RuntimeError(f"autocast is not available: {_ADVICE}")
        if enabled and device_type == "cuda":
            _warnings.warn(f"autocast is off, because there is no CUDA device: {_ADVICE}", stacklevel=2)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None


class GradScaler:
    """The scaler of losses that mixed precision needs; without it, everything passes unchanged. As in torch without
    CUDA, enabled=True warns and is off."""

    def __init__(
        self, device="cuda", init_scale=65536.0, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000,
        enabled=True,
    ):
        if enabled:
            _warnings.warn(f"GradScaler is off, because there is no CUDA device: {_ADVICE}", stacklevel=2)

    def scale(self, outputs):
        """The outputs as they are."""
        return outputs

    def unscale_(self, optimizer):
        """Nothing."""

    def step(self, optimizer, *args, **kwargs):
        """optimizer.step(...)"""
        return optimizer.step(*args, **kwargs)

    def update(self, new_scale=None):
        """Nothing."""

    def get_scale(self):
        """1.0"""
        return 1.0

    def is_enabled(self):
        """False"""
        return False

    def state_dict(self):
        """An empty dictionary."""
        return {}

    def load_state_dict(self, state_dict):
        """Nothing."""
