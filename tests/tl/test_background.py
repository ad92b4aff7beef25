"""The null: whom a peak is matched with, and what becomes of scores."""

import numpy as np
import pytest
from scipy import optimize, stats

from scmvp_scvi.tl._background import (
    compare_with_null,
    draw_pool,
    empirical_p_values,
    match_peaks,
    matching_features,
)


@pytest.fixture
def chrom() -> np.ndarray:
    return np.repeat(["chr1", "chr2", "chr3"], 100).astype(object)


@pytest.fixture
def features(rng) -> np.ndarray:
    return matching_features(rng.gamma(1, size=300), rng.random(300))


def test_pool_holds_the_most_accessible_peaks_and_is_nearly_even_among_the_others(rng):
    accessibility = rng.permutation(np.arange(20_000.0))
    found = 20_000 - accessibility[draw_pool(accessibility, 2_000, rng)]
    # half of the weight is even, and half by rank; a chance is at most 1
    odds = 1 / np.arange(1, 20_001)
    weight = 1 / 20_000 + odds / odds.sum()
    scale = optimize.brentq(lambda t: (t * weight).clip(max=1).sum() - 2_000, 0, 1e4)
    chance = (scale * weight).clip(max=1)
    assert set(range(1, 51)) <= set(found)
    for first, last in ((50, 500), (500, 5_000), (5_000, 20_000)):
        expected = chance[first:last].sum()
        n_found = ((found > first) & (found <= last)).sum()
        assert n_found == pytest.approx(expected, abs=4 * np.sqrt(expected))


def test_pool_leaves_out_peaks_without_accessibility_and_holds_all_others_of_few(rng):
    accessibility = rng.poisson(1.0, 300).astype(float)
    pool = draw_pool(accessibility, 2_000, rng)
    assert (pool == np.flatnonzero(accessibility)).all()
    pool = draw_pool(accessibility, 60, rng)
    assert len(pool) == 60
    assert (accessibility[pool] > 0).all()
    assert (np.diff(pool) > 0).all()


def test_matched_peaks_are_the_nearest_of_other_chromosomes(features, chrom):
    pool, peaks = np.arange(0, 300, 2), np.array([101, 150])
    matched = pool[match_peaks(features, chrom, pool, peaks, 25)]
    elsewhere = pool[chrom[pool] != "chr2"]
    for peak, found in zip(peaks, matched, strict=True):
        distance = np.linalg.norm(features[elsewhere] - features[peak], axis=1)
        assert set(found) == set(elsewhere[np.argsort(distance)[:25]])


def test_matched_peaks_are_all_others_where_the_pool_is_small(features, chrom):
    pool = np.arange(0, 300, 4)
    assert match_peaks(features, chrom, pool, np.array([0]), 1_000).shape == (1, 50)


def test_a_single_chromosome_has_no_null(features, chrom):
    with pytest.raises(ValueError, match=r"for `chr1` there are 0.*`n_matched=0`"):
        match_peaks(features, chrom, np.arange(100), np.array([0]), 50)


def test_accessibility_alone_is_matched_without_gc(rng):
    accessibility = rng.random(9)
    ranks = matching_features(accessibility, None)
    assert ranks.shape == (9, 1)
    assert (np.argsort(ranks[:, 0]) == np.argsort(accessibility)).all()


def test_z_scores_are_those_of_a_plain_loop(rng):
    scores, null = rng.standard_normal(3), rng.standard_normal((3, 25))
    compared = compare_with_null(scores, null)
    for i in range(3):
        z_score = (scores[i] - null[i].mean()) / null[i].std(ddof=1)
        assert compared.z_score[i] == pytest.approx(z_score)
        for j in range(25):
            others = np.delete(null[i], j)
            expected = (null[i, j] - others.mean()) / others.std(ddof=1)
            assert compared.null_z_score.reshape(3, 25)[i, j] == pytest.approx(expected)


def test_null_scores_that_are_kept_go_from_the_nearest_to_the_farthest_peak():
    # ascending scores: the order of the standardised ones is that of the peaks
    null = np.arange(97.0)[None]
    kept = compare_with_null(np.zeros(1), null).null_z_score
    of_every_fourth = [
        (value - others.mean()) / others.std(ddof=1)
        for value in range(0, 97, 4)
        for others in [np.delete(null[0], value)]
    ]
    assert kept.tolist() == pytest.approx(of_every_fourth)


@pytest.mark.parametrize("missing", [np.nan, 0.5])
def test_pairs_without_scores_have_no_z_score_and_no_part_in_the_null(missing):
    null = np.full((1, 30), np.nan)
    compared = compare_with_null(np.array([missing]), null)
    assert np.isnan(compared.z_score).all()
    assert compared.null_z_score.size == 0


def test_null_is_that_of_the_pairs_with_a_score(rng):
    scores, null = rng.standard_normal(5), rng.standard_normal((5, 40))
    scores[[1, 3]] = np.nan
    found = compare_with_null(scores, null)
    tested = [0, 2, 4]
    alone = compare_with_null(scores[tested], null[tested])
    assert found.null_z_score.tolist() == alone.null_z_score.tolist()
    assert found.z_score[tested].tolist() == alone.z_score.tolist()


@pytest.mark.parametrize("rounding", [0.0, 1e-8])
def test_scores_that_are_equal_up_to_rounding_do_not_stand_out(rounding):
    rng = np.random.default_rng(0)
    null = 0.1 + rounding * rng.standard_normal((1, 30))
    compared = compare_with_null(np.array([0.1]), null)
    assert abs(compared.z_score[0]) < 1e-3
    assert abs(compared.null_z_score).max() < 1e-3


def test_one_null_score_unlike_the_equal_others_is_far_from_them_and_counts():
    null = np.full((1, 25), 0.1)
    null[0, 7] = 0.3
    compared = compare_with_null(np.zeros(1), null)
    # by the least deviation that counts, 1e-4
    assert compared.null_z_score.max() == pytest.approx(0.2 / 1e-4)
    assert compared.null_z_score.size == 25


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_p_values_are_ranks_among_the_null_scores(rng, alternative):
    z_score, draws = rng.standard_normal(20), rng.standard_normal(99)
    turn = {"greater": lambda z: z, "less": lambda z: -z, "two-sided": abs}[alternative]
    expected = [(1 + sum(turn(draws) >= turn(z))) / 100 for z in z_score]
    assert empirical_p_values(z_score, draws, alternative).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_p_values_are_uniform_where_scores_are_like_null_scores(rng, alternative):
    # each pair has its own location and scale, and a skewed law
    null = rng.gamma(3, size=(2_000, 60)) * rng.gamma(2, size=(2_000, 1))
    compared = compare_with_null(null[:, 0], null[:, 1:])
    p_value = empirical_p_values(compared.z_score, compared.null_z_score, alternative)
    assert stats.kstest(p_value, "uniform").pvalue > 0.01


@pytest.mark.parametrize("rounding", [-1e-9, 1e-9])
def test_null_scores_that_differ_by_rounding_are_as_extreme(rounding):
    null = np.array([0.0, 0.5 + rounding, 1.0])
    assert empirical_p_values(np.array([0.5]), null, "greater").tolist() == [0.75]


def test_missing_scores_have_missing_p_values():
    assert np.isnan(empirical_p_values(np.array([np.nan]), np.zeros(5), "greater")).all()
