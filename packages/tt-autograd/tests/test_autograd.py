"""Chapter 07, judged by its public names. Rows of the table and limits of the tape: test_gradients.py, test_tape.py,
and what is refused or allowed beyond the exercises: test_limits.py."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tt_autograd as ta
import tt_optim as to
import tt_tensor as tt
from tt_tensor.teaching import expect

TABLE, WALK, USER, SWITCH = "The table", "Walking back", "What the user sees", "Switching it off"
SMALLEST, COST = "The smallest thing that could work", "The cost"


def leaf(value):
    return tt.Tensor(np.array(value, np.float64), requires_grad=True)


def gradients(function, *values):
    """The gradients of function(*leaves).sum(), found by backward()."""
    leaves = [leaf(value) for value in values]
    function(*leaves).sum().backward()
    return [x.grad for x in leaves] if len(leaves) > 1 else leaves[0].grad


def values(shape):
    return np.sin(np.arange(np.prod(shape)) + 0.5).reshape(shape)


def numeric(function, x):
    """The gradient of function(x).sum() by central differences."""
    steps = (1e-6 * np.eye(x.size)).reshape(-1, *x.shape)
    return np.reshape([(function(x + s).sum() - function(x - s).sum()) / 2e-6 for s in steps], x.shape)


def apart(call):
    """The result of a call on a thread of its own, where a switch that is left in the wrong place harms nobody else."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def test_a_value_hears_from_its_uses():
    def of_backward():
        x, y = ta.autograd.Value(3.0), ta.autograd.Value(4.0)
        result = x * y * ta.autograd.Value(10.0) + x
        result.backward(2.0)
        return x.gradient, y.gradient, result.gradient

    expect(
        "gradients of x, y and the result, after (x * y * 10 + x).backward(2) at x = 3, y = 4",
        of_backward,
        (82.0, 60.0, 2.0),
        (lambda found: found[0] == 2, "One use has overwritten the other: add to the gradient, += instead of =."),
        (lambda found: found[:2] == (5, 3), "An input gets g times its slope: without g, only the last step counts."),
        (lambda found: found[2] == 0, "What arrives belongs to this number as well: add it to its own gradient."),
        (lambda found: found[:2] == (0, 0), "The inputs have heard nothing: each has a `backward` of its own."),
        see=SMALLEST,
    )


def test_only_what_depends_on_a_leaf_is_recorded():
    x, y = leaf(1.0), tt.Tensor(2.0)
    expect(
        "do x * x, x * y, y * x, y * y and (x * y).detach() require a gradient, if x does and y does not?",
        lambda: [z.requires_grad for z in (x * x, x * y, y * x, y * y, (x * y).detach())],
        [True, True, True, False, False],
        ([False] * 5, "Nothing was recorded: a result with an input that requires a gradient has to be remembered."),
        (lambda seen: not all(seen[:3]), "One is enough: a result is remembered if any input requires a gradient."),
        (lambda seen: seen[3], "A result that depends on no tensor that requires a gradient needs no history."),
        see="The record",
    )


def test_switching_off_and_on():
    def states():
        seen, x = [], leaf(1.0)
        with ta.no_grad():
            seen.append((x * 2).requires_grad)
            with ta.enable_grad():
                seen.append((x * 2).requires_grad)
            seen.append((x * 2).requires_grad)
            with ta.no_grad():
                pass
            seen.append((x * 2).requires_grad)
        seen.append((x * 2).requires_grad)
        return seen

    expect(
        "is x * 2 recorded: in no_grad, in enable_grad inside, behind that, behind another no_grad, behind it all?",
        lambda: apart(states),
        [False, True, False, False, True],
        ([True] * 5, "no_grad has no effect: it sets the switch, and the recorder looks at it."),
        (lambda seen: not seen[1], "enable_grad is no_grad with another `_to`: set the switch to that."),
        (lambda seen: not seen[4], "Leaving the outer block has left it off: go back to what was before."),
        (lambda seen: seen[2] or seen[3], "Leaving an inner block has switched on: go back to what was before."),
        (IndexError, "There is nothing on the pile: on entering, put the state that was before there."),
        see=SWITCH,
    )


def test_recording_is_on_again_after_an_exception():
    def after_failing():
        came_out = False
        try:
            with ta.no_grad():
                raise KeyError
        except KeyError:
            came_out = True
        return came_out, ta.is_grad_enabled()

    expect(
        "does an exception come out of no_grad(), and what is is_grad_enabled() then?",
        lambda: apart(after_failing),
        (True, True),
        ((True, False), "Tracking stays off: use try/finally, or reset it in `__exit__` in any case."),
        (lambda found: not found[0], "The exception is lost: what `__exit__` returns must not be true."),
        see=SWITCH,
    )


def test_one_object_that_is_entered_again():
    @ta.no_grad()
    def countdown(n):
        return n and countdown(n - 1)

    pile = "One object was entered several times: keep the state on the pile of the thread, `_mode.before`."
    expect(
        "is_grad_enabled() after a function under @no_grad() has called itself twice",
        lambda: apart(lambda: (countdown(2), ta.is_grad_enabled())[1]),
        True,
        (False, pile),
        (IndexError, "Each entering puts one state on the pile, each leaving takes one."),
        see=SWITCH,
    )

    def on_two_threads():
        shared = ta.no_grad()
        with ThreadPoolExecutor(1) as other, ta.no_grad():
            shared.__enter__()
            other.submit(shared.__enter__).result()
            shared.__exit__(None, None, None)
            here = ta.is_grad_enabled()
            other.submit(shared.__exit__, None, None, None).result()
            return here, other.submit(ta.is_grad_enabled).result()

    expect(
        "is_grad_enabled() inside no_grad, and on a thread where it was on, after both have used one no_grad object",
        lambda: apart(on_two_threads),
        (False, True),
        (Exception, pile),
        pile,
        see=SWITCH,
    )


def test_what_users_of_pytorch_type_first():
    def square():
        x = tt.Tensor(3.0, requires_grad=True)
        (x**2).backward()
        return x.grad.item(), x.grad.shape, str(x.grad.dtype)

    expect(
        "gradient, its shape and dtype: x = Tensor(3.0, requires_grad=True); (x ** 2).backward()",
        square,
        (6, (), "float32"),
        (RuntimeError, "Nothing was recorded: a result with an input that requires a gradient has to be remembered."),
        (AttributeError, "x.grad is still None: what arrives for a leaf is kept among the leaves until the end."),
        (TypeError, "A function in the table takes g, the result, all inputs, and the parameters of the call."),
        see="The record",
    )


def test_the_walk_goes_on_until_nothing_waits():
    def through_three_steps():
        x = leaf(1.0)
        (x * 2 * 3 * 4).backward()
        return x.grad.item()

    expect(
        "x.grad after (x * 2 * 3 * 4).backward()",
        through_three_steps,
        24,
        (AttributeError, "x.grad is still None: nodes come onto the heap while the walk goes on, until it is empty."),
        (KeyError, "A node comes off the heap once, and its gradient leaves `arrived` with it."),
        see=WALK,
    )


@pytest.mark.parametrize("options", [{}, {"dim": 0}, {"dim": -1}, {"dim": 1, "keepdim": True}, {"dim": (0, 2)}])
def test_gradients_of_a_sum(options):
    weights = values(np.sum(values((2, 3, 4)), axis=options.get("dim"), keepdims=options.get("keepdim", False)).shape)
    shape = {None: (1, 1, 1), 0: (1, 3, 4), -1: (2, 3, 1), 1: (2, 1, 4), (0, 2): (1, 3, 1)}[options.get("dim")]
    told = ", ".join(f"{name}={value}" for name, value in options.items()) or "over everything"
    expect(
        f"gradient of a weighted sum of a (2, 3, 4) tensor, {told}",
        lambda: gradients(lambda x: tt.sum(x, **options) * tt.Tensor(weights), values((2, 3, 4))),
        np.broadcast_to(weights.reshape(shape), (2, 3, 4)),
        "Put the summed dimensions back with size 1, then repeat: every element receives the whole of g.",
        see=TABLE,
    )


def test_a_quotient_falls_with_its_denominator():
    expect(
        "gradient of 1 / x at x = 2",
        lambda: gradients(lambda x: 1 / x, 2.0),
        -0.25,
        (0.25, "0.25 should be -0.25: the derivative with respect to the denominator lacks its minus."),
        (-0.5, "-0.5 is -1 / x: in the derivative of 1 / x the denominator is squared."),
        see=TABLE,
    )
    expect(
        "gradients of 10 * (x / y) at x = 3, y = 2",
        lambda: gradients(lambda x, y: 10 * (x / y), 3.0, 2.0),
        [5, -7.5],
        (lambda found: found[1] == -0.75, "What comes back, g, is a factor of every share."),
        see=TABLE,
    )


TRANSPOSE = "dA = dC @ B^T and dB = A^T @ dC: check the shapes, nothing else fits."


def test_gradients_of_a_matrix_product():
    a, b = [[1, 2], [3, 4]], [[5, 6], [7, 8]]
    expect(
        "gradients of (A @ B).sum() for A = [[1, 2], [3, 4]], B = [[5, 6], [7, 8]]",
        lambda: gradients(tt.matmul, a, b),
        [[[11, 15], [11, 15]], [[4, 4], [6, 6]]],
        TRANSPOSE,
        see=TABLE,
    )
    expect(
        "shapes of the gradients of (2, 3) @ (3, 4)",
        lambda: tuple(g.shape for g in gradients(tt.matmul, np.ones((2, 3)), np.ones((3, 4)))),
        ((2, 3), (3, 4)),
        (Exception, TRANSPOSE),
        TRANSPOSE,
        see=TABLE,
    )


def test_relu_lets_pass_what_is_positive():
    def arriving(*numbers):
        def of_backward():
            x = leaf([-2.0, 0.0, 3.0])
            tt.relu(x).backward(tt.Tensor(np.array(numbers)))
            return x.grad

        return of_backward

    expect(
        "gradient of relu at [-2, 0, 3], if [5, 6, 7] arrives",
        arriving(5.0, 6.0, 7.0),
        [0, 0, 7],
        ([0, 6, 7], "At 0 itself the share is 0, too."),
        ([5, 6, 7], "Where x is not positive, relu does not move with x: no share."),
        ([5, 0, 0], "It is the other way round: where x is positive, all of g passes."),
        ([0, 0, 1], "What comes back, g, is a factor of every share."),
        see=TABLE,
    )
    expect(
        "gradient of relu at [-2, 0, 3], if [inf, inf, inf] arrives",
        arriving(np.inf, np.inf, np.inf),
        [0, 0, np.inf],
        (lambda found: np.isnan(found).any(), "0 times inf is nan: `kept` takes the bits away and does not multiply."),
        see=TABLE,
    )
    expect(
        "second derivative of relu(x) ** 3 at [-2, 3]",
        lambda: ta.hessian_vector_product(lambda x: (tt.relu(x) ** 3).sum(), leaf([-2.0, 3.0]), tt.Tensor(np.ones(2))),
        [0, 18],
        (RuntimeError, "The first derivative is not recorded, and has none: create_graph=True."),
        "Rules are written with operators that work on tensors and on arrays alike.",
        see=TABLE,
    )


def test_every_output_of_log_softmax_answers():
    x, weights = values((2, 3)), values((3, 2)).T + 1
    for dim in (0, 1, -1):
        p = np.exp(x) / np.exp(x).sum(dim, keepdims=True)
        expect(
            f"gradient of the sum of weights times log_softmax of a (2, 3) tensor, dim={dim}",
            lambda dim=dim: gradients(lambda x: tt.log_softmax(x, dim) * tt.Tensor(weights), x),
            weights - p * weights.sum(dim, keepdims=True),
            (weights, "x moves all outputs of its row by the logarithm of the sum as well."),
            (weights - p * weights, "All outputs of a row move with x: sum g over the row, and not over one element."),
            (weights - p, "All outputs of a row move with x: the probability counts once for each g of the row."),
            (weights - weights.sum(dim, keepdims=True), "The logarithm of the sum moves with x by its probability."),
            (weights - p * weights.sum(), "Rows do not know of each other: sum g along `dim` only, with keepdim=True."),
            (weights - np.log(p) * weights.sum(dim, keepdims=True), "`out` is the logarithm of the probability."),
            (weights + p * weights.sum(dim, keepdims=True), "The logarithm is subtracted, and so is its share."),
            (ValueError, "The sum of g along `dim` meets the whole row: keepdim=True."),
            see=TABLE,
        )

    def second():
        function = lambda z: (tt.log_softmax(z, 1) * tt.Tensor(weights)).sum()
        return ta.hessian_vector_product(function, leaf(x), tt.Tensor(weights))

    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    total = weights.sum(1, keepdims=True)
    expect(
        "second derivatives of this sum, dim=1, times the weights",
        second,
        -total * p * (weights - (p * weights).sum(1, keepdims=True)),
        "Rules are written with operators and `tt.` functions, which take tensors and arrays alike.",
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
        (ValueError, "What has arrived may belong to others: make a new sum, do not add in place."),
        (KeyError, "A node came off the heap twice: it goes there with its first share only."),
        see=WALK,
    )

    def weighted():
        x, y = leaf([1.0, 2.0]), leaf([0.0, 0.0])
        (x * x + (x + y)).backward(tt.Tensor(np.ones(2)))
        return x.grad, y.grad

    expect(
        "gradients of x and y after (x * x + (x + y)).backward([1, 1]) at x = [1, 2]",
        weighted,
        (np.array([3.0, 5.0]), np.array([1.0, 1.0])),
        (
            lambda found: not np.array_equal(found[1], [1, 1]),
            "y's gradient has changed with that of x: what has arrived may belong to others; make a new sum.",
        ),
        see=WALK,
    )


def test_backward_adds_to_grad():
    def twice():
        x = leaf(1.0)
        for _ in range(2):
            (3 * x).backward()
        return x.grad

    expect(
        "x.grad after two times (3 * x).backward()",
        twice,
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
        ((3, 4), "An axis of size 1 was broadcast, too: sum over it with keepdim=True."),
        ((3,), "Sum over the axis with keepdim=True."),
        see=TABLE,
    )
    expect(
        "gradient of b in (a * b).sum(), a = [[1, 2], [3, 4]], b of shape (2, 1)",
        lambda: gradients(tt.mul, [[1, 2], [3, 4]], [[1], [1]])[1],
        [[3], [7]],
        ([[1.5], [3.5]], "The share of a number that was repeated is the sum over its copies, not their mean."),
        see=TABLE,
    )
    expect(
        "gradient of b in (a * b).sum(), a of shape (0,), b of shape (1,)",
        lambda: gradients(tt.mul, np.ones(0), np.ones(1))[1],
        [0],
        "Size 1 has become size 0: b was repeated no times, and the sum over no copies is 0.",
        see=TABLE,
    )


def test_gradients_of_products_with_vectors_and_stacks():
    vectors = "A vector stands for a row on the left and for a column on the right; its gradient is a vector again."
    pairs = [((3,), (3, 4)), ((2, 3), (3,)), ((3,), (3,)), ((5, 2, 3), (3,)), ((5, 2, 3), (3, 4))]
    pairs += [((3,), (2, 3, 4)), ((2, 3), (2, 3, 4)), ((2, 2, 3), (2, 3, 4)), ((2, 1, 2, 3), (3, 3, 2))]
    for shape, other in pairs:
        a, b = values(shape), values(other) + 1
        expect(
            f"gradients of (A @ B).sum() for A of shape {shape}, B of shape {other}",
            lambda a=a, b=b: gradients(tt.matmul, a, b),
            [numeric(lambda a, b=b: a @ b, a), numeric(lambda b, a=a: a @ b, b)],
            vectors if len(shape) == 1 or len(other) == 1 else TRANSPOSE,
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
    def diamonds():
        visits, x = [], leaf(1.0)
        y = x * 1
        y.register_hook(lambda gradient: visits.append(1))
        for _ in range(12):
            y = y * 0.5 + y * 0.5
        y.backward()
        return len(visits), x.grad.item()

    expect(
        "visits of the node at the bottom of 12 diamonds, and the gradient there",
        diamonds,
        (1, 1.0),
        (
            lambda found: found[0] > 1,
            "Every path was walked, 2^12 of them: mark nodes as visited, and pass each only once.",
        ),
        see=WALK,
    )


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


def test_grad_leaves_dot_grad_alone():
    def partial():
        x, y = leaf(2.0), leaf(3.0)
        dx, dy = ta.grad(x * x * y, [x, y])
        return dx.item(), dy.item(), x.grad, y.grad, ta.grad(x * 2, [x, y], allow_unused=True)[1]

    expect(
        "grad(x * x * y, [x, y]) at x = 2, y = 3, then x.grad, y.grad, and the gradient of x * 2 by y",
        partial,
        (12, 4, None, None, None),
        see=USER,
    )


def test_a_gradient_can_be_differentiated():
    def derivatives():
        x = leaf(2.0)
        (first,) = ta.grad(x**3, x, create_graph=True)
        (second,) = ta.grad(first, x, create_graph=True)
        (third,) = ta.grad(second, x)
        return [first.item(), second.item(), third.item()]

    expect(
        "first, second and third derivative of x ** 3 at 2",
        derivatives,
        [12, 12, 6],
        (Exception, "With create_graph=True the rules run on tensors, not on arrays, and are recorded in turn."),
        see=USER,
    )
    expect(
        "second derivatives of x / y + sum(x) * y at x = 2, y = 3, by x and by y",
        lambda: second_derivatives(lambda x, y: (x / y).sum() + x.sum() * y, 2.0, 3.0),
        [-1 / 9 + 1, 1 - 1 / 9 + 4 / 27],
        "Rules are written with operators that work on tensors and on arrays alike.",
        see=TABLE,
    )


def second_derivatives(function, *values):
    """The derivatives of the sum of all first derivatives."""
    leaves = [leaf(value) for value in values]
    first = ta.grad(function(*leaves), leaves, create_graph=True)
    return [g.item() for g in ta.grad(first[0] + first[1], leaves)]


def test_shares_are_made_for_what_needs_them():
    def constant():
        x, y = leaf(2.0), tt.Tensor(np.array(4.0))
        (x * y).backward()
        return x.grad.item(), y.grad

    expect(
        "gradients of x and y after (x * y).backward(), if y = 4 requires none",
        constant,
        (4, None),
        (lambda found: found[1] is not None, "Skip an input that requires no gradient: nothing arrives there."),
        see=WALK,
    )

    def asked(run):
        """The inputs whose function in the table was called in a run."""
        called = []

        @tt.primitive
        def observed(x, y, z, /):
            return x * y

        def share_of_x(g, out, x, y, z):
            called.append("x")
            return g * y

        def share_of_y(g, out, x, y, z):
            called.append("y")
            return g * x

        ta.rule(observed, share_of_x, share_of_y, None)
        run(observed, leaf(2.0), leaf(3.0), leaf(4.0))
        return sorted(called)

    expect(
        "functions called for an operation on x, y and z, in backward(), if the function for z is None",
        lambda: asked(lambda operation, x, y, z: operation(x, y, z).backward()),
        ["x", "y"],
        (TypeError, "None in the table stands for an input without a gradient: skip it."),
        see=WALK,
    )
    expect(
        "functions called for this operation, in backward(), if only x requires a gradient",
        lambda: asked(lambda operation, x, y, z: operation(x, y.detach(), z.detach()).backward()),
        ["x"],
        (["x", "y"], "Skip an input that requires no gradient: its share would be computed for nobody."),
        see=WALK,
    )
    expect(
        "functions called for this operation, in grad(x * operation(y, z, z), x)",
        lambda: asked(lambda operation, x, y, z: ta.grad(x * operation(y, z, z), x)),
        [],
        (["x", "y"], "`grad` says in `useful` what lies on its way: skip what does not."),
        see=WALK,
    )


def products_of_a_step():
    """Products of two matrices in the forward pass, in backward() and in grad() by the last weight."""
    network = tt.Sequential(tt.Linear(64, 32), tt.ReLU(), tt.Linear(32, 10))
    x, labels, seen = tt.ones(8, 64), tt.tensor([0] * 8), [0]

    def counted(next, primitive, tensors, params):
        seen[-1] += primitive.name in ("affine", "matmul") and all(t.ndim == 2 for t in tensors[:2])
        return next(primitive, tensors, params)

    with tt.interpreting(counted):
        loss = tt.cross_entropy(network(x), labels)
        seen.append(0)
        loss.backward(retain_graph=True)
        seen.append(0)
        ta.grad(loss, network[2].weight)
    return tuple(map(int, seen))


def test_products_that_the_walk_leaves_out():
    expect(
        "products of two matrices in a forward pass, in backward(), and in grad() by the last weight",
        products_of_a_step,
        (2, 3, 1),
        (lambda found: found[1] > 3, "The inputs require no gradient: do not call a rule for them."),
        (lambda found: found[2] > 1, "`grad` says in `useful` what lies on its way: skip what does not."),
        see=WALK,
    )


def test_products_are_predicted():
    expect(
        "predict_products()",
        lambda: ta.autograd.predict_products(),
        (2, 3, 1),
        (lambda said: said[0] != 2, "Forward, each Linear is one product; ReLU and the loss take none."),
        (lambda said: said[1] == 4, "Two for each layer is one too many: the inputs of the first want no gradient."),
        (lambda said: said[1] == 2, "A layer takes one product for its weight, and one for the layer before it."),
        (lambda said: said[1] == 5, "The sums for the two biases are not counted, and the inputs want no gradient."),
        (lambda said: said[2] == 2, "The last layer passes nothing on here: w is all that was asked for."),
        (lambda said: said[2] >= 3, "`grad` leaves out what does not lie between the loss and w."),
        "Count one product for each weight's share, and one for each share that a layer passes on.",
        see=COST,
    )


def test_weights_for_an_output_of_several_elements():
    def weighted():
        x = leaf([1.0, 2.0])
        (x * x).backward(tt.Tensor([1, 10]))
        return x.grad

    expect("x.grad after (x * x).backward([1, 10]) at [1, 2]", weighted, [2, 40], see=USER)


def test_gradients_by_hand_are_those_of_the_table():
    by_hand, x, wanted = to.optimizers.xor_case()
    to.optimizers.xor_gradients_by_hand(by_hand, x, wanted)

    def ours():
        network, x, wanted = to.optimizers.xor_case()
        tt.binary_cross_entropy_with_logits(network(x), wanted).backward()
        return {name: p.grad for name, p in network.named_parameters()}

    expect(
        "the gradients in chapter 06's saved case",
        ours,
        {name: p.grad.numpy() for name, p in by_hand.named_parameters()},
        see="The witness",
        tolerance=1e-9,
    )


def test_exercises():
    matrix = np.arange(6.0).reshape(2, 3)
    expect(
        "jacobian of v -> A @ v for A of shape (2, 3)",
        lambda: ta.jacobian(lambda v: tt.Tensor(matrix) @ v, leaf([1.0, 1.0, 1.0])),
        matrix,
        (matrix.T, "Rows are outputs, columns are inputs."),
        ([3, 5, 7], "This is the gradient of the sum of all outputs: one backward pass for each output gives a row."),
        (RuntimeError, "The first row has freed the record: retain_graph=True keeps it for the next."),
        see="Exercises",
    )
    expect(
        "jacobian of v -> (v ** 2) at [1, 2]",
        lambda: ta.jacobian(lambda v: v**2, leaf([1.0, 2.0])),
        [[2, 0], [0, 4]],
        see="Exercises",
    )
    expect(
        "hessian_vector_product of the sum of cubes at [1, 2, 3], with [1, 0, 2]",
        lambda: ta.hessian_vector_product(
            lambda v: (v**3).sum(), leaf([1.0, 2.0, 3.0]), tt.Tensor(np.array([1.0, 0.0, 2.0]))
        ),
        [6, 0, 36],
        ([3, 0, 54], "This is the gradient times the vector: differentiate their product once more."),
        (RuntimeError, "The first gradient has no history: create_graph=True records how it is made."),
        see="Exercises",
    )
    expect(
        "hessian_vector_product of x * x * y at (2, 3), with (1, 2)",
        lambda: ta.hessian_vector_product(
            lambda v: v[0] * v[0] * v[1], leaf([2.0, 3.0]), tt.Tensor(np.array([1.0, 2.0]))
        ),
        [14, 4],
        ([10, 8], "Each row of second derivatives meets the whole vector: multiply before the second derivative."),
        see="Exercises",
    )
