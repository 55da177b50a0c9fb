"""What GGUF files say about a Llama, checked: sizes that fit together, and a tokenizer that we know.

A support module of chapter 20. It knows metadata and arrays but not models, so the chapter can build on it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

SIZES = {
    "block_size": "context_length", "n_layer": "block_count", "n_head": "attention.head_count",
    "n_kv_head": "attention.head_count_kv", "n_embd": "embedding_length", "n_hidden": "feed_forward_length",
}  # fmt: skip
PRETOKENIZERS = {"gpt-2": "gpt2", "smollm": "smollm"}  # what a file calls a pattern
ENDS = ("<|endoftext|>", "<|im_end|>")  # special tokens that end an answer


def refuse_llama_sizes(config: Any) -> None:
    """Raise ValueError for the hyperparameters of a Llama that do not fit together."""
    for name in ("vocab_size", "block_size", "n_head", "n_kv_head", "n_embd", "n_hidden"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, not {getattr(config, name)}")
    if config.n_layer < 0 or not config.base > 1 or not config.eps > 0:
        raise ValueError(f"a Llama needs 0 or more blocks, a base above 1 and an eps above 0, not {config}")
    if config.n_embd % (2 * config.n_head) or config.n_head % config.n_kv_head:
        raise ValueError(
            f"{config.n_head} heads must cut the width {config.n_embd} into even parts, and {config.n_kv_head} heads "
            "of keys must divide them"
        )


def described_sizes(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters of the Llama that a GGUF file describes, except for its vocabulary. KeyError or
    TypeError for entries that are missing or not numbers, ValueError for rotary positions that our Llama lacks."""
    sizes: dict[str, Any] = {ours: operator.index(metadata[f"llama.{name}"]) for ours, name in SIZES.items()}
    sizes["base"] = float(metadata.get("llama.rope.freq_base", 10_000.0))
    sizes["eps"] = float(metadata["llama.attention.layer_norm_rms_epsilon"])
    head = sizes["n_embd"] // (sizes["n_head"] or 1)
    turned = metadata.get("llama.rope.dimension_count", head)
    scaling = metadata.get("llama.rope.scaling.type", "none")
    if scaling != "none" or turned != head:
        raise ValueError(f"its positions turn {turned} numbers of a head, with the scaling {scaling!r}")
    return sizes


def refuse_too_few(tensors: Mapping[str, Any], config: Any, parameters: int) -> None:
    """Raise ValueError if a file has far too few tensors for its sizes: the model would take any amount of memory."""
    there = sum(math.prod(tensor.shape) for tensor in tensors.values())
    if config.n_layer > len(tensors) or parameters > 2 * there:
        raise ValueError(f"{len(tensors)} tensors with {there:,d} numbers are not enough for {config}")


def described_tokens(metadata: Mapping[str, Any], vocabulary: int) -> tuple[list[str], list[int], str, frozenset[int]]:
    """Return the names of the tokens of a GGUF file, the ids of the special ones, the pattern that cuts a text into
    words, and the ids that end an answer. KeyError, TypeError or ValueError for a tokenizer that we do not know."""
    names, kinds = metadata["tokenizer.ggml.tokens"], np.asarray(metadata["tokenizer.ggml.token_type"])
    kind, pattern = metadata["tokenizer.ggml.model"], PRETOKENIZERS[metadata.get("tokenizer.ggml.pre", "gpt-2")]
    if kind != "gpt2" or not len(names) == len(kinds) == vocabulary:
        raise ValueError(f"{len(names)} tokens of a model {kind!r} for a vocabulary of {vocabulary}")
    special = np.flatnonzero(kinds != 1).tolist()
    ends = {number for number in special if names[number] in ENDS}
    return names, special, pattern, frozenset({metadata["tokenizer.ggml.eos_token_id"], *ends} - {-1})


__all__ = ["SIZES", "described_sizes", "described_tokens", "refuse_llama_sizes", "refuse_too_few"]
