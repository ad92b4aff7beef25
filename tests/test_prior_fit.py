"""Fits of the mixture recover planted Gaussian blobs."""

import logging
import operator

import numpy as np
import pytest
import scanpy as sc

from scmvp_scvi import _prior_fit
from scmvp_scvi._neighbors import leiden_partitions, merge_communities
from scmvp_scvi._prior_fit import fit_mixture, mixture_from_labels
from scmvp_scvi.distributions import MixtureFit

SIZES = (300, 200, 100)
MEANS = np.array([[0.0, 0, 0], [9, 0, 0], [0, 9, 9]])
SCALES = np.array([[1.0, 0.5, 0.8], [0.6, 1.2, 0.7], [0.9, 0.4, 1.1]])
POSTERIOR_VARIANCES = np.array([[0.3, 0.1, 0.2], [0.5, 0.4, 0.1], [0.2, 0.6, 0.3]])


@pytest.fixture
def planted(rng) -> np.ndarray:
    """Planted cluster of each cell, in random order."""
    return rng.permutation(np.repeat(np.arange(3), SIZES))


@pytest.fixture
def latent(rng, planted) -> np.ndarray:
    return MEANS[planted] + rng.normal(size=(len(planted), 3)) * SCALES[planted]


@pytest.fixture
def latent_variances(planted) -> np.ndarray:
    return POSTERIOR_VARIANCES[planted]


def fit(latent, latent_variances, n_clusters=None, max_clusters=10, seed=0) -> MixtureFit:
    return fit_mixture(latent, latent_variances, n_clusters, max_clusters, 0.1, seed)


def largest_first(mixture: MixtureFit) -> MixtureFit:
    order = np.argsort(-mixture.weights)
    return MixtureFit(mixture.weights[order], mixture.means[order], mixture.variances[order])


def assert_recovers_the_planted_clusters(mixture: MixtureFit):
    found = largest_first(mixture)
    np.testing.assert_allclose(found.weights, np.array(SIZES) / sum(SIZES), atol=1e-6)
    # 4 standard errors of the means and variances of at least 100 cells
    np.testing.assert_allclose(found.means, MEANS, atol=0.4 * SCALES.max())
    spread = SCALES**2
    np.testing.assert_allclose(found.variances - POSTERIOR_VARIANCES, spread, rtol=0.57, atol=0.1)


@pytest.mark.parametrize("n_clusters", [None, 3])
def test_fit_recovers_weights_means_and_variances(latent, latent_variances, n_clusters):
    assert_recovers_the_planted_clusters(fit(latent, latent_variances, n_clusters))


@pytest.mark.parametrize("n_clusters", [None, 3])
def test_fit_takes_float32_as_the_encoder_gives_it(latent, latent_variances, n_clusters):
    single = latent.astype(np.float32), latent_variances.astype(np.float32)
    assert_recovers_the_planted_clusters(fit(*single, n_clusters))


@pytest.mark.parametrize("n_clusters", [None, 3])
def test_fit_adds_the_posterior_variance_of_each_cluster(latent, latent_variances, n_clusters):
    with_posterior = largest_first(fit(latent, latent_variances, n_clusters))
    without = largest_first(fit(latent, np.zeros_like(latent), n_clusters))
    added = with_posterior.variances - without.variances
    # Leiden's groups are shrunk by 3 pseudo-cells among at least 100
    np.testing.assert_allclose(added, POSTERIOR_VARIANCES, atol=0.02)


@pytest.mark.parametrize("n_clusters", [None, 3])
def test_fit_is_the_same_for_the_same_seed(latent, latent_variances, n_clusters):
    first, second = (fit(latent, latent_variances, n_clusters, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.means, second.means)
    np.testing.assert_array_equal(first.variances, second.variances)


def test_fit_has_one_component_a_merged_community(latent, latent_variances):
    (communities,) = leiden_partitions(latent, [1.0])
    merged = merge_communities(latent, communities)
    assert merged.max() < communities.max()
    mixture = fit_mixture(latent, latent_variances, None, max_clusters=50, resolution=1.0, seed=0)
    np.testing.assert_allclose(mixture.weights, np.bincount(merged) / len(latent))


@pytest.mark.parametrize("n_cells", [1, 2])
def test_fit_of_too_few_cells_for_a_graph_is_one_component(latent, latent_variances, n_cells):
    mixture = fit(latent[:n_cells], latent_variances[:n_cells])
    np.testing.assert_array_equal(mixture.weights, [1])
    np.testing.assert_allclose(mixture.means, [latent[:n_cells].mean(0)])
    variances = latent[:n_cells].var(0) + latent_variances[:n_cells].mean(0)
    np.testing.assert_allclose(mixture.variances, [variances])


def test_fit_of_an_integer_has_that_many_components(latent, latent_variances):
    mixture = fit(latent, latent_variances, n_clusters=5)
    assert mixture.means.shape == mixture.variances.shape == (5, 3)
    assert mixture.weights.sum() == pytest.approx(1)


def test_fit_keeps_the_largest_communities_and_says_so(latent, latent_variances, caplog):
    with caplog.at_level(logging.WARNING, logger=_prior_fit.__name__):
        mixture = fit(latent, latent_variances, max_clusters=2)
    assert "found 3 communities and the prior has room for 2" in caplog.text
    np.testing.assert_allclose(mixture.weights, [0.6, 0.4])
    np.testing.assert_allclose(mixture.means, MEANS[:2], atol=0.4)


@pytest.fixture
def cells_seen(monkeypatch) -> list[np.ndarray]:
    """Cells that reach the neighbour graph where 100 are allowed; they form one community."""
    seen = []

    def one_community(latent: np.ndarray, resolutions: list[float], **_) -> list[np.ndarray]:
        seen.append(latent[:, 0])
        return [np.zeros(len(latent), dtype=int) for _ in resolutions]

    monkeypatch.setattr(_prior_fit, "MAX_CELLS", 100)
    monkeypatch.setattr(_prior_fit, "leiden_partitions", one_community)
    return seen


def test_fit_draws_a_subsample_of_a_large_input_without_replacement(cells_seen):
    fit(np.arange(500.0)[:, None], np.ones((500, 1)))
    (cells,) = cells_seen
    assert len(cells) == len(np.unique(cells)) == 100
    assert abs(cells.mean() - 249.5) < 4 * 500 / np.sqrt(12 * 100)


def test_fit_uses_every_cell_of_an_input_of_the_allowed_size(cells_seen):
    fit(np.arange(100.0)[:, None], np.ones((100, 1)))
    np.testing.assert_array_equal(cells_seen, [np.arange(100.0)])


@pytest.mark.usefixtures("cells_seen")
def test_subsampled_posterior_variances_are_those_of_the_same_cells():
    numbers = np.arange(1.0, 501.0)
    latent = np.stack((numbers, np.zeros(500)), 1)
    mixture = fit(latent, np.stack((numbers, numbers), 1))
    # the second axis has no spread of its own: its variance is the mean posterior variance
    assert mixture.variances[0, 1] == pytest.approx(mixture.means[0, 0])


def test_mixture_from_labels_equals_a_plain_loop_with_shrinkage(latent, latent_variances, planted):
    groups = [2, 0, 1]
    mixture = mixture_from_labels(latent, latent_variances, planted, groups)
    pooled = sum(group_squares(latent, latent_variances, planted == g) for g in groups)
    pooled = pooled / len(latent)
    for c, group in enumerate(groups):
        rows = planted == group
        squares = group_squares(latent, latent_variances, rows)
        assert mixture.weights[c] == pytest.approx(rows.sum() / len(latent))
        np.testing.assert_allclose(mixture.means[c], latent[rows].mean(0))
        np.testing.assert_allclose(mixture.variances[c], (squares + 3 * pooled) / (rows.sum() + 3))


def group_squares(latent: np.ndarray, variances: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Sum over the cells of a group of squared deviation and posterior variance, cell by cell."""
    mean, total = latent[rows].mean(0), np.zeros(latent.shape[1])
    for point, variance in zip(latent[rows], variances[rows], strict=True):
        total += (point - mean) ** 2 + variance
    return total


def test_component_of_one_cell_takes_the_pooled_variance(latent):
    labels = np.zeros(len(latent), dtype=int)
    labels[0] = 1
    mixture = mixture_from_labels(latent, np.zeros_like(latent), labels, [0, 1])
    pooled = latent[1:].var(0) * (len(latent) - 1) / len(latent)
    np.testing.assert_allclose(mixture.variances[1], 3 * pooled / 4)


def test_cells_of_other_groups_are_left_out(latent, latent_variances, planted):
    mixture = mixture_from_labels(latent, latent_variances, planted, [0, 2])
    kept = planted != 1
    alone = mixture_from_labels(latent[kept], latent_variances[kept], planted[kept], [0, 2])
    np.testing.assert_allclose(mixture.weights, [0.75, 0.25])
    np.testing.assert_array_equal(mixture.means, alone.means)
    np.testing.assert_array_equal(mixture.variances, alone.variances)


def test_variances_of_identical_cells_stay_above_their_floor():
    zeros = np.zeros((10, 3))
    mixture = mixture_from_labels(zeros, zeros, np.arange(10) % 2, [0, 1])
    np.testing.assert_array_equal(mixture.variances, np.full((2, 3), 1e-3))


def test_label_without_cells_is_refused_by_its_code(latent, latent_variances, planted):
    with pytest.raises(ValueError, match=r"needs a training cell, but \[7\] \(codes\) have none"):
        mixture_from_labels(latent, latent_variances, planted, [0, 7, 1])


def test_subsample_of_a_large_input_is_drawn_by_the_seed(cells_seen):
    latent = np.arange(500.0)[:, None]
    for seed in (1, 1, 2):
        fit(latent, np.ones_like(latent), seed=seed)
    first, again, other = cells_seen
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_leiden_and_its_graph_are_given_the_seed_of_the_fit(latent, monkeypatch):
    seeds = []
    for name in ("pp.neighbors", "tl.leiden"):
        original = operator.attrgetter(name)(sc)

        def recording(*args, _original=original, **options):
            seeds.append(options["random_state"])
            return _original(*args, **options)

        monkeypatch.setattr(f"scanpy.{name}", recording)
    fit(latent, np.ones_like(latent), seed=5)
    assert seeds == [5, 5]


def test_variances_of_a_fixed_number_of_components_stay_above_their_floor(
    rng,
):
    latent = np.stack((rng.normal(size=60), np.zeros(60)), 1)
    mixture = fit(latent, np.zeros_like(latent), n_clusters=2)
    np.testing.assert_allclose(mixture.variances[:, 1], 1e-3)


def test_a_fixed_number_of_components_starts_at_k_means(rng):
    corners = 6 * np.array([[x, y] for x in range(3) for y in range(3)])
    latent = np.repeat(corners, 60, axis=0) + rng.normal(size=(540, 2))
    mixture = fit(latent, np.zeros_like(latent), n_clusters=9)
    distances = np.linalg.norm(mixture.means[:, None] - corners, axis=-1)
    assert (distances.min(0) < 1).all()
