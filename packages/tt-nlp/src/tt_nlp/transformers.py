# # Transformers
#
# At the end of this chapter there is a GPT: a stack of blocks with the architecture, the names and the first weights of
# GPT-2. It learns from text with the `fit` of chapter 08, as it is, and then it writes.

# ## The hurt
#
# At the end of chapter 13 one layer of attention learned to predict a text. Four times the width helped it little, and
# more epochs did not. What is it that it cannot do? Here is a game with rules so simple that we can see.
# A player invents a word of 5 to 15 letters and says it over and over: `kbeoakbeoakbe...`. The first time, you cannot
# know what comes next. From then on you can: look where the last letter occurred before, and say what came after it
# there.

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import tt_tensor as tt
from tt_autograd import Batches, Schedule, evaluate, fit, no_grad
from tt_data import DataLoader, Dataset, RandomSampler, short_text
from tt_data.dataloader import row_numbers
from tt_nlp.attention import MultiHeadAttention, self_attention
from tt_nlp.embeddings import Embedding
from tt_nlp.prompts import as_texts, refuse_ids_that_do_not_fit, refuse_settings, token_ids
from tt_nlp.tokenization import CharTokenizer
from tt_optim import AdamW, OneCycleLR
from tt_spatial import LayerNorm
from tt_tensor import (
    Dropout, Linear, Module, ModuleList, Parameter, Tensor, cross_entropy, from_numpy, gelu, generator, manual_seed,
    meter,
)


# The targets are the inputs, one place to the left; where you cannot know, they are -100.


def echoes(count: int, letters: int = 16, length: int = 32) -> tuple[Tensor, Tensor]:
    """Texts of random words that are said over and over: ids and targets, both (count, length), the targets -100 until
    a word is through."""
    sizes = generator().integers(5, 16, count)
    texts = np.stack([np.resize(generator().integers(0, letters, size), length + 1) for size in sizes])
    known = np.arange(length) >= sizes[:, None]
    return from_numpy(texts[:, :-1].copy()), from_numpy(np.where(known, texts[:, 1:], -100))


# The network gives logits (B, T, V): for each text of the batch, at each place, one for each token of the vocabulary.
# The loss is the cross entropy of chapter 05 over all places of all texts whose target is not -100.


def next_token_loss(logits: Tensor, targets: Tensor, ignore_index: int = -100) -> Tensor:  # exercise
    """The mean surprise in nats of logits (B, T, V) at targets (B, T), over all places whose target is not
    ignore_index. Raises ValueError for logits that are not (B, T, V), and targets that are not (B, T) of the same."""
    if logits.ndim != 3 or targets.shape != logits.shape[:2]:
        raise ValueError(
            f"logits (batch, time, vocabulary) need targets (batch, time); their shapes are {logits.shape} and "
            f"{targets.shape}"
        )
    return cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=ignore_index)


# Both arguments are as `fit` hands them over, so `fit` will train whatever gives such logits. It asks for an optimizer,
# too; the rate climbs for a tenth of the steps, since the first gradients of a network point anywhere, and then falls
# along a cosine.


def train_on(model: Module, data: Any, rate: float = 5e-3) -> Module:
    """Train a model for one pass through data, batches of (ids, targets); returns it."""
    optimizer = AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95))
    schedule = OneCycleLR(optimizer, rate, len(data), pct_start=0.1, cycle_momentum=False, final_div_factor=1.0)
    fit(
        model, next_token_loss, optimizer, data, epochs=1, callbacks=[Schedule(schedule, each="step")], clip_norm=1.0,
        progress=False,
    )
    return model


def surprise_at_echoes(model: Module, steps: int, rate: float = 5e-3) -> float:
    """Train a model on batches of 32 echoes; its mean surprise at 200 new ones, in nats."""
    train_on(model, Batches(*echoes(steps * 32), 32), rate)
    return evaluate(model, next_token_loss, Batches(*echoes(200), 200))["loss"]


# Embeddings for tokens and for places, layers of attention, and a linear layer that makes logits of the result:


class Looks(Module):
    """Attention layers one after the other between embeddings and logits: ids (B, T) -> (B, T, vocabulary)."""

    def __init__(self, vocabulary: int, width: int, layers: int = 1, length: int = 32):
        super().__init__()
        self.tokens, self.places = Embedding(vocabulary, width), Embedding(length, width)
        self.looks = ModuleList(MultiHeadAttention(width, 4) for _ in range(layers))
        self.head = Linear(width, vocabulary)

    def forward(self, ids):
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
        for look in self.looks:
            x = look(x, x, x, is_causal=True)
        return self.head(x)


# Let it learn, in two widths. Guessing among 16 letters costs 2.77 nats.


def show_hurt():
    for width in (32, 64):
        manual_seed(0)
        few, many = (surprise_at_echoes(Looks(16, width), steps, 3e-3) for steps in (400, 800))
        print(f"one layer, {width:3d} wide: {few:.2f} nats a letter after 400 steps, {many:.2f} after 800")


# Twice the steps bring little, and twice the width a little more. It has found out that the letters of the word are
# likelier than others, and not much beyond that. It cannot win. A query is made of a token and its place, and so is a
# key. To say what came after the last `k`, one would have to look for a token whose *neighbour on the left* is a `k`;
# and what a token's neighbour is, a token does not know before it has looked. Two looks are needed: one to the left,
# and a second one at what all tokens found in the first.

# ## The smallest thing that could work
#
# `Looks` takes the number of layers. So stack them:


def show_stack():
    for layers in (1, 2, 4):
        manual_seed(0)
        print(f"{layers} layers: {surprise_at_echoes(Looks(16, 32, layers), 400, 3e-3):.2f} nats a letter")


# Deeper is no better, and soon it is worse. Each layer replaces what it was given by a mixture of it; the letter that
# a token was is gone when it has looked to the left. After a few such averages of averages all places look alike.
# Backwards it is the same: what reaches the first layer has been through all the others, and each of them took
# something away.
#
# ## The idea
#
# Do not replace. *Add.* Let there be a stream of numbers for each token, $C$ of them, from the embedding at the bottom
# to the logits at the top. A layer reads the stream, computes something, and adds it to the stream (K. He et al.,
# 2015). If it has nothing to say it adds nothing, and everything that was there before remains. And on the way back,
# the gradient of a sum goes to both sides in full, so what arrives at the top is felt at the bottom, however many
# layers lie between.
#
# ```mermaid
# flowchart BT
#     E["token + position"] --> P1(("+")) --> P2(("+")) --> D["... more blocks"] --> F["norm"] --> L["logits"]
#     E --> N1["norm"] --> A["attention"] --> P1
#     P1 --> N2["norm"] --> M["MLP"] --> P2
# ```
#
# A block has two such layers. *Attention* moves information between places. An *MLP*, two linear layers with a bend
# between them, works at each place on its own, and that is where *if this and that* is found. And since a stream to
# which every layer adds grows, each of the two looks at a normalized copy.

# ## Keeping the size
#
# That copy is made by `LayerNorm`, from the appendix `norms` of chapter 09: subtract the mean of the $C$ numbers,
# divide by their standard deviation, then scale and shift.
#
# Newer networks leave the mean alone and divide by the root of the mean square: *RMSNorm* (B. Zhang and R. Sennrich,
# 2019). It has one vector less to learn, and works as well. GPT-2 has `LayerNorm`, and so has what we build.


def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float | None = None) -> Tensor:  # exercise (starred)
    """x divided by the root of (the mean of its squares along the last dimension + eps), then times weight. Without
    eps it is the machine precision of x. As torch.nn.functional.rms_norm, float16 is computed in float32."""
    wide = x.to(np.result_type(x.dtype, np.float32))
    mean_square = (wide * wide).mean(dim=-1, keepdim=True)
    normal = wide * (mean_square + (np.finfo(wide.dtype).eps if eps is None else eps)) ** -0.5
    normal = normal.to(x.dtype)
    return normal if weight is None else normal * weight


# The module has the weight, which begins at 1.


class RMSNorm(Module):
    """rms_norm over the last dimension, with a weight of that size; as torch.nn.RMSNorm."""

    def __init__(self, size: int, eps: float | None = None):
        super().__init__()
        self.eps, self.weight = eps, Parameter(tt.ones(size))

    def forward(self, x):
        if x.shape[-1] != len(self.weight):
            raise ValueError(f"RMSNorm of {len(self.weight)} numbers does not fit an input of shape {x.shape}")
        return rms_norm(x, self.weight, self.eps)


# Multiplying a row by ten must change nothing, and the mean square of what comes out is 1.


def check_rms_norm():
    x = tt.randn(3, 64)
    normal = RMSNorm(64)(x).detach()
    assert np.allclose((normal * normal).mean(dim=-1).numpy(), 1, atol=1e-4)
    assert np.allclose(RMSNorm(64)(x * 10).numpy(), normal.numpy(), atol=1e-4)


# ## What a GPT is made of
#
# A handful of numbers decides about the whole network. They go into one object, which refuses what cannot be. The
# default sizes are those of the smallest GPT-2 (A. Radford et al., 2019); the names are those of A. Karpathy's nanoGPT,
# which most people read first.


@dataclass(frozen=True)
class GPTConfig:
    """The sizes of a GPT: tokens it knows, the longest context, blocks, heads in each, width; and dropout."""

    vocab_size: int = 50257
    block_size: int = 1024
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0

    def __post_init__(self):
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} is a whole number of at least 1, not {value!r}")
        if self.n_embd % self.n_head:
            raise ValueError(f"{self.n_head} heads do not divide a width of {self.n_embd}; n_embd % n_head must be 0")
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout is a probability between 0 and 1, not {self.dropout!r}")


# ## Attention
#
# The same as chapter 13's, in GPT-2's form: one linear layer, `c_attn`, gives queries, keys and values in one product,
# $3C$ numbers for each token. They are cut into three, each of these into heads, and stacked as `self_attention` wants
# them. What the heads have found is put side by side and mixed by `c_proj`. Dropout strikes out attention weights
# inside, with the probability `p` (`self_attention` has a `dropout_p`, which counts in training only), and, as the
# layer `dropout`, results on the way to the stream.


class CausalSelfAttention(Module):
    """Every place looks at itself and those before it, with n_head heads: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_head, self.p = config.n_head, config.dropout
        self.c_attn = Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = Linear(config.n_embd, config.n_embd)
        self.dropout = Dropout(config.dropout)

    def forward(self, x):  # exercise
        """The 3 C numbers of a token are its C for queries, then for keys, then for values; each C is n_head heads."""
        B, T, C = x.shape
        parts = self.c_attn(x).reshape(B, T, 3, self.n_head, C // self.n_head)
        qkv = parts.permute(2, 0, 3, 1, 4)  # (3, B, n_head, T, C / n_head)
        found = self_attention(qkv, dropout_p=self.p if self.training else 0.0, is_causal=True)
        return self.dropout(self.c_proj(found.transpose(1, 2).reshape(B, T, C)))


# What a place gets must not depend on what comes after it.


def check_attention_looks_back():
    attention, x = CausalSelfAttention(GPTConfig(n_embd=8, n_head=2)), tt.randn(1, 5, 8)
    before = attention(x)
    x[0, 3:] = 0.0
    assert np.allclose(attention(x)[0, :3].numpy(), before[0, :3].numpy(), atol=1e-6)


# ## The MLP
#
# To four times the width, a bend, and back. GPT-2's bend is the GELU of chapter 03, in the form with the hyperbolic
# tangent. Two thirds of a block's weights are here.


class MLP(Module):
    """Two linear layers with GELU between them, at each place on its own: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd)
        self.dropout = Dropout(config.dropout)

    def forward(self, x):
        return self.dropout(self.c_proj(gelu(self.c_fc(x), approximate="tanh")))


# ## The block
#
# And here is the stream. Each half reads a normalized copy and adds its answer. The norm stands *before* the layer and
# inside the branch, never on the stream itself (*pre-norm*).


class Block(Module):
    """x + attention(norm(x)), and then x + mlp(norm(x)): (B, T, C) -> (B, T, C)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.ln_1, self.attn = LayerNorm(config.n_embd), CausalSelfAttention(config)
        self.ln_2, self.mlp = LayerNorm(config.n_embd), MLP(config)

    def forward(self, x):  # exercise
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


# A layer that answers zero must leave the stream as it is. And if the layers are silent, a gradient comes through
# twelve blocks as it went in.


def check_silent_blocks_pass_everything():
    blocks = [Block(GPTConfig(n_embd=8, n_head=2)) for _ in range(12)]
    for silent in [linear for block in blocks for linear in (block.attn.c_proj, block.mlp.c_proj)]:
        silent.weight.zero_(), silent.bias.zero_()
    x = top = tt.randn(1, 3, 8).requires_grad_()
    for block in blocks:
        top = block(top)
    top.sum().backward()
    assert (top == x).all() and (x.grad == 1).all()


# What becomes of the gradient when they are not silent? We send one of length 1 from the top through stacks of 24 with
# small weights, as they begin, with the sum and the norm in three orders, and see what is left of it at the bottom.
# *Post-norm* is the order of the first transformer (A. Vaswani et al., 2017): add, then normalize the stream.


def show_orders():
    orders = {
        "pre-norm": lambda x, norm, layer: x + layer(norm(x)),
        "post-norm": lambda x, norm, layer: norm(x + layer(x)),
        "no sum": lambda x, norm, layer: layer(norm(x)),
    }
    for name, order in orders.items():
        manual_seed(0)
        x = top = tt.randn(1, 16, 32).requires_grad_()
        for block in GPT(GPTConfig(1, 16, 24, 4, 32)).transformer.h:
            top = order(order(top, block.ln_1, block.attn), block.ln_2, block.mlp)
        (top * (sent := tt.randn(*top.shape))).sum().backward()
        arrived = tt.tensor(x.grad)
        left = math.sqrt((arrived * arrived).sum().item() / (sent * sent).sum().item())
        print(f"{name:10s} the gradient at the bottom has length {left:.1e}")


# Without the sum nothing is left. Both orders with a sum pass the gradient on, as long as weights are small. Pre-norm
# leaves a way that meets no norm at all, whatever the weights become; that is why it can do with a short warm-up (R.
# Xiong et al., 2020), and why nearly all networks have changed to it.

# ## The trunk
#
# Tokens and places become vectors and are added; then come the blocks; then a last norm, because the stream has grown.
# The places are counted from 0 and have a table of their own, so the longest text is as long as the table. `wte`,
# `wpe`, `h` and `ln_f` are the names under which GPT-2's weights are found in the world's files. Ids are checked by
# `refuse_ids_that_do_not_fit(ids, block_size)`, from the module `prompts`.


class Transformer(Module):
    """Embeddings, blocks and a norm: ids (B, T), T at most block_size -> (B, T, C)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.wte = Embedding(config.vocab_size, config.n_embd)
        self.wpe = Embedding(config.block_size, config.n_embd)
        self.drop = Dropout(config.dropout)
        self.h = ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd)

    def forward(self, ids):  # exercise
        """Raises ValueError for ids that are not (B, T) or longer than block_size, IndexError for an unknown token."""
        refuse_ids_that_do_not_fit(ids, len(self.wpe.weight))
        x = self.drop(self.wte(ids) + self.wpe.weight[: ids.shape[1]])
        for block in self.h:
            x = block(x)
        return self.ln_f(x)


# ## GPT
#
# What is left is the way from the stream to logits. A token's logit says how well the stream's vector fits that token,
# and there is a table already with a vector for each token: `wte`. So the last layer, `lm_head`, a `Linear` without
# bias, has the *same* parameter for its weight. Sharing is assignment (chapter 04): it is listed once, counted once,
# and an optimizer changes it once.
#
# The first weights are drawn as nanoGPT and `transformers` do it for GPT-2: normal numbers with a standard deviation of
# 0.02, biases zero. Each of the $2L$ layers that write to the stream adds something independent, so the stream's
# variance would grow with their number; their last weights are therefore drawn smaller, by $1/\sqrt{2L}$.


class GPT(Module):
    """A language model with GPT-2's architecture, names and first weights: ids (B, T) -> logits (B, T, vocab_size)."""

    def __init__(self, config: GPTConfig):  # exercise
        """Keeps the config; its layers are `transformer` and `lm_head`, which share a weight. At the end the weights
        are drawn by `reset_parameters`."""
        super().__init__()
        self.config, self.transformer = config, Transformer(config)
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight
        self.reset_parameters()

    def forward(self, ids):
        return self.lm_head(self.transformer(ids))

    def reset_parameters(self) -> None:  # exercise
        """Draw all weights anew, from the generator of chapter 01: matrices normal with a standard deviation of 0.02,
        or 0.02 / sqrt(2 n_layer) where the name ends with c_proj.weight; biases 0, the weights of norms 1."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                spread = 0.02 / math.sqrt(2 * self.config.n_layer) if name.endswith("c_proj.weight") else 0.02
                parameter.copy_(generator().standard_normal(parameter.shape, np.float32) * np.float32(spread))
            else:
                parameter.copy_(np.full(parameter.shape, float(name.endswith("weight")), np.float32))

    def configure_optimizers(
        self, weight_decay: float = 0.1, learning_rate: float = 3e-4, betas: tuple[float, float] = (0.9, 0.95)
    ) -> AdamW:
        """AdamW with weight decay on the matrices only; see `decay_groups`."""
        return AdamW(decay_groups(self, weight_decay), lr=learning_rate, betas=betas)

    def extra_repr(self):
        return str(self.config)


# Weight decay is for matrices. It pulls weights towards zero that nothing pulls elsewhere; but the weight of a norm
# belongs near 1, and a bias has no reason to be small. So there are two groups for the optimizer, of which
# `configure_optimizers`, a name of nanoGPT's, makes an AdamW. (`train_on` does not bother: in a minute of training,
# weights do not decay far.)


def decay_groups(model: Module, weight_decay: float) -> list[dict[str, Any]]:  # exercise (starred)
    """Two groups for an optimizer: parameters of two or more dimensions with weight_decay, all others with 0. Those
    that require no gradient are in neither."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


# A fresh GPT should know nothing: whatever the token, the loss is the logarithm of the vocabulary. If it is far above,
# the first weights are too large.


def check_a_fresh_gpt_knows_nothing():
    model = GPT(GPTConfig(vocab_size=100, block_size=16, n_layer=4, n_head=4, n_embd=32))
    ids, targets = (from_numpy(generator().integers(0, 100, (4, 16))) for _ in range(2))
    assert abs(next_token_loss(model(ids), targets).item() - math.log(100)) < 0.1


def show_gpt():
    print(GPT(GPTConfig(vocab_size=65, block_size=64, n_layer=1, n_head=4, n_embd=64)))


# The whole way once more, as shapes. Predict them before you print one: two texts of five ids go through a GPT with a
# vocabulary of 65 tokens, a context of 16, three blocks of four heads, and a width of 32.


def predict_shapes() -> dict[str, tuple[int, ...]]:  # exercise
    """The shapes for ids (2, 5), by name: "c_attn" is what that layer gives, "qkv" what `self_attention` takes,
    "weights" those of attention in all heads of one block, "c_fc" what that layer gives, "stream" what the last block
    gives, "logits"; and of parameters "wpe.weight" and "lm_head.weight"."""
    return {
        "c_attn": (2, 5, 96), "qkv": (3, 2, 4, 5, 8), "weights": (2, 4, 5, 5), "c_fc": (2, 5, 128),
        "stream": (2, 5, 32), "logits": (2, 5, 65), "wpe.weight": (16, 32), "lm_head.weight": (65, 32),
    }  # fmt: skip


# ## Does it help?
#
# The same game, for networks of one block and of two, with 800 steps at a rate of 0.01.


def small_gpt(vocabulary: int, layers: int = 4, width: int = 64, length: int = 32) -> GPT:
    """A GPT that learns in seconds."""
    return GPT(GPTConfig(vocabulary, length, layers, 4, width))


def show_blocks():
    for layers in (1, 2):
        manual_seed(0)
        print(f"{layers} blocks: {surprise_at_echoes(small_gpt(16, layers, 32), 800, 1e-2):.2f} nats a letter")


# One block is hardly better than one layer was. Two of them have found the way: one looks to the left, the other looks
# for the letter that was found there. (What is left is letters that occur twice in a word.) We did not tell them to.
# Such pairs of heads were found in every language model that was looked into (C. Olsson et al., 2022), and are called
# *induction heads*: they are how a model takes up a name that has occurred. For this game two blocks are enough; a
# language has more to it than one trick.

# ## Choosing a token
#
# A network gives logits for the next token; what is written is one token. The most likely one each time makes a text
# that goes in circles. A draw by the probabilities makes one that is alive, and now and then takes a token that makes
# no sense at all: each of them is improbable, but there are many. Three knobs turn between the two.
#
# - *temperature*: divide the logits by it. Below 1 the likely become likelier; 0 means the most likely one, always.
# - *top-k*: only the $k$ most likely tokens.
# - *top-p*, or nucleus (A. Holtzman et al., 2019): as many of the most likely as are needed for a probability of $p$.
#
# The order is that of the list, and what remains is divided by its sum. So each knob turns numbers into others that are
# in proportion to the probabilities; we call them *weights*, and divide them by their sum only at the end.
#
# Temperature first. A logit may be 1000, and its power is then too large for any float; but only differences count, so
# we subtract the largest one. A temperature of 0 cannot divide, but the limit is clear: all weight is on the largest.


def tempered(logits: np.ndarray, temperature: float) -> np.ndarray:  # exercise
    """Weights (V,) in proportion to which tokens are drawn, for logits (V,) in float64, which stay as they are. For
    temperature 0 the most likely token has 1 and all others 0; of equals, the one with the smaller number."""
    if temperature == 0:
        return (np.arange(len(logits)) == logits.argmax()).astype(np.float64)
    return np.exp((logits - logits.max()) / temperature)


# The other two need the tokens in order. To sort a vocabulary of 50,000 takes longer than many a network takes for a
# token. So the course's functions sort only those that may remain; yours may sort them all. `np.partition` finds the
# $k$-th largest without sorting. And for top-p, a token has no chance if its probability is below the $V$-th part of
# $1 - p$, because all such tokens together do not reach $1 - p$. Among equals the token with the smaller number comes
# first, which is what a *stable* sort of the negative numbers gives.


def most_likely(logits: np.ndarray, k: int) -> np.ndarray:  # exercise
    """The numbers of the k tokens with the largest logits (V,), 1 <= k <= V, the most likely first; among equals, the
    one with the smaller number first."""
    near = np.flatnonzero(logits >= np.partition(logits, -k)[-k])
    return near[np.argsort(-logits[near], kind="stable")][:k]


# A nucleus is as small as it can be. Go from the most likely token to the less likely: a token is in it as long as
# those *before* it do not have $p$ of all the weight yet. So the one that just crosses $p$ belongs to it.


def nucleus(weights: np.ndarray, p: float) -> np.ndarray:  # exercise
    """The numbers of the most likely tokens that together have at least p (0 < p <= 1) of the sum of weights (V,), and
    no more of them than needed; the most likely first, among equals the one with the smaller number."""
    total = weights.sum()
    near = np.flatnonzero(weights * len(weights) >= (1 - p) * total)
    order = near[np.argsort(-weights[near], kind="stable")]
    return order[np.cumsum(weights[order]) - weights[order] < p * total]


# All three give places in the vocabulary or weights for it. What is not among the places gets the weight 0.


def only(weights: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A copy of weights (V,), with 0 everywhere but at these places."""
    kept = np.zeros_like(weights)
    kept[places] = weights[places]
    return kept


# Before anything is drawn we look at the settings (`refuse_settings(temperature, top_k, top_p)`, from the module
# `prompts`) and at the logits: a model that has diverged says nan, or everything is infinite.


def checked_logits(logits: np.ndarray) -> np.ndarray:
    """Logits (V,) in float64. Raises ValueError for those that say nothing."""
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 1 or not logits.size or not np.isfinite(logits.max()):
        raise ValueError(f"logits are numbers (V,), the largest of them finite, not {logits}; has the model diverged?")
    return logits


def next_probabilities(  # exercise
    logits: np.ndarray, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> np.ndarray:
    """The probabilities (V,), in float64, with which each token is drawn: temperature first, then top_k, then top_p of
    what is left. A top_k of more than V leaves all of them. Raises ValueError for settings that cannot be meant, as
    `refuse_settings` does, and for logits that say nothing, as `checked_logits` does."""
    refuse_settings(temperature, top_k, top_p)
    logits = checked_logits(logits)
    weights = tempered(logits, temperature)
    if top_k is not None and top_k < len(logits):
        weights = only(weights, most_likely(logits, top_k))
    if top_p is not None:
        weights = only(weights, nucleus(weights, top_p))
    return weights / weights.sum()


# Four tokens, and what each knob makes of them.


def show_knobs():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    for how in ({}, {"temperature": 0.5}, {"temperature": 0}, {"top_k": 2}, {"top_p": 0.7}):
        probabilities = " ".join(f"{p:.2f}" for p in next_probabilities(logits, **how))
        print(f"{probabilities}   {how or 'as they are'}")


# ## Writing
#
# To write is to choose a token, append it, and ask again. Three things need care.
#
# The text may grow longer than the context. Then the network is shown the last `block_size` tokens.
#
# Several texts may be continued at once, and their lengths differ. So the shorter ones are filled up *at the end*, with
# any token, and each text's logits are taken at its own last place. Attention looks back only, so no token sees what
# stands behind.
#
# And the model has to be in evaluation mode, with nothing recorded, whenever it is asked, and afterwards as it was.


def next_logits(model: GPT, texts: Sequence[Sequence[int]]) -> np.ndarray:  # exercise
    """For each text, a list of one or more token ids, the logits of the token that comes next: an array (texts, V).
    Raises ValueError if there is no text, or one without tokens. The model's mode is as it was afterwards."""
    windows = [text[-model.config.block_size :] for text in texts]
    if not windows or not all(map(len, windows)):
        raise ValueError("a text needs at least one token, after which the next one comes")
    ends = np.array([len(window) - 1 for window in windows])
    ids = np.zeros((len(windows), ends.max() + 1), np.int64)
    for row, window in zip(ids, windows):
        row[: len(window)] = window
    mode = model.training
    try:
        with no_grad():
            stream = model.eval().transformer(from_numpy(ids))
            return model.lm_head(stream[np.arange(len(ends)), ends]).numpy()
    finally:
        model.train(mode)


# `continued` is the loop. In each round every text that has not come to an end gets a token, and the caller gets them
# all at once, while the next ones are not even thought of: to show a text as it is written, take the tokens from here.


def continued(  # exercise
    model: GPT, texts: list[list[int]], count: int, choose: Callable[[int, np.ndarray], int], ends: Container[int]
) -> Iterator[list[int | None]]:
    """Continue texts, which are appended to: yields after each of at most `count` rounds the new token of every text,
    None for those that have ended. All texts that go on are asked for together, by `next_logits`; `choose(row, logits)`
    draws the token for text `row` from its logits (V,). A text ends with the first token that is in `ends`, which still
    belongs to it; when all have ended, there are no more rounds."""
    going = list(range(len(texts)))
    for _ in range(count):
        if not going:
            return
        chosen: list[int | None] = [None] * len(texts)
        for row, logits in zip(going, next_logits(model, [texts[row] for row in going])):
            chosen[row] = token = choose(row, logits)
            texts[row].append(token)
        going = [row for row in going if chosen[row] not in ends]
        yield chosen


# `rounds` prepares it. Each text has chance of its own, so what is drawn for it does not depend on its neighbours.
# (`token_ids` makes a list of a prompt, and refuses what is none. It is in the module `prompts`, with the other checks
# of what a model may be asked.)


def rounds(
    model: GPT, prompts: Sequence[Sequence[int]], max_new_tokens: int, *, temperature: float = 1.0,
    top_k: int | None = None, top_p: float | None = None, stop: Iterable[int] = (), seed: int | None = None,
) -> Iterator[list[int | None]]:
    """Continue each of the prompts, lists of token ids: yields after each round the new token of every text, None for
    those that have ended. A text ends with the first token of `stop`, which belongs to it, or after max_new_tokens.

    The same seed gives the same tokens; without one it is drawn from the generator of chapter 01. Raises ValueError
    for prompts without tokens and settings that cannot be meant."""
    texts = [token_ids(prompt) for prompt in prompts]
    if not texts or max_new_tokens < 0:
        raise ValueError(f"{len(texts)} prompts and {max_new_tokens} tokens: take 1 or more and 0 or more")
    refuse_settings(temperature, top_k, top_p)
    seed = int(generator().integers(2**63)) if seed is None else seed
    chances = [np.random.default_rng((seed, row)) for row in range(len(texts))]

    def choose(row: int, logits: np.ndarray) -> int:
        probabilities = next_probabilities(logits, temperature, top_k, top_p)
        return int(chances[row].choice(len(probabilities), p=probabilities))

    yield from continued(model, texts, max_new_tokens, choose, set(stop))


# Two ways to call it: token by token for one text, and all at once for one or many.


def stream(model: GPT, prompt: Sequence[int], max_new_tokens: int, **how) -> Iterator[int]:
    """The tokens that continue one prompt, as they are chosen; `how` as for `rounds`."""
    return (token for (token,) in rounds(model, [prompt], max_new_tokens, **how) if token is not None)


def generate(model: GPT, prompt, max_new_tokens: int, **how) -> list:
    """A prompt (a list or a tensor of token ids) with what continues it; of a list of prompts or a tensor (B, T), a
    list of such texts. `how` as for `rounds`: temperature, top_k, top_p, stop, seed."""
    texts, several = as_texts(prompt)
    for tokens in rounds(model, texts, max_new_tokens, **how):
        for text, token in zip(texts, tokens):
            text.extend(() if token is None else (token,))
    return texts if several else texts[0]


# What is written must not depend on which other texts are, nor on how one asks for it.


def check_neighbours_do_not_matter():
    model, prompts = small_gpt(20, layers=1, width=16, length=8), [[1, 2, 3], [4], list(range(12))]
    together = generate(model, prompts, 10, seed=3)
    assert together[0] == generate(model, [1, 2, 3], 10, seed=3) and [*map(len, together)] == [13, 11, 22]
    assert together[0][3:] == list(stream(model, [1, 2, 3], 10, seed=3))


# ## It writes
#
# Now a text that an author wrote: the first chapter of *Moby-Dick*, which came with chapter 10, as characters. A sample
# is a window of the text, and what is to be predicted is the same window one token later. So a window of 64 characters
# asks 64 questions: after each of them, which one is next?
#
# NumPy's `sliding_window_view` cuts the ids into all windows of one token more than that, without copying. A batch
# takes some of these rows, and makes inputs and targets of each. (`row_numbers(indices, length)`, of chapter 10, turns
# the indices of a batch into an array, negative ones too, and refuses those that are out of range.)


class Windows(Dataset):
    """Windows of a text that has become token ids: sample i is (ids i to i + length, ids i + 1 to i + length + 1), both
    int64. Raises ValueError for a text that is too short."""

    def __init__(self, ids: Sequence[int], length: int):
        array = np.asarray(ids)
        if array.size and (array.ndim != 1 or array.dtype.kind not in "iu"):
            raise TypeError(f"a text is a list of integers, not {array.dtype} of shape {array.shape}; encode it first")
        if length < 1 or len(array) <= length:
            raise ValueError(f"a window of {length} tokens and one more do not fit into a text of {len(array)}")
        self.length, self.windows = length, np.lib.stride_tricks.sliding_window_view(array, length + 1)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index):
        inputs, targets = self.batch([index])
        return inputs[0], targets[0]

    def batch(self, indices):  # exercise
        """Inputs and targets of samples, both int64 tensors (len(indices), length). IndexError (`row_numbers`) for a
        number that is none of a sample."""
        chosen = self.windows[row_numbers(indices, len(self))].astype(np.int64)
        return from_numpy(chosen[:, :-1]), from_numpy(chosen[:, 1:])


# The story is cut in two: nine tenths to learn from, and the last tenth, which the network never sees while it learns.


def story(length: int = 64) -> tuple[CharTokenizer, Windows, Windows]:
    """The first chapter of Moby-Dick as windows of characters: the tokenizer, nine tenths to learn from, one held
    out."""
    text = short_text()
    tokenizer = CharTokenizer.train(text)
    ids, cut = tokenizer.encode(text), len(text) * 9 // 10
    return tokenizer, Windows(ids[:cut], length), Windows(ids[cut:], length)


# Windows are drawn at random to learn from. Held-out ones lie side by side, so that each character is predicted once.


def train_on_text(model: Module, windows: Windows, steps: int, rate: float = 5e-3, batch_size: int = 8) -> Module:
    """Train a model on windows drawn at random; returns it."""
    draws = RandomSampler(windows, replacement=True, num_samples=steps * batch_size)
    return train_on(model, DataLoader(windows, batch_size, sampler=draws), rate)


def surprise_on(model: Module, windows: Windows) -> float:
    """The mean loss of a model on windows that lie side by side."""
    side_by_side = range(0, len(windows), windows.length)
    return evaluate(model, next_token_loss, DataLoader(windows, 64, sampler=side_by_side))["loss"]


# Four blocks, a fifth of a million parameters, a thousand steps. Twelve kilobytes are not enough to learn English from;
# but look at how it goes.


def show_writing():
    tokenizer, training, held_out = story()
    manual_seed(0)
    model = small_gpt(tokenizer.vocab_size, length=64)
    for steps in (20, 200, 800):
        train_on_text(model, training, steps)
        text = generate(model, tokenizer.encode("I "), 150, temperature=0.8, seed=1)
        print(f"after {steps} more steps, {surprise_on(model, held_out):.2f} nats held out:\n{tokenizer.decode(text)}")
        print()


# With a megabyte of Shakespeare and less than half an hour it becomes another thing: `examples/gpt_2018`.

# ## The witness
#
# How do we know that this is GPT-2's architecture? A first witness is a number. OpenAI's four models have 124,439,808,
# 354,823,168, 774,030,080 and 1,557,611,200 parameters; one forgotten bias, and the numbers differ. For each token and
# each place there are $C$ numbers; a block has $12 C^2$ weights, $9 C$ biases and two norms of $2 C$ numbers; and the
# last norm has $2 C$.


def parameter_count(config: GPTConfig) -> int:
    """How many numbers a GPT learns."""
    C = config.n_embd
    return (config.vocab_size + config.block_size) * C + config.n_layer * (12 * C * C + 13 * C) + 2 * C


def check_parameter_counts():
    sizes = [(12, 768), (24, 1024), (36, 1280), (48, 1600)]
    counted = [parameter_count(GPTConfig(n_layer=L, n_head=C // 64, n_embd=C)) for L, C in sizes]
    assert counted == [124_439_808, 354_823_168, 774_030_080, 1_557_611_200]
    model = GPT(config := GPTConfig(vocab_size=70, block_size=20, n_layer=3, n_head=2, n_embd=8))
    assert sum(p.numel() for p in model.parameters()) == parameter_count(config)


# The second witness is another program. The appendix `gpt_files` reads and writes weights in the files of the
# `transformers` library, and the tests compare the logits of both on the same weights. The third is a property that
# needs no other program: change a token, and no logit before it moves.


def check_causality():
    model, ids = small_gpt(50, layers=2), generator().integers(0, 50, (1, 32))
    before = model(from_numpy(ids)).numpy()
    for place in (0, 13, 31):
        changed = ids.copy()
        changed[0, place] = (changed[0, place] + 1) % 50
        after = model(from_numpy(changed)).numpy()
        assert np.allclose(after[0, :place], before[0, :place], atol=1e-5)
        assert not np.allclose(after[0, place], before[0, place], atol=1e-3)


# ## The cost
#
# For each token a block multiplies and adds $12 C^2$ times in its four matrices, and $2 T C$ times in attention, where
# each of $T$ queries meets $T$ keys and then $T$ values; the logits cost $C V$. Backwards everything comes twice, once
# for each factor of a product. The meter of chapter 02, beside the formula:


def multiply_adds(config: GPTConfig, length: int) -> int:
    """Multiply-adds of matrix products, forward, for one text of `length` tokens."""
    C = config.n_embd
    return length * (config.n_layer * (12 * C * C + 2 * length * C) + C * config.vocab_size)


def show_cost():
    for length in (64, 256):
        model = GPT(config := GPTConfig(65, length, n_layer=4, n_head=4, n_embd=128))
        ids = from_numpy(generator().integers(0, 65, (4, length)))
        with meter() as there:
            loss = next_token_loss(model(ids), ids)
        with meter() as back:
            loss.backward()
        taken = tt.measure(lambda: next_token_loss(model(ids), ids).backward())
        counts = [4 * multiply_adds(config, length), there.multiply_adds.total(), back.multiply_adds.total()]
        formula, forward, backward = (f"{count / 1e6:.0f}" for count in counts)
        held = 4 * length * config.n_layer * 19 * config.n_embd * 4 / 1e6
        print(f"4 texts of {length} tokens: {formula} million multiply-adds by the formula, {forward} counted,")
        print(f"  {backward} on the way back; {taken.seconds * 1e3:.0f} ms;", end=" ")
        print(f"{held:.0f} MB by the formula, {taken.peak_bytes / 1e6:.0f} measured")


# The formula counts products only, and they are nearly all there is. For long texts the meter counts less: the blocks
# of chapter 13 leave out most of the pairs that causality forbids. On the way back it counts more than twice as many:
# it sees operations on tensors, so attention goes back by the formula, which makes its weights once more and leaves out
# nothing. In memory, everything has to be kept for the way back, which is 19 times $C$ numbers for each token in each
# block: 2 for two norms, 3 for queries, keys and values, 8 for the inside of the MLP, and 6 for what goes into and out
# of the four linear layers and the sums. The attention weights are not among them; they are made again when they are
# needed, and so are the normal numbers before they are scaled.
#
# Writing has a cost of its own. For each new token, `next_logits` reads the whole text again:


def show_generation():
    model = GPT(GPTConfig(65, 512, n_layer=4, n_head=4, n_embd=128))
    for length in (32, 128, 256, 511):
        text = generator().integers(0, 65, length).tolist()
        print(f"token {length + 1:3d}: {tt.measure(lambda: next_logits(model, [text])).seconds * 1e3:6.1f} ms")


# The last token of a text costs many times what the first one does, and all that is computed for it, except for its
# last row, was computed before. Chapter 16 will have something to say about that.

# ## Errors you will meet


def show_errors():
    model = small_gpt(20, layers=1, length=8)
    attempts = [
        lambda: GPTConfig(n_embd=100, n_head=12),
        lambda: model(tt.zeros(1, 9).long()),
        lambda: model(Tensor([[3, 20]]).long()),
        lambda: next_token_loss(tt.zeros(2, 8, 20), tt.zeros(2, 9).long()),
        lambda: generate(model, [], 5),
        lambda: model.load_state_dict(small_gpt(21, layers=1, length=8).state_dict()),
    ]
    for attempt in attempts:
        try:
            attempt()
        except (ValueError, IndexError, RuntimeError) as error:
            print(f"{type(error).__name__}: {error}")


# ## Exercises
#
# 1. `surprises`: what each token of a text costs a model, in nats. Where does it hesitate?
# 2. `GatedMLP`: the MLP of newer networks, $W_\text{down}(\operatorname{silu}(W_\text{gate}\,x) \cdot W_\text{up}\,x)$
#    (N. Shazeer, 2020).
# 3. `without_repeats`: logits in which every token that the text has already is made less likely (N. Keskar et al.,
#    2019): divided by a penalty if positive, multiplied by it if negative.
#
# For the first, the targets are the text itself, one to the left.


def surprises(model: GPT, ids: Sequence[int]) -> list[float]:  # exercise (starred)
    """The surprise in nats of each token but the first of a text, at most block_size + 1 tokens long, with all that
    stands before it in view. In evaluation mode, unrecorded; the model's mode is as it was afterwards."""
    mode = model.training
    try:
        with no_grad():
            logits = model.eval()(from_numpy(np.array([ids[:-1]])))
        targets = from_numpy(np.array(ids[1:]))
        return cross_entropy(logits[0], targets, reduction="none").tolist()
    finally:
        model.train(mode)


def check_surprises():
    model, ids = small_gpt(20, layers=1), [3, 1, 4, 1, 5]
    loss = next_token_loss(model(Tensor([ids[:-1]]).long()), Tensor([ids[1:]]).long())
    assert len(surprises(model, ids)) == 4 and math.isclose(np.mean(surprises(model, ids)), loss.item(), rel_tol=1e-5)


# The second has three matrices, without biases. To have as many weights as an MLP of four times the width, it is only
# eight thirds as wide.


class GatedMLP(Module):
    """down(silu(gate(x)) * up(x)), at each place on its own: (..., C) -> (..., C)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate_proj, self.up_proj = Linear(width, hidden, bias=False), Linear(width, hidden, bias=False)
        self.down_proj = Linear(hidden, width, bias=False)

    def forward(self, x):  # exercise (starred)
        return self.down_proj(tt.silu(self.gate_proj(x)) * self.up_proj(x))


def check_gated_mlp():
    gated = GatedMLP(1, 1)
    for linear, weight in ((gated.gate_proj, 2.0), (gated.up_proj, 3.0), (gated.down_proj, 5.0)):
        linear.weight.copy_(np.full((1, 1), weight))
    assert math.isclose(gated(Tensor([[1.0]])).item(), 5 * 3 * 2 / (1 + math.exp(-2)), rel_tol=1e-6)


# For the third, a negative logit becomes smaller when it is *multiplied*.


def without_repeats(logits: np.ndarray, text: Sequence[int], penalty: float) -> np.ndarray:  # exercise (starred)
    """A copy of logits (V,), floats, in which those of the tokens in `text` are divided by the penalty, or multiplied
    by it where they are negative. IndexError for a token that has no logit, ValueError for a penalty of 0 or less."""
    if not penalty > 0:
        raise ValueError(f"penalty is a number above 0, not {penalty}")
    changed = np.array(logits, np.result_type(np.asarray(logits), np.float32))
    seen = np.unique(row_numbers(text, len(changed))) if len(text) else np.empty(0, np.int64)
    if seen.size and seen[0] < 0:
        raise IndexError(f"token {seen[0]} has no logit: they are those of 0 to {len(changed) - 1}")
    changed[seen] = np.where(changed[seen] > 0, changed[seen] / penalty, changed[seen] * penalty)
    return changed


def check_without_repeats():
    assert without_repeats(np.array([2.0, -2.0, 2.0]), [0, 1, 1], 2.0).tolist() == [1.0, -4.0, 2.0]


# ## A road not taken
#
# The transformer of 2017 translated. It had two stacks: an encoder that reads a sentence in both directions, and a
# decoder that writes another one and looks across at the encoder. BERT kept the encoder, T5 kept both, and GPT kept the
# decoder without the view across: a single stack with a single task, the next token. That looked like the poorest of
# the three. But every text is a lesson for it, at each of its places, with no labels and no gaps; and whatever can be
# asked can be put as a text to continue. So the poorest one was scaled, and the others became special cases of it.

# ## What hurts next
#
# Everything above was computed by NumPy's kernels. Chapter 02 wrote its first ones as loops over numbers, which say
# what an operation *means*. With `use_kernels` the same GPT runs on those, unchanged:


def show_loops():
    from tt_nlp import nlp_loops
    from tt_spatial import spatial_loops
    from tt_tensor import loops

    model = small_gpt(65)
    ids = from_numpy(generator().integers(0, 65, (1, 32)))
    fast, start = tt.measure(model, ids).seconds, time.perf_counter()
    with tt.use_kernels(loops), tt.use_kernels(spatial_loops), tt.use_kernels(nlp_loops):
        model(ids)
    slow = time.perf_counter() - start
    size = parameter_count(model.config)
    print(f"{size:,} parameters, 32 tokens, forward only: {slow:.1f} s; with NumPy {fast * 1e3:.1f} ms")


# And a step takes three times as long, and a training thousands of steps. Between the two numbers lies everything that
# makes a computer fast, and we have taken it for granted so far. What is in there, and how much more
# could be had? Chapter 15, *Acceleration*.

__all__ = [
    "Block", "CausalSelfAttention", "GPT", "GPTConfig", "GatedMLP", "Looks", "MLP", "RMSNorm", "Transformer", "Windows",
    "decay_groups", "echoes", "generate", "multiply_adds", "next_logits", "next_probabilities", "next_token_loss",
    "parameter_count", "rms_norm", "rounds", "small_gpt", "story", "stream", "surprise_on", "surprises",
    "train_on", "train_on_text", "without_repeats",
]
