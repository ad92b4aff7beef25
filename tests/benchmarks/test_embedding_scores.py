"""Scores of embeddings against scikit-learn, the package and plain loops."""

import numpy as np
import pytest
import scanpy as sc
from scipy import sparse
from sklearn.metrics import f1_score

import harness.scores.embedding as scores
from scmvp_scvi.metrics import label_transfer_f1


@pytest.fixture
def labels(rng) -> np.ndarray:
    return rng.choice(np.array(["a", "b", "c"]), size=150, p=[0.5, 0.3, 0.2])


@pytest.fixture
def latent(rng, labels) -> np.ndarray:
    centres = {"a": 0.0, "b": 1.5, "c": 3.0}
    return rng.normal(np.array([centres[label] for label in labels])[:, None], size=(150, 4))


def test_neighbours_vote_as_in_a_plain_loop_without_the_cell_itself(latent, labels):
    predicted = []
    for i in range(len(latent)):
        distances = np.linalg.norm(latent - latent[i], axis=1)
        distances[i] = np.inf
        names, votes = np.unique(labels[distances.argsort()[:15]], return_counts=True)
        predicted.append(names[votes.argmax()])
    found = scores.in_sample_transfer(latent, labels)
    assert found["f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert found["accuracy"] == pytest.approx(np.mean(labels == np.array(predicted)))


def test_a_cell_has_no_vote_on_itself(labels):
    alone = sparse.csr_matrix(np.eye(len(labels)) * 9 + np.roll(np.eye(len(labels)), 1, axis=1))
    found = scores.transfer_of_graph(alone, labels)
    assert found["accuracy"] == pytest.approx(np.mean(labels == np.roll(labels, -1)))


def test_label_transfer_has_the_f1_of_the_package(latent, labels):
    parts = latent[:100], labels[:100], latent[100:], labels[100:]
    assert scores.label_transfer(*parts)["f1"] == label_transfer_f1(*parts)


def test_label_transfer_has_the_f1_of_the_package_where_held_out_cells_lack_a_label():
    known, new = np.array([0.0, 1.0])[:, None], np.array([0.0, 1.0, 0.1])[:, None]
    parts = np.repeat(known, 15, axis=0), np.repeat(["a", "b"], 15), new, np.array(["a"] * 3)
    assert scores.label_transfer(*parts)["f1"] == label_transfer_f1(*parts) == pytest.approx(0.8)


def test_leiden_on_the_graph_of_an_embedding_equals_leiden_on_the_embedding(latent, labels):
    cells = sc.AnnData(obsm={"X": latent.astype(np.float32)})
    sc.pp.neighbors(cells, n_neighbors=15, use_rep="X", random_state=3)
    of_graph = scores.leiden_scores_of_graph(cells.obsp["connectivities"], labels, seed=3)
    assert of_graph == pytest.approx(scores.leiden_scores(latent, labels, seed=3))


def test_k_means_finds_clusters_that_lie_apart(rng, labels):
    codes = np.unique(labels, return_inverse=True)[1]
    latent = 50 * np.eye(3)[codes] + rng.normal(size=(150, 3))
    assert scores.kmeans_scores(latent, labels, seed=0) == {"nmi": 1.0, "ari": 1.0}


def test_a_sure_and_right_posterior_has_full_agreement_and_no_entropy(labels):
    codes = np.unique(labels, return_inverse=True)[1]
    found = scores.cluster_scores(np.eye(5)[codes], labels)
    shares = np.bincount(codes) / len(codes)
    assert (found["ari"], found["cell_entropy"]) == (1.0, 0.0)
    assert found["marginal_entropy"] == pytest.approx(-(shares * np.log(shares)).sum())
    assert (found["components"], found["components_used"]) == (5, 3)


def test_a_posterior_that_says_nothing_has_one_cluster_and_the_entropy_of_chance(labels):
    found = scores.cluster_scores(np.full((150, 4), 0.25), labels)
    assert found["components_used"] == 1
    assert found["cell_entropy"] == pytest.approx(np.log(4))


def test_calibration_of_a_cluster_posterior_equals_a_plain_loop(rng, labels):
    probs = rng.dirichlet(np.ones(4), size=150)
    known, names = slice(0, 100), np.unique(labels)
    share = np.zeros((4, 3))
    for row, label in zip(probs[known], labels[known], strict=True):
        share[:, names == label] += row[:, None]
    share /= share.sum(1, keepdims=True)
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(probs[100:], labels[100:], strict=True):
        predicted = row @ share
        confidence = predicted.max()
        right = names[predicted.argmax()] == label
        bins.setdefault(int(confidence * 15), []).append((confidence, right))
    gaps = [
        abs(sum(c for c, _ in members) - sum(r for _, r in members)) for members in bins.values()
    ]
    found = scores.cluster_calibration(probs[known], labels[known], probs[100:], labels[100:])
    assert found["ece"] == pytest.approx(sum(gaps) / 50)


def test_runs_that_are_no_use_are_told_apart(rng):
    good, sure = rng.normal(size=(50, 3)), np.eye(3)[rng.integers(3, size=50)]
    assert scores.what_is_broken(good, sure) == []
    assert scores.what_is_broken(np.full((50, 3), np.nan), None) == [
        "values of the embedding that are not finite"
    ]
    graph = sparse.csr_matrix(np.eye(3))
    assert scores.what_is_broken_in_graph(graph) == []
    graph[0, 0] = np.nan
    assert scores.what_is_broken_in_graph(graph) == ["weights of the graph that are not finite"]
    assert scores.what_is_broken(1e-4 * good, sure) == ["collapsed embedding"]
    assert scores.what_is_broken(good, np.tile([0.9, 0.1], (50, 1))) == ["one cluster used"]
    assert scores.what_is_broken(good, np.ones((50, 1))) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_scib_scores_correct_for_batches_only_where_there_are_any(rng, latent, labels):
    pytest.importorskip("scib_metrics", reason="needs the extra `bench`")
    batches = rng.choice(np.array(["x", "y"]), size=150)
    without = scores.scib_scores(latent, labels, None, latent)
    with_batches = scores.scib_scores(latent, labels, batches, latent)
    assert {"cLISI", "Silhouette label", "KMeans ARI", "Bio conservation"} <= without.keys()
    assert {"iLISI", "BRAS", "Batch correction", "Total"} <= with_batches.keys() - without.keys()
