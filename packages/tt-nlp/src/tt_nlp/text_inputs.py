"""Checks of what a tokenizer is given: texts, files, ids, and the names of special tokens."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Source = str | os.PathLike | Iterable[str | os.PathLike]


def refuse_surrogates(text: str) -> None:
    """Raise ValueError for a text that has no UTF-8 form, TypeError for anything that is not a str."""
    if not isinstance(text, str):
        raise TypeError(f"a text is a str, not {type(text).__name__}; bytes become one by .decode()")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} of the text is {text[error.start]!r}, half of a surrogate pair, which is not a "
            'character; text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") joins or replaces them'
        ) from None


def refuse_special(*arguments) -> None:
    """Raise TypeError for an `allowed_special` or `disallowed_special` that is neither "all" nor a set of names."""
    for names in arguments:
        if names != "all" and (isinstance(names, str | bytes) or not isinstance(names, Iterable)):
            raise TypeError(f'special tokens are given as "all" or as a set of names, () for none, not as {names!r}')


def refuse_vocabulary(tokens: Sequence[bytes], special_tokens: Sequence[str]) -> None:
    """Raise ValueError for tokens that lack a single byte, and for tokens or special tokens that are empty or there
    twice."""
    for name in special_tokens:
        refuse_surrogates(name)
    known = set(tokens)
    if missing := [byte for byte in (bytes([value]) for value in range(256)) if byte not in known]:
        raise ValueError(f"a vocabulary has all 256 single bytes; {len(missing)} are missing, as {missing[0]!r}")
    if len(known) < len(tokens) or b"" in known:
        raise ValueError(f"the {len(tokens)} tokens must be different from each other, and none empty")
    if len(set(special_tokens)) < len(special_tokens) or "" in special_tokens:
        raise ValueError(f"special tokens must be different from each other, and not empty: {special_tokens!r}")


def one_text(ids: Iterable[int]) -> Iterable[int]:
    """Return the ids of one text, as they come; `ids` may be a list, an array, a tensor. TypeError for anything
    else."""
    ids = ids.tolist() if hasattr(ids, "tolist") else ids
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise TypeError(f"the ids of a text are a list of integers, such as [5, 2], not {ids!r:.60}")
    return ids


def entry(vocabulary: Sequence, number: int) -> Any:
    """Return the entry with a number. IndexError for a number out of range, TypeError for one that is not an
    integer."""
    try:
        if 0 <= number < len(vocabulary):
            return vocabulary[number]
    except (TypeError, ValueError):
        several = "; the ids are those of one text, so decode each of several" if np.ndim(number) else ""
        raise TypeError(f"a token is an integer, not {number!r:.60}{several}") from None
    raise IndexError(f"token {number} is not in the vocabulary, which has 0 to {len(vocabulary) - 1}")


def texts(source: Source) -> Iterator[str]:
    """Yield the texts of a source. A file is read as UTF-8, unchanged, when its turn comes. ValueError for one that is
    not UTF-8."""
    if isinstance(source, str | os.PathLike | bytes):
        source = [source]
    for item in source:
        if not isinstance(item, os.PathLike):
            yield item
            continue
        try:
            yield Path(item).read_bytes().decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{item} is not UTF-8: {error.reason} at byte {error.start}; convert it first") from None


def too_little(source: Source, vocab_size: int, learned: str) -> str:
    """Return what is wrong with a source from which only so many tokens can be learned."""
    said = (
        f"vocab_size is {vocab_size}, but the text gives {learned}, since no other pair in it occurs twice; take "
        "fewer, or more text"
    )
    if isinstance(source, str) and len(source) < 1000 and "\0" not in source and os.path.exists(source):
        return f"{said}. The text is the name of a file: give Path({source!r}) to learn from what is in it"
    return said


__all__ = [
    "Source", "entry", "one_text", "refuse_special", "refuse_surrogates", "refuse_vocabulary", "texts", "too_little",
]
