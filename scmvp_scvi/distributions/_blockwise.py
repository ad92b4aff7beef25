"""Likelihoods of wide profiles, summed block by block with their gradient.

At 100,000 peaks a dense ``(cells, peaks)`` array of 128 cells takes 51 MB, and a plain likelihood
keeps about ten of them for its gradient. Here the terms of a block are summed and its gradient is
formed before the next block is touched, so that the working set stays in cache. Blocks are of
peaks, which are decoded block by block and never stored, or of cells, where the softmax over genes
has to be written out.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from scmvp_scvi._counts import (
    ColumnBlock,
    Counts,
    DenseColumnBlock,
    DenseCounts,
    SparseCounts,
    positions_of,
    slices,
)

# 128 cells x 2,048 features x 4 bytes fill a second-level cache of 1 MB. On one thread smaller
# blocks took a fifth longer, for there are more of them, and larger ones as long.
_BLOCK_SIZE_CPU = 2048
# An accelerator wants few and large kernels. At 128 cells an array of a block takes 17 MB; twice
# as many peaks took as long and a third more memory, half as many saved none.
_BLOCK_SIZE_OTHER = 32_768
_USUAL_CELLS = 128  # a block of cells has as many elements as one of columns of so many cells


def _block_size(counts: Counts) -> int:
    """Columns of a block."""
    is_on_cpu = counts.values.device.type == "cpu"
    return _BLOCK_SIZE_CPU if is_on_cpu else _BLOCK_SIZE_OTHER


def column_blocks(counts: Counts) -> list[ColumnBlock] | list[DenseColumnBlock]:
    """Blocks of columns of the counts; entries that are stored and zero count for nothing."""
    size = _block_size(counts)
    if isinstance(counts, SparseCounts):  # of which a thread takes one
        size = min(size, -(-counts.n_features // torch.get_num_threads()))
    return counts.column_blocks(size)


def cell_blocks(counts: DenseCounts) -> list[slice]:
    """Blocks of cells, each with about as many elements as one of columns."""
    n_cells = _USUAL_CELLS * _block_size(counts) // counts.n_features
    return slices(counts.n_cells, max(1, n_cells))


def check_shape(
    counts: Counts, n_cells: int, n_features: int, library: Float[Tensor, "cells 1"]
) -> None:
    """Refuse counts of another shape than the law: compiled passes do not check bounds.

    Parameters
    ----------
    counts
        The counts.
    n_cells, n_features
        Of the law.
    library
        Its libraries.

    Raises
    ------
    ValueError
        If a shape is another one.
    """
    found = counts.n_cells, counts.n_features
    if found != (n_cells, n_features) or library.shape != (n_cells, 1):
        raise ValueError(
            f"Counts and library must be of the cells and features of the law, {n_cells} and "
            f"{n_features}, got counts of shape {found} and a library of shape "
            f"{tuple(library.shape)}: decode the cells that the counts are of."
        )


def log_factorials(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log(y!) of each count, by the gamma function; 0 of 0 and of 1."""
    if values.ndim == 2:  # written out: to pick the others would synchronise with the device
        return (values + 1).lgamma_()
    others = positions_of((values != 1) & (values > 0))  # 0! = 1! = 1, as most counts are
    logs = torch.zeros_like(values)
    return logs.index_copy_(0, others, (values.index_select(0, others) + 1).lgamma_())


# One pass over all blocks. It takes the parameters, the upstream gradient of each cell, or None
# where no gradient is wanted, and the counts; it returns log-likelihoods and one gradient a
# parameter, None where it has been used up.
Gradients = tuple[Tensor | None, ...]
Sweep = Callable[[tuple[Tensor, ...], Tensor | None, Counts], tuple[Tensor, Gradients]]


class _SummedLikelihood(torch.autograd.Function):
    """Log-likelihood of each cell, ``(cells,)``, by a sweep that also forms the gradient.

    The gradient is formed in the same sweep as the value, for the upstream gradient that the mean
    negative log-likelihood of the minibatch has. On a CPU any other one, and a second backward
    pass, take a sweep of their own. On an accelerator, where reading the upstream gradient would
    synchronise with the device, the gradient has its own sweep unless the caller promises that it
    is asked of a multiple of the mean alone.
    """

    @staticmethod
    def forward(
        ctx: Any,
        sweep: Sweep,
        counts: Counts,
        grad_enabled: bool,
        for_mean: bool,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.sweep, ctx.counts, ctx.gradients = sweep, counts, None
        ctx.save_for_backward(*parameters)
        upstream = None
        # `needs_input_grad` does not know of `no_grad`, and grad mode is off in here
        at_once = for_mean or _is_host(parameters[0])
        if grad_enabled and any(ctx.needs_input_grad) and at_once:
            upstream = _mean_upstream(counts.n_cells, parameters[0])
        log_prob, gradients = _run(sweep, parameters, upstream, counts)
        ctx.gradients = gradients if upstream is not None else None
        return log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        # dropped from here, so that the parameters take these very arrays as their gradients
        gradients, ctx.gradients = ctx.gradients, None
        expected = _mean_upstream(len(upstream), upstream)
        if gradients is not None and not _is_host(upstream):
            # of a scaled loss; a broken promise must show, and to ask for it would synchronise
            equal = (upstream == upstream[0]).all()
            factor = (upstream[0] / expected[0]).masked_fill(~equal, torch.nan)
            gradients = tuple(None if g is None else g.mul_(factor) for g in gradients)
        elif gradients is None or not torch.equal(upstream, expected):
            parameters = ctx.saved_tensors
            _, gradients = _run(ctx.sweep, parameters, upstream, ctx.counts)
        return (None, None, None, None, *gradients)


def _is_host(tensor: Tensor) -> bool:
    """Whether values of a tensor can be read without synchronising with a device."""
    return tensor.device.type == "cpu"


def in_full_precision(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors of half precision as float32, others as they are."""
    half = (torch.bfloat16, torch.float16)
    return tuple(t.float() if t.dtype in half else t for t in tensors)


def _mean_upstream(n_cells: int, like: Tensor) -> Float[Tensor, "cells"]:
    """Gradient of the mean of the negative log-likelihoods."""
    return like.new_ones(()).neg().div(n_cells).expand(n_cells)


def _run(
    sweep: Sweep, parameters: tuple[Tensor, ...], upstream: Tensor | None, counts: Counts
) -> tuple[Tensor, Gradients]:
    """Run a sweep outside of autocast, which would take its matrix products in half precision."""
    with torch.autocast(parameters[0].device.type, enabled=False):
        return sweep(parameters, upstream, counts)


def summed_likelihood(
    sweep: Sweep, counts: Counts, *parameters: Tensor, for_mean: bool = False
) -> Tensor:
    """Log-likelihood of each cell, differentiable once with respect to the parameters.

    Parameters
    ----------
    sweep
        The law.
    counts
        The counts of all features.
    *parameters
        What the sweep takes, cells in rows of the first. Half-precision ones are read as float32.
    for_mean
        Promise that a gradient is only asked of a multiple of the mean over the cells. An
        accelerator then takes one sweep instead of two, and gives NaN for any other gradient.
    """
    return _SummedLikelihood.apply(
        sweep, counts, torch.is_grad_enabled(), for_mean, *in_full_precision(*parameters)
    )
