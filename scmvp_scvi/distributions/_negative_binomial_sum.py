"""Negative binomial likelihood of all genes (equations 13 to 15), in blocks of genes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from scmvp_scvi._counts import SparseCounts
from scmvp_scvi._products import product, weight_gradient
from scmvp_scvi.distributions._blockwise import (
    Entries,
    column_blocks,
    sum_of_log_factorials,
    summed_likelihood,
)


@dataclass(frozen=True)
class _NegativeBinomialSweep:
    """The zero term on every entry, the gamma functions only at the non-zeros.

    With ``theta`` the inverse dispersion and ``s = log(mean / theta)``, the log ratio, an entry's
    log-likelihood is
    ``-theta softplus(s) + x logsigmoid(s) + lgamma(x + theta) - lgamma(theta) - lgamma(x + 1)``.
    The softmax over genes ties the blocks together: its logits are kept for the whole sweep, and
    turned into their gradient in place.

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
        self, parameters: tuple[Tensor, ...], upstream: Tensor | None, counts: SparseCounts
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        hidden, weight, bias, log_theta = parameters
        log_prob = -sum_of_log_factorials(counts)
        # torch's own softmax takes a fifth of an exp by MKL
        logits = product(hidden, weight, bias)
        log_mean = logits.log_softmax(-1).add_(self.library.log())
        shared = log_theta.ndim == 1
        if upstream is not None:
            upstream = upstream * self.cell_weights
            d_log_mean = torch.empty_like(logits)
            g_log_theta = torch.empty_like(log_theta)

        for block, rows, columns, values in column_blocks(counts):
            at = Entries(rows, columns, block.stop - block.start)
            log_theta_of_block = log_theta[..., block].contiguous()
            theta = log_theta_of_block.exp()
            log_theta_at = (
                log_theta_of_block.index_select(0, columns)
                if shared
                else at.of(log_theta_of_block)
            )
            log_ratio = log_mean[:, block] - log_theta_of_block
            log_ratio_at = at.of(log_ratio)
            at_count, slope = _gamma_terms(values, log_theta_at)
            at_count += values * F.logsigmoid(log_ratio_at)
            odds = log_ratio.sigmoid()
            d_log_theta = F.softplus(log_ratio).mul_(theta).neg_()  # the zero term
            log_prob += d_log_theta.sum(-1)
            log_prob.index_add_(0, rows, at_count)
            if upstream is None:
                continue
            d_mean = odds.mul_(theta).neg_()
            at.add(d_mean, values * torch.sigmoid(-log_ratio_at))
            d_log_mean[:, block] = d_mean
            d_log_theta -= d_mean
            at.add(d_log_theta, slope)
            if shared:
                torch.mv(d_log_theta.T, upstream, out=g_log_theta[block])
            else:
                torch.mul(d_log_theta, upstream.unsqueeze(-1), out=g_log_theta[:, block])

        if upstream is None:
            return log_prob * self.cell_weights, ()
        # through the softmax: what a gene gains the others lose, by their shares
        share = logits.softmax(-1)
        d_logits = d_log_mean.addcmul_(share, d_log_mean.sum(-1, keepdim=True), value=-1)
        g_hidden = product(d_logits, weight.T).mul_(upstream.unsqueeze(-1))
        g_weight = weight_gradient(d_logits, hidden * upstream.unsqueeze(-1)).contiguous()
        return log_prob * self.cell_weights, (
            g_hidden,
            g_weight,
            torch.mv(d_logits.T, upstream),
            g_log_theta,
        )


def _gamma_terms(values: Tensor, log_theta: Tensor) -> tuple[Tensor, Tensor]:
    """Return lgamma(x + theta) - lgamma(theta) and its derivative by log(theta), ``(entries,)``.

    A count of one, as most are, has log(theta) and 1.
    """
    terms, slopes = log_theta.clone(), torch.ones_like(log_theta)
    several = (values != 1).nonzero().squeeze(-1)
    theta = log_theta[several].exp()
    total = values[several] + theta
    terms[several] = torch.lgamma(total) - torch.lgamma(theta)
    slopes[several] = theta * (torch.digamma(total) - torch.digamma(theta))
    return terms, slopes


def negative_binomial_sum(
    hidden: Float[Tensor, "cells hidden"],
    weight: Float[Tensor, "genes hidden"],
    bias: Float[Tensor, "genes"],
    log_inverse_dispersion: Float[Tensor, "genes"] | Float[Tensor, "cells genes"],
    library: Float[Tensor, "cells 1"],
    cell_weights: Float[Tensor, "cells"],
    counts: SparseCounts,
) -> Float[Tensor, "cells"]:
    """Sum over genes of the negative binomial log-likelihood, the Gamma-Poisson of the paper.

    The mean is ``library * softmax(hidden @ weight.T + bias)``.

    Parameters
    ----------
    hidden
        Last hidden layer of the decoder.
    weight, bias
        Output layer of the decoder.
    log_inverse_dispersion
        Logarithm of theta, shared by the cells or one row a cell.
    library
        Depth of each cell, in counts. Takes no gradient.
    cell_weights
        Factor on each cell's sum, 0 where the modality was not measured. Takes no gradient.
    counts
        The counts x.

    Returns
    -------
    Log-likelihood of each cell, in nats, times its weight. It can be differentiated once.
    """
    sweep = _NegativeBinomialSweep(library, cell_weights)
    return summed_likelihood(sweep, counts, hidden, weight, bias, log_inverse_dispersion)
