"""Data: epochs of a loader over arrays, images with transforms and text; what a batch of samples costs to join."""

import numpy as np
import pytest

import tt_data as td
import tt_tensor as tt

pytestmark = pytest.mark.benchmark(group="tt-data")

COUNT = 2000
AUGMENTED = td.Compose([td.RandomCrop(32, padding=4), td.RandomHorizontalFlip(), td.Normalize([0.5], [0.25])])


@pytest.fixture(autouse=True)
def same_numbers():
    tt.manual_seed(0)


def photographs(transform=None):
    """Images whose pixels are all the number of their class."""
    labels = np.arange(COUNT) % 10
    pixels = np.broadcast_to(labels[:, None, None, None], (COUNT, 3, 32, 32))
    return td.Images(pixels.astype(np.uint8), labels, transform=transform)


def epoch(loader):
    return list(loader)


def test_epoch_of_2000_rows_shuffled(benchmark):
    x = tt.arange(float(COUNT)).reshape(COUNT, 1)
    batches = benchmark(epoch, td.DataLoader(td.TensorDataset(x, x * 2), batch_size=32, shuffle=True))
    assert sorted(tt.cat([x for x, _ in batches]).flatten().tolist()) == list(range(COUNT))
    assert all((y == x * 2).all() for x, y in batches)


def test_epoch_of_2000_images(benchmark):
    batches = benchmark(epoch, td.DataLoader(photographs(), batch_size=128))
    images, labels = batches[-1]
    assert len(batches) == 16 and np.allclose(images.numpy()[:, 2, 31, 31], labels.numpy() / 255)


def test_epoch_of_2000_images_cropped_mirrored_and_normalized(benchmark):
    batches = benchmark(epoch, td.DataLoader(photographs(AUGMENTED), batch_size=128, shuffle=True))
    images, labels = batches[0]
    assert images.shape == (128, 3, 32, 32)
    assert np.allclose(images.numpy()[:, 0, 16, 16], (labels.numpy() / 255 - 0.5) / 0.25, atol=1e-5)


def test_epoch_of_2000_images_with_2_workers(benchmark):
    loader = td.DataLoader(photographs(AUGMENTED), batch_size=128, shuffle=True, num_workers=2)
    images, labels = benchmark(epoch, loader)[0]
    assert np.allclose(images.numpy()[:, 0, 16, 16], (labels.numpy() / 255 - 0.5) / 0.25, atol=1e-5)


def test_collate_128_samples(benchmark):
    samples = [(np.full((3, 32, 32), label, np.float32), label) for label in range(128)]
    images, labels = benchmark(td.collate, samples)
    assert images.shape == (128, 3, 32, 32) and (images[:, 0, 0, 0] == labels).all()


def test_256_windows_of_a_text(benchmark):
    text = td.Text(length=64)
    inputs, targets = benchmark(text.batch, range(0, 2560, 10))
    assert bytes(inputs[1].tolist()) == td.short_text().encode()[10:74] and (inputs[:, 1:] == targets[:, :-1]).all()
