"""Chapter 05, judged by its public names."""

import math

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor.teaching import between, expect

DISTANCES, CROSS_ENTROPY, YES_OR_NO = "Distances", "Cross-entropy", "Yes or no"
MODULES, REFEREE, LEARNING = "As modules", "The referee: slopes without thinking", "Learning, at last"
PREDICT = "Predict, then measure"
LOGITS, LABELS = [[2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [0.5, 0.5, 0.5], [1.0, -1.0, 2.0]], [0, 1, 2, 0]
PROBABILITIES = [[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]
LN4 = math.log(4)
LN10 = math.log(10)
PAIRS = "It averaged over 16 pairs instead of 4: shapes (4, 1) and (4,) broadcast. Compare them first."
DOUBLES = "The loss doubles with the batch size: take the mean, not the sum."


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def surprise(row, label):
    return math.log(sum(math.exp(z) for z in row)) - row[label]


EACH = np.array([surprise(*pair) for pair in zip(LOGITS, LABELS)])


# Distances


@pytest.mark.parametrize(
    "name, value",
    [
        ("mse_loss", (0.25 + 1 + 9) / 3),
        ("l1_loss", 1.5),
        ("huber_loss", (0.125 + 0.5 + 2.5) / 3),
        ("smooth_l1_loss", (0.125 + 0.5 + 2.5) / 3),
    ],
)
def test_distances(name, value):
    x, target = tt.Tensor([0, 0, 0]), tt.Tensor([0.5, -1, 3])
    expect(
        f"{name}([0, 0, 0], [0.5, -1, 3])",
        lambda: getattr(tt, name)(x, target),
        value,
        (3 * value, DOUBLES),
        ((np.array([0.5, -1, 3]).mean()) ** 2, "Take the square of each difference first, and then the mean."),
        see=DISTANCES,
    )


def test_mse_loss_reduces_as_it_is_told():
    x, target = tt.Tensor([[0, 0, 0], [1, 1, 1]]), tt.Tensor([[0.5, -1, 3], [1, 2, 0]])
    squares = np.array([[0.25, 1, 9], [0, 1, 1]])
    for reduction, wanted in (("none", squares), ("sum", squares.sum()), ("mean", squares.mean())):
        expect(
            f'mse_loss of two tensors of shape (2, 3), reduction="{reduction}"',
            lambda reduction=reduction: tt.mse_loss(x, target, reduction=reduction),
            wanted,
            (squares.mean(), "That is the mean; `reduction` says what is to become of the squares."),
            (squares.mean(axis=1), "The mean is over all elements, not over those of a row."),
            (squares.sum() / 2, "The mean divides by the number of elements, not of rows."),
            see=DISTANCES,
        )
    expect(
        'mse_loss(x, target, reduction="average")',
        lambda: tt.mse_loss(x, target, reduction="average"),
        ValueError,
        'There are three reductions, "mean", "sum" and "none"; `reduced` asks for them.',
        see=DISTANCES,
    )


def test_mse_loss_of_integers():
    expect(
        "mse_loss(tensor([1, 2]), tensor([2, 4])) of integers, and its dtype",
        lambda: (loss := tt.mse_loss(tt.tensor([1, 2]), tt.tensor([2, 4])), str(loss.dtype)),
        (2.5, "float32"),
        ((2.5, "float64"), "Integers count as float32: begin with `as_float(x, target)`."),
        "The mean of integers need not be one: begin with `as_float(x, target)`.",
        see=DISTANCES,
    )


@pytest.mark.parametrize(
    "name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy_with_logits", "kl_div"]
)
def test_equal_shapes_are_asked_for(name):
    answers, targets = tt.Tensor([[1], [2], [3], [4]]), tt.Tensor([1, 2, 3, 4])
    expect(
        f"{name} of shapes (4, 1) and (4,)",
        lambda: getattr(tt, name)(answers, targets).item(),
        ValueError,
        (np.isfinite, PAIRS),
        see=DISTANCES,
    )


def test_mse_loss_does_not_grow_with_the_batch():
    expect(
        "mse_loss of 8 differences of 1, over that of 4",
        lambda: tt.mse_loss(tt.ones(8), tt.zeros(8)).item() / tt.mse_loss(tt.ones(4), tt.zeros(4)).item(),
        1,
        (2, DOUBLES),
        see=DISTANCES,
    )


def test_options_of_distances():
    x, target = tt.Tensor([0]), tt.Tensor([3])
    expect("huber_loss([0], [3], delta=2)", lambda: tt.huber_loss(x, target, delta=2.0), 4, see=DISTANCES)
    expect("smooth_l1_loss([0], [3], beta=2)", lambda: tt.smooth_l1_loss(x, target, beta=2.0), 2, see=DISTANCES)


# Cross-entropy


def test_nll_of_rows():
    table, labels = np.log(PROBABILITIES), np.array([2, 0])
    expect(
        "nll_of_rows(log of [[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], labels [2, 0])",
        lambda: tt.losses.nll_of_rows(tt.Tensor(table), labels),
        [LN4, LN10],
        ([-LN4, -LN10], "The surprise is *minus* the logarithm of the probability."),
        (-table[:, labels], "log_p[:, labels] picks all labels in every row; `gather` picks one."),
        ([[LN4], [LN10]], "`gather` keeps the dimension of the classes, with size 1: `squeeze` it away."),
        ((LN4 + LN10) / 2, "One number for each row: the mean is taken later, by `weighted`."),
        "Minus the element of each row at its label.",
        see=CROSS_ENTROPY,
    )
    expect(
        "type of that, for log-probabilities in float32",
        lambda: [type(out := tt.losses.nll_of_rows(tt.tensor(PROBABILITIES), labels)).__name__, str(out.dtype)],
        ["Tensor", "float32"],
        "Pick from the tensor, by operations on tensors: `gather` is one.",
        see=CROSS_ENTROPY,
    )


def test_surprises():
    rows, labels = np.array(LOGITS), np.array(LABELS)
    expect(
        "surprises(4 rows of logits, 4 labels), as arrays",
        lambda: tt.losses.surprises(rows.copy(), labels),
        EACH,
        (-EACH, "The sign is wrong: the logarithm of the sum, minus the logit at the label."),
        (-rows[np.arange(4), labels], "The logarithm of the sum is missing: the logits are not normalized."),
        (EACH.mean(), "One number for each row: the mean is `surprise`'s."),
        (lambda out: np.shape(out) == (4, 4), "z[:, labels] picks all labels in every row: index with arange(N), too."),
        (lambda out: np.shape(out) == (4, 1), "One number for each row, so an array of shape (4,)."),
        "ln of the sum of e^z in each row, minus the logit at the label.",
        see=CROSS_ENTROPY,
    )
    expect(
        "surprises of the rows (1000, 0) and (0, -1000) at the labels 1 and 0",
        lambda: tt.losses.surprises(np.array([[1000.0, 0.0], [0.0, -1000.0]]), np.array([1, 0])),
        [1000, 0],
        (
            lambda out: not np.isfinite(out).all(),
            "e^1000 is infinite, and the logarithm of a probability of 0, too: subtract the row's largest logit first, "
            "and use the form with the logarithm of the sum.",
        ),
        see=CROSS_ENTROPY,
    )

    def afterwards():
        z = rows.copy()
        tt.losses.surprises(z, labels)
        return z

    expect(
        "the logits, after surprises(logits, labels)",
        afterwards,
        rows,
        "They belong to the caller: subtract into a new array.",
        see=CROSS_ENTROPY,
    )
    expect(
        "surprises of a row of 70,000 zeros in float16, at the label 5",
        lambda: tt.losses.surprises(np.zeros((1, 70_000), np.float16), np.array([5])),
        [math.log(70_000)],
        (lambda out: np.isinf(out).any(), "Their sum is above 65,504: sum in `ADDED_IN[z.dtype]`."),
        see=CROSS_ENTROPY,
        tolerance=1e-2,
    )


def test_nll_loss_picks_one_number_in_each_row():
    log_p, labels = tt.Tensor(np.log(PROBABILITIES)), tt.tensor([2, 0])
    expect(
        'nll_loss(log of [[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], labels [2, 0], reduction="none")',
        lambda: tt.nll_loss(log_p, labels, reduction="none"),
        [LN4, LN10],
        ([-LN4, -LN10], "The surprise is *minus* the logarithm of the probability."),
        (-np.log(PROBABILITIES)[:, [2, 0]], "log_p[:, labels] picks all labels in every row; `gather` picks one."),
        ((LN4 + LN10) / 2, 'That is the mean; reduction="none" asks for each row\'s own.'),
        see=CROSS_ENTROPY,
    )
    expect(
        "nll_loss(the same)",
        lambda: tt.nll_loss(log_p, labels),
        (LN4 + LN10) / 2,
        (LN4 + LN10, DOUBLES),
        ((LN4 + LN10) / 6, "Divide by the number of rows, not by rows x classes."),
        see=CROSS_ENTROPY,
    )
    expect(
        'nll_loss(the same, reduction="sum")',
        lambda: tt.nll_loss(log_p, labels, reduction="sum"),
        LN4 + LN10,
        ((LN4 + LN10) / 2, "That is the mean; `reduction` asks for the sum."),
        see=CROSS_ENTROPY,
    )


def test_nll_loss_counts_labels_as_it_is_told():
    log_p, labels = tt.Tensor(np.log(PROBABILITIES)), tt.tensor([2, 0])
    expect(
        "nll_loss(log of [[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], labels [2, 0], weight=[1, 2, 3])",
        lambda: tt.nll_loss(log_p, labels, weight=tt.Tensor([1, 2, 3])),
        (3 * LN4 + LN10) / 4,
        ((3 * LN4 + LN10) / 2, "The mean is a weighted mean: divide by the sum of the weights of the labels."),
        ((LN4 + LN10) / 2, "The weights have no effect: each label's loss is multiplied by its class's weight."),
        see=CROSS_ENTROPY,
    )
    expect(
        "nll_loss(the same rows and labels, ignore_index=2)",
        lambda: tt.nll_loss(log_p, labels, ignore_index=2),
        LN10,
        (LN10 / 2, "Divide by the number of labels that count."),
        ((LN4 + LN10) / 2, "A label equal to ignore_index does not count."),
        see=CROSS_ENTROPY,
    )


def test_weighted():
    losses, importance = tt.Tensor([2.0, 3.0, 5.0]), np.array([1.0, 2.0, 0.0], np.float32)
    for reduction, wanted in (("none", [2, 6, 0]), ("sum", 8), ("mean", 8 / 3)):
        expect(
            f'weighted([2, 3, 5], importance [1, 2, 0], "{reduction}")',
            lambda reduction=reduction: tt.losses.weighted(losses, importance, reduction),
            wanted,
            ([2, 3, 5], "Multiply each loss by its importance."),
            (8 / 2, "Divide by the total importance, not by the number of labels that count."),
            "Each loss times its importance; the mean is their sum by the total importance.",
            see=CROSS_ENTROPY,
        )
    infinite = tt.Tensor([2.0, math.inf])
    expect(
        'weighted([2, inf], importance [1, 0], "sum")',
        lambda: tt.losses.weighted(infinite, np.array([1.0, 0.0], np.float32), "sum"),
        2,
        (lambda out: not math.isfinite(out), "0 times infinity is nan: use `where` on the losses before you multiply."),
        see=CROSS_ENTROPY,
    )
    expect(
        'weighted([2, 3, 5], importance [1, 2, 0], "average")',
        lambda: tt.losses.weighted(losses, importance, "average"),
        ValueError,
        'There are three reductions, "mean", "sum" and "none"; `reduced` asks for them.',
        see=CROSS_ENTROPY,
    )


def test_nll_loss_of_one_example_and_of_many_positions():
    table = np.log(PROBABILITIES)
    expect(
        "nll_loss(log of [0.5, 0.25, 0.25], label 2), without a batch",
        lambda: tt.nll_loss(tt.Tensor(table[0]), tt.tensor(2)),
        LN4,
        see=CROSS_ENTROPY,
    )
    expect(
        'nll_loss of log-probabilities (1, 3, 2), a column for each of two positions, reduction="none"',
        lambda: tt.nll_loss(tt.Tensor(table.T[None].copy()), tt.tensor([[2, 0]]), reduction="none"),
        [[LN4, LN10]],
        "Classes are the second dimension, positions come after it: (N, C, ...) against (N, ...).",
        see=CROSS_ENTROPY,
    )


@pytest.mark.parametrize("name", ["nll_loss", "cross_entropy"])
@pytest.mark.parametrize(
    "labels, error, cause",
    [
        ([0.0, 1.0, 2.0, 0.0], TypeError, "Labels as floats can be compared and summed; they cannot be class numbers."),
        ([0, 1, 2, 3], IndexError, "Three classes have the numbers 0, 1 and 2."),
        ([0, 1, -1, 2], IndexError, "A label of -1 is a valid index in NumPy and means the last class."),
        ([[0], [1], [2], [0]], ValueError, "Labels of shape (N, 1) broadcast: ask for the shape (N,)."),
        ([0, 1], ValueError, "Four rows need four labels."),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(name, labels, error, cause):
    expect(
        f"{name} of 4 rows for 3 classes, labels {labels}",
        lambda: getattr(tt, name)(tt.zeros(4, 3), tt.tensor(labels)),
        error,
        f"{cause} `class_ids` asks.",
        see=CROSS_ENTROPY,
    )


def test_cross_entropy_picks_one_number_in_each_row():
    logits, labels = tt.Tensor(LOGITS[:3]), tt.tensor(LABELS[:3])
    expect(
        'shape of cross_entropy(3 rows, 3 labels, reduction="none")',
        lambda: tt.cross_entropy(logits, labels, reduction="none").shape,
        (3,),
        ((3, 3), "logits[:, labels] picks all labels in every row: index with arange(batch) and labels together."),
        see=CROSS_ENTROPY,
    )
    expect(
        'cross_entropy(3 rows, 3 labels, reduction="none")',
        lambda: tt.cross_entropy(logits, labels, reduction="none"),
        EACH[:3],
        (-EACH[:3], "The surprise is *minus* the logarithm of the probability."),
        see="The witness",
    )


def test_cross_entropy_does_not_grow_with_the_batch():
    logits, labels = tt.Tensor(LOGITS), tt.tensor(LABELS)
    expect(
        "loss of a batch of 8, which is a batch of 4 twice, over the loss of the 4",
        lambda: (
            tt.cross_entropy(tt.cat([logits, logits]), tt.cat([labels, labels])).item()
            / tt.cross_entropy(logits, labels).item()
        ),
        1,
        (2, DOUBLES),
        see=CROSS_ENTROPY,
    )


def test_cross_entropy_divides_by_the_number_of_rows():
    expect(
        "cross_entropy(zeros(7, 10), labels)",
        lambda: tt.cross_entropy(tt.zeros(7, 10), tt.tensor([3] * 7)),
        LN10,
        (LN10 / 10, "Ten times too small for 10 classes: divide by the batch, not by batch x classes."),
        see=CROSS_ENTROPY,
    )


def test_cross_entropy_of_large_logits():
    logits, labels = tt.Tensor([[1000, -1000]]), tt.tensor([1])
    expect(
        "cross_entropy([[1000, -1000]], label 1)",
        lambda: tt.cross_entropy(logits, labels).item(),
        2000,
        (
            lambda loss: not math.isfinite(loss),
            "The softmax has rounded to 0, and its logarithm is not finite: work with log-softmax of the logits.",
        ),
        see=CROSS_ENTROPY,
    )


def test_cross_entropy_is_the_surprise():
    logits, labels = tt.Tensor(LOGITS), tt.tensor(LABELS)
    expect("cross_entropy(logits, labels)", lambda: tt.cross_entropy(logits, labels), EACH.mean(), see="The witness")
    expect(
        "cross_entropy(logits, labels, weight=[1, 2, 3])",
        lambda: tt.cross_entropy(logits, labels, weight=tt.Tensor([1, 2, 3])),
        np.average(EACH, weights=[1, 2, 3, 1]),
        "The mean is a weighted mean: divide by the sum of the weights of the labels.",
        see=CROSS_ENTROPY,
    )
    expect(
        "cross_entropy(logits, labels, ignore_index=0)",
        lambda: tt.cross_entropy(logits, labels, ignore_index=0),
        EACH[1:3].mean(),
        (EACH[1:3].sum() / 4, "Divide by the number of labels that count."),
        see=CROSS_ENTROPY,
    )
    expect(
        'cross_entropy(logits, labels, weight=[1, 2, 3], reduction="sum")',
        lambda: tt.cross_entropy(logits, labels, weight=tt.Tensor([1, 2, 3]), reduction="sum"),
        (EACH * [1, 2, 3, 1]).sum(),
        see=CROSS_ENTROPY,
    )


def test_cross_entropy_of_probabilities():
    wanted = np.array([[1, 0, 0], [0.5, 0.25, 0.25], [0, 0, 1], [0.2, 0.3, 0.5]])
    each = [sum(q * surprise(row, label) for label, q in enumerate(qs)) for row, qs in zip(LOGITS, wanted)]
    expect(
        "cross_entropy(logits, probabilities of the same shape)",
        lambda: tt.cross_entropy(tt.Tensor(LOGITS), tt.Tensor(wanted)),
        np.mean(each),
        (np.mean(each) / 3, "Divide by the number of rows, not by rows x classes."),
        "Floats in the shape of the logits are probabilities: the surprise at each class, weighted by them.",
        see=CROSS_ENTROPY,
    )


def test_soft_surprises():
    log_p, wanted = np.log(PROBABILITIES), np.array([[1.0, 0, 0], [0.5, 0.25, 0.25]])
    smooth = 0.7 * wanted + 0.3 / 3
    for share, q in ((0.0, wanted), (0.3, smooth), (1.0, np.full((2, 3), 1 / 3))):
        expect(
            f"soft_surprises(log of {PROBABILITIES}, [[1, 0, 0], [0.5, 0.25, 0.25]], label_smoothing={share})",
            lambda share=share: tt.losses.soft_surprises(tt.Tensor(log_p), tt.Tensor(wanted), share),
            -(q * log_p).sum(axis=1),
            ((q * log_p).sum(axis=1), "The surprise is *minus* the logarithm of the probability."),
            (-(wanted * log_p).sum(axis=1), "No target was smoothed."),
            (-((0.7 * wanted + 0.3) * log_p).sum(axis=1), "The share that is spread is divided among all the classes."),
            (-(q * log_p).mean(axis=1), "The expected surprise is a sum over the classes, each times its probability."),
            see=CROSS_ENTROPY,
        )


def test_label_smoothing():
    logits, labels = tt.Tensor(LOGITS), tt.tensor(LABELS)
    even = np.array([np.mean([surprise(row, label) for label in range(3)]) for row in LOGITS])
    expect(
        "cross_entropy(logits, labels, label_smoothing=0.1)",
        lambda: tt.cross_entropy(logits, labels, label_smoothing=0.1),
        0.9 * EACH.mean() + 0.1 * even.mean(),
        (EACH.mean(), "No label was smoothed."),
        "The right class keeps 0.9, and 0.1 is spread over all classes alike, the right one included.",
        see=CROSS_ENTROPY,
    )
    expect(
        "cross_entropy(logits, labels, ignore_index=0, label_smoothing=0.1)",
        lambda: tt.cross_entropy(logits, labels, ignore_index=0, label_smoothing=0.1),
        0.9 * EACH[1:3].mean() + 0.1 * even[1:3].mean(),
        "The even part ignores the same labels, and divides by the same number.",
        see=CROSS_ENTROPY,
    )
    expect(
        "cross_entropy(logits, labels, label_smoothing=2)",
        lambda: tt.cross_entropy(logits, labels, label_smoothing=2),
        ValueError,
        "There is only one whole belief to take from: label_smoothing must be between 0 and 1.",
        see=CROSS_ENTROPY,
    )


def test_labels_may_come_for_every_position():
    logits = np.sin(np.arange(30.0)).reshape(2, 5, 3)
    labels = [[0, 4, 1], [2, 2, 3]]
    each = np.array([[surprise(logits[n, :, d], labels[n][d]) for d in range(3)] for n in range(2)])
    for reduction, wanted in (("none", each), ("mean", each.mean())):
        expect(
            f'cross_entropy of (2, 5, 3) logits and (2, 3) labels, reduction="{reduction}"',
            lambda reduction=reduction: tt.cross_entropy(tt.Tensor(logits), tt.tensor(labels), reduction=reduction),
            wanted,
            "Classes are the second dimension, positions come after it: (N, C, ...) against (N, ...).",
            see=CROSS_ENTROPY,
        )
    expect(
        "cross_entropy([2, 0, 1], label 0), without a batch",
        lambda: tt.cross_entropy(tt.Tensor(LOGITS[0]), tt.tensor(0)),
        EACH[0],
        see=CROSS_ENTROPY,
    )


# Yes or no


def test_binary_cross_entropy_of_a_certain_mistake():
    clamp = (
        lambda loss: not math.isfinite(loss),
        "log(0) is minus infinity: clamp, the probabilities or their logarithms; PyTorch cuts logarithms off at -100.",
    )
    expect(
        "binary_cross_entropy([0], target [1])",
        lambda: tt.binary_cross_entropy(tt.Tensor([0]), tt.Tensor([1])).item(),
        100,
        clamp,
        see=YES_OR_NO,
    )
    expect(
        "binary_cross_entropy([1], target [1])",
        lambda: tt.binary_cross_entropy(tt.Tensor([1]), tt.Tensor([1])).item(),
        0,
        clamp,
        see=YES_OR_NO,
    )
    expect(
        "binary_cross_entropy([1.5], target [1])",
        lambda: tt.binary_cross_entropy(tt.Tensor([1.5]), tt.Tensor([1])),
        ValueError,
        "1.5 is no probability.",
        see=YES_OR_NO,
    )


def test_binary_cross_entropy_with_and_without_logits():
    x, target = tt.Tensor([-2, 0.5, 3]), tt.Tensor([0, 1, 0])
    each = np.array([math.log(1 + math.exp(-2)), math.log(1 + math.exp(-0.5)), math.log(1 + math.exp(3))])
    wrong_side = np.array([math.log(1 + math.exp(2)), math.log(1 + math.exp(0.5)), math.log(1 + math.exp(-3))])
    expect(
        "binary_cross_entropy(sigmoid(x), target)",
        lambda: tt.binary_cross_entropy(tt.sigmoid(x), target),
        each.mean(),
        see=YES_OR_NO,
    )
    expect(
        "binary_cross_entropy_with_logits([-2, 0.5, 3], target [0, 1, 0])",
        lambda: tt.binary_cross_entropy_with_logits(x, target),
        each.mean(),
        (each.sum(), DOUBLES),
        (wrong_side.mean(), "Target and its opposite are swapped: a large x is a small surprise where 1 is wanted."),
        (-each.mean(), "The surprise is *minus* the logarithm of the probability."),
        see=YES_OR_NO,
    )
    expect(
        "binary_cross_entropy_with_logits([1000, -1000], target [0, 1])",
        lambda: tt.binary_cross_entropy_with_logits(tt.Tensor([1000, -1000]), tt.Tensor([0, 1])).item(),
        1000,
        (lambda loss: not math.isfinite(loss), "Do not form the probability: use softplus of the logits."),
        (100, "A probability was formed, and its logarithm cut off: use softplus of the logits."),
        see=YES_OR_NO,
    )


def test_options_of_binary_cross_entropy_with_logits():
    x, target = tt.Tensor([-2, 0.5, 3]), tt.Tensor([0, 1, 0])
    each = np.array([math.log(1 + math.exp(-2)), math.log(1 + math.exp(-0.5)), math.log(1 + math.exp(3))])
    loss = tt.binary_cross_entropy_with_logits
    expect(
        'binary_cross_entropy_with_logits([-2, 0.5, 3], target [0, 1, 0], reduction="none")',
        lambda: loss(x, target, reduction="none"),
        each,
        see=YES_OR_NO,
    )
    expect(
        "binary_cross_entropy_with_logits(the same, weight=[1, 2, 3])",
        lambda: loss(x, target, weight=tt.Tensor([1, 2, 3])),
        (each * [1, 2, 3]).mean(),
        (np.average(each, weights=[1, 2, 3]), "Here the mean divides by the number of elements, weights or not."),
        (each.mean(), "The weights have no effect: they multiply the losses."),
        see=YES_OR_NO,
    )
    expect(
        'binary_cross_entropy_with_logits(the same, pos_weight=[10, 10, 10], reduction="none")',
        lambda: loss(x, target, reduction="none", pos_weight=tt.Tensor([10, 10, 10])),
        each * [1, 10, 1],
        (each * 10, "pos_weight multiplies the part of the positive examples only, the one with t in front."),
        (each, "pos_weight has no effect: it multiplies the part of the positive examples."),
        see=YES_OR_NO,
    )


def test_kl_div_is_zero_for_equal_distributions():
    p = tt.Tensor([[0.5, 0.5, 0], [0.2, 0.3, 0.5]])
    expect("kl_div(log(p), p), with a probability of 0", lambda: tt.kl_div((p + 1e-30).log(), p), 0, see=YES_OR_NO)
    q = tt.Tensor([[0.25, 0.25, 0.5], [0.2, 0.3, 0.5]])
    expect(
        'kl_div(log(q), p, reduction="batchmean")',
        lambda: tt.kl_div(q.log(), p, reduction="batchmean"),
        math.log(2) / 2,
        see=YES_OR_NO,
    )


def test_losses_come_as_modules():
    x, labels = tt.Tensor(LOGITS), tt.tensor(LABELS)
    for name, got, wanted in (
        ("CrossEntropyLoss(ignore_index=0)", lambda: tt.CrossEntropyLoss(ignore_index=0)(x, labels), EACH[1:3].mean()),
        ('MSELoss(reduction="sum")', lambda: tt.MSELoss(reduction="sum")(x, x + 1), 12),
        ("L1Loss()", lambda: tt.L1Loss()(x, x - 1), 1),
    ):
        expect(f"{name}(input, target)", got, wanted, see=MODULES)


# The referee


def test_slope_is_the_gradient():
    values = np.array([[1.0, -2.0], [3.0, 0.5]])
    x = tt.Tensor(values)
    expect(
        "slope of (x ** 3).sum() at x = [[1, -2], [3, 0.5]]",
        lambda: tt.losses.slope(lambda: (x**3).sum(), x),
        3 * values**2,
        ((3 * values**2).reshape(-1), "The gradient has the shape of x."),
        (6 * values**2, "The two places are 2 eps apart: divide the difference by that."),
        (-3 * values**2, "The sign is wrong: the loss at + eps, minus the loss at - eps."),
        (np.zeros((2, 2)), "The loss has not noticed that x moved: change the numbers of x itself, not of a copy."),
        see=REFEREE,
    )


def test_slope_leaves_its_input_as_it_was():
    values = np.array([[0.1, -2 / 3], [3.3, 1e-3]])
    x = tt.Tensor(values)

    def shifted():
        tt.losses.slope(lambda: (x**3).sum(), x)
        return np.abs(x.numpy() - values).max()

    expect(
        "does slope leave each number of x as it was, to the bit?",
        lambda: bool(shifted() == 0),
        True,
        "Put the old value back by assigning it: to add and subtract eps leaves rounding behind.",
        see=REFEREE,
    )
    pair = tt.Tensor(np.array([2.0, 3.0]))
    expect(
        "slope of x[0] * x[1] at x = [2, 3], each moved alone",
        lambda: tt.losses.slope(lambda: pair[0] * pair[1], pair),
        [3, 2],
        "Put an element back before the next one is moved.",
        see=REFEREE,
    )


def test_slope_looks_at_both_sides():
    x = tt.Tensor(np.array([1.0]))
    expect(
        "slope of (x ** 3).sum() at x = [1], eps=0.1",
        lambda: tt.losses.slope(lambda: (x**3).sum(), x, eps=0.1).item(),
        between(2.98, 3.02),
        (3.31, "One side only: take the loss at + eps and at - eps, the error is then about eps**2."),
        (2.71, "One side only: take the loss at + eps and at - eps, the error is then about eps**2."),
        (lambda slope: abs(slope - 3) < 1e-6, "`eps` has no effect: move by the eps that was asked for."),
        see=REFEREE,
    )


def test_slope_in_float32_takes_a_longer_step():
    x = tt.Tensor([1, -2, 30])
    wanted = np.array([3.0, 12, 2700])
    expect(
        "slope of (x ** 3).sum() at each of the float32 numbers 1, -2 and 30, and its dtype",
        lambda: (
            [tt.losses.slope(lambda i=i: x[i] ** 3, x)[i] for i in range(3)],
            str(tt.losses.slope(lambda: (x**3).sum(), x).dtype),
        ),
        (wanted.tolist(), "float64"),
        ((wanted.tolist(), "float32"), "Collect the slopes in an array of float64."),
        "A step of 1e-6 disappears in float32: eps is 1e-2 there, and 1e-6 in float64.",
        see=REFEREE,
        tolerance=0.02,
    )


def softmax(z):
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_cross_entropy_gradient():
    believed, true = softmax(np.array(LOGITS)), np.eye(3)[LABELS]
    wanted = (believed - true) / 4
    expect(
        "cross_entropy_gradient(logits, labels)",
        lambda: tt.losses.cross_entropy_gradient(tt.Tensor(LOGITS), tt.tensor(LABELS)),
        wanted,
        (4 * wanted, "Four times too large for 4 rows: the loss is a mean, divide by the number of rows."),
        (wanted / 3, "Three times too small for 3 classes: divide by the number of rows only."),
        (-wanted, "The sign is wrong: what the network believes, minus what is true."),
        (believed / 4, "What is true has to be subtracted: 1 where the label points."),
        see=REFEREE,
    )
    expect(
        "cross_entropy_gradient([[1000, -1000]], label 1)",
        lambda: tt.losses.cross_entropy_gradient(tt.Tensor([[1000, -1000]]), tt.tensor([1])),
        [[1, -1]],
        "Use the softmax of chapter 03, which does not overflow.",
        see=REFEREE,
    )


def test_mse_gradient():
    x, target = np.array(LOGITS), np.array(LOGITS)[::-1].copy()
    wanted = 2 * (x - target) / 12
    expect(
        "mse_gradient(x, target), both of shape (4, 3)",
        lambda: tt.losses.mse_gradient(tt.Tensor(x), tt.Tensor(target)),
        wanted,
        (wanted / 2, "The derivative of a square has a factor 2."),
        (wanted * 12, "The loss is a mean: divide by the number of elements."),
        (wanted * 3, "The loss is a mean over all elements: divide by their number, not by that of rows."),
        (-wanted, "The sign is wrong: where x is too large, the gradient is positive."),
        see=REFEREE,
    )


# Learning


def descent(rate, steps, together=True):
    """What gradient descent does to w = 0.5 and b = -0.25 in w x + b for three points: the losses, w, and b."""
    x, target, w, b, losses = np.array([1.0, 2.0, 3.0]), np.array([2.0, 1.0, 4.0]), 0.5, -0.25, []
    for _ in range(steps):
        losses.append(float(((w * x + b - target) ** 2).mean()))
        error = w * x + b - target
        w = w - rate * 2 * (error * x).mean()
        if not together:
            error = w * x + b - target
        b = b - rate * 2 * error.mean()
    return losses, w, b


def test_descend_steps_against_the_slope():
    layer = tt.Linear(1, 1).double()
    x, target = tt.Tensor(np.array([[1.0], [2.0], [3.0]])), tt.Tensor(np.array([[2.0], [1.0], [4.0]]))
    layer.weight.data, layer.bias.data = np.array([[0.5]]), np.array([-0.25])
    losses, w, b = descent(0.05, 3)
    expect(
        "descend(layer with weight 0.5 and bias -0.25, its mse_loss on three points, rate=0.05, steps=3)",
        lambda: tt.losses.descend(layer, lambda: tt.mse_loss(layer(x), target), rate=0.05, steps=3),
        losses,
        (descent(-0.05, 3)[0], "The loss rose: step against the slope."),
        (descent(0.05, 4)[0][1:], "The history holds the loss *before* each step."),
        (descent(0.05, 3, together=False)[0], "Measure all slopes before anything is changed."),
        (losses[:1] * 3, "Nothing moved: change the numbers that the network's parameters hold."),
        (descent(1, 3)[0], "The step is rate times slope: the rate has no effect."),
        see=LEARNING,
    )
    expect(
        "weight and bias after that",
        lambda: [layer.weight.item(), layer.bias.item()],
        [w, b],
        (list(descent(0.05, 2)[1:]), "The last step was not made."),
        see=LEARNING,
    )


# Predictions, beside what comes out


def test_predict_losses():
    def calls():
        count, network = [0], tt.losses.xor_network()

        def loss():
            count[0] += 1
            return sum(p.sum() for p in network.parameters())

        for p in network.parameters():
            tt.losses.slope(loss, p)
        return count[0]

    logits, labels = tt.Tensor(LOGITS), tt.tensor(LABELS)
    once, twice = (tt.cross_entropy(tt.cat([logits] * n), tt.cat([labels] * n)).item() for n in (1, 2))
    smudge = tt.Tensor([[math.log(0.6), math.log(0.4)]] * 5)
    measured = {
        "ignorance": tt.cross_entropy(tt.zeros(7, 1000), tt.tensor([3] * 7)).item(),
        "sure and wrong": tt.cross_entropy(tt.Tensor([[0, 1000]]), tt.tensor([0])).item(),
        "twice": twice / once,
        "pairs": (tt.zeros(4, 1) - tt.zeros(4)).numel(),
        "smudge": tt.cross_entropy(smudge, tt.tensor([0, 0, 0, 1, 1])).item(),
        "passes": calls(),
    }
    ignorant = "Each of the C classes gets the probability 1 / C, and the surprise is -ln of that."
    causes = {
        "ignorance": [(1000, ignorant), (math.log(10), "There are 1000 classes here."), (3, "In nats: ln, not log10.")],
        "sure and wrong": [
            (math.inf, "The probability is 0 in any precision, but the loss works on logits: ln(e^0 + e^1000) - 0."),
            (1, "That is the squared distance; the surprise grows without bound."),
        ],
        "twice": [(2, "It is a mean: it does not depend on how many examples there are.")],
        "pairs": [(4, "Shapes (4, 1) and (4,) broadcast, to all differences of all answers to all targets.")],
        "smudge": [
            (0, "Five equal pictures get equal answers, so no network can be sure of 1 and of 7."),
            (math.log(2), "Give 1 the probability 3/5 and 7 the probability 2/5, as the labels do."),
        ],
        "passes": [
            (17, "Each number is moved to two sides, and each side is a pass."),
            (8, "It is not parameters that are moved, but each of their numbers."),
        ],
    }
    for name, truth in measured.items():
        expect(
            f'predict_losses()["{name}"], beside what was measured',
            lambda name=name: float(tt.losses.predict_losses()[name]),
            truth,
            *causes[name],
            "Try it: make the call that the docstring describes, and follow the numbers through it.",
            see=PREDICT,
            tolerance=4e-4,
        )


# Exercises at the end


def test_perplexity():
    expect(
        "perplexity of zeros(5, 8)",
        lambda: tt.perplexity(tt.zeros(5, 8), tt.tensor([0, 1, 2, 3, 4])),
        8,
        (math.log(8), "That is the cross-entropy: take e to the power of it."),
        see="Exercises",
    )
    expect(
        "perplexity of four rows of logits",
        lambda: tt.perplexity(tt.Tensor(LOGITS), tt.tensor(LABELS)),
        math.exp(EACH.mean()),
        (np.exp(EACH).mean(), "Take the mean of the surprises first, then e to the power of it."),
        (2 ** EACH.mean(), "The surprise is measured in nats: take e to the power of it, not 2."),
        see="Exercises",
    )


def test_hinge_loss():
    expect(
        "hinge_loss([2, 0.5, -1], [1, 1, 1])",
        lambda: tt.losses.hinge_loss(tt.Tensor([2, 0.5, -1]), tt.ones(3)),
        2.5 / 3,
        (1.5 / 3, "What is right by a margin costs nothing, it earns nothing either: max(0, ...)."),
        (2.5, DOUBLES),
        see="Exercises",
    )
    expect(
        "hinge_loss([2, 0.5, -1], [-1, 1, -1])",
        lambda: tt.losses.hinge_loss(tt.Tensor([2, 0.5, -1]), tt.Tensor([-1, 1, -1])),
        3.5 / 3,
        "The label's sign says which side is right: 1 - target * x.",
        see="Exercises",
    )
    expect(
        "hinge_loss of shapes (4, 1) and (4,)",
        lambda: tt.losses.hinge_loss(tt.ones(4, 1), tt.ones(4)).item(),
        ValueError,
        (np.isfinite, PAIRS),
        see="Exercises",
    )


def test_relative_error():
    for a, b, wanted in (([1.0, 2.0], [1.0, 1.0], 0.5), ([-4.0, 0.25], [-2.0, 0.0], 0.5), ([1.0], [-4.0], 1.25)):
        by_element = np.max(np.abs(np.subtract(a, b)) / np.maximum(np.abs(a), np.abs(b)))
        expect(
            f"relative_error({a}, {b})",
            lambda a=a, b=b: tt.losses.relative_error(np.array(a), np.array(b)),
            wanted,
            (by_element, "One largest difference and one largest number, not a quotient for each element."),
            (np.max(np.subtract(a, b)) / max(*a, *b), "Sizes count, whatever their sign: take absolute values."),
            (np.max(np.abs(np.subtract(a, b))), "The difference is a share of the largest number in either."),
            see="Exercises",
        )
    expect(
        "relative_error of two zeros",
        lambda: tt.losses.relative_error(np.zeros(1), np.zeros(1)),
        0,
        (lambda error: error != error, "0 / 0 is nan: two zeros agree, their error is 0."),
        (ZeroDivisionError, "Two zeros agree, their error is 0."),
        see="Exercises",
    )
