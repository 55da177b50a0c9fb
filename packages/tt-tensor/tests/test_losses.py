"""Chapter 05, judged by its public names."""

import math

import numpy as np
import pytest

import tt_tensor as tt
from tt_tensor.teaching import expect

DISTANCES, CROSS_ENTROPY, YES_OR_NO = "Distances", "Cross-entropy", "Yes or no"
LOGITS, LABELS = [[2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [0.5, 0.5, 0.5], [1.0, -1.0, 2.0]], [0, 1, 2, 0]


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def surprise(row, label):
    return math.log(sum(math.exp(z) for z in row)) - row[label]


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
        [surprise(*pair) for pair in zip(LOGITS, LABELS[:3])],
        see="The witness",
    )


def test_cross_entropy_does_not_grow_with_the_batch():
    logits, labels = tt.Tensor(LOGITS), tt.tensor(LABELS)
    ratio = (
        tt.cross_entropy(tt.cat([logits, logits]), tt.cat([labels, labels])).item()
        / tt.cross_entropy(logits, labels).item()
    )
    expect(
        "loss of a batch of 8, which is a batch of 4 twice, over the loss of the 4",
        ratio,
        1,
        (2, "The loss doubles with the batch size: take the mean, not the sum."),
        see=CROSS_ENTROPY,
    )
    ratio = tt.mse_loss(tt.ones(8), tt.zeros(8)).item() / tt.mse_loss(tt.ones(4), tt.zeros(4)).item()
    expect(
        "mse_loss of 8 differences of 1, over that of 4",
        ratio,
        1,
        (2, "The loss doubles with the batch size: take the mean, not the sum."),
        see=DISTANCES,
    )


def test_cross_entropy_divides_by_the_number_of_rows():
    uninformed = math.log(10)
    expect(
        "cross_entropy(zeros(7, 10), labels)",
        lambda: tt.cross_entropy(tt.zeros(7, 10), tt.tensor([3] * 7)).item(),
        uninformed,
        (uninformed / 10, "Ten times too small for 10 classes: divide by the batch, not by batch x classes."),
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
    logits, labels, each = (
        tt.Tensor(LOGITS),
        tt.tensor(LABELS),
        np.array([surprise(*pair) for pair in zip(LOGITS, LABELS)]),
    )
    expect(
        "cross_entropy(logits, labels)", lambda: tt.cross_entropy(logits, labels).item(), each.mean(), see="The witness"
    )
    expect(
        "cross_entropy(logits, labels, weight=[1, 2, 3])",
        lambda: tt.cross_entropy(logits, labels, weight=tt.Tensor([1, 2, 3])).item(),
        np.average(each, weights=[1, 2, 3, 1]),
        "The mean is a weighted mean: divide by the sum of the weights of the labels.",
        see=CROSS_ENTROPY,
    )
    expect(
        "cross_entropy(logits, labels, ignore_index=0)",
        lambda: tt.cross_entropy(logits, labels, ignore_index=0).item(),
        each[1:3].mean(),
        (each[1:3].sum() / 4, "Divide by the number of labels that count."),
        see=CROSS_ENTROPY,
    )
    expect(
        "cross_entropy(logits, one-hot probabilities)",
        lambda: tt.cross_entropy(logits, tt.one_hot(labels, 3, tt.float32)).item(),
        each.mean(),
        see=CROSS_ENTROPY,
    )
    smoothed = 0.9 * each.mean() + 0.1 * np.mean([surprise(row, label) for row in LOGITS for label in range(3)])
    expect(
        "cross_entropy(logits, labels, label_smoothing=0.1)",
        lambda: tt.cross_entropy(logits, labels, label_smoothing=0.1).item(),
        smoothed,
        see=CROSS_ENTROPY,
    )


def test_labels_may_come_for_every_position():
    logits, labels = tt.randn(2, 5, 3), tt.tensor([[0, 4, 1], [2, 2, 3]])
    assert tt.cross_entropy(logits, labels, reduction="none").shape == (2, 3)
    expect(
        "cross_entropy of (2, 5, 3) logits",
        tt.cross_entropy(logits, labels).item(),
        tt.cross_entropy(logits.permute(0, 2, 1).reshape(6, 5), labels.reshape(6)).item(),
        see=CROSS_ENTROPY,
    )


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


def test_binary_cross_entropy_with_and_without_logits():
    x, target = tt.Tensor([-2, 0.5, 3]), tt.Tensor([0, 1, 0])
    expected = np.mean([math.log(1 + math.exp(-2)), math.log(1 + math.exp(-0.5)), math.log(1 + math.exp(3))])
    expect(
        "binary_cross_entropy(sigmoid(x), target)",
        lambda: tt.binary_cross_entropy(tt.sigmoid(x), target).item(),
        expected,
        see=YES_OR_NO,
    )
    expect(
        "binary_cross_entropy_with_logits(x, target)",
        lambda: tt.binary_cross_entropy_with_logits(x, target).item(),
        expected,
        see=YES_OR_NO,
    )
    expect(
        "binary_cross_entropy_with_logits([1000, -1000], target [0, 1])",
        lambda: tt.binary_cross_entropy_with_logits(tt.Tensor([1000, -1000]), tt.Tensor([0, 1])).item(),
        1000,
        (lambda loss: not math.isfinite(loss), "Do not form the probability: use softplus of the logits."),
        see=YES_OR_NO,
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
        (np.isfinite, "It averaged over 16 pairs instead of 4: shapes (4, 1) and (4,) broadcast. Compare them first."),
        see=DISTANCES,
    )
    with pytest.raises(ValueError, match=r"\(4, 1\).*\(4,\)"):
        getattr(tt, name)(answers, targets)


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
    expect(f"{name}([0, 0, 0], [0.5, -1, 3])", lambda: getattr(tt, name)(x, target).item(), value, see=DISTANCES)


def test_options_of_distances():
    x, target = tt.Tensor([0, 0, 0]), tt.Tensor([0.5, -1, 3])
    expect(
        "huber_loss([0], [3], delta=2)", lambda: tt.huber_loss(x[:1], target[2:], delta=2.0).item(), 4, see=DISTANCES
    )
    expect(
        "smooth_l1_loss([0], [3], beta=2)",
        lambda: tt.smooth_l1_loss(x[:1], target[2:], beta=2.0).item(),
        2,
        see=DISTANCES,
    )
    assert tt.mse_loss(x, target, reduction="sum").item() == 10.25 and tt.mse_loss(
        x, target, reduction="none"
    ).shape == (3,)


def test_kl_div_is_zero_for_equal_distributions():
    p = tt.Tensor([[0.5, 0.5, 0], [0.2, 0.3, 0.5]])
    expect(
        "kl_div(log(p), p), with a probability of 0", lambda: tt.kl_div((p + 1e-30).log(), p).item(), 0, see=YES_OR_NO
    )
    q = tt.Tensor([[0.25, 0.25, 0.5], [0.2, 0.3, 0.5]])
    expect(
        'kl_div(log(q), p, reduction="batchmean")',
        lambda: tt.kl_div(q.log(), p, reduction="batchmean").item(),
        math.log(2) / 2,
        see=YES_OR_NO,
    )


@pytest.mark.parametrize(
    "wrong, error, words",
    [
        (lambda x: tt.cross_entropy(x, tt.Tensor([0, 1, 2, 0])), TypeError, "float32"),
        (lambda x: tt.cross_entropy(x, tt.tensor([0, 1, 2, 3])), IndexError, "label 3.*3 classes"),
        (lambda x: tt.cross_entropy(x, tt.tensor([0, 1, -1, 2])), IndexError, "label -1"),
        (lambda x: tt.cross_entropy(x, tt.tensor([0, 1])), ValueError, r"\(4, 3\).*\(4,\).*\(2,\)"),
        (lambda x: tt.cross_entropy(x, tt.tensor(LABELS), weight=tt.ones(2)), ValueError, r"3 classes.*\(2,\)"),
        (lambda x: tt.cross_entropy(x, tt.tensor(LABELS), label_smoothing=2), ValueError, "2"),
        (lambda x: tt.mse_loss(x, x, reduction="average"), ValueError, "average"),
        (lambda x: tt.huber_loss(x, x, delta=-1), ValueError, "-1"),
        (lambda x: tt.binary_cross_entropy(x + 1.5, x), ValueError, "1.5.*with_logits"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(wrong, error, words):
    with pytest.raises(error, match=words):
        wrong(tt.zeros(4, 3))


def test_losses_come_as_modules():
    x, labels = tt.Tensor(LOGITS), tt.tensor(LABELS)
    assert tt.CrossEntropyLoss(ignore_index=0)(x, labels).item() == tt.cross_entropy(x, labels, ignore_index=0).item()
    assert tt.MSELoss(reduction="sum")(x, x + 1).item() == 12 and tt.L1Loss()(x, x).item() == 0


def test_slope_is_the_gradient_and_leaves_its_input_alone():
    x = tt.Tensor(np.array([[1.0, -2.0], [3.0, 0.5]]))
    expect(
        "slope of (x ** 3).sum() for x = [[1, -2], [3, 0.5]]",
        lambda: tt.slope(lambda: (x**3).sum(), x),
        3 * x.numpy() ** 2,
        see="The referee: slopes without thinking",
    )
    assert x.tolist() == [[1, -2], [3, 0.5]]
    with pytest.raises(ValueError, match="contiguous"):
        tt.slope(lambda: x.sum(), x.T)


def test_gradients_by_hand_agree_with_the_referee():
    z, labels, wanted = tt.Tensor(np.array(LOGITS)), tt.tensor(LABELS), tt.Tensor(np.array(LOGITS)[::-1].copy())
    referee = tt.slope(lambda: tt.cross_entropy(z, labels), z)
    expect(
        "cross_entropy_gradient(logits, labels)",
        lambda: tt.cross_entropy_gradient(z, labels),
        referee,
        (4 * referee, "Four times too large for 4 rows: the loss is a mean, divide by the number of rows."),
        see="The referee: slopes without thinking",
    )
    expect(
        "mse_gradient(x, target)",
        lambda: tt.mse_gradient(z, wanted),
        tt.slope(lambda: tt.mse_loss(z, wanted), z),
        see="The referee: slopes without thinking",
    )


def test_descending_makes_the_loss_smaller():
    x, wanted = tt.xor_points()
    network = tt.xor_network()
    history = tt.descend(network, lambda: tt.binary_cross_entropy_with_logits(network(x), wanted), rate=0.5, steps=30)
    expect(
        "is the loss of XOR after 30 steps below that before?",
        history[-1] < history[0],
        True,
        "Step against the slope, by rate times slope.",
        see="Learning, at last",
    )
    assert len(history) == 30


def test_exercises():
    expect(
        "perplexity of zeros(5, 8)",
        lambda: tt.perplexity(tt.zeros(5, 8), tt.tensor([0, 1, 2, 3, 4])),
        8,
        see="Exercises",
    )
    expect(
        "hinge_loss([2, 0.5, -1], [1, 1, 1])",
        lambda: tt.hinge_loss(tt.Tensor([2, 0.5, -1]), tt.ones(3)).item(),
        2.5 / 3,
        see="Exercises",
    )
    ours, theirs = np.array([1.0, 2.0]), np.array([1.0, 1.0])
    expect("relative_error([1, 2], [1, 1])", lambda: tt.relative_error(ours, theirs), 0.5, see="Exercises")
    expect("relative_error of two zeros", lambda: tt.relative_error(np.zeros(1), np.zeros(1)), 0, see="Exercises")
