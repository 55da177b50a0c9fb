"""Chapter 12 at work: tables in networks, with every optimizer, on text, and what they cost."""

import time

import numpy as np
import pytest

import tt_autograd as ta
import tt_nlp as tn
import tt_optim as to
import tt_tensor as tt
from tt_tensor.teaching import between, expect, measured_between

LOOKING, LAYER, LEARNED, PLACES = "Looking up", "The layer", "What is learned", "Where it stands"
TURNING, HURTS = "Turning", "What hurts next"


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def test_imports_find_what_the_chapter_promises():
    names = ["Embedding", "LearnedPositions", "RotaryEmbedding", "add_rows", "by_one_hot", "embedding", "embedding_bag"]
    names += ["frequencies", "in_a_plane", "nearest", "rotary", "sinusoidal_positions", "rotate_pairs"]
    expect(
        "the names that chapter 12 lacks",
        [name for name in names if not (hasattr(tn, name) or hasattr(tn.embeddings, name))],
        [],
        see="Exercises",
    )


def test_imports_give_layers_with_named_weights():
    expect(
        "names and shapes in the states of Embedding(5, 3) and LearnedPositions(4, 3), and in RotaryEmbedding(4)",
        lambda: [
            {name: tensor.shape for name, tensor in layer.state_dict().items()}
            for layer in (tn.Embedding(5, 3), tn.LearnedPositions(4, 3), tn.RotaryEmbedding(4))
        ],
        [{"weight": (5, 3)}, {"weight": (4, 3)}, {}],
        see=LAYER,
    )


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
def test_compatibility_with_every_optimizer(name):
    def losses():
        model = tt.Sequential(tn.Embedding(9, 4), tt.Flatten(), tt.Linear(12, 2))
        ids, labels = tt.tensor([[1, 2, 2], [0, 8, 1], [5, 5, 5]]), tt.tensor([0, 1, 1])
        optimizer = getattr(to, name)(model.parameters(), lr=0.02)
        return ta.fit(model, tt.cross_entropy, optimizer, [(ids, labels)], epochs=8, progress=False)["loss"]

    expect(f"do the losses of 8 steps with {name} fall?", lambda: (f := losses())[-1] < f[0], True, see=LAYER)


def test_compatibility_padding_stays_at_zero():
    def padding():
        model = tt.Sequential(tn.Embedding(6, 4, padding_idx=0), tt.Flatten(), tt.Linear(12, 2))
        data = [(tt.tensor([[1, 2, 0], [3, 0, 0]]), tt.tensor([0, 1]))]
        ta.fit(model, tt.cross_entropy, to.Adam(model.parameters(), lr=0.1), data, epochs=5, progress=False)
        return model[0].weight[0].numpy()

    expect("the vector of the padding after 5 steps of Adam", padding, np.zeros(4), see=LOOKING)


def test_compatibility_a_tied_table_hears_from_both_uses():
    def gradient():
        table, head = tn.Embedding(4, 3), tt.Linear(3, 4, bias=False)
        table.weight.copy_(np.arange(12).reshape(4, 3) / 10)
        head.weight = table.weight
        head(table(tt.tensor([1, 1]))).sum().backward()
        return table.weight.grad

    table = np.arange(12).reshape(4, 3) / 10
    wanted = np.tile(2 * table[1], (4, 1))
    wanted[1] += 2 * table.sum(0)
    expect("the gradient of a table that is also the weight of the last layer", gradient, wanted, see=LEARNED)


def test_integration_vowels_find_each_other():
    def vowels():
        tokenizer, model, _ = tn.embeddings.train_gap_filler(epochs=6)
        often = [tokenizer.encode(c)[0] for c in "abcdefghiklmnoprstuvwy"]
        found = tn.nearest(model.table.weight[np.array(often)], 0, 4)
        return sum("abcdefghiklmnoprstuvwy"[row] in "eiou" for row, _ in found)

    expect(
        "how many of the four letters nearest to 'a' are vowels, after training on the chapter's text",
        vowels,
        between(3, 4),
        "Tokens that are used alike move together.",
        see=LEARNED,
    )


def test_integration_sums_forget_the_order_and_positions_do_not():
    def difference():
        one, other = tn.embeddings.sentence_sum("dog bites man"), tn.embeddings.sentence_sum("man bites dog")
        return float((one - other).abs().max().item())

    expect("the largest difference between the sums of the two sentences", difference, between(0, 1e-5), see=HURTS)

    def order():
        x = tn.Embedding(3, 8)(tt.tensor([0, 1, 2])) * 0 + 1
        return float((tn.rotary(x)[0] - tn.rotary(x)[2]).abs().max().item())

    expect("how far equal tokens at places 0 and 2 are apart when turned", order, between(0.1, 10), see=TURNING)


def seconds(call):
    measured = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        measured.append(time.perf_counter() - start)
    return min(measured)


def test_performance_looking_up_beats_multiplying():
    ids, table = tt.tensor(np.arange(256) * 37), tt.randn(10_000, 64)
    expect(
        "time of by_one_hot by that of embedding, for 256 tokens of 10,000",
        lambda: seconds(lambda: tn.embeddings.by_one_hot(ids, table)) / seconds(lambda: tn.embedding(ids, table)),
        measured_between(5, 1e9),
        "A look-up needs no product.",
        see=LOOKING,
    )


def test_performance_adding_rows_grows_with_the_tokens():
    random = np.random.default_rng(0)
    few, many = random.integers(0, 50, 1000), random.integers(0, 50, 16_000)
    g = np.ones((16_000, 64), np.float32)
    expect(
        "time of add_rows for 16,000 tokens by that for 1,000",
        lambda: seconds(lambda: tn.add_rows(many, g, rows=50)) / seconds(lambda: tn.add_rows(few, g[:1000], rows=50)),
        measured_between(0, 100),
        "Sixteen times the tokens may take about sixteen times as long.",
        see=LOOKING,
    )
