"""Our tokenizer."""

import tokens as t

from tt_nlp import BPETokenizer
from tt_tensor import tune_malloc

tune_malloc()


def _again(size):
    tokenizer, text = t.tokenizer(size), t.text()

    def step():
        return len(tokenizer.encode_ordinary(text))

    return step


def _first(size):
    learned, text = t.tokenizer(size).tokens, t.text()

    def step():
        return len(BPETokenizer(learned).encode_ordinary(text))

    return step


def _train(size):
    text = t.text()

    def step():
        BPETokenizer.train(text, size, progress=False)

    return step


def again_1024():
    return _again(1024)


def again_4096():
    return _again(4096)


def first_1024():
    return _first(1024)


def first_4096():
    return _first(4096)


def train_1024():
    return _train(1024)


def train_4096():
    return _train(4096)
