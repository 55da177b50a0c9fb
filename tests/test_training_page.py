"""The page of trainings shows what the committed results say."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

HOOKS = Path(__file__).parents[1] / "site" / "hooks"


@pytest.fixture
def page(monkeypatch):
    """The hook that fills the page, which imports those beside it by their plain names."""
    monkeypatch.syspath_prepend(str(HOOKS))
    known = set(sys.modules)
    spec = importlib.util.spec_from_file_location("training_page", HOOKS / "training_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in set(sys.modules) - known:
        if (HOOKS / f"{name}.py").exists():
            monkeypatch.delitem(sys.modules, name)
    return module


def test_compressed_networks_have_a_table_each_and_one_of_claims(page, tmp_path):
    line = {"name": "as trained", "file": 40_400, "memory": 40_000, "multiply_adds": 200, "seconds": 0.0125,
            "spread": 0.04, "answers": 0.98765}  # fmt: skip
    half = line | {"name": "half", "multiply_adds": 50, "answers": 0.9}
    networks = {"LeNet": {"unit": "right", "lines": [line, half]}, "GPT": {"unit": "nats", "lines": [line]}}
    claim = {"claim": "smaller", "measured": "50%", "threshold": "<= 40%", "reached": False}
    (tmp_path / "seed-0.json").write_text(json.dumps({"networks": networks, "results": [claim]}), encoding="utf-8")
    lenet, gpt, claims = page.training(tmp_path).split("\n\n")
    assert lenet.splitlines()[2:] == [
        "| as trained | 40 | 40 | 100% | 12.50 | 4% | 98.77% |", "| half | 40 | 40 | 25% | 12.50 | 4% | 90.00% |",
    ]  # fmt: skip
    assert gpt.splitlines()[0].startswith("| GPT |") and gpt.endswith("| 0.988 |")
    assert claims.splitlines()[2:] == ["| smaller | 50% | <= 40% | no |"]


def test_runs_against_the_clock_have_their_claims_and_their_seconds(page, tmp_path):
    for seed, forward in ((0, 30.0), (1, 40.5)):
        claim = {"claim": "minutes, all of it", "measured": f"{forward / 60:.2f}", "seconds": forward}
        run = {"results": [claim], "seconds": {"forward": forward, "the rest": 2.25}}
        (tmp_path / f"seed-{seed}.json").write_text(json.dumps(run), encoding="utf-8")
    claims, seconds = page.training(tmp_path).split("\n\n")
    assert claims.splitlines()[2:] == ["| seed-0 | 0.50 |", "| seed-1 | 0.68 |"]
    assert seconds.splitlines()[2:] == [
        "| forward | 30.0 | 40.5 |", "| the rest | 2.2 | 2.2 |", "| in all | 32.2 | 42.8 |",
    ]  # fmt: skip


def test_a_folder_without_results_is_an_error(page, tmp_path):
    with pytest.raises(Exception, match="there is no log in"):
        page.training(tmp_path)
