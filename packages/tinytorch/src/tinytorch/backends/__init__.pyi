# Written by tools/stubs.py.
# mypy: disable-error-code="overload-cannot-match, overload-overlap, misc"
import builtins
from typing import Any, overload

from tt_tensor import Tensor as Tensor

from tinytorch.backends import (
    cuda as cuda,
    cudnn as cudnn,
    mkl as mkl,
    mps as mps,
    openmp as openmp,
)

