"""The example that proves milestone 6: its tasks do the same in both ways, and it says no where nothing is faster."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from mlperf_2018 import faster  # noqa: E402


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    monkeypatch.setattr(faster, "SPAN", 0.1)


@pytest.mark.parametrize("number", range(3))
def test_generating_in_both_ways_gives_the_same_text(number):
    task = faster.generation("fast", 12, 8, 4)[number]
    assert np.array_equal(task.slow(), task.fast()), task.what


@pytest.mark.parametrize("number", range(6))
def test_training_in_both_ways_gives_the_same_gradient(number):
    task = faster.training("fast")[number]
    assert np.allclose(task.slow(), task.fast(), rtol=1e-2, atol=1e-3), task.what


def sleeping(seconds):
    return lambda: (time.sleep(seconds), np.zeros(1))[1]


def test_what_is_faster_is_seen_and_what_is_not_is_missed():
    assert faster.measured(faster.Task("shorter", sleeping(0.01), sleeping(0.001), 2.0), 6).passed
    assert not faster.measured(faster.Task("longer", sleeping(0.001), sleeping(0.01), 1.0), 6).passed


def test_different_answers_are_no_speedup():
    wrong = faster.Task("wrong", lambda: np.zeros(3), lambda: np.ones(3), 1.0)
    with pytest.raises(RuntimeError, match="wrong: the two ways do not give the same answer"):
        faster.measured(wrong, 6)


def test_a_miss_is_told_by_the_exit_status(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(faster, "generation", lambda *_: [faster.Task("a", sleeping(0.01), sleeping(0.001), 2.0)])
    monkeypatch.setattr(faster, "training", lambda *_: [])
    file = tmp_path / "table.json"
    for needed, arguments, status in ((1.0e-3, [], 0), (5.0, [], 1), (1.0e-3, ["--tokens", "50"], 1)):
        task = faster.Task("b", sleeping(0.001), sleeping(0.001), needed)
        monkeypatch.setattr(faster, "quantized", lambda *_, task=task: task)
        assert faster.main(["--json", str(file), *arguments]) == status and file.exists()
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_too_few_pairs_are_refused(capsys):
    with pytest.raises(SystemExit):
        faster.main(["--pairs", "3"])
    assert "needs 6 pairs" in capsys.readouterr().err
