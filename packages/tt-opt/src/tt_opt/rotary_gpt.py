# # Rotary GPT
#
# An appendix of chapter 16. At the end of it you have a GPT that you can train, whose cache is several times smaller
# and stops growing when the text becomes longer than a window.

# ## The trunk
#
# Chapter 16 built a layer, `GroupedQueryAttention`, in which several heads of queries share one head of keys and
# values. A model needs a trunk around such layers. The trunk of chapter 14 adds a vector from a table to each token,
# but ours needs no table, because the layers turn queries and keys by their positions.

from __future__ import annotations

from typing import Any

import numpy as np

from tt_autograd import rule
from tt_nlp import GPT, Block, Embedding, GPTConfig, attention_vjp, attention_weights, next_logits
from tt_opt.caching import GroupedQueryAttention, KVCache, look_back, read, unread
from tt_spatial import LayerNorm
from tt_tensor import Linear, Module, ModuleList, Tensor, from_numpy, generator


# There are two ways through our trunk. Training takes `forward`, which reads whole texts and has no cache. Inference
# takes `through`, which reads new tokens and asks `attend` for what their queries find. `read` looks for a method of
# this name.


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
        """Apply this trunk to tokens (N,) at positions (N,), as the function `through` does for a GPT."""
        x = self.wte(ids)
        for layer, block in enumerate(self.h):
            parts = block.attn.projected(block.ln_1(x), positions)
            x = x + block.attn.o_proj(attend(layer, *(part.numpy() for part in parts)).flatten(1))
            x = x + block.mlp(block.ln_2(x))
        return self.ln_f(x)


# ## The model
#
# The model around the trunk has the interface of a GPT, so `read`, `generate` and the batcher of chapter 16 work with
# it. Its head shares the matrix of the embedding, as in chapter 14. `KVCache.of` asks it for `kv_heads` and `window`.


class RotaryGPT(GPT):
    """A GPT whose blocks have grouped-query attention with rotary positions, and a window if you like. `generate` crops
    a text to block_size tokens; since no table depends on that number, it may be as large as you like."""

    def __init__(self, config: GPTConfig, kv_heads: int, window: int | None = None):
        Module.__init__(self)
        self.config, self.kv_heads, self.window = config, kv_heads, window
        self.transformer: Any = RotaryTransformer(config, kv_heads, window)
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight
        self.reset_parameters()

    def reset_parameters(self):
        """Draw all matrices anew, normal with deviation 0.02, and set biases to 0 and the weights of norms to 1."""
        for name, p in self.named_parameters():
            drawn = generator().standard_normal(p.shape, np.float32) * np.float32(0.02)
            p.copy_(drawn if p.ndim == 2 else np.full(p.shape, float(name.endswith("weight")), np.float32))


# Our witness reads a text of 300 tokens anew, each time from the beginning. The cache, which has a window of 8 tokens,
# must give the same logits, and must hold fewer keys than there are tokens.


def check_windows():
    model = RotaryGPT(GPTConfig(20, 10_000, 2, 4, 32), kv_heads=2, window=8)
    text, cache = generator().integers(0, 20, 300).tolist(), KVCache.of(model)
    for end in (5, 6, 7, 90, 91, 92, 300):
        found = read(model, [(cache, unread(cache, text[:end], 10_000))])
        assert np.allclose(found, next_logits(model, [text[:end]]), atol=1e-5)
    assert len(cache) == 300 and cache.keys.shape[1] < 300


# ## The gradient of looking back
#
# `look_back` of chapter 16 is used for inference only, where we need no gradient. However, every primitive of ours has
# a row in the table of rules. This gradient is that of chapter 13's attention. Where several heads share a key, we add
# up the gradients of these heads.


def look_back_vjps(needed, g, out, q, keys, values, window=None):
    """Return the gradients of queries, keys and values, given the gradient g of the result."""
    given = [x if isinstance(x, Tensor) else from_numpy(x) for x in (g, q, keys, values)]
    (T, H, D), (n, G, _) = q.shape, keys.shape
    heads = np.arange(H) // (H // G)
    g_, q_, k, v = (x.permute(1, 0, 2) for x in (given[0], given[1], given[2][:, heads], given[3][:, heads]))
    places = np.arange(n)
    behind = places[n - T :, None] - places
    weights = attention_weights(q_, k, from_numpy((behind >= 0) & (behind < (window or n))))
    of_q, *shared = attention_vjp(g_, weights, q_, k, v, D**-0.5)
    found = [of_q, *(x.reshape(G, H // G, n, D).sum(1) for x in shared)]
    turned = [x.permute(1, 0, 2) for x in found]
    return turned if isinstance(g, Tensor) else [x.numpy() for x in turned]


rule(look_back, together=look_back_vjps)

__all__ = ["RotaryGPT", "RotaryTransformer", "look_back_vjps"]
