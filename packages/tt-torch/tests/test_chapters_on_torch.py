"""The chapters' tests and the examples on PyTorch: what holds there is no peculiarity of ours."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed here; `hatch run parity:run` has it")

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
EXCUSES = tomllib.loads((HERE / "excuses.toml").read_text(encoding="utf-8"))
ORDER = tomllib.loads((ROOT / "packages/tt-tito/src/tt_tito/curriculum.toml").read_text(encoding="utf-8"))["order"]
FILES = {slug: sorted(ROOT.glob(f"packages/*/tests/**/test_{slug}.py")) for slug in ORDER}
CHAPTERS = [slug for slug in ORDER if FILES[slug] and slug != "acceleration"]  # which is about kernels of arrays
ON_TORCH = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("TT_SWAP", "PYTEST_"))},
    "TT_SWAP": "tt-tensor=tt_torch.tensor,tt-optim=tt_torch.optim,tt-autograd=tt_torch.autograd",
    "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent / "src")]),
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], env=ON_TORCH | environment, cwd=ROOT, capture_output=True,
        encoding="utf-8",
    )


def judged(folder, files, excuses):
    """What came out of test files on PyTorch."""
    out = folder / "outcome.json"
    options = ["-q", "--noconftest", "-p", "excusing", "-p", "no:cacheprovider", "-c", ROOT / "pytest.toml"]
    process = run("-m", "pytest", *options, *files, TT_EXCUSES=str(excuses), TT_OUTCOME=str(out))
    assert out.exists(), process.stdout + process.stderr
    return json.loads(out.read_text(encoding="utf-8"))


UNDERNEATH = """
import sys, torch, tt_autograd, tt_optim, tt_tensor
from torch.optim import lr_scheduler

assert issubclass(tt_tensor.Tensor, torch.Tensor) and isinstance(tt_tensor.Linear(1, 1).weight, torch.nn.Parameter)
assert all(primitive.native for primitive in tt_tensor.PRIMITIVES.values())
assert tt_autograd.no_grad is torch.no_grad
for ours, theirs in ((tt_tensor, torch.nn), (tt_optim, torch.optim), (tt_optim, lr_scheduler)):
    names = [name for name in ours.__all__ if isinstance(getattr(theirs, name, None), type) and name != "Parameter"]
    files = {name: sys.modules[getattr(ours, name).__module__].__file__ for name in names}
    names = [name for name in names if "torch" in files[name]]  # the others are the course's own
    print(*names, *(f"not:{name}" for name in names if not issubclass(getattr(ours, name), getattr(theirs, name))))
"""


def test_underneath_is_pytorch():
    process = run("-c", UNDERNEATH)
    assert process.returncode == 0, process.stderr
    assert "not:" not in process.stdout
    assert {"Linear", "Sequential", "ReLU", "CrossEntropyLoss", "AdamW", "OneCycleLR"} <= set(process.stdout.split())


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    files = [file for slug in CHAPTERS for file in FILES[slug]]
    return judged(tmp_path_factory.mktemp("all"), files, HERE / "excuses.toml")


@pytest.mark.parametrize("slug", CHAPTERS)
def test_a_chapters_tests_hold_on_pytorch(slug, outcome):
    failed = {test: said for test, said in outcome["failures"].items() if f"/test_{slug}.py" in test}
    assert not failed, "\n\n".join(failed.values())
    assert outcome["tests"].get(slug, 0) > 0 and outcome["calls"].get(slug, 0) > 0


def test_every_excuse_is_for_a_call_that_is_made(outcome):
    assert {slug: sorted(set(calls)) for slug, calls in outcome["used"].items()} == {
        slug: sorted(calls) for slug, calls in EXCUSES.items()
    }


def test_an_excuse_that_is_not_needed_fails_the_test(tmp_path):
    (tmp_path / "test_anything.py").write_text(
        "from tt_tensor import ones\n"
        "from tt_tensor.teaching import expect\n"
        "def test_shape(): expect('ones(2).sum()', ones(2).sum(), 2, see='')\n",
        encoding="utf-8",
    )
    (tmp_path / "excuses.toml").write_text("[anything]\n'ones(2).sum()' = 'no sums'", encoding="utf-8")
    found = judged(tmp_path, [tmp_path / "test_anything.py"], tmp_path / "excuses.toml")
    assert found["tests"] == {"anything": 1}
    assert "ones(2).sum() needs no excuse, it holds on PyTorch: no sums" in str(found["failures"])


@pytest.mark.parametrize(
    "example",
    [["perceptron_1957/rosenblatt_perceptron.py"], ["xor_1969/minsky_xor_problem.py", "--train"]],
    ids=lambda example: Path(example[0]).stem,
)
def test_an_example_reaches_its_goal_on_pytorch(example):
    program, *options = example
    process = run(ROOT / "examples" / program, *options)
    assert process.returncode == 0, process.stdout + process.stderr
