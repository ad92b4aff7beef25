"""Counts as the model wants them: cells by features, CSR, whole numbers."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

# Values looked at in one go, so that the checks of a large matrix need no copy of it.
_BLOCK_SIZE = 1 << 20


class Modality(NamedTuple):
    """Counts of one modality with the names of their rows and columns."""

    counts: sp.csr_matrix  # (cells, features)
    cells: pd.Index
    features: pd.DataFrame
    cells_path: Path  # the file that names the cells


def to_modality(
    matrix: sp.spmatrix,
    cells: pd.Index,
    features: pd.DataFrame,
    *,
    path: Path,
    cells_path: Path,
    round_halves_up: bool = False,
) -> Modality:
    """Bring a published matrix into the form of the model, and check that it holds counts.

    Parameters
    ----------
    matrix
        ``(features, cells)`` as is usual, or ``(cells, features)``; told by its shape.
    cells, features
        Names of the cells, and the table of the features, as long as the matrix.
    path, cells_path
        The file of the counts and that of the cells, for the messages.
    round_halves_up
        Whether n + 0.5 is read as n + 1. Other fractions are refused in any case.

    Returns
    -------
    The counts, ``(cells, features)``, CSR of float32 without stored zeros, and their names.

    Raises
    ------
    ValueError
        If the shape is not that of the tables, or a value is not a count.
    """
    n_cells, n_features = len(cells), len(features)
    if matrix.shape == (n_features, n_cells):
        matrix = matrix.T
    elif matrix.shape != (n_cells, n_features):
        raise ValueError(
            f"`{path}` must be {n_features} features by {n_cells} cells, as long as their tables, "
            f"or the transpose of it, but it is {matrix.shape[0]} by {matrix.shape[1]}. Take the "
            "matrix and the tables from the same sample, and check that each table is complete."
        )
    matrix = matrix.tocoo()
    values = _to_whole_numbers(matrix.data, path, round_halves_up=round_halves_up)
    # `tocsr` sums what is stored twice.
    counts = sp.coo_matrix((values, (matrix.row, matrix.col)), shape=matrix.shape).tocsr()
    counts.eliminate_zeros()
    return Modality(counts, cells, features, cells_path)


def _to_whole_numbers(
    values: NDArray[Any], path: Path, *, round_halves_up: bool
) -> NDArray[np.float32]:
    counts = np.empty(len(values), dtype=np.float32)
    for start in range(0, len(values), _BLOCK_SIZE):
        block = values[start : start + _BLOCK_SIZE]
        # NaN and infinity have no fraction either.
        with np.errstate(invalid="ignore"):
            if round_halves_up:
                block = np.where(block % 1 == 0.5, np.ceil(block), block)
            is_count = (block >= 0) & (block % 1 == 0)
        if not is_count.all():
            raise ValueError(
                f"`{path}` must hold counts, whole numbers of zero or more, but it has "
                f"{block[~is_count][0]:g}. These look like normalized values: take the file of "
                "the raw counts."
            )
        counts[start : start + len(block)] = block
    return counts
