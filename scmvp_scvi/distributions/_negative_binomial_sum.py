"""Negative binomial likelihood of all genes (equations 13 to 15), in blocks of cells.

With ``theta`` the inverse dispersion and ``s = log(mean / theta)``, the log ratio, an entry's
log-likelihood is
``-theta softplus(s) + x logsigmoid(s) + lgamma(x + theta) - lgamma(theta) - lgamma(x + 1)``: the
first term is that of a zero, the others are zero there. Those of a large count are large and
cancel, so that they are added up entry by entry.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from scmvp_scvi import _kernels
from scmvp_scvi._counts import Counts, DenseCounts, SparseCounts, positions_of, slices
from scmvp_scvi._side_by_side import side_by_side
from scmvp_scvi.distributions._blockwise import (
    cell_blocks,
    check_shape,
    summed_likelihood,
)

# A minibatch of 128 makes eight blocks. The derivatives of each have a row of all genes.
_CELLS_PER_BLOCK = 16
_STIRLING_FROM = 1_000  # terms of the series that are left out are below 1e-13 from here on


@dataclass(frozen=True)
class _NegativeBinomialSweep:
    """The zero term on every entry, the gamma functions at the non-zeros.

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
        if log_theta.ndim == 1:
            log_theta = log_theta.unsqueeze(0)
        weights = None if upstream is None else upstream * self.cell_weights
        given = log_scale, log_theta, self.library.log(), weights
        if isinstance(counts, SparseCounts):
            sums, derivatives = _sum_sparse(*given, counts)
        else:
            sums, derivatives = _sum_written_out(*given, counts)
        log_prob = sums * self.cell_weights
        if not derivatives:
            return log_prob, ()
        d_log_scale, d_log_theta = derivatives
        return log_prob, (d_log_scale, d_log_theta.view_as(parameters[1]))


# What a sum over the genes returns: the sums, ``(cells,)``, without the weights, and where there
# are weights the derivatives by ``log_scale`` and ``log_theta`` with them. ``log_theta`` has one
# row for all cells, or one a cell.
_Sums = tuple[Tensor, tuple[Tensor, ...]]


def _sum_sparse(
    log_scale: Float[Tensor, "cells genes"],
    log_theta: Float[Tensor, "rows genes"],
    log_library: Float[Tensor, "cells 1"],
    weights: Float[Tensor, "cells"] | None,
    counts: SparseCounts,
) -> _Sums:
    """On a CPU, in one compiled pass, blocks of cells side by side."""
    values, theta = counts.values.to(log_scale.dtype), log_theta.exp()
    log_depth = log_library[:, 0].to(log_scale.dtype).contiguous()
    shared, with_slopes = len(log_theta) == 1, weights is not None
    log_theta_at = counts.of_features(log_theta[0]) if shared else counts.of_entries(log_theta)
    gamma_at, slope_at = _gamma_terms(values, log_theta_at, with_slopes)
    sums = log_scale.new_empty(counts.n_cells)
    blocks = slices(counts.n_cells, _CELLS_PER_BLOCK)
    if weights is None:
        factors, d_log_scale, d_log_theta = sums, log_scale.new_empty(0, 0), theta.new_empty(0, 0)
    else:
        factors, d_log_scale = weights.to(log_scale.dtype), torch.empty_like(log_scale)
        # of a row that the cells share, each block has its part
        d_log_theta = theta.new_zeros(len(blocks) if shared else len(theta), theta.shape[1])

    def sum_cells(numbered: tuple[int, slice]) -> None:
        i, cells = numbered
        own, part = (slice(None), slice(i, i + 1)) if shared else (cells, cells)
        _kernels.negative_binomial(
            log_scale[cells].numpy(),
            log_depth[cells].numpy(),
            log_theta[own].numpy(),
            theta[own].numpy(),
            factors[cells].numpy(),
            counts.columns.numpy(),
            counts.offsets[cells.start : cells.stop + 1].numpy(),
            values.numpy(),
            gamma_at.numpy(),
            slope_at.numpy(),
            sums[cells].numpy(),
            d_log_scale[cells].numpy(),
            d_log_theta[part].numpy(),
            with_slopes,
        )

    side_by_side(sum_cells, list(enumerate(blocks)), log_scale.device, from_n_blocks=2)
    if not with_slopes:
        return sums, ()
    return sums, (d_log_scale, d_log_theta.sum(0) if shared else d_log_theta)


def _sum_written_out(
    log_scale: Float[Tensor, "cells genes"],
    log_theta: Float[Tensor, "rows genes"],
    log_library: Float[Tensor, "cells 1"],
    weights: Float[Tensor, "cells"] | None,
    counts: DenseCounts,
) -> _Sums:
    """On an accelerator, block by block of cells."""
    shared = len(log_theta) == 1
    gamma, gamma_slope = _gamma_terms(counts.values, log_theta, weights is not None)
    sums = log_scale.new_empty(counts.n_cells)
    d_log_scale = torch.empty_like(log_scale)
    d_log_theta = torch.zeros_like(log_theta)  # a sum over blocks where cells share it
    for cells in cell_blocks(counts):
        values = counts.values[cells]
        own = log_theta if shared else log_theta[cells]
        theta = own.exp()
        log_ratio = (log_scale[cells] - own).add_(log_library[cells])
        d_own = F.softplus(log_ratio).mul_(theta).neg_()  # the zero term
        sums[cells] = (values * F.logsigmoid(log_ratio) + d_own + gamma[cells]).sum(-1)
        if weights is None:
            continue
        # before the ratio is overwritten
        d_at_counts = torch.sigmoid(-log_ratio).mul_(values)
        d_cells = log_ratio.sigmoid_().mul_(theta).neg_().add_(d_at_counts)
        d_own += gamma_slope[cells] - d_cells
        of_cells = weights[cells]
        torch.mul(d_cells, of_cells.unsqueeze(-1), out=d_log_scale[cells])
        if shared:
            d_log_theta[0].addmv_(d_own.T, of_cells)
        else:
            torch.mul(d_own, of_cells.unsqueeze(-1), out=d_log_theta[cells])
    return sums, () if weights is None else (d_log_scale, d_log_theta)


def _gamma_terms(values: Tensor, log_theta: Tensor, with_slopes: bool) -> tuple[Tensor, Tensor]:
    """Return lgamma(x + theta) - lgamma(theta) - log(x!), and its slope by log(theta).

    A count of one, as most are, has log(theta) and 1; one that is stored and zero has 0 and 0.
    """
    is_one = values == 1
    if values.ndim == 2:  # written out: to pick the others would synchronise with the device
        terms, slopes = _gamma_terms_of_any(values, log_theta, with_slopes)
        return torch.where(is_one, log_theta, terms), slopes.masked_fill_(is_one, 1)
    others = positions_of(~is_one)
    of_others = _gamma_terms_of_any(
        values.index_select(0, others), log_theta.index_select(0, others), with_slopes
    )
    terms, slopes = log_theta.clone(), torch.ones_like(log_theta)
    for result, of_other in zip((terms, slopes), of_others, strict=True):
        result.index_copy_(0, others, of_other)
    return terms, slopes


def _gamma_terms_of_any(
    values: Tensor, log_theta: Tensor, with_slopes: bool
) -> tuple[Tensor, Tensor]:
    theta = log_theta.exp()
    total = values + theta
    # theta and x + 1 take the same part. Of a large one the gamma functions are large, and float32
    # has no digits for their difference: there it is that of Stirling's series, written without
    # differences.
    larger, smaller = torch.maximum(theta, values + 1), torch.minimum(theta, values + 1)
    beyond = smaller - 1
    series = (larger - 0.5) * torch.log1p(beyond / larger) + beyond * (total.log() - 1)
    series -= beyond / (12 * larger * total)
    differences = torch.lgamma(total) - torch.lgamma(larger)
    terms = torch.where(larger > _STIRLING_FROM, series, differences) - torch.lgamma(smaller)
    if not with_slopes:
        return terms, torch.zeros_like(terms)
    slope_of_series = theta * torch.log1p(values / theta) + values / (2 * total)
    slope_of_series += values * (total + theta) / (12 * theta * total**2)
    slopes = theta * (torch.digamma(total) - torch.digamma(theta))
    return terms, torch.where(theta > _STIRLING_FROM, slope_of_series, slopes)


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

    Raises
    ------
    ValueError
        If the counts or the library are of another shape than the law.
    """
    check_shape(counts, len(log_scale), log_scale.shape[1], library)
    # the passes take rows as they lie
    log_scale, log_inverse_dispersion = log_scale.contiguous(), log_inverse_dispersion.contiguous()
    sweep = _NegativeBinomialSweep(library, cell_weights)
    return summed_likelihood(sweep, counts, log_scale, log_inverse_dispersion, for_mean=for_mean)
