"""Fits of the mixture prior to latent means: by Leiden, by a fixed number, or by labels.

numpy in, numpy out; the result is a `MixtureFit` that the prior copies.
"""

import logging
from collections.abc import Sequence

import numpy as np
from sklearn.mixture import GaussianMixture as SklearnMixture

from scmvp_scvi._neighbors import (
    FEWEST_CELLS_OF_A_GRAPH,
    leiden_partitions,
    merge_communities,
)
from scmvp_scvi.distributions._gaussian_mixture import MixtureFit

logger = logging.getLogger(__name__)

MAX_CELLS = 30_000  # a neighbour graph of more cells adds time and no components
_VARIANCE_FLOOR = 1e-3


def mixture_from_labels(
    latent: np.ndarray, latent_variances: np.ndarray, labels: np.ndarray, groups: Sequence[int]
) -> MixtureFit:
    """Weights, means and variances of labelled groups of cells.

    The variance of a component is that of the group's posterior: the variance of the means plus
    the mean of the variances, without which the KL to the new prior would start far too large.
    It is shrunk towards the average within-group variance, as if each group had ``latent`` cells
    more that vary like the average.

    Parameters
    ----------
    latent, latent_variances
        ``(cells, latent)``, posterior means and variances.
    labels
        ``(cells,)``, group numbers.
    groups
        Numbers of the groups that become components, in this order; other cells are left out.

    Raises
    ------
    ValueError
        If a group has no cell.
    """
    sizes = np.array([(labels == group).sum() for group in groups], dtype=float)
    if (sizes == 0).any():
        empty = [group for group, size in zip(groups, sizes, strict=True) if size == 0]
        raise ValueError(
            f"Each label that seeds a component needs a training cell, but {empty} (codes) have "
            "none: merge rare labels, or train on more cells."
        )
    members = [labels == group for group in groups]
    means = np.stack([latent[rows].mean(0) for rows in members])
    squares = np.stack(
        [
            ((latent[rows] - mean) ** 2 + latent_variances[rows]).sum(0)
            for rows, mean in zip(members, means, strict=True)
        ]
    )
    pooled = squares.sum(0) / sizes.sum()
    pseudo_cells = latent.shape[1]
    variances = (squares + pseudo_cells * pooled) / (sizes + pseudo_cells)[:, None]
    return MixtureFit(sizes / sizes.sum(), means, np.maximum(variances, _VARIANCE_FLOOR))


def fit_mixture(
    latent: np.ndarray,
    latent_variances: np.ndarray,
    n_clusters: int | None,
    max_clusters: int,
    resolution: float,
    seed: int,
) -> MixtureFit:
    """Fit a mixture of diagonal Gaussians to the posteriors of the cells.

    Parameters
    ----------
    latent, latent_variances
        ``(cells, latent)``, posterior means and variances.
    n_clusters
        Number of components, by expectation-maximisation from k-means; None for one component a
        Leiden community, after communities that share many neighbours have been merged. Fewer than
        three cells, which have no neighbour graph, are one community.
    max_clusters
        Components the prior has room for. The largest communities are kept; the cells of the
        others fall to whatever component explains them.
    resolution
        Leiden resolution.
    seed
        Of every draw.
    """
    if len(latent) > MAX_CELLS:
        rows = np.random.default_rng(seed).choice(len(latent), MAX_CELLS, replace=False)
        latent, latent_variances = latent[rows], latent_variances[rows]
    latent = latent.astype(np.float64)
    if n_clusters is None:
        if len(latent) < FEWEST_CELLS_OF_A_GRAPH:
            labels = np.zeros(len(latent), dtype=int)
        else:
            (labels,) = leiden_partitions(latent, [resolution], seed=seed)
            labels = merge_communities(latent, labels)
        n_found = labels.max() + 1
        if n_found > max_clusters:
            logger.warning(
                "Leiden found %d communities and the prior has room for %d; the smallest are "
                "left out.",
                n_found,
                max_clusters,
            )
        groups = range(min(n_found, max_clusters))
        return mixture_from_labels(latent, latent_variances, labels, groups)
    mixture = SklearnMixture(
        n_clusters,
        covariance_type="diag",
        init_params="kmeans",
        reg_covar=_VARIANCE_FLOOR,
        random_state=seed,
    ).fit(latent)
    weights = np.maximum(mixture.weights_, 1e-6)
    # what the cells' own posteriors add to each component's spread
    shares = mixture.predict_proba(latent) / (len(latent) * weights)
    return MixtureFit(
        weights / weights.sum(),
        mixture.means_,
        mixture.covariances_ + shares.T @ latent_variances,
    )
