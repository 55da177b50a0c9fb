"""PyTorch's transformer without torch: its layers against their definition in plain NumPy, masks, errors, copies."""

import copy

import numpy as np
import pytest

import tt_nlp as tn
import tt_tensor as tt
from tt_autograd import check_gradients
from tt_nlp import torch_transformer
from tt_nlp.torch_transformer import Transformer

SIZES = {"d_model": 8, "nhead": 2, "dim_feedforward": 12, "dropout": 0.0}


def numbers(*shape):
    return tt.Tensor(np.random.default_rng(sum(shape)).normal(size=shape))


def norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


@pytest.mark.parametrize("norm_first", [False, True])
def test_an_encoder_layer_is_its_definition(norm_first):
    tt.manual_seed(0)
    layer, x = tn.TransformerEncoderLayer(**SIZES, norm_first=norm_first).double(), numbers(5, 2, 8)

    def attend(x):
        return np.asarray(layer.self_attn(*[tt.Tensor(x)] * 3)[0].detach())

    def feed(x):
        hidden = np.maximum(x @ layer.linear1.weight.numpy().T + layer.linear1.bias.numpy(), 0)
        return hidden @ layer.linear2.weight.numpy().T + layer.linear2.bias.numpy()

    wanted = x.numpy()
    for sublayer in (attend, feed):
        wanted = wanted + sublayer(norm(wanted)) if norm_first else norm(wanted + sublayer(wanted))
    np.testing.assert_allclose(layer(x).detach(), wanted, rtol=1e-9, atol=1e-12)


def test_a_decoder_layer_asks_the_memory_and_not_the_future():
    layer = tn.TransformerDecoderLayer(**SIZES, batch_first=True).double()
    tgt, memory = numbers(1, 4, 8), numbers(1, 3, 8)
    before = layer(tgt, memory, tgt_is_causal=True).detach().numpy()
    changed = tt.cat([tgt[:, :3], numbers(1, 1, 8)], 1)
    after = layer(changed, memory, tgt_is_causal=True).detach().numpy()
    np.testing.assert_allclose(after[:, :3], before[:, :3])
    assert not np.allclose(after[:, 3], before[:, 3])
    hidden = tt.tensor([[False, False, True]])
    alone = layer(tgt, memory[:, :2], tgt_is_causal=True).detach()
    np.testing.assert_allclose(layer(tgt, memory, tgt_is_causal=True, memory_key_padding_mask=hidden).detach(), alone)
    assert not np.allclose(before, alone)


def test_gradients_by_differences():
    model = Transformer(**SIZES, num_encoder_layers=1, num_decoder_layers=1, norm_first=True, activation="gelu")
    model.double()
    mask = model.generate_square_subsequent_mask(2, dtype=tt.float64)
    check_gradients(lambda src, tgt: model(src, tgt, tgt_mask=mask) ** 2, *(
        tt.Tensor(x.numpy(), requires_grad=True) for x in (numbers(3, 1, 8), numbers(2, 1, 8))
    ))  # fmt: skip


def test_layers_are_copies_and_copies_can_be_trained():
    layer = tn.TransformerEncoderLayer(**SIZES)
    encoder = tn.TransformerEncoder(layer, 2)
    weights = [each.linear1.weight for each in (layer, *encoder.layers)]
    assert all((weights[0] == weight).all() for weight in weights) and len({id(weight) for weight in weights}) == 3
    copy.deepcopy(encoder)(numbers(3, 1, 8).float()).sum().backward()
    assert encoder.num_layers == len(encoder.layers) == 2 and encoder.norm is None


def test_activations():
    layer = tn.TransformerEncoderLayer(**SIZES, activation=tt.GELU()).double()
    other = tn.TransformerEncoderLayer(**SIZES, activation="gelu").double()
    plain = tn.TransformerEncoderLayer(**SIZES).double()
    for each in (other, plain):
        each.load_state_dict(layer.state_dict())
    x = numbers(3, 1, 8)
    np.testing.assert_allclose(layer(x).detach(), other(x).detach())
    assert not np.allclose(layer(x).detach(), plain(x).detach())


def test_dropout_is_only_for_training():
    layer, x = tn.TransformerEncoderLayer(8, 2, 12, dropout=0.5), numbers(3, 1, 8).float()
    assert not (layer(x) == layer(x)).all() and (layer.eval()(x) == layer(x)).all()


def test_the_trunk_of_chapter_14_keeps_its_name():
    assert tn.Transformer is tn.transformers.Transformer is not torch_transformer.Transformer


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Transformer(8, 3), ValueError, "3 heads do not divide 8"),
        (lambda: Transformer(8, 2, activation="tanh"), ValueError, "activation must be .* not 'tanh'"),
        (lambda: Transformer(8, 2, device="cuda"), RuntimeError, "cuda is not available"),
        (
            lambda: Transformer(**SIZES)(numbers(3, 1, 8), numbers(3, 2, 8)), ValueError,
            r"\(S, B, 8\) and \(T, B, 8\), .*not \(3, 1, 8\) and \(3, 2, 8\)",
        ),
        (
            lambda: Transformer(**SIZES, batch_first=True)(numbers(1, 3, 8), numbers(1, 3, 7)), ValueError,
            r"\(B, S, 8\) and \(B, T, 8\), .*not \(1, 3, 8\) and \(1, 3, 7\)",
        ),
    ],
)  # fmt: skip
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()
