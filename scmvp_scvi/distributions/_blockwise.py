"""The zero-inflated Poisson likelihood of all peaks, formed block by block with its gradient.

At 100,000 peaks a dense ``(cells, peaks)`` array of 128 cells takes 51 MB, and the plain
likelihood keeps about ten of them for its gradient. Here a block of peaks is decoded, its terms
are summed and its gradient is formed before the next block is touched, so that the working set
stays in cache and nothing of the size of the data is ever stored. The zero term is evaluated in
closed form on every entry, the count terms only at the non-zeros.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from scmvp_scvi._counts import SparseCounts

_BLOCK_SIZE = {"cpu": 1024}  # 128 cells x 1,024 peaks x 4 bytes: a few arrays fit a core's L2
_BLOCK_SIZE_OTHER = 16_384  # accelerators want fewer, larger kernels


def _blocks(
    counts: SparseCounts, block_size: int
) -> Iterator[tuple[slice, Int[Tensor, "nonzeros"]]]:
    """Yield each block of columns with the positions of the non-zeros that fall into it."""
    block_of = counts.columns // block_size
    n_blocks = -(-counts.n_features // block_size)
    order = torch.argsort(block_of)
    sizes = torch.bincount(block_of, minlength=n_blocks).tolist()
    for i, positions in enumerate(order.split(sizes)):
        yield slice(i * block_size, min((i + 1) * block_size, counts.n_features)), positions


class _ZeroInflatedPoissonSum(torch.autograd.Function):
    """Log-likelihood of each cell, ``(cells,)``, with the gradient formed in the same pass.

    The gradient is stored for an upstream gradient of one in every cell, and scaled when the real
    one is the same for all cells, as under a mean over the minibatch. Otherwise it is formed in a
    second pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        rate_weight: Tensor,
        rate_bias: Tensor,
        inclusion_weight: Tensor,
        inclusion_bias: Tensor,
        library: Tensor,
        observed: Tensor,
        counts: SparseCounts,
        grad_enabled: bool,
    ) -> Tensor:
        parameters = (hidden, rate_weight, rate_bias, inclusion_weight, inclusion_bias)
        # `needs_input_grad` does not know of `no_grad`, and grad mode is off in here
        wants_gradient = grad_enabled and any(ctx.needs_input_grad[:5])
        log_prob, gradients = _pass(parameters, library, observed, counts, wants_gradient)
        ctx.counts = counts
        ctx.save_for_backward(*parameters, library, observed, *gradients)
        return log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        *parameters, library, observed = ctx.saved_tensors[:7]
        gradients = ctx.saved_tensors[7:]
        if bool((upstream == upstream[0]).all()):
            gradients = tuple(gradient * upstream[0] for gradient in gradients)
        else:
            _, gradients = _pass(parameters, library, observed * upstream, ctx.counts, True)
        return (*gradients, None, None, None, None)


def _pass(
    parameters: tuple[Tensor, ...] | list[Tensor],
    library: Tensor,
    cell_weights: Tensor,
    counts: SparseCounts,
    wants_gradient: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One sweep over the peaks: weighted log-likelihoods, and gradients of their sum."""
    hidden, rate_weight, rate_bias, inclusion_weight, inclusion_bias = parameters
    weighted_hidden = hidden * cell_weights.unsqueeze(-1)
    gradients = tuple(torch.zeros_like(p) for p in parameters) if wants_gradient else ()
    log_prob = hidden.new_zeros(hidden.shape[0])
    block_size = _BLOCK_SIZE.get(hidden.device.type, _BLOCK_SIZE_OTHER)
    all_rows = counts.rows

    for block, positions in _blocks(counts, block_size):
        # sigmoid written as a reciprocal: exp is vectorised and several times faster on CPU
        share = torch.addmm(rate_bias[block], hidden, rate_weight[block].T)
        share = share.neg_().exp_().add_(1).reciprocal_()
        excluded = torch.addmm(inclusion_bias[block], hidden, inclusion_weight[block].T)
        excluded = excluded.exp_().add_(1).reciprocal_()  # 1 - tau
        included = 1 - excluded
        rate = share * library
        zero_given_included = rate.neg().exp_()
        zero = torch.addcmul(excluded, included, zero_given_included)  # P(y = 0)
        zero.clamp_min_(torch.finfo(zero.dtype).tiny)
        log_terms = zero.log()

        rows, columns = all_rows[positions], counts.columns[positions] - block.start
        values = counts.values[positions]
        at = (rows, columns)
        rate_at, excluded_at = rate[at], excluded[at]
        log_count = (
            torch.log1p(-excluded_at.clamp_max(1 - 1e-7))
            + values * rate_at.clamp_min(torch.finfo(rate.dtype).tiny).log()
            - rate_at
            - torch.lgamma(values + 1)
        )
        log_terms[at] = log_count
        log_prob += log_terms.sum(-1)
        if not wants_gradient:
            continue

        # derivatives with respect to the two linear predictors, zeros first
        ratio = included.div_(zero)
        d_inclusion = (zero_given_included - 1).mul_(ratio).mul_(excluded)
        d_rate = ratio.mul_(zero_given_included).mul_(rate).neg_()
        d_inclusion[at] = excluded_at
        d_rate[at] = values - rate_at
        d_rate.addcmul_(d_rate, share, value=-1)  # through the sigmoid of the rate

        g_hidden, g_rate_weight, g_rate_bias, g_inclusion_weight, g_inclusion_bias = gradients
        torch.mm(d_rate.T, weighted_hidden, out=g_rate_weight[block])
        torch.mm(d_inclusion.T, weighted_hidden, out=g_inclusion_weight[block])
        torch.mv(d_rate.T, cell_weights, out=g_rate_bias[block])
        torch.mv(d_inclusion.T, cell_weights, out=g_inclusion_bias[block])
        g_hidden.addmm_(d_rate, rate_weight[block])
        g_hidden.addmm_(d_inclusion, inclusion_weight[block])

    if wants_gradient:
        gradients[0].mul_(cell_weights.unsqueeze(-1))
    return log_prob * cell_weights, gradients


def zero_inflated_poisson_sum(
    hidden: Float[Tensor, "cells hidden"],
    rate_weight: Float[Tensor, "peaks hidden"],
    rate_bias: Float[Tensor, "peaks"],
    inclusion_weight: Float[Tensor, "peaks hidden"],
    inclusion_bias: Float[Tensor, "peaks"],
    library: Float[Tensor, "cells 1"],
    observed: Float[Tensor, "cells"],
    counts: SparseCounts,
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
    observed
        Weight of each cell, 0 where the modality was not measured. Takes no gradient.
    counts
        The counts y.

    Returns
    -------
    Log-likelihood of each cell, in nats, times its weight. It can be differentiated once.
    """
    return _ZeroInflatedPoissonSum.apply(
        hidden,
        rate_weight,
        rate_bias,
        inclusion_weight,
        inclusion_bias,
        library,
        observed,
        counts,
        torch.is_grad_enabled(),
    )
