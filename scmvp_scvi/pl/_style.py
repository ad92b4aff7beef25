"""Colours that fit what the user has set, on light and on dark backgrounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
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
