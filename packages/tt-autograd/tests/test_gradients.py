"""Finite differences as the referee: every operation of the table, on arguments that hypothesis thinks of."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tt_autograd
import tt_tensor as tt
from tt_autograd import check_gradients, grad
from tt_tensor import Tensor
from tt_tensor.testing import LONG_TAIL, OPS, Draw, tensors_of

DIFFERENTIABLE = [op for op in OPS if op.differentiable != ()]
every_op = pytest.mark.parametrize("op", DIFFERENTIABLE, ids=[op.name for op in DIFFERENTIABLE])


class Drawn(Draw):
    """Samples whose every choice is hypothesis's, so that it can shrink a failure to the plainest that still fails."""

    def __init__(self, draw):
        super().__init__(draw(st.integers(0, 1000), label="seed"))
        self.draw = draw

    def pick(self, options):
        return self.draw(st.sampled_from(options)) if len(options) > 1 else options[0]

    def shape(self, least=0, empty=True):
        sizes = st.integers(0 if empty else 1, 3)
        return tuple(self.draw(st.lists(sizes, min_size=least, max_size=max(3, least)), label="shape"))


def called(op, sample):
    shapes = ", ".join(f"{a.shape} strides {a.strides}" for a in sample.arrays)
    return f"{op.name}({shapes}, {sample.options})"


def scalar_of(op, sample):
    """The operation as a function from tensors to one number: its results, each element with a weight of its own."""
    random = np.random.default_rng(0)
    weights = [
        random.uniform(0.5, 1.5, r.shape) for r in tensors_of(op.function(*op.tensors(sample), **sample.options))
    ]

    def scalar(tensors):
        results = tensors_of(op.function(*tensors, **sample.options))
        total = tt.zeros((), dtype=tt.float64)
        for result, weight in zip(results, weights, strict=True):
            if result.dtype.kind == "f":
                total = total + (result * weight).sum()
        return total

    return scalar


def differences(scalar, op, sample, which, distance=1e-6):
    """The gradient of one argument by moving each of its elements to both sides."""
    gradient = np.zeros(sample.arrays[which].shape)
    for place in np.ndindex(gradient.shape):
        values = []
        for moved in (distance, -distance):
            tensors = op.tensors(sample)
            array = sample.arrays[which].copy()
            array[place] += moved
            tensors[which] = tt.from_numpy(array)
            values.append(scalar(tensors).item())
        gradient[place] = (values[0] - values[1]) / (2 * distance)
    return gradient


@every_op
def test_first_derivatives(op):
    count = 12 if op in LONG_TAIL else 100

    @settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.data())
    def check(data):
        sample = op.sampler(Drawn(data.draw))
        tensors = op.tensors(sample)
        watched = op.watched(sample)
        scalar = scalar_of(op, sample)
        result = scalar([t.requires_grad_() if i in watched else t for i, t in enumerate(tensors)])
        if not result.requires_grad:
            assert not watched or all(differences(scalar, op, sample, i).max(initial=0) == 0 for i in watched)
            return
        gradients = grad(result, [tensors[i] for i in watched], allow_unused=True)
        for i, gradient in zip(watched, gradients, strict=True):
            found = np.zeros(tensors[i].shape) if gradient is None else gradient.numpy()
            assert found.shape == tensors[i].shape and found.dtype == np.float64, called(op, sample)
            expected = differences(scalar, op, sample, i)
            np.testing.assert_allclose(
                found, expected, rtol=2e-6, atol=2e-7, err_msg=f"argument {i} of {called(op, sample)}"
            )

    check()


# Second derivatives: the gradient is itself a function made of primitives, so the same table serves again.


@every_op
def test_second_derivatives(op):
    for sample in op.samples(most=5):
        inputs = [Tensor(np.ascontiguousarray(a)) for a in sample.arrays]
        for i in op.watched(sample):
            inputs[i].requires_grad_()

        def cubed(*tensors, op=op, sample=sample):  # so that linear operations have a second derivative to get wrong
            return [r * r * r for r in tensors_of(op.function(*tensors, **sample.options)) if r.dtype.kind == "f"]

        check_gradients(cubed, *inputs, order=2)


# The referee is tested, too: it must catch what is wrong, in either order, and say where.


def _wrong(kernel, *shares):
    """A primitive for this test alone, taken out of the tables again."""
    primitive = tt.primitive(kernel)
    del tt.PRIMITIVES[primitive.name]
    tt_autograd.rule(primitive, *shares)
    return primitive


def test_check_gradients_catches_a_wrong_first_derivative():
    def doubled(x, /):
        return 2 * x

    with pytest.raises(AssertionError, match=r"order 1.*input 0.*shape \(3,\).*finite differences say"):
        check_gradients(_wrong(doubled, lambda g, out, x: g), Tensor(np.ones(3), requires_grad=True))


def test_check_gradients_catches_a_wrong_second_derivative():
    def squared(x, /):
        return x * x

    detached = _wrong(squared, lambda g, out, x: g * 2 * x.detach() if isinstance(x, Tensor) else g * 2 * x)
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    check_gradients(detached, x, order=1)
    with pytest.raises(AssertionError, match="order 2"):
        check_gradients(detached, x)


def test_check_gradients_catches_elements_that_were_swapped():
    def reversed_(x, /):
        return x[::-1].copy()

    with pytest.raises(AssertionError, match="order 1"):
        check_gradients(_wrong(reversed_, lambda g, out, x: g), Tensor(np.ones(2), requires_grad=True))


def test_check_gradients_needs_float64_and_something_to_check():
    with pytest.raises(ValueError, match="float64"):
        check_gradients(tt.exp, Tensor([1.0], requires_grad=True))
    with pytest.raises(ValueError, match="requires a gradient"):
        check_gradients(tt.exp, Tensor(np.ones(1)))


def test_check_gradients_leaves_everything_as_it_was():
    x = Tensor(np.array([0.3, -0.7]), requires_grad=True)
    check_gradients(lambda x: (x * x).exp(), x)
    assert x.tolist() == [0.3, -0.7] and x.grad is None and x.requires_grad


# The table is closed: a primitive without a rule is reported by the line that used it.


def test_every_primitive_has_a_rule_or_is_listed_as_having_none():
    ours = [p for p in tt.PRIMITIVES.values() if p.__module__.startswith("tt_")]
    undecided = [p.name for p in ours if (p in tt_autograd.RULES) == (p in tt_autograd.NO_GRADIENT)]
    assert not undecided, f"in neither table, or in both: {undecided}"


def test_a_primitive_without_a_rule_says_so_where_it_is_used():
    def unheard_of(x, /):
        return x * 1.0

    primitive = tt.primitive(unheard_of)
    del tt.PRIMITIVES["unheard_of"]
    assert primitive(tt.ones(2)).tolist() == [1.0, 1.0]
    with pytest.raises(NotImplementedError, match=r"unheard_of has no rule.*NO_GRADIENT"):
        primitive(tt.ones(2, requires_grad=True))


def test_two_rules_for_one_primitive_are_refused():
    with pytest.raises(ValueError, match="mul has a rule already"):
        tt_autograd.rule(tt.mul, None, None)


# One function for all inputs of a primitive


@pytest.fixture
def weighed():
    """A primitive a x + b y, for a vector a, whose gradients come from one function; and what that was asked for."""

    def weighed(a, x, y, /, b):
        return a * x + b * y

    primitive, asked = tt.primitive(weighed), []

    def gradients(needed, g, out, a, x, y, b):
        asked.append(list(needed))
        return [g * x if needed[0] else None, g * a if needed[1] else None, g * b]

    tt_autograd.rule(primitive, together=gradients)
    yield primitive, asked
    del tt.PRIMITIVES["weighed"], tt.SLOTS["weighed"], tt_autograd.RULES[primitive]


def test_a_rule_for_all_inputs(weighed):
    primitive, asked = weighed
    a, x, y = (Tensor(np.array(v), requires_grad=True) for v in ([1.0, 2.0], [[3.0, 4.0], [5.0, 6.0]], [[7.0], [8.0]]))
    check_gradients(lambda a, x, y: primitive(a, x, y, b=3.0) ** 2, a, x, y)
    asked.clear()
    primitive(a, x, y, b=3.0).sum().backward()
    assert asked == [[True, True, True]]
    assert a.grad.tolist() == [8, 10] and x.grad.tolist() == [[1, 2], [1, 2]] and y.grad.tolist() == [[6], [6]]


def test_a_rule_for_all_inputs_is_told_what_is_needed(weighed):
    primitive, asked = weighed
    a, x, y = (Tensor(np.ones(2), requires_grad=r) for r in (False, True, True))
    out = primitive(a, x * 1, y, b=3.0).sum()
    assert grad(out, y, retain_graph=True)[0].tolist() == [3, 3] and asked == [[False, False, True]]
    out.backward()
    assert asked[1] == [False, True, True] and a.grad is None and x.grad.tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="a second time"):
        out.backward()


# Where a formula divides by what may be zero


def test_gradients_stay_finite_where_they_exist():
    for function, values in [
        (lambda x: tt.binary_cross_entropy(x, tt.tensor(np.array([0.0, 1.0]))), [0.0, 1.0]),
        (lambda x: tt.kl_div(tt.log(x + 1), tt.tensor(np.array([0.0, 1.0]))), [0.0, 1.0]),
        (lambda x: tt.log_softmax(x, dim=0), [1e300, -1e300]),
        (lambda x: tt.softplus(x), [-800.0, 800.0]),
        (lambda x: tt.sigmoid(x), [-800.0, 800.0]),
        (lambda x: tt.elu(x), [-800.0, 800.0]),
        (lambda x: tt.gelu(x, approximate="tanh"), [-1e200, 1e200]),
        (lambda x: tt.gelu(x), [-1e200, 1e200]),
        (lambda x: tt.where(x > 0, x, 0.0).sqrt().sum() + 1, [1.0, 4.0]),
        (lambda x: x.prod(), [0.0, 2.0]),
        (lambda x: x**2 + x**1 + x**0, [0.0, 0.0]),
    ]:
        x = Tensor(np.array(values), requires_grad=True)
        (gradient,) = grad(function(x).sum(), [x])
        assert np.isfinite(gradient.numpy()).all(), (gradient, values)


# An element that takes no part (masked, clipped, not chosen, not indexed) gets exactly 0, whatever arrives. Which
# elements those are the table finds out by itself: their gradient is 0 for two different finite gradients. In the
# operations that are left out, a factor of the computation may itself be 0; then 0 * inf is nan, as in PyTorch.

ARITHMETIC = {
    "mul", "pow (tensors)", "remainder", "prod", "var", "softmax", "log_softmax", "cross_entropy (soft)", "cdist",
    "diff", "normalize", "std_mean",
}
SELECTING = [op for op in DIFFERENTIABLE if op.name not in ARITHMETIC]


def arriving(op, sample, dtype, gradient_of):
    """The gradients of the watched arguments when `gradient_of(result)` arrives at each result."""
    tensors = op.tensors(sample, dtype)
    watched = [tensors[i].requires_grad_() for i in op.watched(sample)]
    tt.manual_seed(0)
    results = [r for r in tensors_of(op.function(*tensors, **sample.options)) if r.requires_grad]
    if not results:
        return []
    found = grad(results, watched, [gradient_of(r) for r in results], allow_unused=True)
    return [np.zeros(t.shape) if g is None else g.numpy() for t, g in zip(watched, found)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("op", SELECTING, ids=[op.name for op in SELECTING])
def test_what_takes_no_part_gets_exactly_0(op, dtype):
    for sample in op.samples(most=40):
        ones, twos = (arriving(op, sample, dtype, lambda r, v=v: tt.full_like(r, v)) for v in (1.0, 2.0))
        idle = [(a == 0) & (b == 0) for a, b in zip(ones, twos)]
        for value in (np.inf, -np.inf, np.nan):
            found = arriving(op, sample, dtype, lambda r, v=value: tt.full_like(r, v))
            for gradient, outside in zip(found, idle, strict=True):
                assert (gradient[outside] == 0).all(), f"{value} arrives at {called(op, sample)}: {gradient}"
