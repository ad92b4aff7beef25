"""Quality of a paired data set, before anything is removed from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scmvp_scvi._mudata import as_csr
from scmvp_scvi._validate import find_counts, find_grouping, same_names
from scmvp_scvi.pp._cells import measured_by
from scmvp_scvi.pp._input import check_modalities_of_pair

if TYPE_CHECKING:
    from collections.abc import Iterable

    import scipy.sparse as sp
    from mudata import MuData

_PER_CELL = ("depth", "features")
_MISSING = "missing"  # name of the cells without a group


@dataclass(frozen=True)
class QualityReport:
    """What `qc` found.

    Parameters
    ----------
    summary
        A row a quantity: ``group``, that is ``"rna"``, ``"atac"``, ``"both"``, or the name of a
        column of ``.obs``; ``quantity``; ``value``.
    cells
        A row a cell, named as in ``mdata.obs``: ``rna_depth`` and ``atac_depth``, counts;
        ``rna_features`` and ``atac_features``, genes and peaks with a count; missing where the
        modality did not measure the cell. Then the columns of batches and labels, if any.
    groups
        Names of those columns.
    """

    summary: pd.DataFrame
    cells: pd.DataFrame
    groups: tuple[str, ...]

    def value(self, group: str, quantity: str) -> float:
        """Look up one value of the summary.

        Parameters
        ----------
        group, quantity
            What the row is about.

        Raises
        ------
        KeyError
            If there is no such row.
        """
        rows = (self.summary["group"] == group) & (self.summary["quantity"] == quantity)
        if not rows.any():
            of_group = self.summary.loc[self.summary["group"] == group, "quantity"]
            raise KeyError(
                f"The summary has no quantity {quantity!r} of {group!r}. It has "
                f"{', '.join(map(repr, of_group)) or 'nothing of this group'}."
            )
        return float(self.summary.loc[rows, "value"].iloc[0])


def qc(
    mdata: MuData,
    *,
    batch_key: str | None = None,
    labels_key: str | None = None,
    rna_layer: str | None = None,
    atac_layer: str | None = None,
    rna_key: str = "rna",
    atac_key: str = "atac",
) -> QualityReport:
    """Report depths, features per cell, empty cells, half counts, and the overlap of cells.

    Nothing is refused here that can be counted: modalities may hold different cells, in different
    orders, and values that are no counts.

    Parameters
    ----------
    mdata
        The data.
    batch_key, labels_key
        Columns of ``mdata.obs``, or of the ``.obs`` of the modalities, whose groups are counted.
    rna_layer, atac_layer
        Layer with the raw counts; None for ``.X``.
    rna_key, atac_key
        The two modalities.

    Returns
    -------
    The report; `plot_qc` draws it.

    Raises
    ------
    KeyError
        If a modality, layer or column does not exist.
    ValueError
        If names are not unique, the modalities are swapped, they disagree about a column, or a
        column has a name that the report has for something else.

    Examples
    --------
    >>> from scmvp_scvi import datasets, pp
    >>> report = pp.qc(datasets.synthetic(n_cells=300), batch_key="batch")
    >>> report.value("both", "cells in both")
    300.0
    """
    check_modalities_of_pair(mdata, rna_key, atac_key, allow_lost_cells=True)
    groups = {
        key: find_grouping(
            mdata, key, argument=argument, modality_keys=(rna_key, atac_key), allow_missing=True
        )
        for argument, key in (("batch_key", batch_key), ("labels_key", labels_key))
        if key is not None
    }
    _check_group_names(groups)
    cells = pd.DataFrame(index=mdata.obs_names.copy())
    summaries: dict[str, dict[str, float]] = {}
    sides = (("rna", rna_key, rna_layer, atac_key), ("atac", atac_key, atac_layer, rna_key))
    for name, key, layer, other in sides:
        adata = mdata[key]
        counts = _without_stored_zeros(
            find_counts(adata, layer, argument=f"{name}_layer", modality=key)
        )
        measured = pd.Series(measured_by(mdata, key, other), mdata.obs_names)[adata.obs_names]
        if not measured.all():  # cells that `union_cells` has filled up
            counts = counts[measured.to_numpy()]
        names = adata.obs_names[measured.to_numpy()]
        cells[f"{name}_depth"] = pd.Series(counts.sum(axis=1).A1, names)
        cells[f"{name}_features"] = pd.Series(np.diff(counts.indptr), names)
        summaries[name] = _summarize_counts(counts)
    is_same_order = same_names(mdata[rna_key].obs_names, mdata[atac_key].obs_names)
    summaries["both"] = _summarize_pairing(cells, is_same_order)
    for name, column in groups.items():
        summaries[name] = _group_sizes(column)
        cells[name] = column
    summary = pd.DataFrame(
        [(group, *row) for group, found in summaries.items() for row in found.items()],
        columns=["group", "quantity", "value"],
    )
    return QualityReport(summary.astype({"value": float}), cells, tuple(groups))


def _group_sizes(column: pd.Series) -> dict[str, float]:
    """Cells of each group, and of none, by its name; by ``repr`` where several print alike."""
    # whole numbers with gaps are floats until then
    sizes = column.convert_dtypes().astype(object).value_counts(sort=False)
    n_missing, names = int(column.isna().sum()), sizes.index.map(str)
    is_unclear = names.duplicated(keep=False) | ((names == _MISSING) & (n_missing > 0))
    names = np.where(is_unclear, sizes.index.map(repr), names)
    found = dict(zip(names, sizes, strict=True))
    return found | {_MISSING: n_missing} if n_missing > 0 else found


def _check_group_names(groups: Iterable[str]) -> None:
    """Refuse columns whose names the report has for something else."""
    of_report = ("rna", "atac", "both", *(f"{m}_{q}" for m in ("rna", "atac") for q in _PER_CELL))
    for name in groups:
        if name in of_report:
            raise ValueError(
                f"The report has a group or column `{name}` of its own: rename the column of "
                f'`.obs`, `mdata.obs = mdata.obs.rename(columns={{"{name}": "{name}_group"}})`.'
            )


def _without_stored_zeros(matrix: Any) -> sp.csr_matrix:
    counts = as_csr(matrix)
    if not counts.has_canonical_format or (counts.data == 0).any():
        # what is stored as zero is no count
        counts = counts.copy()
        counts.sum_duplicates()
        counts.eliminate_zeros()
    return counts


def _summarize_counts(counts: sp.csr_matrix) -> dict[str, float]:
    """What one modality holds, `counts` being free of stored zeros."""
    n_cells, n_features = counts.shape
    depth, features = counts.sum(axis=1).A1, np.diff(counts.indptr)
    finite = counts.data[np.isfinite(counts.data)]
    is_half, is_fractional = finite % 1 == 0.5, finite % 1 != 0
    summary = {
        "cells": n_cells,
        "features": n_features,
        "share of values not zero": counts.nnz / max(n_cells * n_features, 1),
    }
    for unit, values in (("counts", depth), ("features", features)):
        for label, quantile in (("5 % quantile", 0.05), ("median", 0.5), ("95 % quantile", 0.95)):
            summary[f"{unit} per cell, {label}"] = (
                float(np.quantile(values, quantile)) if n_cells > 0 else np.nan
            )
    return summary | {
        "cells without a count": int(np.count_nonzero(features == 0)),
        "features without a count": n_features - np.unique(counts.indices).size,
        "largest value": float(finite.max(initial=0)),
        "half counts (n + 0.5)": int(np.count_nonzero(is_half)),
        "other values that are not integers": int(np.count_nonzero(is_fractional & ~is_half)),
        "negative values": int(np.count_nonzero(finite < 0)),
        "values that are NaN or infinite": counts.nnz - finite.size,
    }


def _summarize_pairing(cells: pd.DataFrame, is_same_order: bool) -> dict[str, float]:
    """Which cells are there, and which have counts, in one modality or in both."""
    in_rna, in_atac = cells["rna_features"].notna(), cells["atac_features"].notna()
    has_rna, has_atac = cells["rna_features"] > 0, cells["atac_features"] > 0
    return {
        "cells in both": int((in_rna & in_atac).sum()),
        "cells in rna alone": int((in_rna & ~in_atac).sum()),
        "cells in atac alone": int((~in_rna & in_atac).sum()),
        "same cells in the same order": int(is_same_order),
        "cells with a count in both": int((has_rna & has_atac).sum()),
        "cells with a count in rna alone": int((has_rna & ~has_atac).sum()),
        "cells with a count in atac alone": int((~has_rna & has_atac).sum()),
        "cells without any count": int((~has_rna & ~has_atac).sum()),
    }
