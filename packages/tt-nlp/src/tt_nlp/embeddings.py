# # Embeddings
#
# At the end of this chapter we represent a token by a row of learned numbers, so that tokens with similar uses end up
# close to each other. We can also write into the row where in the text the token is.

# ## The hurt
#
# Chapter 11 turned text into ids. An id is a name, not a quantity: token 17 comes after token 16 because it was found
# later, and not because there is more of it. So our network must not compute with the id itself. The honest way to pass
# names to a network is *one-hot encoding*: one input for each token of the vocabulary, 1 for the token that is there
# and 0 for all others. How far apart are tokens then?

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

import tt_tensor as tt
from tt_tensor.tensor import pairwise_distances
from tt_autograd import Batches, accuracy, check_gradients, fit, grad, rule
from tt_data import short_text
from tt_nlp.common import refuse_ids
from tt_nlp.tokenization import CharTokenizer
from tt_optim import Adam
from tt_tensor import Linear, Module, Parameter, Tensor, cross_entropy, from_numpy, primitive, tensor


def show_hurt():
    vocabulary = 50_257  # GPT-2's
    rows = tt.one_hot(tensor([17, 18, 900]), vocabulary)
    apart = pairwise_distances(rows.float(), rows.float())
    print(f"from token 17 to token 18: {apart[0, 1].item():.4f}, to token 900: {apart[0, 2].item():.4f}")
    print(f"bytes for one token as float32: {4 * vocabulary:,d}, of which {4 * (vocabulary - 1):,d} are zeros")


# Token 17 is no nearer to 18 than to 900, because every token is equally far from every other. Whatever our network
# finds out about *cat*, it must find out again about *kitten*, and we carry two hundred thousand bytes for each of
# them.
#
# Instead, we would like to give each token a place on a map of as many dimensions as needed. On that map *cat* would be
# next to *kitten*, and a step that the network learns to take from *cat* would lead to the same
# neighbourhood from *kitten*. We cannot draw such a map by hand, so we learn it by the same means as everything else.

# ## The smallest thing that could work
#
# A linear layer takes care of both problems. We let it turn the long row of zeros into a short row of numbers, the
# *embedding* of the token. Its weights are learned as all weights are, and if it helps to have two tokens close
# together, the gradient moves them there.


def by_one_hot(ids: Tensor, weight: Tensor) -> Tensor:
    """The product of each id's one-hot row with weight (V, C): ids (...) -> (..., C)."""
    return tt.one_hot(ids, len(weight)).to(weight.dtype) @ weight


# It runs and it learns, but let us count its multiplications to see what we pay.


def show_one_hot():
    ids, weight = tt.randint(0, 50_257, (64,)), tt.randn(50_257, 64)
    with tt.meter() as meter:
        by_one_hot(ids, weight)
    print(f"{meter.multiply_adds['matmul']:,d} multiply-adds, all but {64 * 64:,d} of them by zero")
    print(f"{tt.measure(by_one_hot, ids, weight).seconds * 1e3:.1f} ms for 64 tokens")


# ## The idea
#
# What does such a product compute? Row $i$ of the matrix times 1, plus all other rows times 0:
#
# $$ \begin{pmatrix} 0 & 1 & 0 \end{pmatrix} \begin{pmatrix} w_{00} & w_{01} \\ w_{10} & w_{11} \\ w_{20} & w_{21}
# \end{pmatrix} = \begin{pmatrix} w_{10} & w_{11} \end{pmatrix} . $$
#
# The result is row $i$. So we need not multiply: we *look it up*. The matrix is a table with a row for each token, and
# the whole layer is an index into it.
#
# Nothing else changes. The table is still the weight of a linear layer, and whatever is true of such a weight is true
# of it. It is a parameter, it has a gradient, and an optimizer updates it. We may forget that its inputs were one-hot
# rows.

# ## Looking up
#
# We write the look-up as a primitive of two tensors: the ids, which have no gradient, and the table. (`padding_idx`
# comes later.) NumPy would silently take id $-1$ as the last row. For us a wrong id is a mistake, so we call
# `refuse_ids`, which reports it with its value. It takes the ids, the number of rows, and the `padding_idx`, which must
# be a row, too.


@primitive(cost=lambda out, ids, weight, **params: 0)
def embedding(ids, weight, /, padding_idx=None):  # exercise
    """Row ids[...] of weight (V, C) for each id: (..., C). Row padding_idx, 0 to V - 1, gets no gradient. As
    torch.nn.functional.embedding.

    Raises TypeError for ids that are not integers and IndexError for an id that has no row."""
    refuse_ids(ids, len(weight), padding_idx)
    return weight[ids]


def check_embedding():
    ids, weight = tensor([[2, 0], [2, 2]]), tt.randn(3, 4)
    assert np.allclose(embedding(ids, weight).numpy(), by_one_hot(ids, weight).numpy())


# The *vector-Jacobian product* of a look-up is the transposed product, and we do not write that as a product either. A
# row of the table that we looked up once receives the gradient of the position where it went. A row that we looked up
# *three* times, because the token is in the text three times, answers for three positions, so its gradient is the *sum*
# of theirs.
#
# You might try `table[ids] += g` in NumPy, but that is wrong. For ids `[3, 3]` it reads row 3 twice, adds, and writes
# twice, so the second result overwrites the first. A loop over the positions is right but slow. `np.add.at` is that
# loop inside NumPy, still element by element. Sorting is faster: once all positions of an id are next to each other, we
# sum a slice, and an id that occurs once needs no sum. (The course's own `add_rows` sums in `float64`, because a
# frequent token has thousands of positions, whose rounding errors would add up as well.)


@primitive(cost=lambda out, ids, g, **params: g.size)
def add_rows(ids, g, /, rows):  # exercise
    """A table (rows, C) of zeros, to whose row ids[...] each vector g[...] has been added: ids of any shape, and g
    (*ids.shape, C), whose dtype the table has. There may be no ids at all. Takes arrays, as all primitives do."""
    ids, g = ids.ravel(), g.reshape(ids.size, g.shape[-1])
    order = np.argsort(ids, kind="stable")
    ids, g = ids[order], g[order]
    starts = np.flatnonzero(np.diff(ids, prepend=-1))  # where another id begins
    stops, table = np.append(starts[1:], len(ids)), np.zeros((rows, g.shape[1]), g.dtype)
    table[ids[starts]] = g[starts]
    repeated = stops - starts > 1
    for start, stop in zip(starts[repeated], stops[repeated]):
        table[ids[start]] = g[start:stop].sum(0, dtype=np.float64)
    return table


# `embedding` takes rows out of a table and `add_rows` puts them back. Each is the transpose of the other, so each
# appears in the other's rule, and we get second derivatives without further work.
#
# We still owe you `padding_idx`. Sentences in a batch have different lengths, so we fill up the short ones with
# *padding*, a token that means nothing. Its row should stay as it is (usually zeros), so we add nothing to it. Where
# the id is the padding's, `tt.choose(condition, a, b)` can put a zero in the place of g. Multiplying by 0 would not do,
# because 0 times infinity is nan.


def _table_vjp(g, out, ids, weight, padding_idx=None):  # exercise
    """The gradient of the table in a look-up, by `add_rows`, from the gradient g (*ids.shape, C) of the vectors. Row
    padding_idx, if that is not None, is zero, even if g is infinite or nan there. Must work on arrays and on tensors,
    since a rule is called with both."""
    if padding_idx is not None:
        g = tt.choose((ids == padding_idx)[..., None], np.zeros((), g.dtype), g)
    return add_rows(ids, g, rows=len(weight))


rule(embedding, None, _table_vjp)
rule(add_rows, None, lambda h, out, ids, g, rows: embedding(ids, h))


def check_repeated_ids():
    table = tt.zeros(5, 2, requires_grad=True)
    embedding(tensor([3, 3, 1, 0]), table, padding_idx=0).sum().backward()
    assert table.grad.tolist() == [[0, 0], [1, 1], [0, 0], [2, 2], [0, 0]]


# We looked up row 3 twice, so it receives two gradients. Row 0 is the padding and receives none, and rows 2 and 4 did
# not occur.
#
# Our witness differentiates numerically. We also have a second witness: the gradient of the one-hot product comes from
# the rule of `matmul`, which knows nothing about tables.


def check_gradient_of_the_table():
    weight = Tensor(np.random.default_rng(0).normal(size=(4, 3)), requires_grad=True)
    ids = tensor([[1, 1, 3], [0, 1, 3]])
    check_gradients(lambda w: embedding(ids, w) ** 3, weight)
    ours, theirs = (grad((f(ids, weight) ** 3).sum(), weight)[0] for f in (embedding, by_one_hot))
    assert np.allclose(ours.numpy(), theirs.numpy())


# ## The layer
#
# Our module owns a table. As in PyTorch, we draw new rows from the normal distribution. We need not scale them by a
# fan-in, because the layer sums nothing.


class Embedding(Module):
    """A table of num_embeddings learned vectors: ids (...) -> (..., embedding_dim). As torch.nn.Embedding.

    The vector of padding_idx starts at zero and is never trained; a negative one counts from the end."""

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None):
        super().__init__()
        if num_embeddings < 1 or embedding_dim < 1:
            raise ValueError(
                f"Embedding needs at least one row of one number, not {num_embeddings} of {embedding_dim}"
            )
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"padding_idx {padding_idx} is not one of the {num_embeddings} rows")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight = Parameter(tt.zeros(num_embeddings, embedding_dim))
        self.reset_parameters()

    # The row of the padding starts at zero.

    def reset_parameters(self) -> None:
        """Draw all vectors anew from the normal distribution, and set that of padding_idx to zero."""
        rows = tt.randn(self.num_embeddings, self.embedding_dim).numpy().copy()
        if self.padding_idx is not None:
            rows[self.padding_idx] = 0
        self.weight.copy_(rows)

    def forward(self, ids: Tensor) -> Tensor:
        """The vector of each id."""
        return embedding(ids, self.weight, padding_idx=self.padding_idx)

    def extra_repr(self):
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings} rows of {self.embedding_dim}{padding}"


# What does all this cost? Work it out before you let the machine measure it. We send a batch of ids `(8, 16)` through a
# table `(1000, 32)` of `float32`, once by the one-hot product and once by looking up, and then go backward. Remember
# that a gradient has the shape of the tensor that it belongs to.


def predict_costs() -> dict[str, int]:  # exercise
    """Your predictions for ids (8, 16) and a table (1000, 32) of float32, as a dict of three integers: "multiply_adds"
    of `by_one_hot`, "bytes_out", the bytes of the vectors that `embedding` returns, and "bytes_grad", the bytes of the
    table's gradient after `backward`."""
    return {"multiply_adds": 8 * 16 * 1000 * 32, "bytes_out": 8 * 16 * 32 * 4, "bytes_grad": 1000 * 32 * 4}


# How much does the sorting gain? In texts a few tokens are frequent and most are rare, so we draw our tokens like that.


def show_gradients():
    ids = np.minimum(np.random.default_rng(0).zipf(1.3, 8192), 4096) - 1
    g = np.ones((8192, 128), np.float32)
    ways = {
        "one-hot product": lambda: (np.arange(4096)[:, None] == ids).astype(np.float32) @ g,
        "np.add.at": lambda: np.add.at(np.zeros((4096, 128), np.float32), ids, g),
        "sorted": lambda: add_rows(ids, g, rows=4096),
    }
    print(f"gradient of 8,192 tokens, {len(set(ids.tolist()))} different ones, for a table (4096, 128)")
    for name, way in ways.items():
        print(f"{name:15s} {tt.measure(way).seconds * 1e3:8.2f} ms")


# ## What is learned
#
# The meaning of a token is how it is used. So we show a network how a token is used and let it find the token. It sees
# the two characters to the left of a gap and the two to its right, and predicts the missing one. (For words this is
# known as *word2vec*: T. Mikolov et al., 2013.) Our text is the first chapter of *Moby-Dick*. It is short, so our
# tokens are characters.
#
# Why should tokens with similar uses end up close to each other? Suppose that after *th* both *e* and *a* are frequent.
# Whenever the network sees *th* and the answer is *e*, the gradient pulls the vector of *e* towards the network's
# output for *th*. If the answer is *a*, it pulls *a* to the same place. Two tokens that fill the same gaps are pulled
# in the same directions again and again. Two tokens that never do have no reason to meet.
#
# We need no labels written by hand, because the text itself is full of questions and has all the answers. This is
# *self-supervised* learning: each position with two neighbours on either side asks one question.


def questions(ids: Sequence[int]) -> tuple[Tensor, Tensor]:  # exercise
    """All gaps of a text of at least five ids, as integer tensors: the four neighbours of each position that has two to
    the left and two to the right, in their order, (N, 4), and its own id, (N,)."""
    windows = np.lib.stride_tricks.sliding_window_view(np.array(ids), 5)
    return from_numpy(windows[:, [0, 1, 3, 4]].copy()), from_numpy(windows[:, 2].copy())


def check_questions():
    x, y = questions([7, 8, 9, 10, 11, 12])
    assert x.tolist() == [[7, 8, 10, 11], [8, 9, 11, 12]] and y.tolist() == [9, 10]


def gaps() -> tuple[CharTokenizer, Tensor, Tensor]:
    """The tokenizer of the embedded text, and its `questions`: neighbours (N, 4) and tokens (N,)."""
    text = short_text()
    tokenizer = CharTokenizer.train(text)
    return tokenizer, *questions(tokenizer.encode(text))


# Our network is as small as can be. A linear layer mixes four vectors side by side into one. Another linear layer has a
# row for each token and compares the vector with it. That last matrix has the shape of the table and a similar purpose,
# a row for each token. So why not use *the same* matrix? Then whatever the network learns about a token as a neighbour,
# it also knows about it as an answer. This is called *weight tying* (O. Press and L. Wolf, 2016), and GPT-2 does it. It
# takes one line, because a parameter may belong to two modules: we give the head the table's parameter itself, not a
# copy.
#
# We make the initial vectors small, a tenth of what `Embedding` draws, so that what we see after the training was
# learned and not drawn.


class FillTheGap(Module):
    """Four neighbours' ids (N, 4) -> logits (N, vocabulary) for the token between them."""

    def __init__(self, vocabulary: int, width: int = 16, tied: bool = True):  # exercise
        """The layers that `forward` uses: `table`, an Embedding of `width` numbers a token, divided by ten; `mix`, a
        Linear from four vectors to one; `head`, a Linear from a vector to a logit for each token. If tied, the head's
        weight is the table's."""
        super().__init__()
        self.table, self.mix = Embedding(vocabulary, width), Linear(4 * width, width)
        self.head = Linear(width, vocabulary)
        self.table.weight.copy_(self.table.weight.numpy() * 0.1)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, ids):
        return self.head(self.mix(self.table(ids).flatten(1)))


# We train it on nine tenths of the questions and keep the last tenth for validation.


def train_gap_filler(tied: bool = True, epochs: int = 8) -> tuple[CharTokenizer, FillTheGap, dict]:
    """The tokenizer, a trained network, and its history on nine tenths of the text and the last tenth."""
    tokenizer, x, y = gaps()
    cut = len(x) * 9 // 10
    model = FillTheGap(tokenizer.vocab_size, tied=tied)
    history = fit(
        model, cross_entropy, Adam(model.parameters(), lr=3e-3), Batches(x[:cut], y[:cut], 64, shuffle=True),
        epochs=epochs, validation=Batches(x[cut:], y[cut:], 512), metrics=[accuracy], progress=False,
    )
    return tokenizer, model, history


# The gradient of a tied table is the sum of the gradients from both of its uses, and the backward pass of chapter 07
# adds them up by itself.


def show_tying():
    for tied in (False, True):
        tt.manual_seed(0)
        _, model, history = train_gap_filler(tied)
        count = sum(p.numel() for p in model.parameters())
        print(
            f"{'tied' if tied else 'apart':6s} {count:5,d} parameters, held-out loss {history['val_loss'][-1]:.3f}, "
            f"{history['val_accuracy'][-1]:.1%} of the gaps filled"
        )


# We have removed a third of the parameters, and the loss is about the same.
#
# Now we look at the table. How similar are two tokens? The distance of their vectors will not do, because a frequent
# token is pulled more often and has a longer vector than a rare one. Instead we take the cosine of the angle between
# the vectors, the *cosine similarity*, which does not depend on their lengths. It is 1 for the same direction, 0 for
# directions that have nothing to do with each other, and $-1$ for opposite ones. If we scale each row to length 1, the
# cosine of two rows is their product. A row of zeros has no direction. We divide it by a tiny number instead of by its
# length 0, and it stays zero.


def nearest(weight: Tensor, token: int, count: int) -> list[tuple[int, float]]:  # exercise
    """The `count` rows of weight (V, C) with the greatest cosine to row `token`, itself left out: a list of pairs (row,
    cosine), int and float, the nearest first. A row of zeros has the cosine 0 with all. IndexError for a token
    that has no row; `refuse_ids` takes an array."""
    refuse_ids(np.asarray(token), len(weight))
    rows = weight.numpy().astype(np.float64)
    rows /= np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)  # or small squares vanish
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    cosines = rows @ rows[token]
    order = np.argsort(-cosines, kind="stable")
    return [(int(row), float(cosines[row])) for row in order if row != token][:count]


# Let us print the nearest neighbours of a few characters. We never told the network what a vowel is, or that a comma is
# like a semicolon.


def show_neighbours():
    tt.manual_seed(0)
    tokenizer, model, _ = train_gap_filler()
    often = np.flatnonzero(np.bincount(tokenizer.encode(short_text())) > 20)
    table = model.table.weight[often]
    for character in "aem,.":
        token = often.tolist().index(tokenizer.encode(character)[0])
        found = nearest(table, token, 5)
        print(repr(character), "  ".join(f"{tokenizer.decode([often[row]])!r} {cosine:.2f}" for row, cosine in found))


# We cannot expect more from twelve thousand characters. It takes billions of words until *king* less *man* plus *woman*
# comes out near *queen*, the result that made such tables famous. The principle is the one that you have just seen.
#
# To look at all tokens at once, we need to turn sixteen dimensions into two. The two directions along which the vectors
# differ most keep as much of their variance as a plane can keep. They are the first two *principal components*, and we
# find them as the first two right singular vectors of the centred table.


def in_a_plane(vectors: np.ndarray) -> np.ndarray:  # exercise (starred)
    """The coordinates (N, 2) of vectors (N, C), less their mean, along their first two principal components."""
    centred = vectors - vectors.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:2].T


def show_map():
    """The learned vectors of characters in a plane: vowels are near each other, and so are punctuation marks."""
    import matplotlib.pyplot as plt

    tt.manual_seed(0)
    tokenizer, model, _ = train_gap_filler()
    often = np.flatnonzero(np.bincount(tokenizer.encode(short_text())) > 20)
    figure, axis = plt.subplots(figsize=(6, 4.2))
    for token, (x, y) in zip(often.tolist(), in_a_plane(model.table.weight.numpy()[often])):
        character = tokenizer.decode([token])
        colour = "tab:red" if character.lower() in "aeiou" else "tab:blue" if character.isalpha() else "tab:green"
        axis.plot(x, y, ".", color=colour, alpha=0.2)
        axis.annotate(repr(character).strip("'"), (x, y), color=colour, ha="center", va="center")
    axis.set(xticks=[], yticks=[], title="red: vowels, green: no letters")
    return figure


# ## Where it stands
#
# A token's vector describes what the token is, but not where it is. Our network above knew the positions, because each
# of the four had its own columns in `mix`. That does not scale: a thousand positions would need a thousand times the
# weights. If all positions share their weights, we must write the position into the vector. So we *add* something to
# the vector that depends only on the position, a *positional encoding*.
#
# Do we lose anything by adding? Two vectors can be told apart in their sum if their directions differ, and a few
# hundred dimensions leave room for that. The network can learn to keep positions in some of the dimensions and tokens
# in the others.
#
# The simplest choice is a second table, with a learned row for each position. GPT-2 does that. It knows only as many
# positions as it has rows, and it is unreliable at positions that training rarely reached.


class LearnedPositions(Module):
    """A learned vector for each of `length` positions, added to x (..., T, dim) with T up to `length`."""

    def __init__(self, length: int, dim: int):
        super().__init__()
        self.weight = Embedding(length, dim).weight

    def forward(self, x):
        """x plus the vector of each position."""
        if x.ndim < 2 or x.shape[-1] != self.weight.shape[1]:
            raise ValueError(f"positions of {self.weight.shape[1]} numbers do not fit an input of shape {x.shape}")
        if x.shape[-2:-1] > (len(self.weight),):
            raise ValueError(
                f"{x.shape[-2]} tokens, but there are positions for {len(self.weight)} only: shorten the input, or "
                "make the table longer"
            )
        return x + self.weight[: x.shape[-2]]


# Alternatively we use a formula, which has a row for every possible position (A. Vaswani et al., 2017). Like the hands
# of a clock, each pair of elements is a point that moves around a circle at its own speed. The first pair is quick, and
# the last one is so slow that it takes nearly ten thousand times as long:
#
# $$ p_{t, 2i} = \sin(t \, \omega_i), \quad p_{t, 2i+1} = \cos(t \, \omega_i), \qquad \omega_i = 10000^{-2i / C} . $$


def frequencies(dim: int, base: float = 10_000.0) -> np.ndarray:
    """The angle by which each of dim / 2 pairs turns from one position to the next: base ** (-2 i / dim)."""
    if dim < 2 or dim % 2:
        raise ValueError(f"positions turn pairs of numbers, so dim must be even and at least 2, not {dim}")
    if not 0 < base < math.inf:
        raise ValueError(f"base must be a finite number above 0, not {base}")
    return base ** (-np.arange(0, dim, 2) / dim)


def sinusoidal_positions(length: int, dim: int) -> Tensor:  # exercise
    """The positions of Vaswani et al., (length, dim), float32: sines in the even columns, cosines in the odd ones.
    ValueError for a dim that `frequencies` refuses."""
    angles = np.arange(length)[:, None] * frequencies(dim)
    return Tensor(np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, dim), np.float32)


# Each row of the left picture is one element of the vector, drawn over the positions; the right picture shows the
# products of all pairs of positions.


def show_positions():
    """Left: 48 elements over 64 positions, in ever slower waves. Right: the products depend on the distance only."""
    import matplotlib.pyplot as plt

    table = sinusoidal_positions(64, 48).numpy()
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    axes[0].imshow(table.T, cmap="RdBu_r", aspect="auto")
    axes[0].set(title="positional encoding", xlabel="position", ylabel="element")
    axes[1].imshow(table @ table.T, cmap="viridis")
    axes[1].set(title="products with each other", xlabel="position", ylabel="position")
    figure.tight_layout()
    return figure


# On the right you see that the product of two positions depends on how far apart they are, and not on where they are.
# The reason is $\sin a \sin b + \cos a \cos b = \cos(a - b)$.


def check_sinusoidal_positions():
    table = sinusoidal_positions(50, 16).numpy()
    products = table @ table.T
    assert np.allclose(products[3, 10], products[33, 40], atol=1e-4) and products[3, 3] > products[3, 4]


# ## Turning
#
# Why add at all? For language the distance between two tokens matters most, and the clock hands suggest something
# better. We take the *token's own* elements in pairs and rotate each pair by an angle that grows with its position (J.
# Su et al., 2021: *rotary position embedding*). If we turn a vector $q$ by the angle $t \omega$ and a vector $k$ by $s
# \omega$, only the difference is left in their product, because the rotations $R$ multiply:
#
# $$ (R_{t\omega}\, q)^T (R_{s\omega}\, k) = q^T R_{t\omega}^T R_{s\omega}\, k = q^T R_{(s-t)\omega}\, k . $$
#
# Most models since 2022 do that just before they compare tokens, which is the subject of the next chapter.
#
# The gradient of a rotation is the rotation back, so our primitive is its own rule. Which elements form a pair is a
# matter of taste. The paper takes neighbours, $(0, 1), (2, 3), \dots$, and so did Llama's authors; the `transformers`
# library takes $i$ and $i + D/2$, also for its copy of Llama. It makes no difference as long as we do not mix the two.
# Because we want to load other people's weights, we have a switch, `interleaved`.


def _pairs(x, interleaved):
    half = x.shape[-1] // 2
    return (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])


@primitive(cost=lambda out, x, **params: 2 * out.size)
def rotate_pairs(x, /, angles, interleaved):  # exercise
    """x (..., D) with its D / 2 pairs turned by angles, which broadcast to (..., D / 2), anticlockwise: in a pair
    (a, b), a turns towards b. The pairs are neighbours if interleaved, else i and i + D / 2. A new array of the dtype
    of x, whatever that of the angles is."""
    out = np.empty(x.shape, x.dtype)
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    (a, b), (first, second) = _pairs(x, interleaved), _pairs(out, interleaved)
    np.subtract(a * cos, b * sin, out=first)
    np.add(a * sin, b * cos, out=second)
    return out


rule(rotate_pairs, lambda g, out, x, angles, interleaved: rotate_pairs(g, angles=-angles, interleaved=interleaved))


# We now have three kinds of positions. *Learned* ones cost a row for each position and end with the table. *Sinusoidal*
# ones cost nothing and never end, but we add them to the token like the others, and the network must find out by itself
# that only differences matter. *Rotary* ones build that in, but we must apply them in each layer, where tokens are
# compared.
#
# Positions count from 0 unless you pass others. (In chapter 16 we continue a text, and then the new tokens are not at
# its beginning.)


def rotary(x: Tensor, positions=None, base: float = 10_000.0, interleaved: bool = True) -> Tensor:  # exercise
    """x (..., T, D) with each pair turned by its position times its frequency. `positions` are integers (T,), or
    anything that broadcasts to (..., T); 0 to T - 1 by default. ValueError for positions that do not fit, and
    for an x that has no position axis or is not of floats."""
    if x.ndim < 2 or x.dtype.kind != "f":
        raise ValueError(f"rotary turns floats of shape (..., T, D), not {x.dtype} of shape {x.shape}")
    length = x.shape[-2]
    places = np.arange(length) if positions is None else np.asarray(positions)
    if places.ndim == 0 or places.shape[-1] not in (1, length):
        raise ValueError(f"{places.shape} positions for {length} tokens: the shape must be (..., {length})")
    return rotate_pairs(x, angles=places[..., None] * frequencies(x.shape[-1], base), interleaved=interleaved)


# As a module it has no weights, but it takes an `offset` for texts that do not begin at position 0.


class RotaryEmbedding(Module):
    """`rotary` positions as a module without weights: x (..., T, dim) whose first token is at position `offset`."""

    def __init__(self, dim: int, base: float = 10_000.0, interleaved: bool = True):
        super().__init__()
        self.dim, self.base, self.interleaved = dim, base, interleaved
        frequencies(dim, base)

    def forward(self, x, offset: int = 0):
        """x, with each pair turned."""
        if x.shape[-1:] != (self.dim,):
            raise ValueError(f"RotaryEmbedding of {self.dim} numbers does not fit an input of shape {x.shape}")
        return rotary(x, np.arange(offset, offset + x.shape[-2]), self.base, self.interleaved)

    def extra_repr(self):
        return f"{self.dim}, base={self.base:g}"


# If we move a query and a key by the same distance, their product must stay the same, near the beginning and far away.


def check_rotary():
    query, key = np.random.default_rng(0).normal(size=(2, 1, 8))
    products = [(rotary(Tensor(query), [t]) * rotary(Tensor(key), [t + 5])).sum().item() for t in (0, 1, 1000)]
    assert np.allclose(products, products[0])
    x = Tensor(np.random.default_rng(1).normal(size=(2, 3, 4)), requires_grad=True)
    check_gradients(lambda x: rotary(x) ** 2, x)


# ## The cost
#
# A look-up multiplies nothing and moves $C$ numbers for each token. We pay in memory: $V \cdot C$ numbers, their
# gradient, and the optimizer's moments. In the smallest GPT-2 nearly a third of all parameters are in this table, and
# without weight tying there would be a second table of the same size.


def show_cost():
    for name, layers, width in (("GPT-2", 12, 768), ("GPT-2 XL", 48, 1600)):
        table = 50_257 * width
        others = layers * (12 * width**2 + 13 * width) + (1024 + 2) * width
        print(
            f"{name:8s}: {table / 1e6:5.1f} M of {(table + others) / 1e6:7.1f} M parameters are in the table, "
            f"{table / (table + others):3.0%}; {2 * table / (2 * table + others):3.0%} if it were not tied"
        )
    ids, layer = tt.randint(0, 50_257, (12, 64)), Embedding(50_257, 128)
    out = layer(ids)
    print(f"12 x 64 tokens: {out.nbytes:,d} bytes moved, formula {12 * 64 * 128 * 4:,d};", end=" ")
    print(f"{tt.measure(lambda: layer(ids)).seconds * 1e6:.0f} us, the gradient", end=" ")
    print(f"{tt.measure(lambda: layer(ids).backward(tt.ones(12, 64, 128))).seconds * 1e6:.0f} us")


# The gradient takes far longer than the look-up, although it adds up no more numbers. It is a table as large as the
# weights, zeros except for a few rows, and we must write all of it. PyTorch can make it *sparse* (`sparse=True`), so
# that it holds only ids and rows, but then Adam refuses it. We leave it dense.

# ## Errors you will meet


def show_errors():
    table = Embedding(10, 4)
    for attempt in (
        lambda: table(tensor([3, 10])), lambda: table(tensor([-1])), lambda: table(tensor([1.0])),
        lambda: Embedding(10, 4, padding_idx=10), lambda: LearnedPositions(8, 4)(tt.zeros(9, 4)),
        lambda: rotary(tt.zeros(2, 3)), lambda: rotary(tt.zeros(2, 4), [0, 1, 2]),
    ):
        try:
            attempt()
        except (IndexError, TypeError, ValueError) as error:
            print(f"{type(error).__name__}: {error}")


# ## Exercises
#
# Besides the exercises in the text:
#
# 1. `embedding_bag`: a text as the mean of its vectors, when texts of different lengths have been padded.
# 2. Give `FillTheGap` only two dimensions, and draw its table without `in_a_plane`. Which of the neighbours stay?
# 3. Train `FillTheGap` on the gap's *right* neighbours only. Does the table change in a way that you can explain?
#
# In the first, padding must not count, neither in the sum nor in the number of tokens.


def embedding_bag(ids: Tensor, weight: Tensor, padding_idx: int) -> Tensor:  # exercise
    """The mean of the vectors of each row of ids (N, T) without those of padding_idx: (N, C), in the dtype of weight; 0
    for a row of padding only. The vector of padding_idx takes no part, even if it is infinite."""
    there = ids != padding_idx
    vectors = tt.where(there.unsqueeze(-1), embedding(ids, weight, padding_idx=padding_idx), 0.0)
    count = there.sum(1, keepdim=True).clip(min=1)
    wide = np.result_type(weight.dtype, np.float32)  # the sum may be too large for float16, where the mean is not
    return (vectors.to(wide).sum(1) / count).to(weight.dtype)


def check_embedding_bag():
    weight = Tensor([[9, 9], [1, 2], [3, 4]])
    assert embedding_bag(tensor([[1, 2, 0], [2, 0, 0]]), weight, 0).tolist() == [[2, 3], [3, 4]]


# ## A road not taken
#
# Is the table a layer? In JAX you write `table[ids]` and leave the rest to the transformation of indexing. tinygrad
# compares the ids with a range and multiplies, which is our one-hot product, and its compiler turns that into a look-up
# again. PyTorch has a layer with a kernel of its own, sparse gradients, and an option that rescales rows while it reads
# them (`max_norm`). Ours is PyTorch's layer without the options that change weights on the way.

# ## What hurts next
#
# Every token now has a vector that includes its position. A sentence is many of them. The obvious way to turn a
# sentence into one vector is to add them up, as `embedding_bag` does, with their positions, so that nothing is lost. We
# try it on two sentences.


def sentence_sum(sentence: str, words: Sequence[str] = ("dog", "bites", "man"), dim: int = 64) -> Tensor:
    """The sum of a sentence's vectors, each with its position added."""
    tt.manual_seed(0)
    ids = tensor([words.index(word) for word in sentence.split()])
    return (Embedding(len(words), dim)(ids) + sinusoidal_positions(len(ids), dim)).sum(0)


def show_sum():
    one, other = sentence_sum("dog bites man"), sentence_sum("man bites dog")
    print(f"length of the sum: {(one * one).sum().sqrt().item():.2f}")
    print(f"largest difference between the two sums: {(one - other).abs().max().item():.1e}")


# The difference is a rounding error. *Dog bites man* equals *man bites dog*: our sum has all the words and all the
# positions, but not which word was at which position. The vectors must meet before we add them up, because each word
# needs to look at the others. That is chapter 13, *Attention*.

__all__ = [
    "Embedding", "FillTheGap", "LearnedPositions", "RotaryEmbedding", "add_rows", "by_one_hot", "embedding",
    "embedding_bag", "frequencies", "gaps", "in_a_plane", "nearest", "predict_costs", "questions", "rotary",
    "sentence_sum", "sinusoidal_positions", "train_gap_filler", "rotate_pairs",
]
