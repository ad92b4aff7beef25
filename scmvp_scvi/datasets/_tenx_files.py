"""Files of Cell Ranger ARC: found, and compared with each other before a library reads them."""

import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from rich.progress import track
from scipy.io import mminfo

from scmvp_scvi._files import open_with_progress
from scmvp_scvi._validate import shown
from scmvp_scvi.datasets._pairing import check_each_once
from scmvp_scvi.datasets._tables import read_list

MATRIX_FILE, FEATURES_FILE, BARCODES_FILE = "matrix.mtx.gz", "features.tsv.gz", "barcodes.tsv.gz"
_FOLDER_FILES = (MATRIX_FILE, FEATURES_FILE, BARCODES_FILE)
_OF_OLD_LAYOUT = "genes.tsv"
_FEATURE_COLUMNS = ("id", "name", "feature_type")
_PLACE_COLUMNS = ("chrom", "start", "end")  # later versions have them too
INTERVAL = "interval"  # what the `.h5` file has instead, and muon calls it
_DATASETS = (
    *("shape", "indptr", "indices", "data", "barcodes"),
    *(f"features/{column}" for column in _FEATURE_COLUMNS),
)
# Indices looked at in one go.
_BLOCK_SIZE = 1 << 22
_AGAIN = "Download it again, or take it from Cell Ranger ARC anew."


def find_matrix(path: Path) -> Path:
    """Find the matrix of Cell Ranger ARC.

    Parameters
    ----------
    path
        The file, or a folder.

    Returns
    -------
    The ``.h5`` file, or the folder of the three files of a matrix.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If the folder has files of two layouts.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"`path` must be an `.h5` file or a folder of Cell Ranger ARC, but `{path}` is not "
            "there. Check the path."
        )
    if not path.is_dir():
        return path
    matrices = sorted(path.glob("*.h5"))
    if any((path / name).exists() for name in _variants(MATRIX_FILE)):
        _check_files_are_there(path)
        return path
    if len(matrices) != 1:
        raise FileNotFoundError(
            f"`{path}` must hold `{MATRIX_FILE}` or one `.h5` file, but it has "
            f"{shown(sorted(entry.name for entry in path.iterdir()))}. Pass the path of the file, "
            "or of the folder with these files, their names without prefix."
        )
    return matrices[0]


def _variants(name: str) -> tuple[str, str]:
    return name, name.removesuffix(".gz")


def _check_files_are_there(folder: Path) -> None:
    if (folder / _OF_OLD_LAYOUT).exists():  # which scanpy then reads in the old layout
        raise ValueError(
            f"`{folder}` must hold {shown(_FOLDER_FILES)} alone, but it has `{_OF_OLD_LAYOUT}` of "
            "the older layout of Cell Ranger as well. Move that file elsewhere."
        )
    missing = [name for name in _FOLDER_FILES if not (folder / name).is_file()]
    if not missing:
        return
    plain = [name.removesuffix(".gz") for name in missing]
    way_out = (
        f"Compress those that are there: `cd {folder} && gzip {' '.join(plain)}`."
        if all((folder / name).is_file() for name in plain)
        else "Download them again, or take them from Cell Ranger ARC anew."
    )
    raise FileNotFoundError(
        f"`{folder}` must hold {shown(_FOLDER_FILES)}, compressed, but {shown(missing)} is "
        f"missing. {way_out}"
    )


def check_h5(path: Path, *, progress: bool) -> None:
    """Refuse a file whose parts are missing, or do not belong together.

    Parameters
    ----------
    path
        The ``.h5`` file.
    progress
        Whether to show a progress bar.

    Raises
    ------
    ValueError
        If it is another kind of file, a part is missing, too short or too long, or names a
        feature that is not there, or a cell is there twice.
    OSError
        If it is damaged.
    """
    try:
        with h5py.File(path) as file:
            _check_is_matrix(file, path)
            _check_lengths(file["matrix"], path)
            check_each_once(pd.Index(file["matrix/barcodes"].asstr()[:]), path)
            _check_indices(file["matrix"], path, progress=progress)
    except OSError as error:
        raise OSError(
            f"`{path}` must be the matrix of Cell Ranger ARC, but it cannot be read: {error}. "
            "Download it again if it is cut off."
        ) from error


def _check_is_matrix(file: Any, path: Path) -> None:
    if "matrix" not in file:
        raise ValueError(
            f"`{path}` must be the matrix of Cell Ranger ARC, with the group `matrix`, but it has "
            f"{shown(file)}. An `.h5mu` file is read by `mudata.read_h5mu`."
        )
    missing = [name for name in _DATASETS if name not in file["matrix"]]
    if missing:
        raise ValueError(
            f"`{path}` must have {shown(_DATASETS)} in its group `matrix`, but {shown(missing)} "
            f"is missing. {_AGAIN}"
        )


def _check_lengths(matrix: Any, path: Path) -> None:
    n_features, n_cells = (int(length) for length in matrix["shape"])
    ends = matrix["indptr"][:]
    n_stored = int(ends[-1]) if ends.size else 0
    columns = [*_FEATURE_COLUMNS, *([INTERVAL] if INTERVAL in matrix["features"] else [])]
    expected = {
        **{f"features/{name}": (n_features, "features") for name in columns},
        "barcodes": (n_cells, "cells"),
        "indptr": (n_cells + 1, "ends, one more than cells"),
        "indices": (n_stored, "values, as `matrix/indptr` says"),
        "data": (n_stored, "values, as `matrix/indptr` says"),
    }
    for name, (length, of) in expected.items():
        if matrix[name].size != length:
            raise ValueError(
                f"`matrix/{name}` of `{path}` must have an entry for each of {length} {of}, but "
                f"it has {matrix[name].size}. {_AGAIN}"
            )
    if ends[0] != 0 or (np.diff(ends) < 0).any():
        raise ValueError(f"`matrix/indptr` of `{path}` must begin at 0 and never fall. {_AGAIN}")


def _check_indices(matrix: Any, path: Path, *, progress: bool) -> None:
    n_features, indices = int(matrix["shape"][0]), matrix["indices"]
    for start in track(
        range(0, indices.size, _BLOCK_SIZE),
        description=f"Checking {path.name}",
        transient=True,
        disable=not progress,
    ):
        block = indices[start : start + _BLOCK_SIZE]
        if block.min() < 0 or block.max() >= n_features:
            raise ValueError(
                f"`matrix/indices` of `{path}` must lie between 0 and {n_features - 1}, as there "
                f"are {n_features} features, but they go from {block.min()} to {block.max()}. "
                f"{_AGAIN}"
            )


def check_folder(folder: Path) -> pd.DataFrame:
    """Refuse tables that are no tables, or not as long as the matrix.

    Parameters
    ----------
    folder
        Holds the three files.

    Returns
    -------
    ``id``, ``name`` and ``feature_type`` of the features, as text, and their ``interval``,
    ``chrom:start-end``, if the table says where they are.

    Raises
    ------
    ValueError
        If a file is damaged or of another kind, their lengths differ, or a cell is there twice.
        The entries of the matrix are not looked at.
    """
    matrix, features, barcodes = (folder / name for name in _FOLDER_FILES)
    cells = pd.Index(read_list(barcodes)[0])
    check_each_once(cells, barcodes)
    table = read_list(features)
    if table.shape[1] < len(_FEATURE_COLUMNS):
        raise ValueError(
            f"`{features}` must have the columns id, name and type, separated by tabs, but it "
            f"has {table.shape[1]}. Take the matrix of Cell Ranger ARC, which tells genes from "
            "peaks."
        )
    with open_with_progress(matrix, progress=False) as stream:
        try:
            n_rows, n_columns = mminfo(stream)[:2]
        except (ValueError, EOFError, zlib.error) as error:
            raise ValueError(no_matrix_market(matrix, error)) from error
    for path, length, expected, axis in (
        (features, len(table), n_rows, "rows"),
        (barcodes, len(cells), n_columns, "columns"),
    ):
        if length != expected:
            raise ValueError(
                f"`{path}` must have a line for each of the {expected} {axis} of `{MATRIX_FILE}`, "
                f"but it has {length}. Take the three files from the same folder of Cell Ranger "
                "ARC."
            )
    columns = [*_FEATURE_COLUMNS, *_PLACE_COLUMNS][: table.shape[1]]
    table = table.iloc[:, : len(columns)].set_axis(columns, axis=1)
    if len(columns) == len(_FEATURE_COLUMNS) + len(_PLACE_COLUMNS):
        table[INTERVAL] = table["chrom"] + ":" + table["start"] + "-" + table["end"]
    return table


def no_matrix_market(path: Path, error: Exception) -> str:
    """Word what a library says of a broken file.

    Parameters
    ----------
    path, error
        The file, and what was raised.

    Returns
    -------
    A message with the way out.
    """
    found = str(error).strip().rstrip(".")
    return f"`{path}` must be a whole MatrixMarket file, but: {found}. {_AGAIN}"
