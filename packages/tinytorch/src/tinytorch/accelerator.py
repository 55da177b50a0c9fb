"""torch.accelerator: answers, no machinery. There is none."""

from tinytorch._names import offer as _offer
from tinytorch._no_devices import device_count, empty_cache, is_available, synchronize

__getattr__, __dir__ = _offer(__name__)


def current_accelerator(check_available: bool = False) -> None:
    """None."""
