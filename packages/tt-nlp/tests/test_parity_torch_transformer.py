"""Torch as the oracle of its own transformer: the same states, results and gradients, in training and evaluation."""

import numpy as np
import pytest

import tt_nlp as tn
import tt_tensor as tt
from tt_autograd import backward
from tt_nlp import torch_transformer as ours_of

torch = pytest.importorskip("torch", reason="torch is the oracle here: hatch run parity:run")

torch.set_num_threads(1)
pytestmark = [
    pytest.mark.filterwarnings("ignore:enable_nested_tensor"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:Support for mismatched"),
]
TOLERANCE = {np.float64: 1e-10, np.float32: 2e-4}
both_widths = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])

B, S, T, C = 2, 5, 4, 8
AHEAD = np.triu(np.full((T, T), -np.inf), 1)
PADDING = np.array([[False] * S, [False, False, False, True, True]])
SIZES = {"d_model": C, "nhead": 2, "dim_feedforward": 12, "dropout": 0.0}

OPTIONS = {
    "as published": {},
    "norm first": {"norm_first": True, "activation": "gelu"},
    "batch first": {"batch_first": True, "layer_norm_eps": 1e-3},
    "without bias": {"bias": False, "batch_first": True, "norm_first": True},
}


def encoder(nn, **options):
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(**SIZES, **options), 2)


def encoder_with_norm(nn, **options):
    norm = tt_norm() if nn is ours_of else torch.nn.LayerNorm(C)
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(**SIZES, **options), 2, norm=norm)


def tt_norm():
    from tt_spatial import LayerNorm

    return LayerNorm(C)


def decoder(nn, **options):
    return nn.TransformerDecoder(nn.TransformerDecoderLayer(**SIZES, **options), 2)


def both(nn, **options):
    return nn.Transformer(**SIZES, num_encoder_layers=2, num_decoder_layers=1, **options)


# What is built, what goes in, and the masks: names of arrays.

CALLS = {
    "encoder": (encoder, ["src"], {}),
    "encoder with padding": (encoder, ["src"], {"src_key_padding_mask": PADDING}),
    "encoder with a norm and a mask": (encoder_with_norm, ["tgt"], {"mask": AHEAD}),
    "decoder": (decoder, ["tgt", "src"], {"tgt_mask": AHEAD}),
    "decoder with padding": (decoder, ["tgt", "src"], {"tgt_mask": AHEAD != 0, "memory_key_padding_mask": PADDING}),
    "both": (both, ["src", "tgt"], {"tgt_mask": AHEAD}),
    "both with every mask": (
        both, ["src", "tgt"],
        {"src_mask": np.tri(S, dtype=bool) < np.eye(S), "tgt_mask": AHEAD != 0,
         "memory_mask": np.arange(T * S).reshape(T, S) % 4 == 3, "src_key_padding_mask": PADDING,
         "memory_key_padding_mask": PADDING},
    ),
}  # fmt: skip


def inputs(names, dtype, batch_first):
    random, lengths = np.random.default_rng(0), {"src": S, "tgt": T}
    arrays = [random.normal(size=(B, lengths[name], C)).astype(dtype) for name in names]
    return arrays if batch_first else [a.swapaxes(0, 1).copy() for a in arrays]


def close(ours, theirs, tolerance, what=""):
    expected = theirs.detach().numpy()
    scale = np.abs(expected).max(initial=1e-3)
    np.testing.assert_allclose(np.asarray(ours.detach()), expected, tolerance, tolerance * scale, err_msg=what)


def twins(build, options, dtype):
    torch.manual_seed(0)
    ours, theirs = build(ours_of, **options).to(dtype), build(torch.nn, **options).to(getattr(torch, dtype.__name__))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    state = {name: value.numpy().copy() for name, value in theirs.state_dict().items()}
    ours.load_state_dict(state)
    assert list(ours.state_dict()) == list(state)
    return ours, theirs


@both_widths
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients(name, options, dtype):
    build, names, masks = CALLS[name]
    masks = {key: mask.astype(dtype) if mask.dtype.kind == "f" else mask for key, mask in masks.items()}
    ours, theirs = twins(build, options, dtype)
    arrays = inputs(names, dtype, options.get("batch_first", False))
    mine = [tt.Tensor(a, requires_grad=True) for a in arrays]
    yours = [torch.from_numpy(a.copy()).requires_grad_() for a in arrays]
    got = ours(*mine, **{key: tt.from_numpy(mask) for key, mask in masks.items()})
    expected = theirs(*yours, **{key: torch.from_numpy(mask) for key, mask in masks.items()})
    assert got.shape == tuple(expected.shape) and got.dtype == dtype
    close(got, expected, TOLERANCE[dtype], name)
    weights = np.random.default_rng(1).normal(size=got.shape).astype(dtype)
    backward((got * weights).sum())
    (expected * torch.from_numpy(weights)).sum().backward()
    for one, other in zip(mine, yours):
        close(one.grad, other.grad, 20 * TOLERANCE[dtype], "input")
    for (key, one), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        close(one.grad, other.grad, 20 * TOLERANCE[dtype], key)


def test_evaluation_and_hints():
    ours, theirs = twins(encoder, {"batch_first": True}, np.float64)
    ours.eval(), theirs.eval()
    (x,) = inputs(["tgt"], np.float64, True)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x), mask=torch.from_numpy(AHEAD), is_causal=True)
    x = tt.Tensor(x)
    for options in ({"mask": tt.from_numpy(AHEAD), "is_causal": True}, {"is_causal": True}):
        close(ours(x, **options), expected, 1e-10, str(options))


def test_a_single_text_and_the_static_mask():
    for batch_first in (False, True):
        ours, theirs = twins(both, {"batch_first": batch_first}, np.float64)
        src, tgt = (np.random.default_rng(n).normal(size=(n, C)) for n in (S, T))
        close(ours(tt.Tensor(src), tt.Tensor(tgt)), theirs(torch.from_numpy(src), torch.from_numpy(tgt)), 1e-10)
    mask = ours.generate_square_subsequent_mask(4)
    assert np.array_equal(mask.numpy(), theirs.generate_square_subsequent_mask(4).numpy()) and mask.dtype == np.float32


def test_first_weights_are_torchs():
    sizes = {"d_model": 64, "nhead": 4, "num_encoder_layers": 1, "num_decoder_layers": 1, "dim_feedforward": 128}
    ours, theirs = ours_of.Transformer(**sizes), torch.nn.Transformer(**sizes)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        mine, yours = one.numpy(), other.detach().numpy()
        assert np.abs(mine).max() == pytest.approx(np.abs(yours).max(), rel=0.12), name
        assert mine.std() == pytest.approx(yours.std(), rel=0.1 if mine.ndim > 1 else 0.3, abs=1e-9), name


@pytest.mark.parametrize("mask", [None, "ahead", "padding"])
def test_attention_with_time_first(mask):
    theirs = torch.nn.MultiheadAttention(C, 2, dtype=torch.float64)
    ours = tn.MultiheadAttention(C, 2, dtype=tt.float64)
    ours.load_state_dict({name: value.numpy().copy() for name, value in theirs.state_dict().items()})
    query, key = (a.swapaxes(0, 1).copy() for a in inputs(["tgt", "src"], np.float64, True))
    masks = {"ahead": {"attn_mask": np.arange(T * S).reshape(T, S) % 3 == 2}, "padding": {"key_padding_mask": PADDING}}
    given = masks.get(mask, {})
    for x, y in ((query, key), (key, key)):
        if x is key and mask == "ahead":
            continue
        q, k = tt.Tensor(x), tt.Tensor(y)
        got = ours(q, q if x is y else k, q if x is y else k, **{n: tt.from_numpy(m) for n, m in given.items()})
        q, k = torch.from_numpy(x), torch.from_numpy(y)
        expected = theirs(q, k, k, **{n: torch.from_numpy(m) for n, m in given.items()})
        for one, other in zip(got, expected):
            assert one.shape == tuple(other.shape)
            close(one, other, 1e-10)


@pytest.mark.parametrize(("heads", "shared"), [(4, 2), (6, 1), (3, 3)])
def test_grouped_queries(heads, shared):
    from tt_nlp import functional

    random = np.random.default_rng(0)
    arrays = [random.normal(size=(2, n, 5, 4)) for n in (heads, shared, shared)]
    mine = [tt.Tensor(a, requires_grad=True) for a in arrays]
    yours = [torch.tensor(a, requires_grad=True) for a in arrays]
    got = functional.scaled_dot_product_attention(*mine, is_causal=True, scale=0.3, enable_gqa=True)
    expected = torch.nn.functional.scaled_dot_product_attention(*yours, is_causal=True, scale=0.3, enable_gqa=True)
    close(got, expected, 1e-10)
    backward((got * got).sum())
    (expected * expected).sum().backward()
    for one, other in zip(mine, yours):
        close(one.grad, other.grad, 1e-9)
    with pytest.raises(ValueError, match="2 heads of keys and 2 of values do not divide 3"):
        functional.scaled_dot_product_attention(mine[0][:, :3], *[mine[0][:, :2]] * 2, enable_gqa=True)
