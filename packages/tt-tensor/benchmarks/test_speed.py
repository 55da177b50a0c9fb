"""Tensors, activations, layers and losses: the price of a call, arithmetic, products, reductions."""

import numpy as np
import pytest

import tt_tensor as tt

pytestmark = pytest.mark.benchmark(group="tt-tensor")


@pytest.fixture(autouse=True)
def same_numbers():
    tt.manual_seed(0)


def test_add_4_numbers(benchmark):
    a, b = tt.ones(4), tt.arange(4.0)
    assert benchmark(lambda: a + b).tolist() == [1, 2, 3, 4]


def test_add_1_million_numbers(benchmark):
    a, b = tt.randn(1000, 1000), tt.randn(1000, 1000)
    assert np.array_equal(benchmark(lambda: a + b).numpy(), a.numpy() + b.numpy())


def test_add_a_row_to_1_million_numbers(benchmark):
    a, row = tt.randn(1000, 1000), tt.randn(1000)
    assert np.array_equal(benchmark(lambda: a + row).numpy(), a.numpy() + row.numpy())


def test_matmul_256(benchmark):
    a, b = tt.randn(256, 256), tt.randn(256, 256)
    wanted = a.numpy().astype(np.float64) @ b.numpy().astype(np.float64)
    assert np.allclose(benchmark(lambda: a @ b).numpy(), wanted, atol=1e-3)


def test_softmax_of_256_rows_of_1000(benchmark):
    x = tt.randn(256, 1000)
    found = benchmark(lambda: tt.softmax(x, dim=-1)).numpy()
    exponentials = np.exp(x.numpy().astype(np.float64))
    assert np.allclose(found, exponentials / exponentials.sum(-1, keepdims=True), atol=1e-6)


def test_normalize_256_rows_of_1000(benchmark):
    x = tt.randn(256, 1000) * 3 + 5

    def normalized():
        return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)

    found = benchmark(normalized).numpy()
    assert np.allclose(found.mean(-1), 0, atol=1e-5) and np.allclose(found.std(-1, ddof=1), 1, atol=1e-5)


def test_linear_forward_784_to_256_batch_64(benchmark):
    layer, x = tt.Linear(784, 256), tt.randn(64, 784)
    wanted = x.numpy() @ layer.weight.numpy().T + layer.bias.numpy()
    assert np.allclose(benchmark(layer, x).numpy(), wanted, atol=1e-4)


def test_cross_entropy_of_256_rows_of_1000(benchmark):
    labels = tt.arange(256)
    assert benchmark(tt.cross_entropy, tt.zeros(256, 1000), labels).item() == pytest.approx(np.log(1000), rel=1e-5)
