"""Laws of whole profiles kept in factored form: hidden state, output weights and library.

A decoder returns one of these instead of a ``(cells, features)`` array. Its likelihood sums over
the features without storing them, and its parameters are written out only for the features that
somebody asks for.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scvi.distributions import NegativeBinomial
from torch import Tensor
from torch.nn import functional as F

from scmvp_scvi._counts import SparseCounts
from scmvp_scvi.distributions._blockwise import zero_inflated_poisson_sum
from scmvp_scvi.distributions._zero_inflated_poisson import ZeroInflatedPoisson

Features = slice | Int[Tensor, "chosen"]
_ALL = slice(None)


@dataclass(frozen=True)
class FactoredNegativeBinomial:
    """Negative binomial RNA counts of all genes (equations 13 to 15, Gamma-Poisson).

    The mean is ``library * softmax(hidden @ weight.T + bias)``.

    Parameters
    ----------
    hidden
        ``(cells, hidden)``, last hidden layer of the decoder.
    weight, bias
        ``(genes, hidden)`` and ``(genes,)``, the output layer.
    log_inverse_dispersion
        ``(genes,)``, or ``(cells, genes)`` where it depends on the batch or label.
    library
        ``(cells, 1)``, in counts.
    observed
        ``(cells,)``, 0 where the cell has no RNA, else 1.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    log_inverse_dispersion: Tensor
    library: Tensor
    observed: Tensor

    def scale(self, features: Features = _ALL) -> Float[Tensor, "cells chosen"]:
        """Share of each gene in the cell's expression, a softmax over all genes."""
        return F.linear(self.hidden, self.weight, self.bias).softmax(-1)[:, features]

    def distribution(self, features: Features = _ALL) -> NegativeBinomial:
        """Write the law out for the chosen genes, ``(cells, chosen)``."""
        scale = self.scale(features)
        theta = self.log_inverse_dispersion[..., features].exp().expand_as(scale)
        return NegativeBinomial(mu=self.library * scale, theta=theta, scale=scale)

    def log_prob(self, counts: SparseCounts) -> Float[Tensor, "cells"]:
        """Log-likelihood of each cell's profile, in nats; 0 for cells without RNA.

        The zero term is taken on every entry, the gamma functions only at the non-zeros.
        """
        log_scale = F.linear(self.hidden, self.weight, self.bias).log_softmax(-1)
        log_mean = log_scale + self.library.log()
        log_theta = self.log_inverse_dispersion.expand_as(log_mean)
        # log(1 + mu / theta), the log-odds of a zero per unit of theta
        log_excess = F.softplus(log_mean - log_theta)
        at_zero = -(log_theta.exp() * log_excess).sum(-1)

        rows, at = counts.rows, (counts.rows, counts.columns)
        theta_at = log_theta[at].exp()
        log_odds = log_mean[at] - log_theta[at] - log_excess[at]
        at_counts = (
            torch.lgamma(counts.values + theta_at)
            - torch.lgamma(theta_at)
            - torch.lgamma(counts.values + 1)
            + counts.values * log_odds
        )
        return at_zero.index_add(0, rows, at_counts) * self.observed


@dataclass(frozen=True)
class FactoredZeroInflatedPoisson:
    """Zero-inflated Poisson ATAC counts of all peaks (equations 16 to 19).

    The rate is ``library * sigmoid(hidden @ rate_weight.T + rate_bias)``: a share of the cell's
    depth that each peak holds by itself, without a sum over peaks, so that any subset of peaks can
    be evaluated alone.

    Parameters
    ----------
    hidden
        ``(cells, hidden)``, last hidden layer of the decoder.
    rate_weight, rate_bias
        ``(peaks, hidden)`` and ``(peaks,)``, output layer of the rate.
    inclusion_weight, inclusion_bias
        The same for the logit of the inclusion probability tau.
    library
        ``(cells, 1)``, in counts.
    observed
        ``(cells,)``, 0 where the cell has no ATAC, else 1.
    """

    hidden: Tensor
    rate_weight: Tensor
    rate_bias: Tensor
    inclusion_weight: Tensor
    inclusion_bias: Tensor
    library: Tensor
    observed: Tensor

    def scale(self, features: Features = _ALL) -> Float[Tensor, "cells chosen"]:
        """Poisson mean per count of depth: mu divided by the library."""
        weight, bias = self.rate_weight[features], self.rate_bias[features]
        return F.linear(self.hidden, weight, bias).sigmoid()

    def distribution(self, features: Features = _ALL) -> ZeroInflatedPoisson:
        """Write the law out for the chosen peaks, ``(cells, chosen)``."""
        scale = self.scale(features)
        weight, bias = self.inclusion_weight[features], self.inclusion_bias[features]
        logits = F.linear(self.hidden, weight, bias)
        return ZeroInflatedPoisson(self.library * scale, logits, scale=scale)

    def log_prob(self, counts: SparseCounts) -> Float[Tensor, "cells"]:
        """Log-likelihood of each cell's profile, in nats; 0 for cells without ATAC."""
        return zero_inflated_poisson_sum(
            self.hidden,
            self.rate_weight,
            self.rate_bias,
            self.inclusion_weight,
            self.inclusion_bias,
            self.library,
            self.observed,
            counts,
        )
