# # Attention
#
# At the end of this chapter every token looks at the others, decides by itself which of them matter, and takes what it
# needs from those.

# ## The hurt
#
# Chapter 12 ended with a sum of vectors in which *dog bites man* and *man bites dog* are equal but for rounding. The
# sum has all words and all places, but not what belongs to what. Here is what is lost there, as a task that can be
# trained on: a list of pairs, a letter and a digit each, and then a letter, whose digit is to be told.
# `c7 a3 f1 ... a?` is 3.

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

import tt_tensor as tt
from tt_autograd import Batches, accuracy, check_gradients, evaluate, fit, no_grad, rule
from tt_data import short_text
from tt_nlp.common import checked_mask, product, refuse_unstacked
from tt_nlp.embeddings import Embedding, LearnedPositions
from tt_nlp.tokenization import CharTokenizer
from tt_optim import Adam
from tt_tensor import Linear, Module, Parameter, Tensor, cross_entropy, from_numpy, generator, linear, primitive

LETTERS, DIGITS = 12, 10


def pairs_and_questions(count: int, pairs: int = 6) -> tuple[Tensor, Tensor]:
    """Ids (count, 2 * pairs + 1), letter, digit, ..., letter, of pairs whose letters differ; and the digits asked
    for."""
    random = generator()
    letters = random.random((count, LETTERS)).argsort(1)[:, :pairs]
    digits = random.integers(0, DIGITS, (count, pairs))
    rows, asked = np.arange(count), random.integers(0, pairs, count)
    listed = np.stack([letters, digits], -1).reshape(count, -1)
    question = letters[rows, asked]
    return from_numpy(np.column_stack([listed, question])), from_numpy(digits[rows, asked])


# A network for it, with the means of chapter 12: each pair is one vector, that of its letter plus that of its digit; so
# is the question. The pairs are added up, and a network with a hidden layer sees the sum and the question.


class Recall(Module):
    """Tables for letters and digits; a subclass makes logits of the vectors of the pairs and of the question."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.letters, self.digits = Embedding(LETTERS, width), Embedding(DIGITS, width)

    def vectors(self, ids):
        """The pairs (N, pairs, width) and the question (N, 1, width)."""
        return self.letters(ids[:, :-1:2]) + self.digits(ids[:, 1::2]), self.letters(ids[:, -1:])


class RecallBySum(Recall):
    """Sees the sum of all pairs beside the question."""

    def __init__(self, width: int = 32):
        super().__init__(width)
        self.network = tt.Sequential(Linear(2 * width, 128), tt.ReLU(), Linear(128, DIGITS))

    def forward(self, ids):
        pairs, question = self.vectors(ids)
        return self.network(tt.cat([pairs.sum(1), question[:, 0]], 1))


def train_recall(model: Module, examples: int = 4000, epochs: int = 4) -> float:
    """Train a model on pairs and questions; the share of right answers to 1,000 new questions."""
    data, held_out = pairs_and_questions(examples), pairs_and_questions(1000)
    optimizer = Adam(model.parameters(), lr=3e-3)
    fit(model, cross_entropy, optimizer, Batches(*data, batch_size=64, shuffle=True), epochs=epochs, progress=False)
    return evaluate(model, cross_entropy, Batches(*held_out, batch_size=500), [accuracy])["accuracy"]


def show_hurt():
    tt.manual_seed(0)
    print(f"right answers by the sum: {train_recall(RecallBySum()):.1%}")


# Guessing would give a tenth. It has learned to say the digit that occurs most often in the list, and better is not to
# be had: of `a3 c7` and `a7 c3` the sums are equal, and the answers are not. More layers, more units or more training
# do not help. What belongs together was thrown away before the first of them.

# ## The smallest thing that could work
#
# What would a programmer do? Use a dictionary: go through the pairs, compare each key with the question, and where it
# matches take the value. It cannot be trained: a comparison says yes or no, and there is no slope in that. So make it
# soft. Let the match be a *score*, the product of two vectors; let softmax (chapter 03) turn the scores into weights
# that are positive and add up to 1; and take from every value as much as its weight says. A perfect match has weight 1,
# and then it is the dictionary.
#
# Three vectors for each token, then. Its *query* says what it looks for, its *key* what it can be found by, and its
# *value* what it has to give. And since one may look for several things at once, there are several *heads*, each with
# queries, keys and values of its own. In loops over heads and positions (the $\sqrt D$ is explained below):


def attention_by_loops(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:  # exercise
    """For queries (H, T, D), keys (H, S, D) and values (H, S, Dv) of H heads: the values, weighed by the softmax of
    the products of query and keys / sqrt(D), one query at a time. (H, T, Dv)."""
    heads, length, size = query.shape
    out = np.zeros((heads, length, value.shape[-1]), query.dtype)
    for h in range(heads):
        for t in range(length):
            scores = [query[h, t] @ key[h, s] / math.sqrt(size) for s in range(key.shape[1])]
            powers = [math.exp(score - max(scores)) for score in scores]
            for s, power in enumerate(powers):
                out[h, t] += power / sum(powers) * value[h, s]
    return out


# A dictionary of two entries, and a question that matches the second one well; and one that matches both alike, and
# gets the mean of their values:


def check_soft_dictionary():
    key, value = np.array([[[30.0, 0.0], [0.0, 30.0]]]), np.array([[[7.0], [3.0]]])
    assert np.allclose(attention_by_loops(np.array([[[0.0, 5.0]]]), key, value), 3.0)
    assert np.allclose(attention_by_loops(np.array([[[1.0, 1.0]]]), key, value), 5.0)


def show_loops():
    query, key, value = np.ones((3, 4, 64, 32), np.float32)
    seconds = tt.measure(lambda: attention_by_loops(query, key, value)).seconds
    print(f"4 heads, 64 tokens: {seconds * 1e3:.0f} ms; a step of a GPT needs that for 12 texts in each of 4 layers")


# ## The idea
#
# All queries against all keys is a matrix product, and so is all weights times all values. With a row for each token,
#
# $$ \operatorname{attention}(Q, K, V) = \operatorname{softmax}\!\left(\frac{Q K^T}{\sqrt{D}}\right) V , $$
#
# where softmax acts on rows (A. Vaswani et al., 2017). The heads, and the texts of a batch, are dimensions in front,
# over which `matmul` goes by itself.
#
# Read the shapes. $Q$ is $(T, D)$, $K$ is $(S, D)$: a score for each query and key, $(T, S)$. Times $V$, which is $(S,
# D_v)$, each query gets a mean of values, $(T, D_v)$. There are as many results as queries, whatever the number of
# keys; and exchange two keys together with their values, and nothing changes. Attention looks at a *set*. If order is
# to matter, it has to be in the vectors, which is why the last chapter wrote positions into them.
#
# Why the $\sqrt D$? A product of two vectors of $D$ numbers with variance 1 is a sum of $D$ terms of variance 1; its
# standard deviation is $\sqrt D$. For $D = 64$ scores of 8 and $-8$ are usual, and softmax of those is as good as a
# maximum. Where it is flat it has no slope, and nothing is learned. Divided by $\sqrt D$, scores have size 1 for every
# $D$.

# ## Weights, and who may look
#
# Not every token may look at every other. Sentences of different lengths are filled up with padding, which nobody
# should listen to. And a text that is to be continued must not look ahead: who is asked for the next word, and may look
# at it, learns nothing. So there is a *mask*: True where a query may look at a key.
#
# The mask for texts is a triangle, with the diagonal: a token may look at itself and at what came before. It is called
# *causal*.


def causal_mask(queries: int, keys: int | None = None) -> Tensor:  # exercise
    """Who may look at whom, (queries, keys): True where the key does not come after the query."""
    keys = queries if keys is None else keys
    return from_numpy(np.arange(keys) <= np.arange(queries)[:, None])


# Where must the mask be applied? If forbidden weights were set to zero after the softmax, the others would no longer
# add up to 1. *Before* it, a score of $-\infty$ gives the weight $e^{-\infty} = 0$, and the rest share the 1 among
# themselves. So a truth value becomes $0$ or $-\infty$ and is added to the scores. A mask may also be numbers to begin
# with, which say how welcome a key is.
#
# One case is left: a row in which everything is forbidden. $\infty - \infty$ is nan, and a single such row of padding
# would make everything nan that it touches. PyTorch's answer is that who may look at nothing sees zeros, and ours too:
# such a row goes through the softmax with all scores 0, and is replaced by zeros afterwards.
#
# Both times we *replace*, with `masked_fill`. After the addition a hidden score is $-\infty$ already, unless the key
# holds an infinite number or nan, as padding may: then the sum is nan. And on the way back, what is replaced has the
# gradient 0, whatever arrives.
#
# (PyTorch's layer, which we meet below, gives nan for such a row if it is asked for the weights, and zeros if it is
# not. Zeros always seems wiser.)
#
# One detail is for speed. The scale is applied to the queries, $D$ numbers each, and not to the scores, of which there
# are as many as there are keys.


def attention_weights(  # exercise
    query: Tensor, key: Tensor, mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """How much each query (..., T, D) takes from each key (..., S, D): softmax(scale * query @ key.mT), (..., T, S).

    A mask that broadcasts to (..., T, S) is True where a query may look, or numbers that are added to the scores.
    Where a query may look at nothing, its weights are 0. The scale is 1 / sqrt(D) unless given."""
    wide = np.result_type(query.dtype, np.float32)  # the scores may be too large for float16
    scores = (query.to(wide) * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.to(wide).mT
    if mask is None:
        return tt.softmax(scores, dim=-1).to(query.dtype)
    added = as_added(mask, wide)
    hidden = added == -np.inf
    hopeless = hidden.all(-1, keepdim=True)
    scores = (scores + added).masked_fill(hidden, -np.inf).masked_fill(hopeless, 0.0)
    return tt.cast(tt.masked_fill(tt.softmax(scores, dim=-1), hopeless, 0.0), dtype=query.dtype)


def as_added(mask: Tensor, dtype) -> Tensor:
    """A mask as numbers to add to scores: 0 for True and -inf for False; numbers as they are."""
    if mask.dtype == np.bool_:
        return from_numpy(np.where(mask.numpy(), 0, -np.inf).astype(dtype))
    return mask.to(dtype)


def check_weights():
    query, key = tt.randn(2, 3, 4), tt.randn(2, 5, 4)
    mask = tt.tensor([[True, False, True, True, False], [False] * 5, [True] * 5])
    weights = attention_weights(query, key, mask).numpy()
    assert np.allclose(weights.sum(-1), [[1, 0, 1]] * 2) and (weights[..., ~mask.numpy()] == 0).all()


# And here is what becomes of the weights without the division.


def show_scale():
    tt.manual_seed(0)
    for size in (4, 64, 1024):
        query, key = tt.randn(1000, 1, size), tt.randn(1000, 16, size)
        for name, scale in (("raw", 1.0), ("divided by sqrt(D)", size**-0.5)):
            largest = attention_weights(query, key, scale=scale).max(-1)[0].mean().item()
            print(f"D = {size:4d}, scores {name:18s}: the largest of 16 weights is {largest:.2f} on average")


# The whole thing, with PyTorch's name and arguments. (Dropout strikes out weights. And if queries, keys and values have
# one shape, and nothing is masked or dropped, there is a way that needs less memory; its section comes.)


def scaled_dot_product_attention(  # exercise
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None,
) -> Tensor:
    """For each query (..., T, D) the mean of the values (..., S, Dv), weighed by `attention_weights`: (..., T, Dv). As
    torch.nn.functional.scaled_dot_product_attention.

    attn_mask: True where a query may look, or numbers to add to the scores. is_causal: as if causal_mask(T, S) were
    given; not both. Raises ValueError for shapes that do not fit."""
    mask = checked_mask(query, key, value, attn_mask, is_causal)
    if mask is None and not dropout_p and query.shape == key.shape == value.shape:
        return self_attention(tt.stack([query, key, value]), is_causal=is_causal, scale=scale)
    if is_causal:
        mask = causal_mask(query.shape[-2], key.shape[-2])
    return weighted(tt.dropout(attention_weights(query, key, mask, scale), dropout_p), value)


# `weighted` is a matrix product with one difference: a weight of 0 takes nothing. In the product, 0 times an infinite
# number is nan, and a single such value would spoil the results of all queries that may not even look at it. The usual
# case costs no more than a look at the numbers. (`product`, and the checks of the arguments, are in the module
# `common`.)


@primitive(cost=lambda out, weights, values: out.size * weights.shape[-1])
def weighted(weights, values, /):
    """weights (..., T, S) @ values (..., S, Dv), where a weight of 0 takes nothing even of infinity or nan; nor does it
    have a gradient."""
    return product(weights, values)


rule(
    weighted,
    lambda g, out, weights, values: tt.choose(weights == 0, weights * 0, g @ values.mT),
    lambda g, out, weights, values: weighted(weights.mT, g),
)


# Now the loops are the witness.


def check_against_the_loops():
    query, key, value = np.random.default_rng(0).normal(size=(3, 2, 5, 4))
    key, value = key[:, :3], value[:, :3]
    found = scaled_dot_product_attention(from_numpy(query), from_numpy(key), from_numpy(value))
    assert np.allclose(found.numpy(), attention_by_loops(query, key, value))


# ## The dictionary, learned
#
# Back to the pairs. The question becomes a query, each pair a key and a value, by three linear layers that are learned;
# what comes out is turned into logits.


class RecallByAttention(Recall):
    """Asks the pairs for the question's digit."""

    def __init__(self, width: int = 32):
        super().__init__(width)
        self.query, self.key, self.value = (Linear(width, width) for _ in range(3))
        self.head = Linear(width, DIGITS)

    def weights(self, ids):
        """How much the question takes from each pair, (N, 1, pairs)."""
        pairs, question = self.vectors(ids)
        return attention_weights(self.query(question), self.key(pairs))

    def forward(self, ids):
        pairs, _ = self.vectors(ids)
        return self.head((self.weights(ids) @ self.value(pairs))[:, 0])


# Here is what it has learned, drawn. Each row is a question; the colour says how much it took from each of its pairs.


def show_recall():
    import matplotlib.pyplot as plt

    tt.manual_seed(0)
    model = RecallByAttention()
    share = train_recall(model)
    ids, _ = pairs_and_questions(8)
    with no_grad():
        weights = model.weights(ids).numpy()[:, 0]
    figure, axis = plt.subplots(figsize=(6, 4))
    axis.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*weights.shape):
        letter, digit = ids.numpy()[row, 2 * column : 2 * column + 2]
        axis.text(column, row, f"{chr(97 + letter)}{digit}", ha="center", va="center", color="C1")
    axis.set_yticks(range(8), [f"{chr(97 + row[-1])}?" for row in ids.numpy()])
    axis.set(xticks=[], title=f"{share:.1%} of the answers right")
    return figure


# Nobody told it to compare letters. The gradient found that a query and a key of one letter should have a large
# product, because then the right value comes through. It also found that the key should hide its digit, and the value
# its letter: the linear layers in front of the three roles are what makes that possible. The same pair is one thing
# when it is searched for, and another when it is read.
#
# Where does the gradient get through at first, when all weights are alike? Each value has some weight. If one of them
# would have helped, then more of it would have helped more, so its score should grow; softmax passes that on to query
# and key, in proportion to the weight. A hard dictionary would have passed on nothing.

# ## Heads
#
# A text has more than one kind of question. A verb asks for its subject and for its object, and the two are found by
# different marks; a single softmax would have to share one unit of attention between them, and mix up what they say. So
# the width $C$ is cut into $H$ heads of $C / H$ numbers, and each head does its own attention on its part: there are as
# many multiply-adds as before, and $H$ ways to look. The cut must leave the tokens alone. The $C$ numbers of a token
# become $H$ rows of $D$, and then heads and tokens change places. (A `reshape` straight to `(H, T, D)` has the right
# shape and is wrong: it cuts the text into $H$ pieces instead, and mixes tokens.)


def split_heads(x: Tensor, heads: int) -> Tensor:  # exercise
    """(..., T, C) -> (..., heads, T, C / heads). Raises ValueError if the heads do not divide C."""
    if heads < 1 or x.shape[-1] % heads:
        raise ValueError(f"{heads} heads do not divide {x.shape[-1]} numbers; C % heads must be 0")
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(-3, -2)


def merge_heads(x: Tensor) -> Tensor:  # exercise
    """(..., heads, T, D) -> (..., T, heads * D): what `split_heads` did, backwards."""
    x = x.transpose(-3, -2)
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def check_heads():
    x = tt.randn(2, 5, 6)
    heads = split_heads(x, 3)
    assert heads.shape == (2, 3, 5, 2) and (heads[1, 2, 4] == x[1, 4, 4:]).all() and (merge_heads(heads) == x).all()


# ## The layer
#
# `MultiHeadAttention` owns the linear layers: one that makes queries, keys and values, and one that mixes what the
# heads have found. The first is a single matrix $(3C, C)$, so that in *self-attention*, where a text asks itself, one
# product makes all three. They stay together in one tensor $(3, B, H, T, D)$; that costs nothing, since it is a view.
# In *cross-attention* one text asks another, and the matrix is cut.
#
# (That is how a translator works: the queries come from the translation so far, keys and values from the original.)
#
# Names and arguments are those of `torch.nn.MultiheadAttention`, so its weights can be loaded. That includes an old
# inconsistency: in the masks of this layer, True means *must not look*. What has to be done to masks and odd shapes
# because of that stands in the appendix `more_attention`. Four functions of it are called below: `cut(layer)` gives
# weight and bias for queries, for keys and for values; `refuse_misfits` raises what is to be raised; `one_mask` makes
# numbers to be added to the scores of all masks together, the causal one included, or None if the causal mask is the
# only one and nobody asks for weights; and `without_batch` calls the layer with a batch of one.


class MultiHeadAttention(Module):
    """num_heads attentions side by side, each on its share of embed_dim numbers, batch first. As
    torch.nn.MultiheadAttention(..., batch_first=True); kdim and vdim are the widths of keys and values."""

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, kdim: int | None = None,
        vdim: int | None = None, batch_first: bool = True,
    ):
        super().__init__()
        more_attention.refuse_options(embed_dim, num_heads, batch_first)
        if num_heads < 1 or embed_dim < 1 or embed_dim % num_heads:
            raise ValueError(f"{num_heads} heads do not divide {embed_dim} numbers; embed_dim % num_heads must be 0")
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, tt.Dropout(dropout).p
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        if self.kdim == self.vdim == embed_dim:
            self.in_proj_weight = Parameter(tt.zeros(3 * embed_dim, embed_dim))
        else:
            self.q_proj_weight = Parameter(tt.zeros(embed_dim, embed_dim))
            self.k_proj_weight = Parameter(tt.zeros(embed_dim, self.kdim))
            self.v_proj_weight = Parameter(tt.zeros(embed_dim, self.vdim))
        self.in_proj_bias = Parameter(tt.zeros(3 * embed_dim)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew, as PyTorch does, and set the biases to zero."""
        self.out_proj.reset_parameters()
        for name, parameter in self.named_parameters():
            if name.endswith("proj_weight"):
                tt.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                tt.zeros_(parameter)

    def projected(self, query, key, value):  # exercise
        """Queries, keys and values in heads, three times (B, heads, T, D): stacked in one tensor if they are all made
        of one text, otherwise a list."""
        if query is key is value and self.kdim == self.vdim == self.embed_dim:
            qkv = split_heads(linear(query, self.in_proj_weight, self.in_proj_bias), 3 * self.num_heads)
            return qkv.reshape(len(query), 3, self.num_heads, *qkv.shape[2:]).transpose(0, 1)
        return [
            split_heads(linear(x, weight, bias), self.num_heads)
            for x, (weight, bias) in zip((query, key, value), more_attention.cut(self))
        ]

    # The way through the layer: project, attend, merge the heads, project again. Of the three ways to attend, the first
    # also shows the weights, the second is for a text that asks itself, the third for one that asks another.

    def forward(  # exercise
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Queries (B, T, C), keys and values (B, S, C), or all without B: what was found (B, T, C), and if need_weights
        the weights (B, T, S), the mean over heads, or (B, heads, T, S).

        key_padding_mask (B, S) and attn_mask (T, S) or (B * heads, T, S): True where nobody may look, or numbers to
        add. With is_causal nobody looks ahead."""
        if query.ndim == 2:
            masks = {"key_padding_mask": key_padding_mask, "attn_mask": attn_mask, "is_causal": is_causal}
            return more_attention.without_batch(self, query, key, value, need_weights, average_attn_weights, **masks)
        more_attention.refuse_misfits(self, query, key, value)
        p, weights = self.dropout if self.training else 0.0, None
        mask = more_attention.one_mask(self, query, key, key_padding_mask, attn_mask, is_causal, need_weights)
        qkv = self.projected(query, key, value)
        if need_weights:
            q, k, v = qkv
            weights = tt.dropout(attention_weights(q, k, mask), p)
            found = weighted(weights, v)
            weights = weights.mean(1) if average_attn_weights else weights
        elif isinstance(qkv, Tensor):
            found = self_attention(qkv, mask, p, is_causal and mask is None)
        else:
            q, k, v = qkv
            found = scaled_dot_product_attention(q, k, v, mask, p, is_causal and mask is None)
        return self.out_proj(merge_heads(found)), weights

    def extra_repr(self):
        return f"{self.embed_dim} in {self.num_heads} heads"


# Whoever asks for the weights gets them, and they have to be made for him, all $T \times S$ of them for every head. Who
# does not ask (`need_weights=False`) leaves the layer free to do without, and should.
#
# Two things must hold for every text. Nobody sees what comes after him: whatever happens to token 3, the results for
# tokens 0 to 2 stay what they are. And padding is as if it were not there.


def check_causality_and_padding():
    layer, x = MultiHeadAttention(8, 2), tt.randn(1, 5, 8)
    changed = tt.cat([x[:, :3], tt.randn(1, 2, 8)], 1)
    one, other = (layer(t, t, t, is_causal=True)[0].detach().numpy() for t in (x, changed))
    assert np.allclose(one[:, :3], other[:, :3], atol=1e-6) and not np.allclose(one[:, 3:], other[:, 3:], atol=1e-3)
    padding = tt.tensor([[False, False, False, True, True]])
    padded, short = layer(x, x, x, key_padding_mask=padding)[0], layer(*[x[:, :3]] * 3)[0]
    assert np.allclose(padded[:, :3].detach().numpy(), short.detach().numpy(), atol=1e-6)


# ## What heads look at
#
# Let a layer read: characters of the first chapter of *Moby-Dick*, each to say which one comes next. A table, learned
# positions, one layer of causal attention with four heads, and logits.


class Reader(Module):
    """One layer of causal attention: ids (B, T) -> logits (B, vocabulary, T) for the token after each."""

    def __init__(self, vocabulary: int, width: int = 64, heads: int = 4, length: int = 32):
        super().__init__()
        self.table, self.positions = Embedding(vocabulary, width), LearnedPositions(length, width)
        self.look, self.head = MultiHeadAttention(width, heads), Linear(width, vocabulary)

    def forward(self, ids):
        x = self.positions(self.table(ids))
        return self.head(self.look(x, x, x, is_causal=True, need_weights=False)[0]).transpose(1, 2)

    def heads(self, ids):
        """The weights of each head, (B, heads, T, T)."""
        x = self.positions(self.table(ids))
        return self.look(x, x, x, is_causal=True, average_attn_weights=False)[1]


def train_reader(epochs: int = 6, width: int = 64) -> tuple[CharTokenizer, Reader, list[float]]:
    """The tokenizer, a trained Reader, and its loss on the last tenth of the text after each epoch."""
    text = short_text()
    tokenizer, length = CharTokenizer.train(text), 32
    windows = np.lib.stride_tricks.sliding_window_view(np.array(tokenizer.encode(text)), length + 1)[::8]
    x, y, cut = from_numpy(windows[:, :-1].copy()), from_numpy(windows[:, 1:].copy()), len(windows) * 9 // 10
    model = Reader(tokenizer.vocab_size, width)
    history = fit(
        model, cross_entropy, Adam(model.parameters(), lr=3e-3), Batches(x[:cut], y[:cut], 32, shuffle=True),
        epochs=epochs, validation=Batches(x[cut + 4 :], y[cut + 4 :], 64), progress=False,
    )
    return tokenizer, model, history["val_loss"]


def show_heads():
    import matplotlib.pyplot as plt

    tt.manual_seed(0)
    tokenizer, model, _ = train_reader()
    text = "Call me Ishmael. Some"
    with no_grad():
        weights = model.heads(tt.tensor([tokenizer.encode(text)])).numpy()[0]
    figure, axes = plt.subplots(1, 4, figsize=(10, 3))
    for head, (axis, of_head) in enumerate(zip(axes, weights)):
        axis.imshow(of_head, cmap="Blues", vmin=0, vmax=1)
        axis.set_xticks(range(len(text)), text, fontsize=6)
        axis.set_yticks(range(len(text)), text, fontsize=6)
        axis.set_title(f"head {head}", fontsize=9)
    figure.tight_layout()
    return figure


# A row is a token that looks, a column one that is looked at; above the diagonal there is nothing. The heads have
# divided the work: most look at the token itself or the one just before it, and some prefer certain characters wherever
# they stand.

# ## The cost
#
# Every token looks at every other: $T^2$ scores for each head, each of them a product of $D$ numbers, and as much again
# to weigh the values. With $C = H D$ that makes $2 B T^2 C$ multiply-adds. The scores and weights themselves are $B H
# T^2$ numbers, and a backward pass wants them again, so that they are kept.


def attention_cost(batch: int, heads: int, length: int, size: int) -> tuple[int, int]:  # exercise
    """The multiply-adds of the two products in the attention of (batch, heads, length, size) queries, keys and values,
    and the bytes of its weights in float32."""
    return 2 * batch * heads * length**2 * size, 4 * batch * heads * length**2


def cost_table(attend) -> None:
    """Prints what `attend(q, k, v)` costs for texts of several lengths."""
    for length in (64, 128, 256, 512, 1024):
        q, k, v = tt.randn(3, 1, 8, length, 32)
        with tt.meter() as meter, no_grad():
            attend(q, k, v)
        with no_grad():
            measured = tt.measure(lambda: attend(q, k, v))
        counted = meter.multiply_adds["matmul"] + meter.multiply_adds["attention_in_blocks"]
        products, weights = attention_cost(1, 8, length, 32)
        print(
            f"T = {length:4d}: {counted / 1e6:6.1f} M multiply-adds, formula {products / 1e6:6.1f} M; weights "
            f"{weights / 1e6:5.1f} MB, peak {measured.peak_bytes / 1e6:5.1f} MB; {measured.seconds * 1e3:6.2f} ms"
        )


def show_cost():
    cost_table(lambda q, k, v: attention_weights(q, k) @ v)


# Twice the length, four times everything. For short texts that is nothing beside the linear layers, which cost $4 T
# C^2$; at $T = 2C$ the two are equal. And the memory is what hurts first: the peak is a few times the weights.

# ## Without the square
#
# All of that multiplies: by the texts of a batch, and by the layers, whose weights wait for the backward pass together.
# The arithmetic has to be done. But nobody needs all of the weights *at once*. The result for a query needs one row of
# them. So take the queries in blocks, 64 at a time, compute their scores with all keys, their weights, their results,
# and forget the weights. For the backward pass they are computed again: that takes time, and it is the price for not
# keeping them. (Taking the keys in blocks, too, is the idea of *FlashAttention*: T. Dao et al., 2022.)
#
# With a causal mask there is a second gain. A block of queries needs only the keys up to its own end, so that nearly
# half of the work is never done; only in the block on the diagonal something has to be masked.
#
# Queries, keys and values come stacked in one tensor $(3, \dots, T, D)$: the three gradients need the same weights, and
# so they are computed together.

QUERIES = 64  # in a block


def _blocks(length: int, is_causal: bool) -> Iterator[tuple[slice, slice]]:
    """Blocks of queries, and the keys that they see."""
    for start in range(0, length, QUERIES):
        stop = min(start + QUERIES, length)
        yield slice(start, stop), slice(0, stop if is_causal else length)


def _block_weights(q, k, rows, is_causal, scale):
    """The weights (..., n, S) of the n queries of a block that begins at `rows.start`, on arrays."""
    scores = (q * scale) @ k.swapaxes(-2, -1)
    if is_causal:
        seen = np.arange(scores.shape[-1]) <= np.arange(rows.start, rows.stop)[:, None]
        scores = np.where(seen, scores, -np.inf)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _cost(out, qkv, is_causal, scale):
    length = out.shape[-2]
    return 2 * out.size * ((length + min(QUERIES, length)) // 2 if is_causal else length)


@primitive(cost=_cost)
def attention_in_blocks(qkv, /, is_causal, scale):  # exercise
    """softmax(scale * q @ k.mT) @ v of queries, keys and values stacked as (3, ..., T, D): (..., T, D). With is_causal
    no query looks ahead."""
    out, (q, k, v) = np.empty_like(qkv[0]), qkv.astype(np.result_type(qkv.dtype, np.float32), copy=False)
    with tt.quiet():
        for rows, keys in _blocks(q.shape[-2], is_causal):
            weights = _block_weights(q[..., rows, :], k[..., keys, :], rows, is_causal, scale)
            out[..., rows, :] = product(weights, v[..., keys, :])
    return out


def self_attention(
    qkv: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """scaled_dot_product_attention of queries, keys and values that are stacked in one tensor (3, ..., T, D); in blocks
    unless there is a mask or dropout."""
    refuse_unstacked(qkv)
    if attn_mask is None and not dropout_p:
        return attention_in_blocks(qkv, is_causal=is_causal, scale=qkv.shape[-1] ** -0.5 if scale is None else scale)
    return scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask, dropout_p, is_causal, scale)


# A text of two blocks and a bit, against all weights at once:


def check_blocks():
    qkv = tt.randn(3, 2, 130, 8)
    for is_causal in (False, True):
        weights = attention_weights(qkv[0], qkv[1], causal_mask(130) if is_causal else None)
        found = self_attention(qkv, is_causal=is_causal)
        assert np.allclose(found.numpy(), (weights @ qkv[2]).numpy(), atol=1e-5)


# The gradient, on paper. With weights $P$, result $O = P V$, and $G$ the gradient of $O$:
#
# $$ \bar V = P^T G, \qquad \bar P = G V^T, \qquad
#    \bar S = P \circ (\bar P - \operatorname{rowsum}(\bar P \circ P)), \qquad
#    \bar Q = c \, \bar S K, \quad \bar K = c \, \bar S^T Q . $$
#
# The third is the derivative of softmax, from chapter 03; $c$ is the scale. A key that is hidden from a query has the
# weight 0, and then nothing may come of it, even if what it meets is infinite or nan: `choose` and `weighted` see to
# that. The operators work on arrays and on tensors.


def attention_share(g, weights, q, k, v, scale):  # exercise
    """The gradients of queries, keys and values, by the formula, where g arrived for softmax(scale * q @ k.mT) @ v and
    the softmax is `weights`. On arrays or on tensors."""
    hidden, nothing = weights == 0, weights * 0
    of_weights = tt.choose(hidden, nothing, g @ v.mT)
    of_scores = weights * (of_weights - tt.sum(of_weights * weights, -1, keepdim=True)) * scale
    of_scores = tt.choose(hidden, nothing, of_scores)
    return weighted(of_scores, k), weighted(of_scores.mT, q), weighted(weights.mT, g)


# An ordinary backward pass computes the weights again, block by block: a query belongs to one block, but its keys and
# values receive gradients from many, which add up. For the derivative of a derivative, all weights are tensors at once.


def _qkv_share(g, out, qkv, is_causal, scale):
    if not isinstance(g, np.ndarray):
        mask = causal_mask(qkv.shape[-2]) if is_causal else None
        q, k, v = qkv[0], qkv[1], qkv[2]
        return tt.stack(attention_share(g, attention_weights(q, k, mask, scale), q, k, v, scale))
    wide = np.result_type(qkv.dtype, np.float32)
    (q, k, v), g, shares = qkv.astype(wide, copy=False), g.astype(wide, copy=False), np.zeros_like(qkv, wide)
    for rows, keys in _blocks(q.shape[-2], is_causal):
        part = q[..., rows, :], k[..., keys, :], v[..., keys, :]
        weights = _block_weights(*part[:2], rows, is_causal, scale)
        found = attention_share(g[..., rows, :], weights, *part, scale)
        for share, own, of_block in zip(shares, (rows, keys, keys), found):
            share[..., own, :] += of_block
    return shares.astype(qkv.dtype, copy=False)


rule(attention_in_blocks, _qkv_share)


def check_gradients_of_attention():
    qkv = Tensor(np.random.default_rng(0).normal(size=(3, 2, 4, 3)), requires_grad=True)
    for is_causal in (False, True):
        check_gradients(lambda x: self_attention(x, is_causal=is_causal) ** 2, qkv)


# The same table again. The square is gone from the memory; in the time it remains.


def show_blocks():
    cost_table(lambda q, k, v: scaled_dot_product_attention(q, k, v))


# ## Errors you will meet


def show_errors():
    x, layer = tt.zeros(2, 5, 8), MultiHeadAttention(8, 2)
    for attempt in (
        lambda: MultiHeadAttention(8, 3), lambda: split_heads(x, 5), lambda: layer(x, tt.zeros(2, 5, 6), x),
        lambda: scaled_dot_product_attention(x, x, x[:, :4]),
        lambda: scaled_dot_product_attention(x, x, x, attn_mask=tt.ones(5, 4).bool()),
        lambda: scaled_dot_product_attention(x, x, x, causal_mask(5), is_causal=True),
        lambda: layer(x, x, x, key_padding_mask=tt.zeros(5, 2)),
    ):
        try:
            attempt()
        except ValueError as error:
            print(f"ValueError: {error}")


# ## Exercises
#
# Besides what is marked in the text:
#
# 1. `window_mask`: a causal mask in which nobody looks back further than `window` tokens, himself included. What does
#    the formula of the cost become?
# 2. Give `Reader` the same position for every token. Which head can no longer do its work, and what does the loss say?
# 3. Take the $\sqrt D$ out of `RecallByAttention` (`scale=1.0`), with a width of 512. How many epochs does it need now?


def window_mask(length: int, window: int) -> Tensor:  # exercise
    """(length, length): True where a query may look at itself and at the window - 1 keys before it."""
    back = np.arange(length)[:, None] - np.arange(length)
    return from_numpy((back >= 0) & (back < window))


def check_window_mask():
    assert (window_mask(5, 5) == causal_mask(5)).all() and window_mask(5, 2).sum().item() == 9


# ## A road not taken
#
# PyTorch hides several kernels behind one name: `scaled_dot_product_attention` chooses among FlashAttention, a
# memory-efficient one and plain products, by shapes and hardware; which one it was can be seen in the profile only. JAX
# leaves it to the compiler, and offers `jax.nn.dot_product_attention` for those who know better. tinygrad multiplies,
# masks and multiplies. And there are attentions without any square: the softmax replaced by a product of functions, or
# by a state that is carried along (S4, Mamba). They cost $O(T)$, and recall `a3 c7` less well.

# ## What hurts next
#
# `Reader` predicts the next character. So let it learn for longer; and let it be wider.


def show_plateau():
    print("nats a character on held-out text, after each epoch")
    for width in (32, 64, 128):
        tt.manual_seed(0)
        _, _, losses = train_reader(10, width)
        print(f"{width:3d} wide: " + " ".join(f"{loss:.2f}" for loss in losses))


# Four times the width brings less than a tenth of a nat, and more epochs bring little, or do harm. One layer of
# attention looks once, at what is there; it cannot look again, at what it has found. What to put on top of it, so that
# the second look is better than the first, is the subject of chapter 14, *Transformers*.

__all__ = [
    "MultiHeadAttention", "Reader", "RecallByAttention", "RecallBySum", "as_added", "attention_by_loops",
    "attention_cost", "attention_in_blocks", "attention_share", "attention_weights", "causal_mask", "merge_heads",
    "pairs_and_questions", "scaled_dot_product_attention", "self_attention", "split_heads", "train_reader",
    "train_recall", "weighted", "window_mask",
]

from tt_nlp import more_attention  # noqa: E402  (an appendix, which is built on this chapter and helps it out)
