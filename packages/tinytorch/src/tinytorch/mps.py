"""torch.mps: answers, no machinery. There is no such device."""

from tinytorch._names import offer as _offer
from tinytorch._no_devices import device_count, empty_cache, manual_seed, synchronize

__getattr__, __dir__ = _offer(__name__)
