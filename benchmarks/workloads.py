"""What is timed: the data and the first weights of each workload, the same for every contender.

The learning rate is tiny on purpose. A timed step is repeated thousands of times, and a loss that came near zero would
fill the optimizer's memory with denormal numbers, which are slow for everybody.
"""

from typing import NamedTuple

import numpy as np

RATE, BETAS, EPS = 1e-5, (0.9, 0.999), 1e-8
OPERATIONS = 10_000
BATCH = 32
LOADED = 10_000
PROMPT, WRITTEN, REQUESTS = 16, 240, 8  # tokens of a prompt, tokens that follow, texts
VECTORS = 100


class Workload(NamedTuple):
    """A title, the unit of the numbers shown, and how many of these units a second per step is."""

    title: str
    unit: str
    scale: float


WORKLOADS = {
    "mlp": Workload("Training step: MLP 784-256-128-10, batch 64, Adam", "ms", 1e3),
    "small": Workload("Small operations on 4 numbers, forward and backward, each", "us", 1e6 / OPERATIONS),
    "adam": Workload("Adam step, 10 million parameters in 20 tensors", "ms", 1e3),
    "digits": Workload("An epoch on the digits: MLP 64-64-10, 45 steps of 32, Adam", "ms", 1e3),
    "lenet": Workload("Training step: LeNet, 28 x 28, batch 64, Adam", "ms", 1e3),
    "cifar": Workload("Training step: CNN 32-32-64-64-128-10, 3 x 32 x 32, batch 128, Adam", "ms", 1e3),
    "cifar_bn": Workload("The same with batch normalization after each convolution", "ms", 1e3),
    "loader": Workload(
        "A batch of 128 from a loader with 2 workers: 3 x 32 x 32, shuffled, cropped, mirrored, normalized", "ms",
        1e3 / -(-LOADED // 128),
    ),
    "gpt": Workload("Training step: GPT, 4 blocks, 128 wide, 12 texts of 64 characters, AdamW", "ms", 1e3),
    "gpt_big": Workload("Training step: GPT, 6 blocks, 384 wide, 8 texts of 256 tokens, AdamW", "ms", 1e3),
    "generate": Workload("A token of that larger GPT with a cache, positions 16 to 255, one text", "ms", 1e3 / WRITTEN),
    "generate_anew": Workload("The same without a cache", "ms", 1e3 / WRITTEN),
    "serve": Workload("A token with a cache, eight texts at a time", "ms", 1e3 / WRITTEN / REQUESTS),
    "serve_in_turn": Workload("The same eight texts, one after the other", "ms", 1e3 / WRITTEN / REQUESTS),
    **{
        f"vector_{size}_{kind}": Workload(f"A matrix of {size} x {size} in {kind} times a vector", "us", 1e6 / VECTORS)
        for size in (1024, 4096)
        for kind in ("float32", "int8", "q4_1")
    },
    **{
        f"vector_{size}_sparse": Workload(f"{size} x {size} with 90 % zeros, times a vector", "us", 1e6 / VECTORS)
        for size in (1024, 4096)
    },
}


def _layers(random, *sizes):
    def uniform(bound, *shape):
        return random.uniform(-bound, bound, shape).astype(np.float32)

    return [(uniform(n**-0.5, m, n), uniform(n**-0.5, m)) for n, m in zip(sizes, sizes[1:])]


def mlp():
    """A batch (64, 784) with labels (64,), and the (weight, bias) of each layer."""
    random = np.random.default_rng(1)
    return random.standard_normal((64, 784), np.float32), random.integers(0, 10, 64), _layers(random, 784, 256, 128, 10)


def digits():
    """The training part of the digits, (1438, 64) with labels, and the (weight, bias) of each layer."""
    from tt_autograd.training import digits

    (x, y), _ = digits()
    return x.numpy().copy(), y.numpy().copy(), _layers(np.random.default_rng(2), 64, 64, 10)


def adam():
    """Twenty parameters of 500 x 1000 and their gradients."""
    random = np.random.default_rng(3)
    return [[random.standard_normal((500, 1000), np.float32) for _ in range(20)] for _ in range(2)]


def small():
    """x, a and b of the chain x * a, + b, * a, + b, ..., 4 numbers each."""
    x = np.random.default_rng(4).standard_normal(4, np.float32)
    return x, np.full(4, 0.9999, np.float32), np.full(4, 0.0001, np.float32)


# The convolutional networks, as layers that both know: ("conv", in, out, kernel, padding), ("norm", channels) for batch
# normalization, ("relu",), ("pool",), ("flatten",), ("linear", in, out).

LENET = (
    ("conv", 1, 6, 5, 2), ("relu",), ("pool",), ("conv", 6, 16, 5, 0), ("relu",), ("pool",), ("flatten",),
    ("linear", 400, 120), ("relu",), ("linear", 120, 84), ("relu",), ("linear", 84, 10),
)  # fmt: skip


def cifar_layers(norm: bool) -> tuple:
    """Two convolutions with 32 channels and two with 64, each pair followed by pooling, then 128 units."""
    layers: list[tuple] = []
    for before, after, pool in ((3, 32, False), (32, 32, True), (32, 64, False), (64, 64, True)):
        layers += [("conv", before, after, 3, 1), *([("norm", after)] if norm else []), ("relu",)]
        layers += [("pool",)] if pool else []
    return (*layers, ("flatten",), ("linear", 64 * 8 * 8, 128), ("relu",), ("linear", 128, 10))


IMAGES = {
    "lenet": (64, (1, 28, 28), LENET),
    "cifar": (128, (3, 32, 32), cifar_layers(False)),
    "cifar_bn": (128, (3, 32, 32), cifar_layers(True)),
}


def images(name: str):
    """A batch of images with labels, the layers, and for each layer its (weight, bias), or None."""
    size, shape, layers = IMAGES[name]
    random, arrays = np.random.default_rng(5), []
    for kind, *numbers in layers:
        shapes = {"conv": lambda i, o, k, _: (o, i, k, k), "linear": lambda i, o: (o, i)}.get(kind)
        if shapes is None:
            arrays.append(None)
        else:
            weight_shape = shapes(*numbers)
            bound = np.prod(weight_shape[1:]) ** -0.5
            drawn = (random.uniform(-bound, bound, s).astype(np.float32) for s in (weight_shape, weight_shape[:1]))
            arrays.append(tuple(drawn))
    x = random.standard_normal((size, *shape), np.float32)
    return x, random.integers(0, 10, size), layers, arrays


def loader():
    """Images of bytes (10,000, 3, 32, 32) and labels."""
    random = np.random.default_rng(6)
    return random.integers(0, 256, (LOADED, 3, 32, 32), np.uint8), random.integers(0, 10, LOADED)


# Blocks, heads, width, context, batch, vocabulary.
GPTS = {"gpt": (4, 4, 128, 64, 12, 65), "gpt_big": (6, 6, 384, 256, 8, 512)}


def _parts(layers: int, width: int) -> dict[str, tuple[int, int]]:
    """The linear layers of a GPT, by GPT-2's names, with the shapes of their weights."""
    shapes = {"attn.c_attn": (3, 1), "attn.c_proj": (1, 1), "mlp.c_fc": (4, 1), "mlp.c_proj": (1, 4)}
    return {
        f"transformer.h.{layer}.{name}": (width * out, width * into)
        for layer in range(layers)
        for name, (out, into) in shapes.items()
    }


def vector(name: str):
    """A matrix, a vector (1, size), and the format of the matrix."""
    _, size, kind = name.split("_", 2)
    random, n = np.random.default_rng(8), int(size)
    matrix, x = random.standard_normal((n, n), np.float32), random.standard_normal((1, n), np.float32)
    if kind == "sparse":
        matrix[np.abs(matrix) < np.quantile(np.abs(matrix[:256]), 0.9)] = 0
    return matrix, x, kind


def gpt(name: str):
    """The sizes, ids and targets (batch, context), and the weights by GPT-2's names; linear layers are (out, in)."""
    layers, _, width, context, batch, vocabulary = GPTS[name]
    random = np.random.default_rng(7)
    matrices = {"transformer.wte": (vocabulary, width), "transformer.wpe": (context, width), **_parts(layers, width)}
    weights = {f"{part}.weight": random.normal(0, 0.02, shape) for part, shape in matrices.items()}
    weights |= {f"{part}.bias": np.zeros(shape[0]) for part, shape in _parts(layers, width).items()}
    norms = [f"transformer.h.{layer}.ln_{number}" for layer in range(layers) for number in (1, 2)]
    for norm in [*norms, "transformer.ln_f"]:
        weights |= {f"{norm}.weight": np.ones(width), f"{norm}.bias": np.zeros(width)}
    ids = random.integers(0, vocabulary, (batch, context + 1))
    return GPTS[name], ids[:, :-1].copy(), ids[:, 1:].copy(), {n: a.astype(np.float32) for n, a in weights.items()}
