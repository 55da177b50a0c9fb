# # Activations
#
# At the end of this chapter there are eight functions that bend, so that a stack of layers can say more than one layer;
# and a softmax that does not break on large numbers.

# ## The hurt
#
# Chapter 02 ended with two linear maps that were one: 704 numbers that could say no more than 24. It is worth seeing
# what that costs. The smallest problem that no linear map can solve is XOR: answer 1 if exactly one of two inputs is 1.

from __future__ import annotations

import math

import numpy as np

from tt_tensor.more_ops import erf, tanh
from tt_tensor.setup import measure
from tt_tensor.tensor import ADDED_IN, Tensor, _floating, primitive, quiet, randn, tensor, zeros


def xor_points() -> tuple[Tensor, Tensor]:
    """The four inputs of XOR, shape (4, 2), and its answers, shape (4, 1)."""
    return Tensor([[0, 0], [0, 1], [1, 0], [1, 1]]), Tensor([[0], [1], [1], [0]])


# `lstsq` finds the best linear answer there is, in the sense of the smallest squared error, so nobody can say that we
# did not try hard enough. The column of ones gives it a constant term to play with.


def show_hurt():
    x, wanted = xor_points()
    with_ones = np.hstack([x.numpy(), np.ones((4, 1), np.float32)])
    best, *_ = np.linalg.lstsq(with_ones, wanted.numpy(), rcond=None)
    print("input   wanted  the best linear answer")
    for row, target, answer in zip(x.tolist(), wanted.tolist(), (with_ones @ best).tolist()):
        print(f"{row}  {target[0]:.0f}     {answer[0]:.3f}")


# The best that a linear map can do on XOR is to say one half to everything, and by the calculation of chapter 02 a
# tower of linear maps does no better.

# ## The smallest thing that could work
#
# Put something between the layers that is not linear. The first thing that comes to mind is a switch: 1 above zero, 0
# below. That is what the neurons of McCulloch and Pitts did in 1943.


def step(x: Tensor) -> Tensor:
    """1 where x is positive, 0 elsewhere."""
    return (x > 0).to(x.dtype)


# Here is the construction in full. The first hidden unit adds its inputs and fires above one half; the second adds them
# and fires above one and a half. The output takes the first but not the second: *at least one, but not both* is what
# XOR means.


def check_step_solves_xor():
    x, wanted = xor_points()
    hidden = step(x @ Tensor([[1, 1], [1, 1]]) - Tensor([0.5, 1.5]))  # "at least one", "both"
    assert (step(hidden @ Tensor([[1], [-1]]) - 0.5) == wanted).all()


# It works, and disappoints in one way. We chose those weights by thinking. To find weights by improving them little by
# little, one must be able to ask what a small change of a weight does to the answer; and for a switch the answer is:
# nothing, until it suddenly does everything. Its slope is 0 wherever it exists.

# ## The idea: bend, and have a slope
#
# We want functions that are not straight and have a slope nearly everywhere. And since later the slope is what
# everything depends on, each function in this chapter comes with its derivative, derived once on paper and checked by
# the least clever method there is: walk a little to the right, a little to the left, and look.
#
# $$ f'(x) \approx \frac{f(x + h) - f(x - h)}{2h} $$
#
# Why the step in both directions? The one-sided quotient $(f(x + h) - f(x))/h$ is wrong by about $h$, the central one
# by about $h^2$: the second-order terms of the two sides cancel. And why a distance of $10^{-6}$? A smaller step makes
# that error smaller, but then the two function values agree in nearly all of their digits, and the difference is made
# of rounding. For the same reason we convert $x$ to `float64` before anything else: in `float32`, $1 + 10^{-6}$ keeps
# one digit of its step.


def numeric_slope(function, x: np.ndarray, distance: float = 1e-6) -> np.ndarray:  # exercise
    """The derivative of an elementwise function at the elements of x (an array or a list) by central differences, with
    steps of `distance` to both sides, in float64 whatever the dtype of x."""
    x = np.asarray(x, np.float64)
    return (function(x + distance) - function(x - distance)) / (2 * distance)


# Together the two errors come to about $10^{-10}$ in float64: the quotient agrees with a right formula to nine digits.

# ## ReLU
#
# The simplest bend: keep what is positive.
#
# $$ \operatorname{relu}(x) = \max(x, 0) $$
#
# $$ \operatorname{relu}'(x) = \begin{cases} 1 & x > 0 \\ 0 & x \le 0 \end{cases} $$
#
# At zero there is no slope. We take 0, as PyTorch does.


@primitive
def relu(x, /):
    """max(x, 0), element by element."""
    return np.maximum(x, 0)


# Nearly everything that is said against ReLU is said about its left half, and nearly everything in its favour comes
# from the same place. A zero is cheap to compute and to propagate; a network in which half of the units are silent for
# a given input is a different, smaller network for each input; and on the right side the slope is 1, so that nothing
# shrinks from layer to layer.


def relu_slope(x):  # exercise
    """The derivative of relu: 1 where x is positive, 0 elsewhere, at 0 itself, too. Numbers, not truth values; an
    array for an array, a tensor for a tensor, which is why operators are better here than NumPy's functions."""
    return (x > 0) * 1.0


# A unit that is negative for every input has slope 0 for every input, and will never change again: it is dead. The
# leaky version lets a little through, and ELU approaches $-\alpha$ smoothly.
#
# $$ \operatorname{leaky}(x) = \begin{cases} x & x > 0 \\ ax & x \le 0 \end{cases} $$
#
# $$ \operatorname{elu}(x) = \begin{cases} x & x > 0 \\ \alpha (e^x - 1) & x \le 0 \end{cases} $$
#
# The slope of `leaky` is 1 on one side and $a$ on the other and needs no function. `leaky` itself needs no choice: for
# $a$ up to 1, the larger of $x$ and $ax$ is the right one on both sides.


@primitive
def leaky_relu(x, /, negative_slope=0.01):
    """x where it is positive, negative_slope * x elsewhere."""
    x = _floating(x)
    return (np.maximum if negative_slope <= 1 else np.minimum)(x, x * negative_slope)


# `elu` needs no branch either. `np.where` would be the obvious way, but it computes both sides for every element, so
# $e^{1000}$, too, where nothing but $x$ is wanted: NumPy warns of an overflow. It also takes several times as long, as
# the table of costs below shows with `leaky_relu`. Instead, we add two terms of which one is always zero. The first is
# the positive part of $x$. The second is $\alpha (e^z - 1)$ with $z = \min(x, 0)$: where $x$ is positive, $z$ is 0 and
# the term is $\alpha(e^0 - 1) = 0$. `np.expm1` computes $e^z - 1$ without the loss of digits near $z = 0$. That habit,
# to feed a dangerous function only with what it can bear, is half of this chapter.


@primitive
def elu(x, /, alpha=1.0):  # exercise
    """x where it is positive, alpha * (exp(x) - 1) elsewhere, without overflow (nor NumPy's warning of one) and in the
    dtype of x; integers become floats first, by `_floating`. Clevert et al., 2015."""
    x = _floating(x)
    return np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0))


def elu_slope(x, alpha=1.0):
    """The derivative of elu at an array x: 1 where x is positive, alpha * exp(x) elsewhere."""
    return np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0)))

# ## Sigmoid and tanh
#
# The sigmoid squeezes the line into $(0, 1)$, which makes its output a probability:
#
# $$ \sigma(x) = \frac{1}{1 + e^{-x}} = \frac{e^x}{1 + e^x} $$
#
# $$ \sigma'(x) = \sigma(x)\,(1 - \sigma(x)) $$
#
# Written down like that it is also a trap. For $x = -1000$ the first form has $e^{1000}$ in it. That is infinite in
# floating point, and $1 / \infty = 0$ happens to be right. The second form meets the same infinity at $x = 1000$, and
# is less lucky:


def sigmoid_naive(x):
    """The second form, as it stands."""
    return np.exp(x) / (1 + np.exp(x))


def show_overflow():
    x = np.array([-1000.0, -10.0, 0.0, 10.0, 1000.0], np.float32)
    with quiet():
        print("x       ", x)
        print("naive   ", sigmoid_naive(x))
        print("sigmoid ", sigmoid(x))


# The largest `float32` is about $3.4 \cdot 10^{38}$, so $e^{89}$ is infinite, and infinity divided by infinity is not a
# number. The cure is never to raise $e$ to a positive power. For $x \ge 0$ use $1 / (1 + e^{-x})$, for $x < 0$ the same
# fraction multiplied by $e^x$ above and below, $e^x / (1 + e^x)$. In both cases the denominator is $1 + e^{-|x|}$ and
# the numerator is $e^{\min(x, 0)}$, and neither power is ever positive.


@primitive
def sigmoid(x, /):  # exercise
    """1 / (1 + exp(-x)), element by element, without overflow (nor NumPy's warning of one) and in the dtype of x;
    integers become floats first, by `_floating`."""
    x = _floating(x)
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


# The derivative in terms of the function itself is no accident of notation. It means that whoever has computed
# $\sigma(x)$ has the slope nearly for free, without another exponential. `tanh` and `exp` have the same property, and
# chapter 07 will exploit it in each of them.


def sigmoid_slope(x):
    """The derivative of sigmoid, s * (1 - s)."""
    s = sigmoid(x)
    return s * (1 - s)


# `tanh` is a sigmoid that runs from $-1$ to $1$: $\tanh x = 2\sigma(2x) - 1$. NumPy has a stable one, and chapter 02
# made it a primitive. Its slope is $1 - \tanh^2 x$. Both functions *saturate*: a few units away from zero they are
# flat, the slope is nearly 0, and a unit that sits there learns nearly nothing. The slope of the sigmoid never exceeds
# $\frac14$, so ten of them in a row leave at most a millionth of it.
#
# Before ReLU, around 2010, this was *the* problem of deep networks. Gradients that pass through ten saturated layers
# are multiplied by ten small numbers; the layers near the input learned nothing, and people trained networks layer by
# layer to get around it.


def tanh_slope(x):
    """The derivative of tanh at an array x, 1 - tanh(x)**2."""
    return 1 - np.tanh(x) ** 2


# ## Smooth relatives of ReLU
#
# `softplus` is $\ln(1 + e^x)$, a ReLU with a rounded corner, whose derivative is the sigmoid. It overflows in the same
# way and is cured in the same way: $\ln(1 + e^x) = \max(x, 0) + \ln(1 + e^{-|x|})$. (PyTorch's has a threshold above
# which it returns $x$ itself. This form needs none.)


@primitive
def softplus(x, /, beta=1.0):
    """log(1 + exp(beta * x)) / beta, without overflow."""
    x = _floating(x)
    corner = np.maximum(x, 0) if beta > 0 else np.minimum(x, 0)
    with quiet():  # where beta * x is infinite, the corner is far away
        return corner + np.log1p(np.exp(-np.abs(x * beta))) / beta


# `silu` is $x\,\sigma(x)$: the input, gated by its own size. Its derivative follows from the product rule, $\sigma(x) +
# x\,\sigma(x)(1 - \sigma(x))$. It is made of primitives that we have, so it is a plain function.
#
# Why smooth at all, if ReLU works? Because its slope changes abruptly at one point, and whoever goes downhill by the
# slope does better where it changes gradually. Most of the transformers that chapter 14 follows use GELU or SiLU.


def silu(x):
    """x * sigmoid(x), also called swish. Elfwing et al., 2017."""
    return x * sigmoid(x)


def silu_slope(x):
    """The derivative of silu, by the product rule."""
    s = sigmoid(x)
    return s + x * s * (1 - s)


# `gelu` gates with the normal distribution instead, $x\,\Phi(x)$ with $\Phi(x) = \frac12\left(1 +
# \operatorname{erf}\frac{x}{\sqrt 2}\right)$. GPT-2 was trained with an approximation that needs no error function,
#
# $$ \operatorname{gelu}(x) \approx \tfrac{x}{2}\,(1 + \tanh u), $$
#
# $$ u = \sqrt{\tfrac{2}{\pi}}\,(x + 0.044715\,x^3) . $$
#
# People mix the two up, and a third one, $x\,\sigma(1.702\,x)$, with them. At $x = 1$ they give 0.8413, 0.8412 and
# 0.8458.


# The two gates, $\Phi$ and its approximation. In `float16`, $1 + \operatorname{erf}$ and $1 + \tanh$ are 0 from $-4$
# on, where the gate is not; so 16-bit numbers are computed in 32 bits. And the cube of a large number overflows. Both
# gates are 0 or 1 to the last digit long before $\pm 40$, so we cut there.


def _wide(x):
    return x.astype(np.promote_types(x.dtype, np.float32), copy=False)


def _normal_below(x):
    return (0.5 * (1 + erf(_wide(x) / math.sqrt(2)))).astype(x.dtype)


_GELU = math.sqrt(2 / math.pi)


def _tanh_below(x):
    z = np.clip(_wide(x), -40, 40)
    return (0.5 * (1 + np.tanh(_GELU * (z + 0.044715 * z * z * z)))).astype(x.dtype)


# `gelu` itself is $x$ times one of the two gates; the names are PyTorch's. If you prefer, write the formula from above
# as it stands, with `erf`. It is the same function, only less exact in `float16`.


@primitive
def gelu(x, /, approximate="none"):  # exercise
    """x times the normal distribution function: the exact one for approximate="none", the form with tanh, as in GPT-2,
    for "tanh". Raises ValueError for any other name. Integers become floats first, by `_floating`. Hendrycks and
    Gimpel, 2016."""
    x = _floating(x)
    if approximate not in ("none", "tanh"):
        raise ValueError(f'approximate is "none" or "tanh", not {approximate!r}')
    return x * (_normal_below(x) if approximate == "none" else _tanh_below(x))


# The derivative of GELU is $\Phi(x) + x\,\phi(x)$ with the density $\phi(x) = e^{-x^2/2}/\sqrt{2\pi}$. The form with
# tanh has a longer one. `gelu_slope` is an operation of its own, since chapter 07 will need it often.
#
# Differentiate the product: $\Phi(x)$ plus $x$ times the derivative of $\Phi$, which is the density. For the form with
# $t = \tanh u$ the chain rule gives $\frac12 (1 + t) + \frac{x}{2} (1 - t^2)\, u'$, and $u' = \sqrt{2/\pi}\,(1 + 3
# \cdot 0.044715\, x^2)$.


@primitive
def gelu_slope(x, /, approximate="none"):
    """The derivative of gelu."""
    x = _floating(x)
    z = np.clip(_wide(x), -40, 40)
    if approximate == "none":
        slope = _normal_below(z) + z * np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    else:
        t = np.tanh(_GELU * (z + 0.044715 * z * z * z))
        slope = 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * _GELU * (1 + 3 * 0.044715 * z * z)
    return slope.astype(x.dtype)


# We write `z * z * z` and not `z**3`: a power of three goes through the general `pow`, which takes longer, and many
# times as long where the numbers are negative.


def show_cube():
    x = np.linspace(-3, 3, 400_000, dtype=np.float32)
    power, product = measure(lambda: x**3).seconds, measure(lambda: x * x * x).seconds
    print(f"x**3: {power * 1e3:.2f} ms, x*x*x: {product * 1e3:.2f} ms")


# ## The witness
#
# The functions and their slopes in one picture (but for `leaky_relu`, which would look like ReLU), and every slope
# against the difference quotient.

SLOPES = {
    "relu": (relu, relu_slope),
    "elu": (elu, elu_slope),
    "sigmoid": (sigmoid, sigmoid_slope),
    "tanh": (tanh, tanh_slope),
    "softplus": (softplus, sigmoid),
    "silu": (silu, silu_slope),
    "gelu": (gelu, gelu_slope),
    "gelu (tanh)": (lambda x: gelu(x, approximate="tanh"), lambda x: gelu_slope(x, approximate="tanh")),
}


def check_slopes():
    x = np.linspace(-5.03, 5.01, 200)  # zero, where relu has a corner, is not among them
    for name, (function, its_slope) in SLOPES.items():
        assert np.abs(numeric_slope(function, x) - its_slope(x)).max() < 1e-8, name


# In the pictures the function is drawn solid and its slope dashed. Look at where the slopes are near zero: there, a
# unit does not learn.


def show_functions():
    import matplotlib.pyplot as plt

    x = np.linspace(-4, 4, 400)
    figure, axes = plt.subplots(2, 4, figsize=(10, 4.6), sharex=True, sharey=True)
    for axis, (name, (function, its_slope)) in zip(axes.flat, SLOPES.items()):
        axis.plot(x, function(x), label="function")
        axis.plot(x, its_slope(x), linestyle="--", label="slope")
        axis.set_title(name, fontsize=10)
        axis.set_ylim(-1.3, 2.2)
        axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8, loc="upper left")
    figure.tight_layout()
    return figure


# ## Ten layers deep
#
# How bad is a slope below 1? Let a signal go through ten layers with an activation after each, and multiply the slopes
# along the way, which is what the chain rule does on the way back. We take the weights out of the picture (they are
# scaled so that a product with them keeps the size of the signal) and look at the activations alone.


def show_depth():
    random = np.random.default_rng(0)
    print("product of the slopes along a path through ten layers of 256 units")
    for name in ("sigmoid", "tanh", "relu", "gelu"):
        function, its_slope = SLOPES[name]
        x, product = random.standard_normal((64, 256)), np.ones((64, 256))
        for _ in range(10):
            x = x @ random.standard_normal((256, 256)) / 16
            x, product = function(x), product * its_slope(x)
        gone = np.mean(product == 0)
        print(f"{name:8s} mean {np.abs(product).mean():.1e}, nothing is left of {gone:.1%} of the paths")


# The sigmoid's paths are down to less than a millionth, all of them. Tanh does best, because this signal is small: near
# zero tanh is nearly straight. With larger weights it saturates, which chapter 04 will show. ReLU's are another
# picture: most paths are cut off entirely, by a unit that was silent somewhere along the way, and the others pass on
# everything. That is enough, since a network has many paths, and a gradient is a sum over all of them.
#
# Which one should one take, then? For a network of the kind of chapters 04 to 10, ReLU, until there is a reason not to.
# GELU or SiLU where the network is deep and smooth steps matter, as in transformers. Tanh where the output should lie
# between $-1$ and $1$, as in the recurrent networks that this course leaves out. The sigmoid at the very end, for a yes
# or no, and hardly ever in between; softmax at the end, for one of many.

# ## Softmax
#
# The last one is of another kind. It does not bend elements; it turns a row of any numbers into probabilities, which
# are positive and add up to 1:
#
# $$ \operatorname{softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}} . $$
#
# A network that has to choose among ten digits puts out ten numbers, the *logits*, and this makes them comparable. It
# overflows like the sigmoid. The cure uses that adding a constant to all logits changes nothing, since numerator and
# denominator are multiplied by the same factor. So subtract the largest, *of each row*: then the largest exponent is 0,
# no $e^x$ exceeds 1, and one of them is exactly 1, so the sum is not 0 either.
#
# Two small things. The maximum of a row without elements does not exist: NumPy's `max` accepts an `initial` value for
# that case. And a long row in `float16` has a sum above 65,504, the largest number of that dtype; the dictionary
# `ADDED_IN` of chapter 02 says in which dtype the elements of an array should be added up.


@primitive(cost=lambda out, x, **params: 3 * x.size)
def softmax(x, /, dim):  # exercise
    """exp(x) / sum(exp(x)) along `dim`, without overflow. Integers become floats first, by `_floating`; along a
    dimension of length 0 there is nothing to divide, and the result is as empty as x. Raises IndexError for a dimension
    that x does not have."""
    x = _floating(x)
    with quiet():
        e = np.asarray(np.exp(x - x.max(axis=dim, keepdims=True, initial=-np.inf)))
        e /= e.sum(axis=dim, keepdims=True, dtype=ADDED_IN[x.dtype])
    return e


# Its logarithm is wanted even more often: the next chapter but one takes $\ln p$ of the right class as its measure of
# success. Taking `log` after `softmax` throws digits away, for a probability of $10^{-50}$ is 0 in `float32`, and its
# logarithm is minus infinity. Done in one, it is $x_i - \ln \sum_j e^{x_j}$, and nothing is lost.
#
# The row's largest element is subtracted here as well; and the sum that goes into the logarithm is at least 1, so that
# its logarithm is at least 0 and never a problem. In a row of logits (0, 0, 200) the first two classes have the
# probability $e^{-200}$, which is 0 for `float32`; but its logarithm, $-200$, is a perfectly ordinary number.


@primitive(cost=lambda out, x, **params: 3 * x.size)
def log_softmax(x, /, dim):  # exercise
    """The logarithm of softmax along `dim`, exact also where softmax itself would round to 0. Integers, dimensions of
    length 0 and dimensions that x does not have: as for softmax."""
    x = _floating(x)
    with quiet():
        shifted = np.asarray(x - x.max(axis=dim, keepdims=True, initial=-np.inf))
        shifted -= np.log(np.exp(shifted).sum(axis=dim, keepdims=True, dtype=ADDED_IN[x.dtype]))
    return shifted


# Time to predict. A formula on paper and the same formula in `float32` are two things, and you can now say, without
# running anything, where they part. Work the five cases out by hand: which power is infinite, which is 0, and what
# happens to the quotient then?


def predict_far_out() -> dict[str, float]:  # exercise
    """Five numbers that float32 gives; infinity is math.inf, what is not a number is math.nan. The keys are

    "a": exp(1000) / (1 + exp(1000)),
    "b": exp(-1000) / (1 + exp(-1000)),
    "c": the first element of exp(x) / sum(exp(x)) for x = [0, 1000],
    "d": the first element of log(softmax(x)) for x = [0, 200],
    "e": the first element of log_softmax(x) for the same x."""
    return {"a": math.nan, "b": 0.0, "c": 0.0, "d": -math.inf, "e": -200.0}


# Three rows to look at. The second is the first plus 1000 and must give the same; the third has a class that is
# practically certain.


def show_softmax():
    rows = tensor([[1.0, 2.0, 3.0], [1001.0, 1002.0, 1003.0], [0.0, 0.0, 200.0]])
    print("logits", rows, "softmax", softmax(rows, dim=1), sep="\n")
    print("log(softmax)", softmax(rows, dim=1).log(), sep="\n")
    print("log_softmax", log_softmax(rows, dim=1), sep="\n")


# The derivative of softmax is a matrix for each row, since each probability depends on each logit: $\partial p_i /
# \partial x_j = p_i\,([i = j] - p_j)$. Nobody builds that matrix. What a gradient needs is its product with a vector
# $g$, and that is $p_j\,(g_j - \sum_i g_i p_i)$: one sum per row.


def softmax_backward(p, g):  # exercise
    """The product of softmax's derivative at the probabilities p, an array (N, C), with the row vectors g, an array (N,
    C): an array (N, C)."""
    return p * (g - (g * p).sum(axis=1, keepdims=True))


# The check does it the long way: it moves each of the five logits of all rows, measures how each probability answers,
# and multiplies.


def check_softmax_backward():
    x, g = np.random.default_rng(0).standard_normal((2, 3, 5))
    eps = 1e-6 * np.eye(5)
    columns = [((softmax(x + e, dim=1) - softmax(x - e, dim=1)) * g).sum(1) / 2e-6 for e in eps]
    assert np.abs(np.stack(columns, 1) - softmax_backward(softmax(x, dim=1), g)).max() < 1e-8


# ## The cost
#
# ReLU does so little arithmetic for each number that it costs what it costs to move the number. The others pay for
# exponentials, and for temporary arrays, each of which is another trip. To see what a choice costs, here is
# `leaky_relu` as one would write it first, with `np.where`.


def leaky_relu_by_choice(x):
    """leaky_relu as one would write it first."""
    return np.where(x.numpy() > 0, x.numpy(), 0.01 * x.numpy())


def show_cost():
    x = randn(1_000_000)
    contenders = [relu, leaky_relu, leaky_relu_by_choice, tanh, sigmoid, softplus, gelu]
    times = {function.__name__: measure(function, x).seconds for function in contenders}
    for name, seconds in times.items():
        print(f"{name:20s} {seconds * 1e3:7.2f} ms   {seconds / times['relu']:6.1f} times relu")


# A million numbers in and a million out are 8 MB; ReLU moves them at the speed of the memory. `tanh` is the quickest of
# those with an exponential, since NumPy has one compiled loop for it. The sigmoid is seven calls of NumPy, with an
# array after each. The exact GELU pays for the polynomials of the error function, which run over the whole array many
# times. Chapter 15 returns to this.

# ## Errors you will meet


def show_errors():
    x = zeros(2, 3)
    for attempt in (lambda: softmax(x, dim=2), lambda: gelu(x, approximate="sigmoid"), lambda: softmax(x)):
        try:
            attempt()
        except (IndexError, ValueError, TypeError) as error:
            print(f"{type(error).__name__}: {error}")


# ## Exercises
#
# New activations are made of the old ones, on tensors. An example is `hard_sigmoid`, a sigmoid made of straight pieces,
# $\min(\max(x/6 + 1/2, 0), 1)$:


def hard_sigmoid(x: Tensor) -> Tensor:
    """x / 6 + 1/2, cut off below 0 and above 1."""
    return (x / 6 + 0.5).clip(min=0.0, max=1.0)


def check_hard_sigmoid():
    assert np.allclose(hard_sigmoid(Tensor([-9, -3, 0, 1.5, 9])).numpy(), [0, 0, 0.5, 0.75, 1])


# Two are left for you.
#
# 1. `log_sigmoid`: $\ln \sigma(x)$ that is right at $-1000$, where $\sigma$ is 0. Which function of this chapter is it,
#    except for two signs?
# 2. `softmax_with_temperature`: softmax of $x / T$. Large $T$ evens the probabilities out, small $T$ sharpens them.


def log_sigmoid(x: Tensor) -> Tensor:  # exercise
    """log(sigmoid(x)), exact also where sigmoid(x) rounds to 0."""
    return -softplus(-x)


def check_log_sigmoid():
    assert np.allclose(log_sigmoid(Tensor([-1000, 0, 1000])).numpy(), [-1000, -math.log(2), 0])


def softmax_with_temperature(x: Tensor, temperature: float) -> Tensor:  # exercise
    """softmax of x / temperature along the last dimension. Raises ValueError for a temperature that is not positive."""
    if temperature <= 0:
        raise ValueError(f"the temperature must be positive, not {temperature}")
    return softmax(x / temperature, dim=-1)


def check_softmax_with_temperature():
    x = Tensor([1.0, 2.0, 3.0])
    cold, warm, hot = (softmax_with_temperature(x, t).max().item() for t in (0.1, 1.0, 100.0))
    assert cold > 0.999 and 0.66 < warm < 0.67 and hot < 0.34


# ## A road not taken
#
# A search by machine for better activations (Ramachandran, Zoph and Le, 2017) tried many formulas and came back with
# swish, $x\,\sigma(\beta x)$, which for $\beta = 1$ is the SiLU that we have. PyTorch has some thirty activations; most
# networks use two. Another road was not to bend each number but to let units compete, as in maxout (Goodfellow et al.,
# 2013); it doubles the weights for the same width and has not come back.

# ## What hurts next
#
# With a bend between them, two layers can solve XOR, and many layers can do much more. Here is a network of four layers
# that reads a digit of 64 pixels. It has learned nothing yet, but it computes; let us count what has to be carried.


def show_loose_arrays():
    sizes = [64, 128, 64, 32, 10]
    weights = [randn(n, m) / math.sqrt(m) for m, n in zip(sizes, sizes[1:])]
    biases = [zeros(n) for n in sizes[1:]]
    x = randn(5, 64)
    for weight, bias in zip(weights[:-1], biases[:-1]):
        x = relu(x @ weight.T + bias)
    probabilities = softmax(x @ weights[-1].T + biases[-1], dim=1)
    print(
        f"{len(weights) + len(biases)} loose arrays, {sum(a.numel() for a in weights + biases):,} numbers, output "
        f"{probabilities.shape}"
    )


# Eight arrays, carried by hand through every function that needs them: to be initialised, to be saved, to be improved,
# each under a name that has to be spelled right each time. Somebody should carry them for us: chapter 04, *Layers*.

__all__ = [
    "elu", "elu_slope", "gelu", "gelu_slope", "hard_sigmoid", "leaky_relu", "log_sigmoid", "log_softmax",
    "numeric_slope", "relu", "relu_slope", "sigmoid", "sigmoid_naive", "sigmoid_slope", "silu", "silu_slope",
    "softmax", "softmax_backward", "softmax_with_temperature", "softplus", "step", "tanh_slope", "xor_points",
]
