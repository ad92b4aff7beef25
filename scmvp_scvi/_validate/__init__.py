"""Checks of what users pass in: an error names the argument, the rule, the find, the way out."""

from scmvp_scvi._validate._arguments import (
    check_fraction,
    check_integer_at_least,
    check_is_among,
    check_not_negative,
    check_one_of,
    check_positive,
    check_positive_share,
    check_share,
    mapping_of,
)
from scmvp_scvi._validate._blocks import seen_cells_and_features
from scmvp_scvi._validate._columns import (
    check_categories,
    check_column_names,
    check_no_missing,
    check_numeric_finite,
    check_positive_column,
    find_grouping,
    find_obs_column,
)
from scmvp_scvi._validate._counts import (
    begins_with_counts,
    check_counts,
    warn_about_columns_on_disk,
    warn_about_reads,
)
from scmvp_scvi._validate._empty import check_no_cell_is_empty_in_both, warn_about_empty
from scmvp_scvi._validate._groups import Comparison, compare_groups, compare_rows
from scmvp_scvi._validate._messages import did_you_mean, shown
from scmvp_scvi._validate._mudata import (
    check_is_mudata,
    check_modalities,
    check_paired,
    check_unique_cells,
    find_counts,
    has_views,
)
from scmvp_scvi._validate._names import (
    PEAK_NAME,
    check_feature_names,
    check_indices,
    check_names,
    check_unique_features,
    parse_peaks,
    same_names,
    spelled_otherwise,
)

__all__ = [
    "Comparison",
    "PEAK_NAME",
    "begins_with_counts",
    "check_categories",
    "check_column_names",
    "check_counts",
    "check_feature_names",
    "check_fraction",
    "check_indices",
    "check_integer_at_least",
    "check_is_among",
    "check_is_mudata",
    "check_modalities",
    "check_names",
    "check_no_cell_is_empty_in_both",
    "check_no_missing",
    "check_not_negative",
    "check_numeric_finite",
    "check_one_of",
    "check_paired",
    "check_positive",
    "check_positive_column",
    "check_positive_share",
    "check_share",
    "check_unique_cells",
    "check_unique_features",
    "compare_groups",
    "compare_rows",
    "did_you_mean",
    "find_counts",
    "find_grouping",
    "find_obs_column",
    "has_views",
    "parse_peaks",
    "same_names",
    "seen_cells_and_features",
    "mapping_of",
    "shown",
    "spelled_otherwise",
    "warn_about_empty",
    "warn_about_columns_on_disk",
    "warn_about_reads",
]
