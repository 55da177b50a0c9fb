"""Found by the worker processes of `python -m tinytorch`, which begin with its sys.path: what `torch` means there."""

from tinytorch._as_torch import take_the_place_of

take_the_place_of(__name__)
