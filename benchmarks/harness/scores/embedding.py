"""How well embeddings, neighbour graphs and cluster posteriors agree with labels of the cells."""

import warnings

import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.metrics import (
    accuracy_score,
    adjusted_rand_score,
    f1_score,
    normalized_mutual_info_score,
)
from sklearn.neighbors import KNeighborsClassifier, kneighbors_graph

from harness.scores.imputation import expected_calibration_error
from scmvp_scvi._neighbors import leiden_partitions_of_graph, preserved_torch_threads
from scmvp_scvi.metrics import LEIDEN_RESOLUTIONS, leiden_agreement, mean_entropy
from scmvp_scvi.metrics._clustering import partition_agreement

N_NEIGHBORS = 15
COLLAPSED = 1e-2  # standard deviation below which a latent dimension says nothing
MOST_CONFIDENCE_BINS = 15
Scores = dict[str, float]


def best_agreement(sweep: pd.DataFrame) -> Scores:
    """Best values over the resolutions of Leiden, as the field reports them."""
    best = sweep.loc[sweep["ari"].idxmax()]
    return {
        "nmi": float(sweep["nmi"].max()),
        "ari": float(sweep["ari"].max()),
        "best_resolution": float(best["resolution"]),
        "best_n_clusters": int(best["n_clusters"]),
    }


def leiden_scores(latent: np.ndarray, labels: np.ndarray, seed: int) -> Scores:
    """Agreement of Leiden with the labels, at the best of its resolutions."""
    return best_agreement(leiden_agreement(latent, labels, seed=seed))


def leiden_scores_of_graph(graph: sparse.csr_matrix, labels: np.ndarray, seed: int) -> Scores:
    """Agreement of Leiden on a given graph, at the same resolutions."""
    partitions = leiden_partitions_of_graph(graph, LEIDEN_RESOLUTIONS, seed)
    return best_agreement(partition_agreement(partitions, labels, LEIDEN_RESOLUTIONS))


def agreement(labels: np.ndarray, clusters: np.ndarray) -> Scores:
    """NMI and ARI of a clustering with the labels."""
    return {
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "ari": float(adjusted_rand_score(labels, clusters)),
    }


def kmeans_scores(latent: np.ndarray, labels: np.ndarray, seed: int) -> Scores:
    """Agreement of k-means at the true number of labels."""
    with preserved_torch_threads():
        found = KMeans(len(np.unique(labels)), n_init=10, random_state=seed).fit_predict(latent)
    return agreement(labels, found)


def transfer_scores(labels: np.ndarray, predicted: np.ndarray) -> Scores:
    """Macro-F1 of predicted labels, averaged over those of the cells, and accuracy."""
    f1 = f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)
    return {
        "f1": float(f1),
        "accuracy": float(accuracy_score(labels, predicted)),
    }


def label_transfer(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> Scores:
    """Scores of the labels that held-out cells take from their 15 nearest training cells."""
    return transfer_scores(test_labels, neighbours(train, train_labels).predict(test))


def neighbours(latent: np.ndarray, labels: np.ndarray) -> KNeighborsClassifier:
    """Return what labels a cell by its 15 nearest of the given ones, or by all where fewer are."""
    return KNeighborsClassifier(min(N_NEIGHBORS, len(latent))).fit(latent, labels)


def in_sample_transfer(latent: np.ndarray, labels: np.ndarray) -> Scores:
    """Scores of the labels that each cell takes from its 15 nearest other cells."""
    graph = kneighbors_graph(latent, N_NEIGHBORS, include_self=False)
    return transfer_of_graph(graph, labels)


def transfer_of_graph(graph: sparse.csr_matrix, labels: np.ndarray) -> Scores:
    """Scores of the labels with the largest weight among the neighbours of each cell."""
    names, codes = np.unique(labels, return_inverse=True)
    member = sparse.csr_matrix((np.ones(len(codes)), (np.arange(len(codes)), codes)))
    without_self = graph - sparse.diags_array(graph.diagonal())
    votes = (without_self @ member).toarray()
    return transfer_scores(labels, names[votes.argmax(1)])


def cluster_scores(probs: np.ndarray, labels: np.ndarray) -> Scores:
    """Agreement of the most probable clusters with the labels, and how sure and even they are."""
    hard = probs.argmax(1)
    found = agreement(labels, hard)
    return {
        **found,
        "components": probs.shape[1],
        "components_used": len(np.unique(hard)),
        "cell_entropy": mean_entropy(probs),
        "marginal_entropy": mean_entropy(probs.mean(0, keepdims=True)),
    }


def cluster_calibration(
    train_probs: np.ndarray, train_labels: np.ndarray, probs: np.ndarray, labels: np.ndarray
) -> Scores:
    """Expected calibration error of the label that the cluster posterior makes most probable.

    The share of each label in a cluster comes from the training cells, each counted by its
    posterior; the label of a held-out cell is averaged over the clusters by its own.
    """
    names, codes = np.unique(train_labels, return_inverse=True)
    shares = train_probs.T @ np.eye(len(names))[codes]
    shares /= shares.sum(1, keepdims=True).clip(1e-12)
    predicted = probs @ shares
    confidence, right = predicted.max(1), names[predicted.argmax(1)] == labels
    at = np.minimum(confidence * MOST_CONFIDENCE_BINS, MOST_CONFIDENCE_BINS - 1).astype(int)
    bins = pd.DataFrame(
        {
            "entries": np.bincount(at, minlength=MOST_CONFIDENCE_BINS),
            "predicted": np.bincount(at, confidence, minlength=MOST_CONFIDENCE_BINS),
            "observed": np.bincount(at, right, minlength=MOST_CONFIDENCE_BINS),
        }
    )
    return {
        "ece": expected_calibration_error(bins),
        "accuracy": float(right.mean()),
        "confidence": float(confidence.mean()),
    }


ONE_CLUSTER = "one cluster used"  # which leaves the embedding what it is


def what_is_broken(latent: np.ndarray, probs: np.ndarray | None) -> list[str]:
    """Reasons for which a run is no use; none for a good one."""
    if not np.isfinite(latent).all():
        return ["values of the embedding that are not finite"]
    reasons = []
    if (latent.std(0) > COLLAPSED).sum() < 2:
        reasons.append("collapsed embedding")
    if probs is not None and probs.shape[1] > 1 and len(np.unique(probs.argmax(1))) == 1:
        reasons.append(ONE_CLUSTER)
    return reasons


def what_is_broken_in_graph(graph: sparse.csr_matrix) -> list[str]:
    """Reasons for which a graph of cells is no use; none for a good one.

    With weights that are no numbers Leiden leaves each cell alone, of which each label is a union:
    normalised mutual information, which is not adjusted for chance, would be high.
    """
    is_good = np.isfinite(graph.data).all()
    return [] if is_good else ["weights of the graph that are not finite"]


def scib_scores(
    latent: np.ndarray, labels: np.ndarray, batches: np.ndarray | None, uncorrected: np.ndarray
) -> Scores:
    """Scores of scib-metrics that its Benchmarker computes by default.

    Parameters
    ----------
    latent
        ``(cells, dimensions)``.
    labels
        ``(cells,)``.
    batches
        ``(cells,)``; None leaves out the scores of batch correction.
    uncorrected
        Principal components of the RNA, which those scores compare with.
    """
    from scib_metrics.benchmark import BatchCorrection, Benchmarker  # imports jax

    cells = sc.AnnData(
        obs=pd.DataFrame(
            {
                "label": pd.Categorical(labels),
                "batch": pd.Categorical(
                    np.repeat("", len(labels)) if batches is None else batches
                ),
            },
            index=[str(i) for i in range(len(labels))],
        ),
        obsm={"latent": np.asarray(latent, dtype=np.float32), "before": uncorrected},
    )
    benchmarker = Benchmarker(
        cells,
        batch_key="batch",
        label_key="label",
        embedding_obsm_keys=["latent"],
        pre_integrated_embedding_obsm_key="before",
        batch_correction_metrics=None if batches is None else BatchCorrection(),
        progress_bar=False,
    )
    with warnings.catch_warnings(), preserved_torch_threads():
        warnings.simplefilter("ignore")
        benchmarker.benchmark()
        found = benchmarker.get_results().loc["latent"].astype(float)
    # some are not defined for all data, and NaN then
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}
