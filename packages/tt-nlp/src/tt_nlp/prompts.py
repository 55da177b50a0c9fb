"""What may be asked of a language model: checks of its sizes, of texts, prompts and ids, and of what a draw needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tt_tensor import Tensor


def token_ids(prompt: Iterable) -> list[int]:
    """A prompt as a list of integers. TypeError for a text or floats, ValueError for a prompt without tokens."""
    if isinstance(prompt, str | bytes) or not isinstance(prompt, Iterable):
        raise TypeError(f"a prompt is token ids, such as tokenizer.encode(text), not {prompt!r:.60}")
    ids = prompt.tolist() if isinstance(prompt, Tensor | np.ndarray) else list(prompt)
    if not ids:
        raise ValueError("a prompt needs at least one token, to have something to continue")
    ids = [token.item() if isinstance(token, Tensor | np.ndarray) and token.ndim == 0 else token for token in ids]
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int | np.integer):
            raise TypeError(f"a prompt is a list of integers, and {token!r:.60} is none; .long() makes integers")
    return [int(token) for token in ids]


def as_texts(prompt) -> tuple[list[list[int]], bool]:
    """A prompt, or several (a list of prompts, or a tensor (B, T)), as lists of token ids; and whether there were
    several. Raises as `token_ids` does."""
    prompt = list(prompt) if isinstance(prompt, Iterable) and not isinstance(prompt, str | bytes) else prompt
    several = isinstance(prompt, list) and prompt and getattr(prompt[0], "ndim", isinstance(prompt[0], Sequence))
    return [token_ids(text) for text in (prompt if several else [prompt])], bool(several)


def refuse_settings(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """ValueError for a temperature, top_k or top_p that cannot be meant."""
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature is 0 or more, and finite, not {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is the number of tokens to choose from, at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is a probability above 0 and at most 1, not {top_p}")


def refuse_ids_that_do_not_fit(ids: Tensor, block_size: int) -> None:
    """ValueError for ids that are not (batch, time), or longer than the context."""
    if ids.ndim != 2 or not ids.shape[1]:
        raise ValueError(f"token ids are (batch, time) with at least one token, not of shape {ids.shape}")
    if ids.shape[1] > block_size:
        raise ValueError(
            f"{ids.shape[1]} tokens do not fit into a context of block_size {block_size}: give the last {block_size}, "
            "or let generate() do so"
        )


def refuse_sizes(sizes: Mapping[str, Any]) -> None:
    """ValueError for the fields of a `GPTConfig` by name, if no network can have them."""
    for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
        value = sizes[name]
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, not {value!r}")
    width, heads, dropout = sizes["n_embd"], sizes["n_head"], sizes["dropout"]
    if width % heads:
        raise ValueError(f"{heads} heads do not divide a width of {width}; n_embd % n_head must be 0")
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout must be a probability between 0 and 1, not {dropout!r}")


def checked_logits(logits: np.ndarray) -> np.ndarray:
    """Logits (V,) in float64. Raises ValueError if they are not a vector, or if the largest is not finite."""
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 1 or not logits.size or not np.isfinite(logits.max()):
        raise ValueError(f"logits are numbers (V,), the largest of them finite, not {logits}; has the model diverged?")
    return logits


def refuse_text(ids: Sequence[int], length: int) -> np.ndarray:
    """The ids of a text as an array. TypeError for a text that is not a list of integers, ValueError for one without
    a window of `length` tokens and one more."""
    array = np.asarray(ids)
    if array.size and (array.ndim != 1 or array.dtype.kind not in "iu"):
        raise TypeError(f"a text is a list of integers, not {array.dtype} of shape {array.shape}; encode it first")
    if length < 1 or len(array) <= length:
        raise ValueError(f"a window of {length} tokens and one more do not fit into a text of {len(array)}")
    return array
