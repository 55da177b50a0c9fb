"""Modules of the appendices beside torch's: how they are made, what they compute, what they keep."""

from functools import partial

import numpy as np
import pytest

import tt_tensor as tt

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{warning}")
    for warning in ("Implicit dimension", "size_average and reduce", "reduction:")
]

# name, positional arguments, keyword arguments, shape of the input
LAYERS = [
    ("ReLU", (True,), {}, (3, 4)), ("ReLU", (), {"inplace": True}, (3, 4)), ("LeakyReLU", (0.2, True), {}, (3, 4)),
    ("ReLU6", (True,), {}, (3, 4)), ("ELU", (0.5, True), {}, (3, 4)), ("SELU", (True,), {}, (3, 4)),
    ("CELU", (0.5,), {"inplace": True}, (3, 4)), ("GELU", ("tanh",), {}, (3, 4)), ("SiLU", (True,), {}, (3, 4)),
    ("Mish", (), {"inplace": True}, (3, 4)), ("Hardtanh", (-2.0, 0.5, True), {}, (3, 4)),
    ("Softsign", (), {}, (3, 4)), ("Hardsigmoid", (True,), {}, (3, 4)), ("Hardswish", (), {}, (3, 4)),
    ("LogSigmoid", (), {}, (3, 4)), ("Softplus", (2.0, 1.0), {}, (3, 4)), ("Softplus", (), {"beta": 0.5}, (3, 4)),
    ("Softshrink", (0.2,), {}, (3, 4)), ("Hardshrink", (), {"lambd": 0.2}, (3, 4)), ("Tanhshrink", (), {}, (3, 4)),
    ("Threshold", (0.1, 20.0), {}, (3, 4)), ("PReLU", (), {}, (3, 4)), ("PReLU", (4, 0.1), {}, (3, 4, 2)),
    ("GLU", (0,), {}, (4, 3)), ("GLU", (), {}, (3, 4)), ("Softmin", (1,), {}, (3, 4)),
    ("Softmin", (), {"dim": 0}, (3, 4)), ("Softmax", (), {}, (3, 4)), ("Softmax", (0,), {}, (3, 4)),
    ("LogSoftmax", (1,), {}, (3, 4)), ("Softmax2d", (), {}, (2, 3, 4, 5)), ("Sigmoid", (), {}, (3, 4)),
    ("Tanh", (), {}, (3, 4)), ("Identity", (54,), {"unused": 1}, (3, 4)), ("Flatten", (0, 1), {}, (3, 4)),
    ("Unflatten", (1, (2, 2)), {}, (3, 4)), ("Unflatten", (-1, (2, 2)), {}, (3, 4)),
    ("Linear", (4, 2), {"bias": False}, (3, 4)), ("Linear", (4, 2, True, None), {}, (3, 4)),
    ("Bilinear", (4, 4, 2), {}, (3, 4)), ("CosineSimilarity", (0, 1e-6), {}, (3, 4)),
    ("PairwiseDistance", (1.0,), {}, (3, 4)), ("RReLU", (0.1, 0.3), {}, (3, 4)),
    ("Dropout1d", (0.3, True), {}, (2, 3, 4)), ("AlphaDropout", (0.3,), {}, (3, 4)),
]
TWO = {"Bilinear", "CosineSimilarity", "PairwiseDistance"}


@pytest.mark.parametrize("name, args, options, shape", LAYERS, ids=[f"{name}{args}" for name, args, *_ in LAYERS])
def test_layers_in_evaluation(name, args, options, shape):
    ours, theirs = getattr(tt, name)(*args, **options).eval(), getattr(torch.nn, name)(*args, **options).eval()
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict({key: tt.from_numpy(value.numpy()) for key, value in state.items()})
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(shape).astype(np.float32) for _ in range(1 + (name in TWO))]
    expected = theirs(*(torch.from_numpy(a.copy()) for a in arrays)).detach().numpy()
    np.testing.assert_allclose(ours(*map(tt.from_numpy, arrays)).numpy(), expected, rtol=1e-5, atol=1e-6)


CHANNELS = [
    ("Dropout1d", (20, 50, 3)), ("Dropout2d", (20, 50, 2, 2)), ("Dropout3d", (20, 50, 2, 1, 2)),
    ("Dropout1d", (500, 3)), ("Dropout3d", (500, 2, 1, 2)),
]


@pytest.mark.parametrize("name, shape", CHANNELS)
def test_whole_channels_are_dropped(name, shape):
    tt.manual_seed(0)
    layer = getattr(tt, name)(0.3)
    dropped = layer(tt.ones(*shape)).numpy()
    leading = 1 if shape[0] == 500 else 2
    channels = dropped.reshape(-1, int(np.prod(shape[leading:])))
    assert set(np.unique(channels.max(1))) == {0, np.float32(1 / 0.7)} and (channels.min(1) == channels.max(1)).all()
    assert 0.2 < (channels.max(1) == 0).mean() < 0.4
    assert (layer.eval()(tt.ones(*shape)) == 1).all() and (getattr(tt, name)(1.0)(tt.ones(*shape)) == 0).all()


@pytest.mark.parametrize("name", ["AlphaDropout", "RReLU"])
def test_random_layers_in_training(name):
    tt.manual_seed(0), torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal(40_000)
    ours, theirs = getattr(tt, name)()(tt.from_numpy(x)).numpy(), getattr(torch.nn, name)()(torch.from_numpy(x)).numpy()
    quantiles = np.linspace(0.02, 0.98, 25)
    assert np.abs(np.quantile(ours, quantiles) - np.quantile(theirs, quantiles)).max() < 0.1


LOSSES = [
    ("MSELoss", (None, None, "sum"), {}), ("MSELoss", (False,), {}), ("MSELoss", (), {"reduce": False}),
    ("L1Loss", (True,), {}), ("SmoothL1Loss", (None, None, "mean", 0.5), {}), ("HuberLoss", ("sum", 0.5), {}),
    ("BCEWithLogitsLoss", (0.3,), {"pos_weight": 2.0}), ("BCELoss", (0.3, False), {}),
    ("KLDivLoss", (None, None, "batchmean"), {}), ("SoftMarginLoss", (False,), {}),
    ("HingeEmbeddingLoss", (2.0,), {}), ("MultiLabelSoftMarginLoss", (), {"reduction": "sum"}),
    ("PoissonNLLLoss", (False, True), {"reduction": "none"}), ("PoissonNLLLoss", (True, False, False), {}),
]


@pytest.mark.parametrize("name, args, options", LOSSES, ids=[f"{name}{args}" for name, args, _ in LOSSES])
def test_losses_take_torchs_positions(name, args, options):
    def made(lib, nn):
        tensor = lambda v: lib.tensor([v, 1.0, 2.0]) if name.startswith("BCE") and isinstance(v, float) else v
        return getattr(nn, name)(*map(tensor, args), **{key: tensor(value) for key, value in options.items()})

    ours, theirs = made(tt, tt), made(torch, torch.nn)
    x = np.random.default_rng(0).uniform(0.1, 0.9, (2, 3)).astype(np.float32)
    target = np.array([[1, 0, 1], [0, 1, 1]], np.float32) * (2 if name == "PoissonNLLLoss" else 1)
    target = target * 2 - 1 if name in ("SoftMarginLoss", "HingeEmbeddingLoss") else target
    expected = theirs(torch.from_numpy(x), torch.from_numpy(target)).numpy()
    np.testing.assert_allclose(ours(tt.from_numpy(x), tt.from_numpy(target)).numpy(), expected, rtol=1e-5)
    assert ours.reduction == theirs.reduction and list(ours.state_dict()) == list(theirs.state_dict())


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "NLLLoss"])
def test_losses_of_labels(name):
    weight = np.array([0.5, 1.0, 2.0], np.float32)
    ours = getattr(tt, name)(tt.from_numpy(weight), None, 1, None, "sum")
    theirs = getattr(torch.nn, name)(torch.from_numpy(weight), None, 1, None, "sum")
    x, labels = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32), np.array([0, 1, 2, 2])
    assert list(ours.state_dict()) == ["weight"] and ours.ignore_index == theirs.ignore_index == 1
    for reduction in ("sum", "none", "mean"):
        ours.reduction = theirs.reduction = reduction
        expected = theirs(torch.from_numpy(x), torch.from_numpy(labels)).numpy()
        np.testing.assert_allclose(ours(tt.from_numpy(x), tt.from_numpy(labels)).numpy(), expected, rtol=1e-5)


MARGINS = [
    ("MarginRankingLoss", (0.5,), 2, ()), ("CosineEmbeddingLoss", (0.2,), 2, (4,)),
    ("TripletMarginLoss", (0.5, 1.0, 1e-6, True), 3, None), ("MultiMarginLoss", (2, 0.5), 1, "labels"),
    ("MultiLabelMarginLoss", (), 1, "list"), ("GaussianNLLLoss", (), 3, None),
]


@pytest.mark.parametrize("name, args, inputs, target", MARGINS, ids=[name for name, *_ in MARGINS])
def test_margin_losses(name, args, inputs, target):
    random = np.random.default_rng(0)
    arrays = [random.standard_normal((4, 3)).astype(np.float32) for _ in range(inputs)]
    if name == "GaussianNLLLoss":
        arrays[2] = np.abs(arrays[2])
    if target == "labels":
        arrays.append(np.array([0, 2, 1, 1]))
    elif target == "list":
        arrays.append(np.array([[0, -1, 1], [2, 1, -1], [0, 1, 2], [-1, 0, 0]]))
    elif target is not None:
        arrays.append(random.choice([-1.0, 1.0], target or (4, 3)).astype(np.float32))
    ours, theirs = getattr(tt, name)(*args), getattr(torch.nn, name)(*args)
    expected = theirs(*map(torch.from_numpy, arrays)).numpy()
    np.testing.assert_allclose(ours(*map(tt.from_numpy, arrays)).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_gumbel_draws_follow_the_logits():
    tt.manual_seed(0)
    logits = tt.tensor([0.0, 1.0, 2.0]).expand(3000, 3)
    hard = tt.gumbel_softmax(logits, tau=0.5, hard=True)
    share = torch.softmax(torch.tensor([0.0, 1.0, 2.0]), 0).numpy()
    assert np.abs(hard.numpy().mean(0) - share).max() < 0.04 and set(np.unique(hard.numpy())) == {0, 1}
    soft = tt.gumbel_softmax(logits, tau=0.5).numpy()
    assert np.allclose(soft.sum(1), 1, atol=1e-5) and np.abs(np.eye(3)[soft.argmax(1)].mean(0) - share).max() < 0.04


def test_factory_keywords():
    for make in (partial(tt.Linear, 2, 3), tt.PReLU, partial(tt.Bilinear, 2, 2, 3)):
        assert all(p.dtype == np.float64 for p in make(device="cpu", dtype=tt.float64).parameters())
        with pytest.raises(RuntimeError, match="CPU"):
            make(device="cuda")


def test_a_parameter_shares_the_memory_of_its_tensor():
    for lib, nn in ((tt, tt), (torch, torch.nn)):
        weight = lib.zeros(3)
        parameter = nn.Parameter(weight)
        weight.fill_(2.0)
        assert parameter.tolist() == [2, 2, 2]


def test_vectors_of_parameters():
    layer, other = tt.Linear(2, 3), tt.Linear(2, 3)
    vector = tt.parameters_to_vector(layer.parameters())
    tt.vector_to_parameters(vector, other.parameters())
    assert vector.shape == (9,) and (other.weight == layer.weight).all() and (other.bias == layer.bias).all()
    with pytest.raises(ValueError, match="9 elements"):
        tt.vector_to_parameters(tt.ones(8), other.parameters())
