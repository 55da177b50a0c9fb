"""Torch as the oracle of embeddings with options, and of bags: values, gradients, and the table afterwards."""

import numpy as np
import pytest

import tt_tensor as tt
from tt_autograd import backward
from tt_nlp import functional, more_embeddings

torch = pytest.importorskip("torch", reason="torch is the oracle here: hatch run parity:run")

F = torch.nn.functional
TABLE = np.random.default_rng(0).normal(size=(7, 3))
IDS = np.array([[3, 1, 3], [0, 6, 1]])
FLAT, STARTS = np.array([3, 1, 3, 0, 6, 1, 2, 3]), np.array([0, 3, 3, 7])
BOTH = pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)], ids=["64", "32"])


def same(ours, theirs, arrays, tolerance):
    """Results, gradients of all floating inputs, and these afterwards."""
    mine = [tt.Tensor(a, requires_grad=True) if a.dtype.kind == "f" else tt.from_numpy(a) for a in arrays]
    yours = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    got, expected = ours(*mine), theirs(*yours)
    assert got.shape == tuple(expected.shape) and str(got.dtype) == str(expected.dtype).removeprefix("torch.")
    np.testing.assert_allclose(got.detach(), expected.detach().numpy(), rtol=tolerance, atol=tolerance)
    weights = np.random.default_rng(1).normal(size=got.shape).astype(got.dtype)
    backward((got * weights).sum())
    (expected * torch.from_numpy(weights)).sum().backward()
    for one, other in zip(mine, yours):
        np.testing.assert_allclose(one.detach(), other.detach().numpy(), rtol=tolerance, atol=tolerance)
        if other.grad is not None:
            np.testing.assert_allclose(one.grad, other.grad.numpy(), rtol=tolerance, atol=tolerance)


@BOTH
@pytest.mark.parametrize(
    "options",
    [{}, {"padding_idx": 3}, {"padding_idx": -6}, {"max_norm": 1.0}, {"max_norm": 1.5, "norm_type": 1.0},
     {"scale_grad_by_freq": True}, {"scale_grad_by_freq": True, "padding_idx": 1}], ids=str,
)  # fmt: skip
def test_embedding(options, dtype, tolerance):
    def look_up(function):
        return lambda ids, weight: function(ids, weight, **options)

    same(look_up(functional.embedding), look_up(F.embedding), [IDS, TABLE.astype(dtype)], tolerance)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, np.inf])
def test_max_norm_shortens_the_table(norm_type):
    mine, yours = tt.Tensor(TABLE), torch.tensor(TABLE)
    functional.embedding(tt.from_numpy(IDS), mine, max_norm=0.8, norm_type=norm_type)
    F.embedding(torch.from_numpy(IDS), yours, max_norm=0.8, norm_type=norm_type)
    np.testing.assert_allclose(mine.numpy(), yours.numpy(), rtol=1e-12)
    assert (mine.numpy()[[2, 4, 5]] == TABLE[[2, 4, 5]]).all() and (mine.numpy() != TABLE).any()


@BOTH
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 3])
@pytest.mark.parametrize("form", ["rows", "offsets", "with the last offset"])
def test_bags(form, padding_idx, mode, dtype, tolerance):
    table, options = TABLE.astype(dtype), {"mode": mode, "padding_idx": padding_idx}
    if form == "rows":
        ways = [lambda ids, weight, f=f: f(ids, weight, **options) for f in (functional.embedding_bag, F.embedding_bag)]
        same(*ways, [IDS, table], tolerance)
        return
    last = form != "offsets"
    starts = np.append(STARTS, len(FLAT)) if last else STARTS
    ways = [
        lambda ids, weight, starts, f=f: f(ids, weight, starts, include_last_offset=last, **options)
        for f in (functional.embedding_bag, F.embedding_bag)
    ]
    same(*ways, [FLAT, table, starts], tolerance)


@BOTH
@pytest.mark.parametrize("padding_idx", [None, 3])
def test_bags_with_weights(padding_idx, dtype, tolerance):
    ways = [
        lambda ids, weight, starts, each, f=f: f(
            ids, weight, starts, mode="sum", per_sample_weights=each, padding_idx=padding_idx
        )
        for f in (functional.embedding_bag, F.embedding_bag)
    ]
    each = np.random.default_rng(2).normal(size=len(FLAT)).astype(dtype)
    same(*ways, [FLAT, TABLE.astype(dtype), STARTS, each], tolerance)


@pytest.mark.parametrize(
    "build",
    [lambda m, d: m.Embedding(7, 3, 2), lambda m, d: m.Embedding(7, 3, max_norm=0.5, dtype=d),
     lambda m, d: m.Embedding(7, 3, scale_grad_by_freq=True), lambda m, d: m.EmbeddingBag(7, 3),
     lambda m, d: m.EmbeddingBag(7, 3, mode="max", padding_idx=1), lambda m, d: m.EmbeddingBag(7, 3, 0.5, mode="sum")],
)  # fmt: skip
def test_layers(build):
    ours, theirs = build(more_embeddings, tt.float64), build(torch.nn, torch.float64)
    ours.load_state_dict({name: value.numpy().copy() for name, value in theirs.state_dict().items()})
    assert list(ours.state_dict()) == list(theirs.state_dict()) and ours.padding_idx == theirs.padding_idx
    got, expected = ours(tt.from_numpy(IDS)), theirs(torch.from_numpy(IDS))
    np.testing.assert_allclose(got.detach(), expected.detach().numpy(), rtol=1e-6, atol=1e-7)
    backward((got * got).sum())
    (expected * expected).sum().backward()
    np.testing.assert_allclose(ours.weight.grad, theirs.weight.grad.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.weight.detach(), theirs.weight.detach().numpy(), rtol=1e-6)
    assert str(ours.weight.dtype) == str(theirs.weight.dtype).removeprefix("torch.")
