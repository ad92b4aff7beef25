"""Leiden communities are the planted blobs, and torch keeps its threads."""

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from scmvp_scvi import _neighbors
from scmvp_scvi._neighbors import (
    leiden_partitions,
    merge_communities,
    preserved_torch_threads,
)

SIZES = (300, 200, 100)
MEANS = np.array([[0.0, 0, 0], [9, 0, 0], [0, 9, 9]])


@pytest.fixture
def planted(rng) -> np.ndarray:
    """Planted blob of each cell, in random order."""
    return rng.permutation(np.repeat(np.arange(3), SIZES))


@pytest.fixture
def latent(rng, planted) -> np.ndarray:
    return MEANS[planted] + rng.normal(size=(len(planted), 3))


def test_leiden_recovers_planted_blobs_and_numbers_the_largest_first(latent, planted):
    (labels,) = leiden_partitions(latent, [0.1])
    assert adjusted_rand_score(planted, labels) > 0.95
    np.testing.assert_array_equal(np.bincount(labels), SIZES)


def test_leiden_communities_become_smaller_with_their_number(latent):
    (labels,) = leiden_partitions(latent, [2.0])
    sizes = np.bincount(labels)
    assert sizes.min() > 0
    assert (np.diff(sizes) <= 0).all()


def test_leiden_gives_one_partition_a_resolution_and_finer_ones_at_higher_values(latent):
    coarse, middle, fine = leiden_partitions(latent, [0.1, 1.0, 3.0])
    assert coarse.max() < middle.max() < fine.max()


def test_leiden_partition_does_not_depend_on_the_other_resolutions(latent):
    _, second = leiden_partitions(latent, [0.1, 1.0])
    (alone,) = leiden_partitions(latent, [1.0])
    np.testing.assert_array_equal(second, alone)


def test_leiden_gives_the_same_labels_for_the_same_seed(latent):
    (first,), (second,) = (leiden_partitions(latent, [1.0], seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_leiden_takes_fewer_cells_than_neighbours(rng):
    (labels,) = leiden_partitions(rng.normal(size=(6, 3)), [0.1])
    assert labels.shape == (6,)


def test_leiden_leaves_its_input_alone(latent):
    before = latent.copy()
    leiden_partitions(latent, [0.1])
    np.testing.assert_array_equal(latent, before)


def test_merging_rejoins_the_blobs_that_leiden_has_cut(latent, planted):
    (cut,) = leiden_partitions(latent, [1.0])
    assert cut.max() + 1 > 5
    merged = merge_communities(latent, cut)
    assert adjusted_rand_score(planted, merged) > 0.95
    np.testing.assert_array_equal(np.bincount(merged), SIZES)


def test_merging_leaves_distinct_blobs_apart_and_numbers_the_largest_first(latent, planted):
    smallest_first = 2 - planted
    np.testing.assert_array_equal(merge_communities(latent, smallest_first), planted)


def test_merging_leaves_the_communities_of_one_blurred_cloud_as_they_are(rng):
    latent = rng.normal(size=(200, 10))
    (labels,) = leiden_partitions(latent, [1.0])
    assert labels.max() > 1
    np.testing.assert_array_equal(merge_communities(latent, labels), labels)


def test_merging_rejoins_two_pieces_of_a_cloud_whose_neighbour_is_distinct(rng):
    latent = rng.normal(size=(400, 3)) + np.repeat([[0.0], [9.0]], 200, axis=0)
    pieces = np.repeat([0, 2], 200) + (latent[:, 1] > np.repeat([0, 9], 200))
    pieces[200:] = 2
    np.testing.assert_array_equal(merge_communities(latent, pieces), np.repeat([0, 1], 200))


def neighbors_crossing(labels: np.ndarray, n_crossing: int) -> np.ndarray:
    """Each cell and its ten neighbours, ``n_crossing`` of them in the other community."""
    rows = []
    for cell, label in enumerate(labels):
        same, other = (labels == label).nonzero()[0], (labels != label).nonzero()[0]
        rows.append(np.r_[cell, same[: 10 - n_crossing], other[:n_crossing]])
    return np.stack(rows)


def cut_in_two(rng, apart: float, n_cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells of two Gaussians that many standard deviations apart, and the halves of their line."""
    latent = rng.normal(size=(n_cells, 2))
    latent[: n_cells // 2, 0] += apart
    return latent, (latent[:, 0] > apart / 2).astype(int)


@pytest.mark.parametrize(("apart", "n_merged"), [(0.0, 1), (1.0, 1), (4.0, 2)])
def test_few_cells_are_merged_across_a_thin_border_if_there_is_no_gap(rng, apart, n_merged):
    latent, halves = cut_in_two(rng, apart, n_cells=4_000)
    neighbors = NearestNeighbors(n_neighbors=15).fit(latent).kneighbors(return_distance=False)
    crossing = (halves[neighbors] != halves[:, None]).mean()
    assert 0 < crossing < 1 / 15  # too few to merge the halves of many cells
    assert merge_communities(latent, halves).max() + 1 == n_merged


def test_many_cells_are_merged_by_the_neighbours_they_share_alone(rng):
    latent, halves = cut_in_two(rng, apart=0.0, n_cells=6_000)
    assert merge_communities(latent, halves).max() + 1 == 2


@pytest.mark.parametrize(("n_crossing", "n_merged"), [(1, 2), (2, 1), (3, 2)])
def test_many_cells_want_more_than_one_neighbour_to_cross_and_no_more_than_a_fifth(
    monkeypatch, n_crossing, n_merged
):
    monkeypatch.setattr(_neighbors, "_FEW_CELLS", 0)
    labels = np.repeat([0, 1], 12)
    neighbors = neighbors_crossing(labels, n_crossing)
    monkeypatch.setattr(NearestNeighbors, "kneighbors", lambda *_, **__: neighbors)
    merged = merge_communities(np.zeros((24, 2)), labels, n_neighbors=10)
    assert len(np.unique(merged)) == n_merged


def test_merging_keeps_a_single_community_and_fewer_cells_than_neighbours(rng):
    labels = merge_communities(rng.normal(size=(6, 3)), np.zeros(6, dtype=int))
    np.testing.assert_array_equal(labels, np.zeros(6))


def test_thread_count_of_torch_is_restored_after_a_change():
    before = torch.get_num_threads()
    with preserved_torch_threads():
        torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before


def test_thread_count_of_torch_is_restored_after_an_error():
    before = torch.get_num_threads()
    with (  # noqa: PT012  the error must be raised inside the context under test
        pytest.raises(RuntimeError, match="stop"),
        preserved_torch_threads(),
    ):
        torch.set_num_threads(before + 1)
        raise RuntimeError("stop")
    assert torch.get_num_threads() == before


def test_leiden_leaves_the_thread_count_of_torch(latent):
    before = torch.get_num_threads()
    leiden_partitions(latent, [0.1])
    assert torch.get_num_threads() == before


def test_links_of_groups_are_those_of_their_communities_added_up(rng):
    links, group = rng.integers(0, 9, (5, 5)).astype(float), np.array([0, 2, 1, 0, 2])
    expected = np.zeros((3, 3))
    for a, b in np.ndindex(5, 5):
        expected[group[a], group[b]] += links[a, b]
    np.testing.assert_allclose(_neighbors._sum_groups(links, group), expected)


def test_a_small_group_is_not_merged_into_a_large_one_that_hardly_knows_it(
    monkeypatch,
):
    monkeypatch.setattr(_neighbors, "_FEW_CELLS", 0)
    # the small one has 15 in 100 of its neighbours in the large one, and this one 1 in 100
    links, groups = np.array([[85.0, 15.0], [15.0, 1485.0]]), np.arange(2)
    found = _neighbors._pair_to_merge(np.zeros((2, 2)), groups, links, groups, n_neighbors=10)
    assert found is None


def test_a_gap_between_two_groups_does_not_keep_others_from_being_merged(
    rng,
):
    latent, halves = cut_in_two(rng, apart=0.0, n_cells=400)
    labels = np.concatenate([halves + 2, np.repeat([0, 1], 200)])
    apart = rng.normal(size=(400, 2)) + np.repeat([[0.0, 30.0], [9.0, 30.0]], 200, axis=0)
    links = np.diag(np.full(4, 3_000.0))
    links[0, 1] = links[1, 0] = 300
    links[2, 3] = links[3, 2] = 150
    found = _neighbors._pair_to_merge(
        np.concatenate([latent, apart]), labels, links, np.arange(4), n_neighbors=15
    )
    assert found == (2, 3)


@pytest.mark.parametrize("distance", [0.0, 1.0])
def test_groups_of_one_place_each_have_a_gap_unless_it_is_the_same(distance):
    first = np.zeros((5, 3))
    assert _neighbors._has_gap(first, first + distance) == (distance > 0)


def test_gap_is_looked_for_where_groups_differ_by_their_own_spread(rng):
    spread = np.r_[2.0, np.full(9, 0.3)]
    first, second = rng.normal(size=(2, 2_000, 10)) * spread
    second[:, 0] += 2.0  # one standard deviation
    assert not _neighbors._has_gap(first, second)
    second[:, 1] += 1.5  # five
    assert _neighbors._has_gap(first, second)
