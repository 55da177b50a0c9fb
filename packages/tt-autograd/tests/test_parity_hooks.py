"""Hooks of modules on the way back, beside torch's."""

import numpy as np
import pytest

import tt_autograd
import tt_tensor as tt

torch = pytest.importorskip("torch")
both = pytest.mark.parametrize("nn, lib", [pytest.param(tt, tt, id="ours"), pytest.param(torch.nn, torch, id="torch")])
assert tt_autograd


class Product(tt.Module):
    def forward(self, x, y):
        return x * y, x + y


class TorchProduct(torch.nn.Module):
    forward = Product.forward


@both
def test_a_backward_hook_sees_the_modules_own_gradients(nn, lib):
    seen = []
    layer = nn.Tanh()
    handle = layer.register_full_backward_hook(lambda m, before, after: seen.append((m, before[0], after[0])))
    x = lib.tensor([0.5, -1.0], requires_grad=True)
    (layer(x).sum() + 3 * x.sum()).backward()  # the second use of x is none of the layer's business
    module, before, after = seen.pop()
    assert module is layer and after.tolist() == [1, 1]
    assert np.allclose(before.detach().numpy(), 1 - np.tanh([0.5, -1.0]) ** 2)
    assert np.allclose(x.grad.numpy(), 3 + before.detach().numpy())
    handle.remove()
    layer(x).sum().backward()
    assert not seen


@both
def test_a_backward_hook_may_replace_the_gradient_of_the_input(nn, lib):
    layer = nn.Identity()
    layer.register_full_backward_hook(lambda m, before, after: (before[0] * 10,))
    x = lib.tensor([1.0, 2.0], requires_grad=True)
    out = layer(x).sum()
    out.backward(retain_graph=True)
    assert x.grad.tolist() == [10, 10]
    out.backward()
    assert x.grad.tolist() == [20, 20]


@both
def test_several_inputs_and_outputs(nn, lib):
    seen = []
    layer = Product() if nn is tt else TorchProduct()
    layer.register_full_backward_hook(lambda m, before, after: seen.append((before, after)))
    x, y = lib.tensor([2.0], requires_grad=True), lib.tensor([3.0], requires_grad=True)
    product, total = layer(x, y)
    (5 * product + 7 * total).sum().backward()
    ((before, after),) = seen
    assert [g.item() for g in before] == [22, 17] and [g.item() for g in after] == [5, 7]


@pytest.mark.filterwarnings("ignore:Full backward hook")
@both
def test_without_gradients_of_inputs(nn, lib):
    seen = []
    layer = nn.Linear(2, 1)
    layer.register_full_backward_hook(lambda m, before, after: seen.append((before, after)))
    layer(lib.ones(1, 2)).sum().backward()
    ((before, after),) = seen
    assert before == (None,) and after[0].tolist() == [[1]]


def test_what_cannot_be_replaced_is_refused():
    layer = Product()
    layer.register_full_backward_hook(lambda m, before, after: before)
    product, total = layer(tt.tensor([2.0], requires_grad=True), tt.tensor([3.0], requires_grad=True))
    with pytest.raises(RuntimeError, match="exactly one input"):
        (product + total).sum().backward()
    with pytest.raises(ValueError, match="always_call"):
        layer.register_forward_hook(print, always_call=True)
