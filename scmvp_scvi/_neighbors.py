"""Neighbour graphs and their communities, through scanpy, without its side effect on torch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anndata as ad
import numpy as np
import scanpy as sc
import torch
from scipy import sparse
from scipy.stats import gaussian_kde
from sklearn.neighbors import NearestNeighbors

FEWEST_CELLS_OF_A_GRAPH = 3
_FEW_CELLS = 5_000
_BLURRED = 1 / 5  # share of neighbours in other communities
_TOUCHING = 1 / 5  # few cells are merged from this share of the limit of many cells on
_GAP = 0.85  # density between two communities over that at their peaks


@contextmanager
def preserved_torch_threads() -> Iterator[None]:
    """Restore torch's thread count afterwards: numba's OpenMP runtime resets it for the process.

    A model trained with another number of threads than it started with can be ten times slower.
    """
    n_threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def leiden_partitions(
    latent: np.ndarray,
    resolutions: Sequence[float],
    n_neighbors: int = 15,
    seed: int = 0,
) -> list[np.ndarray]:
    """Leiden communities of the neighbour graph of the cells, at several resolutions.

    Parameters
    ----------
    latent
        ``(cells, latent)``, of at least `FEWEST_CELLS_OF_A_GRAPH` cells.
    resolutions
        Leiden resolutions.
    n_neighbors
        Neighbours of each cell in the graph, itself among them: 2 or more.
    seed
        Of the graph and the partitions.

    Returns
    -------
    One array ``(cells,)`` a resolution: community numbers from 0, the largest community first.
    """
    adata = ad.AnnData(obsm={"X_latent": np.ascontiguousarray(latent, dtype=np.float32)})
    with preserved_torch_threads():
        sc.pp.neighbors(
            adata,
            n_neighbors=min(n_neighbors, len(latent) - 1),
            use_rep="X_latent",
            random_state=seed,
        )
    return leiden_partitions_of_graph(adata.obsp["connectivities"], resolutions, seed)


def leiden_partitions_of_graph(
    graph: sparse.csr_matrix, resolutions: Sequence[float], seed: int = 0
) -> list[np.ndarray]:
    """Leiden communities of a neighbour graph, at several resolutions.

    Parameters
    ----------
    graph
        ``(cells, cells)``, symmetric weights.
    resolutions, seed
        As in `leiden_partitions`.

    Returns
    -------
    As `leiden_partitions`.
    """
    adata = ad.AnnData(obsp={"graph": graph}, shape=(graph.shape[0], 0))
    partitions = []
    with preserved_torch_threads():
        for resolution in resolutions:
            sc.tl.leiden(
                adata,
                resolution=resolution,
                obsp="graph",
                flavor="igraph",
                n_iterations=2,
                directed=False,
                random_state=seed,
            )
            partitions.append(_largest_first(adata.obs["leiden"].astype(int).to_numpy()))
    return partitions


def merge_communities(latent: np.ndarray, labels: np.ndarray, n_neighbors: int = 15) -> np.ndarray:
    """Merge communities that a graph clustering has cut out of one cloud of cells.

    Leiden at a fixed resolution cuts large homogeneous types into pieces, whose cells then have
    many of their nearest neighbours in the next piece; the cells of distinct types have hardly
    any. The two communities with the largest mutual share of neighbours are merged, again and
    again, until no two share more than one neighbour in ``n_neighbors``.

    Among fewer than 5,000 cells the share says less: neighbours reach further, across borders of
    types, and the latent has fewer dimensions, in which pieces of a type share less. There two
    communities that share a fifth of that are merged if there is no gap between them.

    In shallow data no two communities are distinct, and all would become one or two: where more
    than a fifth of all neighbours lie in another community, the communities stay as they are.

    Parameters
    ----------
    latent
        ``(cells, latent)``.
    labels
        ``(cells,)``, community numbers from 0.
    n_neighbors
        Neighbours of each cell.

    Returns
    -------
    ``(cells,)``, community numbers from 0, the largest community first.
    """
    n_neighbors = min(n_neighbors, len(latent) - 1)
    finder = NearestNeighbors(n_neighbors=n_neighbors + 1).fit(latent)
    neighbors = finder.kneighbors(latent, return_distance=False)[:, 1:]
    n_communities = labels.max() + 1
    # links[a, b]: how often a cell of a has a neighbour in b
    links = np.zeros((n_communities, n_communities))
    np.add.at(links, (np.repeat(labels, n_neighbors), labels[neighbors].ravel()), 1)
    if 1 - np.trace(links) / links.sum() > _BLURRED:
        return _largest_first(labels)
    group = np.arange(n_communities)
    while (pair := _pair_to_merge(latent, labels, links, group, n_neighbors)) is not None:
        first, second = pair
        group = np.unique(np.where(group == second, first, group), return_inverse=True)[1]
    return _largest_first(group[labels])


def _pair_to_merge(
    latent: np.ndarray, labels: np.ndarray, links: np.ndarray, group: np.ndarray, n_neighbors: int
) -> tuple[int, int] | None:
    """The two groups of communities that share most neighbours, of those that are to be merged."""
    merged = _sum_groups(links, group)
    shares = merged / np.maximum(merged.sum(1, keepdims=True), 1)
    mutual = np.triu((shares + shares.T) / 2, k=1)
    few_cells = len(latent) < _FEW_CELLS
    limit = (_TOUCHING if few_cells else 1) / n_neighbors
    of_cells = group[labels]
    for place in np.argsort(-mutual, axis=None):
        a, b = np.unravel_index(place, mutual.shape)
        if mutual[a, b] <= limit:
            break
        if not few_cells or not _has_gap(latent[of_cells == a], latent[of_cells == b]):
            return int(a), int(b)
    return None


def _has_gap(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether cells are sparser between two groups than at their peaks, on the line of means.

    Each dimension is weighed by the variance within the groups, and each group counts alike.
    """
    within = (first.var(0) * len(first) + second.var(0) * len(second)) / (len(first) + len(second))
    difference = second.mean(0) - first.mean(0)
    if not within.any():  # all cells of a group in one place
        return bool(difference.any())
    # a tenth of the mean variance keeps dimensions that hardly vary from deciding alone
    axis = difference / (within + within.mean() / 10)
    place = (np.concatenate([first, second]) - first.mean(0)) @ axis / (difference @ axis)
    weights = np.repeat([1 / len(first), 1 / len(second)], [len(first), len(second)])
    points = np.linspace(-0.2, 1.2, 57)  # the means lie at 0 and 1
    density = gaussian_kde(place, weights=weights)(points)
    between = density[(points > 0.2) & (points < 0.8)].min()
    return bool(between < _GAP * min(density[points <= 0.4].max(), density[points >= 0.6].max()))


def _largest_first(labels: np.ndarray) -> np.ndarray:
    """Renumber groups by size."""
    order = np.argsort(-np.bincount(labels), kind="stable")
    return np.argsort(order)[labels]


def _sum_groups(links: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Add up the rows and columns of communities that belong to one group."""
    members = np.eye(group.max() + 1)[group]
    return members.T @ links @ members
