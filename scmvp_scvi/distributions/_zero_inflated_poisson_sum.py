"""Zero-inflated Poisson likelihood of all peaks (equations 16 to 19), in blocks of peaks.

With ``s`` the sigmoid of the rate logit, ``r = library * s`` the rate, ``e = 1 - tau`` and
``p0 = e + (1 - e) exp(-r)``, a zero has the log-likelihood ``log p0``, with slopes
``r (1 - s) (e / p0 - 1)`` by the rate logit and ``e - e / p0`` by the inclusion logit; a count y
has ``log(1 - e) + y log r - r - log y!``, with slopes ``(1 - s) (y - r)`` and ``e``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from scmvp_scvi import _kernels
from scmvp_scvi._counts import ColumnBlock, Counts, DenseColumnBlock
from scmvp_scvi._products import product, weight_gradient
from scmvp_scvi._side_by_side import side_by_side
from scmvp_scvi._wide_gradients import BlockGradient, WideGradients, gradient_of, wide_empty_like
from scmvp_scvi.distributions._blockwise import (
    Gradients,
    check_shape,
    column_blocks,
    log_factorials,
    summed_likelihood,
)

_LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class _Slopes:
    """What the derivatives are formed from, and where those of the output layers go.

    Parameters
    ----------
    upstream
        ``(cells,)``, factor on the derivatives of each cell.
    weighted_hidden
        ``(cells, hidden)``, the hidden layer times that factor.
    of_hidden
        ``(blocks, cells, hidden)``, by the hidden layer, the factor left out.
    of_weights, of_biases
        Of the rate and of the inclusion.
    """

    upstream: Tensor
    weighted_hidden: Tensor
    of_hidden: Tensor
    of_weights: Sequence[BlockGradient]
    of_biases: Sequence[Tensor]


@dataclass(frozen=True)
class _ZeroInflatedPoissonSweep:
    """The zero term in closed form on every entry, the count terms in its place at the non-zeros.

    Parameters
    ----------
    library
        ``(cells, 1)``.
    cell_weights
        ``(cells,)``.
    peak_weights
        ``(peaks,)``, or None for ones.
    wide_gradients
        What becomes of the gradients of the two weights; None holds them.
    """

    library: Tensor
    cell_weights: Tensor
    peak_weights: Tensor | None
    wide_gradients: WideGradients | None

    def __call__(
        self, parameters: tuple[Tensor, ...], upstream: Tensor | None, counts: Counts
    ) -> tuple[Tensor, Gradients]:
        hidden, *layers = parameters
        rate_weight, rate_bias, inclusion_weight, inclusion_bias = layers
        blocks = column_blocks(counts)
        sums, slopes = hidden.new_empty(len(blocks), len(hidden)), None
        if upstream is not None:
            upstream = upstream * self.cell_weights
            slopes = _Slopes(
                upstream,
                hidden * upstream.unsqueeze(-1),
                hidden.new_empty(len(blocks), *hidden.shape),
                [gradient_of(w, self.wide_gradients) for w in (rate_weight, inclusion_weight)],
                [wide_empty_like(b) for b in (rate_bias, inclusion_bias)],
            )

        sum_block = partial(self._sum_block, hidden, layers, sums, slopes)
        side_by_side(sum_block, list(enumerate(blocks)), hidden.device, from_n_blocks=2)
        log_prob = sums.sum(0) * self.cell_weights
        if slopes is None:
            return log_prob, ()
        g_hidden = slopes.of_hidden.sum(0) * slopes.upstream.unsqueeze(-1)
        of_layers = zip((g.result() for g in slopes.of_weights), slopes.of_biases, strict=True)
        return log_prob, (g_hidden, *chain.from_iterable(of_layers))

    def _sum_block(
        self,
        hidden: Tensor,
        layers: Sequence[Tensor],
        sums: Tensor,
        slopes: _Slopes | None,
        numbered: tuple[int, ColumnBlock | DenseColumnBlock],
    ) -> None:
        """Write the sum over some peaks, and its derivatives to where the slopes say."""
        i, block = numbered
        rate_weight, rate_bias, inclusion_weight, inclusion_bias = (
            tensor[block.columns] for tensor in layers
        )
        peak_weights = None if self.peak_weights is None else self.peak_weights[block.columns]
        rate_logit = product(hidden, rate_weight, rate_bias)
        exclusion_logit = product(-hidden, inclusion_weight, -inclusion_bias)
        given = rate_logit, exclusion_logit, self.library, peak_weights
        if isinstance(block, ColumnBlock):
            sums[i], derivatives = _sum_sparse(*given, block, slopes is not None)
        else:
            sums[i], derivatives = _sum_written_out(*given, block, slopes is not None)
        if slopes is None:
            return

        # before the weights are stepped, which may be as soon as they have their gradient
        d_rate, d_inclusion = derivatives
        slopes.of_hidden[i] = product(d_rate, rate_weight.T)
        slopes.of_hidden[i] += product(d_inclusion, inclusion_weight.T)
        for slope, of_weight, of_bias in zip(
            derivatives, slopes.of_weights, slopes.of_biases, strict=True
        ):
            torch.mv(slope.T, slopes.upstream, out=of_bias[block.columns])
            of_weight.put(block.columns, weight_gradient(slope, slopes.weighted_hidden))


# What a sum over a block returns: the sums, ``(cells,)``, and the derivatives by the logits of
# rate and inclusion, ``(cells, peaks)``. The logits that it is given are overwritten.
_Sums = tuple[Tensor, tuple[Tensor, ...]]


def _sum_sparse(
    rate_logit: Float[Tensor, "cells peaks"],
    exclusion_logit: Float[Tensor, "cells peaks"],
    library: Float[Tensor, "cells 1"],
    peak_weights: Float[Tensor, "peaks"] | None,
    block: ColumnBlock,
    with_derivatives: bool,
) -> _Sums:
    """On a CPU, in one compiled pass."""
    dtype = rate_logit.dtype
    values = block.values.to(dtype)
    sums = rate_logit.new_empty(len(rate_logit))
    weights = rate_logit.new_ones(rate_logit.shape[1]) if peak_weights is None else peak_weights
    _kernels.zero_inflated_poisson(
        rate_logit.numpy(),
        exclusion_logit.numpy(),
        library[:, 0].to(dtype).contiguous().numpy(),
        weights.to(dtype).numpy(),
        block.rows.numpy(),
        block.per_column.numpy(),
        values.numpy(),
        log_factorials(values).numpy(),
        sums.numpy(),
        with_derivatives,
    )
    return sums, (rate_logit, exclusion_logit) if with_derivatives else ()


def _sum_written_out(
    rate_logit: Float[Tensor, "cells peaks"],
    exclusion_logit: Float[Tensor, "cells peaks"],
    library: Float[Tensor, "cells 1"],
    peak_weights: Float[Tensor, "peaks"] | None,
    block: DenseColumnBlock,
    with_derivatives: bool,
) -> _Sums:
    """On an accelerator: both terms of every entry, of which the one that holds is chosen."""
    counts, has_count = block.values, block.values > 0
    minus_library, one = -library, library.new_ones(())
    log_count = F.logsigmoid(rate_logit).add_(library.log()).mul_(counts)
    log_count += F.logsigmoid(-exclusion_logit)
    log_count -= log_factorials(counts)

    share = rate_logit.sigmoid_()
    excluded = exclusion_logit.sigmoid_()  # 1 - tau
    minus_rate = share * minus_library
    # P(y = 0) = 1 - tau + tau exp(-rate)
    zero = (minus_rate * _LOG2_E).exp2_().lerp_(one, excluded)
    zero.clamp_min_(torch.finfo(zero.dtype).tiny)
    log_terms = torch.where(has_count, log_count.add_(minus_rate), zero.log())
    sums = log_terms.sum(-1) if peak_weights is None else log_terms @ peak_weights
    if not with_derivatives:
        return sums, ()

    d_rate_at_count = (1 - share).mul_(counts + minus_rate)
    excluded_given_zero = torch.div(excluded, zero, out=zero)
    d_rate = minus_rate.addcmul_(excluded_given_zero, minus_rate, value=-1)
    d_rate.addcmul_(d_rate, share, value=-1)  # through the sigmoid of the rate
    d_inclusion = torch.sub(excluded, excluded_given_zero, out=excluded_given_zero)
    torch.where(has_count, excluded, d_inclusion, out=d_inclusion)
    torch.where(has_count, d_rate_at_count, d_rate, out=d_rate)
    if peak_weights is not None:
        d_rate *= peak_weights
        d_inclusion *= peak_weights
    return sums, (d_rate, d_inclusion)


def zero_inflated_poisson_sum(
    hidden: Float[Tensor, "cells hidden"],
    rate_weight: Float[Tensor, "peaks hidden"],
    rate_bias: Float[Tensor, "peaks"],
    inclusion_weight: Float[Tensor, "peaks hidden"],
    inclusion_bias: Float[Tensor, "peaks"],
    library: Float[Tensor, "cells 1"],
    cell_weights: Float[Tensor, "cells"],
    counts: Counts,
    peak_weights: Float[Tensor, "peaks"] | None = None,
    wide_gradients: WideGradients | None = None,
    for_mean: bool = False,
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
    wide_gradients
        What becomes of the gradients of the two weights; None holds them.
    for_mean
        As in `summed_likelihood`.

    Returns
    -------
    Log-likelihood of each cell, in nats, times its weight. It can be differentiated once.

    Raises
    ------
    ValueError
        If the counts or the library are of another shape than the law.
    """
    check_shape(counts, len(hidden), len(rate_bias), library)
    sweep = _ZeroInflatedPoissonSweep(library, cell_weights, peak_weights, wide_gradients)
    parameters = hidden, rate_weight, rate_bias, inclusion_weight, inclusion_bias
    return summed_likelihood(sweep, counts, *parameters, for_mean=for_mean)
