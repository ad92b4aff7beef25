"""Fit of what a channel says of held-out cells to what both modalities say of them.

numpy in, numpy out; the result is a `CalibrationFit` that a `Calibration` copies.
"""

import numpy as np

from scmvp_scvi.nn._calibration import CalibrationFit

FEWEST_CELLS = 20  # whose fit is better than none on small real data
# Variance of a channel's means, in units of its posterior variance, that it may have by rounding.
_ROUNDING = 1e-6


def fit_calibration(
    joint_means: np.ndarray,
    joint_variances: np.ndarray,
    means: np.ndarray,
    variances: np.ndarray,
) -> CalibrationFit:
    r"""Fit slope, shift and scale that bring a channel's posteriors close to the joint ones.

    They minimise the alignment of the objective, :math:`\mathrm{KL}(q(z \mid x, y) \Vert q(z \mid
    x))`, over the cells given: weighted least squares for the means, one slope for all dimensions,
    not below zero, and a shift for each, then the scale of the standard deviations. Cells are few
    beside dimensions, so that the shifts are shrunk by how much more they differ from zero than
    their errors would have them, with the variance of a Gaussian prior estimated by moments.

    Parameters
    ----------
    joint_means, joint_variances
        ``(cells, latent)``, of q(z | x, y).
    means, variances
        ``(cells, latent)``, of the channel's posterior.
    """
    joint_means, joint_variances, means, variances = (
        moment.astype(np.float64) for moment in (joint_means, joint_variances, means, variances)
    )
    weights = 1 / variances
    centre, joint_centre = ((weights * of).sum(0) / weights.sum(0) for of in (means, joint_means))
    deviations, joint_deviations = means - centre, joint_means - joint_centre
    covariance = (weights * deviations * joint_deviations).mean()
    # a channel that says the same of all cells keeps a slope of one
    slope = (covariance + _ROUNDING) / ((weights * deviations**2).mean() + _ROUNDING)
    slope = max(0.0, slope)

    residuals = joint_deviations - slope * deviations
    squared_errors = (weights * residuals**2).sum(0) / weights.sum(0) / len(means)
    shifts = joint_centre - centre
    spread = max(0.0, (shifts**2 - squared_errors).mean())
    # a shift without error has nothing to shrink it
    shifts *= spread / np.maximum(spread + squared_errors, np.finfo(np.float64).tiny)

    residuals = joint_means - (centre + shifts + slope * deviations)
    scale = np.sqrt((weights * (residuals**2 + joint_variances)).mean())
    return CalibrationFit(slope, centre, centre + shifts, scale)
