# # Recurrent networks
#
# An appendix in the form of a chapter. At its end we have a network that reads a text token by token and carries along
# what it has read, as a *hidden state* of fixed size. We will also know why the first such networks forgot so quickly,
# and what cured them.

# ## The hurt
#
# In chapter 12 we gave each token a vector and ended with a sum of vectors that cannot tell *dog bites man* from *man
# bites dog*. The other simple way to predict a text is to look only at the last token: we count which character follows
# which, a *bigram* model. It knows the order of two characters, and nothing before them.

from __future__ import annotations

import math

import numpy as np

import tt_tensor as tt
from tt_autograd import check_gradients, grad, no_grad
from tt_data import short_text
from tt_nlp.embeddings import Embedding
from tt_nlp.tokenization import CharTokenizer
from tt_optim import Adam, clip_grad_norm_
from tt_tensor import (
    Linear, Module, Parameter, Tensor, cross_entropy, from_numpy, linear, refuse_other_device, relu, sigmoid,
    stack, tanh, tensor,
)


def characters() -> tuple[CharTokenizer, np.ndarray, np.ndarray]:
    """The tokenizer of the embedded text, the ids of its first nine tenths, and those of the rest."""
    tokenizer = CharTokenizer.train(short_text())
    ids = np.array(tokenizer.encode(short_text()))
    return tokenizer, ids[: len(ids) * 9 // 10], ids[len(ids) * 9 // 10 :]


# Our model is a table of counts.


def bigram(ids: np.ndarray, vocabulary: int) -> np.ndarray:
    """Row a, column b: the probability of b after a, counted in the ids, with 1/10 added to every count."""
    counts = np.full((vocabulary, vocabulary), 0.1)
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    return counts / counts.sum(1, keepdims=True)


def show_hurt():
    tokenizer, ids, held_out = characters()
    table = bigram(ids, tokenizer.vocab_size)
    print(f"loss on held-out text: {-np.log(table[held_out[:-1], held_out[1:]]).mean():.2f} nats a character")
    for text in ("all the wor", "he may go fo"):
        row = table[tokenizer.encode(text)[-1]]
        guesses = ", ".join(f"{tokenizer.decode([k])!r} {row[k]:.0%}" for k in np.argsort(-row)[:4].tolist())
        print(f"after {text!r}: {guesses}")


# You know what follows *all the wor*. The table sees only an *r* or an *o*, and gives the answer that suits all words
# at once. A table of the last two, three or four characters would know more, but it has a row for every combination,
# and most combinations never occur in the text. We need something that has read *everything* before, in order, and
# whose size does not depend on how much that is.

# ## The smallest thing that could work
#
# We keep one vector, the state. For each new token we shrink the state a little and add the token's vector. Each token
# then counts by how long ago it came, so order matters.


def running(vectors: np.ndarray, keep: float) -> np.ndarray:
    """The state after each of the vectors (T, C): h = keep * h + x, beginning with zeros."""
    h, states = np.zeros(vectors.shape[1]), []
    for x in vectors:
        h = keep * h + x
        states.append(h)
    return np.stack(states)


def show_running():
    dog, bites, man = np.random.default_rng(0).normal(size=(3, 64))
    one, other = (running(np.stack(words), 0.8)[-1] for words in ((dog, bites, man), (man, bites, dog)))
    print(f"difference of the two sentences: {np.linalg.norm(one - other):.2f}")
    print(*(f"weight of a token {n} steps ago: {0.8**n:.1e}" for n in (5, 20, 100)), sep="\n")


# At last the two sentences differ. The other lines disappoint: a token that came a hundred steps ago has practically
# vanished, whether it mattered or not. With `keep` nearer to 1 the state remembers longer, but it mixes everything into
# one lump. Nothing in this formula can *choose* what to keep. Remember those shrinking numbers, because we will meet
# them again.

# ## The idea: a state that is learned
#
# We let the network decide how to combine the old state and the new token. Both pass through a learned matrix, and an
# activation keeps the result between -1 and 1, however long the text is:
#
# $$ h_t = \tanh(W_{ih} \, x_t + b_{ih} + W_{hh} \, h_{t-1} + b_{hh}) . $$
#
# This is the *recurrent neural network*, or RNN (J. Elman, 1990). We use the same weights at every step, so a network
# of a fixed size reads texts of any length. Written out for a text, or *unrolled*, it is a deep network with one layer
# for each token, and all of its layers share their weights:
#
# ```mermaid
# flowchart LR
#     H0["h0 = 0"] -->|W_hh| S1["tanh"] -->|W_hh| S2["tanh"] -->|W_hh| S3["tanh"] --> H3["h3"]
#     X1["x1: dog"] -->|W_ih| S1
#     X2["x2: bites"] -->|W_ih| S2
#     X3["x3: man"] -->|W_ih| S3
#     S1 --> H1["h1"]
#     S2 --> H2["h2"]
# ```
#
# One half of the formula does not depend on the state: $W_{ih} x_t + b_{ih}$. We can compute it for all steps at once,
# as one large product, which is much faster than many small ones. So our step receives that half ready-made, as
# `given`, and does the other half. (The formula has two biases, although a single bias would do. PyTorch keeps both,
# and so do we, for the sake of files.)


def rnn_step(given: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None = None, activation=tanh) -> Tensor:
    """The next state of an RNN: given (..., H) is what the input contributes, h (..., H) the state, weight (H, H)."""
    return activation(given + linear(h, weight, bias))


# Unrolling is a loop. It takes a sequence with time first, (T, B, H).


def unrolled(step, given: Tensor, state, *weights) -> list:
    """The states after each of the T steps; `step` is called with given[t], the state before, and the weights."""
    states = []
    for t in range(len(given)):
        state = step(given[t], state, *weights)
        states.append(state)
    return states


def check_the_order_matters():
    words, weight = tt.randn(3, 1, 16), tt.randn(16, 16) * 0.2
    one, other = (unrolled(rnn_step, words[order], tt.zeros(1, 16), weight)[-1] for order in ([0, 1, 2], [2, 1, 0]))
    assert (one - other).abs().max().item() > 0.1


# ## Backpropagation through time
#
# How do the weights learn? The unrolled network consists of operations that chapter 07 has recorded, so `backward`
# walks back through them, from the last step to the first, and we need not write anything. We used the weights $T$
# times, so their gradient is the sum of $T$ parts, which the backward pass adds up as it does for everything that we
# use more than once. The field has a name for it all the same, *backpropagation through time* (P. Werbos, 1990).


def check_backpropagation_through_time():
    random = np.random.default_rng(0)
    given, h, weight = (Tensor(random.normal(size=s), requires_grad=True) for s in ((4, 2, 3), (2, 3), (3, 3)))
    check_gradients(lambda *inputs: stack(unrolled(rnn_step, *inputs)), given, h, weight)


# What does one step do to a gradient on its way back? By the chain rule it is multiplied with the slope of the
# activation and the transposed matrix,
#
# $$ \frac{\partial L}{\partial h_{t-1}}
#    = W_{hh}^T \left( (1 - h_t^2) \odot \frac{\partial L}{\partial h_t} \right) , $$
#
# and that happens at *every* step. From step $T$ back to step $t$ there are $T - t$ such products. Here are our
# shrinking numbers again. If a step makes the gradient smaller by a tenth, 100 steps leave $0.9^{100}$ of it, which is
# 0.00003. If a step makes it larger by a tenth, 100 steps make it 14,000 times as large. Only a factor of 1 would keep
# it, and nothing in the formula aims at 1.
#
# You need not trust the formula alone. We can ask for the gradient of a loss at the last step with respect to the
# state at *each* step.


def norms_back(step, given: Tensor, state, *weights) -> list[float]:
    """For each of the T steps, the norm of the gradient of a loss at step T with respect to the state after it,
    divided by the norm at T. Of a state that is a pair, the second part counts."""
    states = unrolled(step, given, state, *weights)
    parts = [state[1] if isinstance(state, tuple) else state for state in states]
    direction = from_numpy(np.random.default_rng(1).normal(size=parts[-1].shape).astype(np.float32))
    gradients = grad((parts[-1] * direction).sum(), parts)
    norms = [math.sqrt((g * g).sum().item()) for g in gradients]
    return [norm / norms[-1] for norm in norms]


# The input is random, and so is the matrix. We choose its size so that a product keeps the length of a vector on
# average, and then multiply it by a factor.


def _random_text(gates: int, width: int = 64, steps: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    """Random inputs, a state of zeros that requires a gradient, and a random matrix whose products keep their size."""
    random = np.random.default_rng(0)
    given, weight = random.normal(0, 0.3, (steps, 8, gates * width)), random.normal(size=(gates * width, width))
    state = tt.zeros(8, width, requires_grad=True)
    return Tensor(given, np.float32), state, Tensor(weight / math.sqrt(width), np.float32)


def show_vanishing():
    given, state, weight = _random_text(1)
    print("steps back from the loss" + "".join(f"{n:10d}" for n in (1, 10, 50, 99)))
    for scale in (0.5, 1.0, 2.5):
        norms = norms_back(rnn_step, given, state, weight * scale)
        print(f"weights of size {scale}     " + "".join(f"{norms[-1 - n]:10.1e}" for n in (1, 10, 50, 99)))


# With small weights practically nothing is left of the gradient after 50 steps, and after 99 it is exactly 0, because
# float32 has no smaller numbers. With large weights it explodes. Those are the two illnesses of RNNs: the *vanishing
# gradient* and the *exploding gradient* (S. Hochreiter, 1991; Y. Bengio et al., 1994). The second is the lesser one,
# because you notice it, and in chapter 06 we have a remedy, *gradient clipping*: `clip_grad_norm_` shortens a gradient
# that is too long. Against the first there is no such trick, because we cannot lengthen a gradient that is not there.
# The network works, its loss falls, and it learns nothing about what is far apart.

# ## A state that is added to
#
# The cure is as simple as it is famous (S. Hochreiter and J. Schmidhuber, 1997). A state shrinks because we multiply it
# at each step. So we add a second state, the *cell* $c$, that no matrix touches. We keep it, and we *add* to it:
#
# $$ c_t = f_t \odot c_{t-1} + i_t \odot g_t, \qquad h_t = o_t \odot \tanh(c_t) . $$
#
# That is `running` from above. But the factor $f$, which was the constant `keep`, is now a number between 0 and 1 for
# each element and each step, and the network computes it from what it reads. (In 1997, $f$ was fixed at 1; F. Gers et
# al. made it a gate in 2000.) There are three such numbers, called *gates*. The forget gate $f$ says what to keep, the
# input gate $i$ where to write, and the output gate $o$ what to show. With the candidate $g$, which is what to write,
# we need four results of the same kind of formula as before. One matrix with four times as many rows computes them in
# one product:
#
# $$ f_t = \sigma(W_f x_t + b_f + U_f h_{t-1} + b_f'), \quad i_t, o_t \text{ likewise}, \qquad
#    g_t = \tanh(W_g x_t + b_g + U_g h_{t-1} + b_g') . $$
#
# Why does the gradient survive? On the direct way from $c_t$ back to $c_{t-1}$ there is no matrix and no slope, only
# the factor $f_t$. When the gate is open, with $f$ near 1, the gradient passes as it is. This is the *long short-term
# memory*, the LSTM. The order of the gates in the matrix is PyTorch's: input, forget, candidate, output.


def parts_of(gates: Tensor, count: int) -> list[Tensor]:
    """The last dimension in `count` equal parts."""
    size = gates.shape[-1] // count
    return [gates[..., k * size : (k + 1) * size] for k in range(count)]


def lstm_step(given: Tensor, state: tuple, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The next state (h, c) of an LSTM: given (..., 4 H) is what the input contributes to the gates i, f, g, o; weight
    is (4 H, H)."""
    h, c = state
    i, f, g, o = parts_of(given + linear(h, weight, bias), 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


# If we force all gates open or shut by large numbers, the cell must do what the formula says: keep everything, or
# forget everything and take the candidate.


def check_gates():
    c, wide = Tensor([[0.3, -0.7]]), 50.0
    shut = Tensor([[-wide, -wide, wide, wide, 0.9, 0.9, wide, wide]])
    assert np.allclose(lstm_step(shut, (c * 0, c), tt.zeros(8, 2))[1].numpy(), c.numpy())
    opened = Tensor([[wide, wide, -wide, -wide, 0.9, 0.9, wide, wide]])
    assert np.allclose(lstm_step(opened, (c * 0, c), tt.zeros(8, 2))[1].numpy(), math.tanh(0.9))


# ## The smaller form
#
# Four products are many for one memory. The *gated recurrent unit*, GRU (K. Cho et al., 2014), has one state and two
# gates. The update gate $z$ says how much of the old state to keep, and what is not kept is written, so keeping and
# writing are one decision. The reset gate $r$ says how much of the old state the candidate $n$ may look at:
#
# $$ h_t = (1 - z_t) \odot n_t + z_t \odot h_{t-1}, \qquad
#    n_t = \tanh(W_n x_t + b_n + r_t \odot (U_n h_{t-1} + b_n')) . $$
#
# In the paper, $r$ multiplies the state *before* the matrix; in PyTorch, after it. Then one product gives all three
# parts, and the bias $b_n'$ is inside the parentheses, which is why a GRU really needs its second bias.


def gru_step(given: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The next state of a GRU: given (..., 3 H) is what the input contributes to the gates r, z, n; weight is (3 H,
    H)."""
    (r, z, n), (of_r, of_z, of_n) = parts_of(given, 3), parts_of(linear(h, weight, bias), 3)
    z = sigmoid(z + of_z)
    n = tanh(n + sigmoid(r + of_r) * of_n)
    return n + z * (h - n)


# Now let us look at the picture. Each line is the gradient's way back through 100 steps of random input. We have not
# trained these networks. They differ in the formula, and in one bias, which decides whether the gates begin half open
# (0) or nearly open (3).


def _gated(step, gates: int, part: int, bias: float, width: int = 64) -> list[float]:
    """`norms_back` of a gated network whose gate number `part` begins with a bias."""
    given, state, weight = _random_text(gates, width)
    push = np.zeros(gates * width, np.float32)
    push[part * width : (part + 1) * width] = bias
    return norms_back(step, given + from_numpy(push), (state, state) if gates == 4 else state, weight * 0.5)


def show_way_back():
    """The norm of the gradient over 100 steps back: it vanishes or explodes in RNNs, and open gates keep it."""
    import matplotlib.pyplot as plt

    given, state, weight = _random_text(1)
    lines = {f"RNN, weights of size {size}": norms_back(rnn_step, given, state, weight * size) for size in (0.5, 2.5)}
    lines |= {f"LSTM, forget bias {bias}": _gated(lstm_step, 4, 1, bias) for bias in (0, 3)}
    lines |= {f"GRU, update bias {bias}": _gated(gru_step, 3, 1, bias) for bias in (0, 3)}
    figure, axis = plt.subplots(figsize=(7.2, 3.8))
    for name, norms in lines.items():
        axis.semilogy(range(len(norms) - 1, -1, -1), norms, "--" if "GRU" in name else "-", label=name)
    axis.set(ylim=(1e-12, 1e12), xlabel="steps back from the loss", ylabel="norm of the gradient (1 at the loss)")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


# The lines are straight, because every step multiplies by about the same factor, and the axis is logarithmic. Of the
# two RNNs, one leaves the picture at the bottom, and the other climbs by nine orders of magnitude. The gated networks
# with half-open gates are not much better than the first. (Their two lines cover each other: with a bias of 0, a gate
# is half open, and halves the gradient at each step.) With open gates the lines are nearly level. So the cure is not
# the gates as such, but that they *can be open*. To begin the training with a forget bias of 1 or more is old and good
# advice (R. Jozefowicz et al., 2015). PyTorch's layers begin with a bias near 0, so you have to set it yourself.

# ## Cells
#
# A layer needs weights. PyTorch calls the modules that make one step *cells*. The three differ in their formula and in
# the number of its parts; they share everything else. We draw the initial weights from $\pm 1 / \sqrt{H}$, biases
# included, as in PyTorch.


def refuse_sizes(name: str, **sizes) -> None:
    """ValueError for sizes that are not integers of at least 1, TypeError for anything but an integer."""
    for what, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer):
            raise TypeError(f"{name}: {what} must be an integer, not {size!r}")
        if size < 1:
            raise ValueError(f"{name}: {what} must be at least 1, not {size}")


def new_parameter(*shape: int, dtype=None) -> Parameter:
    """A parameter of zeros, in float32 unless a dtype is given."""
    return Parameter(tt.zeros(*shape, dtype=np.float32 if dtype is None else dtype))


# We begin with what the three have in common:


class RNNCellBase(Module):
    """What the three cells share: the weights of `parts` formulas, and the checks of a call."""

    parts = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device=None, dtype=None):
        super().__init__()
        refuse_sizes(type(self).__name__, input_size=input_size, hidden_size=hidden_size)
        refuse_other_device(device)
        self.input_size, self.hidden_size, self.bias, rows = input_size, hidden_size, bias, self.parts * hidden_size
        self.weight_ih = new_parameter(rows, input_size, dtype=dtype)
        self.weight_hh = new_parameter(rows, hidden_size, dtype=dtype)
        self.bias_ih = new_parameter(rows, dtype=dtype) if bias else None
        self.bias_hh = new_parameter(rows, dtype=dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights and biases anew, uniformly from +-1 / sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            tt.uniform_(parameter, -bound, bound)

    # An input is (B, input_size), or (input_size,) without a batch. A state has the same form, and is zeros if you give
    # none. A state for another batch would broadcast silently, so its shape must be exactly right.

    def given(self, input: Tensor) -> Tensor:
        """What the input contributes. ValueError for a wrong number of dimensions, RuntimeError for a wrong size."""
        name = type(self).__name__
        if input.ndim not in (1, 2):
            raise ValueError(f"{name} takes (batch, input_size) or (input_size,), not {input.ndim} dimensions")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(f"{name} has input_size {self.input_size}; an input of shape {input.shape} does not fit")
        return linear(input, self.weight_ih, self.bias_ih)

    def state(self, input: Tensor, h: Tensor | None) -> Tensor:
        """The state h, or zeros in its place. RuntimeError for a state that does not fit the input."""
        wanted = (*input.shape[:-1], self.hidden_size)
        if h is None:
            return tt.zeros(*wanted, dtype=input.dtype)
        if h.shape != wanted:
            raise RuntimeError(f"{type(self).__name__}: a state of shape {h.shape} does not fit; it must be {wanted}")
        return h

    def extra_repr(self):
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


# The three classes need only a few lines each.


class RNNCell(RNNCellBase):
    """One step of an RNN, (input, h) -> h: input (B, input_size), h (B, hidden_size), or both without B. As
    torch.nn.RNNCell; nonlinearity is "tanh" or "relu"."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", device=None, dtype=None
    ):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f'nonlinearity must be "tanh" or "relu", not {nonlinearity!r}')
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next state."""
        activation = tanh if self.nonlinearity == "tanh" else relu
        return rnn_step(self.given(input), self.state(input, hx), self.weight_hh, self.bias_hh, activation)


# An LSTM's state is a pair. We check the pair below.


class LSTMCell(RNNCellBase):
    """One step of an LSTM, (input, (h, c)) -> (h, c): input (B, input_size), h and c (B, hidden_size), or all without
    B. As torch.nn.LSTMCell."""

    parts = 4

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """The next state (h, c)."""
        given, (h, c) = self.given(input), (None, None) if hx is None else pair(hx)
        return lstm_step(given, (self.state(input, h), self.state(input, c)), self.weight_hh, self.bias_hh)


class GRUCell(RNNCellBase):
    """One step of a GRU, (input, h) -> h: input (B, input_size), h (B, hidden_size), or both without B. As
    torch.nn.GRUCell."""

    parts = 3

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next state."""
        return gru_step(self.given(input), self.state(input, hx), self.weight_hh, self.bias_hh)


# A frequent mistake is to pass an LSTM one tensor as its state. Python would even accept a tensor of two rows as a
# pair, so we check.


def pair(hx) -> tuple[Tensor, Tensor]:
    """hx as the state (h, c) of an LSTM. TypeError for anything but a pair of tensors."""
    if not isinstance(hx, tuple | list) or len(hx) != 2:
        raise TypeError(f"the state of an LSTM is a pair (h, c), not {type(hx).__name__}; give both, or neither")
    return hx[0], hx[1]


# Our witness is the formula, in plain NumPy, for one step of each.


def check_cells_by_hand():
    def sigma(x):
        return 1 / (1 + np.exp(-x))

    lstm, gru, x, h, c = LSTMCell(2, 3), GRUCell(2, 3), tt.randn(5, 2), tt.randn(5, 3), tt.randn(5, 3)
    (a, b), (p, q) = ([linear(x, m.weight_ih, m.bias_ih), linear(h, m.weight_hh, m.bias_hh)] for m in (lstm, gru))
    i, f, g, _ = np.split((a + b).detach().numpy(), 4, -1)
    assert np.allclose(lstm(x, (h, c))[1].detach(), sigma(f) * c.numpy() + sigma(i) * np.tanh(g), atol=1e-6)
    (r, z, n), (s, y, m) = (np.split(part.detach().numpy(), 3, -1) for part in (p, q))
    new, z = np.tanh(n + sigma(r + s) * m), sigma(z + y)
    assert np.allclose(gru(x, h).detach(), (1 - z) * new + z * h.numpy(), atol=1e-6)


# ## A text that does not end
#
# Backpropagation through time keeps what every step computed until the backward pass has used it. Memory grows with the
# length of the text, and the first step of the optimizer must wait for the last word of the book. So we cut the text
# into chunks, and after each chunk we go back, but only to the chunk's beginning. The *values* of the state continue
# into the next chunk, its *history* does not. That is *truncated backpropagation through time*, and all of it is one
# call of `detach`:


def detached(state):
    """The state without its history; a state may be a tensor, or a tuple of states."""
    return tuple(map(detached, state)) if isinstance(state, tuple) else state.detach()


def check_detached():
    x = tt.ones(2, requires_grad=True) * 3
    h, (c, _) = detached((x, (x, x)))
    assert not h.requires_grad and not c.requires_grad and c.tolist() == [3, 3]


# Chunks from many positions of the text form a mini-batch. Each row of the batch must continue where the same row of
# the chunk before ended, or the state that we carry over belongs to another text. So we cut the text into as many
# strips as the batch has rows, and walk along all strips at once.


def strips(ids: np.ndarray, rows: int, length: int):
    """Yield pairs (x, y) of ids (T, rows) with T up to `length`: each column continues in the next pair, and y is x
    one token later."""
    steps = (len(ids) - 1) // rows
    x, y = (from_numpy(ids[k : k + rows * steps].reshape(rows, steps).T.copy()) for k in (0, 1))
    for start in range(0, steps, length):
        yield x[start : start + length], y[start : start + length]


def check_strips():
    (x, y), (z, _) = strips(np.arange(13), rows=2, length=3)
    assert x.tolist() == [[0, 6], [1, 7], [2, 8]] and y.tolist() == [[1, 7], [2, 8], [3, 9]]
    assert z.tolist() == [[3, 9], [4, 10], [5, 11]]


# Our model is as small as it can be: a table of vectors, a cell, and a linear layer that turns each state into a logit
# for each character. We pass the state in and get it back, because only the caller knows where the text continues.


class CharacterModel(Module):
    """ids (T, B) and a state -> logits (T, B, vocabulary) for the character after each, and the state at the end."""

    def __init__(self, vocabulary: int, width: int = 64, cell=LSTMCell):
        super().__init__()
        self.table, self.cell, self.head = Embedding(vocabulary, width), cell(width, width), Linear(width, vocabulary)

    def forward(self, ids, state=None):
        outputs = []
        for x in self.table(ids):
            state = self.cell(x, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return self.head(stack(outputs)), state


# What does the cut cost, and what does it save? We read 256 characters in chunks of several lengths, and measure the
# peak of the memory in a whole pass, forward and back. We also measure how much the loss of the *last* character says
# about the vector of the *first* one.


def _in_chunks(model: CharacterModel, ids: Tensor, length: int) -> None:
    state = None
    for start in range(0, len(ids), length):
        logits, state = model(ids[start : start + length], state)
        (logits * logits).mean().backward()
        state = detached(state)


def show_truncation():
    model, ids = CharacterModel(50), tt.randint(0, 49, (256, 16))
    model.cell.bias_ih.copy_(np.repeat([0, 3, 0, 0], 64))  # open forget gates
    ids[0] = 49  # a character that occurs at the beginning and nowhere else
    for length in (256, 64, 16):
        peak = tt.measure(_in_chunks, model, ids, length, span=0.1).peak_bytes
        state = None
        for start in range(0, len(ids), length):
            logits, state = model(ids[start : start + length], None if state is None else detached(state))
        reached = grad(logits[-1].sum(), model.table.weight)[0][49].abs().max().item()
        print(f"chunks of {length:3d}: peak {peak / 1e6:5.1f} MB; gradient of the first character: {reached:.0e}")


# Memory follows the length of a chunk. In exchange we lose all credit for a distance beyond the chunk: the gradient is
# not small there, it is zero. A network can still *use* an older state, because the values continue. But it learns to
# write into the state only what pays within one chunk.

# ## It learns
#
# We train the model on nine tenths of the text, eleven thousand characters, and measure the loss on the last tenth. We
# carry the state from chunk to chunk and reset it at the beginning of an epoch, because there the text begins again. We
# clip the gradients, against the exploding kind.


def train_characters(cell=LSTMCell, epochs: int = 12, length: int = 32) -> tuple[CharacterModel, list[float]]:
    """A trained model, and its mean loss in each epoch."""
    tokenizer, ids, _ = characters()
    model, losses = CharacterModel(tokenizer.vocab_size, cell=cell), []
    optimizer = Adam(model.parameters(), lr=1e-2)
    for _ in range(epochs):
        state, total = None, []
        for x, y in strips(ids, 16, length):
            logits, state = model(x, None if state is None else detached(state))
            loss = cross_entropy(logits.reshape(-1, tokenizer.vocab_size), y.reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total.append(loss.item())
        losses.append(sum(total) / len(total))
    return model, losses


# For the loss on a text that the model has not seen, we carry one state from its first character to its last.


@no_grad()
def loss_on(model: CharacterModel, ids: np.ndarray) -> float:
    """The mean loss of a model on a text, read from beginning to end."""
    text = from_numpy(ids)
    return cross_entropy(model(text[:-1].unsqueeze(1))[0].squeeze(1), text[1:]).item()


def show_learning():
    tokenizer, ids, held_out = characters()
    table = bigram(ids, tokenizer.vocab_size)
    print(f"bigram: held-out loss {-np.log(table[held_out[:-1], held_out[1:]]).mean():.2f}")
    for cell in (RNNCell, LSTMCell, GRUCell):
        tt.manual_seed(0)
        model, losses = train_characters(cell)
        print(f"{cell.__name__:8s} loss {losses[0]:.2f} -> {losses[-1]:.2f}, held-out loss", end=" ")
        print(f"{loss_on(model, held_out):.2f}; {sum(p.numel() for p in model.parameters()):,d} parameters")


# The state pays off: on text that they have not seen, all three do better than the bigram, although eleven thousand
# characters are very few to learn from. (On the text that they have seen they are better still: they begin to overfit.)
# It is no surprise that the three are so close to each other. To guess the next character of English you need a few
# words, not a few pages.

# ## The cost
#
# A step of an LSTM multiplies a vector of $C$ inputs and one of $H$ numbers with a matrix of $4H$ rows. We pay $4H (C +
# H)$ multiply-adds for each token, whether the text is long or short. Its memory of the past is the $2H$ numbers of the
# state. In *time* it is more expensive than this count suggests. Each step needs the result of the step before it, so
# the products are small, and there are as many of them one after the other as the text has tokens.


def show_cost():
    cell, x, state = LSTMCell(128, 128), tt.randn(32, 128), (tt.randn(32, 128), tt.randn(32, 128))
    with tt.meter() as meter, no_grad():
        cell(x, state)
    formula = 32 * 4 * 128 * (128 + 128)
    print(f"one step of 32 rows: {meter.multiply_adds['affine']:,d} multiply-adds in products, formula {formula:,d}")
    with no_grad():
        for rows in (1, 8, 32, 128):
            seconds = tt.measure(cell, x[:1].expand(rows, 128), (tt.zeros(rows, 128), tt.zeros(rows, 128))).seconds
            print(f"{rows:4d} rows: {seconds * 1e6:7.0f} us a step, {seconds * 1e6 / rows:6.1f} us for each row")


# A single row uses the machine badly, because we read the whole matrix for one product with a vector. More rows share
# that cost. More *steps* cannot share it, however many processors you have.

# ## Errors you will meet


def show_errors():
    cell, x = LSTMCell(3, 4), tt.zeros(2, 3)
    for attempt in (
        lambda: cell(tt.zeros(2, 5)), lambda: cell(tt.zeros(7, 2, 3)), lambda: cell(x, tt.zeros(2, 4)),
        lambda: cell(x, (tt.zeros(3, 4), tt.zeros(3, 4))), lambda: RNNCell(3, 4, nonlinearity="sigmoid"),
        lambda: GRUCell(3, 0),
    ):
        try:
            attempt()
        except (RuntimeError, TypeError, ValueError) as error:
            print(f"{type(error).__name__}: {error}")


# You will meet one more error a chunk later, if you forget `detached`. Then the second `backward` continues into the
# first chunk and says that the record there was freed, and that `retain_graph=True` would keep it. Do not follow that
# advice here. The history would grow from chunk to chunk, and each would take longer than the one before, until memory
# is full.

# ## Exercises
#
# Before these, empty the bodies of `rnn_step`, `lstm_step`, `gru_step`, `detached` and `strips` and write them again
# from the formulas; their checks are in the text. Then:
#
# 1. `through_time`: the gradient of an RNN by hand, without chapter 07.
# 2. `held`: a step that leaves the state of those rows alone whose text has ended.
# 3. `coupled_step`: an LSTM without an input gate, in which $i = 1 - f$. Make a cell of it, and compare it in
#    `show_learning`.
# 4. `written`: let a trained model continue a text. The state is all that you may carry from one character to the next.
#
# For the first, keep the states on the way forward. On the way back you have one gradient, that of the state, and you
# apply the formula of the section on backpropagation through time at each step.


def through_time(given: np.ndarray, h: np.ndarray, weight: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For h = tanh(given[t] + h @ weight.T) over all t: the gradients with respect to the first h (B, H) and to weight
    (H, H), where g (B, H) is the gradient of the last state."""
    states = [h]
    for x in given:
        states.append(np.tanh(x + states[-1] @ weight.T))
    of_weight = np.zeros_like(weight)
    for before, after in zip(states[-2::-1], states[:0:-1]):
        g = g * (1 - after**2)
        of_weight += g.T @ before
        g = g @ weight
    return g, of_weight


def check_through_time():
    random = np.random.default_rng(0)
    given, h, weight, g = (random.normal(size=size) for size in ((5, 2, 3), (2, 3), (3, 3), (2, 3)))
    state, matrix = Tensor(h, requires_grad=True), Tensor(weight, requires_grad=True)
    last = unrolled(rnn_step, Tensor(given), state, matrix)[-1]
    for ours, wanted in zip(through_time(given, h, weight, g), grad((last * g).sum(), [state, matrix])):
        assert np.allclose(ours, wanted.numpy())


# For the second: we pad texts of different lengths to one length, and what the network computes from padding must
# not overwrite what it knew at the end of the text. `where` chooses between the new state and the old one. (The next
# appendix, *More recurrent networks*, has another way, which does not compute the padding at all.)


def held(step, alive: Tensor, given: Tensor, state, *weights):
    """The state after `step(given, state, *weights)` in the rows where alive (B,) is true, and the old state in the
    others. A state may be a tensor or a tuple."""
    new = step(given, state, *weights)
    if isinstance(new, tuple):
        return tuple(tt.where(alive.unsqueeze(-1), a, b) for a, b in zip(new, state))
    return tt.where(alive.unsqueeze(-1), new, state)


def check_held():
    given, weight, h = tt.randn(2, 8), tt.randn(8, 2), tt.randn(2, 2)
    new, kept = lstm_step(given, (h, h), weight), held(lstm_step, tensor([True, False]), given, (h, h), weight)
    for a, b in zip(new, kept):
        assert np.allclose(b[0].numpy(), a[0].numpy()) and np.allclose(b[1].numpy(), h[1].numpy())


# For the third, the matrix has three parts instead of four, in the order f, g, o.


def coupled_step(given: Tensor, state: tuple, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The next state (h, c) of an LSTM that writes exactly where it forgets: given (..., 3 H), weight (3 H, H)."""
    h, c = state
    f, g, o = parts_of(given + linear(h, weight, bias), 3)
    g = tanh(g)
    c = g + sigmoid(f) * (c - g)
    return sigmoid(o) * tanh(c), c


def check_coupled_step():
    f, g, o = np.random.default_rng(0).normal(size=(3, 2, 4))
    full, third = np.concatenate([-f, f, g, o], 1), np.concatenate([f, g, o], 1)  # sigmoid(-f) = 1 - sigmoid(f)
    state = tt.zeros(2, 4, dtype=np.float64), Tensor(f)
    wanted = lstm_step(Tensor(full), state, tt.zeros(16, 4, dtype=np.float64))
    ours = coupled_step(Tensor(third), state, tt.zeros(12, 4, dtype=np.float64))
    assert all(np.allclose(a.numpy(), b.numpy()) for a, b in zip(ours, wanted))


# For the fourth, read the beginning once, then feed each character that you have drawn back in.


@no_grad()
def written(model: CharacterModel, ids: list[int], count: int, temperature: float = 0.5) -> list[int]:
    """`count` more ids after the given ones, each drawn with the probabilities softmax(logits / temperature)."""
    logits, state = model(tensor(ids).unsqueeze(1))
    more: list[int] = []
    for _ in range(count):
        likely = tt.softmax(logits[-1, 0].double() / temperature, dim=0).numpy()
        more.append(int(tt.generator().choice(len(likely), p=likely / likely.sum())))
        logits, state = model(tensor([more[-1:]]), state)
    return more


def check_written():
    model = CharacterModel(3, 8)
    model.head.weight.zero_()
    model.head.bias.copy_([0.0, 50.0, 0.0])
    assert written(model, [0, 2], 4) == [1, 1, 1, 1]


def show_written():
    tokenizer, *_ = characters()
    model, _ = train_characters()
    text = "It is a way I have of "
    print(text + tokenizer.decode(written(model, tokenizer.encode(text), 150)))


# ## A road not taken
#
# Our loop over the steps is Python's, and each step is a handful of operations that are recorded one by one. PyTorch
# hands the whole sequence to one kernel, on a GPU to NVIDIA's cuDNN, which works on several layers at the same time,
# one step apart. That is why PyTorch's layers want their weights in one block of memory (`flatten_parameters`). JAX has
# `lax.scan`, a loop that is compiled once and differentiated as a whole. The newest recurrent networks (S4, Mamba,
# RWKV) remove the activation between one state and the next. Then the steps are linear, and we can compute linear steps
# in any grouping, so all of them at the same time: `running` with a learned `keep` has come back.

# ## What hurts next
#
# Two pains remain. The steps follow one another, so a long text takes a long time on any machine. And whatever we have
# read must fit into one vector of $H$ numbers, which has the same size for a word and for a book. If the network finds
# out only later what it should have kept, it is too late. It would be better to keep *all* vectors and to look up what
# we need, when we need it. That is chapter 13, *Attention*. Layers, both directions, and texts of different lengths in
# one batch are in the next appendix, *More recurrent networks*.

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "RNNCellBase"]
