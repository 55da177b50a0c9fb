"""Deep compression: which trick makes a trained network smaller, which makes it faster, and what does each one cost?

In 2015 Song Han, Huizi Mao and William Dally took trained networks apart. They pruned nine of ten weights of AlexNet,
trained what was left, stored it in compressed rows with few bits for each weight, and had 240 MB in a file of 6.9 MB
that answered as well as before ("Deep Compression", 2015). LeNet shrank to a fortieth. Other groups removed whole
filters (H. Li et al., 2016) or let a large network teach a small one (G. Hinton et al., 2015).

This program does all of that with chapters 17 and 18, on three networks: LeNet, which it trains itself, the network for
CIFAR-10 of `alexnet_2012`, and the GPT of `gpt_2018`. For each trick a line of a table says how large the file is, how
much memory the weights take, how much is computed in how many milliseconds, and how well the network still answers.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tt_autograd import Batches, evaluating, fit, load_checkpoint, no_grad
from tt_data import DataLoader, Images
from tt_nlp import Windows
from tt_opt import (
    Pruning,
    Taught,
    density,
    distillation_loss,
    factorize_,
    file_bytes,
    model_bytes,
    quantize_,
    remove_heads_,
    slim_,
    sparsify_,
)
from tt_opt.compression import smallest_heads
from tt_optim import Adam, AdamW
from tt_spatial import LeNet
from tt_tensor import Flatten, Linear, Module, ReLU, Sequential, Tensor, from_numpy, manual_seed, meter, tune_malloc

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file is run by its path; what it imports lies one folder up

from alexnet_2012 import train_cnn
from gpt_2018 import simple_tinygpt
from images import SETTINGS, at_least, budget, examine, image_parser, interruptible, prepare, share_right, train
from lenet_1998 import train_mnist
from terminal import Result, heading, paint, report

# ## A case
#
# Everything that the tricks need to know about a network: how to judge it, how to train it further, and how far each
# trick may go. The shares were found by trying. A GPT needs more of its weights than LeNet.


@dataclass
class Case:
    """A trained network, and what is done to it."""

    title: str
    model: Module
    example: Tensor  # a batch of inputs, for times and to find out who reads which channel
    judge: Callable[[Module], float]  # the share of right answers, or nats a character
    again: Callable[..., Module]  # (name, model, *callbacks): train a model for some steps more; returns it
    steps: int  # how many of them
    prune: float  # the share of weights to prune
    rank: float  # the share of numbers that factors of low rank may have
    remove: Mapping[str, Callable[[Module], Module]]  # names, and functions that remove outputs in place
    formats: Sequence[str] = ("int8",)
    unit: str = "right"


# Each trick that hurts is followed by the same number of steps of training. They could help by themselves. So the
# network as it was is trained further, too, and is the second line of the table.


def compressed(case: Case) -> dict[str, Module]:
    """The network of a case after each trick, by name."""
    again, smallest = case.again, case.formats[-1]
    pruning = Pruning(case.prune, max(case.steps * 2 // 3, 1), every=max(case.steps // 100, 1))
    pruned = again("pruned", deepcopy(case.model), pruning)
    smaller = {name: again(name, remove(deepcopy(case.model))) for name, remove in case.remove.items()}
    last, slimmest = list(smaller.items())[-1]
    return {
        "as trained": case.model,
        "trained further": again("further", deepcopy(case.model)),
        f"{case.prune:.0%} pruned": pruned,
        f"{case.prune:.0%} pruned, compressed rows": sparsify_(deepcopy(pruned)),
        f"{case.prune:.0%} pruned, rows of int8": sparsify_(deepcopy(pruned), "int8"),
        **smaller,
        f"low rank, {case.rank:.0%} of numbers": again("low rank", factorize_(deepcopy(case.model), case.rank)),
        **{kind: quantize_(deepcopy(case.model), kind) for kind in case.formats},
        f"{last}, {smallest}": quantize_(deepcopy(slimmest), smallest),
    }


# ## Measuring
#
# Another program that runs for a second must not decide which network is faster. So the networks take turns, one pass
# each, and the median of the turns counts. The spread is the width of the middle half of them, relative to the median.

TURNS = 41


@dataclass
class Line:
    """What was measured of a network. `multiply_adds` are those of the whole batch."""

    name: str
    file: int
    memory: int
    multiply_adds: int
    seconds: float
    spread: float
    answers: float


Measured = tuple[Case, list[Line], list[Result]]


def times(models: Sequence[Module], example: Tensor) -> np.ndarray:
    """Seconds (turns, models) of a pass through each model."""
    seconds = np.zeros((TURNS + 1, len(models)))
    for turn in seconds:
        for number, model in enumerate(models):
            start = time.perf_counter()
            model(example)
            turn[number] = time.perf_counter() - start
    return seconds[1:]  # the first turn warms up


def measured(models: Mapping[str, Module], case: Case) -> list[Line]:
    """A line for each model."""
    lines = []
    for name, model in models.items():
        with evaluating(model), no_grad(), meter() as counted:
            model(case.example)
        sizes = file_bytes(model), model_bytes(model), counted.multiply_adds.total()
        lines.append(Line(name, *sizes, 0.0, 0.0, case.judge(model)))
        model.eval()
    with no_grad():
        quartiles = np.percentile(times(list(models.values()), case.example), [25, 50, 75], axis=0).T
    for line, (low, middle, high) in zip(lines, quartiles):
        line.seconds, line.spread = float(middle), float((high - low) / middle)
    return lines


def print_table(case: Case, lines: Sequence[Line]) -> None:
    """Print the lines; multiply-adds are relative to those of the first."""
    title = f"{case.title:28s}  file KB memory KB mul-adds      ms spread {case.unit:>6s}"
    print(f"\n{paint(title, '1')}")
    for line in lines:
        sizes = f"{line.file / 1e3:8,.0f} {line.memory / 1e3:9,.0f} {line.multiply_adds / lines[0].multiply_adds:8.0%}"
        answers = f"{line.answers:6.2%}" if case.unit == "right" else f"{line.answers:6.3f}"
        print(f"{line.name:28s} {sizes} {line.seconds * 1e3:7.2f} {line.spread:6.0%} {answers}", flush=True)


# ## LeNet
#
# The program trains it, as in `lenet_1998`. Half of the channels and hidden units go, and nine of ten weights.

AGAIN, ALL_DIGITS = {"MNIST": 3, "8 x 8 digits": 10, "CIFAR-10": 3}, {"MNIST": 60_000, "8 x 8 digits": 1438}


def image_training(
    network: str, optimizer: Callable, rate: float, data: Batches | DataLoader, unseen: Batches | DataLoader,
    options: argparse.Namespace,
) -> Callable[..., Module]:
    """A function that trains a model further on images; `network` is a part of the name of its checkpoint."""

    def again(name: str, model: Module, *callbacks) -> Module:
        heading(f"{network}, {name}")
        manual_seed(options.seed)
        settings = argparse.Namespace(**vars(options) | {"epochs": options.again, "lr": rate})
        file = f"{network}-{name}".replace(" ", "-")
        train(file, model, optimizer(model, rate), data, unseen, settings, callbacks)
        return model

    return again


def right(unseen: Batches | DataLoader) -> Callable[[Module], float]:
    """A function from models to their shares of right answers."""
    return lambda model: share_right(*examine(model, unseen))


def lenet(
    name: str, training: train_mnist.Images, unseen: train_mnist.Images, options: argparse.Namespace
) -> Measured:
    """LeNet, compressed, and its students: what was measured."""
    digits, side = len(training[0]), training[0].shape[3]
    epochs = train_mnist.EPOCHS[name] if options.epochs is None else options.epochs
    options = with_defaults(options, name, epochs=epochs)
    manual_seed(options.seed)
    model, history = train_mnist.learn("LeNet", LeNet(size=side), training, unseen, options)
    data, examination = Batches(*training, options.batch_size, shuffle=True), Batches(*unseen, 1000)
    example = training[0][:64]
    case = Case(
        f"LeNet, {name}", model, example, right(examination),
        image_training("lenet", lambda m, rate: AdamW(m.parameters(), lr=rate), 2e-3, data, examination, options),
        steps=options.again * len(data), prune=0.9, rank=0.25,
        remove={"half of the channels": lambda m: slim_(m, 0.5, example)},
    )  # fmt: skip
    models = compressed(case)
    alone, taught, students = teach(model, training, unseen, *STUDENTS[name])
    lines = measured(models | students, case)
    print_table(case, lines)
    seconds = sum(history.get("seconds", []))
    rows = budget(name, name, digits, ALL_DIGITS[name], epochs, train_mnist.EPOCHS[name])
    return case, lines, [*rows, tenth(lines, density(models["90% pruned"]), name, seconds), gain(alone, taught)]


def with_defaults(options: argparse.Namespace, name: str, **more) -> argparse.Namespace:
    """The options with the number of passes that is usual for a data set, unless there is one."""
    again = AGAIN[name] if options.again is None else options.again
    return argparse.Namespace(**vars(options) | {"again": again} | more)


# A tenth of the weights must do nearly as well as all of them. "Nearly" is 0.3 points for MNIST. Among 359 small digits
# a single one is 0.28 points, so there we allow ten times as much.

LESS = {"MNIST": 0.003, "8 x 8 digits": 0.03}


def line_of(lines: Sequence[Line], name: str) -> Line:
    """The line with a name."""
    return next(line for line in lines if line.name == name)


def tenth(lines: Sequence[Line], left: float, name: str, seconds: float) -> Result:
    """Does LeNet with a tenth of its weights answer as well as the unpruned one?"""
    whole, pruned = line_of(lines, "as trained").answers, line_of(lines, "90% pruned").answers
    passed = left < 0.1005 and pruned >= whole - LESS[name]
    return Result(
        f"LeNet, {left:.1%} of weights", f"{pruned:.2%}, all {whole:.2%}", f">= {whole - LESS[name]:.2%}",
        passed, seconds,
    )


# ## A student
#
# A small MLP gets a thousand digits of MNIST with their labels. It learns alone, or from LeNet, which has seen them
# all. The two of a pair begin with the same weights and see the same batches, so their difference is due to the
# teacher. Eight pairs tell how much of it is luck. (An MLP learns the small digits as well alone. There the student is
# another LeNet, with a tenth of the digits.)


def mlp() -> Module:
    """The student for MNIST."""
    return Sequential(Flatten(), Linear(784, 64), ReLU(), Linear(64, 10))


STUDENTS: dict[str, tuple[Callable[[], Module], int, int]] = {
    "MNIST": (mlp, 1000, 40), "8 x 8 digits": (functools.partial(LeNet, size=16), 150, 60),
}  # fmt: skip
PAIRS, T_95 = 8, 2.365  # Student's t for 95 % of 7 degrees of freedom


def teach(
    teacher: Module, training: train_mnist.Images, unseen: train_mnist.Images, make: Callable[[], Module], few: int,
    epochs: int,
) -> tuple[list[float], list[float], dict[str, Module]]:
    """The shares of right answers of students alone and of those with a teacher, and the first of each. `make` makes
    one, which learns from the first `few` images."""
    x, y = training[0][:few], training[1][:few]
    heading(f"{PAIRS} pairs of students of {len(x):,} digits")
    teacher.eval()
    judge, scores, students = right(Batches(*unseen, 1000)), {0.0: [], 0.9: []}, {}
    for seed in range(PAIRS):
        for alpha, found in scores.items():
            manual_seed(seed)
            student = make()
            loss = functools.partial(distillation_loss, alpha=alpha)
            data, optimizer = Batches(x, y, 32, shuffle=True), Adam(student.parameters(), lr=3e-3)
            fit(Taught(student, teacher), loss, optimizer, data, epochs=epochs, progress=False)
            found.append(judge(student))
            students.setdefault("a student with a teacher" if alpha else "a student alone", student)
    alone, taught = scores.values()
    for name, shares in (("alone", alone), ("taught", taught)):
        print(f"{name:6s} {' '.join(f'{share:.2%}' for share in shares)}", flush=True)
    return alone, taught, students


def gain(alone: Sequence[float], taught: Sequence[float]) -> Result:
    """Are students with a teacher better? The 95 % interval of the mean difference must lie above 0."""
    points = 100 * np.subtract(taught, alone)
    half = T_95 * statistics.stdev(points) / math.sqrt(len(points))
    low, high = points.mean() - half, points.mean() + half
    return Result("a teacher's gain, points", f"{points.mean():.2f} ({low:.2f} to {high:.2f})", "> 0", low > 0, 0.0)


# ## The network for CIFAR-10
#
# Which channels should go? The first two convolutions have maps of 32 by 32, and normalization, ReLU and pooling visit
# each pixel of them. That hardly counts as multiply-adds, but it takes time, because so much memory is read and
# written. So these two lose half of their channels, and the others an eighth. With three tenths everywhere, the count
# was the same, and the time 0.75 instead of 0.62 of what it had been.

CNN_SHARES = {0.5: ["0", "3"], 0.125: ["7", "10"], 0.25: ["15"]}


def narrow(model: Module, example: Tensor) -> Module:
    """Remove channels of the network for CIFAR-10, in place; returns it."""
    for share, names in CNN_SHARES.items():
        slim_(model, share, example, names)
    return model


def cnn(name: str, training: Images, unseen: Images, options: argparse.Namespace) -> Measured:
    """The network for CIFAR-10, compressed: what was measured."""
    options = with_defaults(options, name)
    train_cnn.set_transforms(name, training, unseen)
    model = train_cnn.network(*training.images.shape[1:3])
    model.load_state_dict(load_checkpoint(Path(options.cnn) / "cnn.safetensors")["model"])
    data = DataLoader(training, 128, shuffle=True, num_workers=1)
    examination = DataLoader(unseen, 250, num_workers=1)
    example = unseen.batch(list(range(64)))[0]
    case = Case(
        f"CNN, {name}", model, example, right(examination),
        image_training("cnn", train_cnn.optimizer, 0.05, data, examination, options),
        steps=options.again * len(data), prune=0.9, rank=0.25,
        remove={"channels removed": lambda m: narrow(m, example)},
    )  # fmt: skip
    lines = measured(compressed(case), case)
    print_table(case, lines)
    return case, lines, half_of_it(lines, name)


def half_of_it(lines: Sequence[Line], name: str) -> list[Result]:
    """Does the network with fewer channels compute half as much, in 0.65 of the time, and answer as well but for a
    point?"""
    whole, slim = line_of(lines, "as trained"), line_of(lines, "channels removed")
    count, ratio = slim.multiply_adds / whole.multiply_adds, slim.seconds / whole.seconds
    less = {"CIFAR-10": 0.01, "8 x 8 digits": 0.05}[name]
    answers, least = f"{slim.answers:.2%}, all {whole.answers:.2%}", whole.answers - less
    rows = [
        Result("narrower CNN, multiply-adds", f"{count:.1%}", "<= 50%", count <= 0.5, 0.0),
        Result("narrower CNN", answers, f">= {least:.2%}", slim.answers >= least, 0.0),
    ]
    if name == "CIFAR-10":  # with images of 8 x 8, most of the time is that of the calls
        rows.append(Result("narrower CNN, time", f"{ratio:.2f} of before", "<= 0.65", ratio <= 0.65, 0.0))
    return rows


# ## The GPT
#
# Its hidden units are those of the MLPs, a half of which can go, and two of six heads in each block. Only linear layers
# of their own become sparse or get a low rank; the embedding, which is the last layer, too, stays as it is.

GPT_STEPS = {simple_tinygpt.SHAKESPEARE: 1000, simple_tinygpt.STORY: 100}


def without_hidden(model: Module, example: Tensor) -> Module:
    """Remove half of the hidden units of all MLPs of a GPT, in place; returns it."""
    blocks = range(len(model.transformer.h))
    return slim_(model, 0.5, example[:1], [f"transformer.h.{block}.mlp.c_fc" for block in blocks])


def without_heads(model: Module) -> Module:
    """Remove a third of the heads of a GPT, but at least one, in place; returns it."""
    attentions = [block.attn for block in model.transformer.h]
    return remove_heads_(model, [smallest_heads(a, max(a.n_head // 3, 1)) for a in attentions])


def gpt(name: str, text: str, options: argparse.Namespace) -> Measured:
    """The GPT, compressed: what was measured."""
    model, tokenizer = simple_tinygpt.saved_model(argparse.Namespace(out=Path(options.gpt)))
    steps = GPT_STEPS[name] if options.steps is None else options.steps
    settings = argparse.Namespace(**vars(options) | {"steps": steps, "every": steps, "batch_size": 8, "lr": 2e-3})
    to_learn, unseen = simple_tinygpt.cut(text)
    length = model.config.block_size
    training, held_out = (Windows(tokenizer.encode(part), length) for part in (to_learn, unseen))
    piece = DataLoader(held_out, 64, sampler=range(0, min(len(held_out), 64 * length), length))

    def again(what: str, model: Module, *callbacks) -> Module:
        heading(f"GPT, {what}")
        manual_seed(options.seed)
        file = f"gpt-{what}".replace(" ", "-")
        history = simple_tinygpt.learn(model.train(), training, piece, settings, callbacks, file)
        for loss, seen, seconds in zip(history["loss"], history["val_loss"], history["seconds"]):
            print(f"{steps:,} steps: loss {loss:.3f}, unseen {seen:.3f} nats a token; {seconds:.0f} s", flush=True)
        return model

    example = from_numpy(np.array(tokenizer.encode(unseen[: 8 * length])).reshape(8, length))
    remove = {
        "half of the hidden units": lambda m: without_hidden(m, example),
        "a third of the heads": without_heads,
        "hidden units and heads": lambda m: without_heads(without_hidden(m, example)),
    }
    case = Case(
        f"GPT, {name}", model, example, lambda m: simple_tinygpt.nats_per_character(m, tokenizer, unseen), again,
        steps=steps, prune=0.6, rank=0.5, remove=remove, formats=("int8", "q4_1"), unit="nats",
    )  # fmt: skip
    lines = measured(compressed(case), case)
    print_table(case, lines)
    return case, lines, [smallest_gpt(lines)]


def smallest_gpt(lines: Sequence[Line]) -> Result:
    """How much the smallest of the GPTs has lost; nothing is asked of it."""
    whole, small = lines[0], lines[-1]
    nats = f"{small.answers:.3f} nats, all {whole.answers:.3f}"
    return Result(f"GPT in {small.memory / whole.memory:.1%} of its memory", nats, "-", True, 0.0)


# ## What is missing
#
# Two of the networks take longer to train than everything else here, and other examples do that. If their checkpoints
# are not here, the table lacks their lines, and the exit status says so.

CASES = {"lenet": lenet, "cnn": cnn, "gpt": gpt}
MADE_BY = {"cnn": "alexnet_2012/train_cnn.py", "gpt": "gpt_2018/simple_tinygpt.py"}


def find_data(network: str, options: argparse.Namespace) -> tuple:
    """The name of the data set for a network, and the data. Raises FileNotFoundError if --data does not hold it, and
    ValueError if it is damaged."""
    match network:
        case "lenet":
            return train_mnist.find_digits(options.data, options.limit)
        case "cnn":
            return train_cnn.find_photographs(options.data, options.limit, download=False)
        case _:
            return simple_tinygpt.find_text(options.data, None, download=False)


def is_here(network: str, data: str, options: argparse.Namespace) -> bool:
    """Is a network here, or trained by this program? Raises ValueError if it has learned from other data."""
    if network not in MADE_BY:
        return True
    folder = Path(getattr(options, network))
    if not all((folder / file).is_file() for file in (f"{network}.safetensors", "options.json")):
        return False
    learned = json.loads((folder / "options.json").read_text(encoding="utf-8"))["data"]
    if learned != data:
        raise ValueError(f"the network in {folder} has learned from {learned}, but here is {data}; see --data")
    return True


def missing(network: str, options: argparse.Namespace) -> Result:
    """The row for a network that is not here, after a word on how to make it."""
    script, folder = MADE_BY[network], getattr(options, network)
    print(f"\nThere is no {network}.safetensors in {folder}. This makes it:")
    print(f"  python examples/{script} --out {folder}", flush=True)
    return Result(f"the network of {Path(script).parent}", "not here", f"--{network} FOLDER", False, 0.0)


# ## All of it


def program(data: Mapping[str, tuple], here: Sequence[str], options: argparse.Namespace) -> int:
    """Compress the networks that are here, and report; the exit status."""
    absent = [missing(name, options) for name in data if name not in here]
    tables, rows = {}, []
    for name in here:
        case, lines, found = CASES[name](*data[name], options)
        tables[case.title] = {"unit": case.unit, "lines": [asdict(line) for line in lines]}
        rows += found
    return report([*rows, *absent], __file__, options.json, networks=tables)


def main(arguments: list[str] | None = None) -> int:
    """Run the example; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = image_parser(
        __file__, "The tricks of chapters 17 and 18 on three networks.", "mnist, cifar10 and tinyshakespeare",
        train_mnist.EPOCHS, batch_size=32, lr=4e-3,
    )
    add = parser.add_argument
    usual = ", ".join(f"{number} for {name}" for name, number in AGAIN.items())
    add("--again", type=at_least(0), metavar="N", help=f"passes over the images after each trick (default {usual})")
    usual = ", ".join(f"{number:,} for {name}" for name, number in GPT_STEPS.items())
    add("--steps", type=at_least(1), metavar="N", help=f"steps of the GPT after each trick (default {usual})")
    for name, script in MADE_BY.items():
        folder = Path("runs") / Path(script).parent
        add(f"--{name}", default=str(folder), metavar="FOLDER", help=f"what {script} has left (default {folder})")
    add("--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="NAME", help="which: lenet, cnn, gpt")
    options = parser.parse_args(arguments)
    try:
        data = {name: find_data(name, options) for name in options.only}
        here = [name for name, found in data.items() if is_here(name, found[0], options)]
        prepare(options, ", ".join(found[0] for found in data.values()), (*SETTINGS, "again", "steps", "cnn", "gpt"))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return interruptible(lambda: program(data, here, options), options, __file__, arguments)


if __name__ == "__main__":
    tune_malloc()  # every step frees what the next one asks for
    sys.exit(main())
