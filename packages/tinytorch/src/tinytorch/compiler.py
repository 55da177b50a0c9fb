"""torch.compiler: nothing is compiled here, so its marks have no effect."""

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)


def disable(fn=None, recursive=True, *, reason=None):
    """The function itself."""
    return fn if fn is not None else lambda function: function


def is_compiling() -> bool:
    """False."""
    return False
