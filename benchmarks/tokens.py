"""What tokenizers are timed on: a megabyte of English, and one vocabulary for all of them.

The text is the beginning of Tolstoy's *War and Peace* from $TT_DATA/gutenberg, with its curly quotes. Everybody works
on one thread. `*_1024` and `*_4096` are sizes of the vocabulary. tiktoken cannot be trained, and remembers nothing
between two texts; `first_*` is our time with nothing remembered yet, `again_*` with all words known.
"""

import os
from functools import cache
from pathlib import Path

SIZES = (1024, 4096)
TITLES = {
    "again": "Encode 1 MB of English, vocabulary {size:,}, words known, one thread",
    "first": "The same with nothing remembered, vocabulary {size:,}",
    "train": "Train a byte-level BPE on 1 MB of English to {size:,} tokens, one thread",
}
WORKLOADS = {f"{name}_{size}": (title.format(size=size), "ms", 1e3) for size in SIZES for name, title in TITLES.items()}
ONE_THREAD = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def text(name: str = "2600-0.txt", size: int = 1_000_000) -> str:
    """`size` bytes of a Project Gutenberg book, from its first line on, with plain line ends."""
    path = Path(os.environ.get("TT_DATA", "")) / "gutenberg" / name
    whole = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    start = whole.index("\n", whole.index("*** START OF"))
    return whole[start:].encode()[:size].decode(errors="ignore")


@cache
def tokenizer(size: int):
    """Our tokenizer with a vocabulary that was learned from the text."""
    from tt_nlp import BPETokenizer

    return BPETokenizer.train(text(), size, progress=False)


def merges(size: int) -> list[tuple[str, str]]:
    """The two parts of each learned token, as they are printed: what other libraries call merges."""
    from tt_nlp import printed
    from tt_nlp.tokenization import encode_word

    ranks, found = {}, []
    for number, token in enumerate(tokenizer(size).tokens):
        if number > 255:
            left, right = (tokenizer(size).tokens[part] for part in encode_word(token, ranks))
            found.append((printed(left), printed(right)))
        ranks[token] = number
    return found
