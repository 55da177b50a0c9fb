"""Chapters 07 and 08: automatic differentiation and training."""

from tt_autograd import more_rules as more_rules
from tt_autograd.autograd import (
    NO_GRADIENT, RULES, Traced, Walk, backward, check_gradients, enable_grad, grad, hessian_vector_product,
    is_grad_enabled, jacobian, kept, no_grad, record, rule, unbroadcast,
)
from tt_autograd.callbacks import *
from tt_autograd.callbacks import __all__ as _callbacks
from tt_autograd.checkpoints import *
from tt_autograd.checkpoints import __all__ as _checkpoints
from tt_autograd.histories import History, accuracy
from tt_autograd.more_autograd import Anomaly, detect_anomaly, graph
from tt_autograd.training import Averages, Batches, Callback, Run, confusion, evaluate, evaluating, fit
from tt_optim.interface import run_closures_in

run_closures_in(enable_grad)  # optimizer.step(closure) records, even where the caller of `step` does not

# The contract: what other packages may use.
__all__ = [
    "Anomaly", "NO_GRADIENT", "RULES", "Traced", "Walk", "backward", "check_gradients", "detect_anomaly", "enable_grad",
    "grad", "graph", "hessian_vector_product", "is_grad_enabled", "jacobian", "kept", "no_grad", "record", "rule",
    "unbroadcast", *_callbacks, *_checkpoints, "Averages", "Batches", "Callback", "History", "Run", "accuracy",
    "confusion", "evaluate", "evaluating", "fit",
]
