"""Paired RNA and ATAC data to try the model on."""

from scmvp_scvi.datasets._synthetic import synthetic

__all__ = ["synthetic"]
