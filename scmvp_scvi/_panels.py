"""Axes to draw on: those that a user has given, or new ones in a figure of their own."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes


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


def given_or_new_panels(
    axes: Any,
    n: int,
    *,
    needed: str,
    max_columns: int,
    panel_size: tuple[float, float],
    by_column: bool = False,
) -> list[Axes]:
    """Return several axes that a user has given, or as many in a figure of their own.

    Parameters
    ----------
    axes
        What the user passed, row by row where it is a grid; None for a new figure.
    n, needed
        How many there must be, and the same in words, such as ``"two axes"``.
    max_columns, panel_size
        Of the new figure, whose last row may be shorter.
    by_column
        Whether the new figure is filled column by column.

    Raises
    ------
    TypeError
        If something else than axes is given.
    ValueError
        If there are too few or too many.
    """
    if axes is None:
        return _new_panels(n, max_columns, panel_size, by_column)
    panels = list(np.asarray(axes, object).flat)
    others = [type(panel).__name__ for panel in panels if not isinstance(panel, Axes)]
    if others:
        raise TypeError(
            f"`axes` must be Axes of matplotlib, got something of type `{others[0]}`. Pass those "
            "that `matplotlib.pyplot.subplots` returns, or leave it out for a new figure."
        )
    if len(panels) != n:
        raise ValueError(f"`axes` must have {needed}, got {len(panels)}.")
    return panels


def _new_panels(
    n: int, max_columns: int, panel_size: tuple[float, float], by_column: bool
) -> list[Axes]:
    n_columns = min(n, max_columns)
    n_rows, (width, height) = -(-n // n_columns), panel_size
    figure, grid = plt.subplots(
        n_rows,
        n_columns,
        figsize=(width * n_columns, height * n_rows),
        squeeze=False,
        layout="constrained",
    )
    panels = list((grid.T if by_column else grid).flat)
    for panel in panels[n:]:
        figure.delaxes(panel)
    return panels[:n]
