"""Hugging Face's tokenizers, for encoding with our vocabulary."""

import tokens as t
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tt_nlp import printed


def _tokenizer(model):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _training(size):
    lines = t.text().splitlines(keepends=True)  # which is quicker than the whole text in one
    alphabet = pre_tokenizers.ByteLevel.alphabet()

    def step():
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        _tokenizer(models.BPE()).train_from_iterator(lines, trainer)

    return step


def _encoding(size):
    text, names = t.text(), map(printed, t.tokenizer(size).tokens)
    tokenizer = _tokenizer(models.BPE({name: number for number, name in enumerate(names)}, t.merges(size)))

    def step():
        return len(tokenizer.encode(text).ids)

    return step


def train_1024():
    return _training(1024)


def train_4096():
    return _training(4096)


def again_1024():
    return _encoding(1024)


def again_4096():
    return _encoding(4096)
