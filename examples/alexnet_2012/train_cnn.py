"""AlexNet's idea on a small scale: a convolutional network tells airplanes from frogs in photographs of CIFAR-10.

In 2012 Alex Krizhevsky, Ilya Sutskever and Geoffrey Hinton entered a convolutional network for the ImageNet contest: 60
million parameters, trained for five to six days on two graphics cards that were made for games. For 15.3 % of the
photographs the right class was not among its five guesses; for the next best entry that was 26.2 %. Little in it was
new in kind. It was LeNet, larger and deeper, with ReLU and dropout, a million photographs to learn from, each cropped
and mirrored in many ways, and the arithmetic to do so. Two years later nearly every entry was such a network.

Krizhevsky had collected CIFAR-10 in 2009: ten classes, 6,000 photographs of each, of 32 by 32 pixels. On it a computer
without a graphics card can live through the same in minutes. This program trains four convolutions with batch
normalization and two dense layers, with the `fit` of chapter 08, on a data loader of chapter 10 that crops and mirrors
the photographs anew in each epoch.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from tt_data import (
    CIFAR10,
    Compose,
    DataLoader,
    Digits,
    Images,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    places,
)
from tt_optim import SGD
from tt_spatial import BatchNorm2d, Conv2d, MaxPool2d
from tt_tensor import Flatten, Linear, Module, ReLU, Sequential, manual_seed, tune_malloc

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file is run by its path; what it imports lies one folder up

from images import (
    announce,
    at_least,
    budget,
    confusion_table,
    draw,
    examine,
    image_parser,
    interruptible,
    parameter_count,
    prepare,
    print_mixed_up,
    share_right,
    train,
)
from terminal import Result, heading, report

EPOCHS = {"CIFAR-10": 10, "8 x 8 digits": 10}
NEEDED, ALL_IMAGES = {"CIFAR-10": 0.75, "8 x 8 digits": 0.95}, 50_000

# ## The photographs
#
# CIFAR-10, if it is here, or if it may be downloaded. If not, the 8 x 8 digits of chapter 08: the program is the same
# and the network too, only that its images have one colour and a sixteenth of the pixels. But a network that reads
# digits has not seen a frog. So the digits have a threshold of their own, and earn no milestone.


def find_photographs(folder: Path | None, limit: int | None, download: bool) -> tuple[str, Images, Images]:
    """The name of the data set, and its images to learn from and unseen, the first `limit` of each. Raises
    FileNotFoundError if `folder` does not hold CIFAR-10, ValueError for a damaged file, OSError if a download fails."""
    try:
        name, found = "CIFAR-10", [CIFAR10(folder, train=part, download=download) for part in (True, False)]
    except FileNotFoundError:
        if folder or download:
            raise
        name, found = "8 x 8 digits", [Digits(train=part) for part in (True, False)]
    training, unseen = (Images(part.images[:limit], part.labels[:limit], part.classes) for part in found)
    return name, training, unseen


ADVICE = """
CIFAR-10 is not here, so the 8 x 8 digits of chapter 08 are learned instead.
That earns no milestone. To earn it, put cifar-10-python.tar.gz into a folder
and name that with --data, or set TT_DATA to it; or let --download fetch the
170 MB.
"""

# Colours become numbers around 0 with a spread around 1. And each image that is learned from is changed a little, anew
# in each epoch: moved by up to an eighth of its width, and in half of the cases mirrored, since a frog that looks the
# other way is a frog. (A digit is not.) The network never sees the same photograph twice, and finds it harder to learn
# 50,000 of them by heart. The unseen ones stay as they are.


def set_transforms(name: str, training: Images, unseen: Images) -> None:
    """Give the images their transforms."""
    photographs, side = name == "CIFAR-10", training.images.shape[2]
    normalize = Normalize(CIFAR10.mean, CIFAR10.std) if photographs else Normalize([0.5], [0.5])
    mirror = [RandomHorizontalFlip()] if photographs else []
    training.transform = Compose([RandomCrop(side, padding=side // 8), *mirror, normalize])
    unseen.transform = normalize


# ## The network
#
# Two convolutions of 3 x 3, and a pooling that halves the image; two more with twice as many channels, and another
# pooling; then two dense layers. Batch normalization after each convolution lets the rate be twenty times what it could
# be otherwise, which is what makes ten epochs enough.


def block(channels: int, width: int) -> list[Module]:
    """A convolution, batch normalization and ReLU: from `channels` to `width`. What a bias would add, batch
    normalization would take away."""
    return [Conv2d(channels, width, 3, padding=1, bias=False), BatchNorm2d(width), ReLU()]


def network(channels: int, side: int, width: int = 32, classes: int = 10) -> Sequential:
    """Four convolutions and two dense layers for images (N, channels, side, side)."""
    return Sequential(
        *block(channels, width), *block(width, width), MaxPool2d(2),
        *block(width, 2 * width), *block(2 * width, 2 * width), MaxPool2d(2),
        Flatten(), Linear(2 * width * (side // 4) ** 2, 4 * width), ReLU(), Linear(4 * width, classes),
    )


# The optimizer is that of AlexNet, gradient descent with momentum and weight decay. The schedule of `train` moves rate
# and momentum together: while the rate is high, the momentum is low.


def optimizer(model: Module, rate: float) -> SGD:
    """Gradient descent with Nesterov's momentum and weight decay."""
    return SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4, nesterov=True)


def learn(training: Images, unseen_batches: DataLoader, options: argparse.Namespace) -> tuple[Module, dict]:
    """Train the network; the model and its history, by name."""
    manual_seed(options.seed)
    model = network(*training.images.shape[1:3])
    heading(f"Four convolutions and two dense layers, {parameter_count(model):,} parameters")
    data = DataLoader(training, options.batch_size, shuffle=True, num_workers=options.workers)
    history = train("cnn", model, optimizer(model, options.lr), data, unseen_batches, options)
    return model, {"CNN": history}


# ## Judging it
#
# Our own copy of CIFAR-10 has twenty test images that are not exact, and names them in a file. If there is such a file,
# a second number counts the others only.


def inexact_rows(folder: Path | None) -> list[int]:
    """The numbers of the test images that are not pixel-exact, if a file beside the data names any."""
    files = [place / "test_rows_from_jpeg.txt" for place in places("cifar10", folder)]
    return next(([int(row) for row in file.read_text("utf-8").split()] for file in files if file.is_file()), [])


def results(
    logits: np.ndarray, labels: np.ndarray, inexact: list[int], seconds: float, least: float = NEEDED["CIFAR-10"]
) -> list[Result]:
    """The rows for the unseen images: all of them, and the exact ones if some are not."""
    exact = np.setdiff1d(np.arange(len(labels)), inexact)
    parts = [(f"{len(labels):,} unseen", slice(None), seconds)]
    if len(exact) < len(labels):
        parts.append((f"{len(exact):,} exact of them", exact, 0.0))
    rights = [(what, share_right(logits[rows], labels[rows]), seconds) for what, rows, seconds in parts]
    return [Result(what, f"{right:.2%}", f">= {least:.1%}", right >= least, time) for what, right, time in rights]


# ## All of it


def program(name: str, training: Images, unseen: Images, options: argparse.Namespace) -> int:
    """Train the network, examine it, and report; the exit status."""
    set_transforms(name, training, unseen)
    unseen_batches = DataLoader(unseen, 250, num_workers=options.workers)
    model, histories = learn(training, unseen_batches, options)
    logits, labels = examine(model, unseen_batches)
    print_mixed_up(confusion_table(logits, labels), unseen.classes)
    draw(histories, unseen.images, logits, labels, unseen.classes, options.out)
    rows = budget("CIFAR-10", name, len(training), ALL_IMAGES, options.epochs, EPOCHS["CIFAR-10"])
    inexact = inexact_rows(options.data) if name == "CIFAR-10" else []
    seconds = sum(histories["CNN"].get("seconds", []))
    rows += results(logits, labels, inexact, seconds, NEEDED[name])
    return report(rows, __file__, options.json)


def main(arguments: list[str] | None = None) -> int:
    """Run the example; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = image_parser(
        __file__, "A convolutional network on CIFAR-10.", "CIFAR-10", EPOCHS, batch_size=128, lr=0.1
    )
    parser.add_argument("--download", action="store_true", help="fetch CIFAR-10 (170 MB) if it is not here")
    parser.add_argument("--workers", type=at_least(0), default=1, metavar="N",
                        help="threads that prepare batches ahead (default 1); the result is the same")
    options = parser.parse_args(arguments)
    try:
        name, training, unseen = find_photographs(options.data, options.limit, options.download)
        options.epochs = EPOCHS[name] if options.epochs is None else options.epochs
        prepare(options, name)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if name != "CIFAR-10":
        print(ADVICE)
    announce(name, len(training), len(unseen), options.out)
    return interruptible(lambda: program(name, training, unseen, options), options, __file__, arguments)


if __name__ == "__main__":
    tune_malloc()  # every step frees what the next one asks for
    sys.exit(main())
