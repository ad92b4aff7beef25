"""Fit of the rates of the peaks, by empirical Bayes, at hidden units that have been learned.

How much peaks differ between cells is estimated from all of them, and each is shrunk by it:
adaptive shrinkage :cite:p:`Stephens2017`. Sums over the cells are torch's, the rest is numpy.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from scmvp_scvi._counts import slices

# Standard deviations of the normals that the prior mixes, times the root of the number of hidden
# units: what effects are is a matter of the data, not of the prior that weights are trained under.
_SCALES = np.concatenate([[0.0], np.geomspace(0.005, 1.28, 17)])
_N_ITERATIONS = 200
_TOLERANCE = 1e-5  # of the shares of the normals
_LEAST_SHARE = 1e-12  # so that an effect unlike all that the prior was fitted to has some normal
_MOST_EFFECTS = 200_000  # that the prior is fitted to: more take memory and change nothing
_PEAKS_PER_BLOCK = 2048


class RateSums(NamedTuple):
    """Sums over cells that the rates are fitted by; those of several processes add up.

    Cells count by the depth that their rates are scaled to, and not without ATAC counts.
    """

    depth: Tensor  # ()
    hidden: Tensor  # (hidden,), last hidden layer
    products: Tensor  # (hidden, hidden), of its units
    weight_slopes: Tensor  # (peaks, hidden), of the log-likelihood by the weights of the rates
    bias_slopes: Tensor  # (peaks,), by their biases

    @classmethod
    def of_no_cells(cls, layer: nn.Linear) -> Self:
        """Return zeros to add to, for an output layer of rates."""
        n_hidden = layer.in_features
        moments = (
            torch.zeros(shape, dtype=torch.float64, device=layer.weight.device)
            for shape in ((), n_hidden, (n_hidden, n_hidden))
        )
        return cls(*moments, *(torch.zeros_like(p.detach()) for p in (layer.weight, layer.bias)))

    def add(self, hidden: Tensor, depths: Tensor, mean_slopes: Sequence[Tensor]) -> None:
        """Add a minibatch, in place.

        Parameters
        ----------
        hidden
            ``(cells, hidden)``.
        depths
            ``(cells,)``, 0 without ATAC counts.
        mean_slopes
            Of the mean log-likelihood over the cells, by weights and by biases.
        """
        hidden, depths = hidden.double(), depths.double()
        self.depth.add_(depths.sum())
        self.hidden.add_(depths @ hidden)
        self.products.add_((depths * hidden.T) @ hidden)
        for total, slope in zip(self[3:], mean_slopes, strict=True):
            total.add_(slope, alpha=len(hidden))


class HiddenBasis(NamedTuple):
    """Directions in which hidden units vary over the cells, each free of the others."""

    mean: np.ndarray  # (hidden,)
    spreads: np.ndarray  # (directions,), variance along each
    directions: np.ndarray  # (hidden, directions), orthonormal


class Effects(NamedTuple):
    """Effects of directions on peaks: slopes of the logit of a rate along them."""

    learned: np.ndarray  # what the weights have
    scores: np.ndarray  # slopes of the log-likelihood at effects of zero
    curvatures: np.ndarray  # of the log-likelihood: how much the counts say of an effect

    def at(self, chosen: np.ndarray) -> "Effects":
        """Return some of them, by a mask or by positions."""
        return Effects(*(values[chosen] for values in self))


class EffectPrior(NamedTuple):
    """Mixture of normals with mean zero that effects are drawn from."""

    shares: np.ndarray  # (normals,), adding up to one
    variances: np.ndarray  # (normals,)


def hidden_basis(sums: RateSums) -> HiddenBasis:
    """Principal axes of the hidden units of all cells."""
    depth, hidden, products = (total.cpu().numpy() for total in sums[:3])
    mean = hidden / depth
    spreads, directions = np.linalg.eigh(products / depth - np.outer(mean, mean))
    return HiddenBasis(mean, spreads.clip(min=0), directions)


def effects_of(
    basis: HiddenBasis,
    weight: np.ndarray,
    totals: np.ndarray,
    weight_slopes: np.ndarray,
    bias_slopes: np.ndarray,
) -> Effects:
    r"""Read off what the counts say of the effects on some peaks.

    The bias of a peak moves with its weights :math:`w` so that the rate at the mean of the hidden
    units stays. Then the log-likelihood of a peak with :math:`y` counts has about the curvature
    :math:`y C`, :math:`C` being the covariance of the units, and its slope at :math:`w = 0` is
    that at :math:`w` plus :math:`y C w`: wherever the training has left the weights.

    Parameters
    ----------
    basis
        Of the hidden units.
    weight
        ``(peaks, hidden)``.
    totals
        ``(peaks,)``, counts in all cells.
    weight_slopes, bias_slopes
        As in `RateSums`.

    Returns
    -------
    Each array ``(peaks, directions)``.
    """
    learned = weight @ basis.directions
    curvatures = np.outer(totals, basis.spreads)
    slopes = (weight_slopes - np.outer(bias_slopes, basis.mean)) @ basis.directions
    return Effects(learned, curvatures * learned + slopes, curvatures)


def fit_prior(effects: Effects, variances: np.ndarray) -> EffectPrior:
    r"""Fit the shares of the normals by expectation-maximisation.

    Given an effect :math:`b` of curvature :math:`f`, its score is about
    :math:`\mathrm{N}(f b, f)`.

    Parameters
    ----------
    effects
        Each array ``(effects,)``, curvatures above zero.
    variances
        ``(normals,)``.
    """
    likelihoods = _relative_likelihoods(effects, variances)
    shares = np.full(len(variances), 1 / len(variances))
    for _ in range(_N_ITERATIONS):
        before = shares
        shares = shares * (likelihoods.T @ (1 / (likelihoods @ shares))) / len(likelihoods)
        shares = np.maximum(shares, _LEAST_SHARE)
        if np.abs(shares - before).max() < _TOLERANCE:
            break
    return EffectPrior(shares / shares.sum(), variances)


def posterior_means(effects: Effects, prior: EffectPrior) -> np.ndarray:
    """Mean of each effect given its score, ``(effects,)``.

    Parameters
    ----------
    effects
        Each array ``(effects,)``, curvatures above zero.
    prior
        Of the effects.
    """
    weights = _relative_likelihoods(effects, prior.variances) * prior.shares
    factors = prior.variances / (1 + effects.curvatures[:, None] * prior.variances)
    return effects.scores * (weights * factors).sum(1) / weights.sum(1)


def _relative_likelihoods(effects: Effects, variances: np.ndarray) -> np.ndarray:
    """Density of each score by each normal, over the highest of them, ``(effects, normals)``."""
    scores, curvatures = effects.scores[:, None], effects.curvatures[:, None]
    spreads = curvatures * (1 + curvatures * variances)
    logs = -0.5 * (np.log(spreads) + scores**2 / spreads)
    return np.exp(logs - logs.max(1, keepdims=True))


def fit_rates(
    weight: np.ndarray,
    bias: np.ndarray,
    totals: np.ndarray,
    sums: RateSums,
    *,
    scale: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Shrink the weights of the rates to what the counts and all peaks say of them.

    An effect that the counts say less of than the prior of the training does stays as learned.

    Parameters
    ----------
    weight, bias
        ``(peaks, hidden)`` and ``(peaks,)``, as learned.
    totals
        ``(peaks,)``, counts in all cells.
    sums
        Of all cells.
    scale
        The standard deviation of the prior of the training, times the root of the number of hidden
        units.
    seed
        Of the effects that the prior is fitted to, where there are very many.

    Returns
    -------
    Weights and biases; of each peak, the rate at the mean of the hidden units stays.
    """
    weight, bias = weight.copy(), bias.copy()
    if sums.depth == 0:  # no cell has ATAC counts
        return weight, bias
    basis, n_hidden = hidden_basis(sums), weight.shape[1]
    of_peaks = weight, totals, *(slopes.cpu().numpy() for slopes in sums[3:])
    found = []
    for peaks in slices(len(weight), _PEAKS_PER_BLOCK):
        effects = effects_of(basis, *(of[peaks] for of in of_peaks))
        is_known = effects.curvatures > n_hidden / scale**2
        found.append((peaks, is_known, effects.at(is_known)))
    known = Effects(*map(np.concatenate, zip(*(effects for *_, effects in found), strict=True)))
    if len(known.scores) == 0:
        return weight, bias
    if len(known.scores) > _MOST_EFFECTS:
        rng = np.random.default_rng(seed)
        known = known.at(rng.choice(len(known.scores), _MOST_EFFECTS, replace=False))
    prior = fit_prior(known, _SCALES**2 / n_hidden)

    for peaks, is_known, effects in found:
        changes = np.zeros(is_known.shape)
        changes[is_known] = posterior_means(effects, prior) - effects.learned
        moves = changes @ basis.directions.T
        weight[peaks] += moves
        bias[peaks] -= moves @ basis.mean
    return weight, bias
