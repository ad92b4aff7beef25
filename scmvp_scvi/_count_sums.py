"""Sums and means of registered counts, read in blocks of cells, and of covariates."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from scipy import sparse
from scvi.data import AnnDataManager

from scmvp_scvi._keys import MODALITIES, REGISTRY, Kind

_ROWS_PER_BLOCK = 4096
_PSEUDO_CELLS = 10  # of Poisson counts, which the variance of a sum is shrunk towards


@dataclass(frozen=True)
class TrainingCounts:
    """Sums of the counts of the training cells, of each modality."""

    manager: AnnDataManager
    rows: np.ndarray  # (cells,), positions in ascending order
    depths: dict[Kind, np.ndarray]  # of "rna" and "atac", (cells,)
    totals: dict[Kind, np.ndarray]  # likewise, (features,)

    @classmethod
    def read(cls, manager: AnnDataManager, rows: np.ndarray) -> Self:
        """Pass over the counts once.

        Parameters
        ----------
        manager
            Of the registered data.
        rows
            ``(cells,)``, positions of the training cells.
        """
        rows = np.sort(rows)
        depths: dict[Kind, np.ndarray] = {}
        totals: dict[Kind, np.ndarray] = {}
        for kind, keys in MODALITIES.items():
            counts = manager.get_from_registry(keys.counts)
            of_blocks, total = [], np.zeros(counts.shape[1])
            for some in _blocks_of(rows):
                block = counts[some]
                of_blocks.append(_sums(block, 1))
                total += _sums(block, 0)
            depths[kind], totals[kind] = np.concatenate(of_blocks), total
        return cls(manager, rows, depths, totals)

    def lack(self, kind: Kind) -> bool:
        """Whether any of the cells has no count in the modality."""
        return bool((self.depths[kind] == 0).any())

    def feature_statistics(self) -> dict[str, Any]:
        """Return what the input transforms need, `SCMVPModule.set_feature_statistics`."""
        statistics = {
            "rna_median_depth": _median_of_measured(self.depths["rna"], self.depths["rna"]),
            "rna_totals": self.totals["rna"],
            "atac_totals": self.totals["atac"],
            "n_cells": len(self.rows),
        }
        for kind, keys in MODALITIES.items():
            if keys.size_factor in self.manager.data_registry:
                depth = self.depths[kind]
                factors = self.manager.get_from_registry(keys.size_factor)[self.rows].ravel()
                # cells that were not measured have a factor too, which may be anything
                of_depths, of_factors = (_median_of_measured(v, depth) for v in (depth, factors))
                statistics[f"{kind}_depth_per_size_factor"] = of_depths / of_factors
        if REGISTRY.CONTINUOUS_COVARIATES in self.manager.data_registry:
            table = self.manager.get_from_registry(REGISTRY.CONTINUOUS_COVARIATES)
            values = np.asarray(table, dtype=float)[self.rows]
            spread = values.std(0)
            statistics["continuous_mean"] = values.mean(0)
            # in single precision, as it is read, such a column is a constant
            is_constant = spread <= np.finfo(np.float32).eps * np.abs(values).max(0)
            statistics["continuous_scale"] = np.where(is_constant, np.inf, spread)
        return statistics


class RawMeans(NamedTuple):
    """Means of raw counts over the cells of a group."""

    mean: np.ndarray  # (features,), counts
    detected: np.ndarray  # (features,), share of the cells with a count
    normalized: np.ndarray  # (features,), counts per ten thousand of the cell's depth
    log_variance: np.ndarray  # (features,), sampling variance of the logarithm of the mean
    depth: float  # counts of all cells and features together


def raw_means(counts: Any, rows: np.ndarray) -> RawMeans:
    """Average the counts of a group of cells, in blocks of rows.

    Cells without any count were not measured, and do not count.

    Parameters
    ----------
    counts
        ``(cells, features)``, a registered count matrix.
    rows
        ``(chosen,)``, positions in ascending order.
    """
    n_measured = 0
    total, squares, detected, normalized = np.zeros((4, counts.shape[1]))
    for some in _blocks_of(rows):
        block = sparse.csr_matrix(counts[some], dtype=np.float64)  # squares fit no small integer
        depth = _sums(block, 1)
        total += _sums(block, 0)
        squares += _sums(block.multiply(block), 0)
        detected += _sums(block > 0, 0)
        n_measured += int((depth > 0).sum())
        # a cell without counts adds nothing, whatever it is divided by
        normalized += block.T @ (1e4 / np.maximum(depth, 1))
    n_cells = max(n_measured, 1)
    n_free = max(n_cells - 1, 1)
    variance = (squares - total**2 / n_cells) * n_cells / n_free
    # a few cells can be alike by chance: as if some more had varied as Poisson's law has it
    shrunk = (n_free * variance + _PSEUDO_CELLS * total) / (n_free + _PSEUDO_CELLS)
    variance = np.maximum(variance, shrunk)
    # one more count keeps the logarithm of a feature without counts finite
    log_variance = (variance + 1) / (total + 1) ** 2
    return RawMeans(
        total / n_cells, detected / n_cells, normalized / n_cells, log_variance, total.sum()
    )


def _blocks_of(rows: np.ndarray) -> list[np.ndarray]:
    """Cut rows into blocks whose counts fit into memory."""
    return np.array_split(rows, max(1, -(-len(rows) // _ROWS_PER_BLOCK)))


def _sums(block: Any, axis: int) -> np.ndarray:
    """Sums of a block of cells in double precision, for counts may be of a type that is small."""
    return np.asarray(block.sum(axis, dtype=float)).ravel()


def _median_of_measured(values: np.ndarray, depth: np.ndarray) -> float:
    """Median over the cells that have any count; 1 if none has."""
    measured = depth > 0
    return float(np.median(values[measured])) if measured.any() else 1.0
