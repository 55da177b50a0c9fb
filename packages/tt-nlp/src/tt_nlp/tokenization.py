# # Tokenization
#
# At the end of this chapter we have a tokenizer. Trained on a text, it turns any text in any script into a short list
# of integers, and the integers back into exactly that text. It is the tokenizer of GPT-2 and GPT-4.

# ## The hurt
#
# Chapter 10 ended with a text that we cannot multiply, and with a count of its words: the number of different words is
# nearly half the number of all words. What happens if we number them? We number those of the first two thirds of our
# text, the beginning of *Moby-Dick*, and read on.

from __future__ import annotations

import codecs
import heapq
import re
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import regex
from tqdm import tqdm

from tt_data import short_text
from tt_nlp.long_words import NEVER, encode_long_word
from tt_nlp.shows import picture_of_parts
from tt_nlp.text_inputs import (
    Source, entry, one_text, refuse_special, refuse_surrogates, refuse_vocabulary, texts, too_little,
)
from tt_nlp.tokenizer_files import BytePairFiles, Saved, printed
from tt_tensor import measure


# We cut the text in two, as we will do several times in this chapter.


def two_parts() -> tuple[str, str]:
    """The first two thirds of the short text, and the rest."""
    text = short_text()
    return text[:8000], text[8000:]


def show_hurt():
    seen, later = (part.split() for part in two_parts())
    unknown = [word for word in later if word not in set(seen)]
    print(f"{len(set(seen)):,} words have a number; {len(unknown) / len(later):.0%} of the words to come have none")
    print(" | ".join(unknown[:9]))


# Among the unknown words is `then,` with its comma, although we have seen `then`. And there is no end to it: names,
# plurals, typing errors, other languages. A *vocabulary* of words has no room for what we have not seen.

# ## The smallest thing that could work
#
# So let us take letters. A text has few different ones, and we give each a number. Our class inherits the methods
# `save` and `load` from `Saved`, which the appendix `tokenizer_files` explains.


class CharTokenizer(Saved):
    """A tokenizer with a number for each character of an alphabet, in its order. ValueError for an alphabet that is
    empty or has a character twice."""

    kind = "characters"

    def __init__(self, alphabet: Iterable[str]):
        self.alphabet = list(alphabet)
        self.numbers = {character: number for number, character in enumerate(self.alphabet)}
        refuse_surrogates("".join(self.alphabet))
        if not self.alphabet or len(self.numbers) < len(self.alphabet) or {*map(len, self.alphabet)} != {1}:
            raise ValueError(f"an alphabet must be one or more different characters, not {alphabet!r:.60}")

    @classmethod
    def train(cls, text: str) -> CharTokenizer:
        """Return a tokenizer whose alphabet is the characters of a text, sorted."""
        return cls(sorted(set(text)))

    # To encode we look each character up in `numbers`, and we say which one we do not have.

    @property
    def vocab_size(self) -> int:
        return len(self.alphabet)

    def encode(self, text: str) -> list[int]:
        """The numbers of the characters. ValueError, with its position, for a character that is not in the alphabet."""
        try:
            return [self.numbers[character] for character in text]
        except KeyError as error:
            raise ValueError(
                f"{error.args[0]!r}, character {text.index(error.args[0])} of the text, is not in the alphabet of "
                f"{self.vocab_size} characters: train on a text that has it, or use BPETokenizer, which knows all"
            ) from None

    # On the way back a number is an index into the alphabet.

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the numbers. IndexError for a number that no character has."""
        return "".join(self.decode_stream(ids))

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The characters of the numbers, one by one as they come."""
        return (entry(self.alphabet, number) for number in one_text(ids))

    def contents(self) -> dict[str, Any]:
        return {"alphabet": "".join(self.alphabet)}


def check_characters():
    letters = CharTokenizer.train("banana")
    assert letters.encode("nab") == [2, 0, 1] and letters.decode([1, 0, 2]) == "ban" and letters.vocab_size == 3


# We use four helpers from the support module `text_inputs`, which check arguments. `refuse_surrogates(text)`
# rejects anything that is not a text. (Python allows half of a *surrogate pair*, a leftover from UTF-16, in a string,
# where it means nothing and has no bytes.) `one_text(ids)` accepts the ids of one text as a list, an array or a tensor.
# `entry(vocabulary, number)` returns the entry with a number and explains a wrong one. `texts` comes later.
# It runs, but it disappoints twice.


def show_characters():
    text = short_text()
    letters = CharTokenizer.train(text)
    numbers = letters.encode(text)
    print(f"{letters.vocab_size} characters; {len(text.split()):,} words have become {len(numbers):,} numbers")
    try:
        letters.encode("a naïve whale")
    except ValueError as error:
        print(f"ValueError: {error}")


# Our list is several times as long as the text has words, and in chapter 13 we will meet a network whose work grows
# with the square of that length. There are also still characters without a number. Unicode has 150,000 of them, most of
# which our network would never see in its training.

# ## The idea
#
# We need two ideas. P. Gage had the second one in 1994, to compress files.
#
# The first idea is *bytes*. Every text is a sequence of bytes, in UTF-8, and there are only 256 of them. If we take
# bytes as our alphabet, nothing is ever unknown. An `ï` is two bytes, an emoji four.
#
# The second idea is *pairs*. We take the pair of neighbours that occurs most often and give it a number of its own, the
# next free one. We replace the pair by this number everywhere, and repeat. This is *byte pair encoding*, BPE. By hand,
# on the bytes of `banana bandana`:
#
# $$ \texttt{b a n a n a \_ b a n d a n a} \;\xrightarrow{\;\texttt{a n} \to 256\;}\; \texttt{b 256 256 a \_ b 256 d 256
# a} \;\xrightarrow{\;\texttt{b 256} \to 257\;}\; \texttt{257 256 a \_ 257 d 256 a} $$
#
# Frequent sequences become short: after a few such *merges* ` the` is one token, and soon `ing` is another. We put rare
# ones together from parts, in the worst case from single bytes. The size of the vocabulary is a *hyperparameter* that
# we choose: each new token makes texts shorter and the network's tables longer.

Pair = tuple[int, int]
BYTES = [bytes([value]) for value in range(256)]

# ## Words first
#
# Left to itself, the method would learn `. The` and `sea,` as tokens: pairs that are frequent and mean nothing
# together. So GPT-2's authors cut the text into words before anything else, and no token reaches across a cut. A
# regular expression does the cutting, and one detail of it is worth knowing: a word *begins* with its space. `\p{L}`
# matches the letters of all scripts, `\p{N}` the digits.
#
# - `'(?:[sdmt]|ll|ve|re)`: the ends of *it's*, *I'd*, *we'll*;
# - ` ?[\p{L}]+`, ` ?[\p{N}]+`: a word, a number, with the space before it, if there is one;
# - ` ?[^\s\p{L}\p{N}]+`: a run of other characters;
# - `\s+(?!\S)|\s+`: white space; of several spaces before a word the last one is left to the word.
#
# GPT-4's pattern is a little different. It takes at most three digits at a time and ignores case in `'S`. Any character
# may take the place of the space before a word, and line ends go with the punctuation before them. SmolLM's pattern,
# which we will need in chapter 20, is GPT-2's, except that each digit is a word of its own.

PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?[\p{L}]+|[\p{N}]{1,3}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "smollm": r"[\p{N}]|'(?:[sdmt]|ll|ve|re)| ?[\p{L}]+| ?[^\s\p{L}\p{N}]+|\s+(?=[\p{N}])|\s+(?!\S)|\s+",
}  # fmt: skip

# Python's own `re` has no `\p{L}`, so we use the package `regex`. But `re` is faster, and in plain ASCII text we know
# what letters and digits are. A Python string knows whether it is ASCII without looking.


@cache
def _findall(pattern: str, ascii: bool) -> Callable[[str], list[str]]:
    if ascii:
        plain = PATTERNS[pattern].replace(r"\p{L}", "a-zA-Z").replace(r"\p{N}", "0-9")
        return re.compile(plain, re.ASCII).findall
    return regex.compile(PATTERNS[pattern]).findall


def split(text: str, pattern: str = "gpt2") -> list[str]:
    """The words of a text by a pattern of PATTERNS; together they are the text. ValueError for other patterns."""
    if pattern not in PATTERNS:
        raise ValueError(f"pattern is one of {', '.join(map(repr, PATTERNS))}, not {pattern!r}")
    return _findall(pattern, text.isascii())(text)


def check_split():
    assert split("It's 1851,   we'll sail") == ["It", "'s", " 1851", ",", "  ", " we", "'ll", " sail"]
    assert split("It'S 1851\n", "gpt4") == ["It", "'S", " ", "185", "1", "\n"]
    assert split("el niño ")[1] == " niño"


# We do not cut a long text in one go, or the list of its words would take many times the memory of the text. We take it
# in pieces that end before a space which follows a visible character. Both patterns cut there anyway, so the words stay
# the same. (Look at them: in no alternative does a space come after a visible character.)

PIECE = 50_000
_BREAK = re.compile(r"(?<=\S) ")


def pieces(text: str) -> Iterator[str]:
    """The text in pieces of about 50,000 characters whose words, one piece after the other, are those of the text."""
    start = 0
    while start < len(text):
        found = _BREAK.search(text, start + PIECE)
        end = found.start() if found else len(text)
        yield text[start:end]
        start = end


# To learn, it is enough to know each different word once, and how often it occurs. Most of the speed that we will gain
# comes from this step: our megabytes shrink to thousands of words. (`at_special` cuts the text at special tokens, which
# we will explain when we get to them.)


def count_words(texts: Iterable[str], pattern: str = "gpt2", special_tokens: Sequence[str] = ()) -> dict[bytes, int]:
    """How often each word occurs in the texts, special tokens left out, in the order of first occurrence."""
    counts: Counter[str] = Counter()
    for text in texts:
        refuse_surrogates(text)
        for part in at_special(text, special_tokens)[::2]:
            for piece in pieces(part):
                counts.update(split(piece, pattern))
    return {word.encode(): count for word, count in counts.items()}


# ## Learning, slowly
#
# We write the method just as we described it: count all pairs, replace the most frequent, begin again. A word that
# occurs seven times counts seven times. Look out for `a a a` when you write it: the pair `a a` begins at two of its
# positions, and both count. But we can replace only one of the two. We go from left to right and take the left one, so
# `a a a` becomes `aa a`.


def pair_counts(words: Sequence[Sequence[int]], counts: Sequence[int]) -> dict[Pair, int]:  # exercise
    """How often each pair of neighbours occurs in the words, of which number i occurs counts[i] times. No pair reaches
    from one word into the next."""
    found: Counter[Pair] = Counter()
    for word, count in zip(words, counts):
        for pair in zip(word, word[1:]):
            found[pair] += count
    return found


# Replacing builds a new list, so that it never has to move the rest of a long word.


def merged(ids: Sequence[int], pair: Pair, new: int) -> list[int]:  # exercise
    """A new list of the ids, with `new` in place of each occurrence of the pair, taken from left to right."""
    out: list[int] = []
    for number in ids:
        if out and (out[-1], number) == pair:
            out[-1] = new
        else:
            out.append(number)
    return out


def check_pairs():
    assert pair_counts([[1, 2, 1, 2], [1, 2]], [1, 5]) == {(1, 2): 7, (2, 1): 1}
    assert merged([5, 5, 5, 1, 5, 5], (5, 5), 9) == [9, 5, 1, 9]


# If two pairs are equally frequent, we need a rule, or two runs would give two vocabularies. We take the pair with the
# smaller numbers: the smaller first number, and of equal first ones the smaller second. Could two pairs make the same
# token, `a`+`bc` after `ab`+`c`? No: if `ab` was learned before `bc`, no `b` behind an `a` was left for `bc`.
#
# We write it as a generator. It learns a token, yields its bytes, and learns the next one only when the caller asks
# again. So the caller decides when to stop, and pays for no token more. The generator ends by itself when no pair
# occurs twice, because a pair that occurs once says nothing about other texts.


def learn_slowly(words: Mapping[bytes, int]) -> Iterator[bytes]:  # exercise
    """New tokens in the order in which they are learned from words with their counts: the most frequent pair first, of
    equally frequent ones that with the smaller numbers. Learns a token when it is asked for one."""
    tokens, ids, counts = [*BYTES], [list(word) for word in words], list(words.values())
    while found := pair_counts(ids, counts):
        pair = min(found, key=lambda pair: (-found[pair], pair))
        if found[pair] < 2:
            return
        ids = [merged(word, pair, len(tokens)) for word in ids]
        tokens.append(tokens[pair[0]] + tokens[pair[1]])
        yield tokens[-1]


# Now be the algorithm yourself, with a pencil, before you let it run. The words are `aaab`, which occurs twice, and
# `bab`, which occurs once. Which tokens are learned, and in which order? Count again after each merge: some pairs are
# gone, and new ones have come.


def predict_tokens() -> list[bytes]:  # exercise
    """Your prediction: all tokens that `learn_slowly({b"aaab": 2, b"bab": 1})` yields until it ends by itself, in their
    order, as a list of bytes."""
    return b"aa ab aaab".split()


def show_tokens_as_they_are_learned():
    learned = list(islice(learn_slowly(count_words([short_text()])), 750))
    for start in (0, 30, 180, 740):
        print(f"from {256 + start}:", " ".join(map(printed, learned[start : start + 10])))


# (`Ġ` represents a space. OpenAI prints it like that, and the appendix explains why.) Pairs of letters come first, with
# ` the` already among them; then syllables and short words with their space; and finally longer words, many of which
# occur only twice in our text. We never told the method what a word is made of. Let us look at the time.


def show_slow():
    words = count_words([short_text()])
    start = time.perf_counter()
    list(islice(learn_slowly(words), 100))
    a_merge = (time.perf_counter() - start) / 100
    hours = a_merge * 1e6 / len(words) * 50_000 / 3600
    print(f"{sum(map(len, words)):,} bytes in {len(words):,} words: {a_merge * 1e3:.1f} ms a merge")
    print(f"GPT-2 has 50,000 merges; on a million words they would take about {hours:.0f} hours")


# Each merge looks at every byte, and more text brings more words *and* is worth more merges, so the cost is quadratic.
# Nearly all of this work is wasted, because a merge changes only the positions where its pair is.

# ## Learning, quickly
#
# So let us remember where each pair is. We put all words into one chain, with a number for each position and an `END`
# after each word. When we merge a pair, its left position takes the new number, and we cut its right position out of
# the chain. That is why we need `before` and `after`, the neighbours of each position.

END, GONE = -1, -2
Places = defaultdict[int, list[int]]


class Corpus:
    """Words as one chain of tokens. `tokens`, `before`, `after` and `weight` have one element for each position: its
    token, the positions beside it, how often its word occurs. `counts` and `places` have one entry for each pair that
    occurs at least twice: how often it occurs, and the positions where it has begun, some of which may be out of date.
    The count of a pair falls when merges use up its positions. Then its entry may stay, with the new count, but no
    count is ever negative."""

    def __init__(self, words: Mapping[bytes, int]):
        self.tokens: list[int] = []
        self.weight: list[int] = []
        for word, count in words.items():
            self.tokens += [*word, END]
            self.weight += [count] * (len(word) + 1)
        numbers = list(range(-1, len(self.tokens) + 1))
        self.before, self.after = numbers[:-2], numbers[2:]
        self._find_pairs(numbers[1:])

    # At the beginning we read the chain once to find where each pair is. A pair that reaches across an `END` or that
    # occurs only once gets no entry.

    def _find_pairs(self, numbers: list[int]) -> None:
        self.places: dict[Pair, list[int]] = defaultdict(list)
        for place, pair in zip(numbers, pairwise(self.tokens)):
            self.places[pair].append(place)
        self.counts: dict[Pair, int] = defaultdict(int)
        for pair, places in [*self.places.items()]:
            count = sum(map(self.weight.__getitem__, places))
            if END in pair or count < 2:
                del self.places[pair]
            else:
                self.counts[pair] = count

    # A merge has two halves. The first, `replace`, changes the chain and collects the neighbours of each merged
    # position.

    def replace(self, pair: Pair, new: int) -> tuple[Places, Places]:  # exercise
        """Put `new` in place of the pair in the chain, everywhere and from left to right: its left place gets `new`,
        its right place GONE. The entry of the pair in `places` goes; `counts` stays as it is. Returns two dictionaries
        from tokens (END is one, too) to lists of places in order: the places to the left of the merged ones, by the
        token there, and the merged places, by the token to the right of them; each as it was at its merge."""
        tokens, before, after, (a, b) = self.tokens, self.before, self.after, pair
        left: Places = defaultdict(list)
        right: Places = defaultdict(list)
        for i in self.places.pop(pair):
            j = after[i]
            if tokens[i] == a and tokens[j] == b:  # otherwise it has been merged into another pair
                h, k = before[i], after[j]
                tokens[i], tokens[j] = new, GONE
                after[i], before[k] = k, i
                left[tokens[h]].append(h)
                right[tokens[k]].append(i)
        return left, right

    # The second half, `merge`, corrects the counts. In `x a b y` three pairs disappear and two are formed. We have
    # collected the positions by their neighbours, so we correct the counts once for each `y` and once for each `x`. The
    # pair `b y` loses the weight of all merged positions with a `y` to their right, and `new y` gets just that weight
    # and those positions. The left side is the mirror image. The weight of a position is how often its word occurs. No
    # pair has an END in it. We forget a pair that occurs once, here as in the beginning: it gets no entry, and where
    # there is no entry, no count can fall.
    #
    # Why do we begin with the right side? In `abab` the merge of the first `ab` forms a pair with the `a` behind it,
    # and the merge of the second `ab` takes that pair away again. Its count must exist before it falls to 0.

    def merge(self, pair: Pair, new: int) -> set[Pair]:  # exercise
        """Replace the pair by `new`, and put `counts` and `places` right. Returns the pairs that were formed and
        counted; a pair whose places have a weight of 1 together gets no entry, a forgotten one stays forgotten."""
        left, right = self.replace(pair, new)
        changes = [((pair[1], y), (new, y), at) for y, at in right.items() if y != END]
        changes += [((x, pair[0]), (x, new), at) for x, at in left.items() if x != END]
        weight_at, found = self.weight.__getitem__, set()
        for old, formed, at in changes:
            weight = sum(map(weight_at, at))
            if old in self.counts:
                self.counts[old] -= weight
            if weight > 1:
                self.counts[formed], self.places[formed] = weight, at
                found.add(formed)
        del self.counts[pair]
        return found


# Look at one merge in the chain. Above you see two words before it, below the same chain after `a n` has become 256.
# The left position of each pair holds the new token, and the links skip the right one.


def show_merge():
    """The chain of two words before and after a merge: the left position holds 256, the links skip the right one."""
    import matplotlib.pyplot as plt

    corpus = Corpus({b"banana": 1, b"bandana": 1})
    figure, axes = plt.subplots(2, 1, figsize=(8, 3), layout="constrained")
    for axis, title in zip(axes, ("before the merge", "after it: `a n` is token 256")):
        for place, token in enumerate(corpus.tokens):
            name = {END: "END", GONE: ""}.get(token, chr(token) if 0 <= token < 256 else str(token))
            axis.text(place, 0, name, ha="center", va="center", color="C1" if token == 256 else None)
            if token != GONE and (after := corpus.after[place]) < len(corpus.tokens):
                link = {"arrowstyle": "->", "color": "gray", "connectionstyle": "arc3,rad=-0.5"}
                axis.annotate("", (after, 0.3), (place, 0.3), arrowprops=link)
        axis.set(xlim=(-1, len(corpus.tokens)), ylim=(-0.4, 1.2))
        axis.set_title(title, loc="left", fontsize=9)
        axis.axis("off")
        if axis is axes[0]:
            corpus.replace((97, 110), 256)
    return figure


# We do not keep the lists of positions tidy. When we visit a position that is out of date, we recognize it, because the
# tokens there are no longer those of the pair. But the lists are in order: a pair is formed during one merge only, that
# of the newer of its two tokens, which goes from left to right. After that its count can only fall. So we can forget a
# pair that occurs once, and most pairs do.
#
# (The pair that `abab` forms and takes away again may be among those that `merge` returns, with its count of 0. And
# before the first position comes position $-1$. Python takes that for the last one, which is an `END`, as it should be.
# All lists share one list of `numbers`, because integers that Python creates in a row are adjacent in memory, where the
# processor finds them sooner.)


def check_a_merge():
    corpus = Corpus({b"abab": 3, b"b": 9})
    assert corpus.counts == {(97, 98): 6, (98, 97): 3}
    formed = corpus.merge((97, 98), 256)
    assert {pair for pair in formed if corpus.counts[pair]} == {(256, 256)} and corpus.counts[256, 256] == 3
    assert corpus.tokens == [256, GONE, 256, GONE, END, 98, END]


# We still need to find the most frequent pair. A *heap* gives us the smallest of many entries quickly and takes new
# ones quickly, but it cannot change an entry. We do not ask it to. We push each pair with its count when it is formed,
# and from then on the count can only fall. So when an entry comes out, we compare it with the current count, and if it
# is too high, we push it back with the right one.


def learn(words: Mapping[bytes, int]) -> Iterator[bytes]:  # exercise
    """Yield what `learn_slowly` yields, sooner. Like that, it merges a pair only when it is asked for a token."""
    corpus, tokens = Corpus(words), [*BYTES]
    heap = [(-count, pair) for pair, count in corpus.counts.items()]
    heapq.heapify(heap)
    while heap:
        minus, pair = heapq.heappop(heap)
        count = corpus.counts.get(pair, 0)
        if count == -minus:
            for formed in corpus.merge(pair, len(tokens)):
                if (often := corpus.counts[formed]) > 1:
                    heapq.heappush(heap, (-often, formed))
            tokens.append(b"".join(tokens[part] for part in pair))
            yield tokens[-1]
        elif count > 1:
            heapq.heappush(heap, (-count, pair))


# Both trainers must learn the same tokens in the same order. How much faster is the new one?


def check_learn_is_learn_slowly():
    words = count_words(["banana bandana", "a man a plan a canal", "aaaaaaaa aaaaa aaa"])
    assert list(learn(words)) == list(learn_slowly(words))


def show_quick():
    words = count_words([short_text()])
    for count in (100, 400):
        start = time.perf_counter()
        list(islice(learn_slowly(words), count))
        slow = time.perf_counter() - start
        quick = measure(lambda: list(islice(learn(words), count))).seconds
        print(f"{count} merges: slowly {slow * 1e3:.0f} ms, quickly {quick * 1e3:.0f} ms")


# In the slow version the later merges are hardly cheaper than the first ones. In the quick one they are, because the
# frequent pairs come first, and the later a pair, the fewer its positions.

# ## A word
#
# A vocabulary is the list of its tokens, and a token's number is its index in the list. How does a new word get its
# tokens? In the same way in which we learned them: of all pairs of neighbours that form a token, we first merge the one
# that was learned *first*, wherever it is. That is neither the leftmost pair nor the longest token.
#
# We leave the word as it is and only remove cuts between its parts. For each part we also keep the number of the
# token that it would form with its successor, or `NEVER`, larger than any token's number, if the two form no token.


def encode_word(word: bytes, ranks: Mapping[bytes, int]) -> list[int]:  # exercise
    """The numbers of a word's tokens. `ranks` has the number of each token; all single bytes are among them. Of all
    neighbours that make a token together, those whose token has the smallest number are merged first, of several such
    the leftmost, until no neighbours make a token."""
    get, never = ranks.get, NEVER
    cuts = list(range(len(word) + 1))
    rank = [get(word[i : i + 2], never) for i in cuts[:-2]]
    while rank and (lowest := min(rank)) < never:
        i = rank.index(lowest)
        del cuts[i + 1], rank[i]
        if i < len(rank):
            rank[i] = get(word[cuts[i] : cuts[i + 2]], never)
        if i:
            rank[i - 1] = get(word[cuts[i - 1] : cuts[i + 1]], never)
    return [ranks[word[i:j]] for i, j in pairwise(cuts)]


# The check shows that neither the leftmost pair nor the longest token wins.


def check_encode_word():
    ranks = {token: number for number, token in enumerate([*BYTES, b"na", b"an", b"ban", b"ana"])}
    assert encode_word(b"banana", ranks) == [98, 259, 256]


# Here `n a` was learned before `a n`. So we get from `b a n a n a` to `b a na na`, then to `b ana na`. There it ends:
# `ban` and `an` never had a chance.
#
# For a word of a dozen bytes, nothing is quicker than searching a short list for its minimum. For a word of a megabyte
# it would take hours. You will meet such words: a line of base64, a minified program. We leave them to
# `encode_long_word`, in the appendix `long_words`, which has a heap instead of the list.
#
# A text uses the same words again and again. So we encode each word once and then look it up, in a *cache*. Python's
# dictionaries call `__missing__` for a key that is not there, and return its answer. The method may also write the
# answer into the dictionary, so that it is not called for this key again. Two limits keep our cache from growing
# forever. We do not remember words of more than `LONG` bytes, and we clear a cache of `REMEMBERED` words before we
# write the next one.
#
# OpenAI's tokenizer takes a short cut, and so do we: a word that is a token is that token. With a learned vocabulary,
# merging gives the same result.

LONG, REMEMBERED = 64, 2**16


class WordCache(dict[str, tuple[int, ...]]):
    """The tokens of each word, found when they are asked for the first time."""

    def __init__(self, ranks: dict[bytes, int]):
        self.ranks = ranks

    def __missing__(self, word: str) -> tuple[int, ...]:  # exercise
        """The tokens of a word that is not in the cache, as a tuple: its own number if the whole word is a token, else
        what `encode_word` finds, or for more than LONG bytes `encode_long_word`, which takes the same arguments. Words
        of at most LONG bytes are remembered; if there are REMEMBERED of them already, all are forgotten first."""
        data = word.encode()
        if data in self.ranks:
            ids: tuple[int, ...] = (self.ranks[data],)
        else:
            encode = encode_word if len(data) <= LONG else encode_long_word
            ids = tuple(encode(data, self.ranks))
        if len(data) <= LONG:
            if len(self) >= REMEMBERED:
                self.clear()
            self[word] = ids
        return ids


# ## Back to text
#
# The way back is easy, but you can fall into one trap. A token is a sequence of *bytes* and need not be a whole
# character. An emoji that the training has not seen is four tokens of a byte each, none of which means anything alone.
# If we decode bytes that are not UTF-8, we get `\ufffd`, the replacement character.


def show_broken_characters():
    tokens = [bytes([byte]) for byte in "😀 hi".encode()]
    print("token by token:", "".join(token.decode(errors="replace") for token in tokens))
    print("bytes first:   ", b"".join(tokens).decode(errors="replace"))


# So we join the bytes first and then decode them. But a language model yields one token at a time, and we want to see
# its words as it writes. Then the bytes of an unfinished character must wait for their rest. Python's module `codecs`
# has a decoder that remembers them.


class Vocabulary:
    """Tokens and the way from their numbers to text: `tokens`, in the order of their numbers, then `special_tokens`.
    ValueError for tokens that lack a single byte, and for one that is there twice."""

    def __init__(self, tokens: Sequence[bytes], special_tokens: Sequence[str] = ()):
        if isinstance(special_tokens, str | bytes | Mapping):
            raise TypeError(
                f"special_tokens is a list of texts, whose numbers follow those of the tokens, not {special_tokens!r}"
            )
        self.tokens, special_tokens = list(tokens), list(special_tokens)
        refuse_vocabulary(self.tokens, special_tokens)
        self.ranks = {token: number for number, token in enumerate(self.tokens)}
        self.special_tokens = {name: number for number, name in enumerate(special_tokens, start=len(self.tokens))}
        self._all = [*self.tokens, *(name.encode() for name in special_tokens)]

    # From a number we get the bytes of its token, from many numbers the bytes of a text, and from these the text.

    @property
    def vocab_size(self) -> int:
        """The number of tokens, including the special ones."""
        return len(self._all)

    def token_bytes(self, number: int) -> bytes:
        """The bytes of a token. IndexError for a number that no token has, TypeError for one that is not an integer."""
        return entry(self._all, number)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the tokens, one after the other. `ids` may be a list, an array, a tensor."""
        return b"".join(map(self.token_bytes, one_text(ids)))

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text of the tokens. Bytes that are not UTF-8 become U+FFFD; with errors="strict" they raise a
        UnicodeDecodeError, which is a ValueError."""
        return self.decode_bytes(ids).decode("utf-8", errors)

    # A stream yields only characters that are complete.

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:  # exercise
        """The text of the tokens, piece by piece as they come; whole characters only, and no empty piece. A token is
        taken only when all text of those before it has been asked for. Bytes that are not UTF-8 become U+FFFD, also
        those of a character that is unfinished at the end. IndexError for a number that no token has."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for number in one_text(ids):
            if text := decoder.decode(self.token_bytes(number)):
                yield text
        if rest := decoder.decode(b"", final=True):
            yield rest


def check_a_stream_has_whole_characters():
    ids = list("é😀!".encode())
    assert list(Vocabulary(BYTES).decode_stream(ids)) == ["é", "😀", "!"]
    assert list(Vocabulary(BYTES).decode_stream(ids[:4])) == ["é", "\ufffd"]


# ## Special tokens
#
# A model must know where a document ends. For that we have tokens outside of all text, such as `<|endoftext|>`, which
# get the last numbers. If we encoded that as a word like any other, a user who can type it into a chat could end the
# document there. So our tokenizer asks first, as OpenAI's does. By default, a special token in a text is an error. If
# you *allow* it, it becomes its number; if you list it as not *disallowed*, it is text like any other.


def at_special(text: str, names: Iterable[str]) -> list[str]:
    """The text cut at special tokens: ordinary text, special token, ordinary text, ..., beginning and ending with
    ordinary text, which may be empty. Where one special token begins with another, the longer one counts."""
    either = "|".join(map(re.escape, sorted(names, key=lambda name: (-len(name), name))))
    return re.split(f"({either})", text) if either else [text]


def check_at_special():
    assert at_special("a<|end|>b<|end|>", ["<|end|>"]) == ["a", "<|end|>", "b", "<|end|>", ""]
    assert at_special("a<|end|>b", []) == ["a<|end|>b"]


# ## The tokenizer
#
# Now we put it together. An encoder is a vocabulary with a pattern and a cache of words, `_words`. `encode_ordinary`
# knows no special tokens: it takes a text `pieces` by piece, as `count_words` does, cuts each into words, and looks the
# words up. `encode` asks what to do with special tokens, cuts the text `at_special`, and leaves the rest to
# `encode_ordinary`.


class Encoder(Vocabulary):
    """A vocabulary that encodes texts. The pattern, a name in PATTERNS, cuts them into words."""

    def __init__(self, tokens: Sequence[bytes], special_tokens: Sequence[str] = (), pattern: str = "gpt2"):
        super().__init__(tokens, special_tokens)
        split("", pattern)
        self.pattern = pattern
        self._words = WordCache(self.ranks)

    # Without special tokens, encoding has three levels: a text has pieces, a piece has words, a word has tokens.

    def encode_ordinary(self, text: str) -> list[int]:  # exercise
        """The tokens of a text; what looks like a special token is text. `refuse_surrogates` raises TypeError for
        anything that is not a text, and ValueError for half a character."""
        refuse_surrogates(text)
        ids: list[int] = []
        for piece in pieces(text):
            ids.extend(chain.from_iterable(map(self._words.__getitem__, split(piece, self.pattern))))
        return ids

    # With special tokens we first settle which of them may act as one in this text, and which are an error.

    def encode(  # exercise (starred)
        self, text: str, *, allowed_special: str | Iterable[str] = (), disallowed_special: str | Iterable[str] = "all"
    ) -> list[int]:
        """The tokens of a text. Special tokens in allowed_special, where "all" are all there are, become their numbers.
        Texts in disallowed_special, where "all" are all special tokens that are not allowed, are a ValueError; others
        are text. An allowed one that the tokenizer does not know is a ValueError, too. Checks its arguments with
        `refuse_surrogates` and `refuse_special`."""
        refuse_surrogates(text)
        refuse_special(allowed_special, disallowed_special)
        known = self.special_tokens.keys()
        allowed = set(known if allowed_special == "all" else allowed_special)
        refused = known - allowed if disallowed_special == "all" else set(disallowed_special)
        if unknown := allowed - known:
            raise ValueError(f"{sorted(unknown)} are not special tokens of this tokenizer, which has {list(known)}")
        if name := next((name for name in sorted(refused) if name in text), None):
            raise ValueError(
                f"the text has the special token {name!r}; if it may act as one, give allowed_special={{{name!r}}}, if "
                "it is only text, give disallowed_special=()"
            )
        ids: list[int] = []
        for i, part in enumerate(at_special(text, allowed)):
            ids += [self.special_tokens[part]] if i % 2 else self.encode_ordinary(part)
        return ids

    # A batch is a list of texts.

    def encode_batch(self, texts: Iterable[str], **special: Any) -> list[list[int]]:
        """The tokens of each text, with the arguments of `encode`."""
        if isinstance(texts, str):
            raise TypeError("a batch is a list of texts; for a single one there is `encode`")
        return [self.encode(text, **special) for text in texts]


def check_special_tokens_have_to_be_allowed():
    encoder = Encoder(BYTES, ["<|end|>"])
    assert encoder.encode("a<|end|>", allowed_special="all") == [97, 256]
    assert encoder.encode("<|end|>", disallowed_special=()) == list(b"<|end|>")


# The trainer accepts a text, a file, or any number of them. A `str` is a text, a `Path` is a file, and `texts`, from
# `text_inputs`, reads each when its turn comes.


class BPETokenizer(Encoder, BytePairFiles):
    """A byte-level BPE tokenizer: its tokens in the order in which they were learned, including all single bytes, and
    the name in PATTERNS of the pattern that cuts a text into words. `special_tokens` get the numbers after the last
    token."""

    patterns = PATTERNS

    # Training counts the words, learns merges until there are enough, and warns if the text has too few.

    @classmethod
    def train(
        cls, source: Source, vocab_size: int, special_tokens: Sequence[str] = (), pattern: str = "gpt2",
        progress: bool | None = None, strict: bool = False,
    ) -> BPETokenizer:
        """Learn `vocab_size` tokens, including the bytes and the special ones, from a text, a file (a Path) or an
        iterable of them. A text that has fewer pairs gives fewer tokens, with a warning; with strict it is a
        ValueError. progress: show a bar; None shows it in a terminal. ValueError for a size that is too small for the
        bytes."""
        wanted = cls._wanted(vocab_size, special_tokens, pattern)
        hidden = None if progress is None else not progress
        found = tqdm(texts(source), "counting words", unit=" texts", disable=hidden)
        words = count_words(found, pattern, special_tokens)
        if not words:
            raise ValueError("there is nothing to learn from: the text is empty")
        if strict and (most := sum(len(word) - 1 for word in words)) < wanted:  # a merge makes a word shorter
            raise ValueError(too_little(source, vocab_size, f"at most {vocab_size - wanted + most}"))
        tokens = [*BYTES, *tqdm(islice(learn(words), wanted), "merging", wanted, disable=hidden)]
        if (missing := 256 + wanted - len(tokens)) > 0:
            message = too_little(source, vocab_size, str(vocab_size - missing))
            if strict:
                raise ValueError(message)
            warnings.warn(message, stacklevel=2)
        return cls(tokens, special_tokens, pattern)

    # We reject an impossible size, pattern or special token before we spend hours on the text.

    @classmethod
    def _wanted(cls, vocab_size: int, special_tokens: Sequence[str], pattern: str) -> int:
        if isinstance(vocab_size, bool) or not isinstance(vocab_size, int | np.integer):
            raise TypeError(f"vocab_size is an integer, not {vocab_size!r}")
        least = cls(BYTES, special_tokens, pattern).vocab_size
        if vocab_size < least:
            raise ValueError(
                f"vocab_size is {vocab_size}; 256 bytes and {least - 256} special tokens need {least} or more"
            )
        return vocab_size - least


# The tokenizer inherits the rest from `BytePairFiles`, in the appendix `tokenizer_files`: `save` and `load`,
# `from_gpt2` for the files that OpenAI published with GPT-2, and `to_tiktoken`.


def check_round_trip():
    tokenizer = BPETokenizer.train(short_text(), 400, ["<|endoftext|>"])
    for text in ("", "Call me Ishmael.", "naïve café, Привет, 你好, 😀", "\0\r\n  \t x"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("sea<|endoftext|>", allowed_special="all")[-1] == tokenizer.vocab_size - 1


# We train two vocabularies on the first two thirds of our text and let them encode the beginning of the rest. Each
# token has a colour, so you can see where they cut.


def show_tokens_in_colour():
    """A sentence cut by two vocabularies, with a colour for each token: those of 800 tokens are longer than of 300."""
    seen, later = two_parts()
    text, rows = " ".join(later.split())[:230], {}
    for size in (300, 800):
        tokenizer = BPETokenizer.train(seen, size)
        parts = list(tokenizer.decode_stream(tokenizer.encode(text)))
        rows[f"{size} tokens in the vocabulary: {len(text)} characters are {len(parts)} tokens"] = parts
    return picture_of_parts(rows)


# ## The witness
#
# We can apply what we learned in two ways. Again and again, our encoder looks for the pair of the word that was learned
# first. We could also go through the vocabulary: apply merge 256 wherever it is possible, then 257, then all others, as
# in the training. That is slow, but so simple that it is hard to get wrong. Both must find the same tokens.


def encode_in_order(word: bytes, tokens: Sequence[bytes]) -> list[int]:
    """The tokens of a word, by trying each token of the vocabulary in the order in which they were learned."""
    parts = [word[i : i + 1] for i in range(len(word))]
    for token in tokens[256:]:
        i = 0
        while i < len(parts) - 1:
            if parts[i] + parts[i + 1] == token:
                parts[i : i + 2] = [token]
            i += 1
    return [tokens.index(part) for part in parts]


def check_encoding_against_trying_all():
    seen, later = two_parts()
    tokenizer = BPETokenizer.train(seen, 400)
    for word in sorted(set(split(later)))[::7]:
        assert tokenizer.encode(word) == encode_in_order(word.encode(), tokenizer.tokens)


# The tests have stronger witnesses, where they are installed: `tiktoken`, which is OpenAI's own, and the `tokenizers`
# of Hugging Face. On two novels, on source code, on texts in many scripts and on random Unicode our numbers are the
# same, with our vocabularies and with GPT-2's own.

# ## The cost
#
# We pay for a vocabulary to make texts short. How much do we get for how many tokens? We measure the compression with
# `truncated`, one of the exercises below, which returns the tokenizer as it was when it had learned fewer tokens.


def bytes_per_token(tokenizer: BPETokenizer, text: str) -> float:
    """The bytes of a text in UTF-8 divided by the number of its tokens. ValueError for an empty text."""
    if not text:
        raise ValueError("an empty text has no tokens to divide by")
    return len(text.encode()) / len(tokenizer.encode_ordinary(text))


# We measure it on the text that the tokenizer was trained on, and on the text that follows.


def show_growth_against_compression():
    """Bytes a token over the size of the vocabulary: steep at first, then flatter, most of all on unseen text."""
    import matplotlib.pyplot as plt

    seen, later = two_parts()
    tokenizer = BPETokenizer.train(seen, 800)
    sizes = [256, 300, 350, 400, 500, 600, 700, 800]
    figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for name, text in (("the text that was learned from", seen), ("the text that follows", later)):
        axis.plot(sizes, [bytes_per_token(truncated(tokenizer, size), text) for size in sizes], "o-", label=name)
    axis.set(xscale="log", xlabel="tokens in the vocabulary", ylabel="bytes a token", xticks=sizes, xticklabels=sizes)
    axis.minorticks_off()
    axis.legend(frameon=False)
    return figure


# The first tokens bring most, and later ones less. And the two curves part, because our vocabulary *overfits*: many of
# the hundreds of tokens that it memorized from eight kilobytes never occur again. GPT-2's 50,257 were learned from a
# sample of 40 gigabytes.
#
# Now we look at the time. The slow trainer visits every token of every word once a merge, so $M$ merges on $n$ tokens
# cost about $M n$ steps, and fewer the shorter the words have become. The quick one pays for the positions where it
# merges. Each merge at one position makes the corpus shorter by one token, so all merges together have fewer than $n$
# positions, however many there are.


def show_cost():
    words = count_words([short_text()])
    size = sum(map(len, words))
    for count in (50, 200, 800):
        corpus, found = Corpus(words), learn(words)
        tokens = [*BYTES, *islice(found, count)]
        ranks = {token: number for number, token in enumerate(tokens)}
        left = sum(len(encode_word(word, ranks)) for word in words)
        start = time.perf_counter()
        list(islice(learn(words), count))
        seconds = time.perf_counter() - start
        print(
            f"{count:3d} merges: slow formula {count * size:9,d} steps, quick {size - left:6,d} places "
            f"of {len(corpus.tokens) - len(words):,}; quick takes {seconds * 1e3:5.1f} ms"
        )


# To encode, we pay for the splitting, then one look into the dictionary for each word, and the merging only for new
# words. Here we encode the same text for the first and for the second time.


def show_encoding():
    text = short_text() * 20
    tokenizer = BPETokenizer.train(short_text(), 800)
    ids = tokenizer.encode(text)
    steps = (
        ("split", lambda: split(text)),
        ("first time", lambda: BPETokenizer(tokenizer.tokens).encode(short_text())),
        ("again", lambda: tokenizer.encode(text)),
        ("decode", lambda: tokenizer.decode(ids)),
    )
    for name, step in steps:
        size = len((short_text() if name == "first time" else text).encode())
        print(f"{name:10s} {measure(step).seconds / size * 1e9:6.1f} ms a megabyte")


# ## Errors you will meet


def show_errors():
    tokenizer = BPETokenizer.train(short_text(), 300, ["<|endoftext|>"])
    attempts = (
        lambda: BPETokenizer.train(short_text(), 200),
        lambda: BPETokenizer.train(short_text(), 50_257, strict=True),
        lambda: BPETokenizer.train("", 300),
        lambda: tokenizer.encode("The end.<|endoftext|>"),
        lambda: tokenizer.encode("The end.", allowed_special={"<|pad|>"}),
        lambda: tokenizer.encode("\ud83d is half an emoji"),
        lambda: tokenizer.decode([72, 105, 300]),
        lambda: CharTokenizer.load(__file__),
    )
    for attempt in attempts:
        try:
            attempt()
        except (ValueError, IndexError) as error:
            print(f"{type(error).__name__}: {error}".replace(str(Path(__file__).parent), "..."))


# ## Exercises
#
# Besides the exercises in the text:
#
# 1. `truncated` (starred): a tokenizer as it was when it had learned fewer tokens. What happens to the numbers of the
#    special tokens?
# 2. Train on this file instead of on *Moby-Dick*, once with each pattern. Which of them gives you more bytes a token,
#    and which tokens does the other not have? Look at what the patterns do with four spaces before a word.
# 3. Let the training count each word once, however often it occurs. What changes in the first hundred tokens?


def truncated(tokenizer: BPETokenizer, vocab_size: int) -> BPETokenizer:  # exercise (starred)
    """The tokenizer with the first tokens only, so many that with the special ones they are vocab_size. ValueError for
    fewer than the bytes and the special tokens, or for more than there are."""
    special = list(tokenizer.special_tokens)
    if not 256 + len(special) <= vocab_size <= tokenizer.vocab_size:
        raise ValueError(
            f"vocab_size is {vocab_size}, but the tokenizer has {tokenizer.vocab_size}, of which the 256 bytes and "
            f"{special} must stay"
        )
    return BPETokenizer(tokenizer.tokens[: vocab_size - len(special)], special, tokenizer.pattern)


def check_exercises():
    tokenizer = BPETokenizer.train("low lower lowest low", 260, ["<|end|>"])
    assert bytes_per_token(BPETokenizer(BYTES), "naïve") == 1 and bytes_per_token(tokenizer, "low low") > 2
    assert truncated(tokenizer, 258).tokens == tokenizer.tokens[:257]
    assert truncated(tokenizer, 258).special_tokens == {"<|end|>": 257}


# ## A road not taken
#
# Where do we begin: at letters, and join, or at words, and take away? *Unigram* (T. Kudo, 2018), in SentencePiece,
# begins with far too many tokens, gives each a probability, and drops those that it needs least. You can then encode a
# text in several ways, which is useful in training. *WordPiece*, of BERT, joins like BPE, but takes the pair whose
# parts occur least without each other. SentencePiece need not cut into words first, nor have spaces to cut at, which
# helps Japanese and Thai. Other models work on bytes alone. They have no tokenizer and pay with texts four times as
# long. We follow GPT because its vocabulary and its tokenizer are public, so that you can compare every number here.
#
# OpenAI's `tiktoken` and Hugging Face's `tokenizers` are written in Rust. Ours is Python, and what keeps it near them
# is not the language: we have seen most words before.

# ## What hurts next
#
# A text is a list of numbers now. What do the numbers mean?


def show_meaning():
    tokenizer = BPETokenizer.train(short_text(), 900)
    for word in (" water", " ship", " sea"):
        number = tokenizer.encode(word)[0]
        near = [printed(tokenizer.tokens[n]) for n in range(number - 3, number + 4)]
        print(f"{printed(word.encode())} is {tokenizer.encode(word)}; {number - 3} to {number + 3}:", " ".join(near))


# They mean how early a token was learned, and nothing else: token 17 is no nearer to 18 than to 900. Yet numbers are
# all that our network sees, and to the network 18 is nearly the same as 17. We would like *sea* to be near *water*. How
# each token gets a place of its own, and how words with similar meanings get places near each other, is the subject of
# chapter 12, *Embeddings*.

__all__ = [
    "BPETokenizer", "BYTES", "CharTokenizer", "Corpus", "END", "Encoder", "GONE", "PATTERNS", "Vocabulary", "WordCache",
    "at_special", "bytes_per_token", "count_words", "encode_word", "learn", "learn_slowly", "merged", "pair_counts",
    "pieces", "predict_tokens", "split", "truncated",
]
