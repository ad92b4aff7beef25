"""Choice of the genes and peaks that a model is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData

from scmvp_scvi._validate import check_integer_at_least, check_no_missing, check_paired
from scmvp_scvi.pp._input import check_modalities_of_pair, find_column, read_counts
from scmvp_scvi.pp._output import Removal, account_for, take

if TYPE_CHECKING:
    import scipy.sparse as sp
    from mudata import MuData

_MASK = "highly_variable"


def select_features(
    mdata: MuData,
    *,
    n_genes: int | None = None,
    n_peaks: int | None = None,
    batch_key: str | None = None,
    subset: bool = False,
    rna_layer: str | None = None,
    atac_layer: str | None = None,
    rna_key: str = "rna",
    atac_key: str = "atac",
) -> MuData:
    """Choose the most variable genes, and the peaks that are open in most cells.

    Genes are ranked by :func:`scanpy.pp.highly_variable_genes` with ``flavor="seurat_v3"``, on
    counts; peaks, too sparse for their variance to mean much, by the number of cells that have a
    count, ties in the order of the peaks.

    Parameters
    ----------
    mdata
        The data: paired cells in one order.
    n_genes, n_peaks
        How many to choose; a modality without a number is left as it is.
    batch_key
        Column of ``mdata.obs`` with the batch of each cell: genes are then ranked within each
        batch, so that those that only tell batches apart come late.
    subset
        Whether to remove the others.
    rna_layer, atac_layer
        Layer with the raw counts; None for ``.X``.
    rna_key, atac_key
        The two modalities.

    Returns
    -------
    A new MuData, the choice in the column ``highly_variable`` of the modality's ``.var``. Genes
    also get scanpy's ``highly_variable_rank``, ``means``, ``variances`` and ``variances_norm``,
    peaks get ``n_cells``. With `subset`, ``.uns["scmvp_removed"]`` says how many went.

    Raises
    ------
    KeyError
        If there is no column `batch_key`.
    ValueError
        If no number is given, one exceeds the features there are, or a batch is missing.
    """
    check_modalities_of_pair(mdata, rna_key, atac_key)
    check_paired(mdata, rna_key, atac_key)
    _check_numbers(mdata, {rna_key: ("n_genes", n_genes), atac_key: ("n_peaks", n_peaks)})
    columns: dict[str, pd.DataFrame] = {}
    if n_genes is not None:
        batch = None
        if batch_key is not None:
            batch = find_column(mdata, batch_key, argument="batch_key")
            check_no_missing(batch, argument="batch_key")
        counts = read_counts(mdata, rna_key, rna_layer, argument="rna_layer")
        columns[rna_key] = _rank_genes(counts, n_genes, batch)
    if n_peaks is not None:
        counts = read_counts(mdata, atac_key, atac_layer, argument="atac_layer")
        columns[atac_key] = _rank_peaks(counts, n_peaks)

    masks = {key: table[_MASK].to_numpy() for key, table in columns.items()}
    selected = take(mdata, features=masks if subset else None)
    for key, table in columns.items():
        var = selected[key].var
        var[list(table)] = table.set_axis(mdata[key].var_names).loc[var.index]
    if subset:
        reasons = {
            rna_key: ("genes", f"not among the {n_genes} most variable genes"),
            atac_key: ("peaks", f"not among the {n_peaks} peaks open in most cells"),
        }
        account_for(
            selected,
            [
                Removal("select_features", 1, *reasons[key], int((~mask).sum()), int(mask.sum()))
                for key, mask in masks.items()
            ],
        )
    return selected


def _check_numbers(mdata: MuData, numbers: dict[str, tuple[str, int | None]]) -> None:
    given = {key: pair for key, pair in numbers.items() if pair[1] is not None}
    if not given:
        raise ValueError(
            "`select_features` needs the number of features to choose, got none. Pass `n_genes`, "
            "`n_peaks` or both."
        )
    for key, (argument, number) in given.items():
        check_integer_at_least(number, 1, name=argument)
        if number > mdata[key].n_vars:
            raise ValueError(
                f"`{argument}` must be at most the number of features of `{key}`, "
                f"{mdata[key].n_vars}, got {number}. Lower it, or leave it out to keep all."
            )


def _rank_genes(counts: sp.csr_matrix, n_genes: int, batch: pd.Series | None) -> pd.DataFrame:
    # scanpy takes batches from the table of the modality alone, and writes to the data it reads
    obs = pd.DataFrame(index=pd.RangeIndex(counts.shape[0]).astype(str))
    if batch is not None:
        obs["batch"] = pd.Categorical(batch)
    data = AnnData(counts, obs=obs)
    sc.pp.highly_variable_genes(
        data,
        flavor="seurat_v3",
        n_top_genes=n_genes,
        batch_key=None if batch is None else "batch",
    )
    return data.var


def _rank_peaks(counts: sp.csr_matrix, n_peaks: int) -> pd.DataFrame:
    n_cells = (counts != 0).sum(axis=0).A1.astype(np.int64)
    chosen = np.zeros(n_cells.size, bool)
    chosen[np.argsort(-n_cells, kind="stable")[:n_peaks]] = True
    return pd.DataFrame({"n_cells": n_cells, _MASK: chosen})
