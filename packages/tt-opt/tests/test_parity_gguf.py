"""GGUF files and packed blocks beside the package `gguf`."""

import numpy as np
import pytest

import tt_opt

gguf = pytest.importorskip("gguf", reason="gguf is the oracle here: hatch run parity:run")

KINDS = {"q8_0": "Q8_0", "q4_0": "Q4_0", "q4_1": "Q4_1"}


def numbers(*shape, seed=0):
    random = np.random.default_rng(seed)
    x = (random.normal(size=shape) * np.exp(random.normal(size=(*shape[:-1], 1)) * 2)).astype(np.float32)
    x.reshape(-1, 32)[::17] = 0
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_the_same_bytes(kind):
    x = numbers(300, 96)
    wanted = gguf.quants.quantize(x, gguf.GGMLQuantizationType[KINDS[kind]])
    packed = tt_opt.packed_tensor(x, kind)
    assert np.array_equal(packed.data, wanted)
    assert np.array_equal(packed.numbers(), gguf.quants.dequantize(wanted, gguf.GGMLQuantizationType[KINDS[kind]]))


def test_bfloat16_is_the_same():
    x = numbers(50, 64)
    wanted = gguf.quants.quantize(x, gguf.GGMLQuantizationType.BF16)
    assert np.array_equal(tt_opt.to_bfloat16(x).view(np.uint8), wanted)


def test_their_reader_reads_our_file(tmp_path):
    file, x = tmp_path / "ours.gguf", numbers(6, 64)
    tensors = {kind: tt_opt.packed_tensor(x, kind) for kind in ("float32", "float16", "bfloat16", *KINDS)}
    metadata = {"general.architecture": "test", "a.text": "äöü", "a.numbers": [1, 2], "a.texts": ["b", ""]}
    tt_opt.write_gguf(file, metadata, tensors)
    reader = gguf.GGUFReader(file)
    assert reader.fields["a.text"].contents() == "äöü" and reader.fields["a.texts"].contents() == ["b", ""]
    assert reader.fields["a.numbers"].contents() == [1, 2]
    for tensor in reader.tensors:
        assert tuple(reversed(tensor.shape.tolist())) == (6, 64)
        assert np.array_equal(tensor.data.view(np.uint8).reshape(6, -1), tensors[tensor.name].data)


def test_our_reader_reads_their_file(tmp_path):
    file, x = tmp_path / "theirs.gguf", numbers(4, 6, 64)
    writer = gguf.GGUFWriter(file, "test")
    writer.add_uint32("a.number", 7), writer.add_float64("a.double", 0.1), writer.add_bool("a.truth", True)
    writer.add_array("a.texts", ["x", "ß"]), writer.add_array("a.numbers", [1, -2]), writer.add_custom_alignment(64)
    writer.add_tensor("plain", x), writer.add_tensor("half", x.astype(np.float16))
    for name in KINDS.values():
        kind = gguf.GGMLQuantizationType[name]
        writer.add_tensor(name, gguf.quants.quantize(x, kind), raw_dtype=kind)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    metadata, tensors = tt_opt.read_gguf(file)
    assert metadata["a.number"] == 7 and metadata["a.double"] == 0.1 and metadata["a.truth"] is True
    assert metadata["a.texts"] == ["x", "ß"] and list(metadata["a.numbers"]) == [1, -2]
    assert np.array_equal(tensors["plain"].numbers(), x)
    for ours, theirs in KINDS.items():
        assert tensors[theirs].kind == ours and tensors[theirs].shape == x.shape
        kind = gguf.GGMLQuantizationType[theirs]
        wanted = gguf.quants.dequantize(gguf.quants.quantize(x, kind), kind)
        assert np.array_equal(tensors[theirs].numbers(), wanted)
