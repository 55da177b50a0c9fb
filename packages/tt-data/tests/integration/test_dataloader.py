"""Chapter 10 at work: the loader with fit, with LeNet and with chance, and what it costs."""

import gc
import time
import tracemalloc

import numpy as np
import pytest

import tt_autograd as ta
import tt_data as td
import tt_optim as to
import tt_spatial as ts
import tt_tensor as tt
from tt_tensor.teaching import between, expect, measured_between

MADE, ORDERS, LOADER, AHEAD = "Data sets made of others", "Orders", "The loader", "Ahead of time"
TRANSFORMS, WITNESS, COST = "Transforms", "The witness", "The cost"


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def line():
    """Points on y = 2 x - 1."""
    x = np.linspace(-1, 1, 24)[:, None]
    return td.TensorDataset(tt.Tensor(x), tt.Tensor(2 * x - 1))


def linear():
    """A layer in float64 that starts at zero."""
    layer = tt.Linear(1, 1).double()
    layer.weight.data, layer.bias.data = np.zeros((1, 1)), np.zeros(1)
    return layer


# Imports and instantiation


def test_imports_find_what_the_chapter_promises():
    names = ["Dataset", "TensorDataset", "Subset", "ConcatDataset", "Images", "random_split", "collate", "DataLoader"]
    names += ["Sampler", "SequentialSampler", "RandomSampler", "SubsetRandomSampler", "WeightedRandomSampler"]
    names += ["BatchSampler", "Transform", "Compose", "Normalize", "ToFloat", "RandomCrop", "RandomHorizontalFlip"]
    names += ["Pad", "CenterCrop", "Cutout", "Digits", "MNIST", "FashionMNIST", "CIFAR10", "Text", "grid"]
    expect(
        "the names that chapter 10 lacks",
        [name for name in names if not (hasattr(td, name) or hasattr(td.dataloader, name))],
        [],
        see="Exercises",
    )


def test_imports_give_loaders_of_the_right_length():
    def lengths():
        data = td.Digits()
        loaders = [td.DataLoader(data, batch_size=32), td.DataLoader(data, batch_size=32, drop_last=True)]
        return len(data), *map(len, loaders), len(td.DataLoader(data, sampler=range(7)))

    expect(
        "samples of Digits(), batches of 32 of it, without the last one, and batches of 1 of seven",
        lengths,
        (1438, 45, 44, 7),
        see=LOADER,
    )


# Compatibility: with fit, with data sets of every kind, with workers


@pytest.mark.parametrize("workers", [0, 2])
def test_compatibility_with_fit_and_batches(workers):
    def weight(data):
        layer = linear()
        ta.fit(layer, tt.mse_loss, to.SGD(layer.parameters(), lr=0.1), data, epochs=3, progress=False)
        return layer.weight.item()

    data = line()
    expect(
        f"weight after 3 epochs with a DataLoader, {workers} workers, minus that with the Batches of chapter 08",
        lambda: weight(td.DataLoader(data, 8, num_workers=workers)) - weight(ta.Batches(*data.tensors, 8)),
        0,
        see=LOADER,
    )


def test_compatibility_with_parts_of_parts():
    def found():
        training, held_out = td.random_split(td.TensorDataset(tt.arange(10), tt.arange(10) * 2), [0.8, 0.2])
        whole = td.ConcatDataset([td.Subset(training, range(4)), held_out, td.Subset(training, range(4, 8))])
        batches = list(td.DataLoader(whole, 4, shuffle=True))
        return sorted(value for x, _ in batches for value in x.tolist()), all((2 * x == y).all() for x, y in batches)

    expect(
        "all samples of a concatenation of subsets of a split, and whether they kept their labels",
        found,
        (list(range(10)), True),
        see=MADE,
    )


def test_compatibility_with_weights():
    def shares():
        labels = np.array([0] * 90 + [1] * 10)
        weights = 1 / np.bincount(labels)[labels]
        data = td.TensorDataset(tt.from_numpy(labels))
        loader = td.DataLoader(data, 50, sampler=td.WeightedRandomSampler(weights, 1000))
        return np.mean([x.numpy().mean() for (x,) in loader])

    expect(
        "share of a rare class in batches that are drawn with weights",
        shares,
        between(0.42, 0.58),
        see=ORDERS,
    )


def test_compatibility_with_transforms_of_your_own():
    class Darker(td.Transform):
        def apply(self, images, random):
            return images // 2

    def largest():
        change = td.Compose([Darker(), td.RandomCrop(8, padding=1), lambda images, random: images, td.ToFloat()])
        return max(x.numpy().max() for x, _ in td.DataLoader(td.Digits(transform=change), 128))

    expect("the largest pixel of digits that were made darker by half", largest, between(0.49, 0.5), see=TRANSFORMS)


# Integration: it learns, and can be interrupted


def test_integration_a_line_is_found():
    def learned():
        layer = linear()
        data = td.DataLoader(line(), 8, shuffle=True, num_workers=1)
        ta.fit(layer, tt.mse_loss, to.SGD(layer.parameters(), lr=0.2), data, epochs=60, progress=False)
        return [layer.weight.item(), layer.bias.item()]

    expect("weight and bias after 60 epochs on y = 2 x - 1", learned, [2, -1], see=LOADER, tolerance=1e-2)


def test_integration_lenet_reads_moved_digits():
    def learned():
        change = td.Compose([td.RandomCrop(8, padding=1), td.Normalize([0.3], [0.4])])
        network = ts.LeNet(size=8)
        options = {"validation": td.DataLoader(td.Digits(train=False, transform=td.Normalize([0.3], [0.4])), 359)}
        data = td.DataLoader(td.Digits(transform=change), 32, shuffle=True)
        optimizer = to.Adam(network.parameters(), lr=5e-3)
        options |= {"metrics": [ta.accuracy], "progress": False}
        return ta.fit(network, tt.cross_entropy, optimizer, data, epochs=8, **options)["val_accuracy"][-1]

    expect("share of unseen digits that LeNet reads after 8 epochs of moved ones", learned, between(0.7, 1), see=LOADER)


@pytest.mark.parametrize("workers", [0, 2])
def test_integration_a_run_goes_on_where_it_was_cut(tmp_path, workers):
    class Cut(ta.Callback):
        def on_step(self, run):
            if run.steps == 5:
                raise KeyboardInterrupt

    def weights(name, *callbacks, seed=1):
        tt.manual_seed(seed)
        layer = tt.Sequential(tt.Flatten(), tt.Dropout(0.3), tt.Linear(64, 10))
        data = td.Digits(transform=td.Compose([td.RandomCrop(8, padding=1), td.ToFloat()]))
        loader = td.DataLoader(td.Subset(data, range(100)), 32, shuffle=True, num_workers=workers)
        optimizer, file = to.SGD(layer.parameters(), lr=0.1), tmp_path / name
        options = {"checkpoint": file, "checkpoint_every": 2, "callbacks": callbacks, "progress": False}
        ta.fit(layer, tt.cross_entropy, optimizer, loader, epochs=3, resume=True, **options)
        return layer[2].weight.numpy().copy()

    def difference():
        whole = weights("whole", ta.Callback())
        try:
            weights("cut", Cut())
        except KeyboardInterrupt:
            return np.abs(weights("cut", ta.Callback(), seed=2) - whole).max()
        return "was not cut"

    expect(
        "largest difference of a weight after a training that was cut in the second epoch and resumed",
        difference,
        0,
        "Order, crops and dropout of an epoch follow from the state of generator() when the epoch began.",
        see=WITNESS,
        tolerance=0,
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


def test_performance_a_pass_grows_with_its_samples():
    def one_pass(count):
        data = td.TensorDataset(tt.zeros(count, 8), tt.zeros(count))
        for _ in td.DataLoader(data, 32, shuffle=True):
            pass

    expect(
        "time of a pass through 20,000 samples by that of 8 passes through 2,500",
        lambda: seconds(lambda: one_pass(20_000)) / seconds(lambda: one_pass(2_500), 8),
        measured_between(0, 4),
        "As many samples may take about as long in one pass as in many: are all of them touched for each batch?",
        see=COST,
    )


def test_performance_a_batch_is_not_made_sample_by_sample():
    table = td.TensorDataset(tt.zeros(20_000, 100), tt.zeros(20_000))

    class Plain(td.Dataset):
        def __len__(self):
            return len(table)

        def __getitem__(self, index):
            return table[index]

    def two_passes(data):
        for _ in td.DataLoader(td.Subset(data, range(4000)), 200):
            pass

    expect(
        "time for batches of rows by that for the same batches sample by sample",
        lambda: seconds(lambda: two_passes(table)) / seconds(lambda: two_passes(Plain())),
        measured_between(0, 0.8),
        "A batch of a TensorDataset is one index with many rows, not many rows one by one.",
        see=MADE,
    )


def test_performance_a_batch_is_not_the_whole_data():
    images = np.zeros((2000, 3, 16, 16), np.uint8)

    def ratio():
        data = td.Images(images, np.zeros(2000), transform=td.Compose([td.RandomCrop(16, 2), td.ToFloat()]))
        loader = td.DataLoader(data, 20, shuffle=True, num_workers=2)
        gc.collect()
        tracemalloc.start()
        try:
            for _ in loader:
                pass
            return tracemalloc.get_traced_memory()[1] / images.nbytes
        finally:
            tracemalloc.stop()

    expect(
        "memory of a pass through batches of 20 with two workers, by the size of the images as bytes",
        ratio,
        measured_between(0, 1.5),
        "At most num_workers * prefetch_factor batches are under way; nothing else is copied.",
        see=AHEAD,
    )


def test_performance_crops_are_not_tried_out():
    images = np.zeros((256, 3, 32, 32), np.uint8)
    crop, wide = td.RandomCrop(32, padding=4), td.RandomCrop(32, padding=16)

    expect(
        "time of a crop from a frame of 64 by 64 by that from 40 by 40",
        lambda: seconds(lambda: wide(images), 3) / seconds(lambda: crop(images), 3),
        measured_between(0, 20),
        "Only the window that is picked is copied, not all that there are: 1,089 of them against 81.",
        see=TRANSFORMS,
    )
