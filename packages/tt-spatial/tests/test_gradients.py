"""Finite differences as the referee of chapter 09's gradients: shapes, strides, paddings, dilations and groups as
hypothesis thinks of them, and sizes that do not divide."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tt_spatial as ts
import tt_tensor as tt
from tt_autograd import check_gradients, grad
from tt_spatial.testing import OPS, AtRandom
from tt_tensor.testing import Sample

every_op = pytest.mark.parametrize("op", OPS, ids=[op.name for op in OPS])


class Drawn(AtRandom):
    """Samples whose every choice is hypothesis's, so that it can shrink a failure to the plainest that still fails."""

    def __init__(self, draw):
        super().__init__(draw(st.integers(0, 1000), label="seed"))
        self.draw = draw

    def pick(self, options):
        return self.draw(st.sampled_from(options)) if len(options) > 1 else options[0]


def called(op, sample):
    shapes = ", ".join(f"{a.shape} strides {a.strides}" for a in sample.arrays)
    return f"{op.name}({shapes}, {sample.options})"


def watched_of(op, sample):
    return [i for i in op.watched(sample) if sample.arrays[i].size]


def number_of(op, sample, tensors):
    """The results as one number: each cubed, so that there is a second derivative, with a weight of its own."""
    result = op.function(*tensors, **sample.options)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, result.shape)
    return (result * result * result * weights).sum()


def slope_of(op, sample, tensors):
    """The derivative of `number_of` in a fixed direction, as a function that can be differentiated again."""
    watched = watched_of(op, sample)
    gradients = grad(number_of(op, sample, tensors), [tensors[i] for i in watched], create_graph=True)
    random = np.random.default_rng(1)
    return sum((g * random.uniform(-1, 1, g.shape)).sum() for g in gradients)


def compare(function, op, sample, step=1e-5):
    """The gradient of function(op, sample, tensors) in a random direction, and the difference along it."""
    watched, random = watched_of(op, sample), np.random.default_rng(2)
    directions = {i: random.uniform(-1, 1, sample.arrays[i].shape) for i in watched}

    def at(distance):
        arrays = [a + distance * directions[i] if i in directions else a for i, a in enumerate(sample.arrays)]
        tensors = op.tensors(Sample(tuple(arrays)))
        return [tensor.requires_grad_() if i in directions else tensor for i, tensor in enumerate(tensors)]

    tensors = op.tensors(sample)
    for i in watched:
        tensors[i].requires_grad_()
    found = 0.0
    number, inputs = function(op, sample, tensors), [tensors[i] for i in watched]
    gradients = grad(number, inputs, allow_unused=True, retain_graph=True)
    on_tensors = grad(number, inputs, allow_unused=True, create_graph=True)
    for x, gradient, other, direction in zip(inputs, gradients, on_tensors, directions.values()):
        if gradient is not None:
            assert (gradient.shape, gradient.dtype) == (x.shape, np.float64), called(op, sample)
            np.testing.assert_allclose(gradient, other.detach(), rtol=1e-9, atol=1e-9, err_msg=called(op, sample))
            found += float((gradient.numpy() * direction).sum())
    higher, lower = (function(op, sample, at(distance)).item() for distance in (step, -step))
    expected = (higher - lower) / (2 * step)
    scale = max(abs(expected), 1e-3 * max(abs(higher), abs(lower)), 1.0)
    assert abs(found - expected) <= 2e-6 * scale, f"{found} against {expected}: {called(op, sample)}"


@pytest.mark.parametrize(("function", "examples"), [(number_of, 150), (slope_of, 60)], ids=["first", "second"])
@every_op
def test_derivatives(op, function, examples):
    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def check(data):
        sample = op.sampler(Drawn(data.draw))
        if watched_of(op, sample):
            compare(function, op, sample)

    check()


# The same, element by element and with every option at once, to second order.

BOTH = [
    (lambda x, w, b: ts.conv2d(x, w, b, (2, 1), (1, 2), (1, 2), groups=2) ** 2, (2, 2, 5, 4), (4, 1, 2, 3), (4,)),
    (lambda x, w: ts.conv_transpose2d(x, w, None, (2, 1), (1, 0), (1, 1), 2, (1, 2)) ** 2, (1, 2, 2, 3), (2, 2, 3, 2)),
    (lambda x, w, b: ts.batch_norm(x, None, None, w, b, training=True) ** 2, (2, 2, 2, 2), (2,), (2,)),
    (lambda x, w, b: ts.batch_norm(x, tt.ones(2), tt.ones(2) * 3, w, b) ** 2, (2, 2, 2, 2), (2,), (2,)),
    (lambda x, w, b: ts.layer_norm(x, (2, 2), w, b) ** 2, (3, 2, 2), (2, 2), (2, 2)),
    (lambda x, w, b: ts.layer_norm(x, 4, w, b) ** 2, (4,), (4,), (4,)),
    (lambda x, w, b: ts.group_norm(x, 2, w, b) ** 2, (2, 4, 3), (4,), (4,)),
    (lambda x: ts.avg_pool2d(x, (2, 3), 1, 1, count_include_pad=False) ** 2, (1, 2, 3, 4)),
    (lambda x: ts.interpolate(x, (5, 2), mode="bilinear") ** 2, (1, 2, 3, 4)),
    (lambda x: ts.pad(x, (1, 2, 2, 0), "reflect") ** 2, (1, 1, 3, 3)),
]


@pytest.mark.parametrize(("function", "shapes"), [(f, shapes) for f, *shapes in BOTH])
def test_element_by_element(function, shapes):
    random = np.random.default_rng(0)
    check_gradients(function, *(tt.Tensor(random.normal(size=shape), requires_grad=True) for shape in shapes))


def test_second_derivatives_of_the_largest_pixels_element_by_element():
    pixels = np.random.default_rng(0).permutation(24).reshape(1, 2, 3, 4)
    for options in ({}, {"stride": 1}, {"stride": 1, "padding": 1}, {"dilation": (1, 2), "stride": 1}):
        x = tt.Tensor(pixels / 5, requires_grad=True)
        check_gradients(lambda x, options=options: ts.max_pool2d(x, 2, **options) ** 3, x)


# Where pixels tie there is no slope to measure. What can be said: each window hands out what it got, once.


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 3]), st.sampled_from([0, 1]), st.sampled_from([1, 2]))
def test_equally_large_pixels_hand_out_each_share_once(seed, stride, padding, dilation):
    random = np.random.default_rng(seed)
    x = tt.Tensor(random.integers(0, 2, (2, 2, 6, 5)).astype(float), requires_grad=True)
    out = ts.max_pool2d(x, 2, stride, padding, dilation)
    g = tt.Tensor(random.integers(1, 9, out.shape).astype(float), requires_grad=True)
    (share,) = grad((out * g).sum(), x, create_graph=True)
    for value in (0, 1):
        assert share.numpy()[x.numpy() == value].sum() == g.numpy()[out.numpy() == value].sum()
    h = random.integers(1, 9, x.shape).astype(float)
    (picked,) = grad((share * h).sum(), g)
    assert (picked.numpy() * g.numpy()).sum() == (share.numpy() * h).sum()


def test_gradients_of_frozen_inputs_are_not_computed():
    x, w, b = tt.rand(1, 1, 4, 4), tt.rand(1, 1, 2, 2), tt.rand(1)
    for tensors, works in (((w,), "weight_convolution"), ((x,), "transposed_convolution")):
        for tensor in (x, w, b):
            tensor.requires_grad_(any(tensor is one for one in tensors))
        with tt.meter() as meter:
            ts.conv2d(x, w, b).sum().backward()
        others = {"weight_convolution", "transposed_convolution"} - {works}
        assert meter.multiply_adds[works] and not any(meter.multiply_adds[name] for name in others)


# An element that takes no part, because it is padding, not the largest, cut off or beyond the last stride, receives
# exactly 0, whatever arrives: a rule that multiplies by a mask of zeros would turn an infinite gradient into nan.

WEIGHT = np.random.default_rng(1).normal(size=(2, 2, 3, 2))
TAKING_PART = {
    "conv2d": lambda x: ts.conv2d(x, tt.Tensor(WEIGHT).to(x.dtype), stride=(2, 3), padding=1),
    "conv2d, turned weights": lambda x: ts.conv2d(x, tt.Tensor(WEIGHT).to(x.dtype), padding=1),
    "conv_transpose2d": lambda x: ts.conv_transpose2d(x, tt.Tensor(WEIGHT).to(x.dtype), stride=(2, 1), padding=1),
    "max_pool2d": lambda x: ts.max_pool2d(x, 2),
    "max_pool2d of overlapping windows": lambda x: ts.max_pool2d(x, 3, (1, 2), 1),
    "max_pool1d": lambda x: ts.max_pool1d(x.flatten(2), 3, 2, 1),
    "avg_pool2d": lambda x: ts.avg_pool2d(x, (2, 3), (2, 3), 1, count_include_pad=False),
    "adaptive_avg_pool2d": lambda x: ts.adaptive_avg_pool2d(x, (2, 3)),
    "adaptive_max_pool2d": lambda x: ts.adaptive_max_pool2d(x, (2, 3)),
    "interpolate nearest": lambda x: ts.interpolate(x, (3, 11)),
    "interpolate bilinear": lambda x: ts.interpolate(x, (9, 3), mode="bilinear", align_corners=True),
    "pad": lambda x: ts.pad(x, (1, -1, -2, 1), value=np.inf),
    "pad reflect": lambda x: ts.pad(x, (1, 2, 0, 1), "reflect"),
    "layer_norm": lambda x: ts.layer_norm(x, 6),
    "group_norm": lambda x: ts.group_norm(x, 2),
    "batch_norm in evaluation": lambda x: ts.batch_norm(x, tt.zeros(2).to(x.dtype), tt.ones(2).to(x.dtype)),
    "batch_norm in training": lambda x: ts.batch_norm(x, None, None, training=True),
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("operation", TAKING_PART.values(), ids=TAKING_PART)
def test_what_takes_no_part_receives_exactly_0(operation, dtype):
    values = np.random.default_rng(0).permutation(2 * 2 * 5 * 6).reshape(2, 2, 5, 6) / 16

    def share(place, arrives):
        x = tt.from_numpy(values.astype(dtype)).requires_grad_()
        out = operation(x)
        g = np.zeros(out.shape, dtype)
        g.flat[place % g.size] = arrives
        with np.errstate(invalid="ignore", over="ignore"):
            (found,) = grad(out, x, tt.from_numpy(g))
        return found.numpy()

    for place in (0, 5, -1):
        ordinary = share(place, 1.0)
        for arrives in (np.inf, -np.inf, np.nan):
            found = share(place, arrives)
            assert not found[ordinary == 0].any(), f"{arrives} arrived at {place}"
            assert not np.isfinite(found[ordinary != 0]).any()


@pytest.mark.parametrize("stride", [1, 2])
def test_an_infinite_weight_reaches_only_the_pixels_that_it_met(stride):
    weight = np.ones((1, 1, 2, 2))
    weight[0, 0, 0, 0] = np.inf
    x = tt.Tensor(np.ones((1, 1, 4, 4)), requires_grad=True)
    with np.errstate(invalid="ignore"):
        ts.conv2d(x, tt.Tensor(weight), stride=stride).sum().backward()
    met = np.zeros((4, 4), bool)
    met[:3:stride, :3:stride] = True
    found = x.grad.numpy()[0, 0]
    assert np.array_equal(np.isinf(found), met) and not np.isnan(found).any()
