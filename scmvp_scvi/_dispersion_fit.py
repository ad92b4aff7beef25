"""Fit of the dispersions of the RNA counts, at decoder weights that have been learned."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

# Standard deviation of the Gaussian prior about the logarithms that the training has come to: a
# gene with counts in a cell or two has a likelihood that rises for ever as its dispersion does.
_PRIOR_SCALE = 2.0
_N_ITERATIONS = 30
# of Rprop, in units of the logarithm: the first step, and the smallest and the largest
_FIRST_STEP, _STEPS = 0.3, (1e-3, 1.0)


@torch.enable_grad()
def fit_dispersions(
    log_inverse_dispersion: torch.nn.Parameter, log_likelihoods: Callable[[], Iterable[Tensor]]
) -> None:
    """Move the logarithms of the inverse dispersions to the mode of their posterior, in place.

    Each gene has a mode of its own, in one dimension. Rprop :cite:p:`Riedmiller1993` goes there
    by the sign of the derivative, with a step for each gene.

    Parameters
    ----------
    log_inverse_dispersion
        ``(rows, genes)``; the prior of each is about where it is.
    log_likelihoods
        Computes the log-likelihood of all cells anew at each call: parts of it, scalars, for one
        minibatch after the other.
    """
    start = log_inverse_dispersion.detach().clone()
    optimizer = torch.optim.Rprop([log_inverse_dispersion], lr=_FIRST_STEP, step_sizes=_STEPS)
    for _ in range(_N_ITERATIONS):
        gradient = (log_inverse_dispersion.detach() - start) / _PRIOR_SCALE**2
        for log_likelihood in log_likelihoods():
            gradient -= torch.autograd.grad(log_likelihood, log_inverse_dispersion)[0]
        log_inverse_dispersion.grad = gradient
        optimizer.step()
    log_inverse_dispersion.grad = None
