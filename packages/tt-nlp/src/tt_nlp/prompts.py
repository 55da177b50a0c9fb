"""What may be asked of a language model: checks of prompts, of ids and of the settings of a draw."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

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
