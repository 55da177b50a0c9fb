"""What chapters 12 and 13 refuse, and in which words; causality and padding for whatever hypothesis thinks of; dtypes,
the same bits from the same seed, empty input, threads, and memory."""

import gc
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tt_autograd as ta
import tt_nlp as tn
import tt_tensor as tt

TABLE = tn.Embedding(10, 4)
X = tt.zeros(2, 5, 8)
LAYER = tn.MultiheadAttention(8, 2, batch_first=True)
WIDE = tn.MultiheadAttention(8, 2, kdim=3, vdim=4, batch_first=True)
IDS, GPT = tt.tensor([[1, 2]]), tn.GPT(tn.GPTConfig(10, 4, 1, 2, 8))
REFUSED = [
    ("an id too large", lambda: TABLE(tt.tensor([3, 10])), IndexError, r"id 10.* 10 rows, 0 to 9"),
    ("a negative id", lambda: TABLE(tt.tensor([[0], [-2]])), IndexError, r"id -2.* 0 to 9"),
    ("float ids", lambda: TABLE(tt.tensor([1.0])), TypeError, r"must be integers.* float32.*long\(\)"),
    ("truth values as ids", lambda: TABLE(tt.tensor([True])), TypeError, r"must be integers.* bool"),
    ("no rows", lambda: tn.Embedding(0, 4), ValueError, "0 of 4"),
    ("no numbers", lambda: tn.Embedding(4, 0), ValueError, "4 of 0"),
    ("a padding that is no row", lambda: tn.Embedding(10, 4, padding_idx=10), ValueError, "padding_idx 10.* 10 rows"),
    ("a padding before the first", lambda: tn.Embedding(10, 4, padding_idx=-11), ValueError, "padding_idx -11"),
    ("a padding from the end", lambda: tn.embedding(IDS, TABLE.weight, padding_idx=-1), IndexError, "-1.* 0 to 9"),
    (
        "a padding for a bag",
        lambda: tn.embeddings.embedding_bag(IDS, TABLE.weight, 10),
        IndexError,
        "padding_idx 10.* 0 to 9",
    ),
    ("no token to go on from", lambda: tn.next_logits(GPT, [[1], []]), ValueError, "at least one token"),
    ("more tokens than places", lambda: tn.LearnedPositions(8, 4)(tt.zeros(9, 4)), ValueError, "9 tokens.* 8 only"),
    ("odd positions", lambda: tn.sinusoidal_positions(4, 5), ValueError, "even and at least 2, not 5"),
    ("odd pairs", lambda: tn.rotary(tt.zeros(2, 3)), ValueError, "even and at least 2, not 3"),
    ("too many places", lambda: tn.rotary(tt.zeros(2, 4), [0, 1, 2]), ValueError, r"\(3,\) positions for 2"),
    ("a number for places", lambda: tn.rotary(tt.zeros(2, 4), 3), ValueError, r"positions for 2"),
    ("an odd rotary module", lambda: tn.RotaryEmbedding(7), ValueError, "even and at least 2, not 7"),
    ("another width", lambda: tn.RotaryEmbedding(8)(tt.zeros(2, 4)), ValueError, r"8 numbers.*\(2, 4\)"),
    ("a base of 0", lambda: tn.rotary(tt.zeros(2, 4), base=0), ValueError, "base must be a finite number above 0"),
    ("places for integers", lambda: tn.rotary(tt.zeros(2, 4).long()), ValueError, "rotary turns floats.* int64"),
    ("places for a vector", lambda: tn.rotary(tt.zeros(4)), ValueError, r"rotary turns floats.*\(4,\)"),
    ("places of another width", lambda: tn.LearnedPositions(8, 4)(tt.zeros(2, 3)), ValueError, r"4 numbers.*\(2, 3\)"),
    (
        "time first", lambda: tn.MultiheadAttention(8, 2)(tt.zeros(3, 2, 8), tt.zeros(4, 2, 7), tt.zeros(4, 2, 8)),
        ValueError, r"takes \(T, B, 8\), \(S, B, 8\) and .*, not \(3, 2, 8\), \(4, 2, 7\) and \(4, 2, 8\)",
    ),
    ("half a head", lambda: tn.MultiheadAttention(8, 2.0), TypeError, "num_heads must be an integer, not 2.0"),
    (
        "keys of its own", lambda: tn.MultiheadAttention(8, 2, add_bias_kv=True), ValueError,
        "add_bias_kv and add_zero_attn must be False",
    ),
    ("arrays", lambda: tn.scaled_dot_product_attention(*[X.numpy()] * 3), TypeError, "takes tensors, not ndarray"),
    ("arrays for a layer", lambda: LAYER(*[X.numpy()] * 3), TypeError, "takes tensors, not ndarray"),
    ("heads that do not divide", lambda: tn.MultiheadAttention(8, 3), ValueError, "3 heads do not divide 8"),
    ("no heads", lambda: tn.MultiheadAttention(8, 0), ValueError, "0 heads"),
    ("heads that do not divide a tensor", lambda: tn.split_heads(X, 3), ValueError, "3 heads do not divide 8"),
    ("a dropout above 1", lambda: tn.MultiheadAttention(8, 2, dropout=1.5), ValueError, "between 0 and 1.*1.5"),
    ("dropout_p above 1", lambda: tn.scaled_dot_product_attention(X, X, X, dropout_p=2), ValueError, "between 0 and 1"),
    ("D differs", lambda: tn.scaled_dot_product_attention(X, X[..., :4], X), ValueError, r"\(2, 5, 4\).*same D"),
    ("lengths differ", lambda: tn.scaled_dot_product_attention(X, X, X[:, :4]), ValueError, r"2, 4, 8.*same length"),
    ("batches differ", lambda: tn.scaled_dot_product_attention(X, tt.zeros(3, 5, 8), X), ValueError, "broadcast"),
    ("vectors", lambda: tn.scaled_dot_product_attention(X[0, 0], X, X), ValueError, r"\(\.\.\., T, D\).*\(8,\)"),
    ("integers", lambda: tn.scaled_dot_product_attention(*[X.long()] * 3), ValueError, "floats.*int64"),
    (
        "a mask that does not broadcast", lambda: tn.scaled_dot_product_attention(X, X, X, tt.zeros(5, 4)), ValueError,
        r"\(5, 4\).*broadcast to \(2, 5, 5\)",
    ),
    (
        "a mask with a larger batch", lambda: tn.scaled_dot_product_attention(X, X, X, tt.zeros(3, 5, 5)), ValueError,
        r"\(3, 5, 5\)",
    ),
    (
        "a mask with more dimensions", lambda: tn.scaled_dot_product_attention(X, X, X, tt.zeros(1, 2, 5, 5)),
        ValueError, r"\(1, 2, 5, 5\)",
    ),
    (
        "a mask of integers", lambda: tn.scaled_dot_product_attention(X, X, X, tt.zeros(5, 5).long()), ValueError,
        "int64, must be bool or float",
    ),
    (
        "two masks", lambda: tn.scaled_dot_product_attention(X, X, X, tn.causal_mask(5), is_causal=True), ValueError,
        "is_causal is a mask already",
    ),
    ("not stacked", lambda: tn.self_attention(X), ValueError, r"\(3, \.\.\., T, D\).*\(2, 5, 8\)"),
    ("stacked integers", lambda: tn.self_attention(tt.zeros(3, 5, 8).long()), ValueError, "floats.*int64"),
    ("another width", lambda: LAYER(X, X, tt.zeros(2, 5, 6)), ValueError, r"\(2, 5, 6\)"),
    ("another batch", lambda: LAYER(X, X[:1], X[:1]), ValueError, r"\(1, 5, 8\)"),
    ("fewer values than keys", lambda: LAYER(X, X, X[:, :3]), ValueError, r"\(2, 3, 8\)"),
    ("widths mixed up", lambda: WIDE(X, tt.zeros(2, 5, 4), tt.zeros(2, 5, 3)), ValueError, r"S, 3.*S, 4.*\(2, 5, 4\)"),
    ("padding of another shape", lambda: LAYER(X, X, X, tt.zeros(5, 2)), ValueError, r"padding.*\(2, 5\).*\(5, 2\)"),
    ("padding in integers", lambda: LAYER(X, X, X, tt.zeros(2, 5).long()), ValueError, "key_padding_mask.*int64"),
    (
        "a mask of another shape", lambda: LAYER(X, X, X, attn_mask=tt.zeros(2, 5, 5)), ValueError,
        r"attn_mask.*\(5, 5\) or \(4, 5, 5\), not \(2, 5, 5\)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_bad_input_is_refused_in_words(call, error, words):
    with pytest.raises(error, match=f"(?s){words}"):
        call()


# Properties.

anything = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@anything
@given(st.data())
def test_changing_a_token_changes_nothing_before_it(data):
    length, heads = data.draw(st.integers(1, 140)), data.draw(st.sampled_from([1, 2, 4]))
    seed = data.draw(st.integers(0, 99))
    t, way = data.draw(st.integers(0, length - 1)), data.draw(st.sampled_from(["blocks", "weights", "mask", "window"]))
    random = np.random.default_rng(seed)
    tt.manual_seed(seed)
    layer = tn.MultiheadAttention(8, heads, batch_first=True)
    options = {"need_weights": way == "weights", "is_causal": way in ("blocks", "weights")}
    if way == "mask":
        options["attn_mask"] = ~tn.causal_mask(length)
    if way == "window":
        options["attn_mask"] = ~tn.window_mask(length, 5)
    x = random.normal(size=(2, length, 8)).astype(np.float32)
    changed = x.copy()
    changed[:, t] += random.normal(size=8) * 100
    texts = [tt.from_numpy(x), tt.from_numpy(changed)]
    before, after = (layer(text, text, text, **options)[0].detach().numpy() for text in texts)
    assert np.array_equal(before[:, :t], after[:, :t])
    assert (np.abs(before[:, t] - after[:, t]) > 0).any()
    if way == "window":
        np.testing.assert_allclose(before[:, t + 5 :], after[:, t + 5 :], atol=1e-6)


@anything
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 99), st.booleans(), st.booleans())
def test_padding_and_company_change_nothing(lengths, seed, is_causal, need_weights):
    random = np.random.default_rng(seed)
    layer = tn.MultiheadAttention(8, 2, batch_first=True)
    x = random.normal(size=(len(lengths), max(lengths), 8)).astype(np.float32)
    padding = np.arange(max(lengths)) >= np.array(lengths)[:, None]
    x[padding] = 1e6  # whatever stands there
    batch = tt.from_numpy(x)
    options = {"need_weights": need_weights, "is_causal": is_causal}
    together = layer(batch, batch, batch, key_padding_mask=tt.from_numpy(padding), **options)[0].detach().numpy()
    for row, length in enumerate(lengths):
        text = tt.from_numpy(x[row : row + 1, :length])
        alone = layer(text, text, text, **options)[0].detach().numpy()
        np.testing.assert_allclose(together[row, :length], alone[0], rtol=1e-4, atol=1e-5)


@anything
@given(st.data())
def test_a_batch_is_its_texts(data):
    shape = data.draw(st.sampled_from([(3, 2, 1, 5, 4), (3, 4, 2, 70, 4), (3, 7, 3, 129, 2), (3, 40, 3, 65, 2)]))
    is_causal, row = data.draw(st.booleans()), data.draw(st.integers(0, shape[1] - 1))
    qkv = tt.from_numpy(np.random.default_rng(0).normal(size=shape))
    together, alone = (tn.self_attention(x, is_causal=is_causal).numpy() for x in (qkv, qkv[:, row : row + 1]))
    np.testing.assert_allclose(together[row : row + 1], alone, rtol=1e-12, atol=1e-13)


@anything
@given(st.integers(2, 30), st.integers(0, 10_000), st.booleans())
def test_turned_products_depend_on_the_distance_alone(pairs, start, interleaved):
    query, key = np.random.default_rng(pairs).normal(size=(2, 1, 2 * pairs))
    products = [
        (tn.rotary(tt.Tensor(query), [s], 100.0, interleaved) * tn.rotary(tt.Tensor(key), [s + 3], 100.0, interleaved))
        .sum().item() for s in (0, start)
    ]  # fmt: skip
    assert products[0] == pytest.approx(products[1], abs=1e-8)


# Small print.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_stay(dtype):
    layer, x = tn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True).to(dtype), tt.ones(2, 5, 8, dtype=dtype)
    for options in ({"need_weights": False}, {"is_causal": True}, {"attn_mask": tt.zeros(5, 5, dtype=np.float64)}):
        assert layer(x, x, x, **options)[0].dtype == dtype
    assert tn.rotary(x).dtype == dtype and tn.Embedding(3, 4).to(dtype)(tt.tensor([1])).dtype == dtype
    for ids in (np.int8, np.int32, np.uint8, np.int64):
        assert tn.Embedding(3, 4)(tt.from_numpy(np.array([1, 2], ids))).shape == (2, 4)


def test_nothing_is_computed_of_nothing():
    assert TABLE(tt.tensor(np.zeros((2, 0), np.int64))).shape == (2, 0, 4)
    table = tt.ones(5, 2, requires_grad=True)
    tn.embedding(tt.tensor(np.zeros(0, np.int64)), table).sum().backward()
    assert (table.grad == 0).all()
    for shape in ((3, 0, 5, 4), (3, 2, 0, 4)):
        qkv = tt.zeros(*shape, requires_grad=True)
        tn.self_attention(qkv, is_causal=True).sum().backward()
        assert qkv.grad.shape == shape
    no_keys = tn.scaled_dot_product_attention(tt.ones(2, 3, 4), tt.ones(2, 0, 4), tt.ones(2, 0, 5))
    assert no_keys.shape == (2, 3, 5) and (no_keys == 0).all()


def test_a_row_of_zeros_is_near_to_nothing():
    assert tn.nearest(tt.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 0.0]]), 1, 2) == [(2, pytest.approx(0.6)), (0, 0.0)]
    assert tn.nearest(tt.tensor([[0.0, 0.0], [3.0, 4.0]]), 0, 1) == [(1, 0.0)]


def test_gradients_of_rows_that_see_nothing_are_zeros_and_finite():
    qkv = [tt.Tensor(np.random.default_rng(i).normal(size=(3, 4)), requires_grad=True) for i in range(3)]
    mask = tt.tensor([[False] * 3, [True, False, True], [False] * 3])
    tn.scaled_dot_product_attention(*qkv, mask).sum().backward()
    assert (qkv[0].grad.numpy()[[0, 2]] == 0).all()
    assert all(np.isfinite(x.grad.numpy()).all() for x in qkv) and qkv[1].grad.numpy()[0].any()


BAD = pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
FLOATS = pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])


def leaves(dtype, *shapes, seed=0):
    random = np.random.default_rng(seed)
    return [tt.Tensor(random.normal(size=shape).astype(dtype), requires_grad=True) for shape in shapes]


@FLOATS
@BAD
def test_what_arrives_for_padding_does_not_reach_the_table(bad, dtype):
    (weight,), ids = leaves(dtype, (5, 2)), tt.tensor([[0, 1], [3, 0]])
    arrives = np.ones((2, 2, 2), dtype)
    arrives[[0, 1], [0, 1]] = bad
    tn.embedding(ids, weight, padding_idx=0).backward(tt.from_numpy(arrives))
    assert weight.grad.tolist() == [[0, 0], [1, 1], [0, 0], [1, 1], [0, 0]]


@FLOATS
@BAD
def test_the_row_of_the_padding_is_in_no_mean(bad, dtype):
    numbers = np.ones((4, 2), dtype)
    numbers[0] = bad
    weight = tt.Tensor(numbers, requires_grad=True)
    means = tn.embeddings.embedding_bag(tt.tensor([[1, 0], [0, 0]]), weight, 0)
    assert means.tolist() == [[1, 1], [0, 0]] and means.dtype == dtype
    means.sum().backward()
    assert weight.grad.tolist() == [[0, 0], [1, 1], [0, 0], [0, 0]]


@FLOATS
@BAD
@pytest.mark.parametrize("length", [5, 70])
def test_what_arrives_for_one_token_reaches_none_after_it(bad, dtype, length):
    (qkv,), arrives = leaves(dtype, (3, 2, length, 4)), np.zeros((2, length, 4), dtype)
    arrives[0, 2, 1] = bad
    tn.self_attention(qkv, is_causal=True).backward(tt.from_numpy(arrives))
    share = qkv.grad.numpy()
    assert (share[:, 0, 3:] == 0).all() and (share[:, 1] == 0).all() and (share[0, 0, :2] == 0).all()
    assert not np.isfinite(share[2, 0, :3, 1]).any()


@FLOATS
@BAD
@pytest.mark.parametrize("length", [5, 70])
def test_what_comes_later_is_not_seen_even_if_it_is_no_number(bad, dtype, length):
    (clean,) = leaves(dtype, (3, 1, length, 4))
    spoilt = clean.detach().numpy().copy()
    spoilt[:, :, 3:] = bad
    with ta.no_grad():
        found, wanted = (tn.self_attention(x, is_causal=True)[:, :3].numpy() for x in (tt.Tensor(spoilt), clean))
    assert np.allclose(found, wanted, rtol=1e-2 if dtype == np.float16 else 1e-6)


@FLOATS
@BAD
@pytest.mark.parametrize("length", [5, 70])
@pytest.mark.parametrize("create_graph", [False, True], ids=["on arrays", "on tensors"])
def test_what_comes_later_spoils_no_gradient_of_an_earlier_query(bad, dtype, length, create_graph):
    (clean,) = leaves(dtype, (3, 1, length, 4))
    numbers = clean.detach().numpy().copy()
    numbers[1:, :, 3:] = bad  # keys and values; the queries are all finite

    def of_the_first_queries(qkv):
        found = tn.self_attention(qkv, is_causal=True)
        with tt.quiet():
            (share,) = ta.grad(found, qkv, tt.ones(*found.shape, dtype=dtype), create_graph=create_graph)
        return share.detach().numpy()[0, :, :3]

    found, wanted = map(of_the_first_queries, (tt.Tensor(numbers, requires_grad=True), clean))
    assert np.abs(found - wanted).max() < (2e-3 if dtype == np.float16 else 1e-6) and np.abs(wanted).max() > 0.1


@FLOATS
@BAD
@pytest.mark.parametrize("numbers", [False, True])
def test_a_hidden_key_takes_no_part(bad, dtype, numbers):
    query, key, value = leaves(dtype, (3, 4), (5, 4), (5, 2))
    sees = np.ones((3, 5), bool)
    sees[:, 4] = sees[1] = False
    mask = tt.from_numpy(np.where(sees, 0, -np.inf).astype(dtype) if numbers else sees)
    wanted = tn.scaled_dot_product_attention(query, key, value, mask).detach().numpy()
    with tt.quiet():
        key.data[4] = bad
        value.data[4] = bad
        found = tn.scaled_dot_product_attention(query, key, value, mask)
        assert np.array_equal(found.detach().numpy(), wanted) and (wanted[1] == 0).all()
        arrives = np.ones((3, 2), dtype)
        arrives[1] = bad  # this query sees nothing
        found.backward(tt.from_numpy(arrives))
    assert (value.grad.numpy()[4] == 0).all() and (key.grad.numpy()[4] == 0).all()
    assert np.isfinite(value.grad.numpy()).all() and np.isfinite(key.grad.numpy()).all()


@pytest.mark.parametrize("masked", [False, True])
def test_attention_of_float16_computes_in_float32(masked):
    random = np.random.default_rng(0)
    query, key, value = (random.normal(size=(1, 70, 16)) * size for size in (60, 60, 1))
    query, key, value = (x.astype(np.float16) for x in (query, key, value))
    mask = tt.from_numpy(np.ones((70, 70), bool)) if masked else None
    found = tn.scaled_dot_product_attention(*map(tt.from_numpy, (query, key, value)), mask)
    wide = [tt.from_numpy(x.astype(np.float64)) for x in (query, key, value)]
    wanted = tn.scaled_dot_product_attention(*wide, mask).numpy()
    assert found.dtype == tt.float16 and np.abs(found.numpy() - wanted).max() < 4e-3
    many = tt.from_numpy(np.ones((70_000, 1), np.float16))  # more keys than float16 can count
    assert abs(tn.scaled_dot_product_attention(many[:1], many, many).item() - 1) < 5e-3


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_gradient_of_a_frequent_token_is_not_cut_off(dtype):
    count = 100_000
    table = tn.add_rows(np.zeros(count, int), np.full((count, 2), 0.01, dtype), rows=1)
    wanted = count * float(dtype(0.01))
    assert table.dtype == dtype and np.abs(table / wanted - 1).max() < np.finfo(dtype).eps * 2
    mean = tn.embeddings.embedding_bag(tt.tensor(np.ones((1, count), int)), tt.from_numpy(np.full((2, 1), 3, dtype)), 0)
    assert mean.item() == 3


def test_near_rows_may_be_tiny_or_huge():
    rows = np.array([[1.0, 1.0], [1.0, 0.0], [-1.0, -1.0]])
    for size, dtype in ((1e-30, np.float32), (1e30, np.float32), (1e-300, np.float64), (1e300, np.float64)):
        found = tn.nearest(tt.from_numpy((rows * size).astype(dtype)), 0, 2)
        assert found == [(1, pytest.approx(0.5**0.5)), (2, pytest.approx(-1))], size
    for token in (-1, 3):
        with pytest.raises(IndexError, match=f"no row for id {token}"):
            tn.nearest(tt.from_numpy(rows), token, 1)


def test_dropout_strikes_only_in_training_and_follows_the_seed():
    layer, x = tn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True), tt.randn(2, 6, 8)

    def out(need_weights, seed):
        tt.manual_seed(seed)
        return layer(x, x, x, need_weights=need_weights)[0].detach().numpy()

    for need in (False, True):
        assert np.array_equal(out(need, 1), out(need, 1)) and not np.array_equal(out(need, 1), out(need, 2))
    assert np.array_equal(out(False, 3), out(True, 3))
    layer.eval()
    assert np.allclose(out(False, 1), out(True, 2), atol=1e-6)


def test_the_same_seed_gives_the_same_bits():
    def trained():
        tt.manual_seed(5)
        return tn.embeddings.train_gap_filler(epochs=1)[1].table.weight.numpy(), tn.attention.train_recall(
            tn.attention.RecallByAttention(8), 500, 1
        )

    (one, share), (other, same) = trained(), trained()
    assert np.array_equal(one, other) and share == same


def test_threads_do_not_meet():
    qkv = tt.from_numpy(np.random.default_rng(0).normal(size=(3, 8, 4, 70, 8)))
    expected = tn.self_attention(qkv, is_causal=True).numpy()
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: tn.self_attention(qkv, is_causal=True).numpy(), range(12)):
            assert np.array_equal(found, expected)


def test_inputs_are_left_alone():
    qkv = tt.from_numpy(np.random.default_rng(0).normal(size=(3, 2, 70, 8))).requires_grad_()
    before = qkv.numpy().copy()
    out = tn.self_attention(qkv, is_causal=True)
    result = out.detach().numpy().copy()
    g = tt.ones(2, 70, 8, dtype=np.float64)
    ta.grad(out, qkv, g)
    assert np.array_equal(qkv.numpy(), before) and np.array_equal(out.detach().numpy(), result) and (g == 1).all()


def test_an_overflow_is_a_nan_without_a_warning():
    qkv = tt.full((3, 1, 2, 4), 1e30)
    assert np.isnan(tn.self_attention(qkv).numpy()).all()


# Memory: a backward pass keeps no square, and steps leave nothing behind.


def peak_of(call):
    gc.collect()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_training_step_holds_no_square():
    length, layer = 2048, tn.MultiheadAttention(16, 4, batch_first=True)
    x = tt.zeros(1, length, 16)

    def step():
        layer(x, x, x, is_causal=True, need_weights=False)[0].sum().backward()

    square = 4 * 4 * length**2
    assert peak_of(step) < square / 3


def test_an_embedding_step_holds_two_tables_at_most():
    layer, ids = tn.Embedding(20_000, 16), tt.tensor(np.arange(500) * 7)

    def step():
        layer.zero_grad()
        layer(ids).sum().backward()

    assert peak_of(step) < 2.2 * layer.weight.nbytes


def test_steps_leave_nothing_behind():
    layer, x = tn.MultiheadAttention(16, 4, batch_first=True), tt.randn(4, 32, 16)

    def steps(count):
        for _ in range(count):
            layer.zero_grad()
            layer(x, x, x)[0].sum().backward()

    steps(3)
    gc.collect()
    tracemalloc.start()
    try:
        steps(10)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        steps(100)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()
