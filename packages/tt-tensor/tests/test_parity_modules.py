"""Modules and containers beside torch's: names, order, states, hooks and what is refused."""

from collections import OrderedDict

import numpy as np
import pytest

import tt_tensor as tt

torch = pytest.importorskip("torch")
SIDES = [pytest.param(tt, tt, id="ours"), pytest.param(torch.nn, torch, id="torch")]


def both(function):
    """A test for each library; its assertions say what they have in common."""
    return pytest.mark.parametrize("nn, lib", SIDES)(function)


def names(module):
    return [name for name, _ in module.named_parameters()]


@both
def test_walks_have_options(nn, lib):
    shared = nn.Linear(2, 2)
    net = nn.Sequential(OrderedDict(a=shared, b=nn.Sequential(nn.Linear(2, 3, bias=False)), c=shared))
    assert names(net) == ["a.weight", "a.bias", "b.0.weight"] and list(net.parameters(recurse=False)) == []
    assert [n for n, _ in net.named_parameters("x", remove_duplicate=False)] == [
        "x.a.weight", "x.a.bias", "x.b.0.weight", "x.c.weight", "x.c.bias",
    ]
    assert [n for n, _ in shared.named_parameters("p", recurse=False)] == ["p.weight", "p.bias"]
    assert [n for n, _ in net.named_children()] == ["a", "b"] and "weight" in dir(shared)
    assert [n for n, _ in net.named_modules(None, "q")] == ["q", "q.a", "q.b", "q.b.0"]


@both
def test_parts_by_path(nn, lib):
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
    net.add_module("extra", nn.ReLU())
    net.register_module("more", None)
    net[0][0].register_parameter("gain", nn.Parameter(lib.ones(1)))
    net[0].register_buffer("seen", lib.zeros(1))
    assert net.get_submodule("0.0") is net[0][0] and net.get_submodule("") is net
    assert net.get_parameter("0.0.gain") is net[0][0].gain and net.get_buffer("0.seen") is net[0].seen
    net.set_submodule("0.0", nn.Linear(2, 3))
    assert net.get_parameter("0.0.weight").shape == (3, 2) and net.more is None
    for wrong in (lambda: net.get_submodule("0.9"), lambda: net.get_parameter("0.0.x"), lambda: net.get_buffer("q")):
        with pytest.raises(AttributeError):
            wrong()
    for wrong in (lambda: net.add_module("a", 3), lambda: net.register_parameter("a", lib.ones(1))):
        with pytest.raises(TypeError):
            wrong()
    for name in ("a.b", "", "training"):
        with pytest.raises(KeyError if nn is not tt else ValueError):
            net.add_module(name, nn.ReLU())


@both
def test_states(nn, lib):
    layer = nn.Linear(2, 2)
    layer.register_buffer("table", lib.zeros(1), persistent=False)
    layer.register_buffer("seen", lib.ones(1))
    assert list(layer.state_dict()) == ["weight", "bias", "seen"]
    filled = OrderedDict(first=1)
    assert layer.state_dict(destination=filled, prefix="x.") is filled
    assert list(filled) == ["first", "x.weight", "x.bias", "x.seen"]
    assert layer.state_dict(keep_vars=True)["weight"] is layer.weight
    layer.register_buffer("table", lib.zeros(1))
    assert "table" in layer.state_dict()


@both
def test_loading_says_what_did_not_match(nn, lib):
    layer = nn.Linear(2, 2)
    answer = layer.load_state_dict(layer.state_dict())
    assert str(answer) == "<All keys matched successfully>" and answer.missing_keys == []
    missing, unexpected = layer.load_state_dict({"x": lib.ones(1), "bias": lib.ones(2)}, strict=False)
    assert missing == ["weight"] and unexpected == ["x"] and layer.bias.tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="weight"):
        layer.load_state_dict({"bias": lib.ones(2)})
    weight = lib.ones((2, 2), dtype=lib.float64)
    layer.load_state_dict({"weight": weight, "bias": lib.ones(2)}, assign=True)
    assert layer.weight.dtype == lib.float64 and isinstance(layer.weight, nn.Parameter)


@both
def test_conversions(nn, lib):
    net = nn.Sequential(nn.Linear(2, 2))
    net.register_buffer("count", lib.tensor([1, 2]))
    assert net.to("cpu") is net and net.cpu().share_memory() is net
    for convert, dtype in (
        (lambda: net.to(lib.float64), "float64"), (lambda: net.half(), "float16"), (lambda: net.float(), "float32"),
        (lambda: net.to("cpu", lib.float64, non_blocking=True), "float64"), (lambda: net.to(lib.ones(1)), "float32"),
        (lambda: net.to(dtype=lib.float64), "float64"),
    ):
        assert convert() is net and str(net[0].weight.dtype).endswith(dtype) and str(net.count.dtype).endswith("int64")
    assert net.type(lib.float32)[0].weight.dtype == lib.float32
    with pytest.raises(TypeError):
        net.to(lib.int64)
    if nn is tt:
        for wrong in (net.cuda, lambda: net.to("cuda:0")):
            with pytest.raises(RuntimeError, match="is_available"):
                wrong()


@both
def test_a_conversion_that_changes_nothing_keeps_gradients(nn, lib):
    layer = nn.Linear(2, 2)
    layer.weight.grad = lib.ones(2, 2)
    assert layer.float().weight.grad is not None


@both
def test_hooks_before_and_after(nn, lib):
    layer, calls = nn.Identity(), []
    handles = [
        layer.register_forward_pre_hook(lambda m, inputs: calls.append(("first", len(inputs)))),
        layer.register_forward_pre_hook(lambda m, inputs: inputs[0] * 2),
        layer.register_forward_pre_hook(lambda m, inputs: calls.append("prepended"), prepend=True),
        layer.register_forward_hook(lambda m, inputs, out: out + inputs[0]),
        layer.register_forward_hook(lambda m, inputs, options, out: calls.append(options), with_kwargs=True),
    ]
    assert layer(lib.ones(1)).item() == 4 and calls == ["prepended", ("first", 1), {}]
    for handle in handles:
        handle.remove()
        handle.remove()
    assert layer(lib.ones(1)).item() == 1 and len(calls) == 3


@both
def test_hooks_may_change_options(nn, lib):
    class Scaled(nn.Module):
        def forward(self, x, by=1):
            return x * by

    layer = Scaled()
    with layer.register_forward_pre_hook(lambda m, i, o: (i, {**o, "by": o["by"] + 1}), with_kwargs=True):
        assert layer(lib.ones(1), by=2).item() == 3
    assert layer(lib.ones(1), by=2).item() == 2


@both
def test_rows_are_lists(nn, lib):
    rows = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 2)])
    rows.insert(1, nn.ReLU())
    rows += [nn.Tanh()]
    rows[0] = nn.Linear(1, 5)
    assert [type(m).__name__ for m in rows] == ["Linear", "ReLU", "Linear", "Tanh"] and names(rows)[-1] == "2.bias"
    assert type(rows.pop(1)).__name__ == "ReLU" and rows[0].out_features == 5
    assert len(rows + nn.ModuleList([nn.ReLU()])) == 4
    del rows[0]
    assert names(rows) == ["0.weight", "0.bias"] and type(rows[1:]) is nn.ModuleList and list(rows)[-1] in rows
    with pytest.raises(IndexError):
        rows[7] = nn.ReLU()
    if nn is tt:  # torch's insert looks at nothing
        with pytest.raises(IndexError):
            rows.insert(9, nn.ReLU())


@both
def test_sequences_have_names(nn, lib):
    net = nn.Sequential(OrderedDict([("conv", nn.Linear(1, 2)), ("act", nn.ReLU()), ("fc", nn.Linear(2, 1))]))
    assert names(net) == ["conv.weight", "conv.bias", "fc.weight", "fc.bias"] and net.fc is net[2] is net[-1]
    assert names(net[1:]) == ["fc.weight", "fc.bias"] and net(lib.ones(3, 1)).shape == (3, 1)
    plain = nn.Sequential(nn.ReLU(), nn.Linear(1, 1), nn.ReLU())
    assert names(plain[1:]) == ["1.weight", "1.bias"] and len(plain + plain) == 6 and len(plain * 2) == 6
    plain.append(nn.Tanh()).extend([nn.Tanh()]).insert(0, nn.Linear(1, 1))
    assert names(plain) == ["0.weight", "0.bias", "2.weight", "2.bias"] and len(plain) == 6
    plain[0] = nn.ReLU()
    assert type(plain.pop(-1)).__name__ == "Tanh" and names(plain) == ["2.weight", "2.bias"]
    del plain[0]
    assert names(plain) == ["1.weight", "1.bias"]


@both
def test_module_dict(nn, lib):
    parts = nn.ModuleDict({"b": nn.Linear(1, 1), "a": nn.ReLU()})
    parts["c"] = nn.Linear(1, 2)
    parts.update([("d", nn.Tanh())])
    assert list(parts) == list(parts.keys()) == ["b", "a", "c", "d"] and len(parts) == 4 and "a" in parts
    assert names(parts) == ["b.weight", "b.bias", "c.weight", "c.bias"] and parts.c is parts["c"]
    assert [k for k, _ in parts.items()] == ["b", "a", "c", "d"] and next(iter(parts.values())) is parts.pop("b")
    del parts["c"]
    assert names(parts) == [] and len(parts) == 2
    with pytest.raises(TypeError):
        parts["e"] = 3
    with pytest.raises(KeyError):
        parts["a.b"] = nn.ReLU()
    parts.clear()
    assert len(parts) == 0


@both
def test_parameter_list(nn, lib):
    rows = nn.ParameterList([lib.ones(2), nn.Parameter(lib.zeros(3))])
    rows.append(lib.ones(1)).extend([lib.ones(4)])
    rows += [lib.ones(5)]
    rows[0] = lib.zeros(2)
    assert names(rows) == ["0", "1", "2", "3", "4"] and all(isinstance(p, nn.Parameter) for p in rows)
    assert len(rows) == 5 and rows[-1].shape == (5,) and rows[0].tolist() == [0, 0]
    assert list(rows.state_dict()) == names(rows) and [tuple(p.shape) for p in rows[1:3]] == [(3,), (1,)]
    with pytest.raises(IndexError):
        rows[9]


@both
def test_parameter_dict(nn, lib):
    named = nn.ParameterDict({"b": lib.ones(2), "a": nn.Parameter(lib.zeros(3))})
    named.update(OrderedDict(d=lib.ones(1), c=lib.ones(4)))
    assert names(named) == list(named) == ["a", "b", "d", "c"] and isinstance(named["b"], nn.Parameter)
    assert "a" in named and len(named) == 4 and named.get("x") is None and [k for k, _ in named.items()] == list(named)
    del named["a"]
    assert tuple(named.pop("c").shape) == (4,) and names(named) == ["b", "d"] == list(named.keys())
    with pytest.raises((KeyError, AttributeError)):
        named["a"]


def test_states_go_to_torch_and_back():
    ours = tt.ModuleDict({"a": tt.Sequential(tt.Linear(2, 3), tt.LazyLinear(4)), "p": tt.ParameterList([tt.ones(2)])})
    ours["a"](tt.ones(1, 2))
    theirs = torch.nn.ModuleDict(
        {"a": torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LazyLinear(4)),
         "p": torch.nn.ParameterList([torch.ones(2)])}
    )
    theirs.load_state_dict({name: torch.from_numpy(np.array(t.numpy())) for name, t in ours.state_dict().items()})
    assert list(theirs.state_dict()) == list(ours.state_dict())
    x = np.ones((1, 2), np.float32)
    there = theirs["a"](torch.from_numpy(x)).detach().numpy()
    assert np.allclose(ours["a"](tt.from_numpy(x)).numpy(), there, atol=1e-6)
