"""Embeddings with options, and bags, without torch: definitions by loops, differences, errors."""

import numpy as np
import pytest

import tt_nlp as tn
import tt_tensor as tt
from tt_autograd import check_gradients, grad
from tt_nlp.functional import embedding, embedding_bag
from tt_nlp.more_embeddings import Embedding, EmbeddingBag

TABLE = np.random.default_rng(0).normal(size=(6, 3))
IDS, STARTS = tt.tensor([3, 1, 3, 0, 5]), tt.tensor([0, 2, 2])


@pytest.mark.parametrize("padding_idx", [None, 3])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_are_their_definition(mode, padding_idx):
    wanted = []
    for bag in ([3, 1], [], [3, 0, 5]):
        rows = TABLE[[i for i in bag if i != padding_idx]]
        wanted.append(getattr(rows, mode)(0) if len(rows) else np.zeros(3))
    table = tt.Tensor(TABLE, requires_grad=True)
    found = embedding_bag(IDS, table, STARTS, mode=mode, padding_idx=padding_idx)
    np.testing.assert_allclose(found.detach(), wanted)
    check_gradients(lambda w: embedding_bag(IDS, w, STARTS, mode=mode, padding_idx=padding_idx) ** 2, table)


def test_weights_of_single_ids():
    table, each = (tt.Tensor(a, requires_grad=True) for a in (TABLE, np.arange(1.0, 6.0)))
    found = embedding_bag(IDS, table, STARTS, mode="sum", per_sample_weights=each)
    np.testing.assert_allclose(found[0].detach(), TABLE[3] + 2 * TABLE[1])
    check_gradients(lambda w, e: embedding_bag(IDS, w, STARTS, mode="sum", per_sample_weights=e) ** 2, table, each)


def test_frequent_tokens_get_the_mean_of_their_gradients():
    table = tt.Tensor(TABLE, requires_grad=True)
    found = embedding(IDS, table, scale_grad_by_freq=True)
    assert np.array_equal(found.detach().numpy(), TABLE[IDS.numpy()])
    (g,) = grad((found * np.arange(1.0, 6.0)[:, None]).sum(), table)
    assert g[:, 0].tolist() == [4, 2, 0, 2, 0, 5]


def test_long_rows_are_shortened_in_the_table():
    layer = Embedding(6, 3, max_norm=0.5, _weight=tt.Tensor(TABLE))
    found = layer(IDS).detach().numpy()
    assert np.linalg.norm(found, axis=1).max() <= 0.5 + 1e-9
    assert np.array_equal(layer.weight.detach().numpy()[[2, 4]], TABLE[[2, 4]])
    np.testing.assert_allclose(layer.weight.detach().numpy()[3], found[0])


def test_from_pretrained_shares_the_table_and_is_frozen():
    table = tt.Tensor(TABLE.copy())
    for layer in (Embedding.from_pretrained(table), EmbeddingBag.from_pretrained(table, mode="sum")):
        assert not layer.weight.requires_grad and np.shares_memory(layer.weight.numpy(), table.numpy())
    assert Embedding.from_pretrained(table, freeze=False, padding_idx=-1).padding_idx == 5
    assert isinstance(Embedding(2, 3), tn.Embedding) and Embedding(2, 3, dtype=tt.float64).weight.dtype == np.float64


def test_no_bags():
    assert embedding_bag(tt.zeros(0).long(), tt.Tensor(TABLE), tt.zeros(0).long()).shape == (0, 3)
    assert embedding_bag(tt.zeros(0).long(), tt.Tensor(TABLE), tt.tensor([0, 0]), mode="max").tolist() == [[0] * 3] * 2


W = tt.Tensor(TABLE)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: embedding_bag(IDS, W, STARTS, mode="median"), ValueError, "not 'median'"),
        (lambda: embedding_bag(IDS, W), ValueError, r"not \(5,\) and None"),
        (lambda: embedding_bag(IDS.reshape(1, 5), W, STARTS), ValueError, r"not \(1, 5\) and \(3,\)"),
        (lambda: embedding_bag(IDS, W, tt.tensor([1, 2])), ValueError, "begin with 0 and grow up to 5"),
        (lambda: embedding_bag(IDS, W, STARTS, per_sample_weights=tt.ones(5)), ValueError, "mode='mean'"),
        (lambda: embedding_bag(IDS + 5, W, STARTS), IndexError, "no row for id 8"),
        (lambda: embedding(IDS, W, padding_idx=6), IndexError, "padding_idx 6"),
        (lambda: embedding(IDS + 5, W, max_norm=1.0), IndexError, "no row for id 8"),
        (lambda: Embedding(5, 3, _weight=W), ValueError, r"\(6, 3\) does not fit \(5, 3\)"),
        (lambda: Embedding.from_pretrained(IDS), ValueError, r"not of shape \(5,\)"),
        (lambda: EmbeddingBag(5, 3, device="cuda"), RuntimeError, "cuda is not available"),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()
