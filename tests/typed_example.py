"""A program as users write them, read by type checkers only: `hatch run types:check`. `assert_type` says what an editor
must know of each expression, so that it can complete what comes next."""

from typing import assert_type

import numpy as np

import tt_tensor as tt
from tt_tensor import Tensor


def operations(x: Tensor, y: Tensor) -> Tensor:
    assert_type(x + y, Tensor)
    assert_type(1 - x, Tensor)
    assert_type(2 * x @ y.T, Tensor)
    assert_type(-x, Tensor)
    assert_type(x == y, Tensor)
    assert_type(x > 0.5, Tensor)
    assert_type(x[0, ..., None], Tensor)
    for _ in range(x.size(0)):
        assert_type(x.view(x.shape), Tensor)
    for row in x:
        assert_type(row, Tensor)
    return x.reshape(2, -1).exp().sum(dim=1).unsqueeze(0)


def reductions(x: Tensor) -> float:
    assert_type(x.sum(dim=1, keepdim=True), Tensor)
    assert_type(x.var(1, unbiased=False), Tensor)
    assert_type(x.max(), Tensor)
    assert_type(x.max(1), tt.Extreme)
    assert_type(x.max(1).indices, Tensor)
    assert_type(x.topk(3).values, Tensor)
    assert_type(x.argmax(-1), Tensor)
    assert_type(x.split(2), tuple[Tensor, ...])
    return x.mean().item()


def memory(x: Tensor) -> np.ndarray:
    assert_type(x.shape, tuple[int, ...])
    assert_type(x.to("cpu", tt.float64), Tensor)
    assert_type(x.float().long(), Tensor)
    assert_type(x.add_(1, alpha=2).clamp_(min=0), Tensor)
    assert_type(x.detach().clone(), Tensor)
    x += 1
    x[0] = 3
    assert_type(x, Tensor)
    x.requires_grad = True
    return x.numpy()


def learning(x: Tensor, model: tt.Linear) -> None:
    loss = ((x - 1) ** 2).mean()
    loss.backward()
    print(f"{loss:.3f}")
    for parameter in model.parameters():
        if parameter.grad is not None:
            assert_type(parameter.grad, Tensor)
            parameter -= 0.1 * parameter.grad
