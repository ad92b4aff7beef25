"""Likelihoods of sparse counts on a CPU, each in one compiled pass over its matrix.

Torch's operations each read and write arrays of the size of the block, and find the entries with a
count one by one by their place. Here a row of the block stays in cache from its logits to its
derivatives. numba compiles a kernel when it is first called, in about two seconds, and keeps it on
disk. A kernel runs on the thread that calls it, and others can run beside it.

A logit that is NaN makes the sum of its cell NaN.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

# Products and sums become one operation, and the sign of a zero may change. The order of
# operations, on which the reductions of the arguments below rest, and NaN are as written.
_AS_WRITTEN = {"contract", "nsz"}
_as_written = njit(nogil=True, fastmath=_AS_WRITTEN, error_model="numpy")
_in_any_order = njit(nogil=True, fastmath=_AS_WRITTEN | {"reassoc"})
_kernel = njit(cache=True, nogil=True, fastmath=_AS_WRITTEN, error_model="numpy")

_GENES_PER_PASS = 1024  # of which the eight arrays of a pass fill a first-level cache of 32 kB

_LOG2_E = np.float32(math.log2(math.e))
_LN2_HIGH = np.float32(355 / 512)  # few bits, so that its small multiples are exact
_LN2_LOW = np.float32(math.log(2) - 355 / 512)
_LARGEST_EXPONENT = np.float32(87)  # e^x and 1 / (1 + e^x) are normal numbers, e^-x too
_LEAST_FLOAT32, _LEAST_FLOAT64 = np.float32(math.exp(-87)), np.finfo(np.float64).tiny
_TAYLOR = [np.float32(1 / math.factorial(n)) for n in range(8)]
_T2, _T3, _T4, _T5, _T6, _T7 = _TAYLOR[2:]
_ONE, _TWO, _HALF = np.float32(1), np.float32(2), np.float32(0.5)
_THIRD, _FIFTH, _SEVENTH, _NINTH = (np.float32(1 / n) for n in (3, 5, 7, 9))
_SQRT_HALF_BITS = np.float32(math.sqrt(0.5)).view(np.int32)


def _exp(x: float) -> float:
    """e^x; in float32 to a unit in the last place, held between e^-87 and e^87."""
    return math.exp(x)


def _log(x: float) -> float:
    """Logarithm of a positive normal number; in float32 to two units in the last place."""
    return math.log(x)


def _exp_float32(x: np.float32) -> np.float32:
    # the comparisons are false for NaN, which passes: the last factor may be any number then
    x = -_LARGEST_EXPONENT if x < -_LARGEST_EXPONENT else x
    x = _LARGEST_EXPONENT if x > _LARGEST_EXPONENT else x
    n = np.floor(x * _LOG2_E + _HALF)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW  # at most half of log(2)
    p = _T2 + r * (_T3 + r * (_T4 + r * (_T5 + r * (_T6 + r * _T7))))
    p = _ONE + (r + r * r * p)
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


def _log_float32(x: np.float32) -> np.float32:
    bits = np.float32(x).view(np.int32)  # numba asks for the type here
    n = np.int32((bits - _SQRT_HALF_BITS) >> np.int32(23))
    m = np.int32(bits - (n << np.int32(23))).view(np.float32)  # x = m 2^n, m about 1
    f = m - _ONE
    s = f / (f + _TWO)  # log(m) = 2 artanh(s)
    z = s * s
    series = z * (_THIRD + z * (_FIFTH + z * (_SEVENTH + z * _NINTH)))
    log_m = _TWO * (s + s * series)
    # the last term is zero but for NaN, whose bits are a number above
    return np.float32(n) * _LN2_HIGH + (log_m + np.float32(n) * _LN2_LOW) + (x - x)


# numbers of a type: beside a literal, float32 becomes double precision in numba


def _one(like: float) -> float:
    """One, of the type of a number."""
    return type(like)(1)


def _least(like: float) -> float:
    """A probability of that type that is as good as zero, whose logarithm can be taken."""
    return type(like)(_LEAST_FLOAT64)


@overload(_exp, jit_options={"fastmath": _AS_WRITTEN}, strict=False)
def _exp_of_type(x: Any) -> Callable[[Any], Any]:
    return _exp_float32 if x == types.float32 else lambda x: math.exp(x)


@overload(_log, jit_options={"fastmath": _AS_WRITTEN}, strict=False)
def _log_of_type(x: Any) -> Callable[[Any], Any]:
    return _log_float32 if x == types.float32 else lambda x: math.log(x)


@overload(_one, jit_options={"fastmath": _AS_WRITTEN}, strict=False)
def _one_of_type(like: Any) -> Callable[[Any], Any]:
    return (lambda like: np.float32(1)) if like == types.float32 else (lambda like: 1.0)


@overload(_least, jit_options={"fastmath": _AS_WRITTEN}, strict=False)
def _least_of_type(like: Any) -> Callable[[Any], Any]:
    if like == types.float32:
        return lambda like: _LEAST_FLOAT32
    return lambda like: _LEAST_FLOAT64


@_as_written
def _sigmoid(logit: float) -> float:
    one = _one(logit)
    return one / (one + _exp(-logit))


@_as_written
def _log1p(e: float) -> float:
    """log(1 + e) of e from 0 to 1, whose own precision it has."""
    one = _one(e)
    total = one + e
    return _log(total) + (e - (total - one)) / total  # what the sum has rounded off


@_as_written
def _log_sigmoid(logit: float) -> float:
    zero = _one(logit) - _one(logit)
    return (zero if logit > zero else logit) - _log1p(_exp(-abs(logit)))


@_in_any_order
def _weighted_sum(values: Floats, weights: Floats) -> Any:
    total = values.dtype.type(0)  # of no values too
    for i in range(len(values)):
        total += values[i] * weights[i]
    return total


@_in_any_order
def _sum(values: Floats) -> Any:
    total = values.dtype.type(0)
    for i in range(len(values)):
        total += values[i]
    return total


@_as_written
def _zero_probability(excluded: float, rate: float) -> float:
    """P(y = 0) = 1 - tau + tau exp(-rate), held above zero."""
    probability = excluded + (_one(rate) - excluded) * _exp(-rate)
    least = _least(rate)
    return least if probability < least else probability


@_kernel
def zero_inflated_poisson(
    rate_logit: Floats,
    exclusion_logit: Floats,
    library: Floats,
    peak_weights: Floats,
    rows: Integers,
    per_column: Integers,
    values: Floats,
    log_factorials: Floats,
    sums: Floats,
    with_slopes: bool,
) -> None:
    """Sum the zero-inflated Poisson law of some peaks, and put its slopes in place of the logits.

    Shapes are not checked.

    The rate of a peak is ``library * sigmoid(rate_logit)``, and a zero takes its place with
    probability ``sigmoid(exclusion_logit)``. The terms of an entry are large, and cancel: they are
    added up before they enter the sum of their cell.

    Parameters
    ----------
    rate_logit
        ``(cells, peaks)``; overwritten by the derivative of the weighted sum, or lost.
    exclusion_logit
        ``(cells, peaks)``; overwritten by that by the inclusion logit (minus this), or lost.
    library
        ``(cells,)``, in counts.
    peak_weights
        ``(peaks,)``, factor on the terms of each peak.
    rows, per_column, values
        The counts, peak by peak: cell and value of each entry, once, and how many a peak has.
    log_factorials
        ``(entries,)``, log(y!).
    sums
        ``(cells,)``, becomes the weighted sums.
    with_slopes
        Whether the derivatives are wanted.
    """
    n_cells, n_peaks = rate_logit.shape
    one = _one(library[0])

    # Entries with a count: what their term has over that of a zero, and their slopes. In arrays of
    # their own: of the rows of one numba does not know that they are apart.
    excess, rate_at = np.empty_like(values), np.empty_like(values)
    excluded_at, log_library_at = np.empty_like(values), np.empty_like(values)
    log_library = np.empty_like(library)
    for cell in range(n_cells):
        log_library[cell] = _log(library[cell])
    k = 0
    for peak in range(n_peaks):
        for _ in range(per_column[peak]):
            rate_at[k] = rate_logit[rows[k], peak]
            excluded_at[k] = exclusion_logit[rows[k], peak]
            excess[k] = library[rows[k]]
            log_library_at[k] = log_library[rows[k]]
            k += 1
    for k in range(len(values)):
        a, b = rate_at[k], excluded_at[k]
        share, excluded = _sigmoid(a), _sigmoid(b)
        rate = excess[k] * share
        log_rate = log_library_at[k] + _log_sigmoid(a)
        log_count = values[k] * log_rate - log_factorials[k] + _log_sigmoid(-b) - rate
        excess[k] = log_count - _log(_zero_probability(excluded, rate))
        rate_at[k] = (one - share) * (values[k] - rate)
        excluded_at[k] = excluded

    # all as if they were zero; loops of few operations, of which a processor has several under way
    rate, zero = np.empty_like(peak_weights), np.empty_like(peak_weights)
    for cell in range(n_cells):
        share, excluded = rate_logit[cell], exclusion_logit[cell]
        for j in range(n_peaks):
            share[j] = _sigmoid(share[j])
        for j in range(n_peaks):
            excluded[j] = _sigmoid(excluded[j])
        for j in range(n_peaks):
            rate[j] = library[cell] * share[j]
            zero[j] = _zero_probability(excluded[j], rate[j])
        for j in range(n_peaks if with_slopes else 0):
            excluded_given_zero = excluded[j] / zero[j]
            through_sigmoid = rate[j] * (one - share[j])
            share[j] = peak_weights[j] * through_sigmoid * (excluded_given_zero - one)
            excluded[j] = peak_weights[j] * (excluded[j] - excluded_given_zero)
        for j in range(n_peaks):
            zero[j] = _log(zero[j])
        sums[cell] = _weighted_sum(zero, peak_weights)

    k = 0
    for peak in range(n_peaks):
        weight = peak_weights[peak]
        for _ in range(per_column[peak]):
            sums[rows[k]] += weight * excess[k]
            if with_slopes:
                rate_logit[rows[k], peak] = weight * rate_at[k]
                exclusion_logit[rows[k], peak] = weight * excluded_at[k]
            k += 1


@_kernel
def negative_binomial(
    log_scale: Floats,
    log_library: Floats,
    log_theta: Floats,
    theta: Floats,
    weights: Floats,
    columns: Integers,
    offsets: Integers,
    values: Floats,
    gamma_terms: Floats,
    gamma_slopes: Floats,
    sums: Floats,
    d_log_scale: Floats,
    d_log_theta: Floats,
    with_slopes: bool,
) -> None:
    """Sum the negative binomial law of some cells, and write its weighted slopes.

    Shapes are not checked.

    With s = log(mean / theta), the terms are ``-theta softplus(s) + x logsigmoid(s)`` and those of
    the gamma function.

    Parameters
    ----------
    log_scale
        ``(cells, genes)``.
    log_library
        ``(cells,)``.
    log_theta, theta
        ``(cells, genes)``, or ``(1, genes)`` where the cells share them.
    weights
        ``(cells,)``, factor on the slopes of each cell.
    columns, offsets, values
        The counts, cell by cell: gene and value of each entry, and where those of a cell begin.
    gamma_terms, gamma_slopes
        ``(entries,)``, lgamma(x + theta) - lgamma(theta) - log(x!), and its derivative by
        log(theta).
    sums
        ``(cells,)``, becomes the sums, without the weights.
    d_log_scale
        Like ``log_scale``; overwritten by the weighted derivatives.
    d_log_theta
        Like ``log_theta``; the weighted derivatives are added to it.
    with_slopes
        Whether the derivatives are wanted; where not, their arrays are not looked at.
    """
    n_cells, n_genes = log_scale.shape
    one = _one(log_library[0])
    nothing = one - one
    width = min(n_genes, _GENES_PER_PASS)
    ratio, e = np.empty(width, theta.dtype), np.empty(width, theta.dtype)
    term = np.empty(width, theta.dtype)
    most = np.max(offsets[1:] - offsets[:-1])
    ratio_at, slope_at = np.empty(most, theta.dtype), np.empty(most, theta.dtype)
    term_at = np.empty(most, theta.dtype)
    for cell in range(n_cells):
        own = cell if len(log_theta) > 1 else 0
        weight = weights[cell]

        # all as if they were zero; loops of few operations, as above
        total = nothing
        for start in range(0, n_genes, _GENES_PER_PASS):
            n = min(_GENES_PER_PASS, n_genes - start)
            of_block = slice(start, start + n)
            own_theta, own_log_theta = theta[own, of_block], log_theta[own, of_block]
            own_log_scale = log_scale[cell, of_block]
            for j in range(n):
                ratio[j] = own_log_scale[j] - own_log_theta[j] + log_library[cell]
                e[j] = _exp(-abs(ratio[j]))
            for j in range(n):
                softplus = (ratio[j] if ratio[j] > nothing else nothing) + _log1p(e[j])
                term[j] = own_theta[j] * softplus
            total -= _sum(term[:n])
            if not with_slopes:
                continue
            d_scale, d_theta = d_log_scale[cell, of_block], d_log_theta[own, of_block]
            for j in range(n):
                sigmoid = (one if ratio[j] > nothing else e[j]) / (one + e[j])
                slope = own_theta[j] * sigmoid
                d_scale[j] = -weight * slope
                d_theta[j] += weight * (slope - term[j])

        # entries with a count have further terms
        entries = slice(offsets[cell], offsets[cell + 1])
        genes, x = columns[entries], values[entries]
        gamma_term, gamma_slope = gamma_terms[entries], gamma_slopes[entries]
        n = len(genes)
        for k in range(n):
            j = genes[k]
            ratio_at[k] = log_scale[cell, j] - log_theta[own, j] + log_library[cell]
        for k in range(n):
            slope_at[k] = x[k] * _sigmoid(-ratio_at[k])
            term_at[k] = x[k] * _log_sigmoid(ratio_at[k]) + gamma_term[k]
        for k in range(n if with_slopes else 0):
            j = genes[k]
            d_log_scale[cell, j] += weight * slope_at[k]
            d_log_theta[own, j] += weight * (gamma_slope[k] - slope_at[k])
        sums[cell] = total + _sum(term_at[:n])
