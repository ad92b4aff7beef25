"""Cells in two dimensions, coloured by cluster and faded where the cluster is unsure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from scipy.special import entr

from scmvp_scvi._panels import given_or_new_axes
from scmvp_scvi._validate import (
    check_in,
    check_one_of,
    check_probabilities,
    check_same_cells,
)
from scmvp_scvi.pl._style import category_colors, text_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend
    from numpy.typing import ArrayLike, NDArray

_PASS_PROBABILITIES = (
    "Pass `model.get_cluster_probabilities()`; for labels, `pandas.get_dummies(labels)`."
)
_FAINTEST, _SMALLEST = 0.12, 0.15
_LEGEND_FONT = "small"
_ROWS_OF_SURENESS = 5  # of the lower legend, its title and the room above it


def embedding(
    coordinates: ArrayLike,
    probs: pd.DataFrame | ArrayLike,
    *,
    uncertainty: Literal["alpha", "size"] = "alpha",
    size: float | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw cells in the colour of their most probable cluster, sure ones stronger.

    A cell is drawn at full strength if its cluster is certain, and weakest if all clusters are
    equally probable: by the entropy of its probabilities as a share of the largest.

    Parameters
    ----------
    coordinates
        ``(cells, 2)``, such as a UMAP of the embedding.
    probs
        ``(cells, clusters)``, what ``model.get_cluster_probabilities`` returns; clusters of an
        array are numbered. Rows are cells of `coordinates`, in their order.
    uncertainty
        Whether unsure cells are transparent or small.
    size
        Area of a dot in square points; fewer cells have larger dots by default.
    legend
        Whether to name the clusters beside the axes.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        If there is not one row of `probs`, summing to one, for each cell, or both tables name
        their cells, and not in one order; or if coordinates are missing.
    TypeError
        If `coordinates` or `probs` are no numbers, or `ax` is no axes.

    Examples
    --------
    >>> ax = pl.embedding(
    ...     mdata.obsm["X_umap"], model.get_cluster_probabilities()
    ... )  # doctest: +SKIP
    """
    check_one_of(uncertainty, ("alpha", "size"), name="uncertainty")
    points = _numbers(coordinates, "coordinates")
    values = _numbers(probs, "probs", _PASS_PROBABILITIES)
    _check_coordinates(points)
    check_same_cells(probs, coordinates, argument="probs", other="coordinates")
    check_probabilities(values, name="probs", way_out=_PASS_PROBABILITIES)
    if size is not None:
        check_in(size, "(0, inf)", name="size")
    cluster, certainty = values.argmax(axis=1), _certainty(values)
    size = float(np.clip(30_000 / max(len(points), 1), 3, 30)) if size is None else size
    colors = category_colors(values.shape[1])
    fading, shrinking = _faded(certainty), np.full(len(points), size)
    if uncertainty == "size":
        fading, shrinking = np.full(len(points), 0.8), size * _shrunk(certainty)

    ax = given_or_new_axes(ax, (5.5, 4.5))
    # sure cells last, on top
    order = np.argsort(certainty, kind="stable")
    ax.scatter(
        points[order, 0],
        points[order, 1],
        s=shrinking[order],
        c=np.column_stack([colors[cluster], fading])[order],
        linewidths=0,
        rasterized=True,
    )
    ax.set(xticks=[], yticks=[])
    ax.spines[["top", "right", "bottom", "left"]].set_visible(False)
    if legend:
        names = probs.columns if isinstance(probs, pd.DataFrame) else pd.RangeIndex(len(colors))
        _add_legends(ax, names.astype(str), colors, uncertainty)
    return ax


def _numbers(values: Any, argument: str, way_out: str = "") -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`{argument}` must hold numbers, dense, got a {type(values).__name__} that does not. "
            f"{way_out}".rstrip()
        ) from error


def _check_coordinates(points: NDArray[np.float64]) -> None:
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(
            f"`coordinates` must have two columns, got shape {points.shape}. Reduce the embedding "
            "first, for instance with `scanpy.tl.umap`, or pick two dimensions of it."
        )
    n_missing = int((~np.isfinite(points)).any(axis=1).sum())
    if n_missing > 0:
        raise ValueError(
            f"`coordinates` must be finite, but those of {n_missing} of {len(points)} cells are "
            "not. Leave these cells out, here and of `probs`."
        )


def _certainty(probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(cells,)``, 1 for one certain cluster and 0 for equal probabilities of all."""
    n_clusters = probs.shape[1]
    if n_clusters == 1:
        return np.ones(len(probs))
    certainty: NDArray[np.float64] = 1 - entr(probs).sum(axis=1) / np.log(n_clusters)
    return certainty.clip(0, 1)


def _faded(certainty: NDArray[np.float64]) -> NDArray[np.float64]:
    return _FAINTEST + (0.9 - _FAINTEST) * certainty


def _shrunk(certainty: NDArray[np.float64]) -> NDArray[np.float64]:
    return _SMALLEST + (1 - _SMALLEST) * certainty


def _add_legends(
    ax: Axes, names: pd.Index, colors: NDArray[np.float64], uncertainty: Literal["alpha", "size"]
) -> None:
    clusters = [_dot(tuple(c), 0.9, 7, n) for c, n in zip(colors, names, strict=True)]
    n_columns = -(-len(clusters) // _rows_above(ax))
    # A second legend replaces the first unless that one is an artist of its own. These are clipped
    # to the axes, and no room is made for what is clipped.
    above = ax.add_artist(_legend_beside(ax, clusters, "cluster", "upper left", n_columns))
    above.set_clip_on(False)

    levels = np.array([1.0, 0.5, 0.0])
    is_faded = uncertainty == "alpha"
    alphas = _faded(levels) if is_faded else np.full(3, 0.8)
    sizes = 7 * (np.ones(3) if is_faded else np.sqrt(_shrunk(levels)))
    words = ("certain", "", "all equally probable")
    sureness = [
        _dot(text_color(), alpha, size, word)
        for alpha, size, word in zip(alphas, sizes, words, strict=True)
    ]
    _legend_beside(ax, sureness, "cluster of a cell", "lower left")


def _rows_above(ax: Axes) -> int:
    """Rows of the upper legend, without its title, that end above the lower one."""
    points = ax.get_window_extent().height * 72 / ax.figure.dpi
    row = 1.65 * FontProperties(size=_LEGEND_FONT).get_size_in_points()
    return max(1, int(points / row) - 1 - _ROWS_OF_SURENESS)


def _legend_beside(
    ax: Axes,
    handles: list[Line2D],
    title: str,
    loc: Literal["upper left", "lower left"],
    n_columns: int = 1,
) -> Legend:
    return ax.legend(
        handles=handles,
        title=title,
        loc=loc,
        bbox_to_anchor=(1.02, 1.0 if loc == "upper left" else 0.0),
        ncols=n_columns,
        alignment="left",
        borderaxespad=0,
        fontsize=_LEGEND_FONT,
        frameon=False,
        handletextpad=0.2,
        title_fontsize=_LEGEND_FONT,
    )


def _dot(color: Any, alpha: float, size: float, label: str) -> Line2D:
    style: dict[str, Any] = {"linestyle": "", "marker": "o", "markeredgewidth": 0}
    return Line2D([], [], color=color, alpha=alpha, markersize=size, label=label, **style)
