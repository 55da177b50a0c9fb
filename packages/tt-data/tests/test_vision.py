"""torchvision's data sets, transforms and files: from small data in the published formats, and from the real ones."""

import gzip
import io
import os
import pickle
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

import tt_autograd  # noqa: F401  (gradients through normalize)
import tt_data as td
import tt_tensor as tt
from tt_data import vision

D, T, U = vision.datasets, vision.transforms, vision.utils
F = T.functional
USUAL = T.Compose([T.ToTensor(), T.Normalize((0.1307,), (0.3081,))])


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch, request):
    """No data on this machine, except for the tests that want the real ones."""
    tt.manual_seed(0)
    if "real" not in request.fixturenames:
        monkeypatch.delenv("TT_DATA", raising=False)
        monkeypatch.setenv("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(params=["raw", "packed"])
def root(tmp_path, monkeypatch, request):
    """A folder as torchvision fills it, with a few digits; the files as they are, or packed."""
    few = {True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", 6)}
    few[False] = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 4)
    monkeypatch.setattr("tt_data.datasets.IDX_FILES", few)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for images, labels, many in few.values():
        pixels = np.arange(many * 784, dtype=np.uint16).astype(np.uint8).tobytes()
        contents = {images: struct.pack(">4i", 0x803, many, 28, 28) + pixels}
        contents[labels] = struct.pack(">2i", 0x801, many) + bytes(range(many))
        for name, content in contents.items():
            if request.param == "raw":
                (folder / name).write_bytes(content)
            else:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return tmp_path


def picture(height=5, width=7, channels=3):
    shape = (height, width) if channels is None else (height, width, channels)
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


# Data sets


def test_mnist_lies_where_torchvision_puts_it(root):
    data = D.MNIST(str(root), train=True, transform=USUAL)
    assert data.data.shape == (6, 28, 28) and data.data.dtype == tt.uint8
    assert data.targets.dtype == tt.int64 and data.targets.tolist() == [0, 1, 2, 3, 4, 5]
    image, label = data[2]
    expected = ((data.data[2].numpy() / 255 - 0.1307) / 0.3081)[None]
    assert image.dtype == tt.float32 and np.allclose(image.numpy(), expected, atol=1e-6) and label == 2
    assert data.class_to_idx["7 - seven"] == 7 and data.raw_folder == os.path.join(str(root), "MNIST", "raw")
    assert "Number of datapoints: 4\n" in repr(D.MNIST(root, train=False)) and len(list(data)) == 6
    assert data.train_data is data.data and data.train_labels is data.test_labels is data.targets


def test_what_is_nowhere_says_where_it_was_looked_for(tmp_path):
    for kind in (D.MNIST, D.CIFAR10):
        with pytest.raises(RuntimeError, match=rf"(?s){kind.__name__} was not found.*give download=True"):
            kind(tmp_path)


def test_an_image_without_a_transform_is_a_picture(root, monkeypatch):
    data = D.MNIST(root)
    for is_there in (True, False):
        if not is_there:
            monkeypatch.setattr("tt_data.vision_functional.find_spec", lambda name: None)
        elif not pytest.importorskip("PIL"):
            continue
        image, label = data[1]
        assert (image.size, image.mode, label) == ((28, 28), "L", 1)
        assert np.array_equal(np.asarray(image), data.data[1].numpy())
        assert T.ToTensor()(image).shape == (1, 28, 28)
    assert type(image) is F.Picture and type(F.hflip(image)) is F.Picture


@pytest.mark.parametrize(
    "rest",
    [[], [T.Normalize([0.5], [0.25])], [T.Normalize([0.5], [0.25]), T.Resize(9), T.CenterCrop(6), T.Pad(1)],
     [T.Lambda(lambda x: x.flatten())], [T.RandomCrop(20), T.Normalize([0.5], [0.25])]],
    ids=str,
)  # fmt: skip
def test_a_batch_is_its_samples_bit_for_bit(root, rest):
    data = D.MNIST(root, transform=T.Compose([T.ToTensor(), *rest]))
    tt.manual_seed(3)
    one_by_one = td.default_collate([data[i] for i in (4, 0, 4)])
    tt.manual_seed(3)
    at_once = data.batch([4, 0, 4])
    for a, b in zip(one_by_one, at_once, strict=True):
        assert a.dtype == b.dtype and np.array_equal(a.numpy(), b.numpy())


def test_the_transform_is_called_once_for_each_image_or_not_at_all(root, monkeypatch):
    calls = []
    monkeypatch.setattr(T.ToTensor, "__call__", lambda self, image: calls.append(image))
    loader = td.DataLoader(D.MNIST(root, transform=USUAL), 3)
    assert [x.shape for x, _ in loader] == [(3, 1, 28, 28)] * 2 and not calls
    for image in D.MNIST(root, transform=T.Compose([T.Lambda(np.asarray), T.ToTensor()])):
        assert image[0] is None
    assert len(calls) == 6 and calls[0].shape == (28, 28)


def test_data_targets_and_transforms_may_be_exchanged(root):
    data = D.MNIST(root, transform=T.ToTensor())
    data.data, data.targets = data.data[2:5], [7, 8, 9]
    assert len(data) == 3 and data[0][1] == 7 and data.batch([2])[1].tolist() == [9]
    data.data[0] = 255
    data.target_transform = lambda label: label + 0.5
    assert data[0][0].numpy().min() == 1 and data[0][1] == 7.5 and data.batch([0])[1].tolist() == [7.5]
    data.transform = None
    assert isinstance(td.default_convert(np.asarray(data[0][0])), tt.Tensor)


def test_a_derived_data_set_keeps_its_samples(root):
    class WithNumber(D.MNIST):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image, label, index

    images, labels, numbers = next(iter(td.DataLoader(WithNumber(root, transform=T.ToTensor()), 3)))
    assert numbers.tolist() == [0, 1, 2] and images.shape == (3, 1, 28, 28) and labels.tolist() == [0, 1, 2]


def test_an_index_is_an_integer_of_a_sample(root):
    data = D.MNIST(root, transform=T.ToTensor())
    assert np.array_equal(data[-1][0].numpy(), data[np.int64(5)][0].numpy())
    with pytest.raises(IndexError, match="index 6 is out of range: there are 6 samples"):
        data[6]
    with pytest.raises(TypeError):
        data["0"]


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2}, {"num_workers": 1, "multiprocessing_context": "spawn"}])
def test_the_same_batches_whatever_the_workers(workers):
    tt.manual_seed(5)
    noise = D.FakeData(12, (3, 8, 8), transform=T.Compose([T.RandomCrop(6), T.RandomHorizontalFlip(), T.ToTensor()]))
    content = [images.numpy().sum() for images, _ in td.DataLoader(noise, 4, shuffle=True, **workers)]
    tt.manual_seed(5)
    assert content == [images.numpy().sum() for images, _ in td.DataLoader(noise, 4, shuffle=True)]


def test_cifar_is_bytes_in_rows_and_a_list(tmp_path, monkeypatch):
    monkeypatch.setattr("tt_data.formats.ROWS", 5)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rows = np.random.default_rng(0).integers(0, 256, (5, 3072), dtype=np.uint8)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps({b"data": rows, b"labels": [3] * 5}, 2))
    data = D.CIFAR10(tmp_path, train=False, transform=T.ToTensor())
    assert data.data.shape == (5, 32, 32, 3) and data.targets == [3] * 5 and data.classes[3] == "cat"
    wanted = rows.reshape(5, 3, 32, 32)[1].astype(np.float32) / np.float32(255)
    assert np.array_equal(data[1][0].numpy(), wanted) and len(D.CIFAR10(tmp_path)) == 25
    assert np.array_equal(data.batch([1])[0][0].numpy(), wanted)


def test_noise_of_any_size():
    data = D.FakeData(3, (1, 4, 5), num_classes=2, transform=T.ToTensor(), target_transform=str)
    assert [image.shape for image, _ in data] == [(1, 4, 5)] * 3 and data[0][1] in "01"
    others = D.FakeData(3, (1, 4, 5), transform=T.ToTensor(), random_offset=1)
    assert not np.array_equal(data[0][0].numpy(), others[0][0].numpy())


def test_folders_of_images(tmp_path):
    for name in ("dog/b.png", "dog/sub/a.PNG", "cat/c.png", "cat/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(U.png(picture()))
    data = D.ImageFolder(tmp_path, transform=len, loader=str)
    names = [Path(path).name for path, _ in data.samples]
    assert names == ["c.png", "b.png", "a.PNG"] and data.targets == [0, 1, 1] and data.classes == ["cat", "dog"]
    assert data[0] == (len(str(tmp_path / "cat" / "c.png")), 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no images .* of empty"):
        D.ImageFolder(tmp_path)
    assert len(D.ImageFolder(tmp_path, allow_empty=True)) == 3
    with pytest.raises(FileNotFoundError, match="one for each class"):
        D.ImageFolder(tmp_path / "empty")


def test_files_are_read_by_pillow(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(U.png(picture()))
    if pytest.importorskip("PIL"):
        assert np.array_equal(np.asarray(D.ImageFolder(tmp_path)[0][0]), picture())
    monkeypatch.setattr("tt_data.vision_datasets.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="pip install pillow"):
        D.ImageFolder(tmp_path)[0]


def test_a_data_set_of_your_own():
    class Mine(D.VisionDataset):
        def __len__(self):
            return 2

    assert repr(Mine("here", transform=T.ToTensor())).splitlines()[-1] == "    Transform: ToTensor()"
    with pytest.raises(ValueError, match="transforms for image and target together, or"):
        Mine(None, transforms=print, transform=print)


# Transforms


def test_numbers_from_bytes():
    assert np.array_equal(T.ToTensor()(picture()).numpy(), picture().transpose(2, 0, 1) / np.float32(255))
    assert T.ToTensor()(np.array([[0.25]])).tolist() == [[[0.25]]] and T.ToTensor()(np.eye(2, dtype=bool)).sum() == 2
    assert T.PILToTensor()(picture()).dtype == tt.uint8
    for wrong, kind in ((tt.zeros(3, 4, 4), TypeError), ("x", TypeError), (np.zeros(3), ValueError)):
        with pytest.raises(kind, match=r"picture|an image is"):
            T.ToTensor()(wrong)


def test_the_bytes_of_the_picture_stay_what_they_were():
    image = picture(channels=None)
    tensor = T.PILToTensor()(image)
    tensor.fill_(0)
    F.pad(image, 0)[:] = 0
    assert image.sum() > 0


def test_dtypes_and_their_ranges():
    tensor = T.ToTensor()(picture())
    back = T.ConvertImageDtype(tt.uint8)(tensor)
    assert np.array_equal(back.numpy().transpose(1, 2, 0), picture())
    assert F.convert_image_dtype(back, np.int32).numpy().max() == int(picture().max()) * 2**23
    assert F.convert_image_dtype(F.convert_image_dtype(back, np.int32), np.uint8).tolist() == back.tolist()
    with pytest.raises(RuntimeError, match="cannot hold the values of int64"):
        F.convert_image_dtype(tensor, np.int64)


def test_normalize_keeps_gradients_and_refuses_bytes():
    x = tt.ones(1, 2, 2)
    x.requires_grad_()
    T.Normalize([0.5], [0.25])(x).sum().backward()
    assert x.grad.tolist() == [[[4, 4], [4, 4]]]
    y = tt.ones(1, 2, 2)
    assert T.Normalize([0.5], [0.25], inplace=True)(y) is y and y.tolist() == [[[2, 2], [2, 2]]]
    with pytest.raises(TypeError, match="a tensor of floats, not uint8: put ToTensor"):
        F.normalize(T.PILToTensor()(picture()), [0.5], [0.5])
    with pytest.raises(ValueError, match="a std of 0"):
        F.normalize(tt.ones(1, 2, 2), [0.5], [0])
    with pytest.raises(ValueError, match="needs an image"):
        F.normalize(tt.ones(2, 2), [0.5], [0.5])


@pytest.mark.parametrize("channels", [None, 3])
def test_each_form_of_an_image_is_changed_alike(channels):
    image = picture(6, 8, channels)
    tensor = T.PILToTensor()(image)
    changes = (T.CenterCrop(4), T.CenterCrop((9, 3)), T.Pad([1, 2, 0, 3], 7), T.Pad(2, padding_mode="reflect"),
               T.Resize(12), T.Resize((3, 11)), T.Resize(3, T.InterpolationMode.BICUBIC), T.RandomHorizontalFlip(1),
               T.RandomVerticalFlip(1))  # fmt: skip
    for change in changes:
        of_array, of_tensor, of_picture = change(image), change(tensor), change(F.Picture(image))
        assert type(of_array) is np.ndarray and of_array.dtype == np.uint8
        assert np.array_equal(T.PILToTensor()(of_array).numpy(), of_tensor.numpy()), change
        assert np.array_equal(of_array, np.asarray(of_picture))
        assert np.array_equal(change(tensor[None])[0].numpy(), of_tensor.numpy())
    assert np.array_equal(F.vflip(image), image[::-1]) and np.array_equal(F.hflip(image), image[:, ::-1])


def test_sizes():
    image = picture(6, 8)
    assert [F.get_dimensions(T.Resize(size)(image)) for size in (3, [3], (3, 5))] == [[3, 3, 4]] * 2 + [[3, 3, 5]]
    assert F.get_image_size(T.Resize(6, max_size=7)(image)) == [7, 5] and F.resize(image, 6) is image
    for wrong in ((1, 2, 3), 0):
        with pytest.raises(ValueError, match="size is one number"):
            F.resize(image, wrong)
    with pytest.raises(ValueError, match="must be larger than the size 8"):
        F.resize(image, 8, max_size=8)
    with pytest.raises(ValueError, match="height and width"):
        T.CenterCrop((1, 2, 3))
    for options in ({"padding": -1}, {"padding": [1, 2, 3]}, {"padding": 1, "padding_mode": "wrap"}):
        with pytest.raises(ValueError, match="padding"):
            F.pad(image, **options)


def test_random_crops():
    image = np.arange(1, 17, dtype=np.uint8).reshape(4, 4)
    corners = {F.crop(image, i, j, 3, 3)[0, 0] for i in range(2) for j in range(2)}
    assert {T.RandomCrop(3)(image)[0, 0] for _ in range(60)} == corners
    assert {T.RandomCrop(4, padding=1)(image)[0, 0] for _ in range(200)} == {0, 1, 2, 5, 6}
    assert T.RandomCrop((6, 5), pad_if_needed=True, fill=9)(image).shape == (6, 5)
    with pytest.raises(ValueError, match="does not fit"):
        T.RandomCrop(5)(image)
    flips = sum(T.RandomHorizontalFlip(0.25)(image)[0, 0] == 4 for _ in range(400))
    assert 60 < flips < 140
    with pytest.raises(ValueError, match="p is a probability"):
        T.RandomVerticalFlip(2)


def test_one_seed_fixes_the_crops():
    def crops(seed):
        tt.manual_seed(seed)
        return [T.RandomCrop(2)(picture()).tolist() for _ in range(5)]

    assert crops(1) == crops(1) != crops(2)


def test_grey():
    green = np.full((1, 1, 3), [0, 255, 0], np.uint8)  # 149.7: a picture rounds, a tensor cuts off
    assert T.Grayscale()(green).item() == 150 and T.Grayscale()(T.PILToTensor()(green)).item() == 149
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    assert T.Grayscale()(red).tolist() == [[76, 76], [76, 76]] and T.Grayscale(3)(red).shape == (2, 2, 3)
    assert T.Grayscale()(T.PILToTensor()(red)).tolist() == [[[76, 76], [76, 76]]]
    with pytest.raises(ValueError, match="1 or 3"):
        T.Grayscale(2)(red)


def test_transforms_show_what_they_are():
    assert repr(USUAL) == "Compose(\n    ToTensor()\n    Normalize(mean=(0.1307,), std=(0.3081,))\n)"
    assert repr(T.Resize(3)) == "Resize(size=3, interpolation=bilinear, max_size=None, antialias=True)"
    assert tt.Sequential(T.CenterCrop(2), T.Pad(1))(tt.ones(1, 4, 4)).shape == (1, 4, 4)
    with pytest.raises(TypeError, match="Lambda takes a function, not a int"):
        T.Lambda(3)


# Files


def test_a_png_has_its_bytes_and_checksums():
    content = U.png(picture())
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        name, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack(">I", content[at + 8 + length : at + 12 + length])[0] == zlib.crc32(name + body)
        chunks[name], at = body, at + 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"] and chunks[b"IHDR"][:10] == struct.pack(">2I2B", 7, 5, 8, 2)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(5, 22)
    assert not rows[:, 0].any() and np.array_equal(rows[:, 1:].reshape(5, 7, 3), picture())


def test_images_are_saved(tmp_path, monkeypatch):
    images = tt.rand(5, 1, 4, 4)
    U.save_image(images, tmp_path / "a.png", nrow=2, padding=1)
    U.save_image(images, memory := io.BytesIO(), nrow=2, padding=1)
    assert (tmp_path / "a.png").read_bytes() == memory.getvalue()
    monkeypatch.setattr("tt_data.vision_utils.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="save a .png file"):
        U.save_image(images, tmp_path / "a.jpg")
    for wrong in (np.zeros((1, 2, 2)), [np.zeros(3)], []):
        with pytest.raises(TypeError, match="made of a tensor or a list of tensors"):
            U.make_grid(wrong)
    with pytest.raises(ValueError, match=r"not of \(3,\)"):
        U.make_grid(tt.zeros(3))


# The real ones


@pytest.fixture
def real():
    """The folder of $TT_DATA, or of a copy beside the repository."""
    beside = Path(__file__).parents[4] / "shared" / "data"
    folder = Path(os.environ.get("TT_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"the real data are looked for in $TT_DATA and in {beside}")
    return folder


def test_real_mnist_in_an_epoch_of_batches(real, monkeypatch):
    if not (real / "mnist").is_dir():
        pytest.skip(f"no mnist in {real}")
    monkeypatch.setenv("TT_DATA", str(real))
    data = D.MNIST("../data", train=True, download=True, transform=USUAL)
    total = sum(images.numpy().sum(dtype=np.float64) for images, _ in td.DataLoader(data, batch_size=64, shuffle=True))
    assert len(data) == 60_000 and abs(total / (60_000 * 784)) < 1e-3  # the mean of the data is 0.1307
    assert data.targets[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]


def test_real_cifar(real, monkeypatch):
    if not (real / "cifar10").is_dir():
        pytest.skip(f"no cifar10 in {real}")
    monkeypatch.setenv("TT_DATA", str(real))
    half = T.Compose([T.ToTensor(), T.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
    data = D.CIFAR10("./data", train=False, download=True, transform=half)
    images, labels = next(iter(td.DataLoader(data, batch_size=4, num_workers=2)))
    assert images.shape == (4, 3, 32, 32) and [data.classes[i] for i in labels] == ["cat", "ship", "ship", "airplane"]
    assert -1 <= images.numpy().min() < images.numpy().max() <= 1
