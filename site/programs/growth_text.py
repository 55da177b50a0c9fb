import math
import time

import numpy as np

import tt_nlp
import tt_opt
import tt_tensor as tt
from tt_nlp import GPT, BPETokenizer, GPTConfig

tt.manual_seed(0)
random = np.random.default_rng(0)


def counted(call):
    """The multiply-adds that the meter counts in a call."""
    with tt.meter() as meter:
        call()
    return meter.multiply_adds.total()


def seconds(call):
    """The shortest time of three calls."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def row(part, size, small, large, formula, measured):
    """A line of the table: how fast the formula grows, and how fast what we measure does."""
    pairs = [[f(n) for n in (small, large)] for f in (formula, measured)]
    powers = [math.log(b / a, large / small) for a, b in pairs]
    growth = "".join(f"{power:9.2f}" for power in powers)
    print(f"{part:26s}{size:8s}{small:8,d}{large:9,d}{growth}")


def text(words):
    """Made-up words; the n-th one comes in proportion to 1 / n (Zipf's law)."""
    letters = random.integers(97, 123, (50_000, 6)).astype(np.uint8)
    known = [bytes(word).decode() for word in letters]
    shares = 1 / np.arange(1, len(known) + 1)
    return " ".join(known[n] for n in random.choice(len(known), words, p=shares / shares.sum()))


texts = {words: text(words) for words in (10_000, 80_000)}


def train(words=10_000, merges=200):
    return seconds(lambda: BPETokenizer.train(texts[words], 256 + merges))


def distinct(words):
    return len(set(texts[words].split()))


model = GPT(GPTConfig(65, 256, n_layer=2, n_head=2, n_embd=64))


def token(length):
    """The multiply-adds of one more token, if the keys and values of `length` others are there."""
    return 2 * (12 * 64**2 + 2 * length * 64) + 65 * 64


def whole(length):
    """The same if nothing is kept: the passes over 1, 2, ..., length tokens."""
    return sum(t * token(t) for t in range(1, length + 1))


def writing(generate):
    return lambda length: counted(lambda: generate(model, [1], length, seed=0))


print(f"{'part':26s}{'in':8s}{'from':>8s}{'to':>9s}{'formula':>9s}{'measured':>9s}")
row("BPE training", "words", 10_000, 80_000, lambda n: n, train)
row("distinct words", "words", 10_000, 80_000, lambda n: n, distinct)
row("BPE training", "merges", 400, 3200, lambda n: n, lambda n: train(merges=n))
row("writing, all read again", "tokens", 16, 128, whole, writing(tt_nlp.generate))
row("writing, with a cache", "tokens", 16, 128, lambda n: sum(map(token, range(n))), writing(tt_opt.generate))
