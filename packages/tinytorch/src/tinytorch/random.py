"""torch.random: the seed and the state of random numbers."""

from tinytorch._names import offer as _offer
from tinytorch._settings import default_generator, fork_rng, initial_seed, manual_seed, seed

__getattr__, __dir__ = _offer(__name__)
