"""Batch normalization by its definition: moments, gradient, running averages, and what it is good for."""

import numpy as np
import pytest

import tt_autograd as ta
import tt_optim as to
import tt_spatial as ts
import tt_tensor as tt
from tt_tensor.teaching import between, expect

NORM = "Batch normalization"


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def numbers(*shape):
    """Numbers that follow no pattern, the same in every run."""
    return np.random.default_rng(9).normal(size=shape)


def set_weights(model):
    """Weights that depend on nothing but their places."""
    for number, parameter in enumerate(model.parameters()):
        fan_in = max(parameter.numel() // max(parameter.shape[0], 1), 1)
        start = np.sin(np.arange(parameter.numel()) * 1.3 + number) * fan_in**-0.5
        parameter.copy_(start.reshape(parameter.shape))
    return model


def test_moments():
    for shape in ((5, 3), (4, 3, 6), (4, 3, 5, 6)):
        x = numbers(*shape) * 2 + 100
        dims = tuple(d for d in range(len(shape)) if d != 1)
        expect(
            f"channel_moments of an array {shape} with a mean of about 100",
            lambda x=x: list(ts.channel_moments(x)),
            [x.mean(dims), x.var(dims)],
            (
                [x.mean(dims), x.var(dims, ddof=1)],
                "Divide by the number of values, not by one less.",
            ),
            (lambda out: np.shape(out[0]) != (3,), "One mean and one variance for each channel."),
            see=NORM,
        )

    def large():
        x = (np.arange(64.0, dtype=np.float32).reshape(4, 1, 4, 4) % 2 + 4096).astype(np.float32)
        return float(ts.channel_moments(x)[1][0])

    expect(
        "the variance of 4096 and 4097 in turn, in float32",
        large,
        0.25,
        "Mean of squares minus square of the mean loses all digits: subtract the mean first.",
        see=NORM,
    )


def normalized(x, weight=1.0, bias=0.0, eps=1e-5):
    shape, dims = (1, -1) + (1,) * (x.ndim - 2), tuple(d for d in range(x.ndim) if d != 1)
    normal = (x - x.mean(dims, keepdims=True)) / np.sqrt(x.var(dims, keepdims=True) + eps)
    weight, bias = (np.reshape(v, shape) if np.ndim(v) else v for v in (weight, bias))
    return normal * weight + bias


def test_normal_vjp():
    x, g, weight = numbers(4, 3, 2, 5), np.cos(numbers(4, 3, 2, 5)), np.array([1.0, 0.5, -2.0])
    dims, slope = (0, 2, 3), 1 / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-3)
    normal, h = (x - x.mean((0, 2, 3), keepdims=True)) * slope, g * weight[:, None, None]
    wanted = slope * (h - h.mean(dims, keepdims=True) - normal * (h * normal).mean(dims, keepdims=True))
    expect(
        "normal_gradient of h (4, 3, 2, 5) over the dimensions (0, 2, 3)",
        lambda: ts.normal_gradient(*map(tt.Tensor, (h, normal, slope)), dims),
        wanted,
        (slope * h, "Mean and variance depend on x, too: two more terms."),
        (slope * (h - h.mean(dims, keepdims=True)), "The variance depends on x, too: the term with mean(h * normal)."),
        (lambda out: np.allclose(out, wanted / slope), "Multiply by the slope."),
        see=NORM,
    )
    rows = np.cos(numbers(4, 6))
    expect(
        "normal_gradient of arrays of rows (4, 6), over the last dimension",
        lambda: ts.normal_gradient(rows, *ts.normalized(numbers(4, 6), -1, 1e-3), -1).sum(-1),
        np.zeros(4),
        "What is left of a gradient cannot shift a row: it adds up to 0 over the dimensions that were given.",
        see=NORM,
    )


def test_batch_norm():
    x = numbers(6, 3, 2, 2) * 3 + 1
    weight, bias = np.array([1.0, 2.0, 0.5]), np.array([0.0, 1.0, -1.0])

    def run(training, *, steps=1, momentum=0.1):
        mean, var = tt.Tensor(np.array([1.0, 2.0, 3.0])), tt.Tensor(np.array([4.0, 5.0, 6.0]))
        for _ in range(steps):
            out = ts.batch_norm(tt.Tensor(x), mean, var, tt.Tensor(weight), tt.Tensor(bias), training, momentum, 1e-5)
        return {"result": out, "mean": mean, "variance": var}

    running = (np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]))
    fixed = (x - running[0][:, None, None]) / np.sqrt(running[1][:, None, None] + 1e-5)
    fixed = fixed * weight[:, None, None] + bias[:, None, None]
    expect(
        "batch_norm(x, ..., training=True)",
        lambda: run(True)["result"],
        normalized(x, weight, bias),
        (fixed, "In training the batch's own moments count, not the running ones."),
        (normalized(x), "Scale by the weight and add the bias."),
        see=NORM,
    )
    expect(
        "batch_norm(x, ..., training=False)",
        lambda: run(False)["result"],
        fixed,
        (normalized(x, weight, bias), "In evaluation the running moments count, not the batch's own."),
        see=NORM,
    )
    mean, var, unbiased = x.mean((0, 2, 3)), x.var((0, 2, 3)), x.var((0, 2, 3), ddof=1)
    expect(
        "the running mean and variance after a batch, momentum 0.25",
        lambda: [run(True, momentum=0.25)[name] for name in ("mean", "variance")],
        [0.75 * running[0] + 0.25 * mean, 0.75 * running[1] + 0.25 * unbiased],
        (list(running), "They have not moved: new = (1 - momentum) * old + momentum * batch's."),
        (
            [0.25 * running[0] + 0.75 * mean, 0.25 * running[1] + 0.75 * unbiased],
            "The momentum is the share of the batch.",
        ),
        (
            [0.75 * running[0] + 0.25 * mean, 0.75 * running[1] + 0.25 * var],
            "The running variance takes in the unbiased one, n / (n - 1) times the batch's.",
        ),
        (
            [0.75 * running[0] + 0.25 * mean, 0.75 * running[1] + 0.25 * var * 6 / 5],
            "n counts all values of a channel: N * H * W, and not the images alone.",
        ),
        see=NORM,
    )
    expect(
        "the running mean after evaluation",
        lambda: run(False)["mean"],
        running[0],
        "Evaluation moves nothing.",
        see=NORM,
    )
    expect(
        "batch_norm(x, None, None) without weight and bias, training=True",
        lambda: ts.batch_norm(tt.Tensor(x), None, None, training=True),
        normalized(x),
        "Without running moments there is nothing to keep; without a weight the scale is 1.",
        see=NORM,
    )
    expect(
        "batch_norm of one value a channel, training=True",
        lambda: ts.batch_norm(tt.zeros(1, 3, 1, 1), None, None, training=True).shape,
        ValueError,
        "One value has no variance to learn from.",
        see=NORM,
    )


def test_batch_norm_has_a_gradient():
    g = np.cos(numbers(5, 2, 3, 3))

    def shares(name):
        x, weight, bias = tt.Tensor(numbers(5, 2, 3, 3), requires_grad=True), tt.Parameter(np.array([1.0, 3.0])), None
        bias = tt.Parameter(np.array([0.0, 1.0]))
        (ts.batch_norm(x, None, None, weight, bias, training=True) * tt.Tensor(g)).sum().backward()
        return {"x": x, "weight": weight, "bias": bias}[name].grad

    x, dims = numbers(5, 2, 3, 3), (0, 2, 3)
    slope = 1 / np.sqrt(x.var(dims, keepdims=True) + 1e-5)
    normal, h = (x - x.mean(dims, keepdims=True)) * slope, g * np.array([1.0, 3.0])[:, None, None]
    for name, wanted in (
        ("x", slope * (h - h.mean(dims, keepdims=True) - normal * (h * normal).mean(dims, keepdims=True))),
        ("weight", (g * normal).sum(dims)),
        ("bias", g.sum(dims)),
    ):
        expect(f"the gradient of sum(g * batch_norm(x)) by {name}", lambda name=name: shares(name), wanted, see=NORM)

    def in_evaluation():
        x = tt.Tensor(numbers(5, 2, 3, 3), requires_grad=True)
        moments = (tt.from_numpy(np.array([1.0, -1.0])), tt.from_numpy(np.array([4.0, 0.25])))
        weight, bias = (tt.from_numpy(np.array(v)) for v in ([1.0, 3.0], [0.0, 1.0]))
        (ts.batch_norm(x, *moments, weight, bias) * tt.Tensor(g)).sum().backward()
        return x.grad

    expect(
        "the gradient of sum(g * batch_norm(x)) by x, in evaluation",
        in_evaluation,
        g * (np.array([1.0, 3.0]) / np.sqrt(np.array([4.0, 0.25]) + 1e-5))[:, None, None],
        "In evaluation the running moments do not depend on x: compute with a factor and a shift, not with "
        "`normalize_channels`, whose rule takes the moments for those of x.",
        see=NORM,
    )


def test_the_state_has_torchs_names():
    expect(
        "names in the state of BatchNorm2d(3)",
        lambda: sorted(ts.BatchNorm2d(3).state_dict()),
        ["bias", "num_batches_tracked", "running_mean", "running_var", "weight"],
        see=NORM,
    )


def test_normalization_rescues_badly_drawn_weights():
    def learned():
        x, y = ts.framed_digits(8)[0]
        model = tt.Sequential(
            ts.Conv2d(1, 8, 3, padding=1), ts.BatchNorm2d(8), tt.ReLU(), ts.MaxPool2d(2), tt.Flatten(),
            tt.Linear(128, 10),
        )  # fmt: skip
        set_weights(model)
        model[0].weight.copy_(model[0].weight.numpy() * 1e-2)
        model[1].weight.copy_(np.ones(8))
        data = ta.Batches(x, y, 64, shuffle=True)
        optimizer = to.SGD(model.parameters(), lr=0.1)
        ta.fit(model, tt.cross_entropy, optimizer, data, epochs=2, progress=False)
        return ta.evaluate(model, tt.cross_entropy, [(x, y)], [ta.accuracy])["accuracy"]

    expect(
        "share of digits read after 2 epochs from tiny weights, with batch normalization",
        learned,
        between(0.7, 1),
        "Whatever the size of the weights, the normalized numbers have the same; and in evaluation the running moments "
        "stand for the batch's.",
        see=NORM,
    )
