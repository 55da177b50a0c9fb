"""Chapter 09 at work: images through every earlier chapter, small real training, and what it costs."""

import gc
import time
import tracemalloc

import numpy as np
import pytest

import tt_autograd as ta
import tt_optim as to
import tt_spatial as ts
import tt_tensor as tt
from tt_tensor.teaching import between, expect, measured_between

IDEA, LAYER, POOLING, LENET = "The idea", "The layer", "Pooling", "LeNet"
HELP, COST, COLUMNS = "Does it help?", "The cost", "From nine products to one"


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def set_weights(model):
    """Weights that depend on nothing but their places."""
    for number, parameter in enumerate(model.parameters()):
        fan_in = max(parameter.numel() // max(parameter.shape[0], 1), 1)
        start = np.sin(np.arange(parameter.numel()) * 1.3 + number) * fan_in**-0.5
        parameter.copy_(start.reshape(parameter.shape))
    return model


# Imports and instantiation


def test_imports_find_what_the_chapter_promises():
    names = ["seven_loops", "conv_size", "by_taps", "windows", "convolution", "weight_convolution", "conv2d", "Conv2d"]
    names += ["transposed_convolution", "flip_kernels", "max_pool2d", "LeNet", "receptive_field", "conv_weights"]
    expect(
        "the names that chapter 09 lacks",
        [name for name in names if not (hasattr(ts, name) or hasattr(ts.spatial, name))],
        [],
        see="Exercises",
    )


def test_imports_give_modules_with_named_weights():
    expect(
        "names and shapes in the state of LeNet()",
        lambda: {name: tensor.shape for name, tensor in ts.LeNet().state_dict().items()},
        {
            "conv1.weight": (6, 1, 5, 5),
            "conv1.bias": (6,),
            "conv2.weight": (16, 6, 5, 5),
            "conv2.bias": (16,),
            "fc1.weight": (120, 400),
            "fc1.bias": (120,),
            "fc2.weight": (84, 120),
            "fc2.bias": (84,),
            "fc3.weight": (10, 84),
            "fc3.bias": (10,),
        },
        see=LENET,
    )


# Compatibility: with tensors, layers, losses, optimizers, autograd and fit


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
def test_compatibility_with_every_optimizer(name):
    def losses():
        model = set_weights(tt.Sequential(ts.Conv2d(1, 3, 3), tt.ReLU(), tt.Flatten(), tt.Linear(48, 2)))
        x, y = tt.rand(6, 1, 6, 6), tt.tensor([0, 1, 0, 1, 1, 0])
        optimizer = getattr(to, name)(model.parameters(), lr=0.01)
        return ta.fit(model, tt.cross_entropy, optimizer, [(x, y)], epochs=6, progress=False)["loss"]

    expect(f"do the losses of 6 steps with {name} fall?", lambda: (f := losses())[-1] < f[0], True, see=LAYER)


def test_compatibility_gradients_reach_every_weight():
    def without():
        model = tt.Sequential(
            ts.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), ts.BatchNorm2d(4), tt.ReLU(),
            ts.Conv2d(4, 4, 3, groups=2, padding="same"), ts.MaxPool2d(2), tt.Flatten(), tt.Linear(16, 5),
        )  # fmt: skip
        x = tt.rand(2, 3, 8, 8)
        x.requires_grad_()
        tt.cross_entropy(model(x), tt.tensor([1, 4])).backward()
        lacking = [name for name, p in model.named_parameters() if p.grad is None or p.grad.shape != p.shape]
        return lacking + ([] if x.grad is not None and x.grad.shape == x.shape else ["x"])

    expect("what has no gradient of its shape in a network of all layers", without, [], see=LAYER)


def test_compatibility_with_second_derivatives():
    def penalty():
        x = tt.Tensor(np.linspace(-1, 1, 32).reshape(1, 2, 4, 4), requires_grad=True)
        weight = tt.Tensor(np.cos(np.arange(12.0)).reshape(3, 2, 2, 1), requires_grad=True)
        (share,) = ta.grad((ts.conv2d(x, weight) ** 2).sum(), x, create_graph=True)
        (share**2).sum().backward()
        return weight.grad

    def wanted():
        x, weight, step = np.linspace(-1, 1, 32).reshape(1, 2, 4, 4), np.cos(np.arange(12.0)).reshape(3, 2, 2, 1), 1e-5

        def square(weight):
            out = np.zeros((1, 3, 3, 4))
            for o, c, i in np.ndindex(3, 2, 2):
                out[:, o] += x[:, c, i : i + 3] * weight[o, c, i, 0]
            share = np.zeros_like(x)
            for o, c, i in np.ndindex(3, 2, 2):
                share[:, c, i : i + 3] += 2 * out[:, o] * weight[o, c, i, 0]
            return (share**2).sum()

        slopes = np.zeros(weight.shape)
        for place in np.ndindex(*weight.shape):
            move = np.zeros(weight.shape)
            move[place] = step
            slopes[place] = (square(weight + move) - square(weight - move)) / (2 * step)
        return slopes

    expect(
        "the gradient of the squared gradient of sum(conv2d(x, weight) ** 2)",
        penalty,
        wanted(),
        "The three convolutions are each other's derivatives.",
        see="Gradients: two more convolutions",
        tolerance=1e-3,
    )


def test_compatibility_with_saved_states():
    def same():
        first, second = ts.LeNet(size=8), ts.LeNet(size=8)
        second.load_state_dict(first.state_dict())
        x = tt.rand(3, 1, 8, 8)
        return bool((first(x) == second(x)).all())

    expect("do two LeNets with one state answer alike?", same, True, see=LENET)


# Integration: a feature map moves with the image, and networks learn


def test_integration_maps_move_with_the_image():
    def apart():
        layer = set_weights(ts.Conv2d(1, 4, 3))
        image = np.zeros((1, 1, 12, 12), np.float32)
        image[:, :, 2:8, 2:8] = np.arange(36).reshape(6, 6)
        moved = np.roll(image, (2, 3), axis=(2, 3))
        maps, of_moved = (layer(tt.from_numpy(x)).numpy() for x in (image, moved))
        return float(np.abs(np.roll(maps, (2, 3), axis=(2, 3))[:, :, 3:, 3:] - of_moved[:, :, 3:, 3:]).max())

    expect("how far the maps of a moved image are from the moved maps", apart, 0, see=IDEA)


def test_integration_digits_are_read():
    def learned():
        (x, y), held_out = ts.framed_digits(8)
        model = set_weights(
            tt.Sequential(ts.Conv2d(1, 8, 3, padding=1), tt.ReLU(), ts.MaxPool2d(2), tt.Flatten(), tt.Linear(128, 10))
        )
        data = ta.Batches(x, y, 32, shuffle=True)
        ta.fit(model, tt.cross_entropy, to.Adam(model.parameters(), lr=5e-3), data, epochs=5, progress=False)
        return ta.evaluate(model, tt.cross_entropy, [held_out], [ta.accuracy])["accuracy"]

    expect("share of 359 unseen digits that a small network reads after 5 epochs", learned, between(0.9, 1), see=HELP)


# Performance: what grows, grows as it should


def seconds(call, times=1):
    """The time of so many calls: the least of seven."""
    measured = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(times):
            call()
        measured.append(time.perf_counter() - start)
    return min(measured)


WHERE = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}


def test_performance_time_grows_with_the_batch():
    weight = np.zeros((16, 8, 3, 3), np.float32)
    few, many = np.zeros((4, 8, 16, 16), np.float32), np.zeros((64, 8, 16, 16), np.float32)
    expect(
        "time of a convolution of 64 images by that of 16 convolutions of 4",
        lambda: seconds(lambda: ts.convolution(many, weight, **WHERE))
        / seconds(lambda: ts.convolution(few, weight, **WHERE), 16),
        measured_between(0, 6),
        "Sixteen times the images may take about sixteen times as long.",
        see=COST,
    )


def test_performance_is_not_that_of_loops():
    x, weight = np.zeros((1, 4, 10, 10)), np.zeros((4, 4, 3, 3))
    expect(
        "time of seven_loops by that of convolution, for an image (4, 10, 10)",
        lambda: (
            seconds(lambda: ts.spatial.seven_loops(x, weight)) / seconds(lambda: ts.convolution(x, weight, **WHERE))
        ),
        measured_between(10, 1e9),
        "Lay out what the windows see, and leave the sums to a matrix product.",
        see=COLUMNS,
    )


def test_performance_60_steps_leave_nothing_behind():
    model = tt.Sequential(ts.Conv2d(1, 4, 3), ts.BatchNorm2d(4), tt.ReLU(), ts.MaxPool2d(2), tt.Flatten())
    x = tt.zeros(32, 1, 16, 16)

    def held(steps):
        for _ in range(steps):
            model(x).sum().backward()
            model.zero_grad()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    def left():
        tracemalloc.start()
        try:
            settled = held(5)
            return (held(60) - settled) / (32 * 4 * 14 * 14 * 4)
        finally:
            tracemalloc.stop()

    expect(
        "what 60 steps leave in memory, by the size of a feature map",
        left,
        measured_between(-20, 3),
        (lambda ratio: ratio > 3, "Something is kept of each step."),
        see=COST,
    )
