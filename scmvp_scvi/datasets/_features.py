"""Genes and peaks, named so that each name is unique and says what it is."""

import warnings
from pathlib import Path

import pandas as pd
from anndata.utils import make_index_unique

from scmvp_scvi._validate import PEAK_NAME, read_peaks, shown

# What stands before the chromosome where several genomes share a file: `hg19_chr1`, `mm10-chr1`.
_GENOME_OF_CHROMOSOME = r"^(.+?)[_-]+chr"
_GENOME_OF_GENE_ID = {"ENSG": "human", "ENSMUSG": "mouse"}
# Features are taken for the other modality's above this share: a gene may be named like a peak.
_MAX_SHARE_OF_OTHERS = 0.5


def name_genes(
    symbols: pd.Series, *, path: Path, ids: pd.Series | None = None, **columns: pd.Series
) -> pd.DataFrame:
    """Give each gene a unique name.

    The name is the symbol. Where several genes share a symbol, each is named ``symbol_id``; where
    there are no ids, all but the first are numbered, ``symbol-1``. A gene without symbol has its
    id for a name.

    Parameters
    ----------
    symbols
        ``(genes,)``, as published.
    path
        The file, for the messages.
    ids
        ``(genes,)``, such as Ensembl's, if there are.
    **columns
        ``(genes,)`` each, further columns to keep.

    Returns
    -------
    Indexed by the unique name: ``gene_name``, as published; ``gene_id`` and ``genome``, human or
    mouse as Ensembl's ids tell, if there are ids; the further columns.

    Raises
    ------
    ValueError
        If these are peaks.
    """
    is_peak = symbols.str.fullmatch(PEAK_NAME)
    if is_peak.mean() > _MAX_SHARE_OF_OTHERS:
        raise ValueError(
            f"`{path}` must name genes, but {is_peak.sum()} of its {len(symbols)} names are "
            f"peaks: {shown(symbols[is_peak])}. Are the files of RNA and ATAC swapped?"
        )
    names, table = symbols, {"gene_name": symbols, **columns}
    if ids is not None:
        names = symbols.where(symbols != "", ids)
        names = names.where(~names.duplicated(keep=False), names + "_" + ids)
        genome = ids.str.extract(r"(ENS(?:MUS)?G)\d", expand=False).map(_GENOME_OF_GENE_ID)
        table = {"gene_id": ids, "genome": genome.fillna("unknown"), **table}
    with warnings.catch_warnings():
        # anndata numbers `A` as `A-1` and warns where a gene has that name already
        warnings.filterwarnings("ignore", message="Suffix used")
        index = make_index_unique(pd.Index(names.to_numpy()))
    return pd.DataFrame({name: column.to_numpy() for name, column in table.items()}, index=index)


def name_peaks(names: pd.Series, *, path: Path) -> pd.DataFrame:
    """Read the place of each peak from its name, and name all of them the same way.

    Parameters
    ----------
    names
        ``(peaks,)``, spelled ``chr:start-end`` or with other separators, ``-``, ``_`` or ``:``.
    path
        The file, for the messages.

    Returns
    -------
    Indexed by ``chrom:start-end``: ``chrom``, ``start`` and ``end`` as published; ``genome``,
    what stands before ``chr``, if several genomes share the file.

    Raises
    ------
    ValueError
        If a name is not that of a peak, a peak does not end after its start, or is there twice.
    """
    peaks, is_other, is_reversed = read_peaks(names)
    if is_other.any():
        swapped = is_other.mean() > _MAX_SHARE_OF_OTHERS
        raise ValueError(
            f"`{path}` must name peaks, `chr1:100-200`, `chr1-100-200` or `chr1_100_200`, but "
            f"{is_other.sum()} of its {len(names)} names are not: {shown(names[is_other])}. "
            + (
                "Are the files of RNA and ATAC swapped?"
                if swapped
                else "Remove these lines, and those of the matrix with them."
            )
        )
    if is_reversed.any():
        raise ValueError(
            f"`{path}` must name peaks that end after their start, but {is_reversed.sum()} of its "
            f"{len(names)} do not: {shown(names[is_reversed])}. Remove these lines, and those of "
            "the matrix with them."
        )
    peaks = peaks.astype({"start": "int64", "end": "int64"})
    peaks.index = pd.Index(
        peaks["chrom"] + ":" + peaks["start"].astype(str) + "-" + peaks["end"].astype(str)
    )
    is_again = peaks.index.duplicated()
    if is_again.any():
        raise ValueError(
            f"`{path}` must name each peak once, but {is_again.sum()} are there again: "
            f"{shown(peaks.index[is_again])}. Is it the peak table of one sample? If so, remove "
            "these lines, and those of the matrix with them."
        )
    genome = peaks["chrom"].str.extract(_GENOME_OF_CHROMOSOME, expand=False)
    return peaks if genome.isna().all() else peaks.assign(genome=genome.fillna("unknown"))
