"""Kernel sets: values, gradients of any order, errors and all else are those of the chapters' own kernels."""

import gc
import json
import os
import subprocess
import sys
import threading
import warnings
import weakref

import numpy as np
import pytest

import tt_autograd as ta
import tt_nlp as tn
import tt_opt
import tt_optim as to
import tt_spatial as ts
import tt_tensor as tt
from tt_opt import kernel_sets
from tt_tensor import loops

SETS = ["fast", "compiled"] if tt_opt.best_set() == "compiled" else ["fast"]


@pytest.fixture(params=SETS)
def kernels(request):
    """A kernel set, for as long as a test runs."""
    with tt_opt.accelerate(request.param):
        yield request.param


def normal(*shape, seed=0, scale=1.0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * np.float32(scale)


def tensors(*arrays):
    return [tt.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]


def last(x):
    """The same images with their channels last in memory."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).transpose(0, 3, 1, 2)


# Each line is large enough for the kernels of a set to take part: the operation and its arrays.

LABELS = np.arange(300) % 7
OPERATIONS = {
    "linear": (tt.linear, normal(33, 40), normal(50, 40), normal(50)),
    "linear of a stack": (tt.linear, normal(3, 5, 40), normal(50, 40), normal(50)),
    "linear of large batches": (tt.linear, normal(700, 300), normal(200, 300), normal(200)),
    "linear of few rows": (tt.linear, normal(3, 700), normal(900, 700), normal(900)),
    "matmul of few rows": (lambda x, w: x @ w.T, normal(5, 700), normal(900, 700)),
    "matmul": (tt.matmul, normal(40, 30, 20), normal(20, 40)),
    "add": (tt.add, normal(500, 450), normal(500, 450, seed=1)),
    "gelu": (lambda x: tt.gelu(x, approximate="tanh"), normal(70, 60, scale=4)),
    "gelu of columns": (lambda x: tt.gelu(x.T, approximate="tanh"), normal(70, 60, scale=4)),
    "gelu of many": (lambda x: tt.gelu(x, approximate="tanh"), normal(700, 600)),
    "relu": (tt.relu, normal(70, 60)),
    "relu of channels last": (tt.relu, last(normal(4, 8, 16, 16))),
    "layer norm": (lambda x, w, b: ts.layer_norm(x, 48, w, b), normal(20, 30, 48), normal(48), normal(48)),
    "layer norm far from 0": (lambda x, *t: ts.layer_norm(x, 48, *t), normal(90, 48) + 1000, normal(48), normal(48)),
    "cross entropy": (lambda x: tt.cross_entropy(x, tt.tensor(LABELS)), normal(300, 7, scale=5)),
    "weighed": (lambda x: tt.cross_entropy(x, tt.tensor(LABELS), ignore_index=3), normal(300, 7)),
    "embedding": (lambda w: tn.embedding(tt.tensor(LABELS.reshape(3, 100)), w), normal(9, 33)),
    "attention": (lambda x: tn.self_attention(x, is_causal=False), normal(3, 2, 3, 130, 16)),
    "causal attention": (lambda x: tn.self_attention(x, is_causal=True), normal(3, 2, 3, 130, 16)),
    "short attention": (lambda x: tn.self_attention(x, is_causal=True), normal(3, 5, 2, 7, 4)),
    "convolution": (lambda *t: ts.conv2d(*t, padding=1), normal(3, 8, 9, 11), normal(24, 8, 3, 3), normal(24)),
    "without bias": (lambda *t: ts.conv2d(*t, padding=1), normal(3, 8, 9, 11), normal(24, 8, 3, 3)),
    "wide kernels": (lambda *t: ts.conv2d(*t, padding=(0, 2)), normal(3, 9, 9, 11), normal(20, 9, 2, 4), normal(20)),
    "few channels": (lambda *t: ts.conv2d(*t, padding=2), normal(5, 1, 12, 10), normal(6, 1, 5, 5), normal(6)),
    "three channels": (lambda *t: ts.conv2d(*t), normal(5, 3, 12, 10), normal(4, 3, 3, 3), normal(4)),
    "stride": (lambda *t: ts.conv2d(*t, stride=2), normal(3, 8, 9, 11), normal(24, 8, 3, 3), normal(24)),
    "groups": (lambda *t: ts.conv2d(*t, groups=2), normal(3, 8, 9, 11), normal(24, 4, 3, 3), normal(24)),
    "pooling": (lambda x: ts.max_pool2d(x, 2), normal(4, 6, 8, 10)),
    "pooling with channels last": (lambda x: ts.max_pool2d(x, 2), last(normal(4, 6, 8, 10))),
    "pooling of equals": (lambda x: ts.max_pool2d(x, 2), np.round(normal(4, 6, 8, 10))),
    "pooling in threes": (lambda x: ts.max_pool2d(x, 3, 2, 1), normal(4, 6, 8, 10)),
    "batch norm": (
        lambda x, w, b: ts.batch_norm(x, None, None, w, b, training=True), normal(8, 6, 5, 4), normal(6), normal(6),
    ),
    "batch norm far from 0": (
        lambda x, *t: ts.batch_norm(x, None, None, *t, training=True), normal(8, 6, 5, 4) + 1e4, normal(6), normal(6),
    ),
}  # fmt: skip
each_operation = pytest.mark.parametrize("name", OPERATIONS)


def result_and_gradients(name, seeds=(7,), create_graph=False):
    function, *arrays = OPERATIONS[name]
    inputs = [tt.from_numpy(a).requires_grad_() for a in arrays]
    out = function(*inputs)
    g = tt.tensor(normal(*out.shape, seed=7))
    gradients = ta.grad(out, inputs, g, create_graph=create_graph)
    if create_graph:
        gradients = ta.grad(sum((d * d).sum() for d in gradients), inputs, allow_unused=True)
    return [out.detach().numpy(), *(None if d is None else d.numpy() for d in gradients)]


def assert_close(found, expected, tolerance=2e-5):
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max(initial=1e-3))


@each_operation
def test_values_and_gradients_are_the_same(name, kernels):
    found = result_and_gradients(name)
    with tt_opt.accelerate("default"):
        expected = result_and_gradients(name)
    assert_close(found, expected, 2e-3 if name == "batch norm far from 0" else 2e-5)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if not {"many", "large", "far"} & {*name.split()}])
def test_second_derivatives_are_the_same(name, kernels):
    found = result_and_gradients(name, create_graph=True)
    with tt_opt.accelerate("default"):
        expected = result_and_gradients(name, create_graph=True)
    assert_close(found, expected, 1e-4)


@each_operation
def test_a_repeated_pass_gives_the_same_bits(name, kernels):
    for ours, again in zip(result_and_gradients(name), result_and_gradients(name), strict=True):
        assert np.array_equal(ours, again)


# Numbers that are not finite, in the arrays and in what comes back.


@each_operation
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("where", ["input", "gradient"])
def test_numbers_that_are_not_finite(name, value, where, kernels):
    def run():
        function, *arrays = OPERATIONS[name]
        inputs = [tt.from_numpy(a.copy()).requires_grad_() for a in arrays]
        if where == "input":
            inputs[0].detach().numpy().base.flat[5] = value
        out = function(*inputs)
        g = normal(*out.shape, seed=7)
        if where == "gradient":
            g.flat[-1:] = value
        return [out.detach().numpy(), *(d.numpy() for d in ta.grad(out, inputs, tt.tensor(g)))]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = run()
        with tt_opt.accelerate("default"):
            expected = run()
    for ours, theirs in zip(found, expected, strict=True):
        same = np.isfinite(ours) == np.isfinite(theirs)
        assert same.all(), f"{(~same).sum()} of {same.size} differ"
        finite = np.isfinite(theirs)
        assert_close([ours[finite]], [theirs[finite]], 1e-4)


def test_large_and_small_numbers(kernels):
    large = tt.full((3, 40), 1e20)
    assert (ts.layer_norm(large, 40, tt.ones(40), tt.zeros(40)) == 0).all()
    spread = tt.tensor(normal(5, 40, scale=1e20))
    assert np.allclose(ts.layer_norm(spread, 40, tt.ones(40), tt.zeros(40)).numpy().std(1), 1, atol=1e-3)
    ones = tt.ones(2, 3, 128, 128)
    mean, var = ts.channel_moments(ones.numpy())
    assert (mean == 1).all() and (var == 0).all()
    x = tt.tensor(np.array([[-1e4, 1e30, 0.0, -3e38] * 20], np.float32))
    assert np.allclose(tt.gelu(x, approximate="tanh").numpy(), np.maximum(x.numpy(), 0))
    logits = tt.tensor(np.array([[0.0, -np.inf, 200.0]], np.float32), requires_grad=True)
    tt.cross_entropy(logits, tt.tensor([2])).backward()
    assert logits.grad.numpy()[0, 1] == 0


def test_what_a_set_has_no_kernel_for_is_left_to_the_chapter(kernels):
    for dtype in (tt.float64, tt.float16):
        x = tt.tensor(normal(70, 60), dtype=dtype, requires_grad=True)
        with tt_opt.accelerate("default"):
            expected = tt.gelu(x, approximate="tanh").numpy()
        out = tt.gelu(x, approximate="tanh")
        assert out.dtype == dtype and np.array_equal(out.detach().numpy(), expected)
    empty = tt.zeros(0, 3, 8, 8).requires_grad_()
    out = ts.max_pool2d(tt.relu(ts.conv2d(empty, tt.ones(4, 3, 3, 3), tt.ones(4), padding=1)), 2)
    out.sum().backward()
    assert out.shape == (0, 4, 4, 4) and empty.grad.shape == empty.shape


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: tt.linear(tt.ones(3, 4), tt.ones(5, 6), tt.ones(5)),
        lambda: tt.affine(tt.ones(3, 4), tt.ones(5, 6), tt.ones(5)),
        lambda: tt.affine(tt.ones(3, 4), tt.ones(5, 4).double(), tt.ones(5)),
        lambda: tt.matmul(tt.ones(3, 4), tt.ones(5, 6)),
        lambda: tt.gelu(tt.ones(3), approximate="sigmoid"),
        lambda: ts.conv2d(tt.ones(1, 2, 3, 3), tt.ones(4, 3, 2, 2)),
        lambda: tt.cross_entropy(tt.ones(2, 3), tt.tensor([0, 3])),
        lambda: tn.embedding(tt.tensor([10]), tt.ones(10, 3)),
    ],
)
def test_errors_are_the_same(attempt, kernels):
    def said():
        with pytest.raises((ValueError, TypeError, IndexError)) as error:
            attempt()
        return type(error.value), str(error.value)

    found = said()
    with tt_opt.accelerate("default"):
        assert found == said()


# Recording


def small_network():
    tt.manual_seed(0)
    parts = [tt.Linear(64, 128), tt.GELU(approximate="tanh"), ts.LayerNorm(128), tt.Linear(128, 10)]
    return tt.Sequential(*parts), tt.tensor(normal(80, 64)), tt.tensor(np.arange(80) % 10)


def test_a_record_that_is_kept_can_be_walked_again(kernels):
    network, x, y = small_network()
    loss = tt.cross_entropy(network(x), y)
    loss.backward(retain_graph=True)
    first = [p.grad.numpy().copy() for p in network.parameters()]
    network.zero_grad()
    loss.backward()
    assert all(np.array_equal(g, p.grad.numpy()) for g, p in zip(first, network.parameters()))
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()


def test_what_a_twin_keeps_is_freed_by_the_walk(kernels):
    x = tt.tensor(normal(300, 300), requires_grad=True)
    out = tt.gelu(x * 1.0, approximate="tanh")
    (kept,) = [c.cell_contents for c in out._rules.__closure__ if getattr(c.cell_contents, "__name__", "") == "back"]
    kept = weakref.ref(kept)
    assert kept() is not None
    out.sum().backward()
    gc.collect()
    assert kept() is None and out.shape == (300, 300)


def test_without_recording_nothing_is_kept(kernels):
    x = tt.tensor(normal(300, 300), requires_grad=True)
    with ta.no_grad():
        assert type(tt.gelu(x, approximate="tanh")) is tt.Tensor
        assert tt_opt.acceleration.picked_up(tt.gelu.kernel(x.detach().numpy(), approximate="tanh")) is None
    assert tt_opt.acceleration.picked_up(tt.gelu.kernel(x.detach().numpy(), approximate="tanh")) is not None


def test_changed_inputs_are_noticed(kernels):
    x = tt.tensor(normal(100, 100), requires_grad=True)
    out = tt.relu(x)
    with ta.no_grad():
        x[0] = 1.0
    with pytest.raises(RuntimeError, match="changed in place"):
        out.sum().backward()


def test_hooks_and_gradients_of_one_parameter(kernels):
    network, x, y = small_network()
    hidden, seen = network[1](network[0](x)), []
    hidden.retain_grad()
    hidden.register_hook(lambda g: seen.append(g.shape))
    parameters = list(network.parameters())
    (found,) = ta.grad(tt.cross_entropy(network[3](network[2](hidden)), y), [parameters[0]])
    assert seen == [(80, 128)]
    with tt_opt.accelerate("default"):
        (expected,) = ta.grad(tt.cross_entropy(network(x), y), [parameters[0]])
    assert_close([found.numpy()], [expected.numpy()])


def test_the_meter_counts_the_same(kernels):
    def counts():
        network, x, y = small_network()
        with tt.meter() as forward:
            loss = tt.cross_entropy(network(x), y)
        with tt.meter() as back:
            loss.backward()
        return [(m.multiply_adds, m.bytes) for m in (forward, back)]

    found = counts()
    with tt_opt.accelerate("default"):
        assert found == counts()


@pytest.mark.filterwarnings("ignore:invalid value")
def test_anomalies_are_found(kernels):
    large, bias, signs = tt.full((60, 60), np.inf), tt.zeros(60), np.ones((60, 60), np.float32)
    signs[::2] = -1  # inf - inf
    with pytest.raises(ta.Anomaly, match="affine"), ta.detect_anomaly():
        tt.linear(large.requires_grad_(), tt.tensor(signs.T.copy()), bias)
    x = tt.ones(60, 60).requires_grad_()
    with pytest.raises(ta.Anomaly, match="rule of affine"), ta.detect_anomaly():
        tt.linear(x, tt.tensor(signs), bias).backward(large)


def test_updates_of_optimizers_are_the_same(kernels):
    makers = [
        lambda p: to.Adam(p, lr=0.1), lambda p: to.Adam(p, weight_decay=0.1), lambda p: to.AdamW(p, lr=0.1),
        lambda p: to.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1), lambda p: to.SGD(p, momentum=0.9, nesterov=True),
        lambda p: to.SGD(p, lr=0.1), lambda p: to.SGD(p, momentum=0.9, dampening=0.5),
    ]  # fmt: skip

    def run(make, values):
        parameters = [tt.Parameter(v.copy()) for v in values]
        optimizer = make(parameters)
        for step in range(4):
            for p in parameters:
                p.grad = tt.tensor(normal(*p.shape, seed=step))
            optimizer.step()
        return [p.numpy() for p in parameters]

    values = [normal(700, 900), normal(33, 7), normal(20, 30).T, normal(5).astype(np.float16)]
    for make in makers:
        found = run(make, values)
        with tt_opt.accelerate("default"):
            assert_close(found, run(make, values), 1e-5)


# Memory


def test_a_long_text_keeps_no_square(kernels):
    layer, x = tn.MultiheadAttention(16, 4, batch_first=True), tt.zeros(1, 2048, 16)

    def step():
        layer(x, x, x, is_causal=True, need_weights=False)[0].sum().backward()

    assert tt.measure(step).peak_bytes < 4 * 4 * 2048**2 / 3


@pytest.mark.parametrize("layout", [np.asarray, last])
def test_a_convolution_holds_no_columns(layout, kernels):
    x, weight = tt.tensor(layout(normal(64, 16, 32, 32))), tt.tensor(normal(16, 16, 3, 3), requires_grad=True)

    def step():
        ts.conv2d(x, weight, padding=1).sum().backward()

    assert tt.measure(step).peak_bytes < 3.5 * x.nbytes  # the columns would take 9 times as much


# Switching


def test_sets_are_switched_and_switched_back():
    own = {name: slot.kernel for name, slot in tt.SLOTS.items()}
    rules = dict(ta.RULES)
    with tt_opt.accelerate("fast") as used:
        assert used.name == tt_opt.kernel_set() == "fast" and tt.gelu.kernel is not own["gelu"]
        with tt_opt.accelerate("loops"):
            assert tt_opt.kernel_set() == "loops" and tt.relu.kernel is loops.relu
            with tt_opt.accelerate("default"):
                assert tt.relu.kernel is own["relu"]
        assert tt_opt.kernel_set() == "fast"
    assert tt_opt.kernel_set() == "default" and ta.RULES == rules
    assert {name: slot.kernel for name, slot in tt.SLOTS.items()} == own


def test_a_checkpoint_names_the_set_that_computed_it(tmp_path):
    for name in ("default", *SETS, "loops"):
        with tt_opt.accelerate(name):
            ta.save_checkpoint(tmp_path / name, {"x": tt.ones(2)})
            assert tt.kernels_in_use() == tt_opt.kernel_set() == name
        data = (tmp_path / name).read_bytes()  # a safetensors file: the length of a header in JSON, and the header
        assert json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["kernels"] == name
        assert ta.load_checkpoint(tmp_path / name)["x"].tolist() == [1, 1]


def test_without_a_block_a_set_stays():
    try:
        tt_opt.accelerate("fast")
        assert tt_opt.kernel_set() == "fast"
    finally:
        tt_opt.accelerate("default")
    assert tt_opt.kernel_set() == "default"


def test_an_unknown_set_is_refused():
    with pytest.raises(ValueError, match='no kernel set "?.quick'):
        tt_opt.accelerate("quick")


# Products of the compiled set may go to a BLAS other than NumPy's. It reads matrices as they lie, or turned, or a copy.

LAYOUTS = {
    "as they are read": lambda x: x,
    "turned": np.asfortranarray,
    "with gaps": lambda x: np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3],
    "every other row": lambda x: np.repeat(x, 2, 0)[::2],
    "backwards": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
}


@pytest.mark.parametrize("left", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("right", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("sizes", [(7, 5, 3), (1, 5, 1), (64, 1, 8), (6, 4, 1), (0, 3, 2), (2, 0, 3)], ids=str)
def test_products_by_a_blas_of_our_own(sizes, left, right, monkeypatch):
    compiled = pytest.importorskip("tt_opt.compiled", reason="the compiled set needs Numba")
    if compiled.SGEMM is None:
        pytest.skip("NumPy's BLAS has no cblas_sgemm that could be called")
    monkeypatch.setattr(compiled, "MKL", compiled.MKL or "NumPy's own, as if it were another")
    m, k, n = sizes
    x, y = left(normal(m, k)), right(normal(k, n, seed=1))
    out = np.full((m, n), 9, np.float32)
    compiled.matmul(x, y, out)
    np.testing.assert_allclose(out, x @ y, rtol=1e-5, atol=1e-6)


def test_without_numba_the_compiled_set_is_the_fast_one(monkeypatch):
    monkeypatch.setattr(kernel_sets, "best_set", lambda: "fast")
    with pytest.warns(RuntimeWarning, match="pip install"), tt_opt.accelerate("compiled"):
        assert tt_opt.kernel_set() == "fast"


def test_use_kernels_goes_round_the_twins(kernels):
    x = tt.tensor(normal(50, 50), requires_grad=True)
    with tt.use_kernels(loops):
        assert tt.relu.kernel is loops.relu
        out = tt.relu(x)
    assert type(out._rules) is tuple and tt.relu.kernel is not loops.relu


def test_another_thread_may_not_switch_inside_a_block(kernels):
    said = []

    def other():
        try:
            tt_opt.accelerate("default")
        except RuntimeError as error:
            said.append(str(error))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert said and "another thread" in said[0] and tt_opt.kernel_set() == kernels


# Threads and processes


def test_threads_train_side_by_side(kernels):
    def train(seed):
        w = tt.tensor(normal(256, 256, seed=seed, scale=0.05), requires_grad=True)
        x = tt.tensor(normal(300, 256, seed=seed))
        for _ in range(3):
            out = tt.gelu(tt.linear(x, w, tt.zeros(256)), approximate="tanh")
            tt.cross_entropy(out, tt.tensor(np.arange(300) % 256)).backward()
        return w.grad.numpy()

    alone, together = [train(i) for i in range(4)], [None] * 4
    threads = [
        threading.Thread(target=lambda i: together.__setitem__(i, train(i)), args=(i,)) for i in range(len(together))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_the_number_of_threads(kernels):
    before = tt_opt.get_num_threads()
    try:
        found = []
        for count in (1, 3):
            tt_opt.set_num_threads(count)
            found.append(result_and_gradients("linear of large batches"))
    finally:
        tt_opt.set_num_threads(before)
    assert_close(*found)
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="number of threads"):
            tt_opt.set_num_threads(wrong)


def test_an_error_in_a_piece_reaches_the_caller():
    from tt_opt.threads import in_pieces

    def work(start, stop):
        if start:
            raise KeyError("second half")
        return stop

    before = tt_opt.get_num_threads()
    tt_opt.set_num_threads(2)
    try:
        with pytest.raises(KeyError, match="second half"):
            in_pieces(work, 10, 1e9)
        assert in_pieces(lambda start, stop: (start, stop), 10, 1e9) == [(0, 5), (5, 10)]
        assert in_pieces(lambda start, stop: (start, stop), 9, 1e9, each=3) == [
            (0, 1), (1, 3), (3, 4), (4, 6), (6, 7), (7, 9)
        ]  # fmt: skip
        assert in_pieces(lambda start, stop: (start, stop), 3, 1e9, each=9) == [(0, 1), (1, 2), (2, 3)]
        assert in_pieces(lambda start, stop: (start, stop), 9, 10, least=11, each=3) == [(0, 9)]
        many = [in_pieces(lambda start, stop: threading.get_ident(), 9, 1e9, each=3) for _ in range(200)]
        assert len({thread for found in many for thread in found}) <= 2
    finally:
        tt_opt.set_num_threads(before)


def test_helpers_are_called_once_and_a_busy_pool_is_left_alone():
    from tt_opt.threads import with_helpers

    seen, before, inside = [], tt_opt.get_num_threads(), threading.Event()

    def helping():
        seen.append(threading.get_ident())
        inside.set()

    def own():
        assert inside.wait(10)
        return with_helpers(lambda: "own", lambda: "alone", helping, lambda: 1)  # the pool is ours: a second caller

    tt_opt.set_num_threads(2)
    try:
        assert with_helpers(own, lambda: "alone", helping, lambda: 0) == "alone"
        assert len(seen) == 1 and seen[0] != threading.get_ident()
        assert with_helpers(lambda: "own", lambda: "alone", helping, lambda: 1) == "own" and len(seen) == 1
        tt_opt.set_num_threads(1)
        assert with_helpers(lambda: "own", lambda: "alone", helping, lambda: 0) == "alone" and len(seen) == 1
    finally:
        tt_opt.set_num_threads(before)


@pytest.mark.parametrize("kind", ["int8", "q8_0", "q4_0", "q4_1"])
def test_shared_rows_are_those_of_one_thread(kind):
    """Four threads ask for products at the same time, hundreds of times, and one of them at a time gets a helper."""
    pytest.importorskip("numba", reason="the compiled kernel set needs Numba: pip install 'tt-opt[compiled]'")
    random, before, wrong = np.random.default_rng(0), tt_opt.get_num_threads(), []
    weights = [random.normal(size=(rows, 576)).astype(np.float32) for rows in (361, 960)]
    packed = [tt.from_numpy(tt_opt.FORMATS[kind].pack(weight)) for weight in weights]
    inputs = [tt.from_numpy(random.normal(size=(few, 576)).astype(np.float32)) for few in (1, 2, 5)]
    pairs = [(x, data) for x in inputs for data in packed]

    def products():
        return [tt_opt.packed_product(x, data, kind=kind).numpy() for x, data in pairs]

    def ask(expected):
        for _ in range(100):
            wrong.extend(i for i, y in enumerate(products()) if not np.array_equal(y, expected[i]))

    with tt_opt.accelerate("compiled"):
        try:
            tt_opt.set_num_threads(1)
            expected = products()
            tt_opt.set_num_threads(3)
            callers = [threading.Thread(target=ask, args=(expected,)) for _ in range(4)]
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join(60)
            assert not wrong and not any(caller.is_alive() for caller in callers)
        finally:
            tt_opt.set_num_threads(before)


CHILD = """
import os, sys
import numpy as np
import tt_opt, tt_tensor as tt
tt_opt.accelerate("fast")
tt_opt.set_num_threads(2)
x = tt.tensor(np.ones((1000, 1000), np.float32))
tt.relu(x)
if (child := os.fork()) == 0:
    os._exit(0 if tt.relu(x).sum().item() == 1e6 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def run(code, **environment):
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_child_of_a_fork_has_threads_of_its_own():
    assert run(CHILD) == "0"


def test_the_environment_names_a_set():
    assert run("import tt_opt; print(tt_opt.kernel_set())", TT_KERNELS="fast") == "fast"
    assert run("import tt_opt; print(tt_opt.get_num_threads())", TT_THREADS="3") == "3"
    process = subprocess.run(
        [sys.executable, "-c", "import tt_opt"], env={**os.environ, "TT_KERNELS": "quick"}, capture_output=True
    )
    assert process.returncode and b"TT_KERNELS" in process.stderr


def test_the_import_does_not_load_numba():
    code = "import sys, tt_opt; print('numba' in sys.modules, 'llvmlite' in sys.modules)"
    assert run(code, TT_KERNELS="") == "False False"
