"""Negative binomial likelihood of all genes (equations 13 to 15), in blocks of cells."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from scmvp_scvi._counts import Counts
from scmvp_scvi._entries import positions_of
from scmvp_scvi.distributions._blockwise import (
    row_blocks,
    sum_of_log_factorials,
    summed_likelihood,
)


@dataclass(frozen=True)
class _NegativeBinomialSweep:
    """The zero term on every entry, the gamma functions at the non-zeros.

    With ``theta`` the inverse dispersion and ``s = log(mean / theta)``, the log ratio, an entry's
    log-likelihood is
    ``-theta softplus(s) + x logsigmoid(s) + lgamma(x + theta) - lgamma(theta) - lgamma(x + 1)``.

    Parameters
    ----------
    library
        ``(cells, 1)``.
    cell_weights
        ``(cells,)``.
    """

    library: Tensor
    cell_weights: Tensor

    def __call__(
        self, parameters: tuple[Tensor, ...], upstream: Tensor | None, counts: Counts
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        log_scale, log_theta = parameters
        shared = log_theta.ndim == 1
        log_prob = -sum_of_log_factorials(counts)
        log_theta_at = counts.of_features(log_theta) if shared else counts.entries.of(log_theta)
        gamma_at, slope_at = _gamma_terms(counts.values, log_theta_at, upstream is not None)
        at_counts = torch.empty_like(gamma_at)
        log_library = self.library.log()
        if upstream is not None:
            upstream = upstream * self.cell_weights
            g_log_scale = torch.empty_like(log_scale)
            g_log_theta = torch.zeros_like(log_theta)  # a sum over blocks where cells share it

        for cells, entries, at in row_blocks(counts):
            values = counts.values[entries]
            own_log_theta = log_theta if shared else log_theta[cells]
            theta = own_log_theta.exp()
            log_ratio = (log_scale[cells] - own_log_theta).add_(log_library[cells])
            log_ratio_at = at.of(log_ratio)
            d_log_theta = F.softplus(log_ratio).mul_(theta).neg_()  # the zero term
            log_prob[cells] += d_log_theta.sum(-1)
            at_counts[entries] = values * F.logsigmoid(log_ratio_at) + gamma_at[entries]
            if upstream is None:
                continue
            # before the ratio is overwritten
            d_log_scale_at = torch.sigmoid(-log_ratio_at).mul_(values)
            d_log_scale = log_ratio.sigmoid_().mul_(theta).neg_()
            at.add(d_log_scale, d_log_scale_at)
            d_log_theta -= d_log_scale
            at.add(d_log_theta, slope_at[entries])
            weights = upstream[cells]
            torch.mul(d_log_scale, weights.unsqueeze(-1), out=g_log_scale[cells])
            if shared:
                g_log_theta.addmv_(d_log_theta.T, weights)
            else:
                torch.mul(d_log_theta, weights.unsqueeze(-1), out=g_log_theta[cells])

        log_prob += counts.sums(at_counts)
        gradients = () if upstream is None else (g_log_scale, g_log_theta)
        return log_prob * self.cell_weights, gradients


def _gamma_terms(values: Tensor, log_theta: Tensor, with_slopes: bool) -> tuple[Tensor, Tensor]:
    """Return lgamma(x + theta) - lgamma(theta) and its derivative by log(theta), of each value.

    A count of one, as most are, has log(theta) and 1; one that is stored and zero has 0 and 0.
    """
    terms = log_theta.expand_as(values).clone()
    slopes = torch.ones_like(terms)
    if values.ndim == 2:  # written out: to pick some would halt an accelerator
        others = values != 1
        of_others = _gamma_terms_of_any(values, log_theta, with_slopes)
        for result, of_other in zip((terms, slopes), of_others, strict=True):
            torch.where(others, of_other, result, out=result)
        return terms, slopes
    others = positions_of(values != 1)
    of_others = _gamma_terms_of_any(
        values.index_select(0, others), log_theta.index_select(0, others), with_slopes
    )
    for result, of_other in zip((terms, slopes), of_others, strict=True):
        result.index_copy_(0, others, of_other)
    return terms, slopes


def _gamma_terms_of_any(
    values: Tensor, log_theta: Tensor, with_slopes: bool
) -> tuple[Tensor, Tensor]:
    theta = log_theta.exp()
    total = values + theta
    terms = torch.lgamma(total) - torch.lgamma(theta)
    if not with_slopes:
        return terms, torch.zeros_like(terms)
    return terms, theta * (torch.digamma(total) - torch.digamma(theta))


def negative_binomial_sum(
    log_scale: Float[Tensor, "cells genes"],
    log_inverse_dispersion: Float[Tensor, "genes"] | Float[Tensor, "cells genes"],
    library: Float[Tensor, "cells 1"],
    cell_weights: Float[Tensor, "cells"],
    counts: Counts,
    for_mean: bool = False,
) -> Float[Tensor, "cells"]:
    """Sum over genes of the negative binomial log-likelihood, the Gamma-Poisson of the paper.

    The mean is ``library * exp(log_scale)``.

    Parameters
    ----------
    log_scale
        Logarithm of the share of each gene in the cell's expression.
    log_inverse_dispersion
        Logarithm of theta, shared by the cells or one row a cell.
    library
        Depth of each cell, in counts. Takes no gradient.
    cell_weights
        Factor on each cell's sum, 0 where the modality was not measured. Takes no gradient.
    counts
        The counts x.
    for_mean
        As in `summed_likelihood`.

    Returns
    -------
    Log-likelihood of each cell, in nats, times its weight. It can be differentiated once.
    """
    # entries are looked up where they lie
    log_scale, log_inverse_dispersion = log_scale.contiguous(), log_inverse_dispersion.contiguous()
    sweep = _NegativeBinomialSweep(library, cell_weights)
    return summed_likelihood(sweep, counts, log_scale, log_inverse_dispersion, for_mean=for_mean)
