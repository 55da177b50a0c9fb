# # GGUF
#
# An appendix of chapter 17. At the end of it you can read and write the files in which people exchange language models,
# and we refuse a file that lies about itself.

# ## What is in such a file
#
# The GPT files of chapter 14 hold `float32` numbers. Models of billions of weights travel in another format, GGUF (G.
# Gerganov, 2023), because it holds the packed blocks of chapter 17 and everything else that we need to run the model:
# its sizes, its tokens, and the form of a chat. A file has four parts:
#
# | part | what it holds |
# | --- | --- |
# | head | `GGUF`, the version 3, the number of tensors, the number of entries |
# | entries | for each a name, a type, a value: *metadata* |
# | descriptions | for each tensor a name, its sizes, its format, and where its bytes begin |
# | bytes | the tensors, each beginning at a multiple of the *alignment*, 32 unless an entry says otherwise |
#
# Numbers are little-endian. A text is its length in 8 bytes, followed by UTF-8. The sizes of a tensor come in reverse,
# the innermost first.

from __future__ import annotations

import math
import mmap
import operator
import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tt_nlp import GPT, GPTConfig
from tt_opt.precision import BLOCKS, FORMATS, QUANTIZED, ROW, Quantized, block_by_block, field_by_field
from tt_tensor import Tensor, from_numpy

# The format numbers its types, and so do we.

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
NUMBERS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?"}
NUMBERS |= {10: "<u8", 11: "<i8", 12: "<f8"}
TEXT, ARRAY = 8, 9  # the other two types of a value
KINDS = {0: "float32", 1: "float16", 2: "q4_0", 3: "q4_1", 8: "q8_0", 30: "bfloat16"}  # formats of tensors, by number
CODES = {kind: code for code, kind in KINDS.items()}
DEEP = 2  # arrays may hold arrays, but not without end
LONGEST = 1 << 16  # bytes of a name


# A tensor stays packed, and its bytes stay in the file until we use them: `data` is a view of the *memory-mapped* file.
# As soon as we look at a page of a mapped file, it counts as our memory. So after we have copied the rows
# of a tensor, we tell the system that it may have its pages back. We copy only a few rows at a time, or we would need
# the memory of a large table twice.

PART = 1 << 20  # bytes that are put into another order at a time


class PackedTensor(NamedTuple):
    """A tensor in a format, with its shape, the bytes of its rows, uint8 (rows, bytes of a row), and the mapped file,
    if they are in one."""

    kind: str
    shape: tuple[int, ...]
    data: np.ndarray
    file: mmap.mmap | None = None

    def numbers(self) -> np.ndarray:
        """Return the tensor as float32."""
        rows = self.data.view("<f4") if self.kind == "float32" else FORMATS[self.kind].unpack(self.rows())
        return rows.astype(np.float32).reshape(self.shape)

    def rows(self) -> np.ndarray:
        """Return the bytes as `FORMATS` has them: field by field, where a file has block by block."""
        if self.kind not in BLOCKS:
            return np.array(self.data)
        out, step = np.empty_like(self.data, subok=False), max(1, PART // self.data.shape[1])
        for start in range(0, len(out), step):
            out[start : start + step] = field_by_field(self.data[start : start + step].view(BLOCKS[self.kind]))
        if self.file is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.file.madvise(mmap.MADV_DONTNEED)
        return out


# To write a tensor we pack it. Rows that blocks do not fit become `float16`.


def packed_tensor(x: np.ndarray, kind: str) -> PackedTensor:
    """Return an array as a tensor in the format `kind`, or in float16 if blocks do not fit its rows."""
    rows = np.ascontiguousarray(x, np.float32).reshape(-1, x.shape[-1])
    if kind in BLOCKS and rows.shape[1] % ROW:
        kind = "float16"
    data = rows.view(np.uint8) if kind == "float32" else FORMATS[kind].pack(rows)
    if kind in BLOCKS:
        data = block_by_block(data, kind).view(np.uint8).reshape(len(rows), -1)
    return PackedTensor(kind, x.shape, data)


def _row_bytes(kind: str, width: int) -> int:
    """Return the bytes of a row of `width` numbers. ValueError if blocks do not fit."""
    if kind in BLOCKS:
        if width % ROW:
            raise ValueError(f"rows of {width} numbers cannot be cut into blocks of {ROW}")
        return width // ROW * BLOCKS[kind].itemsize
    return width * (4 if kind == "float32" else 2)


# ## Reading
#
# If a file comes from a stranger, every number in it is only a claim. A length may be larger than the file, an offset
# may point beyond its end, two tensors may share bytes, and sizes may multiply to more than any memory can hold. So we
# leave all of the reading to one small class, which checks before each step whether the file is long enough for it. We
# never allocate memory because of a number from the file alone.


class _Reader:
    def __init__(self, file: Path):
        self.file, self.mapped, self.place = file, None, 0
        self.data = np.empty(0, np.uint8)
        if file.stat().st_size:
            with open(file, "rb") as opened:
                self.mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            self.data = np.frombuffer(self.mapped, np.uint8)

    def refuse(self, why: str) -> ValueError:
        return ValueError(f"{self.file} is not a GGUF file that can be trusted: {why}, at byte {self.place:,d}")

    # Everything else goes through `take`, which never reads past the end.

    def take(self, count: int, what: str) -> memoryview:
        """Return the next bytes."""
        if count > len(self.data) - self.place:
            raise self.refuse(f"{what} takes {count:,d} bytes, but only {len(self.data) - self.place:,d} are left")
        self.place += count
        return self.data[self.place - count : self.place].data

    def number(self, form: str, what: str) -> int:
        (value,) = struct.unpack(form, self.take(struct.calcsize(form), what))
        return value

    def count(self, what: str, least: int) -> int:
        """Return how many parts follow, each of which takes at least so many bytes."""
        found = self.number("<Q", f"the number of {what}")
        left = len(self.data) - self.place
        if found * least > left:
            raise self.refuse(f"{found:,d} {what} do not fit into the {left:,d} bytes that are left")
        return found

    # A text may be long, but a name may not.

    def text(self, what: str, longest: int | None = None) -> str:
        length = self.number("<Q", f"the length of {what}")
        if longest is not None and length > longest:
            raise self.refuse(f"{what} has {length:,d} bytes, but a name may have at most {longest:,d}")
        try:
            return str(self.take(length, what), "utf-8")
        except UnicodeDecodeError:
            raise self.refuse(f"{what} is not UTF-8") from None

    # A value is a number, a text, or an array of these. We turn arrays of numbers into NumPy arrays.

    def value(self, kind: int, what: str, depth: int = 0) -> Any:
        if kind in NUMBERS:
            return self._numbers(NUMBERS[kind], 1, what)[0].item()
        if kind == TEXT:
            return self.text(what)
        if kind != ARRAY or depth == DEEP:
            raise self.refuse(f"{what} has a type that we do not know, {kind}, or is an array {DEEP} levels deep")
        kind = self.number("<I", f"the type of {what}")
        least = np.dtype(NUMBERS[kind]).itemsize if kind in NUMBERS else 8
        count = self.count(f"elements of {what}", least)
        if kind in NUMBERS:
            return self._numbers(NUMBERS[kind], count, what).copy()
        return [self.value(kind, what, depth + 1) for _ in range(count)]

    def _numbers(self, form: str, count: int, what: str) -> np.ndarray:
        data = self.take(count * np.dtype(form).itemsize, what)
        if form == "?" and max(data, default=0) > 1:
            raise self.refuse(f"{what} is a truth value that is neither 0 nor 1")
        return np.frombuffer(data, form)


# Now we read the parts in their order. Names must differ. Then we check the places of the tensors in the file: each
# must begin at a multiple of the alignment, end inside the file, and not reach into the next.


def read_gguf(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, PackedTensor]]:
    """Return the metadata and the tensors of a GGUF file of version 2 or 3, by name. The tensors are views of the file,
    which must not change meanwhile. Raises ValueError for a file that is damaged, or has formats that we do not
    know."""
    reader = _Reader(Path(path))
    if bytes(reader.take(4, "the head")) != MAGIC:
        raise reader.refuse("it does not begin with GGUF")
    if (version := reader.number("<I", "the version")) not in (2, VERSION):
        raise reader.refuse(f"its version is {version}, but only 2 and 3 can be read")
    tensors, entries = reader.count("tensors", 24), reader.count("entries", 13)
    metadata: dict[str, Any] = {}
    for _ in range(entries):
        name = reader.text("the name of an entry", LONGEST)
        if name in metadata:
            raise reader.refuse(f"two entries have the name {name!r}")
        metadata[name] = reader.value(reader.number("<I", f"the type of {name}"), name)
    described = [_description(reader) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
        raise reader.refuse(f"its alignment must be a power of 2, at least 8, not {alignment!r}")
    return metadata, _laid_out(reader, described, alignment)


# A tensor is described by its name, its sizes, its format and its offset.


def _description(reader: _Reader) -> tuple[str, str, tuple[int, ...], int]:
    """Return the name, format, shape and offset of a tensor."""
    name = reader.text("the name of a tensor", LONGEST)
    if (dims := reader.number("<I", f"the number of dimensions of {name}")) not in (1, 2, 3, 4):
        raise reader.refuse(f"{name} must have 1 to 4 dimensions, not {dims}")
    shape = tuple(reader.number("<Q", f"a size of {name}") for _ in range(dims))[::-1]
    code = reader.number("<I", f"the format of {name}")
    if code not in KINDS:
        raise reader.refuse(f"{name} has the format number {code}; we know {', '.join(KINDS.values())}")
    return name, KINDS[code], shape, reader.number("<Q", f"the offset of {name}")


# The places, in the order of their offsets:


def _laid_out(reader: _Reader, described: list, alignment: int) -> dict[str, PackedTensor]:
    start = -(-reader.place // alignment) * alignment
    found, end, before = {}, 0, ""
    for name, kind, shape, offset in sorted(described, key=lambda entry: entry[3]):
        try:
            width = _row_bytes(kind, shape[-1])
        except ValueError as error:
            raise reader.refuse(f"{name}: {error}") from None
        rows = math.prod(shape[:-1])
        if not all(shape) or offset % alignment or start + offset + rows * width > len(reader.data):
            raise reader.refuse(
                f"{name} of shape {shape} in {kind} takes {rows * width:,d} bytes from {offset:,d} on, of "
                f"{max(len(reader.data) - start, 0):,d}, and must begin at a multiple of {alignment}"
            )
        if offset < end:
            raise reader.refuse(f"the bytes of {name} are also those of {before}")
        if name in found:
            raise reader.refuse(f"two tensors have the name {name!r}")
        end, before = offset + rows * width, name
        data = reader.data[start + offset :][: rows * width].reshape(rows, width)
        found[name] = PackedTensor(kind, shape, data, reader.mapped)
    return found


# ## Writing
#
# We write the same parts in the same order. As everywhere in this course, we write a file under another name first,
# force it to the disk and then rename it, so that a reader finds either the old file or the new one, and never a part.


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> tuple[int, bytes]:
    """Return the type and the bytes of a value. TypeError for one that the format does not know."""
    if isinstance(value, str):
        return TEXT, _text(value)
    if isinstance(value, list | tuple):
        if not all(isinstance(element, str) for element in value):
            return _value(np.asarray(value))
        return ARRAY, struct.pack("<IQ", TEXT, len(value)) + b"".join(map(_text, value))
    array = np.asarray(value)
    if isinstance(value, int) and not isinstance(value, bool):
        array = array.astype(np.uint32 if 0 <= value < 1 << 32 else np.int64)
    if isinstance(value, float):
        array = array.astype(np.float32)
    form = array.dtype.newbyteorder("<") if array.dtype.kind != "b" else array.dtype
    codes = {np.dtype(name): code for code, name in NUMBERS.items()}
    if form not in codes or array.ndim > 1:
        raise TypeError(f"an entry must be a text, a number, or a list of either, not {value!r:.60}")
    data = array.astype(form).tobytes()
    return (codes[form], data) if array.ndim == 0 else (ARRAY, struct.pack("<IQ", codes[form], len(array)) + data)


# Descriptions come before the bytes, so we compute all offsets first.


def write_gguf(
    path: str | os.PathLike, metadata: Mapping[str, Any], tensors: Mapping[str, PackedTensor | np.ndarray]
) -> None:
    """Write a GGUF file, atomically. Arrays are written as float32, and Python's numbers in the metadata in 32 bits
    where that is enough. Raises TypeError for values that the format does not know."""
    packed = {name: t if isinstance(t, PackedTensor) else packed_tensor(t, "float32") for name, t in tensors.items()}
    alignment = int(metadata.get("general.alignment", ALIGNMENT))
    head = [MAGIC, struct.pack("<IQQ", VERSION, len(packed), len(metadata))]
    for name, value in metadata.items():
        code, written = _value(value)
        head += [_text(name), struct.pack("<I", code), written]
    offset = 0
    for name, tensor in packed.items():
        sizes = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape[::-1])
        head += [_text(name), sizes, struct.pack("<IQ", CODES[tensor.kind], offset)]
        offset += -(-tensor.data.nbytes // alignment) * alignment
    length = sum(map(len, head))
    parts: list[Any] = [*head, bytes(-length % alignment)]
    for tensor in packed.values():
        parts += [np.ascontiguousarray(tensor.data).data, bytes(-tensor.data.nbytes % alignment)]
    _write(Path(path), parts)


# The file itself is replaced in one step.


def _write(file: Path, parts: list) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=file.name, dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.writelines(parts)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


# There and back again, with a text, a list and a packed tensor:


def check_there_and_back():
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "small.gguf")
        x = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
        write_gguf(file, {"a.text": "ä", "a.list": [1, 2]}, {"x": x, "y": packed_tensor(x, "q4_1")})
        metadata, tensors = read_gguf(file)
        assert metadata["a.text"] == "ä" and metadata["a.list"].tolist() == [1, 2]
        assert (tensors["x"].numbers() == x).all() and tensors["y"].data.nbytes == x.size * 5 // 8
        del tensors  # and with it the mapped file, which Windows would not delete


# ## A GPT in a file
#
# Now we can put a GPT of chapter 14 into a file. For that we need the names of a GPT-2's tensors in GGUF. A block has a
# number. Vectors stay `float32`, because they are small.

PARTS = {
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip


def _names(layers: int) -> dict[str, str]:
    """Return our name of each module with a weight, and its name in the file."""
    names = {"transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm"}
    for layer in range(layers):
        names |= {f"transformer.h.{layer}.{ours}": f"blk.{layer}.{theirs}" for ours, theirs in PARTS.items()}
    return names


def save_gguf(model: GPT, path: str | os.PathLike, kind: str = "q8_0") -> None:
    """Write a GPT as a GGUF file of the architecture gpt2, with its matrices in the format `kind`. ValueError for an
    unknown format."""
    if kind not in CODES:
        raise ValueError(f"GGUF has no format {kind!r}: choose one of {', '.join(CODES)}")
    config, modules = model.config, dict(model.named_modules())
    metadata = {
        "general.architecture": "gpt2", "general.name": "TinyTorch", "gpt2.context_length": config.block_size,
        "gpt2.embedding_length": config.n_embd, "gpt2.feed_forward_length": 4 * config.n_embd,
        "gpt2.block_count": config.n_layer, "gpt2.attention.head_count": config.n_head,
        "gpt2.attention.layer_norm_epsilon": 1e-5, "gpt2.vocab_size": config.vocab_size,
    }  # fmt: skip
    tensors = {}
    for ours, theirs in _names(config.n_layer).items():
        for part in ("weight", "bias"):
            if (tensor := getattr(modules[ours], part, None)) is not None:
                array = tensor.numpy()
                tensors[f"{theirs}.{part}"] = packed_tensor(array, kind if array.ndim > 1 else "float32")
    write_gguf(path, metadata, tensors)


# When we read it back, the matrices stay packed, in quantized layers; those in `float32` become ordinary parameters.


def load_gguf(path: str | os.PathLike) -> GPT:
    """Load the GPT of a GGUF file of the architecture gpt2, with its matrices packed as in the file. Raises ValueError
    for another architecture, and for tensors that are missing or have other shapes."""
    metadata, tensors = read_gguf(path)
    model = GPT(_config_of(metadata, tensors, path))
    modules: dict[str, Any] = dict(model.named_modules())
    for ours, theirs in _names(model.config.n_layer).items():
        _fill(modules, ours, theirs, tensors, path)
    table, head = model.transformer.wte, model.lm_head
    if isinstance(table, Quantized):
        model.lm_head = QUANTIZED[type(head)].of(head, table.rows, table.kind)
    return model


# The sizes come from the metadata, and the tensors must agree with them.


def _config_of(metadata, tensors, path) -> GPTConfig:
    """Return the sizes of the model, for which the file must have tensors."""
    if (architecture := metadata.get("general.architecture")) != "gpt2":
        raise ValueError(f"{path} holds a model of the architecture {architecture!r}, but only 'gpt2' can be read here")
    names = ("vocab_size", "context_length", "block_count", "attention.head_count", "embedding_length")
    try:
        config = GPTConfig(*(operator.index(metadata[f"gpt2.{name}"]) for name in names))
        tables = [tensors[f"{name}_embd.weight"].shape for name in ("token", "position")]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not describe a GPT: {error}") from None
    if tables != [(config.vocab_size, config.n_embd), (config.block_size, config.n_embd)]:
        raise ValueError(f"{path}: tables of shapes {tables} do not fit {config}")
    if config.n_layer > len(tensors):
        raise ValueError(f"{path}: {len(tensors)} tensors are not enough for {config.n_layer} blocks")
    return config


# Each tensor becomes a parameter or a quantized layer.


def _fill(modules, ours, theirs, tensors, path):
    layer = modules[ours]
    for part in ("weight", "bias"):
        own: Tensor | None = getattr(layer, part, None)
        if own is None:
            continue
        found = tensors.get(f"{theirs}.{part}")
        if found is None or found.shape != own.shape:
            shape = "missing" if found is None else f"of shape {found.shape}"
            raise ValueError(f"{path}: {theirs}.{part} is {shape}, but must have shape {own.shape}")
        if part == "bias" or found.kind == "float32" or own.ndim < 2:
            own.copy_(found.numbers())
        else:
            parent, _, name = ours.rpartition(".")
            packed = QUANTIZED[type(layer)].of(layer, from_numpy(found.rows()), found.kind)
            setattr(modules[parent], name, packed)


# A GPT in `q8_0` must say nearly the same as before.


def check_a_gpt_in_a_file():
    from tt_nlp import next_logits
    from tt_nlp.transformers import small_gpt

    model = small_gpt(50, 2, 64)
    with tempfile.TemporaryDirectory() as folder:
        save_gguf(model, file := Path(folder, "gpt.gguf"), "q8_0")
        again = load_gguf(file)
    assert np.abs(next_logits(again, [[1, 2, 3]]) - next_logits(model, [[1, 2, 3]])).max() < 0.05


__all__ = ["PackedTensor", "load_gguf", "packed_tensor", "read_gguf", "save_gguf", "write_gguf"]
