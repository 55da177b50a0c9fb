# # PyTorch's transformer
#
# An appendix of chapter 14: the transformer as it was published, with an encoder and a decoder, under the names and
# with the arguments of `torch.nn`. In chapter 14 we build half of it, in the order that has proved itself since.
#
# The first transformer translates. Its *encoder* reads the sentence in the original language, and every token may look
# at every other. Its *decoder* writes the translation, and needs two attentions for that. In the first it looks at what
# it has written so far: *self-attention*, causal, as in our GPT. In the second it asks the encoder's result, the
# *memory*: *cross-attention*, in which queries come from the translation, keys and values from the original. A GPT has
# nothing to translate, so it is a decoder without the second attention.

from __future__ import annotations

import copy
from collections.abc import Callable
from types import FunctionType

import numpy as np

import tt_tensor as tt
from tt_nlp.more_attention import MultiheadAttention
from tt_spatial import LayerNorm
from tt_tensor import Dropout, Linear, Module, ModuleList, Tensor

# ## Before or after
#
# We add a sublayer's answer to the residual stream, and somewhere there is a norm. The publication normalizes the sum
# (*post-norm*); in chapter 14 we normalize the sublayer's input (*pre-norm*, `norm_first=True`). With post-norm the
# stream itself goes through every norm, so the gradient does too, and deep networks need a careful warm-up. With
# pre-norm there is a path from top to bottom that meets no norm. PyTorch's default is the publication's.
#
# We put what all layers have in common into a class: two linear layers with an activation between them, and the way in
# which a sublayer is added.


class _Layer(Module):
    def _equip(self, d_model, nhead, dim_feedforward, dropout, activation, norm_first, bias, factory):
        self.linear1 = Linear(d_model, dim_feedforward, bias, **factory)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, **factory)
        self.norm_first, self.activation = norm_first, _activation(activation)

    def _feedforward(self, x):
        return self.linear2(self.dropout(self.activation(self.linear1(x))))

    def _added(self, x, norm, dropout, sublayer):
        if self.norm_first:
            return x + dropout(sublayer(norm(x)))
        return norm(x + dropout(sublayer(x)))


def _activation(given) -> Callable:
    if given not in ("relu", "gelu") and not callable(given):
        raise ValueError(f'activation must be "relu", "gelu" or a function, not {given!r}')
    function = {"relu": relu, "gelu": gelu}[given] if isinstance(given, str) else given
    return function if isinstance(function, (Module, FunctionType)) else lambda x: function(x)


# We copy the layers, and a copy of a primitive would have no rule. A plain function stays the same function in a copy,
# so we wrap them.


def relu(x: Tensor) -> Tensor: return tt.relu(x)
def gelu(x: Tensor) -> Tensor: return tt.gelu(x)


# PyTorch's masks come with a hint, `is_causal`, which says that the given mask is the causal one. If there is a mask,
# we need no hint; without one, `is_causal` is the mask.


def _attend(attention, query, memory, mask, padding, is_causal):
    found, _ = attention(query, memory, memory, padding, False, mask, is_causal=is_causal and mask is None)
    return found


# ## The encoder
#
# You will recognize the block of chapter 14, with PyTorch's names.


class TransformerEncoderLayer(_Layer):
    """Self-attention and two linear layers, each with dropout, a sum and a norm: (T, B, d_model) -> the same. As
    torch.nn.TransformerEncoderLayer; with batch_first (B, T, d_model)."""

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = "relu", layer_norm_eps: float = 1e-5, batch_first: bool = False,
        norm_first: bool = False, bias: bool = True, device=None, dtype=None,
    ):
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, **factory)
        self._equip(d_model, nhead, dim_feedforward, dropout, activation, norm_first, bias, factory)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, **factory)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, **factory)
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)

    # The attention is the first sublayer, the two linear layers are the second.

    def forward(
        self, src: Tensor, src_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Return src after both sublayers. src_mask (T, T) and src_key_padding_mask (B, T): True where a token must not
        look, or numbers to add."""
        masks = (src_mask, src_key_padding_mask, is_causal)
        x = self._added(src, self.norm1, self.dropout1, lambda x: _attend(self.self_attn, x, x, *masks))
        return self._added(x, self.norm2, self.dropout2, self._feedforward)


# The encoder is a stack of copies of one layer. They begin with equal weights, unless you initialize them again, as our
# `Transformer` does below.


class TransformerEncoder(Module):
    """num_layers copies of an encoder layer, one after the other, and a norm if given. As
    torch.nn.TransformerEncoder; enable_nested_tensor and mask_check change nothing."""

    def __init__(
        self, encoder_layer: Module, num_layers: int, norm: Module | None = None, enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ):
        super().__init__()
        self.layers = ModuleList(copy.deepcopy(encoder_layer) for _ in range(num_layers))
        self.num_layers, self.norm = num_layers, norm

    def forward(
        self, src: Tensor, mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """Return src after all layers, with the same masks in each."""
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, bool(is_causal))
        return src if self.norm is None else self.norm(src)


# (In evaluation, PyTorch's encoder may leave zeros at positions that `src_key_padding_mask` hides. Ours computes them
# as in training. Your program should not read them.)

# ## The decoder
#
# Between the two sublayers of an encoder layer, a decoder layer has a third, which asks the memory.


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to a memory, and two linear layers, each with dropout, a sum and a norm: (T, B,
    d_model) -> the same. As torch.nn.TransformerDecoderLayer; with batch_first (B, T, d_model)."""

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = "relu", layer_norm_eps: float = 1e-5, batch_first: bool = False,
        norm_first: bool = False, bias: bool = True, device=None, dtype=None,
    ):
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, **factory)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, **factory)
        self._equip(d_model, nhead, dim_feedforward, dropout, activation, norm_first, bias, factory)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, **factory)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, **factory)
        self.norm3 = LayerNorm(d_model, layer_norm_eps, bias=bias, **factory)
        self.dropout1, self.dropout2, self.dropout3 = Dropout(dropout), Dropout(dropout), Dropout(dropout)

    # Each of the two attentions has masks of its own.

    def forward(
        self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None, memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False, memory_is_causal: bool = False,
    ) -> Tensor:
        """Return tgt (T, B, d_model) after the three sublayers; memory is (S, B, d_model). The masks are for looking at
        tgt and at memory; True where a token must not look, or numbers to add."""
        own = (tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        other = (memory_mask, memory_key_padding_mask, memory_is_causal)
        x = self._added(tgt, self.norm1, self.dropout1, lambda x: _attend(self.self_attn, x, x, *own))
        x = self._added(x, self.norm2, self.dropout2, lambda x: _attend(self.multihead_attn, x, memory, *other))
        return self._added(x, self.norm3, self.dropout3, self._feedforward)


# The decoder is a stack of copies, like the encoder. All of its layers ask the same memory.


class TransformerDecoder(Module):
    """num_layers copies of a decoder layer, one after the other, and a norm if given. As
    torch.nn.TransformerDecoder."""

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None):
        super().__init__()
        self.layers = ModuleList(copy.deepcopy(decoder_layer) for _ in range(num_layers))
        self.num_layers, self.norm = num_layers, norm

    def forward(
        self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None, memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None, memory_is_causal: bool = False,
    ) -> Tensor:
        """Return tgt after all layers, each of which asks the same memory."""
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        for layer in self.layers:
            tgt = layer(tgt, memory, *masks, bool(tgt_is_causal), memory_is_causal)
        return tgt if self.norm is None else self.norm(tgt)


# ## Both
#
# `Transformer` has no embeddings, no positions and no logits: it takes vectors and returns vectors. We check their
# sizes here, where our message can say which of the two is wrong.


class Transformer(Module):
    """An encoder and a decoder that asks it: src (S, B, d_model) and tgt (T, B, d_model) -> (T, B, d_model). As
    torch.nn.Transformer; with batch_first B comes first. Not the trunk of chapter 14, which is `tt_nlp.Transformer`."""

    def __init__(
        self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6, num_decoder_layers: int = 6,
        dim_feedforward: int = 2048, dropout: float = 0.1, activation: str | Callable[[Tensor], Tensor] = "relu",
        custom_encoder: Module | None = None, custom_decoder: Module | None = None, layer_norm_eps: float = 1e-5,
        batch_first: bool = False, norm_first: bool = False, bias: bool = True, device=None, dtype=None,
    ):
        super().__init__()
        sizes = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias)
        factory = {"device": device, "dtype": dtype}

        def stack(make, layer, count):
            norm = LayerNorm(d_model, layer_norm_eps, bias=bias, **factory)
            return make(layer(*sizes, **factory), count, norm)

        self.encoder = custom_encoder or stack(TransformerEncoder, TransformerEncoderLayer, num_encoder_layers)
        self.decoder = custom_decoder or stack(TransformerDecoder, TransformerDecoderLayer, num_decoder_layers)
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        for parameter in self.parameters():
            if parameter.ndim > 1:
                tt.xavier_uniform_(parameter)

    # We run the encoder once and pass its result to the decoder as the memory.

    def forward(
        self, src: Tensor, tgt: Tensor, src_mask: Tensor | None = None, tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None, memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None, tgt_is_causal: bool | None = None, memory_is_causal: bool = False,
    ) -> Tensor:
        """Return the decoder's result (T, B, d_model) for tgt, with the encoder's result for src as its memory."""
        self._refuse_misfits(src, tgt)
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal)
        return self.decoder(
            tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask, tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )

    # Both need the width of the model, and the same batch.

    def _refuse_misfits(self, src, tgt):
        batch = 0 if self.batch_first else 1
        fits = src.ndim == tgt.ndim and src.ndim in (2, 3) and src.shape[-1] == tgt.shape[-1] == self.d_model
        if not fits or (src.ndim == 3 and src.shape[batch] != tgt.shape[batch]):
            wanted = ("(B, S, {0}) and (B, T, {0})" if self.batch_first else "(S, B, {0}) and (T, B, {0})").format(
                self.d_model
            )
            raise ValueError(f"src and tgt must be {wanted}, or both without B; not {src.shape} and {tgt.shape}")

    # PyTorch's form of the causal mask is one that we add: 0 where a token may look, $-\infty$ where the future is.

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device=None, dtype=None) -> Tensor:
        """(sz, sz) numbers to add to scores: 0 for a token itself and those before it, -inf for those after it."""
        tt.refuse_other_device(device)
        return tt.triu(tt.full((sz, sz), -np.inf, dtype=dtype or tt.float32), 1)


# With a causal mask our decoder must not see the future, and without one the encoder must see everything.


def check_who_sees_what():
    model, x = Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True).double(), tt.randn(1, 4, 8).double()
    changed = tt.cat([x[:, :3], tt.randn(1, 1, 8).double()], 1)
    mask = model.generate_square_subsequent_mask(4)
    same = model(x, x, tgt_mask=mask) - model(x, changed, tgt_mask=mask)
    other = model(x, x, tgt_mask=mask) - model(changed, x, tgt_mask=mask)
    assert np.allclose(same[:, :3].detach().numpy(), 0) and other.abs().min().item() > 0


__all__ = [
    "Transformer", "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder", "TransformerEncoderLayer",
]
