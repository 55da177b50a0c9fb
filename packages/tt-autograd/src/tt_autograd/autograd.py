# # Autograd
#
# At the end of this chapter we no longer derive the gradient of a network by hand: `loss.backward()` finds it, for
# every program written with our tensors, exactly, and for about the price of two more forward passes.

# ## The hurt
#
# Chapter 06 trained XOR with gradients that we wrote ourselves: six formulas for two layers, each derived on paper. It
# ended with a flipped sign that trained for a hundred steps without a complaint. The formulas grow with the network,
# and each of them is a chance to be wrong. The referee of chapter 05 does not share our mistakes, but it needs two
# runs of the network for every number in it.

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
from tt_tensor import Primitive, Tensor, install, interpreting, last_write, listening, measure, quiet, tick


# How the effort grows, for both ways:


def show_hurt():
    print(f"{'layers':>6s} {'lines by hand':>14s} {'runs by the referee':>20s}")
    for layers in (2, 4, 12, 96):
        width = 64
        print(f"{layers:6d} {3 * layers:14d} {2 * layers * (width * width + width):20,d}")


# (Three lines for each layer of 64 units: its weight's gradient, its bias's, and what it passes on. GPT-3 has 96
# layers, and they are not 64 units wide.)

# ## The smallest thing that could work
#
# Derivatives of a long computation follow from the derivatives of its steps: that is the chain rule, and a program can
# apply it. Let each number remember the numbers that it was made of, with the local derivative for each.
#
# `backward` receives `g`, the derivative of the final result with respect to this number. It must *add* `g` to the
# number's gradient, because a number that is used twice hears from both uses. Then it passes the message on: to each
# input goes `g` times the local derivative, which is the chain rule.


class Value:
    """A number that remembers how it was made: pairs of (input, derivative with respect to it)."""

    def __init__(self, number, made_of=()):
        self.number, self.made_of, self.gradient = number, made_of, 0.0

    def __add__(self, other):
        return Value(self.number + other.number, [(self, 1.0), (other, 1.0)])

    def __mul__(self, other):
        return Value(self.number * other.number, [(self, other.number), (other, self.number)])

    def backward(self, g=1.0):  # exercise
        """Add g to the gradient, and hand each input, by its own `backward`, what it gets of g."""
        self.gradient += g
        for value, slope in self.made_of:
            value.backward(g * slope)


def check_value():
    x, y = Value(3.0), Value(4.0)
    (x * y + x).backward()
    assert (x.gradient, y.gradient) == (5.0, 3.0)


# That is all the idea there is. A dozen lines, and they are right: $\partial(xy + x)/\partial x = y + 1$. Now let every
# step use the previous result twice, and count.


def show_diamonds():
    for steps in (5, 10, 15, 18):
        value = Value(1.0)
        for _ in range(steps):
            value = value + value
        print(f"{steps:2d} steps: {measure(value.backward, span=0.02).seconds * 1e3:9.3f} ms, dy/dx = {2**steps}")


# Five steps more take thirty times as long, because `backward` walks along every *path* from the result to where it
# began, and each step doubles the paths. Sixty steps would take thousands of years. It is recursive as well, and gives
# up at a depth of a thousand. And it makes an object for every single number, where we have arrays of a million.

# ## The idea: write down what comes through the door
#
# Whatever a program computes, it computes with primitives, and since chapter 02 all of them go through one door. So we
# put a recorder into the door that takes notes: which primitive, with which inputs, and what came out. Afterwards the
# chain rule walks along the notes *once*, from the end to the beginning. If $z = f(x, y)$, and $\bar z$ is the
# derivative of the final result with respect to $z$, then
#
# $$ \bar x \mathrel{+}= \bar z \, \frac{\partial f}{\partial x},
#    \qquad \bar y \mathrel{+}= \bar z \, \frac{\partial f}{\partial y} . $$
#
# Two things are needed: a table of derivatives with a row for each primitive, and the notes.
#
# (Six functions of chapter 02 come back here. `interpreting(fn)` puts an interpreter `fn` into the door for the length
# of a `with` block, and `install(fn)` puts it there permanently, on all threads. `listening()` says whether such a
# block is active that wants to see backward passes, too, as a meter does. `quiet()` keeps NumPy from warning of `inf`
# and `nan`. `tick()` is the next reading of the clock, so no two readings are equal, and `last_write(x)` is the reading
# at which the memory of `x` was last written to.)

# ## The table
#
# A row holds a function for each input. It receives $\bar z$ (called `g`), the result `out`, the inputs, and the
# parameters of the call, and returns that input's share.

RULES: dict[Primitive, tuple | Callable] = {}
NO_GRADIENT: set[Primitive] = set()


# Why a table, and not a method `backward` in each operation, as people write it first (and as PyTorch's
# `autograd.Function` asks for)? Because then all derivatives of the framework are in one table and can be listed,
# checked and counted, and because you can add a row. This chapter writes the rows that need a thought. The appendix
# `more_rules` has three times as many of the same kind, among them those of `affine`, which every `Linear` calls, of
# `softmax` and of `sqrt`. So a network can be differentiated although you will not find all of its rows here.
#
# One function for each input is the right form for nearly all operations: a gradient that the walk does not need is
# never computed. A few operations have so many inputs, or so much work in common, that one function for all inputs
# is simpler. Such a row is kept as a function that the recorder asks for the rule when it has the result; so a kernel
# that has kept something for the way back can hand it over (chapter 15 needs that).


def rule(primitive: Primitive, *shares: Callable | None, together: Callable | None = None) -> None:
    """Enter the derivatives of a primitive into the table: for each input a function (g, out, *inputs, **params) ->
    gradient.

    None stands for an input that has no gradient, such as a mask. Where the gradients of several inputs have work in
    common, `together` is one function for all of them, (needed, g, out, *inputs, **params) -> gradients: `needed` has
    a truth value for each input, and the gradient of an input that is not needed may be None."""
    if primitive in RULES:
        raise ValueError(f"{primitive.name} has a rule already")
    RULES[primitive] = (lambda array: together) if together else shares


rule(tt.add, lambda g, out, x, y: g, lambda g, out, x, y: g)
rule(tt.sub, lambda g, out, x, y: g, lambda g, out, x, y: -g)
rule(tt.mul, lambda g, out, x, y: g * y, lambda g, out, x, y: g * x)
rule(tt.neg, lambda g, out, x: -g)
rule(tt.exp, lambda g, out, x: g * out)
rule(tt.log, lambda g, out, x: g / x)

# Read the row of `mul` aloud: the share of `x` is `g` times `y`. The row of `exp` uses `out`, since $e^x$ is its own
# derivative and has been computed already. In the row of the quotient $x / y$ only the second function needs thought:
# the derivative of $y^{-1}$ is $-y^{-2}$. So that function gets a name.


def _div_right(g, out, x, y):  # exercise
    """The share of y in x / y."""
    return -g * out / y


rule(tt.div, lambda g, out, x, y: g / y, _div_right)

# The functions are written with operators that work on tensors and on plain arrays alike. That is on purpose: a
# backward pass runs them on arrays, which is faster. For the derivative of a derivative they run on tensors, and the
# door records them like any other computation.
#
# Views pass numbers on, so their rules undo them.

rule(tt.reshape, lambda g, out, x, shape: g.reshape(x.shape))
rule(tt.permute, lambda g, out, x, dims: tt.permute(g, dims=tuple(sorted(range(len(dims)), key=dims.__getitem__))))
rule(tt.expand, lambda g, out, x, shape: g)
rule(tt.getitem, lambda g, out, x, index: tt.place(g, index=index, shape=x.shape))
rule(tt.place, lambda g, out, values, index, shape: tt.getitem(g, index=index))

# To a sum every element contributes with weight 1, so every element receives the whole of `g`. All that its rule has
# to do is to bring `g` back to the shape of the input, first by putting the summed dimensions back with size 1, then by
# repeating.


def with_summed_dims(g, x, dim, keepdim):
    """g with the dimensions that a reduction of x took away put back, with size 1."""
    if keepdim or g.ndim == x.ndim:
        return g
    dims = dim if isinstance(dim, (tuple, list)) else [dim]
    gone = range(x.ndim) if dim is None or not dims else [d % x.ndim for d in dims]
    return g.reshape(tuple(1 if d in gone else n for d, n in enumerate(x.shape)))


def _sum_share(g, out, x, dim=None, keepdim=False):  # exercise
    """The share of x in its sum over `dim`."""
    return tt.expand(with_summed_dims(g, x, dim, keepdim), shape=x.shape)


rule(tt.sum, _sum_share)

# `expand` repeats its input, so the input's gradient ought to be the sum over the copies. The rule returns `g` as it
# is. So do `add` and `mul` when an operand was broadcast. Instead of having each rule undo broadcasting, it is undone
# once, centrally, for whatever comes back in the wrong shape: sum over the dimensions that were repeated.
#
# Two cases hide in that sentence. Dimensions that were *added* on the left have to go, so they are summed away.
# Dimensions that had size 1 have to stay, with size 1, so they are summed and kept. Forgetting the second case is a
# classic mistake in home-made autograd; it produces shapes that are nearly right.


def unbroadcast(g, shape: tuple[int, ...]):  # exercise
    """g summed over the dimensions along which `shape` was broadcast, so that it has that shape. (A size of 1 may have
    been repeated 0 times, too.)"""
    extra = len(g.shape) - len(shape)
    if extra:
        g = tt.sum(g, dim=tuple(range(extra)))
    repeated = tuple(d for d, n in enumerate(shape) if n == 1 and g.shape[d] != 1)
    return tt.sum(g, dim=repeated, keepdim=True) if repeated else g


# The matrix product. For matrices $C = AB$, with $\bar C$ given, $\bar A = \bar C B^T$ and $\bar B = A^T \bar C$: check
# the shapes, nothing else fits. Vectors are treated as the row or the column that they stand for.
#
# The batch dimensions in front broadcast as well, and are undone by `unbroadcast` like everything else.


def _as_matrices(g, x, y):
    """x and y with a vector as the one row (x) or the one column (y) that it stands for, and g as their product."""
    batch = g.shape[: g.ndim - (x.ndim > 1) - (y.ndim > 1)]
    x = x if x.ndim > 1 else x.reshape((1, x.shape[0]))
    y = y if y.ndim > 1 else y.reshape((y.shape[0], 1))
    return g.reshape((*batch, x.shape[-2], y.shape[-1])), x, y


# A stack of matrices times one matrix is one product of all rows, here as in chapter 02, because that is faster.


def _times(x, y):
    """x @ y for matrices and stacks of them."""
    if x.ndim > 2 and y.ndim == 2:
        return (tt.as_rows(x) @ y).reshape((*x.shape[:-1], y.shape[-1]))
    return x @ y


# With these two, each share is a single line of mathematics. What remains is the shape. If `x` was a vector, its share
# comes out as a matrix of one row, which `unbroadcast` makes a vector again. If `y` was a vector, its share comes out
# as a column, which needs a reshape.


def _matmul_left(g, out, x, y):  # exercise
    """The share of x in x @ y, for matrices, stacks of them, and vectors; in the shape of x, or with more dimensions in
    front, which `unbroadcast` sums away."""
    g, _, columns = _as_matrices(g, x, y)
    return _times(g, columns.mT)


def _matmul_right(g, out, x, y):  # exercise (starred)
    """The share of y in x @ y, for matrices, stacks of them, and vectors; in the shape of y, or with more dimensions in
    front, which `unbroadcast` sums away."""
    g, rows, columns = _as_matrices(g, x, y)
    dy = tt.as_rows(rows).mT @ tt.as_rows(g) if columns.ndim == 2 else rows.mT @ g
    return dy if y.ndim > 1 else dy.reshape(y.shape)


rule(tt.matmul, _matmul_left, _matmul_right)

# Powers need case distinctions. $x^0$ is 1 everywhere, so its derivative is 0 everywhere, but the formula gives $0
# \cdot 0^{-1}$ at zero. A factor of 0 does not help: the next operation may send an infinite gradient, and $0 \cdot
# \infty$ is `nan`. An element that plays no part must get exactly 0, whatever arrives. Therefore our rules never
# multiply a gradient by a mask; they call `kept`, which multiplies its *bits*, because a float whose bits are all 0 is
# 0. (`np.where` says the same, and takes ten times as long when the mask is irregular.)


@tt.primitive
def kept(mask, g, /):
    """g where the mask is true, and exactly 0 elsewhere, even where g is inf or nan."""
    bits = g.view(f"i{g.itemsize}")
    return (bits * np.asarray(mask, bool)).view(g.dtype)


rule(kept, None, lambda g, out, mask, x: kept(mask, g))


def _power(g, out, x, exponent):
    return kept(np.True_ if exponent else np.False_, g * (exponent * x ** (exponent - 1)))


def _power_base(g, out, x, y):
    return kept(y != 0, g * (y * x ** tt.choose(y == 0, y, y - 1)))


# With respect to $y$, the derivative of $x^y$ is $x^y \ln x$. Where $x$ is 0 and $y$ is not negative, $x^y$ does not
# move with $y$.


def _power_exponent(g, out, x, y):
    flat = (x == 0) & (y >= 0)
    return kept(tt.logical_not(flat), g * (out * tt.log(tt.choose(flat, x * 0 + 1, x))))


rule(tt.power, _power)
rule(tt.power_of, _power_base, _power_exponent)

# The most used bend of chapter 03 has the simplest slope: that of `relu` is 1 where $x$ is positive. Elsewhere, at 0 as
# well, an element plays no part, and `kept` is made for that.


def _relu_share(g, out, x):  # exercise
    """The share of x in relu(x): g where x is positive, and exactly 0 elsewhere, even where g is inf or nan."""
    return kept(out != 0, g)


rule(tt.relu, _relu_share)

# In `log_softmax` every output of a row depends on every input of that row: $\mathrm{out}_i = x_i - \ln \sum_j
# e^{x_j}$. First, $x_i$ moves its own output, with the derivative 1. Second, it moves *all* outputs of the row by the
# logarithm, whose derivative with respect to $x_i$ is $e^{x_i} / \sum_j e^{x_j}$, the probability that softmax gives
# $x_i$. It is $e^{\mathrm{out}_i}$, so it need not be computed anew. Add up what $x_i$ gets from all outputs.


def _log_softmax_share(g, out, x, dim):  # exercise
    """The share of x in log_softmax(x, dim)."""
    return g - tt.exp(out) * tt.sum(g, dim=dim, keepdim=True)


rule(tt.log_softmax, _log_softmax_share)

# Chapter 05 derived the same on paper. There, only the output of the right class counted, with $-1$; then the share is
# what the network believes minus what is true.


def check_log_softmax_by_hand():
    x, right = Tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 0.1]], requires_grad=True), np.array([[0, 0, 1], [1, 0, 0]])
    (tt.log_softmax(x, dim=1) * Tensor(-right)).sum().backward()
    assert np.allclose(x.grad.numpy(), tt.softmax(x.detach(), dim=1).numpy() - right, atol=1e-6)


# A primitive that you invent tonight gets its row tonight. Here is one: $x / (1 + |x|)$ bends like tanh, without an
# exponential function. Its rule is written with operators and with `tt.abs`, because NumPy's `abs` takes no tensor that
# has to be recorded.


@tt.primitive
def softsign(x, /):
    """x / (1 + |x|)."""
    return x / (1 + np.abs(x))


rule(softsign, lambda g, out, x: g / (1 + tt.abs(x)) ** 2)


def check_rows_by_referee():
    x = Tensor([-2.0, -0.5, 0.3, 4.0], np.float64, requires_grad=True)
    check_gradients(softsign, x)
    check_gradients(tt.relu, x)
    check_gradients(lambda x: tt.log_softmax(x, dim=0), x)


# Comparisons have no useful derivative at all: they go into the list `NO_GRADIENT`, where you can see them. A
# primitive that is in neither place is a mistake, and will be reported at the line that used it.

NO_GRADIENT.update({tt.eq, tt.ne, tt.lt, tt.le, tt.gt, tt.ge})

# ## The record
#
# A result that has a history is a `Traced` tensor. It *is* the node of the graph: it remembers the primitive's rule,
# the inputs and the parameters, and when it was made, as a reading of the clock of chapter 02. It holds its inputs and
# is held only by its users, so that memory goes when the last reference to a result goes: no cycles.
#
# A node is thus nothing but a tensor with six fields filled that are empty otherwise, and a tensor that need not be
# traced is made exactly as before. The fields are the slots that chapter 02 left room for: for small tensors, the
# record costs more than the arithmetic. A tensor that was not computed from others by a recorded operation, such as a
# parameter, is a *leaf*: there the way back ends.
#
# (The appendix *Recorded* shows what happens to the record when you change a result in place, by `y += x`.)


class Traced(Recorded, Tensor):
    """The result of an operation on a tensor that requires a gradient; it knows how it was made."""

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

    def retain_grad(self):
        """Keep `.grad` of this result, too, in the next backward pass."""
        self._watched = True

    def __reduce_ex__(self, protocol):
        name = self._primitive.name
        raise RuntimeError(f"a result with a history ({name}) cannot be copied or pickled; use .detach() or .clone()")

    def requires_grad_(self, requires_grad=True):
        """A result requires a gradient because its inputs do. Raises RuntimeError when asked to stop."""
        if requires_grad != self._requires_grad:
            raise RuntimeError(f"the result of {self._primitive.name} cannot forget its history; use .detach()")
        return self

    # A profiler (chapter 19) wants to know how long the rules of a node take.

    def wrap_rules(self, wrap: Callable[[Callable], Callable]) -> None:
        """Replace each rule of this node by wrap(rule), which must take and return the same."""
        rules = self._rules
        self._rules = tuple(one and wrap(one) for one in rules) if type(rules) is tuple else wrap(rules)


# For you it is a tensor, and messages call it that.

Traced.__name__ = "Tensor"
for _method in filter(inspect.isfunction, vars(Traced).values()):
    _method.__qualname__ = f"Tensor.{_method.__name__}"


# Whether to record is a switch, one for each thread: a thread that evaluates a model must not stop another from
# training it.
#
# (A class attribute of a `threading.local` is what every thread starts with.)


class _Mode(threading.local):
    enabled = True

    def __init__(self):
        self.before: list[bool] = []
        self.guards: list[Any] = []


_mode = _Mode()
_new = Traced.__new__


# The recorder's whole work: let the others compute; if the switch `_mode.enabled` is on and one of the inputs wants a
# gradient, turn the result into a node, which `_remembered` does, below. The inputs are remembered as they were passed,
# tensors and not arrays, because they are the way back.


def record(next, primitive, tensors, params):  # exercise
    """The interpreter that remembers: what `next` computes, as a `Traced` tensor if recording is on and any input
    requires a gradient."""
    out = next(primitive, tensors, params)
    if not _mode.enabled:
        return out
    for tensor in tensors:
        if tensor.requires_grad:
            break
    else:
        return out
    return _remembered(out._array, primitive, tensors, params)


# Results that are not floating-point numbers, such as the positions that `argmax` gives or a cast to integers, get no
# history. There is nothing to differentiate.


def _remembered(array, primitive, tensors, params):
    rules = RULES.get(primitive)
    if rules is None or array.dtype.kind != "f":
        return _without_history(array, primitive)
    node = _new(Traced)
    if type(rules) is not tuple:
        rules = rules(array)
    node._array, node._requires_grad, node.grad, node._hooks = array, True, None, None
    node._primitive, node._rules, node._inputs, node._params = primitive, rules, tensors, params
    node._made, node._watched = tick(), False
    return node


def _without_history(array, primitive):
    if primitive not in RULES and primitive not in NO_GRADIENT:
        raise NotImplementedError(
            f"{primitive.name} has no rule: enter its derivatives with rule({primitive.name}, ...), or add it to "
            "NO_GRADIENT"
        )
    return tt.from_numpy(array)


install(record)

# That one line at import is all that connects this package to the other two. Neither of them knows of it.

# ## Switching it off
#
# Nested use has to work, and so has leaving by an error: the switch goes back to what it was, not to *on*.
#
# Where is the earlier state kept meanwhile? Not in the `no_grad` object: it may decorate a function that calls itself,
# or one that runs on two threads at once, and then one object is entered several times before it is left. So the
# earlier states go on a pile, the list `_mode.before`, and each thread has a pile of its own.


class no_grad(Decorator):
    """A block, or a function of any kind, in which nothing is recorded on this thread."""

    _to = False

    def __enter__(self):  # exercise
        """Put the state that the switch is in on the pile, and set the switch to `_to`."""
        _mode.before.append(_mode.enabled)
        _mode.enabled = self._to

    def __exit__(self, *exception):  # exercise
        """Set the switch to the state that it was in on entering; exceptions go on."""
        _mode.enabled = _mode.before.pop()


# Its opposite differs in one word.


class enable_grad(no_grad):
    """A block, or a function, in which operations are recorded, even inside `no_grad`."""

    _to = True


def is_grad_enabled() -> bool:
    """Are operations being recorded on this thread?"""
    return _mode.enabled


# ## Walking back
#
# Now the record has to be walked from the end to the beginning, and a node may be passed only when all of its consumers
# have been: before that its gradient is not complete. A depth-first walk without care gets this wrong as soon as a
# value is used at two depths. Sorting topologically solves it, and we have the sorting for nothing: a node was always
# made after its inputs, so *the order of creation is a topological order*, and the clock has written it down.
#
# So the walk keeps two things: a dictionary from each tensor to what has arrived for it so far, and a heap that hands
# out the *latest* node for which something has arrived. When a node comes off the heap, all of its consumers, made
# later, have been there; what has arrived is its whole gradient. The node's rule turns it into shares for the inputs,
# and the first share that arrives at an input puts that input on the heap. There is no recursion, so a chain of
# twenty thousand operations is no problem, and each node comes off once, so a graph with $2^{60}$ paths is none either.
#
# Before the code, a small example by hand. Let $a = x \cdot x$, made at time 1, and $y = a \cdot x$, made at time 2.
# The walk starts with $\bar y = 1$ at $y$. Its shares: $\bar a = x$, which puts $a$ on the heap, and $\bar x = a$. The
# heap hands out $a$, all of whose consumers (just $y$) have been there. Its shares: $\bar a\, x$ for each of its two
# factors, so $\bar x$ grows to $a + 2x \cdot x = 3x^2$. A walk that had taken the first share of $x$ for the whole of
# it would have answered $x^2$.


class Walk:
    """One pass from results back to the tensors that they were computed from: what has arrived for each tensor so far,
    and the nodes that wait for their turn."""

    def __init__(self, outputs, seeds, create_graph: bool):
        self.on_arrays, self.create_graph = not create_graph and not listening(), create_graph
        self.arrived: dict[int, Any] = {}
        self.heap: list[tuple[int, Traced]] = []
        self.leaves: list[Tensor] = []
        for output, seed in zip(outputs, seeds):
            if output.requires_grad:
                self.arrive(output, seed._array if self.on_arrays else seed)

    # Everything that is reached requires a gradient, and is a node or a leaf. Nodes go on the heap, with the negative
    # of their time, because Python's heap hands out the smallest first. No two nodes have the same time. Leaves have no
    # inputs; they are kept aside until the end, when all that can arrive for them has arrived.
    #
    # What arrives may belong to others as well: the rule of `add` hands the same array to both inputs. So shares are
    # added by making a new sum, never in place.

    def arrive(self, tensor, share) -> None:  # exercise
        """Add a share to the gradient of a tensor, which `arrived` holds under its id. The first share puts a node on
        the heap, as (-time, node), and any other tensor among the leaves."""
        key, arrived = id(tensor), self.arrived
        if key in arrived:
            arrived[key] = arrived[key] + share
            return
        arrived[key] = share
        if type(tensor) is Traced:
            heappush(self.heap, (-tensor._made, tensor))
        else:
            self.leaves.append(tensor)

    # What this gives is the order of the walk: the latest node that waits, with all that has arrived for it.

    def latest_first(self):  # exercise
        """Take the latest node off the heap and yield (node, its gradient), until no node waits. The gradient leaves
        `arrived`."""
        while self.heap:
            node = heappop(self.heap)[1]
            yield node, self.arrived.pop(id(node))

    # When a node's turn comes, its rule is asked for the share of each input that wants one. A rule that is one
    # function for all inputs answers for all of them at once. `useful` is how `grad`, below, leaves out what does not
    # lie on its way: the ids of the tensors that matter, or None if all do.

    def share_out(self, node, g, useful) -> None:  # exercise
        """Turn the gradient of a node into shares for its inputs, in the inputs' shapes, and let them arrive. The rules
        get arrays if `on_arrays`, else tensors. An input that requires no gradient, has None for a rule or is not
        useful is skipped, and its rule not called."""
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

    def share_out_together(self, node, g, useful) -> None:
        """`share_out` for a node whose rule is one function for all inputs."""
        needed = [t.requires_grad and (useful is None or id(t) in useful) for t in node._inputs]
        values = [t._array if self.on_arrays else t for t in (node, *node._inputs)]
        for tensor, wanted, share in zip(node._inputs, needed, node._rules(needed, g, *values, **node._params)):
            if wanted and share is not None:
                self.arrive(tensor, unbroadcast(share, tensor._array.shape))

    # The walk itself visits the nodes in this order, and then the leaves. `keep` is what `backward` and `grad`, below,
    # do with a gradient that you want to see.

    def run(
        self, keep: Callable[[Tensor, Any], Any], retain_graph: bool, wanted: set | None = None,
        useful: set | None = None,
    ) -> None:
        """Walk. A tensor whose gradient may be wanted is handed to `keep`, which returns the gradient to go on with."""
        newest = last_write()
        with quiet(), enable_grad() if self.create_graph else no_grad():
            for node, g in self.latest_first():
                if node._rules is None or node._made < newest:
                    _refuse_if_stale(node)
                if node._watched or node._hooks or (wanted and id(node) in wanted):
                    g = keep(node, g)
                try:
                    (self.share_out if type(node._rules) is tuple else self.share_out_together)(node, g, useful)
                except Anomaly as error:
                    where = f"in the backward pass, at the rule of {node._primitive.name} for shape {node.shape}"
                    raise Anomaly(f"{where}: {error}") from error
                if not retain_graph:
                    node._inputs, node._rules = (), None
        for leaf in self.leaves:
            keep(leaf, self.arrived.pop(id(leaf)))


# Two details. `on_arrays` is the promise from above: an ordinary pass runs the rules on arrays; with `create_graph`, or
# when a meter is listening, they run on tensors and through the door. And a node lets go of its inputs as soon as it
# has been passed, so memory falls while the walk goes on.
#
# The clock of chapter 02 earns its keep here. A rule such as that of `mul` reads the inputs again, and if they have
# been overwritten since, the gradient would be wrong without a word. So a node asks whether its inputs or its result
# were written to after it was made.


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
# `backward` fills `.grad`, adding to what is there. `grad` hands the gradients back and leaves `.grad` alone. Both
# start from a number, whose derivative with respect to itself is one; from anything larger, the caller has to say with
# which weights its elements count.
#
# A sum of squares, a mean, a loss: in practice it is nearly always a single number, and the gradient's shape is then
# the shape of the parameter itself.


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


# The walk brings each leaf, and each result that is watched, to `keep` with its whole gradient.


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


# Several threads may walk back to one leaf. Reading `.grad`, adding and writing it back must be one act, or the
# gradient of one thread gets lost; hence the lock `_adding`.

_adding = threading.RLock()

# Before a gradient goes into `.grad` it must have memory of its own. The rule of `add` hands the same `g` to both
# inputs, that of `reshape` a view, and the first `g` of all may be the caller's; two parameters whose gradients share
# memory would be clipped twice. So `owner` lists the arrays that have been given away already. This is also the moment
# at which hooks (`register_hook`, chapter 02) see the gradient, and may replace it.


def _as_gradient(tensor: Tensor, g, owner: set[int]) -> Tensor:
    g = g.to(tensor.dtype) if isinstance(g, Tensor) else tt.from_numpy(np.asarray(g, tensor.dtype))
    for hook in tensor._hooks or ():
        answer = hook(g)
        g = g if answer is None else _answer_of_hook(answer, g)
    if g._array.base is not None or id(g._array) in owner:
        g = g.clone()
    owner.add(id(g._array))
    return g


def _answer_of_hook(answer, g: Tensor) -> Tensor:
    if not isinstance(answer, Tensor):
        raise TypeError(f"a hook returns a tensor to replace the gradient, or None, not {type(answer).__name__}")
    if (answer.shape, answer.dtype) != (g.shape, g.dtype):
        raise RuntimeError(
            f"a hook got a gradient of shape {g.shape} and dtype {g.dtype} and returned one of shape {answer.shape} "
            f"and dtype {answer.dtype}; both must stay as they are"
        )
    return answer.clone()


# For a derivative of a derivative, `grad` with `create_graph=True` records the walk. What it hands back is then the
# result of recorded operations like any other, and can be differentiated again, by nothing more than the same table.


def grad(
    outputs, inputs, grad_outputs=None, create_graph: bool = False, retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> tuple:
    """The derivatives of `outputs` (a tensor or several, summed) with respect to `inputs`, as a tuple; `.grad` stays
    as it is.

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


# A single tensor stands for a list of one, and each output has a seed of its own.


def _seeds(outputs, grad_outputs) -> list[Tensor]:
    weights = [None] * len(outputs) if grad_outputs is None else _listed(grad_outputs)
    if len(weights) != len(outputs):
        raise RuntimeError(f"grad got {len(outputs)} outputs and {len(weights)} grad_outputs; give one for each output")
    return [_seed(o, g) for o, g in zip(outputs, weights)]


def _listed(tensors) -> list:
    if isinstance(tensors, Tensor):
        return [tensors]
    listed = list(tensors) if isinstance(tensors, Iterable) else [tensors]
    for tensor in listed:
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"one tensor or several are needed, not {type(tensor).__name__}")
    return listed


# `grad` for the first layer's weights need not compute the gradients of everything else: a look through the graph
# beforehand marks what lies on the way to the inputs, and the walk leaves out the rest.


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


# What PyTorch's users type first; and the second derivative of $x^4$, by asking twice: $12x^2$.


def check_first_derivatives():
    x = Tensor(3.0, requires_grad=True)
    (x**2).backward()
    assert x.grad.item() == 6.0
    (second,) = grad(grad(x**4, x, create_graph=True)[0], x)
    assert second.item() == 12 * 3.0**2


# ## The witness
#
# The referee of chapter 05 again. `check_gradients` compares with it everything that `grad` says about a function: for
# each input, and then, because `create_graph` makes the gradient itself a function that can be differentiated, for the
# gradient's gradient.


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


# An output of many elements is made one number by weighing its elements with fixed random weights; a plain sum would
# not notice two elements that were swapped.
#
# The second-order check is the first-order check, applied to the gradient. That is all that *second order* needs to
# mean for a referee.


def _weighed(outputs, weights: list[Tensor]) -> Tensor:
    outputs = [o for o in outputs if o is not None]
    if not weights:
        random = np.random.default_rng(len(outputs))
        weights += [Tensor(random.uniform(0.5, 1.5, o.shape)) for o in outputs]
    total = Tensor(np.zeros(()))
    for output, weight in zip(outputs, weights):
        total = total + (output * weight).sum()
    return total


# A comparison that fails should say where. The error names the order, the input, the worst element and both opinions of
# it.


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


# A mixture of everything, then: broadcasting, a reduction with its dimension kept, a product of matrices, an index.


def check_by_referee():
    random = np.random.default_rng(0)
    x, y = (Tensor(random.uniform(0.5, 2, shape), requires_grad=True) for shape in ((3, 4), (4,)))
    check_gradients(lambda x, y: (x * y).exp() / (y + x.sum(1, keepdim=True)), x, y)
    check_gradients(lambda x, y: x @ y + x.log()[:, 1], x, y)

# And the formulas of chapters 05 and 06, which we had derived with some effort, fall out of the table: the two for the
# losses, and the four for XOR, on the same saved numbers on which the referee judged them then.
#
# The agreement is to twelve digits, since both do the same arithmetic. Only the evening on paper is saved.


def check_losses_by_hand():
    z, labels, wanted = tt.losses.loss_case()
    z.requires_grad_()
    (of_entropy,), (of_mse,) = grad(tt.cross_entropy(z, labels), z), grad(tt.mse_loss(z, wanted), z)
    assert np.allclose(
        of_entropy.numpy(), tt.losses.cross_entropy_gradient(z.data, labels).numpy(), rtol=1e-12, atol=1e-15
    )
    assert np.allclose(of_mse.numpy(), tt.losses.mse_gradient(z.data, wanted).numpy(), rtol=1e-12, atol=1e-15)


def check_network_by_hand():
    network, x, wanted = xor_case()
    xor_gradients_by_hand(network, x, wanted)
    by_hand = [p.grad.numpy() for p in network.parameters()]
    network.zero_grad()
    tt.binary_cross_entropy_with_logits(network(x), wanted).backward()
    assert all(np.allclose(p.grad.numpy(), g, rtol=1e-12, atol=1e-15) for p, g in zip(network.parameters(), by_hand))


# ## When a nan appears
#
# One `nan` makes everything nan that it touches, and by the time the loss is nan the culprit is long gone.
# `detect_anomaly` puts a guard into the door that looks at every result: a primitive that makes a nan out of inputs
# without any is reported on the spot. While a guard is there, a backward pass goes through the door as well. So it also
# finds the nan that appears only there, such as $0 \cdot \infty$ in the slope of a square root at zero; then the
# message says whose rule was at work.


class Anomaly(RuntimeError):
    """An operation made a nan out of inputs without one; raised under `detect_anomaly`."""


class detect_anomaly(Decorator):
    """A block, or a function of any kind, in which the first operation that makes a nan out of inputs without nan
    raises RuntimeError, in a forward or backward pass."""

    def __enter__(self):
        _mode.guards.append(interpreting(_guard))
        _mode.guards[-1].__enter__()

    def __exit__(self, *exception):
        _mode.guards.pop().__exit__(*exception)


def _guard(next, primitive, tensors, params):
    out = next(primitive, tensors, params)
    if np.isnan(out._array).any() and not any(np.isnan(t._array).any() for t in tensors):
        shapes = " and ".join(str(t.shape) for t in tensors)
        raise Anomaly(
            f"{primitive.name} of shape {shapes} made a nan out of inputs without one; largest inputs: "
            f"{[float(np.abs(t._array).max(initial=0)) for t in tensors]}"
        )
    return out


# ## A look at the record
#
# The nodes can be drawn. `graph` writes the record that leads to a tensor in the language of mermaid, with primitives
# in boxes and leaves rounded.
#
# It walks the same way back, without a heap, since the order does not matter for drawing.


def graph(output: Tensor) -> str:
    """The record behind a tensor as mermaid text: a flowchart from the leaves to the output."""
    lines, names, stack = ["flowchart LR"], {id(output): "n0"}, [output]
    lines.append(_drawn(output, "n0"))
    while stack:
        node = stack.pop()
        for tensor in node._inputs if type(node) is Traced else ():
            if id(tensor) not in names:
                names[id(tensor)] = f"n{len(names)}"
                lines.append(_drawn(tensor, names[id(tensor)]))
                stack.append(tensor)
            lines.append(f"    {names[id(tensor)]} --> {names[id(node)]}")
    return "\n".join(lines)


def _drawn(tensor, name):
    shape = "x".join(map(str, tensor.shape)) or "number"
    if type(tensor) is Traced:
        return f'    {name}["{tensor._primitive.name} ({shape})"]'
    return f'    {name}(["{"leaf" if tensor.requires_grad else "constant"} ({shape})"])'


def show_graph():
    weight, bias, x = tt.randn(4, 3, requires_grad=True), tt.zeros(4, requires_grad=True), tt.randn(2, 3)
    print(graph(tt.relu(tt.linear(x, weight, bias)).sum()))


# ## The cost
#
# The expensive part of a network is its matrix products, so let us count them. Before you read on, predict: which
# products does a training step compute, and which of them does the walk leave out?


def predict_products() -> tuple[int, int, int]:  # exercise
    """How many products of two matrices the network Linear(64, 32), ReLU, Linear(32, 10) takes for a batch of inputs
    that require no gradient, as three numbers: in the forward pass with the loss, in `loss.backward()`, and in
    `grad(loss, w)`, where w is the weight of the last layer. (The sum for a bias is not counted.)"""
    return 2, 3, 1


# For a matrix product the rule needs two matrix products, one for each input, and each is as large as the one forward.
# So backward should cost twice the forward pass; a bit less, since the gradient of the input data is not needed, and a
# rule is a function *per input* so that it need not be computed. A third, small product belongs to each bias, whose
# gradient is the sum of the rows of `g`, taken as a product with ones. The meter sees backward, too.


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


# The formula is about multiply-adds; the clock has its own opinion, because small arrays are dominated by the work
# around the arithmetic.


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


# And the diamonds again: sixty of them, $2^{60}$ paths, sixty visits. And a chain of twenty thousand steps, where a
# recursive walk would have given up after a thousand.


def show_tape():
    x = Tensor(1.0, requires_grad=True)
    for name, step, count in (("60 diamonds", lambda t: t + t, 60), ("a chain of 20,000", lambda t: t * x, 20_000)):
        seconds = tt.median_time(lambda: _chain(step, x, count).backward(), runs=3)
        print(f"{name:18s} {seconds * 1e3:8.2f} ms, {seconds / count * 1e6:.1f} us a step")


def _chain(step, value, count):
    for _ in range(count):
        value = step(value)
    return value


# Memory goes with the record. All intermediate results of a forward pass are alive until the walk has passed them,
# because a rule may need them; that, and not the weights, is what fills a computer's memory in training. As soon as
# the last reference to the loss goes, or the walk has passed, it is free. No collector of cycles is needed, because
# there are none.

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

    def nan_under_guard():
        with detect_anomaly():
            tt.sqrt(x)

    for attempt in (
        lambda: (x * 2).backward(), twice, overwritten, nan_under_guard, lambda: tt.zeros(3).sum().backward(),
    ):
        try:
            attempt()
        except RuntimeError as error:
            print(f"{type(error).__name__}: {error}")


# ## Exercises
#
# 1. `hessian_vector_product`: the second derivatives of a function times a vector, without ever building the matrix.
#    Differentiate twice.
# 2. `jacobian`, with a star, so you may leave it out: all derivatives of all outputs, as an array (outputs, inputs).
#    One backward pass gives one row.


def hessian_vector_product(function: Callable[[Tensor], Tensor], x: Tensor, vector: Tensor) -> Tensor:  # exercise
    """The matrix of second derivatives of a function to one number, times a vector of the shape of x."""
    (first,) = grad(function(x), x, create_graph=True)
    return grad((first * vector).sum(), x)[0]


def check_hessian_vector_product():
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    assert hessian_vector_product(lambda v: (v**3).sum(), x, Tensor([1.0, 0.0, 2.0])).tolist() == [6.0, 0.0, 36.0]


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:  # exercise (starred)
    """d function(x)[i] / d x[j] for vectors, as an array of shape (outputs, inputs)."""
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
# There are two ways to come by a derivative program. Ours, like PyTorch's, takes notes while the program runs: any
# Python will do, loops and conditions included, and a new set of notes is made each time. JAX transforms the program
# instead: `grad(f)` is a new function, found by running `f` once on stand-ins for numbers and transposing what was
# seen, which can then be compiled as a whole. PyTorch has a table, too: a file `derivatives.yaml`, from which the C++
# nodes of its record are generated before anybody installs it. Ours is read as it stands. Forward mode, which carries
# derivatives along with the values, is better for functions with few inputs and many outputs. A loss has one output and
# millions of inputs.

# ## What hurts next
#
# Training XOR is now four lines: compute the loss, forget old gradients, `backward`, `step`. Here they are, with what
# stands around them.


def train_by_loop(steps: int = 1000) -> float:
    """Train an xor_network by a loop written out; its last loss."""
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


# Every program from here on will contain the others. With batches, shuffling, validation in the right mode and a way to
# go on after a power cut they become forty, each time slightly different; and a loop that is written anew in every
# script is wrong in one of them. Chapter 08, *Training*.

__all__ = [
    "Anomaly", "NO_GRADIENT", "RULES", "Traced", "Value", "Walk", "backward", "check_gradients", "detect_anomaly",
    "enable_grad", "grad", "graph", "hessian_vector_product", "is_grad_enabled", "jacobian", "kept", "no_grad",
    "record", "rule", "softsign", "train_by_loop", "unbroadcast", "with_summed_dims",
]
