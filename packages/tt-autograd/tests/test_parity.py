"""Torch as the oracle: every operation of chapters 02 to 05 and every module, value, shape, dtype and gradient."""

import numpy as np
import pytest

import tt_autograd
import tt_tensor as tt
from tt_tensor.testing import OPS, tensors_of

torch = pytest.importorskip("torch", reason="torch is the oracle here: hatch run parity:run")

pytestmark = pytest.mark.filterwarnings("ignore:reduction:UserWarning")  # torch on kl_div's mean

FORWARD = {np.float64: 1e-8, np.float32: 2e-5}
GRADIENT = {np.float64: 1e-7, np.float32: 2e-4}
every_op = pytest.mark.parametrize("op", OPS, ids=[op.name for op in OPS])
both_widths = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])


def close(ours, theirs, tolerance, what):
    """Values that differ by no more than `tolerance` of the largest of them."""
    expected = theirs.detach().numpy()
    finite = np.abs(expected[np.isfinite(expected)])
    np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance * finite.max(initial=1e-3), err_msg=what)


def in_torch(arrays, dtype):
    return [
        torch.from_numpy(np.ascontiguousarray(a) if min(a.strides, default=0) < 0 else a) for a in _cast(arrays, dtype)
    ]


def _cast(arrays, dtype):
    return [a.astype(dtype, copy=False) if a.dtype.kind == "f" else a for a in arrays]


def name_of(dtype):
    return str(dtype).removeprefix("torch.")


@both_widths
@every_op
def test_value_shape_dtype_and_gradient(op, dtype):
    random = np.random.default_rng(0)
    for sample in op.samples(most=60):
        what = f"{op.name}({', '.join(str(a.shape) for a in sample.arrays)}, {sample.options})"
        ours, theirs = op.tensors(sample, dtype), in_torch(sample.arrays, dtype)
        watched = op.watched(sample)
        for i in watched:
            ours[i].requires_grad_(), theirs[i].requires_grad_()
        got = tensors_of(op.function(*ours, **sample.options))
        expected = op.in_torch(torch)(*theirs, **sample.options)
        expected = [expected] if isinstance(expected, torch.Tensor) else list(expected)
        for one, other in zip(got, expected, strict=True):
            assert (one.shape, str(one.dtype)) == (tuple(other.shape), name_of(other.dtype)), what
            assert one.requires_grad == other.requires_grad, what
            close(one.numpy(), other, FORWARD[dtype], what)
        traced = [(one, other) for one, other in zip(got, expected) if one.requires_grad]
        if traced:
            weights = [np.asarray(random.uniform(0.5, 1.5, one.shape), dtype) for one, _ in traced]
            tt_autograd.backward(_total([(one * w).sum() for (one, _), w in zip(traced, weights)]))
            _total([(other * torch.from_numpy(w)).sum() for (_, other), w in zip(traced, weights)]).backward()
            for i in watched:
                _same_gradient(ours[i], theirs[i], GRADIENT[dtype], f"gradient {i} of {what}")


def _total(parts):
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _same_gradient(ours, theirs, tolerance, what):
    expected = torch.zeros_like(theirs) if theirs.grad is None else theirs.grad
    got = np.zeros(ours.shape) if ours.grad is None else ours.grad.numpy()
    assert ours.grad is None or (ours.grad.dtype, ours.grad.shape) == (ours.dtype, ours.shape), what
    close(got, expected, tolerance, what)


# Integers and truth values take part too. Where torch has an answer it is ours, apart from these.

DIFFERENT_ON_PURPOSE = {
    "cast": "casts to float32 by definition",
    "nll_loss": "torch has no losses of integers",
    "x % 0.7": "0.7 is no integer, and remainders of integers by it jump",
    "x // 0.7": "the same",
    "softmax": "torch has it for no integers at all",
    "log_softmax": "the same",
    "kl_div": "the same",
    "bincount(weights)": "torch counts in float64, and here nothing becomes float64 by itself",
    "zeta_sum bool": "torch has it for no truth values",
    "add(alpha) bool": "torch multiplies a truth value by 3 and has a truth value",
    "addr bool": "the same",
    "index_add bool": "the same",
    "linalg.cholesky bool": "such a matrix is singular, up to rounding",
    "any uint8": "torch answers with uint8",
    "all uint8": "the same",
    "l1_loss": "torch's is an integer, and wraps in uint8",
    "smooth_l1_loss": "the same for beta = 0",
}


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, np.bool_], ids=lambda kind: kind.__name__)
@every_op
def test_dtype_of_integers(op, kind):
    for key in (op.name, f"{op.name} {np.dtype(kind)}"):
        if key in DIFFERENT_ON_PURPOSE:
            pytest.skip(DIFFERENT_ON_PURPOSE[key])
    for sample in op.samples(most=4):
        arrays = [np.abs(np.round(a)).astype(kind) if a.dtype.kind == "f" else a for a in sample.arrays]
        try:
            expected = op.in_torch(torch)(*map(torch.from_numpy, arrays), **sample.options)
        except (RuntimeError, TypeError, NotImplementedError, IndexError):
            continue
        expected = [expected] if isinstance(expected, torch.Tensor) else list(expected)
        for one, other in zip(
            tensors_of(op.function(*map(tt.from_numpy, arrays), **sample.options)), expected, strict=True
        ):
            what = f"{op.name}({', '.join(f'{a.dtype} {a.shape}' for a in arrays)}, {sample.options})"
            assert (one.shape, str(one.dtype)) == (tuple(other.shape), name_of(other.dtype)), what
            close(one.numpy(), other, 2e-5, what)


# Corners: where a function has no slope, or several elements tie, the gradient is a convention, and torch's is ours.

CORNERS = {
    "relu at 0": (lambda x: tt.relu(x), lambda x: torch.relu(x), [0.0, -0.0, 1.0]),
    "abs at 0": (lambda x: abs(x), lambda x: abs(x), [0.0, -1.0]),
    "leaky_relu at 0": (lambda x: tt.leaky_relu(x), lambda x: torch.nn.functional.leaky_relu(x), [0.0, 1.0]),
    "elu at 0": (lambda x: tt.elu(x, alpha=2.0), lambda x: torch.nn.functional.elu(x, 2.0), [0.0, 1.0]),
    "clip at its bounds": (lambda x: x.clip(-1.0, 1.0), lambda x: x.clip(-1.0, 1.0), [-1.0, 1.0, 2.0]),
    "amax of equals": (lambda x: x.amax(), lambda x: x.amax(), [1.0, 2.0, 2.0]),
    "max of equals": (lambda x: x.max(), lambda x: x.max(), [2.0, 1.0, 2.0]),
    "max along a dimension": (lambda x: x.max(0).values, lambda x: x.max(0).values, [2.0, 1.0, 2.0]),
    "maximum of equals": (lambda x: tt.maximum(x, x.detach()), lambda x: torch.maximum(x, x.detach()), [1.0, 2.0]),
    "prod with zeros": (lambda x: x.prod(), lambda x: x.prod(), [0.0, 2.0, 3.0]),
    "prod with two zeros": (lambda x: x.prod(), lambda x: x.prod(), [0.0, 2.0, 0.0]),
    "x ** 0 at 0": (lambda x: x**0, lambda x: x**0, [0.0, 2.0]),
    "x ** 2 at 0": (lambda x: x**2, lambda x: x**2, [0.0, 2.0]),
    "0 ** y": (lambda x: 0.0**x, lambda x: 0.0**x, [0.0, 1.0, 2.0]),
    "x ** y at 0": (lambda x: x ** tt.Tensor([0.0, 1.0]), lambda x: x ** torch.tensor([0.0, 1.0]), [0.0, 0.0]),
    "sqrt at 0": (lambda x: x.sqrt(), lambda x: x.sqrt(), [0.0, 4.0]),
    "huber at delta": (
        lambda x: tt.huber_loss(x, tt.zeros(3), reduction="none"),
        lambda x: torch.nn.functional.huber_loss(x, torch.zeros(3), reduction="none"),
        [0.0, 1.0, -1.0],
    ),
    "l1 at 0": (
        lambda x: tt.l1_loss(x, tt.zeros(2)),
        lambda x: torch.nn.functional.l1_loss(x, torch.zeros(2)),
        [0.0, 1.0],
    ),
    "log_softmax far apart": (lambda x: tt.log_softmax(x, dim=0), lambda x: x.log_softmax(0), [0.0, 1e4, -1e4]),
    "logsumexp of nothing likely": (
        lambda x: tt.logsumexp(x - float("inf"), 0),
        lambda x: torch.logsumexp(x - float("inf"), 0),
        [1.0, 2.0],
    ),
    "softplus far out": (lambda x: tt.softplus(x), lambda x: torch.nn.functional.softplus(x), [-90.0, 0.0, 90.0]),
}


@pytest.mark.parametrize(("ours", "theirs", "values"), CORNERS.values(), ids=CORNERS)
def test_corners(ours, theirs, values):
    x, y = tt.Tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    got, expected = ours(x), theirs(y)
    close(got.numpy(), expected, FORWARD[np.float32], "value")
    tt_autograd.backward(got.sum())
    expected.sum().backward()
    close(x.grad.numpy(), y.grad, GRADIENT[np.float32], "gradient")


# Modules: torch's state is loaded into ours (the names must be torch's), then outputs and all gradients are compared.

MODULES = {
    "Linear": (lambda nn: nn.Linear(5, 3), (4, 5)),
    "Linear without bias": (lambda nn: nn.Linear(5, 3, bias=False), (2, 4, 5)),
    "Sequential": (
        lambda nn: nn.Sequential(
            nn.Linear(5, 4), nn.Tanh(), nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2)
        ),
        (3, 5),
    ),
    "Flatten": (lambda nn: nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), (3, 2, 3)),
    "Flatten(0)": (lambda nn: nn.Flatten(0), (3, 2)),
    "Identity": (lambda nn: nn.Identity(), (3, 2)),
    "Dropout in evaluation": (lambda nn: nn.Dropout(0.5).eval(), (3, 2)),
    "LeakyReLU": (lambda nn: nn.LeakyReLU(0.2), (3, 4)),
    "ELU": (lambda nn: nn.ELU(0.5), (3, 4)),
    "Sigmoid": (lambda nn: nn.Sigmoid(), (3, 4)),
    "Softplus": (lambda nn: nn.Softplus(2.0), (3, 4)),
    "GELU": (lambda nn: nn.GELU(), (3, 4)),
    "GELU tanh": (lambda nn: nn.GELU(approximate="tanh"), (3, 4)),
    "SiLU": (lambda nn: nn.SiLU(), (3, 4)),
    "Softmax": (lambda nn: nn.Softmax(dim=1), (3, 4)),
    "LogSoftmax": (lambda nn: nn.LogSoftmax(dim=-1), (3, 4)),
}


@both_widths
@pytest.mark.parametrize(("build", "shape"), MODULES.values(), ids=MODULES)
def test_modules(build, shape, dtype):
    ours, theirs = build(tt), build(torch.nn).to(getattr(torch, np.dtype(dtype).name))
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    for _, parameter in ours.named_parameters():
        assert parameter.requires_grad
    ours = _as_wide(ours, dtype)
    ours.load_state_dict(state)
    assert list(ours.state_dict()) == list(state)
    values = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    x, y = tt.Tensor(values, requires_grad=True), torch.from_numpy(values.copy()).requires_grad_()
    got, expected = ours(x), theirs(y)
    assert (got.shape, str(got.dtype)) == (tuple(expected.shape), name_of(expected.dtype))
    close(got.numpy(), expected, FORWARD[dtype], "output")
    tt_autograd.backward((got * got).sum())
    (expected * expected).sum().backward()
    _same_gradient(x, y, GRADIENT[dtype], "input")
    for (name, one), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        _same_gradient(one, other, GRADIENT[dtype], name)


def _as_wide(module, dtype):
    for part in module.modules():
        for name, parameter in list(vars(part).get("_parameters", {}).items()):
            if parameter is not None:
                setattr(part, name, tt.Parameter(parameter.numpy().astype(dtype)))
    return module


LOSSES = {
    "MSELoss": lambda nn: nn.MSELoss(),
    "L1Loss": lambda nn: nn.L1Loss(reduction="sum"),
    "HuberLoss": lambda nn: nn.HuberLoss(delta=0.5),
    "SmoothL1Loss": lambda nn: nn.SmoothL1Loss(beta=0.5),
    "BCEWithLogitsLoss": lambda nn: nn.BCEWithLogitsLoss(),
    "KLDivLoss": lambda nn: nn.KLDivLoss(reduction="batchmean", log_target=True),
    "BCELoss": lambda nn: nn.BCELoss(),
    "CrossEntropyLoss": lambda nn: nn.CrossEntropyLoss(label_smoothing=0.1),
    "NLLLoss": lambda nn: nn.NLLLoss(ignore_index=1),
}


@pytest.mark.parametrize(("name", "build"), LOSSES.items(), ids=LOSSES)
def test_loss_modules(name, build):
    random = np.random.default_rng(2)
    values, target = random.uniform(0.1, 0.9, (2, 4, 3))
    if name in ("CrossEntropyLoss", "NLLLoss"):
        target = random.integers(0, 3, 4)
    x, y = tt.Tensor(values, requires_grad=True), torch.from_numpy(values.copy()).requires_grad_()
    got, expected = build(tt)(x, tt.tensor(target)), build(torch.nn)(y, torch.from_numpy(target))
    close(got.numpy(), expected, FORWARD[np.float64], name)
    tt_autograd.backward(got)
    expected.backward()
    close(x.grad.numpy(), y.grad, GRADIENT[np.float64], name)


# Initialisation draws from another generator, so what agrees is the distribution: its bounds and its spread.

INITS = {
    "Linear.weight": lambda lib, nn, init, w: nn.Linear(300, 200).weight,
    "Linear.bias": lambda lib, nn, init, w: nn.Linear(4, 20_000).bias,
    "uniform_": lambda lib, nn, init, w: init.uniform_(w, -2.0, 3.0),
    "normal_": lambda lib, nn, init, w: init.normal_(w, 1.0, 0.3),
    "xavier_uniform_": lambda lib, nn, init, w: init.xavier_uniform_(w, gain=1.5),
    "xavier_normal_": lambda lib, nn, init, w: init.xavier_normal_(w),
    "kaiming_uniform_": lambda lib, nn, init, w: init.kaiming_uniform_(w, a=5**0.5),
    "kaiming_normal_": lambda lib, nn, init, w: init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
    "kaiming_uniform_ of a field": lambda lib, nn, init, w: init.kaiming_uniform_(lib.zeros(64, 32, 3, 3)),
}


@pytest.mark.parametrize("draw", INITS.values(), ids=INITS)
def test_initialisation(draw):
    tt.manual_seed(0)
    torch.manual_seed(0)
    ours = draw(tt, tt, tt, tt.zeros(300, 200)).numpy()
    theirs = draw(torch, torch.nn, torch.nn.init, torch.zeros(300, 200)).detach().numpy()
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    spread, centre = float(theirs.std()), float(theirs.mean())
    assert ours.std() == pytest.approx(spread, rel=0.02) and ours.mean() == pytest.approx(centre, abs=0.05 * spread)
    if theirs.max() < 2 * spread + abs(centre):  # uniform: the bounds are sharp
        assert ours.max() == pytest.approx(theirs.max(), rel=0.01) and ours.min() == pytest.approx(
            theirs.min(), rel=0.01
        )


@pytest.mark.parametrize("name", ["linear", "sigmoid", "tanh", "relu", "leaky_relu"])
def test_gains(name):
    assert tt.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))


# A whole network, trained by hand-written descent, for twenty steps.


def test_a_network_follows_torch_step_by_step():
    random = np.random.default_rng(3)
    x, labels = random.standard_normal((16, 6)), random.integers(0, 4, 16)
    build = lambda nn: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    theirs = build(torch.nn).double()
    ours = _as_wide(build(tt), np.float64)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    for _ in range(20):
        got = tt.cross_entropy(ours(tt.Tensor(x)), tt.tensor(labels))
        expected = torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(labels))
        assert got.item() == pytest.approx(expected.item(), rel=1e-9)
        ours.zero_grad(), theirs.zero_grad()
        tt_autograd.backward(got)
        expected.backward()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.data -= 0.5 * one.grad
            other.data -= 0.5 * other.grad
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        close(one.numpy(), other, 1e-9, "parameter")


def test_gelu_by_tanh_keeps_the_digits_of_float16():
    x = np.linspace(-5, 5, 41, dtype=np.float16)
    expected = torch.nn.functional.gelu(torch.from_numpy(x), approximate="tanh").numpy()
    assert np.allclose(tt.gelu(tt.from_numpy(x), approximate="tanh").numpy(), expected, rtol=2e-3, atol=1e-6)
