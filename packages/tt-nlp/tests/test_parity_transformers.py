"""Torch as the oracle of chapter 14: RMSNorm, and whole trainings of a GPT from the same weights."""

import math

import numpy as np
import pytest

import tt_nlp as tn
import tt_tensor as tt
from tt_optim import clip_grad_norm_

torch = pytest.importorskip("torch", reason="torch is the oracle here: hatch run parity:run")
F = torch.nn.functional

torch.set_num_threads(1)  # on small samples, threads that wait for each other take most of the time

CONFIG = tn.GPTConfig(vocab_size=40, block_size=16, n_layer=3, n_head=4, n_embd=32)
BOTH = pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-5), (np.float32, 1e-4)], ids=["float64", "float32"])


def in_torch(weights, ids, config):
    """Logits of GPT-2 in torch's functions, for weights by our names."""

    def linear(x, name):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    (B, T), C = ids.shape, config.n_embd
    x = F.embedding(ids, weights["transformer.wte.weight"]) + weights["transformer.wpe.weight"][:T]
    for layer in range(config.n_layer):
        block = f"transformer.h.{layer}"
        q, k, v = (
            part.view(B, T, config.n_head, -1).transpose(1, 2)
            for part in linear(norm(x, f"{block}.ln_1"), f"{block}.attn.c_attn").split(C, dim=2)
        )
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, C)
        x = x + linear(found, f"{block}.attn.c_proj")
        h = F.gelu(linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc"), approximate="tanh")
        x = x + linear(h, f"{block}.mlp.c_proj")
    return norm(x, "transformer.ln_f") @ weights["transformer.wte.weight"].T


def twins(dtype):
    """A fresh GPT, and its parameters as leaves of torch, by name."""
    tt.manual_seed(3)
    model = tn.GPT(CONFIG).to(dtype)
    leaves = {name: torch.tensor(p.numpy().copy(), requires_grad=True) for name, p in model.named_parameters()}
    return model, leaves


def batches(steps):
    random = np.random.default_rng(0)
    for _ in range(steps):
        start = random.integers(0, 40, (4, 1))
        ids = (start + np.cumsum(random.integers(1, 4, (4, 17)), axis=1)) % 40
        yield ids[:, :-1].copy(), ids[:, 1:].copy()


@BOTH
def test_50_steps_have_the_same_losses(dtype, tolerance):
    model, leaves = twins(dtype)
    ours = model.configure_optimizers(weight_decay=0.1, learning_rate=3e-3, betas=(0.9, 0.95))
    groups = [
        {"params": [p for p in leaves.values() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in leaves.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    theirs, losses = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95)), []
    for ids, targets in batches(50):
        loss = tn.next_token_loss(model(tt.from_numpy(ids)), tt.from_numpy(targets))
        ours.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        ours.step()
        expected = F.cross_entropy(
            in_torch(leaves, torch.tensor(ids), CONFIG).flatten(0, 1), torch.tensor(targets).flatten()
        )
        theirs.zero_grad()
        expected.backward()
        torch.nn.utils.clip_grad_norm_(leaves.values(), 1.0)
        theirs.step()
        losses.append((loss.item(), expected.item()))
    one, other = np.array(losses).T
    np.testing.assert_allclose(one, other, rtol=tolerance)
    assert one[-1] < one[0] - 1


@BOTH
def test_gradients_are_the_same(dtype, tolerance):
    model, leaves = twins(dtype)
    for ids, targets in batches(1):
        targets[:, 5:9] = -100
        tn.next_token_loss(model(tt.from_numpy(ids)), tt.from_numpy(targets)).backward()
        logits = in_torch(leaves, torch.tensor(ids), CONFIG)
        F.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten()).backward()
    for name, p in model.named_parameters():
        expected = leaves[name].grad.numpy()
        np.testing.assert_allclose(p.grad.numpy(), expected, atol=tolerance / 10 * np.abs(expected).max(), err_msg=name)


@BOTH
@pytest.mark.parametrize("eps", [None, 1e-3])
def test_rms_norm(dtype, tolerance, eps):
    random = np.random.default_rng(0)
    x, weight, g = random.standard_normal((3, 4, 6)), random.standard_normal(6), random.standard_normal((3, 4, 6))
    ours = [tt.tensor(a.astype(dtype), requires_grad=True) for a in (x, weight)]
    theirs = [torch.tensor(a.astype(dtype), requires_grad=True) for a in (x, weight)]
    out, expected = tn.rms_norm(*ours, eps=eps), F.rms_norm(theirs[0], (6,), theirs[1], eps)
    assert str(out.dtype) == str(expected.dtype).removeprefix("torch.")
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=tolerance, atol=tolerance / 10)
    out.backward(tt.tensor(g.astype(dtype)))
    expected.backward(torch.tensor(g.astype(dtype)))
    for one, other in zip(ours, theirs):
        np.testing.assert_allclose(one.grad.numpy(), other.grad.numpy(), rtol=tolerance, atol=tolerance / 10)


def test_rms_norm_has_torchs_state():
    assert {n: tuple(t.shape) for n, t in torch.nn.RMSNorm(6).state_dict().items()} == {
        n: t.shape for n, t in tn.RMSNorm(6).state_dict().items()
    }


def test_a_fresh_gpt_begins_at_the_logarithm_of_the_vocabulary():
    model, leaves = twins(np.float32)
    ids = torch.randint(0, 40, (8, 16), generator=torch.Generator().manual_seed(0))
    assert math.isclose(F.cross_entropy(in_torch(leaves, ids, CONFIG).flatten(0, 1), ids.flip(0).flatten()).item(),
                        math.log(40), abs_tol=0.1)  # fmt: skip
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in leaves.values())
