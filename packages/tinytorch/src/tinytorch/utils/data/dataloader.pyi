# Written by tools/stubs.py.
# mypy: disable-error-code="overload-cannot-match, overload-overlap, misc"
import builtins
from typing import Any, overload

from tt_tensor import Tensor as Tensor

from tt_data import (
    BatchSampler as BatchSampler,
    DataLoader as DataLoader,
    Dataset as Dataset,
    IterableDataset as IterableDataset,
    RandomSampler as RandomSampler,
    Sampler as Sampler,
    SequentialSampler as SequentialSampler,
)

def default_collate(batch: Any) -> Any: ...
def default_convert(data: Any) -> Any: ...
def get_worker_info() -> Any: ...
