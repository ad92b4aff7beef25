"""Agreement scores against scikit-learn and scipy by hand."""

import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy import stats
from sklearn.metrics import adjusted_rand_score, f1_score, normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier

from scmvp_scvi.metrics import label_transfer_f1, leiden_agreement, mean_entropy


@pytest.fixture
def labels(rng) -> np.ndarray:
    return rng.integers(0, 3, 120)


@pytest.fixture
def latent(rng, labels) -> np.ndarray:
    """Three blobs, one a label."""
    return 8.0 * np.eye(3)[labels] + rng.normal(size=(120, 3))


def test_leiden_agreement_of_separate_blobs_is_one(latent, labels):
    table = leiden_agreement(latent, labels, resolutions=[0.1])
    assert table.loc[0, ["n_clusters", "nmi", "ari"]].tolist() == pytest.approx([3, 1, 1])


def test_leiden_agreement_has_a_row_a_resolution_in_their_order(latent, labels):
    table = leiden_agreement(latent, labels, resolutions=[2.0, 0.1])
    assert list(table.columns) == ["resolution", "n_clusters", "nmi", "ari"]
    assert list(table["resolution"]) == [2.0, 0.1]
    assert table["n_clusters"].is_monotonic_decreasing


def test_leiden_agreement_equals_scikit_learn_on_the_partition(latent, labels, monkeypatch, rng):
    found = rng.integers(0, 4, 120)
    monkeypatch.setattr("scmvp_scvi.metrics._clustering.leiden_partitions", lambda *_: [found])
    table = leiden_agreement(latent, labels, resolutions=[1.0])
    expected = {
        "resolution": 1.0,
        "n_clusters": 4,
        "nmi": normalized_mutual_info_score(labels, found),
        "ari": adjusted_rand_score(labels, found),
    }
    pd.testing.assert_frame_equal(table, pd.DataFrame([expected]))


def test_leiden_agreement_takes_labels_as_text(latent, labels):
    by_number, by_name = (
        leiden_agreement(latent, names, resolutions=[0.1])
        for names in (labels, labels.astype(str))
    )
    pd.testing.assert_frame_equal(by_number, by_name)


def test_leiden_agreement_is_the_same_for_the_same_seed(latent, labels):
    first, second = (leiden_agreement(latent, labels, [0.5, 1.0], seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_label_transfer_equals_scikit_learn(rng, labels):
    latent = rng.normal(size=(120, 3)) + labels[:, None]
    train, test = np.arange(80), np.arange(80, 120)
    found = label_transfer_f1(latent[train], labels[train], latent[test], labels[test], 5)
    neighbours = KNeighborsClassifier(5).fit(latent[train], labels[train])
    expected = f1_score(labels[test], neighbours.predict(latent[test]), average="macro")
    assert found == expected


def test_label_transfer_counts_a_rare_label_as_much_as_a_common_one():
    latent = np.array([0.0, 0.1, 0.2, 0.3, 9.0])[:, None]
    labels = np.array(["a", "a", "a", "a", "b"])
    # the lost `b` costs its own F1 of 0 and one false `a`: (2 * 4 / 9 + 0) / 2
    found = label_transfer_f1(latent[:4], labels[:4], latent, labels, n_neighbors=1)
    assert found == pytest.approx(4 / 9)


def test_label_that_no_held_out_cell_has_is_not_averaged_over():
    latent, labels = np.array([0.0, 1.0, 2.0])[:, None], np.array(["a", "b", "c"])
    test_latent, test_labels = np.array([0.0, 0.1, 1.0, 2.0])[:, None], np.array(list("aabb"))
    found = label_transfer_f1(latent, labels, test_latent, test_labels, n_neighbors=1)
    # `a` is found, one of two `b` is taken for `c`, which counts against `b` alone
    assert found == pytest.approx((1 + 2 / 3) / 2)


def test_labels_that_name_the_cells_in_another_order_are_refused_with_what_reorders_them(
    latent, labels, rng
):
    latent = pd.DataFrame(latent, index=[f"cell{i}" for i in range(120)])
    labels = pd.Series(labels, index=latent.index)
    expected = leiden_agreement(latent, labels, [0.1])
    labels = labels.iloc[rng.permutation(120)]
    with pytest.raises(ValueError, match="must name the cells as `latent` does, in the") as error:
        leiden_agreement(latent, labels, [0.1])
    scope = {"labels": labels, "latent": latent}
    exec(re.findall("`(labels = [^`]*)`", str(error.value))[0], scope)
    pd.testing.assert_frame_equal(leiden_agreement(latent, scope["labels"], [0.1]), expected)
    with pytest.raises(ValueError, match="`test_labels` must name the cells as `test_latent`"):
        label_transfer_f1(latent, scope["labels"], latent, labels)


def test_labels_without_names_go_by_the_order_of_their_rows(latent, labels, rng):
    named = pd.Series(labels, index=rng.permutation(120))  # beside an array, which names no cell
    by_row = pd.DataFrame(latent)
    found = [label_transfer_f1(x, y, x, y) for x, y in ((latent, named), (by_row, named))]
    assert found == [label_transfer_f1(latent, labels, latent, labels)] * 2


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"labels": [0, 1]}, ValueError, "`labels` must have one row a cell, got 2 rows for 120"),
        ({"labels": [None, *"ab" * 59, "a"]}, ValueError, "but 1 of 120 are missing. Name them"),
        ({"latent": np.zeros(120)}, ValueError, r"`latent` must be a table .* got shape \(120,\)"),
        ({"latent": np.full((120, 2), np.nan)}, ValueError, "`latent` must be .* NaN or inf"),
        ({"latent": sp.eye(120)}, TypeError, r"`latent` must be a dense table.*`latent.toarray"),
        (
            {"resolutions": [0.5, -1]},
            ValueError,
            "`resolutions` must be at least 0 and finite, got -1",
        ),
        ({"resolutions": 0.5}, TypeError, r"`resolutions` must be a list, got 0.5: \[0.5\]\?"),
        ({"n_neighbors": 0}, ValueError, "`n_neighbors` must be at least 2, got 0"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0, got -1"),
        ({"n_neighbors": 1}, ValueError, "`n_neighbors` must be at least 2, got 1"),
    ],
)
def test_what_cannot_be_clustered_or_compared_is_refused(latent, labels, change, error, match):
    arguments = {"latent": latent, "labels": labels, "resolutions": [0.1], **change}
    with pytest.raises(error, match=match):
        leiden_agreement(**arguments)


@pytest.mark.parametrize("n_cells", [0, 1, 2])
def test_fewer_cells_than_a_graph_needs_are_refused(latent, labels, n_cells):
    with pytest.raises(ValueError, match=f"`latent` must have at least 3 cells, got {n_cells}: "):
        leiden_agreement(latent[:n_cells], labels[:n_cells], resolutions=[0.1])


@pytest.mark.parametrize(("n_cells", "n_neighbors"), [(3, 15), (120, 2)])
def test_fewest_cells_and_fewest_neighbours_of_a_graph_are_clustered(
    latent, labels, n_cells, n_neighbors
):
    latent, labels = latent[:n_cells], labels[:n_cells]
    table = leiden_agreement(latent, labels, resolutions=[0.1], n_neighbors=n_neighbors)
    assert 1 <= table.loc[0, "n_clusters"] <= n_cells


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"train_labels": [0, 1]}, "`train_labels` must have one row a cell, got 2 rows for 120"),
        ({"test_labels": np.full(120, np.nan)}, "`test_labels` must have a label for each cell"),
        ({"n_neighbors": 121}, "at most the number of training cells, 120, got 121. Lower it"),
    ],
)
def test_labels_that_cannot_be_transferred_are_refused(latent, labels, change, match):
    arguments = {"train_latent": latent, "train_labels": labels}
    arguments |= {"test_latent": latent, "test_labels": labels}
    with pytest.raises(ValueError, match=match):
        label_transfer_f1(**{**arguments, **change})


@pytest.mark.parametrize("probs", [[[2.0, 2.0]], [[np.nan, 1.0]], [[-1.0, 2.0]], [0.5, 0.5]])
def test_entropy_of_what_are_no_probabilities_is_refused(probs):
    with pytest.raises(ValueError, match="`probs` must be probabilities.* sums of the rows"):
        mean_entropy(np.array(probs))


def test_mean_entropy_equals_scipy(rng):
    probs = rng.dirichlet(np.ones(5), 20)
    assert mean_entropy(probs) == pytest.approx(stats.entropy(probs, axis=1).mean())


def test_mean_entropy_of_certain_cells_is_zero():
    assert mean_entropy(np.eye(4)) == 0


def test_mean_entropy_of_equal_probabilities_is_the_log_of_their_number():
    assert mean_entropy(np.full((3, 8), 1 / 8)) == pytest.approx(np.log(8))
