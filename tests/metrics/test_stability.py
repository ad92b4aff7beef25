"""Stability of clusterings: held against plain loops, scikit-learn and planted cells."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from scmvp_scvi.metrics import clustering_stability


@pytest.fixture
def clusterings(rng) -> pd.DataFrame:
    """Three clusterings of 60 cells into as many clusters as they like."""
    columns = {seed: rng.integers(0, 3 + seed, 60) for seed in range(3)}
    return pd.DataFrame(columns, index=[f"cell{i}" for i in range(60)])


def test_stability_of_a_cell_is_that_of_a_plain_loop(clusterings):
    found = clustering_stability(clusterings).cells
    for cell in clusterings.index:
        shares = []
        for one, other in combinations(clusterings, 2):
            with_it = [
                set(clusterings.index[clusterings[name] == clusterings.loc[cell, name]])
                for name in (one, other)
            ]
            shares.append(len(with_it[0] & with_it[1]) / len(with_it[0] | with_it[1]))
        assert found[cell] == pytest.approx(np.mean(shares))


def test_pairs_agree_as_scikit_learn_finds(clusterings):
    pairs = clustering_stability(clusterings).pairs
    assert list(pairs.index) == [(0, 1), (0, 2), (1, 2)]
    for (one, other), row in pairs.iterrows():
        both = clusterings[one], clusterings[other]
        assert row["ari"] == pytest.approx(adjusted_rand_score(*both))
        assert row["nmi"] == pytest.approx(normalized_mutual_info_score(*both))


def test_names_of_clusters_do_not_matter(clusterings):
    renamed = clusterings.assign(**{"named": clusterings[0].map(dict(enumerate("zyx")))})
    found = clustering_stability(renamed[[0, "named"]])
    assert (found.cells == 1).all()
    assert found.pairs.loc[(0, "named"), "ari"] == 1


def test_cells_that_seeds_move_are_less_stable_than_those_they_leave(rng):
    planted = np.repeat(["a", "b", "c"], 100)
    runs = {}
    for seed in range(5):
        runs[seed] = planted.copy()
        runs[seed][200:] = rng.choice(["c", "d"], 100)  # one type is split at random
    cells = clustering_stability(pd.DataFrame(runs)).cells
    assert (cells[:200] == 1).all()
    # two halves drawn at random share a third of the cells that either has
    assert cells[200:].mean() == pytest.approx(1 / 3, abs=0.05)


def test_categories_of_each_clustering_may_differ(clusterings):
    as_categories = clusterings.astype(str).astype("category")
    found, expected = (clustering_stability(runs) for runs in (as_categories, clusterings))
    pd.testing.assert_series_equal(found.cells, expected.cells)


@pytest.mark.parametrize(
    ("runs", "error", "match"),
    [
        ({0: ["a"]}, TypeError, r"must be a table .* got dict: `pd.DataFrame"),
        (pd.DataFrame({0: list("ab")}), ValueError, "at least two clusterings.* got 1 of 2 cells"),
        (pd.DataFrame({0: [], 1: []}), ValueError, "got 2 of 0 cells"),
        (
            pd.DataFrame({0: ["a", None, "b"], "one": list("abc")}),
            ValueError,
            "1 of 3 lack one in `0`: .*dropna",
        ),
    ],
    ids=["mapping", "one", "no cells", "missing"],
)
def test_what_are_no_clusterings_of_the_same_cells_is_refused(runs, error, match):
    with pytest.raises(error, match=match):
        clustering_stability(runs)
