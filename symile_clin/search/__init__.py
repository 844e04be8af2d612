"""Embeddings that can be searched, by any modalities for any other."""
