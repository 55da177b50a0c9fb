"""The kernels of chapter 09 against the loops that define them, and against each other where there are two ways."""

import numpy as np
import pytest

import tt_spatial as ts
import tt_tensor as tt
from tt_autograd import grad
from tt_spatial import spatial_loops
from tt_spatial.testing import OPS

TOLERANCE = {np.float64: {"rtol": 1e-9, "atol": 1e-10}, np.float32: {"rtol": 2e-4, "atol": 2e-4}}
OURS = {name: p for name, p in tt.PRIMITIVES.items() if p.__module__.startswith("tt_spatial.")}


def results(op, sample, dtype):
    """The value of an operation, the gradients of its cubes, and the gradients of the sum of these."""
    tensors = op.tensors(sample, dtype)
    watched = [tensors[i].requires_grad_() for i in op.watched(sample) if sample.arrays[i].size]
    value = op.function(*tensors, **sample.options)
    first = grad((value**3).sum(), watched, create_graph=True)
    total = sum((g * np.cos(np.arange(g.numel(), dtype=dtype)).reshape(g.shape)).sum() for g in first)
    return [value, *first, *grad(total, watched, allow_unused=True)]


@pytest.mark.parametrize(("dtype", "most"), [(np.float64, 30), (np.float32, 5)], ids=["float64", "float32"])
@pytest.mark.parametrize("op", OPS, ids=[op.name for op in OPS])
def test_kernels_agree_with_the_loops(op, dtype, most):
    for sample in op.samples(most):
        called = f"{op.name}({', '.join(str(a.shape) for a in sample.arrays)}, {sample.options})"
        fast = results(op, sample, dtype)
        with tt.use_kernels(spatial_loops):
            slow = results(op, sample, dtype)
        for ours, defined in zip(fast, slow, strict=True):
            if ours is None or defined is None:
                assert ours is defined, called
                continue
            assert (ours.shape, ours.dtype) == (defined.shape, defined.dtype) == (ours.shape, dtype), called
            size = max(1, np.abs(defined.detach().numpy()).max())
            np.testing.assert_allclose(
                ours.detach() / size, defined.detach() / size, **TOLERANCE[dtype], err_msg=called
            )


def test_every_primitive_has_its_loop():
    with tt.use_kernels(spatial_loops):  # which refuses other names and other signatures
        without = [name for name, p in OURS.items() if p.kernel.__module__ != spatial_loops.__name__]
    assert OURS and not without, f"no loop defines {without}"


def test_the_samples_reach_every_primitive_and_its_gradients():
    with tt.meter() as meter:
        for op in OPS:
            for sample in op.samples(20):
                results(op, sample, np.float64)
    assert set(OURS) <= set(meter.calls)


def test_a_model_runs_on_the_loops():
    x, model = tt.rand(1, 1, 8, 8), ts.LeNet(size=8)
    expected = model(x).detach().numpy()
    with tt.use_kernels(spatial_loops):
        np.testing.assert_allclose(model(x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


# A window that sees nothing but padding has no largest pixel, nan is larger than everything, and ties go to the first.


def test_pooling_of_corners_agrees_with_the_loops():
    random = np.random.default_rng(0)
    where = {"size": (2, 2), "stride": (2, 1), "padding": (1, 1), "dilation": (2, 2)}
    for x in (random.normal(size=(1, 2, 1, 3)), random.integers(0, 2, (2, 2, 4, 5)).astype(float)):
        largest = ts.max_pool.kernel(x, **where)
        g, h = random.normal(size=largest.shape), random.normal(size=x.shape)
        kept = np.isfinite(largest)
        assert np.array_equal(largest, spatial_loops.max_pool(x, **where))
        np.testing.assert_allclose(
            ts.max_unpool.kernel(g * kept, x, largest, **where), spatial_loops.max_unpool(g * kept, x, largest, **where)
        )
        picked = ts.max_pick.kernel(h, x, largest, **where), spatial_loops.max_pick(h, x, largest, **where)
        np.testing.assert_allclose(picked[0] * kept, picked[1] * kept)
    x = np.array([[[[1.0, np.nan, 3.0, 4.0]]]])
    where = {"size": (1, 2), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    assert np.array_equal(ts.max_pool.kernel(x, **where), spatial_loops.max_pool(x, **where), equal_nan=True)


SPECIAL = {
    "ties": lambda random, shape: random.integers(-1, 2, shape),
    "-inf": lambda random, shape: np.full(shape, -np.inf),
    "some -inf": lambda random, shape: np.where(random.random(shape) < 0.6, -np.inf, random.normal(size=shape)),
    "some inf": lambda random, shape: np.where(random.random(shape) < 0.1, np.inf, random.normal(size=shape)),
    "some nan": lambda random, shape: np.where(random.random(shape) < 0.3, np.nan, random.integers(-1, 2, shape)),
    "equal": lambda random, shape: np.full(shape, 255.3),
}
SPECIALLY = {
    "max_pool2d": lambda x: ts.max_pool2d(x, (2, 3), (1, 2), 1),
    "max_pool2d, dilated": lambda x: ts.max_pool2d(x, 2, 1, 1, (2, 1)),
    "avg_pool2d": lambda x: ts.avg_pool2d(x, (2, 3), 1, 1, count_include_pad=False),
    "adaptive_avg_pool2d": lambda x: ts.adaptive_avg_pool2d(x, (2, 3)),
    "adaptive_max_pool2d": lambda x: ts.adaptive_max_pool2d(x, (2, 3)),
    "interpolate": lambda x: ts.interpolate(x, (9, 3), mode="bilinear", align_corners=True),
    "conv2d": lambda x: ts.conv2d(x, tt.ones(1, 2, 2, 2, dtype=x.dtype), padding=1),
    "layer_norm": lambda x: ts.layer_norm(x, 4),
    "batch_norm": lambda x: ts.batch_norm(x, None, None, training=True),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("values", SPECIAL.values(), ids=SPECIAL)
@pytest.mark.parametrize("operation", SPECIALLY.values(), ids=SPECIALLY)
def test_special_values_agree_with_the_loops(operation, values, dtype):
    def computed():
        random = np.random.default_rng(0)
        x = tt.from_numpy(values(random, (2, 2, 5, 4)).astype(dtype)).requires_grad_()
        out = operation(x)
        g = random.integers(1, 9, out.shape).astype(dtype)
        return out.detach().numpy(), grad(out, x, tt.from_numpy(g))[0].numpy()

    ours = computed()
    with tt.use_kernels(spatial_loops):
        defined = computed()
    for one, other in zip(ours, defined, strict=True):
        assert one.dtype == other.dtype == dtype
        atol = 8 * np.finfo(dtype).eps * np.abs(other[np.isfinite(other)]).max(initial=1)
        np.testing.assert_allclose(one, other, rtol=8 * np.finfo(dtype).eps, atol=atol)


# With a stride of 1 the transposed convolution is a convolution with turned weights, otherwise every place hands out
# its shares. The second way is taken, too, if the result is to be larger; so it can be asked about the first one's.


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("padding", "dilation"), [((0, 0), (1, 1)), ((1, 0), (1, 1)), ((0, 2), (2, 1))], ids=str)
def test_handing_out_agrees_with_turning_the_weights(groups, padding, dilation):
    random = np.random.default_rng(0)
    g, weight = random.normal(size=(2, 4, 5, 6)), random.normal(size=(4, 3, 2, 3))
    where = {"stride": (1, 1), "padding": padding, "dilation": dilation, "groups": groups}
    height, width = (n - 1 - 2 * p + d * (k - 1) + 1 for n, p, d, k in zip((5, 6), padding, dilation, (2, 3)))
    turned = ts.transposed_convolution.kernel(g, weight, size=(height, width), **where)
    handed_out = ts.transposed_convolution.kernel(g, weight, size=(height + 1, width), **where)
    assert turned.shape == (2, 3 * groups, height, width)
    np.testing.assert_allclose(turned, handed_out[:, :, :height], rtol=1e-12, atol=1e-12)


def test_a_stride_puts_zeros_between_the_places():
    random = np.random.default_rng(1)
    g, weight = random.normal(size=(2, 4, 3, 4)), random.normal(size=(4, 2, 3, 2))
    spread = np.zeros((2, 4, 5, 10))
    spread[:, :, ::2, ::3] = g
    where = {"padding": (1, 1), "dilation": (1, 1), "groups": 2}
    np.testing.assert_allclose(
        ts.transposed_convolution.kernel(g, weight, size=(5, 9), stride=(2, 3), **where),
        ts.transposed_convolution.kernel(spread, weight, size=(5, 9), stride=(1, 1), **where),
        rtol=1e-12, atol=1e-12,
    )  # fmt: skip


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_weights_turned_twice_are_what_they_were(groups):
    weight = np.random.default_rng(0).normal(size=(6, 2, 3, 2))
    turned = ts.spatial.flip_kernels(weight, groups)
    assert turned.shape == (2 * groups, 6 // groups, 3, 2)
    assert turned[1, 0, 0, 0] == weight[0, 1, -1, -1] and turned[-1, -1, -1, -1] == weight[-1, -1, 0, 0]
    assert np.array_equal(ts.spatial.flip_kernels(turned, groups), weight)
