"""What no learner is judged by: files that are damaged or do not fit, errors in words, states, and dtypes."""

import json
import random
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tt_nlp as tn
import tt_tensor as tt
from tt_autograd import fit, load_checkpoint
from tt_data import DataLoader

CONFIG = tn.GPTConfig(vocab_size=12, block_size=8, n_layer=2, n_head=2, n_embd=8)


@pytest.fixture
def model():
    tt.manual_seed(0)
    return tn.GPT(CONFIG)


@pytest.fixture
def folder(model, tmp_path):
    tn.save_gpt2(model, tmp_path)
    return tmp_path


# Errors in words


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"n_embd": 100, "n_head": 12}, "12 heads do not divide a width of 100"),
        ({"n_layer": True}, "n_layer must be an integer of at least 1, not True"),
        ({"n_layer": 0}, "n_layer must be an integer of at least 1, not 0"),
        ({"block_size": 2.5}, "block_size must be an integer of at least 1, not 2.5"),
        ({"dropout": -0.1}, "dropout must be a probability between 0 and 1, not -0.1"),
    ],
    ids=str,
)
def test_a_config_says_what_is_wrong(changes, words):
    with pytest.raises(ValueError, match=words):
        tn.GPTConfig(**changes)


@pytest.mark.parametrize(
    "ids, error, words",
    [
        (np.zeros((1, 9), int), ValueError, "9 tokens do not fit into a context of block_size 8"),
        (np.zeros(3, int), ValueError, r"not of shape \(3,\)"),
        (np.zeros((2, 0), int), ValueError, "at least one token"),
        (np.array([[1, 12]]), IndexError, "12"),
        (np.array([[-1]]), IndexError, "-1"),
        (np.zeros((1, 3)), TypeError, "float64"),
    ],
    ids=str,
)
def test_what_is_no_text_is_refused(model, ids, error, words):
    with pytest.raises(error, match=words):
        model(tt.from_numpy(ids))


@pytest.mark.parametrize(
    "how, words",
    [
        ({"prompt": []}, "at least one token"), ({"temperature": -0.5}, "-0.5"), ({"top_k": 0}, "top_k.* not 0"),
        ({"top_p": 1.1}, "top_p.* not 1.1"), ({"max_new_tokens": -1}, "-1"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_written_is_refused(model, how, words):
    with pytest.raises(ValueError, match=words):
        tn.generate(model, **({"prompt": [1], "max_new_tokens": 3} | how))


@pytest.mark.parametrize(
    "prompt",
    ["ab", ["ab"], b"ab", 5, None, [1.9], tt.tensor([1.9, 2.9]), np.array([[1.5]]), [[1, [2]]], [[1], "b"], [True]],
    ids=str,
)
def test_a_prompt_is_a_list_of_integers(model, prompt):
    with pytest.raises(TypeError, match="a prompt is (token ids|a list of integers)"):
        tn.generate(model, prompt, 1)
    with pytest.raises(TypeError, match="a prompt is (token ids|a list of integers)"):
        next(
            tn.transformers.stream_batch(
                model, prompt if isinstance(prompt, list) and prompt[0] in ([1], [1, [2]]) else [prompt], 1
            )
        )


@pytest.mark.parametrize(
    "how",
    [{"top_k": -1}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": float("nan")}, {"temperature": float("nan")},
     {"temperature": -1}],
    ids=str,
)  # fmt: skip
def test_probabilities_are_asked_for_sensibly(how):
    with pytest.raises(ValueError, match=f"{next(iter(how))} is"):
        tn.next_probabilities(np.array([1.0, 2.0]), **how)


@pytest.mark.parametrize("logits", [[np.nan, 1], [np.inf, 1], [-np.inf] * 2, [], [[1.0, 2.0]]], ids=str)
def test_logits_that_say_nothing_are_refused(logits):
    with pytest.raises(ValueError, match=r"logits are numbers \(V,\), the largest of them finite"):
        tn.next_probabilities(np.array(logits))
    assert tn.next_probabilities(np.array([-np.inf, 3])).tolist() == [0, 1]


def test_repeats_are_found_in_logits_of_integers_too():
    assert tn.transformers.without_repeats(np.array([3, -3, 3]), [0, 1], 2.0).tolist() == [1.5, -6, 3]
    assert tn.transformers.without_repeats(np.array([3.0]), [], 2.0).tolist() == [3]
    with pytest.raises(IndexError, match="token -1 has no logit: they are those of 0 to 1"):
        tn.transformers.without_repeats(np.array([1.0, 2.0]), [-1], 2.0)
    with pytest.raises(IndexError, match="index 2 is out of range"):
        tn.transformers.without_repeats(np.array([1.0, 2.0]), [2], 2.0)
    with pytest.raises(ValueError, match="penalty is a number above 0, not 0"):
        tn.transformers.without_repeats(np.array([1.0, 2.0]), [1], 0)


@pytest.mark.parametrize("size", [1.0, 300.0])
def test_rms_norm_of_float16_is_computed_in_float32(size):
    x = np.array([[-3, 3, 1, -1]], np.float16) * np.float16(size)
    wanted = x / np.sqrt((x.astype(np.float64) ** 2).mean() + 1e-6)
    found = tn.rms_norm(tt.from_numpy(x), eps=1e-6)
    assert found.dtype == tt.float16 and np.abs(found.numpy() - wanted).max() < 2e-3


def test_a_prompt_may_be_a_tensor_and_is_left_alone(model):
    assert tn.generate(model, [tt.tensor(1), np.int64(2)], 0) == [1, 2] == tn.generate(model, iter((1, 2)), 0)
    prompt = [1, 2]
    one = tn.generate(model, prompt, 3, seed=0)
    assert prompt == [1, 2] and len(one) == 5
    assert tn.generate(model, tt.tensor(prompt), 3, seed=0) == one
    assert tn.generate(model, tt.tensor([prompt]), 3, seed=0) == [one]


def test_an_unknown_token_in_a_prompt_is_an_index_error(model):
    with pytest.raises(IndexError, match="12"):
        tn.generate(model, [12], 3)


def test_rms_norm_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"RMSNorm of 4 numbers does not fit an input of shape \(2, 5\)"):
        tn.RMSNorm(4)(tt.zeros(2, 5))


def test_windows_are_of_integers():
    for ids in ([1.5, 2.5, 3.5], "abc", [[1, 2], [3, 4]]):
        with pytest.raises(TypeError, match="a text is a list of integers, not"):
            tn.Windows(list(ids), 1)
    windows = tn.Windows([1, 2, 3, 4], 2)
    for indices, error in (([], ValueError), ([0.5], TypeError), ([2], IndexError)):
        with pytest.raises(error):
            windows.batch(indices)


def test_windows(model):
    windows = tn.Windows(range(10), 4)
    x, y = windows[2]
    assert (len(windows), x.tolist(), y.tolist(), x.dtype) == (6, [2, 3, 4, 5], [3, 4, 5, 6], np.int64)
    assert [a.shape for a in windows.batch([0, 5, 5])] == [(3, 4), (3, 4)]
    with pytest.raises(ValueError, match="a window of 10 tokens and one more do not fit into a text of 10"):
        tn.Windows(range(10), 10)


# The shared weight


def test_the_shared_weight_stays_shared(model, tmp_path):
    names = [name for name, _ in model.named_parameters()]
    assert names.count("transformer.wte.weight") == 1 and "lm_head.weight" not in names
    windows = tn.Windows(np.arange(40) % 12, 8)
    optimizer = model.configure_optimizers(learning_rate=0.01)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    fit(model, tn.next_token_loss, optimizer, DataLoader(windows, 8), epochs=1, progress=False,
        checkpoint=tmp_path / "run.safetensors")  # fmt: skip
    again = tn.GPT(CONFIG)
    again.load_state_dict(load_checkpoint(tmp_path / "run.safetensors")["model"])
    for each in (model, again, model.double()):
        assert each.lm_head.weight is each.transformer.wte.weight


def test_the_file_holds_the_shared_weight_once(folder, model):
    from safetensors.numpy import load_file

    stored = load_file(folder / "model.safetensors")
    assert "lm_head.weight" not in stored and sum(a.size for a in stored.values()) == tn.parameter_count(CONFIG)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_go_through(model, dtype):
    logits = model.to(dtype)(tt.tensor([[1, 2, 3]]))
    loss = tn.next_token_loss(logits, tt.tensor([[2, 3, 4]]))
    loss.backward()
    assert logits.dtype == loss.dtype == dtype and {p.grad.dtype for p in model.parameters()} == {np.dtype(dtype)}


# Causality, for any text and place


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 11), min_size=2, max_size=8), st.data())
def test_nothing_before_a_changed_token_moves(text, data):
    tt.manual_seed(0)
    model = tn.GPT(CONFIG).double()
    place, token = data.draw(st.integers(0, len(text) - 1)), data.draw(st.integers(0, 11))
    changed = [*text[:place], token, *text[place + 1 :]]
    before, after = (model(tt.tensor([ids])).detach().numpy()[0] for ids in (text, changed))
    np.testing.assert_allclose(after[:place], before[:place], atol=1e-13)
    if token != text[place]:
        assert np.abs(after[place] - before[place]).max() > 1e-6


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=12), min_size=1, max_size=4))
def test_neighbours_never_matter(texts):
    tt.manual_seed(0)
    model = tn.GPT(CONFIG).double()
    together = tn.next_logits(model, texts)
    for row, text in zip(together, texts):
        np.testing.assert_allclose(row, tn.next_logits(model, [text])[0], atol=1e-13)


# Files


def test_files_come_back_as_they_were(folder, model):
    again = tn.load_gpt2(folder)
    assert again.config == model.config and not again.training
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(model.parameters(), again.parameters()))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no config\.json"):
        tn.load_gpt2(tmp_path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"there is no model\.safetensors"):
        tn.load_gpt2(tmp_path)


def test_damage_anywhere_is_noticed(folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    label = range(whole.index(b'"__metadata__"'), whole.index(b"sha256") + 7)
    chance = random.Random(0)
    for place in sorted({*range(40), *(chance.randrange(len(whole)) for _ in range(60)), len(whole) - 1}):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        if place not in label:  # a label that nobody knows is no damage to the weights
            with pytest.raises(ValueError, match="model.safetensors"):
                tn.load_gpt2(folder)
    for length in (0, 7, 100, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="model.safetensors"):
            tn.load_gpt2(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"vocab_size": 12}', "\xff"])
def test_a_damaged_config_is_refused(folder, content):
    (folder / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match="config.json"):
        tn.load_gpt2(folder)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"vocab_size": 13}, r"wte.weight: shape \(12, 8\) in the state, \(13, 8\)"),
        ({"n_positions": 16}, r"wpe.weight: shape \(8, 8\) in the state, \(16, 8\)"),
        ({"n_layer": 3}, "missing: transformer.h.2"), ({"n_layer": 1}, "unexpected: transformer.h.1"),
        ({"n_head": 3}, "3 heads do not divide"), ({"model_type": "gptj"}, "'gptj'"),
        ({"activation_function": "relu"}, "'relu'"), ({"layer_norm_epsilon": 1e-6}, "1e-06"), ({"n_inner": 20}, "20"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings False"), ({"n_embd": "8"}, "config.json"),
    ],
    ids=str,
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(folder, changes, words):
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(described | changes), encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        tn.load_gpt2(folder)


def test_old_files_are_read(folder, model):
    from safetensors.numpy import load_file, save_file

    stored = load_file(folder / "model.safetensors")
    old = {name.removeprefix("transformer."): array for name, array in stored.items()}
    masks = {f"h.{layer}.attn.bias": np.tri(8, dtype=np.float32)[None, None] for layer in range(2)}
    save_file(old | masks | {"lm_head.weight": stored["transformer.wte.weight"]}, folder / "model.safetensors")
    again = tn.load_gpt2(folder)
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(model.parameters(), again.parameters()))


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64"])
def test_weights_of_other_floats_become_float32_or_64(folder, model, kind):
    file, halves = folder / "model.safetensors", {}
    for name, array in tn.to_file_layout(model).items():
        halves[name] = array.astype(np.float32).view(np.uint32) >> 16 if kind == "bfloat16" else array.astype(kind)
    write(file, halves, {"bfloat16": "BF16", "float16": "F16", "float64": "F64"}[kind])
    for (name, ours), theirs in zip(tn.load_gpt2(folder).named_parameters(), model.parameters()):
        assert ours.dtype == tt.float32 and np.allclose(ours.numpy(), theirs.numpy(), rtol=2**-7, atol=1e-6), name


def test_weights_that_are_no_floats_are_refused(folder, model):
    arrays = {name: np.ones(array.shape, np.int8) for name, array in tn.to_file_layout(model).items()}
    write(folder / "model.safetensors", arrays, "I8")
    with pytest.raises(ValueError, match="has numbers of the kind I8; weights are floats"):
        tn.load_gpt2(folder)


def write(file, arrays, kind):
    """A safetensors file by hand: eight bytes of length, the table of names, then the numbers."""
    sizes = {"BF16": "<u2", "F16": "<f2", "F64": "<f8", "I8": "i1"}
    table, blocks, end = {}, [], 0
    for name, array in arrays.items():
        blocks.append(np.ascontiguousarray(array, sizes[kind]).tobytes())
        table[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [end, end + len(blocks[-1])]}
        end += len(blocks[-1])
    header = json.dumps(table).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"".join(blocks))


def test_another_last_layer_is_refused(folder):
    from safetensors.numpy import load_file, save_file

    stored = load_file(folder / "model.safetensors")
    save_file(stored | {"lm_head.weight": stored["transformer.wte.weight"] + 1}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"lm_head\.weight differs"):
        tn.load_gpt2(folder)
    save_file({"anything": np.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"no wte\.weight.*anything"):
        tn.load_gpt2(folder)


# Chance


def test_manual_seed_decides_about_a_training_bit_for_bit():
    def trained():
        tt.manual_seed(7)
        model = tn.GPT(tn.GPTConfig(12, 8, 1, 2, 8, dropout=0.2))
        tn.train_on_text(model, tn.Windows(np.arange(60) * 7 % 12, 8), 5)
        return [p.numpy().copy() for p in model.parameters()], tn.generate(model, [1], 10)

    (one, text), (other, same) = trained(), trained()
    assert all(np.array_equal(a, b) for a, b in zip(one, other)) and text == same


def test_generating_with_a_seed_leaves_chance_alone(model):
    tt.manual_seed(5)
    expected = tt.rand(3).tolist()
    tt.manual_seed(5)
    tn.generate(model, [1], 5, seed=0)
    assert tt.rand(3).tolist() == expected


def test_the_story_has_a_held_out_tenth():
    tokenizer, training, held_out = tn.transformers.load_story(32)
    assert set(string.ascii_lowercase) <= set(tokenizer.alphabet)
    assert abs(len(held_out) / (len(training) + len(held_out)) - 0.1) < 0.01
