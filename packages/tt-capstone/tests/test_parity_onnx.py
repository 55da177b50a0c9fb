"""Exported graphs in onnxruntime, beside our own results. `python test_parity_onnx.py` prints the table of models."""

import tempfile
from pathlib import Path

import numpy as np
import pytest

import tt_nlp
import tt_opt
import tt_spatial as ts
import tt_tensor as tt
from tt_autograd.autograd import softsign
from tt_capstone.capstone import Llama, LlamaConfig
from tt_capstone.onnx_files import WithCache, export_language_model, export_onnx, packed_filters, packed_rows
from tt_capstone.onnx_reader import import_onnx
from tt_capstone.onnx_table import NOT_IN_ONNX, OPSET, TABLE
from tt_nlp.testing import OPS as NLP_OPS
from tt_spatial.testing import OPS as SPATIAL_OPS
from tt_tensor.testing import OPS as TENSOR_OPS
from tt_tensor.testing import tensors_of

onnx = pytest.importorskip("onnx", reason="onnx writes the files: pip install tt-capstone[onnx]")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle here: hatch run parity:run")

KINDS = ("float16", "bfloat16", "int8", "q8_0", "q4_0", "q4_1")


def session(file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(str(file), options)


def run(file, arrays):
    loaded = session(file)
    return loaded.run(None, {port.name: array for port, array in zip(loaded.get_inputs(), arrays, strict=True)})


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tokens(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 60, shape)


def ours(model, arrays):
    out = model(*map(tt.from_numpy, arrays))
    return [tensor.detach().numpy() for tensor in tensors_of(out)]


def difference(file, model, arrays):
    """The largest difference between onnxruntime's results and ours, and between those read back and ours."""
    wanted, found, again = ours(model, arrays), run(file, arrays), ours(import_onnx(file), arrays)
    for a, b, c in zip(wanted, found, again, strict=True):
        assert a.shape == b.shape == c.shape and a.dtype == b.dtype == c.dtype
    return tuple(max(float(np.abs(a - b).max(initial=0)) for a, b in zip(wanted, other)) for other in (found, again))


# The models


def mlp():
    return tt.Sequential(tt.Linear(6, 8), tt.ReLU(), tt.Dropout(0.5), tt.Linear(8, 8), tt.GELU(), tt.Linear(8, 3))


def cifar_network():
    """The network of the AlexNet example, small, after one batch, so that its running averages are no zeros."""

    def block(channels, width):
        return [ts.Conv2d(channels, width, 3, padding=1, bias=False), ts.BatchNorm2d(width), tt.ReLU()]

    layers = [*block(3, 4), *block(4, 4), ts.MaxPool2d(2), *block(4, 8), *block(8, 8), ts.MaxPool2d(2)]
    model = tt.Sequential(*layers, tt.Flatten(), tt.Linear(8 * 16, 16), tt.ReLU(), tt.Linear(16, 10))
    model(tt.from_numpy(numbers(8, 3, 16, 16, seed=1)))
    return model


def gpt():
    return tt_nlp.transformers.small_gpt(60, 2, 32, 32)


def llama():
    model = Llama(LlamaConfig(60, 64, 2, 4, 2, 32, 64))
    for seed, parameter in enumerate(model.parameters()):
        parameter.copy_(numbers(*parameter.shape, seed=seed) * np.float32(0.3))
    return model


def rotary(window=None):
    return tt_opt.RotaryGPT(tt_nlp.GPTConfig(60, 64, 2, 4, 32), 2, window)


TEXTS = [tokens(1, 1), tokens(3, 32), tokens(5, 7)]
MODELS = {
    "MLP": (mlp, numbers(2, 6), [numbers(n, 6) for n in (1, 5, 33)]),
    "LeNet": (ts.LeNet, numbers(2, 1, 28, 28), [numbers(n, 1, 28, 28) for n in (1, 5)]),
    "CIFAR network": (cifar_network, numbers(2, 3, 16, 16), [numbers(n, 3, 16, 16) for n in (1, 5)]),
    "GPT": (gpt, tokens(2, 5), TEXTS),
    "Llama": (llama, tokens(2, 5), TEXTS),
    "RotaryGPT with a window": (lambda: rotary(3), tokens(2, 6), TEXTS),
    **{f"GPT, {kind}": (lambda kind=kind: tt_opt.quantize_(gpt(), kind), tokens(2, 5), TEXTS) for kind in KINDS},
    **{f"Llama, {kind}": (lambda kind=kind: tt_opt.quantize_(llama(), kind), tokens(2, 5), TEXTS) for kind in KINDS},
    **{
        f"LeNet, {kind}": (lambda kind=kind: tt_opt.quantize_(ts.LeNet(), kind), numbers(2, 1, 28, 28),
                           [numbers(n, 1, 28, 28) for n in (1, 5)]) for kind in KINDS
    },
}  # fmt: skip


def differences(name, folder):
    tt.manual_seed(0)
    make, example, inputs = MODELS[name]
    model, file = make(), Path(folder, "model.onnx")
    export_onnx(model, example, file)
    found = [difference(file, model.eval(), [array]) for array in inputs]
    return [max(column) for column in zip(*found)], [array.shape for array in inputs], file.stat().st_size


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_the_same_elsewhere(name, tmp_path):
    (elsewhere, read_back), _, _ = differences(name, tmp_path)
    assert elsewhere < 1e-5 and read_back < 2e-6


def test_the_file_names_the_opset(tmp_path):
    export_onnx(mlp(), numbers(2, 6), tmp_path / "mlp.onnx")
    proto = onnx.load(tmp_path / "mlp.onnx")
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", OPSET)] == [("", 21)]
    assert proto.ir_version == 10


# A cache: the text in pieces, each with the keys and values of what was read before.


def cache_differences(model, file, pieces=(7, 1, 1, 4, 1)):
    """The largest difference between logits with the cache and those of the whole text at once, in onnxruntime and in
    the graph read back."""
    export_language_model(model, file, cache=True)
    loaded, again, text = session(file), import_onnx(file), tokens(2, sum(pieces))
    names = [port.name for port in loaded.get_inputs()]
    (wanted,), at = ours(model.eval(), [text]), 0
    heads, size = getattr(model, "kv_heads", model.config.n_head), model.config.n_embd // model.config.n_head
    past, apart = [np.zeros((2, heads, 0, size), np.float32)] * (2 * model.config.n_layer), [0.0, 0.0]
    for count in pieces:
        arrays = [text[:, at : at + count], *past]
        elsewhere = loaded.run(None, dict(zip(names, arrays, strict=True)))
        for i, logits in enumerate((elsewhere[0], ours(again, arrays)[0])):
            apart[i] = max(apart[i], float(np.abs(logits - wanted[:, at : at + count]).max()))
        past, at = elsewhere[1:], at + count
    assert past[0].shape == (2, heads, len(text[0]), size)
    return apart


@pytest.mark.parametrize("make", [gpt, llama, lambda: tt_opt.quantize_(llama(), "q4_1")])
def test_prefill_and_decoding_are_one_graph(make, tmp_path):
    assert max(cache_differences(make(), tmp_path / "cache.onnx")) < 1e-5
    loaded = session(tmp_path / "cache.onnx")
    inputs, outputs = loaded.get_inputs(), loaded.get_outputs()
    assert [port.name for port in inputs[:3]] == ["input_ids", "past_key_values.0.key", "past_key_values.0.value"]
    assert [port.name for port in outputs[:3]] == ["logits", "present.0.key", "present.0.value"]
    assert inputs[0].shape == ["batch", "sequence"] and inputs[1].shape[2] == "past"


def test_our_own_cache_agrees(tmp_path):
    model = llama().eval()
    export_language_model(model, tmp_path / "cache.onnx", cache=True)
    cache, text, past = tt_opt.KVCache.of(model), tokens(9), [np.zeros((1, 2, 0, 8), np.float32)] * 4
    for start, stop in ((0, 5), (5, 6), (6, 9)):
        logits, *past = run(tmp_path / "cache.onnx", [text[None, start:stop], *past])
        assert np.allclose(logits[0, -1], tt_opt.read(model, [(cache, text[start:stop])])[0], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_quantized_files_are_small(kind, tmp_path):
    model = tt_opt.quantize_(tt.Sequential(tt.Linear(512, 512), tt.ReLU(), tt.Linear(512, 512)), kind)
    export_onnx(model, numbers(2, 512), tmp_path / "small.onnx")
    assert (tmp_path / "small.onnx").stat().st_size < tt_opt.model_bytes(model) + 4000


# Every sample of every operation of chapters 02 to 13. Some of them cannot be exported, and say why.

OUTSIDE, MISSING = "outside of the door", "ONNX has no operation for it"
REFUSED = {
    **dict.fromkeys(
        ("one_hot", "nll_loss", "cross_entropy (soft)", "max_unpool2d", "mode", "unique", "unique(dim)",
         "unique_consecutive", "bincount(weights)", "histc", "searchsorted", "bucketize", "isin",
         "repeat_interleave(each)", "nonzero", "argwhere", "where(mask)", "scatter", "scatter(value)",
         "scatter(multiply)", "index_copy", "masked_scatter", "linalg.matrix_norm(2)", "linalg.svdvals",
         "linalg.eigvalsh", "linalg.pinv"), OUTSIDE,
    ),
    **dict.fromkeys(
        ("lgamma", "digamma", "erfinv", "polygamma", "zeta_sum", "cumprod", "logcumsumexp", "cummax", "cummin",
         "running_argmax", "linalg.solve", "solved", "linalg.inv", "logabsdet", "linalg.slogdet",
         "linalg.matrix_power"), MISSING,
    ),
    "cross_entropy": f"surprise|{OUTSIDE}",
    "gelu_slope": "gelu_slope", "binary_cross_entropy": "binary_surprise|probabilities",
    "batch_norm": "normalize_channels", "instance_norm": "in place|normalize_channels",
    "masked_select": "no formula can tell", "index_add": "not known in advance",
    "linalg.cholesky": f"{MISSING}|not positive definite",
}  # fmt: skip
OPS = {op.name: op for op in (*TENSOR_OPS, *SPATIAL_OPS, *NLP_OPS)}


def close(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and np.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("name", OPS)
def test_every_operation(name, tmp_path):
    op = OPS[name]
    for sample in op.samples(60 if name in ("getitem", "place") else 4):
        arrays = [tensor.numpy() for tensor in op.tensors(sample, np.float32)]

        def function(*tensors, sample=sample):
            tt.manual_seed(0)
            return op.function(*tensors, **sample.options)

        try:
            export_onnx(function, tuple(arrays), tmp_path / "op.onnx", dynamic={})
        except ValueError as error:
            with pytest.raises(ValueError, match=REFUSED.get(name, "this operation must be exported")):
                raise error
            continue
        wanted = ours(function, arrays)
        assert all(map(close, run(tmp_path / "op.onnx", arrays), wanted)), sample
        assert all(map(close, ours(import_onnx(tmp_path / "op.onnx"), arrays), wanted)), sample


# What the tables of operations do not have: other dtypes, and the primitives of other chapters.


def packed(kind):
    return tt.from_numpy(tt_opt.FORMATS[kind].pack(numbers(5, 64)))


class Holding(tt.Module):
    """A function of tensors and of buffers."""

    def __init__(self, function, **buffers):
        super().__init__()
        self.function = function
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor)

    def forward(self, *tensors):
        return self.function(*tensors, *self.buffers())


def sparse():
    parts = {"values": numbers(4), "columns": np.array([0, 2, 1, 2]), "starts": np.array([0, 2, 2, 4])}
    return Holding(tt_opt.sparse_product, **{name: tt.from_numpy(array) for name, array in parts.items()})


def integers(*values):
    return np.array(values)


ENDS = np.array([0, -0.0, 1e-7, -1e-7, 0.5, -1, 3, -80, 1e20, -1e20, np.inf, -np.inf, np.nan], np.float32)
MORE = {
    "functions at the ends": (lambda x: (tt.log1p(x), tt.expm1(x), tt.log2(x), tt.trunc(x), tt.signbit(x), tt.erfc(x)),
                              [ENDS]),
    "pairs at the ends": (lambda x, y: (tt.atan2(x, y), tt.hypot(x, y), tt.logaddexp(x, y)), [ENDS, ENDS[:, None]]),
    "bits moved": (lambda x, y: (tt.bitwise_left_shift(x, y), tt.bitwise_right_shift(x, y)),
                   [integers(-7, 7, -1, 1 << 40), integers(1, 2, 3, 4)]),
    "softsign": (softsign, [numbers(2, 3)]),
    "look_back": (tt_opt.look_back, [numbers(2, 4, 3), numbers(5, 2, 3), numbers(5, 2, 3)]),
    "look_back, window": (lambda *x: tt_opt.look_back(*x, window=2), [numbers(3, 2, 4), *[numbers(6, 2, 4)] * 2]),
    "fake_quantize": (lambda x: tt_opt.fake_quantize(x, scale=0.1, zero_point=3, low=0, high=20), [numbers(4, 5)]),
    "sparse_product": (sparse(), [numbers(2, 3)]),
    "integers divided": (lambda x, y: (x // y, x % y), [integers(-7, 7, -7, 7), integers(2, -2, -2, 2)]),
    "floats divided": (lambda x: (x // 0.1, x % 0.1, x // -0.3, x % -0.3),
                       [np.arange(-60, 60).astype(np.float32) / 10]),
    "integers compared": (lambda x, y: x < y, [integers(1, 2), integers(2, 2).astype(np.int32)]),
    "truth values": (lambda x, y: (x & y, x | y, x ^ y, ~x, x * y, x > y),
                     [integers(1, 0, 1) > 0, integers(1, 1, 0) > 0]),
    "sum of integers": (lambda x: (x.sum(), x.sum(0), x.cumsum(0), x.prod()), [integers(3, -4, 5)]),
    "sizes": (lambda x: x.mean() + x.var(0), [numbers(4, 3)]),
    "positions that were found": (lambda x: tt.topk(x, 2).values + tt.sort(x).values[:, :2], [numbers(3, 4)]),
    "computed indices": (lambda x, i: x[i] + x[:, i].sum(1), [numbers(5, 5), integers(4, 0, 2, 1, 1)]),
    "arrays apart": (lambda x: (x[:, [0, 1], :, [1, 2]], x[:, [0, 1], None, [1, 1]], x[:, None, [2, 0], [1, 1]]),
                     [numbers(2, 3, 4, 3)]),
    "rotary, halves": (lambda x: tt_nlp.rotary(x, interleaved=False), [numbers(2, 3, 8)]),
    **{f"packed_product, {kind}": (Holding(lambda x, data, kind=kind: tt_opt.packed_product(x, data, kind=kind),
                                           data=packed(kind)), [numbers(2, 64)]) for kind in KINDS},
    **{f"packed_rows, {kind}": (Holding(lambda ids, data, kind=kind: packed_rows(ids, data, kind=kind),
                                        data=packed(kind)), [integers(4, 0, 4)]) for kind in KINDS},
    **{f"packed_filters, {kind}": (
        Holding(lambda x, data, kind=kind: x + packed_filters(data, kind=kind, shape=(5, 4, 4, 4)), data=packed(kind)),
        [numbers(1, 4, 4)]) for kind in KINDS},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value)")  # in what a `Where` then does not choose
@pytest.mark.parametrize("name", MORE)
def test_more_operations(name, tmp_path):
    function, arrays = MORE[name]
    export_onnx(function, tuple(arrays), tmp_path / "op.onnx", dynamic={})
    wanted = ours(function, arrays)
    assert all(map(close, run(tmp_path / "op.onnx", arrays), wanted))
    assert all(map(close, ours(import_onnx(tmp_path / "op.onnx"), arrays), wanted))


def test_every_translation_is_tried():
    called = set()

    def spy(then, primitive, tensors, params):
        called.add(primitive.name)
        return then(primitive, tensors, params)

    with tt.interpreting(spy):
        for op in OPS.values():
            for sample in op.samples(4) if op.name not in REFUSED else ():
                op.function(*op.tensors(sample, np.float32), **sample.options)
        for function, arrays in MORE.values():
            function(*map(tt.from_numpy, arrays))
    assert not TABLE.keys() - called and not called & NOT_IN_ONNX.keys()


# Sizes: each of these depends on a dynamic one in another way.

SIZES = {
    "mean over the length": (lambda x: x.mean(1), {0: "batch", 1: "length"}, (2, 3, 4), [(5, 9, 4), (1, 1, 4)]),
    "flattened": (lambda x: x.reshape(-1, 4), {0: "batch", 1: "length"}, (2, 3, 4), [(5, 9, 4), (1, 1, 4)]),
    "the last": (lambda x: x[:, x.shape[1] - 1], {1: "length"}, (2, 3), [(2, 9), (2, 1)]),
    "positions": (lambda x: x * tt.from_numpy(np.arange(x.shape[1], dtype=np.float32)), {1: "n"}, (2, 3), [(2, 9)]),
    "a convolution": (lambda x: ts.conv2d(x, tt.ones(2, 3, 3, 3), padding=1).mean((2, 3)), {0: "b", 2: "h", 3: "w"},
                      (2, 3, 6, 5), [(1, 3, 9, 8)]),
    "groups": (ts.GroupNorm(2, 4), {0: "b", 2: "h", 3: "w"}, (2, 4, 6, 5), [(1, 4, 9, 8)]),
    "padding": (lambda x: ts.pad(x, (1, 2, 0, 1), value=1.5), {0: "batch"}, (2, 2, 3, 4), [(5, 2, 3, 4)]),
    "a window mask": (lambda x: tt.where(tt_nlp.window_mask(x.shape[0], 2), x, 0.0), {0: "n", 1: "n"}, (5, 5),
                      [(9, 9)]),
    "the largest": (lambda x: tt.max(x, 1).values, {0: "batch"}, (2, 5), [(9, 5), (1, 5)]),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_dynamic_sizes(name, tmp_path):
    function, dims, shape, others = SIZES[name]
    export_onnx(function, numbers(*shape), tmp_path / "sizes.onnx", dynamic={"input": dims})
    for other in others:
        assert max(difference(tmp_path / "sizes.onnx", function, [numbers(*other, seed=1)])) < 1e-5


def test_a_cache_needs_a_model_that_we_know():
    with pytest.raises(ValueError, match="RotaryGPT"):
        WithCache(rotary())
    assert [*WithCache(llama()).state_dict()] == [*llama().state_dict()]


if __name__ == "__main__":
    print(f"onnxruntime {onnxruntime.__version__}, opset {OPSET}: largest differences\n")
    print(f"{'model':26s} {'KB':>6s} {'onnxruntime':>12s} {'read back':>10s}  inputs")
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            (elsewhere, read_back), shapes, size = differences(name, folder)
            print(f"{name:26s} {size / 1e3:6.0f} {elsewhere:12.1e} {read_back:10.1e}  {', '.join(map(str, shapes))}")
        for name, make in {"GPT with cache": gpt, "Llama with cache": llama}.items():
            file = Path(folder, "cache.onnx")
            elsewhere, read_back = cache_differences(make(), file)
            size = file.stat().st_size / 1e3
            print(f"{name:26s} {size:6.0f} {elsewhere:12.1e} {read_back:10.1e}  7, 1, 1, 4, 1 tokens")
