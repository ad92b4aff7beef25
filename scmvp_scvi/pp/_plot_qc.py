"""The quality report as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from scmvp_scvi._panels import given_or_new_panels
from scmvp_scvi.pp._qc import QualityReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

_COLORS = {"rna": "#4477aa", "atac": "#cc6677"}
_GREY = "#666666"
_BOTH = "#aaaaaa"
_LIGHT = "#eeeeee"
_NAMES = {"rna": ("RNA", "genes"), "atac": ("ATAC", "peaks")}
_N_BINS = 40
_MAX_BARS = 20
_N_FIXED = 7  # panels besides those of the groups
# Rows of the summary, a color each: of the cells there are, and of those that have a count.
_OVERLAP = {
    "measured": {
        "cells in both": _BOTH,
        "cells in rna alone": _COLORS["rna"],
        "cells in atac alone": _COLORS["atac"],
    },
    "with a count": {
        "cells with a count in both": _BOTH,
        "cells with a count in rna alone": _COLORS["rna"],
        "cells with a count in atac alone": _COLORS["atac"],
        "cells without any count": _LIGHT,
    },
}
# Rows of the summary that counts have none of.
_NO_COUNTS = {
    "half counts (n + 0.5)": "half counts",
    "other values that are not integers": "other fractions",
    "negative values": "negative",
    "values that are NaN or infinite": "NaN, infinite",
}


def plot_qc(
    report: QualityReport,
    *,
    min_genes: int | None = None,
    min_peaks: int | None = None,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Draw depths and features of the cells, their overlap, values that are no counts, groups.

    Parameters
    ----------
    report
        What `qc` found.
    min_genes, min_peaks
        Thresholds to draw, as they would be passed to `filter_cells_and_features`.
    axes
        Where to draw: seven, and one more for each column of batches or labels, row by row of a
        grid. A new figure by default.

    Returns
    -------
    The axes: depth of RNA and of ATAC, genes and peaks per cell, both depths, the cells that are
    in both modalities or in one, half counts and other values that are no counts, the groups.
    Their ``.figure`` can be saved. Medians are those of the summary, of all cells measured;
    histograms leave out cells without a count, which their titles count.

    Raises
    ------
    TypeError
        If `report` is not what `qc` returns, or something else than axes is given.
    ValueError
        If there are too few or too many axes.

    Examples
    --------
    >>> from scmvp_scvi import datasets, pp
    >>> axes = pp.plot_qc(pp.qc(datasets.synthetic(n_cells=300), batch_key="batch"))
    >>> axes[0].figure.savefig("qc.png")  # doctest: +SKIP
    """
    if not isinstance(report, QualityReport):
        raise TypeError(
            f"`report` must be what `pp.qc` returns, got a {type(report).__name__}. Of data: "
            "`pp.plot_qc(pp.qc(mdata))`."
        )
    n_groups = len(report.groups)
    n_panels = _N_FIXED + n_groups
    panels = given_or_new_panels(
        axes,
        n_panels,
        needed=f"{n_panels} axes, seven and one for each of the {n_groups} columns of the report",
        max_columns=-(-n_panels // 2),
        panel_size=(4, 3.25),
        by_column=True,  # which puts RNA above ATAC
    )
    minima = {"rna": min_genes, "atac": min_peaks}
    for i, (modality, (name, unit)) in enumerate(_NAMES.items()):
        depth = report.cells[f"{modality}_depth"]
        features = report.cells[f"{modality}_features"]
        color = _COLORS[modality]
        medians = [
            report.value(modality, f"{of} per cell, median") for of in ("counts", "features")
        ]
        _draw_histogram(panels[i], depth, features, medians[0], color, f"{name} depth", "counts")
        title = f"{unit} per cell".capitalize()
        _draw_histogram(panels[2 + i], features, features, medians[1], color, title, unit)
        _draw_minimum(panels[2 + i], features, minima[modality])
    _draw_depths(panels[4], report.cells)
    _draw_overlap(panels[5], report)
    _draw_no_counts(panels[6], report)
    for panel, group in zip(panels[_N_FIXED:], report.groups, strict=True):
        of_group = report.summary[report.summary["group"] == group]
        _draw_sizes(panel, of_group.set_index("quantity")["value"], group)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    return panels


def _draw_histogram(
    ax: Axes,
    values: pd.Series,
    features: pd.Series,
    median: float,
    color: str,
    title: str,
    unit: str,
) -> None:
    """Histogram of the cells with a count, on a logarithmic axis; the title counts the others."""
    positive = values[values > 0]
    notes = [] if np.isnan(median) else [f"median {median:.4g}"]
    if len(positive) > 0:
        ax.hist(positive, bins=_logarithmic_bins(positive), color=color)
        _use_logarithm(ax, "x")
        if median > 0:
            ax.axvline(median, color="black", linewidth=1)
    # the sum of values that are no counts may be negative, or no number
    n_empty, n_missing = int((features == 0).sum()), int(features.isna().sum())
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


def _draw_overlap(ax: Axes, report: QualityReport) -> None:
    """A bar of the cells that are there and one of those with a count, split by modality."""
    for row, colors in enumerate(_OVERLAP.values()):
        left = 0.0
        for quantity, color in colors.items():
            n_cells = report.value("both", quantity)
            ax.barh(row, n_cells, left=left, height=0.6, color=color, label=quantity)
            if n_cells > 0:
                ax.text(left + n_cells / 2, row, f"{n_cells:.0f}", ha="center", va="center")
            left += n_cells
    ax.set_yticks(range(len(_OVERLAP)), list(_OVERLAP))
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("cells in both (grey), in RNA (blue) or ATAC (red) alone, in none")
    is_same_order = report.value("both", "same cells in the same order") == 1
    note = "the same cells in the same order" if is_same_order else "other cells or another order"
    _set_title(ax, "Overlap", note)


def _draw_no_counts(ax: Axes, report: QualityReport) -> None:
    """Values that counts have none of, a bar for each kind and modality, its length beside it."""
    height = 0.4
    for i, (modality, (name, _)) in enumerate(_NAMES.items()):
        numbers = [report.value(modality, quantity) for quantity in _NO_COUNTS]
        places = np.arange(len(numbers)) + (i - 0.5) * height
        bars = ax.barh(places, numbers, height=height, color=_COLORS[modality], label=name)
        ax.bar_label(bars, [f"{number:.0f}" for number in numbers], padding=2, fontsize="small")
    ax.set_yticks(range(len(_NO_COUNTS)), list(_NO_COUNTS.values()))
    ax.tick_params(axis="y", labelsize="small", length=0)
    ax.invert_yaxis()
    ax.set_xlabel("stored values of RNA (blue) and ATAC (red)")
    total = sum(report.value(key, quantity) for key in _NAMES for quantity in _NO_COUNTS)
    _set_title(ax, "Values that are no counts", f"{total:.0f}" if total > 0 else "none")


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
