# # Llama files
#
# An appendix of chapter 20. At the end of it our Llama reads and writes the folders of the `transformers` library. So
# you can run a model here that was trained with PyTorch, and take a model that you have changed back there. It also
# writes GGUF, the format that the chapter reads.

from __future__ import annotations

import json
import operator
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tt_capstone.arguments import SIZES as GGUF_SIZES
from tt_capstone.capstone import (
    PARTS, FileTokenizer, Llama, LlamaConfig, halves, load_llama, neighbours, small_llama,
)
from tt_nlp import read_arrays, read_described, write_arrays, write_whole
from tt_opt import packed_tensor, quantize_, write_gguf
from tt_tensor import from_numpy

# ## The layout
#
# As for the GPT-2 of chapter 14, a model is a folder with two files: `config.json` has the sizes and
# `model.safetensors` has the weights by name. The names are ours, because we took them from there in chapter 20. There
# are two differences.
#
# - A shared weight is stored once, as `model.embed_tokens.weight`.
# - The rows of the queries and keys are in another order.
#
# The second point deserves a picture, because a mistake in it is silent: every shape fits, but the model writes
# nonsense. A rotation turns the elements of a head in pairs. We turn neighbours, and `transformers` turns the two
# *halves* against each other. For a head of $D = 8$ elements, the table shows to which pair each row belongs:
#
# | row | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
# | --- | --- | --- | --- | --- | --- | --- | --- | --- |
# | pair, `transformers` | a | b | c | d | a | b | c | d |
# | pair, ours | a | a | b | b | c | c | d | d |
#
# Attention uses only products of queries and keys. These do not change if we permute the elements of both in the same
# way. So we sort the rows once, when we read or write, with the chapter's `neighbours` and `halves`. Values and
# everything else stay as they are.

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TABLE, LAST = "model.embed_tokens.weight", "lm_head.weight"


def reordered(arrays: Mapping[str, np.ndarray], config: LlamaConfig, order: Any) -> dict[str, np.ndarray]:
    """Return the weights by name, with the rows of queries and keys in another order, `neighbours` or `halves`."""
    heads = {"q_proj.weight": config.n_head, "k_proj.weight": config.n_kv_head}
    found = {name: heads.get(".".join(name.split(".")[-2:])) for name in arrays}
    return {name: order(array, found[name]) if found[name] else array for name, array in arrays.items()}


def check_the_order_is_that_of_the_picture():
    rows, config = np.arange(8)[:, None], LlamaConfig(5, 8, 1, 1, 1, 8, 8)
    ours = reordered({"a.q_proj.weight": rows, "a.v_proj.weight": rows}, config, neighbours)
    pairs = np.array(list("abcdabcd"))[ours["a.q_proj.weight"].ravel()]
    assert "".join(pairs) == "aabbccdd" and ours["a.v_proj.weight"] is rows


# ## The sizes
#
# `config.json` has a name of its own for each size. The other entries describe the kind of Llama, and there are kinds
# that we do not have: with biases, with another activation, or with positions that are stretched for long texts. Their
# weights would often load without an error, although they mean another network. So we list the kind that we know, and
# refuse all others.

SIZES = {
    "vocab_size": "vocab_size", "block_size": "max_position_embeddings", "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads", "n_kv_head": "num_key_value_heads", "n_embd": "hidden_size",
    "n_hidden": "intermediate_size",
}  # fmt: skip
FIXED = {
    "model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "sliding_window": None,
    "rope_interleaved": False,
}  # fmt: skip


def described_llama(config: LlamaConfig) -> dict[str, Any]:
    """Return the content of `config.json` for a Llama."""
    sizes = {theirs: getattr(config, ours) for ours, theirs in SIZES.items()}
    return {
        "architectures": ["LlamaForCausalLM"], **FIXED, **sizes, "head_dim": config.n_embd // config.n_head,
        "rms_norm_eps": config.eps, "rope_theta": config.base, "rope_scaling": None,
        "tie_word_embeddings": config.tied, "torch_dtype": "float32", "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip


# When we read, a missing entry has the default of the library. The base of the rotary positions has moved: it was an
# entry `rope_theta`, and since version 5 of the library it is in a table `rope_parameters`, which also says whether
# positions are stretched.


def llama_config_of(described: Mapping[str, Any], file: Any) -> LlamaConfig:
    """Return the sizes of the Llama that a `config.json` describes. ValueError, which names the file, for another
    kind."""
    for name, known in FIXED.items():
        if (value := described.get(name, known)) != known:
            raise ValueError(f"{file} has {name} {value!r}, but the Llama of chapter 20 knows only {known!r}")
    filled = {"num_key_value_heads": described.get("num_attention_heads"), **described}
    try:
        sizes: dict[str, Any] = {ours: operator.index(filled[theirs]) for ours, theirs in SIZES.items()}
        eps, tied = float(filled.get("rms_norm_eps", 1e-6)), bool(filled.get("tie_word_embeddings", False))
        config = LlamaConfig(**sizes, base=rotary_base(filled), eps=eps, tied=tied)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} does not describe a Llama that we know: {error}") from None
    if described.get("head_dim") not in (None, config.n_embd // config.n_head):
        raise ValueError(
            f"{file} has heads of {described['head_dim']} numbers, and a width of {config.n_embd} for {config.n_head} "
            f"heads, which makes {config.n_embd // config.n_head}; the Llama of chapter 20 has no other heads"
        )
    return config


# Stretched positions have a `rope_type` or, in older files, a `type`. We refuse both.


def rotary_base(described: Mapping[str, Any]) -> float:
    """Return the base of the rotary positions. ValueError if they are stretched, or turn only a part of each head."""
    told = {"rope_theta": described.get("rope_theta", 10_000.0)}
    for name in ("rope_scaling", "rope_parameters"):
        told |= described.get(name) or {}
    kinds = {told.pop("rope_type", "default"), told.pop("type", "default")}
    base = float(told.pop("rope_theta"))
    if kinds != {"default"} or told.pop("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError(f"its rotary positions are of the kind {', '.join(sorted(map(str, kinds)))}, or partial")
    return base


def check_sizes():
    config = LlamaConfig(50, 64, 2, 4, 2, 32, 64, base=5e5, eps=1e-6, tied=False)
    assert llama_config_of(described_llama(config), "config.json") == config
    moved = {"rope_theta": None, "rope_parameters": {"rope_theta": 7e3, "rope_type": "default"}}
    assert llama_config_of(described_llama(config) | moved, "config.json").base == 7e3


# ## Writing
#
# We write `float32` numbers. We unpack a packed model, because `transformers` has no 4-bit blocks of this kind. So
# SmolLM2 grows from a file of 98 MB to one of 538 MB, but its logits stay the same.


def save_llama(model: Llama, folder: str | os.PathLike) -> None:
    """Write a Llama, packed or not, into a folder, as LlamaForCausalLM.save_pretrained of `transformers` does. The
    folder is created if it does not exist."""
    layers = model.named_modules(remove_duplicate=False)
    arrays = {f"{name}.weight": layer.weight.numpy() for name, layer in layers if hasattr(layer, "weight")}
    if model.config.tied:
        del arrays[LAST]
    stored = {name: np.ascontiguousarray(x) for name, x in reordered(arrays, model.config, halves).items()}
    (folder := Path(folder)).mkdir(parents=True, exist_ok=True)
    write_arrays(folder / WEIGHTS, stored)
    write_whole(folder / CONFIG, (json.dumps(described_llama(model.config), indent=2) + "\n").encode())


# ## Reading
#
# The weights of large models are in several files, and an index says which name is in which file. Its file names come
# from a stranger, so we accept only plain names: no path may lead out of the folder.


def stored_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Return the weights of a folder by name, from one file or from those of an index. ValueError for damaged files."""
    if not (index := folder / INDEX).is_file():
        return read_arrays(folder / WEIGHTS)
    try:
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        strange = [file for file in files if Path(file).name != file or not file.endswith(".safetensors")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is damaged: it lacks a table weight_map of file names ({error!r})") from None
    if strange:
        raise ValueError(f"{index} names {strange[0]!r}, which is not a .safetensors file in this folder")
    return {name: array for file in files for name, array in read_arrays(folder / file).items()}


# A file may contain the last layer although it shares the table. Then both must be equal, as in chapter 14.


def load_llama_folder(folder: str | os.PathLike) -> Llama:
    """Load the Llama in a folder, as `save_llama` or `transformers` wrote it, in evaluation mode, with float32 weights.
    Raises FileNotFoundError, or ValueError for files that are damaged, of another kind, or do not fit together."""
    folder = Path(folder)
    described = read_described(folder, INDEX if (folder / INDEX).is_file() else WEIGHTS)
    config = llama_config_of(described, folder / CONFIG)
    try:
        arrays = stored_arrays(folder)
        if config.tied and TABLE in arrays:
            if not np.array_equal(arrays.setdefault(LAST, arrays[TABLE]), arrays[TABLE]):
                raise ValueError(f"{LAST} differs from {TABLE}, although {CONFIG} says that they are shared")
        ours = reordered({n: x for n, x in arrays.items() if not n.endswith("inv_freq")}, config, neighbours)
        model = Llama(config)
        model.load_state_dict({name: from_numpy(np.ascontiguousarray(array)) for name, array in ours.items()})
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"the weights in {folder} do not fit the sizes in {CONFIG}, or are damaged: {error}") from None
    return model.eval()


# We check both directions, with a shared table and without, and with a packed model.


def check_there_and_back():
    ids = from_numpy(np.arange(10)[None])
    for tied in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            save_llama(model := small_llama(tied=tied), folder)
            again = load_llama_folder(folder)
        assert again.config == model.config and np.array_equal(again(ids).numpy(), model(ids).numpy())


def check_a_packed_model_is_unpacked():
    ids, model = from_numpy(np.arange(10)[None]), small_llama()
    quantize_(model, "q8_0")
    with tempfile.TemporaryDirectory() as folder:
        save_llama(model, folder)
        assert np.allclose(load_llama_folder(folder)(ids).numpy(), model(ids).numpy(), atol=1e-4)


# ## Its tokenizer
#
# Beside the model there is `tokenizer.json`, in the format of the `tokenizers` library, which can describe many kinds
# of tokenizers. We read the kind that we have: *byte pair encoding*, with a pattern that chapter 11 knows. Our encoder
# merges in the order of the token ids, so the merges of the file must have that order, too. They practically always do.


def tokenizer_of(file: Path, vocabulary: int) -> FileTokenizer:
    """Load the tokenizer of a `tokenizer.json` for a model of so many tokens. ValueError for one of another kind."""
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
        pairs, added = described["model"], {token["content"]: token["id"] for token in described["added_tokens"]}
        numbers = {**pairs["vocab"], **added}
        pattern = pattern_of(described)
        made = [numbers["".join(pair.split(" ") if isinstance(pair, str) else pair)] for pair in pairs["merges"]]
        by_number = {number: name for name, number in numbers.items()}
        if made != sorted(made) or not set(by_number) <= set(range(vocabulary)):
            raise ValueError(f"its tokens are not in the order of its merges, or have ids above {vocabulary - 1}")
        names = [by_number.get(number, f"<unused {number}>") for number in range(vocabulary)]
        special = [number for number in range(vocabulary) if number not in by_number or names[number] in added]
        return FileTokenizer(names, special, pattern)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} has no tokenizer that we can read: {error!r}") from None


# The file describes how to cut words as a short list of steps. We know two such lists: GPT-2's, and GPT-2's after
# digits have been set apart.


def pattern_of(described: Mapping[str, Any]) -> str:
    """Return the name of the pattern of a `tokenizer.json`. ValueError for another one, and for other kinds of
    models."""
    steps = described["pre_tokenizer"]
    steps = steps.get("pretokenizers", [steps])
    digits = [step.get("individual_digits") for step in steps[:-1]]
    last = (steps[-1]["type"], steps[-1].get("add_prefix_space", True), steps[-1].get("use_regex", True))
    kind = (described["model"]["type"], described.get("normalizer"), described["model"].get("byte_fallback", False))
    if kind != ("BPE", None, False) or last != ("ByteLevel", False, True) or digits not in ([], [True]):
        raise ValueError(f"we know byte pairs cut as by GPT-2, with or without single digits, not {steps!r:.200}")
    return "smollm" if digits else "gpt2"


def check_pattern():
    last = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    steps = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, last]}
    described = {"normalizer": None, "model": {"type": "BPE"}}
    assert pattern_of(described | {"pre_tokenizer": last}) == "gpt2"
    assert pattern_of(described | {"pre_tokenizer": steps}) == "smollm"


# We find the chat template in a file of its own, or in `tokenizer_config.json`, and the tokens that end an answer in
# `generation_config.json`, or among the sizes.


def chat_form(folder: Path) -> tuple[str | None, frozenset[int]]:
    """Return the chat template of a folder, if any, and the tokens that end an answer. ValueError for damaged files."""
    tables: dict[str, Any] = {}
    for name in (CONFIG, "tokenizer_config.json", "generation_config.json"):
        if (file := folder / name).is_file():
            try:
                table = json.loads(file.read_text(encoding="utf-8"))
                tables |= {key: value for key, value in table.items() if value is not None}
            except (ValueError, AttributeError) as error:
                raise ValueError(f"{file} is damaged: {error}") from None
    template, ends = tables.get("chat_template"), tables.get("eos_token_id", [])
    if (file := folder / "chat_template.jinja").is_file():
        template = file.read_text(encoding="utf-8")
    return template if isinstance(template, str) else None, frozenset(ends if isinstance(ends, list) else [ends])


# ## A Llama as GGUF
#
# The chapter reads GGUF files. Now we write them, so that a Llama which you have trained can go wherever such files are
# read. We take the names from the chapter's tables and pack the matrices. The vectors of the norms stay in `float32`,
# because they are small and each of their elements scales a whole column.


def save_llama_gguf(model: Llama, path: str | os.PathLike, kind: str = "q8_0", **metadata: Any) -> None:
    """Write a Llama with ordinary parameters as a GGUF file, with its matrices in the format `kind`, and more
    metadata."""
    config, modules = model.config, dict(model.named_modules(remove_duplicate=False))
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    names |= {} if config.tied else {"lm_head": "output"}
    for layer in range(config.n_layer):
        names |= {f"model.layers.{layer}.{ours}": f"blk.{layer}.{theirs}" for ours, theirs in PARTS.items()}
    arrays = {f"{theirs}.weight": modules[ours].weight.numpy() for ours, theirs in names.items()}
    sizes = {f"llama.{name}": getattr(config, ours) for ours, name in GGUF_SIZES.items()} | {
        "general.architecture": "llama", "llama.rope.freq_base": config.base,
        "llama.attention.layer_norm_rms_epsilon": config.eps,
    }  # fmt: skip
    packed = {name: packed_tensor(x, kind if x.ndim > 1 else "float32") for name, x in arrays.items()}
    write_gguf(path, sizes | metadata, packed)


# There and back again: with matrices in `float32` the logits must come back the same, and in `q8_0` nearly the same.


def check_gguf_there_and_back():
    ids = from_numpy(np.arange(10)[None])
    with tempfile.TemporaryDirectory() as folder:
        for kind, tied, least in (("float32", True, 1e-6), ("q8_0", False, 0.05)):
            save_llama_gguf(model := small_llama(tied=tied), file := Path(folder, f"{kind}.gguf"), kind)
            found = load_llama(file)(ids)
            assert np.abs(found.numpy() - model(ids).numpy()).max() < least


__all__ = ["chat_form", "load_llama_folder", "save_llama", "save_llama_gguf", "tokenizer_of"]
