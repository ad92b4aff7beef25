"""The protocols: what a method learns from, and how that is scored.

A protocol is run in cases, each a fit of its own. A fit gives one result.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from types import UnionType
from typing import NamedTuple

import numpy as np
from mudata import MuData
from scipy import sparse

from harness.data import build, counts_of, subset, without
from harness.methods.base import (
    OTHER,
    UNLABELLED,
    Clusterer,
    Embedder,
    Grapher,
    Imputer,
    Labeller,
    Method,
    Predictor,
    Projector,
)
from harness.methods.simple import pca
from harness.scores import embedding
from harness.scores.imputation import atac_scores, calibration, log_scores, rna_scores

Result = dict[str, object]
TRAIN_SHARE = 0.8
LEAST_LABELLED = 3
SCORES = {"rna": rna_scores, "atac": atac_scores}
CALIBRATION_CELLS, CALIBRATION_DRAWS = {"rna": 400, "atac": 100}, 50
CELLS_PER_DRAW = 25  # all draws of all peaks of so many cells are in memory at once


class Task(NamedTuple):
    """Data to learn from, and the scores of a method that has."""

    train: MuData
    score: Callable[[Method], Result]
    options: dict[str, object] = {}  # what the method is told


class Protocol(NamedTuple):
    """How tasks are made, and of which methods they can be asked.

    The version is raised when results of before and after a change cannot be compared. Where the
    seed draws what is held out, all methods see the same for one seed, and another for another.
    """

    make: Callable[[MuData, int, str], Task]
    abilities: tuple[type | UnionType, ...]
    cases: tuple[str, ...] = ("",)
    version: int = 1
    compares_embeddings: bool = False
    seed_draws_data: bool = True

    def suits(self, method: Method) -> bool:
        """Whether the method has every ability, and an embedding of its own where these count."""
        if self.compares_embeddings and not getattr(method, "has_own_embedding", True):
            return False
        return all(isinstance(method, ability) for ability in self.abilities)


def split(n_cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the training and of the held-out cells."""
    order = np.random.default_rng(seed).permutation(n_cells)
    n_train = int(TRAIN_SHARE * n_cells)
    return np.sort(order[:n_train]), np.sort(order[n_train:])


def thin(
    counts: sparse.csr_matrix, rng: np.random.Generator, share: float = 0.5
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Keep each count with some probability; what is kept, and the rest."""
    kept, rest = counts.copy(), counts.copy()
    kept.data = rng.binomial(counts.data.astype(int), share).astype(np.float32)
    rest.data = counts.data - kept.data
    for part in (kept, rest):
        part.eliminate_zeros()
    return kept, rest


def labels_of(mdata: MuData) -> np.ndarray:
    """Label of each cell, as plain strings that can be saved and read without pickle."""
    return mdata.obs["cell_type"].to_numpy(dtype=str)


def median_depth(mdata: MuData) -> float:
    """RNA counts of the middle cell."""
    return float(np.median(np.asarray(mdata["rna"].X.sum(1))))


# -- embedding --------------------------------------------------------------------------------


def all_cells(mdata: MuData, seed: int, case: str = "") -> Task:
    """Embed all cells and compare clusterings and neighbours with the labels."""
    del case
    labels = labels_of(mdata)
    return Task(mdata, partial(score_all_cells, labels=labels, seed=seed, mdata=mdata))


def score_all_cells(
    method: Method, labels: np.ndarray, seed: int, mdata: MuData | None = None
) -> Result:
    """Scores of the graph or of the first view of the training cells."""
    if isinstance(method, Grapher):
        graph = method.graph()
        if reasons := embedding.what_is_broken_in_graph(graph):
            return {"broken": reasons}
        return {
            "leiden": embedding.leiden_scores_of_graph(graph, labels, seed),
            "neighbours": embedding.transfer_of_graph(graph, labels),
            "broken": [],
        }
    latent = method.embed(method.views[0])
    probs = method.cluster_probabilities() if isinstance(method, Clusterer) else None
    result: Result = {"broken": embedding.what_is_broken(latent, probs)}
    if not np.isfinite(latent).all():
        return result
    result |= {
        "leiden": embedding.leiden_scores(latent, labels, seed),
        "kmeans": embedding.kmeans_scores(latent, labels, seed),
        "neighbours": embedding.in_sample_transfer(latent, labels),
    }
    if probs is not None:
        result["clusters"] = embedding.cluster_scores(probs, labels)
    if mdata is not None:
        result |= {"latent": latent, "labels": labels}
        if probs is not None:
            result["hard_clusters"] = probs.argmax(1)
        if find_spec("scib_metrics") is not None:
            result["scib"] = embedding.scib_scores(
                latent,
                labels,
                mdata.obs["batch"].to_numpy() if "batch" in mdata.obs else None,
                pca(mdata["rna"].X, seed).transform(mdata["rna"].X),
            )
    return result


# -- held-out cells -----------------------------------------------------------------------------


def held_out(mdata: MuData, seed: int, case: str = "") -> Task:
    """Place cells that were not learned from, and give them labels."""
    del case
    train_rows, test_rows = split(mdata.n_obs, seed)
    train, test = subset(mdata, train_rows), subset(mdata, test_rows)
    train_labels, test_labels = labels_of(train), labels_of(test)

    def score(method: Projector) -> Result:
        result: Result = {}
        for view in method.views:
            known, new = method.embed(view), method.project(test, view)
            result[view] = embedding.label_transfer(known, train_labels, new, test_labels)
            if view == method.views[0]:
                labels = np.concatenate([train_labels, test_labels])
                result["leiden"] = embedding.leiden_scores(np.vstack([known, new]), labels, seed)
        if isinstance(method, Clusterer):
            known, new = method.cluster_probabilities(), method.cluster_probabilities(test)
            result["clusters"] = embedding.cluster_scores(new, test_labels)
            result["cluster_calibration"] = embedding.cluster_calibration(
                known, train_labels, new, test_labels
            )
        return result

    return Task(train, score)


def some_labels(mdata: MuData, seed: int, case: str) -> Task:
    """Learn from the labels of so many percent of the training cells, and label the others.

    Each type has at least three cells with a label, or as many as it has. A method that learns
    from counts alone labels a cell by the 15 nearest of those that have one.
    """
    train_rows, test_rows = split(mdata.n_obs, seed)
    train, test = subset(mdata, train_rows), subset(mdata, test_rows)
    train_labels, test_labels = labels_of(train), labels_of(test)
    rng = np.random.default_rng(seed)
    is_known = np.zeros(train.n_obs, bool)
    for name in np.unique(train_labels):
        members = rng.permutation(np.flatnonzero(train_labels == name))
        is_known[members[: max(LEAST_LABELLED, round(int(case) / 100 * len(members)))]] = True
    train.obs["label"] = np.where(is_known, train_labels, UNLABELLED)

    def score(method: Labeller | Projector) -> Result:
        if isinstance(method, Labeller):
            found, new = method.predict_labels(), method.predict_labels(test)
        else:
            view = method.views[0]
            latent = method.embed(view)
            classifier = embedding.neighbours(latent[is_known], train_labels[is_known])
            found, new = (classifier.predict(z) for z in (latent, method.project(test, view)))
        scores: Result = {"held_out": embedding.transfer_scores(test_labels, new)}
        if not is_known.all():
            scores["unlabelled"] = embedding.transfer_scores(
                train_labels[~is_known], found[~is_known]
            )
        return scores

    return Task(train, score)


# -- counts -------------------------------------------------------------------------------------


def thinning(mdata: MuData, seed: int, case: str = "") -> Task:
    """Impute cells from one half of their counts; score on the other."""
    del case
    rng = np.random.default_rng(seed)
    halves = {modality: thin(counts, rng) for modality, counts in counts_of(mdata).items()}
    train = build({modality: first for modality, (first, _) in halves.items()}, mdata)
    order = rng.permutation(mdata.n_obs)

    def score(method: Imputer) -> Result:
        logs = partial(method.impute_logs, depth=median_depth(train))
        scores: Result = {**log_scores(logs, halves["rna"][1])}
        for modality, (_, held_out) in halves.items():
            scores |= SCORES[modality](partial(method.impute, modality), held_out)
            scores[f"{modality}_calibration"] = calibration(
                partial(method.laws, modality, n_draws=CALIBRATION_DRAWS),
                held_out,
                order[: CALIBRATION_CELLS[modality]],
                CELLS_PER_DRAW,
                seed,
            )
        return scores

    return Task(train, score)


def cross_modal(mdata: MuData, seed: int, case: str = "") -> Task:
    """Predict either modality of held-out cells from the other, where they have counts there."""
    del case
    train, test = split(mdata.n_obs, seed)
    training, held_out = subset(mdata, train), subset(mdata, test)
    depths = {key: counts.sum(1).A1 for key, counts in counts_of(held_out).items()}

    def score(method: Predictor) -> Result:
        scores: Result = {}
        for modality, view in OTHER.items():
            cells = subset(held_out, np.flatnonzero(depths[view] > 0))
            counts, query = counts_of(cells)[modality], without(cells, modality)
            if modality == "rna":
                depth = median_depth(training)
                logs = partial(method.predict_logs, query, view=view, depth=depth)
                scores |= log_scores(logs, counts)
            profiles = partial(method.predict, modality, query, view=view)
            scores |= SCORES[modality](profiles, counts)
        return scores

    return Task(training, score)


def modalities(mdata: MuData, seed: int, case: str = "") -> Task:
    """Compare what both modalities say of held-out cells with what either says.

    Of each held-out cell a method sees half of the counts, of both modalities or of one, and is
    scored on the other half, and on its label if it can place the cell.
    """
    del case
    train_rows, test_rows = split(mdata.n_obs, seed)
    train, test = subset(mdata, train_rows), subset(mdata, test_rows)
    train_labels, test_labels = labels_of(train), labels_of(test)
    rng = np.random.default_rng(seed)
    halves = {modality: thin(counts, rng) for modality, counts in counts_of(test).items()}
    query = build({modality: first for modality, (first, _) in halves.items()}, test)

    def score(method: Predictor) -> Result:
        scores: Result = {}
        for view in ("joint", "rna", "atac"):
            found: Result = {}
            if isinstance(method, Projector):
                known, new = method.embed(view), method.project(query, view)
                found = embedding.label_transfer(known, train_labels, new, test_labels)
            for modality, (_, unseen) in halves.items():
                found |= SCORES[modality](
                    partial(method.predict, modality, query, view=view), unseen
                )
            scores[view] = found
        return scores

    return Task(train, score)


# -- how it holds up ----------------------------------------------------------------------------

FREE = "chosen"


def clusters(mdata: MuData, seed: int, case: str) -> Task:
    """Give the number of components, or leave it to the method."""
    labels = labels_of(mdata)

    def score(method: Clusterer) -> Result:
        return {"clusters": embedding.cluster_scores(method.cluster_probabilities(), labels)}

    return Task(mdata, score, {} if case == FREE else {"n_clusters": int(case)})


def robustness(mdata: MuData, seed: int, case: str) -> Task:
    """Thin the counts of one modality, then embed all cells."""
    modality, percent = case.split("-")
    counts = counts_of(mdata)
    counts[modality], _ = thin(
        counts[modality], np.random.default_rng(seed), share=int(percent) / 100
    )
    labels = labels_of(mdata)
    return Task(build(counts, mdata), partial(score_all_cells, labels=labels, seed=seed))


PROTOCOLS: dict[str, Protocol] = {
    "embedding": Protocol(
        all_cells,
        (Embedder | Grapher,),
        version=2,
        compares_embeddings=True,
        seed_draws_data=False,
    ),
    "held-out": Protocol(held_out, (Projector,), version=2, compares_embeddings=True),
    "labels": Protocol(
        some_labels, (Labeller | Projector,), ("100", "10"), compares_embeddings=True
    ),
    "thinning": Protocol(thinning, (Imputer,)),
    "cross-modal": Protocol(cross_modal, (Predictor,)),
    "modalities": Protocol(modalities, (Predictor,)),
    "clusters": Protocol(
        clusters, (Clusterer,), ("5", "10", "20", "30", "50", FREE), seed_draws_data=False
    ),
    "robustness": Protocol(
        robustness,
        (Embedder | Grapher,),
        tuple(f"{modality}-{percent}" for modality in OTHER for percent in (10, 25, 50)),
        compares_embeddings=True,
    ),
}
