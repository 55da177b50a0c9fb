"""The examples keep their word: they reach what they claim, and say so by their exit status when they do not."""

import csv
import gzip
import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tt_autograd import load_checkpoint
from tt_data import Images
from tt_tensor import from_numpy

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PERCEPTRON = "perceptron_1957/rosenblatt_perceptron.py"
XOR = "xor_1969/minsky_xor_problem.py"
LENET = "lenet_1998/train_mnist.py"
CNN = "alexnet_2012/train_cnn.py"
COMPRESS = "compression_2015/compress.py"
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
    """An example that was run from some other folder, the table that it saved there, which is all that it left, and
    the seconds that it computed (0 where no system counts)."""
    before = os.times()
    done, table = saving(tmp_path_factory.mktemp("elsewhere"), *request.param)
    after = os.times()
    return done, table, sum(after[2:4]) - sum(before[2:4])


@pytest.fixture(scope="module", params=CLAIMS, ids=" ".join)
def missed(request, tmp_path_factory):
    """An example that has learned nothing, and its table."""
    return saving(tmp_path_factory.mktemp("elsewhere"), *request.param, "--epochs", "0")


def saving(folder, script, *arguments):
    file = folder / "results.json"
    file.write_text("from yesterday", encoding="utf-8")
    done = run(script, *arguments, "--json", str(file), cwd=folder)
    assert list(folder.iterdir()) == [file]
    table = json.loads(file.read_text(encoding="utf-8"))
    assert (table["schema"], table["example"]) == (1, script)
    return done, table["results"]


def test_an_example_reaches_what_it_claims(finished):
    done, _, seconds = finished
    assert (done.returncode, done.stderr) == (0, "")
    assert "All reached." in done.stdout and " NO\n" not in done.stdout
    assert seconds < 60  # of a processor, whatever else runs


def test_in_a_pipe_there_are_80_columns_of_plain_text(finished):
    lines = finished[0].stdout.splitlines()
    assert len(lines) > 20
    assert [line for line in lines if len(line) > 80 or not line.isascii() or "\x1b" in line] == []


def test_an_example_that_misses_exits_with_1(missed):
    done = missed[0]
    assert done.returncode == 1, done.stderr
    assert re.search(r"\d+ of \d+ missed\.", done.stdout) and "NO\n" in done.stdout


def the_table_is_what_was_printed(done, table, reached):
    printed = re.findall(r"^(\S.*?)  +(\S.*?)  +(\S.*?)  +[\d.]+ s +(yes|NO)$", done.stdout, re.MULTILINE)
    rows = [(row["claim"], row["measured"], row["threshold"]) for row in table]
    assert rows == [row[:3] for row in printed] and len(rows) >= 2
    assert [row["reached"] for row in table] == [row[3] == "yes" for row in printed]
    assert all(row["reached"] for row in table) is reached
    assert all(row["seconds"] >= 0 for row in table)


def test_an_example_saves_its_table_for_programs(finished):
    the_table_is_what_was_printed(*finished[:2], reached=True)


def test_an_example_that_misses_saves_its_table_too(missed):
    the_table_is_what_was_printed(*missed, reached=False)


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


@pytest.mark.parametrize("script", [PERCEPTRON, XOR, LENET, CNN, COMPRESS, "tour.py"])
def test_an_example_explains_its_options(script):
    done = run(script, "--help")
    assert done.returncode == 0 and "--seed" in done.stdout and "--epochs" in done.stdout


@pytest.mark.parametrize("script", [PERCEPTRON, XOR])
def test_no_seed_at_all_proves_nothing(script):
    done = run(script, "--seeds", "0")
    assert done.returncode == 2 and "--seeds is 1 or more, not 0" in done.stderr


@pytest.mark.parametrize(
    "script, imported, later",
    [(PERCEPTRON, "tt_tensor", "tt_optim"), (XOR, "tt_optim", "tt_autograd"), (LENET, "tt_spatial", "tt_data")],
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
    done = run("tour.py", "--mnist", "--epochs", "0", TT_DATA=str(DATA))
    assert done.returncode == 1 and not done.stderr, done.stdout + done.stderr  # what has not learned reaches nothing
    assert float(re.search(r"28 x 28 digits\s+([\d.]+)% of held-out", done.stdout)[1]) >= 97.5


@pytest.mark.skipif(DATA is None, reason="MNIST is not here: neither in TT_DATA nor in ../shared/data")
def test_the_tour_offers_mnist_and_does_not_wait_for_an_answer():
    done = run("tour.py", "--epochs", "0", TT_DATA=str(DATA))
    assert not done.stderr and "add --mnist" in done.stdout and "28 x 28 digits: MNIST" not in done.stdout


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


# Networks for images. Without MNIST and CIFAR-10 they learn the small digits, which is what is tried here.

IMAGES = {LENET: ("lenet", "mlp"), CNN: ("cnn",)}
PICTURES = {"curves.png": (350, 900), "confusion.png": (700, 800), "mistakes.png": (800, 1000)}
CACHES = ("XDG_CACHE_HOME", "LOCALAPPDATA")  # where chapter 10 looks for what has been downloaded
TRAININGS = [(script, name) for script, names in IMAGES.items() for name in names]


@pytest.fixture(scope="module", params=IMAGES)
def tried(request, tmp_path_factory):
    """An image example, the finished process, its folder, and the table that it wrote."""
    folder = tmp_path_factory.mktemp("elsewhere")
    nothing = {name: str(folder / "empty") for name in CACHES}
    file = folder / "results.json"
    options = ["--epochs", "6", "--batch-size", "32", "--out", "out", "--json", str(file)]
    done = run(request.param, *options, cwd=folder, **nothing)
    assert done.stderr == "", done.stderr
    return request.param, done, folder / "out", json.loads(file.read_text(encoding="utf-8"))["results"]


@pytest.fixture
def program(examples, tmp_path, monkeypatch):
    """Runs an image example inside of this process, on 200 small digits, with its files in a folder named `out`."""
    import images

    monkeypatch.delenv("TT_DATA", raising=False)
    for name in CACHES:
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    monkeypatch.setattr(images, "SAVE_EVERY", 3)

    def start(script, out, *arguments):
        module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
        small = ["--limit", "200", "--epochs", "2", "--batch-size", "64"]
        return module.main([*small, "--out", str(tmp_path / out), *arguments])

    return start


def test_without_the_data_there_is_no_milestone(tried):
    script, done, _, rows = tried
    wanted = {LENET: "MNIST", CNN: "CIFAR-10"}[script]
    assert (rows[0]["claim"], rows[0]["lacking"]) == ("learned from 8 x 8 digits", wanted)
    assert [row["lacking"] for row in rows[1:]] == [None] * (len(rows) - 1)
    said = " ".join(done.stdout.split())
    assert f"{wanted} is not here" in said and "earns no milestone" in said and "--data" in said and "TT_DATA" in said
    assert said.endswith(f"This earns no milestone, which needs {wanted}.")


@pytest.mark.slow
@pytest.mark.parametrize("script", IMAGES)
def test_without_the_data_the_thresholds_can_be_reached(script, tmp_path):
    done = run(script, cwd=tmp_path, **{name: str(tmp_path / "empty") for name in CACHES})
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "All reached." in done.stdout and " NO\n" not in done.stdout


def test_the_small_digits_are_learned_all_the_same(tried):
    _, done, _, rows = tried
    shares = [float(row["measured"].rstrip("%")) for row in rows if "unseen" in row["claim"]]
    assert len(shares) == 1 and shares[0] > 85, done.stdout


def test_an_image_example_prints_80_columns_of_plain_text(tried):
    assert [line for line in tried[1].stdout.splitlines() if len(line) > 80 or not line.isascii()] == []


def test_pictures_are_drawn(tried):
    image = pytest.importorskip("matplotlib.image")
    drawn = {name: image.imread(tried[2] / name) for name in PICTURES}
    assert {name: pixels.shape[:2] for name, pixels in drawn.items()} == PICTURES
    assert all(pixels[..., :3].std() > 0.01 for pixels in drawn.values())


def test_the_curve_is_written(tried):
    script, done, folder, _ = tried
    for name in IMAGES[script]:
        with open(folder / f"{name}.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["epoch"] for row in rows] == list("123456")
        assert set(rows[0]) == {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"}
        assert f"unseen {float(rows[5]['val_loss']):.3f}, {float(rows[5]['val_accuracy']):6.2%}" in done.stdout
        assert float(rows[5]["loss"]) < float(rows[0]["loss"])


def test_the_checkpoint_holds_the_network_that_was_measured(tried, examples, monkeypatch):
    script, _, folder, rows = tried
    module, name = importlib.import_module(script.removesuffix(".py").replace("/", ".")), IMAGES[script][0]
    assert load_checkpoint(folder / f"{name}.safetensors")["history"]["val_accuracy"][-1] == pytest.approx(
        float(next(row["measured"] for row in rows if "unseen" in row["claim"]).rstrip("%")) / 100, abs=6e-5
    )
    assert json.loads((folder / "options.json").read_text(encoding="utf-8"))["batch_size"] == 32
    assert module.__doc__


def the_same(first, second, name):
    """Are the weights of two finished trainings equal bit for bit, and their curves but for the seconds?"""
    one, two = (load_checkpoint(folder / f"{name}.safetensors") for folder in (first, second))
    one["history"].pop("seconds"), two["history"].pop("seconds")
    equal = [np.array_equal(one["model"][key].numpy(), two["model"][key].numpy()) for key in one["model"]]
    return all(equal) and len(equal) >= 4 and one["history"] == two["history"] and one["steps"] == two["steps"] == 8


def test_the_best_kernels_compute_unless_a_chapter_is_swapped(examples, monkeypatch):
    import terminal

    import tt_opt
    from tt_tito.finder import Finder

    assert terminal.best_kernels() == tt_opt.best_set() != "default"
    monkeypatch.setattr(sys, "meta_path", [Finder("losses=reference", {}), *sys.meta_path])
    assert terminal.best_kernels() == "default"


def test_an_example_runs_on_other_kernels(tmp_path):
    import tt_opt  # noqa: F401  (which has them)

    losses = []
    for kernels in ("default", "fast"):
        done = run(LENET, "--epochs", "1", "--limit", "200", "--kernels", kernels, "--out", kernels, cwd=tmp_path)
        assert done.stderr == "" and json.loads((tmp_path / kernels / "options.json").read_text())["kernels"] == kernels
        losses.append(load_checkpoint(tmp_path / kernels / "lenet.safetensors")["history"]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    again = ("--epochs", "1", "--limit", "200", "--out", "default", "--resume")
    done = run(LENET, *again, "--kernels", "fast", cwd=tmp_path)
    assert done.returncode == 2 and "kernels default (now fast)" in done.stderr
    done = run(LENET, "--kernels", "quick", cwd=tmp_path)
    assert done.returncode == 2 and "choose default, fast or compiled" in done.stderr


@pytest.mark.parametrize("script, name", TRAININGS)
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(program, tmp_path, monkeypatch, capsys, script, name):
    import images

    def control_c(curve, run):
        if curve.file.stem == name and run.steps == 8:
            raise KeyboardInterrupt

    assert program(script, "whole") == 1
    with monkeypatch.context() as interrupted:
        interrupted.setattr(images.Curve, "on_step", control_c)
        assert program(script, "cut", "--json", str(tmp_path / "results.json")) == 130
    said = capsys.readouterr().out
    assert "Interrupted." in said and not (tmp_path / "results.json").exists()
    command = shlex.split(said.splitlines()[-1]) if os.name == "posix" else said.splitlines()[-1].split()
    assert command[-1] == "--resume" and "--json" not in command and Path(command[1]) == EXAMPLES / script
    assert load_checkpoint(tmp_path / "cut" / f"{name}.safetensors")["steps"] == 6
    assert program(script, "cut", "--resume") == 1
    not_begun = len(IMAGES[script]) - IMAGES[script].index(name) - 1
    assert capsys.readouterr().out.count("epoch  1 of 2") == not_begun, "what was learned is not learned again"
    assert all(the_same(tmp_path / "whole", tmp_path / "cut", each) for each in IMAGES[script])
    assert program(script, "cut", "--resume") == 1, "a finished training can be examined again"


@pytest.mark.parametrize("script", IMAGES)
def test_another_seed_is_another_training(program, tmp_path, script):
    program(script, "first")
    program(script, "second", "--seed", "1")
    assert not the_same(tmp_path / "first", tmp_path / "second", IMAGES[script][0])


def test_workers_do_not_change_what_is_learned(program, tmp_path):
    program(CNN, "none", "--workers", "0")
    program(CNN, "three", "--workers", "3")
    assert the_same(tmp_path / "none", tmp_path / "three", "cnn")


@pytest.mark.skipif(os.name != "posix", reason="Windows has no way to send Ctrl-C to one process only")
@pytest.mark.parametrize("script", IMAGES)
def test_control_c_ends_a_training_with_130(script, tmp_path):
    environment = os.environ | {name: str(tmp_path / "empty") for name in ("TT_DATA", *CACHES)}
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / script), "--epochs", "1000", "--limit", "100", "--out", str(tmp_path / "out")],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    )
    next(line for line in process.stdout if line.startswith("epoch  2"))
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "") and "the same command with --resume" in said
    assert load_checkpoint(tmp_path / "out" / f"{IMAGES[script][0]}.safetensors")["epoch"] >= 1


@pytest.mark.parametrize("script", IMAGES)
def test_a_training_is_resumed_with_the_options_it_was_begun_with(program, capsys, script):
    with pytest.raises(SystemExit, match="2"):
        program(script, "out", "--resume")
    assert "there is no training to resume in" in capsys.readouterr().err
    assert program(script, "out") == 1
    with pytest.raises(SystemExit, match="2"):
        program(script, "out", "--resume", "--lr", "0.5", "--epochs", "3")
    said = " ".join(capsys.readouterr().err.split())
    assert "was begun with epochs 2 (now 3), lr 0." in said and "(now 0.5); --resume needs the same options" in said


@pytest.mark.parametrize("script", IMAGES)
def test_a_new_training_forgets_the_old_one(program, tmp_path, monkeypatch, script):
    import images

    def at_once(curve, run):
        raise KeyboardInterrupt

    assert program(script, "out") == 1
    monkeypatch.setattr(images.Curve, "on_step", at_once)
    assert program(script, "out", "--seed", "1") == 130
    assert list((tmp_path / "out").glob("*.safetensors")) == []


@pytest.mark.parametrize("script", IMAGES)
@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--epochs", "-1"], "--epochs: a whole number of at least 0 is wanted, not '-1'"),
        (["--epochs", "two"], "--epochs: a whole number of at least 0 is wanted, not 'two'"),
        (["--batch-size", "0"], "--batch-size: a whole number of at least 1 is wanted, not '0'"),
        (["--lr", "0"], "--lr: a number above 0 is wanted, not '0'"),
        (["--lr", "nan"], "--lr: a number above 0 is wanted, not 'nan'"),
        (["--limit", "0"], "--limit: a whole number of at least 1 is wanted, not '0'"),
        (["--json", "nowhere/results.json"], "--json: there is no folder nowhere to write results.json into"),
        (["--out", __file__], "--out wants a folder, and"),
        (["--data", "nowhere"], "in nowhere"),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else None,
)
def test_options_that_cannot_be_meant_are_refused(program, capsys, script, arguments, says):
    with pytest.raises(SystemExit, match="2"):
        program(script, "out", *arguments)
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("script", IMAGES)
def test_without_matplotlib_only_the_pictures_are_missing(program, tmp_path, monkeypatch, capsys, script):
    import images

    monkeypatch.setattr(images, "find_spec", lambda name: None)
    assert program(script, "out") == 1
    said = capsys.readouterr().out
    assert "pip install matplotlib" in said and said.index("pip install") < said.index("epoch  1")
    assert list((tmp_path / "out").glob("*.png")) == [] and (tmp_path / "out" / f"{IMAGES[script][0]}.csv").is_file()


def test_every_answer_stands_in_the_confusion_table(examples, capsys):
    from images import confusion_table, print_mixed_up, share_right

    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(500, 10)), generator.integers(0, 10, 500)
    table = confusion_table(logits, labels)
    assert table.sum() == 500 and table.sum(axis=1).tolist() == np.bincount(labels, minlength=10).tolist()
    assert np.diag(table).sum() / 500 == share_right(logits, labels)
    table[:] = np.diag([5, 6, 7] + [0] * 7)
    table[2, 1] = 3
    print_mixed_up(table, "abcdefghij")
    assert capsys.readouterr().out == "\nwrong: 3 of 21; most often:\n  c called b: 3\n"


def test_the_surest_mistake_comes_first(examples):
    from images import surest_mistakes

    logits = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 5.0], [3.0, 0.0]])
    assert surest_mistakes(logits, np.array([0, 1, 0, 0]), 10).tolist() == [2, 1]
    assert surest_mistakes(logits, np.array([0, 1, 0, 0]), 1).tolist() == [2]


def test_a_result_on_less_than_all_images_is_no_milestone(examples):
    from images import budget

    def passed(learned, images, epochs):
        return [row.passed for row in budget("MNIST", learned, images, 60_000, epochs, most=3)]

    assert passed("MNIST", 60_000, 3) == [True, True]
    assert passed("MNIST", 59_999, 3) == [False, True]
    assert passed("MNIST", 60_000, 4) == [True, False]
    assert passed("8 x 8 digits", 10, 30) == [True], "nothing is asked of them, and"
    assert [row.lacking for row in budget("MNIST", "8 x 8 digits", 10, 60_000, 30, most=3)] == ["MNIST"]
    assert [row.lacking for row in budget("MNIST", "MNIST", 10, 60_000, 3, most=3)] == [None, None]


def test_a_moved_digit_loses_what_leaves_the_frame(examples):
    from lenet_1998.train_mnist import moved

    x = from_numpy(np.arange(12.0).reshape(1, 1, 3, 4))
    assert moved(x, 0).tolist() == x.tolist()
    assert moved(x, 3).tolist() == [[[[0, 0, 0, 0], [0, 0, 0, 4], [0, 0, 0, 8]]]]


def test_the_dense_network_is_as_large_as_lenet(examples):
    from lenet_1998.train_mnist import LeNet, dense_network, parameter_count

    wanted = parameter_count(LeNet())
    assert wanted == 61_706 and wanted <= parameter_count(dense_network(wanted, 784)) < wanted * 1.02


@pytest.mark.parametrize("lenet, dense, reached", [
    ([0.99, 0.97, 0.95], [0.97, 0.9, 0.8], [True, True, True, True]),
    ([0.9889, 0.97, 0.95], [0.99, 0.97, 0.96], [False, True, False, False]),
])
def test_lenet_has_to_beat_the_dense_network_where_digits_are_moved(examples, lenet, dense, reached):
    from lenet_1998.train_mnist import results

    rows = results({"LeNet": lenet, "MLP": dense}, {"LeNet": {"seconds": [1.0, 2.0]}, "MLP": {}}, 10_000)
    assert [row.passed for row in rows] == reached and [row.seconds for row in rows[:2]] == [3.0, 0]


def test_only_what_is_learned_from_is_changed_and_no_digit_is_mirrored(examples):
    from alexnet_2012.train_cnn import set_transforms

    pixels = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), np.uint8)
    training, unseen = (Images(pixels, np.arange(40) % 10) for _ in range(2))
    set_transforms("CIFAR-10", training, unseen)
    rows = list(range(40))
    (once, labels), (again, _) = training.batch(rows), training.batch(rows)
    assert once.shape == (40, 3, 32, 32) and labels.tolist() == training.labels.tolist()
    assert not np.array_equal(once.numpy(), again.numpy())
    plain = unseen.batch(rows)[0].numpy()
    assert np.array_equal(plain, unseen.batch(rows)[0].numpy()) and abs(plain.mean()) < 0.3 < plain.std() < 1.5
    assert [type(change).__name__ for change in training.transform.transforms].count("RandomHorizontalFlip") == 1
    set_transforms("8 x 8 digits", training, unseen)
    assert "RandomHorizontalFlip" not in [type(change).__name__ for change in training.transform.transforms]


def test_photographs_that_are_not_exact_are_left_out_of_a_second_number(examples, tmp_path):
    from alexnet_2012.train_cnn import inexact_rows, results

    logits, labels = np.eye(10)[[0, 1, 2, 3]], np.array([0, 1, 2, 9])
    assert [row.measured for row in results(logits, labels, [], 2.0)] == ["75.00%"]
    rows = results(logits, labels, [1, 2], 2.0)
    assert [(row.what, row.measured, row.passed) for row in rows] == [
        ("4 unseen", "75.00%", True), ("2 exact of them", "50.00%", False),
    ]
    assert inexact_rows(tmp_path) == []
    (tmp_path / "test_rows_from_jpeg.txt").write_text("3\n17\n", encoding="utf-8")
    assert inexact_rows(tmp_path) == [3, 17]


def test_the_network_has_the_same_form_for_digits(examples):
    from alexnet_2012.train_cnn import network
    from images import parameter_count

    assert parameter_count(network(3, 32)) == 591_466 and parameter_count(network(1, 8)) == 99_370
    x = from_numpy(np.zeros((2, 1, 8, 8), np.float32))
    assert network(1, 8)(x).shape == (2, 10)


@pytest.mark.skipif(DATA is None or not (DATA / "cifar10").is_dir(), reason="CIFAR-10 is not here")
def test_some_photographs_are_no_milestone_either(tmp_path):
    small = ["--limit", "64", "--epochs", "1", "--json", "results.json"]
    done = run(CNN, "--data", str(DATA), *small, cwd=tmp_path)
    assert done.returncode == 1 and "is not here" not in done.stdout, done.stderr
    rows = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["results"]
    assert (rows[0]["measured"], rows[0]["reached"]) == ("64 images", False)
    assert " called " in done.stdout and (tmp_path / "runs" / "alexnet_2012" / "mistakes.png").is_file()


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="MNIST is not here: neither in TT_DATA nor in ../shared/data")
def test_lenet_reads_a_part_of_mnist(tmp_path):
    done = run(LENET, "--limit", "6000", "--epochs", "2", "--json", "results.json", TT_DATA=str(DATA), cwd=tmp_path)
    assert done.returncode == 1 and "is not here" not in done.stdout, done.stdout + done.stderr
    part, _, digits, _, *moved = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["results"]
    assert (part["measured"], part["reached"]) == ("6,000 images", False)
    assert float(digits["measured"].rstrip("%")) > 94 and all(row["reached"] for row in moved)


# Compressed networks. LeNet is trained by the program; the other two come from what their examples leave.

TRICKS = {
    "as trained", "trained further", "90% pruned", "90% pruned, compressed rows", "90% pruned, rows of int8",
    "low rank, 25% of numbers", "int8",
}  # fmt: skip


@pytest.fixture
def compress(program, examples, tmp_path, monkeypatch):
    """Runs the program of compression with few turns, pairs and digits; its exit status and what it saved."""
    from compression_2015 import compress
    from gpt_2018 import simple_tinygpt

    monkeypatch.setattr(compress, "TURNS", 3)
    monkeypatch.setattr(compress, "PAIRS", 2)
    monkeypatch.setitem(compress.STUDENTS, "8 x 8 digits", (*compress.STUDENTS["8 x 8 digits"][:2], 2))

    def start(*arguments):
        (table := tmp_path / "table.json").unlink(missing_ok=True)
        small = ["--limit", "200", "--epochs", "1", "--again", "1", "--steps", "5", "--json", str(table)]
        folders = [f"--{name}={tmp_path / name}" for name in ("cnn", "gpt", "out")]
        status = compress.main([*small, *folders, *arguments])
        return status, json.loads(table.read_text(encoding="utf-8")) if table.exists() else None

    def others():
        program(CNN, "cnn")
        tiny = ["--layers", "2", "--heads", "3", "--width", "96", "--context", "16", "--steps", "10"]
        simple_tinygpt.main([*tiny, "--out", str(tmp_path / "gpt")])

    start.others = others
    return start


def lines_of(table, title):
    return {line["name"]: line for line in table["networks"][title]["lines"]}


def test_compressed_networks_are_as_small_as_the_table_says(compress, capsys):
    status, table = compress("--only", "lenet")
    assert status == 1 and table["results"][0]["reached"] is False, "200 digits are not all of them"
    lines = lines_of(table, "LeNet, 8 x 8 digits")
    assert lines.keys() >= TRICKS | {"half of the channels", "half of the channels, int8", "a student alone"}
    whole, pruned = lines["as trained"], lines["90% pruned"]
    assert whole["memory"] == pruned["memory"] == 4 * 42_794 and whole["file"] > whole["memory"]
    assert lines["90% pruned, rows of int8"]["memory"] < lines["90% pruned, compressed rows"]["memory"]
    assert lines["90% pruned, compressed rows"]["memory"] < 0.2 * whole["memory"]
    assert lines["90% pruned, compressed rows"]["answers"] == pruned["answers"]
    assert lines["half of the channels"]["multiply_adds"] < 0.35 * whole["multiply_adds"]
    assert 0.24 < lines["int8"]["memory"] / whole["memory"] < 0.27
    assert all(line["seconds"] > 0 and 0 <= line["answers"] <= 1 for line in lines.values())
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if len(line) > 80 or not line.isascii()] == []
    assert sum(line.startswith(tuple(lines)) for line in said) == len(lines)


def test_compression_of_the_other_networks_needs_their_checkpoints(compress, capsys):
    status, table = compress("--only", "cnn", "gpt")
    assert status == 1 and table["networks"] == {}
    assert [(row["measured"], row["reached"]) for row in table["results"]] == [("not here", False)] * 2
    said = capsys.readouterr().out
    assert "python examples/alexnet_2012/train_cnn.py --out " in said and "simple_tinygpt.py --out " in said


@pytest.mark.slow
def test_networks_of_other_examples_are_compressed_and_measured_again_without_training(compress, capsys):
    compress.others()
    _, table = compress("--only", "cnn", "gpt")
    cnn, gpt = lines_of(table, "CNN, 8 x 8 digits"), lines_of(table, "GPT, the first chapter of Moby-Dick")
    assert cnn["channels removed"]["multiply_adds"] <= 0.5 * cnn["as trained"]["multiply_adds"]
    assert [row["claim"].split(",")[0] for row in table["results"][:2]] == ["narrower CNN"] * 2
    assert gpt["hidden units and heads, q4_1"]["memory"] < 0.25 * gpt["as trained"]["memory"]
    assert table["networks"]["GPT, the first chapter of Moby-Dick"]["unit"] == "nats"
    capsys.readouterr()
    _, again = compress("--only", "cnn", "gpt", "--resume")
    assert "epoch  1" not in capsys.readouterr().out, "what was trained is not trained again"
    assert lines_of(again, "CNN, 8 x 8 digits")["90% pruned"]["answers"] == cnn["90% pruned"]["answers"]


@pytest.mark.slow
def test_compression_of_the_small_digits_holds_what_it_claims(tmp_path):
    done = run(COMPRESS, "--only", "lenet", cwd=tmp_path, **{name: str(tmp_path / "empty") for name in CACHES})
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "All reached." in done.stdout and " NO\n" not in done.stdout


def test_compression_is_judged_by_what_it_loses(examples):
    from compression_2015.compress import Line, gain, half_of_it, tenth

    def line(name, answers, multiply_adds=100, seconds=1.0):
        return Line(name, 0, 0, multiply_adds, seconds, 0.0, answers)

    whole = line("as trained", 0.99)
    assert tenth([whole, line("90% pruned", 0.9871)], 0.1, "MNIST", 0.0).passed
    assert not tenth([whole, line("90% pruned", 0.9869)], 0.1, "MNIST", 0.0).passed
    assert not tenth([whole, line("90% pruned", 0.99)], 0.2, "MNIST", 0.0).passed
    for slim, reached in (
        (line("channels removed", 0.981, 50, 0.65), [True, True, True]),
        (line("channels removed", 0.979, 51, 0.66), [False, False, False]),
    ):
        assert [row.passed for row in half_of_it([whole, slim], "CIFAR-10")] == reached
    better = gain([0.5, 0.6, 0.55, 0.5, 0.6, 0.55, 0.5, 0.6], [0.53, 0.62, 0.58, 0.52, 0.63, 0.57, 0.53, 0.62])
    assert better.passed and better.measured == "2.50 (2.05 to 2.95)"
    assert not gain([0.5, 0.6] * 4, [0.6, 0.5] * 4).passed


def test_compression_refuses_a_network_that_has_learned_from_other_data(compress, tmp_path, capsys):
    (tmp_path / "cnn").mkdir()
    (tmp_path / "cnn" / "cnn.safetensors").touch()
    (tmp_path / "cnn" / "options.json").write_text('{"data": "CIFAR-10"}', encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        compress("--only", "cnn")
    assert "has learned from CIFAR-10, but here is 8 x 8 digits" in " ".join(capsys.readouterr().err.split())
