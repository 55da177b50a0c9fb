# Written by tools/stubs.py.
# mypy: disable-error-code="overload-cannot-match, overload-overlap, misc"
import builtins
from typing import Any, overload

from tt_tensor import Tensor as Tensor

from tt_optim import (
    ChainedScheduler as ChainedScheduler,
    ConstantLR as ConstantLR,
    CosineAnnealingLR as CosineAnnealingLR,
    CosineAnnealingWarmRestarts as CosineAnnealingWarmRestarts,
    CyclicLR as CyclicLR,
    ExponentialLR as ExponentialLR,
    LRScheduler as LRScheduler,
    LambdaLR as LambdaLR,
    LinearLR as LinearLR,
    MultiStepLR as MultiStepLR,
    MultiplicativeLR as MultiplicativeLR,
    OneCycleLR as OneCycleLR,
    PolynomialLR as PolynomialLR,
    ReduceLROnPlateau as ReduceLROnPlateau,
    SequentialLR as SequentialLR,
    StepLR as StepLR,
)

