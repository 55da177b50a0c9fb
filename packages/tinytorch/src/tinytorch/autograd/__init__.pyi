# Written by tools/stubs.py.
# mypy: disable-error-code="overload-cannot-match, overload-overlap, misc"
import builtins
from typing import Any, overload

from tt_tensor import Tensor as Tensor

from tinytorch.autograd import (
    functional as functional,
)
from tinytorch.autograd._derivatives import (
    gradcheck as gradcheck,
    gradgradcheck as gradgradcheck,
)
from tinytorch.autograd._modes import (
    Function as Function,
    Variable as Variable,
    inference_mode as inference_mode,
    set_detect_anomaly as set_detect_anomaly,
    set_grad_enabled as set_grad_enabled,
)
from tt_autograd import (
    backward as backward,
    detect_anomaly as detect_anomaly,
    enable_grad as enable_grad,
    no_grad as no_grad,
)

def grad(outputs: Any, inputs: Any, grad_outputs: Any = ..., retain_graph: Any = ..., create_graph: Any = ..., only_inputs: Any = ..., allow_unused: Any = ..., is_grads_batched: Any = ..., materialize_grads: Any = ...) -> Any: ...
