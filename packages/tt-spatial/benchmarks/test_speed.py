"""Images: convolution, pooling and batch normalization, forward and backward, and a LeNet that learns."""

import numpy as np
import pytest

import tt_autograd as ta
import tt_spatial as ts
import tt_tensor as tt
from tt_optim import Adam

pytestmark = pytest.mark.benchmark(group="tt-spatial")


@pytest.fixture(autouse=True)
def same_numbers():
    tt.manual_seed(0)


def images(channels=16, **options):
    return tt.randn(8, channels, 32, 32, **options)


def gradients(layer, x):
    """The gradients of the sum of layer(x) with respect to x and the parameters."""
    return ta.grad(layer(x).sum(), [x, *layer.parameters()])


def test_conv2d_3x3_16_to_32_forward(benchmark):
    conv, x = ts.Conv2d(16, 32, 3, padding=1), images()
    with ta.no_grad():
        found = benchmark(conv, x).numpy()
    corner = (conv.weight.numpy()[:, :, 1:, 1:] * x.numpy()[0, :, :2, :2]).sum((1, 2, 3)) + conv.bias.numpy()
    assert found.shape == (8, 32, 32, 32) and np.allclose(found[0, :, 0, 0], corner, atol=1e-4)


def test_conv2d_3x3_16_to_32_forward_and_backward(benchmark):
    conv, x = ts.Conv2d(16, 32, 3, padding=1), images(requires_grad=True)
    dx, dweight, dbias = (found.numpy() for found in benchmark(gradients, conv, x))
    assert np.allclose(dx[0, :, 5, 5], conv.weight.numpy().sum((0, 2, 3)), atol=1e-4)
    assert np.allclose(dweight[0, :, 1, 1], x.numpy().sum((0, 2, 3)), atol=1e-2)
    assert np.allclose(dbias, 8 * 32 * 32)


def test_max_pool2d_forward_and_backward(benchmark):
    x = images(requires_grad=True)
    (found,) = benchmark(gradients, ts.MaxPool2d(2), x)
    largest = x.numpy().reshape(8, 16, 16, 2, 16, 2).max((3, 5))
    assert (found.numpy().reshape(8, 16, 16, 2, 16, 2).sum((3, 5)) == 1).all()  # one pixel of each window
    assert np.isclose((found * x).sum().item(), largest.sum(), rtol=1e-4)


def test_batch_norm2d_forward(benchmark):
    norm, x = ts.BatchNorm2d(16), images() * 3 + 5
    with ta.no_grad():
        found = benchmark(norm, x).numpy()
    assert np.allclose(found.mean((0, 2, 3)), 0, atol=1e-4) and np.allclose(found.std((0, 2, 3)), 1, atol=1e-4)


def test_batch_norm2d_forward_and_backward(benchmark):
    norm, x = ts.BatchNorm2d(16), images(requires_grad=True)
    dx, _, dbias = (found.numpy() for found in benchmark(gradients, norm, x))
    assert np.allclose(dx, 0, atol=1e-4)  # a sum of normalized numbers is constant
    assert np.allclose(dbias, 8 * 32 * 32)


def test_training_step_of_a_lenet_batch_16(benchmark):
    model, x, y = ts.LeNet(), tt.randn(16, 1, 28, 28), tt.randint(0, 10, (16,))
    optimizer = Adam(model.parameters(), lr=1e-5)

    def step():
        loss = tt.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    first = step()
    assert benchmark(step) < first
