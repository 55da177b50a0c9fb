# # Long words
#
# An appendix of chapter 11: how to encode a word of a megabyte.
#
# In each merge `encode_word` searches a list for its smallest number, and each time it reads the whole list. In a word
# of $n$ bytes there are up to $n - 1$ merges, so its work grows with $n^2$. For the dozen bytes of a usual word that is
# nothing. But your text may contain a "word" that is not a word at all: a picture in base64, a file of one line. And if
# you run a server, a client can send such a word on purpose.

from __future__ import annotations

import heapq
import sys
import time
from collections.abc import Mapping
from itertools import pairwise

NEVER = sys.maxsize  # the rank of a pair that does not make a token: higher than all others

# ## The slow way, as plainly as possible
#
# We need something to compare with. Here the word is a list of parts, and we merge the leftmost pair of the lowest rank
# until no pair makes a token.


def encode_by_search(word: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """Return the tokens of a word, in a time that grows with the square of its length."""
    parts = [word[i : i + 1] for i in range(len(word))]
    while len(parts) > 1:
        rank = [ranks.get(left + right, NEVER) for left, right in pairwise(parts)]
        if (lowest := min(rank)) == NEVER:
            break
        i = rank.index(lowest)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return [ranks[part] for part in parts]


# ## A heap of pairs
#
# What `learn` does to a corpus, we now do to a single word. `after` and `before` say where the neighbours of a part
# begin, and `rank` says which token a part would make with the next one. Our heap holds all pairs that make a token,
# the lowest rank first, and of the same rank the leftmost first.
#
# An entry is one integer, rank times length plus position. A million of these take a quarter of the memory of a million
# tuples, and Python compares them faster. An entry is out of date if the rank at its position has changed by now.


def encode_long_word(word: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """Return the tokens of a word, as `encode_word` finds them, in a time that grows with n log n."""
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


# When the heap is empty, we walk along `after` once more and read the tokens off.


def _parts(word: bytes, after: list[int], ranks: Mapping[bytes, int]) -> list[int]:
    start, ids = 0, []
    while start < len(word):
        ids.append(ranks[word[start : after[start]]])
        start = after[start]
    return ids


# Each merge turns two parts into one and pushes at most two entries onto the heap. So there are fewer than $3n$ entries
# in all, and each of them costs $\log n$. Cutting out `word[start:end]` costs the length of the piece, but a piece is
# two tokens long, and tokens are short.


def check_long_words():
    tokens = [*(bytes([value]) for value in range(256)), b"ab", b"aa", b"aba", b"abab", b"aaaa", b"abaaa"]
    ranks = {token: number for number, token in enumerate(tokens)}
    for word in (b"", b"a", b"ba", b"a" * 37, b"ab" * 20, b"abaaabaabaaab" * 9, bytes(range(256))):
        assert encode_long_word(word, ranks) == encode_by_search(word, ranks)


# How much does the heap save? We encode words of three lengths in both ways.


def show_long_words():
    ranks = {token: number for number, token in enumerate([b"a", b"b", b"ab", b"abab"])}
    for size in (200, 800, 3_200):
        print(f"{size:5,d} bytes:", end="")
        for name, encode in (("a list", encode_by_search), ("a heap", encode_long_word)):
            start = time.perf_counter()
            encode(b"ab" * (size // 2), ranks)
            print(f"   {name} {(time.perf_counter() - start) * 1e3:7.1f} ms", end="")
        print()


# If the word is four times as long, the list needs about sixteen times as long, and the heap a little more than four
# times.

__all__ = ["NEVER", "encode_long_word"]
