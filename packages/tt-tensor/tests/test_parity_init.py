"""Initialisations beside torch's: what is not random is equal, what is random has the same distribution."""

import math

import numpy as np
import pytest

import tt_tensor as tt

torch = pytest.importorskip("torch")

SHAPE = (60, 30, 2, 3)
RANDOM = [
    ("uniform_", {"a": -1.0, "b": 2.0}), ("normal_", {"mean": 1.0, "std": 2.0}), ("xavier_uniform_", {"gain": 2.0}),
    ("xavier_normal_", {}), ("kaiming_uniform_", {"a": 0.5}), ("kaiming_normal_", {"mode": "fan_out"}),
    ("kaiming_normal_", {"nonlinearity": "selu"}), ("trunc_normal_", {"std": 1.5, "a": -1.0, "b": 2.0}),
    ("orthogonal_", {"gain": 3.0}),
]


@pytest.mark.parametrize("name, options", RANDOM)
def test_distributions_are_torchs(name, options):
    tt.manual_seed(0), torch.manual_seed(0)
    ours, theirs = tt.zeros(*SHAPE), torch.zeros(SHAPE)
    assert getattr(tt, name)(ours, **options) is ours
    getattr(torch.nn.init, name)(theirs, **options)
    ours, theirs = np.sort(ours.numpy().ravel()), np.sort(theirs.numpy().ravel())
    quantiles = np.linspace(0, len(ours) - 1, 21).astype(int)[1:-1]
    assert np.abs(ours[quantiles] - theirs[quantiles]).max() < 0.06 * theirs.std()


@pytest.mark.parametrize("name, options", RANDOM)
def test_a_generator_decides(name, options):
    def drawn(seed):
        generator = tt.Generator().manual_seed(seed)
        return getattr(tt, name)(tt.zeros(4, 5), **options, generator=generator).tolist()

    assert drawn(1) == drawn(1) != drawn(2)


@pytest.mark.parametrize("shape, groups", [((4, 4, 3), 1), ((6, 2, 3, 3), 3), ((2, 5, 1, 2, 3), 1), ((5, 2, 3), 1)])
def test_dirac(shape, groups):
    ours, theirs = tt.dirac_(tt.ones(*shape), groups), torch.nn.init.dirac_(torch.ones(shape), groups)
    assert (ours.numpy() == theirs.numpy()).all()


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 2, 3)])
def test_orthogonal_rows_or_columns(shape):
    w = tt.orthogonal_(tt.zeros(*shape), gain=2.0).numpy().reshape(shape[0], -1)
    short = w if len(w) <= w.shape[1] else w.T
    assert np.allclose(short @ short.T, 4 * np.eye(len(short)), atol=1e-5)


def test_the_rest():
    assert (tt.eye_(tt.ones(2, 3)).numpy() == np.eye(2, 3)).all()
    sparse = tt.sparse_(tt.ones(20, 7), 0.33, std=2.0).numpy()
    assert ((sparse == 0).sum(0) == math.ceil(0.33 * 20)).all() and 1.5 < sparse[sparse != 0].std() < 2.5
    for name in ("linear", "conv2d", "conv_transpose1d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert tt.calculate_gain(name) == torch.nn.init.calculate_gain(name), name
    assert tt.calculate_gain("leaky_relu", 0.2) == torch.nn.init.calculate_gain("leaky_relu", 0.2)
    assert tt.constant_(tt.zeros(2), val=3.0).tolist() == [3, 3]


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: tt.eye_(tt.zeros(2)), r"\(2,\)"), (lambda: tt.sparse_(tt.zeros(2), 0.5), r"\(2,\)"),
        (lambda: tt.orthogonal_(tt.zeros(2)), r"\(2,\)"), (lambda: tt.dirac_(tt.zeros(3, 3, 3), 2), "groups=2"),
        (lambda: tt.trunc_normal_(tt.zeros(2), 10.0), "around 10.0"),
    ],
)
def test_misuse(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()
