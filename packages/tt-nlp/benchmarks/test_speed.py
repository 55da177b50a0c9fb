"""Language: a tokenizer that learns, encodes and decodes, attention, and a GPT that learns and writes."""

import numpy as np
import pytest

import tt_autograd as ta
import tt_nlp as tn
import tt_tensor as tt
from tt_data import short_text
from tt_optim import AdamW

pytestmark = pytest.mark.benchmark(group="tt-nlp")


@pytest.fixture(autouse=True)
def same_numbers():
    tt.manual_seed(0)


@pytest.fixture(scope="module")
def tokenizer():
    return tn.BPETokenizer.train(short_text(), 512, progress=False)


def test_train_a_tokenizer_of_512_tokens(benchmark):
    found = benchmark(lambda: tn.BPETokenizer.train(short_text(), 512, progress=False))
    assert found.vocab_size == 512 and b" the" in found.tokens


def test_encode_12000_characters_with_a_new_tokenizer(benchmark, tokenizer):
    ids = benchmark(lambda: tn.BPETokenizer(tokenizer.tokens).encode(short_text()))
    assert ids == tokenizer.encode(short_text())


def test_encode_12000_characters_of_known_words(benchmark, tokenizer):
    ids = benchmark(tokenizer.encode, short_text())
    assert tokenizer.decode(ids) == short_text() and len(ids) < len(short_text()) / 2


def test_decode_12000_characters(benchmark, tokenizer):
    ids = tokenizer.encode(short_text())
    assert benchmark(tokenizer.decode, ids) == short_text()


def test_attention_8_texts_of_64_width_128_forward(benchmark):
    attention, x = tn.CausalSelfAttention(tn.GPTConfig(64, 64, 1, 4, 128)), tt.randn(8, 64, 128)
    with ta.no_grad():
        found = benchmark(attention, x).numpy()
        beginning = attention(x[:, :10]).numpy()
    assert np.allclose(found[:, :10], beginning, atol=1e-5)  # what comes later changes nothing before it


def gpt():
    return tn.GPT(tn.GPTConfig(vocab_size=64, block_size=64, n_layer=2, n_head=4, n_embd=64))


def test_training_step_of_a_gpt_2_blocks_width_64(benchmark):
    model, ids = gpt(), tt.randint(0, 64, (8, 65))
    optimizer = AdamW(model.parameters(), lr=1e-5)

    def step():
        loss = tn.next_token_loss(model(ids[:, :-1]), ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    first = step()
    assert first == pytest.approx(np.log(64), abs=0.1) and benchmark(step) < first


def test_16_tokens_of_a_gpt_2_blocks_width_64(benchmark):
    model, prompt = gpt().eval(), list(range(32))
    written = benchmark(tn.generate, model, prompt, 16, temperature=0)
    assert written[:32] == prompt and len(written) == 48
    assert written[-1] == tn.next_logits(model, [written[:-1]]).argmax()
