"""Matrices in the MatrixMarket format, whose indices count from one."""

from pathlib import Path

import pandas as pd
import scipy.sparse as sp
from scipy.io import mmread

from scmvp_scvi._files import open_with_progress
from scmvp_scvi.datasets._counts import Modality, to_modality


def read_matrix_market(
    path: Path,
    cells: pd.Index,
    features: pd.DataFrame,
    *,
    cells_path: Path,
    progress: bool,
    round_halves_up: bool = False,
) -> Modality:
    """Read the counts whose rows and columns are named in other files.

    Parameters
    ----------
    path
        The file, compressed or not.
    cells, features
        Names of the cells, and the table of the features.
    cells_path
        The file that names the cells, for the messages.
    progress
        Whether to show a progress bar.
    round_halves_up
        Whether n + 0.5 is read as n + 1.

    Returns
    -------
    The counts and their names. Reading needs about 30 bytes for each stored value.

    Raises
    ------
    ValueError
        If the file is not in the format, is cut off, or an index lies outside the matrix; if it
        has another shape than the names, or does not hold counts.
    """
    matrix = _read(path, progress=progress)
    return to_modality(
        matrix,
        cells,
        features,
        path=path,
        cells_path=cells_path,
        round_halves_up=round_halves_up,
    )


def _read(path: Path, *, progress: bool) -> sp.coo_matrix:
    with open_with_progress(path, progress=progress) as stream:
        try:
            return sp.coo_matrix(mmread(stream))
        except (ValueError, OverflowError) as error:
            raise ValueError(
                f"`{path}` must be a MatrixMarket file, whose first line begins with "
                f"`%%MatrixMarket matrix coordinate` and whose indices count from one, but: "
                f"{error} Download it again if it is cut off."
            ) from error
