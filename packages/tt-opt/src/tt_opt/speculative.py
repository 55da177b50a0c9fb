# # Speculative decoding
#
# An appendix of chapter 16. At the end of it your model writes several tokens with one pass, guessed by a smaller
# model, and yet its text has exactly the distribution that it would have without the guesses.

# ## The hurt
#
# With a cache, the pass for one token waits for the bytes of the weights: it is *memory-bound*. How long does a pass
# for several tokens of one text take?

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

import tt_tensor as tt
from tt_nlp import GPT, GPTConfig, next_probabilities, refuse_settings, token_ids, train_on_text
from tt_nlp.transformers import load_story, small_gpt
from tt_opt.caching import KVCache, generate, read, stream, unread
from tt_tensor import Module, generator


def show_passes():
    tt.manual_seed(0)
    model = GPT(GPTConfig(65, 256, n_layer=6, n_head=6, n_embd=384))
    text = generator().integers(0, 65, 116).tolist()
    cache = KVCache.of(model)
    read(model, [(cache, text[:100])])
    for count in (1, 2, 4, 8):

        def several():
            cache.keep(100)
            read(model, [(cache, text[100 : 100 + count])])

        print(f"a pass for {count} tokens: {tt.measure(several).seconds * 1e3:5.1f} ms")


# Eight tokens take far less than eight times as long as one. If only we knew them in advance! But we can *guess* them.
# A small model, the *draft*, writes a few tokens quickly. The large one reads all of them in a single pass, which gives
# us its own probabilities at each position, and with these we decide how many of the guesses we accept. This is
# *speculative decoding* (Y. Leviathan et al., 2022; C. Chen et al., 2023).

# ## Accept or replace
#
# How can the large model accept guesses of another model and still write in its own way? Suppose that the draft has
# drawn token $x$ with probability $q(x)$, and that the large model would have given it $p(x)$. We accept it with
# probability $\min(1, p(x) / q(x))$. Otherwise we draw a token from the part of $p$ that exceeds $q$, that is, from
# $\max(0, p - q)$, divided by its sum. A token then comes out with the probability
#
# $$ q(x) \min\left(1, \frac{p(x)}{q(x)}\right) + \Bigl(1 - \sum_y \min(p(y), q(y))\Bigr)
#    \frac{\max(0, p(x) - q(x))}{\sum_y \max(0, p(y) - q(y))} . $$
#
# The sum in the denominator equals the bracket, because $p - \min(p, q) = \max(0, p - q)$ and $p$ adds up to 1. So we
# are left with $\min(p, q) + \max(0, p - q) = p$. The draft only decides how often we are lucky, and never which text
# we get.


def accepted(guess: int, p: np.ndarray, q: np.ndarray, random: np.random.Generator) -> int:
    """Return the guess, which was drawn with probabilities q (V,), or another token in its place, so that the result is
    distributed with probabilities p (V,)."""
    if random.random() * q[guess] < p[guess]:
        return guess
    rest = np.maximum(p - q, 0)
    return int(random.choice(len(p), p=rest / rest.sum()))


# We draw 4,000 tokens from a poor draft, and count.


def check_accepted():
    p, q, random = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.1, 0.8]), np.random.default_rng(0)
    found = [accepted(int(random.choice(3, p=q)), p, q, random) for _ in range(4000)]
    assert np.allclose(np.bincount(found) / 4000, p, atol=0.03)


# ## The loop
#
# Now we can write the loop. The draft, which has a cache of its own, guesses some tokens, and we remember their
# probabilities.


def guessed(
    draft: Module, cache: KVCache, text: list[int], count: int, settings: dict[str, Any], random: np.random.Generator
) -> tuple[list[int], list[np.ndarray]]:
    """Return `count` tokens that continue a text, drawn from a draft, and the probabilities from which each was
    drawn."""
    guesses: list[int] = []
    q = []
    for _ in range(count):
        new = unread(cache, text + guesses, draft.config.block_size)
        q.append(next_probabilities(read(draft, [(cache, new)])[0], **settings))
        guesses.append(int(random.choice(len(q[-1]), p=q[-1])))
    return guesses, q


# Then the model reads the newest token and all guesses in one pass. We need its probabilities after each of them, which
# we get from `read` with `every=True`. We go through the guesses from the left, up to the first one that we replace.
# Later guesses do not belong to the text any more, and `unread` makes both caches forget them. If we have accepted
# every guess, the probabilities after the last one give us another token for free.
#
# Near the end of the context the positions would move (chapter 16), so there we guess only as far as the context
# reaches.


def speculate(
    model: Module, draft: Module, prompt: Sequence[int], max_new_tokens: int, *, ahead: int = 4,
    temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None, stop: Iterable[int] = (),
    seed: int | None = None,
) -> Iterator[list[int]]:
    """Yield the tokens that continue a prompt, in lists of 1 to ahead + 1, one list for each pass of the model.

    They are drawn from the model's distribution, whatever the draft is; at temperature 0 they are those of `generate`.
    The draft needs the same vocabulary. Other arguments and errors are those of `tt_nlp.transformers.rounds`."""
    refuse_settings(temperature, top_k, top_p)
    if ahead < 1 or max_new_tokens < 0:
        raise ValueError(f"ahead must be 1 or more and max_new_tokens 0 or more, not {ahead} and {max_new_tokens}")
    if draft.config.vocab_size != model.config.vocab_size:
        sizes = f"{draft.config.vocab_size} and {model.config.vocab_size}"
        raise ValueError(f"draft and model must have the same vocabulary, but theirs have {sizes} tokens")
    return _speculate(
        (model, draft), token_ids(prompt), max_new_tokens, ahead,
        {"temperature": temperature, "top_k": top_k, "top_p": top_p}, frozenset(stop),
        np.random.default_rng(int(generator().integers(2**63)) if seed is None else seed),
    )


# The loop itself is a generator. A wrong request is refused before the first token.


def _speculate(models, text, left, ahead, settings, stop, random):
    model, draft = models
    cache, small, context = KVCache.of(model), KVCache.of(draft), model.config.block_size
    while left:
        count = max(0, min(ahead, left - 1, context - len(text)))
        guesses, q = guessed(draft, small, text, count, settings, random)
        logits = read(model, [(cache, unread(cache, text + guesses, context))], every=True)[-count - 1 :]
        taken = _taken(guesses, [next_probabilities(row, **settings) for row in logits], q, stop, random)
        text += taken
        left = 0 if taken[-1] in stop else left - len(taken)
        yield taken


def _taken(guesses, p, q, stop, random):
    """Return the tokens of one pass, given the probabilities p and q at each guess; p has one more behind them."""
    taken = []
    for i, guess in enumerate(guesses):
        taken.append(accepted(guess, p[i], q[i], random))
        if taken[-1] != guess or guess in stop:
            return taken
    return [*taken, int(random.choice(len(p[-1]), p=p[-1]))]


# At temperature 0 the probabilities are 1 and 0, and we accept a guess only if it is the model's own choice. So we must
# get the text of chapter 16, token for token.


def check_speculation():
    model, draft = small_gpt(20, layers=2, width=16, length=24), small_gpt(20, layers=1, width=16, length=12)
    tokens = [token for taken in speculate(model, draft, [1, 2, 3], 30, temperature=0) for token in taken]
    assert [1, 2, 3, *tokens] == generate(model, [1, 2, 3], 30, temperature=0)


# ## What it brings
#
# Suppose that we accept each of $k$ guesses with probability $a$, independently of the others. A pass always brings one
# token, a second one if the first guess is accepted, a third one if the first two are, and so on: $1 + a + a^2 + \dots
# + a^k$ tokens on average. But the passes of the draft are not free. So it must be much smaller than the model and
# still guess well, for which both should have learned from similar texts.


def tokens_a_pass(rate: float, ahead: int) -> float:
    """Return how many tokens a pass brings on average if each of `ahead` guesses is accepted with probability
    `rate`."""
    return sum(rate**i for i in range(ahead + 1))


# We train a model and a draft on the same text.


def show_speculation():
    tokenizer, training, _ = load_story()
    tt.manual_seed(0)
    model, draft = (small_gpt(tokenizer.vocab_size, layers, width, 64) for layers, width in ((4, 256), (1, 64)))
    train_on_text(model, training, 12, 2e-3), train_on_text(draft, training, 120)
    prompt = tokenizer.encode("I ")
    alone = tt.measure(lambda: list(stream(model, prompt, 60, seed=0))).seconds / 60
    print(f"alone: {alone * 1e3:.1f} ms a token")
    for ahead in (1, 2, 4):
        passes = list(speculate(model, draft, prompt, 60, ahead=ahead, seed=0))
        seconds = tt.measure(lambda: list(speculate(model, draft, prompt, 60, ahead=ahead, seed=0))).seconds / 60
        print(f"{ahead} ahead: {60 / len(passes):.1f} tokens a pass, {seconds * 1e3:.1f} ms a token")


# You gain most if the two models differ much in size and little in their predictions. Ours are both small, so the
# overhead of a pass, which is the same for both, counts more than the bytes, and guessing hardly pays. For a model of
# billions of weights the draft costs next to nothing, and two to three times as many tokens a second are common.

__all__ = ["accepted", "guessed", "speculate", "tokens_a_pass"]
