"""Rows of a wide weight matrix: a random choice of features, and a gradient of their size."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class FeatureSample:
    """Features drawn at random, with the weights that make a sum over them unbiased.

    Parameters
    ----------
    columns
        ``(sampled,)``, ascending and without repeats.
    weights
        ``(sampled,)``, one over the probability that the feature is drawn.
    """

    columns: Tensor
    weights: Tensor


def inclusion_probabilities(
    abundance: Float[Tensor, "features"], n_sampled: int, uniform_share: float = 0.5
) -> Float[Tensor, "features"]:
    """Probability of each feature to be drawn: in part equal, in part by its abundance.

    Terms of abundant features vary most, and drawing them more often steadies the sum; the equal
    part bounds the weight of the rare ones.

    Parameters
    ----------
    abundance
        Counts of each feature, or anything proportional to them, not negative.
    n_sampled
        Features to draw, at least one.
    uniform_share
        Share of the draws that is spread evenly.

    Returns
    -------
    Probabilities that sum to the smaller of ``n_sampled`` and the number of features.
    """
    n_features = len(abundance)
    if n_sampled >= n_features:
        return torch.ones_like(abundance)
    wanted = uniform_share / n_features + (1 - uniform_share) * abundance / abundance.sum()
    probabilities = (wanted * n_sampled).clamp_max(1)
    # what certain features leave over goes to the others, which may make some of them certain
    for _ in range(n_features):
        certain = probabilities >= 1
        n_certain = certain.sum()
        factor = (n_sampled - n_certain) / (probabilities.sum() - n_certain)
        scaled = torch.where(certain, 1.0, probabilities * factor)
        if bool((scaled <= 1).all()):
            return scaled
        probabilities = scaled.clamp_max(1)
    return probabilities


def sample_features(probabilities: Float[Tensor, "features"], n_sampled: int) -> FeatureSample:
    """Draw so many features without replacement, each with its own probability.

    Systematic sampling: points one unit apart, from a random start, fall on the probabilities
    cumulated in a random order. Weighted by 1 / probability the sample gives unbiased sums
    (Horvitz & Thompson, Journal of the American Statistical Association 47:663, 1952).

    Parameters
    ----------
    probabilities
        Between 0 and 1.
    n_sampled
        What the probabilities add up to.
    """
    order = torch.randperm(len(probabilities), device=probabilities.device)
    # in double precision a hundred thousand probabilities add up without a feature lost or doubled
    ends = probabilities.index_select(0, order).double().cumsum(0)
    # the last point is within the last interval, however the sum was rounded
    start = torch.rand((), dtype=ends.dtype, device=ends.device) * (ends[-1] - (n_sampled - 1))
    points = start + torch.arange(n_sampled, dtype=ends.dtype, device=ends.device)
    places = torch.searchsorted(ends, points, right=True).clamp_max(len(order) - 1)
    columns = order.index_select(0, places).sort().values
    return FeatureSample(columns, 1 / probabilities.index_select(0, columns))


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
