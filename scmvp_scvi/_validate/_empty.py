"""Cells and features without a single count."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from scmvp_scvi._validate._blocks import seen_cells_and_features
from scmvp_scvi._validate._messages import shown

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


def warn_about_empty(
    matrix: Any, *, modality: str, features_may_go: bool = True
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Warn about cells and features without a single count.

    Parameters
    ----------
    matrix
        ``(cells, features)``, counts that `check_counts` accepts.
    modality
        Key of the modality.
    features_may_go
        Whether features can be removed: not those that a trained model needs.

    Returns
    -------
    ``(cells,)`` and ``(features,)``, true where there is no count.
    """
    cells, features = seen_cells_and_features(matrix)
    n_cells, n_features = int((~cells).sum()), int((~features).sum())
    if n_cells > 0:
        warnings.warn(
            f"{n_cells} of {cells.size} cells have no counts in `{modality}`. They are kept, and "
            "embedded from the other modality alone. To leave them out, filter the cells by "
            "depth first.",
            UserWarning,
            stacklevel=3,
        )
    if n_features > 0 and features_may_go:
        warnings.warn(
            f"{n_features} of {features.size} features have no counts in `{modality}`. They carry "
            "no information and cost time. Remove them: "
            f'`scanpy.pp.filter_genes(mdata["{modality}"], min_cells=1); mdata.update()`.',
            UserWarning,
            stacklevel=3,
        )
    return ~cells, ~features


def check_no_cell_is_empty_in_both(
    rna_empty: NDArray[np.bool_],
    atac_empty: NDArray[np.bool_],
    *,
    cell_names: pd.Index,
    modality_keys: tuple[str, str] = ("rna", "atac"),
) -> None:
    """Refuse cells that have no count in either modality.

    Parameters
    ----------
    rna_empty, atac_empty
        ``(cells,)``, true where a cell has no count in the modality.
    cell_names
        ``(cells,)``, to name the cells in the error.
    modality_keys
        Keys of the two modalities, for the way out in the error.

    Raises
    ------
    ValueError
        If there is such a cell.
    """
    empty = np.asarray(rna_empty) & np.asarray(atac_empty)
    if empty.any():
        depths = " + ".join(f'mdata["{key}"].X.sum(axis=1)' for key in modality_keys)
        raise ValueError(
            f"Each cell needs a count in at least one modality, but {int(empty.sum())} have none "
            f"in either: {shown(cell_names[empty])}. Remove them: "
            f"`mdata = mdata[numpy.asarray({depths}).ravel() > 0].copy()`."
        )
