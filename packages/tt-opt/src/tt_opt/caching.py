# # Caching
#
# At the end of this chapter a GPT writes the thousandth token of a text about as fast as the first one, and eight texts
# at once several times as fast as one after the other.

# ## The hurt
#
# Chapter 15 made training several times as fast. Then it let the model write, and each token took longer than the one
# before. How much of that work do we need? We count multiply-adds with the meter of chapter 02.

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

import tt_tensor as tt
from tt_autograd import evaluating, no_grad, rule
from tt_nlp import (
    GPT, Block, Embedding, GPTConfig, as_texts, attention_share, attention_weights, next_logits, next_probabilities,
    refuse_settings, rotary, scaled_dot_product_attention, token_ids, window_mask,
)
from tt_nlp.transformers import small_gpt, surprises
from tt_spatial import LayerNorm
from tt_tensor import Linear, Module, ModuleList, Tensor, from_numpy, generator, meter, primitive


def writer(length: int = 1024) -> GPT:
    """A GPT of four blocks with a context of `length` tokens; it has learned nothing, which takes no less time."""
    tt.manual_seed(0)
    return small_gpt(65, layers=4, width=128, length=length).eval()


def some_text(length: int) -> list[int]:
    """Random tokens."""
    return generator().integers(0, 65, length).tolist()


def show_hurt():
    model = writer()
    for length in (10, 100, 1000):
        text = some_text(length)
        with meter() as work:
            next_logits(model, [text])
        milliseconds = tt.measure(next_logits, model, [text]).seconds * 1e3
        count = work.multiply_adds.total() / 1e6
        print(f"after {length:4d} tokens the next one takes {milliseconds:6.1f} ms, {count:7.1f} million multiply-adds")


# The vectors of *one* token pass through about 0.8 million weights. The other multiply-adds are for the tokens before
# it, and the model has computed those in the round before, and in the round before that.

# ## The smallest thing that could work
#
# Is that really the same work? Chapter 14 has a check that no position depends on what comes after it. So if we append
# a token, the vectors of all earlier positions must stay as they were, in every block.


def show_repeats():
    model, ids = writer(), np.array([some_text(101)])
    before, after = (model.transformer(from_numpy(ids[:, :n])).numpy() for n in (100, 101))
    print(f"largest number: {np.abs(before).max():.2f}, largest change: {np.abs(after[:, :100] - before).max():.0e}")


# Nothing has changed, or no more than rounding. So we can keep what we have computed. But what exactly do we need to
# keep? Look at the formula of attention for the newest token $t$:
#
# $$ o_t = \operatorname{softmax}\!\left(\frac{q_t K_{\le t}^T}{\sqrt D}\right) V_{\le t} . $$
#
# Its query is its own, and no later token will ask for it. From the earlier tokens it needs keys and values, and
# nothing else: everything outside attention works on each position alone. So for each layer we keep the keys and the
# values. The smallest version is two lists.


class Lists:
    """The keys and values (heads, D) of a text in one layer, in the order of the tokens."""

    def __init__(self):
        self.keys, self.values = [], []

    def put(self, key: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Append a key and a value; all keys and all values, (tokens, heads, D) each."""
        self.keys.append(key)
        self.values.append(value)
        return np.stack(self.keys), np.stack(self.values)


# It works, and it disappoints in a way that we know from chapter 15: `stack` copies all keys and values for each new
# token, in order to append one row.


def show_lists():
    cache, row = Lists(), np.ones((4, 32), np.float32)
    for length in (10, 100, 1000):
        while len(cache.keys) < length - 1:
            cache.put(row, row)
        seconds = tt.measure(lambda: (cache.put(row, row), cache.keys.pop(), cache.values.pop())).seconds
        print(f"token {length:4d}, one layer: {seconds * 1e6:6.0f} us to put one key and one value")


# ## The idea
#
# Take the memory in advance, and write each new row behind the others. The array of all keys so far is then a view of
# that memory, and nothing is copied. Such a store is called a *KV cache*.
#
# ```mermaid
# flowchart LR
#     T["new token"] --> Q["query"] & K["key"] & V["value"]
#     K -- "write" --> C[("keys of all tokens")]
#     V -- "write" --> D[("values of all tokens")]
#     Q --> A["attention"]
#     C --> A
#     D --> A
#     A --> O["one vector"]
# ```
#
# Reading a text with a cache has two phases. In the *prefill* the model reads the whole prompt at once and fills the
# cache. Then comes *decoding*: one new token in each pass.

# ## The cache
#
# We do not know how long a text will become, and memory for the longest one would be wasted on most. So the cache grows
# by *blocks* of 64 tokens. When a block is full, we copy everything to a larger array. That costs a copy for each 64th
# token, where the lists needed one for each.
#
# The cache remembers which tokens it holds, because it must never answer for another text. And it may have a *window*:
# if queries see only so many tokens back, older keys and values are of no more use, and `reserve` does not copy them.

BLOCK = 64  # tokens


class KVCache:
    """The keys and values of one text in each layer of a model: (layers, room, heads, D), heads being those that have
    keys. With a window, those that no query can see any more are dropped."""

    def __init__(self, layers: int, heads: int, size: int, window: int | None = None, dtype: Any = np.float32):
        self.tokens: list[int] = []  # which were read
        self.first = 0  # the position of the oldest key that is still here
        self.window = window
        self.keys, self.values = (np.empty((layers, 0, heads, size), dtype) for _ in range(2))

    @classmethod
    def of(cls, model: Module) -> KVCache:
        """An empty cache for the texts of a model: a GPT, or one whose `kv_heads` and `window` say that they differ."""
        config = model.config
        heads, window = getattr(model, "kv_heads", config.n_head), getattr(model, "window", None)
        size = config.n_embd // config.n_head
        return cls(config.n_layer, heads, size, window, next(model.parameters()).dtype)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def nbytes(self) -> int:
        """The memory of keys and values, in bytes."""
        return self.keys.nbytes + self.values.nbytes

    # Before a pass we make room for its tokens. The new arrays take their places in one statement, after everything has
    # been copied, so that an interrupt does not leave a cache of which one half has moved.

    def reserve(self, new: int) -> None:  # exercise
        """Make room for `new` more tokens, in whole blocks. Where there is room already, nothing is copied."""
        held = len(self.tokens) - self.first
        if held + new <= self.keys.shape[1]:
            return
        kept = held if self.window is None else min(held, self.window - 1)
        room = -(-(kept + new) // BLOCK) * BLOCK
        larger = [np.empty((len(old), room, *old.shape[2:]), old.dtype) for old in (self.keys, self.values)]
        for old, copy in zip((self.keys, self.values), larger):
            copy[:, :kept] = old[:, held - kept : held]
        (self.keys, self.values), self.first = larger, self.first + held - kept

    # During the pass, each layer writes its rows behind those of the tokens that were read before.

    def put(self, layer: int, keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # exercise
        """Write the keys and values (T, heads, D) of T new tokens; views of all that are here, (n, heads, D) each."""
        held = len(self.tokens) - self.first
        end = held + len(keys)
        self.keys[layer, held:end], self.values[layer, held:end] = keys, values
        return self.keys[layer, :end], self.values[layer, :end]

    # `tokens` grows only when a pass is complete. So if a pass ends in an error, or you interrupt it, the cache holds
    # what it held before. And to forget is cheap: what lies behind the last token does not count.

    def keep(self, length: int) -> None:  # exercise
        """Forget all tokens after the first `length`; all of them if the window has dropped what they would need."""
        oldest = 0 if self.window is None else max(length - self.window + 1, 0)
        if oldest < self.first:
            length = self.first = 0
        del self.tokens[length:]

    def copy(self) -> KVCache:
        """Another cache that holds the same."""
        return deepcopy(self)


def check_the_cache():
    cache, rows = KVCache(1, 2, 3), np.arange(600.0).reshape(100, 2, 3)
    for start, stop in ((0, 70), (70, 71), (71, 100)):
        cache.reserve(stop - start)
        keys, _ = cache.put(0, rows[start:stop], rows[start:stop])
        cache.tokens.extend(range(start, stop))
        assert (keys == rows[:stop]).all() and cache.keys.shape == (1, 128 if stop > 64 else 64, 2, 3)


# ## Looking back
#
# Now the attention of new tokens, $T$ of them in a prefill and one in decoding, to all $n$ tokens so far. The new ones
# are the last $T$ of the $n$. So query $i$ stands at position $n - T + i$, and it sees the keys up to that position.
# Note the trap: a causal mask that begins at position 0, as in chapter 13, would hide everything but the first key from
# a single new query.
#
# There is one more freedom, which we will use below: several heads of queries may share one head of keys and values.
# Their queries stand below each other, so that one product serves them all.


@primitive(cost=lambda out, q, keys, values, **window: 2 * out.size * len(keys))
def look_back(q, keys, values, /, window=None):  # exercise
    """What T queries (T, H, D) find among keys and values (n, G, D), those of the same T tokens last: (T, H, D).

    A query sees its own token and the ones before it, `window` tokens in all. Head h looks at keys h // (H / G)."""
    T, H, D = q.shape
    n, G, _ = keys.shape
    together = q.swapaxes(0, 1).reshape(G, H // G * T, D)
    scores = (together @ keys.transpose(1, 2, 0) * q.dtype.type(D**-0.5)).reshape(H, T, n)
    back = np.arange(n - T, n)[:, None] - np.arange(n)  # (T, n): how far a key lies behind a query
    seen = (back >= 0) if window is None else (back >= 0) & (back < window)
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return (weights.reshape(G, H // G * T, n) @ values.swapaxes(0, 1)).reshape(H, T, D).swapaxes(0, 1)


# We will only read with it. But every primitive has a row in the table of rules, and the gradient is that of chapter
# 13's attention: for keys that are shared, the sum over the heads that share them.


def look_back_shares(needed, g, out, q, keys, values, window=None):
    """The gradients of queries, keys and values where g arrived."""
    given = [x if isinstance(x, Tensor) else from_numpy(x) for x in (g, q, keys, values)]
    (T, H, D), (n, G, _) = q.shape, keys.shape
    heads = np.arange(H) // (H // G)
    g_, q_, k, v = (x.permute(1, 0, 2) for x in (given[0], given[1], given[2][:, heads], given[3][:, heads]))
    places = np.arange(n)
    behind = places[n - T :, None] - places
    weights = attention_weights(q_, k, from_numpy((behind >= 0) & (behind < (window or n))))
    of_q, *shared = attention_share(g_, weights, q_, k, v, D**-0.5)
    found = [of_q, *(x.reshape(G, H // G, n, D).sum(1) for x in shared)]
    turned = [x.permute(1, 0, 2) for x in found]
    return turned if isinstance(g, Tensor) else [x.numpy() for x in turned]


rule(look_back, together=look_back_shares)


# If all tokens are new, it is the causal attention of chapter 13; and the last query alone finds what it finds among
# the others.


def check_look_back():
    q, k, v = (tt.randn(5, 2, 4) for _ in range(3))
    heads_first = (q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1))
    whole = scaled_dot_product_attention(*heads_first, is_causal=True).transpose(0, 1)
    assert np.allclose(look_back(q, k, v).numpy(), whole.numpy(), atol=1e-6)
    assert np.allclose(look_back(q[4:], k, v).numpy(), whole[4:].numpy(), atol=1e-6)


# ## Reading with a cache
#
# The forward pass of chapter 14 has three places in which a token must know more than itself. It needs its *position*,
# since the first new token does not stand at position 0. It needs *attention*. And at the end the *caller* wants the
# logits after the last token, not those after all of them. Here is the pass again, with the positions and the attention
# as arguments. There is no batch dimension: the tokens stand in one row $(N, C)$, and it does not matter whether
# they belong to one text or to several, because only `attend` knows.


def through(trunk: Module, ids: Tensor, positions: np.ndarray, attend: Callable) -> Tensor:  # exercise
    """The Transformer of chapter 14 on tokens (N,) at positions (N,): (N, C). attend(layer, q, k, v), arrays of shape
    (N, heads, D), gives what the queries find, a tensor of that shape."""
    x = trunk.wte(ids) + trunk.wpe(from_numpy(positions))
    for layer, block in enumerate(trunk.h):
        parts = block.attn.c_attn(block.ln_1(x)).reshape(len(ids), 3, block.attn.n_head, -1).numpy()
        found = attend(layer, parts[:, 0], parts[:, 1], parts[:, 2])
        x = x + block.attn.c_proj(found.flatten(1))
        x = x + block.mlp(block.ln_2(x))
    return trunk.ln_f(x)


# `read` takes pairs, a cache and the tokens that come next in its text. It lays all new tokens in one row, and in each
# layer it lets each text look back at its own cache. A model with another trunk has a `through` of its own.


def read(model: Module, texts: Sequence[tuple[KVCache, Sequence[int]]], every: bool = False) -> np.ndarray:  # exercise
    """Read new tokens of several texts in one pass: a cache for each, which then holds them, and the tokens that come
    next. Returns the logits after the last token of each text, (texts, V), or after every new token, (N, V)."""
    refuse_texts(model, texts)
    ends = np.cumsum([len(new) for _, new in texts])
    rows = [slice(end - len(new), end) for end, (_, new) in zip(ends, texts)]
    positions = np.concatenate([np.arange(len(cache), len(cache) + len(new)) for cache, new in texts])

    def attend(layer, q, k, v):
        found = []
        for (cache, _), row in zip(texts, rows):
            keys, values = map(from_numpy, cache.put(layer, k[row], v[row]))
            found.append(look_back(from_numpy(q[row].copy()), keys, values, window=cache.window))
        return tt.cat(found) if len(found) > 1 else found[0]

    for cache, new in texts:
        cache.reserve(len(new))
    ids, trunk = from_numpy(np.concatenate([new for _, new in texts])), model.transformer
    with evaluating_if_needed(model), no_grad():
        way = trunk.through if hasattr(trunk, "through") else partial(through, trunk)
        stream = way(ids, positions, attend)
        logits = model.lm_head(stream if every else stream[ends - 1]).numpy()
    for cache, new in texts:
        cache.tokens.extend(new)
    return logits


# Two helpers of `read`. The first saves time: `evaluating`, of chapter 08, visits all modules twice, and we would pay
# for that with each token. The second refuses what makes no sense.


def evaluating_if_needed(model: Module) -> Any:
    """`evaluating`, or nothing where every part of the model is in evaluation mode already, which takes less time."""
    return evaluating(model) if any(part.training for part in model.modules()) else nullcontext()


def refuse_texts(model: Module, texts: Sequence[tuple[KVCache, Sequence[int]]]) -> None:
    """ValueError for a text without new tokens or longer than the context, and for a cache that occurs twice."""
    if not texts or not all(len(new) for _, new in texts):
        raise ValueError("each text needs at least one new token, after which the next one comes")
    if len({id(cache) for cache, _ in texts}) < len(texts):
        raise ValueError("two texts have the same cache: each needs its own, and cache.copy() makes another")
    longest, context = max(len(cache) + len(new) for cache, new in texts), model.config.block_size
    if longest > context:
        raise ValueError(f"{longest} tokens do not fit into a context of {context}: `unread` crops a text")


# The witness is chapter 14, which computes everything anew.


def check_read():
    model, text = small_gpt(20, layers=2, width=16, length=16), list(range(12))
    cache, other = KVCache.of(model), KVCache.of(model)
    read(model, [(cache, text[:5])])
    for end in (6, 7, 12):
        both = read(model, [(cache, text[len(cache) : end]), (other, text[len(other) : end - 4])])
        assert np.allclose(both, next_logits(model, [text[:end], text[: end - 4]]), atol=1e-5)


# ## What has not been read yet
#
# A chat sends the whole conversation with each turn. All of it but the last turn is in the cache already. So we compare
# the text with what the cache holds, keep what both have in common from the beginning, and read the rest. If the prompt
# is a new one, they have nothing in common, and the cache forgets everything. At least one token is always read again,
# because we need the logits after it.
#
# What if the text is longer than the context? Chapter 14 shows the model the last `block_size` tokens. With each new
# token, every other one then moves one position to the front, gets another vector from the table of positions, and with
# it other keys and values. So nothing can be kept, and the whole window is read again for each token. That is slow, and
# it is what the model means. (The section *Smaller caches* has a model without that problem.)


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:  # exercise
    """How many tokens two texts have in common at their beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def unread(cache: KVCache, text: Sequence[int], context: int) -> list[int]:  # exercise
    """The tokens that a cache has still to read in order to hold the last `context` tokens of a text, at least one. It
    forgets what it holds of another text."""
    window = list(text[-context:])
    cache.keep(min(shared_length(cache.tokens, window), len(window) - 1))
    return window[len(cache) :]


def check_unread():
    cache = KVCache(1, 1, 2)
    cache.tokens = [3, 1, 4, 1, 5]
    assert unread(cache, [3, 1, 4, 2], 10) == [2] and cache.tokens == [3, 1, 4]
    assert unread(cache, [3, 1, 4], 10) == [4] and unread(cache, [3, 1, 4], 2) == [1, 4]


# A loop that writes is now short. Here it always takes the most likely token.


def write(model: GPT, prompt: Sequence[int], count: int) -> list[int]:
    """A prompt with the `count` most likely tokens that continue it, one after the other."""
    cache, text = KVCache.of(model), list(prompt)
    for _ in range(count):
        logits = read(model, [(cache, unread(cache, text, model.config.block_size))])
        text.append(int(logits[0].argmax()))
    return text


def show_flat():
    model, text = writer(), some_text(1001)
    cache = KVCache.of(model)
    for length in (10, 100, 1000):
        read(model, [(cache, text[len(cache) : length])])
        with meter() as work:
            read(model, [(cache, text[length : length + 1])])

        def again():
            cache.keep(length)
            read(model, [(cache, text[length : length + 1])])

        count = work.multiply_adds.total() / 1e6
        print(f"after {length:4d} tokens: {tt.measure(again).seconds * 1e3:5.2f} ms, {count:.2f} million multiply-adds")


# Practically flat. The pass for token 1,000 has twice as many multiply-adds as that for token 10, because the one query
# meets 1,000 keys, and the time grows by less than that. We can count both terms. A block has $12 C^2$ weights, each of
# which the one token meets once, and each of $n$ keys and values costs $C$; the logits cost $C V$:


def multiply_adds_of_a_token(config: GPTConfig, length: int) -> int:  # exercise
    """Multiply-adds of reading one token, the last of a text of `length`, with a cache."""
    C = config.n_embd
    return config.n_layer * (12 * C * C + 2 * length * C) + C * config.vocab_size


def check_multiply_adds():
    model, text = writer(64), some_text(41)
    cache = KVCache.of(model)
    read(model, [(cache, text[:40])])
    with meter() as work:
        read(model, [(cache, text[40:])])
    products = sum(work.multiply_adds[name] for name in ("affine", "matmul", "look_back"))
    assert products == multiply_adds_of_a_token(model.config, 41)


# ## The cost: memory
#
# We have traded time for memory. Two vectors of $C$ numbers for each token in each layer:


def cache_bytes(config: GPTConfig, length: int, kv_heads: int | None = None, itemsize: int = 4) -> int:  # exercise
    """The bytes of the keys and values of a text of `length` tokens, if kv_heads heads of config.n_head (all of them by
    default) have keys of their own and a number takes `itemsize` bytes."""
    heads = config.n_head if kv_heads is None else kv_heads
    return 2 * config.n_layer * length * (heads * config.n_embd // config.n_head) * itemsize


# The formula beside what the cache of our model holds, and then for larger models. The sizes of the last one are those
# of Llama 2 with 70 billion weights (H. Touvron et al., 2023), with numbers of two bytes.


def show_memory():
    model = writer()
    cache = KVCache.of(model)
    read(model, [(cache, some_text(1000))])
    print(f"ours, 1,000 tokens: {cache_bytes(model.config, 1000):,d} bytes by the formula, {cache.nbytes:,d} held")
    large = GPTConfig(32_000, 4096, n_layer=80, n_head=64, n_embd=8192)
    print(f"GPT-2, 1,024 tokens: {cache_bytes(GPTConfig(), 1024) / 1e6:.0f} MB")
    full, grouped = (cache_bytes(large, 4096, heads, itemsize=2) / 1e9 for heads in (64, 8))
    print(f"70 billion weights, 4,096 tokens: {full:.1f} GB for one text, {grouped:.1f} GB with 8 heads of keys")


# The cache holds a bit more than the formula says, because its last block is not full. For a large model the
# memory of the cache decides how many texts it can write at the same time. Hence the last line.

# ## Smaller caches
#
# 64 heads ask 64 kinds of questions. But do they need 64 kinds of keys? In *grouped-query attention* (J. Ainslie et
# al., 2023) several heads of queries share one head of keys and values. The cache shrinks by that factor, and decoding
# reads as many bytes less; the quality of the model hardly suffers. The two extremes have names: with one head of keys
# it is *multi-query* attention, and with as many as queries it is what we had.
#
# The layer has a matrix for each role. Its positions are the rotary ones of chapter 12: they turn queries and keys and
# need no table. The names of its parameters are those of the `transformers` library for Llama.


class GroupedQueryAttention(Module):
    """Causal attention in which heads of queries share kv_heads heads of keys and values, with rotary positions:
    (B, T, C) -> (B, T, C). A token sees `window` tokens back, itself included; all of them if None."""

    def __init__(self, width: int, heads: int, kv_heads: int, window: int | None = None, base: float = 10_000.0):
        super().__init__()
        if min(heads, kv_heads) < 1 or width % heads or heads % kv_heads:
            raise ValueError(f"{kv_heads} heads of keys must divide {heads} of queries, and those the width {width}")
        if window is not None and window < 1:
            raise ValueError(f"a window holds at least the token itself, so 1 or more, not {window}")
        self.heads, self.kv_heads, self.size, self.window, self.base = heads, kv_heads, width // heads, window, base
        self.q_proj = Linear(width, width, bias=False)
        self.k_proj, self.v_proj = (Linear(width, kv_heads * self.size, bias=False) for _ in range(2))
        self.o_proj = Linear(width, width, bias=False)

    # Queries and keys are turned by the positions of their tokens. Keys go into the cache after that: a key's position
    # never changes.

    def projected(self, x: Tensor, positions: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:  # exercise
        """The queries (..., T, H, D), keys and values (..., T, G, D) of x (..., T, C) at positions (T,)."""
        parts = (linear(x) for linear in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = (part.reshape(*x.shape[:-1], -1, self.size) for part in parts)
        return self.turned(q, positions), self.turned(k, positions), v

    def turned(self, x: Tensor, positions: np.ndarray) -> Tensor:
        """x (..., T, heads, D), turned by the positions (T,) of its tokens."""
        return rotary(x.transpose(-3, -2), positions, self.base).transpose(-3, -2)

    # In training there is no cache. Keys and values get a dimension of size 1, over which their queries broadcast.

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.projected(x, np.arange(T))
        q = q.reshape(B, T, self.kv_heads, -1, self.size).permute(0, 2, 3, 1, 4)  # (B, G, H / G, T, D)
        k, v = (part.unsqueeze(3).permute(0, 2, 3, 1, 4) for part in (k, v))  # (B, G, 1, T, D)
        found = scaled_dot_product_attention(q, k, v, window_mask(T, self.window or T))
        return self.o_proj(found.permute(0, 3, 1, 2, 4).reshape(B, T, C))


# A trunk of such blocks, with both ways through it:


class RotaryTransformer(Module):
    """Embedding, blocks with grouped-query attention, and a norm: ids (B, T) -> (B, T, C), for any T."""

    def __init__(self, config: GPTConfig, kv_heads: int, window: int | None = None):
        super().__init__()
        self.wte = Embedding(config.vocab_size, config.n_embd)
        self.h = ModuleList(Block(config) for _ in range(config.n_layer))
        for block in self.h:
            block.attn = GroupedQueryAttention(config.n_embd, config.n_head, kv_heads, window)
        self.ln_f = LayerNorm(config.n_embd)

    def forward(self, ids):
        x = self.wte(ids)
        for block in self.h:
            x = block(x)
        return self.ln_f(x)

    def through(self, ids, positions, attend):
        """As `through`, for this trunk."""
        x = self.wte(ids)
        for layer, block in enumerate(self.h):
            parts = block.attn.projected(block.ln_1(x), positions)
            x = x + block.attn.o_proj(attend(layer, *(part.numpy() for part in parts)).flatten(1))
            x = x + block.mlp(block.ln_2(x))
        return self.ln_f(x)


class RotaryGPT(GPT):
    """A GPT whose blocks have grouped-query attention with rotary positions, and a window if you like. `generate` crops
    a text to block_size tokens; no table depends on that number, so it may be as large as you like."""

    def __init__(self, config: GPTConfig, kv_heads: int, window: int | None = None):
        Module.__init__(self)
        self.config, self.kv_heads, self.window = config, kv_heads, window
        self.transformer: Any = RotaryTransformer(config, kv_heads, window)
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight
        self.reset_parameters()

    def reset_parameters(self):
        """Draw all matrices anew, normal with 0.02; biases 0, the weights of norms 1."""
        for name, p in self.named_parameters():
            drawn = generator().standard_normal(p.shape, np.float32) * np.float32(0.02)
            p.copy_(drawn if p.ndim == 2 else np.full(p.shape, float(name.endswith("weight")), np.float32))


# The second way to a smaller cache is a *sliding window*: a token sees the last $w$ tokens only, as with `window_mask`,
# the exercise of chapter 13. Two layers reach twice as far, because a token in the window has seen its own window.
# Mistral 7B had windows of 4,096 tokens (A. Jiang et al., 2023). The cache never needs more than the window, so a text
# may go on forever. And unlike a cropped text, a text with rotary positions can grow without any token moving.


def check_windows():
    model = RotaryGPT(GPTConfig(20, 10_000, 2, 4, 32), kv_heads=2, window=8)
    text, cache = generator().integers(0, 20, 300).tolist(), KVCache.of(model)
    for end in (5, 6, 7, 90, 91, 92, 300):
        found = read(model, [(cache, unread(cache, text[:end], 10_000))])
        assert np.allclose(found, next_logits(model, [text[:end]]), atol=1e-5)
    assert len(cache) == 300 and cache.keys.shape[1] < 300


# ## Many texts
#
# A server writes many texts at the same time. In decoding, each text brings a single token, and the pass has to fetch
# all weights from memory for it. Chapter 15 has told us what that means: a product of a matrix and one vector waits for
# bytes. With eight texts in one pass, the same bytes serve eight tokens.
#
# In chapter 14 texts begin together, and those that end early leave a gap. Requests to a server come at any time, and
# their lengths differ. But `read` does not care how many texts there are, or how many new tokens each brings. So we
# choose anew before each pass: texts that have ended leave, waiting ones take their caches, and a prompt is read beside
# the single tokens of the others. This is *iteration-level* or *continuous* batching (G. Yu et al., 2022), and
# practically every server of language models does it.
#
# A request is a text with its own settings and its own random numbers, so what it gets cannot depend on the others.


@dataclass(eq=False)
class Request:
    """A text that is being continued: `text` begins with the prompt. `ended` is None as long as it is, and then "stop",
    "length" or "cancelled"."""

    text: list[int]
    max_new_tokens: int
    settings: dict[str, Any]
    stop: frozenset[int]
    random: np.random.Generator
    cache: Any = None  # while it is active
    ended: str | None = None
    prompt_length: int = field(init=False)

    def __post_init__(self):
        self.prompt_length = len(self.text)

    @property
    def tokens(self) -> list[int]:
        """The tokens that were chosen so far."""
        return self.text[self.prompt_length :]

    # A token is chosen as in chapter 14.

    def take(self, logits: np.ndarray) -> None:  # exercise
        """Choose the next token by its logits (V,), append it to the text, and see whether the text ends with it."""
        probabilities = next_probabilities(logits, **self.settings)
        self.text.append(int(self.random.choice(len(probabilities), p=probabilities)))
        if self.text[-1] in self.stop:
            self.ended = "stop"
        elif len(self.text) - self.prompt_length == self.max_new_tokens:
            self.ended = "length"


# The batcher has a fixed number of caches, which bounds its memory. A request that comes in takes the one that has most
# in common with its prompt: so the next turn of a chat finds the cache of the last one, if it is still there. A long
# prompt would keep the others waiting; therefore a pass reads at most `piece` tokens of each text, and a text whose
# prompt is not through gets no token yet.


class Batcher:
    """Continues many texts at a time, with one pass through the model for a token of each. Requests may come and go
    between passes. `slots` is the number of texts in a pass, each with a cache of its own; `caches` may give them."""

    def __init__(self, model: Module, slots: int = 8, piece: int = 256, caches: Iterable[KVCache] | None = None):
        if slots < 1 or piece < 1:
            raise ValueError(f"a batcher needs one slot or more and pieces of one token or more, not {slots}, {piece}")
        self.model, self.piece = model, piece
        self.free = [KVCache.of(model) for _ in range(slots)] if caches is None else list(caches)
        if not self.free:
            raise ValueError("a batcher without a cache would let every request wait: give one cache or more")
        self.waiting: deque[Request] = deque()
        self.active: list[Request] = []

    def submit(
        self, prompt: Iterable[int], max_new_tokens: int, *, temperature: float = 1.0, top_k: int | None = None,
        top_p: float | None = None, stop: Iterable[int] = (), seed: int | Sequence[int] | None = None,
    ) -> Request:
        """A request to continue a prompt, which takes part from the next pass on if there is a free slot, and waits
        otherwise. Settings and errors as those of `tt_nlp.transformers.rounds`."""
        refuse_settings(temperature, top_k, top_p)
        if max_new_tokens < 0:
            raise ValueError(f"max_new_tokens is 0 or more, not {max_new_tokens}")
        settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        random = np.random.default_rng(int(generator().integers(2**63)) if seed is None else seed)
        request = Request(token_ids(prompt), max_new_tokens, settings, frozenset(stop), random)
        if max_new_tokens:
            self.waiting.append(request)
        else:
            request.ended = "length"
        return request

    def cancel(self, request: Request) -> None:
        """End a request; its slot is free at once. One that has ended stays as it is."""
        if request.ended is None:
            request.ended = "cancelled"
            self._release()

    def _release(self) -> None:
        self.free.extend(request.cache for request in self.active if request.ended)
        self.active = [request for request in self.active if not request.ended]
        self.waiting = deque(request for request in self.waiting if not request.ended)

    @property
    def busy(self) -> bool:
        """Whether any request has not ended."""
        return bool(self.waiting or self.active)

    # Before the pass, requests come in; after it, each text that has been read to its end gets a token.

    def step(self) -> list[Request]:  # exercise
        """One pass through the model. The requests that got a token in it, in the order in which they came in."""
        while self.waiting and self.free:
            request = self.waiting.popleft()
            request.cache = max(self.free, key=lambda cache: shared_length(cache.tokens, request.text))
            self.free.remove(request.cache)
            self.active.append(request)
        if not self.active:
            return []
        context, reading = self.model.config.block_size, []
        for request in self.active:
            new = unread(request.cache, request.text, context)
            reading.append((request, new[: self.piece], len(new) <= self.piece))
        logits = read(self.model, [(request.cache, new) for request, new, _ in reading])
        complete = [(request, row) for (request, _, is_last), row in zip(reading, logits) if is_last]
        for request, row in complete:
            request.take(row)
        self._release()
        return [request for request, _ in complete]

    def run(self) -> None:
        """Step until every request has ended."""
        with evaluating_if_needed(self.model):
            while self.busy:
                self.step()


# Chapter 14's functions, on top of that. `generate` has one more argument: a cache that was used before, so that what
# it shares with the prompt is not read again.


def generate(model: Module, prompt, max_new_tokens: int, *, cache: KVCache | None = None, seed=None, **how) -> list:
    """As `tt_nlp.generate`, token for token, without computing anything twice. `cache`: one that has read the beginning
    of the prompt, as another call has left it; for a single prompt only."""
    texts, several = as_texts(prompt)
    if several and cache is not None:
        raise ValueError(f"one cache holds one text, and there are {len(texts)} prompts: leave it out")
    seed = int(generator().integers(2**63)) if seed is None else seed
    batcher = Batcher(model, len(texts), caches=None if cache is None else [cache])
    requests = [batcher.submit(text, max_new_tokens, seed=(seed, row), **how) for row, text in enumerate(texts)]
    batcher.run()
    return [request.text for request in requests] if several else requests[0].text


def stream(
    model: Module, prompt: Sequence[int], max_new_tokens: int, *, cache: KVCache | None = None, seed=None, **how
) -> Iterator[int]:
    """The tokens that continue one prompt, as they are chosen; arguments as for `generate`."""
    seed = int(generator().integers(2**63)) if seed is None else seed
    batcher = Batcher(model, 1, caches=None if cache is None else [cache])
    batcher.submit(prompt, max_new_tokens, seed=(seed, 0), **how)
    while batcher.busy:
        yield from (request.text[-1] for request in batcher.step())


# The witness again: three prompts of different lengths, one of which outgrows the context. (We take the most likely
# token each time, because two implementations may spend their random numbers in different ways.) And requests that come
# and go get what each of them gets alone.


def check_generate():
    from tt_nlp import generate as generate_anew

    model, prompts = small_gpt(20, layers=2, width=16, length=12), [[1, 2, 3], [4], list(range(8))]
    assert generate(model, prompts, 10, temperature=0) == generate_anew(model, prompts, 10, temperature=0)


def check_requests_that_come_and_go():
    model, prompts = small_gpt(20, layers=2, width=16, length=12), [[1, 2, 3], [4], list(range(8))]
    batcher, requests = Batcher(model, slots=2, piece=4), []
    for prompt in prompts:
        requests.append(batcher.submit(prompt, 6, temperature=0.7, seed=(5, 0)))
        batcher.step()
    batcher.run()
    alone = [generate(model, prompt, 6, temperature=0.7, seed=5) for prompt in prompts]
    assert [request.text for request in requests] == alone


# What does it bring? The same eight prompts, one after the other and together, for a model whose weights do not fit
# into a small cache.


def large_writer() -> GPT:
    """A GPT of six blocks with 11 million weights."""
    tt.manual_seed(0)
    return GPT(GPTConfig(65, 256, n_layer=6, n_head=6, n_embd=384)).eval()


def show_batches():
    model, prompts = large_writer(), [some_text(8) for _ in range(8)]
    for slots in (1, 2, 4, 8):
        def serve():
            batcher = Batcher(model, slots)
            for prompt in prompts:
                batcher.submit(prompt, 16)
            batcher.run()

        print(f"{slots} at a time: {8 * 16 / tt.measure(serve).seconds:6.0f} tokens a second")


# ## Errors you will meet


def show_errors():
    model = small_gpt(20, layers=1, length=8)
    cache, batcher = KVCache.of(model), Batcher(model)
    attempts = [
        lambda: read(model, [(cache, [])]),
        lambda: read(model, [(cache, [1]), (cache, [2])]),
        lambda: read(model, [(cache, [1] * 9)]),
        lambda: generate(model, [[1], [2]], 3, cache=cache),
        lambda: batcher.submit([], 3),
        lambda: GroupedQueryAttention(64, 8, 3),
    ]
    for attempt in attempts:
        try:
            attempt()
        except (ValueError, IndexError) as error:
            print(f"{type(error).__name__}: {error}")


# ## Exercises
#
# Besides what is marked in the text:
#
# 1. `best_of`: several answers to one prompt, the least surprising first. The prompt is read once, and each answer
#    begins with a copy of its cache.
# 2. Give `show_hurt` a `RotaryGPT` with a window of 64 tokens. From which length on does `generate` without a cache
#    lose time that a window alone could save?
# 3. `write` counts on `argmax`. With a model of chapter 14 that you have trained, compare its texts with those of
#    `generate` at temperatures 0 and 1: where does the first repeat itself?


def best_of(  # exercise
    model: GPT, prompt: Sequence[int], count: int, max_new_tokens: int, *, seed: int = 0, **how
) -> list[list[int]]:
    """`count` texts that continue a prompt, drawn independently (text i with the seed (seed, i)), ordered by the mean
    surprise of their new tokens, the smallest first. The prompt is read once."""
    first = KVCache.of(model)
    if len(prompt) > 1:
        read(model, [(first, unread(first, prompt[:-1], model.config.block_size))])
    batcher = Batcher(model, caches=[first.copy() for _ in range(count)])
    requests = [batcher.submit(prompt, max_new_tokens, seed=(seed, i), **how) for i in range(count)]
    batcher.run()
    return sorted((r.text for r in requests), key=lambda text: np.mean(surprises(model, text)[len(prompt) - 1 :]))


def check_best_of():
    model = small_gpt(20, layers=1, length=32)
    texts = best_of(model, [1, 2, 3], 4, 5)
    costs = [sum(surprises(model, text)[2:]) for text in texts]
    assert len(texts) == 4 and costs == sorted(costs) and all(text[:3] == [1, 2, 3] for text in texts)


# ## A road not taken
#
# A cache of ours is one piece of memory for each text. It is copied when it grows and when it is shared, and its last
# block is partly empty. vLLM (W. Kwon et al., 2023) treats the memory of all caches as an operating system treats its
# own: *pages* of 16 tokens lie anywhere, a table for each text says where, and texts that begin alike share pages
# until they differ. Nothing is copied, and next to nothing is wasted. The price is attention that has to follow the
# table, which takes a kernel of its own. PyTorch has no cache at all; the `transformers` library has several, which
# concatenate as our lists did or reserve the whole length in advance. Other models need no growing cache, because
# they carry a state of fixed size from token to token (Mamba; and the recurrent networks before 2017).

# ## What hurts next
#
# Where does the time of a token go now? With the cache, a pass for one token meets each weight once. So it has to
# fetch all weights from memory, and does two operations with each: an arithmetic intensity of half an operation a byte.


def show_bytes():
    model = large_writer()
    cache = KVCache.of(model)
    read(model, [(cache, some_text(100))])

    def one_token():
        cache.keep(100)
        read(model, [(cache, [1])])

    size, speed = sum(p.nbytes for p in model.parameters()), tt.setup.bandwidth(1 << 26) * 1e9
    measured = tt.measure(one_token).seconds
    print(f"{size / 1e6:.0f} MB of weights at {speed / 1e9:.0f} GB/s take {size / speed * 1e3:.1f} ms;", end=" ")
    print(f"a token takes {measured * 1e3:.1f} ms, and its cache holds {cache_bytes(model.config, 100) / 1e6:.1f} MB")


# The bytes set a floor. Better kernels bring us closer to it, and no program gets below. But a weight is a number of
# four bytes, and does it need all of them? Chapter 17, *Precision*.

__all__ = [
    "Batcher", "GroupedQueryAttention", "KVCache", "Request", "RotaryGPT", "RotaryTransformer", "best_of",
    "cache_bytes", "generate", "look_back", "multiply_adds_of_a_token", "read", "shared_length", "stream", "through",
    "unread", "write",
]
