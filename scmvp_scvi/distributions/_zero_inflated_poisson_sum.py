"""Zero-inflated Poisson likelihood of all peaks (equations 16 to 19), in blocks of peaks."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from scmvp_scvi._counts import SparseCounts
from scmvp_scvi.distributions._blockwise import (
    Entries,
    column_blocks,
    sum_of_log_factorials,
    summed_likelihood,
    wide_empty_like,
)


@dataclass(frozen=True)
class _ZeroInflatedPoissonSweep:
    """The zero term in closed form on every entry, the count terms only at the non-zeros.

    Parameters
    ----------
    library
        ``(cells, 1)``.
    cell_weights
        ``(cells,)``.
    peak_weights
        ``(peaks,)``, or None for ones.
    """

    library: Tensor
    cell_weights: Tensor
    peak_weights: Tensor | None

    def __call__(
        self, parameters: tuple[Tensor, ...], upstream: Tensor | None, counts: SparseCounts
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        hidden, rate_weight, rate_bias, inclusion_weight, inclusion_bias = parameters
        library, weights = self.library, self.peak_weights
        tiny = torch.finfo(hidden.dtype).tiny
        log_prob = self._constant_terms(counts)
        gradients: tuple[Tensor, ...] = ()
        if upstream is not None:
            upstream = upstream * self.cell_weights
            weighted_hidden = hidden * upstream.unsqueeze(-1)
            gradients = (torch.zeros_like(hidden), *(wide_empty_like(p) for p in parameters[1:]))

        for block, rows, columns, values in column_blocks(counts):
            rate_logit = torch.addmm(rate_bias[block], hidden, rate_weight[block].T)
            inclusion_logit = torch.addmm(inclusion_bias[block], hidden, inclusion_weight[block].T)
            at = Entries(rows, columns, rate_logit.shape[1])
            rate_logit_at, inclusion_logit_at = at.of(rate_logit), at.of(inclusion_logit)
            share_at = rate_logit_at.sigmoid()
            rate_at = share_at * library[:, 0][rows]

            share = rate_logit.sigmoid_()
            excluded = inclusion_logit.neg_().sigmoid_()  # 1 - tau
            included = 1 - excluded
            rate = share * library
            zero_given_included = rate.neg().exp_()
            # P(y = 0) = 1 - tau + tau exp(-rate)
            zero = torch.addcmul(excluded, included, zero_given_included).clamp_min_(tiny)
            log_terms = zero.log()
            log_count = F.logsigmoid(inclusion_logit_at) + values * F.logsigmoid(rate_logit_at)
            at.put(log_terms, log_count - rate_at)
            log_prob += log_terms.sum(-1) if weights is None else log_terms @ weights[block]
            if upstream is None:
                continue

            # derivatives with respect to the two logits, zeros first
            ratio = included.div_(zero)
            d_inclusion = (zero_given_included - 1).mul_(ratio).mul_(excluded)
            d_rate = ratio.mul_(zero_given_included).mul_(rate).neg_()
            d_rate.addcmul_(d_rate, share, value=-1)  # through the sigmoid of the rate
            at.put(d_inclusion, torch.sigmoid(-inclusion_logit_at))
            at.put(d_rate, (values - rate_at) * (1 - share_at))
            if weights is not None:
                d_rate *= weights[block]
                d_inclusion *= weights[block]

            g_hidden, g_rate_weight, g_rate_bias, g_inclusion_weight, g_inclusion_bias = gradients
            # in this order MKL runs the product on all threads, in the transposed one on one
            torch.mm(weighted_hidden.T, d_rate, out=g_rate_weight[block].T)
            torch.mm(weighted_hidden.T, d_inclusion, out=g_inclusion_weight[block].T)
            torch.mv(d_rate.T, upstream, out=g_rate_bias[block])
            torch.mv(d_inclusion.T, upstream, out=g_inclusion_bias[block])
            g_hidden.addmm_(d_rate, rate_weight[block])
            g_hidden.addmm_(d_inclusion, inclusion_weight[block])

        if upstream is not None:
            gradients[0].mul_(upstream.unsqueeze(-1))
        return log_prob * self.cell_weights, gradients

    def _constant_terms(self, counts: SparseCounts) -> Tensor:
        """Sum of y log(library) - log(y!) of each cell, which no parameter enters."""
        log_library = self.library[:, 0].log()
        if self.peak_weights is None:
            return counts.depth[:, 0] * log_library - sum_of_log_factorials(counts)
        weighted = counts.with_values(counts.values * self.peak_weights[counts.columns])
        return weighted.depth[:, 0] * log_library - sum_of_log_factorials(
            counts, self.peak_weights
        )


def zero_inflated_poisson_sum(
    hidden: Float[Tensor, "cells hidden"],
    rate_weight: Float[Tensor, "peaks hidden"],
    rate_bias: Float[Tensor, "peaks"],
    inclusion_weight: Float[Tensor, "peaks hidden"],
    inclusion_bias: Float[Tensor, "peaks"],
    library: Float[Tensor, "cells 1"],
    cell_weights: Float[Tensor, "cells"],
    counts: SparseCounts,
    peak_weights: Float[Tensor, "peaks"] | None = None,
) -> Float[Tensor, "cells"]:
    """Sum over peaks of the zero-inflated Poisson log-likelihood (equation 19).

    The rate is ``library * sigmoid(hidden @ rate_weight.T + rate_bias)`` and the inclusion
    probability ``sigmoid(hidden @ inclusion_weight.T + inclusion_bias)``.

    Parameters
    ----------
    hidden
        Last hidden layer of the decoder.
    rate_weight, rate_bias, inclusion_weight, inclusion_bias
        Output layers of the decoder.
    library
        Depth of each cell, in counts. Takes no gradient.
    cell_weights
        Factor on each cell's sum, 0 where the modality was not measured. Takes no gradient.
    counts
        The counts y.
    peak_weights
        Factor on each peak's term, such as one over the probability that it was drawn. Takes no
        gradient.

    Returns
    -------
    Log-likelihood of each cell, in nats, times its weight. It can be differentiated once.
    """
    sweep = _ZeroInflatedPoissonSweep(library, cell_weights, peak_weights)
    return summed_likelihood(
        sweep, counts, hidden, rate_weight, rate_bias, inclusion_weight, inclusion_bias
    )
