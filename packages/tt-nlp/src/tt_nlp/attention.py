# # Attention
#
# At the end of this chapter every token looks at the others, decides by itself which of them matter, and takes what it
# needs from those.

# ## The hurt
#
# Chapter 12 ended with a sum of vectors in which *dog bites man* and *man bites dog* are equal except for rounding. Our
# sum has all words and all positions, but not what belongs to what. We can turn what it lacks into a task to train on:
# a list of pairs, a letter and a digit each, and then a letter, whose digit is the answer. For `c7 a3 f1 ... a?` you
# would answer 3.

from __future__ import annotations

import math

import numpy as np

import tt_tensor as tt
from tt_autograd import Batches, accuracy, check_gradients, evaluate, fit, grad, rule
from tt_data import short_text
from tt_nlp.common import as_added, checked_mask, product, refuse_unstacked, weighted
from tt_nlp.embeddings import Embedding, LearnedPositions
from tt_nlp.shows import cost_table, picture_of_weights
from tt_nlp.tokenization import CharTokenizer
from tt_optim import Adam
from tt_tensor import Linear, Module, Parameter, Tensor, cross_entropy, from_numpy, generator, linear, primitive

# To draw letters that differ, we sort random numbers and take the order in which they came.

LETTERS, DIGITS = 12, 10


def pairs_and_questions(count: int, pairs: int = 6) -> tuple[Tensor, Tensor]:
    """Ids (count, 2 * pairs + 1): letter, digit, ..., letter; no letter has two digits. And the digits asked for."""
    random, rows = generator(), np.arange(count)
    letters = random.random((count, LETTERS)).argsort(1)[:, :pairs]
    digits, asked = random.integers(0, DIGITS, (count, pairs)), random.integers(0, pairs, count)
    listed = np.stack([letters, digits], -1).reshape(count, -1)
    return from_numpy(np.column_stack([listed, letters[rows, asked]])), from_numpy(digits[rows, asked])


# We build a network for it with the means of chapter 12. Each pair is one vector, the embedding of its letter plus that
# of its digit, and so is the question.


class Recall(Module):
    """Tables for letters and digits; a subclass answers, with logits."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.letters, self.digits = Embedding(LETTERS, width), Embedding(DIGITS, width)

    def vectors(self, ids):
        """The pairs (N, pairs, width) and the question (N, 1, width)."""
        return self.letters(ids[:, :-1:2]) + self.digits(ids[:, 1::2]), self.letters(ids[:, -1:])

    def forward(self, ids):
        return self.answer(*self.vectors(ids))


# First we add the pairs up, and a network with a hidden layer sees the sum beside the question.


class RecallBySum(Recall):
    """Sees the sum of all pairs beside the question."""

    def __init__(self, width: int = 32):
        super().__init__(width)
        self.network = tt.Sequential(Linear(2 * width, 128), tt.ReLU(), Linear(128, DIGITS))

    def answer(self, pairs, question):
        return self.network(tt.cat([pairs.sum(1), question[:, 0]], 1))


# We train it on 4,000 lists and ask it questions about 1,000 new ones.


def train_recall(model: Module, examples: int = 4000, epochs: int = 4) -> float:
    """Train a model on pairs and questions; return the share of right answers to 1,000 new questions."""
    data, held_out = pairs_and_questions(examples), pairs_and_questions(1000)
    optimizer = Adam(model.parameters(), lr=3e-3)
    fit(model, cross_entropy, optimizer, Batches(*data, batch_size=64, shuffle=True), epochs=epochs, progress=False)
    return evaluate(model, cross_entropy, Batches(*held_out, batch_size=500), [accuracy])["accuracy"]


def show_hurt():
    tt.manual_seed(0)
    print(f"right answers by the sum: {train_recall(RecallBySum()):.1%}")


# Guessing would get a tenth right. Our network has learned to say the digit that occurs most often in the list, and it
# cannot do better: the sums of `a3 c7` and `a7 c3` are equal, but their answers are not. More layers, more units or
# more training cannot help, because we threw away what belongs together before the first layer.

# ## The smallest thing that could work
#
# What would a programmer do? Use a dictionary: go through the pairs, compare each key with the question, and where it
# matches take the value. We cannot train that, because a comparison says yes or no and has no slope. So we make the
# dictionary soft. We let the match be a *score*, the product of two vectors. We let softmax (chapter 03) turn the
# scores into *weights* that are positive and add up to 1. Then we take from every value as much as its weight says. If
# one match is perfect, its weight is 1, and we have the dictionary back.
#
# So each token needs three vectors. Its *query* says what it looks for, its *key* what it can be found by, and its
# *value* what it has to give. We make all three from the token's embedding, with one learned matrix each. Here you see
# them for one query:


def show_roles():
    """Each token has a query, a key and a value. One query meets all keys, and the weights mix the values."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3))
    arrow = {"arrowstyle": "->", "color": "gray"}
    for x, (word, weight) in enumerate([("the", 0.1), ("cat", 0.8), ("sat", 0.1)]):
        axis.text(4 * x, 3, word, ha="center", weight="bold")
        for dx, role, colour in ((-1, "query", "C0"), (0, "key", "C1"), (1, "value", "C2")):
            axis.annotate("", (4 * x + dx, 2.3), (4 * x, 2.9), arrowprops=arrow)
            axis.text(4 * x + dx, 2, role, color=colour, ha="center", fontsize=9)
        meet = arrow | {"color": "C1", "connectionstyle": f"arc3,rad={0.3 if x == 2 else -0.3}"}
        axis.annotate("", (4 * x, 1.95), (7, 1.95), arrowprops=meet)
        axis.annotate("", (4, 0.3), (4 * x + 1, 1.9), arrowprops=arrow | {"color": "C2", "lw": 0.5 + 4 * weight})
        axis.text(3 * x + 2.1, 0.9, f"{weight:.0%}", color="C2", fontsize=9)
    axis.text(4, 0, 'what "sat" finds', color="C2", ha="center")
    axis.set(xlim=(-2, 10), ylim=(-0.2, 3.4))
    axis.axis("off")
    return figure


# A token may look for several things at once, so it has several *heads*, each with queries, keys and values of its own.
# We write it first as loops over heads and positions. (The $\sqrt D$ is explained below.)

def attention_by_loops(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:  # exercise
    """For queries (H, T, D), keys (H, S, D) and values (H, S, Dv) of H heads: the values, weighed by the softmax of
    the products of query and keys / sqrt(D), one query at a time. (H, T, Dv). Scores of 1000 do not overflow."""
    heads, length, size = query.shape
    out = np.zeros((heads, length, value.shape[-1]), query.dtype)
    for h in range(heads):
        for t in range(length):
            scores = [query[h, t] @ key[h, s] / math.sqrt(size) for s in range(key.shape[1])]
            powers = [math.exp(score - max(scores)) for score in scores]
            out[h, t] = sum(power / sum(powers) * value[h, s] for s, power in enumerate(powers))
    return out


# We ask a dictionary of two entries two questions: one that matches the second entry well, and one that matches both
# equally and gets the mean of their values.


def check_soft_dictionary():
    key, value = np.array([[[30.0, 0.0], [0.0, 30.0]]]), np.array([[[7.0], [3.0]]])
    assert np.allclose(attention_by_loops(np.array([[[0.0, 5.0]]]), key, value), 3.0)
    assert np.allclose(attention_by_loops(np.array([[[1.0, 1.0]]]), key, value), 5.0)


# It works. Here is how long it takes.


def show_loops():
    query, key, value = np.ones((3, 4, 64, 32), np.float32)
    seconds = tt.measure(lambda: attention_by_loops(query, key, value)).seconds
    print(f"4 heads, 64 tokens: {seconds * 1e3:.0f} ms; a step of a GPT needs that for 12 texts in each of 4 layers")


# ## The idea
#
# Comparing all queries with all keys is a matrix product, and so is weighing all values. With a row for each token, we
# can write the whole of it in one line, *scaled dot-product attention*:
#
# $$ \operatorname{attention}(Q, K, V) = \operatorname{softmax}\!\left(\frac{Q K^T}{\sqrt{D}}\right) V , $$
#
# where softmax acts on rows (A. Vaswani et al., 2017). The heads and the texts of a batch are leading dimensions, over
# which `matmul` broadcasts.
#
# Read the shapes. $Q$ is $(T, D)$ and $K$ is $(S, D)$, so we get a score for each query and key, $(T, S)$. Times $V$,
# which is $(S, D_v)$, each query gets a mean of values, $(T, D_v)$. There are as many results as queries, however many
# keys there are. If you exchange two keys together with their values, nothing changes: attention looks at a *set*. If
# the order matters, it must be in the vectors, which is why we wrote positions into them in the last chapter.
#
# Why the $\sqrt D$? Let us take the elements of a query and a key as independent numbers with mean 0 and variance 1.
# Then
#
# $$ \operatorname{Var}(q \cdot k) = \sum_{i=1}^{D} \operatorname{Var}(q_i k_i) = \sum_{i=1}^{D} 1 = D , $$
#
# so a score has the standard deviation $\sqrt D$. For $D = 64$ scores of $\pm 8$ are typical, and their softmax is
# practically a hard maximum. Where softmax is flat it has no slope, and we learn nothing. Divided by $\sqrt D$, scores
# have size 1 for every $D$.

# ## Weights, and who may look
#
# Not every token may look at every other. We fill up sentences of different lengths with padding, which no token should
# listen to. And when we continue a text, no token may look ahead: a model that can see the next word learns nothing
# from predicting it. So we need a *mask*: True where a query may look at a key.
#
# The mask for texts is a triangle that includes the diagonal, because a token may look at itself and at what came
# before. It is called the *causal mask*.


def causal_mask(queries: int, keys: int | None = None) -> Tensor:  # exercise
    """Which query may look at which key, (queries, keys), bool: True where the key does not come after the query.
    Without `keys` there are as many keys as queries."""
    keys = queries if keys is None else keys
    return from_numpy(np.arange(keys) <= np.arange(queries)[:, None])


# Where must we apply the mask? If we set forbidden weights to zero after the softmax, the others no longer add up to 1.
# *Before* it, a score of $-\infty$ gives the weight $e^{-\infty} = 0$, and the rest share the 1 among themselves. So
# `as_added` (from the module `common`) turns a truth value into $0$ or $-\infty$, which we add to the scores. A mask
# may also hold numbers to begin with, which say how welcome a key is.
#
# One case is left: a row in which everything is forbidden. There $\infty - \infty$ is nan, and a single such row of
# padding would turn everything that it touches into nan. In PyTorch's function a query that may look at nothing finds
# zeros, and in ours too. We send such a row through the softmax with all scores 0, and replace it by zeros afterwards.
#
# Both times we *replace*, with `masked_fill`. After the addition a hidden score is already $-\infty$, unless the key
# holds an infinite number or nan, as padding may: then the sum is nan. In the backward pass, every element that we
# replaced has the gradient 0, whatever gradient arrives.
#
# We apply the scale to the queries, $D$ numbers each, and not to the scores, because there are as many of those as
# keys.


def attention_weights(  # exercise
    query: Tensor, key: Tensor, mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """How much each query (..., T, D) takes from each key (..., S, D): softmax(scale * query @ key.mT), (..., T, S).

    A mask that broadcasts to (..., T, S) is True where a query may look, or numbers that are added to the scores; these
    may be learned, so their gradient comes through. Where a query may look at nothing, its weights are 0, and so is its
    gradient. The scale is 1 / sqrt(D) unless given. float16 is computed in float32; the weights have the query's
    dtype."""
    wide = np.result_type(query.dtype, np.float32)  # the scores may be too large for float16
    scores = (query.to(wide) * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.to(wide).mT
    if mask is None:
        return tt.softmax(scores, dim=-1).to(query.dtype)
    added = as_added(mask, wide)
    hidden = added == -np.inf
    hopeless = hidden.all(-1, keepdim=True)
    scores = (scores + added).masked_fill(hidden, -np.inf).masked_fill(hopeless, 0.0)
    return tt.cast(tt.masked_fill(tt.softmax(scores, dim=-1), hopeless, 0.0), dtype=query.dtype)


# Our check uses a mask with a row of each kind: some keys forbidden, all, and none.


def check_weights():
    query, key = tt.randn(2, 3, 4), tt.randn(2, 5, 4)
    mask = tt.tensor([[True, False, True, True, False], [False] * 5, [True] * 5])
    weights = attention_weights(query, key, mask).numpy()
    assert np.allclose(weights.sum(-1), [[1, 0, 1]] * 2) and (weights[..., ~mask.numpy()] == 0).all()


# This is how the causal mask acts on the weights of five random tokens. Row $t$ shows what token $t$ takes from each
# key.


def show_mask():
    """The causal mask is a triangle. With it, weights above the diagonal are zero, and the others share their part."""
    tt.manual_seed(1)
    (query, key), mask, names = tt.randn(2, 5, 8), causal_mask(5), list("abcde")
    pictures = [mask, attention_weights(query, key), attention_weights(query, key, mask)]
    titles = ["the mask", "weights without it", "weights with it"]
    return picture_of_weights([picture.numpy() for picture in pictures], titles, names, names)


# And this is how large the weights get if we leave out the division.


def show_scale():
    tt.manual_seed(0)
    for size in (4, 64, 1024):
        query, key = tt.randn(1000, 1, size), tt.randn(1000, 16, size)
        raw, divided = (attention_weights(query, key, scale=scale).max(-1)[0].mean().item() for scale in (1.0, None))
        print(f"D = {size:4d}: the largest of 16 weights is {raw:.2f} on average, divided by sqrt(D) {divided:.2f}")


# We now have all parts of the public function, with PyTorch's name and arguments. Dropout sets some of the weights to
# zero. It does so whenever `dropout_p` is above 0, because a function does not know whether a network trains.
# `checked_mask(query, key, value, attn_mask, is_causal)`, from `common`, rejects shapes that do not fit and returns the
# mask as a tensor, or None.
#
# If queries, keys and values have one shape, and nothing is masked or dropped, there is a way that needs less memory,
# which we build in *Without the square*. The course's function takes it. Yours need not: the numbers are the same, and
# nothing in this chapter relies on it.
#
# The last step is `weighted`, from `common` as well. It is a matrix product with one difference: a weight of 0 takes
# nothing. In the plain product, 0 times an infinite number is nan, and a single such value would spoil the results of
# all queries, even of those that may not look at it.


def scaled_dot_product_attention(  # exercise
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None,
) -> Tensor:
    """The mean of the values (..., S, Dv) for each query (..., T, D), weighed by `attention_weights`: (..., T, Dv).

    As torch's. attn_mask: True where a query may look, or numbers to add to the scores. is_causal: as if
    causal_mask(T, S) were given; not both. dropout_p: the probability with which a weight becomes 0. Raises ValueError
    for shapes that do not fit and for two masks, as `checked_mask` does."""
    mask = checked_mask(query, key, value, attn_mask, is_causal)
    if mask is None and not dropout_p and query.shape == key.shape == value.shape:
        return self_attention(tt.stack([query, key, value]), is_causal=is_causal, scale=scale)
    mask = causal_mask(query.shape[-2], key.shape[-2]) if is_causal else mask
    return weighted(tt.dropout(attention_weights(query, key, mask, scale), dropout_p), value)


# Now our loops become the witness.


def check_against_the_loops():
    query, key, value = np.random.default_rng(0).normal(size=(3, 2, 5, 4))
    found = scaled_dot_product_attention(from_numpy(query), from_numpy(key[:, :3]), from_numpy(value[:, :3]))
    assert np.allclose(found.numpy(), attention_by_loops(query, key[:, :3], value[:, :3]))


# Before you continue, predict. Take some queries (3, 4), keys (5, 4) and values (5, 6), and the result of their
# attention, (3, 6). Now change the inputs, each time in one of these ways:
#
# - `"pairs"`: put the keys into another order, and the values into the same one;
# - `"queries"`: put the queries into another order;
# - `"values"`: double every value;
# - `"keys"`: double every key;
# - `"shift"`: add one and the same vector to all keys.
#
# What happens to the result? Write your answers down before you try them out.


def predict_effects() -> dict[str, str]:  # exercise
    """For each of the five changes of the text, by its name: "same" if the result stays, "order" if its rows come in
    another order, "double" if every number doubles, and "other" if none of these is true for all inputs."""
    return {"pairs": "same", "queries": "order", "values": "double", "keys": "other", "shift": "same"}


# ## The dictionary, learned
#
# We return to the pairs. Three learned linear layers turn the question into a query and each pair into a key and a
# value. A fourth turns the result into logits.


class RecallByAttention(Recall):
    """Asks the pairs for the question's digit."""

    def __init__(self, width: int = 32):
        super().__init__(width)
        self.query, self.key, self.value = (Linear(width, width) for _ in range(3))
        self.head = Linear(width, DIGITS)

    def weights(self, pairs, question):
        """How much the question takes from each pair, (N, 1, pairs)."""
        return attention_weights(self.query(question), self.key(pairs))

    def answer(self, pairs, question):
        return self.head((self.weights(pairs, question) @ self.value(pairs))[:, 0])


# We train it and draw what it has learned. Each row is a question, and the colour shows how much it took from each of
# its pairs.


def show_recall():
    """Eight questions and their six pairs each: nearly all the weight is on the pair that has the question's letter."""
    tt.manual_seed(0)
    model = RecallByAttention()
    right = train_recall(model)
    ids, _ = pairs_and_questions(8)
    weights = model.weights(*model.vectors(ids)).detach().numpy()[:, 0]
    questions = [f"{chr(97 + row[-1])}?" for row in ids.numpy()]
    pairs = [[f"{chr(97 + letter)}{digit}" for letter, digit in zip(row[:-1:2], row[1::2])] for row in ids.numpy()]
    return picture_of_weights([weights], [f"{right:.1%} of the answers right"], questions, cells=pairs)


# We never told it to compare letters. The gradient found that the query and the key of one letter should have a large
# product, because then the right value comes through. It also found that the key should hide its digit and the value
# its letter, which the linear layers make possible. The same pair is one thing when a query searches for it, and
# another when we read its value.
#
# How does the gradient get through at first, when all weights are equal? Each value has some weight. If one of them
# would have helped, then more of it would have helped more, so its score should grow, and softmax passes that on to
# query and key, in proportion to the weight. A hard dictionary would have passed on nothing.

# ## Heads
#
# A text has more than one kind of question. A verb asks for its subject and for its object, and it finds the two by
# different marks. A single softmax would have to split its total weight of 1 between them and mix up what they say. So
# we cut the width $C$ into $H$ *heads* of $D = C / H$ numbers, and each head does its own attention on its part. This
# is *multi-head attention*: as many multiply-adds as before, and $H$ ways to look.
#
# We must cut the vectors and leave the tokens whole. The $C$ numbers of a token become $H$ rows of $D$, and then heads
# and tokens change places. (A `reshape` straight to `(H, T, D)` has the right shape and is wrong: it cuts the text into
# $H$ pieces instead and mixes tokens.)


def split_heads(x: Tensor, heads: int) -> Tensor:  # exercise
    """(..., T, C) -> (..., heads, T, C / heads), whatever dimensions are in front of T. Raises ValueError if the heads
    do not divide C, and for less than one head."""
    *front, width = x.shape
    if heads < 1 or width % heads:
        raise ValueError(f"{heads} heads do not divide {width} numbers; C % heads must be 0")
    return x.reshape(*front, heads, width // heads).transpose(-3, -2)


# When the heads have finished, we put their results back into one row for each token.


def merge_heads(x: Tensor) -> Tensor:  # exercise
    """(..., heads, T, D) -> (..., T, heads * D): the inverse of `split_heads`."""
    x = x.transpose(-3, -2)
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def check_heads():
    x = tt.randn(2, 5, 6)
    heads = split_heads(x, 3)
    assert heads.shape == (2, 3, 5, 2) and (heads[1, 2, 4] == x[1, 4, 4:]).all() and (merge_heads(heads) == x).all()


# ## The layer
#
# `MultiHeadAttention` owns two linear layers: one that computes queries, keys and values, and one that mixes the
# results of the heads. The first is a single matrix $(3C, C)$, whose rows belong to the queries, then to the keys, then
# to the values. In *self-attention*, where a text asks itself, we get all three from one product and keep them together
# in one tensor $(3, B, H, T, D)$, which costs nothing because it is a view. In *cross-attention* one text asks another,
# and we cut the matrix. (A translator works like that: the queries come from the translation so far, keys and values
# from the original.)
#
# The parameters have the names of PyTorch's layer, `torch.nn.MultiheadAttention`, so you can load its weights. The
# appendix *More attention* has a layer with all of PyTorch's arguments, `MultiheadAttention` with a small h. Ours has
# what chapter 14 needs. (`tt.xavier_uniform_` of chapter 04 fills a tensor with initial weights and returns it.)


class MultiHeadAttention(Module):
    """num_heads attentions side by side, each on its part of embed_dim numbers."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True):  # exercise
        """Keeps num_heads and dropout. With C = embed_dim, its parameters are in_proj_weight (3 C, C), drawn by
        `tt.xavier_uniform_`, and in_proj_bias (3 C,), zeros; its second layer is out_proj, a Linear. Without bias
        in_proj_bias is None, and out_proj has none either. Raises ValueError as `split_heads` does."""
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"{num_heads} heads do not divide {embed_dim} numbers; embed_dim % num_heads must be 0")
        self.num_heads, self.dropout = num_heads, dropout
        self.in_proj_weight = Parameter(tt.xavier_uniform_(tt.zeros(3 * embed_dim, embed_dim)))
        self.in_proj_bias = Parameter(tt.zeros(3 * embed_dim)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)

    # We begin with the projections, cut into heads.

    def projected(self, query, key, value):  # exercise
        """Queries, keys and values in heads: one tensor (3, B, heads, T, D) if all three are one text, the same object,
        otherwise a list of three (B, heads, T or S, D)."""
        if query is key is value:
            qkv = split_heads(linear(query, self.in_proj_weight, self.in_proj_bias), 3 * self.num_heads)
            return qkv.reshape(*query.shape[:-2], 3, self.num_heads, *qkv.shape[-2:]).transpose(0, -4)
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        parts = map(linear, (query, key, value), self.in_proj_weight.chunk(3), biases)
        return [split_heads(part, self.num_heads) for part in parts]

    # In `forward` we project, attend, merge the heads, and project again. If `projected` has stacked its results, we
    # pass them to `self_attention(qkv, mask, dropout_p, is_causal)`, from *Without the square*; a list goes to
    # `scaled_dot_product_attention`. Dropout acts in training only, and `self.training` (chapter 04) says whether we
    # are training.

    def forward(self, query, key, value, mask=None, is_causal=False):  # exercise
        """What queries (B, T, C) find among keys and values (B, S, C); a mask broadcasts to (B, heads, T, S). In
        training, weights are dropped with the probability `dropout`. ValueError for a mask and is_causal together."""
        qkv, dropout_p = self.projected(query, key, value), self.dropout if self.training else 0.0
        if query is key is value:
            found = self_attention(qkv, mask, dropout_p, is_causal)
        else:
            found = scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], mask, dropout_p, is_causal)
        return self.out_proj(merge_heads(found))

    # This way never needs all of the weights at once, so it does not return them. If you want to see them, ask:

    def weights(self, query, key, mask=None):
        """How much each query takes from each key in each head, (B, heads, T, S)."""
        q, k, _ = self.projected(query, key, key)
        return attention_weights(q, k, mask)


# Two properties must hold for every text. No token sees what comes after it: whatever we change in token 3, the results
# for tokens 0 to 2 stay the same. And padding counts as if it were not there.


def check_causality_and_padding():
    layer, x = MultiHeadAttention(8, 2), tt.randn(1, 5, 8)
    changed = tt.cat([x[:, :3], tt.randn(1, 2, 8)], 1)
    one, other = (layer(t, t, t, is_causal=True).detach().numpy() for t in (x, changed))
    assert np.allclose(one[:, :3], other[:, :3], atol=1e-6) and not np.allclose(one[:, 3:], other[:, 3:], atol=1e-3)
    padded, short = layer(x, x, x, tt.tensor([True, True, True, False, False])), layer(*[x[:, :3]] * 3)
    assert np.allclose(padded[:, :3].detach().numpy(), short.detach().numpy(), atol=1e-6)


# ## What heads look at
#
# We let a layer read characters of the first chapter of *Moby-Dick* and predict, at each of them, the next one. We need
# a table, learned positions, one layer of causal attention with four heads, and logits.


class Reader(Module):
    """One layer of causal attention: ids (B, T) -> logits (B, vocabulary, T) for the token after each."""

    def __init__(self, vocabulary: int, width: int = 64, heads: int = 4, length: int = 32):
        super().__init__()
        self.table, self.positions = Embedding(vocabulary, width), LearnedPositions(length, width)
        self.look, self.head = MultiHeadAttention(width, heads), Linear(width, vocabulary)

    def forward(self, ids):
        x = self.positions(self.table(ids))
        return self.head(self.look(x, x, x, is_causal=True)).transpose(1, 2)


# We train it on windows of 32 characters, whose targets are the same windows one character later. We keep the last
# tenth of the text for the validation.


def train_reader(epochs: int = 6, width: int = 64) -> tuple[CharTokenizer, Reader, list[float]]:
    """The tokenizer, a trained Reader, and its loss on the last tenth of the text after each epoch."""
    tokenizer, length = CharTokenizer.train(text := short_text()), 32
    windows = np.lib.stride_tricks.sliding_window_view(np.array(tokenizer.encode(text)), length + 1)[::8]
    x, y, cut = from_numpy(windows[:, :-1].copy()), from_numpy(windows[:, 1:].copy()), len(windows) * 9 // 10
    training, validation = Batches(x[:cut], y[:cut], 32, shuffle=True), Batches(x[cut + 4 :], y[cut + 4 :], 64)
    model = Reader(tokenizer.vocab_size, width)
    optimizer = Adam(model.parameters(), lr=3e-3)
    history = fit(model, cross_entropy, optimizer, training, epochs=epochs, validation=validation, progress=False)
    return tokenizer, model, history["val_loss"]


# What does each head look at?


def show_heads():
    """The weights of four heads on one sentence: lower triangles, some along the diagonal, others in columns."""
    tt.manual_seed(0)
    tokenizer, model, _ = train_reader()
    text = "Call me Ishmael. Some"
    x = model.positions(model.table(tt.tensor([tokenizer.encode(text)])))
    weights = model.look.weights(x, x, causal_mask(len(text))).detach().numpy()[0]
    return picture_of_weights(weights, [f"head {head}" for head in range(4)], list(text), list(text))


# A row is a token that looks, a column one that it may look at, and above the diagonal there is nothing. The heads have
# divided the work: some look mostly at the token itself or the one just before it, others prefer certain characters
# wherever they are.

# ## The cost
#
# Every token looks at every other, so for each head we compute $T^2$ scores, each a product of two vectors of $D$
# numbers, and weighing the values costs as much again. With $C = H D$ that makes $2 B T^2 C$ multiply-adds. The scores
# and weights themselves are $B H T^2$ numbers, and we must keep them, because the backward pass needs them again.


def attention_cost(batch: int, heads: int, length: int, size: int) -> tuple[int, int]:  # exercise
    """The multiply-adds of the two products in the attention of (batch, heads, length, size) queries, keys and values,
    and the bytes of its weights in float32."""
    return 2 * batch * heads * length**2 * size, 4 * batch * heads * length**2


# `cost_table` (from the support module `shows`) counts and measures, and prints the formula beside it.


def show_cost():
    cost_table(lambda q, k, v: attention_weights(q, k) @ v, attention_cost)


# If we double the length, everything quadruples. For short texts that is nothing beside the linear layers, which cost
# $4 T C^2$; at $T = 2C$ the two are equal. But memory hurts first: the peak is a few times the weights.
#
# ## Without the square
#
# A batch multiplies all of that by its texts, and a network by its layers, whose weights wait together for the backward
# pass. We cannot avoid the arithmetic. But we never need all of the weights *at once*, because the result for a query
# needs only one row of them. So we take the queries in blocks, 64 at a time, compute their scores with all keys, their
# weights and their results, and forget the weights. For the backward pass we compute them again. The time that this
# takes is the price for not keeping them. (Taking the keys in blocks, too, is the idea of *FlashAttention*: T. Dao et
# al., 2022.)
#
# With a causal mask there is a second gain. A block of queries needs only the keys up to its own end, so we skip nearly
# half of the work. Only in the block on the diagonal must we mask anything.
#
# Both passes need the blocks, so we write a generator that makes them, on arrays. All texts and heads are dimensions in
# front and come along.

QUERIES = 64  # in a block


def weights_in_blocks(q, k, is_causal, scale):  # exercise (starred)
    """For each block of at most QUERIES queries, of arrays q and k (..., T, D): the slice of its rows, the slice of the
    keys that they see, and their weights (..., rows, keys). With is_causal a block has no keys after its end."""
    length = q.shape[-2]
    for start in range(0, length, QUERIES):
        stop = min(start + QUERIES, length)
        rows, keys = slice(start, stop), slice(0, stop if is_causal else length)
        weights = (q[..., rows, :] * scale) @ k[..., keys, :].swapaxes(-2, -1)
        if is_causal:
            weights = np.where(np.tri(stop - start, stop, start, dtype=bool), weights, -np.inf)
        weights = np.exp(weights - weights.max(-1, keepdims=True))
        yield rows, keys, weights / weights.sum(-1, keepdims=True)


# Our primitive takes queries, keys and values stacked in one tensor $(3, \dots, T, D)$, because their three gradients
# need the same weights and we compute them together. It widens `float16`, whose scores may overflow. `product` is
# `weighted` on arrays. As for its cost: under a causal mask a block sees, on average, half of the text and half a block
# more.


def _cost(out, qkv, is_causal, scale):
    length = out.shape[-2]
    return out.size * (length + (min(QUERIES, length) if is_causal else length))


@primitive(cost=_cost)
def attention_in_blocks(qkv, /, is_causal, scale):
    """softmax(scale * q @ k.mT) @ v for qkv (3, ..., T, D): (..., T, D). With is_causal no query looks ahead."""
    out, (q, k, v) = np.empty_like(qkv[0]), qkv.astype(np.result_type(qkv.dtype, np.float32), copy=False)
    with tt.quiet():
        for rows, keys, weights in weights_in_blocks(q, k, is_causal, scale):
            out[..., rows, :] = product(weights, v[..., keys, :])
    return out


# `self_attention` uses it unless there is a mask or dropout.


def self_attention(
    qkv: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """scaled_dot_product_attention of queries, keys and values that are stacked in one tensor (3, ..., T, D)."""
    refuse_unstacked(qkv)
    if attn_mask is None and not dropout_p:
        return attention_in_blocks(qkv, is_causal=is_causal, scale=qkv.shape[-1] ** -0.5 if scale is None else scale)
    return scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask, dropout_p, is_causal, scale)


# We compare a text of two blocks and a bit with all weights at once:


def check_blocks():
    qkv = tt.randn(3, 2, 130, 8)
    for is_causal in (False, True):
        weights = attention_weights(qkv[0], qkv[1], causal_mask(130) if is_causal else None)
        assert np.allclose(self_attention(qkv, is_causal=is_causal).numpy(), (weights @ qkv[2]).numpy(), atol=1e-5)


# The gradient we derive on paper. Let $S = c\,Q K^T$ be the scores with scale $c$, $P$ their softmax by rows, and $O =
# P V$ the result. We write $\bar X$ for the gradient of the loss with respect to $X$, and $G = \bar O$ arrives. For a
# matrix product chapter 07 has the rule, and we use it twice:
#
# $$ O = P V \;\Rightarrow\; \bar V = P^T G, \quad \bar P = G V^T, \qquad\quad S = c\,Q K^T \;\Rightarrow\; \bar Q = c
# \, \bar S K, \quad \bar K = c \, \bar S^T Q . $$
#
# Between the two is softmax. In a row, every weight depends on every score. From $P_k = e^{S_k} / \sum_m e^{S_m}$ we
# get
#
# $$ \frac{\partial P_k}{\partial S_j} = P_k \left(\delta_{kj} - P_j\right), \qquad \bar S_j = \sum_k \bar P_k \, P_k
# \left(\delta_{kj} - P_j\right) = P_j \Bigl(\bar P_j - \sum_k \bar P_k P_k\Bigr) . $$
#
# For all rows together this reads $\bar S = P \circ (\bar P - \operatorname{rowsum}(\bar P \circ P))$. You can check
# its plausibility: the elements of a row of $\bar S$ add up to zero, as they must, because adding a constant to all
# scores of a row changes nothing.
#
# If a key is hidden from a query, its weight is 0, and then nothing may come of it, even if the key is infinite or nan.
# `choose` and `weighted` take care of that. The operations below work on arrays and on tensors.


def attention_vjp(g, weights, q, k, v, scale):  # exercise (starred)
    """The gradients of queries, keys and values, by the formula, where g arrived for softmax(scale * q @ k.mT) @ v and
    the softmax is `weights`. On arrays or on tensors. Nothing comes of a key whose weight is 0, not even of nan."""
    hidden, nothing = weights == 0, weights * 0
    of_weights = tt.choose(hidden, nothing, g @ v.mT)
    of_scores = weights * (of_weights - tt.sum(of_weights * weights, -1, keepdim=True)) * scale
    of_scores = tt.choose(hidden, nothing, of_scores)
    return weighted(of_scores, k), weighted(of_scores.mT, q), weighted(weights.mT, g)


# The rules of chapter 07, which know nothing of our formula, must give the same gradients.


def check_the_formula():
    random = np.random.default_rng(0)
    q, k, v = (Tensor(x, requires_grad=True) for x in random.normal(size=(3, 5, 4)))
    weights, g = attention_weights(q, k, causal_mask(5), scale=0.5), Tensor(random.normal(size=(5, 4)))
    by_rules = grad((weights @ v * g).sum(), [q, k, v])
    by_formula = attention_vjp(g, weights, q, k, v, scale=0.5)
    assert all(np.allclose(a.detach().numpy(), b.numpy()) for a, b in zip(by_formula, by_rules))


# An ordinary backward pass computes the weights again, block by block. A query belongs to one block, but its keys and
# values receive gradients from many, which we add up. If `g` is a tensor, the caller wants the derivative of a
# derivative, and we compute all weights at once.


def _gradient(g, out, qkv, is_causal, scale):
    if not isinstance(g, np.ndarray):
        weights = attention_weights(qkv[0], qkv[1], causal_mask(qkv.shape[-2]) if is_causal else None, scale)
        return tt.stack(attention_vjp(g, weights, qkv[0], qkv[1], qkv[2], scale))
    wide = np.result_type(qkv.dtype, np.float32)
    (q, k, v), g, total = qkv.astype(wide, copy=False), g.astype(wide, copy=False), np.zeros_like(qkv, wide)
    for rows, keys, weights in weights_in_blocks(q, k, is_causal, scale):
        found = attention_vjp(g[..., rows, :], weights, q[..., rows, :], k[..., keys, :], v[..., keys, :], scale)
        for gradient, part, of_block in zip(total, (rows, keys, keys), found):
            gradient[..., part, :] += of_block
    return total.astype(qkv.dtype, copy=False)


rule(attention_in_blocks, _gradient)


def check_gradients_of_attention():
    qkv = Tensor(np.random.default_rng(0).normal(size=(3, 2, 4, 3)), requires_grad=True)
    for is_causal in (False, True):
        check_gradients(lambda x: self_attention(x, is_causal=is_causal) ** 2, qkv)


# Here is the same table again. The square is gone from the memory, but it remains in the time.


def show_blocks():
    cost_table(lambda q, k, v: self_attention(tt.stack([q, k, v])), attention_cost)


# ## Errors you will meet


def show_errors():
    x, layer = tt.zeros(2, 5, 8), MultiHeadAttention(8, 2)
    for attempt in (
        lambda: MultiHeadAttention(8, 3), lambda: layer(x, tt.zeros(2, 5, 6), x), lambda: layer(x, x, x[:, :4]),
        lambda: layer(x, x, x, tt.ones(5, 4).bool()), lambda: layer(x, x, x, causal_mask(5), is_causal=True),
    ):
        try:
            attempt()
        except ValueError as error:
            print(f"ValueError: {error}")


# ## Exercises
#
# Besides the exercises in the text:
#
# 1. `window_mask`: a causal mask in which a token sees only the last `window` tokens, including itself. What does the
#    formula of the cost become?
# 2. Give `Reader` the same position for every token. Which head can no longer do its work, and what happens to the
#    loss?
# 3. Take the $\sqrt D$ out of `RecallByAttention` (`scale=1.0`), with a width of 512. How many epochs does it need now?


def window_mask(length: int, window: int) -> Tensor:  # exercise (starred)
    """(length, length): True where a query may look at itself and at the window - 1 keys before it."""
    back = np.arange(length)[:, None] - np.arange(length)
    return from_numpy((back >= 0) & (back < window))


def check_window_mask():
    assert (window_mask(5, 5) == causal_mask(5)).all() and window_mask(5, 2).sum().item() == 9


# ## A road not taken
#
# PyTorch hides several kernels behind one name: `scaled_dot_product_attention` chooses among FlashAttention, a
# memory-efficient kernel and plain products, by shapes and hardware, and only the profiler shows you which one it was.
# JAX leaves the choice to the compiler, and offers `jax.nn.dot_product_attention` if you know better. tinygrad
# multiplies, masks and multiplies. Other layers avoid the square: *linear attention* replaces the softmax by a product
# of functions, and S4 and Mamba replace attention itself by a state that they carry along. They cost $O(T)$, and recall
# `a3 c7` less well.

# ## What hurts next
#
# `Reader` predicts the next character. We let it learn for longer, let it be wider, and watch its loss on the text that
# it has not seen.


def show_plateau():
    for width in (32, 128):
        tt.manual_seed(0)
        _, _, losses = train_reader(6, width)
        print(f"{width:3d} wide, nats a character after each epoch: " + " ".join(f"{loss:.2f}" for loss in losses))


# Four times the width brings less than a tenth of a nat, and more epochs bring little or do harm. One layer of
# attention looks once, at what is there; it cannot look again, at what it has found. What can we put on top of it, so
# that the second look is better than the first? That is the subject of chapter 14, *Transformers*.

__all__ = [
    "MultiHeadAttention", "Reader", "RecallByAttention", "RecallBySum", "attention_by_loops", "attention_cost",
    "attention_in_blocks", "attention_vjp", "attention_weights", "causal_mask", "merge_heads", "pairs_and_questions",
    "scaled_dot_product_attention", "self_attention", "split_heads", "train_reader", "train_recall", "window_mask",
]
