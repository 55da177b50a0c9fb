"""The worked example of route 3 keeps its budget, and ends in a model card."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tt_capstone import cards, projects
from tt_tensor import from_numpy, manual_seed

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "digits_2026"
TEMPLATE = ROOT / "packages" / "tt-capstone" / "src" / "tt_capstone" / "template"


@pytest.fixture
def project(monkeypatch):
    """The example's module."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import project

    yield project
    del sys.modules["project"]


def test_the_example_is_made_from_the_template():
    assert {file.name for file in TEMPLATE.iterdir()} - {"__pycache__"} == {
        file.name for file in EXAMPLE.iterdir() if file.name not in ("__pycache__", "results.json", "model.safetensors")
    }
    ours, theirs = projects.read_budget(EXAMPLE), projects.read_budget(TEMPLATE)
    assert ours.accuracy == theirs.accuracy and ours.seeds == theirs.seeds


def test_a_batch_is_moved_by_up_to_a_pixel(project):
    x = from_numpy(np.arange(2 * 64, dtype=np.float32).reshape(2, 1, 8, 8) + 1)
    manual_seed(0)
    places = set()
    for _ in range(60):
        ((moved, y),) = project.Moved([(x, x)])
        assert y is x and moved.shape == x.shape
        (place,) = ((top, left) for top in (-1, 0, 1) for left in (-1, 0, 1) if same(x, moved, top, left))
        places.add(place)
    assert len(places) == 9


def same(x, moved, top, left):
    """Whether what is left of the pictures x in `moved` lies `top` pixels higher and `left` further to the left."""
    framed = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    return np.array_equal(moved.numpy(), framed[:, :, 1 + top : 9 + top, 1 + left : 9 + left])


def test_the_readme_names_the_size_of_the_network(project):
    count = cards.number_of_parameters(project.network())
    assert f"The weights are {count:,} numbers" in (EXAMPLE / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_keeps_its_budget_and_gets_its_card(tmp_path):
    folder = tmp_path / "digits"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    verdict = projects.check_project(folder)
    assert verdict.kept, verdict
    card = cards.project_card(folder)
    cards.write_card(card, folder)
    right = {number.what: number.how for number in card.measured if number.what.startswith("accuracy")}
    assert list(right) == ["accuracy, seed 0", "accuracy, seed 1", "accuracy, seed 2"], right
    assert "## What it is not for\n\nCheques" in (folder / "CARD.md").read_text(encoding="utf-8")
