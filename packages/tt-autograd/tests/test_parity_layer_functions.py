"""Activations, losses and distances of the appendices beside torch's: values, dtypes and gradients."""

import numpy as np
import pytest

import tt_autograd
import tt_tensor as tt
from tt_tensor.testing_layers import LAYER_OPS

torch = pytest.importorskip("torch", reason="torch is the oracle here: hatch run parity:run")

pytestmark = pytest.mark.filterwarnings("ignore:Implicit dimension")
# torch's hardsigmoid and celu divide by a float32 also in float64
TOLERANCE = {np.float64: 1e-7, np.float32: 1e-5}


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("op", LAYER_OPS, ids=[op.name for op in LAYER_OPS])
def test_value_and_gradient(op, dtype):
    for sample in op.samples(most=40):
        arrays = [a.astype(dtype) if a.dtype.kind == "f" else a for a in sample.arrays]
        ours, theirs = [tt.from_numpy(a.copy()) for a in arrays], [torch.from_numpy(a.copy()) for a in arrays]
        for i in op.watched(sample):
            ours[i].requires_grad_(), theirs[i].requires_grad_()
        result, expected = op.function(*ours, **sample.options), op.in_torch(torch)(*theirs, **sample.options)
        what = f"{op.name}({', '.join(str(a.shape) for a in arrays)}, {sample.options})"
        assert (result.shape, str(result.dtype)) == (tuple(expected.shape), str(expected.dtype)[6:]), what
        same = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype], "err_msg": what}
        np.testing.assert_allclose(result.detach().numpy(), expected.detach().numpy(), **same)
        tt_autograd.backward((result * result).sum())
        (expected * expected).sum().backward()
        for i in op.watched(sample):
            np.testing.assert_allclose(ours[i].grad.numpy(), theirs[i].grad.numpy(), **same)


CORNERS = ["relu6", "hardtanh", "hardsigmoid", "hardswish", "hardshrink", "softshrink", "selu", "celu", "softsign"]


@pytest.mark.parametrize("name", CORNERS)
def test_slopes_at_corners_are_torchs(name):
    x = np.array([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 6.0])
    ours, theirs = tt.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    getattr(tt.functional, name)(ours).sum().backward()
    getattr(torch.nn.functional, name)(theirs).sum().backward()
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-7)
