"""Fits of a channel's calibration are the best for the alignment, and find what was planted."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.distributions import Normal

from scmvp_scvi._channel_fit import fit_calibration
from scmvp_scvi._losses import latent_divergence
from scmvp_scvi.nn._calibration import Calibration, CalibrationFit, no_calibration


def alignment(fit: CalibrationFit, joint: tuple, channel: tuple) -> float:
    """Mean divergence of the calibrated channel from the joint posteriors, by the objective."""
    target, given = (
        Normal(torch.as_tensor(mean), torch.as_tensor(variance).sqrt())
        for mean, variance in (joint, channel)
    )
    calibration = Calibration(target.loc.shape[1]).double()
    calibration.copy_fit(fit)
    return float(latent_divergence(target, calibration(given)).mean())


def related(rng, n_cells: int, slope: float, shifts: np.ndarray, noise: float) -> tuple:
    """Joint posteriors, and those of a channel whose means say something of theirs."""
    shape = (n_cells, len(shifts))
    means, variances = rng.normal(1.0, 1.0, shape), rng.uniform(0.3, 1.5, shape)
    joint_means = 1.0 + shifts + slope * (means - 1.0) + noise * rng.normal(size=shape)
    return (joint_means, rng.uniform(0.1, 0.5, shape)), (means, variances)


def test_planted_slope_and_shifts_are_found(rng):
    shifts = np.array([0.8, -0.5, 0.0, 0.3])
    joint, channel = related(rng, 4000, 0.4, shifts, 0.5)
    fit = fit_calibration(*joint, *channel)
    assert fit.slope == pytest.approx(0.4, abs=0.03)
    np.testing.assert_allclose(fit.mapped_centre - fit.centre, shifts, atol=0.06)


def test_fit_of_many_cells_has_the_least_alignment_that_scipy_finds(rng):
    joint, channel = related(rng, 4000, 0.6, np.array([0.9, -0.7, 0.4]), 0.3)

    fit = fit_calibration(*joint, *channel)

    def objective(x):
        return alignment(CalibrationFit(x[0], fit.centre, x[1:4], np.exp(x[4])), joint, channel)

    best = minimize(objective, np.array([1.0, 0.0, 0.0, 0.0, 0.0]), tol=1e-9)
    assert alignment(fit, joint, channel) == pytest.approx(best.fun, abs=1e-5)
    np.testing.assert_allclose([fit.slope, *fit.mapped_centre], best.x[:4], atol=5e-3)
    assert fit.scale == pytest.approx(np.exp(best.x[4]), abs=1e-3)


def test_scale_is_the_best_for_the_slope_and_the_shifts_of_the_fit(rng):
    joint, channel = related(rng, 30, 0.6, np.zeros(5), 0.4)
    fit = fit_calibration(*joint, *channel)
    best = alignment(fit, joint, channel)
    for factor in (0.98, 1.02):
        assert alignment(fit._replace(scale=factor * fit.scale), joint, channel) > best


def test_channel_that_says_what_both_say_stays_as_it_is(rng):
    means, variances = rng.normal(size=(40, 6)), rng.uniform(0.2, 2.0, (40, 6))
    fit = fit_calibration(means, variances, means, variances)
    assert fit.slope == pytest.approx(1.0)
    assert fit.scale == pytest.approx(1.0)
    np.testing.assert_allclose(fit.mapped_centre, fit.centre, atol=1e-12)


def test_shifts_of_few_cells_that_noise_explains_are_held_near_zero(rng):
    errors = []
    for _ in range(40):
        joint, channel = related(rng, 25, 0.5, np.zeros(20), 1.0)
        fit = fit_calibration(*joint, *channel)
        weights = 1 / channel[1]
        plain = (weights * joint[0]).sum(0) / weights.sum(0) - fit.centre
        shrunk = fit.mapped_centre - fit.centre
        errors.append((np.square(shrunk).mean(), np.square(plain).mean()))
    shrunk, plain = np.mean(errors, axis=0)
    assert shrunk < 0.2 * plain


def test_fit_to_few_cells_is_better_than_none_on_others(rng):
    shifts = rng.normal(scale=0.3, size=10)
    for _ in range(20):
        joint, channel = related(rng, 20, 0.3, shifts, 0.6)
        unseen = related(rng, 500, 0.3, shifts, 0.6)
        fit = fit_calibration(*joint, *channel)
        assert alignment(fit, *unseen) < alignment(no_calibration(10), *unseen)


@pytest.mark.parametrize("rounding", [0.0, 1e-7])
def test_channel_that_says_the_same_of_all_cells_has_their_mean_and_spread(rng, rounding):
    joint, channel = related(rng, 200, 0.0, np.array([0.5, -0.5]), 1.0)
    of_all = rounding * rng.normal(size=channel[0].shape), np.ones_like(channel[1])
    fit = fit_calibration(*joint, *of_all)
    assert fit.slope == pytest.approx(1.0, abs=0.02)
    np.testing.assert_allclose(fit.mapped_centre, joint[0].mean(0), atol=0.02)
    spread = (joint[0].var(0) + joint[1].mean(0)).mean()
    assert fit.scale == pytest.approx(np.sqrt(spread), rel=1e-3)


def test_channel_that_says_the_opposite_says_nothing(rng):
    joint, channel = related(rng, 200, -0.5, np.zeros(3), 0.2)
    assert fit_calibration(*joint, *channel).slope == 0
