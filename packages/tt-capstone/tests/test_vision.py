"""The vision trainer: patches lose nothing, the network has the size that is claimed, and the clock loses no second."""

import time

import numpy as np
import pytest

import tt_tensor as tt
from tt_autograd import no_grad
from tt_capstone import vision
from tt_data import CIFAR10
from tt_opt import accelerate
from tt_tensor import Linear

# Patches


@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (3, 3, 4, 6), (2, 2, 8, 2)], ids=str)
def test_a_patch_holds_its_four_pixels_with_all_colours(shape):
    images = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    patches = vision.Patches()(images)
    n, c, h, w = shape
    assert patches.shape == (n, 4 * c, h // 2, w // 2) and patches.dtype == np.uint8
    for i, channel, y, x in np.ndindex(patches.shape):
        square, colour = divmod(channel, c)
        down, across = divmod(square, 2)
        assert patches[i, channel, y, x] == images[i, colour, 2 * y + down, 2 * x + across]


def test_the_channels_of_a_patch_lie_side_by_side():
    patches = vision.Patches()(np.zeros((2, 3, 8, 8), np.uint8))
    assert patches.strides[1] == 1
    prepared = vision.transforms(3, 32)[1](np.zeros((2, 3, 32, 32), np.uint8))
    assert prepared.dtype == np.float32 and prepared.strides[1] == 4


@pytest.mark.parametrize("shape", [(1, 3, 5, 4), (1, 3, 4, 5)], ids=str)
def test_odd_sides_are_refused(shape):
    with pytest.raises(ValueError, match=f"{shape[2]} by {shape[3]} pixels"):
        vision.Patches()(np.zeros(shape, np.uint8))


# Transforms


def test_photographs_are_normalized_by_colour_and_unseen_ones_stay_where_they_are():
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32)).astype(np.uint8)
    learned, unseen = vision.transforms(3, 32)
    mean, std = (np.reshape(numbers, (3, 1, 1)) for numbers in (CIFAR10.mean, CIFAR10.std))
    expected = (images / 255 - mean) / std
    assert np.allclose(unseen(images)[:, :3], expected[:, :, ::2, ::2], atol=1e-5)
    assert np.allclose(unseen(images)[:, 9:], expected[:, :, 1::2, 1::2], atol=1e-5)
    random = np.random.default_rng(1)
    first, second = learned(images, random), learned(images, random)
    assert first.shape == (4, 12, 16, 16) and not np.allclose(first, second), "chance is new each time"


def test_moves_and_mirror_images_are_those_of_the_photograph():
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32)).astype(np.uint8)
    learned, unseen = vision.transforms(3, 32)
    framed = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    found, seen = learned(images, np.random.default_rng(1)), []
    for i in range(len(images)):
        windows = [framed[i : i + 1, :, y : y + 32, x : x + 32] for y in range(5) for x in range(5)]
        shown = [*windows, *(window[..., ::-1] for window in windows)]
        (place,) = (place for place, window in enumerate(shown) if np.array_equal(unseen(window)[0], found[i]))
        seen.append(divmod(place, 25))
    mirrored, places = zip(*seen)
    assert 8 <= sum(mirrored) <= 32 and len(set(places)) > 10


def test_digits_are_not_mirrored_and_not_cut():
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8)).astype(np.uint8)
    learned, unseen = vision.transforms(1, 8)
    assert np.allclose(unseen(images), images / 255 * 2 - 1, atol=1e-6)
    assert learned(images, np.random.default_rng(0)).shape == images.shape


# The network


def test_the_network_has_the_multiply_adds_of_the_formula():
    shapes = [(12, 32, 16), (32, 64, 8), (64, 64, 4), (64, 128, 4)]  # channels, filters, side
    expected = sum(inputs * filters * 9 * side**2 for inputs, filters, side in shapes)
    counted = vision.multiply_adds(vision.fast_network(), 12, 16, 16)
    assert counted["convolution"] == expected
    assert 5 * expected < vision.multiply_adds(vision.plain_network(), 3, 32, 32)["convolution"]


@pytest.mark.parametrize("shape", [(12, 16, 16), (12, 12, 12), (1, 8, 8), (5, 20, 9)], ids=str)
def test_it_reads_images_of_several_sizes(shape):
    model = vision.fast_network(shape[0], width=4, classes=7)
    assert model(tt.zeros(2, *shape)).shape == (2, 7)


def test_a_residual_adds_what_came_in():
    tt.manual_seed(0)
    layer, x = Linear(3, 3), tt.randn(2, 3)
    assert np.allclose(vision.Residual(layer)(x).numpy(), x.numpy() + layer(x).numpy())


@pytest.mark.parametrize("kernels", ["fast", "compiled"])
def test_a_step_is_the_same_on_all_kernel_sets(kernels):
    if kernels == "compiled":
        pytest.importorskip("numba", reason="the kernel set compiled needs Numba: pip install tt-opt[compiled]")
    images = vision.toy_photographs(8)
    x, y = images.batch(range(8), np.random.default_rng(0))

    def gradients():
        tt.manual_seed(0)
        model = vision.fast_network(width=8)
        tt.cross_entropy(model(x), y, label_smoothing=vision.SMOOTHING).backward()
        return [p.grad.numpy() for p in model.parameters()]

    expected = gradients()
    with accelerate(kernels):
        found = gradients()
    assert all(np.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(found, expected))


# Optimizer and schedule


def test_only_matrices_and_filters_decay():
    model = vision.fast_network(width=4)
    decayed, others = vision.optimizer_of(model).param_groups
    assert decayed["weight_decay"] == vision.DECAY > 0 == others["weight_decay"]
    assert all(p.ndim > 1 for p in decayed["params"]) and all(p.ndim == 1 for p in others["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))


def test_the_rate_rises_and_falls_in_straight_lines():
    optimizer = vision.optimizer_of(Linear(2, 2))
    schedule = vision.schedule_of(optimizer, 10, rate=1.0)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    assert np.allclose(rates, [0.2, 0.6, *np.linspace(1, 0.01, 8)])
    assert optimizer.param_groups[1]["momentum"] == 0.9


def test_no_steps_have_a_schedule_too():
    vision.schedule_of(vision.optimizer_of(Linear(2, 2)), 0)


# Training


def test_two_trainings_from_one_seed_are_the_same():
    assert vision.toy_training(1, 64, 32)[0] == vision.toy_training(1, 64, 32)[0]


def test_an_epoch_reports_loss_and_share_as_they_came():
    tt.manual_seed(0)
    model = vision.fast_network(width=4)
    x, y = vision.toy_photographs(16).batch(range(16), np.random.default_rng(0))
    optimizer = vision.optimizer_of(model, 1e-9)
    with no_grad():
        logits = model(x)
    expected = tt.cross_entropy(logits, y, label_smoothing=0.1).item()
    batches = [(x, y), (x, y)]
    loss, right = vision.learn(model, batches, optimizer, vision.schedule_of(optimizer, 2, 1e-9), vision.Clock())
    assert loss == pytest.approx(expected, rel=1e-4) and right == (logits.numpy().argmax(1) == y.numpy()).mean()


def test_each_step_begins_with_no_gradient():
    tt.manual_seed(0)
    model, (x, y) = vision.fast_network(width=4), vision.toy_photographs(8).batch(range(8), np.random.default_rng(0))
    optimizer, gradients = vision.optimizer_of(model, 1e-9), []
    schedule = vision.schedule_of(optimizer, 4, 1e-9)
    for batches in ([(x, y)], [(x, y), (x, y)]):
        vision.learn(model, batches, optimizer, schedule, vision.Clock())
        gradients.append(next(iter(model.parameters())).grad.numpy().copy())
    assert np.allclose(*gradients, rtol=1e-2, atol=1e-4) and np.abs(gradients[0]).max() > 1e-3


def test_a_warm_up_changes_no_other_network():
    tt.manual_seed(0)
    model, images = vision.fast_network(width=4), vision.toy_photographs(16)
    before = [p.numpy().copy() for p in model.parameters()]
    vision.warm_up(images, 8)
    assert all(np.array_equal(p.numpy(), old) for p, old in zip(model.parameters(), before))


# The clock


def test_the_parts_and_the_rest_are_the_whole():
    began = time.perf_counter() - 1.0
    clock = vision.Clock(began)
    with clock("sleep"):
        time.sleep(0.02)
    seconds = clock.report()
    assert seconds["sleep"] >= 0.02 and 1.0 <= seconds["the rest"] < time.perf_counter() - began
    assert 1.02 <= sum(seconds.values()) <= time.perf_counter() - began


def test_a_part_that_fails_is_counted():
    clock = vision.Clock()
    with pytest.raises(KeyboardInterrupt), clock("interrupted"):
        raise KeyboardInterrupt
    assert clock.report()["interrupted"] > 0


def test_shares_are_shares_of_the_sum():
    lines = vision.shares({"forward": 1.0, "the rest": 3.0}).splitlines()
    assert [line.split()[-1] for line in lines] == ["25.0%", "75.0%", "100.0%"] and "4.00 s" in lines[-1]
