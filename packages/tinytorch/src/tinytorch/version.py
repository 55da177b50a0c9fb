"""torch.version: of which torch these are the names."""

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)

__version__ = "2.13.0+tinytorch"
cuda = hip = xpu = None
debug, git_version = False, ""
