"""Neighbour graphs and their communities, through scanpy, without its side effect on torch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anndata as ad
import numpy as np
import scanpy as sc
import torch


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
        ``(cells, latent)``.
    resolutions
        Leiden resolutions.
    n_neighbors
        Neighbours of each cell in the graph.
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
        partitions = []
        for resolution in resolutions:
            sc.tl.leiden(
                adata,
                resolution=resolution,
                flavor="igraph",
                n_iterations=2,
                directed=False,
                random_state=seed,
            )
            partitions.append(adata.obs["leiden"].astype(int).to_numpy())
    return partitions
