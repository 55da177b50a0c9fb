"""Chapter 13 at work: in networks, with every optimizer, on pairs and on text, and what it costs."""

import time
import tracemalloc

import numpy as np
import pytest

import tt_autograd as ta
import tt_nlp as tn
import tt_optim as to
import tt_tensor as tt
from tt_tensor.teaching import between, expect, measured_between

WEIGHTS, HEADS, LAYER, COST = "Weights, and who may look", "Heads", "The layer", "The cost"
BLOCKS, READ, LEARNED, LOOPS = (
    "Without the square", "What heads look at", "The dictionary, learned", "The smallest thing that could work",
)  # fmt: skip


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def set_weights(model):
    """The same weights in every run."""
    for number, parameter in enumerate(model.parameters()):
        fan_in = parameter.shape[-1] if parameter.ndim > 1 else 1
        parameter.copy_(np.random.default_rng(number).normal(size=parameter.shape) * fan_in**-0.5)
    return model


def test_imports_find_what_the_chapter_promises():
    names = ["MultiHeadAttention", "attention_by_loops", "attention_in_blocks", "attention_cost", "attention_vjp"]
    names += ["attention_weights", "causal_mask", "merge_heads", "scaled_dot_product_attention", "self_attention"]
    names += ["split_heads", "window_mask"]
    expect(
        "the names that chapter 13 lacks",
        [name for name in names if not (hasattr(tn, name) or hasattr(tn.attention, name))],
        [],
        see="Exercises",
    )


def test_imports_give_a_layer_with_torchs_names():
    expect(
        "names and shapes in the state of MultiHeadAttention(6, 2)",
        lambda: {name: tensor.shape for name, tensor in tn.MultiHeadAttention(6, 2).state_dict().items()},
        {"in_proj_weight": (18, 6), "in_proj_bias": (18,), "out_proj.weight": (6, 6), "out_proj.bias": (6,)},
        see=LAYER,
    )


class Answering(tt.Module):
    """Attention over a text of vectors, then the first of them as logits."""

    def __init__(self):
        super().__init__()
        self.look, self.head = tn.MultiHeadAttention(8, 2), tt.Linear(8, 3)

    def forward(self, x):
        return self.head(self.look(x, x, x)[:, 0])


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
def test_compatibility_with_every_optimizer(name):
    def losses():
        model, x, labels = set_weights(Answering()), tt.randn(4, 5, 8), tt.tensor([0, 1, 2, 1])
        optimizer = getattr(to, name)(model.parameters(), lr=0.01)
        return ta.fit(model, tt.cross_entropy, optimizer, [(x, labels)], epochs=8, progress=False)["loss"]

    expect(f"do the losses of 8 steps with {name} fall?", lambda: (f := losses())[-1] < f[0], True, see=LAYER)


def test_compatibility_gradients_reach_every_weight():
    def without(same):
        layer, x = tn.MultiHeadAttention(8, 2), tt.randn(2, 5, 8)
        y = x if same else tt.randn(2, 3, 8)
        out = layer(x, y, y)
        (out * out).sum().backward()
        return [name for name, p in layer.named_parameters() if p.grad is None or p.grad.shape != p.shape]

    expect(
        "the weights that get no gradient: in self- and cross-attention",
        lambda: [without(True), without(False)],
        [[]] * 2,
        see=LAYER,
    )


def test_compatibility_all_ways_agree():
    def apart():
        layer, x = set_weights(tn.MultiHeadAttention(8, 2)), tt.randn(2, 70, 8)
        ways = [
            layer(x, x, x, is_causal=True),
            layer(x, x, x, tn.causal_mask(70)),
            layer(x, x.clone(), x.clone(), is_causal=True),
        ]
        return max(float((way - ways[0]).abs().max().item()) for way in ways[1:])

    expect(
        "how far causal self-attention in blocks, with a mask and with three texts are apart",
        apart,
        between(0, 1e-4),
        see=LAYER,
    )


def test_integration_the_sum_cannot_recall_and_attention_can():
    shares = {}

    def learned(kind):
        tt.manual_seed(0)
        shares[kind] = tn.attention.train_recall(getattr(tn.attention, kind)(), examples=2000, epochs=4)
        return shares[kind]

    expect("right answers of RecallBySum", lambda: learned("RecallBySum"), between(0.1, 0.6), see="The hurt")
    expect("right answers of RecallByAttention", lambda: learned("RecallByAttention"), between(0.9, 1), see=LEARNED)


def test_integration_a_reader_learns_from_text():
    def losses():
        _, _, found = tn.attention.train_reader(epochs=1, width=32)
        return found[-1]

    expect("loss on held-out text of a Reader after an epoch, in nats", losses, between(1.5, 3.0), see=READ)


def test_integration_padding_and_company_change_nothing():
    def apart():
        layer, x = set_weights(tn.MultiHeadAttention(8, 2)), tt.randn(3, 6, 8)
        real = np.arange(6) < np.array([6, 4, 2])[:, None, None, None]
        together = layer(x, x, x, tt.from_numpy(real))
        differences = []
        for row, length in enumerate((6, 4, 2)):
            alone = x[row : row + 1, :length]
            differences.append((layer(alone, alone, alone) - together[row : row + 1, :length]).abs().max().item())
        return max(differences)

    expect(
        "how much the results of three texts change if they are padded and put into one batch",
        apart,
        between(0, 1e-5),
        "Padding must have the weight 0.",
        see=WEIGHTS,
    )


def seconds(call):
    measured = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        measured.append(time.perf_counter() - start)
    return min(measured)


def test_performance_is_not_that_of_loops():
    qkv = np.ones((3, 2, 24, 8), np.float32)
    expect(
        "time of attention_by_loops by that of attention_in_blocks, for 2 heads and 24 tokens",
        lambda: seconds(lambda: tn.attention.attention_by_loops(*qkv))
        / seconds(lambda: tn.attention_in_blocks(qkv, is_causal=False, scale=1.0)),
        measured_between(5, 1e9),
        "All queries with all keys are one product of matrices.",
        see=BLOCKS,
    )


def test_performance_attention_needs_no_square_of_memory():
    def peak(length):
        qkv = np.zeros((3, 1, length, 8), np.float32)
        tracemalloc.start()
        try:
            tn.attention_in_blocks(qkv, is_causal=False, scale=1.0)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    expect(
        "the peak of attention_in_blocks for 2,048 tokens, by the bytes of its weights",
        lambda: peak(2048) / (4 * 2048**2),
        measured_between(0, 0.5),
        "Take the queries in blocks, and forget the weights of each.",
        see=BLOCKS,
    )
