"""torch.linalg: norms and what else we have of linear algebra."""

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)
