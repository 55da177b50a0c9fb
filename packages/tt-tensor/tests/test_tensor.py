"""Chapter 02, judged by its public names. What a single operation computes is in test_ops.py."""

import itertools
import operator
import threading
import types
import warnings

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor.teaching import expect
from tt_tensor.tensor import (
    SHAPES_TO_PREDICT,
    common_dtype,
    operations_of,
    outer,
    pairwise_distances,
    predict_shapes,
)

STORAGE, OPERATORS, SHAPES, SUMS = "Storage", "Arithmetic", "The same numbers in another shape", "Sums"
DOOR, DTYPES, BROADCASTING = "Primitives and the door", "Two operands, one type", "Broadcasting"
PRODUCTS, PICKING, WRITING = "Matrix products", "Picking elements", "Writing, and the clock"
OUT, METER = "Out of the world of tensors", "A first client of the door: the meter"
ERRORS, EXERCISES = "Errors you will meet", "Exercises"


def words_missing(call, *words):
    """Which of the words are not in the message of the error that a call raises."""
    try:
        call()
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        return [word for word in words if word not in str(error)]
    return list(words)


# The door


def handed_over(call):
    """What an interpreter gets while a function runs: for each operation its name, the shapes of its tensors (or the
    type of what is not a tensor) and its parameters."""
    seen = []

    def see(next, primitive, tensors, params):
        kinds = tuple(t.shape if isinstance(t, tt.Tensor) else type(t).__name__ for t in tensors)
        seen.append((primitive.name, kinds, dict(params)))
        return next(primitive, tensors, params)

    with tt.interpreting(see):
        call()
    return seen


def test_a_primitive_hands_itself_its_tensors_and_its_parameters_to_the_interpreter():
    x = tt.ones(2, 3)
    wanted = {"dim": 1, "keepdim": True}
    for name, call in (
        ("sum(x, dim=1, keepdim=True)", lambda: tt.sum(x, dim=1, keepdim=True)),
        ("sum(x, axis=1, keepdims=True)", lambda: tt.sum(x, axis=1, keepdims=True)),
        ("sum(x, keepdims=True, dim=1)", lambda: tt.sum(x, keepdims=True, dim=1)),
        ("sum(x, 1, True)", lambda: tt.sum(x, 1, True)),
    ):
        expect(
            f"what the interpreter gets from {name}, for x of shape (2, 3)",
            lambda call=call: handed_over(call),
            [("sum", ((2, 3),), wanted)],
            ([], "Nothing went through the door: call the interpreter, `_here.top` or the last one installed."),
            (lambda seen: "axis" in seen[0][2] or "keepdims" in seen[0][2], "NumPy's names: use `numpy_names`."),
            (TypeError, "NumPy's names, and numbers in front, have to be changed before the interpreter is called."),
            (lambda seen: len(seen[0][1]) > 1, "A number is not a tensor: leave such calls to `_call_with_others`."),
            see=DOOR,
        )
    expect(
        "what the interpreter gets from sum(x, axis=1)",
        lambda: handed_over(lambda: tt.sum(x, axis=1)),
        [("sum", ((2, 3),), {"dim": 1})],
        "Each of NumPy's two names may come alone: `axis`, and `keepdims`.",
        see=DOOR,
    )
    expect(
        "what the interpreter gets from matmul(a tensor of shape (3, 3), an array of shape (3, 3))",
        lambda: handed_over(lambda: tt.matmul(tt.ones(3, 3), np.ones((3, 3), np.float32))),
        [("matmul", ((3, 3), (3, 3)), {})],
        (lambda seen: "ndarray" in seen[0][1], "Look at all the arguments: any that is not a tensor changes the way."),
        see=DOOR,
    )


def test_a_primitive_returns_what_the_interpreter_returns():
    def answer(next, primitive, tensors, params):
        return "an answer"

    def asked():
        with tt.interpreting(answer):
            return tt.exp(tt.ones(2))

    expect(
        "exp(x), where the interpreter answers 'an answer'",
        asked,
        "an answer",
        (None, "The interpreter's answer got lost: return it."),
        "The interpreter decides what an operation means, also what comes out: `_here.top`, if there is one.",
        see=DOOR,
    )


def test_arrays_alone_do_not_pass_the_door():
    expect(
        "the type of exp(an array)",
        lambda: type(tt.exp(np.zeros(2))).__name__,
        "ndarray",
        ("Tensor", "Arrays in, array out: leave calls without a tensor to `_call_with_others`."),
        (AttributeError, "An array went to the interpreter, which expects tensors: look at each argument."),
        see=DOOR,
    )
    expect(
        "what the interpreter gets from exp(an array)",
        lambda: handed_over(lambda: tt.exp(np.zeros(2))),
        [],
        "Arrays go straight to the kernel: leave calls without a tensor to `_call_with_others`.",
        see=DOOR,
    )


def noting(seen, word):
    """An interpreter that writes its word into a list and goes on."""

    def note(next, primitive, tensors, params):
        seen.append(word)
        return next(primitive, tensors, params)

    return note


def test_the_last_one_in_the_door_is_asked_first():
    def both():
        seen = []
        with tt.interpreting(noting(seen, "outer")):
            with tt.interpreting(noting(seen, "inner")):
                -tt.ones(2)
            -tt.ones(2)
        -tt.ones(2)
        return seen

    expect(
        "what sees -x in a block inside a block, then -x in the outer block, then -x after both",
        both,
        ["inner", "outer", "outer"],
        (["inner", "outer"], "After the inner block the door is empty: put back what was there before."),
        (["inner", "outer"] * 2, "After the inner block `inner` is still in the door: put back what was there before."),
        (["inner", "outer"] * 3, "After both blocks `inner` is still in the door: put back what was there before."),
        (["inner", "outer", "outer", "outer"], "After both blocks `outer` is still there: put back what was before."),
        (lambda seen: seen[:2] == ["inner", "inner"], "`next` of the inner one is the one that was there before."),
        (["inner", "outer"] * 2 + ["outer"], "What was there before is put back one block too late."),
        (["inner"], "`next` of the inner one is the interpreter that was there before, here the outer one."),
        (lambda seen: seen[0] == "outer", "The one that came last is asked first."),
        see=DOOR,
    )


def test_the_door_of_another_thread_is_another():
    def seen_from_there():
        seen = []
        with tt.interpreting(noting(seen, "here")):
            thread = threading.Thread(target=lambda: -tt.ones(2))
            thread.start()
            thread.join()
        return seen

    expect(
        "what an interpreter of this thread sees of -x in another thread",
        seen_from_there,
        [],
        "Every thread has a door of its own: `_here.top`, not the list for all threads.",
        see=DOOR,
    )


def test_what_is_installed_last_is_asked_unless_this_thread_has_its_own():
    def asked():
        seen = []
        tt.install(noting(seen, "installed"))
        try:
            -tt.ones(2)
            with tt.interpreting(noting(seen, "here")):
                -tt.ones(2)
        finally:
            tt.install.__globals__["_installed"].pop()
        return seen

    expect(
        "what sees -x after install(), then -x in a block of interpreting()",
        asked,
        ["installed", "here", "installed"],
        (["here"], "What is installed is not asked: without a `_here.top`, it is the last of `_installed`."),
        (["here", "installed"], "Without a `_here.top`, the last one of `_installed` is asked."),
        (["installed", "installed"], "`_here.top` comes first: it stands before what is installed."),
        (["installed", "here"], "`next` of the first one on a thread is `_whatever_is_installed`."),
        see=DOOR,
    )


def test_an_interpreter_listens_unless_it_wants_no_backward_pass():
    def listened(*wishes):
        found = []
        with tt.interpreting(noting([], ""), wishes[0]):
            found.append(tt.listening())
            with tt.interpreting(noting([], ""), wishes[1]):
                found.append(tt.listening())
            found.append(tt.listening())
        return [*found, tt.listening()]

    for wishes, wanted in {
        (True, True): [True, True, True, False],
        (True, False): [True, True, True, False],
        (False, True): [False, True, False, False],
        (False, False): [False, False, False, False],
    }.items():
        expect(
            f"listening() in a block (backward={wishes[0]}), in a block in it (backward={wishes[1]}), and after each",
            lambda wishes=wishes: listened(*wishes),
            wanted,
            (lambda found: found[3], "After both blocks it is still true: put `_here.listening` back."),
            (lambda found: not any(found), "`_here.listening` was never set: with backward=True it becomes true."),
            (lambda found, wanted=wanted: found[:2] == wanted[:2], "After the inner block, put back what was before."),
            "With backward=True it is true, with backward=False as it was before the block.",
            see=DOOR,
        )


def test_an_operation_runs_its_kernel_and_wraps_the_result():
    x = tt.Tensor([1, 2])
    expect("evaluate(neg, (x,), {}) for x = [1, 2]", lambda: tt.evaluate(tt.neg, (x,), {}), [-1, -2], see=DOOR)
    expect(
        "evaluate(sum, (y,), {'dim': 1}) for y = [[1, 2], [3, 4]]",
        lambda: tt.evaluate(tt.sum, (tt.Tensor([[1, 2], [3, 4]]),), {"dim": 1}),
        [3, 7],
        (10, "The parameters go to the kernel by name: `**params`."),
        ([4, 6], "These are the sums of the columns: `dim` is the dimension that disappears."),
        see=DOOR,
    )
    for name, call in (("-x", lambda: -x), ("x.sum()", lambda: x.sum())):
        expect(
            f"the type of {name}",
            lambda call=call: isinstance(call(), tt.Tensor),
            True,
            (False, "The kernel's result is NumPy's: wrap it into a tensor."),
            see=DOOR,
        )

    def broken(x, /):
        raise KeyError("not ours")

    expect(
        "evaluate of a primitive whose kernel raises a KeyError",
        lambda: tt.evaluate(types.SimpleNamespace(name="broken", kernel=broken), (x,), {}),
        KeyError,
        "Only ValueError, TypeError and IndexError are about arguments; others are faults, and stay as they are.",
        see=DOOR,
    )


# Storage: what a tensor is made of


def test_numbers_and_lists_become_float32():
    expect(
        "Tensor([1, 2]).dtype",
        lambda: tt.Tensor([1, 2]).dtype,
        tt.float32,
        (tt.int64, "The integers kept their dtype, int64, in which a division has nowhere to put its fraction."),
        (tt.float64, "NumPy's floats are float64 unless told otherwise; deep learning runs on float32."),
        see=STORAGE,
    )
    expect(
        "Tensor([1, 2]).mean()",
        lambda: tt.Tensor([1, 2]).mean().item(),
        1.5,
        (1, "The fraction is gone: `div` is true division, `/`."),
        see=SUMS,
    )

    def halve_in_place():
        x = tt.Tensor([1, 2])
        x /= 2
        return x

    expect(
        "x = Tensor([1, 2]); x /= 2",
        halve_in_place,
        [0.5, 1],
        ([0, 1], "The dtype of x is an integer's: it cuts the fraction off."),
        see=STORAGE,
    )


@pytest.mark.parametrize("data", [3.0, True, [[1, 2.5]], (1, 2), []], ids=str)
def test_all_of_pythons_numbers_become_float32(data):
    expect(f"Tensor({data}).dtype", lambda: tt.Tensor(data).dtype, tt.float32, see=STORAGE)
    expect(f"Tensor({data})", lambda: tt.Tensor(data), np.array(data, np.float32), see=STORAGE)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "int64", "uint8", "bool"])
def test_numpy_arrays_keep_their_dtype(dtype):
    expect(
        f"the dtype of Tensor(an array of {dtype})",
        lambda: tt.Tensor(np.ones(2, dtype)).dtype,
        np.dtype(dtype),
        (tt.float32, "An array already has a dtype that somebody chose; float32 is for Python's numbers and lists."),
        see=STORAGE,
    )


def test_a_dtype_that_is_asked_for_is_given():
    expect("Tensor([1.5, 2], dtype=int32)", lambda: tt.Tensor([1.5, 2], dtype=tt.int32), [1, 2], see=STORAGE)
    for data, name in (([1, 2], "[1, 2]"), (np.ones(2), "an array of float64")):
        expect(
            f"the dtype of Tensor({name}, dtype=float16)",
            lambda data=data: tt.Tensor(data, dtype=tt.float16).dtype,
            tt.float16,
            "The argument `dtype` goes before what the data have.",
            see=STORAGE,
        )


def test_a_list_may_hold_tensors():
    x = tt.Tensor(np.array([1.0, 3.0]))
    expect("Tensor([x.mean(), x.sum()]) for x = [1, 3]", lambda: tt.Tensor([x.mean(), x.sum()]), [2, 4], see=STORAGE)
    expect(
        "its dtype, where x is float64",
        lambda: tt.Tensor([x.mean(), x.sum()]).dtype,
        tt.float64,
        (tt.float32, "The first tensor in the list tells the dtype: see `_dtype_of`."),
        see=STORAGE,
    )
    expect("the dtype of Tensor(x), where x is float64", lambda: tt.Tensor(x).dtype, tt.float64, see=STORAGE)


def test_small_tensor_keeps_integers_and_truth_values():
    for data, dtype in (([1, 2], tt.int64), ([1.0, 2], tt.float32), ([True], tt.bool_)):
        expect(f"tensor({data}).dtype", lambda data=data: tt.tensor(data).dtype, dtype, see="The tensor")
    expect("tensor([1, 2], float64).dtype", lambda: tt.tensor([1, 2], tt.float64).dtype, tt.float64, see="The tensor")


def test_a_tensor_is_a_copy():
    values = np.zeros(3)
    x = tt.Tensor(values)
    values[0] = 7
    expect(
        "x = Tensor(a), then a[0] = 7: x",
        x,
        [0, 0, 0],
        ([7, 0, 0], "Changing the array that x was built from changed x: it shares memory. `as_array` makes a copy."),
        see=STORAGE,
    )
    expect("from_numpy(a)[0] after a[0] = 7", lambda: tt.from_numpy(values)[0].item(), 7, see="The tensor")
    expect(
        "from_numpy(a) shares the memory of a",
        lambda: np.shares_memory(values, tt.from_numpy(values).numpy()),
        True,
        see="The tensor",
    )


@pytest.mark.parametrize("dtype", [None, tt.float32], ids=["as it is", "dtype=float32"])
def test_a_tensor_of_a_tensor_is_a_copy(dtype):
    def change_the_copy():
        x = tt.Tensor([1, 2])
        y = tt.Tensor(x, dtype)
        y += 1
        return x

    expect(
        "y = Tensor(x), then y += 1: x",
        change_the_copy,
        [1, 2],
        ([2, 3], "Changing y changed x: it shares memory. Copy, also where the dtype is right already."),
        see=STORAGE,
    )


@pytest.mark.parametrize(
    "data, error, cause",
    [
        ([[1, 2], [3]], ValueError, "Rows of different lengths make no array."),
        (["a"], TypeError, "A text is no number, and the docstring promises TypeError for that."),
        (["1", "2"], TypeError, "NumPy turns texts into numbers if it is asked for floats; look before you convert."),
        (None, TypeError, "NumPy makes an array of objects, or nan, of this: look at `dtype.kind`."),
        ([1j], TypeError, "Only real numbers: `dtype.kind` is one of f, i, u, b."),
        (np.array([1 + 2j]), TypeError, "Only real numbers: `dtype.kind` is one of f, i, u, b."),
    ],
    ids=["ragged", "text", "digits", "None", "complex", "complex array"],
)
def test_what_is_no_number_is_refused(data, error, cause):
    expect(f"Tensor({data!r})", lambda: tt.Tensor(data), error, cause, see=STORAGE)


# Arithmetic


@pytest.mark.parametrize("sign, operation", [("*", operator.mul), ("/", operator.truediv)])
def test_operands_are_left_alone(sign, operation):
    def operand():
        x = tt.Tensor([2, 3])
        operation(x, x)
        return x

    expect(
        f"x after x {sign} x, for x = [2, 3]",
        operand,
        [2, 3],
        "The kernel has written into its operand: make a new array for the result.",
        see=OPERATORS,
    )


def test_products_and_quotients_are_taken_element_by_element():
    x, y = tt.Tensor([[1, 2], [3, 4]]), tt.Tensor([10, 5])
    product = [[10, 10], [30, 20]]
    expect(
        "[[1, 2], [3, 4]] * [10, 5]",
        lambda: x * y,
        product,
        ([20, 50], "That is the matrix product; `*` goes element by element."),
        see=OPERATORS,
    )
    expect("[[1, 2], [3, 4]] / [10, 5]", lambda: x / y, [[0.1, 0.4], [0.3, 0.8]], see=OPERATORS)
    expect("ones(3, 1) * ones(4): shape", lambda: (tt.ones(3, 1) * tt.ones(4)).shape, (3, 4), see=BROADCASTING)
    mask = tt.tensor([True, False])
    expect("[True, False] * [10, 5]", lambda: mask * y, [10, 0], see=DTYPES)


def test_division_by_zero_is_an_answer():
    def without_a_warning():
        with np.errstate(all="warn"), warnings.catch_warnings():
            warnings.simplefilter("error")
            return tt.Tensor([1, -1, 0]) / 0

    expect(
        "[1, -1, 0] / 0",
        without_a_warning,
        [np.inf, -np.inf, np.nan],
        (RuntimeWarning, "NumPy warns of inf and nan; here they are answers. Keep it `quiet()`."),
        (ZeroDivisionError, "Python refuses this; arrays answer inf and nan."),
        see=DOOR,
    )


def test_division_of_integers_gives_fractions():
    x = tt.tensor([7, 1])
    expect(
        "tensor([7, 1]) / 2",
        lambda: x / 2,
        [3.5, 0.5],
        ([3, 0], "That is the division that drops the fraction, `//`."),
        see=OPERATORS,
    )
    expect(
        "the dtype of tensor([7, 1]) / tensor([2, 2])",
        lambda: (x / tt.tensor([2, 2])).dtype,
        tt.float32,
        (tt.float64, "NumPy divides integers in float64; make them float32 before."),
        see=OPERATORS,
    )


def test_operators_keep_the_order_of_their_operands():
    x = tt.Tensor([2, 3])
    swapped = "The operands are swapped in `{}`, which Python calls for a number on the left of a tensor."
    expect(
        "1 - x for x = [2, 3]",
        lambda: 1 - x,
        [-1, -2],
        ([1, 2], f"That is x - 1. {swapped.format('__rsub__')}"),
        see=OPERATORS,
    )
    expect(
        "6 / x for x = [2, 3]",
        lambda: 6 / x,
        [3, 2],
        ([1 / 3, 1 / 2], f"That is x / 6. {swapped.format('__rtruediv__')}"),
        see=OPERATORS,
    )
    expect(
        "2 ** x for x = [2, 3]",
        lambda: 2**x,
        [4, 8],
        ([4, 9], f"That is x ** 2. {swapped.format('__rpow__')}"),
        see=OPERATORS,
    )
    expect(
        "1 - mask for mask = [True, False]",
        lambda: 1 - tt.tensor([True, False]),
        [0, 1],
        (TypeError, "A truth value has no negative; subtract it from the number."),
        see=OPERATORS,
    )
    expect(
        "array([1., 1.]) - x for x = [2, 3]",
        lambda: np.ones(2) - x,
        [-1, -2],
        "An array on the left leaves the operation to the tensor.",
        see=OPERATORS,
    )


@pytest.mark.parametrize(
    "sign, compare",
    [
        ("==", operator.eq),
        ("!=", operator.ne),
        ("<", operator.lt),
        ("<=", operator.le),
        (">", operator.gt),
        (">=", operator.ge),
    ],
)
def test_comparisons_answer_element_by_element(sign, compare):
    x = tt.Tensor([1, 2, 3])
    expect(
        f"the shape of x {sign} x for x = [1, 2, 3]",
        lambda: np.shape(compare(x, x)),
        (3,),
        ((), "One answer for the whole tensor; a mask needs one for each element, in the shape of the tensor."),
        see=OPERATORS,
    )
    wanted = [compare(value, 2) for value in (1, 2, 3)]
    expect(f"x {sign} 2 for x = [1, 2, 3]", lambda: compare(x, 2), wanted, see=OPERATORS)
    expect(f"the dtype of x {sign} 2", lambda: compare(x, 2).dtype, tt.bool_, see=OPERATORS)


def test_a_tensor_equals_nothing_that_is_no_number():
    x = tt.Tensor([1, 2])
    for name, other in (("None", None), ("'text'", "text")):
        expect(
            f"x == {name} for x = [1, 2]",
            lambda other=other: x == other,
            False,
            (TypeError, "`==` does not fail: return NotImplemented for what cannot be compared, and Python answers."),
            "Return NotImplemented for what is no number, list or array: `_comparable` tells.",
            see=OPERATORS,
        )
    expect("[1, 2] == x for x = [1, 2]", lambda: [1, 2] == x, [True, True], see=OPERATORS)
    expect("x == array([1, 5]) for x = [1, 2]", lambda: x == np.array([1, 5]), [True, False], see=OPERATORS)


def test_python_numbers_take_the_tensors_dtype_and_integers_give_way():
    for dtype in (tt.float16, tt.float32, tt.float64):
        x = tt.ones(2, dtype=dtype)
        expect(f"the dtype of 2.0 * x + 1 for x of {dtype}", lambda x=x: (2.0 * x + 1).dtype, dtype, see=DTYPES)
        expect(f"the dtype of 1 - x for x of {dtype}", lambda x=x: (1 - x).dtype, dtype, see=DTYPES)
        expect(f"the dtype of x / 3 for x of {dtype}", lambda x=x: (x / 3).dtype, dtype, see=DTYPES)
        expect(
            f"the dtype of x * [1, 2] of {dtype}",
            lambda x=x: (x * tt.tensor([1, 2])).dtype,
            dtype,
            "Floats come before integers: only the operands of the highest kind decide.",
            see=DTYPES,
        )
    expect("the dtype of tensor([1, 2]) * 2", lambda: (tt.tensor([1, 2]) * 2).dtype, tt.int64, see=DTYPES)


@pytest.mark.parametrize(
    "operands, wanted, cause",
    [
        ("float32 (2,), float64 (2,)", "float64", "Of two that have dimensions, the wider one wins."),
        ("float32 (2,), float64 ()", "float32", "What has no dimensions, such as a mean, gives way."),
        ("float64 (), float32 ()", "float64", "If none has dimensions, the widest of all wins."),
        ("float16 (2,), int64 (2,)", "float16", "Floats come before integers, however wide: NumPy would take float64."),
        ("int64 (2,), float32 ()", "float32", "The kind is decided first, among all: one of them is a float."),
        ("uint8 (2,), bool (2,)", "uint8", "Integers come before truth values."),
        ("uint8 (2,), int64 (2,)", "int64", "The wider integer wins."),
        ("uint8 (2,), int64 (), bool (2,)", "uint8", "Among the integers, the one without dimensions gives way."),
        ("bool (2,), bool ()", "bool", "Two masks make a mask."),
        ("float32 (0,), float64 ()", "float32", "A tensor of shape (0,) has a dimension, although it has no elements."),
    ],
)
def test_tensors_meet_in_one_dtype(operands, wanted, cause):
    parts = operands.replace(" (", "|(").split(", ")
    tensors = [tt.zeros(eval(shape), dtype=np.dtype(dtype)) for dtype, shape in (part.split("|") for part in parts)]
    expect(
        f"common_dtype of {operands}",
        lambda: np.dtype(common_dtype(*tensors)),
        np.dtype(wanted),
        cause,
        see=DTYPES,
    )


# Broadcasting


def test_shapes_broadcast_from_the_right():
    cases = {
        ((3, 1, 4), (2, 1)): (3, 2, 4),
        ((2, 3), (3,)): (2, 3),
        ((0, 1), (1, 5)): (0, 5),
        ((), (2,)): (2,),
        ((4, 1), (1, 1), (5,)): (4, 5),
        ((2,),): (2,),
    }
    for shapes, wanted in cases.items():
        expect(
            f"broadcast_shape{shapes if len(shapes) > 1 else '((2,))'}",
            lambda shapes=shapes: tt.broadcast_shape(*shapes),
            wanted,
            "Line the shapes up at their right ends; a size of 1, or none at all, takes the size of the other.",
            see=BROADCASTING,
        )
    x, y = tt.ones(3, 1, 4), tt.ones(2, 1)
    expect("the shape of ones(3, 1, 4) + ones(2, 1)", lambda: (x + y).shape, (3, 2, 4), see=BROADCASTING)


@pytest.mark.parametrize("shapes", [((2,), (3,)), ((2, 3), (2,)), ((3, 4), (4, 3)), ((0,), (2,)), ((2,), (1,), (3,))])
def test_sizes_that_differ_are_refused(shapes):
    expect(
        f"broadcast_shape{shapes}",
        lambda: tt.broadcast_shape(*shapes),
        ValueError,
        (lambda shape: isinstance(shape, tuple), "Two sizes in one column differ and neither is 1: that fits nowhere."),
        see=BROADCASTING,
    )


def test_broadcasting_is_numpys():
    def numpys(*shapes):
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            return "refused"

    def ours(*shapes):
        try:
            return tuple(tt.broadcast_shape(*shapes))
        except ValueError:
            return "refused"

    def first_that_differs():
        shapes = [shape for n in range(4) for shape in itertools.product((0, 1, 2), repeat=n)]
        pairs = itertools.product(shapes, shapes)
        return next(((a, b, ours(a, b)) for a, b in pairs if ours(a, b) != numpys(a, b)), None)

    expect(
        "the first pair of shapes on which broadcast_shape and NumPy differ, and what it said",
        first_that_differs,
        None,
        see=BROADCASTING,
    )


# Matrix products


def test_the_matrix_product_is_no_product_of_elements():
    x, y = tt.Tensor([[1, 2], [3, 4]]), tt.Tensor([[5, 6], [7, 8]])
    expect(
        "[[1, 2], [3, 4]] @ [[5, 6], [7, 8]]",
        lambda: x @ y,
        [[19, 22], [43, 50]],
        (
            [[5, 12], [21, 32]],
            "That is the elementwise product; an entry of `@` is a row of x times a column of y, summed.",
        ),
        ([[23, 34], [31, 46]], "That is y @ x: the operands are swapped."),
        ([[17, 23], [39, 53]], "That is x @ y.T: rows of x meet columns of y, not rows."),
        see=PRODUCTS,
    )


def test_vectors_and_stacks_have_products():
    x, vector = tt.Tensor([[1, 2, 3], [4, 5, 6]]), tt.Tensor([1, 0, 2])
    expect("[1, 0, 2] @ [1, 0, 2]", lambda: vector @ vector, 5, see=PRODUCTS)
    expect("[[1, 2, 3], [4, 5, 6]] @ [1, 0, 2]", lambda: x @ vector, [7, 16], see=PRODUCTS)
    expect("[1, 2] @ [[1, 2, 3], [4, 5, 6]]", lambda: tt.Tensor([1, 2]) @ x, [9, 12, 15], see=PRODUCTS)
    expect(
        "the shape of ones(2, 1, 3, 4) @ ones(5, 4, 2)",
        lambda: (tt.ones(2, 1, 3, 4) @ tt.ones(5, 4, 2)).shape,
        (2, 5, 3, 2),
        "The leading dimensions are stacks of matrices, which broadcast; `np.dot` does something else with them.",
        see=PRODUCTS,
    )
    expect("zeros(2, 3) @ zeros(2, 3)", lambda: tt.zeros(2, 3) @ tt.zeros(2, 3), ValueError, see=PRODUCTS)
    expect(
        "ones(2, 1) @ ones(3, 4)",
        lambda: tt.ones(2, 1) @ tt.ones(3, 4),
        ValueError,
        "Only the leading dimensions broadcast: what is summed over has equal sizes, also where one of them is 1.",
        see=PRODUCTS,
    )


class Watched(np.ndarray):
    """An array that notes the shapes of all products that it takes part in."""

    products: list = []

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if ufunc in (np.matmul, np.multiply, getattr(np, "matvec", None)):
            self.products.append(tuple(np.shape(x) for x in inputs))
        plain = [x.view(np.ndarray) if isinstance(x, Watched) else x for x in inputs]
        return np.asarray(getattr(ufunc, method)(*plain, **options)).view(Watched)

    def __array_function__(self, function, kinds, args, options):
        if function in (np.dot, np.tensordot, np.einsum, np.inner, np.vecdot):
            self.products.append(tuple(np.shape(x) for x in args if isinstance(x, np.ndarray)))
        return super().__array_function__(function, kinds, args, options)


def test_a_stack_times_one_matrix_is_one_product():
    def products():
        x, y = np.ones((5, 6, 3)).view(Watched), np.ones((3, 2))
        Watched.products.clear()
        shape = np.shape(tt.matmul(x, y))
        return shape, list(Watched.products)

    expect(
        "the shape of ones(5, 6, 3) @ ones(3, 2), and the products of NumPy's that it took",
        products,
        ((5, 6, 2), [((30, 3), (3, 2))]),
        (
            lambda found: found[1] == [((5, 6, 3), (3, 2))],
            "NumPy makes a product for each matrix of the stack: the rows of all of them, `as_rows(x)`, make one.",
        ),
        (lambda found: len(found[1]) > 1, "One product for each matrix: make one matrix of all their rows."),
        (lambda found: len(found[0]) == 2, "The rows are still one long matrix: give them the stack's shape again."),
        see=PRODUCTS,
    )


def test_a_product_of_two_dtypes_is_refused():
    counts = tt.tensor([[1, 2]])
    for name, other in (("float32", tt.ones(2, 1)), ("int32", tt.ones(2, 1, dtype=tt.int32))):
        expect(
            f"a product of int64 and {name}",
            lambda other=other: counts @ other,
            TypeError,
            "NumPy takes 64 bits here, and a whole network may follow: let `same_dtype` refuse it.",
            see=PRODUCTS,
        )
    for words in words_missing(lambda: tt.ones(2, 2) @ np.ones((2, 2)), "matmul", "float32 and float64", "x.float()"):
        pytest.fail(f"the message does not say {words}")
    expect("the dtype of a product of integers", lambda: (counts @ counts.T).dtype, tt.int64, see=PRODUCTS)


# Shapes


def test_reshape_reads_row_by_row():
    x = tt.Tensor([[1, 2, 3], [4, 5, 6]])
    expect(
        "[[1, 2, 3], [4, 5, 6]].reshape(3, 2)",
        lambda: x.reshape(3, 2),
        [[1, 2], [3, 4], [5, 6]],
        ([[1, 5], [4, 3], [2, 6]], "The values were read in column order; the last index runs fastest, row by row."),
        ([[1, 4], [2, 5], [3, 6]], "That is the transpose: reshape keeps the numbers in reading order."),
        see=SHAPES,
    )
    expect("[[1, 2, 3], [4, 5, 6]].flatten()", lambda: x.flatten(), [1, 2, 3, 4, 5, 6], see=SHAPES)
    expect(
        "[[1, 2, 3], [4, 5, 6]].T.reshape(2, 3)",
        lambda: x.T.reshape(2, 3),
        [[1, 4, 2], [5, 3, 6]],
        (
            [[1, 2, 3], [4, 5, 6]],
            "These are the numbers as they lie in memory; what counts is the order in which the transpose reads them.",
        ),
        see=SHAPES,
    )


def test_reshape_finds_the_size_that_is_left_open():
    x = tt.zeros(2, 3)
    expect("the shape of zeros(2, 3).reshape(-1)", lambda: x.reshape(-1).shape, (6,), see=SHAPES)
    expect("the shape of zeros(2, 3).reshape((3, -1))", lambda: x.reshape((3, -1)).shape, (3, 2), see=SHAPES)
    expect("the shape of zeros(1).reshape(())", lambda: tt.zeros(1).reshape(()).shape, (), see=SHAPES)
    expect("zeros(2, 3).reshape(4, 2)", lambda: x.reshape(4, 2), ValueError, see=SHAPES)


def test_transpose_swaps_two_dimensions():
    x = tt.zeros(2, 3, 4)
    expect(
        "shape of zeros(2, 3, 4).transpose()",
        lambda: x.transpose().shape,
        (2, 4, 3),
        ((4, 3, 2), "All dimensions were reversed: swap only the last two axes, the others count matrices."),
        see=SHAPES,
    )
    expect("shape of zeros(2, 3, 4).transpose(0, 1)", lambda: x.transpose(0, 1).shape, (3, 2, 4), see=SHAPES)
    expect("shape of zeros(2, 3, 4).transpose(-1, 0)", lambda: x.transpose(-1, 0).shape, (4, 3, 2), see=SHAPES)
    expect("shape of zeros(2, 3, 4).mT", lambda: x.mT.shape, (2, 4, 3), see=SHAPES)
    expect("shape of zeros(2, 3, 4).permute(2, 0, 1)", lambda: x.permute(2, 0, 1).shape, (4, 2, 3), see=SHAPES)
    expect("zeros(2, 3, 4).transpose(0, 3)", lambda: x.transpose(0, 3), IndexError, see=SHAPES)
    expect("zeros(2, 3, 4).T", lambda: x.T, ValueError, see=SHAPES)


def test_transpose_moves_the_numbers():
    x = tt.Tensor([[1, 2, 3], [4, 5, 6]])
    expect(
        "[[1, 2, 3], [4, 5, 6]].transpose()",
        lambda: x.transpose(),
        [[1, 4], [2, 5], [3, 6]],
        ([[1, 2], [3, 4], [5, 6]], "That is reshape(3, 2), which keeps the reading order: reorder the dimensions."),
        see=SHAPES,
    )


# Sums


def test_sum_keeps_a_dimension_when_told_to():
    x = tt.Tensor([[1, 2, 3], [4, 5, 6]])
    expect(
        "shape of x.sum(1, keepdim=True) for x of shape (2, 3)",
        lambda: x.sum(1, keepdim=True).shape,
        (2, 1),
        ((2,), "The dimension is gone: keepdims is not passed on to NumPy."),
        see=SUMS,
    )
    expect("shape of x.sum(keepdim=True)", lambda: x.sum(keepdim=True).shape, (1, 1), see=SUMS)


def test_sum_takes_one_dimension_or_several_or_all():
    x = tt.Tensor([[1, 2, 3], [4, 5, 6]])
    rows, columns = [6, 15], [5, 7, 9]
    expect("[[1, 2, 3], [4, 5, 6]].sum()", lambda: x.sum(), 21, see=SUMS)
    expect(
        "the sums over the rows of 4096 x 2 ones of float16",
        lambda: tt.ones(4096, 2, dtype=tt.float16).sum(0),
        [4096, 4096],
        ([2048, 2048], "In float16, 2048 + 1 is 2048: add one width up, as `ADDED_IN` says."),
        see=SUMS,
    )
    expect("the dtype of a sum of float16", lambda: tt.ones(2, dtype=tt.float16).sum().dtype, tt.float16, see=SUMS)
    expect(
        "[[1, 2, 3], [4, 5, 6]].sum(0)",
        lambda: x.sum(0),
        columns,
        (rows, "These are the sums of the rows: `dim` is the dimension that disappears."),
        see=SUMS,
    )
    expect("[[1, 2, 3], [4, 5, 6]].sum(-1)", lambda: x.sum(-1), rows, see=SUMS)
    expect("[[1, 2, 3], [4, 5, 6]].sum((0, 1))", lambda: x.sum((0, 1)), 21, see=SUMS)
    expect("the shape of ones(2, 3, 4).sum((0, -1))", lambda: tt.ones(2, 3, 4).sum((0, -1)).shape, (3,), see=SUMS)
    expect("x.sum(2) for x of shape (2, 3)", lambda: x.sum(2), IndexError, see=SUMS)


def test_counts_do_not_overflow():
    mask, small = tt.tensor([True] * 300), tt.Tensor(np.full(2, 200, np.uint8))
    expect(
        "the sum of 300 times True",
        lambda: mask.sum(),
        300,
        (True, "Truth values were added as truth values: add them as int64."),
        see=SUMS,
    )
    expect(
        "the sum of two uint8 of 200",
        lambda: small.sum(),
        400,
        (144, "It went over 255, the largest uint8: add integers as int64."),
        see=SUMS,
    )
    integers = [tt.ones(2, dtype=dtype) for dtype in (tt.uint8, tt.int32, tt.int64)]
    for x, dtype in (
        *((x, tt.int64) for x in (mask, *integers)),
        *((tt.ones(2, dtype=dtype), dtype) for dtype in (tt.float16, tt.float32, tt.float64)),
    ):
        expect(
            f"the dtype of a sum of {x.dtype}",
            lambda x=x: x.sum().dtype,
            dtype,
            (np.dtype(np.uint64), "NumPy adds unsigned integers as uint64; here all integers are added as int64."),
            (tt.float64, "It was added one width up; round once at the end, back to the dtype of x."),
            (tt.float32, "It was added one width up; round once at the end, back to the dtype of x."),
            see=SUMS,
        )


def test_sum_takes_dimensions_in_a_list_and_adds_wide():
    x = tt.Tensor([[1, 2, 3], [4, 5, 6]])
    for dims in ([0, 1], (0,), [-1]):
        expect(
            f"[[1, 2, 3], [4, 5, 6]].sum({dims})",
            lambda dims=dims: x.sum(dims),
            np.array([[1, 2, 3], [4, 5, 6]]).sum(tuple(dims)),
            (TypeError, "Several dimensions come as a tuple or as a list: `_axes` makes of both what NumPy wants."),
            see=SUMS,
        )
    expect(
        "the shape of ones(2, 3, 4).sum([0, -1], keepdim=True)",
        lambda: tt.ones(2, 3, 4).sum([0, -1], keepdim=True).shape,
        (1, 3, 1),
        see=SUMS,
    )
    expect("ones(2, 3).sum(2)", lambda: x.sum(2), IndexError, see=SUMS)
    expect(
        "Tensor([16777216, 1, 1]).sum() - 16777216",
        lambda: tt.Tensor([16777216, 1, 1]).sum().item() - 16777216,
        2,
        (0, "In float32, 16777216 + 1 is 16777216: add one width up, as `ADDED_IN` says."),
        see=SUMS,
    )


def test_mean_and_spread_follow_from_the_sum():
    x = tt.Tensor([[1, 2, 6], [3, 3, 3]])
    expect("[[1, 2, 6], [3, 3, 3]].mean(1)", lambda: x.mean(1), [3, 3], see=SUMS)
    expect("the shape of x.mean(1, keepdim=True)", lambda: x.mean(1, keepdim=True).shape, (2, 1), see=SUMS)
    by_n = 14 / 3
    expect(
        "[1, 2, 6].var()",
        lambda: x[0].var(),
        7,
        (by_n, "That is divided by n; like PyTorch, divide by n - 1."),
        see=SUMS,
    )
    expect("[1, 2, 6].var(correction=0)", lambda: x[0].var(correction=0), by_n, see=SUMS)
    expect("[1, 2, 6].std()", lambda: x[0].std(), 7**0.5, see=SUMS)


def test_the_variance_is_that_of_what_is_left_without_the_mean():
    x = tt.Tensor([[1, 2, 6], [3, 4, 5]])
    row_by_row = "Without `keepdim`, the means of the rows do not broadcast against the rows: keep the dimension."
    expect("[[1, 2, 6], [3, 4, 5]].var(1)", lambda: x.var(1), [7, 1], (ValueError, row_by_row), see=SUMS)
    expect("[[1, 2, 6], [3, 4, 5]].var(0, correction=0)", lambda: x.var(0, correction=0), [1, 1, 0.25], see=SUMS)
    square = tt.Tensor([[1, 3], [10, 20]])
    expect("[[1, 3], [10, 20]].var(1)", lambda: square.var(1), [2, 50], row_by_row, see=SUMS)
    expect("[[1, 3], [10, 20]].var()", lambda: square.var(), 73 + 2 / 3, see=SUMS)
    expect(
        "the variance of 16777216, 16777218 and 16777218, by correction=0",
        lambda: tt.Tensor([16777216, 16777218, 16777218]).var(correction=0),
        8 / 9,
        (4 / 3, "The mean was rounded to 16777218: subtract the mean of what is left, too."),
        see=SUMS,
    )


def test_shapes_were_predicted():
    def truth(expression):
        try:
            return expression(tt.ones(4, 3)).shape
        except ValueError:
            return None

    causes = {
        "a": "A column (4, 1) broadcasts over the three columns of x.",
        "b": "Shapes are lined up at their right ends: 3 meets 4, and neither is 1.",
        "c": "(4, 1, 3) meets (4, 3), which counts as (1, 4, 3): every row of x minus every row of x.",
        "d": "Dimension 0, of size 4, disappears.",
        "e": "The mean along 1 has shape (4,), which stands under the 3: it does not fit without keepdim.",
        "f": "With keepdim the means are a column (4, 1), which broadcasts.",
        "g": "A stack of five matrices (2, 4) times one (4, 3): five matrices (2, 3).",
        "h": "transpose() swaps the last two dimensions: (2, 3, 4) times (4, 3).",
    }
    found = predict_shapes()
    for letter, expression in SHAPES_TO_PREDICT.items():
        expect(
            f"predict_shapes()['{letter}']",
            lambda letter=letter: found[letter] if found[letter] is None else tuple(found[letter]),
            truth(expression),
            (KeyError, "One entry for each letter of `SHAPES_TO_PREDICT`."),
            causes[letter],
            see=SUMS,
        )


# What else happens in the door: views, errors, and who stands in it


def test_views_share_memory():
    x = tt.zeros(2, 3)
    views = {
        "x.T": lambda: x.T,
        "x.reshape(3, 2)": lambda: x.reshape(3, 2),
        "x[0]": lambda: x[0],
        "x[:, ::2]": lambda: x[:, ::2],
        "x.unsqueeze(0)": lambda: x.unsqueeze(0),
        "x[0].expand(5, 3)": lambda: x[0].expand(5, 3),
        "x.T.reshape(1, 3, 2)": lambda: x.T.reshape(1, 3, 2),
    }
    for name, view in views.items():
        expect(
            f"{name} shares the memory of x",
            lambda view=view: np.shares_memory(x.numpy(), view().numpy()),
            True,
            "Something copies: `Tensor(array)` does, `_wrap(array)` does not.",
            see="Shape, strides and why a transpose is free",
        )

    def write_through():
        x[0] += 1
        return x.T[:, 0]

    expect("x[0] += 1, then x.T[:, 0]", write_through, [1, 1, 1], see=WRITING)


@pytest.mark.parametrize(
    "name, wrong, error, words",
    [
        ("x + zeros(3)", lambda x: x + tt.zeros(3), ValueError, ["add", "(3, 4)", "(3,)"]),
        ("x @ x", lambda x: x @ x, ValueError, ["matmul", "(3, 4)"]),
        ("x.reshape(5, 2)", lambda x: x.reshape(5, 2), ValueError, ["reshape", "(3, 4)", "(5, 2)"]),
        ("x.sum(2)", lambda x: x.sum(2), IndexError, ["sum", "2", "(3, 4)"]),
        ("x[7]", lambda x: x[7], IndexError, ["7", "(3, 4)"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors_speak_of_operations_and_shapes(name, wrong, error, words):
    x = tt.zeros(3, 4)
    expect(f"{name} for x of shape (3, 4)", lambda: wrong(x), error, see=ERRORS)
    expect(
        f"words that the error of {name} lacks",
        lambda: words_missing(lambda: wrong(x), *words),
        [],
        "NumPy's words came through: `_explained` knows operation and shapes, and `evaluate` calls it.",
        see=ERRORS,
    )


def test_every_operation_goes_through_the_door():
    def double_every_sum(next, primitive, tensors, params):
        out = next(primitive, tensors, params)
        return out + out if primitive.name == "sum" else out

    def doubled():
        with tt.interpreting(double_every_sum):
            return (tt.ones(3) * 2).sum().item()

    expect("(ones(3) * 2).sum() while somebody in the door doubles each sum", doubled, 12, see=DOOR)
    expect("(ones(3) * 2).sum() afterwards", lambda: (tt.ones(3) * 2).sum().item(), 6, see=DOOR)


def test_the_door_is_clear_again_after_an_error():
    def refuse(next, primitive, tensors, params):
        raise KeyError("refused")

    def refused_and_then():
        try:
            with tt.interpreting(refuse):
                tt.ones(2) + 1
        except KeyError:
            return (tt.ones(2) + 1).tolist()

    expect("ones(2) + 1 after somebody in the door has raised an error", refused_and_then, [2, 2], see=DOOR)


# Picking and writing


def test_indexing_is_numpys():
    x = tt.arange(12).reshape(3, 4)
    array = np.arange(12).reshape(3, 4)
    picks = {
        "[1, -1]": (1, -1),
        "[:, 1]": (slice(None), 1),
        "[..., None]": (..., None),
        "[[0, 2]]": [0, 2],
        "[::-1]": slice(None, None, -1),
    }
    for name, index in picks.items():
        expect(f"x{name} for x = arange(12).reshape(3, 4)", lambda index=index: x[index], array[index], see=PICKING)
    expect("x[x > 9]", lambda: x[x > 9], [10, 11], see=PICKING)
    expect("x[tensor([2]), 0]", lambda: x[tt.tensor([2]), 0], [8], see=PICKING)
    expect("x[ones(2)], with numbers that are no positions", lambda: x[tt.ones(2)], IndexError, see=PICKING)
    expect("len(x)", lambda: len(x), 3, see=PICKING)
    expect("the second row of an iteration over x", lambda: [row.tolist() for row in x][1], [4, 5, 6, 7], see=PICKING)


def test_operators_with_an_equals_sign_change_the_memory():
    def changed():
        x = tt.zeros(3)
        view = x[1:]
        x += 1
        view *= 4
        return x

    expect("x = zeros(3); view = x[1:]; x += 1; view *= 4: x", changed, [1, 4, 4], see=WRITING)
    expect("zeros(2).copy_(zeros(5))", lambda: tt.zeros(2).copy_(tt.zeros(5)), ValueError, see=WRITING)


def test_the_clock_sees_writes_through_views():
    x, other = tt.zeros(3), tt.zeros(3)
    before = tt.tick()
    x.reshape(3, 1)[0] = 1
    expect("x was written to, through a view", lambda: tt.last_write(x) > before, True, see=WRITING)
    expect("all views tell the same", lambda: tt.last_write(x[1:]) == tt.last_write(x), True, see=WRITING)
    expect("another tensor was written to", lambda: tt.last_write(other) > before, False, see=WRITING)


def test_what_leaves_the_world_of_tensors():
    x = tt.ones(2)
    expect("bool(ones(2))", lambda: bool(x), ValueError, see=OUT)
    expect("ones(2).item()", lambda: x.item(), ValueError, see=OUT)
    expect("Tensor([2.5]).item()", lambda: tt.Tensor([2.5]).item(), 2.5, see=OUT)
    expect("ones(2).numpy() can be written to", lambda: x.numpy().flags.writeable, False, see=STORAGE)
    expect("ones(2).backward()", lambda: x.backward(), RuntimeError, see="Room for gradients")
    integers = tt.zeros(2, dtype=tt.int64)
    expect("requires_grad_() of integers", lambda: integers.requires_grad_(), RuntimeError, see="Room for gradients")


def test_chance_is_fixed_by_the_seed():
    def draw():
        tt.manual_seed(3)
        return [*tt.randn(2).tolist(), *tt.rand(2).tolist(), *tt.randperm(5).tolist()]

    expect("the same seed gives the same randn, rand and randperm", lambda: draw() == draw(), True, see="The tensor")


# The meter


def test_the_meter_changes_nothing():
    def metered():
        with tt.meter():
            return -tt.Tensor([1, 2])

    expect(
        "-x for x = [1, 2], while the meter counts",
        metered,
        [-1, -2],
        (None, "The operation's result got lost in the meter: return what `next` returned."),
        see=METER,
    )


def test_the_meter_counts_multiply_adds_and_no_views():
    x, weight = tt.ones(64, 784), tt.ones(256, 784)

    def layer():
        with tt.meter() as counted:
            x @ weight.T + 1
        return counted

    expect(
        "the type of what the meter has counted of x @ weight.T + 1",
        lambda: type(layer()).__name__,
        "Meter",
        (TypeError, "`cost` gets arrays, not tensors: `size` of a tensor is a method, of an array a number."),
        (AttributeError, "Tensors keep their array in `_array`, and arrays have `size` and `nbytes`."),
        see=METER,
    )
    counted = layer()
    expect(
        "calls while the meter counts x @ weight.T + 1",
        dict(counted.calls),
        {"permute": 1, "matmul": 1, "add": 1},
        "Each call counts, also that of a view.",
        see=METER,
    )
    macs = {name: count for name, count in counted.multiply_adds.items() if count}
    expect(
        "multiply-adds of x @ weight.T + 1, for x of (64, 784) and weight of (256, 784)",
        macs,
        {"matmul": 64 * 784 * 256, "add": 64 * 256},
        (lambda macs: "permute" in macs, "A transpose moves nothing: what shares memory with an input costs nothing."),
        (
            lambda macs: macs.get("matmul") == 64 * 256,
            "A primitive may know its own cost: call `primitive.cost` where there is one.",
        ),
        "The cost that the primitive declares, or else the number of elements of the result.",
        see=METER,
    )
    moved = {name: count for name, count in counted.bytes.items() if count}
    expect(
        "bytes of x @ weight.T + 1, in float32",
        moved,
        {"matmul": 4 * (64 * 784 + 784 * 256 + 64 * 256), "add": 4 * (64 * 256 + 1 + 64 * 256)},
        "What is read and what is written: the `nbytes` of all inputs and of the result.",
        see=METER,
    )


def test_the_meter_tells_views_from_copies():
    x = tt.arange(6).reshape(2, 3)
    with tt.meter() as counted:
        x.T, x[0], x[:, ::2], x[:, :1].expand(2, 3), x.reshape(3, 2)
    expect("bytes of five views", sum(counted.bytes.values()), 0, "A view moves nothing.", see=METER)
    with tt.meter() as counted:
        x.T.reshape(2, 3), x[[0, 1]]
    moved = {name: count for name, count in counted.bytes.items() if count}
    expect(
        "bytes of x.T.reshape(2, 3) and x[[0, 1]], for int64 of shape (2, 3)",
        moved,
        {"reshape": 96, "getitem": 96},
        ({}, "Both copy: a result that has memory of its own is not a view, whatever its primitive."),
        see=METER,
    )


def test_the_meter_hands_parameters_to_the_cost():
    with tt.meter() as counted:
        tt.ones(4, 5).sum(1)
    expect("multiply-adds of ones(4, 5).sum(1)", dict(counted.multiply_adds), {"sum": 20}, see=METER)


# Exercises


def test_outer():
    expect(
        "outer([1, 2], [3, 4, 5])",
        lambda: outer(tt.Tensor([1, 2]), tt.Tensor([3, 4, 5])),
        [[3, 4, 5], [6, 8, 10]],
        (np.array([[3, 6], [4, 8], [5, 10]]), "That is its transpose: x runs down the rows."),
        "A column of shape (n, 1) and a row of shape (1, m) broadcast to (n, m).",
        see=EXERCISES,
    )


def test_pairwise_distances():
    x, y = tt.Tensor([[0, 0], [3, 4]]), tt.Tensor([[0, 0], [0, 4]])
    expect(
        "pairwise_distances([[0, 0], [3, 4]], [[0, 0], [0, 4]])",
        lambda: pairwise_distances(x, y),
        [[0, 4], [5, 3]],
        ([[0, 16], [25, 9]], "These are the squares of the distances: take the root."),
        ([[0, 5], [4, 3]], "That is its transpose: the rows of x run down."),
        see=EXERCISES,
    )
    three = tt.Tensor([[0, 0], [3, 4], [6, 8]])
    expect(
        "pairwise_distances of three rows to two",
        lambda: pairwise_distances(three, y),
        [[0, 4], [5, 3], [10, 52**0.5]],
        (ValueError, "Squares of x belong to rows, a column (n, 1); those of y to columns, a row (m,)."),
        see=EXERCISES,
    )


def test_pairwise_distances_of_equal_rows_are_numbers():
    tt.manual_seed(0)
    x = tt.rand(20, 3) + 100
    expect(
        "nan in pairwise_distances(x, x), for 20 random rows of size 100",
        lambda: int(np.isnan(pairwise_distances(x, x).numpy()).sum()),
        0,
        "Rounding makes squares a little less than 0, which have no root: clip them at 0.",
        see=EXERCISES,
    )


def test_pairwise_distances_do_not_subtract_every_pair():
    x = tt.ones(60, 64)
    with tt.meter() as counted:
        pairwise_distances(x, x)
    expect(
        "numbers moved by pairwise_distances(x, x), by 60 * 60 * 64 of all differences, for x of shape (60, 64)",
        sum(counted.bytes.values()) / 4 / (60 * 60 * 64) < 1,
        True,
        "All differences are a tensor of shape (60, 60, 64): expand the square, and it takes one matrix product.",
        see=EXERCISES,
    )

    def calls(rows):
        with tt.meter() as counted:
            pairwise_distances(tt.ones(rows, 2), tt.ones(rows, 2))
        return sum(counted.calls.values())

    expect(
        "operations for 3 rows are as many as for 30",
        lambda: calls(3) == calls(30),
        True,
        "There is a loop over rows: broadcasting takes its place.",
        see=EXERCISES,
    )


def test_operations_of():
    expect(
        "operations_of(lambda x: (x * 2).sum(), ones(3))",
        lambda: operations_of(lambda x: (x * 2).sum(), tt.ones(3)),
        ["mul", "sum"],
        ([], "Nothing was seen: stand in the door with `interpreting` while the function runs."),
        (["sum", "mul"], "In the order of the calls, the first one first."),
        see=EXERCISES,
    )
    expect(
        "operations_of(lambda x, y: x.T @ y + x.T @ y, ones(3, 2), ones(3, 2))",
        lambda: operations_of(lambda x, y: x.T @ y + x.T @ y, tt.ones(3, 2), tt.ones(3, 2)),
        ["permute", "matmul", "permute", "matmul", "add"],
        (lambda names: len(set(names)) == len(names), "Each call, also if the operation was called before."),
        see=EXERCISES,
    )

    def computed():
        results = []
        operations_of(lambda x: results.append((x * 2).sum().item()), tt.ones(3))
        return results

    expect(
        "what (x * 2).sum() is for x = ones(3), while operations_of watches",
        computed,
        [6.0],
        "Watch and let it happen: return what `next` gives for the operation.",
        see=EXERCISES,
    )
