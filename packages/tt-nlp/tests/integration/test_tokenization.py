"""Chapter 11 at work: texts become numbers and come back, with the data loader, in files, and what it costs."""

import gc
import random
import time
import tracemalloc

import numpy as np
import pytest

import tt_data as td
import tt_nlp as tn
import tt_tensor as tt
from tt_nlp.hard_texts import HARD_TEXTS
from tt_tensor.teaching import expect, measured_between

CHARACTERS, WORDS, QUICKLY, WORD = "The smallest thing that could work", "Words first", "Learning, quickly", "A word"
BACK, SPECIAL, TOKENIZER, COST = "Back to text", "Special tokens", "The tokenizer", "The cost"
END = "<|endoftext|>"
LINES = [
    "Ishmael went to sea, and the sea was wide.", "He saw the whale; the whale saw him.",
    "It's the sea, 1851, and we'll sail!", "naïve café, Привет, 你好, 😀😀",
] * 3  # fmt: skip


def trained(**options):
    return tn.BPETokenizer.train(LINES, 320, **{"special_tokens": [END], "progress": False, **options})


# Imports and instantiation


def test_imports_find_what_the_chapter_promises():
    names = ["BPETokenizer", "CharTokenizer", "Corpus", "Vocabulary", "at_special", "bytes_per_token", "count_words"]
    names += ["encode_word", "learn", "learn_slowly", "merged", "pair_counts", "pieces", "split", "truncated"]
    expect(
        "the names that chapter 11 lacks",
        [name for name in names if not (hasattr(tn, name) or hasattr(tn.tokenization, name))],
        [],
        see=TOKENIZER,
    )


def test_imports_give_tokenizers_of_the_right_size():
    def sizes():
        return tn.CharTokenizer("abc").vocab_size, trained().vocab_size, len(trained().tokens), trained().special_tokens

    expect(
        f"sizes of a CharTokenizer('abc') and of one trained to 320 with {END}, its tokens, its special tokens",
        sizes,
        (3, 320, 319, {END: 319}),
        see=TOKENIZER,
    )


# Compatibility: with Python, with files, with tensors and loaders


def test_compatibility_with_utf8():
    expect(
        "decode_bytes of 'naïve 😀', by tokens",
        lambda: trained().decode_bytes(trained().encode("naïve 😀")),
        "naïve 😀".encode(),
        see=BACK,
    )


def test_compatibility_with_files(tmp_path):
    def kept():
        ours, letters = trained(pattern="gpt4"), tn.CharTokenizer.train("".join(LINES))
        ours.save(tmp_path / "pairs.json")
        letters.save(tmp_path / "letters.json")
        text = f"{LINES[2]}{END}{LINES[3]}"
        loaded = tn.BPETokenizer.load(tmp_path / "pairs.json")
        again = loaded.encode(text, allowed_special="all") == ours.encode(text, allowed_special="all")
        return again, tn.CharTokenizer.load(tmp_path / "letters.json").encode(LINES[3]) == letters.encode(LINES[3])

    expect("whether loaded tokenizers encode as the saved ones", kept, (True, True), see=TOKENIZER)


def test_compatibility_with_paths_and_iterators(tmp_path):
    def learned():
        path = tmp_path / "text.txt"
        path.write_bytes("\n".join(LINES).encode())
        sources = ["\n".join(LINES), path, iter(["\n".join(LINES)]), [path]]
        found = [tn.BPETokenizer.train(source, 300, progress=False).tokens for source in sources]
        return [tokens == found[0] for tokens in found]

    expect("whether a text, a file, an iterator and a list of files give the same tokens", learned, [True] * 4,
           see=TOKENIZER)  # fmt: skip


def test_compatibility_with_tensors():
    def text():
        ids = trained().encode(LINES[0])
        return trained().decode(tt.from_numpy(np.array(ids))), trained().decode(np.array(ids))

    expect("decode of a tensor and of an array of numbers", text, (LINES[0], LINES[0]),
           "`decode_bytes` takes lists, arrays and tensors; let it do that.", see=BACK)  # fmt: skip


# Integration: there and back


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_integration_every_text_comes_back(pattern):
    def lost():
        ours = trained(pattern=pattern)
        there = {name: ours.encode(text, disallowed_special=()) for name, text in HARD_TEXTS.items()}
        return [name for name, text in HARD_TEXTS.items() if ours.decode(there[name]) != text]

    expect(f"those of {len(HARD_TEXTS)} hard texts that do not come back, {pattern}", lost, [], see=BACK)


def test_integration_a_stream_says_what_decode_says():
    def differing():
        ours, chance = trained(), random.Random(3)
        rows = [[chance.randrange(ours.vocab_size) for _ in range(50)] for _ in range(20)]
        return [number for number, ids in enumerate(rows) if "".join(ours.decode_stream(ids)) != ours.decode(ids)]

    expect("those of 20 rows of random tokens whose stream is not their text", differing, [],
           "A stream has the same bytes, and what is no UTF-8 becomes the same U+FFFD.", see=BACK)  # fmt: skip


def test_integration_documents_stay_apart():
    def found():
        ours = tn.BPETokenizer.train(f"ab{END}{END}{END}ab", 258, [END], progress=False)
        return ours.tokens[256:], ours.encode(f"ab{END}", allowed_special="all")

    expect(
        "what is learned from 'ab', three special tokens, 'ab', and how 'ab' with a special token is encoded",
        found,
        ([b"ab"], [256, 257]),
        "Special tokens are no text: nothing is learned from them.",
        see=SPECIAL,
    )


def test_integration_with_a_loader():
    def batch():
        ours = trained()
        ids = tt.from_numpy(np.array(ours.encode(" ".join(LINES))[:96]).reshape(12, 8))
        ((x,),) = list(td.DataLoader(td.TensorDataset(ids), batch_size=12))
        return x.shape, ours.decode(x.numpy().reshape(-1)) == ours.decode(ids.numpy().reshape(-1))

    expect("the shape of a batch of tokens, and whether its text is the same", batch, ((12, 8), True), see=TOKENIZER)


def test_integration_a_batch_is_its_texts():
    def equal():
        ours = trained()
        return ours.encode_batch([f"{line}{END}" for line in LINES], allowed_special="all") == [
            ours.encode(f"{line}{END}", allowed_special="all") for line in LINES
        ]

    expect("whether encode_batch of some texts is encode of each", equal, True, see=TOKENIZER)


def test_integration_more_tokens_make_texts_shorter():
    def lengths():
        ours = trained(special_tokens=[])
        return [len(tn.tokenization.truncated(ours, size).encode(" ".join(LINES))) for size in (256, 280, 320)]

    def falls(got):
        """falling numbers"""
        return got[0] > got[1] > got[2]

    expect("how many tokens a text has with vocabularies of 256, 280, 320", lengths, falls, see=COST)


# Performance


def seconds(call):
    """The least of three times."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def vocabulary_of_words(count):
    """Different words of eight letters, each occurring twice."""
    chance = random.Random(4)
    return {"".join(chance.choice("abcdefghijklmnop") for _ in range(8)).encode(): 2 for _ in range(count)}


def test_performance_learning_does_not_count_again():
    words = vocabulary_of_words(600)

    def first_hundred(learn):
        for _ in zip(range(100), learn(words)):
            pass

    expect(
        "time of 100 merges in 600 words by learn, by that of learn_slowly",
        lambda: (
            seconds(lambda: first_hundred(tn.tokenization.learn))
            / seconds(lambda: first_hundred(tn.tokenization.learn_slowly))
        ),
        measured_between(0, 0.4),
        "A merge has to do with the places of its pair only: is every word looked at each time?",
        see=QUICKLY,
    )


def test_performance_a_merge_visits_its_places_only():
    words = {**vocabulary_of_words(4000), b"xyxy": 5}

    def ratio():
        many, few = ([tn.Corpus(corpus) for _ in range(3)] for corpus in (words, {b"xyxy": 5, b"ab": 1}))
        fresh = [iter(many), iter(few)]
        least = [seconds(lambda corpora=corpora: next(corpora).merge((ord("x"), ord("y")), 256)) for corpora in fresh]
        return least[0] / (least[1] + 2e-5)

    expect(
        "time of a merge at two places in a corpus of 36,000 by that in one of 8",
        ratio,
        measured_between(0, 20),
        "Go through `places` of the pair, not through the corpus.",
        see=QUICKLY,
    )


def test_performance_words_are_remembered():
    ours = trained()
    text = " ".join(LINES) * 20
    seconds(lambda: ours.encode(text))
    expect(
        "time of encoding a text of known words by that of splitting it",
        lambda: seconds(lambda: ours.encode(text)) / seconds(lambda: tn.tokenization.split(text)),
        measured_between(0, 12),
        "What is between special tokens goes through `encode_ordinary`, in one piece, which remembers words.",
        see=COST,
    )


def test_performance_a_stream_takes_each_byte_once():
    def ratio():
        bytes_ = tn.Vocabulary(tn.tokenization.BYTES)
        short, long = [list(("wide sea é😀" * count).encode()) for count in (100, 1000)]
        return seconds(lambda: list(bytes_.decode_stream(long))) / seconds(lambda: list(bytes_.decode_stream(short)))

    expect(
        "time of a stream of 17,000 tokens by that of one of 1,700",
        ratio,
        measured_between(0, 40),
        "Keep only the bytes of an unfinished character, not all that have come.",
        see=BACK,
    )


def test_performance_the_memory_of_a_tokenizer_has_an_end():
    def grown():
        ours, chance = trained(), random.Random(5)
        gc.collect()
        tracemalloc.start()
        try:
            for _ in range(10):
                ours.encode("".join(chance.choice("abcdef") for _ in range(5_000)))
            return tracemalloc.get_traced_memory()[0] / 1e6
        finally:
            tracemalloc.stop()

    expect(
        "megabytes that a tokenizer keeps after ten different words of 5,000 letters",
        grown,
        measured_between(0, 0.1),
        "Long words are not remembered.",
        see=WORD,
    )
