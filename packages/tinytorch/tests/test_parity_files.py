"""Files that torch itself has written."""

import io

import numpy as np
import pytest

import tinytorch
from tinytorch import nn

torch = pytest.importorskip("torch")


def read(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    file.seek(0)
    return tinytorch.load(file, map_location="cpu", weights_only=True)


DTYPES = "float32 float64 float16 int64 int32 int16 int8 uint8 bool uint16 uint32 uint64".split()


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype(name):
    there = torch.arange(6).reshape(2, 3).to(getattr(torch, name)).T
    here = read({"x": [there]})["x"][0]
    assert here.dtype.name == name
    np.testing.assert_array_equal(here.numpy(), there.numpy())


def test_bfloat16_is_widened():
    there = torch.randn(5).to(torch.bfloat16)
    np.testing.assert_array_equal(read(there).numpy(), there.float().numpy())


@pytest.mark.parametrize("make", [
    lambda x: x[1:, ::2], lambda x: x.T, lambda x: x[0, 0], lambda x: x.expand(2, 3, 4), lambda x: x[:0],
    torch.nn.Parameter,
])
def test_views(make):
    there = make(torch.arange(12.0).reshape(3, 4))
    here = read(there)
    assert here.shape == tuple(there.shape) and here.requires_grad == there.requires_grad
    np.testing.assert_array_equal(here.detach().numpy(), there.detach().numpy())


def test_a_network_of_torchs_is_loaded():
    layers = torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten(), torch.nn.Linear(8, 3)
    there = torch.nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(there.parameters(), lr=0.1)
    there(torch.randn(2, 1, 4, 4)).sum().backward()
    optimizer.step()
    states = {"net": there.state_dict(), "optimizer": optimizer.state_dict()}
    state = read({**states, "epoch": 3, "size": torch.Size([2]), "on": torch.device("cpu")})
    here = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    here.load_state_dict(state["net"])
    assert state["epoch"] == 3 and state["optimizer"]["param_groups"][0]["lr"] == 0.1
    x = torch.randn(2, 1, 4, 4)
    there.eval(), here.eval()
    got = here(tinytorch.from_numpy(x.numpy())).detach().numpy()
    np.testing.assert_allclose(got, there(x).detach().numpy(), atol=1e-5)


def test_tied_tensors_stay_tied():
    x = torch.ones(3)
    state = read({"a": x, "b": x, "c": x[1:]})
    state["a"][1] = 5.0
    assert state["b"].tolist() == [1.0, 5.0, 1.0] and state["c"].tolist() == [5.0, 1.0]


@pytest.mark.parametrize("value, asked", [
    (torch.nn.Linear(1, 1), r"torch\.nn\.modules\.linear\.Linear"), (torch.zeros(2).to_sparse(), "sparse"),
    (np.float64(1.5), "numpy"),
])
def test_more_than_plain_tensors_is_refused(value, asked):
    with pytest.raises(RuntimeError, match=f"asks for .*{asked}.*nothing of it was run"):
        read(value)


def test_complex_numbers_are_refused():
    with pytest.raises(RuntimeError, match="ComplexFloatStorage"):
        read(torch.zeros(2, dtype=torch.complex64))


def test_a_file_of_the_older_format_is_refused():
    with pytest.raises(RuntimeError, match=r"before 1\.6"):
        read([torch.ones(1)], _use_new_zipfile_serialization=False)


def test_a_program_is_refused(tmp_path):
    with pytest.warns():
        torch.jit.script(torch.nn.Linear(1, 1)).save(tmp_path / "x.pt")
    with pytest.raises(RuntimeError, match="TorchScript"):
        tinytorch.load(tmp_path / "x.pt")
