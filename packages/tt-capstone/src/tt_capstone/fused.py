# # Fused
#
# An appendix of chapter 20. At the end of it the same Llama with the same weights reads a token in three fifths of the
# time, because we do less between its products.

# ## The hurt
#
# In chapter 20 we computed a floor: the weights of SmolLM2 come from memory in a few milliseconds. But a token takes
# several times as long. Where does the time go? We ask the profiler of chapter 19.

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np

import tt_tensor as tt
from tt_capstone.capstone import Llama, LlamaBlock, LlamaTransformer, load_language_model, small_llama, weights_file
from tt_nlp import RMSNorm
from tt_nlp.embeddings import frequencies
from tt_opt import KVCache, Quantized, accelerate, packed_product, profile, quantize_, read, table
from tt_tensor import Linear, Module, Tensor, from_numpy, generator, interpreting


def token_reader(model: Llama, length: int = 100) -> Callable[[], np.ndarray]:
    """Return a function that reads one more token after a text of `length`, and returns the logits (1, V)."""
    cache = KVCache.of(model)
    read(model, [(cache, generator().integers(0, model.config.vocab_size, length).tolist())])

    def one_token():
        cache.keep(length)
        return read(model, [(cache, [17])])

    return one_token


def show_hurt():
    if (file := weights_file()) is None:
        return
    with accelerate():
        model: Any = load_language_model(file).model
        one_token = token_reader(model)
        one_token()
        with profile(model) as found:
            one_token()
    print(table(found, by="primitive"))


# We see more than a thousand calls of the door, and only seven of thirty-six in each block are products. A norm alone
# is eight calls, and each of them wraps an array of 576 numbers, which takes less than a microsecond to compute. In
# training this hardly matters, because the arrays are larger, and because we record every step, each with a rule of its
# own. But here we record nothing.
#
# The products themselves are short as well. A product with a matrix of 192 rows is over in ten microseconds, about as
# long as the call itself takes, so it is hardly worth sharing between two threads.

# ## The idea
#
# We can gain three things without any new mathematics.
#
# 1. **Fewer, larger products.** The matrices of queries, keys and values meet the same vector. If we put their rows one
#    below the other, they are one matrix, and its product is one call, which two threads share. The same holds for
#    `gate` and `up`.
# 2. **Plain NumPy in between.** The products go through the door, so that the kernel sets and the profiler see them.
#    Between two products we work on arrays.
# 3. **Nothing thirty times.** All layers turn by the same angles, so we compute their cosines and sines once in a pass.
#
# Such steps are called *fusion*. Compilers for neural networks find them on their own; we write them down.

# ## One matrix for several layers
#
# The rows of packed layers are bytes, so we can put them into one array, of which each layer keeps its part as a view.
# That adds no memory, the layers work as before, and their names in a checkpoint stay. If the layers are ordinary ones,
# or packed in different formats, each keeps a product of its own. For `float32` we lose nothing by that, because its
# matrices are six times as large, and each is worth a call.


def side_by_side(*layers: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that applies layers without bias to x (N, K) and returns their results side by side. For layers
    packed in one format it is a single product, and their rows become views of one array."""
    kind = getattr(layers[0], "kind", None)
    if not all(isinstance(layer, Quantized) and layer.kind == kind for layer in layers):
        return partial(_each, layers)
    rows = np.concatenate([layer.rows.numpy() for layer in layers])
    ends = np.cumsum([layer.shape[0] for layer in layers])
    for layer, end in zip(layers, ends):
        layer.register_buffer("rows", from_numpy(rows[end - layer.shape[0] : end]))
    return partial(_together, from_numpy(rows), str(kind))


def _together(rows: Tensor, kind: str, x: np.ndarray) -> np.ndarray:
    return packed_product(from_numpy(x), rows, kind=kind).numpy()


def _each(layers: tuple[Linear, ...], x: np.ndarray) -> np.ndarray:
    found = [layer(from_numpy(x)).detach().numpy() for layer in layers]
    return found[0] if len(found) == 1 else np.concatenate(found, axis=-1)


def check_side_by_side():
    x = tt.randn(3, 64)
    for packed in (False, True):
        network: Any = tt.Sequential(Linear(64, 32, bias=False), Linear(64, 8, bias=False))
        layers = list((quantize_(network, "q4_1") if packed else network).children())
        before = [layer(x).detach().numpy() for layer in layers]
        together = side_by_side(*layers)(x.numpy())
        assert np.allclose(together, np.concatenate(before, axis=1), atol=1e-5)
        assert all(np.allclose(layer(x).detach().numpy(), y, atol=1e-5) for layer, y in zip(layers, before))


# ## Between the products
#
# A norm in plain NumPy is six operations, two of which work on a single number for each token.


def normal(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """Return `rms_norm` of chapter 14 for arrays x (N, C), weight (C,)."""
    size = np.vecdot(x, x)[:, None] / x.dtype.type(len(weight))
    out = x / np.sqrt(size + x.dtype.type(eps))
    out *= weight
    return out


def check_normal():
    x, norm = tt.randn(3, 64), RMSNorm(64, 1e-5)
    norm.weight.copy_(np.linspace(0.5, 2, 64))
    assert np.allclose(normal(x.numpy(), norm.weight.detach().numpy(), 1e-5), norm(x).detach().numpy(), atol=1e-6)


# In chapter 12 we turn pairs of numbers by an angle $\varphi$. A pair $(a, b)$ is a complex number $a + i b$, and we
# turn it if we multiply it by $e^{i \varphi} = \cos \varphi + i \sin \varphi$. NumPy knows complex numbers, and a pair
# in memory *is* one. So we turn queries and keys, which are side by side, together, by a single product.


def turns(positions: np.ndarray, size: int, base: float, dtype: Any) -> np.ndarray:
    """Return the complex numbers that turn the pairs of heads of that size at positions (N,): (N, 1, size / 2)."""
    angles = positions[:, None, None] * frequencies(size, base)
    return np.exp(1j * angles).astype(np.result_type(dtype, np.complex64))


def check_turns():
    from tt_nlp import rotary

    x, positions = tt.randn(5, 2, 8), np.arange(5) + 3
    pairs = x.numpy().view(np.complex64) * turns(positions, 8, 10_000.0, np.float32)
    turned = pairs.view(np.float32)
    assert np.allclose(turned, rotary(x.transpose(0, 1), positions).transpose(0, 1).numpy(), atol=1e-6)


# The gate of the MLP is $u \cdot g / (1 + e^{-g})$. If $e^{-g}$ overflows, the quotient is 0, as it should be.


def gated(both: np.ndarray) -> np.ndarray:
    """Return silu(g) * u for g and u side by side, (N, 2 H): (N, H)."""
    half = both.shape[1] // 2
    g, u = both[:, :half], both[:, half:]
    out = np.exp(-g)
    out += 1
    np.divide(g, out, out=out)
    out *= u
    return out


def check_gated():
    g, u = tt.randn(3, 8) * 10, tt.randn(3, 8)
    assert np.allclose(gated(tt.cat([g, u], 1).numpy()), (tt.silu(g) * u).numpy(), atol=1e-5)


# ## The pass
#
# A block is now four products with NumPy in between. We collect its parts once: functions for the products, and the
# weights of the norms as arrays, which share their memory with the parameters.


class FusedBlock:
    """The products and norms of a block as functions and arrays."""

    def __init__(self, block: LlamaBlock):
        attention, mlp = block.self_attn, block.mlp
        self.looking = side_by_side(attention.q_proj, attention.k_proj, attention.v_proj)
        self.found, self.gates = side_by_side(attention.o_proj), side_by_side(mlp.gate_proj, mlp.up_proj)
        self.down = side_by_side(mlp.down_proj)
        norms: Any = (block.input_layernorm, block.post_attention_layernorm)
        self.norms = [(norm.weight.detach().numpy(), norm.eps) for norm in norms]


# Our trunk holds the modules of the trunk that it replaces, so training, `forward` and checkpoints are as before. We
# only replace the pass that reads with a cache. Compare it with `LlamaTransformer.through`.


class FusedTransformer(LlamaTransformer):
    """A trunk with the modules of another one and a faster `through`. If you replace a layer later, or convert the
    weights to another type, fuse again."""

    def __init__(self, trunk: LlamaTransformer):
        Module.__init__(self)
        self.embed_tokens, self.layers, self.norm, self.training = trunk.embed_tokens, trunk.layers, trunk.norm, False
        self.blocks = [FusedBlock(block) for block in trunk.layers]

    def through(self, ids, positions, attend):
        """Do the same as `LlamaTransformer.through`, without gradients."""
        x = self.embed_tokens(ids).detach().numpy()
        if self.blocks:
            with tt.quiet():
                x = self._through_blocks(x, positions, attend)
        last: Any = self.norm
        return from_numpy(normal(x, last.weight.detach().numpy(), last.eps))

    def _through_blocks(self, x, positions, attend):
        like = self.layers[0].self_attn
        turning, heads = like.heads + like.kv_heads, like.heads
        factors = turns(positions, like.size, like.base, x.dtype)
        for layer, block in enumerate(self.blocks):
            parts = block.looking(normal(x, *block.norms[0])).reshape(len(x), -1, like.size)
            turned = (parts[:, :turning].view(factors.dtype) * factors).view(x.dtype)
            found = attend(layer, turned[:, :heads], turned[:, heads:], parts[:, turning:])
            x = x + block.found(found.numpy().reshape(len(x), -1))
            x += block.down(gated(block.gates(normal(x, *block.norms[1]))))
        return x


def fuse_(model: Llama) -> Llama:
    """Let a Llama read with a cache in fewer steps, in place; returns the model. Its weights are the same tensors, and
    its logits the same up to rounding."""
    model.model = FusedTransformer(model.model)
    return model


# ## The witness
#
# Our witness is the plain pass. We read two texts at once, a prompt and single tokens, with ordinary weights and with
# packed ones.


def two_texts(model: Llama) -> np.ndarray:
    """Return the logits of a few more tokens of two texts."""
    caches = [KVCache.of(model) for _ in range(2)]
    read(model, [(caches[0], [1, 2, 3, 4, 5]), (caches[1], [7, 8])])
    return read(model, [(caches[0], [6]), (caches[1], [9, 10, 11])], every=True)


def check_same_logits():
    plain: Any = small_llama()
    packed: Any = quantize_(deepcopy(plain), "q8_0")
    for model in (plain, packed):
        before = two_texts(model)
        assert np.allclose(two_texts(fuse_(model)), before, atol=1e-5)


# ## The cost
#
# We count the calls of the door, and then measure the time.


def door_calls(function: Callable[[], Any]) -> Counter[str]:
    """Return how many times a function calls each primitive."""
    found: Counter[str] = Counter()

    def counting(then, primitive, tensors, params):
        found[primitive.name] += 1
        return then(primitive, tensors, params)

    with interpreting(counting):
        function()
    return found


def check_door_calls():
    model: Any = quantize_(small_llama(layers=3), "q8_0")
    plain, fused = door_calls(token_reader(model, 3)), door_calls(token_reader(fuse_(model), 3))
    assert plain["packed_product"] == 3 * 7 + 1 and fused["packed_product"] == 3 * 4 + 1
    assert fused.total() < 25 < 100 < plain.total()


def show_cost():
    if (file := weights_file()) is None:
        return
    with accelerate():
        model: Any = load_language_model(file).model
        for name in ("plain", "fused"):
            one_token = token_reader(model)
            seconds, calls = tt.measure(one_token).seconds, door_calls(one_token).total()
            print(f"{name}: {seconds * 1e3:5.1f} ms a token, {calls:5,d} calls of the door")
            fuse_(model)


# Four fifths of the remaining time are in the products. That is the time of the floor in chapter 20, plus the time to
# turn numbers of 4 bits into numbers that we can multiply.


__all__ = ["FusedTransformer", "door_calls", "fuse_", "gated", "normal", "side_by_side", "turns"]
