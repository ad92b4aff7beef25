"""Mean accessibility of groups along the genome around a gene, and the links of its peaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, MaxNLocator

from scmvp_scvi._panels import given_or_new_axes
from scmvp_scvi._validate import (
    check_has_columns,
    check_in,
    check_integer_at_least,
    check_table_of_features,
    did_you_mean,
    parse_peak_columns,
)
from scmvp_scvi.pl._style import category_colors, text_color

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_COLUMNS = ("gene", "chrom", "start", "end", "tss", "strand", "score")
# Heights in tracks: bars stay below the next track, arcs take the room above all of them.
_BAR_HEIGHT, _ARC_HEIGHT, _GENE_HEIGHT = 0.82, 1.5, 0.3
# Bars are at least this share of the window wide, or peaks could not be seen.
_NARROWEST = 1 / 250


def accessibility_around_gene(
    links: pd.DataFrame,
    accessibility: pd.DataFrame,
    gene: str,
    *,
    window: int | None = None,
    max_q_value: float | None = 0.05,
    ax: Axes | None = None,
) -> Axes:
    """Draw the peaks around a gene, a track for each group, and its links as arcs above them.

    Bars of all tracks have one scale. The arrow at the TSS points downstream. An arc is the
    thicker the larger its score; negative scores are dashed, and pairs without a score have none.

    Parameters
    ----------
    links
        What `tl.peak_gene_links` returned.
    accessibility
        ``(groups, peaks)``, as `tl.group_means` returns them. Peaks that are not within the
        window are left out.
    gene
        The gene, one of `links`.
    window
        What to show on either side of the TSS, in base pairs; by default all peaks of the gene.
    max_q_value
        Largest q-value of a link to draw; None draws all.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    The axes: positions along x, tracks along y, the first group on top.

    Raises
    ------
    TypeError, KeyError
        If `links` is no table of links, or does not have the gene, or `accessibility` is no table,
        or `ax` is no axes.
    ValueError
        If no peak of `accessibility` is within the window, one is there twice or has values below
        zero, or links are to be chosen by q-values that they do not have, or by no share.

    Examples
    --------
    >>> near = links.loc[links["gene"] == "Gad1", "peak"]  # doctest: +SKIP
    >>> means = tl.group_means(mdata, "cell_type", near, modality="atac")  # doctest: +SKIP
    >>> ax = pl.accessibility_around_gene(links, means, "Gad1")  # doctest: +SKIP
    """
    needed = _COLUMNS if max_q_value is None else (*_COLUMNS, "q_value")
    check_has_columns(links, needed, argument="links", made_by="tl.peak_gene_links")
    check_table_of_features(accessibility, argument="accessibility", made_by="tl.group_means")
    if max_q_value is not None:
        check_in(max_q_value, "(0, 1]", name="max_q_value")
    of_gene = _links_of(links, gene, max_q_value)
    chrom, tss, strand = of_gene[["chrom", "tss", "strand"]].iloc[0]
    chrom = str(chrom)  # a number, if the links were read from a file
    if window is None:
        window = 1 + int(max(tss - of_gene["start"].min(), of_gene["end"].max() - tss))
    check_integer_at_least(window, 1, name="window")
    peaks = _peaks_around(accessibility, gene, chrom, tss, window)
    n_groups = len(accessibility)
    ax = given_or_new_axes(ax, (7.5, 1.4 + 0.42 * n_groups))
    highest = _draw_tracks(ax, accessibility[peaks.index], peaks, window)
    scored = of_gene.dropna(subset="score")
    middle = (scored["start"] + scored["end"]) / 2
    drawn = scored[(middle - tss).abs() <= window]
    if max_q_value is not None:
        drawn = drawn[drawn["q_value"] <= max_q_value]
    _draw_arcs(ax, drawn, n_groups + _GENE_HEIGHT, window)
    _draw_gene(ax, gene, tss, strand, n_groups, window)
    ax.set(
        xlim=(tss - window, tss + window),
        ylim=(-0.1, n_groups + _GENE_HEIGHT + _ARC_HEIGHT),
        xlabel=f"{chrom}, kb",
    )
    ax.set_yticks(np.arange(n_groups)[::-1] + 0.2, accessibility.index.astype(str))
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:,.0f}"))
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_title(f"tracks: 0 to {highest:.2g}", loc="right", fontsize="small")
    return ax


def _links_of(links: pd.DataFrame, gene: str, max_q_value: float | None) -> pd.DataFrame:
    """Links of the gene, with the q-values that they are to be chosen by."""
    of_gene = links[links["gene"] == gene]
    if len(of_gene) == 0:
        names = links["gene"].unique()
        raise KeyError(f"`gene`: `{gene}` is not in `links`.{did_you_mean(gene, names)}")
    scored = of_gene.dropna(subset="score")
    if max_q_value is not None and len(scored) > 0 and scored["q_value"].isna().all():
        raise ValueError(
            f"`max_q_value` needs links with q-values, but those of `{gene}` have none, as after "
            "`tl.peak_gene_links(n_matched=0)`. Pass `max_q_value=None` to draw all of them."
        )
    return of_gene


def _peaks_around(
    accessibility: pd.DataFrame, gene: str, chrom: str, tss: int, window: int
) -> pd.DataFrame:
    """Positions of the peaks within the window, by name; there are some, with values to draw."""
    peaks = parse_peak_columns(accessibility, argument="accessibility")
    is_shown = (peaks["chrom"] == chrom) & (peaks["end"] > tss - window)
    peaks = peaks[is_shown & (peaks["start"] < tss + window)]
    if len(peaks) == 0:
        raise ValueError(
            f"`accessibility` must have peaks within {window} base pairs of the TSS of `{gene}`, "
            f"at {chrom}:{tss}, but has none. Pass those of "
            f'`links.loc[links["gene"] == "{gene}", "peak"]`.'
        )
    if (accessibility[peaks.index] < 0).any(axis=None):
        raise ValueError(
            "`accessibility` must not be below zero, where bars begin, but is around "
            f"`{gene}`. Average counts, or another layer that is not centred."
        )
    return peaks


def _draw_tracks(ax: Axes, values: pd.DataFrame, peaks: pd.DataFrame, window: int) -> float:
    """Draw bars, and return the value that is as high as a track."""
    highest = float(np.nanmax(values.to_numpy(), initial=0))
    width = np.maximum(peaks["end"] - peaks["start"], 2 * window * _NARROWEST)
    middle = (peaks["start"] + peaks["end"]) / 2
    colors = category_colors(len(values))
    for i, (color, heights) in enumerate(zip(colors, values.to_numpy(), strict=True)):
        base = len(values) - 1 - i
        ax.bar(
            middle,
            _BAR_HEIGHT * heights / (highest or 1),
            width=width,
            bottom=base,
            color=tuple(color),
            linewidth=0,
        )
        ax.axhline(base, color=tuple(color), linewidth=0.6)
    return highest


def _draw_arcs(ax: Axes, links: pd.DataFrame, base: float, window: int) -> None:
    strongest = links["score"].abs().max() or 1
    for link in links.itertuples():
        middle = (link.start + link.end) / 2
        # the top of the curve is halfway to its control point
        height = 2 * (_ARC_HEIGHT - 0.1) * np.sqrt(min(abs(middle - link.tss) / window, 1))
        points = [(link.tss, base), ((link.tss + middle) / 2, base + height), (middle, base)]
        strength = abs(link.score) / strongest
        ax.add_patch(
            PathPatch(
                Path(points, [Path.MOVETO, Path.CURVE3, Path.CURVE3]),
                facecolor="none",
                edgecolor=text_color(),
                alpha=0.35 + 0.55 * strength,
                linewidth=0.5 + 1.5 * strength,
                linestyle="-" if link.score >= 0 else "--",
            )
        )


def _draw_gene(ax: Axes, gene: str, tss: int, strand: str, n_groups: int, window: int) -> None:
    color = text_color()
    ax.axvline(tss, color=color, linewidth=0.6, linestyle=":", alpha=0.6, zorder=0)
    direction = {"+": 1, "-": -1}.get(strand, 0)
    middle = n_groups + _GENE_HEIGHT / 2
    if direction != 0:
        ax.annotate(
            "",
            (tss + 0.06 * window * direction, middle),
            (tss, middle),
            arrowprops={"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0},
        )
    ax.annotate(
        gene,
        (tss + 0.08 * window * (direction or 1), middle),
        color=color,
        ha="right" if direction < 0 else "left",
        va="center",
        fontsize="small",
        fontstyle="italic",
    )
