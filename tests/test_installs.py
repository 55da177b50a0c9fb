"""Every package alone: installed by name from this clone, its tests pass and the next package is missing."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = [line.split()[0] for line in (ROOT / "packages.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
OTHERS = ("tt-tito", "tt-torch", "tinytorch")
COURSE = [name for name in OURS if name not in OTHERS]  # packages.txt lists them in the course's order

TYPE_IN = """
import pathlib, sys
from tt_tito import exercises
file, solution = map(pathlib.Path, sys.argv[1:])
skeleton = file.read_text(encoding="utf-8")
names = [exercise.name for exercise in exercises.exercises(skeleton)]
file.write_text(exercises.graft(skeleton, solution.read_text(encoding="utf-8"), names), encoding="utf-8")
"""

SOLUTION = ROOT / "packages/tt-tensor/tests/solutions/activations/one.py"

pytestmark = pytest.mark.install


class Environment:
    """A fresh virtual environment, and uv to install into it."""

    def __init__(self, folder):
        self.python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        run("-m", "uv", "venv", "--quiet", "--seed", "--python", sys.executable, folder)

    def install(self, *requirements):
        run("-m", "uv", "pip", "install", "--quiet", "--python", self.python, *requirements)

    def finds(self, package):
        """Whether `import` finds a module for the package."""
        code = f"import importlib.util; print(importlib.util.find_spec({package.replace('-', '_')!r}) is not None)"
        return run("-c", code, python=self.python).stdout.strip() == "True"


def run(*arguments, python=sys.executable, folder=ROOT, status=0):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environ["OPENBLAS_NUM_THREADS"] = "1"  # two on a busy machine make a small product a hundred times slower
    process = subprocess.run([python, *arguments], cwd=folder, env=environ, capture_output=True, encoding="utf-8")
    assert process.returncode == status, process.stdout + process.stderr
    return process


@pytest.fixture(scope="module", autouse=True)
def built(tmp_path_factory):
    """The folder of all wheels; uv holds what it builds from the clone, which is that of now, whatever it held."""
    run("tools/wheels.py")
    fresh = [f"--refresh-package={name}" for name in OURS]
    into = tmp_path_factory.mktemp("built")
    run("-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", into, *fresh, "-c", "packages.txt", *OURS)
    return ROOT / "build" / "dist"


@pytest.mark.parametrize("name", COURSE)
def test_a_package_works_alone(name, tmp_path):
    environment = Environment(tmp_path / "env")
    environment.install(name, "-c", "packages.txt", "numpy==2.0.2", "pytest>=9,<10", "hypothesis>=6.150")  # the oldest
    folders = f"packages/{name}/src", f"packages/{name}/tests"
    tests = run("-m", "pytest", "-q", "-m", "not slow", *folders, python=environment.python)
    print(tests.stdout.splitlines()[-1])
    place = COURSE.index(name)
    assert [other for other in COURSE if environment.finds(other)] == COURSE[: place + 1]


def test_the_course_tool_works_alone(tmp_path):
    environment = Environment(tmp_path / "env")
    environment.install("tt-tito", "-c", "packages.txt")
    assert [other for other in COURSE if environment.finds(other)] == ["tt-tensor"]
    assert "autograd" in run("-m", "tt_tito", "module", "list", python=environment.python).stdout
    assert "No serious problem found" in run("-m", "tt_tito", "doctor", python=environment.python).stdout


def test_pip_installs_as_the_readme_says(tmp_path):
    environment = Environment(tmp_path / "env")
    run("-m", "pip", "install", "--quiet", "tt-optim", "-c", "packages.txt", python=environment.python)
    run("-c", "import tt_optim", python=environment.python)
    assert environment.finds("tt-tensor") and not environment.finds("tt-autograd")


def test_torchs_names_work_alone(tmp_path):
    environment = Environment(tmp_path / "env")
    environment.install("tinytorch", "-c", "packages.txt", "numpy==2.0.2", "pytest>=9,<10")
    run("-m", "pytest", "-q", "packages/tinytorch/tests", python=environment.python)
    run("-m", "tinytorch", "-c", "import torch; assert torch.ones(2).sum() == 2", python=environment.python)
    assert [other for other in OURS if environment.finds(other)] == [*COURSE[:-1], "tinytorch"]


def test_wheels_carry_their_data_and_install_without_the_clone(tmp_path, built):
    for source in ROOT.glob("packages/*/src"):
        files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
        (wheel,) = built.glob(f"{source.parent.name.replace('-', '_')}-*.whl")
        carried = set(zipfile.ZipFile(wheel).namelist())
        assert {file for file in files if "__pycache__" not in file} <= carried

    environment = Environment(tmp_path / "env")
    environment.install("--find-links", built, COURSE[-1])
    code = f"import {COURSE[-1].replace('-', '_')} as package; print(package.__file__)"
    assert str(tmp_path) in run("-c", code, python=environment.python).stdout


def test_a_learner_needs_no_clone(tmp_path, built):
    """From wheels alone: a chapter is started, fails, is written, passes, and is what Python imports from then on."""
    environment = Environment(tmp_path / "env")
    environment.install("--find-links", built, "tt-tito", "tt-autograd")
    space = tmp_path / "space"
    space.mkdir()

    def tito(*arguments, status=0):
        return run("-m", "tt_tito", *arguments, python=environment.python, folder=space, status=status).stdout

    tito("setup")
    tito("module", "start", "03")
    assert "exercises written" in tito("module", "test", "03", status=1)
    run("-c", TYPE_IN, "work/activations.py", SOLUTION, python=environment.python, folder=space)
    assert "Capability 2 is unlocked" in tito("module", "complete", "03")
    code = "import tt_tensor; print(tt_tensor.relu.kernel.__code__.co_filename)"
    assert run("-c", code, python=environment.python, folder=space).stdout.strip() == str(space / "work/activations.py")
    for chapter in ("01", "02", "04"):
        tito("use", chapter, "reference")
    assert "Milestone 1 is earned" in tito("examples", "run", "perceptron_1957")


def test_a_learner_takes_their_package_along(tmp_path, built):
    """What `tito export` makes has the files of the course's wheel, installs by pip, and later packages run on it."""
    environment = Environment(tmp_path / "env")
    environment.install("--find-links", built, "tt-tito", "tt-tensor")
    space = tmp_path / "ein Ordner"
    for arguments in (["setup", space], ["module", "start", "03"], ["use", "03", "mine"], ["export", "tt-tensor"]):
        if arguments[0] == "use":
            run("-c", TYPE_IN, "work/activations.py", SOLUTION, python=environment.python, folder=space)
        folder = space if space.exists() else tmp_path
        run("-m", "tt_tito", *arguments, python=environment.python, folder=folder)
    (wheel,) = (space / "export").iterdir()
    assert wheel.name == "tt_tensor-0.1.0+mine-py3-none-any.whl"
    theirs = zipfile.ZipFile(built / "tt_tensor-0.1.0-py3-none-any.whl").namelist()
    assert set(zipfile.ZipFile(wheel).namelist()) == {n.replace("0.1.0.dist", "0.1.0+mine.dist") for n in theirs}

    fresh = Environment(tmp_path / "fresh")
    run("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel, python=fresh.python)
    optimizers = built / "tt_optim-0.1.0-py3-none-any.whl"  # which wants tt-tensor==0.1.0, and must take this one
    run("-m", "pip", "install", "--quiet", optimizers, python=fresh.python)
    run("-m", "pip", "check", python=fresh.python)
    code = "import tt_optim, tt_tensor as tt; print(tt.activations.__file__, tt.relu(tt.ones(1)))"
    assert str(tmp_path / "fresh") in run("-c", code, python=fresh.python, folder=tmp_path).stdout
    code = "import inspect, tt_tensor; print(inspect.getsource(tt_tensor.activations))"
    written = (space / "work/activations.py").read_text(encoding="utf-8")
    assert run("-X", "utf8", "-c", code, python=fresh.python, folder=tmp_path).stdout.strip() == written.strip()
    run("-m", "pip", "uninstall", "--quiet", "--yes", "tt-tensor", python=fresh.python)  # by its record
    assert not list((tmp_path / "fresh").rglob("tt_tensor*"))
