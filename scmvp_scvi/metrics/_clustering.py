"""Agreement of embeddings and clusterings with known labels: arrays in, numbers out."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy.special import entr
from sklearn.metrics import (
    adjusted_rand_score,
    f1_score,
    normalized_mutual_info_score,
)
from sklearn.neighbors import KNeighborsClassifier

from scmvp_scvi._neighbors import FEWEST_CELLS_OF_A_GRAPH, leiden_partitions
from scmvp_scvi._validate import (
    check_in,
    check_integer_at_least,
    check_probabilities,
    check_same_cells,
    finite_table,
)

#: Resolutions that `leiden_agreement` tries by default, from a handful of clusters to dozens.
LEIDEN_RESOLUTIONS = (
    0.05,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    1.0,
    1.2,
    1.4,
    1.6,
    1.8,
    2.0,
)


def leiden_agreement(
    latent: np.ndarray,
    labels: np.ndarray,
    resolutions: Sequence[float] = LEIDEN_RESOLUTIONS,
    n_neighbors: int = 15,
    seed: int = 0,
) -> pd.DataFrame:
    """Agreement of Leiden clusterings of an embedding with labels, over a range of resolutions.

    Parameters
    ----------
    latent
        ``(cells, dimensions)``.
    labels
        ``(cells,)``.
    resolutions
        Leiden resolutions.
    n_neighbors
        Neighbours of each cell in the graph, itself among them, as scanpy counts them.
    seed
        Of the graph and the clusterings.

    Returns
    -------
    One row a resolution: ``resolution``, ``n_clusters``, ``nmi``, ``ari``.

    Raises
    ------
    TypeError, ValueError
        If `latent` is no table of finite numbers, there is not one label for each cell, tables of
        both name their cells in different orders, there are fewer than three cells, or a number is
        out of range.
    """
    check_integer_at_least(n_neighbors, 2, name="n_neighbors")
    check_integer_at_least(seed, 0, name="seed")
    if not isinstance(resolutions, Iterable):
        raise TypeError(f"`resolutions` must be a list, got {resolutions!r}: [{resolutions!r}]?")
    resolutions = list(resolutions)
    for resolution in resolutions:
        check_in(resolution, "[0, inf)", name="resolutions")
    _check_labelled(latent, labels, "latent", "labels")
    if len(latent) < FEWEST_CELLS_OF_A_GRAPH:
        raise ValueError(
            f"`latent` must have at least {FEWEST_CELLS_OF_A_GRAPH} cells, got {len(latent)}: "
            "fewer have no graph of neighbours. Pass those of more cells."
        )
    partitions = leiden_partitions(latent, resolutions, n_neighbors, seed)
    return partition_agreement(partitions, labels, resolutions)


def partition_agreement(
    partitions: Sequence[np.ndarray], labels: np.ndarray, resolutions: Sequence[float]
) -> pd.DataFrame:
    """Agreement of partitions with labels.

    Parameters
    ----------
    partitions
        One array ``(cells,)`` a resolution.
    labels
        ``(cells,)``.
    resolutions
        Of the partitions.

    Returns
    -------
    As `leiden_agreement`.
    """
    return pd.DataFrame(
        {
            "resolution": list(resolutions),
            "n_clusters": [len(np.unique(found)) for found in partitions],
            "nmi": [normalized_mutual_info_score(labels, found) for found in partitions],
            "ari": [adjusted_rand_score(labels, found) for found in partitions],
        }
    )


def label_transfer_f1(
    train_latent: np.ndarray,
    train_labels: np.ndarray,
    test_latent: np.ndarray,
    test_labels: np.ndarray,
    n_neighbors: int = 15,
) -> float:
    """Macro-F1 of labels that held-out cells take from their nearest training cells.

    Parameters
    ----------
    train_latent, test_latent
        ``(cells, dimensions)``.
    train_labels, test_labels
        ``(cells,)``.
    n_neighbors
        Training cells that vote.

    Returns
    -------
    The F1 score averaged over the labels of the held-out cells, each counting the same however
    rare it is.

    Raises
    ------
    TypeError, ValueError
        If a latent is no table of finite numbers, there is not one label for each cell, tables of
        both name their cells in different orders, or there are fewer training cells than vote.
    """
    check_integer_at_least(n_neighbors, 1, name="n_neighbors")
    _check_labelled(train_latent, train_labels, "train_latent", "train_labels")
    _check_labelled(test_latent, test_labels, "test_latent", "test_labels")
    if n_neighbors > len(train_labels):
        raise ValueError(
            f"`n_neighbors` must be at most the number of training cells, {len(train_labels)}, "
            f"got {n_neighbors}. Lower it, or train on more cells."
        )
    classifier = KNeighborsClassifier(n_neighbors).fit(train_latent, train_labels)
    predicted = classifier.predict(test_latent)
    # a label that is predicted alone has lowered the F1 of the label it was taken for already
    present = np.unique(test_labels)
    return float(f1_score(test_labels, predicted, labels=present, average="macro"))


def mean_entropy(probs: np.ndarray) -> float:
    """Mean entropy of rows of probabilities, in nats.

    Parameters
    ----------
    probs
        ``(cells, clusters)``, rows summing to one.

    Raises
    ------
    ValueError
        If a row does not sum to one, or a value is negative or NaN.
    """
    values = np.asarray(probs)
    way_out = "Divide by the sums of the rows: `probs / probs.sum(1, keepdims=True)`."
    check_probabilities(values, name="probs", way_out=way_out)
    return float(entr(values).sum(1).mean())


def _check_labelled(
    latent: np.ndarray, labels: np.ndarray, latent_name: str, labels_name: str
) -> None:
    """Refuse an embedding that is no table, and labels that are not one for each cell of it."""
    finite_table(latent, name=latent_name)
    check_same_cells(labels, latent, argument=labels_name, other=latent_name)
    n_missing = int(pd.isna(labels).sum())
    if n_missing > 0:
        raise ValueError(
            f"`{labels_name}` must have a label for each cell, but {n_missing} of {len(labels)} "
            f"are missing. Name them, or leave out these cells, of `{latent_name}` too."
        )
