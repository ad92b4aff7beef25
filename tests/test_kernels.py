"""Compiled likelihoods against NumPy, SciPy and the laws entry by entry."""

from copy import deepcopy

import numpy as np
import pytest
from numba import njit, types
from scipy.special import expit, gammaln
from scipy.stats import nbinom, poisson

from scmvp_scvi import _kernels

N_CELLS, N_FEATURES = 5, 2_500  # genes of two passes of 1,024 and one that is not full
ULP = np.finfo(np.float32).eps


def map_compiled(function, values: np.ndarray) -> np.ndarray:
    """Call a function that only compiled code takes with each value."""

    @njit
    def fill(values: np.ndarray, results: np.ndarray) -> None:
        for i in range(len(values)):
            results[i] = function(values[i])

    results = np.empty_like(values)
    fill(values, results)
    return results


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request) -> type:
    return request.param


def test_exp_in_float32_is_numpys_to_a_unit_in_the_last_place():
    x = np.linspace(-86.9, 86.9, 200_001, dtype=np.float32)
    expected = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(map_compiled(_kernels._exp, x), expected, rtol=ULP)


def test_exp_in_float32_stays_a_normal_number_and_keeps_nan():
    x = np.array([-np.inf, -1e4, 1e4, np.inf, np.nan], np.float32)
    expected = np.exp([-87.0, -87.0, 87.0, 87.0, np.nan])
    np.testing.assert_allclose(map_compiled(_kernels._exp, x), expected, rtol=ULP)


def test_log_in_float32_is_numpys_to_two_units_in_the_last_place():
    far = np.exp(np.linspace(-87, 87, 200_001)).astype(np.float32)
    near_one = np.linspace(0.5, 2, 200_001, dtype=np.float32)
    x = np.concatenate([far, near_one])
    expected = np.log(x.astype(np.float64))
    np.testing.assert_allclose(map_compiled(_kernels._log, x), expected, rtol=2 * ULP)
    assert np.isnan(map_compiled(_kernels._log, np.array([np.nan], np.float32)))


def test_log1p_keeps_the_precision_of_small_numbers():
    x = np.exp(np.linspace(-80, 0, 10_001)).astype(np.float32)
    expected = np.log1p(x.astype(np.float64))
    np.testing.assert_allclose(map_compiled(_kernels._log1p, x), expected, rtol=3 * ULP)


def test_log_sigmoid_of_infinity_is_a_limit_and_of_nan_is_nan(dtype):
    found = map_compiled(_kernels._log_sigmoid, np.array([np.inf, -np.inf, np.nan], dtype))
    assert found[0] == pytest.approx(0, abs=1e-37)
    assert found[1] == -np.inf
    assert np.isnan(found[2])


@pytest.mark.parametrize(
    ("helper", "n_arguments"),
    [("_sigmoid", 1), ("_log1p", 1), ("_log_sigmoid", 1), ("_zero_probability", 2)],
)
def test_no_literal_takes_a_helper_to_double_precision(helper, n_arguments):
    compiled, kinds = getattr(_kernels, helper), (types.float32,) * n_arguments
    compiled.compile(kinds)
    assert compiled.overloads[kinds].signature.return_type == types.float32


def by_peak(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell and value of each count, peak by peak, and the number of each peak."""
    peaks, cells = np.nonzero(counts.T)
    return cells, (counts > 0).sum(0), counts[cells, peaks]


def zip_terms(dtype: type, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Arguments of the kernel, and the counts written out."""
    counts = rng.poisson(0.1, (N_CELLS, N_FEATURES))
    counts[1] = 0
    cells, per_peak, values = by_peak(counts)
    arguments = {
        "rate_logit": rng.normal(-4, 2, counts.shape).astype(dtype),
        "exclusion_logit": rng.normal(-2, 2, counts.shape).astype(dtype),
        "library": rng.uniform(5, 50, N_CELLS).astype(dtype),
        "peak_weights": rng.uniform(0.5, 2, N_FEATURES).astype(dtype),
        "rows": cells.astype(np.int32),
        "per_column": per_peak.astype(np.int32),
        "values": values.astype(dtype),
        "log_factorials": gammaln(values + 1).astype(dtype),
        "sums": np.empty(N_CELLS, dtype),
        "with_slopes": True,
    }
    return arguments, counts


def zip_sums(arguments: dict[str, np.ndarray], counts: np.ndarray) -> np.ndarray:
    """Weighted sums by SciPy, in double precision."""
    a, b, library, weights = (
        arguments[key].astype(np.float64)
        for key in ("rate_logit", "exclusion_logit", "library", "peak_weights")
    )
    rate, excluded = library[:, None] * expit(a), expit(b)
    zero = np.log(excluded + (1 - excluded) * np.exp(-rate))
    count = np.log1p(-excluded) + poisson.logpmf(counts, rate)
    return np.where(counts > 0, count, zero) @ weights


def test_zero_inflated_poisson_sums_are_scipys(rng, dtype):
    arguments, counts = zip_terms(dtype, rng)
    expected = zip_sums(arguments, counts)
    _kernels.zero_inflated_poisson(*arguments.values())
    tolerance = 1e-12 if dtype == np.float64 else 3e-6
    np.testing.assert_allclose(arguments["sums"], expected, rtol=tolerance)


def test_zero_inflated_poisson_slopes_are_those_of_small_steps(rng):
    arguments, counts = zip_terms(np.float64, rng)
    step = 1e-6 * rng.normal(size=(2, *counts.shape))
    moved = [
        arguments
        | {
            "rate_logit": arguments["rate_logit"] + sign * step[0],
            "exclusion_logit": arguments["exclusion_logit"] - sign * step[1],
        }
        for sign in (1, -1)
    ]
    difference = zip_sums(moved[0], counts) - zip_sums(moved[1], counts)
    _kernels.zero_inflated_poisson(*arguments.values())
    slopes = np.stack([arguments["rate_logit"], arguments["exclusion_logit"]])
    np.testing.assert_allclose(2 * (slopes * step).sum((0, 2)), difference, rtol=1e-5)


def test_zero_inflated_poisson_of_a_zero_falls_with_its_rate_in_double_precision():
    one = np.ones(1)
    sums = np.empty(1)
    no_counts = np.zeros(0, np.int32), np.zeros(1, np.int32), np.zeros(0), np.zeros(0)
    logits = np.full((1, 1), 50.0), np.full((1, 1), -500.0)  # all of the library, never excluded
    _kernels.zero_inflated_poisson(*logits, 300 * one, one, *no_counts, sums, True)
    assert sums[0] == pytest.approx(-300)


@pytest.mark.parametrize("terms", ["zip", "nb"])
def test_sums_are_the_same_where_no_slopes_are_wanted(rng, dtype, terms):
    kernel = _kernels.zero_inflated_poisson if terms == "zip" else _kernels.negative_binomial
    arguments, _ = zip_terms(dtype, rng) if terms == "zip" else nb_terms(dtype, rng, shared=True)
    without = deepcopy(arguments) | {"with_slopes": False}
    if terms == "nb":
        without |= {key: np.empty((0, 0), dtype) for key in ("d_log_scale", "d_log_theta")}
    kernel(*arguments.values())
    kernel(*without.values())
    np.testing.assert_array_equal(without["sums"], arguments["sums"])


def test_zero_inflated_poisson_is_finite_at_extreme_logits(rng, dtype):
    arguments, _ = zip_terms(dtype, rng)
    arguments["rate_logit"] *= 1e4
    arguments["exclusion_logit"] *= 1e4
    _kernels.zero_inflated_poisson(*arguments.values())
    for key in ("rate_logit", "exclusion_logit", "sums"):
        assert np.isfinite(arguments[key]).all()


@pytest.mark.parametrize("key", ["rate_logit", "exclusion_logit"])
@pytest.mark.parametrize("has_count", [False, True])
def test_zero_inflated_poisson_of_a_logit_that_is_nan_is_nan(rng, dtype, key, has_count):
    arguments, counts = zip_terms(dtype, rng)
    peak = np.flatnonzero((counts[0] > 0) == has_count)[0]
    arguments[key][0, peak] = np.nan
    _kernels.zero_inflated_poisson(*arguments.values())
    assert np.isnan(arguments["sums"]).tolist() == [True] + [False] * (N_CELLS - 1)


def nb_terms(
    dtype: type, rng: np.random.Generator, shared: bool
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Arguments of the kernel, and the counts written out."""
    counts = rng.poisson(0.3, (N_CELLS, N_FEATURES))
    counts[1] = 0
    cells, genes = np.nonzero(counts)
    values = counts[cells, genes]
    log_theta = rng.normal(size=(1 if shared else N_CELLS, N_FEATURES))
    own = np.broadcast_to(log_theta, counts.shape)[cells, genes]
    log_scale = rng.normal(-7, 2, counts.shape)
    arguments = {
        "log_scale": log_scale,
        "log_library": rng.uniform(5, 7, N_CELLS),
        "log_theta": log_theta,
        "theta": np.exp(log_theta),
        "weights": rng.uniform(0.5, 2, N_CELLS),
        "columns": genes.astype(np.int32),
        "offsets": np.r_[0, np.bincount(cells, minlength=N_CELLS).cumsum()].astype(np.int32),
        "values": values,
        "gamma_terms": gammaln(values + np.exp(own)) - gammaln(np.exp(own)) - gammaln(values + 1),
        "gamma_slopes": np.zeros(len(values)),
        "sums": np.empty(N_CELLS),
        "d_log_scale": np.empty_like(log_scale),
        "d_log_theta": np.zeros_like(log_theta),
    }
    integers = ("columns", "offsets")
    typed = {key: a if key in integers else a.astype(dtype) for key, a in arguments.items()}
    return {**typed, "with_slopes": True}, counts


def nb_sums(arguments: dict[str, np.ndarray], counts: np.ndarray) -> np.ndarray:
    """Sums by SciPy, in double precision."""
    log_scale, log_library, log_theta = (
        arguments[key].astype(np.float64) for key in ("log_scale", "log_library", "log_theta")
    )
    mean, theta = np.exp(log_scale + log_library[:, None]), np.exp(log_theta)
    return nbinom.logpmf(counts, theta, theta / (theta + mean)).sum(1)


@pytest.mark.parametrize("shared", [True, False])
def test_negative_binomial_sums_are_scipys(rng, dtype, shared):
    arguments, counts = nb_terms(dtype, rng, shared)
    _kernels.negative_binomial(*arguments.values())
    tolerance = 1e-11 if dtype == np.float64 else 3e-6
    np.testing.assert_allclose(arguments["sums"], nb_sums(arguments, counts), rtol=tolerance)


@pytest.mark.parametrize("shared", [True, False])
def test_negative_binomial_slopes_by_the_scale_are_those_of_small_steps(rng, shared):
    arguments, counts = nb_terms(np.float64, rng, shared)
    step = 1e-6 * rng.normal(size=counts.shape)
    up, down = (
        nb_sums(arguments | {"log_scale": arguments["log_scale"] + sign * step}, counts)
        for sign in (1, -1)
    )
    _kernels.negative_binomial(*arguments.values())
    found = 2 * (arguments["d_log_scale"] * step).sum(1)
    np.testing.assert_allclose(found, arguments["weights"] * (up - down), rtol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_negative_binomial_slopes_in_float32_are_close_to_double_precision(rng, shared):
    double, _ = nb_terms(np.float64, rng, shared)
    single = {
        key: a.astype(np.float32) if getattr(a, "dtype", None) == np.float64 else a
        for key, a in double.items()
    }
    for arguments in (double, single):
        _kernels.negative_binomial(*arguments.values())
    for key in ("d_log_scale", "d_log_theta"):
        np.testing.assert_allclose(single[key], double[key], rtol=3e-5, atol=1e-6)


def test_negative_binomial_of_a_shared_dispersion_adds_up_the_slopes_of_the_cells(rng):
    shared, _ = nb_terms(np.float64, rng, shared=True)
    own = {
        **deepcopy(shared),
        "log_theta": shared["log_theta"].repeat(N_CELLS, 0),
        "theta": shared["theta"].repeat(N_CELLS, 0),
        "d_log_theta": np.zeros((N_CELLS, N_FEATURES)),
    }
    before = rng.normal(size=N_FEATURES)
    shared["d_log_theta"] += before  # what other cells have added
    for arguments in (shared, own):
        _kernels.negative_binomial(*arguments.values())
    np.testing.assert_allclose(shared["sums"], own["sums"], rtol=1e-12)
    np.testing.assert_allclose(
        shared["d_log_theta"][0], before + own["d_log_theta"].sum(0), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("has_count", [False, True])
def test_negative_binomial_of_a_scale_that_is_nan_is_nan(rng, dtype, has_count):
    arguments, counts = nb_terms(dtype, rng, shared=True)
    gene = np.flatnonzero((counts[0] > 0) == has_count)[0]
    arguments["log_scale"][0, gene] = np.nan
    _kernels.negative_binomial(*arguments.values())
    assert np.isnan(arguments["sums"]).tolist() == [True] + [False] * (N_CELLS - 1)
