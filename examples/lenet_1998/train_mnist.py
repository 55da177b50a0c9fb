"""LeNet: a network that looks at neighbourhoods reads handwritten digits, and a digit that moves is still a digit.

In 1989 Yann LeCun and his colleagues at Bell Labs trained a network on digits from envelopes, by back-propagation, with
weights that were shared by all places of the image. Kunihiko Fukushima's neocognitron of 1980 had such layers, but not
that way to train them. The paper of 1998, by LeCun, Bottou, Bengio and Haffner, compared everything that was known on
60,000 digits since called MNIST; its LeNet-5 had 0.95 % of 10,000 wrong (0.8 % when it learned from distorted copies
too). By then machines with such networks read several million checks a day. Then other methods were in favour, for
more than ten years.

This program trains a LeNet (with ReLU and maxima, where the original had tanh and averages) and, for comparison, a
network of two dense layers with as many parameters, by the same recipe, with the `fit` of chapter 08. Then it moves
the unseen digits to the right, pixel by pixel, and asks both again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from tt_autograd import Batches, History
from tt_optim import AdamW
from tt_spatial import LeNet, framed_digits
from tt_tensor import Flatten, Linear, Module, ReLU, Sequential, Tensor, from_numpy, manual_seed, tune_malloc

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file is run by its path; what it imports lies one folder up

from images import (
    announce,
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
from mnist import FILES, load, mnist_folder
from terminal import Result, heading, report

EPOCHS = {"MNIST": 3, "8 x 8 digits": 30}
NEEDED, ALL_IMAGES = {"MNIST": 0.989, "8 x 8 digits": 0.95}, 60_000
CLASSES = [str(digit) for digit in range(10)]
FILE_NAMES = ", ".join(name for *pair, _ in FILES.values() for name in pair)
Images = tuple[Tensor, Tensor]

# ## The digits
#
# MNIST, if its files are here. If not, the 8 x 8 digits of chapter 08 in a frame of 16 by 16, as in chapter 09. The
# program is the same, and LeNet a little smaller, but a network that reads them has not read MNIST. So they have a
# threshold of their own, and earn no milestone.


def mnist(folder: Path) -> tuple[Images, Images]:
    """MNIST as images (N, 1, 28, 28) and labels, to learn from and unseen."""
    (x, y), (unseen, labels) = load(folder, "train"), load(folder, "test")
    return (x.reshape(-1, 1, 28, 28), y), (unseen.reshape(-1, 1, 28, 28), labels)


def find_digits(folder: Path | None, limit: int | None) -> tuple[str, Images, Images]:
    """The name of the data set, and its images to learn from and unseen, the first `limit` of each. Raises
    FileNotFoundError if `folder` does not hold MNIST, ValueError if a file of it is damaged."""
    found = mnist_folder(folder)
    if folder and not found:
        raise FileNotFoundError(f"there is no MNIST in {folder}: it needs {FILE_NAMES}")
    (x, y), (unseen, labels) = mnist(found) if found else framed_digits()
    return "MNIST" if found else "8 x 8 digits", (x[:limit], y[:limit]), (unseen[:limit], labels[:limit])


ADVICE = f"""
MNIST is not here, so the 8 x 8 digits of chapter 08 are learned instead. That
earns no milestone. To earn it, put the four files of MNIST,
  {FILE_NAMES.replace(", ", chr(10) + "  ")}
into a folder and name that with --data, or set TT_DATA to it.
"""

# ## Two networks
#
# LeNet has 61,706 numbers to learn. The other network gets hardly more, and not fewer, in one hidden layer. Both learn
# by the same recipe. The comparison is about what a network is made of, not about its size.


def dense_network(parameters: int, pixels: int, classes: int = 10) -> Sequential:
    """Two dense layers with at least so many parameters, and hardly more."""
    hidden = -(-(parameters - classes) // (pixels + 1 + classes))
    return Sequential(Flatten(), Linear(pixels, hidden), ReLU(), Linear(hidden, classes))


def learn(
    name: str, model: Module, training: Images, unseen: Images, options: argparse.Namespace
) -> tuple[Module, History]:
    """Train a model on the digits; the model and its history."""
    heading(f"{name}, {parameter_count(model):,} parameters")
    print(model, flush=True)
    data = Batches(*training, options.batch_size, shuffle=True)
    optimizer = AdamW(model.parameters(), lr=options.lr)
    return model, train(name.lower(), model, optimizer, data, Batches(*unseen, 1000), options)


# ## Moved digits
#
# The digits lie in the middle of their frames, with four empty pixels on each side. So moving one by up to four pixels
# loses no ink. It is the same digit, at a place where the networks have not seen any.

MOVES = range(5)


def moved(x: Tensor, pixels: int) -> Tensor:
    """Images (N, 1, H, W) moved to the right; zeros come in from the left."""
    images, width = np.zeros_like(x.numpy()), x.shape[3]
    images[..., pixels:] = x.numpy()[..., : width - pixels]
    return from_numpy(images)


def right_when_moved(model: Module, x: Tensor, labels: Tensor) -> list[float]:
    """The share of right answers for each of the moves."""
    return [share_right(*examine(model, Batches(moved(x, pixels), labels, 1000))) for pixels in MOVES]


def print_moved(right: dict[str, list[float]]) -> None:
    """Print a table of the shares."""
    print("\nunseen digits moved by" + "".join(f"{pixels:9d}" for pixels in MOVES) + " pixels")
    for name, shares in right.items():
        print(f"{name:>22s}" + "".join(f"{share:9.2%}" for share in shares))


# ## Judging it
#
# LeNet must reach 98.9 % of the unseen digits of MNIST as they are, and beat the dense network where they are moved. Of
# the 8 x 8 digits it must reach 95 %: there are only 1,438 to learn from. What the dense network reaches on digits that
# stay where they were is not a failure, and the table only mentions it.


def results(
    right: dict[str, list[float]], histories: dict[str, History], unseen: int, least: float = NEEDED["MNIST"]
) -> list[Result]:
    """The rows for both networks, from their shares of right answers for each of the moves."""
    lenet, dense = right["LeNet"], right["MLP"]
    seconds = {name: sum(history.get("seconds", [])) for name, history in histories.items()}
    what, needed = f"LeNet, {unseen:,} unseen", f">= {least:.1%}"
    rows = [
        Result(what, f"{lenet[0]:.2%}", needed, lenet[0] >= least, seconds["LeNet"]),
        Result("MLP of equal size", f"{dense[0]:.2%}", "-", True, seconds["MLP"]),
    ]
    for pixels in (1, 2):
        measured = f"LeNet {lenet[pixels]:.2%}, MLP {dense[pixels]:.2%}"
        rows.append(Result(f"moved by {pixels}", measured, "LeNet better", lenet[pixels] > dense[pixels], 0.0))
    return rows


# ## All of it


def program(name: str, training: Images, unseen: Images, options: argparse.Namespace) -> int:
    """Train both networks, compare them, and report; the exit status."""
    side = training[0].shape[3]
    manual_seed(options.seed)
    lenet, lenet_history = learn("LeNet", LeNet(size=side), training, unseen, options)
    manual_seed(options.seed)
    dense, dense_history = learn("MLP", dense_network(parameter_count(lenet), side**2), training, unseen, options)
    models, histories = {"LeNet": lenet, "MLP": dense}, {"LeNet": lenet_history, "MLP": dense_history}
    right = {title: right_when_moved(model, *unseen) for title, model in models.items()}
    print_moved(right)
    logits, labels = examine(lenet, Batches(*unseen, 1000))
    print_mixed_up(confusion_table(logits, labels), CLASSES)
    draw(histories, unseen[0].numpy(), logits, labels, CLASSES, options.out)
    rows = budget("MNIST", name, len(training[0]), ALL_IMAGES, options.epochs, EPOCHS["MNIST"])
    rows += results(right, histories, len(unseen[0]), NEEDED[name])
    return report(rows, __file__, options.json)


def main(arguments: list[str] | None = None) -> int:
    """Run the example; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = image_parser(
        __file__, "LeNet on MNIST, beside a dense network of equal size.", "the four files of MNIST", EPOCHS,
        batch_size=32, lr=4e-3,
    )
    options = parser.parse_args(arguments)
    try:
        name, training, unseen = find_digits(options.data, options.limit)
        options.epochs = EPOCHS[name] if options.epochs is None else options.epochs
        prepare(options, name)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if name != "MNIST":
        print(ADVICE)
    announce(name, len(training[0]), len(unseen[0]), options.out)
    return interruptible(lambda: program(name, training, unseen, options), options, __file__, arguments)


if __name__ == "__main__":
    tune_malloc()  # every step frees what the next one asks for
    sys.exit(main())
