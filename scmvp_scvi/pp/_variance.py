"""Ranking of features by their variance, and what data must have for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData

if TYPE_CHECKING:
    import scipy.sparse as sp

# A parabola through the features of a window has three coefficients.
_MIN_IN_WINDOW = 3
# What the way out tries, each wider than scanpy's 0.3.
_WIDER_SPANS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def rank_by_variance(
    counts: sp.csr_matrix,
    n_features: int,
    *,
    batch: pd.Series | None,
    span: float,
    modality: str,
) -> pd.DataFrame:
    """Rank features by their variance, given their mean, as scanpy does on counts.

    Parameters
    ----------
    counts
        ``(cells, features)``.
    n_features
        How many to mark.
    batch
        ``(cells,)``, named after its column; features are ranked within each. None for one batch.
    span
        Share of the features in each window of the curve.
    modality
        Key of the modality, for the messages.

    Returns
    -------
    ``(features,)``, scanpy's columns, ``highly_variable`` among them.

    Raises
    ------
    ValueError
        If the variance has no curve over the mean in one of the batches.
    """
    groups = pd.Series(pd.Categorical(np.zeros(counts.shape[0]) if batch is None else batch))
    for name, cells in groups.groupby(groups, observed=True).indices.items():
        place = "" if batch is None else f' of batch "{name}" of the column "{batch.name}"'
        _check_varies(counts[cells], span, modality, place)
    try:
        return _highly_variable(counts, n_features, groups, span, is_batched=batch is not None)
    except ValueError as error:
        # scanpy passes on what its local regression says, as in "near singularities"
        raise ValueError(_no_curve(counts, groups, batch, span, modality)) from error


def _highly_variable(
    counts: sp.csr_matrix, n_features: int, groups: pd.Series, span: float, *, is_batched: bool
) -> pd.DataFrame:
    # scanpy takes batches from the table of the modality alone, and writes to the data it reads
    obs = pd.DataFrame({"batch": groups.set_axis(groups.index.astype(str))})
    data = AnnData(counts, obs=obs)
    sc.pp.highly_variable_genes(
        data,
        flavor="seurat_v3",
        n_top_genes=n_features,
        batch_key="batch" if is_batched else None,
        span=span,
        check_values=False,
    )
    return data.var


def _check_varies(counts: sp.csr_matrix, span: float, modality: str, place: str) -> None:
    """Refuse too few features for a window; the regression below scanpy ends the process there."""
    n_varying = (counts.max(axis=0) != counts.min(axis=0)).nnz
    if n_varying * span < _MIN_IN_WINDOW:
        ways_out = [
            *(["raise `span`"] if n_varying >= _MIN_IN_WINDOW else []),
            *(["leave the batch out", "rank without `batch_key`"] if place else []),
            "leave the number out to keep all",
        ]
        raise ValueError(
            f"`{modality}` must have at least {_MIN_IN_WINDOW} features that differ between cells "
            f"in each window of `span={span:g}` of them, to be ranked by variance, but the "
            f"{counts.shape[0]} cells{place} have {n_varying} in all. "
            f"{', or '.join(ways_out).capitalize()}."
        )


def _no_curve(
    counts: sp.csr_matrix,
    groups: pd.Series,
    batch: pd.Series | None,
    span: float,
    modality: str,
) -> str:
    """Say where the regression fails, and with which window it does not."""

    def has_curve(cells: np.ndarray, width: float) -> bool:
        part = groups.iloc[cells].reset_index(drop=True)
        try:
            _highly_variable(counts[cells], 1, part, width, is_batched=False)
        except ValueError:
            return False
        return True

    batches = groups.groupby(groups, observed=True).indices
    failing = {name: cells for name, cells in batches.items() if not has_curve(cells, span)}
    place = (
        "" if batch is None else f' in batch "{next(iter(failing))}" of the column "{batch.name}"'
    )
    fitting = next(
        (
            width
            for width in _WIDER_SPANS
            if width > span and all(has_curve(cells, width) for cells in batches.values())
        ),
        None,
    )
    way_out = (
        "Remove features in few cells first, with `min_cells` of `filter_cells_and_features`"
        + ("." if batch is None else ", or rank without `batch_key`.")
        if fitting is None
        else f"Pass `span={fitting:g}`, with which it has one."
    )
    return (
        f"The variance of `{modality}` must have a curve over the mean to be ranked by, but with "
        f"`span={span:g}`{place} it has none: windows of so few features, many with the same few "
        f"counts, hold too few different means. {way_out}"
    )
