# # Data sets of single images
#
# An appendix of chapter 10: the data sets of the appendix *Data sets* in torchvision's form. A sample is one image with
# its label, changed by `transform` and `target_transform`. Where that is possible, we still make a batch at once.

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tt_data import datasets
from tt_data.common import row_numbers
from tt_data.dataloader import Dataset
from tt_data.torch_loader import default_collate
from tt_data.vision_functional import picture_of
from tt_data.vision_transforms import split
from tt_tensor import Tensor, from_numpy

# ## What they have in common


class VisionDataset(Dataset):
    """Images in the folder `root`, with transforms for images and for targets. Derive from it, and write `__getitem__`
    and `__len__`; `transforms`, for image and target together, is kept for you to call."""

    def __init__(
        self, root: str | os.PathLike | None = None, transforms: Callable | None = None,
        transform: Callable | None = None, target_transform: Callable | None = None,
    ):
        if transforms is not None and (transform is not None or target_transform is not None):
            raise ValueError("give transforms for image and target together, or transform and target_transform")
        self.root: Any = os.path.expanduser(root) if isinstance(root, str) else root
        self.transforms, self.transform, self.target_transform = transforms, transform, target_transform

    # As in torchvision, a data set describes itself in a few lines.

    def extra_repr(self) -> str:
        """More lines about the data set."""
        return ""

    def __repr__(self):
        lines = [f"Number of datapoints: {len(self)}"]  # type: ignore[arg-type]
        lines += [f"Root location: {self.root}"] if self.root is not None else []
        lines += self.extra_repr().splitlines()
        for name, change in (("Transform", self.transform), ("Target transform", self.target_transform)):
            lines += f"{name}: {change!r}".splitlines() if change is not None else []
        return "\n    ".join([f"Dataset {type(self).__name__}", *lines])


# ## Images in memory
#
# `data` holds the bytes of all pictures and `targets` the labels, and programs read, change and exchange them. So we
# look at both anew for each batch.
#
# The appendix *Transforms of one image* splits the transforms into a head, which takes a whole batch, and the rest. One
# image is a batch of one, so it gets the same bits alone or in a batch. We create picture objects only if the head is
# empty.


class PicturesInMemory(VisionDataset):
    """`data`, pictures (N, H, W) or (N, H, W, C) of bytes, and `targets`, N labels. Sample i is (image, label)."""

    data: Any
    targets: Any
    classes: ClassVar[Any]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index):
        rows = row_numbers([operator.index(index)], len(self))
        head, rest = split(self.transform)
        images = self._images(rows, head)
        return self._finished(images[0], self._labels(rows).item(), rest)

    def batch(self, indices):
        rows = row_numbers(indices, len(self))
        head, rest = split(self.transform)
        images, labels = self._images(rows, head), self._labels(rows)
        if head and not rest and self.target_transform is None:
            return images, from_numpy(labels)
        rows_of = images.numpy() if head else images
        samples = zip(map(from_numpy, rows_of) if head else rows_of, labels.tolist())
        return default_collate([self._finished(image, label, rest) for image, label in samples])

    # The head changes all images at once; the rest of the transforms finishes each by itself.

    def _images(self, rows: np.ndarray, head: list[Callable]) -> Any:
        images = _plain(self.data)[rows]
        if not head:
            return [picture_of(pixels) for pixels in images]
        for change in head:
            images = change(images)
        return images

    def _labels(self, rows: np.ndarray) -> np.ndarray:
        targets = _plain(self.targets)
        chosen = targets[rows] if isinstance(targets, np.ndarray) else [int(targets[row]) for row in rows]
        return np.asarray(chosen, np.int64)

    def _finished(self, image, label: int, rest: list[Callable]) -> tuple[Any, Any]:
        for change in rest:
            image = change(image)
        return image, label if self.target_transform is None else self.target_transform(label)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The number of each class, by its name."""
        return {name: number for number, name in enumerate(self.classes)}


def _plain(values) -> Any:
    return values.numpy() if isinstance(values, Tensor) else values


# ## By their names
#
# We look for the files where torchvision keeps them, `root/MNIST/raw` for instance, then in `root` itself, in the
# folder that `TT_DATA` names, and in the cache. So you can use a folder that torchvision has filled. A download goes to
# the cache, with a checksum and a progress bar, and never to `root`.


def found(kind: type, folders: Sequence[Path], train: bool, download: bool) -> Any:
    """The data set `kind` of the appendix *Data sets*, from the first of the folders that has it, else from $TT_DATA,
    the cache or the web. Raises RuntimeError if it is nowhere."""
    for folder in folders:
        try:
            return kind(folder, train)
        except FileNotFoundError:
            continue
    try:
        return kind(None, train, download=download)
    except FileNotFoundError as error:
        looked = ", ".join(map(str, folders))
        raise RuntimeError(f"{kind.__name__} was not found, neither in {looked} nor elsewhere: {error}") from error


# The digits have torchvision's names for their classes, and its older names for the data.


class MNIST(PicturesInMemory):
    """60,000 handwritten digits for training or 10,000 to test on, as torchvision.datasets.MNIST: `data` is a
    uint8 tensor (N, 28, 28), `targets` an int64 tensor (N,)."""

    kind: ClassVar[type] = datasets.MNIST
    classes: ClassVar = [
        "0 - zero", "1 - one", "2 - two", "3 - three", "4 - four", "5 - five", "6 - six", "7 - seven", "8 - eight",
        "9 - nine",
    ]  # fmt: skip

    def __init__(
        self, root: str | os.PathLike, train: bool = True, transform: Callable | None = None,
        target_transform: Callable | None = None, download: bool = False,
    ):
        super().__init__(root, None, transform, target_transform)
        self.train = train
        root = Path(self.root)
        folders = [Path(self.raw_folder), root / self.kind.__name__ / "raw", root]
        files = found(self.kind, folders, train, download)
        self.data, self.targets = from_numpy(files.images[:, 0].copy()), from_numpy(files.labels)

    # Older programs ask for these names.

    train_data = test_data = property(lambda self: self.data, doc="`data` by its older names.")
    train_labels = test_labels = property(lambda self: self.targets, doc="`targets` by its older names.")

    @property
    def raw_folder(self) -> str:
        """Where torchvision keeps the files."""
        return os.path.join(self.root, type(self).__name__, "raw")

    def extra_repr(self) -> str:
        """The split."""
        return "Split: Train" if self.train else "Split: Test"


# The clothes are the same class with other files.


class FashionMNIST(MNIST):
    """60,000 articles of clothing for training or 10,000 to test on, as torchvision.datasets.FashionMNIST."""

    kind = datasets.FashionMNIST
    classes: ClassVar = list(datasets.FashionMNIST.names)


# The photographs come with the channels last, and their labels in a list, as in torchvision.


class CIFAR10(PicturesInMemory):
    """50,000 photographs for training or 10,000 to test on, as torchvision.datasets.CIFAR10: `data` is an array
    of bytes (N, 32, 32, 3), `targets` a list."""

    classes: ClassVar = list(datasets.CIFAR10.names)

    def __init__(
        self, root: str | os.PathLike, train: bool = True, transform: Callable | None = None,
        target_transform: Callable | None = None, download: bool = False,
    ):
        super().__init__(root, None, transform, target_transform)
        self.train = train
        files = found(datasets.CIFAR10, [Path(self.root)], train, download)
        self.data, self.targets = files.images.transpose(0, 2, 3, 1), files.labels.tolist()

    def extra_repr(self) -> str:
        """The split."""
        return "Split: Train" if self.train else "Split: Test"


# ## Noise
#
# Where only the form of the images matters, noise will do: to test a program, or its speed.


class FakeData(VisionDataset):
    """`size` pictures of noise, (C, H, W) = `image_size`, with labels below `num_classes`. Sample i is always the same;
    `random_offset` chooses others. The numbers are NumPy's, not torch's."""

    def __init__(
        self, size: int = 1000, image_size: tuple[int, int, int] = (3, 224, 224), num_classes: int = 10,
        transform: Callable | None = None, target_transform: Callable | None = None, random_offset: int = 0,
    ):
        super().__init__(None, None, transform, target_transform)
        self.size, self.image_size, self.num_classes = size, image_size, num_classes
        self.random_offset = random_offset

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index):
        if not 0 <= index < self.size:
            raise IndexError(f"index {index} is out of range: there are {self.size} samples")
        random = np.random.default_rng([self.random_offset + operator.index(index)])
        channels, height, width = self.image_size
        pixels = random.integers(0, 256, (height, width, channels), np.uint8)
        image, label = picture_of(pixels[:, :, 0] if channels == 1 else pixels), int(random.integers(self.num_classes))
        image = image if self.transform is None else self.transform(image)
        return image, label if self.target_transform is None else self.target_transform(label)


def check_noise_is_the_same_each_time():
    data = FakeData(4, (3, 5, 6), transform=np.asarray)
    assert data[3][0].shape == (5, 6, 3) and np.array_equal(data[3][0], data[3][0])
    assert not np.array_equal(data[3][0], data[2][0]) and all(0 <= data[i][1] < 10 for i in range(4))


# ## Your own folders
#
# In the simplest collection of photographs, each class has a folder with its name, and the files are inside. You may
# have collected your own that way.

IMAGE_FILES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def read_picture(path: str) -> Any:
    """The picture in a file, in colour. Raises RuntimeError where Pillow is not installed."""
    if find_spec("PIL") is None:
        raise RuntimeError(f"{path}: image files are read by Pillow; pip install pillow, or give a loader of your own")
    with import_module("PIL.Image").open(path) as image:
        return image.convert("RGB")


# We sort the names of folders and files, so that the order is the same on every system.


class ImageFolder(VisionDataset):
    """The files root/class/**/name, as torchvision.datasets.ImageFolder: `samples` is a list of (path, class number),
    in the order of their names. FileNotFoundError if there is no class, or, unless allow_empty, if one has no file."""

    def __init__(
        self, root: str | os.PathLike, transform: Callable | None = None, target_transform: Callable | None = None,
        loader: Callable[[str], Any] = read_picture, is_valid_file: Callable[[str], bool] | None = None,
        allow_empty: bool = False,
    ):
        super().__init__(root, None, transform, target_transform)
        self.loader, wanted = loader, is_valid_file or _is_image_file
        self.classes = sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir())
        if not self.classes:
            raise FileNotFoundError(f"{self.root} has no folder in it: there must be one for each class")
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}
        self.samples = [
            (path, number) for name, number in self.class_to_idx.items()
            for path in _files_below(os.path.join(self.root, name)) if wanted(path)
        ]  # fmt: skip
        self.imgs, self.targets = self.samples, [number for _, number in self.samples]
        empty = [name for name, number in self.class_to_idx.items() if number not in self.targets]
        if empty and not allow_empty:
            raise FileNotFoundError(f"{self.root}: no images ({', '.join(IMAGE_FILES)}) of {', '.join(empty)}")

    # We read a file only when its sample is asked for.

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index):
        path, label = self.samples[index]
        image = self.loader(path) if self.transform is None else self.transform(self.loader(path))
        return image, label if self.target_transform is None else self.target_transform(label)


# A file is an image if its name says so, and classes may have folders inside their folder.


def _is_image_file(path: str) -> bool:
    return path.lower().endswith(IMAGE_FILES)


def _files_below(folder: str) -> list[str]:
    walk = sorted(os.walk(folder, followlinks=True))
    return [os.path.join(place, name) for place, _, names in walk for name in sorted(names)]


__all__ = ["CIFAR10", "FakeData", "FashionMNIST", "ImageFolder", "MNIST", "VisionDataset"]
