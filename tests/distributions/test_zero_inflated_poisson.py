"""The zero-inflated Poisson law against scipy, its own sums and its own draws."""

import numpy as np
import pytest
import torch
from scipy.special import expit, gammaln, log_expit
from scipy.stats import poisson
from torch.distributions import Poisson

from scmvp_scvi.distributions import ZeroInflatedPoisson


@pytest.fixture(autouse=True)
def _seeded_torch():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def log_prob_by_scipy(counts, rates, logits):
    """Mix scipy's Poisson with a point mass at zero, in log space."""
    log_count = log_expit(logits) + poisson.logpmf(counts, rates)
    return np.where(counts == 0, np.logaddexp(log_expit(-logits), log_count), log_count)


def law(rates, logits, **kwargs) -> ZeroInflatedPoisson:
    """Build the law in double precision, from numbers, lists, arrays or tensors."""
    rates, logits = (torch.as_tensor(p, dtype=torch.float64) for p in (rates, logits))
    return ZeroInflatedPoisson(rates, logits, **kwargs)


def test_log_prob_matches_scipy_where_counts_are_zero(rng):
    rates, logits = rng.gamma(1.0, 3.0, 200), rng.normal(0.0, 3.0, 200)
    log_prob = law(rates, logits).log_prob(torch.zeros(200, dtype=torch.float64))
    np.testing.assert_allclose(log_prob, log_prob_by_scipy(0, rates, logits), rtol=1e-10)


def test_log_prob_matches_scipy_where_counts_are_positive(rng):
    rates, logits = rng.gamma(1.0, 3.0, 200), rng.normal(0.0, 3.0, 200)
    counts = rng.integers(1, 30, 200)
    log_prob = law(rates, logits).log_prob(torch.as_tensor(counts, dtype=torch.float64))
    np.testing.assert_allclose(log_prob, log_prob_by_scipy(counts, rates, logits), rtol=1e-10)


@pytest.mark.parametrize("rate", [1e-12, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("logit", [-300.0, -40.0, 40.0, 300.0])
def test_log_prob_matches_scipy_at_extreme_rates_and_logits(rate, logit):
    counts = torch.tensor([0.0, 1.0, 1000.0], dtype=torch.float64)
    log_prob = law(rate, logit).log_prob(counts)
    expected = log_prob_by_scipy(counts.numpy(), rate, logit)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rate", [0.0, 2.0])
def test_inclusion_of_one_is_the_poisson_law_and_of_zero_none(rate):
    counts = torch.arange(4.0, dtype=torch.float64)
    found = law(rate, torch.inf).log_prob(counts)
    np.testing.assert_allclose(found, poisson.logpmf(counts, rate), rtol=1e-12)
    assert law(rate, -torch.inf).log_prob(counts).tolist() == [0.0] + 3 * [-torch.inf]


def test_zero_is_as_likely_as_in_double_precision_where_a_rate_is_small():
    rate, logit = 1e-5, 20.0
    found = ZeroInflatedPoisson(torch.tensor(rate), torch.tensor(logit)).log_prob(torch.zeros(()))
    assert float(found) == pytest.approx(log_prob_by_scipy(0, rate, logit), rel=1e-5)


def test_draws_can_be_changed_and_fitted_to():
    rate = torch.tensor([1.0, 2.0], requires_grad=True)
    draws = ZeroInflatedPoisson(rate, torch.zeros(2)).sample((3,))
    draws += 1
    ZeroInflatedPoisson(rate, torch.zeros(2)).log_prob(draws).sum().backward()
    assert rate.grad.isfinite().all()


def test_log_prob_and_gradients_are_finite_in_float32_at_extreme_parameters():
    rates = torch.tensor([1e-30, 1e-3, 1e4]).repeat(2).requires_grad_()
    logits = torch.tensor([-100.0] * 3 + [100.0] * 3).requires_grad_()
    for count in (0.0, 3.0):
        log_prob = ZeroInflatedPoisson(rates, logits).log_prob(torch.tensor(count))
        assert log_prob.isfinite().all()
        assert all(
            g.isfinite().all() for g in torch.autograd.grad(log_prob.sum(), (rates, logits))
        )


def test_gradient_of_log_prob_matches_finite_differences(rng):
    rates = torch.as_tensor(rng.gamma(2.0, 1.0, 6)).requires_grad_()
    logits = torch.as_tensor(rng.normal(size=6)).requires_grad_()
    counts = torch.tensor([0.0, 1.0, 2.0, 0.0, 5.0, 0.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda rate, logit: ZeroInflatedPoisson(rate, logit).log_prob(counts), (rates, logits)
    )


@pytest.mark.parametrize("rate", [0.0, 0.2, 7.0])
@pytest.mark.parametrize("logit", [-2.0, 0.0, 3.0])
def test_probabilities_sum_to_one(rate, logit):
    counts = torch.arange(100.0, dtype=torch.float64)
    assert law(rate, logit).log_prob(counts).exp().sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("rate", [0.2, 7.0])
@pytest.mark.parametrize("logit", [-2.0, 0.0, 3.0])
def test_mean_and_variance_match_the_sum_over_counts(rate, logit):
    zip_law = law(rate, logit)
    counts = torch.arange(100.0, dtype=torch.float64)
    probs = zip_law.log_prob(counts).exp()
    mean = (probs * counts).sum()
    torch.testing.assert_close(zip_law.mean, mean)
    torch.testing.assert_close(zip_law.variance, (probs * (counts - mean).square()).sum())


def test_mean_of_samples_is_within_its_standard_error():
    zip_law, n_samples = law([0.3, 2.0, 9.0], [-1.0, 0.0, 2.0]), 100_000
    error = zip_law.sample((n_samples,)).mean(0) - zip_law.mean
    assert (error.abs() < 4 * (zip_law.variance / n_samples).sqrt()).all()


def test_variance_of_samples_is_within_its_standard_error():
    zip_law, n_samples = law([0.3, 2.0, 9.0], [-1.0, 0.0, 2.0]), 100_000
    squares = (zip_law.sample((n_samples,)) - zip_law.mean).square()
    error = squares.mean(0) - zip_law.variance
    assert (error.abs() < 4 * squares.std(0) / n_samples**0.5).all()


def test_zeros_among_samples_are_as_frequent_as_their_probability():
    zip_law, n_samples = law([0.3, 2.0, 9.0], [-1.0, 0.0, 2.0]), 100_000
    probability = zip_law.log_prob(torch.zeros(3, dtype=torch.float64)).exp()
    error = (zip_law.sample((n_samples,)) == 0).float().mean(0) - probability
    assert (error.abs() < 4 * (probability * (1 - probability) / n_samples).sqrt()).all()


@pytest.mark.parametrize("sample_shape", [(), (5,), (5, 2)])
def test_samples_have_the_sample_shape_before_the_batch_shape(sample_shape):
    samples = law(torch.ones(4, 1), torch.zeros(3)).sample(sample_shape)
    assert samples.shape == (*sample_shape, 4, 3)
    assert (samples >= 0).all()
    assert (samples == samples.round()).all()


def test_gradient_of_a_zero_count_at_rate_zero_is_minus_the_inclusion_probability():
    rate = torch.zeros(1, requires_grad=True)
    law = ZeroInflatedPoisson(rate, torch.tensor([0.3]))
    (slope,) = torch.autograd.grad(law.log_prob(torch.zeros(1)).sum(), rate)
    assert slope.item() == pytest.approx(-torch.tensor(0.3).sigmoid().item())


def test_zero_rate_puts_all_mass_on_zero():
    zip_law = law(0.0, 1.0)
    log_prob = zip_law.log_prob(torch.tensor([0.0, 1.0]))
    np.testing.assert_allclose(log_prob, [0.0, -np.inf], atol=1e-7)
    assert zip_law.mean == zip_law.variance == 0
    assert not zip_law.sample((50,)).any()


def test_parameters_broadcast_against_each_other(rng):
    rates, logits = rng.gamma(2.0, 1.0, (4, 1)), rng.normal(size=3)
    zip_law = law(rates, logits)
    assert zip_law.batch_shape == zip_law.mean.shape == zip_law.variance.shape == (4, 3)
    np.testing.assert_allclose(zip_law.mean, rates * expit(logits))


def test_expanded_law_gives_the_log_prob_and_scale_of_the_law_in_each_row(rng):
    scale = torch.as_tensor(rng.random(3))
    zip_law = law(rng.gamma(2.0, 1.0, 3), rng.normal(size=3), scale=scale)
    expanded = zip_law.expand(torch.Size((5, 3)))
    counts = torch.as_tensor(rng.poisson(1.0, (5, 3)).astype(float))
    assert expanded.batch_shape == (5, 3)
    torch.testing.assert_close(expanded.log_prob(counts), zip_law.log_prob(counts))
    torch.testing.assert_close(expanded.scale, torch.stack([scale] * 5))


def test_expanded_law_keeps_unchecked_arguments_unchecked():
    zip_law = law(torch.tensor([-1.0]), torch.zeros(1), validate_args=False)
    assert zip_law.expand(torch.Size((2, 1))).batch_shape == (2, 1)


def test_get_normalized_returns_the_poisson_mean_and_the_scale():
    scale = torch.tensor([0.1, 0.2])
    zip_law = law(10 * scale, torch.zeros(2), scale=scale)
    assert zip_law.get_normalized("mu") is zip_law.rate
    assert zip_law.get_normalized("scale") is scale


def test_scale_is_the_rate_where_none_is_given():
    zip_law = law([0.5, 2.0], [0.0, 0.0])
    torch.testing.assert_close(zip_law.get_normalized("scale"), zip_law.rate)


def test_get_normalized_refuses_other_keys():
    with pytest.raises(ValueError, match="`key` must be 'mu' or 'scale', got 'mean'"):
        law(1.0, 0.0).get_normalized("mean")


@pytest.mark.parametrize(
    ("name", "rate", "logit", "scale"),
    [
        ("rate", -1.0, 0.0, 1.0),
        ("rate", float("nan"), 0.0, 1.0),
        ("inclusion_logits", 1.0, float("nan"), 1.0),
        ("scale", 1.0, 0.0, -1.0),
    ],
)
def test_parameter_out_of_range_is_refused_by_name(name, rate, logit, scale):
    with pytest.raises(ValueError, match=f"Expected parameter {name} "):
        law(rate, logit, scale=torch.tensor(scale), validate_args=True)


@pytest.mark.parametrize("count", [-1.0, float("nan")])
def test_value_out_of_range_is_refused(count):
    with pytest.raises(ValueError, match="within the support"):
        law(1.0, 0.0, validate_args=True).log_prob(torch.tensor(count))


def test_unchecked_law_accepts_any_parameter():
    assert law(-1.0, 0.0, validate_args=False).rate == -1


def test_half_counts_interpolate_the_factorial_by_the_gamma_function():
    counts = torch.tensor([0.5, 1.5, 7.5], dtype=torch.float64)
    log_prob = law(2.0, 0.7, validate_args=True).log_prob(counts)
    x = counts.numpy()
    expected = log_expit(0.7) + x * np.log(2.0) - 2.0 - gammaln(x + 1)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-10)


def test_law_reduces_to_the_poisson_law_as_tau_goes_to_one(rng):
    rates = torch.as_tensor(rng.gamma(2.0, 2.0, 50))
    counts = torch.as_tensor(rng.poisson(rates).astype(float))
    zip_law = law(rates, torch.full((50,), 60.0))
    torch.testing.assert_close(zip_law.log_prob(counts), Poisson(rates).log_prob(counts))
    torch.testing.assert_close(zip_law.variance, Poisson(rates).variance)
