"""Every operation of chapters 02 to 05, by way of the one table: values, dtypes, errors, views, writing, the door."""

import inspect
import math
import sys
import threading
import types
import warnings

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor import Tensor, loops, tensor, use_kernels
from tt_tensor.tensor import operations_of
from tt_tensor.testing import OPS, Draw, Sample, every_sample, tensors_of

OP = {op.name: op for op in OPS}
every_op = pytest.mark.parametrize("op", OPS, ids=[op.name for op in OPS])
MISUSES = [(op.name, misuse) for op in OPS for misuse in op.misuses]


TOLERANCE = {np.float64: {"rtol": 1e-12, "atol": 1e-13}, np.float32: {"rtol": 2e-5, "atol": 2e-6}}


def compared(op, sample):
    """The call, as somebody would have to type it to see the failure."""
    arrays = ", ".join(f"{a.dtype} of shape {a.shape} and strides {a.strides}" for a in sample.arrays)
    return f"{op.name}({arrays}, {sample.options})"


# Values. The loops define every primitive; what is composed of primitives is compared with NumPy's own word for it.


@pytest.mark.parametrize(("dtype", "most"), [(np.float64, 20), (np.float32, 5)], ids=["float64", "float32"])
@every_op
def test_kernels_agree_with_the_loops(op, dtype, most):
    for sample in op.samples(most):
        args = op.tensors(sample, dtype)
        fast = tensors_of(op.function(*args, **sample.options))
        with use_kernels(loops):
            slow = tensors_of(op.function(*args, **sample.options))
        for ours, defined in zip(fast, slow, strict=True):
            assert (ours.shape, ours.dtype) == (defined.shape, defined.dtype), compared(op, sample)
            np.testing.assert_allclose(ours.numpy(), defined.numpy(), **TOLERANCE[dtype], err_msg=compared(op, sample))


def test_every_primitive_has_its_loop_of_the_same_signature():
    ours = {name: p for name, p in tt.PRIMITIVES.items() if p.__module__.startswith("tt_tensor.")}
    with use_kernels(loops):
        without = [name for name, p in ours.items() if p.kernel.__module__ != loops.__name__]
    assert not without, f"no loop defines {without}"


def _keep(x, dim, keepdim):
    return {"axis": dim, "keepdims": keepdim}


def _losses(values, reduction):
    return {"mean": np.mean, "sum": np.sum, "none": np.asarray}[reduction](values)


def _log_softmax(x, axis):
    return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))


def _cross_entropy(x, labels, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """One example after the other, as the definition reads."""
    x, labels = (x, labels) if x.ndim > 1 else (x[None], labels[None])
    classes = x.shape[1]
    weight = np.ones(classes) if weight is None else weight
    rows = np.moveaxis(x, 1, -1).reshape(-1, classes)
    losses, importance = [], []
    for row, label in zip(_log_softmax(rows, 1), labels.reshape(-1)):
        counts = label != ignore_index
        wanted = np.full(classes, label_smoothing / classes) + (1 - label_smoothing) * (np.arange(classes) == label)
        losses.append(-(wanted * weight * row).sum() if counts else 0.0)
        importance.append(weight[label] if counts else 0.0)
    if reduction == "mean":
        return np.sum(losses) / np.float64(np.sum(importance))
    return np.sum(losses) if reduction == "sum" else np.reshape(losses, labels.shape)


ORACLES = {
    "mean": lambda x, dim, keepdim: np.mean(x, **_keep(x, dim, keepdim)),
    "var": lambda x, dim, keepdim, correction: np.var(x, ddof=correction, **_keep(x, dim, keepdim)),
    "std": lambda x, dim, keepdim, correction: np.std(x, ddof=correction, **_keep(x, dim, keepdim)),
    "logsumexp": lambda x, dim, keepdim: np.log(np.sum(np.exp(x), **_keep(x, dim, keepdim))),
    "softmax": lambda x, dim: np.exp(_log_softmax(x, dim)),
    "log_softmax": lambda x, dim: _log_softmax(x, dim),
    "where": np.where,
    "gather": lambda x, index, dim: np.take_along_axis(x if dim % x.ndim == 0 else x[: len(index)], index, dim),
    "one_hot": lambda index, num_classes: np.eye(num_classes)[index],
    "stack": lambda *arrays, dim: np.stack(arrays, dim),
    "sort": lambda x, dim, descending=False: (
        np.sort(x, dim) if x.ndim and not descending else -np.sort(-x, dim) if x.ndim else x
    ),
    "getitem": lambda x, index: x[1][..., [0, 0]] if str(index) == "(1, Ellipsis, [0, 0])" else x[index],
    "transpose": lambda x, dim0, dim1: np.swapaxes(x, dim0, dim1),
    "unsqueeze": lambda x, dim: np.expand_dims(x, dim),
    "squeeze": lambda x: np.squeeze(x),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x, approximate="none": (
        x * np.vectorize(math.erf)(x / 2**0.5) / 2 + x / 2
        if approximate == "none"
        else x / (1 + np.exp(-2 * (2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
    ),
    "linear": lambda x, w, b=0.0: x @ w.T + b,
    "mse_loss": lambda x, t, reduction: _losses((x - t) ** 2, reduction),
    "l1_loss": lambda x, t, reduction: _losses(np.abs(x - t), reduction),
    "huber_loss": lambda x, t, reduction, delta=1.0: _losses(
        np.where(np.abs(x - t) < delta, (x - t) ** 2 / 2, delta * (np.abs(x - t) - delta / 2)), reduction
    ),
    "cross_entropy": _cross_entropy,
    "binary_cross_entropy": lambda p, t, reduction: _losses(-t * np.log(p) - (1 - t) * np.log(1 - p), reduction),
    "binary_cross_entropy_with_logits": lambda x, t, reduction: _losses(
        t * np.log1p(np.exp(-x)) + (1 - t) * np.log1p(np.exp(x)), reduction
    ),
    "kl_div": lambda x, t, reduction: _losses(t * (np.log(t) - x), reduction),
}


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.filterwarnings(
    "ignore::RuntimeWarning"
)  # NumPy's warnings about the mean of nothing, which is nan for us too
def test_values_are_numpys(name):
    op = OP[name]
    for sample in op.samples(most=80):
        if name == "mean" or 0 not in np.shape(sample.arrays[0]):
            (ours, *_) = tensors_of(op.function(*op.tensors(sample), **sample.options))
            expected = ORACLES[name](*sample.arrays, **sample.options)
            np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-11, atol=1e-12, err_msg=compared(op, sample))


@every_op
def test_arguments_are_left_alone(op):
    for sample in op.samples(most=8):
        args = op.tensors(sample)
        before = [a.numpy().copy() for a in args]
        op.function(*args, **sample.options)
        for argument, value in zip(args, before):
            np.testing.assert_array_equal(argument.numpy(), value, err_msg=compared(op, sample))


# Errors


@pytest.mark.parametrize(("name", "misuse"), MISUSES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(MISUSES)])
def test_misuse_is_refused_with_advice(name, misuse):
    with pytest.raises(misuse.error) as caught:
        misuse.call()
    missing = [word for word in misuse.words if word not in str(caught.value)]
    assert not missing, f"the message {str(caught.value)!r} does not mention {missing}"


def test_construction_errors():
    for data, error, word in [
        ([[1, 2], [3]], ValueError, "equal lengths"),
        (["a"], (TypeError, ValueError), "numbers"),
        (np.array([1 + 2j]), TypeError, "complex128"),
        (None, TypeError, "numbers"),
    ]:
        with pytest.raises(error, match=word):
            Tensor(data)
    with pytest.raises(TypeError, match="from_numpy"):
        tt.from_numpy([1.0])


def test_conversion_errors():
    for call, error, words in [
        (lambda: tt.zeros(2).item(), ValueError, r"shape \(2,\)"),
        (lambda: bool(tt.zeros(2)), ValueError, "any"),
        (lambda: len(Tensor(1.0)), TypeError, "single number"),
        (lambda: tensor([1, 2], requires_grad=True), RuntimeError, "int64"),
        (lambda: tt.zeros(2).backward(), RuntimeError, "no history"),
    ]:
        with pytest.raises(error, match=words):
            call()


# dtypes


@every_op
def test_floats_keep_their_width(op):
    for dtype in (np.float64, np.float32, np.float16):
        for sample in op.samples(most=6):
            for result in tensors_of(op.function(*op.tensors(sample, dtype), **sample.options)):
                assert result.dtype.kind != "f" or op.name == "cast" or result.dtype == dtype, compared(op, sample)


@pytest.mark.parametrize(
    "op", [op for op in OPS if op.name != "nll_loss"], ids=lambda op: op.name
)  # its input is logarithms
def test_nothing_becomes_float64_by_itself(op):
    """Integers, and integers that meet float32, never end in 64-bit floats."""
    for sample in op.samples(most=6):
        for kinds in (["i"], ["i", "f"], ["f", "i"]):
            args = [
                tt.from_numpy(
                    a.astype(np.float32 if kinds[i % len(kinds)] == "f" else np.int64) if a.dtype.kind == "f" else a
                )
                for i, a in enumerate(sample.arrays)
            ]
            try:
                results = tensors_of(op.function(*args, **sample.options))
            except (TypeError, ValueError, IndexError, RuntimeError):
                continue
            assert all(r.dtype != np.float64 for r in results), compared(op, sample)


def test_python_data_and_numpy_data():
    assert Tensor([1, 2]).dtype == Tensor(3.0).dtype == Tensor([[True]]).dtype == tt.float32
    assert tensor([1, 2]).dtype == tt.int64 and tensor([1.0]).dtype == tt.float32 and tensor([True]).dtype == tt.bool_
    for dtype in (np.float64, np.float16, np.int32, np.uint8, np.bool_):
        assert Tensor(np.ones(2, dtype)).dtype == tensor(np.ones(2, dtype)).dtype == dtype
    assert Tensor(Tensor(np.ones(2))).dtype == tt.float64 and Tensor([tt.ones(()), tt.zeros(())]).tolist() == [1, 0]
    assert Tensor([1, 2], dtype=tt.int32).dtype == tt.int32


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64], ids=str)
def test_python_scalars_never_promote(dtype):
    x = Tensor(np.ones(3, dtype))
    for result in (
        x + 1,
        2.5 * x,
        1 - x,
        x / 3,
        1 / x,
        x**2,
        x**0.5,
        2**x,
        x // 0.3,
        x % 0.3,
        7 % x,
        tt.maximum(x, 0.1),
        x.clip(0.5, 1),
        tt.where(x > 0, x, 0.0),
        -x,
    ):
        assert result.dtype == dtype
    assert (x + np.float64(1)).dtype == dtype
    assert tt.where([True, False, True], 1.5, x).dtype == dtype


def test_integers_with_scalars_and_floats():
    i = tensor([1, 2, 3])
    assert (i + 1).dtype == (i // 2).dtype == (i**2).dtype == tt.int64
    assert (
        (i + 0.5).dtype
        == (i / 2).dtype
        == (1 / i).dtype
        == i.exp().dtype
        == i.mean().dtype
        == tt.float32
    )
    assert (
        (i + tt.ones(3)).dtype
        == tt.cat([i, tt.ones(1)]).dtype
        == tt.float32
    )
    mask = i > 1
    assert (
        (mask + 1).tolist() == [1, 2, 2] and (mask * 2.5).tolist() == [0.0, 2.5, 2.5] and mask.sum().dtype == tt.int64
    )
    assert (mask & True).dtype == (True | mask).dtype == (~mask).dtype == tt.bool_
    assert (7 // i).tolist() == [7, 3, 2] and (7 % i).tolist() == [0, 1, 1]
    assert Tensor([1.5, -2.5]).to(tt.int64).tolist() == [1, -2] and Tensor([1e30]).half().item() == math.inf


def test_sorting_what_cannot_be_negated():
    assert Tensor(np.array([0, 3, 1], np.uint8)).sort(descending=True).values.tolist() == [3, 1, 0]
    assert tensor([False, True]).argsort(descending=True).tolist() == [1, 0]
    assert tensor([2, 1, 2]).argsort(descending=True).tolist() == [0, 2, 1]


# Infinity, nan and warnings: both are answers, so nothing is printed.


EXTREMES = [0.0, -0.0, 1e38, -1e38, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize(
    "name",
    [
        "exp",
        "log",
        "sqrt",
        "sin",
        "cos",
        "tanh",
        "erf",
        "abs",
        "sign",
        "floor",
        "relu",
        "leaky_relu",
        "elu",
        "sigmoid",
        "softplus",
        "gelu_slope",
        "round",
    ],
)
def test_extremes_agree_with_the_loops_and_warn_of_nothing(name):
    x = Tensor(np.array(EXTREMES, np.float32))
    if name == "gelu_slope":
        x = x[:4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = getattr(tt, name)(x)
        with use_kernels(loops):
            slow = getattr(tt, name)(x)
    np.testing.assert_allclose(fast.numpy(), slow.numpy(), rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_activations_stay_finite_far_out():
    x = Tensor([-1e38, -1000.0, 1000.0, 1e38])
    for function, wanted in [
        (tt.sigmoid, [0, 0, 1, 1]),
        (tt.tanh, [-1, -1, 1, 1]),
        (tt.softplus, [0, 0, 1000, 1e38]),
        (tt.silu, [0, 0, 1000, 1e38]),
        (tt.elu, [-1, -1, 1000, 1e38]),
        (tt.gelu, [0, 0, 1000, 1e38]),
        (lambda x: tt.gelu(x, approximate="tanh"), [0, 0, 1000, 1e38]),
        (lambda x: tt.gelu_slope(x, approximate="tanh"), [0, 0, 1, 1]),
        (tt.gelu_slope, [0, 0, 1, 1]),
        (lambda x: tt.softmax(x, dim=0), [0, 0, 0, 1]),
    ]:
        np.testing.assert_allclose(function(x).numpy(), wanted, rtol=1e-6, atol=1e-30)
    assert tt.log_softmax(Tensor([0.0, -200.0]), dim=0).tolist() == [0.0, -200.0]
    assert tt.logsumexp(Tensor([1000.0, 1000.0]), 0).item() == pytest.approx(1000 + math.log(2))
    assert tt.logsumexp(Tensor([-math.inf, -math.inf]), 0).item() == -math.inf
    assert tt.cross_entropy(Tensor([[1e38, 0.0]]), tensor([0])).item() == 0.0
    assert tt.binary_cross_entropy(Tensor([0.0, 1.0]), Tensor([1.0, 1.0]), reduction="none").tolist() == [100.0, 0.0]
    assert tt.binary_cross_entropy_with_logits(Tensor([1e38, -1e38]), Tensor([1.0, 0.0])).item() == 0.0
    assert math.isnan((Tensor([0.0]) / 0).item()) and (Tensor([-1.0]) / 0).item() == -math.inf


# Views and strides


def test_views_share_memory_and_copies_do_not():
    x = tt.arange(12).reshape(3, 4)
    for view in (
        x.T,
        x[1:],
        x[:, ::2],
        x[..., 1],
        x.unsqueeze(0),
        x.view(2, 6),
        x.flatten(),
        x.permute(1, 0),
        x.expand(2, 3, 4),
        x[None],
        x.detach(),
        x.data,
    ):
        assert np.shares_memory(view.numpy(), x.numpy()), view
    for copy in (x.clone(), x[[0, 1]], x[x > 3], x.T.contiguous(), x + 0, Tensor(x), x.T.reshape(12), tt.cat([x])):
        assert not np.shares_memory(copy.numpy(), x.numpy()), copy
    assert x.stride() == (4, 1) and x.T.stride() == (1, 4) and x[0].expand(5, 4).stride() == (0, 1)
    assert x.is_contiguous() and not x.T.is_contiguous() and x.T.contiguous().is_contiguous() and x.contiguous() is x


def test_numpy_gives_a_view_that_cannot_be_written():
    x = tt.zeros(2)
    with pytest.raises(ValueError, match="read-only"):
        x.numpy()[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(x)[0] = 1
    assert np.array(x).flags.writeable and np.shares_memory(x.numpy(), x.detach().numpy())


BASIC = [
    0,
    -1,
    np.int64(1),
    None,
    ...,
    slice(None, None, -1),
    slice(3, 1),
    (0, 1, 2),
    (slice(None), None, 0),
    (..., -1),
    (),
]
FANCY = [
    [1, 0],
    np.array([1, 1, 0]),
    ([0, 1], [2, 0]),
    (slice(None), [0, 2], None),
    ([[0], [1]], ..., [0, 1]),
    (1, [0, 0]),
]
MASKS = [True, [True, False], np.ones((2, 3), bool), (np.array([True, False]), 1), (slice(None), [True, False, True])]


@pytest.mark.parametrize("index", BASIC + FANCY + MASKS, ids=str)
def test_indexing_is_numpys(index):
    array = np.arange(24.0).reshape(2, 3, 4)
    x = Tensor(array)
    np.testing.assert_array_equal(x[index].numpy(), array[index])
    changed = array.copy()
    changed[index] = -1
    x[index] = -1
    np.testing.assert_array_equal(x.numpy(), changed)


def test_tensors_as_indices():
    x = tt.arange(5)
    assert x[tensor([3, 0])].tolist() == [3, 0] and x[x > 2].tolist() == [3, 4] and x[tensor(2)].item() == 2
    assert x[[tensor(1), tensor(2)]].tolist() == [1, 2] and list(range(9))[tensor(4)] == 4
    assert [v.item() for v in x[:3]] == [0, 1, 2]


def test_place_adds_where_an_index_points_twice():
    assert tt.place(Tensor([1.0, 2.0, 4.0]), index=np.array([0, 2, 0]), shape=(3,)).tolist() == [5.0, 0.0, 2.0]


# Writing, and the clock


WRITES = {
    "x[0] = ...": lambda x: x.__setitem__(0, 5.0),
    "x += ...": lambda x: x.__iadd__(1),
    "x -= ...": lambda x: x.__isub__(1),
    "x *= ...": lambda x: x.__imul__(3),
    "x /= ...": lambda x: x.__itruediv__(2),
    "x.copy_": lambda x: x.copy_(np.full(3, 9.0)),
    "x.fill_": lambda x: x.fill_(7),
    "x.zero_": lambda x: x.zero_(),
    "x.writable()": lambda x: np.copyto(x.writable(), 1.5),
    "x.data -= ...": lambda x: x.data.__isub__(1),
    "x.data = ...": lambda x: setattr(x, "data", Tensor([4.0, 5.0, 6.0])),
    "a view": lambda x: x[1:].zero_(),
    "a transposed view": lambda x: x.reshape(1, 3).T.fill_(2),
    "an init": lambda x: tt.uniform_(x, 5, 6),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_every_write_is_noticed_by_the_memory_it_went_to(write):
    x, other = Tensor(np.array([1.0, 2.0, 3.0])), tt.ones(3)
    view = x.reshape(3, 1)
    memory, before, of_other = x.numpy(), x.numpy().copy(), tt.last_write(other)
    stamp = tt.tick()
    write(x)
    assert np.shares_memory(x.numpy(), memory) and not np.array_equal(x.numpy(), before)
    assert (
        tt.last_write(x) > stamp
        and tt.last_write(view) == tt.last_write(x.detach()) == tt.last_write(x) == tt.last_write()
    )
    assert tt.last_write(other) == of_other and x.dtype == tt.float64


def test_in_place_operators_keep_dtype_and_refuse_to_grow():
    x = Tensor([1, 2, 3], dtype=tt.float16)
    x += tt.ones(3, dtype=tt.float64)
    assert x.tolist() == [2, 3, 4] and x.dtype == tt.float16
    for call in (
        lambda: tt.zeros(3).__iadd__(tt.zeros(2, 3)),
        lambda: tt.zeros(3).copy_([1, 2]),
        lambda: tt.zeros(3).__setitem__(slice(2), [1, 2, 3]),
        lambda: setattr(tt.zeros(3), "data", tt.zeros(2)),
    ):
        with pytest.raises(ValueError, match="shape"):
            call()


def test_writing_through_an_operation_of_itself():
    x = tt.arange(4, dtype=tt.float32)
    x += x.flip(0) if hasattr(x, "flip") else tt.flip(x, dim=0)
    assert x.tolist() == [3, 3, 3, 3]
    y = tt.arange(4, dtype=tt.float32)
    y[1:] = y[:-1]
    assert y.tolist() == [0, 0, 1, 2]


# The door: interpreters, kernels, the meter


def test_interpreters_stack_and_go_away_with_their_block():
    heard = []

    def speaker(name):
        def interpreter(next, primitive, tensors, params):
            heard.append((name, primitive.name))
            return next(primitive, tensors, params)

        return interpreter

    with pytest.raises(ZeroDivisionError), tt.interpreting(speaker("outer")), tt.interpreting(speaker("inner")):
        assert tt.listening()
        tt.ones(2) * 2
        1 / 0
    tt.ones(2) * 2
    assert heard == [("inner", "mul"), ("outer", "mul")] and not tt.listening()


def test_an_interpreter_may_answer_by_itself():
    with tt.interpreting(
        lambda next, primitive, tensors, params: (
            next(tt.sub, tensors, params) if primitive is tt.add else next(primitive, tensors, params)
        )
    ):
        assert (Tensor([5.0]) + Tensor([2.0])).item() == 3.0
    assert (Tensor([5.0]) + Tensor([2.0])).item() == 7.0


def test_interpreting_concerns_one_thread():
    inside, done, heard, elsewhere = threading.Event(), threading.Event(), [], []

    def other():
        inside.wait(5)
        elsewhere.append((tt.ones(2) + 1).tolist())
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with tt.interpreting(lambda next, p, ts, ps: (heard.append(p.name), next(p, ts, ps))[1]):
        inside.set()
        done.wait(5)
        tt.ones(2) * 2
    thread.join()
    assert heard == ["mul"] and elsewhere == [[2.0, 2.0]]


# Positions and counts whose number depends on the values are computed on the arrays.

WITHOUT_A_PRIMITIVE = {
    "contiguous", "one_hot", "dropout", "cast", "unique", "unique(dim)", "unique_consecutive", "bincount",
    "bincount(weights)", "histc", "searchsorted", "bucketize", "isin", "nonzero", "argwhere", "linalg.svdvals",
    "linalg.eigvalsh", "linalg.pinv", "atleast_1d", "atleast_2d",
}


def test_every_method_and_operator_goes_through_the_door():
    for op in OPS:
        if op.name not in WITHOUT_A_PRIMITIVE:
            assert any(  # one sample may have nothing to do: the last dimension alone is flat already
                operations_of(
                    lambda *a, op=op, sample=sample: op.function(*a, **sample.options), *op.tensors(sample)
                )
                for sample in op.samples(most=3)
            ), op.name


def test_primitives_called_with_arrays_answer_with_arrays():
    x = np.arange(3.0)
    for result in (
        tt.exp(x),
        tt.add(x, x),
        tt.sum(x, dim=0),
        tt.softmax(x, dim=0),
        tt.choose(x > 1, x, -x),
        tt.concat(x, x),
    ):
        assert isinstance(result, (np.ndarray, np.generic))
    assert isinstance(tt.add(x, tt.ones(3)), Tensor) and isinstance(x + tt.ones(3), Tensor)


def module(**functions):
    made = types.ModuleType("kernels_for_a_test")
    for name, function in functions.items():
        function.__module__ = made.__name__
        setattr(made, name, function)
    return made


def test_use_kernels_swaps_and_restores_even_after_an_error():
    def neg(x, /):
        return x * 0 + 42

    before = tt.neg.kernel
    with pytest.raises(KeyError), use_kernels(module(neg=neg)):
        assert (-Tensor([1.0])).item() == 42
        raise KeyError
    assert tt.neg.kernel is before and (-Tensor([1.0])).item() == -1


def test_use_kernels_refuses_what_does_not_fit():
    def negative(x, /):
        return -x

    def neg(x, scale=1):
        return -x

    before = {name: p.kernel for name, p in tt.PRIMITIVES.items()}
    with pytest.raises(ValueError, match=r"negative.*no primitive"), use_kernels(module(negative=negative)):
        pass
    with pytest.raises(ValueError, match=r"neg\(x, scale=1\).*neg\(x, /\)"), use_kernels(module(neg=neg)):
        pass
    assert before == {name: p.kernel for name, p in tt.PRIMITIVES.items()}


def test_meter_counts_multiply_adds_bytes_and_calls():
    x, y = tt.ones(3, 4), tt.ones(4, 5)
    with tt.meter() as counted:
        (x @ y).T.sum()
        x.reshape(4, 3)[0]
    assert counted.calls == {"matmul": 1, "permute": 1, "sum": 1, "reshape": 1, "getitem": 1}
    assert counted.multiply_adds == {"matmul": 3 * 4 * 5, "sum": 15}
    assert counted.bytes == {"matmul": 4 * (12 + 20 + 15), "sum": 4 * (15 + 1)}
    assert "matmul" in repr(counted) and "in all" in repr(counted)
    x @ y
    assert counted.calls["matmul"] == 1


def test_batched_and_affine_costs():
    with tt.meter() as counted:
        tt.ones(2, 3, 4) @ tt.ones(4, 5)
        tt.linear(tt.ones(7, 4), tt.ones(5, 4), tt.zeros(5))
    assert counted.multiply_adds["matmul"] == 2 * 3 * 4 * 5 and counted.multiply_adds["affine"] == 7 * 4 * 5


# Printing, chance, conversion


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Tensor([1.0, 2.5]), "tensor([1. , 2.5])"),
        (tensor([1, 2]), "tensor([1, 2])"),
        (Tensor(3.0), "tensor(3.)"),
        (Tensor(np.array([1.0])), "tensor([1.], dtype=float64)"),
        (tt.zeros(0), "tensor([])"),
        (Tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
        (tensor([True]), "tensor([ True])"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_repr(value, text):
    assert repr(value) == text


def test_repr_of_many_numbers_is_short_and_lines_up():
    assert len(repr(tt.zeros(100, 100))) < 1000
    first, second = repr(tt.ones(2, 2)).splitlines()
    assert first.index("[1.") == second.index("[1.")


def test_conversions():
    x = Tensor([[1.5, 2.0]])
    assert x.tolist() == [[1.5, 2.0]] and x[0, 0].item() == float(x[0, 0]) == 1.5 and int(x[0, 1]) == 2
    assert (
        len(x) == 1
        and x.numel() == 2
        and x.size() == x.shape == (1, 2)
        and x.size(1) == 2
        and x.ndim == 2
        and x.nbytes == 8
    )
    assert bool(Tensor(1.0)) and not bool(Tensor([0.0])) and x.to(tt.float32) is x
    assert [x.double().dtype, x.half().dtype, x.long().dtype, x.int().dtype, x.bool().dtype, x.float().dtype] == [
        tt.float64,
        tt.float16,
        tt.int64,
        tt.int32,
        tt.bool_,
        tt.float32,
    ]
    assert (x == x).all() and (x == None) is False and (x != "a") is True  # noqa: E711


def draws():
    return [
        tt.rand(3),
        tt.randn(2, 2),
        tt.randint(0, 9, (4,)),
        tt.randperm(5),
        tt.rand_like(tt.zeros(())),
        tt.randn_like(tt.zeros(2)),
        tt.Linear(3, 2).weight,
        tt.dropout(tt.ones(9)),
    ]


def test_one_seed_fixes_all_chance():
    tt.manual_seed(7)
    first = [x.tolist() for x in draws()]
    state = tt.get_rng_state()
    second = [x.tolist() for x in draws()]
    tt.set_rng_state(state)
    assert [x.tolist() for x in draws()] == second != first
    tt.manual_seed(7)
    assert [x.tolist() for x in draws()] == first


def test_factories():
    assert (
        tt.zeros(2, 3).shape
        == tt.ones((2, 3)).shape
        == tt.empty(2, 3).shape
        == tt.rand(2, 3).shape
        == tt.randn([2, 3]).shape
        == (2, 3)
    )
    assert tt.full((2,), 3.5).tolist() == [3.5, 3.5] and tt.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert (
        tt.arange(3).dtype == tt.int64
        and tt.arange(1, 4).tolist() == [1, 2, 3]
        and tt.arange(0, 1, 0.25).dtype == tt.float32
    )
    assert tt.linspace(0, 1, 5).tolist() == [0, 0.25, 0.5, 0.75, 1] and tt.zeros().shape == ()
    x = Tensor(np.ones((2, 1)))
    for like in (tt.zeros_like(x), tt.ones_like(x), tt.full_like(x, 2), tt.rand_like(x), tt.randn_like(x)):
        assert like.shape == (2, 1) and like.dtype == tt.float64
    assert (
        tt.zeros(2, dtype=tt.float64, requires_grad=True).requires_grad
        and tt.rand(2, dtype=tt.float64).dtype == tt.float64
    )
    values = tt.randint(-2, 3, (1000,))
    assert (
        values.dtype == tt.int64
        and set(values.tolist()) == {-2, -1, 0, 1, 2}
        and sorted(tt.randperm(5).tolist()) == list(range(5))
    )
    assert 0 <= tt.rand(1000).min().item() < 0.01 and abs(tt.randn(10_000).std().item() - 1) < 0.05


# The table itself


def test_table_covers_what_the_package_offers():
    """A primitive that no sample ever reaches would be tested by nobody."""
    reached = set()
    for op in OPS:
        for sample in op.samples(most=24):
            reached.update(
                operations_of(
                    lambda *a, op=op, sample=sample: op.function(*a, **sample.options), *op.tensors(sample)
                )
            )
    ours = {name for name, p in tt.PRIMITIVES.items() if p.__module__.startswith("tt_tensor.")}
    assert ours <= reached, f"no sample reaches {sorted(ours - reached)}"
    assert len(OP) == len(OPS)


def test_samples_hold_the_awkward_cases():
    shapes, layouts = set(), set()
    for sample in OP["add"].samples():
        shapes.update(a.shape for a in sample.arrays)
        layouts.update(a.flags.c_contiguous for a in sample.arrays)
    assert () in shapes and any(0 in s for s in shapes) and any(len(s) > 3 for s in shapes) and layouts == {True, False}


def test_every_sample_takes_each_way_once():
    def sampler(draw: Draw) -> Sample:
        first = draw.pick("ab")
        return Sample((), {"way": first + (draw.pick("xyz") if first == "a" else "")})

    assert [s.options["way"] for s in every_sample(sampler)] == ["ax", "ay", "az", "b"]


def test_table_imports_neither_torch_nor_autograd():
    source = inspect.getsource(sys.modules[OPS[0].__module__])
    assert "import torch" not in source and "import hypothesis" not in source and "tt_autograd" not in source


# A view of a recorded tensor is a result, also where nothing moves: it can be told apart from the leaf it came from.


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)], ids=str)
def test_a_transpose_is_a_view_and_not_the_tensor_itself(shape):
    x = tt.zeros(2, 3).reshape(-1)[: int(np.prod(shape))].reshape(shape)
    assert x.T is not x and x.T.shape == shape[::-1] and np.shares_memory(x.T.numpy(), x.numpy())
    with pytest.raises(ValueError, match=r"\(1, 2, 3\)"):
        tt.zeros(1, 2, 3).T
