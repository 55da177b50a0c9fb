"""Chapter 18 at work: networks that have learned lose weights, channels, heads and rank, and still answer."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest

import tt_autograd as ta
import tt_nlp as tn
import tt_opt
import tt_optim as to
import tt_spatial as ts
import tt_tensor as tt
from tt_tensor.teaching import between, expect

IDEA, SPARSE, CHANNELS, HEADS = "The idea", "Sparse storage", "Channels that vanish", "Heads"
RANK, STUDENT, TABLE = "Low rank", "A student", "All tricks in one table"


def train(model, images, epochs, rate=2e-3, **options):
    data = ta.Batches(*images, 32, shuffle=True)
    optimizer = to.Adam(model.parameters(), lr=rate)
    ta.fit(model, tt.cross_entropy, optimizer, data, epochs=epochs, progress=False, **options)
    return model


def right(model, images):
    return ta.evaluate(model, tt.cross_entropy, ta.Batches(*images, 359), [ta.accuracy])["accuracy"]


def loss(model, images):
    return ta.evaluate(model, tt.cross_entropy, ta.Batches(*images, 359))["loss"]


def answers(model, x):
    with ta.evaluating(model), ta.no_grad():
        return model(x).numpy()


@pytest.fixture(scope="module")
def images():
    """Digits of 16 x 16: to learn from, and held out."""
    return ts.framed_digits()


@pytest.fixture(scope="module")
def lenet(images):
    """A LeNet that has learned them."""
    tt.manual_seed(0)
    return train(ts.LeNet(size=16), images[0], 6)


@pytest.fixture(scope="module")
def pruned(lenet, images):
    """The same with a tenth of its weights."""
    tt.manual_seed(0)
    return train(deepcopy(lenet), images[0], 3, callbacks=[tt_opt.Pruning(0.9, steps=80)])


@pytest.fixture(scope="module")
def gpt():
    """A small GPT that has read a little of Moby-Dick, and held-out text."""
    tt.manual_seed(0)
    tokenizer, training, held_out = tn.transformers.load_story(32)
    return tn.train_on_text(tn.transformers.small_gpt(tokenizer.vocab_size, 2, 64, 64), training, 80), held_out


def test_imports_find_what_the_chapter_promises():
    names = ["magnitude_mask", "prune_", "Pruning", "compressed_rows", "SparseLinear", "sparsify_", "readers", "slim_"]
    names += ["remove_outputs_", "remove_heads_", "low_rank", "ranks_for", "factorize_", "distillation_loss", "Taught"]
    expect(
        "the names that chapter 18 lacks",
        [n for n in names if not (hasattr(tt_opt, n) or hasattr(tt_opt.compression, n))],
        [],
        see="Exercises",
    )


# Zeros


def test_compatibility_a_tenth_of_the_weights(lenet, pruned, images):
    expect(
        "the share of weights of a LeNet after training with Pruning(0.9), and the points that it reads less",
        lambda: (tt_opt.density(pruned), 100 * (right(lenet, images[1]) - right(pruned, images[1]))),
        lambda found: abs(found[0] - 0.1) < 0.001 and found[1] < 5,
        (lambda found: found[0] > 0.11, "The optimizer revives weights: multiply by the masks after each step."),
        see=IDEA,
    )


def test_integration_a_training_that_is_resumed(images, tmp_path):
    def weights(*epochs, name):
        tt.manual_seed(3)
        start = tt.Sequential(tt.Flatten(), tt.Linear(256, 16), tt.ReLU(), tt.Linear(16, 10))
        for number in epochs:
            how = {"callbacks": [tt_opt.Pruning(0.8, steps=60, every=7)], "checkpoint": tmp_path / name, "resume": True}
            model = train(deepcopy(start), images[0], number, **how)
        return [p.numpy() for p in model.parameters()]

    expect(
        "does a training with Pruning that was interrupted end with the weights of one that was not, bit for bit?",
        lambda: [np.array_equal(a, b) for a, b in zip(weights(1, 2, name="cut"), weights(2, name="whole"))],
        [True] * 4,
        "What is pruned depends on weights and masks alone.",
        see=IDEA,
    )


@pytest.mark.parametrize("kind, points", [("float32", 0.1), ("int8", 1)])
def test_compatibility_compressed_rows(pruned, images, kind, points):
    def reads():
        sparse = tt_opt.sparsify_(deepcopy(pruned), kind)
        kinds = [type(layer).__name__ for layer in sparse.modules() if isinstance(layer, tt.Linear)]
        gone = right(pruned, images[1]) - right(sparse, images[1])
        return kinds.count("SparseLinear") > 0, 100 * abs(gone) < points

    expect(f"are there layers with compressed rows ({kind}), and does the network read as before?", reads, (True, True),
           see=SPARSE)  # fmt: skip


def test_integration_a_sparse_network_answers_as_before(pruned, images):
    x = images[1][0][:20]

    def change():
        found, wanted = answers(tt_opt.sparsify_(deepcopy(pruned)), x), answers(pruned, x)
        return np.abs(found - wanted).max() / np.abs(wanted).max()

    expect("how much compressed rows change the logits of a network, by the largest of them", change,
           between(0, 1e-4), see=SPARSE)  # fmt: skip


@pytest.mark.parametrize("kind, least", [("float32", 5), ("int8", 7.5)])
def test_performance_the_bytes_of_a_sparse_network(pruned, kind, least):
    def times_smaller():
        sparse = tt_opt.sparsify_(deepcopy(pruned), kind)
        memory = tt_opt.model_bytes(pruned) / tt_opt.model_bytes(sparse)
        return memory, tt_opt.file_bytes(pruned) / tt_opt.file_bytes(sparse)

    expect(
        f"how many times smaller a pruned network is in memory and in its file with compressed rows of {kind}",
        times_smaller,
        lambda found: min(found) > least,
        "Column numbers of two bytes, and no zeros among the values.",
        see=SPARSE,
    )


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_integration_a_sparse_network_goes_through_a_file(pruned, images, tmp_path, kind):
    x, sparse = images[1][0][:20], tt_opt.sparsify_(deepcopy(pruned), kind)

    def through_a_file():
        ta.save_checkpoint(tmp_path / "sparse", sparse.state_dict())
        other = deepcopy(pruned)
        for p in other.parameters():
            p.copy_(p.numpy()[::-1])  # as many zeros, elsewhere
        other = tt_opt.sparsify_(other, kind)
        other.load_state_dict(ta.load_checkpoint(tmp_path / "sparse"))
        return np.array_equal(answers(other, x), answers(sparse, x))

    expect(f"is a sparse network ({kind}) the same after save_checkpoint and load_checkpoint?", through_a_file, True,
           see=SPARSE)  # fmt: skip


def test_integration_a_sparse_network_learns(pruned, images):
    def learned():
        tt.manual_seed(0)
        sparse = tt_opt.sparsify_(deepcopy(pruned))
        values = [layer.values for layer in sparse.modules() if isinstance(layer, tt_opt.SparseLinear)]
        for p in values:
            p.copy_(p.numpy() * 0.5)
        before = loss(sparse, images[1])
        ta.fit(sparse, tt.cross_entropy, to.Adam(values, lr=2e-3), ta.Batches(*images[0], 32), epochs=1, progress=False)
        return loss(sparse, images[1]) / before, tt_opt.model_bytes(sparse) / tt_opt.model_bytes(pruned)

    expect("the loss of a sparse network of halved weights after an epoch, by that before, and its size by the dense",
           learned, lambda found: found[0] < 0.95 and found[1] < 0.35, see=SPARSE)  # fmt: skip


# Channels


@pytest.fixture(scope="module")
def slim(lenet, images):
    """The LeNet with half of its channels, not trained yet."""
    return tt_opt.slim_(deepcopy(lenet), 0.5, images[0][0][:2])


def multiply_adds(model, x):
    with ta.evaluating(model), ta.no_grad(), tt.meter() as counted:
        model(x)
    return counted.multiply_adds.total()


def test_performance_half_of_the_channels(lenet, slim, images):
    x = images[1][0][:8]
    halves = [np.divide(s.shape, w.shape).tolist() for s, w in zip(slim.parameters(), lenet.parameters())]
    expect(
        "the shapes of LeNet's parameters with half of its channels, by those of the whole",
        halves,
        [[0.5, 1, 1, 1], [0.5], [0.5, 0.5, 1, 1], [0.5], [0.5, 0.5], [0.5], [0.5, 0.5], [0.5], [1, 0.5], [1]],
        see=CHANNELS,
    )
    expect("its multiply-adds, by those of the whole", lambda: multiply_adds(slim, x) / multiply_adds(lenet, x),
           between(0.2, 0.45), see=CHANNELS)  # fmt: skip


def test_compatibility_half_of_the_channels(lenet, slim, images):
    def points():
        tt.manual_seed(0)
        trained = train(deepcopy(slim), images[0], 3)
        return 100 * (right(lenet, images[1]) - right(trained, images[1]))

    expect("the points that it reads less after three epochs", points, between(-8, 8), see=CHANNELS)


def test_integration_fewer_channels_and_small_numbers(slim, images):
    x = images[1][0][:50]

    def small():
        quantized = tt_opt.quantize_(deepcopy(slim))
        change = answers(quantized, x) - answers(slim, x)
        return np.abs(change).max() / np.abs(answers(slim, x)).max(), tt_opt.model_bytes(quantized)

    expect("how much int8 changes the logits of a network with half of its channels, and its bytes", small,
           lambda found: 0 < found[0] < 0.05 and found[1] < 0.4 * tt_opt.model_bytes(slim), see=TABLE)  # fmt: skip


# Heads, hidden units, rank


@pytest.mark.parametrize("kind", ["whole", "sparse"])
def test_compatibility_fewer_heads_and_a_cache(gpt, kind):
    how = {"max_new_tokens": 20, "temperature": 0}

    def texts():
        model = deepcopy(gpt[0])
        doomed = [tt_opt.compression.smallest_heads(block.attn, 2) for block in model.transformer.h]
        model = tt_opt.remove_heads_(model, doomed)
        if kind == "sparse":
            tt_opt.prune_(model, 0.5, together=False)
            tt_opt.sparsify_(model)
        return tt_opt.generate(model, [1, 2, 3], **how) == tn.generate(model, [1, 2, 3], **how)

    expect(f"does a {kind} GPT with half of its heads write the same 20 tokens with a cache as without?", texts, True,
           see=HEADS)  # fmt: skip


def test_integration_fewer_hidden_units(gpt):
    model, held_out = gpt

    def slimmer():
        ids = tt.from_numpy(np.arange(8)[None])
        names = [f"transformer.h.{block}.mlp.c_fc" for block in range(2)]
        slim = tt_opt.slim_(deepcopy(model), 0.5, ids, names)
        more = tn.transformers.surprise_on(slim, held_out) - tn.transformers.surprise_on(model, held_out)
        return [p.shape[0] for n, p in slim.named_parameters() if n.endswith("c_fc.weight")], more

    expect("the hidden units of a GPT's blocks after slim_(model, 0.5, ids, names), and the nats a character lost",
           slimmer, lambda found: found[0] == [128, 128] and abs(found[1]) < 0.05, see=HEADS)  # fmt: skip


def test_compatibility_low_rank(lenet, images):
    def points():
        model = tt_opt.factorize_(deepcopy(lenet), 0.4)
        size = sum(p.numel() for p in model.parameters()) / sum(p.numel() for p in lenet.parameters())
        return size, 100 * (right(lenet, images[1]) - right(model, images[1]))

    expect("the size of a LeNet with 0.4 of the numbers of its linear layers, and the points it reads less, untrained",
           points, lambda found: found[0] < 0.5 and found[1] < 6, see=RANK)  # fmt: skip


# A student


def test_integration_a_student_comes_near_its_teacher(lenet, images):
    (x, y), (held_out, _) = images

    def distance(alpha):
        """How far the student's answers at T = 4 are from the teacher's on held-out digits, in nats."""
        tt.manual_seed(1)
        student = tt.Sequential(tt.Flatten(), tt.Linear(256, 32), tt.ReLU(), tt.Linear(32, 10))
        pair, data = tt_opt.Taught(student, lenet.eval()), ta.Batches(x[:150], y[:150], 32, shuffle=True)
        lesson = partial(tt_opt.distillation_loss, T=4.0, alpha=alpha)
        ta.fit(pair, lesson, to.Adam(student.parameters(), lr=3e-3), data, epochs=30, progress=False)
        with ta.no_grad():
            mine, theirs = (tt.log_softmax(tt.from_numpy(answers(m, held_out) / 4), 1) for m in (student, lenet))
            return tt.kl_div(mine, theirs, reduction="batchmean", log_target=True).item()

    expect(
        "the divergence of a taught student from its teacher, by that of a student who was alone",
        lambda: distance(0.9) / distance(0.0),
        between(0, 0.6),
        "The teacher's answers are the second of the outputs.",
        see=STUDENT,
    )
    expect("do the weights of a teacher belong to the pair?",
           lambda: len(list(tt_opt.Taught(tt.Linear(2, 2), lenet).parameters())), 2, see=STUDENT)  # fmt: skip
