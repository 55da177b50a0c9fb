"""Chapter 11, judged by its public names."""

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
        lambda: dict(tn.pair_counts([[1, 2, 1, 2]], [1])),
        {(1, 2): 2, (2, 1): 1},
        "A pair is two neighbours: 1 2, 2 1, 1 2.",
        see=SLOWLY,
    )
    expect(
        "pair_counts([[1, 2], [1, 2, 3]], [7, 2])",
        lambda: dict(tn.pair_counts([[1, 2], [1, 2, 3]], [7, 2])),
        {(1, 2): 9, (2, 3): 2},
        ({(1, 2): 2, (2, 3): 1}, WEIGHT),
        (lambda got: len(got) > 2, "No pair reaches from one word into the next."),
        WEIGHT,
        see=SLOWLY,
    )
    expect(
        "pair_counts([[], [5], [6, 6, 6]], [3, 3, 3])",
        lambda: dict(tn.pair_counts([[], [5], [6, 6, 6]], [3, 3, 3])),
        {(6, 6): 6},
        "In 6 6 6 the pair 6 6 begins at two places, and both count; a word of one token has no pair.",
        see=SLOWLY,
    )


def test_a_pair_is_replaced():
    expect(
        "merged([1, 2, 3, 1, 2], (1, 2), 9)",
        lambda: list(tn.merged([1, 2, 3, 1, 2], (1, 2), 9)),
        [9, 3, 9],
        (lambda got: got[-1] == 2, "The last pair is missing: look at the end of the list."),
        see=SLOWLY,
    )
    expect("merged([5, 5, 5], (5, 5), 9)", lambda: list(tn.merged([5, 5, 5], (5, 5), 9)), [9, 5], OVERLAP, see=SLOWLY)
    expect(
        "merged([5, 5, 5, 5, 1, 5, 5], (5, 5), 9)",
        lambda: list(tn.merged([5, 5, 5, 5, 1, 5, 5], (5, 5), 9)),
        [9, 9, 1, 9],
        OVERLAP,
        see=SLOWLY,
    )
    expect("merged([2, 1], (1, 2), 9)", lambda: list(tn.merged([2, 1], (1, 2), 9)), [2, 1],
           "The pair 1 2 is not the pair 2 1.", see=SLOWLY)  # fmt: skip
    ids = [1, 2, 3]

    def afterwards():
        tn.merged(ids, (1, 2), 9)
        return ids

    expect("the list [1, 2, 3] after merged(list, (1, 2), 9)", afterwards, [1, 2, 3], "Make a new list.", see=SLOWLY)


def test_learning_slowly():
    expect(
        'the first three tokens of learn_slowly({b"banana": 1, b"bandana": 1})',
        lambda: list(islice(tn.learn_slowly({b"banana": 1, b"bandana": 1}), 3)),
        [b"an", b"ban", b"ana"],
        "It uses `pair_counts` and `merged`; one of them is not right yet.",
        see=SLOWLY,
    )


# Learning, quickly


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
        "From left to right: the second pair's left neighbour is 256 already.",
        see=QUICKLY,
    )


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
}


@pytest.mark.parametrize("name", WORDS)
def test_learning_is_what_brute_force_learns(name):
    words = WORDS[name]
    expect(
        f"all tokens that learn finds in words {name}",
        lambda: list(islice(tn.learn(words), 100)),
        brute_force(words, 100),
        (lambda got: sorted(got) == sorted(brute_force(words, 100)),
         "The order is another: the most frequent pair first, of equally frequent ones that with the smaller numbers."),
        (lambda got: got[: len(brute_force(words, 100))] == brute_force(words, 100),
         "Stop where no pair occurs twice."),
        (lambda got: len(set(got)) < len(got), "A token is there twice: a merged pair has no places any more."),
        "Counts fall: compare what comes out of the heap with the count as it is now.",
        see=QUICKLY,
    )  # fmt: skip


def test_learning_is_done_as_it_is_asked_for():
    words = {b"abab": 2, b"bcbc": 2}
    expect(
        "the first token of learn, asked for one only",
        lambda: next(iter(tn.learn(words))),
        b"ab",
        "`learn` is a generator: it yields each token when it is learned.",
        see=QUICKLY,
    )
    expect("list(learn({}))", lambda: list(tn.learn({})), [], "Without words there is nothing to learn.", see=QUICKLY)


# A word


def test_the_earliest_merge_comes_first():
    learned = ranks(b"na", b"an", b"ban", b"ana")
    expect(
        'encode_word(b"banana") with the tokens 256 na, 257 an, 258 ban, 259 ana',
        lambda: list(tn.encode_word(b"banana", learned)),
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
        lambda: list(tn.encode_word(b"bandana", learned)),
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
            lambda word=word: list(tn.encode_word(word, learned)),
            wanted,
            "Of equal ranks the leftmost is merged first." if len(word) > 3 else "What makes no token stays bytes.",
            see=WORD,
        )
    expect(
        'encode_word(b"abc") with the tokens 256 bc, 257 abc',
        lambda: list(tn.encode_word(b"abc", ranks(b"bc", b"abc"))),
        [257],
        "After a merge look at the pairs on both of its sides.",
        see=WORD,
    )
    expect(
        "the tokens of é, two bytes that make no token",
        lambda: list(tn.encode_word("é".encode(), learned)),
        [195, 169],
        "A word is bytes: a character may be several.",
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
        part = tn.truncated(whole, size)
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
