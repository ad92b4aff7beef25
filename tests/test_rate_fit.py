"""Fits of the rates: the prior is the one that was planted, and shrinkage is what it asks for."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import norm

from scmvp_scvi import _rate_fit
from scmvp_scvi._rate_fit import (
    EffectPrior,
    Effects,
    RateSums,
    effects_of,
    fit_prior,
    fit_rates,
    hidden_basis,
    posterior_means,
)

N_CELLS, N_PEAKS, N_HIDDEN = 400, 30, 6


# -- effects and their prior ----------------------------------------------------------------------


def observed(rng, effects: np.ndarray, curvatures: np.ndarray) -> Effects:
    """Effects as counts tell of them, by the law that the fit assumes."""
    scores = rng.normal(curvatures * effects, np.sqrt(curvatures))
    return Effects(effects, scores, curvatures)


def test_prior_is_the_mixture_that_was_planted(rng):
    effects = 0.02 * rng.normal(size=40_000) * (rng.random(40_000) < 0.5)
    known = observed(rng, effects, rng.uniform(1e4, 1e5, 40_000))
    prior = fit_prior(known, np.array([0, 0.02, 0.06]) ** 2)
    assert prior.shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(prior.shares, [0.5, 0.5, 0], atol=0.02)


def test_shares_of_the_prior_have_the_highest_likelihood_that_scipy_finds(rng):
    variances = np.array([0, 0.01, 0.04]) ** 2
    effects = rng.laplace(scale=0.012, size=500)
    known = observed(rng, effects, np.full(500, 2e4))

    def surprise(logits):
        shares = np.exp(logits) / np.exp(logits).sum()
        deviations = np.sqrt(
            known.curvatures[:, None] ** 2 * variances + known.curvatures[:, None]
        )
        return -np.log(norm.pdf(known.scores[:, None], scale=deviations) @ shares).sum()

    best = minimize(surprise, np.zeros(3), tol=1e-10)
    found = surprise(np.log(fit_prior(known, variances).shares))
    assert found == pytest.approx(best.fun, abs=0.05)  # of 500 effects together


@pytest.mark.parametrize(
    ("score", "curvature"), [(30.0, 5e2), (-200.0, 5e3), (10.0, 5e4), (2e4, 5e4)]
)
def test_posterior_mean_is_that_of_numerical_integration(score, curvature):
    prior = EffectPrior(np.array([0.2, 0.5, 0.3]), np.array([0.01, 0.03, 0.2]) ** 2)

    def joint(b, power):
        density = norm.pdf(b, scale=np.sqrt(prior.variances)) @ prior.shares
        return b**power * density * norm.pdf(score, curvature * b, np.sqrt(curvature))

    centre, error = score / curvature, 12 / np.sqrt(curvature)
    total, first = (quad(joint, centre - error, centre + error, args=(p,))[0] for p in (0, 1))
    effects = Effects(*(np.array([value]) for value in (0.0, score, curvature)))
    assert posterior_means(effects, prior) == pytest.approx(first / total, rel=1e-5)


def test_effect_of_a_normal_without_spread_is_zero():
    prior = EffectPrior(np.ones(1), np.zeros(1))
    assert posterior_means(Effects(np.ones(1), np.ones(1), np.ones(1)), prior) == 0


def test_heavy_tailed_effects_are_nearer_than_by_any_single_normal(rng):
    effects = 0.01 * rng.standard_t(2, size=20_000)
    known = observed(rng, effects, np.full(20_000, 1e4))
    scales = np.concatenate([[0], np.geomspace(1e-3, 1, 25)])
    found = posterior_means(known, fit_prior(known, scales**2))

    def error(estimates):
        return np.square(estimates - effects).mean()

    by_one = [error(known.scores / (known.curvatures + s**-2)) for s in np.geomspace(1e-3, 10, 60)]
    assert error(found) < 0.95 * min(by_one)
    assert error(found) < 0.8 * error(known.scores / known.curvatures)


def test_effect_unlike_all_that_the_prior_was_fitted_to_is_kept(rng):
    nulls = observed(rng, np.zeros(5000), np.full(5000, 1e4))
    prior = fit_prior(nulls, np.array([0, 0.01, 0.1, 1]) ** 2)
    outlier = Effects(np.zeros(1), np.array([1e4]), np.array([1e4]))
    assert posterior_means(outlier, prior) == pytest.approx(1, rel=1e-2)


# -- what the counts say --------------------------------------------------------------------------


def test_sums_are_the_moments_of_the_cells_by_their_depths(rng):
    hidden, depths = rng.gamma(2, size=(N_CELLS, N_HIDDEN)), rng.integers(0, 300, N_CELLS)
    depths[:50] = 0  # without ATAC counts
    slopes = [torch.as_tensor(rng.normal(size=shape)) for shape in ((2, 3, N_HIDDEN), (2, 3))]
    sums = RateSums.of_no_cells(torch.nn.Linear(N_HIDDEN, 3).double())
    for i, cells in enumerate((slice(0, 150), slice(150, None))):
        cells = torch.as_tensor(hidden[cells]), torch.as_tensor(depths[cells])
        sums.add(*cells, [slope[i] for slope in slopes])
    basis = hidden_basis(sums)
    np.testing.assert_allclose(basis.mean, np.average(hidden, axis=0, weights=depths))
    covariance = basis.directions * basis.spreads @ basis.directions.T
    np.testing.assert_allclose(covariance, np.cov(hidden.T, aweights=depths, ddof=0))
    for total, slope in zip(sums[3:], slopes, strict=True):
        torch.testing.assert_close(total, 150 * slope[0] + 250 * slope[1])


def poisson_peak(rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hidden layer and depths of cells, and the counts of a peak in them."""
    hidden = rng.gamma(2, size=(N_CELLS, N_HIDDEN))
    depths = rng.integers(50, 300, N_CELLS).astype(float)
    planted = rng.normal(scale=0.1, size=N_HIDDEN)
    return hidden, depths, rng.poisson(depths * np.exp((hidden - 2) @ planted - 4))


def slopes_at(at: np.ndarray, hidden, depths, counts) -> np.ndarray:
    """Slopes of the log-likelihood of a Poisson peak by its bias, first, and its weights."""
    means = depths * np.exp(hidden @ at[1:] + at[0])
    return np.column_stack([np.ones(len(hidden)), hidden]).T @ (counts - means)


@pytest.mark.parametrize("left_at", [0.0, 0.4, 1.2])
def test_weights_left_short_of_the_mode_or_beyond_it_come_close_to_that_of_scipy(rng, left_at):
    hidden, depths, counts = peak = poisson_peak(rng)
    scale = 0.06

    def loss(at):
        means = depths * np.exp(hidden @ at[1:] + at[0])
        prior = np.concatenate([[0.0], at[1:] / scale**2])
        value = (means - counts * np.log(means)).sum() + at @ prior / 2
        return value, prior - slopes_at(at, *peak)

    start = np.concatenate([[np.log(counts.sum() / depths.sum())], np.zeros(N_HIDDEN)])
    mode = minimize(loss, start, jac=True, tol=1e-12).x
    at = start + left_at * (mode - start)
    bias_slope, *slopes = slopes_at(at, *peak)
    by_depth = depths[:, None] * hidden
    moments = (torch.as_tensor(m) for m in (depths.sum(), by_depth.sum(0), by_depth.T @ hidden))
    basis = hidden_basis(RateSums(*moments, torch.tensor(slopes), torch.tensor(bias_slope)))
    evidence = (np.array([v]) for v in (at[1:], counts.sum(), slopes, bias_slope))
    effects = Effects(*(of[0] for of in effects_of(basis, *evidence)))
    found = basis.directions @ posterior_means(
        effects, EffectPrior(np.ones(1), np.full(1, scale**2))
    )
    size = np.linalg.norm(mode[1:])
    assert np.linalg.norm(found - mode[1:]) < 0.2 * size
    if left_at != 1.2:  # where it starts is not where it ends
        assert np.linalg.norm(at[1:] - mode[1:]) > 0.5 * size


# -- the rates ------------------------------------------------------------------------------------


def trained(rng, left_at: float = 0.0, n_peaks: int = N_PEAKS) -> dict:
    """Arguments of the fit for peaks whose log-likelihood is quadratic about planted weights."""
    hidden, depths = rng.gamma(2, size=(N_CELLS, N_HIDDEN)), rng.integers(50, 300, N_CELLS)
    shares = depths / depths.sum()
    mean, covariance = shares @ hidden, np.cov(hidden.T, aweights=depths, ddof=0)
    best = rng.normal(scale=0.05, size=(n_peaks, N_HIDDEN))
    totals, bias_slopes = np.geomspace(1, 1e5, n_peaks).round(), rng.normal(size=n_peaks)
    totals[0] = 0
    weight = best + left_at * rng.normal(scale=0.05, size=best.shape)
    weight_slopes = totals[:, None] * (best - weight) @ covariance + np.outer(bias_slopes, mean)
    by_depth = depths[:, None] * hidden
    sums = (depths.sum(), by_depth.sum(0), by_depth.T @ hidden, weight_slopes, bias_slopes)
    return {
        "weight": weight,
        "bias": rng.normal(-4, 1, n_peaks),
        "totals": totals,
        "sums": RateSums(*(torch.as_tensor(total) for total in sums)),
        "scale": 0.3,
        "seed": 0,
    }


def known(arguments: dict) -> np.ndarray:
    """Which effects the counts say more of than the prior of the training."""
    spreads = hidden_basis(arguments["sums"]).spreads
    return np.outer(arguments["totals"], spreads) > N_HIDDEN / arguments["scale"] ** 2


def test_effects_that_counts_say_little_of_stay_and_others_shrink(rng):
    arguments = trained(rng)
    before, directions = arguments["weight"], hidden_basis(arguments["sums"]).directions
    weight, bias = fit_rates(**arguments)
    is_known = known(arguments)
    assert 0.2 < is_known.mean() < 0.8
    np.testing.assert_allclose(
        (weight @ directions)[~is_known], (before @ directions)[~is_known], atol=1e-12
    )
    sizes = (np.square((of @ directions)[is_known]).sum() for of in (weight, before))
    assert 0.5 < np.divide(*sizes) < 0.99
    untouched = ~is_known.any(1)
    np.testing.assert_array_equal(weight[untouched], before[untouched])
    np.testing.assert_array_equal(bias[untouched], arguments["bias"][untouched])


def test_rate_at_the_mean_of_the_hidden_units_stays(rng):
    arguments = trained(rng)
    weight, bias = fit_rates(**arguments)
    mean = hidden_basis(arguments["sums"]).mean
    expected = arguments["weight"] @ mean + arguments["bias"]
    np.testing.assert_allclose(weight @ mean + bias, expected, rtol=1e-10)
    assert np.abs(bias - arguments["bias"]).max() > 1e-3


def test_weights_that_the_training_left_elsewhere_are_fitted_to_the_same(rng):
    first, other = (trained(np.random.default_rng(0), left_at) for left_at in (0.0, 2.0))
    directions = hidden_basis(first["sums"]).directions
    fits = [(fit_rates(**arguments)[0] @ directions)[known(first)] for arguments in (first, other)]
    np.testing.assert_allclose(*fits, rtol=1e-6, atol=1e-9)


def test_peaks_of_all_blocks_are_fitted_alike(rng, monkeypatch):
    arguments = trained(rng)
    whole = fit_rates(**arguments)
    monkeypatch.setattr(_rate_fit, "_PEAKS_PER_BLOCK", 7)
    for found, expected in zip(fit_rates(**arguments), whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_prior_is_fitted_to_some_of_very_many_effects_the_same_by_the_same_seed(rng, monkeypatch):
    arguments = trained(rng, n_peaks=4000)
    of_all = fit_rates(**arguments)[0]
    monkeypatch.setattr(_rate_fit, "_MOST_EFFECTS", 3000)
    found, again, other = (fit_rates(**{**arguments, "seed": seed})[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(found, again)
    assert not np.array_equal(found, other)
    moved = np.square(of_all - arguments["weight"]).mean()
    assert np.square(of_all - found).mean() < 0.1 * moved


@pytest.mark.parametrize("change", ["no cells", "no counts", "little known"])
def test_all_rates_stay_where_nothing_is_known_of_them(rng, change):
    arguments = trained(rng)
    if change == "no cells":
        sums = RateSums.of_no_cells(torch.nn.Linear(N_HIDDEN, N_PEAKS))
        arguments |= {"sums": sums, "totals": np.zeros(N_PEAKS)}
    elif change == "no counts":
        arguments["totals"] = np.zeros(N_PEAKS)
    else:
        arguments["scale"] = 1e-4
    weight, bias = fit_rates(**arguments)
    np.testing.assert_array_equal(weight, arguments["weight"])
    np.testing.assert_array_equal(bias, arguments["bias"])
