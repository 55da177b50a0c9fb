"""torch.utils.checkpoint: functions that torch computes twice to save memory are computed once here."""

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)


def checkpoint(function, *args, use_reentrant=None, context_fn=None, determinism_check="default", debug=False,
               early_stop=True, **kwargs):
    """function(*args, **kwargs): the same result and gradients; nothing is computed twice, and no memory is saved."""
    return function(*args, **kwargs)


def checkpoint_sequential(functions, segments, input, use_reentrant=None, **kwargs):
    """The functions one after the other."""
    for function in functions:
        input = function(input)
    return input
