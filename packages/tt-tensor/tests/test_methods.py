"""Methods of tensors: in place, conversions, and what programs for PyTorch ask."""

import ast
import inspect

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor import Tensor, conversions, in_place, methods


def words(module):
    """The functions of the package that a module of methods calls."""
    nodes = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "tt"}


@pytest.mark.parametrize("module", [methods, in_place, conversions], ids=lambda module: module.__name__)
def test_every_method_has_a_function_behind_it(module):
    assert words(module) and [name for name in words(module) if not hasattr(tt, name)] == []


# In place

FLOATS = {
    "add_": (2.0,), "sub_": (2.0,), "mul_": (3.0,), "div_": (2.0,), "floor_divide_": (0.5,), "remainder_": (0.7,),
    "fmod_": (0.7,), "pow_": (2,), "lerp_": (Tensor([1.0, 1.0, 1.0]), 0.25), "clamp_": (0.3, 0.6), "clip_": (0.3,),
    "clamp_min_": (0.5,), "clamp_max_": (0.5,), "masked_fill_": (tt.tensor([True, False, True]), -1.0), "exp_": (),
    "log_": (), "log1p_": (), "expm1_": (), "sqrt_": (), "rsqrt_": (), "square_": (), "reciprocal_": (), "abs_": (),
    "neg_": (), "sign_": (), "sin_": (), "cos_": (), "tanh_": (), "relu_": (), "sigmoid_": (), "erf_": (),
    "floor_": (), "ceil_": (), "trunc_": (), "frac_": (), "round_": (), "nan_to_num_": (), "cumsum_": (0,),
    "addcmul_": (Tensor([1.0, 2.0, 3.0]), Tensor([2.0, 2.0, 2.0])), "eq_": (0.25,), "gt_": (0.3,),
    "addcdiv_": (Tensor([1.0, 2.0, 3.0]), Tensor([2.0, 2.0, 2.0])), "logical_not_": (),
    "index_fill_": (0, tt.tensor([0, 2]), 5.0), "index_copy_": (0, tt.tensor([2, 0]), Tensor([7.0, 8.0])),
    "index_add_": (0, tt.tensor([1, 1]), Tensor([1.0, 2.0])), "scatter_": (0, tt.tensor([1]), Tensor([9.0])),
    "scatter_add_": (0, tt.tensor([1, 1]), Tensor([9.0, 1.0])),
}


@pytest.mark.parametrize("name", FLOATS)
def test_a_method_in_place_changes_the_tensor_to_what_the_method_gives(name):
    base = Tensor([[0.0, 0.0, 0.0], [0.25, 0.5, 0.75]])
    x, arguments = base[1], FLOATS[name]
    expected = getattr(x, name[:-1])(*arguments)
    before = tt.last_write(base)
    assert getattr(x, name)(*arguments) is x
    assert x.tolist() == expected.to(x.dtype).tolist() == base[1].tolist()
    assert x.dtype == tt.float32 and tt.last_write(base) > before
    assert getattr(Tensor, name).__qualname__.startswith("Tensor.")


def test_what_a_tensor_cannot_hold_is_refused_in_place():
    x = tt.tensor([1, 2])
    for change in (lambda: x.add_(0.5), lambda: x.div_(2), lambda: x.sqrt_()):
        with pytest.raises(TypeError, match="cannot hold"):
            change()
    with pytest.raises(ValueError, match="do not fit"):
        x.add_(tt.tensor([[1, 2], [3, 4]]))
    assert x.tolist() == [1, 2] and x.mul_(3).tolist() == [3, 6]


def test_alpha_scales_the_second_operand():
    x, y = Tensor([1.0, 2.0]), Tensor([10.0, 20.0])
    assert x.add(y, alpha=0.5).tolist() == [6, 12] and x.sub(y, alpha=2).tolist() == [-19, -38]
    assert x.add_(y, alpha=-0.1).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_diagonals_and_positions_in_place():
    assert tt.zeros(2, 3).fill_diagonal_(4.0).tolist() == [[4, 0, 0], [0, 4, 0]]
    assert tt.zeros(3, 3).fill_diagonal_(1).add_(1).tril_().tolist() == [[2, 0, 0], [1, 2, 0], [1, 1, 2]]
    index = (tt.tensor([0, 0, 2]),)
    assert tt.zeros(3).index_put_(index, tt.ones(3), accumulate=True).tolist() == [2, 0, 1]
    assert tt.zeros(3).index_put_(index, Tensor([5.0])).tolist() == [5, 0, 5]


def test_random_numbers_in_place():
    x = tt.empty(20_000)
    assert x.uniform_(-1, 3) is x and -1 <= x.min().item() < -0.9 and 2.9 < x.max().item() < 3
    assert x.normal_(2, 3).mean().item() == pytest.approx(2, abs=0.1) and x.std().item() == pytest.approx(3, abs=0.1)
    assert x.exponential_(2).mean().item() == pytest.approx(0.5, abs=0.02) and x.min().item() >= 0
    assert x.bernoulli_(0.3).mean().item() == pytest.approx(0.3, abs=0.02) and set(x.tolist()) == {0, 1}
    assert x.log_normal_(0, 0.5).log().std().item() == pytest.approx(0.5, abs=0.02)
    assert set(x.random_(2, 5).tolist()) == {2, 3, 4} and set(x.random_(2).tolist()) == {0, 1}
    assert tt.zeros(50, dtype=tt.uint8).random_().max().item() > 100


def test_a_generator_of_its_own():
    one, same, other = (tt.empty(3).normal_(generator=tt.Generator().manual_seed(seed)).tolist() for seed in (1, 1, 2))
    assert one == same != other
    weights = Tensor([1.0, 2.0, 3.0])
    picks = [weights.multinomial(2, generator=tt.Generator().manual_seed(5)).tolist() for _ in range(2)]
    assert picks[0] == picks[1]


def test_shapes_in_place():
    x = tt.arange(6).reshape(2, 3)
    assert x.t_() is x and x.shape == (3, 2) and x.unsqueeze_(0).shape == (1, 3, 2)
    assert x.transpose_(1, 2).squeeze_(0).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(RuntimeError, match="keeps its shape"):
        tt.ones(2, 3, requires_grad=True).t_()


# Conversions


def test_to_takes_dtypes_devices_and_tensors():
    x, double = Tensor([1.5, 2.5]), tt.ones(1, dtype=tt.float64)
    cpu = tt.device("cpu")
    for same in (
        x.to("cpu"), x.to(cpu), x.to(tt.float32), x.to(None), x.to(device="cpu"), x.to("cpu", non_blocking=True),
        x.to(cpu, None), x.cpu(), x.pin_memory(), x.share_memory_(), x.to_sparse(), x.to(x), x.to(tt.float32, True),
    ):
        assert same is x
    for wide in (
        x.to(tt.float64), x.to("cpu", tt.float64), x.to(tt.float64, device="cpu"), x.to(dtype=np.float64), x.to(double),
        x.to(cpu, dtype=tt.float64), x.type(tt.float64), x.type_as(double), x.type("torch.DoubleTensor"),
        x.to(other=double), x.double(),
    ):
        assert wide.dtype == tt.float64 and wide.tolist() == [1.5, 2.5]
    for copy in (x.to("cpu", copy=True), x.to(tt.float32, False, True), x.to(tt.float32, copy=True)):
        assert copy is not x and copy.tolist() == x.tolist() and not np.shares_memory(copy.numpy(), x.numpy())
    assert x.long().dtype == x.to("int64").dtype == tt.int64 and x.byte().dtype == tt.uint8
    assert x.type() == "torch.FloatTensor" and (x > 2).type() == "torch.BoolTensor"


def test_other_devices_and_types_are_refused():
    x = tt.ones(2)
    for call in (
        lambda: x.to("cuda"), lambda: x.cuda(), lambda: x.to(tt.device("cuda", 1), tt.float32), lambda: x.to(0),
        lambda: x.new_zeros(2, device="mps"), lambda: x.to(tt.float64, device="cuda"),
        lambda: x.to(tt.float32, device="cuda"),
    ):
        with pytest.raises(RuntimeError, match="CPU only"):
            call()
    with pytest.raises(RuntimeError, match="no device 'cudaa'"):
        x.to("cudaa")
    with pytest.raises(TypeError, match="bfloat16"):
        x.bfloat16()
    with pytest.raises(TypeError, match="not a dtype"):
        x.to(dtype=3.5)


def test_new_tensors_have_the_dtype_of_the_old():
    x = tt.ones(2, dtype=tt.float64)
    for new in (x.new_zeros(2, 3), x.new_zeros((2, 3)), x.new_ones(2, 3, device="cpu"), x.new_empty(size=(2, 3))):
        assert new.shape == (2, 3) and new.dtype == tt.float64 and not new.requires_grad
    assert x.new_full((2,), 7).tolist() == [7, 7] and x.new_tensor([1, 2]).dtype == tt.float64
    assert x.new_zeros(2, dtype=tt.int64).dtype == tt.int64 and x.new_ones(1, requires_grad=True).requires_grad
    assert x.new_zeros(()).shape == x.new_zeros([]).shape == ()
    with pytest.raises(TypeError, match="shape is not a parameter"):
        x.new_zeros(2, shape=3)


def test_questions_about_memory():
    x = tt.zeros(2, 3, dtype=tt.float64)
    assert (x.element_size(), x.itemsize, x.nbytes, x.nelement(), x.ndimension()) == (8, 8, 48, 6, 2)
    assert x.stride() == (3, 1) and x.stride(0) == 3 and x.T.stride(-1) == 3
    assert x.is_contiguous(memory_format=None) and not x.T.is_contiguous() and x.contiguous() is x
    assert x.T.contiguous().is_contiguous() and x.clone(memory_format=None) is not x
    assert x.device == tt.device("cpu") and str(x.device) == "cpu" and x.get_device() == -1 and x.is_cpu
    assert not (x.is_cuda or x.is_sparse or x.is_pinned() or x.is_complex()) and x.is_floating_point()
    assert x.data_ptr() == x.view(-1).data_ptr() != x.clone().data_ptr() and x.numpy(force=True).shape == (2, 3)
    assert x.grad_fn is None and tt.ones(1).is_nonzero() and not tt.tensor([1]).is_floating_point()


def test_a_tensor_as_a_container():
    x = tt.tensor([[1, 2], [3, 4]])
    assert 3 in x and 7 not in x and [row.tolist() for row in reversed(x)] == [[3, 4], [1, 2]]
    assert tt.ones(1, 2, 1).squeeze((0, 2)).shape == (2,)


# Words with options


def test_bounds_may_be_tensors():
    x = Tensor([1.0, 5.0, 9.0])
    assert x.clamp(min=Tensor([2.0, 2.0, 2.0]), max=Tensor([3.0, 8.0, 8.0])).tolist() == [2, 5, 8]
    assert x.clamp(Tensor([2.0]), 6.0).tolist() == [2, 5, 6] and x.clamp(max=Tensor(4.0)).tolist() == [1, 4, 4]


def test_reductions_in_another_dtype():
    x = Tensor([1.0, 2.0])
    assert x.sum(dtype=tt.float64).dtype == x.mean(0, dtype=tt.float64).dtype == tt.float64
    assert tt.tensor([1, 2]).mean(dtype=tt.float32).item() == 1.5 and x.cumsum(0, dtype=tt.int64).tolist() == [1, 3]
    assert x.softmax(0, dtype=tt.float64).dtype == tt.float64 and x.var(unbiased=False).item() == 0.25
    with pytest.raises(TypeError, match="unbiased and correction"):
        x.var(0, 1, unbiased=False)


def test_a_repeat_has_memory_of_its_own():
    x = tt.tensor(1.0)
    for repeated in (x.repeat(1, 1), x.tile((2, 1)), x.detach().repeat(1), x.reshape(1).roll(0, 0)):
        repeated += 1
        assert x.item() == 1 and repeated.tolist() in ([[2]], [[2], [2]], [2])


def test_a_number_is_scattered_in_the_dtype_of_the_tensor():
    for dtype, put in (("float64", 1e-3), ("int64", 0), ("float32", np.float32(1e-3))):
        assert tt.zeros(1, dtype=getattr(tt, dtype)).scatter(0, tt.tensor([0]), 1e-3).tolist() == [put]


def test_expand_says_what_it_cannot():
    for size in ((3,), (4, 3)):
        with pytest.raises(ValueError, match="only a dimension of size 1 can be repeated"):
            tt.zeros(2, 3).expand_as(tt.zeros(*size))


def test_windows_and_repeats():
    x = tt.arange(6)
    assert x.unfold(0, 2, 2).tolist() == [[0, 1], [2, 3], [4, 5]] and x.unfold(0, 4, 1).shape == (3, 4)
    assert x.reshape(2, 3).unfold(0, 2, 1).shape == (1, 3, 2)
    assert x[:2].repeat(2, 2).tolist() == [[0, 1, 0, 1]] * 2 and x[:2].repeat((3,)).shape == (6,)
    with pytest.raises(ValueError, match="each dimension"):
        x.reshape(2, 3).repeat(2)
