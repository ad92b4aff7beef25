"""Where genes and peaks are, and which of them are near one another."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scmvp_scvi._validate import (
    check_is_among,
    midpoints,
    prefix_change,
    shown,
    spelled_otherwise,
)

_DIRECTION = {"+": 1, "-": -1, "1": 1, "-1": -1}


def gene_positions(
    var: pd.DataFrame,
    *,
    modality: str,
    chrom_key: str,
    tss_key: str | None,
    strand_key: str | None,
) -> pd.DataFrame:
    """Read the transcription start site of each gene.

    Parameters
    ----------
    var, modality
        ``.var`` of the genes, and the key of their modality.
    chrom_key, tss_key, strand_key
        Columns of `var`. Without `tss_key`, the site is the column ``tss`` or, where there is
        none, the end of ``start`` to ``end`` that the strand begins at. Without `strand_key`, no
        gene has a strand.

    Returns
    -------
    ``chrom``; ``tss``, 0-based; ``strand``, ``"+"``, ``"-"`` or ``"."``; indexed by gene. Genes
    without chromosome, site or strand are left out.

    Raises
    ------
    KeyError
        If a column does not exist.
    ValueError
        If a strand is neither ``+`` nor ``-``, a site, start or end is no finite number, or a gene
        does not end after its start.
    """
    chrom = _column(var, chrom_key, "chrom_key", modality)
    direction, has_site = pd.Series(0, var.index), tss_key is not None or "tss" in var
    if strand_key is not None:
        strand = _column(var, strand_key, "strand_key", modality, needs_strand=not has_site)
        direction = _direction(strand, modality, needs_strand=not has_site)
    if has_site:
        tss = _numbers(_column(var, tss_key or "tss", "tss_key", modality), modality)
    elif {"start", "end"} <= set(var) and strand_key is not None:
        start, end = (_numbers(var[name], modality) for name in ("start", "end"))
        _check_ends(start, end, modality)
        # BED counts: the last base of a gene is the one before its end
        tss = start.where(direction > 0, end - 1)
    else:
        raise KeyError(
            f'`tss_key`: `mdata["{modality}"].var` must say where genes start, but has no column '
            f"`tss`, nor `start`, `end` and a strand: it has {shown(var.columns)}. Add a column, "
            f'`mdata["{modality}"].var["tss"] = annotation["tss"]` of a table indexed by gene, or '
            "pass the name of one as `tss_key`."
        )
    if pd.api.types.is_float_dtype(chrom):  # numbers, of which one was missing
        chrom = chrom.astype("Int64")
    genes = pd.DataFrame({"chrom": chrom.astype(object), "tss": tss, "direction": direction})
    genes = genes.replace({"chrom": {"": None}}).dropna()
    genes["strand"] = genes.pop("direction").map({1: "+", -1: "-", 0: "."})
    return genes.astype({"chrom": str, "tss": np.int64})


def _column(
    var: pd.DataFrame, key: str, argument: str, modality: str, *, needs_strand: bool = False
) -> pd.Series:
    if argument == "strand_key" and not needs_strand:
        way_out = (
            "Pass `strand_key=None` to measure distances along the chromosome, whatever the "
            "strand of the gene."
        )
    elif argument == "chrom_key" and "interval" in var:  # as muon reads the files of 10x
        way_out = (
            "`datasets.read_10x_multiome` reads it from `interval`, and the sites; or add both "
            "from the annotation that the genes were counted on."
        )
    else:
        way_out = "Add it from the annotation that the genes were counted on."
    what = f'a column of `mdata["{modality}"].var`'
    check_is_among(key, var.columns, argument=argument, what=what, way_out=way_out)
    return var[key]


def _numbers(column: pd.Series, modality: str) -> pd.Series:
    """``(genes,)``, positions as numbers, also where the column holds them as text."""
    numbers = pd.to_numeric(column.astype(object), errors="coerce")
    lost = column.notna() & ~(np.isfinite(numbers) & (numbers >= 0))
    if lost.any():
        raise ValueError(
            f'`mdata["{modality}"].var["{column.name}"]` must hold positions, but {lost.sum()} '
            f"genes have {shown(column[lost].unique())}: {shown(column.index[lost])}. Correct "
            "them, or set them missing to leave these genes out."
        )
    return numbers


def _check_ends(start: pd.Series, end: pd.Series, modality: str) -> None:
    lost = end <= start
    if lost.any():
        raise ValueError(
            f'The genes in `mdata["{modality}"].var` must end after their start, but {lost.sum()} '
            f"of {len(lost)} do not: {shown(lost.index[lost])}. Correct them, or set them missing "
            "to leave these genes out; where the table goes by the strand, swap both: "
            f'`var = mdata["{modality}"].var; swapped = var["start"] > var["end"]; '
            'var.loc[swapped, ["start", "end"]] = var.loc[swapped, ["end", "start"]].to_numpy()`.'
        )


def _direction(strand: pd.Series, modality: str, *, needs_strand: bool) -> pd.Series:
    """``(genes,)``, 1 or -1; missing where the strand is."""
    known = strand.dropna().astype(str)
    direction = known.str.removesuffix(".0").map(_DIRECTION)
    unreadable = direction.isna()
    if unreadable.any():
        column, others = f'mdata["{modality}"].var["{strand.name}"]', known[unreadable].unique()
        way_out = "pass `strand_key=None` to measure distances along the chromosome"
        if needs_strand:  # to tell which end of a gene is its start
            is_other = f"strand.astype(str).isin({list(others)})"
            way_out = (
                f"leave these genes out: `strand = {column}; {column} = strand.mask({is_other})`"
            )
        raise ValueError(
            f"`strand_key`: `{column}` must be `+` or `-`, but {unreadable.sum()} genes have "
            f"{shown(others)}: {shown(known.index[unreadable])}. Correct them, or {way_out}."
        )
    return direction.astype(float).reindex(strand.index)


def check_same_chromosomes(
    genes: pd.DataFrame, peaks: pd.DataFrame, *, modality: str, chrom_key: str
) -> None:
    """Refuse genes and peaks that spell a chromosome differently: its links would be missed.

    Chromosomes on one side alone are usual, such as unplaced contigs.

    Parameters
    ----------
    genes, peaks
        Tables with a column ``chrom``, in which the peaks spell each chromosome in one way.
    modality, chrom_key
        Modality of the genes, and the column of its ``.var`` with their chromosomes.

    Raises
    ------
    ValueError
        If a chromosome has two spellings, or none is in both.
    """
    of_genes, of_peaks = pd.unique(genes["chrom"]), pd.unique(peaks["chrom"])
    is_shared = np.isin(of_genes, of_peaks)
    mapping = spelled_otherwise(of_genes, of_peaks)
    if not mapping and is_shared.any():
        return
    way_out = "Check that both are of one genome."
    if mapping:
        name, wanted = next(iter(mapping.items()))
        column = f'mdata["{modality}"].var["{chrom_key}"]'
        renamed = f"column.replace({mapping})"
        if len(mapping) == len(of_genes):  # none is right already
            renamed = {
                "added": '"chr" + column',
                "removed": 'column.str.removeprefix("chr")',
                None: renamed,
            }[prefix_change(mapping)]
        way_out = (
            f"They are spelled differently, `{name}` for `{wanted}`: `column = "
            f"{column}.astype(str); {column} = {renamed}`."
        )
    in_both = "some have two names" if is_shared.any() else "none is in both"
    raise ValueError(
        f"Genes and peaks must be on the same chromosomes, but {in_both}: the genes have "
        f"{shown(of_genes)}, the peaks {shown(of_peaks)}. {way_out}"
    )


def pairs_within(genes: pd.DataFrame, peaks: pd.DataFrame, window: int) -> pd.DataFrame:
    """Pair each gene with the peaks whose midpoint is at most `window` from its TSS.

    Parameters
    ----------
    genes
        ``chrom``, ``tss`` and ``strand``.
    peaks
        ``chrom``, ``start`` and ``end``.
    window
        In base pairs.

    Returns
    -------
    ``gene`` and ``peak``, positions in the two tables, and ``distance``, from the TSS to the
    midpoint in base pairs, positive downstream; along the chromosome for genes without strand.
    Chromosome by chromosome, from left to right.
    """
    middle, tss = midpoints(peaks), genes["tss"].to_numpy()
    peaks_of = peaks.groupby("chrom", sort=False).indices
    gene_idx, peak_idx = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for chrom, rows in genes.groupby("chrom", sort=False).indices.items():
        near = peaks_of.get(chrom, np.empty(0, np.int64))
        near = near[np.argsort(middle[near], kind="stable")]
        rows = rows[np.argsort(tss[rows], kind="stable")]
        first = np.searchsorted(middle[near], tss[rows] - window, side="left")
        n_near = np.searchsorted(middle[near], tss[rows] + window, side="right") - first
        within = np.arange(n_near.sum()) - np.repeat(np.cumsum(n_near) - n_near, n_near)
        gene_idx.append(np.repeat(rows, n_near))
        peak_idx.append(near[np.repeat(first, n_near) + within])
    gene, peak = np.concatenate(gene_idx), np.concatenate(peak_idx)
    downstream = np.where(genes["strand"].to_numpy()[gene] == "-", -1, 1)
    distance = (middle[peak] - tss[gene]) * downstream
    return pd.DataFrame({"gene": gene, "peak": peak, "distance": distance})
