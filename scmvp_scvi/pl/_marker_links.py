"""Genes beside the peaks that are linked to them, by cell type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scmvp_scvi._panels import given_or_new_panels
from scmvp_scvi._validate import (
    check_has_columns,
    check_integer_at_least,
    check_table_of_features,
    shown,
)
from scmvp_scvi.pl._style import text_color

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

_COLOR_MAPS = ("viridis", "plasma")


def marker_links(
    links: pd.DataFrame,
    expression: pd.DataFrame,
    accessibility: pd.DataFrame,
    *,
    max_links: int = 40,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Draw a row for each link: expression of the gene, and accessibility of its peak.

    Rows are sorted by the group in which their gene is highest. Each row is scaled from its
    lowest to its highest group, so that the two sides can be compared.

    Parameters
    ----------
    links
        Rows of what `tl.peak_gene_links` returned, such as the best links of marker genes.
    expression
        ``(groups, genes)``, as `tl.group_means` returns them; others than those of `links` may
        be among them.
    accessibility
        ``(groups, peaks)``, the same groups in the same order.
    max_links
        Largest number of rows: the links with the highest scores.
    axes
        Where to draw, two; a new figure by default.

    Returns
    -------
    The axes of expression and of accessibility.

    Raises
    ------
    TypeError, KeyError
        If `links` is no table of links, or something else than axes is given.
    ValueError
        If there are no links, the groups differ, a gene or a peak is missing, or there are too
        few or too many axes.

    Examples
    --------
    >>> found = links[links["q_value"] < 0.05].nlargest(20, "score")  # doctest: +SKIP
    >>> rna = tl.group_means(
    ...     mdata, "cell_type", found["gene"].unique(), modality="rna"
    ... )  # doctest: +SKIP
    >>> atac = tl.group_means(
    ...     mdata, "cell_type", found["peak"].unique(), modality="atac"
    ... )  # doctest: +SKIP
    >>> axes = pl.marker_links(found, rna, atac)  # doctest: +SKIP
    """
    check_integer_at_least(max_links, 1, name="max_links")
    _check_tables(links, expression, accessibility)
    rows = links.nlargest(max_links, "score")
    highest = expression[rows["gene"]].to_numpy().argmax(axis=0)
    rows = rows.iloc[np.lexsort([rows["distance"], rows["gene"], highest])]
    size = (1.5 + 0.25 * len(expression), 1.8 + 0.18 * len(rows))
    panels = given_or_new_panels(axes, 2, needed="two axes", max_columns=2, panel_size=size)
    sides = (
        ("expression", expression[rows["gene"]]),
        ("accessibility", accessibility[rows["peak"]]),
    )
    for ax, color_map, (title, values) in zip(panels, _COLOR_MAPS, sides, strict=True):
        image = ax.imshow(_scaled(values), cmap=color_map, aspect="auto", interpolation="nearest")
        ax.set_title(title, fontsize="medium")
        ax.set_xticks(range(len(expression)), expression.index.astype(str), rotation=90)
        ax.tick_params(length=0, labelsize="small")
        ax.spines[:].set_visible(False)
        bar = ax.figure.colorbar(image, ax=ax, location="bottom", shrink=0.6, aspect=12, pad=0.03)
        bar.set_ticks([0, 1], labels=["lowest", "highest"])
        bar.ax.tick_params(length=0, labelsize="x-small")
        bar.outline.set_visible(False)
    genes = rows["gene"].tolist()
    named = [gene if i == 0 or gene != genes[i - 1] else "" for i, gene in enumerate(genes)]
    panels[0].set_yticks(range(len(rows)), named)
    panels[1].yaxis.tick_right()
    panels[1].set_yticks(range(len(rows)), [_signed_kilobases(d) for d in rows["distance"]])
    panels[1].yaxis.set_label_position("right")
    panels[1].set_ylabel("from the TSS", color=text_color(), fontsize="small")
    return panels


def _check_tables(
    links: pd.DataFrame, expression: pd.DataFrame, accessibility: pd.DataFrame
) -> None:
    needed = ("gene", "peak", "distance", "score")
    check_has_columns(links, needed, argument="links", made_by="tl.peak_gene_links")
    if len(links) == 0:
        raise ValueError("`links` must have at least one link, got none.")
    for table, name in ((expression, "expression"), (accessibility, "accessibility")):
        check_table_of_features(table, argument=name, made_by="tl.group_means")
    if not expression.index.equals(accessibility.index):
        raise ValueError(
            "`expression` and `accessibility` must have the same groups in the same order, got "
            f"{shown(expression.index)} and {shown(accessibility.index)}."
        )
    for argument, column, table in (
        ("expression", "gene", expression),
        ("accessibility", "peak", accessibility),
    ):
        missing = links.loc[~links[column].isin(table.columns), column].unique()
        if len(missing) > 0:
            raise ValueError(
                f"`{argument}` must have every {column} of `links`, but {len(missing)} are "
                f"missing: {shown(missing)}. Ask `tl.group_means` for "
                f'`links["{column}"].unique()`.'
            )


def _scaled(values: pd.DataFrame) -> np.ndarray:
    """``(rows, groups)``, each row from 0 to 1; 0 throughout where nothing varies."""
    rows = values.to_numpy(dtype=float).T
    low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    return (rows - low) / np.where(high > low, high - low, 1)


def _signed_kilobases(distance: float) -> str:
    digits = 1 if abs(distance) < 10_000 else 0
    return f"{distance / 1000:+.{digits}f} kb".replace("-", "\N{MINUS SIGN}")
