# Written by tools/stubs.py.
# mypy: disable-error-code="overload-cannot-match, overload-overlap, misc"
import builtins
from typing import Any, overload

from tt_tensor import Tensor as Tensor

from tinytorch._settings import (
    fork_rng as fork_rng,
    initial_seed as initial_seed,
    seed as seed,
)
from tt_tensor import (
    manual_seed as manual_seed,
)

default_generator: Any
def get_rng_state() -> Tensor: ...
def set_rng_state(new_state: Any) -> Any: ...
