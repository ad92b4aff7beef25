"""SNARE-seq, GSE126074: MatrixMarket counts with lists of names, or one dense table for each."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from mudata import MuData

from scmvp_scvi.datasets._counts import Modality
from scmvp_scvi.datasets._features import name_genes, name_peaks
from scmvp_scvi.datasets._files import find_files
from scmvp_scvi.datasets._matrix_market import read_matrix_market
from scmvp_scvi.datasets._pairing import pair
from scmvp_scvi.datasets._registry import find_dataset
from scmvp_scvi.datasets._tables import read_dense_counts, read_list

# The library stands before the barcode: `09A_CAGCCCCGCCTT`.
_LIBRARY = r"^([^_]+)_"


def read_snare_seq(
    folder: str | Path, sample: str = "adult_cortex", *, progress: bool = True
) -> MuData:
    """Read SNARE-seq counts as published in GSE126074.

    Parameters
    ----------
    folder
        Holds the files of the sample, compressed or not: six of the cortex, two dense tables of
        the cell lines; ``download("snare_seq_adult_cortex", folder)`` fetches them.
    sample
        ``"adult_cortex"``, ``"p0_cortex"`` or ``"cell_mix"``.
    progress
        Whether to show a progress bar.

    Returns
    -------
    Modalities ``"rna"`` and ``"atac"`` of the cells that have both, in the same order, whose ``X``
    are raw counts, CSR of float32, with

    - ``.obs``: ``batch``, the library that the names of the cells begin with, if they do. The
      accession has no cell types.
    - ``["rna"].var``, named by the symbol, numbered where genes share one: ``gene_name``.
    - ``["atac"].var``, named ``chrom:start-end``: ``chrom``, ``start``, ``end``.

    Raises
    ------
    OSError
        If the folder or a file is missing.
    ValueError
        If the files contradict each other, or do not hold counts.
    """
    files = find_files(folder, find_dataset("snare_seq", sample))
    read = _read_lists if "rna_cells" in files else _read_dense
    rna, atac = read(files, progress=progress)
    library = rna.cells.to_series().str.extract(_LIBRARY, expand=False)
    obs = None if library.isna().any() else pd.DataFrame({"batch": library})
    return pair(rna, atac, obs)


def _read_lists(files: Mapping[str, Path], *, progress: bool) -> tuple[Modality, Modality]:
    rna = read_matrix_market(
        files["rna_counts"],
        pd.Index(read_list(files["rna_cells"])[0]),
        name_genes(read_list(files["genes"])[0], path=files["genes"]),
        cells_path=files["rna_cells"],
        progress=progress,
    )
    atac = read_matrix_market(
        files["atac_counts"],
        pd.Index(read_list(files["atac_cells"])[0]),
        name_peaks(read_list(files["peaks"])[0], path=files["peaks"]),
        cells_path=files["atac_cells"],
        progress=progress,
    )
    return rna, atac


def _read_dense(files: Mapping[str, Path], *, progress: bool) -> tuple[Modality, Modality]:
    rna = read_dense_counts(files["rna_counts"], name_genes, progress=progress)
    atac = read_dense_counts(files["atac_counts"], name_peaks, progress=progress)
    return rna, atac
