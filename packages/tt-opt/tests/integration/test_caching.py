"""Chapter 16 at work: models that have learned, on every kernel set, and what a token costs."""

import numpy as np
import pytest

import tt_data as td
import tt_nlp as tn
import tt_opt
import tt_tensor as tt
from tt_tensor.teaching import between, expect

UNREAD, MANY, SMALLER = "What has not been read yet", "Many texts", "Smaller caches"


@pytest.fixture(scope="module")
def learned():
    """A small GPT that has read a little of Moby-Dick, and the tokenizer."""
    tt.manual_seed(0)
    tokenizer, training, _ = tn.transformers.load_story(32)
    return tn.train_on_text(tn.transformers.small_gpt(tokenizer.vocab_size, 2, 32, 64), training, 40), tokenizer


def test_imports_find_what_the_chapter_promises():
    names = ["Batcher", "GroupedQueryAttention", "KVCache", "Request", "RotaryGPT", "best_of", "cache_bytes"]
    names += ["generate", "look_back", "multiply_adds_of_a_token", "read", "stream", "through", "unread", "speculate"]
    expect(
        "the names that chapter 16 lacks",
        [n for n in names if not (hasattr(tt_opt, n) or hasattr(tt_opt.caching, n))],
        [],
        see="Exercises",
    )


def test_compatibility_a_trained_model_writes_the_same(learned):
    model, tokenizer = learned
    prompts = [tokenizer.encode(text) for text in ("Call me ", "I ", "whale")]
    how = {"temperature": 0}
    expect(
        "does a trained model write the same 60 characters behind three prompts with a cache as without?",
        lambda: tt_opt.generate(model, prompts, 60, **how) == tn.generate(model, prompts, 60, **how),
        True,
        "At temperature 0 it is the text that chapter 14's generate writes.",
        see=MANY,
    )


def test_compatibility_a_rotary_model_is_trained_by_chapter_14(learned):
    _, tokenizer = learned
    _, training, held_out = tn.transformers.load_story(32)

    def losses():
        tt.manual_seed(0)
        model = tt_opt.RotaryGPT(tn.GPTConfig(tokenizer.vocab_size, 64, 2, 4, 32), kv_heads=2, window=16)
        before = tn.transformers.surprise_on(model, held_out)
        return tn.transformers.surprise_on(tn.train_on_text(model, training, 60), held_out) - before

    expect("the change of a RotaryGPT's loss on held-out text by 60 steps, in nats", losses, between(-4, -1),
           "It learns with the loss, the optimizer and `fit` of earlier chapters.", see=SMALLER)  # fmt: skip


def test_integration_a_chat_reads_only_what_is_new(learned):
    model, tokenizer = learned
    cache, text = tt_opt.KVCache.of(model), tokenizer.encode("Call me Ishmael. ")

    def rows():
        read, seen = list(text), []
        for turn in ("Some", " years"):
            read += tokenizer.encode(turn)
            with tt.meter() as work:
                logits = tt_opt.read(model, [(cache, tt_opt.caching.unread(cache, read, 64))])
            seen.append((work.calls["look_back"], bool(np.isfinite(logits).all())))
        return seen, len(cache)

    expect("calls of look_back in two turns (one for each block), and the length of the cache",
           rows, ([(2, True)] * 2, 27), see=UNREAD)  # fmt: skip


def test_integration_texts_of_the_loader_as_prompts(learned):
    model, _ = learned
    _, training, _ = tn.transformers.load_story(16)
    (batch, _), *_ = td.DataLoader(training, 4)
    expect(
        "is generate of a batch (4, 16) that a DataLoader gives what it is without a cache?",
        lambda: tt_opt.generate(model, batch, 5, temperature=0) == tn.generate(model, batch, 5, temperature=0),
        True,
        "A tensor (B, T) is B prompts.",
        see=MANY,
    )


def test_performance_a_token_costs_what_the_formula_says(learned):
    model, _ = learned
    tt.manual_seed(0)
    text = tt.generator().integers(0, model.config.vocab_size, 64).tolist()

    def costs():
        cache, seen = tt_opt.KVCache.of(model), []
        for end in range(1, 64):
            with tt.meter() as work:
                tt_opt.read(model, [(cache, text[end - 1 : end])])
            seen.append(sum(work.multiply_adds[name] for name in ("affine", "matmul", "look_back")))
        return [seen[0], seen[62], seen[62] - seen[61]]

    formula = [tt_opt.multiply_adds_of_a_token(model.config, n) for n in (1, 62, 63)]
    expect(
        "multiply-adds of the first and the 63rd token, and by how many the last one cost more than the one before",
        costs,
        [formula[0], formula[2], formula[2] - formula[1]],
        (lambda got: got[1] > 10 * got[0], "A pass with a cache reads the new token only."),
        see=UNREAD,
    )
