"""Chapters 11-14: tokens, embeddings, attention, transformers."""
