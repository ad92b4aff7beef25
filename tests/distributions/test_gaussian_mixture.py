"""The mixture prior against sklearn, torch, scvi-tools, quadrature and the paper's closed form."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import multivariate_normal, norm
from scvi.module.base import MogPrior
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.distributions import kl_divergence as torch_kl

from scmvp_scvi.distributions import GaussianMixture, MixtureFit


@pytest.fixture(autouse=True)
def _seeded_torch():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def random_fit(rng, n_clusters: int, n_latent: int) -> MixtureFit:
    return MixtureFit(
        weights=rng.dirichlet(np.full(n_clusters, 3.0)),
        means=rng.normal(size=(n_clusters, n_latent)),
        variances=rng.uniform(0.3, 2.0, (n_clusters, n_latent)),
    )


def prior_of(fit: MixtureFit, max_clusters: int | None = None) -> GaussianMixture:
    """Build a prior in double precision that has taken over ``fit``."""
    n_clusters, n_latent = fit.means.shape
    prior = GaussianMixture(max_clusters or n_clusters, n_latent).double()
    prior.copy_fit(fit)
    return prior


def torch_mixture(fit: MixtureFit) -> MixtureSameFamily:
    weights, means, variances = map(torch.as_tensor, (fit.weights, fit.means, fit.variances))
    components = Independent(Normal(means, variances.sqrt()), 1)
    return MixtureSameFamily(Categorical(weights), components)


def papers_kl(qz: Normal, fit: MixtureFit, responsibilities: torch.Tensor) -> torch.Tensor:
    """Closed form of the original paper: sum_c gamma_c KL(q || N_c) + KL(gamma || pi)."""
    total = torch.zeros(len(qz.loc), dtype=qz.loc.dtype)
    for c in range(len(fit.weights)):
        mean, variance = torch.as_tensor(fit.means[c]), torch.as_tensor(fit.variances[c])
        to_component = torch_kl(qz, Normal(mean, variance.sqrt())).sum(-1)
        gamma = responsibilities[:, c]
        total += gamma * (to_component + gamma.log() - np.log(fit.weights[c]))
    return total


@pytest.fixture
def fit(rng) -> MixtureFit:
    return random_fit(rng, n_clusters=3, n_latent=4)


@pytest.fixture
def z(rng) -> torch.Tensor:
    return torch.as_tensor(rng.normal(scale=2.0, size=(50, 4)))


@pytest.fixture
def qz(rng) -> Normal:
    """Posteriors of twenty cells, of which some lie between components."""
    return Normal(
        torch.as_tensor(rng.normal(size=(20, 4))), torch.as_tensor(rng.uniform(0.2, 1.5, (20, 4)))
    )


def test_cluster_probs_match_sklearn_predict_proba(fit, z):
    sklearn = SklearnMixture(3, covariance_type="diag")
    sklearn.weights_, sklearn.means_, sklearn.covariances_ = fit.weights, fit.means, fit.variances
    sklearn.precisions_cholesky_ = 1 / np.sqrt(fit.variances)
    probs = prior_of(fit).cluster_probs(z).detach()
    np.testing.assert_allclose(probs, sklearn.predict_proba(z.numpy()), rtol=1e-8, atol=1e-25)


def test_cluster_probs_follow_bayes_rule_in_a_plain_loop(fit, z):
    probs = prior_of(fit).cluster_probs(z).detach().numpy()
    for i, point in enumerate(z.numpy()):
        joint = [
            weight * multivariate_normal(mean, np.diag(variance)).pdf(point)
            for weight, mean, variance in zip(fit.weights, fit.means, fit.variances, strict=True)
        ]
        np.testing.assert_allclose(probs[i], joint / np.sum(joint), rtol=1e-8)


def test_rows_of_cluster_probs_sum_to_one_also_with_unused_components(fit, z):
    rows = prior_of(fit, max_clusters=7).cluster_probs(z).sum(-1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


def test_cluster_log_probs_are_the_log_of_cluster_probs(fit, z):
    prior = prior_of(fit)
    torch.testing.assert_close(prior.cluster_log_probs(z), prior.cluster_probs(z).log())


def test_log_prob_matches_torch_mixture_same_family(fit, z):
    torch.testing.assert_close(prior_of(fit).log_prob(z), torch_mixture(fit).log_prob(z))


def test_log_prob_matches_the_mixture_prior_of_scvi(fit, z):
    mog = MogPrior(n_components=3, n_latent=4).double()
    mog.prior_logits.data = torch.as_tensor(np.log(fit.weights))
    mog.prior_means.data = torch.as_tensor(fit.means)
    mog.prior_log_scales.data = torch.as_tensor(np.log(np.sqrt(fit.variances) - 1e-4))
    torch.testing.assert_close(prior_of(fit).log_prob(z), mog.get_prior(z).log_prob(z))


def test_unused_components_do_not_change_the_density(fit, z):
    roomy = prior_of(fit, max_clusters=9)
    torch.testing.assert_close(roomy.log_prob(z), prior_of(fit).log_prob(z))


def test_leading_draws_are_evaluated_each_like_a_single_one(fit, z):
    prior, draws = prior_of(fit), torch.stack((z, z.flip(0), 2 * z))
    for name in ("log_prob", "cluster_probs", "cluster_log_probs"):
        one_by_one = torch.stack([getattr(prior, name)(draw) for draw in draws])
        torch.testing.assert_close(getattr(prior, name)(draws), one_by_one)


def test_prior_is_standard_normal_before_the_fit(z):
    log_prob = GaussianMixture(5, 4).double().log_prob(z)
    np.testing.assert_allclose(log_prob.detach(), norm.logpdf(z).sum(-1), rtol=1e-12)


def test_no_cluster_is_known_before_the_fit(z):
    prior = GaussianMixture(5, 4).double()
    assert prior.n_clusters == 0
    assert prior.cluster_probs(z).shape == (50, 5)
    assert not prior.cluster_probs(z).any()


def test_samples_are_standard_normal_before_the_fit():
    samples, n = GaussianMixture(5, 2).sample(50_000), 50_000
    assert samples.shape == (n, 2)
    assert (samples.mean(0).abs() < 4 / n**0.5).all()
    assert ((samples.square().mean(0) - 1).abs() < 4 * (2 / n) ** 0.5).all()


def test_samples_have_the_precision_of_the_prior_and_no_gradient(fit):
    for prior in (GaussianMixture(5, 2), prior_of(fit)):
        samples = prior.double().sample(3)
        assert samples.dtype == torch.float64
        assert not samples.requires_grad


def test_means_of_samples_are_those_of_the_mixture(fit):
    samples, n = prior_of(fit, max_clusters=6).sample(100_000).numpy(), 100_000
    standard_error = samples.std(0) / np.sqrt(n)
    assert (abs(samples.mean(0) - fit.weights @ fit.means) < 4 * standard_error).all()


def test_second_moments_of_samples_are_those_of_the_mixture(fit):
    squares, n = prior_of(fit, max_clusters=6).sample(100_000).numpy() ** 2, 100_000
    expected = fit.weights @ (fit.means**2 + fit.variances)
    assert (abs(squares.mean(0) - expected) < 4 * squares.std(0) / np.sqrt(n)).all()


def test_copy_fit_gives_back_weights_means_and_variances(fit):
    prior = prior_of(fit, max_clusters=6)
    assert prior.n_clusters == 3
    np.testing.assert_allclose(prior.log_weights.exp().detach()[:3], fit.weights, rtol=1e-10)
    np.testing.assert_allclose(prior.means.detach()[:3], fit.means, rtol=1e-10)
    np.testing.assert_allclose(prior.variances.detach()[:3], fit.variances, rtol=1e-10)


def test_copy_fit_keeps_large_and_small_variances_in_float32():
    variances = np.array([[3e-4, 1e-2], [1.0, 5e3]])
    prior = GaussianMixture(2, 2)
    prior.copy_fit(MixtureFit(np.array([0.5, 0.5]), np.zeros((2, 2)), variances))
    np.testing.assert_allclose(prior.variances.detach(), variances, rtol=1e-4)


def test_variances_stay_above_their_floor():
    fit = MixtureFit(np.ones(1), np.zeros((1, 3)), np.full((1, 3), 1e-9))
    prior = prior_of(fit)
    assert (prior.variances >= 1e-4).all()
    assert prior.raw_variances.isfinite().all()
    prior.raw_variances.data.fill_(-1e4)
    assert (prior.variances >= 1e-4).all()


def test_copy_fit_replaces_an_earlier_and_larger_fit(rng, fit, z):
    prior = prior_of(random_fit(rng, n_clusters=6, n_latent=4))
    prior.copy_fit(fit)
    torch.testing.assert_close(prior.log_prob(z), torch_mixture(fit).log_prob(z))


def test_copy_fit_keeps_the_parameter_objects_of_the_optimiser(fit):
    prior = GaussianMixture(5, 4)
    before = {name: (id(p), p.data_ptr()) for name, p in prior.named_parameters()}
    prior.copy_fit(fit)
    assert before == {name: (id(p), p.data_ptr()) for name, p in prior.named_parameters()}


def test_copy_fit_refuses_more_components_than_there_is_room_for(fit):
    with pytest.raises(ValueError, match="`fit` has 3 components and the prior has room for 2"):
        GaussianMixture(2, 4).copy_fit(fit)


def test_state_dict_carries_the_fit(fit, z):
    loaded = GaussianMixture(6, 4).double()
    loaded.load_state_dict(prior_of(fit, max_clusters=6).state_dict())
    assert loaded.n_clusters == 3
    torch.testing.assert_close(loaded.log_prob(z), torch_mixture(fit).log_prob(z))


def test_unused_components_have_probability_zero(fit, z):
    prior = prior_of(fit, max_clusters=6)
    assert (prior.cluster_probs(z)[:, 3:] == 0).all()
    assert (prior.cluster_log_probs(z)[:, 3:] == -torch.inf).all()


@pytest.mark.parametrize("name", ["log_prob", "cluster_probs"])
def test_unused_components_get_zero_and_used_ones_finite_gradients(fit, z, name):
    prior, z = prior_of(fit, max_clusters=6), z.requires_grad_()
    getattr(prior, name)(z).square().sum().backward()
    for parameter in prior.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad[:3].any()
        assert not parameter.grad[3:].any()
    assert z.grad.isfinite().all()


def test_gradient_of_log_prob_is_the_one_of_torch_mixture_same_family(fit, z):
    point, same_point = z.clone().requires_grad_(), z.clone().requires_grad_()
    prior_of(fit).log_prob(point).sum().backward()
    torch_mixture(fit).log_prob(same_point).sum().backward()
    torch.testing.assert_close(point.grad, same_point.grad)


def test_responsibilities_are_exact_where_the_densities_underflow():
    # far away along 19 axes that tell the components nothing: odds = 2 * z_0 * mu_0
    means = np.zeros((2, 20))
    means[:, 0] = -1.0, 1.0
    prior = prior_of(MixtureFit(np.array([0.5, 0.5]), means, np.ones((2, 20))))
    z = torch.full((1, 20), 12.0, dtype=torch.float64)
    z[0, 0] = 0.3
    assert np.exp(prior.log_prob(z).item()) == 0
    np.testing.assert_allclose(prior.cluster_probs(z)[0, 1].item(), expit(0.6), rtol=1e-10)


def test_responsibilities_at_the_means_are_not_floored_to_uniform_in_twenty_dimensions(rng):
    # a floor of 1e-10 under the densities, as in the original, makes these rows uniform
    means = rng.normal(size=(5, 20)) * 3
    prior = prior_of(MixtureFit(np.full(5, 0.2), means, np.full((5, 20), 4.0)))
    z = torch.as_tensor(means)
    assert (prior.log_prob(z) < np.log(1e-10)).all()
    np.testing.assert_allclose(prior.cluster_probs(z).detach(), np.eye(5), atol=0.01)


@pytest.mark.parametrize("distance", [1e2, 1e6])
def test_far_points_give_finite_values_and_gradients_in_float32(fit, distance):
    prior = prior_of(fit, max_clusters=6).float()
    z = torch.full((2, 4), distance, requires_grad=True)
    (prior.log_prob(z).sum() + prior.cluster_probs(z).square().sum()).backward()
    assert prior.log_prob(z).isfinite().all()
    assert z.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in prior.parameters())
    torch.testing.assert_close(prior.cluster_probs(z).sum(-1), torch.ones(2))


def test_kl_is_zero_at_every_draw_where_the_posterior_is_the_only_component(rng):
    fit = random_fit(rng, n_clusters=1, n_latent=4)
    mean, variance = torch.as_tensor(fit.means), torch.as_tensor(fit.variances)
    qz = Normal(mean.expand(10, 4), variance.sqrt().expand(10, 4))
    kl = prior_of(fit, max_clusters=3).kl(qz, qz.rsample())
    torch.testing.assert_close(kl, torch.zeros_like(kl), atol=1e-12, rtol=0)


def test_kl_is_zero_before_the_fit_where_the_posterior_is_standard_normal():
    qz = Normal(torch.zeros(10, 4), torch.ones(10, 4))
    kl = GaussianMixture(3, 4).kl(qz, qz.rsample())
    torch.testing.assert_close(kl, torch.zeros(10), atol=1e-5, rtol=0)


def test_kl_averages_over_draws(fit, qz):
    prior, draws = prior_of(fit), qz.rsample((6,))
    by_draw = torch.stack([prior.kl(qz, draw) for draw in draws])
    torch.testing.assert_close(prior.kl(qz, draws), by_draw.mean(0))
    torch.testing.assert_close(prior.kl(qz, draws.unflatten(0, (2, 3))), by_draw.mean(0))


def test_kl_is_unbiased_for_the_integral_over_the_latent_line(rng):
    fit, n_draws = random_fit(rng, n_clusters=3, n_latent=1), 100_000
    q, components = norm(0.4, 0.7), norm(fit.means, np.sqrt(fit.variances))

    def integrand(x: float) -> float:
        return q.pdf(x) * (q.logpdf(x) - np.log(fit.weights @ components.pdf(x)[:, 0]))

    truth, _ = quad(integrand, -8, 8)
    qz = Normal(torch.full((n_draws, 1), 0.4).double(), torch.full((n_draws, 1), 0.7).double())
    estimates = prior_of(fit).kl(qz, qz.rsample()).detach()
    assert abs(estimates.mean() - truth) < 4 * estimates.std() / n_draws**0.5


def test_kl_of_one_component_is_the_closed_form_of_the_paper(rng, qz):
    fit, n_draws = random_fit(rng, n_clusters=1, n_latent=4), 2_000
    prior, closed_form = prior_of(fit), papers_kl(qz, fit, torch.ones(20, 1))
    estimates = torch.stack([prior.kl(qz, qz.rsample()) for _ in range(n_draws)]).detach()
    error = (estimates.mean(0) - closed_form).abs()
    assert (error < 4 * estimates.std(0) / n_draws**0.5).all()


def test_closed_form_of_the_paper_bounds_the_kl_from_above(fit, qz):
    prior = prior_of(fit)
    bound = papers_kl(qz, fit, prior.cluster_probs(qz.loc))
    kl = prior.kl(qz, qz.rsample((5_000,)))
    assert (kl < bound).all()


def test_kl_passes_the_gradient_of_the_closed_form_for_one_component(rng):
    fit, n_draws = random_fit(rng, n_clusters=1, n_latent=2), 200_000
    mean = torch.tensor([[0.5, -0.3]], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([[0.8, 0.4]], dtype=torch.float64, requires_grad=True)
    qz = Normal(mean, scale)
    estimate = torch.autograd.grad(prior_of(fit).kl(qz, qz.rsample((n_draws,))), (mean, scale))
    truth = torch.autograd.grad(papers_kl(qz, fit, torch.ones(1, 1)), (mean, scale))
    torch.testing.assert_close(estimate, truth, atol=0.02, rtol=0)


def test_mixture_fit_refuses_arrays_of_different_clusters():
    with pytest.raises(ValueError, match=r"same clusters, got shapes \(2,\), \(3, 4\) and \(3, 4"):
        MixtureFit(np.full(2, 0.5), np.zeros((3, 4)), np.ones((3, 4)))


def test_mixture_fit_refuses_variances_of_another_shape_than_the_means():
    with pytest.raises(ValueError, match=r"\(2, 4\) and \(2, 1\)"):
        MixtureFit(np.full(2, 0.5), np.zeros((2, 4)), np.ones((2, 1)))


@pytest.mark.parametrize(("weight", "variance"), [(0.5, 0.0), (0.5, -1.0), (0.0, 1.0)])
def test_mixture_fit_refuses_weights_and_variances_that_are_not_positive(weight, variance):
    with pytest.raises(ValueError, match="`weights` and `variances` must be positive"):
        MixtureFit(np.array([1.0, weight]), np.zeros((2, 1)), np.array([[1.0], [variance]]))
