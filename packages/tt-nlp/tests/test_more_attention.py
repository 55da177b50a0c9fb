"""PyTorch's attention layer against its definition, without torch; test_parity compares the two themselves."""

import numpy as np
import pytest

import tt_nlp as tn
import tt_tensor as tt

LATER = ~np.tri(4, dtype=bool)
PADDING = np.array([[False, False, False, True], [False, False, True, True]])


def numbers(*shape):
    return np.random.default_rng(13).normal(size=shape)


def layer_and_values():
    layer = tn.MultiheadAttention(6, 2, batch_first=True).double()
    values = {name: np.random.default_rng(n).normal(size=p.shape) * 0.6 for n, (name, p) in
              enumerate(layer.named_parameters())}  # fmt: skip
    for name, parameter in layer.named_parameters():
        parameter.copy_(values[name])
    return layer, values


def by_definition(values, query, key, hidden):
    """The layer's result and the weights of its 2 heads, where `hidden` is True for what must not be looked at."""
    weights, biases = values["in_proj_weight"].reshape(3, 6, 6), values["in_proj_bias"].reshape(3, 6)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, key, key), weights, biases))
    found, seen = [], []
    for part in (slice(0, 3), slice(3, 6)):
        powers = np.where(hidden, 0, np.exp(q[..., part] @ k[..., part].swapaxes(-1, -2) / 3**0.5))
        seen.append(powers / powers.sum(-1, keepdims=True))
        found.append(seen[-1] @ v[..., part])
    return np.concatenate(found, -1) @ values["out_proj.weight"].T + values["out_proj.bias"], np.stack(seen, 1)


CASES = {
    "self-attention": (4, {}, False),
    "causal": (4, {"is_causal": True}, LATER),
    "an attn_mask": (4, {"attn_mask": LATER}, LATER),
    "padding": (4, {"key_padding_mask": PADDING}, PADDING[:, None]),
    "causal and padding": (4, {"is_causal": True, "key_padding_mask": PADDING}, PADDING[:, None] | LATER),
    "cross-attention": (3, {}, False),
}


@pytest.mark.parametrize(("keys", "options", "hidden"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("need_weights", [False, True])
def test_the_layer_is_its_definition(keys, options, hidden, need_weights):
    layer, values = layer_and_values()
    x, other = numbers(2, 4, 6), numbers(2, 3, 6) * 0.5
    q = tt.Tensor(x)
    k = q if keys == 4 else tt.Tensor(other)
    masks = {name: tt.from_numpy(mask) if isinstance(mask, np.ndarray) else mask for name, mask in options.items()}
    found, seen = layer(q, k, k, need_weights=need_weights, **masks)
    wanted, weights = by_definition(values, x, x if keys == 4 else other, hidden)
    np.testing.assert_allclose(found.detach(), wanted, rtol=1e-9)
    if not need_weights:
        assert seen is None
        return
    np.testing.assert_allclose(seen.detach(), weights.mean(1), rtol=1e-9)
    _, seen = layer(q, k, k, average_attn_weights=False, **masks)
    np.testing.assert_allclose(seen.detach(), weights, rtol=1e-9)


def test_a_single_text_needs_no_batch():
    layer, values = layer_and_values()
    x = numbers(4, 6)
    found, seen = layer(*[tt.Tensor(x)] * 3)
    wanted, weights = by_definition(values, x[None], x[None], False)
    np.testing.assert_allclose(found.detach(), wanted[0], rtol=1e-9)
    np.testing.assert_allclose(seen.detach(), weights[0].mean(0), rtol=1e-9)


def test_all_ways_agree():
    layer, x = tn.MultiheadAttention(8, 2, batch_first=True), tt.randn(2, 70, 8)
    later = ~tn.causal_mask(70)
    ways = [
        layer(x, x, x, is_causal=True, need_weights=False)[0],
        layer(x, x, x, is_causal=True)[0],
        layer(x, x, x, attn_mask=later, need_weights=False)[0],
        layer(x, x.clone(), x.clone(), is_causal=True, need_weights=False)[0],
    ]
    for way in ways[1:]:
        np.testing.assert_allclose(way.detach(), ways[0].detach(), atol=1e-5)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("same", [False, True])
def test_gradients_reach_every_weight(need_weights, same):
    for options in ({}, {"kdim": 8, "vdim": 5}):
        if same and options:
            continue
        layer, x = tn.MultiheadAttention(8, 2, **options, batch_first=True), tt.randn(2, 5, 8)
        keys = x if same else tt.randn(2, 3, 8)
        values = x if same else tt.randn(2, 3, layer.vdim)
        out, _ = layer(x, keys, values, need_weights=need_weights)
        (out * out).sum().backward()
        assert all(p.grad is not None and p.grad.shape == p.shape for p in layer.parameters())


def test_the_state_has_torchs_names():
    assert {name: value.shape for name, value in tn.MultiheadAttention(6, 2).state_dict().items()} == {
        "in_proj_weight": (18, 6), "in_proj_bias": (18,), "out_proj.weight": (6, 6), "out_proj.bias": (6,),
    }  # fmt: skip
    assert list(tn.MultiheadAttention(6, 2, vdim=3, bias=False, batch_first=True).state_dict()) == [
        "q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight",
    ]  # fmt: skip


def test_it_is_the_layer_of_the_chapter_with_more_arguments():
    ours, theirs, x = tn.MultiHeadAttention(8, 2), tn.MultiheadAttention(8, 2, batch_first=True), tt.randn(2, 5, 8)
    theirs.load_state_dict(ours.state_dict())
    found, seen = theirs(x, x, x, is_causal=True, average_attn_weights=False)
    np.testing.assert_allclose(ours(x, x, x, is_causal=True).detach(), found.detach(), atol=1e-6)
    np.testing.assert_allclose(ours.weights(x, x, tn.causal_mask(5)).detach(), seen.detach(), atol=1e-6)


def test_the_layer_of_the_chapter_takes_a_single_text_too():
    layer, x = tn.MultiHeadAttention(8, 4), tt.randn(1, 4, 8)
    text = x[0]
    np.testing.assert_allclose(layer(text, text, text).detach(), layer(x, x, x)[0].detach(), atol=1e-6)
