"""A small GPT learns to write like Shakespeare, one character after the other.

In 2018 Alec Radford and his colleagues at OpenAI trained a transformer on seven thousand unpublished books, to predict
the next word and nothing else, and found that it could then be taught almost any task on language with few examples.
They called it GPT, and the one of 2019, which was ten times as large and needed no examples for many of them, GPT-2.
In 2015, before there were transformers, Andrej Karpathy had shown with a megabyte of Shakespeare how much a network
learns about a language from the next character alone: spelling, lines, names in capitals that begin to speak.

This program trains a GPT with the architecture of GPT-2 on that megabyte, with the `fit` of chapter 08, shows what it
writes as it learns, and judges it by its surprise at the last tenth of the text, which it has not seen. `--chat` then
lets it continue what you type.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file is run by its path; what it imports lies one folder up

from images import at_least, interruptible, parameter_count, positive, prepare
from terminal import KERNELS, Result, heading, json_file, on_kernels, paint, report

from tt_autograd import Callback, History, Schedule, evaluate, fit, load_checkpoint
from tt_data import DataLoader, RandomSampler, short_text, tiny_shakespeare
from tt_nlp import GPT, BPETokenizer, CharTokenizer, GPTConfig, Windows, next_token_loss, save_gpt2, stream
from tt_optim import OneCycleLR
from tt_tensor import manual_seed, tune_malloc

SHAKESPEARE, STORY = "tiny-shakespeare", "the first chapter of Moby-Dick"
NEEDED, MINUTES = {SHAKESPEARE: 1.65, STORY: 2.6}, 30
STEPS = {SHAKESPEARE: 7_000, STORY: 300}
SETTINGS = (
    "steps", "every", "batch_size", "lr", "seed", "limit", "tokens", "vocabulary", "layers", "heads", "width",
    "context", "dropout", "kernels",
)  # fmt: skip
SAVE_EVERY = 200
TOKENIZERS: dict[str, Any] = {"characters": CharTokenizer, "bpe": BPETokenizer}

# ## The text
#
# A megabyte of Shakespeare, if it is here or may be downloaded. If not, the twelve kilobytes of *Moby-Dick* that come
# with chapter 10. The program is the same, but twelve kilobytes are too few to learn English from. So they have a
# threshold of their own, and earn no milestone.


def find_text(folder: Path | None, limit: int | None, download: bool) -> tuple[str, str]:
    """The name of the text and its first `limit` characters. Raises FileNotFoundError if `folder` does not hold
    tiny-shakespeare, ValueError for a damaged file, OSError if a download fails."""
    try:
        return SHAKESPEARE, tiny_shakespeare(folder, download=download)[:limit]
    except FileNotFoundError:
        if folder or download:
            raise
        return STORY, short_text()[:limit]


ADVICE = """
tiny-shakespeare is not here, so the first chapter of Moby-Dick is learned
instead. That earns no milestone. To earn it, put input.txt into a folder and
name that with --data, or set TT_DATA to it; or let --download fetch 1.1 MB.
"""


def cut(text: str) -> tuple[str, str]:
    """The first nine tenths of a text, to learn from, and the last tenth."""
    place = len(text) * 9 // 10
    return text[:place], text[place:]


# One token for each character, or the byte pairs of chapter 11. The pairs are counted in the part that is learned from;
# the alphabet is that of the whole text, so that every character has a number.


def make_tokenizer(text: str, options: argparse.Namespace) -> Any:
    """A tokenizer for the text."""
    if options.tokens == "bpe":
        return BPETokenizer.train(cut(text)[0], options.vocabulary, progress=False)
    return CharTokenizer.train(text)


# ## The network and its training
#
# What makes the difference to a small GPT that is trained on a laptop as one would train a large one: a batch of only
# eight windows, because what counts are steps, and a gradient of a thousand characters is good enough; a rate of four
# thousandths, ten times that of large models, which a short warm-up and clipping make possible, and which falls to
# nothing along a cosine; and weights without dropout, since in twenty minutes each character is seen a dozen times
# only.


def make_model(vocabulary: int, options: argparse.Namespace) -> GPT:
    """The GPT of the options."""
    sizes = (options.context, options.layers, options.heads, options.width)
    return GPT(GPTConfig(vocabulary, *sizes, dropout=options.dropout))


def learn(
    model: GPT, training: Windows, unseen: DataLoader, options: argparse.Namespace, callbacks: Sequence[Callback],
    name: str = "gpt",
) -> History:
    """Train the model in rounds of `every` steps; the history, one number for each round. `name` is that of its
    checkpoint."""
    every = max(min(options.every, options.steps), 1)
    rounds = options.steps // every
    draws = RandomSampler(training, replacement=True, num_samples=every * options.batch_size)
    optimizer = model.configure_optimizers(weight_decay=0.1, learning_rate=options.lr, betas=(0.9, 0.99))
    rate = OneCycleLR(
        optimizer, options.lr, max(rounds * every, 1), pct_start=0.02, cycle_momentum=False, final_div_factor=1.0
    )
    return fit(
        model, next_token_loss, optimizer, DataLoader(training, options.batch_size, sampler=draws), epochs=rounds,
        validation=unseen, callbacks=[Schedule(rate, each="step"), *callbacks], clip_norm=1.0,
        checkpoint=options.out / f"{name}.safetensors", checkpoint_every=SAVE_EVERY, resume=options.resume,
    )


# After each round: numbers, and a few lines that it writes. The unseen text is looked at for the curve only, and only a
# piece of it.


class Progress(Callback):
    """After each round, prints a line and a sample, and writes the history as a CSV file."""

    def __init__(self, file: Path, write: Callable[[int], str]):
        self.file, self.write = file, write

    def on_epoch(self, run):
        last, seconds = {name: values[-1] for name, values in run.history.items()}, sum(run.history["seconds"])
        print(
            f"step {run.steps:6,d} of {run.total_steps:,}: loss {last['loss']:.3f}, unseen {last['val_loss']:.3f} "
            f"nats a token; {seconds / 60:.1f} min", flush=True,
        )
        print(paint(indented(self.write(120)), "2"), flush=True)
        with open(self.file, "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["round", *run.history])
            rows.writerows([number, *row] for number, row in enumerate(zip(*run.history.values()), start=1))


def indented(text: str) -> str:
    """A text as lines of at most 76 characters behind a bar; what is no printable ASCII is shown as an escape."""
    plain = "".join(c if c == "\n" else ascii(c)[1:-1] if not (c.isascii() and c.isprintable()) else c for c in text)
    lines = [line[start : start + 76] for line in plain.split("\n") for start in range(0, max(len(line), 1), 76)]
    return "\n".join(f"  | {line}".rstrip() for line in lines)


# ## Judging it
#
# The whole last tenth, in windows of the context's length that lie side by side, the last one shorter. So every token
# but the first is predicted exactly once, from the tokens before it in its window, at the beginning of a window from
# one alone. The sum of all surprises is divided by the number of characters that were predicted, so that tokens of
# several characters are judged by the same measure.


def nats_per_character(model: GPT, tokenizer: Any, text: str) -> float:
    """The surprise of a model at a text, its first token excepted, in nats per character."""
    ids, length = tokenizer.encode(text), model.config.block_size
    windows = Windows(ids, min(length, len(ids) - 1))
    places = range(0, len(windows), windows.length)
    done = len(places) * windows.length
    parts = [(windows, places, done)]
    if done < len(ids) - 1:
        rest = Windows(ids[done:], len(ids) - 1 - done)
        parts.append((rest, range(1), rest.length))
    nats = sum(
        count * evaluate(model, next_token_loss, DataLoader(data, 64, sampler=chosen))["loss"]
        for data, chosen, count in parts
    )
    return nats / (len(text) - len(tokenizer.decode(ids[:1])))


def results(name: str, learned: int, nats: float, characters: int, seconds: float) -> list[Result]:
    """The rows of the table."""
    all_of_it, most = 1_115_394 * 9 // 10, NEEDED[name]
    learned_from = Result("characters of Moby-Dick", f"{learned:,}", "-", True, 0.0, lacking=SHAKESPEARE)
    if name == SHAKESPEARE:
        learned_from = Result(f"characters of {name}", f"{learned:,}", f"{all_of_it:,}", learned == all_of_it, 0.0)
    return [
        learned_from,
        Result("minutes of training", f"{seconds / 60:.1f}", f"<= {MINUTES}", seconds <= 60 * MINUTES, seconds),
        Result(f"nats on {characters:,} unseen", f"{nats:.3f} a character", f"<= {most}", nats <= most, 0.0),
    ]


# ## Talking to it
#
# It has never been taught to answer. It goes on with what it is given, as if it had stood in the text. Ctrl-C stops it
# in the middle of a sentence, an empty line or the end of the input says goodbye.


def saved_model(options: argparse.Namespace) -> tuple[GPT, Any]:
    """The network as the last checkpoint in --out has it, and its tokenizer. Raises ValueError if there is none, or if
    it is damaged."""
    file, checkpoint = options.out / "options.json", options.out / "gpt.safetensors"
    if not (file.is_file() and checkpoint.is_file()):
        raise ValueError(f"there is no network in {options.out}; train one first, or give its folder with --out")
    settings = argparse.Namespace(**json.loads(file.read_text(encoding="utf-8")))
    tokenizer = TOKENIZERS[settings.tokens].load(options.out / "tokenizer.json")
    model = make_model(tokenizer.vocab_size, settings)
    model.load_state_dict(load_checkpoint(checkpoint)["model"])
    return model.eval(), tokenizer


def chat(model: GPT, tokenizer: Any, options: argparse.Namespace) -> int:
    """Continue what is typed, until nothing is; the exit status."""
    print(f"A GPT of {parameter_count(model):,} parameters goes on with what you type. An empty line ends it.")
    while True:
        try:
            text = input(paint("\n> ", "1"))
        except (EOFError, KeyboardInterrupt):
            text = ""
        if not text:
            print()
            return 0
        try:
            ids = tokenizer.encode(text)
        except (ValueError, KeyError) as error:
            print(error)
            continue
        answer(model, tokenizer, ids, options)


def answer(model: GPT, tokenizer: Any, ids: Sequence[int], options: argparse.Namespace) -> None:
    """Print what continues the ids as it is written. Ctrl-C ends it."""
    how = {"temperature": options.temperature, "top_k": options.top_k}
    try:
        for piece in tokenizer.decode_stream(stream(model, ids, options.length, **how)):
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pass
    print()


# ## All of it


def program(name: str, text: str, options: argparse.Namespace) -> int:
    """Train the network, judge it, and report; the exit status."""
    manual_seed(options.seed)
    (to_learn, unseen), tokenizer = cut(text), make_tokenizer(text, options)
    tokenizer.save(options.out / "tokenizer.json")
    training, held_out = (Windows(tokenizer.encode(part), options.context) for part in (to_learn, unseen))
    model = make_model(tokenizer.vocab_size, options)
    heading(
        f"A GPT of {options.layers} blocks, {options.width} wide, {parameter_count(model):,} parameters, "
        f"{tokenizer.vocab_size} tokens"
    )
    piece = DataLoader(held_out, 64, sampler=range(0, min(len(held_out), 128 * 64), options.context))

    def write(count: int) -> str:
        ids = tokenizer.encode("\n")
        return tokenizer.decode(list(stream(model, ids, count, temperature=0.8, seed=options.seed)))

    history = learn(model, training, piece, options, [Progress(options.out / "curve.csv", write)])
    save_gpt2(model, options.out / "gpt2")
    tokenizer.save(options.out / "gpt2" / "tokenizer.json")  # with which the folder is a model that chapter 20 serves
    start = time.perf_counter()
    nats, seconds = nats_per_character(model, tokenizer, unseen), sum(history.get("seconds", []))
    print(f"\njudged on all {len(unseen):,} unseen characters in {time.perf_counter() - start:.1f} s")
    print("to talk to it: the same command with --chat, or with chapter 20")
    print(f"  python -m tt_capstone chat {options.out / 'gpt2'}")
    return report(results(name, len(to_learn), nats, len(unseen), seconds), __file__, options.json)


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description="A small GPT on tiny-shakespeare.")
    add = parser.add_argument
    usual = ", ".join(f"{number:,} for {name}" for name, number in STEPS.items())
    add("--steps", type=at_least(0), metavar="N", help=f"steps of training (default {usual})")
    add("--every", type=at_least(1), default=500, metavar="N", help="steps between two samples (default 500)")
    add("--batch-size", type=at_least(1), default=8, metavar="N", help="windows in a step (default 8)")
    add("--lr", type=positive, default=4e-3, help="the largest learning rate (default 0.004)")
    add("--tokens", choices=list(TOKENIZERS), default="characters", help="what a token is (default characters)")
    add("--vocabulary", type=at_least(256), default=512, metavar="N", help="tokens of --tokens bpe (default 512)")
    for option, default in (("layers", 4), ("heads", 6), ("width", 192), ("context", 128)):
        add(f"--{option}", type=at_least(1), default=default, metavar="N", help=f"default {default}")
    add("--dropout", type=float, default=0.0, metavar="P", help="the share that is dropped in training (default 0)")
    add("--seed", type=at_least(0), default=0, help="the seed of everything (default 0)")
    add("--limit", type=at_least(100), metavar="N", help="use only the first N characters, for a quick try")
    add("--data", type=Path, metavar="FOLDER", help="the folder with input.txt (default: look in TT_DATA)")
    add("--download", action="store_true", help="fetch tiny-shakespeare (1.1 MB) if it is not here")
    add("--out", type=Path, metavar="FOLDER", default=Path("runs") / "gpt_2018",
        help="where checkpoints, tokenizer and curve go (default %(default)s)")
    add("--resume", action="store_true", help="go on with the training that was interrupted in --out")
    add("--chat", action="store_true", help="do not train: continue what is typed, with the network in --out")
    add("--temperature", type=positive, default=0.8, help="of what --chat writes (default 0.8)")
    add("--top-k", type=at_least(1), metavar="K", help="let --chat choose from the K likeliest tokens only")
    add("--kernels", **KERNELS)
    add("--length", type=at_least(1), default=400, metavar="N", help="tokens that --chat writes at most (default 400)")
    add("--json", type=json_file, metavar="FILE", help="write the table to this file, too")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the example; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        if options.chat:
            with on_kernels(options.kernels):
                return chat(*saved_model(options), options)
        GPTConfig(256, options.context, options.layers, options.heads, options.width, options.dropout)
        name, text = find_text(options.data, options.limit, options.download)
        options.steps = STEPS[name] if options.steps is None else options.steps
        if min(map(len, cut(text))) <= options.context:
            raise ValueError(f"a tenth of {len(text):,} characters is too short for a context of {options.context}")
        prepare(options, name, SETTINGS)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if name != SHAKESPEARE:
        print(ADVICE)
    guessing = math.log(len(set(text)))
    print(f"{name}: {len(text):,} characters, the last tenth unseen.")
    print(f"Guessing a character costs {guessing:.2f} nats.")
    print(f"Checkpoints and curve go to {options.out}; Ctrl-C loses little.", flush=True)
    return interruptible(lambda: program(name, text, options), options, __file__, arguments)


if __name__ == "__main__":
    tune_malloc()  # every step frees what the next one asks for
    sys.exit(main())
