# # Autograd
#
# In this chapter we stop deriving gradients by hand. At its end, `loss.backward()` computes the gradient of any program
# that is written with our tensors. The result is exact, and it costs about as much as two more forward passes.

# ## The hurt
#
# In chapter 06 we trained XOR with gradients that we had derived ourselves: six formulas for two layers. We ended with
# a flipped sign that trained for a hundred steps without a complaint. The number of formulas grows with the network,
# and we can get each of them wrong. The referee of chapter 05 does not share our mistakes, but it needs two runs of the
# network for every single weight.

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Any

import numpy as np

import tt_tensor as tt
from tt_autograd.decorators import Decorator
from tt_autograd.recorded import Recorded
from tt_optim.optimizers import xor_case, xor_gradients_by_hand
from tt_tensor import Primitive, Tensor, install, last_write, listening, measure, quiet, tick

# Let us see how the effort grows with the depth of the network, for both ways:


def show_hurt():
    print(f"{'layers':>6s} {'lines by hand':>14s} {'runs by the referee':>20s}")
    for layers in (2, 4, 12, 96):
        width = 64
        print(f"{layers:6d} {3 * layers:14d} {2 * layers * (width * width + width):20,d}")


# (We count three lines for each layer of 64 units: the gradient of its weight, that of its bias, and what it passes on.
# GPT-3 has 96 layers, and they are not 64 units wide.)

# ## The smallest thing that could work
#
# The chain rule gives us the derivative of a long computation from the derivatives of its steps, and a program can
# apply it for us. So let each number remember the numbers that it was computed from, with the local derivative for
# each.
#
# `backward` receives `g`, the derivative of the final result with respect to this number. It must *add* `g` to the
# number's gradient, because a number that we use twice receives a message from each use. Then it passes the message on.
# By the chain rule each input receives `g` times the local derivative.


class Value:
    """A number that remembers how it was computed: pairs of (input, derivative with respect to it)."""

    def __init__(self, number, made_of=()):
        self.number, self.made_of, self.gradient = number, made_of, 0.0

    def __add__(self, other):
        return Value(self.number + other.number, [(self, 1.0), (other, 1.0)])

    def __mul__(self, other):
        return Value(self.number * other.number, [(self, other.number), (other, self.number)])

    def backward(self, g=1.0):  # exercise
        """Add g to the gradient, and call the `backward` of each input with its part of g by the chain rule."""
        self.gradient += g
        for value, slope in self.made_of:
            value.backward(g * slope)


# We check it on $xy + x$, where `x` receives a message from both of its uses.


def check_value():
    x, y = Value(3.0), Value(4.0)
    (x * y + x).backward()
    assert (x.gradient, y.gradient) == (5.0, 3.0)


# You have just read the whole idea, in a dozen lines, and they are right: $\partial(xy + x)/\partial x = y + 1 = 5$.
# Now we let every step use the previous result twice, and measure.


def show_diamonds():
    for steps in (5, 10, 15, 18):
        value = Value(1.0)
        for _ in range(steps):
            value = value + value
        print(f"{steps:2d} steps: {measure(value.backward, span=0.02).seconds * 1e3:9.3f} ms, dy/dx = {2**steps}")


# Five more steps take some thirty times as long, because `backward` walks along every *path* from the result to the
# start, and each step doubles the number of paths. At this rate sixty steps would take thousands of years. Our method
# is recursive as well, and Python gives up at a depth of about a thousand. Finally, it creates an object for every
# single number, whereas we have arrays of a million.

# ## The idea: record what passes through the door, and walk back once
#
# All our programs compute with primitives, and since chapter 02 every primitive passes through one door. So we put a
# recorder into the door. It takes notes: which primitive was called, with which inputs, and what came out. These notes
# form the *computational graph*: its nodes are the results, and an edge connects each result with the inputs that it
# was computed from. Running the program is the *forward pass*. Afterwards we walk along the graph *once*, from the end
# to the beginning, and apply the chain rule at each node. This is the *backward pass*.
#
# The chain rule does not prescribe a direction. If $y = f_3(f_2(f_1(x)))$ and $J_i$ is the matrix of all derivatives of
# step $i$ (its *Jacobian*), then
#
# $$ \frac{\partial y}{\partial x} = J_3\, J_2\, J_1 , $$
#
# and we may multiply from either end. If $y$ is one number, a loss, then $J_3$ is a single row. If we start at its end,
# we only ever multiply a row by a matrix. If we start at the other end, at $J_1$, we multiply whole matrices, one
# column for each of a million weights. Starting at the result is called *reverse mode*, and for networks it is better
# known as *backpropagation*. The technique as a whole is *automatic differentiation*.
#
# Even the row times a matrix is cheaper than it looks, because we never build the matrix. The Jacobian of `exp` for a
# million elements would have $10^{12}$ entries, all of them zero except on the diagonal; the row times that Jacobian is
# an element-by-element product. So for each primitive we write a function that computes the product directly. Let
# $z = f(x, y)$, and let $\bar z$ be the derivative of the final result with respect to $z$. The function computes a
# *vector-Jacobian product* (VJP), and we add it to what the input has received from its other uses:
#
# $$ \bar x \mathrel{+}= \bar z \, \frac{\partial f}{\partial x},
#    \qquad \bar y \mathrel{+}= \bar z \, \frac{\partial f}{\partial y} . $$
#
# We need two things: a table with the vector-Jacobian products of each primitive, and the graph.
#
# (Five functions of chapter 02 return here. `install(fn)` puts an interpreter `fn` into the door permanently, on all
# threads. `listening()` says whether a meter or another interpreter is active that also wants to see backward passes.
# `quiet()` keeps NumPy from warning about `inf` and `nan`. `tick()` is the next reading of the clock, so no two
# readings are equal, and `last_write(x)` is the reading at which the memory of `x` was last written to.)

# ## The table
#
# A row of the table holds one function for each input. The function receives $\bar z$ (called `g`), the result `out`,
# the inputs, and the parameters of the call. It returns the vector-Jacobian product for that input. In our function
# names and in the walk below we call it the input's *share*, because it is what this input receives of `g`.

RULES: dict[Primitive, tuple | Callable] = {}
NO_GRADIENT: set[Primitive] = set()


# Why do we keep a table, and not a method `backward` in each operation, as PyTorch's `autograd.Function` asks for?
# Because then all derivatives are in one place, where we can list, check and count them, and because you can add a
# row. In this chapter we write the rows that need a thought. The appendix *More rules* has more than three times as
# many, among them those of `affine` (which every `Linear` calls), of `softmax` and of `sqrt`. So we can differentiate a
# whole network, although you will not find all of its rows here.
#
# One function for each input suits nearly all operations, because then we never compute a gradient that the walk does
# not need. A few operations have so many inputs, or so much work in common, that we prefer one function for all inputs.
# We store such a row as a function that returns the rule when the recorder has the result. In this way a kernel can
# hand over what it has saved for the backward pass, which we will need in chapter 15.


def rule(primitive: Primitive, *shares: Callable | None, together: Callable | None = None) -> None:
    """Enter the vector-Jacobian products of a primitive into the table: for each input a function (g, out, *inputs,
    **params) -> gradient.

    None marks an input that has no gradient, such as a mask. Where the gradients of several inputs have work in
    common, `together` is one function for all of them, (needed, g, out, *inputs, **params) -> gradients: `needed` has
    a truth value for each input, and the gradient of an input that is not needed may be None. Raises ValueError if
    the primitive has a rule already."""
    if primitive in RULES:
        raise ValueError(f"{primitive.name} has a rule already; a primitive can have only one")
    RULES[primitive] = (lambda array: together) if together else shares


# The first six rows come straight from a table of derivatives.

rule(tt.add, lambda g, out, x, y: g, lambda g, out, x, y: g)
rule(tt.sub, lambda g, out, x, y: g, lambda g, out, x, y: -g)
rule(tt.mul, lambda g, out, x, y: g * y, lambda g, out, x, y: g * x)
rule(tt.neg, lambda g, out, x: -g)
rule(tt.exp, lambda g, out, x: g * out)
rule(tt.log, lambda g, out, x: g / x)

# Read the row of `mul` aloud: the gradient of `x` is `g` times `y`. The row of `exp` uses `out`, since $e^x$ is its own
# derivative and we have computed it already. In the row of the quotient $x / y$ only the second function needs a
# thought: the derivative of $y^{-1}$ is $-y^{-2}$. So we give that function a name.


def _div_right(g, out, x, y):  # exercise
    """The vector-Jacobian product of x / y with respect to y: the share of y."""
    return -g * out / y


rule(tt.div, lambda g, out, x, y: g / y, _div_right)

# We write these functions with operators that work on tensors and on plain arrays alike, on purpose. A backward pass
# runs them on arrays, which is faster. For the derivative of a derivative we run them on tensors, and the door records
# them like any other computation.
#
# Views only rearrange elements, so their rules put the elements back.

rule(tt.reshape, lambda g, out, x, shape: g.reshape(x.shape))
rule(tt.permute, lambda g, out, x, dims: tt.permute(g, dims=tuple(np.argsort(dims).tolist())))
rule(tt.expand, lambda g, out, x, shape: g)
rule(tt.getitem, lambda g, out, x, index: tt.place(g, index=index, shape=x.shape))
rule(tt.place, lambda g, out, values, index, shape: tt.getitem(g, index=index))

# Every element contributes to a sum with weight 1, so every element receives the whole of `g`. The rule only has to
# give `g` the shape of the input again. It first restores the summed dimensions with size 1 and then expands them to
# the sizes of the input.


def with_summed_dims(g, x, dim, keepdim):
    """Return g with the dimensions that a reduction of x over `dim` removed, restored with size 1."""
    if keepdim or g.ndim == x.ndim:
        return g
    dims = dim if isinstance(dim, (tuple, list)) else [dim]
    gone = range(x.ndim) if dim is None or not dims else [d % x.ndim for d in dims]
    return g.reshape(tuple(1 if d in gone else n for d, n in enumerate(x.shape)))


def _sum_vjp(g, out, x, dim=None, keepdim=False):  # exercise
    """The vector-Jacobian product of the sum of x over `dim`: the share of x, in its shape."""
    return tt.expand(with_summed_dims(g, x, dim, keepdim), shape=x.shape)


rule(tt.sum, _sum_vjp)

# `expand` repeats its input, so the gradient of the input ought to be the sum over the copies. Our rule nevertheless
# returns `g` as it is, and so do `add` and `mul` when an operand was broadcast. Instead of undoing broadcasting in each
# rule, we undo it once, centrally, for every gradient that comes back in the wrong shape: we sum over the dimensions
# that were repeated.
#
# Two cases hide in that sentence. Dimensions that were *added* on the left must disappear, so we sum them away.
# Dimensions that had size 1 must keep size 1, so we sum them and keep them. Forgetting the second case is a classic
# mistake in home-made autograd, because the resulting shapes are nearly right.


def unbroadcast(g, shape: tuple[int, ...]):  # exercise
    """Return g summed over the dimensions along which `shape` was broadcast, so that the result has that shape. (A size
    of 1 may have been repeated 0 times, too.)"""
    extra = len(g.shape) - len(shape)
    if extra:
        g = tt.sum(g, dim=tuple(range(extra)))
    repeated = tuple(d for d, n in enumerate(shape) if n == 1 and g.shape[d] != 1)
    return tt.sum(g, dim=repeated, keepdim=True) if repeated else g


# ## The rule of the matrix product
#
# The most important row deserves a derivation. Let $C = AB$, so $C_{ij} = \sum_k A_{ik} B_{kj}$, and let $\bar C$ be
# given. The element $A_{ik}$ appears in row $i$ of $C$ only, in each $C_{ij}$ with the factor $B_{kj}$. The element
# $B_{kj}$ appears in column $j$ only, in each $C_{ij}$ with the factor $A_{ik}$. We add up what they receive:
#
# $$ \bar A_{ik} = \sum_j \bar C_{ij}\, B_{kj} = (\bar C B^T)_{ik}, \qquad
#    \bar B_{kj} = \sum_i A_{ik}\, \bar C_{ij} = (A^T \bar C)_{kj} . $$
#
# Many texts tell you to find these formulas by the shapes, because "nothing else fits". For square matrices that fails:
# $B \bar C$ fits as well, and it is wrong. Let the shapes remind you of the formula, and let the sums justify it.
#
# We treat a vector as a matrix with one row (on the left) or one column (on the right). The batch dimensions in front
# broadcast, and `unbroadcast` undoes that as it does for everything else.


def _as_matrices(g, x, y):
    """x and y, a vector as a matrix of one row (x) or one column (y), and g in the shape of their product."""
    batch = g.shape[: g.ndim - (x.ndim > 1) - (y.ndim > 1)]
    x = x if x.ndim > 1 else x.reshape((1, x.shape[0]))
    y = y if y.ndim > 1 else y.reshape((y.shape[0], 1))
    return g.reshape((*batch, x.shape[-2], y.shape[-1])), x, y


# As in chapter 02, we compute a stack of matrices times one matrix as a single product of all rows, because that is
# faster.


def _times(x, y):
    """x @ y for matrices and stacks of them."""
    if x.ndim > 2 and y.ndim == 2:
        return (tt.as_rows(x) @ y).reshape((*x.shape[:-1], y.shape[-1]))
    return x @ y


# With these two helpers, each gradient is a single line of mathematics. Only the shape remains. If `x` was a vector,
# its gradient comes out as a matrix of one row, and `unbroadcast` turns it into a vector again. If `y` was a vector,
# its gradient comes out as a column, which needs a reshape.


def _matmul_left(g, out, x, y):  # exercise
    """The vector-Jacobian product of x @ y with respect to x, the share of x, for matrices, stacks of them, and
    vectors; in the shape of x, or with more dimensions in front, which `unbroadcast` sums away."""
    g, _, columns = _as_matrices(g, x, y)
    return _times(g, columns.mT)


def _matmul_right(g, out, x, y):  # exercise (starred)
    """The vector-Jacobian product of x @ y with respect to y, the share of y, for matrices, stacks of them, and
    vectors; in the shape of y, or with more dimensions in front, which `unbroadcast` sums away."""
    g, rows, columns = _as_matrices(g, x, y)
    dy = tt.as_rows(rows).mT @ tt.as_rows(g) if columns.ndim == 2 else rows.mT @ g
    return dy if y.ndim > 1 else dy.reshape(y.shape)


rule(tt.matmul, _matmul_left, _matmul_right)

# ## Rules of nonlinear functions
#
# The most used function of chapter 03 has the simplest slope: that of `relu` is 1 where $x$ is positive and 0
# elsewhere. We are tempted to multiply `g` by a mask of ones and zeros, and that is nearly right. The next operation
# may send an infinite gradient, however, and $0 \cdot \infty$ is `nan`. An element that plays no part must receive
# exactly 0, whatever arrives.
#
# Therefore our rules never multiply a gradient by a mask. They call `kept`, which multiplies the *bits* of the
# gradient, because a float whose bits are all 0 is 0. (`np.where` gives the same result, and takes about ten times
# as long when the mask is irregular.)


@tt.primitive
def kept(mask, g, /):
    """Return g where the mask is true, and exactly 0 elsewhere, even where g is inf or nan."""
    bits = g.view(f"i{g.itemsize}")
    return (bits * np.asarray(mask, bool)).view(g.dtype)


rule(kept, None, lambda g, out, mask, x: kept(mask, g))


def _relu_vjp(g, out, x):  # exercise
    """The vector-Jacobian product of relu(x), the share of x: g where x is positive, and exactly 0 elsewhere, even
    where g is inf or nan."""
    return kept(out != 0, g)


rule(tt.relu, _relu_vjp)

# In `log_softmax` every output of a row depends on every input of that row: $\mathrm{out}_i = x_i - \ln \sum_j
# e^{x_j}$. Here the Jacobian has no zeros, and the vector-Jacobian product takes two terms. First, $x_i$ changes its
# own output, with derivative 1. Second, it changes *all* outputs of the row through the logarithm, whose derivative
# with respect to $x_i$ is $e^{x_i} / \sum_j e^{x_j}$, the softmax probability of $x_i$. That probability is
# $e^{\mathrm{out}_i}$, so we need not compute it again. Add up what $x_i$ receives from all outputs:


def _log_softmax_vjp(g, out, x, dim):  # exercise
    """The vector-Jacobian product of log_softmax(x, dim): the share of x."""
    return g - tt.exp(out) * tt.sum(g, dim=dim, keepdim=True)


rule(tt.log_softmax, _log_softmax_vjp)

# In chapter 05 we derived the same on paper. There only the output of the right class counted, with $-1$. The gradient
# was the probability that the network assigns minus the probability that is true, and our rule must agree.


def check_log_softmax_by_hand():
    x, right = Tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 0.1]], requires_grad=True), np.array([[0, 0, 1], [1, 0, 0]])
    (tt.log_softmax(x, dim=1) * Tensor(-right)).sum().backward()
    assert np.allclose(x.grad.numpy(), tt.softmax(x.detach(), dim=1).numpy() - right, atol=1e-6)


# If you invent a primitive tonight, you can give it a row tonight. Here is one: $x / (1 + |x|)$ saturates like tanh,
# but needs no exponential function. We write its rule with operators and with `tt.abs`, because NumPy's `abs` does not
# accept a tensor that must be recorded.


@tt.primitive
def softsign(x, /):
    """Return x / (1 + |x|)."""
    return x / (1 + np.abs(x))


rule(softsign, lambda g, out, x: g / (1 + tt.abs(x)) ** 2)

# The referee checks each new row. We will write `check_gradients`, which calls it, in "The witness".


def check_rows_by_referee():
    x = Tensor([-2.0, -0.5, 0.3, 4.0], np.float64, requires_grad=True)
    check_gradients(softsign, x)
    check_gradients(tt.relu, x)
    check_gradients(lambda x: tt.log_softmax(x, dim=0), x)


# Comparisons have no useful derivative at all. We put them into the set `NO_GRADIENT`, where you can see them. A
# primitive that is in neither place is a mistake, and we will report it at the line that used it.

NO_GRADIENT.update({tt.eq, tt.ne, tt.lt, tt.le, tt.gt, tt.ge})

# ## The record
#
# We call a result that has a history `Traced`. It *is* the node of the computational graph: it remembers the rule of
# the primitive, the inputs and the parameters, and when it was made, as a reading of the clock of chapter 02. A node
# refers to its inputs, never to its outputs. So there are no cycles, and the memory is freed as soon as the last
# reference to a result is gone.
#
# A node is thus a tensor that fills six fields which are otherwise empty. They are the slots that we reserved
# in chapter 02, because for small tensors a separate node object would cost more than the arithmetic. A tensor that was
# not computed by a recorded operation, such as a parameter, is a *leaf*. There the way back ends.
#
# (The class `Recorded` comes from an appendix of the same name, which also shows what happens to the record if you
# change a result in place, by `y += x`.)


class Traced(Recorded, Tensor):
    """The result of an operation on a tensor that requires a gradient; it knows how it was computed."""

    __slots__ = ()
    _primitive: tt.Primitive
    _rules: Any  # a function for each input, or None for an input without a gradient; or one function for all
    _inputs: Any
    _params: dict[str, Any]
    _made: int
    is_leaf = False

    def backward(self, gradient=None, retain_graph=None, create_graph=False):
        """Add the derivative of this tensor with respect to each leaf to the leaf's `.grad`. See `backward`."""
        backward(self, gradient, retain_graph, create_graph)


# To you it is a tensor, so messages call it that.

Traced.__name__ = "Tensor"
for _method in filter(inspect.isfunction, [*vars(Recorded).values(), *vars(Traced).values()]):
    _method.__qualname__ = f"Tensor.{_method.__name__}"

# Whether we record is a switch. Each thread has its own, because a thread that evaluates a model must not stop another
# from training it. (Every thread starts with the class attributes of a `threading.local`.)


class _Mode(threading.local):
    enabled = True

    def __init__(self):
        self.before: list[bool] = []


_mode = _Mode()
_new = Traced.__new__


# The recorder itself is short. It lets the kernel compute. Then, if the switch `_mode.enabled` is on and one of the
# inputs requires a gradient, it turns the result into a node, by calling `_remembered` below. We remember the inputs as
# they were passed, as tensors and not as arrays, because they are the way back.


def record(next, primitive, tensors, params):  # exercise
    """The interpreter that remembers: return what `next` computes, as a `Traced` tensor if recording is on and any
    input requires a gradient."""
    out = next(primitive, tensors, params)
    if not _mode.enabled:
        return out
    for tensor in tensors:
        if tensor.requires_grad:
            break
    else:
        return out
    return _remembered(out._array, primitive, tensors, params)


# A result that does not consist of floating-point numbers, such as the index that `argmax` returns or a cast to
# integers, gets no history, because there is nothing to differentiate.


def _remembered(array, primitive, tensors, params):
    rules = RULES.get(primitive)
    if rules is None or array.dtype.kind != "f":
        return _without_history(array, primitive)
    node = _new(Traced)
    if type(rules) is not tuple:  # one function for all inputs, which may depend on the result
        rules = rules(array)
    node._array, node._requires_grad, node.grad, node._hooks = array, True, None, None
    node._primitive, node._rules, node._inputs, node._params = primitive, rules, tensors, params
    node._made, node._watched = tick(), False
    return node


# Here we also notice a primitive without a rule: its result would silently have no gradient.


def _without_history(array, primitive):
    if primitive not in RULES and primitive not in NO_GRADIENT:
        raise NotImplementedError(
            f"{primitive.name} has no rule: enter its derivatives with rule({primitive.name}, ...), or add it to "
            "NO_GRADIENT"
        )
    return tt.from_numpy(array)


install(record)

# That one line, run at import, is all that connects this package to the other two, and neither of them knows about it.

# ## Switching it off
#
# Validation and updates need no record, so we want a block in which the switch is off. Nested blocks must work, and so
# must leaving a block by an error: the switch returns to its earlier state, which is not always *on*.
#
# Where do we keep the earlier state meanwhile? It cannot be kept in the `no_grad` object. That object may decorate a
# function that calls itself, or one that runs on two threads at once, and then we enter it several times before we
# leave it. So we push the earlier states onto a stack, the list `_mode.before`, and each thread has a stack of its own.


class no_grad(Decorator):
    """A block, or a function of any kind, in which nothing is recorded on this thread."""

    _to = False

    def __enter__(self):  # exercise
        """Push the current state of the switch onto the stack `_mode.before`, and set the switch to `_to`."""
        _mode.before.append(_mode.enabled)
        _mode.enabled = self._to

    def __exit__(self, *exception):  # exercise
        """Set the switch to the state that it had on entering. Exceptions propagate."""
        _mode.enabled = _mode.before.pop()


# Its opposite differs in one word.


class enable_grad(no_grad):
    """A block, or a function, in which operations are recorded, even inside `no_grad`."""

    _to = True


def is_grad_enabled() -> bool:
    """Return whether operations are being recorded on this thread."""
    return _mode.enabled


# ## Walking back
#
# Now we can walk along the record from the end to the beginning. We may process a node only when we have processed all
# of its consumers, because before that its gradient is not complete. A careless depth-first walk gets this wrong as
# soon as a value is used at two depths. The nodes must come in *topological order*, and we get that order for free: a
# node was always made after its inputs, so *the order of creation is a topological order*, and the clock has written it
# down.
#
# The walk keeps two things. A dictionary holds the gradient that each tensor has received so far. A heap hands out the
# *latest* node that has received anything. When a node comes off the heap, all its consumers have been processed,
# because a consumer is always made later. So its gradient is complete. The rule of the node turns this gradient into
# shares for the inputs, and the first share that arrives at an input puts that input on the heap.
#
# This settles the three complaints about `Value`. There is no recursion, so a chain of twenty thousand operations is no
# problem. Each node comes off the heap once, so neither is a graph with $2^{60}$ paths. And a node holds an array, not
# a number.

# ## A backward pass by hand
#
# Before we write the walk, let us do one by hand, on four nodes. Let $x = 2$, and compute $a = x \cdot x$ at time 1,
# $b = a \cdot x$ at time 2, and $y = a + b$ at time 3. So $y = x^2 + x^3$, and at $x = 2$ its slope is
# $2x + 3x^2 = 16$. The figure shows what the walk knows after each of its three turns:
#
# 1. We start with $\bar y = 1$. The latest node is $y$. Its rule, that of `add`, sends 1 to $a$ and 1 to $b$.
# 2. On the heap are $a$ and $b$, and $b$ is the later one. Its rule, that of `mul`, sends $\bar b\, x = 2$ to $a$,
#    which now has 3, and $\bar b\, a = 4$ to $x$.
# 3. Only $a$ is left, and both of its consumers have reported. It sends $\bar a\, x = 6$ to $x$ for each of its two
#    factors, and $x$ ends with $4 + 6 + 6 = 16$.
#
# A walk that took $a$ before $b$ would multiply only the 1 that has arrived by then, and would answer 8.


def show_worked_example():
    """The graph of y = x*x + x*x*x at x = 2 after each of three turns of the walk; an orange node sends its shares."""
    import matplotlib.pyplot as plt

    x = Tensor(2.0, requires_grad=True)
    a = x * x
    b = a * x
    y = a + b
    nodes, at = {"x": x, "a": a, "b": b, "y": y}, {"x": (0, 0), "a": (1, 1), "b": (2, 0), "y": (3, 1)}
    walk, complete = Walk([y], [tt.ones(())], create_graph=False), {}
    figure, axes = plt.subplots(1, 3, figsize=(12, 2.6), sharex=True, sharey=True)
    for axis, (turn, g) in zip(axes, walk.latest_first()):
        walk.share_out(turn, g, None)
        complete[id(turn)] = g
        for start, end in ("xa", "xb", "ab", "ay", "by"):
            color = "tab:orange" if nodes[end] is turn else "tab:gray"
            arrow = {"arrowstyle": "<|-", "shrinkA": 26, "shrinkB": 26, "color": color}
            axis.annotate("", at[end], at[start], arrowprops=arrow)
        for name, node in nodes.items():
            gradient = complete.get(id(node), walk.arrived.get(id(node)))
            text = f"{name} = {node.item():g}" + ("" if gradient is None else f"\ngradient {gradient:g}")
            box = {"boxstyle": "round", "facecolor": "none", "edgecolor": "tab:orange" if node is turn else "tab:gray"}
            axis.text(*at[name], text, ha="center", va="center", fontsize=9, bbox=box)
        axis.set(xlim=(-0.6, 3.6), ylim=(-0.5, 1.5))
        axis.axis("off")
    figure.tight_layout()
    return figure


# ## The walk
#
# Here is the same walk, written as a class. It starts at one or several outputs, each with a gradient of its own (its
# *seed*).


class Walk:
    """One backward pass from results to the tensors that they were computed from: the gradient that each tensor has
    received so far, and the nodes that wait for their turn."""

    def __init__(self, outputs, seeds, create_graph: bool):
        self.on_arrays, self.create_graph = not create_graph and not listening(), create_graph
        self.arrived: dict[int, Any] = {}
        self.heap: list[tuple[int, Traced]] = []
        self.leaves: list[Tensor] = []
        for output, seed in zip(outputs, seeds):
            if output.requires_grad:
                self.arrive(output, seed._array if self.on_arrays else seed)

    # Everything that the walk reaches requires a gradient, and is a node or a leaf. Nodes go onto the heap with the
    # negative of their time, because Python's heap hands out the smallest entry first. No two nodes have the same time.
    # Leaves have no inputs, so we set them aside until the end, when everything has arrived for them.
    #
    # An array that arrives may belong to others as well: the rule of `add` hands the same array to both inputs. So we
    # add shares by making a new sum, never in place.

    def arrive(self, tensor, share) -> None:  # exercise
        """Add a share to the gradient of a tensor, which `arrived` holds under the tensor's id. The first share puts a
        node on the heap, as (-time, node), and appends any other tensor to the leaves."""
        key, arrived = id(tensor), self.arrived
        if key in arrived:
            arrived[key] = arrived[key] + share
            return
        arrived[key] = share
        if type(tensor) is Traced:
            heappush(self.heap, (-tensor._made, tensor))
        else:
            self.leaves.append(tensor)

    # The order of the walk follows from this: next is always the latest node that waits, with its whole gradient.

    def latest_first(self):  # exercise
        """Take the latest node off the heap and yield (node, its gradient), until no node waits. The gradient is
        removed from `arrived`."""
        while self.heap:
            node = heappop(self.heap)[1]
            yield node, self.arrived.pop(id(node))

    # When a node's turn comes, we call its rule for each input that needs a gradient. `useful` is the set of ids of the
    # tensors that lead to the inputs in question, or None if all do. `grad`, below, uses it to skip all others.

    def share_out(self, node, g, useful) -> None:  # exercise
        """Turn the gradient g of a node into shares for its inputs, in the inputs' shapes, and let them arrive. The
        rules get arrays if `on_arrays`, else tensors. An input that requires no gradient, has None for a rule or is not
        in `useful` is skipped, and its rule is not called."""
        inputs, out = node._inputs, node
        values = inputs
        if self.on_arrays:
            values, out = [t._array for t in inputs], node._array
        for share_of, tensor in zip(node._rules, inputs):
            if tensor.requires_grad and share_of is not None and (useful is None or id(tensor) in useful):
                share = share_of(g, out, *values, **node._params)
                if share.shape != tensor._array.shape:
                    share = unbroadcast(share, tensor._array.shape)
                self.arrive(tensor, share)

    # A rule that is one function for all inputs answers for all of them at once.

    def share_out_together(self, node, g, useful) -> None:
        """Do the same as `share_out` for a node whose rule is one function for all inputs."""
        needed = [t.requires_grad and (useful is None or id(t) in useful) for t in node._inputs]
        values = [t._array if self.on_arrays else t for t in (node, *node._inputs)]
        for tensor, wanted, share in zip(node._inputs, needed, node._rules(needed, g, *values, **node._params)):
            if wanted and share is not None:
                self.arrive(tensor, unbroadcast(share, tensor._array.shape))

    # `run` visits the nodes in this order, and then the leaves. `keep` is a function, supplied by `backward` or `grad`
    # below, that stores a gradient. If a rule fails, Python attaches to the error a note that names the rule.

    def run(
        self, keep: Callable[[Tensor, Any], Any], retain_graph: bool, wanted: set | None = None,
        useful: set | None = None,
    ) -> None:
        """Walk. A tensor whose gradient may be wanted is passed to `keep`, which returns the gradient to continue
        with."""
        newest = last_write()
        with quiet(), enable_grad() if self.create_graph else no_grad():
            for node, g in self.latest_first():
                if node._rules is None or node._made < newest:
                    _refuse_if_stale(node)
                if node._watched or node._hooks or (wanted and id(node) in wanted):
                    g = keep(node, g)
                try:
                    (self.share_out if type(node._rules) is tuple else self.share_out_together)(node, g, useful)
                except Exception as error:
                    name = node._primitive.name
                    error.add_note(f"in the backward pass, at the rule of {name} for shape {node.shape}")
                    raise
                if not retain_graph:
                    node._inputs, node._rules = (), None
        for leaf in self.leaves:
            keep(leaf, self.arrived.pop(id(leaf)))


# Notice two details. An ordinary pass runs the rules on arrays, as we promised. With `create_graph`, or when a meter is
# listening, it runs them on tensors and through the door. Moreover, a node drops its inputs as soon as we have
# processed it, so the memory shrinks while the walk continues.
#
# The clock of chapter 02 earns its keep here. A rule such as that of `mul` reads the inputs again. If they have been
# overwritten since, the gradient would be silently wrong. So we ask whether the inputs or the result of a node were
# written to after it was made.


def _refuse_if_stale(node: Traced) -> None:
    if node._rules is None:
        raise RuntimeError(
            f"backward a second time through {node._primitive.name} of shape {node.shape}: its record was freed "
            "by the first pass. "
            "Give the first one retain_graph=True if you need both"
        )
    for name, tensor in [("its result", node), *((f"its input {i}", t) for i, t in enumerate(node._inputs))]:
        if last_write(tensor) > node._made:
            raise RuntimeError(
                f"{node._primitive.name}: {name}, of shape {tensor.shape}, was changed in place after the forward pass "
                f"(recorded at version {node._made}, now at version {last_write(tensor)}). Change it after "
                "backward(), or change a clone()"
            )


# ## What the user sees
#
# Two functions start a walk. `backward` adds the gradients to `.grad`. `grad` returns the gradients and leaves `.grad`
# alone. Both start from a single number, whose derivative with respect to itself is one. If the output is larger, the
# caller must say how much each of its elements counts.
#
# In practice the output is nearly always a single number: a loss, a mean, a sum of squares. Then the gradient has the
# shape of the parameter itself.


def _seed(output: Tensor, gradient) -> Tensor:
    if gradient is None:
        if output.numel() != 1:
            raise RuntimeError(
                f"backward needs a single number to start from, this tensor has shape {output.shape}; reduce it "
                "(.sum(), .mean()) or pass gradient="
            )
        return tt.from_numpy(np.ones(output.shape, output.dtype))
    gradient = gradient if isinstance(gradient, Tensor) else Tensor(gradient, output.dtype)
    if gradient.shape != output.shape:
        raise RuntimeError(f"the gradient has shape {gradient.shape}, the tensor {output.shape}; they must be equal")
    return gradient.to(output.dtype)


# The walk passes each leaf, with its whole gradient, to `keep`, and each result that you watch (by `retain_grad`).


def backward(output: Tensor, gradient=None, retain_graph: bool | None = None, create_graph: bool = False) -> None:
    """Add d(output)/d(leaf) to `.grad` of every leaf that requires a gradient and took part in computing `output`.

    `gradient` weighs the elements of an output that is not a single number. The record is freed unless `retain_graph`
    (default: `create_graph`).
    Raises RuntimeError without history, for a second pass over a freed record, and if a value was overwritten in the
    meantime."""
    if not isinstance(output, Traced):
        return Tensor.backward(output)
    seed = _seed(output, gradient)
    walk, owner = Walk([output], [seed], create_graph), {id(seed._array)}

    def keep(tensor, g):
        g = _as_gradient(tensor, g, owner)
        if tensor.is_leaf or tensor._watched:
            with _adding:
                tensor.grad = g if tensor.grad is None else tensor.grad + g
        return g._array if walk.on_arrays else g

    walk.run(keep, create_graph if retain_graph is None else retain_graph)


# Several threads may walk back to one leaf. Reading `.grad`, adding to it and writing it back must then be one act, or
# the gradient of one thread gets lost. The lock `_adding` makes it one.

_adding = threading.RLock()

# Before we store a gradient in `.grad`, it must have memory of its own. The rule of `add` hands the same `g` to both
# inputs, that of `reshape` returns a view, and the seed may belong to the caller. If the gradients of two parameters
# shared memory, we would clip both when we clip one. So `owner` lists the arrays that we have given away already. At
# this moment, too, the hooks (`register_hook`, chapter 02) see the gradient and may replace it.


def _as_gradient(tensor: Tensor, g, owner: set[int]) -> Tensor:
    g = g.to(tensor.dtype) if isinstance(g, Tensor) else tt.from_numpy(np.asarray(g, tensor.dtype))
    for hook in tensor._hooks or ():
        answer = hook(g)
        g = g if answer is None else _answer_of_hook(answer, g)
    if g._array.base is not None or id(g._array) in owner:
        g = g.clone()
    owner.add(id(g._array))
    return g


# A hook may return a new gradient, which must fit in the place of the old one.


def _answer_of_hook(answer, g: Tensor) -> Tensor:
    if not isinstance(answer, Tensor):
        raise TypeError(f"a hook returns a tensor to replace the gradient, or None, not {type(answer).__name__}")
    if (answer.shape, answer.dtype) != (g.shape, g.dtype):
        raise RuntimeError(
            f"a hook got a gradient of shape {g.shape} and dtype {g.dtype} and returned one of shape {answer.shape} "
            f"and dtype {answer.dtype}; both must stay as they are"
        )
    return answer.clone()


# For the derivative of a derivative, `grad` with `create_graph=True` records the walk. It then returns the results of
# recorded operations like any others, and we can differentiate them again with the same table.


def grad(
    outputs, inputs, grad_outputs=None, create_graph: bool = False, retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> tuple:
    """Return the derivatives of `outputs` (a tensor or several, summed) with respect to `inputs`, as a tuple; `.grad`
    does not change.

    With `create_graph` the derivatives can be differentiated again. Raises RuntimeError for an input that plays no
    part, unless `allow_unused`, which gives None for it."""
    outputs, inputs = _listed(outputs), _listed(inputs)
    seeds = _seeds(outputs, grad_outputs)
    walk, owner = Walk(outputs, seeds, create_graph), {id(s._array) for s in seeds}
    found: dict[int, Tensor] = {}
    wanted = {id(t) for t in inputs}

    def keep(tensor, g):
        g = _as_gradient(tensor, g, owner)
        if id(tensor) in wanted:
            found[id(tensor)] = g
        return g._array if walk.on_arrays else g

    walk.run(keep, create_graph if retain_graph is None else retain_graph, wanted, _on_the_way(outputs, inputs))
    for position, tensor in enumerate(inputs):
        if id(tensor) not in found and not allow_unused:
            raise RuntimeError(
                f"input {position}, of shape {tensor.shape}, plays no part in the outputs; pass allow_unused=True "
                "to get None for it"
            )
    return tuple(found.get(id(t)) for t in inputs)


# Each output has a seed of its own. We accept a single tensor in place of a list of one, here and for the inputs.


def _seeds(outputs, grad_outputs) -> list[Tensor]:
    weights = [None] * len(outputs) if grad_outputs is None else _listed(grad_outputs)
    if len(weights) != len(outputs):
        raise RuntimeError(f"grad got {len(outputs)} outputs and {len(weights)} grad_outputs; give one for each output")
    return [_seed(o, g) for o, g in zip(outputs, weights)]


# An array or a number in the list is a mistake that we want to name.


def _listed(tensors) -> list:
    if isinstance(tensors, Tensor):
        return [tensors]
    listed = list(tensors) if isinstance(tensors, Iterable) else [tensors]
    for tensor in listed:
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"one tensor or several are needed, not {type(tensor).__name__}")
    return listed


# If you ask for the gradient of the last layer's weights, we need not compute those of all other layers. So we look
# through the graph beforehand, mark the nodes that lead to the inputs in question, and let the walk skip the rest.


def _on_the_way(outputs, inputs) -> set[int]:
    nodes: dict[int, Traced] = {}
    stack = [o for o in outputs if type(o) is Traced]
    while stack:
        node = stack.pop()
        if node._rules is None or any(t._made > node._made for t in node._inputs if type(t) is Traced):
            _refuse_if_stale(node)  # `y += x` has made an input anew
        if node._made not in nodes:
            nodes[node._made] = node
            stack.extend(t for t in node._inputs if type(t) is Traced)
    useful = {id(t) for t in inputs}
    for made in sorted(nodes):
        if any(id(t) in useful for t in nodes[made]._inputs):
            useful.add(id(nodes[made]))
    return useful


# Here is the first thing that users of PyTorch type, and then the second derivative of $x^4$, for which we ask twice:
# $12x^2$.


def check_first_derivatives():
    x = Tensor(3.0, requires_grad=True)
    (x**2).backward()
    assert x.grad.item() == 6.0
    (second,) = grad(grad(x**4, x, create_graph=True)[0], x)
    assert second.item() == 12 * 3.0**2


# ## The witness
#
# We call the referee of chapter 05 again. `check_gradients` compares every gradient that `grad` returns with finite
# differences. It checks each input first. Then, since `create_graph` makes the gradient itself differentiable, it
# checks the gradient of the gradient.


def check_gradients(
    function: Callable, *inputs: Tensor, order: int = 2, eps: float = 1e-6, atol: float = 1e-6, rtol: float = 1e-5
) -> None:
    """Compare the gradients of `function(*inputs)` with central differences, up to second order by default.

    Inputs must be float64, those to be checked with requires_grad. Raises AssertionError that names the order, the
    input and the worst element."""
    watched = [t for t in inputs if t.requires_grad]
    if not watched or any(t.dtype != np.float64 for t in watched):
        raise ValueError(
            "check_gradients needs float64 inputs, at least one of which requires a gradient; finite differences "
            "drown in float32's rounding"
        )
    weights: list[Tensor] = []

    def weighted():
        return _weighed(_listed(function(*inputs)), weights)

    _compare(weighted, watched, 1, eps, atol, rtol)
    if order > 1:
        more: list[Tensor] = []
        _compare(
            lambda: _weighed(grad(weighted(), watched, create_graph=True, allow_unused=True), more), watched, 2, eps,
            atol, rtol,
        )


# We turn an output of many elements into one number by weighing its elements with fixed random weights, because a plain
# sum would not notice two elements that were swapped.
#
# The second-order check is the first-order check, applied to the gradient. For a referee, *second order* need not mean
# more than that.


def _weighed(outputs, weights: list[Tensor]) -> Tensor:
    outputs = [o for o in outputs if o is not None]
    if not weights:
        random = np.random.default_rng(len(outputs))
        weights += [Tensor(random.uniform(0.5, 1.5, o.shape)) for o in outputs]
    total = Tensor(np.zeros(()))
    for output, weight in zip(outputs, weights):
        total = total + (output * weight).sum()
    return total


# If a comparison fails, its error must say where. It names the order, the input, the worst element, and what each side
# thinks of it.


def _compare(scalar, watched, order, eps, atol, rtol):
    result = scalar()
    ours = grad(result, watched, allow_unused=True) if result.requires_grad else (None,) * len(watched)
    for position, (tensor, gradient) in enumerate(zip(watched, ours)):
        found = np.zeros(tensor.shape) if gradient is None else gradient.numpy()
        with enable_grad() if order > 1 else no_grad():
            expected = tt.losses.slope(scalar, tensor, eps)
        wrong = ~np.isclose(found, expected, rtol=rtol, atol=atol, equal_nan=False)
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise AssertionError(
                f"gradient of order {order} with respect to input {position}, shape {tensor.shape}: at {at} it is "
                f"{found[at]:.6g}, finite differences say {expected[at]:.6g}; {wrong.sum()} of {wrong.size} "
                "elements are off"
            )


# We check a mixture of everything: broadcasting, a reduction that keeps its dimension, a matrix product, an index.


def check_by_referee():
    random = np.random.default_rng(0)
    x, y = (Tensor(random.uniform(0.5, 2, shape), requires_grad=True) for shape in ((3, 4), (4,)))
    check_gradients(lambda x, y: (x * y).exp() / (y + x.sum(1, keepdim=True)), x, y)
    check_gradients(lambda x, y: x @ y + x.log()[:, 1], x, y)


# The referee is independent, but it is not infallible. At a corner it takes the mean of two slopes, and at large values
# it drowns in rounding. Here are `relu` at 0, where we return 0 by convention, and $x^3$ at a million, whose slope is
# exactly $3 \cdot 10^{12}$:


def show_limits_of_the_referee():
    for name, function, value in (("relu", tt.relu, 0.0), ("x**3", lambda x: x**3, 1e6)):
        x = Tensor(np.array(value), requires_grad=True)
        by_differences = tt.losses.slope(lambda: function(x).sum(), x).item()
        print(f"{name} at {value:g}: autograd {grad(function(x), x)[0].item():.9g}, referee {by_differences:.9g}")


# So where the two disagree, the referee may be the one at fault, and it is worth finding out. That is why we check at
# points without corners, and with values near 1.
#
# The second witness is our own paper. The formulas of chapters 05 and 06, which took us some effort, must come out of
# the table: the two for the losses, and the four for XOR, on the saved numbers on which the referee judged them then.


def check_losses_by_hand():
    z, labels, wanted = tt.losses.loss_case()
    z.requires_grad_()
    (of_entropy,), (of_mse,) = grad(tt.cross_entropy(z, labels), z), grad(tt.mse_loss(z, wanted), z)
    assert np.allclose(
        of_entropy.numpy(), tt.losses.cross_entropy_gradient(z.data, labels).numpy(), rtol=1e-12, atol=1e-15
    )
    assert np.allclose(of_mse.numpy(), tt.losses.mse_gradient(z.data, wanted).numpy(), rtol=1e-12, atol=1e-15)


# For XOR we run the function of chapter 06 first, and `backward` afterwards, on the same weights.


def check_network_by_hand():
    network, x, wanted = xor_case()
    xor_gradients_by_hand(network, x, wanted)
    by_hand = [p.grad.numpy() for p in network.parameters()]
    network.zero_grad()
    tt.binary_cross_entropy_with_logits(network(x), wanted).backward()
    assert all(np.allclose(p.grad.numpy(), g, rtol=1e-12, atol=1e-15) for p, g in zip(network.parameters(), by_hand))


# They agree to twelve digits, since both do the same arithmetic. Backpropagation has saved us only the evening on
# paper.
#
# (If a `nan` appears in a backward pass, or if you want to see a graph as a picture, look into the appendix *More
# autograd*: `detect_anomaly` finds the operation that made the `nan`, and `graph` draws the record.)

# ## The cost
#
# The expensive part of a network is its matrix products, so let us count them. Before you read on, make a prediction:
# which products does a training step compute, and which of them does the walk skip?


def predict_products() -> tuple[int, int, int]:  # exercise
    """Return how many products of two matrices the network Linear(64, 32), ReLU, Linear(32, 10) takes for a batch of
    inputs that require no gradient, as three numbers: in the forward pass with the loss, in `loss.backward()`, and in
    `grad(loss, w)`, where w is the weight of the last layer. (The sum for a bias is not counted.)"""
    return 2, 3, 1


# For each matrix product of the forward pass the rule needs two, one for each input, and each takes as many
# multiply-adds as the original. So the backward pass should cost twice the forward pass. It costs a little less,
# because we need no gradient of the input data, and with one function *per input* we do not compute it. Each bias adds
# a third, small product: its gradient is the sum of the rows of `g`, which we compute as a product with ones. The meter
# sees the backward pass, too, so we can compare the formula with the count.


def show_cost():
    network, x, labels = tt.layers.digits_network(), tt.rand(256, 64), tt.tensor([i % 10 for i in range(256)])
    with tt.meter() as forward:
        loss = tt.cross_entropy(network(x), labels)
    with tt.meter() as back:
        loss.backward()
    layers = [m for m in network if isinstance(m, tt.Linear)]
    sizes, biases = [256 * m.in_features * m.out_features for m in layers], [256 * m.out_features for m in layers]
    expected = {"forward": sum(sizes), "backward": 2 * sum(sizes) - sizes[0] + sum(biases)}
    for (name, formula), counted in zip(expected.items(), (forward, back)):
        products = counted.multiply_adds["affine"] + counted.multiply_adds["matmul"]
        print(
            f"{name:9s} products {products:10,d} multiply-adds, formula {formula:10,d}; all in all "
            f"{counted.multiply_adds.total():10,d}, {counted.bytes.total() / 1e6:.1f} MB"
        )


# The formula counts multiply-adds. The clock has its own opinion, because with small arrays the work around the
# arithmetic dominates.


def show_time():
    network, x, labels = tt.layers.digits_network(), tt.rand(256, 64), tt.tensor([i % 10 for i in range(256)])

    def forward():
        return tt.cross_entropy(network(x), labels)

    with no_grad():
        alone = measure(forward).seconds
    recorded, both = measure(forward).seconds, measure(lambda: forward().backward()).seconds
    print(
        f"forward {alone * 1e6:.0f} us, recorded {recorded * 1e6:.0f} us, with backward {both * 1e6:.0f} us: "
        f"{both / alone:.1f} times the forward pass"
    )


# We owe the diamonds a second try: sixty of them have $2^{60}$ paths, but our walk makes sixty visits. We also walk
# along a chain of twenty thousand steps, where a recursive walk would have given up after a thousand.


def show_tape():
    x = Tensor(1.0, requires_grad=True)
    for name, step, count in (("60 diamonds", lambda t: t + t, 60), ("a chain of 20,000", lambda t: t * x, 20_000)):
        seconds = tt.median_time(lambda: _chain(step, x, count).backward(), runs=3)
        print(f"{name:18s} {seconds * 1e3:8.2f} ms, {seconds / count * 1e6:.1f} us a step")


# (The helper applies a step again and again.)


def _chain(step, value, count):
    for _ in range(count):
        value = step(value)
    return value


# What does the record cost in memory? All intermediate results of a forward pass stay alive until the walk has passed
# them, because a rule may need them. They, and not the weights, fill a computer's memory in training. The memory is
# free again as soon as the walk has passed, or the last reference to the loss is gone. Python's garbage collector has
# nothing to do, because there are no cycles.

# ## Errors you will meet


def show_errors():
    x = Tensor([1.0, -4.0], requires_grad=True)

    def overwritten():
        weight = Tensor([1.0, -4.0], requires_grad=True)
        y = weight * weight
        with no_grad():
            weight[0] = 7.0
        y.sum().backward()

    def twice():
        y = (x * x).sum()
        y.backward()
        y.backward()

    for attempt in (lambda: (x * 2).backward(), twice, overwritten, lambda: tt.zeros(3).sum().backward()):
        try:
            attempt()
        except RuntimeError as error:
            print(f"{type(error).__name__}: {error}")


# ## Exercises
#
# 1. `hessian_vector_product`: the second derivatives of a function times a vector, without ever building the matrix.
#    Differentiate twice.
# 2. `jacobian`, with a star, so you may leave it out: all derivatives of all outputs, as an array (outputs, inputs).
#    One backward pass gives you one row, the vector-Jacobian product with a vector that has a single 1.


def hessian_vector_product(function: Callable[[Tensor], Tensor], x: Tensor, vector: Tensor) -> Tensor:  # exercise
    """Return the matrix of second derivatives at x of a function to one number, times a vector of the shape of x."""
    (first,) = grad(function(x), x, create_graph=True)
    return grad((first * vector).sum(), x)[0]


def check_hessian_vector_product():
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    assert hessian_vector_product(lambda v: (v**3).sum(), x, Tensor([1.0, 0.0, 2.0])).tolist() == [6.0, 0.0, 36.0]


# For the other exercise, `retain_graph` keeps the record for the next row.


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:  # exercise (starred)
    """Return d function(x)[i] / d x[j] for vectors, as an array of shape (outputs, inputs)."""
    out = function(x)
    rows = []
    for i in range(out.numel()):
        (row,) = grad(out[i], x, retain_graph=True)
        rows.append(row.numpy())
    return np.stack(rows)


def check_jacobian():
    matrix, x = Tensor(np.arange(6.0).reshape(2, 3)), Tensor(np.ones(3), requires_grad=True)
    assert np.array_equal(jacobian(lambda v: matrix @ v, x), matrix.numpy())


# ## A road not taken
#
# There are two ways to obtain a program for the derivatives. Ours, like PyTorch's, records while the program runs. Any
# Python will do, loops and conditions included, and we make a new record each time. JAX transforms the program instead:
# `grad(f)` is a new function. JAX finds it by running `f` once on stand-ins for numbers and transposing what it saw,
# and it can then compile the result as a whole. PyTorch has a table, too, a file `derivatives.yaml`, from which the C++
# nodes of its graph are generated when PyTorch is built.
#
# The opposite of reverse mode is *forward mode*, which carries derivatives along with the values. It is better for
# functions with few inputs and many outputs. A loss has one output and millions of inputs.

# ## What hurts next
#
# Training XOR now takes four lines: compute the loss, forget the old gradients, `backward`, `step`. Here they are, with
# the lines that we need around them.


def train_by_loop(steps: int = 1000) -> float:
    """Train an xor_network by a loop written out, and return its last loss."""
    network, (x, wanted) = tt.losses.xor_network(), tt.activations.xor_points()
    for _ in range(steps):
        loss = tt.binary_cross_entropy_with_logits(network(x), wanted)
        network.zero_grad()
        loss.backward()
        with no_grad():
            for parameter in network.parameters():
                parameter -= 0.5 * parameter.grad
    return loss.item()


def show_loop():
    lines = inspect.getsource(train_by_loop).strip().splitlines()
    print(f"loss {train_by_loop():.4f} after 1,000 steps, by {len(lines)} lines of which one is about XOR")


# Every program from here on will contain the other lines. Add mini-batches, shuffling, validation in the right mode and
# a way to continue after a power cut, and they become forty, slightly different each time. A loop that we write anew in
# every script will be wrong in one of them. So we write it once: chapter 08, *Training*.

__all__ = [
    "NO_GRADIENT", "RULES", "Traced", "Value", "Walk", "backward", "check_gradients", "enable_grad", "grad",
    "hessian_vector_product", "is_grad_enabled", "jacobian", "kept", "no_grad", "record", "rule", "softsign",
    "train_by_loop", "unbroadcast", "with_summed_dims",
]
