"""What the image examples share: options, a training that can be interrupted, and pictures of how it went."""

from __future__ import annotations

import argparse
import csv
import json
import math
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from terminal import KERNELS, Result, json_file, on_kernels

from tt_autograd import Callback, History, Schedule, accuracy, fit, no_grad
from tt_optim import OneCycleLR, Optimizer
from tt_tensor import Module, cross_entropy

# ## Options
#
# A training of minutes must not begin with an option that cannot be meant. So everything is checked while the options
# are read, and an error names the option, what it wants, and what it was given.


def at_least(least: int) -> Callable[[str], int]:
    """A type for options: whole numbers that are not below `least`."""

    def number(text: str) -> int:
        if not (text.lstrip("-").isdigit() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"a whole number of at least {least} is wanted, not {text!r}")
        return int(text)

    return number


def positive(text: str) -> float:
    """A type for options: finite numbers above zero."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"a number above 0 is wanted, not {text!r}")
    return number


def image_parser(
    script: str, description: str, data: str, epochs: Mapping[str, int], **defaults: Any
) -> argparse.ArgumentParser:
    """The options of an image example: `data` is what --data is to hold, `epochs` are the passes over each data set,
    `defaults` are those of batch_size and lr."""
    parser, name = argparse.ArgumentParser(description=description), Path(script).parent.name
    add = parser.add_argument
    usual = ", ".join(f"{number} for {name}" for name, number in epochs.items())
    add("--epochs", type=at_least(0), metavar="N", help=f"passes over the images (default {usual})")
    add("--batch-size", type=at_least(1), metavar="N", help="images in a step (default %(default)s)")
    add("--lr", type=positive, help="the largest learning rate of the schedule (default %(default)s)")
    add("--seed", type=at_least(0), default=0, help="the seed of everything (default 0)")
    add("--limit", type=at_least(1), metavar="N", help="use only the first N images, for a quick try")
    add("--data", type=Path, metavar="FOLDER", help=f"the folder with {data} (default: look in TT_DATA)")
    add("--out", type=Path, metavar="FOLDER", default=Path("runs") / name,
        help="where checkpoints, curves and pictures go (default %(default)s)")
    add("--resume", action="store_true", help="go on with the training that was interrupted in --out")
    add("--kernels", **KERNELS)
    add("--json", type=json_file, metavar="FILE", help="write the table to this file, too")
    parser.set_defaults(**defaults)
    return parser


# ## Going on
#
# A training goes on bit for bit only if everything is as it was when it began. What matters is written down at the
# beginning, in `options.json`, and compared when it is resumed. A training that begins anew removes the checkpoints of
# the old one; else the next --resume could mix the two.

SETTINGS = ("epochs", "batch_size", "lr", "seed", "limit", "kernels")


def prepare(options: argparse.Namespace, learned: str, what_matters: Sequence[str] = SETTINGS) -> None:
    """Make the folder --out ready for a new training on the data named `learned`, or for going on with an old one that
    had the same of `what_matters`. ValueError if it was begun with other options or never, OSError if the folder cannot
    be used."""
    settings = {name: getattr(options, name) for name in what_matters} | {"data": learned}
    file = options.out / "options.json"
    if options.resume:
        if not file.is_file():
            raise ValueError(f"there is no training to resume in {options.out}; give its folder with --out")
        _require_same(json.loads(file.read_text(encoding="utf-8")), settings, options.out)
        return
    if options.out.is_file():
        raise ValueError(f"--out wants a folder, and {options.out} is a file")
    options.out.mkdir(parents=True, exist_ok=True)
    for checkpoint in options.out.glob("*.safetensors"):
        checkpoint.unlink()
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _require_same(begun: Mapping[str, Any], settings: Mapping[str, Any], folder: Path) -> None:
    other = [name for name in settings if begun.get(name) != settings[name]]
    if other:
        names = ", ".join(f"{name.replace('_', '-')} {begun.get(name)} (now {settings[name]})" for name in other)
        raise ValueError(f"the training in {folder} was begun with {names}; --resume needs the same options")


# Ctrl-C is no error. The last checkpoint is at most a hundred steps old, and the way back is one command. (130 is what
# shells report of a program that Ctrl-C has ended.)


def interruptible(program: Callable[[], int], options: argparse.Namespace, script: str, arguments: list[str]) -> int:
    """Run a program; its exit status, or 130 after Ctrl-C and a word on how to go on."""
    try:
        with on_kernels(options.kernels):
            return program()
    except KeyboardInterrupt:
        again = [sys.executable, script, *_without_json(arguments), *([] if options.resume else ["--resume"])]
        command = subprocess.list2cmdline(again) if sys.platform == "win32" else shlex.join(again)
        print(f"\nInterrupted. The last checkpoint is in {options.out}.")
        print(f"To go on, give the same command with --resume:\n{command}", flush=True)
        return 130


def _without_json(arguments: list[str]) -> list[str]:
    """The arguments without --json and its file, which may lie in a folder that is gone by then."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--json")
    return parser.parse_known_args(arguments)[1]


# ## Training
#
# `fit` of chapter 08 as it is: a bar in a terminal, and a checkpoint after every epoch and every hundred steps. The
# rate rises during the first three tenths of the steps and falls for the rest, along cosines ("one cycle", L. Smith,
# 2018); in so few epochs nothing else gets as far.

SAVE_EVERY = 100


def parameter_count(model: Module) -> int:
    """How many numbers a model learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def train(
    name: str, model: Module, optimizer: Optimizer, data: Any, unseen: Iterable, options: argparse.Namespace,
    callbacks: Sequence[Callback] = (),
) -> History:
    """Train a model under a name, which its checkpoint and its curve get as well; the history."""
    schedule = Schedule(OneCycleLR(optimizer, options.lr, max(options.epochs * len(data), 1)), each="step")
    return fit(
        model, cross_entropy, optimizer, data, epochs=options.epochs, validation=unseen, metrics=[accuracy],
        callbacks=[schedule, *callbacks, Curve(options.out / f"{name}.csv", options.epochs)],
        checkpoint=options.out / f"{name}.safetensors", checkpoint_every=SAVE_EVERY, resume=options.resume,
    )


# The unseen images are looked at after each epoch, for the curve only: no rate, no weight and no moment to stop
# depends on them, and what counts is what the weights can do after the last epoch.


class Curve(Callback):
    """After each epoch, prints a line and writes the history as a CSV file."""

    def __init__(self, file: Path, epochs: int):
        self.file, self.epochs = file, epochs

    def on_epoch(self, run):
        last = {name: values[-1] for name, values in run.history.items()}
        print(
            f"epoch {run.epoch:2d} of {self.epochs}: loss {last['loss']:.3f}, {last['accuracy']:6.2%} right; "
            f"unseen {last['val_loss']:.3f}, {last['val_accuracy']:6.2%}; {last['seconds']:.0f} s", flush=True,
        )
        with open(self.file, "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["epoch", *run.history])
            rows.writerows([number, *row] for number, row in enumerate(zip(*run.history.values()), start=1))


# ## Examining
#
# All logits at once, from batches of images that no gradient is recorded for.


def examine(model: Module, batches: Iterable) -> tuple[np.ndarray, np.ndarray]:
    """The logits (N, classes) of a model in evaluation mode, and the labels (N,)."""
    mode = model.training
    model.eval()
    with no_grad():
        pairs = [(model(inputs).numpy(), labels.numpy()) for inputs, labels in batches]
    model.train(mode)
    logits, labels = (np.concatenate(part) for part in zip(*pairs))
    return logits, labels


def share_right(logits: np.ndarray, labels: np.ndarray) -> float:
    """How many of the largest logits stand at the label, as a share."""
    return float((logits.argmax(axis=1) == labels).mean())


def confusion_table(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts (classes, classes): row i, column j is how often an image of class i was called j."""
    table = np.zeros((logits.shape[1],) * 2, np.int64)
    np.add.at(table, (labels, logits.argmax(axis=1)), 1)
    return table


def print_mixed_up(table: np.ndarray, classes: Sequence[str], most: int = 5) -> None:
    """Print which classes were mixed up most often."""
    wrong = table - np.diag(np.diag(table))
    print(f"\nwrong: {wrong.sum():,} of {table.sum():,}; most often:")
    for place in np.argsort(-wrong, axis=None, kind="stable")[:most]:
        true, called = np.unravel_index(place, wrong.shape)
        if wrong[true, called]:
            print(f"  {classes[true]} called {classes[called]}: {wrong[true, called]}")


# A result on less than everything is no result. A table begins with what was learned from, and for how long. Without
# the data that the milestone is for, there is no budget to keep: the small digits have thresholds of their own, and the
# milestone is not earned however many of them are right.


def budget(wanted: str, learned: str, images: int, all_images: int, epochs: int, most: int) -> list[Result]:
    """Were all images of the data set `wanted` learned from, and in at most so many epochs? Nothing is asked of
    others."""
    claim, measured = f"learned from {learned}", f"{images:,} images"
    if learned != wanted:
        return [Result(claim, measured, "-", True, 0.0, lacking=wanted)]
    return [
        Result(claim, measured, f"{all_images:,} images", images == all_images, 0.0),
        Result("passes over them", f"{epochs}", f"<= {most}", epochs <= most, 0.0),
    ]


# ## Pictures
#
# They go into files, and need matplotlib, which nothing else in the course depends on. Without it everything runs, and
# the program says what is missing before it starts and not after half an hour. A `Figure` made by hand needs no screen.


def can_draw() -> bool:
    """Is matplotlib there?"""
    return find_spec("matplotlib") is not None


def announce(name: str, training: int, unseen: int, folder: Path) -> None:
    """Print what is about to happen."""
    print(f"{name}: {training:,} images to learn from, {unseen:,} unseen")
    if not can_draw():
        print("matplotlib is not installed, so there will be no pictures: pip install matplotlib")
    print(f"Checkpoints and curves go to the folder {folder}; Ctrl-C loses little.", flush=True)


DOTS = 100


def _figure(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Any, np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def draw_curves(histories: Mapping[str, History], file: Path) -> None:
    """Loss and accuracy by epoch, of training (lines) and on unseen images (dashes): 900 x 350 dots."""
    figure, axes = _figure(1, 2, 9, 3.5)
    for axis, measure in zip(axes.flat, ("loss", "accuracy")):
        for number, (name, history) in enumerate(histories.items()):
            for key, style, what in ((measure, "-", "training"), (f"val_{measure}", "--", "unseen")):
                values = history.get(key, [])
                axis.plot(range(1, len(values) + 1), values, style, color=f"C{number}", label=f"{name}, {what}")
        axis.set(xlabel="epoch", ylabel=measure)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(file)


# The colour of a cell is its share of the row; the number in it is the count. The diagonal would outshine everything
# else, so it gets no colour. The darkest cell is two thirds of the way to the darkest colour, and its number legible.


def draw_confusion(table: np.ndarray, classes: Sequence[str], file: Path) -> None:
    """The confusion table as a picture: 800 x 700 dots."""
    figure, [[axis]] = _figure(1, 1, 8, 7)
    wrong = (table - np.diag(np.diag(table))) / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axis.imshow(wrong, cmap="Oranges", vmin=0, vmax=max(1.5 * wrong.max(), 0.01))
    for (row, column), count in np.ndenumerate(table):
        axis.text(column, row, str(count) if count else "", ha="center", va="center", fontsize=8)
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axis.set_yticks(range(len(classes)), classes)
    axis.set(xlabel="called", ylabel="is")
    figure.savefig(file)


# Of the mistakes we look at those that the network was surest of.


def surest_mistakes(logits: np.ndarray, labels: np.ndarray, most: int) -> np.ndarray:
    """The rows of wrong answers, the one with the greatest lead over the right answer first."""
    answers = logits.argmax(axis=1)
    lead = logits.max(axis=1) - logits[np.arange(len(labels)), labels]
    return np.argsort(-lead, kind="stable")[: min(most, int((answers != labels).sum()))]


def draw_mistakes(
    images: np.ndarray, logits: np.ndarray, labels: np.ndarray, classes: Sequence[str], file: Path
) -> None:
    """Forty mistakes at most, with what each is and what it was called: 1000 x 800 dots."""
    figure, axes = _figure(5, 8, 10, 8)
    for axis in axes.flat:
        axis.axis("off")
    for axis, row in zip(axes.flat, surest_mistakes(logits, labels, axes.size)):
        image = images[row].transpose(1, 2, 0)
        axis.imshow(image, cmap="gray_r", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
        axis.set_title(f"{classes[labels[row]]},\ncalled {classes[logits[row].argmax()]}", fontsize=8)
    figure.savefig(file)


def draw(
    histories: Mapping[str, History], images: np.ndarray, logits: np.ndarray, labels: np.ndarray,
    classes: Sequence[str], folder: Path,
) -> None:
    """Draw curves, confusion and mistakes, if matplotlib is there. `images` are (N, C, H, W), bytes or numbers from 0
    to 1."""
    if can_draw():
        draw_curves(histories, folder / "curves.png")
        draw_confusion(confusion_table(logits, labels), classes, folder / "confusion.png")
        draw_mistakes(images, logits, labels, classes, folder / "mistakes.png")
