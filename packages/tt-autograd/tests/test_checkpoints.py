"""Chapter 08 beyond its exercises: checkpoints to the bit, schedules, the bar, and what is refused."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

import tt_autograd as ta
import tt_optim as to
import tt_tensor as tt
from tt_tensor.teaching import expect


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


class Weights(tt.Module):
    """Two weights, w and v, whose loss below is 3 w + 4 v: the gradients are always 3 and 4."""

    def __init__(self):
        super().__init__()
        self.w, self.v = tt.Parameter([0.0]), tt.Parameter([0.0])

    def forward(self, x):
        return 3 * x * self.w + 4 * x * self.v


def mean(outputs, targets):
    return outputs.mean()


def fit_weights(steps=1, **options):
    """The weights after some steps of SGD with rate 1 on the loss 3 w + 4 v."""
    model = Weights()
    ta.fit(
        model,
        mean,
        to.SGD(model.parameters(), lr=1.0),
        [(tt.ones(1), tt.ones(1))],
        epochs=steps,
        progress=False,
        **options,
    )
    return [model.w.item(), model.v.item()]


def test_a_progress_bar_shows_the_loss(capsys):
    model = Weights()
    ta.fit(model, mean, to.SGD(model.parameters()), [(tt.ones(1), tt.ones(1))] * 3, epochs=2, progress=True)
    shown = capsys.readouterr().err
    assert "epoch 2/2" in shown and "3/3" in shown and "loss=" in shown


@pytest.mark.parametrize(
    "wrong, error, words",
    [
        (lambda fit: ta.Batches(tt.ones(4), tt.ones(3)), ValueError, "4 inputs.*3 targets"),
        (lambda fit: ta.Batches(tt.ones(4), tt.ones(4), batch_size=0), ValueError, "0"),
        (lambda fit: fit(loss=lambda outputs, targets: outputs.mean() * np.nan), RuntimeError, "nan.*learning rate"),
        (lambda fit: fit(data=iter(())), ValueError, "no batch"),
        (lambda fit: fit(epochs=-1), ValueError, "-1"),
        (lambda fit: fit(accumulate=0), ValueError, "0"),
        (lambda fit: fit(resume=True), ValueError, "checkpoint"),
        (lambda fit: ta.EarlyStopping(mode="low"), ValueError, "low"),
        (lambda fit: ta.evaluate(tt.Identity(), mean, []), ValueError, "no batch"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(wrong, error, words):
    def fit(loss=mean, data=None, epochs=1, **options):
        model, data = Weights(), data or [(tt.ones(1), tt.ones(1))]
        ta.fit(model, loss, to.SGD(model.parameters()), data, epochs=epochs, progress=False, **options)

    with pytest.raises(error, match=words):
        wrong(fit)


def test_a_schedule_moves_the_rate():
    model = Weights()
    optimizer = to.SGD(model.parameters(), lr=1.0)
    history = ta.fit(
        model,
        mean,
        optimizer,
        [(tt.ones(1), tt.ones(1))] * 2,
        epochs=3,
        callbacks=[ta.Schedule(to.StepLR(optimizer, 1, 0.5))],
        progress=False,
    )
    assert optimizer.param_groups[0]["lr"] == 0.125 and len(history["lr"]) == 3
    with pytest.raises(ValueError, match="loss"):
        plateau = ta.Schedule(to.ReduceLROnPlateau(optimizer), monitor="val_loss")
        ta.fit(model, mean, optimizer, [(tt.ones(1), tt.ones(1))], epochs=1, callbacks=[plateau], progress=False)


# Checkpoints: every bit, every moment.


class PowerCut(ta.Callback):
    """Ends the program after some steps."""

    def __init__(self, after=None):
        self.after = after

    def on_step(self, run):
        if run.steps == self.after:
            raise KeyboardInterrupt


def train(path, cut_after=None, resume=False, seed=3):
    """What everything is after a training with dropout, momentum and a schedule that moves with each step."""
    tt.manual_seed(seed)
    (x, y), _ = ta.training.digits()
    model = tt.Sequential(tt.Linear(64, 8), tt.ReLU(), tt.Dropout(0.3), tt.Linear(8, 10))
    optimizer = to.Adam(model.parameters(), lr=0.01)
    schedule = to.CosineAnnealingLR(optimizer, 20)
    history = ta.fit(
        model,
        tt.cross_entropy,
        optimizer,
        ta.Batches(x[:72], y[:72], 16, shuffle=True),
        epochs=4,
        callbacks=[ta.Schedule(schedule, each="step"), PowerCut(cut_after)],
        checkpoint=path,
        checkpoint_every=2,
        resume=resume,
        progress=False,
    )
    history.pop("seconds")
    return {
        "weights": [p.tolist() for p in model.parameters()],
        "optimizer": repr(optimizer.state_dict()),
        "schedule": schedule.state_dict(),
        "random state": tt.get_rng_state(),
        "history": dict(history),
    }


@pytest.mark.parametrize("cut_after", [3, 5, 12, 19])
def test_a_resumed_training_ends_with_the_same_bits(tmp_path, cut_after):
    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", cut_after)
    resumed = train(tmp_path / "cut", resume=True, seed=99)
    for what, state in whole.items():
        expect(
            f"is the {what} after a cut at step {cut_after} and a resume that of an unbroken training?",
            resumed[what] == state,
            True,
            f"Save the {what}; and the position in the data, which is how chance stood when the epoch began and how "
            "many batches have been seen since.",
            see="The run",
        )


def test_resuming_a_finished_training_does_nothing(tmp_path):
    whole = train(tmp_path / "run")
    assert train(tmp_path / "run", resume=True)["weights"] == whole["weights"]


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    fit_weights(checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match=r"0 callbacks.*1"):
        fit_weights(checkpoint=tmp_path / "run", resume=True, callbacks=[ta.Callback()])


def test_a_checkpoint_holds_tensors_and_plain_values(tmp_path):
    state = {
        "weights": {"0.weight": tt.Tensor([[1.5, 2.5]])},
        "betas": (0.9, 0.999),
        "epoch": 3,
        7: [None, "text", True],
        "empty": tt.zeros(0, 3),
    }
    ta.save_checkpoint(tmp_path / "file", state)
    assert repr(ta.load_checkpoint(tmp_path / "file")) == repr(state)
    with pytest.raises(FileNotFoundError, match="nothing"):
        ta.load_checkpoint(tmp_path / "nothing")


def round_trip(folder, state):
    ta.save_checkpoint(folder / "file", state)
    return ta.load_checkpoint(folder / "file")


def one(value):
    return tt.Tensor([value])


@pytest.mark.parametrize(
    "state",
    [
        {"a.b": one(1.0), "a": {"b": one(2.0)}},
        {"a": {"b": one(1.0)}, "a.b": one(2.0), "a.b'": one(3.0)},
        {1: one(1.0), "1": one(2.0), (0, 1): one(3.0), "(0, 1)": one(4.0), 1.5: 1, None: 2, False: {}},
        {(0, ("x", 2)): one(1.0), (): 1},
        {"__metadata__": one(1.0), "": one(2.0), " ": one(3.0)},
        {"a": [one(1.0), (one(2.0), {"0": one(3.0)})], "a.0": one(4.0), "a.1.0": one(5.0)},
        {"\ud800": one(1.0), "\\ud800": one(2.0), "ä.ö": one(3.0)},
        {"nothing": tt.zeros(0, 3), "number": tt.tensor(1.5), "nan": [float("nan"), float("-inf"), 10**40]},
        {str(d): tt.zeros(2, dtype=d) for d in (tt.float16, tt.float64, tt.int32, tt.uint8, tt.bool_)},
        {},
        [one(1.0), 2],
    ],
    ids=str,
)
def test_what_comes_out_is_what_went_in(state, tmp_path):
    assert repr(round_trip(tmp_path, state)) == repr(state)


@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", ">i4", ">u2", "<f4"])
def test_the_order_of_bytes_does_not_matter(dtype, tmp_path):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    got = round_trip(tmp_path, {"x": array, "strided": array[:, ::2]})
    assert got["x"].tolist() == array.tolist() and got["x"].dtype == np.dtype(dtype).newbyteorder("=")
    assert got["strided"].tolist() == array[:, ::2].tolist()


@pytest.mark.parametrize(
    "state, words",
    [
        ({"a": {"b": np.array(["text"])}}, "a.b.*<U4"),
        ({"a": [np.array([1j])]}, "a.0.*complex128"),
        ({"a": np.array([None])}, "a: ndarray of object"),
        ({"a": np.ma.array([1.0, 2.0], mask=[0, 1])}, "a: MaskedArray"),
        ({"a": {"b": b"bytes"}}, "a.b is a bytes"),
        ({"a": {1, 2}}, "a is a set"),
        ({"a": 1j}, "a is a complex"),
        ({"a": {frozenset(): 1}}, "key frozenset.*of a"),
        ({one(1.0): 1}, "a key of the state holds a tensor"),
    ],
    ids=str,
)
def test_what_a_checkpoint_cannot_hold_is_refused_by_its_path(state, words, tmp_path):
    ta.save_checkpoint(tmp_path / "file", {"old": 1})
    with pytest.raises(TypeError, match=words):
        ta.save_checkpoint(tmp_path / "file", state)
    assert ta.load_checkpoint(tmp_path / "file") == {"old": 1} and len(list(tmp_path.iterdir())) == 1


def test_the_path_comes_first(tmp_path):
    for wrong in (lambda: ta.save_checkpoint({"w": 1}, tmp_path / "file"), lambda: ta.save_checkpoint({}, "file")):
        with pytest.raises(TypeError, match="takes the path of a file first.*dict and (Posix|Windows)?(Path|str)"):
            wrong()
    with pytest.raises(TypeError, match="not dict"):
        ta.load_checkpoint({})
    itself = {}
    itself["itself"] = itself
    with pytest.raises(ValueError, match="contains itself"):
        ta.save_checkpoint(tmp_path / "file", itself)


def test_types_that_numpy_does_not_have_are_named(tmp_path):
    header = b'{"model.embed":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ValueError, match=r"file is a safetensors.*bfloat16.*model.embed with BF16.*float32"):
        ta.load_checkpoint(tmp_path / "file")


# {'w': {'0.weight': [1.5]}, 7: (1, [None, True]), 'betas': (0.9, 0.999)}, as the first version wrote it.

EARLIER = (
    "50010000000000007b225f5f6d657461646174615f5f223a7b22696e666f223a227b5c22646963745c223a205b5b5c22775c"
    "222c207b5c22646963745c223a205b5b5c22302e7765696768745c222c207b5c2274656e736f725c223a205c22772e302e77"
    "65696768745c227d5d5d7d5d2c205b372c207b5c227475706c655c223a205b312c207b5c226c6973745c223a205b6e756c6c"
    "2c20747275655d7d5d7d5d2c205b5c2262657461735c222c207b5c227475706c655c223a205b302e392c20302e3939395d7d"
    "5d5d7d222c22736861323536223a226165613364343839666561366539623039343165353938633366363232373333346236"
    "3436613235653537323632353235326631636537356234313261313663227d2c22772e302e776569676874223a7b22647479"
    "7065223a22463332222c227368617065223a5b315d2c22646174615f6f666673657473223a5b302c345d7d7d0000c03f"
)


def test_a_file_of_an_earlier_version_still_loads(tmp_path):
    (tmp_path / "file").write_bytes(bytes.fromhex(EARLIER))
    wanted = {"w": {"0.weight": one(1.5)}, 7: (1, [None, True]), "betas": (0.9, 0.999)}
    assert repr(ta.load_checkpoint(tmp_path / "file")) == repr(wanted)


def test_every_flipped_bit_is_noticed(tmp_path):
    file = tmp_path / "file"
    ta.save_checkpoint(file, {"w": tt.Tensor([1.0, -2.0]), "epoch": 1})
    whole, silent = file.read_bytes(), []
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            ta.load_checkpoint(file)
        except ValueError as error:
            assert str(file) in str(error)
        else:
            silent.append(bit)
    assert not silent, (
        f"flipped bits that load_checkpoint took no notice of: {silent[:10]}, {len(silent)} of {8 * len(whole)}"
    )


def test_every_truncation_is_noticed(tmp_path):
    file = tmp_path / "file"
    ta.save_checkpoint(file, {"w": tt.Tensor([1.0, -2.0])})
    whole = file.read_bytes()
    for damaged in [whole[:length] for length in range(len(whole))] + [whole + b"\0"]:
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="file"):
            ta.load_checkpoint(file)


SAVER = """
import os, sys
import tt_autograd, tt_tensor
for line in sys.stdin:
    saving = os.fork()
    if not saving:
        tt_autograd.save_checkpoint(sys.argv[1], {"w": tt_tensor.full((2_000_000,), float(line)), "number": int(line)})
        os._exit(0)
    sys.stdin.readline()
    os.kill(saving, 9)
    os.waitpid(saving, 0)
    print("killed", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kill -9 needs processes as POSIX has them")
def test_a_save_that_is_killed_leaves_the_old_file_or_the_new_one(tmp_path):
    path, old, finished = tmp_path / "file", 0, 0
    ta.save_checkpoint(path, {"w": tt.zeros(2_000_000), "number": 0})
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", SAVER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as saver:
        for number in range(1, 31):
            before = looks_of(tmp_path)
            print(number, file=saver.stdin, flush=True)
            while looks_of(tmp_path) == before:
                time.sleep(1e-4)
            time.sleep(number * 2e-4)
            print("kill", file=saver.stdin, flush=True)
            assert saver.stdout.readline() == "killed\n"
            found = ta.load_checkpoint(path)
            assert found["number"] in (old, number) and (found["w"] == found["number"]).all()
            finished, old = finished + (found["number"] == number), found["number"]
        saver.stdin.close()
    assert finished < 30, "no kill came early enough to be a test"


def looks_of(folder):
    """Names, sizes and times of the files: what changes first when somebody writes."""
    return {(entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in os.scandir(folder)}
