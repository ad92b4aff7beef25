"""Scores of embeddings, of clusters and of imputed counts: arrays in, numbers out."""
