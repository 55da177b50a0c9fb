"""Compressed rows, masks and distillation beside SciPy's and torch's."""

from copy import deepcopy

import numpy as np
import pytest

import tt_opt
import tt_spatial as ts
import tt_tensor as tt

torch = pytest.importorskip("torch", reason="torch is the oracle here: hatch run parity:run")
prune = pytest.importorskip("torch.nn.utils.prune", reason="torch is the oracle here: hatch run parity:run")
scipy = pytest.importorskip("scipy.sparse", reason="SciPy is the oracle here: hatch run parity:run")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def sparse(rows, columns):
    keep = np.random.default_rng(1).random((rows, columns)) < 0.3
    keep[rows // 2] = False  # a row without values
    return normal(rows, columns) * keep


def arguments(matrix):
    return [tt.from_numpy(a) for a in tt_opt.compressed_rows(matrix)[:3]]


@pytest.mark.parametrize("shape", [(7, 9), (1, 5), (5, 1), (40, 3)])
def test_compressed_rows_are_scipys(shape):
    matrix, x = sparse(*shape), normal(4, shape[1], seed=3)
    theirs, ours = scipy.csr_array(matrix), tt_opt.compressed_rows(matrix)
    for mine, their in ((ours[0], theirs.data), (ours[1], theirs.indices), (ours[2], theirs.indptr)):
        assert np.array_equal(mine, their)
    read = tt_opt.CompressedRows(theirs.data, theirs.indices, theirs.indptr, shape)
    assert np.array_equal(read.dense(), theirs.toarray())
    assert np.array_equal(scipy.csr_array((ours[0], ours[1], ours[2]), shape).toarray(), ours.dense())
    product = tt_opt.sparse_product(tt.from_numpy(x), *arguments(matrix)).numpy()
    assert np.allclose(product, (theirs @ x.T).T, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_compressed_rows_are_torchs():
    matrix = sparse(6, 8)
    theirs, ours = torch.tensor(matrix).to_sparse_csr(), tt_opt.compressed_rows(matrix)
    assert np.array_equal(ours.values, theirs.values()) and np.array_equal(ours.col_indices, theirs.col_indices())
    assert np.array_equal(ours.crow_indices, theirs.crow_indices())
    product = tt_opt.sparse_product(tt.from_numpy(normal(3, 8)), *arguments(matrix)).numpy()
    assert np.allclose(product, (theirs @ torch.tensor(normal(3, 8)).T).T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.77, 1.0])
def test_masks_are_torchs(share):
    model = tt.Sequential(ts.Conv2d(2, 3, 3), tt.Flatten(), tt.Linear(12, 5))
    theirs = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.Flatten(), torch.nn.Linear(12, 5))
    for i in (0, 2):
        theirs[i].weight.data = torch.tensor(model[i].weight.detach().numpy())
    for together in (True, False):
        copy = deepcopy(theirs)
        layers = [(copy[i], "weight") for i in (0, 2)]
        if together:
            prune.global_unstructured(layers, prune.L1Unstructured, amount=share)
        else:
            for layer, name in layers:
                prune.l1_unstructured(layer, name, amount=share)
        masks = tt_opt.prune_(deepcopy(model), share, together)
        for mask, (layer, _) in zip(masks.values(), layers):
            assert np.array_equal(mask, layer.weight_mask.numpy() == 1)


def test_distillation_is_torchs():
    logits, teacher, y, T, alpha = normal(6, 5), normal(6, 5, seed=1), np.array([0, 4, 2, 2, 1, 3]), 3.0, 0.7
    mine = tt.from_numpy(logits.copy()).requires_grad_()
    loss = tt_opt.distillation_loss((mine, tt.from_numpy(teacher)), tt.from_numpy(y), T=T, alpha=alpha)
    loss.backward()
    theirs = torch.tensor(logits, requires_grad=True)
    soft = torch.nn.KLDivLoss(reduction="batchmean")(
        torch.log_softmax(theirs / T, 1), torch.softmax(torch.tensor(teacher) / T, 1)
    )
    wanted = alpha * T * T * soft + (1 - alpha) * torch.nn.functional.cross_entropy(theirs, torch.tensor(y))
    wanted.backward()
    assert np.isclose(loss.item(), wanted.item(), rtol=1e-5)
    assert np.allclose(mine.grad.numpy(), theirs.grad.numpy(), rtol=1e-4, atol=1e-6)
