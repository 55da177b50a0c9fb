"""Ids of tokens in a file and in an encoder: a file numbers its tokens in another order, and may lack bytes.

A support module of chapter 20. It knows the encoder of chapter 11 but not models, so the chapter can build on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tt_nlp import Encoder, unprinted
from tt_nlp.text_inputs import entry


class FileTokens(Encoder):
    """An encoder of the tokens in a file, from their names by id, as `printed` writes them, the ids of the special
    ones, and the name of the pattern. `numbers` has the id in the file of each token that the encoder finds, `missing`
    the bytes without a token, and `texts` the bytes of each id in the file."""

    def __init__(self, names: Sequence[str], special: Sequence[int], pattern: str):
        self.numbers = sorted(set(range(len(names))) - set(special))  # of the ordinary tokens
        tokens = [unprinted(names[number]) for number in self.numbers]
        self.missing = bytes(sorted(set(range(256)) - {token[0] for token in tokens if len(token) == 1}))
        extra = [bytes([byte]) for byte in self.missing]  # which an encoder needs, and no word will have
        super().__init__([*tokens, *extra], [names[number] for number in special], pattern)
        self.special_tokens = {names[number]: number for number in special}
        self.texts = [name.encode() for name in names]
        for number, token in zip(self.numbers, tokens):
            self.texts[number] = token

    @property
    def vocab_size(self) -> int:
        """The number of tokens."""
        return len(self.texts)

    def token_bytes(self, number: int) -> bytes:
        """Return the bytes of a token. IndexError for an id that no token has."""
        return entry(self.texts, number)


__all__ = ["FileTokens"]
