"""Chapter 16, judged by its public names."""

import math

import numpy as np
import pytest

import tt_nlp as tn
import tt_opt
import tt_tensor as tt
from tt_tensor.teaching import expect

CACHE, BACK, READING, UNREAD = "The cache", "Looking back", "Reading with a cache", "What has not been read yet"
MEMORY, SMALLER, MANY, EXERCISES = "The cost: memory", "Smaller caches", "Many texts", "Exercises"


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def rows(count, heads=2, size=3, start=0):
    """Keys (or values) of `count` tokens, each number another one."""
    return np.arange(start, start + count * heads * size, dtype=np.float32).reshape(count, heads, size)


def filled(count, window=None, heads=2):
    """A cache of one layer that holds `count` tokens, written one by one."""
    cache = tt_opt.KVCache(1, heads, 3, window)
    for token, row in enumerate(rows(count, heads)):
        cache.reserve(1)
        cache.put(0, row[None], -row[None])
        cache.tokens.append(token)
    return cache


def given(module):
    """The module with weights that depend on nothing but their names and places."""
    for number, (name, p) in enumerate(sorted(module.named_parameters())):
        values = np.sin(np.arange(p.numel()) * 1.3 + number).reshape(p.shape) * 0.4
        p.copy_((values + (p.ndim == 1 and name.endswith("weight"))).astype(np.float32))
    return module


def gpt(layers=2, length=16, **sizes):
    return given(tn.GPT(tn.GPTConfig(20, length, layers, 2, 8, **sizes))).eval()


def rotary(window=None, kv_heads=2, length=1000):
    return given(tt_opt.RotaryGPT(tn.GPTConfig(20, length, 2, 4, 16), kv_heads, window)).eval()


TEXT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6]


# The cache


def test_reserve_makes_whole_blocks():
    def room(new):
        cache = tt_opt.KVCache(2, 3, 4)
        cache.reserve(new)
        return cache.keys.shape

    sizes = (64, 64, 64, 128, 256)
    expect(
        "the shapes of the keys of empty caches after reserve(1), (63), (64), (65) and (200)",
        lambda: [room(new) for new in (1, 63, 64, 65, 200)],
        [(2, size, 3, 4) for size in sizes],
        (lambda got: [s[1] for s in got] == [64, 64, 128, 128, 256], "Exactly 64 tokens fit into one block."),
        (lambda got: [s[1] for s in got] == [1, 63, 64, 65, 200], "Grow by whole blocks of 64 tokens."),
        "Room is the number of tokens, rounded up to whole blocks.",
        see=CACHE,
    )


def test_reserve_keeps_what_is_there():
    def kept():
        cache = filled(64)
        cache.reserve(1)
        return cache.keys[0, :64], cache.values[0, :64]

    expect(
        "the keys and values of 64 tokens after reserve(1)",
        kept,
        (rows(64), -rows(64)),
        "Copy what is held into the front of the larger array, of keys and of values.",
        see=CACHE,
    )

    def copied():
        cache = filled(10)
        before = cache.keys
        cache.reserve(54)
        return cache.keys is not before

    expect("was anything copied for 54 more tokens, with room for 64 and 10 held?", copied, False,
           "Where there is room, return at once.", see=CACHE)  # fmt: skip


def test_reserve_drops_what_no_window_reaches():
    def after(count):
        cache = filled(count, window=5)
        cache.reserve(1)
        return cache.keys.shape[1], cache.first, cache.keys[0, : count - cache.first, 0, 0]

    expect(
        "room, first position and keys of a cache with window=5 that has read 64 tokens, after reserve(1)",
        lambda: after(64),
        (64, 60, rows(64)[60:, 0, 0]),
        (lambda got: got[0] > 64, "The next query sees 4 tokens before its own: older ones need no room."),
        (lambda got: got[1] == 59, "The window holds the new token, too: of the old ones, window - 1 are needed."),
        (lambda got: got[1] == 0, "Count in `first` how many were dropped."),
        see=CACHE,
    )


def test_put_writes_behind_what_was_read():
    def put():
        cache = filled(2)
        cache.reserve(2)
        return cache.put(0, rows(2, start=100), rows(2, start=200))

    keys = np.concatenate([rows(2), rows(2, start=100)])
    values = np.concatenate([-rows(2), rows(2, start=200)])
    expect(
        "put(0, keys, values) of 2 tokens behind 2 that were read: all keys and all values, (4, heads, D)",
        put,
        (keys, values),
        ((rows(2, start=100), rows(2, start=200)), "Return all that are held, the earlier ones included."),
        (lambda got: len(got[0]) == 64, "Return what is held so far, not the room behind it."),
        "The new rows stand behind the others.",
        see=CACHE,
    )

    def of_layers():
        cache = tt_opt.KVCache(2, 2, 3)
        cache.reserve(1)
        cache.put(0, rows(1), rows(1))
        cache.put(1, rows(1, start=50), rows(1, start=60))
        return [cache.keys[layer, 0, 0, 0] for layer in (0, 1)]

    expect("the first number of the keys of layers 0 and 1", of_layers, [0, 50],
           "Each layer has its own keys.", see=CACHE)  # fmt: skip

    def view():
        cache = tt_opt.KVCache(1, 2, 3)
        cache.reserve(4)
        keys, values = cache.put(0, rows(4), rows(4))
        return np.shares_memory(keys, cache.keys) and np.shares_memory(values, cache.values)

    expect("are the keys and values that put returns views of the cache?", view, True,
           "A slice is a view; copying everything for each token is what we wanted to avoid.", see=CACHE)  # fmt: skip


def test_put_counts_from_the_oldest_that_is_held():
    def put():
        cache = filled(64, window=5)
        cache.reserve(1)
        keys, _ = cache.put(0, rows(1, start=900), rows(1))
        return keys[:, 0, 0]

    expect(
        "put with window=5 after 64 tokens: the first numbers of the keys that are held",
        put,
        [*rows(64)[60:, 0, 0], 900],
        (IndexError, "`first` tokens are not here any more: the rows count from there."),
        (ValueError, "`first` tokens are not here any more: the rows count from there."),
        see=CACHE,
    )


def test_keep():
    def after(length, count=10, window=None):
        cache = filled(count, window)
        cache.keep(length)
        return len(cache), cache.tokens, cache.first

    expect("length, tokens and first after keep(3) of 10 tokens", lambda: after(3), (3, [0, 1, 2], 0), see=CACHE)
    expect("the same after keep(10)", lambda: after(10), (10, list(range(10)), 0), see=CACHE)
    expect(
        "length and first after keep(66) of 70 tokens with window=5, of which 60 to 69 are held",
        lambda: (lambda n, _, first: (n, first))(*after(66, 70, 5)),
        (66, 60),
        (lambda got: got[0] == 0, "The next token would need 62 to 65, and those are here."),
        see=CACHE,
    )
    expect(
        "length and first after keep(62) of 70 tokens with window=5, of which 60 to 69 are held",
        lambda: (lambda n, _, first: (n, first))(*after(62, 70, 5)),
        (0, 0),
        (lambda got: got[0] == 62, "The next token would need 58 to 61, and 58 is gone: forget everything."),
        (lambda got: got[1] == 60, "When everything is forgotten, the next token stands at position 0: first = 0."),
        see=CACHE,
    )


# Looking back


def by_loops(q, keys, values, window=None):
    (T, H, D), (n, G, _) = q.shape, keys.shape
    out = np.zeros_like(q)
    for t in range(T):
        place = n - T + t
        seen = range(max(0, place - (window or n) + 1), place + 1)
        for h in range(H):
            g = h * G // H
            powers = [math.exp(q[t, h] @ keys[s, g] / math.sqrt(D)) for s in seen]
            out[t, h] = sum(power / sum(powers) * values[s, g] for power, s in zip(powers, seen))
    return out


def looked(T, n, H=2, G=2, window=None):
    random = np.random.default_rng(0)
    q, keys, values = (random.normal(size=shape) for shape in ((T, H, 4), (n, G, 4), (n, G, 4)))
    return (q, keys, values), lambda: tt_opt.look_back(*map(tt.from_numpy, (q, keys, values)), window=window)


def test_look_back_of_one_query():
    (q, keys, values), found = looked(1, 6)
    expect(
        "look_back of one new query among 6 keys",
        found,
        by_loops(q, keys, values),
        (values[:1], "The new token must see the **whole cache**: its position is 5 and not 0."),
        (by_loops(q / 2, keys, values), "Divide the scores by the root of D once."),
        (by_loops(q * 2, keys, values), "Divide the scores by the root of D."),
        see=BACK,
    )  # fmt: skip


def test_look_back_of_several_queries():
    (q, keys, values), found = looked(3, 7)
    expect(
        "look_back of three new queries among 7 keys",
        found,
        by_loops(q, keys, values),
        (np.concatenate([by_loops(q[i : i + 1], keys, values) for i in range(3)]),
         "The first of the new queries must not see the keys of the two after it."),
        (lambda got: np.allclose(got[0], values[0], atol=1e-6),
         "The new queries are the last ones: query i stands at position n - T + i."),
        see=BACK,
    )  # fmt: skip
    (q, keys, values), found = looked(4, 4)
    expect("look_back of four queries, all tokens new", found, by_loops(q, keys, values), see=BACK)


@pytest.mark.parametrize("T", [1, 4])
def test_look_back_with_a_window(T):
    (q, keys, values), found = looked(T, 9, window=3)
    expect(
        f"look_back of {T} queries among 9 keys, window=3",
        found,
        by_loops(q, keys, values, 3),
        (by_loops(q, keys, values), "A query sees 3 tokens, and older ones are hidden."),
        (by_loops(q, keys, values, 4), "The window counts the query's own token: key s is seen if t - s < window."),
        (by_loops(q, keys, values, 2), "The window counts the query's own token: key s is seen if t - s < window."),
        see=BACK,
    )


@pytest.mark.parametrize("T", [1, 3])
def test_look_back_of_groups(T):
    (q, keys, values), found = looked(T, 5, H=4, G=2)
    swapped = by_loops(q[:, [0, 2, 1, 3]], keys, values)[:, [0, 2, 1, 3]]
    expect(
        f"look_back of {T} queries in 4 heads, 2 of which share a head of keys",
        found,
        by_loops(q, keys, values),
        (swapped, "Heads 0 and 1 share the first head of keys, 2 and 3 the second: h // (H / G), not h % G."),
        (ValueError, "Heads that share keys go into one product: (G, H / G * T, D) times (G, D, n)."),
        see=BACK,
    )


def test_look_back_of_large_scores():
    q, keys = np.full((1, 1, 1), 1000.0), np.array([[[1000.0]], [[999.0]]])
    expect(
        "look_back of a query whose scores are 1e6 and 999e3",
        lambda: tt_opt.look_back(tt.tensor(q), tt.tensor(keys), tt.tensor(np.array([[[3.0]], [[5.0]]]))),
        [[[3.0]]],
        (lambda got: np.isnan(got).any(), "exp(1e6) overflows: subtract the largest score first."),
        see=BACK,
    )


# Reading


def anew(model, *texts):
    return tn.next_logits(model, texts)


def test_through_is_the_pass_of_chapter_14():
    model = gpt()
    ids = np.array(TEXT[:6])

    def attend(layer, q, k, v):
        return tt_opt.look_back(*(tt.from_numpy(np.array(x)) for x in (q, k, v)))

    wanted = model.transformer(tt.from_numpy(ids[None])).numpy()[0]
    expect(
        "through(trunk, ids, positions 0 to 5, attend) of a GPT, where attend looks back: (6, C)",
        lambda: tt_opt.caching.through(model.transformer, tt.from_numpy(ids), np.arange(6), attend).detach(),
        wanted,
        (lambda got: np.shape(got) != wanted.shape, "There is no batch: tokens (N,) become (N, C)."),
        "A block adds c_proj of what attention found, and then mlp of the second norm; the last norm comes at the end.",
        see=READING,
        tolerance=1e-4,
    )


def test_through_knows_positions_and_layers():
    model = gpt()
    seen = []

    def attend(layer, q, k, v):
        seen.append((layer, type(q).__name__, q.shape, k.shape, v.shape))
        return tt.zeros(*q.shape)

    def moved():
        ids = tt.tensor([5])
        one, other = (
            tt_opt.caching.through(model.transformer, ids, np.array([p]), attend).detach().numpy() for p in (0, 9)
        )
        return bool(np.abs(one - other).max() > 1e-4)

    expect(
        "does a token at position 9 differ from the same token at position 0?",
        moved,
        True,
        "The **offset** is lost: take the rows of wpe at the positions that are given, not from 0 on.",
        see=READING,
    )
    expect(
        "layer, and type and shapes of what attend gets, for one token in a GPT of 2 blocks",
        lambda: seen[:2],
        [(layer, "ndarray", (1, 2, 4), (1, 2, 4), (1, 2, 4)) for layer in (0, 1)],
        "attend(layer, q, k, v) gets arrays (N, heads, D).",
        see=READING,
    )


def test_through_tells_queries_keys_and_values_apart():
    model = gpt(layers=1)
    block, seen = model.transformer.h[0], []
    for n, part in enumerate(np.split(np.arange(24), 3)):
        bias = block.attn.c_attn.bias.numpy().copy()
        bias[part] = n + 1
        block.attn.c_attn.bias.copy_(bias)
    block.attn.c_attn.weight.zero_()

    def attend(layer, *parts):
        seen.extend(float(part.mean()) for part in parts)
        return tt.zeros(*parts[0].shape)

    def means():
        seen.clear()
        tt_opt.caching.through(model.transformer, tt.tensor([1, 2]), np.arange(2), attend)
        return seen

    expect(
        "means of q, k, v in a layer whose biases are 1 for queries, 2 for keys and 3 for values",
        means,
        [1, 2, 3],
        "c_attn gives 3 C numbers a token: first the queries of all heads, then the keys, then the values.",
        see=READING,
    )


def test_through_of_heads_that_do_not_fill_the_width():
    model = gpt(layers=1)
    attention = model.transformer.h[0].attn
    attention.c_attn, attention.c_proj = tt.Linear(8, 3 * 2 * 3), tt.Linear(2 * 3, 8)

    def shapes():
        seen = []

        def attend(layer, q, k, v):
            seen.extend(part.shape for part in (q, k, v))
            return tt.zeros(*q.shape)

        return seen, tt_opt.caching.through(model.transformer, tt.tensor([1, 2]), np.arange(2), attend).shape

    expect(
        "shapes of q, k, v and of the result for two tokens of width 8, if c_attn gives two heads of 3 numbers",
        shapes,
        ([(2, 2, 3)] * 3, (2, 8)),
        "Let c_attn's result say how wide a head is, and flatten what the heads found, whose width need not be C: "
        "chapter 18 removes heads.",
        see=READING,
    )


def test_read_piece_by_piece():
    model = gpt()

    def pieces(*ends):
        cache, found = tt_opt.KVCache.of(model), []
        for end in ends:
            found.append(tt_opt.read(model, [(cache, TEXT[len(cache) : end])])[0])
        return np.stack(found)

    wanted = anew(model, *(TEXT[:end] for end in (5, 6, 7, 12)))
    expect(
        "logits after 5, 6, 7 and 12 tokens of a text that is read in four pieces",
        lambda: pieces(5, 6, 7, 12),
        wanted,
        (lambda got: np.shape(got) != (4, 20), "For each text, the logits after its last token."),
        (lambda got: np.allclose(got[0], wanted[0], atol=1e-5),
         "The first piece is right. The positions of a later one are **offset** by the length of the cache, and the "
         "tokens go into the cache at the end."),
        see=READING,
        tolerance=1e-4,
    )  # fmt: skip


def test_read_remembers_the_tokens():
    model = gpt()

    def held():
        cache = tt_opt.KVCache.of(model)
        tt_opt.read(model, [(cache, TEXT[:3])])
        tt_opt.read(model, [(cache, TEXT[3:5])])
        return cache.tokens

    expect("the tokens of a cache after two pieces of 3 and 2", held, TEXT[:5],
           "When the pass is complete, the new tokens belong to the cache.", see=READING)  # fmt: skip


def test_read_several_texts():
    model = gpt()

    def both():
        one, other = tt_opt.KVCache.of(model), tt_opt.KVCache.of(model)
        tt_opt.read(model, [(one, TEXT[:6])])
        return tt_opt.read(model, [(one, TEXT[6:7]), (other, TEXT[10:15])])

    wanted = anew(model, TEXT[:7], TEXT[10:15])
    expect(
        "logits of two texts, one with a new token behind 6, the other with 5 tokens",
        both,
        wanted,
        (wanted[::-1], "The logits come in the order of the texts."),
        (lambda got: np.allclose(got[0], wanted[0], atol=1e-5),
         "The second text is wrong: its positions begin at the length of its cache, and it sees its own keys only."),
        "Each text has its own rows, positions and cache.",
        see=READING,
        tolerance=1e-4,
    )  # fmt: skip


def test_read_every_place():
    model = gpt()

    def every():
        one, other = tt_opt.KVCache.of(model), tt_opt.KVCache.of(model)
        return tt_opt.read(model, [(one, TEXT[:2]), (other, TEXT[5:6])], every=True)

    wanted = anew(model, TEXT[:1], TEXT[:2], TEXT[5:6])
    expect("logits of texts of 2 tokens and 1, every=True: (3, V)", every, wanted, see=READING, tolerance=1e-4)


def test_read_leaves_the_model_as_it_was():
    model = gpt(dropout=0.5).train()

    def twice():
        found = [tt_opt.read(model, [(tt_opt.KVCache.of(model), TEXT[:5])]) for _ in range(2)]
        return bool(np.array_equal(*found)), model.training

    expect(
        "do two calls of read agree, with dropout=0.5, and is the model in training mode afterwards?",
        twice,
        (True, True),
        ((False, True), "Reading is not training: model.eval() before the pass."),
        ((True, False), "Go back to the mode that was there before."),
        see=READING,
    )


def test_an_interrupted_pass_leaves_the_cache_as_it_was():
    model = gpt()

    def interrupted():
        cache = tt_opt.KVCache.of(model)
        tt_opt.read(model, [(cache, TEXT[:4])])
        second, calls = model.transformer.h[1].mlp, []
        forward = type(second).forward

        def failing(self, x):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return forward(self, x)

        type(second).forward = failing
        try:
            tt_opt.read(model, [(cache, TEXT[4:8])])
        except KeyboardInterrupt:
            pass
        finally:
            type(second).forward = forward
        return list(cache.tokens), tt_opt.read(model, [(cache, TEXT[4:5])])

    expect(
        "tokens of a cache whose second pass was interrupted, and the logits after one token more",
        interrupted,
        (TEXT[:4], anew(model, TEXT[:5])),
        (lambda got: got[0] == TEXT[:8], "Tokens belong to the cache when the pass is complete, not before."),
        see=READING,
        tolerance=1e-4,
    )


# What has not been read


def test_shared_length():
    pairs = [([1, 2, 3], [1, 2, 4]), ([1, 2], [1, 2, 3]), ([1, 2, 3], [1, 2]), ([5], [6]), ([], [1]), ([1, 2], [1, 2])]
    pairs.append(([1, 7, 3], [1, 2, 3]))
    expect(
        "shared_length of " + ", ".join(f"{a} and {b}" for a, b in pairs),
        lambda: [tt_opt.caching.shared_length(a, b) for a, b in pairs],
        [2, 2, 2, 0, 0, 2, 1],
        ([2, 2, 2, 0, 0, 2, 2], "Behind the first difference nothing is shared, even where tokens are equal."),
        (StopIteration, "If one text is the beginning of the other, all of it is shared."),
        see=UNREAD,
    )


def holding(tokens):
    cache = tt_opt.KVCache(1, 1, 2)
    cache.tokens = list(tokens)
    return cache


@pytest.mark.parametrize("held, text, context, new, kept", [
    ([], [3, 1, 4], 10, [3, 1, 4], []),
    ([3, 1], [3, 1, 4], 10, [4], [3, 1]),
    ([9, 9, 9], [3, 1, 4, 1], 10, [3, 1, 4, 1], []),
    ([3, 1, 7, 7], [3, 1, 4, 1], 10, [4, 1], [3, 1]),
    ([3, 1, 4], [3, 1, 4], 10, [4], [3, 1]),
    ([3, 1, 4, 1, 5], [3, 1, 4], 10, [4], [3, 1]),
    ([3, 1, 4], [3, 1, 4, 5], 3, [1, 4, 5], []),
], ids=["empty", "continued", "another text", "another turn", "again", "shorter", "beyond the context"])  # fmt: skip
def test_unread(held, text, context, new, kept):
    def found():
        cache = holding(held)
        return tt_opt.caching.unread(cache, text, context), cache.tokens

    expect(
        f"unread(cache of {held}, {text}, context={context}), and the tokens of the cache afterwards",
        found,
        (new, kept),
        (lambda got: got[1] == held and held != kept,
         "The cache holds tokens of another text: **reset** it, as far as they differ."),
        (lambda got: not got[0], "One token at least is read again: its logits are asked for."),
        (lambda got: len(got[0]) + len(got[1]) > context, "Only the last `context` tokens of the text count."),
        see=UNREAD,
    )  # fmt: skip


# Costs


def test_multiply_adds_of_a_token():
    config = tn.GPTConfig(100, 64, n_layer=3, n_head=2, n_embd=10)
    wanted = 3 * (1200 + 2 * 7 * 10) + 1000
    expect(
        "multiply_adds_of_a_token for 3 blocks, C = 10, V = 100, the 7th token",
        lambda: tt_opt.multiply_adds_of_a_token(config, 7),
        wanted,
        (7 * wanted, "One token is read, not all of them."),
        (3 * 1200 + 1000, "The query meets all keys, and the weights all values: 2 T C in each block."),
        (3 * (1200 + 7 * 10) + 1000, "Keys *and* values cost C multiply-adds for each token."),
        (3 * (1200 + 2 * 7 * 10), "The logits cost C V."),
        see="What has not been read yet",
    )


def test_cache_bytes():
    config = tn.GPTConfig(100, 64, n_layer=3, n_head=4, n_embd=20)
    full = 2 * 3 * 20 * 7 * 4
    expect(
        "cache_bytes of 7 tokens in 3 layers, C = 20, in float32",
        lambda: tt_opt.cache_bytes(config, 7),
        full,
        (full // 2, "Keys and values: two vectors for each token and layer."),
        (full // 4, "A float32 has 4 bytes."),
        (full // 3, "Each layer has its own keys and values."),
        see=MEMORY,
    )
    expect(
        "the same with 1 head of keys for 4 of queries, and 2 bytes a number",
        lambda: tt_opt.cache_bytes(config, 7, kv_heads=1, itemsize=2),
        full // 8,
        (full // 2, "kv_heads heads of C / n_head numbers each have keys."),
        see=MEMORY,
    )


# Smaller caches


def test_projected():
    layer = given(tt_opt.GroupedQueryAttention(12, 3, 1))
    x = np.random.default_rng(0).normal(size=(1, 4, 12)).astype(np.float32)
    places = np.array([0, 3, 4, 9])

    def part(linear):
        return (x @ linear.weight.detach().numpy().T).reshape(1, 4, -1, 4)

    def turned(a):
        return tn.rotary(tt.from_numpy(a).transpose(-3, -2), places).transpose(-3, -2).numpy()

    plain = tuple(map(part, (layer.q_proj, layer.k_proj, layer.v_proj)))
    expect(
        "projected(x, positions [0, 3, 4, 9]) with 3 heads of queries and 1 of keys",
        lambda: tuple(p.detach() for p in layer.projected(tt.from_numpy(x), places)),
        (turned(plain[0]), turned(plain[1]), plain[2]),
        (plain, "Queries and keys are turned by `rotary`."),
        ((turned(plain[0]), turned(plain[1]), turned(plain[2])), "Values are not turned."),
        ((turned(plain[0]), plain[1], plain[2]), "Keys are turned, too: it is the difference of places that counts."),
        "The positions belong to tokens, and are the same for all heads.",
        see=SMALLER,
    )


# Many texts


def batcher(model, *prompts, slots=4, count=4, **how):
    made = tt_opt.Batcher(model, slots, **how)
    return made, [made.submit(prompt, count, temperature=0) for prompt in prompts]


def greedy(model, prompt, count):
    return tn.generate(model, prompt, count, temperature=0)


def test_take():
    def request(count=3, stop=(), **settings):
        how = {"temperature": 0.0, "top_k": None, "top_p": None} | settings
        return tt_opt.Request([1, 2], count, how, frozenset(stop), np.random.default_rng(0))

    logits = np.array([0.0, 3.0, 1.0, 2.0])

    def taken(times, **how):
        made = request(**how)
        for _ in range(times):
            made.take(logits)
        return made.text, made.ended

    expect(
        "text and end of a request for 3 tokens after 1 token, temperature 0",
        lambda: taken(1),
        ([1, 2, 1], None),
        (lambda got: got[1] == "length", "max_new_tokens counts the new tokens, not those of the prompt."),
        see=MANY,
    )
    expect("the same after 3 tokens", lambda: taken(3), ([1, 2, 1, 1, 1], "length"),
           "After max_new_tokens new tokens the text has ended.", see=MANY)  # fmt: skip
    expect(
        "the same after 1 token, with stop=[1]",
        lambda: taken(1, stop=[1]),
        ([1, 2, 1], "stop"),
        (([1, 2], "stop"), "The token that stops a text belongs to it."),
        (([1, 2, 1], None), "A token of `stop` ends the text."),
        see=MANY,
    )

    def drawn():
        made = request(count=200, temperature=1.0, top_k=2)
        for _ in range(200):
            made.take(logits)
        return sorted(set(made.tokens))

    expect(
        "which tokens occur among 200, drawn with top_k=2 from logits [0, 3, 1, 2]",
        drawn,
        [1, 3],
        ([1], "Draw by the probabilities; the most likely token is for temperature 0."),
        ([0, 1, 2, 3], "The settings of the request go to next_probabilities."),
        see=MANY,
    )


def test_a_step_brings_a_token_to_each():
    model = gpt()

    def after(steps):
        made, requests = batcher(model, TEXT[:3], TEXT[5:10])
        heard = [[requests.index(r) for r in made.step()] for _ in range(steps)]
        return heard, [r.text for r in requests]

    expect(
        "who got a token in two steps, and the texts afterwards",
        lambda: after(2),
        ([[0, 1]] * 2, [greedy(model, TEXT[:3], 2), greedy(model, TEXT[5:10], 2)]),
        (lambda got: got[0] == [[], []], "A request that waits takes part as soon as there is a free slot."),
        "Each text reads what it has not read, gets its logits, and takes a token.",
        see=MANY,
    )


def test_requests_come_and_go_between_steps():
    model = gpt()

    def course():
        made = tt_opt.Batcher(model, 2)
        first, second, third = (made.submit(TEXT[i : i + 3], n, temperature=0) for i, n in ((0, 1), (3, 3), (6, 2)))
        requests, seen = [first, second, third], []
        while made.busy and len(seen) < 9:
            seen.append([requests.index(r) for r in made.step()])
        return seen, [r.ended for r in requests], [r.text for r in requests]

    texts = [greedy(model, TEXT[i : i + 3], n) for i, n in ((0, 1), (3, 3), (6, 2))]
    wanted = [[0, 1], [1, 2], [1, 2]], ["length"] * 3, texts
    expect(
        "requests of 1, 3 and 2 tokens with two slots: who got a token in each step, how they ended, their texts",
        course,
        wanted,
        (lambda got: got[0][:3] == [[0, 1], [1], [1]], "When a text has ended, its slot is free for the next step."),
        (lambda got: got[0][:1] == [[0, 1, 2]], "No more texts than slots."),
        see=MANY,
    )  # fmt: skip


def test_a_long_prompt_is_read_in_pieces():
    model = gpt()

    def course():
        made, requests = batcher(model, TEXT[:2], TEXT[:10], piece=4, count=2)
        seen = []
        while made.busy and len(seen) < 9:
            seen.append([requests.index(r) for r in made.step()])
        return seen, [r.text for r in requests]

    expect(
        "prompts of 2 and 10 tokens, read in pieces of 4: who got a token in each step, and the texts",
        course,
        ([[0], [0], [1], [1]], [greedy(model, TEXT[:2], 2), greedy(model, TEXT[:10], 2)]),
        (lambda got: got[0][0] == [0, 1], "A text whose prompt is not through gets no token yet."),
        (lambda got: got[0] == [[0], [0]], "The next piece comes in the next step."),
        see=MANY,
    )


def test_a_request_takes_the_cache_that_fits_best():
    model = gpt()

    def read_again():
        made, _ = batcher(model, TEXT[:6], TEXT[8:14], slots=2, count=1)
        made.step()
        turn = made.submit([*TEXT[8:14], 1], 1)
        made.step()
        return turn.cache.tokens[:6]

    expect(
        "the first tokens in the cache of a request that continues the second of two texts",
        read_again,
        TEXT[8:14],
        see=MANY,
    )

    def reused():
        made, _ = batcher(model, TEXT[:6], TEXT[8:14], slots=2, count=1)
        made.step()
        with tt.meter() as work:
            made.submit([*TEXT[8:14], 1], 1)
            made.step()
        return work.calls["look_back"], work.multiply_adds["look_back"]

    expect(
        "calls and multiply-adds of look_back for one new token behind 6 that a free cache holds",
        reused,
        (2, 2 * 2 * 8 * 7),
        (lambda got: got[1] > 2 * 2 * 8 * 7, "Take the free cache that shares most with the prompt."),
        see=MANY,
    )


# Generation


PROMPTS = [[1, 2, 3], [4], TEXT[:8]]
WAYS = [{"temperature": 0}, {"seed": 3}, {"seed": 4, "temperature": 0.7, "top_k": 5}, {"seed": 5, "top_p": 0.8}]
MODELS = {"learned positions": gpt, "rotary positions": rotary, "a window of 6": lambda: rotary(6)}
MODELS["one head of keys"] = lambda: rotary(None, 1)


@pytest.mark.parametrize("how", WAYS, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_generate_is_chapter_14_token_for_token(name, how):
    model = MODELS[name]()
    expect(
        f"generate of three prompts, 12 tokens, {how}, by a model with {name}",
        lambda: tt_opt.generate(model, PROMPTS, 12, **how),
        tn.generate(model, PROMPTS, 12, **how),
        (lambda got: [t[: len(p) + 1] for t, p in zip(got, PROMPTS)]
         == [t[: len(p) + 1] for t, p in zip(tn.generate(model, PROMPTS, 12, **how), PROMPTS)],
         "The first new token is right. Does the second stand at the right place, and see the whole cache?"),
        see=MANY,
    )  # fmt: skip


def test_generate_beyond_the_context():
    model = gpt(length=8)
    expect(
        "generate of 20 tokens with a context of 8 and learned positions",
        lambda: tt_opt.generate(model, TEXT[:3], 20, seed=1),
        tn.generate(model, TEXT[:3], 20, seed=1),
        (IndexError, "The context holds 8 tokens: `unread` crops the text, and every token gets another position."),
        see=UNREAD,
    )


def test_best_of():
    model = gpt()
    drawn = []
    for i in range(3):
        made = tt_opt.Batcher(model, 1)
        request = made.submit(TEXT[:5], 6, seed=(7, i))
        made.run()
        drawn.append(request.text)
    costs = [sum(tn.transformers.surprises(model, text)[4:]) for text in drawn]
    wanted = [drawn[i] for i in np.argsort(costs)]
    expect(
        "best_of(model, prompt of 5, count=3, 6 tokens, seed=7)",
        lambda: tt_opt.caching.best_of(model, TEXT[:5], 3, 6, seed=7),
        wanted,
        (wanted[::-1], "The least surprising one comes first."),
        (drawn, "Order them by the mean surprise of the new tokens."),
        see=EXERCISES,
    )

    def positions():
        with tt.meter() as work:
            tt_opt.caching.best_of(model, TEXT[:9], 4, 1, seed=7)
        return work.multiply_adds["look_back"]

    once = 2 * (2 * 8 * 8 * 8 + 4 * 2 * 8 * 9)
    expect(
        "multiply-adds of look_back in best_of of 4 texts with one new token, prompt of 9 tokens",
        positions,
        once,
        (lambda got: got > 2 * once, "Read the prompt once, and give each text a copy of the cache."),
        see=EXERCISES,
    )
