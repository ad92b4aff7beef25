"""Chosen rows of a wide weight: their gradient, sparse, and how it joins that of all rows."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


class _TakeRows(torch.autograd.Function):
    """``weight[rows]`` whose gradient holds these rows alone, as a sparse tensor."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor, factors: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, factors)
        ctx.shape = weight.shape
        return weight.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        rows, factors = ctx.saved_tensors
        if factors is not None:
            upstream = upstream * factors.view(-1, *[1] * (upstream.ndim - 1))
        # given as the argument `check_invariants=False`, torch 2.11 warns
        with torch.sparse.check_sparse_tensor_invariants(False):
            gradient = torch.sparse_coo_tensor(
                rows.unsqueeze(0), upstream, ctx.shape, is_coalesced=True
            )
        return gradient, None, None


class _SplitUses(torch.autograd.Function):
    """Two views of a weight whose gradients, one dense and one of a few rows, come in apart."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        return weight.view_as(weight), weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dense: Tensor | None, by_rows: Tensor | None) -> Tensor | None:
        if dense is None or by_rows is None:
            return dense if by_rows is None else by_rows
        if not by_rows.is_sparse:
            return dense + by_rows
        # in place: a copy of a wide gradient would cost more than all of the sum
        return dense.index_add_(0, by_rows._indices()[0], by_rows._values())


def split_uses(
    weight: Float[Tensor, "features *width"],
) -> tuple[Float[Tensor, "features *width"], Float[Tensor, "features *width"]]:
    """Two views of a weight, for a use of all rows and for one by `take_rows`.

    Their gradients are summed by rows at once. Torch by itself adds a sparse gradient to a dense
    one row by row, which took longer than to compute both.

    Parameters
    ----------
    weight
        The weight.
    """
    return _SplitUses.apply(weight)


def take_rows(
    weight: Float[Tensor, "features *width"],
    rows: Int[Tensor, "chosen"] | slice,
    gradient_factors: Float[Tensor, "chosen"] | None = None,
) -> Float[Tensor, "chosen *width"]:
    """Rows of a weight; for chosen rows the gradient is sparse, of the size of the choice.

    Data-parallel training exchanges dense gradients, and there it is dense, and not multiplied.

    Parameters
    ----------
    weight
        The weight or bias.
    rows
        Ascending and without repeats, or a slice.
    gradient_factors
        Factor on the sparse gradient of each row. The probability that the row was drawn takes the
        weight of its term back: `RowAdam` then moves the row as a pass over all rows would, only
        less often.
    """
    if isinstance(rows, slice) and rows == slice(None):
        return weight  # of a slice torch writes the gradient out once more
    is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if isinstance(rows, slice) or is_distributed:
        return weight[rows]
    return _TakeRows.apply(weight, rows, gradient_factors)
