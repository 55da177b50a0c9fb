"""Chapters 11-14: tokens, embeddings, attention, transformers."""

from tt_nlp.attention import (
    MultiHeadAttention, attention_in_blocks, attention_vjp, attention_weights, causal_mask, merge_heads,
    scaled_dot_product_attention, self_attention, split_heads, window_mask,
)
from tt_nlp.common import as_added, refuse_ids, weighted
from tt_nlp.embeddings import (
    Embedding, LearnedPositions, RotaryEmbedding, add_rows, embedding, nearest, rotary, sinusoidal_positions,
    rotate_pairs,
)
from tt_nlp.gpt_files import *
from tt_nlp.gpt_files import __all__ as _gpt_files
from tt_nlp.long_words import *
from tt_nlp.long_words import __all__ as _long_words
from tt_nlp.more_attention import *
from tt_nlp.more_attention import __all__ as _more_attention
from tt_nlp.more_embeddings import EmbeddingBag
from tt_nlp.more_recurrent import *
from tt_nlp.more_recurrent import __all__ as _more_recurrent
from tt_nlp.prompts import as_texts, refuse_settings, token_ids
from tt_nlp.recurrent import *
from tt_nlp.recurrent import __all__ as _recurrent
from tt_nlp.tokenization import (
    BPETokenizer, CharTokenizer, Corpus, Encoder, PATTERNS, Vocabulary, bytes_per_token, count_words,
)
from tt_nlp.tokenizer_files import *
from tt_nlp.tokenizer_files import __all__ as _tokenizer_files
from tt_nlp.torch_transformer import (
    TransformerDecoder, TransformerDecoderLayer, TransformerEncoder, TransformerEncoderLayer,
)
from tt_nlp.transformers import (
    Block, CausalSelfAttention, GPT, GPTConfig, GatedMLP, MLP, RMSNorm, Transformer, Windows, decay_groups,
    generate, multiply_adds, next_logits, next_probabilities, next_token_loss, parameter_count, rms_norm, stream,
    train_on, train_on_text,
)

# The contract: what other packages may use.
__all__ = [
    "BPETokenizer", "CharTokenizer", "Corpus", "Encoder", "PATTERNS", "Vocabulary", "bytes_per_token", "count_words",
    *_long_words, *_tokenizer_files, "Embedding", "LearnedPositions", "RotaryEmbedding", "add_rows", "embedding",
    "nearest", "rotary", "sinusoidal_positions", "rotate_pairs", "MultiHeadAttention", "attention_in_blocks",
    "attention_vjp", "attention_weights", "causal_mask", "merge_heads", "scaled_dot_product_attention",
    "self_attention", "split_heads", "window_mask", *_more_attention, "EmbeddingBag", "TransformerDecoder",
    "TransformerDecoderLayer", "TransformerEncoder", "TransformerEncoderLayer", "Block", "CausalSelfAttention", "GPT",
    "GPTConfig", "GatedMLP", "MLP", "RMSNorm", "Transformer", "Windows", "decay_groups", "generate", "multiply_adds",
    "next_logits", "next_probabilities", "next_token_loss", "parameter_count", "rms_norm", "stream", "train_on",
    "train_on_text", *_gpt_files, "as_added", "as_texts", "refuse_ids", "refuse_settings", "token_ids", "weighted",
    *_recurrent, *_more_recurrent,
]
