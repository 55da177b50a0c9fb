"""torch.backends.cuda: switches that can be set, and have no effect."""

from types import SimpleNamespace as _Switches

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)

matmul = _Switches(allow_tf32=False, allow_fp16_reduced_precision_reduction=False)


def is_built() -> bool:
    """False."""
    return False
