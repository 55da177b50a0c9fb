"""Bad input, damaged files, long words, whatever the hash seed: what a learner need not care about."""

import json
import math
import os
import pickle
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

import tt_nlp as tn
import tt_tensor as tt
from tt_data import short_text
from tt_nlp import tokenization
from tt_nlp.hard_texts import HARD_TEXTS

END = "<|endoftext|>"
TOKENIZER = {name: tn.BPETokenizer.train(short_text(), 500, [END], name, progress=False) for name in tn.PATTERNS}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
FEW_LETTERS = st.text("aab c'1\n", max_size=60)


# Round trips and agreement


@pytest.mark.parametrize("pattern", tn.PATTERNS)
@given(text=TEXTS | FEW_LETTERS)
def test_every_text_comes_back(pattern, text):
    tokenizer = TOKENIZER[pattern]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text == "".join(tokenizer.decode_stream(ids))
    assert tokenizer.decode_bytes(ids) == text.encode() and all(0 <= number < tokenizer.vocab_size for number in ids)


@given(data=st.lists(st.integers(0, 500 - 1), max_size=40))
def test_a_stream_is_decode(data):
    tokenizer = TOKENIZER["gpt2"]
    pieces = list(tokenizer.decode_stream(data))
    assert "".join(pieces) == tokenizer.decode(data) and all(pieces)


@given(words=st.dictionaries(st.text("abc", min_size=1, max_size=12).map(str.encode), st.integers(1, 5), max_size=8))
def test_quick_and_slow_learn_the_same(words):
    assert list(tn.tokenization.learn(words)) == list(tn.tokenization.learn_slowly(words))


@given(
    word=st.text("ab", max_size=150).map(str.encode),
    parts=st.lists(st.text("ab", min_size=2, max_size=9).map(str.encode), max_size=12, unique=True),
)
def test_long_words_are_encoded_like_short_ones(word, parts):
    ranks = {token: number for number, token in enumerate([*tn.tokenization.BYTES, *parts])}
    assert tn.encode_long_word(word, ranks) == tn.tokenization.encode_word(word, ranks)


@pytest.mark.parametrize("pattern", tn.PATTERNS)
@given(text=st.text("ab é'.1 \n\r\t\u3000", max_size=60))
def test_pieces_have_the_words_of_the_text(pattern, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenization, "PIECE", 3)
        pieces = list(tn.tokenization.pieces(text))
    assert "".join(pieces) == text
    assert [word for piece in pieces for word in tn.tokenization.split(piece, pattern)] == tn.tokenization.split(
        text, pattern
    )


@pytest.mark.parametrize("pattern", tn.PATTERNS)
@given(text=st.text(st.characters(max_codepoint=127), max_size=60))
def test_ascii_is_split_as_any_text(pattern, text):
    words = tn.tokenization.split(text, pattern)  # which takes a shorter pattern for ASCII
    assert words == regex.findall(tn.PATTERNS[pattern], text) and "".join(words) == text


def test_a_text_of_many_pieces():
    text = "\n".join([*HARD_TEXTS.values(), short_text()] * 12)
    assert len(list(tn.tokenization.pieces(text))) > 2 and max(map(len, tn.tokenization.pieces(text))) < 60_000
    tokenizer = TOKENIZER["gpt4"]
    ids = tokenizer.encode_ordinary(text)
    assert tokenizer.decode(ids) == text
    assert ids == [number for word in tn.tokenization.split(text, "gpt4") for number in tokenizer.encode_ordinary(word)]


def test_the_same_tokens_whatever_the_hash_seed():
    program = (
        "import hashlib, tt_nlp as tn\n"
        "from tt_data import short_text\n"
        "t = tn.BPETokenizer.train(short_text(), 700, ['<|a|>', '<|b|>'], progress=False)\n"
        "print(hashlib.sha256(repr((t.tokens, t.special_tokens, t.encode('sea <|b|><|a|>', allowed_special='all')))"
        ".encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True,
            encoding="utf-8", check=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }  # fmt: skip
    assert len(found) == 1


def test_pickled_for_a_worker_process():
    tokenizer = pickle.loads(pickle.dumps(TOKENIZER["gpt4"]))
    assert tokenizer.encode(short_text()) == TOKENIZER["gpt4"].encode(short_text())


# Limits of time and memory


def in_proportion(seconds, short, long):
    """Whether 8 times the size takes less than 24 times as long, where a square would take 64 times. A busy machine may
    disturb it, and so it has ten tries; the least of each size counts."""
    least = {short: math.inf, long: math.inf}
    for _ in range(10):
        least = {size: min(known, seconds(size)) for size, known in least.items()}
        if least[long] < 8 * (3 * least[short] + 1e-3):
            return True
    return False


@pytest.mark.parametrize("letters", ["a", "ab", "abcdefgh", "é", " ", "\n", "!", "1"])
def test_a_long_word_takes_time_in_proportion(letters):
    tokenizer = tn.BPETokenizer.train(["ab" * 9, "abcdefgh" * 3, "éé éé", "!! !!", "11 11"], 268, progress=False)

    def seconds(size):
        text = (letters * size)[:size]
        start = time.perf_counter()
        tokenizer.encode(text)
        return time.perf_counter() - start

    assert in_proportion(seconds, 4_000, 32_000)


def test_learning_from_one_long_word_takes_time_in_proportion():
    chance = np.random.default_rng(0)
    word = bytes(chance.choice(list(b"abcd"), 40_000).tolist())

    def seconds(size):
        start = time.perf_counter()
        for _ in zip(range(60), tn.tokenization.learn({word[:size]: 1})):
            pass
        return time.perf_counter() - start

    assert in_proportion(seconds, 5_000, 40_000)


def test_the_cache_has_an_end(monkeypatch):
    monkeypatch.setattr(tokenization, "REMEMBERED", 100)
    tokenizer = tn.BPETokenizer(tn.tokenization.BYTES)
    text = " ".join(map(str, range(1000)))
    for _ in range(3):
        assert tokenizer.decode(tokenizer.encode(text)) == text and len(tokenizer._words) <= 100
    tokenizer.encode("x" * 5000)
    assert max(map(len, tokenizer._words)) <= 64


# Bad input


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tn.BPETokenizer.train("", 300), ValueError, "the text is empty"),
        (lambda: tn.BPETokenizer.train([], 300), ValueError, "the text is empty"),
        (lambda: tn.BPETokenizer.train("abab", 255), ValueError, "vocab_size is 255.*256 or more"),
        (lambda: tn.BPETokenizer.train("abab", 256, [END]), ValueError, "need 257 or more"),
        (lambda: tn.BPETokenizer.train("abab", 1000, strict=True), ValueError, "gives at most 259, since"),
        (lambda: tn.BPETokenizer.train("abab", 258, strict=True), ValueError, "gives 257, since no other pair"),
        (lambda: tn.BPETokenizer.train("abab", 257.0), TypeError, "vocab_size is an integer, not 257.0"),
        (lambda: tn.BPETokenizer.train("abab", True), TypeError, "vocab_size is an integer, not True"),
        (
            lambda: tn.BPETokenizer(tn.tokenization.BYTES, {END: 300}),
            TypeError,
            "whose numbers follow those of the tokens, not {",
        ),
        (lambda: tn.BPETokenizer(tn.tokenization.BYTES, [5]), TypeError, "a text is a str, not int"),
        (
            lambda: tn.BPETokenizer(tn.tokenization.BYTES, ["a\ud800"]),
            ValueError,
            "character 1 of the text .*surrogate",
        ),
        (lambda: tn.BPETokenizer.train("abab", 300, {END: 0}), TypeError, "whose numbers follow those of the tokens"),
        (lambda: TOKENIZER["gpt2"].encode("a", allowed_special=None), TypeError, r"\(\) for none, not as None"),
        (lambda: TOKENIZER["gpt2"].encode("a", disallowed_special=5), TypeError, r"\(\) for none, not as 5"),
        (lambda: tn.BPETokenizer.train("abab", 257, pattern="gpt5"), ValueError, "'gpt4', 'smollm', not 'gpt5'"),
        (lambda: tn.BPETokenizer.train(b"abab", 257), TypeError, "a text is a str, not bytes"),
        (lambda: tn.BPETokenizer.train([b"abab"], 257), TypeError, "a text is a str, not bytes"),
        (lambda: tn.BPETokenizer.train([5], 257), TypeError, "a text is a str, not int"),
        (lambda: tn.BPETokenizer.train("ab\ud800ab", 257), ValueError, "character 2 of the text .*surrogate"),
        (lambda: tn.BPETokenizer.train("abab", 258, [END, END]), ValueError, "special tokens must be different"),
        (lambda: tn.BPETokenizer.train("abab", 258, [""]), ValueError, "not empty"),
        (lambda: tn.BPETokenizer.train("abab", 270, END), TypeError, "special_tokens is a list of texts"),
        (lambda: tn.BPETokenizer(tn.tokenization.BYTES[1:]), ValueError, r"1 are missing, as b'\\x00'"),
        (lambda: tn.BPETokenizer([*tn.tokenization.BYTES, b"ab", b"ab"]), ValueError, "different from each other"),
        (lambda: tn.BPETokenizer([*tn.tokenization.BYTES, b""]), ValueError, "none empty"),
        (lambda: tn.BPETokenizer(tn.tokenization.BYTES, pattern="words"), ValueError, "not 'words'"),
        (lambda: TOKENIZER["gpt2"].encode("x\udfff"), ValueError, "character 1 of the text .*surrogate"),
        (lambda: TOKENIZER["gpt2"].encode(b"x"), TypeError, "a text is a str, not bytes"),
        (lambda: TOKENIZER["gpt2"].encode_ordinary(None), TypeError, "not NoneType"),
        (lambda: TOKENIZER["gpt2"].encode_batch("text"), TypeError, "a batch is a list of texts"),
        (lambda: TOKENIZER["gpt2"].encode(f"a{END}"), ValueError, "special token '<|endoftext|>'.*allowed_special"),
        (lambda: TOKENIZER["gpt2"].encode("a", allowed_special={"<pad>"}), ValueError, r"\['<pad>'\] are not special"),
        (lambda: TOKENIZER["gpt2"].encode("a", allowed_special=END), TypeError, 'given as "all" or as a set'),
        (lambda: TOKENIZER["gpt2"].encode("a", disallowed_special=END), TypeError, 'given as "all" or as a set'),
        (lambda: TOKENIZER["gpt2"].decode([500]), IndexError, "token 500 is not in the vocabulary, .* 0 to 499"),
        (lambda: TOKENIZER["gpt2"].decode([-1]), IndexError, "token -1"),
        (lambda: TOKENIZER["gpt2"].decode([1.5]), TypeError, "a token is an integer, not 1.5"),
        (lambda: list(TOKENIZER["gpt2"].decode_stream([500])), IndexError, "token 500"),
        (lambda: tn.CharTokenizer.train(""), ValueError, "one or more different characters"),
        (lambda: tn.CharTokenizer("aba"), ValueError, "different characters, not 'aba'"),
        (lambda: tn.CharTokenizer(["a", "bc"]), ValueError, "different characters"),
        (lambda: tn.CharTokenizer("a\ud800"), ValueError, "surrogate"),
        (lambda: tn.CharTokenizer("ab").encode("abc"), ValueError, "'c', character 2 of the text"),
        (lambda: tn.CharTokenizer("ab").decode([2]), IndexError, "token 2 is not in the vocabulary, which has 0 to 1"),
        (lambda: tn.CharTokenizer("ab").decode([-1]), IndexError, "token -1"),
        (lambda: tn.CharTokenizer("ab").decode([0.5]), TypeError, "a token is an integer, not 0.5"),
        (lambda: tn.unprinted("Ā☃"), ValueError, "'☃'"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=re.escape(END).join(message.split(END))):
        call()


@pytest.mark.parametrize(
    "tokenizer", [tn.CharTokenizer("abc"), tn.BPETokenizer(tn.tokenization.BYTES)], ids=["letters", "bytes"]
)
@pytest.mark.parametrize("decode", ["decode", "decode_stream"])
def test_what_is_decoded_is_one_text(tokenizer, decode):
    def decoded(ids):
        return "".join(getattr(tokenizer, decode)(ids))

    wanted = tokenizer.decode([1, 0])
    for ids in (np.array([1, 0]), tt.tensor([1, 0]), [tt.tensor(1), np.int64(0)], iter([1, 0])):
        assert decoded(ids) == wanted
    for batch in ([[1, 0]], np.array([[1, 0]]), tt.tensor([[1, 0]]), [np.array([1, 0])]):
        with pytest.raises(TypeError, match="the ids are those of one text, so decode each of several"):
            decoded(batch)
    for ids in ("a", b"a", 5, np.array(1), tt.tensor(1), None):
        with pytest.raises(TypeError, match=r"the ids of a text are a list of integers, such as \[5, 2\], not"):
            decoded(ids)
    for ids in (["a"], [None], [1.0], tt.tensor([1.0])):
        with pytest.raises(TypeError, match="a token is an integer, not"):
            decoded(ids)


def test_a_text_with_fewer_pairs_gives_fewer_tokens(tmp_path):
    with pytest.warns(UserWarning, match="vocab_size is 1000, but the text gives 258, since no other pair in it"):
        tokenizer = tn.BPETokenizer.train("abab", 1000, [END])
    assert tokenizer.tokens[256:] == [b"ab"] and tokenizer.special_tokens == {END: 257}
    path = tmp_path / "text.txt"
    path.write_text("abab", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"The text is the name of a file: give Path\("):
        tn.BPETokenizer.train(str(path), 10_000)


def test_a_vocabulary_that_cannot_be_is_refused_before_the_work(monkeypatch):
    monkeypatch.setattr("tt_nlp.tokenization.learn", None)
    with pytest.raises(ValueError, match="the text gives at most 266"):
        tn.BPETokenizer.train("low lower low", 267, strict=True)


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\xff")
    with pytest.raises(ValueError, match="picture.png is not UTF-8: .* at byte 0"):
        tn.BPETokenizer.train(path, 300, progress=False)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tn.BPETokenizer.train(tmp_path / "nowhere", 300, progress=False)


def test_a_file_is_read_as_it_is(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("a\r\nb\r\n\ufeffc".encode())
    assert list(tn.text_inputs.texts([path, "d"])) == ["a\r\nb\r\n\ufeffc", "d"]


def test_a_bar_is_shown_and_changes_nothing(capsys):
    shown = tn.BPETokenizer.train(short_text(), 300, progress=True)
    assert "merging" in capsys.readouterr().err
    hidden = tn.BPETokenizer.train(short_text(), 300, progress=False)
    assert shown.tokens == hidden.tokens and not capsys.readouterr().err


@pytest.mark.parametrize("size", [3, 300])
def test_a_word_that_is_a_token(size):
    tokenizer = tn.BPETokenizer([*tn.tokenization.BYTES, b"a" * size])  # which no merges would come to
    assert tokenizer.encode("a" * size) == [256] and tokenizer.encode("a" * (size - 1)) == [97] * (size - 1)


def test_the_longer_of_two_special_tokens():
    tokenizer = tn.BPETokenizer(tn.tokenization.BYTES, ["<|a|>", "<|a|>b", "<"])
    assert tokenizer.encode("<|a|>b<|a|><", allowed_special="all") == [257, 256, 258]


# Files


def saved(tmp_path):
    path = tmp_path / "tokenizer.json"
    TOKENIZER["gpt4"].save(path)
    return path


def test_a_file_is_what_is_documented(tmp_path):
    contents = json.loads(saved(tmp_path).read_text(encoding="utf-8"))
    assert [contents.get(key) for key in ("format", "version", "kind")] == ["tinytorch tokenizer", 1, "byte pairs"]
    assert contents["pattern"] == "gpt4" and contents["special_tokens"] == [END]
    assert contents["tokens"][:34][-1] == "!" and contents["tokens"][32] == "Ġ" and len(contents["tokens"]) == 499
    assert contents.keys() == {"format", "version", "kind", "pattern", "special_tokens", "tokens", "sha256"}


@given(alphabet=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(lambda text: sorted(set(text))))
def test_any_alphabet_can_be_saved(tmp_path_factory, alphabet):
    path = tmp_path_factory.mktemp("alphabet") / "letters.json"
    tn.CharTokenizer(alphabet).save(path)
    assert tn.CharTokenizer.load(path).alphabet == alphabet


@settings(max_examples=30)
@given(data=st.data())
def test_damage_is_noticed(tmp_path_factory, data):
    path = saved(tmp_path_factory.mktemp("damaged"))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    new = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    space = b" \n\t\r"
    content[place] = new
    path.write_bytes(content)
    try:
        loaded = tn.BPETokenizer.load(path)
    except ValueError as error:
        assert path.name in str(error)
    else:  # one space for another, between two parts
        assert new in space and loaded.tokens == TOKENIZER["gpt4"].tokens


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged or not a tokenizer"),
        (b"\xff\xfe", "damaged or not a tokenizer"),
        (b"[" * 100_000, "damaged or not a tokenizer"),
        (b"[1]", "has a list where an object is expected"),
        (b"{}", "is not a file of the format"),
        (b'{"format": "tinytorch tokenizer", "version": 2}', "version 1"),
        (b'{"format": "tinytorch tokenizer", "version": 1, "kind": "characters"}', "not of 'byte pairs'"),
        (b'{"format": "tinytorch tokenizer", "version": 1, "kind": "byte pairs"}', "SHA-256"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"tokenizer.json .*{message}"):
        tn.BPETokenizer.load(path)


@pytest.mark.parametrize(
    "change",
    [{"tokens": ["a"]}, {"tokens": 5}, {"tokens": None}, {"tokens": [3]}, {"special_tokens": 1}, {"pattern": []},
     {"pattern": "gpt3"}],
    ids=str,
)  # fmt: skip
def test_contents_that_make_no_tokenizer(tmp_path, change):
    tn.write_contents(tmp_path / "made.json", {"kind": "byte pairs", **TOKENIZER["gpt2"].contents(), **change})
    with pytest.raises(ValueError, match="made.json has no valid tokenizer"):
        tn.BPETokenizer.load(tmp_path / "made.json")


def test_contents_that_lack_a_part(tmp_path):
    tn.write_contents(tmp_path / "made.json", {"kind": "byte pairs", "tokens": []})
    with pytest.raises(ValueError, match="made.json has no valid tokenizer: .*256 are missing"):
        tn.BPETokenizer.load(tmp_path / "made.json")
    tn.write_contents(tmp_path / "made.json", {"kind": "characters", "alphabet": "ab", "surplus": 1})
    with pytest.raises(ValueError, match="made.json has no valid tokenizer: .*surplus"):
        tn.CharTokenizer.load(tmp_path / "made.json")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = saved(tmp_path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        TOKENIZER["gpt2"].save(path)
    assert path.read_bytes() == before


# GPT-2's files, made small


def gpt2_files(folder, merges=("a b", "ab c", "Ġ a"), special=(END,), version="#version: 0.2"):
    names = [*tn.CHARACTERS.values(), *(merge.replace(" ", "") for merge in merges), *special]
    numbers = {name: number for number, name in enumerate(names)}
    (folder / "encoder.json").write_text(json.dumps(numbers), encoding="utf-8")
    (folder / "vocab.bpe").write_text("\n".join([version, *merges]) + "\n", encoding="utf-8", newline="\n")
    return folder


def changed(path, old, new):
    """The file with one text in place of another that it has."""
    before = path.read_text(encoding="utf-8")
    assert old in before
    path.write_text(before.replace(old, new), encoding="utf-8", newline="\n")


def test_gpt2_files(tmp_path):
    tokenizer = tn.BPETokenizer.from_gpt2(gpt2_files(tmp_path))
    assert tokenizer.vocab_size == 260 and tokenizer.tokens[0] == b"!" and tokenizer.special_tokens == {END: 259}
    assert [tokenizer.token_bytes(number) for number in tokenizer.encode("abc ab")] == [b"abc", b" ", b"ab"]
    tokenizer.save(tmp_path / "ours.json")
    assert tn.BPETokenizer.load(tmp_path / "ours.json").tokens == tokenizer.tokens


def test_gpt2_files_with_special_tokens_in_any_order(tmp_path):
    folder = gpt2_files(tmp_path, special=[f"<{number}>" for number in range(12, 0, -1)])
    assert list(tn.BPETokenizer.from_gpt2(folder).special_tokens)[:4] == ["<12>", "<11>", "<10>", "<9>"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: gpt2_files(f, version="a b"), "vocab.bpe is damaged: 'a b' is not a line"),
        (lambda f: changed(f / "vocab.bpe", "ab c", "a b c"), "'a b c' is not a line"),
        (lambda f: changed(f / "vocab.bpe", "ab c\nĠ a\n", ""), "the merge that makes 'abc'"),
        (lambda f: changed(f / "vocab.bpe", "ab c", "ab d"), "do not fit together"),
        (lambda f: changed(f / "encoder.json", "259", "300"), "the numbers in"),
        (lambda f: (f / "vocab.bpe").write_text("", encoding="utf-8"), "damaged or not a vocab.bpe"),
        (lambda f: (f / "vocab.bpe").write_bytes(b"\xff"), "damaged or not a vocab.bpe"),
        (lambda f: (f / "encoder.json").write_text("{}", encoding="utf-8"), "do not fit together"),
        (lambda f: (f / "encoder.json").write_text("{", encoding="utf-8"), "damaged or not a tokenizer"),
        (lambda f: gpt2_files(f, merges=("☃ b",)), "represents no byte"),
    ],
)  # fmt: skip
def test_gpt2_files_that_are_damaged(tmp_path, damage, message):
    damage(gpt2_files(tmp_path))
    with pytest.raises(ValueError, match=message):
        tn.BPETokenizer.from_gpt2(tmp_path)
