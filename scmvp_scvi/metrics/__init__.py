"""Measures of embeddings and clusterings, against known labels and against each other."""

from scmvp_scvi.metrics._clustering import (
    LEIDEN_RESOLUTIONS,
    label_transfer_f1,
    leiden_agreement,
    mean_entropy,
)
from scmvp_scvi.metrics._stability import ClusteringStability, clustering_stability

__all__ = [
    "LEIDEN_RESOLUTIONS",
    "ClusteringStability",
    "clustering_stability",
    "label_transfer_f1",
    "leiden_agreement",
    "mean_entropy",
]
