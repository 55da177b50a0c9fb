"""A chat in its corners: sizes and files that lie, memory, tokens and templates of strangers, gradients, many texts."""

import dataclasses
import operator
import time
import tracemalloc

import numpy as np
import pytest

import tt_capstone as tc
import tt_nlp as tn
import tt_opt
import tt_tensor as tt
from tt_autograd import no_grad
from tt_capstone.slots import put

SIZES = {"vocab_size": 50, "block_size": 64, "n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 32, "n_hidden": 64}


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def text(length, seed=0, below=50):
    return np.random.default_rng(seed).integers(0, below, length).tolist()


def logits(model, ids):
    with no_grad():
        return model(tt.from_numpy(np.array([ids]))).numpy()[0]


# Sizes


@pytest.mark.parametrize("changes, said", [
    ({"vocab_size": 0}, "vocab_size must be at least 1, not 0"),
    ({"n_embd": -32}, "n_embd must be at least 1, not -32"),
    ({"n_layer": -1}, "0 or more blocks"),
    ({"base": 1.0}, "a base above 1"),
    ({"base": float("nan")}, "a base above 1"),
    ({"eps": 0.0}, "an eps above 0"),
    ({"n_head": 3}, "3 heads must cut the width 32 into even parts"),
    ({"n_head": 32, "n_kv_head": 32}, "even parts"),
    ({"n_kv_head": 3}, "3 heads of keys must divide them"),
    ({"n_kv_head": 8}, "8 heads of keys must divide them"),
], ids=str)  # fmt: skip
def test_sizes_that_make_no_model_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        tc.LlamaConfig(**SIZES | changes)


def test_the_smallest_models():
    for changes in ({"n_layer": 0}, {"n_head": 1, "n_kv_head": 1, "n_embd": 2}, {"vocab_size": 1}, {"n_hidden": 1}):
        config = tc.LlamaConfig(**SIZES | changes)
        model = tc.Llama(config).eval()
        ids = text(5, below=config.vocab_size)
        cache = tt_opt.KVCache.of(model)
        assert np.allclose(tt_opt.read(model, [(cache, ids)], every=True), logits(model, ids), atol=1e-5)
        assert tc.llama_parameters(config) == sum(p.numel() for p in model.parameters())


# The model


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_agree_with_finite_differences(tied):
    model = tc.Llama(tc.LlamaConfig(7, 8, 1, 2, 1, 4, 3, tied=tied)).double()
    ids, targets = tt.tensor([[1, 2, 3, 4], [6, 0, 6, 5]]), tt.tensor([2, 3, 4, 1, 0, 6, 5, 6])
    for parameter in model.parameters():
        parameter.copy_(parameter.numpy() + np.random.default_rng(1).standard_normal(parameter.shape) * 0.3)
    parameters = list(model.parameters())
    assert len(parameters) == 11 + (not tied)

    def loss(*values):
        return tt.cross_entropy(model(ids).flatten(0, 1), targets)

    loss().backward()
    for parameter in parameters:
        found, start = parameter.grad.numpy().ravel(), parameter.numpy().copy()
        for place in np.random.default_rng(0).permutation(found.size)[:12]:
            sides = []
            for step in (1e-5, -1e-5):
                moved = start.copy()
                moved.ravel()[place] += step
                parameter.copy_(moved)
                sides.append(loss().item())
            parameter.copy_(start)
            assert abs((sides[0] - sides[1]) / 2e-5 - found[place]) < 1e-7


def test_a_tied_model_has_one_table():
    model = tc.capstone.small_llama()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert len(list(model.parameters())) == 2 * 9 + 2
    names = model.state_dict().keys()
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.layers.1.mlp.gate_proj.weight"} <= names


def test_a_position_sees_nothing_behind_it():
    model, ids = tc.capstone.small_llama(), text(20)
    before = logits(model, ids)
    after = logits(model, [*ids[:12], *text(8, seed=1)])
    assert np.allclose(after[:12], before[:12], atol=1e-6) and np.abs(after[12:] - before[12:]).max() > 1e-3


@pytest.mark.parametrize("kind", ["float32", "q8_0"])
def test_texts_of_a_batcher_are_those_alone(kind):
    model = tc.capstone.small_llama()
    if kind != "float32":
        tt_opt.quantize_(model, kind)
    prompts = [text(length, seed=length) for length in (1, 13, 3, 30, 7)]
    batcher, requests = tt_opt.Batcher(model, slots=2, piece=5), []
    for number, prompt in enumerate(prompts):
        requests.append(batcher.submit(prompt, 12, temperature=0.8, top_p=0.9, seed=(number, 0)))
        batcher.step()
    batcher.run()
    alone = [tt_opt.generate(model, prompt, 12, temperature=0.8, top_p=0.9, seed=n) for n, prompt in enumerate(prompts)]
    assert [request.text for request in requests] == alone


def test_a_text_outgrows_the_context():
    model = tc.capstone.small_llama()
    found = tt_opt.generate(model, text(60), 10, temperature=0)
    assert found == tn.generate(model, text(60), 10, temperature=0) and len(found) == 70


# Files


def entries(model, **changes):
    """The metadata of a tokenizer with a token for each number of the model, the last of which is special."""
    names = [*map(tn.printed, tn.tokenization.BYTES), "<end>"]
    wanted = {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.eos_token_id": 256,
        "tokenizer.ggml.tokens": names, "tokenizer.ggml.token_type": [1] * 256 + [3],
        "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}<end>{% endfor %}",
    } | {f"tokenizer.{name}": value for name, value in changes.items()}  # fmt: skip
    return {name: value for name, value in wanted.items() if value is not None}


@pytest.fixture
def small():
    return tc.capstone.small_llama(257)


@pytest.fixture
def written(small, tmp_path):
    """Writes a file with changes to its metadata and tensors (None removes one), and gives its path."""
    file = tmp_path / "small.gguf"

    def write(metadata=(), tensors=(), model=small, kind="q8_0"):
        tc.save_llama_gguf(model, file, kind, **entries(model))
        there, arrays = tt_opt.read_gguf(file)
        there, arrays = there | dict(metadata), {name: copied(tensor) for name, tensor in arrays.items()}
        arrays |= dict(tensors)
        tt_opt.write_gguf(
            file,
            {name: value for name, value in there.items() if value is not None},
            {name: tensor for name, tensor in arrays.items() if tensor is not None},
        )
        return file

    return write


def copied(tensor):
    """A tensor that does not need its file any more."""
    return tensor._replace(data=np.array(tensor.data))


def test_a_file_there_and_back(written, small):
    chat = tc.load_language_model(written(kind="float32"))
    assert chat.name == "small" and chat.stop == {256} and not chat.model.training
    assert dataclasses.replace(chat.model.config, eps=1e-5) == small.config
    assert np.array_equal(logits(chat.model, text(9)), logits(small, text(9)))
    assert chat.chat_prompt([{"role": "user", "content": "Hi"}]) == [*b"Hi", 256]
    state, wanted = chat.model.state_dict(), small.state_dict()
    assert state.keys() == wanted.keys() and all(np.array_equal(state[n].numpy(), wanted[n].numpy()) for n in state)


def with_zeros(*shape):
    return tt_opt.packed_tensor(np.zeros(shape, np.float32), "q8_0" if len(shape) > 1 else "float32")


@pytest.mark.parametrize("tensors, said", [
    ({"blk.1.attn_k.weight": None}, r"gguf: the weight of self_attn.k_proj is missing, but must have shape \(16, 32\)"),
    ({"blk.0.ffn_norm.weight": None}, "the weight of post_attention_layernorm is missing"),
    ({"output_norm.weight": None}, r"the weight of model.norm is missing, but must have shape \(32,\)"),
    ({"token_embd.weight": None}, "does not describe a Llama: 'token_embd.weight'"),
    ({"blk.0.attn_q.weight": with_zeros(16, 32)}, r"q_proj is of shape \(16, 32\), but must .* \(32, 32\)"),
    ({"blk.0.ffn_down.weight": with_zeros(64, 32)}, r"mlp.down_proj is of shape \(64, 32\), but must .* \(32, 64\)"),
    ({"blk.0.attn_norm.weight": with_zeros(1, 32)}, r"input_layernorm is of shape \(1, 32\), but must .* \(32,\)"),
    ({"token_embd.weight": with_zeros(257, 64)}, r"embed_tokens is of shape \(257, 64\), but must .* \(257, 32\)"),
    ({"token_embd.weight": with_zeros(257)}, r"model.embed_tokens is of shape \(257,\)"),
    ({"output.weight": with_zeros(256, 32)}, r"lm_head is of shape \(256, 32\), but must .* \(257, 32\)"),
    ({"blk.0.attn_q.bias": with_zeros(32)}, "no place, such as blk.0.attn_q.bias"),
    ({"rope_freqs.weight": with_zeros(4)}, "no place, such as rope_freqs.weight"),
    ({"blk.2.attn_norm.weight": with_zeros(32)}, "no place, such as blk.2.attn_norm.weight"),
], ids=lambda value: " ".join(value) if isinstance(value, dict) else "")  # fmt: skip
def test_tensors_that_do_not_fit_are_refused(written, tensors, said):
    with pytest.raises(ValueError, match=said):
        tc.load_llama(written(tensors=tensors))


@pytest.mark.parametrize("metadata, said", [
    ({"general.architecture": "qwen2"}, "the architecture 'qwen2', but only 'llama' can be read"),
    ({"general.architecture": None}, "the architecture None"),
    ({"llama.block_count": None}, "does not describe a Llama: 'llama.block_count'"),
    ({"llama.block_count": 2.0}, "does not describe a Llama"),
    ({"llama.block_count": [2, 2]}, "does not describe a Llama"),
    ({"llama.block_count": "2"}, "does not describe a Llama"),
    ({"llama.block_count": 3}, "self_attn.q_proj|input_layernorm is missing"),
    ({"llama.block_count": 1}, "no place, such as blk.1"),
    ({"llama.block_count": 2**31}, "numbers are not enough for LlamaConfig"),
    ({"llama.feed_forward_length": 2**31}, "numbers are not enough for LlamaConfig"),
    ({"llama.embedding_length": 2**31}, "numbers are not enough for LlamaConfig"),
    ({"llama.attention.head_count": 0}, "n_head must be at least 1"),
    ({"llama.attention.head_count": 2, "llama.rope.dimension_count": None}, "k_proj is of shape"),
    ({"llama.attention.head_count_kv": 3}, "must divide"),
    ({"llama.attention.layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon"),
    ({"llama.attention.layer_norm_rms_epsilon": -1.0}, "an eps above 0"),
    ({"llama.rope.freq_base": "much"}, "does not describe a Llama"),
    ({"llama.rope.freq_base": float("nan")}, "a base above 1"),
    ({"llama.rope.dimension_count": 4}, "its positions turn 4 numbers of a head"),
    ({"llama.rope.scaling.type": "yarn"}, "the scaling 'yarn'"),
], ids=str)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(written, metadata, said):
    file = written(metadata)
    tracemalloc.start()
    with pytest.raises(ValueError, match=said):
        tc.load_llama(file)
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()


@pytest.mark.parametrize("metadata, said", [
    ({"tokenizer.ggml.tokens": None}, r"small\.gguf has no tokenizer that we can read: 'tokenizer.ggml.tokens'"),
    ({"tokenizer.ggml.token_type": None}, "'tokenizer.ggml.token_type'"),
    ({"tokenizer.ggml.eos_token_id": None}, "'tokenizer.ggml.eos_token_id'"),
    ({"tokenizer.ggml.model": "llama"}, "257 tokens of a model 'llama'"),
    ({"tokenizer.ggml.pre": "qwen2"}, "'qwen2'"),
    ({"tokenizer.ggml.tokens": ["a", "b"]}, "2 tokens of a model 'gpt2' for a vocabulary of 257"),
    ({"tokenizer.ggml.token_type": [1] * 256}, "257 tokens"),
    ({"tokenizer.ggml.tokens": ["a", "b"], "tokenizer.ggml.token_type": [1, 1]}, "for a vocabulary of 257"),
    ({"tokenizer.ggml.tokens": ["a"] * 257}, "different"),
    ({"tokenizer.ggml.tokens": ["\u4e00"] * 257}, "represents no byte"),
    ({"tokenizer.ggml.tokens": list(range(257))}, "no tokenizer"),
    ({"tokenizer.ggml.token_type": 3}, "no tokenizer"),
    ({"tokenizer.ggml.eos_token_id": [1, 2]}, "no tokenizer"),
], ids=lambda value: str(value)[:50])  # fmt: skip
def test_tokenizers_that_do_not_fit_are_refused(written, metadata, said):
    with pytest.raises(ValueError, match=said):
        tc.load_language_model(written(metadata))


def test_a_file_may_lack_template_and_pattern(written):
    chat = tc.load_language_model(written({"tokenizer.chat_template": None, "tokenizer.ggml.pre": None}))
    assert chat.template is None and chat.tokenizer.pattern == "gpt2"
    assert chat.chat_prompt([{"role": "user", "content": "Hi"}]) == [*b"Hi\n"]


def test_what_ends_an_answer(written):
    names = [*map(tn.printed, tn.tokenization.BYTES[:255]), "<|im_end|>", "<|endoftext|>"]
    special = {"tokenizer.ggml.tokens": names, "tokenizer.ggml.token_type": [1] * 255 + [3, 3]}
    assert tc.load_language_model(written({**special, "tokenizer.ggml.eos_token_id": 7})).stop == {7, 255, 256}


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "q8_0", "q4_0", "q4_1"])
def test_matrices_stay_packed(written, small, kind):
    model = tc.load_llama(written(kind=kind))
    layers = dict(model.named_modules(remove_duplicate=False))
    packed = [name for name, layer in layers.items() if isinstance(layer, tt_opt.Quantized)]
    assert len(packed) == 2 * 7 + 2 and {layers[name].kind for name in packed} == {kind}
    assert all(parameter.ndim == 1 for parameter in model.parameters())
    again = tt_opt.quantize_(tc.capstone.small_llama(257), kind)
    again.load_state_dict(model.state_dict())
    assert np.array_equal(logits(model, text(9)), logits(again, text(9)))
    wanted = logits(small, text(9))
    assert np.abs(logits(model, text(9)) - wanted).max() / np.abs(wanted).max() < (0.5 if "q4" in kind else 0.05)


def test_packed_rows_are_shared_like_a_table(written):
    model = tc.load_llama(written())
    assert model.lm_head.rows is model.model.embed_tokens.rows
    assert (type(model.lm_head), type(model.model.embed_tokens)) == (tt_opt.QuantizedLinear, tt_opt.QuantizedEmbedding)
    assert model.lm_head.out_features == model.model.embed_tokens.num_embeddings == 257
    own = tc.load_llama(written(model=tc.capstone.small_llama(257, tied=False)))
    assert own.lm_head.rows is not own.model.embed_tokens.rows
    assert tt_opt.model_bytes(own) - tt_opt.model_bytes(model) == 257 * 34
    plain = tc.load_llama(written(kind="float32"))
    assert plain.lm_head.weight is plain.model.embed_tokens.weight


def test_matrices_of_several_formats(written, small):
    rows = small.model.layers[0].mlp.up_proj.weight.numpy()
    tensors = {"blk.0.ffn_up.weight": tt_opt.packed_tensor(rows, "float32"), "blk.1.ffn_up.weight": with_zeros(64, 32)}
    model = tc.load_llama(written(tensors=tensors))
    kinds = [getattr(block.mlp.up_proj, "kind", "float32") for block in model.model.layers]
    assert kinds == ["float32", "q8_0"] and np.isfinite(logits(model, text(5))).all()


def test_loading_holds_no_float32_matrix(tmp_path):
    model = tc.Llama(tc.LlamaConfig(3000, 64, 4, 4, 2, 256, 512))
    tc.save_llama_gguf(model, file := tmp_path / "large.gguf", "q4_1")
    float32, block = 4 * tc.llama_parameters(model.config), 4 * (256 * 256 * 3 + 3 * 256 * 512)
    tracemalloc.start()
    found = tc.load_llama(file)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    packed = tt_opt.model_bytes(found)
    assert packed < 0.16 * float32 and held < 1.1 * packed + 1e5
    assert peak < packed + 2.2 * block + 1e5 < 0.6 * float32  # a block to copy from, and its copy


@pytest.mark.parametrize("kind", ["float32", "float16", "q8_0"])
def test_a_file_that_was_read_may_go_away(written, kind):
    file = written(kind=kind)
    model = tc.load_llama(file)
    wanted = logits(model, text(5))
    file.write_bytes(bytes(file.stat().st_size))
    assert np.array_equal(logits(model, text(5)), wanted)


def test_put_names_what_it_needs():
    model = tc.capstone.small_llama()
    with pytest.raises(ValueError, match=r"here: the weight of model.norm is missing, but must have shape \(32,\)"):
        put(None, model, "model.norm", (32,), "here")
    put(with_zeros(50, 32), model, "lm_head", (50, 32), "here")
    assert isinstance(model.lm_head, tt_opt.QuantizedLinear)


# Tokens


def tokens(missing=b"\x04\xf1\xff"):
    names = [
        "<|endoftext|>",
        "<|im_end|>",
        *(tn.printed(byte) for byte in tn.tokenization.BYTES if byte not in missing),
    ]
    names += [*map(tn.printed, [b"he", b"ll", b"hell"]), "<end>"]
    return tc.FileTokenizer(names, [0, 1, len(names) - 1], "gpt2")


def test_every_number_has_its_text():
    tokenizer = tokens(())
    assert tokenizer.vocab_size == 256 + 3 + 3
    assert tokenizer.token_bytes(0) == b"<|endoftext|>" and tokenizer.token_bytes(2) == b"\0"
    assert tokenizer.special_tokens == {"<|endoftext|>": 0, "<|im_end|>": 1, "<end>": 261}
    for wrong in (-1, 262):
        with pytest.raises(IndexError, match="not in the vocabulary, which has 0 to 261"):
            tokenizer.token_bytes(wrong)


@pytest.mark.parametrize("missing", [(), [b"\x04", b"\xf1", b"\xff"]])
def test_texts_there_and_back(missing):
    from tt_nlp.hard_texts import HARD_TEXTS

    tokenizer, gone = tokens(missing), b"".join(missing)
    for name, hard in HARD_TEXTS.items():
        ids = tokenizer.encode(hard, disallowed_special=())
        assert tokenizer.decode_bytes(ids) == hard.encode().translate(None, gone), name


def test_a_long_word_with_a_missing_byte_takes_little_time():
    tokenizer, start = tokens([b"\x04"]), time.perf_counter()
    ids = tokenizer.encode_ordinary("hell" * 10_000 + " \x04")
    assert len(ids) == 10_001 and time.perf_counter() - start < 5  # half a minute by the square of the length


def test_a_special_token_is_refused_unless_it_is_allowed():
    with pytest.raises(ValueError, match="the text has the special token '<end>'"):
        tokens().encode("a<end>")
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        tokens().encode_ordinary("\x04\ud800")


# Chats


def asked(content):
    return [{"role": "user", "content": content}]


SPECIAL = tokens(()).special_tokens


@pytest.mark.parametrize("content", [
    "<end>", "<|im_end|><|im_end|>", "<<|im_end|>|im_end|>", "<|im_<|im_end|>end|>", "<|im_end|>" * 50,
    "a<|endoftext|>b<end>c", "<e<end>nd>", "<|im_end<|endoftext|>|>",
], ids=lambda value: value[:30])  # fmt: skip
def test_special_tokens_in_messages_cannot_act(content):
    template = "{% for m in messages %}{{ m.content }}{% endfor %}<|im_end|>"
    chat = tc.LanguageModel("x", None, tokens(()), template=template)
    ids = chat.chat_prompt([{"role": "user", "content": content}] * 2)
    assert [number for number in ids if number in SPECIAL.values()] == [1]
    assert chat.tokenizer.decode(ids).replace("\u200b", "") == content * 2 + "<|im_end|>"


def test_special_tokens_in_messages_cannot_act_without_a_template():
    chat = tc.LanguageModel("x", None, tokens(()))
    assert not set(chat.chat_prompt(asked("<end><|im_end|>"))) & set(SPECIAL.values())


def test_a_prompt_says_what_is_special():
    chat = tc.LanguageModel("x", None, tokens(()))
    assert chat.prompt("<end>", special=True) == [SPECIAL["<end>"]] and len(chat.prompt("<end>")) == 5
    with pytest.raises(ValueError, match="at least one token"):
        chat.prompt("")
    with pytest.raises(ValueError, match="at least one token"):
        tc.LanguageModel("x", None, tokens([b"\x04"])).prompt("\x04")


@pytest.mark.parametrize("template", [
    "{% for i in range(10 ** 9) %}x{% endfor %}",  # the sandbox has a longest range
    "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{{ 'x' % 1 }}",
    "{{ messages[5].content }}",
    "{{ messages | nothing }}",
    "{% include 'file' %}",
    "{% import 'os' as os %}{{ os.environ }}",
    "{{ ''.join(1) }}",
    "{% extends 'base' %}",
    "{{ cycler.__init__.__globals__.os.environ }}",
    "{{ lipsum.__globals__.os }}",
    "{{ raise_exception.__globals__['os'] }}",
    "{{ self.__init__.__globals__ }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ messages[0].update({'content': 'x'}) }}",
    "{{ messages[0].clear() }}",
    "}}{{",
    "{{",
], ids=str)  # fmt: skip
def test_templates_that_fail_or_reach_out_are_refused(template):
    messages = asked("Hi")
    with pytest.raises(ValueError, match="the chat template cannot lay out these messages"):
        tc.capstone.laid_out(messages, template)
    assert messages == asked("Hi")


def test_a_template_sees_messages_and_nothing_else():
    for name in ("environment", "os", "open", "LanguageModel", "__builtins__", "np"):
        assert tc.capstone.laid_out(asked("Hi"), f"{{{{ {name} is defined }}}}") == "False"


def test_messages_may_come_in_any_sequence():
    template = "{{ messages | length }}{{ messages[-1].content }}{{ messages[:1] | length }}"
    assert tc.capstone.laid_out(tuple(asked("Hi") * 3), template) == "3Hi1"


def test_a_chat_that_cannot_be_read_stays_as_it_was():
    chat = dataclasses.replace(tc.capstone.small_chat(), template="{{ 1 / 0 }}")
    cache = tt_opt.KVCache.of(chat.model)
    with pytest.raises(ValueError, match="division by zero"):
        chat.answer(asked("Hi"), cache=cache)
    assert len(cache) == 0


def test_a_turn_finds_the_last_one_in_the_cache():
    chat = tc.capstone.small_chat()
    cache, messages = tt_opt.KVCache.of(chat.model), asked("Hi")
    answer = "".join(chat.answer(messages, 5, cache=cache, temperature=0))
    first = chat.chat_prompt(messages)
    assert cache.tokens[: len(first)] == first
    messages += [{"role": "assistant", "content": answer}, *asked("And?")]
    with tt.meter() as work:
        next(chat.answer(messages, 5, cache=cache, temperature=0), None)
    alone = "".join(chat.answer(messages, 5, temperature=0))
    assert "".join(chat.answer(messages, 5, cache=cache, temperature=0)) == alone and work.calls["look_back"] > 0


def test_an_answer_that_was_broken_off_leaves_a_cache_of_use():
    chat = dataclasses.replace(tc.capstone.small_chat(), stop=frozenset())
    cache = tt_opt.KVCache.of(chat.model)
    pieces = chat.answer(asked("Hi"), 20, cache=cache, temperature=0)
    assert next(pieces)
    pieces.close()
    prompt = chat.chat_prompt(asked("Hi"))
    assert cache.tokens[: len(prompt)] == prompt
    again = "".join(chat.answer(asked("Hi"), 20, cache=cache, temperature=0))
    assert again == "".join(chat.answer(asked("Hi"), 20, temperature=0))


@pytest.mark.parametrize("how", [{"temperature": -1}, {"top_p": 0.0}, {"top_k": 0}, {"nothing": 1}], ids=str)
def test_settings_that_make_no_sense_are_refused(how):
    with pytest.raises((ValueError, TypeError)):
        list(tc.capstone.small_chat().answer(asked("Hi"), 5, **how))


# Costs and exercises


def test_bytes_of_a_token_are_those_of_arrays():
    for kind in ("float32", "q4_1"):
        for tied in (True, False):
            model = tc.capstone.small_llama(tied=tied)
            if kind != "float32":
                tt_opt.quantize_(model, kind)
            cache = tt_opt.KVCache.of(model)
            tt_opt.read(model, [(cache, text(10))])
            held = sum(part[:, :10].nbytes for part in (cache.keys, cache.values))
            table = model.model.embed_tokens
            row = operator.attrgetter("weight" if kind == "float32" else "rows")(table)
            unused = 0 if tied else row.nbytes * 49 // 50
            assert tc.bytes_of_a_token(model, 10) == tt_opt.model_bytes(model) + held - unused


def test_recent_never_drops_what_fits():
    chat = tc.capstone.small_chat()
    for count in range(1, 7):
        messages = [{"role": "user", "content": "x" * (3 * number)} for number in range(count)]
        for room in (1, 10, 30):
            try:
                kept = tc.capstone.recent(chat, messages, room)
            except ValueError:
                assert len(chat.chat_prompt(messages[-1:])) + room > 64
                continue
            assert messages[-len(kept) :] == kept and len(chat.chat_prompt(kept)) + room <= 64
            if len(kept) < count:
                assert len(chat.chat_prompt(messages[-len(kept) - 1 :])) + room > 64


def test_answers_of_large_logits():
    chat = tc.capstone.small_chat()
    chat.model.model.norm.weight.copy_(chat.model.model.norm.weight.numpy() * 1e4)
    assert tc.capstone.least_surprising(chat, asked("Hi"), ["a", "bc"]) in (0, 1)
    with pytest.raises(ValueError, match="at least one token"):
        tc.capstone.least_surprising(chat, asked("Hi"), ["a", ""])
