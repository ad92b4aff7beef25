"""The quality report as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullFormatter, StrMethodFormatter

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from scmvp_scvi.pp._qc import QualityReport

_COLORS = {"rna": "#4477aa", "atac": "#cc6677"}
_GREY = "#666666"
_NAMES = {"rna": ("RNA", "genes"), "atac": ("ATAC", "peaks")}
_N_BINS = 40
_MAX_BARS = 20


def plot_qc(
    report: QualityReport,
    *,
    min_genes: int | None = None,
    min_peaks: int | None = None,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Draw depths and features of the cells, one depth against the other, and group sizes.

    Parameters
    ----------
    report
        What `qc` found.
    min_genes, min_peaks
        Thresholds to draw, as they would be passed to `filter_cells_and_features`.
    axes
        Where to draw: five, and one more for each column of batches or labels. A new figure by
        default.

    Returns
    -------
    The axes: depth of RNA and of ATAC, genes and peaks per cell, both depths, the groups. Their
    ``.figure`` can be saved.

    Raises
    ------
    ValueError
        If there are too few or too many axes.

    Examples
    --------
    >>> from scmvp_scvi import datasets, pp
    >>> axes = pp.plot_qc(pp.qc(datasets.synthetic(n_cells=300), batch_key="batch"))
    >>> axes[0].figure.savefig("qc.png")  # doctest: +SKIP
    """
    n_panels = 5 + len(report.groups)
    panels = _new_axes(n_panels) if axes is None else list(axes)
    if len(panels) != n_panels:
        raise ValueError(
            f"`axes` must have {n_panels} axes, five and one for each of the {len(report.groups)} "
            f"columns of the report, got {len(panels)}."
        )
    minima = {"rna": min_genes, "atac": min_peaks}
    for i, (modality, (name, unit)) in enumerate(_NAMES.items()):
        depth = report.cells[f"{modality}_depth"]
        features = report.cells[f"{modality}_features"]
        color = _COLORS[modality]
        _draw_histogram(panels[i], depth, color, f"{name} depth", "counts")
        _draw_histogram(panels[2 + i], features, color, f"{unit} per cell".capitalize(), unit)
        _draw_minimum(panels[2 + i], features, minima[modality])
    _draw_depths(panels[4], report.cells)
    for panel, group in zip(panels[5:], report.groups, strict=True):
        of_group = report.summary[report.summary["group"] == group]
        _draw_sizes(panel, of_group.set_index("quantity")["value"], group)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    return panels


def _new_axes(n_panels: int) -> list[Axes]:
    n_columns = -(-n_panels // 2)
    figure, grid = plt.subplots(2, n_columns, figsize=(4 * n_columns, 6.5), layout="constrained")
    # column by column, which puts RNA above ATAC
    panels = list(grid.T.flat)
    for panel in panels[n_panels:]:
        figure.delaxes(panel)
    return panels[:n_panels]


def _draw_histogram(ax: Axes, values: pd.Series, color: str, title: str, unit: str) -> None:
    """Histogram of the cells with a count, on a logarithmic axis; the title counts the others."""
    positive = values[values > 0]
    notes = []
    if len(positive) > 0:
        ax.hist(positive, bins=_logarithmic_bins(positive), color=color)
        ax.axvline(positive.median(), color="black", linewidth=1)
        _use_logarithm(ax, "x")
        notes.append(f"median {positive.median():.4g}")
    n_empty, n_missing = int((values <= 0).sum()), int(values.isna().sum())
    notes += [f"{n_empty} cells without a count"] if n_empty > 0 else []
    notes += [f"{n_missing} cells not measured"] if n_missing > 0 else []
    ax.set(xlabel=f"{unit} in a cell", ylabel="cells")
    _set_title(ax, title, ", ".join(notes))


def _logarithmic_bins(positive: pd.Series) -> list[float]:
    edges = np.geomspace(positive.min(), positive.max() + 1, _N_BINS + 1)
    if positive.min() >= 1:
        # between whole numbers, or the narrow bins of small counts would be empty by turns
        edges = np.unique(np.floor(edges)) - 0.5
    return list(edges)


def _draw_minimum(ax: Axes, values: pd.Series, minimum: int | None) -> None:
    if minimum is not None:
        ax.axvline(minimum, color="black", linestyle="--", linewidth=1)
        ax.set_xlabel(f"{ax.get_xlabel()} ({int((values < minimum).sum())} below {minimum})")


def _draw_depths(ax: Axes, cells: pd.DataFrame) -> None:
    both = cells[(cells["rna_depth"] > 0) & (cells["atac_depth"] > 0)]
    if len(both) > 0:
        size = float(np.clip(20_000 / len(both), 1, 12))
        # a vector file of a dot a cell would not open
        ax.scatter(
            both["rna_depth"],
            both["atac_depth"],
            s=size,
            color=_GREY,
            alpha=0.4,
            linewidths=0,
            rasterized=True,
        )
        _use_logarithm(ax, "x")
        _use_logarithm(ax, "y")
    ax.set(xlabel="RNA counts in a cell", ylabel="ATAC counts in a cell")
    _set_title(ax, "Depths", f"{len(both)} of {len(cells)} cells have both")


def _draw_sizes(ax: Axes, sizes: pd.Series, group: str) -> None:
    largest = sizes.sort_values(ascending=False).iloc[:_MAX_BARS]
    ax.barh(largest.index, largest, height=0.7, color=_GREY)
    ax.invert_yaxis()
    ax.tick_params(axis="y", labelsize="small", length=0)
    ax.set_xlabel("cells")
    n_shown = f"the {_MAX_BARS} largest of " if len(sizes) > _MAX_BARS else ""
    _set_title(ax, group, f"{n_shown}{len(sizes)} groups")


def _use_logarithm(ax: Axes, axis: Literal["x", "y"]) -> None:
    ax.set(**{f"{axis}scale": "log"})
    along = ax.xaxis if axis == "x" else ax.yaxis
    along.set_major_formatter(StrMethodFormatter("{x:g}"))
    along.set_minor_formatter(NullFormatter())


def _set_title(ax: Axes, title: str, note: str) -> None:
    ax.set_title(f"{title}\n", loc="left", fontweight="bold", fontsize="medium")
    ax.text(0, 1.03, note, transform=ax.transAxes, color=_GREY, fontsize="small")
