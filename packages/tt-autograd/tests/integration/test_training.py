"""Chapter 08 at work: fit with every earlier chapter, on small real data, and what it costs."""

import gc
import time
import tracemalloc

import numpy as np
import pytest

import tt_autograd as ta
import tt_optim as to
import tt_tensor as tt
from tt_tensor.teaching import between, expect, measured_between

BATCHES, RUN, FIT, RUNS, COST = "Batches", "The run", "fit", "It runs", "The cost"


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def line():
    """Points on y = 2 x - 1."""
    x = np.linspace(-1, 1, 24)[:, None]
    return tt.Tensor(x), tt.Tensor(2 * x - 1)


def linear():
    """A layer in float64 that starts at zero."""
    layer = tt.Linear(1, 1).double()
    layer.weight.data, layer.bias.data = np.zeros((1, 1)), np.zeros(1)
    return layer


# Imports and instantiation


def test_imports_find_what_the_chapter_promises():
    names = ["Batches", "fit", "evaluate", "accuracy", "digits", "digits_classifier", "confusion", "WeightAverage"]
    names += ["find_rate", "Callback", "History", "EarlyStopping", "BestCheckpoint", "Schedule", "save_checkpoint"]
    names += ["load_checkpoint"]
    expect(
        "the names that chapter 08 lacks",
        [name for name in names if not (hasattr(ta, name) or hasattr(ta.training, name))],
        [],
        see="Exercises",
    )


def test_imports_give_batches_and_digits():
    expect(
        "len(Batches(10 examples, batch_size=4)), and shapes of the digits",
        lambda: (
            len(ta.Batches(tt.zeros(10, 2), tt.zeros(10), 4)),
            [x.shape for pair in ta.training.digits() for x in pair],
        ),
        (3, [(1438, 64), (1438,), (359, 64), (359,)]),
        see=BATCHES,
    )


# Compatibility: any model, any loss, any optimizer, any data


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adagrad", "Adam", "AdamW"])
def test_compatibility_with_every_optimizer(name):
    def losses():
        layer, (x, y) = linear(), line()
        optimizer = getattr(to, name)(layer.parameters(), lr=0.05)
        return ta.fit(layer, tt.mse_loss, optimizer, ta.Batches(x, y, 8), epochs=5, progress=False)["loss"]

    expect(
        f"do the losses of 5 epochs with {name} fall?",
        lambda: (f := losses()) == sorted(f, reverse=True),
        True,
        see=FIT,
    )


def test_compatibility_with_lists_and_generators_of_batches():
    x, y = line()
    pairs = [(x[:12], y[:12]), (x[12:], y[12:])]

    class Again:
        def __iter__(self):
            return iter(pairs)

    def weight(data):
        layer = linear()
        ta.fit(layer, tt.mse_loss, to.SGD(layer.parameters(), lr=0.1), data, epochs=3, progress=False)
        return layer.weight.item()

    expect(
        "do Batches, a list and an iterable of the same batches train the same?",
        lambda: len({weight(data) for data in (ta.Batches(x, y, 12), pairs, Again())}),
        1,
        "Anything that can be passed through again and again and yields pairs will do.",
        see=BATCHES,
    )


def test_compatibility_with_hand_made_steps():
    x, y = line()

    def by_hand():
        layer = linear()
        optimizer = to.SGD(layer.parameters(), lr=0.1, momentum=0.9)
        for _ in range(4):
            for first in (0, 8, 16):
                optimizer.zero_grad()
                tt.mse_loss(layer(x[first : first + 8]), y[first : first + 8]).backward()
                optimizer.step()
        return [layer.weight.item(), layer.bias.item()]

    def by_fit():
        layer = linear()
        optimizer = to.SGD(layer.parameters(), lr=0.1, momentum=0.9)
        ta.fit(layer, tt.mse_loss, optimizer, ta.Batches(x, y, 8), epochs=4, progress=False)
        return [layer.weight.item(), layer.bias.item()]

    expect(
        "weight and bias by fit, minus those of the loop by hand",
        lambda: np.subtract(by_fit(), by_hand()),
        [0, 0],
        see=FIT,
    )


def test_compatibility_with_metrics_validation_and_schedules():
    def history():
        x, y = line()
        layer = linear()
        optimizer = to.SGD(layer.parameters(), lr=0.2)
        schedule = ta.Schedule(to.StepLR(optimizer, 2, 0.5))
        options = {"validation": [(x, y)], "metrics": [largest], "callbacks": [schedule], "progress": False}
        return ta.fit(layer, tt.mse_loss, optimizer, ta.Batches(x, y, 8), epochs=4, **options)

    expect(
        "names in the history of fit with a metric, validation and a schedule, and how many numbers each has",
        lambda: {name: len(values) for name, values in sorted(history().items())},
        dict.fromkeys(("largest", "loss", "lr", "seconds", "val_largest", "val_loss"), 4),
        (lambda counts: "largest" not in counts, "A step measures the metrics, too: pass them to `_measured`."),
        (lambda counts: "val_largest" not in counts, "Validation measures the metrics, too: pass them to `_measured`."),
        see=RUN,
    )


def largest(outputs, targets):
    return (outputs - targets).abs().max().item()


# Integration: it learns


def test_integration_a_line_is_found():
    def learned():
        layer, (x, y) = linear(), line()
        optimizer = to.SGD(layer.parameters(), lr=0.2)
        ta.fit(layer, tt.mse_loss, optimizer, ta.Batches(x, y, 8, shuffle=True), epochs=60, progress=False)
        return [layer.weight.item(), layer.bias.item()]

    expect("weight and bias after 60 epochs on y = 2 x - 1", learned, [2, -1], see=RUNS, tolerance=1e-2)


def test_integration_xor_is_learned():
    def learned():
        x, y = tt.activations.xor_points()
        network = tt.losses.xor_network()
        for number, parameter in enumerate(network.parameters()):  # from one random start in sixty, XOR is not found
            start = np.sin(np.arange(parameter.numel()) + 2.0 * number + 1).reshape(parameter.shape)
            parameter.data = tt.Tensor(start).to(parameter.dtype)
        optimizer = to.Adam(network.parameters(), lr=0.1)
        loss = tt.binary_cross_entropy_with_logits
        ta.fit(network, loss, optimizer, ta.Batches(x, y, 4), epochs=200, progress=False)
        return ta.evaluate(network, loss, [(x, y)], [ta.accuracy])["accuracy"]

    expect("share of the four points of XOR that are right after 200 epochs", learned, 1, see=RUNS)


def test_integration_digits_are_read():
    def learned():
        (x, y), held_out = ta.training.digits()
        network = ta.training.digits_classifier()
        optimizer = to.Adam(network.parameters(), lr=3e-3)
        options = {"validation": [held_out], "metrics": [ta.accuracy], "progress": False}
        data = ta.Batches(x, y, 32, shuffle=True)
        return ta.fit(network, tt.cross_entropy, optimizer, data, epochs=4, **options)["val_accuracy"][-1]

    expect("share of 359 unseen digits that are read right after 4 epochs", learned, between(0.9, 1), see=RUNS)


def test_integration_a_run_goes_on_where_it_was_cut(tmp_path):
    def weights(cut, **options):
        file = tmp_path / f"run-{cut}"
        for epochs, seed in ((cut, 1), (4, 2)):
            tt.manual_seed(seed)
            layer, (x, y) = linear(), line()
            optimizer, data = to.SGD(layer.parameters(), lr=0.1, momentum=0.9), ta.Batches(x, y, 8, shuffle=True)
            ta.fit(layer, tt.mse_loss, optimizer, data, epochs=epochs, checkpoint=file, resume=True, progress=False)
        return layer.weight.item()

    expect(
        "weight after 2 epochs and 2 more from the checkpoint, minus that after 4",
        lambda: weights(2) - weights(4),
        0,
        "The order of an epoch follows from generator() alone: the rows of x and y stay where they are.",
        see="Checkpoints",
    )


# Performance: what grows, grows as it should


def seconds(call, times=1):
    """The time of so many calls: the least of three. What is compared is to take equally long, or a busy machine
    interrupts one more often than the other."""
    measured = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(times):
            call()
        measured.append(time.perf_counter() - start)
    return min(measured)


def epoch(examples):
    layer = tt.Linear(16, 4)
    data = ta.Batches(tt.zeros(examples, 16), tt.zeros(examples, 4), 32, shuffle=True)
    ta.fit(layer, tt.mse_loss, to.SGD(layer.parameters()), data, epochs=1, progress=False)


def test_performance_an_epoch_grows_with_its_examples():
    expect(
        "time of an epoch of 8,000 examples by that of 8 epochs of 1,000",
        lambda: seconds(lambda: epoch(8000)) / seconds(lambda: epoch(1000), 8),
        measured_between(0, 4),
        "As many examples may take about as long in one epoch as in many: are all of them touched for each batch?",
        see=COST,
    )


def test_performance_a_batch_is_not_the_whole_data():
    def ratio():
        data = ta.Batches(tt.zeros(20_000, 100), tt.zeros(20_000), 20)
        gc.collect()
        tracemalloc.start()
        try:
            for _ in data:
                pass
            return tracemalloc.get_traced_memory()[1] / (20_000 * 100 * 4)
        finally:
            tracemalloc.stop()

    expect(
        "memory of a pass in order through batches of 20, by the size of all inputs",
        ratio,
        measured_between(0, 1.5),
        "Cut one batch at a time: the data need not be copied for each.",
        see=BATCHES,
    )


def test_performance_60_steps_leave_nothing_behind():
    network = tt.Sequential(tt.Linear(50, 50), tt.Tanh(), tt.Linear(50, 10))
    optimizer = to.SGD(network.parameters(), lr=0.01)
    data = [(tt.zeros(400, 50), tt.zeros(400, 10))]

    def held(epochs):
        ta.fit(network, tt.mse_loss, optimizer, data, epochs=epochs, progress=False)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    def left():
        tracemalloc.start()
        try:
            settled = held(5)
            return (held(60) - settled) / (400 * 50 * 4)
        finally:
            tracemalloc.stop()

    expect(
        "what 60 steps of fit leave in memory, by the size of one activation",
        left,
        measured_between(-20, 3),
        (lambda ratio: ratio > 3, "Something is kept of each step: only numbers go into the averages."),
        see=COST,
    )
