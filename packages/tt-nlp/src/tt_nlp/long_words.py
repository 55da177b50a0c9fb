# # Long words
#
# An appendix of chapter 11: a word of a megabyte.
#
# `encode_word` looks for the smallest number in a list, once a merge, and each time through the whole list. In a word
# of $n$ bytes there are up to $n - 1$ merges, so the work grows with $n^2$. For the dozen bytes of a usual word that is
# nothing. But a text may have a "word" that is no word at all: a picture in base64, a file of one line. And who sends
# requests to a server can send such a word on purpose.

from __future__ import annotations

import heapq
import sys
import time
from collections.abc import Mapping

NEVER = sys.maxsize  # the rank of a pair that makes no token: higher than all others

# ## A heap of pairs
#
# Now what `learn` does to a corpus is done to a word. `after` and `before` tell where the neighbours of a part begin,
# and `rank` which token a part would make with the next one. A heap has all pairs that make a token, the lowest rank
# first, and of the same rank the leftmost, which is the order of `encode_word`.
#
# An entry is one whole number, rank times length plus place. A million of these take a quarter of the memory of a
# million tuples, and are compared faster. An entry is out of date if the rank at its place is another one by now.


def encode_long_word(word: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """The tokens of a word, as `encode_word` finds them, in a time that grows with n log n."""
    size, get = len(word), ranks.get
    after, before = list(range(1, size + 3)), list(range(-1, size + 1))
    rank = [get(word[i : i + 2], NEVER) for i in range(size - 1)] + [NEVER] * 2
    heap = [lowest * size + i for i, lowest in enumerate(rank) if lowest < NEVER]
    heapq.heapify(heap)
    while heap:
        lowest, i = divmod(heapq.heappop(heap), size)
        if rank[i] != lowest:
            continue
        gone, left = after[i], before[i]
        rank[gone], after[i] = NEVER, after[gone]
        before[after[i]] = i
        for start, end in ((i, after[after[i]]), (left, after[i])):
            if start >= 0:
                rank[start] = new = get(word[start:end], NEVER) if end <= size else NEVER
                if new < NEVER:
                    heapq.heappush(heap, new * size + start)
    return _parts(word, after, ranks)


def _parts(word: bytes, after: list[int], ranks: Mapping[bytes, int]) -> list[int]:
    start, ids = 0, []
    while start < len(word):
        ids.append(ranks[word[start : after[start]]])
        start = after[start]
    return ids


# Each merge makes one part of two and puts at most two entries into the heap. So there are fewer than $3n$ entries in
# all, and each of them costs $\log n$. Cutting out `word[start:end]` costs the length of the piece; but a piece is two
# tokens long, and tokens are short.


def check_long_words():
    from tt_nlp.tokenization import BYTES, encode_word

    tokens = [*BYTES, b"ab", b"aa", b"aba", b"abab", b"aaaa", b"abaaa"]
    ranks = {token: number for number, token in enumerate(tokens)}
    for word in (b"", b"a", b"ba", b"a" * 37, b"ab" * 20, b"abaaabaabaaab" * 9, bytes(range(256))):
        assert encode_long_word(word, ranks) == encode_word(word, ranks)


def show_long_words():
    from tt_nlp.tokenization import BYTES, encode_word

    ranks = {token: number for number, token in enumerate([*BYTES, b"ab", b"abab"])}
    for size in (1_000, 4_000, 16_000):
        print(f"{size:6,d} bytes:", end="")
        for name, encode in (("a list", encode_word), ("a heap", encode_long_word)):
            start = time.perf_counter()
            encode(b"ab" * (size // 2), ranks)
            print(f"   {name} {(time.perf_counter() - start) * 1e3:7.1f} ms", end="")
        print()


# Four times the length takes the list sixteen times as long, and the heap a little more than four times.

__all__ = ["NEVER", "encode_long_word"]
