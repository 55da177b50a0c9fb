"""Compression in its corners: gradients, kernel sets, and networks that resist surgery."""

import itertools
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest

import tt_autograd as ta
import tt_nlp as tn
import tt_opt
import tt_optim as to
import tt_spatial as ts
import tt_tensor as tt
from tt_opt import Pruning, SparseLinear


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tensor(*shape, seed=0):
    return tt.from_numpy(normal(*shape, seed=seed))


def sparse(rows, columns, density=0.3, seed=0, dtype=np.float32):
    keep = np.random.default_rng(seed + 1).random((rows, columns)) < density
    keep[rows // 2] = False  # a row without values
    return (normal(rows, columns, seed=seed) * 50).astype(dtype) * keep


def arguments(matrix):
    return [tt.from_numpy(a) for a in tt_opt.compressed_rows(matrix)[:3]]


def given(module):
    """The module with weights that depend on nothing but their names and places."""
    for number, (_, p) in enumerate(sorted(module.named_parameters())):
        p.copy_((np.sin(np.arange(p.numel()) * 1.3 + number).reshape(p.shape) * 0.4).astype(np.float32))
    return module


def answer(model, x):
    with ta.evaluating(model), ta.no_grad():
        return model(x).numpy()


def arrays(model):
    return {name: t.detach().numpy().copy() for name, t in model.state_dict().items()}


# Gradients


@pytest.mark.parametrize("rows", [(), (3,), (2, 2)])
def test_gradients_of_a_sparse_product(rows):
    matrix = sparse(4, 5, seed=2).astype(np.float64) / 50
    values, columns, starts = arguments(matrix)
    values, x = values.requires_grad_(), tt.tensor(normal(*rows, 5).astype(np.float64), requires_grad=True)
    ta.check_gradients(lambda x, values: tt_opt.sparse_product(x, values, columns, starts) ** 2, x, values)


def test_gradients_of_a_sparse_product_are_the_dense_ones():
    matrix, x = sparse(7, 9), tensor(4, 9, seed=3).requires_grad_()
    values, columns, starts = arguments(matrix)
    (tt_opt.sparse_product(x, values.requires_grad_(), columns, starts) ** 2).sum().backward()
    dense, same = tt.from_numpy(matrix).requires_grad_(), tensor(4, 9, seed=3).requires_grad_()
    ((same @ dense.T) ** 2).sum().backward()
    assert np.allclose(x.grad.numpy(), same.grad.numpy(), rtol=1e-4, atol=1e-2)
    assert np.allclose(values.grad.numpy(), dense.grad.numpy()[np.nonzero(matrix)], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_gradients_of_a_distillation(alpha):
    student = tt.tensor(normal(4, 3).astype(np.float64), requires_grad=True)
    teacher, y = tt.from_numpy(normal(4, 3, seed=1).astype(np.float64)), tt.tensor([0, 2, 1, 1])
    ta.check_gradients(lambda s: tt_opt.distillation_loss((s, teacher), y, T=2.5, alpha=alpha), student)


# Kernel sets


@pytest.mark.parametrize("rows", [(), (1,), (4,), (5,), (40,), (3, 2)], ids=str)
@pytest.mark.parametrize("kind", [np.float32, np.int8])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.8])
def test_compiled_sparse_products(rows, kind, density):
    pytest.importorskip("numba", reason="the compiled set needs Numba")
    matrix, x = arguments(sparse(33, 21, density, dtype=kind)), tensor(*rows, 21, seed=4)
    wanted = tt_opt.sparse_product(x, *matrix).numpy()
    with tt_opt.accelerate("compiled"):
        found = tt_opt.sparse_product(x, *matrix).numpy()
    assert found.shape == (*rows, 33) and found.dtype == np.float32
    assert np.allclose(found, wanted, rtol=1e-5, atol=1e-3) and (density > 0) == found.any()


def test_compiled_sparse_products_of_threads_and_strided_inputs():
    pytest.importorskip("numba", reason="the compiled set needs Numba")
    matrix = arguments(sparse(600, 700, 0.5))
    for x in (tensor(1, 700), tensor(64, 700), tensor(700, 8).T):
        wanted = tt_opt.sparse_product(x, *matrix).numpy()
        with tt_opt.accelerate("compiled"):
            found = tt_opt.sparse_product(x, *matrix).numpy()
        assert np.allclose(found, wanted, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("name", ["default", "compiled"])
def test_other_dtypes_and_bad_shapes_on_a_kernel_set(name):
    if name == "compiled":
        pytest.importorskip("numba", reason="the compiled set needs Numba")
    matrix = sparse(6, 8)
    with tt_opt.accelerate(name):
        x = tt.from_numpy(normal(3, 8).astype(np.float64))
        product = tt_opt.sparse_product(x, *arguments(matrix.astype(np.float64)))
        assert product.dtype == np.float64 and np.allclose(product.numpy(), x.numpy() @ matrix.T.astype(np.float64))
        integers = arguments(sparse(6, 8, dtype=np.int8))
        assert tt_opt.sparse_product(x, *integers).dtype == np.float64
        assert tt_opt.sparse_product(tensor(0, 8), *arguments(matrix)).shape == (0, 6)
        for rows in (1, 40):
            with pytest.raises(IndexError):  # and no reading beyond the input
                tt_opt.sparse_product(tensor(rows, 5), *arguments(np.ones((2, 8), np.float32)))


# Sparse layers


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_sparse_layer_shows_its_weight(kind):
    layer = tt.Linear(8, 6)
    layer.weight.copy_(sparse(6, 8) / 50)
    new = SparseLinear.of(layer, kind)
    scale = np.abs(layer.weight.numpy()).max(1, keepdims=True) / 127
    assert new.weight.shape == (6, 8) and new.bias is layer.bias
    assert (np.abs(new.weight.numpy() - layer.weight.numpy()) <= (scale * 0.51 if kind == "int8" else 0)).all()
    names = {"values", "bias"} if kind == "float32" else {"bias"}
    assert {name for name, _ in new.named_parameters()} == names


def test_what_is_sparsified_and_what_stays():
    model = tt.Sequential(tt.Linear(8, 8), tt.Linear(8, 8), ts.Conv2d(1, 1, 3), tn.Embedding(4, 4))
    model[0].weight.copy_(sparse(8, 8))
    assert [type(layer).__name__ for layer in tt_opt.sparsify_(model)][:2] == ["SparseLinear", "Linear"]
    gpt = tt_opt.sparsify_(tn.transformers.small_gpt(11, 1, 32), most=1)
    assert type(gpt.lm_head) is tt.Linear and gpt.lm_head.weight is gpt.transformer.wte.weight
    assert type(gpt.transformer.h[0].mlp.c_fc) is SparseLinear


def test_dtype_stays():
    model, x = tt.Sequential(tt.Linear(8, 8), tt.Linear(8, 2)).double(), tt.from_numpy(np.ones((1, 8)))
    before = model(x).detach().numpy()
    assert np.allclose(tt_opt.sparsify_(deepcopy(model), most=1)(x).detach().numpy(), before, atol=1e-12)
    assert tt_opt.factorize_(deepcopy(model), 0.4)(x).dtype == np.float64


# Refusals


def layers(*sizes):
    return tt.Sequential(*(tt.Linear(a, b) for a, b in itertools.pairwise(sizes)))


def test_each_refusal_says_why():
    model, x = layers(4, 4, 2), tensor(2, 4)
    quantized, packed = tt_opt.quantize_(layers(4, 4, 2)), tt_opt.sparsify_(layers(4, 4, 2), most=1)
    gpt = tn.transformers.small_gpt(11, 2, 32, 16)
    rotary = tt_opt.RotaryGPT(tn.GPTConfig(11, 16, 2, 4, 32), 2)
    attempts = [
        (lambda: tt_opt.prune_(model, 90), "number from 0 to 1, not 90"),
        (lambda: tt_opt.prune_(quantized, 0.5), "no weights to prune"),
        (lambda: Pruning(0.5, 0), "steps and every 1 or more"),
        (lambda: Pruning(1.5, 10), "share must be from 0 to 1"),
        (lambda: SparseLinear.of(model[0], "int4"), "not 'int4'"),
        (lambda: packed(tensor(2, 5)), "a sparse layer for 4 features"),
        (lambda: tt_opt.compression.smallest_outputs(model[0], 90), "number from 0 to 1, not 90"),
        (
            lambda: tt_opt.compression.readers(model, "fc", [0], x),
            "no layer 'fc' with outputs to remove: choose one of 0, 1",
        ),
        (lambda: tt_opt.compression.readers(model, "1", [0], x), "part of what the model returns"),
        (lambda: tt_opt.compression.readers(model, "0", range(4), x), "all inputs of 1 depend on these outputs of 0"),
        (lambda: tt_opt.remove_outputs_(quantized, "0", [0], x), "QuantizedLinear: remove first"),
        (lambda: tt_opt.remove_outputs_(packed, "0", [0], x), "SparseLinear: remove first"),
        (lambda: tt_opt.slim_(packed, 0.5, x), "SparseLinear: remove first"),
        (lambda: tt_opt.slim_(model, 0.5, x, ["fc"]), "no layers ['fc'] with outputs to remove: choose from 0, 1"),
        (lambda: tt_opt.slim_(model, -0.5, x), "number from 0 to 1, not -0.5"),
        (lambda: tt_opt.remove_heads_(gpt, [[0]]), "give 2 lists of heads"),
        (lambda: tt_opt.remove_heads_(gpt, [[0], [1], [2]]), "give 2 lists of heads"),
        (lambda: tt_opt.remove_heads_(gpt, [[0], [1, 2]]), "of equal length"),
        (lambda: tt_opt.remove_heads_(gpt, [range(4)] * 2), "leave a head"),
        (lambda: tt_opt.remove_heads_(rotary, [[0], [1]]), "GPT of chapter 14, not from a RotaryGPT"),
        (lambda: tt_opt.remove_heads_(tt_opt.quantize_(deepcopy(gpt)), [[0], [1]]), "QuantizedLinear: remove first"),
        (lambda: tt_opt.distillation_loss((x, x), tt.tensor([0, 1]), T=0), "temperature must be above 0, not 0"),
    ]
    before = [arrays(m) for m in (model, quantized, packed, gpt)]
    for attempt, words in attempts:
        with pytest.raises(ValueError) as caught:
            attempt()
        assert words in str(caught.value)
    for old, m in zip(before, (model, quantized, packed, gpt)):
        assert all(np.array_equal(old[name], now) for name, now in arrays(m).items())


@pytest.mark.parametrize("numbers", [[4], [0, -5], [1.0]])
def test_numbers_that_are_not_there(numbers):
    model, gpt = layers(4, 4, 2), tn.transformers.small_gpt(11, 2, 32, 16)
    before, heads = arrays(model), arrays(gpt)
    for attempt in (
        lambda: tt_opt.remove_outputs_(model, "0", numbers, tensor(2, 4)),
        lambda: tt_opt.compression.without_(model[0], numbers, 0),
        lambda: tt_opt.remove_heads_(gpt, [[0] * len(numbers), numbers]),
    ):
        with pytest.raises(IndexError, match="are not all indices from 0 to 3"):
            attempt()
    assert all(np.array_equal(before[n], a) for n, a in arrays(model).items())
    assert all(np.array_equal(heads[n], a) for n, a in arrays(gpt).items())


@pytest.mark.parametrize("numbers", [[1, 1, 3], [-1, 1], range(1, 4, 2), np.array([False, True, False, True])], ids=str)
def test_numbers_in_every_form(numbers):
    whole, x = given(layers(4, 4, 2)), tensor(2, 4)
    model = tt_opt.remove_outputs_(deepcopy(whole), "0", numbers, x)
    assert (model[0].out_features, model[1].in_features) == (2, 2) and model[0].weight.shape == (2, 4)
    whole[1].weight.copy_(whole[1].weight.numpy() * np.array([1, 0, 1, 0], np.float32))
    assert np.allclose(answer(model, x), answer(whole, x), atol=1e-5)


def test_a_layer_is_not_a_network():
    for attempt in (
        lambda m: tt_opt.compression.readers(m, "", [0], tensor(2, 4)),
        lambda m: tt_opt.remove_outputs_(m, "", [0], tensor(2, 4)),
        lambda m: tt_opt.sparsify_(m, most=1),
        lambda m: tt_opt.factorize_(m, 0.1),
    ):
        layer = tt.Linear(4, 4)
        with pytest.raises(TypeError, match="Linear is a layer: pass the network"):
            attempt(layer)
        assert not list(layer.children())


# Surgery on networks of all kinds


class Adds(tt.Module):
    """Two layers whose sum a third one reads."""

    def __init__(self, width=4):
        super().__init__()
        self.a, self.b, self.c = tt.Linear(width, width), tt.Linear(width, width), tt.Linear(width, 2)

    def forward(self, x):
        return self.c(self.a(x) + self.b(x))


class Twice(tt.Module):
    """A layer that reads its own outputs."""

    def __init__(self):
        super().__init__()
        self.a, self.c = tt.Linear(4, 4), tt.Linear(4, 2)

    def forward(self, x):
        return self.c(self.a(self.a(x)))


class Halves(tt.Module):
    """Half of the outputs of a layer are added to the other half."""

    def __init__(self):
        super().__init__()
        self.a, self.c = tt.Linear(4, 4), tt.Linear(2, 2)

    def forward(self, x):
        y = self.a(x)
        return self.c(y[:, :2] + y[:, 2:])


class Tied(tt.Module):
    """A table whose weight the last layer shares."""

    def __init__(self):
        super().__init__()
        self.table, self.a, self.head = tn.Embedding(7, 4), tt.Linear(4, 4), tt.Linear(4, 7, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        return self.head(self.a(ids if ids.dtype.kind == "f" else self.table(ids)))


def two_names():
    layer = tt.Linear(4, 4)
    return tt.Sequential(layer, tt.ReLU(), layer, tt.ReLU(), tt.Linear(4, 2))


def grouped(groups):
    return tt.Sequential(ts.Conv2d(1, 4, 1), ts.Conv2d(4, 4, 3, groups=groups), ts.Conv2d(4, 2, 1))


def normed(*norm):
    return tt.Sequential(ts.Conv2d(1, 4, 1), *norm, ts.Conv2d(4, 2, 1))


REFUSED = {
    "a sum": (Adds(), "a", (4,), "does not fit together"),
    "a sum of two": (Adds(2), "a", (2,), "does not fit together"),
    "itself": (Twice(), "a", (4,), "does not fit together"),
    "its half": (Halves(), "a", (4,), "does not fit together"),
    "a tied reader": (Tied(), "a", (4,), "head shares its weight"),
    "a tied layer": (Tied(), "head", (4,), "part of what the model returns"),
    "a layer of two names": (two_names(), "0", (4,), "does not fit together"),
    "its second name": (two_names(), "2", (4,), "does not fit together"),
    "groups": (grouped(2), "0", (1, 3, 3), "1 has groups"),
    "a channel a group": (grouped(4), "0", (1, 3, 3), "1 has groups"),
    "a grouped layer": (grouped(2), "1", (1, 3, 3), "1 has groups"),
    "GroupNorm": (normed(ts.GroupNorm(2, 4)), "0", (1, 3, 3), "does not fit together"),
    "a layer that mixes": (normed(ts.ConvTranspose2d(4, 4, 3)), "0", (1, 3, 3), "all inputs of 2"),
    "batch normalization": (normed(ts.BatchNorm2d(4)), "1", (1, 3, 3), "no layer '1' with outputs to remove"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_removed_is_refused_and_nothing_changes(case):
    model, name, shape, words = REFUSED[case]
    before, parts = arrays(model), {n: (id(m), m.training) for n, m in model.named_modules()}
    parameters = [id(p) for p in model.parameters()]
    with pytest.raises(ValueError, match=words):
        tt_opt.remove_outputs_(model, name, [1], tensor(2, *shape))
    assert arrays(model).keys() == before.keys()
    assert all(np.array_equal(before[n], a) for n, a in arrays(model).items())
    assert {n: (id(m), m.training) for n, m in model.named_modules()} == parts
    assert [id(p) for p in model.parameters()] == parameters


def reader_of_two_names():
    class Both(tt.Module):
        def __init__(self):
            super().__init__()
            self.a, self.c = tt.Linear(4, 4), tt.Linear(4, 2)
            self.d = self.c

        def forward(self, x):
            h = self.a(x)
            return self.c(h) + self.d(h * 2)

    return Both()


def line(*between, n=4, **options):
    return tt.Sequential(tt.Linear(4, n, **options), *between, tt.Linear(n, 2, **options))


SERIES = (ts.Conv1d(3, 4, 3), ts.BatchNorm1d(4), tt.ReLU(), ts.Conv1d(4, 5, 1))
ALLOWED = {
    "a vector": (line(tt.ReLU()), "0", (4,)),
    "three dimensions": (line(tt.GELU()), "0", (2, 3, 4)),
    "no biases": (line(tt.ReLU(), bias=False), "0", (2, 4)),
    "sigmoid": (line(tt.Sigmoid()), "0", (2, 4)),
    "dropout": (line(tt.Dropout(0.5)), "0", (2, 4)),
    "BatchNorm1d": (line(ts.BatchNorm1d(4), tt.ReLU()), "0", (2, 4)),
    "BatchNorm1d without weights": (line(ts.BatchNorm1d(4, affine=False)), "0", (2, 4)),
    "BatchNorm1d of series": (tt.Sequential(*SERIES), "0", (2, 3, 6)),
    "a reader of two names": (reader_of_two_names(), "a", (2, 4)),
    "pooling to a pixel": (normed(ts.AdaptiveAvgPool2d(1)), "0", (1, 1, 3, 3)),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_removed_was_as_good_as_0(case, training):
    """Beside a network whose readers have weights of 0 for what is gone."""
    model, name, shape = ALLOWED[case]
    model, x = given(deepcopy(model)).train(training), tensor(*shape)
    ignoring = deepcopy(model)
    modules = dict(ignoring.named_modules())
    for reader, inputs in tt_opt.compression.readers(model, name, [0, 2], x).items():
        if not isinstance(modules[reader], ts.BatchNorm):
            weight = modules[reader].weight.numpy().copy()
            weight[:, inputs] = 0
            modules[reader].weight.copy_(weight)
    narrow = tt_opt.remove_outputs_(model, name, [0, 2], x)
    assert narrow is model and all(m.training == training for m in model.modules())
    assert dict(narrow.named_modules())[name].weight.shape[0] == 2
    assert np.allclose(answer(narrow, x), answer(ignoring, x), atol=1e-5)
    assert list(map(np.shape, arrays(narrow).values())) != list(map(np.shape, arrays(ignoring).values()))


def test_removing_nothing():
    model, x, gpt = given(layers(4, 4, 2)), tensor(2, 4), given(tn.transformers.small_gpt(11, 2, 32, 16)).eval()
    wanted = answer(model, x)
    assert tt_opt.compression.readers(model, "0", [], x) == {}
    assert np.array_equal(answer(tt_opt.remove_outputs_(model, "0", [], x), x), wanted)
    ids = tt.tensor([[1, 2, 3]])
    wanted = answer(gpt, ids)
    assert np.allclose(answer(tt_opt.remove_heads_(gpt, [[], []]), ids), wanted, atol=1e-5)


def test_frozen_layers_stay_frozen():
    model = layers(4, 4, 2).requires_grad_(False)
    tt_opt.remove_outputs_(model, "0", [1], tensor(2, 4))
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", ["default", "fast", "compiled"])
def test_dye_passes_every_layer_that_does_not_mix(name):
    if name == "compiled":
        pytest.importorskip("numba", reason="the compiled set needs Numba")
    with tt_opt.accelerate(name):
        for layer, rows in itertools.product((tt.ReLU(), tt.GELU(), tt.Sigmoid(), tt.Tanh()), (2, 1000)):
            found = tt_opt.compression.readers(line(layer), "0", [1], tensor(rows, 4))
            assert {n: i.tolist() for n, i in found.items()} == {"2": [1]}
        for layer in (ts.MaxPool2d(2), ts.AvgPool2d(2), ts.BatchNorm2d(4)):
            found = tt_opt.compression.readers(normed(layer, tt.ReLU()), "0", [1], tensor(2, 1, 8, 8))
            assert found["3"].tolist() == [1]
        gpt, ids = tn.transformers.small_gpt(11, 1, 32, 16), tt.tensor([[1, 2, 3, 4]])
        for first in (8, 32 + 8, 64 + 8):  # queries, keys, values of head 1
            found = tt_opt.compression.readers(gpt, "transformer.h.0.attn.c_attn", range(first, first + 8), ids)
            assert {n: i.tolist() for n, i in found.items()} == {"transformer.h.0.attn.c_proj": list(range(8, 16))}


@pytest.mark.parametrize("leak", [lambda x: np.where(x > 0, x, 0), lambda x: np.fmax(x, 0)])
def test_dye_passes_a_function_that_swallows_nan(leak):
    class Leaky(tt.Module):
        def forward(self, x):
            return tt.from_numpy(leak(x.numpy()).astype(np.float32))

    for sign in (1, -1):
        norm = ts.BatchNorm1d(4)
        norm.weight.copy_(np.full(4, sign, np.float32))
        found = tt_opt.compression.readers(line(norm, Leaky()), "0", [1], tensor(2, 4))
        assert {n: i.tolist() for n, i in found.items()} == {"1": [1], "3": [1]}


# Transformers


def test_a_gpt_without_heads_drops_nothing_in_evaluation():
    gpt = tn.GPT(tn.GPTConfig(11, 16, 2, 4, 32, dropout=0.5)).eval()
    ids = tt.tensor([[1, 2, 3]])
    tt_opt.remove_heads_(gpt, [[0], [1]])
    assert np.array_equal(gpt(ids).detach().numpy(), gpt(ids).detach().numpy())
    gpt.train()
    assert not np.array_equal(gpt(ids).detach().numpy(), gpt(ids).detach().numpy())


def test_heads_that_go_one_after_the_other():
    model, ids = given(tn.transformers.small_gpt(11, 2, 32, 16)).eval(), tt.tensor([[1, 2, 3, 4]])
    at_once = tt_opt.remove_heads_(deepcopy(model), [[1, 3], [-1, 0]])
    in_turn = tt_opt.remove_heads_(tt_opt.remove_heads_(deepcopy(model), [[1], [0]]), [[2], [2]])
    assert np.allclose(answer(at_once, ids), answer(in_turn, ids), atol=1e-6) and at_once.kv_heads == 2
    assert at_once.lm_head.weight is at_once.transformer.wte.weight
    cache = tt_opt.KVCache.of(at_once)
    found = tt_opt.read(at_once, [(cache, [1, 2])]), tt_opt.read(at_once, [(cache, [3, 4])])
    assert cache.keys.shape[2] == 2 and np.allclose(found[1][0], answer(at_once, ids)[0, -1], atol=1e-5)


def test_a_gpt_that_lost_everything_else_is_quantized_and_sparse():
    model, ids = given(tn.transformers.small_gpt(11, 2, 32, 16)).eval(), tt.tensor([[1, 2, 3, 4]])
    tt_opt.remove_heads_(model, [[1], [2]])
    tt_opt.slim_(model, 0.25, ids, [f"transformer.h.{block}.mlp.c_fc" for block in (0, 1)])
    tt_opt.factorize_(model, 0.9)
    tt_opt.prune_(model, 0.6, together=False)
    before = answer(model, ids)
    after = answer(tt_opt.quantize_(tt_opt.sparsify_(model)), ids)
    kinds = {type(m).__name__ for m in model.modules()}
    assert {"SparseLinear", "QuantizedEmbedding", "QuantizedLinear", "NarrowAttention"} <= kinds
    assert np.abs(after - before).max() < 0.05 * np.abs(before).max()


# Training


@pytest.mark.parametrize("epochs", [(1, 8), (3, 4, 8), (6, 8)])
def test_a_training_that_is_interrupted_ends_as_it_would_have(epochs, tmp_path):
    model, x, y = layers(6, 6, 2), tensor(64, 6), tt.from_numpy(np.arange(64) % 2)

    def trained(epochs, file):
        for count in epochs:
            tt.manual_seed(1)
            copy = deepcopy(model)
            how = {"callbacks": [Pruning(0.3, 10, 5)], "checkpoint": tmp_path / file, "resume": True}
            optimizer, data = to.SGD(copy.parameters(), lr=0.1, momentum=0.9), ta.Batches(x, y, 32, shuffle=True)
            ta.fit(copy, tt.cross_entropy, optimizer, data, epochs=count, progress=False, **how)
        return arrays(copy)

    cut, whole = trained(epochs, "cut"), trained([8], "whole")
    assert all(np.array_equal(cut[name], whole[name]) for name in whole)


def test_masks_are_saved_and_not_guessed(tmp_path):
    """A weight that happens to be 0 was not pruned."""
    model = layers(4, 4, 2)
    run = SimpleNamespace(model=model, steps=1)
    first, second = Pruning(0.5, 1), Pruning(0.5, 1)
    first.on_start(run)
    first.on_step(run)
    model[0].weight.zero_()
    ta.save_checkpoint(tmp_path / "masks", first.state_dict())
    second.on_start(run)
    second.load_state_dict(ta.load_checkpoint(tmp_path / "masks"))
    assert first.masks.keys() == second.masks.keys() and sum(mask.sum() for mask in first.masks.values()) == 12
    assert all(np.array_equal(first.masks[weight], second.masks[weight]) for weight in first.masks)


def test_a_taught_student_is_saved_without_its_teacher():
    pair = tt_opt.Taught(tt.Linear(4, 2), layers(4, 8, 2))
    assert list(pair.state_dict()) == ["student.weight", "student.bias"]
    student, teacher = pair(tensor(3, 4))
    assert student.requires_grad and not teacher.requires_grad
