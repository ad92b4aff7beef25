"""Colours and axes that fit what the user has set, on light and on dark backgrounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray


def category_colors(n: int) -> NDArray[np.float64]:
    """``(n, 3)``, of ``axes.prop_cycle``, or of a colour map where its colours are too few."""
    cycle = mpl.rcParams["axes.prop_cycle"].by_key().get("color", [])
    if n <= len(cycle):
        return np.array([to_rgb(color) for color in cycle[:n]]).reshape(n, 3)
    # neither end of the map, which are hard to see on light or on dark backgrounds
    return mpl.colormaps["turbo"](np.linspace(0.05, 0.95, n))[:, :3]


def text_color() -> str:
    """Colour of text, which stands out from the background."""
    color: str = mpl.rcParams["text.color"]
    return color


def given_or_new_axes(ax: Any, figsize: tuple[float, float]) -> Axes:
    """Return the axes that a user has given, or one in a figure of its own.

    Raises
    ------
    TypeError
        If several are given, or something else.
    """
    if ax is None:
        return plt.subplots(figsize=figsize, layout="constrained")[1]
    if isinstance(ax, Axes):
        return ax
    several = isinstance(ax, (np.ndarray, list, tuple))
    way_out = "Pass one of them, `ax=axes[0]`." if several else "Leave it out for a new figure."
    raise TypeError(f"`ax` must be one Axes of matplotlib, got a {type(ax).__name__}. {way_out}")


def new_panels(n: int, max_columns: int, panel_size: tuple[float, float]) -> list[Axes]:
    """Several axes in a figure of their own, row by row."""
    n_columns = min(n, max_columns)
    n_rows, (width, height) = -(-n // n_columns), panel_size
    figure, grid = plt.subplots(
        n_rows,
        n_columns,
        figsize=(width * n_columns, height * n_rows),
        squeeze=False,
        layout="constrained",
    )
    panels = list(grid.flat)
    for panel in panels[n:]:
        figure.delaxes(panel)
    return panels[:n]
