"""Changes in place of recorded results, beside PyTorch: the same numbers and gradients."""

import numpy as np
import pytest

import tt_autograd as ta
import tt_tensor as tt

torch = pytest.importorskip("torch", reason="PyTorch is not installed here; `hatch run parity:run` has it")


def masked_softmax(lib, y, x, w):
    rows = y.reshape(-1, 4)
    rows[lib.tensor([[True, False, True, False]] * 3)] = -1e6


def a_row_twice(lib, y, x, w):
    row = y[0]
    row += w
    y[1] = row * 2


def columns(lib, y, x, w):
    y[:, 1] *= x[:, 0]
    y[:, 2] += 1


CHANGES = {
    "mask": lambda lib, y, x, w: y.__setitem__(y > 0.3, w.sum()),
    "row": lambda lib, y, x, w: y.__setitem__(1, w),
    "part": lambda lib, y, x, w: y.__setitem__((slice(None), slice(0, 2)), w[:2]),
    "positions": lambda lib, y, x, w: y.__setitem__([0, 2], x[:2] * w),
    "integer beside positions": lambda lib, y, x, w: y.__setitem__((1, lib.tensor([0, 3])), w[:2]),
    "one element": lambda lib, y, x, w: y.__setitem__((0, 0), w[:1]),
    "none": lambda lib, y, x, w: y.__setitem__((None, 1), w),
    "from itself": lambda lib, y, x, w: y.__setitem__(0, y[1]),
    "view": lambda lib, y, x, w: y.reshape(-1).__setitem__(slice(3, 7), 2.0),
    "transpose": lambda lib, y, x, w: y.T[1].mul_(x[:, 1]),
    "views": lambda lib, y, x, w: y.reshape(2, 6)[1].reshape(3, 2)[1:].mul_(5.0),
    "masked softmax": masked_softmax,
    "a row twice": a_row_twice,
    "columns": columns,
    "add_": lambda lib, y, x, w: y.add_(w, alpha=2),
    "add_ itself": lambda lib, y, x, w: y.add_(y * 2),
    "sigmoid_": lambda lib, y, x, w: y.sigmoid_(),
    "clamp_": lambda lib, y, x, w: y.clamp_(min=-0.5, max=0.5),
    "div_": lambda lib, y, x, w: y.div_(w),
    "lerp_": lambda lib, y, x, w: y.lerp_(x, 0.3),
    "tril_": lambda lib, y, x, w: y.tril_(),
    "fill_diagonal_": lambda lib, y, x, w: y.fill_diagonal_(3.0),
    "index_fill_": lambda lib, y, x, w: y.index_fill_(0, lib.tensor([1]), 4.0),
    "index_add_": lambda lib, y, x, w: y.index_add_(0, lib.tensor([1, 1]), x[:2]),
    "index_put_": lambda lib, y, x, w: y.index_put_((lib.tensor([1, 1]),), x[:2], accumulate=True),
    "scatter_": lambda lib, y, x, w: y.scatter_(1, lib.tensor([[0], [1], [2]]), x[:, :1]),
    "scatter_add_": lambda lib, y, x, w: y.scatter_add_(1, lib.tensor([[0, 0], [1, 1], [2, 0]]), x[:, :2]),
}


def outcome(change, lib, grad):
    rng = np.random.default_rng(0)
    x, w = (lib.tensor(rng.standard_normal(shape)) for shape in ((3, 4), (4,)))
    x.requires_grad_()
    w.requires_grad_()
    y = x * w + 0.1
    change(lib, y, x, w)
    return [t.detach().numpy() for t in (y, *grad((y * y.sin()).sum(), [x, w]))]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_in_place_parity(change):
    for ours, theirs in zip(outcome(change, tt, ta.grad), outcome(change, torch, torch.autograd.grad)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_names_of_nodes_parity():
    for lib in (tt, torch):
        x = lib.tensor([1.0, 2.0], requires_grad=True)
        for y, name in ((x * 2, "Mul"), (x + 1, "Add"), (x**2, "Pow"), (x.exp(), "Exp"), (x.clone(), "Clone")):
            assert y.grad_fn.name() == f"{name}Backward0" and f"grad_fn=<{name}Backward0>" in repr(y)
        assert y.grad_fn.next_functions[0][0].variable is x
