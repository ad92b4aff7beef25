"""Cells and features without a single count, cells with very many, and data without a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scmvp_scvi._validate._blocks import seen_cells_and_features
from scmvp_scvi._validate._messages import shown, spelled_matrix, warn_user

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

# Among 500 and 1,500 generated cells, one with a hundred times the median of the ATAC counts took
# k-means from an NMI of .97 to .92, one with three hundred to .86; one with thirty did nothing.
_DEEP = 50


def check_has_cells(matrix: Any, modality: str) -> None:
    """Refuse data without a cell.

    Parameters
    ----------
    matrix, modality
        ``(cells, features)``, and the key of the modality.

    Raises
    ------
    ValueError
        If there is no cell at all.
    """
    if matrix.shape[0] == 0:
        raise ValueError(
            f"`{modality}` must have at least one cell, got none. Choose other cells: no cell is "
            "as asked for where a name is misspelled, or one filter leaves none to the next."
        )


def find_empty_cells(
    matrix: Any, *, modality: str, layer: str | None = None, features_may_go: bool = True
) -> NDArray[np.bool_]:
    """Find the cells without a single count; warn about them, and about such features.

    Parameters
    ----------
    matrix
        ``(cells, features)``, counts that `check_counts` accepts.
    modality, layer
        Key of the modality, and the layer with its counts; None for ``.X``.
    features_may_go
        Whether features can be removed: not those that a trained model needs.

    Returns
    -------
    ``(cells,)``, true where a cell has no count.

    Warns
    -----
    UserWarning
        If there are such cells, or such features that can be removed.
    """
    cells, features = seen_cells_and_features(matrix)
    n_cells, n_features = int((~cells).sum()), int((~features).sum())
    if n_cells > 0:
        warn_user(
            f"{n_cells} of {cells.size} cells have no counts in `{modality}`. They are kept, and "
            "embedded from the other modality alone. To leave them out, filter the cells by "
            "depth first.",
        )
    if n_features > 0 and features_may_go:
        warn_user(
            f"{n_features} of {features.size} features have no counts in `{modality}`. They carry "
            "no information and cost time. Remove them: "
            f'`mdata.mod["{modality}"] = mdata["{modality}"][:, {_depths(modality, layer, 0)} > 0]'
            ".copy(); mdata.update()`.",
        )
    return ~cells


def check_no_cell_is_empty_in_both(
    empty: Mapping[str, NDArray[np.bool_]],
    *,
    cell_names: pd.Index,
    layers: Mapping[str, str | None],
) -> None:
    """Refuse cells that have no count in either modality.

    Parameters
    ----------
    empty
        Modality to ``(cells,)``, true where a cell has no count in it.
    cell_names
        ``(cells,)``, to name the cells in the error.
    layers
        Modality to the layer with its counts, None for ``.X``, for the way out in the error.

    Raises
    ------
    ValueError
        If there is such a cell.
    """
    in_both = np.logical_and(*empty.values())
    if in_both.any():
        depths = " + ".join(_depths(key, layer, 1) for key, layer in layers.items())
        raise ValueError(
            f"Each cell needs a count in at least one modality, but {int(in_both.sum())} have "
            f"none in either: {shown(cell_names[in_both])}. Remove them: "
            f"`mdata = mdata[{depths} > 0].copy()`."
        )


def check_some_cell_has_both(empty: Mapping[str, NDArray[np.bool_]]) -> None:
    """Refuse data of which no cell has counts in both modalities.

    Parameters
    ----------
    empty
        As in `check_no_cell_is_empty_in_both`.

    Raises
    ------
    ValueError
        If there is no such cell.
    """
    lacks_one = np.logical_or(*empty.values())
    if lacks_one.all():
        raise ValueError(
            f"Some cells must have counts in both {' and '.join(f'`{key}`' for key in empty)}, "
            "for the model learns from them how the modalities belong together, but none of the "
            f"{lacks_one.size} has. Give a cell the same name in both modalities, add cells "
            "where both were measured, or embed these by a model that knows such cells: "
            "`model.get_latent_representation(mdata)`."
        )


def warn_about_deep_cells(
    depths: NDArray[np.number[Any]],
    *,
    cell_names: pd.Index,
    modality: str,
    layer: str | None = None,
) -> None:
    """Warn of cells that are so deep that they weigh more than the others on what is learned.

    Parameters
    ----------
    depths
        ``(cells,)``, counts of each cell.
    cell_names
        ``(cells,)``, to name the cells in the warning.
    modality, layer
        Key of the modality, and the layer with its counts; None for ``.X``.
    """
    measured = depths[depths > 0]
    limit = _DEEP * np.median(measured) if measured.size > 0 else np.inf
    is_deep = depths > limit
    if is_deep.any():
        warn_user(
            f"{int(is_deep.sum())} of {depths.size} cells have more than {_DEEP} times the counts "
            f"in `{modality}` of the median cell, up to {depths.max():,.0f}: "
            f"{shown(cell_names[is_deep])}. Each count has its part in what is learned, so that "
            "such cells may blur the types of all others. Unless they are real, leave them out: "
            f"`mdata = mdata[{_depths(modality, layer, 1)} <= {limit:.0f}].copy()`.",
        )


def _depths(modality: str, layer: str | None, axis: int) -> str:
    """Expression for the sums of the counts over an axis, for the way out in a message."""
    return f"numpy.asarray({spelled_matrix(modality, layer)}.sum(axis={axis})).ravel()"
