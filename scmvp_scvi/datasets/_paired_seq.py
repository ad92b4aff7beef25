"""Paired-seq, GSE130399: a folder in the style of 10x for each of RNA and DNA."""

from pathlib import Path

import pandas as pd
from mudata import MuData

from scmvp_scvi.datasets._features import name_genes, name_peaks
from scmvp_scvi.datasets._files import find_files
from scmvp_scvi.datasets._matrix_market import read_matrix_market
from scmvp_scvi.datasets._pairing import check_each_once, pair
from scmvp_scvi.datasets._registry import find_dataset
from scmvp_scvi.datasets._tables import read_list

_CELL_COLUMNS, _CLUSTER_COLUMN = ("id", "cell_id"), "cluster"  # by their names, if they have them


def read_paired_seq(
    folder: str | Path, sample: str = "cell_mix", *, progress: bool = True
) -> MuData:
    """Read Paired-seq counts as published in GSE130399.

    Parameters
    ----------
    folder
        Holds the two folders of the sample, for instance ``Cell_Mix_RNA`` and ``Cell_Mix_DNA``,
        each with ``matrix.mtx``, ``barcodes.tsv`` and ``genes.tsv``, compressed or not;
        ``download("paired_seq_cell_mix", folder)`` fetches them. ``genes.tsv`` of the DNA names
        the peaks. The clusters of ``Cell_embeddings.xls`` are read if it is there.
    sample
        ``"cell_mix"``, ``"adult_cortex"`` or ``"fetal_forebrain"``.
    progress
        Whether to show a progress bar.

    Returns
    -------
    Modalities ``"rna"`` and ``"atac"`` of the cells that have both, in the same order, whose ``X``
    are raw counts, CSR of float32, with

    - ``.obs``: ``cell_type``, the published cluster, if the file is there.
    - ``["rna"].var``, named by the symbol, or by ``symbol_id`` where genes share one:
      ``gene_id``, ``gene_name``, and ``genome``, human or mouse.
    - ``["atac"].var``, named ``chrom:start-end``: ``chrom``, ``start``, ``end``.

    Raises
    ------
    OSError
        If the folder or a file is missing.
    ValueError
        If the files contradict each other, or do not hold counts.
    """
    files = find_files(folder, find_dataset("paired_seq", sample))
    genes, peaks = read_list(files["genes"]), read_list(files["peaks"])
    rna = read_matrix_market(
        files["rna_counts"],
        pd.Index(read_list(files["rna_cells"])[0]),
        # The symbol is the second column, and the only one where there are no ids.
        name_genes(
            genes[min(1, genes.shape[1] - 1)],
            ids=genes[0] if genes.shape[1] > 1 else None,
            path=files["genes"],
        ),
        cells_path=files["rna_cells"],
        progress=progress,
    )
    atac = read_matrix_market(
        files["atac_counts"],
        pd.Index(read_list(files["atac_cells"])[0]),
        name_peaks(peaks[0], path=files["peaks"]),
        cells_path=files["atac_cells"],
        progress=progress,
    )
    clusters = _read_clusters(files["clusters"], rna.cells) if "clusters" in files else None
    return pair(rna, atac, clusters)


def _read_clusters(path: Path, cells: pd.Index) -> pd.DataFrame:
    # The suffix is Excel's, the content a table separated by tabs: cell, cluster, coordinates. In
    # the samples they do not stand in one order.
    table = read_list(path)
    if table.shape[1] < 2:
        raise ValueError(
            f"`{path}` must have the columns cell and cluster, separated by tabs, but it has one. "
            "Move it elsewhere to read the counts without clusters."
        )
    named = {name.casefold(): i for i, name in table.iloc[0].items() if isinstance(name, str)}
    cell = next((named[name] for name in _CELL_COLUMNS if name in named), 0)
    cluster = named.get(_CLUSTER_COLUMN, 1)
    if table.loc[0, cell] not in cells:  # but the name of the column
        table = table.iloc[1:]
    clusters = table.set_index(cell)[[cluster]].set_axis(["cell_type"], axis="columns")
    check_each_once(clusters.index, path)
    return clusters
