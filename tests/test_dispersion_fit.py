"""Fits of the dispersions find the mode of each gene's posterior."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import nbinom, norm

from scmvp_scvi._dispersion_fit import move_to_mode

PRIOR_SCALE = 2.0


def fit(start, counts, means):
    """Logarithms of the inverse dispersions of counts with known means."""
    parameter = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def gradient():
        logits = torch.as_tensor(means).log() - parameter
        law = torch.distributions.NegativeBinomial(parameter.exp(), logits=logits)
        log_prob = law.log_prob(torch.as_tensor(counts, dtype=torch.float64))
        return torch.autograd.grad(log_prob.sum(), parameter)[0]

    move_to_mode(parameter, gradient)
    assert parameter.grad is None
    return parameter.detach().numpy()[0]


def drawn(rng, log_theta, means):
    theta = np.exp(log_theta)
    return rng.negative_binomial(theta, theta / (theta + means))


def mode(start, counts, means):
    """Mode of the posterior of one gene, by scipy."""

    def objective(log_theta):
        theta = np.exp(log_theta)
        log_likelihood = nbinom.logpmf(counts, theta, theta / (theta + means)).sum()
        return -log_likelihood - norm.logpdf(log_theta, start, PRIOR_SCALE)

    return minimize_scalar(objective, bounds=(start - 12, start + 12), method="bounded").x


def test_planted_dispersions_are_found(rng):
    planted = np.array([-1.5, 0.0, 1.5])
    means = rng.uniform(1, 20, size=(4000, 3))
    found = fit([[0.5, 0.5, 0.5]], drawn(rng, planted, means), means)
    # the information of 4,000 cells: standard errors of .02 to .04
    np.testing.assert_allclose(found, planted, atol=0.12)


@pytest.mark.parametrize("start", [0.0, 1.3])
def test_fit_is_the_mode_that_scipy_finds_for_each_gene(rng, start):
    means = rng.uniform(0.2, 3, size=(50, 4))
    counts = drawn(rng, np.array([-1.0, 0.0, 1.0, 3.0]), means)
    found = fit([[start] * 4], counts, means)
    expected = [mode(start, x, mu) for x, mu in zip(counts.T, means.T, strict=True)]
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_gene_without_counts_in_all_but_one_cell_stays_near_its_start():
    counts, means = np.zeros((200, 1)), np.full((200, 1), 0.1)
    counts[0] = 20
    [found] = fit([[0.0]], counts, means)
    assert found == pytest.approx(mode(0.0, counts[:, 0], means[:, 0]), abs=0.03)
    assert found > -6
