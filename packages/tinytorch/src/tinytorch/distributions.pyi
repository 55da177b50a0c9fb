# Written by tools/stubs.py.
# mypy: disable-error-code="overload-cannot-match, overload-overlap, misc"
import builtins
from typing import Any, overload

from tt_tensor import Tensor as Tensor

from tt_tensor.distributions import (
    Bernoulli as Bernoulli,
    Categorical as Categorical,
    Distribution as Distribution,
    Exponential as Exponential,
    Normal as Normal,
    Uniform as Uniform,
)

def kl_divergence(p: Any, q: Any) -> Tensor: ...
