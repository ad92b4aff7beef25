"""Peaks like a given one, but on other chromosomes: what a link is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import stats
from scipy.spatial import KDTree

from scmvp_scvi._validate import shown, warn_user

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FEWEST_MATCHED = 20
# Of fewer peaks than so many times those to match, the nearest are hardly nearer than the others.
_CHOICE_PER_MATCHED = 3
# Standardised null scores that each tested pair adds to the common null distribution: with 25, a
# lone link among any number of pairs can still fall below a false discovery rate of 5 %.
_KEPT_PER_PAIR = 25
# Values in single precision differ by rounding where they are equal, such as those of a gene in
# one cell: a deviation counts in units of no less, of scores and null scores alike.
_LEAST_DEVIATION = 1e-4
# Scores of sparse features are often tied, and differ by rounding with the order of the cells.
_TIED_WITHIN = 1e-6


class NullScores(NamedTuple):
    """Pairs compared with their matched peaks.

    ``z_score`` is ``(pairs,)``, the score in standard deviations above the mean of its null
    scores; ``null_z_score`` holds examples of what it is where there is no link, of the pairs
    that have a score.
    """

    z_score: Floats
    null_z_score: Floats


def matching_features(accessibility: Floats, gc: Floats | None) -> Floats:
    """Ranks that peaks are matched by, from 0 to 1.

    Parameters
    ----------
    accessibility, gc
        ``(peaks,)``, mean accessibility and GC content.

    Returns
    -------
    ``(peaks, 1 or 2)``.
    """
    quantities = [accessibility] if gc is None else [accessibility, gc]
    return np.column_stack([stats.rankdata(values) / values.size for values in quantities])


def draw_pool(
    accessibility: Floats, n_background: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw the peaks that matched ones are chosen from.

    Accessibility differs most from one rank to the next among the most accessible peaks: an even
    draw has too few like them. About half of the draw is therefore even, and half has more weight
    on the more accessible peaks.

    Parameters
    ----------
    accessibility
        ``(peaks,)``; peaks of none are not drawn.
    n_background
        Peaks to draw, or all if there are fewer.
    rng
        Draws them.

    Returns
    -------
    Positions in `accessibility`, in ascending order.
    """
    accessible = np.flatnonzero(accessibility > 0)
    by_rank = 1 / stats.rankdata(-accessibility[accessible], method="ordinal")
    weight = 1 + by_rank / by_rank.mean()
    # sequential Poisson sampling: the chance of a peak is proportional to its weight, up to 1
    sampling_key = rng.permutation(accessible.size) / weight
    return np.sort(accessible[np.argsort(sampling_key)[:n_background]])


def count_elsewhere(
    chrom: NDArray[np.object_], pool: NDArray[np.int64], peaks: NDArray[np.int64]
) -> dict[str, int]:
    """Count the peaks to choose from that are on other chromosomes, by the chromosome of a peak.

    Parameters
    ----------
    chrom, pool
        As in `match_peaks`.
    peaks
        Positions of all peaks to match, on any chromosomes.
    """
    named, number = np.unique(chrom[pool].astype(str), return_counts=True)
    n_on = dict(zip(named, number, strict=True))
    return {name: pool.size - n_on.get(name, 0) for name in dict.fromkeys(chrom[peaks])}


def warn_about_little_choice(n_elsewhere: Mapping[str, int], n_matched: int) -> None:
    """Warn where so few peaks are on other chromosomes that matched ones are hardly like a peak.

    Parameters
    ----------
    n_elsewhere
        What `count_elsewhere` returned.
    n_matched
        Peaks to match with each.
    """
    fewest = min(n_elsewhere.values())
    if FEWEST_MATCHED <= fewest < _CHOICE_PER_MATCHED * n_matched:  # below, `match_peaks` refuses
        few = [name for name, n in n_elsewhere.items() if n < _CHOICE_PER_MATCHED * n_matched]
        lower = fewest // _CHOICE_PER_MATCHED
        way_out = f"Pass `n_matched={lower}`" if lower >= FEWEST_MATCHED else "Lower `n_matched`"
        warn_user(
            f"`n_matched={n_matched}` peaks are matched with each peak, but of those to choose "
            f"from as few as {fewest} are on other chromosomes than the gene, for genes on "
            f"{shown(few)}: matched peaks are hardly like the peak in accessibility, and p-values "
            f"of the most accessible peaks are too small. {way_out}, raise `n_background`, pass "
            "the peaks of more chromosomes, or `n_matched=0` to have scores without p-values.",
        )


def match_peaks(
    features: Floats,
    chrom: NDArray[np.object_],
    pool: NDArray[np.int64],
    peaks: NDArray[np.int64],
    n_matched: int,
) -> NDArray[np.int64]:
    """Find the peaks of a pool that are most like some peaks of one chromosome, on the others.

    Parameters
    ----------
    features
        ``(all peaks, features)``, what peaks are matched by.
    chrom
        ``(all peaks,)``.
    pool
        Positions of the peaks to choose from.
    peaks
        Positions of the peaks to match, all on one chromosome.
    n_matched
        Peaks to find for each.

    Returns
    -------
    ``(peaks, n_matched)``, positions in `pool`, the nearest first; fewer columns where the pool
    has fewer peaks.

    Raises
    ------
    ValueError
        If the pool has hardly a peak on other chromosomes.
    """
    elsewhere = np.flatnonzero(chrom[pool] != chrom[peaks[0]])
    if elsewhere.size < FEWEST_MATCHED:
        raise ValueError(
            f"The null needs at least {FEWEST_MATCHED} varying peaks on chromosomes other than "
            f"that of the gene, but for `{chrom[peaks[0]]}` there are {elsewhere.size}. Raise "
            "`n_background`, pass the peaks of more chromosomes, or `n_matched=0` to have scores "
            "without p-values."
        )
    n_matched = min(n_matched, elsewhere.size)
    _, nearest = KDTree(features[pool[elsewhere]]).query(features[peaks], k=n_matched)
    return elsewhere[nearest]


def compare_with_null(scores: Floats, null: Floats) -> NullScores:
    """Standardise scores, and some of the null scores, by the null scores of the same pair.

    Parameters
    ----------
    scores
        ``(pairs,)``; NaN where a pair is not tested.
    null
        ``(pairs, n_matched)``, scores of the same gene with the matched peaks, the nearest first.
    """
    n = null.shape[1]
    mean, variance = null.mean(1, keepdims=True), null.var(1, ddof=1, keepdims=True)
    # from the nearest to the farthest, and the same whichever pairs stand beside this one
    kept = np.linspace(0, n - 1, min(n, _KEPT_PER_PAIR)).round().astype(int)
    deviation = null[:, kept] - mean
    # Each is compared with the n - 1 others, as the score is with peaks that are not its own.
    deviation_of_others = deviation * n / (n - 1)
    variance_of_others = ((n - 1) * variance - deviation * deviation_of_others) / (n - 2)
    least = _LEAST_DEVIATION**2
    z_score = (scores[:, None] - mean) / np.sqrt(variance.clip(least))
    null_z_score = deviation_of_others / np.sqrt(variance_of_others.clip(least))
    # Pairs that are not tested, of peaks without counts, are matched with the least accessible
    # peaks, whose null scores have the heaviest tails: they are no part of the common null.
    null_z_score = null_z_score[np.isfinite(scores)]
    return NullScores(z_score[:, 0], null_z_score[np.isfinite(null_z_score)])


def empirical_p_values(z_score: Floats, null_z_score: Floats, alternative: str) -> Floats:
    """Share of the null scores that are at least as extreme as each score, itself included.

    Parameters
    ----------
    z_score
        ``(pairs,)``; NaN stays NaN.
    null_z_score
        ``(null scores,)``. Those that differ by rounding alone are as extreme.
    alternative
        ``"greater"``, ``"less"`` or ``"two-sided"``.

    Returns
    -------
    ``(pairs,)``, never 0.
    """
    if alternative == "less":
        z_score, null_z_score = -z_score, -null_z_score
    elif alternative == "two-sided":
        z_score, null_z_score = np.abs(z_score), np.abs(null_z_score)
    null = np.sort(null_z_score)
    n_extreme = null.size - np.searchsorted(null, z_score - _TIED_WITHIN, side="left")
    return np.where(np.isfinite(z_score), (1 + n_extreme) / (1 + null.size), np.nan)
