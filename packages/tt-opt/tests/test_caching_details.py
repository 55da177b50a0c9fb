"""Caches, batches and speculation in their corners: errors, many requests at random, other dtypes and kernel sets."""

import itertools
import threading

import numpy as np
import pytest

import tt_nlp as tn
import tt_opt
import tt_tensor as tt
from tt_autograd import check_gradients


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def gpt(layers=2, length=16, width=8):
    return tn.GPT(tn.GPTConfig(20, length, layers, 2, width)).eval()


def rotary(kv_heads=2, window=None, length=1000):
    return tt_opt.RotaryGPT(tn.GPTConfig(20, length, 2, 4, 16), kv_heads, window).eval()


def random_text(length, seed=0):
    return np.random.default_rng(seed).integers(0, 20, length).tolist()


# Caches


@pytest.mark.parametrize("window", [None, 1, 2, 7, 64, 65, 200])
def test_a_cache_answers_like_the_text_whatever_was_read_before(window):
    """Texts that grow, shrink and change at random places, in pieces of any size."""
    model, random = rotary(window=window), np.random.default_rng(1)
    cache, text = tt_opt.KVCache.of(model), random_text(3)
    for _ in range(25):
        cut = int(random.integers(1, len(text) + 1))
        text = text[:cut] + random.integers(0, 20, int(random.integers(0, 90))).tolist()
        found = tt_opt.read(model, [(cache, tt_opt.caching.unread(cache, text, 1000))])
        assert np.allclose(found, tn.next_logits(model, [text]), atol=2e-5)
        assert cache.tokens == text
        if window is not None:  # no more than the window, what was new, and a block
            assert cache.keys.shape[1] <= window - 1 + 90 + 3 + 2 * 64 or len(text) <= cache.keys.shape[1]


def test_a_window_bounds_the_memory():
    model = rotary(window=10)
    cache = tt_opt.KVCache.of(model)
    tt_opt.generate(model, [1, 2], 300, cache=cache, temperature=0)
    assert cache.nbytes == 2 * 2 * 2 * 64 * 4 * 4 and len(cache) == 301


def test_a_copy_is_another_cache():
    model, text = gpt(), random_text(9)
    first = tt_opt.KVCache.of(model)
    tt_opt.read(model, [(first, text[:5])])
    second = first.copy()
    one = tt_opt.read(model, [(first, text[5:7])])
    other = tt_opt.read(model, [(second, [19, 18])])
    assert np.allclose(one, tn.next_logits(model, [text[:7]]), atol=1e-5)
    assert np.allclose(other, tn.next_logits(model, [[*text[:5], 19, 18]]), atol=1e-5)
    assert first.tokens == text[:7] and second.tokens == [*text[:5], 19, 18]


def test_keys_of_a_model_that_diverged_do_not_reach_the_next_text():
    model, text = gpt(), random_text(9)
    cache = tt_opt.KVCache.of(model)
    tt_opt.read(model, [(cache, text)])
    cache.keys[:, 2:], cache.values[:, 2:] = np.nan, np.inf
    new = [*text[:2], 0, 1]
    found = tt_opt.read(model, [(cache, tt_opt.caching.unread(cache, new, 16))])
    assert np.allclose(found, tn.next_logits(model, [new]), atol=1e-5)


@pytest.mark.parametrize("name", ["default", "fast", "compiled", "loops"])
def test_kernel_sets_read_the_same(name):
    model, text = gpt(), random_text(12)
    wanted = tn.next_logits(model, [text])
    with tt_opt.accelerate(tt_opt.best_set() if name == "compiled" else name):
        cache = tt_opt.KVCache.of(model)
        tt_opt.read(model, [(cache, text[:7])])
        assert np.allclose(tt_opt.read(model, [(cache, text[7:])]), wanted, atol=1e-5)


def test_reading_records_nothing():
    model = gpt()
    tt_opt.read(model, [(tt_opt.KVCache.of(model), [1, 2])])
    assert all(p.grad is None for p in model.parameters())
    assert tt.ones(2, requires_grad=True).sum().requires_grad  # recording is on again


# Refused


@pytest.mark.parametrize("attempt, kind, words", [
    (lambda m, c: tt_opt.read(m, []), ValueError, "at least one new token"),
    (lambda m, c: tt_opt.read(m, [(c, [])]), ValueError, "at least one new token"),
    (lambda m, c: tt_opt.read(m, [(c, [1]), (c, [2])]), ValueError, "the same cache"),
    (lambda m, c: tt_opt.read(m, [(c, [1] * 17)]), ValueError, "17 tokens do not fit into a context of 16"),
    (lambda m, c: tt_opt.read(m, [(c, [20])]), IndexError, "20"),
    (lambda m, c: tt_opt.Batcher(m, 0), ValueError, "one slot or more"),
    (lambda m, c: tt_opt.Batcher(m, caches=[]), ValueError, "without a cache"),
    (lambda m, c: tt_opt.Batcher(m, piece=0), ValueError, "pieces of one token or more"),
    (lambda m, c: tt_opt.Batcher(m).submit("text", 3), TypeError, "token ids"),
    (lambda m, c: tt_opt.Batcher(m).submit([], 3), ValueError, "at least one token"),
    (lambda m, c: tt_opt.Batcher(m).submit([1], -1), ValueError, "not -1"),
    (lambda m, c: tt_opt.Batcher(m).submit([1], 1, temperature=-1), ValueError, "temperature"),
    (lambda m, c: tt_opt.generate(m, [[1], [2]], 1, cache=c), ValueError, "one cache holds one text"),
    (lambda m, c: tt_opt.GroupedQueryAttention(16, 4, 3), ValueError, "3 heads of keys"),
    (lambda m, c: tt_opt.GroupedQueryAttention(18, 4, 2), ValueError, "the width 18"),
    (lambda m, c: tt_opt.GroupedQueryAttention(16, 4, 0), ValueError, "0 heads of keys"),
    (lambda m, c: tt_opt.GroupedQueryAttention(16, 4, 2, window=0), ValueError, "window"),
    (lambda m, c: tt_opt.speculate(m, rotary(), [1], 3, ahead=0), ValueError, "ahead"),
    (lambda m, c: tt_opt.speculate(m, tn.transformers.small_gpt(21), [1], 3), ValueError, "21 and 20"),
], ids=itertools.count())  # fmt: skip
def test_what_cannot_be_meant_is_refused(attempt, kind, words):
    model = gpt()
    cache = tt_opt.KVCache.of(model)
    with pytest.raises(kind, match=words):
        attempt(model, cache)
    assert cache.tokens == []


# Requests


def alone(model, prompt, count, how):
    request = (batcher := tt_opt.Batcher(model, 1)).submit(prompt, count, **how)
    batcher.run()
    return request.text


@pytest.mark.parametrize("make", [gpt, rotary, lambda: rotary(window=5)], ids=["learned", "rotary", "window"])
def test_requests_at_random_get_what_each_gets_alone(make):
    model, random = make(), np.random.default_rng(3)
    batcher, requests = tt_opt.Batcher(model, slots=3, piece=5), []
    for number in range(20):
        prompt = random.integers(0, 20, int(random.integers(1, 30))).tolist()
        how = {"seed": number, "temperature": float(random.choice([0, 0.5, 1])), "stop": [int(random.integers(20))]}
        count = int(random.integers(0, 12))
        requests.append((batcher.submit(prompt, count, **how), prompt, count, how))
        for _ in range(int(random.integers(0, 4))):
            batcher.step()
    batcher.run()
    for request, prompt, count, how in requests:
        assert request.text == alone(model, prompt, count, how) and request.ended in ("stop", "length")
        assert request.tokens == request.text[len(prompt) :]
    assert len(batcher.free) == 3 and not batcher.busy


def test_a_cancelled_request_frees_its_slot_at_once():
    batcher = tt_opt.Batcher(gpt(), slots=1)
    first, second, third = (batcher.submit([i], 5, seed=i) for i in range(3))
    batcher.step()
    batcher.cancel(first), batcher.cancel(third)
    assert len(batcher.free) == 1 and [first.ended, third.ended] == ["cancelled"] * 2
    batcher.run()
    assert second.ended == "length" and len(first.tokens) == 1 and third.tokens == []
    batcher.cancel(second)
    assert second.ended == "length"


def test_a_step_without_requests_does_nothing():
    batcher = tt_opt.Batcher(gpt())
    assert batcher.step() == [] and not batcher.busy
    assert batcher.submit([1], 0).ended == "length" and not batcher.busy


def test_an_error_in_a_pass_loses_no_request():
    model = gpt()
    batcher = tt_opt.Batcher(model)
    good, bad = batcher.submit([1, 2], 3, seed=0), batcher.submit([99], 3)
    with pytest.raises(IndexError):
        batcher.step()
    batcher.cancel(bad)
    batcher.run()
    assert good.text == alone(model, [1, 2], 3, {"seed": 0})


def test_streams_on_two_threads_do_not_mix():
    model, found = gpt(), {}
    wanted = [tn.generate(model, [seed], 12, seed=seed) for seed in range(2)]

    def work(seed):
        found[seed] = [seed, *tt_opt.stream(model, [seed], 12, seed=seed)]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [found[0], found[1]] == wanted


def test_a_cache_is_used_again_by_the_next_turn():
    model = rotary()
    cache = tt_opt.KVCache.of(model)
    text = tt_opt.generate(model, random_text(8), 5, seed=0, cache=cache)
    turn = [*text, *random_text(3, seed=1)]
    with tt.meter() as work:
        found = tt_opt.generate(model, turn, 4, seed=1, cache=cache)
    assert found == tn.generate(model, turn, 4, seed=1)
    assert work.calls["look_back"] == 2 * 4 and work.multiply_adds["embedding"] == 0
    assert cache.tokens == found[:-1]


# Rotary models


def test_a_rotary_gpt_learns():
    model = tt_opt.RotaryGPT(tn.GPTConfig(8, 32, 1, 2, 16), kv_heads=1, window=4)
    ids = tt.from_numpy(np.arange(64).reshape(2, 32) % 8)
    before = tn.next_token_loss(model(ids[:, :-1]), ids[:, 1:]).item()
    tn.train_on(model, [(ids[:, :-1], ids[:, 1:])] * 60, 1e-2)
    assert tn.next_token_loss(model(ids[:, :-1]), ids[:, 1:]).item() < 0.2 < before


def test_gradients_of_grouped_queries():
    layer = tt_opt.GroupedQueryAttention(8, 4, 2, window=3)
    for linear in (layer.q_proj, layer.k_proj, layer.v_proj, layer.o_proj):
        linear.weight = tt.Parameter(linear.weight.detach().double())
    x = tt.tensor(np.random.default_rng(0).normal(size=(1, 4, 8)), requires_grad=True)
    check_gradients(lambda x: layer(x) ** 2, x)


@pytest.mark.parametrize("T, H, G, n, window", [(1, 2, 2, 4, None), (3, 4, 2, 5, None), (2, 4, 1, 6, 3)])
def test_gradients_of_looking_back(T, H, G, n, window):
    random = np.random.default_rng(0)
    shapes = ((T, H, 2), (n, G, 2), (n, G, 2))
    x = [tt.tensor(random.normal(size=shape), requires_grad=True) for shape in shapes]
    check_gradients(lambda q, k, v: tt_opt.look_back(q, k, v, window=window) ** 2, *x)


def test_as_many_heads_of_keys_as_of_queries_is_ordinary_attention():
    layer, x = tt_opt.GroupedQueryAttention(8, 2, 2), tt.randn(2, 5, 8)
    q, k, v = (part.transpose(1, 2) for part in layer.projected(x, np.arange(5)))
    wanted = tn.scaled_dot_product_attention(q, k, v, is_causal=True)
    wanted = layer.o_proj(tn.merge_heads(wanted))
    assert np.allclose(layer(x).detach().numpy(), wanted.detach().numpy(), atol=1e-6)


# Speculation


def chi_square(counts, probabilities):
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / np.maximum(expected, 1e-12))[probabilities > 0].sum())


def markov(seed):
    """A model whose next token depends on the last one only, and its exact probabilities."""
    tt.manual_seed(seed)
    model = tt_opt.RotaryGPT(tn.GPTConfig(4, 1000, 1, 1, 4), kv_heads=1, window=1)
    for p in model.parameters():
        p.copy_(p.numpy() + tt.generator().standard_normal(p.shape).astype(np.float32) * 0.7)
    return model, np.stack([tn.next_probabilities(row) for row in tn.next_logits(model, [[i] for i in range(4)])])


@pytest.mark.slow
def test_speculation_draws_from_the_models_distribution():
    """20,000 tokens over a vocabulary of 4: how often each follows each, beside the model's probabilities."""
    (model, exact), (draft, other) = markov(1), markov(2)
    assert np.abs(exact - other).sum(1).min() > 0.2  # the draft is often wrong
    counts = np.zeros((4, 4))
    for seed in range(200):
        tokens = [0, *(t for taken in tt_opt.speculate(model, draft, [0], 100, ahead=3, seed=seed) for t in taken)]
        np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    assert counts.sum() == 20_000
    assert sum(map(chi_square, counts, exact)) < 32.9  # 12 degrees of freedom: exceeded once in 1,000


def test_one_guess_is_exact():
    random = np.random.default_rng(0)
    p, q = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.1, 0.1, 0.5, 0.3])
    counts = np.zeros(4)
    for _ in range(20_000):
        counts[tt_opt.accepted(int(random.choice(4, p=q)), p, q, random)] += 1
    assert counts[3] == 0 and chi_square(counts, p) < 16.3  # 3 degrees of freedom: exceeded once in 1,000


@pytest.mark.parametrize("ahead", [1, 4, 9])
@pytest.mark.parametrize("count", [1, 2, 30])
def test_speculation_at_temperature_0_is_the_models_own_text(ahead, count):
    model, draft = gpt(length=24), gpt(layers=1, length=12)
    passes = list(tt_opt.speculate(model, draft, [1, 2, 3], count, ahead=ahead, temperature=0))
    tokens = [token for taken in passes for token in taken]
    assert [1, 2, 3, *tokens] == tn.generate(model, [1, 2, 3], count, temperature=0)
    assert all(1 <= len(taken) <= ahead + 1 for taken in passes)


def test_a_draft_that_is_the_model_is_always_right():
    model = gpt(length=64)
    passes = list(tt_opt.speculate(model, model, [1, 2, 3], 25, ahead=4, seed=0))
    assert [len(taken) for taken in passes] == [5] * 5
    assert tt_opt.tokens_a_pass(1.0, 4) == 5 and tt_opt.tokens_a_pass(0.0, 4) == 1


def test_speculation_ends_with_a_token_that_stops():
    model, draft = gpt(length=64), gpt(layers=1, length=64)
    text = tn.generate(model, [1, 2, 3], 20, temperature=0)[3:]
    tokens = tt_opt.speculate(model, draft, [1, 2, 3], 20, temperature=0, stop=[text[7]])
    assert [t for taken in tokens for t in taken] == text[: text.index(text[7]) + 1]


# Kernels


@pytest.mark.parametrize("name", ["fast", "compiled"])
@pytest.mark.parametrize("T, H, G, n, window", [
    (1, 4, 4, 1, None), (1, 4, 2, 100, None), (1, 4, 1, 100, 7), (3, 4, 2, 50, None), (4, 4, 4, 9, 2),
    (5, 2, 2, 40, None), (70, 6, 2, 100, None), (65, 4, 4, 65, 80), (70, 6, 2, 100, 30), (128, 2, 1, 128, None),
])  # fmt: skip
def test_looking_back_on_a_kernel_set(name, T, H, G, n, window):
    random = np.random.default_rng(0)
    q, room = random.normal(size=(T, H, 16)).astype(np.float32), random.normal(size=(2, 128, G, 16)).astype(np.float32)
    arguments = [tt.from_numpy(a) for a in (q, room[0, :n], room[1, :n])]
    wanted = tt_opt.look_back(*arguments, window=window).numpy()
    with tt_opt.accelerate(tt_opt.best_set() if name == "compiled" else name):
        assert np.allclose(tt_opt.look_back(*arguments, window=window).numpy(), wanted, atol=1e-6)


def test_scores_that_are_not_finite_on_a_kernel_set():
    q, keys = np.ones((1, 1, 16), np.float32), np.ones((5, 1, 16), np.float32)
    for value in (np.inf, np.nan, 1e30):
        keys[2] = value
        arguments = [tt.from_numpy(a) for a in (q, keys, np.arange(80, dtype=np.float32).reshape(5, 1, 16))]
        with tt.quiet():
            wanted = tt_opt.look_back(*arguments).numpy()
            with tt_opt.accelerate():
                assert np.allclose(tt_opt.look_back(*arguments).numpy(), wanted, equal_nan=True)


def test_a_token_does_not_depend_on_its_neighbours_to_the_last_bit():
    """A product of few rows goes row by row on the compiled set, so it rounds the same however many rows there are."""
    if tt_opt.best_set() != "compiled":
        pytest.skip("Numba is not installed here")
    x, layer = tt.randn(8, 300), tt.Linear(300, 400)
    with tt_opt.accelerate("compiled"):
        together = layer(x).detach().numpy()
        assert all(np.array_equal(layer(x[i : i + 1]).detach().numpy()[0], together[i]) for i in range(8))
