"""Chapters 11-14: tokens, embeddings, attention, transformers."""

from tt_nlp.attention import *
from tt_nlp.attention import __all__ as _attention
from tt_nlp.embeddings import *
from tt_nlp.embeddings import __all__ as _embeddings

# The contract: what other packages may use.
__all__ = [*_embeddings, *_attention]
