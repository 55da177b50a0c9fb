"""Torch as the oracle of chapters 12 and 13: values, shapes, dtypes, gradients, every form of mask, and layers with the
same weights."""

import numpy as np
import pytest

import tt_autograd
import tt_nlp as tn
import tt_tensor as tt
from tt_nlp.testing import OPS, closed

torch = pytest.importorskip("torch", reason="torch is the oracle here: hatch run parity:run")

torch.set_num_threads(1)  # on small samples, threads that wait for each other take most of the time

FORWARD = {np.float64: 1e-9, np.float32: 2e-5}
GRADIENT = {np.float64: 1e-8, np.float32: 2e-4}
every_op = pytest.mark.parametrize("op", OPS, ids=[op.name for op in OPS])
both_widths = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])


def close(ours, theirs, tolerance, what):
    """Values that differ by no more than `tolerance` of the largest of them."""
    expected = theirs.detach().numpy()
    largest = np.abs(expected).max(initial=1e-2)
    np.testing.assert_allclose(np.asarray(ours), expected, rtol=tolerance, atol=tolerance * largest, err_msg=what)


def same_gradient(ours, theirs, tolerance, what):
    expected = torch.zeros_like(theirs) if theirs.grad is None else theirs.grad
    assert ours.grad is None or (ours.grad.dtype, ours.grad.shape) == (ours.dtype, ours.shape), what
    close(np.zeros(ours.shape) if ours.grad is None else ours.grad, expected, tolerance, f"gradient of {what}")


@both_widths
@every_op
def test_value_shape_dtype_and_gradient(op, dtype):
    for number, sample in enumerate(op.samples(150)):
        what = f"{op.name}({', '.join(f'{a.shape} {a.dtype}' for a in sample.arrays)}, {sample.options})"
        ours = op.tensors(sample, dtype)
        theirs = [torch.from_numpy(a.astype(dtype) if a.dtype.kind == "f" else a.copy()) for a in sample.arrays]
        watched = [i for i in op.watched(sample) if np.isfinite(sample.arrays[i]).all()]
        for i in watched:
            ours[i].requires_grad_(), theirs[i].requires_grad_()
        got, expected = op.function(*ours, **sample.options), op.in_torch(torch)(*theirs, **sample.options)
        assert (got.shape, str(got.dtype)) == (tuple(expected.shape), str(expected.dtype).removeprefix("torch.")), what
        close(got.detach(), expected, FORWARD[dtype], what)
        weights = np.random.default_rng(number).uniform(0.5, 1.5, got.shape).astype(dtype)
        tt_autograd.backward((got * weights).sum())
        (expected * torch.from_numpy(weights)).sum().backward()
        for i in watched:
            same_gradient(ours[i], theirs[i], GRADIENT[dtype], f"argument {i} of {what}")


def test_there_are_masks_of_every_form():
    samples = [s for op in OPS if op.name == "scaled_dot_product_attention" for s in op.samples(150)]
    masks = [s.arrays[3] for s in samples if len(s.arrays) > 3]
    assert {m.dtype.kind for m in masks} == {"b", "f"} and {m.ndim for m in masks} >= {1, 2, 3, 4}
    assert any(map(closed, samples)) and any(not m[..., :1, :].any() for m in masks if m.ndim > 1 and m.dtype == bool)


@pytest.mark.parametrize("is_causal", [False, True])
def test_second_derivatives_of_attention(is_causal):
    values = np.random.default_rng(0).normal(size=(3, 2, 6, 4))
    x, y = tt.Tensor(values, requires_grad=True), torch.from_numpy(values).requires_grad_()
    first = tn.self_attention(x, is_causal=is_causal) ** 3
    (found,) = tt_autograd.grad(first.sum(), x, create_graph=True)
    tt_autograd.backward((found**2).sum())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        other = torch.nn.functional.scaled_dot_product_attention(*y.unbind(0), is_causal=is_causal) ** 3
        (expected,) = torch.autograd.grad(other.sum(), y, create_graph=True)
        (expected**2).sum().backward()
    same_gradient(x, y, 1e-8, "attention at second order")


# Numbers that are large, small and equal.


@both_widths
def test_attention_of_extreme_scores(dtype):
    random = np.random.default_rng(0)
    for factor in (1e-20, 100.0, 1e4):
        qkv = (random.normal(size=(3, 2, 70, 8)) * [[[[factor]]], [[[factor]]], [[[1.0]]]]).astype(dtype)
        for is_causal in (False, True):
            ours = tn.self_attention(tt.from_numpy(qkv), is_causal=is_causal)
            theirs = torch.nn.functional.scaled_dot_product_attention(*torch.from_numpy(qkv), is_causal=is_causal)
            close(ours, theirs, FORWARD[dtype] if factor < 1e3 else 2e-2, f"scores of {factor}")


# The layer: torch's state is loaded into ours, so names must be the same.

LAYERS = {
    "plain": {"embed_dim": 8, "num_heads": 2},
    "one head": {"embed_dim": 6, "num_heads": 1},
    "without bias": {"embed_dim": 8, "num_heads": 4, "bias": False},
    "keys and values of other widths": {"embed_dim": 8, "num_heads": 2, "kdim": 5, "vdim": 3},
    "values of another width, without bias": {"embed_dim": 8, "num_heads": 2, "vdim": 3, "bias": False},
}


def pair_of_layers(options, dtype):
    theirs = torch.nn.MultiheadAttention(**options, batch_first=True, dtype=getattr(torch, np.dtype(dtype).name))
    random = np.random.default_rng(1)
    for parameter in theirs.parameters():
        parameter.data += torch.from_numpy(random.normal(0, 0.1, tuple(parameter.shape)).astype(dtype))
    ours = tn.MultiheadAttention(**options, batch_first=True).to(dtype)
    ours.load_state_dict({name: value.numpy().copy() for name, value in theirs.state_dict().items()})
    assert list(ours.state_dict()) == list(theirs.state_dict())
    return ours, theirs


def inputs_of(options, dtype, cross, batch):
    random, kdim, vdim = np.random.default_rng(2), options.get("kdim"), options.get("vdim")
    query = random.normal(size=(*batch, 4, options["embed_dim"])).astype(dtype)
    if not cross and not kdim and not vdim:
        return [query] * 3
    return [query, *(random.normal(size=(*batch, 5, d or options["embed_dim"])).astype(dtype) for d in (kdim, vdim))]


def masks_of(kind, arrays, heads):
    random, length, keys = np.random.default_rng(3), arrays[0].shape[-2], arrays[1].shape[-2]
    batch = arrays[0].shape[:-2]
    padding = np.zeros((*batch, keys), bool)
    padding[..., -2:] = random.random((*batch, 2)) < 0.7
    ahead = ~np.tri(length, keys, dtype=bool)
    of_heads = random.random((int(np.prod(batch)) * heads, length, keys)) < 0.3
    of_heads[..., 0] = False
    numbers = random.normal(size=(length, keys)).astype(arrays[0].dtype)
    return {
        "no mask": {}, "padding": {"key_padding_mask": padding}, "ahead": {"attn_mask": ahead},
        "for each head": {"attn_mask": of_heads}, "numbers": {"attn_mask": numbers},
        "both": {"attn_mask": ahead, "key_padding_mask": padding},
        "numbers for the padding": {"key_padding_mask": random.normal(size=padding.shape).astype(numbers.dtype)},
    }[kind]  # fmt: skip


@both_widths
@pytest.mark.parametrize(
    "kind", ["no mask", "padding", "ahead", "for each head", "numbers", "both", "numbers for the padding"]
)
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_multi_head_attention(options, kind, dtype):
    for cross, need, average, batch in (
        (False, True, True, (3,)), (False, False, True, (3,)), (True, True, False, (3,)), (True, False, True, (3,)),
        (False, True, False, ()), (True, False, True, ()),
    ):  # fmt: skip
        ours, theirs = pair_of_layers(options, dtype)
        arrays = inputs_of(options, dtype, cross, batch)
        masks = masks_of(kind, arrays, options["num_heads"])
        same = arrays[0] is arrays[1]
        x = [tt.Tensor(a, requires_grad=True) for a in (arrays[:1] if same else arrays)]
        y = [torch.from_numpy(a.copy()).requires_grad_() for a in (arrays[:1] if same else arrays)]
        flags = {"need_weights": need, "average_attn_weights": average}
        got, seen = ours(*(x * 3 if same else x), **{n: tt.from_numpy(m) for n, m in masks.items()}, **flags)
        expected, wanted = theirs(
            *(y * 3 if same else y), **{n: torch.from_numpy(m) for n, m in masks.items()}, **flags
        )
        what = f"{options}, {kind}, cross {cross}, batch {batch}"
        close(got.detach(), expected, FORWARD[dtype], what)
        assert got.shape == tuple(expected.shape) and (seen is None) == (wanted is None)
        if need:
            close(seen.detach(), wanted, FORWARD[dtype], f"weights of {what}")
        (got * got).sum().backward()
        (expected * expected).sum().backward()
        for one, other in zip(x, y, strict=True):
            same_gradient(one, other, GRADIENT[dtype], f"the input, {what}")
        for (name, one), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            same_gradient(one, other, GRADIENT[dtype], f"{name}, {what}")


# In a row that sees nothing torch gives zeros, or nan if the weights are asked for. Ours gives zeros.


def test_rows_that_see_nothing_are_zeros_as_in_torch():
    ours, theirs = pair_of_layers(LAYERS["plain"], np.float64)
    x, padding = np.random.default_rng(0).normal(size=(2, 3, 8)), np.array([[False] * 3, [True] * 3])
    texts = [torch.from_numpy(x)] * 3
    expected, _ = theirs(*texts, key_padding_mask=torch.from_numpy(padding), need_weights=False)
    text = tt.Tensor(x)
    for need_weights in (False, True):
        got, seen = ours(text, text, text, key_padding_mask=tt.from_numpy(padding), need_weights=need_weights)
        close(got.detach(), expected, 1e-9, "closed rows")
    assert (seen.numpy()[1] == 0).all()


def test_causal_is_a_mask_or_a_word():
    ours, theirs = pair_of_layers(LAYERS["plain"], np.float64)
    x = np.random.default_rng(0).normal(size=(2, 5, 8))
    mask = torch.nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    expected, _ = theirs(*[torch.from_numpy(x)] * 3, attn_mask=mask, is_causal=True, need_weights=False)
    text = tt.Tensor(x)
    for options in ({"is_causal": True}, {"attn_mask": tt.from_numpy(mask.numpy()), "is_causal": True}):
        for need_weights in (False, True):
            got, _ = ours(text, text, text, need_weights=need_weights, **options)
            close(got.detach(), expected, 1e-9, f"{options}")


# Initialisation draws from another generator, so what agrees is the distribution.


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_initialisation(options):
    options = {**options, **{n: options[n] * 16 for n in ("embed_dim", "kdim", "vdim") if n in options}}
    tt.manual_seed(0), torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(**options, batch_first=True)
    parameters = tn.MultiheadAttention(**options).named_parameters()
    for (name, one), other in zip(parameters, theirs.parameters(), strict=True):
        ours, wanted = one.numpy(), other.detach().numpy()
        assert np.abs(ours).max() == pytest.approx(np.abs(wanted).max(), rel=0.05, abs=1e-9), name
        assert ours.std() == pytest.approx(wanted.std(), rel=0.05, abs=1e-9), name


def test_embedding_layers_agree():
    for padding_idx in (None, 2, -1):
        theirs = torch.nn.Embedding(7, 4, padding_idx=padding_idx)
        ours = tn.Embedding(7, 4, padding_idx=padding_idx)
        assert (ours.padding_idx, list(ours.state_dict())) == (theirs.padding_idx, list(theirs.state_dict()))
        assert ((ours.weight.numpy() == 0).all(1) == (theirs.weight.detach().numpy() == 0).all(1)).all()
        ours.load_state_dict({name: value.numpy().copy() for name, value in theirs.state_dict().items()})
        ids = np.random.default_rng(0).integers(0, 7, (5, 9))
        got, expected = ours(tt.tensor(ids)), theirs(torch.from_numpy(ids))
        close(got.detach(), expected, 0, "rows")
        (got**3).sum().backward(), (expected**3).sum().backward()
        same_gradient(ours.weight, theirs.weight, 1e-5, f"the table, padding_idx {padding_idx}")
