"""From counts as they come to counts to train on: quality, filters, choice of features.

Every function leaves the object it is given as it is.
"""

from scmvp_scvi.pp._cells import intersect_cells
from scmvp_scvi.pp._filter import (
    FILTER_PRESETS,
    FilterThresholds,
    filter_cells_and_features,
)

__all__ = [
    "FILTER_PRESETS",
    "FilterThresholds",
    "filter_cells_and_features",
    "intersect_cells",
]
