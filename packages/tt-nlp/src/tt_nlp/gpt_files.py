# # GPT files
#
# An appendix of chapter 14: we read and write GPT-2's weights in the files of the `transformers` library. So you can
# load the weights that OpenAI trained in 2019 into the `GPT` of the chapter, and use elsewhere what you trained with
# it.

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tt_nlp.transformers import GPT, GPTConfig
from tt_tensor import from_numpy

# ## The layout
#
# A model is a folder with two files: `config.json`, which describes the sizes, and `model.safetensors`, which has the
# weights by name. The names are those of our chapter. Three things differ.
#
# - In GPT-2's own program a linear layer multiplied from the other side, `x @ weight`. Its weights are still stored in
#   that form, (in, out), so we must transpose them.
# - The shared weight is stored once, as `transformer.wte.weight`.
# - Older files leave out the first word of the names, and also hold the causal masks, as `attn.bias`.

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LINEAR = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
MASKS = (".attn.bias", ".attn.masked_bias")


def to_file_layout(model: GPT) -> dict[str, np.ndarray]:
    """Return the weights of a model by name, as arrays in the layout of the files."""
    return {
        name: np.ascontiguousarray(tensor.numpy().T if name.endswith(LINEAR) else tensor.numpy())
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }


# On the way back we restore what the file leaves out. A file may have the last layer's weight under its own name, if it
# is the same. Two different tables would be another architecture, so we reject them.


def from_file_layout(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return stored arrays as the state of a GPT. Raises ValueError for a last layer with weights of its own."""
    state = {}
    for name, array in arrays.items():
        if not name.endswith(MASKS):
            full = name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"
            state[full] = array.T if name.endswith(LINEAR) else array
    if "transformer.wte.weight" not in state:
        found = ", ".join(sorted(arrays))
        raise ValueError(f"there is no wte.weight; these are not the weights of a GPT-2, but {found[:200]}")
    table = state["transformer.wte.weight"]
    if not np.array_equal(state.setdefault("lm_head.weight", table), table):
        raise ValueError("lm_head.weight differs from transformer.wte.weight; in a GPT they are one parameter")
    return state


# Whether a file has the new names or the old ones, we must get the same state back.


def check_there_and_back():
    model = GPT(GPTConfig(vocab_size=10, block_size=4, n_layer=1, n_head=2, n_embd=4))
    stored = to_file_layout(model)
    assert stored["transformer.h.0.attn.c_attn.weight"].shape == (4, 12) and "lm_head.weight" not in stored
    old = {name.removeprefix("transformer."): array for name, array in stored.items()}
    for state in (from_file_layout(stored), from_file_layout(old | {"h.0.attn.bias": np.ones((4, 4))})):
        assert {name: a.tolist() for name, a in state.items()} == {n: t.tolist() for n, t in model.state_dict().items()}


# ## The sizes
#
# The keys of `config.json` are those of `transformers`. Most of them describe what every GPT-2 has in common. If a file
# says something else, we reject it, because its weights would load silently and mean another network.


def _described(config: GPTConfig) -> dict[str, Any]:
    dropouts = dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), config.dropout)
    sizes = {"n_positions": config.block_size, "n_ctx": config.block_size, "n_embd": config.n_embd}
    return {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": config.vocab_size, **sizes,
        "n_layer": config.n_layer, "n_head": config.n_head, "n_inner": None, **dropouts,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False, "tie_word_embeddings": True, "torch_dtype": "float32",
        "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip


# These are the values that we accept. A key that is missing has the first one.

FIXED = {
    "model_type": ("gpt2",), "activation_function": ("gelu_new", "gelu_pytorch_tanh"), "n_inner": (None,),
    "layer_norm_epsilon": (1e-5,), "scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,),
    "tie_word_embeddings": (True,),
}  # fmt: skip


# The rest are the sizes, from which we build our own config.


def _config_of(described: Mapping[str, Any], file: Path) -> GPTConfig:
    try:
        sizes = {name: described[name] for name in ("vocab_size", "n_layer", "n_head", "n_embd")}
        config = GPTConfig(block_size=described["n_positions"], dropout=described.get("resid_pdrop", 0.1), **sizes)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{file} does not describe a GPT-2: {error}") from None
    for name, known in FIXED.items():
        value = described.get(name, known[0])
        if value not in known and not (name == "n_inner" and value == 4 * config.n_embd):
            raise ValueError(f"{file} has {name} {value!r}; the GPT of chapter 14 knows {', '.join(map(repr, known))}")
    return config


# ## Writing
#
# If you look into the folder at any time, you find whole files, because we write each under another name first and then
# rename it. We add a checksum over names, shapes and numbers to the metadata. `transformers` asks only for the key
# `format`.


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


# The model and its description are written one after the other, each as a whole.


def write_whole(file: Path, content: bytes) -> None:
    """Write a file atomically: it has the old content or the new one, and never a part."""
    unfinished = file.with_name(f".{file.name}.unfinished")
    with open(unfinished, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(unfinished, file)


def save_gpt2(model: GPT, folder: str | os.PathLike) -> None:
    """Write a model into a folder, which is created if necessary, as GPT2LMHeadModel.save_pretrained of `transformers`
    does."""
    (folder := Path(folder)).mkdir(parents=True, exist_ok=True)
    write_arrays(folder / WEIGHTS, to_file_layout(model))
    write_whole(folder / CONFIG, (json.dumps(_described(model.config), indent=2) + "\n").encode())


# The arrays go into a file of the format *safetensors*: a header in JSON, and then the numbers.


def write_arrays(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays by name as a safetensors file, atomically, with a checksum among its metadata."""
    from safetensors.numpy import save

    write_whole(file, save(arrays, metadata={"format": "pt", "sha256": _digest(arrays)}))


# ## Reading
#
# We report a missing file as a `FileNotFoundError`, and everything else that can be wrong with the two files as a
# `ValueError` that names the file. We turn 16-bit numbers into 32-bit numbers. There are two kinds of them. NumPy knows
# `float16`, but not `bfloat16`, which is the upper half of a `float32`. So we put the lower half, zeros, back.

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def decoded(name: str, kind: str, shape: list[int], data: bytes) -> np.ndarray:
    """Return a stored tensor as an array. ValueError for numbers that are not floats."""
    if kind not in FLOATS and not name.endswith(MASKS):
        raise ValueError(f"{name} has numbers of the kind {kind}; weights are floats, of {', '.join(FLOATS)}")
    array: np.ndarray = np.frombuffer(data, np.dtype(FLOATS.get(kind, "u1")))
    if kind == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.reshape(shape if kind in FLOATS else -1)


def check_bfloat16():
    stored = np.array([1.0, -2.5], "<f4").view("<u2")[1::2].tobytes()
    assert decoded("weight", "BF16", [2], stored).tolist() == [1.0, -2.5]


# Now we can load a model. We begin with the description, build a GPT of these sizes, and fill it with the weights.


def load_gpt2(folder: str | os.PathLike) -> GPT:
    """Return the model in a folder, as `save_gpt2` or `transformers` wrote it, in evaluation mode. Raises
    FileNotFoundError, or ValueError for files that are damaged, are not a GPT-2, or do not fit each other."""
    folder = Path(folder)
    model = GPT(_config_of(read_described(folder), folder / CONFIG))
    try:
        state = from_file_layout(read_arrays(folder / WEIGHTS))
        model.load_state_dict({name: from_numpy(array) for name, array in state.items()})
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{folder / WEIGHTS} does not fit the sizes in {CONFIG}, or is damaged: {error}") from None
    return model.eval()


# The two functions that read the files know nothing about GPT-2, so other chapters can use them.


def read_described(folder: Path, weights: str = WEIGHTS) -> dict[str, Any]:
    """Return the `config.json` of a folder that also has weights. Raises FileNotFoundError, or ValueError if it is
    damaged."""
    for name in (CONFIG, weights):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"there is no {name} in {folder}; a model is a folder with {CONFIG} and {weights}")
    try:
        described = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG} is damaged: {error}") from None
    if not isinstance(described, dict):
        raise ValueError(f"{folder / CONFIG} is damaged: it does not hold a table of names and values")
    return described


# A file of weights may be cut off, or a bit of it may have flipped. The format notices the first, our checksum the
# second.


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file by name, 16-bit numbers as float32. ValueError for a damaged file."""
    from safetensors import SafetensorError, deserialize, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            expected = (opened.metadata() or {}).get("sha256")
        stored = deserialize(file.read_bytes())
    except (SafetensorError, TypeError, KeyError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise ValueError(f"it is not a safetensors file: {error}") from None
    arrays = {name: decoded(name, entry["dtype"], entry["shape"], entry["data"]) for name, entry in stored}
    if expected and _digest(arrays) != expected:
        raise ValueError(f"its contents do not have the checksum {expected[:12]}... that was stored with them")
    return {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in arrays.items()}


# We check that we get back what we stored, and that a flipped bit is noticed.


def check_files():
    model = GPT(GPTConfig(vocab_size=10, block_size=4, n_layer=1, n_head=2, n_embd=4))
    with tempfile.TemporaryDirectory() as folder:
        save_gpt2(model, folder)
        again = load_gpt2(folder)
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(model.parameters(), again.parameters()))


def check_a_flipped_bit_is_noticed():
    with tempfile.TemporaryDirectory() as folder:
        save_gpt2(GPT(GPTConfig(vocab_size=10, block_size=4, n_layer=1, n_head=2, n_embd=4)), folder)
        file = Path(folder, WEIGHTS)
        file.write_bytes(file.read_bytes()[:-1] + b"!")
        try:
            load_gpt2(folder)
        except ValueError as error:
            said = str(error)
    assert "checksum" in said


__all__ = [
    "from_file_layout", "load_gpt2", "read_arrays", "read_described", "save_gpt2", "to_file_layout", "write_arrays",
    "write_whole",
]
