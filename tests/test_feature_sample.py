"""Random features: their probabilities and their frequencies."""

import pytest
import torch

from scmvp_scvi._feature_sample import inclusion_probabilities, sample_evenly, sample_features


@pytest.fixture
def abundance(rng) -> torch.Tensor:
    """Counts of 200 features, two of them far above all others, some zero."""
    abundance = torch.as_tensor(rng.gamma(0.3, size=200)).float()
    abundance[:2], abundance[-5:] = 1_000.0, 0.0
    return abundance


@pytest.mark.parametrize("n_sampled", [1, 10, 57, 199])
def test_probabilities_sum_to_the_number_of_draws_and_none_exceeds_one(abundance, n_sampled):
    probabilities = inclusion_probabilities(abundance, n_sampled)
    assert probabilities.sum().item() == pytest.approx(n_sampled, rel=1e-5)
    assert (probabilities > 0).all()
    assert (probabilities <= 1).all()


def test_probabilities_without_a_cap_are_half_even_and_half_by_abundance(rng):
    abundance = torch.as_tensor(rng.uniform(1, 2, 50))
    expected = 10 * (0.5 / 50 + 0.5 * abundance / abundance.sum())
    torch.testing.assert_close(inclusion_probabilities(abundance, 10), expected)


@pytest.mark.parametrize("n_sampled", [200, 1_000])
def test_all_features_are_certain_where_as_many_are_asked_for(abundance, n_sampled):
    assert (inclusion_probabilities(abundance, n_sampled) == 1).all()


def test_rarer_features_are_drawn_more_often_than_their_abundance_alone_would_have(abundance):
    probabilities = inclusion_probabilities(abundance, 20)
    assert probabilities.min() >= 0.5 * 20 / 200  # the equal share


def test_features_are_drawn_as_often_as_their_probability_says(abundance):
    probabilities = inclusion_probabilities(abundance, 20)
    torch.manual_seed(0)
    n_draws = 4_000
    hits = torch.zeros(200)
    for _ in range(n_draws):
        hits[sample_features(probabilities, 20).columns] += 1
    error = (probabilities * (1 - probabilities) / n_draws).sqrt()
    assert ((hits / n_draws - probabilities).abs() <= 4.5 * error + 1e-6).all()


def test_each_sample_has_the_number_of_features_asked_for_in_ascending_order(abundance):
    probabilities = inclusion_probabilities(abundance, 20)
    for seed in range(50):
        torch.manual_seed(seed)
        sample = sample_features(probabilities, 20)
        assert len(sample.columns) == 20
        assert (sample.columns.diff() > 0).all()
        torch.testing.assert_close(sample.weights, 1 / probabilities[sample.columns])


def test_certain_features_are_all_drawn_with_weight_one():
    sample = sample_features(torch.ones(100_000), 100_000)
    torch.testing.assert_close(sample.columns, torch.arange(100_000))
    assert (sample.weights == 1).all()


def test_no_feature_is_drawn_twice_and_no_certain_one_is_left_out(rng):
    abundance = torch.as_tensor(rng.gamma(0.05, size=3_000)).float()
    probabilities = inclusion_probabilities(abundance, 1_200)
    certain = (probabilities == 1).nonzero().flatten()
    assert len(certain) > 200
    for seed in range(300):
        torch.manual_seed(seed)
        columns = sample_features(probabilities, 1_200).columns
        assert (columns.diff() > 0).all()
        assert torch.isin(certain, columns).all()


def test_features_drawn_evenly_are_distinct_ascending_and_all_as_frequent():
    torch.manual_seed(0)
    n_draws, hits = 4_000, torch.zeros(30)
    for _ in range(n_draws):
        sample = sample_evenly(30, 12, torch.device("cpu"))
        assert (sample.columns.diff() > 0).all()
        torch.testing.assert_close(sample.weights, torch.full((12,), 30 / 12))
        hits[sample.columns] += 1
    error = (0.4 * 0.6 / n_draws) ** 0.5
    assert ((hits / n_draws - 0.4).abs() <= 4.5 * error).all()
