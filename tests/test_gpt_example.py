"""The GPT example keeps its word: it learns, judges all of the unseen text, goes on after Ctrl-C, and talks."""

import csv
import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tt_autograd import load_checkpoint, no_grad
from tt_nlp import GPT, CharTokenizer, GPTConfig, load_gpt2
from tt_tensor import from_numpy, manual_seed

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCRIPT = EXAMPLES / "gpt_2018" / "simple_tinygpt.py"
DATA = next(
    (folder for folder in (Path(os.environ.get("TT_DATA") or "nowhere"), ROOT.parent / "shared" / "data")
     if (folder / "tinyshakespeare" / "input.txt").is_file()), None,
)  # fmt: skip
SMALL = ["--layers", "1", "--heads", "2", "--width", "16", "--context", "16", "--batch-size", "8"]
SHORT = [*SMALL, "--steps", "40", "--every", "20"]


def run(*arguments, cwd, typed="", timeout=300):
    """Run the example with nothing but the embedded text; the finished process."""
    hidden = ("TT_DATA", "CI", "XDG_CACHE_HOME", "LOCALAPPDATA")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    nothing = dict.fromkeys(hidden[2:], str(cwd / "empty"))
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], cwd=cwd, env=environment | nothing, timeout=timeout, input=typed,
        capture_output=True, encoding="utf-8", check=False,
    )


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """The finished process of a short training, its folder, and the table that it wrote."""
    folder = tmp_path_factory.mktemp("elsewhere")
    done = run(*SHORT, "--out", "out", "--json", "results.json", cwd=folder)
    assert done.stderr == "", done.stderr
    return done, folder, json.loads((folder / "results.json").read_text(encoding="utf-8"))["results"]


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Runs the example inside of this process, with its files in a folder named `out`."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from gpt_2018 import simple_tinygpt

    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    monkeypatch.delenv("TT_DATA", raising=False)
    monkeypatch.setattr(simple_tinygpt, "SAVE_EVERY", 7)

    def start(out, *arguments):
        return simple_tinygpt.main([*SHORT, "--out", str(tmp_path / out), *arguments])

    return simple_tinygpt, start


# Run as a program


def test_without_shakespeare_there_is_no_milestone(tried):
    done, _, rows = tried
    assert done.returncode == 1 and rows[0]["claim"] == "characters of Moby-Dick", "40 steps reach nothing"
    assert [row["lacking"] for row in rows] == ["tiny-shakespeare", None, None]
    said = " ".join(done.stdout.split())
    assert "tiny-shakespeare is not here" in said and "earns no milestone" in said and "TT_DATA" in said


def test_it_learns_all_the_same(tried):
    nats = float(tried[2][2]["measured"].split()[0])
    assert 1 < nats < 3.8 < math.log(60), "40 steps of a tiny network: better than guessing, far from good"


def test_it_prints_80_columns_of_plain_text(tried):
    lines = tried[0].stdout.splitlines()
    assert [line for line in lines if len(line) > 80 or not line.isascii() or "\x1b" in line] == []
    assert sum(line.startswith("  | ") for line in lines) >= 2, "samples as it learns"


def test_the_curve_is_written(tried):
    done, folder, _ = tried
    with open(folder / "out" / "curve.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["round"] for row in rows] == ["1", "2"] and set(rows[0]) >= {"loss", "val_loss", "lr", "seconds"}
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    assert f"loss {float(rows[1]['loss']):.3f}, unseen {float(rows[1]['val_loss']):.3f}" in done.stdout


def test_a_byte_pair_gpt_is_judged_by_the_character(tmp_path):
    done = run(*SHORT, "--tokens", "bpe", "--vocabulary", "300", "--json", "results.json", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr == "", done.stderr
    rows = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["results"]
    assert 1 < float(rows[2]["measured"].split()[0]) < math.log(300)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--heads", "5"], "5 heads do not divide a width of 192"), (["--steps", "-1"], "at least 0"),
        (["--dropout", "2"], "dropout must be a probability"), (["--data", "."], "input.txt"),
        (["--limit", "1000", "--context", "200"], "too short for a context of 200"), (["--resume"], "no training to"),
        (["--chat"], "there is no network in"), (["--json", "nowhere/x.json"], "there is no folder"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_at_once(arguments, words, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and words in " ".join(done.stderr.split()) and "Traceback" not in done.stderr


def test_it_explains_its_options(tmp_path):
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0 and "--chat" in done.stdout and "--seed" in done.stdout


# Talking


def test_it_goes_on_with_what_is_typed(tried):
    done = run("--chat", "--out", "out", "--length", "30", cwd=tried[1], typed="Call me\n\n")
    assert (done.returncode, done.stderr) == (0, "") and "parameters goes on with what you type" in done.stdout
    assert len(done.stdout.split("> ")[1]) >= 30


def test_what_it_cannot_read_it_says_and_the_end_of_the_input_ends_it(tried):
    done = run("--chat", "--out", "out", "--length", "5", cwd=tried[1], typed="\u4f60\nCall")
    assert (done.returncode, done.stderr) == (0, "") and "alphabet" in done.stdout and done.stdout.count("> ") == 3


def test_ctrl_c_ends_an_answer_and_not_the_talk(program, monkeypatch, capsys, tmp_path):
    module, start = program
    start("out")
    lines = iter(["Call", "me", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))

    def interrupted(model, ids, count, **how):
        yield 5
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "stream", interrupted)
    capsys.readouterr()
    assert module.main(["--chat", "--out", str(tmp_path / "out")]) == 0
    assert len(capsys.readouterr().out.strip().splitlines()) >= 3 and next(lines, None) is None


def test_it_talks_after_an_interrupted_training_too(program, monkeypatch, tmp_path):
    module, start = program

    def control_c(progress, run):
        if run.steps == 15:
            raise KeyboardInterrupt

    monkeypatch.setattr(module.Progress, "on_step", control_c)
    assert start("cut") == 130
    model, tokenizer = module.saved_model(module.make_parser().parse_args(["--out", str(tmp_path / "cut")]))
    assert tokenizer.vocab_size == model.config.vocab_size and not model.training


# Going on


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(program, monkeypatch, capsys, tmp_path):
    module, start = program

    def control_c(progress, run):
        if run.steps == 31:
            raise KeyboardInterrupt

    assert start("whole") == 1
    with monkeypatch.context() as interrupted:
        interrupted.setattr(module.Progress, "on_step", control_c)
        assert start("cut", "--json", str(tmp_path / "results.json")) == 130
    said = capsys.readouterr().out
    assert "Interrupted." in said and not (tmp_path / "results.json").exists()
    command = shlex.split(said.splitlines()[-1]) if os.name == "posix" else said.splitlines()[-1].split()
    assert command[-1] == "--resume" and "--json" not in command and Path(command[1]) == SCRIPT
    assert load_checkpoint(tmp_path / "cut" / "gpt.safetensors")["steps"] == 28
    assert start("cut", "--resume") == 1
    one, two = (load_checkpoint(tmp_path / name / "gpt.safetensors") for name in ("whole", "cut"))
    one["history"].pop("seconds"), two["history"].pop("seconds")
    assert one["history"] == two["history"] and one["steps"] == two["steps"] == 40
    assert all(np.array_equal(one["model"][name].numpy(), two["model"][name].numpy()) for name in one["model"])
    assert "step     20" not in capsys.readouterr().out, "what was learned is not learned again"


def test_other_options_are_another_training(program, tmp_path, capsys):
    _, start = program
    start("out")
    with pytest.raises(SystemExit):
        start("out", "--resume", "--width", "32")
    assert "width 16 (now 32)" in " ".join(capsys.readouterr().err.split())


def test_no_steps_learn_nothing(program, tmp_path):
    _, start = program
    assert start("none", "--steps", "0") == 1


def test_the_weights_are_left_for_others(tried):
    model = load_gpt2(tried[1] / "out" / "gpt2")
    saved = load_checkpoint(tried[1] / "out" / "gpt.safetensors")["model"]
    assert all(np.array_equal(saved[name].numpy(), p.numpy()) for name, p in model.named_parameters())


def test_the_folder_of_weights_is_a_model_for_chapter_20(tried):
    find = pytest.importorskip("tt_capstone.weights", reason="chapter 20 is not installed: pip install tt-capstone")
    chat = find.find_language_model(tried[1] / "out" / "gpt2")
    pieces = list(chat.answer([{"role": "user", "content": "Call me Ishmael."}], 10, seed=0))
    assert chat.tokenizer.encode("".join(pieces)) and len(pieces) == 10
    assert f"tt_capstone chat {Path('out', 'gpt2')}" in tried[0].stdout


# What is judged


@pytest.mark.parametrize("length", [2, 9, 10, 41, 57])
def test_every_character_but_the_first_is_judged_once(program, length):
    module, _ = program
    manual_seed(0)
    text = ("to be or not to be, that is the question " * 2)[:length]
    tokenizer = CharTokenizer.train("abcdefghijklmnopqrstuvwxyz ,")
    model = GPT(GPTConfig(tokenizer.vocab_size, 8, 1, 2, 8)).double()
    for parameter in model.parameters():
        parameter.copy_(parameter.numpy() * 20)
    ids, nats = np.array(tokenizer.encode(text)), []
    for place in range(1, length):
        start = (place - 1) // 8 * 8
        with no_grad():
            logits = model(from_numpy(ids[None, start:place])).numpy()[0, -1]
        nats.append(np.log(np.exp(logits).sum()) - logits[ids[place]])
    assert module.nats_per_character(model, tokenizer, text) == pytest.approx(np.mean(nats), rel=1e-6)


@pytest.mark.parametrize(
    "name, learned, nats, seconds, reached",
    [
        ("tiny-shakespeare", 1_003_854, 1.65, 1800, [True, True, True]),
        ("tiny-shakespeare", 1_003_854, 1.6501, 1801, [True, False, False]),
        ("tiny-shakespeare", 1_003_853, 1.2, 10, [False, True, True]),
        ("the first chapter of Moby-Dick", 11_000, 1.2, 10, [True, True, True]),
        ("the first chapter of Moby-Dick", 11_000, 2.7, 10, [True, True, False]),
    ],
)
def test_a_milestone_is_for_all_of_it(program, name, learned, nats, seconds, reached):
    module, _ = program
    assert [row.passed for row in module.results(name, learned, nats, 111_540, seconds)] == reached


@pytest.mark.skipif(DATA is None, reason="tiny-shakespeare is not here: neither in TT_DATA nor in ../shared/data")
def test_the_last_tenth_is_that_of_everybody(program):
    module, _ = program
    name, text = module.find_text(DATA / "tinyshakespeare", None, False)
    learned, unseen = module.cut(text)
    assert (name, len(learned), len(unseen)) == ("tiny-shakespeare", 1_003_854, 111_540)
    assert learned + unseen == text and unseen.startswith("?\n\nGREMIO:")


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="tiny-shakespeare is not here: neither in TT_DATA nor in ../shared/data")
def test_a_minute_of_shakespeare_is_better_than_pairs_of_letters(program, tmp_path):
    module, _ = program
    options = ["--steps", "700", "--every", "350", "--width", "64", "--heads", "4", "--layers", "2", "--context", "64"]
    module.main([*options, "--data", str(DATA / "tinyshakespeare"), "--out", str(tmp_path / "out"),
                 "--json", str(tmp_path / "results.json")])  # fmt: skip
    rows = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["results"]
    assert rows[0]["reached"] and float(re.match(r"[\d.]+", rows[2]["measured"])[0]) < 2.4
