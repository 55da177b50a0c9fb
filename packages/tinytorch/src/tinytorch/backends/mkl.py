"""torch.backends.mkl: switches that can be set, and have no effect."""

from tinytorch._names import offer as _offer
from tinytorch._no_devices import is_available

__getattr__, __dir__ = _offer(__name__)
