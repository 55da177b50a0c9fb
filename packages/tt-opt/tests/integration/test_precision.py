"""Chapter 17 at work: models that have learned, in all formats, through files, and trained through rounding."""

from copy import deepcopy

import pytest

import tt_autograd as ta
import tt_nlp as tn
import tt_opt
import tt_optim as to
import tt_spatial as ts
import tt_tensor as tt
from tt_tensor.teaching import between, expect

LAYERS, COSTS, ACTIVATIONS = "Layers that stay small", "What it costs", "Activations"
THROUGH = "Training through rounding"


@pytest.fixture(scope="module")
def learned():
    """A small GPT that has read a little of Moby-Dick, and held-out text."""
    tt.manual_seed(0)
    tokenizer, training, held_out = tn.transformers.load_story(32)
    return tn.train_on_text(tn.transformers.small_gpt(tokenizer.vocab_size, 2, 64, 64), training, 80), held_out


@pytest.fixture(scope="module")
def digits():
    """A convolutional network that has learned the digits, and the data."""
    tt.manual_seed(0)
    (x, y), (a, b) = ta.training.digits()
    layers = [ts.Conv2d(1, 8, 3, padding=1), ts.BatchNorm2d(8), tt.ReLU(), ts.MaxPool2d(2), ts.Conv2d(8, 10, 4)]
    model = tt.Sequential(*layers, tt.Flatten())
    data = ta.Batches(x.reshape(-1, 1, 8, 8), y, 32, shuffle=True)
    ta.fit(model, tt.cross_entropy, to.Adam(model.parameters(), lr=3e-3), data, epochs=4, progress=False)
    return model, data, ta.Batches(a.reshape(-1, 1, 8, 8), b, 359)


def right(model, data):
    return ta.evaluate(model, tt.cross_entropy, data, [ta.accuracy])["accuracy"]


def test_imports_find_what_the_chapter_promises():
    names = ["to_bfloat16", "quantize", "dequantize", "symmetric_scale", "blocks_of", "numbers_of", "packed_product"]
    names += ["quantize_", "observed", "affine_scale", "least_error", "fake_quantize", "rounding", "read_gguf"]
    expect(
        "the names that chapter 17 lacks",
        [n for n in names if not (hasattr(tt_opt, n) or hasattr(tt_opt.precision, n))],
        [],
        see="Exercises",
    )


LOSSES = {"float16": 0.002, "int8": 0.01, "q8_0": 0.01, "q4_0": 0.05, "q4_1": 0.05}


@pytest.mark.parametrize("kind, most", LOSSES.items())
def test_compatibility_a_gpt_loses_next_to_nothing(learned, kind, most):
    model, held_out = learned

    def loss():
        return tn.transformers.surprise_on(
            tt_opt.quantize_(deepcopy(model), kind), held_out
        ) - tn.transformers.surprise_on(model, held_out)

    expect(f"how many nats a character a GPT loses in {kind}", loss, between(-most, most), see=COSTS)


def test_compatibility_a_convolutional_network(digits):
    model, _, held_out = digits
    expect(
        "the share of digits that a quantized network reads less than the original",
        lambda: right(model, held_out) - right(tt_opt.quantize_(deepcopy(model)), held_out),
        between(-0.01, 0.01),
        see=LAYERS,
    )


def test_integration_calibrated_inputs(digits):
    model, data, held_out = digits

    def rounded():
        model.eval()
        ranges = [tt_opt.precision.least_error(x) for x in tt_opt.observed(model, [x for x, _ in data])]
        with tt_opt.rounding(8, ranges):
            return len(ranges), right(model, held_out) - right_before

    right_before = right(model, held_out)
    expect(
        "how many ranges were found, and the change of the share of right answers with inputs and weights of 8 bits",
        rounded,
        lambda found: found[0] == 2 and abs(found[1]) < 0.01,
        see=ACTIVATIONS,
    )


def test_integration_training_through_rounding(digits):
    model, data, held_out = digits

    def two_bits():
        tt.manual_seed(1)
        student = deepcopy(model)
        with tt_opt.rounding(2):
            before = right(student, held_out)
            optimizer = to.Adam(student.parameters(), lr=3e-3)
            ta.fit(student, tt.cross_entropy, optimizer, data, epochs=2, progress=False)
            return right(student, held_out) - before

    expect("what two epochs of training bring to a network with weights of two bits", two_bits, between(0.02, 1),
           see=THROUGH)  # fmt: skip


def test_integration_files(learned, tmp_path):
    model, held_out = learned

    def through_files():
        tt_opt.save_gguf(model, tmp_path / "a.gguf", "q4_1")
        found = tt_opt.load_gguf(tmp_path / "a.gguf")
        return tn.transformers.surprise_on(found, held_out) - tn.transformers.surprise_on(
            tt_opt.quantize_(deepcopy(model), "q4_1"), held_out
        )

    expect("the change of the loss by a GGUF file", through_files, between(-1e-6, 1e-6), see=COSTS)


def test_performance_the_bytes_of_a_model(learned):
    model, _ = learned
    sizes = {kind: tt_opt.model_bytes(tt_opt.quantize_(deepcopy(model), kind)) for kind in ("int8", "q4_1")}
    expect(
        "the bytes of a GPT as int8 and as q4_1, by those of float32",
        lambda: [sizes[kind] / tt_opt.model_bytes(model) for kind in sizes],
        lambda found: 0.25 < found[0] < 0.3 and 0.15 < found[1] < 0.2,
        see=COSTS,
    )


def test_performance_a_cache_and_small_numbers_go_together(learned):
    model, _ = learned
    small = tt_opt.quantize_(deepcopy(model), "q8_0")
    how = {"max_new_tokens": 20, "temperature": 0}
    expect(
        "does a quantized GPT write the same 20 tokens with a cache as without?",
        lambda: tt_opt.generate(small, [1, 2, 3], **how) == tn.generate(small, [1, 2, 3], **how),
        True,
        see=LAYERS,
    )
