"""The `transformers` library as the oracle: a Llama goes there and back, and means the same."""

import json

import numpy as np
import pytest

import tt_capstone as tc
import tt_tensor as tt
from tt_autograd import no_grad
from tt_capstone.llama_files import chat_form, load_llama_folder, save_llama, tokenizer_of
from tt_opt import generate

torch = pytest.importorskip("torch", reason="torch is the oracle here: hatch run parity:run")
transformers = pytest.importorskip("transformers", reason="transformers is the oracle here: hatch run parity:run")
tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is the oracle here: hatch run parity:run")

pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own
SIZES = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
}  # fmt: skip
IDS = np.random.default_rng(0).integers(0, 60, (2, 40))


def made(tied, **sizes):
    """A random model of theirs, in which the weights of norms are not all ones."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES | sizes, tie_word_embeddings=tied)
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def logits(model, ids=IDS):
    if isinstance(model, tc.Llama):
        with no_grad():
            return model(tt.from_numpy(ids)).numpy()
    with torch.no_grad():
        return model(torch.tensor(ids)).logits.float().numpy()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A model of theirs, and the folder that it was saved to."""
    model, folder = made(tied=True), tmp_path_factory.mktemp("theirs")
    model.save_pretrained(folder)
    return model, folder


@pytest.mark.parametrize("tied, sizes", [
    (True, {}), (False, {}), (True, {"num_key_value_heads": 4}), (False, {"num_key_value_heads": 1}),
    (True, {"rope_parameters": {"rope_theta": 100_000.0, "rope_type": "default"}}), (True, {"rms_norm_eps": 0.5}),
])
def test_their_weights_mean_the_same_here(tied, sizes, tmp_path):
    model = made(tied, **sizes)
    model.save_pretrained(tmp_path)
    ours = load_llama_folder(tmp_path)
    assert not ours.training and ours.config.tied == tied and ours.config.n_hidden == 48
    np.testing.assert_allclose(logits(ours), logits(model), atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_our_weights_mean_the_same_there(tied, tmp_path):
    tt.manual_seed(0)
    ours = tc.Llama(tc.LlamaConfig(60, 64, 2, 4, 2, 32, 48, base=50_000.0, eps=1e-4, tied=tied)).eval()
    for parameter in ours.parameters():
        parameter.copy_(parameter.numpy() + np.random.default_rng(1).standard_normal(parameter.shape) * 0.1)
    save_llama(ours, tmp_path)
    model, report = transformers.LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    np.testing.assert_allclose(logits(ours), logits(model.eval()), atol=1e-4)


def test_the_file_has_what_theirs_has(theirs, tmp_path):
    from safetensors.numpy import load_file

    save_llama(load_llama_folder(theirs[1]), tmp_path)
    one, other = (load_file(folder / "model.safetensors") for folder in (tmp_path, theirs[1]))
    assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_greedy_texts_are_the_same(theirs):
    expected = theirs[0].generate(torch.tensor([[3, 1, 4]]), max_new_tokens=20, do_sample=False, pad_token_id=0)
    assert generate(load_llama_folder(theirs[1]), [3, 1, 4], 20, temperature=0) == expected[0].tolist()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_numbers_of_16_bits_are_read(kind, tmp_path):
    made(tied=True).to(kind).save_pretrained(tmp_path)
    same = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    np.testing.assert_allclose(logits(load_llama_folder(tmp_path)), logits(same), atol=1e-4)


def test_several_files_are_one_model(theirs, tmp_path):
    theirs[0].save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert np.array_equal(logits(load_llama_folder(tmp_path)), logits(load_llama_folder(theirs[1])))
    index = tmp_path / "model.safetensors.index.json"
    table = json.loads(index.read_text(encoding="utf-8"))
    table["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(ValueError, match="elsewhere.*is not a .safetensors file in this folder"):
        load_llama_folder(tmp_path)


@pytest.mark.parametrize("changes, said", [
    ({"model_type": "mistral"}, "model_type 'mistral'"),
    ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
    ({"attention_bias": True}, "attention_bias True"),
    ({"mlp_bias": True}, "mlp_bias True"),
    ({"sliding_window": 4096}, "sliding_window 4096"),
    ({"head_dim": 16}, "heads of 16 numbers"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "of the kind default, linear"),
    ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "of the kind default, llama3"),
    ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "or partial"),
    ({"num_hidden_layers": 3}, "do not fit the sizes"),
    ({"num_hidden_layers": "two"}, "does not describe a Llama"),
    ({"num_key_value_heads": 3}, "must divide"),
    ({"vocab_size": 61}, "do not fit the sizes"),
    ({"tie_word_embeddings": False}, "lm_head.weight"),
])
def test_what_our_llama_does_not_know_is_refused(theirs, changes, said, tmp_path):
    described = json.loads((theirs[1] / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(described | changes), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes((theirs[1] / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=said):
        load_llama_folder(tmp_path)


def test_a_last_layer_of_its_own_is_not_a_shared_one(tmp_path):
    made(tied=False).save_pretrained(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(described | {"tie_word_embeddings": True}), encoding="utf-8")
    with pytest.raises(ValueError, match="lm_head.weight differs"):
        load_llama_folder(tmp_path)


def test_damaged_files_are_refused(theirs, tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json"):
        load_llama_folder(tmp_path)
    save_llama(load_llama_folder(theirs[1]), tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    for damaged in (weights[:-1] + b"!", weights[:1000], b""):
        (tmp_path / "model.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match="checksum|damaged"):
            load_llama_folder(tmp_path)
    (tmp_path / "config.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(ValueError, match="damaged"):
        load_llama_folder(tmp_path)


# Tokenizers


def trained(digits):
    """A tokenizer of theirs, with GPT-2's pattern, learned from a few lines."""
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = last = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<|endoftext|>", "<|im_start|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    theirs.train_from_iterator([f"In {year} the weather of the north was warmer than that of 1999." for year in
                                range(1900, 2000)], trainer)  # fmt: skip
    if digits:  # only now, so that there are tokens of several digits, which must not be found
        first = tokenizers.pre_tokenizers.Digits(individual_digits=True)
        theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([first, last])
    return theirs


TEXTS = ["the weather in 1984", " 12345 north,\n\n  was", "<|im_start|>Ünïcödé 👋 1999", "", "it's 3.14159"]


@pytest.mark.parametrize("digits", [True, False])
def test_their_tokenizer_finds_the_same_tokens(digits, tmp_path):
    theirs = trained(digits)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = tokenizer_of(tmp_path / "tokenizer.json", 340)
    for text in TEXTS:
        ids = ours.encode(text, allowed_special="all")
        assert ids == theirs.encode(text).ids
        assert ours.decode(ids) == text
    assert ours.decode([335]) == "<unused 335>", "the model may have more rows than there are tokens"


def test_a_tokenizer_of_another_kind_is_refused(tmp_path):
    theirs, file = trained(digits=False), tmp_path / "tokenizer.json"
    theirs.save(str(file))
    described = json.loads(file.read_text(encoding="utf-8"))
    backwards = described["model"] | {"merges": described["model"]["merges"][::-1]}
    for changes, said in [
        ({"normalizer": {"type": "NFC"}}, "byte pairs cut as by GPT-2"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace"),
        ({"model": described["model"] | {"type": "Unigram"}}, "byte pairs"),
        ({"model": backwards}, "order of its merges"),
        ({"model": None}, "TypeError"),
    ]:
        file.write_text(json.dumps(described | changes), encoding="utf-8")
        with pytest.raises(ValueError, match=said):
            tokenizer_of(file, 340)
    file.write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(ValueError, match="ids above 99"):
        tokenizer_of(file, 100)


def test_template_and_ends(tmp_path):
    assert chat_form(tmp_path) == (None, frozenset())
    (tmp_path / "config.json").write_text('{"eos_token_id": 7}', encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "one"}', encoding="utf-8")
    assert chat_form(tmp_path) == ("one", frozenset({7}))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 8]}', encoding="utf-8")
    (tmp_path / "chat_template.jinja").write_text("two", encoding="utf-8")
    assert chat_form(tmp_path) == ("two", frozenset({7, 8}))
