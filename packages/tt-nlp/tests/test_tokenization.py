"""Chapter 11, judged by its public names."""

import random
from itertools import islice

import pytest

import tt_nlp as tn
from tt_tensor.teaching import expect

CHARACTERS, SLOWLY, QUICKLY = "The smallest thing that could work", "Learning, slowly", "Learning, quickly"
WORD, BACK, SPECIAL = "A word", "Back to text", "Special tokens"
TOKENIZER, EXERCISES = "The tokenizer", "Exercises"
BYTES = [bytes([value]) for value in range(256)]
EARLIEST = "Apply the earliest-learned merge first: the pair whose token has the smallest number, wherever it stands."
JOIN = "Join the bytes of all tokens first, then decode: a character may be spread over several tokens."
LAZY = "Learn one token, yield it, and go on only when the next one is asked for: the caller decides when it is enough."
OVERLAP = "Of `a a a` only the left pair is replaced: go from left to right, and a token is used once."
WEIGHT = "A word that occurs seven times counts seven times."
END = "<|end|>"


def ranks(*tokens):
    """The numbers of the bytes and of these tokens."""
    return {token: number for number, token in enumerate([*BYTES, *tokens])}


def tokenizer(*tokens, special=(END,)):
    return tn.BPETokenizer([*BYTES, *tokens], special)


# Characters


def test_characters_become_numbers():
    letters = tn.CharTokenizer("abn é")
    expect(
        'CharTokenizer("abn é").encode("é banana")',
        lambda: letters.encode("é banana"),
        [4, 3, 1, 0, 2, 0, 2, 0],
        "A character's number is its place in the alphabet.",
        see=CHARACTERS,
    )
    expect('CharTokenizer("abn é").encode("")', lambda: letters.encode(""), [], see=CHARACTERS)


def test_an_unknown_character_is_refused():
    def said():
        try:
            return tn.CharTokenizer("abn").encode("band")
        except ValueError as error:
            return "d" in str(error) and "3" in str(error)

    expect('CharTokenizer("abn").encode("z")', lambda: tn.CharTokenizer("abn").encode("z"), ValueError,
           (KeyError, "A KeyError says little: catch it, and raise a ValueError that names character and place."),
           see=CHARACTERS)  # fmt: skip
    expect(
        'whether the message of CharTokenizer("abn").encode("band") names the character d and its place, 3',
        said,
        True,
        "Name the character and its place in the text, so that it can be found.",
        see=CHARACTERS,
    )


# Learning, slowly


def test_pairs_are_counted():
    expect(
        "pair_counts([[1, 2, 1, 2]], [1])",
        lambda: dict(tn.tokenization.pair_counts([[1, 2, 1, 2]], [1])),
        {(1, 2): 2, (2, 1): 1},
        "A pair is two neighbours: 1 2, 2 1, 1 2.",
        see=SLOWLY,
    )
    expect(
        "pair_counts([[1, 2], [1, 2, 3]], [7, 2])",
        lambda: dict(tn.tokenization.pair_counts([[1, 2], [1, 2, 3]], [7, 2])),
        {(1, 2): 9, (2, 3): 2},
        ({(1, 2): 2, (2, 3): 1}, WEIGHT),
        (lambda got: len(got) > 2, "No pair reaches from one word into the next."),
        WEIGHT,
        see=SLOWLY,
    )
    expect(
        "pair_counts([[], [5], [6, 6, 6]], [3, 3, 3])",
        lambda: dict(tn.tokenization.pair_counts([[], [5], [6, 6, 6]], [3, 3, 3])),
        {(6, 6): 6},
        "In 6 6 6 the pair 6 6 begins at two places, and both count; a word of one token has no pair.",
        see=SLOWLY,
    )


def test_a_pair_is_replaced():
    expect(
        "merged([1, 2, 3, 1, 2], (1, 2), 9)",
        lambda: list(tn.tokenization.merged([1, 2, 3, 1, 2], (1, 2), 9)),
        [9, 3, 9],
        (lambda got: got[-1] == 2, "The last pair is missing: look at the end of the list."),
        see=SLOWLY,
    )
    expect(
        "merged([5, 5, 5], (5, 5), 9)",
        lambda: list(tn.tokenization.merged([5, 5, 5], (5, 5), 9)),
        [9, 5],
        OVERLAP,
        see=SLOWLY,
    )
    expect(
        "merged([5, 5, 5, 5, 1, 5, 5], (5, 5), 9)",
        lambda: list(tn.tokenization.merged([5, 5, 5, 5, 1, 5, 5], (5, 5), 9)),
        [9, 9, 1, 9],
        OVERLAP,
        see=SLOWLY,
    )
    expect("merged([2, 1], (1, 2), 9)", lambda: list(tn.tokenization.merged([2, 1], (1, 2), 9)), [2, 1],
           "The pair 1 2 is not the pair 2 1.", see=SLOWLY)  # fmt: skip
    ids = [1, 2, 3]

    def afterwards():
        tn.tokenization.merged(ids, (1, 2), 9)
        return ids

    expect("the list [1, 2, 3] after merged(list, (1, 2), 9)", afterwards, [1, 2, 3], "Make a new list.", see=SLOWLY)


def brute_force(words, count):
    """What is learned if everything is counted again for each merge."""
    tokens, parts = [*BYTES], {word: list(word) for word in words}
    while len(tokens) < 256 + count:
        found = {}
        for word, ids in parts.items():
            for pair in zip(ids, ids[1:]):
                found[pair] = found.get(pair, 0) + words[word]
        best = min(found, key=lambda pair: (-found[pair], pair), default=None)
        if best is None or found[best] < 2:
            break
        new = len(tokens)
        tokens.append(tokens[best[0]] + tokens[best[1]])
        for ids in parts.values():
            i = 0
            while i < len(ids) - 1:
                if (ids[i], ids[i + 1]) == best:
                    ids[i : i + 2] = [new]
                i += 1
    return tokens[256:]


WORDS = {
    "of a sentence": {b"she": 2, b" sells": 2, b" sea": 3, b" shells": 2, b" by": 1, b" the": 3, b" shore": 1},
    "of few letters": {b"aaaa": 3, b"abaab": 2, b"abaaabaaab": 1, b"bab": 4, b"aaaaaaaab": 2, b"cabcabcabc": 1},
    "that come once": {b"abc": 1, b"de": 1},
    "that come twice": {b"cab": 2, b"ca": 1},
}
AS_OFTEN = "The order is another: the most frequent pair first, of equally frequent ones that with the smaller numbers."


@pytest.mark.parametrize("name", WORDS)
def test_learning_slowly(name):
    words = WORDS[name]
    right = brute_force(words, 100)
    expect(
        f"all tokens that learn_slowly finds in words {name}",
        lambda: list(islice(tn.tokenization.learn_slowly(words), 100)),
        right,
        (lambda got: sorted(got) == sorted(right) or (got[0] == right[0] and len(got) == len(right)), AS_OFTEN),
        (lambda got: got[: len(right)] == right, "Stop where no pair occurs twice."),
        (lambda got: right[: len(got)] == got, "Go on as long as a pair occurs twice."),
        "Count all pairs, replace the most frequent one in all words by the next number, and begin again.",
        see=SLOWLY,
    )


def test_learning_slowly_is_done_as_it_is_asked_for():
    words = {b"abcdefgh": 2, b"bcdefgh": 2}

    def replaced():
        """How many words have gone through `merged` when the first token is there."""
        module, done = tn.tokenization, []
        kept = module.merged

        def noted(ids, pair, new):
            done.append(pair)
            return kept(ids, pair, new)

        module.merged = noted
        try:
            token = list(islice(module.learn_slowly(words), 1))
        finally:
            module.merged = kept
        return token, len(done) <= len(words)

    expect(
        "the first token of learn_slowly, asked for one only, and whether no more than one merge was made for it",
        replaced,
        ([b"bc"], True),
        (([b"bc"], False), LAZY),
        see=SLOWLY,
    )
    expect("list(learn_slowly({}))", lambda: list(tn.tokenization.learn_slowly({})), [],
           "Without words there is nothing to learn.", see=SLOWLY)  # fmt: skip


def test_tokens_are_predicted():
    expect(
        "predict_tokens()",
        lambda: [bytes(token) for token in tn.tokenization.predict_tokens()],
        brute_force({b"aaab": 2, b"bab": 1}, 100),
        (lambda got: got[:1] == [b"ab"],
         "The first is not `ab`: in `aaab` the pair `aa` begins at two places, and both count, in each of two words."),
        (lambda got: got[:2] == [b"aa", b"aaab"] or got[:2] == [b"aa", b"aaa"],
         "After `aa` there are two pairs `aa a` and three pairs `a b`: two in `aaab`, and the one in `bab`."),
        ([b"aa", b"ab"], "There is one more pair that occurs twice: look at `aaab` after two merges."),
        (lambda got: len(got) > 3, "`b ab` occurs once, and a pair that occurs once is not learned."),
        (lambda got: b"aaa" in got, "When `ab` is merged, the `a` behind `aa` becomes a part of it: no `aaa` is left."),
        "A token is the bytes of both of its parts. Count all pairs again after each merge, with how often the words "
        "occur.",
        see=SLOWLY,
    )  # fmt: skip


# Learning, quickly


def linked(corpus):
    """The tokens, and for each place that is not gone the places beside it."""
    there = [place for place, token in enumerate(corpus.tokens) if token != -2]
    return corpus.tokens, [corpus.before[place] for place in there], [corpus.after[place] for place in there]


def test_a_pair_is_replaced_in_the_chain():
    def after(words, pair):
        corpus = tn.Corpus(words)
        counts = dict(corpus.counts)
        left, right = corpus.replace(pair, 256)
        sides = ({t: list(at) for t, at in left.items()}, {t: list(at) for t, at in right.items()})
        return (*sides, *linked(corpus), dict(corpus.counts) == counts and pair not in corpus.places)

    ends = "Lead the chain past the right place, in both directions: `after` of the left one, `before` of the next one."
    expect(
        "left, right, tokens, before, after of Corpus({b'xaby': 2}).replace((a, b), 256); are counts kept, places gone",
        lambda: after({b"xaby": 2}, (97, 98)),
        ({120: [0]}, {121: [1]}, [120, 256, -2, 121, -1], [-1, 0, 1, 3], [1, 3, 4, 5], True),
        (lambda got: got[2] == [120, 256, -2, 121, -1] and got[:2] == ({120: [1]}, {121: [3]}),
         "On the left it is the place beside the merged one, since the pair x new begins there; on the right it is the "
         "merged place itself, where new y begins."),
        (lambda got: got[2][2] == 98, "The right place of the pair is GONE."),
        (lambda got: got[2] == [120, 256, -2, 121, -1] and got[3:5] != ([-1, 0, 1, 3], [1, 3, 4, 5]), ends),
        (lambda got: not got[5], "`places` has no entry of the pair any more, and `counts` is not touched here."),
        see=QUICKLY,
    )
    expect(
        "left, right, tokens, before, after of Corpus({b'abab': 2, b'ab': 1}).replace((a, b), 256)",
        lambda: after({b"abab": 2, b"ab": 1}, (97, 98))[:5],
        ({-1: [-1, 4], 256: [0]}, {97: [0], -1: [2, 5]},
         [256, -2, 256, -2, -1, 256, -2, -1], [-1, 0, 2, 4, 5], [2, 4, 5, 7, 8]),
        (lambda got: got[0].get(98) is not None,
         "From left to right: when the second `ab` is merged, the token to its left is 256 already."),
        (lambda got: -1 not in got[1], "END is a token, too: list what is beside it. `merge` leaves it out."),
        ends,
        see=QUICKLY,
    )
    expect(
        "left, right, tokens, before, after of Corpus({b'aaaaa': 2}).replace((a, a), 256)",
        lambda: after({b"aaaaa": 2}, (97, 97))[:5],
        ({-1: [-1], 256: [0]}, {97: [0, 2]}, [256, -2, 256, -2, 97, -1], [-1, 0, 2, 4], [2, 4, 5, 6]),
        OVERLAP + " At each place look whether the pair is still there.",
        see=QUICKLY,
    )  # fmt: skip


def chain_of(corpus):
    """The tokens along the chain, from its first place on."""
    found, place = [], 0
    while place < len(corpus.tokens) and len(found) < 100:
        found.append(corpus.tokens[place])
        place = corpus.after[place]
    return found


def after(words, *merges):
    """The chain, the counts above one, and which of these pairs the last merge says it has formed."""
    corpus, formed = tn.Corpus(words), set()
    for pair, new in merges:
        formed = corpus.merge(pair, new)
    counts = {pair: count for pair, count in corpus.counts.items() if count > 1}
    return chain_of(corpus), counts, sorted(formed & counts.keys())


def test_a_merge_keeps_the_counts():
    expect(
        "chain, counts and formed pairs after Corpus({b'xaby': 3}).merge((a, b), 256)",
        lambda: after({b"xaby": 3}, ((97, 98), 256)),
        ([120, 256, 121, -1], {(120, 256): 3, (256, 121): 3}, [(120, 256), (256, 121)]),
        (lambda got: got[1].get((120, 97)) == 2 or got[1].get((120, 256)) == 1, WEIGHT),
        (lambda got: (120, 97) in got[1] or (98, 121) in got[1],
         "The pairs x a and b y are gone: take the weight from their counts."),
        (lambda got: not got[1], WEIGHT),
        (lambda got: (97, 98) in got[1], "The pair itself has no places any more, and no count."),
        see=QUICKLY,
    )  # fmt: skip
    expect(
        "chain, counts and formed pairs after Corpus({b'abab': 2, b'b': 5}).merge((a, b), 256)",
        lambda: after({b"abab": 2, b"b": 5}, ((97, 98), 256)),
        ([256, 256, -1, 98, -1], {(256, 256): 2}, [(256, 256)]),
        (lambda got: any(-1 in pair for pair in got[1]), "No pair with END: words do not touch."),
        (lambda got: (256, 97) in got[1],
         "The right side first: the first `ab` forms the pair 256 a, and the second takes it away again, on its left."),
        "From left to right: the second pair's left neighbour is 256 already.",
        see=QUICKLY,
    )  # fmt: skip


def test_a_merge_does_not_overlap():
    expect(
        "chain and counts after Corpus({b'aaaaa': 2}).merge((a, a), 256)",
        lambda: after({b"aaaaa": 2}, ((97, 97), 256))[:2],
        ([256, 256, 97, -1], {(256, 256): 2, (256, 97): 2}),
        OVERLAP,
        see=QUICKLY,
    )
    expect(
        "chain and counts after merging a b, then b c, in Corpus({b'abc': 2, b'bc': 4})",
        lambda: after({b"abc": 2, b"bc": 4}, ((97, 98), 256), ((98, 99), 257))[:2],
        ([256, 99, -1, 257, -1], {(256, 99): 2}),
        "A place where a pair has been may have been merged into something else: look before you merge.",
        see=QUICKLY,
    )


def recounted(corpus):
    """How often each pair occurs in the chain of a corpus, and at which places."""
    found, place = {}, 0
    while place < len(corpus.tokens):
        after = corpus.after[place]
        if after < len(corpus.tokens) and -1 not in (pair := (corpus.tokens[place], corpus.tokens[after])):
            count, places = found.get(pair, (0, []))
            found[pair] = count + corpus.weight[place], [*places, place]
        place = after
    return found


def some_words():
    """Words of three letters, so that pairs touch and overlap; most occur once."""
    random_words = random.Random(11)
    return {bytes(random_words.choices(b"abc", k=1 + i % 9)): 1 + (i % 4 == 0) for i in range(40)}


def wrong_entries(merges):
    """What is wrong in a corpus after some merges of the most frequent pair: pair, count, and how often it occurs."""
    corpus = tn.Corpus(some_words())
    for new in range(256, 256 + merges):
        corpus.merge(min(corpus.counts, key=lambda pair: (-corpus.counts[pair], pair)), new)
    true = recounted(corpus)
    wrong = [(pair, count, true.get(pair, (0,))[0]) for pair, count in corpus.counts.items()]
    wrong += [(pair, 0, count) for pair, (count, _) in true.items() if pair not in corpus.counts and count > 1]
    return sorted(entry for entry in wrong if entry[1] != entry[2])[:3]


def test_counts_are_how_often_pairs_occur():
    for merges in (1, 4, 12):
        expect(
            f"entries (pair, count, how often it occurs) of `counts` that are wrong after {merges} merges in 40 words",
            lambda merges=merges: wrong_entries(merges),
            [],
            (lambda got: any(count < 0 for _, count, _ in got),
             "A count is negative: a pair that occurs once was forgotten, and what has no entry in `counts` cannot "
             "fall. Ask whether it is there before you subtract."),
            (lambda got: any(right > 1 and not count for _, count, right in got),
             "A pair that occurs twice or more has no entry."),
            (lambda got: any(count > right for _, count, right in got),
             "A count has not fallen, or not by all it should: in `abab` a pair with the new token is formed on the "
             "right and taken away again from the left, so the right side comes first."),
            WEIGHT,
            see=QUICKLY,
        )  # fmt: skip


def test_places_are_those_of_the_pair():
    def lost():
        corpus = tn.Corpus(some_words())
        for new in range(256, 262):
            corpus.merge(min(corpus.counts, key=lambda pair: (-corpus.counts[pair], pair)), new)
        true = recounted(corpus)
        listed = {pair: list(places) for pair, places in corpus.places.items()}
        return [pair for pair, (count, at) in sorted(true.items())
                if count > 1 and [place for place in listed.get(pair, []) if place in at] != at]  # fmt: skip

    expect(
        "pairs whose entry in `places` lacks a place where they begin, or has it twice or out of order, after 6 merges",
        lost,
        [],
        "A formed pair begins at the places that `replace` has collected for it, in that order.",
        see=QUICKLY,
    )


def test_what_occurs_once_is_forgotten():
    expect(
        "the pairs that Corpus({b'xab': 1, b'ab': 4}).merge((a, b), 256) returns, and all entries of counts then",
        lambda: (lambda corpus: (sorted(corpus.merge((97, 98), 256)), dict(corpus.counts)))(
            tn.Corpus({b"xab": 1, b"ab": 4})
        ),
        ([], {}),
        (lambda got: any(count < 0 for count in got[1].values()),
         "The pair x a was forgotten: it has no entry that could fall. Ask whether it is there before you subtract."),
        (lambda got: (120, 256) in got[1] or got[0],
         "The pair x 256 occurs once: it gets no entry, and is not returned."),
        (lambda got: (97, 98) in got[1], "The pair itself has no places any more, and no count."),
        see=QUICKLY,
    )  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_learning_is_what_brute_force_learns(name):
    words = WORDS[name]
    expect(
        f"all tokens that learn finds in words {name}",
        lambda: list(islice(tn.tokenization.learn(words), 100)),
        brute_force(words, 100),
        (lambda got: sorted(got) == sorted(brute_force(words, 100)),
         AS_OFTEN),
        (lambda got: got[: len(brute_force(words, 100))] == brute_force(words, 100),
         "Stop where no pair occurs twice."),
        (lambda got: len(set(got)) < len(got), "A token is there twice: a merged pair has no places any more."),
        "Counts fall: compare what comes out of the heap with the count as it is now.",
        see=QUICKLY,
    )  # fmt: skip


def test_learning_is_done_as_it_is_asked_for():
    words = {b"abcdefgh": 2, b"bcdefgh": 2}

    def asked(count):
        """What is learned if so much is asked for, and whether no more merges were made than that."""
        module, done = tn.tokenization, []
        kept = module.Corpus

        class Noted(kept):
            def merge(self, pair, new):
                done.append(pair)
                return super().merge(pair, new)

        module.Corpus = Noted
        try:
            return list(islice(module.learn(words), count)), len(done) <= count
        finally:
            module.Corpus = kept

    for count, tokens in ((1, [b"bc"]), (3, [b"bc", b"de", b"fg"])):
        expect(
            f"the first tokens of learn, asked for {count}, and whether Corpus.merge was called at most {count} times",
            lambda count=count: asked(count),
            (tokens, True),
            ((tokens, False), LAZY),
            "`learn` is a generator: it yields each token when it is learned.",
            see=QUICKLY,
        )
    expect(
        "list(learn({}))",
        lambda: list(tn.tokenization.learn({})),
        [],
        "Without words there is nothing to learn.",
        see=QUICKLY,
    )


# A word


def test_the_earliest_merge_comes_first():
    learned = ranks(b"na", b"an", b"ban", b"ana")
    expect(
        'encode_word(b"banana") with the tokens 256 na, 257 an, 258 ban, 259 ana',
        lambda: list(tn.tokenization.encode_word(b"banana", learned)),
        [98, 259, 256],
        ([258, 256, 97], EARLIEST),
        ([258, 259], EARLIEST + " The longest token need not be there."),
        ([98, 256, 256], "After a merge there are new pairs, and they may make tokens, too."),
        EARLIEST,
        see=WORD,
    )
    learned = ranks(b"an", b"ban", b"ana", b"dan", b"bandan")
    expect(
        'encode_word(b"bandana") with the tokens 256 an, 257 ban, 258 ana, 259 dan, 260 bandan',
        lambda: list(tn.tokenization.encode_word(b"bandana", learned)),
        [257, 100, 258],
        ([260, 97], EARLIEST + " Which token is the longest does not matter."),
        ([257, 259, 97], EARLIEST + " In d-an-a that is ana, not dan."),
        EARLIEST,
        see=WORD,
    )


def test_words_that_are_not_special():
    learned = ranks(b"aa", b"aaaa")
    for word, wanted in ((b"", []), (b"a", [97]), (b"xyz", [120, 121, 122]), (b"aaaaaaa", [257, 256, 97])):
        expect(
            f"encode_word({word!r}) with the tokens 256 aa, 257 aaaa",
            lambda word=word: list(tn.tokenization.encode_word(word, learned)),
            wanted,
            "Of equal ranks the leftmost is merged first." if len(word) > 3 else "What makes no token stays bytes.",
            see=WORD,
        )
    expect(
        'encode_word(b"abc") with the tokens 256 bc, 257 abc',
        lambda: list(tn.tokenization.encode_word(b"abc", ranks(b"bc", b"abc"))),
        [257],
        "After a merge look at the pairs on both of its sides.",
        see=WORD,
    )
    expect(
        "the tokens of é, two bytes that make no token",
        lambda: list(tn.tokenization.encode_word("é".encode(), learned)),
        [195, 169],
        "A word is bytes: a character may be several.",
        see=WORD,
    )


def cache(*tokens):
    return tn.tokenization.WordCache(ranks(*tokens))


def test_words_are_remembered():
    def twice():
        words = cache(b"na", b"an")
        first = words["banana"]
        return first, dict(words), words["banana"]

    expect(
        "words['banana'] of a cache with the tokens 256 na, 257 an; what it has then; words['banana'] again",
        twice,
        ((98, 97, 256, 256), {"banana": (98, 97, 256, 256)}, (98, 97, 256, 256)),
        (lambda got: got[1] == {}, "Write what you have found into the dictionary: self[word] = ids."),
        (lambda got: isinstance(got[0], list), "A cache hands the same object out again and again: make it a tuple."),
        see=WORD,
    )
    expect(
        "words['ñ'] of a cache with no tokens but the bytes",
        lambda: cache()["ñ"],
        (195, 177),
        "`encode_word` takes bytes: word.encode().",
        see=WORD,
    )
    expect(
        "words['abc'] of a cache with the token 256 abc, which no merge can make",
        lambda: cache(b"abc")["abc"],
        (256,),
        ((97, 98, 99), "The short cut: a word that is a token is that token."),
        see=WORD,
    )


def test_long_words_are_left_to_the_heap():
    def asked():
        """Which of the two functions encodes words of 64 and 65 bytes."""
        module, done = tn.tokenization, []
        kept = {name: getattr(module, name) for name in ("encode_word", "encode_long_word")}
        for name, function in kept.items():
            setattr(module, name, lambda word, ranks, name=name, function=function: (
                done.append((len(word), name)), function(word, ranks))[1])  # fmt: skip
        try:
            words = cache()
            words["x" * 64], words["x" * 65]
        finally:
            for name, function in kept.items():
                setattr(module, name, function)
        return done

    expect(
        "which function a cache asks for words of 64 and of 65 bytes that are no tokens",
        asked,
        [(64, "encode_word"), (65, "encode_long_word")],
        "A word of more than LONG bytes is left to `encode_long_word`, shorter ones to `encode_word`.",
        see=WORD,
    )


def test_a_cache_has_an_end():
    def kept():
        words = cache(b"aa", b"a" * 65)
        found = [len(words["a" * length]) for length in (64, 65, 66)]
        return found, sorted(map(len, words)), len(words["é" * 33])

    expect(
        "lengths of the tokens of words of 64, 65 and 66 letters a; the lengths of words that are then in the cache; "
        "and the length of the tokens of 33 letters é",
        kept,
        ([32, 1, 33], [64], 66),
        (lambda got: 65 in got[1] or 66 in got[1], "Words of more than LONG bytes are not remembered."),
        (lambda got: 64 not in got[1], "A word of exactly LONG bytes is remembered."),
        see=WORD,
    )

    def filled():
        module, words = tn.tokenization, cache()
        kept, module.REMEMBERED = module.REMEMBERED, 3
        try:
            return [(len(words[word]), list(words))[1] for word in ("ab", "bc", "cd", "de", "é" * 33)]
        finally:
            module.REMEMBERED = kept

    expect(
        "the words in a cache with REMEMBERED = 3 after 'ab', then 'bc', 'cd', 'de' and 33 letters é",
        filled,
        [["ab"], ["ab", "bc"], ["ab", "bc", "cd"], ["de"], ["de"]],
        (lambda got: any(len(words) > 3 for words in got), "A full cache is cleared before the next word is written."),
        (lambda got: got[2] != ["ab", "bc", "cd"], "It is full when it has REMEMBERED words, not before."),
        (lambda got: got[3] == [], "Clear first, then write the new word."),
        (lambda got: len(got[4]) > 1, "33 letters é are 66 bytes: LONG counts bytes, and such a word is not kept."),
        see=WORD,
    )


# Back to text


def test_bytes_are_joined_first():
    expect(
        "decode of the four bytes of an emoji",
        lambda: tn.Vocabulary(BYTES).decode(list("😀".encode())),
        "😀",
        ("\ufffd" * 4, JOIN + " U+FFFD is what a part of a character becomes."),
        JOIN,
        see=BACK,
    )
    expect(
        "decode of 'naïve' whose ï is spread over two tokens",
        lambda: tokenizer(b"na\xc3", b"\xafve").decode([256, 257]),
        "naïve",
        (lambda got: "\ufffd" in got, JOIN + " U+FFFD is what a part of a character becomes."),
        JOIN,
        see=BACK,
    )
    expect(
        "decode of the bytes a, 255, b",
        lambda: tn.Vocabulary(BYTES).decode([97, 255, 98]),
        "a\ufffdb",
        (ValueError, 'What is no UTF-8 becomes U+FFFD, unless errors="strict": hand `errors` on to bytes.decode.'),
        see=BACK,
    )
    expect(
        'decode of the byte 255 with errors="strict"',
        lambda: tn.Vocabulary(BYTES).decode([255], errors="strict"),
        UnicodeDecodeError,
        "Hand `errors` on to bytes.decode.",
        see=BACK,
    )
    expect(
        f"decode of a special token, in tokens 97, 256 ({END}), 98",
        lambda: tokenizer().decode([97, 256, 98]),
        f"a{END}b",
        "A special token's text is its name.",
        see=BACK,
    )
    expect("decode([])", lambda: tokenizer().decode([]), "", see=BACK)


def test_a_number_that_no_token_has():
    for number in (257, -1):
        expect(
            f"decode([{number}]) of a tokenizer with 257 tokens",
            lambda number=number: tokenizer().decode([97, number]),
            IndexError,
            "`decode_bytes` refuses such numbers; a list would take -1 for its last entry.",
            see=BACK,
        )
        expect(
            f"list(decode_stream([{number}])) of a tokenizer with 257 tokens",
            lambda number=number: list(tokenizer().decode_stream([97, number])),
            IndexError,
            "`token_bytes` refuses such numbers; a list would take -1 for its last entry.",
            see=BACK,
        )


def test_a_stream_has_whole_characters():
    expect(
        "pieces of decode_stream for the single bytes of 'é😀!'",
        lambda: list(tn.Vocabulary(BYTES).decode_stream(list("é😀!".encode()))),
        ["é", "😀", "!"],
        (lambda got: any("\ufffd" in piece for piece in got),
         "U+FFFD appears: keep the bytes of an unfinished character until its rest has come."),
        (lambda got: "" in got, "While a character is unfinished, nothing is yielded, not even an empty text."),
        (lambda got: len(got) == 1, "Yield what is whole as soon as it is."),
        see=BACK,
    )  # fmt: skip
    expect(
        "pieces of decode_stream for tokens with bytes '<a>', 'b' + half of é, the other half + 'c'",
        lambda: list(tokenizer(b"<a>", b"b\xc3", b"\xa9c").decode_stream([256, 257, 258])),
        ["<a>", "b", "éc"],
        (lambda got: any("\ufffd" in piece for piece in got),
         "U+FFFD appears: keep the bytes of an unfinished character until its rest has come."),
        "Yield at once what is whole, and keep only the rest.",
        see=BACK,
    )  # fmt: skip


def test_the_end_of_a_stream():
    expect(
        "all of decode_stream for 'a' and the first two bytes of an emoji, joined",
        lambda: "".join(tn.Vocabulary(BYTES).decode_stream([97, 0xF0, 0x9F])),
        "a\ufffd",
        ("a", "The stream has ended within a character: what is left is no UTF-8, and becomes U+FFFD as in `decode`."),
        see=BACK,
    )
    expect(
        "all of decode_stream for the bytes 255, a, 195, b, joined",
        lambda: "".join(tn.Vocabulary(BYTES).decode_stream([255, 97, 195, 98])),
        "\ufffda\ufffdb",
        (ValueError, "What cannot become a character is U+FFFD, and the stream goes on."),
        ("", "A byte that is no UTF-8 must not hold up all that follows."),
        see=BACK,
    )


def test_a_stream_does_not_wait():
    taken = []

    def source():
        for number in b"abc":
            taken.append(number)
            yield number

    def first():
        taken.clear()
        stream = tn.Vocabulary(BYTES).decode_stream(source())
        return next(iter(stream)), len(taken)

    expect(
        "the first piece of a stream of a, b, c, and how many tokens have been taken for it",
        first,
        ("a", 1),
        "Take a token, yield its text, and only then take the next: somebody is waiting for the model's words.",
        see=BACK,
    )


# Special tokens


def test_special_tokens_are_refused_unless_allowed():
    t = tokenizer()
    expect(
        f"encode('a{END}b')",
        lambda: t.encode(f"a{END}b"),
        ValueError,
        ([97, 256, 98], "Nobody has allowed it: a special token in a text is a ValueError unless it is allowed."),
        ([*f"a{END}b".encode()], "It is text only if it is not in `disallowed_special`: all that is not allowed."),
        see=SPECIAL,
    )
    for allowed in ("all", {END}, [END]):
        expect(
            f"encode('a{END}b{END}', allowed_special={allowed!r})",
            lambda allowed=allowed: t.encode(f"a{END}b{END}", allowed_special=allowed),
            [97, 256, 98, 256],
            (ValueError, "It is allowed, so it is not among the disallowed: these are all that are not allowed."),
            ([97, 256, 98], "The text ends with a special token: after the last one there is an empty text."),
            ([97, 98], "The numbers of the special tokens are missing: append each behind the text before it."),
            see=SPECIAL,
        )
    expect(
        f"encode('a{END}', disallowed_special=())",
        lambda: t.encode(f"a{END}", disallowed_special=()),
        [97, *END.encode()],
        ([97, 256], "Not disallowed is not yet allowed: it is text like any other."),
        see=SPECIAL,
    )


def test_some_are_allowed():
    t = tokenizer(special=("<|a|>", "<|b|>"))
    expect(
        "encode('<|a|>x', allowed_special={'<|a|>'}) with special tokens 256 <|a|> and 257 <|b|>",
        lambda: t.encode("<|a|>x", allowed_special={"<|a|>"}),
        [256, 120],
        see=SPECIAL,
    )
    expect(
        "encode('<|a|><|b|>', allowed_special={'<|a|>'})",
        lambda: t.encode("<|a|><|b|>", allowed_special={"<|a|>"}),
        ValueError,
        "<|b|> is not allowed, so it is refused.",
        see=SPECIAL,
    )
    expect(
        "encode('<|a|><|b|>', allowed_special={'<|b|>'}, disallowed_special=())",
        lambda: t.encode("<|a|><|b|>", allowed_special={"<|b|>"}, disallowed_special=()),
        [*b"<|a|>", 257],
        "Only what is allowed becomes its number; the other is text.",
        see=SPECIAL,
    )
    expect(
        "encode('plain', disallowed_special={'lai'})",
        lambda: t.encode("plain", disallowed_special={"lai"}),
        ValueError,
        "Any text may be disallowed, as in tiktoken.",
        see=SPECIAL,
    )
    expect(
        "encode('x', allowed_special={'<|c|>'})",
        lambda: t.encode("x", allowed_special={"<|c|>"}),
        ValueError,
        "The tokenizer has no <|c|>: whoever allows it has made a mistake, and should be told.",
        see=SPECIAL,
    )


def test_ordinary_text():
    expect(
        "encode_ordinary('ab ab, ab') with the tokens 256 ab, 257 ' ab'",
        lambda: list(tokenizer(b"ab", b" ab").encode_ordinary("ab ab, ab")),
        [256, 257, 44, 257],
        "Cut the text into words with `split`, and add the tokens of each, one word after the other.",
        see=TOKENIZER,
    )
    expect(
        "encode_ordinary('2024') by a tokenizer with the pattern gpt4 and the tokens 256 20, 257 24, 258 202",
        lambda: list(tn.BPETokenizer([*BYTES, b"20", b"24", b"202"], [], "gpt4").encode_ordinary("2024")),
        [258, 52],
        ([256, 257], "Hand the tokenizer's own pattern on to `split`."),
        see=TOKENIZER,
    )
    expect(
        f"encode_ordinary('{END}')",
        lambda: list(tokenizer().encode_ordinary(END)),
        list(END.encode()),
        "`encode_ordinary` knows no special tokens.",
        see=TOKENIZER,
    )
    expect(
        "encode_ordinary of 20,000 words 'ab', one hundred thousand characters",
        lambda: len(tokenizer(b"ab", b" ab").encode_ordinary("ab   " * 20_000)),
        len(tokenizer(b"ab", b" ab").encode_ordinary("ab   " * 20_000)),
        "All `pieces` of the text count, one after the other.",
        see=TOKENIZER,
    )
    expect("encode_ordinary('')", lambda: list(tokenizer().encode_ordinary("")), [], see=TOKENIZER)
    for text, error in (("\ud83d", ValueError), (b"ab", TypeError)):
        expect(
            f"encode_ordinary({text!r})",
            lambda text=text: tokenizer().encode_ordinary(text),
            error,
            "Begin with `refuse_surrogates`, which says what is wrong with such a text.",
            see=TOKENIZER,
        )

    def known():
        t = tokenizer(b"ab", b" ab")
        t.encode_ordinary("ab ab ab")
        return sorted(t._words)

    expect(
        "the words that the cache of a tokenizer has after encode_ordinary('ab ab ab')",
        known,
        [" ab", "ab"],
        "Look each word up in `self._words`, which encodes it once.",
        see=TOKENIZER,
    )


def test_ordinary_text_between_them():
    t = tokenizer(b"ab", b" ab")
    expect(
        f"encode('ab ab{END}ab', allowed_special='all') with the tokens 256 ab, 257 ' ab', 258 {END}",
        lambda: t.encode(f"ab ab{END}ab", allowed_special="all"),
        [256, 257, 258, 256],
        "What is between special tokens is encoded by `encode_ordinary`.",
        see=TOKENIZER,
    )
    expect("encode('')", lambda: t.encode(""), [], see=TOKENIZER)
    expect("encode('ab ab')", lambda: t.encode("ab ab"), [256, 257], see=TOKENIZER)


# Exercises


def test_bytes_per_token():
    expect(
        "bytes_per_token of 'ab ab' with the tokens ab and ' ab'",
        lambda: tn.bytes_per_token(tokenizer(b"ab", b" ab"), "ab ab"),
        2.5,
        (0.4, "Bytes by tokens, not tokens by bytes."),
        see=EXERCISES,
    )
    expect(
        "bytes_per_token of 'é' with single bytes only",
        lambda: tn.bytes_per_token(tokenizer(), "é"),
        1.0,
        (0.5, "Count bytes in UTF-8, not characters: é is two bytes."),
        see=EXERCISES,
    )
    expect(
        f"bytes_per_token of '{END}'",
        lambda: tn.bytes_per_token(tokenizer(), END),
        1.0,
        (ValueError, "Whatever is in the text is text here: `encode_ordinary`."),
        see=EXERCISES,
    )
    expect("bytes_per_token of ''", lambda: tn.bytes_per_token(tokenizer(), ""), ValueError,
           (ZeroDivisionError, "Refuse an empty text with a ValueError."), see=EXERCISES)  # fmt: skip


def test_truncated():
    whole = tn.BPETokenizer([*BYTES, b"ab", b"abc", b"cd"], [END], "gpt4")

    def found(size):
        part = tn.tokenization.truncated(whole, size)
        return part.vocab_size, [*part.tokens[256:]], dict(part.special_tokens), part.pattern

    expect(
        f"size, learned tokens, special tokens and pattern of truncated(..., 258); tokens are ab, abc, cd, {END}",
        lambda: found(258),
        (258, [b"ab"], {END: 257}, "gpt4"),
        (lambda got: got[0] == 259, "The special token is one of the 258."),
        (lambda got: got[2] != {END: 257}, "Special tokens stay, and come after the last token."),
        (lambda got: got[3] != "gpt4", "The pattern stays what it was."),
        see=EXERCISES,
    )
    expect("truncated(..., 260), the whole", lambda: found(260)[1], [b"ab", b"abc", b"cd"], see=EXERCISES)
    expect("truncated(..., 257), no learned token", lambda: found(257)[1], [], see=EXERCISES)
    for size in (256, 261):
        expect(
            f"truncated(a tokenizer of 260, {size})",
            lambda size=size: found(size)[0],
            ValueError,
            "257 are the bytes and the special token, 260 is all there is; anything else is a ValueError.",
            see=EXERCISES,
        )
