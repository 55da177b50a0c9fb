"""The appendix *Callbacks*: the average of the weights, and the search for a learning rate."""

import numpy as np
import pytest

import tt_autograd as ta
import tt_optim as to
import tt_tensor as tt


class Weights(tt.Module):
    """Two weights, w and v, whose loss is 3 w + 4 v: the gradients are always 3 and 4."""

    def __init__(self):
        super().__init__()
        self.w, self.v = tt.Parameter([0.0]), tt.Parameter([0.0])

    def forward(self, x):
        return 3 * x * self.w + 4 * x * self.v


@pytest.mark.parametrize(("decay", "steps", "wanted"), [(0.5, 1, [-3, -4]), (0.75, 2, [-3.75, -5])])
def test_the_average_of_the_weights_is_of_copies_and_begins_with_the_first(decay, steps, wanted):
    model, average = Weights(), ta.WeightAverage(decay)
    optimizer, data = to.SGD(model.parameters(), lr=1.0), [(tt.ones(1), tt.ones(1))]
    ta.fit(model, lambda outputs, _: outputs.mean(), optimizer, data, epochs=steps, callbacks=[average], progress=False)
    assert [average.state_dict()["average"][name].item() for name in "wv"] == wanted


def found(groups=(), **options):
    """find_rate for a layer with the output 0, whose target is 1, on a single batch."""
    model = tt.Linear(1, 1)
    model.weight.data, model.bias.data = tt.zeros(1, 1), tt.zeros(1)
    optimizer = to.SGD([{"params": list(model.parameters())}, *groups], lr=1.0)
    return optimizer, *ta.find_rate(model, tt.mse_loss, optimizer, [(tt.ones(2, 1), tt.ones(2, 1))], **options)


def test_rates_grow_in_equal_ratios():
    assert np.allclose(found(lowest=1e-3, highest=0.1, steps=3)[1], [1e-3, 1e-2, 1e-1])


def test_each_loss_is_that_before_the_step():
    assert np.allclose(found(lowest=0.1, highest=0.1, steps=2)[2], [1, 0.36])


def test_only_the_first_parameter_group_gets_the_rate():
    other = {"params": [tt.Parameter([0.0])], "lr": 5.0}
    optimizer, *_ = found(groups=[other], lowest=0.1, highest=0.2, steps=2)
    assert np.allclose([group["lr"] for group in optimizer.param_groups], [0.2, 5.0])


def test_digits_find_a_rate_at_which_the_loss_falls():
    tt.manual_seed(0)
    (x, y), _ = ta.training.digits()
    model = ta.training.digits_classifier()
    optimizer = to.Adam(model.parameters())
    rates, losses = ta.find_rate(model, tt.cross_entropy, optimizer, ta.Batches(x, y, 64), highest=0.01)
    assert len(rates) == len(losses) == 50 and losses[-1] < losses[0]
