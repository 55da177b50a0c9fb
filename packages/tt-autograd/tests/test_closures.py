"""`optimizer.step(closure)` of chapter 06, when the closure's gradients come from chapter 07."""

import numpy as np
import pytest

import tt_autograd as ta
import tt_optim as to
import tt_tensor as tt


@pytest.mark.parametrize("make", [lambda p: to.SGD(p, lr=0.25), lambda p: to.LBFGS(p, max_iter=1, lr=0.25)])
def test_a_closure_records_even_where_the_step_does_not(make):
    p = tt.Parameter(np.array([0.25]))
    optimizer, recorded = make([p]), []

    def closure():
        recorded.append(ta.is_grad_enabled())
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    with ta.no_grad():
        loss = optimizer.step(closure)
        assert not ta.is_grad_enabled()
    assert recorded == [True] and loss.item() == 0.0625 and p.item() == 0.125
