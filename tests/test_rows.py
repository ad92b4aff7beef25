"""Random features: their probabilities, their frequencies, and the gradient of their rows."""

import pytest
import torch

from scmvp_scvi._rows import inclusion_probabilities, sample_features, split_uses, take_rows


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


def test_probabilities_without_a_cap_are_the_mixture_that_was_asked_for(rng):
    abundance = torch.as_tensor(rng.uniform(1, 2, 50))
    expected = 10 * (0.3 / 50 + 0.7 * abundance / abundance.sum())
    torch.testing.assert_close(inclusion_probabilities(abundance, 10, 0.3), expected)


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


def test_gradient_of_a_row_is_multiplied_by_its_factor(rng):
    weight = torch.as_tensor(rng.normal(size=(6, 3))).requires_grad_()
    rows, factors = torch.tensor([1, 4, 5]), torch.tensor([0.5, 0.2, 0.1], dtype=torch.float64)
    upstream = torch.as_tensor(rng.normal(size=(3, 3)))
    (found,) = torch.autograd.grad(take_rows(weight, rows, factors), weight, upstream)
    torch.testing.assert_close(found.coalesce().indices()[0], rows)
    torch.testing.assert_close(found.coalesce().values(), upstream * factors[:, None])


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


@pytest.mark.parametrize("width", [(), (4,)])
def test_rows_and_their_gradient_are_those_of_indexing(rng, width):
    weight = torch.as_tensor(rng.normal(size=(30, *width))).requires_grad_()
    rows = torch.tensor([1, 7, 29])
    upstream = torch.as_tensor(rng.normal(size=(3, *width)))
    torch.testing.assert_close(take_rows(weight, rows), weight[rows], rtol=0, atol=0)
    (sparse,) = torch.autograd.grad(take_rows(weight, rows), weight, upstream)
    (dense,) = torch.autograd.grad(weight[rows], weight, upstream)
    assert sparse.is_sparse
    torch.testing.assert_close(sparse.to_dense(), dense, rtol=0, atol=0)


def test_a_slice_of_rows_has_a_dense_gradient(rng):
    weight = torch.as_tensor(rng.normal(size=(30, 4))).requires_grad_()
    (gradient,) = torch.autograd.grad(take_rows(weight, slice(2, 5)).sum(), weight)
    assert not gradient.is_sparse
    assert gradient.sum() == 12


def test_sparse_and_dense_gradients_of_one_weight_add_up(rng):
    weight = torch.as_tensor(rng.normal(size=(30, 4))).requires_grad_()
    rows = torch.tensor([0, 3])
    (weight.square().sum() + take_rows(weight, rows).sum()).backward()
    expected = 2 * weight.detach()
    expected[rows] += 1
    torch.testing.assert_close(weight.grad, expected)


@pytest.mark.parametrize("uses", ["all rows", "some rows", "both", "both, all by slice"])
def test_gradient_of_split_uses_is_that_of_the_weight_used_twice(rng, uses):
    weight = torch.as_tensor(rng.normal(size=(9, 3)))
    rows = slice(None) if uses == "both, all by slice" else torch.tensor([1, 4, 8])

    def total(for_all: torch.Tensor, for_some: torch.Tensor) -> torch.Tensor:
        dense = for_all.square().sum() if uses != "some rows" else 0.0
        return dense + (take_rows(for_some, rows).exp().sum() if uses != "all rows" else 0.0)

    split, plain = (weight.clone().requires_grad_() for _ in range(2))
    total(*split_uses(split)).backward()
    total(plain, plain).backward()
    found = split.grad.to_dense() if split.grad.is_sparse else split.grad
    expected = plain.grad.to_dense() if plain.grad.is_sparse else plain.grad
    torch.testing.assert_close(found, expected)
    assert found.any()


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
