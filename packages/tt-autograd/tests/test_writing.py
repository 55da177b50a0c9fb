"""Writing in place beside a record: the right result or an error, never a number that only looks right."""

import numpy as np
import pytest

import tt_autograd as ta
import tt_tensor as tt
from tt_tensor import Tensor


@pytest.mark.parametrize("sign", ["+=", "-=", "*=", "/=", "**="])
def test_a_result_changed_in_place_is_changed_under_every_name(sign):
    x, w = Tensor([2.0, 3.0], requires_grad=True), Tensor([4.0, 5.0], requires_grad=True)
    y = x * 3
    other, plain = y, (x * 3)
    names = {"other": other, "w": w}
    exec(f"other {sign} w", names)
    right = eval(f"plain {sign[:-1]} w", {"plain": plain, "w": w})
    assert y.tolist() == other.tolist() == right.tolist()
    for ours, theirs in zip(ta.grad(y.sum(), [x, w]), ta.grad(right.sum(), [x, w])):
        assert ours.tolist() == theirs.tolist()


def test_a_result_may_be_changed_by_itself():
    x = Tensor([2.0, 3.0], requires_grad=True)
    y = x * 1
    y *= y
    y += 1
    y.sum().backward()
    assert y.tolist() == [5, 10] and x.grad.tolist() == [4, 6]


def test_records_of_numbers_that_are_gone_are_refused():
    x = Tensor([2.0, 3.0], requires_grad=True)
    y = x * 3
    square = y * y
    y += 1
    with pytest.raises(RuntimeError, match="changed in place"):
        square.sum().backward()


@pytest.mark.parametrize(
    "write",
    [
        lambda x, w: x.detach().__itruediv__(w), lambda x, w: x.__setitem__(0, w[0]),
        lambda x, w: w.__imul__(2),
        lambda x, w: exec("w[1] *= 3", {"w": w}),
        lambda x, w: w.reshape(2, 1).__iadd__(1),
        lambda x, w: np.concatenate([w, w]),
        lambda x, w: np.add(x.numpy(), w * 1),
        lambda x, w: (w.sum() * 1).__iadd__(w),
    ],
)
def test_what_the_record_would_not_see_is_refused(write):
    x, w = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 4.0], requires_grad=True)
    with pytest.raises((RuntimeError, TypeError, ValueError)):
        write(x, w)
    assert x.tolist() == [1, 2] and w.tolist() == [3, 4]


# A tensor without history takes on that of what is written to it


def _in_a_loop(T, w):
    sums = T.zeros(4, dtype=T.float64)
    for i in range(4):
        sums[i] = w[i] * (i + 1) + (sums[i - 1] if i else 0)
    return (sums**2).sum()


def _used_before(T, w):
    buffer = T.zeros(3, dtype=T.float64)
    h = (buffer + w[:3]).sum()
    buffer[0] = h
    return buffer.sum() + h * w[0]


def _by_every_way(T, w):
    added, copied, filled = (T.zeros(*shape, dtype=T.float64) for shape in ((2, 2), (2,), (2,)))
    other = added
    other += w.reshape(2, 2)
    added.mul_(w[0])
    copied.copy_(w[:2])
    copied[1] = w[3]
    filled.fill_(w[2])
    return (added * copied * filled).sum()


BUFFERS = {
    _in_a_loop: [100, 196, 264, 240], _used_before: [8, 2, 2, 0], _by_every_way: [99, 12, 31, 30],
}


@pytest.mark.parametrize("program", BUFFERS)
def test_a_buffer_takes_on_the_history_of_what_is_written_to_it(program):
    w = Tensor(np.arange(1.0, 5.0), requires_grad=True)
    program(tt, w).backward()
    at = np.arange(1.0, 5.0)
    slopes = [(program(tt, Tensor(at + d)) - program(tt, Tensor(at - d))).item() / 2e-6 for d in np.eye(4) * 1e-6]
    assert np.allclose(w.grad.numpy(), slopes, rtol=1e-6) and w.grad.tolist() == BUFFERS[program]


def test_a_buffer_that_others_look_at_is_refused_until_it_is_alone():
    w = Tensor([3.0, 4.0], requires_grad=True)
    total, mine = tt.zeros(2, 2), np.zeros(2, np.float32)
    rows, shared = [total[0]], tt.from_numpy(mine)
    for write in (
        lambda: rows[0].copy_(w), lambda: total.__setitem__(0, w), lambda: rows[0].add_(w), lambda: shared.copy_(w),
        lambda: tt.zeros(2, dtype=tt.int64).__setitem__(0, w[0]),
    ):
        with pytest.raises((RuntimeError, TypeError), match="recorded|cannot hold"):
            write()
    assert not total.any() and not mine.any()
    rows.clear()
    total[0] = w
    total[:, 1].sum().backward()
    assert total.tolist() == [[3, 4], [0, 0]] and w.grad.tolist() == [0, 1]


def test_a_buffer_with_a_history_is_a_result():
    w, buffer = Tensor([3.0, 4.0], requires_grad=True), tt.zeros(2)
    assert buffer.is_leaf and buffer.grad_fn is None
    buffer[0] = w[1]
    assert buffer.requires_grad and not buffer.is_leaf and buffer.grad_fn is not None and buffer.tolist() == [4, 0]
    buffer[0] = 7.0  # the old number counts no longer
    (buffer.sum() * 2).backward()
    assert w.grad.tolist() == [0, 0]


def test_what_is_not_recorded_may_be_written():
    w = Tensor([3.0, 4.0], requires_grad=True)
    with ta.no_grad():
        w *= 2
        tt.zeros(2).copy_(w)
        w[0] = w[1]
        assert np.concatenate([w, w]).tolist() == [8, 8, 8, 8]
    assert tt.tensor([w.sum(), w.sum()]).tolist() == [16, 16]  # numbers, as in PyTorch


def test_the_slope_of_a_wrong_certainty_is_steep():
    p, t = Tensor([0.0, 1.0], requires_grad=True), Tensor([1.0, 0.0])
    tt.binary_cross_entropy(p, t, reduction="sum").backward()
    assert p.grad.numpy() == pytest.approx([-1e12, 1e12])


def test_grad_refuses_a_path_through_what_a_write_has_made_anew():
    x = tt.tensor([1.5, 4.0], requires_grad=True)
    y = x * 2
    root = tt.sqrt(y)
    y += 1
    for ask in (lambda: ta.grad(root.sum(), x), lambda: ta.grad(root.sum(), x, allow_unused=True)):
        with pytest.raises(RuntimeError, match="sqrt: its input 0, of shape .2,., was changed in place"):
            ask()
    with pytest.raises(RuntimeError, match="sqrt: its input 0"):
        root.sum().backward()
    assert ta.grad(y.sum(), x)[0].tolist() == [2, 2]


def test_the_gradient_of_a_factor_that_float16_cannot_hold():
    x = tt.tensor([0.5, 1e-3], dtype=tt.float16, requires_grad=True)
    (x * 65536.0).backward(tt.tensor([2**-16, 2**-14], dtype=tt.float16))
    assert x.grad.dtype == tt.float16 and x.grad.tolist() == [1, 4]


# A number that was overwritten is not the recorded one. `y += x` would give the record a new start, and the gradient of
# what was overwritten would go on as if it had not been.

OVERWRITES = {
    "fill_": lambda y: y.fill_(300.0),
    "zero_": lambda y: y.zero_(),
    "copy_": lambda y: y.copy_(tt.zeros(2)),
    "data": lambda y: y.data.fill_(3.0),
    "a detached name": lambda y: y.detach().zero_(),
}


@pytest.mark.parametrize("sign", ["+=", "-=", "*=", "/=", "**="])
@pytest.mark.parametrize("overwrite", OVERWRITES.values(), ids=OVERWRITES)
def test_a_result_that_was_overwritten_is_not_changed_in_place(overwrite, sign):
    x = Tensor([2.0, 3.0], requires_grad=True)
    y = x * 3
    overwrite(y)
    before = y.tolist()
    with pytest.raises(RuntimeError, match="changed in place"):
        exec(f"y {sign} x", {"y": y, "x": x})
    assert y.tolist() == before


def test_the_gradient_of_a_power_that_vanishes():
    x = tt.tensor([-0.75, 0.5], dtype=tt.float16).requires_grad_()
    y = tt.tensor(60_000.0, dtype=tt.float16)
    (x**y).backward(tt.tensor([1.5, -1.5], dtype=tt.float16))
    assert x.grad.tolist() == [0, 0]
