"""Chapter 05 as it is here: the words of its errors, what only our losses promise, and the referee's limits."""

import numpy as np
import pytest

import tt_tensor as tt

LABELS = [0, 1, 2, 0]


@pytest.mark.parametrize(
    "wrong, error, words",
    [
        (lambda x: tt.cross_entropy(x, tt.Tensor([0, 1, 2, 0])), TypeError, "float32"),
        (lambda x: tt.cross_entropy(x, tt.tensor([0, 1, 2, 3])), IndexError, "label 3.*3 classes"),
        (lambda x: tt.cross_entropy(x, tt.tensor([0, 1, -1, 2])), IndexError, "label -1"),
        (lambda x: tt.cross_entropy(x, tt.tensor([0, 1])), ValueError, r"\(4, 3\).*\(4,\).*\(2,\)"),
        (lambda x: tt.cross_entropy(x, tt.tensor(LABELS), weight=tt.ones(2)), ValueError, r"3 classes.*\(2,\)"),
        (lambda x: tt.cross_entropy(x, tt.tensor(LABELS), label_smoothing=2), ValueError, "2"),
        (lambda x: tt.mse_loss(x, x, reduction="average"), ValueError, "average"),
        (lambda x: tt.huber_loss(x, x, delta=-1), ValueError, "-1"),
        (lambda x: tt.binary_cross_entropy(x + 1.5, x), ValueError, "1.5.*with_logits"),
        (lambda x: tt.losses.slope(x.sum, x.T), ValueError, r"contiguous.*\(3, 4\)"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(wrong, error, words):
    with pytest.raises(error, match=words):
        wrong(tt.zeros(4, 3))


@pytest.mark.parametrize(
    "name",
    ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy_with_logits", "kl_div"],
)
def test_different_shapes_are_named(name):
    with pytest.raises(ValueError, match=r"\(4, 1\).*\(4,\)"):
        getattr(tt, name)(tt.ones(4, 1), tt.ones(4))


def test_hinge_loss_names_different_shapes():
    with pytest.raises(ValueError, match=r"\(4, 1\).*\(4,\)"):
        tt.losses.hinge_loss(tt.ones(4, 1), tt.ones(4))


def test_modules_are_their_functions():
    x, labels = tt.Tensor(np.sin(np.arange(12.0)).reshape(4, 3)), tt.tensor(LABELS)
    assert tt.CrossEntropyLoss(ignore_index=0)(x, labels).item() == tt.cross_entropy(x, labels, ignore_index=0).item()
    assert repr(tt.MSELoss(reduction="sum")) == "MSELoss(reduction='sum')"


def test_cross_entropy_where_nothing_counts_is_not_a_number():
    assert np.isnan(tt.cross_entropy(tt.zeros(2, 3), tt.tensor([1, 1]), ignore_index=1).item())
