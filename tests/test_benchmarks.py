"""The benchmarks next to the code still run, and what is committed of their times is comparable and impersonal."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tt_tito import curriculum

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "site" / "benchmarks" / "pytest" / "packages.json"
FOLDERS = [f"packages/{p.name}/benchmarks" for p in curriculum.packages() if (ROOT / "packages" / p.name).exists()]
ONE = "packages/tt-tensor/benchmarks/test_speed.py::test_add_4_numbers"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}

pytest.importorskip("pytest_benchmark", reason="the benchmarks are run in the test environment, with pytest-benchmark")


def run(*arguments):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, encoding="utf-8")


@pytest.fixture(scope="module")
def once():
    """All benchmarks, each run once: what pytest printed, and the outcome of each by its name."""
    process = run("--benchmark-disable", "-v", *(folder for folder in FOLDERS if (ROOT / folder).exists()))
    printed = process.stdout + process.stderr
    return printed, dict(re.findall(r"^(\S+::\S+) ([A-Z]+)", printed, re.MULTILINE))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_package_has_benchmarks_and_they_run(folder, once):
    printed, outcomes = once
    own = {name: outcome for name, outcome in outcomes.items() if name.startswith(f"{folder}/")}
    assert len(own) >= 4, f"{folder} has only {len(own)} benchmarks:\n{printed}"
    assert set(own.values()) <= {"PASSED", "SKIPPED"}, printed


def test_the_committed_times_are_those_of_the_benchmarks_that_there_are(once):
    saved = [row["fullname"] for row in json.loads(COMMITTED.read_text(encoding="utf-8"))["benchmarks"]]
    assert sorted(saved) == sorted(once[1]), "measure again, on a quiet machine: hatch run bench:record"


def test_tests_of_a_package_leave_its_benchmarks_out():
    others = [f"--ignore=packages/tt-optim/{folder}" for folder in ("src", "tests")]
    assert run("--collect-only", "packages/tt-optim", *others).returncode == pytest.ExitCode.NO_TESTS_COLLECTED


# -- what is saved ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The times of one benchmark, as they are saved."""
    file = tmp_path_factory.mktemp("times") / "before.json"
    process = run(ONE, "--benchmark-max-time=0.01", f"--benchmark-json={file}")
    assert process.returncode == 0, process.stdout + process.stderr
    return file


@pytest.mark.parametrize("which", ["saved", "committed"])
def test_saved_times_name_no_machine_and_no_user(which, saved):
    found = json.loads({"saved": saved, "committed": COMMITTED}[which].read_text(encoding="utf-8"))
    assert set(found) == {"benchmarks", "commit_info", "datetime", "machine_info", "version"}
    assert set(found["machine_info"]) == MACHINE and found["commit_info"] == {}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["datetime"])
    assert found["benchmarks"]
    for row in found["benchmarks"]:
        assert set(row) == {"group", "name", "fullname", "stats"} and set(row["stats"]) == STATS


MACHINE = {"processor", "cores", "system", "python", "numpy", "blas", "blas kernel", "blas threads"}
STATS = {"min", "max", "mean", "stddev", "median", "iqr", "outliers", "ops", "rounds", "iterations"}


@pytest.mark.parametrize("factor, status", [(1000, 0), (0.001, 1)])
def test_saved_times_of_another_machine_can_be_compared_with(factor, status, saved, tmp_path):
    found, file = json.loads(saved.read_text(encoding="utf-8")), tmp_path / "before.json"
    found["machine_info"]["processor"] = "another one"
    found["benchmarks"][0]["stats"]["median"] *= factor
    file.write_text(json.dumps(found), encoding="utf-8")
    options = [f"--benchmark-compare={file}", "--benchmark-compare-fail=median:50%", "--benchmark-max-time=0.01"]
    process = run(ONE, *options, "--benchmark-name=short")
    assert process.returncode == status, process.stdout + process.stderr
    assert "add_4_numbers (befo)" in process.stdout and "add_4_numbers (NOW)" in process.stdout
    assert "machine_info is different" in process.stderr
    assert ("Performance has regressed" in process.stderr) == bool(status)
