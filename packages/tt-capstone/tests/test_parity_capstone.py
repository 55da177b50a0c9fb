"""The world's programs as oracles: `transformers` for logits, gradients and templates, `tokenizers` for tokens.

What needs the real weights takes their folder from TT_WEIGHTS."""

import os
import random
from pathlib import Path

import numpy as np
import pytest

import tt_capstone as tc
import tt_opt
import tt_tensor as tt
from tt_autograd import no_grad
from tt_nlp.hard_texts import HARD_TEXTS

torch = pytest.importorskip("torch", reason="torch is the oracle here: hatch run parity:run")
transformers = pytest.importorskip("transformers", reason="transformers is the oracle here: hatch run parity:run")
tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is the oracle here: hatch run parity:run")

pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own
WEIGHTS = Path(os.environ.get("TT_WEIGHTS", "nowhere"), tc.SMOLLM2_FILE)
needs_weights = pytest.mark.skipif(not WEIGHTS.exists(), reason=f"TT_WEIGHTS names no folder with {tc.SMOLLM2_FILE}")
IDS = np.random.default_rng(0).integers(0, 60, (3, 30))


def theirs_of(config, matrices):
    """A model of `transformers` with the sizes and the weights of ours, pairs of name and array; rotary rows are put
    into its order."""
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=config.vocab_size, hidden_size=config.n_embd, intermediate_size=config.n_hidden,
        num_hidden_layers=config.n_layer, num_attention_heads=config.n_head, num_key_value_heads=config.n_kv_head,
        max_position_embeddings=config.block_size, rms_norm_eps=config.eps, tie_word_embeddings=config.tied,
        rope_parameters={"rope_type": "default", "rope_theta": config.base}, attn_implementation="eager",
    ))  # fmt: skip
    state, seen = made.state_dict(), set()
    for name, array in matrices:
        heads = {"q_proj": config.n_head, "k_proj": config.n_kv_head}.get(name.split(".")[-2])
        state[name].copy_(torch.tensor(tc.capstone.halves(array, heads) if heads else array))
        seen.add(name)
    assert seen == state.keys()
    return made.eval()


def ours_of(**sizes):
    """A small Llama of ours in float64, no part of which is 0 or 1, and the same model of theirs."""
    tt.manual_seed(0)
    shape = {"vocab_size": 60, "block_size": 64, "n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 32}
    ours = tc.Llama(tc.LlamaConfig(**shape | {"n_hidden": 48} | sizes)).double().eval()
    for parameter in ours.parameters():
        parameter.copy_(parameter.numpy() + np.random.default_rng(1).standard_normal(parameter.shape) * 0.1)
    matrices = [(name, tensor.numpy()) for name, tensor in ours.state_dict().items()]
    return ours, theirs_of(ours.config, matrices).double()


KINDS = [
    {"tied": True}, {"tied": False}, {"n_kv_head": 4, "base": 100_000.0}, {"n_kv_head": 1, "eps": 1e-3, "tied": False},
    {"n_layer": 0}, {"n_head": 2, "n_kv_head": 2, "n_hidden": 7},
]  # fmt: skip


@pytest.mark.parametrize("sizes", KINDS, ids=str)
def test_logits_are_the_same(sizes):
    ours, theirs = ours_of(**sizes)
    with no_grad(), torch.no_grad():
        wanted = theirs(torch.from_numpy(IDS)).logits.numpy()
        np.testing.assert_allclose(ours(tt.from_numpy(IDS)).numpy(), wanted, atol=1e-5)  # their norms are in float32
        ours.to(tt.float32)
        np.testing.assert_allclose(ours(tt.from_numpy(IDS)).numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("sizes", KINDS[:4], ids=str)
def test_gradients_are_the_same(sizes):
    ours, theirs = ours_of(**sizes)
    targets = np.roll(IDS, -1, axis=1)
    ours.train()
    tt.cross_entropy(ours(tt.from_numpy(IDS)).flatten(0, 1), tt.from_numpy(targets.ravel())).backward()
    logits = theirs(torch.from_numpy(IDS)).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets.ravel())).backward()
    wanted = dict(theirs.named_parameters())
    found = dict(ours.named_parameters())
    assert found.keys() == wanted.keys()
    for name, parameter in found.items():
        heads = {"q_proj": ours.config.n_head, "k_proj": ours.config.n_kv_head}.get(name.split(".")[-2])
        gradient = wanted[name].grad.numpy()
        gradient = tc.capstone.neighbours(gradient, heads) if heads else gradient
        np.testing.assert_allclose(parameter.grad.numpy(), gradient, rtol=1e-5, atol=1e-6, err_msg=name)


def test_reading_with_a_cache_is_the_same():
    ours, theirs = ours_of(tied=False)
    ours.to(tt.float32)
    caches = [tt_opt.KVCache.of(ours) for _ in IDS]
    tt_opt.read(ours, [(cache, text[:length]) for cache, text, length in zip(caches, IDS, (5, 1, 17))])
    found = tt_opt.read(ours, [(cache, text[len(cache) :]) for cache, text in zip(caches, IDS)])
    with torch.no_grad():
        np.testing.assert_allclose(found, theirs(torch.from_numpy(IDS)).logits[:, -1].numpy(), atol=1e-4)


# The real file


@pytest.fixture(scope="module")
def metadata():
    return tt_opt.read_gguf(WEIGHTS)[0]


@pytest.fixture(scope="module")
def their_tokenizer(metadata):
    """Their byte-level BPE with the vocabulary and the merges of the file."""
    names = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ")) for pair in metadata["tokenizer.ggml.merges"]]
    found = tokenizers.Tokenizer(tokenizers.models.BPE({name: n for n, name in enumerate(names)}, merges))
    digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
    parts = [digits, tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)]
    found.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(parts)
    found.decoder = tokenizers.decoders.ByteLevel()
    kinds = metadata["tokenizer.ggml.token_type"]
    found.add_special_tokens([name for name, kind in zip(names, kinds) if kind == 3])
    return found


@pytest.fixture(scope="module")
def our_tokenizer(metadata):
    special = np.flatnonzero(np.asarray(metadata["tokenizer.ggml.token_type"]) != 1).tolist()
    return tc.FileTokenizer(metadata["tokenizer.ggml.tokens"], special, "smollm")


def random_texts(count):
    """Short texts of letters, signs, white space, special tokens, and characters that some tokens or bytes lack."""
    draw = random.Random(0)
    letters = [*map(chr, range(32, 127)), "\n", "  ", " ", "\t", "é", "😀", "12", "½", "Ⅷ", "中", "\u2003", "'s", "'ll"]
    letters += ["\x04", "\x06", "\U000f0000", "\U0010ffff", "e\u0301", "<|im_end|>", "<|im_start|>", "the", " of"]
    return ["".join(draw.choices(letters, k=draw.randint(1, 80))) for _ in range(count)]


def same(texts, ours, theirs):
    wanted = [theirs.encode(text).ids for text in texts]
    found = [ours.encode(text, allowed_special="all") for text in texts]
    assert [text for text, a, b in zip(texts, found, wanted) if a != b] == []
    decoded = [theirs.decode(ids, skip_special_tokens=False) for ids in wanted]
    assert [text for text, ids, b in zip(texts, found, decoded) if ours.decode(ids) != b] == []


@needs_weights
def test_tokens_of_hard_texts_are_the_same(our_tokenizer, their_tokenizer):
    assert len(HARD_TEXTS) == 28
    same(list(HARD_TEXTS.values()), our_tokenizer, their_tokenizer)


@needs_weights
def test_tokens_of_random_texts_are_the_same(our_tokenizer, their_tokenizer):
    same(random_texts(1000), our_tokenizer, their_tokenizer)


@needs_weights
@pytest.mark.slow
def test_logits_of_smollm2_are_the_same():
    text = "The history of bread is long. " * 40
    chat = tc.load_language_model(WEIGHTS)
    ids = chat.prompt(text)[:200]
    assert len(ids) == 200
    with no_grad():
        found = chat.model(tt.from_numpy(np.array([ids]))).numpy()[0]
    modules = chat.model.named_modules(remove_duplicate=False)
    unpacked = ((f"{name}.weight", module.weight.numpy()) for name, module in modules if hasattr(module, "weight"))
    theirs = theirs_of(chat.model.config, unpacked)
    with torch.no_grad():
        wanted = theirs(torch.tensor([ids])).logits[0].numpy()
    assert np.abs(found - wanted).max() < 1e-3
    cache = tt_opt.KVCache.of(chat.model)
    logits = [tt_opt.read(chat.model, [(cache, ids[a:b])], every=True) for a, b in ((0, 120), (120, 121), (121, 200))]
    assert np.abs(np.concatenate(logits) - wanted).max() < 1e-3
    assert (found.argmax(-1) == wanted.argmax(-1)).all()


# Templates

TEMPLATES = {
    "a loop": "{% for m in messages %}\n    {{ '<' + m['role'] + '>' + m['content'] }}\n{% endfor %}\n{% if "
              "add_generation_prompt %}\n<assistant>\n{% endif %}",
    "white space": "  {%- for m in messages -%}\n  {{- m.role -}} : {{ m.content | trim }}\n\n{% endfor -%}   \n end ",
    "the first one": "{% if messages[0]['role'] == 'system' %}\n{% set told = messages[0]['content'] %}\n{% set rest = "
                     "messages[1:] %}\n{% else %}\n{% set told = 'none' %}\n{% set rest = messages %}\n{% endif %}\n"
                     "{{ told }}|{% for m in rest %}{{ loop.index0 }}{{ m.content }}{% endfor %}",
    "what is not there": "{% if tools is defined and tools %}tools{% endif %}{{ nothing }}{% if not tools %}none{% "
                         "endif %}",
    "a macro": "{% macro say(m) %}[{{ m.role | upper }}] {{ m.content }}{% endmacro %}\n{% for m in messages %}\n"
               "{{ say(m) }}\n{% endfor %}",
    "a namespace": "{% set n = namespace(count=0) %}{% for m in messages if m.role == 'user' %}{% set n.count = "
                   "n.count + 1 %}{% endfor %}{{ n.count }} of {{ messages | length }}",
}  # fmt: skip
CHATS = [
    [{"role": "user", "content": "Hello!"}],
    [{"role": "system", "content": "Be kind.\n"}, {"role": "user", "content": "  <b>Hi</b> & {{ 1 + 1 }} {% if %}\n"}],
    [{"role": "user", "content": "é😀"}, {"role": "assistant", "content": ""}, {"role": "user", "content": "'\"\\n"}],
]


def their_text(messages, template):
    plain = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, chat_template=template)
    return theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("messages", CHATS, ids=["one", "two", "three"])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_templates_mean_the_same(template, messages):
    assert tc.capstone.laid_out(messages, template) == their_text(messages, template)


@needs_weights
@pytest.mark.parametrize("messages", CHATS, ids=["one", "two", "three"])
def test_the_template_of_smollm2_means_the_same(metadata, messages, our_tokenizer, their_tokenizer):
    template = metadata["tokenizer.chat_template"]
    wanted = their_text(messages, template)
    assert tc.capstone.laid_out(messages, template) == wanted
    chat = tc.LanguageModel("SmolLM2", None, our_tokenizer, frozenset(), template)
    assert chat.chat_prompt(messages) == their_tokenizer.encode(wanted).ids
