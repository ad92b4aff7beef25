"""Laws of whole profiles kept in factored form: hidden state, output weights and library.

A decoder returns one of these instead of a ``(cells, features)`` array. Its parameters are written
out only for the features that somebody asks for, and its likelihood sums over the peaks without
storing them; of the genes it stores the logarithms of the softmax.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from scvi.distributions import NegativeBinomial
from torch import Tensor

from scmvp_scvi._counts import Counts, written_out
from scmvp_scvi._products import linear
from scmvp_scvi._rows import take_rows
from scmvp_scvi._wide_gradients import WideGradients
from scmvp_scvi.distributions._blockwise import in_full_precision
from scmvp_scvi.distributions._expected_log1p import expected_log1p
from scmvp_scvi.distributions._negative_binomial_sum import negative_binomial_sum
from scmvp_scvi.distributions._zero_inflated_poisson import ZeroInflatedPoisson
from scmvp_scvi.distributions._zero_inflated_poisson_sum import zero_inflated_poisson_sum

Features = slice | Int[Tensor, "chosen"]
_ALL = slice(None)
_CELLS_PER_BLOCK = 1024


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor) -> Float[Tensor, "cells genes"]:
    """Output layer in full precision under autocast too, for a softmax is taken of it."""
    with torch.autocast(hidden.device.type, enabled=False):
        return linear(*in_full_precision(hidden, weight, bias))


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

    def log_scale(self) -> Float[Tensor, "cells genes"]:
        """Logarithm of `scale` for all genes."""
        return _logits(self.hidden, self.weight, self.bias).log_softmax(-1)

    def scale(self, features: Features = _ALL) -> Float[Tensor, "cells chosen"]:
        """Share of each gene in the cell's expression, a softmax over all genes."""
        if isinstance(features, slice) and features == _ALL:
            return self.log_scale().exp()
        logits = _logits(self.hidden, self.weight[features], self.bias[features])
        return (logits - self._log_total).exp()

    @cached_property
    def _log_total(self) -> Float[Tensor, "cells 1"]:
        """Logarithm of what the softmax divides by; kept, for genes are asked for in blocks."""
        return torch.cat(
            [
                _logits(cells, self.weight, self.bias).logsumexp(-1, keepdim=True)
                for cells in self.hidden.split(_CELLS_PER_BLOCK)
            ]
        )

    def distribution(self, features: Features = _ALL) -> NegativeBinomial:
        """Write the law out for the chosen genes, ``(cells, chosen)``."""
        scale = self.scale(features)
        return NegativeBinomial(
            mu=self.library * scale, theta=self._theta(features).expand_as(scale), scale=scale
        )

    def expected_log1p(
        self, features: Features, depth: float | Float[Tensor, "cells 1"], target_sum: float
    ) -> Float[Tensor, "cells chosen"]:
        """Mean of log(1 + target_sum / depth * x) over the counts x of cells of that depth."""
        return _expected_log1p(self.scale(features), self._theta(features), depth, target_sum)

    def given(
        self, counts: Tensor, law: "FactoredNegativeBinomial | None" = None
    ) -> "UpdatedNegativeBinomial":
        """Return the law of further counts of the same cells.

        Parameters
        ----------
        counts
            ``(cells, genes)``, the counts x that are known, dense or in CSR or CSC form.
        law
            What the further counts follow where none is known, as in another batch; None for what
            the known ones do.
        """
        return UpdatedNegativeBinomial(law or self, self, written_out(counts))

    def _theta(self, features: Features) -> Float[Tensor, "*cells chosen"]:
        return self.log_inverse_dispersion[..., features].exp()

    def log_prob(
        self,
        counts: Counts,
        log_scale: Float[Tensor, "cells genes"] | None = None,
        *,
        for_mean: bool = False,
    ) -> Float[Tensor, "cells"]:
        """Log-likelihood of each cell's profile, in nats; 0 for cells without RNA.

        Parameters
        ----------
        counts
            The counts x.
        log_scale
            What `log_scale` returned, where it is at hand; None computes it.
        for_mean
            Promise that a gradient is only asked of a multiple of the mean over the cells, which
            saves an accelerator a sweep; any other gradient is NaN there.
        """
        return negative_binomial_sum(
            self.log_scale() if log_scale is None else log_scale,
            self.log_inverse_dispersion,
            self.library,
            self.observed,
            counts,
            for_mean,
        )


@dataclass(frozen=True)
class UpdatedNegativeBinomial:
    """Negative binomial of further counts of cells some of whose counts are known.

    A negative binomial count of mean mu is Poisson about a rate that is Gamma distributed, of mean
    mu and shape theta. Given a count x the rate is Gamma distributed still :cite:p:`Huang2018`, of
    shape ``theta + x`` and mean ``mu * (theta + x) / (theta + mu)``: between mu and x, and the
    nearer to x, the more a gene varies about mu.

    Parameters
    ----------
    law
        What the further counts follow where none is known, in whatever batch.
    known_law
        What the known counts follow, at their own depth and in their own batch.
    counts
        ``(cells, genes)``, the known counts x.
    """

    law: FactoredNegativeBinomial
    known_law: FactoredNegativeBinomial
    counts: Tensor

    def scale(self, features: Features = _ALL) -> Float[Tensor, "cells chosen"]:
        """Mean per count of depth; over all genes it adds up to about 1."""
        known = self.known_law
        scale, theta = self.law.scale(features), known._theta(features)
        known_scale = scale if self.law is known else known.scale(features)
        factor = (theta + self.counts[:, features]) / (theta + known.library * known_scale)
        return scale * torch.where(self._is_known, factor, 1.0)

    def expected_log1p(
        self, features: Features, depth: float | Float[Tensor, "cells 1"], target_sum: float
    ) -> Float[Tensor, "cells chosen"]:
        """As of `FactoredNegativeBinomial`."""
        return _expected_log1p(self.scale(features), self._shape(features), depth, target_sum)

    @property
    def _is_known(self) -> Tensor:
        return self.known_law.observed[:, None] > 0

    def _shape(self, features: Features) -> Float[Tensor, "cells chosen"]:
        """Inverse dispersion of the further counts."""
        known = self.known_law._theta(features) + self.counts[:, features]
        return torch.where(self._is_known, known, self.law._theta(features))


def _expected_log1p(
    scale: Tensor, theta: Tensor, depth: float | Tensor, target_sum: float
) -> Tensor:
    mean = scale * depth
    factor = torch.as_tensor(target_sum / depth, dtype=mean.dtype, device=mean.device)
    return expected_log1p(mean, theta, factor)


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
        return linear(self.hidden, weight, bias).sigmoid()

    def distribution(self, features: Features = _ALL) -> ZeroInflatedPoisson:
        """Write the law out for the chosen peaks, ``(cells, chosen)``."""
        scale = self.scale(features)
        weight, bias = self.inclusion_weight[features], self.inclusion_bias[features]
        logits = linear(self.hidden, weight, bias)
        return ZeroInflatedPoisson(self.library * scale, logits, scale=scale)

    def at(
        self, peaks: Features, gradient_factors: Float[Tensor, "chosen"] | None = None
    ) -> "FactoredZeroInflatedPoisson":
        """Return the law of the chosen peaks alone, whose gradients hold their rows alone.

        Parameters
        ----------
        peaks
            A slice, or positions, ascending and without repeats.
        gradient_factors
            As in `take_rows`.
        """
        return self._of_rows(lambda weight: take_rows(weight, peaks, gradient_factors))

    def among(self, peaks: Int[Tensor, "chosen"]) -> "FactoredZeroInflatedPoisson":
        """Return the law of the chosen peaks alone, with ordinary dense gradients."""
        return self._of_rows(lambda weight: weight.index_select(0, peaks))

    def _of_rows(self, rows_of: Callable[[Tensor], Tensor]) -> "FactoredZeroInflatedPoisson":
        return replace(
            self,
            rate_weight=rows_of(self.rate_weight),
            rate_bias=rows_of(self.rate_bias),
            inclusion_weight=rows_of(self.inclusion_weight),
            inclusion_bias=rows_of(self.inclusion_bias),
        )

    def log_prob(
        self,
        counts: Counts,
        peak_weights: Float[Tensor, "peaks"] | None = None,
        wide_gradients: WideGradients | None = None,
        *,
        for_mean: bool = False,
    ) -> Float[Tensor, "cells"]:
        """Log-likelihood of each cell's profile, in nats; 0 for cells without ATAC.

        Parameters
        ----------
        counts
            The counts y.
        peak_weights
            Factor on each peak's term: for peaks drawn at random, one over their probability.
        wide_gradients
            What becomes of the gradients of the two weights; None holds them.
        for_mean
            As of the RNA counts.
        """
        return zero_inflated_poisson_sum(
            self.hidden,
            self.rate_weight,
            self.rate_bias,
            self.inclusion_weight,
            self.inclusion_bias,
            self.library,
            self.observed,
            counts,
            peak_weights,
            wide_gradients,
            for_mean,
        )


# What a decoder returns.
Law = FactoredNegativeBinomial | FactoredZeroInflatedPoisson
