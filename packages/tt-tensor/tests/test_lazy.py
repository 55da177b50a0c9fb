"""Lazy modules: what holds before the first input, at it, and after it."""

import copy

import numpy as np
import pytest

import tt_tensor as tt


class Scale(tt.LazyModuleMixin, tt.Module):
    """A lazy module that stays what it is: one factor for each feature."""

    def __init__(self):
        super().__init__()
        self.factor = tt.UninitializedParameter()
        self.register_buffer("seen", tt.UninitializedBuffer())

    def initialize_parameters(self, x):
        if self.has_uninitialized_params():
            self.factor.materialize((x.shape[-1],))
            self.seen.materialize((2,))
            self.factor.fill_(2.0)

    def forward(self, x):
        return x * self.factor


def test_a_lazy_layer_draws_what_an_ordinary_one_draws():
    tt.manual_seed(3)
    lazy = tt.LazyLinear(4, dtype=tt.float64)
    lazy(tt.zeros(5, 2, 7, dtype=tt.float64))
    tt.manual_seed(3)
    plain = tt.Linear(7, 4).double()
    assert type(lazy) is tt.Linear and lazy.extra_repr() == plain.extra_repr()
    for name, value in plain.state_dict().items():
        assert np.allclose(lazy.state_dict()[name].numpy(), value.numpy()) and lazy.weight.dtype == tt.float64


def test_parameters_stay_the_same_objects():
    net = tt.Sequential(tt.LazyLinear(3), tt.ReLU(), tt.LazyLinear(2, bias=False))
    before = dict(net.named_parameters())
    assert list(before) == ["0.weight", "0.bias", "2.weight"] and "LazyLinear" in repr(net)
    net(tt.ones(4, 5))
    after = dict(net.named_parameters())
    assert all(after[name] is before[name] and type(after[name]) is tt.Parameter for name in before)
    assert [p.shape for p in after.values()] == [(3, 5), (3,), (2, 3)] and "LazyLinear" not in repr(net)


def test_a_dtype_that_was_asked_for_before_the_first_input_is_kept():
    net = tt.Sequential(tt.LazyLinear(3)).double()
    assert net(tt.ones(2, 4, dtype=tt.float64)).dtype == net[0].weight.dtype == tt.float64


def test_a_lazy_module_of_ones_own_may_stay_lazy():
    scale = Scale()
    assert scale(tt.ones(3)).tolist() == [2, 2, 2] and type(scale) is Scale and not scale.has_uninitialized_params()
    scale.factor.fill_(5.0)
    assert scale(tt.ones(3)).tolist() == [5, 5, 5] and type(scale.seen) is tt.Tensor


def test_a_state_gives_shapes():
    plain, lazy = tt.Linear(3, 2), tt.LazyLinear(2)
    lazy.load_state_dict(plain.state_dict())
    assert (lazy(tt.ones(3)) == plain(tt.ones(3))).all() and lazy.in_features == 3


def test_a_copy_waits_as_well():
    lazy = tt.LazyLinear(2)
    twin = copy.deepcopy(lazy)
    twin(tt.ones(3))
    assert lazy.has_uninitialized_params() and type(twin) is tt.Linear


@pytest.mark.parametrize("use", [lambda p: p.shape, tt.xavier_uniform_, lambda p: p.copy_(np.ones(3))])
def test_what_has_no_shape_says_what_to_do(use):
    with pytest.raises(RuntimeError, match="call the module once"):
        use(tt.LazyLinear(2).weight)


def test_misuse():
    with pytest.raises(NotImplementedError, match="initialize_parameters"):
        type("Forgotten", (tt.LazyModuleMixin, tt.Module), {})()(tt.ones(1))
    with pytest.raises(RuntimeError, match="cuda"):
        tt.LazyLinear(2, device="cuda")
