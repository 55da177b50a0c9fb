"""The example that races the clock: it learns, counts each second once, holds out what it says, and admits a miss."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tt_data import Images

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCRIPT = EXAMPLES / "dawnbench_2017" / "train_fast.py"
HIDDEN = ("TT_DATA", "XDG_CACHE_HOME", "LOCALAPPDATA")


def run(*arguments, cwd, timeout=300):
    """Run the example where there is no CIFAR-10; the finished process."""
    environment = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    nothing = dict.fromkeys(HIDDEN[1:], str(cwd / "empty"))
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], cwd=cwd, env=environment | nothing, timeout=timeout,
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """The finished process of a training on the digits, and the table that it wrote."""
    folder = tmp_path_factory.mktemp("elsewhere")
    done = run("--width", "16", "--epochs", "8", "--kernels", "default", "--json", "results.json", cwd=folder)
    assert done.stderr == "", done.stderr
    return done, json.loads((folder / "results.json").read_text(encoding="utf-8"))


@pytest.fixture
def program(monkeypatch):
    """The example, imported."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from dawnbench_2017 import train_fast

    return train_fast


def photographs(count):
    """Pictures of ten classes, which differ by their colours."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % 10
    pixels = random.integers(0, 40, (count, 3, 32, 32)) + 20 * labels[:, None, None, None]
    return Images(pixels.astype(np.uint8), labels.astype(np.uint8), tuple("abcdefghij"))


@pytest.fixture
def small(program, monkeypatch):
    """The example with 200 pictures instead of CIFAR-10, and a network of an eighth of the width."""

    def found(folder, limit, download):
        return "CIFAR-10", *(photographs(count) for count in (200, 50))

    monkeypatch.setattr(program, "find_photographs", found)
    monkeypatch.setattr(program, "inexact_rows", lambda folder: [])

    def start(*arguments):
        return program.main(["--width", "4", "--batch-size", "50", "--kernels", "default", *arguments])

    return program, start


# Run as a program


def test_it_learns_the_digits_and_earns_no_milestone(tried):
    done, table = tried
    rows = table["results"]
    assert done.returncode == 0 and all(row["reached"] for row in rows), done.stdout
    assert rows[0]["claim"] == "learned from 8 x 8 digits" and rows[0]["lacking"] == "CIFAR-10"
    assert float(rows[3]["measured"].rstrip("%")) >= 95 and rows[3]["claim"] == "359 unseen"
    assert "CIFAR-10 is not here" in done.stdout and table["example"] == "dawnbench_2017/train_fast.py"


def test_each_second_is_counted_once(tried):
    _, table = tried
    seconds, minutes = table["seconds"], table["results"][1]
    assert minutes["claim"].startswith("minutes")
    assert sum(seconds.values()) == pytest.approx(minutes["seconds"], abs=0.1)
    parts = {"imports", "reading the photographs", "the first step", "waiting for a batch", "forward", "backward"}
    assert {*parts, "update", "examining", "the rest"} == set(seconds)
    assert all(spent >= 0 for spent in seconds.values()) and seconds["the rest"] < sum(seconds.values()) / 4


def test_the_memory_is_that_of_the_process(tried):
    row = tried[1]["results"][2]
    assert row["claim"] == "MB at the peak" and 50 < float(row["measured"]) < 700


def test_slower_kernels_are_named(tried):
    assert "kernels: default" in tried[0].stdout and "pip install tt-opt[compiled]" in tried[0].stdout


def test_it_prints_80_columns_of_plain_text(tried):
    lines = tried[0].stdout.splitlines()
    assert [line for line in lines if len(line) > 80 or not line.isascii() or "\x1b" in line] == []


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--data", "."], "no cifar-10-python.tar.gz"), (["--lr", "0"], "a number above 0"),
        (["--batch-size", "1"], "at least 2"), (["--limit", "3"], "at least 20"),
        (["--json", "nowhere/x.json"], "there is no folder"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_at_once(arguments, words, program, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        program.main(arguments)
    assert end.value.code == 2 and words in " ".join(capsys.readouterr().err.split())


# What is judged


def test_fewer_photographs_are_a_miss(small, tmp_path, capsys):
    _, start = small
    file = tmp_path / "results.json"
    assert start("--epochs", "1", "--json", str(file)) == 1
    rows = json.loads(file.read_text(encoding="utf-8"))["results"]
    assert not rows[0]["reached"] and rows[0]["measured"] == "200 images" and rows[0]["threshold"] == "50,000 images"
    assert "50 unseen" in capsys.readouterr().out


def test_held_out_photographs_are_the_last_tenth_of_those_for_training(small):
    program, _ = small
    options = program.make_parser().parse_args(["--held-out"])
    name, training, unseen = program.photographs(options)
    whole = photographs(200)
    assert (len(training), len(unseen)) == (180, 20) and name == "nine tenths of CIFAR-10"
    assert np.array_equal(training.images, whole.images[:180]) and np.array_equal(unseen.images, whole.images[180:])
    assert np.array_equal(unseen.labels, whole.labels[180:])


def test_what_was_held_out_earns_no_milestone(small, tmp_path):
    _, start = small
    file = tmp_path / "results.json"
    start("--epochs", "1", "--held-out", "--json", str(file))
    rows = json.loads(file.read_text(encoding="utf-8"))["results"]
    assert rows[0]["lacking"] == "CIFAR-10" and rows[3]["claim"] == "20 unseen"


@pytest.mark.parametrize(
    "name, images, minutes, megabytes, reached",
    [
        ("CIFAR-10", 50_000, 6.0, 700.0, [True, True, True]), ("CIFAR-10", 49_999, 1.0, 300.0, [False, True, True]),
        ("CIFAR-10", 50_000, 6.1, 300.0, [True, False, True]), ("CIFAR-10", 50_000, 1.0, 701.0, [True, True, False]),
        ("8 x 8 digits", 100, 1.0, 300.0, [True, True, True]),
    ],
)  # fmt: skip
def test_time_and_memory_count_too(program, name, images, minutes, megabytes, reached):
    assert [row.passed for row in program.budget(name, images, minutes, megabytes)] == reached


def test_a_seed_fixes_the_result_whatever_the_workers(small, tmp_path, capsys):
    _, start = small
    said = []
    for workers in ("0", "1"):
        start("--epochs", "2", "--workers", workers)
        said.append([line.split(";")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")])
    assert said[0] == said[1] and len(said[0]) == 2


def test_ctrl_c_leaves_nothing_behind(small, monkeypatch, tmp_path, capsys):
    program, start = small

    def control_c(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "learn", control_c)
    monkeypatch.chdir(tmp_path)
    assert start("--json", str(tmp_path / "results.json")) == 130
    assert "Interrupted" in capsys.readouterr().out and list(tmp_path.iterdir()) == []
