"""torch.backends: switches of libraries that do not compute here. They can be set and have no effect."""

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)
