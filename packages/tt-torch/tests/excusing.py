"""A pytest plugin for the chapters' tests on PyTorch: excuses calls of `expect`, and writes down what came out.

    TT_EXCUSES=excuses.toml TT_OUTCOME=outcome.json pytest -p excusing packages/tt-tensor/tests/test_tensor.py

An excused call has to fail: where it does not, the test does. The outcome is a JSON object of failures (test ->
message), the number of tests and of calls in each chapter, and the excuses that were used."""

import json
import os
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import torch

from tt_tensor import Tensor, teaching

EXCUSES = tomllib.loads(Path(os.environ["TT_EXCUSES"]).read_text(encoding="utf-8"))
WARNINGS = [  # of PyTorch, of what the chapters' tests do on purpose
    "Detected call of `lr_scheduler.step",
]

complaint = teaching.complaint
failures, tests, calls, used, running = {}, Counter(), Counter(), {}, []


def excusing(call, outcome, wanted, *causes, **options):
    """The complaint about a call; where it is excused, a complaint that there is none."""
    chapter, said = running[-1], complaint(call, outcome, wanted, *causes, **options)
    calls[chapter] += 1
    reason = EXCUSES.get(chapter, {}).get(call)
    if reason is None:
        return said
    used.setdefault(chapter, []).append(call)
    return None if said else f"{call} needs no excuse, it holds on PyTorch: {reason}"


def pytest_configure(config):
    if not issubclass(Tensor, torch.Tensor):
        raise pytest.UsageError("tt_tensor is not torch-backed: set TT_SWAP")
    for warning in WARNINGS:
        config.addinivalue_line("filterwarnings", f"ignore:{warning}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    running.append(item.path.stem.removeprefix("test_"))
    teaching.complaint = excusing


def pytest_runtest_logreport(report):
    tests[running[-1]] += report.when == "call"
    if report.failed:
        failures[report.nodeid] = f"{report.nodeid}: {report.longrepr.reprcrash.message}"


def pytest_collectreport(report):
    if report.failed:
        failures[report.nodeid] = report.longreprtext


def pytest_sessionfinish():
    outcome = {"failures": failures, "tests": tests, "calls": calls, "used": used}
    Path(os.environ["TT_OUTCOME"]).write_text(json.dumps(outcome), encoding="utf-8")
