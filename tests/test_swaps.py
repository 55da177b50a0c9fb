"""Whatever is in use, the results are the same: each chapter swapped alone, all of them, none."""

import functools
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tt_tito import course, curriculum, exercises

ROOT = Path(__file__).parents[1]
WRITTEN = course.written()
SETS = ("one", "two", "three")
TABLES = {
    "all reference": {},
    **{f"{c.slug} mine": {c.slug: "one"} for c in WRITTEN},
    **{f"all {s}": {c.slug: s for c in WRITTEN} for s in SETS},
}
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("TT_SWAP", "PYTEST_"))}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def typed_in(tmp_path_factory):
    """The files of a learner who has typed in a solution, by chapter and set."""
    folder = tmp_path_factory.mktemp("solutions")

    @functools.cache
    def file(slug, which):
        chapter = curriculum.chapter(slug)
        text = course.reference(chapter).read_text(encoding="utf-8")
        solution = course.solution(chapter, which).read_text(encoding="utf-8")
        names = [e.name for e in exercises.exercises(text)]
        made = folder / which / f"{slug}.py"
        made.parent.mkdir(exist_ok=True)
        made.write_text(exercises.graft(exercises.skeleton(text, str(chapter)), solution, names), encoding="utf-8")
        return made

    return file


@pytest.fixture(scope="module")
def outcomes(typed_in, tmp_path_factory, request):
    """What the integration tests of what is swapped and of the last chapter have seen, for each selected table."""
    folder = tmp_path_factory.mktemp("records")

    def record(name, table):
        files = [course.integration_tests(c) for c in WRITTEN if not table or c.slug in table or c is WRITTEN[-1]]
        swap = ",".join(f"{slug}={files_of[slug, which]}" for slug, which in table.items()) or "0"
        out = folder / f"{name}.json"
        options = ["-q", "--noconftest", "-p", "no:cacheprovider", "-p", "recording", "-c", ROOT / "pytest.toml"]
        settings = {"TT_SWAP": swap, "TT_RECORD": str(out), "PYTHONPATH": str(ROOT / "tests")}
        process = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *files],
            env=ENVIRONMENT | settings | {"OPENBLAS_NUM_THREADS": "1"},
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
        )
        assert process.returncode == 0, f"{name}: {process.stdout[-6000:]}{process.stderr[-2000:]}"
        return json.loads(out.read_text(encoding="utf-8"))

    files_of = {(c.slug, which): typed_in(c.slug, which) for c in WRITTEN for which in SETS}  # in one thread
    selected = {"all reference"} | {item.callspec.params["name"] for item in request.session.items if is_table(item)}
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(record, name, table) for name, table in TABLES.items() if name in selected}


def is_table(item):
    return item.name.startswith("test_results_are_the_same[")


def differences(a, b, tolerance=1e-4, where=""):
    """Where two recorded values differ: types, shapes and dtypes exactly, numbers to a relative tolerance."""
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b)) for d in differences(x, y, tolerance, f"{where}[{i}]")]
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for key in a for d in differences(a[key], b[key], tolerance, f"{where}[{key!r}]")]
    if isinstance(a, float) and isinstance(b, float):
        same = math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance / 100) or (math.isnan(a) and math.isnan(b))
        return [] if same else [f"{where}: {a} and {b}"]
    return [] if a == b and type(a) is type(b) else [f"{where}: {a!r} and {b!r}"]


def differences_of_checks(a, b):
    """Where the checks of a test differ, each to the tolerance that it has in the test, and at least 1e-4."""
    if [check[:2] for check in a] != [check[:2] for check in b]:
        return ["the checks are others"]
    return [d for (call, tolerance, x), (_, _, y) in zip(a, b) for d in differences(x, y, max(tolerance, 1e-4), call)]


@pytest.mark.parametrize("name", [name for name in TABLES if TABLES[name]])
def test_results_are_the_same(name, outcomes):
    reference, found = outcomes["all reference"].result(), outcomes[name].result()
    assert found and found.keys() <= reference.keys()
    assert {test: d for test in found if (d := differences_of_checks(reference[test], found[test]))} == {}


def test_what_counts_as_a_difference():
    assert differences(["array", [2], "float32", [1.0, 2.0]], ["array", [2], "float32", [1.00001, 2.0]]) == []
    assert differences(["array", [2], "float32", [1.0]], ["array", [2], "float64", [1.0]]) != []
    assert differences(["float", 1.0], ["float", 1.01]) != []
    assert differences(["raised", "ValueError"], ["raised", "TypeError"]) != []
    assert differences([1, 2], [1, 2, 3]) != [] and differences(1, True) != []
    assert differences_of_checks([["call", 0.1, 1.0]], [["call", 0.1, 1.05]]) == []
    assert differences_of_checks([["call", 0.1, 1.0]], [["another", 0.1, 1.0]]) != []
