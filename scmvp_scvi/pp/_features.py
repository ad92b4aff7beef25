"""Choice of the genes and peaks that a model is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
import scanpy as sc

from scmvp_scvi._validate import (
    check_in,
    check_integer_at_least,
    check_one_of,
    check_paired,
    find_grouping,
)
from scmvp_scvi.pp._cells import measured_by
from scmvp_scvi.pp._input import (
    check_modalities_of_pair,
    check_not_empty,
    read_atac_counts,
    read_counts,
)
from scmvp_scvi.pp._output import Removal, account_for, take
from scmvp_scvi.pp._variance import rank_by_variance

if TYPE_CHECKING:
    import scipy.sparse as sp
    from mudata import MuData
    from numpy.typing import NDArray

PeakRanking = Literal["cells", "variance"]

_MASK = "highly_variable"
# what scanpy writes beside it, whatever its flavor
_SCANPY_COLUMNS = (
    "highly_variable_rank",
    "highly_variable_nbatches",
    "highly_variable_intersection",
    "means",
    "variances",
    "variances_norm",
    "dispersions",
    "dispersions_norm",
    "residual_variances",
)
_SCANPY_NOTE = "hvg"  # in `.uns`


def select_features(
    mdata: MuData,
    *,
    n_genes: int | None = None,
    n_peaks: int | None = None,
    peaks_by: PeakRanking = "cells",
    batch_key: str | None = None,
    span: float = 0.3,
    subset: bool = False,
    rna_layer: str | None = None,
    atac_layer: str | None = None,
    rna_key: str = "rna",
    atac_key: str = "atac",
) -> MuData:
    """Choose the most variable genes, and the peaks that are open in most cells or vary most.

    Variance is that of :func:`scanpy.pp.highly_variable_genes` with ``flavor="seurat_v3"``, on
    counts; the cells with a count are those of :func:`scanpy.pp.filter_genes`.

    Parameters
    ----------
    mdata
        The data: the same cells in one order. Variance is that of the cells that a modality
        measured, if `union_cells` added others.
    n_genes, n_peaks
        How many to choose; a modality without a number is left as it is.
    peaks_by
        ``"cells"``, the peaks with a count in most cells, ties in their order; or ``"variance"``,
        as genes are chosen. Most peaks are open in few cells, and those that vary most, given
        their mean, are often among them.
    batch_key
        Column of ``mdata.obs``, or of the ``.obs`` of a modality, with the batch of each cell:
        variance is then ranked within each batch, so that features that only tell batches apart
        come late.
    span
        Share of the features in each window of scanpy's curve of variance over mean. Where many
        features have the same few counts, a narrow window has no curve.
    subset
        Whether to remove the others.
    rna_layer, atac_layer
        Layer with the raw counts; None for ``.X``.
    rna_key, atac_key
        The two modalities.

    Returns
    -------
    A new MuData, the choice in the column ``highly_variable`` of the modality's ``.var``. Those
    ranked by variance also get scanpy's ``highly_variable_rank``, ``means``, ``variances`` and
    ``variances_norm``, those ranked by cells get ``n_cells``; what scanpy wrote of an earlier
    choice goes. With `subset`, ``.uns["scmvp_removed"]`` says how many went.

    Raises
    ------
    KeyError
        If there is no column `batch_key`.
    TypeError, ValueError
        If no number is given, one exceeds the features there are, a batch is missing, or the
        variance in a batch, or in all cells, has no curve over the mean.

    Warns
    -----
    UserWarning
        If reads are read where `reads_to_fragments` has estimated fragments.
    """
    check_one_of(peaks_by, get_args(PeakRanking), name="peaks_by")
    check_in(span, "(0, 1]", name="span")
    check_modalities_of_pair(mdata, rna_key, atac_key)
    check_paired(mdata, rna_key, atac_key)
    _check_numbers(mdata, {rna_key: ("n_genes", n_genes), atac_key: ("n_peaks", n_peaks)})
    batch = (
        None
        if batch_key is None
        else find_grouping(
            mdata, batch_key, argument="batch_key", modality_keys=(rna_key, atac_key)
        )
    )

    def by_variance(counts: sp.csr_matrix, n_features: int, key: str, other: str) -> pd.DataFrame:
        measured = measured_by(mdata, key, other)
        if not measured.all():
            counts = counts[measured]
        of_cells = None if batch is None else batch[measured]
        return rank_by_variance(counts, n_features, batch=of_cells, span=span, modality=key)

    columns: dict[str, pd.DataFrame] = {}
    if n_genes is not None:
        counts = read_counts(mdata, rna_key, rna_layer, argument="rna_layer")
        columns[rna_key] = by_variance(counts, n_genes, rna_key, atac_key)
    if n_peaks is not None:
        counts = read_atac_counts(mdata, atac_key, atac_layer)
        columns[atac_key] = (
            _rank_by_cells(counts, n_peaks)
            if peaks_by == "cells"
            else by_variance(counts, n_peaks, atac_key, rna_key)
        )

    masks = {key: table[_MASK].to_numpy() for key, table in columns.items()}
    selected = take(mdata, features=masks if subset else None)
    for key, table in columns.items():
        var = selected[key].var
        for stale in [name for name in _SCANPY_COLUMNS if name in var and name not in table]:
            del var[stale]
        selected[key].uns.pop(_SCANPY_NOTE, None)
        var[list(table)] = table.set_axis(mdata[key].var_names).loc[var.index]
    if subset:
        peaks = "peaks open in most cells" if peaks_by == "cells" else "most variable peaks"
        chosen = {
            rna_key: ("genes", f"{n_genes} most variable genes"),
            atac_key: ("peaks", f"{n_peaks} {peaks}"),
        }
        account_for(selected, [_removal(mask, *chosen[key]) for key, mask in masks.items()])
    return selected


def _removal(mask: NDArray[np.bool_], of: str, chosen: str) -> Removal:
    kept = int(mask.sum())
    return Removal("select_features", 1, of, f"not among the {chosen}", mask.size - kept, kept)


def _check_numbers(mdata: MuData, numbers: dict[str, tuple[str, int | None]]) -> None:
    given = {key: pair for key, pair in numbers.items() if pair[1] is not None}
    if not given:
        raise ValueError(
            "`select_features` needs the number of features to choose, got none. Pass `n_genes`, "
            "`n_peaks` or both."
        )
    check_not_empty(mdata, *given)
    for key, (argument, number) in given.items():
        check_integer_at_least(number, 1, name=argument)
        if number > mdata[key].n_vars:
            raise ValueError(
                f"`{argument}` must be at most the number of features of `{key}`, "
                f"{mdata[key].n_vars}, got {number}. Lower it, or leave it out to keep all."
            )


def _rank_by_cells(counts: sp.csr_matrix, n_features: int) -> pd.DataFrame:
    _, n_cells = sc.pp.filter_genes(counts, min_cells=0, inplace=False)
    chosen = np.zeros(n_cells.size, bool)
    chosen[np.argsort(-n_cells, kind="stable")[:n_features]] = True
    return pd.DataFrame({"n_cells": n_cells, _MASK: chosen})
