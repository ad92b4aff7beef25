"""The mean of logarithms of negative binomial counts against a sum over scipy's probabilities."""

import numpy as np
import pytest
import torch
from scipy.stats import nbinom

from scmvp_scvi.distributions._expected_log1p import expected_log1p

MEANS = (0.0, 1e-6, 0.01, 1.0, 40.0, 3_000.0)
THETAS = (0.05, 1.0, 20.0, 1e5)
FACTORS = (0.01, 1.0, 300.0, 1e6)


def by_sum_over_counts(mean: float, theta: float, factor: float) -> float:
    """Sum over all counts that scipy gives a probability worth adding."""
    law = nbinom(theta, theta / (theta + mean))
    counts = np.arange(int(law.isf(1e-12)) + 20)
    return float(law.pmf(counts) @ np.log1p(factor * counts))


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 3e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize("mean", MEANS)
def test_mean_of_logarithms_is_the_sum_over_all_counts(mean, dtype, rtol):
    grid = [(theta, factor) for theta in THETAS for factor in FACTORS]
    theta, factor = torch.tensor(grid, dtype=dtype).T
    found = expected_log1p(torch.full_like(theta, mean), theta, factor)
    expected = [by_sum_over_counts(mean, *point) for point in grid]
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-8)


def test_cells_and_genes_are_broadcast_as_their_parameters_are(rng):
    mean, theta, factor = rng.gamma(1, 2, (5, 4)), rng.gamma(2, 2, 4), rng.uniform(1, 100, (5, 1))
    found = expected_log1p(*map(torch.tensor, (mean, theta, factor)))
    expected = [
        [by_sum_over_counts(mean[i, j], theta[j], factor[i, 0]) for j in range(4)]
        for i in range(5)
    ]
    np.testing.assert_allclose(found, expected, rtol=3e-6)


def test_mean_of_logarithms_is_below_the_logarithm_of_the_mean(rng):
    mean, theta = torch.tensor(rng.gamma(1, 1, (2, 200)) + 1e-3)
    found = expected_log1p(mean, theta, torch.tensor(10.0))
    assert (found < torch.log1p(10 * mean)).all()
