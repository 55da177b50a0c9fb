"""torchvision: `datasets`, `transforms`, `utils`, and `models` in name only."""

from tinytorch._vision import offer as _offer
from tinytorch.vision import datasets, models, transforms, utils

__getattr__, __dir__ = _offer(__name__)
