"""The `transformers` library as the oracle: GPT-2's weights go there and back, and mean the same."""

import json

import numpy as np
import pytest

import tt_nlp as tn
import tt_tensor as tt
from tt_autograd import no_grad

torch = pytest.importorskip("torch", reason="torch is the oracle here: hatch run parity:run")
transformers = pytest.importorskip("transformers", reason="transformers is the oracle here: hatch run parity:run")

pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own
SIZES = {"vocab_size": 60, "n_positions": 24, "n_embd": 32, "n_layer": 3, "n_head": 4}


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**SIZES)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms are zeros and ones at first: nothing must hide
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def logits(model, ids):
    if isinstance(model, tn.GPT):
        with no_grad():
            return model(tt.from_numpy(ids)).numpy()
    with torch.no_grad():
        return model(torch.tensor(ids)).logits.numpy()


IDS = np.random.default_rng(0).integers(0, 60, (2, 24))


def test_their_weights_mean_the_same_here(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    ours = tn.load_gpt2(tmp_path)
    assert not ours.training and ours.config == tn.GPTConfig(60, 24, 3, 4, 32, dropout=0.1)
    np.testing.assert_allclose(logits(ours, IDS), logits(theirs, IDS), atol=1e-4)


def test_our_weights_mean_the_same_there(tmp_path):
    tt.manual_seed(0)
    ours = tn.GPT(tn.GPTConfig(60, 24, 3, 4, 32)).eval()
    for parameter in ours.parameters():
        parameter.copy_(parameter.numpy() + np.random.default_rng(1).standard_normal(parameter.shape) * 0.1)
    tn.save_gpt2(ours, tmp_path)
    theirs, report = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    np.testing.assert_allclose(logits(ours, IDS), logits(theirs.eval(), IDS), atol=1e-4)


def test_the_file_has_what_theirs_has(theirs, tmp_path):
    from safetensors.numpy import load_file

    theirs.save_pretrained(tmp_path / "theirs")
    tn.save_gpt2(tn.load_gpt2(tmp_path / "theirs"), tmp_path / "ours")
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert {name: array.shape for name, array in one.items()} == {name: array.shape for name, array in other.items()}
    assert all(np.array_equal(one[name], other[name]) for name in one)
    described = json.loads((tmp_path / "ours" / "config.json").read_text(encoding="utf-8"))
    assert described["model_type"] == "gpt2"


def test_greedy_texts_are_the_same(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    prompt = [3, 1, 4]
    expected = theirs.generate(torch.tensor([prompt]), max_new_tokens=18, do_sample=False, pad_token_id=0)[0].tolist()
    assert tn.generate(tn.load_gpt2(tmp_path), prompt, 18, temperature=0) == expected


def test_weights_as_numbers_of_16_bits_are_read(theirs, tmp_path):
    half = transformers.GPT2LMHeadModel(transformers.GPT2Config(**SIZES))
    half.load_state_dict(theirs.state_dict())
    half.half().save_pretrained(tmp_path)
    np.testing.assert_allclose(logits(tn.load_gpt2(tmp_path), IDS), logits(theirs, IDS), atol=5e-2)
