"""What conftest.py does to imports must not undo a swap."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tt_tito import course, curriculum

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("swap, wanted", [("05=losses.py", "mine"), ("0", "reference")])
def test_a_swapped_chapter_is_tested(tmp_path, swap, wanted):
    text = course.reference(curriculum.chapter("losses")).read_text(encoding="utf-8")
    (tmp_path / "losses.py").write_text(text + "\nWHOSE = 'mine'\n", encoding="utf-8")
    (tmp_path / "test_whose.py").write_text(
        "from tt_tensor import losses\n"
        f"def test_whose(): assert getattr(losses, 'WHOSE', 'reference') == {wanted!r}\n",
        encoding="utf-8",
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider", "test_whose.py"],
        env=environment | {"TT_SWAP": swap, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
    )
    assert process.returncode == 0, process.stdout + process.stderr
