"""torch.save of a whole module: what comes back is the same tree, and nothing of a file runs."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest

import tinytorch as torch
from tinytorch import nn
from tt_autograd import save_checkpoint

MARK = "tinytorch"


class Net(nn.Module):
    """A module with what programs give to theirs: parts, tied weights, buffers, options, tensors and a function."""

    made = 0

    def __init__(self):
        super().__init__()
        Net.made += 1
        self.table = nn.Embedding(5, 4)
        self.out = nn.Linear(4, 5, bias=False)
        self.out.weight = self.table.weight
        self.rest = nn.Sequential(nn.BatchNorm1d(5), nn.Dropout(0.5), nn.GELU(approximate="tanh"))
        self.register_buffer("scale", torch.full((5,), 2.0))
        self.sizes, self.kind, self.nothing = {"in": (5, [4])}, "small", None
        self.act, self.mask = nn.functional.relu, torch.eye(5, dtype=torch.bool)
        self.parts = [self.table, self]
        self.out.weight.requires_grad_(False)

    def forward(self, x):
        return self.rest(self.act(self.out(self.table(x)))) * self.scale


class Loose(nn.Module):
    """A module without anything."""

    def method(self):
        """Not to be hidden."""


def there_and_back(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def trained():
    torch.manual_seed(0)
    net = Net()
    net(torch.arange(5))
    return net.eval()


def test_a_module_comes_back():
    net, x = trained(), torch.arange(5)
    made = Net.made
    again = there_and_back(net)
    assert Net.made == made and type(again) is Net and repr(again) == repr(net) and not again.training
    np.testing.assert_array_equal(again(x).detach().numpy(), net(x).detach().numpy())
    assert again.state_dict().keys() == net.state_dict().keys()
    assert (again.sizes, again.kind, again.nothing, again.act) == (net.sizes, "small", None, nn.functional.relu)
    assert again.mask.dtype == torch.bool and again.rest[2].approximate == "tanh"


def test_what_was_shared_is_shared_again():
    net = trained()
    found = there_and_back({"net": net, "same": [net], "weight": net.out.weight, "epoch": 3})
    again = found["net"]
    assert again is found["same"][0] and again.parts[1] is again and again.parts[0] is again.table
    assert again.out.weight is again.table.weight is found["weight"] and found["epoch"] == 3
    assert isinstance(again.out.weight, nn.Parameter) and not again.out.weight.requires_grad
    assert again.rest[0].weight.requires_grad and again.rest[0].weight is not net.rest[0].weight


def test_it_goes_on_learning():
    net = trained().train()
    again = there_and_back(net)
    for one in (net, again):
        torch.manual_seed(1)
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
        one(torch.arange(5)).square().sum().backward()
        optimizer.step()
    np.testing.assert_array_equal(again.rest[0].weight.detach().numpy(), net.rest[0].weight.detach().numpy())


def test_a_parameter_alone_stays_one():
    again = there_and_back([nn.Parameter(torch.ones(2)), torch.ones(2, requires_grad=True)])
    assert [isinstance(t, nn.Parameter) for t in again] == [True, False] and all(t.requires_grad for t in again)


@pytest.mark.parametrize("make", [
    lambda: nn.LSTM(3, 4, 2, dropout=0.5), lambda: nn.Conv2d(3, 4, 3, padding=1), lambda: nn.MultiheadAttention(4, 2),
    lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, activation="gelu"), 2), lambda: nn.Transformer(8),
    lambda: nn.CrossEntropyLoss(weight=torch.ones(3)), lambda: nn.ModuleDict({"a": nn.Softmax(dim=1)}),
])
def test_layers_of_every_package(make):
    net = make()
    again = there_and_back(net)
    assert str(again.state_dict()) == str(net.state_dict())
    assert [type(part) for part in again.modules()] == [type(part) for part in net.modules()]


def with_attribute(value):
    net = Loose()
    net.extra = {"deep": [value]}
    return net


def with_a_hook():
    net = nn.Linear(1, 1)
    net.register_forward_hook(print)
    return net


def with_another_method():
    net = Loose()
    net.method = 3
    return net


def of_a_hidden_class():
    class Hidden(nn.Module):
        pass

    return Hidden()


@pytest.mark.parametrize("make, message", [
    (lambda: with_attribute(lambda x: x), r"Loose\.extra\['deep'\]\[0\] is a function: save its state_dict\(\)"),
    (lambda: with_attribute(os.system), "is a builtin_function_or_method"),
    (lambda: with_attribute(io.BytesIO()), "is a BytesIO"),
    (with_a_hook, "Linear has hooks of its own, which is code"),
    (with_another_method, "Loose has method of its own, which is code"),
    (of_a_hidden_class, "cannot be found by that name"),
    (lambda: nn.LazyLinear(2), "has no shape yet"),
])
def test_more_than_plain_data_is_refused(make, message, tmp_path):
    torch.save([1], tmp_path / "x.pt")
    with pytest.raises(RuntimeError, match=message):
        torch.save(make(), tmp_path / "x.pt")
    assert torch.load(tmp_path / "x.pt") == [1] and os.listdir(tmp_path) == ["x.pt"]


def test_a_removed_hook_is_no_obstacle():
    net = nn.Linear(1, 1)
    net.register_forward_hook(print).remove()
    assert isinstance(there_and_back(net), nn.Linear)


def test_a_class_that_was_not_imported_is_refused(tmp_path):
    path = tmp_path / "net.pt"
    torch.save(trained(), path)
    code = "import sys, tinytorch; tinytorch.load(sys.argv[1])"
    process = subprocess.run([sys.executable, "-c", code, path], capture_output=True, encoding="utf-8")
    assert "RuntimeError: net.pt holds a module of class " in process.stderr
    assert "import or define it before torch.load" in process.stderr


def test_our_own_classes_need_not_be_imported(tmp_path):
    path = tmp_path / "net.pt"
    torch.save(nn.Sequential(nn.LSTM(2, 3)), path)
    code = "import sys, tinytorch; print(type(tinytorch.load(sys.argv[1])[0]).__name__)"
    assert subprocess.run([sys.executable, "-c", code, path], capture_output=True).stdout.split() == [b"LSTM"]


# -- files with a right checksum, written to do harm ------------------------------------------------

DRAWERS = {"_parameters": {}, "_buffers": {}, "_modules": {}, "training": True}
REFERENCE = {(MARK, "Module"): 0}


def read(path, name="test:Loose", attributes=None, tensors=(), **changed):
    attributes = DRAWERS if attributes is None else attributes
    content = {"modules": [{"class": name, "attributes": attributes}], "tensors": [*tensors], "state": REFERENCE}
    save_checkpoint(path / "x.pt", {(MARK, "modules"): content | changed})
    return torch.load(path / "x.pt")


OWN = f"{__name__}:Loose"


def test_the_file_that_the_others_change_can_be_read(tmp_path):
    assert type(read(tmp_path, OWN)) is Loose


@pytest.mark.parametrize("name", [
    "os:system", "builtins:eval", "subprocess:Popen", "os:_Environ", "nowhere:Net", "", ":", "os",
    f"{__name__}:Loose.method", f"{__name__}:Loose.__init__.__globals__", f"{__name__}:nn.Linear.__class__",
    "tt_tensor.layers:Module.__mro__",
    "tt_opt.parallel:DataParallel", "antigravity:Net", "tinytorch:Tensor",
])
def test_only_module_classes_that_are_here(name, tmp_path):
    with pytest.raises(RuntimeError, match="this program has imported no such class"):
        read(tmp_path, name)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("attributes", [
    {}, [], {"_parameters": {}}, DRAWERS | {"_parameters": {"w": 3}}, DRAWERS | {"_modules": {"a": torch.ones(1)}},
    DRAWERS | {"_modules": {3: None}}, DRAWERS | {"_buffers": []}, DRAWERS | {"forward": 1}, DRAWERS | {"method": 1},
    DRAWERS | {"__class__": 1}, DRAWERS | {"_hooks": 1}, DRAWERS | {3: 1}, DRAWERS | {"no name": 1},
    DRAWERS | {"a": {(MARK, "function"): "load"}}, DRAWERS | {"a": {(MARK, "function"): "__class__"}},
    DRAWERS | {"a": {(MARK, "Module"): 1}}, DRAWERS | {"a": {(MARK, "Tensor"): 0}},
    DRAWERS | {"a": {(MARK, "more"): 0}}, DRAWERS | {"a": {(MARK, "Module"): "x"}},
    DRAWERS | {"a": {(MARK, "Absent"): "_np"}}, DRAWERS | {"a": {(MARK, "dtype"): "no dtype"}},
])
def test_attributes_that_a_module_cannot_have(attributes, tmp_path):
    with pytest.raises(ValueError, match=r"x\.pt is damaged, or is not a file that torch\.save wrote"):
        read(tmp_path, OWN, attributes)


@pytest.mark.parametrize("changed", [
    {"modules": 3}, {"modules": [3]}, {"modules": [{"class": 3}]}, {"tensors": [3]}, {"tensors": [{"data": 3}]},
    {"tensors": [{"data": 3, "parameter": True, "requires_grad": True}]},
    {"tensors": [{"data": torch.arange(2), "parameter": True, "requires_grad": True}]},
    {"state": {(MARK, "Module"): 9}},
])
def test_a_file_of_another_form(changed, tmp_path):
    with pytest.raises(ValueError, match="is damaged, or is not a file"):
        read(tmp_path, OWN, **changed)


def test_a_flipped_bit_is_noticed(tmp_path):
    torch.save(trained(), tmp_path / "net.pt")
    whole = (tmp_path / "net.pt").read_bytes()
    for place in range(0, len(whole), 97):
        with pytest.raises(ValueError, match=r"net\.pt"):
            torch.load(io_of(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]))


def io_of(content):
    file = io.BytesIO(content)
    file.name = "net.pt"
    return file
