"""Finite differences as the referee of the gradients of chapters 12 and 13, to second order, on arrays and on tensors;
and the loops that define the primitives against the kernels."""

import numpy as np
import pytest

import tt_nlp as tn
import tt_tensor as tt
from tt_autograd import check_gradients, grad
from tt_nlp import nlp_loops
from tt_nlp.testing import OPS, closed
from tt_tensor.testing import Sample

every_op = pytest.mark.parametrize("op", OPS, ids=[op.name for op in OPS])
OURS = {
    name: p
    for name, p in tt.PRIMITIVES.items()
    if p.__module__.removeprefix("tt_nlp.") in ("common", "embeddings", "attention")
}


def called(op, sample):
    shapes = ", ".join(f"{a.shape} strides {a.strides}" for a in sample.arrays)
    return f"{op.name}({shapes}, {sample.options})"


def watched_of(op, sample):
    return [i for i in op.watched(sample) if sample.arrays[i].size and np.isfinite(sample.arrays[i]).all()]


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
    inputs = [tensors[i].requires_grad_() for i in watched]
    number, found = function(op, sample, tensors), 0.0
    gradients = grad(number, inputs, allow_unused=True, retain_graph=True)
    on_tensors = grad(number, inputs, allow_unused=True, create_graph=True)
    for x, gradient, other, direction in zip(inputs, gradients, on_tensors, directions.values(), strict=True):
        if gradient is not None:
            assert (gradient.shape, gradient.dtype) == (x.shape, np.float64), called(op, sample)
            np.testing.assert_allclose(gradient, other.detach(), rtol=1e-9, atol=1e-9, err_msg=called(op, sample))
            found += float((gradient.numpy() * direction).sum())
    higher, lower = (function(op, sample, at(distance)).item() for distance in (step, -step))
    expected = (higher - lower) / (2 * step)
    scale = max(abs(expected), 1e-3 * max(abs(higher), abs(lower)), 1.0)
    assert abs(found - expected) <= 2e-6 * scale, f"{found} against {expected}: {called(op, sample)}"


@pytest.mark.parametrize(("function", "most"), [(number_of, 120), (slope_of, 50)], ids=["first", "second"])
@every_op
def test_derivatives(op, function, most):
    compared = 0
    for sample in op.samples(most):
        untrue = op.name == "embedding" and sample.options["padding_idx"] is not None  # kept back on purpose
        if watched_of(op, sample) and not untrue:
            compare(function, op, sample)
            compared += 1
    assert compared > most // 5


# The same, element by element.

IDS = np.array([[1, 1, 4], [0, 1, 2]])
MASK = np.array([[True, False, True], [False, False, False]])
EACH = [
    (lambda w: tn.embedding(tt.tensor(IDS), w) ** 3, (5, 2)),
    (lambda x: tn.rotary(x, [3, 5]) ** 3, (2, 2, 4)),
    (lambda x: tn.self_attention(x, is_causal=True) ** 2, (3, 2, 3, 2)),
    (lambda q, k, v: tn.scaled_dot_product_attention(q, k, v) ** 2, (2, 3), (3, 3), (3, 2)),
    (lambda q, k, v: tn.scaled_dot_product_attention(q, k, v, tt.tensor(MASK)) ** 2, (2, 3), (3, 3), (3, 2)),
    (lambda q, k, v, m: tn.scaled_dot_product_attention(q, k, v, m) ** 2, (2, 3), (3, 3), (3, 2), (2, 3)),
]


@pytest.mark.parametrize(("function", "shapes"), [(f, shapes) for f, *shapes in EACH])
def test_element_by_element(function, shapes):
    random = np.random.default_rng(0)
    tensors = [tt.Tensor(random.normal(size=shape), requires_grad=True) for shape in shapes]
    check_gradients(function, *tensors)


def test_the_padding_has_no_gradient_whatever_the_order():
    weight = tt.Tensor(np.random.default_rng(0).normal(size=(5, 2)), requires_grad=True)
    (first,) = grad((tn.embedding(tt.tensor(IDS), weight, padding_idx=1) ** 3).sum(), weight, create_graph=True)
    (second,) = grad((first**2).sum(), weight)
    for g in (first.detach(), second):
        assert (g.numpy()[1] == 0).all() and (g.numpy()[[0, 2, 4]] != 0).all() and (g.numpy()[3] == 0).all()


# Loops.

TOLERANCE = {np.float64: {"rtol": 1e-9, "atol": 1e-10}, np.float32: {"rtol": 2e-4, "atol": 2e-4}}


def results(op, sample, dtype):
    """The value of an operation, and the gradients of its cubes, on arrays and on tensors."""
    tensors = op.tensors(sample, dtype)
    watched = [tensors[i].requires_grad_() for i in watched_of(op, sample)]
    value = op.function(*tensors, **sample.options)
    once = grad((value**3).sum(), watched, retain_graph=True)
    return [value, *once, *grad((value**3).sum(), watched, create_graph=True)]


def small(sample):
    return sum(a.size for a in sample.arrays) < 500


@pytest.mark.parametrize(("dtype", "most"), [(np.float64, 40), (np.float32, 10)], ids=["float64", "float32"])
@every_op
def test_kernels_agree_with_the_loops(op, dtype, most):
    for sample in filter(small, op.samples(most)):
        fast = results(op, sample, dtype)
        with tt.use_kernels(nlp_loops):
            slow = results(op, sample, dtype)
        for ours, defined in zip(fast, slow, strict=True):
            assert (ours.shape, ours.dtype) == (defined.shape, defined.dtype) == (ours.shape, dtype), called(op, sample)
            size = max(1, np.abs(defined.detach().numpy()).max(initial=0))
            np.testing.assert_allclose(
                ours.detach() / size, defined.detach() / size, **TOLERANCE[dtype], err_msg=called(op, sample)
            )


def test_every_primitive_has_its_loop_and_is_reached():
    with tt.use_kernels(nlp_loops):  # which refuses other names and other signatures
        assert not [name for name, p in OURS.items() if p.kernel.__module__ != nlp_loops.__name__]
    with tt.meter() as meter:
        for op in OPS:
            for sample in op.samples(20):
                results(op, sample, np.float64)
    assert set(OURS) == {"embedding", "add_rows", "rotate_pairs", "attention_in_blocks", "weighted"}
    assert set(OURS) <= set(meter.calls)


def test_samples_have_closed_rows_and_open_ones():
    samples = [s for op in OPS for s in op.samples(60) if op.name == "scaled_dot_product_attention"]
    assert any(map(closed, samples)) and not all(map(closed, samples))


# However the work is cut, the result is the same.


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("heads_inside", [False, True])
def test_blocks_do_not_show(is_causal, heads_inside, monkeypatch):
    random = np.random.default_rng(0)
    values, g = random.normal(size=(3, 4, 3, 30, 5)), random.normal(size=(4, 3, 30, 5))
    if heads_inside:
        values = np.ascontiguousarray(values.transpose(1, 3, 0, 2, 4)).transpose(2, 0, 3, 1, 4)

    def computed():
        qkv = tt.from_numpy(values).requires_grad_()
        out = tn.self_attention(qkv, is_causal=is_causal)
        return out.detach().numpy(), grad((out * g).sum(), qkv)[0].numpy()

    at_once = computed()
    for queries in (1, 7, 8, 30):
        monkeypatch.setattr("tt_nlp.attention.QUERIES", queries)
        for one, other in zip(computed(), at_once, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


def test_results_and_gradients_lie_in_memory_as_the_queries_do():
    x = tt.randn(2, 6, 3 * 8, requires_grad=True)
    qkv = x.reshape(2, 6, 3, 2, 4).permute(2, 0, 3, 1, 4)
    out = tn.self_attention(qkv, is_causal=True)
    merged = tn.merge_heads(out).detach().numpy()
    assert np.shares_memory(merged, out.detach().numpy()) and merged.flags.c_contiguous
    (share,) = grad((out * out).sum(), qkv)
    assert share.numpy().transpose(1, 3, 0, 2, 4).flags.c_contiguous
