"""Removal of poor cells and of rare or ubiquitous features, with the published thresholds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from scmvp_scvi._validate import check_integer_at_least, check_one_of, check_paired
from scmvp_scvi.pp._cells import measured_by
from scmvp_scvi.pp._input import check_modalities_of_pair, check_not_empty, read_counts
from scmvp_scvi.pp._output import Removal, account_for, take

if TYPE_CHECKING:
    from collections.abc import Mapping

    import scipy.sparse as sp
    from mudata import MuData
    from numpy.typing import NDArray


@dataclass(frozen=True)
class FilterThresholds:
    """Thresholds of `filter_cells_and_features`; None is no rule.

    Parameters
    ----------
    min_genes, min_peaks
        Genes and peaks with a count that a cell has at least.
    min_cells
        Cells with a count that a gene or a peak has at least.
    max_cells_per_peak
        Cells with a count that a peak has at most.
    """

    min_genes: int | None = None
    min_peaks: int | None = None
    min_cells: int | None = None
    max_cells_per_peak: int | None = None


#: Thresholds of the publication by protocol, for the ``preset`` of `filter_cells_and_features`.
FILTER_PRESETS: Mapping[str, FilterThresholds] = MappingProxyType(
    {
        "sci-car": FilterThresholds(min_genes=200, min_peaks=200, min_cells=10),
        "snare-seq": FilterThresholds(min_genes=200, min_peaks=200, min_cells=10),
        "paired-seq": FilterThresholds(
            min_genes=200, min_peaks=200, min_cells=10, max_cells_per_peak=336
        ),
    }
)


def filter_cells_and_features(
    mdata: MuData,
    *,
    preset: str | None = None,
    min_genes: int | None = None,
    min_peaks: int | None = None,
    min_cells: int | None = None,
    max_cells_per_peak: int | None = None,
    until_stable: bool = False,
    rna_layer: str | None = None,
    atac_layer: str | None = None,
    rna_key: str = "rna",
    atac_key: str = "atac",
) -> MuData:
    """Remove cells with few features, then features in few or in very many cells.

    A round is that of :func:`scanpy.pp.filter_cells` and then :func:`scanpy.pp.filter_genes`: the
    cells that stay pass both `min_genes` and `min_peaks` on all features, and the features are
    counted on these cells. A cell may then fall below its threshold, as features have gone; that
    is left so unless `until_stable`.

    Parameters
    ----------
    mdata
        The data: the same cells in one order, see `intersect_cells` and `union_cells`. Of a cell
        that one modality alone measured nothing is asked in the other.
    preset
        Thresholds of the publication :cite:p:`Li2022`, those of `FILTER_PRESETS`: ``"sci-car"``,
        ``"snare-seq"`` or ``"paired-seq"``. A threshold that is passed replaces the preset's.
    min_genes, min_peaks
        Cells with fewer genes, or fewer peaks, with a count are removed.
    min_cells
        Genes and peaks with a count in fewer cells are removed.
    max_cells_per_peak
        Peaks with a count in more cells are removed.
    until_stable
        Whether rounds are repeated until one removes nothing, so that every cell and feature
        left meets all thresholds. The publication says nothing of repetitions.
    rna_layer, atac_layer
        Layer with the raw counts; None for ``.X``.
    rna_key, atac_key
        The two modalities. In others, the cells removed go too.

    Returns
    -------
    A new MuData. ``.uns["scmvp_removed"]`` says what was removed and why: a row a rule and round,
    with how many were ``removed`` and how many ``kept``. What falls under several rules is
    counted under the first.

    Raises
    ------
    ValueError
        If no threshold is given, one is out of range, nothing is left, or the modalities are not
        paired, swapped, or do not hold counts.

    Examples
    --------
    >>> from scmvp_scvi import datasets, pp
    >>> mdata = datasets.synthetic(n_cells=300)
    >>> filtered = pp.filter_cells_and_features(mdata, min_genes=20, min_cells=10)
    >>> filtered.uns["scmvp_removed"]  # doctest: +SKIP
    """
    thresholds = _thresholds(
        preset,
        min_genes=min_genes,
        min_peaks=min_peaks,
        min_cells=min_cells,
        max_cells_per_peak=max_cells_per_peak,
    )
    check_modalities_of_pair(mdata, rna_key, atac_key)
    check_paired(mdata, rna_key, atac_key)
    check_not_empty(mdata, rna_key, atac_key)
    selection = _Selection(
        genes_seen=read_counts(mdata, rna_key, rna_layer, argument="rna_layer") != 0,
        peaks_seen=read_counts(mdata, atac_key, atac_layer, argument="atac_layer") != 0,
        by_rna=measured_by(mdata, rna_key, atac_key),
        by_atac=measured_by(mdata, atac_key, rna_key),
    )
    selection.filter_once(thresholds)
    while until_stable and selection.last_round_removed_something():
        selection.filter_once(thresholds)

    kept = selection.kept
    filtered = take(
        mdata,
        mdata.obs_names[kept["cells"]],
        {rna_key: kept["genes"], atac_key: kept["peaks"]},
    )
    account_for(filtered, selection.removals)
    return filtered


def _thresholds(preset: str | None, **given: int | None) -> FilterThresholds:
    """Thresholds of the preset, with those that are given in their place."""
    if preset is not None:
        check_one_of(preset, list(FILTER_PRESETS), name="preset")
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        check_integer_at_least(value, 0, name=name)
    base = FilterThresholds() if preset is None else FILTER_PRESETS[preset]
    thresholds = replace(base, **given)
    if thresholds == FilterThresholds():
        raise ValueError(
            "`filter_cells_and_features` needs a `preset` or at least one threshold, got none. "
            f"Pass `preset=` with one of {', '.join(map(repr, FILTER_PRESETS))}, or one of "
            f"{', '.join(f'`{name}`' for name in asdict(thresholds))}."
        )
    return thresholds


class _Selection:
    """Cells, genes and peaks that are still kept, and the account of those that are not.

    Parameters
    ----------
    genes_seen, peaks_seen
        ``(cells, features)``, true where there is a count.
    by_rna, by_atac
        ``(cells,)``, true where the modality measured the cell.
    """

    def __init__(
        self,
        genes_seen: sp.csr_matrix,
        peaks_seen: sp.csr_matrix,
        by_rna: NDArray[np.bool_],
        by_atac: NDArray[np.bool_],
    ) -> None:
        self.genes_seen, self.peaks_seen = genes_seen, peaks_seen
        self.by_rna, self.by_atac = by_rna, by_atac
        self.kept = {
            "cells": np.ones(genes_seen.shape[0], bool),
            "genes": np.ones(genes_seen.shape[1], bool),
            "peaks": np.ones(peaks_seen.shape[1], bool),
        }
        self.removals: list[Removal] = []
        self.n_rounds = 0

    def last_round_removed_something(self) -> bool:
        """Whether another round can change anything."""
        return any(row.removed > 0 for row in self.removals if row.round == self.n_rounds)

    def filter_once(self, thresholds: FilterThresholds) -> None:
        """Apply each rule once: first to the cells, then to the features on the cells left."""
        self.n_rounds += 1
        n_genes = self.genes_seen @ self.kept["genes"].astype(np.int64)
        n_peaks = self.peaks_seen @ self.kept["peaks"].astype(np.int64)
        min_genes, min_peaks = thresholds.min_genes, thresholds.min_peaks
        self._remove("cells", "genes", n_genes, "min_genes", min_genes, exempt=~self.by_rna)
        self._remove("cells", "peaks", n_peaks, "min_peaks", min_peaks, exempt=~self.by_atac)

        cells = self.kept["cells"].astype(np.int64)
        cells_of_gene, cells_of_peak = self.genes_seen.T @ cells, self.peaks_seen.T @ cells
        self._remove("genes", "cells", cells_of_gene, "min_cells", thresholds.min_cells)
        self._remove("peaks", "cells", cells_of_peak, "min_cells", thresholds.min_cells)
        self._remove(
            "peaks", "cells", cells_of_peak, "max_cells_per_peak", thresholds.max_cells_per_peak
        )

    def _remove(
        self,
        of: str,
        unit: str,
        found: NDArray[np.int64],
        argument: str,
        threshold: int | None,
        exempt: NDArray[np.bool_] | bool = False,
    ) -> None:
        if threshold is None:
            return
        is_maximum = argument.startswith("max")
        passes = exempt | (found <= threshold if is_maximum else found >= threshold)
        candidates = self.kept[of]
        if not (candidates & passes).any():
            among = found[candidates]
            limit = f"at least {among.min()}" if is_maximum else f"at most {among.max()}"
            raise ValueError(
                f"`{argument}={threshold}` leaves no {of}: the {among.size} that were left to it "
                f"in round {self.n_rounds} have {limit} {unit} with a count. "
                f"{'Raise' if is_maximum else 'Lower'} it, also where a preset sets it."
            )
        reason = f"{'more' if is_maximum else 'fewer'} than {threshold} {unit}"
        self.kept[of] = candidates & passes
        kept = int(self.kept[of].sum())
        self.removals.append(
            Removal(
                "filter_cells_and_features",
                self.n_rounds,
                of,
                reason,
                int(candidates.sum()) - kept,
                kept,
            )
        )
