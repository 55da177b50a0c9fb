"""What the one table of operations cannot hold: random draws, special numbers, answers that are no tensors."""

import math

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor import Tensor, linalg, tensor

NAN, INF = math.nan, math.inf

# Special numbers


def test_functions_without_numpy_are_right_at_the_ends():
    x = Tensor(np.array([-INF, -1.0, -0.0, 0.0, 1e-300, INF, NAN]))
    np.testing.assert_allclose(tt.erfc(x).numpy(), [2, math.erfc(-1), 1, 1, 1, 0, NAN], rtol=1e-15)
    np.testing.assert_allclose(tt.lgamma(x).numpy(), [INF, INF, INF, INF, math.lgamma(1e-300), INF, NAN])
    np.testing.assert_allclose(tt.digamma(x).numpy(), [NAN, NAN, INF, -INF, -1e300, INF, NAN])
    ends = Tensor(np.array([-1.0, 1.0, -0.0, 1.5, NAN, 1e-20]))
    np.testing.assert_allclose(tt.erfinv(ends).numpy(), [-INF, INF, 0, NAN, NAN, 1e-20 * math.sqrt(math.pi) / 2])


def test_small_and_large_numbers_keep_their_digits():
    x = Tensor(np.array([1e-12, -1e-12]))
    np.testing.assert_allclose(tt.log1p(x).numpy(), [1e-12, -1e-12], rtol=1e-11)
    np.testing.assert_allclose(tt.expm1(x).numpy(), [1e-12, -1e-12], rtol=1e-11)
    far = tt.erfc(Tensor(np.array([5.0, 26.0])))
    np.testing.assert_allclose(far.numpy(), [math.erfc(5), math.erfc(26)], rtol=1e-12)
    np.testing.assert_allclose(tt.erf(tt.erfinv(Tensor(np.array([0.999999])))).numpy(), 0.999999, rtol=1e-14)
    assert tt.hypot(tensor(3e30), tensor(4e30)).item() == pytest.approx(5e30, rel=1e-6)
    assert tt.logaddexp(tensor(1000.0), tensor(1000.0)).item() == pytest.approx(1000 + math.log(2))


def test_conventions_at_zero():
    assert tt.xlogy(tensor([0.0, 0.0, 0.0]), tensor([0.0, -1.0, INF])).tolist() == [0, 0, 0]
    assert math.isnan(tt.xlogy(tensor([0.0]), tensor([NAN])).item()) and tt.sinc(tensor([0.0])).item() == 1
    assert np.signbit(tt.copysign(tensor([1.0]), -0.0).numpy()).all()


def test_nan_and_infinity_as_numbers():
    x = tensor([NAN, INF, -INF, 1.0])
    largest = float(np.finfo(np.float32).max)
    assert tt.nan_to_num(x).tolist() == [0, largest, -largest, 1]
    assert tt.nan_to_num(x, 2.0, 3.0, -3.0).tolist() == [2, 3, -3, 1]
    assert tt.isposinf(x).tolist() == [False, True, False, False] and tt.isneginf(x).tolist()[2]


def test_closeness():
    x = tensor([1.0, INF, NAN])
    assert tt.isclose(x, x).tolist() == [True, True, False] and tt.isclose(x, x, equal_nan=True).all().item()
    assert tt.allclose(tensor([1.0]), tensor([1.000001])) is True and not tt.allclose(tensor([1.0]), tensor([1.1]))
    assert tt.equal(tensor([1, 2]), tensor([1, 2])) is True and tt.equal(tt.ones(1), tt.ones(1, 1)) is False


# Order: nan, and several equal elements


def test_medians_and_nan():
    x = tensor([[3.0, NAN, 1.0, 2.0], [4.0, 3.0, 2.0, 1.0]])
    values, indices = tt.median(x, 1)
    assert math.isnan(values[0].item()) and values[1].item() == 2 and indices.tolist() == [1, 2]
    assert tt.nanmedian(x, 1).values.tolist() == [2, 2] and math.isnan(tt.median(x).item())
    assert math.isnan(tt.quantile(x, 0.5, 1)[0].item()) and tt.nansum(x).item() == 16
    assert tt.nanmean(x, 1).tolist() == [2, 2.5]


def test_running_extremes_name_the_last_of_equals():
    x = tensor([1.0, 3.0, 3.0, 2.0, NAN, 5.0])
    assert tt.cummax(x, 0).indices.tolist() == [0, 1, 2, 2, 4, 4]
    assert tt.cummin(tensor([2, 1, 1, 3]), 0).indices.tolist() == [0, 1, 2, 2]
    assert tt.cummin(tensor([2, 1, 1, 3]), 0).values.tolist() == [2, 1, 1, 1]


def test_the_smallest_k():
    values, positions = tt.topk(tensor([3.0, 1.0, NAN, 2.0]), 2, largest=False)
    assert values.tolist() == [1, 2] and positions.tolist() == [1, 3]


# Draws: from the common generator, and of the right frequency


def test_one_seed_fixes_every_draw():
    draws = (
        lambda: tt.normal(1.0, 2.0, (3,)), lambda: tt.bernoulli(tt.full((9,), 0.5)), lambda: tt.randint(9, (5,)),
        lambda: tt.multinomial(tt.ones(5), 3), lambda: tt.poisson(tt.full((5,), 3.0)), lambda: tt.randperm(9),
        lambda: tt.randint_like(tt.ones(5), 9),
    )
    for draw in draws:
        tt.manual_seed(3)
        first = draw().tolist()
        assert draw().tolist() != first
        tt.manual_seed(3)
        assert draw().tolist() == first


def test_frequencies():
    tt.manual_seed(0)
    drawn = tt.multinomial(tensor([1.0, 0.0, 3.0]), 8000, replacement=True)
    assert tt.bincount(drawn).tolist()[1] == 0 and (drawn == 2).float().mean().item() == pytest.approx(0.75, abs=0.02)
    firsts = tensor([tt.multinomial(tensor([1.0, 0.0, 3.0]), 2)[0].item() for _ in range(2000)])
    assert (firsts == 2).float().mean().item() == pytest.approx(0.75, abs=0.04)
    assert sorted(tt.multinomial(tensor([[1.0, 0.0, 3.0]]), 2)[0].tolist()) == [0, 2]
    values = tt.normal(tensor([0.0, 10.0]).expand(4000, 2), tensor([1.0, 2.0]))
    np.testing.assert_allclose(values.mean(0).numpy(), [0, 10], atol=0.15)
    np.testing.assert_allclose(values.std(0).numpy(), [1, 2], rtol=0.05)
    assert tt.bernoulli(tt.full((8000,), 0.25)).mean().item() == pytest.approx(0.25, abs=0.02)


def test_forms_of_randint():
    for values in (tt.randint(3, (50,)), tt.randint(0, 3, (50,)), tt.randint(high=3, size=(50,))):
        assert values.dtype == tt.int64 and set(values.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("call", "error", "word"),
    [
        (lambda: tt.randint(3), TypeError, "size"),
        (lambda: tt.normal(0.0, 1.0), TypeError, "size"),
        (lambda: tt.normal(0.0, -1.0, (2,)), ValueError, "-1.0"),
        (lambda: tt.bernoulli(tensor([1.5])), ValueError, "0 to 1"),
        (lambda: tt.multinomial(tensor([1.0, 0.0]), 2), ValueError, "2 draws"),
        (lambda: tt.multinomial(tensor([0.0, 0.0]), 1), ValueError, "not all 0"),
        (lambda: tt.poisson(tensor([-1.0])), ValueError, "0 or more"),
        (lambda: tt.roll(tensor(1.0), 1, 0), IndexError, "dimension 0"),
        (lambda: tt.norm(tensor([1, 2])), TypeError, "int64"),
    ],
)
def test_draws_that_are_refused(call, error, word):
    with pytest.raises(error, match=word):
        call()


# Words about tensors


def test_as_tensor_shares_memory():
    array, x = np.zeros(2), tensor([1, 2])
    shared = tt.as_tensor(array)
    array[0] = 1
    assert shared.tolist() == [1, 0] and tt.as_tensor(x) is x and tt.as_tensor([1]).dtype == tt.int64
    assert tt.as_tensor(x, tt.float32).dtype == tt.float32


def test_dtypes_meet():
    assert tt.result_type(tensor([1]), 1.5) == tt.float32 == tt.promote_types(tt.int64, tt.float32)
    assert tt.result_type(tt.ones(2, dtype=tt.float64), 1.0) == tt.float64 and tt.can_cast(tt.int64, tt.float32)
    assert not tt.can_cast(tt.float32, tt.int64) and tt.is_tensor(tensor(1)) and not tt.is_tensor(1)
    assert tt.is_floating_point(tt.ones(1)) and tt.numel(tt.ones(2, 3)) == 6
    assert tt.where(tensor([True, False]), 1, 0).dtype == tt.int64


# Linear algebra: decompositions put together again


def test_decompositions_give_the_matrix_back():
    tt.manual_seed(0)
    a = tt.randn(4, 3, dtype=tt.float64)
    u, s, vh = linalg.svd(a, full_matrices=False)
    q, r = linalg.qr(a)
    values, vectors = linalg.eigh(a.T @ a)
    for again, wanted in [(u * s @ vh, a), (q @ r, a), (vectors * values @ vectors.T, a.T @ a)]:
        np.testing.assert_allclose(again.numpy(), wanted.numpy(), atol=1e-12)
    solution = linalg.lstsq(a, tt.ones(4, 1, dtype=tt.float64)).solution
    np.testing.assert_allclose(solution.numpy(), (linalg.pinv(a).sum(1, keepdim=True)).numpy(), atol=1e-12)
    assert linalg.matrix_rank(a).item() == 3 and linalg.slogdet(-tt.eye(3)).sign.item() == -1


def test_a_sparse_tensor_is_a_dense_one():
    at, values = tt.tensor([[0, 1, 1], [2, 0, 0]]), Tensor([3.0, 4.0, 5.0])
    assert tt.sparse_coo_tensor(at, values, (2, 3)).tolist() == [[0, 0, 3], [9, 0, 0]]
    assert tt.sparse_coo_tensor([[0, 2]], [1, 2]).tolist() == [1, 0, 2]
    assert tt.sparse_coo_tensor(at, values, (2, 3), dtype=tt.int64).dtype == tt.int64
    for wrong in ((at, values[:2], (2, 3)), (at, values, (2, 3, 4)), (at[0], values, (3,))):
        with pytest.raises(ValueError, match="do not fit into"):
            tt.sparse_coo_tensor(*wrong)


def test_a_selection_of_a_single_number_is_a_copy():
    x = tt.zeros((), dtype=tt.int64)
    picked = x.index_select(0, tt.tensor(0))
    picked += 1
    assert x.item() == 0 and picked.item() == 1


def test_scatter_refuses_numbers_that_the_dtype_cannot_hold():
    x, at = tt.tensor([1, 2, 3]), tt.tensor([1])
    assert tt.scatter(x, 0, at, 7.9).tolist() == [1, 7, 3]
    with pytest.raises(ValueError, match="nan is not a number that int64 can hold"):
        tt.scatter(x, 0, at, math.nan)
