"""Chapter 02, judged by its public names. What a single operation computes is in test_ops.py."""

import operator

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor.teaching import expect

STORAGE, OPERATORS, SHAPES, SUMS = "Storage", "Arithmetic", "The same numbers in another shape", "Sums"


def test_numbers_and_lists_become_float32():
    expect(
        "Tensor([1, 2]).dtype",
        tt.Tensor([1, 2]).dtype,
        tt.float32,
        (tt.int64, "The integers kept their dtype, int64, in which a division has nowhere to put its fraction."),
        see=STORAGE,
    )
    expect("Tensor([1, 2]).mean()", lambda: tt.Tensor([1, 2]).mean().item(), 1.5, see=SUMS)

    def halve_in_place():
        x = tt.Tensor([1, 2])
        x /= 2
        return x

    expect(
        "x = Tensor([1, 2]); x /= 2",
        halve_in_place,
        [0.5, 1],
        ([0, 1], "The dtype of x is an integer's: it cuts the fraction off."),
        see=STORAGE,
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "int64", "uint8", "bool"])
def test_numpy_arrays_keep_their_dtype(dtype):
    assert tt.Tensor(np.ones(2, dtype)).dtype == np.dtype(dtype)


def test_small_tensor_keeps_integers_and_truth_values():
    assert [tt.tensor(data).dtype for data in ([1, 2], [1.0, 2], [True])] == [tt.int64, tt.float32, tt.bool_]
    assert tt.tensor([1, 2], dtype=tt.float64).dtype == tt.float64


def test_a_tensor_is_a_copy():
    values = np.zeros(3)
    x = tt.Tensor(values)
    values[0] = 7
    expect(
        "x = Tensor(a), then a[0] = 7: x",
        x,
        [0, 0, 0],
        ([7, 0, 0], "Changing the array that x was built from changed x: it shares memory. Copy in `__init__`."),
        see=STORAGE,
    )
    assert tt.from_numpy(values)[0].item() == 7 and np.shares_memory(values, tt.from_numpy(values).numpy())


def test_what_numpy_gives_out_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        tt.Tensor([1, 2]).numpy()[0] = 3


def test_operators_keep_the_order_of_their_operands():
    x = tt.Tensor([2, 3])
    swapped = "The operands are swapped in `{}`, which Python calls for a number on the left of a tensor."
    expect(
        "1 - x for x = [2, 3]",
        lambda: 1 - x,
        [-1, -2],
        ([1, 2], f"That is x - 1. {swapped.format('__rsub__')}"),
        see=OPERATORS,
    )
    expect(
        "6 / x for x = [2, 3]",
        lambda: 6 / x,
        [3, 2],
        ([1 / 3, 1 / 2], f"That is x / 6. {swapped.format('__rtruediv__')}"),
        see=OPERATORS,
    )
    expect(
        "2 ** x for x = [2, 3]",
        lambda: 2**x,
        [4, 8],
        ([4, 9], f"That is x ** 2. {swapped.format('__rpow__')}"),
        see=OPERATORS,
    )
    assert np.array_equal(np.ones(2) - x, [-1, -2]), "an array on the left must leave the operation to the tensor"


@pytest.mark.parametrize(
    "sign, compare",
    [
        ("==", operator.eq),
        ("!=", operator.ne),
        ("<", operator.lt),
        ("<=", operator.le),
        (">", operator.gt),
        (">=", operator.ge),
    ],
)
def test_comparisons_answer_element_by_element(sign, compare):
    x = tt.Tensor([1, 2, 3])
    expect(
        f"the shape of x {sign} x for x = [1, 2, 3]",
        lambda: np.shape(compare(x, x)),
        (3,),
        ((), "One answer for the whole tensor; a mask needs one for each element, in the shape of the tensor."),
        see=OPERATORS,
    )
    assert compare(x, 2).tolist() == [compare(value, 2) for value in (1, 2, 3)] and compare(x, 2).dtype == tt.bool_


def test_a_tensor_of_several_elements_is_neither_true_nor_false():
    with pytest.raises(ValueError, match=r"\(2,\).*any\(\).*all\(\)"):
        bool(tt.ones(2))
    with pytest.raises(ValueError, match=r"item.*\(2,\)"):
        tt.ones(2).item()


def test_the_matrix_product_is_no_product_of_elements():
    x, y = tt.Tensor([[1, 2], [3, 4]]), tt.Tensor([[5, 6], [7, 8]])
    expect(
        "[[1, 2], [3, 4]] @ [[5, 6], [7, 8]]",
        lambda: x @ y,
        [[19, 22], [43, 50]],
        (
            [[5, 12], [21, 32]],
            "That is the elementwise product; an entry of `@` is a row of x times a column of y, summed.",
        ),
        see="Matrix products",
    )
    assert (tt.ones(2, 1, 3, 4) @ tt.ones(5, 4, 2)).shape == (2, 5, 3, 2)


def test_reshape_reads_row_by_row():
    x = tt.Tensor([[1, 2, 3], [4, 5, 6]])
    expect(
        "[[1, 2, 3], [4, 5, 6]].reshape(3, 2)",
        lambda: x.reshape(3, 2),
        [[1, 2], [3, 4], [5, 6]],
        ([[1, 5], [4, 3], [2, 6]], "The values were read in column order; the last index runs fastest, row by row."),
        see=SHAPES,
    )
    assert (
        x.reshape(-1).shape == (6,)
        and x.reshape((3, -1)).shape == (3, 2)
        and x.flatten().tolist() == [1, 2, 3, 4, 5, 6]
    )


def test_transpose_swaps_two_dimensions():
    x = tt.zeros(2, 3, 4)
    expect(
        "shape of zeros(2, 3, 4).transpose()",
        lambda: x.transpose().shape,
        (2, 4, 3),
        ((4, 3, 2), "All dimensions were reversed: swap only the last two axes, the others count matrices."),
        see=SHAPES,
    )
    assert x.transpose(0, 1).shape == (3, 2, 4) and x.mT.shape == (2, 4, 3) and x.permute(2, 0, 1).shape == (4, 2, 3)
    assert tt.zeros(2, 3).T.shape == (3, 2)
    with pytest.raises(ValueError, match=r"\(2, 3, 4\).*mT"):
        print(x.T)


def test_views_share_memory():
    x = tt.zeros(2, 3)
    for view in (x.T, x.reshape(3, 2), x[0], x[:, ::2], x.unsqueeze(0), x[0].expand(5, 3)):
        assert np.shares_memory(x.numpy(), view.numpy())
    x[0] += 1
    assert x.T[:, 0].tolist() == [1, 1, 1]


def test_sum_keeps_a_dimension_when_told_to():
    x = tt.Tensor([[1, 2, 3], [4, 5, 6]])
    expect(
        "shape of x.sum(1, keepdim=True) for x of shape (2, 3)",
        lambda: x.sum(1, keepdim=True).shape,
        (2, 1),
        ((2,), "The dimension is gone: keepdims is not passed on to NumPy."),
        see=SUMS,
    )
    assert (
        x.sum().item() == 21
        and x.sum(0).tolist() == [5, 7, 9]
        and x.sum(-1).tolist() == [6, 15]
        and x.sum((0, 1)).shape == ()
    )


def test_mean_and_spread_follow_from_the_sum():
    x = tt.Tensor([[1, 2, 6], [3, 3, 3]])
    assert x.mean(1).tolist() == [3, 3] and x.mean(1, keepdim=True).shape == (2, 1)
    expect("[1, 2, 6].var()", x[0].var(), 7, (14 / 3, "That is divided by n; like PyTorch, divide by n - 1."), see=SUMS)
    assert x[0].var(correction=0).item() == pytest.approx(14 / 3) and x[0].std().item() == pytest.approx(7**0.5)


def test_python_numbers_take_the_tensors_dtype_and_integers_give_way():
    for x in (tt.ones(2), tt.ones(2, dtype=tt.float64), tt.ones(2, dtype=tt.float16)):
        assert (2.0 * x + 1).dtype == x.dtype
        assert (x * tt.tensor([1, 2])).dtype == x.dtype
    assert (tt.tensor([1, 2]) / 2).dtype == tt.float32 and (tt.tensor([1, 2]) * 2).dtype == tt.int64


def test_shapes_broadcast_from_the_right():
    assert (tt.ones(3, 1, 4) + tt.ones(2, 1)).shape == tt.broadcast_shape((3, 1, 4), (2, 1)) == (3, 2, 4)
    assert tt.broadcast_shape((0, 1), (1, 5)) == (0, 5) and tt.broadcast_shape((), (2,)) == (2,)


@pytest.mark.parametrize(
    "wrong, error, words",
    [
        (lambda x: x + tt.zeros(3), ValueError, r"add.*\(3, 4\) and \(3,\)"),
        (lambda x: x @ x, ValueError, r"matmul.*\(3, 4\) and \(3, 4\)"),
        (lambda x: x.reshape(5, 2), ValueError, r"reshape.*\(3, 4\).*\(5, 2\)"),
        (lambda x: x.sum(2), IndexError, "dimension 2 .*2 dimensions"),
        (lambda x: x[7], IndexError, "7"),
        (lambda x: x[tt.ones(2)], IndexError, "integers"),
        (lambda x: tt.Tensor([[1, 2], [3]]), ValueError, "[Rr]ows"),
        (lambda x: tt.Tensor(["a"]), (TypeError, ValueError), "numbers"),
        (lambda x: tt.zeros(2, dtype=tt.int64).requires_grad_(), RuntimeError, "float"),
        (lambda x: x.copy_(tt.zeros(5)), ValueError, r"\(5,\)"),
        (lambda x: x.backward(), RuntimeError, "history"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(wrong, error, words):
    with pytest.raises(error, match=words):
        wrong(tt.zeros(3, 4))


def test_indexing_is_numpys():
    x = tt.arange(12).reshape(3, 4)
    assert x[1, -1].item() == 7 and x[:, 1].tolist() == [1, 5, 9] and x[..., None].shape == (3, 4, 1)
    assert x[[0, 2]].shape == (2, 4) and x[x > 9].tolist() == [10, 11] and x[tt.tensor([2]), 0].tolist() == [8]
    assert [row.tolist() for row in x][1] == [4, 5, 6, 7] and len(x) == 3


def test_operators_with_an_equals_sign_change_the_memory():
    x = tt.zeros(3)
    view = x[1:]
    x += 1
    view *= 4
    assert x.tolist() == [1, 4, 4]


def test_every_operation_goes_through_the_door():
    def double_every_sum(next, primitive, tensors, params):
        out = next(primitive, tensors, params)
        return out + out if primitive.name == "sum" else out

    x = tt.ones(3)
    with tt.interpreting(double_every_sum):
        assert (x * 2).sum().item() == 12
    assert (x * 2).sum().item() == 6


def test_the_door_is_clear_again_after_an_error():
    def refuse(next, primitive, tensors, params):
        raise KeyError("refused")

    with pytest.raises(KeyError), tt.interpreting(refuse):
        tt.ones(2) + 1
    assert (tt.ones(2) + 1).tolist() == [2, 2]


def test_the_meter_counts_multiply_adds_and_no_views():
    x, weight = tt.ones(64, 784), tt.ones(256, 784)
    with tt.meter() as counted:
        x @ weight.T + 1
    assert counted.multiply_adds == {"matmul": 64 * 784 * 256, "add": 64 * 256}
    assert counted.bytes["matmul"] == 4 * (64 * 784 + 784 * 256 + 64 * 256) and counted.calls["permute"] == 1


def test_the_clock_sees_writes_through_views():
    x, other = tt.zeros(3), tt.zeros(3)
    before = tt.tick()
    x.reshape(3, 1)[0] = 1
    assert tt.last_write(x) > before and tt.last_write(x[1:]) == tt.last_write(x) and not tt.last_write(other) > before


def test_chance_is_fixed_by_the_seed():
    def draw():
        tt.manual_seed(3)
        return [*tt.randn(2).tolist(), *tt.rand(2).tolist(), *tt.randperm(5).tolist()]

    assert draw() == draw()


def test_exercises():
    expect(
        "outer([1, 2], [3, 4, 5])",
        lambda: tt.outer(tt.Tensor([1, 2]), tt.Tensor([3, 4, 5])),
        [[3, 4, 5], [6, 8, 10]],
        see="Exercises",
    )
    x, y = tt.Tensor([[0, 0], [3, 4]]), tt.Tensor([[0, 0], [0, 4]])
    expect(
        "pairwise_distances([[0, 0], [3, 4]], [[0, 0], [0, 4]])",
        lambda: tt.pairwise_distances(x, y),
        [[0, 4], [5, 3]],
        see="Exercises",
    )
    expect(
        "operations_of(lambda x: (x * 2).sum(), ones(3))",
        lambda: tt.operations_of(lambda x: (x * 2).sum(), tt.ones(3)),
        ["mul", "sum"],
        see="Exercises",
    )
