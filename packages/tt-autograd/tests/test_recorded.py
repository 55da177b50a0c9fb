"""Results that are changed in place, and what they tell of their record."""

import numpy as np
import pytest

import tt_autograd as ta
import tt_tensor as tt
from tt_tensor import Tensor


def rows_in_a_loop(y, w):
    for i in range(3):
        y[i] = y[i] * w


def a_row_twice(y, w):
    row = y[0]
    row += w
    y[1] = row * 2


def columns(y, w):
    y[:, 1] *= y[:, 0]
    y[:, 0] -= w[0]


CHANGES = {
    "a number by mask": lambda y, w: y.__setitem__(y > 0.3, 0.0),
    "a tensor by mask": lambda y, w: y.__setitem__(y > 0.3, w.sum()),
    "many by mask": lambda y, w: y.__setitem__(tt.tensor([True, False, True]), w * tt.tensor([[1.0], [2.0]])),
    "a row": lambda y, w: y.__setitem__(1, w),
    "a part": lambda y, w: y.__setitem__((slice(None), slice(0, 2)), w[:2]),
    "rows by positions": lambda y, w: y.__setitem__([0, 2], w * y[:2]),
    "positions twice": lambda y, w: y.__setitem__([0, 0], tt.stack([w, w * w])),
    "one element": lambda y, w: y.__setitem__((-1, -1), w[:1]),
    "a list": lambda y, w: y.__setitem__((0, slice(0, 2)), [1.0, 2.0]),
    "a number in a number": lambda y, w: y.__setitem__((..., 0), 7),
    "nothing": lambda y, w: y.__setitem__(y > 1e9, w.sum()),
    "from itself": lambda y, w: y.__setitem__(0, y[1]),
    "from itself, overlapping": lambda y, w: y.__setitem__(slice(1, None), y[:-1]),
    "through a view": lambda y, w: y.reshape(-1).__setitem__(slice(3, 7), w),
    "through a transpose": lambda y, w: y.T[1].mul_(w[:3]),
    "through views of views": lambda y, w: y.reshape(2, 6)[1].reshape(3, 2)[1:].mul_(5.0),
    "rows in a loop": rows_in_a_loop,
    "a row twice": a_row_twice,
    "columns": columns,
    "add_": lambda y, w: y.add_(w, alpha=2),
    "add_ itself": lambda y, w: y.add_(y).add_(y * 3),
    "mul_ itself": lambda y, w: y.mul_(y),
    "several operations at once": lambda y, w: y.sigmoid_().mul_(w).tanh_().add_(1),
    "masked_fill_": lambda y, w: y.masked_fill_(y > 0, -1.0),
    "clamp_": lambda y, w: y.clamp_(min=w),
    "addcmul_": lambda y, w: y.addcmul_(w, w, value=0.5),
    "fill_diagonal_": lambda y, w: y.fill_diagonal_(3.0),
    "index_put_": lambda y, w: y.index_put_((tt.tensor([0, 0]),), w, accumulate=True),
}


def changed(change, x, w):
    y = x * w + 0.1
    change(y, w)
    return (y * y.sin()).sum()


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    return [Tensor(rng.standard_normal(shape), requires_grad=True) for shape in ((3, 4), (4,))]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_gradients_of_what_was_changed_are_those_of_finite_differences(change, pair):
    ta.check_gradients(lambda x, w: changed(change, x, w), *pair)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_gives_the_same_numbers_with_and_without_a_record(change, pair):
    x, w = pair
    y = x * w
    change(y, w)
    with ta.no_grad():
        plain = x * w
        change(plain, w)
    assert np.array_equal(y.numpy(), plain.numpy())


def test_constants_from_the_same_memory_stay_constants(pair):
    x, w = pair
    y = x * w
    y[0] = y.detach()[1]
    y.sum().backward()
    assert x.grad.tolist() == [[0.0] * 4, w.tolist(), w.tolist()]


def test_second_derivatives_of_what_was_changed(pair):
    ta.check_gradients(lambda x, w: changed(columns, x, w), *pair, order=2)


def test_a_mask_before_softmax(pair):
    x, _ = pair
    scores = x * 1
    rows = scores.reshape(-1, 4)
    rows[tt.tensor([[False, False, True, True]] * 3)] = -1e6
    tt.softmax(rows.reshape(3, 4), dim=-1)[:, 0].sum().backward()
    assert (x.grad.numpy()[:, 2:] == 0).all() and (x.grad.numpy()[:, :2] != 0).all()


READERS = {
    "a function of the old numbers": lambda y: y * y,
    "a view": lambda y: y[0],
    "a view of a view": lambda y: y.reshape(-1)[2:],
}


@pytest.mark.parametrize("change", [lambda y: y.add_(1), lambda y: y.__setitem__(0, 5.0), lambda y: y[0].mul_(2)])
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_what_was_read_before_a_change_is_refused(reader, change, pair):
    x, _ = pair
    y = x * 2
    read = reader(y)
    change(y)
    with pytest.raises(RuntimeError, match="changed in place"):
        read.sum().backward()
    with pytest.raises(RuntimeError, match="changed in place"):
        ta.grad(read.sum(), x, allow_unused=True)


def test_a_view_of_numbers_that_are_gone_cannot_be_changed(pair):
    x, _ = pair
    y = x * 2
    row = y[0]
    y += 1
    with pytest.raises(RuntimeError, match="changed in place"):
        row += 1
    assert y[0].tolist() == (x[0] * 2 + 1).tolist()


def test_what_cannot_be_assigned_changes_nothing(pair):
    x, w = pair
    y = x * 2
    for index, value in ((7, 1.0), (0, w[:3]), ((0, 0), w), (y > 0, tt.ones(100))):
        with pytest.raises((ValueError, IndexError)):
            y[index] = value
    with pytest.raises(RuntimeError, match="cannot be written to"):
        w.mul(2).expand(3, 4)[0] = 1.0
    y.sum().backward()
    assert (x.grad.numpy() == 2).all()


def test_leaves_refuse_recorded_values(pair):
    x, w = pair
    for target in (w, w[:], w.reshape(2, 2)[0]):
        with pytest.raises(RuntimeError, match="recorded"):
            target[0] = x[0, 0]
        with pytest.raises(RuntimeError, match="recorded"):
            target.add_(x[0, 0])


def test_gradients_stop_where_numbers_were_replaced(pair):
    x, _ = pair
    seen = []
    y = x * 2
    y.register_hook(lambda g: seen.append(g.tolist()))
    y.retain_grad()
    y[0] = 0.0
    y.sum().backward()
    assert seen == [[[0.0] * 4, [1.0] * 4, [1.0] * 4]] and (y.grad.numpy() == 1).all()


def test_a_wider_operand_does_not_widen_what_is_changed():
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    y += Tensor(np.array([0.5, 0.5]))
    y.sum().backward()
    assert y.dtype == x.grad.dtype == tt.float32 and x.grad.tolist() == [2, 2]


def test_a_result_may_forget_its_history(pair):
    x, w = pair
    h = x * w
    used = (h * h).sum()
    assert h.detach_() is h and not h.requires_grad and h.grad_fn is None
    assert not (h * 2).requires_grad and (h * w).requires_grad
    with pytest.raises(RuntimeError, match="changed in place"):
        used.backward()
    with pytest.raises(RuntimeError, match="history"):
        h.requires_grad_()


def test_values_for_an_empty_selection_have_a_gradient_of_0():
    x, value = Tensor([-0.0, 1.0], requires_grad=True), Tensor([2.0], requires_grad=True)
    y = x * 1
    y[:0] = value
    y[tt.tensor([False, False])] = value
    y.sum().backward()
    assert str(y.tolist()) == "[-0.0, 1.0]" and x.grad.tolist() == [1, 1] and value.grad.tolist() == [0]


def test_values_must_fit_into_an_empty_selection():
    y = Tensor([0.0, 1.0], requires_grad=True) * 1
    with pytest.raises(ValueError, match="only a dimension of size 1"):
        y[:0] = Tensor([1.0, 2.0])


# The record


def test_grad_fn_leads_from_a_loss_to_its_leaves():
    x, w = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 4.0], requires_grad=True)
    loss = (x * w + 1).exp().sum()
    node, names = loss.grad_fn, []
    while node is not None:
        names.append(node.name())
        last, node = node, next((child for child, _ in node.next_functions), None)
    assert names == ["SumBackward0", "ExpBackward0", "AddBackward0", "MulBackward0", "AccumulateGrad"]
    assert last.variable is x
    product = loss.grad_fn.next_functions[0][0].next_functions[0][0]
    assert product.next_functions[1] == (None, 0) and product.next_functions[0][0].next_functions[1][0].variable is w


def test_grad_fn_of_leaves_and_constants_is_none():
    x = Tensor([1.0], requires_grad=True)
    assert x.grad_fn is None and tt.ones(1).grad_fn is None and (tt.ones(1) * 2).grad_fn is None
    with ta.no_grad():
        assert (x * 2).grad_fn is None


def test_a_node_prints_and_compares_as_one():
    y = Tensor([1.0], requires_grad=True) * 2
    assert repr(y.grad_fn).startswith("<MulBackward0 object at 0x") and type(y.grad_fn).__name__ == "MulBackward0"
    assert y.grad_fn == y.grad_fn and len({y.grad_fn, y.grad_fn}) == 1 and y.grad_fn != (y * 2).grad_fn
    assert repr(y) == "tensor([2.], grad_fn=<MulBackward0>)"
    assert not y.retains_grad and (y.retain_grad(), y.retains_grad)[1]
