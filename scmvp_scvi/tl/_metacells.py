"""Groups of like cells, whose sums are less sparse than the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.cluster import KMeans

from scmvp_scvi._validate import check_integer_at_least, finite_table

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def metacells(
    embedding: ArrayLike, *, cells_per_metacell: int = 20, seed: int = 0
) -> NDArray[np.str_]:
    """Group cells that are near one another, by k-means.

    Parameters
    ----------
    embedding
        ``(cells, dimensions)``, such as ``model.get_latent_representation()``.
    cells_per_metacell
        Mean size of a group.
    seed
        Of k-means.

    Returns
    -------
    ``(cells,)``, names ``"metacell_0"``, ``"metacell_1"``, ... for a column of ``mdata.obs`` to
    be passed as ``groupby``.

    Raises
    ------
    TypeError
        If `embedding` is sparse.
    ValueError
        If `embedding` is not a table of finite numbers, or has fewer cells than one group.

    Examples
    --------
    >>> mdata.obs["metacell"] = tl.metacells(mdata.obsm["X_scmvp"])  # doctest: +SKIP
    >>> links = tl.peak_gene_links(mdata, groupby="metacell")  # doctest: +SKIP
    """
    check_integer_at_least(cells_per_metacell, 1, name="cells_per_metacell")
    check_integer_at_least(seed, 0, name="seed")
    points = finite_table(embedding, name="embedding")
    n_groups = len(points) // cells_per_metacell
    if n_groups < 1:
        raise ValueError(
            f"`cells_per_metacell` must be at most the number of cells, {len(points)}, got "
            f"{cells_per_metacell}."
        )
    labels = KMeans(n_groups, n_init=1, random_state=seed).fit_predict(points)
    return np.char.add("metacell_", labels.astype(str))
