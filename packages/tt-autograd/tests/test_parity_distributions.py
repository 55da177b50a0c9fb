"""Distributions beside torch's: densities, entropies, moments, divergences, their gradients, and draws."""

import numpy as np
import pytest

import tt_autograd
import tt_tensor as tt
from tt_tensor import distributions as ours

torch = pytest.importorskip("torch")
theirs = torch.distributions
assert tt_autograd

WEIGHTS = np.array([[0.2, 0.5, 0.3], [1.0, 2.0, 3.0]])
CASES = {
    "Categorical probs": ("Categorical", {"probs": WEIGHTS}, np.array([2, 0])),
    "Categorical logits": ("Categorical", {"logits": WEIGHTS}, np.array([[2, 0], [1, 1]])),
    "Bernoulli probs": ("Bernoulli", {"probs": np.array([0.2, 0.9])}, np.array([1.0, 0.0])),
    "Bernoulli logits": ("Bernoulli", {"logits": np.array([-2.0, 0.9])}, np.array([[1.0, 0.0]])),
    "Normal": ("Normal", {"loc": np.array([0.0, 2.0]), "scale": np.array([0.5, 3.0])}, np.array([1.0, -1.0])),
    "Uniform": ("Uniform", {"low": np.array([0.0, 2.0]), "high": np.array([0.5, 3.0])}, np.array([0.25, 2.0])),
    "Exponential": ("Exponential", {"rate": np.array([0.5, 3.0])}, np.array([1.0, 0.1])),
}
every_case = pytest.mark.parametrize("name, parameters, value", CASES.values(), ids=list(CASES))


def made(lib, module, name, parameters):
    tensors = {key: lib.tensor(value, requires_grad=True) for key, value in parameters.items()}
    return getattr(module, name)(**tensors), tensors


def same(one, other):
    np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), rtol=1e-7, atol=1e-9)


@every_case
def test_formulas_and_gradients(name, parameters, value):
    (p, own), (q, other) = made(tt, ours, name, parameters), made(torch, theirs, name, parameters)
    assert p.batch_shape == tuple(q.batch_shape) and p.has_rsample == q.has_rsample
    for what in (lambda d, v: d.log_prob(v), lambda d, v: d.entropy()):
        one, two = what(p, tt.tensor(value)), what(q, torch.tensor(value))
        same(one, two)
        for tensor in (*own.values(), *other.values()):
            tensor.grad = None
        (one * one).sum().backward(retain_graph=True), (two * two).sum().backward(retain_graph=True)
        for key, tensor in own.items():
            if tensor.grad is not None or other[key].grad is not None:
                same(tensor.grad if tensor.grad is not None else tt.zeros_like(tensor), other[key].grad)
    if name != "Categorical":
        same(p.mean, q.mean), same(p.variance, q.variance), same(p.stddev, q.stddev)


@every_case
def test_draws(name, parameters, value):
    tt.manual_seed(0), torch.manual_seed(0)
    (p, _), (q, _) = made(tt, ours, name, parameters), made(torch, theirs, name, parameters)
    one, two = p.sample((4000,)), q.sample((4000,))
    assert (one.shape, str(one.dtype)) == (tuple(two.shape), str(two.dtype)[6:]) and not one.requires_grad
    assert p.sample().shape == p.batch_shape
    assert np.abs(one.double().numpy().mean(0) - two.double().numpy().mean(0)).max() < 0.25
    assert np.abs(one.double().numpy().std(0) - two.double().numpy().std(0)).max() < 0.25
    if p.has_rsample:
        assert p.rsample((2,)).requires_grad
    else:
        with pytest.raises(NotImplementedError, match="log_prob"):
            p.rsample()


@pytest.mark.parametrize(
    "name, first, second",
    [
        ("Categorical", {"probs": WEIGHTS}, {"logits": WEIGHTS + np.array([0.0, 1.0, 5.0])}),
        ("Categorical", {"probs": np.array([0.5, 0.5, 0.0])}, {"probs": np.array([0.2, 0.8, 0.0])}),
        ("Bernoulli", {"probs": np.array([0.2, 0.9])}, {"logits": np.array([0.1, -3.0])}),
        ("Normal", {"loc": np.array([0.0, 2.0]), "scale": np.array([0.5, 3.0])}, {"loc": 1.0, "scale": 2.0}),
    ],
)
def test_divergences(name, first, second):
    (p, own), (q, other) = made(tt, ours, name, first), made(torch, theirs, name, first)
    one, two = ours.kl_divergence(p, made(tt, ours, name, second)[0]), None
    two = theirs.kl_divergence(q, made(torch, theirs, name, second)[0])
    np.testing.assert_allclose(one.detach().numpy(), two.detach().numpy(), rtol=1e-6)
    one.sum().backward(), two.sum().backward()
    for key, tensor in own.items():
        np.testing.assert_allclose(tensor.grad.numpy(), other[key].grad.numpy(), rtol=1e-6, atol=1e-7)


def test_a_policy_learns():
    """REINFORCE on two arms, of which the second pays."""
    tt.manual_seed(1)
    logits = tt.zeros(2, requires_grad=True)
    for _ in range(60):
        m = ours.Categorical(probs=tt.softmax(logits, dim=-1))
        action = m.sample()
        loss = -m.log_prob(action) * float(action.item() == 1)
        logits.grad = None
        loss.backward()
        logits.data -= 0.5 * logits.grad
    assert tt.softmax(logits.detach(), dim=-1)[1].item() > 0.9


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: ours.Categorical(), "either"), (lambda: ours.Bernoulli(probs=0.5, logits=0.1), "either"),
        (lambda: ours.Categorical(probs=tt.tensor([0.5, -0.5])), "0 or more"),
        (lambda: ours.Normal(0.0, -1.0), "scale"),
        (lambda: ours.Bernoulli(probs=1.5), "between 0 and 1"), (lambda: ours.Uniform(1.0, 1.0), "high"),
        (lambda: ours.Exponential(0.0), "rate"), (lambda: ours.Categorical(logits=tt.ones(3)).log_prob(3), "0 to 2"),
        (lambda: ours.Bernoulli(probs=0.5).log_prob(0.5), "0 or 1"),
    ],
)
def test_misuse(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


def test_numbers_are_float32():
    assert ours.Normal(0, 1).sample((3,)).dtype == np.float32 and ours.Normal(0.0, 1.0).mean.item() == 0
    with pytest.raises(NotImplementedError, match="Normal"):
        ours.kl_divergence(ours.Normal(0, 1), ours.Bernoulli(0.5))
