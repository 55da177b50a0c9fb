"""Chapter 15 at work: networks of all chapters on every kernel set, and what it brings."""

import functools
import time

import numpy as np
import pytest

import tt_autograd as ta
import tt_nlp as tn
import tt_opt
import tt_optim as to
import tt_spatial as ts
import tt_tensor as tt
from tt_tensor.teaching import between, expect, measured_between

TWICE, SETS, PROFILE = "Nothing twice", "Kernel sets", "The smallest thing that could work"


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def test_imports_find_what_the_chapter_promises():
    names = ["accelerate", "amdahl", "best_set", "gelu_block", "in_blocks", "kernel_set", "norm_by_definition"]
    names += ["picked_up", "roofline", "time_by_primitive", "twin", "utilization"]
    lacking = [name for name in names if not (hasattr(tt_opt, name) or hasattr(tt_opt.acceleration, name))]
    expect("the names that chapter 15 lacks", lacking, [], see="Exercises")


def losses(make, loss, data, name):
    """The losses of a few epochs on a kernel set."""
    with tt_opt.accelerate(name):
        tt.manual_seed(0)
        model = make()
        optimizer = to.AdamW(model.parameters(), lr=1e-3)
        return np.array(ta.fit(model, loss, optimizer, data, epochs=4, progress=False)["loss"])


def images():
    random = np.random.default_rng(0)
    return [(tt.tensor(random.standard_normal((8, 3, 16, 16), np.float32)), tt.tensor(np.arange(8) % 4))]


def network():
    layers = [ts.Conv2d(3, 8, 3, padding=1), ts.BatchNorm2d(8), tt.ReLU(), ts.MaxPool2d(2), ts.Conv2d(8, 20, 3)]
    return tt.Sequential(*layers, tt.ReLU(), ts.MaxPool2d(2), tt.Flatten(), tt.Linear(20 * 9, 4))


def test_compatibility_a_network_on_images_learns_the_same():
    name = "fast"
    plain = losses(network, tt.cross_entropy, images(), "default")
    expect(
        f"the largest difference of the losses of a convolutional network on {name}",
        lambda: float(np.abs(losses(network, tt.cross_entropy, images(), name) - plain).max()),
        between(0, 2e-3),
        "Values and gradients of a twin are those of the chapter's kernel.",
        see=SETS,
    )


def test_compatibility_a_gpt_learns_the_same():
    name = "fast"
    ids = tt.from_numpy(np.random.default_rng(0).integers(0, 20, (4, 33)))
    data = [(ids[:, :-1], ids[:, 1:])]
    make = functools.partial(tn.transformers.small_gpt, 20, layers=2)
    plain = losses(make, tn.next_token_loss, data, "default")
    expect(
        f"the largest difference of the losses of a GPT on {name}",
        lambda: float(np.abs(losses(make, tn.next_token_loss, data, name) - plain).max()),
        between(0, 1e-4),
        "Values and gradients of a twin are those of the chapter's kernel.",
        see=SETS,
    )


def test_integration_second_derivatives_go_by_the_table():
    def second(name):
        with tt_opt.accelerate(name):
            x = tt.tensor(np.linspace(-2, 2, 400, dtype=np.float32).reshape(20, 20), requires_grad=True)
            (first,) = ta.grad(tt.gelu(x, approximate="tanh").sum(), x, create_graph=True)
            return ta.grad((first * first).sum(), x)[0].numpy()

    expect(
        "the largest difference of a second derivative of gelu on fast",
        lambda: float(np.abs(second("fast") - second("default")).max()),
        between(0, 1e-5),
        "With a tensor as g, the rules of the table compute.",
        see=TWICE,
    )


def test_integration_the_profile_of_a_step():
    def share():
        model, x = tt.Sequential(tt.Linear(64, 64), tt.ReLU(), tt.Linear(64, 10)), tt.rand(32, 64)
        labels = tt.tensor(np.arange(32) % 10)
        seconds = tt_opt.time_by_primitive(lambda: tt.cross_entropy(model(x), labels).backward())
        return sorted(name for name in seconds if name in ("relu", "matmul"))

    expect(
        "which of relu and matmul a training step spends time in",
        share,
        ["matmul", "relu"],
        "The backward pass goes through the door, too, while a meter listens.",
        see=PROFILE,
    )


def seconds(call):
    measured = []
    for _ in range(15):
        start = time.perf_counter()
        call()
        measured.append(time.perf_counter() - start)
    return min(measured)


def test_performance_the_stopwatch_does_not_disturb():
    x = tt.ones(4)

    def small():
        for _ in range(300):
            tt.exp(x)

    expect(
        "time of 300 small operations under the stopwatch by that without",
        lambda: seconds(lambda: tt_opt.time_by_primitive(small)) / seconds(small),
        measured_between(0, 100),
        "Two looks at the clock are all that the stopwatch may cost.",
        see=PROFILE,
    )
