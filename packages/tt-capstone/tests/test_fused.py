"""The fused pass against the plain one, on every kernel set."""

from copy import deepcopy

import numpy as np
import pytest

import tt_autograd as ta
import tt_opt
import tt_tensor as tt
from tt_capstone import Llama, LlamaConfig
from tt_capstone.fused import FusedTransformer, door_calls, fuse_
from tt_opt import KVCache, read

BEST = tt_opt.best_set()


def llama(kind="float32", layers=2, tied=True):
    tt.manual_seed(0)
    model = Llama(LlamaConfig(60, 64, layers, 4, 2, 64, 96, base=500.0, eps=1e-3, tied=tied)).eval()
    return model if kind == "float32" else tt_opt.quantize_(model, kind)


def logits(model):
    """After each token of two texts, read in a few passes."""
    one, two = KVCache.of(model), KVCache.of(model)
    parts = [
        read(model, texts, every=True)
        for texts in ([(one, [1, 2, 3, 4, 5, 6])], [(one, [7]), (two, list(range(20)))], [(two, [3]), (one, [8, 9])])
    ]
    return np.concatenate(parts)


@pytest.mark.parametrize("kernels", ["default", "fast", BEST, "loops"])
@pytest.mark.parametrize("kind", ["float32", "int8", "q8_0", "q4_1", "bfloat16"])
def test_the_same_logits(kind, kernels):
    with tt_opt.accelerate(kernels):
        model = llama(kind)
        plain = logits(model)
        assert fuse_(model) is model and isinstance(model.model, FusedTransformer)
        assert np.allclose(logits(model), plain, atol=2e-5)


def test_numbers_where_e_to_the_minus_g_overflows():
    model = llama()
    for block in model.model.layers:
        block.mlp.gate_proj.weight.copy_(block.mlp.gate_proj.weight.detach().numpy() * 1000)
    plain = logits(model)
    assert np.isfinite(plain).all() and np.allclose(logits(fuse_(model)), plain, rtol=1e-4, atol=1e-4)


def test_float64_and_a_model_without_blocks():
    model = llama().double()
    plain = logits(model)
    assert plain.dtype == np.float64 and np.allclose(logits(fuse_(model)), plain, atol=1e-12)
    model = llama(layers=0)
    plain = logits(model)
    assert np.allclose(logits(fuse_(model)), plain, atol=1e-6)


def test_layers_of_different_formats():
    """The files of some models keep the values in more bits than queries and keys."""
    model = llama()
    for block in model.model.layers:
        attention = block.self_attn
        for name, kind in (("q_proj", "q4_1"), ("k_proj", "q4_1"), ("v_proj", "q8_0")):
            setattr(attention, name, tt_opt.quantize_(tt.Sequential(getattr(attention, name)), kind)[0])
    plain = logits(model)
    assert np.allclose(logits(fuse_(model)), plain, atol=2e-5)


@pytest.mark.parametrize("kind", ["float32", "q4_1"])
def test_no_memory_is_added_and_names_stay(kind):
    model = llama(kind)
    size, state = tt_opt.model_bytes(model), {name: x.numpy().copy() for name, x in model.state_dict().items()}
    fuse_(model)
    after = model.state_dict()
    assert tt_opt.model_bytes(model) == size and list(after) == list(state)
    assert all(np.array_equal(after[name].numpy(), x) for name, x in state.items())
    if kind != "float32":
        attention = model.model.layers[0].self_attn
        bases = {id(layer.rows.numpy().base) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)}
        together = attention.q_proj.rows.numpy()
        assert np.shares_memory(together, model.model.blocks[0].looking.args[0].numpy()) and len(bases) <= 3


def test_what_is_loaded_or_learned_later_counts():
    for kind in ("float32", "q4_1"):
        model, other = fuse_(llama(kind)), llama(kind)
        ids = tt.tensor([[1, 2, 3]]).long()
        if kind == "float32":
            optimizer_step(other, ids)
        else:
            other = tt_opt.quantize_(Llama(other.config).eval(), kind)
        model.load_state_dict(other.state_dict())
        assert np.allclose(logits(model), logits(other), atol=2e-5)
    model = fuse_(llama())
    optimizer_step(model, ids)
    plain = llama()
    plain.load_state_dict(model.state_dict())
    assert not np.allclose(logits(model), logits(llama()), atol=1e-3)
    assert np.allclose(logits(model), logits(plain), atol=2e-5)


def optimizer_step(model, ids):
    model.train()
    tt.cross_entropy(model(ids)[0], tt.tensor([2, 3, 4]).long()).backward()
    with ta.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.detach().numpy() - 0.5 * parameter.grad.numpy())
    model.eval()


def test_fused_twice_and_copied():
    model = llama("q4_1")
    plain = logits(model)
    assert np.allclose(logits(fuse_(fuse_(model))), plain, atol=2e-5)
    assert np.allclose(logits(deepcopy(model)), plain, atol=2e-5)


@pytest.mark.parametrize("kernels", ["default", BEST])
def test_texts_of_a_batcher(kernels):
    prompts, plain = [[1, 2, 3], [4], list(range(30))], llama("q8_0")
    with tt_opt.accelerate(kernels):
        wanted = tt_opt.generate(plain, prompts, 12, temperature=0)
        assert tt_opt.generate(fuse_(llama("q8_0")), prompts, 12, temperature=0) == wanted
        batcher = tt_opt.Batcher(fuse_(llama("q8_0")), slots=2, piece=4)
        requests = [batcher.submit(prompt, 12, temperature=0) for prompt in prompts]
        batcher.run()
        assert [request.text for request in requests] == wanted


def test_products_pass_through_the_door():
    model = fuse_(llama("q4_1", layers=3))
    cache = KVCache.of(model)
    with tt.meter() as work:
        read(model, [(cache, [1])])
    a_block = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96
    assert work.multiply_adds["packed_product"] == 3 * a_block + 60 * 64
    calls = door_calls(lambda: read(model, [(cache, [1])]))
    assert calls["packed_product"] == 3 * 4 + 1 and calls["look_back"] == 3 and calls.total() < 20
