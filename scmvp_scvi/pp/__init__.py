"""From counts as they come to counts to train on: quality, filters, choice of features.

Every function leaves the object it is given as it is.
"""

from scmvp_scvi.pp._cells import intersect_cells, union_cells
from scmvp_scvi.pp._counts import promote_counts, reads_to_fragments
from scmvp_scvi.pp._features import select_features
from scmvp_scvi.pp._filter import (
    FILTER_PRESETS,
    FilterThresholds,
    filter_cells_and_features,
)
from scmvp_scvi.pp._plot_qc import plot_qc
from scmvp_scvi.pp._qc import QualityReport, qc
from scmvp_scvi.pp._regions import mask_regions
from scmvp_scvi.pp._tfidf import tfidf

__all__ = [
    "FILTER_PRESETS",
    "FilterThresholds",
    "QualityReport",
    "filter_cells_and_features",
    "intersect_cells",
    "mask_regions",
    "plot_qc",
    "promote_counts",
    "qc",
    "reads_to_fragments",
    "select_features",
    "tfidf",
    "union_cells",
]
