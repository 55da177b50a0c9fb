# # Caching
#
# At the end of this chapter your GPT writes the thousandth token of a text about as fast as the first one, and eight
# texts at once several times as fast as one after the other.

# ## The hurt
#
# In chapter 15 we made training several times as fast. Then we let the model write, and each token took longer than the
# one before. A GPT is *autoregressive*: it chooses a token, appends it to the text, and reads the text again. How much
# of that reading do we need?

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
from tt_autograd import evaluating, no_grad
from tt_nlp import (
    GPT, GPTConfig, as_texts, next_logits, next_probabilities, refuse_settings, rotary, scaled_dot_product_attention,
    token_ids, window_mask,
)
from tt_nlp.transformers import small_gpt, surprises
from tt_tensor import Linear, Module, Tensor, from_numpy, generator, meter, primitive


# We take a GPT of four blocks and count its multiply-adds with the meter of chapter 02. For a measurement of time it
# need not have learned anything, because *inference* takes equally long with random weights.


def writer(length: int = 1024) -> GPT:
    """Return a GPT of four blocks with a context of `length` tokens and random weights."""
    tt.manual_seed(0)
    return small_gpt(65, layers=4, width=128, length=length).eval()


def some_text(length: int) -> list[int]:
    """Return so many random tokens."""
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


# A single token meets about 0.8 million weights. All other multiply-adds go to the tokens before it, although the model
# computed those in the previous round, and in the round before that.

# ## The smallest thing that could work
#
# Is that really the same work? In chapter 14 we checked that no position depends on what comes after it. So if we
# append a token, the vectors of all earlier positions must stay the same, in every block. We can simply look:


def show_repeats():
    model, ids = writer(), np.array([some_text(101)])
    before, after = (model.transformer(from_numpy(ids[:, :n])).numpy() for n in (100, 101))
    print(f"largest number: {np.abs(before).max():.2f}, largest change: {np.abs(after[:, :100] - before).max():.0e}")


# Nothing has changed, apart from rounding. So we can keep what we have computed. But what exactly do we need to keep?
# Look at the formula of attention for the newest token $t$:
#
# $$ o_t = \operatorname{softmax}\!\left(\frac{q_t K_{\le t}^T}{\sqrt D}\right) V_{\le t} . $$
#
# Its query $q_t$ is its own, and no later token will need it. From the earlier tokens it needs keys and values and
# nothing else, because everything outside attention works on each position alone. So in each layer we keep the keys and
# the values. The smallest version of that is two lists.


class Lists:
    """The keys and values (heads, D) of a text in one layer, in the order of its tokens."""

    def __init__(self):
        self.keys, self.values = [], []

    def put(self, key: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Append a key and a value. Returns all keys and all values, (tokens, heads, D) each."""
        self.keys.append(key)
        self.values.append(value)
        return np.stack(self.keys), np.stack(self.values)


# The lists work, but they disappoint in a way that you know from chapter 15. To append one row, `stack` copies all
# rows, so a text of $n$ tokens costs $1 + 2 + \dots + n = n (n + 1) / 2$ copied rows in each layer. Once more the time
# of a token grows with the length of the text:


def show_lists():
    cache, row = Lists(), np.ones((4, 32), np.float32)
    for length in (10, 100, 1000):
        while len(cache.keys) < length - 1:
            cache.put(row, row)
        seconds = tt.measure(lambda: (cache.put(row, row), cache.keys.pop(), cache.values.pop())).seconds
        print(f"token {length:4d}, one layer: {seconds * 1e6:6.0f} us to put one key and one value")


# ## The idea
#
# We reserve memory in advance and write each new row behind the others. The array of all keys so far is then a *view*
# of that memory, so we copy nothing. Such a store is called a *KV cache*.
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
# With a cache, a model reads a text in two phases. In the *prefill* it reads the whole prompt in one pass and fills the
# cache. Then comes *decoding*, with one new token in each pass.

# ## The cache
#
# We do not know how long a text will become, and if we reserved memory for the longest one, most texts would waste it.
# So our cache grows by *blocks* of 64 tokens. When a block is full, we copy everything to a larger array. That
# is one copy for every 64 tokens, where the lists needed 64.
#
# The cache also remembers which tokens it holds, because it must never answer for another text. Finally, it may have a
# *window*: if queries see only so many tokens back, we no longer need older keys and values, and `reserve` does
# not copy them.

BLOCK = 64  # tokens


class KVCache:
    """The keys and values of one text in each layer of a model, arrays (layers, room, heads, D). `heads` counts the
    heads of keys. With a window, keys and values that no query can see any more are dropped."""

    def __init__(self, layers: int, heads: int, size: int, window: int | None = None, dtype: Any = np.float32):
        self.tokens: list[int] = []  # which were read
        self.first = 0  # the position of the oldest key that is still here
        self.window = window
        self.keys, self.values = (np.empty((layers, 0, heads, size), dtype) for _ in range(2))

    @classmethod
    def of(cls, model: Module) -> KVCache:
        """Return an empty cache for the texts of a model: a GPT, or a model with attributes `kv_heads` and `window`."""
        config = model.config
        heads, window = getattr(model, "kv_heads", config.n_head), getattr(model, "window", None)
        size = config.n_embd // config.n_head
        return cls(config.n_layer, heads, size, window, next(model.parameters()).dtype)

    # The length of a cache is that of the text that it has read.

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def nbytes(self) -> int:
        """The memory of keys and values, in bytes."""
        return self.keys.nbytes + self.values.nbytes

    # Before a pass we make room for its tokens. We exchange the arrays in a single statement, after everything has been
    # copied, so that an interrupt cannot leave a cache of which only one half has moved.

    def reserve(self, new: int) -> None:  # exercise
        """Make room for `new` more tokens, in whole blocks. If there is room already, nothing is copied."""
        held = len(self.tokens) - self.first
        if held + new <= self.keys.shape[1]:
            return
        kept = held if self.window is None else min(held, self.window - 1)
        room = -(-(kept + new) // BLOCK) * BLOCK
        larger = [np.empty((len(old), room, *old.shape[2:]), old.dtype) for old in (self.keys, self.values)]
        for old, copy in zip((self.keys, self.values), larger):
            copy[:, :kept] = old[:, held - kept : held]
        (self.keys, self.values), self.first = larger, self.first + held - kept

    # During the pass, each layer writes its rows behind those of the earlier tokens.

    def put(self, layer: int, keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # exercise
        """Write the keys and values (T, heads, D) of T new tokens. Returns views of all that are here, (n, heads, D)
        each."""
        held = len(self.tokens) - self.first
        end = held + len(keys)
        self.keys[layer, held:end], self.values[layer, held:end] = keys, values
        return self.keys[layer, :end], self.values[layer, :end]

    # `tokens` grows only when a pass is complete. So if a pass fails, or if you interrupt it, the cache still holds
    # what it held before. Forgetting is cheap, too, because rows behind the last token do not count.

    def keep(self, length: int) -> None:  # exercise
        """Forget all tokens after the first `length`; all of them if the window has dropped what they would need."""
        oldest = 0 if self.window is None else max(length - self.window + 1, 0)
        if oldest < self.first:
            length = self.first = 0
        del self.tokens[length:]

    def copy(self) -> KVCache:
        """Return another cache that holds the same."""
        return deepcopy(self)


# We write 100 tokens in three pieces, which need two blocks.


def check_the_cache():
    cache, rows = KVCache(1, 2, 3), np.arange(600.0).reshape(100, 2, 3)
    for start, stop in ((0, 70), (70, 71), (71, 100)):
        cache.reserve(stop - start)
        keys, _ = cache.put(0, rows[start:stop], rows[start:stop])
        cache.tokens.extend(range(start, stop))
        assert (keys == rows[:stop]).all() and cache.keys.shape == (1, 128 if stop > 64 else 64, 2, 3)


# ## Looking back
#
# Next we need the attention of the new tokens to all $n$ tokens so far. There are $T$ new ones in a prefill and a
# single one in decoding, and they are the last $T$ of the $n$. So query $i$ is at position $n - T + i$, and it sees the
# keys up to that position. Here is a trap: the *causal mask* of chapter 13 begins at position 0, and would hide all
# keys except the first one from a single new query. The figure shows both masks, and how the memory of a cache grows.


def show_masks_and_memory():
    """Which keys the queries of a prefill and of decoding see, and how a cache grows by blocks."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), width_ratios=[1, 1, 1.6])
    for axis, new, title in zip(axes, (8, 1), ("prefill, 8 new tokens", "decoding, 1 new token")):
        axis.imshow(np.tri(8)[-new:], cmap="Blues", vmin=0, vmax=1.5, extent=(0, 8, new, 0))
        axis.set(title=title, xlabel="keys", ylabel="queries", xticks=[0, 8], yticks=[0, new])
    cache, held = KVCache(4, 4, 32), []
    for token in range(300):
        cache.reserve(1)
        cache.tokens.append(token)
        held.append(cache.nbytes / 1e6)
    axes[2].step(range(300), held, label="held")
    axes[2].plot([0, 300], [0, 300 * 2 * 4 * 4 * 32 * 4 / 1e6], label="needed")
    axes[2].set(title="a cache of four layers", xlabel="tokens", ylabel="MB")
    axes[2].legend()
    figure.tight_layout()
    return figure


# We take one more freedom, which we will use below: several heads of queries may share one head of keys and values. We
# put their queries below each other, so that one product serves them all. With $H$ heads of queries and $G$ heads of
# keys, $H / G$ heads of queries share a head of keys, and together they have $T \cdot H / G$ rows.
#
# Everything else is the attention of chapter 13 on plain arrays: scores, a mask, softmax, and a weighted sum of the
# values. The mask asks how far a key lies behind a query. A negative distance means that the key comes later, and a
# distance of `window` or more means that the key is too old.


@primitive(cost=lambda out, q, keys, values, **window: 2 * out.size * len(keys))
def look_back(q, keys, values, /, window=None):  # exercise
    """Return what T queries (T, H, D) find among keys and values (n, G, D) whose last T are of the same tokens: (T, H,
    D).

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


# We only use `look_back` for inference. Its gradient, which is that of chapter 13's attention, is in the appendix
# *Rotary GPT*.
#
# Two checks against chapter 13. If all tokens are new, we must get its causal attention, and the last query alone must
# find the same as it finds among the others.


def check_look_back():
    q, k, v = (tt.randn(5, 2, 4) for _ in range(3))
    heads_first = (q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1))
    whole = scaled_dot_product_attention(*heads_first, is_causal=True).transpose(0, 1)
    assert np.allclose(look_back(q, k, v).numpy(), whole.numpy(), atol=1e-6)
    assert np.allclose(look_back(q[4:], k, v).numpy(), whole[4:].numpy(), atol=1e-6)


# ## Reading with a cache
#
# There are three places in the forward pass of chapter 14 where a token must know more than itself. It needs its
# *position*, because the first new token is no longer at position 0. It needs *attention*. At the end, we want only the
# *logits* after the last token. So we write the pass again, with the positions and the attention as arguments. It has
# no batch dimension: all tokens are rows of one array $(N, C)$. Whether they belong to one text or to several, only
# `attend` needs to know.


def through(trunk: Module, ids: Tensor, positions: np.ndarray, attend: Callable) -> Tensor:  # exercise
    """Apply the Transformer of chapter 14 to tokens (N,) at positions (N,): (N, C). attend(layer, q, k, v), with arrays
    of shape (N, heads, D), returns what the queries find, a tensor of that shape."""
    x = trunk.wte(ids) + trunk.wpe(from_numpy(positions))
    for layer, block in enumerate(trunk.h):
        parts = block.attn.c_attn(block.ln_1(x)).reshape(len(ids), 3, block.attn.n_head, -1).numpy()
        found = attend(layer, parts[:, 0], parts[:, 1], parts[:, 2])
        x = x + block.attn.c_proj(found.flatten(1))
        x = x + block.mlp(block.ln_2(x))
    return trunk.ln_f(x)


# `read` takes pairs of a cache and the tokens that come next in its text. It puts all new tokens into one array, and in
# each layer it lets each text look back at its own cache.
#
# For example, let one text bring a prompt of five tokens and another a single token. The array then has six rows. Rows
# 0 to 4 belong to the first text, whose positions count from the length of its cache, and row 5 belongs to the second.
# The matrix products do not ask whose row they multiply, so one pass serves both texts. Only `attend` cuts the array
# into the rows of each text. When the pass is complete, each cache notes the tokens that it has read. A model with
# another trunk brings a `through` of its own.


def read(model: Module, texts: Sequence[tuple[KVCache, Sequence[int]]], every: bool = False) -> np.ndarray:  # exercise
    """Read new tokens of several texts in one pass. `texts` holds a cache for each text, into which its tokens go, and
    the tokens. Returns the logits after the last token of each text, (texts, V), or, if `every`, after each token (N,
    V)."""
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


# `read` has two helpers. The first one saves time: `evaluating`, of chapter 08, visits all modules twice, and we would
# pay for that with each token.


def evaluating_if_needed(model: Module) -> Any:
    """Return `evaluating(model)`, or an empty context if every part of the model is in evaluation mode already."""
    return evaluating(model) if any(part.training for part in model.modules()) else nullcontext()


# The second one refuses texts that cannot be read.


def refuse_texts(model: Module, texts: Sequence[tuple[KVCache, Sequence[int]]]) -> None:
    """Raise ValueError for a text without new tokens or longer than the context, and for a cache that occurs twice."""
    if not texts or not all(len(new) for _, new in texts):
        raise ValueError("each text needs at least one new token, after which the next one comes")
    if len({id(cache) for cache, _ in texts}) < len(texts):
        raise ValueError("two texts have the same cache: each needs its own, and cache.copy() makes another")
    longest, context = max(len(cache) + len(new) for cache, new in texts), model.config.block_size
    if longest > context:
        raise ValueError(f"{longest} tokens do not fit into a context of {context}: `unread` crops a text")


# Our witness is chapter 14, which computes everything anew. We read one text token by token, with another one beside
# it.


def check_read():
    model, text = small_gpt(20, layers=2, width=16, length=16), list(range(12))
    cache, other = KVCache.of(model), KVCache.of(model)
    read(model, [(cache, text[:5])])
    for end in (6, 7, 12):
        both = read(model, [(cache, text[len(cache) : end]), (other, text[len(other) : end - 4])])
        assert np.allclose(both, next_logits(model, [text[:end], text[: end - 4]]), atol=1e-5)


# ## What has not been read yet
#
# In a chat, you send the whole conversation with each turn, and all of it except for the last turn is in the cache
# already. So we compare the text with the tokens of the cache, keep their common beginning, and read the rest. This is
# called *prefix caching*. If you begin a new conversation, text and cache share at most their first few tokens, and the
# cache forgets the rest. We always read at least one token again, because we need the logits after it.
#
# What if the text is longer than the context? Chapter 14 shows the model the last `block_size` tokens. With each new
# token, every other one moves one position to the front and gets another vector from the table of positions, and with
# it other keys and values. Therefore we cannot keep anything, and we read the whole window again for each token. That
# is slow, but it is what the model was trained to do. (In the section *Smaller caches* we build a model without that
# problem.)


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:  # exercise
    """Return how many tokens two texts have in common at their beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def unread(cache: KVCache, text: Sequence[int], context: int) -> list[int]:  # exercise
    """Return the tokens, at least one, that a cache must still read so that it holds the last `context` tokens of a
    text. The cache forgets tokens of other texts."""
    window = list(text[-context:])
    cache.keep(min(shared_length(cache.tokens, window), len(window) - 1))
    return window[len(cache) :]


# We check a text that turns off after three tokens, one that is shorter than the cache, and one that is cropped.


def check_unread():
    cache = KVCache(1, 1, 2)
    cache.tokens = [3, 1, 4, 1, 5]
    assert unread(cache, [3, 1, 4, 2], 10) == [2] and cache.tokens == [3, 1, 4]
    assert unread(cache, [3, 1, 4], 10) == [4] and unread(cache, [3, 1, 4], 2) == [1, 4]


# Now the loop that writes is short. Ours always takes the most likely token, which is called *greedy decoding*.


def write(model: GPT, prompt: Sequence[int], count: int) -> list[int]:
    """Return a prompt and `count` tokens that continue it, each of them the most likely one."""
    cache, text = KVCache.of(model), list(prompt)
    for _ in range(count):
        logits = read(model, [(cache, unread(cache, text, model.config.block_size))])
        text.append(int(logits[0].argmax()))
    return text


# Does the time still grow with the length of the text? We repeat the measurement with which this chapter began.


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


# The time is practically flat. The pass for token 1,000 has twice as many multiply-adds as that for token 10, because
# its query meets 1,000 keys, but the time grows by less than that. We can count the terms. A block has $12 C^2$
# weights, and the token meets each of them once. Each of the $n$ keys costs $C$ multiply-adds in the scores, and each
# of the $n$ values another $C$ in the sum. The logits cost $C V$. Together, for $L$ blocks:
#
# $$ L \, (12 C^2 + 2 n C) + C V . $$


def multiply_adds_of_a_token(config: GPTConfig, length: int) -> int:  # exercise
    """Return the multiply-adds of reading one token, the last of a text of `length`, with a cache."""
    C = config.n_embd
    return config.n_layer * (12 * C * C + 2 * length * C) + C * config.vocab_size


# The meter agrees with the formula.


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
# We have traded memory for time. The cache holds two vectors, a key and a value, for each token in each layer:


def cache_bytes(config: GPTConfig, length: int, kv_heads: int | None = None, itemsize: int = 4) -> int:  # exercise
    """Return the bytes of the keys and values of a text of `length` tokens, if kv_heads of config.n_head heads (all of
    them by default) have keys of their own and a number takes `itemsize` bytes."""
    heads = config.n_head if kv_heads is None else kv_heads
    return 2 * config.n_layer * length * (heads * config.n_embd // config.n_head) * itemsize


# We compare the formula with the cache of our model and then apply it to larger models. The last one has the sizes of
# Llama 2 with 70 billion weights (H. Touvron et al., 2023) and numbers of two bytes.


def show_memory():
    model = writer()
    cache = KVCache.of(model)
    read(model, [(cache, some_text(1000))])
    print(f"ours, 1,000 tokens: {cache_bytes(model.config, 1000):,d} bytes by the formula, {cache.nbytes:,d} held")
    large = GPTConfig(32_000, 4096, n_layer=80, n_head=64, n_embd=8192)
    print(f"GPT-2, 1,024 tokens: {cache_bytes(GPTConfig(), 1024) / 1e6:.0f} MB")
    full, grouped = (cache_bytes(large, 4096, heads, itemsize=2) / 1e9 for heads in (64, 8))
    print(f"70 billion weights, 4,096 tokens: {full:.1f} GB for one text, {grouped:.1f} GB with 8 heads of keys")


# Our cache holds a bit more than the formula says, because its last block is not full. For a large model, the memory of
# the caches decides how many texts it can write at the same time. The last line shows a way out.

# ## Smaller caches
#
# 64 heads ask 64 kinds of questions. But do they need 64 kinds of keys? In *grouped-query attention* (J. Ainslie et
# al., 2023) several heads of queries share one head of keys and values. The cache shrinks by that factor, and so do the
# bytes of it that decoding reads, although the quality of the model hardly suffers. With a single head of keys it is
# called *multi-query attention*; with as many heads of keys as of queries it is the *multi-head attention* of chapter
# 13.
#
# Our layer has a matrix for each role. For positions we take the *rotary embeddings* of chapter 12, which turn queries
# and keys and need no table. The parameters have the names that the `transformers` library gives them in Llama.


class GroupedQueryAttention(Module):
    """Causal attention with rotary positions whose heads of queries share kv_heads heads of keys and values:
    (B, T, C) -> (B, T, C). A token sees `window` tokens back, itself included, or all of them if `window` is None."""

    def __init__(self, width: int, heads: int, kv_heads: int, window: int | None = None, base: float = 10_000.0):
        super().__init__()
        if min(heads, kv_heads) < 1 or width % heads or heads % kv_heads:
            raise ValueError(f"{kv_heads} heads of keys must divide {heads} of queries, and these the width {width}")
        if window is not None and window < 1:
            raise ValueError(f"window must be 1 or more, because a token sees at least itself, not {window}")
        self.heads, self.kv_heads, self.size, self.window, self.base = heads, kv_heads, width // heads, window, base
        self.q_proj = Linear(width, width, bias=False)
        self.k_proj, self.v_proj = (Linear(width, kv_heads * self.size, bias=False) for _ in range(2))
        self.o_proj = Linear(width, width, bias=False)

    # We turn queries and keys by the positions of their tokens before the keys go into the cache, because the position
    # of a key never changes.

    def projected(self, x: Tensor, positions: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:  # exercise
        """Return the queries (..., T, H, D), keys and values (..., T, G, D) of x (..., T, C) at positions (T,)."""
        parts = (linear(x) for linear in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = (part.reshape(*x.shape[:-1], -1, self.size) for part in parts)
        return self.rotated(q, positions), self.rotated(k, positions), v

    def rotated(self, x: Tensor, positions: np.ndarray) -> Tensor:
        """Return x (..., T, heads, D), turned by the positions (T,) of its tokens."""
        return rotary(x.transpose(-3, -2), positions, self.base).transpose(-3, -2)

    # In training we have no cache. Keys and values get a dimension of size 1, over which their queries broadcast.

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.projected(x, np.arange(T))
        q = q.reshape(B, T, self.kv_heads, -1, self.size).permute(0, 2, 3, 1, 4)  # (B, G, H / G, T, D)
        k, v = (part.unsqueeze(3).permute(0, 2, 3, 1, 4) for part in (k, v))  # (B, G, 1, T, D)
        found = scaled_dot_product_attention(q, k, v, window_mask(T, self.window or T))
        return self.o_proj(found.permute(0, 3, 1, 2, 4).reshape(B, T, C))


# From such blocks the appendix *Rotary GPT* builds a model, `RotaryGPT`. It has the interface of a GPT, so everything
# in this chapter works with it, and its trunk brings a `through` of its own.
#
# The second way to a smaller cache is a *sliding window*: a token sees only the last $w$ tokens, as with `window_mask`,
# your exercise of chapter 13. Two layers reach twice as far, because a token in the window has seen its own window.
# Mistral 7B had windows of 4,096 tokens (A. Jiang et al., 2023). Since the cache never needs more than the window, a
# text may become as long as you like. With rotary positions no token moves, as it would in a cropped text. The appendix
# checks that over 300 tokens.


# ## Many texts
#
# A server writes many texts at the same time. In decoding, each text brings a single token, and for this token the pass
# must fetch all weights from memory. You know from chapter 15 what that means: a product of a matrix and one vector is
# memory-bound. With eight texts in one pass, the same bytes serve eight tokens.
#
# In chapter 14 texts begin together, and those that end early leave a gap. Requests to a server, however, come at any
# time, and their lengths differ. Fortunately `read` accepts any number of texts with any number of new tokens. So we
# choose the texts anew before each pass: texts that have ended leave, waiting ones take their caches, and we read a
# prompt beside the single tokens of the others. This is *iteration-level* or *continuous batching* (G. Yu et al.,
# 2022), and practically every server of language models works this way.
#
# A request is a text with its own settings and its own random numbers, so that its answer cannot depend on the other
# requests.


@dataclass(eq=False)
class Request:
    """A text that is being continued. `text` begins with the prompt; `ended` is None until it ends, and then "stop",
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
        """The tokens that have been chosen so far."""
        return self.text[self.prompt_length :]

    # We choose a token as in chapter 14, by *sampling* from the probabilities.

    def take(self, logits: np.ndarray) -> None:  # exercise
        """Choose the next token by its logits (V,), append it to the text, and end the request if the text ends with
        it."""
        probabilities = next_probabilities(logits, **self.settings)
        self.text.append(int(self.random.choice(len(probabilities), p=probabilities)))
        if self.text[-1] in self.stop:
            self.ended = "stop"
        elif len(self.text) - self.prompt_length == self.max_new_tokens:
            self.ended = "length"


# Our batcher has a fixed number of caches, which bounds its memory. A request that comes in takes the free cache that
# has most in common with its prompt, so the next turn of your chat finds the cache of the last turn, if it is still
# there. Because a long prompt would keep the other texts waiting, a pass reads at most `piece` tokens of each text
# (*chunked prefill*), and a text gets its first token only after the last piece of its prompt.


class Batcher:
    """Continues many texts at a time, with one pass through the model for a token of each. Requests may come and go
    between passes. A pass has up to `slots` texts, each with a cache of its own, or as many as `caches`, if given.
    Raises ValueError without a slot or a cache, and for pieces of less than one token."""

    def __init__(self, model: Module, slots: int = 8, piece: int = 256, caches: Iterable[KVCache] | None = None):
        if slots < 1 or piece < 1:
            raise ValueError(f"a batcher needs one slot or more and pieces of one token or more, not {slots}, {piece}")
        self.model, self.piece = model, piece
        self.free = [KVCache.of(model) for _ in range(slots)] if caches is None else list(caches)
        if not self.free:
            raise ValueError("a batcher without a cache would let every request wait: give one cache or more")
        self.waiting: deque[Request] = deque()
        self.active: list[Request] = []

    # You submit a prompt with its settings, and get a request, whose `text` grows with each step. Without a seed, the
    # request draws one from our generator.

    def submit(
        self, prompt: Iterable[int], max_new_tokens: int, *, temperature: float = 1.0, top_k: int | None = None,
        top_p: float | None = None, stop: Iterable[int] = (), seed: int | Sequence[int] | None = None,
    ) -> Request:
        """Return a request to continue a prompt. It takes part from the next pass on if a slot is free, and waits
        otherwise. Settings and errors are those of `tt_nlp.generate`."""
        refuse_settings(temperature, top_k, top_p)
        if max_new_tokens < 0:
            raise ValueError(f"max_new_tokens must be 0 or more, not {max_new_tokens}")
        settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        random = np.random.default_rng(int(generator().integers(2**63)) if seed is None else seed)
        request = Request(token_ids(prompt), max_new_tokens, settings, frozenset(stop), random)
        if max_new_tokens:
            self.waiting.append(request)
        else:
            request.ended = "length"
        return request

    # You may change your mind, too. In any case a request that has ended gives its cache back.

    def cancel(self, request: Request) -> None:
        """End a request and free its slot at once. A request that has ended already is not changed."""
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

    # A step has three parts. First we let requests in while caches are free. Then we make one pass, with at most
    # `piece` unread tokens of each text. After it, each text that has been read to its end gets a token, and those that
    # end with it give their caches back. A text that is in the middle of its prompt gets no token, so its row of logits
    # is not used.

    def step(self) -> list[Request]:  # exercise
        """Make one pass through the model. Returns the requests that got a token in it, in the order in which they came
        in."""
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


# On top of the batcher we write `generate` and `stream` of chapter 14 again. They take one more argument, a cache that
# you have used before, so that we need not read its common beginning with the prompt again.


def generate(model: Module, prompt, max_new_tokens: int, *, cache: KVCache | None = None, seed=None, **how) -> list:
    """Continue a prompt, or several, as `tt_nlp.generate` does, token for token, without computing anything twice.
    `cache`, for a single prompt only, may have read the beginning of the prompt in an earlier call."""
    texts, several = as_texts(prompt)
    if several and cache is not None:
        raise ValueError(f"one cache holds one text, and there are {len(texts)} prompts: leave it out")
    seed = int(generator().integers(2**63)) if seed is None else seed
    batcher = Batcher(model, len(texts), caches=None if cache is None else [cache])
    requests = [batcher.submit(text, max_new_tokens, seed=(seed, row), **how) for row, text in enumerate(texts)]
    batcher.run()
    return [request.text for request in requests] if several else requests[0].text


# `stream` returns each token as soon as it is chosen.


def stream(
    model: Module, prompt: Sequence[int], max_new_tokens: int, *, cache: KVCache | None = None, seed=None, **how
) -> Iterator[int]:
    """Yield the tokens that continue one prompt, as they are chosen. Arguments as for `generate`."""
    seed = int(generator().integers(2**63)) if seed is None else seed
    batcher = Batcher(model, 1, caches=None if cache is None else [cache])
    batcher.submit(prompt, max_new_tokens, seed=(seed, 0), **how)
    while batcher.busy:
        yield from (request.text[-1] for request in batcher.step())


# We call the witness again, with three prompts of different lengths, one of which outgrows the context. (We take the
# most likely token each time, because two implementations may spend their random numbers in different ways.) The second
# check lets requests come and go: each must get the text that it gets alone.


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


# What does batching bring? We serve the same eight prompts one after the other and together, with a model whose weights
# do not fit into a small cache.


def large_writer() -> GPT:
    """Return a GPT of six blocks with 11 million weights."""
    tt.manual_seed(0)
    return GPT(GPTConfig(65, 256, n_layer=6, n_head=6, n_embd=384)).eval()


def show_batches():
    model, prompts = large_writer(), [some_text(8) for _ in range(8)]
    for slots in (1, 2, 4, 8):
        def serve():
            batcher = Batcher(model, slots)
            for prompt in prompts:
                batcher.submit(prompt, 8)
            batcher.run()

        print(f"{slots} at a time: {8 * 8 / tt.measure(serve).seconds:6.0f} tokens a second")


# More texts in a pass give more tokens a second: *throughput* grows, although the *latency* of a single token grows as
# well. A server chooses a compromise. (Two at a time may be slower than one, because BLAS has a routine of its own for
# the product of a matrix and a single vector.)

# ## Errors you will meet
#
# Most of them are about caches: a text needs at least one new token, a cache of its own, and room in the context.


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
# Besides the exercises that are marked in the text:
#
# 1. Write `best_of`, which returns several answers to one prompt, the least surprising first. Read the prompt once, and
#    let each answer begin with a copy of its cache.
# 2. Give `show_hurt` a `RotaryGPT` with a window of 64 tokens. From which length on does `generate` without a cache
#    lose time that a window alone could save?
# 3. `write` relies on `argmax`. Take a model of chapter 14 that you have trained, and compare its texts with those of
#    `generate` at temperatures 0 and 1. Where does the first one repeat itself?


def best_of(  # exercise
    model: GPT, prompt: Sequence[int], count: int, max_new_tokens: int, *, seed: int = 0, **how
) -> list[list[int]]:
    """Return `count` texts that continue a prompt, drawn independently (text i with the seed (seed, i)) and ordered by
    the mean surprise of their new tokens, the smallest first. The prompt is read once."""
    first = KVCache.of(model)
    if len(prompt) > 1:
        read(model, [(first, unread(first, prompt[:-1], model.config.block_size))])
    batcher = Batcher(model, caches=[first.copy() for _ in range(count)])
    requests = [batcher.submit(prompt, max_new_tokens, seed=(seed, i), **how) for i in range(count)]
    batcher.run()
    return sorted((r.text for r in requests), key=lambda text: np.mean(surprises(model, text)[len(prompt) - 1 :]))


# Four texts must come back, each with the prompt, in the order of their surprise.


def check_best_of():
    model = small_gpt(20, layers=1, length=32)
    texts = best_of(model, [1, 2, 3], 4, 5)
    costs = [sum(surprises(model, text)[2:]) for text in texts]
    assert len(texts) == 4 and costs == sorted(costs) and all(text[:3] == [1, 2, 3] for text in texts)


# ## A road not taken
#
# Our cache is one piece of memory for each text. We copy it when it grows and when it is shared, and its last block is
# partly empty. vLLM (W. Kwon et al., 2023) treats the memory of all caches as an operating system treats its own
# (*paged attention*): *pages* of 16 tokens may be anywhere, a table for each text says where, and texts that begin
# alike share pages until they differ. It copies nothing and wastes next to nothing. The price is that attention must
# follow the table, so vLLM needs a kernel of its own for it. PyTorch has no cache at all. The `transformers` library
# has several: some concatenate as our lists did, others reserve the whole length in advance. Some models need no
# growing cache, because they carry a state of fixed size from token to token, such as Mamba and the recurrent networks
# before 2017.

# ## What hurts next
#
# Where does the time of a token go now? With the cache, a pass for one token meets each weight once. So it must fetch
# all weights from memory, four bytes each, and performs two operations with each of them: an arithmetic intensity of
# half an operation a byte. That is far down the slope of the roof.


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


# The bytes set a floor. Better kernels bring us closer to it, but no program gets below it. So the next question is
# about the bytes themselves: does a weight need all four of them? Chapter 17, *Precision*.

__all__ = [
    "Batcher", "GroupedQueryAttention", "KVCache", "Request", "best_of", "cache_bytes", "generate", "look_back",
    "multiply_adds_of_a_token", "read", "shared_length", "stream", "through", "unread", "write",
]
