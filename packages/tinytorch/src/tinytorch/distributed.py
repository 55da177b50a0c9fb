"""torch.distributed: there is one process; tt_opt.DataParallel trains on several of them over MPI."""

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)


def is_available() -> bool:
    """False."""
    return False


def is_initialized() -> bool:
    """False."""
    return False
