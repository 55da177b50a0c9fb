"""The adapter: torch's parameter names, and keywords that mean the same for all functions or nothing here."""

import inspect

import pytest

import tinytorch as torch
import tinytorch.nn.functional as F
from tinytorch import nn
from tinytorch._calls import adapted
from tinytorch.testing import assert_close

X = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
Y = torch.tensor([2, 0])


@pytest.mark.parametrize("one, other", [
    (lambda: torch.sum(input=X, dim=1), lambda: X.sum(1)),
    (lambda: torch.sum(X, axis=1, keepdims=True), lambda: X.sum(1, True)),
    (lambda: torch.sum(X, dim=1, dtype=torch.float64), lambda: X.double().sum(1)),
    (lambda: torch.add(input=X, other=X), lambda: X + X),
    (lambda: torch.add(X, other=2.0), lambda: X + 2.0),
    (lambda: torch.add(X, X, alpha=3), lambda: X * 4),
    (lambda: torch.sub(input=X, other=2.0, alpha=3), lambda: X - 6.0),
    (lambda: torch.subtract(X, X, alpha=3), lambda: X * -2),
    (lambda: torch.div(X, 4.0, rounding_mode="trunc"), lambda: torch.tensor([[0.0, -0.0, 0.0], [1.0, 1.0, -1.0]])),
    (lambda: torch.divide(X, other=2.0, rounding_mode="floor"), lambda: X // 2.0),
    (lambda: torch.matmul(other=X.T, input=X), lambda: X @ X.T),
    (lambda: torch.pow(X, exponent=2), lambda: X**2),
    (lambda: torch.max(X, dim=1).indices, lambda: X.argmax(1)),
    (lambda: torch.max(input=X, dim=1, keepdim=True)[0], lambda: X.amax(1, True)),
    (lambda: torch.cat(tensors=(X, X), dim=1), lambda: torch.cat([X, X], 1)),
    (lambda: torch.concat((X, X), 1), lambda: torch.cat([X, X], 1)),
    (lambda: torch.einsum("ij,kj->ik", X, X), lambda: X @ X.T),
    (lambda: torch.einsum("ij,kj->ik", [X, X]), lambda: X @ X.T),
    (lambda: torch.atleast_1d(torch.tensor(2.0)), lambda: torch.tensor([2.0])),
    (lambda: torch.topk(X, k=2, dim=1, largest=True, sorted=True)[0], lambda: torch.tensor([[3.0, 1.0], [5.0, 4.0]])),
    (lambda: torch.sort(X, stable=True, dim=1).indices, lambda: torch.argsort(X, 1)),
    (lambda: torch.stack(tensors=[X, X]), lambda: torch.stack((X, X), 0)),
    (lambda: torch.full(size=(2, 3), fill_value=0.0), lambda: X * 0),
    (lambda: torch.arange(start=0, end=3, step=1), lambda: torch.tensor([0, 1, 2])),
    (lambda: torch.linspace(0, 1, steps=3), lambda: torch.tensor([0.0, 0.5, 1.0])),
    (lambda: torch.randint(high=1, size=(2, 3)), lambda: torch.zeros(2, 3, dtype=torch.int64)),
    (lambda: torch.randint(0, 1, size=(2,), device="cpu"), lambda: torch.zeros(2, dtype=torch.int64)),
    (lambda: torch.randint(1, (2,), dtype=torch.int32), lambda: torch.zeros(2, dtype=torch.int32)),
    (lambda: F.pad(input=X, pad=(1, 0), value=1.0)[:, 0], lambda: torch.ones(2)),
    (lambda: F.one_hot(tensor=Y, num_classes=3), lambda: torch.tensor([[0, 0, 1], [1, 0, 0]])),
    (lambda: torch.norm(X, p=2, dim=1), lambda: (X**2).sum(1) ** 0.5),
    (lambda: torch.logsumexp(input=X, dim=1), lambda: X.logsumexp(1)),
    (lambda: torch.split(X, split_size_or_sections=2, dim=1)[0], lambda: X[:, :2]),
    (lambda: torch.flatten(input=X, start_dim=0), lambda: X.reshape(-1)),
    (lambda: torch.allclose(input=X, other=X, atol=1e-3) and X, lambda: X),
    (lambda: torch.softmax(input=X, dim=-1), lambda: F.softmax(X, -1)),
    (lambda: F.softmax(X, 1, dtype=torch.float64), lambda: torch.softmax(X.double(), 1)),
    (lambda: F.log_softmax(X, dim=1, _stacklevel=3), lambda: F.log_softmax(X, 1)),
    (lambda: F.relu(X, inplace=True), lambda: X.relu()),
    (lambda: F.relu(X, True), lambda: X.relu()),
    (lambda: F.cross_entropy(input=X, target=Y), lambda: F.cross_entropy(X, Y)),
    (lambda: F.cross_entropy(X, Y, None, None, 2), lambda: F.cross_entropy(X, Y, ignore_index=2)),
    (lambda: F.cross_entropy(X, Y, size_average=False), lambda: F.cross_entropy(X, Y, reduction="sum")),
    (lambda: F.cross_entropy(X, Y, reduce=False), lambda: F.cross_entropy(X, Y, reduction="none")),
    (lambda: F.mse_loss(X, X + 1, None, None, "sum"), lambda: torch.tensor(6.0)),
    (lambda: torch.zeros(2, 3, device="cpu", layout=torch.strided, pin_memory=False), lambda: X * 0),
    (lambda: torch.zeros(size=(2, 3), dtype=None), lambda: X * 0),
    (lambda: torch.zeros_like(input=X, memory_format=torch.preserve_format), lambda: X * 0),
    (lambda: torch.transpose(X, dim0=0, dim1=1), lambda: X.T),
    (lambda: torch.std(X, 1, False), lambda: X.std(1, unbiased=False)),
    (lambda: torch.var(X, dim=1, unbiased=False), lambda: X.var(1, unbiased=False)),
    (lambda: torch.masked_fill(input=X, mask=X > 0, value=0.0), lambda: X.clamp(max=0.0)),
    (lambda: torch.where(condition=X > 0, input=X, other=-X), lambda: X.abs()),
    (lambda: torch.clamp(X, min=0.0), lambda: X.relu()),
    (lambda: torch.gather(input=X, dim=1, index=Y[:, None], sparse_grad=False), lambda: torch.tensor([[3.0], [4.0]])),
])
def test_a_call_by_torchs_names(one, other):
    assert_close(one(), other())


def test_requires_grad():
    weight = torch.ones(2, requires_grad=True)
    assert weight.requires_grad and torch.eye(2, requires_grad=True).requires_grad
    (weight * 3).sum().backward()
    assert weight.grad.tolist() == [3.0, 3.0]


def test_requires_grad_where_our_function_does_not_know_it():
    ours = adapted(lambda size: torch.zeros(size), "make", "test", ["(size, *, dtype=None, requires_grad=False)"])
    made = ours(2, requires_grad=True, dtype=torch.float64)
    assert made.requires_grad and made.dtype == torch.float64 and not ours(2).requires_grad


def test_out_receives_the_result():
    out = torch.zeros(2)
    assert torch.sum(X, 1, out=out) is out and out.tolist() == [2.0, 3.0]
    assert torch.add(out, out, alpha=2, out=out).tolist() == [6.0, 9.0]
    assert torch.div(out, 4.0, rounding_mode="floor", out=out) is out and out.tolist() == [1.0, 2.0]
    values, indices = torch.zeros(2), torch.zeros(2, dtype=torch.int64)
    torch.max(X, 1, out=(values, indices))
    assert values.tolist() == [3.0, 5.0] and indices.tolist() == [2, 1]
    with pytest.raises(ValueError, match=r"out has shape \(3,\), and the result \(2,\)"):
        torch.sum(X, 1, out=torch.zeros(3))


def test_a_generator_of_its_own_leaves_the_common_one_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    own = torch.rand(3, generator=torch.Generator().manual_seed(5))
    assert_close(torch.rand(3), expected)
    assert_close(torch.rand(3, generator=torch.Generator().manual_seed(5)), own)


@pytest.mark.parametrize("call, error, words", [
    (lambda: torch.zeros(2, device="cuda"), RuntimeError, "cuda is not available.*torch.cuda.is_available"),
    (lambda: torch.sum(X, dimension=1), TypeError, r"does not take the parameter dimension; in torch it is sum"),
    (lambda: torch.sum(X, input=X), TypeError, r"sum\(\) does not take these arguments together"),
    (lambda: F.cross_entropy(logits=X, target=Y), TypeError, r"does not take the parameter logits"),
    (lambda: F.relu(X, foreach=True), TypeError, "does not take the parameter foreach"),
    (lambda: torch.zeros(2, layout=torch.sparse_coo), RuntimeError, "must be torch.strided, not torch.sparse_coo"),
    (lambda: torch.gather(X, 1, Y[:, None], sparse_grad=True), TypeError, "no parameter sparse_grad here.*False"),
])
def test_what_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_signatures_are_torchs():
    assert list(inspect.signature(torch.sum).parameters) == ["input", "dim", "keepdim", "dtype", "out"]
    assert list(inspect.signature(F.relu).parameters) == ["input", "inplace"]
    assert torch.sum.__name__ == "sum" and torch.sum.__module__ == "tinytorch" and "sum" in torch.sum.__doc__.lower()


def test_positional_arguments_of_another_order():
    def grad(outputs, inputs, grad_outputs=None, create_graph=False, retain_graph=None):
        return create_graph, retain_graph

    form = "(outputs, inputs, grad_outputs=None, retain_graph=None, create_graph=False)"
    ours = adapted(grad, "grad", "test", [form])
    assert ours(1, 2, None, "retain", "create") == ("create", "retain")
    assert ours(1, 2, create_graph="create") == ("create", None)


def test_operands_that_are_only_positional():
    def kernel(x, y, /, scale=1):
        return x, y, scale

    ours = adapted(kernel, "kernel", "test", ["(input, other, *, scale=1, out=None)"])
    assert ours(1, 2) == ours(other=2, input=1) == ours(1, other=2) == (1, 2, 1)
    assert ours(1, 2, scale=3) == (1, 2, 3)
    with pytest.raises(TypeError):
        ours(1)


@pytest.mark.parametrize("loss, names", [
    (nn.MSELoss(), ("input", "target")), (nn.BCEWithLogitsLoss(), ("input", "target")),
    (nn.PoissonNLLLoss(), ("log_input", "target")), (nn.GaussianNLLLoss(), ("input", "target", "var")),
    (nn.MarginRankingLoss(), ("input1", "input2", "target")),
    (nn.TripletMarginLoss(), ("anchor", "positive", "negative")),
])
def test_the_tensors_of_a_loss_by_name(loss, names):
    tensors = [torch.tensor([[0.5, 0.25], [0.75, 1.0]]) / n for n in range(1, len(names) + 1)]
    expected = loss(*tensors).item()
    assert loss(**dict(zip(names, tensors))).item() == loss(tensors[0], **dict(zip(names[1:], tensors[1:]))).item()
    assert loss(**dict(zip(names, tensors))).item() == expected
    with pytest.raises(TypeError):
        loss(*tensors, **{names[0]: tensors[0]})
