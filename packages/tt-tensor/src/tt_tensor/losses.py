# # Losses
#
# At the end of this chapter we have one number that says how wrong a network is: the *loss*. We also have a referee,
# slow and incorruptible, that says in which direction each weight should move.

# ## The hurt
#
# At the end of chapter 04 two untrained networks looked at the same picture of a 3 and spread their bets over ten
# digits. We could not say which of the two was better. The obvious number is the *accuracy*, the share of pictures that
# a network gets right. Let us try to improve a network with it, in small steps.

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tt_tensor.activations import log_softmax, relu, sigmoid, softmax, softplus, xor_points
from tt_tensor.layers import Linear, Module, Sequential, Tanh
from tt_tensor.more_ops import gather, one_hot, where
from tt_tensor.arguments import as_floats
from tt_tensor.setup import generator, manual_seed
from tt_tensor.targets import LossOptions, as_float, class_ids, class_weights, reduced, refuse_other_shape
from tt_tensor.tensor import (
    ADDED_IN, Tensor, float16, float32, float64, from_numpy, mean, primitive, quiet, randn, sum,
    tensor, zeros,
)


# `argmax` gives the index of the largest logit in each row. We compare it with the labels, and the mean of the
# resulting truth values is the accuracy.


def accuracy_of(logits: Tensor, labels: Tensor) -> float:
    """The share of rows whose largest element is at the index that the label gives: logits (N, C), labels (N,)."""
    return (logits.argmax(dim=1) == labels).to(float32).mean().item()


def show_hurt():
    x, labels = randn(100, 4), tensor(generator().integers(0, 3, 100))
    layer = Linear(4, 3)
    start = accuracy_of(layer(x), labels)
    print(f"right: {start:.2f}; after changing one weight by ...")
    for change in (1e-6, 1e-4, 1e-2):
        layer.weight[0, 0] += change
        print(f"  {change:g}: {accuracy_of(layer(x), labels):.2f}")
        layer.weight[0, 0] -= change


# Nothing moves, because the accuracy is a staircase. It stays where it is until some example tips over, and then it
# jumps. We want a good accuracy in the end, but we cannot get there with it. We need a number that says *a little
# better* when the network has become a little better.

# ## The smallest thing that could work
#
# We take the distance. For an answer $y$ and a target $t$, we square the difference and average over everything.


def mean_squared_distance(y, t):
    """The mean of the squared difference, over whatever shape broadcasting gives it."""
    return ((y - t) ** 2).mean()


# This number is smooth, and it is zero only if every answer is right. Here is how it disappoints. Suppose we give it
# answers of shape (4, 1) and targets of shape (4,). Broadcasting builds a (4, 4) table of the differences between all
# answers and all targets, and the loss silently averages 16 numbers instead of 4. People have lost weeks to that.


def show_silent_broadcast():
    answers, targets = Tensor([[1], [2], [3], [4]]), Tensor([1, 2, 3, 4])
    print("every answer is right, and the loss is", mean_squared_distance(answers, targets).item())


# So a loss is a small formula together with the questions that it asks beforehand. The losses below have PyTorch's
# names, and they check their arguments more strictly than PyTorch does.

# ## The idea: how surprised were you?
#
# For probabilities we have a better number than a distance. If a network gives the right answer the probability $p$,
# its *surprise* at the truth is $-\ln p$: zero for $p = 1$, and growing without bound as $p$ goes to zero. Imagine a
# network that says *certainly not a 3* about a 3. The squared distance charges it at most 1 for that, whereas the
# surprise has no limit.
#
# You can also read the surprise as an amount of information. It is the number of *nats*, natural units of information,
# that the truth carries for you if you gave it the probability $p$. A probability of one half is worth 0.69 nats, or
# one bit; one tenth is worth 2.3.


def show_surprise():
    """Surprise and squared distance over the probability of the right answer: only the surprise grows without end."""
    import matplotlib.pyplot as plt

    p = np.linspace(0.005, 1, 300)
    figure, axis = plt.subplots(figsize=(6, 3))
    axis.plot(p, -np.log(p), label="surprise, -ln p")
    axis.plot(p, (1 - p) ** 2, linestyle="--", label="squared distance, (1 - p)²")
    axis.set_xlabel("probability given to the right answer")
    axis.set_ylabel("loss")
    axis.legend()
    axis.grid(alpha=0.3)
    figure.tight_layout()
    return figure


# The average surprise over all examples is the *cross-entropy*. A network that knows nothing gives each of ten digits
# one tenth, so its loss is $\ln 10 = 2.303$. Remember that number: if a fresh network starts far above it, its
# initialization is bad.

# ## Distances
#
# We begin with the family of distances. They share two questions: are the shapes equal, and how do many numbers become
# one?
#
# In every loss `reduction` is one of three words, as in PyTorch. The mean is the usual choice because it does not
# depend on the number of examples in the *mini-batch*. A *learning rate* that suits 32 examples at a time is then not
# off by a factor of two for 64.
#
# The formula does not need the question about shapes, but we who use it do. Because every loss asks both questions, two
# functions in the module `targets` answer them: `refuse_other_shape(name, x, target)` and `reduced(values, reduction)`.
# The same module has `as_float(x, target)`, which returns x, converted to `float32` if both hold integers. (You find
# the other distances, absolute and Huber's, in the appendix *More losses*, with the divergence of two distributions.)


def mse_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:  # exercise
    """Mean squared error, (x - target)**2 averaged over all elements, or treated as the `reduction` says.
    Raises ValueError for different shapes and for an unknown reduction; integers count as float32 (`as_float`)."""
    refuse_other_shape("mse_loss", x, target)
    difference = as_float(x, target) - target
    return reduced(difference * difference, reduction)


# ## Cross-entropy
#
# We did the work in chapter 03: `log_softmax` turns logits into logarithms of probabilities without losing digits. It
# remains to pick, in each row, the element that the label points to, and to change its sign. Labels are integers from 0
# to the number of classes minus one.
#
# We pick with `gather`: `gather(table, 1, index)` takes from each row of the table the elements whose positions are in
# the same row of `index`. The index therefore has two dimensions, and so does the result. The beginner's `log_p[:,
# labels]` is something else: it picks *all* the labelled columns for every row and gives a table of shape (N, N). It
# would also be wrong to leave the tensor and pick from its array, because chapter 07 follows operations on tensors.


def nll_of_rows(log_probabilities: Tensor, labels: np.ndarray) -> Tensor:  # exercise
    """The negative log-likelihood of each row: minus the element of log_probabilities (N, C) at the row's label, for an
    array of labels (N,). The result is a tensor of shape (N,), made by operations on tensors."""
    picked = gather(log_probabilities, 1, labels[:, np.newaxis])
    return -picked.squeeze(1)


# With `log_softmax` before it, this *negative log-likelihood* is the surprise. However, we keep only one number from
# each row of logits $z$ with the label $t$, and this deserves a kernel of its own:
#
# $$ -\ln \frac{e^{z_t}}{\sum_j e^{z_j}} = \ln \sum_j e^{z_j} - z_t . $$
#
# We never need the full table of logarithms again, and if the classes are fifty thousand words, it would be the largest
# thing in memory.
#
# Why do we prefer the form on the right to `softmax` followed by `log`? Look at a row such as (1000, 0). The
# probability of the second class is zero in every precision that we have, and the logarithm of zero is minus infinity,
# although the logits themselves say that it is $-1000$. Nor can we compute $e^{1000}$. As in chapter 03, we therefore
# subtract the largest logit of the row from all of them first, which changes neither side of the equation.


def surprises(z: np.ndarray, labels: np.ndarray) -> np.ndarray:  # exercise
    """The surprise of each row of logits at its label, ln(sum of e^z) - z[label], for arrays z (N, C), which stays as
    it is, and labels (N,): an array (N,). Finite for all finite logits. The powers are added one width up, in
    `ADDED_IN[z.dtype]`, because 70,000 ones are more than float16 can hold."""
    shifted = z - z.max(axis=1, keepdims=True)
    totals = np.exp(shifted).sum(axis=1, dtype=ADDED_IN[z.dtype])
    return np.log(totals) - shifted[np.arange(len(labels)), labels]


# We turn it into a primitive in the sense of chapter 02, `surprise`. Given a weight for each row, its *importance*,
# `surprise` also takes the mean, so that the whole loss is one operation instead of seven. The mean divides by the
# number of *examples*. If we averaged over examples times classes, as an innocent `.mean()` over a one-hot table would,
# the loss would be ten times too small for ten classes.


@primitive(cost=lambda out, x, **params: 3 * x.size)
def surprise(x, /, labels, importance=None):
    """The surprise -log_softmax of each row of x (N, C) at its class number in labels (N,): (N,). With importance (N,),
    the weighted mean of these, or nan if nothing counts."""
    x = as_floats(x)
    with quiet():
        losses = surprises(x, labels) if x.size else np.zeros(len(x))
        if importance is None:
            return losses.astype(x.dtype)
        losses = np.where(importance == 0, 0, losses * importance)
        return (losses.sum() / (importance.sum(dtype=np.float64) or np.nan)).astype(x.dtype)


# PyTorch's two losses offer more. A label equal to `ignore_index` does not count. `weight` gives each class an
# importance, and the mean becomes a weighted mean. Further dimensions (a label for each pixel, or for each position in
# a text) come last, as (N, C, ...) against (N, ...).
#
# We check quite a list of conditions here, and each is there because breaking it would not crash by itself. A label of
# $-1$ is a valid index in NumPy and means the last class. You can compare and sum labels that are floats. Labels of
# shape (N, 1) broadcast. In each of these cases the network would train, on nonsense. So `class_ids` looks at the
# labels first. It returns them, with 0 in place of those that do not count, and it returns which of them count.
#
# Three helpers follow. `_rows` turns logits of any shape into rows. `_shaped` gives the results of the rows their shape
# again, if there still is one number for each. `_importance` weighs an example with its class's weight, or with 0 if it
# does not count.


def _rows(x: Tensor, at: int) -> Tensor:
    others = [d for d in range(x.ndim) if d != at]
    return x if x.ndim == 2 else x.permute(*others, at).reshape(math.prod(x.shape[d] for d in others), x.shape[at])


def _shaped(result: Tensor, shape: tuple[int, ...], reduction: str) -> Tensor:
    return result.reshape(shape) if reduction == "none" and len(shape) != 1 else result


def _importance(x, labels, counted, weight, at) -> np.ndarray:
    importance = counted if weight is None else counted * class_weights(weight, x.shape[at])[labels]
    return np.asarray(importance, x.dtype if x.dtype.kind == "f" else float32).reshape(-1)


# The weighted mean divides by the total importance of the labels, $\sum_n w_n L_n / \sum_n w_n$. An example that does
# not count must not count even if its loss is infinite, and $0 \cdot \infty$ is not 0 but nan. So we replace its loss
# with `where` before we multiply anything.


def weighted(losses: Tensor, importance: np.ndarray, reduction: str) -> Tensor:  # exercise (starred)
    """Losses (N,) times their importance, an array (N,) of the same dtype; 0 where the importance is 0, whatever the
    loss. Then the `reduction`: for "mean" `total_over`, so the sum by the total importance; otherwise `reduced`, which
    raises ValueError for an unknown one."""
    losses = where(from_numpy(importance != 0), losses, 0.0) * from_numpy(importance)
    return total_over(losses, importance) if reduction == "mean" else reduced(losses, reduction)


def total_over(losses: Tensor, importance: np.ndarray) -> Tensor:
    """The sum of all losses divided by the sum of the importance; nan if that is 0. float16 is added in float32."""
    wide = losses.to(float32) if losses.dtype == float16 else losses
    return (sum(wide) / float(importance.sum(dtype=np.float64))).to(losses.dtype)


# With these parts, the first of the two losses only checks, picks and weighs.


def nll_loss(
    log_probabilities: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Minus the logarithm of the probability of the right class: log_probabilities (N, C, ...) or (C,), target of
    class numbers (N, ...) or ().

    "mean" divides by the number (or total weight) of the labels that count. Raises TypeError for labels that are not
    integers, ValueError for labels of another shape, and IndexError for a label without a class."""
    labels, counted = class_ids(log_probabilities, target, ignore_index)
    at = min(1, log_probabilities.ndim - 1)
    losses = nll_of_rows(_rows(log_probabilities, at), labels.reshape(-1))
    importance = _importance(log_probabilities, labels, counted, weight, at)
    return _shaped(weighted(losses, importance, reduction), labels.shape, reduction)


# The targets of `cross_entropy` may also be probabilities $q$ (floats, in the shape of the logits). The loss is then
# the surprise that we expect if $q$ is true, $-\sum_c q_c \ln p_c$. A class number is the special case in which one
# class has all the probability. *Distillation* in chapter 18 trains on such targets, because a large network's doubts
# teach more than a plain answer.
#
# *Label smoothing* is a gentle *regularization*. It takes a little belief $\epsilon$ from each target and gives it to
# all C classes alike, $q \leftarrow (1 - \epsilon)\, q + \epsilon / C$, which keeps logits from growing without end.


def soft_surprises(log_p: Tensor, wanted: Tensor, label_smoothing: float) -> Tensor:  # exercise (starred)
    """The expected surprise of each row of logarithms log_p (N, C) if the probabilities `wanted` (N, C) are true, after
    smoothing them: (N,). Both stay as they are."""
    if label_smoothing:
        wanted = wanted * (1 - label_smoothing) + label_smoothing / wanted.shape[1]
    return -sum(wanted * log_p, dim=1)


# Class weights multiply the logarithms. For class numbers the mean divides by the weights of the labels, for
# probabilities by the number of rows.


def _spread_cross_entropy(x, wanted, counted, importance, weight, reduction, label_smoothing, at):
    log_p = log_softmax(_rows(x, at), dim=1)
    if weight is not None:
        log_p = log_p * from_numpy(class_weights(weight, x.shape[at]))
    losses = soft_surprises(log_p, wanted, label_smoothing if x.shape[at] else 0.0)
    losses = losses if counted.all() else where(from_numpy(counted.reshape(-1)), losses, 0.0)
    result = total_over(losses, importance) if reduction == "mean" else reduced(losses, reduction)
    return _shaped(result, counted.shape, reduction)


# Now we can write `cross_entropy`, which only has to sort the cases. The usual case is the shortest: `surprise` of the
# rows, mean included.


def cross_entropy(
    x: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The average surprise of softmax(x), logits (N, C, ...) or (C,), at the target: class numbers (N, ...) or (), or
    probabilities in the shape of x. Raises what nll_loss raises, and ValueError for a label_smoothing outside 0
    to 1."""
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must be between 0 and 1, not {label_smoothing}")
    at = min(1, x.ndim - 1)
    if target.dtype.kind == "f" and target.shape == x.shape and x.ndim:
        counted = np.ones([size for d, size in enumerate(x.shape) if d != at], bool)
        options = (weight, reduction, label_smoothing, at)
        return _spread_cross_entropy(x, _rows(target, at), counted, counted * (x.shape[at] > 0), *options)
    labels, counted = class_ids(x, target, ignore_index)
    importance, flat = _importance(x, labels, counted, weight, at), labels.reshape(-1)
    if label_smoothing:
        wanted = from_numpy((flat[:, np.newaxis] == np.arange(x.shape[at])).astype(importance.dtype))
        return _spread_cross_entropy(x, wanted, counted, importance, weight, reduction, label_smoothing, at)
    if reduction == "mean":
        return surprise(_rows(x, at), labels=flat, importance=importance)
    return _shaped(weighted(surprise(_rows(x, at), labels=flat), importance, reduction), labels.shape, reduction)


# ## Yes or no
#
# For a single probability the surprise is $-t \ln p - (1 - t) \ln(1 - p)$. If $p$ is exactly 0 where the target is 1,
# that is infinite, and one infinite example makes the whole mean infinite. So we never compute $p$. With $p =
# \sigma(x)$ we know both logarithms:
#
# $$ -\ln\sigma(x) = \ln(1 + e^{-x}) = \operatorname{softplus}(-x) $$
#
# $$ -\ln(1 - \sigma(x)) = -\ln \frac{e^{-x}}{1 + e^{-x}} = \ln(1 + e^{x}) = \operatorname{softplus}(x) $$
#
# We could shorten the sum of the two, weighted by $t$ and $1 - t$. Because $\operatorname{softplus}(-x) =
# \operatorname{softplus}(x) - x$, it is $\operatorname{softplus}(x) - t\,x$. We leave it long. Consider a network that
# is right and sure of it, with $t = 1$ and $x = 14$. The short form subtracts 14 from a number that begins with 14, and
# of the loss, $8 \cdot 10^{-7}$, `float32` keeps not a single digit.


def binary_cross_entropy_with_logits(  # exercise
    x: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean", pos_weight: Tensor | None = None
) -> Tensor:
    """The surprise of the probabilities sigmoid(x) at the target t, computed without forming them: for each element
    pos_weight * t * softplus(-x) + (1 - t) * softplus(x), times `weight`, where the two are given; then the
    `reduction`, whose mean divides by the number of elements. Raises ValueError for different shapes of x and target,
    and for an unknown reduction."""
    refuse_other_shape("binary_cross_entropy_with_logits", x, target)
    positive = target if pos_weight is None else pos_weight * target
    losses = positive * softplus(-x) + (1 - target) * softplus(x)
    return reduced(losses if weight is None else losses * weight, reduction)


# ## Reading a loss
#
# A loss of 0.35: is that good? For the cross-entropy you can look it up. $e^{-L}$ is the probability that the right
# answers got, in the geometric mean, and $\ln C$, for $C$ classes, is the price of total ignorance.


def show_reading():
    print("loss   probability of the right answer   compared with ignorance among 10 classes")
    for value in (2.303, 1.0, 0.35, 0.1, 0.01):
        print(f"{value:5.2f}   {np.exp(-value):26.1%}   {value / np.log(10):35.0%}")


# A training loss that starts at 2.3, falls to 0.35 and stays there says that the right digits get a probability of 70 %
# in the geometric mean. It does not say how many answers are right. One network may give 70 % to every right answer;
# another may give nearly all to most and next to nothing to a few. Both can have the same loss, but only the first is
# always right. So we watch both numbers: the loss to learn by and the accuracy to judge by.
#
# How low can the loss go? To zero, if every example has exactly one right answer that can be known. Sometimes the data
# themselves are uncertain: imagine a smudge that three people read as 1 and two as 7. Then the lowest possible value is
# that uncertainty, the *entropy* of the labels. A network that goes below it on the training data has begun to memorize
# them, which is *overfitting*. The loss minus the entropy, all that we can still gain, is the divergence that `kl_div`
# computes.
#
# For the squared error you need another dictionary. Divide it by the variance of the targets: 1 means no better than
# always answering with the mean, 0.1 means that nine tenths of the variation are explained.

# We can read $e^L$, the *perplexity*, directly: the network is as unsure as if it chose among that many classes.
# Language models are graded with it.


def perplexity(x: Tensor, target: Tensor) -> float:
    """The perplexity, exp of the cross-entropy, of logits x (N, C) at class numbers (N,)."""
    return cross_entropy(x, target).exp().item()


def check_perplexity():
    assert np.isclose(perplexity(zeros(5, 8), tensor([0, 1, 2, 3, 4])), 8.0)


# ## As modules
#
# The functions above are the losses. As a module, a function and its options can be handed around like any other part
# of a network. We keep the options as attributes, such as `loss.reduction`. You can also pass them by position, in
# PyTorch's order, which the support class `LossOptions` knows.


class Loss(LossOptions, Module):
    """A loss function and its options; call it with input and target."""


class MSELoss(Loss):
    """mse_loss as a module; takes its options."""

    function = staticmethod(mse_loss)


class NLLLoss(Loss):
    """nll_loss as a module; takes its options."""

    function = staticmethod(nll_loss)
    order = ("weight", "size_average", "ignore_index", "reduce", "reduction")


class CrossEntropyLoss(Loss):
    """cross_entropy as a module; takes its options."""

    function = staticmethod(cross_entropy)
    order = ("weight", "size_average", "ignore_index", "reduce", "reduction")


class BCEWithLogitsLoss(Loss):
    """binary_cross_entropy_with_logits as a module; takes its options."""

    function = staticmethod(binary_cross_entropy_with_logits)
    order = ("weight", "size_average", "reduce", "reduction")


# ## The witness
#
# As a witness we compute the cross-entropy by hand, with only Python's own logarithm, for three rows with labels.


def check_cross_entropy():
    import math

    logits, labels = [[2.0, 0.0, 1.0], [1000.0, 0.0, -1000.0], [0.5, 0.5, 0.5]], [0, 0, 2]
    surprise = 0.0
    for row, label in zip(logits, labels):
        top = max(row)
        surprise += math.log(math.fsum(math.exp(v - top) for v in row)) - (row[label] - top)
    assert math.isclose(cross_entropy(Tensor(logits), tensor(labels)).item(), surprise / 3, rel_tol=1e-6)


# We also check the number that is worth knowing: ten equal logits cost $\ln 10$.


def check_uninformed_network():
    assert np.isclose(cross_entropy(zeros(7, 10), tensor([3] * 7)).item(), np.log(10))


# ## The referee: slopes without thinking
#
# We now have a number that moves when a weight moves. So let us move each weight a little, one after the other, and see
# how the loss answers. The list of these answers is the *gradient*. It points uphill, so a short step against it makes
# the loss smaller.
#
# $$ \frac{\partial L}{\partial w_i} \approx \frac{L(w_i + \varepsilon) - L(w_i - \varepsilon)}{2 \varepsilon} $$
#
# We must be careful even here. We move every element in place and *put it back* exactly, by assigning the old value;
# adding and then subtracting $\varepsilon$ would leave rounding behind. And $\varepsilon$ depends on the precision,
# because a step that is too small disappears in it. *In place* means in the array that the loss will look at.
# `numbers_of` gives us that array, with all elements in one row.


def numbers_of(x: Tensor) -> np.ndarray:
    """The elements of x as a flat array that shares its memory, so writing into it changes x. Raises ValueError for a
    tensor that is not contiguous."""
    if not x.is_contiguous():
        raise ValueError(f"slope needs a contiguous tensor: call .contiguous() on this one of shape {x.shape} first")
    return x.data.writable().reshape(-1)


def slope(loss: Callable[[], Tensor], x: Tensor, eps: float | None = None) -> np.ndarray:  # exercise
    """The gradient of `loss()` with respect to x, by moving each element of x in place by +-eps; x is left as it was.
    Returns an array of float64 in the shape of x. The default eps is 1e-6 for float64 and 1e-2 for smaller dtypes.

    The error is about eps**2 plus rounding / eps: with float64 some nine digits are right, with float32 about three."""
    eps = eps or (1e-6 if x.dtype == np.float64 else 1e-2)
    values = numbers_of(x)
    gradient = np.empty(values.shape, np.float64)
    for i, value in enumerate(values.copy()):
        around = []
        for moved in (value + eps, value - eps):
            values[i] = moved
            around.append(float(loss().item()))
        values[i] = value
        gradient[i] = (around[0] - around[1]) / (2 * eps)
    return gradient.reshape(x.shape)


# The referee knows nothing about the formulas that we derive, so it cannot share our mistakes. From here to the end of
# the book it judges everything that claims to be a gradient. However, it makes mistakes of its own, because it sees the
# function at only two points, in numbers of limited precision.


def show_corner():
    corner, large = Tensor([0.0], dtype=float64), Tensor([1e6], dtype=float64)
    print("relu at 0, with slopes of 0 and 1 on its two sides:", *slope(lambda: relu(corner).sum(), corner))
    print("x**3 at a million, where 3 x**2 is 3e+12:", *slope(lambda: (large**3).sum(), large))


# At a corner it gives the mean of both sides, which is right for neither. And if two large numbers agree in nearly all
# of their digits, few digits are left for their difference. So we ask the referee about moderate numbers, away from
# corners.
#
# We can find the most useful gradient of all on paper. For one row of logits $z$ with softmax $p$ and label $t$, the
# loss is $\ln \sum_j e^{z_j} - z_t$. The derivative of the logarithm is one over the sum, times the derivative of the
# sum:
#
# $$ \frac{\partial L}{\partial z_j} = \frac{e^{z_j}}{\sum_k e^{z_k}} - [j = t] = p_j - [j = t] $$
#
# It is the network's belief minus the truth. For the mean over N rows we divide it by N.
#
# It is hard to imagine a simpler gradient. It is bounded by 1 in each element, however wrong the network is. It
# vanishes exactly when belief and truth agree, and it needs nothing but the results of the forward pass.


def cross_entropy_gradient(x: Tensor, target: Tensor) -> Tensor:  # exercise
    """The gradient of cross_entropy(x, target) with respect to the logits x (N, C): (softmax - one_hot) / N. A tensor
    in the dtype of x; large logits do not overflow."""
    return (softmax(x, dim=1) - one_hot(target, x.shape[1], x.dtype)) / x.shape[0]


# The gradient of the squared error is even shorter.


def mse_gradient(x: Tensor, target: Tensor) -> Tensor:
    """The gradient of mse_loss(x, target) with respect to x: 2 (x - target) / number of elements."""
    return 2 * (x - target) / x.numel()


# Now we can call the referee. We keep the numbers on which it judges under a name, because in chapter 07 automatic
# differentiation must give the same gradients for them.


def loss_case() -> tuple[Tensor, Tensor, Tensor]:
    """The numbers for comparing gradients of losses: logits (4, 3), labels (4,), targets (4, 3), in float64."""
    z = np.sin(np.arange(12.0)).reshape(4, 3) * 2
    return Tensor(z), tensor([2, 0, 1, 1]), Tensor(np.cos(np.arange(12.0)).reshape(4, 3))


def check_gradients_by_hand():
    z, labels, wanted = loss_case()
    of_entropy, of_mse = slope(lambda: cross_entropy(z, labels), z), slope(lambda: mse_loss(z, wanted), z)
    assert np.allclose(of_entropy, cross_entropy_gradient(z, labels).numpy(), rtol=0, atol=1e-8)
    assert np.allclose(of_mse, mse_gradient(z, wanted).numpy(), rtol=0, atol=1e-8)


# ## Learning, at last
#
# Referee and loss are enough to learn XOR with four hidden units. We measure the slope of every parameter, take a step
# against it, and repeat. This is *gradient descent*, and the factor between slope and step is the learning rate.
#
# The network has seventeen numbers: eight weights and four biases in the first layer, four weights and a bias in the
# second. We must measure all slopes before we change anything. If we changed each parameter as soon as we know its
# slope, we would measure the next slope somewhere else.


def xor_network() -> Sequential:
    """Two inputs, four hidden tanh units, one logit."""
    return Sequential(Linear(2, 4), Tanh(), Linear(4, 1))


def descend(network: Module, loss: Callable[[], Tensor], rate: float, steps: int) -> list[float]:  # exercise
    """Gradient descent with slopes from the referee: each step changes every parameter in place by -rate times its
    slope, in its own dtype. Returns the losses before each step, as a list of `steps` numbers."""
    history = []
    for _ in range(steps):
        history.append(loss().item())
        gradients = [(p, slope(loss, p)) for p in network.parameters()]
        for parameter, gradient in gradients:
            parameter.data -= Tensor(rate * gradient, parameter.dtype)
    return history


# The loss begins near $\ln 2 = 0.693$, the surprise of a network that says one half to everything, as the best linear
# map of chapter 03 did. Then it leaves that plateau.


def show_learning():
    x, wanted = xor_points()
    network = xor_network()
    history = descend(network, lambda: binary_cross_entropy_with_logits(network(x), wanted), rate=1.0, steps=300)
    for step in (0, 50, 100, 200, 299):
        print(f"step {step:3d}: loss {history[step]:.4f}")
    print("answers", [round(v[0], 2) for v in sigmoid(network(x)).tolist()])


# We cannot draw a landscape over seventeen weights, but we can draw a cut through it. We stop after 60 steps, let two
# weights of one hidden unit move freely, and hold all the others.


def show_surface():
    """The XOR loss over two weights of one hidden unit: dark valleys, and arrows downhill, against the slope."""
    import matplotlib.pyplot as plt

    x, wanted = (points.double() for points in xor_points())
    network = xor_network().double()
    descend(network, lambda: binary_cross_entropy_with_logits(network(x), wanted), rate=1.0, steps=60)

    def loss_at(pair):
        network[0].weight.data[0] = pair
        return binary_cross_entropy_with_logits(network(x), wanted)

    def slope_at(pair):
        return slope(lambda: loss_at(pair), pair)

    fine, coarse = np.linspace(-6, 6, 25), np.linspace(-5.5, 5.5, 9)
    heights = [[loss_at(Tensor([a, b])).item() for a in fine] for b in fine]
    pairs = [Tensor([a, b], dtype=float64) for b in coarse for a in coarse]
    slopes = np.array([slope_at(pair) for pair in pairs])
    figure, axis = plt.subplots(figsize=(5.5, 4.2), layout="constrained")
    figure.colorbar(axis.contourf(fine, fine, heights, 20), label="loss")
    axis.quiver(*np.array([pair.tolist() for pair in pairs]).T, *-slopes.T, color="white")
    axis.set_xlabel("first weight")
    axis.set_ylabel("second weight")
    return figure


# Where the arrows are long, the surface is steep and one step gains a lot. Where they shrink to dots, the unit is
# saturated: every input that these weights reach drives its tanh to $\pm 1$, the surface is flat, and gradient descent
# has nothing to follow. There is also more than one valley, so the start decides which of them we reach.

# ## Predict, then measure
#
# You now know enough to predict some numbers before any program prints them. Work them out on paper, write them down,
# and let the tests measure. You learn more from one wrong prediction than from ten right ones.


def predict_losses() -> dict[str, float]:  # exercise
    """Six predictions by name, each a number that is right to three digits:

    "ignorance": cross_entropy(zeros(7, 1000), labels)
    "sure and wrong": cross_entropy of the logits (0, 1000) at the label 0
    "twice": how many times as large cross_entropy is for a batch in which each example comes twice
    "pairs": how many numbers mean_squared_distance averages for shapes (4, 1) and (4,)
    "smudge": the lowest cross_entropy possible for five copies of a picture, with the labels 1, 1, 1, 7 and 7
    "passes": how often slope calls the loss for all the parameters of an xor_network together"""
    return {
        "ignorance": math.log(1000),
        "sure and wrong": 1000.0,
        "twice": 1.0,
        "pairs": 16.0,
        "smudge": -0.6 * math.log(0.6) - 0.4 * math.log(0.4),
        "passes": 2.0 * 17,
    }


# ## The cost
#
# The referee needs two forward passes for each *number* in the network. The XOR network has 17 of them. How long would
# one step take for the digits network of chapter 04, with its 18,986?


def show_cost():
    from tt_tensor.layers import digits_network
    from tt_tensor.setup import measure

    for network, x in ((xor_network(), randn(4, 2)), (digits_network(), randn(64, 64))):
        count = sum_of_parameters(network)
        seconds = measure(network, x).seconds
        print(
            f"{count:6d} parameters: one pass {seconds * 1e6:5.0f} us, so one step by the referee "
            f"{2 * count * seconds:8.4f} s"
        )


# To count the numbers of a network, we ask its parameters for their sizes.


def sum_of_parameters(network: Module) -> int:
    """The number of elements in all parameters of the network."""
    total = 0
    for parameter in network.parameters():
        total += parameter.numel()
    return total


# We would wait seconds for a single step, although training takes thousands of steps and this network is tiny. The
# referee's slope is right, but we need a cheaper way to get it.

# ## Errors you will meet


def show_errors():
    logits = zeros(4, 3)
    attempts = [
        lambda: mse_loss(zeros(4, 1), zeros(4)),
        lambda: cross_entropy(logits, Tensor([0, 1, 2, 1])),
        lambda: cross_entropy(logits, tensor([0, 1, 2, 3])),
        lambda: cross_entropy(logits, tensor([0, 1])),
        lambda: cross_entropy(logits, tensor([0, 1]), label_smoothing=1.5),
    ]
    for attempt in attempts:
        try:
            attempt()
        except (ValueError, TypeError, IndexError) as error:
            print(f"{type(error).__name__}: {error}")


# ## Exercises
#
# 1. `relative_error`: how far two gradients are apart, $\max |a - b| / \max(|a|, |b|)$, the measure by which the
#    referee judges. What should it be for two zeros?
# 2. `hinge_loss`: for labels $\pm 1$, the mean of $\max(0, 1 - y\,x)$. This is the loss of support-vector machines,
#    which charge nothing for an answer that is right by a margin.
# 3. You have met two more above, for which you need patience rather than ideas: `weighted` and `soft_surprises`.


def relative_error(a: np.ndarray, b: np.ndarray) -> float:  # exercise
    """The largest difference between a and b, divided by the largest absolute value in either; 0 for two arrays of
    zeros. Returns a plain number."""
    largest = max(np.abs(a).max(), np.abs(b).max())
    return float(np.abs(a - b).max() / largest) if largest else 0.0


def check_relative_error():
    zeros, ones, others = np.zeros(3), np.array([1.0, 1.0]), np.array([1.0, 2.0])
    assert relative_error(zeros, zeros) == 0.0 and relative_error(others, ones) == 0.5


def hinge_loss(x: Tensor, target: Tensor) -> Tensor:  # exercise (starred)
    """The mean of max(0, 1 - target * x), for targets +1 or -1. Raises ValueError for different shapes."""
    refuse_other_shape("hinge_loss", x, target)
    return mean(relu(1 - target * x))


def check_hinge_loss():
    assert np.isclose(hinge_loss(Tensor([2.0, 0.5, -1.0]), Tensor([1, 1, 1])).item(), 2.5 / 3)


# ## A road not taken
#
# In PyTorch `cross_entropy` is `log_softmax` and `nll_loss`, each a compiled kernel with a hand-written derivative.
# Ours is a single primitive, `surprise`, wherever the target is a class. If shapes broadcast, PyTorch's `mse_loss`
# answers with a warning and a number. We raise an error: perhaps a program once meant it, but we have not met one. JAX
# itself has no losses; its libraries write them as formulas over `log_softmax`.

# ## What hurts next
#
# On paper the gradient is cheap. For one layer before a loss it takes these lines, given the gradient `g` of the
# layer's output:
#
# ```python
# grad_weight = g.T @ x
# grad_bias = g.sum(0)
# weight -= rate * grad_weight
# bias -= rate * grad_bias
# ```
#
# We write two lines to find the corrections and two to apply them, for each layer, in each program. What happens if we
# forget one of the update lines? We leave out the one for the first layer's weight, so that this weight never changes.
# Both networks start from the same weights, and the gradients are the referee's, so only the updating differs.


def show_forgotten_line():
    x, wanted = xor_points()
    for forgotten in (None, "0.weight"):
        manual_seed(0)
        network = xor_network()
        first = network[0].weight.clone()
        for _ in range(300):
            descend(network, lambda: binary_cross_entropy_with_logits(network(x), wanted), rate=1.0, steps=1)
            if forgotten:
                network[0].weight.data = first
        loss = binary_cross_entropy_with_logits(network(x), wanted).item()
        print(f"forgotten: {forgotten!s:9s} loss after 300 steps {loss:.3f}")


# There is no error and no warning. The loss just gets stuck, not far below $\ln 2$, and you would look for the reason
# in the data. We should write updating once, and carefully: chapter 06, *Optimizers*.

__all__ = [
    "BCEWithLogitsLoss", "CrossEntropyLoss", "Loss", "MSELoss", "NLLLoss", "accuracy_of",
    "binary_cross_entropy_with_logits", "cross_entropy", "cross_entropy_gradient", "descend", "hinge_loss",
    "loss_case", "mean_squared_distance", "mse_gradient", "mse_loss", "nll_loss", "perplexity", "relative_error",
    "slope", "sum_of_parameters", "surprise", "xor_network",
]
