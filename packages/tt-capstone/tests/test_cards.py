"""Model cards: intervals, measured numbers, two forms that agree, and files that notice a change."""

import json
import math
import os
import shutil
import subprocess
import sys
from copy import deepcopy
from dataclasses import asdict, replace

import numpy as np
import pytest

import tt_nlp
import tt_opt
import tt_tensor as tt
from tt_capstone import cards

report = vars(cards)["main"]  # the command

FACTS = cards.DataFacts("digits", 1438, 359, "abc", "A fifth | is held out.")
CARD = cards.ModelCard(
    name="Digits", purpose="Reads digits.", not_for="Cheques.", licence="MIT", data=FACTS,
    measured=(
        cards.Measured("accuracy", 0.9861, "share", "354 of 359 held out, exact interval", 0.9678, 0.9955),
        cards.Measured("time of an answer", 0.00021, "seconds", "median of 20 turns", 0.0002, 0.00024),
        cards.Measured("peak memory", 61_000_000, "bytes", "resident"),
        cards.Measured("parameters", 4810, "numbers", "shared weights count once"),
        cards.Measured("loss", 1.563, "nats", "30 windows, bootstrap", 1.5, 1.6),
    ),
    seeds=(0, 7), machine={"processor": "P", "cores": 2, "simd": ["AVX2", "FMA"], "blas_kernel": None},
    versions={"python": "3.11.7", "numpy": "2.0.2"}, kernels="fast", commit="0123abc+",
    own_chapters={"tt_tensor.activations": "fed"},
)  # fmt: skip


# Intervals. The values are those of the tables that C. Clopper and E. Pearson's interval is known by.


@pytest.mark.parametrize(
    "right, count, low, high",
    [(0, 20, 0.0, 0.1684), (8, 10, 0.4439, 0.9748), (1, 10, 0.0025, 0.4450), (20, 20, 0.8316, 1.0), (1, 1, 0.025, 1.0)],
)
def test_an_interval_has_the_known_ends(right, count, low, high):
    assert cards.accuracy_interval(right, count) == pytest.approx((low, high), abs=5e-5)


def test_an_interval_of_another_level_is_narrower():
    (low, high), (lower, higher) = cards.accuracy_interval(90, 100, level=0.5), cards.accuracy_interval(90, 100)
    assert lower < low < 0.9 < high < higher


def test_the_ends_of_many_answers_are_where_the_tails_are():
    low, high = cards.accuracy_interval(7500, 10_000)
    assert cards.at_least(7500, 10_000, low) == pytest.approx(0.025, rel=1e-6)
    assert 1 - cards.at_least(7501, 10_000, high) == pytest.approx(0.025, rel=1e-6)


def test_tails_by_hand():
    assert cards.at_least(1, 2, 0.5) == pytest.approx(0.75) and cards.at_least(0, 2, 0.3) == pytest.approx(1)


def test_the_exact_interval_keeps_its_promise_and_the_normal_one_does_not():
    for p in (0.5, 0.9, 0.99):
        assert cards.coverage(cards.accuracy_interval, p, 60) >= 0.95
    assert cards.coverage(cards.normal_interval, 0.99, 60) < 0.5


@pytest.mark.parametrize("right, count", [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(right, count):
    with pytest.raises(ValueError, match=f"{right} right answers of {count} are impossible"):
        cards.accuracy_interval(right, count)


# Losses


class Uniform(tt.Module):
    """Every token is as likely as any other, except for token 0, which is e times as likely."""

    def forward(self, ids):
        logits = np.zeros((*ids.shape, 4), np.float32)
        logits[..., 0] = 1
        return tt.from_numpy(logits)


def test_windows_do_not_overlap_and_each_has_its_loss():
    ids = np.array([3, 0, 0, 1, 2, 3, 0])  # two windows of three; what they predict: 0, 0, 1 and 2, 3, 0
    losses = cards.window_losses(Uniform(), ids, 3)
    rare = math.log(3 + math.e)
    assert losses == pytest.approx([rare - 2 / 3, rare - 1 / 3], rel=1e-6)


def test_a_text_without_a_window_is_refused():
    with pytest.raises(ValueError, match="3 tokens have no window of 3 tokens"):
        cards.window_losses(Uniform(), np.arange(3), 3)


def test_a_loss_has_an_interval_around_its_mean():
    losses = np.random.default_rng(0).normal(2, 0.5, 400)
    found = cards.measured_loss(losses)
    assert found.value == pytest.approx(losses.mean()) and found.unit == "nats"
    width = 2 * 1.96 * losses.std() / 20  # by the normal distribution
    assert found.high - found.low == pytest.approx(width, rel=0.1)
    with pytest.raises(ValueError, match="9 losses are too few"):
        cards.measured_loss(losses[:9])


# Numbers


@pytest.mark.parametrize(
    "value, unit, text",
    [(0.98607, "share", "98.61 %"), (61_234_567, "bytes", "61.2 MB"), (19_240, "bytes", "19.2 KB"),
     (0.1114, "seconds", "111 ms"), (0.00002, "seconds", "0.0200 ms"), (75.5, "seconds", "75.50 s"),
     (1.5634, "nats", "1.563 nats"), (4810, "numbers", "4,810")],
)  # fmt: skip
def test_numbers_are_shown_with_their_units(value, unit, text):
    assert str(cards.Measured("", value, unit, "")) == text


def test_only_a_number_with_two_ends_has_an_interval():
    assert CARD.measured[0].interval == "96.78 % to 99.55 %" and CARD.measured[2].interval == ""


def test_packed_and_shared_weights_count_once():
    tt.manual_seed(0)
    model = tt_nlp.GPT(tt_nlp.GPTConfig(vocab_size=50, block_size=16, n_layer=1, n_head=2, n_embd=32))
    count = cards.number_of_parameters(model)
    assert count == sum(p.numpy().size for p in model.parameters())
    assert cards.number_of_parameters(tt_opt.quantize_(deepcopy(model), "q8_0")) == count


PEAKS = """
import numpy as np
from tt_capstone.cards import peak_memory
before = peak_memory()
np.ones(10_000_000)  # and gone
print(before, peak_memory())
"""


def test_the_peak_is_that_of_this_process_and_kept_after_memory_is_freed():
    block = np.ones(40_000_000)  # which a process that we start does not have
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert len(block) and 5_000_000 < before < 320_000_000 <= cards.peak_memory()
    assert 70_000_000 < after - before < 120_000_000


def test_sizes_of_a_model(tmp_path):
    (tmp_path / "weights").write_bytes(bytes(1234))
    sizes = {number.what: number.value for number in cards.measured_sizes(tt.Linear(3, 2), tmp_path / "weights")}
    assert sizes == {"parameters": 8, "memory of the weights": 32, "size of the file": 1234}


# Circumstances


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_commit_is_named_and_a_change_is_marked(tmp_path):
    assert cards.commit_of(tmp_path / "nowhere") is None
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    (tmp_path / "file").write_text("1", encoding="utf-8")
    for command in (["init", "-q"], ["add", "file"], [*who, "commit", "-qm", "m"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    commit = cards.commit_of(tmp_path)
    assert len(commit) == 40 and int(commit, 16)
    (tmp_path / "new").write_text("untracked", encoding="utf-8")
    assert cards.commit_of(tmp_path) == commit
    (tmp_path / "file").write_text("2", encoding="utf-8")
    assert cards.commit_of(tmp_path) == commit + "+"


STAND_IN = """
import importlib.util, json, pathlib, sys
spec = importlib.util.find_spec("tt_optim.schedulers")
file = pathlib.Path(sys.argv[1])
file.write_bytes(pathlib.Path(spec.origin).read_bytes() + b"# mine")

class Finder:
    def find_spec(name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, file) if name == "tt_optim.schedulers" else None

for name in [name for name in sys.modules if name.startswith("tt_")]:
    del sys.modules[name]
sys.meta_path.insert(0, Finder)
from tt_capstone.cards import own_chapters
print(json.dumps(own_chapters()))
"""


def test_a_chapter_that_stands_in_is_named_with_its_checksum(tmp_path):
    environment = {**os.environ, "TT_SWAP": "0"}
    command = [sys.executable, "-c", STAND_IN, str(tmp_path / "mine.py")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, env=environment)
    found = json.loads(done.stdout)
    assert list(found) == ["tt_optim.schedulers"] and len(found["tt_optim.schedulers"]) == 64


def test_a_checksum_sees_types_shapes_and_numbers():
    x = np.arange(6, dtype=np.float32)
    variants = [x, x + 1, x.reshape(2, 3), x.astype(np.float64), x.reshape(2, 3).T]
    assert len({cards.checksum(v) for v in variants}) == 5
    assert cards.checksum(x.reshape(2, 3).T) == cards.checksum(x.reshape(2, 3).T.copy())


# Cards


@pytest.mark.parametrize("field, advice", [("not_for", "must not be used for"), ("licence", "licence"),
                                           ("purpose", "what the model does"), ("name", "called")])  # fmt: skip
@pytest.mark.parametrize("text", ["", "  \n"])
def test_what_only_its_author_knows_must_be_there(field, advice, text):
    with pytest.raises(ValueError, match=f"{field} of the model card is empty: write .*{advice}"):
        replace(CARD, **{field: text})


def test_a_card_comes_back(tmp_path):
    cards.write_card(CARD, tmp_path)
    assert cards.read_card(tmp_path) == CARD
    assert sorted(file.name for file in tmp_path.iterdir()) == ["CARD.md", "card.json"]


def leaves(content, path=()):
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from leaves(value, (*path, key))
    else:
        yield path


def test_both_forms_say_the_same(tmp_path):
    """Whatever is changed in the JSON changes the Markdown, so the Markdown holds all of it."""
    cards.write_card(CARD, tmp_path)
    content = cards.read_sealed(tmp_path / "card.json")
    text = (tmp_path / "CARD.md").read_text(encoding="utf-8")
    assert cards.card_markdown(content) == text
    places = list(leaves(content))
    assert len(places) > 40
    for path in places:
        other = deepcopy(content)
        *above, last = path
        place = other
        for key in above:
            place = place[key]
        value = place[last]
        if last == "unit" or (value is None and last in ("low", "high")):  # which other fields go with
            continue
        place[last] = value * 2 + 1 if isinstance(value, float | int) else f"not {value}"
        assert cards.card_markdown(other) != text, path


def test_a_bar_in_a_text_does_not_break_the_table():
    content = {**asdict(CARD), "sha256": "0"}
    rows = [line for line in cards.card_markdown(content).splitlines() if line.startswith("| data")]
    assert rows[0].count("|") == 3 and "A fifth &#124; is held out." in rows[0]


def test_a_card_that_was_changed_is_refused(tmp_path):
    cards.write_card(CARD, tmp_path)
    text = (tmp_path / "card.json").read_text(encoding="utf-8")
    (tmp_path / "card.json").write_text(text.replace("0.9861", "0.9999"), encoding="utf-8")
    with pytest.raises(ValueError, match="card.json does not have the checksum that it names"):
        cards.read_card(tmp_path)


@pytest.mark.parametrize("text", ["", "[1]", "{", "\udcff".encode("utf-8", "surrogateescape")])
def test_what_is_not_a_card_is_refused(tmp_path, text):
    (tmp_path / "card.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match="card.json is damaged, or not a file of ours"):
        cards.read_card(tmp_path)


def test_another_sealed_file_is_not_a_card(tmp_path):
    cards.write_sealed(tmp_path / "card.json", {"a": 1})
    with pytest.raises(ValueError, match="card.json is not a model card: its fields are a, sha256"):
        cards.read_card(tmp_path)


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError):
        cards.write_sealed(tmp_path / "x.json", {"a": math.nan})
    assert list(tmp_path.iterdir()) == []


def test_the_old_file_stays_if_the_new_one_cannot_be_written(tmp_path, monkeypatch):
    cards.write_text(tmp_path / "x", "old")

    def no_power(source, target):
        raise OSError("no power")

    monkeypatch.setattr(os, "replace", no_power)
    with pytest.raises(OSError, match="no power"):
        cards.write_text(tmp_path / "x", "new")
    assert [file.read_text(encoding="utf-8") for file in tmp_path.iterdir()] == ["old"]


def test_measuring_leaves_the_model_in_its_mode():
    model = tt.Sequential(tt.Linear(4, 2), tt.Dropout(0.5)).train()
    quality = [cards.measured_accuracy(9, 10)]
    card = cards.measure_card(
        model, tt.zeros(1, 4), name="n", purpose="p", not_for="x", licence="l", data=FACTS, quality=quality, seeds=[3]
    )
    assert model.training and all(part.training for part in model)
    numbers = {number.what: number for number in card.measured}
    assert numbers["accuracy"].value == 0.9 and numbers["parameters"].value == 10
    answer = numbers["time of an answer to 1 x 4"]
    assert 0 < answer.low <= answer.value <= answer.high < 1
    assert card.seeds == (3,) and card.machine["cores"] == os.cpu_count() and card.versions["numpy"] == np.__version__
    assert card.kernels == tt.kernels_in_use()


# The command


TEXTS = dict.fromkeys(("name", "purpose", "not_for", "licence", "data", "split"), "text")


def project(folder, **texts):
    lines = (f'{name} = "{text}"' for name, text in {**TEXTS, **texts}.items())
    (folder / "card.toml").write_text("\n".join(lines), encoding="utf-8")
    results = {
        "data": {"training": 9, "held_out": 5, "sha256": "0"}, "budget": {"seeds": [0, 1]},
        "measured": [asdict(number) for number in CARD.measured], "circumstances": cards.circumstances(folder),
    }  # fmt: skip
    cards.write_sealed(folder / "results.json", results)


def test_the_command_makes_a_card_of_results(tmp_path, capsys):
    project(tmp_path)
    assert report([str(tmp_path)]) == 0
    card = cards.read_card(tmp_path)
    assert card.measured == CARD.measured and card.seeds == (0, 1) and card.data.held_out == 5
    assert "CARD.md" in capsys.readouterr().out


def test_a_project_that_was_not_checked_has_no_card(tmp_path, capsys):
    assert report([str(tmp_path)]) == 1
    assert "has no results.json: run `python -m tt_capstone check" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["not_for", "data", "split"])
def test_an_empty_text_of_a_project_is_named_with_advice(tmp_path, capsys, name):
    project(tmp_path, **{name: " "})
    assert report([str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{name} in ") and "is empty: write " in said
    assert not (tmp_path / "CARD.md").exists()


def test_a_card_toml_that_cannot_be_read_is_named(tmp_path, capsys):
    for number, text in enumerate((None, "name = [")):
        project(tmp_path)
        (tmp_path / "card.toml").unlink()
        if text:
            (tmp_path / "card.toml").write_text(text, encoding="utf-8")
        assert report([str(tmp_path)]) == 1, number
        assert "card.toml cannot be read" in capsys.readouterr().err
