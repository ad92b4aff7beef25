"""Scores of imputation against scipy, scikit-learn and plain loops."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import sparse, stats
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.distributions import Poisson

import harness.scores.imputation as scores


@pytest.fixture
def profiles(rng) -> np.ndarray:
    return rng.gamma(0.5, size=(40, 30)) + 1e-3


@pytest.fixture
def counts(rng, profiles) -> np.ndarray:
    return rng.poisson(profiles).astype(np.float32)


def by_rows(values: np.ndarray):
    return lambda rows: values[rows]


def test_correlations_equal_scipy_row_by_row(profiles, counts):
    expected = [stats.pearsonr(x, y)[0] for x, y in zip(profiles, counts, strict=True)]
    assert scores.correlations(profiles, counts) == pytest.approx(expected)


def test_correlations_with_a_constant_row_are_undefined(profiles):
    constant = np.full_like(profiles, 0.1)
    assert np.isnan(scores.correlations(profiles, constant)).all()


def test_mean_correlation_is_over_the_rows_that_vary_in_what_was_observed(rng):
    imputed, observed = rng.normal(size=(2, 4, 30))
    observed[0], imputed[1] = 2.0, 0.0  # nothing to predict, and nothing predicted
    expected = [0, *(stats.pearsonr(imputed[i], observed[i])[0] for i in (2, 3))]
    assert scores.mean_correlation(imputed, observed) == pytest.approx(np.mean(expected))


def test_poisson_log_likelihood_equals_a_plain_loop(profiles, counts):
    expected = []
    for profile, held_out in zip(profiles, counts, strict=True):
        share = 0.999 * profile / profile.sum() + 0.001 / len(profile)
        rates = held_out.sum() * share
        pairs = zip(rates, held_out, strict=True)
        expected.append(sum(stats.poisson(rate).logpmf(count) for rate, count in pairs))
    assert scores.poisson_log_likelihood(profiles, counts) == pytest.approx(expected, rel=1e-5)


def test_scores_do_not_see_the_scale_of_a_cells_profile(rng, profiles, counts):
    scaled = profiles * rng.uniform(0.1, 10, size=(40, 1))
    held_out = sparse.csr_matrix(counts)
    for score in (scores.rna_scores, scores.atac_scores):
        expected = score(by_rows(profiles), held_out)
        assert score(by_rows(scaled), held_out) == pytest.approx(expected, rel=1e-5)


def test_rna_scores_of_the_mean_have_no_correlation_by_gene(profiles, counts):
    mean = np.tile(profiles.mean(0), (40, 1))
    found = scores.rna_scores(by_rows(mean), sparse.csr_matrix(counts))
    assert found["rna_r_gene"] is None
    assert found["rna_r_cell"] > 0


def test_logs_of_poisson_counts_are_a_sum_over_scipy(profiles):
    found = scores.poisson_logs(profiles, 200.0)
    rates = scores.poisson_rates(profiles, np.full(40, 200.0))
    counts = np.arange(400)[:, None, None]
    expected = (stats.poisson(rates).pmf(counts) * np.log1p(50 * counts)).sum(0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_log_scores_are_of_the_logarithms_themselves(profiles, counts):
    logs = np.log1p(profiles)
    observed = np.log1p(1e4 * counts / np.maximum(counts.sum(1, keepdims=True), 1))
    found = scores.log_scores(by_rows(logs), sparse.csr_matrix(counts))
    for field, axis in (("rna_log_r_cell", 0), ("rna_log_r_gene", 1)):
        pairs = zip(np.moveaxis(logs, axis, 0), np.moveaxis(observed, axis, 0), strict=True)
        expected = [stats.pearsonr(x, y)[0] for x, y in pairs if np.ptp(y) > 0]
        assert found[field] == pytest.approx(np.mean(expected), rel=1e-5)


def test_atac_scores_average_scikit_learn_over_the_cells_with_an_open_peak(profiles, counts):
    counts[0] = 0
    found = scores.atac_scores(by_rows(profiles), sparse.csr_matrix(counts))
    pairs = list(zip(counts[1:] > 0, profiles[1:], strict=True))
    assert found["atac_auroc"] == pytest.approx(np.mean([roc_auc_score(y, p) for y, p in pairs]))
    expected = np.mean([average_precision_score(y, p) for y, p in pairs])
    assert found["atac_auprc"] == pytest.approx(expected)


def test_scores_do_not_depend_on_the_blocks(profiles, counts, monkeypatch):
    held_out = sparse.csr_matrix(counts)
    whole = scores.atac_scores(by_rows(profiles), held_out)
    monkeypatch.setattr(scores, "blocks_of", partial(scores.blocks_of, size=7))
    assert scores.atac_scores(by_rows(profiles), held_out) == pytest.approx(whole)


def test_coverage_counts_the_entries_between_the_quantiles_of_their_draws(rng, counts):
    draws = rng.poisson(1.0, size=(100, *counts.shape))
    found = scores.coverage(draws, counts).loc["all"]
    inside = 0
    for i, j in np.ndindex(counts.shape):
        ordered = np.sort(draws[:, i, j])
        inside += ordered[4] <= counts[i, j] <= ordered[94]
    assert found["observed_90"] == inside
    assert found["entries"] == counts.size


def test_calibration_of_the_true_law_covers_what_its_draws_expect(rng):
    rates = rng.gamma(2.0, size=(200, 60))
    counts = rng.poisson(rates)

    def laws(rows: np.ndarray, depth: np.ndarray):
        return [Poisson(torch.as_tensor(rates[rows], dtype=torch.float32))] * 200

    found = scores.calibration(
        laws, sparse.csr_matrix(counts), np.arange(200), cells_per_block=50, seed=0
    )
    for group in found["coverage"].values():
        assert group["observed_90"] == pytest.approx(group["expected_90"], abs=0.02)
    assert found["ece"] < 0.02


def test_expected_calibration_error_equals_a_plain_loop_over_the_bins(rng):
    probabilities, is_open = rng.uniform(size=(20, 50)), rng.uniform(size=(20, 50)) < 0.3
    edges = [0, *scores.PROBABILITY_BINS, np.inf]
    expected = 0.0
    for low, high in zip(edges, edges[1:], strict=False):
        inside = (low <= probabilities) & (probabilities < high)
        if inside.any():
            gap = probabilities[inside].mean() - is_open[inside].mean()
            expected += inside.mean() * abs(gap)
    bins = scores.reliability(probabilities, is_open)
    assert scores.expected_calibration_error(bins) == pytest.approx(expected)
