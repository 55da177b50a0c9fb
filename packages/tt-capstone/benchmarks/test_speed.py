"""Speed itself: a token and a prompt of a small Llama in 4 bits, plain and fused, and what stands before the model."""

from copy import deepcopy

import numpy as np
import pytest

import tt_capstone as tc
import tt_opt
import tt_tensor as tt
from tt_data import short_text

pytestmark = pytest.mark.benchmark(group="tt-capstone")

CONFIG = tc.LlamaConfig(1024, 512, n_layer=4, n_head=8, n_kv_head=2, n_embd=256, n_hidden=512)


@pytest.fixture(scope="module")
def plain():
    """A Llama whose matrices are in q4_1."""
    tt.manual_seed(0)
    return tt_opt.quantize_(tc.Llama(CONFIG).eval(), "q4_1")


@pytest.fixture(params=["fast", "compiled"])
def kernels(request):
    """The benchmark runs on this kernel set."""
    if request.param == "compiled":
        pytest.importorskip("numba", reason="the compiled kernel set needs Numba: pip install 'tt-capstone[compiled]'")
    with tt_opt.accelerate(request.param):
        yield request.param


@pytest.fixture(params=["plain", "fused"])
def model(request, plain):
    """The Llama as the chapter has it, or fused."""
    return plain if request.param == "plain" else tc.fuse_(deepcopy(plain))


def reading(model, before, new):
    """A function that reads `new` tokens after `before` others, again and again: the logits (1, V)."""
    cache, text = tt_opt.KVCache.of(model), np.random.default_rng(0).integers(0, 1024, before + new).tolist()
    if before:
        tt_opt.read(model, [(cache, text[:before])])

    def again():
        cache.keep(before)
        return tt_opt.read(model, [(cache, text[before:])])

    return again


def test_a_token_after_64(benchmark, kernels, model):
    assert benchmark(reading(model, 64, 1)).shape == (1, 1024)


def test_a_prompt_of_128_tokens(benchmark, kernels, model):
    assert benchmark(reading(model, 0, 128)).shape == (1, 1024)


@pytest.fixture(scope="module")
def chat():
    """A chat whose tokens are bytes."""
    return tc.capstone.small_chat()


def test_tokens_of_12_kilobytes(benchmark, chat):
    assert len(benchmark(chat.prompt, short_text())) > 10_000


def test_the_prompt_of_a_chat_with_8_messages(benchmark, chat):
    messages = [{"role": role, "content": "How are you today?"} for role in ("user", "assistant")] * 4
    assert len(benchmark(chat.chat_prompt, messages)) > 8 * 18
