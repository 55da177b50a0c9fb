"""I made it fast: what the kernels of chapter 15, the cache of 16 and the small numbers of 17 bring, with intervals.

In 2018 a group of companies and universities began MLPerf, a contest in which everybody trains the same networks to the
same accuracy, and answers the same questions, by rules about what may be timed and how. It ended a time in which each
paper and each maker of chips measured something else. Entries of the same hardware became several times as fast within
a year, by software alone.

This program is a contest of the course with itself. The networks are LeNet, that of the CIFAR-10 example, and a GPT.
Each task is done in two ways that give the same answers; the program checks that they do, lets them take turns, and
says how many times as fast the second way is, with a 95 % interval. What counts is the lower end of that interval.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tt_nlp
import tt_opt
from tt_optim import SGD
from tt_spatial import LeNet
from tt_tensor import Module, Tensor, cross_entropy, from_numpy, manual_seed, tune_malloc

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file is run by its path; what it imports lies beside it
sys.path.insert(0, str(Path(__file__).parents[1] / "alexnet_2012"))

from terminal import KERNELS, Result, heading, json_file, report
from train_cnn import network

PAIRS, PROMPT, TOKENS, REQUESTS = 6, 700, 100, 8
SPAN = 1.0  # seconds of a comparison, unless a single pair takes longer than its share

# ## Tasks
#
# A task has a slow way and a fast one. Both are functions without arguments that return an array, so that the arrays
# can be compared. `needed` is how many times as fast the fast one must be.


class Task(NamedTuple):
    """Two ways to the same answer, the ratio of their times that is needed, and how far the answers may differ."""

    what: str
    slow: Callable[[], np.ndarray]
    fast: Callable[[], np.ndarray]
    needed: float
    tolerance: float = 1e-2


def on(kernels: str, function: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    """The function on a kernel set."""

    def call():
        with tt_opt.accelerate(kernels):
            return function()

    return call


# Training is a step: forward, backward, update. So that a step can be repeated with the same result, the learning rate
# is 0. The answer is the loss and the gradient of the first weight. To change the kernel set takes time itself, so a
# call has eight steps.


def steps(times: int, model: Module, loss: Callable[[Any, Any], Tensor], inputs: Tensor, targets: Tensor) -> np.ndarray:
    """Training steps; the loss and the gradient of the first parameter."""
    optimizer = SGD(model.parameters(), lr=0.0, momentum=0.9)
    for _ in range(times):
        optimizer.zero_grad()
        value = loss(model(inputs), targets)
        value.backward()
        optimizer.step()
    first = next(iter(model.parameters()))
    return np.append(first.grad.numpy().ravel(), value.item())


def images(count: int, channels: int, side: int) -> tuple[Tensor, Tensor]:
    """Random images and labels. What is in them does not change the time."""
    random = np.random.default_rng(0)
    x = random.normal(size=(count, channels, side, side)).astype(np.float32)
    return from_numpy(x), from_numpy(random.integers(0, 10, count))


def windows(count: int, length: int) -> tuple[Tensor, Tensor]:
    """Random texts of 65 characters, and the next character at each place."""
    ids = np.random.default_rng(0).integers(0, 65, (count, length + 1))
    return from_numpy(ids[:, :-1].copy()), from_numpy(ids[:, 1:].copy())


def training(kernels: str) -> list[Task]:
    """A step of each network: against the chapters' kernels, and, for small ones, against the definitions in loops."""
    large = {
        "LeNet, 32 digits": (LeNet(), cross_entropy, *images(32, 1, 28)),
        "CIFAR network, 32 images": (network(3, 32), cross_entropy, *images(32, 3, 32)),
        "GPT, 8 x 64 characters": (
            tt_nlp.transformers.small_gpt(65, 4, 128, 64),
            tt_nlp.next_token_loss,
            *windows(8, 64),
        ),
    }
    small = {
        "LeNet, 1 digit": (LeNet(), cross_entropy, *images(1, 1, 28)),
        "CIFAR, width / 8, 1 image": (network(3, 32, width=4), cross_entropy, *images(1, 3, 32)),
        "GPT, width / 4, 16 letters": (
            tt_nlp.transformers.small_gpt(65, 1, 32, 16),
            tt_nlp.next_token_loss,
            *windows(1, 16),
        ),
    }
    needed = dict(zip(large, (1.5, 1.5, 1.1)))
    planned = [(what, "loops", 1, given, 10.0) for what, given in small.items()]
    planned += [(what, "default", 8, given, needed[what]) for what, given in large.items()]
    return [
        Task(f"{what} / {slow}", *(on(k, partial(steps, times, *given)) for k in (slow, kernels)), ratio)
        for what, slow, times, given, ratio in planned
    ]


# The GPT also writes. The slow way is the loop of chapter 14, on the chapters' kernels: it reads the whole text again
# for each token. It is the honest baseline, because it is what we wrote first.


def generation(kernels: str, prompt: int, tokens: int, count: int) -> list[Task]:
    """Continue a long text; answer several requests; take the best of several answers."""
    model = tt_nlp.transformers.small_gpt(65, 4, 128, prompt + tokens)
    model.eval()
    random = np.random.default_rng(0)
    text = random.integers(0, 65, prompt).tolist()
    short = [random.integers(0, 65, prompt // 2).tolist() for _ in range(count)]
    few = max(1, tokens // 4)

    def loop(prompts, tokens):
        return np.array([tt_nlp.generate(model, p, tokens, seed=i) for i, p in enumerate(prompts)])

    def cached(model):
        return np.array([tt_opt.generate(model, text, tokens, seed=0)])

    def served():
        batcher = tt_opt.Batcher(model, slots=count)
        requests = [batcher.submit(p, few, seed=i) for i, p in enumerate(short)]
        batcher.run()
        return np.array([request.text for request in requests])

    def best(generate):
        return np.array(generate(model, text, count, few, seed=0))

    return [
        Task(f"write {tokens} tokens / no cache", on("default", partial(loop, [text], tokens)),
             on(kernels, partial(cached, model)), 10.0),
        Task(f"{count} requests / no cache", on("default", partial(loop, short, few)),
             on(kernels, served), 10.0),
        Task(f"best of {count} / no cache", on("default", partial(best, best_without_a_cache)),
             on(kernels, partial(best, tt_opt.caching.best_of)), 10.0),
    ]  # fmt: skip


def best_without_a_cache(model: Module, prompt: Sequence[int], count: int, tokens: int, seed: int) -> list[list[int]]:
    """What tt_opt.caching.best_of does, by the loop of chapter 14."""
    texts = [tt_nlp.generate(model, prompt, tokens, seed=(seed, i)) for i in range(count)]
    return sorted(texts, key=lambda text: np.mean(tt_nlp.transformers.surprises(model, text)[len(prompt) - 1 :]))


def quantized(kernels: str) -> Task:
    """A token of a GPT whose weights do not fit into the cache of the processor: int8 against float32, both with a KV
    cache and on the fast kernels. Rounding changes the logits by about a fiftieth of the largest."""
    model = tt_nlp.GPT(tt_nlp.GPTConfig(8192, 64, 4, 8, 1024)).eval()
    small = tt_opt.quantize_(deepcopy(model), "int8")

    def token(model, cache):
        cache.keep(0)
        logits = tt_opt.read(model, [(cache, [1])])
        return logits / np.abs(logits).max()

    slow, fast = (partial(token, m, tt_opt.KVCache.of(m)) for m in (model, small))
    return Task("token of 59 M weights / float32", on(kernels, slow), on(kernels, fast), 1.0, 0.05)


# ## Measuring


def measured(task: Task, pairs: int) -> Result:
    """Both ways give the same answer; then they take turns."""
    began = time.perf_counter()
    slow, fast = task.slow(), task.fast()
    if not np.allclose(slow, fast, rtol=task.tolerance, atol=task.tolerance):
        raise RuntimeError(f"{task.what}: the two ways do not give the same answer, so their times mean nothing")
    found = tt_opt.compare(task.fast, task.slow, pairs=pairs, span=SPAN)
    said = f"{found.ratio:,.1f} ({found.low:,.1f} to {found.high:,.1f})"
    return Result(task.what, said, f">= {task.needed:g}", found.low >= task.needed, time.perf_counter() - began)


def program(options: argparse.Namespace) -> int:
    """Do all tasks and report; the exit status."""
    manual_seed(options.seed)
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 1:
        print("Other programs are at work here: intervals will be wide, and ratios may be off.")
    heading(f"Kernels {options.kernels}, {options.pairs} pairs of turns for each task")
    print("How many times as fast, with its 95 % interval, of which the lower end counts:")
    long = options.tokens >= TOKENS and options.prompt >= PROMPT
    asked = f"{TOKENS} after {PROMPT}"
    rows = [Result("tokens to write", f"{options.tokens} after {options.prompt}", asked, long, 0.0)]
    tasks = [
        *generation(options.kernels, options.prompt, options.tokens, options.requests), *training(options.kernels),
        quantized(options.kernels),
    ]  # fmt: skip
    for task in tasks:
        rows.append(measured(task, options.pairs))
        print(f"{rows[-1].what:36s}{rows[-1].measured}", flush=True)
    return report(rows, __file__, options.json)


def main(arguments: list[str] | None = None) -> int:
    """Run the example; the exit status."""
    parser = argparse.ArgumentParser(description="How much faster the course has become, with intervals.")
    parser.add_argument("--kernels", **KERNELS)
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help=f"turns of each way (default {PAIRS})")
    parser.add_argument("--prompt", type=int, default=PROMPT, metavar="N", help=f"tokens to read (default {PROMPT})")
    parser.add_argument("--tokens", type=int, default=TOKENS, metavar="N", help=f"tokens to write (default {TOKENS})")
    parser.add_argument("--requests", type=int, default=REQUESTS, metavar="N", help=f"at a time (default {REQUESTS})")
    parser.add_argument("--seed", type=int, default=0, help="the seed of all weights (default 0)")
    parser.add_argument("--json", type=json_file, metavar="FILE", help="write the table to this file, too")
    options = parser.parse_args(arguments)
    if options.pairs < 6 or min(options.prompt, options.tokens, options.requests) < 4:
        parser.error("an interval needs 6 pairs or more, and prompt, tokens and requests must be 4 or more")
    return program(options)


if __name__ == "__main__":
    tune_malloc()  # every step frees what the next one asks for
    sys.exit(main())
