"""A pytest plugin: what came out of every `expect`, as JSON in the file that TT_RECORD names.

pytest -p recording packages/tt-tensor/tests/integration
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tt_tensor import teaching

records, running = {}, []
complaint = teaching.complaint


def as_data(value):
    """A value with its type: (kind, shape, dtype, numbers), or what it raised, or how it prints."""
    if isinstance(value, teaching.Raised):
        return ["raised", value.kinds[0]]
    if isinstance(value, np.ndarray | np.generic):
        return ["array", list(value.shape), str(value.dtype), np.asarray(value).astype(object).ravel().tolist()]
    if isinstance(value, tuple | list):
        return [type(value).__name__, *map(as_data, value)]
    if isinstance(value, dict):
        return ["dict", {str(key): as_data(item) for key, item in value.items()}]
    return [type(value).__name__, value if isinstance(value, int | float | str | bool | None) else repr(value)]


def recorded(call, outcome, wanted, *causes, **options):
    free = callable(wanted) and not isinstance(wanted, type)  # a range or a condition leaves room for other numbers
    said = complaint(call, outcome, wanted, *causes, **options)
    data = None if free and said is None else as_data(outcome)
    records[running[-1]].append([call, options.get("tolerance", 1e-4), data])
    return said


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    running.append(item.nodeid.replace(os.sep, "/"))
    records[running[-1]] = []
    teaching.complaint = recorded


def pytest_sessionfinish():
    Path(os.environ["TT_RECORD"]).write_text(json.dumps(records), encoding="utf-8")
