"""The stub files: up to date, and what type checkers make of a program with them."""

import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tinytorch

HERE = Path(__file__).parent
TOOL = HERE.parents[2] / "tools" / "stubs.py"
PROGRAM = HERE / "user_program.py"
SOURCES = [Path(str(importlib.util.find_spec(name).origin)).parents[1] for name in (
    "tinytorch", "tt_tensor", "tt_optim", "tt_autograd", "tt_spatial", "tt_data", "tt_nlp", "tt_opt",
)]
WRONG = {
    "nn.Linearr(2, 3)": "Linearr", "F.cross_entropy(inputs=total, target=total)": "inputs",
    "loss.backwards()": "backwards",
}


@pytest.mark.skipif(not TOOL.exists(), reason="the tools are in the repository")
def test_stubs_are_up_to_date():
    spec = importlib.util.spec_from_file_location("stubs_tool", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    old = [name for name in tool.modules() if tool.file_of(name).read_text(encoding="utf-8") != tool.stub(name)]
    assert old == [], "run: python tools/stubs.py"


def test_a_stub_for_each_table():
    package = Path(tinytorch.__file__).parent
    assert (package / "py.typed").exists() and (package / "nn" / "functional.pyi").exists()


def test_the_program_runs():
    assert runpy.run_path(str(PROGRAM))["total"].tolist() == [3.0, 3.0]


def checked(tmp_path, command, *extra):
    """What a type checker says about the program with a few wrong lines."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM.read_text(encoding="utf-8") + "\n".join(WRONG) + "\n", encoding="utf-8")
    environment = os.environ | {"MYPYPATH": os.pathsep.join(map(str, SOURCES))}
    command = [*command, *extra, str(file)]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    return [line for line in process.stdout.splitlines() if "program.py:" in line and "error" in line]


def test_mypy_finds_the_wrong_lines_only(tmp_path):
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    options = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]
    lines = checked(tmp_path, [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), *options])
    assert len(lines) == 3 and all(word in line for word, line in zip(WRONG.values(), lines)), lines


def test_pyright_finds_the_wrong_lines_only(tmp_path):
    pyright = shutil.which("pyright") or shutil.which("pyright", path=str(Path(sys.executable).parent))
    if pyright is None:
        pytest.skip("pyright is not installed")
    paths = ", ".join(f'"{path.as_posix()}"' for path in SOURCES)
    (tmp_path / "pyrightconfig.json").write_text(f'{{"extraPaths": [{paths}]}}', encoding="utf-8")
    lines = [line for line in checked(tmp_path, [pyright]) if "PossiblyUnbound" not in line]
    found = {word for word in WRONG.values() for line in lines if f'"{word}"' in line}
    assert found == set(WRONG.values()) and {line.split(":")[-3] for line in lines} <= {"34", "35", "36", "37"}, lines
