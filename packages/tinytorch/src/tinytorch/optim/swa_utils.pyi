# Written by tools/stubs.py.
# mypy: disable-error-code="overload-cannot-match, overload-overlap, misc"
import builtins
from typing import Any, overload

from tt_tensor import Tensor as Tensor

from tt_optim import (
    AveragedModel as AveragedModel,
    LRScheduler as LRScheduler,
    SWALR as SWALR,
)

def get_ema_avg_fn(decay: Any = ...) -> Any: ...
def get_ema_multi_avg_fn(decay: Any = ...) -> Any: ...
def get_swa_avg_fn() -> Any: ...
def get_swa_multi_avg_fn() -> Any: ...
