"""torch.utils.data.distributed: the share of the samples that one of several processes takes."""

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)
