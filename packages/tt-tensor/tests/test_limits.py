"""Where arithmetic reaches its limits: dtypes that meet, sums that need room, writes that must not be lost, and the
words of errors. The right values are PyTorch's where PyTorch defines them; "Where we differ" lists the others."""

import functools
import math
import threading
import types

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor import Tensor, loops, tensor
from tt_tensor import functional as F

inf, nan = math.inf, math.nan


def of(dtype, *values):
    return tt.from_numpy(np.array(values, dtype))


# Sums need room


REDUCED = {
    "sum": (lambda x, d: x.sum(d), lambda a, d: a.sum(d)),
    "mean": (lambda x, d: x.mean(d), lambda a, d: a.mean(d)),
    "var": (lambda x, d: x.var(d), lambda a, d: a.var(d, ddof=1)),
    "std": (lambda x, d: x.std(d), lambda a, d: a.std(d, ddof=1)),
    "cumsum": (lambda x, d: x.cumsum(d), lambda a, d: a.cumsum(d)),
    "logsumexp": (lambda x, d: x.logsumexp(d), lambda a, d: np.log(np.exp(a).sum(d))),
    "softmax": (lambda x, d: tt.softmax(x, d), lambda a, d: np.exp(a) / np.exp(a).sum(d, keepdims=True)),
    "log_softmax": (lambda x, d: tt.log_softmax(x, d), lambda a, d: a - np.log(np.exp(a).sum(d, keepdims=True))),
}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("name", REDUCED)
def test_a_hundred_thousand_halves_are_reduced_to_the_last_digit(name, dim, order):
    ours, theirs = REDUCED[name]
    values = np.random.default_rng(0).uniform(0, 0.5, (100_000, 2)).astype(np.float16)
    x = np.asarray(values if dim == 0 else values.T, order=order)
    wanted = theirs(x.astype(np.float64), dim)
    with np.errstate(over="ignore"):
        spacing = np.spacing(np.abs(wanted).astype(np.float16)).astype(np.float64)
    difference = np.abs(ours(tt.from_numpy(x), dim).numpy().astype(np.float64) - wanted)
    fits = np.abs(wanted) < 65000
    assert (difference <= 2 * spacing)[fits].all(), difference[fits].max()


@pytest.mark.parametrize("order", ["C", "F"])
def test_thirty_million_ones_are_counted(order):
    ones = np.ones((1 << 24, 2), np.float32, order)
    ones[0] = 3
    x = tt.from_numpy(ones)
    assert x.sum(0).tolist() == [2.0**24 + 2] * 2 and x.T.sum(1).tolist() == [2.0**24 + 2] * 2
    assert x.sum().item() == 2.0**25 + 4 and abs(x.mean().item() - 1) < 1e-6


def test_a_mean_of_halves_does_not_overflow_on_its_way():
    x = of(np.float16, *[60000.0, 50000.0, 40000.0])
    assert x.mean().item() == np.float16(50000)
    assert x.std(correction=0).item() == np.float16(8165)
    assert x.mean().dtype == tt.float16
    assert F.mse_loss(tt.ones(70000, dtype=tt.float16), tt.zeros(70000, dtype=tt.float16)).item() == 1


# Dtypes that meet

f16, f32, f64, i64, i32, u8, b = tt.float16, tt.float32, tt.float64, tt.int64, tt.int32, tt.uint8, tt.bool_


@pytest.mark.parametrize(
    "one, other, together",
    [
        (f32, (), (f64, (3,), f64)), (f32, (3,), (f64, (), f32)), (f16, (3,), (f32, (), f16)),
        (f16, (), (f32, (), f32)),
        (i64, (3,), (f64, (), f64)), (i64, (), (f16, (3,), f16)), (u8, (3,), (i64, (), u8)),
        (u8, (3,), (i64, (3,), i64)),
        (b, (3,), (i64, (), i64)), (b, (), (u8, (3,), u8)), (b, (3,), (f16, (), f16)), (i32, (3,), (f16, (3,), f16)),
    ],
    ids=str,
)
def test_dtypes_meet_as_in_pytorch(one, other, together):
    second, shape, wanted = together
    x, y = tt.ones(other, dtype=one), tt.ones(shape, dtype=second)
    assert (x * y).dtype == (y * x).dtype == tt.maximum(x, y).dtype == wanted
    assert tt.where(tensor([True, False, True]), x, y).dtype == wanted


def test_numbers_of_python_and_numpy_beside_tensors():
    x = tt.ones(2)
    assert (x * np.float64(2)).dtype == (x**np.float64(2)).dtype == x.clip(max=np.float64(0.5)).dtype == tt.float32
    assert (x - tensor(np.arange(3.0).mean())).dtype == tt.float32
    assert (of(np.uint8, 1, 255) + 300).tolist() == [45, 43]  # as in PyTorch, integers wrap
    assert tt.where(tensor([True, False]), 1, 0).dtype == tt.int64
    assert tt.where(tensor([True, False]), tensor([300, 300]), of(np.uint8, 1, 2)).tolist() == [300, 2]
    assert tt.where(tensor([True]), tensor([1]), 0.5).dtype == tt.float32


@pytest.mark.parametrize("number, larger, equal", [(300, False, False), (-1, True, False), (255, False, True)])
def test_small_integers_are_compared_with_any_number(number, larger, equal):
    x = of(np.uint8, 255)
    assert (x > number).item() is larger and (x == number).item() is equal and (x != number).item() is not equal
    assert (x > tensor(number)).item() is larger and (x == tensor([number])).item() is equal


@pytest.mark.parametrize(
    "data, dtype",
    [
        ([np.int64(1), 2.5], f32), ([tensor(1), tensor(2)], i64), ([np.float64(1.5)], f64), ([1, np.float64(1.5)], f64),
        ([tensor(1), Tensor(np.float64(2.5))], f64), ([of(np.float16, 1.0)[0]], f16), ([[1, 2], [3, 4.5]], f32),
        ([True, 2], i64), ([of(np.uint8, 1)[0]], u8), ([], f32), ([np.array([1, 2]), np.array([1.5, 2])], f64),
    ],
    ids=str,
)
def test_a_list_takes_the_dtype_that_holds_all_of_it(data, dtype):
    made = tensor(data)
    assert made.dtype == dtype and np.allclose(made.numpy(), np.array([np.asarray(d) for d in data]))


def test_what_does_not_fit_is_refused():
    for call in (
        lambda: tensor(300, dtype=u8), lambda: tensor([nan], dtype=i64), lambda: tt.full((2,), -1, dtype=u8),
        lambda: tt.full((2,), nan, dtype=i64), lambda: tt.linspace(-5, 5, 3, dtype=u8),
        lambda: tt.zeros(2, dtype=u8).fill_(300),
        lambda: tt.zeros(2, dtype=u8).__setitem__(0, 300), lambda: tt.zeros(2, dtype=i64).__setitem__(0, nan),
    ):
        with pytest.raises(ValueError):
            call()
    for call in (lambda: tt.zeros(2, dtype="cpu"), lambda: tt.ones(2).to(complex), lambda: tt.rand(2, dtype=i64)):
        with pytest.raises(TypeError, match="dtype|floating|real numbers"):
            call()


@pytest.mark.parametrize("make", [tt.zeros, tt.ones, tt.empty, tt.rand, tt.randn], ids=lambda f: f.__name__)
def test_no_dtype_is_the_default_dtype(make):
    assert make(2, dtype=None).dtype == tt.eye(2, dtype=None).dtype == tt.float32
    assert tt.linspace(0, 1, 2, dtype=None).dtype == tt.float32
    x = tt.ones(2, dtype=f16)
    assert x.to(None) is x and tt.full((2,), 7).dtype == i64 and tt.full((2,), True).dtype == b
    assert make(2, dtype=f16).dtype == f16


def test_big_endian_arrays_become_native_ones():
    swapped = np.arange(3, dtype=">f4")
    assert Tensor(swapped).dtype.isnative and Tensor(swapped).tolist() == [0, 1, 2]
    with pytest.raises(TypeError, match="from_numpy"):
        tt.from_numpy(swapped)


def test_sizes_make_a_tensor_that_is_not_set():
    for x, shape in ((Tensor(5), (5,)), (Tensor(16, 8), (16, 8)), (Tensor(2, 1, 0, 3), (2, 1, 0, 3)), (Tensor(), (0,))):
        assert x.shape == shape and x.dtype == tt.float32 and x.isnan().all().item()
    for call in (lambda: Tensor(5, -1), lambda: Tensor(5, 2.5), lambda: Tensor(5, tt.float32), lambda: Tensor(5, True)):
        with pytest.raises(TypeError, match="sizes"):
            call()


def test_products_of_two_dtypes_are_refused():
    x, w = tt.ones(2, 3), tt.ones(4, 3, dtype=f64)
    for call in (
        lambda: x @ w.T, lambda: tt.linear(x, w), lambda: tt.affine(x, w, tt.ones(4)), lambda: tensor([1]) @ tt.ones(1),
    ):
        with pytest.raises(TypeError, match="float32|float64"):
            call()


# Integers and truth values


def test_integers_have_bits():
    x, y = tensor([6, 5]), tensor([3, 4])
    assert ((x & y).tolist(), (x | y).tolist(), (x ^ y).tolist(), (~x).tolist()) == ([2, 4], [7, 5], [5, 1], [-7, -6])
    assert (~tensor([True, False])).tolist() == [False, True] and (tensor([True]) ^ True).tolist() == [False]
    for call in (lambda: ~tt.ones(1), lambda: tt.ones(1) & 1, lambda: 1 | tt.ones(1)):
        with pytest.raises(TypeError, match="float32"):
            call()


def test_integers_are_not_divided_by_zero():
    for call in (
        lambda: tensor([1, -2]) // 0, lambda: 1 % tensor([0]), lambda: tensor([1]) // tensor([0]),
        lambda: tensor([2]) ** -1,
    ):
        with pytest.raises(ValueError):
            call()
    assert (tt.ones(2) // 0).tolist() == [inf, inf]


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.__iadd__(0.5), lambda t: t.__itruediv__(2), lambda t: t.__imul__(tt.ones(3)),
        lambda t: t.__ipow__(0.5),
        lambda t: t[0].__iadd__(2.5), lambda t: t.bool().__iadd__(1),
    ],
)
def test_integers_in_place_stay_integers(change):
    with pytest.raises(TypeError, match="cannot hold the result"):
        change(tensor([1, 2, 3]))


def test_masks_are_truth_values():
    for call in (lambda: tt.where(tensor([1]), 1, 2), lambda: tt.ones(2).masked_fill(tt.ones(2), 0.0)):
        with pytest.raises(TypeError, match="mask"):
            call()
    assert tensor([1, 2]).masked_fill(tensor([True, False]), 1.5).tolist() == [1, 2]  # in the tensor's dtype


# Writes that are not lost


@pytest.mark.parametrize("sign", ["+", "-", "*", "/", "//", "%", "**"])
def test_in_place_operators_write_through_every_name(sign):
    x = Tensor([5.0, 9.0])
    view, other = x.reshape(2, 1), x
    names = {"view": view, "two": 2.0}
    exec(f"view {sign}= two", names)
    right = eval(f"np.array([5.0, 9.0]) {sign} 2.0")
    assert x.tolist() == other.tolist() == right.tolist()


def test_elements_and_rows_are_views():
    x = tt.zeros(3)
    x[0].fill_(5.0)
    x[tensor(1)] += 2
    for element in x:
        element += 1
    x[()].__imul__(2)
    assert x.tolist() == [12.0, 6.0, 2.0]


def test_results_do_not_share_memory_with_what_they_came_from():
    x = tensor([5, 3])
    for operation in (
        lambda v: tt.flip(v, 0), lambda v: v.floor(), lambda v: v.ceil(), lambda v: v.round(), lambda v: v.sign(),
    ):
        assert not np.shares_memory(x.numpy(), operation(x).numpy())


def test_shared_elements_cannot_be_written():
    with pytest.raises(RuntimeError, match="clone"):
        tt.ones(1).expand(3).fill_(2.0)
    x = tt.ones(2)
    x.expand(2).fill_(2.0)
    assert x.tolist() == [2, 2]


# Picking


def test_a_number_beside_an_index_tensor_counts_as_a_slice():
    h, ids = tt.arange(8.0).reshape(2, 2, 2), tensor([0, 1])
    mask = tensor([False, True])
    assert h[0, :, ids].tolist() == [[0, 1], [2, 3]] and h[0, :, mask].tolist() == [[1], [3]]
    assert h[tensor(0), :, ids].tolist() == [[0, 1], [2, 3]] and h[:, tensor([0]), ..., -1].shape == (2, 1)
    assert h[ids, :, 0].tolist() == [[0, 2], [4, 6]] and h[0, None, ids].shape == (1, 2, 2)
    h[0, :, ids] = tensor([[-1.0, -2.0], [-3.0, -4.0]])
    assert h[0].tolist() == [[-1, -2], [-3, -4]]


def test_uint8_is_a_mask():
    x = tensor([10, 20, 30])
    assert x[of(np.uint8, 0, 1, 1)].tolist() == [20, 30] and x[of(np.int32, 0, 1, 1)].tolist() == [10, 20, 20]


def test_what_is_placed_twice_counts_twice():
    values = tt.arange(8.0).reshape(4, 2)
    assert tt.place(values, index=np.array([2, 0, 2, -1]), shape=(3, 2)).tolist() == [[2, 3], [0, 0], [10, 13]]
    index = (np.array([0, 0, 1, -1]), np.array([1, 1, 0, 0]))
    assert tt.place(tt.ones(4), index=index, shape=(2, 2)).tolist() == [[0, 2], [2, 0]]
    assert tt.place(tt.zeros(0, 2), index=np.zeros(0, int), shape=(3, 2)).tolist() == [[0, 0]] * 3
    assert tt.place(tt.ones(3000, dtype=f16), index=np.zeros(3000, int), shape=(1,)).tolist() == [3000.0]


def test_the_largest_come_in_order():
    x = Tensor([[3.0, nan, 3.0, 1.0, 3.0], [0.0, 0.0, 0.0, -inf, inf]])
    assert x.topk(3).indices.tolist() == [[1, 0, 2], [4, 0, 1]]
    assert of(np.uint8, 0, 3, 1).topk(2).values.tolist() == [3, 1] and Tensor(2.0).topk(1, 0).values.item() == 2
    assert x.topk(0).values.shape == (2, 0) and x.T.topk(2, 0).indices.tolist() == [[1, 4], [0, 0]]


# Ways to begin


def test_ranges_count_without_drifting():
    assert abs(tt.arange(100000.0, 100100.0, 0.1)[-1].item() - 100099.9) < 0.01
    assert tt.arange(16777216.0, 16777220.0).tolist() == [16777216, 16777216, 16777218, 16777220]
    assert tt.arange(5, -1, -2).tolist() == [5, 3, 1] and tt.arange(0, 2.5, dtype=i64).tolist() == [0, 1]
    assert tt.arange(2, 2).shape == (0,)
    for arguments in ((0, 2, 0), (5, 2), (0, -1.0), (0, nan), (0, inf)):
        with pytest.raises(ValueError, match="steps"):
            tt.arange(*arguments)


def test_one_is_never_drawn():
    tt.manual_seed(0)
    assert not (tt.rand_like(tt.zeros(200_000, dtype=f16)) == 1).any() and not (tt.rand(200_000, dtype=f16) == 1).any()


# Names, shapes and words


def test_numpys_names_work_in_functions_too():
    x = tt.arange(6.0).reshape(2, 3)
    assert tt.sum(x, axis=0).shape == tt.mean(x, axis=0).shape == tt.max(x, axis=0).values.shape == (3,)
    assert tt.softmax(x, axis=1).shape == (2, 3) and tt.cat([x, x], axis=1).shape == (2, 6)
    assert tt.sum(x, axis=1, keepdims=True).shape == (2, 1) and x.sum(np.int64(1)).shape == (2,)
    with pytest.raises(TypeError, match="axis and dim"):
        tt.sum(x, axis=0, dim=1)


def test_bessels_correction_has_two_spellings():
    x = Tensor([[1.0, 2.0, 4.0]])
    population = x.var(correction=0).item()
    assert x.var(False).item() == x.var(unbiased=False).item() == tt.var(x, False).item() == population
    assert x.var(-1, keepdim=True, unbiased=False).tolist() == [[population]] and x.var(True).item() == x.var().item()
    with pytest.raises(TypeError, match="unbiased and correction"):
        x.var(unbiased=True, correction=0)
    with pytest.raises(TypeError, match="dimension"):
        x.sum(True)


def test_impossible_shapes_are_refused():
    x = tt.zeros(2, 3, 4)
    for call in (
        lambda: x.flatten(2, 1), lambda: x.reshape(2, -12), lambda: tt.zeros(-1, 2), lambda: tt.ones(3).expand(-1, 3),
        lambda: tt.randint(2, 2, (3,)), lambda: tt.randperm(-1),
    ):
        with pytest.raises(ValueError):
            call()
    assert tt.zeros(0, 2).chunk(2)[1].shape == (0, 2) and Tensor(1.0).transpose(0, 0).shape == ()
    assert tt.zeros(2, 0).logsumexp(1).tolist() == [-inf, -inf]


def test_a_forgotten_return_is_named():
    kernels = types.ModuleType("kernels")

    def exp(x, /):
        np.exp(x)

    exp.__module__ = "kernels"
    kernels.exp = exp
    with tt.use_kernels(kernels), pytest.raises(TypeError, match="exp.*returned None.*`return`"):
        tt.ones(2).exp()
    exp2 = types.ModuleType("more")
    exp2.neg = functools.wraps(tt.neg.kernel)(lambda x: "text")
    with tt.use_kernels(exp2), pytest.raises(TypeError, match="<U4"):
        -tt.ones(2)


def test_errors_speak_of_tensors():
    x = tt.ones(3)
    for call in (lambda: x.topk(1, biggest=True), lambda: x.exp(1), lambda: x.fill_()):
        with pytest.raises(TypeError, match=r"Tensor\.|topk"):
            call()
    with pytest.raises(TypeError, match="one number"):
        f"{x:.3f}"
    assert f"{x.sum():.1f} {tensor(3):d} {tt.ones(1)}" == "3.0 3 tensor([1.])"


# Kernels


def module_with(**callables):
    module = types.ModuleType("kernels")
    vars(module).update(callables)
    return module


def test_kernels_may_come_from_elsewhere():
    def doubled(x, /):
        return 2 * np.exp(x)

    doubled.__module__ = "another"
    for kernel in (doubled, functools.partial(doubled), functools.wraps(doubled)(lambda x: doubled(x))):
        with tt.use_kernels(module_with(exp=kernel, helper=math.sqrt)):
            assert tt.zeros(1).exp().item() == 2
    assert tt.zeros(1).exp().item() == 1
    for wrong in (module_with(exp=math.exp, log=lambda x, y: x), module_with(exp=np.exp), module_with(np=np)):
        with pytest.raises(ValueError, match="fit|no kernels"), tt.use_kernels(wrong):
            pass
    assert tt.zeros(1).exp().item() == 1


def test_kernel_sets_may_end_in_any_order():
    def constant(value):
        return module_with(exp=functools.wraps(tt.exp.default)(lambda x: np.full(x.shape, value)))

    first, second = tt.use_kernels(constant(1.0)), tt.use_kernels(constant(2.0))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert tt.zeros(1).exp().item() == 2
    second.__exit__(None, None, None)
    assert tt.exp.kernel is tt.exp.default


def test_two_threads_do_not_exchange_kernels_at_once():
    refused = []

    def other():
        try:
            with tt.use_kernels(loops):
                pass
        except RuntimeError as error:
            refused.append(str(error))

    with tt.use_kernels(loops):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert refused and "another thread" in refused[0] and tt.exp.kernel is tt.exp.default


# Losses


def test_rows_that_are_ignored_do_not_count():
    x, labels = Tensor([[nan] * 3, [1.0, 2.0, 3.0]]), tensor([-100, 1])
    right = F.cross_entropy(x[1:], labels[1:]).item()
    assert F.cross_entropy(x, labels).item() == right and F.cross_entropy(x, labels, reduction="none")[0].item() == 0
    assert F.cross_entropy(x, labels, reduction="sum").item() == right
    smooth = F.cross_entropy(x[1:], labels[1:], label_smoothing=0.1).item()
    assert F.cross_entropy(x, labels, label_smoothing=0.1).item() == smooth
    assert F.nll_loss(x, labels).item() == -2
    assert F.nll_loss(Tensor([-inf]), tensor(0), ignore_index=0, reduction="none").item() == 0
    masked = Tensor([[-inf, 0.0, 0.0], [-inf, 2.0, 3.0]])
    assert math.isfinite(F.cross_entropy(masked, tensor([0, 1]), ignore_index=0).item())


def test_losses_of_integers_do_not_wrap():
    three, five = of(np.uint8, 3), of(np.uint8, 5)
    assert F.l1_loss(three, five).item() == 2 and F.mse_loss(three, five).item() == 4
    assert F.smooth_l1_loss(three, five).item() == F.huber_loss(three, five).item() == 1.5


def test_numbers_beside_uint8():
    x = of(np.uint8, 255, 7)
    assert (x / -1).tolist() == [-255, -7] and (x // -1).tolist() == [1, 0] and (x > -1).all().item()
    assert (tensor(3, dtype=u8) * 300).dtype == u8 and (tensor([1]) + np.float16(2)).dtype == tt.float32
    assert tt.full((1,), np.float64(1.5)).dtype == tt.float32 and tensor([True]).clip(max=-1).tolist() == [-1]


def test_assigning_one_element():
    x = tt.zeros(2)
    x[0] = tt.ones(1)
    x[1] = [2.0]
    assert x.tolist() == [1, 2]
    assert tt.flip(x, [0]).tolist() == [2, 1]
    assert tt.flip(x.reshape(1, 2), (0, -1)).tolist() == [[2, 1]]
    x.reshape(1, 2).expand(1, -1).fill_(3)
    assert x.tolist() == [3, 3]
    with pytest.raises(RuntimeError, match="cannot be written to"):
        tt.from_numpy(x.numpy()).fill_(1)


def test_dots_that_stand_for_nothing_part_no_arrays():
    x = tt.arange(12).reshape(2, 3, 2)
    assert x[:1, [0, 1, 2], ..., [0, 1, 1]].tolist() == x[:1, [0, 1, 2], [0, 1, 1]].tolist() == [[0, 3, 5]]
    assert x[[1, 0], ..., [0, 1]].shape == (2, 3)
    x[:1, [False, True, True], ..., [0, 1]] = tt.tensor([[20, 50]])
    assert x[0].tolist() == [[0, 1], [20, 3], [4, 50]]
    with pytest.raises(IndexError, match="single ellipsis"):
        x[..., [0], ...]


@pytest.mark.filterwarnings("ignore:Out of bound index:DeprecationWarning")  # which is all that NumPy 2.0 says
def test_positions_are_checked_where_nothing_is_picked():
    for index, dim in [((tt.tensor([2]), slice(5, None)), 0), ((slice(0), tt.tensor([0, 3])), 1), ((..., [-3]), 2)]:
        x = tt.zeros(2, 3, 2)
        with pytest.raises(IndexError, match=f"out of range: dimension {dim} has size {x.shape[dim]}"):
            x[index]
        with pytest.raises(IndexError, match=f"out of range: dimension {dim} has size {x.shape[dim]}"):
            x[index] = 1.0
        assert x.sum().item() == 0


def test_a_factor_may_be_larger_than_float16():
    x = tensor([0.5, 1e-3], dtype=tt.float16)
    numbers = [65536, 65536.0, np.float32(65536), np.float64(65536)]
    for factor in (*numbers, tensor(65536.0), tensor(65536.0).double(), tensor(65536)):
        for product in (x * factor, factor * x):
            assert product.dtype == tt.float16 and product.tolist() == [32768, float(np.float16(x[1].item() * 65536))]
        assert (x / factor).tolist() == [float(np.float16(v / 65536)) for v in x.tolist()]
    assert (200000.0 / tensor([60000.0, -40000.0]).half()).tolist() == [float(np.float16(10 / 3)), -5]
    y = tensor([1e-4], dtype=tt.float16)
    y *= 1e6
    assert y.dtype == tt.float16 and abs(y.item() - 100) < 0.1


def test_softplus_of_numbers_that_beta_makes_infinite():
    x = tensor([3e38, -3e38, 0.0])
    assert tt.softplus(x, 3).tolist() == [x[0].item(), 0, pytest.approx(np.log(2) / 3)]
    assert tt.softplus(x, -3).tolist() == [0, x[1].item(), pytest.approx(-np.log(2) / 3)]


def test_cross_entropy_without_classes_and_labels_is_nan():
    assert np.isnan(tt.cross_entropy(tt.zeros(2, 0, 0), tt.zeros(2, 0).long()).item())


def test_values_that_do_not_fit_are_refused_where_nothing_is_written():
    x = tt.zeros(2, 0, 3)
    with pytest.raises(ValueError, match=r"values of shape \(2, 0, 3\) do not fit into shape \(0, 3\)"):
        x[0, :1, [True, True, True], ...] = x
    x[0, :1, [True, True, True], ...] = tt.zeros(0, 3)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_loss_of_a_sure_and_right_answer_keeps_its_digits(sign):
    x = np.float32([14, 40, 80, 0.5]) * sign
    loss = tt.binary_cross_entropy_with_logits(tensor(x), tt.full((4,), 1.0 if sign > 0 else 0.0), reduction="none")
    assert np.allclose(loss.numpy(), np.log1p(np.exp(-np.abs(x.astype(np.float64)))), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("dtype", "offset"), [(tt.float32, 1e7), (tt.float64, 1e15), (tt.float16, 2000)])
def test_the_variance_of_numbers_far_from_zero(dtype, offset):
    x = np.arange(12.0).reshape(2, 6) % 5
    t = tensor((offset + x).tolist(), dtype=dtype)
    assert (t.double() - offset).tolist() == x.tolist()
    assert np.allclose(t.var(1).numpy(), x.var(1, ddof=1), rtol=1e-3 if dtype == tt.float16 else 1e-6)
    assert np.allclose(t.std().item(), x.std(ddof=1), rtol=1e-3 if dtype == tt.float16 else 1e-6)
    assert tt.full((7,), offset + 1, dtype=dtype).var().item() == 0


def test_a_view_is_a_view_or_cannot_be_written_to():
    x = tt.arange(6.0).reshape(2, 3)
    x.view(6)[4] = 9
    assert x.tolist() == [[0, 1, 2], [3, 9, 5]]
    empty = tt.zeros(0, 2).view(2, 0)
    empty += 1
    copy = x.T.view(6)
    assert copy.tolist() == [0, 3, 1, 9, 2, 5] and (copy * 2).tolist() == [0, 6, 2, 18, 4, 10]
    for write in (lambda: copy.fill_(1), lambda: copy.__iadd__(1), lambda: copy.__setitem__(0, 1)):
        with pytest.raises(RuntimeError, match=r"view\(\) has had to copy it"):
            write()
    assert copy.tolist() == [0, 3, 1, 9, 2, 5]
    clone = copy.clone()
    clone += 1
    reshaped = x.T.reshape(6)
    reshaped += 1
    assert clone.tolist() == reshaped.tolist() == [1, 4, 2, 10, 3, 6] and x.tolist() == [[0, 1, 2], [3, 9, 5]]



def test_powers_of_truth_values_and_of_integers():
    x = tensor([True, False])
    assert (x**True).tolist() == [True, False] and (x**False).tolist() == [True, True]
    assert (x**2).dtype == tt.int64 and (tensor([2]) ** True).tolist() == [2]
    for x, exponent in ((tt.zeros(0, dtype=np.int64), -2), (of(np.uint8, 1), 300), (of(np.uint8, 1), -1)):
        with pytest.raises(ValueError, match="power"):
            x**exponent


def test_ranges_of_integers_begin_with_integers():
    assert tt.linspace(3, -1.5, 3, dtype=np.int64).tolist() == [3, 1, -1]
    assert tt.arange(0, -1.5, -1, dtype=np.int64).tolist() == [0]


def test_bounds_of_numpy_are_python_numbers():
    x = tt.zeros(2, dtype=np.int32)
    assert x.clip(max=np.float32(0.5)).dtype == tt.float32 and x.clip(max=np.int64(2)).dtype == tt.int32


def test_number_of_classes_without_labels():
    nothing = tt.zeros(0, dtype=np.uint8)
    assert tt.one_hot(nothing, 3).shape == (0, 3) and tt.one_hot(of(np.uint8, 2)).tolist() == [[0, 0, 1]]
    with pytest.raises(ValueError, match="num_classes"):
        tt.one_hot(nothing)


def test_soft_targets_without_classes():
    assert math.isnan(F.cross_entropy(tt.zeros(2, 0), tt.zeros(2, 0)).item())


def test_a_single_number_has_one_dimension():
    x = tensor(1.0)
    assert x.flatten().shape == (1,) and x.mT.shape == ()
    with pytest.raises(IndexError, match="dimension 1"):
        x.flatten(0, 1)


WORDS = {
    "index 7 is out of range: dimension 1 has size 3": lambda x: x[:, [7]],
    "index=(:, ..., [7])": lambda x: x[:, ..., [7]],
    "the mask does not fit: dimension 0 has size 2, and 1 in the mask": lambda x: x[tensor([True])],
    "4 indices are more than it has dimensions": lambda x: x[0, 0, 0, 0],
    "the index tensors do not broadcast: shapes (3,) (2,)": lambda x: x[[0, 1, 1], [0, 1]],
    "values of shape (5,) do not fit into the chosen part of shape (3,2)": lambda x: x.__setitem__(0, tt.zeros(5)),
    "the values are not as many as the mask chooses": lambda x: x.__setitem__(x == 0, tt.zeros(3)),
    "-1 is not a number that uint8 can hold": lambda x: of(np.uint8, 1).__setitem__(0, -1),
    "12 numbers do not fill that shape": lambda x: x.reshape(7),
    "each dimension must be named once": lambda x: x.permute(0, 0, 1),
    "an empty tensor has no largest or smallest element": lambda x: x[:0].amax(),
    "where: shapes (4,) and () and (2, 3, 2) do not broadcast": lambda x: x.masked_fill(tensor([True] * 4), 1),
    "only the sizes along the dimension `dim` may differ": lambda x: tt.cat([x, x[0]]),
}


@pytest.mark.parametrize("words", WORDS)
def test_what_numpy_refuses_is_said_in_our_words(words):
    with pytest.raises((IndexError, ValueError)) as error:
        WORDS[words](tt.zeros(2, 3, 2))
    assert words in str(error.value)


def test_where_refuses_a_number_that_does_not_fit():
    x, mask = of(np.uint8, 1, 2), tensor([True, False])
    assert tt.where(mask, 3, x).tolist() == [3, 2] and tt.where(mask, x, 0.5).tolist() == [1, 0.5]
    with pytest.raises(ValueError, match="300 is not a number that uint8 can hold"):
        tt.where(mask, 300, x)


@pytest.mark.parametrize(
    "function, approximate", [(tt.gelu, "none"), (tt.gelu_slope, "none"), (tt.gelu_slope, "tanh")]
)
def test_gelu_keeps_the_digits_of_float16(function, approximate):
    x = tt.tensor([-5.0, -4.0, -3.0, -1.0, 0.5, 4.0], dtype=tt.float64)
    exact = function(x, approximate=approximate).numpy()
    found = function(x.half(), approximate=approximate)
    assert found.dtype == tt.float16 and np.allclose(found.numpy(), exact, rtol=1e-3, atol=2e-6)


def test_gelu_of_half_numbers_does_not_round_to_0():
    assert abs(F.gelu(of(np.float16, -4.45)).item() + 1.91e-5) < 5e-7


def test_integers_of_two_widths_are_divided_as_floats():
    x = of(np.uint8, 8, 2)
    assert (x / tensor(-4)).tolist() == [-2, -0.5] and (tensor(300) / x).tolist() == [37.5, 150]
    assert (x / tensor(-4)).dtype == tt.float32 and (x / tensor([2, 2])).tolist() == [4, 1]
