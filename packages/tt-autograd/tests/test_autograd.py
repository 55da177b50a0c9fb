"""Chapter 07, judged by its public names. Rows of the table and limits of the tape: test_gradients.py, test_tape.py."""

import threading

import numpy as np
import pytest

import tt_autograd as ta
import tt_optim as to
import tt_tensor as tt
from tt_tensor.teaching import expect

TABLE, WALK, USER = "The table", "Walking back", "What the user sees"


def leaf(value):
    return tt.Tensor(np.array(value, np.float64), requires_grad=True)


def gradients(function, *values):
    """The gradients of function(*leaves).sum(), found by backward()."""
    leaves = [leaf(value) for value in values]
    function(*leaves).sum().backward()
    return [x.grad for x in leaves] if len(leaves) > 1 else leaves[0].grad


def test_what_users_of_pytorch_type_first():
    x = tt.Tensor(3.0, requires_grad=True)
    (x**2).backward()
    assert x.grad.item() == 6 and x.grad.shape == () and x.grad.dtype == tt.float32


def test_a_quotient_falls_with_its_denominator():
    expect(
        "gradient of 1 / x at x = 2",
        lambda: gradients(lambda x: 1 / x, 2.0),
        -0.25,
        (0.25, "0.25 should be -0.25: the derivative with respect to the denominator lacks its minus."),
        see=TABLE,
    )
    expect(
        "gradient of x / y at x = 3, y = 2", lambda: gradients(lambda x, y: x / y, 3.0, 2.0), [0.5, -0.75], see=TABLE
    )


def test_gradients_of_a_matrix_product():
    a, b = [[1, 2], [3, 4]], [[5, 6], [7, 8]]
    transpose = "dA = dC @ B^T and dB = A^T @ dC: check the shapes, nothing else fits."
    expect(
        "gradients of (A @ B).sum() for A = [[1, 2], [3, 4]], B = [[5, 6], [7, 8]]",
        lambda: gradients(tt.matmul, a, b),
        [[[11, 15], [11, 15]], [[4, 4], [6, 6]]],
        transpose,
        see=TABLE,
    )
    expect(
        "shapes of the gradients of (2, 3) @ (3, 4)",
        lambda: tuple(g.shape for g in gradients(tt.matmul, np.ones((2, 3)), np.ones((3, 4)))),
        ((2, 3), (3, 4)),
        (Exception, transpose),
        transpose,
        see=TABLE,
    )


def test_a_mean_shares_its_gradient():
    expect(
        "gradient of mean(x) for 12 elements",
        lambda: gradients(tt.mean, np.ones(12)),
        np.full(12, 1 / 12),
        (np.ones(12), "12 times too large: divide by the number of elements."),
        see=TABLE,
    )


def test_equal_maxima_share_the_gradient():
    expect(
        "sum of the gradient of amax([1, 3, 3])",
        lambda: gradients(tt.amax, [1.0, 3.0, 3.0]).sum().item(),
        1,
        (2, "The gradient should sum to 1: equal maxima share it, each taking its part."),
        see="Reductions",
    )


def test_a_value_that_is_used_twice_hears_from_both_uses():
    accumulate = "One use has overwritten the other: accumulate over all uses, += instead of =."
    expect(
        "gradient of x * x + x at x = 2",
        lambda: gradients(lambda x: x * x + x, 2.0),
        5,
        (1, accumulate),
        (2, accumulate),
        (3, accumulate),
        see=WALK,
    )


def test_backward_adds_to_grad():
    x = leaf(1.0)
    for _ in range(2):
        (3 * x).backward()
    expect(
        "x.grad after two times (3 * x).backward()",
        x.grad,
        6,
        (3, "The second pass has overwritten the first: accumulate in .grad, until zero_grad."),
        see=USER,
    )


def test_broadcasting_is_undone():
    expect(
        "shape of the gradient of b in a + b, a (3, 4), b (4,)",
        lambda: gradients(tt.add, np.ones((3, 4)), np.ones(4))[1].shape,
        (4,),
        ((3, 4), "The gradient has the shape of the result, not of b: sum over the broadcast axes."),
        see=TABLE,
    )
    expect(
        "shape of the gradient of b in a * b, a (3, 4), b (3, 1)",
        lambda: gradients(tt.mul, np.ones((3, 4)), np.ones((3, 1)))[1].shape,
        (3, 1),
        ((3, 4), "An axis of size 1 was broadcast, too: sum over it with keepdims."),
        ((3,), "Sum over the axis with keepdims."),
        see=TABLE,
    )
    expect(
        "gradient of b in (a * b).sum(), a = [[1, 2], [3, 4]], b of shape (2, 1)",
        lambda: gradients(tt.mul, [[1, 2], [3, 4]], [[1], [1]])[1],
        [[3], [7]],
        see=TABLE,
    )


def test_a_node_waits_for_all_its_consumers():
    def unequal(x):
        a = x * x
        return a * a * a + a

    expect(
        "gradient of a * a * a + a with a = x * x at x = 2",
        lambda: gradients(unequal, 2.0),
        6 * 2**5 + 2 * 2,
        "A node ran before all its consumers had sent their shares: go in topological order.",
        see=WALK,
    )


def test_a_shared_node_is_visited_once():
    visits = []
    x = leaf(1.0)
    y = x * 1
    y.register_hook(lambda gradient: visits.append(1))
    for _ in range(12):
        y = y * 0.5 + y * 0.5
    y.backward()
    expect(
        "visits of the node at the bottom of 12 diamonds",
        len(visits),
        1,
        (lambda n: n > 1, "Every path was walked, 2^12 of them: mark nodes as visited, and pass each only once."),
        see=WALK,
    )
    expect("gradient through 12 diamonds", x.grad, 1, see=WALK)


def test_a_long_chain_needs_no_recursion():
    def chain(x):
        for _ in range(5000):
            x = x + 1
        return x

    expect(
        "gradient through a chain of 5,000 operations",
        lambda: gradients(chain, 1.0),
        1,
        (RecursionError, "Python allows 1,000 nested calls: use an explicit stack, or a heap, and a loop."),
        see=WALK,
    )


def test_recording_is_on_again_after_an_exception():
    states = []

    def fail_inside():
        try:
            with ta.no_grad():
                raise KeyError
        except KeyError:
            states.append(ta.is_grad_enabled())

    thread = threading.Thread(
        target=fail_inside
    )  # the switch is one for each thread, so a mistake does no harm to the other tests
    thread.start()
    thread.join()
    expect(
        "is_grad_enabled() after an exception inside no_grad()",
        states,
        [True],
        "Tracking stays off: use try/finally, or reset it in `__exit__` in any case.",
        see="Switching it off",
    )


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


def test_grad_leaves_dot_grad_alone():
    x, y = leaf(2.0), leaf(3.0)
    dx, dy = ta.grad(x * x * y, [x, y])
    assert (dx.item(), dy.item()) == (12, 4) and x.grad is None and y.grad is None
    assert ta.grad(x * 2, [x, y], allow_unused=True)[1] is None


def test_a_gradient_can_be_differentiated():
    x = leaf(2.0)
    (first,) = ta.grad(x**3, x, create_graph=True)
    (second,) = ta.grad(first, x, create_graph=True)
    (third,) = ta.grad(second, x)
    expect(
        "first, second and third derivative of x ** 3 at 2",
        [first.item(), second.item(), third.item()],
        [12, 12, 6],
        see=USER,
    )


def test_weights_for_an_output_of_several_elements():
    x = leaf([1.0, 2.0])
    (x * x).backward(tt.Tensor([1, 10]))
    assert x.grad.tolist() == [2, 40]


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


def test_gradients_by_hand_are_those_of_the_table():
    by_hand, x, wanted = to.xor_case()
    to.xor_gradients_by_hand(by_hand, x, wanted)
    network, x, wanted = to.xor_case()
    tt.binary_cross_entropy_with_logits(network(x), wanted).backward()
    for (name, ours), theirs in zip(network.named_parameters(), by_hand.parameters()):
        expect(
            f"gradient of {name} in chapter 06's saved case", ours.grad, theirs.grad, see="The witness", tolerance=1e-9
        )


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


def test_exercises():
    matrix = tt.Tensor(np.arange(6.0).reshape(2, 3))
    expect(
        "jacobian of v -> A @ v",
        lambda: ta.jacobian(lambda v: matrix @ v, leaf([1.0, 1.0, 1.0])),
        matrix,
        see="Exercises",
    )
    product = ta.hessian_vector_product(
        lambda v: (v**3).sum(), leaf([1.0, 2.0, 3.0]), tt.Tensor(np.array([1.0, 0.0, 2.0]))
    )
    expect(
        "hessian_vector_product of the sum of cubes at [1, 2, 3], with [1, 0, 2]", product, [6, 0, 36], see="Exercises"
    )
    ta.check_gradients(ta.softsign, leaf([-2.0, -0.5, 0.3, 4.0]))
