"""Random features that stand for all, and how probable each is to be drawn."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_EVEN_SHARE = 0.5  # of the draws


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
    abundance: Float[Tensor, "features"], n_sampled: int
) -> Float[Tensor, "features"]:
    """Probability of each feature to be drawn: in part equal, in part by its abundance.

    Terms of abundant features vary most, and drawing them more often lowers the variance of the
    sum; the equal part bounds the weight of the rare ones.

    Parameters
    ----------
    abundance
        Counts of each feature, or anything proportional to them, not negative.
    n_sampled
        Features to draw, at least one.

    Returns
    -------
    Probabilities that sum to the smaller of ``n_sampled`` and the number of features.
    """
    n_features = len(abundance)
    if n_sampled >= n_features:
        return torch.ones_like(abundance)
    wanted = _EVEN_SHARE / n_features + (1 - _EVEN_SHARE) * abundance / abundance.sum()
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


def sample_evenly(n_features: int, n_sampled: int, device: torch.device) -> FeatureSample:
    """Draw features without replacement, each with the same probability.

    Parameters
    ----------
    n_features
        Features to draw from.
    n_sampled
        Features to draw.
    device
        Where the sample is wanted.
    """
    columns = torch.randperm(n_features, device=device)[:n_sampled].sort().values
    return FeatureSample(columns, torch.full((n_sampled,), n_features / n_sampled, device=device))
