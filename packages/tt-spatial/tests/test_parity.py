"""Torch as the oracle: every operation and every layer of chapter 09, values, shapes, dtypes, gradients, statistics."""

from types import SimpleNamespace

import numpy as np
import pytest

import tt_autograd
import tt_optim
import tt_spatial as ts
import tt_tensor as tt
from tt_spatial import functional
from tt_spatial.testing import OPS

torch = pytest.importorskip("torch", reason="torch is the oracle here: hatch run parity:run")

torch.set_num_threads(1)  # on small samples, threads that wait for each other take most of the time

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # torch copies, as we do

FORWARD = {np.float64: 1e-9, np.float32: 2e-5}
GRADIENT = {np.float64: 1e-8, np.float32: 2e-4}
OURS = SimpleNamespace(**{name: getattr(module, name) for module in (tt, ts) for name in module.__all__})
F = torch.nn.functional
every_op = pytest.mark.parametrize("op", OPS, ids=[op.name for op in OPS])
both_widths = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])


def close(ours, theirs, tolerance, what):
    """Values that differ by no more than `tolerance` of the largest of them."""
    expected = theirs.detach().numpy()
    largest = np.abs(expected).max(initial=1e-3)
    ours = ours.detach().numpy() if isinstance(ours, tt.Tensor) else ours
    np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance * largest, err_msg=what)


def in_torch(array):
    return torch.from_numpy(array.copy() if min(array.strides, default=0) < 0 else array)


def same_gradient(ours, theirs, tolerance, what):
    expected = torch.zeros_like(theirs) if theirs.grad is None else theirs.grad
    assert ours.grad is None or (ours.grad.dtype, ours.grad.shape) == (ours.dtype, ours.shape), what
    close(np.zeros(ours.shape) if ours.grad is None else ours.grad, expected, tolerance, f"gradient of {what}")


@both_widths
@every_op
def test_value_shape_dtype_and_gradient(op, dtype):
    for number, sample in enumerate(op.samples(60)):
        what = f"{op.name}({', '.join(str(a.shape) for a in sample.arrays)}, {sample.options})"
        ours = op.tensors(sample, dtype)
        theirs = [in_torch(a.astype(dtype)) for a in sample.arrays]
        for i in op.watched(sample):
            ours[i].requires_grad_(), theirs[i].requires_grad_()
        got, expected = op.function(*ours, **sample.options), op.in_torch(torch)(*theirs, **sample.options)
        assert (got.shape, str(got.dtype)) == (tuple(expected.shape), str(expected.dtype).removeprefix("torch.")), what
        close(got, expected, FORWARD[dtype], what)
        weights = np.random.default_rng(number).uniform(0.5, 1.5, got.shape).astype(dtype)
        tt_autograd.backward((got * weights).sum())
        (expected * torch.from_numpy(weights)).sum().backward()
        for i, (one, other) in enumerate(zip(ours, theirs)):
            same_gradient(one, other, GRADIENT[dtype], f"argument {i} of {what}")
            close(one.detach(), other, FORWARD[dtype], f"argument {i} after {what}")  # the running statistics


# Second derivatives are compared where torch's own are made by another formula than ours.


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d", "batch_norm"])
def test_second_derivatives(name):
    (op,) = (op for op in OPS if op.name == name)
    for sample in op.samples(20):
        ours, theirs = op.tensors(sample), [in_torch(a) for a in sample.arrays]
        watched = [i for i in op.watched(sample) if sample.arrays[i].size]
        for tensors in (ours, theirs):
            for i in watched:
                tensors[i].requires_grad_()
        first = op.function(*ours, **sample.options) ** 3
        found = tt_autograd.grad(first.sum(), [ours[i] for i in watched], create_graph=True)
        tt_autograd.backward((found[0] ** 2).sum())
        other = op.in_torch(torch)(*theirs, **sample.options) ** 3
        expected = torch.autograd.grad(other.sum(), [theirs[i] for i in watched], create_graph=True)
        (expected[0] ** 2).sum().backward()
        for i in watched:
            same_gradient(ours[i], theirs[i], 1e-7, f"argument {i} of {name}, {sample.options}, at second order")


# Where several pixels of a window are equally large, the gradient is a convention, and torch's is ours.


@pytest.mark.parametrize("options", [{}, {"stride": 1}, {"padding": 1}, {"dilation": 2, "stride": 1}], ids=str)
def test_equally_large_pixels(options):
    values = np.random.default_rng(0).integers(-1, 2, (2, 3, 6, 7)).astype(float)
    x, y = tt.Tensor(values, requires_grad=True), torch.from_numpy(values).requires_grad_()
    got, expected = ts.max_pool2d(x, 3, **options), torch.nn.functional.max_pool2d(y, 3, **options)
    weights = np.random.default_rng(1).normal(size=got.shape)
    tt_autograd.backward((got * weights).sum())
    (expected * torch.from_numpy(weights)).sum().backward()
    same_gradient(x, y, 1e-12, f"max_pool2d, {options}")


# The same for -inf, which padding must not beat, for nan, of which the last one wins, and for adaptive windows.

POOLINGS = {
    "max_pool2d": ("max_pool2d", (2,)),
    "max_pool2d, stride": ("max_pool2d", (3, 2, 1)),
    "max_pool2d, padding": ("max_pool2d", (2, 1, 1)),
    "max_pool2d, dilation": ("max_pool2d", (2, 1, 1, 2)),
    "adaptive_max_pool2d": ("adaptive_max_pool2d", (2,)),
    "adaptive_max_pool2d, uneven": ("adaptive_max_pool2d", ((5, 4),)),
    "adaptive_max_pool2d, larger": ("adaptive_max_pool2d", ((9, 3),)),
    "avg_pool2d": ("avg_pool2d", (3, 2, 1)),
    "adaptive_avg_pool2d": ("adaptive_avg_pool2d", ((5, 4),)),
}
PIXELS = {
    "ties": lambda random, shape: random.integers(-1, 2, shape),
    "zeros": lambda random, shape: np.zeros(shape),
    "-inf": lambda random, shape: np.full(shape, -np.inf),
    "some -inf": lambda random, shape: np.where(random.random(shape) < 0.6, -np.inf, random.integers(-1, 2, shape)),
    "some nan": lambda random, shape: np.where(random.random(shape) < 0.3, np.nan, random.integers(-1, 2, shape)),
    "some inf": lambda random, shape: np.where(random.random(shape) < 0.1, np.inf, random.normal(size=shape)),
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("values", PIXELS.values(), ids=PIXELS)
@pytest.mark.parametrize(("name", "options"), POOLINGS.values(), ids=POOLINGS)
def test_pooling_of_special_values(name, options, values, dtype):
    array = values(np.random.default_rng(0), (2, 3, 6, 7)).astype(dtype)
    x, y = tt.Tensor(array, requires_grad=True), torch.from_numpy(array.copy()).requires_grad_()
    got, expected = getattr(ts, name)(x, *options), getattr(torch.nn.functional, name)(y, *options)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(got.detach(), expected.detach().numpy(), rtol=4 * eps, atol=4 * eps)
    g = np.random.default_rng(1).integers(1, 9, got.shape).astype(dtype)
    tt_autograd.backward(got, tt.from_numpy(g))
    expected.backward(torch.from_numpy(g))
    np.testing.assert_allclose(x.grad, y.grad.numpy(), rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_the_largest_of_integers_is_an_integer(dtype):
    array = (np.random.default_rng(0).integers(0, 200, (1, 2, 5, 6)) - (0 if dtype == np.uint8 else 100)).astype(dtype)
    got, expected = ts.max_pool2d(tt.from_numpy(array), 2, 2, 1), torch.nn.functional.max_pool2d(
        torch.from_numpy(array), 2, 2, 1
    )
    assert got.dtype == dtype and np.array_equal(got.numpy(), expected.numpy())


# Which pixel goes where: sides that keep their size or double it, given factors, and those that follow from the sizes.

FACTORS = [1.00001, 2.05, 1.3, 0.34, 0.5, 3.0, 1 / 3, 0.99, 1.7, 2.4, 0.77]


@pytest.mark.parametrize("options", [{"mode": "nearest"}, {"mode": "bilinear"}], ids=str)
def test_interpolate_takes_the_same_pixels(options):
    for n in (1, 2, 6, 7, 30, 88):
        x = np.arange(2.0 * n, dtype=np.float32).reshape(1, 1, 2, n)
        wanted = [{"scale_factor": (1.0, f)} for f in FACTORS if int(n * f)]
        wanted += [{"size": (2, m)} for m in (1, n - 1, n, n + 1, 2 * n, 2 * n + 1, 3 * n) if m > 0]
        for size in wanted:
            got = ts.interpolate(tt.from_numpy(x), **size, **options).numpy()
            expected = torch.nn.functional.interpolate(torch.from_numpy(x), **size, **options).numpy()
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5, err_msg=f"{n} pixels, {size}")


def test_interpolate_of_a_series():
    x = np.random.default_rng(0).normal(size=(2, 3, 7))
    sizes = [{"size": 5}, {"size": (14,)}, {"size": 7}, *({"scale_factor": f} for f in FACTORS)]
    for size in sizes:
        expected = torch.nn.functional.interpolate(torch.from_numpy(x), **size).numpy()
        assert np.array_equal(ts.interpolate(tt.Tensor(x), **size).numpy(), expected)


# Padding keeps the dtype and every number of what it pads.


@pytest.mark.parametrize("value", [0, 1.5, 7.5, -1.0, np.inf, -np.inf, np.nan, 300, 1e6])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_])
def test_pad_with_any_value(dtype, value):
    array = np.array([[-0.0, 2, 3], [0, 5, 6]]).astype(dtype)
    try:
        expected = torch.nn.functional.pad(torch.from_numpy(array), (1, 2, 0, 1), value=value).numpy()
    except RuntimeError:
        with pytest.raises(ValueError, match="pad cannot put"):
            ts.pad(tt.from_numpy(array), (1, 2, 0, 1), value=value)
        return
    got = ts.pad(tt.from_numpy(array), (1, 2, 0, 1), value=value).numpy()
    assert got.dtype == expected.dtype and np.array_equal(got, expected, equal_nan=dtype not in (np.bool_,))


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_pad_cuts_off_in_every_mode(mode):
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6))
    for padding in ((-1, 2, 0, 0), (2, -1, 1, 0), (-1, -2, -1, -1), (0, 0, 0, 0)):
        expected = torch.nn.functional.pad(torch.from_numpy(x), padding, mode).numpy()
        assert np.array_equal(ts.pad(tt.Tensor(x), padding, mode).numpy(), expected), padding
    for padding in ((-1, 2), (-1, 1), (2, -1)) if mode in ("reflect", "replicate") else ():
        x = np.arange(3.0).reshape(1, 1, 3)
        expected = torch.nn.functional.pad(torch.from_numpy(x), padding, mode).numpy()
        assert np.array_equal(ts.pad(tt.Tensor(x), padding, mode).numpy(), expected), padding


# Layers: torch's state is loaded into ours and ours into torch's, so the names must be the same. Then outputs and all
# gradients are compared, in training and in evaluation, and the buffers afterwards.

IMAGES = (2, 4, 7, 6)
LAYERS = {
    "Conv2d": (lambda nn: nn.Conv2d(4, 6, 3), IMAGES),
    "Conv2d of one image": (lambda nn: nn.Conv2d(4, 6, 3), IMAGES[1:]),
    "Conv2d with every option": (lambda nn: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), groups=2), IMAGES),
    "Conv2d without bias": (lambda nn: nn.Conv2d(4, 4, 2, bias=False, groups=4), IMAGES),
    "Conv2d same": (lambda nn: nn.Conv2d(4, 3, (4, 3), padding="same", dilation=(1, 2)), IMAGES),
    "Conv2d valid": (lambda nn: nn.Conv2d(4, 3, 2, padding="valid"), IMAGES),
    "Conv2d reflect": (lambda nn: nn.Conv2d(4, 3, 3, padding=(2, 1), padding_mode="reflect"), IMAGES),
    "Conv2d replicate": (lambda nn: nn.Conv2d(4, 3, 3, stride=2, padding=1, padding_mode="replicate"), IMAGES),
    "Conv2d circular same": (lambda nn: nn.Conv2d(4, 3, (4, 3), padding="same", padding_mode="circular"), IMAGES),
    "Conv1d": (lambda nn: nn.Conv1d(4, 6, 3, 2, 1, 2, groups=2), (2, 4, 9)),
    "Conv1d of one series": (lambda nn: nn.Conv1d(4, 6, 3), (4, 9)),
    "Conv1d same": (lambda nn: nn.Conv1d(4, 6, 4, padding="same", bias=False), (2, 4, 9)),
    "Conv1d reflect": (lambda nn: nn.Conv1d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 9)),
    "ConvTranspose2d": (lambda nn: nn.ConvTranspose2d(4, 6, 3), IMAGES),
    "ConvTranspose2d of one image": (lambda nn: nn.ConvTranspose2d(4, 6, 3), IMAGES[1:]),
    "ConvTranspose2d with every option": (
        lambda nn: nn.ConvTranspose2d(4, 6, (3, 2), (2, 3), (1, 0), (1, 2), groups=2, bias=False, dilation=(1, 2)),
        IMAGES,
    ),
    "MaxPool2d": (lambda nn: nn.MaxPool2d(2), IMAGES),
    "MaxPool2d with every option": (lambda nn: nn.MaxPool2d((3, 2), (1, 2), (1, 0), (1, 2)), IMAGES),
    "MaxPool1d": (lambda nn: nn.MaxPool1d(3, 2, 1, 2), (2, 4, 9)),
    "AvgPool2d": (lambda nn: nn.AvgPool2d(2), IMAGES),
    "AvgPool2d of pixels": (lambda nn: nn.AvgPool2d(3, 2, 1, count_include_pad=False), IMAGES),
    "AdaptiveAvgPool2d": (lambda nn: nn.AdaptiveAvgPool2d((3, None)), IMAGES),
    "AdaptiveMaxPool2d": (lambda nn: nn.AdaptiveMaxPool2d(3), IMAGES),
    "BatchNorm2d": (lambda nn: nn.BatchNorm2d(4), IMAGES),
    "BatchNorm2d with every option": (lambda nn: nn.BatchNorm2d(4, 0.1, 0.3, False), IMAGES),
    "BatchNorm2d, mean of all batches": (lambda nn: nn.BatchNorm2d(4, momentum=None), IMAGES),
    "BatchNorm2d without averages": (lambda nn: nn.BatchNorm2d(4, track_running_stats=False), IMAGES),
    "BatchNorm1d of vectors": (lambda nn: nn.BatchNorm1d(4), (5, 4)),
    "BatchNorm1d of series": (lambda nn: nn.BatchNorm1d(4), (3, 4, 5)),
    "LayerNorm": (lambda nn: nn.LayerNorm(6), IMAGES),
    "LayerNorm of images": (lambda nn: nn.LayerNorm((4, 7, 6), 0.1), IMAGES),
    "LayerNorm without bias": (lambda nn: nn.LayerNorm((7, 6), bias=False), IMAGES),
    "LayerNorm, plain": (lambda nn: nn.LayerNorm(6, elementwise_affine=False), IMAGES),
    "GroupNorm": (lambda nn: nn.GroupNorm(2, 4), IMAGES),
    "GroupNorm, plain": (lambda nn: nn.GroupNorm(4, 4, 0.1, affine=False), (2, 4, 5)),
    "ZeroPad2d": (lambda nn: nn.ZeroPad2d((1, 2, 0, 3)), IMAGES),
    "ConstantPad2d": (lambda nn: nn.ConstantPad2d(1, 3.5), IMAGES),
    "ReflectionPad2d": (lambda nn: nn.ReflectionPad2d((1, 2, 0, 3)), IMAGES),
    "ReplicationPad2d": (lambda nn: nn.ReplicationPad2d(2), IMAGES),
    "ConvTranspose1d": (lambda nn: nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, 2, False, 2), (2, 4, 5)),
    "AvgPool1d": (lambda nn: nn.AvgPool1d(3, 2, 1, True, False), (2, 4, 8)),
    "MaxPool2d, ceil_mode": (lambda nn: nn.MaxPool2d(3, 2, 1, ceil_mode=True), IMAGES),
    "AvgPool2d, ceil_mode": (lambda nn: nn.AvgPool2d(3, 2, 1, True, divisor_override=5), IMAGES),
    "AdaptiveAvgPool1d": (lambda nn: nn.AdaptiveAvgPool1d(3), (2, 4, 8)),
    "AdaptiveMaxPool1d": (lambda nn: nn.AdaptiveMaxPool1d(3), (2, 4, 8)),
    "BatchNorm2d without bias": (lambda nn: nn.BatchNorm2d(4, bias=False), IMAGES),
    "BatchNorm3d": (lambda nn: nn.BatchNorm3d(4), (2, 4, 2, 3, 2)),
    "InstanceNorm1d": (lambda nn: nn.InstanceNorm1d(4), (2, 4, 5)),
    "InstanceNorm2d": (lambda nn: nn.InstanceNorm2d(4, 1e-3, 0.3, True, True), IMAGES),
    "InstanceNorm2d of one image": (lambda nn: nn.InstanceNorm2d(4, affine=True, bias=False), IMAGES[1:]),
    "InstanceNorm3d": (lambda nn: nn.InstanceNorm3d(4, affine=True), (2, 4, 2, 3, 2)),
    "GroupNorm without bias": (lambda nn: nn.GroupNorm(2, 4, bias=False), IMAGES),
    "RMSNorm": (lambda nn: nn.RMSNorm(6), IMAGES),
    "RMSNorm of images": (lambda nn: nn.RMSNorm((7, 6), 1e-3, False), IMAGES),
    "LocalResponseNorm": (lambda nn: nn.LocalResponseNorm(3, 0.5, 0.6, 2.0), IMAGES),
    "PixelShuffle": (lambda nn: nn.PixelShuffle(2), IMAGES),
    "PixelUnshuffle": (lambda nn: nn.PixelUnshuffle(2), (2, 3, 4, 6)),
    "ChannelShuffle": (lambda nn: nn.ChannelShuffle(2), IMAGES),
    "Unfold": (lambda nn: nn.Unfold((3, 2), 2, 1, (1, 2)), IMAGES),
    "Fold": (lambda nn: nn.Fold((4, 5), (2, 3), padding=1, stride=2), (2, 12, 9)),
    "ZeroPad1d": (lambda nn: nn.ZeroPad1d((1, 2)), (2, 4, 5)),
    "ZeroPad3d": (lambda nn: nn.ZeroPad3d(1), (2, 4, 2, 3, 2)),
    "ConstantPad1d": (lambda nn: nn.ConstantPad1d(2, -1.5), (2, 4, 5)),
    "ConstantPad3d": (lambda nn: nn.ConstantPad3d((1, 0, 2, 1, 0, 1), 2.0), (2, 4, 2, 3, 2)),
    "ReflectionPad1d": (lambda nn: nn.ReflectionPad1d(2), (2, 4, 5)),
    "ReflectionPad3d": (lambda nn: nn.ReflectionPad3d(1), (2, 4, 2, 3, 2)),
    "ReplicationPad1d": (lambda nn: nn.ReplicationPad1d((1, 3)), (2, 4, 5)),
    "ReplicationPad3d": (lambda nn: nn.ReplicationPad3d((1, 0, 2, 1, 0, 1)), (2, 4, 2, 3, 2)),
    "CircularPad1d": (lambda nn: nn.CircularPad1d((1, 3)), (2, 4, 5)),
    "CircularPad2d": (lambda nn: nn.CircularPad2d((1, 2, 0, 3)), IMAGES),
    "CircularPad3d": (lambda nn: nn.CircularPad3d(1), (2, 4, 2, 3, 2)),
    "UpsamplingNearest2d": (lambda nn: nn.UpsamplingNearest2d(scale_factor=2), IMAGES),
    "UpsamplingBilinear2d": (lambda nn: nn.UpsamplingBilinear2d((9, 5)), IMAGES),
    "Upsample linear": (lambda nn: nn.Upsample(scale_factor=1.7, mode="linear", recompute_scale_factor=True),
                        (2, 4, 5)),
    "Upsample": (lambda nn: nn.Upsample(scale_factor=2), IMAGES),
    "Upsample bilinear": (lambda nn: nn.Upsample((9, 5), mode="bilinear", align_corners=True), IMAGES),
    "a network": (
        lambda nn: nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, groups=8), nn.GroupNorm(2, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        ),
        IMAGES,
    ),
}  # fmt: skip


def test_every_layer_is_compared():
    layers = {n for n in ts.__all__ if isinstance(getattr(ts, n), type) and issubclass(getattr(ts, n), tt.Module)}
    elsewhere = {"BatchNorm", "LeNet", "MaxUnpool1d", "MaxUnpool2d"} | set(LAZY)
    assert layers - {key.split()[0].rstrip(",") for key in LAYERS} == elsewhere
    functions = {name.split()[0] for name in (op.name for op in OPS)} | {"max_unpool1d"}
    assert functions == set(functional.__all__) == {n for n in ts.__all__ if hasattr(torch.nn.functional, n)}


def numbers(tensors):
    return {name: tensor.numpy().copy() for name, tensor in tensors.items()}


@both_widths
@pytest.mark.parametrize(("build", "shape"), LAYERS.values(), ids=LAYERS)
def test_layers(build, shape, dtype):
    random = np.random.default_rng(1)
    ours, theirs = build(OURS).to(dtype), build(torch.nn).to(getattr(torch, np.dtype(dtype).name))
    for parameter in theirs.parameters():
        parameter.data += torch.from_numpy(random.normal(0, 0.1, tuple(parameter.shape)).astype(dtype))
    state = numbers(theirs.state_dict())
    ours.load_state_dict(state)
    assert list(ours.state_dict()) == list(state)
    assert all(ours.state_dict()[name].dtype == value.dtype for name, value in state.items())
    for _ in range(2):
        values = random.normal(1, 2, shape).astype(dtype)
        x, y = tt.Tensor(values, requires_grad=True), torch.from_numpy(values.copy()).requires_grad_()
        got, expected = ours(x), theirs(y)
        assert (got.shape, str(got.dtype)) == (tuple(expected.shape), str(expected.dtype).removeprefix("torch."))
        close(got.detach(), expected, FORWARD[dtype], "output")
        ours.zero_grad(), theirs.zero_grad()
        weights = random.normal(size=got.shape).astype(dtype)
        tt_autograd.backward((got * weights).sum())
        (expected * torch.from_numpy(weights)).sum().backward()
        same_gradient(x, y, GRADIENT[dtype], "the input")
        for (name, one), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            same_gradient(one, other, GRADIENT[dtype], name)
    for name, buffer in theirs.named_buffers():
        close(ours.state_dict()[name], buffer, FORWARD[dtype], name)
    ours.eval(), theirs.eval()
    close(ours(tt.Tensor(values)).detach(), theirs(torch.from_numpy(values)), FORWARD[dtype], "output in evaluation")
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in numbers(ours.state_dict()).items()})


# An empty batch has an empty result of the right shape, gives every weight a gradient of 0 and moves no statistics.


WITHOUT = ("InstanceNorm", "PixelShuffle", "PixelUnshuffle")  # torch itself fails there, or returns another shape


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [name for name in LAYERS if " of one " not in name and not name.startswith(WITHOUT)])
def test_empty_batches(name, training):
    build, shape = LAYERS[name]
    ours, theirs = (build(library).train(training) for library in (OURS, torch.nn))
    x, y = tt.zeros(0, *shape[1:]).requires_grad_(), torch.zeros(0, *shape[1:], requires_grad=True)
    got, expected = ours(x), theirs(y)
    assert got.shape == tuple(expected.shape) and got.dtype == np.float32
    tt_autograd.backward(got.sum())
    expected.sum().backward()
    assert x.grad.shape == x.shape
    for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert parameter.grad.shape == tuple(other.grad.shape) and not parameter.grad.numpy().any()
    for key, buffer in theirs.named_buffers():
        assert np.array_equal(ours.state_dict()[key].numpy(), buffer.numpy()), key


def test_empty_rows_of_norms():
    for got, expected in (
        (ts.layer_norm(tt.zeros(3, 0), 0), (3, 0)),
        (ts.layer_norm(tt.zeros(0, 2, 3), (2, 3), tt.ones(2, 3), tt.ones(2, 3)), (0, 2, 3)),
        (ts.group_norm(tt.zeros(1, 3, 0), 1), (1, 3, 0)),
        (ts.group_norm(tt.zeros(0, 4, 3), 2, tt.ones(4)), (0, 4, 3)),
        (ts.batch_norm(tt.zeros(2, 3, 0, 8), None, None, training=True), (2, 3, 0, 8)),
        (ts.batch_norm(tt.zeros(0, 3), tt.zeros(3), tt.ones(3)), (0, 3)),
    ):
        assert got.shape == expected


# Half numbers may be normalized with weights in single precision; the result is half again.


@pytest.mark.parametrize("narrow", [np.float16, np.float32], ids=["half weights", "single weights"])
def test_norms_of_half_numbers(narrow):
    random = np.random.default_rng(0)
    x = (random.normal(size=(6, 4, 5)) * 300).astype(np.float16)
    weight, bias, mean = (random.normal(size=4).astype(narrow) for _ in range(3))
    var = random.uniform(0.5, 2, 4).astype(narrow)
    F = torch.nn.functional
    calls = {
        "layer_norm": lambda lib, x, w, b, m, v: lib.layer_norm(x, (4,), w, b),
        "group_norm": lambda lib, x, w, b, m, v: lib.group_norm(x, 2, w, b),
        "batch_norm": lambda lib, x, w, b, m, v: lib.batch_norm(x, m, v, w, b, True),
        "batch_norm in evaluation": lambda lib, x, w, b, m, v: lib.batch_norm(x, m, v, w, b),
    }
    for name, call in calls.items():
        arrays = [x.swapaxes(1, 2).copy() if name == "layer_norm" else x, weight, bias, mean, var]
        ours, theirs = [tt.Tensor(a.copy()) for a in arrays], [torch.from_numpy(a.copy()) for a in arrays]
        for tensor in (*ours[:3], *theirs[:3]):
            tensor.requires_grad_()
        got, expected = call(ts, *ours), call(F, *theirs)
        assert (got.dtype, str(expected.dtype)) == (np.float16, "torch.float16"), name
        close(got.detach(), expected, 4e-3, name)
        tt_autograd.backward(got, tt.from_numpy(np.ones(got.shape, np.float16)))
        expected.backward(torch.ones_like(expected))
        for one, other in zip(ours[1:], theirs[1:]):
            assert one.grad is None or one.grad.dtype == narrow
            close(one.detach(), other, 4e-3, f"a vector after {name}")
        same_gradient(ours[2], theirs[2], 4e-3, f"bias of {name}")


# Initialisation draws from another generator, so what agrees is the distribution: its bounds and its spread.


@pytest.mark.parametrize(
    "build",
    [
        lambda nn: nn.Conv2d(16, 60, 3), lambda nn: nn.Conv2d(16, 600, 3, groups=4), lambda nn: nn.Conv1d(30, 200, 5),
        lambda nn: nn.ConvTranspose2d(600, 16, 3, groups=2),
    ],
    ids=["Conv2d", "Conv2d in groups", "Conv1d", "ConvTranspose2d"],
)  # fmt: skip
def test_initialisation(build):
    tt.manual_seed(0)
    torch.manual_seed(0)
    for one, other in zip(build(OURS).parameters(), build(torch.nn).parameters(), strict=True):
        ours, theirs = one.numpy(), other.detach().numpy()
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        assert ours.max() <= np.abs(ours).max() and np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=0.08)
        assert ours.std() == pytest.approx(theirs.std(), rel=0.02 if ours.size > 1000 else 0.3)


# Every layer with weights is made in the dtype that is asked for, on the CPU.

FACTORIES = {
    "Conv1d": (4, 2, 3), "Conv2d": (4, 2, 3), "ConvTranspose1d": (4, 2, 3), "ConvTranspose2d": (4, 2, 3),
    "BatchNorm1d": (4,), "BatchNorm2d": (4,), "BatchNorm3d": (4,), "LayerNorm": (4,), "GroupNorm": (2, 4),
    "InstanceNorm1d": (4, 1e-5, 0.1, True, True), "InstanceNorm2d": (4, 1e-5, 0.1, True, True),
    "InstanceNorm3d": (4, 1e-5, 0.1, True, True), "RMSNorm": (4,), "LazyConv2d": (2, 3), "LazyBatchNorm2d": (),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
@pytest.mark.parametrize("name", FACTORIES)
def test_layers_are_made_in_a_dtype(name):
    layer = getattr(ts, name)(*FACTORIES[name], device="cpu", dtype=tt.float64)
    other = getattr(torch.nn, name)(*FACTORIES[name], device="cpu", dtype=torch.float64)
    if not name.startswith("Lazy"):
        found = {key: str(tensor.dtype) for key, tensor in layer.state_dict().items()}
        assert found == {key: str(t.dtype).removeprefix("torch.") for key, t in other.state_dict().items()}
    else:
        layer(tt.zeros(2, 4, 5, 5, dtype=tt.float64))
        assert all(parameter.dtype == np.float64 for parameter in layer.parameters())
    with pytest.raises(RuntimeError, match="cuda is not available"):
        getattr(ts, name)(*FACTORIES[name], device="cuda")


# Lazy layers: the same state as torch's after the first input, the same results, and the class that they become.

LAZY = {
    "LazyConv1d": (lambda nn: nn.LazyConv1d(6, 3, 2, 1, 2, 2), (2, 4, 9)),
    "LazyConv2d": (lambda nn: nn.LazyConv2d(6, (3, 2), padding=1, bias=False), IMAGES),
    "LazyConvTranspose1d": (lambda nn: nn.LazyConvTranspose1d(6, 3, 2, 1, 1, 2), (2, 4, 9)),
    "LazyConvTranspose2d": (lambda nn: nn.LazyConvTranspose2d(6, 3, 2), IMAGES),
    "LazyBatchNorm1d": (lambda nn: nn.LazyBatchNorm1d(), (5, 4)),
    "LazyBatchNorm2d": (lambda nn: nn.LazyBatchNorm2d(1e-3, 0.3, bias=False), IMAGES),
    "LazyBatchNorm3d": (lambda nn: nn.LazyBatchNorm3d(affine=False), (2, 4, 2, 3, 2)),
    "LazyInstanceNorm1d": (lambda nn: nn.LazyInstanceNorm1d(), (2, 4, 5)),
    "LazyInstanceNorm2d": (lambda nn: nn.LazyInstanceNorm2d(track_running_stats=False), IMAGES),
    "LazyInstanceNorm3d": (lambda nn: nn.LazyInstanceNorm3d(), (2, 4, 2, 3, 2)),
}


@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
@pytest.mark.parametrize("loaded", [False, True], ids=["fresh", "loaded before the first input"])
@pytest.mark.parametrize("name", LAZY)
def test_lazy_layers(name, loaded):
    build, shape = LAZY[name]
    ours, theirs = build(OURS), build(torch.nn)
    own = dict(ours.named_parameters())
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    theirs(torch.from_numpy(x))
    if not loaded:
        ours(tt.from_numpy(x))
    ours.load_state_dict(numbers(theirs.state_dict()))
    close(ours(tt.from_numpy(x)).detach(), theirs(torch.from_numpy(x)), 2e-5, name)
    assert type(ours) is getattr(ts, name.removeprefix("Lazy")) and type(theirs).__name__ == type(ours).__name__
    assert all(parameter is own[key] and type(parameter) is tt.Parameter for key, parameter in ours.named_parameters())
    size = "in_channels" if "Conv" in name else "num_features"
    assert getattr(ours, size) == getattr(theirs, size) == 4


# The places of the maxima, and the way back.


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 1}, {"padding": 1}, {"ceil_mode": True}, {"stride": 1, "dilation": 2},
     {"padding": 1, "ceil_mode": True, "stride": 3}], ids=str,
)  # fmt: skip
def test_places_of_the_maxima(options, dtype):
    x = np.random.default_rng(0).integers(-3, 3, (2, 3, 7, 6)).astype(dtype)
    for one, other in ((x, x), (x[0], x[0])):
        found = functional.max_pool2d(tt.from_numpy(one), 3, return_indices=True, **options)
        expected = F.max_pool2d(torch.from_numpy(other), 3, return_indices=True, **options)
        assert all(np.array_equal(a.numpy(), b.numpy()) and a.dtype == b.numpy().dtype for a, b in zip(found, expected))
        if dtype is np.float64:
            found = functional.max_pool1d(tt.from_numpy(one[..., 0, :]), 2, return_indices=True)
            expected = F.max_pool1d(torch.from_numpy(other[..., 0, :]), 2, return_indices=True)
            assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(found, expected))


@pytest.mark.parametrize("size", [1, 2, (3, 5), 6, (9, 4)])
def test_places_of_adaptive_maxima(size):
    x = np.random.default_rng(0).integers(-3, 3, (2, 3, 6, 7)).astype(float)
    found = functional.adaptive_max_pool2d(tt.Tensor(x), size, return_indices=True)
    expected = F.adaptive_max_pool2d(torch.from_numpy(x), size, return_indices=True)
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(found, expected))
    layer, other = ts.AdaptiveMaxPool1d(4, True), torch.nn.AdaptiveMaxPool1d(4, True)
    for a, b in zip(layer(tt.Tensor(x[0])), other(torch.from_numpy(x[0]))):
        assert np.array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("output_size", [None, (7, 6), (2, 3, 7, 7)])
def test_unpooling_layers(output_size):
    sides = (6, 6) if output_size is None else output_size[-2:]
    x, row = (np.random.default_rng(0).normal(size=shape) for shape in ((2, 3, *sides), (3, 7)))

    def results(nn, tensor):
        found = nn.MaxPool2d(2, return_indices=True)(tensor(x))
        yield nn.MaxUnpool2d(2)(*found, output_size)
        yield nn.MaxUnpool1d(2)(*nn.MaxPool1d(2, return_indices=True)(tensor(row)), output_size=[7])

    for got, expected in zip(results(OURS, tt.from_numpy), results(torch.nn, torch.from_numpy), strict=True):
        assert np.array_equal(got.numpy(), expected.numpy())


def test_empty_batches_where_torch_fails():
    for layer, shape, wanted in (
        (ts.InstanceNorm2d(4, affine=True, track_running_stats=True), (0, 4, 3, 2), (0, 4, 3, 2)),
        (ts.PixelShuffle(2), (0, 4, 3, 2), (0, 1, 6, 4)), (ts.PixelUnshuffle(2), (0, 1, 6, 4), (0, 4, 3, 2)),
    ):  # fmt: skip
        x = tt.zeros(*shape, requires_grad=True)
        out = layer(x)
        out.sum().backward()
        assert out.shape == wanted and x.grad.shape == shape
    assert not ts.InstanceNorm2d(4, track_running_stats=True).running_mean.numpy().any()


@pytest.mark.parametrize("output_size", [(13, 12), [2, 6, 14, 11]])
def test_a_transposed_convolution_of_a_chosen_size(output_size):
    ours, theirs = (nn.ConvTranspose2d(4, 6, 3, 2, padding=1) for nn in (OURS, torch.nn))
    ours.load_state_dict(numbers(theirs.state_dict()))
    x = np.random.default_rng(0).normal(size=IMAGES).astype(np.float32)
    got, expected = ours(tt.from_numpy(x), output_size), theirs(torch.from_numpy(x), output_size)
    close(got.detach(), expected, 2e-5, str(output_size))
    with pytest.raises(ValueError, match=r"can become \[13, 11\] to \[14, 12\] large; output_size is \(15, 12\)"):
        ours(tt.from_numpy(x), (15, 12))


# LeNet as it stands in the chapter, and in torch as everybody writes it: from the same weights, the same fifty steps.


class TorchLeNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        nn = torch.nn
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 16, 3, padding=1)
        self.fc1, self.fc2, self.fc3 = nn.Linear(256, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        F = torch.nn.functional
        x = F.max_pool2d(F.relu(self.conv2(F.max_pool2d(F.relu(self.conv1(x)), 2))), 2).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


def test_lenet_learns_digits_step_by_step_as_in_torch():
    (x, y), _ = ts.framed_digits()
    images, labels = x.double().numpy(), y.numpy()  # in float32, a last digit grows to a percent within fifty steps
    tt.manual_seed(0)
    ours, theirs = ts.LeNet(size=16).double(), TorchLeNet().double()
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in numbers(ours.state_dict()).items()})
    for model in (ours, theirs):
        model.optimizer = (tt_optim if model is ours else torch.optim).Adam(list(model.parameters()), lr=5e-3)
    order, losses = np.random.default_rng(0).permutation(len(labels)), []
    for start in range(0, 25 * 50, 25):
        rows = order[start : start + 25]
        got = tt.cross_entropy(ours(tt.Tensor(images[rows])), tt.tensor(labels[rows]))
        expected = torch.nn.functional.cross_entropy(
            theirs(torch.from_numpy(images[rows])), torch.from_numpy(labels[rows])
        )
        losses.append((got.item(), expected.item()))
        ours.optimizer.zero_grad(), theirs.optimizer.zero_grad()
        tt_autograd.backward(got)
        expected.backward()
        ours.optimizer.step(), theirs.optimizer.step()
    got, expected = np.transpose(losses)
    assert expected[-5:].mean() < 0.5 * expected[0]
    np.testing.assert_allclose(got, expected, atol=1e-6)
