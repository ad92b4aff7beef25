"""Fit of the dispersions of the RNA counts, at decoder weights that have been learned."""

from collections.abc import Callable

import torch
from torch import Tensor

# Standard deviation of the Gaussian prior about the logarithms that the training has come to: a
# gene with counts in a cell or two has a likelihood that rises for ever as its dispersion does.
_PRIOR_SCALE = 2.0
_N_ITERATIONS = 30
# of Rprop, in units of the logarithm: the first step, and the smallest and the largest
_FIRST_STEP, _STEPS = 0.3, (1e-3, 1.0)


def move_to_mode(
    log_inverse_dispersion: torch.nn.Parameter, gradient: Callable[[], Tensor]
) -> None:
    """Move the logarithms of the inverse dispersions to the mode of their posterior, in place.

    Each gene has a mode of its own, in one dimension. Rprop :cite:p:`Riedmiller1993` goes there
    by the sign of the derivative, with a step for each gene.

    Parameters
    ----------
    log_inverse_dispersion
        ``(rows, genes)``; the prior of each is about where it is.
    gradient
        Computes the gradient of the log-likelihood of all cells, where they are at the call.
    """
    start = log_inverse_dispersion.detach().clone()
    optimizer = torch.optim.Rprop([log_inverse_dispersion], lr=_FIRST_STEP, step_sizes=_STEPS)
    for _ in range(_N_ITERATIONS):
        of_prior = (start - log_inverse_dispersion.detach()) / _PRIOR_SCALE**2
        log_inverse_dispersion.grad = -(gradient() + of_prior)
        optimizer.step()
    log_inverse_dispersion.grad = None
