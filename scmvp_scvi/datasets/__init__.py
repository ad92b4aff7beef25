"""Paired RNA and ATAC data: a generator, readers of published and 10x files, and downloads."""

from scmvp_scvi.datasets._download import download
from scmvp_scvi.datasets._paired_seq import read_paired_seq
from scmvp_scvi.datasets._registry import list_datasets
from scmvp_scvi.datasets._sci_car import read_sci_car
from scmvp_scvi.datasets._share_seq import read_share_seq
from scmvp_scvi.datasets._snare_seq import read_snare_seq
from scmvp_scvi.datasets._synthetic import synthetic
from scmvp_scvi.datasets._tenx_multiome import read_10x_multiome

__all__ = [
    "download",
    "list_datasets",
    "read_10x_multiome",
    "read_paired_seq",
    "read_sci_car",
    "read_share_seq",
    "read_snare_seq",
    "synthetic",
]
