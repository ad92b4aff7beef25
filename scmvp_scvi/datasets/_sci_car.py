"""sci-CAR, GSE117089: comma-separated tables of cells, genes and peaks, MatrixMarket counts."""

from pathlib import Path

import pandas as pd
from mudata import MuData

from scmvp_scvi.datasets._features import name_genes, name_peaks
from scmvp_scvi.datasets._files import find_files
from scmvp_scvi.datasets._matrix_market import read_matrix_market
from scmvp_scvi.datasets._pairing import pair
from scmvp_scvi.datasets._registry import find_dataset
from scmvp_scvi.datasets._tables import read_table

_STANDARD_NAMES = {"cell_name": "cell_type", "replicate": "batch"}


def read_sci_car(folder: str | Path, sample: str = "a549", *, progress: bool = True) -> MuData:
    """Read sci-CAR counts as published in GSE117089.

    Parameters
    ----------
    folder
        Holds the six files of the sample, compressed or not; :func:`list_datasets` names where
        they come from, and ``download("sci_car_a549", folder)`` fetches them.
    sample
        ``"a549"``, the mix of cell lines, or ``"mouse_kidney"``.
    progress
        Whether to show a progress bar.

    Returns
    -------
    Modalities ``"rna"`` and ``"atac"`` of the co-assayed cells, in the same order, whose ``X`` are
    raw counts, CSR of float32, with

    - ``.obs``: ``cell_type``; ``batch``, the replicate (kidney); the other columns of the two
      cell tables.
    - ``["rna"].var``, named by the symbol, or by ``symbol_id`` where genes share one:
      ``gene_id``, ``gene_name``, ``gene_type``, and ``genome``, human or mouse.
    - ``["atac"].var``, named ``chrom:start-end``: ``chrom``, ``start``, ``end``.

    Raises
    ------
    OSError
        If the folder or a file is missing.
    KeyError
        If a table lacks a column.
    ValueError
        If the files contradict each other, or do not hold counts.

    Notes
    -----
    The published ATAC matrix has halves, n + 0.5; they are rounded up. The chromosomes of the
    cell lines are named without ``chr``, and stay so.
    """
    files = find_files(folder, find_dataset("sci_car", sample))
    rna_cells = _read_cells(files["rna_cells"], "sample", "cell_name")
    atac_cells = _read_cells(files["atac_cells"], "sample")
    genes = read_table(
        files["genes"], separator=",", columns=["gene_id", "gene_type", "gene_short_name"]
    )
    peaks = read_table(files["peaks"], separator=",", columns=["peak"])
    rna = read_matrix_market(
        files["rna_counts"],
        rna_cells.index,
        name_genes(
            genes["gene_short_name"],
            ids=genes["gene_id"],
            gene_type=genes["gene_type"],
            path=files["genes"],
        ),
        cells_path=files["rna_cells"],
        progress=progress,
    )
    atac = read_matrix_market(
        files["atac_counts"],
        atac_cells.index,
        name_peaks(peaks["peak"], path=files["peaks"]),
        cells_path=files["atac_cells"],
        progress=progress,
        round_halves_up=True,
    )
    return pair(rna, atac, rna_cells, atac_cells)


def _read_cells(path: Path, *columns: str) -> pd.DataFrame:
    table = read_table(path, separator=",", columns=columns)
    return table.set_index("sample").rename(columns=_STANDARD_NAMES)
