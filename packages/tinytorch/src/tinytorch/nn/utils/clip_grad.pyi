# Written by tools/stubs.py.
# mypy: disable-error-code="overload-cannot-match, overload-overlap, misc"
import builtins
from typing import Any, overload

from tt_tensor import Tensor as Tensor


def clip_grad_norm_(parameters: Any, max_norm: Any, norm_type: Any = ..., error_if_nonfinite: Any = ..., foreach: Any = ...) -> Tensor: ...
def clip_grad_value_(parameters: Any, clip_value: Any, foreach: Any = ...) -> Any: ...
