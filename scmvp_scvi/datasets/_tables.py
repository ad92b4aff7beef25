"""Tables of cells and features, and counts that are written out as a table."""

from collections.abc import Callable, Collection, Iterator
from io import TextIOWrapper
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scmvp_scvi._files import open_with_progress
from scmvp_scvi._validate import shown
from scmvp_scvi.datasets._counts import Modality, to_modality

# Entries of a dense table that are held at a time.
_BLOCK_ENTRIES = 4_000_000
# Characters of a line in a message.
_MAX_SHOWN = 40


def read_list(path: Path) -> pd.DataFrame:
    """Read a table without header, one cell or feature a line, fields separated by tabs.

    Parameters
    ----------
    path
        The file, compressed or not.

    Returns
    -------
    The fields as text, without quotes; columns are numbered.

    Raises
    ------
    ValueError
        If the file is empty or not a table.
    """
    return _read(path, separator="\t", header=None)


def read_table(path: Path, *, separator: str, columns: Collection[str]) -> pd.DataFrame:
    """Read a table whose first line names the columns.

    Parameters
    ----------
    path
        The file, compressed or not.
    separator
        What separates the fields.
    columns
        The columns that the reader needs.

    Returns
    -------
    All columns as text, without quotes.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If the file is empty or not a table.
    """
    table = _read(path, separator=separator, header=0)
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise KeyError(
            f"`{path}` must have the columns {shown(columns)}, but {shown(missing)} is missing: "
            f"it has {shown(table.columns)}. Check that it is the published file, header "
            "included, and that those of RNA and ATAC are not swapped."
        )
    return table


def _read(path: Path, *, separator: str, header: int | None) -> pd.DataFrame:
    with open_with_progress(path, progress=False) as stream:
        try:
            # As text, since names such as `1` or `NA` are names.
            return pd.read_csv(
                stream, sep=separator, header=header, dtype=str, keep_default_na=False
            )
        except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
            raise ValueError(
                f"`{path}` must be a table of text, but: {error}. Download it again."
            ) from error


def read_dense_counts(
    path: Path, name_features: Callable[..., pd.DataFrame], *, progress: bool
) -> Modality:
    """Read counts written out as a table of features by cells, a few features at a time.

    Parameters
    ----------
    path
        The file, compressed or not: a line of cells, then a line for each feature that begins
        with its name. The first line may or may not have a field above the names of the features.
    name_features
        Makes the table of the features out of their names.
    progress
        Whether to show a progress bar.

    Returns
    -------
    The counts and their names.

    Raises
    ------
    ValueError
        If the file is not such a table, or does not hold counts.
    """
    with open_with_progress(path, progress=progress) as stream:
        try:
            cells, names, values = _parse_dense(TextIOWrapper(stream, encoding="utf-8-sig"))
        except ValueError as error:
            raise ValueError(
                f"`{path}` must be a table of counts, features by cells, separated by tabs, but: "
                f"{error}. Check that it is the published file."
            ) from error
    features = name_features(pd.Series(names), path=path)
    return to_modality(values, cells, features, path=path, cells_path=path)


def _parse_dense(lines: Iterator[str]) -> tuple[pd.Index, list[str], sp.csr_matrix]:
    lines = (line for line in lines if line.strip("\r\n "))
    first = next(lines, "").rstrip("\n")
    if first and "\t" not in first:
        raise ValueError(f"its first line has no tab: {first[:_MAX_SHOWN]!r}")
    header = [field.strip('"') for field in first.split("\t")]
    names: list[str] = []
    blocks: list[sp.csr_matrix] = []
    # pandas takes ten times as long as NumPy where a line has tens of thousands of fields.
    while block := list(islice(lines, max(1, _BLOCK_ENTRIES // len(header)))):
        parts = [line.partition("\t") for line in block]
        names.extend(name.strip('"') for name, _, _ in parts)
        fields = [rest for _, _, rest in parts]
        blocks.append(sp.csr_matrix(np.loadtxt(fields, delimiter="\t", comments=None, ndmin=2)))
    if not blocks:
        raise ValueError("it has no features")
    values = sp.vstack(blocks, format="csr")
    # One field more than there are columns stands above the names of the features.
    cells = header[1:] if len(header) == values.shape[1] + 1 else header
    return pd.Index(cells), names, values
