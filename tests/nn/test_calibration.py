"""A calibration is an affine map of means and deviations, and nothing until it has a fit."""

import numpy as np
import torch
from torch.distributions import Normal

from scmvp_scvi.nn._calibration import Calibration, CalibrationFit

FIT = CalibrationFit(0.5, np.array([1.0, -1.0, 0.25]), np.array([0.2, 0.0, 0.5]), 1.5)


def posterior(rng) -> Normal:
    loc, scale = rng.normal(size=(6, 3)), rng.uniform(0.3, 2.0, (6, 3))
    return Normal(*(torch.as_tensor(part, dtype=torch.float32) for part in (loc, scale)))


def test_nothing_is_changed_at_first(rng):
    given = posterior(rng)
    found = Calibration(3)(given)
    assert torch.equal(found.loc, given.loc)
    assert torch.equal(found.scale, given.scale)


def test_fit_maps_means_by_its_slope_about_the_centre_and_deviations_by_the_scale(rng):
    given, calibration = posterior(rng), Calibration(3)
    calibration.copy_fit(FIT)
    found = calibration(given)
    expected = FIT.mapped_centre + 0.5 * (given.loc.numpy() - FIT.centre)
    np.testing.assert_allclose(found.loc, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.scale, 1.5 * given.scale.numpy(), rtol=1e-6)


def test_calibration_that_is_forgotten_changes_nothing(rng):
    given, calibration = posterior(rng), Calibration(3)
    calibration.copy_fit(FIT)
    calibration.forget()
    found = calibration(given)
    assert torch.equal(found.loc, given.loc)
    assert torch.equal(found.scale, given.scale)


def test_fit_is_part_of_the_state(rng):
    given, calibration, other = posterior(rng), Calibration(3), Calibration(3)
    calibration.copy_fit(FIT)
    other.load_state_dict(calibration.state_dict())
    assert torch.equal(other(given).loc, calibration(given).loc)
