"""Chapter 02 from the inside: in which words it refuses what cannot be meant, and the primitives' own table."""

import copy
import os
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tt_tensor as tt


@pytest.mark.parametrize(
    "wrong, error, words",
    [
        (lambda x: x + tt.zeros(3), ValueError, r"add.*\(3, 4\) and \(3,\)"),
        (lambda x: x @ x, ValueError, r"matmul.*\(3, 4\) and \(3, 4\)"),
        (lambda x: x.reshape(5, 2), ValueError, r"reshape.*\(3, 4\).*\(5, 2\)"),
        (lambda x: x.sum(2), IndexError, "dimension 2 .*2 dimensions"),
        (lambda x: x[7], IndexError, "7"),
        (lambda x: x[tt.ones(2)], IndexError, "integers"),
        (lambda x: x.unsqueeze(0).T, ValueError, r"\(1, 3, 4\).*mT"),
        (lambda x: x.item(), ValueError, r"item.*\(3, 4\)"),
        (lambda x: bool(x), ValueError, r"\(3, 4\).*any\(\).*all\(\)"),
        (lambda x: tt.Tensor([[1, 2], [3]]), ValueError, "[Rr]ows"),
        (lambda x: tt.Tensor(["a"]), TypeError, "numbers"),
        (lambda x: tt.broadcast_shape((2, 3), (4, 3)), ValueError, r"\(2, 3\) and \(4, 3\).*-2.*\(2, 4\)"),
        (lambda x: tt.zeros(2, dtype=tt.int64).requires_grad_(), RuntimeError, "float"),
        (lambda x: x.copy_(tt.zeros(5)), ValueError, r"\(5,\)"),
        (lambda x: x.backward(), RuntimeError, "history"),
        (lambda x: x.numpy().fill(1), ValueError, "read-only"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(wrong, error, words):
    with pytest.raises(error, match=words):
        wrong(tt.zeros(3, 4))


def test_a_primitive_is_found_under_its_name():
    assert all(name == primitive.name == primitive.__name__ for name, primitive in tt.PRIMITIVES.items())
    assert tt.PRIMITIVES["matmul"] is tt.matmul and repr(tt.matmul) == "<primitive matmul>"


def test_a_primitive_on_arrays_is_its_kernel():
    product = tt.matmul(np.ones((2, 3)), np.ones((3, 4)))
    assert type(product) is np.ndarray and product.shape == (2, 4)


def test_interpreters_are_asked_from_the_last_to_the_first():
    asked = []

    def ask(name):
        def interpreter(next, primitive, tensors, params):
            asked.append(name)
            return next(primitive, tensors, params)

        return tt.interpreting(interpreter)

    with ask("outer"), ask("inner"):
        -tt.ones(2)
    assert asked == ["inner", "outer"] and not tt.listening()


def passing(next, primitive, tensors, params):
    return next(primitive, tensors, params)


def test_an_interpreter_of_forward_passes_sees_primitives_but_does_not_listen():
    seen = []

    def see(next, primitive, tensors, params):
        seen.append(primitive.name)
        return next(primitive, tensors, params)

    with tt.interpreting(see, backward=False):
        -tt.ones(2)
        assert not tt.listening()
    -tt.ones(2)
    assert seen == ["neg"] and not tt.listening()


def test_an_interpreter_of_forward_passes_leaves_what_others_want():
    with tt.interpreting(passing), tt.interpreting(passing, backward=False):
        assert tt.listening()
    with tt.interpreting(passing, backward=False):
        with tt.interpreting(passing):
            assert tt.listening()
        assert not tt.listening()
    assert not tt.listening()


@pytest.mark.parametrize("backward", [True, False])
def test_an_error_takes_the_interpreter_out(backward):
    def refuse(next, primitive, tensors, params):
        raise ZeroDivisionError

    for outer in (True, False):
        with tt.interpreting(passing, backward=outer):
            with pytest.raises(ZeroDivisionError), tt.interpreting(refuse, backward=backward):
                -tt.ones(2)
            assert tt.listening() is outer and (-tt.ones(2)).tolist() == [-1, -1]
    assert not tt.listening()


# Slots: functions on arrays whose kernel can be exchanged


@pytest.fixture
def thrice():
    """A slot of our own."""

    def thrice(x, *, shift=0.0):
        """3 x + shift."""
        return 3 * x + shift

    yield tt.slot(thrice)
    del tt.SLOTS["thrice"]


def nine_times(x, *, shift=0.0):
    return 9 * x + shift


def test_a_slot_is_a_function_with_a_name(thrice):
    assert thrice(np.ones(2), shift=1.0).tolist() == [4, 4] and repr(thrice) == "<slot thrice>"
    assert tt.SLOTS["thrice"] is thrice and "thrice" not in tt.PRIMITIVES and thrice.__doc__ == "3 x + shift."
    assert all(tt.SLOTS[name] is primitive for name, primitive in tt.PRIMITIVES.items())


def test_a_copy_of_a_primitive_is_the_primitive(thrice):
    held = {"activation": tt.relu, "slot": thrice}
    assert copy.deepcopy(held) == held and copy.copy(tt.relu) is tt.relu and copy.deepcopy(thrice) is thrice


def test_the_kernel_of_a_slot_is_exchanged_for_a_while(thrice):
    with tt.use_kernels(types.SimpleNamespace(__name__="mine", thrice=nine_times)):
        assert thrice(1.0) == 9
    assert thrice(1.0) == 3


def test_installed_kernels_stay_until_they_are_taken_out(thrice):
    before = tt.install_kernels({"thrice": nine_times})
    assert thrice(1.0) == 9
    with tt.use_kernels(types.SimpleNamespace(__name__="mine", thrice=lambda x, *, shift=0.0: 0.0)):
        assert thrice(1.0) == 0, "use_kernels has the say"
        assert tt.install_kernels(before) == {"thrice": nine_times} and thrice(1.0) == 0
    assert thrice(1.0) == 3


def test_the_kernels_in_use_have_a_name(thrice):
    assert tt.kernels_in_use() == os.environ.get("TT_KERNELS", "default")
    name = tt.kernels_in_use()
    before = tt.install_kernels({"thrice": nine_times}, "nines")
    try:
        assert tt.kernels_in_use() == "nines"
        with tt.use_kernels(types.SimpleNamespace(__name__="mine", thrice=nine_times)):
            assert tt.kernels_in_use() == "mine"
        with pytest.raises(ValueError, match="is not a kernel"):
            tt.install_kernels({"four_times": nine_times}, "fours")
        assert tt.kernels_in_use() == "nines"
    finally:
        tt.install_kernels(before, name)
    assert tt.kernels_in_use() == name


def test_kernels_are_installed_for_every_thread(thrice):
    before = tt.install_kernels({"thrice": nine_times})
    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(thrice, 1.0).result() == 9
            with tt.use_kernels(types.SimpleNamespace(__name__="mine", exp=tt.exp.default)):  # on this thread only
                pass
    finally:
        tt.install_kernels(before)


@pytest.mark.parametrize(
    "kernels, words",
    [
        ({"exp": lambda x: x}, r"exp\(x\) does not fit.*exp\(x, /\)"),
        ({"neg": np.negative.__call__, "exponential": np.exp}, "neg|exponential"),
    ],
)
def test_a_kernel_that_does_not_fit_installs_nothing(kernels, words):
    own = {name: slot.kernel for name, slot in tt.SLOTS.items()}
    with pytest.raises(ValueError, match=words):
        tt.install_kernels({"log": tt.log.default, **kernels})
    assert {name: slot.kernel for name, slot in tt.SLOTS.items()} == own
