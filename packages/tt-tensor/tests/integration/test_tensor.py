"""Chapter 02 at work: tensors alone fit lines, tell digits apart and find directions, at the cost that was promised."""

import gc
import statistics
import time
import tracemalloc

import numpy as np

import tt_tensor as tt
from tt_tensor import loops
from tt_tensor.teaching import between, expect, measured_between
from tt_tensor.tensor import operations_of, outer, pairwise_distances

STORAGE, OPERATORS, SHAPES, SUMS = "Storage", "Arithmetic", "The same numbers in another shape", "Sums"
DOOR, BROADCASTING, PRODUCTS = "Primitives and the door", "Broadcasting", "Matrix products"
WRITING, GRADIENTS, EXERCISES = "Writing, and the clock", "Room for gradients", "Exercises"
METER, COST = "A first client of the door: the meter", "The cost: counted, and timed"
KERNELS, VIEWS = "Kernels can be exchanged", "Shape, strides and why a transpose is free"
REPETITIONS = 60


# Imports and instantiation


def test_imports_find_what_the_chapter_promises():
    names = ["Tensor", "tensor", "zeros", "ones", "full", "arange", "rand", "randn", "from_numpy", "as_array"]
    names += ["add", "sub", "mul", "div", "matmul", "reshape", "permute", "expand", "sum", "mean", "var", "std"]
    names += ["primitive", "elementwise", "evaluate", "interpreting", "install", "meter", "use_kernels"]
    names += ["broadcast_shape", "float32", "float64", "int64"]
    expect("the names that chapter 02 lacks", [name for name in names if not hasattr(tt, name)], [], see=DOOR)


def test_imports_give_a_tensor_of_whatever_holds_numbers():
    square = np.eye(2)
    for name, data, wanted in (
        ("2.5", 2.5, 2.5),
        ("[[1], [2]]", [[1], [2]], [[1], [2]]),
        ("an array", square, square),
        ("a number of NumPy's", np.float32(1), 1),
        ("a tensor", tt.ones(2), [1, 1]),
        ("a list of tensors", [tt.ones(2), tt.zeros(2)], [[1, 1], [0, 0]]),
    ):
        expect(f"Tensor({name})", lambda data=data: tt.Tensor(data), wanted, see=STORAGE)
    expect("repr(Tensor([1, 2.5]))", lambda: repr(tt.Tensor([1, 2.5])), "tensor([1. , 2.5])", see="The tensor")
    expect("zeros(2, 3), its shape", lambda: tt.zeros(2, 3).shape, (2, 3), see="The tensor")
    expect("randn(2, 0), its shape", lambda: tt.randn(2, 0).shape, (2, 0), see="The tensor")


# Compatibility: chapters 01 and 02 together


def test_compatibility_of_chance_with_the_seed_of_chapter_01():
    def drawn():
        return tt.setup.seeded(5, lambda: (tt.randn(2, 3) * tt.rand(3)).tolist())

    expect("seeded(5, randn times rand), twice, gives the same", lambda: drawn() == drawn(), True, see="The tensor")


def test_compatibility_of_tensors_with_the_stopwatch_of_chapter_01():
    x = tt.ones(30, 40)
    expect(
        "the shape of measure(matmul, x, x.T).result",
        lambda: tt.measure(tt.matmul, x, x.T, span=0).result.shape,
        (30, 30),
        see=PRODUCTS,
    )


def test_compatibility_of_shapes_through_a_chain_of_operations():
    batch, weight, bias = tt.ones(5, 3, 4, 4), tt.ones(10, 48), tt.zeros(10)

    def scores():
        return batch.reshape(5, -1) @ weight.transpose() + bias

    expect("shape of x.reshape(5, -1) @ weight.transpose() + bias", lambda: scores().shape, (5, 10), see=SHAPES)
    expect("its values", scores, np.full((5, 10), 48.0), see=PRODUCTS)
    expect(
        "shape of (scores - scores.mean(1, keepdim=True)) / scores.sum(1, keepdim=True)",
        lambda: ((scores() - scores().mean(1, keepdim=True)) / scores().sum(1, keepdim=True)).shape,
        (5, 10),
        (ValueError, "Without `keepdim` a column of sums is a row, and does not broadcast against its matrix."),
        see=SUMS,
    )


def test_compatibility_of_dtypes_through_a_chain_of_operations():
    for dtype in (tt.float16, tt.float32, tt.float64):
        x = tt.full((3, 3), 2.0, dtype)
        expect(
            f"the dtype of ((1 - x) @ x / 3).reshape(9).sum(), for x of {dtype}",
            lambda x=x: ((1 - x) @ x / 3).reshape(9).sum().dtype,
            dtype,
            "An operation on the way has changed the dtype: a float stays what it is.",
            see="Two operands, one type",
        )


def test_compatibility_with_the_gradients_to_come():
    x = tt.Tensor([1, 2], requires_grad=True)
    expect("x.requires_grad, asked for", lambda: x.requires_grad, True, see=GRADIENTS)
    expect("Tensor([1, 2]).requires_grad", lambda: tt.Tensor([1, 2]).requires_grad, False, see=GRADIENTS)
    expect("x.grad before anything", lambda: x.grad, None, see=GRADIENTS)

    def slope_at_two():
        """By a difference in float64, as later chapters will check their gradients."""
        y = tt.tensor(np.array([2.0]))
        step = 1e-6
        difference = ((y + step) * (y + step) - (y - step) * (y - step)) / (2 * step)
        return difference.item()

    expect("the slope of y * y at 2, by differences in float64", slope_at_two, 4, see=OPERATORS)


def test_compatibility_of_kernels_with_their_definition():
    def both():
        tt.manual_seed(2)
        x, y = tt.randn(3, 4), tt.rand(4, 2) + 0.5
        return (((x @ y) * 2 / y[:3]).transpose().reshape(-1) - 1).sum().item()

    def by_loops():
        with tt.use_kernels(loops):
            return both()

    expect(
        "the same formula by kernels and by loops, the difference",
        lambda: both() - by_loops(),
        between(-1e-3, 1e-3),
        "A kernel disagrees with the loop that defines it.",
        see=KERNELS,
    )


# Integration: small real problems


def test_integration_a_line_is_fitted_by_walking_downhill():
    def fitted():
        tt.manual_seed(1)
        x = tt.rand(64, 2) * 2 - 1
        wanted = x @ tt.Tensor([3, -2]) + 0.5
        weight, bias = tt.zeros(2), tt.zeros(1)
        for _ in range(200):
            error = x @ weight + bias - wanted
            weight -= 0.5 * (x.T @ error) / 64
            bias -= 0.5 * error.mean()
        return [*weight.tolist(), *bias.tolist()]

    expect(
        "weights and bias after 200 steps, of a line 3 x - 2 y + 0.5",
        fitted,
        [3, -2, 0.5],
        (lambda found: max(map(abs, found)) > 100, "The steps go uphill: is `-` or `__rsub__` the wrong way round?"),
        see=OPERATORS,
        tolerance=0.02,
    )


DIGITS = """
.###. ..#.. .###. .###. ...#.
#...# .##.. #...# ....# ..##.
#...# ..#.. ...#. ..##. .#.#.
#...# ..#.. ..#.. ....# #####
.###. .###. ##### .###. ...#.
"""


def test_integration_noisy_digits_are_told_by_their_nearest_neighbour():
    rows = [line.split() for line in DIGITS.strip().splitlines()]
    digits = np.array([[[mark == "#" for mark in row[digit]] for row in rows] for digit in range(5)], np.float32)

    def share_of_right_answers():
        tt.manual_seed(4)
        patterns = tt.Tensor(digits).reshape(5, 25)
        labels = tt.arange(5).reshape(5, 1).expand(5, 40).reshape(-1)
        images = patterns.reshape(5, 1, 25).expand(5, 40, 25).reshape(200, 25) + 0.3 * tt.randn(200, 25)
        distances = pairwise_distances(images, patterns)
        nearest = distances == distances.amin(dim=1, keepdim=True)
        found = (nearest * tt.arange(5)).sum(1)
        return (found == labels).mean().item()

    expect(
        "share of 200 noisy digits whose nearest pattern is theirs",
        share_of_right_answers,
        between(0.95, 1),
        (lambda share: share < 0.5, "No better than chance: a row of distances belongs to one image (200, 5)."),
        "Each step is small: print the shapes of images, patterns and distances.",
        see=EXERCISES,
    )


def test_integration_the_direction_of_a_cloud_is_found():
    def found():
        tt.manual_seed(6)
        cloud = outer(tt.randn(300), tt.Tensor([3, 4])) + 0.1 * tt.randn(300, 2) + 7
        centred = cloud - cloud.mean(0)
        spread = centred.T @ centred / 299
        direction = tt.Tensor([1, 0])
        for _ in range(20):
            direction = spread @ direction
            direction = direction / (direction * direction).sum().sqrt()
        return direction

    expect(
        "the main direction of a cloud along (3, 4), by 20 products with its covariance",
        found,
        [0.6, 0.8],
        ([0.7071, 0.7071], "That is the direction to the cloud's centre: it was not centred."),
        see=BROADCASTING,
        tolerance=0.02,
    )


# Performance: what grows, grows as it should


def test_performance_the_meter_grows_with_the_formula():
    def cost(size):
        with tt.meter() as counted:
            tt.ones(size, size) @ tt.ones(size, size)
        return counted.multiply_adds["matmul"], counted.bytes["matmul"]

    (few, little), (many, much) = cost(20), cost(40)
    expect("multiply-adds of a product of twice the size, by those of the single", many / few, 8, see=METER)
    expect("bytes of a product of twice the size, by those of the single", much / little, 4, see=METER)


def seconds(function):
    """The median of many runs, taken in short stretches."""
    times = []
    for _ in range(15):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def ratio(slow, fast):
    """How many times longer one of two functions takes; they take turns, and the middle of five rounds counts."""
    return statistics.median(seconds(slow) / seconds(fast) for _ in range(5))


def test_performance_products_are_compiled():
    x, array = tt.ones(64, 64), np.ones((64, 64), np.float32)
    expect(
        "time of x @ x by that of NumPy's, for x of shape (64, 64)",
        lambda: ratio(lambda: x @ x, lambda: array @ array),
        measured_between(0.01, 200),
        (lambda times: times > 200, "There is a loop in Python: leave the product to NumPy, whose loops are compiled."),
        see=COST,
    )


def test_performance_operations_work_on_whole_arrays():
    x, array = tt.ones(50_000), np.ones(50_000, np.float32)
    pairs = {
        "x * x": (lambda: x * x, lambda: array * array),
        "x / x": (lambda: x / x, lambda: array / array),
        "1 - x": (lambda: 1 - x, lambda: 1 - array),
        "x == x": (lambda: x == x, lambda: array == array),
        "x.sum()": (lambda: x.sum(), lambda: array.sum()),
    }
    for name, (ours, numpys) in pairs.items():
        expect(
            f"time of {name} by that of NumPy's, for 50,000 numbers",
            lambda ours=ours, numpys=numpys: ratio(ours, numpys),
            measured_between(0.01, 100),
            (lambda times: times > 100, "There is a loop in Python: leave it to NumPy, which works on whole arrays."),
            see=COST,
        )


def test_performance_views_take_no_time_however_large():
    small, large = tt.ones(10, 10), tt.ones(1000, 1000)
    copied = "It grows with the numbers: they are copied. A view is a new shape on old memory."
    for name, view in (("x.transpose()", lambda x: x.transpose()), ("x.reshape(-1)", lambda x: x.reshape(-1))):
        expect(
            f"time of {name} for 1,000,000 numbers by that for 100",
            lambda view=view: ratio(lambda: [view(large) for _ in range(20)], lambda: [view(small) for _ in range(20)]),
            measured_between(0.1, 10),
            (lambda times: times > 10, copied),
            see=VIEWS,
        )


def peak(function):
    """Bytes that a call needs at most, beyond what was there before."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_performance_memory_is_that_of_the_results():
    x = tt.ones(200, 200)
    for name, call in (("x + x", lambda: x + x), ("x * x", lambda: x * x), ("x @ x", lambda: x @ x)):
        expect(
            f"memory of {name} by that of x, at most, for x of shape (200, 200)",
            lambda call=call: peak(call) / x.nbytes,
            measured_between(0, 4),
            (lambda times: times > 100, "That is a table of all products before they are summed."),
            "Memory for the result, and little beside it.",
            see=DOOR,
        )
    expect(
        "memory of 60 transposes and reshapes by that of x, at most",
        lambda: peak(lambda: [(x.transpose(), x.reshape(100, 400)) for _ in range(REPETITIONS)]) / x.nbytes,
        measured_between(0, 0.75),
        "Views are kept, not copies: a view takes a hundred bytes or two.",
        see=VIEWS,
    )
    expect(
        "memory of pairwise_distances(x, x) by that of x, at most, for x of shape (200, 200)",
        lambda: peak(lambda: pairwise_distances(x, x)) / x.nbytes,
        measured_between(0, 15),
        "All differences at once would be 200 times the memory of x.",
        see=EXERCISES,
    )


def test_performance_nothing_is_left_behind_over_60_steps():
    x, weight = tt.ones(500, 50), tt.ones(50, 200)  # large beside what Python itself keeps to be used again

    def step():
        nonlocal weight
        with tt.meter():
            result = (1 - x @ weight / 3).reshape(200, 500)
        weight -= 0.001 * (x.T @ result.reshape(500, 200))
        return operations_of(lambda: (result == result.transpose().transpose()).sum())

    def held():
        for _ in range(REPETITIONS):
            step()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    def grown():
        tracemalloc.start()
        try:
            settled = held()
            return (held() - settled) / (500 * 200 * 4)
        finally:
            tracemalloc.stop()

    expect(
        "memory that 60 steps leave behind, by that of one result",
        grown,
        measured_between(-100, 1),
        "Somebody keeps the tensors of each step: a list that grows, in an interpreter or a kernel.",
        see=WRITING,
    )
