"""torch.cuda: answers, no machinery. There is no such device."""

from tinytorch._names import offer as _offer
from tinytorch._no_devices import device_count, empty_cache, is_available, manual_seed, manual_seed_all, synchronize

__getattr__, __dir__ = _offer(__name__)


def is_initialized() -> bool:
    """False."""
    return False


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """False."""
    return False


def memory_allocated(device=None) -> int:
    """0."""
    return 0


memory_reserved = max_memory_allocated = max_memory_reserved = memory_allocated
