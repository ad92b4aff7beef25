"""Mean of the logarithm of negative binomial counts, which is not the logarithm of their mean."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

# of the trapezoidal rule in log t: the integrand is analytic in a strip of half width pi / 2, so
# that the error falls by exp(-pi^2 / step); 1e-6 of the value at most was measured at this one
_STEP = 0.6
_LARGEST_LOG_T = 3.4  # where exp(-t) is 1e-13
_LEFT_OUT = 1e-8  # nats at most that the smaller t would add


def expected_log1p(
    mean: Float[Tensor, "*#counts"],
    theta: Float[Tensor, "*#counts"],
    factor: Float[Tensor, "*#counts"],
) -> Float[Tensor, "*counts"]:
    r"""Mean of log(1 + factor * x) of negative binomial counts x, without a sum over counts.

    Frullani's integral, :math:`\log(1 + y) = \int_0^\infty (1 - e^{-yt}) e^{-t} / t \, dt`, is
    linear in :math:`e^{-yt}`, whose mean is the Laplace transform of the law:
    :math:`(1 + (1 - e^{-ft}) \mu / \theta)^{-\theta}` for the factor f. With t as the exponential
    of its logarithm the integrand falls off on both sides, and the trapezoidal rule is exact
    to 1e-6 of the value.

    Parameters
    ----------
    mean
        Mean of the counts, not negative.
    theta
        Inverse dispersion, positive.
    factor
        What each count is worth, positive: for values scaled to 10,000 a cell, 10,000 over the
        depth of the cell.

    Returns
    -------
    Means, in nats, of the shape that the arguments have together.
    """
    shape = torch.broadcast_shapes(mean.shape, theta.shape, factor.shape)
    # the integral up to a small t is mean * factor * t
    first = math.log(_LEFT_OUT) - math.log1p(float(factor.max() * max(1.0, float(mean.max()))))
    total = mean.new_zeros(shape)
    ratio = mean / theta
    n_steps = math.ceil((_LARGEST_LOG_T - first) / _STEP)
    for i in range(n_steps + 1):
        t = math.exp(_LARGEST_LOG_T - i * _STEP)
        log_transform = -theta * torch.log1p(ratio * -torch.expm1(-t * factor))
        total -= torch.expm1(log_transform) * math.exp(-t)
    return total * _STEP
