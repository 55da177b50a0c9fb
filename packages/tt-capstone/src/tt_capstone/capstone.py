# # Capstone
#
# At the end of this chapter a chat model that others have trained answers your questions, and the code that runs it is
# the code that you have written in this course.

# ## The hurt
#
# In chapter 14 we built a GPT that writes, and since then we have made it fast and small. Everything works. But is it
# useful? Let us see. From outside we need only NumPy and Jinja, whose part in a chat comes later.

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

# All the rest is ours: layers and a tokenizer from chapters 11 to 14, and from chapters 16 and 17 the cache and the
# packed weights.

import tt_tensor as tt
from tt_capstone.arguments import described_sizes, described_tokens, refuse_llama_sizes, refuse_too_few
from tt_capstone.conversions import FileTokens
from tt_capstone.slots import put, share_table
from tt_data import find
from tt_nlp import (
    Embedding, Encoder, GatedMLP, RMSNorm, encode_long_word, generate, printed, token_ids, train_on_text,
)
from tt_nlp.text_inputs import refuse_surrogates
from tt_nlp.tokenization import BYTES, split
from tt_nlp.transformers import load_story, small_gpt
from tt_opt import (
    GroupedQueryAttention, KVCache, PackedTensor, Quantized, accelerate, look_back, model_bytes, read, read_gguf,
    stream,
)
from tt_tensor import Linear, Module, ModuleList, from_numpy, generator

# We train our GPT on the first chapter of *Moby-Dick*, and you ask it a question.


def show_hurt():
    tokenizer, training, _ = load_story()
    tt.manual_seed(0)
    model = small_gpt(tokenizer.vocab_size, layers=2, length=64)
    train_on_text(model, training, 150)
    question = "What is the capital of France? "
    print(tokenizer.decode(generate(model, tokenizer.encode(question), 80, temperature=0.5, seed=0)))


# It has read twelve kilobytes, and it answers as well as you would expect. We will run another model instead,
# SmolLM2-135M-Instruct (L. Ben Allal et al., 2025). It was *pretrained* on two trillion tokens and then *fine-tuned* to
# answer. No laptop can do that, but the authors have published the result, and there is a file of 98 MB with it. Can
# our code run that file? This is a hard test of a framework, because the designers of the model have never seen ours.

# ## The smallest thing that could work
#
# We have a GPT, and from the appendix of chapter 17 we have a reader for GGUF files. So we look into the file. (`tito
# chat` downloads it, with your permission. If you do not have it, the experiments on this page say so and show nothing
# else.)


SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def weights_file() -> Path | None:
    """Return the file of SmolLM2 if it is on this machine, in the folder TT_WEIGHTS or in the cache, else None."""
    found = find("weights", [[SMOLLM2_FILE]], os.environ.get("TT_WEIGHTS"))
    if found is None:
        print("SmolLM2 is not on this machine; `python -m tt_capstone fetch` downloads it")
        return None
    return found[0]


# A GGUF file has metadata, which describe the model, and tensors, each with a name, a format and a shape.


def show_file():
    if (file := weights_file()) is None:
        return
    metadata, tensors = read_gguf(file)
    for name in ("general.architecture", "llama.block_count", "llama.embedding_length", "llama.attention.head_count"):
        print(f"{name:28s} {metadata[name]}")
    for name in ("token_embd", "blk.0.attn_norm", "blk.0.attn_q", "blk.0.attn_k", "blk.0.ffn_gate", "blk.0.ffn_down"):
        tensor = tensors[f"{name}.weight"]
        print(f"{name:28s} {tensor.kind:8s} {tensor.shape}")


# Our GPT cannot use these weights. Where is the table of positions? Why are there fewer keys than queries, why three
# matrices in an MLP, and where are the biases? The file answers in its first line: it is a `llama`, the architecture of
# most open models since 2023 (H. Touvron et al.).

# ## The idea
#
# We compare a block of GPT-2 with a block of Llama. Several parts are new, but the *residual stream*, to which each
# block adds its results, is the same:
#
# | | GPT-2 (chapter 14) | Llama | built in |
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
# We have built every part already, each for a reason of its own. This is why our modules have a common interface: now
# we only need to put them together.

# ## A Llama
#
# We begin with the *hyperparameters*. Beside those of GPT-2 we need the number of heads of keys, the width inside the
# MLP, the base of the rotary positions and the `eps` of the norms.


@dataclass(frozen=True)
class LlamaConfig:
    """The hyperparameters of a Llama: tokens that it knows, longest context, blocks, heads of queries and of keys,
    width, and hidden units of an MLP; base of the rotary positions, eps of the norms, and whether the last layer shares
    the weight of the table. Raises ValueError for sizes that do not fit together."""

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

    # Files come from strangers, so we check that the sizes fit together: for example, the heads must cut the width into
    # even parts, because a rotation turns pairs.

    def __post_init__(self):
        refuse_llama_sizes(self)


# In our block we use the names of the `transformers` library, because the files of the world use them. Compare its
# forward pass with that of chapter 14: only the names differ.


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


# The trunk has two ways through it: `forward` for training, and `through` for reading with a cache. As in chapter 16,
# the second one gets all tokens as rows of one array, $(N, C)$, and calls `attend` to look back.


class LlamaTransformer(Module):
    """Embedding, blocks and a norm: ids (B, T) -> (B, T, C)."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.n_embd)
        self.layers = ModuleList(LlamaBlock(config) for _ in range(config.n_layer))
        self.norm = RMSNorm(config.n_embd, config.eps)

    # In training the blocks follow each other, and each of them reads what the last one wrote into the stream.

    def forward(self, ids):
        x = self.embed_tokens(ids)
        for block in self.layers:
            x = block(x)
        return self.norm(x)

    # With a cache we cannot call the block, because its attention sees only the new tokens. So we take the block apart:
    # we let it compute queries, keys and values, hand them to `attend`, and continue with what `attend` has found. (The
    # array `found` has the heads apart; `flatten(1)` puts those of a token side by side.)

    def through(self, ids, positions, attend):  # exercise
        """Apply the trunk to tokens (N,) at positions (N,): (N, C). attend(layer, q, k, v), with arrays (N, heads, D),
        returns what the queries find, a tensor of that shape; see `tt_opt.caching.through`."""
        x = self.embed_tokens(ids)
        for layer, block in enumerate(self.layers):
            q, k, v = block.self_attn.projected(block.input_layernorm(x), positions)
            found = attend(layer, q.numpy(), k.numpy(), v.numpy())
            x = x + block.self_attn.o_proj(found.flatten(1))
            x = x + block.mlp(block.post_attention_layernorm(x))
        return self.norm(x)


# The model comes last. Chapters 14 and 16 look for the trunk under the name `transformer`. If we give them that, all
# their functions work with our Llama: `generate`, the cache, the batcher.


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

    # The last line of the constructor *ties* the two layers: the same parameter turns ids into vectors at the beginning
    # and vectors into logits at the end. Training adds up both gradients, and the model is smaller by a table.

    @property
    def transformer(self) -> Any:
        """The trunk."""
        return self.model

    def forward(self, ids):
        return self.lm_head(self.model(ids))

    def extra_repr(self):
        return str(self.config)


# For checks we need a small one with random weights. Reading with a cache must give the same logits as reading
# everything anew.


def small_llama(vocabulary: int = 50, layers: int = 2, tied: bool = True) -> Llama:
    """Return a Llama of width 32 with four heads of queries, two heads of keys and random weights."""
    return Llama(LlamaConfig(vocabulary, 64, layers, 4, 2, 32, 64, tied=tied)).eval()


def check_both_ways():
    model, text = small_llama(), generator().integers(0, 50, 20).tolist()
    cache = KVCache.of(model)
    read(model, [(cache, text[:12])])
    logits = read(model, [(cache, text[12:])], every=True)
    assert np.allclose(logits, model(tt.tensor([text]).long()).detach().numpy()[0, 12:], atol=1e-5)


# Before anything else, the number of parameters must be right: SmolLM2-135M has 134,515,008. We count them by a
# formula, and check the formula against models.


def llama_parameters(config: LlamaConfig) -> int:  # exercise
    """Return the number of parameters of a Llama."""
    C, D = config.n_embd, config.n_embd // config.n_head
    attention = 2 * C * C + 2 * C * config.n_kv_head * D
    table = config.vocab_size * C
    return table * (1 if config.tied else 2) + config.n_layer * (attention + 3 * C * config.n_hidden + 2 * C) + C


SMOLLM2 = LlamaConfig(49_152, 8192, 30, 9, 3, 576, 1536, base=100_000.0)


# The number of the authors, and two small models:


def check_parameters():
    assert llama_parameters(SMOLLM2) == 134_515_008
    for tied in (True, False):
        model = small_llama(tied=tied)
        assert llama_parameters(model.config) == sum(p.numel() for p in model.parameters())


# ## Weights from a file
#
# There are three differences between a file and our model. The first is the names, because GGUF has names of its own.
# We translate with a table.

PARTS = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip

# The second difference is packing. The matrices of the file are in blocks of 4 bits. We leave them packed, in the
# quantized layers of chapter 17. Only the vectors of the norms become ordinary parameters. So a layer of our model is
# replaced by a quantized one when its tensor arrives, and the layer that was there says which shape the tensor must
# have. A support module, `tt_capstone.slots`, has two functions for that: `put(tensor, place, name, shape, file)` makes
# a tensor the weight of the layer `name` below the module `place`, and raises an error that names the file if the
# tensor is missing or has another shape. `share_table(model)` gives the last layer the weight of the table, packed or
# not, because in SmolLM2 they are one, as in GPT-2.

# The third difference is which elements a rotation turns together. We warned of it in chapter 12: we turn the pairs
# $(0, 1), (2, 3), \dots$, and `transformers` turns $i$ with $i + D/2$. The two agree if we put the rows of $W_q$ and
# $W_k$ into another order, once, when we read the weights. GGUF files of this architecture already have our order,
# because llama.cpp, the program they were made for, rotates neighbours. For files of `transformers` we need both
# directions.


def neighbours(rows: np.ndarray, heads: int) -> np.ndarray:  # exercise
    """Return the rows (heads * D, ...) of a matrix of queries or keys, made for pairs (i, i + D / 2) in each head, in
    the order for pairs (2 i, 2 i + 1)."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def halves(rows: np.ndarray, heads: int) -> np.ndarray:  # exercise
    """Undo `neighbours`: rows (heads * D, ...) in the order for pairs (i, i + D / 2)."""
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


# Two heads of six rows show the order, and both functions together must change nothing.


def check_orders():
    rows = np.arange(12)[:, None]
    assert neighbours(rows, 2).ravel().tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    assert (halves(neighbours(rows, 2), 2) == rows).all()


# Now we read the hyperparameters from the metadata. A file from a stranger may lack an entry or claim nonsense. Then we
# raise an error that names the file. Nonsense can be expensive: a single block with two billion hidden units does not
# fit into memory. So we compare our formula with the numbers in the file before we build anything. (The checks of
# single entries, and GGUF's names for the sizes, are in `tt_capstone.arguments`.)


def llama_config(metadata: Mapping[str, Any], tensors: Mapping[str, PackedTensor], file: Any) -> LlamaConfig:
    """Return the hyperparameters of the Llama in a GGUF file. ValueError for a file of another architecture, without
    sizes, or with sizes for which it has far too few tensors."""
    if (architecture := metadata.get("general.architecture")) != "llama":
        raise ValueError(f"{file} holds a model of the architecture {architecture!r}, but only 'llama' can be read")
    try:
        vocabulary, tied = tensors["token_embd.weight"].shape[0], "output.weight" not in tensors
        config = LlamaConfig(vocabulary, **described_sizes(metadata), tied=tied)
        refuse_too_few(tensors, config, llama_parameters(config))
        return config
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} does not describe a Llama: {error}") from None


# Now we put the model together block by block. A new block would draw random weights, which we do not need, and a new
# table of 49,152 rows would take 113 MB. So we begin with a table of a single row, and copy all blocks from one
# pattern. (The second argument of `deepcopy` lists objects that it must not copy again. So all blocks share the same
# random parameters, until those of the file replace them.)


def load_llama(path: str | os.PathLike) -> Llama:
    """Load the Llama of a GGUF file, in evaluation mode, with its matrices packed as in the file. Raises ValueError for
    another architecture, and for tensors that are missing, have other shapes, or belong nowhere."""
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


# Does the model in memory say the same as the one in the file? We check it in the appendix *Llama files*, where we also
# write such files: the logits of a small Llama come back the same in `float32`, and nearly the same in `q8_0`.

# ## Its tokens
#
# A model knows only token ids, and the *vocabulary* says which text each id means. The file has all tokens, written as
# `printed` of chapter 11 writes them, and it marks the special ones. The pattern `smollm` cuts a text into words, and
# the tokens are in the order in which they were learned. So we can use the encoder of chapter 11, except for two
# details.
#
# First, our special tokens have the ids after all others, but here they have the first ones. So we translate the ids
# that the encoder finds. Second, 21 of the 256 bytes are not tokens at all, because the training text did not contain
# them. We drop them, as the `tokenizers` library does.
#
# Our class inherits two attributes for that from `FileTokens`, a small support class. The list `self.numbers` has the
# id in the file of each token that the encoder finds, and `self.missing` has the bytes for which there is no token. The
# class also has `token_bytes`, with which the decoder of chapter 11 looks up the bytes of an id.


class FileTokenizer(FileTokens):
    """The tokenizer of a file, from the names of its tokens by id, as `printed` writes them, the ids of the special
    ones, and the name of the pattern that cuts a text into words."""

    # Nearly every text has none of the missing bytes, so we can pass it to the encoder as a whole. Otherwise we go word
    # by word. The order matters: we cut the text into words before we drop bytes, because the pattern must see the
    # whole text. Otherwise two words around a dropped character could become one.

    def encode_ordinary(self, text: str) -> list[int]:  # exercise
        """Return the tokens of a text without those bytes for which there is no token. Names of special tokens count as
        text. ValueError for half a character (`refuse_surrogates`)."""
        refuse_surrogates(text)
        if not set(self.missing) & set(text.encode()):
            found = super().encode_ordinary(text)
        else:
            words = (word.encode().translate(None, self.missing) for word in split(text, self.pattern))
            found = [number for word in words for number in encode_long_word(word, self.ranks)]
        return [self.numbers[number] for number in found]


# We check it with a small vocabulary that lacks half of the bytes, so that it drops an é.


def check_tokenizer():
    names = ["<end>", *map(printed, BYTES[:128]), *map(printed, [b"he", b"hel", b"lo"]), "<start>"]
    tokenizer = FileTokenizer(names, [0, len(names) - 1], "smollm")
    ids = tokenizer.encode("hello 12<end>", allowed_special="all")
    assert [tokenizer.token_bytes(number) for number in ids] == [b"hel", b"lo", b" ", b"1", b"2", b"<end>"]
    assert ids[-1] == 0 and tokenizer.decode(ids) == "hello 12<end>" and tokenizer.encode("é") == []


# ## A chat is a text
#
# A language model continues texts. It knows nothing about questions and answers, let alone about speakers. It becomes a
# chat model because all chats of its fine-tuning were written down in one form, and we must follow this form to the
# letter. Files contain it as a *chat template*, in the language of Jinja, with which people also make web pages:


def show_template():
    if (file := weights_file()) is None:
        return
    template = read_gguf(file)[0]["tokenizer.chat_template"]
    print(template)
    print("-" * 20)
    print(laid_out([{"role": "user", "content": "Hello!"}], template))


# After the end of that text, `assistant` and a new line, the model takes over. When it has written its answer it writes
# `<|im_end|>`, and at this token we stop. Here is the whole path of a request:
#
# ```mermaid
# flowchart LR
#     M["messages"] -- "template" --> T["one text"] -- "tokenizer" --> I["token ids"]
#     I -- "those that are new" --> R["model with KV cache"] --> L["logits"] -- "sampling" --> N["next token"]
#     N -- "until a stop token" --> R
#     N -- "bytes, whole characters" --> A["answer, piece by piece"]
# ```
#
# A template is a program, and it comes from a stranger's file. For such programs Jinja has a *sandbox*, in which they
# can see only the values that we give them.


def laid_out(messages: Sequence[Mapping[str, str]], template: str | None) -> str:  # exercise
    """Return the messages of a chat, each with a role and a content, as one text that ends where the answer begins.
    Without a template each content becomes a line. ValueError for a template that fails."""
    if template is None:
        return "".join(f"{message['content']}\n" for message in messages)
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse_chat
    try:
        return environment.from_string(template).render(messages=list(messages), add_generation_prompt=True)
    except Exception as error:  # the program is not ours, so anything may happen in it
        raise ValueError(f"the chat template cannot lay out these messages: {error}") from None


# A template may itself refuse a chat, for example one with two questions in a row.


def refuse_chat(why: str) -> None:
    """Raise TemplateError: templates call this as `raise_exception`, for chats that the model cannot take."""
    raise TemplateError(why)


# ## It answers
#
# A model, its tokenizer, its template, and the tokens that end an answer belong together. From here on we keep them in
# one object. You can also put a GPT of chapter 14 into it. Since it has no template, its chat is a text with a line for
# each message.


@dataclass(eq=False)
class LanguageModel:
    """A model with its tokenizer, the tokens that end an answer, and the Jinja template that lays out a chat, if it has
    one."""

    name: str
    model: Any
    tokenizer: Any
    stop: frozenset[int] = frozenset()
    template: str | None = None

    # A *prompt* is the text that the model continues. Text is text here: if `<|im_end|>` appears in it, the tokenizer
    # must not turn it into the special token, unless we ask for that.

    def prompt(self, text: str, special: bool = False) -> list[int]:
        """Return the tokens of a text to continue. With `special`, names of special tokens in the text become these
        tokens. ValueError for a text without tokens, or with characters that the tokenizer does not know."""
        if not isinstance(self.tokenizer, Encoder):
            return token_ids(self.tokenizer.encode(text))
        allowed = "all" if special else ()
        return token_ids(self.tokenizer.encode(text, allowed_special=allowed, disallowed_special=()))

    # The template writes special tokens, and they must act as such. Those in the message of a *user* must not. If you
    # could type `<|im_end|>` into a message, you could continue in another role; this is a form of *prompt injection*.
    # So we insert a character of no width into each special token in a content, which turns it into plain text.

    def chat_prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:  # exercise
        """Return the tokens of a chat up to where the answer begins. Special tokens in contents are broken up."""
        names = getattr(self.tokenizer, "special_tokens", {})
        plain = []
        for message in messages:
            content = message["content"]
            for name in names:
                content = content.replace(name, f"{name[:1]}\u200b{name[1:]}")
            plain.append({"role": message["role"], "content": content})
        return self.prompt(laid_out(plain, self.template), special=True)

    # We return the answer in pieces, as the model writes it.

    def answer(  # exercise
        self, messages: Sequence[Mapping[str, str]], max_new_tokens: int = 512, *, cache: KVCache | None = None, **how
    ) -> Iterator[str]:
        """Yield the answer to a chat, piece by piece, in whole characters; `how` as for `tt_opt.stream`."""
        tokens = stream(self.model, self.chat_prompt(messages), max_new_tokens, cache=cache, stop=self.stop, **how)
        return self.tokenizer.decode_stream(token for token in tokens if token not in self.stop)


# We load all of it from one file. Its metadata list the tokens by id, mark the special ones, name the pattern that cuts
# words, and say which token ends an answer.


def load_language_model(path: str | os.PathLike) -> LanguageModel:
    """Load the Llama, the tokenizer and the chat template, if any, of a GGUF file. ValueError for a file that lacks one
    of the first two, or whose tokenizer we do not know."""
    metadata, _ = read_gguf(path)
    model = load_llama(path)
    try:
        names, special, pattern, stop = described_tokens(metadata, model.config.vocab_size)
        tokenizer = FileTokenizer(names, special, pattern)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has no tokenizer that we can read: {error}") from None
    return LanguageModel(Path(path).stem, model, tokenizer, stop, metadata.get("tokenizer.chat_template"))


# Now you can ask.


def show_answer():
    if (file := weights_file()) is None:
        return
    with accelerate():
        chat = load_language_model(file)
        for question in ("What is the capital of France?", "Why is the sky blue? Answer in one sentence."):
            answer = "".join(chat.answer([{"role": "user", "content": question}], 60, temperature=0))
            print(f"{question}\n    {answer}")


# It answers, with our tensors, our attention and our cache. (It is a small model, and some of its answers are wrong.
# That part is not our fault.)

# ## The witness
#
# An answer that sounds right proves little, because a model with a mistake in one of its thirty blocks still writes
# English. So our tests compare numbers. `transformers` has the same architecture in PyTorch, and with our weights,
# unpacked, its logits must equal ours. The `tokenizers` library must find the same tokens as we do in the 28 hard texts
# of chapter 11, and in a thousand random ones. Finally there is *llama.cpp*, which many people use to run such files.
# Its answers must be ours as far as rounding allows, since it rounds activations to 8 bits as well.
#
# What can we check here, without any of them? With rotary positions only distances matter, so the model must read a
# text in the same way wherever it begins. We read a text at positions from 0 on, and then from 7 on.


def check_only_distances_matter():
    trunk, ids = small_llama().model, from_numpy(np.arange(10))
    model = trunk.layers[0].self_attn

    def attend(layer, q, k, v):
        return look_back(from_numpy(q.copy()), from_numpy(k.copy()), from_numpy(v.copy()))

    early, late = (trunk.through(ids, np.arange(10) + start, attend).numpy() for start in (0, 7))
    assert model.base == 10_000.0 and np.allclose(early, late, atol=1e-4)


# ## The cost
#
# Chapter 16 ended with a floor for the time of a token: every weight must come from memory once. Now our weights have 4
# bits. Each block of 32 takes 20 bytes in `q4_1`, and the table has 8 bits. With each token we also read the keys and
# values of all tokens before it.


def bytes_of_a_token(model: Llama, length: int) -> int:  # exercise
    """Return the bytes that reading one token must fetch, the last of a text of `length`: keys, values, and all
    weights; of a table that is not shared with the last layer, only one row."""
    config, weights = model.config, model_bytes(model)
    if not config.tied:
        table: Any = model.model.embed_tokens
        rows = table.rows if isinstance(table, Quantized) else table.weight
        weights -= rows.nbytes - rows[0].nbytes
    head = config.n_embd // config.n_head
    return weights + 2 * config.n_layer * length * config.n_kv_head * head * 4


# We compare the formula with a measurement. In chapter 01 we measured how fast this machine reads memory.


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
    packed, unpacked = model_bytes(chat.model) / 1e6, 4 * llama_parameters(chat.model.config) / 1e6
    print(f"{packed:.0f} MB of weights; in float32 they would take {unpacked:.0f} MB")
    print(f"a token needs {size / 1e6:.0f} MB, read in {floor * 1e3:.1f} ms; it takes {measured * 1e3:.1f} ms")


# Most of the difference goes to Python between the products, about a thousand operations for each token. In the
# appendix *Fused* we combine many of them, and `tito chat` uses it. On the page *Benchmarks* you find our rate beside
# that of llama.cpp.

# ## Three routes
#
# You can see the worth of a framework in the programs that people build with it. There are three routes from here, and
# at the end of each you have something that others can use.
#
# 1. **A vision trainer against the clock.** The network of chapter 10's milestone learned for 22 minutes. How fast do
#    two cores reach 75 % on CIFAR-10 if we use everything in this course? The appendix *Vision* describes what helped,
#    and `examples/dawnbench_2017` needs about a minute.
# 2. **A language model that answers.** You chat with `tito chat` in the terminal, and programs use `tito serve`. The
#    appendices *Chat*, *Engine* and *Serve* give it the interface that most programs for language models understand.
# 3. **Your own.** `tito capstone new` starts your project, with a budget of time, memory and accuracy, and `tito
#    capstone check` measures whether you keep it. We made `examples/digits_2026` that way.
#
# Your network may also leave. You can write it as ONNX, a format that other programs run (the appendix *ONNX files*),
# add a *model card* with measurements of what it can do (*Cards*), or pack it into a single file that runs without us
# (*Shipping*).

# ## Errors you will meet
#
# The sizes of a model may not fit together, or a file may hold another model, or only a part of one.


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
# Besides the exercises that are marked in the text:
#
# 1. Write `recent`, for a conversation that has become too long for the context. What would you leave out?
# 2. Write `least_surprising`, which lets the model choose among given answers; most tests of language models work this
#    way. Try it with questions of your own. How often is the model right when you shuffle the answers?
# 3. Ask for the same story at temperatures 0, 0.2 and 1.5, and with top-p 0.9. Where does it begin to repeat itself,
#    and where does it stop making sense?


def recent(  # exercise
    chat: LanguageModel, messages: Sequence[Mapping[str, str]], room: int
) -> list[Mapping[str, str]]:
    """Return the messages of a chat without its oldest ones, leaving out as few as possible so that the prompt and
    `room` more tokens fit into the context. A system message at the beginning stays, and so does the last message.
    ValueError if these alone are too long."""
    context, kept = chat.model.config.block_size, list(messages)
    first = 1 if kept and kept[0]["role"] == "system" else 0
    while len(chat.chat_prompt(kept)) + room > context:
        if len(kept) <= first + 1:
            size = len(chat.chat_prompt(kept))
            raise ValueError(f"{size} tokens and {room} for the answer do not fit into a context of {context}")
        del kept[first]
    return kept


# For the second exercise, read each answer without its last token behind the same prompt. With `cache.keep` you return
# to the end of the prompt.


def least_surprising(  # exercise
    chat: LanguageModel, messages: Sequence[Mapping[str, str]], answers: Sequence[str]
) -> int:
    """Return the index of the answer whose tokens have the smallest mean surprise, as the answer to a chat."""
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


# To try both, you need a chat of a small model whose tokens are the 256 bytes. It talks nonsense, but in perfect form.
# Its context of 64 tokens is soon full: four messages of 18 tokens do not fit into it.


def small_chat() -> LanguageModel:
    """Return a chat with a small Llama of random weights, whose tokens are the 256 bytes."""
    tt.manual_seed(0)
    tokenizer = FileTokenizer([*map(printed, BYTES), "<end>"], [256], "gpt2")
    template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}<end>{% endfor %}"
    return LanguageModel("small", small_llama(257), tokenizer, frozenset({256}), template)


# ## A road not taken
#
# Our chat model computes in `float32` and unpacks weights in registers. llama.cpp also rounds the inputs of each
# product to 8 bits and multiplies integers, for which processors have special instructions. That is faster and a bit
# less exact. Its authors write kernels by hand for each kind of processor; ours are loops that we leave to a compiler.
# PyTorch runs such models with `torch.compile`, which fuses the operations between the products. tinygrad does that for
# all programs and has no kernels written by hand. Servers for many users (vLLM, SGLang) keep caches in pages and share
# them between requests.

# ## The end of the course
#
# In chapter 01 we asked whether this machine computes at all. Since then we have begun every chapter with something
# that hurt and have taken the pain away. What hurts now? One machine is small. A model of 70 billion weights does not
# fit into it, and training such a model takes thousands of machines that must agree on every step. That road begins in
# the appendix *Data parallel* of chapter 15. The models of today also look at images and use tools. We have not touched
# the art of teaching them to answer by preferences (*reinforcement learning from human feedback*) at all. But now you
# know what they are made of.
#
# The rest is route 3. It is your own.

__all__ = [
    "FileTokenizer", "LanguageModel", "Llama", "LlamaBlock", "LlamaConfig", "LlamaTransformer", "PARTS",
    "SMOLLM2", "SMOLLM2_FILE", "bytes_of_a_token", "halves", "laid_out", "least_surprising", "llama_config",
    "llama_parameters", "load_language_model", "load_llama", "neighbours", "recent", "small_chat", "small_llama",
    "weights_file",
]
