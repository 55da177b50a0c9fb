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

expect = teaching.expect
failures, tests, calls, used, running = {}, Counter(), Counter(), {}, []


def excusing(call, *arguments, **options):
    """`expect`; of an excused call it expects the opposite."""
    __tracebackhide__ = True
    chapter = running[-1]
    calls[chapter] += 1
    reason = EXCUSES.get(chapter, {}).get(call)
    if reason is None:
        return expect(call, *arguments, **options)
    used.setdefault(chapter, []).append(call)
    try:
        expect(call, *arguments, **options)
    except AssertionError:
        return
    raise AssertionError(f"{call} needs no excuse, it holds on PyTorch: {reason}")


teaching.expect = excusing  # before the first test is imported


def pytest_configure(config):
    if not issubclass(Tensor, torch.Tensor):
        raise pytest.UsageError("tt_tensor is not torch-backed: set TT_SWAP")
    for warning in WARNINGS:
        config.addinivalue_line("filterwarnings", f"ignore:{warning}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    running.append(item.path.stem.removeprefix("test_"))


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
