"""Measures of embeddings and clusterings against known labels."""

from scmvp_scvi.metrics._clustering import (
    LEIDEN_RESOLUTIONS,
    label_transfer_f1,
    leiden_agreement,
    mean_entropy,
)

__all__ = ["LEIDEN_RESOLUTIONS", "label_transfer_f1", "leiden_agreement", "mean_entropy"]
