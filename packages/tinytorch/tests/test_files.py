"""save and load: what comes out is what went in; torch's own files are read without running anything of theirs."""

import argparse
import importlib.util
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

import tinytorch as torch
from tinytorch import nn

_spec = importlib.util.spec_from_file_location("archives", Path(__file__).with_name("archives.py"))
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)


def there_and_back(value, **options):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, **options)


def same(one, other):
    assert type(one) is type(other) or {type(one), type(other)} <= {dict, OrderedDict}
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    elif isinstance(one, dict):
        same([*one], [*other])
        same([*one.values()], [*other.values()])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other):
            same(a, b)
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype and one.flags.writeable == other.flags.writeable
    else:
        assert one == other


@pytest.mark.parametrize("value", [
    {"model": {"weight": torch.ones(2, 3), "bias": torch.zeros(0)}, "step": 3, "loss": 0.5, "best": None, "name": "a"},
    [torch.arange(3), (torch.tensor(1.5), True)],
    torch.eye(2),
    {"dtype": torch.float16, "absent": torch.bfloat16, "device": torch.device("cuda", 1), 3: {4.5: "x", (1, 2): []}},
    OrderedDict(a=torch.ones(1, dtype=torch.int8)),
    argparse.Namespace(lr=0.1, layers=[1, 2]),
    {"array": np.arange(3), "set": {1, 2}},
    np.ones((2, 3)),
    [np.array(2.5), (np.zeros((0, 2), np.float32), np.arange(2, dtype=np.uint16))],
    {"flags": torch.tensor([True, False]), "wide": torch.ones(2, dtype=torch.float64), "big": 2**70},
])
def test_there_and_back(value):
    same(there_and_back(value), value)


def test_to_a_path_and_in_place_of_an_older_file(tmp_path):
    path = tmp_path / "state.pt"
    torch.save({"a": torch.ones(2)}, path)
    torch.save({"a": torch.zeros(2)}, str(path))
    assert torch.load(path, map_location=torch.device("cpu"), weights_only=True)["a"].tolist() == [0.0, 0.0]
    assert os.listdir(tmp_path) == ["state.pt"]


def test_a_training_continues(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)

    def step(net, optimizer):
        optimizer.zero_grad()
        net(torch.ones(2, 3)).sum().backward()
        optimizer.step()

    step(net, optimizer)
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "run.pt")
    step(net, optimizer)
    again = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    other = torch.optim.Adam(again.parameters(), lr=0.1)
    state = torch.load(tmp_path / "run.pt", map_location="cpu")
    again.load_state_dict(state["net"])
    other.load_state_dict(state["optimizer"])
    step(again, other)
    same(again.state_dict(), net.state_dict())


def test_a_whole_optimizer_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match=r"a whole SGD cannot be saved.*state_dict\(\)"):
        torch.save({"all": torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1)}, tmp_path / "x.pt")
    assert os.listdir(tmp_path) == []


def test_what_a_state_cannot_hold_is_refused(tmp_path):
    with pytest.raises(TypeError, match="a checkpoint holds tensors"):
        torch.save({"f": test_there_and_back}, tmp_path / "x.pt")


def test_only_the_cpu():
    assert there_and_back([1], map_location=lambda storage, place: storage) == [1]
    assert there_and_back([1], map_location={"cuda:0": "cpu"}) == [1]
    with pytest.raises(RuntimeError, match="cuda:0 is not available"):
        there_and_back([1], map_location="cuda:0")


def test_safe_globals_are_accepted():
    torch.serialization.add_safe_globals([OrderedDict])
    with torch.serialization.safe_globals([OrderedDict]):
        assert there_and_back([1]) == [1]


# -- torch's own files ------------------------------------------------------------------------------------------------


def read(content: bytes):
    return torch.load(io.BytesIO(content))


def test_strided_views_share_their_storage():
    whole = make.tensor(make.SIX, 0, (2, 3), (3, 1))
    turned = make.tensor(make.SIX, 1, (3, 1), (1, 3), requires_grad=True)
    state = read(make.simple(whole=whole, turned=turned, scalar=make.tensor(make.SIX, 5, (), ())))
    assert state["whole"].tolist() == [[0, 1, 2], [3, 4, 5]] and state["turned"].tolist() == [[1], [2], [3]]
    assert state["turned"].requires_grad and not state["whole"].requires_grad and state["scalar"].item() == 5
    state["whole"][0, 1] = 9.0
    assert state["turned"].tolist() == [[9], [2], [3]]


@pytest.mark.parametrize("kind, dtype", [
    ("DoubleStorage", "f8"), ("HalfStorage", "f2"), ("LongStorage", "i8"), ("IntStorage", "i4"), ("ShortStorage", "i2"),
    ("CharStorage", "i1"), ("ByteStorage", "u1"), ("BoolStorage", "?"),
])
def test_every_dtype(kind, dtype):
    values = np.array([0, 1, 1, 0]).astype(dtype)
    pickle = make.pickled(make.tensor(make.storage(kind, "7", 4), 0, (4,), (1,)))
    got = read(make.archive(pickle, {"7": values.tobytes()}))
    assert got.dtype == values.dtype and got.tolist() == values.tolist()


def test_bfloat16_is_widened():
    bits = (np.array([1.5, -2.0, 3.140625], np.float32).view(np.uint32) >> 16).astype("<u2")
    tensor = make.tensor(make.storage("BFloat16Storage", "0", 3), 0, (3,), (1,))
    got = read(make.archive(make.pickled(tensor), {"0": bits.tobytes()}))
    assert got.dtype == torch.float32 and got.tolist() == [1.5, -2.0, 3.140625]


def test_an_empty_tensor_and_a_dtype():
    empty = make.tensor(make.storage("FloatStorage", "0", 0), 0, (0, 3), (3, 1))
    content = make.archive(make.pickled(make.dictionary(e=empty, d=make.name_of("torch", "float16"))), {"0": b""})
    assert read(content)["e"].shape == (0, 3) and read(content)["d"] is torch.float16


HARMFUL = [
    make.name_of("os", "system") + b"(" + make.text("touch harmed") + b"tR",
    make.name_of("builtins", "eval") + b"(" + make.text("open('harmed', 'w')") + b"tR",
    make.name_of("posix", "system") + b"(" + make.text("touch harmed") + b"tR",
    make.name_of("torch", "Tensor") + b")R",
    make.name_of("torch.nn.modules.linear", "Linear") + b")\x81}b",
    make.name_of("__main__", "Net") + b")\x81}b",
    make.name_of("torch._utils", "_rebuild_tensor_v2.__globals__") + b".",
    make.name_of("tinytorch._torch_files", "np") + b".",
]


@pytest.mark.parametrize("harmful", HARMFUL, ids=range(len(HARMFUL)))
def test_nothing_of_a_harmful_file_runs(harmful, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="asks for .*nothing of it was run"):
        read(make.simple(x=harmful))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", [
    make.tensor(make.SIX, 0, (7,), (1,)), make.tensor(make.SIX, 5, (2,), (1,)), make.tensor(make.SIX, -1, (2,), (1,)),
    make.tensor(make.SIX, 0, (2, -3), (1, 1)), make.tensor(make.SIX, 0, (2,), (-1,)),
    make.tensor(make.SIX, 0, (2, 3), (100, 1)),
    make.tensor(make.SIX, 0, (2, 3), (3,)), make.tensor(make.storage("FloatStorage", "0", 7), 0, (7,), (1,)),
    make.tensor(make.storage("FloatStorage", "9", 6), 0, (6,), (1,)), make.tensor(make.text("six"), 0, (6,), (1,)),
    make.storage("FloatStorage", "../data.pkl", 6), b"(" + make.text("other") + b"tQ", b"R", b"(((",
])
def test_a_tensor_that_does_not_fit_is_refused(value):
    with pytest.raises(ValueError, match="is damaged"):
        read(make.simple(x=value))


def test_a_damaged_file_is_refused(tmp_path):
    whole = make.simple(x=make.tensor(make.SIX, 0, (6,), (1,)))
    for end in (5, 40, len(whole) // 2, len(whole) - 10):
        with pytest.raises(ValueError, match="damaged"):
            read(whole[:end])
    at = whole.index(np.arange(6, dtype="<f4").tobytes()[4:])
    with pytest.raises(ValueError, match="damaged"):
        read(whole[:at] + b"\xff" + whole[at + 1 :])
    for content in (b"", b"no file of this kind", bytes(100)):
        with pytest.raises(ValueError, match="damaged or is no"):
            read(content)
    (tmp_path / "x.pt").write_bytes(whole[:50])
    with pytest.raises(ValueError, match="x.pt is damaged"):
        torch.load(tmp_path / "x.pt")


def test_an_archive_of_another_kind_is_refused():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("word/document.xml", "text")
    with pytest.raises(ValueError, match=r"no data\.pkl"):
        read(file.getvalue())
    program = make.archive(make.pickled(b"}"), {}, **{"constants.pkl": b""})
    with pytest.raises(RuntimeError, match="TorchScript"):
        read(program)


def test_a_bomb_is_refused():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        tensor = make.tensor(make.storage("ByteStorage", "0", 10**7), 0, (1,), (1,))
        made.writestr("archive/data.pkl", make.pickled(tensor))
        made.writestr("archive/data/0", bytes(10**7), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="storage 0 has"):
        read(file.getvalue())


def test_a_pickle_is_refused(tmp_path):
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    with pytest.raises(RuntimeError, match=r"old\.pth is a pickle, as torch\.save wrote before 1\.6"):
        torch.load(tmp_path / "old.pth", weights_only=False)


def test_there_is_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        torch.load(tmp_path / "none.pt")


def test_a_file_of_ours_may_begin_with_any_byte(tmp_path):
    """It begins with the length of its header, which may look like the beginning of a pickle."""
    first = set()
    for letters in range(1, 300, 8):
        torch.save({"w" * letters: torch.ones(1)}, tmp_path / "net.pt")
        first.add((tmp_path / "net.pt").read_bytes()[0])
        assert torch.load(tmp_path / "net.pt") == {"w" * letters: torch.ones(1)}
    assert 0x80 in first
