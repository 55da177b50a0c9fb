# Written by tools/stubs.py.
# mypy: disable-error-code="overload-cannot-match, overload-overlap, misc"
import builtins
from typing import Any, overload

from tt_tensor import Tensor as Tensor

from tinytorch._no_devices import (
    device_count as device_count,
    empty_cache as empty_cache,
    synchronize as synchronize,
)
from tinytorch._settings import (
    manual_seed as manual_seed,
)

