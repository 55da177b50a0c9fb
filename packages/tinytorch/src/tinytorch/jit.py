"""torch.jit: what it names, refused when it is called."""

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)


def ignore(drop=False, **kwargs):
    """A mark without effect: the function itself, or, with arguments, what decorates it."""
    return drop if callable(drop) else lambda function: function


def unused(fn):
    """A mark without effect: the function itself."""
    return fn


def export(fn):
    """A mark without effect: the function itself."""
    return fn


def is_scripting() -> bool:
    """False."""
    return False


def is_tracing() -> bool:
    """False."""
    return False
