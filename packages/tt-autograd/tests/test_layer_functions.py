"""Activations, losses and distances of the appendices: derivatives by finite differences, and what is refused."""

import numpy as np
import pytest

from tt_autograd import check_gradients
from tt_tensor import Tensor
from tt_tensor.testing_layers import LAYER_OPS

MISUSES = [(op.name, misuse) for op in LAYER_OPS for misuse in op.misuses]


@pytest.mark.parametrize("op", LAYER_OPS, ids=[op.name for op in LAYER_OPS])
def test_derivatives(op):
    for i, sample in enumerate(op.samples(most=5)):
        inputs = [Tensor(np.array(a, order="C")) for a in sample.arrays]
        for k in op.watched(sample):
            inputs[k].requires_grad_()

        def squared(*tensors, sample=sample):
            result = op.function(*tensors, **sample.options)
            return result * result

        check_gradients(squared, *inputs, order=1 if i else 2)


@pytest.mark.parametrize(("name", "misuse"), MISUSES, ids=[name for name, _ in MISUSES])
def test_misuse_is_refused_in_words(name, misuse):
    with pytest.raises(misuse.error) as caught:
        misuse.call()
    assert all(word in str(caught.value) for word in misuse.words), str(caught.value)
