"""Figures of a model's outputs, on axes that are given or new, in the colours of ``rcParams``.

Every function returns the axes that it has drawn on, and shows or saves nothing.
"""

from scmvp_scvi.pl._accessibility_around_gene import accessibility_around_gene
from scmvp_scvi.pl._embedding import embedding
from scmvp_scvi.pl._marker_links import marker_links
from scmvp_scvi.pl._training_curves import training_curves

__all__ = [
    "accessibility_around_gene",
    "embedding",
    "marker_links",
    "training_curves",
]
