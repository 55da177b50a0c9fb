"""The functions of chapters 12 and 13 with all of PyTorch's arguments, under the name that PyTorch's users type:
`import tt_nlp.functional as F`."""

from tt_nlp.more_attention import scaled_dot_product_attention
from tt_nlp.more_embeddings import embedding, embedding_bag

__all__ = ["embedding", "embedding_bag", "scaled_dot_product_attention"]
