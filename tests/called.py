"""A pytest plugin: which functions of the file TT_CALLED_IN the tests have called, as JSON in the file TT_CALLED.

pytest -p called packages/tt-tensor/tests/test_layers.py
"""

import json
import os
import sys
import threading
from pathlib import Path

import pytest

FILE, called = os.environ["TT_CALLED_IN"], set()


def note(frame, event, argument):
    if event == "call" and frame.f_code.co_filename == FILE:
        called.add(frame.f_code.co_qualname)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    sys.setprofile(note)
    threading.setprofile(note)
    try:
        return (yield)
    finally:
        threading.setprofile(None)
        sys.setprofile(None)


def pytest_sessionfinish():
    Path(os.environ["TT_CALLED"]).write_text(json.dumps(sorted(called)), encoding="utf-8")
