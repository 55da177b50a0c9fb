"""The schedules of chapter 06."""

import math

import numpy as np
import pytest

import tt_optim as to
import tt_tensor as tt
from tt_tensor.teaching import expect


def parameter():
    return tt.Parameter(np.zeros(1))


def rates(schedule, steps):
    result = []
    for _ in range(steps):
        result.append(schedule.get_last_lr()[0])
        schedule.step()
    return result


@pytest.mark.parametrize(
    "make, wanted",
    [
        (lambda o: to.StepLR(o, 2, 0.5), [1, 1, 0.5, 0.5, 0.25]),
        (lambda o: to.MultiStepLR(o, [1, 3], 0.1), [1, 0.1, 0.1, 0.01, 0.01]),
        (lambda o: to.ExponentialLR(o, 0.5), [1, 0.5, 0.25, 0.125, 0.0625]),
        (lambda o: to.LambdaLR(o, lambda step: 1 / (1 + step)), [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]),
        (lambda o: to.LinearLR(o, 0.5, total_iters=2), [0.5, 0.75, 1, 1, 1]),
        (lambda o: to.CosineAnnealingLR(o, 4), [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]),
        (
            lambda o: to.SequentialLR(o, [to.LinearLR(o, 0.5, total_iters=2), to.StepLR(o, 1, 0.1)], [2]),
            [0.5, 0.75, 1, 0.1, 0.01],
        ),
    ],
)
def test_schedules(make, wanted):
    schedule = make(to.SGD([parameter()], lr=1.0))
    expect(f"five rates of {type(schedule).__name__}", lambda: rates(schedule, 5), wanted, see="Staircases and slides")


def in_sequence(optimizer, second):
    return to.SequentialLR(optimizer, [to.LinearLR(optimizer), second(optimizer)], [3])


def test_a_sequence_keeps_its_state_if_the_new_one_does_not_fit():
    first, second = (to.SGD([parameter()], lr=1.0) for _ in range(2))
    sequence = in_sequence(first, lambda o: to.StepLR(o, 1))
    rates(sequence, 5)
    before = repr(sequence.state_dict())
    other = in_sequence(second, lambda o: to.StepLR(o, 1)).state_dict()
    other["schedulers"][1] = {}
    with pytest.raises(ValueError):
        sequence.load_state_dict(other)
    assert repr(sequence.state_dict()) == before


def test_a_state_from_before_the_rates_were_saved_still_fits():
    whole, restored = (in_sequence(to.SGD([parameter()], lr=1.0), lambda o: to.StepLR(o, 2)) for _ in range(2))
    rates(whole, 4)
    restored.load_state_dict({"last_epoch": 4, "base_lrs": [1.0]})
    assert rates(whole, 5) == pytest.approx(rates(restored, 5), rel=1e-12)


def test_a_plateau_lowers_the_rate():
    optimizer = to.SGD([parameter()], lr=1.0)
    schedule = to.ReduceLROnPlateau(optimizer, patience=1)
    for metric in (5, 4, 4, 4):
        schedule.step(metric)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_a_restored_schedule_goes_on():
    first, second = (to.OneCycleLR(to.SGD([parameter()], momentum=0.9), max_lr=1.0, total_steps=10) for _ in range(2))
    rates(first, 3)
    second.load_state_dict(first.state_dict())
    assert rates(first, 6) == rates(second, 6)


@pytest.mark.parametrize(
    "wrong, error, words",
    [
        (lambda p: to.StepLR(p, 2), TypeError, "optimizer"),
        (lambda p: to.StepLR(to.SGD([p]), 0), ValueError, "0"),
        (lambda p: to.ReduceLROnPlateau(to.SGD([p]), mode="low"), ValueError, "low"),
        (lambda p: to.LinearLR(to.SGD([p]), total_iters=0), ValueError, "total_iters"),
        (lambda p: to.StepLR(to.SGD([p]), 2).load_state_dict({}), ValueError, "last_epoch"),
        (lambda p: to.ReduceLROnPlateau(to.SGD([p])).load_state_dict({"last_epoch": 1}), ValueError, "bad_steps"),
        (lambda p: in_sequence(to.SGD([p]), to.ReduceLROnPlateau), ValueError, "ReduceLROnPlateau.*step it beside"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(wrong, error, words):
    with pytest.raises(error, match=words):
        wrong(parameter())
