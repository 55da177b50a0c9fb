"""Chapter 14 at work: with every earlier chapter, small real training, files, and what it costs."""

import gc
import math
import time
import tracemalloc

import numpy as np
import pytest

import tt_autograd as ta
import tt_data as td
import tt_nlp as tn
import tt_optim as to
import tt_tensor as tt
from tt_tensor.teaching import between, expect, measured_between

HURT, GPT, WRITING, COST, WITNESS, TRUNK = "The hurt", "GPT", "Writing", "The cost", "The witness", "The trunk"
FILES = "The layout"
SIZES = {"vocab_size": 30, "block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 16}


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def small(**changes):
    """A small GPT whose weights depend on nothing but their places."""
    model = tn.GPT(tn.GPTConfig(**(SIZES | changes)))
    for number, (name, parameter) in enumerate(sorted(model.named_parameters())):
        values = np.sin(np.arange(parameter.numel()) * 1.3 + number).reshape(parameter.shape) * 0.1
        parameter.copy_(values + (parameter.ndim == 1 and name.endswith("weight")))
    return model


def ids(*shape, seed=1, vocabulary=30):
    return np.random.default_rng(seed).integers(0, vocabulary, shape)


# Imports and instantiation


def test_imports_find_what_the_chapter_promises():
    names = ["next_token_loss", "Windows", "rms_norm", "RMSNorm", "GPTConfig", "CausalSelfAttention", "MLP", "Block"]
    names += ["Transformer", "GPT", "decay_groups", "next_probabilities", "next_logits", "stream_batch", "stream"]
    names += ["generate", "surprises", "GatedMLP", "without_repeats", "save_gpt2", "load_gpt2"]
    expect(
        "the names that chapter 14 lacks",
        [name for name in names if not (hasattr(tn, name) or hasattr(tn.transformers, name))],
        [],
        see="Exercises",
    )


def test_imports_give_the_names_of_gpt2():
    block = {"ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight"}
    block |= {"attn.c_proj.bias", "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight"}
    block |= {"mlp.c_proj.bias"}
    names = {"transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight", "transformer.ln_f.bias"}
    names |= {f"transformer.h.{layer}.{name}" for layer in range(2) for name in block} | {"lm_head.weight"}
    expect("names in the state of a GPT of two blocks", lambda: sorted(small().state_dict()), sorted(names), see=GPT)


# Compatibility: with losses, optimizers, autograd, data and fit


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_compatibility_with_every_optimizer(name):
    def losses():
        model, x = small(), tt.from_numpy(ids(4, 16))
        optimizer = getattr(to, name)(model.parameters(), lr=0.01)
        data = [(x, tt.from_numpy(ids(4, 16, seed=2)))]
        return ta.fit(model, tn.next_token_loss, optimizer, data, epochs=6, progress=False)["loss"]

    expect(f"do the losses of 6 steps with {name} fall?", lambda: (f := losses())[-1] < f[0], True, see=HURT)


def test_compatibility_gradients_reach_every_weight():
    def without():
        model = small()
        tn.next_token_loss(model(tt.from_numpy(ids(2, 16))), tt.from_numpy(ids(2, 16, seed=2))).backward()
        return [name for name, p in model.named_parameters() if p.grad is None or not p.grad.numpy().any()]

    expect("the parameters that get no gradient from a loss", without, [], see=GPT)


def test_compatibility_gradients_agree_with_differences():
    def furthest():
        model = small(n_embd=4, vocab_size=7, block_size=5, n_layer=1).double()
        x, y = tt.from_numpy(ids(2, 5, vocabulary=7)), tt.from_numpy(ids(2, 5, seed=2, vocabulary=7))
        tn.next_token_loss(model(x), y).backward()
        apart = 0.0
        for parameter in model.parameters():
            slope = tt.losses.slope(lambda: tn.next_token_loss(model(x), y), parameter)
            apart = max(apart, float(np.abs(parameter.grad.numpy() - np.asarray(slope)).max()))
        return apart

    expect("how far gradients are from difference quotients, over all weights", furthest, between(0, 1e-6), see=GPT)


def test_compatibility_with_resuming():
    def same():
        import tempfile
        from pathlib import Path

        def run(folder, epochs, resume):
            tt.manual_seed(3)
            model = tn.GPT(tn.GPTConfig(**SIZES, dropout=0.1))
            windows = tn.Windows(ids(300), 16)
            data = td.DataLoader(windows, 8, sampler=td.RandomSampler(windows, replacement=True, num_samples=24))
            ta.fit(model, tn.next_token_loss, model.configure_optimizers(), data, epochs=epochs, progress=False,
                   checkpoint=Path(folder) / "run.safetensors", resume=resume)  # fmt: skip
            return [p.numpy().copy() for p in model.parameters()]

        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            whole = run(one, 3, False)
            run(two, 1, False)
            return all(np.array_equal(a, b) for a, b in zip(whole, run(two, 3, True)))

    expect("are the weights of an interrupted training those of a whole one, bit for bit?", same, True, see=GPT)


def test_compatibility_shared_weight_is_updated_once():
    def moved():
        model, x = small(), tt.from_numpy(ids(2, 16))
        before = model.transformer.wte.weight.numpy().copy()
        tn.next_token_loss(model(x), x).backward()
        optimizer = model.configure_optimizers(weight_decay=0.0, learning_rate=0.01)
        optimizer.step()
        return float(np.abs(model.lm_head.weight.numpy() - before).max())

    expect("how far AdamW moves the shared weight in a first step of 0.01", moved, between(0.0099, 0.0101), see=GPT)


# Integration: causal, indifferent to neighbours, learns, writes, files


def test_integration_nothing_before_a_changed_token_moves():
    def furthest():
        model, x = small().double(), ids(2, 16)
        before, apart = model(tt.from_numpy(x)).numpy(), 0.0
        for place in range(16):
            changed = x.copy()
            changed[:, place] = (changed[:, place] + 1) % 30
            after = model(tt.from_numpy(changed)).numpy()
            apart = max(apart, float(np.abs(after[:, :place] - before[:, :place]).max(initial=0)))
            if np.abs(after[:, place:] - before[:, place:]).max() < 1e-6:
                return math.inf
        return apart

    expect("how far logits before a changed token move, at most", furthest, between(0, 1e-12), see=WITNESS)


def test_integration_neighbours_and_padding_do_not_matter():
    def furthest():
        model, x = small().double(), ids(3, 10)
        alone, together = model(tt.from_numpy(x[1:2, :7])).numpy(), model(tt.from_numpy(x)).numpy()
        return float(np.abs(together[1:2, :7] - alone).max())

    expect("how far logits move with other texts beside and tokens behind", furthest, between(0, 1e-12), see=TRUNK)


def test_integration_ignored_targets_give_no_gradient():
    def apart():
        gradients = []
        for length in (9, 14):
            model, x = small().double(), ids(2, 14)[:, :length]
            y = ids(2, 14, seed=2)[:, :length].copy()
            y[:, 9:] = -100
            tn.next_token_loss(model(tt.from_numpy(x)), tt.from_numpy(y)).backward()
            gradients.append(np.concatenate([p.grad.numpy().ravel() for p in model.parameters()]))
        return float(np.abs(gradients[0] - gradients[1]).max())

    expect("how far gradients move by five places that are ignored", apart, between(0, 1e-12), see=HURT)


def test_integration_a_gpt_learns_to_repeat():
    def surprise():
        tt.manual_seed(1)
        model = tn.GPT(tn.GPTConfig(vocab_size=8, block_size=16, n_layer=2, n_head=2, n_embd=32))
        pattern = np.tile([3, 1, 4, 1, 5, 2, 6], 40)
        tn.train_on_text(model, tn.Windows(pattern, 16), 120, rate=5e-3)
        return tn.transformers.surprises(model, pattern[:17])[-1], tn.generate(model, [3, 1, 4, 1], 10, temperature=0)

    expect(
        "what a GPT of two blocks writes after 3 1 4 1, when it has learned 3 1 4 1 5 2 6 3 1 4 1 5 2 6 ...",
        lambda: surprise()[1],
        [3, 1, 4, 1, 5, 2, 6, 3, 1, 4, 1, 5, 2, 6],
        see=WRITING,
    )
    expect("its surprise in nats at the token after a full window", lambda: surprise()[0], between(0, 0.2), see=WRITING)


def test_integration_deep_networks_learn_from_the_start():
    def fell():
        model, windows = tn.GPT(tn.GPTConfig(8, 8, 12, 2, 16)), tn.Windows(np.tile([3, 1, 4, 1, 5], 30), 8)
        tn.train_on_text(model, windows, 40, rate=1e-2)
        return tn.transformers.surprise_on(model, windows)

    expect("nats after 40 steps of a GPT of 12 blocks on 3 1 4 1 5 ...", fell, between(0, 1), see="The block")


def test_integration_files_keep_every_weight():
    def same():
        import tempfile

        model = small()
        with tempfile.TemporaryDirectory() as folder:
            tn.save_gpt2(model, folder)
            again = tn.load_gpt2(folder)
        x = tt.from_numpy(ids(2, 16))
        return bool((again(x) == model.eval()(x)).all())

    expect("does a model answer alike after save_gpt2 and load_gpt2?", same, True, see=GPT)


# Performance: what grows, grows as it should


def seconds(call, times=1):
    """The time of so many calls: the least of five."""
    measured = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(times):
            call()
        measured.append(time.perf_counter() - start)
    return min(measured)


def test_performance_time_grows_with_the_blocks():
    x = tt.zeros(4, 64).long()
    one, eight = (tn.GPT(tn.GPTConfig(30, 64, layers, 4, 64)) for layers in (1, 8))
    expect(
        "time of 8 blocks, by that of 8 times one block",
        lambda: seconds(lambda: eight(x)) / seconds(lambda: one(x), 8),
        measured_between(0, 5),
        "Eight blocks may take about eight times as long.",
        see=COST,
    )


def test_performance_many_texts_are_written_together():
    model = tn.GPT(tn.GPTConfig(30, 32, 2, 4, 32))
    prompts = [[1, 2, 3]] * 16
    expect(
        "time of 16 texts together by that of 16 texts one by one",
        lambda: seconds(lambda: tn.generate(model, prompts, 8, seed=0))
        / seconds(lambda: [tn.generate(model, prompt, 8, seed=0) for prompt in prompts]),
        measured_between(0, 0.9),
        "All texts of a round go through the network as one batch.",
        see=WRITING,
    )


def test_performance_40_steps_leave_nothing_behind():
    model, x = small(), tt.from_numpy(ids(8, 16))

    def held(steps):
        for _ in range(steps):
            tn.next_token_loss(model(x), x).backward()
            model.zero_grad()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    def left():
        tracemalloc.start()
        try:
            settled = held(40)
            return (held(40) - settled) / (8 * 16 * 16 * 4)
        finally:
            tracemalloc.stop()

    expect(
        "what 40 steps leave in memory, by the size of the stream",
        left,
        measured_between(-20, 20),
        (lambda ratio: ratio > 20, "Something is kept of each step."),
        see=COST,
    )
