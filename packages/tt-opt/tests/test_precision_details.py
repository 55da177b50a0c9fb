"""Small numbers in their corners: every kernel set, memory, files of models, and files that lie."""

import os
import struct
import tracemalloc
from copy import deepcopy

import numpy as np
import pytest

import tt_autograd as ta
import tt_nlp as tn
import tt_opt
import tt_spatial as ts
import tt_tensor as tt

KINDS = list(tt_opt.FORMATS)
BEST = tt_opt.best_set()


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# Formats


@pytest.mark.parametrize("kind", KINDS)
def test_a_format_there_and_back(kind):
    form, x = tt_opt.FORMATS[kind], normal(5, 96)
    data = form.pack(x)
    assert data.dtype == np.uint8 and data.shape[0] == 5 and data.flags.c_contiguous
    back = form.unpack(data)
    assert back.dtype == np.float32 and back.shape == x.shape
    assert np.abs(back - x).max() < {"float16": 2e-3, "bfloat16": 2e-2, "int8": 0.02, "q8_0": 0.02}.get(kind, 0.5)
    assert np.array_equal(form.unpack(form.pack(back)), back) or kind in ("q4_0", "q4_1", "q8_0")
    assert (form.unpack(form.pack(x * 0)) == 0).all()
    assert np.array_equal(form.unpack(np.ascontiguousarray(data[2:4])), back[2:4])


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_do_not_fit_are_refused(kind):
    for value in (np.nan, np.inf, *([1e6] if kind in ("float16", "q4_0", "q4_1") else [])):
        x = normal(2, 32)
        x[1, 3] = value
        with pytest.raises(ValueError, match="holds numbers up to"):
            tt_opt.FORMATS[kind].pack(x)


def test_bytes_of_a_weight():
    sizes = {kind: tt_opt.FORMATS[kind].pack(normal(10, 1024)).nbytes * 8 / 10_240 for kind in KINDS}
    assert sizes == {"float16": 16, "bfloat16": 16, "int8": 8 + 32 / 1024, "q8_0": 8.5, "q4_0": 4.5, "q4_1": 5}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [(1,), (2, 3), (40,)])
@pytest.mark.parametrize("name", ["fast", BEST])
def test_packed_products_on_a_kernel_set(kind, rows, name):
    x, data = tt.from_numpy(normal(*rows, 96)), tt.from_numpy(tt_opt.FORMATS[kind].pack(normal(3000, 96, seed=1)))
    wanted = tt_opt.packed_product(x, data, kind=kind).numpy()
    with tt_opt.accelerate(name):
        found = tt_opt.packed_product(x, data, kind=kind).numpy()
    assert found.shape == wanted.shape and np.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("kind", ["int8", "q8_0", "q4_0", "q4_1"])
def test_a_row_of_a_packed_product_does_not_depend_on_the_others(kind):
    """Neither on the rows of x beside it, nor on those of the matrix, nor on the pieces that threads take."""
    if BEST != "compiled":
        pytest.skip("Numba is not installed here")
    x, data = normal(5, 576), tt_opt.FORMATS[kind].pack(normal(701, 576, seed=1))

    def product(x, data):
        return tt_opt.packed_product(tt.from_numpy(x), tt.from_numpy(data), kind=kind).numpy()

    threads = tt_opt.get_num_threads()
    try:
        with tt_opt.accelerate("compiled"):
            tt_opt.set_num_threads(1)
            whole = product(x, data)
            for count in (2, 3):
                tt_opt.set_num_threads(count)
                assert np.array_equal(product(x, data), whole)
            for row in range(5):
                assert np.array_equal(product(x[row : row + 1], data), whole[row : row + 1])
            for start, stop in ((0, 1), (1, 4), (350, 701), (699, 701)):
                assert np.array_equal(product(x, data[start:stop]), whole[:, start:stop])
    finally:
        tt_opt.set_num_threads(threads)


def test_every_half_precision_scale_is_read():
    """All finite float16 numbers as scales of blocks, denormal ones included."""
    if BEST != "compiled":
        pytest.skip("Numba is not installed here")
    scales = np.arange(65536, dtype=np.uint16).view(np.float16)
    scales = scales[np.isfinite(scales)]
    blocks = np.zeros((len(scales), 1), tt_opt.BLOCKS["q8_0"])
    blocks["d"][:, 0], blocks["q"][:, 0, 3] = scales, -5
    data = tt.from_numpy(tt_opt.precision.field_by_field(blocks))
    x = np.zeros((1, 32), np.float32)
    x[0, 3] = 1
    with tt_opt.accelerate("compiled"):
        found = tt_opt.packed_product(tt.from_numpy(x), data, kind="q8_0").numpy()[0]
    assert np.array_equal(found, -5 * scales.astype(np.float32))


def test_gradients_pass_through_a_packed_product():
    data = tt.from_numpy(tt_opt.FORMATS["q8_0"].pack(normal(7, 32)))
    x = tt.tensor(normal(3, 32).astype(np.float64), requires_grad=True)
    ta.check_gradients(lambda x: tt_opt.packed_product(x, data, kind="q8_0") ** 2, x)


# Models


def test_the_peak_of_a_quantized_model():
    """Reading a token takes the memory of the packed weights, and a little for what is unpacked at the moment."""
    with ta.no_grad():
        model = tn.GPT(tn.GPTConfig(512, 64, 2, 4, 512)).eval()
        full = tt_opt.model_bytes(model)
        small = tt_opt.quantize_(model, "q4_1")
        tracemalloc.start()
        tn.next_logits(small, [[1, 2, 3]])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert tt_opt.model_bytes(small) < 0.17 * full
    assert tt_opt.model_bytes(small) + peak < 0.35 * full


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_gpt_says_nearly_the_same(kind):
    model = tn.transformers.small_gpt(50, 2, 64).eval()
    small = tt_opt.quantize_(deepcopy(model), kind)
    text = [[3, 1, 4, 1, 5, 9, 2, 6]]
    wanted, found = tn.next_logits(model, text), tn.next_logits(small, text)
    assert 0 < np.abs(found - wanted).max() < {"q4_0": 0.2, "q4_1": 0.2}.get(kind, 0.02)
    cache = tt_opt.KVCache.of(small)
    assert np.allclose(tt_opt.read(small, [(cache, text[0])]), found, atol=1e-4)


def test_a_quantized_network_goes_through_a_file(tmp_path):
    layers = [ts.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), tt.ReLU(), tt.Flatten(), tt.Linear(512, 10)]
    model = tt.Sequential(*layers).eval()
    x = tt.randn(2, 3, 8, 8)
    small = tt_opt.quantize_(deepcopy(model))
    ta.save_checkpoint(tmp_path / "small", small.state_dict())
    assert os.path.getsize(tmp_path / "small") < 0.45 * sum(p.nbytes for p in model.parameters())
    other = tt_opt.quantize_(tt.Sequential(*(deepcopy(layer) for layer in layers)))
    for p in other.parameters():
        p.zero_()
    other[3].rows.copy_(np.zeros(other[3].rows.shape, np.uint8))
    other.load_state_dict(ta.load_checkpoint(tmp_path / "small"))
    assert np.array_equal(other(x).detach().numpy(), small(x).detach().numpy())


@pytest.mark.parametrize("ids", [[-1], [50], [[0, 99]]])
def test_an_id_without_a_row_is_refused_in_a_quantized_table_too(ids):
    model = tt_opt.quantize_(tn.transformers.small_gpt(50, 1, 32))
    with pytest.raises(IndexError, match="there is no row for id"):
        model.transformer.wte(tt.tensor(ids))


def test_what_is_quantized_shows_it():
    model = tt_opt.quantize_(tt.Sequential(tt.Linear(32, 4), tt.ReLU()), "q4_0")
    assert "QuantizedLinear(4 x 32, q4_0)" in repr(model) and isinstance(model[0], tt.Linear)
    assert model[0].weight.shape == (4, 32) and [n for n, _ in model.named_parameters()] == ["0.bias"]
    assert tt_opt.quantize_(model, "int8")[0].kind == "q4_0"  # what is quantized already stays


# GGUF


def small_file(path, alignment=None):
    metadata = {
        "general.architecture": "test", "a.number": 7, "a.negative": -3, "a.float": 0.5, "a.truth": True,
        "a.text": "Wal äöü", "a.texts": ["a", "", "ß"], "a.numbers": [1, 2, 3], "a.wide": np.uint64(1 << 40),
        "a.bytes": np.arange(5, dtype=np.uint8),
    }  # fmt: skip
    if alignment:
        metadata["general.alignment"] = alignment
    x = normal(4, 6, 64)
    tensors = {kind: tt_opt.packed_tensor(x, kind) for kind in ("float32", *KINDS) if kind != "int8"}
    tt_opt.write_gguf(path, metadata, tensors | {"plain": normal(5)})
    return metadata, x, tensors


@pytest.mark.parametrize("alignment", [None, 8, 64])
def test_a_gguf_file_there_and_back(tmp_path, alignment):
    metadata, x, tensors = small_file(tmp_path / "a.gguf", alignment)
    found, read = tt_opt.read_gguf(tmp_path / "a.gguf")
    assert list(found) == list(metadata)
    for name, value in metadata.items():
        assert np.array_equal(found[name], value) if isinstance(value, np.ndarray | list) else found[name] == value
    for name, tensor in tensors.items():
        assert read[name].kind == name and read[name].shape == (4, 6, 64)
        assert np.array_equal(read[name].data, tensor.data)
    assert np.array_equal(read["float32"].numbers(), x) and read["plain"].shape == (5,)
    assert not read["float32"].data.flags.owndata  # a view of the file


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "q8_0", "q4_0", "q4_1"])
def test_a_gpt_there_and_back(tmp_path, kind):
    model = tn.transformers.small_gpt(50, 2, 64).eval()
    tt_opt.save_gguf(model, tmp_path / "a.gguf", kind)
    again, text = tt_opt.load_gguf(tmp_path / "a.gguf"), [[1, 2, 3, 4]]
    assert again.config == model.config
    wanted = model if kind == "float32" else tt_opt.quantize_(deepcopy(model), kind)
    assert np.allclose(tn.next_logits(again, text), tn.next_logits(wanted, text), atol=1e-5)
    names = [name for name, _ in again.named_parameters()]
    assert ("transformer.wte.weight" in names) == (kind == "float32")


def test_a_gpt_file_without_a_tensor_is_refused(tmp_path):
    tt_opt.save_gguf(tn.transformers.small_gpt(50, 2, 64), file := tmp_path / "a.gguf", "q8_0")
    metadata, tensors = tt_opt.read_gguf(file)
    whole = {name: tensor._replace(data=tensor.data.copy()) for name, tensor in tensors.items()}
    for name, words in (("blk.1.ffn_up.weight", "missing"), ("token_embd.weight", "token_embd")):
        tt_opt.write_gguf(file, metadata, {n: t for n, t in whole.items() if n != name})
        with pytest.raises(ValueError, match=words):
            tt_opt.load_gguf(file)
    for change, words in (
        ({"gpt2.block_count": 2**31}, "not enough"), ({"gpt2.block_count": "two"}, "describe"),
        ({"gpt2.embedding_length": 128}, "fit"), ({"gpt2.context_length": 2**31}, "fit"),
        ({"general.architecture": "llama"}, "llama"), ({"gpt2.attention.head_count": 5}, "heads"),
    ):  # fmt: skip
        tt_opt.write_gguf(file, metadata | change, whole)
        with pytest.raises(ValueError, match=words):
            tt_opt.load_gguf(file)


def head(tensors=0, entries=0, version=3, magic=b"GGUF"):
    return magic + struct.pack("<IQQ", version, tensors, entries)


def text(string):
    data = string if isinstance(string, bytes) else string.encode()
    return struct.pack("<Q", len(data)) + data


def described(name="x", sizes=(32,), code=0, offset=0):
    return text(name) + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes) + struct.pack("<IQ", code, offset)


def padded(data, behind=b""):
    return data + bytes(-len(data) % 32) + behind


ENTRY, KEY = head(entries=1), text("general.alignment")
HOSTILE = {
    "nothing": (b"", "the head"),
    "another file": (b"PK\x03\x04" + bytes(40), "does not begin"),
    "version 1": (head(version=1), "version"),
    "from the other end": (head(version=3 << 24), "version"),
    "cut in the head": (head()[:12], "tensors"),
    "more entries than bytes": (head(entries=1 << 60), "entries"),
    "more tensors than bytes": (head(tensors=1 << 60), "tensors"),
    "a name that is too long": (ENTRY + struct.pack("<Q", 1 << 62) + bytes(64), "name"),
    "a name that is no text": (ENTRY + text(b"\xff\xfe") + struct.pack("<IB", 0, 1), "UTF-8"),
    "an unknown type": (ENTRY + text("a") + struct.pack("<IQQ", 99, 0, 0), "type"),
    "a text without end": (ENTRY + text("a") + struct.pack("<IQ", 8, 1 << 50), "bytes"),
    "an array without end": (ENTRY + text("a") + struct.pack("<IIQ", 9, 10, 1 << 61), "elements"),
    "texts without end": (ENTRY + text("a") + struct.pack("<IIQ", 9, 8, 1 << 61), "elements"),
    "arrays in arrays": (ENTRY + text("a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9 + bytes(99), "deep"),
    "half a truth": (ENTRY + text("a") + struct.pack("<IB", 7, 2) + bytes(9), "truth"),
    "two entries of a name": (head(entries=2) + (text("a") + struct.pack("<IB", 0, 1)) * 2, "two entries"),
    "no alignment": (ENTRY + KEY + struct.pack("<II", 4, 0), "alignment"),
    "an odd alignment": (ENTRY + KEY + struct.pack("<II", 4, 24), "alignment"),
    "an alignment of text": (ENTRY + KEY + struct.pack("<I", 8) + text("x"), "alignment"),
    "no dimensions": (head(1) + described(sizes=()) + bytes(64), "dimensions"),
    "too many dimensions": (head(1) + described(sizes=(1,) * 5), "dimensions"),
    "an unknown format": (padded(head(1) + described(code=14), bytes(128)), "format"),
    "no rows": (padded(head(1) + described(sizes=(32, 0)), bytes(128)), "shape"),
    "sizes that overflow": (padded(head(1) + described(sizes=(1 << 32, 1 << 32, 2)), bytes(128)), "bytes"),
    "rows that are not blocks": (padded(head(1) + described(sizes=(33,), code=8), bytes(128)), "blocks"),
    "behind the end": (padded(head(1) + described(offset=32), bytes(128)), "bytes"),
    "far behind the end": (padded(head(1) + described(offset=1 << 63), bytes(128)), "bytes"),
    "not aligned": (padded(head(1) + described(offset=8), bytes(256)), "multiple"),
    "cut": (padded(head(1) + described(), bytes(127)), "bytes"),
    "shared bytes": (padded(head(2) + described("x", (64,)) + described("y", (64,), 0, 128), bytes(512)), "also"),
    "one place for two": (padded(head(2) + described("x") + described("y"), bytes(256)), "also"),
    "two tensors of a name": (padded(head(2) + described("x") + described("x", offset=128), bytes(256)), "two tensors"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_lies_is_refused(name, tmp_path):
    data, words = HOSTILE[name]
    (tmp_path / "a.gguf").write_bytes(data)
    with pytest.raises(ValueError, match=words):
        tt_opt.read_gguf(tmp_path / "a.gguf")


@pytest.mark.slow
def test_ten_thousand_damaged_files(tmp_path):
    """Bytes changed, numbers replaced by extreme ones, pieces cut or doubled: read, or refused with a ValueError; never
    another error, and never more memory than the file has bytes, but for small change."""
    file = tmp_path / "a.gguf"
    small_file(file)
    whole, random = file.read_bytes(), np.random.default_rng(0)
    head_length = len(whole) - sum(t.data.nbytes for t in tt_opt.read_gguf(file)[1].values())
    extreme = [0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
    refused, largest = 0, 0
    tracemalloc.start()
    for number in range(10_000):
        data = bytearray(whole[: head_length + 2000] if number % 2 else whole)
        for _ in range(int(random.integers(1, 4))):
            place = int(random.integers(0, min(head_length, len(data) - 8)))
            way = random.integers(4)
            if way == 0:
                data[place] = int(random.integers(256))
            elif way == 1:
                data[place : place + 8] = struct.pack("<Q", extreme[random.integers(len(extreme))])
            elif way == 2:
                del data[place : place + int(random.integers(1, 40))]
            else:
                data[place:place] = data[place : place + int(random.integers(1, 40))]
        file.write_bytes(data)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        try:
            _, tensors = tt_opt.read_gguf(file)
            assert all(tensor.data.nbytes <= len(data) for tensor in tensors.values())
            del tensors
        except ValueError:
            refused += 1
        largest = max(largest, tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    assert refused > 5000 and largest < len(whole) + 50_000
