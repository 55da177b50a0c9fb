# # Activations
#
# At the end of this chapter we have eight nonlinear functions, the *activations* that let a stack of layers express
# more than a single layer can, and a softmax that survives large numbers.

# ## The hurt
#
# At the end of chapter 02 we stacked two linear maps and got one: 704 numbers that could express no more than 24. Let
# us see what that costs. The smallest problem that no linear map can solve is XOR: answer 1 if exactly one of two
# inputs is 1.

from __future__ import annotations

import math

import numpy as np

from tt_tensor.more_ops import erf, tanh
from tt_tensor.arguments import as_floats
from tt_tensor.setup import measure
from tt_tensor.tensor import ADDED_IN, Tensor, primitive, quiet, randn, tensor, zeros


def xor_points() -> tuple[Tensor, Tensor]:
    """The four inputs of XOR, shape (4, 2), and its answers, shape (4, 1)."""
    return Tensor([[0, 0], [0, 1], [1, 0], [1, 1]]), Tensor([[0], [1], [1], [0]])


# To be fair to linear maps, we let `lstsq` find the best one, in the sense of the smallest squared error. The column of
# ones gives it a constant term to work with.


def show_hurt():
    x, wanted = xor_points()
    with_ones = np.hstack([x.numpy(), np.ones((4, 1), np.float32)])
    best, *_ = np.linalg.lstsq(with_ones, wanted.numpy(), rcond=None)
    print("input   wanted  the best linear answer")
    for row, target, answer in zip(x.tolist(), wanted.tolist(), (with_ones @ best).tolist()):
        print(f"{row}  {target[0]:.0f}     {answer[0]:.3f}")


# The best linear map answers one half to everything. By the calculation of chapter 02, a tower of linear maps does no
# better.

# ## The smallest thing that could work
#
# We need something between the layers that is not linear. The first idea is a switch: 1 above zero, 0 below. That is
# how the neurons of McCulloch and Pitts worked in 1943.


def step(x: Tensor) -> Tensor:
    """1 where x is positive, 0 elsewhere."""
    return (x > 0).to(x.dtype)


# With it we can build XOR by hand. Our first hidden unit adds its inputs and fires above one half. The second adds them
# and fires above one and a half. The output takes the first but not the second, because *at least one, but not both* is
# what XOR means.


def check_step_solves_xor():
    x, wanted = xor_points()
    hidden = step(x @ Tensor([[1, 1], [1, 1]]) - Tensor([0.5, 1.5]))  # "at least one", "both"
    assert (step(hidden @ Tensor([[1], [-1]]) - 0.5) == wanted).all()


# It works, but it disappoints in one way: we chose those weights by thinking. We would rather find weights by improving
# them little by little, and for that we must be able to ask how the answer reacts to a small change of a weight. The
# switch does not react at all, until it suddenly flips. Its slope is 0 wherever it has one.

# ## The idea: bend, and have a slope
#
# So we want functions that are *nonlinear*, not straight, and that have a slope nearly everywhere. Everything later
# depends on these slopes. For this reason each function in this chapter comes with its *derivative*: we derive it once
# on paper, and then check it by the least clever method there is. We step a little to the right, a little to the left,
# and look.
#
# $$ f'(x) \approx \frac{f(x + h) - f(x - h)}{2h} $$
#
# Why do we step in both directions? Taylor's formula gives both values:
#
# $$ f(x \pm h) = f(x) \pm h f'(x) + \tfrac{h^2}{2} f''(x) \pm \tfrac{h^3}{6} f'''(x) + \dots $$
#
# The one-sided quotient $(f(x + h) - f(x))/h$ is therefore wrong by about $\frac h2 f''(x)$. In the *central
# difference* the terms with $f''$ cancel, and an error of about $\frac{h^2}{6} f'''(x)$ remains.
#
# And why do we choose $h = 10^{-6}$? A smaller step would reduce that error. However, the two function values would
# then agree in nearly all of their digits, and their difference would consist of rounding. For the same reason we
# convert $x$ to `float64` before anything else: in `float32`, $1 + 10^{-6}$ keeps a single digit of the step.


def numeric_slope(function, x: np.ndarray, distance: float = 1e-6) -> np.ndarray:  # exercise
    """The derivative of an elementwise function at the elements of x (an array or a list), by central differences with
    steps of `distance` to both sides. Computes in float64, whatever the dtype of x."""
    x = np.asarray(x, np.float64)
    return (function(x + distance) - function(x - distance)) / (2 * distance)


# In float64 the two errors together amount to about $10^{-10}$, so the quotient agrees with a correct formula to nine
# digits.

# ## ReLU
#
# The simplest way to bend a line is to keep its positive part. The *rectified linear unit*, ReLU, does just that:
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


# Nearly every argument against ReLU concerns its left half, and so does nearly every argument for it. A zero is cheap
# to compute and to propagate. A network in which half of the units are silent for a given input is a different, smaller
# network for each input. On the right side the slope is 1, so that nothing shrinks from layer to layer.


def relu_slope(x):  # exercise
    """The derivative of relu: 1 where x is positive, 0 elsewhere and at 0 itself. Returns numbers, not truth values:
    an array for an array, a tensor for a tensor (so use operators here rather than NumPy's functions)."""
    return (x > 0) * 1.0


# The left half has a price, too. A unit that is negative for every input has slope 0 for every input and never changes
# again: it is *dead*. The leaky version therefore lets a little through, and ELU approaches $-\alpha$ smoothly.
#
# $$ \operatorname{leaky}(x) = \begin{cases} x & x > 0 \\ ax & x \le 0 \end{cases} $$
#
# $$ \operatorname{elu}(x) = \begin{cases} x & x > 0 \\ \alpha (e^x - 1) & x \le 0 \end{cases} $$
#
# The slope of `leaky` is 1 on one side and $a$ on the other, so we need no function for it. We can compute `leaky`
# itself without a case distinction: for $a$ up to 1, the larger of $x$ and $ax$ is the right one on both sides.


@primitive
def leaky_relu(x, /, negative_slope=0.01):
    """x where it is positive, negative_slope * x elsewhere."""
    x = as_floats(x)
    return (np.maximum if negative_slope <= 1 else np.minimum)(x, x * negative_slope)


# We can avoid the branch in `elu`, too. `np.where` would be the obvious way, but it computes both sides for every
# element. It would compute $e^{1000}$ even where we only want $x$, and NumPy would warn of an overflow. It also takes
# several times as long; the table of costs below shows this for `leaky_relu`.
#
# Instead, we add two terms of which one is always zero. The first is the positive part of $x$. The second is $\alpha
# (e^z - 1)$ with $z = \min(x, 0)$: where $x$ is positive, $z$ is 0 and so is $\alpha(e^0 - 1)$. `np.expm1` computes
# $e^z - 1$ without losing digits near $z = 0$. Never to pass a dangerous function an argument that it cannot handle:
# that habit is half of this chapter.


@primitive
def elu(x, /, alpha=1.0):  # exercise
    """x where it is positive, alpha * (exp(x) - 1) elsewhere, without overflow (nor NumPy's warning of one) and in the
    dtype of x; integers become floats first, by `as_floats`. Clevert et al., 2015."""
    x = as_floats(x)
    return np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0))


def elu_slope(x, alpha=1.0):
    """The derivative of elu at an array x: 1 where x is positive, alpha * exp(x) elsewhere."""
    return np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0)))


# ## Sigmoid and tanh
#
# The *sigmoid* squeezes the line into $(0, 1)$, so that we can read its output as a probability:
#
# $$ \sigma(x) = \frac{1}{1 + e^{-x}} = \frac{e^x}{1 + e^x} $$
#
# Its derivative follows from the quotient rule applied to the first form:
#
# $$ \sigma'(x) = \frac{e^{-x}}{(1 + e^{-x})^2} = \frac{1}{1 + e^{-x}} \cdot \frac{e^{-x}}{1 + e^{-x}}
# = \sigma(x)\,(1 - \sigma(x)) $$
#
# In floating point both forms are traps. For $x = -1000$ the first form contains $e^{1000}$. That is infinite, and we
# are lucky that $1 / \infty = 0$ is the right answer. The second form meets the same infinity at $x = 1000$, and we are
# less lucky:


def sigmoid_naive(x):
    """The sigmoid by its second form, which overflows."""
    return np.exp(x) / (1 + np.exp(x))


def show_overflow():
    x = np.array([-1000.0, -10.0, 0.0, 10.0, 1000.0], np.float32)
    with quiet():
        print("x       ", x)
        print("naive   ", sigmoid_naive(x))
        print("sigmoid ", sigmoid(x))


# The largest `float32` is about $3.4 \cdot 10^{38}$, so $e^{89}$ is infinite, and infinity divided by infinity is not a
# number. The cure is never to raise $e$ to a positive power. For $x \ge 0$ we use $1 / (1 + e^{-x})$. For $x < 0$ we
# multiply numerator and denominator of that fraction by $e^x$ and get $e^x / (1 + e^x)$. In both cases the denominator
# is $1 + e^{-|x|}$ and the numerator is $e^{\min(x, 0)}$, so neither power is ever positive.


@primitive
def sigmoid(x, /):  # exercise
    """1 / (1 + exp(-x)), element by element, without overflow (nor NumPy's warning of one) and in the dtype of x;
    integers become floats first, by `as_floats`."""
    x = as_floats(x)
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


# We expressed the derivative by the function itself, and that is not an accident of notation. Once we have computed
# $\sigma(x)$, we get the slope nearly for free, without another exponential. `tanh` and `exp` have the same property,
# and chapter 07 will exploit it in each of them.


def sigmoid_slope(x):
    """The derivative of sigmoid, s * (1 - s)."""
    s = sigmoid(x)
    return s * (1 - s)


# `tanh` is a sigmoid that runs from $-1$ to $1$: $\tanh x = 2\sigma(2x) - 1$. NumPy has a stable one, which chapter 02
# turned into a primitive. With the chain rule we get its slope from the sigmoid's: writing $s = \sigma(2x)$, it is $2
# \cdot 2 s (1 - s) = 1 - (2s - 1)^2 = 1 - \tanh^2 x$.
#
# Both functions *saturate*. A few units away from zero they are flat, the slope is nearly 0, and a unit that sits there
# learns nearly nothing. Moreover, the slope of the sigmoid never exceeds $\frac14$, so ten sigmoids in a row leave at
# most a millionth of a change at the input.
#
# Around 2010, before ReLU, this was *the* problem of deep networks, known as *vanishing gradients*. A gradient that
# passes through ten saturated layers is multiplied by ten small numbers. The layers near the input learned nothing, and
# researchers trained networks layer by layer to get around it.


def tanh_slope(x):
    """The derivative of tanh at an array x, 1 - tanh(x)**2."""
    return 1 - np.tanh(x) ** 2


# ## Smooth relatives of ReLU
#
# `softplus` is $\ln(1 + e^x)$, a ReLU with a rounded corner, whose derivative is the sigmoid. It overflows as the
# sigmoid does, and we cure it in the same way, by factoring $e^x$ out of the logarithm where $x$ is positive:
#
# $$ \ln(1 + e^x) = \max(x, 0) + \ln(1 + e^{-|x|}) $$
#
# PyTorch's version has a threshold above which it returns $x$ itself. Ours needs none.


@primitive
def softplus(x, /, beta=1.0):
    """log(1 + exp(beta * x)) / beta, without overflow."""
    x = as_floats(x)
    corner = np.maximum(x, 0) if beta > 0 else np.minimum(x, 0)
    with quiet():  # where beta * x is infinite, the corner is far away
        return corner + np.log1p(np.exp(-np.abs(x * beta))) / beta


# `silu` is $x\,\sigma(x)$: the input, gated by its own size. We get its derivative from the product rule, $\sigma(x) +
# x\,\sigma(x)(1 - \sigma(x))$. Because we can write it with primitives that we already have, it is a plain function.
#
# Why do we want smooth functions at all, if ReLU works? ReLU's slope changes abruptly at one point, and gradient
# descent works better where the slope changes gradually. Most of the transformers that chapter 14 follows use GELU or
# SiLU.


def silu(x):
    """x * sigmoid(x), also called swish. Elfwing et al., 2017."""
    return x * sigmoid(x)


def silu_slope(x):
    """The derivative of silu, by the product rule."""
    s = sigmoid(x)
    return s + x * s * (1 - s)


# `gelu` gates with the normal distribution instead. It is $x\,\Phi(x)$, where $\Phi(x) = \frac12\left(1 +
# \operatorname{erf}\frac{x}{\sqrt 2}\right)$ is the probability that a standard normal number is below $x$. GPT-2 was
# trained with an approximation that needs no error function:
#
# $$ \operatorname{gelu}(x) \approx \tfrac{x}{2}\,(1 + \tanh u), $$
#
# $$ u = \sqrt{\tfrac{2}{\pi}}\,(x + 0.044715\,x^3) . $$


# The next two functions are the gates, $\Phi$ and its approximation. They must handle two dangers. In `float16`, $1 +
# \operatorname{erf}$ and $1 + \tanh$ are 0 from $-4$ on, although the gate is not, so we compute 16-bit numbers in 32
# bits. And the cube of a large number overflows. Since both gates are 0 or 1 to the last digit long before $\pm 40$, we
# clip the input there.


def _wide(x):
    return x.astype(np.promote_types(x.dtype, np.float32), copy=False)


def _normal_below(x):
    return (0.5 * (1 + erf(_wide(x) / math.sqrt(2)))).astype(x.dtype)


_GELU = math.sqrt(2 / math.pi)


def _tanh_below(x):
    z = np.clip(_wide(x), -40, 40)
    return (0.5 * (1 + np.tanh(_GELU * (z + 0.044715 * z * z * z)))).astype(x.dtype)


# `gelu` itself is $x$ times one of the two gates; the names are PyTorch's. If you prefer, write the formula from above
# with `erf`. It is the same function, only less exact in `float16`.


@primitive
def gelu(x, /, approximate="none"):  # exercise
    """x times the normal distribution function: the exact one for approximate="none", the form with tanh, as in GPT-2,
    for "tanh". Raises ValueError for any other name. Integers become floats first, by `as_floats`. Hendrycks and
    Gimpel, 2016."""
    x = as_floats(x)
    if approximate not in ("none", "tanh"):
        raise ValueError(f'approximate must be "none" or "tanh", not {approximate!r}')
    return x * (_normal_below(x) if approximate == "none" else _tanh_below(x))


# You will find both forms in published models, and a third one, $x\,\sigma(1.702\,x)$. If you load a model's weights
# and use the wrong form, nothing fails; the numbers are just slightly off. Here is how far apart the three are:


def show_three_gelus():
    for x in (Tensor([0.5]), Tensor([1.0]), Tensor([2.0])):
        exact, with_tanh, quick = gelu(x), gelu(x, approximate="tanh"), x * sigmoid(1.702 * x)
        print(f"x = {x.item()}: exact {exact.item():.4f}, tanh {with_tanh.item():.4f}, sigmoid {quick.item():.4f}")


# We differentiate the exact form by the product rule: $\Phi(x)$ plus $x$ times the derivative of $\Phi$, which is the
# density $\phi(x) = e^{-x^2/2}/\sqrt{2\pi}$. For the form with $t = \tanh u$ the chain rule gives
#
# $$ \tfrac12 (1 + t) + \tfrac{x}{2} (1 - t^2)\, u', $$
#
# $$ u' = \sqrt{\tfrac{2}{\pi}}\,(1 + 3 \cdot 0.044715\, x^2) . $$
#
# `gelu_slope` is an operation of its own, since chapter 07 will need it often.


@primitive
def gelu_slope(x, /, approximate="none"):
    """The derivative of gelu, for both forms; arguments as for gelu."""
    x = as_floats(x)
    z = np.clip(_wide(x), -40, 40)
    if approximate == "none":
        slope = _normal_below(z) + z * np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    else:
        t = np.tanh(_GELU * (z + 0.044715 * z * z * z))
        slope = 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * _GELU * (1 + 3 * 0.044715 * z * z)
    return slope.astype(x.dtype)


# We write `z * z * z` and not `z**3` because a power of three goes through the general `pow`. It takes longer, and many
# times as long where the numbers are negative.


def show_cube():
    x = np.linspace(-3, 3, 400_000, dtype=np.float32)
    power, product = measure(lambda: x**3).seconds, measure(lambda: x * x * x).seconds
    print(f"x**3: {power * 1e3:.2f} ms, x*x*x: {product * 1e3:.2f} ms")


# ## The witness
#
# We now let `numeric_slope` judge every derivative of this chapter. (`leaky_relu` is missing here because its picture
# would look like ReLU's.)

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


# The same table gives us a picture. Each function is drawn solid and its slope dashed. Look for the places where the
# slope is near zero: a unit that sits there does not learn.


def show_functions():
    """Eight activations, solid, and their slopes, dashed, between -4 and 4."""
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
# How much harm does a slope below 1 do? We send a signal through ten layers with an activation after each. Along the
# way we multiply the slopes, which is what the chain rule does on the way back. We take the weights out of the picture
# by scaling them so that a product with them keeps the size of the signal. What remains is the effect of the
# activations alone.


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


# All paths through the sigmoid are down to less than a millionth. Tanh does best, because this signal is small and tanh
# is nearly straight near zero; with larger weights it saturates, as we will see in chapter 04. With ReLU the result is
# quite different. Most paths are cut off entirely by a unit that was silent somewhere along the way, and the others
# pass on everything. That is enough, because a network has many paths and a gradient is a sum over all of them.
#
# Which activation should you take, then? For a network of the kind that we build in chapters 04 to 10, take ReLU until
# you have a reason not to. Take GELU or SiLU where the network is deep and smooth steps matter, as in transformers.
# Tanh fits where the output should be between $-1$ and $1$, as in the recurrent networks that this course leaves out.
# Put the sigmoid at the very end for a yes or no, hardly ever in between, and softmax at the end for one of many.

# ## Softmax
#
# Our last function is of another kind. It does not bend single elements. *Softmax* turns a row of arbitrary numbers
# into probabilities, which are positive and add up to 1:
#
# $$ \operatorname{softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}} . $$
#
# A network that chooses among ten digits puts out ten numbers, the *logits*, and softmax makes them comparable. It
# overflows like the sigmoid. The cure relies on the fact that adding the same constant to every logit changes nothing,
# because numerator and denominator are multiplied by the same factor:
#
# $$ \frac{e^{x_i - c}}{\sum_j e^{x_j - c}} = \frac{e^{-c}\, e^{x_i}}{e^{-c} \sum_j e^{x_j}}
# = \operatorname{softmax}(x)_i . $$
#
# So we subtract the largest element *of each row*. Then the largest exponent is 0 and no $e^x$ exceeds 1. One of them
# is exactly 1, so the sum cannot be 0 either.
#
# Two details remain. The maximum of a row without elements does not exist; for that case NumPy's `max` accepts an
# `initial` value. And a long row in `float16` has a sum above 65,504, the largest number of that dtype. The dictionary
# `ADDED_IN` of chapter 02 says in which dtype we should add up the elements of an array.


@primitive(cost=lambda out, x, **params: 3 * x.size)
def softmax(x, /, dim):  # exercise
    """exp(x) / sum(exp(x)) along `dim`, without overflow. Integers become floats first, by `as_floats`; along a
    dimension of length 0 there is nothing to divide, and the result is as empty as x. Raises IndexError for a dimension
    that x does not have."""
    x = as_floats(x)
    with quiet():
        e = np.asarray(np.exp(x - x.max(axis=dim, keepdims=True, initial=-np.inf)))
        e /= e.sum(axis=dim, keepdims=True, dtype=ADDED_IN[x.dtype])
    return e


# We need the logarithm of softmax even more often: chapter 05 takes $\ln p$ of the right class as its measure of
# success. If we took `log` after `softmax`, we would throw digits away. A probability of $10^{-50}$ is 0 in `float32`,
# and its logarithm is minus infinity. Done in one step, the logarithm is $x_i - \ln \sum_j e^{x_j}$, and we lose
# nothing.
#
# We subtract the row's largest element here as well. The sum that goes into the logarithm is then at least 1, so its
# logarithm is at least 0 and never a problem. In a row of logits (0, 0, 200), for example, the first two classes have
# the probability $e^{-200}$, which is 0 in `float32`; but its logarithm, $-200$, is a perfectly ordinary number.


@primitive(cost=lambda out, x, **params: 3 * x.size)
def log_softmax(x, /, dim):  # exercise
    """The logarithm of softmax along `dim`, exact also where softmax itself would round to 0. Integers, dimensions of
    length 0 and dimensions that x does not have: as for softmax."""
    x = as_floats(x)
    with quiet():
        shifted = np.asarray(x - x.max(axis=dim, keepdims=True, initial=-np.inf))
        shifted -= np.log(np.exp(shifted).sum(axis=dim, keepdims=True, dtype=ADDED_IN[x.dtype]))
    return shifted


# It is your turn to predict. A formula on paper and the same formula in `float32` are two different things, and you can
# now say where they part without running anything. Work the five cases out by hand. Which power is infinite, which is
# 0, and what happens to the quotient then?


def predict_far_out() -> dict[str, float]:  # exercise
    """Five results that float32 gives. Write infinity as math.inf, and a result that is not a number as math.nan. The
    keys are

    "a": exp(1000) / (1 + exp(1000)),
    "b": exp(-1000) / (1 + exp(-1000)),
    "c": the first element of exp(x) / sum(exp(x)) for x = [0, 1000],
    "d": the first element of log(softmax(x)) for x = [0, 200],
    "e": the first element of log_softmax(x) for the same x."""
    return {"a": math.nan, "b": 0.0, "c": 0.0, "d": -math.inf, "e": -200.0}


# Here are three rows to look at. The second is the first plus 1000 and must give the same result. The third has a class
# that is practically certain.


def show_softmax():
    rows = tensor([[1.0, 2.0, 3.0], [1001.0, 1002.0, 1003.0], [0.0, 0.0, 200.0]])
    print("logits", rows, "softmax", softmax(rows, dim=1), sep="\n")
    print("log(softmax)", softmax(rows, dim=1).log(), sep="\n")
    print("log_softmax", log_softmax(rows, dim=1), sep="\n")


# The derivative of softmax is a matrix for each row, since each probability depends on each logit. We differentiate the
# quotient, once for $i = j$ and once for $i \ne j$, and write both results as one, where $[i = j]$ is 1 if the two are
# equal and 0 otherwise:
#
# $$ \frac{\partial p_i}{\partial x_j} = \frac{[i = j]\, e^{x_i} \sum_k e^{x_k} - e^{x_i} e^{x_j}}
# {\left(\sum_k e^{x_k}\right)^2} = p_i\,([i = j] - p_j) $$
#
# We never build that matrix. A gradient needs only its product with a vector $g$, the *vector-Jacobian product*, and
# that takes one sum per row:
#
# $$ \sum_i g_i\, p_i\,([i = j] - p_j) = p_j\,\Bigl(g_j - \sum_i g_i p_i\Bigr) $$


def softmax_backward(p, g):  # exercise
    """The vector-Jacobian product of softmax: for probabilities p and row vectors g, arrays (N, C), the product of each
    g with the derivative at its p, an array (N, C)."""
    return p * (g - (g * p).sum(axis=1, keepdims=True))


# Our check takes the long way. It moves each of the five logits of all rows, measures how each probability reacts, and
# multiplies.


def check_softmax_backward():
    x, g = np.random.default_rng(0).standard_normal((2, 3, 5))
    eps = 1e-6 * np.eye(5)
    columns = [((softmax(x + e, dim=1) - softmax(x - e, dim=1)) * g).sum(1) / 2e-6 for e in eps]
    assert np.abs(np.stack(columns, 1) - softmax_backward(softmax(x, dim=1), g)).max() < 1e-8


# ## The cost
#
# ReLU does so little arithmetic for each number that it costs as much as moving the number. The others pay for
# exponentials and for temporary arrays, each of which is another trip through memory. To see what the choice of an
# implementation costs, we add a naive `leaky_relu` with `np.where` to the table.


def leaky_relu_by_choice(x):
    """leaky_relu by np.where, the first form that comes to mind; returns an array."""
    return np.where(x.numpy() > 0, x.numpy(), 0.01 * x.numpy())


def show_cost():
    x = randn(1_000_000)
    contenders = [relu, leaky_relu, leaky_relu_by_choice, tanh, sigmoid, softplus, gelu]
    times = {function.__name__: measure(function, x).seconds for function in contenders}
    for name, seconds in times.items():
        print(f"{name:20s} {seconds * 1e3:7.2f} ms   {seconds / times['relu']:6.1f} times relu")


# A million numbers in and a million out are 8 MB, and ReLU moves them at the speed of the memory. `tanh` is the
# quickest of those with an exponential, since NumPy has one compiled loop for it. Our sigmoid is seven NumPy calls,
# each of which allocates an array. The exact GELU pays for the polynomials of the error function, which run over the
# whole array many times. We return to this in chapter 15.

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
# You can build new activations from operations on tensors that we already have. An example is `hard_sigmoid`, a sigmoid
# made of straight pieces, $\min(\max(x/6 + 1/2, 0), 1)$:


def hard_sigmoid(x: Tensor) -> Tensor:
    """x / 6 + 1/2, cut off below 0 and above 1."""
    return (x / 6 + 0.5).clip(min=0.0, max=1.0)


def check_hard_sigmoid():
    assert np.allclose(hard_sigmoid(Tensor([-9, -3, 0, 1.5, 9])).numpy(), [0, 0, 0.5, 0.75, 1])


# The other two are yours.
#
# 1. `log_sigmoid`: $\ln \sigma(x)$ that is right at $-1000$, where $\sigma$ is 0. Which function of this chapter is it,
#    except for two signs?
# 2. `softmax_with_temperature`: the softmax of $x / T$. A large *temperature* $T$ evens the probabilities out, a small
#    one sharpens them.


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
# We chose our activations by hand. An automatic search for better ones (Ramachandran, Zoph and Le, 2017) tried many
# formulas and found swish, $x\,\sigma(\beta x)$, which for $\beta = 1$ is our SiLU. PyTorch has some thirty
# activations, of which most networks use two. Another road is to let units compete instead of bending each number, as
# in maxout (Goodfellow et al., 2013). It doubles the weights for the same width and has not come back.

# ## What hurts next
#
# With a nonlinear function between them, two layers can solve XOR, and many layers can do much more. Here is a network
# of four layers that reads a digit of 64 pixels. It has learned nothing yet, but it computes. Let us count the arrays
# that we must carry.


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


# We carry eight arrays by hand through every function that needs them. We must initialize them, save them and update
# them, each under a name that we must spell right each time. It is time for an object that carries them for us: chapter
# 04, *Layers*.

__all__ = [
    "elu", "elu_slope", "gelu", "gelu_slope", "hard_sigmoid", "leaky_relu", "log_sigmoid", "log_softmax",
    "numeric_slope", "relu", "relu_slope", "sigmoid", "sigmoid_naive", "sigmoid_slope", "silu", "silu_slope",
    "softmax", "softmax_backward", "softmax_with_temperature", "softplus", "step", "tanh_slope", "xor_points",
]
