"""Collects the experiments `check_*` of every chapter as tests, and decides what pytest-benchmark saves."""

import importlib
import os
import sys
from pathlib import Path

import pytest

packages = {path.name for path in Path(__file__).parent.glob("packages/*/src/tt_*")}
pytest.register_assert_rewrite(*packages - {"tt_tito"})  # which has no chapters, and is imported when Python starts
sys.meta_path.sort(key=lambda finder: type(finder).__module__ != "tt_tito.finder")  # stand-ins go before rewriting

collect_ignore_glob = ["packages/*/benchmarks"]  # unless they are named: `hatch run bench:pytest`

if os.environ.get("TT_KERNELS"):  # the chapters on another kernel set: TT_KERNELS=compiled pytest packages
    importlib.import_module("tt_opt")


EXTRAS = {"compiled": ("numba", "tt-opt"), "serve": ("starlette", "tt-capstone")}  # modules that need one


class Chapter(pytest.File):
    """A chapter, imported by its name: never a second time from its path, which would define its classes twice."""

    def collect(self):
        if self.path.stem in EXTRAS:
            library, package = EXTRAS[self.path.stem]
            pytest.importorskip(library, reason=f"it needs {library}: pip install '{package}[{self.path.stem}]'")
        module = importlib.import_module(f"{self.path.parent.name}.{self.path.stem}")
        public = getattr(module, "__all__", ())  # `check_gradients` is a function to use, not an experiment
        for name, experiment in vars(module).items():
            if name.startswith("check_") and name not in public and experiment.__module__ == module.__name__:
                yield Experiment.from_parent(self, name=name, experiment=experiment)


class Experiment(pytest.Item):
    """A `check_*` function: it passes when it returns."""

    def __init__(self, *, experiment, **kwargs):
        super().__init__(**kwargs)
        self.experiment = experiment

    def runtest(self):
        self.experiment()

    def reportinfo(self):
        return self.path, self.experiment.__code__.co_firstlineno - 1, self.name


def pytest_collect_file(file_path, parent):
    is_module = file_path.suffix == ".py" and not file_path.stem.startswith("_")
    if is_module and file_path.match("packages/*/src/tt_*/*.py"):
        return Chapter.from_parent(parent, path=file_path)
    return None


# -- what pytest-benchmark saves: numbers to compare and to show, and nothing that identifies a machine or its user ---

MACHINE = ("processor", "cores", "system", "python", "numpy", "blas", "blas_kernel", "blas_threads")
STATS = ("min", "max", "mean", "stddev", "median", "iqr", "outliers", "ops", "rounds", "iterations")  # what it prints


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_generate_machine_info():
    info = importlib.import_module("tt_tensor").system_info()
    return {key.replace("_", " "): info[key] for key in MACHINE}


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_generate_commit_info():
    return {}


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(output_json):
    output_json["datetime"] = output_json["datetime"].partition("T")[0]
    for row in output_json["benchmarks"]:
        for key in row.keys() - {"group", "name", "fullname", "stats"}:
            del row[key]
        row["stats"] = {key: _rounded(row["stats"][key]) for key in STATS}


def _rounded(value):
    return float(f"{value:.4g}") if isinstance(value, float) else value
