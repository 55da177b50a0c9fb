# # Capstone
#
# At the end of this chapter a chat model that others have trained answers questions, and the code that runs it is the
# code of this course.

# ## The hurt
#
# Chapter 14 built a GPT that writes, and since then we have made it fast and small. Everything works. But is it of any
# use? Here it is, trained on the first chapter of *Moby-Dick*, and you ask it a question.

from __future__ import annotations

import math
import operator
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

import tt_tensor as tt
from tt_data import find
from tt_nlp import (
    Embedding, Encoder, GatedMLP, RMSNorm, encode_long_word, generate, printed, token_ids, train_on_text, unprinted,
)
from tt_nlp.tokenization import BYTES, entry, refuse_surrogates, split
from tt_nlp.transformers import small_gpt, story
from tt_opt import (
    QUANTIZED, GroupedQueryAttention, KVCache, PackedTensor, Quantized, accelerate, look_back, model_bytes,
    packed_tensor, read, read_gguf, stream, write_gguf,
)
from tt_tensor import Linear, Module, ModuleList, Parameter, from_numpy, generator


def show_hurt():
    tokenizer, training, _ = story()
    tt.manual_seed(0)
    model = small_gpt(tokenizer.vocab_size, layers=2, length=64)
    train_on_text(model, training, 300)
    question = "What is the capital of France? "
    print(tokenizer.decode(generate(model, tokenizer.encode(question), 80, temperature=0.5, seed=0)))


# It has read twelve kilobytes, and it answers as well as you would expect. The model that we will run instead,
# SmolLM2-135M-Instruct (L. Ben Allal et al., 2025), has read two trillion tokens and was then trained to answer. No
# laptop does that. But its authors have given the result away, in a file of 98 MB. So the question is whether our code
# can run it. That is a hard test of a framework, because the designers of that model have never seen ours.

# ## The smallest thing that could work
#
# We have a GPT and a reader for GGUF files, from chapter 17. So look into the file. (`tito chat` fetches it, with your
# permission. Where it is missing, the experiments of this page say so and show nothing else.)


SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def weights_file() -> Path | None:
    """The file of SmolLM2 if it is on this machine, in the folder TT_WEIGHTS or in the cache."""
    found = find("weights", [[SMOLLM2_FILE]], os.environ.get("TT_WEIGHTS"))
    if found is None:
        print("SmolLM2 is not on this machine; `python -m tt_capstone fetch` gets it")
        return None
    return found[0]


def show_file():
    if (file := weights_file()) is None:
        return
    metadata, tensors = read_gguf(file)
    for name in ("general.architecture", "llama.block_count", "llama.embedding_length", "llama.attention.head_count"):
        print(f"{name:28s} {metadata[name]}")
    for name in ("token_embd", "blk.0.attn_norm", "blk.0.attn_q", "blk.0.attn_k", "blk.0.ffn_gate", "blk.0.ffn_down"):
        tensor = tensors[f"{name}.weight"]
        print(f"{name:28s} {tensor.kind:8s} {tensor.shape}")


# Our GPT cannot take these. Where is the table of positions? Why are there fewer keys than queries, why three matrices
# in an MLP, and where are the biases? The file says what it is: `llama`, the architecture that most open models have
# used since 2023 (H. Touvron et al.).

# ## The idea
#
# Compare a block of GPT-2 with a block of Llama. Four parts were replaced, and the stream that everything is added to
# stays as it was:
#
# | | GPT-2 (chapter 14) | Llama | which is from |
# | --- | --- | --- | --- |
# | norm | `LayerNorm` | `RMSNorm` | chapter 14 |
# | positions | a table, added once | rotary, in each layer | chapter 12 |
# | attention | a key for each query | queries share keys | chapter 16 |
# | MLP | GELU between two matrices | a gate, three matrices | chapter 14, exercise 2 |
# | biases | everywhere | nowhere | |
#
# ```mermaid
# flowchart BT
#     E["tokens"] --> P1(("+")) --> P2(("+")) --> D["... more blocks"] --> F["RMSNorm"] --> L["logits"]
#     E --> N1["RMSNorm"] --> A["grouped-query attention, rotary"] --> P1
#     P1 --> N2["RMSNorm"] --> M["gated MLP"] --> P2
# ```
#
# Every part is there already, and each was built for a reason of its own. So this is the moment for which modules have
# a common interface: we only have to put them together.

# ## A Llama
#
# The sizes come first. In contrast to GPT-2 they include the number of heads that have keys, the width inside the MLP,
# the base of the rotary positions and the `eps` of the norms.


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes of a Llama: tokens that it knows, longest context, blocks, heads of queries and of keys, width, hidden
    units of an MLP; base of the rotary positions, eps of the norms, and whether the last layer is the table."""

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int
    n_hidden: int
    base: float = 10_000.0
    eps: float = 1e-5
    tied: bool = True

    def __post_init__(self):
        for name in ("vocab_size", "block_size", "n_head", "n_kv_head", "n_embd", "n_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.n_layer < 0 or not self.base > 1 or not self.eps > 0:
            raise ValueError(f"a Llama has 0 or more blocks, a base above 1 and an eps above 0; these are {self}")
        if self.n_embd % (2 * self.n_head) or self.n_head % self.n_kv_head:
            raise ValueError(
                f"{self.n_head} heads must cut the width {self.n_embd} into even parts, and {self.n_kv_head} heads of "
                "keys must divide them"
            )


# A block has the names that its parts have in the `transformers` library, because the world's files use them. Compare
# its forward pass with that of chapter 14: it is the same.


class LlamaBlock(Module):
    """x + attention(norm(x)), and then x + mlp(norm(x)): (B, T, C) -> (B, T, C)."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        C = config.n_embd
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(C, config.eps), RMSNorm(C, config.eps)
        self.self_attn = GroupedQueryAttention(C, config.n_head, config.n_kv_head, base=config.base)
        self.mlp = GatedMLP(C, config.n_hidden)

    def forward(self, x):  # exercise
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


# The trunk, with both ways through it: `forward` for training, and `through` for reading with a cache. Chapter 16 has
# told us what the second one needs. There is one row of tokens, $(N, C)$, and `attend` looks back for us.


class LlamaTransformer(Module):
    """Embedding, blocks and a norm: ids (B, T) -> (B, T, C)."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.n_embd)
        self.layers = ModuleList(LlamaBlock(config) for _ in range(config.n_layer))
        self.norm = RMSNorm(config.n_embd, config.eps)

    def forward(self, ids):
        x = self.embed_tokens(ids)
        for block in self.layers:
            x = block(x)
        return self.norm(x)

    def through(self, ids, positions, attend):  # exercise
        """The trunk on tokens (N,) at positions (N,): (N, C). attend(layer, q, k, v), arrays (N, heads, D), gives what
        the queries find, a tensor of that shape; see `tt_opt.caching.through`."""
        x = self.embed_tokens(ids)
        for layer, block in enumerate(self.layers):
            q, k, v = block.self_attn.projected(block.input_layernorm(x), positions)
            found = attend(layer, q.numpy(), k.numpy(), v.numpy())
            x = x + block.self_attn.o_proj(found.flatten(1))
            x = x + block.mlp(block.post_attention_layernorm(x))
        return self.norm(x)


# And the model. `transformer` is the name under which chapters 14 and 16 look for the trunk. With that, everything they
# have works: `generate`, the cache, the batcher.


class Llama(Module):
    """A language model with Llama's architecture and names: ids (B, T) -> logits (B, T, vocab_size)."""

    window = None

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config, self.kv_heads = config, config.n_kv_head
        self.model = LlamaTransformer(config)
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    @property
    def transformer(self) -> Any:
        """The trunk."""
        return self.model

    def forward(self, ids):
        return self.lm_head(self.model(ids))

    def extra_repr(self):
        return str(self.config)


# A small one, with random weights, will serve for checks. Reading with a cache must give what reading anew gives.


def small_llama(vocabulary: int = 50, layers: int = 2, tied: bool = True) -> Llama:
    """A Llama with four heads over two, 32 wide."""
    return Llama(LlamaConfig(vocabulary, 64, layers, 4, 2, 32, 64, tied=tied)).eval()


def check_both_ways():
    model, text = small_llama(), generator().integers(0, 50, 20).tolist()
    cache = KVCache.of(model)
    read(model, [(cache, text[:12])])
    logits = read(model, [(cache, text[12:])], every=True)
    assert np.allclose(logits, model(tt.tensor([text]).long()).detach().numpy()[0, 12:], atol=1e-5)


# A number that must be right before anything else is: SmolLM2-135M has 134,515,008 parameters. We count them by the
# formula, and the formula by a model.


def llama_parameters(config: LlamaConfig) -> int:  # exercise
    """How many numbers a Llama learns."""
    C, D = config.n_embd, config.n_embd // config.n_head
    attention = 2 * C * C + 2 * C * config.n_kv_head * D
    table = config.vocab_size * C
    return table * (1 if config.tied else 2) + config.n_layer * (attention + 3 * C * config.n_hidden + 2 * C) + C


SMOLLM2 = LlamaConfig(49_152, 8192, 30, 9, 3, 576, 1536, base=100_000.0)


def check_parameters():
    assert llama_parameters(SMOLLM2) == 134_515_008
    for tied in (True, False):
        model = small_llama(tied=tied)
        assert llama_parameters(model.config) == sum(p.numel() for p in model.parameters())


# ## Weights from a file
#
# Three things differ between a file and our model. The first is names: a GGUF file has a vocabulary of its own. One
# table translates.

PARTS = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip

# The second is packing. The matrices are in blocks of 4 bits, and they stay so, in the quantized layers of chapter 17.
# Only the vectors of the norms become ordinary parameters. What a tensor replaces tells us which shape it must have.


def put(tensor: PackedTensor | None, place: Module, name: str, shape: tuple[int, ...], file: Any) -> None:
    """Make a tensor of a file the weight of the layer `name`, a path below `place`: packed if it is packed. ValueError,
    which names the file, for a tensor that is missing or has another shape."""
    if tensor is None or tensor.shape != shape:
        found = "missing" if tensor is None else f"of shape {tensor.shape}"
        raise ValueError(f"{file}: the weight of {name} is {found}, and {shape} is needed")
    path, _, last = name.rpartition(".")
    parent = operator.attrgetter(path)(place) if path else place
    layer = getattr(parent, last)
    if tensor.kind == "float32" or len(shape) == 1:
        layer.weight = Parameter(from_numpy(tensor.numbers()))
    else:
        layer = QUANTIZED[type(layer)].of(layer, from_numpy(tensor.rows()), tensor.kind)
        layer.shape = shape
        setattr(parent, last, layer)


# The third is which numbers a rotation turns together. Chapter 12 warned of it: we turn neighbours, $(0, 1), (2, 3)$,
# and `transformers` turns $i$ and $i + D/2$. The two agree if the rows of $W_q$ and $W_k$ are put into another order,
# once, when the weights are read. GGUF files of this architecture have our order already, since their first reader
# turned neighbours; for files of `transformers` we need both directions.


def neighbours(rows: np.ndarray, heads: int) -> np.ndarray:  # exercise
    """The rows (heads * D, ...) of a matrix of queries or keys, for pairs (i, i + D / 2) in each head, in the order for
    pairs (2 i, 2 i + 1)."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def halves(rows: np.ndarray, heads: int) -> np.ndarray:  # exercise
    """What `neighbours` did, backwards."""
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def check_orders():
    rows = np.arange(12)[:, None]
    assert neighbours(rows, 2).ravel().tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    assert (halves(neighbours(rows, 2), 2) == rows).all()


# Now the sizes, which the metadata have. A file from a stranger may lack an entry or claim nonsense, and then it is an
# error that names the file.

SIZES = {
    "block_size": "context_length", "n_layer": "block_count", "n_head": "attention.head_count",
    "n_kv_head": "attention.head_count_kv", "n_embd": "embedding_length", "n_hidden": "feed_forward_length",
}  # fmt: skip


def llama_config(metadata: Mapping[str, Any], tensors: Mapping[str, PackedTensor], file: Any) -> LlamaConfig:
    """The sizes of the Llama in a GGUF file. ValueError for a file of another architecture, without sizes, or with such
    that its tensors are far too few."""
    if (architecture := metadata.get("general.architecture")) != "llama":
        raise ValueError(f"{file} holds a model of the architecture {architecture!r}, and we read llama here")
    try:
        sizes: dict[str, Any] = {ours: operator.index(metadata[f"llama.{name}"]) for ours, name in SIZES.items()}
        sizes["base"] = float(metadata.get("llama.rope.freq_base", 10_000.0))
        sizes["eps"] = float(metadata["llama.attention.layer_norm_rms_epsilon"])
        vocabulary = tensors["token_embd.weight"].shape[0]
        config = LlamaConfig(vocabulary, tied="output.weight" not in tensors, **sizes)
        turned = metadata.get("llama.rope.dimension_count", config.n_embd // config.n_head)
        scaling = metadata.get("llama.rope.scaling.type", "none")
        if scaling != "none" or turned != config.n_embd // config.n_head:
            raise ValueError(f"its positions turn {turned} numbers of a head, with the scaling {scaling!r}")
        there = sum(math.prod(tensor.shape) for tensor in tensors.values())
        if config.n_layer > len(tensors) or llama_parameters(config) > 2 * there:  # or it would take any memory
            raise ValueError(f"{len(tensors)} tensors with {there:,d} numbers are not enough for {config}")
        return config
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} does not describe a Llama: {error}") from None


# In this model the last layer is the table of tokens, as in GPT-2. Packed rows are shared like any weight.


def share_table(model: Llama) -> None:
    """Let the last layer have the weight of the table, packed or not."""
    table: Any = model.model.embed_tokens
    if isinstance(table, Quantized):
        model.lm_head = QUANTIZED[Linear].of(model.lm_head, table.rows, table.kind)
        model.lm_head.shape = table.shape
    else:
        model.lm_head.weight = table.weight


# Then the model is put together block by block. A new block draws random weights, which we do not want, and a new table
# of 49,152 rows would take 113 MB. So there is one block to copy from, and a table of a single row, until those of the
# file are there. (`deepcopy` takes what it finds in its second argument for copied already. So all blocks have the same
# random weights, until those of the file are there, too.)


def load_llama(path: str | os.PathLike) -> Llama:
    """The Llama of a GGUF file, in evaluation mode, with its matrices packed as they are in the file. Raises ValueError
    for another architecture, and for tensors that are missing, have other shapes, or have no place."""
    metadata, tensors = read_gguf(path)
    config = llama_config(metadata, tensors, path)
    model = Llama(replace(config, n_layer=0, vocab_size=1))
    model.config = config
    model.model.embed_tokens.num_embeddings = model.lm_head.out_features = config.vocab_size
    size = (config.vocab_size, config.n_embd)
    put(tensors.pop("token_embd.weight", None), model, "model.embed_tokens", size, path)
    if config.tied:
        share_table(model)
    else:
        put(tensors.pop("output.weight"), model, "lm_head", size, path)
    put(tensors.pop("output_norm.weight", None), model, "model.norm", (config.n_embd,), path)
    pattern = LlamaBlock(config)
    for layer in range(config.n_layer):
        block = deepcopy(pattern, {id(p): p for p in pattern.parameters()})
        for ours, theirs in PARTS.items():
            shape = operator.attrgetter(ours)(pattern).weight.shape
            put(tensors.pop(f"blk.{layer}.{theirs}.weight", None), block, ours, shape, path)
        model.model.layers.append(block)
    if tensors:
        raise ValueError(f"{path} has tensors for which our Llama has no place, such as {next(iter(tensors))}")
    return model.eval()


# A check needs a file, so we write one: a small Llama with the names of GGUF. Its matrices are in `q8_0`, and what
# comes back must say nearly the same.


def save_llama_gguf(model: Llama, path: str | os.PathLike, kind: str = "q8_0", **metadata: Any) -> None:
    """Write a Llama of ordinary parameters as a GGUF file, its matrices in a format, with further metadata."""
    config, modules = model.config, dict(model.named_modules(remove_duplicate=False))
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    names |= {} if config.tied else {"lm_head": "output"}
    for layer in range(config.n_layer):
        names |= {f"model.layers.{layer}.{ours}": f"blk.{layer}.{theirs}" for ours, theirs in PARTS.items()}
    arrays = {f"{theirs}.weight": modules[ours].weight.numpy() for ours, theirs in names.items()}
    sizes = {f"llama.{name}": getattr(config, ours) for ours, name in SIZES.items()} | {
        "general.architecture": "llama", "llama.rope.freq_base": config.base,
        "llama.attention.layer_norm_rms_epsilon": config.eps,
    }  # fmt: skip
    packed = {name: packed_tensor(x, kind if x.ndim > 1 else "float32") for name, x in arrays.items()}
    write_gguf(path, sizes | metadata, packed)


def check_there_and_back():
    ids = from_numpy(generator().integers(0, 50, (1, 10)))
    with tempfile.TemporaryDirectory() as folder:
        for kind, tied, least in (("float32", True, 1e-6), ("q8_0", False, 0.05)):
            save_llama_gguf(model := small_llama(tied=tied), file := Path(folder, f"{kind}.gguf"), kind)
            found = load_llama(file)(ids)
            assert np.abs(found.numpy() - model(ids).numpy()).max() < least


# ## Its tokens
#
# A model knows numbers, and which text a number stands for is a contract. The file has all tokens, as `printed` of
# chapter 11 writes them, and the special ones are marked. The words are cut by the pattern `smollm`, and the tokens are
# in the order in which they were learned, so the encoder of chapter 11 is right, except for two details.
#
# Our special tokens have the numbers after all others, and here they have the first ones. So we translate the numbers
# that the encoder finds. And 21 of the 256 bytes are no tokens at all: the training text did not contain them. As the
# `tokenizers` library does, we drop them.


class FileTokenizer(Encoder):
    """The tokenizer of a file: the names of its tokens by number, as `printed` writes them, which of these are special,
    and the pattern that cuts a text into words."""

    def __init__(self, names: Sequence[str], special: Sequence[int], pattern: str):
        self.numbers = sorted(set(range(len(names))) - set(special))  # of the ordinary tokens
        tokens = [unprinted(names[number]) for number in self.numbers]
        self.missing = bytes(sorted(set(range(256)) - {token[0] for token in tokens if len(token) == 1}))
        extra = [bytes([byte]) for byte in self.missing]  # which an encoder needs, and no word will have
        super().__init__([*tokens, *extra], [names[number] for number in special], pattern)
        self.special_tokens = {names[number]: number for number in special}
        self.texts = [name.encode() for name in names]
        for number, token in zip(self.numbers, tokens):
            self.texts[number] = token

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return len(self.texts)

    def token_bytes(self, number: int) -> bytes:
        """The bytes of a token. IndexError for a number that no token has."""
        return entry(self.texts, number)

    # Nearly every text has none of the missing bytes, and then it goes to the encoder as a whole.

    def encode_ordinary(self, text: str) -> list[int]:  # exercise
        """The tokens of a text, without those bytes for which there is none; what looks like a special token is text.
        ValueError for half a character (`refuse_surrogates`)."""
        refuse_surrogates(text)
        if not set(self.missing) & set(text.encode()):
            found = super().encode_ordinary(text)
        else:
            words = (word.encode().translate(None, self.missing) for word in split(text, self.pattern))
            found = [number for word in words for number in encode_long_word(word, self.ranks)]
        return [self.numbers[number] for number in found]


def check_tokenizer():
    names = ["<end>", *map(printed, BYTES[:128]), *map(printed, [b"he", b"hel", b"lo"]), "<start>"]
    tokenizer = FileTokenizer(names, [0, len(names) - 1], "smollm")
    ids = tokenizer.encode("hello 12<end>", allowed_special="all")
    assert [tokenizer.token_bytes(number) for number in ids] == [b"hel", b"lo", b" ", b"1", b"2", b"<end>"]
    assert ids[-1] == 0 and tokenizer.decode(ids) == "hello 12<end>" and tokenizer.encode("é") == []


# ## A chat is a text
#
# A language model continues texts. It knows nothing of questions and answers, let alone of who speaks. What makes it a
# chat model is a form in which all its training chats were written down, and it must be kept to the letter. In files
# the form is a *template*, in the language of Jinja, which web pages are made with:


def show_template():
    if (file := weights_file()) is None:
        return
    template = read_gguf(file)[0]["tokenizer.chat_template"]
    print(template)
    print("-" * 20)
    print(laid_out([{"role": "user", "content": "Hello!"}], template))


# The end of that text, `assistant` and a new line, is where the model takes over. When it has written its answer it
# writes `<|im_end|>`, the token at which we stop.
#
# A template is a program, and it comes from a stranger's file. Jinja has a *sandbox* for such programs, in which they
# can only see what they are given.


def laid_out(messages: Sequence[Mapping[str, str]], template: str | None) -> str:  # exercise
    """The messages of a chat, with a role and a content each, as one text that ends where the answer begins. Without a
    template each content is a line. ValueError for a template that fails."""
    if template is None:
        return "".join(f"{message['content']}\n" for message in messages)
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse_chat
    try:
        return environment.from_string(template).render(messages=list(messages), add_generation_prompt=True)
    except Exception as error:  # the program is not ours, so anything may happen in it
        raise ValueError(f"the chat template cannot lay out these messages: {error}") from None


def refuse_chat(why: str) -> None:
    """What templates call `raise_exception`, for chats that the model does not know."""
    raise TemplateError(why)


def check_template():
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ '<a>' if add_generation_prompt }}"
    assert laid_out([{"role": "u", "content": "Hi"}], template) == "<u>Hi<a>"
    assert laid_out([{"role": "u", "content": "Hi"}], None) == "Hi\n"


# ## It answers
#
# A model, its tokenizer, its template, and the tokens that end an answer belong together. From here on they are one
# object. A GPT of chapter 14 fits as well: it has no template, so its chat is a text with a line for each message.


@dataclass(eq=False)
class LanguageModel:
    """A model with what it needs to read and write text: its tokenizer, the tokens that end an answer, and the Jinja
    template that lays out a chat, if it has one."""

    name: str
    model: Any
    tokenizer: Any
    stop: frozenset[int] = frozenset()
    template: str | None = None

    def prompt(self, text: str, special: bool = False) -> list[int]:
        """The tokens of a text to continue. What looks like a special token is one if `special`, otherwise it is text.
        ValueError for a text without tokens, or with characters that the tokenizer does not know."""
        if not isinstance(self.tokenizer, Encoder):
            return token_ids(self.tokenizer.encode(text))
        allowed = "all" if special else ()
        return token_ids(self.tokenizer.encode(text, allowed_special=allowed, disallowed_special=()))

    # The template writes special tokens, and they must act as such. But what a *user* writes must not: a user who could
    # type `<|im_end|>` into a message could continue in another role. So each special token in a content gets a
    # character of no width, after which it is just text.

    def chat_prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:  # exercise
        """The tokens of a chat up to where the answer begins; special tokens in contents are broken up."""
        names = getattr(self.tokenizer, "special_tokens", {})
        plain = []
        for message in messages:
            content = message["content"]
            for name in names:
                content = content.replace(name, f"{name[:1]}\u200b{name[1:]}")
            plain.append({"role": message["role"], "content": content})
        return self.prompt(laid_out(plain, self.template), special=True)

    # The answer comes in pieces, as it is written.

    def answer(  # exercise
        self, messages: Sequence[Mapping[str, str]], max_new_tokens: int = 512, *, cache: KVCache | None = None, **how
    ) -> Iterator[str]:
        """The answer to a chat, piece by piece, whole characters only; `how` as for `tt_opt.stream`."""
        tokens = stream(self.model, self.chat_prompt(messages), max_new_tokens, cache=cache, stop=self.stop, **how)
        return self.tokenizer.decode_stream(token for token in tokens if token not in self.stop)


# All of it from one file:

PRETOKENIZERS = {"gpt-2": "gpt2", "smollm": "smollm"}  # what a file calls a pattern


def load_language_model(path: str | os.PathLike) -> LanguageModel:
    """The Llama, the tokenizer and the chat template of a GGUF file. ValueError for a file that lacks one of the first
    two, or whose tokenizer we do not know."""
    metadata, _ = read_gguf(path)
    model = load_llama(path)
    try:
        names, kinds = metadata["tokenizer.ggml.tokens"], np.asarray(metadata["tokenizer.ggml.token_type"])
        kind, pattern = metadata["tokenizer.ggml.model"], PRETOKENIZERS[metadata.get("tokenizer.ggml.pre", "gpt-2")]
        if kind != "gpt2" or not len(names) == len(kinds) == model.config.vocab_size:
            raise ValueError(f"{len(names)} tokens of a model {kind!r} for a vocabulary of {model.config.vocab_size}")
        tokenizer = FileTokenizer(names, np.flatnonzero(kinds != 1).tolist(), pattern)
        stop = {metadata["tokenizer.ggml.eos_token_id"], *(tokenizer.special_tokens.get(name, -1) for name in ENDS)}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has no tokenizer that we can read: {error}") from None
    template = metadata.get("tokenizer.chat_template")
    return LanguageModel(Path(path).stem, model, tokenizer, frozenset(stop - {-1}), template)


ENDS = ("<|endoftext|>", "<|im_end|>")  # special tokens after which nothing of an answer comes


def show_answer():
    if (file := weights_file()) is None:
        return
    with accelerate():
        chat = load_language_model(file)
        for question in ("What is the capital of France?", "Why is the sky blue? Answer in one sentence."):
            answer = "".join(chat.answer([{"role": "user", "content": question}], 60, temperature=0))
            print(f"{question}\n    {answer}")


# It answers, with our tensors, our attention and our cache. (It is a small model, and it does not always answer right.
# That part is not our fault.)

# ## The witness
#
# An answer that sounds right proves little: with a mistake in one of the thirty blocks, a model still writes English.
# So the tests compare numbers. `transformers` has the same architecture in PyTorch: with our weights, unpacked, its
# logits must equal ours. The `tokenizers` library must find the same tokens in the 28 hard texts of chapter 11, and in
# a thousand random ones. And *llama.cpp* is a program that people really run; its answers must be ours, as far as
# rounding allows, since it rounds activations to 8 bits as well.
#
# What can we check here, without any of them? Rotary positions turn with the distance only, so a text that begins later
# must be read alike. We read a text at positions from 0 on, and then from 7 on.


def check_only_distances_matter():
    trunk, ids = small_llama().model, from_numpy(np.arange(10))
    model = trunk.layers[0].self_attn

    def attend(layer, q, k, v):
        return look_back(from_numpy(q.copy()), from_numpy(k.copy()), from_numpy(v.copy()))

    early, late = (trunk.through(ids, np.arange(10) + start, attend).numpy() for start in (0, 7))
    assert model.base == 10_000.0 and np.allclose(early, late, atol=1e-4)


# ## The cost
#
# Chapter 16 ended with a floor for the time of a token: every weight must come from memory once. Now the weights are of
# 4 bits. Each block of 32 takes 20 bytes in `q4_1`, the table has 8 bits, and with each token the keys and values of
# all tokens before it are read as well.


def bytes_of_a_token(model: Llama, length: int) -> int:  # exercise
    """The bytes that reading one token must fetch, the last of a text of `length`: keys, values, and all weights; of a
    table that is not shared with the last layer, one row."""
    config, weights = model.config, model_bytes(model)
    if not config.tied:
        table: Any = model.model.embed_tokens
        rows = table.rows if isinstance(table, Quantized) else table.weight
        weights -= rows.nbytes - rows[0].nbytes
    head = config.n_embd // config.n_head
    return weights + 2 * config.n_layer * length * config.n_kv_head * head * 4


def check_bytes_of_a_token():
    for tied in (True, False):
        model = small_llama(tied=tied)
        table = 0 if tied else 49 * 32 * 4
        cache = 2 * 2 * 10 * 2 * 8 * 4
        assert bytes_of_a_token(model, 10) == 4 * llama_parameters(model.config) - table + cache


# The formula beside the measurement. Chapter 01 has the speed at which this machine reads memory.


def show_cost():
    if (file := weights_file()) is None:
        return
    with accelerate():
        chat = load_language_model(file)
        prompt, cache = chat.prompt("word " * 120)[:100], KVCache.of(chat.model)
        read(chat.model, [(cache, prompt)])

        def one_token():
            cache.keep(100)
            read(chat.model, [(cache, [17])])

        measured, size = tt.measure(one_token).seconds, bytes_of_a_token(chat.model, 100)
    floor = size / (tt.setup.bandwidth(1 << 26) * 1e9)
    print(f"{model_bytes(chat.model) / 1e6:.0f} MB of weights; in float32 they would take", end=" ")
    print(f"{4 * llama_parameters(chat.model.config) / 1e6:.0f} MB")
    print(f"a token needs {size / 1e6:.0f} MB, which take {floor * 1e3:.1f} ms to read;", end=" ")
    print(f"it takes {measured * 1e3:.1f} ms")


# The difference is what Python does between products, about a thousand operations for each token. The appendix *Fused*
# makes them fewer, and `tito chat` reads with it. The page *Benchmarks* shows our rate beside that of llama.cpp.

# ## Three routes
#
# What a framework is good for shows in what is built with it. There are three routes from here, and each ends with
# something that others can use.
#
# 1. **A vision trainer against the clock.** The network of chapter 10's milestone learned for 22 minutes. How fast do
#    two cores reach 75 % on CIFAR-10 if everything in this course is used? The appendix *Vision* describes what helped,
#    and `examples/dawnbench_2017` needs about a minute.
# 2. **A language model that answers.** `tito chat` in the terminal, and `tito serve` for programs: the appendices
#    *Chat*, *Engine* and *Serve* give it the interface that most programs for language models speak.
# 3. **Your own.** `tito capstone new` makes a project with a budget of time, memory and accuracy, and `tito capstone
#    check` measures against it. `examples/digits_2026` was made that way.
#
# A network may also leave: as ONNX, a format that other programs run (the appendix *ONNX files*), with a card on which
# measurements say what it is good for (*Cards*), or as a single file that runs without us (*Shipping*).

# ## Errors you will meet


def show_errors():
    chat = replace(small_chat(), template="{{ 1 / 0 }}")
    attempts = [
        lambda: LlamaConfig(50, 64, 2, 5, 2, 32, 64),
        lambda: llama_config({"general.architecture": "gpt2"}, {}, "model.gguf"),
        lambda: put(None, chat.model, "model.norm", (32,), "model.gguf"),
        lambda: chat.prompt(""),
        lambda: chat.chat_prompt([{"role": "user", "content": "Hi"}]),
    ]
    for attempt in attempts:
        try:
            attempt()
        except (ValueError, IndexError) as error:
            print(f"{type(error).__name__}: {error}")


# ## Exercises
#
# Besides what is marked in the text:
#
# 1. `recent`: a conversation that has become too long for the context. What would you leave out?
# 2. `least_surprising`: let the model choose among given answers, which is how most tests of language models work. Try
#    it with questions of your own. How often is the model right when the answers are shuffled?
# 3. Ask for the same story at temperatures 0, 0.2 and 1.5, and with top-p 0.9. Where does it begin to repeat itself,
#    and where does it stop to make sense?


def recent(  # exercise
    chat: LanguageModel, messages: Sequence[Mapping[str, str]], room: int
) -> list[Mapping[str, str]]:
    """The messages of a chat without its oldest ones, as few as need to go so that the prompt and `room` more tokens
    fit the context. A system message at the beginning stays, and so does the last message. ValueError if these alone
    are too long."""
    context, kept = chat.model.config.block_size, list(messages)
    first = 1 if kept and kept[0]["role"] == "system" else 0
    while len(chat.chat_prompt(kept)) + room > context:
        if len(kept) <= first + 1:
            size = len(chat.chat_prompt(kept))
            raise ValueError(f"{size} tokens and {room} for the answer do not fit into a context of {context}")
        del kept[first]
    return kept


# For the second one, read all answers but their last tokens behind the same prompt; `cache.keep` goes back to its end.


def least_surprising(  # exercise
    chat: LanguageModel, messages: Sequence[Mapping[str, str]], answers: Sequence[str]
) -> int:
    """The index of the answer whose tokens surprise the model least in the mean, as the answer to a chat."""
    prompt, cache, costs = chat.chat_prompt(messages), KVCache.of(chat.model), []
    for answer in answers:
        tokens = chat.prompt(answer)
        cache.keep(len(prompt) - 1)
        new = [*prompt[len(cache) :], *tokens[:-1]]
        logits = read(chat.model, [(cache, new)], every=True)[-len(tokens) :].astype(np.float64)
        largest = logits.max(-1)
        total = largest + np.log(np.exp(logits - largest[:, None]).sum(-1))
        costs.append(np.mean(total - logits[np.arange(len(tokens)), tokens]))
    return int(np.argmin(costs))


# For the checks of both, a chat of a small model whose tokens are the 256 bytes. It says nothing that means anything,
# but it says it in all forms.


def small_chat() -> LanguageModel:
    """A chat with a small Llama of random weights, whose tokens are the 256 bytes."""
    tt.manual_seed(0)
    tokenizer = FileTokenizer([*map(printed, BYTES), "<end>"], [256], "gpt2")
    template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}<end>{% endfor %}"
    return LanguageModel("small", small_llama(257), tokenizer, frozenset({256}), template)


def check_recent():
    chat = small_chat()
    messages = [{"role": role, "content": "x" * 15} for role in ("system", "user", "assistant", "user")]
    assert recent(chat, messages, 4) == [messages[0], messages[2], messages[3]]  # 18 tokens each, of 64
    assert recent(chat, messages, 20) == [messages[0], messages[3]]


# And the witness of the second one: the surprise at each token, without a cache.


def surprises(chat: LanguageModel, messages: Sequence[Mapping[str, str]], answer: str) -> np.ndarray:
    """The surprise at each token of an answer, in nats, without a cache."""
    prompt, tokens = chat.chat_prompt(messages), chat.prompt(answer)
    logits = chat.model(from_numpy(np.array([[*prompt, *tokens]])))[0].detach().numpy()[len(prompt) - 1 : -1]
    return np.array([-tt.log_softmax(from_numpy(row), dim=-1).numpy()[token] for row, token in zip(logits, tokens)])


def check_least_surprising():
    chat, messages = small_chat(), [{"role": "user", "content": "Hi"}]
    answers = ["yes", "no", "maybe"]
    found = least_surprising(chat, messages, answers)
    costs = [np.mean(surprises(chat, messages, answer)) for answer in answers]
    assert found == int(np.argmin(costs))


# ## A road not taken
#
# Our chat model computes in `float32` and unpacks weights in registers. llama.cpp rounds the inputs of each product to
# 8 bits as well, and multiplies integers, for which processors have instructions of their own. That is faster, and a
# bit less exact. Its kernels are written by hand for each kind of processor; ours are loops that a compiler sees.
# PyTorch reaches such models with `torch.compile`, which fuses what stands between the products. tinygrad does that for
# all programs and has no kernels that are written by hand. Servers for many users (vLLM, SGLang) keep caches in pages
# and share them between requests.

# ## The end of the course
#
# In chapter 01 we asked whether this machine computes at all. Since then every chapter began with something that hurt,
# and the next one took the pain away. What hurts now? One machine is small. A model of 70 billion weights does not fit
# into it, and training it takes thousands of machines, which have to agree on every step. Appendix *Data parallel* of
# chapter 15 is the beginning of that road. The models of today also look at images and use tools, and the art of
# teaching them to answer, with preferences instead of texts, has not occurred here at all. You know now what they are
# made of.
#
# The rest is route 3: your own.

__all__ = [
    "FileTokenizer", "LanguageModel", "Llama", "LlamaBlock", "LlamaConfig", "LlamaTransformer", "PARTS",
    "SMOLLM2", "SMOLLM2_FILE", "bytes_of_a_token", "halves", "laid_out", "least_surprising", "llama_config",
    "llama_parameters", "load_language_model", "load_llama", "neighbours", "put", "recent", "save_llama_gguf",
    "share_table", "small_chat", "small_llama", "weights_file",
]
