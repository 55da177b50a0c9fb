"""What autograd refuses, reports and allows: threads, hooks, stale results, anomalies, rules of one's own."""

import threading

import numpy as np
import pytest

import tt_autograd as ta
import tt_tensor as tt


def leaf(value):
    return tt.Tensor(np.array(value, np.float64), requires_grad=True)


def test_switches_nest_and_decorate():
    @ta.no_grad()
    def inside():
        with ta.enable_grad():
            assert ta.is_grad_enabled()
        return ta.is_grad_enabled()

    assert not inside() and ta.is_grad_enabled()
    x = leaf(1.0)
    with ta.no_grad():
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad and not (x * 2).detach().requires_grad


def test_another_thread_goes_on_recording():
    seen = []
    with ta.no_grad():
        thread = threading.Thread(target=lambda: seen.append((leaf(1.0) * 2).requires_grad))
        thread.start()
        thread.join()
    assert seen == [True]


def test_a_decorated_function_in_two_threads_keeps_their_modes_apart():
    states, (first_is_in, second_is_in, first_is_out) = {}, (threading.Event() for _ in range(3))

    @ta.no_grad()
    def overlap(enters, leaves_after):
        enters.set()
        leaves_after.wait(5)

    def recording():
        overlap(first_is_in, second_is_in)
        states["recording"] = ta.is_grad_enabled()
        first_is_out.set()

    def not_recording():
        first_is_in.wait(5)
        with ta.no_grad():
            overlap(second_is_in, first_is_out)
            states["not recording"] = ta.is_grad_enabled()

    threads = [threading.Thread(target=recording), threading.Thread(target=not_recording)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == {"recording": True, "not recording": False}


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda x: (x * 2).backward(), r"single number.*\(3,\)"),
        (lambda x: x.detach().sum().backward(), "no history"),
        (lambda x: (x * 2).backward(tt.ones(2)), r"\(2,\).*\(3,\)"),
        (lambda x: ta.grad((x * 2).sum(), leaf([1.0])), r"\(1,\).*allow_unused"),
        (lambda x: x.__iadd__(1), r"\(3,\).*in place"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(wrong, words):
    with pytest.raises(RuntimeError, match=words):
        wrong(leaf([1.0, 2.0, 3.0]))


def test_a_second_pass_needs_the_record():
    y = (leaf(2.0) ** 2) * 3
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match=r"second time.*retain_graph=True"):
        y.backward()


def test_a_change_after_the_forward_pass_is_noticed():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    with ta.no_grad():
        x += 1
    with pytest.raises(RuntimeError, match=r"mul.*\(2,\).*version"):
        y.backward()


def test_nan_is_reported_where_it_was_made():
    with ta.detect_anomaly(), pytest.raises(RuntimeError, match=r"sqrt.*\(2,\).*nan"):
        leaf([4.0, -1.0]).sqrt().sum()
    y = (leaf([1.0, 0.0]) ** 0.5 * tt.Tensor([1.0, 0.0])).sum()
    with ta.detect_anomaly(), pytest.raises(RuntimeError, match="nan"):
        y.backward()  # 0 times the infinite slope at 0


def test_hooks_see_and_change_gradients():
    x, seen = leaf([1.0, 2.0]), []
    remove = x.register_hook(lambda g: seen.append(g.tolist()))
    x.register_hook(lambda g: g * 2)
    (x * 3).sum().backward()
    remove()
    (x * 3).sum().backward()
    assert seen == [[3, 3]] and x.grad.tolist() == [12, 12]


def test_results_keep_their_gradient_when_asked_to():
    x = leaf(2.0)
    y, z = x * 3, x * 5
    y.retain_grad()
    (y * z).backward()
    assert y.grad.item() == 10 and z.grad is None


def test_gradients_of_different_leaves_never_share_memory():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (x + y).sum().backward()
    assert not np.shares_memory(x.grad.numpy(), y.grad.numpy())


def test_a_primitive_without_a_rule_says_so():
    @tt.primitive
    def without_rule(x, /):
        return x + 1

    with pytest.raises(NotImplementedError, match=r"without_rule.*rule"):
        without_rule(leaf(1.0))


def test_a_rule_of_your_own():
    @tt.primitive
    def cube(x, /):
        return x * x * x

    ta.rule(cube, lambda g, out, x: g * 3 * x * x)
    ta.check_gradients(cube, leaf([1.0, -2.0]))
    with pytest.raises(ValueError, match=r"cube.*already"):
        ta.rule(cube, lambda g, out, x: g)


def test_check_gradients_finds_a_wrong_rule():
    @tt.primitive
    def wrong(x, /):
        return x * x

    ta.rule(wrong, lambda g, out, x: g * x)
    with pytest.raises(AssertionError, match=r"(?s)order 1.*3.*6"):
        ta.check_gradients(wrong, leaf(3.0))
    with pytest.raises(ValueError, match="float64"):
        ta.check_gradients(wrong, tt.Tensor(3.0, requires_grad=True))


def test_batches_are_cut_from_tensors():
    with pytest.raises(TypeError, match=r"Batches takes tensors, not ndarray and ndarray: use from_numpy\(x\)"):
        ta.Batches(np.zeros((4, 2)), np.zeros(4), 32)


def test_placing_is_undone_in_the_same_layout():
    values = tt.zeros(2, 3, requires_grad=True)
    out = tt.place(values, index=(1, ..., np.array([0, 0])), shape=(2, 3, 2))
    assert ta.grad(out.sum(), values, create_graph=True)[0].shape == (2, 3)
