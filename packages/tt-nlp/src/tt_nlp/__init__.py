"""Chapters 11-14: tokens, embeddings, attention, transformers."""

from tt_nlp.attention import *
from tt_nlp.attention import __all__ as _attention
from tt_nlp.common import as_added, refuse_ids, weighted
from tt_nlp.embeddings import *
from tt_nlp.embeddings import __all__ as _embeddings
from tt_nlp.gpt_files import *
from tt_nlp.gpt_files import __all__ as _gpt_files
from tt_nlp.long_words import *
from tt_nlp.long_words import __all__ as _long_words
from tt_nlp.more_attention import *
from tt_nlp.more_attention import __all__ as _more_attention
from tt_nlp.prompts import as_texts, refuse_settings, token_ids
from tt_nlp.tokenization import *
from tt_nlp.tokenization import __all__ as _tokenization
from tt_nlp.tokenizer_files import *
from tt_nlp.tokenizer_files import __all__ as _tokenizer_files
from tt_nlp.transformers import *
from tt_nlp.transformers import __all__ as _transformers

# The contract: what other packages may use.
__all__ = [*_tokenization, *_long_words, *_tokenizer_files, *_embeddings, *_attention, *_more_attention, *_transformers]
__all__ += [*_gpt_files, "as_added", "as_texts", "refuse_ids", "refuse_settings", "token_ids", "weighted"]
