"""The tour: a machine is checked, and six networks learn on it, each by what the course has built up to there.

Perceptron (1957), XOR with gradients by hand (1969), XOR with autograd, a network that reads handwritten digits, LeNet
(1998), which reads them as images, and a GPT (2018), which learns to write. Where the weights of SmolLM2 (2025) are on
the machine, a chat model answers at the end.
It takes less than a minute and ends in a table of what was measured; the exit status is 0 if everything was reached.
With the files of MNIST in the folder that TT_DATA names, `--mnist` adds a larger network on 60,000 larger digits.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
from mnist import FILES, load, mnist_folder
from perceptron_1957 import rosenblatt_perceptron
from terminal import KERNELS, Result, heading, json_file, on_kernels, paint, picture, report, side_by_side
from xor_1969 import minsky_xor_problem

from tt_autograd import Batches, Schedule, accuracy, evaluate, fit
from tt_autograd.training import digits
from tt_capstone import load_language_model, weights_file
from tt_nlp import generate, train_on_text
from tt_nlp.transformers import load_story, small_gpt, surprise_on
from tt_optim import AdamW, CosineAnnealingLR
from tt_spatial import LeNet
from tt_tensor import (
    Dropout,
    Linear,
    Module,
    ReLU,
    Sequential,
    Tensor,
    check_environment,
    cross_entropy,
    manual_seed,
    system_info,
    tune_malloc,
)
from tt_tensor.setup import matmul_gflops

# Each stage prints what it does and returns its rows of the table.

# ## The machine (chapter 01)
#
# What it is, how fast it multiplies, and what is wrong with it. A remark about speed is no failure: everything below
# works on a slow machine too.


def machine_stage() -> list[Result]:
    """Describe this machine and measure the product of two matrices."""
    heading("This machine")
    start, info = time.perf_counter(), system_info()
    print(f"Python {info['python']}, NumPy {info['numpy']}, {info['system']}, {info['cores']} cores")
    print(f"processor: {info['processor']}")
    print(f"library:   {info['blas']}, kernels for {info['blas_kernel'] or 'an unknown processor'}")
    problems, speed = check_environment(info), matmul_gflops(512)
    for line in "\n".join(f"remark: {problem}" for problem in problems).splitlines():
        print(paint(textwrap.fill(line, 79, subsequent_indent="  "), "33"))
    print(f"product of two matrices of 512 x 512: {speed:.0f} GFLOP/s")
    remarks = f", {len(problems)} remark{'s' * (len(problems) > 1)}" if problems else ""
    return [Result("this machine computes", f"{speed:.0f} GFLOP/s{remarks}", "-", True, time.perf_counter() - start)]


# ## Perceptron and XOR (chapters 04 to 08)
#
# The examples do the work; here each runs for one seed instead of five.


def perceptron_stage(seed: int) -> list[Result]:
    """Rosenblatt's machine learns left from right, and cannot learn XOR."""
    heading("1957: Rosenblatt's perceptron learns left from right")
    start = time.perf_counter()
    layer, right = rosenblatt_perceptron.learn_sides(seed)
    learned = rosenblatt_perceptron.sides_result(seed, right, time.perf_counter() - start)
    rosenblatt_perceptron.draw(layer)
    return [learned, rosenblatt_perceptron.xor_result(range(seed, seed + 1))]


def xor_stage(seed: int) -> list[Result]:
    """A second layer learns XOR: with gradients by hand, then with autograd and fit."""
    heading("1969: XOR, by a network of two layers with gradients by hand")
    network, by_hand = minsky_xor_problem.learn("by hand", seed)
    minsky_xor_problem.draw(seed, network)
    heading("XOR again, with autograd and fit")
    network, by_fit = minsky_xor_problem.learn("by fit", seed)
    return [by_hand, by_fit, minsky_xor_problem.agreement(network, seed)]


# ## Digits (chapter 08)
#
# One function trains both readers: layers of the widths given, AdamW, and a rate that falls along a cosine to zero. The
# bar is `fit`'s own. Training is over when accuracy is measured, so what is held out has no part in it.


def reader(widths: list[int], dropout: float = 0.0) -> Sequential:
    """Linear layers of the given widths, with ReLU (and dropout, if any) between them."""
    layers: list[Module] = [Linear(widths[0], widths[1])]
    for before, after in zip(widths[1:], widths[2:]):
        layers += [ReLU(), *([Dropout(dropout)] if dropout else []), Linear(before, after)]
    return Sequential(*layers)


def train_reader(model: Module, data: Batches, epochs: int, rate: float) -> None:
    """Train with fit, in a terminal under a progress bar, and print how it went."""
    optimizer = AdamW(model.parameters(), lr=rate)
    schedule = Schedule(CosineAnnealingLR(optimizer, T_max=max(epochs * len(data), 1)), each="step")
    history = fit(model, cross_entropy, optimizer, data, epochs=epochs, callbacks=[schedule])
    losses = history.get("loss", [])
    shown = losses[:: max(1, len(losses) // 10)]  # ten or so, which fit into a line
    print("loss by epoch:", " ".join(f"{loss:.2f}" for loss in shown))


def learn_to_read(
    what: str, model: Module, data: Batches, unseen: Batches, epochs: int, needed: float, rate: float = 3e-3
) -> Result:
    """Train on `data`, measure on `unseen`; the row of the table."""
    print(f"{len(data.x):,} digits to learn from, {len(unseen.x):,} held out, {epochs} epochs")
    print(model, flush=True)
    start = time.perf_counter()
    train_reader(model, data, epochs, rate)
    right = evaluate(model, cross_entropy, unseen, [accuracy])["accuracy"]
    print(f"wrong on held-out digits: {round((1 - right) * len(unseen.x)):,} of {len(unseen.x):,}")
    seconds = time.perf_counter() - start
    return Result(what, f"{right:.2%} of held-out digits", f">= {needed:.1%}", right >= needed, seconds)


# A number hides what went wrong. Some of the digits that the network misread, with what it took them for:


def draw_misread(model: Module, x: Tensor, labels: Tensor, side: int) -> None:
    """Print up to four misread images of side x side pixels."""
    answers = model.eval()(x).argmax(dim=1).numpy()
    wrong = np.flatnonzero(answers != labels.numpy())[:4]
    pictures = {}
    for number, i in enumerate(wrong, 1):
        image = x.numpy()[i].reshape(side, side)
        pictures[f"{number}: {labels.numpy()[i]}, read as {answers[i]}"] = picture(np.repeat(image, 2, axis=1))
    if pictures:
        side_by_side(pictures, 2 * side)


def digits_stage(seed: int, epochs: int) -> list[Result]:
    """Read 8 x 8 digits: at least 97 % of the held-out fifth."""
    heading("8 x 8 digits, with a network of three layers")
    manual_seed(seed)
    (training, held_out), model = digits(), reader([64, 256, 128, 10], dropout=0.3)
    data, unseen = Batches(*training, batch_size=32, shuffle=True), Batches(*held_out, batch_size=1000)
    result = learn_to_read("8 x 8 digits", model, data, unseen, epochs, needed=0.97)
    draw_misread(model, *held_out, side=8)
    return [result]


# ## Images (chapter 09)
#
# LeNet sees the digits as what they are, 8 rows of 8 pixels. It has two fifths of the weights of the network above and
# takes more passes to learn what it can.


def as_images(x: Tensor) -> Tensor:
    """Rows of 64 pixels as images (N, 1, 8, 8)."""
    return x.reshape(-1, 1, 8, 8)


def lenet_stage(seed: int, epochs: int) -> list[Result]:
    """Read 8 x 8 digits with LeNet: at least 96 % of the held-out fifth."""
    heading("1998: 8 x 8 digits as images, with LeNet")
    manual_seed(seed)
    ((x, y), (x_unseen, y_unseen)), model = digits(), LeNet(size=8)
    data, unseen = Batches(as_images(x), y, 32, shuffle=True), Batches(as_images(x_unseen), y_unseen, 1000)
    result = learn_to_read("8 x 8 digits, LeNet", model, data, unseen, epochs * 5 // 2, needed=0.96, rate=5e-3)
    draw_misread(model, as_images(x_unseen), y_unseen, side=8)
    return [result]


# ## Text (chapter 14)
#
# A GPT of two blocks learns the first chapter of *Moby-Dick* character by character, and is judged by its surprise at
# the last tenth. Guessing among all characters would cost 4.17 nats each.


def gpt_stage(seed: int, steps: int = 900) -> list[Result]:
    """Predict the characters of a text: at most 2.4 nats each on the held-out tenth."""
    heading("2018: a GPT learns the first chapter of Moby-Dick")
    manual_seed(seed)
    tokenizer, text, unseen = load_story(32)
    model, start = small_gpt(tokenizer.vocab_size, layers=2), time.perf_counter()
    print(f"{tokenizer.vocab_size} characters, {steps} steps", flush=True)
    if steps:
        train_on_text(model, text, steps)
    nats, seconds = surprise_on(model, unseen), time.perf_counter() - start
    written = tokenizer.decode(generate(model, tokenizer.encode("I "), 200, temperature=0.8, seed=seed))
    print(textwrap.indent(textwrap.fill(written, 70), "  ").encode("ascii", "replace").decode())
    return [Result("letters of Moby-Dick", f"{nats:.2f} nats, held out", "<= 2.40", nats <= 2.4, seconds)]


# ## A chat (chapter 20)
#
# The last model was trained by others, and is run by our code. Its weights take 98 MB, so they do not come with the
# course.

QUESTION = "What is the capital of France?"


def chat_stage() -> list[Result]:
    """Ask SmolLM2 for a capital, if its weights are on this machine."""
    heading("2025: a chat model answers")
    start, file = time.perf_counter(), weights_file()
    if file is None:
        return []
    print(f"you: {QUESTION}\nSmolLM2: ", end="", flush=True)
    answer = ""
    for piece in load_language_model(file).answer([{"role": "user", "content": QUESTION}], 20, temperature=0):
        print(piece.encode("ascii", "replace").decode(), end="", flush=True)
        answer += piece
    print()
    seconds = time.perf_counter() - start
    return [Result("a chat", "it says Paris" if "Paris" in answer else "it errs", "Paris", "Paris" in answer, seconds)]


# ## MNIST
#
# The same as the digits with a network of three layers, larger. Nobody is asked unless somebody sits at both ends of
# the terminal.


def mnist_stage(seed: int, folder: Path) -> list[Result]:
    """Read 28 x 28 digits with 784-256-128-10: at least 97.5 % of the 10,000 after four epochs."""
    heading("28 x 28 digits: MNIST")
    manual_seed(seed)
    data = Batches(*load(folder, "train"), batch_size=128, shuffle=True)
    unseen, model = Batches(*load(folder, "test"), batch_size=1000), reader([784, 256, 128, 10])
    return [learn_to_read("28 x 28 digits", model, data, unseen, epochs=4, needed=0.975)]


def wants_mnist(folder: Path) -> bool:
    """Ask whether the 28 x 28 digits should be learned too; no, where nobody can answer."""
    if os.environ.get("CI") or not (sys.stdin.isatty() and sys.stdout.isatty()):
        print(f"MNIST is in {folder}; add --mnist to learn its 28 x 28 digits too")
        return False
    try:
        print(f"MNIST is in {folder}.")
        return input("Learn its 28 x 28 digits too? Some ten seconds more. [y/N] ").lower().startswith("y")
    except EOFError:
        return False


def chosen_folder(mnist: bool | None) -> Path | None:
    """Where MNIST is if it is to be learned, otherwise None. Raises FileNotFoundError if it was asked for in vain."""
    folder = mnist_folder()
    if mnist and folder is None:
        names = ", ".join(name for *pair, _ in FILES.values() for name in pair)
        raise FileNotFoundError(
            f"--mnist needs {names} in the folder mnist below the one that TT_DATA names, which is "
            f"{os.environ.get('TT_DATA') or 'not set'}"
        )
    return folder if mnist or (mnist is None and folder is not None and wants_mnist(folder)) else None


# ## All of it


def main(arguments: list[str] | None = None) -> int:
    """Run the tour; the exit status."""
    parser = argparse.ArgumentParser(description="Check the machine and watch networks learn, in less than a minute.")
    parser.add_argument("--seed", type=int, default=0, help="the seed of every stage (default 0)")
    parser.add_argument("--epochs", type=int, default=12, help="passes over the 8 x 8 digits (default 12)")
    parser.add_argument("--mnist", action=argparse.BooleanOptionalAction,
                        help="learn the 28 x 28 digits of MNIST too, or do not ask; they are looked for in TT_DATA")
    parser.add_argument("--kernels", **KERNELS)
    parser.add_argument("--json", type=json_file, metavar="FILE", help="write the table to this file, too")
    options = parser.parse_args(arguments)

    try:
        folder = chosen_folder(options.mnist)
    except FileNotFoundError as error:
        parser.error(str(error))
    start = time.perf_counter()
    with on_kernels(options.kernels):
        results = [
            *machine_stage(), *perceptron_stage(options.seed), *xor_stage(options.seed),
            *digits_stage(options.seed, options.epochs), *lenet_stage(options.seed, options.epochs),
            *gpt_stage(options.seed, 900 if options.epochs else 0),
            *(mnist_stage(options.seed, folder) if folder else []), *chat_stage(),
        ]
    status = report(results, __file__, options.json)
    print(f"{time.perf_counter() - start:.1f} s in all")
    return status


if __name__ == "__main__":
    tune_malloc()  # every step frees what the next one asks for
    sys.exit(main())
