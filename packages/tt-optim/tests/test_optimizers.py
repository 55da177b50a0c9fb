"""Chapter 06, judged by its public names."""

import math

import numpy as np
import pytest

import tt_optim as to
import tt_tensor as tt
from tt_tensor.teaching import expect

REMEMBER, STEP, ADAM = "The idea: remember", "The optimizer", "Adam"
CLIPPING, XOR, PREDICT = "Clipping", "XOR, with gradients by hand", "Predict, then measure"
SMALLEST = "The smallest thing that could work"
FROM_1 = "1 - beta^0 is 0: t counts steps, from 1."
REBOUND = "You rebound a local name; write into what the parameter holds."
SKIP = "The grad of a parameter that played no part is None: skip parameters without gradient."


def parameter(value, gradient=None):
    """A float64 parameter of one element, with a gradient if there is one."""
    p = tt.Parameter(np.array([value], np.float64))
    p.grad = None if gradient is None else tt.Tensor(np.array([gradient], np.float64))
    return p


def moved(optimizer, *parameters):
    """How far one step of the optimizer moves the parameters."""
    before = [p.item() for p in parameters]
    optimizer.step()
    distances = [p.item() - b for p, b in zip(parameters, before)]
    return distances if len(distances) > 1 else distances[0]


# Formulas
#
# Each rule as the papers write it, with what learners make of it; `walk` gives where two weights are after each step.

START, GRADIENTS = [1.0, -2.0], [[2.0, -1.0], [0.5, -3.0], [-1.0, 0.25]]


def walk(rule):
    p, memory, path = np.array(START), {"v": 0.0, "a": 0.0, "b": 0.0}, []
    for t, gradient in enumerate(GRADIENTS, 1):
        p = rule(p, np.array(gradient), memory, t)
        path.append(p)
    return np.array(path)


def sgd(lr=0.1, momentum=0.0, dampening=0.0, decay=0.0, nesterov=False, share=1.0, shrink=0.0):
    def rule(p, g, memory, t):
        g = g + decay * p
        p = p * (1 - lr * shrink)
        if momentum:
            memory["v"] = momentum * memory["v"] + share * (1 if t == 1 else 1 - dampening) * g
            g = g + momentum * memory["v"] if nesterov else memory["v"]
        return p - lr * g

    return walk(rule)


def adam(
    betas=(0.9, 0.999), eps=1e-8, decay=0.0, shrink=0.0, lr=0.1, corrected=True, count=lambda t: t, forgets=""
):
    def rule(p, g, memory, t):
        memory.update(dict.fromkeys(forgets, 0.0))
        g = g + decay * p
        memory["a"] = betas[0] * memory["a"] + (1 - betas[0]) * g
        memory["v"] = betas[1] * memory["v"] + (1 - betas[1]) * g * g
        a, v = (1 - betas[0] ** count(t), 1 - betas[1] ** count(t)) if corrected else (1, 1)
        return p * (1 - lr * shrink) - lr * memory["a"] / a / (np.sqrt(memory["v"] / v) + eps)

    return walk(rule)


def lion(betas=(0.9, 0.99), decay=0.0, lr=0.1, early=False):
    def rule(p, g, memory, t):
        old = memory["v"]
        memory["v"] = betas[1] * old + (1 - betas[1]) * g
        return p * (1 - lr * decay) - lr * np.sign(betas[0] * (memory["v"] if early else old) + (1 - betas[0]) * g)

    return walk(rule)


def three_steps(make):
    """A function that lets an optimizer take the same steps."""

    def path():
        p, result = tt.Parameter(np.array(START)), []
        optimizer = make([p])
        for gradient in GRADIENTS:
            p.grad = tt.Tensor(np.array(gradient))
            optimizer.step()
            result.append(p.tolist())
        return result

    return path


FORGETFUL = [
    (adam(forgets=names), f"Only a local name has the new {what}: write into the array, m *= ... or m[...] = ...")
    for names, what in (("av", "m and v"), ("a", "m"), ("v", "v"))
]


# The smallest optimizer


def test_the_smallest_optimizer():
    layer = tt.Linear(1, 2)
    layer.weight.data, layer.bias.data = np.array([[1.0], [2.0]], np.float32), np.array([3.0, 4.0], np.float32)
    held = [layer.weight, layer.bias]

    def stepped():
        layer.weight.grad, layer.bias.grad = tt.Tensor([[2.0], [-1.0]]), tt.Tensor([0.5, 10.0])
        to.optimizers.SmallestOptimizer(layer.parameters(), rate=0.1).step()
        return [*layer.weight.flatten().tolist(), *layer.bias.tolist()]

    expect(
        "weights 1, 2, 3, 4 with gradients 2, -1, 0.5, 10 after SmallestOptimizer(layer.parameters(), rate=0.1).step()",
        stepped,
        [0.8, 2.1, 2.95, 3],
        ([1, 2, 3, 4], f"The weights did not change. {REBOUND}"),
        ([1.2, 1.9, 3.05, 5], "The loss rose: step against the gradient."),
        ([-1, 3, 2.5, -6], "The step is rate times gradient."),
        ([0.8, 2.1, 3, 4], "Every parameter makes a step, not only the first."),
        "What a parameter holds is its `data`, and it changes by minus rate times `grad`.",
        see=SMALLEST,
    )
    expect(
        "are layer.weight and layer.bias the same objects as before?",
        lambda: [layer.weight is held[0], layer.bias is held[1]],
        [True, True],
        REBOUND,
        see=SMALLEST,
    )


# The optimizer


class Recorder(to.Optimizer):
    """An optimizer whose update writes down what it is given, and makes all weights 7."""

    memory = ("seen",)

    def __init__(self, params):
        super().__init__(params, {"lr": 0.5})
        self.calls = []

    def update(self, p, g, state, group):
        self.calls.append([float(p[0]), float(g[0]), state["step"], float(state["seen"][0]), group["lr"]])
        p[...] = 7
        state["seen"] += g


def test_a_step_calls_update_for_each_parameter():
    first, second, resting = parameter(1, 2), parameter(3, -4), parameter(5)

    def calls():
        optimizer = Recorder([{"params": [first, resting]}, {"params": [second], "lr": 0.25}])
        optimizer.step()
        optimizer.step()
        return optimizer.calls

    wanted = [[1, 2, 1, 0, 0.5], [3, -4, 1, 0, 0.25], [7, 2, 2, 2, 0.5], [7, -4, 2, -4, 0.25]]
    expect(
        "what `update` is given in two steps: weight, gradient, count, memory and rate of parameters with a gradient",
        calls,
        wanted,
        ([], "`update` was never called: a step applies it, by `apply_update`, to each parameter with a gradient."),
        *((error, SKIP) for error in (AttributeError, TypeError, AssertionError)),
        ([[1, *wanted[0][1:]], [3, *wanted[1][1:]], [1, *wanted[2][1:]], [3, *wanted[3][1:]]],
         f"The weights did not change. {REBOUND}"),
        ([[*row[:3], seen, row[4]] for row, seen in zip(wanted, (0, 2, -2, 0))],
         "All share a buffer, in which others' gradients are: keep one per parameter."),
        (wanted[:1] + wanted[2:3], "Only the first group was updated: `param_groups` has several."),
        ([[*row[:2], row[2] - 1, *row[3:]] for row in wanted], "Count the step before the update: the first is 1."),
        ([[*row[:2], 1, 0, row[4]] for row in wanted], "A new memory was made: `first_state` is for the first step."),
        "For each parameter with a gradient: count its step, then apply the update, with its state and its group.",
        see=STEP,
    )
    expect("the weights then", lambda: [first.item(), second.item(), resting.item()], [7, 7, 5], REBOUND, see=STEP)


def test_a_step_goes_against_the_gradient():
    p = parameter(1, 2)
    expect(
        "SGD(lr=0.1).step() on a weight of 1 with gradient 2: the change",
        lambda: moved(to.SGD([p], lr=0.1), p),
        -0.2,
        (0.2, "The loss rose: step against the gradient."),
        (0, f"The weight did not change. {REBOUND}"),
        (-2, "The step is rate times gradient."),
        (ValueError, "What `numpy()` gives is for reading: ask for the array that is to be changed with `writable()`."),
        see=STEP,
    )


def test_a_step_changes_the_models_own_weight():
    layer = tt.Linear(1, 1, bias=False)
    held = layer.weight

    def change():
        before = layer.weight.item()
        layer.weight.grad = tt.ones(1, 1)
        to.SGD(layer.parameters(), lr=0.1).step()
        return layer.weight.item() - before

    expect(
        "change of layer.weight in SGD(layer.parameters(), lr=0.1).step() with gradient 1",
        change,
        -0.1,
        (0, f"The model's weight did not change. {REBOUND}"),
        see=STEP,
    )
    expect("is layer.weight the same object as before?", lambda: layer.weight is held, True, REBOUND, see=STEP)


def test_every_parameter_has_its_own_momentum():
    moving, resting = parameter(1, 1), parameter(1, 0)
    optimizer = to.SGD([moving, resting], lr=0.1, momentum=0.9)
    expect(
        "SGD(momentum=0.9): the change of a parameter with gradient 0, beside one with gradient 1",
        lambda: moved(optimizer, moving, resting)[1],
        0,
        "It moved by the first one's buffer: keep one per parameter.",
        see=REMEMBER,
    )
    expect(
        "the second step of the parameter with gradient 1",
        lambda: moved(optimizer, moving, resting)[0],
        -0.19,
        (-0.1, "The velocity was forgotten: the next step must find it in `state`, where this one changed it."),
        (-0.109, "PyTorch's velocity is momentum * b + g, without a factor at g."),
        see="SGD",
    )


@pytest.mark.parametrize("optimizer", [to.SGD, to.Adagrad, to.RMSprop, to.Adam, to.AdamW])
def test_parameters_without_gradient_are_left_alone(optimizer):
    used, unused = parameter(1, 1), parameter(1)

    def changes():
        of_used, of_unused = moved(optimizer([used, unused], lr=0.1), used, unused)
        return ["nan" if math.isnan(of_used) else of_used < 0, of_unused]

    expect(
        f"{optimizer.__name__}.step(), gradients 1 and None: has the first weight got smaller, how far is the second",
        changes,
        [True, 0],
        *((error, SKIP) for error in (AttributeError, TypeError, AssertionError)),
        (ZeroDivisionError, FROM_1),
        (["nan", 0], FROM_1),
        ([False, 0], "The first one did not move: skip a parameter only if its own gradient is None."),
        see=STEP,
    )


def test_zero_grad_forgets_all_gradients():
    ps = [parameter(1, 1), parameter(2, 1), parameter(3, 1)]

    def forgotten():
        to.SGD([{"params": ps[:2]}, {"params": ps[2:]}], lr=0.1).zero_grad()
        return [p.grad is None for p in ps]

    expect(
        "after zero_grad(): is the gradient None, for two parameters of a group and one of another?",
        forgotten,
        [True] * 3,
        "Set the grad of every parameter of every group to None.",
        see=STEP,
    )


def test_groups_have_options_of_their_own():
    slow, fast = parameter(1, 1), parameter(1, 1)
    optimizer = to.SGD([{"params": [slow], "lr": 0.01}, {"params": fast}], lr=0.1)
    expect(
        "a step of SGD with groups of lr=0.01 and lr=0.1, gradients 1: the changes",
        lambda: moved(optimizer, slow, fast),
        [-0.01, -0.1],
        ([-0.1, -0.1], "Each group has a rate of its own: `update` wants to know the group."),
        see=STEP,
    )

    def faster():
        optimizer.param_groups[0]["lr"] = 0.5
        return moved(optimizer, slow, fast)

    expect(
        'the next step, after param_groups[0]["lr"] = 0.5',
        faster,
        [-0.5, -0.1],
        ([-0.01, -0.1], "Ask the group for its options in each step: a schedule changes them."),
        see=STEP,
    )


@pytest.mark.parametrize(
    "call, make",
    [
        ("SGD(momentum=0.5, nesterov=True)", lambda p: to.SGD(p, momentum=0.5, nesterov=True, weight_decay=0.5)),
        ("Adam(weight_decay=0.5)", lambda p: to.Adam(p, weight_decay=0.5)),
        ("Lion(weight_decay=0.5)", lambda p: to.Lion(p, weight_decay=0.5)),
    ],
)
def test_gradients_stay_as_they_are(call, make):
    def gradient():
        p = tt.Parameter(np.array(START))
        p.grad = tt.Tensor(np.array(GRADIENTS[0]))
        make([p]).step()
        return p.grad

    expect(
        f"the gradient [2, -1] after a step of {call}",
        gradient,
        [2, -1],
        "The gradient itself was changed: an update may write into p and the memories only.",
        see=STEP,
    )


def test_large_parameters_are_updated_in_every_element():
    def changed():
        p, small = tt.Parameter(np.zeros(200_001, np.float32)), tt.Parameter(np.zeros(3, np.float32))
        p.grad, small.grad = tt.ones(200_001), tt.ones(3)
        to.SGD([p, small], lr=1.0).step()
        return float((p.numpy() == -1).mean()), float((small.numpy() == -1).mean())

    expect(
        "SGD(lr=1).step() with gradients of 1: the shares of 200,001 and of 3 zeros that have become -1",
        changed,
        (1.0, 1.0),
        (
            lambda shares: min(shares) < 1,
            "Some elements are missing: the update changes the whole array of each parameter.",
        ),
        see=STEP,
    )


def test_a_gradient_of_another_shape_is_refused():
    def step():
        p = tt.Parameter(np.zeros((2, 3)))
        p.grad = tt.Tensor(np.zeros(3))
        to.SGD([p], lr=0.1).step()

    expect(
        "SGD.step() with a parameter of shape (2, 3) and a gradient of shape (3,)",
        step,
        ValueError,
        "They broadcast, and something before this step is wrong: `gradient_of` asks for equal shapes.",
        see=STEP,
    )


@pytest.mark.parametrize(
    "call, wrong, error",
    [
        ("SGD([p], lr=-0.1)", lambda p: to.SGD([p], lr=-0.1), ValueError),
        ("Adam([p], weight_decay=-1)", lambda p: to.Adam([p], weight_decay=-1), ValueError),
        ("Adam([p], betas=(0.9, 1.0))", lambda p: to.Adam([p], betas=(0.9, 1.0)), ValueError),
        ("SGD([p], nesterov=True) without momentum", lambda p: to.SGD([p], lr=0.1, nesterov=True), ValueError),
        ("SGD([])", lambda p: to.SGD([], lr=0.1), ValueError),
        ("SGD([p, p])", lambda p: to.SGD([p, p], lr=0.1), ValueError),
        ('SGD(["weight"])', lambda p: to.SGD(["weight"], lr=0.1), TypeError),
    ],
)
def test_what_cannot_be_meant_is_refused(call, wrong, error):
    expect(call, lambda: type(wrong(parameter(1, 1))).__name__, error, see="Errors you will meet")


# SGD


def test_sgd():
    expect(
        "two weights after each of three steps of SGD(lr=0.1)",
        three_steps(lambda p: to.SGD(p, lr=0.1)),
        sgd(),
        (sgd(lr=-0.1), "The loss rose: step against the gradient."),
        see="SGD",
    )
    expect(
        "two weights after each of three steps of SGD(lr=0.1, momentum=0.5)",
        three_steps(lambda p: to.SGD(p, lr=0.1, momentum=0.5)),
        sgd(momentum=0.5),
        (sgd(), "The momentum has no effect: step by the velocity, not by the gradient."),
        (sgd(momentum=0.5, share=0.5), "PyTorch's velocity is momentum * b + g, without a factor at g."),
        (sgd(momentum=0.5, nesterov=True), "That is Nesterov's variant, and `nesterov` is False."),
        see="SGD",
    )
    expect(
        "two weights after each of three steps of SGD(lr=0.1, momentum=0.5, nesterov=True)",
        three_steps(lambda p: to.SGD(p, lr=0.1, momentum=0.5, nesterov=True)),
        sgd(momentum=0.5, nesterov=True),
        (sgd(momentum=0.5), "Nesterov's variant steps by g + momentum * b, and b is the new velocity."),
        see="SGD",
    )
    expect(
        "two weights after each of three steps of SGD(lr=0.1, momentum=0.5, dampening=0.5)",
        three_steps(lambda p: to.SGD(p, lr=0.1, momentum=0.5, dampening=0.5)),
        sgd(momentum=0.5, dampening=0.5),
        (sgd(momentum=0.5), "The share `kept` of the gradient joins the velocity, not all of it."),
        see="SGD",
    )
    expect(
        "two weights after each of three steps of SGD(lr=0.1, momentum=0.5, weight_decay=0.5)",
        three_steps(lambda p: to.SGD(p, lr=0.1, momentum=0.5, weight_decay=0.5)),
        sgd(momentum=0.5, decay=0.5),
        (sgd(momentum=0.5), "The weight decay has no effect: it adds decay * p to the gradient."),
        (sgd(momentum=0.5, decay=-0.5), "Decay pulls towards zero: it adds decay * p to the gradient."),
        (sgd(momentum=0.5, shrink=0.5), "Here the decay is added to the gradient, before the velocity sees it."),
        see="SGD",
    )


# Adam


def test_adams_first_step_is_the_rate():
    p = parameter(1, 4)
    expect(
        "the first step of Adam(lr=0.1) with gradient 4",
        lambda: moved(to.Adam([p], lr=0.1), p),
        -0.1,
        (-0.316228, "3.16 times too long: the bias correction, m / (1 - beta1^t) and v / (1 - beta2^t), is missing."),
        (lambda step: not math.isfinite(step), FROM_1),
        (ZeroDivisionError, FROM_1),
        (0.1, "The loss rose: step against the gradient."),
        (-0.4, "That is rate times gradient: divide by the root of the average of squares."),
        see=ADAM,
    )


def test_all_parameters_are_in_the_same_step():
    first, second = parameter(1, 4), parameter(1, 4)
    expect(
        "the first step of Adam(lr=0.1) for two parameters with gradient 4",
        lambda: moved(to.Adam([first, second], lr=0.1), first, second),
        [-0.1, -0.1],
        (
            lambda steps: math.isclose(steps[0], -0.1, rel_tol=1e-4),
            "The second parameter is one step ahead: t counts steps, from 1, not updates of parameters.",
        ),
        see=ADAM,
    )


def test_parameters_may_come_and_go():
    p, rare = parameter(1, 1), parameter(1)

    def changes():
        optimizer = to.Adam([p, rare], lr=0.1)
        optimizer.step()
        rare.grad = tt.Tensor(np.array([4.0]))
        return moved(optimizer, p, rare)

    expect(
        "the second step of Adam(lr=0.1), in which a parameter has a gradient for the first time: the changes",
        changes,
        [-0.1, -0.1],
        (lambda both: abs(both[1] + 0.1) > 1e-3, "t counts the steps of each parameter: this is its first one."),
        see=STEP,
    )


def test_eps_is_added_after_the_root():
    under = "100 times too small for a tiny gradient: eps is added after the root, not under it."
    p = parameter(1, 1e-6)
    expect(
        "the first step of Adam(lr=0.1, eps=1e-8) with gradient 1e-6",
        lambda: moved(to.Adam([p], lr=0.1), p),
        -0.1 / 1.01,
        (-0.1 / math.sqrt(1 + 1e4), under),
        (-0.1 / (1 + 0.01 / math.sqrt(0.001)), "eps competes with the *corrected* root; correct eps like the root."),
        see=ADAM,
    )


def test_adamw_decays_the_weight_itself():
    p, q = parameter(1, 0), parameter(1, 0)
    expect(
        "AdamW(lr=0.1, weight_decay=0.5) on a weight of 1 with gradient 0: the change",
        lambda: moved(to.AdamW([p], lr=0.1, weight_decay=0.5), p),
        -0.05,
        (-0.1, "The decay was added to the gradient and divided like it: decoupled decay acts on the weight itself."),
        (0, "The weight is unchanged though decay is 0.5: decoupled decay acts on the weight."),
        see=ADAM,
    )
    expect(
        "Adam(lr=0.1, weight_decay=0.5), the same",
        lambda: moved(to.Adam([q], lr=0.1, weight_decay=0.5), q),
        -0.1,
        (-0.05, "Adam adds the decay to the gradient; AdamW is the decoupled one."),
        see=ADAM,
    )


def test_adam_update():
    options = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "decay": 0.0, "decoupled": False}

    def path():
        p, m, v, result = np.array(START), np.zeros(2), np.zeros(2), []
        for t, gradient in enumerate(GRADIENTS, 1):
            to.adam_update(p, np.array(gradient), m, v, t=t, **options)
            result.append(p.copy())
        return result

    expect(
        "two weights after each of three calls of adam_update(lr=0.1)",
        path,
        adam(),
        (adam(corrected=False), "The bias correction, m / (1 - beta1^t) and v / (1 - beta2^t), is missing."),
        (adam(lr=-0.1), "The loss rose: step against the gradient."),
        (adam(count=lambda t: t + 1), "t is counted from 1 already."),
        (adam(betas=(0.1, 0.001)), "A beta is what is kept of the old average, 1 - beta what comes in."),
        ([START] * 3, f"The weights did not change. {REBOUND}"),
        *FORGETFUL,
        "m and v stay the averages without the hats, for the next step, and change in place.",
        see=ADAM,
    )

    def gradient():
        g = np.array([4.0])
        to.adam_update(np.ones(1), g, np.zeros(1), np.zeros(1), t=1, **{**options, "decay": 0.5})
        return g.item()

    expect(
        "the gradient 4 after adam_update(decay=0.5)",
        gradient,
        4,
        "It changed the gradient, which belongs to the caller: g = g + decay * p makes a new array.",
        see=ADAM,
    )


def test_adam():
    expect(
        "two weights after each of three steps of Adam(lr=0.1)",
        three_steps(lambda p: to.Adam(p, lr=0.1)),
        adam(),
        (adam(corrected=False), "The bias correction, m / (1 - beta1^t) and v / (1 - beta2^t), is missing."),
        (adam(count=lambda t: 1), "The correction is that of the first step, always: t counts steps, from 1."),
        *FORGETFUL,
        (adam(lr=-0.1), "The loss rose: step against the gradient."),
        see=ADAM,
    )
    expect(
        "two weights after each of three steps of Adam(lr=0.1, betas=(0.5, 0.75), eps=0.1)",
        three_steps(lambda p: to.Adam(p, lr=0.1, betas=(0.5, 0.75), eps=0.1)),
        adam(betas=(0.5, 0.75), eps=0.1),
        (adam(eps=0.1), "The betas have no effect."),
        (adam(betas=(0.75, 0.5), eps=0.1), "The betas are swapped: the first is that of the gradient."),
        "eps is added to the root of the corrected average; where the correction comes later, eps needs it, too.",
        see=ADAM,
    )
    expect(
        "two weights after each of three steps of Adam(lr=0.1, weight_decay=0.5)",
        three_steps(lambda p: to.Adam(p, lr=0.1, weight_decay=0.5)),
        adam(decay=0.5),
        (adam(), "The weight decay has no effect: it adds decay * p to the gradient."),
        (adam(shrink=0.5), "Adam adds the decay to the gradient; AdamW is the decoupled one."),
        see=ADAM,
    )
    expect(
        "two weights after each of three steps of AdamW(lr=0.1, weight_decay=0.5)",
        three_steps(lambda p: to.AdamW(p, lr=0.1, weight_decay=0.5)),
        adam(shrink=0.5),
        (adam(), "The weight decay has no effect: decoupled decay acts on the weight, by the factor 1 - lr * decay."),
        (adam(decay=0.5), "The decay was added to the gradient: decoupled decay acts on the weight itself."),
        (adam(shrink=5), "The factor is 1 - lr * decay: the rate is missing."),
        see=ADAM,
    )


# Memory


@pytest.mark.parametrize(
    "call, make",
    [
        ("SGD(momentum=0.9)", lambda p: to.SGD(p, lr=0.1, momentum=0.9)),
        ("Adagrad()", to.Adagrad),
        ("RMSprop(momentum=0.5, centered=True)", lambda p: to.RMSprop(p, momentum=0.5, centered=True)),
        ("Adam()", to.Adam),
        ("Lion()", to.Lion),
    ],
)
def test_a_restored_optimizer_goes_on_bit_for_bit(call, make):
    def differences():
        first, second, found = parameter(1, 3), parameter(1, 3), []
        original = make([first])
        original.step()
        second.data = first.data
        copy = make([second])
        copy.load_state_dict(original.state_dict())
        for gradient in (1.0, -2.0):
            for optimizer, p in ((original, first), (copy, second)):
                p.grad = tt.Tensor(np.array([gradient]))
                optimizer.step()
            found.append(bool(first.item() != second.item()))
        return found

    expect(
        f"{call}, saved after a step and loaded into another: do the next two steps differ?",
        differences,
        [False, False],
        "All that is remembered about a parameter belongs into its `state`, or it is not saved.",
        see=STEP,
    )


# Clipping


def test_clipping_keeps_the_direction():
    ps = [parameter(0, 3), parameter(0, 4), parameter(0)]

    def clipped(limit):
        length = float(to.clip_grad_norm_(ps, limit))
        return [length, *(p.grad.item() for p in ps[:2])]

    expect(
        "what clip_grad_norm_(max_norm=1) returns for gradients 3, 4 and None, and what they are then",
        lambda: clipped(1.0),
        [5, 0.6, 0.8],
        ([5, 1, 1], "The direction has changed: clip by the global norm, with one factor for all."),
        ([5, 3, 4], "The gradients are as long as before: scale those that the parameters hold."),
        (lambda found: found[0] == 1, "What is returned is the length *before* clipping."),
        (lambda found: found[0] in (4, 7), "The common length is the root of the sum of all squares."),
        (AttributeError, "The grad of a parameter that played no part is None: skip it."),
        see=CLIPPING,
    )
    for limit in (10.0, 1.5):
        expect(
            f"the same again with max_norm={limit}",
            lambda limit=limit: clipped(limit),
            [1, 0.6, 0.8],
            (lambda found: found[1] > 0.7, "Short gradients stay as they are: the factor is never above 1."),
            see=CLIPPING,
        )


def test_clipping_of_tiny_gradients_and_of_none():
    tiny, none = parameter(0, 5e-7), parameter(0)
    expect(
        "the gradient 5e-7, in millionths, after clip_grad_norm_(max_norm=1)",
        lambda: (to.clip_grad_norm_([tiny, none], 1.0), 1e6 * tiny.grad.item())[1],
        0.5,
        "A short gradient stays as it is, however short: the factor is never above 1, and never negative.",
        see=CLIPPING,
    )
    expect(
        "what clip_grad_norm_ returns for parameters without gradients",
        lambda: float(to.clip_grad_norm_([none, none], 1.0)),
        0,
        "No gradients have the length 0.",
        see=CLIPPING,
    )


def test_clipping_by_the_largest_element():
    p, q = tt.Parameter(np.zeros(2)), parameter(0, -8)
    p.grad = tt.Tensor(np.array([3.0, 4.0]))
    expect(
        "clip_grad_norm_ of the gradients [3, 4] and -8 with max_norm=2, norm_type=inf: what it returns, the gradients",
        lambda: [float(to.clip_grad_norm_([p, q], 2.0, norm_type=math.inf)), *p.grad.tolist(), q.grad.item()],
        [8, 0.75, 1, -2],
        (lambda found: abs(found[0] - math.sqrt(89)) < 1e-6, "`norm_type` has no effect: inf asks for the largest."),
        "The norm of order infinity is the largest absolute value in all the gradients.",
        see=CLIPPING,
    )


def test_a_limit_that_cannot_be_meant_is_refused():
    for limit in (-1.0, math.nan):
        expect(
            f"clip_grad_norm_ with max_norm={limit}",
            lambda limit=limit: float(to.clip_grad_norm_([parameter(0, 3)], limit)),
            ValueError,
            "A negative limit turns all gradients around: `refuse_negative` refuses it, and nan.",
            see=CLIPPING,
        )


def test_a_gradient_that_overflowed_can_be_refused():
    p = parameter(0, math.inf)
    expect(
        "clip_grad_norm_ of an infinite gradient, error_if_nonfinite=True",
        lambda: float(to.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)),
        RuntimeError,
        "Ask whether the length is finite before anything is scaled.",
        see=CLIPPING,
    )
    expect(
        "what clip_grad_norm_ of an infinite gradient returns, without error_if_nonfinite",
        lambda: float(to.clip_grad_norm_([parameter(0, math.inf)], 1.0)),
        math.inf,
        (RuntimeError, "An error is raised only if `error_if_nonfinite` asks for it."),
        see=CLIPPING,
    )
    q = parameter(0, 8)
    expect(
        "the gradient 8 of a single parameter after clip_grad_norm_(parameter, 2)",
        lambda: (to.clip_grad_norm_(q, 2.0), q.grad.item())[1],
        2,
        (TypeError, "One parameter may be given instead of several."),
        see=CLIPPING,
    )


# XOR by hand


def test_gradients_of_xor_by_hand():
    w1, b1, w2, b2 = (
        np.sin(np.arange(math.prod(shape)) + 2.0 * number + 1).reshape(shape)
        for number, shape in enumerate([(4, 2), (4,), (1, 4), (1,)])
    )
    x, target = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([[0.0], [1], [1], [0]])
    h = np.tanh(x @ w1.T + b1)
    z = h @ w2.T + b2
    g_z = (1 / (1 + np.exp(-z)) - target) / 4
    g_a = (g_z @ w2) * (1 - h * h)
    straight = g_z @ w2
    network, inputs, answers = to.optimizers.xor_case()
    loss = float((np.log(1 + np.exp(z)) - target * z).mean())
    expect(
        "what xor_gradients_by_hand(network, x, wanted) returns for the saved case",
        lambda: to.optimizers.xor_gradients_by_hand(network, inputs, answers),
        loss,
        (4 * loss, "The loss is the mean over the four examples."),
        see=XOR,
    )
    wanted = {
        "0.weight": (g_a.T @ x, straight.T @ x),
        "0.bias": (g_a.sum(0), straight.sum(0)),
        "2.weight": (g_z.T @ h, g_z.T @ (x @ w1.T + b1)),
        "2.bias": (g_z.sum(0), None),
    }
    parameters = dict(network.named_parameters())
    for name, (gradient, without_tanh) in wanted.items():
        expect(
            f"gradient by hand of {name}",
            lambda name=name: parameters[name].grad,
            gradient,
            (4 * gradient, "Four times too large: the loss is a mean over N = 4 examples."),
            (-gradient, "The sign is wrong: what the network believes, minus what is wanted."),
            (without_tanh, "The tanh is missing: its slope is 1 - h * h, and the second layer sees h."),
            (lambda out: np.shape(out) == (), "One number: a bias has a gradient for each unit, so sum(0), over rows."),
            (gradient.T, "It has the shape of the transpose."),
            "A term of the chain rule is missing, or has the wrong sign.",
            see=XOR,
            tolerance=1e-6,
        )


def test_gradients_by_hand_leave_the_network_as_it_was():
    network, x, wanted = to.optimizers.xor_case()

    def same():
        before = [p.tolist() for p in network.parameters()]
        to.optimizers.xor_gradients_by_hand(network, x, wanted)
        once = [p.grad.tolist() for p in network.parameters()]
        to.optimizers.xor_gradients_by_hand(network, x, wanted)
        twice = [p.grad.tolist() for p in network.parameters()]
        return [before == [p.tolist() for p in network.parameters()], once == twice]

    expect(
        "after xor_gradients_by_hand: are the weights what they were, and are the gradients the same a second time?",
        same,
        [True, True],
        ([True, False], "Gradients are put in place of old ones here, not added to them."),
        ([False, True], "Fill in gradients only: the step is the optimizer's."),
        see=XOR,
    )


def test_train_xor_by_hand():
    def records(steps):
        tt.manual_seed(0)
        made = []

        def make(parameters):
            made.append(Recorded(parameters, lr=0.5))
            return made[-1]

        class Recorded(to.SGD):
            def step(self, closure=None):
                said.append("step")
                super().step()

            def zero_grad(self, set_to_none=True):
                said.append("zero_grad")
                super().zero_grad(set_to_none)

        said = []
        network, losses = to.optimizers.train_xor_by_hand(make, steps=steps)
        x, wanted = tt.activations.xor_points()
        losses = [*map(float, losses), tt.binary_cross_entropy_with_logits(network(x), wanted).item()]
        return said, losses, [p.grad is None for p in network.parameters()]

    expect(
        "what train_xor_by_hand(make, steps=2) asks of the optimizer, in order",
        lambda: records(2)[0],
        ["step", "zero_grad"] * 2,
        (["step"] * 2, "The gradients are not forgotten: `zero_grad` after each step."),
        (["zero_grad", "step"] * 2, "Gradients, then the step, then forget them: at the end none is left."),
        ([], "The optimizer that `make(network.parameters())` gives has to make the steps."),
        "In each round: loss and gradients, `step()`, `zero_grad()`.",
        see=XOR,
    )

    def by_hand(steps):
        tt.manual_seed(0)
        network, (x, wanted) = tt.losses.xor_network(), tt.activations.xor_points()
        losses = []
        for _ in range(steps):
            losses.append(to.optimizers.xor_gradients_by_hand(network, x, wanted))
            for p in network.parameters():
                p.data -= 0.5 * p.grad
        return [*losses, tt.binary_cross_entropy_with_logits(network(x), wanted).item()]

    after = by_hand(3)
    expect(
        "the losses of train_xor_by_hand with SGD(lr=0.5), 3 steps, and then that of the network that it returns",
        lambda: records(3)[1],
        after,
        (after[:1] * 4, "Nothing moved: the optimizer has other parameters than the network that is returned."),
        ([*after[1:], after[-1]], "The losses are those *before* each step."),
        "One loss for each step, and one network for all of them.",
        see=XOR,
    )
    expect(
        "afterwards, are the gradients of the network's parameters None?",
        lambda: records(1)[2],
        [True] * 4,
        "Forget the gradients after each step, after the last one, too.",
        see=XOR,
    )


# Predictions, beside what comes out


def test_predict_steps():
    def grows(rate):
        y = 1.0
        for _ in range(100):
            y -= rate * 100 * y
        return abs(y) > 1

    def longest():
        low, high = 0.001, 0.1
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (low, middle) if grows(middle) else (middle, high)
        return low

    def path(make, gradients):
        p, result = parameter(0), []
        optimizer = make([p])
        for gradient in gradients:
            p.grad = tt.Tensor(np.array([gradient]))
            result.append(abs(moved(optimizer, p)))
        return result, optimizer

    first, second = parameter(0, 3), parameter(0, 4)
    to.clip_grad_norm_([first, second], 1.0)
    network, x, wanted = to.optimizers.xor_case()
    to.optimizers.xor_gradients_by_hand(network, x, wanted)
    optimizer = to.Adam(network.parameters())
    optimizer.step()
    memories = [np.asarray(value) for state in optimizer.state.values() for value in state.values()]
    sizes = [path(lambda p: to.Adam(p, lr=0.1), [gradient])[0][0] for gradient in (2.0, 2000.0)]
    measured = {
        "longest": longest(),
        "long run": path(lambda p: to.SGD(p, lr=1.0, momentum=0.9), [1.0] * 200)[0][-1],
        "coasting": path(lambda p: to.SGD(p, lr=1.0, momentum=0.5), [1.0, 0.0])[0][-1],
        "thousand": sizes[1] / sizes[0],
        "clipped": second.grad.item(),
        "memory": sum(value.size for value in memories if value.ndim),
    }
    causes = {
        "longest": [
            (0.01, "With 0.01 y is 0 after one step. It may overshoot, as long as it ends nearer to 0 than it was."),
            (2, "That holds for x. The slope in y is a hundred times as steep."),
            "A step multiplies y by 1 - 100 * rate. When is that longer than 1?",
        ],
        "long run": [
            (1, "That is the gradient alone. The velocity is 1 + 0.9 + 0.81 + ..."),
            (1.9, "That is the second step. The velocity grows on, to g / (1 - momentum)."),
            "Which velocity b stays as it is, b = 0.9 b + 1?",
        ],
        "coasting": [
            (0, "The gradient is 0, but the velocity is not: half of it is left."),
            (1, "The velocity of the first step is multiplied by the momentum."),
            "b = momentum * b + g, with the b of the first step and g = 0.",
        ],
        "thousand": [
            (1000, "Adam divides by the gradient's usual size: its first step is the rate, whatever the gradient."),
            "What is m / sqrt(v), corrected, after a single gradient?",
        ],
        "clipped": [
            (1, "That is each gradient clipped alone. One factor, 1 over the common length, shortens both."),
            (0.6, "That is what becomes of the 3."),
            (4 / 7, "The common length is the root of the sum of squares, not the sum."),
            "The factor is 1 over the common length of 3 and 4.",
        ],
        "memory": [
            (17, "Adam keeps two averages for each number: of the gradient, and of its square."),
            (8, "Each memory has as many elements as its parameter."),
            "How many arrays does Adam keep for each parameter, and how large are they?",
        ],
    }
    for name, truth in measured.items():
        expect(
            f'predict_steps()["{name}"], beside what was measured',
            lambda name=name: float(to.optimizers.predict_steps()[name]),
            truth,
            *causes[name],
            see=PREDICT,
            tolerance=4e-4,
        )


# Exercises


def test_lions_memory():
    options = {"lr": 0.1, "betas": (0.5, 0.75), "weight_decay": 0.0}
    p, g, state = np.array(START), np.array([2.0, 0.0]), {"momentum": np.array([4.0, 0.0]), "step": 1}
    held, lion = state["momentum"], to.Lion([parameter(1)])
    expect(
        "p = [1, -2] after Lion.update with the gradient [2, 0] and the momentum [4, 0], lr=0.1",
        lambda: (lion.update(p, g, state, options), p)[1],
        [0.9, -2],
        "The sign of the mixture says where to, and the sign of 0 is 0.",
        see="Exercises",
    )
    expect(
        "the momentum then, with betas=(0.5, 0.75), and is it the same array?",
        lambda: (held.tolist(), state["momentum"] is held),
        ([3.5, 0], True),
        (([3, 0], True), "The momentum is mixed by the second beta, the step by the first."),
        (([4, 0], False), "Change the array `state[\"momentum\"]` in place."),
        "The momentum becomes beta2 times itself plus (1 - beta2) times the gradient, in place.",
        see="Exercises",
    )


def test_lion():
    expect(
        "two weights after each of three steps of Lion(lr=0.1)",
        three_steps(lambda p: to.Lion(p, lr=0.1)),
        lion(),
        (lion(lr=-0.1), "The loss rose: step against the sign."),
        (lion(betas=(0.99, 0.9)), "The betas are swapped: the first is that of the step."),
        (lion(early=True), "The step uses the old momentum; what comes in now joins it afterwards."),
        see="Exercises",
    )
    expect(
        "two weights after each of three steps of Lion(lr=0.1, betas=(0.5, 0.75), weight_decay=0.5)",
        three_steps(lambda p: to.Lion(p, lr=0.1, betas=(0.5, 0.75), weight_decay=0.5)),
        lion(betas=(0.5, 0.75), decay=0.5),
        (
            lion(betas=(0.5, 0.75)),
            "The weight decay has no effect: it acts on the weight, by the factor 1 - lr * decay.",
        ),
        (lion(decay=0.5), "The betas have no effect."),
        see="Exercises",
    )
    first, second = parameter(1, 3), parameter(1, -0.001)
    expect(
        "Lion(lr=0.25).step() with gradients 3 and -0.001: the changes",
        lambda: moved(to.Lion([first, second], lr=0.25), first, second),
        [-0.25, 0.25],
        "The sign alone says where to, the rate alone how far.",
        see="Exercises",
    )


def test_average_weights():
    states = [{"w": tt.Tensor([1, 2]), "b": tt.Tensor([[4]])}, {"w": tt.Tensor([3, 6]), "b": tt.Tensor([[5]])}]
    average = {}

    def names():
        average.update(to.optimizers.average_weights(states))
        return sorted(average)

    expect(
        "average_weights of {w: [1, 2], b: [[4]]} and {w: [3, 6], b: [[5]]}: its names",
        names,
        ["b", "w"],
        see="Exercises",
    )
    expect(
        "its w",
        lambda: average["w"],
        [2, 4],
        ([4, 8], "That is the sum: divide by the number of dictionaries."),
        see="Exercises",
    )
    expect("its b", lambda: average["b"], [[4.5]], see="Exercises")
    expect(
        "average_weights of one dictionary with w: [1, 2]",
        lambda: to.optimizers.average_weights([{"w": tt.Tensor([1, 2])}])["w"],
        [1, 2],
        see="Exercises",
    )
    expect(
        "the first dictionary's w, afterwards",
        lambda: states[0]["w"],
        [1, 2],
        "It was added up in place: a state dictionary shares memory with its network.",
        see="Exercises",
    )
    expect(
        "average_weights of dictionaries with the names w and v",
        lambda: sorted(to.optimizers.average_weights([{"w": tt.ones(1)}, {"v": tt.ones(1)}])),
        ValueError,
        (KeyError, "Compare the names first, and say what is wrong with a ValueError."),
        (["w"], "The second dictionary has no w: compare the names first."),
        see="Exercises",
    )
