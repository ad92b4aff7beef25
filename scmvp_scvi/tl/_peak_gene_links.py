"""Links of peaks to genes: scores, and p-values against matched peaks of other chromosomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy import stats

from scmvp_scvi._validate import (
    check_integer_at_least,
    check_is_among,
    check_names,
    check_numeric_finite,
    check_one_of,
    parse_peaks,
    shown,
    warn_user,
)
from scmvp_scvi.tl._background import (
    FEWEST_MATCHED,
    NullScores,
    compare_with_null,
    count_elsewhere,
    draw_pool,
    empirical_p_values,
    match_peaks,
    matching_features,
    warn_about_little_choice,
)
from scmvp_scvi.tl._positions import check_same_chromosomes, gene_positions, pairs_within
from scmvp_scvi.tl._values import (
    PairedValues,
    check_finite,
    check_pair,
    find_values,
    read_values,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mudata import MuData
    from numpy.typing import NDArray

    from scmvp_scvi._keys import Kind

    Floats = NDArray[np.float64]

_FEWEST_CELLS = 10
_ROUNDING = 1e-9  # of a value, and far below what single precision tells apart


class _Background(NamedTuple):
    """Peaks that null scores are taken from."""

    pool: NDArray[np.int64]  # positions of the peaks
    unit: Floats  # (cells, pool), their values, standardised
    features: Floats  # (all peaks, features), what peaks are matched by
    chrom: NDArray[np.object_]  # (all peaks,)
    n_matched: int


def peak_gene_links(
    mdata: MuData,
    *,
    model: Any = None,
    genes: Sequence[str] | None = None,
    window: int = 250_000,
    method: Literal["pearson", "spearman"] = "pearson",
    alternative: Literal["greater", "less", "two-sided"] = "greater",
    n_matched: int = 100,
    n_background: int = 2_000,
    gc_key: str | None = None,
    groupby: str | None = None,
    normalize: bool = True,
    rna_layer: str | None = None,
    atac_layer: str | None = None,
    chrom_key: str = "chrom",
    tss_key: str | None = None,
    strand_key: str | None = "strand",
    block_size: int = 1_000,
    seed: int = 0,
    rna_key: str = "rna",
    atac_key: str = "atac",
) -> pd.DataFrame:
    r"""Score the peaks around each gene by their correlation with its expression.

    A score is compared with those of `n_matched` peaks that are like the peak in accessibility
    and GC content but on other chromosomes, as in SHARE-seq :cite:p:`Ma2020` and Signac
    :cite:p:`Stuart2021`: what they share with the gene is cell types and depth, and no
    regulation in cis. The p-value asks how often a score stands out this far where there is no
    link.

    Parameters
    ----------
    mdata
        Paired cells in one order, the peaks named ``chrom:start-end`` or with other separators,
        from 0 with the end excluded.
    model
        A trained model, whose denoised values are correlated; None for the matrices of `mdata`.
    genes
        Genes to link; None for all.
    window
        Largest distance from the TSS of a gene to the midpoint of a peak, in base pairs.
    method
        Correlation: Pearson's, or Spearman's of ranks.
    alternative
        Links to look for: positive, negative, or both.
    n_matched
        Peaks that each is compared with, at least 20; 0 for scores without p-values. Of peaks that
        are equally like it, the first are taken: p-values depend on the order of the peaks.
    n_background
        Peaks, drawn at random, that these are chosen from. About half are drawn evenly, and half
        with more weight on the more accessible ones.
    gc_key
        Column of the peaks' ``.var`` with their GC content. Without it, the null matches
        accessibility alone.
    groupby
        Column of ``mdata.obs``, or of the ``.obs`` of a modality, whose groups, such as those of
        `metacells`, take the place of the cells: counts are summed, other values averaged.
    normalize
        Whether the matrices hold raw counts, which are then scaled to the median depth and
        :math:`\log(1 + x)` transformed; otherwise, their values are taken as they are.
    rna_layer, atac_layer
        Layers to correlate; None for ``.X``. Accessibility should be counts of fragments: reads
        are warned about. With `model`, `atac_layer` only gives the accessibility that the null
        matches.
    chrom_key, tss_key, strand_key
        Columns of the genes' ``.var`` with chromosome, TSS (0-based) and strand. By default the
        TSS is the column ``tss``, or else the start, or on the minus strand the end, of ``start``
        to ``end``. With ``strand_key=None``, distances are along the chromosome.
    block_size
        Genes, and peaks, held dense at a time. Memory is that of three such blocks of all cells,
        of the background, and of `n_matched` null scores for each pair of a block. A model embeds
        all cells once per block: larger ones are faster.
    seed
        Of the background.
    rna_key, atac_key
        The two modalities.

    Returns
    -------
    One row a pair, genes in their order in `mdata` and peaks from left to right:

    - ``gene``, ``peak``, ``chrom``; ``start`` and ``end`` of the peak; ``tss`` and ``strand`` of
      the gene, the latter ``"."`` where not used;
    - ``distance`` from the TSS to the midpoint of the peak, in base pairs, positive downstream;
    - ``score``, the correlation, and ``z_score``, in standard deviations above the mean of its
      matched peaks;
    - ``p_value``, empirical, and ``q_value``, by Benjamini and Hochberg over all pairs.

    Pairs of a gene or a peak that does not vary have NaN. ``.attrs["matched_on"]`` says what the
    null matches: nothing where all peaks of other chromosomes are taken, for want of more. `mdata`
    stays as it is, but for what scvi-tools adds where it registers data that are new to `model`.

    Raises
    ------
    TypeError
        If `mdata` is not a MuData, or `model` does not denoise.
    KeyError
        If a modality, layer, column or gene does not exist.
    ValueError
        If genes and peaks are nowhere within the window, on chromosomes of different spelling,
        or without positions; if there are fewer than ten cells; if there are too few peaks on
        other chromosomes; if `atac_layer` has no accessibility for the null to match; or if a
        layer that is taken as it is has NaN or infinite values.

    Warns
    -----
    UserWarning
        If so few peaks are on other chromosomes that matched ones are hardly like the peak, or
        if one of `genes` has no peak within the window, or genes have no position where all are
        asked for.

    Notes
    -----
    An empirical p-value of one pair alone cannot fall below :math:`1 / (n + 1)` with :math:`n`
    matched peaks, too much for the number of pairs. All pairs therefore share one null: null
    scores, 25 of each pair that has a score, are standardised by the others of the same pair, as
    the score is by all of them, and the p-value is the rank of the standardised score among
    these. It is calibrated over all pairs; a gene with unusual tails can be better or worse than
    that.

    Cells (groups) without a count in one of the modalities are left out, unless `model` or
    ``normalize=False``.

    Examples
    --------
    >>> from scmvp_scvi import datasets, tl
    >>> mdata = datasets.synthetic(n_cells=300)
    >>> links = tl.peak_gene_links(mdata, window=100_000, gc_key="gc")
    >>> found = links[links["q_value"] < 0.05]
    """
    check_one_of(method, ("pearson", "spearman"), name="method")
    check_one_of(alternative, ("greater", "less", "two-sided"), name="alternative")
    numbers = {
        "window": (window, 0),
        "n_matched": (n_matched, FEWEST_MATCHED if n_matched else 0),
        "n_background": (n_background, 1),
        "block_size": (block_size, 1),
        "seed": (seed, 0),
    }
    for name, (number, minimum) in numbers.items():
        check_integer_at_least(number, minimum, name=name)
    check_pair(mdata, rna_key, atac_key)
    peak_table = parse_peaks(mdata[atac_key].var_names, atac_key)
    gene_table = _locate_genes(mdata, genes, rna_key, chrom_key, tss_key, strand_key)
    check_same_chromosomes(gene_table, peak_table, modality=rna_key, chrom_key=chrom_key)
    pairs = _find_pairs(gene_table, peak_table, window, are_named=genes is not None)
    # positions in `mdata`, which the values are read by
    positions = mdata[rna_key].var_names.get_indexer(gene_table.index)
    pairs["gene"] = positions[pairs["gene"]]

    values = read_values(
        mdata,
        model=model,
        rna_layer=rna_layer,
        atac_layer=atac_layer,
        normalize=normalize,
        groupby=groupby,
        rna_key=rna_key,
        atac_key=atac_key,
    )
    if len(values.rows) < _FEWEST_CELLS:
        rows = "cells" if groupby is None else "groups of cells"
        raise ValueError(
            f"Correlations need at least {_FEWEST_CELLS} {rows} with both modalities, got "
            f"{len(values.rows)}."
        )
    background, matched_on = None, []
    if n_matched > 0:
        accessibility = _mean_accessibility(mdata, atac_key, atac_layer)
        gc = None if gc_key is None else _gc_content(mdata, atac_key, gc_key)
        pool = draw_pool(accessibility, n_background, np.random.default_rng(seed))
        unit = _standardized(values, "atac", pool, method, block_size)
        varies = np.isfinite(unit).all(axis=0)
        background = _Background(
            pool[varies],
            unit[:, varies],
            matching_features(accessibility, gc),
            peak_table["chrom"].to_numpy(),
            n_matched,
        )
        n_elsewhere = count_elsewhere(background.chrom, background.pool, pairs["peak"].to_numpy())
        warn_about_little_choice(n_elsewhere, n_matched)
        if min(n_elsewhere.values()) > n_matched:  # else all are matched, like it or not
            matched_on = ["accessibility"] if gc is None else ["accessibility", "gc"]

    scored, null_z_scores = [], []
    for block in _gene_blocks(pairs, peak_table["chrom"].to_numpy(), block_size):
        scores, null = _score_block(block, values, background, method, block_size)
        scored.append(block.assign(score=scores, z_score=null.z_score))
        null_z_scores.append(null.null_z_score)
    # the peaks of a gene are in order already
    links = pd.concat(scored).sort_values("gene", kind="stable", ignore_index=True)
    table = _as_table(links, gene_table, peak_table, mdata[rna_key].var_names)
    table["p_value"] = empirical_p_values(
        table["z_score"].to_numpy(), np.concatenate(null_z_scores), alternative
    )
    table["q_value"] = _adjusted(table["p_value"].to_numpy())
    table.attrs["matched_on"] = matched_on
    return table


def _locate_genes(
    mdata: MuData,
    requested: Sequence[str] | None,
    rna_key: str,
    chrom_key: str,
    tss_key: str | None,
    strand_key: str | None,
) -> pd.DataFrame:
    """Positions of the genes to link; those without are left out, unless asked for by name."""
    var = mdata[rna_key].var
    if requested is not None:
        var = var.iloc[np.sort(check_names(requested, var.index, argument="genes"))]
    genes = gene_positions(
        var, modality=rna_key, chrom_key=chrom_key, tss_key=tss_key, strand_key=strand_key
    )
    lost = var.index.difference(genes.index, sort=False)
    if len(lost) > 0 and (requested is not None or len(genes) == 0):
        raise ValueError(
            f'`genes` must have positions in `mdata["{rna_key}"].var`, but {len(lost)} have none: '
            f"{shown(lost)}. Fill their columns, or leave these genes out."
        )
    if len(lost) > 0:
        warn_user(
            f'{len(lost)} of {len(var)} genes have no position in `mdata["{rna_key}"].var` and '
            f"are left out: {shown(lost)}.",
        )
    return genes


def _find_pairs(
    genes: pd.DataFrame, peaks: pd.DataFrame, window: int, *, are_named: bool
) -> pd.DataFrame:
    """Pair genes with the peaks near them; warn of genes asked for by name that have none."""
    pairs = pairs_within(genes, peaks, window)
    if len(pairs) == 0:
        raise ValueError(
            f"`window={window}` holds no peak around any of the {len(genes)} genes. Widen "
            "it, or check that genes and peaks are of one genome."
        )
    lost = genes.index.delete(pairs["gene"].unique())
    if are_named and len(lost) > 0:
        warn_user(
            f"`window={window}` holds no peak around {len(lost)} of the {len(genes)} "
            f"`genes`, which are left out: {shown(lost)}. Widen it to have them.",
        )
    return pairs


def _mean_accessibility(mdata: MuData, atac_key: str, atac_layer: str | None) -> Floats:
    matrix = find_values(mdata, atac_key, atac_layer, argument="atac_layer")
    # a sum of counts is exact in any form of a matrix, so that ties stay ties; a mean is not
    with np.errstate(invalid="ignore"):  # infinities of both signs
        total = np.asarray(matrix.sum(axis=0, dtype=np.float64)).ravel()
    lost = ~(np.isfinite(total) & (total >= 0))
    not_finite = np.flatnonzero(~np.isfinite(total))
    if not_finite.size > 0:
        values = (matrix.tocsc() if sp.issparse(matrix) else matrix)[:, not_finite]
        check_finite(mdata, atac_key, atac_layer, values, not_finite, argument="atac_layer")
    if lost.any():
        raise ValueError(
            "`atac_layer`: the null matches peaks by their mean accessibility, which must be "
            f"finite and not negative, but {lost.sum()} of {lost.size} peaks of `{atac_key}` have "
            f"another: {shown(mdata[atac_key].var_names[lost])}. Name a layer that is not "
            "centred, or pass `n_matched=0` to have scores without p-values."
        )
    mean: Floats = total / matrix.shape[0]
    return mean


def _gc_content(mdata: MuData, atac_key: str, gc_key: str) -> Floats:
    var = mdata[atac_key].var
    check_is_among(
        gc_key,
        var.columns,
        argument="gc_key",
        what=f'a column of `mdata["{atac_key}"].var`',
        way_out="Leave `gc_key` out to match accessibility alone.",
    )
    check_numeric_finite(
        var[gc_key],
        argument="gc_key",
        table=f'mdata["{atac_key}"].var',
        rows="peaks",
        otherwise="leave `gc_key` out to match accessibility alone",
    )
    return var[gc_key].to_numpy(dtype=np.float64)


def _standardized(
    values: PairedValues,
    modality: Kind,
    columns: NDArray[np.int64],
    method: str,
    block_size: int,
) -> Floats:
    """``(rows, columns)``, of mean zero and length one, so that products are correlations.

    NaN where a column does not vary.
    """
    read = values.of(modality)
    unit = np.empty((len(values.rows), columns.size))
    for start in range(0, columns.size, block_size):
        block = read(columns[start : start + block_size])
        # means of equal values differ by rounding
        varies = np.ptp(block, axis=0) > _ROUNDING * np.abs(block).max(axis=0)
        if method == "spearman":
            block = stats.rankdata(block, axis=0)
        block = block - block.mean(axis=0)
        length = np.sqrt(np.einsum("ij,ij->j", block, block))
        unit[:, start : start + block_size] = block / np.where(varies, length, np.nan)
    return unit


def _gene_blocks(
    pairs: pd.DataFrame, chrom: NDArray[np.object_], block_size: int
) -> Iterator[pd.DataFrame]:
    """Cut the pairs into blocks of genes that are neighbours on one chromosome."""
    for _, of_chrom in pairs.groupby(chrom[pairs["peak"]], sort=False):
        rank = pd.factorize(of_chrom["gene"])[0]
        for _, block in of_chrom.groupby(rank // block_size):
            yield block


def _score_block(
    pairs: pd.DataFrame,
    values: PairedValues,
    background: _Background | None,
    method: str,
    block_size: int,
) -> tuple[Floats, NullScores]:
    """Scores of the pairs of some genes of one chromosome, compared with the null if there is."""
    gene_column, genes = pd.factorize(pairs["gene"])
    peak_column, peaks = pd.factorize(pairs["peak"])
    unit_genes = _standardized(values, "rna", genes.to_numpy(), method, block_size)
    scores = np.empty(len(pairs))
    for start in range(0, peaks.size, block_size):
        block = peaks[start : start + block_size].to_numpy()
        unit_peaks = _standardized(values, "atac", block, method, block_size)
        correlation = unit_genes.T @ unit_peaks
        here = (peak_column >= start) & (peak_column < start + block_size)
        scores[here] = correlation[gene_column[here], peak_column[here] - start]
    if background is None:
        return scores, NullScores(np.full(len(pairs), np.nan), np.empty(0))
    matched = match_peaks(
        background.features,
        background.chrom,
        background.pool,
        peaks.to_numpy(),
        background.n_matched,
    )
    null = (unit_genes.T @ background.unit)[gene_column[:, None], matched[peak_column]]
    return scores, compare_with_null(scores, null)


def _adjusted(p_value: Floats) -> Floats:
    """Benjamini and Hochberg's q-values of those that are not NaN."""
    tested = np.isfinite(p_value)
    q_value = np.full(p_value.size, np.nan)
    if tested.any():
        q_value[tested] = stats.false_discovery_control(p_value[tested])
    return q_value


def _as_table(
    links: pd.DataFrame, genes: pd.DataFrame, peaks: pd.DataFrame, gene_names: pd.Index
) -> pd.DataFrame:
    of_gene = genes.loc[gene_names[links["gene"]]].reset_index(names="gene")
    of_peak = peaks.iloc[links["peak"]].reset_index(names="peak")
    columns = [of_gene["gene"], of_peak, of_gene[["tss", "strand"]]]
    return pd.concat([*columns, links[["distance", "score", "z_score"]]], axis=1)
