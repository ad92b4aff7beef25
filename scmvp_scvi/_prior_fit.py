"""Fits of the mixture prior to latent means: by Leiden, by a fixed number, or by labels.

numpy in, numpy out; the result is a `MixtureFit` that the prior copies.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anndata as ad
import numpy as np
import scanpy as sc
import torch
from sklearn.mixture import GaussianMixture as SklearnMixture

from scmvp_scvi.distributions._gaussian_mixture import MixtureFit

logger = logging.getLogger(__name__)

_MAX_CELLS = 30_000  # a neighbour graph of more cells adds time and no components
_N_NEIGHBORS = 15
_VARIANCE_FLOOR = 1e-3


@contextmanager
def preserved_torch_threads() -> Iterator[None]:
    """Restore torch's thread count afterwards: numba's OpenMP runtime resets it for the process."""
    n_threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def leiden_labels(
    latent: np.ndarray, resolution: float, n_neighbors: int = _N_NEIGHBORS, seed: int = 0
) -> np.ndarray:
    """Leiden communities of the neighbour graph of the cells.

    Parameters
    ----------
    latent
        ``(cells, latent)``.
    resolution
        Leiden resolution.
    n_neighbors
        Neighbours of each cell in the graph.
    seed
        Of the graph and the partition.

    Returns
    -------
    ``(cells,)``, community numbers from 0, the largest community first.
    """
    adata = ad.AnnData(obsm={"X_latent": np.ascontiguousarray(latent, dtype=np.float32)})
    with preserved_torch_threads():
        sc.pp.neighbors(
            adata,
            n_neighbors=min(n_neighbors, len(latent) - 1),
            use_rep="X_latent",
            random_state=seed,
        )
        sc.tl.leiden(
            adata,
            resolution=resolution,
            flavor="igraph",
            n_iterations=2,
            directed=False,
            random_state=seed,
        )
    return adata.obs["leiden"].astype(int).to_numpy()


def mixture_from_labels(
    latent: np.ndarray, labels: np.ndarray, groups: Sequence[int]
) -> MixtureFit:
    """Weights, means and variances of labelled groups of cells.

    Variances of small groups are shrunk towards the average within-group variance, as if each
    group had ``latent`` cells more that vary like the average.

    Parameters
    ----------
    latent
        ``(cells, latent)``.
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
    members = [latent[labels == group] for group in groups]
    means = np.stack([cells.mean(0) for cells in members])
    squares = np.stack([((cells - cells.mean(0)) ** 2).sum(0) for cells in members])
    pooled = squares.sum(0) / sizes.sum()
    pseudo_cells = latent.shape[1]
    variances = (squares + pseudo_cells * pooled) / (sizes + pseudo_cells)[:, None]
    return MixtureFit(sizes / sizes.sum(), means, np.maximum(variances, _VARIANCE_FLOOR))


def fit_mixture(
    latent: np.ndarray,
    n_clusters: int | None,
    max_clusters: int,
    resolution: float,
    seed: int,
) -> MixtureFit:
    """Fit a mixture of diagonal Gaussians to latent means.

    Parameters
    ----------
    latent
        ``(cells, latent)``.
    n_clusters
        Number of components, by expectation-maximisation from k-means; None for one component a
        Leiden community.
    max_clusters
        Components the prior has room for. The largest communities are kept; the cells of the
        others fall to whatever component explains them.
    resolution
        Leiden resolution.
    seed
        Of every draw.
    """
    generator = np.random.default_rng(seed)
    if len(latent) > _MAX_CELLS:
        latent = latent[generator.choice(len(latent), _MAX_CELLS, replace=False)]
    latent = latent.astype(np.float64)
    if n_clusters is None:
        labels = leiden_labels(latent, resolution, seed=seed)
        n_found = labels.max() + 1
        if n_found > max_clusters:
            logger.warning(
                "Leiden found %d communities and the prior has room for %d; the smallest are "
                "left out.",
                n_found,
                max_clusters,
            )
        return mixture_from_labels(latent, labels, range(min(n_found, max_clusters)))
    mixture = SklearnMixture(
        n_clusters,
        covariance_type="diag",
        init_params="kmeans",
        reg_covar=_VARIANCE_FLOOR,
        random_state=seed,
    ).fit(latent)
    weights = np.maximum(mixture.weights_, 1e-6)
    return MixtureFit(weights / weights.sum(), mixture.means_, mixture.covariances_)
