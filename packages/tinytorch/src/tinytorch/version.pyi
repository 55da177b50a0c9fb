# Written by tools/stubs.py.
# mypy: disable-error-code="overload-cannot-match, overload-overlap, misc"
import builtins
from typing import Any, overload

from tt_tensor import Tensor as Tensor


__version__: builtins.str
cuda: Any
debug: Any
git_version: builtins.str
hip: Any
xpu: Any
