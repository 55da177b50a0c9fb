"""The same tokens as tiktoken's and Hugging Face's, from our vocabularies and from GPT-2's own."""

import os
import random
from functools import cache
from itertools import islice
from pathlib import Path

import pytest

import tt_nlp as tn
from tt_data import short_text
from tt_nlp.hard_texts import HARD_TEXTS

tiktoken = pytest.importorskip("tiktoken", reason="tiktoken is the oracle here: hatch run parity:run")
END = "<|endoftext|>"
DATA = Path(os.environ.get("TT_DATA", "nowhere"))
TIKTOKEN_PATTERNS = {  # as tiktoken_ext/openai_public.py has them, with possessive quantifiers
    "gpt2": r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""",
    "gpt4": r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
            r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s""",
}  # fmt: skip


@cache
def trained(pattern):
    """A tokenizer that has seen many scripts, and tiktoken's with its vocabulary and OpenAI's pattern."""
    source = [short_text(), *HARD_TEXTS.values(), Path(tn.__file__).with_name("tokenization.py")]
    ours = tn.BPETokenizer.train(source, 1200, [END], pattern, progress=False)
    theirs = tiktoken.Encoding(
        "ours", pat_str=TIKTOKEN_PATTERNS[pattern], mergeable_ranks=ours.ranks, special_tokens=ours.special_tokens
    )
    return ours, theirs


@cache
def gpt2():
    """GPT-2's tokenizer, by us and by tiktoken's own construction."""
    if not (DATA / "gpt2" / "vocab.bpe").is_file():
        pytest.skip("GPT-2's encoder.json and vocab.bpe are not in $TT_DATA/gpt2")
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    vocabulary, merges = DATA / "gpt2" / "encoder.json", DATA / "gpt2" / "vocab.bpe"
    ranks = data_gym_to_mergeable_bpe_ranks(vocab_bpe_file=str(merges), encoder_json_file=str(vocabulary))
    theirs = tiktoken.Encoding(
        "gpt2", explicit_n_vocab=50257, pat_str=TIKTOKEN_PATTERNS["gpt2"], mergeable_ranks=ranks,
        special_tokens={END: 50256},
    )  # fmt: skip
    return tn.BPETokenizer.from_gpt2(DATA / "gpt2"), theirs


def random_texts(count=1000):
    """Unicode strings of up to 60 characters, of all of Unicode, of some scripts, of what the patterns care about."""
    chance = random.Random(11)
    letters = "abcABC'sStTlLrReEvVdDmM019  \t\n\r.,!-_éß中字あש🙂\u0301\u00a0\u2003\u0085\x1c\u017f\u212a"
    blocks = [(0, 128), (0, 0x800), (0x600, 0x700), (0x900, 0xA00), (0x2000, 0x2070), (0x4E00, 0x9FFF), (0, 0x110000)]
    for _ in range(count):
        low, high = chance.choice(blocks)
        few = chance.random() < 0.5
        length = chance.randrange(60)
        text = "".join(chance.choice(letters) if few else chr(chance.randrange(low, high)) for _ in range(length))
        yield "".join(c for c in text if not "\ud800" <= c <= "\udfff")


def files():
    """The two novels, the plays, and source code, by name."""
    for name in ("gutenberg/2600-0.txt", "gutenberg/2701-0.txt", "tinyshakespeare/input.txt"):
        yield pytest.param(DATA / name, id=name.replace("/", "-"))
    yield pytest.param(Path(tn.__file__).with_name("tokenization.py"), id="source-code")
    yield pytest.param(Path(os.__file__).with_name("typing.py"), id="more-source-code")


def agree(ours, theirs, text):
    ids = ours.encode_ordinary(text)
    assert ids == theirs.encode_ordinary(text)
    assert ours.decode(ids) == text and ours.decode_bytes(ids) == theirs.decode_bytes(ids)


@pytest.mark.parametrize("which", ["gpt2", "gpt4", "own"])
@pytest.mark.parametrize("name", HARD_TEXTS)
def test_hard_texts(which, name):
    agree(*(gpt2() if which == "own" else trained(which)), HARD_TEXTS[name])


@pytest.mark.parametrize("which", ["gpt2", "gpt4", "own"])
def test_random_texts(which):
    ours, theirs = gpt2() if which == "own" else trained(which)
    for text in random_texts():
        agree(ours, theirs, text)


@pytest.mark.parametrize("which", ["gpt2", "gpt4", "own"])
@pytest.mark.parametrize("path", list(files()))
def test_whole_files(which, path):
    if not path.is_file():
        pytest.skip(f"{path.name} is not in $TT_DATA")
    ours, theirs = gpt2() if which == "own" else trained(which)
    agree(ours, theirs, path.read_bytes().decode())


@pytest.mark.parametrize("which", ["gpt2", "gpt4"])
def test_to_tiktoken_is_tiktoken(which):
    ours, theirs = trained(which)
    exported = ours.to_tiktoken()
    assert exported.n_vocab == ours.vocab_size and exported.special_tokens_set == {END}
    for text in [*HARD_TEXTS.values(), *islice(random_texts(), 200)]:
        assert exported.encode_ordinary(text) == theirs.encode_ordinary(text)


SPECIAL_ARGUMENTS = [
    {}, {"allowed_special": "all"}, {"allowed_special": {END}}, {"disallowed_special": ()},
    {"allowed_special": {END}, "disallowed_special": {END}}, {"allowed_special": set(), "disallowed_special": {"fore"}},
    {"allowed_special": "all", "disallowed_special": {"after"}}, {"disallowed_special": {"nowhere"}},
]  # fmt: skip


@pytest.mark.parametrize("arguments", SPECIAL_ARGUMENTS, ids=str)
@pytest.mark.parametrize("name", ["a special token", "nothing", "digits"])
def test_special_tokens(name, arguments):
    ours, theirs = trained("gpt2")

    def outcome(tokenizer):
        try:
            return tokenizer.encode(HARD_TEXTS[name], **arguments)
        except ValueError:
            return ValueError

    assert outcome(ours) == outcome(theirs)


def test_a_batch():
    ours, theirs = trained("gpt4")
    texts = [text for name, text in HARD_TEXTS.items() if name != "a special token"]
    assert ours.encode_batch(texts) == theirs.encode_batch(texts)
    marked = [f"{text}{END}" for text in texts]
    assert ours.encode_batch(marked, allowed_special="all") == theirs.encode_batch(marked, allowed_special="all")


def test_a_word_of_a_megabyte():
    ours, theirs = gpt2()
    chance = random.Random(12)
    text = "".join(chance.choice("abcdefgh") for _ in range(1_000_000))
    agree(ours, theirs, text)
    agree(ours, theirs, "a" * 1_000_000)


def test_hugging_face_encodes_alike():
    tokenizers = pytest.importorskip("tokenizers", reason="Hugging Face's tokenizers are the oracle here")
    ours, _ = trained("gpt2")
    names = [tn.printed(token) for token in ours.tokens]
    merges, earlier = [], {}
    for number, token in enumerate(ours.tokens):
        if number > 255:
            left, right = tn.tokenization.encode_word(token, earlier)
            merges.append((names[left], names[right]))
        earlier[token] = number
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE({name: i for i, name in enumerate(names)}, merges))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in [short_text(), *HARD_TEXTS.values(), *random_texts(300)]:
        assert ours.encode_ordinary(text) == theirs.encode(text).ids


def test_hugging_face_learns_as_much():
    tokenizers = pytest.importorskip("tokenizers", reason="Hugging Face's tokenizers are the oracle here")
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=800, initial_alphabet=alphabet, show_progress=False)
    theirs.train_from_iterator([short_text()], trainer)
    ours = tn.BPETokenizer.train(short_text(), 800, progress=False)
    assert {tn.printed(token) for token in ours.tokens[:350]} <= theirs.get_vocab().keys()
    size, other = len(ours.encode(short_text())), len(theirs.encode(short_text()).ids)
    assert abs(size / other - 1) < 0.01  # pairs that are equally frequent are taken in another order
