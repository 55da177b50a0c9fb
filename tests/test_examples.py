"""The examples keep their word: they reach what they claim, and say so by their exit status when they do not."""

import gzip
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PERCEPTRON = "perceptron_1957/rosenblatt_perceptron.py"
XOR = "xor_1969/minsky_xor_problem.py"
CLAIMS = [(PERCEPTRON,), (XOR,), (XOR, "--train"), ("tour.py",)]
DATA = next(
    (folder for folder in (Path(os.environ.get("TT_DATA") or "nowhere"), ROOT.parent / "shared" / "data")
     if (folder / "mnist").is_dir()), None,
)


def run(script, *arguments, cwd=None, **environment):
    """Run an example as its reader does, with nobody at the terminal; the finished process."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("TT_DATA", "CI")}
    return subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments], cwd=cwd, env=inherited | environment, timeout=300,
        stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False,
    )


@pytest.fixture
def examples(monkeypatch):
    """Lets a test import the examples' modules."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


# Run as programs


@pytest.fixture(scope="module", params=CLAIMS, ids=" ".join)
def finished(request, tmp_path_factory):
    """An example that was run from some other folder, and the seconds it took."""
    start = time.perf_counter()
    return run(*request.param, cwd=tmp_path_factory.mktemp("elsewhere")), time.perf_counter() - start


def test_an_example_reaches_what_it_claims(finished):
    done, seconds = finished
    assert (done.returncode, done.stderr) == (0, "")
    assert "All reached." in done.stdout and " NO\n" not in done.stdout
    assert seconds < 60


def test_in_a_pipe_there_are_80_columns_of_plain_text(finished):
    lines = finished[0].stdout.splitlines()
    assert len(lines) > 20
    assert [line for line in lines if len(line) > 80 or not line.isascii() or "\x1b" in line] == []


@pytest.mark.parametrize("claim", CLAIMS, ids=" ".join)
def test_an_example_that_misses_exits_with_1(claim):
    done = run(*claim, "--epochs", "0")
    assert done.returncode == 1, done.stderr
    assert re.search(r"\d of \d missed\.", done.stdout) and "NO\n" in done.stdout


@pytest.mark.parametrize("epochs, reached", [((), True), (("--epochs", "0"), False)])
@pytest.mark.parametrize("claim", CLAIMS, ids=" ".join)
def test_an_example_saves_its_table_for_programs(claim, epochs, reached, tmp_path):
    file = tmp_path / "results.json"
    file.write_text("from yesterday", encoding="utf-8")
    seeds = () if claim == ("tour.py",) else ("--seeds", "2")
    done = run(*claim, *epochs, *seeds, "--json", str(file))
    saved = json.loads(file.read_text(encoding="utf-8"))
    assert (saved["schema"], saved["example"]) == (1, claim[0])
    printed = re.findall(r"^(\S.*?)  +(\S.*?)  +(\S.*?)  +[\d.]+ s +(yes|NO)$", done.stdout, re.MULTILINE)
    rows = [(row["claim"], row["measured"], row["threshold"]) for row in saved["results"]]
    assert rows == [row[:3] for row in printed] and len(rows) >= 2
    assert [row["reached"] for row in saved["results"]] == [row[3] == "yes" for row in printed]
    assert all(row["reached"] for row in saved["results"]) is reached
    assert all(row["seconds"] >= 0 for row in saved["results"]) and list(tmp_path.iterdir()) == [file]


def test_a_table_that_cannot_be_saved_is_refused_before_anything_runs(tmp_path):
    done = run(XOR, "--json", str(tmp_path / "nowhere" / "results.json"))
    assert done.returncode == 2 and "there is no folder" in done.stderr and done.stdout == ""


def test_the_old_table_stays_until_the_new_one_is_whole(examples, tmp_path, monkeypatch):
    import terminal

    def no_power(whole, file):
        assert json.loads(whole.read_text(encoding="utf-8"))["results"][0]["reached"] is True
        raise OSError

    (file := tmp_path / "results.json").write_text("old", encoding="utf-8")
    monkeypatch.setattr(Path, "replace", no_power)
    with pytest.raises(OSError):
        terminal.save([terminal.Result("claim", "2", "1", np.bool_(True), 0.0)], terminal.__file__, file)
    assert file.read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize("script", [PERCEPTRON, XOR, "tour.py"])
def test_an_example_explains_its_options(script):
    done = run(script, "--help")
    assert done.returncode == 0 and "--seed" in done.stdout and "--epochs" in done.stdout


@pytest.mark.parametrize("script", [PERCEPTRON, XOR])
def test_no_seed_at_all_proves_nothing(script):
    done = run(script, "--seeds", "0")
    assert done.returncode == 2 and "--seeds is 1 or more, not 0" in done.stderr


@pytest.mark.parametrize(
    "script, imported, later", [(PERCEPTRON, "tt_tensor", "tt_optim"), (XOR, "tt_optim", "tt_autograd")]
)
def test_an_example_needs_only_its_chapters(script, imported, later):
    code = f"import runpy, sys; runpy.run_path({str(EXAMPLES / script)!r}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert imported in loaded and later not in loaded


def test_the_tour_without_mnist_says_what_is_missing():
    done = run("tour.py", "--mnist")
    assert done.returncode == 2 and "train-images-idx3-ubyte.gz" in done.stderr and "TT_DATA" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="MNIST is not here: neither in TT_DATA nor in ../shared/data")
def test_the_tour_reads_mnist():
    done = run("tour.py", "--mnist", TT_DATA=str(DATA))
    assert done.returncode == 0, done.stdout + done.stderr
    assert float(re.search(r"28 x 28 digits\s+([\d.]+)% of held-out", done.stdout)[1]) >= 97.5


@pytest.mark.skipif(DATA is None, reason="MNIST is not here: neither in TT_DATA nor in ../shared/data")
def test_the_tour_offers_mnist_and_does_not_wait_for_an_answer():
    done = run("tour.py", TT_DATA=str(DATA))
    assert done.returncode == 0 and "add --mnist" in done.stdout and "28 x 28 digits: MNIST" not in done.stdout


# A terminal


def terminal_of(monkeypatch, is_terminal):
    import terminal

    monkeypatch.setattr("sys.stdout", type("Screen", (), {"isatty": lambda self: is_terminal})())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal.colours.cache_clear()
    return terminal


def test_colours_are_for_terminals(examples, monkeypatch):
    assert terminal_of(monkeypatch, True).paint("text", "1") == "\x1b[1mtext\x1b[0m"
    assert terminal_of(monkeypatch, False).paint("text", "1") == "text"


def test_colours_are_off_with_no_color(examples, monkeypatch):
    terminal = terminal_of(monkeypatch, True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.paint("text", "1") == "text"


def test_a_picture_has_a_character_for_each_number(examples, monkeypatch):
    terminal = terminal_of(monkeypatch, False)
    assert terminal.picture(np.array([[-1, -0.5, 0], [0.5, 1, 1]]), {(1, 2): "x"}) == ["=-.", "+#x"]


@pytest.mark.parametrize(
    "ci, answer, wanted", [("", "y", True), ("", "", False), ("", EOFError, False), ("1", "y", False)]
)
def test_only_somebody_at_the_terminal_is_asked(examples, monkeypatch, ci, answer, wanted):
    import tour

    def reply(prompt):
        if answer is EOFError:
            raise EOFError
        return answer

    monkeypatch.setenv("CI", ci)
    for stream in ("sys.stdin", "sys.stdout"):
        monkeypatch.setattr(f"{stream}.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", reply)
    assert tour.wants_mnist(Path("somewhere")) is wanted


# What is judged


def test_the_perceptron_is_examined_on_patterns_it_has_not_seen(examples):
    from perceptron_1957.rosenblatt_perceptron import patterns

    (x, sides), (unseen, _) = patterns(50), patterns(50)
    assert set(sides.tolist()) == {-1.0, 1.0} and set(np.unique(x.numpy())) == {0.0, 1.0}
    assert not (x.numpy()[:, None] == unseen.numpy()).all(axis=2).any()


def test_a_mark_lies_in_one_half(examples):
    from perceptron_1957.rosenblatt_perceptron import mark

    for side in (-1, 1) * 20:
        halves = np.split(mark(side), 2, axis=1)
        assert halves[side > 0].sum() >= 9 and halves[side < 0].sum() == 0


def test_other_weights_do_not_agree_with_those_made_by_hand(examples):
    from xor_1969.minsky_xor_problem import agreement, learn_by_fit

    assert agreement(learn_by_fit(0, 20)[0], seed=0, epochs=20).passed
    assert not agreement(learn_by_fit(1, 20)[0], seed=0, epochs=20).passed


# The files of MNIST


def idx(*header, count):
    """A gzipped IDX file with `count` bytes after its header."""
    return gzip.compress(np.array(header, ">u4").tobytes() + bytes(range(count)), mtime=0)


WHOLE = idx(0x0803, 2, 3, 3, count=18)


def test_a_whole_file_is_read(examples, tmp_path):
    from mnist import read_idx

    (tmp_path / "images.gz").write_bytes(WHOLE)
    assert read_idx(tmp_path / "images.gz", 0x0803, (2, 3, 3)).tolist() == np.arange(18).reshape(2, 3, 3).tolist()


@pytest.mark.parametrize(
    "content, says",
    [
        (idx(0x0803, 2, 3, 3, count=17), "expected bytes after the header 18, found 17"),
        (idx(0x0803, 2, 3, 3, count=19), "expected bytes after the header 18, found 19"),
        (idx(0x0801, 18, count=18), "expected magic number 0x00000803, found 0x00000801"),
        (idx(0x0803, 2, 3, 4, count=24), r"expected dimensions \(2, 3, 3\), found \(2, 3, 4\)"),
        (idx(0x0803, 2, count=0), r"expected dimensions \(2, 3, 3\), found \(2,\)"),
        (gzip.compress(b""), "expected magic number 0x00000803, found an empty file"),
        (WHOLE[:-9], r"expected a whole gzip file, found \d+ bytes that do not unpack"),
        (WHOLE[:20] + bytes([WHOLE[20] ^ 1]) + WHOLE[21:], r"expected a whole gzip file, found \d+ bytes"),
        (b"<html>not found</html>", "expected a whole gzip file, found 22 bytes"),
    ],
    ids=["short", "long", "labels", "other sizes", "cut in the header", "empty", "cut", "a bit flipped", "a page"],
)
def test_a_file_that_is_not_whole_is_refused(examples, tmp_path, content, says):
    from mnist import read_idx

    (tmp_path / "images.gz").write_bytes(content)
    with pytest.raises(ValueError, match=f"images.gz: {says}.*get the file again"):
        read_idx(tmp_path / "images.gz", 0x0803, (2, 3, 3))


def test_labels_above_nine_are_refused(examples, tmp_path, monkeypatch):
    import mnist

    monkeypatch.setitem(mnist.FILES, "test", ("images.gz", "labels.gz", 18))
    header = np.array([0x0803, 18, 28, 28], ">u4").tobytes()
    (tmp_path / "images.gz").write_bytes(gzip.compress(header + bytes(18 * 784)))
    (tmp_path / "labels.gz").write_bytes(idx(0x0801, 18, count=18))
    with pytest.raises(ValueError, match="labels.gz: expected labels from 0 to 9, found 17"):
        mnist.load(tmp_path, "test")


@pytest.mark.parametrize("below", ["", "mnist"])
def test_mnist_is_found_in_tt_data_or_in_its_folder(examples, tmp_path, monkeypatch, below):
    import mnist

    monkeypatch.setenv("TT_DATA", str(tmp_path))
    assert mnist.mnist_folder() is None
    (tmp_path / below).mkdir(exist_ok=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / below / f"{name}-ubyte.gz").touch()
    assert mnist.mnist_folder() == tmp_path / below
