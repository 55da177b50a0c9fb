# # Tokenizer files
#
# An appendix of chapter 11: how we save a tokenizer to a file and load it again, how we read GPT-2's own files, and how
# we hand a tokenizer to OpenAI's `tiktoken`.

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# ## Bytes that can be printed
#
# A token is a sequence of bytes, and many bytes are not letters. GPT-2's authors wanted a vocabulary that you can read,
# so they gave each byte a character. A byte that is a visible character in Latin-1 keeps that character, and the
# others, in their order, get the characters from number 256 on. The space is the 33rd of them and becomes `Ġ`, the line
# end becomes `Ċ`. All libraries print tokens like this, so we do, too.

_VISIBLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_HIDDEN = [byte for byte in range(256) if byte not in _VISIBLE]
CHARACTERS = dict(zip([*_VISIBLE, *_HIDDEN], map(chr, [*_VISIBLE, *range(256, 256 + len(_HIDDEN))])))
_BYTES = {character: byte for byte, character in CHARACTERS.items()}


def printed(token: bytes) -> str:
    """Return a token as text, with a visible character for each byte."""
    return "".join(map(CHARACTERS.__getitem__, token))


def unprinted(text: str) -> bytes:
    """Return the token that `printed` turns into this text. ValueError for a character that represents no byte."""
    try:
        return bytes(map(_BYTES.__getitem__, text))
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} in the token {text!r} represents no byte") from None


def check_printed():
    assert printed(b" the\n") == "ĠtheĊ" and unprinted("ĠtheĊ") == b" the\n"
    assert len({printed(bytes([byte])) for byte in range(256)}) == 256


# ## Our own format
#
# We write a JSON file, in UTF-8, which holds an object with
#
# - `format`: "tinytorch tokenizer", and `version`: 1;
# - `kind`: "byte pairs" or "characters";
# - for byte pairs, `tokens`: all tokens in the order of their numbers, as `printed` writes them; `special_tokens`: the
#   names of those that have the numbers after that; `pattern`: "gpt2", "gpt4" or "smollm";
# - for characters, `alphabet`: a text with each of them once, in the order of their numbers;
# - `sha256`: the checksum of all the rest, as JSON with sorted keys, no spaces, and escapes for all characters outside
#   of ASCII.
#
# We need not write the merges. A token's number says when it was learned, and its parts follow from the tokens before
# it.
#
# As in chapter 08, we write the file under another name, force it to the disk, and then rename it. If you look at the
# file, you find the old one or the new one, never a half.

FORMAT, VERSION = "tinytorch tokenizer", 1


def _sha256(contents: dict[str, Any]) -> str:
    rest = {key: value for key, value in contents.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# The checksum covers everything except itself.


def write_contents(path: str | os.PathLike, contents: dict[str, Any]) -> None:
    """Write a tokenizer's contents as a JSON file, atomically: `path` holds the old file or the new one."""
    contents = {"format": FORMAT, "version": VERSION, **contents}
    text = json.dumps(contents | {"sha256": _sha256(contents)}, ensure_ascii=False, indent=0)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.unfinished")
    with open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


# When we read, we trust nothing. Whatever is wrong becomes a ValueError with the name of the file.


def read_contents(path: str | os.PathLike, kind: str) -> dict[str, Any]:
    """Return the contents that `write_contents` wrote. ValueError for a file that is damaged, or that does not hold a
    tokenizer of this kind."""
    contents = _json(path)
    if contents.get("format") != FORMAT or contents.get("version") != VERSION:
        raise ValueError(f"{path} is not a file of the format {FORMAT!r}, version {VERSION}")
    if contents.get("kind") != kind:
        raise ValueError(f"{path} has a tokenizer of {contents.get('kind')!r}, not of {kind!r}; load it with its class")
    if contents.get("sha256") != _sha256(contents):
        raise ValueError(f"{path} is damaged: its contents do not have the SHA-256 that is written in it")
    return contents


# The file may not even be JSON.


def _json(path: str | os.PathLike) -> dict[str, Any]:
    try:
        contents = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:  # bytes that are not UTF-8, text that is not JSON
        raise ValueError(f"{path} is damaged or not a tokenizer: {error}") from None
    if not isinstance(contents, dict):
        raise ValueError(f"{path} is not a tokenizer: it has a {type(contents).__name__} where an object is expected")
    return contents


# A tokenizer inherits both functions as the methods `save` and `load`. Its class supplies its `kind` and `contents()`.


class Saved:
    """Methods `save` and `load` for a tokenizer that has a `kind`, and `contents()` that its class takes back."""

    kind: str

    def contents(self) -> dict[str, Any]:
        """Return what the file stores about this tokenizer."""
        raise NotImplementedError(f"{type(self).__name__} needs a method contents()")

    @classmethod
    def from_contents(cls, contents: dict[str, Any]):
        """Return the tokenizer that these contents describe."""
        return cls(**contents)

    def save(self, path: str | os.PathLike) -> None:
        """Write the tokenizer to a file, atomically: `path` holds the old file or the new one, never a part."""
        write_contents(path, {"kind": self.kind, **self.contents()})

    # When we load, the class may reject the contents, for example a vocabulary without all bytes.

    @classmethod
    def load(cls, path: str | os.PathLike):
        """Return the tokenizer that `save` wrote. ValueError for a file that is damaged or something else."""
        contents = read_contents(path, cls.kind)
        for key in ("format", "version", "kind", "sha256"):
            del contents[key]
        try:
            return cls.from_contents(contents)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} has no valid tokenizer: {error}") from None


# ## GPT-2's own files
#
# `vocab.bpe` has a line with the version and then one merge in each line: two printed tokens, in the order in which
# they were learned. `encoder.json` has the number of each token. The numbers follow from the merges (first the bytes in
# the order of their characters, then a token for each merge), so we can check one file against the other. Only special
# tokens are in the second file alone. If the first file has lost its end, however, some tokens are missing there that
# two others would make, and we check for those as well.


def gpt2_contents(folder: Path) -> dict[str, Any]:
    """Return GPT-2's files in a folder as the contents of our own. ValueError for files that do not fit together."""
    merges = _merges(folder / "vocab.bpe")
    names = [*CHARACTERS.values(), *("".join(pair) for pair in merges)]
    numbers = _json(folder / "encoder.json")
    if any(numbers.get(name) != number for number, name in enumerate(names)):
        raise ValueError(f"encoder.json and vocab.bpe in {folder} do not fit together; one of them is damaged")
    known = set(names)
    special = sorted(numbers.keys() - known, key=lambda name: str(numbers[name]).zfill(9))
    if [numbers[name] for name in special] != list(range(len(names), len(numbers))):
        raise ValueError(f"the numbers in {folder / 'encoder.json'} are not 0 to {len(numbers) - 1}")
    for name in special:
        if any(name[:i] in known and name[i:] in known for i in range(1, len(name))):
            raise ValueError(f"{folder / 'vocab.bpe'} is damaged: the merge that makes {name!r} is missing")
    return {"pattern": "gpt2", "special_tokens": special, "tokens": names}


# Each line of `vocab.bpe` must hold two tokens.


def _merges(path: Path) -> list[list[str]]:
    try:
        version, *lines = path.read_text(encoding="utf-8").splitlines()
    except (UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path} is damaged or not a vocab.bpe: {error}") from None
    merges = [line.split(" ") for line in lines]
    wrong = next((line for line, pair in zip(lines, merges) if len(pair) != 2), None)
    if not version.startswith("#version") or wrong is not None:
        raise ValueError(f"{path} is damaged: {wrong if wrong is not None else version!r} is not a line of a vocab.bpe")
    return merges


# ## OpenAI's tiktoken
#
# `tiktoken` needs three things: the pattern, the number of each token, and the special tokens. It merges by these
# numbers as we do, so we need not convert anything.


def tiktoken_encoding(name: str, pattern: str, ranks: Mapping[bytes, int], special_tokens: Mapping[str, int]):
    """Return a tiktoken.Encoding with these tokens and this pattern."""
    import tiktoken

    return tiktoken.Encoding(
        name, pat_str=pattern, mergeable_ranks=dict(ranks), special_tokens=dict(special_tokens),
        explicit_n_vocab=len(ranks) + len(special_tokens),
    )


# ## What a byte pair tokenizer inherits
#
# We collect all of this in one class, which knows nothing about encoding.


class BytePairFiles(Saved):
    """`save`, `load`, `from_gpt2` and `to_tiktoken` for a class made of tokens, special tokens and a pattern."""

    kind = "byte pairs"
    tokens: list[bytes]
    ranks: dict[bytes, int]
    special_tokens: dict[str, int]
    pattern: str
    patterns: Mapping[str, str]

    def contents(self) -> dict[str, Any]:
        tokens = [*map(printed, self.tokens)]
        return {"pattern": self.pattern, "special_tokens": [*self.special_tokens], "tokens": tokens}

    @classmethod
    def from_contents(cls, contents: dict[str, Any]):
        return cls(**contents | {"tokens": [*map(unprinted, contents["tokens"])]})

    @classmethod
    def from_gpt2(cls, folder: str | os.PathLike):
        """Return GPT-2's own tokenizer, from the files encoder.json and vocab.bpe that OpenAI published with it."""
        return cls.from_contents(gpt2_contents(Path(folder)))

    def to_tiktoken(self, name: str = "tinytorch"):
        """Return the same tokenizer as a tiktoken.Encoding, from OpenAI's package `tiktoken`, which must be
        installed."""
        return tiktoken_encoding(name, self.patterns[self.pattern], self.ranks, self.special_tokens)


__all__ = [
    "BytePairFiles", "CHARACTERS", "Saved", "gpt2_contents", "printed", "read_contents", "tiktoken_encoding",
    "unprinted", "write_contents",
]
