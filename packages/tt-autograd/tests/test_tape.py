"""The record and the walk back: depth, width, memory, writes in between, threads, hooks, and second derivatives."""

import copy
import gc
import pickle
import sys
import threading
import time
import tracemalloc
import weakref

import numpy as np
import pytest

import tt_autograd
import tt_tensor as tt
from tt_autograd import enable_grad, grad, is_grad_enabled, no_grad
from tt_tensor import Tensor


def leaf(*values, dtype=np.float64):
    return Tensor(np.array(values if len(values) != 1 else values[0], dtype), requires_grad=True)


def network():
    return tt.Sequential(tt.Linear(784, 256), tt.ReLU(), tt.Linear(256, 128), tt.Tanh(), tt.Linear(128, 10))


def train(model, steps, batch=64):
    x, labels = tt.randn(batch, 784), tt.randint(0, 10, (batch,))
    for _ in range(steps):
        model.zero_grad()
        tt.cross_entropy(model(x), labels).backward()
        for parameter in model.parameters():
            parameter.data -= 0.01 * parameter.grad


@pytest.fixture
def no_collector():
    """The cycle collector off, and nothing left for it to find from before."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# Depth and width


def test_a_chain_of_20000_operations_forward_backward_and_freed():
    limit, x = sys.getrecursionlimit(), leaf(1.0)
    y = x
    for _ in range(10_000):
        y = y * 1.0001 + 0.0001
    alive = weakref.ref(y)
    y.backward()
    assert x.grad.item() == pytest.approx(1.0001**10_000, rel=1e-9) and sys.getrecursionlimit() == limit
    del y
    assert alive() is None


def test_a_chain_of_20000_operations_that_nobody_walked_is_freed_too():
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y + 1.0
    alive = weakref.ref(y)
    del y
    assert alive() is None


@pytest.mark.parametrize("walk", ["grad", "create_graph", "under a meter", "graph"])
def test_no_walk_recurses(walk):
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y * 1.0
    if walk == "grad":
        assert grad(y, x)[0].item() == 1.0
    elif walk == "create_graph":
        (first,) = grad(y, x, create_graph=True)
        assert first.item() == 1.0
    elif walk == "under a meter":
        with tt.meter():
            y.backward()
        assert x.grad.item() == 1.0
    else:
        assert tt_autograd.graph(y).count("-->") == 40_000


def stacked_diamonds(count):
    """A graph in which the number of paths doubles at every step."""
    x = leaf(1.0)
    y = x
    for _ in range(count):
        y = y * 0.5 + y * 0.5
    return x, y


def seconds_for_diamonds(count):
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        x, y = stacked_diamonds(count)
        y.backward()
        best = min(best, time.perf_counter() - start)
        assert x.grad.item() == pytest.approx(1.0)
    return best


def test_sixty_diamonds_cost_twice_as_much_as_thirty():
    thirty, sixty = seconds_for_diamonds(30), seconds_for_diamonds(60)
    assert sixty < 1.0 and sixty < 6 * thirty + 0.01, f"{thirty:.4f} s for 30, {sixty:.4f} s for 60"


def test_a_value_used_at_two_depths_waits_for_both():
    x = leaf(2.0)
    a = x * x
    y = a.exp() * a + a
    y.backward()
    e = np.exp(4.0)
    assert x.grad.item() == pytest.approx((e * 4 + e + 1) * 4)


def test_wide_fan_out_adds_up():
    x = leaf(3.0)
    total = x * 0
    for i in range(500):
        total = total + x * float(i)
    total.backward()
    assert x.grad.item() == sum(range(500))


# Memory


def test_sixty_training_steps_without_the_collector_keep_little(no_collector):
    model = network()
    train(model, 2)
    tracemalloc.start()
    train(model, 60)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 8e6 and peak < 8e6, f"{kept / 1e6:.1f} MB kept, {peak / 1e6:.1f} MB at most"


def fail(y):
    with pytest.raises(RuntimeError):
        grad(y, leaf(1.0))


@pytest.mark.parametrize(
    "finish",
    [
        lambda y, x: y.backward(),
        lambda y, x: y.backward(retain_graph=True),
        lambda y, x: grad(y, x, retain_graph=True),
        lambda y, x: grad(grad(y, x, create_graph=True)[0].sum(), x),
        lambda y, x: None,
        lambda y, x: (y.register_hook(lambda g: g * 2), y.backward()),
        lambda y, x: (y.retain_grad(), y.backward()),
        lambda y, x: fail(y),
    ],
    ids=["backward", "retained", "grad", "second order", "never walked", "hook", "retain_grad", "failed"],
)
def test_no_cycles_are_left_behind(finish, no_collector):
    def once():
        x = leaf(1.0, 2.0)
        middle = x * x
        y = (tt.softmax(middle, dim=0) * middle.exp()).sum()
        finish(y, x)
        return [weakref.ref(t) for t in (x, middle, y)]

    once()
    gc.collect()
    refs = once()
    assert [r() for r in refs] == [None] * 3 and gc.collect() == 0


def test_the_record_is_freed_while_the_walk_goes_on():
    x = leaf(np.ones(10))
    early = x * 2
    later = early.exp()
    alive = []
    early.register_hook(lambda g: alive.append(latest_ref() is not None))
    latest = later * later
    latest_ref, y = weakref.ref(latest), latest.sum()
    del early, later, latest
    y.backward()
    assert alive == [False]


def test_a_tensor_without_gradient_records_nothing():
    x = tt.ones(3)
    y = (x * 2).exp()
    ref = weakref.ref(x)
    del x
    assert ref() is None and not y.requires_grad and type(y) is Tensor


# In-place changes between forward and backward: an error that names things, or the right gradient; never a wrong one.

CHANGES = {
    "x[0] = ...": lambda x: x.__setitem__(0, 9.0),
    "x += ...": lambda x: x.__iadd__(1.0),
    "x.data -= ...": lambda x: x.data.__isub__(1.0),
    "x.data = ...": lambda x: setattr(x, "data", x.data * 3),
    "x.copy_": lambda x: x.copy_(tt.full(x.shape, 7.0)),
    "x.zero_": lambda x: x.zero_(),
    "writable()": lambda x: np.multiply(x.writable(), 5, out=x.writable()),
    "a view": lambda x: x.detach()[1:].fill_(4.0),
    "a reshaped view": lambda x: x.reshape(3, 1).data.fill_(4.0),
    "an initialiser": lambda x: tt.uniform_(x),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("what", ["input", "other input", "result", "deep inside"])
def test_a_change_after_the_forward_pass_is_noticed(change, what):
    x, w = leaf(1.0, 2.0, 3.0), leaf(0.5, -0.5, 1.5)
    product = x * w
    result = product.exp()
    loss = (result * 1.0 + 0.0).sum()
    with no_grad():
        change({"input": x, "other input": w, "result": result, "deep inside": product}[what])
    with pytest.raises(
        RuntimeError, match=r"(mul|exp).*shape \(3,\).*in place after the forward pass.*version \d+.*version \d+"
    ):
        loss.backward()


def test_an_optimizer_step_between_forward_and_backward_is_noticed():
    from tt_optim import SGD, Adam

    for make in (lambda p: SGD(p, lr=0.1), lambda p: SGD(p, lr=0.1, momentum=0.9), lambda p: Adam(p)):
        model, x = tt.Sequential(tt.Linear(3, 3), tt.Tanh(), tt.Linear(3, 1)), tt.randn(4, 3)
        optimizer = make(model.parameters())
        first, second = model(x).sum(), (model(x) ** 2).sum()
        first.backward()
        optimizer.step()
        with pytest.raises(RuntimeError, match="in place after the forward pass"):
            second.backward()


def test_loading_a_state_between_forward_and_backward_is_noticed():
    model = tt.Linear(2, 1)
    loss = (model(tt.ones(1, 2)) ** 2).sum()
    model.load_state_dict({"weight": np.ones((1, 2)), "bias": np.ones(1)})
    with pytest.raises(RuntimeError, match="in place"):
        loss.backward()


def test_changing_an_index_a_mask_or_labels_afterwards_does_not_change_the_gradient():
    def gradients(spoil):
        x = leaf(np.arange(6.0).reshape(2, 3))
        mask, index, where = (
            np.array([[True, False, True], [False, True, True]]),
            np.array([0, 2]),
            tt.tensor([[2], [0]]),
        )
        labels = tt.tensor([1, 2])
        loss = (
            (x[mask] ** 2).sum()
            + x[:, index].exp().sum()
            + (x.gather(1, where) * 3).sum()
            + tt.cross_entropy(x, labels)
        )
        if spoil:
            mask[:], index[:] = False, 1
            where.fill_(1), labels.zero_()
        return grad(loss, x)[0].numpy()

    np.testing.assert_array_equal(gradients(True), gradients(False))


def test_a_mask_tensor_that_changes_is_an_error_or_does_not_matter():
    x, mask = leaf(1.0, 2.0), tt.tensor([True, False])
    y = tt.where(mask, x * 2, x * 3).sum()
    mask.fill_(True)
    with pytest.raises(RuntimeError, match=r"choose.*in place"):
        y.backward()


def test_changes_before_the_forward_pass_or_of_something_else_are_fine():
    x, other = leaf(1.0, 2.0), leaf(1.0, 2.0)
    with no_grad():
        x += 1
    y = (x * x).sum()
    other.data.zero_()
    y.backward()
    assert x.grad.tolist() == [4.0, 6.0]


def test_changing_a_clone_is_fine():
    x = leaf(1.0, 2.0)
    y = x * x
    y.detach().clone().zero_()
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 4.0]


def test_recording_tensors_refuse_to_change_in_place():
    x = leaf(1.0, 2.0)
    for change in (lambda: x.__iadd__(1), lambda: x.__setitem__(0, 1.0), lambda: x.detach().__setitem__(0, x[0])):
        with pytest.raises(RuntimeError, match="no_grad"):
            change()
    assert x.tolist() == [1.0, 2.0]


def test_augmented_assignment_of_a_result_changes_it_under_all_its_names():
    x = leaf(2.0)
    y = before = x * 3
    y += x
    y *= y
    y.backward()
    assert before.item() == 64.0 and x.grad.item() == 2 * 8 * 4


# Switching off


def test_no_grad_and_enable_grad_nest_and_come_back_after_errors():
    assert is_grad_enabled()
    with no_grad():
        assert not is_grad_enabled() and not (leaf(1.0) * 2).requires_grad
        with enable_grad():
            assert (leaf(1.0) * 2).requires_grad
        with pytest.raises(ZeroDivisionError), no_grad():
            1 / 0
        assert not is_grad_enabled()
    with pytest.raises(ZeroDivisionError), no_grad():
        1 / 0
    assert is_grad_enabled() and (leaf(1.0) * 2).requires_grad


def test_no_grad_as_a_decorator_of_a_function_that_calls_itself():
    @no_grad()
    def countdown(n):
        if n == 0:
            raise ValueError
        assert not is_grad_enabled()
        try:
            countdown(n - 1)
        finally:
            assert not is_grad_enabled()

    with pytest.raises(ValueError):
        countdown(3)
    assert is_grad_enabled()


def test_backward_works_within_no_grad_and_restores_the_mode():
    x = leaf(3.0)
    y = x * x
    with no_grad():
        y.backward()
        assert not is_grad_enabled()
    assert x.grad.item() == 6.0 and not x.grad.requires_grad


def in_thread(function):
    result = []

    def run():
        try:
            result.append(function())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, result


def test_no_grad_concerns_one_thread():
    with no_grad():
        thread, result = in_thread(lambda: (is_grad_enabled(), (leaf(1.0) * 2).requires_grad))
        thread.join()
    assert result == [(True, True)]


def test_one_decorated_function_on_two_threads_leaves_both_modes_alone():
    entered, leave = threading.Event(), threading.Event()

    @no_grad()
    def evaluate(slow):
        if slow:
            entered.set()
            leave.wait(5)

    def outer():
        evaluate(True)
        return is_grad_enabled()

    thread, result = in_thread(outer)
    entered.wait(5)
    with no_grad():
        thread2, result2 = in_thread(lambda: None)
        thread2.join()
        other, modes = in_thread(_within_no_grad(evaluate, leave, thread))
        other.join()
    thread.join()
    assert result == [True] and modes == [False] and result2 == [None] and is_grad_enabled()


def _within_no_grad(evaluate, leave, first):
    def run():
        with no_grad():  # this thread's mode is off, the first thread's was on
            entered_and_left = threading.Event()

            @no_grad()
            def nested():
                evaluate(False)
                leave.set()
                first.join()
                entered_and_left.set()

            nested()
            return is_grad_enabled()

    return run


def test_one_decorator_shared_by_overlapping_threads():
    """Both threads are inside the same decorated function when the first leaves; each must get its own mode back."""
    a_in, b_in, a_out = threading.Event(), threading.Event(), threading.Event()

    @no_grad()
    def shared(inside, wait):
        inside.set()
        wait.wait(5)

    def first():
        shared(a_in, b_in)
        mode = is_grad_enabled()
        a_out.set()
        return mode

    def second():
        a_in.wait(5)
        with no_grad():
            shared(b_in, a_out)
            return is_grad_enabled()

    (one, mode_one), (two, mode_two) = in_thread(first), in_thread(second)
    one.join(), two.join()
    assert mode_one == [True] and mode_two == [False]


def test_threads_train_at_the_same_time():
    def run(seed):
        random = np.random.default_rng(seed)
        weight = leaf(random.standard_normal((4, 4)))
        x = Tensor(random.standard_normal((8, 4)))
        for _ in range(30):
            weight.grad = None
            (tt.tanh(x @ weight) ** 2).mean().backward()
            weight.data -= 0.5 * weight.grad
        return weight.numpy().copy()

    alone = [run(seed) for seed in range(4)]
    threads = [in_thread(lambda seed=seed: run(seed)) for seed in range(4)]
    for thread, _ in threads:
        thread.join()
    for expected, (_, [found]) in zip(alone, threads):
        np.testing.assert_array_equal(found, expected)


# Gradients are nobody else's memory


PAIRS = {
    "add": lambda a, b: a + b,
    "views": lambda a, b: a.reshape(3) + b.T.T if b.ndim == 2 else a.reshape(3) + b.reshape(3),
    "cat": lambda a, b: tt.cat([a, b]),
    "where": lambda a, b: tt.where([True, False, True], a, b),
    "expand": lambda a, b: a.expand(2, 3) + b.expand(2, 3),
    "sub": lambda a, b: a - b,
}


@pytest.mark.parametrize("walk", ["backward", "create_graph", "under a meter", "grad", "gradient given"])
@pytest.mark.parametrize("combine", PAIRS.values(), ids=PAIRS)
def test_gradients_of_different_leaves_never_share_memory(combine, walk):
    a, b = leaf(1.0, 2.0, 3.0), leaf(4.0, 5.0, 6.0)
    out = combine(a, b)
    seed = tt.ones_like(out)
    if walk == "grad":
        gradients = grad(out.sum(), [a, b])
    else:
        if walk == "under a meter":
            with tt.meter():
                out.sum().backward()
        elif walk == "gradient given":
            out.backward(seed)
        else:
            out.sum().backward(create_graph=walk == "create_graph")
        gradients = [a.grad, b.grad]
    one, other = (g.numpy() for g in gradients)
    assert gradients[0] is not gradients[1] and not np.shares_memory(one, other)
    for memory in (a.numpy(), b.numpy(), out.numpy(), seed.numpy()):
        assert not np.shares_memory(one, memory) and not np.shares_memory(other, memory)
    before = other.copy()
    gradients[0].data.zero_()
    np.testing.assert_array_equal(other, before)


def test_a_given_gradient_is_not_kept():
    x, seed = leaf(1.0, 2.0), Tensor(np.ones(2))
    (x + 0).backward(seed)
    x.grad.zero_()
    assert seed.tolist() == [1.0, 1.0]


def test_every_gradient_has_the_dtype_and_shape_of_its_leaf():
    x, y = Tensor(np.ones((3, 1)), requires_grad=True), Tensor(np.ones(4, np.float32), requires_grad=True)
    (x * y).sum().backward()
    assert (x.grad.shape, x.grad.dtype, y.grad.shape, y.grad.dtype) == ((3, 1), tt.float64, (4,), tt.float32)


# Backward: what it fills, what it refuses


def test_gradients_accumulate_until_they_are_cleared():
    x = leaf(2.0)
    for expected in (4.0, 8.0, 12.0):
        (x * x).backward()
        assert x.grad.item() == expected
    x.grad = None
    (x * x).backward()
    assert x.grad.item() == 4.0


def test_one_tensor_as_both_operands():
    x = leaf(3.0)
    (x * x + x / x + (x - x) + x**x).backward()
    assert x.grad.item() == pytest.approx(6 + 27 * (1 + np.log(3)))


def test_only_leaves_keep_gradients_unless_asked():
    x = leaf(2.0)
    middle, asked = x * 2, x * 3
    asked.retain_grad()
    (middle * asked).backward()
    assert middle.grad is None and asked.grad.item() == 4.0 and x.grad.item() == 24.0
    assert x.is_leaf and not middle.is_leaf and tt.ones(2).is_leaf and (tt.ones(2) * 2).is_leaf


def test_backward_twice_needs_retain_graph():
    x = leaf(3.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 12.0
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()
    shared = x * 2
    first, second = shared * 3, shared * 5
    first.backward()
    with pytest.raises(RuntimeError, match="second time through mul"):
        second.backward()


def test_grad_through_a_freed_record_is_an_error_and_not_none():
    x = leaf(3.0)
    shared = x * x
    first, second = shared * 2, shared.exp()
    first.backward()
    with pytest.raises(RuntimeError, match="second time"):
        grad(second, x, allow_unused=True)


def test_backward_starts_from_a_single_number_or_a_gradient():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"shape \(2,\).*gradient="):
        (x * x).backward()
    with pytest.raises(RuntimeError, match=r"\(3,\).*\(2,\)"):
        (x * x).backward(tt.ones(3))
    (x * x).backward([1.0, 10.0])
    assert x.grad.tolist() == [2.0, 40.0]
    one = leaf(np.ones((1, 1)))
    (one * 5).backward()
    assert one.grad.tolist() == [[5.0]]


def test_backward_without_history_says_what_is_missing():
    for tensor in (tt.ones(1), leaf(1.0), leaf(1.0).detach() * 2, (leaf(1.0) > 0)):
        with pytest.raises(RuntimeError, match="no history"):
            tensor.backward()
    with no_grad():
        y = leaf(1.0) * 2
    with pytest.raises(RuntimeError, match="no_grad"):
        y.backward()


def test_integers_and_comparisons_have_no_history():
    x = leaf(1.5, -0.5)
    for result in (x > 0, x.argmax(), x.long(), tt.isnan(x), x.sort().indices):
        assert not result.requires_grad
    assert x.sort().values.requires_grad and (x * (x > 0)).requires_grad


def test_detach_clone_and_data():
    x = leaf(2.0)
    assert not x.detach().requires_grad and not x.data.requires_grad and x.clone().requires_grad
    (x * x.detach() + x.clone() * x.data).backward()
    assert x.grad.item() == 4.0


def test_frozen_inputs_get_nothing_and_cost_nothing():
    x, frozen = leaf(2.0), leaf(3.0).requires_grad_(False)
    (x * frozen).backward()
    assert x.grad.item() == 3.0 and frozen.grad is None


def test_results_cannot_be_told_to_forget():
    y = leaf(2.0) * 3
    with pytest.raises(RuntimeError, match="detach"):
        y.requires_grad_(False)
    assert y.requires_grad_() is y


def test_copies_and_pickles_of_leaves_work_and_of_results_explain():
    x = leaf(1.0, 2.0)
    for twin in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert twin.tolist() == [1.0, 2.0] and twin.requires_grad and not np.shares_memory(twin.numpy(), x.numpy())
    with pytest.raises(RuntimeError, match=r"mul.*detach"):
        copy.deepcopy(x * 2)


# grad()


def test_grad_returns_gradients_and_leaves_grad_alone():
    x, y = leaf(2.0), leaf(3.0)
    middle = x * y
    gradients = grad(middle * middle, [x, y, middle])
    assert [g.item() for g in gradients] == [36.0, 24.0, 12.0] and x.grad is None and y.grad is None


def test_grad_of_several_outputs_with_weights():
    x = leaf(1.0, 2.0)
    (g,) = grad([x * 2, x * x], [x], grad_outputs=[tt.ones(2), Tensor([1.0, 10.0])])
    assert g.tolist() == [4.0, 42.0]
    assert grad(x.sum(), x)[0].tolist() == [1.0, 1.0]


def test_grad_of_a_tensor_with_respect_to_itself():
    x = leaf(2.0)
    y = x * 3
    assert grad(y, y, retain_graph=True)[0].item() == 1.0 and grad([y, y], x)[0].item() == 6.0


def test_unused_inputs_are_named_unless_allowed():
    x, unused = leaf(1.0), leaf([1.0, 2.0])
    with pytest.raises(RuntimeError, match=r"input 1.*\(2,\).*allow_unused"):
        grad(x * 2, [x, unused])
    assert grad(x * 2, [x, unused], allow_unused=True)[1] is None


def test_derivatives_of_derivatives():
    x = leaf(2.0)
    value = x**5
    for expected in (5 * 16, 20 * 8, 60 * 4, 120 * 2, 120):
        (value,) = grad(value, x, create_graph=True)
        assert value.item() == pytest.approx(expected)
    x = leaf(0.5)
    (first,) = grad(tt.sin(x), x, create_graph=True)
    first.backward()
    assert x.grad.item() == pytest.approx(-np.sin(0.5))


def test_a_gradient_penalty_reaches_the_weights():
    weight, x = leaf(np.ones((2, 2)) * 0.3), leaf(np.array([[1.0, -2.0]]))
    (g,) = grad(tt.tanh(x @ weight).sum(), x, create_graph=True)
    penalty = (g * g).sum()
    (found,) = grad(penalty, weight)
    expected = np.zeros((2, 2))
    for place in np.ndindex(2, 2):
        around = []
        for moved in (1e-6, -1e-6):
            w = np.ones((2, 2)) * 0.3
            w[place] += moved
            y = np.tanh(x.numpy() @ w)
            around.append((((1 - y * y) @ w.T) ** 2).sum())
        expected[place] = (around[0] - around[1]) / 2e-6
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_without_create_graph_gradients_have_no_history():
    x = leaf(2.0)
    assert not grad(x**3, x)[0].requires_grad and grad(x**3, x, create_graph=True)[0].requires_grad


# Hooks


def test_hooks_see_and_replace_gradients():
    x, seen = leaf(2.0), []
    middle = x * 3
    middle.register_hook(lambda g: seen.append(g.item()))
    middle.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: g + 1)
    (middle * middle).backward()
    assert seen == [12.0] and x.grad.item() == 12 * 10 * 3 + 1


def test_a_hook_sees_the_whole_gradient_once():
    x, seen = leaf(2.0), []
    middle = x * 1.0
    middle.register_hook(lambda g: seen.append(g.item()))
    (middle * 2 + middle * 3).backward()
    assert seen == [5.0]


def test_hooks_can_be_taken_off():
    x = leaf(2.0)
    remove = x.register_hook(lambda g: g * 100)
    remove()
    (x * 3).backward()
    assert x.grad.item() == 3.0


def test_one_hook_for_two_leaves_does_not_join_their_memory():
    a, b, shared = leaf(1.0, 1.0), leaf(1.0, 1.0), Tensor(np.ones(2))
    for x in (a, b):
        x.register_hook(lambda g: shared)
    (a * b).sum().backward()
    a.grad.zero_()
    assert b.grad.tolist() == [1.0, 1.0] and shared.tolist() == [1.0, 1.0]


def test_an_error_in_a_hook_leaves_the_mode_and_the_door_as_they_were():
    x = leaf(2.0)
    x.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        (x * 3).backward()
    assert is_grad_enabled() and not tt.listening() and x.grad is None


# The walk passes through the door


def test_the_meter_counts_backward_as_well():
    x, weight = tt.randn(5, 4), tt.randn(3, 4, requires_grad=True)
    with tt.meter() as forward:
        loss = tt.linear(x, weight, tt.zeros(3)).sum()
    with tt.meter() as back:
        loss.backward()
    assert forward.multiply_adds["affine"] == 5 * 4 * 3
    assert back.multiply_adds["matmul"] == 5 * 4 * 3, "one product for the weight, none for x, which needs no gradient"
    counted = weight.grad.tolist()
    weight.grad = None
    tt.linear(x, weight, tt.zeros(3)).sum().backward()
    np.testing.assert_allclose(weight.grad.numpy(), counted, rtol=1e-6)


def test_faster_kernels_serve_the_backward_pass_too():
    from tt_tensor import loops, use_kernels

    def gradient():
        x = leaf(np.linspace(-1, 1, 6).reshape(2, 3))
        (tt.log_softmax(tt.gelu(x @ x.T), dim=1)[:, 0] * x.sum(1)).sum().backward()
        return x.grad.numpy()

    expected = gradient()
    with use_kernels(loops):
        np.testing.assert_allclose(gradient(), expected, rtol=1e-12)


def test_importing_autograd_changes_no_results_of_tensors_without_gradients():
    assert type(tt.ones(2) + 1) is Tensor and repr(tt.ones(1)) == "tensor([1.])"
    assert repr(leaf(1.0, dtype=np.float32) * 2) == "tensor(2., grad_fn=<MulBackward0>)"


# Rules that are watched


def counted(calls):
    """A wrap for rules: each call of one is noted in `calls`."""

    def wrap(rule):
        assert callable(rule)

        def wrapped(*arguments, **params):
            calls.append(type(arguments[0]))
            return rule(*arguments, **params)

        return wrapped

    return wrap


def test_each_rule_of_a_node_is_wrapped():
    x, y, calls = leaf(2.0, 3.0), leaf(5.0, 7.0), []
    product = x * y
    product.wrap_rules(counted(calls))
    assert calls == []
    product.sum().backward()
    assert x.grad.tolist() == [5, 7] and y.grad.tolist() == [2, 3]
    assert calls == [np.ndarray, np.ndarray], "a rule for each of the two factors, on arrays"


def test_an_input_without_a_rule_stays_without():
    x, calls = leaf(2.0, 3.0, 1.0), []
    chosen = tt.choose(Tensor(np.array([True, False, True])), x, x * 2)
    chosen.wrap_rules(counted(calls))
    chosen.sum().backward()
    assert x.grad.tolist() == [1, 2, 1] and len(calls) == 2


def test_a_joint_rule_is_wrapped_as_one():
    parts, calls = [leaf([1.0]), leaf([2.0, 3.0])], []
    joined = tt.concat(*parts)
    joined.wrap_rules(counted(calls))
    (joined * Tensor(np.array([1.0, 2.0, 3.0]))).sum().backward()
    assert [p.grad.tolist() for p in parts] == [[1], [2, 3]] and calls == [list], "the first argument says who needs it"


def test_rules_are_wrapped_again_and_survive_what_is_done_in_place():
    x, calls = leaf(2.0), []
    y = x * 3
    for _ in range(2):
        y.wrap_rules(counted(calls))
    y += 1
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 6 and len(calls) == 4


# Anomalies and pictures


def test_detect_anomaly_names_the_operation_that_made_a_nan():
    with tt_autograd.detect_anomaly(), pytest.raises(RuntimeError, match=r"log of shape \(2,\).*nan"):
        leaf(1.0, -1.0).log()
    with tt_autograd.detect_anomaly():
        leaf(float("nan"), 1.0).exp().sum()
    assert np.isnan(leaf(-1.0).log().item()) and not tt.listening()


def test_detect_anomaly_watches_the_backward_pass():
    x = leaf(0.0, 1.0)
    with tt_autograd.detect_anomaly():
        loss = (x.sqrt() * Tensor(np.array([0.0, 1.0]))).sum()
        with pytest.raises(RuntimeError, match=r"mul.*nan"):
            loss.backward()


def test_graph_draws_every_node_and_arrow_once():
    x, y = leaf(1.0), leaf([1.0, 2.0])
    z = x * y
    text = tt_autograd.graph((z + z).sum())
    assert text.startswith("flowchart") and text.count("-->") == 5 and text.count("leaf") == 2
    assert 'mul (2)"' in text and 'sum (number)"' in text and text.count("add") == 1


def test_one_hook_registered_twice_is_taken_off_once():
    x, seen = leaf(1.0), []
    hook = lambda g: seen.append(g.item())
    first, second = x.register_hook(hook), x.register_hook(hook)
    first(), first()
    (x * 2).backward()
    assert seen == [2.0]
    second()
    (x * 2).backward()
    assert seen == [2.0]


@pytest.mark.parametrize(
    "answer, error, words",
    [
        (lambda g: Tensor(np.ones(1)), RuntimeError, r"\(2,\).*\(1,\)"),
        (lambda g: g.sum(), RuntimeError, r"\(2,\).*\(\)"),
        (lambda g: g.float(), RuntimeError, "float64.*float32"),
        (lambda g: g.numpy(), TypeError, "ndarray"),
        (lambda g: 0, TypeError, "int"),
    ],
)
def test_a_hook_answers_with_a_gradient_of_the_same_kind(answer, error, words):
    for of_result in (False, True):
        x = leaf(1.0, 2.0)
        y = x * 3
        (y if of_result else x).register_hook(answer)
        with pytest.raises(error, match=words):
            y.sum().backward()


def test_as_many_weights_as_outputs():
    x = leaf(1.0)
    for weights in ([tt.ones(())], [tt.ones(())] * 3, []):
        with pytest.raises(RuntimeError, match=f"2 outputs and {len(weights)} grad_outputs"):
            grad([x * 2, x * 3], [x], weights)
    assert grad([x * 2, x * 3], [x], [None, tt.full((), 2.0)])[0].item() == 8.0
    for wrong in (lambda: grad(x * 2, [3]), lambda: grad(5, x), lambda: grad(x * 2, "x")):
        with pytest.raises(TypeError, match="tensor"):
            wrong()


def test_threads_add_to_one_leaf_without_losing_anything():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        x = tt.zeros(50, requires_grad=True)
        walk = lambda: [(x * 1.0).sum().backward() for _ in range(400)]
        threads = [threading.Thread(target=walk) for _ in range(4)]
        [t.start() for t in threads], [t.join() for t in threads]
        assert x.grad.tolist() == [1600.0] * 50
    finally:
        sys.setswitchinterval(before)


def test_messages_about_results_speak_of_tensors():
    y = leaf(1.0) * 2
    for wrong in (lambda: y.backward(graph=True), lambda: y.retain_grad(1), lambda: y << 1):
        with pytest.raises(TypeError) as error:
            wrong()
        assert "Tensor" in str(error.value) and "Traced" not in str(error.value)


def test_asking_for_a_gradient_by_assignment():
    x = tt.ones(2)
    x.requires_grad = True
    (x * 3).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]
    x.requires_grad = False
    assert not (x * 3).requires_grad
    for wrong in (tt.tensor([1, 2]), tt.tensor([True])):
        with pytest.raises(RuntimeError, match="only floating-point"):
            wrong.requires_grad = True
        wrong.requires_grad = False
    with pytest.raises(RuntimeError, match="cannot forget"):
        (leaf(1.0) * 2).requires_grad = False
