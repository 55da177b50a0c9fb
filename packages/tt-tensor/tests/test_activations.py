"""Chapter 03, judged by its public names: numbers, slopes, and what happens far from zero."""

import math

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor.teaching import expect

SOFTMAX, SIGMOID = "Softmax", "Sigmoid and tanh"
POINTS = np.array([-3.0, -1.0, -0.25, 0.5, 2.0])
FORMULAS = {
    "relu": lambda x: max(x, 0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "softplus": lambda x: math.log(1 + math.exp(x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
}
IN_WORDS = {
    "relu": "x where x is positive, 0 elsewhere",
    "leaky_relu": "x where x is positive, 0.01 x elsewhere",
    "elu": "x where x is positive, exp(x) - 1 elsewhere",
    "sigmoid": "1 / (1 + exp(-x))",
    "tanh": "2 sigmoid(2 x) - 1",
    "softplus": "log(1 + exp(x))",
    "silu": "x sigmoid(x)",
    "gelu": "x times the probability that a normal number is smaller than x",
}
SLOPES = {
    "relu": "1 where x is positive, 0 elsewhere",
    "elu": "1 where x is positive, exp(x) elsewhere",
    "sigmoid": "s (1 - s), where s is the sigmoid of x and not x itself",
    "tanh": "1 - t t, where t is the tanh of x",
    "silu": "s + x s (1 - s), by the product rule",
    "gelu": "the normal distribution function, plus x times its density",
}


def test_the_input_stays_as_it_was():
    for name in FORMULAS:
        x = tt.Tensor([-1, 2])
        getattr(tt, name)(x)
        expect(
            f"x = Tensor([-1, 2]); {name}(x); x",
            x,
            [-1, 2],
            "The function has written into the input; make a new array for the result.",
            see="The idea: bend, and have a slope",
        )


def test_gelu_is_the_exact_one_unless_asked_otherwise():
    approximations = [
        (0.845795, "This is the sigmoid approximation, x * sigmoid(1.702 x)."),
        (0.841192, "This is the tanh approximation."),
        (0.838979, "The constant is not sqrt(2 / pi) = 0.7979."),
    ]
    expect(
        "gelu(1)",
        lambda: tt.gelu(tt.Tensor(1.0, tt.float64)).item(),
        0.841345,
        *approximations,
        see="Smooth relatives of ReLU",
        tolerance=1e-6,
    )
    expect(
        'gelu(1, approximate="tanh")',
        lambda: tt.gelu(tt.Tensor(1.0, tt.float64), approximate="tanh").item(),
        0.841192,
        (0.841345, 'This is the exact one: "tanh" asks for the other gate.'),
        approximations[0],
        approximations[2],
        see="Smooth relatives of ReLU",
        tolerance=1e-6,
    )


@pytest.mark.parametrize("name", ["elu", "sigmoid", "gelu", "softmax", "log_softmax"])
def test_integers_become_float32(name):
    options = {"dim": 0} if "softmax" in name else {}
    x = np.array([1.0, 2, 3])
    shares = np.exp(x) / np.exp(x).sum()
    wanted = {"softmax": shares, "log_softmax": np.log(shares)}.get(name) if options else list(map(FORMULAS[name], x))
    expect(
        f"{name}(tensor([1, 2, 3])), and its dtype",
        lambda: ((y := getattr(tt, name)(tt.tensor([1, 2, 3]), **options)), str(y.dtype)),
        (wanted, "float32"),
        (
            lambda found: found[1] != "float32",
            "NumPy makes float64 of integers; nothing here may become float64 unasked: begin with `as_floats`.",
        ),
        see=SOFTMAX if options else "The witness",
    )


def test_sigmoid_far_from_zero():
    overflow = "exp(1000) overflows, and inf / inf is nan: use the form that never raises e to a positive number."
    expect(
        "sigmoid([-1000, 1000])",
        lambda: tt.sigmoid(tt.Tensor([-1000, 1000])),
        [0, 1],
        (lambda y: np.isnan(y).any(), overflow),
        see=SIGMOID,
    )
    expect(
        "softplus([-1000, 1000])",
        lambda: tt.softplus(tt.Tensor([-1000, 1000])),
        [0, 1000],
        (lambda y: np.isinf(y).any(), overflow),
        see="Smooth relatives of ReLU",
    )
    expect(
        "elu([-1000, 1000])",
        lambda: tt.elu(tt.Tensor([-1000, 1000])),
        [-1, 1000],
        (lambda y: not np.isfinite(y).all(), "exp(1000) overflows: raise e to the negative numbers only."),
        see="ReLU",
    )


WITHOUT_WARNING = {"over": "raise", "invalid": "raise", "divide": "raise"}


@pytest.mark.parametrize("name", ["elu", "sigmoid"])
def test_no_power_overflows(name):
    wanted = {"elu": [-1, 1000, -1, math.inf], "sigmoid": [0, 1, 0, 1]}[name]

    def careful():
        with np.errstate(**WITHOUT_WARNING):
            return getattr(tt, name)(tt.Tensor([-1000, 1000, -math.inf, math.inf]))

    sides = {
        "elu": "exp(1000) is computed where nothing but x is wanted: raise e to min(x, 0), which is never positive.",
        "sigmoid": "e is raised to 1000: for negative x use exp(x) / (1 + exp(x)), for the others 1 / (1 + exp(-x)).",
    }
    expect(
        f"{name}([-1000, 1000, -inf, inf]), without an overflow on the way",
        careful,
        wanted,
        (FloatingPointError, sides[name]),
        (lambda y: np.isnan(y).any(), "Infinity times 0, or by infinity, is nan. " + sides[name]),
        sides[name],
        see=SIGMOID if name == "sigmoid" else "ReLU",
    )


@pytest.mark.parametrize("name", FORMULAS)
def test_each_function_is_its_formula(name):
    expect(
        f"{name}({POINTS.tolist()})",
        lambda: getattr(tt, name)(tt.Tensor(POINTS)),
        [FORMULAS[name](x) for x in POINTS],
        f"{name}(x) is {IN_WORDS[name]}.",
        see="The witness",
        tolerance=1e-10,
    )
    expect(
        f"dtype of {name}(Tensor([1, 2]))",
        lambda: str(getattr(tt, name)(tt.Tensor([1, 2])).dtype),
        "float32",
        ("float64", "A constant in float64 has made an array of all: numbers of Python's own do not."),
        see="The witness",
    )


def test_elu_goes_to_minus_alpha():
    expect(
        "elu([-1, 0, 2], alpha=3)",
        lambda: tt.elu(tt.Tensor([-1, 0, 2]), alpha=3.0),
        [3 * (math.exp(-1) - 1), 0, 2],
        ([math.exp(-1) - 1, 0, 2], "alpha is forgotten: it is the factor of the left side."),
        (lambda y: math.isclose(y[2], 6, rel_tol=1e-3), "alpha is the factor of the left side alone."),
        see="ReLU",
    )


def test_the_difference_quotient_is_central():
    slope = tt.activations.numeric_slope
    x = np.array([-1.0, 0.0, 2.0])
    expect(
        "f(x) = x * x * x; numeric_slope(f, [-1, 0, 2], distance=0.5)",
        lambda: slope(lambda x: x * x * x, x, 0.5),
        3 * x * x + 0.25,
        (3 * x * x + 1.5 * x + 0.25, "This is the one-sided quotient: step to the left, too, and divide by 2 h."),
        (3 * x * x - 1.5 * x + 0.25, "This is the one-sided quotient: step to the right, too, and divide by 2 h."),
        (6 * x * x + 0.5, "The two points are 2 h apart: divide by 2 h."),
        (1.5 * x * x + 0.125, "The two points are 2 h apart, not 4 h: divide by 2 h."),
        (-3 * x * x - 0.25, "The sign is wrong: the value on the right comes first."),
        (0.75 * x * x + 0.0625, "The difference is multiplied by the distance: divide by it."),
        "(f(x + h) - f(x - h)) / (2 h).",
        see="The idea: bend, and have a slope",
        tolerance=1e-9,
    )
    expect(
        "the same without a distance, less the derivative 3 x x",
        lambda: np.abs(slope(lambda x: x * x * x, x) - 3 * x * x).max() < 1e-8,
        True,
        "Without another wish, the distance is 1e-6.",
        see="The idea: bend, and have a slope",
    )
    narrow = "In float32 the two values agree in nearly all of their digits: convert x to float64 first."
    for kind, given in (("a float32 array", x.astype(np.float32)), ("a list", [-1, 0, 2])):
        expect(
            f"f(x) = x * x; numeric_slope(f, x) for {kind} [-1, 0, 2], and its dtype",
            lambda given=given: ((found := slope(lambda x: x * x, given)), str(found.dtype)),
            ([-2, 0, 4], "float64"),
            narrow,
            see="The idea: bend, and have a slope",
            tolerance=1e-7,
        )


def test_relus_slope_is_a_mask():
    expect(
        "relu_slope([-1, 0, 2])",
        lambda: tt.activations.relu_slope(np.array([-1.0, 0.0, 2.0])),
        [0, 0, 1],
        ([1, 1, 1], "The gradient at -1 is 1 and should be 0: the mask is missing."),
        ([0, 1, 1], "The mask is x >= 0 and should be x > 0: at 0 the slope is 0, by convention."),
        see="ReLU",
    )
    expect(
        "the kind of relu_slope([-1.0, 2.0]).dtype (b: truth values, f: floats)",
        lambda: tt.activations.relu_slope(np.array([-1.0, 2.0])).dtype.kind,
        "f",
        ("b", "A comparison gives truth values: times 1.0 they are numbers."),
        see="ReLU",
    )


@pytest.mark.parametrize("name", SLOPES)
def test_each_slope_is_the_difference_quotient(name):
    value, little = FORMULAS[name], 1e-6
    expect(
        f"{name}_slope({POINTS.tolist()})",
        lambda: (tt.gelu_slope if name == "gelu" else getattr(tt.activations, f"{name}_slope"))(POINTS),
        [(value(x + little) - value(x - little)) / (2 * little) for x in POINTS],
        ([value(x) for x in POINTS], f"This is {name} itself; its derivative is {SLOPES[name]}."),
        f"The derivative of {name} is {SLOPES[name]}.",
        see="The witness",
        tolerance=1e-7,
    )


@pytest.mark.parametrize("name", ["relu_slope", "sigmoid_slope"])
def test_slopes_take_tensors_and_arrays_alike(name):
    wanted = {"relu_slope": [0, 0, 0, 1, 1], "sigmoid_slope": 1 / (2 + np.exp(POINTS) + np.exp(-POINTS))}[name]
    both = "Use operators that tensors and arrays have, and the functions of this chapter; not NumPy's functions."
    expect(f"{name} of an array", lambda: getattr(tt.activations, name)(POINTS), wanted, both, see="The witness")
    expect(
        f"{name} of a tensor, and what it is",
        lambda: ((slope := getattr(tt.activations, name)(tt.Tensor(POINTS))), type(slope).__name__),
        (wanted, "Tensor"),
        both,
        see="The witness",
    )


def test_softmax_of_large_numbers():
    subtract = "exp(1000) is an overflow: subtract the maximum first, which changes nothing else."
    expect(
        "softmax([1000, 1000])",
        lambda: tt.softmax(tt.Tensor([1000, 1000]), dim=0),
        [0.5, 0.5],
        (lambda p: np.isnan(p).any(), subtract),
        see=SOFTMAX,
    )
    expect(
        "log_softmax([0, 1000])",
        lambda: tt.log_softmax(tt.Tensor([0, 1000]), dim=0),
        [-1000, 0],
        (lambda p: not np.isfinite(p).all(), f"The logarithm of a softmax that is 0 or nan. {subtract}"),
        see=SOFTMAX,
    )


def test_softmax_of_rows_far_below_zero():
    own = "The maximum of the row, however far below 0 it is, has to be subtracted: exp(-1000) is 0, and 0 / 0 is nan."
    for name, wanted in (("softmax", [0.5, 0.5]), ("log_softmax", [-math.log(2)] * 2)):
        expect(
            f"{name}([-1000, -1000])",
            lambda name=name: getattr(tt, name)(tt.Tensor([-1000, -1000]), dim=0),
            wanted,
            own,
            see=SOFTMAX,
        )


def test_softmax_rows_sum_to_one():
    x = tt.Tensor([[0, 0], [1, 1]])
    expect(
        "softmax([[0, 0], [1, 1]], dim=-1).sum(-1)",
        lambda: tt.softmax(x, dim=-1).sum(-1),
        [1, 1],
        (
            lambda sums: math.isclose(np.sum(sums), 1, rel_tol=1e-5),
            "All elements together sum to 1: sum over the last axis, with keepdim.",
        ),
        see=SOFTMAX,
    )
    x = np.sin(np.arange(12.0)).reshape(3, 4)
    for dim in (0, 1, -1):
        e = np.exp(x)
        wanted = e / e.sum(axis=dim, keepdims=True)
        also = "The answer has the shape of x, and along `dim` it sums to 1."
        expect(
            f"softmax of a (3, 4) tensor, dim={dim}",
            lambda dim=dim: tt.softmax(tt.Tensor(x), dim=dim),
            wanted,
            also,
            see=SOFTMAX,
        )
        expect(
            f"log_softmax of a (3, 4) tensor, dim={dim}",
            lambda dim=dim: tt.log_softmax(tt.Tensor(x), dim=dim),
            np.log(wanted),
            (wanted, "These are the probabilities; their logarithms are wanted."),
            also,
            see=SOFTMAX,
        )


def test_softmax_of_rows_of_different_size():
    x = tt.Tensor([[0, 0], [1000, 1000]])
    expect(
        "softmax([[0, 0], [1000, 1000]], dim=1)",
        lambda: tt.softmax(x, dim=1),
        [[0.5, 0.5], [0.5, 0.5]],
        (
            lambda p: np.isnan(p[0]).any(),
            "The first row is 0 / 0: the maximum must be taken per row, not over everything.",
        ),
        see=SOFTMAX,
    )


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_rows_that_are_empty_or_long(name):
    function = getattr(tt, name)
    for shape, dim in (((2, 0), 1), ((0, 3), 1), ((0, 3), 0), ((0,), -1)):
        expect(
            f"shape of {name} of a tensor of shape {shape} along dim={dim}",
            lambda shape=shape, dim=dim: function(tt.zeros(*shape), dim=dim).shape,
            shape,
            (ValueError, "A row without elements has no maximum: give `max` an `initial` value, -inf."),
            "What has no elements has none afterwards.",
            see=SOFTMAX,
        )
    expect(
        f"what the probabilities of 70,000 equal logits in float16 add up to, by {name}, and the dtype",
        lambda: (by_exp(name, p := function(tt.zeros(70_000).to(tt.float16), dim=0)), str(p.dtype)),
        lambda found: 0.9 < found[0] < 1.1 and found[1] == "float16",
        (lambda found: found[1] != "float16", "The result has the dtype of x: only the sum is in a wider one."),
        "The sum is above 65,504, the largest float16: add up in `ADDED_IN[x.dtype]`.",
        see=SOFTMAX,
    )


def by_exp(name, found):
    """What probabilities, or the exponentials of their logarithms, add up to."""
    values = found.numpy().astype(np.float64)
    return float((np.exp(values) if name == "log_softmax" else values).sum())


def test_what_float32_gives_far_out():
    with np.errstate(all="ignore"):
        far, odds = np.exp(np.float32(1000)), np.exp(np.array([0, 1000], np.float32))
        e = np.exp(np.array([-200, 0], np.float32))
        truth = {
            "a": far / (1 + far),
            "b": np.exp(np.float32(-1000)) / (1 + np.exp(np.float32(-1000))),
            "c": (odds / odds.sum())[0],
            "d": np.log(e / e.sum())[0],
            "e": np.float32(-200) - np.log(e.sum()),
        }
    why = {
        "a": "exp(1000) is more than the largest float32, 3.4e38, so it is infinite, and inf / inf is not a number.",
        "b": "exp(-1000) is 0 in float32, a harmless number: 0 / (1 + 0).",
        "c": "exp(0) is 1, exp(1000) infinite, and so is the sum: 1 / inf is 0. (The second is inf / inf.)",
        "d": "softmax is right, but exp(-200) is 0 in float32; the logarithm of 0 is minus infinity.",
        "e": "log_softmax is x less the logarithm of the sum, and that is 200 here: 0 - 200, and nothing is lost.",
    }
    expect(
        "the keys of predict_far_out()",
        lambda: sorted(tt.activations.predict_far_out()),
        sorted(truth),
        'A dictionary with one number for each of the keys "a" to "e".',
        see=SOFTMAX,
    )
    for key, number in truth.items():
        expect(
            f'predict_far_out()["{key}"]',
            lambda key=key: tt.activations.predict_far_out()[key],
            float(number),
            (lambda answer: True, why[key]),
            see=SOFTMAX,
        )


def test_softmax_backward_is_the_derivative_times_a_vector():
    p, g = np.array([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]), np.array([[1.0, 2.0, -1.0], [0.5, -2.0, 1.0]])
    expect(
        "softmax_backward([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]], [[1, 2, -1], [0.5, -2, 1]])",
        lambda: tt.activations.softmax_backward(p, g),
        [(np.diag(row) - np.outer(row, row)) @ vector for row, vector in zip(p, g)],
        (p * g, "This is p g: from each g the sum of g p over its row is to be subtracted first."),
        (p * (1 - p) * g, "This is the diagonal alone: each probability depends on the other logits, too."),
        (p * (g - (g * p).sum()), "The sum runs over everything; each row has one of its own."),
        (p * (g - (g * p).sum(axis=0)), "The sum runs over the rows; it has to run along each row, axis 1."),
        "p times (g less the sum of g p over the row).",
        see=SOFTMAX,
        tolerance=1e-6,
    )


def test_the_softmax_of_nothing_possible():
    low = -np.inf
    expect(
        "softmax([-inf, 0, 0]): what is impossible has probability 0",
        lambda: tt.softmax(tt.Tensor([low, 0, 0]), dim=0),
        [0, 0.5, 0.5],
        "exp(-inf) is 0, and needs no care of its own.",
        see=SOFTMAX,
    )


def test_what_cannot_be_meant_is_refused():
    x = tt.zeros(2, 3)
    expect(
        "softmax of a (2, 3) tensor, dim=2",
        lambda: tt.softmax(x, dim=2),
        IndexError,
        "Hand `dim` to NumPy as its axis: NumPy refuses an axis that is not there.",
        see="Errors you will meet",
    )
    expect(
        'gelu(x, approximate="sigmoid")',
        lambda: tt.gelu(x, approximate="sigmoid"),
        ValueError,
        'There are two forms, "none" and "tanh"; refuse any other by name.',
        see="Errors you will meet",
    )


def test_two_layers_with_a_step_between_them_solve_xor():
    x, _ = tt.activations.xor_points()

    def answers():
        hidden = tt.activations.step(x @ tt.Tensor([[1, 1], [1, 1]]) - tt.Tensor([0.5, 1.5]))
        return tt.activations.step(hidden @ tt.Tensor([[1], [-1]]) - 0.5).reshape(-1)

    expect("two layers with a step between them, of the four points", answers, [0, 1, 1, 0], see="The hurt")


def test_exercises():
    x = tt.Tensor([-9, -3, 0, 9])
    expect(
        "hard_sigmoid([-9, -3, 0, 9])",
        lambda: tt.activations.hard_sigmoid(x),
        [0, 0, 0.5, 1],
        ([-1, 0, 0.5, 2], "The line goes on beyond 0 and 1: cut it off there."),
        see="Exercises",
    )
    expect(
        "log_sigmoid([-1000, 0])",
        lambda: tt.activations.log_sigmoid(tt.Tensor([-1000, 0])),
        [-1000, -math.log(2)],
        (lambda y: np.isinf(y).any(), "The sigmoid has rounded to 0: use softplus."),
        see="Exercises",
    )
    expect(
        "softmax_with_temperature([0, 2], 2)",
        lambda: tt.activations.softmax_with_temperature(tt.Tensor([0, 2]), 2.0),
        [1 / (1 + math.e), math.e / (1 + math.e)],
        ([1 / (1 + math.exp(4)), 1 / (1 + math.exp(-4))], "x was multiplied by the temperature: divide by it."),
        see="Exercises",
    )
    expect(
        "softmax_with_temperature of a (2, 2) tensor, along its last dimension",
        lambda: tt.activations.softmax_with_temperature(tt.Tensor([[0, 0], [0, 3]]), 3.0),
        [[0.5, 0.5], [1 / (1 + math.e), math.e / (1 + math.e)]],
        (lambda p: np.allclose(p.sum(0), 1), "The columns sum to 1 where the rows should: dim=-1 is the last."),
        "Each row has probabilities of its own, which sum to 1.",
        see="Exercises",
    )
    for temperature in (0, -1):
        expect(
            f"softmax_with_temperature([0, 2], {temperature})",
            lambda temperature=temperature: tt.activations.softmax_with_temperature(tt.Tensor([0, 2]), temperature),
            ValueError,
            "Nothing can be divided by such a temperature: refuse it.",
            see="Exercises",
        )
