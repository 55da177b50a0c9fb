# # The vision trainer
#
# An appendix of chapter 20, and its first route. At the end of it your network learns to recognize three of four
# photographs of CIFAR-10 in about a minute on two cores, and you know where each second went.

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import tt_tensor as tt
from tt_autograd import no_grad
from tt_data import CIFAR10, Compose, DataLoader, Images, Normalize, RandomCrop, RandomHorizontalFlip, Transform
from tt_opt import accelerate, best_set
from tt_optim import SGD, LRScheduler, OneCycleLR, Optimizer
from tt_spatial import AdaptiveMaxPool2d, BatchNorm2d, Conv2d, MaxPool2d
from tt_tensor import Flatten, Linear, Module, ReLU, Sequential, cross_entropy

# ## The hurt
#
# We have a program that learns CIFAR-10, `examples/alexnet_2012`. It gets 85 % of the unseen photographs right, and
# takes 22 minutes on two cores. Suppose that 75 % are enough for us. How long must we wait for them?
#
# DAWNBench (C. Coleman et al., 2017) asked the question in this form: it fixed an accuracy and measured the time until
# a training reached it. Within half a year the best entry for CIFAR-10 went from hours to minutes. Some of that came
# from more processors, but much of it from the choice of network, schedule and data. The question has two halves: how
# many photographs must the network see, and what does each of them cost? We begin with the cost. This is the body of
# the network of 2012:


def plain_network(width: int = 32) -> Sequential:
    """Return convolutions at full size: images (N, 3, 32, 32) -> (N, 2 * width, 8, 8)."""
    layers: list[Module] = []
    for inputs, outputs in ((3, width), (width, width), (width, 2 * width), (2 * width, 2 * width)):
        layers += [Conv2d(inputs, outputs, 3, padding=1, bias=False), BatchNorm2d(outputs), ReLU()]
        layers += [MaxPool2d(2)] if inputs >= width and inputs == outputs else []
    return Sequential(*layers)


# We count with the meter of chapter 02.


def multiply_adds(model: Module, *shape: int) -> Counter:
    """Return the multiply-adds (or, in primitives that do not multiply, operations) for one image, by primitive."""
    model.eval()
    with no_grad(), tt.meter() as counted:
        model(tt.zeros(1, *shape))
    model.train()
    return counted.multiply_adds


def show_hurt():
    total = multiply_adds(plain_network(), 3, 32, 32).total()
    operations = 2 * 3 * total * 50_000 * 10
    print(f"{total / 1e6:.1f} M multiply-adds for an image, forward")
    print(f"three times that for a step, two operations each, 50,000 images, 10 epochs: {operations / 1e12:.0f} T")
    print(f"at 200 G a second: {operations / 200e9 / 60:.1f} minutes")


# The backward pass takes about twice the multiply-adds of the forward pass, so we multiply by three. Even with perfect
# kernels, this network needs minutes. We measured the 22 minutes with the chapters' own kernels; with the set
# `compiled` they are 12.

# ## Smaller maps
#
# Where do the multiply-adds go? The layers at 32 by 32 pixels do as much as all others together, although they know the
# least: they see only edges and colours. They also have the largest *feature maps*, so normalization, ReLU and pooling,
# which are memory-bound, are slow there as well. So we never work at full size. We cut each photograph into squares of
# 2 by 2 pixels and turn each square into a single pixel with 12 channels instead of 3. We lose no number.


class Patches(Transform):
    """Turns squares of 2 by 2 pixels into pixels with four times the channels: (N, C, H, W) -> (N, 4 C, H / 2, W / 2).
    Raises ValueError for images with an odd side."""

    def apply(self, images, random):
        n, c, h, w = images.shape
        if h % 2 or w % 2:
            raise ValueError(f"images of {h} by {w} pixels cannot be cut into squares of 2 by 2; crop to even sides")
        squares = images.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 2, 4, 3, 5, 1)  # (N, H/2, W/2, 2, 2, C)
        return squares.reshape(n, h // 2, w // 2, 4 * c).transpose(0, 3, 1, 2)


def check_patches():
    images = np.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    patches = Patches()(images)
    assert patches.shape == (2, 12, 2, 3)
    assert patches[1, :, 0, 2].tolist() == [images[1, c, y, x] for y in (0, 1) for x in (4, 5) for c in (0, 1, 2)]


# In memory the channels of a pixel are now neighbours. The convolutions of chapter 15 want them there, so they need no
# copy. A filter of 3 by 3 on these pixels has a *receptive field* of 6 by 6 pixels of the photograph, so the first
# layer does not see less than before.

# ## The network
#
# Each stage of our network is a convolution that doubles the channels and a pooling that halves the sides. Usually
# normalization and ReLU come before the pooling. We put them behind it, where only a quarter of the numbers is left.


def stage(channels: int, width: int) -> list[Module]:
    """Return a convolution, pooling, normalization and ReLU: (N, channels, H, W) -> (N, width, H / 2, W / 2)."""
    return [Conv2d(channels, width, 3, padding=1, bias=False), MaxPool2d(2), BatchNorm2d(width), ReLU()]


# Otherwise this changes hardly anything. ReLU never decreases, and neither does normalization where its weight is
# positive, so the largest number stays the largest. Only the mean and the variance are now those of the largest
# numbers. If we hold them fixed, both orders give the same result.


def check_pooling_first_gives_the_same():
    tt.manual_seed(0)
    convolution, pool, norm, relu = stage(3, 8)
    x = convolution(tt.randn(4, 3, 8, 8))
    norm.eval()
    assert np.allclose(pool(relu(norm(x))).numpy(), relu(norm(pool(x))).numpy())


# Three stages bring 16 by 16 pixels to 2 by 2. Depth is cheap where the maps are small. So between the second stage and
# the third, at 4 by 4 pixels, we add another convolution with a *residual connection* (K. He et al., 2015), as in
# chapter 14: we add the result of the layers to their input. At the end we take the largest number of each channel and
# let one linear layer decide.


class Residual(Module):
    """x + body(x), for a body that keeps the shape."""

    def __init__(self, *body: Module):
        super().__init__()
        self.body = Sequential(*body)

    def forward(self, x):
        return x + self.body(x)


def fast_network(channels: int = 12, width: int = 32, classes: int = 10) -> Sequential:
    """Return four convolutions and a linear layer: images (N, channels, H, W) with sides of 8 or more -> (N,
    classes)."""
    deeper = Conv2d(2 * width, 2 * width, 3, padding=1, bias=False), BatchNorm2d(2 * width), ReLU()
    return Sequential(
        *stage(channels, width), *stage(width, 2 * width), Residual(*deeper), *stage(2 * width, 4 * width),
        AdaptiveMaxPool2d(1), Flatten(), Linear(4 * width, classes),
    )  # fmt: skip


# What does a step of each network cost, in multiply-adds and in time?


def step_of(model: Module, images: Any):
    """Return a function that goes forward and backward through a model once."""

    def step():
        model.zero_grad()
        model(images).sum().backward()

    return step


def show_networks():
    with accelerate(best_set()):
        for name, model, shape in (("2012", plain_network(), (3, 32, 32)), ("fast", fast_network(), (12, 16, 16))):
            count = multiply_adds(model, *shape)["convolution"]
            seconds = tt.measure(step_of(model, tt.randn(32, *shape))).seconds / 32
            print(f"{name}: {count / 1e6:5.1f} M multiply-adds, {seconds * 1e6:6.0f} us an image, forward and backward")


# Our network has a sixth of the multiply-adds. Wider stages learn more from each photograph, but their cost is higher
# than their gain. You find the comparison in the README of `examples/dawnbench_2017`.

# ## The photographs
#
# If a network sees the same photographs several times, it begins to memorize them (*overfitting*). So we change them a
# little each time (*data augmentation*), with the transforms of chapter 10: we move them by up to two pixels and mirror
# them. The transforms work on bytes, a mini-batch at a time, and take a tenth of the time of a step. The 150 MB of
# bytes stay bytes until we need a batch, because all of CIFAR-10 in float32 would need 600 MB.


def transforms(channels: int, side: int) -> tuple[Transform, Transform]:
    """Return the transforms of a batch of images, for training and for unseen images. Images of 3 channels count as
    photographs and become patches."""
    if channels != 3:
        normalize = Normalize([0.5], [0.5])
        return Compose([RandomCrop(side, padding=side // 8), normalize]), normalize
    see: list[Transform] = [Patches(), Normalize(CIFAR10.mean * 4, CIFAR10.std * 4)]
    return Compose([RandomCrop(side, padding=side // 16), RandomHorizontalFlip(), *see]), Compose(see)


# `CIFAR10.mean` is a tuple of three numbers. Four times that tuple is a tuple of twelve, in the order of the channels
# of a patch.


def check_patches_are_normalized_by_colour():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32)).astype(np.uint8)
    first = Patches()(Normalize(CIFAR10.mean, CIFAR10.std)(images))
    assert np.allclose(transforms(3, 32)[1](images), first, atol=1e-5)


# ## The schedule
#
# The time is short, so the *learning rate* must be high. At the end it must be low, or the weights never settle. We let
# it rise in a straight line for three tenths of the steps and fall in another for the rest. Our *weight decay* is four
# times that of the program of 2012, and applies only to the weights of layers. We leave the parameters of normalization
# alone.

RATE, DECAY, SMOOTHING = 0.4, 2e-3, 0.1


def optimizer_of(model: Module, rate: float = RATE) -> SGD:
    """Return gradient descent with Nesterov's momentum, and weight decay for matrices and filters."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    return SGD(groups, lr=rate, momentum=0.9, nesterov=True)


def schedule_of(optimizer: Optimizer, steps: int, rate: float = RATE) -> OneCycleLR:
    """Return a schedule that rises to `rate` for three tenths of the steps, and falls for the rest."""
    return OneCycleLR(
        optimizer, rate, max(steps, 1), pct_start=0.3, anneal_strategy="linear", cycle_momentum=False, div_factor=5,
        final_div_factor=20,
    )


def check_the_rate_is_highest_after_three_tenths():
    optimizer = optimizer_of(Linear(2, 2))
    schedule = schedule_of(optimizer, 100)
    rates = [schedule.lrs_at(step)[0] for step in range(100)]
    assert np.argmax(rates) == 29 and np.isclose(max(rates), RATE) and rates[-1] < RATE / 90


# Our loss has *label smoothing* (C. Szegedy et al., 2015): the target is 91 % for the right class and 1 % for each of
# the others, so the network gains nothing by being surer than that. How do we know that it helps? We held out 5,000 of
# the training photographs, trained with and without it, and saw a difference of two points. We must not decide such a
# question by the test photographs, because the best of twenty settings would look better on them than it is.

# ## A clock
#
# The profiler of chapter 19 sees every primitive. For a whole training we want something simpler: names for parts of
# the program, and the seconds in each. Time outside all parts must not vanish, so it gets a name, too.


class Clock:
    """Measures seconds by name: `with clock("forward"): ...`. Parts must not be nested. It starts when you make it, or
    at `began`, a reading of time.perf_counter."""

    def __init__(self, began: float | None = None):
        self.began = time.perf_counter() if began is None else began
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def report(self) -> dict[str, float]:
        """Return seconds by name, in the order of first use, and then "the rest". Their sum is the whole time."""
        whole = time.perf_counter() - self.began
        return {**self.seconds, "the rest": whole - sum(self.seconds.values())}


def check_clock():
    start = time.perf_counter()
    clock = Clock()
    for name in ("work", "pause", "work"):
        with clock(name):
            time.sleep(0.01)
    seconds = clock.report()
    assert list(seconds) == ["work", "pause", "the rest"] and seconds["work"] >= 0.02
    assert sum(seconds.values()) <= time.perf_counter() - start


def shares(seconds: dict[str, float]) -> str:
    """Return a table of seconds by name, with the share of each and their sum."""
    whole = sum(seconds.values())
    rows = [*seconds.items(), ("in all", whole)]
    return "\n".join(f"{name:24s}{spent:8.2f} s {spent / whole:7.1%}" for name, spent in rows)


# ## Training
#
# We write the loop of chapter 08 with the clock in it. We could use `fit` as well, but it would not separate forward
# from backward.


def learn(
    model: Module, batches: Iterable, optimizer: Optimizer, schedule: LRScheduler, clock: Clock
) -> tuple[float, float]:
    """Train for one epoch, a step for each batch. Returns the mean loss and the share of right answers during it."""
    losses: list[float] = []
    right, count, source = 0, 0, iter(batches)
    while True:
        with clock("waiting for a batch"):
            batch = next(source, None)
        if batch is None:
            return float(np.mean(losses)), right / max(count, 1)
        images, labels = batch
        with clock("forward"):
            logits = model(images)
            loss = cross_entropy(logits, labels, label_smoothing=SMOOTHING)
        with clock("backward"):
            optimizer.zero_grad()
            loss.backward()
        with clock("update"):
            optimizer.step()
            schedule.step()
        losses.append(loss.item())
        right += int((logits.numpy().argmax(axis=1) == labels.numpy()).sum())
        count += len(labels)


# The first step of a process can be much slower than the others, because kernels of the set `compiled` may have to be
# compiled first, and because memory comes from the system. Such costs belong to the whole time, but under a name of
# their own. So we make one step with a network that we throw away.


def warm_up(images: Images, batch_size: int) -> None:
    """Make a step on some of the images, with another network."""
    x, y = images.batch(range(min(batch_size, len(images))))
    model = fast_network(x.shape[1])
    optimizer = optimizer_of(model)
    learn(model, [(x, y)], optimizer, schedule_of(optimizer, 10), Clock())


# To see the parts of the time, we need only two classes of random pictures, dark and bright. (The labels follow from
# the brightness, so there is something to learn.)


def toy_photographs(count: int, seed: int = 0) -> Images:
    """Return random pictures (count, 3, 32, 32) of two classes, dark and bright."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    pixels = random.integers(0, 156, (count, 3, 32, 32)) + 100 * labels[:, None, None, None]
    return Images(pixels.astype(np.uint8), labels, ("dark", "bright"), transforms(3, 32)[0])


def toy_training(epochs: int = 3, count: int = 1024, batch_size: int = 64) -> tuple[list[float], Clock]:
    """Train shortly on random pictures. Returns the losses of the epochs, and the clock."""
    tt.manual_seed(0)
    clock, data = Clock(), toy_photographs(count)
    with clock("the first step"):
        warm_up(data, batch_size)
    batches, model = DataLoader(data, batch_size, shuffle=True, drop_last=True), fast_network(width=8)
    optimizer = optimizer_of(model, 0.1)
    schedule = schedule_of(optimizer, epochs * len(batches), 0.1)
    return [learn(model, batches, optimizer, schedule, clock)[0] for _ in range(epochs)], clock


def check_it_learns():
    losses, clock = toy_training(3, 256, 32)
    assert losses[-1] < losses[0]
    assert {"waiting for a batch", "forward", "backward", "update"} <= set(clock.report())


def show_seconds():
    with accelerate(best_set()):
        print(shares(toy_training()[1].report()))


# You find the whole program in `examples/dawnbench_2017/train_fast.py`. On all of CIFAR-10 the backward pass takes half
# of the time, and the forward pass a third. By Amdahl's law, a better loader or optimizer could save only a few per
# cent.

# ## A road not taken
#
# Some of the fastest trainings of this kind begin with images of half the size and grow them. We tried that with the
# same time on the clock, with 16 by 16 pixels at first, or with windows of 24 by 24, and gained nothing that we could
# measure, because our maps are small already. Neither did we gain anything from a first layer that *whitens* the
# patches, computed from the data. If we average the answers for a photograph and its mirror image, we gain about a
# point. But this doubles the time of every answer, and we wanted to know what the network can do by itself.

__all__ = [
    "Clock", "DECAY", "Patches", "RATE", "Residual", "SMOOTHING", "fast_network", "learn", "multiply_adds",
    "optimizer_of", "plain_network", "schedule_of", "shares", "stage", "step_of", "toy_photographs", "toy_training",
    "transforms", "warm_up",
]
