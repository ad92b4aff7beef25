"""How far clusterings of the same cells agree, such as those of trainings with other seeds."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from scmvp_scvi._validate import shown


class ClusteringStability(NamedTuple):
    """What clusterings have in common, pair by pair and cell by cell.

    Parameters
    ----------
    pairs
        ``(pairs, 2)``, ``ari`` and ``nmi`` of each two clusterings, indexed by their names.
    cells
        ``(cells,)``, from 0 to 1: of the cells that either of two clusterings puts with a cell,
        the share that both do, itself counted; averaged over the pairs.
    """

    pairs: pd.DataFrame
    cells: pd.Series


def clustering_stability(clusterings: pd.DataFrame) -> ClusteringStability:
    """Compare clusterings of the same cells: what seeds change is not in the data.

    Clusters need not have the same names, nor be as many. The value of a cell is the Jaccard index
    of its clusters, by which Hennig :cite:p:`Hennig2007` judges clusters; its mean over a cluster
    says whether the others found that cluster too.

    Parameters
    ----------
    clusterings
        ``(cells, clusterings)``, the cluster of each cell, such as
        ``pd.DataFrame({seed: model.predict_clusters() for seed, model in models.items()})``.

    Raises
    ------
    TypeError
        If it is no table.
    ValueError
        If there is one clustering alone, or no cell, or a cell has no cluster in one of them.

    Examples
    --------
    >>> runs = pd.DataFrame({"seed 0": list("aabb"), "seed 1": list("xxxy")})
    >>> clustering_stability(runs).cells.round(2).tolist()
    [0.67, 0.67, 0.25, 0.5]
    """
    if not isinstance(clusterings, pd.DataFrame):
        raise TypeError(
            "`clusterings` must be a table with a column for each clustering, got "
            f"{type(clusterings).__name__}: `pd.DataFrame({{0: clusters, 1: others}})`."
        )
    n_cells, n_clusterings = clusterings.shape
    if n_clusterings < 2 or n_cells == 0:
        raise ValueError(
            "`clusterings` must have at least two clusterings of a cell or more, got "
            f"{n_clusterings} of {n_cells} cells: train again with another seed."
        )
    lost = clusterings.isna().to_numpy()
    if lost.any():
        raise ValueError(
            f"`clusterings` must have a cluster for each cell, but {lost.any(1).sum()} of "
            f"{n_cells} lack one in {shown(clusterings.columns[lost.any(0)])}: compare the cells "
            "that all of them have, `clusterings.dropna()`."
        )
    codes = [pd.factorize(clusterings.iloc[:, i])[0] for i in range(n_clusterings)]
    names, agreement, total = [], [], np.zeros(n_cells)
    for i, j in combinations(range(n_clusterings), 2):
        names.append((clusterings.columns[i], clusterings.columns[j]))
        agreement.append(
            {
                "ari": adjusted_rand_score(codes[i], codes[j]),
                "nmi": normalized_mutual_info_score(codes[i], codes[j]),
            }
        )
        total += _jaccard(codes[i], codes[j])
    pairs = pd.DataFrame(agreement, index=pd.MultiIndex.from_tuples(names, names=["one", "other"]))
    cells = pd.Series(total / len(pairs), index=clusterings.index, name="stability")
    return ClusteringStability(pairs, cells)


def _jaccard(codes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """``(cells,)``, Jaccard index of the two clusters that each cell is in."""
    shared = contingency_matrix(codes, others, sparse=True)
    of_codes, of_others = (np.bincount(clusters)[clusters] for clusters in (codes, others))
    in_both = np.asarray(shared[codes, others]).ravel()
    return in_both / (of_codes + of_others - in_both)
