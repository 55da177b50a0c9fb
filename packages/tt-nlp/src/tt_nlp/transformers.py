# # Transformers
#
# At the end of this chapter we have a GPT: a stack of blocks with GPT-2's architecture, parameter names and
# initialization. We train it on a text with the `fit` of chapter 08, unchanged, and then it writes.

# ## The hurt
#
# At the end of chapter 13 one layer of attention learned to predict a text. Four times the width helped it little, and
# more epochs did not help at all. What can it not do? To find out, we need a game with rules so simple that we can see
# where it fails.
#
# A player invents a word of 5 to 15 letters and repeats it forever: `kbeoakbeoakbe...`. During the first round you
# cannot know what comes next. From then on you can: look where the last letter occurred before, and say the letter that
# followed it there.

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

import tt_tensor as tt
from tt_autograd import Batches, Schedule, evaluate, fit, no_grad
from tt_data import DataLoader, Dataset, RandomSampler, short_text
from tt_data.common import row_numbers
from tt_nlp.attention import MultiHeadAttention, attention_weights, causal_mask, self_attention
from tt_nlp.embeddings import Embedding
from tt_nlp.prompts import (
    as_texts, checked_logits, refuse_ids_that_do_not_fit, refuse_settings, refuse_sizes, refuse_text, token_ids,
)
from tt_nlp.shows import picture_of_losses, picture_of_weights, step_cost
from tt_nlp.tokenization import CharTokenizer
from tt_optim import AdamW, OneCycleLR
from tt_spatial import LayerNorm
from tt_tensor import (
    Dropout, Linear, Module, ModuleList, Parameter, Tensor, cross_entropy, from_numpy, gelu, generator, manual_seed,
    meter,
)


# The targets are the inputs, shifted by one position to the left. Where you could not know the answer yet, the target
# is -100, which the loss will ignore.


def echoes(count: int, letters: int = 16, length: int = 32) -> tuple[Tensor, Tensor]:
    """Return texts in which a random word is repeated: ids and targets, both (count, length) integers. A target is -100
    until the word has been said once."""
    sizes = generator().integers(5, 16, count)
    texts = np.stack([np.resize(generator().integers(0, letters, size), length + 1) for size in sizes])
    known = np.arange(length) >= sizes[:, None]
    return from_numpy(texts[:, :-1].copy()), from_numpy(np.where(known, texts[:, 1:], -100))


# The network returns logits $(B, T, V)$. At each of the $T$ positions of each of the $B$ texts of a batch there is one
# logit for each of the $V$ tokens in the vocabulary. Our loss is the cross-entropy of chapter 05, averaged over all
# positions whose target is not -100.


def next_token_loss(logits: Tensor, targets: Tensor, ignore_index: int = -100) -> Tensor:  # exercise
    """The mean surprise in nats of logits (B, T, V) at targets (B, T), over all positions whose target is not
    ignore_index. Raises ValueError for logits that are not (B, T, V), and for targets that are not (B, T) of the same
    B and T."""
    if logits.ndim != 3 or targets.shape != logits.shape[:2]:
        raise ValueError(
            f"logits (batch, time, vocabulary) need targets (batch, time); their shapes are {logits.shape} and "
            f"{targets.shape}"
        )
    return cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=ignore_index)


# `fit` passes exactly these two arguments to its loss, so it can train any module that returns such logits. It also
# needs an optimizer and a schedule. The *learning rate* climbs during the first tenth of the steps (the *warm-up*),
# because the first gradients of a fresh network point anywhere, and then falls along a cosine. If you pass a list as
# `losses`, you get the loss of each step in it, so that we can draw how the training went.


def train_on(model: Module, data: Any, rate: float = 5e-3, losses: list[float] | None = None) -> Module:
    """Train a model for one pass through data, batches of (ids, targets), and return it. The loss of each step is
    appended to `losses`."""

    def loss(logits, targets):
        found = next_token_loss(logits, targets)
        if losses is not None and model.training:
            losses.append(found.item())
        return found

    optimizer = AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95))
    schedule = OneCycleLR(optimizer, rate, len(data), pct_start=0.1, cycle_momentum=False, final_div_factor=1.0)
    callbacks = [Schedule(schedule, each="step")]
    fit(model, loss, optimizer, data, epochs=1, callbacks=callbacks, clip_norm=1.0, progress=False)
    return model


# Our first player has one embedding for tokens and one for positions, then some layers of attention, and a linear layer
# that turns the result into logits.


class Looks(Module):
    """Attention layers, one after the other, between embeddings and logits: ids (B, T) -> (B, T, vocabulary)."""

    def __init__(self, vocabulary: int, layers: int = 1, width: int = 32, length: int = 32):
        super().__init__()
        self.tokens, self.places = Embedding(vocabulary, width), Embedding(length, width)
        self.looks = ModuleList(MultiHeadAttention(width, 4) for _ in range(layers))
        self.head = Linear(width, vocabulary)

    def forward(self, ids):
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
        for look in self.looks:
            x = look(x, x, x, is_causal=True)
        return self.head(x)


# Every network of this chapter that plays the game goes through the same training, on batches of 32 texts, and the same
# test: 200 new texts. We remember what we have trained, because we will look at some of these networks twice.


@cache
def player(
    make: Callable[..., Any], layers: int = 1, width: int = 32, steps: int = 200, rate: float = 5e-3
) -> tuple[Any, float, list[float]]:
    """A trained player: the network, its surprise at new texts in nats a letter, and the loss of each step."""
    manual_seed(0)
    losses: list[float] = []
    model = make(16, layers, width)
    train_on(model, Batches(*echoes(steps * 32), 32), rate, losses)
    return model, evaluate(model, next_token_loss, Batches(*echoes(200), 200))["loss"], losses


# To compare players we print what a letter costs each of them, and draw the loss of each step, averaged over its
# neighbours (`picture_of_losses`, from the support module `shows`). Guessing among 16 letters costs $\ln 16 = 2.77$
# nats.


def compare(players: dict[str, tuple[Any, float, list[float]]]) -> Any:
    """Print the surprise of each player, and return a figure of their losses."""
    for name, (_, surprise, _) in players.items():
        print(f"{name}: {surprise:.2f} nats a letter")
    return picture_of_losses({name: losses for name, (*_, losses) in players.items()}, guessing=math.log(16))


# We train one layer of attention in two widths.


def show_hurt():
    """The loss of one attention layer, 32 and 64 numbers wide: both curves level off far above zero."""
    return compare({f"one layer, {width} wide": player(Looks, width=width) for width in (32, 64)})


# Both curves level off far above zero, and doubling the width helps only a little. The network has found out that the
# letters of the word are likelier than the others, and not much beyond that. It cannot win, for a reason that we can
# state exactly. We make a query from a token and its position, and a key from a token and its position. To say what
# followed the last `k`, the network would have to search for a token whose *left neighbour* is a `k`. But no token
# knows its neighbour before it has looked. The game takes two looks: one to the left, and a second one at what all
# tokens found in the first.

# ## The smallest thing that could work
#
# `Looks` takes the number of layers as an argument, so we stack them:


def show_stack():
    """The loss with one layer, two, and four: none of them does better than one layer."""
    return compare({f"{layers} layer(s)": player(Looks, layers) for layers in (1, 2, 4)})


# More layers do not help, and soon they do harm. Each layer replaces its input by a mixture of it, so once a token has
# looked to the left, its own letter is gone. After a few such averages of averages all positions look alike. The
# backward pass has the same problem: the gradient that reaches the first layer has passed through all the others, and
# each of them took something away. This is the *vanishing gradient* of deep networks.
#
# ## The idea
#
# We stop replacing and start *adding*. Let us give each token a stream of $C$ numbers, from the embedding at the bottom
# to the logits at the top. A layer $f$ reads the stream, computes something, and adds it:
#
# $$ x_{l+1} = x_l + f_l(x_l), \qquad
#    \frac{\partial x_{l+1}}{\partial x_l} = I + \frac{\partial f_l}{\partial x_l} . $$
#
# This is a *residual connection*, also called a *skip connection* (K. He et al., 2015), and the stream of a transformer
# is known as its *residual stream*. If a layer has nothing to say, it adds nothing, and everything that was there
# before remains. The identity $I$ in the derivative does the same for the gradient. Whatever arrives at the top reaches
# the bottom undiminished, and each layer only adds its own part.
#
# ```mermaid
# flowchart BT
#     E["token + position"] --> P1(("+")) --> P2(("+")) --> D["... more blocks"] --> F["norm"] --> L["logits"]
#     E --> N1["norm"] --> A["attention"] --> P1
#     P1 --> N2["norm"] --> M["MLP"] --> P2
# ```
#
# A block has two such layers. *Attention* moves information between positions. An *MLP*, two linear layers with an
# activation between them, works at each position on its own, and that is where *if this and that* is found. Because
# every layer adds to the stream, the stream grows, so each of the two reads a normalized copy of it.

# ## Keeping the size
#
# `LayerNorm`, from chapter 09's `norms`, makes that copy. This *layer normalization* subtracts the mean of the $C$
# numbers, divides by their standard deviation, then scales and shifts.
#
# Newer networks leave the mean alone and divide by the root of the mean square: *RMSNorm* (B. Zhang and R. Sennrich,
# 2019). It has one vector less to learn and works as well. We write it here because you will meet it in those networks;
# GPT-2 has `LayerNorm`, so our GPT has it too.


def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float | None = None) -> Tensor:  # exercise (starred)
    """x divided by the root of (the mean of its squares along the last dimension + eps), then times weight. Without
    eps it is the machine precision of x. As torch.nn.functional.rms_norm, float16 is computed in float32."""
    wide = x.to(np.result_type(x.dtype, np.float32))
    mean_square = (wide * wide).mean(dim=-1, keepdim=True)
    normal = wide * (mean_square + (np.finfo(wide.dtype).eps if eps is None else eps)) ** -0.5
    normal = normal.to(x.dtype)
    return normal if weight is None else normal * weight


# The module holds the weight, which begins at 1.


class RMSNorm(Module):
    """`rms_norm` over the last dimension, with a weight of that size; as torch.nn.RMSNorm."""

    def __init__(self, size: int, eps: float | None = None):
        super().__init__()
        self.eps, self.weight = eps, Parameter(tt.ones(size))

    def forward(self, x):
        if x.shape[-1] != len(self.weight):
            raise ValueError(
                f"RMSNorm of {len(self.weight)} numbers does not fit an input of shape {x.shape}: its last dimension "
                f"must be {len(self.weight)}"
            )
        return rms_norm(x, self.weight, self.eps)


# We check two properties: multiplying a row by ten changes nothing, and the mean square of the output is 1.


def check_rms_norm():
    x = tt.randn(3, 64)
    normal = RMSNorm(64)(x).detach()
    assert np.allclose((normal * normal).mean(dim=-1).numpy(), 1, atol=1e-4)
    assert np.allclose(RMSNorm(64)(x * 10).numpy(), normal.numpy(), atol=1e-4)


# ## What a GPT is made of
#
# A handful of *hyperparameters* decides the shape of the whole network. We put them into one object, which rejects
# impossible values (with `refuse_sizes`, from the module `prompts`). The default sizes are those of the smallest GPT-2
# (A. Radford et al., 2019). The names are those of A. Karpathy's nanoGPT, because that is the implementation you are
# most likely to read next.


@dataclass(frozen=True)
class GPTConfig:
    """The sizes of a GPT: tokens in the vocabulary, longest context, blocks, heads in each, width; and the probability
    of dropout. Raises ValueError for impossible ones."""

    vocab_size: int = 50257
    block_size: int = 1024
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0

    def __post_init__(self):
        refuse_sizes(vars(self))


# ## Attention
#
# This is the attention of chapter 13 in GPT-2's form. One linear layer, `c_attn`, computes queries, keys and values in
# a single product, $3C$ numbers for each token. We cut them into three parts, cut each part into heads, and stack them
# as `self_attention` expects. Then we put the results of the heads side by side, and `c_proj` mixes them.
#
# *Dropout* acts twice. Inside, it strikes out attention weights with the probability `p`: we pass it to
# `self_attention` as `dropout_p`, in training only. At the end, the layer `dropout` strikes out elements on their way
# to the residual stream.


class CausalSelfAttention(Module):
    """Every position looks at itself and at those before it, with n_head heads: (B, T, C) -> (B, T, C)."""

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


# ## The MLP
#
# The MLP widens each vector to four times its width, applies an activation, and narrows it again. GPT-2 uses the GELU
# of chapter 03, in the form with the hyperbolic tangent. Two thirds of a block's weights are in here.


class MLP(Module):
    """Two linear layers with GELU between them, at each position on its own: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd)
        self.dropout = Dropout(config.dropout)

    def forward(self, x):
        return self.dropout(self.c_proj(gelu(self.c_fc(x), approximate="tanh")))


# ## The block
#
# Now we assemble the residual stream. Each half of a block reads a normalized copy and adds its answer. We put the norm
# *before* the layer, inside the branch and never on the stream itself. This order is called *pre-norm*.


class Block(Module):
    """x + attention(norm(x)), and then x + mlp(norm(x)): (B, T, C) -> (B, T, C)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.ln_1, self.attn = LayerNorm(config.n_embd), CausalSelfAttention(config)
        self.ln_2, self.mlp = LayerNorm(config.n_embd), MLP(config)

    def forward(self, x):  # exercise
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


# A layer that answers zero leaves the stream as it is, and the gradient passes it unchanged.
#
# How much of the gradient is left when the layers do answer? We send a gradient of length 1 from the top through
# stacks of 24 blocks with their small initial weights, and measure its length at the bottom. We put the sum and the
# norm into three different orders. *Post-norm* is the order of the first transformer (A. Vaswani et al., 2017): add
# first, then normalize the stream.


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


# Without the residual connection nothing is left. Both orders that have it pass the gradient on, at least while the
# weights are small. Pre-norm also leaves a path that meets no norm at all, whatever the weights become. That is why it
# gets by with a short warm-up (R. Xiong et al., 2020), and why almost every model since then uses it.

# ## The trunk
#
# We turn tokens and positions into vectors and add them. Then come the blocks, and then a last norm, because the stream
# has grown. Positions count from 0 and have a table of their own, so no text can be longer than that table. `wte`,
# `wpe`, `h` and `ln_f` are the names that you will find in files of GPT-2's weights. `refuse_ids_that_do_not_fit(ids,
# block_size)`, from the module `prompts`, checks the ids.


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
# One part is missing: the way from the stream to logits. A token's logit says how well the stream's vector fits that
# token, and we already have a table with a vector for each token: `wte`. So the last layer `lm_head`, a `Linear`
# without bias, uses the *same* parameter as its weight. This is the *weight tying* of chapter 12, and we write it as an
# assignment (chapter 04): the parameter is listed once, counted once, and updated once.
#
# For the *initialization* we follow nanoGPT and the `transformers` library: normal numbers with a standard deviation of
# 0.02, and biases of zero. Each of the $2L$ layers that write to the stream adds something independent, so with $L$
# blocks the stream's variance would grow in proportion to $2L$. Therefore we draw the last weights of these layers
# smaller, by $1/\sqrt{2L}$.


class GPT(Module):
    """A language model with GPT-2's architecture, names and initialization: ids (B, T) -> logits (B, T, vocab_size)."""

    def __init__(self, config: GPTConfig):  # exercise
        """Keeps the config; its layers are `transformer` and `lm_head`, which share a weight. At the end the weights
        are drawn by `reset_parameters`."""
        super().__init__()
        self.config, self.transformer = config, Transformer(config)
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight
        self.reset_parameters()

    # The forward pass is one line.

    def forward(self, ids):
        return self.lm_head(self.transformer(ids))

    # We tell the matrices from the vectors by their dimensions, and the layers that write to the stream by their name.

    def reset_parameters(self) -> None:  # exercise
        """Draw all weights anew, from the generator of chapter 01: matrices normal with a standard deviation of 0.02,
        or 0.02 / sqrt(2 n_layer) where the name ends with c_proj.weight; biases 0, the weights of norms 1."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                spread = 0.02 / math.sqrt(2 * self.config.n_layer) if name.endswith("c_proj.weight") else 0.02
                parameter.copy_(generator().standard_normal(parameter.shape, np.float32) * np.float32(spread))
            else:
                parameter.copy_(np.full(parameter.shape, float(name.endswith("weight")), np.float32))

    # An optimizer should treat matrices and vectors differently. `decay_groups`, below, separates them.

    def configure_optimizers(
        self, weight_decay: float = 0.1, learning_rate: float = 3e-4, betas: tuple[float, float] = (0.9, 0.95)
    ) -> AdamW:
        """AdamW with weight decay on the matrices only; see `decay_groups`."""
        return AdamW(decay_groups(self, weight_decay), lr=learning_rate, betas=betas)

    def extra_repr(self):
        return str(self.config)


# *Weight decay* is for matrices. It pulls a weight towards zero if nothing else needs it, but the weight of a norm
# belongs near 1, and a bias has no reason to be small. So we give the optimizer two groups, and `configure_optimizers`,
# a name from nanoGPT, builds an AdamW with them. (`train_on` does not bother, because weights do not decay far in a
# minute of training.)


def decay_groups(model: Module, weight_decay: float) -> list[dict[str, Any]]:  # exercise (starred)
    """Two groups for an optimizer: parameters of two or more dimensions with weight_decay, all others with 0. Those
    that require no gradient are in neither."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


# A fresh GPT should know nothing: whatever the token, its loss should be the logarithm of the vocabulary size. If yours
# is far above that, the initial weights are too large.


def check_a_fresh_gpt_knows_nothing():
    model = GPT(GPTConfig(vocab_size=100, block_size=16, n_layer=4, n_head=4, n_embd=32))
    ids, targets = (from_numpy(generator().integers(0, 100, (4, 16))) for _ in range(2))
    assert abs(next_token_loss(model(ids), targets).item() - math.log(100)) < 0.1


def show_gpt():
    print(GPT(GPTConfig(vocab_size=65, block_size=64, n_layer=1, n_head=4, n_embd=64)))


# Here is the whole way once more, as shapes. Predict them before you print one. Two texts of five ids go through a GPT
# with a vocabulary of 65 tokens, a context of 16, three blocks of four heads, and a width of 32.


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
# We play the same game with networks of one block and of two. We train them longer than the players above, for 800
# steps at a learning rate of 0.01.


def small_gpt(vocabulary: int, layers: int = 4, width: int = 64, length: int = 32) -> GPT:
    """A GPT with four heads, small enough to learn in a minute."""
    return GPT(GPTConfig(vocabulary, length, layers, 4, width))


def show_blocks():
    """The loss of each step: with one block it levels off early, with two it falls much further."""
    return compare({f"{layers} block(s)": player(small_gpt, layers, steps=800, rate=1e-2) for layers in (1, 2)})


# With one block the loss levels off far above zero, as it did with layers of attention alone. Two blocks have found the
# way. (They still pay for letters that occur twice in a word.) How do they do it? To find out we look at their
# attention weights, which we compute from the queries and keys that `c_attn` makes of the normalized stream.


def attention_maps(model: GPT, ids: Tensor) -> list[np.ndarray]:
    """The attention weights of each block at one text of ids (1, T): arrays (n_head, T, T)."""
    length, maps = ids.shape[1], []
    x = model.transformer.wte(ids) + model.transformer.wpe.weight[:length]
    for block in model.transformer.h:
        qkv = block.attn.c_attn(block.ln_1(x)).reshape(1, length, 3, model.config.n_head, -1).permute(2, 0, 3, 1, 4)
        maps.append(attention_weights(qkv[0], qkv[1], causal_mask(length)).detach().numpy()[0])
        x = block(x)
    return maps


# We let the trained network read a word of six letters three times. In the first block we draw the head that looks most
# at the position to its left. In the second we draw the head that looks most at the letters *after* earlier occurrences
# of its own letter. They are five and eleven positions back.


def show_induction():
    """Two heads on a text that repeats: one looks one position back, the other at what followed the same letter."""
    word, model = "kbeoad", player(small_gpt, 2, steps=800, rate=1e-2)[0]
    first, second = attention_maps(model, tt.tensor([["abcdefghijklmnop".index(letter) for letter in word * 3]]))
    back = lambda maps, steps: np.trace(maps, -steps, 1, 2)
    left = back(first, 1).argmax()
    after = (back(second, 5) + back(second, 11)).argmax()
    titles = [f"block 1, head {left}", f"block 2, head {after}"]
    return picture_of_weights([first[left], second[after]], titles, list(word * 3), list(word * 3))


# A row is a letter that looks, a column one that it may look at. The head of the first block looks at the position to
# its left in nearly every row, so afterwards each letter knows its left neighbour. From the second round on, the head
# of the second block looks five positions back: at the letter whose left neighbour is the letter that is asking. That
# is the answer. We did not tell the network to build any of this.
#
# Such pairs of heads are called *induction heads*, and they were found in every language model of more than one layer
# that was examined (C. Olsson et al., 2022). They allow a model to repeat a name that has occurred before. The curve
# shows how suddenly they form: the network with two blocks follows the other one for some 200 steps, and then its loss
# falls. For this game two blocks are enough; a language has more to it than one trick.

# ## Choosing a token
#
# A network gives logits for the next token, but we want to write a token. Choosing one is called *sampling*. If we
# always take the most likely token (*greedy* decoding), the text soon goes in circles. If we draw by the probabilities,
# the text is alive, but now and then we draw a token that makes no sense at all. Each of those is improbable, but there
# are many. Three knobs let us choose between the two extremes.
#
# - *temperature*: divide the logits by it. Below 1 the likely tokens become likelier; 0 means always the most likely
#   one.
# - *top-k*: keep only the $k$ most likely tokens.
# - *top-p*, or nucleus sampling (A. Holtzman et al., 2019): keep as many of the most likely tokens as are needed for a
#   probability of $p$.
#
# We apply them in the order of this list and divide what remains by its sum. Each knob turns numbers into others that
# are in proportion to the probabilities. We call these numbers *weights*, and divide them by their sum only at the end.
#
# Temperature comes first. A logit may be 1000, and its exponential is then too large for any float. Only differences
# count, however, so we subtract the largest logit. We cannot divide by a temperature of 0, but the limit is clear: all
# weight is on the largest logit.


def tempered(logits: np.ndarray, temperature: float) -> np.ndarray:  # exercise
    """Weights (V,) in proportion to which tokens are drawn, for logits (V,) in float64, which stay as they are. For
    temperature 0 the most likely token has 1 and all others 0; of equals, the one with the smaller number."""
    if temperature == 0:
        return (np.arange(len(logits)) == logits.argmax()).astype(np.float64)
    return np.exp((logits - logits.max()) / temperature)


# The other two knobs need the tokens in order. Sorting a vocabulary of 50,000 tokens would take longer than many a
# network takes for a token, so the course's functions sort only the tokens that may remain. Yours may sort them all.
# `np.partition` finds the $k$-th largest logit without sorting. For top-p we can leave out every token whose
# probability is below $(1 - p) / V$, because all such tokens together do not reach $1 - p$. Among equals
# the token with the smaller id comes first, and a *stable* sort of the negative numbers gives just that.


def most_likely(logits: np.ndarray, k: int) -> np.ndarray:  # exercise
    """The numbers of the k tokens with the largest logits (V,), 1 <= k <= V, the most likely first; among equals, the
    one with the smaller number first."""
    near = np.flatnonzero(logits >= np.partition(logits, -k)[-k])
    return near[np.argsort(-logits[near], kind="stable")][:k]


# A nucleus is as small as it can be. We go from the most likely token to the less likely ones. A token belongs to the
# nucleus as long as the tokens *before* it do not yet have $p$ of all the weight. So the token that just crosses $p$
# belongs to it.


def nucleus(weights: np.ndarray, p: float) -> np.ndarray:  # exercise
    """The numbers of the most likely tokens that together have at least p (0 < p <= 1) of the sum of weights (V,), and
    no more of them than needed; the most likely first, among equals the one with the smaller number."""
    total = weights.sum()
    near = np.flatnonzero(weights * len(weights) >= (1 - p) * total)
    order = near[np.argsort(-weights[near], kind="stable")]
    return order[np.cumsum(weights[order]) - weights[order] < p * total]


# Both functions return positions in the vocabulary. Every other token gets the weight 0.


def only(weights: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A copy of weights (V,), with 0 everywhere except at these places."""
    kept = np.zeros_like(weights)
    kept[places] = weights[places]
    return kept


# Before we draw anything we check the settings and the logits, with two functions from the module `prompts`.
# `refuse_settings(temperature, top_k, top_p)` raises a ValueError for impossible settings. `checked_logits(logits)`
# returns the logits in float64. It raises a ValueError if they are not a vector or if the largest is not finite: the
# logits of a model that has diverged are nan or infinite.
#
# With all three knobs the order matters: temperature first, then top-k, then top-p.


def next_probabilities(  # exercise
    logits: np.ndarray, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> np.ndarray:
    """The probabilities (V,), in float64, with which each token is drawn: temperature first, then top_k, then top_p of
    what is left. A top_k of more than V keeps all of them. Raises ValueError for impossible settings, as
    `refuse_settings` does, and for logits that say nothing, as `checked_logits` does."""
    refuse_settings(temperature, top_k, top_p)
    logits = checked_logits(logits)
    weights = tempered(logits, temperature)
    if top_k is not None and top_k < len(logits):
        weights = only(weights, most_likely(logits, top_k))
    if top_p is not None:
        weights = only(weights, nucleus(weights, top_p))
    return weights / weights.sum()


# You can see the effect of each knob on four tokens.


def show_knobs():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    for how in ({}, {"temperature": 0.5}, {"temperature": 0}, {"top_k": 2}, {"top_p": 0.7}):
        probabilities = " ".join(f"{p:.2f}" for p in next_probabilities(logits, **how))
        print(f"{probabilities}   {how or 'as they are'}")


# ## Writing
#
# To write, we choose a token, append it, and ask the network again. A model that predicts each token from those before
# it is called *autoregressive*, and using a trained model like this, without learning, is *inference*. Three things
# need care.
#
# The text may grow longer than the context. In that case we show the network only the last `block_size` tokens.
#
# We may want to continue several texts at once, although their lengths differ. So we fill up the shorter ones *at the
# end*, with any token (*padding*), and take each text's logits at its own last position. Attention looks only backward,
# so no token sees the padding behind it.
#
# Finally, whenever we query the model, it must be in evaluation mode with recording off, and its mode must be restored
# afterwards.


def next_logits(model: GPT, texts: Sequence[Sequence[int]]) -> np.ndarray:  # exercise
    """For each text, a list of one or more token ids, the logits of the token that comes next: an array (texts, V).
    Raises ValueError if there is no text, or one without tokens. Restores the model's mode afterwards."""
    windows = [text[-model.config.block_size :] for text in texts]
    if not windows or not all(map(len, windows)):
        raise ValueError("next_logits needs at least one text, and each text at least one token that it can continue")
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


# `continued` is the loop. In each round every text that has not ended gets a token, and the caller receives them all at
# once, before the next ones are computed. A program that shows a text while it is being written takes the tokens from
# here.


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


# `stream_batch` prepares the loop. Each text has a random generator of its own, so the tokens that we draw for it do
# not depend on its neighbours. Without a seed we draw one from the generator of chapter 01. (`token_ids` turns a prompt
# into a list of integers and rejects anything else. It is in the module `prompts`, with the other checks of prompts.)


def stream_batch(
    model: GPT, prompts: Sequence[Sequence[int]], max_new_tokens: int, *, temperature: float = 1.0,
    top_k: int | None = None, top_p: float | None = None, stop: Iterable[int] = (), seed: int | None = None,
) -> Iterator[list[int | None]]:
    """Continue prompts, lists of token ids: yields after each round the new token of every text, None for those that
    have ended. A text ends with the first token of `stop`, which belongs to it. The same seed gives the same tokens."""
    texts = [token_ids(prompt) for prompt in prompts]
    if not texts or max_new_tokens < 0:
        raise ValueError(f"give at least 1 prompt and 0 new tokens, not {len(texts)} prompts and {max_new_tokens}")
    refuse_settings(temperature, top_k, top_p)
    seed = int(generator().integers(2**63)) if seed is None else seed
    generators = [np.random.default_rng((seed, row)) for row in range(len(texts))]

    def choose(row: int, logits: np.ndarray) -> int:
        probabilities = next_probabilities(logits, temperature, top_k, top_p)
        return int(generators[row].choice(len(probabilities), p=probabilities))

    yield from continued(model, texts, max_new_tokens, choose, set(stop))


# You can call it in two ways: token by token for one text, or all at once for one text or many.


def stream(model: GPT, prompt: Sequence[int], max_new_tokens: int, **how) -> Iterator[int]:
    """Yield the tokens that continue one prompt, as they are chosen; `how` as for `stream_batch`."""
    return (token for (token,) in stream_batch(model, [prompt], max_new_tokens, **how) if token is not None)


def generate(model: GPT, prompt, max_new_tokens: int, **how) -> list:
    """Return a prompt (a list or a tensor of token ids) with its continuation; for several prompts, a list or a tensor
    (B, T), a list of such texts. `how` as for `stream_batch`: temperature, top_k, top_p, stop, seed."""
    texts, several = as_texts(prompt)
    for tokens in stream_batch(model, texts, max_new_tokens, **how):
        for text, token in zip(texts, tokens):
            text.extend(() if token is None else (token,))
    return texts if several else texts[0]


# A text must not depend on its neighbours in the batch, nor on which of the two functions we call.


def check_neighbours_do_not_matter():
    model, prompts = small_gpt(20, layers=1, width=16, length=8), [[1, 2, 3], [4], list(range(12))]
    together = generate(model, prompts, 10, seed=3)
    assert together[0] == generate(model, [1, 2, 3], 10, seed=3) and [*map(len, together)] == [13, 11, 22]
    assert together[0][3:] == list(stream(model, [1, 2, 3], 10, seed=3))


# ## It writes
#
# Now we train on a text that an author wrote: the first chapter of *Moby-Dick*, which came with chapter 10, as
# characters. A sample is a window of the text, and its target is the same window one token later. So a window of 64
# characters asks 64 questions: which character comes after each of them?
#
# NumPy's `sliding_window_view` cuts the ids into all windows of length + 1 tokens, without copying. A batch takes some
# of these rows and splits each of them into inputs and targets. (`row_numbers(indices, length)`, of chapter 10, turns
# the indices of a batch into an array, negative ones too, and rejects those that are out of range. `refuse_text`, of
# the module `prompts`, checks the text.)


class Windows(Dataset):
    """Windows of a text given as token ids: sample i is (ids i to i + length, ids i + 1 to i + length + 1), both int64.
    Raises ValueError for a text that is too short, TypeError for one that is not a list of integers."""

    def __init__(self, ids: Sequence[int], length: int):
        array = refuse_text(ids, length)
        self.length, self.windows = length, np.lib.stride_tricks.sliding_window_view(array, length + 1)

    # A single sample is a batch of one.

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index):
        inputs, targets = self.batch([index])
        return inputs[0], targets[0]

    # A batch is one index with many rows, and then two slices.

    def batch(self, indices):  # exercise
        """Inputs and targets of samples, both int64 tensors (len(indices), length). Raises IndexError (`row_numbers`)
        for an index that no sample has."""
        chosen = self.windows[row_numbers(indices, len(self))].astype(np.int64)
        return from_numpy(chosen[:, :-1]), from_numpy(chosen[:, 1:])


# We cut the story in two: nine tenths for training and the last tenth for *validation*, which the network never sees
# while it learns.


def load_story(length: int = 64) -> tuple[CharTokenizer, Windows, Windows]:
    """The first chapter of Moby-Dick as windows of characters: the tokenizer, nine tenths for training, one tenth held
    out."""
    text = short_text()
    tokenizer = CharTokenizer.train(text)
    ids, cut = tokenizer.encode(text), len(text) * 9 // 10
    return tokenizer, Windows(ids[:cut], length), Windows(ids[cut:], length)


# For training we draw windows at random. The held-out windows are adjacent, so that we predict each character once.


def train_on_text(model: Module, windows: Windows, steps: int, rate: float = 5e-3, batch_size: int = 8) -> Module:
    """Train a model on windows drawn at random, and return it."""
    draws = RandomSampler(windows, replacement=True, num_samples=steps * batch_size)
    return train_on(model, DataLoader(windows, batch_size, sampler=draws), rate)


def surprise_on(model: Module, windows: Windows) -> float:
    """The mean loss of a model on adjacent windows, in nats a token."""
    side_by_side = range(0, len(windows), windows.length)
    return evaluate(model, next_token_loss, DataLoader(windows, 64, sampler=side_by_side))["loss"]


# Our GPT has two blocks and a tenth of a million parameters, and we train it for four hundred steps. Besides the loss
# in nats we print the *perplexity*, its exponential. A perplexity of 10 means that the model is as unsure as if it had
# to guess among 10 equally likely characters. Twelve kilobytes are not enough to learn English from, but watch how it
# develops.


def show_writing():
    tokenizer, training, held_out = load_story()
    manual_seed(0)
    model, steps = small_gpt(tokenizer.vocab_size, layers=2, length=64), 0
    for more in (20, 180, 200):
        train_on_text(model, training, more)
        steps, loss = steps + more, surprise_on(model, held_out)
        print(f"after {steps} steps, held out: {loss:.2f} nats a character, a perplexity of {math.exp(loss):.1f}")
        print(tokenizer.decode(generate(model, tokenizer.encode("I "), 150, temperature=0.8, seed=1)), "\n")


# First it learns which characters are frequent, then where spaces go, then short words. With a megabyte of Shakespeare
# and up to half an hour it becomes a different writer: run `examples/gpt_2018`.

# ## The witness
#
# How do we know that this is GPT-2's architecture? Our first witness is a number. OpenAI's four models have
# 124,439,808, 354,823,168, 774,030,080 and 1,557,611,200 parameters. If we had forgotten a single bias, our numbers
# would differ. The tables have $C$ numbers for each token and each position. A block has $12 C^2$ weights, $9 C$ biases
# and two norms of $2 C$ numbers, and the last norm has $2 C$.


def parameter_count(config: GPTConfig) -> int:
    """The number of parameters of a GPT."""
    C = config.n_embd
    return (config.vocab_size + config.block_size) * C + config.n_layer * (12 * C * C + 13 * C) + 2 * C


def check_parameter_counts():
    sizes = [(12, 768), (24, 1024), (36, 1280), (48, 1600)]
    counted = [parameter_count(GPTConfig(n_layer=L, n_head=C // 64, n_embd=C)) for L, C in sizes]
    assert counted == [124_439_808, 354_823_168, 774_030_080, 1_557_611_200]
    model = GPT(config := GPTConfig(vocab_size=70, block_size=20, n_layer=3, n_head=2, n_embd=8))
    assert sum(p.numel() for p in model.parameters()) == parameter_count(config)


# Our second witness is another program. The appendix `gpt_files` reads and writes weights in the files of the
# `transformers` library, and the tests compare the logits of both on the same weights. The third witness is a property
# that needs no other program: if we change a token, no logit before it moves.


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
# For each token a block performs $12 C^2$ multiply-adds in its four matrices and $2 T C$ in attention, where each of
# $T$ queries meets $T$ keys and then $T$ values. The logits cost $C V$. The backward pass costs twice as much, one
# product for each factor of a product. We compare the formula with the meter of chapter 02:


def multiply_adds(config: GPTConfig, length: int) -> int:
    """The multiply-adds of the matrix products in a forward pass, for one text of `length` tokens."""
    C = config.n_embd
    return length * (config.n_layer * (12 * C * C + 2 * length * C) + C * config.vocab_size)


# `step_cost`, from the module `shows`, runs a forward and a backward pass and prints what they cost, beside
# what we expect: the multiply-adds of the formula, and bytes by a count that we explain below.


def show_cost():
    for length in (64, 256):
        model = GPT(config := GPTConfig(65, length, n_layer=4, n_head=4, n_embd=128))
        ids = from_numpy(generator().integers(0, 65, (4, length)))
        held = 4 * length * config.n_layer * 19 * config.n_embd * 4
        print(f"4 texts of {length} tokens:", end=" ")
        step_cost(lambda: next_token_loss(model(ids), ids), 4 * multiply_adds(config, length), held)


# The formula counts only products, and they are nearly all there is. For long texts the meter counts less than the
# formula, because the blocks of chapter 13 leave out most of the pairs that causality forbids. In the backward pass it
# counts more than twice as many. The meter sees operations on tensors, so attention's gradient goes by the formula,
# which computes the weights again and leaves out nothing.
#
# Most of the memory goes to the *activations* that we keep for the backward pass, $19 C$ numbers for each token in each
# block. The two norms keep $2 C$ of them, queries, keys and values $3 C$, and the inside of the MLP $8 C$. The other $6
# C$ are the inputs and outputs of the four linear layers and the sums. The attention weights are not among them,
# because we compute them again when we need them. The same is true of the normalized numbers before they are scaled.
#
# Writing has a cost of its own. For each new token, `next_logits` reads the whole text again:


def show_generation():
    model = GPT(GPTConfig(65, 512, n_layer=4, n_head=4, n_embd=128))
    for length in (32, 128, 256, 511):
        text = generator().integers(0, 65, length).tolist()
        print(f"token {length + 1:3d}: {tt.measure(lambda: next_logits(model, [text])).seconds * 1e3:6.1f} ms")


# The last token of a text costs many times as much as the first, although everything that we compute for it, except for
# its last row, was computed before. Chapter 16 removes this waste.

# ## Errors you will meet


def show_errors():
    model = small_gpt(20, layers=1, length=8)
    for attempt in (
        lambda: GPTConfig(n_embd=100, n_head=12),
        lambda: model(tt.zeros(1, 9).long()),
        lambda: model(Tensor([[3, 20]]).long()),
        lambda: next_token_loss(tt.zeros(2, 8, 20), tt.zeros(2, 9).long()),
        lambda: generate(model, [], 5),
    ):
        try:
            attempt()
        except (ValueError, IndexError) as error:
            print(f"{type(error).__name__}: {error}")


# ## Exercises
#
# 1. `surprises`: what each token of a text costs a model, in nats. Where does yours hesitate?
# 2. `GatedMLP`: the MLP of newer networks, $W_\text{down}(\operatorname{silu}(W_\text{gate}\,x) \cdot W_\text{up}\,x)$
#    (N. Shazeer, 2020).
# 3. `without_repeats`: logits in which we make every token less likely that the text already has (N. Keskar et al.,
#    2019): divided by a penalty if positive, multiplied by it if negative.
#
# For the first, the targets are the text itself, shifted by one to the left.


def surprises(model: GPT, ids: Sequence[int]) -> list[float]:  # exercise (starred)
    """The surprise in nats of each token but the first of a text, at most block_size + 1 tokens long, given all tokens
    before it. In evaluation mode, unrecorded; restores the model's mode afterwards."""
    mode = model.training
    try:
        with no_grad():
            logits = model.eval()(from_numpy(np.array([ids[:-1]])))
        targets = from_numpy(np.array(ids[1:]))
        return cross_entropy(logits[0], targets, reduction="none").tolist()
    finally:
        model.train(mode)


# The second has three matrices, without biases. If you want as many weights as in an MLP of four times the width, make
# it only eight thirds as wide.


class GatedMLP(Module):
    """down(silu(gate(x)) * up(x)), at each position on its own: (..., C) -> (..., C)."""

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


# In the third, we *multiply* a negative logit to make it smaller.


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
# decoder that writes another sentence and looks across at the encoder (*cross-attention*). BERT kept the encoder, T5
# kept both, and GPT kept the decoder without the view across: a single stack with a single task, the next token. That
# looked like the poorest of the three. However, every position of every text is a lesson for it, with no labels and no
# gaps, and we can phrase nearly any question as a text to continue. So the poorest design was scaled, and it took over
# most of what the others did.

# ## What hurts next
#
# How fast is a training step? We compare it with the number that opened this course, the operations a second that your
# machine manages in a large matrix product. We take one step of a GPT on 12 texts of 64 characters and divide its
# operations by its time.


def show_step():
    peak = tt.setup.matmul_gflops(1024)
    for width in (32, 64, 128):
        model = small_gpt(65, width=width, length=64)
        ids = from_numpy(generator().integers(0, 65, (12, 64)))
        with meter() as counted:
            next_token_loss(model(ids), ids).backward()
        seconds = tt.measure(lambda: next_token_loss(model(ids), ids).backward()).seconds
        rate = 2 * counted.multiply_adds.total() / seconds / 1e9
        print(f"{width:3d} wide: {seconds * 1e3:4.0f} ms a step, {rate:4.1f} GFLOP/s, {rate / peak:3.0%} of a product")
    operations = 2 * 3 * multiply_adds(GPTConfig(), 1024)
    print(f"at that rate a step of GPT-2 on one text of 1,024 tokens takes {operations / rate / 1e9:.0f} s")


# Most of the machine waits, and a training takes thousands of such steps. We have taken NumPy's speed for granted so
# far. Where does the time go, and how much of it can we win back? That is the subject of chapter 15, *Acceleration*.

__all__ = [
    "Block", "CausalSelfAttention", "GPT", "GPTConfig", "GatedMLP", "Looks", "MLP", "RMSNorm", "Transformer", "Windows",
    "decay_groups", "echoes", "generate", "load_story", "multiply_adds", "next_logits", "next_probabilities",
    "next_token_loss", "parameter_count", "rms_norm", "small_gpt", "stream", "stream_batch", "surprise_on", "surprises",
    "train_on", "train_on_text", "without_repeats",
]
