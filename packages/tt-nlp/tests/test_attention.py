"""Chapter 13, judged by its public names."""

import math

import numpy as np
import pytest

import tt_autograd as ta
import tt_nlp as tn
import tt_tensor as tt
from tt_tensor.teaching import expect

LOOPS, WEIGHTS, HEADS, LAYER = (
    "The smallest thing that could work", "Weights, and who may look", "Heads", "The layer",
)  # fmt: skip
COST, BLOCKS, EXERCISES, IDEA = "The cost", "Without the square", "Exercises", "The idea"


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def numbers(*shape):
    """Numbers that follow no pattern, the same in every run."""
    return np.random.default_rng(13).normal(size=shape)


def weights_of(query, key, added=0.0, scale=None):
    """Softmax of scaled scores + added, with 0 for rows in which all is forbidden."""
    scores = query @ np.swapaxes(key, -1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale) + added
    largest = scores.max(-1, keepdims=True, initial=-1e300)
    powers = np.exp(scores - largest)
    return powers / np.maximum(powers.sum(-1, keepdims=True), 1e-300)


def forbidden(mask):
    return np.where(mask, 0.0, -np.inf)


def triangle(queries, keys=None):
    return np.tri(queries, queries if keys is None else keys, dtype=bool)


ROOT = "The scores are not divided by sqrt(D), where D is the size of a head."
WIDE = "The scores are divided by the root of the model's width: it is the sqrt of the head's size, D."
BEFORE = "Rows do not add up to 1: mask the scores before the softmax, by adding -inf, and not the weights after it."
LEARNED = "A mask of numbers may be learned: add it as a tensor (`as_added`), and make no array of it."


def test_the_loops():
    query, key, value = numbers(2, 3, 4), numbers(2, 5, 4) * 0.7, numbers(2, 5, 6) + 0.5
    expect(
        "attention_by_loops(query (2, 3, 4), key (2, 5, 4), value (2, 5, 6))",
        lambda: tn.attention.attention_by_loops(query, key, value),
        weights_of(query, key) @ value,
        (weights_of(query, key, scale=1.0) @ value, ROOT),
        (query @ key.swapaxes(1, 2) / 2 @ value, "The scores have to become weights that add up to 1: softmax."),
        (lambda out: out.shape != (2, 3, 6), "A row for each query, of the size of the values."),
        "For each head and query: the softmax of the scores with all keys weighs the values.",
        see=LOOPS,
    )
    expect(
        "attention_by_loops with scores of 1000",
        lambda: tn.attention.attention_by_loops(
            np.full((1, 1, 1), 1000.0), np.ones((1, 2, 1)), np.array([[[1.0], [3.0]]])
        ),
        np.full((1, 1, 1), 2.0),
        (OverflowError, "Subtract the largest score before taking powers."),
        (lambda out: not np.isfinite(out).all(), "Subtract the largest score before taking powers."),
        see=LOOPS,
    )


def test_causal_mask():
    for queries, keys in ((4, None), (2, 5), (4, 2)):
        right, columns = triangle(queries, keys), keys or queries
        expect(
            f"causal_mask({queries}{'' if keys is None else f', {keys}'})",
            lambda queries=queries, keys=keys: tn.causal_mask(queries, keys),
            right,
            (np.tri(queries, columns, 1, bool), "Position t sees position t + 1: True only where key <= query."),
            (np.tri(queries, columns, -1, bool), "The diagonal is missing: a token may look at itself, row 0 as well."),
            (~right, "It is the other way round: True where one may look."),
            see=WEIGHTS,
        )
    expect("the dtype of causal_mask(3)", lambda: tn.causal_mask(3).dtype, np.dtype(bool), see=WEIGHTS)


def test_weights():
    query, key = numbers(2, 3, 4), numbers(2, 5, 4) * 0.7
    expect(
        "attention_weights(query (2, 3, 4), key (2, 5, 4))",
        lambda: tn.attention_weights(tt.Tensor(query), tt.Tensor(key)),
        weights_of(query, key),
        (weights_of(query, key, scale=1.0), ROOT),
        (weights_of(query, key, scale=0.25), "Divide by the sqrt of the head's size, 4, and not by the size."),
        (lambda out: not np.allclose(out.sum(-1), 1), "Each row adds up to 1: softmax over the keys, the last dim."),
        see=IDEA,
    )
    expect(
        "the same with scale=0.1",
        lambda: tn.attention_weights(tt.Tensor(query), tt.Tensor(key), scale=0.1),
        weights_of(query, key, scale=0.1),
        (weights_of(query, key), "A scale that is given takes the place of 1 / sqrt(D)."),
        see=WEIGHTS,
    )
    mask = np.array([[True, False, True, True, False], [False, True, False, False, False], [True] * 5])
    added = np.array([[0.5, -1.0, 2.0, 0.0, -np.inf]])
    for said, given, numeric in (
        ("a mask of truth values", mask, forbidden(mask)),
        ("a mask for the second text only", np.stack([mask | True, mask]), forbidden(np.stack([mask | True, mask]))),
        ("a mask of numbers (1, 5)", added, added),
    ):
        expect(
            f"attention_weights with {said}",
            lambda given=given: tn.attention_weights(tt.Tensor(query), tt.Tensor(key), tt.from_numpy(given)),
            weights_of(query, key, numeric),
            (weights_of(query, key) * np.exp(numeric), BEFORE),
            (weights_of(query, key, forbidden(~mask)), "True means that a query may look, and not that it must not."),
            (weights_of(query, key), "The mask is ignored."),
            (lambda out: bool(np.isnan(out).any()), "nan comes from -inf times 0: choose between 0 and -inf instead."),
            see=WEIGHTS,
        )
    nothing = mask.copy()
    nothing[1] = False
    for given in (nothing, forbidden(nothing)):
        expect(
            f"attention_weights when query 1 may look at nothing ({'bool' if given is nothing else 'numbers'})",
            lambda given=given: tn.attention_weights(tt.Tensor(query), tt.Tensor(key), tt.from_numpy(given)),
            weights_of(query, key, forbidden(nothing)),
            (lambda out: bool(np.isnan(out).any()), "-inf minus -inf is nan: such a row has the weights 0."),
            (lambda out: bool(out[0, 1].sum() > 0.9), "A query that sees nothing has the weights 0, not equal ones."),
            see=WEIGHTS,
        )


def test_gradients_come_through_a_mask():
    query, key = numbers(3, 4), numbers(5, 4) * 0.7
    weights, up = weights_of(query, key, numbers(1, 5)[:, ::-1]), np.arange(15.0).reshape(3, 5)
    right = (weights * (up - (up * weights).sum(-1, keepdims=True))).sum(0, keepdims=True)

    def learned():
        bias = tt.Tensor(numbers(1, 5)[:, ::-1].copy(), requires_grad=True)
        found = tn.attention_weights(tt.Tensor(query), tt.Tensor(key), bias)
        return ta.grad((found * tt.Tensor(up)).sum(), bias)[0].detach()

    expect(
        "the gradient of a mask of numbers (1, 5), which is learned",
        learned,
        right,
        (RuntimeError, LEARNED),
        (np.zeros((1, 5)), LEARNED),
        see=WEIGHTS,
    )

    def of_query(hidden):
        x = tt.Tensor(query, requires_grad=True)
        found = tn.attention_weights(x, tt.Tensor(key), tt.from_numpy(hidden))
        return ta.grad((found * tt.Tensor(up)).sum(), x)[0].detach()

    nothing = np.array([[True] * 5, [False] * 5, [True] * 5])
    expect(
        "the gradient of query 1, which may look at nothing",
        lambda: of_query(nothing)[1],
        np.zeros(4),
        (lambda out: bool(np.isnan(out).any()), "nan in the backward pass: replace the scores of such a row before the "
                                                "softmax, and its weights after it."),
        see=WEIGHTS,
    )  # fmt: skip


def test_weights_of_small_dtypes():
    for kind in (np.float16, np.float32, np.float64):
        expect(
            f"the dtype of attention_weights of {np.dtype(kind)}, with and without a mask",
            lambda kind=kind: [
                tn.attention_weights(*(tt.from_numpy(numbers(3, 4).astype(kind)) for _ in "qk"), mask).dtype
                for mask in (None, tn.causal_mask(3))
            ],
            [np.dtype(kind)] * 2,
            "The weights have the dtype of the query.",
            see=WEIGHTS,
        )


EFFECTS = {
    "pairs": "Each query takes its weight from every key, wherever the key stands: the set of pairs is the same.",
    "queries": "A query has a row of its own, which depends on no other query: the rows go with the queries.",
    "values": "The weights do not depend on the values, and the result is a sum of weight times value.",
    "keys": "Doubled keys double the scores, and softmax then has sharper weights: the result changes, by no factor.",
    "shift": "A vector v that is added to all keys adds query @ v to all scores of a query, and softmax does not see a "
             "constant.",
}  # fmt: skip


def test_predictions():
    query, key, value, v = numbers(3, 4), numbers(5, 4) * 0.7, numbers(5, 6) + 0.5, numbers(4)

    def attend(q, k, v):
        return weights_of(q, k) @ v

    before, turned = attend(query, key, value), [2, 0, 1, 4, 3]
    after = {
        "pairs": attend(query, key[turned], value[turned]),
        "queries": attend(query[turned[:3]], key, value),
        "values": attend(query, key, value * 2),
        "keys": attend(query, key * 2, value),
        "shift": attend(query, key + v, value),
    }
    kinds = {"same": before, "order": before[turned[:3]], "double": before * 2}
    measured = {
        name: next((kind for kind, wanted in kinds.items() if np.allclose(out, wanted)), "other")
        for name, out in after.items()
    }
    expect(
        "predict_effects()",
        lambda: tn.attention.predict_effects(),
        measured,
        (lambda out: set(out) != set(measured), f"A dict with the names {', '.join(measured)}."),
        (lambda out: not set(out.values()) <= {*kinds, "other"}, 'Answers: "same", "order", "double" and "other".'),
        *((lambda out, name=name: out[name] != measured[name], f'"{name}": {why}') for name, why in EFFECTS.items()),
        see=IDEA,
    )


def test_scaled_dot_product_attention():
    def given(*arrays, **options):
        tensors = [tt.Tensor(array) for array in arrays]
        return lambda: tn.scaled_dot_product_attention(*tensors, **options)

    query, key, value = numbers(2, 3, 4), numbers(2, 5, 4) * 0.7, numbers(2, 5, 6) + 0.5
    mask = np.array([[True, False, True, True, False], [False, True, False, False, False], [True] * 5])
    for said, options, wanted in (
        ("", {}, weights_of(query, key) @ value),
        (", a mask", {"attn_mask": tt.from_numpy(mask)}, weights_of(query, key, forbidden(mask)) @ value),
        (", is_causal=True", {"is_causal": True}, weights_of(query, key, forbidden(triangle(3, 5))) @ value),
        (", scale=0.1", {"scale": 0.1}, weights_of(query, key, scale=0.1) @ value),
    ):
        expect(
            f"scaled_dot_product_attention(query (2, 3, 4), key (2, 5, 4), value (2, 5, 6){said})",
            given(query, key, value, **options),
            wanted,
            (weights_of(query, key) @ value, "The option is ignored."),
            "The weights of attention_weights, times the values.",
            see=WEIGHTS,
        )
    expect(
        "scaled_dot_product_attention(query (2, 3, 4), key (2, 3, 4), value (2, 3, 6))",
        given(query, key[:, :3], value[:, :3]),
        weights_of(query, key[:, :3]) @ value[:, :3],
        "Values may have another size than queries and keys: only three equal shapes can be stacked.",
        see=WEIGHTS,
    )
    same = [numbers(2, 3, 6, 4) * factor for factor in (1.0, 0.5, 2.0)]
    for causal in (False, True):
        added = forbidden(triangle(6)) if causal else 0.0
        expect(
            f"scaled_dot_product_attention of three (2, 3, 6, 4), is_causal={causal}",
            given(*same, is_causal=causal),
            weights_of(same[0], same[1], added) @ same[2],
            (weights_of(same[0], same[1], added, 1.0) @ same[2], ROOT),
            (weights_of(same[0], same[1], added, 12**-0.5) @ same[2], WIDE),
            (weights_of(same[0], same[1]) @ same[2], "No query may look ahead."),
            see=WEIGHTS,
        )

    def dropped():
        zeros, ones = tt.zeros(50, 40, 4), tt.ones(50, 40, 1)
        out = tn.scaled_dot_product_attention(zeros, zeros, ones, dropout_p=0.5).numpy()
        return [out.mean(), out.std(), out.std(1).mean()]

    expect(
        "mean and spread of the mean of 40 ones, and its spread among the queries of one text, with dropout_p=0.5",
        dropped,
        lambda out: bool(abs(out[0] - 1) < 0.05 and 0.1 < out[1] < 0.25 and 0.1 < out[2] < 0.25),
        (lambda out: out[1] < 0.01, "Dropout strikes out weights; nothing was struck out."),
        (lambda out: abs(out[0] - 0.5) < 0.1, "What survives is divided by 1 - p."),
        (lambda out: out[2] < 0.01, "All queries of a text have lost the same values: drop weights, and not values."),
        see=WEIGHTS,
    )


def test_attention_refuses():
    x = tt.zeros(2, 5, 4)
    for said, call in (
        ("keys of another size", lambda: tn.scaled_dot_product_attention(x, tt.zeros(2, 5, 3), x)),
        ("fewer values than keys", lambda: tn.scaled_dot_product_attention(x, x, x[:, :4])),
        ("a mask (5, 4) for 5 keys", lambda: tn.scaled_dot_product_attention(x, x, x, tt.ones(5, 4).bool())),
        ("a mask of integers", lambda: tn.scaled_dot_product_attention(x, x, x, tt.ones(5, 5).long())),
        ("two masks", lambda: tn.scaled_dot_product_attention(x, x, x, tt.ones(5, 5).bool(), is_causal=True)),
    ):
        expect(
            f"scaled_dot_product_attention with {said}", lambda call=call: call().shape, ValueError,
            "`checked_mask` looks at them.", see=WEIGHTS,
        )  # fmt: skip


def test_heads():
    x = np.arange(48.0).reshape(2, 4, 6)
    right = np.stack([x[..., :3], x[..., 3:]], 1)
    expect(
        "split_heads(x (2, 4, 6) of 0..47, 2)",
        lambda: tn.split_heads(tt.Tensor(x), 2),
        right,
        (x.reshape(2, 2, 4, 3), "The heads mix tokens: reshape to (B, T, H, D) first, then swap T and H."),
        (lambda out: out.shape == (2, 4, 2, 3), "The heads come before the tokens: (B, H, T, D)."),
        see=HEADS,
    )
    expect(
        "merge_heads of what split_heads should give",
        lambda: tn.merge_heads(tt.Tensor(right)),
        x,
        (right.reshape(2, 4, 6), "The heads mix tokens: swap H and T back before the reshape."),
        see=HEADS,
    )
    for front in ((), (3, 2)):
        heads = np.arange(math.prod(front) * 24.0).reshape(*front, 2, 4, 3)
        expect(
            f"merge_heads of {heads.shape}",
            lambda heads=heads: tn.merge_heads(tt.Tensor(heads)),
            np.concatenate([heads[..., 0, :, :], heads[..., 1, :, :]], -1),
            "Whatever stands in front of (heads, T, D) stays there: count the dimensions from the end.",
            see=HEADS,
        )
    expect(
        "the shape of split_heads(x (3, 2, 4, 6), 6)",
        lambda: tn.split_heads(tt.zeros(3, 2, 4, 6), 6).shape,
        (3, 2, 6, 4, 1),
        "Whatever stands in front of (T, C) stays there.",
        see=HEADS,
    )
    expect("split_heads(x (2, 4, 6), 1)", lambda: tn.split_heads(tt.Tensor(x), 1), x[:, None], "One head is C numbers.",
           see=HEADS)  # fmt: skip
    for heads in (4, 0):
        expect(f"split_heads(x (2, 4, 6), {heads})", lambda heads=heads: tn.split_heads(tt.Tensor(x), heads).shape,
               ValueError, f"{heads} heads do not divide 6 numbers.", see=HEADS)  # fmt: skip


def layer_with_weights(heads=2, width=6):
    """A layer with weights that are the same in every run, and those weights."""
    layer = tn.MultiHeadAttention(width, heads)
    values = {
        name: np.random.default_rng(number).normal(size=p.shape) * 0.6
        for number, (name, p) in enumerate(layer.named_parameters())
    }
    for name, parameter in layer.named_parameters():
        parameter.copy_(values[name])
    return layer, values


def by_definition(values, query, key, added=0.0, heads=2, scale=None, value=None):
    """The layer's result and the weights of its heads."""
    split = [values["in_proj_weight"][i * 6 : i * 6 + 6] for i in range(3)]
    biases = [values["in_proj_bias"][i * 6 : i * 6 + 6] for i in range(3)]
    q, k, v = (x @ w.T + b for x, w, b in zip((query, key, key if value is None else value), split, biases))
    found, seen = [], []
    for h in range(heads):
        part = slice(h * 6 // heads, (h + 1) * 6 // heads)
        seen.append(weights_of(q[..., part], k[..., part], added, scale))
        found.append(seen[-1] @ v[..., part])
    out = np.concatenate(found, -1) @ values["out_proj.weight"].T + values["out_proj.bias"]
    return out, np.stack(seen, 1)


def test_parameters_of_the_layer():
    expect(
        "the parameters of MultiHeadAttention(6, 2), by name, with their shapes",
        lambda: {name: p.shape for name, p in tn.MultiHeadAttention(6, 2).named_parameters()},
        {"in_proj_weight": (18, 6), "in_proj_bias": (18,), "out_proj.weight": (6, 6), "out_proj.bias": (6,)},
        (AttributeError, "Begin with super().__init__(), which makes the drawers for parameters and layers."),
        (lambda out: "in_proj_weight" not in out or "in_proj_bias" not in out,
         "What is to be learned must be a Parameter."),
        (lambda out: out["in_proj_weight"] == (6, 18), "Weights are (out, in): 3 C rows of C numbers."),
        see=LAYER,
    )  # fmt: skip
    expect(
        "the same with bias=False",
        lambda: {name: p.shape for name, p in tn.MultiHeadAttention(6, 2, bias=False).named_parameters()},
        {"in_proj_weight": (18, 6), "out_proj.weight": (6, 6)},
        (lambda out: "out_proj.bias" in out, "Without bias, out_proj has none either."),
        (lambda out: "in_proj_bias" in out, "Without bias, in_proj_bias is None."),
        see=LAYER,
    )
    expect(
        "in_proj_bias of MultiHeadAttention(6, 2, bias=False)",
        lambda: tn.MultiHeadAttention(6, 2, bias=False).in_proj_bias is None,
        True,
        see=LAYER,
    )
    expect(
        "num_heads and dropout of MultiHeadAttention(6, 2), and of MultiHeadAttention(6, 3, 0.25)",
        lambda: [(m.num_heads, m.dropout) for m in (tn.MultiHeadAttention(6, 2), tn.MultiHeadAttention(6, 3, 0.25))],
        [(2, 0.0), (3, 0.25)],
        see=LAYER,
    )

    def drawn():
        layer = tn.MultiHeadAttention(64, 4)
        return [layer.in_proj_weight.detach().numpy().std() * 256**0.5, abs(layer.in_proj_bias.detach().numpy()).max()]

    expect(
        "the spread of in_proj_weight of MultiHeadAttention(64, 4), by that of xavier_uniform_, and the largest bias",
        drawn,
        lambda out: bool(abs(out[0] - 2**0.5) < 0.1 and out[1] == 0),
        (lambda out: out[0] == 0, "Zeros as weights make all scores equal, and no gradient comes through."),
        (lambda out: out[1] > 0, "The biases begin at zero."),
        "Fill the weights with tt.xavier_uniform_.",
        see=LAYER,
    )
    for heads in (4, 0):
        expect(f"MultiHeadAttention(6, {heads})", lambda heads=heads: tn.MultiHeadAttention(6, heads).num_heads,
               ValueError, f"{heads} heads do not divide 6 numbers.", see=LAYER)  # fmt: skip
    expect("num_heads of MultiHeadAttention(6, 1)", lambda: tn.MultiHeadAttention(6, 1).num_heads, 1, see=LAYER)


def test_the_layer():
    x, other = numbers(2, 4, 6), numbers(2, 3, 6) * 0.5
    real = np.array([[True, True, True, False], [True, True, False, False]])[:, None, None]
    window = triangle(4) & ~np.tri(4, k=-2, dtype=bool)
    cases = [
        ("self-attention", (x, x), {}, 0.0),
        ("causal self-attention", (x, x), {"is_causal": True}, forbidden(triangle(4))),
        ("self-attention with a mask (4, 4)", (x, x), {"mask": window}, forbidden(window)),
        ("self-attention with a mask of padding (2, 1, 1, 4)", (x, x), {"mask": real}, forbidden(real[:, 0])),
        ("cross-attention", (x, other), {}, 0.0),
        ("cross-attention with a mask (2, 1, 1, 3)", (x, other), {"mask": real[..., :3]}, forbidden(real[:, 0, :, :3])),
    ]  # fmt: skip
    for said, (query, key), options, added in cases:
        layer, values = layer_with_weights()
        layer.double()
        q = tt.Tensor(query)
        k = q if key is query else tt.Tensor(key)
        masks = {n: tt.from_numpy(m) if isinstance(m, np.ndarray) else m for n, m in options.items()}
        wanted, weights = by_definition(values, query, key, added)
        expect(
            f"{said}: MultiHeadAttention(6, 2) on (2, 4, 6)",
            lambda layer=layer, q=q, k=k, masks=masks: layer(q, k, k, **masks),
            wanted,
            (by_definition(values, query, key, added, scale=1.0)[0], ROOT),
            (by_definition(values, query, key, added, scale=6**-0.5)[0], WIDE),
            (by_definition(values, query, key)[0] + 0 * wanted, "The mask is ignored."),
            (ValueError, "Keys and values come from `key` and `value`, which may be longer than `query`; a mask "
                         "and is_causal are two masks, of which you pass on one."),
            "Project, split into heads, attend, merge, and project the result.",
            see=LAYER,
        )  # fmt: skip
        if not options.get("is_causal"):
            expect(
                f"{said}: the weights of its heads",
                lambda layer=layer, q=q, k=k, masks=masks: layer.weights(q, k, **masks),
                weights,
                "`weights` takes the queries and keys of `projected`.",
                see=LAYER,
            )
    layer, values = layer_with_weights()
    layer.double()
    text, other = tt.Tensor(x), tt.Tensor(numbers(2, 4, 6)[:, ::-1].copy())
    expect(
        "MultiHeadAttention(6, 2) on (2, 4, 6), where only queries and keys are one text",
        lambda: layer(text, text, other),
        by_definition(values, x, x, value=other.numpy())[0],
        "It is self-attention only if all three are the same text.",
        see=LAYER,
    )
    layer, _ = layer_with_weights()
    for said, call in (
        ("3 heads for 8 numbers", lambda: tn.MultiHeadAttention(8, 3)),
        ("keys of another width", lambda: layer(tt.zeros(2, 4, 6), tt.zeros(2, 4, 5), tt.zeros(2, 4, 6)).shape),
        ("a mask for 5 keys", lambda: layer(*[tt.zeros(2, 4, 6)] * 3, tt.ones(4, 5).bool()).shape),
        ("a mask and is_causal", lambda: layer(*[tt.zeros(2, 4, 6)] * 3, tn.causal_mask(4), is_causal=True).shape),
    ):
        expect(f"MultiHeadAttention with {said}", call, ValueError, "Hand the arguments on as they are.", see=LAYER)


def test_dropout_of_the_layer():
    x, other = (tt.Tensor(numbers(2, 4, 6) * factor, np.float32) for factor in (1.0, 0.5))

    def same(training, key, **options):
        layer = tn.MultiHeadAttention(6, 2, dropout=0.5).train(training)
        return bool((layer(x, key, key, **options) == layer(x, key, key, **options)).all())

    for said, key, options in (
        ("self-attention", x, {}),
        ("causal self-attention", x, {"is_causal": True}),
        ("self-attention with a mask", x, {"mask": tn.causal_mask(4)}),
        ("cross-attention", other, {}),
        ("cross-attention with a mask", other, {"mask": tn.causal_mask(4)}),
    ):
        expect(
            f"{said}: does MultiHeadAttention(6, 2, dropout=0.5) give the same twice, in training and in evaluation?",
            lambda key=key, options=options: [same(True, key, **options), same(False, key, **options)],
            [False, True],
            ([False, False], "Dropout counts only in training: outside of it the probability is 0 (self.training)."),
            ([True, True], "In training `dropout` of the weights are struck out."),
            (ValueError, "A mask and is_causal are two masks: pass on one of them."),
            see=LAYER,
        )
    def in_evaluation(dropout):
        layer = tn.MultiHeadAttention(6, 2, dropout)
        for number, parameter in enumerate(layer.parameters()):
            parameter.copy_(np.random.default_rng(number).normal(size=parameter.shape))
        return layer.eval()(x, x, x).detach().numpy()

    def without_dropout():
        layer = tn.MultiHeadAttention(6, 2)
        for number, parameter in enumerate(layer.parameters()):
            parameter.copy_(np.random.default_rng(number).normal(size=parameter.shape))
        return layer(x, x, x).detach().numpy()

    expect(
        "how far MultiHeadAttention(6, 2, dropout=0.5) in evaluation is from one without dropout",
        lambda: float(np.abs(in_evaluation(0.5) - without_dropout()).max()),
        lambda apart: apart < 1e-5,
        "In evaluation nothing is dropped: the probability is 0.",
        see=LAYER,
    )
    expect(
        "the dropout that a layer has, after a call in evaluation",
        lambda: (layer := tn.MultiHeadAttention(6, 2, dropout=0.5).eval(), layer(x, x, x))[0].dropout,
        0.5,
        "Training comes back: leave self.dropout as it is.",
        see=LAYER,
    )


def test_projections():
    layer, values = layer_with_weights()
    x, other = numbers(2, 4, 6), numbers(2, 4, 6) * 0.5
    wanted = (x @ values["in_proj_weight"].T + values["in_proj_bias"]).reshape(2, 4, 3, 2, 3).transpose(2, 0, 3, 1, 4)
    text, asked = tt.Tensor(x, np.float32), tt.Tensor(other, np.float32)
    expect(
        "projected(x, x, x) for x (2, 4, 6), stacked: (3, 2, 2, 4, 3)",
        lambda: layer.projected(text, text, text),
        wanted,
        (lambda out: np.shape(out) != (3, 2, 2, 4, 3), "Three times (B, heads, T, D), in one tensor."),
        "The rows of in_proj_weight are those of the queries, then of the keys, then of the values, in heads.",
        see=LAYER,
    )
    expect(
        "is projected(x, x, x) one tensor? and projected(x, other, other), and projected(x, x, other)?",
        lambda: [isinstance(layer.projected(*each), tt.Tensor)
                 for each in ((text,) * 3, (text, asked, asked), (text, text, asked))],
        [True, False, False],
        ([False] * 3, "What is made of one text stays in one tensor, stacked: (3, B, heads, T, D)."),
        (lambda out: out[2], "All three have to be the same text, not two of them."),
        see=LAYER,
    )  # fmt: skip
    apart = np.stack([
        (each @ values["in_proj_weight"][part].T + values["in_proj_bias"][part]).reshape(2, 4, 2, 3).swapaxes(1, 2)
        for each, part in zip((x, other, x + 1), (slice(0, 6), slice(6, 12), slice(12, 18)))
    ])
    expect(
        "projected(query, key, value) of three texts (2, 4, 6), stacked: (3, 2, 2, 4, 3)",
        lambda: tt.stack(list(layer.projected(text, asked, tt.Tensor(x + 1, np.float32)))),
        apart,
        "Three thirds of in_proj_weight: queries from `query`, keys from `key`, values from `value`.",
        see=LAYER,
    )
    without = tn.MultiHeadAttention(6, 2, bias=False)
    expect(
        "the shapes of projected(x, x, x) and of the values of projected(x, other, other), with bias=False",
        lambda: [without.projected(text, text, text).shape, without.projected(text, asked, asked)[2].shape],
        [(3, 2, 2, 4, 3), (2, 2, 4, 3)],
        (TypeError, "in_proj_bias is None without a bias."),
        (AttributeError, "in_proj_bias is None without a bias."),
        see=LAYER,
    )
    expect(
        "the keys of projected(x, other, other)",
        lambda: layer.projected(text, asked, asked)[1],
        (other @ values["in_proj_weight"][6:12].T + values["in_proj_bias"][6:12]).reshape(2, 4, 2, 3).swapaxes(1, 2),
        "Each of the three has its own third of the weights.",
        see=LAYER,
    )


def test_no_token_sees_what_comes_later():
    layer, _ = layer_with_weights()
    x = numbers(1, 6, 6)

    def moved(**options):
        results = []
        for t in range(6):
            changed = x.copy()
            changed[:, t] += 3.0
            before, after = (
                layer(*[tt.Tensor(a, np.float32)] * 3, **options).detach().numpy() for a in (x, changed)
            )  # fmt: skip
            results.append(int(np.flatnonzero(np.abs(before - after).max((0, 2)) > 1e-5)[0]))
        return results

    for said, options in (("is_causal=True", {"is_causal": True}), ("causal_mask(6)", {"mask": tn.causal_mask(6)})):
        expect(
            f"the first place that changes when token 0, 1, ... 5 changes, {said}",
            lambda options=options: moved(**options),
            [0, 1, 2, 3, 4, 5],
            (lambda out: any(f < t for t, f in enumerate(out)), "A position sees what comes after it."),
            (lambda out: any(f > t for t, f in enumerate(out)), "A token must see itself."),
            see=WEIGHTS,
        )


def test_cost():
    expect(
        "attention_cost(batch 3, heads 4, length 100, size 8)",
        lambda: tuple(tn.attention.attention_cost(3, 4, 100, 8)),
        (2 * 3 * 4 * 100 * 100 * 8, 4 * 3 * 4 * 100 * 100),
        ((3 * 4 * 100 * 100 * 8, 4 * 3 * 4 * 100 * 100), "There are two products: for the scores, and for the values."),
        (
            (2 * 3 * 4 * 100 * 100 * 8, 3 * 4 * 100 * 100),
            "A float32 has 4 bytes.",
        ),
        see=COST,
    )


def test_attention_in_blocks():
    for length, causal in ((5, True), (5, False), (64, True), (65, True), (150, True), (150, False)):
        qkv = numbers(3, 2, 2, length, 4) * 1.5
        added = forbidden(triangle(length)) if causal else 0.0
        right = weights_of(qkv[0], qkv[1], added, 0.7) @ qkv[2]
        expect(
            f"attention_in_blocks(qkv (3, 2, 2, {length}, 4), is_causal={causal}, scale=0.7)",
            lambda qkv=qkv, causal=causal: tn.attention_in_blocks(qkv, is_causal=causal, scale=0.7),
            right,
            (weights_of(qkv[0], qkv[1], 0.0, 0.7) @ qkv[2], "No query may look ahead."),
            (weights_of(qkv[0], qkv[1], added) @ qkv[2], "The scale that was given counts, and not 1 / sqrt(D)."),
            (lambda out, right=right: np.shape(out) != right.shape, "The result has the shape of the queries."),
            (
                lambda out, right=right: np.allclose(out / right, (out / right)[..., :1], rtol=1e-3),
                "Each row is right but for a factor: divide it by the sum of its weights.",
            ),
            (
                lambda out, right=right: np.allclose(out[..., -20:, :], right[..., -20:, :]),
                "The last queries are right, others are not: where does a block of queries begin, and which keys does "
                "it see?",
            ),
            see=BLOCKS,
        )
    for length, causal in ((150, True), (150, False), (64, True), (5, False)):
        q, k = numbers(2, 2, length, 4)
        stops = [min(start + 64, length) for start in range(0, length, 64)]
        right = [[(stop - 1) // 64 * 64, stop, stop if causal else length] for stop in stops]
        expect(
            f"first row, end of rows and end of keys of the blocks of {length} queries, is_causal={causal}",
            lambda q=q, k=k, causal=causal: [
                [rows.start, rows.stop, keys.stop] for rows, keys, _ in tn.attention.weights_in_blocks(q, k, causal, 1)
            ],
            right,
            (lambda out, length=length: [out[-1][1] > length, out[-1][2] > length] != [False] * 2,
             "The last block is shorter: it ends where the queries end."),
            (lambda out, length=length, causal=causal: causal and length > 64 and out[0][2] == length,
             "With is_causal a block needs no keys after its own end."),
            see=BLOCKS,
        )  # fmt: skip
        expect(
            f"the shapes of their weights, of (2, {length}, 4)",
            lambda q=q, k=k, causal=causal: [
                found.shape for *_, found in tn.attention.weights_in_blocks(q, k, causal, 1.0)
            ],
            [(2, stop - start, keys) for start, stop, keys in right],
            see=BLOCKS,
        )
    expect(
        "the weights of 2 queries, whose scores with all keys are 1,000",
        lambda: [w for *_, w in tn.attention.weights_in_blocks(np.full((2, 1), 1000.0), np.ones((2, 1)), False, 1.0)],
        [np.full((2, 2), 0.5)],
        (lambda out: not np.isfinite(out[0]).all(), "Subtract the largest score of each row before taking powers."),
        see=BLOCKS,
    )
    large = numbers(3, 40, 3, 70, 4)
    expect(
        "attention_in_blocks(qkv (3, 40, 3, 70, 4)), one number of each text",
        lambda: tn.attention_in_blocks(large, is_causal=True, scale=0.5)[:, 1, 66, 2],
        (weights_of(large[0], large[1], forbidden(triangle(70)), 0.5) @ large[2])[:, 1, 66, 2],
        "All texts and heads are taken at once: only the queries are in blocks.",
        see=BLOCKS,
    )


def share_by_definition(g, qkv, added, scale):
    q, k, v = qkv
    weights = weights_of(q, k, added, scale)
    of_weights = g @ v.swapaxes(-1, -2)
    of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdims=True)) * scale
    return np.stack([of_scores @ k, of_scores.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ g])


def test_gradients():
    for causal in (False, True):
        qkv, g = numbers(3, 2, 5, 4), numbers(2, 5, 4)[:, ::-1]
        added = forbidden(triangle(5)) if causal else 0.0
        right = share_by_definition(g, qkv, added, 0.7)
        tensors = [tt.Tensor(x) for x in (g, weights_of(qkv[0], qkv[1], added, 0.7), *qkv)]
        expect(
            f"attention_vjp(g (2, 5, 4), weights{' of a causal mask' * causal}, q, k, v, 0.7)",
            lambda tensors=tensors: np.stack([t.numpy() for t in tn.attention_vjp(*tensors, 0.7)]),
            right,
            (np.concatenate([right[:2] * 0.7, right[2:]]),
             "The scale comes once into the shares of queries and keys."),
            (right * np.array([1 / 0.7, 1 / 0.7, 1])[:, None, None, None], "The scale is missing."),
            (lambda out, right=right: out.shape == right.shape and np.allclose(out[2], right[2]),
             "The values' share is right, the others are not: look at the derivative of softmax."),
            "The formulas of the text, in the order queries, keys, values.",
            see=BLOCKS,
        )  # fmt: skip

        def beside_infinity(qkv=qkv):
            values = qkv.copy()
            values[2, ..., 4, :] = np.inf
            weights = weights_of(qkv[0], qkv[1], 0.0, 0.7)
            weights[..., 4] = 0
            tensors = map(tt.Tensor, (np.ones((2, 5, 4)), weights, *qkv[:2], values[2]))
            found = tn.attention_vjp(*tensors, 0.7)
            return [bool(np.isfinite(t.numpy()).all()) for t in found]

        expect(
            "are the gradients finite if a value is infinite whose weight is 0 for all queries?",
            beside_infinity,
            [True] * 3,
            "0 times inf is nan: where a weight is 0, put 0 in the place of the product (`tt.choose`).",
            see=BLOCKS,
        )

        def gradient(qkv=qkv, causal=causal, g=g, **options):
            x = tt.Tensor(qkv, requires_grad=True)
            return ta.grad((tn.self_attention(x, is_causal=causal, scale=0.7) * tt.Tensor(g)).sum(), x, **options)[0]

        for said, options in (("", {}), (", with create_graph", {"create_graph": True})):
            expect(
                f"the gradient of sum(g * self_attention(qkv, is_causal={causal}, scale=0.7)){said}",
                lambda options=options: gradient(**options).detach(),
                right,
                see=BLOCKS,
            )


def test_window_mask():
    right = triangle(6) & ~np.tri(6, k=-3, dtype=bool)
    expect(
        "window_mask(6, 3)",
        lambda: tn.window_mask(6, 3),
        right,
        (triangle(6) & ~np.tri(6, k=-4, dtype=bool), "A window of 3 is the token itself and two before it."),
        (triangle(6), "No token looks back further than the window."),
        (right | ~triangle(6), "No token looks ahead either."),
        see=EXERCISES,
    )
