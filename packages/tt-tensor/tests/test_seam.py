"""Chapter 02 from the inside: in which words it refuses what cannot be meant, and the primitives' own table."""

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
