"""SHARE-seq, GSE140203: a dense table of RNA, MatrixMarket counts of ATAC, barcodes of four."""

from pathlib import Path

import pandas as pd
from mudata import MuData

from scmvp_scvi.datasets._features import name_genes, name_peaks
from scmvp_scvi.datasets._files import find_files
from scmvp_scvi.datasets._matrix_market import read_matrix_market
from scmvp_scvi.datasets._pairing import check_each_once, pair
from scmvp_scvi.datasets._registry import find_dataset
from scmvp_scvi.datasets._tables import read_dense_counts, read_list, read_table


def read_share_seq(folder: str | Path, sample: str = "skin", *, progress: bool = True) -> MuData:
    """Read SHARE-seq counts as published in GSE140203.

    Parameters
    ----------
    folder
        Holds the files of the sample, compressed or not: the RNA counts, the ATAC counts with
        their barcodes and peaks, and the cell types, which may be left out;
        ``download("share_seq_skin", folder)`` fetches them.
    sample
        ``"skin"`` or ``"brain"``.
    progress
        Whether to show a progress bar.

    Returns
    -------
    Modalities ``"rna"`` and ``"atac"`` of the cells that have both, in the same order, whose ``X``
    are raw counts, CSR of float32, with

    - ``.obs``, named by the barcode of the RNA, ``R1.01.R2.01.R3.06.P1.55``: ``cell_type``, if
      the file is there; ``batch``, the last field of the barcode, ``P1.55``.
    - ``["rna"].var``, named by the symbol, numbered where genes share one: ``gene_name``.
    - ``["atac"].var``, named ``chrom:start-end``: ``chrom``, ``start``, ``end``, 0-based.

    Raises
    ------
    OSError
        If the folder or a file is missing.
    KeyError
        If the table of cell types lacks a column.
    ValueError
        If the files contradict each other, or do not hold counts.

    Notes
    -----
    The fields of a barcode are separated by commas in some of the files and by dots in others,
    and RNA and ATAC of one cell may differ in the last. The table of cell types has both barcodes.
    """
    files = find_files(folder, find_dataset("share_seq", sample))
    rna = read_dense_counts(files["rna_counts"], name_genes, progress=progress)
    rna = rna._replace(cells=_with_dots(rna.cells))
    atac = read_matrix_market(
        files["atac_counts"],
        _with_dots(pd.Index(read_list(files["atac_cells"])[0])),
        name_peaks(_read_bed(files["peaks"]), path=files["peaks"]),
        cells_path=files["atac_cells"],
        progress=progress,
    )
    batch = rna.cells.str.split(".").str[-2:].str.join(".")
    obs = pd.DataFrame({"batch": batch}, index=rna.cells)
    if "cell_types" in files:
        types = read_table(
            files["cell_types"], separator="\t", columns=["atac.bc", "rna.bc", "celltype"]
        )
        rna_names, atac_names = (_with_dots(pd.Index(types[c])) for c in ("rna.bc", "atac.bc"))
        for names in (rna_names, atac_names):
            check_each_once(names, files["cell_types"])
        obs = obs.join(types["celltype"].set_axis(rna_names).rename("cell_type"))
        atac = atac._replace(cells=_rna_barcodes(atac.cells, atac_names, rna_names))
    return pair(rna, atac, obs)


def _with_dots(barcodes: pd.Index) -> pd.Index:
    return barcodes.str.replace(",", ".")


def _read_bed(path: Path) -> pd.Series:
    bed = read_list(path)
    if bed.shape[1] < 3:
        raise ValueError(
            f"`{path}` must have the columns chromosome, start and end, separated by tabs, but it "
            f"has {bed.shape[1]}. Check that it is the published file."
        )
    return bed[0] + ":" + bed[1] + "-" + bed[2]


def _rna_barcodes(cells: pd.Index, atac_names: pd.Index, rna_names: pd.Index) -> pd.Index:
    """Translate the barcodes of the ATAC into those of the RNA, unless they are these already."""
    if cells.isin(rna_names).sum() >= cells.isin(atac_names).sum():
        return cells
    rna_of_atac = dict(zip(atac_names, rna_names, strict=True))
    # A cell outside the table keeps a name that no RNA has.
    return pd.Index([rna_of_atac.get(cell, cell) for cell in cells])
