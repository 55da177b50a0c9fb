"""Autograd and training: the price of recording, backward passes, training steps, checkpoints."""

import numpy as np
import pytest

import tt_autograd as ta
import tt_tensor as tt
from tt_optim import Adam

pytestmark = pytest.mark.benchmark(group="tt-autograd")

RATE = 1e-5  # tiny, because a step is repeated thousands of times


@pytest.fixture(autouse=True)
def same_numbers():
    tt.manual_seed(0)


def chain(x):
    """100 operations on few numbers."""
    for _ in range(50):
        x = x * 1.01 + 0.01
    return x


def test_chain_of_100_small_operations_forward(benchmark):
    with ta.no_grad():
        found = benchmark(chain, tt.zeros(4))
    assert np.allclose(found.numpy(), 1.01**50 - 1, rtol=1e-4)


def test_chain_of_100_small_operations_forward_and_backward(benchmark):
    x = tt.zeros(4, requires_grad=True)

    def gradient():
        x.grad = None
        chain(x).sum().backward()
        return x.grad

    assert np.allclose(benchmark(gradient).numpy(), 1.01**50, rtol=1e-4)


def test_gradient_of_1_million_numbers(benchmark):
    x = tt.randn(1000, 1000, requires_grad=True)
    (found,) = benchmark(lambda: ta.grad((x * x).sum(), [x]))
    assert np.allclose(found.numpy(), 2 * x.numpy())


def test_hessian_vector_product_of_1000_numbers(benchmark):
    x, v = tt.randn(1000, requires_grad=True), tt.randn(1000)
    found = benchmark(ta.hessian_vector_product, lambda x: (x * x * x).sum(), x, v)
    assert np.allclose(found.numpy(), 6 * x.numpy() * v.numpy(), rtol=1e-4, atol=1e-5)


def mlp():
    return tt.Sequential(tt.Linear(784, 256), tt.ReLU(), tt.Linear(256, 10))


def test_training_step_of_an_mlp_784_256_10_batch_64(benchmark):
    model, x, y = mlp(), tt.randn(64, 784), tt.randint(0, 10, (64,))
    optimizer = Adam(model.parameters(), lr=RATE)

    def step():
        loss = tt.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    first = step()
    assert benchmark(step) < first


def test_epoch_on_the_digits(benchmark):
    (x, y), _ = ta.training.digits()
    model, data = ta.training.digits_classifier(), ta.Batches(x, y, 32, shuffle=True)
    optimizer = Adam(model.parameters(), lr=RATE)

    def epoch():
        return ta.fit(model, tt.cross_entropy, optimizer, data, epochs=1, progress=False)["loss"][0]

    first = epoch()
    assert benchmark(epoch) < first


def test_save_a_checkpoint_of_200000_numbers(benchmark, tmp_path):
    model, file = mlp(), tmp_path / "model.safetensors"
    benchmark(ta.save_checkpoint, file, model.state_dict())
    assert np.array_equal(ta.load_checkpoint(file)["0.weight"].numpy(), model.state_dict()["0.weight"].numpy())


def test_load_a_checkpoint_of_200000_numbers(benchmark, tmp_path):
    model, file = mlp(), tmp_path / "model.safetensors"
    ta.save_checkpoint(file, model.state_dict())
    found = benchmark(ta.load_checkpoint, file)
    assert np.array_equal(found["0.weight"].numpy(), model.state_dict()["0.weight"].numpy())
