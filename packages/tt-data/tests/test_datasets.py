"""Data sets by their names: from small files in the published formats, and from the real ones where they are."""

import gzip
import hashlib
import os
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

import tt_autograd as ta
import tt_data as td
import tt_tensor as tt

ROWS = 20


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch, request):
    """No data on this machine, save for the tests that want the real ones."""
    if "real" not in request.fixturenames:
        monkeypatch.delenv("TT_DATA", raising=False)
        monkeypatch.setenv("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A folder with MNIST's four files, of a few images."""
    few = {True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", 6)}
    few[False] = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 4)
    monkeypatch.setattr("tt_data.datasets.IDX_FILES", few)
    folder = tmp_path / "mnist"
    folder.mkdir()
    for images, labels, count in few.values():
        pixels = np.arange(count * 784, dtype=np.uint16).astype(np.uint8).tobytes()
        (folder / f"{images}.gz").write_bytes(gzip.compress(struct.pack(">4i", 0x803, count, 28, 28) + pixels))
        (folder / f"{labels}.gz").write_bytes(gzip.compress(struct.pack(">2i", 0x801, count) + bytes(range(count))))
    return folder


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A folder with CIFAR-10's six files, of a few images."""
    monkeypatch.setattr("tt_data.formats.ROWS", ROWS)
    folder = tmp_path / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        data = np.random.default_rng(i).integers(0, 256, (ROWS, 3072), dtype=np.uint8)
        content = pickle.dumps({b"data": data, b"labels": [i] * ROWS}, 2)
        (folder / name).write_bytes(content)
    return folder


# Images


def test_a_data_set_of_images_hands_out_numbers_and_labels():
    data = td.Digits()
    image, label = data[5]
    assert image.shape == (1, 8, 8) and image.dtype == tt.float32 and isinstance(label, int)
    images, labels = data.batch([5, -1, 5])
    assert images.shape == (3, 1, 8, 8) and labels.dtype == tt.int64 and len(data) == 1438
    assert np.allclose(images.numpy(), data.images[[5, -1, 5]] / 255, rtol=1e-6) and labels[0].item() == label
    assert np.array_equal(images[0].numpy(), image.numpy())
    assert len(list(data)) == 1438  # iterated by its numbers, to the end


def test_images_are_bytes_with_labels():
    for images, labels in (
        (np.zeros((2, 3, 4, 4)), np.zeros(2)),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2)),
        (np.zeros((2, 3, 4, 4), np.uint8), np.zeros(3)),
    ):
        with pytest.raises(ValueError, match=r"images are bytes \(N, C, H, W\) with labels \(N,\), not"):
            td.Images(images, labels)


def test_a_label_keeps_its_value_or_is_refused():
    images = np.zeros((3, 1, 2, 2), np.uint8)
    assert td.Images(images, [0, 1, 2]).labels.tolist() == [0, 1, 2]
    assert td.Images(tt.from_numpy(images), tt.tensor([2.0, 0.0, 1.0])).labels.tolist() == [2, 0, 1]
    for labels in (np.array([0.2, 1.7, 2.9]), np.array([0, np.nan, 1]), np.array([0, np.inf, 1]), ["a", "b", "c"]):
        with pytest.raises(ValueError, match="labels are the numbers of classes, integers, not"):
            td.Images(images, labels)


INDEXED = {
    "TensorDataset": lambda: td.TensorDataset(tt.arange(5)),
    "Images": lambda: td.Images(np.zeros((5, 1, 2, 2), np.uint8), range(5)),
    "Text": lambda: td.Text("abcdefghi", length=4),
    "Subset": lambda: td.Subset(td.TensorDataset(tt.arange(9)), range(5)),
    "ConcatDataset": lambda: td.ConcatDataset([range(2), range(3)]),
}


@pytest.mark.parametrize("name", INDEXED)
def test_the_indices_of_a_batch_are_integers_that_exist(name):
    data = INDEXED[name]()
    assert len(data) == 5
    for indices, error, message in (
        ([], ValueError, "a batch has at least one sample"),
        ([0.0, 1.0], TypeError, "a list of integers, not"),
        ([True, False], TypeError, "a list of integers, not"),
        ([slice(0, 2)], TypeError, "a list of integers, not"),
        ([1, 5], IndexError, "index 5 is out of range: there are 5 samples"),
        ([-6], IndexError, "index -6 is out of range: there are 5 samples"),
    ):
        with pytest.raises(error, match=message):
            data.batch(indices)


def test_parts_of_data_sets_take_slices_and_lists():
    data = td.TensorDataset(tt.arange(10), tt.arange(10) * 2)
    parts = td.Subset(td.Subset(data, [4, 7, 9]), [2, 0]), td.ConcatDataset([data, data])
    assert [x.tolist() for x in parts[0][0:1]] == [[9], [18]] and [x.tolist() for x in parts[0][[1]]] == [[4], [8]]
    assert [x.tolist() for x in parts[1][9:11]] == [[9, 0], [18, 0]]


def test_tensors_are_tensors():
    with pytest.raises(TypeError, match="takes tensors, not ndarray: use from_numpy"):
        td.TensorDataset(np.zeros(3))


@pytest.mark.parametrize("samples", [[(1, 2), (3,)], [(1, 2), 3], [{"a": 1}, {"b": 2}], [{"a": 1}, 2]], ids=str)
def test_the_samples_of_a_batch_have_one_form(samples):
    with pytest.raises(ValueError, match="the samples of a batch must have one form: the first is a (tuple|dict) with"):
        td.collate(samples)


def test_collate_keeps_the_dtype_of_numpys_numbers():
    assert td.collate([np.float64(1), np.float64(2)]).dtype == tt.float64  # as PyTorch
    assert td.collate([np.float16(1), 2.5]).dtype == tt.float32
    assert td.collate([np.int8(1), 2]).dtype == tt.int64 and td.collate([True, 2]).tolist() == [1, 2]
    joined = td.ConcatDataset([[1, 2], [0.5]]).batch([2, 0])
    assert joined.dtype == tt.float32 and joined.tolist() == [0.5, 1]
    for number in (2**64, None, 1j, [1, 2], [[1], [2, 3]]):
        with pytest.raises(TypeError, match="collate stacks tensors, arrays and numbers of at most 64 bits"):
            td.collate([1, number])


@pytest.mark.parametrize("make", [lambda fill: td.RandomCrop(4, padding=2, fill=fill), lambda fill: td.Pad(2, fill)])
def test_a_frame_has_the_pixels_that_were_asked_for(make):
    images = np.full((2, 1, 4, 4), 7, np.uint8)
    assert set(np.unique(make(255)(np.repeat(images, 50, 0))).tolist()) == {7, 255}
    assert 0.5 in make(0.5)(np.repeat(images, 50, 0).astype(np.float32))
    for fill in (0.5, float("nan"), float("inf"), -1, 300):
        with pytest.raises(ValueError, match="a pixel of uint8 cannot be"):
            make(fill)(images)
    with pytest.raises(ValueError, match="padding is a number of pixels, 0 or more, not -1"):
        td.Pad(-1)(images)


def test_transforms_get_the_batch_and_its_chance():
    seen = []

    def transform(images, random):
        seen.append((images.shape, random.random()))
        return images.astype(np.float32)

    data = td.Images(np.zeros((6, 1, 2, 2), np.uint8), np.arange(6), transform=transform)
    list(td.DataLoader(data, 4, generator=np.random.default_rng(0)))
    random = np.random.default_rng(1)
    data.batch([0], random)
    assert [shape for shape, _ in seen] == [(4, 1, 2, 2), (2, 1, 2, 2), (1, 1, 2, 2)]
    assert len({drawn for _, drawn in seen}) == 3 and seen[2][1] == np.random.default_rng(1).random()


def test_digits_are_those_of_chapter_08():
    for part, train in zip(ta.training.digits(), (True, False)):
        data = td.Digits(train)
        assert np.abs(data.images.reshape(-1, 64) / 255 - part[0].numpy()).max() < 1 / 500
        assert np.array_equal(data.labels, part[1].numpy()) and data.classes == tuple("0123456789")


# MNIST


@pytest.mark.parametrize("kind", [td.MNIST, td.FashionMNIST])
def test_mnist_is_read_from_its_folder(mnist, kind):
    training, held_out = kind(mnist), kind(mnist, train=False)
    assert training.images.shape == (6, 1, 28, 28) and held_out.images.shape == (4, 1, 28, 28)
    assert training.images.dtype == np.uint8 and training.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert training.images.ravel()[:3].tolist() == [0, 1, 2] and len(training.classes) == 10


def test_mnist_is_found_by_its_name(mnist, monkeypatch):
    assert len(td.MNIST(mnist.parent)) == 6
    monkeypatch.setenv("TT_DATA", str(mnist.parent))
    assert len(td.MNIST()) == 6
    with pytest.raises(FileNotFoundError, match=r"no train-images-idx3-ubyte.gz and .*fashion-mnist.*download=True"):
        td.FashionMNIST()


@pytest.mark.parametrize("packed", [True, False])
def test_one_set_is_not_taken_for_the_other(mnist, packed, monkeypatch):
    sets = {td.MNIST: [7, 2, 1, 0, 4, 1, 4, 9, 5, 9], td.FashionMNIST: [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]}
    files = {True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", 6)}
    files[False] = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 10)
    monkeypatch.setattr("tt_data.datasets.IDX_FILES", files)
    for owner, labels in sets.items():
        for name, header, values in (
            ("t10k-images-idx3-ubyte", struct.pack(">4i", 0x803, 10, 28, 28), bytes(7840)),
            ("t10k-labels-idx1-ubyte", struct.pack(">2i", 0x801, 10), bytes(labels)),
        ):
            content = header + values
            (mnist / f"{name}.gz").unlink(missing_ok=True)
            (mnist / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
        (other,) = sets.keys() - {owner}
        assert owner(mnist, train=False).labels.tolist() == labels
        with pytest.raises(ValueError, match=f"t10k-labels.* belongs to {owner.__name__}, not to {other.__name__}"):
            other(mnist, train=False)


def test_images_of_the_other_set_are_known_by_their_checksum(mnist, monkeypatch):
    pictures = mnist / "t10k-images-idx3-ubyte.gz"
    checksum = hashlib.sha256(pictures.read_bytes()).hexdigest()
    monkeypatch.setattr(td.MNIST, "sha256", {"t10k-images-idx3-ubyte": checksum})
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte.gz belongs to MNIST, not to FashionMNIST"):
        td.FashionMNIST(mnist, train=False)


def test_a_home_folder_is_found(mnist, monkeypatch):
    monkeypatch.setenv("USERPROFILE" if sys.platform == "win32" else "HOME", str(mnist.parent))
    assert len(td.MNIST("~/mnist")) == 6
    monkeypatch.setenv("TT_DATA", "~")
    assert len(td.MNIST()) == 6


@pytest.mark.parametrize("kind", [td.Digits, td.MNIST, td.FashionMNIST, td.CIFAR10])
def test_train_is_a_truth_value(kind):
    with pytest.raises(TypeError, match="train is True or False.*, not 'test'"):
        kind(train="test")


def test_mnist_is_read_unpacked_too(mnist):
    for file in list(mnist.iterdir()):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    assert len(td.MNIST(mnist)) == 6


def test_a_label_of_11_is_refused(mnist):
    file = mnist / "train-labels-idx1-ubyte.gz"
    file.write_bytes(gzip.compress(struct.pack(">2i", 0x801, 6) + bytes([0, 1, 11, 3, 4, 5])))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte.gz: expected labels from 0 to 9 .* found \[11\]"):
        td.MNIST(mnist)


# CIFAR-10


def test_cifar_is_found_and_read(cifar, monkeypatch):
    for root in (cifar.parent, cifar.parent.parent):
        assert td.CIFAR10(root).images.shape == (5 * ROWS, 3, 32, 32)
    monkeypatch.setenv("TT_DATA", str(cifar.parent.parent))
    data = td.CIFAR10(train=False)
    assert data.labels.tolist() == [5] * ROWS and data.classes[5] == "dog" and data.images.dtype == np.uint8
    assert data.batch([0, 1])[0].shape == (2, 3, 32, 32)


def test_cifar_that_is_nowhere_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cifar-10-python.tar.gz or .*give download=True"):
        td.CIFAR10()
    with pytest.raises(FileNotFoundError, match="leave root out"):
        td.CIFAR10(tmp_path, download=True)
    assert list(tmp_path.iterdir()) == []


# Text


def test_text_is_windows_of_bytes():
    text = td.Text("hello, wörld", length=4)
    inputs, targets = text[1]
    assert bytes(inputs.tolist()) == b"ello" and bytes(targets.tolist()) == b"llo,"
    assert len(text) == len("hello, wörld".encode()) - 4 and inputs.dtype == tt.int64
    inputs, targets = next(iter(td.DataLoader(text, 3, shuffle=True)))
    assert inputs.shape == targets.shape == (3, 4) and (inputs[:, 1:] == targets[:, :-1]).all()
    with pytest.raises(ValueError, match="4 bytes and one more do not fit into a text of 4"):
        td.Text("abcd", length=4)


def test_a_text_comes_with_the_course():
    text = td.short_text()
    assert text.startswith("CHAPTER 1. Loomings.\n\nCall me Ishmael.") and text.endswith("in the air.\n")
    assert td.Text().text == text and "\r" not in text


def test_shakespeare_is_checked(tmp_path):
    folder = tmp_path / "tinyshakespeare"
    folder.mkdir()
    for content, words in ((b"short", "bytes 1115394, found 5"), (b"\xff" * 1_115_394, "not ASCII: 0, found 1115394")):
        (folder / "input.txt").write_bytes(content)
        with pytest.raises(ValueError, match=f"input.txt: expected .*{words}; get the file again"):
            td.tiny_shakespeare(tmp_path)
    (folder / "input.txt").write_bytes(b"a" * 1_115_394)
    assert len(td.tiny_shakespeare(tmp_path)) == 1_115_394
    with pytest.raises(FileNotFoundError):
        td.tiny_shakespeare()


# Grids and what the appendix adds


def test_grid_lays_images_side_by_side():
    images = np.arange(3 * 2 * 4, dtype=np.uint8).reshape(3, 1, 2, 4)
    sheet = td.grid(images, columns=2)
    assert sheet.shape == (5, 9) and (sheet[2] == 255).all() and (sheet[:, 4] == 255).all()
    assert np.array_equal(sheet[:2, 5:], images[1, 0]) and np.array_equal(sheet[3:, :4], images[2, 0])
    assert (sheet[3:, 5:] == 255).all()
    colours = td.grid(tt.ones(4, 3, 2, 2) * 0.5, columns=9, gap=0)
    assert colours.shape == (2, 8, 3) and (colours == 0.5).all()
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), at least one, not \(0, 1, 2, 4\)"):
        td.grid(images[:0])


def test_concat_keeps_order_and_kind():
    whole = td.ConcatDataset([[("a", 1), ("b", 2)], td.Digits(), [("c", 3)]])
    assert len(whole) == 1441 and whole[-1] == ("c", 3) and whole[1] == ("b", 2)
    letters = td.ConcatDataset([[("a", 1), ("b", 2)], [("c", 3)]])
    names, numbers = letters.batch([2, 0, -2])
    assert names == ["c", "a", "b"] and numbers.tolist() == [3, 1, 2]
    with pytest.raises(IndexError, match="there are 3 samples"):
        letters[3]
    assert len(td.ConcatDataset([])) == 0


def test_images_of_one_value_have_no_spread():
    for value in range(0, 256, 17):
        for count in (7, 48):
            images = np.full((count, 1, 5, 5), value, np.uint8)
            mean, std = td.channel_statistics(td.DataLoader(td.Images(images, np.zeros(count)), 5))
            assert std.tolist() == [0] and abs(mean[0] - value / 255) < 1e-7
    with pytest.raises(ValueError, match="the loader has no batch"):
        td.channel_statistics([])


def test_samplers_of_the_appendix():
    subset = td.SubsetRandomSampler([5, 7, 9], np.random.default_rng(0))
    assert len(subset) == 3 and sorted(subset) == [5, 7, 9]
    assert len({tuple(subset) for _ in range(30)}) > 1
    without = td.WeightedRandomSampler([0, 1, 1, 5], 3, replacement=False)
    assert sorted(without) == [1, 2, 3] and len(without) == 3
    for weights, count, replacement in (
        ([0, 0], 1, True),
        ([1, -1], 1, True),
        ([1, float("nan")], 1, True),
        ([1, 0], 2, False),
    ):
        with pytest.raises(ValueError, match="weight"):
            td.WeightedRandomSampler(weights, count, replacement)


def test_transforms_of_the_appendix():
    images = np.arange(2 * 3 * 5 * 5, dtype=np.uint8).reshape(2, 3, 5, 5)
    assert np.array_equal(td.CenterCrop(3)(images), images[:, :, 1:4, 1:4])
    padded = td.Pad(2, fill=9)(images)
    assert (
        padded.shape == (2, 3, 9, 9)
        and (padded[:, :, :2] == 9).all()
        and np.array_equal(td.CenterCrop(5)(padded), images)
    )
    with pytest.raises(ValueError, match=r"a window of \(6, 6\) does not fit into images of \(5, 5\)"):
        td.CenterCrop(6)(images)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), not \(3, 5, 5\)"):
        td.Pad(1)(images[0])


def test_a_transform_of_a_tensor_gives_a_tensor():
    images = tt.zeros(2, 3, 5, 5)
    assert isinstance(td.Compose([td.RandomCrop(3), td.RandomHorizontalFlip()])(images), tt.Tensor)
    assert isinstance(td.RandomCrop(3)(images.numpy()), np.ndarray)


@pytest.mark.parametrize("lengths", [[-1, 11], [2.5, 7.5], [float("nan"), 1], [float("inf"), 1], [-0.5, 1.5], []])
def test_a_split_into_less_than_nothing_or_parts_of_samples_is_refused(lengths):
    with pytest.raises(ValueError, match=r"lengths \[.*\] add up to .*; they must be integers of 0 or more"):
        td.random_split(range(10), lengths)


# The real data


@pytest.fixture
def real():
    folder = os.environ.get("TT_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TT_DATA names no folder with the real data")

    def load(call):
        try:
            return call()
        except FileNotFoundError as error:
            pytest.skip(str(error))

    return load


def test_real_mnist(real):
    training, held_out = real(td.MNIST), real(lambda: td.MNIST(train=False))
    assert np.bincount(training.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(held_out.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    mean, std = td.channel_statistics(td.DataLoader(training, 4096))
    assert abs(mean[0] - 0.13066) < 1e-5 and abs(std[0] - 0.30811) < 1e-5


def test_real_cifar(real):
    training, held_out = real(td.CIFAR10), real(lambda: td.CIFAR10(train=False))
    assert np.bincount(training.labels).tolist() == [5000] * 10 and np.bincount(held_out.labels).tolist() == [1000] * 10
    digest = hashlib.sha256(training.images).hexdigest()  # the pixels and their order, as published
    assert digest == "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111"
    mean, std = training.images.mean(axis=(0, 2, 3)) / 255, training.images.std(axis=(0, 2, 3)) / 255
    assert np.allclose(mean, td.CIFAR10.mean, atol=1e-8) and np.allclose(std, td.CIFAR10.std, atol=1e-8)


def test_real_shakespeare(real):
    text = real(td.tiny_shakespeare)
    assert text.startswith("First Citizen:\nBefore we proceed") and len(set(text)) == 65
